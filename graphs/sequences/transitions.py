"""Transition matrices as they are given, and numbers for the states of a chain."""

import math
import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from numbers import Integral, Rational
from typing import Any

import numpy as np

from ..names import unknown
from ..tables import ROUNDING

State = Hashable
EXACT = 60  # states up to which given fractions are kept: the fractions of an answer grow with k
FEW, DENOMINATOR = 12, 1000  # states and denominators up to which floats are read as fractions
SHOWN = 20  # states that a print lists


@dataclass(frozen=True)
class CommunicatingClass:
    """States that lead to each other."""

    states: tuple[State, ...]
    recurrent: bool
    """Whether the class is closed: no transition leaves it, so it is visited for ever. A class that
    is not closed is transient."""
    period: int
    """The greatest common divisor of the lengths of all ways from a state back to itself, the same
    for every state of the class; 0 where there is no way back."""

    @property
    def kind(self) -> str:
        """Such as 'recurrent, period 2'."""
        if not self.period:
            return "transient, no way back"
        kind = "recurrent" if self.recurrent else "transient"
        return f"{kind}, {'aperiodic' if self.period == 1 else f'period {self.period}'}"

    def __str__(self) -> str:
        return f"{{{listed(self.states)}}} {self.kind}"


@dataclass(frozen=True, eq=False, repr=False)
class PerState:
    """A number for each state of a chain. `found[state]` is it as a float."""

    title: str
    """What the numbers are."""
    states: tuple[State, ...]
    values: np.ndarray
    """The numbers, in the order of the states; infinite also where they exceed 1.8e308."""
    exact: dict[State, Fraction | float] | None
    """The numbers as fractions (or infinity), where the chain's matrix is known as fractions."""

    def __getitem__(self, state: State) -> float:
        return float(self.values[position(state, {s: i for i, s in enumerate(self.states)})])

    def items(self) -> Iterable[tuple[State, float]]:
        """Pairs of a state and its number."""
        return zip(self.states, self.values.tolist(), strict=True)

    def __str__(self) -> str:
        rows = []
        for state, value in list(self.items())[:SHOWN]:
            fraction = "" if self.exact is None else str(self.exact[state])
            rows.append([str(state), fraction if len(fraction) <= 25 else "", f"{value:.6g}"])
        return "\n".join([self.title, *columns(rows), *more(self.states)])

    __repr__ = __str__


def per_state(title: str, states: tuple[State, ...], numbers: np.ndarray) -> PerState:
    """The record of an array of floats, or of fractions as objects."""
    values = np.array([_float(number) for number in numbers.tolist()])
    values.setflags(write=False)
    exact = dict(zip(states, numbers, strict=True)) if numbers.dtype == object else None
    return PerState(title, states, values, exact)


def _float(number: Fraction | float) -> float:
    try:
        return float(number)
    except OverflowError:  # a fraction above every float
        return math.inf


# The matrix


def read(A: Any) -> tuple[np.ndarray, list[State] | None]:
    """A square array, and the states that a DataFrame names, its columns in their order."""
    labels = None
    if hasattr(A, "columns") and hasattr(A, "index"):
        labels, heads = list(A.index), list(A.columns)
        if len(set(heads)) != len(heads) or set(heads) != set(labels):
            raise ValueError(
                "the index and the columns of a transition matrix name the same states, once each; "
                f"got the index {listed(labels)} and the columns {listed(heads)}"
            )
        A = A.to_numpy()[:, [heads.index(label) for label in labels]]
    if hasattr(A, "detach"):
        A = A.detach().cpu().numpy()
    try:
        values = np.asarray(A)
    except ValueError:
        raise ValueError("a transition matrix is square; got rows of unequal length") from None
    if values.ndim != 2 or values.shape[0] != values.shape[1] or not len(values):
        raise ValueError(f"a transition matrix is square; got the shape {values.shape}")
    if values.dtype == object and all(isinstance(v, Rational | Decimal) for v in values.flat):
        return values, labels
    try:
        if values.dtype.kind not in "biufO":
            raise TypeError
        if values.dtype.kind != "f":
            return (values if values.dtype != object else values.astype(np.float64)), labels
        if values.dtype.itemsize < 8:
            return _printed(values), labels
        return values.astype(np.float64), labels
    except (TypeError, ValueError):
        raise TypeError(
            f"transition probabilities are real numbers; got an array of {values.dtype}"
        ) from None


def _printed(values: np.ndarray) -> np.ndarray:
    """Single precision as its shortest decimals, 0.2 and not 0.20000000298, rows summing to one."""
    decimals = np.array([[float(str(v)) for v in row] for row in values])
    sums = decimals.sum(1, keepdims=True)
    off = abs(sums - 1)
    return np.where((off > 1e-12) & (off <= ROUNDING), decimals / sums, decimals)


def distinct(given: Iterable[State] | None, size: int) -> tuple[State, ...]:
    """The states' names, by default 0, 1, ..."""
    if given is None:
        return tuple(range(size))
    names = tuple(given.tolist() if isinstance(given, np.ndarray) else given)
    if len(names) != size:
        raise ValueError(f"the matrix has {size} rows; got {len(names)} states, {listed(names)}")
    seen: set[State] = set()
    for name in names:
        try:
            if name in seen:
                raise ValueError(f"states are distinct; got {name!r} twice")
            seen.add(name)
        except TypeError:
            raise TypeError(f"states are hashable; got {name!r}") from None
    return names


def checked(
    values: np.ndarray, states: tuple[State, ...], stacklevel: int
) -> tuple[np.ndarray, tuple[tuple[Fraction, ...], ...] | None]:
    """The matrix in float64 with rows that sum to one, and as fractions where it reads as such."""
    matrix = values.astype(np.float64)
    for i, row in enumerate(matrix):
        wrong = ~np.isfinite(row) | (row < 0)
        if wrong.any():
            j = int(np.argmax(wrong))
            is_what = "negative" if row[j] < 0 else "not a number from 0 to 1"
            raise ValueError(f"p({states[j]} | {states[i]}) is {row[j]:.6g}, {is_what}")
        if abs(row.sum() - 1) > ROUNDING * (1 + 1e-9):  # three times 0.333333 is still rounding
            columns_do = (abs(matrix.sum(0) - 1) <= ROUNDING).all()
            hint = "; its columns do, so give the transpose" if columns_do else ""
            raise ValueError(f"the row of {states[i]} sums to {row.sum():.9g}, not to 1{hint}")
    off = abs(matrix.sum(1) - 1)
    if off.max() > 1e-12:
        warnings.warn(
            f"{np.count_nonzero(off > 1e-12)} rows of the transition matrix sum to 1 only within "
            f"{off.max():.1g}, as printed digits do; renormalised",
            stacklevel=stacklevel,
        )
    exact = None
    if values.dtype.kind == "f":
        exact = _recovered(matrix) if len(matrix) <= FEW else None
    elif len(matrix) <= EXACT:
        exact = [[_fraction(value) for value in row] for row in values.tolist()]
        totals = [sum(row) for row in exact]
        exact = [[v / total for v in row] for row, total in zip(exact, totals, strict=True)]
    if exact is None:
        sums = matrix.sum(1, keepdims=True)
        return np.where(off[:, None] > 1e-14, matrix / sums, matrix), None
    return np.array(exact, dtype=np.float64), tuple(map(tuple, exact))


def _fraction(value: Any) -> Fraction:
    return Fraction(int(value)) if isinstance(value, Integral) else Fraction(value)


def _recovered(matrix: np.ndarray) -> list[list[Fraction]] | None:
    """Fractions that give back the floats, a relative 4e-16 apart, with rows that sum to one."""
    rows = []
    for row in matrix.tolist():
        found = [Fraction(value).limit_denominator(DENOMINATOR) for value in row]
        near = all(abs(float(f) - v) <= 4e-16 * v for f, v in zip(found, row, strict=True))
        if not near or sum(found) != 1:
            return None
        rows.append(found)
    return rows


# States


def position(state: Any, positions: Mapping[State, int]) -> int:
    """The index of a state.

    Raises:
        ValueError: there is no such state.
    """
    try:
        return positions[state]
    except (KeyError, TypeError):
        raise ValueError(unknown("state", state, positions)) from None


def weights(start: Any, positions: Mapping[State, int]) -> np.ndarray:
    """The distribution that a state, an array or a mapping stands for, (k,).

    Raises:
        ValueError: none of these; an unknown state; negative or not summing to one.
    """
    size = len(positions)
    try:
        at = positions.get(start)
    except TypeError:
        at = None
    found = np.zeros(size)
    if at is not None:
        found[at] = 1.0
        return found
    if hasattr(start, "items"):
        for state, probability in start.items():
            found[position(state, positions)] = probability
    elif isinstance(start, str | bytes) or not hasattr(start, "__len__"):
        raise ValueError(unknown("state", start, positions))
    else:
        given = start.detach().cpu().numpy() if hasattr(start, "detach") else start
        try:
            found = np.asarray(given, dtype=np.float64)
        except (TypeError, ValueError):
            raise ValueError(unknown("state", start, positions)) from None
        if found.shape != (size,):
            raise ValueError(
                f"a start is a state, or {size} probabilities in the order of the states; got the "
                f"shape {found.shape}"
            )
    total = found.sum()
    if not (found >= 0).all() or not abs(total - 1) <= ROUNDING * (1 + 1e-9):
        raise ValueError(
            f"the probabilities of a start are not negative and sum to 1; got {found.min():.6g} "
            f"as the least, and the sum {total:.9g}"
        )
    return found / total


def several(targets: Any, positions: Mapping[State, int]) -> list[int]:
    """The indices of a state, or of an iterable of states.

    Raises:
        ValueError: an unknown state, or none.
    """
    try:
        if targets in positions:
            return [positions[targets]]
    except TypeError:
        pass  # unhashable: a set or a list
    if isinstance(targets, str | bytes) or not isinstance(targets, Iterable):
        raise ValueError(unknown("state", targets, positions))
    found = sorted({position(state, positions) for state in targets})
    if not found:
        raise ValueError("no target; give a state or several")
    return found


# Prints


def short(value: float, exact: Fraction | None) -> str:
    """A probability in few characters: 0.25, or 1/3 where it is known to be that."""
    text = f"{value:.3g}"
    if exact is not None and Fraction(text) != exact and exact.denominator <= DENOMINATOR:
        return str(exact)
    return text


def columns(rows: Sequence[Sequence[str]], indent: str = "  ") -> list[str]:
    """Lines with the first cells flush left, the others flush right; empty columns left out."""
    kept = [j for j in range(len(rows[0])) if j == 0 or any(row[j] for row in rows)]
    wide = {j: max(len(row[j]) for row in rows) for j in kept}
    return [
        indent + "  ".join(f"{row[j]:{'>' if j else '<'}{wide[j]}}" for j in kept) for row in rows
    ]


def more(states: Sequence[State]) -> list[str]:
    """What a list of the first states leaves out."""
    return [f"  and {len(states) - SHOWN} more states"] if len(states) > SHOWN else []


def listed(states: Iterable[State], limit: int = 8) -> str:
    """The first few states, and how many more."""
    names = [str(state) for state in states]
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if names[limit:] else "")
