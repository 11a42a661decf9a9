"""Pictures of factor graphs: squares and circles, chains in a row, grids as grids."""

from itertools import combinations, pairwise, product

import numpy as np
import pytest
from matplotlib.colors import to_hex

import graphs
from graphs.factor_graph import FactorGraph
from graphs.factor_groups import FactorNode
from graphs.pictures.picture import INK, SHADE
from graphs.pictures.shapes import distance
from tests.networks import quietly
from tests.test_graphs_drawing import Drawn


def structure(sizes, scopes) -> FactorGraph:
    sizes = sizes if isinstance(sizes, dict) else dict.fromkeys(sizes, 2)
    return FactorGraph(sizes, [(s, np.zeros([sizes[v] for v in s])) for s in scopes])


def drawn(graph, **options) -> Drawn:
    return Drawn(graphs.draw(graph, **options), graph.graph())


CHAIN = structure(range(3), [(0,), (1,), (2,), (0, 1), (1, 2)])
TREE = structure("ABCDEF", ["A", "AB", "AC", "BD", "BE", "CF"])
LOOP = structure(range(5), [(0,), *((i, (i + 1) % 5) for i in range(5))])
WIDE = structure("wxyz", ["wxyz", "w", "z"])
HIDDEN = structure("uvwxyz", ["u", "uv", "vw", "ux", "vy", "wz"])
GRID = FactorGraph.grid(np.zeros((3, 4, 2)), np.zeros((2, 2)))
EIGHT = structure(
    product(range(3), range(3)),
    [(a, b) for a, b in combinations(product(range(3), range(3)), 2)
     if max(abs(a[0] - b[0]), abs(a[1] - b[1])) == 1],
)  # fmt: skip
ALL = {"chain": CHAIN, "tree": TREE, "loop": LOOP, "wide": WIDE, "hidden": HIDDEN, "grid": GRID,
       "eight": EIGHT, "parts": structure(range(4), [(0, 1), (2, 3), ()]),
       "bare": structure(range(2), []), "constant": structure([], [()])}  # fmt: skip


@pytest.mark.parametrize("name", ALL)
def test_factors_are_small_squares_apart_from_all_else(name):
    graph = ALL[name]
    found = drawn(graph)
    boxes = {node: found.box(node) for node in found.nodes}
    assert len(found.edges) == sum(len(scope) for scope, _ in graph.factors)
    assert not found.heads
    for node, patch in found.nodes.items():
        corners = patch.get_xy() - boxes[node][0]
        filled = (abs(corners) > 0.9 * boxes[node][1] / 2).all(1).any()  # a circle has no corners
        assert filled == isinstance(node, FactorNode)
        if filled:
            assert found.fill(node) == INK
            assert boxes[node][1][1] < 0.8 * 0.36
    for one, other in combinations(boxes, 2):
        (p, s), (q, t) = boxes[one], boxes[other]
        assert (abs(p - q) >= (s + t) / 2).any()
    names = {str(i) for i in graph.variables} | {f"f{i}" for i in range(len(graph.factors))}
    assert set(found.texts) == names
    again = drawn(graph)
    assert all((again.box(node)[0] == box[0]).all() for node, box in boxes.items())
    bipartite = Drawn(graphs.draw(graph.graph()), graph.graph())
    assert all((bipartite.box(node)[0] == box[0]).all() for node, box in boxes.items())


@pytest.mark.parametrize("name", ALL)
def test_edges_go_from_border_to_border_past_all_other_nodes(name):
    found = drawn(ALL[name])
    for (one, other), line in found.edges.items():
        points = line.get_xydata()
        for node, end in ((one, points[:1]), (other, points[-1:])):
            square = isinstance(node, FactorNode)
            assert abs(distance(end, *found.box(node), square)[0]) < 0.005
        for node in set(found.nodes) - {one, other}:
            assert (distance(points, *found.box(node)) > -0.02).all()


def test_chains_lie_in_a_row():
    found = drawn(CHAIN)
    at = {node: found.box(node)[0] for node in found.nodes}
    row = [0, FactorNode(3), 1, FactorNode(4), 2]
    for one, other in pairwise(row):
        assert at[one][1] == pytest.approx(at[other][1]) and at[one][0] < at[other][0] - 0.3
    for variable in range(3):  # the factors of one variable are above it
        above = at[FactorNode(variable)] - at[variable]
        assert above[0] == pytest.approx(0.0, abs=1e-6) and above[1] > 0.3
    found = drawn(HIDDEN)
    at = {node: found.box(node)[0] for node in found.nodes}
    for hidden, factor, observed in zip("uvw", (3, 4, 5), "xyz", strict=True):
        below = [at[node][1] for node in (hidden, FactorNode(factor), observed)]
        assert below[0] > below[1] > below[2]
        assert at[hidden][0] == pytest.approx(at[observed][0])
    assert at["u"][1] == pytest.approx(at["w"][1])


def test_a_long_chain_is_no_row_and_a_tree_has_layers():
    found = drawn(structure(range(30), list(pairwise(range(30)))))
    heights = {round(float(found.box(node)[0][1]), 3) for node in range(30)}
    assert len(heights) > 10
    found = drawn(TREE)
    at = {node: found.box(node)[0] for node in "ABCDEF"}
    assert at["A"][1] > at["B"][1] == pytest.approx(at["C"][1])
    assert at["D"][1] == pytest.approx(at["E"][1]) and at["E"][1] == pytest.approx(at["F"][1])


@pytest.mark.parametrize("graph", [GRID, EIGHT], ids=["four", "eight"])
def test_grids_are_drawn_as_grids(graph):
    found = drawn(graph)
    at = {v: found.box(v)[0] for v in graph.variables}
    (x0, y0), (x1, y1) = at[0, 0], at[1, 1]
    step = np.array([x1 - x0, y1 - y0])
    assert step[0] > 0 > step[1]  # columns to the right, rows down
    for (row, column), place in at.items():
        np.testing.assert_allclose(place, at[0, 0] + step * [column, row], atol=1e-6)
    for i, (scope, _) in enumerate(graph.factors):
        ends = np.array([at[v] for v in scope])
        place = found.box(FactorNode(i))[0]
        if len(scope) == 2:  # on the line between its variables
            along = (place - ends[0]) @ (ends[1] - ends[0]) / np.sum((ends[1] - ends[0]) ** 2)
            np.testing.assert_allclose(ends[0] + along * (ends[1] - ends[0]), place, atol=1e-6)
            assert 0.25 < along < 0.75
        else:
            assert np.hypot(*(place - ends[0])) < np.hypot(*step) / 2


def test_pairs_that_are_no_neighbours_are_not_drawn_as_a_grid():
    cells = [(0, 0), (0, 1), (1, 0), (1, 1)]
    ring = [*pairwise([(0, 0), (0, 1), (1, 1), (1, 0), (0, 0)])]
    square = drawn(structure(cells, ring))
    assert square.box((0, 0))[0][0] == pytest.approx(square.box((1, 0))[0][0])
    far = drawn(structure([*cells, (0, 2)], [*ring, ((0, 0), (0, 2))]))
    assert far.box((0, 0))[0][0] != pytest.approx(far.box((1, 0))[0][0], abs=0.01)
    sparse = structure([(0, 0), (0, 1), (90, 90)], [((0, 0), (0, 1))])
    assert np.ptp(drawn(sparse).axes.get_ylim()) < 3


def test_observed_highlighted_and_labelled_nodes():
    found = drawn(GRID, observed=(1, 2), highlight=[(0, 0), FactorNode(3)])
    shaded = [v for v in GRID.variables if found.fill(v) == to_hex(SHADE)]
    assert shaded == [(1, 2)] and "observed" in found.texts
    assert found.fill((0, 0)) == found.fill(FactorNode(3)) == "#f0e442"
    with pytest.raises(ValueError, match="f3 is a factor; only variables are observed"):
        graphs.draw(GRID, observed=FactorNode(3))
    with pytest.raises(ValueError, match=r"no node '\(9, 9\)'"):
        graphs.draw(GRID, observed=[(9, 9)])
    bipartite = CHAIN.graph()
    bipartite.nodes[FactorNode(3)]["label"] = "near"
    texts = Drawn(graphs.draw(bipartite), bipartite).texts
    assert "near" in texts and "f3" not in texts and "f4" in texts


def test_networks_and_batches_are_drawn(tmp_path):
    alarm = FactorGraph.of(quietly(graphs.read, "alarm"))
    found = drawn(alarm, path=tmp_path / "alarm.svg")
    assert len(found.nodes) == 74 and (tmp_path / "alarm.svg").stat().st_size > 10_000
    batch = FactorGraph.grid(np.zeros((5, 20, 20, 2)), np.zeros((2, 2)))
    found = drawn(batch, title="field")
    assert found.texts == ["field (1,560 nodes, too many to name)"]
    assert len(found.nodes) == 1560
