"""Structures from data, and how they compare: against every graph of four nodes, and formulas."""

import math
from itertools import combinations, permutations, product

import networkx as nx
import numpy as np
import pandas as pd
import pytest

import graphs
import graphs.learning.scores
from graphs.independence import equivalent
from graphs.learning.comparison import compare_structures, cpdag
from graphs.learning.counts import read_cells
from graphs.learning.hill_climbing import HillClimbing
from graphs.learning.scores import SCORES, FamilyScores
from graphs.learning.structure import _extension, learn_structure

NODES = (0, "b", ("c", 1), 3.5)  # names that cannot be sorted
QUIET = {"progress": False}


def all_dags() -> list[nx.DiGraph]:
    found = []
    pairs = list(combinations(NODES, 2))
    for kinds in product(range(3), repeat=len(pairs)):
        dag = nx.DiGraph()
        dag.add_nodes_from(NODES)
        for (u, v), kind in zip(pairs, kinds, strict=True):
            if kind:
                dag.add_edge(*((u, v) if kind == 1 else (v, u)))
        if nx.is_directed_acyclic_graph(dag):
            found.append(dag)
    return found


DAGS = all_dags()


def key(graph: nx.DiGraph) -> frozenset:
    return frozenset(graph.edges)


CLASSES: dict[frozenset, list[nx.DiGraph]] = {}
for _dag in DAGS:
    CLASSES.setdefault(key(cpdag(_dag)), []).append(_dag)


def random_data(seed: int, n: int = 400) -> pd.DataFrame:
    """Rows of a random network over the four nodes."""
    rng = np.random.default_rng(seed)
    dag = DAGS[int(rng.integers(len(DAGS)))]
    columns: dict = {}
    sizes = {v: int(rng.integers(2, 4)) for v in NODES}
    for v in nx.topological_sort(dag):
        parents = list(dag.predecessors(v))
        table = rng.dirichlet(np.ones(sizes[v]), size=[sizes[p] for p in parents])
        chances = np.broadcast_to(table, (n, sizes[v])) if not parents else table[
            tuple(columns[p] for p in parents)
        ]  # fmt: skip
        columns[v] = (chances.cumsum(1) < rng.random(n)[:, None]).sum(1).clip(0, sizes[v] - 1)
    frame = pd.DataFrame({i: columns[v] for i, v in enumerate(NODES)})
    frame.columns = pd.Index(list(NODES), tupleize_cols=False)
    return frame


def total(scores: FamilyScores, dag: nx.DiGraph) -> float:
    place = {v: i for i, v in enumerate(NODES)}
    return sum(scores(place[v], [place[p] for p in dag.predecessors(v)]) for v in NODES)


# CPDAGs and distances


def test_there_are_543_dags_in_185_classes():
    assert len(DAGS) == 543  # Robinson 1973
    assert len(CLASSES) == 185  # Gillispie and Perlman 2002


def test_the_same_cpdag_exactly_if_equivalent():
    patterns = [key(cpdag(dag)) for dag in DAGS]
    for i, one in enumerate(DAGS):
        for j in range(i):
            if {*map(frozenset, one.edges)} == {*map(frozenset, DAGS[j].edges)}:
                assert (patterns[i] == patterns[j]) == equivalent(one, DAGS[j])
            else:
                assert patterns[i] != patterns[j]


def test_compelled_arcs_point_one_way_in_every_equivalent_graph():
    for pattern, members in CLASSES.items():
        assert pattern == frozenset().union(*(dag.edges for dag in members))


def test_cpdag_of_larger_graphs_against_their_class():
    rng = np.random.default_rng(0)
    for _ in range(30):
        order = rng.permutation(6).tolist()
        dag = nx.DiGraph()
        dag.add_nodes_from(range(6))
        dag.add_edges_from(arc for arc in combinations(order, 2) if rng.random() < 0.5)
        found = set()
        for way in product((0, 1), repeat=len(dag.edges)):
            turned = nx.DiGraph([a[::-1] if w else a for a, w in zip(dag.edges, way, strict=True)])
            turned.add_nodes_from(dag)
            if nx.is_directed_acyclic_graph(turned) and equivalent(dag, turned):
                found |= set(turned.edges)
        assert set(cpdag(dag).edges) == found


def test_every_cpdag_has_its_class_as_extensions():
    for members in CLASSES.values():
        assert equivalent(_extension(cpdag(members[0])), members[0])


def test_a_pattern_without_extension_is_turned_with_a_warning():
    square = nx.DiGraph([(i, (i + 1) % 4) for i in range(4)])
    with pytest.warns(UserWarning, match="1 of its arcs were turned"):
        found = _extension(square)
    assert nx.is_directed_acyclic_graph(found)
    assert {*map(frozenset, found.edges)} == {*map(frozenset, square.edges)}


def test_distance_by_hand():
    chain = nx.DiGraph([("a", "b"), ("b", "c")])
    back = nx.DiGraph([("c", "b"), ("b", "a")])
    collider = nx.DiGraph([("a", "b"), ("c", "b")])
    complete = nx.DiGraph([("a", "b"), ("b", "c"), ("a", "c")])
    empty = nx.empty_graph("abc", nx.DiGraph)
    hand = [(chain, back, 0), (chain, collider, 2), (chain, complete, 1), (chain, empty, 2),
            (collider, complete, 3), (collider, empty, 2), (empty, complete, 3)]  # fmt: skip
    for one, other, shd in hand:
        assert compare_structures(one, other).shd == shd == compare_structures(other, one).shd


def test_distance_is_a_metric_between_classes():
    rng = np.random.default_rng(0)
    for i, j, k in rng.integers(len(DAGS), size=(300, 3)):
        one, two, three = DAGS[i], DAGS[j], DAGS[k]
        there = compare_structures(one, two).shd
        assert there == compare_structures(two, one).shd
        assert (there == 0) == equivalent(one, two)
        assert there <= compare_structures(one, three).shd + compare_structures(three, two).shd


def test_arcs_precision_and_recall_by_hand(tmp_path):
    true = nx.DiGraph([("a", "b"), ("b", "c"), ("c", "d"), ("a", "d")])
    learned = nx.DiGraph([("a", "b"), ("c", "b"), ("d", "b"), ("c", "d")])
    found = compare_structures(learned, true)
    assert set(found.correct) == {("a", "b"), ("c", "d")}
    assert found.missing == (("a", "d"),)
    assert found.extra == (("d", "b"),)
    assert found.reversed == (("b", "c"),)
    assert (found.precision, found.recall, found.f1) == (0.5, 0.5, 0.5)
    assert found.skeleton_precision == found.skeleton_recall == found.skeleton_f1 == 0.75
    # true: a-b, b-c, a->d, c->d; learned: a->b, c->b, d->b, c-d
    assert found.shd == 5
    text = str(found)
    assert text.startswith("SHD 5 between the CPDAGs of 4 learned and 4 true arcs")
    assert "reversed (1): b -> c" in text
    figure = found.draw(tmp_path / "picture.svg")
    picture = (tmp_path / "picture.svg").read_text()
    assert picture.count('id="edge-') == 5
    texts = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert {
        "SHD 5",
        "found (2)",
        "missed (1)",
        "not in the true graph (1)",
        "learned the other way round (1)",
    } <= texts
    with pytest.raises(ValueError, match="ends in one of"):
        found.draw("picture.gif")
    nothing = compare_structures(nx.empty_graph("abcd", nx.DiGraph), true)
    assert (nothing.precision, nothing.recall, nothing.f1) == (1.0, 0.0, 0.0)


def test_extra_arcs_are_drawn_against_the_layers():
    from graphs.pictures.picture import BLOCKED

    true = nx.DiGraph([("a", "b"), ("b", "c"), ("c", "d")])
    learned = nx.DiGraph([("b", "c"), ("c", "d"), ("d", "a")])
    figure = compare_structures(learned, true).draw()
    (axes,) = figure.axes
    place = {text.get_text(): text.get_position() for text in axes.texts}
    heads = [p for p in axes.patches if str(p.get_gid()).startswith("head-")]
    (extra,) = [p for p in heads if p.get_facecolor()[:3] == pytest.approx(_rgb(BLOCKED))]
    tip = extra.get_xy()[0]
    assert np.hypot(*(tip - place["a"])) < np.hypot(*(tip - place["d"]))
    assert place["a"][1] > place["b"][1] > place["c"][1] > place["d"][1]


def _rgb(colour):
    from matplotlib.colors import to_rgb

    return to_rgb(colour)


def test_errors_of_comparisons():
    dag = nx.DiGraph([("a", "b")])
    with pytest.raises(ValueError, match="only the learned one has c"):
        compare_structures(nx.DiGraph([("a", "b"), ("b", "c")]), dag)
    with pytest.raises(ValueError, match="only the true one has b"):
        compare_structures(nx.empty_graph("a", nx.DiGraph), dag)
    with pytest.raises(ValueError, match="found a -> b -> a"):
        compare_structures(nx.DiGraph([("a", "b"), ("b", "a")]), dag)
    with pytest.raises(TypeError, match="expected a directed graph"):
        compare_structures([("a", "b")], dag)


# Scores


def by_formula(frame, child, parents, score, ess):
    states = {v: frame[v].nunique() for v in frame.columns}
    k, q = states[child], math.prod(states[p] for p in parents)
    groups: dict = {}
    for row in frame.itertuples(index=False, name=None):
        full = dict(zip(frame.columns, row, strict=True))
        inner = groups.setdefault(tuple(full[p] for p in parents), {})
        inner[full[child]] = inner.get(full[child], 0) + 1
    if score in ("bdeu", "k2"):
        a = 1.0 if score == "k2" else ess / (k * q)
        return sum(
            math.lgamma(k * a)
            - math.lgamma(k * a + sum(inner.values()))
            + sum(math.lgamma(a + n) - math.lgamma(a) for n in inner.values())
            for inner in groups.values()
        )
    fit = sum(
        n * math.log(n / sum(inner.values())) for inner in groups.values() for n in inner.values()
    )
    price = {"bic-d": 0.5 * math.log(len(frame)), "aic-d": 1.0}[score]
    return fit - price * q * (k - 1)


@pytest.mark.parametrize("dense", [4, 0])
@pytest.mark.parametrize("score", SCORES)
def test_scores_are_the_formulas(score, dense, monkeypatch):
    monkeypatch.setattr(graphs.learning.scores, "DENSE", dense)
    frame = random_data(3, 60)
    scores, again = (FamilyScores(read_cells(frame), score, 7.0) for _ in range(2))
    for child in range(4):
        others = [p for p in range(4) if p != child]
        for size in range(4):
            for parents in combinations(others, size):
                names = [NODES[p] for p in parents]
                exact = by_formula(frame, NODES[child], names, score, 7.0)
                assert scores(child, parents) == pytest.approx(exact, abs=1e-9)
                rest = [p for p in others if p not in parents]
                more = again.with_each(child, parents, rest)
                for p, found in zip(rest, more, strict=True):
                    assert found == pytest.approx(scores(child, [*parents, p]), abs=1e-9)


def test_scores_agree_with_pgmpy():
    from pgmpy.structure_score import AIC, BIC, K2, BDeu

    frame = random_data(5).set_axis(["a", "b", "c", "d"], axis=1).astype("category")
    cells = read_cells(frame)
    for score, peer in (("bic-d", BIC(frame)), ("aic-d", AIC(frame)), ("k2", K2(frame)),
                        ("bdeu", BDeu(frame, equivalent_sample_size=10))):  # fmt: skip
        scores = FamilyScores(cells, score)
        for child, parents in ((0, ()), (1, (0,)), (2, (0, 1, 3))):
            theirs = peer.local_score("abcd"[child], tuple("abcd"[p] for p in parents))
            assert scores(child, parents) == pytest.approx(theirs, abs=1e-8)


def test_equivalent_structures_have_equal_scores():
    for score in ("bic-d", "aic-d", "bdeu", "k2"):
        scores = FamilyScores(read_cells(random_data(8)), score)
        spread = max(
            max(total(scores, dag) for dag in members) - min(total(scores, dag) for dag in members)
            for members in CLASSES.values()
        )
        assert spread > 0.1 if score == "k2" else spread < 1e-9


# Searches


@pytest.mark.parametrize("score", ["bic-d", "bdeu"])
def test_hill_climbing_finds_the_best_of_all_graphs(score):
    reached = 0
    for seed in range(25):
        frame = random_data(seed)
        scores = FamilyScores(read_cells(frame), score)
        best = max(total(scores, dag) for dag in DAGS)
        found = learn_structure(frame, score=score, seed=seed, **QUIET)
        assert found.score == pytest.approx(total(scores, found.graph), abs=1e-9)
        assert found.score <= best + 1e-9
        reached += found.score > best - 1e-6
    assert reached >= 24


def test_restarts_and_tabu_never_lose():
    alarm_like = graphs.sample(graphs.load("asia"), 500, seed=2)
    plain = learn_structure(alarm_like, restarts=0, **QUIET)
    for options in ({"restarts": 20}, {"restarts": 0, "tabu": 20}):
        assert learn_structure(alarm_like, **options, **QUIET).score >= plain.score - 1e-9
    one, two = (learn_structure(alarm_like, restarts=20, seed=3, **QUIET) for _ in range(2))
    assert list(one.graph.edges) == list(two.graph.edges) and one.score == two.score


def test_every_climb_keeps_its_books():
    """After any walk the gains, the paths and the score are those of the graph from scratch."""
    frame = random_data(1).assign(e=random_data(2)[3.5], f=random_data(4)["b"])
    scores = FamilyScores(read_cells(frame), "bic-d")
    n = 6
    free, none = ~np.eye(n, dtype=bool), np.zeros((n, n), bool)
    search = HillClimbing(scores, free, none, 3)
    rng = np.random.default_rng(0)
    for _ in range(15):
        before = search.arcs.copy()
        search.wander(before, 0, rng)
        dag, turned = (nx.from_numpy_array(a.astype(int), create_using=nx.DiGraph)
                       for a in (before, search.arcs))  # fmt: skip
        assert equivalent(dag, turned)
        search.wander(search.arcs, 5, rng)
        dag = nx.from_numpy_array(search.arcs.astype(int), create_using=nx.DiGraph)
        assert nx.is_directed_acyclic_graph(dag) and search.arcs.sum(0).max() <= 3
        for u, v in permutations(range(n), 2):
            assert search.paths[u, v] == nx.has_path(dag, u, v)
        legal = search._gains()
        for move in np.flatnonzero(legal > -np.inf).tolist():
            arcs = search._moved(move)[0]
            after = nx.from_numpy_array(arcs.astype(int), create_using=nx.DiGraph)
            assert nx.is_directed_acyclic_graph(after) and arcs.sum(0).max() <= 3
            exact = sum(scores(v, np.flatnonzero(arcs[:, v])) for v in range(n))
            assert legal[move] == pytest.approx(exact - search.score, abs=1e-9)
        count = 0  # and no legal step is left out
        for u, v in permutations(range(n), 2):
            for kind in range(3):
                if search.arcs[u, v] == (kind > 0) and not (kind == 0 and search.arcs[v, u]):
                    arcs = search.arcs.copy()
                    arcs[u, v], arcs[v, u] = kind == 0, kind == 2
                    after = nx.from_numpy_array(arcs.astype(int), create_using=nx.DiGraph)
                    count += nx.is_directed_acyclic_graph(after) and arcs.sum(0).max() <= 3
        assert count == (legal > -np.inf).sum()


def test_constraints():
    data = graphs.sample(graphs.load("asia"), 1000, seed=0)
    free = learn_structure(data, **QUIET)
    arc = next(iter(free.graph.edges))
    options = {
        "required": [("asia", "dysp"), arc[::-1]],
        "forbidden": [("smoke", "bronc"), ("bronc", "smoke")],
        "max_parents": 2,
    }
    found = learn_structure(data, **options, **QUIET)
    assert found.graph.has_edge("asia", "dysp") and found.graph.has_edge(*arc[::-1])
    assert not found.graph.has_edge("smoke", "bronc") and not found.graph.has_edge("bronc", "smoke")
    assert max(dict(found.graph.in_degree).values()) <= 2
    assert found.score < free.score
    assert not learn_structure(data, max_parents=0, **QUIET).graph.edges


def test_chow_liu_is_the_best_tree():
    from sklearn.metrics import mutual_info_score

    for seed in range(5):
        frame = random_data(seed, 300)
        found = learn_structure(frame, method="chow_liu", **QUIET).graph
        assert nx.is_arborescence(found) and found.in_degree(NODES[0]) == 0

        def information(edges, frame=frame):
            return sum(mutual_info_score(frame[u], frame[v]) for u, v in edges)

        trees = [t for t in combinations(list(combinations(NODES, 2)), 3)
                 if nx.is_tree(nx.Graph(t)) and len(nx.Graph(t)) == 4]  # fmt: skip
        assert len(trees) == 16  # Cayley
        assert information(found.edges) == pytest.approx(max(map(information, trees)), abs=1e-12)


def test_greedy_equivalence_search_is_pgmpys():
    from pgmpy.causal_discovery import GES

    reached = 0
    for seed in range(4):
        frame = random_data(seed, 1000).set_axis(list("abcd"), axis=1)
        frame = frame.rename(columns={"d": 7})[["c", 7, "a", "b"]]  # pgmpy alone sorts names
        found = learn_structure(frame, method="ges", **QUIET)
        texts = frame.rename(columns=str).astype("category")
        peer = GES(scoring_method="bic-d").fit(texts.set_axis(list("0123"), axis=1))
        theirs = {(frame.columns[int(u)], frame.columns[int(v)])
                  for u, v in peer.causal_graph_.edges()}  # fmt: skip
        assert set(found.cpdag.edges) == theirs
        assert set(cpdag(found.graph).edges) == theirs
        place = {"a": NODES[0], "b": NODES[1], "c": NODES[2], 7: NODES[3]}
        scores = FamilyScores(read_cells(random_data(seed, 1000)), "bic-d")
        best = max(total(scores, dag) for dag in DAGS)
        named = nx.relabel_nodes(found.graph, place)
        assert found.score == pytest.approx(total(scores, named), abs=1e-9)
        assert found.score <= best + 1e-9
        reached += found.score > best - 1e-6
    assert reached >= 2  # greedy: not always
    assert learn_structure(frame, method="ges", score="bdeu", **QUIET).score_name == "bdeu"


def test_pc_finds_a_collider_and_a_chain():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 3000)) < 0.5
    c = (a | b) ^ (rng.random(3000) < 0.1)
    d = c ^ (rng.random(3000) < 0.1)
    frame = pd.DataFrame({"d": d, "c": c, "b": b, "a": a})
    true = nx.DiGraph([("a", "c"), ("b", "c"), ("c", "d")])
    found = learn_structure(frame, method="pc", **QUIET)
    assert set(found.graph.edges) == set(found.cpdag.edges) == set(true.edges)
    assert compare_structures(found, true).shd == 0 and found.families == 0
    chain = learn_structure(frame[["a", "c", "d"]], method="pc", **QUIET)
    undirected = {("a", "c"), ("c", "a"), ("c", "d"), ("d", "c")}
    assert set(chain.cpdag.edges) == undirected
    assert compare_structures(chain, nx.DiGraph([("d", "c"), ("c", "a")])).shd == 0


def test_learning_asia_comes_near():
    asia = graphs.load("asia")
    data = graphs.sample(asia, 5000, seed=1)
    found = learn_structure(data, **QUIET)
    assert compare_structures(found, asia).shd <= 2
    text = str(found)
    assert text.startswith("hill_climb: ") and "from 5,000 rows" in text and "bic-d -" in text
    assert f"  dysp <- {', '.join(found.graph.predecessors('dysp'))}" in text


# At the door


def raises(error, text, *arguments, **options):
    with pytest.raises(error, match=text) as caught:
        learn_structure(*arguments, **options, **QUIET)
    assert "\n" not in str(caught.value)


def test_errors():
    frame = pd.DataFrame({"a": ["x", "y"] * 50, "b": [0, 1, 1, 1] * 25, "c": 1})
    raises(ValueError, "no method 'ga'", frame, method="ga")
    raises(ValueError, "no score 'bic'; did you mean bic-d", frame, score="bic")
    raises(ValueError, "equivalent_sample_size", frame, equivalent_sample_size=-1)
    raises(ValueError, "significance_level must lie", frame, significance_level=1.0)
    raises(ValueError, "b lacks 100 of 100 cells|b lacks 2 of 100", frame.assign(
        b=[None, None, *frame["b"][2:]]))  # fmt: skip
    raises(ValueError, "9 rows of 3 columns are too few", frame.iloc[:9])
    raises(ValueError, "100 rows of 1 columns are too few", frame[["a"]])
    raises(ValueError, "c has the same state in every row", frame, method="pc")
    raises(ValueError, 'for method="hill_climb"', frame, method="ges", max_parents=2)
    raises(ValueError, "no variable 'z'", frame, required=[("a", "z")])
    raises(TypeError, "an arc is a pair", frame, forbidden=["ab"])
    raises(
        ValueError, "required arcs: .*found a -> b -> a", frame, required=[("a", "b"), ("b", "a")]
    )
    raises(ValueError, "a -> b is both", frame, required=[("a", "b")], forbidden=[("a", "b")])
    raises(ValueError, "c has more required parents than max_parents=1", frame,
           required=[("a", "c"), ("b", "c")], max_parents=1)  # fmt: skip
    raises(ValueError, "restarts must be at least 0", frame, restarts=-1)
    raises(TypeError, "tabu must be a whole number", frame, tabu=0.5)
    raises(ValueError, "max_conditions must be at least 0", frame, method="pc", max_conditions=-1)
    raises(TypeError, "pandas DataFrame", {"a": [1]})
    raises(ValueError, "different numbers", frame.assign(a=np.random.default_rng(0).random(100)))


def test_a_constant_column_has_no_arcs():
    frame = random_data(0).assign(same="x")
    for method in ("hill_climb", "ges"):
        assert learn_structure(frame, method=method, **QUIET).graph.degree("same") == 0


def test_a_file(tmp_path):
    data = graphs.sample(graphs.load("asia"), 300, seed=0)
    data.to_csv(tmp_path / "asia.csv.gz", index=False)
    one = learn_structure(tmp_path / "asia.csv.gz", **QUIET)
    two = learn_structure(data, **QUIET)
    assert set(one.graph.edges) == set(two.graph.edges)
    assert one.score == pytest.approx(two.score, abs=1e-9)
