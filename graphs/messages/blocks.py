"""Blocks of variables that are updated at once: no two variables of a block share a factor."""

from collections import deque
from itertools import pairwise, permutations
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import coo_array

from ..factor_graph import FactorGraph
from ..factor_groups import Group


class Term(NamedTuple):
    """What the factors of one group say of the variables of one block, through one axis."""

    group: int
    """Which of the graph's groups of factors of several variables."""
    axis: int
    """The axis at which those factors hold a variable of the block."""
    factors: Any
    """(m,): the place of each factor in the group, ordered by `members`."""
    members: Any
    """(m,): the place in the block of each factor's variable, ascending."""
    alone: bool
    """Whether no place comes twice."""


class Block(NamedTuple):
    """Variables of one colour and one number of states."""

    variables: Any
    """(n,): their positions in `FactorGraph.variables`."""
    size: int
    """How many states each has."""
    terms: list[Term]


def joining(graph: FactorGraph) -> list[Group]:
    """The groups of factors of several variables."""
    return [group for group in graph.groups if len(group.shape) > 1]


def colouring(graph: FactorGraph, free: np.ndarray) -> np.ndarray:
    """(V,): colours 0, 1, ... such that no two free variables of a factor have the same; -1 for
    those that are not free.

    On a grid the parity of row + column. Elsewhere greedy in breadth-first order, which takes two
    colours where two suffice, and never more than the largest degree plus one.
    """
    if graph.grid_shape is not None:
        return np.where(free, np.array(graph.variables).sum(1) % 2, -1)
    pairs = [np.empty((0, 2), np.int64)]
    for group in joining(graph):
        for one, other in permutations(range(len(group.shape)), 2):
            pairs.append(group.scopes[:, [one, other]])
    ends = np.concatenate(pairs)
    ends = ends[free[ends].all(1)].T
    near = coo_array((np.ones(ends.shape[1], bool), (ends[0], ends[1])), (len(free),) * 2).tocsr()
    first, neighbours = near.indptr.tolist(), near.indices.tolist()
    colours = [-1] * len(free)
    for start in np.flatnonzero(free).tolist():
        queue = deque([start] if colours[start] < 0 else [])
        while queue:
            variable = queue.popleft()
            if colours[variable] >= 0:
                continue
            around = neighbours[first[variable] : first[variable + 1]]
            taken = {colours[other] for other in around}
            colour = 0
            while colour in taken:
                colour += 1
            colours[variable] = colour
            queue.extend(other for other in around if colours[other] < 0)
    return np.array(colours, np.int64)


def blocks(graph: FactorGraph, free: np.ndarray) -> list[Block]:
    """The free variables by colour and number of states, with the factors of several variables that
    hold them.

    Args:
        graph: any factor graph.
        free: (V,): which variables are updated.
    """
    colours = colouring(graph, free)
    order = np.lexsort((graph.sizes, colours))[int((~free).sum()) :]
    keys = np.stack([colours[order], graph.sizes[order]])
    changes = np.flatnonzero((keys[:, 1:] != keys[:, :-1]).any(0)) + 1
    bounds = [0, *changes.tolist(), len(order)] if len(order) else [0]
    rank = np.full(len(free), -1)
    rank[order] = np.arange(len(order))
    found = [
        Block(order[start:stop], int(graph.sizes[order[start]]), [])
        for start, stop in pairwise(bounds)
    ]
    for number, group in enumerate(joining(graph)):
        for axis in range(len(group.shape)):
            ranks = rank[group.scopes[:, axis]]
            sorting = np.argsort(ranks, kind="stable")
            ranks = ranks[sorting]
            cuts = np.searchsorted(ranks, bounds)
            for block, start, low, high in zip(found, bounds, cuts, cuts[1:], strict=False):
                if low < high:
                    members = ranks[low:high] - start
                    alone = bool((np.diff(members) > 0).all())
                    block.terms.append(Term(number, axis, sorting[low:high], members, alone))
    return found


def add_to(totals: Any, term: Term, values: Any) -> None:
    """totals[:, member] += values for each of the term's factors.

    Args:
        totals: (K, n, ...), changed in place.
        values: (K, m, ...), or 1 for m where all factors say the same.
    """
    shape = (*totals.shape[:1], len(term.members), *totals.shape[2:])
    if hasattr(totals, "detach"):
        totals.index_add_(1, term.members, values.expand(shape))
    elif term.alone and len(term.members) == totals.shape[1]:
        totals += values
    elif term.alone:
        for total, value in zip(totals, values, strict=True):  # faster than both axes at once
            total[term.members] += value
    else:
        starts = np.flatnonzero(np.diff(term.members, prepend=-1))
        sums = np.add.reduceat(np.broadcast_to(values, shape), starts, axis=1)
        totals[:, term.members[starts]] += sums
