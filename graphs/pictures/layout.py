"""Where the nodes of a drawing go: layers for graphs without cycles, springs for the others.

Coordinates are inches, y upwards. A layered layout follows Sugiyama, Tagawa and Toda (1981): each
node below its parents, orders within layers by sweeps of barycentres, then places along the layers
by least squares.
"""

from bisect import bisect_right, insort
from collections.abc import Hashable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import networkx as nx
import numpy as np

Node = Hashable
Size = tuple[float, float]
ACROSS, DOWN = 0.22, 0.46  # free inches between neighbours of a layer, and between layers
BENDS = 10_000  # where edges cross more layers than that, long ones are left straight
SPRINGS = 100  # above so many nodes Kamada and Kawai's layout takes seconds


class Layout(NamedTuple):
    """Places of the nodes' centres, and the points that a bent edge passes in turn."""

    places: dict[Node, tuple[float, float]]
    bends: dict[tuple[Node, Node], list[tuple[float, float]]]


def layout_of(graph: nx.Graph, sizes: Mapping[Node, Size], room: float = DOWN) -> Layout:
    """Places for every node, in the first quadrant: each component by itself, then on shelves."""
    whole = nx.Graph(graph.edges)
    whole.add_nodes_from(graph)
    parts = []
    rank = {node: i for i, node in enumerate(graph)}
    for nodes in nx.connected_components(whole):
        ordered = sorted(nodes, key=rank.__getitem__)
        part = nx.DiGraph() if graph.is_directed() else nx.Graph()
        part.add_nodes_from(ordered)
        part.add_edges_from(e[:2] for e in graph.edges(ordered) if e[0] != e[1])
        parts.append(_component(part, sizes, room))
    return _shelved(parts, sizes)


def _component(graph: nx.Graph, sizes: Mapping[Node, Size], room: float) -> Layout:
    if graph.is_directed() and nx.is_directed_acyclic_graph(graph):
        return _layered(graph, sizes, room)
    if not graph.is_directed() and nx.is_tree(graph):
        centre = nx.center(graph)[0] if len(graph) <= 400 else next(iter(graph))
        places, down = _layered(nx.bfs_tree(graph, centre), sizes, room)
        up = {edge[::-1]: way[::-1] for edge, way in down.items()}
        return Layout({node: places[node] for node in graph}, down | up)
    return Layout(_springs(nx.Graph(graph), sizes, room), {})


def _shelved(parts: Sequence[Layout], sizes: Mapping[Node, Size]) -> Layout:
    """The parts in rows, the highest first, in a picture somewhat wider than high."""
    boxes = []
    for index, part in enumerate(parts):
        corners = [(x, y, *sizes[node]) for node, (x, y) in part.places.items()]
        corners += [(x, y, 0.0, 0.0) for way in part.bends.values() for x, y in way]
        left = min(x - w / 2 for x, _, w, _ in corners)
        right = max(x + w / 2 for x, _, w, _ in corners)
        low = min(y - h / 2 for _, y, _, h in corners)
        high = max(y + h / 2 for _, y, _, h in corners)
        boxes.append((high - low, index, right - left, left, high))
    boxes.sort(key=lambda box: (-box[0], box[1]))
    gap = 2 * ACROSS
    area = sum((high + gap) * (width + gap) for high, _, width, _, _ in boxes)
    most = max(1.6 * area**0.5, max((box[2] for box in boxes), default=0.0))
    places: dict[Node, tuple[float, float]] = {}
    bends: dict[tuple[Node, Node], list[tuple[float, float]]] = {}
    at, top, shelf = 0.0, 0.0, 0.0
    for height, index, width, left, high in boxes:
        if at and at + width > most:
            at, top, shelf = 0.0, top - shelf - gap, 0.0
        dx, dy = at - left, top - high
        for node, (x, y) in parts[index].places.items():
            places[node] = (x + dx, y + dy)
        for edge, way in parts[index].bends.items():
            bends[edge] = [(x + dx, y + dy) for x, y in way]
        at, shelf = at + width + gap, max(shelf, height)
    low = top - shelf
    return Layout(
        {node: (x, y - low) for node, (x, y) in places.items()},
        {edge: [(x, y - low) for x, y in way] for edge, way in bends.items()},
    )


# Layers


def _layered(dag: nx.DiGraph, sizes: Mapping[Node, Size], room: float) -> Layout:
    """Items are the nodes, by number, and after them a bend for each layer that an edge crosses."""
    nodes = list(dag)
    number = {node: i for i, node in enumerate(nodes)}
    level = _levels(dag, sizes)
    layer = [level[node] for node in nodes]
    width = [sizes[node][0] for node in nodes]
    chains: dict[tuple[Node, Node], list[int]] = {}
    crossed = sum(level[head] - level[tail] - 1 for tail, head in dag.edges)
    for tail, head in dag.edges:
        between = range(level[tail] + 1, level[head])
        if between and crossed > BENDS:
            continue
        bent = list(range(len(layer), len(layer) + len(between)))
        layer += between
        width += [0.05] * len(bent)
        chains[tail, head] = [number[tail], *bent, number[head]]
    above: list[list[int]] = [[] for _ in layer]
    below: list[list[int]] = [[] for _ in layer]
    for chain in chains.values():
        for one, other in pairwise(chain):
            below[one].append(other)
            above[other].append(one)
    rows = _ordered(layer, above, below)
    across = _along(rows, above, below, width, len(nodes))
    tall = [max([sizes[nodes[i]][1] for i in row if i < len(nodes)], default=0.0) for row in rows]
    y, heights = 0.0, []
    for i, height in enumerate(tall):
        y -= (tall[i - 1] + height) / 2 + room if i else 0.0
        heights.append(y)
    places = {node: (across[i], heights[layer[i]]) for i, node in enumerate(nodes)}
    bends = {}
    for edge, chain in chains.items():
        way = []
        for i in chain:
            middle, half = heights[layer[i]], tall[layer[i]] / 2 + 0.04
            # Straight down through a layer, so that the edge keeps clear of the nodes beside it.
            way += [(across[i], middle + half)] if i != chain[0] else []
            way += [(across[i], middle - half)] if i != chain[-1] else []
        bends[edge] = way
    return Layout(places, bends)


def _levels(dag: nx.DiGraph, sizes: Mapping[Node, Size]) -> dict[Node, int]:
    """Each node at least one level below its parents, with the least sum of edge lengths.

    The linear program of Gansner, Koutsofios, North and Vo (1993), section 2; its corners are
    integers. Then leaves of a level that is too wide go down to the next.
    """
    from scipy.optimize import linprog
    from scipy.sparse import coo_array

    number = {node: i for i, node in enumerate(dag)}
    ends = np.array([(number[a], number[b]) for a, b in dag.edges], dtype=int).reshape(-1, 2)
    if not len(ends):
        return dict.fromkeys(dag, 0)
    count = np.arange(len(ends))
    above_below = (np.tile([1.0, -1.0], len(ends)), (count.repeat(2), ends.ravel()))
    length = np.bincount(ends[:, 1], minlength=len(dag)) - np.bincount(
        ends[:, 0], minlength=len(dag)
    )
    shape = (len(ends), len(dag))
    found = linprog(length, A_ub=coo_array(above_below, shape).tocsr(), b_ub=-np.ones(len(ends)))
    at = np.round(found.x - found.x.min()).astype(int).tolist()
    level = {node: at[i] for node, i in number.items()}
    area = sum((sizes[node][0] + ACROSS) * (sizes[node][1] + DOWN) for node in dag)
    most = max(5.0, 1.5 * area**0.5)
    rows: dict[int, list[Node]] = {}
    for node in dag:
        rows.setdefault(level[node], []).append(node)
    row = 0
    while row in rows:
        wide = sum(sizes[node][0] + ACROSS for node in rows[row])
        leaves = [node for node in rows[row] if dag.out_degree(node) == 0]
        while wide > most and leaves and len(rows[row]) > 1:
            leaf = leaves.pop()
            rows[row].remove(leaf)
            rows.setdefault(row + 1, []).append(leaf)
            level[leaf] = row + 1
            wide -= sizes[leaf][0] + ACROSS
        row += 1
    return level


def _ordered(
    layer: Sequence[int], above: Sequence[list[int]], below: Sequence[list[int]]
) -> list[list[int]]:
    """Orders within the layers, with few crossings."""
    start: list[list[int]] = [[] for _ in range(max(layer, default=-1) + 1)]
    seen: set[int] = set()
    for root in sorted(range(len(layer)), key=lambda i: layer[i]):  # depth first
        stack = [root]
        while stack:
            item = stack.pop()
            if item not in seen:
                seen.add(item)
                start[layer[item]].append(item)
                stack += reversed([i for i in below[item] + above[item] if i not in seen])
    best, fewest = start, _crossings(start, below)
    small = len(layer) <= 400
    for rows in (start, [row[::-1] for row in start]) if small else (start,):
        rows = [list(row) for row in rows]
        for sweep in range(24 if small else 6):
            downwards = sweep % 2 == 0
            for row in range(len(rows)) if downwards else reversed(range(len(rows))):
                beside = above if downwards else below
                near = rows[max(row - 1, 0) : row + 2]
                rank = {item: i for other in near for i, item in enumerate(other)}
                weight = {
                    item: sum(rank[i] for i in beside[item]) / len(beside[item])
                    if beside[item]
                    else float(rank[item])
                    for item in rows[row]
                }
                rows[row].sort(key=lambda item: weight[item])
            if small:
                _swap(rows, above, below)
            crossings = _crossings(rows, below)
            if crossings < fewest:
                best, fewest = [list(row) for row in rows], crossings
    return best


def _swap(rows: list[list[int]], above: Sequence[list[int]], below: Sequence[list[int]]) -> None:
    """Exchange neighbours within a layer while that saves crossings."""
    rank = {item: i for row in rows for i, item in enumerate(row)}

    def crossed(left: int, right: int) -> int:
        return sum(
            sum(rank[i] > rank[j] for i in side[left] for j in side[right])
            for side in (above, below)
        )

    better = True
    while better:
        better = False
        for row in rows:
            for k in range(len(row) - 1):
                left, right = row[k], row[k + 1]
                if crossed(right, left) < crossed(left, right):
                    row[k], row[k + 1] = right, left
                    rank[left], rank[right] = k + 1, k
                    better = True


def _crossings(rows: Sequence[Sequence[int]], below: Sequence[list[int]]) -> int:
    total = 0
    for row, following in pairwise(rows):
        rank = {item: i for i, item in enumerate(following)}
        seen: list[int] = []
        for item in row:
            ends = sorted(rank[i] for i in below[item])
            total += sum(len(seen) - bisect_right(seen, end) for end in ends)
            for end in ends:
                insort(seen, end)
    return total


def _along(
    rows: Sequence[Sequence[int]],
    above: Sequence[list[int]],
    below: Sequence[list[int]],
    width: Sequence[float],
    real: int,
) -> list[float]:
    """Places along the layers that minimise sum_edges w (x_u - x_v)^2 in the given orders.

    A layer at a time with the others fixed, which is an isotonic regression; edges between two
    bends weigh most, to come out straight.
    """
    x = [0.0] * len(width)
    apart = []
    for row in rows:
        steps = [0.0]
        for one, other in pairwise(row):
            bends = (one >= real) + (other >= real)
            gap = ACROSS * (1.0, 0.6, 0.5)[bends]
            steps.append(steps[-1] + (width[one] + width[other]) / 2 + gap)
        apart.append(steps)
        for item, step in zip(row, steps, strict=True):
            x[item] = step - steps[-1] / 2
    order = list(range(len(rows)))
    for sweep in range(60 if len(width) <= 400 else 12):
        for k in order if sweep % 2 == 0 else order[::-1]:
            targets, weights = [], []
            for item, step in zip(rows[k], apart[k], strict=True):
                beside = above[item] + below[item]
                pull = [(x[i], 1 + 3 * (item >= real) * (i >= real)) for i in beside]
                total = sum(w for _, w in pull)
                at = sum(place * w for place, w in pull) / total if pull else x[item]
                targets.append(at - step)
                weights.append(total or 1e-3)
            fitted = _isotonic(targets, weights)
            for item, step, at in zip(rows[k], apart[k], fitted, strict=True):
                x[item] = at + step
    return x


def _isotonic(targets: Sequence[float], weights: Sequence[float]) -> list[float]:
    """argmin sum_i w_i (z_i - t_i)^2 with z_1 <= z_2 <= ..., by pooling adjacent violators."""
    pools: list[tuple[float, float, int]] = []
    for target, weight in zip(targets, weights, strict=True):
        pool = (target, float(weight), 1)
        while pools and pools[-1][0] >= pool[0]:
            mean, mass, count = pools.pop()
            both = mass + pool[1]
            pool = ((mean * mass + pool[0] * pool[1]) / both, both, count + pool[2])
        pools.append(pool)
    return [mean for mean, _, count in pools for _ in range(count)]


# Springs


def _springs(
    graph: nx.Graph, sizes: Mapping[Node, Size], room: float
) -> dict[Node, tuple[float, float]]:
    if len(graph) <= SPRINGS:
        found = nx.kamada_kawai_layout(graph, pos=nx.circular_layout(graph))
    else:
        # Each iteration looks at all pairs.
        found = nx.spring_layout(graph, seed=0, iterations=60 if len(graph) <= 1000 else 15)
    nodes = list(graph)
    x = np.array([found[node] for node in nodes])  # (n, 2)
    size = np.array([sizes[node] for node in nodes]) + ACROSS  # (n, 2)
    lengths = [np.hypot(*(found[a] - found[b])) for a, b in graph.edges]
    wanted = size.mean() + room if len(nodes) <= 200 else 0.4
    # Names are wider than high, so the picture is stretched along them.
    x *= wanted / max(float(np.median(lengths)), 1e-9) * np.array([1.15, 0.95])
    for _ in range(200 if len(nodes) <= 200 else 0):
        apart = x[:, None] - x[None]  # (n, n, 2)
        over = (size[:, None] + size[None]) / 2 - abs(apart)  # (n, n, 2)
        hit = (over > 0).all(-1)
        np.fill_diagonal(hit, False)
        if not hit.any():
            break
        # Along the axis that overlaps less, half the way each.
        axis = over.argmin(-1)
        push = np.zeros_like(apart)
        i, j = np.nonzero(hit)
        k = axis[i, j]
        sign = np.where(apart[i, j, k] != 0, np.sign(apart[i, j, k]), np.where(i < j, -1.0, 1.0))
        push[i, j, k] = sign * (over[i, j, k] / 2 + 0.005)
        x += push.sum(1)
    return {node: (float(a), float(b)) for node, (a, b) in zip(nodes, x, strict=True)}
