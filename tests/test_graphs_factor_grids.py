"""Grids of variables: the same as their factors one by one, and recognised where they are grids."""

from itertools import product

import networkx as nx
import numpy as np
import pytest
import torch

from graphs.factor_graph import FactorGraph


def listed_grid(unary, down, right) -> FactorGraph:
    """The same field as a list of factors, one after the other."""
    height, width, size = unary.shape[-3:]
    factors = [((c,), unary[..., c[0], c[1], :]) for c in product(range(height), range(width))]
    for (r, c), (dr, dc), tables in [
        *(((r, c), (1, 0), down) for r in range(height - 1) for c in range(width)),
        *(((r, c), (0, 1), right) for r in range(height) for c in range(width - 1)),
    ]:
        table = tables if tables.ndim == 2 else tables[..., r, c, :, :]
        factors.append((((r, c), (r + dr, c + dc)), table))
    return FactorGraph(dict.fromkeys(product(range(height), range(width)), size), factors)


@pytest.mark.parametrize("tensors", [False, True])
@pytest.mark.parametrize(
    ("height", "width", "size"), [(1, 1, 2), (1, 4, 3), (4, 1, 3), (2, 2, 1), (2, 3, 2), (3, 4, 3)]
)
@pytest.mark.parametrize("kind", ["shared", "two", "each", "batch", "batched edges", "both"])
def test_a_grid_is_the_list_of_its_factors(height, width, size, kind, tensors):
    rng = np.random.default_rng(2)
    many = kind in ("batch", "both")
    unary = rng.normal(size=(*((3,) if many else ()), height, width, size))
    cells = [(height - 1, width), (height, width - 1)]
    if kind in ("shared", "batch"):
        pairwise_tables = [rng.normal(size=(size, size))] * 2
    elif kind == "two":
        pairwise_tables = [rng.normal(size=(size, size)) for _ in cells]
    else:
        lead = () if kind == "each" else (3,)
        pairwise_tables = [rng.normal(size=(*lead, *c, size, size)) for c in cells]
    if tensors:
        unary, *pairwise_tables = map(torch.tensor, (unary, *pairwise_tables))
    given_tables = pairwise_tables[0] if kind in ("shared", "batch") else tuple(pairwise_tables)
    found, wanted = FactorGraph.grid(unary, given_tables), listed_grid(unary, *pairwise_tables)
    assert found.grid_shape == wanted.grid_shape == (height, width, size)
    assert found.variables == wanted.variables and found.is_forest == wanted.is_forest
    assert found.is_forest == (min(height, width) == 1) and found.is_tensor == tensors
    if kind != "batched edges" or height * width > 1:  # else the batch has no factor
        assert found.batch == wanted.batch
    for (scope, table), (other, log_table) in zip(found.factors, wanted.factors, strict=True):
        assert scope == other
        np.testing.assert_array_equal(*np.broadcast_arrays(table, log_table))
    x = rng.integers(0, size, height * width)
    if found.batch == wanted.batch:
        np.testing.assert_allclose(found.score(x), wanted.score(x), rtol=1e-13)


def edges_of(height, width) -> list:
    cells = nx.grid_2d_graph(height, width)
    return [*cells.edges]


def field(height, width, edges, size=2, unary=False) -> FactorGraph:
    cells = [*product(range(height), range(width))]
    factors = [(edge, np.zeros((size, size))) for edge in edges]
    factors += [((cell,), np.zeros(size)) for cell in cells if unary]
    return FactorGraph(dict.fromkeys(cells, size), factors)


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 2), (2, 1), (1, 5), (5, 1), (2, 2), (3, 4)]
)
def test_grids_are_recognised(height, width):  # fmt: skip
    edges = edges_of(height, width)
    assert field(height, width, edges).grid_shape == (height, width, 2)
    assert field(height, width, edges, 3, unary=True).grid_shape == (height, width, 3)
    turned = [edge[::-1] if i % 2 else edge for i, edge in enumerate(edges[::-1])]
    assert field(height, width, turned).grid_shape == (height, width, 2)
    cells = [*product(range(height), range(width))][::-1]  # not row by row
    other = FactorGraph(dict.fromkeys(cells, 2), [(edge, np.zeros((2, 2))) for edge in edges])
    assert other.grid_shape == ((height, width, 2) if len(cells) == 1 else None)


@pytest.mark.parametrize("make", [np.zeros, torch.zeros])
@pytest.mark.parametrize(("height", "width", "size"), [(2, 2, 2), (1, 1, 3), (2, 3, 1), (1, 2, 1)])
def test_a_grid_does_not_change_with_the_arrays_it_was_made_of(make, height, width, size):
    down, right = make((height - 1, width, size, size)), make((size, size))
    unary = make((height, width, size))
    graph = FactorGraph.grid(unary, (down, right))
    for given in (unary, down, right):
        given[...] = 7.0
    assert float(graph.score(np.zeros(height * width, int))) == 0.0
    if make is torch.zeros:  # and gradients still reach what it was made of
        tables = [given.clone().requires_grad_() for given in (unary, right)]
        graph = FactorGraph.grid(tables[0], tables[1])
        graph.score(np.zeros(height * width, int)).backward()
        assert float(tables[0].grad.sum()) == height * width
        edges = (height - 1) * width + height * (width - 1)
        assert not edges or float(tables[1].grad.sum()) == edges


@pytest.mark.parametrize(
    ("unary", "pair", "kind", "message"),
    [
        (np.zeros((2, 2, 2), complex), np.zeros((2, 2)), TypeError, "unary must hold numbers"),
        (np.zeros((2, 2, 2)), "abc", TypeError, "pairwise must hold numbers; got <U3"),
        ([[[0], [0, 1]]], np.zeros((2, 2)), ValueError, "unary is no array of numbers"),
    ],
)
def test_grids_of_what_is_no_numbers(unary, pair, kind, message):
    with pytest.raises(kind, match=message):
        FactorGraph.grid(unary, pair)


def test_what_is_no_grid():
    edges = edges_of(3, 4)
    assert field(3, 4, edges[:-1]).grid_shape is None  # an edge is missing
    assert field(3, 4, [*edges, edges[0]]).grid_shape is None  # or doubled
    assert field(3, 4, [*edges[1:], edges[1]]).grid_shape is None
    assert field(3, 4, [*edges[1:], edges[1][::-1]]).grid_shape is None
    torus = [*nx.grid_2d_graph(3, 4, periodic=True).edges]
    assert field(3, 4, torus).grid_shape is None
    assert field(1, 4, [*edges_of(1, 4), ((0, 3), (0, 0))]).grid_shape is None
    eight = [*edges, *(((r, c), (r + 1, c + 1)) for r in range(2) for c in range(3))]
    assert field(3, 4, eight).grid_shape is None
    # The end of a row and the beginning of the next are neighbours in the order alone.
    wrapped = [*edges_of(2, 3)[1:], ((0, 2), (1, 0))]
    assert field(2, 3, wrapped).grid_shape is None
    grid = field(2, 2, edges_of(2, 2))
    factors = [*grid.factors]
    cells = grid.cardinalities
    square = (tuple(cells), np.zeros((2, 2, 2, 2)))
    assert FactorGraph(cells, [*factors, square]).grid_shape is None
    for extra in ({"bias": 2}, {(2, 0): 2}, {(0, -1): 2}, {(0, 0, 0): 2}, {(0.0, 2): 2}):
        assert FactorGraph(cells | extra, factors).grid_shape is None
    assert FactorGraph([2, 2], [((0, 1), np.zeros((2, 2)))]).grid_shape is None
    uneven = FactorGraph({(0, 0): 2, (0, 1): 3}, [(((0, 0), (0, 1)), np.zeros((2, 3)))])
    assert uneven.grid_shape is None and FactorGraph([], []).grid_shape is None
    shifted = FactorGraph({(1, 1): 2, (1, 2): 2}, [(((1, 1), (1, 2)), np.zeros((2, 2)))])
    assert shifted.grid_shape is None


@pytest.mark.parametrize(
    ("unary", "pairwise_tables", "message"),
    [
        (np.zeros((2, 3)), np.zeros((2, 2)), r"unary needs the shape \(H, W, K\) or .*\(2, 3\)"),
        (np.zeros((0, 3, 2)), np.zeros((2, 2)), r"unary needs the shape .*got \(0, 3, 2\)"),
        (np.zeros((2, 3, 2)), np.zeros((3, 3)), r"edges down need the shape \(2, 2\) or \(1, 3, 2"),
        (np.zeros((2, 3, 2)), (np.zeros((2, 2)), np.zeros((1, 3, 2, 2))), r"right .*\(2, 2, 2, 2"),
        (np.zeros((2, 3, 2)), [np.zeros((2, 2))], r"a table or a pair \(down, right\); got 1"),
        (np.zeros((2, 3, 2)), np.zeros((1, 1, 1, 3, 2, 2)), "down have 6 axes, over 5"),
        (np.zeros((4, 2, 3, 2)), (np.zeros((5, 1, 3, 2, 2)), np.zeros((2, 2))), r": \[4, 5\]"),
        (np.zeros((2, 3, 2)), np.full((2, 2), np.nan), "over every edge has an entry that is NaN"),
        (np.array([[[np.inf, 0.0]]]), np.zeros((2, 2)), r"over \(0, 0\) .*\+inf"),
    ],
)  # fmt: skip
def test_grids_that_are_refused(unary, pairwise_tables, message):
    with pytest.raises(ValueError, match=message):
        FactorGraph.grid(unary, pairwise_tables)
