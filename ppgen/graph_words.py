"""The words of `ppgen graph`: options, networks, variables and states; and what it prints."""

import argparse
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from graphs.io import read
from graphs.names import unknown

from .graph_rows import new_file
from .names import near


class Parser(argparse.ArgumentParser):
    """Options of one command of `ppgen graph`; complaints are one line, with near matches.

    It needs none of what the other commands' parser imports, so that an answer takes no longer
    than the question.
    """

    def __init__(self, name: str, usage: str, text: str, *examples: str) -> None:
        super().__init__(
            prog=f"ppgen graph {name}",
            usage=f"ppgen graph {name} {usage}",
            description=text,
            epilog="\n".join(["examples:", *(f"  {example}" for example in examples)]),
            formatter_class=_Layout,
            allow_abbrev=False,
        )
        self.add_argument("--json", action="store_true", help="one JSON document on stdout")

    def add_names(self, option: str, text: str, metavar: str = "X") -> None:
        """An option that takes several names; it may also be given several times."""
        self.add_argument(
            option, nargs="+", action="extend", default=[], metavar=metavar, help=text
        )

    def read(self, argv: Sequence[str]) -> argparse.Namespace:
        """The options.

        Raises:
            ValueError: an unknown or incomplete option.
            SystemExit: with status 0, once help is printed.
        """
        return self.parse_args(argv)

    def error(self, message: str) -> Any:  # type: ignore[override]
        strange = re.match(r"unrecognized arguments: (\S+)", message)
        if strange is None:
            raise ValueError(message)
        word = strange.group(1).split("=")[0]
        if not word.startswith("-"):
            raise ValueError(f"one word too many: {word!r}; usage: {self.usage}")
        options = [o for action in self._actions for o in action.option_strings if o != "-h"]
        raise ValueError(f"unknown option {word}{near(word, options)}")


class _Layout(argparse.HelpFormatter):
    """Examples keep their lines, the rest is wrapped."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("examples:"):
            return text
        return super()._fill_text(text, width, indent)


class Network:
    """A network that was named on the command line, whose variables and states are named there too.

    Raises:
        FileNotFoundError, ValueError: see `graphs.load`.
    """

    def __init__(self, source: str) -> None:
        if os.path.isdir(source):
            raise ValueError(f"{source} is a folder: name a network or a file")
        self.tables = read(source)
        self.name = self.tables.name

    @cached_property
    def graph(self) -> Any:
        return self.tables.graph()

    @cached_property
    def names(self) -> dict[str, Any]:
        """The variables by their text: those of .uai files are integers."""
        return {str(variable): variable for variable in self.tables.states}

    def variable(self, text: str) -> Any:
        """The variable of that name.

        Raises:
            ValueError: none is; near matches are named.
        """
        if text not in self.names:
            raise ValueError(unknown("variable", text, self.names))
        return self.names[text]

    def variables(self, words: Iterable[str]) -> list[Any]:
        """The variables of some words, each a name or several separated by commas."""
        parts = [p for word in words for p in ([word] if word in self.names else word.split(","))]
        return list(dict.fromkeys(self.variable(part) for part in parts))

    def assignments(self, option: str, words: Iterable[str]) -> dict[Any, str]:
        """What NAME=VALUE words say. Of names that begin alike, `a` and `a=b`, the longest counts.

        Raises:
            ValueError: a word without =, an unknown variable, or one that occurs twice.
        """
        found: dict[Any, str] = {}
        for word in words:
            places = [match.start() for match in re.finditer("=", word)]
            if not places:
                raise ValueError(f"{option} takes NAME=VALUE; got {word!r}")
            known = [place for place in places if word[:place] in self.names]
            place = known[-1] if known else places[0]
            variable = self.variable(word[:place])
            if variable in found:
                raise ValueError(f"{option} has {variable} twice")
            found[variable] = word[place + 1 :]
        return found

    def evidence(self, words: Iterable[str]) -> dict[Any, Any]:
        """The states of NAME=STATE words.

        Raises:
            ValueError: an unknown variable or state, with near matches.
        """
        found = {}
        for variable, text in self.assignments("--evidence", words).items():
            positions = self.tables.positions[variable]
            if text not in positions:
                raise ValueError(unknown("state", text, positions, str(variable)))
            found[variable] = self.tables.states[variable][positions[text]]
        return found

    def likelihoods(self, words: Iterable[str]) -> dict[Any, list[float]]:
        """The numbers of NAME=NUMBER,NUMBER,... words, one a state.

        Raises:
            ValueError: an unknown variable, not as many numbers as states, no number at all.
        """
        found = {}
        for variable, text in self.assignments("--likelihood", words).items():
            states = self.tables.states[variable]
            wanted = (
                f"--likelihood {variable} needs {len(states)} numbers separated by commas, for "
                f"{', '.join(map(str, states[:8]))}{', ...' if states[8:] else ''}; got {text!r}"
            )
            try:
                numbers = [float(part) for part in text.split(",")]
            except ValueError:
                raise ValueError(wanted) from None
            if len(numbers) != len(states):
                raise ValueError(wanted)
            found[variable] = numbers
        return found


# Printing ---------------------------------------------------------------------------------------


def say_lines(*lines: str) -> None:
    print("\n".join(lines), flush=True)


def say_json(document: Any) -> None:
    print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False), flush=True)


def say_table(heads: Sequence[str], rows: Iterable[Sequence[Any]], numbers: int = 0) -> None:
    """A table: drawn in a terminal, plain columns elsewhere; the last `numbers` aligned right."""
    cells = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    first = len(heads) - numbers
    if not sys.stdout.isatty():
        lines = [list(heads), *cells]
        wide = [max(len(line[i]) for line in lines) for i in range(len(heads))]
        for line in lines:
            aligned = [
                cell.rjust(width) if i >= first else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(line, wide, strict=True))
            ]
            print("  ".join(aligned).rstrip())
        sys.stdout.flush()
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for i, head in enumerate(heads):
        table.add_column(Text(head), justify="right" if i >= first else "left", overflow="fold")
    for line in cells:
        table.add_row(*map(Text, line))
    Console().print(table)


def share(probability: float) -> str:
    """A probability to read: six decimals, or as a power of ten where they would show nothing."""
    return f"{probability:.6f}" if probability == 0 or probability >= 1e-4 else f"{probability:.3e}"


# Pictures ----------------------------------------------------------------------------------------


def add_drawing(parser: Parser) -> None:
    parser.add_argument("--draw", metavar="FILE", help="a .png, .svg or .pdf picture to write")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")


def new_picture(path: str | None, overwrite: bool) -> Path | None:
    """The picture to write, refused before any work where it cannot be; None where none is asked.

    Raises:
        ValueError: another ending, or a file that is there.
        FileNotFoundError: no folder to write in.
    """
    if path is None:
        return None
    from graphs.pictures.drawing import picture_ending

    out = new_file(path, overwrite)
    picture_ending(out)
    return out


def drawn(document: dict[str, Any], out: Path | None, graph: Any, **how: Any) -> None:
    """Draw to a file, and say so in the document."""
    if out is None:
        return
    from graphs.pictures.drawing import draw

    draw(graph, path=out, **how)
    document["drawn"] = str(out)


def say_drawn(out: Path | None) -> None:
    if out is not None:
        say_lines("", f"drawn: {out}")
