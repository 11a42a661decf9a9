"""`ppgen graph chain`: a Markov chain from a table of its transition probabilities."""

import csv
import math
import re
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphs.names import unknown

from .graph_words import Parser, add_drawing, new_picture, say_drawn, say_json, say_lines

if TYPE_CHECKING:
    from graphs.sequences.markov_chain import MarkovChain

NUMBER = re.compile(r"[+-]?(\d+/\d+|(\d+\.?\d*|\.\d+)(e[+-]?\d{1,3})?)", re.IGNORECASE)
LONGEST = 40  # characters of a number
DIGITS = 15  # significant digits from which on a number is a printed float, not a decimal
SPELT = 4000  # digits of a fraction that Python writes without being asked to


def chain(argv: list[str]) -> None:
    parser = Parser(
        "chain",
        "MATRIX.csv [--start STATE --steps N] [--targets STATE ...] [--draw FILE] [--json]",
        "Show what a Markov chain does: its communicating classes with their periods, its "
        "stationary distributions (as fractions where the probabilities are fractions or short "
        "decimals), its mixing time, where it is after some steps, and how long it takes to reach "
        "some states. The file holds the square table of p(to the column | from the row); a first "
        "line and a first column may name the states. In JSON an infinite time is null.",
        "ppgen graph chain meals.csv",
        "ppgen graph chain meals.csv --start pizza --steps 10 --targets burger --draw meals.png",
        "ppgen graph chain meals.csv --targets burger pizza --json",
    )
    parser.add_argument("matrix", metavar="MATRIX.csv", help="such as 1/3,2/3 in a line")
    parser.add_argument("--start", metavar="STATE", help="where the chain is at step 0")
    parser.add_argument("--steps", type=int, metavar="N", help="where it is after that many steps")
    parser.add_names("--targets", "the states to reach, any one of them", "STATE")
    add_drawing(parser)
    options = parser.read(argv)
    if (options.start is None) != (options.steps is None):
        raise ValueError("--start STATE and --steps N go together: one needs the other")
    if options.steps is not None and not 0 <= options.steps < 2**63:
        raise ValueError(f"--steps must be 0 or more, and below 2^63; got {options.steps}")
    out = new_picture(options.draw, options.overwrite)
    found = read_chain(Path(options.matrix))
    names = {str(state): state for state in found.states}
    start = None if options.start is None else _state(names, options.start)
    targets = [_state(names, p) for word in options.targets for p in _parts(names, word)]
    document, lines = _summary(found)
    document = {"matrix": options.matrix, **document}
    if start is not None:
        from graphs.sequences.transitions import per_state

        title = f"distribution after {options.steps:,} steps from {start}"
        after = per_state(title, found.states, found.distribution(options.steps, start))
        lines.append(str(after))
        document["after"] = {"start": str(start), "steps": options.steps, "states": _of(after)}
    if targets:
        said, shown = _hitting(found, targets)
        document["targets"] = said
        lines += shown
    if out is not None:
        found.draw(out)
        document["drawn"] = str(out)
    if options.json:
        say_json(document)
        return
    say_lines(*lines)
    say_drawn(out)


def _summary(found: "MarkovChain") -> tuple[dict[str, Any], list[str]]:
    document: dict[str, Any] = {
        "states": [str(state) for state in found.states],
        "classes": [
            {
                "states": [str(state) for state in part.states],
                "recurrent": part.recurrent,
                "period": part.period or None,
            }
            for part in found.classes
        ],
        "irreducible": found.irreducible,
        "aperiodic": found.aperiodic,
        "reversible": found.reversible,
        "absorbing": [str(state) for state in found.absorbing],
        "stationary": [_of(pi) for pi in found.stationary],
    }
    try:
        time = found.mixing_time()
    except ValueError as error:
        document |= {"mixing_time": None, "why_none": str(error)}
        return document, [str(found), str(error)]
    said = f"mixing time {time:,} steps: from every start within 1/4 of the total variation"
    return document | {"mixing_time": time}, [str(found), said]


def _hitting(found: "MarkovChain", targets: list[Any]) -> tuple[dict[str, Any], list[str]]:
    try:
        times = found.hitting_times(targets)
    except OverflowError as error:
        raise ValueError(f"--targets: {error}") from None
    document = {"states": [str(s) for s in targets], "expected_steps": _of(times)}
    lines = [str(times)]
    chances = found.hitting_probabilities(targets)
    document["probability"] = _of(chances)
    if (chances.values < 1).any():
        lines.append(str(chances))
    return document, lines


def _of(found: Any) -> dict[str, Any]:
    """The numbers of the states, each with its fraction where that is known."""
    said = {}
    for state, value in found.items():
        cell: dict[str, Any] = {"value": value if math.isfinite(value) else None}
        exact = None if found.exact is None else found.exact[state]
        if isinstance(exact, Fraction | int) and _digits(Fraction(exact)) <= SPELT:
            cell["exact"] = str(exact)
        said[str(state)] = cell
    return said


def _digits(number: Fraction) -> float:
    return max(number.numerator.bit_length(), number.denominator.bit_length()) * math.log10(2)


def _state(names: dict[str, Any], text: str) -> Any:
    if text not in names:
        raise ValueError(unknown("state", text, names))
    return names[text]


def _parts(names: Iterable[str], word: str) -> list[str]:
    return [word] if word in names else word.split(",")


# The file ---------------------------------------------------------------------------------------


def read_chain(path: Path) -> "MarkovChain":
    """The chain of a file of transition probabilities.

    Numbers are decimals or fractions such as 1/3. How many lines and columns there are tells which
    of them are names: a square table has none, or, where its first cell is no number, both.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no table, not square, a cell that is no number, or what `MarkovChain` refuses.
    """
    rows = _cells(path)
    high, wide = len(rows), max(len(row) for row in rows)
    if high == wide and len(rows[0]) == wide - 1:  # a header that leaves out the corner
        rows[0].insert(0, "")
    for number, row in enumerate(rows, 1):
        if len(row) != wide:
            raise ValueError(f"{path}, row {number}: {len(row)} cells, where others have {wide}")
    both = high == wide and not re.match(r"[-+.\d]", rows[0][0])
    header, column = both or high == wide + 1, both or wide == high + 1
    heads = rows[0][column:] if header else None
    names = [row[0] for row in rows[header:]] if column else heads
    # A line too many of probabilities would else be read as names.
    numbers = [n for n in (names or []) if NUMBER.fullmatch(n) and not n.isdigit()]
    if numbers or (high != wide and not header and not column):
        raise ValueError(
            f"{path} has {high} rows of {wide} cells: a transition matrix is square, besides a "
            "first line and a first column of names"
        )
    cells = [row[column:] for row in rows[header:]]
    from graphs.sequences.markov_chain import MarkovChain

    said = names or [str(i) for i in range(len(cells))]
    values: list[list[Any]] = [
        [_number(path, cell, a, b) for b, cell in zip(heads or said, row, strict=True)]
        for a, row in zip(said, cells, strict=True)
    ]
    if any(_printed(cell) for row in cells for cell in row):
        values = [[float(value) for value in row] for row in values]
    try:
        if heads is not None and names is not None and heads != names:
            import pandas as pd

            return MarkovChain(pd.DataFrame(values, names, heads, dtype=object))
        return MarkovChain(values, names)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _cells(path: Path) -> list[list[str]]:
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a .csv file")
    if not path.is_file():
        there = [p.name for p in path.parent.glob("*.csv")] if path.parent.is_dir() else []
        raise FileNotFoundError(unknown("file", path.name, there, str(path.parent)))
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file, strict=True) if row]
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text; convert the file to UTF-8") from None
    except csv.Error as error:
        raise ValueError(f"{path}: not a table of comma-separated values ({error})") from None
    if not rows:
        raise ValueError(f"{path} is empty: expected a square table of probabilities")
    return rows


def _number(path: Path, cell: str, start: str, end: str) -> Fraction:
    if len(cell) <= LONGEST and NUMBER.fullmatch(cell):
        try:
            return Fraction(cell)
        except ZeroDivisionError:
            raise ValueError(f"{path}: p({end} | {start}) is {cell}, over zero") from None
    said = repr(cell[:LONGEST]) if cell else "an empty cell"
    raise ValueError(f"{path}: p({end} | {start}) is {said}; expected such as 0.25 or 1/3")


def _printed(cell: str) -> bool:
    """Whether a number has all the digits of a float, whose fraction would be the rounding's."""
    digits = re.sub(r"e.*$|\D", "", cell.lower()).lstrip("0")
    return "/" not in cell and len(digits) >= DIGITS
