"""Pictures of graphs: what they show, counted and measured on the artists."""

import random
from itertools import combinations, pairwise

import matplotlib
import networkx as nx
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from graphs.independence import markov_blanket, moralize
from graphs.pictures.drawing import CHILD, CO_PARENT, PARENT, draw
from graphs.pictures.layout import layout_of
from graphs.pictures.picture import BLOCKED, FAINT, INK, OPEN, SHADE
from graphs.pictures.shapes import distance
from graphs.trails import explain_separation

ASIA = nx.DiGraph(
    [
        *pairwise(["asia", "tub", "either", "xray"]),
        *pairwise(["smoke", "lung", "either", "dysp"]),
        *pairwise(["smoke", "bronc", "dysp"]),
    ]
)


class Drawn:
    """The artists of a figure by what they stand for."""

    def __init__(self, figure: Figure, graph: nx.Graph) -> None:
        (self.axes,) = figure.axes
        artists = {a.get_gid(): a for a in [*self.axes.patches, *self.axes.lines] if a.get_gid()}
        self.artists = artists
        nodes = sorted((k for k in artists if k.startswith("node-")), key=lambda k: int(k[5:]))
        self.nodes = dict(zip(graph, (artists[k] for k in nodes), strict=True))
        edges = sorted((k for k in artists if k.startswith("edge-")), key=lambda k: int(k[5:]))
        self.edges = dict(zip(graph.edges, (artists[k] for k in edges), strict=True))
        self.heads = {
            edge: artists[f"head-{k[5:]}"]
            for edge, k in zip(graph.edges, edges, strict=True)
            if f"head-{k[5:]}" in artists
        }
        self.marks = [a for k, a in artists.items() if k.startswith("mark-")]
        self.texts = [text.get_text() for text in self.axes.texts]

    def fill(self, node) -> str:
        return to_hex(self.nodes[node].get_facecolor())

    def colour(self, edge) -> str:
        return to_hex(self.edges[edge].get_color())

    def box(self, node) -> tuple[np.ndarray, np.ndarray]:
        points = self.nodes[node].get_xy()
        low, high = points.min(0), points.max(0)
        return (low + high) / 2, high - low


def drawn(graph, shown=None, **options) -> Drawn:
    return Drawn(draw(graph, **options), graph if shown is None else shown)


def random_dag(seed: int, nodes: int, edges: int) -> nx.DiGraph:
    rng = random.Random(seed)
    dag = nx.DiGraph()
    dag.add_nodes_from(f"variable {i}" if i % 3 else f"v{i}" for i in range(nodes))
    dag.add_edges_from(rng.sample(list(combinations(dag, 2)), edges))
    return dag


# Nodes and edges


def test_every_node_and_edge_is_drawn_once():
    found = drawn(ASIA)
    assert len(found.nodes) == 8 and len(found.edges) == len(found.heads) == 8
    assert sorted(found.texts) == sorted(ASIA)
    moral = moralize(ASIA)
    found = drawn(moral)
    assert len(found.nodes) == 8 and len(found.edges) == 10 and not found.heads
    dashed = {e for e, line in found.edges.items() if line.is_dashed()}
    assert dashed == {e for e in moral.edges if moral.edges[e].get("married")} != set()
    assert "joins parents of a node" in found.texts
    cycle = nx.cycle_graph(4)
    cycle.add_edge(0, 2, fill=True)
    found = drawn(cycle)
    assert [e for e, line in found.edges.items() if line.is_dashed()] == [(0, 2)]
    assert "fill-in edge" in found.texts


@pytest.mark.parametrize("seed", range(6))
def test_arrows_go_down_from_border_to_border_and_around_nodes(seed):
    dag = random_dag(seed, 22, 30)
    found = drawn(dag)
    boxes = {node: found.box(node) for node in dag}
    for one, other in combinations(dag, 2):
        (p, s), (q, t) = boxes[one], boxes[other]
        assert (abs(p - q) >= (s + t) / 2 + 0.03).any()  # apart
    touched = 0
    for (tail, head), line in found.edges.items():
        assert boxes[tail][0][1] > boxes[head][0][1] + 0.3
        tip = found.heads[tail, head].get_xy()[0]
        start = np.array(line.get_xydata()[0])
        assert abs(distance(np.array([tip]), *boxes[head])[0]) < 0.005
        assert abs(distance(np.array([start]), *boxes[tail])[0]) < 0.005
        points = line.get_xydata()
        for node in set(dag) - {tail, head}:
            touched += int((distance(points, *boxes[node]) < -0.01).any())
    assert touched == 0


def test_names_fit_their_nodes_at_every_scale():
    dag = nx.relabel_nodes(
        random_dag(0, 12, 15), {"v0": "a name that\nhas_two_or_even_three_lines"}
    )
    figures = [draw(dag), Figure((4, 3))]
    draw(dag, ax=figures[1].add_subplot())
    for figure in figures:
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        found = Drawn(figure, dag)
        shown = {"".join(text.get_text().split()): text for text in found.axes.texts}
        for node, patch in found.nodes.items():
            text = shown["".join(node.split())]
            words, border = text.get_window_extent(), patch.get_window_extent()
            assert words.x0 > border.x0 and words.x1 < border.x1
            assert words.y0 > border.y0 and words.y1 < border.y1
        assert figure.bbox.width >= found.axes.get_window_extent().width


def test_the_sum_of_the_edges_lengths_is_least_in_a_chain_with_a_short_cut():
    dag = nx.DiGraph([(0, 1), (1, 2), (2, 3), (0, 3), ("late", 3)])
    places = layout_of(dag, dict.fromkeys(dag, (0.3, 0.3))).places
    height = {node: place[1] for node, place in places.items()}
    assert height[0] > height[1] > height[2] > height[3]
    assert height["late"] == height[2]  # a root stands right above its child


def test_labels_of_nodes_and_edges_are_written():
    tree = nx.Graph()
    for node, label in enumerate(["{A, B}", "{B, C}", "{C, D}"]):
        tree.add_node(node, label=label)
    tree.add_edge(0, 1, label="{B}")
    tree.add_edge(1, 2, label="{C}")
    found = drawn(tree)
    assert sorted(found.texts) == ["{A, B}", "{B, C}", "{B}", "{C, D}", "{C}"]
    places = {text.get_text(): np.array(text.get_position()) for text in found.axes.texts}
    middle = (found.box(0)[0] + found.box(1)[0]) / 2
    assert np.hypot(*(places["{B}"] - middle)) < 0.1


def test_cycles_loops_and_edges_both_ways():
    chain = nx.DiGraph([("a", "b"), ("b", "a"), ("a", "a"), ("b", "c"), ("c", "c")])
    found = drawn(chain)
    assert len(found.nodes) == 3 and len(found.heads) == 5
    there, back = (found.edges[e].get_xydata() for e in (("a", "b"), ("b", "a")))
    assert np.hypot(*(there[len(there) // 2] - back[len(back) // 2])) > 0.1  # side by side
    low, high = np.transpose([found.axes.get_xlim(), found.axes.get_ylim()])
    for line in found.edges.values():
        assert (line.get_xydata() > low).all() and (line.get_xydata() < high).all()


def test_graphs_without_nodes_or_edges_and_graphs_in_parts():
    assert not draw(nx.DiGraph()).axes[0].patches
    assert len(drawn(nx.empty_graph(5)).nodes) == 5
    parts = nx.disjoint_union(nx.DiGraph([(0, 1)]), nx.DiGraph([(0, 1), (1, 2), (2, 0)]))
    assert len(drawn(parts).heads) == 4


def test_names_of_any_kind_are_drawn_as_they_are():
    dag = nx.DiGraph([("$x_1$", ("t", 1)), (3, "$a"), ("日本", 3), ("", frozenset({2}))])
    figure = draw(dag, highlight=[3])
    FigureCanvasAgg(figure).draw()  # a missing glyph would warn
    found = Drawn(figure, dag)
    assert {"$x_1$", "('t', 1)", "$a", "3", "□□"} <= set(found.texts)
    assert not any(text.get_parse_math() for text in found.axes.texts)  # $ is no formula
    assert found.fill(3) != found.fill("$a") == "#ffffff"


# What is shown of a result


def test_observed_nodes_are_shaded():
    found = drawn(ASIA, observed=["xray", "dysp"])
    assert [n for n in ASIA if found.fill(n) == str.lower(SHADE)] == ["xray", "dysp"]
    assert "observed" in found.texts
    assert "observed" not in drawn(ASIA).texts


def test_an_explanation_shows_open_and_blocked_trails():
    found = drawn(explain_separation(ASIA, "asia", "smoke", "xray"), ASIA)
    opened = [("asia", "tub"), ("tub", "either"), ("lung", "either"), ("smoke", "lung")]
    blocked = [("either", "dysp"), ("bronc", "dysp"), ("smoke", "bronc")]
    assert {e for e in ASIA.edges if found.colour(e) == str.lower(OPEN)} == set(opened)
    assert {e for e in ASIA.edges if found.colour(e) == str.lower(BLOCKED)} == set(blocked)
    assert found.colour(("either", "xray")) == str.lower(INK)  # to the observed descendant
    assert found.fill("xray") == str.lower(SHADE)
    (mark,) = found.marks
    middle, size = found.box("dysp")
    assert abs(distance(np.array([mark.center]), middle, size)[0]) < 0.1
    widths = {node: patch.get_linewidth() for node, patch in found.nodes.items()}
    assert {n for n, width in widths.items() if width == max(widths.values())} == {"asia", "smoke"}
    assert "asia is not d-separated from smoke given xray" in " ".join(found.texts)
    separated = drawn(explain_separation(ASIA, "asia", "smoke"), ASIA)
    assert len(separated.marks) == 2  # either and dysp
    assert str.lower(OPEN) not in {separated.colour(e) for e in ASIA.edges}
    assert separated.colour(("either", "xray")) == str.lower(FAINT)


def test_the_explanation_of_a_large_graph_draws_the_part_in_question():
    dag = nx.path_graph(300, create_using=nx.DiGraph)
    dag.add_edges_from([("a", 100), ("b", 100)])
    found = explain_separation(dag, "a", "b", 104)
    figure = draw(found)
    kept = ["a", "b", *range(100, 105)]
    shown = Drawn(figure, dag.subgraph(kept))
    assert len(shown.nodes) == 7 and len(shown.edges) == 6
    assert "7 of 302 nodes shown" in " ".join(shown.texts)
    dense = explain_separation(nx.DiGraph(combinations(range(9), 2)), 0, 8, range(1, 8))
    assert dense.cut and "20 trails shown" in " ".join(Drawn(draw(dense), dense.graph).texts)


def test_a_markov_blanket_in_three_tones():
    found = drawn(ASIA, blanket="lung")
    tones = {PARENT: {"smoke"}, CHILD: {"either"}, CO_PARENT: {"tub"}}
    for tone, nodes in tones.items():
        assert {n for n in ASIA if found.fill(n) == str.lower(tone)} == nodes
    assert set.union(*tones.values()) == markov_blanket(ASIA, "lung")
    near = {("smoke", "lung"), ("lung", "either"), ("tub", "either")}
    assert {e for e in ASIA.edges if found.colour(e) == str.lower(INK)} == near
    assert {"parents", "children", "co-parents", "Markov blanket of lung"} <= set(found.texts)
    assert found.fill("lung") == str.lower(INK)
    assert "mine" in drawn(ASIA, blanket="lung", title="mine").texts


def test_many_nodes_go_without_names():
    dag = nx.DiGraph(pairwise(range(201)))
    found = drawn(dag)
    assert found.texts == ["201 nodes, too many to name"] and len(found.nodes) == 201
    assert len(found.heads) == 200
    grid = nx.grid_2d_graph(16, 16)
    assert drawn(grid, title="grid").texts == ["grid (256 nodes, too many to name)"]
    assert len(drawn(nx.DiGraph(pairwise(range(30)))).texts) == 30


# Figures and files


def test_axes_that_are_given_are_drawn_in():
    figure = Figure((8, 3))
    left, right = figure.subplots(1, 2)
    assert draw(ASIA, ax=left) is figure
    assert len(left.patches) == 16 and not right.patches
    (upper, _) = figure.subfigures(2, 1)
    assert draw(ASIA, ax=upper.add_subplot()) is figure


def test_no_state_of_matplotlib_is_left_behind(tmp_path):
    import matplotlib.pyplot as plt

    before = dict(matplotlib.rcParams)
    draw(ASIA, path=tmp_path / "asia.svg")
    assert plt.get_fignums() == [] and dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("ending", "start"),
    [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF"), ("PNG", b"\x89PNG")],
)
def test_files_are_written_whole_and_the_same_each_time(ending, start, tmp_path):
    path = tmp_path / f"graph.{ending}"
    draw(moralize(ASIA), path=path)
    first = path.read_bytes()
    assert first.startswith(start) and len(first) > 1000
    draw(moralize(ASIA), path=str(path))
    assert path.read_bytes() == first
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "graph.png"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="no space left"):
        draw(ASIA, path=path)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["graph.jpeg", "graph", "graph.png.txt"])
def test_unknown_endings_are_refused_before_anything_is_drawn(name, tmp_path):
    with pytest.raises(ValueError, match=r"expected a file that ends in one of .png, .svg, .pdf"):
        draw(ASIA, path=tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_drawn():
    with pytest.raises(TypeError, match=r"expected a networkx graph.*got list"):
        draw([("a", "b")])
    with pytest.raises(ValueError, match="no node 'smok'; did you mean smoke"):
        draw(ASIA, observed="smok")
    with pytest.raises(ValueError, match="no node 'lungs'; did you mean lung"):
        draw(ASIA, blanket="lungs")
    with pytest.raises(TypeError, match="expected a directed graph"):
        draw(moralize(ASIA), blanket="lung")
    explanation = explain_separation(ASIA, "asia", "smoke")
    for options in ({"blanket": "lung"}, {"observed": "lung"}):
        with pytest.raises(ValueError, match="draw its graph for these"):
            draw(explanation, **options)
