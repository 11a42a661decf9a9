"""The numbers of a Markov chain: linear systems solved without subtraction, powers, periods.

Systems are solved by censoring. Leaving out state k turns a chain into the one that is watched only
while it is elsewhere:

    A[i, j] <- A[i, j] + A[i, k] A[k, j] / s_k,    s_k = sum of A[k, j] over j other than k,

where s_k = 1 - A[k, k] is summed, not subtracted (Grassmann, Taksar and Heyman 1985). With no
subtraction there is no cancellation: each entry of an answer has a small relative error, however
rarely the chain crosses between its parts (O'Cinneide 1993). The arrays hold float64, or fractions
as objects, for which the same steps are exact.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import numpy as np

FEW = 10  # paths that are walked one after the other


def balanced(transitions: np.ndarray) -> np.ndarray:
    """The distribution pi with pi A = pi of an irreducible matrix A, (k, k) to (k,)."""
    moves, size = transitions.copy(), len(transitions)
    none = zeros(size, moves.dtype)
    leaves = _censor(moves, none.copy(), none.copy())
    if moves.dtype.hasobject:
        weights = none + 1
        for k in range(1, size):
            weights[k] = weights[:k] @ moves[:k, k] / leaves[k]
        return weights / weights.sum()
    # Probabilities may fall below 1e-308 and rise again on the way: powers of two are kept apart.
    weights, powers = np.ones(size), np.zeros(size, dtype=np.int64)
    for k in range(1, size):
        before = np.flatnonzero(moves[:k, k])
        top = powers[before].max()
        scaled = np.ldexp(weights[before], powers[before] - top)
        weights[k], power = np.frexp(scaled @ moves[before, k] / leaves[k])
        powers[k] = top + power
    weights = np.ldexp(weights, powers - powers.max())
    return weights / weights.sum()


def expected(transitions: np.ndarray, leak: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """The solution of x = Q x + gain, the gain collected until the chain leaves for good.

    Args:
        transitions: Q, (k, k), among states that the chain surely leaves.
        leak: (k,), the probability of leaving in one step: with the row of Q it sums to one.
        gain: (k,), not negative.

    Raises:
        OverflowError: more than float64 holds.
    """
    moves, found = transitions.copy(), gain.copy()
    with np.errstate(over="ignore"):  # told below
        leaves = _censor(moves, leak.copy(), found)
        for k in range(len(moves)):
            before = np.flatnonzero(moves[k, :k])
            found[k] = (found[k] + moves[k, before] @ found[before]) / leaves[k]
    if not found.dtype.hasobject and not np.isfinite(found).all():
        raise OverflowError(
            "an expected number of steps exceeds 1.8e308, the largest float64; give the matrix as "
            "fractions"
        )
    return found


def _censor(moves: np.ndarray, leak: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Leave out the states, last to first, in place; s_k of each when its turn came."""
    leaves = zeros(len(moves), moves.dtype)
    for k in reversed(range(len(moves))):
        leaves[k] = moves[k, :k].sum() + leak[k]
        rows, columns = np.flatnonzero(moves[:k, k]), np.flatnonzero(moves[k, :k])
        if not len(rows):
            continue
        if 4 * len(rows) * len(columns) > k * k:  # not sparse: slices are faster than lists
            moves[:k, :k] += np.multiply.outer(moves[:k, k], moves[k, :k] / leaves[k])
        else:
            onward = np.multiply.outer(moves[rows, k], moves[k, columns] / leaves[k])
            moves[np.ix_(rows, columns)] += onward
        leak[rows] += moves[rows, k] * (leak[k] / leaves[k])
        gain[rows] += moves[rows, k] * (gain[k] / leaves[k])
    return leaves


def zeros(size: int, dtype: Any) -> np.ndarray:
    """Zeros in float64 or, as objects, fractions."""
    return np.full(size, Fraction(0) if np.dtype(dtype).hasobject else 0.0, dtype=dtype)


def objects(values: Iterable[Any]) -> np.ndarray:
    """An array of whatever the values are, be they tuples."""
    kept = list(values)
    found = np.empty(len(kept), dtype=object)
    for i, value in enumerate(kept):
        found[i] = value
    return found


def hitting(transitions: np.ndarray, goal: np.ndarray, times: bool) -> np.ndarray:
    """Expected steps until the goal (k,) is reached, or else the probability that it ever is."""
    moves = transitions > 0
    lost = ~leads(moves, goal, goal)
    sure = ~leads(moves, lost, goal)
    inner = sure & ~goal if times else ~sure & ~lost  # what neither is known nor infinite
    found = zeros(len(goal), transitions.dtype)
    if times:
        found[~sure] = math.inf
    else:
        found[sure] = found[sure] + 1
    into = transitions[np.ix_(inner, sure)].sum(1)  # (k,)
    found[inner] = expected(
        transitions[np.ix_(inner, inner)],
        transitions[np.ix_(inner, ~inner)].sum(1),
        zeros(len(into), into.dtype) + 1 if times else into,
    )
    return found


def leads(moves: np.ndarray, goal: np.ndarray, ended: np.ndarray) -> np.ndarray:
    """Which states lead to the goal (k,), in no step or more, by moves (k, k) between states; from
    one where the chain has `ended` (k,) no move counts."""
    found, latest = goal.copy(), np.flatnonzero(goal)
    while len(latest):
        new = moves[:, latest].any(1) & ~found & ~ended
        found |= new
        latest = np.flatnonzero(new)
    return found


def period(moves: np.ndarray) -> int:
    """The period of a communicating class with the given moves, (k, k); 0 where it has none.

    Every move from i to j adds level_i + 1 - level_j to what the period divides, where levels are
    the distances from one state (Denardo 1977).
    """
    levels = np.full(len(moves), -1)
    latest, level = np.array([0]), 0
    while len(latest):
        levels[latest] = level
        latest = np.flatnonzero(moves[latest].any(0) & (levels < 0))
        level += 1
    tails, heads = np.nonzero(moves)
    return int(np.gcd.reduce(abs(levels[tails] + 1 - levels[heads])))


def normalised(rows: np.ndarray) -> np.ndarray:
    """Rows that sum to one again: what rounding takes from one step would grow with the steps."""
    return rows / rows.sum(-1, keepdims=True)


def first_close(matrix: np.ndarray, pi: np.ndarray, epsilon: float) -> int:
    """The least t with sum_j |A^t(i, j) - pi_j| / 2 <= epsilon for every i, up to rounding.

    The distance never rises with t, and must tend to 0: t is found by doubling, then bisection.

    Raises:
        ValueError: the powers of A, as computed, come to rest without coming so close.
    """

    def far(power: np.ndarray) -> bool:
        return bool((abs(power - pi).sum(1) / 2).max() > epsilon * (1 + 1e-13))

    reached, t = np.eye(len(pi)), 0  # A^t
    if not far(reached):
        return 0
    powers = [matrix]
    while far(powers[-1]):
        powers.append(normalised(powers[-1] @ powers[-1]))
        if (abs(powers[-1] - powers[-2]) <= 1e-13 * powers[-2]).all():
            raise ValueError(f"rounding keeps the powers of A further than {epsilon:g} from pi")
    for j in reversed(range(len(powers) - 1)):
        further = normalised(reached @ powers[j])
        if far(further):
            reached, t = further, t + 2**j
    return t + 1


def walks(first: np.ndarray, matrix: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Paths of state indices, (n + 1, paths), from uniform numbers in [0, 1) of that shape.

    Args:
        first: (k,), the distribution of the first state.
        matrix: (k, k), the transition probabilities.
    """
    steps = np.empty(u.shape, dtype=np.intp)
    steps[0] = np.searchsorted(_cumulated(first[None])[0], u[0], side="right")
    sums = _cumulated(matrix)
    if u.shape[1] <= FEW:  # plain Python is faster than arrays of a few numbers, and draws the same
        rows = sums.tolist()
        for path in range(u.shape[1]):
            walk = [int(steps[0, path])]
            for uniform in u[1:, path].tolist():
                walk.append(bisect_right(rows[walk[-1]], uniform))
            steps[:, path] = walk
        return steps
    for t in range(1, len(u)):
        steps[t] = _drawn(sums, steps[t - 1], u[t])
    return steps


def _cumulated(rows: np.ndarray) -> np.ndarray:
    """Cumulated probabilities, (n, k): u draws the state of the first sum above it.

    They reach one at the last state that has any probability, whatever rounding makes of the sum,
    so that no u draws a state of probability zero.
    """
    sums = rows.cumsum(1)
    last = rows.shape[1] - 1 - np.argmax(rows[:, ::-1] > 0, 1)
    return np.where(np.arange(rows.shape[1]) >= last[:, None], 1.0, sums)


def _drawn(sums: np.ndarray, at: np.ndarray, u: np.ndarray) -> np.ndarray:
    """How many of the sums in row `at` are at most u, for each of (paths,), by bisection."""
    size = sums.shape[1]
    found = np.zeros(len(at), dtype=np.intp)
    for step in (2**j for j in reversed(range(size.bit_length()))):
        ahead = np.minimum(found + step, size) - 1  # the last sum is above every u
        found += step * (sums[at, ahead] <= u)
    return found
