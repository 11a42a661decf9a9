"""Which leaves and which variables of paths go in which round, when a forest is taken apart.

Source: Miller and Reif, "Parallel tree contraction and its application" (1985).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .forest import Rooted
from .wiring import Wiring

Shape = tuple[int, ...]

ROUNDS = 4  # depths in the time of one round
SLOW = 10  # rounds for each doubling of the variables, where contraction makes no headway
MEMORY = 2**26  # numbers in all tables


class Rake(NamedTuple):
    """Factors of one pool all whose variables but the parent are leaves."""

    shape: Shape
    columns: Tensor
    ends: list[Tensor]
    """Of each axis, the places of its variables among those of its number of states."""


class Fold(NamedTuple):
    """Variables v between a parent a and a child b, all of the same numbers of states."""

    shape: tuple[int, int, int]
    """Of a, v and b."""
    ends: list[Tensor]
    above: Tensor
    """Columns of the factors over a and v."""
    below: Tensor
    """Columns of the factors over v and b."""
    made: slice
    """Columns of the factors over a and b that take their place."""


@dataclass
class Pool:
    """The factors of one shape, whose first axis is the parent, given and made."""

    columns: int = 0
    sources: list[tuple[int, list[int], np.ndarray, int]] = field(default_factory=list)
    """Of those given: the block, the order of its axes, the factors of it, their first column."""


class Plan(NamedTuple):
    """What happens in each round."""

    pools: dict[Shape, Pool]
    rounds: list[tuple[list[Rake], list[Fold]]]


def planned(wiring: Wiring, tree: Rooted, work: float) -> Plan | None:
    """Who goes in which round, or None where that takes longer than depth by depth, or too much
    memory.

    Args:
        wiring, tree: the forest.
        work: how many terms of psi' are summed in the time of one depth, and at most for one
            variable.
    """
    return _Planner(wiring, tree, work).plan()


class _Planner:
    """The forest as it shrinks. Factors have numbers: those given in the order of the pools, then
    those made."""

    def __init__(self, wiring: Wiring, tree: Rooted, limit: float) -> None:
        self.wiring, self.sizes, self.limit = wiring, wiring.graph.sizes, limit
        self.depth = int(tree.depth.max())
        self.fields = wiring.batch or 1
        variables, factors = len(self.sizes), sum(len(block.scopes) for block in wiring.blocks)
        self.pools: dict[Shape, Pool] = {}
        self.names: list[Shape] = []
        self.children: dict[int, list[np.ndarray]] = {}
        """Of each pool, the children (n, arity - 1) of its given factors."""
        self.kind, self.column, self.top, self.bottom, self.waiting = np.zeros(
            (5, factors + variables), np.int64
        )
        """Of each factor: its pool, its column there, its parent, its only child, and how many of
        its children are no leaves yet."""
        self.pair = np.ones(factors + variables, bool)
        self.up = np.full(variables, -1)
        """The factor between each variable and its parent, -1 at roots."""
        self.below, self.only = np.zeros((2, variables), np.int64)
        """How many factors hang from a variable, and the sum of their numbers: if it is one, which
        it is."""
        self.made = self._given(tree)
        self.rank = _reversed(tree.depth)
        self.work = 0
        """Terms summed in all psi', in one field."""

    def plan(self) -> Plan | None:
        rounds = []
        live = np.flatnonzero(self.up >= 0)
        ready = np.flatnonzero(self.waiting[: self.made] == 0)
        while len(ready):
            rakes = list(self._rakes(ready))
            ready = self._rake(ready)
            live = live[self.below[live] > 0]
            folds = list(self._fold(self._apart(live)))
            rounds.append((rakes, folds))
            time = ROUNDS * len(rounds) + self.work * self.fields / self.limit
            if time > self.depth or len(rounds) > SLOW * len(self.sizes).bit_length():
                return None
        cells = sum(math.prod(shape) * pool.columns for shape, pool in self.pools.items())
        if cells * self.fields > MEMORY:
            return None
        return Plan(self.pools, rounds)

    def _given(self, tree: Rooted) -> int:
        """Put the factors of the graph into pools; how many there are."""
        done = 0
        for number, (block, parent) in enumerate(
            zip(self.wiring.blocks, tree.parents, strict=True)
        ):
            for axis in np.unique(parent).tolist():
                rows = np.flatnonzero(parent == axis)
                order = [axis, *(a for a in range(len(block.shape)) if a != axis)]
                scopes = block.scopes[rows][:, order]
                ids = np.arange(done, done + len(rows))
                kind, first = self._columns(tuple(block.shape[a] for a in order), ids)
                self.pools[self.names[kind]].sources.append((number, order, rows, first))
                self.children.setdefault(kind, []).append(scopes[:, 1:])
                self.pair[ids] = len(order) == 2
                self.top[ids], self.bottom[ids] = scopes[:, 0], scopes[:, 1]
                self.up[scopes[:, 1:]] = ids[:, None]
                done += len(rows)
        np.add.at(self.below, self.top[:done], 1)
        np.add.at(self.only, self.top[:done], np.arange(done))
        inner = np.flatnonzero((self.below > 0) & (self.up >= 0))
        np.add.at(self.waiting, self.up[inner], 1)
        return done

    def _columns(self, shape: Shape, ids: np.ndarray) -> tuple[int, int]:
        """Columns of a pool for factors; which pool, and the first column."""
        if shape not in self.pools:
            self.pools[shape] = Pool()
            self.names.append(shape)
        kind, pool = self.names.index(shape), self.pools[shape]
        first = pool.columns
        pool.columns += len(ids)
        self.kind[ids] = kind
        self.column[ids] = np.arange(first, pool.columns)
        return kind, first

    def _rakes(self, ready: np.ndarray) -> Iterator[Rake]:
        for mine in _alike(self.kind[ready]):
            ids = ready[mine]
            kind = int(self.kind[ids[0]])
            shape = self.names[kind]
            if len(shape) == 2:
                children = self.bottom[ids, None]
            else:  # all of them are given
                children = np.concatenate(self.children[kind])[self.column[ids]]
            ends = [self._places(self.top[ids]), *map(self._places, children.T)]
            yield Rake(shape, index(self.column[ids], self.wiring), ends)

    def _rake(self, ready: np.ndarray) -> np.ndarray:
        """Take the factors away; those that become ready."""
        parents = self.top[ready]
        np.add.at(self.below, parents, -1)
        np.add.at(self.only, parents, -ready)
        parents = np.unique(parents)
        leaves = parents[(self.below[parents] == 0) & (self.up[parents] >= 0)]
        above = self.up[leaves]
        np.add.at(self.waiting, above, -1)
        above = np.unique(above)
        return above[self.waiting[above] == 0]

    def _apart(self, live: np.ndarray) -> np.ndarray:
        """Variables on paths, no two side by side: those that come before both neighbours in the
        order of depths with their bits reversed. On a path that is every second."""
        inner = live[self.below[live] == 1]
        above, below = self.up[inner], self.only[inner]
        a, b = self.sizes[self.top[above]], self.sizes[self.bottom[below]]
        fit = self.pair[above] & self.pair[below] & (self.waiting[below] > 0)
        inner = inner[fit & (a * self.sizes[inner] * b * self.fields <= self.limit)]
        rank = np.full(len(self.sizes), -1)
        rank[inner] = self.rank[inner]
        near = np.maximum(rank[self.top[self.up[inner]]], rank[self.bottom[self.only[inner]]])
        return inner[rank[inner] > near]

    def _fold(self, chosen: np.ndarray) -> Iterator[Fold]:
        """Take the variables away, and make the factors that take their place."""
        above, below = self.up[chosen], self.only[chosen]
        scopes = np.stack([self.top[above], chosen, self.bottom[below]])
        a, v, b = self.sizes[scopes]
        most = int(self.sizes.max(initial=0)) + 1
        for mine in _alike((a * most + v) * most + b):
            shape = (int(a[mine[0]]), int(v[mine[0]]), int(b[mine[0]]))
            ids = np.arange(self.made, self.made + len(mine))
            self.made += len(mine)
            _, first = self._columns((shape[0], shape[2]), ids)
            tops, inner, bottoms = scopes[:, mine]
            self.top[ids], self.bottom[ids], self.waiting[ids] = tops, bottoms, 1
            self.up[bottoms] = ids
            np.add.at(self.only, tops, ids - above[mine])
            self.below[inner] = 0
            self.work += math.prod(shape) * len(mine)
            yield Fold(
                shape,
                [self._places(part) for part in (tops, inner, bottoms)],
                index(self.column[above[mine]], self.wiring),
                index(self.column[below[mine]], self.wiring),
                slice(first, first + len(mine)),
            )

    def _places(self, positions: np.ndarray) -> Tensor:
        return index(self.wiring.place[positions], self.wiring)


def _alike(codes: np.ndarray) -> Iterator[np.ndarray]:
    """The places of each code."""
    order = np.argsort(codes, kind="stable")
    ends = np.flatnonzero(np.diff(codes[order])) + 1
    yield from (mine for mine in np.split(order, ends) if len(mine))


def _reversed(depth: np.ndarray) -> np.ndarray:
    """Numbers with their bits in the reverse order."""
    found = np.zeros_like(depth)
    for bit in range(int(depth.max(initial=0)).bit_length()):
        found = found * 2 + ((depth >> bit) & 1)
    return found


def index(places: np.ndarray, wiring: Wiring) -> Tensor:
    """Places as a tensor beside the tables."""
    return torch.as_tensor(places, device=wiring.device)
