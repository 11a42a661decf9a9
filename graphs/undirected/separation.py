"""Separation in undirected graphs: the trails between two sets of nodes and what cuts each of them.

A trail is a path that visits no node twice. Sets A and B are separated by C if every trail from a
node of A to a node of B passes a node of C. A distribution with the global Markov property of the
graph then has A independent of B given C (Lauritzen 1996, section 3.2.1; Bishop, PRML, section
8.3.1).
"""

import html
from collections import deque
from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import networkx as nx

from ..ancestral import checked_count
from ..simple_paths import simple_paths
from ..trails import Middle, Trail, _set, nodes_of
from .cliques import undirected_graph

Node = Hashable
UNDIRECTED = "undirected"  # the kind of every middle node: it blocks where it is observed


@dataclass(frozen=True)
class Separation:
    """Whether the observed nodes separate a from b, and the trails that decide it.

    `bool` of it is the answer; `print` shows it in words, `graphs.draw` in a picture.
    """

    a: tuple[Node, ...]
    b: tuple[Node, ...]
    given: tuple[Node, ...]
    separated: bool
    trails: tuple[Trail, ...]  # shortest first; their arrows are all "-"
    cut: bool  # there are more trails than were asked for, and they are not listed
    graph: nx.Graph = field(repr=False, compare=False)  # a frozen copy, for `draw`

    def __bool__(self) -> bool:
        return self.separated

    @property
    def question(self) -> str:
        """`A is not separated from B given C`."""
        no = "" if self.separated else "not "
        given = ", ".join(str(node) for node in self.given) or "nothing"
        return f"{_set(self.a)} is {no}separated from {_set(self.b)} given {given}"

    @property
    def verdict(self) -> str:
        """One sentence: what the trails come to."""
        opened = [str(i) for i, trail in enumerate(self.trails, 1) if trail.open]
        more = f"There are more trails than the {len(self.trails)} listed. " if self.cut else ""
        if opened:
            which = f"Trail {opened[0]} is" if len(opened) == 1 else f"{len(opened)} trails are"
            return f"{more}{which} open: not separated."
        if self.cut:
            return f"{more}Without the observed nodes no trail is left: separated."
        if not self.trails:
            return "No trail joins them: separated."
        return "Every trail passes an observed node: separated."

    def __str__(self) -> str:
        lines = [self.question, ""]
        for i, trail in enumerate(self.trails, 1):
            cut = ", ".join(str(node) for node in trail.blocked_by)
            lines.append(f"{i}. {trail}   ({f'cut at {cut}' if cut else 'open'})")
        return "\n".join([*lines, *([""] if self.trails else []), self.verdict])

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def separated(graph: Any, a: Any, b: Any, given: Any = (), *, max_trails: int = 20) -> Separation:
    """Whether every trail between a and b passes a node of `given`.

    The answer comes from a search that sees all trails; its time is linear in nodes and edges. To
    explain it the first `max_trails` trails are listed, shortest first, followed by a shortest open
    one if there is one and none of them is open. Between sets, a trail runs from a node of a to a
    node of b and has no node of either inside.

    Args:
        graph: an undirected graph, a pgmpy Markov network, or factors; see
            `graphs.undirected.cliques.undirected_graph`.
        a, b, given: a node, or an iterable of nodes; what is a node of the graph is read as one,
            be it a tuple. An empty set is separated from every other.
        max_trails: how many trails to list.

    Raises:
        TypeError: the graph is directed.
        ValueError: an unknown node, sets that overlap, `max_trails` below 1.
    """
    max_trails = checked_count(max_trails, 1, "max_trails")
    graph = undirected_graph(graph)
    sets = {"a": nodes_of(graph, a), "b": nodes_of(graph, b), "given": nodes_of(graph, given)}
    for one, other in (("a", "b"), ("a", "given"), ("b", "given")):
        common = set(sets[one]).intersection(sets[other])
        if common:
            shown = _set([node for node in sets[one] if node in common])
            raise ValueError(f"{one} and {other} must have no node in common; both hold {shown}")
    starts, ends, observed = sets.values()
    # One more than are listed, even where an open path is listed beyond those asked for.
    found = list(islice(simple_paths(graph, starts, ends), max_trails + 2))
    seen = set(observed)
    trails = [_trail(nodes, seen) for nodes in found[:max_trails]]
    shortest = _shortest_open(graph, starts, set(ends), seen)
    if shortest is not None and not any(trail.open for trail in trails):
        trails.append(_trail(shortest, seen))
    cut = len(found) > len(trails)
    copy = nx.freeze(nx.Graph(graph))
    return Separation(starts, ends, observed, shortest is None, tuple(trails), cut, copy)


def minimal_separators(graph: nx.Graph, limit: int) -> list[tuple[Node, ...]]:
    """The sets S that separate some two nodes while no proper subset of S separates these two.

    In other words, two components of the graph without S have all of S as their neighbours. All are
    found from those next to a node's neighbourhood (Berry, Bordat and Cogis 1999). The empty set is
    one exactly if the graph is not connected.

    Raises:
        ValueError: there are more than `limit`.
    """
    place = {node: i for i, node in enumerate(graph)}
    found: dict[frozenset[Node], None] = {}  # in the order found

    def look(removed: Collection[Node]) -> None:
        for part in components(graph, removed):
            found.setdefault(frozenset(boundary(graph, part)))
        if len(found) > limit:
            raise ValueError(
                f"the graph has more than {limit:,} minimal separators, each a statement of the "
                "global property; check a part of the model"
            )

    queue: deque[frozenset[Node]] = deque()
    for node in graph:
        look({node, *graph[node]})
    queue.extend(found)
    while queue:
        separator = queue.popleft()
        before = len(found)
        for node in sorted(separator, key=place.__getitem__):
            look(separator.union(graph[node], [node]))
        queue.extend(islice(found, before, None))
    ordered = (tuple(sorted(s, key=place.__getitem__)) for s in found)
    return sorted(ordered, key=lambda s: (len(s), [place[node] for node in s]))


def components(graph: nx.Graph, removed: Collection[Node]) -> list[tuple[Node, ...]]:
    """The connected parts of the graph without some nodes, all in the graph's order."""
    gone, found = set(removed), []
    for node in graph:
        if node not in gone:
            part = {node}
            queue = deque(part)
            while queue:
                for neighbour in graph[queue.popleft()]:
                    if neighbour not in gone and neighbour not in part:
                        part.add(neighbour)
                        queue.append(neighbour)
            gone |= part
            found.append(part)
    return [tuple(node for node in graph if node in part) for part in found]


def boundary(graph: nx.Graph, part: Collection[Node]) -> tuple[Node, ...]:
    """The neighbours of a set of nodes that lie outside it, in the graph's order."""
    near = {neighbour for node in part for neighbour in graph[node]}.difference(part)
    return tuple(node for node in graph if node in near)


def _trail(nodes: tuple[Node, ...], observed: Collection[Node]) -> Trail:
    middles = tuple(Middle(node, UNDIRECTED, node in observed) for node in nodes[1:-1])
    return Trail(nodes, ("-",) * (len(nodes) - 1), middles)


def _shortest_open(
    graph: nx.Graph, a: Iterable[Node], ends: Collection[Node], observed: Collection[Node]
) -> tuple[Node, ...] | None:
    """A shortest path from a to an end that passes no observed node, or None; breadth first."""
    before: dict[Node, Node | None] = dict.fromkeys(a)
    queue = deque(before)
    while queue:
        node = queue.popleft()
        for neighbour in graph[node]:
            if neighbour in before or neighbour in observed:
                continue
            before[neighbour] = node
            if neighbour in ends:
                path = [neighbour]
                while (back := before[path[-1]]) is not None:
                    path.append(back)
                return tuple(reversed(path))
            queue.append(neighbour)
    return None
