"""Variable elimination against brute force, and its steps against those worked out by hand."""

import itertools
import math
import random
import time

import networkx as nx
import numpy as np
import pytest

import graphs
from graphs.exact import elimination
from graphs.exact.elimination import RunningIntersection, eliminate, elimination_steps
from graphs.exact.elimination_record import columns
from graphs.independence import moralize
from graphs.io import read
from graphs.tables import Factor, Tables, bayesian


def joint(tables, evidence=None):
    """The product of all tables with one axis a variable, zero where the evidence differs."""
    names = list(tables.states)
    number = {v: i for i, v in enumerate(names)}
    operands = [np.ones([len(s) for s in tables.states.values()]), list(range(len(names)))]
    for scope, values in tables.factors:
        operands += [values, [number[v] for v in scope]]
    for variable, state in (evidence or {}).items():
        held = np.zeros(len(tables.states[variable]))
        held[tables.positions[variable][str(state)]] = 1
        operands += [held, [number[variable]]]
    return np.einsum(*operands, list(range(len(names))))


def brute(tables, query, evidence=None):
    """The unnormalised table over the query, axes as asked for."""
    number = {v: i for i, v in enumerate(tables.states)}
    axes = list(range(len(number)))
    return np.einsum(joint(tables, evidence), axes, [number[v] for v in query])


def random_network(rng, names, directed, zeros=0.0):
    sizes = {v: int(rng.integers(1, 4)) for v in names}
    factors = []
    for i, child in enumerate(names):
        before = [names[k] for k in rng.permutation(i)[: rng.integers(0, 4)]]
        values = rng.gamma(0.6, size=[sizes[v] for v in (child, *before)]) + 1e-3
        values *= rng.random(values.shape) >= zeros
        if directed:
            values[0] += 1e-3
            values = values / values.sum(0)
        factors.append(Factor((child, *before), values))
    states = {v: tuple(f"s{k}" for k in range(sizes[v])) for v in names}
    if directed:
        return bayesian(states, factors)
    factors.append(Factor((), np.array(rng.gamma(1.0) + 0.1)))
    return Tables(states, factors)


def random_question(rng, tables):
    names = list(tables.states)
    mixed = [names[i] for i in rng.permutation(len(names))]
    asked, seen = int(rng.integers(0, 4)), int(rng.integers(0, 3))
    query, observed, hidden = mixed[:asked], mixed[asked : asked + seen], mixed[asked + seen :]
    evidence = {v: rng.choice(tables.states[v]) for v in observed}
    return query, evidence, hidden


MIXED = ["a", 1, (2, 3), "b", frozenset({4}), 5.5, "c", ("a",)]  # cannot be sorted


@pytest.mark.parametrize("seed", range(60))
def test_any_order_gives_the_posterior_of_brute_force(seed):
    rng = np.random.default_rng(seed)
    tables = random_network(rng, MIXED, directed=seed % 2 == 0, zeros=0.1 * (seed % 3))
    query, evidence, hidden = random_question(rng, tables)
    exact = brute(tables, query, evidence)
    if exact.sum() == 0:
        with pytest.raises(ValueError, match=r"impossible|no assignment"):
            eliminate(tables, query, evidence, hidden)
        return
    for order in (hidden, None, hidden[::-1]):
        found = eliminate(tables, query, evidence, order)
        assert found.posterior.shape == tuple(len(tables.states[v]) for v in query)
        np.testing.assert_allclose(found.posterior, exact / exact.sum(), rtol=1e-11, atol=1e-300)
        assert found.log_evidence == pytest.approx(math.log(exact.sum()), rel=1e-12, abs=1e-12)
        assert set(found.order) == set(hidden)
        assert found.order == tuple(hidden) or order != hidden


def test_at_most_few_of_the_random_questions_are_impossible():
    impossible = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        tables = random_network(rng, MIXED, directed=seed % 2 == 0, zeros=0.1 * (seed % 3))
        query, evidence, _ = random_question(rng, tables)
        impossible += brute(tables, query, evidence).sum() == 0
    assert impossible < 15


@pytest.mark.parametrize("seed", range(40))
def test_induced_graph_and_clique_tree_of_random_orders(seed):
    rng = np.random.default_rng(1000 + seed)
    tables = random_network(rng, MIXED, directed=seed % 2 == 0)
    query, evidence, hidden = random_question(rng, tables)
    found = eliminate(tables, query, evidence, hidden)

    # The elimination game on the graph, without any factors.
    graph = nx.Graph()
    graph.add_nodes_from(v for v in tables.states if v not in evidence)
    for scope, _ in tables.factors:
        graph.add_edges_from(itertools.combinations([v for v in scope if v not in evidence], 2))
    original = {frozenset(edge) for edge in graph.edges}
    rest, every, sizes = graph.copy(), set(original), []
    for variable, step in zip(hidden, found.steps, strict=True):
        near = set(rest[variable])
        assert (step.variable, set(step.left)) == (variable, near)
        assert set(step.scope) == near | {variable} == set().union(*step.joined)
        added = {frozenset(p) for p in itertools.combinations(near, 2) if not rest.has_edge(*p)}
        assert {frozenset(pair) for pair in step.fill} == added
        sizes.append(math.prod(len(tables.states[v]) for v in step.scope))
        assert step.cells == sizes[-1]
        rest.remove_node(variable)
        rest.add_edges_from(itertools.combinations(near, 2))
        every |= added
    every |= {frozenset(pair) for pair in itertools.combinations(query, 2)}
    sizes.append(math.prod(len(tables.states[v]) for v in query))
    assert (found.largest_table, found.total_cells) == (max(sizes), sum(sizes))

    induced = found.induced_graph()
    assert set(induced) == set(graph)
    assert {frozenset(edge) for edge in induced.edges} == every
    fill = {frozenset((a, b)) for a, b, fill in induced.edges(data="fill") if fill}
    assert fill == every - original
    assert nx.is_chordal(induced)
    cliques = set(nx.chordal_graph_cliques(induced))
    tree = found.clique_tree()
    assert set(tree) == cliques
    assert found.width == max(map(len, cliques), default=1) - 1
    assert nx.is_forest(tree) if cliques else not tree
    parts = nx.number_connected_components
    assert not cliques or parts(tree) == parts(induced)
    for clique in tree:
        inside = tree.nodes[clique]["label"][1:-1]
        assert len(inside) == len(", ".join(map(str, clique)))
    for one, other, label in tree.edges(data="label"):
        assert one & other
        assert len(label) == len("{" + ", ".join(map(str, one & other)) + "}")
    intersection = found.running_intersection()
    assert intersection.holds
    assert set(intersection.cliques) == set(graph)
    for variable, holding in intersection.cliques.items():
        assert len(holding) == sum(variable in clique for clique in cliques) > 0


def pairwise(edges, size=2, seed=0):
    """A Markov network of random positive tables over the edges of a graph."""
    rng = np.random.default_rng(seed)
    return [(edge, rng.random((size, size)) + 0.1) for edge in edges]


# Of each order of the inner nodes: the fill edges, and the cells of every product.
CHAIN = [("A", "B"), ("B", "C"), ("C", "D")]
CHAIN_BY_HAND = {
    "ABC": ([], [4, 4, 4, 2]),
    "ACB": ([("B", "D")], [4, 8, 4, 2]),
    "BAC": ([("A", "C")], [8, 4, 4, 2]),
    "BCA": ([("A", "C"), ("A", "D")], [8, 8, 4, 2]),
    "CAB": ([("B", "D")], [8, 4, 4, 2]),
    "CBA": ([("B", "D"), ("A", "D")], [8, 8, 4, 2]),
}
DIAMOND = [("A", "B"), ("A", "C"), ("B", "D"), ("C", "D")]
DIAMOND_BY_HAND = {
    "ABC": ([("B", "C")], [8, 8, 4, 2]),
    "ACB": ([("B", "C")], [8, 8, 4, 2]),
    "BAC": ([("A", "D")], [8, 8, 4, 2]),
    "BCA": ([("A", "D")], [8, 8, 4, 2]),
    "CAB": ([("A", "D")], [8, 8, 4, 2]),
    "CBA": ([("A", "D")], [8, 8, 4, 2]),
}


@pytest.mark.parametrize(
    ("edges", "order", "fill", "cells"),
    [
        pytest.param(edges, order, *expected, id=f"{name}-{order}")
        for name, edges, table in (
            ("chain", CHAIN, CHAIN_BY_HAND),
            ("diamond", DIAMOND, DIAMOND_BY_HAND),
        )
        for order, expected in table.items()
    ],
)
def test_every_order_of_a_chain_and_a_diamond_by_hand(edges, order, fill, cells):
    found = eliminate(pairwise(edges), "D", order=list(order))
    assert [pair for step in found.steps for pair in step.fill] == fill
    assert [step.cells for step in (*found.steps, found.last)] == cells
    graph = found.induced_graph()
    dashed = {frozenset((a, b)) for a, b, fills in graph.edges(data="fill") if fills}
    assert dashed == {frozenset(pair) for pair in fill}
    assert graph.number_of_edges() == len(edges) + len(fill)


STUDENT = {  # Koller & Friedman, figure 9.8
    "C": "", "D": "C", "I": "", "G": "ID", "S": "I", "L": "G", "J": "LS", "H": "GJ",
}  # fmt: skip


def student():
    rng = np.random.default_rng(9)
    factors = []
    for child, parents in STUDENT.items():
        values = rng.random([2] * (1 + len(parents))) + 0.1
        factors.append(Factor((child, *parents), values / values.sum(0)))
    return bayesian(dict.fromkeys(STUDENT, ("no", "yes")), factors)


def test_the_textbooks_good_order_of_the_student_network():
    found = eliminate(student(), "J", order=["C", "D", "I", "H", "G", "S", "L"])
    scopes = ["".join(sorted(step.scope)) for step in found.steps]
    assert scopes == ["CD", "DGI", "GIS", "GHJ", "GJLS", "JLS", "JL"]  # table 9.1
    assert [step.message for step in found.steps] == [
        "m1(D)", "m2(I, G)", "m3(G, S)", "m4(G, J)", "m5(S, L, J)", "m6(L, J)", "m7(J)",
    ]  # fmt: skip
    fill = [step.fill for step in found.steps if step.fill]
    assert fill == [(("G", "S"),)]  # figure 9.11
    assert found.width == 3
    assert found.largest_table == 16
    tree = found.clique_tree()
    assert set(tree) == {frozenset(c) for c in ("CD", "DGI", "GIS", "GJLS", "GHJ")}  # figure 10.1
    separators = {frozenset((a, b)): label for a, b, label in tree.edges(data="label")}
    assert separators == {
        frozenset(map(frozenset, pair)): label
        for pair, label in {
            ("CD", "DGI"): "{D}",
            ("DGI", "GIS"): "{I, G}",
            ("GIS", "GJLS"): "{G, S}",
            ("GHJ", "GJLS"): "{G, J}",
        }.items()
    }


def test_the_textbooks_bad_order_of_the_student_network():
    found = eliminate(student(), "J", order=["G", "I", "S", "L", "H", "C", "D"])
    scopes = ["".join(sorted(step.scope)) for step in found.steps[:5]]
    assert scopes == ["DGHIJL", "DHIJLS", "DHJLS", "DHJL", "DHJ"]  # table 9.2
    assert found.largest_table == 64
    good = eliminate(student(), "J", order=["C", "D", "I", "H", "G", "S", "L"])
    np.testing.assert_allclose(found.posterior, good.posterior, rtol=1e-13)


@pytest.mark.parametrize("states", [2, 3])
@pytest.mark.parametrize("nodes", [4, 9])
def test_a_chain_in_a_good_and_in_a_bad_order(states, nodes):
    chain = pairwise(itertools.pairwise(range(nodes)), states)
    good = eliminate(chain, nodes - 1, order=range(nodes - 1))
    assert (good.largest_table, good.width) == (states**2, 1)
    assert good.total_cells == (nodes - 1) * states**2 + states
    assert eliminate(chain, nodes - 1).largest_table == states**2
    # A variable of a chain has two neighbours at most, whatever went before it.
    inwards = eliminate(chain, nodes - 1, order=[*range(1, nodes - 1), 0])
    assert (inwards.largest_table, inwards.width) == (states**3, 2)
    np.testing.assert_allclose(inwards.posterior, good.posterior, rtol=1e-12)


@pytest.mark.parametrize("states", [2, 3])
def test_a_star_from_its_leaves_and_from_its_centre(states):
    star = pairwise([(0, i) for i in range(1, 8)], states)
    good, bad = eliminate(star, 7), eliminate(star, 7, order=range(7))
    assert (good.largest_table, good.width) == (states**2, 1)
    assert (bad.largest_table, bad.width) == (states**8, 7)
    np.testing.assert_allclose(good.posterior, bad.posterior, rtol=1e-12)


def test_no_fill_edge_and_width_one_on_random_trees_by_default():
    for seed in range(10):
        tree = nx.random_labeled_tree(12, seed=seed)
        found = eliminate(pairwise(tree.edges), 5)
        assert found.width == 1
        assert not any(step.fill for step in found.steps)


def test_min_fill_keeps_the_query_and_finds_the_treewidth_of_a_grid_with_it():
    grid = nx.grid_2d_graph(3, 6)
    found = eliminate(pairwise(grid.edges), [(0, 0), (0, 1)])
    assert found.width == 3  # the treewidth of a 3 x 6 grid
    wide = eliminate(pairwise(nx.star_graph(6).edges), [1, 2, 3])
    assert wide.largest_table == 2**4  # the centre goes with what is asked for, after the leaves
    assert wide.order[-1] == 0


@pytest.mark.filterwarnings("ignore:alarm.*renormalised:UserWarning")
def test_alarm_agrees_with_the_junction_tree():
    tables = read("alarm")
    engine = graphs.JunctionTree(tables)
    rng = random.Random(3)
    names = list(tables.states)
    for trial in range(8):
        chosen = rng.sample(names, 9)
        query, observed = chosen[: 1 + trial % 3], chosen[4:]
        draw = graphs.sample(tables, 1, seed=trial).iloc[0]
        evidence = {v: draw[v] for v in observed}
        start = time.perf_counter()
        found = eliminate(tables, query, evidence)
        assert time.perf_counter() - start < 1
        log_evidence = float(engine.query(evidence, ()).log_evidence)
        assert found.log_evidence == pytest.approx(log_evidence, rel=1e-11)
        # p(query | evidence) = p(query, evidence) / p(evidence), a row for each cell
        cells = list(itertools.product(*(tables.states[v] for v in query)))
        rows = {v: [cell[i] for cell in cells] for i, v in enumerate(query)} | evidence
        together = np.exp(engine.query(rows, ()).log_evidence.numpy() - log_evidence)
        np.testing.assert_allclose(found.posterior.ravel(), together, rtol=1e-9, atol=1e-14)
        joined = engine.query(evidence).joint(*query).numpy()
        np.testing.assert_allclose(found.posterior, joined, rtol=1e-9, atol=1e-14)
        assert found.running_intersection().holds
        assert len(str(found).splitlines()) > 28
    assert eliminate(tables, "CVP").log_evidence == pytest.approx(0, abs=1e-12)


def test_hailfinder_takes_well_under_a_second():
    tables = read("hailfinder")
    draw = graphs.sample(tables, 1, seed=0).iloc[0]
    evidence = {v: draw[v] for v in list(tables.states)[-6:]}
    query = list(tables.states)[10]
    start = time.perf_counter()
    found = eliminate(tables, query, evidence)
    assert time.perf_counter() - start < 1
    expected = graphs.JunctionTree(tables).query(evidence)
    np.testing.assert_allclose(found.posterior, expected[query].numpy(), atol=1e-12)


def test_nothing_underflows():
    # 2000 leaves that say 1 : 1/10, then 2000 that say the opposite: products reach 1e-2000.
    leaf = np.array([[0.9, 0.09], [0.1, 0.91]])
    opposite = np.array([[0.09, 0.9], [0.91, 0.1]])
    count = 2000
    factors = [(("z",), np.array([0.25, 0.75]))]
    factors += [((f"x{i}", "z"), leaf if i < count else opposite) for i in range(2 * count)]
    found = eliminate(factors, "z", {f"x{i}": 0 for i in range(2 * count)})
    np.testing.assert_allclose(found.posterior, [0.25, 0.75], rtol=1e-9)
    assert found.log_evidence == pytest.approx(count * math.log(0.9 * 0.09), rel=1e-13)


def test_constant_factors_parts_and_variables_of_one_state():
    rng = np.random.default_rng(5)
    ab, cd = rng.random((2, 1)), rng.random((3, 2))
    factors = [((), 5.0), (("a", "b"), ab), (("c", "d"), cd), ((), np.array(0.5))]
    found = eliminate(factors, ["c", "b"])
    assert found.posterior.shape == (3, 1)
    np.testing.assert_allclose(found.posterior[:, 0], cd.sum(1) / cd.sum(), rtol=1e-13)
    assert found.log_evidence == pytest.approx(math.log(2.5 * ab.sum() * cd.sum()), rel=1e-13)
    assert found.last.fill == (("c", "b"),)
    apart = eliminate(factors, "c")
    tree = apart.clique_tree()
    assert [sorted(c) for c in nx.connected_components(nx.Graph(apart.induced_graph()))] == [
        ["a", "b"], ["c", "d"],
    ]  # fmt: skip
    assert (len(tree), tree.number_of_edges()) == (2, 0)
    assert "m" in str(apart) and "f()" in str(apart)
    only = eliminate(factors, (), {"d": 1, "a": 0})
    assert only.posterior.shape == () and only.posterior == 1
    assert only.log_evidence == pytest.approx(math.log(2.5 * ab[0].sum() * cd[:, 1].sum()))
    everything = eliminate(factors, [], {"a": 1, "b": 0, "c": 2, "d": 0})
    assert everything.log_evidence == pytest.approx(math.log(2.5 * ab[1, 0] * cd[2, 0]))
    assert (everything.steps, everything.width, everything.largest_table) == ((), 0, 1)
    assert len(everything.clique_tree()) == 0 and everything.running_intersection().holds
    bare = Tables({"x": (0, 1, 2), "y": (0, 1)}, [Factor(("y",), np.array([0.5, 0.5]))])
    assert eliminate(bare, "y").log_evidence == pytest.approx(math.log(3))  # x is in no factor


def test_a_table_of_more_axes_than_numpy_has_where_most_have_one_state():
    factors = [(("hub", i), np.array([[0.25], [0.5]])) for i in range(80)]
    found = eliminate(factors, 79, order=["hub", *range(79)])
    assert found.largest_table == 2
    assert found.width == 80
    exact = math.log(0.25**80 + 0.5**80)
    assert found.log_evidence == pytest.approx(exact, rel=1e-13)


def test_it_prints_as_on_a_slide():
    tables = bayesian(
        {"C": ("no", "yes"), "A": ("no", "yes"), "B": ("no", "yes")},
        [
            Factor(("C",), np.array([0.5, 0.5])),
            Factor(("A", "C"), np.array([[0.75, 0.25], [0.25, 0.75]])),
            Factor(("B", "C"), np.array([[0.5, 1.0], [0.5, 0.0]])),
        ],
    )
    assert str(eliminate(tables, "A")) == (
        "sum out B:  p(B | C)             ->  m1(C)  4 cells\n"
        "sum out C:  p(C) p(A | C) m1(C)  ->  m2(A)  4 cells\n"
        "multiply:   m2(A)                ->  p(A)   2 cells\n"
        "\n"
        "A    p(A)\n"
        "no   0.5\n"
        "yes  0.5\n"
        "log evidence 0 nats; largest table 4 cells, 10 cells in all, width 1"
    )
    found = eliminate(tables, ["A", "B"], order=["C"])
    assert str(found.steps[0]) == (
        "sum out C:  p(C) p(A | C) p(B | C)  ->  m1(A, B)  8 cells  adds A - B"
    )
    assert "no   yes  0.1875\n" in str(found)
    seen = eliminate(tables, "A", {"B": "yes"})
    assert seen.steps[0].factors == ("p(C)", "p(A | C)", "p(B=yes | C)")
    assert str(seen.last).startswith("multiply:  m1(A)  ->  p(A, B=yes)")
    assert repr(seen) == "<Elimination for p(A | B=yes): 1 steps, largest table 4 cells>"
    markov = [(("A", "B"), np.ones((2, 2))), (("B", "C"), np.ones((2, 2)))]
    assert eliminate(markov, "A", {"C": 1}).steps[0].factors == ("f(A, B)", "f(B, C=1)")


def test_what_prints_the_running_intersection():
    found = eliminate(pairwise(CHAIN), "D", order=["A", "B", "C"])
    assert str(found.running_intersection()) == (
        "A:  {A, B}         one subtree\n"
        "B:  {A, B} {B, C}  one subtree\n"
        "C:  {B, C} {C, D}  one subtree\n"
        "D:  {C, D}         one subtree\n"
        "the running intersection property holds"
    )
    broken = RunningIntersection({"A": ("{A}", "{A, B}")}, {"A": False})
    assert not broken.holds and "not connected" in str(broken)
    assert str(broken).endswith("does not hold")


def test_long_products_are_cut():
    factors = [(("z",), np.ones(2))] + [((i, "z"), np.ones((2, 2))) for i in range(100)]
    found = eliminate(factors, 0, {i: 0 for i in range(1, 100)})
    assert "and 89 more" in str(found.steps[0])
    assert max(len(line) for line in str(found).splitlines()) < 250
    assert columns([("a" * 5, "b"), ("cc", "d")], widest=3) == ["aaaaa  b", "cc   d"]
    wide = eliminate([((i,), np.ones(3)) for i in range(4)], range(4))
    assert "and 61 more rows" in str(wide)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("dyps",), ValueError, "no variable 'dyps'; did you mean dysp"),
        ((7,), ValueError, "no variable '7'"),
        ((["dysp", "dysp"],), ValueError, "names dysp twice"),
        (({"dysp"},), TypeError, "a set has no order"),
        (("dysp", {"dysp": "yes"}), ValueError, "asked for and observed"),
        (("dysp", {"xray": ["yes", "no"]}), ValueError, "one row of evidence.*got 2 rows"),
        (("dysp", {"xray": "yess"}), ValueError, "did you mean yes"),
        (("dysp", None, ["asia", "tub", "smoke"]), ValueError, "leaves out lung, bronc, either"),
        (("dysp", None, ["asia", "asia"]), ValueError, "names asia twice"),
        (("dysp", None, ["asai"]), ValueError, "order: no variable 'asai'; did you mean asia"),
        (("dysp", None, ["dysp"]), ValueError, "dysp, which is asked for"),
        (("dysp", {"xray": "no"}, ["xray"]), ValueError, "xray, which is observed"),
        (("dysp", None, "asia"), TypeError, "order must be a sequence.*str"),
        (("dysp", None, 3), TypeError, "order must be a sequence.*int"),
        (("dysp", {"tub": "yes", "either": "no"}), ValueError, "impossible: tub=yes, either=no"),
    ],
)
def test_errors(arguments, error, message):
    with pytest.raises(error, match=message) as caught:
        eliminate(read("asia"), *arguments)
    assert "\n" not in str(caught.value)


def test_a_model_of_zeros_and_something_else():
    with pytest.raises(ValueError, match="no assignment is possible"):
        eliminate([(("a",), np.zeros(2))], "a")
    with pytest.raises(TypeError, match=r"graphs\.load"):
        eliminate("asia", "dysp")


def test_large_tables_are_refused_before_any_is_made(monkeypatch):
    def never(*_):
        raise AssertionError("a table was made")

    monkeypatch.setattr(elimination, "_result", never)
    star = pairwise([("hub", i) for i in range(30)])
    bad = ["hub", *range(1, 30)]
    with pytest.raises(
        MemoryError,
        match=r"step 1, summing out hub, .* 31 variables with "
        r"2,147,483,648 cells; .* min-fill order, whose largest table has 4 cells",
    ):
        eliminate(star, 0, order=bad)  # fmt: skip
    dense = pairwise(itertools.combinations(range(30), 2))
    with pytest.raises(MemoryError, match="more evidence") as caught:
        eliminate(dense, 0)
    assert "min-fill" not in str(caught.value)
    with pytest.raises(MemoryError, match="more evidence"):
        eliminate(dense, 0, order=range(1, 30))
    with pytest.raises(MemoryError, match="the product over the query"):
        eliminate([((i,), np.ones(2)) for i in range(30)], range(30))
    assert max(step.cells for step in elimination_steps(star, 0, order=bad)) == 2**31


def test_steps_alone_are_those_of_the_elimination():
    tables = read("asia")
    found = eliminate(tables, "lung", {"xray": "yes"})
    assert elimination_steps(tables, "lung", {"xray": "yes"}) == (*found.steps, found.last)
    # The graph of the reduced factors is the moral graph without what is observed.
    moral = moralize(tables.graph())
    moral.remove_node("xray")
    kept = {frozenset((a, b)) for a, b, f in found.induced_graph().edges(data="fill") if not f}
    assert kept == {frozenset(edge) for edge in moral.edges}


def test_the_drawing_shows_the_graph_and_the_tree(tmp_path):
    found = eliminate(
        read("asia"), "dysp", order=["either", "smoke", "tub", "lung", "bronc", "asia", "xray"]
    )
    figure = found.draw(tmp_path / "steps.png")
    assert (tmp_path / "steps.png").stat().st_size > 10_000
    left, right = figure.axes
    edges = [line for line in left.lines if line.get_gid().startswith("edge-")]
    dashed = [line for line in edges if line.is_dashed()]
    assert len(edges) == found.induced_graph().number_of_edges()
    assert len(dashed) == sum(len(step.fill) for step in found.steps) > 3
    texts = {text.get_text().replace("\n", " ") for text in right.texts}
    labels = set(nx.get_node_attributes(found.clique_tree(), "label").values())
    assert labels <= texts
    with pytest.raises(ValueError, match=r"\.svg"):
        found.draw(tmp_path / "steps.txt")
    eliminate([((), 2.0), (("a",), np.ones(2))], (), {"a": 1}).draw()  # nothing is left to draw
