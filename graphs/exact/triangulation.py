"""Elimination orders and the cliques that they leave.

Inside, a set of vertices is one Python integer, bit i for vertex i: the unions, intersections and
counts that greedy orders are made of then cost nanoseconds a vertex.
"""

import heapq
import math
import random
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence

HEURISTICS = ("min_fill", "min_weight", "weighted_min_fill")


def elimination_order(
    neighbours: Mapping[Hashable, Iterable[Hashable]],
    cardinalities: Mapping[Hashable, int],
    *,
    heuristic: str = "min_fill",
    seed: int = 0,
) -> list[Hashable]:
    """A greedy elimination order of an undirected graph.

    Each step takes the vertex whose elimination costs least: the number of edges it adds
    (``min_fill``), the size of the table it makes (``min_weight``), or the added edges weighted by
    the log-cardinalities of their ends (``weighted_min_fill``); Koller & Friedman, Probabilistic
    Graphical Models, section 9.4.3.2. Ties fall by the seed; seed 0 takes the first vertex.

    Raises:
        ValueError: an unknown heuristic.
    """
    if heuristic not in HEURISTICS:
        raise ValueError(f"heuristic must be one of {', '.join(HEURISTICS)}; got {heuristic!r}")
    vertices = list(neighbours)
    index = {vertex: i for i, vertex in enumerate(vertices)}
    adjacency = [{index[u] for u in neighbours[v] if u != v} for v in vertices]
    weights = [math.log2(cardinalities[v]) for v in vertices]
    return [vertices[clique[0]] for clique in eliminate(adjacency, weights, heuristic, seed)]


def eliminate(
    adjacency: Sequence[set[int]],
    weights: Sequence[float],
    heuristic: str,
    seed: int = 0,
    limit: float = math.inf,
) -> list[tuple[int, ...]]:
    """A greedy elimination: at each step the vertex that goes, and its neighbours then.

    Args:
        adjacency: neighbours of each vertex 0..n-1.
        weights: log2 of the cardinalities.
        heuristic: one of `HEURISTICS`.
        seed: of the ties.
        limit: give up after the step with which the tables hold more cells than this.
    """
    steps, remaining = _peel(adjacency)
    index = {v: i for i, v in enumerate(remaining)}
    masks = [sum(1 << index[u] for u in adjacency[v] if u in index) for v in remaining]
    inner = [weights[v] for v in remaining]
    for v, around in _greedy(masks, inner, heuristic, seed, limit):
        steps.append((remaining[v], *(remaining[u] for u in around)))
    return steps


def _peel(adjacency: Sequence[set[int]]) -> tuple[list[tuple[int, ...]], list[int]]:
    """Eliminate vertices with at most one neighbour, which is always best; trees go entirely."""
    degree = [len(near) for near in adjacency]
    gone = [False] * len(adjacency)
    steps: list[tuple[int, ...]] = []
    waiting = [v for v in range(len(adjacency) - 1, -1, -1) if degree[v] <= 1]
    while waiting:
        v = waiting.pop()
        if gone[v]:
            continue
        gone[v] = True
        around = [u for u in adjacency[v] if not gone[u]]
        steps.append((v, *around))
        for u in around:
            degree[u] -= 1
            if degree[u] <= 1:
                waiting.append(u)
    return steps, [v for v in range(len(adjacency)) if not gone[v]]


def _greedy(
    adjacency: list[int], weights: Sequence[float], heuristic: str, seed: int, limit: float
) -> Iterator[tuple[int, list[int]]]:
    count = len(adjacency)
    draw = random.Random(seed).random if seed else (lambda: 0.0)
    bits = [1 << i for i in range(count)]
    live = (1 << count) - 1

    def members(mask: int) -> list[int]:
        found = []
        while mask:
            low = mask & -mask
            found.append(low.bit_length() - 1)
            mask ^= low
        return found

    def fill(v: int) -> float:
        near = adjacency[v]
        missing = 0
        for u in members(near):
            missing += (near & ~adjacency[u]).bit_count() - 1
        return missing

    def weighted_fill(v: int) -> float:
        near = adjacency[v]
        total = 0.0
        for u in members(near):
            rest = near & ~adjacency[u] & ~((bits[u] << 1) - 1)  # each pair once
            if rest:
                total += weights[u] * sum(weights[w] for w in members(rest))
        return total

    def weight(v: int) -> float:
        return weights[v] + sum(weights[u] for u in members(adjacency[v]))

    main = {"min_fill": fill, "min_weight": weight, "weighted_min_fill": weighted_fill}[heuristic]
    second = fill if heuristic == "min_weight" else weight

    def cost(v: int) -> tuple[float, float, float]:
        return main(v), second(v), draw()

    costs = [cost(v) for v in range(count)]
    heap = [(costs[v], v) for v in range(count)]
    heapq.heapify(heap)
    cells = 0.0
    while live:
        found, v = heapq.heappop(heap)
        if not live & bits[v] or found is not costs[v]:
            continue  # an older cost of this vertex
        near = adjacency[v]
        cells += 2.0 ** min(weight(v), 1000.0)
        live ^= bits[v]
        around = members(near)
        yield v, around
        if cells > limit:
            return
        changed = near
        added = False
        for u in around:
            new = (adjacency[u] | near) & ~bits[u] & ~bits[v]
            # Fill edges change the cost of every vertex next to both their ends.
            if new != adjacency[u] & ~bits[v]:
                added = True
            adjacency[u] = new
        if added:
            for u in around:
                changed |= adjacency[u]
        for u in members(changed & live):
            costs[u] = cost(u)
            heapq.heappush(heap, (costs[u], u))
