"""The Hugin format (.net) of discrete Bayesian networks.

Source: HUGIN Expert A/S, The HUGIN API reference manual, chapter on the NET language. In `data` the
first parent varies slowest and the child fastest; parentheses show the axes.
"""

from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np

from ..tables import Factor, Tables
from .text import Cursor, Draft, blanked, distinct, number, quoted, shape_of, texts, unquoted

_PUNCTUATION = "{}()=;|"
_REFUSED = {
    "continuous": "continuous nodes",
    "utility": "utility nodes",
    "decision": "decision nodes",
    "function": "function nodes",
    "class": "classes",
    "instance": "instances of classes",
    "model_nodes": "tables given by expressions",
    "model_data": "tables given by expressions",
}


def read_net(text: str) -> Draft:
    """What a .net file says: `net`, `node` and `potential` blocks.

    Comments (`%`) and attributes that say nothing about probabilities (label, position, ...) are
    skipped.

    Raises:
        ValueError: names the line; also for utility, decision, continuous and function nodes,
            classes, and tables given by expressions.
    """
    cursor = Cursor(blanked(text, r"%[^\n]*"), _PUNCTUATION)
    name, begun = "", False
    states: dict[Hashable, tuple[str, ...]] = {}
    found: dict[Hashable, Factor] = {}
    while not cursor.finished():
        word = cursor.next("a block")
        at = cursor.start
        if word in _REFUSED:
            raise cursor.error(f"{_REFUSED[word]} ({word!r}) are not read; only discrete nodes are")
        if word == "net" and not begun:
            name, begun = _net(cursor), True
        elif not begun:
            raise cursor.error(f"a .net file begins with 'net {{ }}'; got {word!r}")
        elif word in ("node", "discrete"):
            if word == "discrete":
                cursor.skip("node")
            variable, kept = _node(cursor)
            if variable in states:
                raise cursor.error(f"the node {variable} is declared twice", at)
            states[variable] = kept
        elif word == "potential":
            factor = _potential(cursor, states)
            if factor.variables[0] in found:
                raise cursor.error(f"{factor.variables[0]} has two potentials", at)
            found[factor.variables[0]] = factor
        else:
            raise cursor.error(f"expected 'node' or 'potential', got {word!r}")
    missing = [str(variable) for variable in states if variable not in found]
    if missing:
        raise cursor.error(f"no potential for {', '.join(missing[:8])} up to the end", len(text))
    if not states:
        raise cursor.error("the file declares no node; it is cut short or no network", len(text))
    return Draft(name, states, [found[variable] for variable in states])


def _net(cursor: Cursor) -> str:
    cursor.skip("{")
    name = ""
    while (word := cursor.next("'}'")) != "}":
        value = _attribute(cursor, word)
        if word == "name" and len(value) == 1:
            name = unquoted(value[0])
    return name


def _attribute(cursor: Cursor, word: str) -> list[str]:
    """The tokens between `word =` and `;`."""
    if word in _REFUSED:
        raise cursor.error(f"{_REFUSED[word]} ({word!r}) are not read; only numbers are")
    if word in _PUNCTUATION or word[0] == '"':
        raise cursor.error(f"expected an attribute or '}}', got {word!r}")
    cursor.skip("=")
    tokens = []
    while (token := cursor.next("';'")) != ";":
        if token in ("{", "}", "="):
            raise cursor.error(f"expected ';' at the end of {word}, got {token!r}")
        tokens.append(token)
    if not tokens:
        raise cursor.error(f"the attribute {word} has no value")
    return tokens


def _node(cursor: Cursor) -> tuple[str, tuple[str, ...]]:
    variable, at = cursor.name("a node"), cursor.start
    cursor.skip("{")
    states = None
    while (word := cursor.next("'}'")) != "}":
        start = cursor.start
        value = _attribute(cursor, word)
        if word != "states":
            continue
        if states is not None:
            raise cursor.error(f"{variable} has two lists of states", start)
        listed = value[1:-1]
        if value[0] != "(" or value[-1] != ")" or any(item in _PUNCTUATION for item in listed):
            raise cursor.error(f'the states of {variable} must be written ("a" "b" ...)', start)
        try:
            states = distinct([unquoted(item) for item in listed], len(listed), variable)
        except ValueError as error:
            raise cursor.error(str(error), start) from None
    if not states:
        raise cursor.error(f"the node {variable} has no states", at)
    return variable, states


def _potential(cursor: Cursor, states: dict[Hashable, tuple[str, ...]]) -> Factor:
    at = cursor.start
    cursor.skip("(")
    child = cursor.name("a node")
    parents = []
    token = cursor.next("'|' or ')'")
    if token == "|":
        while (token := cursor.next("')'")) != ")":
            if token in _PUNCTUATION:
                raise cursor.error(f"expected a node or ')', got {token!r}")
            parents.append(unquoted(token))
    elif token != ")":
        raise cursor.error(f"expected '|' or ')' behind {child}, got {token!r}: one child a table")
    try:
        shape = shape_of(child, parents, states)
    except ValueError as error:
        raise cursor.error(str(error), at) from None
    cursor.skip("{")
    values = None
    while (word := cursor.next("'}'")) != "}":
        start = cursor.start
        tokens = _attribute(cursor, word)
        if word != "data":
            continue
        if values is not None:
            raise cursor.error(f"the potential of {child} has its data twice", start)
        try:
            values = _data(tokens, (*shape[1:], shape[0]), child)
        except ValueError as error:
            raise cursor.error(str(error), start) from None
    if values is None:
        raise cursor.error(f"the potential of {child} has no data", at)
    return Factor((child, *parents), np.moveaxis(values, -1, 0))


def _data(tokens: list[str], shape: tuple[int, ...], child: str) -> np.ndarray:
    """Numbers in one pair of parentheses, or in one pair for each row of each axis."""
    given = [number(token) for token in tokens if token not in "()"]
    if len(given) != np.prod(shape):
        raise ValueError(
            f"the data of {child} has {len(given)} numbers; expected {np.prod(shape)}, "
            f"{' x '.join(map(str, shape))}"
        )
    marks = "".join(token if token in "()" else "." for token in tokens)
    nested = "." * shape[-1]
    for size in (*reversed(shape[:-1]), 1):
        nested = f"({nested})" * size
    if marks not in (nested, "(" + "." * len(given) + ")"):
        raise ValueError(f"the parentheses of the data of {child} do not follow its axes, {shape}")
    return np.array(given).reshape(shape)


def write_net(tables: Tables) -> Iterable[str]:
    """The lines of a .net file.

    Raises:
        ValueError: a name that the format cannot hold.
    """
    names, states = texts(tables)
    for name in names.values():
        if not (name.isascii() and name.isidentifier()):
            raise ValueError(
                ".net files name nodes with letters, digits and underscores, a letter first; "
                f"{name!r} is none: rename it, or save as .bif"
            )
    yield "net {"
    if tables.name:
        yield f"  name = {quoted(tables.name, '.net')};"
    yield "}"
    for variable, name in names.items():
        yield f"node {name} {{"
        yield f"  states = ({' '.join(quoted(state, '.net') for state in states[variable])});"
        yield "}"
    for (child, *parents), values in tables.factors:
        given = f" | {' '.join(names[parent] for parent in parents)}" if parents else ""
        yield f"potential ({names[child]}{given}) {{"
        yield f"  data = {_nested(np.moveaxis(values, 0, -1).tolist())};"
        yield "}"


def _nested(values: Any) -> str:
    if not isinstance(values[0], list):
        return f"({' '.join(map(repr, values))})"
    return f"({''.join(map(_nested, values))})"
