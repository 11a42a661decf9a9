"""The pseudo-likelihood of rows: what each variable has given all others, without a partition
function."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from ..exact.memory import free_memory

ROOM = 2**62  # configurations that one integer can number


class PseudoLikelihood:
    """-sum over rows and variables of log p(x_i | x_-i), and its derivatives.

    p(x_i | x_-i) depends on the neighbours of i alone,

        log p(x_i | x_-i) = a_i(x_i) - log sum_k exp a_i(k),
        a_i(k) = sum over the factors f of i of log psi_f(k, x_f without i),

    so rows in which they agree are counted once. All a_i(k) are one product of a sparse matrix of
    zeros and ones with the vector of log-potentials.

    Args:
        columns: (variables, rows) state indices.
        weights: (rows,) how often each row occurs.
        sizes: states of each variable.
        places: the variables of each factor.
        starts: where each factor's table starts in the vector of cells; tied ones start together.
        cells: the length of that vector.

    Raises:
        MemoryError: more configurations of neighbours than fit into the free memory.

    Source: Besag, "Statistical analysis of non-lattice data" (1975).
    """

    def __init__(
        self,
        columns: np.ndarray,
        weights: np.ndarray,
        sizes: Sequence[int],
        places: Sequence[tuple[int, ...]],
        starts: Sequence[int],
        cells: int,
    ) -> None:
        touching: list[list[int]] = [[] for _ in sizes]
        for factor, place in enumerate(places):
            for v in place:
                touching[v].append(factor)
        room = free_memory() // 32  # an entry takes 12 bytes, and as much again when it is joined
        entries: list[np.ndarray] = [np.zeros(0, np.int64)]
        lengths: list[np.ndarray] = [np.zeros(0, np.int64)]  # entries of each row of the matrix
        counted: list[np.ndarray] = [np.zeros(0)]
        states: list[np.ndarray] = [np.zeros(0, np.int64)]
        for v, factors in enumerate(touching):
            size = sizes[v]
            if size == 1:
                continue  # certain, whatever the others are
            around = sorted({u for f in factors for u in places[f] if u != v})
            near = [columns[u] for u in around]
            first, of_row = _distinct(near, [sizes[u] for u in around], columns.shape[1])
            configurations = len(first)
            room -= configurations * size * len(factors)
            if room < 0:
                raise MemoryError(
                    f"the pseudo-likelihood of {columns.shape[1]:,} different rows over "
                    f"{len(sizes):,} variables takes more memory than is free; use fewer rows, or "
                    "factors that are smaller or fewer"
                )
            index = np.empty((configurations, size, len(factors)), np.int64)
            for axis, f in enumerate(factors):
                at = np.full(configurations, starts[f], np.int64)
                stride, step = 1, 1
                for u in reversed(places[f]):
                    if u == v:
                        step = stride
                    else:
                        at += stride * columns[u][first]
                    stride *= sizes[u]
                index[:, :, axis] = at[:, None] + step * np.arange(size)
            entries.append(index.ravel())
            lengths.append(np.full(configurations * size, len(factors)))
            counted.append(np.bincount(size * of_row + columns[v], weights, configurations * size))
            states.append(np.full(configurations, size))
        ends = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
        joined = np.concatenate(entries)
        self._matrix = csr_array((np.ones(len(joined)), joined, ends), shape=(len(ends) - 1, cells))
        self._counts = np.concatenate(counted)
        self._seen = np.flatnonzero(self._counts)
        self._states = np.concatenate(states)  # of the variable of each configuration
        self._starts = np.concatenate([[0], np.cumsum(self._states)[:-1]]).astype(np.int64)

    def __call__(self, cells: np.ndarray) -> tuple[float, np.ndarray]:
        """The value in nats, over all rows, and the derivative by each log-potential."""
        if not len(self._counts):
            return 0.0, np.zeros(len(cells))
        scores = self._matrix @ cells
        # What occurs is possible, so each maximum is finite.
        top = np.maximum.reduceat(scores, self._starts)
        shares = np.exp(scores - np.repeat(top, self._states))
        sums = np.add.reduceat(shares, self._starts)
        rows = np.add.reduceat(self._counts, self._starts)
        value = rows @ (np.log(sums) + top) - self._counts[self._seen] @ scores[self._seen]
        shares *= np.repeat(rows / sums, self._states)
        return float(value), self._matrix.T @ (shares - self._counts)


def _distinct(
    columns: Sequence[np.ndarray], sizes: Sequence[int], rows: int
) -> tuple[np.ndarray, np.ndarray]:
    """A row of each different combination of states, and the number of the one in each row."""
    code, span = np.zeros(rows, np.int64), 1
    for column, size in zip(columns, sizes, strict=True):
        if span * size > ROOM:  # number anew what occurs
            occurring, code = np.unique(code, return_inverse=True)
            span = len(occurring)
        code = code * size + column
        span *= size
    _, first, of_row = np.unique(code, return_index=True, return_inverse=True)
    return first, of_row
