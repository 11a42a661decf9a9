"""Pictures of graphs, and of what was found out about them, by matplotlib."""

import io
from collections.abc import Hashable, Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx as nx

from ..factor_graph import FactorGraph
from ..factor_groups import FactorNode
from ..files import write_whole
from ..independence import markov_blanket
from ..trails import Explanation, nodes_of
from ..undirected.separation import Separation
from .picture import BLOCKED, FAINT, INK, OPEN, PALE, SHADE, EdgeLook, Look, NodeLook, Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Node = Hashable
PARENT, CHILD, CO_PARENT, ACCENT = "#56B4E9", "#E9B24A", "#7CC8A5", "#F0E442"
ENDINGS = ("png", "svg", "pdf")
WHOLE = 40  # nodes up to which the picture of an explanation shows the whole graph


def draw(
    graph: nx.Graph | FactorGraph | Explanation | Separation,
    *,
    ax: "Axes | None" = None,
    observed: Any = (),
    highlight: Any = (),
    blanket: Node | None = None,
    title: str | None = None,
    path: str | Path | None = None,
) -> "Figure":
    """Draw a directed, undirected or factor graph, or the explanation of a separation.

    Graphs without directed cycles, and trees, go in layers, others by springs; the factor graph of
    neighbours on a grid goes on the grid. The same graph gives the same picture. Factors are small
    squares. Edges with the attribute `fill=True` or `married=True` are dashed, a node's or
    an edge's attribute `label` is written on it. Of more than 200 nodes no names are written, which
    the title says.

    Args:
        graph: a networkx graph, such as a pgmpy network; a `FactorGraph`, or its bipartite
            `graph()`; or what `explain_separation` or `separated` found: its open and blocked
            trails in two colours, with a mark on the nodes that block. Of a graph of more than 40
            nodes it shows the part that the trails listed pass.
        ax: axes to draw in; by default a figure of its own, as large as the graph needs.
        observed: nodes to shade, as observed nodes are by convention.
        highlight: nodes to fill in yellow.
        blanket: a node of a directed graph whose Markov blanket to show, the rest being faint.
        title: instead of the question or what is shown.
        path: a .png, .svg or .pdf file to write, whole or not at all.

    Returns:
        The figure, which no window and no pyplot state knows of.

    Raises:
        TypeError: neither a graph nor an explanation.
        ValueError: an unknown node or ending; a factor among the observed nodes; a blanket or
            observed nodes for an explanation.
    """
    ending = None if path is None else picture_ending(Path(path))
    if isinstance(graph, FactorGraph):
        graph = graph.graph()
    if isinstance(graph, (Explanation, Separation)):
        if blanket is not None or nodes_of(graph.graph, observed):
            raise ValueError(
                "an explanation has its observed nodes, and no blanket: draw its graph for these"
            )
        look, shown = _of_explanation(graph), graph.graph
    elif isinstance(graph, nx.Graph):
        look, shown = _of_graph(graph, nodes_of(graph, observed), blanket), graph
    else:
        raise TypeError(
            "expected a networkx graph, a pgmpy network, a factor graph or the result of "
            "explain_separation; "
            f"got {type(graph).__name__}"
        )
    for node in nodes_of(shown, highlight):
        if node in look.nodes:
            look.nodes[node].fill, look.nodes[node].text = ACCENT, INK
    look.title = look.title if title is None else title
    picture = Picture(_plain(shown, look.nodes), look)
    figure = picture.draw(ax)
    if path is not None and ending is not None:
        write_picture(figure, Path(path), ending)
    return figure


def _plain(graph: nx.Graph, nodes: Iterable[Node]) -> nx.Graph:
    """The part of a graph over some nodes, without the ways of pgmpy's classes."""
    part: nx.Graph = nx.DiGraph() if graph.is_directed() else nx.Graph()
    part.add_nodes_from((node, graph.nodes[node]) for node in nodes)
    part.add_edges_from((a, b, d) for a, b, d in graph.edges(data=True) if {a, b} <= part.nodes)
    return part


# What the looks say


def _of_graph(graph: nx.Graph, observed: Iterable[Node], blanket: Node | None) -> Look:
    look = Look({node: _plain_look(node) for node in graph}, {})
    for *edge, data in graph.edges(data=True):
        dashed = bool(data.get("fill") or data.get("married"))
        look.edges[edge[0], edge[1]] = EdgeLook(dashed=dashed)
    if blanket is not None:
        _show_blanket(look, graph, blanket)
    for node in observed:
        if isinstance(node, FactorNode):
            raise ValueError(f"{node} is a factor; only variables are observed")
        look.nodes[node].fill, look.nodes[node].text = SHADE, INK
    for name, text in (("married", "joins parents of a node"), ("fill", "fill-in edge")):
        if any(data.get(name) for *_, data in graph.edges(data=True)):
            look.legend.append((text, EdgeLook(dashed=True)))
    if observed:
        look.legend.append(("observed", NodeLook(SHADE)))
    return look


def _plain_look(node: Node) -> NodeLook:
    return NodeLook(INK, text="white", square=True) if isinstance(node, FactorNode) else NodeLook()


def _show_blanket(look: Look, dag: nx.DiGraph, node: Node) -> None:
    within = markov_blanket(dag, node)
    parents, children = set(dag.predecessors(node)), set(dag.successors(node))
    for other, style in look.nodes.items():
        if other not in within:
            style.border, style.text = FAINT, PALE
    tones = [
        ("parents", PARENT, parents),
        ("children", CHILD, children),
        ("co-parents", CO_PARENT, within - parents - children),
    ]
    for name, colour, members in tones:
        for other in members:
            look.nodes[other].fill = colour
        if members:
            look.legend.append((name, NodeLook(colour)))
    look.nodes[node] = NodeLook(INK, INK, "white")
    for (tail, head), edge in look.edges.items():
        if not (head == node or tail == node or (head in children and tail in within)):
            edge.colour, edge.width = FAINT, 0.9
    look.title = f"Markov blanket of {node}"


def _of_explanation(found: Explanation | Separation) -> Look:
    graph = found.graph
    kept = {*found.a, *found.b}
    paths = []
    for trail in found.trails:
        kept.update(trail.nodes)
        paths += [middle.opened_by for middle in trail.middles if len(middle.opened_by) > 1]
    for path in paths:
        kept.update(path)
    if len(graph) <= WHOLE:
        kept = set(graph)
    faint = {node: NodeLook(border=FAINT, text=PALE) for node in graph if node in kept}
    look = Look(faint, {})
    look.edges = {
        (tail, head): EdgeLook(FAINT, 0.9) for tail, head in graph.edges if {tail, head} <= kept
    }
    for path in paths:
        for step in pairwise(path):
            look.edges[step] = EdgeLook(INK, 1.2)
        for node in path:
            look.nodes[node] = NodeLook()
    for trail in sorted(found.trails, key=lambda trail: trail.open):  # the open ones on top
        for one, other in pairwise(trail.nodes):
            edge = (one, other) if (one, other) in look.edges else (other, one)
            look.edges[edge] = EdgeLook(OPEN, 2.6) if trail.open else EdgeLook(BLOCKED, 1.6)
        for node in trail.nodes:
            look.nodes[node] = NodeLook()
        look.marked += [node for node in trail.blocked_by if node not in look.marked]
    for node in (*found.a, *found.b):
        look.nodes[node] = NodeLook(border=INK, width=3.0)
    for node in found.given:
        if node in look.nodes:
            look.nodes[node].fill, look.nodes[node].text = SHADE, INK
    opened = [trail.open for trail in found.trails]
    look.legend = [("observed", NodeLook(SHADE))] if found.given else []
    look.legend += [("open trail", EdgeLook(OPEN, 2.6))] if any(opened) else []
    look.legend += [("blocked trail", EdgeLook(BLOCKED, 1.6))] if not all(opened) else []
    look.legend += [("blocks a trail", None)] if look.marked else []
    if any(look.edges[step].colour == INK for path in paths for step in pairwise(path)):
        look.legend.append(("to an observed descendant", EdgeLook()))
    look.title = found.question
    if found.cut:
        look.title += f"; {len(found.trails)} trails shown"
    if len(kept) < len(graph):
        look.title += f"; {len(kept)} of {len(graph)} nodes shown"
    return look


# Files


def picture_ending(path: Path) -> str:
    """What kind of picture a path names: "png", "svg" or "pdf".

    Raises:
        ValueError: another ending.
    """
    ending = path.suffix.lower().lstrip(".")
    if ending not in ENDINGS:
        known = ", ".join(f".{name}" for name in ENDINGS)
        raise ValueError(f"{path}: expected a file that ends in one of {known}")
    return ending


def write_picture(figure: "Figure", path: Path, ending: str) -> None:
    """Write a figure, whole or not at all; the same figure gives the same bytes.

    Raises:
        OSError: see `write_whole`.
    """
    from matplotlib import rc_context

    dates: Mapping[str, Any] = {"png": {"Software": None}, "svg": {"Date": None}}
    out = io.BytesIO()
    with rc_context({"svg.hashsalt": "graphs", "svg.fonttype": "path"}):
        figure.savefig(out, format=ending, facecolor="white",
                       metadata=dates.get(ending, {"CreationDate": None}))  # fmt: skip
    write_whole(path, out.getvalue())
