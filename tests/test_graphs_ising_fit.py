"""Learning the parameters of the Ising energy, and grey images."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from graphs.denoising.grey import cut_envelope
from graphs.ising import denoise, fit_ising
from tests.test_graphs_ising import flipped, silhouette


def log_pseudo_likelihood(x, y, h, beta, eta, neighbours):
    """Pixel by pixel, from the definition."""
    height, width = x.shape
    found = 0.0
    for r, c in itertools.product(range(height), range(width)):
        s = sum(
            int(x[i, j])
            for i in range(max(r - 1, 0), min(r + 2, height))
            for j in range(max(c - 1, 0), min(c + 2, width))
            if (i, j) != (r, c) and (neighbours == 8 or i == r or j == c)
        )
        found -= math.log1p(math.exp(-2 * x[r, c] * (beta * s + eta * y[r, c] - h)))
    return found


@pytest.mark.parametrize("neighbours", [4, 8])
def test_pseudo_likelihood_is_at_its_maximum(neighbours):
    x = flipped(silhouette(16, 17), 0.08, 5)
    y = flipped(x, 0.15, 6)
    penalty = 2.0
    found = fit_ising(x, y, "icm", neighbours=neighbours, penalty=penalty, evaluations=2)
    at = found.pseudo_likelihood

    def loss(w):
        return penalty / 2 * w @ w - log_pseudo_likelihood(x, y, *w, neighbours)

    best = minimize(loss, np.zeros(3), method="BFGS", options={"gtol": 1e-6})
    assert [at["h"], at["beta"], at["eta"]] == pytest.approx(best.x.tolist(), abs=1e-4)
    per_pixel = log_pseudo_likelihood(x, y, **at, neighbours=neighbours) / x.size
    assert found.log_pseudo_likelihoods["pseudo_likelihood"] == pytest.approx(per_pixel, abs=1e-9)


def test_pseudo_likelihood_finds_what_made_the_data():
    """x drawn from p(x | y) itself, by a Gibbs sampler of its own."""
    y = np.random.default_rng(0).choice([-1, 1], (400, 400))
    true = {"h": 0.15, "beta": 0.3, "eta": 0.6}
    x = drawn_from(y, **true)
    found = fit_ising(x, y, "icm", evaluations=2).pseudo_likelihood
    for name, value in true.items():
        assert found[name] == pytest.approx(value, abs=0.012)


def drawn_from(y, h, beta, eta, sweeps=60):
    """A state of a Gibbs chain in plain NumPy, two colours in turn."""
    rng = np.random.default_rng(1)
    x = y.copy()
    black = np.indices(y.shape).sum(0) % 2
    for sweep in range(2 * sweeps):
        padded = np.pad(x, 1)
        s = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
        p = 1 / (1 + np.exp(-2 * (beta * s + eta * y - h)))
        x = np.where(black == sweep % 2, np.where(rng.random(y.shape) < p, 1, -1), x)
    return x


@pytest.mark.parametrize("method", ["graph_cut", "icm", "mean_field"])
def test_the_search_does_not_do_worse(method):
    x = silhouette()
    y = flipped(x, 0.12, 3)
    options = {"sweeps": 10} if method == "mean_field" else {}
    found = fit_ising(x, y, method, **options)
    errors = found.errors
    assert errors["noisy"] == (x != y).mean()
    assert errors["searched"] <= errors["pseudo_likelihood"] < errors["noisy"]
    own = denoise(y, method, **found.searched, **options).image
    assert (own != x).mean() == errors["searched"]
    assert 2 <= found.evaluations <= 80
    # The search may not beat the maximum at what that maximises.
    told = found.log_pseudo_likelihoods
    assert told["searched"] < told["pseudo_likelihood"] + 2e-3
    text = str(found)
    assert (
        "pseudo-likelihood" in text and "searched" in text and f"{errors['searched']:.3%}" in text
    )


def test_images_that_repel():
    """A checkerboard has beta < 0: told by the pseudo-likelihood, and beyond the cut."""
    x = np.where(np.indices((20, 20)).sum(0) % 2, 1, -1)
    y = flipped(x, 0.2)
    found = fit_ising(x, y)
    assert found.pseudo_likelihood["beta"] < 0 <= found.searched["beta"]
    assert fit_ising(x, y, "icm", evaluations=10).errors["pseudo_likelihood"] < 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "graphcut"}, "did you mean graph_cut"),
        ({"beta": 1.0}, "finds or sets beta"),
        ({"penalty": 0.0}, "penalty must be a positive"),
        ({"neighbours": 5}, "4 or 8"),
        ({"evaluations": 1}, "evaluations must be"),
    ],
)
def test_refused(options, message):
    x = silhouette(8, 8)
    with pytest.raises(ValueError, match=message):
        fit_ising(x, x, **options)
    with pytest.raises(ValueError, match="they must agree"):
        fit_ising(x, silhouette(8, 9))


# Grey images --------------------------------------------------------------------------------------


def test_the_message_is_the_brute_minimum():
    rng = np.random.default_rng(0)
    for levels in (2, 3, 17):
        for slope, height in ((0.5, 1.3), (0.1, 100.0), (3.0, 0.2), (0.0, 1.0), (1.0, 0.0)):
            costs = torch.from_numpy(rng.normal(size=(levels, 2, 3, 4)) * 3)
            k = torch.arange(levels)
            steps = (slope * (k[:, None] - k).abs()).clamp(max=height)
            brute = (costs[None] + steps[..., None, None, None]).amin(1)
            brute = brute - brute.amin(0)
            assert torch.allclose(cut_envelope(costs, slope, height), brute, atol=1e-12)


def grey_energy(x, y, beta, eta, limits):
    steps = [np.diff(x, axis=0), np.diff(x, axis=1)]
    rough = sum(np.minimum(abs(step), limits[1]).sum() for step in steps)
    return eta * np.minimum((x - y) ** 2, limits[0]).sum() + beta * rough


def test_a_row_of_grey_pixels_is_solved_exactly():
    """A chain is a tree, on which max-product finds the minimum."""
    rng = np.random.default_rng(4)
    for _ in range(10):
        y = rng.random((1, 6))
        given = {"beta": 1.0, "eta": 4.0, "limits": (0.2, 0.4)}
        found = denoise(y, levels=4, sweeps=8, **given)
        values = np.linspace(y.min(), y.max(), 4)
        every = [
            grey_energy(np.array([x]), y, **given) for x in itertools.product(values, repeat=6)
        ]
        assert found.energy == pytest.approx(min(every), abs=1e-6)
        assert grey_energy(found.image, y, **given) == pytest.approx(found.energy, abs=1e-9)


def test_small_grey_images_come_near_the_minimum():
    rng = np.random.default_rng(5)
    exact = 0
    for _ in range(10):
        y = rng.random((2, 3))
        given = {"beta": 0.5, "eta": 3.0, "limits": (0.5, 0.5)}
        found = denoise(y, "bp", levels=3, sweeps=20, **given)
        values = np.linspace(y.min(), y.max(), 3)
        least = min(
            grey_energy(np.reshape(x, (2, 3)), y, **given)
            for x in itertools.product(values, repeat=6)
        )
        assert found.energy >= least - 1e-9
        exact += found.energy < least + 1e-6
    assert exact >= 8


def steps_of_grey(size=40):
    r, c = np.mgrid[:size, :size]
    disc = (r - 12) ** 2 + (c - 12) ** 2 < 50
    return np.where(c > size // 2, 180.0, 60.0) + np.where(disc, 60, 0)


def test_a_grey_image_is_restored():
    clean = steps_of_grey()
    noisy = clean + 20 * np.random.default_rng(0).normal(size=clean.shape)
    found = denoise(noisy, levels=32, noise=20.0)
    before, after = (np.sqrt(((image - clean) ** 2).mean()) for image in (noisy, found.image))
    assert after < 0.5 * before
    assert found.energy == found.energies.min() < found.energies[0]
    assert found.method == "bp" and found.parameters["eta"] == 1 / 800
    levels = np.linspace(noisy.min(), noisy.max(), 32)
    assert np.abs(found.image[..., None] - levels).min(-1).max() < 1e-9


def test_bytes_and_batches_of_grey():
    clean = steps_of_grey()
    rng = np.random.default_rng(0)
    noisy = np.stack([clean + 15 * rng.normal(size=clean.shape) for _ in range(2)])
    given = {"levels": 16, "noise": 15.0, "sweeps": 6}
    images = noisy.clip(0, 255).astype(np.uint8)
    found = denoise(images, **given)
    assert found.image.dtype == np.uint8 and found.energy.shape == (2,)
    assert set(np.unique(found.image)) <= {17 * k for k in range(16)}
    assert (found.image[1] == denoise(torch.from_numpy(images[1]), **given).image.numpy()).all()


@pytest.mark.parametrize("levels", [3, 8])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_grey_integers_are_rounded_and_have_the_energy_said(levels, dtype):
    rng = np.random.default_rng(levels)
    y = rng.integers(0, 256, (6, 7)).astype(dtype)
    y[0, :2] = 0, 255  # so that both types have the levels 0 to 255
    found = denoise(y, levels=levels, beta=0.05, eta=0.001, limits=(math.inf, 51.0))
    assert found.image.dtype == dtype
    assert set(found.image.flat) <= set(np.linspace(0, 255, levels).round())
    x, seen = found.image.astype(float), y.astype(float)
    steps = [np.abs(np.diff(x, axis=axis)).clip(max=51).sum() for axis in (0, 1)]
    assert found.energy == pytest.approx(0.001 * ((x - seen) ** 2).sum() + 0.05 * sum(steps))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs noise="),
        ({"noise": -1.0}, "standard deviation above 0"),
        ({"noise": 1.0, "method": "icm"}, "method='bp'"),
        ({"noise": 1.0, "neighbours": 8}, "neighbours=4"),
        ({"noise": 1.0, "h": 1.0}, "h=0"),
        ({"beta": -1.0, "eta": 1.0}, "beta and eta of a grey image"),
        ({"noise": 1.0, "limits": 3.0}, "limits are the largest"),
        ({"noise": math.inf}, "noise must be a finite number"),
        ({"noise": 1.0, "limits": (1.0, math.inf)}, "the second finite"),
    ],
)
def test_grey_refused(options, message):
    with pytest.raises(ValueError, match=message):
        denoise(steps_of_grey(8), levels=4, **options)


def test_grey_numbers_must_be_finite():
    image = steps_of_grey(8)
    image[0, 0] = math.nan
    with pytest.raises(ValueError, match="NaN or infinity"):
        denoise(image, levels=4, noise=1.0)
    with pytest.raises(ValueError, match="levels must be an integer of 2"):
        denoise(image, levels=1)
