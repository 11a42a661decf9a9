"""`ppgen graph learn`: a network from rows, its structure found or given."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphs.names import unknown

from .graph_rows import new_file, open_rows
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

if TYPE_CHECKING:
    from graphs.learning.comparison import Comparison

ENDINGS = (".bif", ".xmlbif", ".uai", ".net")
STRUCTURES = ("hill_climb", "pc", "ges", "chow_liu")
MEASURES = (
    "shd",
    "precision",
    "recall",
    "f1",
    "skeleton_precision",
    "skeleton_recall",
    "skeleton_f1",
)


def learn(argv: list[str]) -> None:
    parser = Parser(
        "learn",
        "ROWS --out NETWORK [--structure NAME | --graph NETWORK] [--method NAME] [options]",
        "Learn a Bayesian network from rows whose first line names the variables: its structure, "
        "or the tables alone of a structure that is given. For a given structure, rows may lack "
        "cells, and variables without a column are latent: EM then fits the tables. The file "
        "written is read by every command here.",
        "ppgen graph learn rows.csv --out net.bif",
        "ppgen graph learn rows.csv --out tree.bif --structure chow_liu --compare asia "
        "--draw tree.png",
        "ppgen graph learn rows.csv --out tables.bif --graph asia --method bdeu",
    )
    parser.add_argument("rows", metavar="ROWS", help="a .csv, .csv.gz or .parquet file")
    parser.add_argument(
        "--out", required=True, metavar="FILE", help=f"the network to write: {', '.join(ENDINGS)}"
    )
    parser.add_argument(
        "--structure",
        metavar="NAME",
        help=f"how to find the structure: {', '.join(STRUCTURES)} (default hill_climb)",
    )
    parser.add_argument(
        "--graph", metavar="NETWORK", help="keep the structure and states of this name or file"
    )
    parser.add_argument(
        "--method",
        default="maximum_likelihood",
        metavar="NAME",
        help="how to fit the tables: maximum_likelihood (default), bdeu or k2",
    )
    parser.add_argument(
        "--score",
        metavar="NAME",
        help="what the structure maximises: bic-d (default), aic-d, bdeu or k2",
    )
    parser.add_argument(
        "--equivalent-sample-size",
        type=float,
        default=10.0,
        metavar="N",
        help="the weight of the prior of bdeu, in rows (default 10)",
    )
    parser.add_argument("--starts", type=int, metavar="N", help="how often EM starts (default 1)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default 0")
    parser.add_argument(
        "--compare", metavar="NETWORK", help="measure the structure against that of this network"
    )
    add_drawing(parser)
    options = parser.read(argv)
    _check(options)
    path = new_file(options.out, options.overwrite)
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(f"--out {path}: expected a file that ends in one of {', '.join(ENDINGS)}")
    picture = new_picture(options.draw, options.overwrite)
    true = None if options.compare is None else _directed(options.compare, "--compare")
    if true is not None:
        _same_variables(options, true)
    try:
        model, document, lines = _learned(options)
    except ModuleNotFoundError as error:
        raise ValueError(str(error)) from None
    compared = None if true is None else _compared(model, true, document)
    from graphs.io import save

    save(model, path, overwrite=options.overwrite)
    document["out"] = str(path)
    if picture is not None and compared is not None:
        compared.draw(picture)
        document["drawn"] = str(picture)
    else:
        drawn(document, picture, model)
    if options.json:
        say_json(document)
        return
    say_lines(*lines)
    if compared is not None and true is not None:
        say_lines("", f"compared with {true.name}", str(compared))
    say_lines("", f"written: {path}")
    say_drawn(picture)


def _check(options: argparse.Namespace) -> None:
    """Refuse words that contradict each other or that are unknown, before any work.

    Raises:
        ValueError: what was given, and what there is.
    """
    from graphs.learning.learn import METHODS
    from graphs.learning.scores import SCORES

    for name, known in (("structure", STRUCTURES), ("method", METHODS), ("score", SCORES)):
        given = getattr(options, name)
        if given is not None and given not in known:
            raise ValueError(f"--{name}: {unknown(name, given, known)}")
    if options.graph is not None:
        for name in ("structure", "score"):
            if getattr(options, name) is not None:
                raise ValueError(f"--graph gives the structure: leave out --{name}")
    elif options.starts is not None:
        raise ValueError("--starts is of EM, for rows with missing cells and a --graph that is set")
    if options.starts is not None and options.starts < 1:
        raise ValueError(f"--starts must be 1 or more; got {options.starts}")
    if options.seed < 0:
        raise ValueError(f"--seed must be 0 or more; got {options.seed}")


def _directed(source: str, option: str) -> Network:
    network = Network(source)
    if not network.tables.directed:
        raise ValueError(f"{option} {source} is a Markov network: name a Bayesian network")
    return network


def _same_variables(options: argparse.Namespace, true: Network) -> None:
    """Refuse a network of other variables before anything is learned.

    Raises:
        ValueError: some variables are only in the one or the other.
        FileNotFoundError: no such file of rows.
    """
    if options.graph is not None:
        source, names = options.graph, list(Network(options.graph).names)
    else:
        with open_rows(Path(options.rows)) as rows:
            source, names = options.rows, rows.columns
    for one, other, whose in ((names, true.names, source), (true.names, names, true.name)):
        only = [name for name in one if name not in other]
        if only:
            raise ValueError(
                f"--compare needs the same variables in {source} and {true.name}; only {whose} has "
                f"{', '.join(only[:8])}{' and others' if only[8:] else ''}"
            )


def _learned(options: argparse.Namespace) -> tuple[Any, dict[str, Any], list[str]]:
    """The model, and what is to be said of it as JSON and in lines."""
    from graphs.learning.learn import learn_parameters

    document: dict[str, Any] = {"data": options.rows}
    lines = []
    weight = options.equivalent_sample_size
    if options.graph is None:
        from graphs.learning.structure import learn_structure

        found = learn_structure(
            options.rows,
            method=options.structure or "hill_climb",
            score=options.score or "bic-d",
            equivalent_sample_size=weight,
            seed=options.seed,
        )
        pattern = found.cpdag
        document |= {
            "structure": found.method,
            "score_name": found.score_name,
            "score": found.score,
            "undirected": [
                [str(a), str(b)] for a, b in found.graph.edges if pattern.has_edge(b, a)
            ],
        }
        lines += [str(found), ""]
        graph: Any = found.graph
    else:
        graph = _directed(options.graph, "--graph").tables
        document["graph"] = options.graph
    fitted = learn_parameters(
        graph,
        options.rows,
        method=options.method,
        equivalent_sample_size=weight,
        starts=options.starts or 1,
        seed=options.seed,
    )
    model = fitted.model
    document |= {
        "method": fitted.method,
        "rows": fitted.rows,
        "missing": fitted.missing,
        "variables": [str(v) for v in model.nodes],
        "latent": [str(v) for v in model.nodes if v in model.latents],
        "arcs": [[str(a), str(b)] for a, b in model.edges],
        "log_likelihood": fitted.log_likelihood,
        "mean_log_likelihood": fitted.mean_log_likelihood,
        "iterations": fitted.iterations,
        "converged": fitted.converged,
        "undefined": fitted.undefined,
    }
    lines.append(str(fitted))
    if document["latent"]:
        lines.append(f"latent, for no cell of them is in the rows: {', '.join(document['latent'])}")
    return model, document, lines


def _compared(model: Any, true: Network, document: dict[str, Any]) -> "Comparison":
    from graphs.learning.comparison import compare_structures

    found = compare_structures(_texts(model), _texts(true.graph))
    document["compared"] = {
        "network": true.name,
        **{name: getattr(found, name) for name in MEASURES},
        **{
            kind: [[str(a), str(b)] for a, b in getattr(found, kind)]
            for kind in ("correct", "missing", "extra", "reversed")
        },
    }
    return found


def _texts(graph: Any) -> Any:
    """The arcs over the variables' texts, as columns are: those of .uai files are integers."""
    import networkx as nx

    named: nx.DiGraph = nx.DiGraph()
    named.add_nodes_from(map(str, graph.nodes))
    named.add_edges_from((str(a), str(b)) for a, b in graph.edges)
    return named
