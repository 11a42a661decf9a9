"""`ppgen graph query`: exact posteriors and explanations, of one case or of a file of them."""

import argparse
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphs.names import unknown

from .graph_rows import (
    BLOCK,
    FLAG,
    NUMBER,
    TEXT,
    Codes,
    Source,
    new_rows,
    open_rows,
    output,
    progress,
)
from .graph_words import Network, Parser, say_json, say_lines, say_table, share

if TYPE_CHECKING:
    from graphs.exact.junction_tree import JunctionTree

WORK = 2**29  # cells of all tables by rows that are answered at once: some seconds
COMPARED = 2**22  # cells of all tables up to which a query is compared with no evidence


def query(argv: list[str]) -> None:
    parser = Parser(
        "query",
        "NETWORK [--evidence NAME=STATE ...] [options]\n"
        "       ppgen graph query NETWORK --evidence-file ROWS [--out FILE] [options]",
        "Exact posteriors given evidence, by message passing on a junction tree: of one case, "
        "printed, or of each row of a file of any length, written as a table with one column "
        "variable=state for each probability, log_evidence (nats), and possible (False where the "
        "evidence contradicts the network; the row's other cells are then empty). The file names "
        "variables in its first line; an empty cell is unobserved. It is read and written in "
        "parts; the output gets its name once it is complete, and a command that was interrupted "
        "starts over.",
        "ppgen graph query alarm --evidence HISTORY=TRUE CVP=LOW --targets LVFAILURE HYPOVOLEMIA",
        "ppgen graph query alarm --evidence CVP=LOW --likelihood HISTORY=0.8,0.2",
        "ppgen graph query alarm --evidence CVP=LOW --mpe",
        "ppgen graph query alarm --evidence-file cases.csv --keep patient --out posteriors.csv",
    )
    parser.add_argument("network", metavar="NETWORK", help="a name or a file")
    parser.add_names("--evidence", "what is observed; with a file, in every row", "NAME=STATE")
    parser.add_names(
        "--likelihood",
        "soft evidence: a weight for each state, in the network's order, that multiplies the model",
        "NAME=W,W,...",
    )
    parser.add_names("--targets", "the variables to answer for; by default all")
    parser.add_argument(
        "--mpe", action="store_true", help="the most probable explanation: one state a variable"
    )
    file = parser.add_argument_group("many rows")
    file.add_argument("--evidence-file", metavar="ROWS", help="a .csv, .csv.gz or .parquet file")
    file.add_argument("--out", metavar="FILE", help="likewise; by default CSV on stdout")
    file.add_argument("--overwrite", action="store_true", help="replace the file --out")
    for name, text in (
        ("--keep", "columns of the file to copy to the output, such as an identifier"),
        ("--ignore", "columns of the file that are no evidence; others must be variables"),
    ):
        file.add_argument(name, nargs="+", action="extend", default=[], metavar="COLUMN", help=text)
    options = parser.read(argv)
    if options.mpe and options.likelihood:
        raise ValueError("--mpe takes no --likelihood: it is of what was observed for certain")
    for name in ("out", "overwrite", "keep", "ignore"):
        if options.evidence_file is None and getattr(options, name):
            raise ValueError(f"--{name} goes with --evidence-file; without it answers are printed")
    if options.evidence_file is not None:
        if options.json and options.out is None:
            raise ValueError("--json needs --out: it sums up what the rows of that file hold")
        _query_file(options)
        return
    network = Network(options.network)
    evidence = network.evidence(options.evidence)
    soft = network.likelihoods(options.likelihood)
    targets = network.variables(options.targets)
    from graphs.exact.junction_tree import JunctionTree

    engine = JunctionTree(network.tables)
    document: dict[str, Any] = {
        "network": network.name,
        "evidence": {str(v): str(state) for v, state in evidence.items()},
    }
    if options.mpe:
        _explain(engine, evidence, targets, document, options.json)
    else:
        # What was observed needs no answer, unless it is asked for.
        wanted = targets or [v for v in network.tables.states if v not in evidence]
        _answer(engine, evidence, soft, wanted, document, options.json)


def _answer(
    engine: "JunctionTree",
    evidence: dict[Any, Any],
    soft: dict[Any, list[float]],
    wanted: list[Any],
    document: dict[str, Any],
    as_json: bool,
) -> None:
    found = engine.query(evidence, wanted, soft)
    log_evidence = float(found.log_evidences()[0])
    posteriors = _by_state(found)
    if as_json:
        said = {str(v): {str(s): p for s, p in shares.items()} for v, shares in posteriors.items()}
        document |= {"likelihoods": {str(v): weights for v, weights in soft.items()}}
        say_json(document | {"log_evidence": log_evidence, "posteriors": said})
        return
    given = [f"{v}={state}" for v, state in evidence.items()]
    given += [f"{v} weighed {','.join(f'{w:g}' for w in weights)}" for v, weights in soft.items()]
    say_lines(f"{document['network']} given {', '.join(given) or 'nothing'}")
    if engine.tables.directed:
        say_lines(f"log evidence {log_evidence:.6f} nats (probability {_power(log_evidence)})")
    else:
        say_lines(f"log evidence {log_evidence:.6f} nats: the log of what the tables sum to")
    say_lines("")
    before = {}
    if given and engine.cost.total_cells <= COMPARED:
        before = _by_state(engine.query(None, wanted))
    rows = [
        (str(v), str(state), share(p), *([share(before[v][state])] if before else []))
        for v, shares in posteriors.items()
        for state, p in shares.items()
    ]
    heads = ("variable", "state", "probability", *(["without evidence"] if before else []))
    say_table(heads, rows, numbers=len(heads) - 2)
    changes = [
        (abs(p - before[v][state]), v, state) for v in before for state, p in posteriors[v].items()
    ]
    if changes:
        _, v, state = max(changes, key=lambda change: change[0])
        change = f"{share(before[v][state])} -> {share(posteriors[v][state])}"
        say_lines("", f"changed most: {v}={state}, {change}")


def _by_state(found: Any) -> dict[Any, dict[Any, float]]:
    numbers = iter(found.to_frame()["probability"].tolist())
    return {v: {state: next(numbers) for state in found.states(v)} for v in found}


def _power(log: float) -> str:
    """exp(log) to three digits, also where it is below the smallest float."""
    if log > -700:
        return f"{math.exp(log):.3g}"
    exponent = math.floor(log / math.log(10))
    return f"{10 ** (log / math.log(10) - exponent):.2f}e{exponent}"


def _explain(
    engine: "JunctionTree",
    evidence: dict[Any, Any],
    targets: list[Any],
    document: dict[str, Any],
    as_json: bool,
) -> None:
    found = engine.mpe(evidence)
    shown = {v: s for v, s in found.assignment.items() if not targets or v in targets}
    if as_json:
        said = {str(v): str(state) for v, state in shown.items()}
        say_json(document | {"log_probability": found.log_probability, "assignment": said})
        return
    given = ", ".join(f"{v}={state}" for v, state in evidence.items()) or "nothing"
    say_lines(
        f"most probable explanation of {document['network']} given {given}",
        f"log probability {found.log_probability:.6f} nats"
        if engine.tables.directed
        else f"log product {found.log_probability:.6f} nats: of the tables, not normalised",
        "",
    )
    rows = [(str(v), str(s), "observed" if v in evidence else "") for v, s in shown.items()]
    say_table(("variable", "state", ""), rows)


# A file of evidence -----------------------------------------------------------------------------


def _query_file(options: argparse.Namespace) -> None:
    path = Path(options.evidence_file)
    out = output(options.out, options.overwrite)
    if out is not None and out.exists() and path.exists() and out.samefile(path):
        raise ValueError(f"--out {out} is the file of evidence itself: choose another name")
    network = Network(options.network)
    fixed = network.evidence(options.evidence)
    soft = network.likelihoods(options.likelihood)
    targets = set(network.variables(options.targets) or network.tables.states)
    wanted = {v: states for v, states in network.tables.states.items() if v in targets}
    from graphs.exact.junction_tree import JunctionTree

    done = impossible = 0
    with open_rows(path) as source:
        observed = _observed(network, source, options.keep, options.ignore)
        for variable in fixed:
            if variable in observed:
                raise ValueError(f"--evidence {variable} is a column of {path} as well")
        copied = {name: source.columns.index(name) for name in dict.fromkeys(options.keep)}
        kinds = _kinds(source, copied, wanted, options.mpe)
        engine = JunctionTree(network.tables)
        wide = max(len(kinds), len(source.columns), len(network.names))
        size = max(1, min(BLOCK // wide, WORK // max(engine.cost.total_cells, 1)))
        codes = {v: Codes(network.tables.positions[v]) for v in observed}
        with new_rows(out, kinds, options.overwrite) as write, progress(source.share) as advance:
            for chunk in source.chunks(size):
                rows = {v: codes[v].of(chunk[at], source, at, done) for v, at in observed.items()}
                evidence = _frame(network, rows) | fixed
                if options.mpe:
                    answers, possible = _explanations(engine, evidence, wanted)
                else:
                    answers, possible = _posteriors(engine, evidence, wanted, soft)
                write([*(chunk[at] for at in copied.values()), *answers, possible])
                done += len(possible)
                impossible += possible.count(False)
                advance(done)
    if options.json:
        document = {"network": network.name, "rows": done, "impossible": impossible}
        say_json(document | {"columns": list(kinds), "out": str(out)})
        return
    not_possible = f", {impossible:,} of them impossible" if impossible else ""
    if out is not None:
        say_lines(f"{done:,} rows answered{not_possible}: {out}")
    elif impossible:
        print(f"warning: {done:,} rows answered{not_possible}", file=sys.stderr)


def _observed(
    network: Network, source: Source, keep: Sequence[str], ignore: Sequence[str]
) -> dict[Any, int]:
    """The place of each variable's column."""
    for option, names in (("--keep", keep), ("--ignore", ignore)):
        for name in names:
            if name not in source.columns:
                raise ValueError(
                    f"{option}: {unknown('column', name, source.columns, str(source.path))}"
                )
    strange = [c for c in source.columns if c not in network.names and c not in (*keep, *ignore)]
    if strange:
        listed = shlex.join(strange[:8])
        raise ValueError(
            f"{source.path} has a column of another name: "
            f"{unknown('variable', strange[0], network.names)}; "
            f"--keep {listed} copies it to the output, --ignore {listed} leaves it out"
        )
    found = {
        network.names[name]: place
        for place, name in enumerate(source.columns)
        if name in network.names and name not in ignore
    }
    if not found:
        raise ValueError(f"{source.path} has no column that is evidence")
    return found


def _kinds(
    source: Source, copied: Mapping[str, int], wanted: Mapping[Any, Sequence[Any]], mpe: bool
) -> dict[str, Any]:
    """The columns of the output, with what they hold."""
    columns = [(name, source.types.get(name, TEXT)) for name in copied]
    if mpe:
        columns += [(str(v), TEXT) for v in wanted] + [("log_probability", NUMBER)]
    else:
        columns += [(f"{v}={s}", NUMBER) for v, states in wanted.items() for s in states]
        columns += [("log_evidence", NUMBER)]
    columns += [("possible", FLAG)]
    kinds = dict(columns)
    if len(kinds) < len(columns):
        names = [name for name, _ in columns]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the output would have two columns {twice!r}: leave it out of --keep")
    return kinds


def _frame(network: Network, rows: Mapping[Any, Any]) -> dict[Any, Any]:
    """State indices as columns of states, which the engine reads without looking at each cell."""
    import pandas as pd

    return {
        v: pd.Series(pd.Categorical.from_codes(codes, [*network.tables.positions[v]]))
        for v, codes in rows.items()
    }


def _posteriors(
    engine: "JunctionTree", evidence: dict[Any, Any], wanted: Mapping[Any, Any], soft: Any
) -> tuple[list[list[Any]], list[bool]]:
    found = engine.query(evidence, list(wanted), soft)
    logs = found.log_evidences().tolist()
    possible = [log > -math.inf for log in logs]
    columns = found.to_frame().to_numpy().T.tolist()
    gaps = [row for row, is_possible in enumerate(possible) if not is_possible]
    for column in columns:
        for row in gaps:
            column[row] = None
    return [*columns, logs], possible


def _explanations(
    engine: "JunctionTree", evidence: dict[Any, Any], wanted: Mapping[Any, Any]
) -> tuple[list[list[Any]], list[bool]]:
    found = engine.mpe(evidence)
    logs = found.log_probability.tolist()
    columns = [
        [None if state is None else str(state) for state in found.assignment[v]] for v in wanted
    ]
    return [*columns, logs], [log > -math.inf for log in logs]
