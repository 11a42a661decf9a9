"""Exact inference in numbers: variables 0..n-1, tables, rows of evidence as state indices."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import contraction
from .clique_tree import Cost, readable
from .evidence import UNOBSERVED
from .memory import free_memory
from .propagation import Propagation
from .reduction import Reduction, Table

BATCH_CELLS = 2**17  # cells that a batch works on at once: about a second-level cache
BATCH_MERGED = 16  # in a batch the cells cost more than the calls: cliques stay small
EXPENSIVE = 2**21  # total cells from which on a query looks for a cheaper tree of its own
ALWAYS = 2**25  # bytes that are taken without a look at what is free
Scope = tuple[int, ...]


@dataclass
class Rows:
    """Evidence: state indices, -1 where unobserved, and weights of states, by variable."""

    codes: dict[int, np.ndarray]  # (count,)
    count: int = 1
    weights: dict[int, Table] = field(default_factory=dict)  # (states, count) or (states, 1)

    def everywhere(self) -> frozenset[int]:
        """The variables that are observed in every row."""
        return frozenset(v for v, codes in self.codes.items() if (codes >= 0).all())

    def at(self, rows: np.ndarray) -> "Rows":
        """Some of the rows."""
        weights = {v: t if t.shape[1] == 1 else t[:, rows] for v, t in self.weights.items()}
        return Rows({v: codes[rows] for v, codes in self.codes.items()}, len(rows), weights)

    def only(self, variables: Sequence[int]) -> "Rows":
        """The same rows with evidence on these variables alone."""
        kept = set(variables)
        return Rows(
            {v: codes for v, codes in self.codes.items() if v in kept},
            self.count,
            {v: table for v, table in self.weights.items() if v in kept},
        )


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
        self._programs: dict[int, Propagation] = {}
        self._reductions: dict[Any, Reduction] = {}
        self._units = [np.eye(k, dtype=dtype) for k in cardinalities]
        self._starts = np.cumsum([0, *cardinalities])
        self._lock = threading.Lock()

    # Which tree -----------------------------------------------------------------------------------

    def view(self, rows: Rows, wanted: Sequence[Scope], pruned: bool = True) -> Reduction:
        """The whole model, or where that costs much, what the evidence leaves of it."""
        tree = self.whole.tree
        held = tree.feasible and all(len(s) == 1 or tree.smallest_holder(s) >= 0 for s in wanted)
        if held and tree.cost.total_cells <= EXPENSIVE:
            return self.whole
        observed = rows.everywhere()
        kept = None
        gone = set(observed)
        if pruned and self.relevant is not None:
            asked = {v for scope in wanted for v in scope}
            kept = self.relevant(asked | set(rows.codes) | set(rows.weights))
            gone |= set(range(len(self.cardinalities))) - kept
        if held and self._affordable(tree.cost):
            left = sum(tree.size(v for v in axes if v not in gone) for axes in tree.axes)
            if left > 0.5 * tree.cost.total_cells:
                return self.whole
        together = tuple(scope for scope in wanted if len(scope) > 1)
        key = observed, None if kept is None else frozenset(kept), together
        if key not in self._reductions:
            if len(self._reductions) >= 16:
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

    def _program(self, batch: int) -> Propagation:
        """The whole model's program, kept for the next query."""
        if batch not in self._programs:
            view = self._for_batches() if batch > 1 else self.whole
            factors = view.factors(self.arrays, {})
            self._programs[batch] = Propagation(view.tree, factors, batch, self.dtype)
        return self._programs[batch]

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
        view = self.view(rows, wanted)
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
        kept = view is self.whole and all(len(scope) == 1 for scope in wanted)
        places = (
            np.concatenate([np.arange(self._starts[s[0]], self._starts[s[0] + 1]) for s in wanted])
            if kept and len(wanted) < len(self.cardinalities) and wanted
            else slice(None)
        )
        found: list[np.ndarray] = []
        log_z = np.empty(rows.count)
        low = np.zeros(rows.count, bool)
        floor = 1e-200 if self.dtype == np.float64 else 1e-25
        with self._lock:
            for start in range(0, rows.count, batch):
                stop = min(start + batch, rows.count)
                # The last batch is filled up with copies of its last row.
                part = rows
                if rows.count != batch:
                    part = rows.at(np.minimum(np.arange(start, start + batch), rows.count - 1))
                if kept:
                    program = self._program(batch)
                else:
                    factors = view.factors(self.arrays, part.codes)
                    asked = [local for _, local in inside]
                    program = Propagation(view.tree, factors, batch, self.dtype, asked)
                weights = self._weights(view, part)
                log_z[start:stop] = program.collect(weights)[: stop - start]
                low[start:stop] = program.scales.min(0, initial=1.0)[: stop - start] < floor
                if wanted:
                    found.append(program.distribute()[places, : stop - start].copy())
        tables = np.concatenate(found, 1) if found else np.empty((0, rows.count))
        order = list(wanted) if kept else [scope for scope, _ in inside]
        ends = np.cumsum([0, *(self.size(scope) for scope in order)])
        answers = {s: tables[a:b] for s, a, b in zip(order, ends[:-1], ends[1:], strict=True)}
        log_z += self._constants(view, rows)
        results = [
            answers[scope] if scope in answers else np.empty((self.size(scope), rows.count))
            for scope in wanted
        ]
        self._repair(rows, wanted, log_z, results, low)
        return log_z, results

    def size(self, scope: Scope) -> int:
        size = 1
        for v in scope:
            size *= self.cardinalities[v]
        return size

    def _weights(self, view: Reduction, rows: Rows) -> dict[int, np.ndarray]:
        """By variable of the view, what multiplies its states in each row."""
        found: dict[int, np.ndarray] = {}
        for v, codes in rows.codes.items():
            at = view.local.get(v)
            if at is None:
                continue
            if len(codes) == 1:
                if codes[0] >= 0:
                    found[at] = self._units[v][:, codes[0] : codes[0] + 1]
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
                column = np.arange(rows.count) if table.shape[1] > 1 else 0
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
                better = self.by_gradients(rows.at(again), wanted, logarithms=True)
                log_z[again] = better[0].detach().numpy()
                for table, found in zip(results, better[1], strict=True):
                    table[:, again] = found.detach().numpy()
        self._certain(rows, wanted, results)
        log_z[impossible] = -np.inf
        for table in results:
            table[:, impossible] = np.nan

    def possible(self, rows: Rows) -> np.ndarray:
        """Whether the evidence of each row has any probability, by supports alone."""
        view = self.view(rows, ())
        self.afford(view.tree.cost, 0.25)
        answer = np.empty(rows.count, bool)
        for part in self._parts(view, rows, 8 * BATCH_CELLS):
            some = rows.at(part)
            factors = self._entering(view, some)
            answer[part] = contraction.possible(view.tree, factors)
            finite = np.isfinite(np.zeros(len(part)) + self._constants(view, some))
            answer[part] = np.logical_and(answer[part], finite)
        return answer

    def _parts(self, view: Reduction, rows: Rows, cells: int) -> list[np.ndarray]:
        """The rows, in batches that make at most so many cells."""
        size = max(1, cells // max(view.tree.cost.total_cells, 1))
        return [np.arange(i, min(i + size, rows.count)) for i in range(0, rows.count, size)]

    def _entering(self, view: Reduction, rows: Rows) -> list[tuple[Scope, np.ndarray]]:
        """Factors and evidence, as `contraction.collect` takes them."""
        factors = view.factors(self.arrays, rows.codes)
        return factors + [((v,), table) for v, table in self._weights(view, rows).items()]

    def by_gradients(
        self,
        rows: Rows,
        wanted: Sequence[Scope],
        *,
        tables: Mapping[int, Any] | None = None,
        logarithms: bool = False,
        device: str = "cpu",
    ) -> tuple[Any, list[Any]]:
        """As `marginals`, as tensors: on any device, and with gradients where anything has them."""
        import torch

        tables = tables or {}
        view = self.view(rows, wanted, pruned=not tables)
        self.afford(view.tree.cost, 4.0)
        arrays = [
            tables[f] if f in tables else torch.as_tensor(array, device=device)
            for f, array in enumerate(self.arrays)
        ]
        weights = {v: torch.as_tensor(table, device=device) for v, table in rows.weights.items()}
        learned = [t for t in [*tables.values(), *weights.values()] if t.requires_grad]
        inside = [tuple(view.local[v] for v in scope if v in view.local) for scope in wanted]
        asked = [scope for scope in dict.fromkeys(inside) if scope]
        pieces = []
        for part in self._parts(view, rows, 32 * BATCH_CELLS):
            some = Rows(rows.codes, rows.count).at(part)
            factors = view.factors(arrays, some.codes)
            factors += [
                ((v,), torch.as_tensor(table, device=device))
                for v, table in self._weights(view, some).items()
            ]
            for v, table in weights.items():
                table = table if table.shape[1] == 1 else table[:, part]
                if v in view.local:
                    factors.append(((view.local[v],), table))
                else:
                    codes = torch.as_tensor(rows.codes[v][part], device=device)
                    factors.append(((), table.expand(-1, len(part)).gather(0, codes[None])[0]))
            pieces.append(
                contraction.marginals(
                    view.tree,
                    factors,
                    asked,
                    len(part),
                    logarithms=logarithms,
                    differentiable=bool(learned),
                )
            )
        log_z = torch.cat([z for z, _ in pieces])
        found = {
            scope: torch.cat([tables[i].reshape(-1, len(z)) for z, tables in pieces], 1)
            for i, scope in enumerate(asked)
        }
        results = []
        for scope, local in zip(wanted, inside, strict=True):
            if local:
                results.append(self._filled(found[local], log_z))
            else:
                codes = torch.as_tensor(rows.codes[scope[0]], device=device)
                hot = torch.nn.functional.one_hot(codes, self.cardinalities[scope[0]])
                results.append(self._filled(hot.T.to(log_z.dtype), log_z))
        return log_z, results

    def _filled(self, table: Any, log_z: Any) -> Any:
        return table.where(log_z.detach() > -np.inf, table.new_tensor(np.nan))

    # Assignments ----------------------------------------------------------------------------------

    def most_probable(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """The states that maximise the product, (variables, rows), and the log of the maximum."""
        view = self.view(rows, (), pruned=False)
        self.afford(view.tree.cost, 2.0)
        states = np.empty((len(self.cardinalities), rows.count), np.int64)
        value = np.empty(rows.count)
        for part in self._parts(view, rows, 4 * BATCH_CELLS):
            some = rows.at(part)
            factors = self._entering(view, some)
            found, value[part] = contraction.most_probable(view.tree, factors, len(part))
            value[part] += self._constants(view, some)
            for v in range(len(states)):
                at = view.local.get(v)
                states[v, part] = some.codes[v] if at is None else found[at]
        return states, value

    def draw(self, n: int, rows: Rows, rng: np.random.Generator) -> np.ndarray:
        """n draws of all variables given one possible row of evidence: (variables, n)."""
        view = self.view(rows, (), pruned=False)
        self.afford(view.tree.cost, 2.0)
        found = contraction.draw(view.tree, self._entering(view, rows), n, rng)
        states = np.empty((len(self.cardinalities), n), np.int64)
        for v in range(len(states)):
            at = view.local.get(v)
            states[v] = rows.codes[v] if at is None else found[at]
        return states


def observed(rows: Rows) -> list[int]:
    """The variables of which a single row says anything."""
    return [
        v
        for v in {**rows.codes, **rows.weights}
        if v in rows.weights or rows.codes[v][0] != UNOBSERVED
    ]
