"""d-separation, and why: the trails between two sets of nodes and what blocks each of them.

A trail is a path of the skeleton (the graph with the arrows taken off) that visits no node twice.
A middle node blocks it, given the observed nodes, if it is
    head-to-tail (-> c ->) or tail-to-tail (<- c ->) and observed, or
    head-to-head (-> c <-) and neither it nor any of its descendants is observed.
A trail with no such node is open. Sets A and B are d-separated given C if every trail between them
is blocked (Pearl 1988, section 3.3; Bishop, PRML, section 8.2).
"""

import html
from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any

import networkx as nx

from .names import unknown
from .simple_paths import simple_paths
from .tables import refuse_cycles

Node = Hashable
HEAD_TO_TAIL, TAIL_TO_TAIL, HEAD_TO_HEAD = "head-to-tail", "tail-to-tail", "head-to-head"


def d_separated(dag: nx.DiGraph, a: Any, b: Any, given: Any = ()) -> bool:
    """Whether every trail between a and b is blocked given the observed nodes.

    Then a and b are independent given them in every distribution that factorises over the graph
    (Bishop, PRML, section 8.2.2). Adjacent nodes are never separated. An empty set is separated
    from every other, since no trail joins them; networkx decides the same.

    Args:
        dag: a directed graph without cycles, such as a pgmpy network.
        a, b, given: a node, or an iterable of nodes; what is a node of the graph is read as one,
            be it a tuple.

    The time is linear in nodes and edges (Koller and Friedman 2009, algorithm 3.1).

    Raises:
        TypeError: the graph is not directed.
        ValueError: a directed cycle (named), an unknown node, or sets that overlap.
    """
    return _shortest_open(dag, *_question(dag, a, b, given)) is None


def explain_separation(
    dag: nx.DiGraph, a: Any, b: Any, given: Any = (), *, max_trails: int = 20
) -> "Explanation":
    """The trails between a and b, shortest first, and what blocks each; `print` shows it in words.

    Between sets, a trail runs from a node of a to a node of b and has no node of either inside.
    The answer itself comes from `d_separated`'s search, which sees all trails; where more than
    `max_trails` exist the first are listed, followed by a shortest open one if none of them is.

    Raises:
        TypeError: the graph is not directed.
        ValueError: as for `d_separated`; `max_trails` below 1.
    """
    if max_trails < 1:
        raise ValueError(f"max_trails must be 1 or more; got {max_trails}")
    starts, ends, observed = _question(dag, a, b, given)
    towards = _towards(dag, observed)
    nodes = list(islice(simple_paths(dag, starts, ends), max_trails + 1))
    cut = len(nodes) > max_trails
    trails = [_trail(dag, path, towards) for path in nodes[:max_trails]]
    shortest = _shortest_open(dag, starts, ends, observed)
    if shortest is not None and not any(trail.open for trail in trails):
        trails.append(_trail(dag, shortest, towards))
    graph = nx.freeze(nx.DiGraph(dag))
    return Explanation(starts, ends, observed, shortest is None, tuple(trails), cut, graph)


@dataclass(frozen=True)
class Middle:
    """A middle node of a trail, and whether it blocks."""

    node: Node
    # "head-to-tail", "tail-to-tail" or "head-to-head", by the trail's arrows at the node; or
    # "undirected".
    kind: str
    observed: bool
    # Of a head-to-head node: the directed path to the nearest observed node, that is (node,) where
    # it is observed itself. Empty where no descendant is, and for the other kinds.
    opened_by: tuple[Node, ...] = ()

    @property
    def blocks(self) -> bool:
        return not self.opened_by if self.kind == HEAD_TO_HEAD else self.observed

    def __str__(self) -> str:
        said = f"{self.node} is {self.kind}"
        if self.kind != HEAD_TO_HEAD:
            if self.observed:
                return f"{said} and observed: it blocks the trail"
            return f"{said} and not observed: it does not block"
        if self.observed:
            return f"{said} and observed: it does not block"
        if self.opened_by:
            path = " -> ".join(str(node) for node in self.opened_by)
            return (
                f"{said} and not observed, but its descendant {self.opened_by[-1]} is ({path}): "
                "it does not block"
            )
        return f"{said}, and neither it nor any descendant is observed: it blocks the trail"


@dataclass(frozen=True)
class Trail:
    """A path of the skeleton, with its arrows and its middle nodes in order."""

    nodes: tuple[Node, ...]
    arrows: tuple[str, ...]  # "->" or "<-" between each node and the next
    middles: tuple[Middle, ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kind of each middle node."""
        return tuple(middle.kind for middle in self.middles)

    @property
    def blocked_by(self) -> tuple[Node, ...]:
        """The middle nodes that block; none if the trail is open."""
        return tuple(middle.node for middle in self.middles if middle.blocks)

    @property
    def open(self) -> bool:
        return not self.blocked_by

    def __str__(self) -> str:
        steps = zip(self.arrows, self.nodes[1:], strict=True)
        return " ".join([str(self.nodes[0]), *(f"{arrow} {node}" for arrow, node in steps)])


@dataclass(frozen=True)
class Explanation:
    """Whether a and b are d-separated given the observed nodes, and the trails that decide it."""

    a: tuple[Node, ...]
    b: tuple[Node, ...]
    given: tuple[Node, ...]
    separated: bool
    trails: tuple[Trail, ...]  # shortest first
    cut: bool  # there are more trails than were asked for, and they are not listed
    graph: nx.DiGraph = field(repr=False, compare=False)  # a frozen copy, for `draw`

    @property
    def question(self) -> str:
        """`A is not d-separated from B given C`."""
        no = "" if self.separated else "not "
        given = ", ".join(str(node) for node in self.given) or "nothing"
        return f"{_set(self.a)} is {no}d-separated from {_set(self.b)} given {given}"

    @property
    def verdict(self) -> str:
        """One sentence: what the trails come to."""
        opened = [str(i) for i, trail in enumerate(self.trails, 1) if trail.open]
        more = f"There are more trails than the {len(self.trails)} listed. " if self.cut else ""
        if not self.trails:
            return "No trail joins them: separated."
        if not opened and self.cut:
            return f"{more}Reachability, which follows all of them, finds none open: separated."
        if not opened:
            return "Every trail is blocked: separated."
        if len(opened) == 1:
            found = "This trail is" if len(self.trails) == 1 else f"Trail {opened[0]} is"
        else:
            found = f"Trails {', '.join(opened[:-1])} and {opened[-1]} are"
        return f"{more}{found} open: not separated."

    def __str__(self) -> str:
        lines = [self.question, ""]
        for i, trail in enumerate(self.trails, 1):
            lines.append(f"{i}. {trail}   ({'open' if trail.open else 'blocked'})")
            lines += [f"     {middle}" for middle in trail.middles]
            if not trail.middles:
                lines.append("     an edge: no middle node can block it")
        return "\n".join([*lines, *([""] if self.trails else []), self.verdict])

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def require_dag(dag: Any) -> None:
    """Raise unless this is a directed graph without cycles.

    Raises:
        TypeError: not a directed graph, or one with parallel edges.
        ValueError: a directed cycle, which is named.
    """
    if not isinstance(dag, nx.DiGraph) or dag.is_multigraph():
        raise TypeError(
            f"expected a directed graph (networkx.DiGraph or a pgmpy network); "
            f"got {type(dag).__name__}"
        )
    refuse_cycles(dag)


def nodes_of(graph: nx.Graph, given: Any) -> tuple[Node, ...]:
    """A node or an iterable of nodes, as distinct nodes in the graph's order.

    Raises:
        ValueError: an unknown node, with near matches.
    """
    try:
        single = given in graph
    except TypeError:  # unhashable: a set or a list
        single = False
    if single:
        return (given,)
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise ValueError(unknown("node", given, graph))
    wanted = list(given)
    for node in wanted:
        try:
            known = node in graph
        except TypeError:
            known = False
        if not known:
            raise ValueError(unknown("node", node, graph))
    if len(wanted) < 2:
        return tuple(wanted)
    chosen = set(wanted)
    return tuple(node for node in graph if node in chosen)


def _question(
    dag: nx.DiGraph, a: Any, b: Any, given: Any
) -> tuple[tuple[Node, ...], tuple[Node, ...], tuple[Node, ...]]:
    require_dag(dag)
    sets = {"a": nodes_of(dag, a), "b": nodes_of(dag, b), "given": nodes_of(dag, given)}
    for one, other in (("a", "b"), ("a", "given"), ("b", "given")):
        common = set(sets[one]).intersection(sets[other])
        if common:
            shown = _set([node for node in sets[one] if node in common])
            raise ValueError(f"{one} and {other} must have no node in common; both hold {shown}")
    return sets["a"], sets["b"], sets["given"]


def _towards(dag: nx.DiGraph, observed: Iterable[Node]) -> dict[Node, Node | None]:
    """For each observed node None; for each ancestor of one, the next node on the way down to it.

    The keys are the nodes at which a head-to-head trail is open; the ways down are shortest.
    """
    following: dict[Node, Node | None] = dict.fromkeys(observed)
    queue = deque(following)
    while queue:
        node = queue.popleft()
        for parent in dag.predecessors(node):
            if parent not in following:
                following[parent] = node
                queue.append(parent)
    return following


def _shortest_open(
    dag: nx.DiGraph, a: Iterable[Node], b: Iterable[Node], observed: Iterable[Node]
) -> tuple[Node, ...] | None:
    """A shortest open trail, or None. Breadth first over pairs (node, arrived from a child?).

    The pairs know nothing of the nodes visited before, but a shortest walk that obeys the rules
    visits no node n twice. Cut out the part between two visits: what remains obeys them at n. If n
    is observed it was head-to-head in both visits, and is now. If it is not, only head-to-head
    could block now; then the part cut out left n downwards (or n was open head-to-head), could not
    come back to n downwards, so it turned at an open head-to-head node below n, which has an
    observed descendant; n has the same. So the walk was not shortest. Nor does it pass through a
    or b inside, since it could begin or end there.
    """
    ends, seen = set(b), set(observed)
    opened = _towards(dag, seen)
    arrived: dict[tuple[Node, bool], tuple[Node, bool] | None]
    arrived = dict.fromkeys((node, True) for node in a)
    queue = deque(arrived)
    while queue:
        state = queue.popleft()
        node, upwards = state
        steps: list[tuple[Node, bool]] = []
        if node not in seen:
            steps += [(child, False) for child in dag.successors(node)]
        if node not in seen if upwards else node in opened:
            steps += [(parent, True) for parent in dag.predecessors(node)]
        for step in steps:
            if step in arrived:
                continue
            arrived[step] = state
            if step[0] in ends:
                walk = []
                back: tuple[Node, bool] | None = step
                while back is not None:
                    walk.append(back[0])
                    back = arrived[back]
                return tuple(reversed(walk))
            queue.append(step)
    return None


def _trail(dag: nx.DiGraph, nodes: tuple[Node, ...], towards: dict[Node, Node | None]) -> Trail:
    arrows = tuple("->" if dag.has_edge(one, other) else "<-" for one, other in pairwise(nodes))
    middles = []
    for node, (before, after) in zip(nodes[1:-1], pairwise(arrows), strict=True):
        observed = node in towards and towards[node] is None
        if before == after:
            middles.append(Middle(node, HEAD_TO_TAIL, observed))
        elif before == "<-":
            middles.append(Middle(node, TAIL_TO_TAIL, observed))
        else:
            path = [node] if node in towards else []
            while path and (following := towards[path[-1]]) is not None:
                path.append(following)
            middles.append(Middle(node, HEAD_TO_HEAD, observed, tuple(path)))
    return Trail(nodes, arrows, tuple(middles))


def _set(nodes: Iterable[Node]) -> str:
    shown = [str(node) for node in nodes]
    return shown[0] if len(shown) == 1 else "{" + ", ".join(shown) + "}"
