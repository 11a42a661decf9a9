"""Names that people mistype."""

import difflib
from collections.abc import Iterable
from typing import Any


def near(word: str, known: Iterable[str]) -> str:
    """'; did you mean ...?' for a misspelt word, or the known ones where they are few."""
    known = list(known)
    folded = {name.lower(): name for name in known}
    found = [folded[name] for name in difflib.get_close_matches(word.lower(), folded, 3, 0.5)]
    if found:
        return f"; did you mean {' or '.join(found)}?"
    return f"; known: {', '.join(known)}" if len(known) <= 12 else ""


def one_of(name: str, value: Any, choices: Iterable[str]) -> None:
    """Refuse a value that is none of the choices, with near matches.

    Raises:
        ValueError: what was given, and what there is.
    """
    choices = list(choices)
    if value not in choices:
        hint = near(str(value), choices)
        hint = hint if "mean" in hint else ""
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}{hint}")
