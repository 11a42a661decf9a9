"""Hidden Markov models against brute force over all paths, other libraries, and their own laws."""

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm

import graphs
from graphs.sequences.hmm import HMM, Categorical, Gaussian
from graphs.sequences.scans import block_length, follow

WAYS = ("sequential", "scan")
F64 = torch.float64


def simplex(rng, *shape, zeros=0.0):
    """Random distributions along the last axis, some of their entries zero."""
    values = rng.dirichlet(np.ones(shape[-1]), shape[:-1]) + 0.02
    values = np.where(rng.random(shape) < zeros, 0, values)
    values[..., 0] += values.sum(-1) == 0
    return values / values.sum(-1, keepdims=True)


def casino(seed=0, states=3, categories=4, zeros=0.0, **options):
    rng = np.random.default_rng(seed)
    parts = (simplex(rng, states, zeros=zeros), simplex(rng, states, states, zeros=zeros))
    return HMM(*parts, simplex(rng, states, categories, zeros=zeros), **options)


def weather(seed=0, states=3, coordinates=2, full=True, **options):
    rng = np.random.default_rng(seed)
    mean = rng.normal(size=(states, coordinates)) * 2
    if full:
        root = rng.normal(size=(states, coordinates, coordinates)) + 2 * np.eye(coordinates)
        emission = Gaussian(mean, covariance=root @ root.transpose(0, 2, 1))
    elif coordinates > 1:
        emission = Gaussian(mean, rng.uniform(0.5, 2, mean.shape))
    else:
        emission = Gaussian(mean[:, 0], rng.uniform(0.5, 2, states))
    return HMM(simplex(rng, states), simplex(rng, states, states), emission, **options)


def density(model, state, value):
    """p(x | z) by SciPy, or by the table; 1 for what is missing."""
    emission = model.emission
    if isinstance(emission, Categorical):
        return 1.0 if value == -1 else float(emission.table[state, value])
    value = np.atleast_1d(value)
    known = ~np.isnan(value)
    if not known.any():
        return 1.0
    mean = np.atleast_1d(emission.mean[state].numpy())[known]
    if emission.scale is not None:
        scale = np.atleast_1d(emission.scale[state].numpy())[known]
        return float(norm.pdf(value[known], mean, scale).prod())
    covariance = emission.covariance[state].numpy()[np.ix_(known, known)]
    return float(multivariate_normal.pdf(value[known], mean, covariance))


def brute(model, x):
    """Everything, from the joint probability of every path."""
    x, count = np.asarray(x), model.states
    steps = len(x)
    initial, moves = model.initial.detach().numpy(), model.transition.detach().numpy()
    weights = np.array([[density(model, k, value) for k in range(count)] for value in x])
    paths = list(itertools.product(range(count), repeat=steps))
    joint = np.array(
        [
            initial[path[0]]
            * math.prod(moves[a, b] for a, b in itertools.pairwise(path))
            * math.prod(weights[t, k] for t, k in enumerate(path))
            for path in paths
        ]
    )
    smoothed, pairs = np.zeros((steps, count)), np.zeros((steps - 1, count, count))
    for path, share in zip(paths, joint / joint.sum(), strict=True):
        for t in range(steps):
            smoothed[t, path[t]] += share
        for t in range(steps - 1):
            pairs[t, path[t], path[t + 1]] += share
    return math.log(joint.sum()), smoothed, pairs, paths[joint.argmax()], math.log(joint.max())


MODELS = [
    pytest.param(casino, [0, 3, 1, 2, 1, 0], id="categorical"),
    pytest.param(casino, [0, -1, 1, 2, -1, -1], id="categorical, missing"),
    pytest.param(lambda **o: casino(5, zeros=0.3, **o), [0, 0, 1, 0, 0, 0], id="with zeros"),
    pytest.param(lambda **o: casino(1, 2, 2, **o), [1], id="one step"),
    pytest.param(lambda **o: casino(1, 1, 2, **o), [1, 0, 1], id="one state"),
    pytest.param(
        lambda **o: weather(1, coordinates=1, full=False, **o),
        [0.3, -2, 4, np.nan, 1],
        id="numbers",
    ),
    pytest.param(
        weather, [[0.1, 1], [2, -3], [np.nan, np.nan], [np.nan, 0.5], [4, np.nan]], id="vectors"
    ),
    pytest.param(
        lambda **o: weather(full=False, **o), [[0.1, 1], [np.nan, 0.5], [2, -3]], id="diagonal"
    ),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("make", "x"), MODELS)
def test_all_paths(make, x, way):
    model = make(recursion=way)
    total, smoothed, pairs, path, best = brute(model, x)
    assert float(model.log_likelihood(x)) == pytest.approx(total, abs=1e-12)
    found = model.forward_backward(x)
    assert float(found.log_likelihood) == pytest.approx(total, abs=1e-12)
    np.testing.assert_allclose(found.smoothed, smoothed, atol=1e-12)
    np.testing.assert_allclose(found.pairwise, pairs, atol=1e-12)
    for t in range(len(x)):
        np.testing.assert_allclose(found.filtered[t], brute(model, x[: t + 1])[1][-1], atol=1e-12)
    decoded = model.viterbi(x)
    assert tuple(decoded.states.tolist()) == path
    assert float(decoded.log_probability) == pytest.approx(best, abs=1e-12)


def test_the_junction_tree_agrees():
    model, x = casino(2), [3, 1, -1, 0, 2]
    engine = graphs.JunctionTree(model.to_network(len(x)))
    seen = {("x", t): value for t, value in enumerate(x) if value >= 0}
    hidden = [("z", t) for t in range(len(x))]
    posterior = engine.query(seen, targets=hidden)
    found = model.forward_backward(x)
    assert float(posterior.log_evidence) == pytest.approx(float(found.log_likelihood), abs=1e-12)
    marginals = posterior.to_numpy()
    for t, variable in enumerate(hidden):
        np.testing.assert_allclose(found.smoothed[t], marginals[variable].ravel(), atol=1e-12)


@pytest.mark.parametrize("make", [casino, weather])
def test_pyro_agrees(make):
    """Pyro makes a transition before the first emission: that one is the identity here."""
    import pyro.distributions as dist

    model = make(3)
    x = model.sample(40, n=5, seed=1).observations
    moves = model.transition.log().expand(40, 3, 3).clone()
    moves[0] = torch.where(torch.eye(3) > 0, 0.0, -torch.inf)
    if isinstance(model.emission, Categorical):
        observed = dist.Categorical(model.emission.table)
    else:
        observed = dist.MultivariateNormal(model.emission.mean, model.emission.covariance)
    peer = dist.DiscreteHMM(model.initial.log(), moves, observed)
    torch.testing.assert_close(model.log_likelihood(x), peer.log_prob(x), atol=1e-10, rtol=0)


def plain_numpy(model, x):
    """log p(x) by the recursion in logarithms, one step after the other."""
    moves, table = (v.numpy() for v in (model.transition.log(), model.emission.table.log()))
    present = model.initial.log().numpy() + table[:, x[0]]
    for value in x[1:]:
        before = present[:, None] + moves
        top = before.max(0)
        present = top + np.log(np.exp(before - top).sum(0)) + table[:, value]
    return np.logaddexp.reduce(present)


def test_a_hundred_thousand_steps():
    model = casino(4)
    x = model.sample(100_000, seed=2).observations
    reference = plain_numpy(model, x.numpy())
    assert reference < -50_000
    assert float(model.log_likelihood(x)) == pytest.approx(reference, rel=1e-11)
    found = model.forward_backward(x)
    assert float(found.log_likelihood) == pytest.approx(reference, rel=1e-11)
    torch.testing.assert_close(found.smoothed.sum(1), torch.ones(100_000, dtype=F64))
    torch.testing.assert_close(found.pairwise.sum(1), found.smoothed[1:], atol=1e-10, rtol=0)
    torch.testing.assert_close(found.pairwise.sum(2), found.smoothed[:-1], atol=1e-10, rtol=0)
    decoded = model.viterbi(x)
    assert reference > float(decoded.log_probability) > -math.inf
    # The truth is one of the paths that Viterbi beats.
    truth = model.sample(100_000, seed=2).states
    of_truth = (
        model.initial[truth[0]].log()
        + model.transition[truth[:-1], truth[1:]].log().sum()
        + model.emission.table[truth, x].log().sum()
    )
    assert float(decoded.log_probability) > float(of_truth)


@pytest.mark.parametrize("zeros", [0.0, 0.3])
@pytest.mark.parametrize("steps", [33, 90, 700, 5000])
def test_both_ways_agree(steps, zeros):
    """Lengths with and without a rest, one to three levels of blocks, in numbers and logarithms."""
    plain, scan = (casino(6, zeros=zeros, recursion=way) for way in WAYS)
    x = plain.sample(steps, n=2, seed=3).observations
    x[0, 5:20] = -1
    lengths = [steps, steps - 7]
    a, b = (model.forward_backward(x, lengths) for model in (plain, scan))
    for name in ("filtered", "smoothed", "pairwise", "log_likelihood"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), atol=1e-10, rtol=1e-12)
    a, b = (model.viterbi(x, lengths) for model in (plain, scan))
    torch.testing.assert_close(a.log_probability, b.log_probability, atol=0, rtol=1e-12)


@pytest.mark.parametrize("way", WAYS)
def test_what_plain_numbers_would_lose(way):
    """State 0 falls 2,000 nats behind, and is then the only one possible."""
    moves = [[1.0, 0.0], [0.0, 1.0]]
    model = HMM([0.5, 0.5], moves, [[0.1, 0.4, 0.5], [0.8, 0.2, 0.0]], recursion=way)
    x = [0] * 1000 + [2]
    expected = math.log(0.5) + 1000 * math.log(0.1) + math.log(0.5)
    assert float(model.log_likelihood(x)) == pytest.approx(expected, rel=1e-13)
    assert float(model.viterbi(x).log_probability) == pytest.approx(expected, rel=1e-13)
    assert model.viterbi(x).states.tolist() == [0] * 1001
    found = model.forward_backward(x)
    torch.testing.assert_close(found.smoothed, torch.tensor([[1.0, 0.0]] * 1001, dtype=F64))
    torch.testing.assert_close(found.pairwise[7], torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=F64))
    assert model.sample_posterior(x).tolist() == [0] * 1001
    # Far from the only state that can be first, where its density is e^-125,000.
    far = HMM([1.0, 0.0], [[0.5, 0.5], [0.5, 0.5]], Gaussian([0.0, 500.0], [1.0, 1.0]))
    expected = norm.logpdf(500.0) + math.log(0.5) + norm.logpdf(0.0)
    assert float(far.log_likelihood([500.0, 500.0])) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("ahead", [50, 400, 1200])
def test_a_state_that_falls_behind_by_any_distance(way, ahead):
    """Watched numbers give way to logarithms before anything is lost."""
    model = HMM([0.5, 0.5], [[0.9, 0.1], [0.0, 1.0]], [[0.2, 0.8], [0.8, 0.2]], recursion=way)
    x = torch.tensor([0] * ahead + [1] * (2 * ahead))
    found = model.forward_backward(x)
    moves, table = model.transition.log(), model.emission.table.log()
    present, seen = model.initial.log() + table[:, 0], []
    for value in x[1:]:
        seen.append(present)
        present = torch.logsumexp(present[:, None] + moves, 0) + table[:, value]
    assert float(found.log_likelihood) == pytest.approx(float(present.logsumexp(0)), rel=1e-12)
    last = found.smoothed[-1].log()
    torch.testing.assert_close(last, present - present.logsumexp(0), atol=1e-9, rtol=0)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["categorical", "zeros", "gaussian", "diagonal"])
def test_gradients(kind, way):
    """Against finite differences, in logits, means and roots of covariances."""
    rng = np.random.default_rng(7)
    steps = 36 if way == "scan" else 6  # two blocks and a rest
    logits = [torch.tensor(rng.normal(size=s), requires_grad=True) for s in ((2,), (2, 2), (2, 2))]
    absent = torch.tensor([[0.0, -torch.inf], [0.0, 0.0]], dtype=F64)

    def build(a, b, c):
        if kind in ("categorical", "zeros"):
            emission = c.softmax(-1)
        elif kind == "gaussian":
            root = c.tril(-1) + c.diagonal().exp().diag()
            emission = Gaussian(c, covariance=torch.stack([root @ root.T, root @ root.T * 2]))
        else:
            emission = Gaussian(c, c.exp())
        moves = (b + absent if kind == "zeros" else b).softmax(-1)
        return HMM(a.softmax(-1), moves, emission, recursion=way)

    discrete = kind in ("categorical", "zeros")
    x = rng.integers(0, 2, (2, steps)) if discrete else rng.normal(size=(2, steps, 2))
    lengths = [steps, steps - 3]

    def total(*values):
        return build(*values).log_likelihood(x, lengths)

    def marginals(*values):
        found = build(*values).forward_backward(x[:1])
        return found.smoothed[0, 1], found.filtered[0, 2], found.pairwise[0, 0]

    def best(*values):
        return build(*values).viterbi(x, lengths).log_probability

    assert torch.autograd.gradcheck(total, logits)
    assert torch.autograd.gradcheck(best, logits)
    assert torch.autograd.gradcheck(marginals, logits)


def test_gradients_are_expected_counts():
    """d log p(x) / d log A_ij is the expected number of transitions (Fisher's identity)."""
    base = casino(8)
    moves = base.transition.clone().requires_grad_()
    model = HMM(base.initial, moves, base.emission)
    x = model.sample(3000, seed=1).observations
    (gradient,) = torch.autograd.grad(model.log_likelihood(x), moves)
    counts = model.forward_backward(x).pairwise.sum(0)
    torch.testing.assert_close(gradient * moves, counts, atol=1e-8, rtol=1e-10)


@pytest.mark.parametrize("way", WAYS)
def test_an_impossible_sequence_leaves_gradients_of_others_alone(way):
    table = torch.tensor([[0.5, 0.5, 0.0], [0.9, 0.1, 0.0]], dtype=F64, requires_grad=True)
    model = HMM([0.5, 0.5], [[0.9, 0.1], [0.2, 0.8]], table, recursion=way)
    x = torch.tensor([[0, 1] * 20, [0, 2] * 20])
    totals = model.log_likelihood(x)
    assert totals[1] == -math.inf
    both = torch.autograd.grad(totals[torch.isfinite(totals)].sum(), table)[0]
    alone = torch.autograd.grad(model.log_likelihood(x[0]), table)[0]
    torch.testing.assert_close(both, alone)


@pytest.mark.parametrize("zeros", [0.0, 0.3])
@pytest.mark.parametrize("way", WAYS)
def test_an_impossible_sequence(way, zeros):
    moves = [[0.9, 0.1], [zeros, 1 - zeros]]
    model = HMM([0.5, 0.5], moves, [[0.5, 0.5, 0.0], [0.9, 0.1, 0.0]], recursion=way)
    x = [[0, 2, 1] * 20, [0, 1, 1] * 20]
    found, decoded = model.forward_backward(x), model.viterbi(x)
    assert found.log_likelihood[0] == -math.inf and found.log_likelihood[1] > -math.inf
    assert found.smoothed[0].isnan().all() and found.pairwise[0].isnan().all()
    assert found.filtered[0, 1:].isnan().all() and found.filtered[0, 0].isfinite().all()
    assert found.smoothed[1].isfinite().all() and found.pairwise[1].isfinite().all()
    assert (decoded.states[0] == -1).all() and decoded.log_probability[0] == -math.inf
    assert (decoded.states[1] >= 0).all() and decoded.log_probability[1] > -math.inf
    assert model.predict(x, 2)[0].isnan().all()
    with pytest.raises(ValueError, match="sequence 0 is impossible under the model"):
        model.sample_posterior(x)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", [casino, weather, lambda **o: casino(5, zeros=0.3, **o)])
def test_unequal_lengths_are_the_single_answers(make, way):
    model, lengths = make(recursion=way), [1, 50, 2, 37]
    x = model.sample(50, n=4, seed=4).observations
    for row, length in enumerate(lengths):  # whatever the padding holds
        x[row, length:] = 999 if not x.is_floating_point() else (math.nan, math.inf)[row % 2]
    found, decoded = model.forward_backward(x, lengths), model.viterbi(x, lengths)
    likelihood, ahead = model.log_likelihood(x, lengths), model.predict(x, 3, lengths)
    for row, length in enumerate(lengths):
        alone, one = x[row, :length], model.forward_backward(x[row, :length])
        torch.testing.assert_close(likelihood[row], model.log_likelihood(alone))
        torch.testing.assert_close(found.log_likelihood[row], one.log_likelihood)
        torch.testing.assert_close(ahead[row], model.predict(alone, 3))
        for name, steps in (("filtered", length), ("smoothed", length), ("pairwise", length - 1)):
            batch = getattr(found, name)[row]
            torch.testing.assert_close(batch[:steps], getattr(one, name))
            assert (batch[steps:] == 0).all()
        assert decoded.states[row, :length].tolist() == model.viterbi(alone).states.tolist()
        assert (decoded.states[row, length:] == -1).all()
        torch.testing.assert_close(
            decoded.log_probability[row], model.viterbi(alone).log_probability
        )


def test_a_missing_observation_is_summed_out():
    model = casino(9)
    x = [1, 0, -1, 3, -1]
    total = torch.logsumexp(
        torch.stack([model.log_likelihood([1, 0, a, 3, b]) for a in range(4) for b in range(4)]), 0
    )
    torch.testing.assert_close(model.log_likelihood(x), total)
    assert model.log_likelihood(np.array([1, 0, np.nan, 3, np.nan])) == model.log_likelihood(x)
    assert float(model.log_likelihood([-1] * 30)) == pytest.approx(0, abs=1e-13)


def test_prediction():
    """Filtering with observations missing at the end is prediction."""
    model, x = casino(2), [0, 1, 3]
    ahead = model.predict(x, 4)
    padded = model.forward_backward([*x, -1, -1, -1, -1])
    torch.testing.assert_close(ahead, padded.filtered[3:])
    joint = [model.log_likelihood([*x, -1, m]) - model.log_likelihood(x) for m in range(4)]
    torch.testing.assert_close(ahead[1] @ model.emission.table, torch.stack(joint).exp())


def frequencies_agree(found, expected, draws):
    """Within five standard errors, entry by entry."""
    error = np.sqrt(np.maximum(expected * (1 - expected), 1e-12) / draws)
    assert (np.abs(found - expected) < 5 * error + 1e-9).all()


def test_the_law_of_samples():
    model, draws = casino(3, zeros=0.3), 40_000
    drawn = model.sample(3, n=draws, seed=1)
    initial, moves, table = (
        v.numpy() for v in (model.initial, model.transition, model.emission.table)
    )
    joint = np.einsum("a,ab,bc,am,bn,co->ambnco", initial, moves, moves, table, table, table)
    columns = torch.stack([drawn.states, drawn.observations], 2).flatten(1).numpy()
    code = np.ravel_multi_index(columns.T, joint.shape)
    counts = np.bincount(code, minlength=joint.size) / draws
    assert (counts[joint.ravel() == 0] == 0).all()
    frequencies_agree(counts, joint.ravel(), draws)
    assert torch.equal(drawn.states, model.sample(3, n=draws, seed=1).states)
    assert not torch.equal(drawn.states, model.sample(3, n=draws, seed=2).states)
    assert model.sample(7).states.shape == (7,)


@pytest.mark.parametrize("full", [True, False])
def test_gaussian_samples(full):
    model = weather(2, full=full)
    drawn = model.sample(30_000, seed=1)
    for state in range(3):
        values = drawn.observations[drawn.states == state]
        wanted = model.emission.covariance
        wanted = torch.diag(model.emission.scale[state] ** 2) if wanted is None else wanted[state]
        error = (wanted.diagonal() / len(values)).sqrt()
        assert ((values.mean(0) - model.emission.mean[state]).abs() < 5 * error).all()
        assert ((values.T.cov() - wanted).abs() < 0.08 * wanted.diagonal().max()).all()


@pytest.mark.parametrize("zeros", [0.0, 0.3])
def test_the_law_of_posterior_samples(zeros):
    model, x, draws = casino(5, zeros=zeros), [0, 0, -1, 0], 20_000
    walks = model.sample_posterior(x, n=draws, seed=3)
    found = model.forward_backward(x)
    for t in range(4):
        counts = np.bincount(walks[:, t].numpy(), minlength=3) / draws
        frequencies_agree(counts, found.smoothed[t].numpy(), draws)
    for t in range(3):
        pairs = walks[:, t].numpy() * 3 + walks[:, t + 1].numpy()
        frequencies_agree(
            np.bincount(pairs, minlength=9) / draws, found.pairwise[t].flatten().numpy(), draws
        )
    batch = model.sample_posterior([x, x], n=5, lengths=[4, 2])
    assert batch.shape == (5, 2, 4) and (batch[:, 1, 2:] == -1).all() and (batch[:, 0] >= 0).all()


def test_one_seed_for_both_kinds_of_samples():
    """The posterior's paths share no random numbers with the sequence they are given."""
    model = HMM([0.5, 0.5], [[0.5, 0.5], [0.5, 0.5]], [[1.0], [1.0]])
    drawn = model.sample(4000, seed=0)
    agree = (model.sample_posterior(drawn.observations, seed=0) == drawn.states).double().mean()
    assert 0.45 < float(agree) < 0.55


@pytest.mark.parametrize("length", [0, 1, 5, 100])
def test_walks(length):
    rng = np.random.default_rng(length)
    maps = torch.tensor(rng.integers(0, 4, (length, 3, 4)))
    walk = [torch.tensor([0, 1, 3])]
    for step in maps:
        walk.append(step.gather(1, walk[-1][:, None])[:, 0])
    assert torch.equal(follow(walk[0], maps), torch.stack(walk))


# Learning -----------------------------------------------------------------------------------------


def never_falls(curve):
    return all(b >= a - 1e-9 * abs(a) for a, b in itertools.pairwise(curve))


@pytest.mark.parametrize("pseudocount", [0.0, 0.5])
@pytest.mark.parametrize("kind", ["categorical", "gaussian"])
def test_baum_welch_never_falls(kind, pseudocount):
    model = casino(1) if kind == "categorical" else weather(1)
    x, lengths = model.sample(60, n=6, seed=5).observations, [60, 30, 10, 1, 60, 59]
    x[0, 3:7] = -1 if kind == "categorical" else math.nan
    fitted = HMM.fit(
        x, 3, kind, lengths=lengths, restarts=4, iterations=60, tolerance=0, seed=1,
        pseudocount=pseudocount, progress=False,
    )  # fmt: skip
    assert all(never_falls(curve) and len(curve) > 20 for curve in fitted.objectives)
    assert all(curve[-1] > curve[0] + 1 for curve in fitted.log_likelihoods)
    if not pseudocount:
        assert fitted.objectives == fitted.log_likelihoods
        best = max(curve[-1] for curve in fitted.log_likelihoods)
        assert fitted.log_likelihoods[fitted.best][-1] == best
        assert best > float(model.log_likelihood(x, lengths).sum())
    reached = fitted.log_likelihoods[fitted.best][-1]
    assert float(fitted.hmm.log_likelihood(x, lengths).sum()) == pytest.approx(reached, rel=1e-10)


def test_one_iteration_is_expected_counts():
    """The maximisation step by hand, from the marginals of the first guess."""
    x = casino(1).sample(50, n=3, seed=0).observations
    options = {"restarts": 1, "progress": False, "tolerance": 0, "seed": 3, "categories": 4}
    one = HMM.fit(x, 2, iterations=1, **options).hmm
    two = HMM.fit(x, 2, iterations=2, **options).hmm
    found = one.forward_backward(x)
    torch.testing.assert_close(two.initial, found.smoothed[:, 0].mean(0))
    counts = found.pairwise.sum((0, 1))
    torch.testing.assert_close(two.transition, counts / counts.sum(1, keepdim=True))
    table = torch.stack([found.smoothed[x == m].sum(0) for m in range(4)], 1)
    torch.testing.assert_close(two.emission.table, table / table.sum(1, keepdim=True))


def distances(fitted, truth, parameters):
    """The largest difference of parameters under the best permutation of the states."""
    found = []
    for order in map(list, itertools.permutations(range(truth.states))):
        moves = (fitted.transition[order][:, order] - truth.transition).abs().max()
        others = [
            (getattr(fitted.emission, name)[order] - getattr(truth.emission, name)).abs().max()
            for name in parameters
        ]
        found.append(max(map(float, (moves, *others))))
    return min(found)


def test_a_known_model_is_recovered():
    moves = [[0.95, 0.05, 0.0], [0.1, 0.8, 0.1], [0.02, 0.08, 0.9]]
    table = [[0.8, 0.1, 0.05, 0.05], [0.1, 0.7, 0.1, 0.1], [0.05, 0.05, 0.1, 0.8]]
    truth = HMM([0.4, 0.3, 0.3], moves, table)
    x = truth.sample(20_000, seed=1).observations
    fitted = HMM.fit(x, 3, restarts=2, seed=0, tolerance=1e-7, progress=False)
    assert distances(fitted.hmm, truth, ["table"]) < 0.04
    assert fitted.log_likelihoods[fitted.best][-1] > float(truth.log_likelihood(x))

    covariance = [[[1.0, 0.5], [0.5, 1.0]], [[2.0, 0.0], [0.0, 0.5]], [[1.0, -0.3], [-0.3, 1.0]]]
    truth = HMM([0.4, 0.3, 0.3], moves, Gaussian([[0, 0], [4, 4], [8, 0]], covariance=covariance))
    x = truth.sample(4000, n=2, seed=1).observations
    fitted = HMM.fit(x, 3, "gaussian", restarts=2, progress=False)
    assert distances(fitted.hmm, truth, ["mean", "covariance"]) < 0.15
    assert all(fitted.converged) and not fitted.floored

    truth = HMM([0.4, 0.3, 0.3], moves, Gaussian([100.0, 500.0, 900.0], [100.0, 50.0, 80.0]))
    x = truth.sample(8000, seed=1).observations
    x[100:200] = math.nan
    fitted = HMM.fit(x, 3, "gaussian", restarts=2, progress=False)
    assert distances(fitted.hmm, truth, []) < 0.02
    assert sorted(fitted.hmm.emission.mean.tolist()) == pytest.approx([100, 500, 900], abs=6)
    assert sorted(fitted.hmm.emission.scale.tolist()) == pytest.approx([50, 80, 100], abs=4)


def test_a_collapsing_variance_is_floored_and_said():
    x = np.array([3.0] * 30 + list(np.random.default_rng(0).normal(0, 1, 30)))
    with pytest.warns(UserWarning, match="held at 1e-06 of the data's"):
        fitted = HMM.fit(x, 2, "gaussian", restarts=6, tolerance=0, iterations=30, progress=False)
    assert len(fitted.floored) == 1 and "floored" in str(fitted)
    scale = float(fitted.hmm.emission.scale[fitted.floored[0]])
    assert scale == pytest.approx(1e-3 * x.std(), rel=1e-9)
    assert all(never_falls(curve) for curve in fitted.log_likelihoods)


def test_the_same_seed_learns_the_same():
    x = casino(1).sample(200, seed=0).observations
    fits = [HMM.fit(x, 2, restarts=2, seed=s, iterations=5, progress=False) for s in (4, 4, 5)]
    assert torch.equal(fits[0].hmm.transition, fits[1].hmm.transition)
    assert not torch.equal(fits[0].hmm.transition, fits[2].hmm.transition)


@pytest.mark.filterwarnings("ignore:the variances of states")
def test_only_one_category_or_step():
    fitted = HMM.fit([[0], [0], [0]], 2, restarts=1, categories=3, progress=False)
    assert float(fitted.hmm.log_likelihood([0])) == pytest.approx(0, abs=1e-9)
    constant = HMM.fit(np.ones(20), 1, "gaussian", restarts=1, progress=False, iterations=1)
    assert float(constant.hmm.emission.mean) == 1


# Precision, rules, errors -------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_float32(way):
    exact = weather(1, coordinates=1, full=False)
    low = HMM(exact.initial, exact.transition, exact.emission, dtype=torch.float32, recursion=way)
    x = exact.sample(2000, seed=1).observations
    found = low.forward_backward(x)
    assert found.smoothed.dtype == torch.float32
    expected = exact.forward_backward(x)
    torch.testing.assert_close(found.smoothed.double(), expected.smoothed, atol=2e-5, rtol=0)
    assert float(found.log_likelihood) == pytest.approx(float(expected.log_likelihood), rel=1e-6)
    kept = HMM(exact.initial.float(), exact.transition.float(), Gaussian([0.0, 1, 2], [1.0, 1, 1]))
    assert kept.emission.mean.dtype == torch.float32


def test_the_rule_scans_long_sequences_and_not_wide_batches():
    from graphs.sequences.scans import Logarithmic, MaxPlus, Scaled

    cpu = torch.device("cpu")
    for algebra in (Scaled(), Logarithmic(), MaxPlus()):
        for states in (3, 10):
            assert block_length(100_000, 1, states, 1, algebra, cpu) is not None
        assert block_length(30, 1, 3, 1, algebra, cpu) is None
        assert block_length(1000, 1, 20, 5000, algebra, cpu) is None


def test_texts():
    model = casino()
    assert repr(model) == "HMM of 3 states, Categorical(3 states, 4 categories), float64 on cpu"
    assert "log-likelihood -" in str(model.forward_backward([0, 1]))
    assert "of 2 sequences" in str(model.forward_backward([[0], [1]]))
    assert "(2,)" in str(model.viterbi([0, 1])) and "(2, 3)" in str(model.sample(3, n=2))
    fitted = HMM.fit([0, 1, 0, 1], 2, restarts=3, iterations=1, progress=False)
    assert "after 1 iterations" in str(fitted)


GOOD = ([0.5, 0.5], [[0.9, 0.1], [0.2, 0.8]], [[0.5, 0.5], [0.1, 0.9]])
WRONG = [
    (([0.5, 0.6], *GOOD[1:]), ValueError, "initial sums to 1.1, not to 1"),
    (([1.5, -0.5], *GOOD[1:]), ValueError, "initial must hold probabilities"),
    (([[0.5, 0.5]], *GOOD[1:]), ValueError, r"initial needs the shape \(states,\)"),
    ((GOOD[0], [[0.9, 0.1], [0.2, 0.7]], GOOD[2]), ValueError, "row 1 of transition sums to 0.9,"),
    ((GOOD[0], [[0.9, 0.1]], GOOD[2]), ValueError, r"transition needs the shape \(2, 2\)"),
    ((GOOD[0], [[math.nan, 1], [0, 1]], GOOD[2]), ValueError, "transition must hold probabilities"),
    ((*GOOD[:2], [[0.5, 0.4], [0.1, 0.9]]), ValueError, "row 0 of the emission table sums to 0.9,"),
    ((*GOOD[:2], [0.5, 0.5]), ValueError, "needs the shape .states, categories."),
    ((*GOOD[:2], [[1.0]]), ValueError, "initial has 2 states; the emission, Categorical.1 states"),
    ((*GOOD[:2], "no table"), TypeError, "the emission table must be an array of numbers"),
]


@pytest.mark.parametrize(("given", "kind", "said"), WRONG)
def test_wrong_parameters(given, kind, said):
    with pytest.raises(kind, match=said):
        HMM(*given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mean": [0.0, 1.0]}, "either scale or covariance"),
        ({"mean": [[[0.0]]], "scale": 1}, "mean of Gaussian emissions needs the shape"),
        ({"mean": [0.0, math.inf], "scale": [1, 1]}, "not finite"),
        ({"mean": [0.0, 1.0], "scale": [1.0]}, r"scale needs the shape of the mean, \(2,\)"),
        ({"mean": [0.0, 1.0], "scale": [1.0, 0.0]}, "positive and finite"),
        ({"mean": [0.0, 1.0], "covariance": np.eye(2)}, "covariance needs the shape"),
        ({"mean": [[0.0, 1]], "covariance": [[[1, 2], [0, 1]]]}, "state 0 is not symmetric"),
        ({"mean": [[0.0, 1]], "covariance": [[[1, 2], [2, 1]]]}, "not positive definite"),
    ],
)
def test_wrong_gaussians(given, said):
    with pytest.raises(ValueError, match=said):
        Gaussian(**given)


def test_wrong_observations():
    model, numbers, vectors = casino(), weather(coordinates=1, full=False), weather()
    for x, said in (
        ([0, 4], "0 to 3, or -1 where missing; got 0 to 4"),
        ([-2, 1], "got -2 to 1"),
        ([], "one step or more"),
        ([[[0]]], "need the shape .steps. or .sequences, steps."),
    ):
        with pytest.raises(ValueError, match=said):
            model.log_likelihood(x)
    with pytest.raises(TypeError, match="are integers; got fractions"):
        model.log_likelihood([0.5, 1])
    with pytest.raises(TypeError, match=r"are integers; got torch\.bool"):
        model.log_likelihood([True, False])
    with pytest.raises(ValueError, match="got inf"):
        numbers.log_likelihood([0.0, math.inf])
    with pytest.raises(ValueError, match="3 coordinates; the mean has 2"):
        vectors.log_likelihood(np.zeros((5, 3)))
    for lengths, said in (
        ([2, 4], "between 1 and the 3 steps given; got 2 to 4"),
        ([0, 3], "got 0 to 3"),
        ([3], "lengths must be 2 integers"),
        ([1.0, 2.0], "lengths must be 2 integers"),
    ):
        with pytest.raises(ValueError, match=said):
            model.log_likelihood([[0, 1, 2], [0, 1, 2]], lengths)
    with pytest.raises(ValueError, match="lengths belong to a batch"):
        model.log_likelihood([0, 1], [2])
    for call in (
        lambda: model.sample(0),
        lambda: model.sample(3, n=0),
        lambda: model.predict([0], 0),
        lambda: model.to_network(0),
    ):
        with pytest.raises(ValueError, match="must be an integer of 1 or more; got 0"):
            call()
    with pytest.raises(TypeError, match="only categorical emissions are tables"):
        numbers.to_network(3)
    with pytest.raises(ValueError, match="recursion must be one of auto, sequential, scan"):
        casino(recursion="parallel")
    with pytest.raises(ValueError, match="dtype must be"):
        casino(dtype=torch.float16)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"x": [0, 1], "emission": "gausian"}, "did you mean gaussian"),
        ({"x": [0, 1], "states": 0}, "states must be an integer of 1 or more"),
        ({"x": [0, 1], "restarts": 0}, "restarts must be"),
        ({"x": [0, 1], "tolerance": -1}, "tolerance must be zero or more"),
        ({"x": [-1, -1]}, "nothing is observed"),
        ({"x": [0, 3], "categories": 3}, "observations of 3 categories are 0 to 2"),
        ({"x": [math.nan] * 3, "emission": "gaussian"}, "nothing is observed"),
        ({"x": [0.0, math.inf], "emission": "gaussian"}, "got inf"),
        ({"x": np.zeros((2, 9)), "emission": "gaussian"}, "2 steps of 9 coordinates were given"),
        ({"x": [0.0, 1], "emission": "gaussian", "categories": 3}, "belong to categorical"),
        (
            {"x": [[0.0, 1], [0.0, math.nan]], "emission": "gaussian"},
            "learning needs all or none of each vector",
        ),
    ],
)
def test_wrong_fits(given, said):
    with warnings.catch_warnings(), pytest.raises(ValueError, match=said):
        HMM.fit(**{"states": 2, "progress": False, **given})


@pytest.mark.parametrize("length", [1, 4, 5, 8, 30])
def test_posterior_paths_where_some_states_cannot_be_reached(length):
    """A left-to-right model: no path leads back, and drawing one asks for none that does."""
    apart = HMM([1.0, 0.0], [[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]])
    assert apart.sample_posterior([0] * length, n=3).tolist() == [[0] * length] * 3
    right = HMM(
        [1.0, 0, 0], [[0.5, 0.5, 0], [0, 0.5, 0.5], [0, 0, 1]], [[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]]
    )
    observed = [0, 1] * (length // 2) + [0] * (length % 2)
    paths = right.sample_posterior(observed, n=4000)
    assert (paths[:, 0] == 0).all() and (paths.diff(dim=1) >= 0).all()
    shares = torch.stack([(paths == k).double().mean(0) for k in range(3)], -1)
    assert (shares - right.forward_backward(observed).smoothed).abs().max() < 0.04
