"""The blocks of a .bif file token by token: any order of rows, quoted names, properties, errors."""

from collections.abc import Hashable
from itertools import product
from typing import NamedTuple

import numpy as np

from ..names import unknown
from ..tables import Factor
from .text import Cursor, count, distinct, number, problem, shape_of, unquoted

PUNCTUATION = "{}()[],;|"


class Row(NamedTuple):
    labels: list[str] | None  # None: the row says `table` or `default`
    values: list[float]
    at: int
    word: str = ""


class Table(NamedTuple):
    child: str
    parents: list[str]
    rows: list[Row]
    at: int


def network_block(text: str) -> tuple[str, int]:
    """The name that a file begins with, and where the next block begins."""
    cursor = Cursor(text, PUNCTUATION)
    if cursor.next("'network'") != "network":
        raise cursor.error("a .bif file begins with 'network NAME { }'")
    name = "" if cursor.peek() == "{" else cursor.name("the network's name")
    cursor.skip("{")
    while (word := cursor.next("'}'")) != "}":
        _property(cursor, word, "'}'")
    return name, cursor.rest()


def _property(cursor: Cursor, word: str, expected: str) -> None:
    """Skip the rest of `property ...;`."""
    if word != "property":
        raise cursor.error(f"expected {expected} or a property, got {word!r}")
    while (token := cursor.next("';'")) != ";":
        if token in ("{", "}"):
            raise cursor.error(f"expected ';' at the end of a property, got {token!r}")


def _items(cursor: Cursor, end: str, kind: str) -> list[str]:
    """Names or numbers up to a mark, separated by space or by one comma; quotes are kept."""
    items: list[str] = []
    while (token := cursor.next(repr(end))) != end:
        if token == "," and items:
            token = cursor.next(kind)
        if token in PUNCTUATION:
            raise cursor.error(f"expected {kind} or {end!r}, got {token!r}")
        items.append(token)
    return items


def variable_block(cursor: Cursor) -> tuple[str, tuple[str, ...]]:
    variable, at = cursor.name("a variable"), cursor.start
    cursor.skip("{")
    states = None
    while (word := cursor.next("'}'")) != "}":
        if word != "type":
            _property(cursor, word, "'type'")
            continue
        if states is not None:
            raise cursor.error(f"{variable} has two types")
        kind = cursor.next("'discrete'")
        if kind != "discrete":
            raise cursor.error(f"{variable} is of type {kind}; only discrete variables are read")
        cursor.skip("[")
        token = cursor.next("the number of states")
        cursor.skip("]", "{")
        listed = [unquoted(item) for item in _items(cursor, "}", "a state")]
        try:
            states = distinct(listed, count(token, "the number of states"), variable)
        except ValueError as error:
            raise cursor.error(str(error)) from None
        cursor.skip(";")
    if not states:
        raise cursor.error(f"the variable {variable} has no states", at)
    return variable, states


def probability_block(cursor: Cursor) -> Table:
    at = cursor.start
    cursor.skip("(")
    child = cursor.name("a variable")
    if cursor.peek() in ("|", ","):
        cursor.next("a parent")
    parents = [unquoted(item) for item in _items(cursor, ")", "a parent")]
    cursor.skip("{")
    rows = []
    while (word := cursor.next("'}'")) != "}":
        start = cursor.start
        if word not in ("(", "table", "default"):
            _property(cursor, word, "'(', 'table' or 'default'")
            continue
        labels = None
        if word == "(":
            labels = [unquoted(item) for item in _items(cursor, ")", "a state")]
        values = []
        for item in _items(cursor, ";", "a number"):
            try:
                values.append(number(item))
            except ValueError as error:
                raise cursor.error(str(error), start) from None
        rows.append(Row(labels, values, start, word))
    return Table(child, parents, rows, at)


def factor_of(text: str, table: Table, states: dict[Hashable, tuple[str, ...]]) -> Factor:
    """The factor of a block with rows in any order, `table` and `default`."""
    child, parents = table.child, table.parents
    try:
        shape = shape_of(child, parents, states)
    except ValueError as error:
        raise problem(text, table.at, str(error)) from None
    width = shape[0]
    entries = int(np.prod(shape))
    whole = [row for row in table.rows if row.word == "table"]
    if whole:
        if len(table.rows) > 1:
            raise problem(text, table.at, f"{child} has a table and other rows beside it")
        if len(whole[0].values) != entries:
            raise problem(text, whole[0].at, _wrong(child, len(whole[0].values), entries))
        return Factor((child, *parents), np.array(whole[0].values).reshape(shape))
    columns: dict[tuple[int, ...] | None, list[float]] = {}
    indices = [{state: i for i, state in enumerate(states[parent])} for parent in parents]
    for _, (labels, values, at, _) in enumerate(table.rows):
        key: tuple[int, ...] | None = None
        if labels is not None:
            if len(labels) != len(parents):
                raise problem(
                    text, at, f"a row of {child} names {len(labels)} states for {len(parents)} "
                    f"parents"
                )  # fmt: skip
            for parent, label, index in zip(parents, labels, indices, strict=True):
                if label not in index:
                    raise problem(text, at, unknown("state", label, index, parent))
            key = tuple(index[label] for label, index in zip(labels, indices, strict=True))
        if key in columns:
            said = "the default" if labels is None else f"({', '.join(labels)})"
            raise problem(text, at, f"the table of {child} gives {said} twice")
        if len(values) != width:
            raise problem(text, at, _wrong(child, len(values), width))
        columns[key] = values
    default = columns.pop(None, None)
    missing = int(np.prod(shape[1:])) - len(columns)
    if missing and default is None:
        first = next(key for key in product(*map(range, shape[1:])) if key not in columns)
        labels = [states[parent][i] for parent, i in zip(parents, first, strict=True)]
        raise problem(
            text, table.at, f"the table of {child} lacks {missing} rows, the first "
            f"({', '.join(labels)}), and has no default"
        )  # fmt: skip
    array = np.empty((*shape[1:], width))
    if default is not None:
        array[...] = default
    for key, values in columns.items():
        array[key] = values
    return Factor((child, *parents), np.moveaxis(array, -1, 0))


def _wrong(child: str, given: int, wanted: int) -> str:
    return f"a row of {child} has {given} numbers; expected {wanted}"
