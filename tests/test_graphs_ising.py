"""`denoise`: energies by definition, exact minima by enumeration, fixed points, the door."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import graphs
from graphs.denoising.planes import PLANES, Planes
from graphs.ising import Denoised, denoise
from graphs.progress import Bar

METHODS = ("icm", "graph_cut", "bp", "gibbs", "annealing", "mean_field")


def silhouette(height=48, width=56):
    """Two discs, a bar and a hole."""
    r, c = np.mgrid[:height, :width]
    inside = (r - 16) ** 2 + (c - 18) ** 2 < 120
    inside |= (r - 30) ** 2 + 0.5 * (c - 36) ** 2 < 90
    inside |= (abs(r - c * 0.6 - 4) < 3) & (c > 10)
    inside &= (r - 16) ** 2 + (c - 18) ** 2 > 20
    return np.where(inside, 1, -1).astype(np.int8)


def flipped(image, share=0.1, seed=0):
    return np.where(np.random.default_rng(seed).random(image.shape) < share, -image, image)


def energy(x, y, h=0.0, beta=1.0, eta=2.1, neighbours=4):
    """By the definition, pixel by pixel, each pair once."""
    x, y = np.asarray(x).astype(int), np.asarray(y).astype(int)
    height, width = x.shape
    steps = [(0, 1), (1, 0)] + ([(1, 1), (1, -1)] if neighbours == 8 else [])
    pairs = sum(
        x[r, c] * x[r + down, c + right]
        for r, c in itertools.product(range(height), range(width))
        for down, right in steps
        if r + down < height and 0 <= c + right < width
    )
    return h * x.sum() - beta * pairs - eta * (x * y).sum()


@pytest.mark.parametrize("neighbours", [4, 8])
@pytest.mark.parametrize("method", METHODS)
def test_energy_is_that_of_the_image(method, neighbours):
    y = flipped(silhouette(13, 18), 0.2)
    given = {"h": 0.3, "beta": 0.7, "eta": 1.3, "neighbours": neighbours}
    found = denoise(y, method, seed=1, **given)
    assert found.energy == pytest.approx(energy(found.image, y, **given), rel=1e-12)
    assert found.energies.shape == (found.sweeps,)
    assert found.method == method and found.seconds > 0
    assert found.parameters == {"h": 0.3, "beta": 0.7, "eta": 1.3}
    if method in ("icm", "annealing"):
        assert found.energies[-1] == found.energy
    assert found.image.dtype == y.dtype and set(np.unique(found.image)) <= {-1, 1}


@given(
    height=st.integers(1, 4),
    width=st.integers(1, 4),
    neighbours=st.sampled_from([4, 8]),
    h=st.floats(-2, 2),
    beta=st.floats(0, 2),
    eta=st.floats(-1, 3),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_the_cut_is_the_minimum(height, width, neighbours, h, beta, eta, seed):
    shape = (height, width if height < 4 else min(width, 3))
    y = np.random.default_rng(seed).choice([-1, 1], shape)
    given = {"h": h, "beta": beta, "eta": eta, "neighbours": neighbours}
    found = denoise(y, "graph_cut", **given)
    states = np.array([*itertools.product((-1, 1), repeat=y.size)], np.int8).reshape(-1, *shape)
    batch = Planes(torch.from_numpy(states), neighbours)
    pairs = sum((batch[p].int() * batch.around(p)).sum((-2, -1)) for p in PLANES).numpy() / 2
    every = h * states.sum((1, 2)) - beta * pairs - eta * (states * y).sum((1, 2))
    assert found.energy <= every.min() + found.rounding + 1e-9
    assert 0 <= found.rounding < 1e-5


@pytest.mark.parametrize("neighbours", [4, 8])
def test_four_by_four_by_enumeration(neighbours):
    rng = np.random.default_rng(2)
    states = np.array([*itertools.product((-1, 1), repeat=16)], np.int8).reshape(-1, 4, 4)
    batch = torch.from_numpy(states)
    for _ in range(3):
        y = rng.choice([-1, 1], (4, 4))
        h, beta, eta = rng.normal(), rng.random(), rng.random() * 2
        found = denoise(y, h=h, beta=beta, eta=eta, neighbours=neighbours)
        assert found.method == "graph_cut"
        split = Planes(batch, neighbours)
        pairs = sum((split[p].int() * split.around(p)).sum((-2, -1)) for p in PLANES).numpy() / 2
        every = h * states.sum((1, 2)) - beta * pairs - eta * (states * y).sum((1, 2))
        assert found.energy == pytest.approx(every.min(), abs=1e-6)


@pytest.mark.parametrize("neighbours", [4, 8])
def test_no_method_beats_the_cut(neighbours):
    for seed, (beta, eta) in enumerate([(1.0, 2.1), (0.5, 0.8), (1.5, 1.0)]):
        y = flipped(silhouette(), 0.15, seed)
        given = {"beta": beta, "eta": eta, "h": 0.05, "neighbours": neighbours}
        best = denoise(y, "graph_cut", **given)
        for method in METHODS:
            other = denoise(y, method, **given)
            assert best.energy <= other.energy + best.rounding + 1e-9, method
            assert best.energy <= other.energies.min() + best.rounding + 1e-9, method


def test_the_planes_of_an_image():
    rng = np.random.default_rng(0)
    for neighbours, shape in itertools.product((4, 8), [(1, 1), (1, 4), (3, 1), (4, 4), (5, 6)]):
        image = torch.from_numpy(rng.choice([-1, 1], (2, *shape)).astype(np.int8))
        planes = Planes(image, neighbours)
        assert torch.equal(planes.image(), image)
        padded = np.pad(image.numpy().astype(int), ((0, 0), (1, 1), (1, 1)))
        steps = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if (a, b) != (0, 0)]
        around = sum(
            padded[:, 1 + a : 1 + a + shape[0], 1 + b : 1 + b + shape[1]]
            for a, b in steps
            if neighbours == 8 or not (a and b)
        )
        for r, c in PLANES:
            assert np.array_equal(planes.around((r, c)).numpy(), around[:, r::2, c::2])


@pytest.mark.parametrize("beta", [0.8, -0.5])
def test_max_product_is_exact_on_a_row(beta):
    rng = np.random.default_rng(0)
    for _ in range(10):
        y = rng.choice([-1, 1], (1, 10))
        given = {"h": 0.17, "beta": beta, "eta": 0.43}
        found = denoise(y, "bp", damping=0.0, sweeps=12, **given)
        states = np.array([*itertools.product((-1, 1), repeat=10)])
        pairs = (states[:, 1:] * states[:, :-1]).sum(1)
        every = 0.17 * states.sum(1) - beta * pairs - 0.43 * (states * y).sum(1)
        assert found.energies[-1] == pytest.approx(every.min(), abs=1e-9)


def test_max_product_is_that_of_the_general_engine():
    """The same decisions as messages on the factor graph, at their fixed point."""
    y = flipped(silhouette(14, 15), 0.2)
    unary = np.stack([0.05 - 0.9 * y, 0.9 * y - 0.05], -1)
    field = graphs.FactorGraph.grid(unary, 0.4 * np.array([[1.0, -1.0], [-1.0, 1.0]]))
    engine = graphs.belief_propagation(field, product="max", damping=0.3)
    assert engine.converged
    found = denoise(y, "bp", h=0.05, beta=0.4, eta=0.9, sweeps=200)
    assert (found.image == 2 * engine.states - 1).all()


def test_neighbours_that_repel():
    """Turning every second pixel, as on a chessboard, turns beta into -beta: so the cut tells what
    the least energy is."""
    y = flipped(silhouette(60, 61), 0.2)
    chess = np.where(np.indices(y.shape).sum(0) % 2, 1, -1).astype(np.int8)
    for beta in (-0.3, -0.7):
        least = denoise(y * chess, "graph_cut", beta=-beta, eta=0.9).energy
        found = denoise(y, beta=beta, eta=0.9)
        assert found.method == "bp"
        assert least - 1e-5 <= found.energy < least + 0.03 * abs(least)
        for method in ("icm", "annealing", "mean_field", "gibbs"):
            assert denoise(y, method, beta=beta, eta=0.9).energy >= least - 1e-5


def test_messages_come_near_the_minimum():
    for seed in range(3):
        y = flipped(silhouette(150, 160), 0.1, seed)
        least = denoise(y).energy
        assert denoise(y, "bp").energy < least + 2e-4 * abs(least)


@given(
    seed=st.integers(0, 1000),
    h=st.floats(-2, 2),
    beta=st.one_of(st.floats(-2, 2), st.sampled_from([0.0, 1.0])),
    eta=st.one_of(st.floats(-1, 3), st.sampled_from([0.0, 1.0, 2.0])),
    neighbours=st.sampled_from([4, 8]),
    order=st.sampled_from(["checkerboard", "raster"]),
)
@settings(max_examples=80, deadline=None)
def test_icm_falls_to_a_point_that_no_flip_improves(seed, h, beta, eta, neighbours, order):
    rng = np.random.default_rng(seed)
    y = rng.choice([-1, 1], tuple(rng.integers(1, 8, 2)))
    given = {"h": h, "beta": beta, "eta": eta, "neighbours": neighbours}
    found = denoise(y, "icm", order=order, **given)
    assert found.converged
    curve = np.concatenate([[energy(y, y, **given)], found.energies])
    assert (np.diff(curve) <= 1e-9).all()
    for r, c in itertools.product(*map(range, y.shape)):
        other = found.image.copy()
        other[r, c] *= -1
        assert energy(other, y, **given) >= found.energy - 1e-9


def test_ties_keep_the_pixel():
    """beta s + eta y - h = 0 at the middle, whose neighbours sum to -2 and which is +1."""
    y = np.array([[1, -1, 1], [-1, 1, 1], [1, -1, 1]])
    for order in ("checkerboard", "raster"):
        found = denoise(y, "icm", beta=1.0, eta=2.0, order=order)
        assert found.image[1, 1] == 1
        assert denoise(-y, "icm", beta=1.0, eta=2.0, order=order).image[1, 1] == -1
        nothing = denoise(y, "icm", beta=0.0, eta=0.0, order=order)
        assert (nothing.image == y).all() and nothing.sweeps == 1


def test_icm_from_another_start_and_with_a_limit():
    y = flipped(silhouette())
    best = denoise(y, "graph_cut")
    rested = denoise(y, "icm", start=best.image)
    assert rested.sweeps == 1 and (rested.image == best.image).all()
    cut_off = denoise(y, "icm", start=-y, sweeps=1)
    assert cut_off.sweeps == 1 and cut_off.converged is False
    assert "not at rest" in str(cut_off)


@pytest.mark.parametrize("neighbours", [4, 8])
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("icm", {}),
        ("icm", {"order": "raster"}),
        ("graph_cut", {}),
        ("bp", {}),
        ("mean_field", {"sweeps": 15}),
    ],
)
def test_a_batch_is_its_images(method, options, neighbours):
    images = np.stack([flipped(silhouette(17, 20), 0.15, seed) for seed in range(3)])
    together = denoise(images, method, neighbours=neighbours, **options)
    assert together.image.shape == images.shape
    assert together.energy.shape == (3,) and together.energies.shape == (together.sweeps, 3)
    for i, image in enumerate(images):
        alone = denoise(image, method, neighbours=neighbours, **options)
        assert (together.image[i] == alone.image).all()
        assert together.energy[i] == pytest.approx(alone.energy)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_kind_comes_back(method):
    y = flipped(silhouette(12, 14))
    found = denoise(torch.from_numpy(y).float(), method, seed=3)
    assert isinstance(found.image, torch.Tensor) and found.image.dtype == torch.float32
    for kind in (np.float64, np.int64):
        array = denoise(y.astype(kind), method, seed=3).image
        assert array.dtype == kind
        assert (array == found.image.numpy()).all()
    frozen = y[::-1]
    frozen.setflags(write=False)
    kept = frozen.copy()
    denoise(frozen, method)
    assert (frozen == kept).all()


def exact_marginals(y, h, beta, eta, neighbours):
    states = np.array([*itertools.product((-1, 1), repeat=y.size)]).reshape(-1, *y.shape)
    logs = np.array([-energy(x, y, h, beta, eta, neighbours) for x in states])
    p = np.exp(logs - logs.max())
    return (p[:, None, None] * (states > 0)).sum(0) / p.sum()


@pytest.mark.parametrize("neighbours", [4, 8])
def test_gibbs_finds_the_marginals(neighbours):
    y = np.array([[1, -1, 1], [1, 1, -1], [-1, -1, -1]])
    given = {"h": 0.2, "beta": 0.3, "eta": 0.5, "neighbours": neighbours}
    exact = exact_marginals(y, **given)
    batch = np.broadcast_to(y, (500, 3, 3))
    found = denoise(batch, "gibbs", sweeps=200, seed=5, **given)
    means = found.probabilities.mean(0)
    errors = found.probabilities.std(0, ddof=1) / math.sqrt(500)
    assert (abs(means - exact) < 5 * errors).all()
    assert errors.max() < 0.003
    image = denoise(y, "gibbs", sweeps=4000, seed=5, **given).image
    clear = abs(exact - 0.5) > 0.03
    assert clear.sum() > 5 and (image == np.where(exact > 0.5, 1, -1))[clear].all()


def test_mean_field_is_a_fixed_point():
    y = flipped(silhouette(15, 16))
    given = {"h": 0.1, "beta": 0.25, "eta": 0.8}
    found = denoise(y, "mean_field", sweeps=500, **given)
    assert found.converged
    means = 2 * found.probabilities.astype(float) - 1
    padded = np.pad(means, 1)
    around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    assert np.abs(means - np.tanh(0.25 * around + 0.8 * y - 0.1)).max() < 1e-3


def test_heavy_damping_is_no_rest():
    y = np.where(np.random.default_rng(1).random((9, 8)) < 0.5, -1, 1)
    slow = denoise(y, "mean_field", damping=0.9999, eta=0.3, beta=0.4, sweeps=50)
    assert slow.converged is False and slow.sweeps == 50


def test_mean_field_without_neighbours_is_exact():
    y = flipped(silhouette(9, 9))
    found = denoise(y, "mean_field", beta=0.0, eta=0.6, h=0.2)
    exact = 1 / (1 + np.exp(-2 * (0.6 * y - 0.2)))
    assert np.abs(found.probabilities - exact).max() < 1e-4


@pytest.mark.parametrize("method", ["gibbs", "annealing"])
def test_the_seed_decides(method):
    y = flipped(silhouette(20, 20), 0.3)
    given = {"beta": 0.3, "eta": 0.3, "sweeps": 5}
    first, again = (denoise(y, method, seed=4, **given) for _ in range(2))
    assert (first.image == again.image).all() and (first.energies == again.energies).all()
    other = denoise(y, method, seed=5, **given)
    assert (first.energies[:5] != other.energies[:5]).any()


def test_noise_sets_what_bayes_asks_for():
    y = flipped(silhouette())
    found = denoise(y, noise=0.1)
    assert found.parameters["eta"] == pytest.approx(math.log(9) / 2)
    assert found.parameters["beta"] == pytest.approx(math.log(9) / 4)
    held = denoise(y, noise=0.1, beta=0.4)
    assert held.parameters["beta"] == 0.4
    assert held.parameters["eta"] == pytest.approx(math.log(9) / 2)
    assert denoise(y).parameters == {"h": 0.0, "beta": 1.0, "eta": 2.1}
    assert (found.image != silhouette()).mean() < 0.03 < (y != silhouette()).mean()


def test_the_default_method():
    y = flipped(silhouette(10, 12))
    assert denoise(y).method == "graph_cut"
    assert denoise(y, beta=-0.4).method == "bp"


def test_it_prints():
    y = flipped(silhouette(10, 12))
    found = denoise(y)
    assert isinstance(found, Denoised)
    assert str(found).startswith(f"graph_cut: energy {found.energy:.8g} nats, within ")
    assert "; 1 sweep, " in str(found)
    assert "energies" in str(denoise(np.stack([y, -y]), "icm"))


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (np.ones((2, 2)), {"method": "icn"}, "did you mean icm"),
        (np.ones((2, 2)), {"method": "icm", "order": "rastr"}, "did you mean raster"),
        (np.ones((2, 2)), {"method": "graph_cut", "beta": -1}, "not submodular.*'bp'"),
        (np.array([[0, 1]]), {}, r"2 \* x - 1"),
        (np.array([[True, False]]), {}, r"2 \* x - 1"),
        (np.array([[0, 1]], np.uint8), {}, r"2 \* x - 1"),
        (np.array([[0, 255]], np.uint8), {}, r"np.where\(image > t, 1, -1\)"),
        (np.array([[0.3, 0.5]]), {}, r"np.where\(image > t, 1, -1\)"),
        (np.array([[np.nan, 1]]), {}, "image holds 1 NaN"),
        (np.array([[1, 65535]], np.uint16), {}, "it holds 1, 65535"),
        (torch.tensor([[0.0, 1.0]]), {}, r"2 \* x - 1"),
        (np.ones(3), {}, "must be .H, W. or .B, H, W."),
        (np.ones((0, 3)), {}, "not empty"),
        (np.ones((2, 2)), {"neighbours": 6}, "must be 4 or 8; got 6"),
        (np.ones((2, 2)), {"beta": math.nan}, "beta must be a finite number"),
        (np.ones((2, 2)), {"eta": math.inf}, "eta must be a finite number"),
        (
            np.ones((2, 2)),
            {"noise": 0.6},
            "below .5; got 0.6: flip the image.s signs, and give noise=0.4",
        ),
        (np.ones((2, 2)), {"noise": 0.5}, "below .5; got 0.5$"),
        (np.ones((2, 2)), {"noise": 30.0}, "got 30: a grey image, .* needs levels="),
        (np.ones((2, 2)), {"noise": 0.0}, "above 0"),
        (np.ones((2, 2)), {"h": 1e300, "eta": 1e300}, r"h must be .*, of size 1e\+15 at most"),
        (np.ones((2, 2)), {"neighbours": "4"}, "must be 4 or 8; got '4'"),
        (np.ones((2, 2)), {"seed": 1.5}, "seed must be an integer of 0 or more; got 1.5"),
        (np.ones((2, 2)), {"seed": None}, "seed must be an integer of 0 or more; got None"),
        (np.ones((2, 2)), {"temperatures": 3.0}, "two positive numbers, 1e-15 to"),
        (np.ones((2, 2)), {"temperatures": (4.0, "1")}, "two positive numbers, 1e-15 to"),
        (np.ones((2, 2)), {"sweeps": 0}, "sweeps must be an integer of 1"),
        (np.ones((2, 2)), {"damping": 1.0}, "damping must be in"),
        (np.ones((2, 2)), {"temperatures": (1.0, 0.0)}, "two positive numbers"),
        (np.ones((2, 2)), {"start": np.ones((2, 3))}, r"start has shape \(2, 3\)"),
        (np.ones((2, 2)), {"start": np.zeros((2, 2))}, "start is of 0 and 1"),
        (np.ones((2, 2)), {"limits": (1, 1)}, "belong to grey images"),
    ],
)
def test_refused(image, options, message):
    with pytest.raises(ValueError, match=message):
        denoise(image, **options)


@pytest.mark.parametrize("name", ["h", "beta", "eta", "noise", "damping"])
@pytest.mark.parametrize("value", ["1", [1.0]])
def test_parameters_must_be_numbers(name, value):
    with pytest.raises(TypeError, match=rf"^{name} must be a number; got ['\[]1"):
        denoise(np.ones((2, 2)), **{name: value})


def test_a_message_names_values_that_come_late():
    image = np.ones((200, 200))
    image[-1, -1] = 7.0
    with pytest.raises(ValueError, match="it holds 1, 7"):
        denoise(image)


def test_progress_of_gibbs_counts_the_burn_in(monkeypatch):
    seen = []

    class Watched(Bar):
        def at(self, done, note=""):
            seen.append((done, self.total))

    monkeypatch.setattr("graphs.ising.Bar", Watched)
    denoise(np.ones((3, 3)), "gibbs", sweeps=4, burn_in=3)
    assert seen == [(i, 7) for i in range(1, 8)]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("eta", [1.9995, 1.9999, 2.0001])
def test_max_product_errs_by_the_noise_at_most(eta, seed):
    y = np.array([[1, 1, 1, 1, -1, 1, 1, 1, 1]])
    found = denoise(y, "bp", eta=eta, seed=seed)
    best = denoise(y, "graph_cut", eta=eta)
    apart = int((found.image != best.image).sum())
    assert found.energy - best.energy <= 1e-3 * eta * apart + best.rounding + 1e-9


@pytest.mark.parametrize("method", ["gibbs", "bp", "annealing"])
def test_seeds_of_any_integer_type_and_size(method):
    y = np.where(np.random.default_rng(0).random((6, 7)) < 0.5, -1, 1)
    given = {"sweeps": 3, "eta": 0.3}
    first = denoise(y, method, seed=np.int64(3), **given)
    assert (first.image == denoise(y, method, seed=3, **given).image).all()
    denoise(y, method, seed=2**70, **given)


def test_text_is_no_image():
    with pytest.raises(TypeError, match="array of numbers"):
        denoise([["a", "b"]])
