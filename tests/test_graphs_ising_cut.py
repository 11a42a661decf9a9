"""Minimum cuts on grids, against the enumeration of every labelling."""

import itertools

import numpy as np
import pytest

from graphs.denoising.graph_cut import minimum_cut
from graphs.denoising.persistency import Bounds

SHAPES = {"down": (1, 0), "right": (0, 1), "down_right": (1, 1), "down_left": (1, 1)}


def costs(labels, unary, weights):
    """(n,) costs of labellings (n, H, W)."""
    x = labels
    pairs = {
        "down": (x[:, 1:], x[:, :-1]),
        "right": (x[:, :, 1:], x[:, :, :-1]),
        "down_right": (x[:, 1:, 1:], x[:, :-1, :-1]),
        "down_left": (x[:, 1:, :-1], x[:, :-1, 1:]),
    }
    found = np.where(x, unary, 0.0).sum((1, 2))
    for name, weight in weights.items():
        first, second = pairs[name]
        found = found + (weight * (first != second)).sum((1, 2))
    return found


def every(shape):
    flat = np.array([*itertools.product((False, True), repeat=shape[0] * shape[1])])
    return flat.reshape(-1, *shape)


def drawn(rng, shape, diagonal, kind):
    """Costs and weights: integers, in which ties abound; reals; one number for all edges."""
    names = [*SHAPES][: 4 if diagonal else 2]
    sizes = {n: (max(shape[0] - SHAPES[n][0], 0), max(shape[1] - SHAPES[n][1], 0)) for n in names}
    if kind == "integers":
        unary = rng.integers(-4, 5, shape).astype(float)
        return unary, {n: rng.integers(0, 3, size).astype(float) for n, size in sizes.items()}
    unary = rng.normal(size=shape) * rng.choice([0.5, 2, 5])
    if kind == "shared":
        return unary, {n: rng.random() for n in names}
    return unary, {n: 2 * rng.random(size) for n, size in sizes.items()}


@pytest.mark.parametrize("kind", ["integers", "reals", "shared"])
@pytest.mark.parametrize("diagonal", [False, True])
def test_equals_enumeration(kind, diagonal):
    rng = np.random.default_rng(7)
    for trial in range(150):
        shape = tuple(rng.integers(1, 4, 2)) if trial % 10 else (4, 4)
        unary, weights = drawn(rng, shape, diagonal, kind)
        found = minimum_cut(unary, **weights)
        all_costs = costs(every(shape), unary, weights)
        own = costs(found.labels[None], unary, weights)[0]
        assert own == pytest.approx(found.cost, abs=1e-9)
        assert own <= all_costs.min() + found.rounding + 1e-12
        assert found.rounding < 1e-5


def blocks_and_pixels(rng, shape, diagonal, kind):
    unary, weights = drawn(rng, shape, diagonal, kind)
    offsets = {"right": (0, 1), "down": (1, 0), "down_right": (1, 1), "down_left": (1, -1)}
    bounds = Bounds(
        np.rint(-unary * 1000).astype(np.int32),
        [(offsets[n], np.rint(np.asarray(w) * 1000).astype(np.int32)) for n, w in weights.items()],
    )
    bounds.tighten()
    numbers = {n: np.rint(np.asarray(w) * 1000) for n, w in weights.items()}
    return bounds, costs(every(shape), -np.rint(-unary * 1000), numbers)


@pytest.mark.parametrize("kind", ["integers", "reals"])
@pytest.mark.parametrize("diagonal", [False, True])
def test_fixed_pixels_are_those_of_a_minimum(kind, diagonal):
    """All fixed pixels together agree with one labelling of least cost, ties included."""
    rng = np.random.default_rng(3)
    fixed = 0
    for _ in range(100):
        shape = (3, 3)
        bounds, all_costs = blocks_and_pixels(rng, shape, diagonal, kind)
        best = every(shape)[all_costs == all_costs.min()]
        agrees = ((bounds.fixed == 0) | (best == (bounds.fixed > 0))).all((1, 2))
        assert agrees.any()
        fixed += np.count_nonzero(bounds.fixed)
    assert fixed > 200


def test_a_block_is_fixed_where_no_pixel_is():
    """Costs of 2.1 do not outweigh four neighbours, but four of them outweigh eight."""
    unary = np.full((6, 6), -2.1)
    unary[:, 3:] = 2.1
    found = minimum_cut(unary, 1.0, 1.0)
    assert found.searched == 0
    assert (found.labels == (unary < 0)).all()
    single = minimum_cut(np.full((6, 6), -0.5), 1.0, 1.0)
    assert single.searched == 36 and single.labels.all()


def test_forced_labels_and_dominant_costs():
    unary = np.zeros((1, 5))
    unary[0, 0], unary[0, 4] = -np.inf, np.inf
    right = np.array([[3.0, 1.0, 2.0, 3.0]])
    found = minimum_cut(unary, np.zeros((0, 5)), right)
    assert found.labels.tolist() == [[True, True, False, False, False]]
    assert found.cost == -np.inf
    huge = minimum_cut(np.array([[-1e12, 0.1, 0.1, 1e12]]), 0.0, np.array([[0.5, 0.3, 0.5]]))
    assert huge.labels.tolist() == [[True, True, False, False]]
    assert huge.rounding < 1e-6, "costs that decide alone do not blur the others"


def test_weights_of_very_different_size():
    """Weights that rounding loses beside the largest leave the costs at their pixels decisive."""
    unary = np.array([[-3.0, 3.0, -3.0, -1e-3, 5.0]])
    right = np.array([[1e-300, 1e-12, 1e9, 1e9]])
    found = minimum_cut(unary, 0.0, right)
    assert found.labels.tolist() == [[True, False, False, False, False]]
    assert found.cost == pytest.approx(-3.0) and found.rounding > 0.1


def test_no_weights_leaves_the_signs():
    unary = np.array([[-1.0, 2.0], [3.0, -1e-9]])
    found = minimum_cut(unary, 0.0, 0.0)
    assert found.labels.tolist() == [[True, False], [False, True]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(3), 1, 1), "must be .H, W."),
        ((np.zeros((0, 3)), 1, 1), "must be .H, W."),
        ((np.full((2, 2), np.nan), 1, 1), "4 NaN"),
        ((np.zeros((2, 2)), np.ones((2, 2)), 1), r"down must be a number or \(1, 2\)"),
        ((np.zeros((2, 2)), 1, -0.5), "right holds a negative weight, -0.5"),
        ((np.zeros((2, 2)), np.inf, 1), "down holds NaN or infinity"),
        ((np.zeros((2, 2)), 1, 1, np.ones((1, 2))), "down_right must be a number"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        minimum_cut(*arguments)
