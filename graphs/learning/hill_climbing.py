"""Search for a structure by steps of one arc: add, remove, reverse (Koller and Friedman 18.4.3)."""

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from .scores import FamilyScores

LEAST = 1e-6  # nats; a smaller gain is rounding


class HillClimbing:
    """A directed acyclic graph and what each step from it would gain.

    Only the families that a step touches are scored anew. `gain[u, v]` is what changes in the
    family of v where u becomes its parent, or stops being it.

    Args:
        scores: of families.
        allowed: (n, n), whether the arc u -> v may be there.
        required: (n, n), whether it must.
        max_parents: of any variable.
    """

    def __init__(
        self,
        scores: FamilyScores,
        allowed: np.ndarray,
        required: np.ndarray,
        max_parents: int,
    ) -> None:
        self.scores, self.allowed, self.required = scores, allowed, required
        self.max_parents, self.n = max_parents, len(allowed)
        self.steps = 0
        self.gain = np.full((self.n, self.n), -np.inf)
        self.arcs = required.copy()
        for v in range(self.n):
            self._score(v)
        self._paths()

    def start(self, arcs: np.ndarray) -> None:
        """Go on from these arcs."""
        changed = np.flatnonzero((self.arcs != arcs).any(0)).tolist()
        self.arcs = arcs
        for v in changed:
            self._score(v)
        self._paths()

    @property
    def score(self) -> float:
        return sum(self.scores(v, np.flatnonzero(self.arcs[:, v]).tolist()) for v in range(self.n))

    def climb(self, tabu: int, tell: Callable[[], Any]) -> tuple[float, np.ndarray]:
        """The best graph on the way up, and on after the top for `tabu` steps without a better one.

        A step never leads to one of the last `tabu` graphs (Glover 1986, tabu search).
        """
        best, score, idle = self.arcs.copy(), self.score, 0
        top = score
        recent = deque([self.arcs.tobytes()], maxlen=max(tabu, 1))
        while True:
            found = self._step(recent, downhill=tabu > 0)
            if found is None:
                return top, best
            score += found
            tell()
            if score > top + LEAST:
                top, best, idle = score, self.arcs.copy(), 0
                continue
            idle += 1
            if idle >= tabu:
                return top, best

    def wander(self, arcs: np.ndarray, steps: int, rng: np.random.Generator) -> None:
        """From these arcs: turn covered ones round at random, then take any legal steps at random.

        u -> v is covered where v has no parents but u and u's; turned round it gives an equivalent
        graph (Chickering 1995), from which other steps lead on (Castelo and Kocka 2003).
        """
        arcs = arcs.copy()
        for _ in range(int(arcs.sum())):
            tails, heads = np.nonzero(arcs)
            others = arcs[:, heads]
            others[tails, np.arange(len(tails))] = False
            turned = (others == arcs[:, tails]).all(0) & self.allowed[heads, tails]
            turned &= ~self.required[tails, heads]
            covered = np.flatnonzero(turned)
            if len(covered):
                at = rng.choice(covered)
                arcs[tails[at], heads[at]], arcs[heads[at], tails[at]] = False, True
        self.start(arcs)
        for _ in range(steps):
            legal = np.flatnonzero(self._gains() > -np.inf)
            if not len(legal):
                return
            self._take(int(rng.choice(legal)))

    def _step(self, recent: deque[bytes], downhill: bool) -> float | None:
        """Take the best step; None where there is none."""
        gains = self._gains()
        # At most so many steps lead to recent graphs, one each.
        few = min(len(recent) + 1 if downhill else 1, len(gains))
        costs = -np.round(gains, 6)  # rounding decides between no equals
        best = np.flatnonzero(costs <= np.partition(costs, few - 1)[few - 1])
        for move in best[np.argsort(costs[best], kind="stable")].tolist():
            gain = float(gains[move])
            if gain == -np.inf or (gain <= LEAST and not downhill):
                return None
            if not downhill or self._moved(move)[0].tobytes() not in recent:
                self._take(move)
                recent.append(self.arcs.tobytes())
                return gain
        return None

    def _gains(self) -> np.ndarray:
        """What each step gains, -inf where it is illegal: (3 n n), to add, remove and reverse."""
        arcs, paths = self.arcs, self.paths
        fewer = arcs.sum(0) < self.max_parents
        add = ~(arcs | arcs.T | paths.T) & self.allowed & fewer
        np.fill_diagonal(add, False)
        remove = arcs & ~self.required
        # u -> v can be turned round where no other path leads from u to v.
        others = arcs.astype(np.float32) @ paths.astype(np.float32) > 0
        reverse = remove & ~others & self.allowed.T & fewer[:, None]
        gains = np.full((3, self.n, self.n), -np.inf)
        gains[0][add] = self.gain[add]
        gains[1][remove] = self.gain[remove]
        gains[2][reverse] = (self.gain + self.gain.T)[reverse]
        return gains.ravel()

    def _moved(self, move: int) -> tuple[np.ndarray, list[int]]:
        """The arcs after a step, and whose parents it changes."""
        kind, u, v = np.unravel_index(move, (3, self.n, self.n))
        arcs = self.arcs.copy()
        arcs[u, v] = kind == 0
        if kind == 2:
            arcs[v, u] = True
        return arcs, [int(v), int(u)] if kind == 2 else [int(v)]

    def _take(self, move: int) -> None:
        self.arcs, changed = self._moved(move)
        self.steps += 1
        for v in changed:
            self._score(v)
        self._paths()

    def _score(self, v: int) -> None:
        parents = np.flatnonzero(self.arcs[:, v]).tolist()
        here = self.scores(v, parents)
        self.gain[:, v] = -np.inf
        if len(parents) < self.max_parents:
            others = [
                u for u in range(self.n) if u != v and u not in parents and self.allowed[u, v]
            ]
            self.gain[others, v] = np.array(self.scores.with_each(v, parents, others)) - here
        for u in parents:
            self.gain[u, v] = self.scores(v, [p for p in parents if p != u]) - here

    def _paths(self) -> None:
        """paths[u, v]: whether a directed path of one arc or more leads from u to v."""
        self.paths = self.arcs.copy()
        children = [np.flatnonzero(row) for row in self.arcs]
        waiting = self.arcs.sum(1)
        ready = [v for v in range(self.n) if not waiting[v]]
        while ready:
            v = ready.pop()
            if len(children[v]):
                self.paths[v] |= self.paths[children[v]].any(0)
            for u in np.flatnonzero(self.arcs[:, v]).tolist():
                waiting[u] -= 1
                if not waiting[u]:
                    ready.append(u)
