"""Markov properties checked on numbers: famous counterexamples, brute force, and theorems."""

import math
from itertools import combinations, product

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphs
from graphs.independence import moralize
from graphs.undirected.factorization import to_markov
from graphs.undirected.markov_properties import markov_properties
from graphs.undirected.separation import separated
from tests.networks import grid, random_bayesian

SEEDS = st.integers(0, 2**32 - 1)


def uniform_on(rows):
    """The uniform distribution on some rows of bits, one factor over variables 1, 2, ..."""
    rows = [tuple(map(int, row)) for row in rows]
    table = np.zeros([2] * len(rows[0]))
    for row in rows:
        table[row] = 1 / len(rows)
    return [(tuple(range(1, table.ndim + 1)), table)]


MOUSSOURIS = uniform_on(["0000", "1000", "1100", "1110", "0001", "0011", "0111", "1111"])
SQUARE = nx.cycle_graph([1, 2, 3, 4])


def test_moussouris_has_all_properties_and_does_not_factorise():
    """Moussouris 1974; Lauritzen 1996, section 3.2: the global property on the 4-cycle."""
    found = markov_properties(MOUSSOURIS, SQUARE)
    assert found.holding == {"pairwise": True, "local": True, "global": True}
    assert [str(s) for s in found.of("global")] == ["2 ⟂ 4 | 1, 3", "1 ⟂ 3 | 2, 4"]
    assert found.positive is False and found.factorises is False
    assert "though it has the Markov properties" in found.verdict
    # By hand: 0010 is impossible, yet each of its edges is as in a possible row, so that no product
    # over the edges can be zero there.
    table, edges = MOUSSOURIS[0][1], [(0, 1), (1, 2), (2, 3), (3, 0)]
    row = (0, 0, 1, 0)
    assert table[row] == 0
    for edge in edges:
        others = tuple(axis for axis in range(4) if axis not in edge)
        assert table.sum(others)[tuple(row[axis] for axis in sorted(edge))] > 0


def test_pairwise_without_local():
    """Three equal coins, with the edge 1 - 2 alone (Lauritzen 1996, section 3.2)."""
    graph = nx.Graph([(1, 2)])
    graph.add_node(3)
    found = markov_properties(uniform_on(["000", "111"]), graph)
    assert found.holding == {"pairwise": True, "local": False, "global": False}
    assert found.of("local")[2].deviation == pytest.approx(0.25)  # 1/2 against 1/2 times 1/2
    assert found.factorises is False


def test_local_without_global():
    """U = W and Y = Z are fair coins and X = W Y, on the chain (Lauritzen 1996, section 3.2)."""
    rows = [(u, u, u * z, z, z) for u, z in product((0, 1), repeat=2)]
    found = markov_properties(uniform_on(rows), nx.path_graph([1, 2, 3, 4, 5]))
    assert found.holding == {"pairwise": True, "local": True, "global": False}
    (failed,) = [s for s in found.of("global") if not s.holds]
    assert str(failed) == "1, 2 ⟂ 4, 5 | 3"
    # Given X = 0 the pairs of coins are 00, 01 and 10: 1/3 against 2/3 times 2/3.
    assert failed.deviation == pytest.approx(1 / 9)
    assert found.factorises is False


def test_in_words():
    graph = nx.Graph([(1, 2)])
    graph.add_node(3)
    said = str(markov_properties(uniform_on(["000", "111"]), graph)).split("\n")
    assert said[0] == ("The pairwise Markov property holds: 2 of 2 statements, largest deviation 0")
    assert said[4] == (
        "The local Markov property does NOT hold: 2 of 3 statements, largest deviation 0.25"
    )
    assert said[7].split() == ["3", "⟂", "1,", "2", "FAILS", "0.25"]
    assert said[9].startswith("The global Markov property does NOT hold: 0 of 1")
    assert said[10].split() == ["1,", "2", "⟂", "3", "FAILS", "0.25"]


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_products_have_all_properties(seed):
    """Whatever factorises is globally Markov, zeros or not (Lauritzen 1996, proposition 3.8)."""
    rng = np.random.default_rng(seed)
    bayesian = random_bayesian(rng, int(rng.integers(1, 7)), zeros=0.4, cards=3)
    found = markov_properties(to_markov(bayesian))
    assert all(found.holding.values())
    assert found.factorises
    against = markov_properties(bayesian, moralize(bayesian.graph()))
    assert [str(s) for s in against.statements] == [str(s) for s in found.statements]


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_the_three_are_one_for_positive_distributions(seed):
    """Hammersley and Clifford: with and without a factor over a pair that is not adjacent."""
    rng = np.random.default_rng(seed)
    graph = nx.gnp_random_graph(5, rng.uniform(0.3, 0.9), int(rng.integers(1000)))
    apart = [pair for pair in combinations(graph, 2) if pair not in graph.edges]
    model = [(pair, rng.uniform(0.2, 3, (2, 2))) for pair in graph.edges]
    model += [((node,), rng.uniform(0.2, 3, 2)) for node in graph]
    spoilt = bool(apart) and rng.random() < 0.5
    if spoilt:
        model.append((apart[int(rng.integers(len(apart)))], np.array([[3.0, 1.0], [1.0, 2.0]])))
    found = markov_properties(model, graph)
    assert set(found.holding.values()) == {not spoilt}
    assert found.positive is True and found.factorises is not spoilt
    assert "the three properties are equivalent" in found.verdict


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_the_global_property_by_all_separations(seed):
    """The statements checked imply each A ⟂ B | S of all separated sets, and are among them."""
    rng = np.random.default_rng(seed)
    nodes = range(4)
    graph = nx.gnp_random_graph(4, rng.uniform(0.2, 0.8), int(rng.integers(1000)))
    table = (rng.random((2,) * 4) < rng.uniform(0.2, 0.9)).astype(float)
    if rng.random() < 0.5:  # products with zeros, most of which satisfy the property
        table = np.ones((2,) * 4)
        for a, b in graph.edges:
            shape = [2 if node in (a, b) else 1 for node in nodes]
            table = table * (rng.random(shape) < 0.7)
    if not table.any():
        return
    found = markov_properties([(tuple(nodes), table)], graph)
    expected = True
    for roles in product(range(4), repeat=4):
        a, b, s = ([node for node in nodes if roles[node] == k] for k in range(3))
        if a and b and separated(graph, a, b, s):
            expected &= independent(table / table.sum(), a, b, s)
    assert found.holding["global"] == expected


def independent(table, a, b, s):
    """P(a, b, s) P(s) = P(a, s) P(b, s), by sums of the table."""
    together = margin(table, [*a, *b, *s]) * margin(table, s)
    return np.allclose(together, margin(table, [*a, *s]) * margin(table, [*b, *s]), atol=1e-12)


def margin(table, kept):
    return table.sum(tuple(k for k in range(table.ndim) if k not in kept), keepdims=True)


def test_a_hidden_dependence_is_measured():
    """The deviation by hand: |0.4 - 0.5 0.6| and the like, in each of the four statements."""
    table = np.array([[0.4, 0.1], [0.2, 0.3]])
    graph = nx.empty_graph(2)
    found = markov_properties([((0, 1), table)], graph)
    assert [s.deviation for s in found.statements] == pytest.approx([0.1] * 4)
    assert not any(found.holding.values())
    assert markov_properties([((0, 1), table)], graph, tolerance=0.11).holding["global"]


def test_nothing_underflows():
    """Weights of exp(-800) and less: the conditionals given improbable states count in full."""
    couple = np.array([[0.0, -800.0], [-1600.0, -800.0]])
    model = graphs.FactorGraph([2, 2, 2], [((0, 1), couple), ((1, 2), couple.T)])
    chain = markov_properties(model)
    assert chain.positive and all(chain.holding.values())
    bent = graphs.FactorGraph([2, 2, 2], [*model.factors, ((0, 2), np.eye(2))])
    found = markov_properties(bent, nx.path_graph(3))
    assert found.positive and not any(found.holding.values())


def test_a_grid_has_them_all():
    found = markov_properties(grid(3, 3, np.random.default_rng(0)), progress=False)
    assert all(found.holding.values()) and found.factorises
    assert len(found.of("pairwise")) == 36 - 12 and len(found.of("local")) == 9
    assert max(s.deviation for s in found.statements) < 1e-13


def test_mistakes_are_named():
    rng = np.random.default_rng(0)
    model = [("ab", rng.random((2, 2)))]
    with pytest.raises(ValueError, match="no variable of the model: no variable 'bb'; did you"):
        markov_properties(model, nx.Graph([("a", "bb"), ("a", "b")]))
    with pytest.raises(ValueError, match="has none for b"):
        markov_properties(model, nx.Graph([("a", "a")]))
    with pytest.raises(ValueError, match="26 variables has 67,108,864 cells"):
        markov_properties([((i,), rng.random(2)) for i in range(26)])
    for bad in (0, math.nan, "small"):
        with pytest.raises(ValueError, match="tolerance must be a positive number; got"):
            markov_properties(model, tolerance=bad)
    with pytest.raises(ValueError, match="no assignment is possible"):
        markov_properties([("a", [1.0, 0.0]), ("a", [0.0, 1.0])])
    with pytest.raises(TypeError, match=r"graphs\.moralize"):
        markov_properties(random_bayesian(rng))
    with pytest.raises(TypeError, match=r"graphs\.moralize"):
        markov_properties(model, nx.DiGraph([("a", "b")]))
    with pytest.raises(ValueError, match="batch of 2 fields"):
        markov_properties(graphs.FactorGraph([2], [((0,), np.zeros((2, 2)))]))
    with pytest.raises(ValueError, match="no Markov property 'globl'; did you mean global"):
        markov_properties(model).of("globl")
