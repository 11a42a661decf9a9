"""The command `ppgen graph`, and what it says of independence: separation and blankets."""

import os
import sys
from collections.abc import Callable
from typing import Any

from .graph_chains import chain
from .graph_denoise import denoise
from .graph_learning import learn
from .graph_pictures import draw
from .graph_programs import from_program
from .graph_queries import query
from .graph_samples import sample
from .graph_show import show
from .graph_words import (
    Network,
    Parser,
    add_drawing,
    drawn,
    new_picture,
    say_drawn,
    say_json,
    say_lines,
)
from .names import near

COMMANDS = {
    "show": "what a network is, or one of its variables; without a name, which networks there are",
    "separate": "whether some variables are separated from others, and what blocks each trail",
    "blanket": "the Markov blanket of a variable: parents, children, co-parents; or neighbours",
    "query": "exact posteriors given evidence, for one case or for a file of them",
    "sample": "rows drawn from a network, also given evidence",
    "draw": "a picture of a network",
}
OTHERS = {  # their first word is no network
    "learn": "a network from rows: its structure, or the tables of one that is given",
    "from-program": "the graph of a Pyro program: sites, plates and what depends on what",
    "chain": "a Markov chain from its transition probabilities",
    "denoise": "a noisy image restored under a Markov random field",
}
HELP = """usage: ppgen graph COMMAND NETWORK [options]

Discrete Bayesian and Markov networks: look at them, question them exactly, draw rows from them,
learn them from rows; the graphs of Pyro programs, Markov chains, and images restored.
NETWORK is a name (`ppgen graph show` lists them) or a .bif, .xmlbif, .net, .uai or .fg file, also
.gz.

commands:
{commands}

commands that take something else than a network:
{others}

start here:
  ppgen graph show alarm --draw alarm.png
  ppgen graph show alarm --variable HISTORY
  ppgen graph separate alarm HISTORY CVP --given LVEDVOLUME
  ppgen graph blanket alarm CVP
  ppgen graph query alarm --evidence HISTORY=TRUE CVP=LOW --targets LVFAILURE
  ppgen graph query alarm --evidence-file cases.csv --out posteriors.csv
  ppgen graph sample alarm --n 1000 --out rows.csv
  ppgen graph draw alarm --out alarm.png
  ppgen graph learn rows.csv --out net.bif --compare alarm
  ppgen graph from-program VAE
  ppgen graph chain matrix.csv
  ppgen graph denoise noisy.png --out clean.png --noise 0.1 --compare sheet.png

Every command takes --json, and `ppgen graph COMMAND --help` explains it.
"""


def graph(argv: list[str]) -> None:
    if sys.stdout is None:  # closed by who started us, as >&- does: nothing printed is wanted
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if not argv or argv[0] in ("-h", "--help", "help"):
        listed = [
            "\n".join(f"  {k:14s}{v}" for k, v in part.items()) for part in (COMMANDS, OTHERS)
        ]
        say_lines(HELP.format(commands=listed[0], others=listed[1]))
        return
    run: dict[str, Callable[[list[str]], None]] = {
        "show": show,
        "separate": separate,
        "blanket": blanket,
        "query": query,
        "sample": sample,
        "draw": draw,
        "learn": learn,
        "from-program": from_program,
        "chain": chain,
        "denoise": denoise,
    }
    if argv[0] not in run:
        raise ValueError(f"unknown command {argv[0]!r}{near(argv[0], run)}")
    run[argv[0]](argv[1:])


def separate(argv: list[str]) -> None:
    parser = Parser(
        "separate",
        "NETWORK A B [--given C ...] [--max-trails N] [--draw FILE] [--json]",
        "Tell whether A and B are d-separated given C, that is independent given C whatever the "
        "tables are, and show the trails between them with what blocks each. In a Markov network "
        "(a .fg file, or a .uai file of type MARKOV) A and B are separated where every path "
        "between them passes a variable of C, which cuts it. A and B may be several variables, "
        "separated by commas.",
        "ppgen graph separate alarm HISTORY CVP",
        "ppgen graph separate alarm HISTORY,CVP HR --given LVFAILURE LVEDVOLUME --draw why.png",
    )
    parser.add_argument("network", metavar="NETWORK", help="a name or a file")
    parser.add_argument("a", metavar="A", help="a variable, or several separated by commas")
    parser.add_argument("b", metavar="B", help="likewise")
    parser.add_names("--given", "the observed variables; by default none")
    parser.add_argument(
        "--max-trails", type=int, default=20, metavar="N", help="trails to list (default 20)"
    )
    add_drawing(parser)
    options = parser.read(argv)
    if options.max_trails < 1:
        raise ValueError(f"--max-trails must be 1 or more; got {options.max_trails}")
    out = new_picture(options.draw, options.overwrite)
    network = Network(options.network)
    from graphs import explain_separation, separated

    found = (explain_separation if network.tables.directed else separated)(
        network.graph,
        network.variables([options.a]),
        network.variables([options.b]),
        network.variables(options.given),
        max_trails=options.max_trails,
    )
    document: dict[str, Any] = {
        "network": network.name,
        "directed": network.tables.directed,
        "a": [str(v) for v in found.a],
        "b": [str(v) for v in found.b],
        "given": [str(v) for v in found.given],
        "separated": found.separated,
        "trails": [
            {
                "nodes": [str(v) for v in trail.nodes],
                "arrows": list(trail.arrows),
                "open": trail.open,
                "blocked_by": [str(v) for v in trail.blocked_by],
                "middles": [
                    {
                        "node": str(middle.node),
                        "kind": middle.kind,
                        "observed": middle.observed,
                        "blocks": middle.blocks,
                        "opened_by": [str(v) for v in middle.opened_by],
                    }
                    for middle in trail.middles
                ],
            }
            for trail in found.trails
        ],
        "more_trails": found.cut,
    }
    drawn(document, out, found)
    if options.json:
        say_json(document)
        return
    say_lines(str(found))
    say_drawn(out)


def blanket(argv: list[str]) -> None:
    parser = Parser(
        "blanket",
        "NETWORK X [--draw FILE] [--json]",
        "Show the Markov blanket of a variable: the parents, the children and the children's other "
        "parents; in a Markov network the neighbours. Given these the variable is independent of "
        "all others.",
        "ppgen graph blanket alarm CVP",
        "ppgen graph blanket alarm CATECHOL --draw blanket.png",
    )
    parser.add_argument("network", metavar="NETWORK", help="a name or a file")
    parser.add_argument("variable", metavar="X", help="a variable")
    add_drawing(parser)
    options = parser.read(argv)
    out = new_picture(options.draw, options.overwrite)
    network = Network(options.network)
    graph, chosen = network.graph, network.variable(options.variable)
    roles: dict[str, list[Any]] = {}
    through: dict[Any, list[Any]] = {}
    if network.tables.directed:
        roles["parents"] = list(graph.predecessors(chosen))
        roles["children"] = list(graph.successors(chosen))
        for child in roles["children"]:
            for other in graph.predecessors(child):
                if other != chosen and other not in roles["parents"] + roles["children"]:
                    through.setdefault(other, []).append(child)
        roles["co-parents"] = list(through)
        how: dict[str, Any] = {"blanket": chosen}
    else:
        roles["neighbours"] = list(graph.neighbors(chosen))
        how = {"highlight": roles["neighbours"], "title": f"Markov blanket of {chosen}"}
    members = [variable for role in roles.values() for variable in role]
    document: dict[str, Any] = {
        "network": network.name,
        "variable": str(chosen),
        "blanket": [str(v) for v in members],
    }
    document |= {role: [str(v) for v in found] for role, found in roles.items()}
    drawn(document, out, graph, **how)
    if options.json:
        say_json(document)
        return
    say_lines(f"Markov blanket of {chosen} in {network.name}: {len(members)} variables")
    for role, found in roles.items():
        said = [
            f"{v} (through {', '.join(map(str, through[v]))})" if v in through else str(v)
            for v in found
        ]
        say_lines(f"{role:10}  {', '.join(said) or 'none'}")
    say_drawn(out)
