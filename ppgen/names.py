"""Names that people mistype."""

import difflib
import importlib
import sys
from collections.abc import Callable, Iterable
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


def imported(path: str, what: str, fits: Callable[[Any], bool]) -> Any:
    """What a dotted path names, in an installed package or in the folder of the caller.

    What the module's own code raises comes through, but for an ImportError.

    Args:
        path: package.module.Name.
        what: what it has to be, for the errors, such as "model".
        fits: which names of the module are offered in place of a wrong one.

    Raises:
        ValueError: the path of a file, no such module or name, an import in it that fails.
    """
    module, _, name = path.rpartition(".")
    if name == "py":
        raise ValueError(f"{what} {path} is a file: name the {what} in it, as in {module}.Name")
    sys.path.insert(0, "")  # as `python -m` does: the caller's own folder
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise ValueError(f"{what} {path}: there is no module {error.name!r}") from None
    except ImportError as error:
        raise ValueError(f"{what} {path}: {error}") from None
    except AttributeError:
        if module not in sys.modules:  # its own code failed
            raise
        known = [key for key, value in vars(sys.modules[module]).items() if fits(value)]
        raise ValueError(f"{what} {path}: {module} has no {name!r}{near(name, known)}") from None
    finally:
        sys.path.remove("")
