"""What the readers and writers of files share: tokens with their lines, numbers, names; and UAI."""

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..names import unknown
from ..tables import Factor, Tables

LARGEST = 2**27  # entries of one table, 1 GiB: a few bytes of a broken file must not ask for more
PLAIN = re.compile(r"[A-Za-z0-9_.+<>=-]+")  # names that every dialect of a format reads unquoted
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_SPACE = re.compile(r"\s*")
_COUNT = re.compile(r"[0-9]{1,12}")


class Draft(NamedTuple):
    """What a file says, before the laws of probability are checked.

    `checked` says that the factors are in the order of the states, that no entry is negative and
    that every column sums to one: seen while reading, where it costs least. `rounded` columns were
    renormalised for that, which were off by up to `worst`.
    """

    name: str
    states: dict[Hashable, tuple[Any, ...]]
    factors: list[Factor]
    directed: bool = True
    checked: bool = False
    rounded: int = 0
    worst: float = 0.0


class Cursor:
    """The tokens of a text one after the other; a token keeps its quotes."""

    def __init__(self, text: str, punctuation: str, at: int = 0) -> None:
        marks = re.escape(punctuation)
        single = f"|[{marks}]" if marks else ""
        self._token = re.compile(rf'\s*("[^"\n]*"|[^\s"{marks}]+{single})')
        self.punctuation, self.text, self.at, self.start = punctuation, text, at, at

    def next(self, expected: str) -> str:
        found = self._token.match(self.text, self.at)
        if not found:
            rest = self.text[self.at :].lstrip()
            self.start = len(self.text) - len(rest)
            if rest:
                raise self.error('a quotation mark " is not closed on its line')
            raise self.error(f"the file ends where {expected} should follow; it is cut short")
        self.start, self.at = found.start(1), found.end()
        return found[1]

    def peek(self) -> str:
        """The next token, or the empty text at the end."""
        found = self._token.match(self.text, self.at)
        return found[1] if found else ""

    def skip(self, *tokens: str) -> None:
        for token in tokens:
            given = self.next(repr(token))
            if given != token:
                raise self.error(f"expected {token!r}, got {given!r}")

    def name(self, kind: str) -> str:
        token = self.next(kind)
        if token in self.punctuation:
            raise self.error(f"expected {kind}, got {token!r}")
        return unquoted(token)

    def rest(self) -> int:
        """Where the next token begins, or the end of the text."""
        found = _SPACE.match(self.text, self.at)
        return found.end() if found else self.at

    def finished(self) -> bool:
        return self.rest() == len(self.text)

    def error(self, message: str, at: int | None = None) -> ValueError:
        return problem(self.text, self.start if at is None else at, message)


def problem(text: str, at: int, message: str) -> ValueError:
    """The error at a place of a text, with its line."""
    return ValueError(f"line {text.count(chr(10), 0, at) + 1}: {message}")


def unquoted(token: str) -> str:
    return token[1:-1] if token[:1] == '"' else token


def number(token: str) -> float:
    """A decimal number; a `ValueError` without a line where it is none."""
    if not _NUMBER.fullmatch(token):
        raise ValueError(f"{token!r} is not a number")
    return float(token)


def count(token: str, what: str) -> int:
    """A whole number that is not negative."""
    if not _COUNT.fullmatch(token):
        raise ValueError(f"{what} must be a whole number; got {token!r}")
    return int(token)


def blanked(text: str, comment: str) -> str:
    """The text with spaces for its comments, so that every place keeps its line.

    Args:
        comment: a regular expression; what it matches is a comment outside quotation marks.
    """

    def blank(found: re.Match[str]) -> str:
        if found[0][0] == '"':
            return found[0]
        if found[0] == "/*":
            raise problem(text, found.start(), "the comment /* is not closed")
        return re.sub(r"[^\n]", " ", found[0])

    return re.sub(rf'"[^"\n]*"|{comment}', blank, text, flags=re.DOTALL)


def distinct(states: Sequence[str], declared: int, variable: str) -> tuple[str, ...]:
    """The states of a variable, checked against the number that the file declares."""
    if len(states) != declared:
        raise ValueError(f"{variable} declares {declared} states and lists {len(states)}")
    if len(set(states)) != declared:
        twice = next(state for state in states if states.count(state) > 1)
        raise ValueError(f"{variable} has the state {twice!r} twice")
    return tuple(states)


def shape_of(
    child: str, parents: Sequence[str], states: Mapping[Hashable, Sequence[Any]]
) -> tuple[int, ...]:
    """The numbers of states of a child and its parents, all of which must be known and distinct."""
    for kind, name in [("variable", child), *(("parent", parent) for parent in parents)]:
        if name not in states:
            raise ValueError(unknown(kind, name, states, "" if name is child else child))
    if len({child, *parents}) != 1 + len(parents):
        raise ValueError(f"the table of {child} names a variable twice: {', '.join(parents)}")
    shape = tuple(len(states[name]) for name in (child, *parents))
    entries = 1
    for size in shape:
        entries *= size
    if entries > LARGEST:
        raise ValueError(f"the table of {child} would have {entries} entries, over {LARGEST}")
    return shape


def texts(tables: Tables) -> tuple[dict[Hashable, str], dict[Hashable, list[str]]]:
    """The names of variables and states as text, for a file.

    Raises:
        ValueError: two variables with the same text, such as 1 and '1'.
    """
    names = {variable: str(variable) for variable in tables.states}
    if len(set(names.values())) != len(names):
        given = list(names.values())
        twice = next(name for name in given if given.count(name) > 1)
        raise ValueError(f"two variables are both written {twice!r}; rename one of them")
    return names, {variable: [str(s) for s in states] for variable, states in tables.states.items()}


def quoted(name: str, ending: str) -> str:
    """A name in quotation marks.

    Raises:
        ValueError: a name with a quotation mark or a line break, which the format cannot hold.
    """
    if set(name) & set('"\n\r\0'):
        raise ValueError(
            f"{ending} files cannot hold the name {name!r}: a quoted name has no quotation "
            "mark, line break or zero byte in it; rename it"
        )
    return f'"{name}"'


def numbers(values: np.ndarray, separator: str) -> str:
    """Every entry by `repr`, which reads back to the same bits."""
    return separator.join(map(repr, values.ravel().tolist()))


def read_uai(text: str) -> Draft:
    """The UAI format: BAYES or MARKOV, cardinalities, scopes, tables, the last variable fastest.

    In a BAYES file the last variable of a scope is the child. Variables are the integers from 0,
    and so are states: the format has no names. Source: UAI inference competitions, model format.

    Raises:
        ValueError: names the line.
    """
    cursor = Cursor(blanked(text, "#[^\n]*"), "")
    kind = cursor.next("BAYES or MARKOV")
    if kind not in ("BAYES", "MARKOV"):
        raise cursor.error(f"a UAI file begins with BAYES or MARKOV; got {kind!r}")

    def whole(what: str) -> int:
        token = cursor.next(what)
        try:
            return count(token, what)
        except ValueError as error:
            raise cursor.error(str(error)) from None

    sizes = []
    for variable in range(whole("the number of variables")):
        sizes.append(whole(f"the number of states of variable {variable}"))
        if not sizes[-1]:
            raise cursor.error(f"variable {variable} has no states")
    if not sizes:
        raise cursor.error("the file declares no variable")
    if sum(sizes) > max(len(text), 2**20):
        raise cursor.error(f"{sum(sizes)} states are more than the file has tables for")
    scopes: list[list[int]] = []
    for factor in range(whole("the number of tables")):
        scope = [whole(f"a variable of table {factor}") for _ in range(whole("a scope's length"))]
        if any(variable >= len(sizes) for variable in scope):
            raise cursor.error(
                f"table {factor} is over {scope}; the last variable is {len(sizes) - 1}"
            )
        if len(set(scope)) != len(scope):
            raise cursor.error(f"table {factor} names a variable twice: {scope}")
        if kind == "BAYES" and (not scope or any(scope[-1] == given[-1] for given in scopes)):
            raise cursor.error(f"table {factor} is of no variable, or of one that has a table")
        scopes.append(scope)
    factors = []
    for index, scope in enumerate(scopes):
        shape = tuple(sizes[variable] for variable in scope)
        entries, declared = 1, whole(f"the number of entries of table {index}")
        for size in shape:
            entries *= size
        if declared != entries:
            raise cursor.error(f"table {index} over {scope} has {entries} entries, not {declared}")
        given = []
        for _ in range(entries):
            token = cursor.next(f"an entry of table {index}")
            try:
                given.append(number(token))
            except ValueError as error:
                raise cursor.error(str(error)) from None
        values = np.array(given).reshape(shape)
        if kind == "BAYES":
            scope, values = [scope[-1], *scope[:-1]], np.moveaxis(values, -1, 0)
        elif not (np.isfinite(values).all() and (values >= 0).all()):
            raise cursor.error(f"table {index} has an entry that is negative or infinite")
        factors.append(Factor(tuple(scope), values))
    if not cursor.finished():
        raise cursor.error(f"{cursor.next('nothing')!r} follows where the file should end")
    states: dict[Hashable, tuple[int, ...]] = {i: (*range(k),) for i, k in enumerate(sizes)}
    return Draft("", states, factors, kind == "BAYES")


def write_uai(tables: Tables) -> Iterable[str]:
    """The lines of a UAI file; variables and states become integers, in their order."""
    index = {variable: i for i, variable in enumerate(tables.states)}
    yield "BAYES" if tables.directed else "MARKOV"
    yield str(len(index))
    yield " ".join(str(len(states)) for states in tables.states.values())
    yield str(len(tables.factors))
    for variables, _ in tables.factors:
        scope = [*variables[1:], variables[0]] if tables.directed else variables
        yield " ".join(map(str, [len(scope), *(index[variable] for variable in scope)]))
    for _, values in tables.factors:
        yield ""
        yield str(values.size)
        yield numbers(np.moveaxis(values, 0, -1) if tables.directed else values, " ")
