"""`ppgen graph draw`: a picture of a network."""

import argparse
from pathlib import Path
from typing import Any

from .graph_words import Network, Parser, drawn, new_picture, say_json, say_lines


def draw(argv: list[str]) -> None:
    parser = Parser(
        "draw",
        "NETWORK --out FILE [--observed X ...] [--highlight X ...] [--blanket X] [--json]",
        "Draw a network in layers, parents above their children. Variables can be shaded as "
        "observed or filled in yellow, and one of them shown with its Markov blanket.",
        "ppgen graph draw alarm --out alarm.png",
        "ppgen graph draw alarm --out seen.svg --observed HISTORY CVP --highlight LVFAILURE",
        "ppgen graph draw alarm --out blanket.pdf --blanket CATECHOL",
    )
    parser.add_argument("network", metavar="NETWORK", help="a name or a file")
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="a .png, .svg or .pdf picture to write"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    parser.add_names("--observed", "variables to shade, as observed ones are by convention")
    parser.add_names("--highlight", "variables to fill in yellow")
    parser.add_argument("--blanket", metavar="X", help="show the Markov blanket of a variable")
    parser.add_argument("--title", metavar="TEXT", help="what to write above the picture")
    options = parser.read(argv)
    out = new_drawing(argparse.Namespace(draw=options.out, overwrite=options.overwrite))
    network = Network(options.network)
    observed, highlight = (network.variables(w) for w in (options.observed, options.highlight))
    blanket = None if options.blanket is None else network.variable(options.blanket)
    if blanket is not None and not network.tables.directed:
        raise ValueError(
            f"{network.name} is a Markov network: --blanket is of directed ones; `ppgen graph "
            "blanket` draws the neighbours"
        )
    document: dict[str, Any] = {
        "network": network.name,
        "observed": [str(v) for v in observed],
        "highlight": [str(v) for v in highlight],
        "blanket": None if blanket is None else str(blanket),
    }
    how = {"observed": observed, "highlight": highlight, "blanket": blanket, "title": options.title}
    drawn(document, out, network.graph, **how)
    if options.json:
        say_json(document)
    else:
        say_lines(f"drawn: {out}")


def new_drawing(options: argparse.Namespace) -> Path | None:
    """The picture to write, refused before any work where it cannot be.

    Raises:
        ValueError: another ending, or a file that is there.
        FileNotFoundError: no folder to write in.
    """
    out = new_picture(options)
    if out is not None:
        from graphs.pictures.drawing import ENDINGS

        if out.suffix.lower().lstrip(".") not in ENDINGS:
            known = ", ".join(f".{name}" for name in ENDINGS)
            raise ValueError(f"{out}: expected a file that ends in one of {known}")
    return out
