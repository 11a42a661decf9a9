"""How far a learned structure is from the true one, as graphs and as what they state."""

import os
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import networkx as nx

from ..ancestral import topological_order
from ..trails import require_dag

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Node = Hashable
Arc = tuple[Node, Node]
LISTED = 12  # arcs of a kind in print


def cpdag(dag: nx.DiGraph) -> nx.DiGraph:
    """The completed partially directed graph: what all equivalent structures have in common.

    An arc that points the same way in every equivalent graph is compelled and stays; of one that
    can be turned round both directions are there, which stand for an undirected edge (Chickering
    1995, A transformational characterization of equivalent Bayesian network structures, algorithms
    Order-Edges and Label-Edges). Two graphs over the same nodes are equivalent exactly if these
    are equal.

    Raises:
        TypeError: not a directed graph.
        ValueError: a directed cycle.
    """
    require_dag(dag)
    place = {node: i for i, node in enumerate(topological_order(dag))}
    # The lowest head first, and of its arcs the one with the highest tail first.
    order = sorted(dag.edges, key=lambda arc: (place[arc[1]], -place[arc[0]]))
    compelled: dict[Arc, bool] = {}
    for x, y in order:
        if (x, y) in compelled:
            continue
        into = [(z, y) for z in dag.predecessors(y)]
        for w in sorted(dag.predecessors(x), key=place.__getitem__):
            if not compelled[w, x]:
                continue
            if not dag.has_edge(w, y):
                compelled |= dict.fromkeys(into, True)
                break
            compelled[w, y] = True
        if (x, y) in compelled:
            continue
        collides = any(z != x and not dag.has_edge(z, x) for z, _ in into)
        compelled |= {arc: collides for arc in into if arc not in compelled}
    found: nx.DiGraph = nx.DiGraph()
    found.add_nodes_from(dag)
    for x, y in dag.edges:
        found.add_edge(x, y)
        if not compelled[x, y]:
            found.add_edge(y, x)
    return found


@dataclass(frozen=True, eq=False)
class Comparison:
    """A learned structure beside the true one."""

    shd: int
    """Structural Hamming distance: the edges to add, to remove or to re-orient between the two
    CPDAGs (Tsamardinos, Brown and Aliferis 2006). Equivalent structures are at distance 0."""
    correct: tuple[Arc, ...]
    """Arcs of both graphs."""
    missing: tuple[Arc, ...]
    """True arcs between nodes that are not adjacent in the learned graph."""
    extra: tuple[Arc, ...]
    """Learned arcs between nodes that are not adjacent in the true graph."""
    reversed: tuple[Arc, ...]
    """True arcs, as they are in truth, that were learned the other way round; that may be one of
    an equivalent graph, which no data can tell."""
    true: nx.DiGraph = field(repr=False)
    learned: nx.DiGraph = field(repr=False)

    @property
    def precision(self) -> float:
        """The share of the learned arcs that are true; 1 where none was learned."""
        return _share(len(self.correct), len(self.correct) + len(self.extra) + len(self.reversed))

    @property
    def recall(self) -> float:
        """The share of the true arcs that were learned; 1 where there is none."""
        return _share(len(self.correct), len(self.correct) + len(self.missing) + len(self.reversed))

    @property
    def f1(self) -> float:
        """2 precision recall / (precision + recall), of arcs."""
        wrong = len(self.missing) + len(self.extra) + 2 * len(self.reversed)
        return _share(2 * len(self.correct), 2 * len(self.correct) + wrong)

    @property
    def skeleton_precision(self) -> float:
        """`precision` of adjacencies, whatever their direction."""
        return _share(self._adjacent, self._adjacent + len(self.extra))

    @property
    def skeleton_recall(self) -> float:
        """`recall` of adjacencies."""
        return _share(self._adjacent, self._adjacent + len(self.missing))

    @property
    def skeleton_f1(self) -> float:
        """`f1` of adjacencies."""
        found = 2 * self._adjacent
        return _share(found, found + len(self.missing) + len(self.extra))

    @property
    def _adjacent(self) -> int:
        return len(self.correct) + len(self.reversed)

    def __str__(self) -> str:
        lines = [
            f"SHD {self.shd} between the CPDAGs of {len(self.learned.edges)} learned and "
            f"{len(self.true.edges)} true arcs",
            f"arcs      precision {self.precision:.3f}  recall {self.recall:.3f}  F1 {self.f1:.3f}",
            f"skeleton  precision {self.skeleton_precision:.3f}  "
            f"recall {self.skeleton_recall:.3f}  F1 {self.skeleton_f1:.3f}",
        ]
        for kind in ("missing", "extra", "reversed"):
            arcs: tuple[Arc, ...] = getattr(self, kind)
            if arcs:
                said = ", ".join(f"{tail} -> {head}" for tail, head in arcs[:LISTED])
                more = f" and {len(arcs) - LISTED} more" if arcs[LISTED:] else ""
                lines.append(f"{kind} ({len(arcs)}): {said}{more}")
        return "\n".join(lines)

    def draw(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        ax: "Axes | None" = None,
        title: str | None = None,
    ) -> "Figure":
        """The true graph's layout with what was found, missed, added and reversed.

        Reversed arcs point as in truth.

        Args:
            path: a .png, .svg or .pdf file to write, whole or not at all.
            ax: axes to draw in.
            title: instead of the distance.

        Raises:
            ValueError: another ending.
        """
        from pathlib import Path

        from ..pictures.drawing import picture_ending, write_picture
        from ..pictures.picture import BLOCKED, INK, OPEN, PALE, EdgeLook, Look, NodeLook, Picture

        looks = {
            "correct": EdgeLook(INK, 1.8),
            "missing": EdgeLook(PALE, 1.8, dashed=True),
            "extra": EdgeLook(BLOCKED, 1.8),
            "reversed": EdgeLook(OPEN, 1.8),
        }
        words = {
            "correct": "found",
            "missing": "missed",
            "extra": "not in the true graph",
            "reversed": "learned the other way round",
        }
        look = Look({node: NodeLook() for node in self.true}, {}, title=title or f"SHD {self.shd}")
        for kind, style in looks.items():
            arcs: tuple[Arc, ...] = getattr(self, kind)
            look.edges |= dict.fromkeys(arcs, style)
            if arcs:
                look.legend.append((f"{words[kind]} ({len(arcs)})", style))
        # All arcs go down the true graph's layers for the layout; then they point where they do.
        place = {node: i for i, node in enumerate(topological_order(self.true))}
        layered, shown = _plain(self.true), _plain(self.true)
        shown.add_edges_from(self.extra)
        layered.add_edges_from(sorted(arc, key=place.__getitem__) for arc in self.extra)
        ending = None if path is None else picture_ending(Path(path))
        picture = Picture(layered, look)
        picture.graph = shown
        bends = picture.layout.bends
        bends |= {arc: bends[arc[::-1]][::-1] for arc in self.extra if arc[::-1] in bends}
        figure = picture.draw(ax)
        if path is not None and ending is not None:
            write_picture(figure, Path(path), ending)
        return figure


def compare_structures(learned: Any, true: nx.DiGraph) -> Comparison:
    """A learned structure beside the true one: the distance of their CPDAGs, and arc by arc.

    Args:
        learned: what `learn_structure` found, or a directed acyclic graph.
        true: a directed acyclic graph over the same nodes, such as a pgmpy network.

    Raises:
        TypeError: no directed graph.
        ValueError: a directed cycle, or the nodes differ.
    """
    pattern = getattr(learned, "cpdag", None)
    graph = learned if isinstance(learned, nx.Graph) else getattr(learned, "graph", learned)
    for dag in (graph, true):
        require_dag(dag)
    for one, other, which in ((graph, true, "learned"), (true, graph, "true")):
        only = [str(node) for node in one if node not in other]
        if only:
            raise ValueError(
                f"both graphs must have the same nodes; only the {which} one has "
                f"{', '.join(only[:8])}" + (f" and {len(only) - 8} more" if only[8:] else "")
            )
    if not isinstance(pattern, nx.DiGraph):
        pattern = cpdag(graph)
    return Comparison(
        shd=_distance(pattern, cpdag(true)),
        correct=tuple(arc for arc in true.edges if graph.has_edge(*arc)),
        missing=tuple(arc for arc in true.edges if not _adjacent(graph, arc)),
        extra=tuple(arc for arc in graph.edges if not _adjacent(true, arc)),
        reversed=tuple(arc for arc in true.edges if graph.has_edge(*arc[::-1])),
        true=_plain(true),
        learned=_plain(graph),
    )


def _distance(one: nx.DiGraph, other: nx.DiGraph) -> int:
    """Pairs of nodes that two mixed graphs join differently."""
    differing = set(one.edges) ^ set(other.edges)
    return len({frozenset(arc) for arc in differing})


def _adjacent(graph: nx.DiGraph, arc: Arc) -> bool:
    return graph.has_edge(*arc) or graph.has_edge(*arc[::-1])


def _plain(graph: nx.DiGraph) -> nx.DiGraph:
    plain: nx.DiGraph = nx.DiGraph()
    plain.add_nodes_from(graph.nodes)
    plain.add_edges_from(graph.edges)
    return plain


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
