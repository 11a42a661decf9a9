"""Undirected graphs and models: cliques, factorisation, separation, moralised networks."""

import math
import subprocess
import sys
from itertools import chain, combinations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.text import Text

import graphs
from graphs.independence import moralize
from graphs.pictures.drawing import _of_explanation
from graphs.pictures.picture import BLOCKED, FAINT, OPEN
from graphs.tables import tables_of
from graphs.trails import d_separated
from graphs.undirected.cliques import cliques, maximal_cliques, undirected_graph
from graphs.undirected.factorization import gibbs_factorization, to_markov
from graphs.undirected.separation import boundary, components, minimal_separators, separated
from tests.networks import NAMES, joint_table, random_bayesian

MIXED = nx.Graph([("a", 7), (7, (2, "x")), ("a", (2, "x")), ((2, "x"), frozenset({1})), (3.5, 3.5)])
SEEDS = st.integers(0, 2**32 - 1)


def random_graph(seed, most=7):
    """Any density, nodes of any type, self-loops too."""
    rng = np.random.default_rng(seed)
    nodes = [NAMES[i] for i in rng.permutation(most)[: rng.integers(1, most + 1)]]
    graph = nx.Graph()
    graph.add_nodes_from(nodes)
    share = rng.random()
    graph.add_edges_from(pair for pair in combinations(nodes, 2) if rng.random() < share)
    if rng.random() < 0.2:
        graph.add_edge(nodes[0], nodes[0])
    return graph


def subsets(nodes, least=0):
    nodes = list(nodes)
    return chain.from_iterable(combinations(nodes, k) for k in range(least, len(nodes) + 1))


def complete(graph, nodes):
    return all(graph.has_edge(a, b) for a, b in combinations(nodes, 2))


# Cliques


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_cliques_by_brute_force(seed):
    graph = random_graph(seed)
    every = [subset for subset in subsets(graph, 1) if complete(graph, subset)]
    assert cliques(graph) == every  # subsets come by size, then in the graph's order
    largest = [c for c in every if not any(set(c) < set(other) for other in every)]
    place = {node: i for i, node in enumerate(graph)}
    assert maximal_cliques(graph) == sorted(largest, key=lambda c: [place[node] for node in c])


def test_cliques_of_mixed_nodes():
    assert maximal_cliques(MIXED) == [("a", 7, (2, "x")), ((2, "x"), frozenset({1})), (3.5,)]
    assert cliques(nx.Graph()) == maximal_cliques(nx.Graph()) == []


def test_cliques_come_in_the_same_order_in_every_process():
    code = (
        "import networkx as nx; from graphs.undirected.factorization import maximal_cliques;"
        "print(maximal_cliques(nx.relabel_nodes(nx.gnm_random_graph(30, 200, 1), str)))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(found) == 1 and len(found.pop()) > 1000


def test_too_many_cliques_are_refused():
    assert len(cliques(nx.complete_graph(10), limit=1023)) == 1023
    with pytest.raises(ValueError, match="more than 1,022 cliques; pass a larger limit"):
        cliques(nx.complete_graph(10), limit=1022)
    with pytest.raises(ValueError, match="60 nodes has more than 1,000 cliques"):
        cliques(nx.complete_graph(60), limit=1000)
    many = nx.complete_multipartite_graph(*[3] * 20)  # 3^20 maximal cliques
    with pytest.raises(ValueError, match="more than 50 maximal cliques"):
        maximal_cliques(many, limit=50)
    with pytest.raises(TypeError, match="limit must be a whole number; got 'few'"):
        cliques(nx.path_graph(2), limit="few")
    with pytest.raises(ValueError, match="limit must be at least 1; got 0"):
        cliques(many, limit=0)


@pytest.mark.parametrize("function", [cliques, maximal_cliques, gibbs_factorization])
def test_directed_graphs_are_refused_with_what_to_do(function):
    with pytest.raises(TypeError, match=r"got DiGraph, which is directed: graphs.moralize makes"):
        function(nx.DiGraph([("a", "b")]))
    with pytest.raises(TypeError, match=r"graphs.to_markov makes it a Markov network"):
        function(random_bayesian(np.random.default_rng(0)))
    with pytest.raises(TypeError, match="parallel edges; got MultiGraph"):
        function(nx.MultiGraph([("a", "b")]))
    with pytest.raises(TypeError, match="got int"):
        function(5)


# The factorisation


def test_factorization_in_words_and_in_latex():
    factors = [
        ("ab", np.ones((2, 2))),
        ("b", np.ones(2)),
        ((), np.array(2.0)),
        ("cb", np.ones((3, 2))),
        ("b", np.ones(2)),
    ]
    found = gibbs_factorization(factors)
    assert found.variables == ("a", "b", "c")
    assert found.cliques == (("a", "b"), ("b", "c"))
    assert found.members == ((0, 1, 2, 4), (3,))
    assert found.positive is True
    assert str(found).split("\n")[:4] == [
        "P(a, b, c) = 1/Z ψ₁(a, b) ψ₂(b, c)",
        "",
        "ψ₁(a, b) = φ₁(a, b) φ₂(b) φ₃() φ₅(b)",
        "ψ₂(b, c) = φ₄(c, b)",
    ]
    assert found.latex == r"P(a, b, c) = \frac{1}{Z} \, \psi_{1}(a, b) \, \psi_{2}(b, c)"
    assert found._repr_latex_() == rf"$\displaystyle {found.latex}$"
    assert "No factor has a zero, so P is positive" in found.verdict


def test_factorization_of_a_graph_alone():
    from pgmpy.models import DiscreteMarkovNetwork

    network = DiscreteMarkovNetwork([("a", "b"), ("b", "c")])
    for graph in (network, nx.path_graph(["a", "b", "c"])):
        found = gibbs_factorization(graph)
        assert found.equation == "P(a, b, c) = 1/Z ψ₁(a, b) ψ₂(b, c)"
        assert found.factors is None and found.positive is None
        assert "For a positive distribution" in found.verdict and "φ" not in str(found)


def test_long_factorizations_break_their_lines():
    graph = nx.path_graph([f"temperature_{i}" for i in range(12)])
    found = gibbs_factorization(graph)
    assert max(len(line) for line in str(found).split("\n")) <= 88
    assert found.equation.count("\n") == found.latex.count(r"\\") > 1
    assert found.latex.startswith(r"\begin{aligned}")
    assert r"\psi_{11}(\mathrm{temperature\_10}, \mathrm{temperature\_11})" in found.latex


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_the_potentials_multiply_to_the_model(seed):
    """The product of the factors put into the cliques is the joint table, each factor used once."""
    model = tables_of(to_tables(random_bayesian(np.random.default_rng(seed), zeros=0.2)))
    found = gibbs_factorization(model)
    assert sorted(chain.from_iterable(found.members)) == list(range(len(model.factors)))
    assert found.cliques == tuple(maximal_cliques(model.graph()))
    for clique, members in zip(found.cliques, found.members, strict=True):
        assert all(set(found.factors[i]) <= set(clique) for i in members)
    every = [model.factors[i] for members in found.members for i in members]
    np.testing.assert_allclose(joint_table(model, every), joint_table(model), rtol=1e-12)
    assert found.positive == bool((joint_table(model) > 0).all())


def to_tables(bayesian):
    return [(variables, values) for variables, values in bayesian.factors]


def test_zeros_are_named():
    found = gibbs_factorization([("ab", [[1.0, 0.0], [0.0, 2.0]]), ("bc", np.ones((2, 2)))])
    assert found.positive is False and found.zeros == (2, 0)
    assert "φ₁(a, b) has 2 zeros among its 4 entries" in found.verdict
    assert "Moussouris 1974" in found.verdict and "does not apply" in found.verdict


def test_what_is_tiny_is_no_zero():
    model = graphs.FactorGraph({"a": 2, "b": 2}, [("ab", np.array([[0.0, -2000.0], [1.0, 0.0]]))])
    assert gibbs_factorization(model).positive is True


def test_a_factor_over_no_clique_is_refused():
    from pgmpy.factors.discrete import DiscreteFactor
    from pgmpy.models import DiscreteMarkovNetwork

    network = DiscreteMarkovNetwork([("a", "b"), ("b", "c")])
    network.add_factors(DiscreteFactor(["a", "b", "c"], [2, 2, 2], np.ones(8)))
    with pytest.raises(ValueError, match="over no clique of the model's graph: a and c are not"):
        gibbs_factorization(network)
    with pytest.raises(ValueError, match="no variables"):
        gibbs_factorization([])
    for bad in (-1.0, math.nan):
        with pytest.raises(ValueError, match="negative or not finite"):
            gibbs_factorization([("a", [1.0, bad])])


# Separation


@settings(max_examples=80, deadline=None)
@given(SEEDS)
def test_separation_by_brute_force(seed):
    rng, graph = np.random.default_rng(seed), random_graph(seed)
    roles = rng.integers(0, 4, len(graph))
    a, b, given = ([n for n, role in zip(graph, roles, strict=True) if role == k] for k in range(3))
    found = separated(graph, a, b, given, max_trails=10_000)
    rest = graph.subgraph(set(graph).difference(given))
    expected = not any(nx.has_path(rest, x, y) for x in a for y in b)
    assert bool(found) is found.separated is expected
    plain = nx.Graph(graph)
    plain.remove_edges_from(list(nx.selfloop_edges(plain)))
    ends = set(a) | set(b)
    every = {
        tuple(path)
        for x in a
        for y in b
        for path in nx.all_simple_paths(plain, x, y)
        if not ends.intersection(path[1:-1])
    }
    assert {trail.nodes for trail in found.trails} == every and len(found.trails) == len(every)
    assert [len(trail.nodes) for trail in found.trails] == sorted(len(p) for p in every)
    for trail in found.trails:
        assert trail.blocked_by == tuple(node for node in trail.nodes if node in given)
    assert any(trail.open for trail in found.trails) is not expected
    assert not found.cut


def test_separation_in_words():
    cycle = nx.cycle_graph(["a", "b", "c", "d"])
    opened = separated(cycle, "a", "c", "b")
    assert str(opened) == (
        "a is not separated from c given b\n\n"
        "1. a - b - c   (cut at b)\n"
        "2. a - d - c   (open)\n\n"
        "Trail 2 is open: not separated."
    )
    closed = separated(cycle, "a", "c", {"b", "d"})
    assert closed.question == "a is separated from c given b, d"
    assert closed.verdict == "Every trail passes an observed node: separated."
    assert separated(cycle, "a", "c").verdict == "2 trails are open: not separated."
    apart = nx.empty_graph(2)
    assert str(separated(apart, 0, 1)) == (
        "0 is separated from 1 given nothing\n\nNo trail joins them: separated."
    )


def test_trails_are_capped_and_an_open_one_is_shown():
    graph = nx.complete_bipartite_graph(2, 12)  # 0 and 1 through 2..13
    through = list(range(2, 13))
    found = separated(graph, 0, 1, through, max_trails=3)
    assert not found and found.cut and len(found.trails) == 4
    assert found.trails[-1].nodes == (0, 13, 1) and found.trails[-1].open
    assert (
        found.verdict == "There are more trails than the 4 listed. Trail 4 is open: not separated."
    )
    blocked = separated(graph, 0, 1, [*through, 13], max_trails=3)
    assert blocked and blocked.cut and len(blocked.trails) == 3
    assert "Without the observed nodes no trail is left" in blocked.verdict
    # All but one trail listed, and that one open: nothing is hidden.
    whole = separated(nx.cycle_graph(5), 0, 2, 1, max_trails=1)
    assert not whole.cut and len(whole.trails) == 2


def test_separation_takes_models_tuples_and_refuses_mistakes():
    rng = np.random.default_rng(0)
    model = [((i, (i + 1) % 4), rng.random((2, 2))) for i in range(4)]
    assert separated(model, 0, 2, [1, 3])
    assert not separated(MIXED, "a", frozenset({1}))
    assert separated(MIXED, "a", frozenset({1}), (2, "x"))
    with pytest.raises(ValueError, match="no node 'aa'"):
        separated(MIXED, "aa", 7)
    with pytest.raises(ValueError, match="a and given must have no node in common; both hold a"):
        separated(MIXED, ["a", 7], 3.5, "a")
    with pytest.raises(ValueError, match="max_trails must be at least 1; got 0"):
        separated(MIXED, "a", 7, max_trails=0)
    with pytest.raises(TypeError, match="moralize"):
        separated(nx.DiGraph([(0, 1)]), 0, 1)


def test_separations_are_drawn(tmp_path):
    """Each trail is one line over its edges; what cuts is marked."""
    graph = nx.Graph([("c", "b"), ("b", "a"), ("c", "d"), ("d", "a"), ("d", "e")])
    look = _of_explanation(separated(graph, "a", "c", "b"))
    assert {frozenset(edge): style.colour for edge, style in look.edges.items()} == {
        frozenset("ab"): BLOCKED,
        frozenset("bc"): BLOCKED,
        frozenset("ad"): OPEN,
        frozenset("cd"): OPEN,
        frozenset("de"): FAINT,
    }
    assert len(look.edges) == 5 and look.marked == ["b"]
    figure = graphs.draw(separated(graph, "a", "c", "b"), path=tmp_path / "separation.svg")
    texts = " ".join(text.get_text() for text in figure.findobj(Text))
    assert "a is not separated from c given b" in " ".join(texts.split())
    assert (tmp_path / "separation.svg").stat().st_size > 1000
    with pytest.raises(ValueError, match="an explanation has its observed nodes"):
        graphs.draw(separated(graph, "a", "c"), observed="b")


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_separation_in_the_moral_graph_of_ancestors_is_d_separation(seed):
    """Lauritzen 1996, proposition 3.25."""
    rng = np.random.default_rng(seed)
    dag = random_bayesian(rng).graph()
    roles = rng.integers(0, 4, len(dag))
    a, b, given = ([n for n, role in zip(dag, roles, strict=True) if role == k] for k in range(3))
    if not (a and b):
        return
    ancestral = set(chain(a, b, given))
    ancestral |= set(chain.from_iterable(nx.ancestors(dag, node) for node in ancestral))
    moral = moralize(nx.DiGraph(dag.subgraph(ancestral)))
    assert bool(separated(moral, a, b, given)) == d_separated(dag, a, b, given)


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_minimal_separators_by_brute_force(seed):
    graph = random_graph(seed)
    expected = []
    for subset in subsets(graph):
        parts = components(graph, subset)
        if sum(boundary(graph, part) == subset for part in parts) >= 2:
            expected.append(subset)
        rest = graph.subgraph(set(graph).difference(subset))
        assert {frozenset(p) for p in parts} == {
            frozenset(p) for p in nx.connected_components(rest)
        }
    assert minimal_separators(graph, 1000) == expected


def test_minimal_separators_are_capped():
    assert len(minimal_separators(nx.cycle_graph(6), 9)) == 9  # any two nodes that are not adjacent
    with pytest.raises(ValueError, match="more than 8 minimal separators"):
        minimal_separators(nx.cycle_graph(6), 8)


# Bayesian networks as Markov networks


def test_to_markov_of_a_network():
    bayesian = graphs.load("asia")
    network = to_markov(bayesian)
    assert type(network).__name__ == "DiscreteMarkovNetwork" and network.check_model()
    assert {frozenset(e) for e in network.edges} == {frozenset(e) for e in moralize(bayesian).edges}
    one, other = tables_of(bayesian), tables_of(network)
    assert one.states == other.states and not other.directed
    np.testing.assert_allclose(joint_table(one), joint_table(other), rtol=1e-15)
    assert gibbs_factorization(network).members == ((0, 1), (5,), (2, 3), (4,), (7,), (6,))


def test_to_markov_of_factors():
    network = to_markov([("ab", np.ones((2, 3)))])
    assert list(network.edges) == [("a", "b")]
    assert undirected_graph(network) is network
