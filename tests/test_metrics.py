"""Metrics of samples against closed forms, brute force and what must hold of any distance."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from ppgen import metrics


def normal(n, d, seed=0, shift=0.0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return shift + scale * torch.randn(n, d, generator=generator)


# FID ------------------------------------------------------------------------------------------


def closed_form(mean, cov, other_mean, other_cov):
    root = sqrtm(cov @ other_cov).real
    gap = mean - other_mean
    return gap @ gap + np.trace(cov + other_cov - 2 * root)


def test_fid_of_two_gaussians_is_the_closed_form():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3, 3)) / 2
    means = np.array([[0.0, 1.0, -1.0], [0.5, 0.0, 0.3]])
    covs = [a @ a.T + 0.3 * np.eye(3), b @ b.T + 0.3 * np.eye(3)]
    x, y = (
        torch.from_numpy(rng.multivariate_normal(m, c, 40_000))
        for m, c in zip(means, covs, strict=True)
    )
    exact = closed_form(means[0], covs[0], means[1], covs[1])
    found = metrics.fid(x, y)
    assert 0 < found.stderr < 0.03 * exact
    assert abs(found.value - exact) < 4 * found.stderr
    # of the very moments that were estimated, in double precision
    moments = [(part.numpy().mean(0), np.cov(part.numpy().T)) for part in (x, y)]
    assert found.value == pytest.approx(closed_form(*moments[0], *moments[1]), rel=1e-8)


def test_fid_of_a_set_with_itself_is_zero_and_it_has_a_floor_of_its_size():
    x = normal(300, 5)
    assert abs(metrics.fid(x, x).value) < 1e-6
    small, large = (
        np.mean([metrics.fid(normal(n, 5, 2 * k), normal(n, 5, 2 * k + 1)).value
                 for k in range(8)])
        for n in (100, 1000)
    )  # fmt: skip
    assert small > 5 * large > 0


def test_fid_needs_more_samples_than_features():
    with pytest.raises(
        ValueError, match=r"fid needs more samples than features, 31 here, .* got 30"
    ):
        metrics.fid(normal(30, 30), normal(30, 30, 1))
    assert metrics.fid(normal(31, 30), normal(31, 30, 1)).value > 0


# KID ------------------------------------------------------------------------------------------


def kid_by_hand(x, y):
    """Every pair by a loop, of a point with itself left out."""

    def kernel(a, b):
        return (float(a @ b) / len(a) + 1) ** 3

    n, m = len(x), len(y)
    xx = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j)
    yy = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j)
    xy = sum(kernel(a, b) for a in x for b in y)
    return xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * xy / (n * m)


@pytest.mark.parametrize("sizes", [(20, 20), (27, 31)])
def test_kid_is_the_u_statistic(sizes):
    x, y = normal(sizes[0], 3).double(), normal(sizes[1], 3, 1, 0.5).double()
    assert metrics.kid(x, y).value == pytest.approx(kid_by_hand(x, y), rel=1e-10)


def test_kid_agrees_with_torchmetrics_on_the_whole_set():
    from torchmetrics.image.kid import poly_mmd

    x, y = normal(90, 4).double(), normal(90, 4, 1, 0.3).double()
    assert metrics.kid(x, y).value == pytest.approx(poly_mmd(x, y).item(), rel=1e-10)


def test_kid_is_unbiased_and_its_error_honest():
    """Two halves of one set, many times over."""
    whole = normal(200, 4) ** 2
    found = []
    for seed in range(100):
        order = torch.randperm(200, generator=torch.Generator().manual_seed(seed))
        found.append(metrics.kid(whole[order[:100]], whole[order[100:]]))
    values = np.array([each.value for each in found])
    assert (values < 0).any() and (values > 0).any()
    # Halves of a finite set sum to a fixed whole: the mean over splits lies within their error, but
    # for a two-hundredth of the kernel's spread, which is far below it.
    assert abs(values.mean()) < 4 * values.std() / math.sqrt(len(values))
    fresh = [metrics.kid(normal(100, 4, 2 * k), normal(100, 4, 2 * k + 1, 0.4)) for k in range(50)]
    spread = np.std([each.value for each in fresh])
    told = math.sqrt(np.mean([each.stderr**2 for each in fresh]))
    assert 0.75 < told / spread < 1.4


def test_kid_of_stratified_sets_is_below_zero_on_average():
    """As many points of either class in both sets, against classes drawn point by point."""

    def found(seed, stratified):
        generator = torch.Generator().manual_seed(seed)
        sets = []
        for _ in range(2):
            drawn = torch.rand(60, generator=generator) < 0.5
            y = torch.arange(60) < 30 if stratified else drawn
            sets.append(torch.randn(60, 2, generator=generator) + 2.0 * y[:, None])
        return metrics.kid(*sets).value

    equal, drawn = (np.array([found(k, way) for k in range(150)]) for way in (True, False))
    error = [part.std() / math.sqrt(150) for part in (equal, drawn)]
    assert equal.mean() < -4 * error[0] and abs(drawn.mean()) < 3 * error[1]


# Inception score ------------------------------------------------------------------------------


def test_inception_score_by_hand():
    logits = normal(50, 4, scale=2).double()
    p = logits.softmax(1)
    kl = (p * (p / p.mean(0)).log()).sum(1)
    found = metrics.inception(logits)
    assert found.value == pytest.approx(kl.mean().exp().item(), rel=1e-10)
    assert 0 < found.stderr < 1


def test_inception_score_of_extremes():
    certain = 50 * torch.nn.functional.one_hot(torch.arange(100) % 5, 5).double()
    assert metrics.inception(certain).value == pytest.approx(5)
    assert metrics.inception(certain[:1].expand(40, 5)).value == pytest.approx(1)
    assert metrics.inception(torch.zeros(40, 5)).value == pytest.approx(1)


# Precision and recall -------------------------------------------------------------------------


def shares_by_hand(points, centres, k):
    radii = [sorted(math.dist(a, b) for b in centres)[k] for a in centres]
    inside = [any(math.dist(p, c) <= r for c, r in zip(centres, radii, strict=True))
              for p in points]  # fmt: skip
    return sum(inside) / len(inside)


@pytest.mark.parametrize("k", [1, 3])
def test_precision_and_recall_by_brute_force(k):
    x, y = normal(40, 2, 0, 0.4), normal(55, 2, 1, scale=0.7)
    precision, recall = metrics.precision_recall(x, y, k)
    assert precision.value == pytest.approx(shares_by_hand(x.tolist(), y.tolist(), k))
    assert recall.value == pytest.approx(shares_by_hand(y.tolist(), x.tolist(), k))
    share = precision.value
    assert precision.stderr == pytest.approx(math.sqrt(share * (1 - share) / 40))


def test_precision_and_recall_tell_quality_from_variety():
    left, right = normal(100, 2, 0, -10), normal(100, 2, 1, 10)
    data = torch.cat([left, right])
    one_mode = metrics.precision_recall(normal(200, 2, 2, -10, 0.3), data)
    assert one_mode[0].value > 0.97 and one_mode[1].value < 0.5
    too_wide = metrics.precision_recall(torch.cat([data, normal(200, 2, 3, 60)]), data)
    assert too_wide[0].value == 0.5 and too_wide[1].value == 1
    assert [each.value for each in metrics.precision_recall(data, data)] == [1, 1]
    repeated = torch.zeros(30, 2)  # balls of radius 0 hold their centres
    assert metrics.precision_recall(repeated, repeated)[0].value == 1


# Two-sample test ------------------------------------------------------------------------------


def test_c2st_of_alike_and_of_unlike():
    same = [metrics.c2st(normal(200, 2, 2 * k), normal(200, 2, 2 * k + 1), k) for k in range(6)]
    values = [each.value for each in same]
    assert abs(np.mean(values) - 0.5) < 4 * same[0].stderr / math.sqrt(6)
    assert same[0].stderr == pytest.approx(math.sqrt(values[0] * (1 - values[0]) / 200))
    apart = metrics.c2st(normal(200, 2), normal(200, 2, 1, 5))
    assert apart.value > 0.98 and float(apart.note.removeprefix("p ")) < 1e-9
    # equal means: the classes of this ring and this disc are no half planes
    ring = torch.nn.functional.normalize(normal(300, 2)) * 2
    assert metrics.c2st(ring, 0.5 * normal(300, 2, 1)).value > 0.95
    assert metrics.c2st(ring, ring).value < 0.62


# Memorisation ---------------------------------------------------------------------------------


def test_neighbours_detect_a_memorised_set():
    training, held_out = normal(400, 3), normal(200, 3, 1)
    copies = training[:200] + 0.01 * normal(200, 3, 2)
    share, copying = metrics.neighbours(copies, held_out, training)
    assert share.value > 0.95 and float(share.note.removeprefix("p ")) < 1e-20
    assert copying.value < -3
    fresh, alike = metrics.neighbours(normal(200, 3, 3), held_out, training)
    assert abs(fresh.value - 0.5) < 3 * fresh.stderr < 0.15
    assert abs(alike.value) < 3 * alike.stderr
    away, far = metrics.neighbours(normal(200, 3, 4, 3), held_out, training)
    assert away.value < 0.2 and far.value > 3


def test_copies_where_data_are_sparse_show_cell_by_cell():
    """Farther from the training set than new data are elsewhere, and copies all the same."""

    def dense_and_sparse(n, seed):
        return torch.cat([normal(n, 3, seed, -20, 0.02), normal(n, 3, seed + 1, 20, 2.0)])

    training, held_out = dense_and_sparse(200, 0), dense_and_sparse(100, 2)
    copies = training[200:400] + 0.03 * normal(200, 3, 4)
    share, copying = metrics.neighbours(copies, held_out, training)
    assert share.value < 0.65
    assert copying.value < -3


def test_the_share_of_nearer_samples_by_brute_force():
    training, held_out, samples = normal(30, 2), normal(25, 2, 1), normal(22, 2, 2, 0.2)
    samples[0] = training[0]
    held_out[0] = training[1]  # both at distance 0: a tie
    near = [[min(math.dist(p, t) for t in training.tolist()) for p in part.tolist()]
            for part in (samples, held_out)]  # fmt: skip
    won = [(a < b) + 0.5 * (a == b) for a in near[0] for b in near[1]]
    share, _ = metrics.neighbours(samples, held_out, training)
    assert share.value == pytest.approx(sum(won) / len(won))


def test_the_z_score_is_the_one_of_mann_and_whitney():
    from scipy.stats import mannwhitneyu, norm

    a, b = (
        normal(40, 1, 0, 0.5).flatten().round(decimals=1),
        normal(30, 1, 1).flatten().round(decimals=1),
    )
    p = mannwhitneyu(a, b, alternative="greater", use_continuity=False, method="asymptotic").pvalue
    assert metrics._z_score(a, b) == pytest.approx(norm.isf(p), rel=1e-6)


# Classes --------------------------------------------------------------------------------------


def test_classes_found_and_their_shares():
    samples = torch.nn.functional.one_hot(torch.tensor([0] * 15 + [1] * 5), 4).double()
    data = torch.nn.functional.one_hot(torch.tensor([0, 1, 2, 3] * 5), 4).double()
    found, variation = metrics.classes(samples, data)
    assert found.value == 2 and found.stderr is None
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert found.note == f"of 4; entropy {entropy:.2f} nats, the data's {math.log(4):.2f}"
    assert variation.value == pytest.approx(0.5)
    assert metrics.classes(data, data)[1].value == 0


# Refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda x: metrics.kid(x, x), "kid needs at least 20 samples of each set; got 3"),
        (lambda x: metrics.inception(x), "inception needs at least 20 .* got 3"),
        (lambda x: metrics.precision_recall(x, x), "precision_recall needs at least 4 .* got 3"),
        (lambda x: metrics.c2st(x, x), "c2st needs at least 20"),
        (lambda x: metrics.neighbours(x, x, x), "neighbours needs at least 20"),
        (lambda x: metrics.classes(x, x), "classes needs at least 20"),
        (lambda x: metrics.kid(x, x[:, :1]), r"features are of shapes \(3, 2\) and \(3, 1\)"),
        (lambda x: metrics.fid(x.flatten(), x), r"shapes \(6,\) and \(3, 2\): expected \(n, d\)"),
    ],
)
def test_what_is_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call(normal(3, 2))


def test_no_generator_is_touched():
    x, y = normal(60, 3), normal(60, 3, 1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    for call in (metrics.fid, metrics.kid, metrics.precision_recall, metrics.c2st, metrics.classes):
        call(x, y)
    metrics.inception(x)
    metrics.neighbours(x, y, x)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()
