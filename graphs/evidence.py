"""What was observed, as state indices."""

import math
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np

from .names import unknown
from .tables import Tables, Variable

UNOBSERVED = -1


def encode(tables: Tables, evidence: Any) -> tuple[dict[Variable, np.ndarray], int | None]:
    """State indices of the evidence, -1 where a row leaves a variable unobserved.

    Args:
        tables: the model's tables.
        evidence: None, a mapping variable -> state or -> array of n states, or a DataFrame with one
            column a variable. None, NaN and, in integer arrays, -1 mean unobserved; states match by
            their text; integer tensors are state indices.

    Returns:
        Arrays of indices by variable, of length n, or of length 1 for a single query; and n, None
        for a single query.

    Raises:
        ValueError: an unknown variable or state, columns of unequal length.
    """
    if evidence is None:
        return {}, None
    if hasattr(evidence, "to_dict") and not hasattr(evidence, "columns"):
        evidence = evidence.to_dict()  # a Series: one row of a table
    if not isinstance(evidence, Mapping) and not hasattr(evidence, "columns"):
        raise TypeError(
            "evidence must be a dict from variables to states or to arrays of states, or a "
            f"DataFrame with one column a variable; got {type(evidence).__name__}"
        )
    framed = hasattr(evidence, "columns")
    found: dict[Variable, np.ndarray] = {}
    count: int | None = len(evidence) if framed else None
    first: Variable = "the table"
    for variable in evidence.columns if framed else evidence:
        positions = tables.positions.get(variable)
        if positions is None:
            raise ValueError(unknown("variable", variable, tables.states))
        given = evidence[variable]
        many = framed or _many(given)
        found[variable] = (
            _column(variable, given, positions) if many else _single(variable, given, positions)
        )
        if many:
            rows = len(found[variable])
            if count is not None and rows != count:
                raise ValueError(
                    f"evidence has {rows} rows for {variable} and {count} for {first}; "
                    "every array needs the same number"
                )
            count, first = rows, variable
    return found, count


def _many(given: Any) -> bool:
    if isinstance(given, (str, bytes)) or given is None:
        return False
    if isinstance(given, (list, tuple)) or hasattr(given, "__array__"):
        return getattr(given, "ndim", 1) > 0
    return False


def _single(variable: Variable, state: Any, positions: Mapping[str, int]) -> np.ndarray:
    if hasattr(state, "detach"):  # a tensor of no dimension: a state index
        return _indices(variable, state.detach().cpu().numpy().reshape(1), len(positions))
    if type(state) is str and state in positions:
        return np.array([positions[state]])
    index = _index(state, positions)
    if index is None:
        raise ValueError(unknown("state", state, positions, str(variable)))
    return np.array([index])


def _column(variable: Variable, given: Any, positions: Mapping[str, int]) -> np.ndarray:
    if hasattr(given, "detach"):
        return _indices(variable, given.detach().cpu().numpy(), len(positions))
    values: Any = given
    if isinstance(given, (list, tuple)):
        values = np.empty(len(given), dtype=object)  # whatever a state is, it is one entry
        values[:] = given
    if getattr(values, "ndim", 1) != 1:
        raise ValueError(
            f"evidence of {variable} must have one dimension, a state each row; "
            f"got shape {tuple(values.shape)}"
        )
    if hasattr(values, "cat"):  # categories are looked up once, and rows by their codes
        return _looked_up(variable, list(values.cat.categories), values.cat.codes, positions)
    if str(getattr(values, "dtype", "")) in ("str", "string"):
        rows, texts = values.factorize()
        return _looked_up(variable, list(texts), rows, positions)
    values = values.to_numpy() if hasattr(values, "to_numpy") else np.asarray(values)
    if values.dtype.kind in "iu":
        if str(UNOBSERVED) in positions and (values == UNOBSERVED).any():
            raise ValueError(
                f"-1 in the integers of {variable} could be its state '-1' or mean unobserved; "
                "give strings, with None for unobserved"
            )
        numbers, rows = np.unique(values, return_inverse=True)
        rows = np.where(numbers == UNOBSERVED, UNOBSERVED, np.arange(len(numbers)))[rows]
        return _looked_up(variable, numbers.tolist(), rows, positions)
    # Each different value is looked up once; objects of unlike types cannot be sorted.
    codes: dict[Any, int] = {}
    rows = np.fromiter(
        (
            codes.setdefault((type(v), None) if _missing(v) else (type(v), v), len(codes))
            for v in values.tolist()
        ),
        dtype=np.int64,
        count=len(values),
    )
    return _looked_up(variable, [value for _, value in codes], rows, positions)


def _looked_up(
    variable: Variable, different: list[Any], rows: Any, positions: Mapping[str, int]
) -> np.ndarray:
    """The state index of each row, whose value is `different[row]`, unobserved where row is -1."""
    rows = np.asarray(rows, dtype=np.int64)
    known = [_index(value, positions) for value in different]
    if None in known:  # a category that no row has is no mistake
        for i in np.unique(rows[rows >= 0]):
            if known[i] is None:
                raise ValueError(unknown("state", different[i], positions, str(variable)))
    table = np.array([UNOBSERVED if code is None else code for code in [*known, None]])
    return table[rows]


def _indices(variable: Variable, values: np.ndarray, size: int) -> np.ndarray:
    if values.dtype.kind not in "iu" or values.ndim != 1:
        raise TypeError(
            f"a tensor of evidence holds state indices, integers in one dimension; that of "
            f"{variable} is {values.dtype} of shape {values.shape}"
        )
    if values.size and (values.min() < UNOBSERVED or values.max() >= size):
        raise ValueError(
            f"state indices of {variable} lie between 0 and {size - 1}, or are -1 for unobserved; "
            f"got {int(values.min())} to {int(values.max())}"
        )
    return values.astype(np.int64)


def _index(state: Any, positions: Mapping[str, int]) -> int | None:
    """The index of a state by its text, -1 where it means unobserved, None where there is none."""
    if _missing(state):  # first: some networks have a state "None"
        return UNOBSERVED
    text = str(state)
    if text in positions:
        return positions[text]
    if isinstance(state, numbers.Real) and not isinstance(state, numbers.Integral):
        value = float(state)
        if value.is_integer():  # pandas keeps a column of integers with gaps as floats
            return positions.get(str(int(value)))
    return None


def _missing(state: Any) -> bool:
    """None, a float that is not a number, pandas' NA and NaT."""
    if state is None or type(state).__name__ in ("NAType", "NaTType"):
        return True
    real = isinstance(state, numbers.Real) and not isinstance(state, numbers.Integral)
    return real and math.isnan(float(state))


def soft_evidence(
    tables: Tables, likelihoods: Mapping[Variable, Any] | None, rows: int | None
) -> tuple[dict[Variable, Any], int | None]:
    """Checked likelihoods, (states, n) or (states, 1) by variable, and the number of rows.

    Raises:
        ValueError: an unknown variable, a wrong shape, a negative or infinite entry.
    """
    found: dict[Variable, Any] = {}
    for variable, given in (likelihoods or {}).items():
        if variable not in tables.states:
            raise ValueError(unknown("variable", variable, tables.states))
        size = len(tables.states[variable])
        if isinstance(given, Mapping):
            given = _by_state(variable, given, tables)
        try:
            table = given if hasattr(given, "detach") else np.array(given, dtype=np.float64)
        except (TypeError, ValueError):
            raise TypeError(
                f"the likelihood of {variable} must be {size} numbers, one a state; got {given!r}"
            ) from None
        if table.ndim not in (1, 2) or table.shape[-1] != size:
            raise ValueError(
                f"the likelihood of {variable} needs the shape ({size},), or (rows, {size}); "
                f"got {tuple(table.shape)}"
            )
        if table.ndim == 2:
            if rows is not None and len(table) != rows:
                raise ValueError(
                    f"the likelihood of {variable} has {len(table)} rows; the evidence has {rows}"
                )
            rows = len(table)
        numbers = table.detach().cpu().numpy() if hasattr(table, "detach") else table
        if not (np.isfinite(numbers).all() and (numbers >= 0).all()):
            raise ValueError(
                f"the likelihood of {variable} has an entry that is negative or not finite"
            )
        found[variable] = table.T if table.ndim == 2 else table[:, None]
    return found, rows


def _by_state(variable: Variable, given: Mapping[Any, Any], tables: Tables) -> list[Any]:
    """A likelihood written as a dict from states to numbers."""
    found: list[Any] = [None] * len(tables.states[variable])
    for state, value in given.items():
        at = _index(state, tables.positions[variable])
        if at is None or at == UNOBSERVED:
            raise ValueError(unknown("state", state, tables.states[variable], str(variable)))
        found[at] = value
    if None in found:
        state = tables.states[variable][found.index(None)]
        raise ValueError(f"the likelihood of {variable} says nothing of its state {state!r}")
    return found
