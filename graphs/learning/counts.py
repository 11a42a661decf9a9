"""Tables of data as state indices, and how often each combination of states occurs in them.

DataFrames and files come down to this one form at the door, where they are checked once.
"""

import csv
import gzip
import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ancestral import flat_index
from ..evidence import UNOBSERVED
from ..names import unknown
from ..tables import Variable

if TYPE_CHECKING:
    import pandas as pd

FEW_NUMBERS = 20  # different fractional numbers that may still be states
MANY = 1000  # different values from which on a column is rather an identifier
MISSING = ("NA", "NaN", "nan", "N/A", "<NA>")  # cells of a text file, besides empty ones
ENDINGS = (".csv", ".csv.gz", ".parquet")


@dataclass(frozen=True, eq=False)
class Cells:
    """Data as state indices, -1 where a cell is missing."""

    states: dict[Variable, tuple[Any, ...]]
    codes: dict[Variable, np.ndarray]
    """(rows,) integers by variable; none for a variable that is nowhere observed."""
    rows: int

    @property
    def sizes(self) -> dict[Variable, int]:
        return {variable: len(states) for variable, states in self.states.items()}

    @property
    def missing(self) -> dict[Variable, int]:
        """How many cells of each variable are missing, where any is."""
        found = {v: int((column < 0).sum()) for v, column in self.codes.items()}
        hidden = {v: self.rows for v in self.states if v not in self.codes}
        return {v: n for v, n in (found | hidden).items() if n}


def read_cells(
    data: Any,
    *,
    variables: Collection[Variable] | None = None,
    others: bool = False,
    states: Mapping[Variable, Any] | None = None,
) -> Cells:
    """Data as state indices, checked.

    Args:
        data: a pandas DataFrame with one column a variable and one row an observation, or the path
            of a .csv, .csv.gz or .parquet file. Cells are states, matched by their text; None and
            NaN mean missing, in a text file an empty cell, and NA and NaN where no state is called
            so.
        variables: which variables there are; the columns by default.
        others: whether columns beside these are variables too, rather than mistakes.
        states: of some variables, in order, or how many (then 0, 1, ...). The others have the
            states that occur, in order, and all categories of a categorical column. A variable with
            states needs no column: it is latent.

    Raises:
        FileNotFoundError: no such file.
        ModuleNotFoundError: a parquet file, and no pyarrow to read it.
        TypeError: no table.
        ValueError: an empty table; a column that is there twice, has no name, is no variable, is
            missing, or is not discrete; a state that is none of those given.
    """
    frame, text = _frame(data)
    _check_columns(frame)
    columns = list(frame.columns)
    by_text = {str(column): column for column in columns}
    wanted = columns if variables is None else list(variables)
    source: dict[Variable, Any] = {}
    for variable in wanted:
        column = variable if variable in frame.columns else by_text.get(str(variable))
        if column is not None:
            source[variable] = column
    used = set(source.values())
    spare = [column for column in columns if column not in used]
    if others:
        wanted += spare
        source |= {column: column for column in spare}
    elif spare:
        raise ValueError(
            f"{unknown('variable', spare[0], wanted)} (a column of the data that the graph has "
            "not: rename or drop it)"
        )
    given = _given_states(states or {}, wanted)
    found: dict[Variable, tuple[Any, ...]] = {}
    codes: dict[Variable, np.ndarray] = {}
    for variable in wanted:
        if variable not in source:
            if variable not in given:
                raise ValueError(
                    f"{unknown('column', variable, columns)} (a variable without data needs its "
                    f"states: states={{{variable!r}: [...]}})"
                )
            found[variable] = given[variable]
            continue
        rows, values = _factorised(variable, frame[source[variable]])
        if variable in given:
            found[variable] = given[variable]
        else:
            seen = (rows >= 0).any()
            found[variable] = _occurring(variable, frame[source[variable]], values, text)
            if not seen or not found[variable]:
                raise ValueError(
                    f"every cell of {variable} is missing, so its states are unknown: give "
                    f"states={{{variable!r}: [...]}}"
                )
        column = _indices(variable, rows, values, found[variable], text)
        if (column >= 0).any():
            codes[variable] = column
    return Cells(found, codes, len(frame))


def counts(columns: Sequence[np.ndarray], sizes: Sequence[int]) -> np.ndarray:
    """How often each combination of states occurs, (sizes), in rows without missing cells."""
    if not len(columns):
        raise ValueError("counts need one variable or more")
    index = flat_index(list(columns), list(sizes))
    return np.bincount(np.asarray(index), minlength=math.prod(sizes)).reshape(sizes)


# The table ----------------------------------------------------------------------------------------


def _frame(data: Any) -> tuple["pd.DataFrame", bool]:
    """The table, and whether it was read from text."""
    import pandas as pd

    if isinstance(data, pd.DataFrame):
        return data, False
    if not isinstance(data, (str, os.PathLike)):
        raise TypeError(
            "data must be a pandas DataFrame with one column a variable, or the path of a "
            f"{', '.join(ENDINGS[:-1])} or {ENDINGS[-1]} file; got {type(data).__name__}"
        )
    path = Path(data)
    name = path.name.lower()
    if not name.endswith(ENDINGS):
        raise ValueError(f"cannot read {str(path)!r}: the ending must be {' or '.join(ENDINGS)}")
    if not path.is_file():
        folder = path.parent
        there = os.listdir(folder) if folder.is_dir() else []
        raise FileNotFoundError(unknown("file", path.name, there, str(folder)))
    if name.endswith(".parquet"):
        try:
            import pyarrow  # noqa: F401
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                f"reading {path.name} needs pyarrow: pip install pyarrow, or save the data as .csv"
            ) from None
        return pd.read_parquet(path), False
    try:
        _refuse_cut_rows(path)
        # Without a header, so that pandas does not rename columns that are there twice.
        raw = pd.read_csv(
            path,
            header=None,
            dtype=str,
            keep_default_na=False,
            na_values=[""],
            skip_blank_lines=False,
        )
    except pd.errors.EmptyDataError:
        raise ValueError(f"{path} is empty: expected a line of names, and rows") from None
    except (pd.errors.ParserError, UnicodeDecodeError, OSError, EOFError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as a table: {str(error).strip()}") from None
    frame = raw.iloc[1:].reset_index(drop=True)
    frame.columns = pd.Index(raw.iloc[0].tolist())
    return frame, True


def _refuse_cut_rows(path: Path) -> None:
    """pandas fills a short row up with empty cells, and would learn from what is not there."""
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    with opened(path, "rt", newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        width = 0
        for record in reader:
            width = width or len(record)
            # A line without anything is an empty cell where there is one column.
            if len(record) != width and (record or width > 1):
                raise ValueError(
                    f"{path}, line {reader.line_num}: {len(record)} cells, where the header has "
                    f"{width} columns"
                )


def _check_columns(frame: "pd.DataFrame") -> None:
    if not len(frame.columns) or not len(frame):
        raise ValueError(
            f"the data has {len(frame)} rows and {len(frame.columns)} columns: there is nothing to "
            "learn from"
        )
    if frame.columns.nlevels > 1:
        raise ValueError("the columns of the data have several levels of names; give them one")
    for column in frame.columns:
        if column is None or column != column or column == "":
            raise ValueError(
                "a column of the data has no name; an index that pandas wrote is left out by "
                "to_csv(index=False)"
            )
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise ValueError(f"the data has the column {twice!r} more than once; drop or rename one")


# States -------------------------------------------------------------------------------------------


def _given_states(
    states: Mapping[Variable, Any], variables: Collection[Variable]
) -> dict[Variable, tuple[Any, ...]]:
    found: dict[Variable, tuple[Any, ...]] = {}
    for variable, given in states.items():
        if variable not in variables:
            raise ValueError(unknown("variable", variable, variables))
        if isinstance(given, (int, np.integer)) and not isinstance(given, bool):
            given = range(given)
        if isinstance(given, str) or not hasattr(given, "__iter__"):
            raise TypeError(
                f"the states of {variable} must be a list, or their number; got {given!r}"
            )
        found[variable] = tuple(given)
        if not found[variable]:
            raise ValueError(f"{variable} needs one state or more")
        if len({str(state) for state in found[variable]}) < len(found[variable]):
            raise ValueError(f"{variable} has two states of the same text: {found[variable]}")
    return found


def _factorised(variable: Variable, column: Any) -> tuple[np.ndarray, list[Any]]:
    """The different values of a column, and the number of its value for each row, -1 missing."""
    import pandas as pd

    if hasattr(column, "cat"):
        return column.cat.codes.to_numpy(np.int64), column.cat.categories.tolist()
    if column.dtype != object:
        rows, values = pd.factorize(column)
        return np.asarray(rows, np.int64), values.tolist()
    # pandas holds True and 1 for the same; their texts differ.
    known: dict[Any, int] = {}
    rows = np.empty(len(column), np.int64)
    for i, value in enumerate(column.tolist()):
        try:
            none = value is None or value is pd.NA or bool(value != value)
            rows[i] = UNOBSERVED if none else known.setdefault((type(value), value), len(known))
        except (TypeError, ValueError):
            raise TypeError(
                f"a cell of {variable} is a {type(value).__name__}; cells are states: texts, "
                "numbers or truth values"
            ) from None
    return rows, [value for _, value in known]


def _occurring(variable: Variable, column: Any, values: list[Any], text: bool) -> tuple[Any, ...]:
    """The states that occur, numbers by size and others by text."""
    if hasattr(column, "cat"):
        return tuple(values)
    if text:
        values = [value for value in values if value not in MISSING]
    numbers = [_number(value) for value in values]
    fractions = {n for n in numbers if n is not None and n != math.floor(n)}
    if len(fractions) > FEW_NUMBERS:
        raise ValueError(
            f"{variable} has {len(set(values)):,} different numbers, so it is not discrete: bin it "
            "first, for example with pandas.qcut"
        )
    if len(values) > MANY:
        raise ValueError(
            f"{variable} has {len(values):,} different values, too many for states: drop the "
            "column if it is an identifier, else bin it"
        )
    numeric = all(number is not None for number in numbers)
    if numeric and not fractions and getattr(column.dtype, "kind", "") == "f":
        values = [int(value) for value in values]  # integers, which gaps have made floats
    if numeric:
        order = sorted(range(len(values)), key=lambda i: (numbers[i], str(values[i])))
    else:
        order = sorted(range(len(values)), key=lambda i: str(values[i]))
    distinct: dict[str, Any] = {}
    for i in order:
        distinct.setdefault(str(values[i]), values[i])
    return tuple(distinct.values())


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _indices(
    variable: Variable,
    rows: np.ndarray,
    values: list[Any],
    states: tuple[Any, ...],
    text: bool,
) -> np.ndarray:
    """The state index of each row, by the text of its value."""
    positions = {str(state): i for i, state in enumerate(states)}
    known: list[int | None] = []
    for value in values:
        at = positions.get(str(value))
        if at is None and isinstance(value, float) and value.is_integer():
            at = positions.get(str(int(value)))
        if at is None and text and value in MISSING:
            at = UNOBSERVED
        known.append(at)
    if None in known:  # a category that no row has is no mistake
        for i in np.unique(rows[rows >= 0]):
            if known[i] is None:
                raise ValueError(unknown("state", values[i], positions, str(variable)))
    table = np.array([UNOBSERVED if at is None else at for at in [*known, None]], np.int64)
    return table[rows]
