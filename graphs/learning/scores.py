"""Scores of structures from complete data, which are sums over families (Koller and Friedman 18.3).

    log-likelihood  sum_jk N_ijk log(N_ijk / N_ij)
    BIC             that, less log(N) / 2 times the free parameters q_i (K_i - 1) (Schwarz 1978)
    AIC             that, less the free parameters
    BDeu, K2        sum_j log G(a_ij) / G(a_ij + N_ij) + sum_jk log G(a_ijk + N_ijk) / G(a_ijk)

with N_ijk the rows in which x_i is in state k and its parents in configuration j, G the gamma
function, a_ijk = S / (K_i q_i) for BDeu with the equivalent sample size S, 1 for K2, and a_ij their
sum over k. BIC, AIC and BDeu are equal for equivalent structures; K2 is not.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from ..names import unknown
from .counts import Cells

SCORES = ("bic-d", "aic-d", "bdeu", "k2")
DENSE = 4  # parents' configurations for each row; where there are more, those that occur are kept


class FamilyScores:
    """score(i, parents), counted once for each family that is asked for.

    Args:
        cells: complete data; variables are numbered in its order.
        score: one of `SCORES`, or "log-likelihood".
        equivalent_sample_size: of BDeu.

    Raises:
        ValueError: an unknown score.
    """

    def __init__(
        self, cells: Cells, score: str = "bic-d", equivalent_sample_size: float = 10.0
    ) -> None:
        if score not in (*SCORES, "log-likelihood"):
            raise ValueError(unknown("score", score, SCORES))
        self.name, self.weight = score, float(equivalent_sample_size)
        self.rows = cells.rows
        self.sizes = list(cells.sizes.values())
        self.codes = [np.ascontiguousarray(cells.codes[v], np.int64) for v in cells.states]
        n = np.arange(cells.rows + 1.0)
        self._n_log_n = n * np.log(np.maximum(n, 1.0))
        self._known: dict[tuple[int, frozenset[int]], float] = {}

    @property
    def counted(self) -> int:
        """How many families were counted so far."""
        return len(self._known)

    def __call__(self, child: int, parents: Iterable[int]) -> float:
        """The score of one family, in nats."""
        key = child, frozenset(parents)
        if key not in self._known:
            at, size = self._configurations(sorted(key[1]))
            configurations = math.prod(self.sizes[p] for p in key[1])
            cells = size * self.sizes[child]
            table = np.bincount(at * self.sizes[child] + self.codes[child], minlength=cells)
            self._known[key] = self._score(table.reshape(size, -1), configurations)
        return self._known[key]

    def with_each(self, child: int, parents: Sequence[int], others: Iterable[int]) -> list[float]:
        """The scores of the child's family with each of the others as one parent more."""
        held = frozenset(parents)
        keys = {other: (child, held | {other}) for other in others}
        new = [other for other, key in keys.items() if key not in self._known]
        if new:
            at, size = self._configurations(sorted(held))
            configurations = math.prod(self.sizes[p] for p in held)
            k = self.sizes[child]
            base = at * k + self.codes[child]
            for other in new:
                more = self.sizes[other]
                index = self.codes[other] * (size * k) + base
                table = np.bincount(index, minlength=more * size * k).reshape(-1, k)
                self._known[keys[other]] = self._score(table, configurations * more)
        return [self._known[key] for key in keys.values()]

    def _configurations(self, parents: Sequence[int]) -> tuple[np.ndarray, int]:
        """The parents' configuration of each row, and how many numbers there are for them."""
        at, size = np.zeros(self.rows, np.int64), 1
        for parent in parents:
            at, size = at * self.sizes[parent] + self.codes[parent], size * self.sizes[parent]
            if size > DENSE * self.rows:
                occurring, at = np.unique(at, return_inverse=True)
                size = len(occurring)
        return at, size

    def _score(self, table: np.ndarray, configurations: int) -> float:
        """The score of a family from N_jk; configurations without rows may be left out."""
        k = table.shape[1]
        sums = table.sum(1)
        if self.name in ("bdeu", "k2"):
            from scipy.special import gammaln

            alpha = 1.0 if self.name == "k2" else self.weight / (configurations * k)
            sums = sums[sums > 0]  # what has no rows adds nothing
            seen = table[table > 0]
            return float(
                len(sums) * gammaln(alpha * k)
                - gammaln(sums + alpha * k).sum()
                + gammaln(seen + alpha).sum()
                - len(seen) * gammaln(alpha)
            )
        fit = float(self._n_log_n[table].sum() - self._n_log_n[sums].sum())
        free = configurations * (k - 1)
        if self.name == "bic-d":
            return fit - 0.5 * math.log(self.rows) * free
        return fit - free if self.name == "aic-d" else fit
