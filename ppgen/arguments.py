"""Options of the commands: from the words of a command line, a saved run and constructors."""

import inspect
import re
from pathlib import Path
from typing import Any, get_args

import docstring_parser
import yaml
from jsonargparse import ArgumentParser

from .names import imported, near
from .run import read_yaml

# Set by the data set, or by options of the command.
SKIPPED = {"shape", "levels", "num_classes", "data_size", "condition_shape", "name"}


class Parser(ArgumentParser):
    """A parser whose complaints are one line, with near matches; options are never shortened."""

    def __init__(self, **options: Any) -> None:
        super().__init__(exit_on_error=False, allow_abbrev=False, **options)

    def error(self, message: str, ex: Exception | None = None) -> Any:  # type: ignore[override]
        text = " ".join(message.split())
        unknown = re.match(r"[Uu]nrecognized arguments: (\S+)", text)
        if unknown:
            word = unknown.group(1).split("=")[0]
            known = [option for action in self._actions for option in action.option_strings]
            options = [o for o in known if o.startswith("--") and not o.endswith("+")]
            raise ValueError(f"unknown option {word}{near(word, options)}")
        key = re.match(r'(?:Parser key|Validation failed for key|Key) "?([\w.]+)"?:? ?(.*)', text)
        if key:
            raise ValueError(f"--{key.group(1)}: {_expectation(key.group(2))}")
        raise ValueError(text)


def _expectation(text: str) -> str:
    """What jsonargparse says of a value that does not fit its type, in few words."""
    wanted = re.findall(r"(?:Expected an?|Subtypes:) (.*?)(?:\. Got| Errors:| - |$| Given)", text)
    given = re.search(r"Given value: (.*)$", text) or re.search(r"Got value: (.*)$", text)
    if not wanted or given is None:
        return text
    union = re.fullmatch(r"\[(.*)\]", wanted[0])
    names = union.group(1) if union else wanted[0]
    for pattern, plain in (
        (r"collections\.abc\.Sequence\[int\]|<class 'collections\.abc\.Sequence'>",
         "a list such as [64, 64]"),
        (r", <class 'NoneType'>", ""),  # `null` is for files
        (r"<class '(?:\w+\.)*(\w+)'>", r"\1"),
        (r"typing\.Literal\[(.*?)\]", r"\1"),
        (r"typing\.", ""),
    ):  # fmt: skip
        names = re.sub(pattern, plain, names)
    words = re.findall(r"'(\w+)'", names)
    hint = near(given.group(1), words) if words else ""
    return f"expected {names}; got {given.group(1)!r}{hint if 'mean' in hint else ''}"


def _class(path: str, what: str) -> type:
    """The class behind a dotted path that the caller wrote."""
    found = imported(path, what, inspect.isclass)
    if not isinstance(found, type):
        raise ValueError(f"{what} {path} is not a class")
    return found


def model_class(name: str) -> type:
    """A model by its short name, or a class by its dotted path.

    Raises:
        ValueError: unknown name, absent module, or a class without `model`.
    """
    from torch import nn

    from .models import MODELS

    known = {f"{c.__module__}.{c.__qualname__}": c for c in MODELS.values()} | MODELS
    if name in known:
        return known[name]
    if "." not in name:
        raise ValueError(
            f"unknown model {name!r}{near(name, MODELS)} (or give package.module.Class)"
        )
    found = _class(name, "model")
    if not (issubclass(found, nn.Module) and callable(getattr(found, "model", None))):
        raise ValueError(
            f"{name} is not a program: it needs to be a PyroModule with a method `model`"
        )
    return found


def objective_class(name: str) -> type:
    """An objective of ours by its short name, or ours or Pyro's by its dotted path."""
    from pyro.infer import ELBO as PyroELBO

    from . import objective

    ours = {c.__name__: c for c in (objective.ELBO, objective.ImportanceWeightedELBO)}
    if name in ours:
        return ours[name]
    if "." not in name:
        raise ValueError(
            f"unknown objective {name!r}{near(name, ours)} (or give package.module.Class)"
        )
    found = _class(name, "objective")
    if not issubclass(found, (objective.Objective, PyroELBO)):
        raise ValueError(f"{name} is neither an Objective nor one of Pyro's ELBOs")
    return found


def flags(argv: list[str]) -> dict[str, str | None]:
    """The options that appear on a command line, with their values where they have one."""
    found: dict[str, str | None] = {}
    for index, word in enumerate(argv):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            following = argv[index + 1] if index + 1 < len(argv) else None
            plain = following if following is not None and not following.startswith("--") else None
            found[name] = value if equals else plain
    return found


def _as_arguments(config: dict[str, Any], prefix: str = "") -> list[str]:
    """A configuration as the words of a command line, so that there is one way to read options."""
    words = []
    for key, value in config.items():
        if isinstance(value, dict) and "class_path" in value:
            words.append(f"--{key}={value['class_path']}")
            words += _as_arguments(value.get("init_args") or {}, f"{key}.")
        else:
            text = yaml.safe_dump(value, default_flow_style=True, width=10**6)
            words.append(f"--{prefix}{key}={text.removesuffix('...' + chr(10)).strip()}")
    return words


def saved(path: Path, flags: dict[str, str | None]) -> list[str]:
    """A saved configuration as words; classes that are not ours have to be named by the caller."""
    config = read_yaml(path)
    for key in ("out", "config", "resume", "overwrite"):
        config.pop(key, None)  # where to write is for the caller to say, not for a file
    for key in ("model", "objective"):
        described = config.get(key)
        if described is None:
            config.pop(key, None)
            continue
        if not isinstance(described, dict) or "class_path" not in described:
            raise ValueError(f"{path}: {key} has no class_path")
        if described.get("init_args") is None:
            raise ValueError(
                f"{path}: the arguments of {described['class_path']} were not written down"
            )
        if _nested_class(described["init_args"]):
            raise ValueError(
                f"{path}: {key} names further classes in its arguments: give them yourself"
            )
        given = flags.get(key)
        ours = str(described["class_path"]).startswith(("ppgen.", "pyro.infer."))
        if not ours and given != described["class_path"]:
            raise ValueError(
                f"{path}: {key} is {described['class_path']}, which is not ppgen's own: name it "
                f"yourself with --{key} {described['class_path']}"
            )
    for key, other in (("epochs", "steps"), ("steps", "epochs")):
        if key in flags:
            config.pop(other, None)
    if "data" in flags:
        config.pop("data", None)
    elif config.get("data", "") is None:
        raise ValueError(f"{path}: the run's data were tensors, not a named source: give --data")
    return _as_arguments(config)


def _nested_class(value: Any) -> bool:
    if isinstance(value, dict):
        return "class_path" in value or any(_nested_class(item) for item in value.values())
    return isinstance(value, list) and any(_nested_class(item) for item in value)


def add_class(parser: Parser, key: str, cls: type, text: str) -> None:
    """The constructor's arguments as --key.name options; modules cannot be given in words."""
    hints: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if "__init__" in vars(base):
            hints |= inspect.get_annotations(vars(base)["__init__"])
    from torch import nn

    skip = (SKIPPED | {"program"}) & set(inspect.signature(cls).parameters)
    modules = {
        name: [part for part in get_args(hint) if part is not type(None)]
        for name, hint in hints.items()
        if any(isinstance(p, type) and issubclass(p, nn.Module) for p in (hint, *get_args(hint)))
    }
    parser.add_class_arguments(cls, key, skip=skip | set(modules))
    group = (parser.groups or {})[key]
    group.title = f"{key} {cls.__name__}"
    head = next(action for action in group._group_actions if action.option_strings == [f"--{key}"])
    head.help, head.metavar = text, "NAME"
    parameters = inspect.signature(cls).parameters
    for name, parts in modules.items():
        if str in parts and name in parameters:
            group.add_argument(
                f"--{key}.{name}",
                type=str | None if type(None) in get_args(hints[name]) else str,
                default=parameters[name].default,
                help=_documented(cls, name),
            )


def _documented(cls: type, name: str) -> str:
    style = docstring_parser.DocstringStyle.GOOGLE
    parsed = docstring_parser.parse(inspect.getdoc(cls) or "", style)
    return next((p.description or "" for p in parsed.params if p.arg_name == name), "")


def without(words: list[str], *names: str) -> list[str]:
    """A command line without some options and their values."""
    kept, skip = [], False
    for word in words:
        if skip:
            skip = False
            continue
        if word in [f"--{name}" for name in names]:
            skip = True
        elif not word.startswith(tuple(f"--{name}=" for name in names)):
            kept.append(word)
    return kept
