"""Clique trees and elimination orders on random graphs."""

import math

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs.exact.clique_tree import LIMIT, CliqueTree, readable
from graphs.exact.reduction import Reduction
from graphs.exact.triangulation import HEURISTICS, elimination_order


def random_scopes(seed):
    """Cardinalities and the scopes of random factors, some of them empty, repeated or nested."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 25))
    cardinalities = [int(k) for k in rng.integers(1, 5, count)]
    scopes = [
        tuple(int(v) for v in rng.permutation(count)[: rng.integers(0, 5)])
        for _ in range(rng.integers(0, 2 * count))
    ]
    return cardinalities, scopes


def check_tree(tree, cardinalities, scopes):
    count = len(cardinalities)
    assert sorted(tree.position) == list(range(count))
    assert set().union(*map(set, tree.axes), set()) == set(range(count))
    for clique, axes in enumerate(tree.axes):
        assert list(axes) == sorted(axes, key=tree.position.__getitem__)
        assert tree.cells[clique] == math.prod(cardinalities[v] for v in axes)
        parent, shared = tree.parents[clique], tree.separators[clique]
        if parent < 0:
            assert shared == ()
            continue
        assert parent < clique and clique in tree.children[parent]  # downward: parents first
        assert set(shared) == set(axes) & set(tree.axes[parent])
        assert axes[len(axes) - len(shared) :] == shared  # the last axes
        assert not set(axes) <= set(tree.axes[parent])
    for v in range(count):  # running intersection: the cliques of a variable are one subtree
        holding = [i for i, axes in enumerate(tree.axes) if v in axes]
        tops = [i for i in holding if tree.parents[i] not in holding]
        assert tops == [tree.homes[v]]
    for scope in scopes:
        assert set(scope) <= set(tree.axes[tree.home_of(scope)]) if scope else True
        if scope:
            smallest = tree.smallest_holder(scope)
            assert set(scope) <= set(tree.axes[smallest])
            assert tree.cells[smallest] <= tree.cells[tree.home_of(scope)]
    assert tree.smallest_holder(range(count)) >= 0 or len(tree.axes) > 1
    cost = tree.cost
    assert cost.total_cells == sum(tree.cells) and cost.largest_table == max(tree.cells)
    assert cost.width >= max(map(len, scopes), default=1) - 1


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**9), st.sampled_from([0, 16, 256, 10**9]), st.integers(0, 3))
def test_random_clique_trees(seed, merged, engine_seed):
    cardinalities, scopes = random_scopes(seed)
    tree = CliqueTree(cardinalities, scopes, seed=engine_seed, merged=merged)
    check_tree(tree, cardinalities, scopes)
    again = CliqueTree(cardinalities, scopes, merged=8, steps=tree.steps)
    check_tree(again, cardinalities, scopes)
    if merged == 0:  # then each clique is one of the triangulated graph
        chordal = nx.Graph()
        chordal.add_nodes_from(range(len(cardinalities)))
        for step in tree.steps:
            chordal.add_edges_from((a, b) for i, a in enumerate(step) for b in step[i + 1 :])
        assert nx.is_chordal(chordal)
        maximal = {frozenset(clique) for clique in nx.find_cliques(chordal)}
        # Cliques may be joined where that saves cells, which variables of one state allow.
        assert all(any(clique <= set(axes) for axes in tree.axes) for clique in maximal)
        if min(cardinalities) > 1 and tree.cost.largest_table > 0:
            assert len(tree.axes) <= len(maximal)


def test_no_variables_make_no_cliques():
    tree = CliqueTree([], [])
    assert tree.axes == [] and tree.cost.total_cells == 0 and tree.smallest_holder((0,)) == -1


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**9), st.sampled_from(HEURISTICS), st.integers(0, 3))
def test_an_elimination_order_is_a_permutation(seed, heuristic, ties):
    rng = np.random.default_rng(seed)
    graph = nx.gnp_random_graph(int(rng.integers(1, 30)), rng.random(), seed=seed % 2**32)
    graph = nx.relabel_nodes(graph, {v: (v, "x") if v % 2 else str(v) for v in graph})
    graph.add_edge(*[next(iter(graph))] * 2)  # a loop means nothing
    cardinalities = {v: int(rng.integers(1, 6)) for v in graph}
    order = elimination_order(graph.adj, cardinalities, heuristic=heuristic, seed=ties)
    assert sorted(order, key=str) == sorted(graph, key=str)
    assert order == elimination_order(graph.adj, cardinalities, heuristic=heuristic, seed=ties)


def fill_edges(graph, order):
    graph, added = graph.copy(), 0
    for v in order:
        near = list(graph[v])
        for i, a in enumerate(near):
            for b in near[i + 1 :]:
                if not graph.has_edge(a, b):
                    graph.add_edge(a, b)
                    added += 1
        graph.remove_node(v)
    return added


@pytest.mark.parametrize("seed", range(30))
def test_min_fill_adds_nothing_to_a_chordal_graph(seed):
    rng = np.random.default_rng(seed)
    graph, _ = nx.complete_to_chordal_graph(
        nx.gnp_random_graph(int(rng.integers(2, 30)), 0.15, seed=seed)
    )
    order = elimination_order(graph.adj, dict.fromkeys(graph, 2), seed=seed)
    assert fill_edges(graph, order) == 0
    tree = CliqueTree([2] * len(graph), list(graph.edges), merged=0, seed=seed)
    for step in tree.steps:
        assert all(graph.has_edge(a, b) for i, a in enumerate(step) for b in step[i + 1 :])
    assert tree.cost.width == max(map(len, nx.find_cliques(graph))) - 1


def test_heuristics_do_what_their_names_say():
    """The first step by each: least fill, least table, least weighted fill."""
    # v: 4 neighbours that are all joined; u: 2 neighbours that are not; w: the cheapest pair.
    graph = nx.Graph([(a, b) for a in range(5) for b in range(a)])
    graph.add_edges_from([("u", 0), ("u", 5), (5, 1), ("w", 6), ("w", 7), (6, 7), (6, 2), (7, 3)])
    cards = {v: 4 for v in graph} | {"u": 2, 0: 2, 5: 2}
    for heuristic, least in (
        ("min_fill", lambda g, v: fill_edges(g, [v])),
        ("min_weight", lambda g, v: math.prod(cards[x] for x in (v, *g[v]))),
        (
            "weighted_min_fill",
            lambda g, v: sum(
                math.log2(cards[a]) * math.log2(cards[b])
                for i, a in enumerate(list(g[v]))
                for b in list(g[v])[i + 1 :]
                if not g.has_edge(a, b)
            ),
        ),
    ):
        left = graph.copy()
        for v in elimination_order(graph.adj, cards, heuristic=heuristic):
            assert least(left, v) == pytest.approx(min(least(left, x) for x in left))
            near = list(left[v])
            left.add_edges_from((a, b) for i, a in enumerate(near) for b in near[i + 1 :])
            left.remove_node(v)
    with pytest.raises(ValueError, match=r"heuristic must be one of min_fill.*got 'max_fill'"):
        elimination_order(graph.adj, cards, heuristic="max_fill")


def test_what_no_machine_holds_is_not_built():
    count = 60
    clique = [(a, b) for a in range(count) for b in range(a)]
    tree = CliqueTree([2] * count, clique)
    assert not tree.feasible and tree.cost.at_least
    assert tree.cost.total_cells == LIMIT and tree.cost.width == count - 1
    one = CliqueTree([10] * 400, [tuple(range(400))])
    assert one.cost.at_least and "at least" in str(one.cost) and len(str(one.cost)) < 120


def test_a_reduction_keeps_what_is_asked_for():
    rng = np.random.default_rng(0)
    for seed in range(60):
        cardinalities, scopes = random_scopes(seed)
        count = len(cardinalities)
        observed = {v for v in range(count) if rng.random() < 0.3}
        free = [v for v in range(count) if v not in observed]
        wanted = [tuple(rng.permutation(free)[: rng.integers(1, 5)].tolist())] if free else []
        reduction = Reduction(cardinalities, scopes, observed=observed, wanted=wanted)
        assert reduction.variables == free
        tables = [rng.random([cardinalities[v] for v in scope]) for scope in scopes]
        codes = {v: rng.integers(0, cardinalities[v], 3) for v in observed}
        for (scope, table), whole, axes in zip(
            reduction.factors(tables, codes), tables, scopes, strict=True
        ):
            for row in range(3):
                at = tuple(codes[v][row] if v in observed else slice(None) for v in axes)
                np.testing.assert_array_equal(table[..., row % table.shape[-1]], whole[at])
            assert [reduction.variables[v] for v in scope] == [v for v in axes if v in free]
        for scope in wanted:
            assert reduction.tree.smallest_holder([reduction.local[v] for v in scope]) >= 0


def test_bytes_are_readable():
    said = [readable(n) for n in (0, 1023, 1024, 3 * 2**20, 5.5 * 2**30, 2**43)]
    assert said == ["0 bytes", "1,023 bytes", "1.0 KiB", "3.0 MiB", "5.5 GiB", "8.0 TiB"]
