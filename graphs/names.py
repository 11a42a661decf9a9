"""Names that people mistype: variables, states, files."""

import difflib
from collections.abc import Iterable
from typing import Any


def unknown(kind: str, given: Any, known: Iterable[Any], of: str = "") -> str:
    """'no state "TRU" of HISTORY; did you mean TRUE?', or the known ones where they are few."""
    known = list(known)
    for name in known:
        if str(name) == str(given) and name != given:
            return f"no {kind} {given!r}; there is {name!r}, of type {type(name).__name__}"
    names = [str(name) for name in known]
    folded = {name.lower(): name for name in names}
    close = difflib.get_close_matches(str(given).lower(), folded, 3, 0.5)
    said = f"no {kind} {str(given)!r}" + (f" of {of}" if of else "")
    if close:
        return f"{said}; did you mean {' or '.join(folded[name] for name in close)}?"
    if len(names) <= 12:
        return f"{said}; known: {', '.join(names) or 'none'}"
    return f"{said}; there are {len(names)}, such as {', '.join(names[:5])}"
