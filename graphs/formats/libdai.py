"""The factor graph format of libDAI (.fg).

Source: J. M. Mooij, "libDAI: a free and open source C++ library for discrete approximate inference
in graphical models", JMLR 11 (2010), and the chapter on file formats of its reference manual.
"""

import math
import re
from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING

import numpy as np

from ..factor_groups import AXES
from ..tables import Factor, Tables
from .text import LARGEST, Draft, blanked, count, number, problem

if TYPE_CHECKING:
    from ..factor_graph import FactorGraph

_TOKEN = re.compile(r"\S+")
DIGITS = 12  # of a variable's name


def read_fg(text: str) -> Draft:
    """What a .fg file says: the number of factors, and then a block for each.

    A block has the number of variables, their labels, their numbers of states, the number of
    entries that are not zero, and those, each with its index in the table, in which the first
    variable varies fastest. Labels are whole numbers, which may leave gaps; they are the variables'
    names, in increasing order, and states are the integers from 0. Comments begin with #.

    Raises:
        ValueError: names the line.
    """
    words = _Words(blanked(text, "#[^\n]*"))
    sizes: dict[int, int] = {}
    factors = []
    total = 0
    for index in range(words.whole("the number of factors")):
        length = words.whole(f"the number of variables of factor {index}")
        if length > AXES:
            raise words.error(f"factor {index} has {length} variables, over {AXES}")
        scope = words.wholes(length, f"a variable of factor {index}")
        if len(set(scope)) != length:
            raise words.error(f"factor {index} names a variable twice: {scope}")
        shape = words.wholes(length, f"a number of states of factor {index}")
        for variable, size in zip(scope, shape, strict=True):
            if not size:
                raise words.error(f"variable {variable} has no states")
            if sizes.setdefault(variable, size) != size:
                raise words.error(
                    f"factor {index} has {size} states for variable {variable}, which has "
                    f"{sizes[variable]} before"
                )
        entries = math.prod(shape)
        total += entries
        if total > LARGEST:
            raise words.error(
                f"the tables up to that of factor {index} would have {total} entries, over "
                f"{LARGEST}"
            )
        factors.append(Factor(tuple(scope), _table(words, index, shape, entries)))
    if not words.finished():
        raise words.error(f"{words.next('nothing')!r} follows where the file should end")
    if not sizes:
        raise words.error("the file declares no variable")
    states: dict[Hashable, tuple[int, ...]] = {v: (*range(sizes[v]),) for v in sorted(sizes)}
    return Draft("", states, factors, directed=False)


def _table(words: "_Words", index: int, shape: list[int], entries: int) -> np.ndarray:
    listed = words.whole(f"the number of non-zero entries of factor {index}")
    if listed > entries:
        raise words.error(f"factor {index} has {entries} entries, not {listed}")
    values = np.zeros(entries)
    seen: set[int] = set()
    for _ in range(listed):
        at = words.whole(f"the index of an entry of factor {index}")
        if at >= entries:
            raise words.error(f"factor {index} has entries 0 to {entries - 1}; got {at}")
        if at in seen:
            raise words.error(f"factor {index} has the entry {at} twice")
        seen.add(at)
        values[at] = words.potential(f"entry {at} of factor {index}")
    return np.asarray(values.reshape(shape, order="F"), order="C")


class _Words:
    """The words of a text one after the other; lines are counted only for errors."""

    def __init__(self, text: str) -> None:
        self.text, self.words, self.at = text, text.split(), 0

    def next(self, expected: str) -> str:
        if self.finished():
            message = f"the file ends where {expected} should follow; it is cut short"
            raise problem(self.text, len(self.text.rstrip()), message)
        self.at += 1
        return self.words[self.at - 1]

    def whole(self, what: str) -> int:
        word = self.next(what)
        try:
            return count(word, what)
        except ValueError as error:
            raise self.error(str(error)) from None

    def wholes(self, length: int, what: str) -> list[int]:
        return [self.whole(what) for _ in range(length)]

    def potential(self, what: str) -> float:
        word = self.next(what)
        try:
            value = number(word)
        except ValueError as error:
            raise self.error(f"{what}: {error}") from None
        if not 0 <= value < math.inf:
            raise self.error(f"{what} must be finite and not negative; got {word}")
        return value

    def finished(self) -> bool:
        return self.at == len(self.words)

    def error(self, message: str) -> ValueError:
        """The error at the word that was read last."""
        places = (found.start() for found in _TOKEN.finditer(self.text))
        start = next((at for i, at in enumerate(places) if i == self.at - 1), 0)
        return problem(self.text, start, message)


def write_fg(tables: Tables) -> Iterable[str]:
    """The lines of a .fg file; a variable without a factor gets one of ones.

    Raises:
        ValueError: a variable whose name is no whole number.
    """
    for variable in tables.states:
        whole = isinstance(variable, (int, np.integer)) and not isinstance(variable, bool)
        if not (whole and str(variable).isdigit() and len(str(variable)) <= DIGITS):
            raise ValueError(
                f".fg files hold numbers only: variables are named by whole numbers from 0; got "
                f"{variable!r}: rename it, or save as .uai, which numbers the variables"
            )
    named = {variable for variables, _ in tables.factors for variable in variables}
    bare = [
        Factor((variable,), np.ones(len(states)))
        for variable, states in tables.states.items()
        if variable not in named
    ]
    yield str(len(tables.factors) + len(bare))
    for variables, values in [*tables.factors, *bare]:
        flat = values.ravel(order="F")
        kept = np.flatnonzero(flat)
        yield ""
        yield str(len(variables))
        yield " ".join(map(str, variables))
        yield " ".join(map(str, values.shape))
        yield str(len(kept))
        for at, value in zip(kept.tolist(), flat[kept].tolist(), strict=True):
            yield f"{at} {value!r}"


def potentials(graph: "FactorGraph") -> Tables:
    """The potentials of a factor graph themselves, exp(log psi), for a file of linear tables.

    Raises:
        ValueError: a batch of several fields, or a log-table with an entry whose exponential no
            float64 holds with all its digits; it is then not written at all.
    """
    factors = []
    for index, (variables, given) in enumerate(graph.single().factors):
        table = given.detach().cpu() if hasattr(given, "detach") else given
        logs = np.asarray(table, np.float64)
        with np.errstate(over="ignore", under="ignore"):
            values = np.exp(logs)
        lost = np.isfinite(logs) & ~((values >= np.finfo(np.float64).tiny) & np.isfinite(values))
        if lost.any():
            raise ValueError(
                f"factor {index} over {', '.join(map(str, variables)) or 'no variable'} has the "
                f"log-potential {logs[lost].flat[0]:.6g}, whose exponential no float64 holds; "
                "subtract a constant from its log-table, which changes log Z by as much"
            )
        factors.append(Factor(variables, values))
    return Tables(graph.states, factors, name=graph.name)
