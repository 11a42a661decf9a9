"""Where the nodes of a factor graph go that is a grid or a chain; others are laid out as graphs.

Coordinates are inches, y upwards.
"""

from collections.abc import Collection, Mapping
from typing import Any

import networkx as nx
import numpy as np

from .layout import ACROSS, Node, Size

Places = dict[Node, tuple[float, float]]
DIAGONAL = 0.32  # how far up its line the factor of a diagonal is, as two of them cross


def factor_places(
    graph: nx.Graph, sizes: Mapping[Node, Size], factors: Collection[Node], widest: float
) -> Places | None:
    """Places for every node, or None where the graph is no grid and no chain.

    Args:
        graph: the bipartite graph.
        sizes: the width and height of each node.
        factors: which nodes are factors.
        widest: inches; a longer chain is none.
    """
    return _grid(graph, sizes, factors) or _chain(graph, sizes, factors, widest)


def _grid(graph: nx.Graph, sizes: Mapping[Node, Size], factors: Collection[Node]) -> Places | None:
    """Cells (row, column) in their rows and columns, each factor between the cells that it joins.

    None where a variable is no such pair, a factor joins cells that are no neighbours, or most of
    the rectangle is empty.
    """
    cells = [node for node in graph if node not in factors]
    if not cells or not all(_is_cell(node) for node in cells):
        return None
    rows, columns = np.array(cells).T
    if (np.ptp(rows) + 1) * (np.ptp(columns) + 1) > 2 * len(cells) + 8:
        return None
    cell = np.max([sizes[node] for node in cells], 0)
    square = np.max([sizes[node] for node in graph if node in factors], 0)
    step = cell + square + ACROSS * np.array([1.3, 1.0])
    at_unit = {node: np.array([node[1] - columns.min(), rows.max() - node[0]]) for node in cells}
    scopes = [
        np.array([at_unit[other] for other in graph[node]]) for node in graph if node in factors
    ]
    if any(len(scope) == 2 and (scope[0] != scope[1]).all() for scope in scopes):
        step = 1.3 * step  # room for two factors where diagonals cross
    centre = {node: at * step for node, at in at_unit.items()}
    places: Places = {node: (float(x), float(y)) for node, (x, y) in centre.items()}
    taken: dict[Any, int] = {}
    for node in graph:
        if node not in factors:
            continue
        joined = np.array([centre[other] for other in graph[node]]).reshape(-1, 2)
        far = np.ptp(joined, 0) if len(joined) else np.zeros(2)
        if (far > 1.5 * step).any():
            return None
        if not len(joined):  # a constant: above the grid
            at = np.array([0.0, (np.ptp(rows) + 1.0) * step[1]])
        elif len(joined) == 1:  # above the cell's left end
            at = joined[0] + (cell + square + 0.1 * ACROSS) * np.array([-0.5, 0.5])
        elif len(joined) == 2 and far.all():
            at = joined.mean(0) + DIAGONAL * (joined[joined[:, 1].argmax()] - joined.mean(0))
        else:
            at = joined.mean(0)
        number = taken.get(tuple(at.round(6)), 0)
        taken[tuple(at.round(6))] = number + 1
        beside = far[0] > 0 and far[1] == 0  # of such cells a second factor goes above the first
        at = at + number * (square + 0.3 * ACROSS) * np.array([not beside, beside])
        places[node] = (float(at[0]), float(at[1]))
    return places


def _is_cell(node: Node) -> bool:
    return type(node) is tuple and len(node) == 2 and type(node[0]) is type(node[1]) is int


def _chain(
    graph: nx.Graph, sizes: Mapping[Node, Size], factors: Collection[Node], widest: float
) -> Places | None:
    """A path from left to right, and above and below each of its nodes what hangs on it.

    That is any number of single nodes and at most one longer branch, such as the emission and the
    observation of a hidden Markov model. None of any other graph.
    """
    if not nx.is_tree(graph):
        return None
    rank = {node: i for i, node in enumerate(graph)}
    path = _without_leaves(graph)
    if any(degree > 2 for _, degree in path.degree):
        path = _without_leaves(path)
    if not path or any(degree > 2 for _, degree in path.degree):
        return None
    ends = [node for node in path if path.degree(node) < 2]
    spine = list(nx.dfs_preorder_nodes(path, min(ends, key=rank.__getitem__)))
    for end in (-1, 0):  # the path ends with variables where it can
        leaves = [n for n in graph[spine[end]] if n not in spine and graph.degree(n) == 1]
        if spine[end] in factors and leaves:
            last = min(leaves, key=rank.__getitem__)
            spine = [last, *spine] if end == 0 else [*spine, last]
    if rank[spine[-1]] < rank[spine[0]]:
        spine.reverse()
    on_spine = set(spine)
    places: Places = {}
    x = 0.0
    for i, node in enumerate(spine):
        branches = [_branch(graph, node, n) for n in graph[node] if n not in on_spine]
        long = [branch for branch in branches if len(branch) > 1]
        single = [branch for branch in branches if len(branch) == 1]
        if len(long) > 1 or any(graph.degree(branch[-1]) > 1 for branch in branches):
            return None
        above, below = (single, long) if long else (single[::2], single[1::2])
        rooms = [sum(_wide(branch, sizes) for branch in row) for row in (above, below)]
        width = max(_wide([node], sizes), *rooms)
        x += width / 2 if i else 0.0
        places[node] = (x, 0.0)
        for row, room, up in ((above, rooms[0], 1), (below, rooms[1], -1)):
            left = x - room / 2
            for branch in row:
                y, last = 0.0, node
                for other in branch:
                    y += up * ((sizes[last][1] + sizes[other][1]) / 2 + ACROSS)
                    places[other] = (left + _wide(branch, sizes) / 2, y)
                    last = other
                left += _wide(branch, sizes)
        x += width / 2
    return places if x <= widest else None


def _without_leaves(tree: nx.Graph) -> nx.Graph:
    return tree.subgraph([node for node in tree if tree.degree(node) > 1])


def _branch(tree: nx.Graph, root: Node, first: Node) -> list[Node]:
    """The nodes from the first one on, away from the root, up to a leaf or a fork."""
    found, before = [first], root
    while tree.degree(found[-1]) == 2:
        before, step = found[-1], next(n for n in tree[found[-1]] if n != before)
        found.append(step)
    return found


def _wide(nodes: Collection[Node], sizes: Mapping[Node, Size]) -> float:
    return max(sizes[node][0] for node in nodes) + ACROSS
