"""Expected counts of the families of a network given incomplete rows: the first half of EM."""

import math
from functools import partial

import numpy as np

from ..ancestral import flat_index
from ..exact.engine import Engine, Scope
from ..exact.reduction import not_barren
from ..exact.rows import Rows
from ..tables import Variable
from .counts import Cells, counts

Family = tuple[Variable, ...]  # a variable and its parents
CHUNK = 2**23  # cells of posteriors that are held at once


class Expectation:
    """sum over rows of p(x_i, pa_i | the row's cells), for every family, and the log-likelihood.

    Equal rows are answered once and complete ones counted beforehand. The clique tree and its
    program are made at the first call; later ones only bring other tables into it.

    Args:
        cells: the data.
        families: each variable with its parents.
    """

    def __init__(self, cells: Cells, families: list[Family]) -> None:
        names = list(cells.states)
        index = {variable: i for i, variable in enumerate(names)}
        self.sizes = [len(states) for states in cells.states.values()]
        self.scopes: list[Scope] = [tuple(index[v] for v in family) for family in families]
        self.engine: Engine | None = None
        seen = [index[v] for v in cells.codes]
        columns = np.array(list(cells.codes.values())).reshape(len(seen), cells.rows)
        # Rows of which nothing was observed say nothing.
        columns = columns[:, (columns >= 0).any(0)]
        whole = (columns >= 0).all(0) & (len(seen) == len(names))
        self.counted = [
            counts([columns[seen.index(v)][whole] for v in scope], self.shape(scope)).astype(float)
            if whole.any()
            else np.zeros(self.shape(scope))
            for scope in self.scopes
        ]
        incomplete, weights = np.unique(columns[:, ~whole], axis=1, return_counts=True)
        room = max(1, CHUNK // sum(math.prod(self.shape(scope)) for scope in self.scopes))
        self.parts: list[tuple[Rows, np.ndarray, list[tuple[Scope, Scope]]]] = []
        for start in range(0, incomplete.shape[1], room):
            part = incomplete[:, start : start + room]
            rows = Rows(dict(zip(seen, part, strict=True)), part.shape[1])
            certain = rows.everywhere()
            plan = [
                (
                    tuple(sorted(v for v in scope if v not in certain)),
                    tuple(v for v in scope if v in certain),
                )
                for scope in self.scopes
            ]
            self.parts.append((rows, weights[start : start + room].astype(float), plan))

    def shape(self, scope: Scope) -> list[int]:
        return [self.sizes[v] for v in scope]

    def __call__(self, tables: list[np.ndarray]) -> tuple[float, list[np.ndarray]]:
        """The log-likelihood of the observed cells, in nats, and the expected counts.

        Args:
            tables: p(x_i | pa_i) of each family, the variable's axis first.

        Raises:
            MemoryError: see `Engine.afford`.
        """
        if self.engine is None:
            relevant = partial(not_barren, self.scopes)
            self.engine = Engine(self.sizes, self.scopes, tables, relevant, 0, np.dtype(np.float64))
        else:
            self.engine.rebind(tables)
        total = 0.0
        found = [table.copy() for table in self.counted]
        for table, count in zip(tables, self.counted, strict=True):
            total += float((count * np.log(np.where(count > 0, table, 1.0))).sum())
        for rows, weights, plan in self.parts:
            wanted = sorted({free for free, _ in plan if free})
            log_z, posteriors = self.engine.marginals(rows, wanted)
            total += float(weights @ log_z)
            by_scope = dict(zip(wanted, posteriors, strict=True))
            for i, (free, certain) in enumerate(plan):
                share = by_scope[free] if free else np.ones((1, rows.count))
                found[i] += self._summed(self.scopes[i], free, certain, share, rows, weights)
        return total, found

    def _summed(
        self,
        scope: Scope,
        free: Scope,
        certain: Scope,
        share: np.ndarray,
        rows: Rows,
        weights: np.ndarray,
    ) -> np.ndarray:
        """Posteriors (cells of `free`, rows), summed where the `certain` variables agree."""
        if certain:
            size = math.prod(self.shape(certain))
            at = np.asarray(flat_index([rows.codes[v] for v in certain], self.shape(certain)))
            summed = np.stack([np.bincount(at, row * weights, size) for row in share])
        else:
            summed = share @ weights
        axes = free + certain
        return summed.reshape(self.shape(axes)).transpose([axes.index(v) for v in scope])
