"""`ppgen graph show`: what there is, what a network is, what one of its variables is."""

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .graph_words import (
    Network,
    Parser,
    add_drawing,
    drawn,
    new_picture,
    say_drawn,
    say_json,
    say_lines,
    say_table,
)

if TYPE_CHECKING:
    from graphs.exact.clique_tree import Cost

SHOWN = 8  # lines of a factorisation shown without --full
WIDE = 60  # rows of a table shown without --full


def show(argv: list[str]) -> None:
    parser = Parser(
        "show",
        "[NETWORK] [--variable X] [--full] [--draw FILE] [--json]",
        "Show what a network is: variables, arcs, parameters, the cost of exact inference and the "
        "factorisation; or one variable with its table. Without a network, list those known by "
        "name.",
        "ppgen graph show",
        "ppgen graph show alarm --draw alarm.png",
        "ppgen graph show alarm --variable HISTORY",
    )
    parser.add_argument("network", nargs="?", metavar="NETWORK", help="a name or a file")
    parser.add_argument("--variable", metavar="X", help="show this variable and its table")
    parser.add_argument("--full", action="store_true", help="shorten nothing")
    add_drawing(parser)
    options = parser.read(argv)
    if options.network is None:
        for name in ("variable", "draw"):
            if getattr(options, name) is not None:
                raise ValueError(f"--{name} needs a network: ppgen graph show NETWORK --{name} ...")
        _show_networks(options.json)
        return
    out = new_picture(options.draw, options.overwrite)
    network = Network(options.network)
    if options.variable is None:
        from graphs.exact.junction_tree import JunctionTree

        cost = JunctionTree(network.tables).cost
        document = _of_network(network, cost)
        drawn(document, out, network.graph)
    else:
        chosen = network.variable(options.variable)
        document = _of_variable(network, chosen)
        drawn(document, out, network.graph, highlight=[chosen])
    if options.json:
        say_json(document)
        return
    if options.variable is None:
        _show_network(network, cost, options.full)
    else:
        _show_variable(network, chosen, document, options.full)
    say_drawn(out)


def _show_networks(json: bool) -> None:
    import warnings

    from graphs.io import networks, read

    found = []
    with warnings.catch_warnings():  # of print rounding, which is no matter here
        warnings.simplefilter("ignore")
        for name in networks():
            graph = read(name).graph()
            found.append((name, len(graph), graph.number_of_edges()))
    if json:
        say_json({"networks": [{"name": n, "variables": v, "arcs": a} for n, v, a in found]})
        return
    say_table(("network", "variables", "arcs"), found)
    say_lines("", "ppgen graph show NETWORK shows one; files are read as well (.bif and others)")


def _of_network(network: Network, cost: "Cost") -> dict[str, Any]:
    tables = network.tables
    document: dict[str, Any] = {
        "network": network.name,
        "directed": tables.directed,
        "variables": {
            str(v): {"states": [str(s) for s in states]} for v, states in tables.states.items()
        },
        "arcs" if tables.directed else "edges": [[str(a), str(b)] for a, b in network.graph.edges],
        "cost": {
            name: getattr(cost, name)
            for name in ("largest_table", "total_cells", "bytes", "width", "at_least")
        },
    }
    if tables.directed:
        from graphs.directed import num_parameters

        count = num_parameters(tables)
        document["parameters"] = {
            "factorised": count.factorised,
            "full": count.full if count.full < 2**53 else None,  # more than a JSON reader holds
            "log10_full": math.log10(count.full) if count.full else None,
        }
    return document


def _show_network(network: Network, cost: "Cost", full: bool) -> None:
    tables, graph = network.tables, network.graph
    sizes = list(tables.cardinalities.values())
    kind, lines = ("Bayesian", "arcs") if tables.directed else ("Markov", "edges")
    say_lines(
        f"{network.name}: a {kind} network of {len(sizes):,} variables and "
        f"{graph.number_of_edges():,} {lines}",
        "",
        f"states         {sum(sizes):,} in all, at most {max(sizes, default=0)} a variable",
    )
    if tables.directed:
        from graphs.directed import factorization, num_parameters

        most = max((len(f.variables) - 1 for f in tables.factors), default=0)
        say_lines(
            f"parents        at most {most} a variable",
            f"parameters     {num_parameters(tables)}",
            f"exact answers  {cost}",
            "",
        )
        say_lines(*_shortened(str(factorization(tables)).splitlines(), SHOWN, full))
    else:
        entries = sum(factor.values.size for factor in tables.factors)
        say_lines(
            f"factors        {len(tables.factors):,} tables of {entries:,} entries",
            f"exact answers  {cost}",
        )
    say_lines("")
    rows: list[tuple[str, str, str]] = []
    for variable, states in tables.states.items():
        around = tables.parents(variable) if tables.directed else graph.neighbors(variable)
        rows.append((str(variable), _listed(states), _listed(around)))
    shown = rows if full or len(rows) <= WIDE else rows[:WIDE]
    say_table(("variable", "states", "parents" if tables.directed else "neighbours"), shown)
    if len(shown) < len(rows):
        say_lines(f"... and {len(rows) - len(shown):,} more variables (--full shows all)")


def _of_variable(network: Network, variable: Any) -> dict[str, Any]:
    tables, graph = network.tables, network.graph
    document: dict[str, Any] = {
        "network": network.name,
        "variable": str(variable),
        "states": [str(state) for state in tables.states[variable]],
    }
    if tables.directed:
        document["parents"] = [str(v) for v in tables.parents(variable)]
        document["children"] = [str(v) for v in graph.successors(variable)]
        document["axes"] = [str(v) for v in (variable, *tables.parents(variable))]
        document["table"] = tables.conditional(variable).tolist()
    else:
        document["neighbours"] = [str(v) for v in graph.neighbors(variable)]
        document["factors"] = [
            {"axes": [str(v) for v in factor.variables], "table": factor.values.tolist()}
            for factor in tables.factors
            if variable in factor.variables
        ]
    return document


def _show_variable(
    network: Network, variable: Any, document: Mapping[str, Any], full: bool
) -> None:
    say_lines(
        f"{variable} in {network.name}",
        *(
            f"{name:10}  {', '.join(document[name]) or 'none'}"
            for name in ("states", "parents", "children", "neighbours")
            if name in document
        ),
    )
    tables = network.tables
    for factor in tables.factors:
        if factor.variables[0] == variable if tables.directed else variable in factor.variables:
            _show_table(network, variable, factor, full)


def _show_table(network: Network, variable: Any, factor: Any, full: bool) -> None:
    """A row each configuration of the other variables, a column each state of this one."""
    import numpy as np

    axis = factor.variables.index(variable)
    others = [v for v in factor.variables if v != variable]
    values = np.moveaxis(factor.values, axis, -1)
    said = "p" if network.tables.directed else "factor"
    bar = " | " if network.tables.directed else ", "
    names = [str(variable), *([", ".join(map(str, others))] if others else [])]
    say_lines("", f"{said}({bar.join(names)})")
    rows: list[tuple[str, ...]] = []
    count = values[..., 0].size
    for index in np.ndindex(*values.shape[:-1]):
        if len(rows) == WIDE and not full:
            break
        given = [str(network.tables.states[v][i]) for v, i in zip(others, index, strict=True)]
        rows.append((*given, *(f"{value:.6g}" for value in values[index])))
    heads = [*(str(v) for v in others), *(str(s) for s in network.tables.states[variable])]
    say_table(heads, rows, numbers=len(heads) - len(others))
    if len(rows) < count:
        say_lines(f"... and {count - len(rows):,} more rows (--full shows all)")


def _shortened(lines: list[str], most: int, full: bool) -> list[str]:
    if full or len(lines) <= most + 1:
        return lines
    return [*lines[:most], f"  ... and {len(lines) - most:,} more lines (--full shows all)"]


def _listed(names: Iterable[Any], most: int = 8) -> str:
    names = [str(name) for name in names]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
