"""The Bayesian interchange format (.bif).

Two readers in one: blocks in the layout that nearly all files have are taken by one regular
expression, their numbers converted in bulk; every other block is read token by token. The first
accepts only text whose meaning is certain; whatever it does not accept goes to the second, which
reports errors.

Source: F. Cozman, The Interchange Format for Bayesian Networks (1996): `,` and `|` separate and
mean nothing more; in a `table` the child's states vary slowest, the last parent's fastest.
"""

import re
from collections.abc import Hashable, Iterable
from itertools import product

import numpy as np

from ..tables import ROUNDING, Factor, Tables
from .bif_blocks import (
    PUNCTUATION,
    Table,
    factor_of,
    network_block,
    probability_block,
    variable_block,
)
from .text import PLAIN, Cursor, Draft, blanked, numbers, problem, quoted, texts

_NAME = r'[^\s{}()\[\],;|"]+'
_LIST = r'[^{}()\[\];|"]*'
_NETWORK = re.compile(rf"\s*network\s+({_NAME})\s*\{{\s*\}}\s*")
_BLOCK = re.compile(
    rf"variable\s+({_NAME})\s*\{{\s*type\s+discrete\s*\[\s*([0-9]{{1,9}})\s*\]\s*"
    rf"\{{\s*({_LIST})\}}\s*;\s*\}}\s*"
    rf"|probability\s*\(\s*({_NAME})\s*(?:\|\s*({_LIST}))?\)\s*\{{\s*([^{{}}\"]*)\}}\s*"
)
_LABELS = re.compile(r"\(([^()]*)\)")


class _Unusual(Exception):
    """The numbers taken in bulk are not what they seemed: read again token by token."""


def read_bif(text: str) -> Draft:
    """What a .bif file says: `network`, `variable` and `probability` blocks.

    Comments (`//`, `/* */`) and `property` statements are skipped; anything else that is not
    understood is an error.

    Raises:
        ValueError: names the line.
    """
    if "/" in text and ("//" in text or "/*" in text):
        text = blanked(text, r"//[^\n]*|/\*.*?\*/|/\*")
    try:
        return _read(text, in_bulk=True)
    except _Unusual:
        return _read(text, in_bulk=False)


def _read(text: str, in_bulk: bool) -> Draft:
    begun = _NETWORK.match(text)
    name, at = (begun[1], begun.end()) if begun else network_block(text)
    states: dict[Hashable, tuple[str, ...]] = {}
    odd: set[str] = set()  # variables with states that the layout of bulk rows cannot tell apart
    usual: list[tuple[str, str | None, str, int]] = []
    tables: list[Table] = []
    end, match = len(text), _BLOCK.match
    while at < end:
        found = match(text, at) if in_bulk else None
        if found:
            variable, declared, listed, child, parents, body = found.groups()
            if child:
                usual.append((child, parents, body, at))
                at = found.end()
                continue
            given = listed.replace(",", " ").split()
            if ", ".join(given) == listed.rstrip() and len({*given}) == int(declared) == len(given):
                if variable in states:
                    raise problem(text, at, f"the variable {variable} is declared twice")
                states[variable] = tuple(given)
                at = found.end()
                continue
        cursor = Cursor(text, PUNCTUATION, at)
        word = cursor.next("a block")
        if word == "variable":
            variable, kept = variable_block(cursor)
            if variable in states:
                raise problem(text, at, f"the variable {variable} is declared twice")
            states[variable] = kept
            if not all(PLAIN.fullmatch(state) for state in kept):
                odd.add(variable)
        elif word == "probability":
            tables.append(probability_block(cursor))
        else:
            raise cursor.error(
                f"expected 'variable' or 'probability', got {word!r}"
                + (": a file has one network" if word == "network" else "")
            )
        at = cursor.rest()
    if not states:
        raise problem(text, end, "the file declares no variable; it is cut short or no network")
    return _resolved(text, name, states, odd, usual, tables)


def _resolved(
    text: str,
    name: str,
    states: dict[Hashable, tuple[str, ...]],
    odd: set[str],
    usual: list[tuple[str, str | None, str, int]],
    tables: list[Table],
) -> Draft:
    pieces: list[str] = []
    starts: list[int] = []  # of each row of probabilities, in the numbers of all tables together
    places: list[tuple[tuple[str, ...], tuple[int, ...], int, int]] = []
    offset = 0
    for child, parents, body, at in usual:
        taken = _bulk(child, parents, body, states, odd)
        if taken is None:
            cursor = Cursor(text, PUNCTUATION, at)
            cursor.skip("probability")
            tables.append(probability_block(cursor))
            continue
        scope, shape, size, entries = taken
        pieces.append(entries)
        starts += range(offset, offset + size, shape[0])
        places.append((scope, shape, offset, offset + size))
        offset += size
    try:
        flat = np.fromstring(",".join(pieces), sep=",") if pieces else np.empty(0)
    except ValueError:
        raise _Unusual from None
    if flat.size != offset or (offset and not np.minimum.reduce(flat) >= 0):
        raise _Unusual
    found: dict[Hashable, Factor] = {}
    for scope, shape, first, last in places:
        values = flat[first:last]
        if len(shape) > 1:
            values = values.reshape(shape[::-1]).T
        found[scope[0]] = Factor(scope, values)
    if len(found) != len(places):  # a table twice
        raise _Unusual
    for table in tables:
        if table.child in found:
            raise problem(text, table.at, f"{table.child} has two tables")
        found[table.child] = factor_of(text, table, states)
    if len(found) < len(states):
        missing = [str(variable) for variable in states if variable not in found]
        raise problem(text, len(text), f"no table for {', '.join(missing[:8])} up to the end")
    factors = [found[variable] for variable in states]
    if tables:
        return Draft(name, states, factors)
    first_of_row = np.array(starts)
    sums = np.add.reduceat(flat, first_of_row)
    off = np.abs(sums - 1.0)
    worst = float(np.maximum.reduce(off))
    if not worst <= ROUNDING:
        return Draft(name, states, factors)
    if worst <= 1e-14:
        return Draft(name, states, factors, checked=True)
    printed = off > 1e-14
    widths = np.diff(first_of_row, append=offset)
    flat /= np.repeat(
        np.where(printed, sums, 1.0), widths
    )  # the factors are views of these numbers
    return Draft(name, states, factors, True, True, int(printed.sum()), worst)


def _bulk(
    child: str,
    parents: str | None,
    body: str,
    states: dict[Hashable, tuple[str, ...]],
    odd: set[str],
) -> tuple[tuple[str, ...], tuple[int, ...], int, str] | None:
    """Scope, shape, size and numbers of a block whose rows are all there in the usual order."""
    own = states.get(child)
    if own is None:
        return None
    body = body.rstrip()
    width = len(own)
    if parents is None:
        entries = body[6:-1]
        if (
            body[:6] == "table "
            and body[-1] == ";"
            and entries.count(",") == width - 1
            and ";" not in entries
        ):
            return (child,), (width,), width, entries
        return None
    given = parents.replace(",", " ").split()
    scope = (child, *given)
    if ", ".join(given) != parents.rstrip() or not odd.isdisjoint(given) or child in given:
        return None
    try:
        of = [states[parent] for parent in given]
    except KeyError:
        return None
    split = _LABELS.split(body)
    labels, rows = split[1::2], [row.rstrip() for row in split[2::2]]
    shape, size = (width, *map(len, of)), len(labels)
    expected = 1
    for sizes in shape[1:]:
        expected *= sizes
    if size != expected or split[0] or len({*given}) != len(given) or not given:
        return None
    wanted = list(of[0])
    for later in of[1:]:
        wanted = [f"{label}, {state}" for state in later for label in wanted]
    if labels != wanted or [row.count(",") for row in rows] != [width - 1] * size:
        return None
    # "(" cannot be in a row, so it marks where one ends: each must end with its only ";"
    entries = "(".join(rows)
    if not entries.count(";(") + 1 == entries.count("(") + 1 == entries.count(";") == size:
        return None
    if entries[-1] != ";":
        return None
    return scope, shape, size * width, entries[:-1].replace(";(", ",")


def write_bif(tables: Tables) -> Iterable[str]:
    """The lines of a .bif file, the first parent varying fastest.

    Raises:
        ValueError: a name that the format cannot hold.
    """
    plain, listed = texts(tables)
    names = {variable: _word(name) for variable, name in plain.items()}
    states = {variable: [_word(state) for state in given] for variable, given in listed.items()}
    yield f"network {_word(tables.name or 'unknown')} {{"
    yield "}"
    for variable, name in names.items():
        yield f"variable {name} {{"
        yield f"  type discrete [ {len(states[variable])} ] {{ {', '.join(states[variable])} }};"
        yield "}"
    for (child, *parents), values in tables.factors:
        if not parents:
            yield f"probability ( {names[child]} ) {{"
            yield f"  table {numbers(values, ', ')};"
        else:
            yield f"probability ( {names[child]} | {', '.join(names[p] for p in parents)} ) {{"
            rows = values.T.reshape(-1, values.shape[0])
            slowest_first = product(*(states[parent] for parent in reversed(parents)))
            for labels, row in zip(slowest_first, rows, strict=True):
                yield f"  ({', '.join(labels[::-1])}) {numbers(row, ', ')};"
        yield "}"


def _word(name: str) -> str:
    return name if PLAIN.fullmatch(name) else quoted(name, ".bif")
