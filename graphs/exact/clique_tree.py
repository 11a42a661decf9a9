"""Clique trees: which variables meet in which table, and what exact inference will cost."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from .triangulation import eliminate

# Below this many cells two cliques cost less as one: a call into NumPy costs as much as the cells.
MERGED = 256
# More cells than any machine's memory holds: a search that comes here stops.
LIMIT = 2.0**38
# One vertex in a search for an order takes about as long as this many cells in the first queries.
TRIAL = 30_000
TRIALS = 60  # orders tried at most
FIRST = ("min_fill", "min_weight", "min_fill", "weighted_min_fill")  # then the best of them again


@dataclass(frozen=True)
class Cost:
    """What exact inference takes, known before any table is made.

    Attributes:
        largest_table: cells of the largest clique's table.
        total_cells: cells of all cliques' tables.
        bytes: memory of one query with all its tables and messages.
        width: variables that meet in one step of the elimination, minus one; the treewidth of the
            moral graph is at most this.
        at_least: the search was given up at these figures, since no machine has the memory.
    """

    largest_table: int
    total_cells: int
    bytes: int
    width: int
    at_least: bool = False

    def __str__(self) -> str:
        return ("at least: " if self.at_least else "") + (
            f"largest table {self.largest_table:,} cells, {self.total_cells:,} cells in all, "
            f"{readable(self.bytes)}, width {self.width}"
        )


class CliqueTree:
    """A clique tree (forest) over variables 0..n-1 with the running intersection property.

    Args:
        cardinalities: states of each variable.
        scopes: the variables of each factor.
        seed: of the ties between equally good elimination steps.
        merged: cliques of at most this many cells become one with their parents.
        steps: the elimination to use, another tree's, in place of a search.
        trials: orders that the search may try.

    Attributes:
        cardinalities: states of each variable.
        axes: variables of each clique, in elimination order, so that what a clique does not share
            with its parent comes first and what it shares with it last.
        parents: parent of each clique, -1 for a root.
        separators: what each clique shares with its parent, in elimination order.
        downward: the cliques, each after its parent.
        homes: the clique in which each variable is eliminated.
    """

    def __init__(
        self,
        cardinalities: Sequence[int],
        scopes: Iterable[Sequence[int]],
        *,
        seed: int = 0,
        merged: int = MERGED,
        steps: list[tuple[int, ...]] | None = None,
        trials: int = TRIALS,
    ) -> None:
        self.cardinalities = list(cardinalities)
        self._weights = [math.log2(k) for k in self.cardinalities]
        if steps is None:
            steps = self._search(_adjacency(len(self.cardinalities), scopes), seed, trials)
        self.steps = steps
        self.feasible = len(steps) == len(self.cardinalities)
        if not self.feasible:  # nobody will make these tables: only their cost is told
            cells = [int(min(self._cells(step), LIMIT)) for step in steps]
            self._bound = max(cells), min(sum(cells), int(LIMIT)), max(map(len, steps))
            return
        self._join(steps)
        self._merge(merged)
        self._number()

    def _search(self, adjacency: list[set[int]], seed: int, trials: int) -> list[tuple[int, ...]]:
        """The cheapest of several greedy eliminations; the dearer the tables, the more tried."""
        count = len(adjacency)
        best: list[tuple[int, ...]] = []
        cheapest, winner, trial = LIMIT, "", 0
        # Weights tell little where all variables have two to four states, and take long.
        first = FIRST if max(self.cardinalities, default=1) > 4 else FIRST[:3]
        while trial == 0 or (trial * count * TRIAL < cheapest and trial < trials):
            heuristic = first[trial] if trial < len(first) else winner
            found = eliminate(adjacency, self._weights, heuristic, seed + trial, cheapest)
            if len(found) == count:
                cells = sum(map(self._cells, found))
                if cells < cheapest or not best:
                    best, cheapest, winner = found, cells, heuristic
            elif trial == 0:
                return found
            trial += 1
        return best

    def _cells(self, clique: Iterable[int]) -> float:
        return 2.0 ** min(sum(self._weights[v] for v in clique), 1000.0)

    def _join(self, steps: list[tuple[int, ...]]) -> None:
        """The maximal elimination cliques, each under that of its next eliminated variable."""
        self.width = max(map(len, steps), default=1) - 1
        self.position = [0] * len(steps)
        for step, clique in enumerate(steps):
            self.position[clique[0]] = step
        home = [0] * len(steps)  # by step
        self._sets: dict[int, set[int]] = {}
        self._above: dict[int, int] = {}
        for step in range(len(steps) - 1, -1, -1):
            first, *rest = steps[step]
            parent = home[min(self.position[v] for v in rest)] if rest else -1
            if parent >= 0 and len(self._sets[parent]) == len(rest):
                self._sets[parent].add(first)  # the parent's clique was not maximal
                home[step] = parent
            else:
                self._sets[step] = {first, *rest}
                self._above[step] = parent
                home[step] = step
        self._home = {clique[0]: home[step] for step, clique in enumerate(steps)}

    def _merge(self, limit: int) -> None:
        """Put cliques into their parents where the union stays small."""
        into: dict[int, int] = {}
        for clique in sorted(self._sets):  # children come before their parents
            parent = self._above[clique]
            if parent < 0:
                continue
            own, above = self._sets[clique], self._sets[parent]
            apart = self._cells(own) + self._cells(above)
            if self._cells(own | above) <= max(limit, apart):
                above |= own
                into[clique] = parent
                del self._sets[clique]

        def kept(clique: int) -> int:
            while clique in into:
                clique = into[clique]
            return clique

        self._above = {c: kept(p) if p >= 0 else -1 for c, p in self._above.items()}
        self._home = {v: kept(c) for v, c in self._home.items()}

    def _number(self) -> None:
        downward = sorted(self._sets, reverse=True)
        index = {clique: i for i, clique in enumerate(downward)}
        self.parents = [index.get(self._above[clique], -1) for clique in downward]
        self.axes = [self.ordered(self._sets[clique]) for clique in downward]
        self.separators = [
            self.ordered(self._sets[c] & self._sets[downward[p]]) if p >= 0 else ()
            for c, p in zip(downward, self.parents, strict=True)
        ]
        self.downward = range(len(downward))
        self.children: list[list[int]] = [[] for _ in downward]
        for clique, parent in enumerate(self.parents):
            if parent >= 0:
                self.children[parent].append(clique)
        self.homes = [index[self._home[v]] for v in range(len(self.position))]
        self.cells = [self.size(axes) for axes in self.axes]
        del self._sets, self._above, self._home

    def ordered(self, scope: Iterable[int]) -> tuple[int, ...]:
        """Variables in elimination order, the order of axes in every table."""
        return tuple(sorted(scope, key=self.position.__getitem__))

    def home_of(self, scope: Sequence[int]) -> int:
        """A clique that holds all variables of a factor's scope; clique 0 for a constant."""
        if not scope:
            return 0
        return self.homes[min(scope, key=self.position.__getitem__)]

    def smallest_holder(self, scope: Iterable[int]) -> int:
        """The smallest clique that holds all of these variables, -1 where none does."""
        wanted = set(scope)
        holding = [i for i, axes in enumerate(self.axes) if wanted.issubset(axes)]
        return min(holding, key=self.cells.__getitem__, default=-1)

    def size(self, scope: Iterable[int]) -> int:
        """Cells of a table over these variables."""
        return math.prod(self.cardinalities[v] for v in scope)

    @cached_property
    def cost(self) -> Cost:
        """What a query takes."""
        if not self.feasible:
            largest, total, meeting = self._bound
            return Cost(largest, total, 8 * total, meeting - 1, at_least=True)
        total = sum(self.cells)
        messages = sum(2 * self.size(separator) for separator in self.separators)
        largest = max(self.cells, default=1)
        # Each clique has its potential and its belief; the largest needs room to work in.
        return Cost(largest, total, 8 * (2 * total + messages + largest), self.width)


def _adjacency(count: int, scopes: Iterable[Sequence[int]]) -> list[set[int]]:
    adjacency: list[set[int]] = [set() for _ in range(count)]
    for scope in scopes:
        for v in scope:
            adjacency[v].update(scope)
    for v in range(count):
        adjacency[v].discard(v)
    return adjacency


def readable(count: float) -> str:
    """Bytes as people say them."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"
