"""d-separation and its explanation, blankets, moral graphs and equivalence, against definitions."""

import random
import time
from itertools import chain, combinations, islice, product

import networkx as nx
import numpy as np
import pytest

from graphs.independence import equivalent, local_independencies, markov_blanket, moralize
from graphs.simple_paths import simple_paths
from graphs.trails import d_separated, explain_separation

HEAD_TO_HEAD = nx.DiGraph([("a", "c"), ("b", "c")])
HEAD_TO_TAIL = nx.DiGraph([("a", "c"), ("c", "b")])
TAIL_TO_TAIL = nx.DiGraph([("c", "a"), ("c", "b")])


def random_dag(rng: random.Random, nodes: int, chance: float) -> nx.DiGraph:
    order = list(range(nodes))
    rng.shuffle(order)
    dag = nx.DiGraph()
    dag.add_nodes_from(range(nodes))
    dag.add_edges_from(pair for pair in combinations(order, 2) if rng.random() < chance)
    return dag


def random_question(rng: random.Random, nodes: int) -> tuple[set, set, set]:
    """Disjoint sets, the first two not empty."""
    order = rng.sample(range(nodes), nodes)
    i = rng.randint(1, 2)
    j = i + rng.randint(1, 2)
    return set(order[:i]), set(order[i:j]), set(order[j : j + rng.randint(0, nodes - j)])


def joint_of(dag: nx.DiGraph, rng: np.random.Generator) -> np.ndarray:
    """The full table over nodes 0..n-1 for random conditional tables; axis i is node i."""
    sizes = [int(rng.integers(2, 4)) for _ in dag]
    operands: list = []
    for node in range(len(dag)):
        parents = list(dag.predecessors(node))
        table = rng.dirichlet(np.ones(sizes[node]), size=[sizes[p] for p in parents])
        operands += [table, [*parents, node]]
    return np.einsum(*operands, list(range(len(dag))))


def dependence(joint: np.ndarray, a: set, b: set, given: set) -> float:
    """max |p(a, b | c) - p(a | c) p(b | c)| over all states."""
    rest = [i for i in range(joint.ndim) if i not in a | b | given]
    order = [*sorted(given), *sorted(a), *sorted(b), *rest]
    sizes = [joint.shape[i] for i in order]
    cut = [len(given), len(given) + len(a), len(given) + len(a) + len(b)]
    shape = [int(np.prod(part)) for part in np.split(sizes, cut)]
    table = joint.transpose(order).reshape(shape).sum(-1)  # (c, a, b)
    table = table / table.sum((1, 2), keepdims=True)
    return float(abs(table - table.sum(2, keepdims=True) * table.sum(1, keepdims=True)).max())


def blocked(dag: nx.DiGraph, path: list, given: set) -> set:
    """The nodes that block a path, straight from the definition."""
    nodes = set()
    for before, node, after in zip(path, path[1:], path[2:], strict=False):
        if dag.has_edge(before, node) and dag.has_edge(after, node):
            if not ({node} | nx.descendants(dag, node)) & given:
                nodes.add(node)
        elif node in given:
            nodes.add(node)
    return nodes


def all_trails(dag: nx.DiGraph, a: set, b: set) -> set[tuple]:
    skeleton = dag.to_undirected()
    paths = chain.from_iterable(nx.all_simple_paths(skeleton, i, j) for i in a for j in b)
    return {tuple(path) for path in paths if not set(path[1:-1]) & (a | b)}


# d-separation


def test_d_separation_is_networkx_s_on_random_graphs():
    rng = random.Random(1)
    answers = []
    for _ in range(4000):
        nodes = rng.randint(4, 12)
        dag = random_dag(rng, nodes, rng.choice([0.1, 0.2, 0.35, 0.5]))
        a, b, given = random_question(rng, nodes)
        expected = nx.is_d_separator(dag, a, b, given)
        assert d_separated(dag, a, b, given) == expected == d_separated(dag, b, a, given)
        if any(dag.has_edge(i, j) or dag.has_edge(j, i) for i in a for j in b):
            assert not expected
        answers.append(expected)
    assert 800 < sum(answers) < 3200  # both answers are put to the test


def test_separated_sets_are_independent_and_others_are_not():
    rng, tables = random.Random(2), np.random.default_rng(2)
    answers = []
    for _ in range(300):
        nodes = rng.randint(4, 6)
        dag = random_dag(rng, nodes, 0.35)
        joint = joint_of(dag, tables)
        for _ in range(4):
            a, b, given = random_question(rng, nodes)
            found = dependence(joint, a, b, given)
            separated = d_separated(dag, a, b, given)
            assert found < 1e-9 if separated else found > 1e-6, (dag.edges, a, b, given)
            answers.append(separated)
    assert 200 < sum(answers) < 1000


@pytest.mark.parametrize(
    ("dag", "kind", "unobserved", "observed"),
    [
        (HEAD_TO_TAIL, "head-to-tail", False, True),
        (TAIL_TO_TAIL, "tail-to-tail", False, True),
        (HEAD_TO_HEAD, "head-to-head", True, False),
    ],
)
def test_the_three_small_graphs(dag, kind, unobserved, observed):
    assert d_separated(dag, "a", "b") is unobserved
    assert d_separated(dag, "a", "b", "c") is observed
    for given, separated in (((), unobserved), ("c", observed)):
        found = explain_separation(dag, "a", "b", given)
        (trail,) = found.trails
        assert found.separated is separated
        assert trail.nodes == ("a", "c", "b") and trail.kinds == (kind,)
        assert trail.open is not separated
        assert trail.blocked_by == (("c",) if separated else ())


def test_explaining_away_in_numbers():
    """Bishop's fuel gauge (PRML, section 8.2.1): battery and fuel, seen through the gauge."""
    gauge_full = np.array([[0.1, 0.2], [0.2, 0.8]])  # battery, fuel
    gauge = np.stack([1 - gauge_full, gauge_full], 2)
    joint = np.einsum("b,f,bfg->bfg", [0.1, 0.9], [0.1, 0.9], gauge)
    empty = joint[:, :, 0] / joint[:, :, 0].sum()
    assert empty.sum(0)[0] == pytest.approx(0.257, abs=5e-4)
    assert empty[0, 0] / empty[0].sum() == pytest.approx(0.111, abs=5e-4)
    dag = nx.DiGraph([("battery", "gauge"), ("fuel", "gauge")])
    assert d_separated(dag, "battery", "fuel") and dependence(joint, {0}, {1}, set()) < 1e-15
    assert not d_separated(dag, "battery", "fuel", "gauge")
    assert dependence(joint, {0}, {1}, {2}) > 0.01


def test_a_long_chain_takes_no_recursion_and_linear_time():
    dag = nx.path_graph(100_000, create_using=nx.DiGraph)
    start = time.perf_counter()
    assert not d_separated(dag, 0, 99_999)
    assert d_separated(dag, 0, 99_999, [50_000])
    assert time.perf_counter() - start < 10
    found = explain_separation(dag, 0, 99_999, 50_000)
    assert found.trails[0].blocked_by == (50_000,) and len(found.trails[0].nodes) == 100_000


def test_nodes_of_any_kind_and_sets_of_them():
    pair, frozen = ("a", "b"), frozenset("ab")
    dag = nx.DiGraph([(pair, 1), (frozen, 1), (1, "long"), ("a", "long")])
    assert d_separated(dag, pair, frozen)  # both are nodes, not sets of nodes
    assert not d_separated(dag, pair, frozen, "long")
    assert d_separated(dag, [pair, frozen], "a")
    assert d_separated(dag, (pair, frozen), {"a"}, iter([1]))
    assert not d_separated(dag, pair, "a", ("long",))
    assert markov_blanket(dag, 1) == {pair, frozen, "long", "a"}
    assert explain_separation(dag, {frozen, pair}, "a", "long").a == (pair, frozen)
    assert d_separated(HEAD_TO_HEAD, [], "a") and d_separated(HEAD_TO_HEAD, "a", set())
    assert nx.is_d_separator(HEAD_TO_HEAD, set(), {"a"}, set())
    assert explain_separation(HEAD_TO_HEAD, [], "a").verdict == "No trail joins them: separated."


@pytest.mark.parametrize(
    ("a", "b", "given", "message"),
    [
        ("a", "a", (), "a and b must have no node in common; both hold a"),
        (["a", "b"], ["c", "b"], (), "a and b must have no node in common; both hold b"),
        ("a", "b", "a", "a and given must have no node in common"),
        ("a", ["b", "c"], ["c"], "b and given must have no node in common"),
        ("A", "b", (), "no node 'A'; did you mean a"),
        ("a", "bc", (), "no node 'bc'"),  # a string is never a set of letters
        ("a", ["b", "x"], (), "no node 'x'; known: a, c, b"),
        ("a", [["b"]], (), r"no node \"\['b'\]\""),
        ("a", "b", 7, "no node '7'"),
        ("a", "b", None, "no node 'None'"),
    ],
)
def test_questions_that_make_no_sense(a, b, given, message):
    for asked in (d_separated, explain_separation):
        with pytest.raises(ValueError, match=message):
            asked(HEAD_TO_HEAD, a, b, given)


def test_graphs_that_make_no_sense():
    cyclic = nx.DiGraph([("a", "b"), ("b", "c"), ("c", "b")])
    calls = [
        lambda g: d_separated(g, "a", "b"),
        lambda g: explain_separation(g, "a", "b"),
        lambda g: markov_blanket(g, "a"),
        moralize,
        local_independencies,
        lambda g: equivalent(g, HEAD_TO_HEAD),
        lambda g: equivalent(HEAD_TO_HEAD, g),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="b -> c -> b"):
            call(cyclic)
        with pytest.raises(TypeError, match="got Graph"):
            call(nx.Graph(HEAD_TO_HEAD))
        with pytest.raises(TypeError, match="got MultiDiGraph"):
            call(nx.MultiDiGraph(HEAD_TO_HEAD))
    with pytest.raises(ValueError, match="max_trails must be 1 or more; got 0"):
        explain_separation(HEAD_TO_HEAD, "a", "b", max_trails=0)
    with pytest.raises(ValueError, match="no node 'd'; known: a, c, b"):
        markov_blanket(HEAD_TO_HEAD, "d")
    with pytest.raises(ValueError, match=r"expected one node of the graph; got \['a'\]"):
        markov_blanket(HEAD_TO_HEAD, ["a"])


# Trails


def test_trails_are_all_simple_paths_and_all_blocked_means_separated():
    rng = random.Random(3)
    counted = 0
    for _ in range(1500):
        nodes = rng.randint(4, 8)
        dag = random_dag(rng, nodes, rng.choice([0.2, 0.35, 0.5]))
        a, b, given = random_question(rng, nodes)
        found = explain_separation(dag, a, b, given, max_trails=100_000)
        assert not found.cut
        listed = [trail.nodes for trail in found.trails]
        assert len(set(listed)) == len(listed) and set(listed) == all_trails(dag, a, b)
        assert [len(nodes) for nodes in listed] == sorted(len(nodes) for nodes in listed)
        for trail in found.trails:
            assert set(trail.blocked_by) == blocked(dag, list(trail.nodes), given)
            for one, arrow, other in zip(trail.nodes, trail.arrows, trail.nodes[1:], strict=False):
                assert dag.has_edge(*((one, other) if arrow == "->" else (other, one)))
            for middle in trail.middles:
                assert middle.observed == (middle.node in given)
                way = middle.opened_by
                assert bool(way) == (middle.kind == "head-to-head" and not middle.blocks)
                if way:  # a directed path to the first observed node
                    assert way[0] == middle.node and nx.is_path(dag, way)
                    assert [node in given for node in way] == [False] * (len(way) - 1) + [True]
        assert found.separated == all(not trail.open for trail in found.trails)
        assert found.separated == d_separated(dag, a, b, given)
        counted += len(listed)
    assert counted > 5000


def test_where_the_list_is_cut_an_open_trail_is_shown_all_the_same():
    rng = random.Random(4)
    appended = 0
    for _ in range(1500):
        nodes = rng.randint(5, 9)
        dag = random_dag(rng, nodes, 0.45)
        a, b, given = random_question(rng, nodes)
        found = explain_separation(dag, a, b, given, max_trails=1)
        trails = all_trails(dag, a, b)
        assert found.cut == (len(trails) > 1)
        opened = [trail for trail in found.trails if trail.open]
        assert bool(opened) is not found.separated
        for trail in opened:  # a simple path, open by the definition
            assert trail.nodes in trails and not blocked(dag, list(trail.nodes), given)
        if len(found.trails) == 2:
            appended += 1
            best = min(len(t) for t in trails if not blocked(dag, list(t), given))
            assert len(found.trails[1].nodes) == best
    assert appended > 30


def test_trails_of_a_dense_graph_come_one_by_one():
    dag = nx.DiGraph(combinations(range(200), 2))  # more trails than atoms in the world
    start = time.perf_counter()
    first = list(islice(simple_paths(dag, [0], [199]), 30))
    found = explain_separation(dag, 0, 199, range(1, 199))
    assert time.perf_counter() - start < 10
    assert first[0] == (0, 199) and {len(path) for path in first[1:]} == {3}
    assert found.cut and len(found.trails) == 20 and not found.separated


def test_the_explanation_in_words():
    dag = nx.DiGraph([("a", "c"), ("b", "c"), ("c", "d"), ("d", "e"), ("m", "a"), ("m", "b")])
    assert str(explain_separation(dag, "a", "b", ["e", "m"])) == (
        "a is not d-separated from b given e, m\n"
        "\n"
        "1. a -> c <- b   (open)\n"
        "     c is head-to-head and not observed, but its descendant e is (c -> d -> e): "
        "it does not block\n"
        "2. a <- m -> b   (blocked)\n"
        "     m is tail-to-tail and observed: it blocks the trail\n"
        "\n"
        "Trail 1 is open: not separated."
    )
    separated = explain_separation(dag, "a", "b", "m")
    assert "c is head-to-head, and neither it nor any descendant is observed: it blocks" in str(
        separated
    )
    assert separated.verdict == "Every trail is blocked: separated."
    assert separated.question == "a is d-separated from b given m"
    both = explain_separation(dag, "a", "b", "c")
    assert "c is head-to-head and observed: it does not block" in str(both)
    assert "m is tail-to-tail and not observed: it does not block" in str(both)
    assert both.verdict == "Trails 1 and 2 are open: not separated."
    sets = explain_separation(dag, ["a", "m"], "e", ["d"])
    assert sets.question == "{a, m} is d-separated from e given d"
    edge = explain_separation(dag, "a", "c")
    assert "an edge: no middle node can block it" in str(edge)
    assert explain_separation(HEAD_TO_TAIL, "a", "b").verdict == (
        "This trail is open: not separated."
    )
    cut = explain_separation(dag, "a", "b", "m", max_trails=1)
    assert cut.verdict == (
        "There are more trails than the 1 listed. Reachability, which follows all of them, finds "
        "none open: separated."
    )
    assert both.question in both._repr_html_() and "-&gt;" in both._repr_html_()


def test_an_explanation_stays_as_it_was():
    dag = HEAD_TO_HEAD.copy()
    found = explain_separation(dag, "a", "b")
    assert found == explain_separation(dag, "a", "b") and hash(found) is not None
    dag.remove_node("c")
    assert "c" in found.graph
    with pytest.raises(nx.NetworkXError):
        found.graph.remove_node("c")


# Blankets, moral graphs, local statements


def test_the_blanket_shields_a_node_from_the_rest():
    rng, tables = random.Random(5), np.random.default_rng(5)
    smaller = 0
    for _ in range(60):
        dag = random_dag(rng, 6, 0.3)
        joint = joint_of(dag, tables)
        for node in dag:
            blanket = markov_blanket(dag, node)
            rest = set(dag) - blanket - {node}
            full = joint / joint.sum(node, keepdims=True)  # p(x | rest and blanket)
            within = joint.sum(tuple(rest), keepdims=True)
            within = within / within.sum(node, keepdims=True)  # p(x | blanket)
            assert abs(full - within).max() < 1e-9
            for other in blanket:  # and no smaller set does
                assert dependence(joint, {node}, {other}, set(dag) - {node, other}) > 1e-9
                smaller += 1
    assert smaller > 500


def test_moral_graphs():
    from pgmpy.base import DAG

    rng = random.Random(6)
    for _ in range(200):
        dag = random_dag(rng, 8, 0.3)
        moral = moralize(dag)
        families = [{node, *dag.predecessors(node)} for node in dag]
        joined = {frozenset(pair) for family in families for pair in combinations(family, 2)}
        assert {frozenset(edge) for edge in moral.edges} == joined
        assert {frozenset(e) for e in DAG(dag).moralize().edges} == joined
        married = {frozenset(e[:2]) for e in moral.edges(data=True) if e[2].get("married")}
        assert married == joined - {frozenset(edge) for edge in dag.edges}
        for node in dag:
            assert markov_blanket(dag, node) == set(moral[node])
    dag = nx.DiGraph([("b", "c")])
    dag.add_edge("a", "c", weight=2)
    dag.add_node("lone", label="alone")
    moral = moralize(dag)
    assert moral["a"]["c"] == {"weight": 2} and moral["a"]["b"] == {"married": True}
    assert moral.nodes["lone"] == {"label": "alone"} and type(moral) is nx.Graph
    moral["a"]["c"]["weight"] = 3
    assert dag["a"]["c"] == {"weight": 2}


def test_local_statements_hold_and_print():
    dag = nx.DiGraph([("A", "D"), ("D", "E")])
    dag.add_nodes_from("BC")
    dag.add_edge("B", "E")
    assert str(local_independencies(dag)) == (
        "A ⟂ B, C\nD ⟂ B, C | A\nE ⟂ A, C | D, B\nB ⟂ A, D, C\nC ⟂ A, D, E, B"
    )
    rng = random.Random(7)
    for _ in range(100):
        dag = random_dag(rng, 8, 0.3)
        stated = {s.node: s for s in local_independencies(dag)}
        for node in dag:
            parents = set(dag.predecessors(node))
            others = set(dag) - nx.descendants(dag, node) - parents - {node}
            assert (node in stated) == bool(others)
            if others:
                assert (set(stated[node].others), set(stated[node].given)) == (others, parents)
                assert d_separated(dag, node, others, parents)


# Equivalence


def all_dags(count: int) -> list[nx.DiGraph]:
    found = []
    for ways in product((0, 1, 2), repeat=count * (count - 1) // 2):
        dag = nx.DiGraph()
        dag.add_nodes_from(range(count))
        for (a, b), way in zip(combinations(range(count), 2), ways, strict=True):
            if way:
                dag.add_edge(*((a, b) if way == 1 else (b, a)))
        if nx.is_directed_acyclic_graph(dag):
            found.append(dag)
    return found


@pytest.mark.parametrize(("nodes", "dags", "classes"), [(3, 25, 11), (4, 543, 185)])
def test_equivalent_graphs_state_the_same_independences(nodes, dags, classes):
    found = all_dags(nodes)
    assert len(found) == dags  # Robinson's numbers
    groups: dict[tuple, list[nx.DiGraph]] = {}
    for dag in found:
        signature = tuple(
            d_separated(dag, a, b, given)
            for a, b in combinations(range(nodes), 2)
            for size in range(nodes - 1)
            for given in combinations(set(range(nodes)) - {a, b}, size)
        )
        groups.setdefault(signature, []).append(dag)
    assert len(groups) == classes
    for group in groups.values():
        assert all(equivalent(group[0], dag) and equivalent(dag, group[0]) for dag in group)
    for one, other in combinations(groups.values(), 2):
        assert not equivalent(one[0], other[-1])


def test_equivalence_needs_the_same_nodes():
    more = nx.DiGraph(HEAD_TO_HEAD)
    more.add_node("lone")
    with pytest.raises(ValueError, match="only the second has lone"):
        equivalent(HEAD_TO_HEAD, more)
    with pytest.raises(ValueError, match="only the first has lone"):
        equivalent(more, HEAD_TO_HEAD)
    assert equivalent(HEAD_TO_TAIL, TAIL_TO_TAIL) and not equivalent(HEAD_TO_TAIL, HEAD_TO_HEAD)
