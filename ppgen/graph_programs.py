"""`ppgen graph from-program`: the graph of a Pyro program."""

import argparse
import contextlib
import inspect
import json
import sys
from collections.abc import Callable, Iterable
from typing import Any

from graphs.names import unknown

from .graph_words import (
    Parser,
    add_drawing,
    drawn,
    new_picture,
    say_drawn,
    say_json,
    say_lines,
    say_table,
)
from .names import imported, near

IMAGE = (1, 28, 28)  # one example of the models that ppgen knows by a short name
BATCH = 2
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def from_program(argv: list[str]) -> None:
    parser = Parser(
        "from-program",
        "PROGRAM [--method NAME] [--shape N ...] [--args JSON] [--separate A B] [options]",
        "Show the graph of a Pyro program: its sample sites, their plates, which are observed, and "
        "the sites that the distribution of each depends on. PROGRAM is a model's short name, or a "
        "function, a class or an instance that package.module.Name can import from this folder. A "
        "program that takes data is given two examples of zeros.",
        "ppgen graph from-program VAE",
        "ppgen graph from-program VAE --method guide --draw guide.png",
        "ppgen graph from-program ppgen.models.vae.VAE --shape 1 8 8 --args "
        "'{\"latent_dim\":4}' --separate z x",
    )
    parser.add_argument("program", metavar="PROGRAM", help="such as VAE or package.module.Name")
    parser.add_argument(
        "--method", metavar="NAME", help="which method of a class or instance (default model)"
    )
    parser.add_argument(
        "--shape",
        type=int,
        nargs="*",
        metavar="N",
        help=f"of one example, without the batch; no numbers for single ones (default "
        f"{' '.join(map(str, IMAGE))} for ppgen's own models)",
    )
    parser.add_argument(
        "--args",
        metavar="JSON",
        help="what a class is built with, or a function called with: an object of names and "
        "values, or a list; lists of numbers are tensors where a function is called",
    )
    parser.add_argument(
        "--separate", nargs=2, metavar=("A", "B"), help="also whether A and B are d-separated"
    )
    parser.add_names("--given", "the sites that --separate has observed; by default none")
    add_drawing(parser)
    options = parser.read(argv)
    if options.given and options.separate is None:
        raise ValueError("--given goes with --separate A B")
    if any(size < 1 for size in options.shape or ()):
        raise ValueError(f"--shape takes whole numbers from 1; got {_spaced(options.shape)}")
    out = new_picture(options.draw, options.overwrite)
    positional, named = _arguments(options.args)
    with contextlib.redirect_stdout(sys.stderr):  # what the program itself prints is no answer
        program, name = _program(options, positional, named)
        graph = _graph(program, name)
    nodes = dict(graph.nodes(data=True))
    document: dict[str, Any] = {
        "program": name,
        "sites": [
            {
                "name": site,
                "distribution": said["distribution"],
                "observed": said["observed"],
                "plates": list(said["plates"]),
                "parents": list(graph.predecessors(site)),
            }
            for site, said in nodes.items()
        ],
        "observed": [site for site, said in nodes.items() if said["observed"]],
        "plates": list(dict.fromkeys(p for said in nodes.values() for p in said["plates"])),
        "edges": [[a, b] for a, b in graph.edges],
    }
    separation = None
    if options.separate is not None:
        from graphs.trails import explain_separation

        a, b, given = (_sites(graph, w) for w in (*options.separate, options.given))
        separation = explain_separation(graph, a, b, given)
        document["separate"] = {
            "a": list(separation.a),
            "b": list(separation.b),
            "given": list(separation.given),
            "separated": separation.separated,
            "trails": [{"nodes": list(t.nodes), "open": t.open} for t in separation.trails],
        }
        drawn(document, out, separation)
    else:
        drawn(document, out, graph, observed=document["observed"], title=name)
    if options.json:
        say_json(document)
        return
    counted = [_many(len(nodes), "sample site"), _many(graph.number_of_edges(), "edge")]
    say_lines(f"{name}: {', '.join(counted)}", "")
    rows = [
        (
            site["name"],
            site["distribution"],
            "observed" if site["observed"] else "",
            ", ".join(site["plates"]),
            ", ".join(site["parents"]),
        )
        for site in document["sites"]
    ]
    say_table(("site", "distribution", "", "plates", "parents"), rows)
    say_lines("", "edges: " + (", ".join(f"{a} -> {b}" for a, b in graph.edges) or "none"))
    if separation is not None:
        say_lines("", str(separation))
    say_drawn(out)


def _sites(graph: Any, words: str | Iterable[str]) -> list[str]:
    words = [words] if isinstance(words, str) else words
    names = [n for word in words for n in ([word] if word in graph else word.split(","))]
    for name in names:
        if name not in graph:
            raise ValueError(unknown("site", name, graph))
    return names


def _arguments(text: str | None) -> tuple[list[Any], dict[str, Any]]:
    """What --args says, by position or by name.

    Raises:
        ValueError: no JSON, neither a list nor an object.
    """
    try:
        found = json.loads(text or "{}")
    except ValueError as error:
        raise ValueError(f"--args {text} is not JSON: {error}") from None
    if not isinstance(found, dict | list):
        raise ValueError(f"--args takes a JSON object or list, such as '{{\"n\": 3}}'; got {text}")
    return (found, {}) if isinstance(found, list) else ([], found)


# The program ------------------------------------------------------------------------------------


def _program(
    options: argparse.Namespace, positional: list[Any], named: dict[str, Any]
) -> tuple[Callable[[], Any], str]:
    """The program as a function of nothing, whose module Pyro can see, and its name."""
    from functools import partial

    from .models import MODELS

    path, shape = options.program, options.shape
    shape = None if shape is None else tuple(shape)
    found = _named(path)
    if shape is None and found in MODELS.values() and "shape" not in named and not positional:
        shape = IMAGE
    name = path
    if isinstance(found, type):
        found = _built(found, path, shape, positional, named)
        positional, named = [], {}
    method = options.method
    if method is None and callable(getattr(found, "model", None)):
        method = "model"
    if method is not None:
        if positional or named:
            raise ValueError(f"--args is for a class or a function, and {path} is an instance")
        name, found = f"{path}.{method}", _method(found, path, method)
    if shape is None and isinstance(getattr(_owner(found), "shape", None), tuple | list):
        shape = tuple(_owner(found).shape)
    if not callable(found):
        raise ValueError(f"{path} is no program: it is a {type(found).__name__}, not callable")
    data = _data(found, name, shape, positional, named)
    return partial(found, *data, **{key: _tensor(value) for key, value in named.items()}), name


def _method(found: Any, path: str, method: str) -> Any:
    own = getattr(found, method, None)
    if not callable(own):
        known = [n for n in ("model", "guide", "forward") if callable(getattr(found, n, None))]
        raise ValueError(f"{path} has no method {method!r}{near(method, known) if known else ''}")
    return own


def _owner(found: Any) -> Any:
    return getattr(found, "__self__", found)


def _named(path: str) -> Any:
    """What a name of ours or a dotted path of the caller's stands for.

    Raises:
        ValueError: no such name or module, or a module that cannot be imported.
    """
    from .models import MODELS

    if path in MODELS:
        return MODELS[path]
    if not path.rpartition(".")[0]:
        raise ValueError(
            f"unknown program {path!r}{near(path, MODELS)} (or give package.module.Name)"
        )
    try:
        return imported(path, "program", callable)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"program {path} cannot be imported: {_said(error)}") from error


def _built(
    cls: type, path: str, shape: tuple[int, ...] | None, positional: list[Any], named: Any
) -> Any:
    """An instance of a class; `shape` is filled in where the constructor has it."""
    try:
        parameters = inspect.signature(cls).parameters
    except ValueError:
        parameters = {}  # type: ignore[assignment]
    if "shape" in parameters and shape is not None and not positional:
        named = {"shape": shape, **named}
    required = [
        key
        for key, p in list(parameters.items())[len(positional) :]
        if p.default is p.empty and p.kind in (*POSITIONAL, p.KEYWORD_ONLY) and key not in named
    ]
    if required:
        shown = json.dumps(dict.fromkeys(required, 1))
        hint = "--shape, such as --shape 1 28 28" if required == ["shape"] else f"--args '{shown}'"
        raise ValueError(f"{path} is built with {', '.join(required)}: give {hint}")
    try:
        return cls(*positional, **named)
    except Exception as error:
        raise ValueError(f"{path} could not be built: {_said(error)}") from error


def _data(
    program: Any,
    name: str,
    shape: tuple[int, ...] | None,
    positional: list[Any],
    named: dict[str, Any],
) -> list[Any]:
    """What the program is called with by position: what was given, then a batch of zeros.

    A batch is given where one is required, or where the shape of an example is known.

    Raises:
        ValueError: data are required, and their shape is not known.
    """
    import torch

    given = [_tensor(value) for value in positional]
    try:
        call = program.forward if isinstance(program, torch.nn.Module) else program
        parameters = list(inspect.signature(call).parameters.values())
    except ValueError:
        return given
    rest = [p for p in parameters if p.kind in POSITIONAL][len(given) :]
    rest = [p for p in rest if p.name not in named]
    required = [p.name for p in rest if p.default is p.empty]
    if shape is None:
        if required:
            raise ValueError(
                f"{name} takes {', '.join(required)}: give the shape of an example, such as "
                "--shape 1 28 28, for zeros (--shape alone for single numbers)"
            )
        return given
    batches = len(required) or int(bool(rest) and not given)
    given += [torch.zeros(BATCH, *shape) for _ in range(batches)]
    classes = getattr(_owner(program), "num_classes", None)
    if isinstance(classes, int) and len(rest) > batches == 1:  # a label follows the examples
        given.append(torch.zeros(BATCH, dtype=torch.long))
    return given


def _tensor(value: Any) -> Any:
    """A list of numbers, of any depth, as a tensor; all else as it is."""
    import torch

    if not isinstance(value, list):
        return value
    try:
        return torch.tensor(value)
    except (TypeError, ValueError):
        return value


def _graph(program: Any, name: str) -> Any:
    """The graph of a program of the caller's, whose own failures come back as one line."""
    from graphs.bridge import from_pyro

    try:
        return from_pyro(program.func, *program.args, **program.keywords)
    except Exception as error:
        raise ValueError(f"{name} does not run: {_said(error)}") from error


def _said(error: Exception) -> str:
    text = str(error)
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _spaced(numbers: Iterable[int]) -> str:
    return " ".join(map(str, numbers))
