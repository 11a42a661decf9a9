"""Simple paths between two sets of nodes of a directed graph's skeleton, shortest first."""

from collections.abc import Hashable, Iterable, Iterator
from heapq import heappop, heappush

import networkx as nx

Node = Hashable


def simple_paths(
    dag: nx.DiGraph, a: Iterable[Node], b: Iterable[Node]
) -> Iterator[tuple[Node, ...]]:
    """Simple paths of the skeleton from a to b with neither inside, shortest first, one by one.

    Yen's algorithm (1971), where each path is followed by the shortest ones that leave it at each
    of its nodes; a path leaves no earlier than it left its own predecessor (Lawler 1972), so none
    is found twice.
    """
    ways, source, sink = _ways(dag, a, b)
    left = nx.single_source_shortest_path_length(ways.reverse(copy=False), sink)
    first = _shortest(ways, left, source, sink, set(), set()) if source in left else None
    heap = [(len(first), 0, first, 0, set[Node]())] if first else []
    found = 1
    while heap:
        _, _, path, leaves, barred = heappop(heap)
        yield tuple(path[1:-1])
        used = set(path[:leaves])  # before the node where the next path leaves this one
        for i in range(leaves, len(path) - 1):
            barred = {path[i + 1], *(barred if i == leaves else ())}
            if any(node not in used and node not in barred for node in ways[path[i]]):
                rest = _shortest(ways, left, path[i], sink, used, barred)
                if rest:
                    heappush(heap, (i + len(rest), found, path[:i] + rest, i, barred))
                    found += 1
            used.add(path[i])


def _ways(dag: nx.DiGraph, a: Iterable[Node], b: Iterable[Node]) -> tuple[nx.DiGraph, Node, Node]:
    """Steps that a trail from a to b may take, from a node put before a to one put after b.

    A node lies on a simple path between two nodes exactly if it shares a biconnected component
    with the edge that joins the two; the other nodes are left out.
    """
    starts, ends = set(a), set(b)
    source, sink = object(), object()
    skeleton = nx.Graph([(source, sink)])
    skeleton.add_edges_from(dag.edges)
    skeleton.add_edges_from((source, node) for node in a)
    skeleton.add_edges_from((node, sink) for node in b)
    within = next(
        block for block in nx.biconnected_components(skeleton) if source in block and sink in block
    )
    ways: nx.DiGraph = nx.DiGraph()
    ways.add_nodes_from((source, sink))
    ways.add_edges_from((source, node) for node in a if node in within)
    for edge in dag.edges:
        if edge[0] in within and edge[1] in within:
            for tail, head in (edge, edge[::-1]):
                if head not in starts and tail not in ends:
                    ways.add_edge(tail, head)
    ways.add_edges_from((node, sink) for node in b if node in within)
    return ways, source, sink


def _shortest(
    ways: nx.DiGraph,
    left: dict[Node, int],
    start: Node,
    sink: Node,
    used: set[Node],
    barred: set[Node],
) -> list[Node]:
    """A shortest path that avoids the used nodes and, in its first step, the barred ones; or [].

    A* search; `left` bounds the steps to the sink from below.
    """
    before: dict[Node, Node | None] = {start: None}
    made = {start: 0}
    # Entries: at least how many steps in all; minus the steps made; ties in order; the node.
    queue: list[tuple[int, int, int, Node]] = [(left[start], 0, 0, start)]
    order = 0
    while queue:
        _, steps, _, node = heappop(queue)
        if node is sink:
            path: list[Node] = []
            at: Node | None = node
            while at is not None:
                path.append(at)
                at = before[at]
            return path[::-1]
        if -steps > made[node]:
            continue
        for following in ways[node]:
            if (
                following in used
                or following not in left
                or (node == start and following in barred)
            ):
                continue
            if following not in made or made[following] > 1 - steps:
                made[following] = 1 - steps
                before[following] = node
                order += 1
                entry = (1 - steps + left[following], steps - 1, order, following)
                heappush(queue, entry)
    return []
