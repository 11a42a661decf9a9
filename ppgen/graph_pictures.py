"""`ppgen graph draw`: a picture of a network."""

from typing import Any

from .graph_words import Network, Parser, drawn, new_picture, say_json, say_lines


def draw(argv: list[str]) -> None:
    parser = Parser(
        "draw",
        "NETWORK --out FILE [--observed X ...] [--highlight X ...] [--blanket X] [--factors] "
        "[--json]",
        "Draw a network in layers, parents above their children; a Markov network as the graph "
        "that joins the variables of each table. Variables can be shaded as observed or filled in "
        "yellow, and one of them shown with its Markov blanket. With --factors the picture is the "
        "factor graph instead: a small square for each table, joined to the variables that it is "
        "over.",
        "ppgen graph draw alarm --out alarm.png",
        "ppgen graph draw alarm --out seen.svg --observed HISTORY CVP --highlight LVFAILURE",
        "ppgen graph draw alarm --out blanket.pdf --blanket CATECHOL",
        "ppgen graph draw asia --out factors.png --factors",
    )
    parser.add_argument("network", metavar="NETWORK", help="a name or a file")
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="a .png, .svg or .pdf picture to write"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    parser.add_names("--observed", "variables to shade, as observed ones are by convention")
    parser.add_names("--highlight", "variables to fill in yellow")
    parser.add_argument("--blanket", metavar="X", help="show the Markov blanket of a variable")
    parser.add_argument(
        "--factors", action="store_true", help="draw the factor graph, tables as squares"
    )
    parser.add_argument("--title", metavar="TEXT", help="what to write above the picture")
    options = parser.read(argv)
    if options.factors and options.blanket is not None:
        raise ValueError("--blanket is of the network itself: leave it out, or --factors")
    out = new_picture(options.out, options.overwrite)
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
        "factors": options.factors,
    }
    how = {"observed": observed, "highlight": highlight, "blanket": blanket, "title": options.title}
    shown = network.graph
    if options.factors:
        from graphs.factor_graph import FactorGraph

        shown = FactorGraph.of(network.tables)
    drawn(document, out, shown, **how)
    if options.json:
        say_json(document)
    else:
        say_lines(f"drawn: {out}")
