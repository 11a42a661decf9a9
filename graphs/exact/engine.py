"""Exact inference in numbers: variables 0..n-1, tables, rows of evidence as state indices."""

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from . import contraction
from .clique_tree import TRIAL, Cost, readable
from .groups import ancestral_groups
from .memory import free_memory
from .propagation import Propagation
from .reduction import Reduction
from .rows import Rows, unit

BATCH_CELLS = 2**17  # cells that a batch works on at once: about a second-level cache
BATCH_MERGED = 16  # in a batch the cells cost more than the calls: cliques stay small
EXPENSIVE = 2**21  # total cells from which on a query looks for a cheaper tree of its own
REDUCTIONS = 128  # trees that an expensive model keeps for the next queries
ALWAYS = 2**25  # bytes that are taken without a look at what is free
Scope = tuple[int, ...]


class Engine:
    """Clique trees, programs and memory of one model.

    Args:
        cardinalities: states of each variable.
        scopes: the variables of each factor.
        arrays: each factor's table, axes in the scope's order.
        relevant: for a Bayesian network, which factors bear on some variables; else None.
        seed: of the search for elimination orders.
    """

    def __init__(
        self,
        cardinalities: Sequence[int],
        scopes: Sequence[Scope],
        arrays: Sequence[np.ndarray],
        relevant: Callable[[set[int]], set[int]] | None,
        seed: int,
        dtype: np.dtype,
    ) -> None:
        self.cardinalities, self.scopes, self.arrays = list(cardinalities), list(scopes), arrays
        self.relevant, self.seed, self.dtype = relevant, seed, dtype
        self.whole = Reduction(cardinalities, scopes, seed=seed)
        self._batched: Reduction | None = None
        self._programs: dict[tuple[int, tuple[Scope, ...]], Propagation] = {}
        self._reductions: dict[Any, Reduction] = {}
        self._grouped: dict[Any, list[list[Scope]]] = {}
        self._starts = np.cumsum([0, *cardinalities])
        self._lock = threading.Lock()

    # Which tree -----------------------------------------------------------------------------------

    def view(self, rows: Rows, wanted: Sequence[Scope], pruned: bool = True) -> Reduction:
        """The whole model, or where that costs much, what the evidence leaves of it."""
        tree = self.whole.tree
        held = tree.feasible and all(len(s) == 1 or tree.smallest_holder(s) >= 0 for s in wanted)
        if held and tree.cost.total_cells <= EXPENSIVE:
            return self.whole
        observed, kept = rows.everywhere(), self._kept(rows, wanted, pruned)
        gone = set(observed)
        if kept is not None:
            gone |= set(range(len(self.cardinalities))) - kept
        if not gone and all(len(scope) == 1 for scope in wanted):
            return self.whole  # nothing falls away
        if held and self._affordable(tree.cost):
            left = sum(tree.size(v for v in axes if v not in gone) for axes in tree.axes)
            if left > 0.5 * tree.cost.total_cells:
                return self.whole
        return self._reduced(rows, wanted, kept)

    def _kept(self, rows: Rows, wanted: Sequence[Scope], pruned: bool = True) -> set[int] | None:
        """The factors that are not barren; None where all are kept."""
        if not pruned or self.relevant is None:
            return None
        asked = {v for scope in wanted for v in scope}
        return self.relevant(asked | set(rows.codes) | set(rows.weights))

    def _reduced(self, rows: Rows, wanted: Sequence[Scope], kept: set[int] | None) -> Reduction:
        """What is left of the model, kept for the next query with evidence on these variables."""
        observed = rows.everywhere()
        together = tuple(scope for scope in wanted if len(scope) > 1)
        key = observed, None if kept is None else frozenset(kept), together
        with self._lock:
            if key not in self._reductions:
                if len(self._reductions) >= REDUCTIONS:
                    del self._reductions[next(iter(self._reductions))]
                self._reductions[key] = Reduction(
                    self.cardinalities,
                    self.scopes,
                    observed=observed,
                    kept=kept,
                    wanted=wanted,
                    seed=self.seed,
                )
            return self._reductions[key]

    def afford(self, cost: Cost, copies: float = 1.0) -> None:
        """Refuse tables that the free memory does not hold.

        Raises:
            MemoryError: with the sizes, and what to use instead.
        """
        if not self._affordable(cost, copies):
            raise MemoryError(
                f"exact inference would need {'more than ' if cost.at_least else ''}"
                f"{readable(copies * cost.bytes)} with {readable(free_memory())} free (largest "
                f"table {cost.largest_table:,} cells, width {cost.width}); observe more variables "
                "or ask for fewer targets, or use likelihood_weighting or gibbs, which sample"
            )

    def _affordable(self, cost: Cost, copies: float = 1.0) -> bool:
        if cost.at_least:
            return False
        return copies * cost.bytes < ALWAYS or copies * cost.bytes <= free_memory()

    def _program(self, batch: int, joint: tuple[Scope, ...] = ()) -> Propagation:
        """The whole model's program, kept for the next query; for all variables by default."""
        key = batch, joint
        if key not in self._programs:
            several = [other for other in self._programs if other[1]]
            if joint and len(several) >= 4:
                del self._programs[several[0]]
            view = self._compiled(batch, joint)
            factors = view.factors(self.arrays, {})
            self._programs[key] = Propagation(view.tree, factors, batch, self.dtype, joint or None)
        return self._programs[key]

    def _bound(self, view: Reduction, rows: Rows, asked: list[Scope]) -> Propagation:
        """The program of what evidence has left, with the tables at the observed states."""
        factors = view.factors(self.arrays, rows.codes)
        key = rows.count, tuple(asked)
        program = view.programs.get(key)
        if program is None:
            program = Propagation(view.tree, factors, rows.count, self.dtype, asked)
            # Larger ones are not kept: their memory would stay taken.
            if rows.count * view.tree.cost.total_cells <= EXPENSIVE // 8:
                view.programs = {key: program}
        else:
            program.rebind(factors)
        return program

    def _groups(self, rows: Rows, wanted: Sequence[Scope]) -> list[list[Scope]]:
        """Targets that are answered together: all of them, unless parts are much cheaper."""
        together = [list(wanted)]
        whole = self.whole.tree.cost
        cheap = not whole.at_least and whole.total_cells <= EXPENSIVE
        if cheap or self.relevant is None or any(len(scope) > 1 for scope in wanted):
            return together
        known = frozenset(rows.codes) | frozenset(rows.weights)
        key = rows.everywhere(), known, tuple(wanted)
        if key not in self._grouped:
            view = self.view(rows, wanted)
            cost, groups = view.tree.cost, together
            if cost.at_least or cost.total_cells > EXPENSIVE:
                probes, budget = 200, np.inf
                if self._affordable(cost):
                    budget = 0.5 * cost.total_cells
                    probes = int(2 * cost.total_cells / (TRIAL * max(len(view.variables), 1)))
                found = ancestral_groups(
                    [v for (v,) in wanted],
                    known,
                    self.relevant,
                    lambda kept: self._probe(kept, key[0]),
                    EXPENSIVE,
                    budget,
                    probes,
                )
                groups = [[(v,) for v in group] for group in found]
            with self._lock:
                if len(self._grouped) >= REDUCTIONS:
                    self._grouped.clear()
                self._grouped[key] = groups
            return groups
        return self._grouped[key]

    def _probe(self, kept: set[int], observed: frozenset[int]) -> float:
        """Cells of what is left, by a short search."""
        short = Reduction(self.cardinalities, self.scopes, observed=observed, kept=kept, trials=1)
        return short.tree.cost.total_cells

    def rebind(self, arrays: Sequence[np.ndarray]) -> None:
        """Other tables of the same shapes; all that was compiled for the structure stays.

        Those of a Bayesian network stay normalised: what is barren is left out.
        """
        with self._lock:
            self.arrays = arrays
            for key, program in self._programs.items():
                program.rebind(self._compiled(*key).factors(arrays, {}))

    def _compiled(self, batch: int, joint: tuple[Scope, ...]) -> Reduction:
        """The tree of a program: batches take one of smaller cliques, if it holds what is asked."""
        if batch == 1:
            return self.whole
        view = self._for_batches()
        held = all(view.tree.smallest_holder(scope) >= 0 for scope in joint)
        return view if held else self.whole

    def _for_batches(self) -> Reduction:
        if self._batched is None:
            self._batched = Reduction(
                self.cardinalities,
                self.scopes,
                merged=BATCH_MERGED,
                steps=self.whole.tree.steps,
            )
        return self._batched

    # Marginals by messages ------------------------------------------------------------------------

    def marginals(self, rows: Rows, wanted: Sequence[Scope]) -> tuple[np.ndarray, list[np.ndarray]]:
        """log Z of each row, and for each wanted scope its table (cells, rows).

        Impossible rows have log Z = -inf and nan in their tables.

        Raises:
            MemoryError: see `afford`.
        """
        groups = self._groups(rows, wanted)
        if len(groups) > 1:
            shared: dict[Scope, np.ndarray] = {}
            for group in groups:
                view = self._reduced(rows, group, self._kept(rows, group))
                total, parts = self._answer(view, rows, group)
                shared.update(zip(group, parts, strict=True))
            return total, [shared[scope] for scope in wanted]
        return self._answer(self.view(rows, wanted), rows, wanted)

    def _answer(
        self, view: Reduction, rows: Rows, wanted: Sequence[Scope]
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """`marginals` by one tree."""
        self.afford(view.tree.cost)
        fill = BATCH_CELLS // max(view.tree.cost.total_cells, 1)
        batch = (
            1 if fill < 8 or rows.count == 1 else min(fill, 256, 1 << (rows.count - 1).bit_length())
        )
        inside = [
            (scope, tuple(view.local[v] for v in scope))
            for scope in wanted
            if all(v in view.local for v in scope)
        ]
        kept = view is self.whole
        joint = tuple(wanted) if any(len(scope) > 1 for scope in wanted) else ()
        places = (
            np.concatenate([np.arange(self._starts[s[0]], self._starts[s[0] + 1]) for s in wanted])
            if kept and not joint and 0 < len(wanted) < len(self.cardinalities)
            else slice(None)
        )
        found: list[np.ndarray] = []
        log_z = np.empty(rows.count)
        low = np.zeros(rows.count, bool)
        rows, log_top = unit(rows)
        with self._lock:
            for start in range(0, rows.count, batch):
                stop = min(start + batch, rows.count)
                # The last batch is filled up with copies of its last row.
                part = rows
                if rows.count != batch:
                    part = rows.at(np.minimum(np.arange(start, start + batch), rows.count - 1))
                if kept:
                    program = self._program(batch, joint)
                else:
                    program = self._bound(view, part, [local for _, local in inside])
                weights = self.weights(view, part)
                log_z[start:stop] = program.collect(weights)[: stop - start]
                low[start:stop] = program.doubtful()[: stop - start]
                if wanted:
                    found.append(program.distribute()[places, : stop - start].copy())
        order = list(wanted) if kept else [scope for scope, _ in inside]
        ends = np.cumsum([0, *(self.size(scope) for scope in order)])
        tables = np.concatenate(found, 1) if found else np.empty((ends[-1], rows.count))
        answers = {s: tables[a:b] for s, a, b in zip(order, ends[:-1], ends[1:], strict=True)}
        log_z += self._constants(view, rows)
        results = [
            answers[scope] if scope in answers else np.empty((self.size(scope), rows.count))
            for scope in wanted
        ]
        self._repair(view, rows, wanted, log_z, results, low)
        return log_z + log_top, results

    def size(self, scope: Scope) -> int:
        return math.prod(self.cardinalities[v] for v in scope)

    def weights(self, view: Reduction, rows: Rows) -> dict[int, np.ndarray]:
        """By variable of the view, what multiplies its states in each row."""
        found: dict[int, np.ndarray] = {}
        for v, codes in rows.codes.items():
            at = view.local.get(v)
            if at is None:
                continue
            if len(codes) == 1:
                if codes[0] >= 0:
                    found[at] = np.zeros((self.cardinalities[v], 1), self.dtype)
                    found[at][codes[0]] = 1.0
                continue
            table = np.equal(np.arange(self.cardinalities[v])[:, None], codes)
            table |= codes < 0
            found[at] = table.astype(self.dtype)
        for v, table in rows.weights.items():
            at = view.local.get(v)
            if at is not None:
                found[at] = found[at] * table if at in found else table
        return found

    def _constants(self, view: Reduction, rows: Rows) -> Any:
        """The logarithms of weights at variables that the view has sliced away."""
        total: Any = 0.0
        for v, table in rows.weights.items():
            if v not in view.local:
                codes = rows.codes[v]
                column = np.arange(rows.count) if table.shape[1] != 1 else 0
                with np.errstate(divide="ignore"):
                    total = total + np.log(np.asarray(table, np.float64)[codes, column])
        return total

    def _certain(self, rows: Rows, wanted: Sequence[Scope], results: list[np.ndarray]) -> None:
        """Make the marginals of observed variables exactly one-hot."""
        for scope, table in zip(wanted, results, strict=True):
            codes = rows.codes.get(scope[0]) if len(scope) == 1 else None
            if codes is not None:
                seen = np.flatnonzero(codes >= 0)
                table[:, seen] = 0.0
                table[codes[seen], seen] = 1.0

    # Where linear numbers do not do ---------------------------------------------------------------

    def _repair(
        self,
        view: Reduction,
        rows: Rows,
        wanted: Sequence[Scope],
        log_z: np.ndarray,
        results: list[np.ndarray],
        low: np.ndarray,
    ) -> None:
        """Decide by supports what is impossible; redo in logarithms what underflowed."""
        doubtful = np.flatnonzero(low | ~np.isfinite(log_z))
        impossible = doubtful[:0]
        if len(doubtful):
            possible = self.possible(rows.at(doubtful))
            impossible, again = doubtful[~possible], doubtful[possible]
            if len(again):
                from .differentiation import by_gradients

                # The same tree: fewer rows may observe more variables everywhere.
                better = by_gradients(self, rows.at(again), wanted, logarithms=True, view=view)
                log_z[again] = better[0].detach().numpy()
                for table, found in zip(results, better[1], strict=True):
                    table[:, again] = found.detach().numpy()
        self._certain(rows, wanted, results)
        log_z[impossible] = -np.inf
        for table in results:
            table[:, impossible] = np.nan

    def possible(self, rows: Rows, tables: Mapping[int, np.ndarray] | None = None) -> np.ndarray:
        """Whether the evidence of each row has any probability, by supports alone."""
        view = self.view(rows, (), pruned=not tables)
        self.afford(view.tree.cost, 0.25)
        answer = np.empty(rows.count, bool)
        for part in self._parts(view, rows, 8 * BATCH_CELLS):
            some = rows.at(part)
            factors = self._entering(view, some, tables)
            answer[part] = contraction.possible(view.tree, factors)
            finite = np.isfinite(np.zeros(len(part)) + self._constants(view, some))
            answer[part] = np.logical_and(answer[part], finite)
        return answer

    def _parts(self, view: Reduction, rows: Rows, cells: int) -> list[np.ndarray]:
        """The rows, in batches that make at most so many cells."""
        size = max(1, cells // max(view.tree.cost.total_cells, 1))
        return [np.arange(i, min(i + size, rows.count)) for i in range(0, rows.count, size)]

    def _entering(
        self, view: Reduction, rows: Rows, tables: Mapping[int, np.ndarray] | None
    ) -> list[tuple[Scope, np.ndarray]]:
        """Factors, or tables in their place, and evidence, as `contraction.collect` takes them."""
        arrays = [(tables or {}).get(f, array) for f, array in enumerate(self.arrays)]
        factors = view.factors(arrays, rows.codes)
        return factors + [((v,), table) for v, table in self.weights(view, rows).items()]

    # Assignments ----------------------------------------------------------------------------------

    def most_probable(
        self, rows: Rows, tables: Mapping[int, np.ndarray] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The states that maximise the product, (variables, rows), and the log of the maximum."""
        view = self.view(rows, (), pruned=False)
        self.afford(view.tree.cost, 2.0)
        states = np.empty((len(self.cardinalities), rows.count), np.int64)
        value = np.empty(rows.count)
        for part in self._parts(view, rows, 4 * BATCH_CELLS):
            some = rows.at(part)
            factors = self._entering(view, some, tables)
            found, value[part] = contraction.most_probable(view.tree, factors, len(part))
            value[part] += self._constants(view, some)
            for v in range(len(states)):
                at = view.local.get(v)
                states[v, part] = some.codes[v] if at is None else found[at]
        return states, value

    def draw(
        self,
        n: int,
        rows: Rows,
        rng: np.random.Generator,
        tables: Mapping[int, np.ndarray] | None = None,
    ) -> np.ndarray:
        """n draws of all variables given one possible row of evidence: (variables, n)."""
        view = self.view(rows, (), pruned=False)
        self.afford(view.tree.cost, 2.0)
        found = contraction.draw(view.tree, self._entering(view, rows, tables), n, rng)
        states = np.empty((len(self.cardinalities), n), np.int64)
        for v in range(len(states)):
            at = view.local.get(v)
            states[v] = rows.codes[v] if at is None else found[at]
        return states
