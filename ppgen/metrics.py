"""Distances between samples and data, in the features of some extractor.

Features are (n, d), of samples and of as many held-out examples of the data. Where torchmetrics
has the formula, its formula is used.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

GROUPS = 10  # that a jackknife deletes in turn
ROWS = 1000  # of a table of distances at once
# Samples of each set that a metric needs; fid needs one more than there are features.
NEEDED = {"fid": 20, "kid": 20, "inception": 20, "precision_recall": 4, "c2st": 20,
          "neighbours": 20, "classes": 20}  # fmt: skip


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error.

    Attributes:
        value: the number.
        stderr: its standard error, see each metric for what it is over; None where there is none.
        note: what else there is to say of it.
    """

    value: float
    stderr: float | None = None
    note: str = ""


def fid(samples: Tensor, reference: Tensor) -> Estimate:
    """Frechet distance of Gaussians: ||m - m_r||^2 + tr(C + C_r - 2 (C C_r)^(1/2)).

    Its expectation for samples of the data themselves is above 0, by an amount that falls as 1/n:
    only numbers of one n compare (Heusel et al. 2017; Chong and Forsyth 2020 on the bias).

    Args:
        samples: features of samples, (n, d).
        reference: features of data, (m, d).

    Returns:
        The distance by torchmetrics in double precision, and the standard error of the value at
        this n by the jackknife over ten groups of samples and examples.

    Raises:
        ValueError: fewer than d + 1 of either, whose covariance would be singular.
    """
    _same_features(samples, reference)
    count, dims = min(len(samples), len(reference)), samples.shape[1]
    need("fid", count, dims)
    return Estimate(_fid(samples, reference), _jackknife(_fid, samples, reference))


def _fid(samples: Tensor, reference: Tensor) -> float:
    from torchmetrics.image.fid import FrechetInceptionDistance

    network = nn.Identity()
    network.num_features = samples.shape[1]  # type: ignore[assignment]
    metric = FrechetInceptionDistance(feature=network, normalize=True).to(samples.device)
    metric.update(reference.double(), real=True)
    metric.update(samples.double(), real=False)
    return metric.compute().item()


def kid(samples: Tensor, reference: Tensor) -> Estimate:
    """Squared maximum mean discrepancy with the kernel (x . y / d + 1)^3, unbiased.

    The U-statistic over all pairs (Binkowski et al. 2018, equation 4; Gretton et al. 2012). Of two
    independent sets of the data it is 0 in expectation, and so at times below 0. Sets that both
    hold each class in the same numbers, as stratified splits do, are more alike than independent
    ones: its expectation lies slightly below 0 then, at times by some standard errors.
    torchmetrics averages the same statistic over random subsets, and its deviation is that of a
    subset, not an error of the mean.

    Args:
        samples: features of samples, (n, d).
        reference: features of data, (m, d).

    Returns:
        The value, and its standard error over samples and examples by the jackknife over 20 groups
        (at a value near 0 up to 1.4 times too large).
    """
    from torchmetrics.image.kid import poly_kernel

    _same_features(samples, reference)
    need("kid", min(len(samples), len(reference)), samples.shape[1])
    sets = [part.double().tensor_split(2 * GROUPS) for part in (samples, reference)]
    sizes = [samples.new_tensor([len(g) for g in groups]).double() for groups in sets]
    count = len(sets[0])

    def sums(one: int, other: int) -> Tensor:
        """Sums of the kernel between groups, (groups, groups); of a point with itself left out."""
        every = torch.cat(sets[other])
        rows = []
        for g, left in enumerate(sets[one]):
            by_point = poly_kernel(left, every).sum(0).split([len(part) for part in sets[other]])
            rows.append(torch.stack([part.sum() for part in by_point]))
            if one == other:
                rows[-1][g] -= ((left.square().sum(1) / left.shape[1] + 1) ** 3).sum()
        return torch.stack(rows)

    between = [sums(0, 0), sums(1, 1), sums(0, 1)]

    def value(kept: Tensor) -> Tensor:
        n, m = (kept @ size for size in sizes)
        xx, yy, xy = (kept @ table @ kept for table in between)
        return xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * xy / (n * m)

    every = torch.ones(count, dtype=torch.float64, device=samples.device)
    left_out = torch.stack([value(every - one) for one in torch.diag(every)])
    return Estimate(value(every).item(), _spread(left_out))


def inception(logits: Tensor) -> Estimate:
    """Inception score exp(E KL(p(y | x) || p(y))), from 1 to the number of classes.

    Salimans et al. (2016), over all samples at once rather than in ten parts, whose score would be
    lower the fewer there are.

    Args:
        logits: of a classifier on samples, (n, classes).

    Returns:
        The score by torchmetrics, with its standard error over samples by the jackknife.
    """
    need("inception", len(logits), 0)
    return Estimate(_inception(logits), _jackknife(_inception, logits))


def _inception(logits: Tensor) -> float:
    from torchmetrics.image.inception import InceptionScore

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # That it keeps the logits, which it was given; and that one part has no deviation.
        warnings.simplefilter("ignore", UserWarning)
        metric = InceptionScore(feature=nn.Identity(), splits=1)
        metric.update(logits.double().cpu())
        return metric.compute()[0].item()


def precision_recall(samples: Tensor, reference: Tensor, k: int = 3) -> tuple[Estimate, Estimate]:
    """Improved precision and recall: shares of one set within balls about the other.

    Precision is the share of samples that lie in a ball about an example of the data, whose radius
    is the distance to its k-th nearest neighbour among the data; recall the share of the data in
    such balls about samples (Kynkaanniemi et al. 2019, equations 1 and 2; k = 3 there).

    Args:
        samples: features of samples, (n, d).
        reference: features of data, (m, d).
        k: which neighbour.

    Returns:
        Precision and recall, each with the binomial standard error of the share, the balls given.

    Raises:
        ValueError: k or fewer of either.
    """
    _same_features(samples, reference)
    need("precision_recall", min(len(samples), len(reference)), 0, k + 1)
    return _within(samples, reference, k), _within(reference, samples, k)


def _within(points: Tensor, centres: Tensor, k: int) -> Estimate:
    radii = torch.cat([d.kthvalue(k + 1, dim=1).values for d in _distances(centres, centres)])
    # A distance and its mirror image may differ in the last bits.
    inside = torch.cat([(d <= radii * (1 + 1e-9)).any(1) for d in _distances(points, centres)])
    return _share(inside)


def c2st(samples: Tensor, reference: Tensor, seed: int = 0) -> Estimate:
    """Classifier two-sample test: how well a classifier tells samples from data, held out.

    A network of 20 rectified units is trained on half of both sets, and its accuracy on the rest
    is 1/2 in expectation for samples of the data (Lopez-Paz and Oquab 2017, section 3). Equal
    numbers of both are taken.

    Args:
        samples: features of samples, (n, d).
        reference: features of data, (m, d).
        seed: of the halves and of the network's start.

    Returns:
        The accuracy with its binomial standard error over held-out points; the note holds the
        p-value of "no different", from N(1/2, 1 / (4 n)).
    """
    import numpy as np
    from scipy.stats import norm
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    _same_features(samples, reference)
    count = min(len(samples), len(reference))
    need("c2st", count, 0)
    x = torch.cat([samples[:count], reference[:count]]).double().cpu().numpy()
    y = np.repeat([0, 1], count)
    x, held_out, y, truth = train_test_split(x, y, test_size=0.5, stratify=y, random_state=seed)
    batch = min(64, len(x))
    # Some 3,000 steps at least, and no more epochs than 100 of them: few data need many.
    epochs = max(10, min(100, 3000 * batch // len(x)))
    network = MLPClassifier((20,), batch_size=batch, max_iter=epochs, random_state=seed)
    classifier = make_pipeline(StandardScaler(), network)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it might go on, as ConvergenceWarning
        classifier.fit(x, y)
    right = torch.from_numpy(classifier.predict(held_out) == truth)
    found = _share(right)
    p = norm.sf((found.value - 0.5) * 2 * math.sqrt(len(right)))
    return Estimate(found.value, found.stderr, f"p {p:.2g}")


def neighbours(
    samples: Tensor, reference: Tensor, training: Tensor, seed: int = 0
) -> tuple[Estimate, Estimate]:
    """Whether samples lie nearer to the training set than new data do: memorisation.

    With d the distance to the nearest training example, the first number is
    P(d(sample) < d(held-out example)), ties half: 1/2 for samples of the data, near 1 for copies of
    the training set, below 1/2 for samples away from it. The second is C_T of Meehan et al. (2020,
    "A non-parametric test to detect data-copying in generative models", section 4): the same
    comparison as a Mann-Whitney z-score in each of up to ten cells of space (k-means of the
    training set), averaged with the held-out examples' weights. Within a cell distances are of one
    scale, so that copies where data are sparse are not taken for new because data elsewhere are
    dense. Below -3 is copying, above 3 too far away.

    Args:
        samples: features of samples, (n, d).
        reference: features of held-out data, (m, d).
        training: features of the training set, (t, d).
        seed: of k-means.

    Returns:
        The share with its standard error over samples and held-out examples (DeLong et al. 1988)
        and, as a note, the one-sided p-value of Mann and Whitney's test; C_T with its deviation
        were samples and data alike.
    """
    from scipy.stats import mannwhitneyu

    _same_features(samples, reference)
    _same_features(samples, training)
    need("neighbours", min(len(samples), len(reference)), 0)
    ours, theirs = (
        torch.cat([d.min(1).values for d in _distances(part, training)]).cpu()
        for part in (samples, reference)
    )
    # For each point the share of the other set that is farther, or nearer; ties half.
    farther, nearer = 1 - _below(ours, theirs), _below(theirs, ours)
    error = math.sqrt(farther.var() / len(farther) + nearer.var() / len(nearer))
    p = mannwhitneyu(ours, theirs, alternative="less", method="asymptotic").pvalue
    share = Estimate(farther.mean().item(), error, f"p {p:.2g}")
    return share, _data_copying(samples, reference, training, (ours, theirs), seed)


def _below(points: Tensor, others: Tensor) -> Tensor:
    """For each point the share of the others that are below it, ties half."""
    others = others.sort().values
    low = torch.searchsorted(others, points, right=False)
    high = torch.searchsorted(others, points, right=True)
    return (low + high).double() / (2 * len(others))


def _data_copying(
    samples: Tensor, reference: Tensor, training: Tensor, distances: tuple, seed: int
) -> Estimate:
    """C_T over the cells that hold at least eight of both; over all of space where none does."""
    from sklearn.cluster import KMeans

    count = max(1, min(10, len(reference) // 30))
    cells = KMeans(min(count, len(training)), n_init=1, random_state=seed)
    cells.fit(training[: 10 * ROWS].double().cpu().numpy())
    homes = [
        torch.from_numpy(cells.predict(part.double().cpu().numpy())).long()
        for part in (samples, reference)
    ]
    weights, scores = [], []
    for cell in range(cells.n_clusters):
        ours, theirs = (d[home == cell] for d, home in zip(distances, homes, strict=True))
        if min(len(ours), len(theirs)) >= 8:
            weights.append(len(theirs))
            scores.append(_z_score(ours, theirs))
    if not scores:
        weights, scores = [1], [_z_score(*distances)]
    share = torch.tensor(weights).double() / sum(weights)
    value = (share * torch.tensor(scores)).sum().item()
    return Estimate(value, share.square().sum().sqrt().item(), f"{len(scores)} cells")


def _z_score(ours: Tensor, theirs: Tensor) -> float:
    """Mann and Whitney's U of ours above theirs in its standard deviations, corrected for ties."""
    n, m = len(ours), len(theirs)
    ties = torch.cat([ours, theirs]).unique(return_counts=True)[1].double()
    correction = (ties**3 - ties).sum().item() / ((n + m) * (n + m - 1))
    variance = n * m / 12 * (n + m + 1 - correction)
    surplus = n * m * (_below(ours, theirs).mean().item() - 0.5)
    return surplus / math.sqrt(variance) if variance > 0 else 0.0


def classes(logits: Tensor, reference: Tensor) -> tuple[Estimate, Estimate]:
    """Which classes a classifier finds among samples, and how unlike their shares are the data's.

    Args:
        logits: of samples, (n, classes).
        reference: of data, (m, classes): judged by the same classifier, so that its errors cancel.

    Returns:
        How many classes are found at all, with the entropy of their shares as a note; and the
        total variation between the shares, sum |p - q| / 2, with its standard error over samples
        and examples by the jackknife.
    """
    _same_features(logits, reference)
    need("classes", min(len(logits), len(reference)), 0)
    total = logits.shape[1]
    shares = [_shares(part) for part in (logits, reference)]
    entropies = [torch.special.entr(share).sum().item() for share in shares]
    found = int((shares[0] > 0).sum())
    note = f"of {total}; entropy {entropies[0]:.2f} nats, the data's {entropies[1]:.2f}"
    variation = Estimate(_variation(logits, reference), _jackknife(_variation, logits, reference))
    return Estimate(float(found), None, note), variation


def _shares(logits: Tensor) -> Tensor:
    counts = logits.argmax(1).bincount(minlength=logits.shape[1]).double()
    return counts / counts.sum()


def _variation(logits: Tensor, reference: Tensor) -> float:
    return (_shares(logits) - _shares(reference)).abs().sum().item() / 2


# Parts ----------------------------------------------------------------------------------------


def need(metric: str, count: int, dims: int, needed: int | None = None) -> None:
    """Refuse a metric that there are too few samples for.

    Raises:
        ValueError: how many it needs, and why.
    """
    if metric == "fid" and count <= dims:
        raise ValueError(
            f"fid needs more samples than features, {dims + 1:,} here, for covariances of full "
            f"rank; got {count:,}: take more samples, an extractor of fewer features, or kid"
        )
    needed = NEEDED[metric] if needed is None else needed
    if count < needed:
        raise ValueError(f"{metric} needs at least {needed} samples of each set; got {count}")


def _same_features(one: Tensor, other: Tensor) -> None:
    if one.ndim != 2 or other.ndim != 2 or one.shape[1] != other.shape[1]:
        raise ValueError(
            f"features are of shapes {tuple(one.shape)} and {tuple(other.shape)}: expected (n, d) "
            "and (m, d)"
        )


def _distances(points: Tensor, others: Tensor):
    """Euclidean distances of points to others, some rows at a time; of equals exactly 0."""
    others = others.double()
    # By matrix products, whose rounding would keep equals a little apart.
    nothing = 1e-7 * others.square().sum(1).max().sqrt()
    for rows in points.double().split(ROWS):
        found = torch.cdist(rows, others, compute_mode="use_mm_for_euclid_dist")
        yield torch.where(found <= nothing, 0.0, found)


def _share(hits: Tensor) -> Estimate:
    """A share with its binomial standard error."""
    share = hits.double().mean().item()
    return Estimate(share, math.sqrt(share * (1 - share) / len(hits)))


def _jackknife(statistic: Callable[..., float], *sets: Tensor) -> float:
    """Standard error of a statistic of sets of points, without each of ten groups in turn."""
    groups = [part.tensor_split(GROUPS) for part in sets]
    values = [
        statistic(*(torch.cat(own[:g] + own[g + 1 :]) for own in groups)) for g in range(GROUPS)
    ]
    return _spread(torch.tensor(values, dtype=torch.float64))


def _spread(left_out: Tensor) -> float:
    """The jackknife's standard error, from values that each leave one group out."""
    count = len(left_out)
    return math.sqrt((count - 1) * left_out.var(correction=0).item())
