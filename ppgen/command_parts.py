"""What the subcommands of `ppgen` share: parsing, opening a run, writing files, saying things."""

from pathlib import Path
from typing import Any, Literal

from jsonargparse import Namespace
from rich.console import Console

from .arguments import Parser, model_class


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # `main` knows what to do


def say(content: Any) -> None:
    """Print a line unwrapped, or a table to the terminal's width."""
    _Console().print(content, highlight=False, soft_wrap=isinstance(content, str), markup=False)


def parser(name: str, text: str) -> Parser:
    """The parser of `ppgen NAME`, which says in `text` what it does."""
    return Parser(prog=f"ppgen {name}", description=text)


def parsed(parser: Parser, argv: list[str]) -> Namespace | None:
    """The options on a command line; None where help was asked for, and given."""
    if "-h" in argv or "--help" in argv:
        parser.print_help()
        return None
    return parser.parse_args(argv)


def opened(options: Namespace, with_data: bool) -> Any:
    """The run in `options.run`, its class named by `options.model` where it is not ppgen's own."""
    from .loading import open_run

    cls = None if options.model is None else model_class(options.model)
    return open_run(options.run, cls, with_data=with_data)


def new_file(path: str | Path, overwrite: bool) -> Path:
    """A path to write to, looked at before the work whose result goes there.

    Raises:
        ValueError: there is a file already, or a folder.
        NotADirectoryError: what should be its folder is a file.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a file")
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists: choose another name or add --overwrite")
    place = next(parent for parent in path.parents if parent.exists())
    if not place.is_dir():
        raise NotADirectoryError(f"{path} cannot be written: {place} is not a folder")
    return path


def add_evaluation_options(parser: Parser) -> None:
    """What an evaluation takes besides the run: --particles to --seed."""
    parser.add_argument(
        "--particles",
        type=int | None,
        default=None,
        help="draws of the guide an example, 100 by default; or what else the model's own method "
        "draws, by its own default",
    )
    parser.add_argument(
        "--others",
        type=int | None,
        default=None,
        help="examples for the further methods that some models have, by default few where they "
        "are slow; 0 leaves them out",
    )
    parser.add_argument("--limit", type=int | None, default=None, help="only the first examples")
    parser.add_argument(
        "--split", type=Literal["test", "validation"], default="test", help="which data"
    )
    parser.add_argument("--device", type=str, default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
