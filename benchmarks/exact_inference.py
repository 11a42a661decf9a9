"""Exact inference: ours beside pyAgrum and pgmpy, network by network, in one run.

    pip install pyagrum==3.3.1                        # the peer; pgmpy is a dependency already
    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/exact_inference.py alarm andes pigs

All posteriors given ten seeded draws of evidence on three leaves (states from an ancestral draw, so
that they are possible). Each draw is answered by ours, compiled; by ours from the model on
(structure, tables and query); by pyAgrum's LazyPropagation and ShaferShenoy, of which the faster
median counts; and the first one by pgmpy's variable elimination, one query a variable, since its
joint=False needs more memory than there is. All read the same renormalised tables. One thread.
`--rows` instead answers 1,000 rows of alarm with five random observed variables each. Each peer has
a time limit.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

import graphs
from graphs.ancestral import sample_indices
from graphs.io import load, read
from graphs.tables import Tables

NAMES = (
    "alarm", "hailfinder", "win95pts", "andes", "pigs", "water", "diabetes", "link", "munin1",
)  # fmt: skip
LEAVES, DRAWS, LIMIT = 3, 10, 60.0
Evidence = dict[Any, Any]


def seconds(call: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    answer = call(*arguments)
    return time.perf_counter() - start, answer


def answers(engine: graphs.JunctionTree, evidence: Any) -> dict[Any, np.ndarray]:
    return engine.query(evidence).to_numpy()


def draws(tables: Tables, count: int) -> list[Evidence]:
    """Evidence on leaves, as states, seeded."""
    rng = np.random.default_rng(0)
    inner = {parent for factor in tables.factors for parent in factor.variables[1:]}
    leaves = [v for v in tables.states if v not in inner]
    rows = sample_indices(tables, count, rng)
    found = []
    for row in range(count):
        chosen = rng.choice(len(leaves), min(LEAVES, len(leaves)), replace=False)
        found.append({leaves[i]: tables.states[leaves[i]][rows[leaves[i]][row]] for i in chosen})
    return found


def in_pyagrum(tables: Tables) -> Any:
    """The same tables in pyAgrum, whose own readers round to float32."""
    import pyagrum

    pyagrum.setNumberOfThreads(1)
    net = pyagrum.BayesNet()
    for v, states in tables.states.items():
        # State names would have to be its identifiers: numbers do.
        net.add(pyagrum.LabelizedVariable(str(v), "", len(states)))
    for factor in tables.factors:
        for parent in factor.variables[1:]:
            net.addArc(str(parent), str(factor.variables[0]))
    for variables, values in tables.factors:
        cpt = net.cpt(str(variables[0]))
        order = [variables.index(next(v for v in variables if str(v) == n)) for n in cpt.names]
        cpt[:] = values.transpose(order[::-1])  # the last of its names is the first of its axes
    return net


def pyagrum_posteriors(net: Any, engine: str, evidence: Evidence, names: list[str]) -> Any:
    import pyagrum

    inference = getattr(pyagrum, engine)(net)
    inference.setEvidence(evidence)
    inference.makeInference()
    return {name: inference.posterior(name).toarray() for name in names}


def pgmpy_posteriors(model: Any, evidence: Evidence) -> Any:
    from pgmpy.inference import VariableElimination

    engine = VariableElimination(model)
    return {
        v: engine.query([v], evidence, show_progress=False)
        for v in model.nodes
        if v not in evidence
    }


# One network, each peer in a process of its own ---------------------------------------------------


def ours(name: str) -> dict[str, Any]:
    tables = read(name)
    evidence = draws(tables, DRAWS)
    opened, _ = seconds(lambda: read(name))
    first, compiled = [], []
    for row in evidence:
        taken, engine = seconds(lambda: graphs.JunctionTree(tables))
        asked, posterior = seconds(answers, engine, row)
        first.append(taken + asked)
        del posterior, engine
        if sum(first) > LIMIT:
            break
    engine = graphs.JunctionTree(tables)
    engine.query(evidence[0])
    for row in evidence:
        compiled.append(seconds(answers, engine, row)[0])
    answer = engine.query(evidence[0]).to_numpy()
    return {
        "compiled": statistics.median(compiled),
        "first": statistics.median(first),
        "read": opened,
        "cells": engine.cost.total_cells,
        "answer": {str(v): p for v, p in answer.items()},
    }


def pyagrum_peer(name: str, engine: str) -> dict[str, Any]:
    tables = read(name)
    net = in_pyagrum(tables)
    names = [str(v) for v in tables.states]
    numbered = [
        {str(v): tables.states[v].index(s) for v, s in row.items()} for row in draws(tables, DRAWS)
    ]
    taken: list[float] = []
    answer: Any = None
    for row in numbered:
        spent, found = seconds(pyagrum_posteriors, net, engine, row, names)
        answer = answer or found
        taken.append(spent)
        if sum(taken) > LIMIT:
            break
    return {"seconds": statistics.median(taken), "answer": answer}


def pgmpy_peer(name: str) -> dict[str, Any]:
    warnings.simplefilter("ignore")
    model = load(name)
    pgmpy_posteriors(load("cancer"), {})  # it imports what it needs at the first query
    evidence = draws(read(name), DRAWS)[0]
    spent, found = seconds(lambda: pgmpy_posteriors(model, evidence))
    return {"seconds": spent, "answer": {str(v): f.values for v, f in found.items()}}


def _child(pipe: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    warnings.simplefilter("ignore")
    limit = 16 * 2**30  # a peer that asks for more fails, and the machine goes on
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        pipe.send(function(*arguments))
    except MemoryError as error:
        pipe.send({"failed": f"memory {error}"})


def apart(function: Callable[..., Any], *arguments: Any, limit: float) -> dict[str, Any]:
    """The answer of a function in a process of its own, or why there is none."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        answer = receiver.recv() if receiver.poll(limit) else {"failed": f"> {LIMIT:.0f} s"}
    except EOFError:
        answer = {"failed": "died"}
    process.kill()
    process.join()
    return answer


def compare(name: str, with_pgmpy: bool) -> dict[str, Any]:
    mine = apart(ours, name, limit=20 * LIMIT)
    if "failed" in mine:
        raise RuntimeError(f"ours failed on {name}: {mine['failed']}")
    peers = {}
    for engine in ("LazyPropagation", "ShaferShenoyInference"):
        peers[engine] = apart(pyagrum_peer, name, engine, limit=4 * LIMIT)
    if with_pgmpy:
        peers["pgmpy"] = apart(pgmpy_peer, name, limit=LIMIT + 20)
    worst = 0.0
    for peer in peers.values():
        for v, p in (peer.get("answer") or {}).items():
            worst = max(worst, float(np.abs(np.asarray(p) - mine["answer"][v]).max()))
    found = {key: value for key, value in mine.items() if key != "answer"} | {"network": name}
    agrum = [p for k, p in peers.items() if k != "pgmpy" and "seconds" in p]
    found["pyagrum"] = min((p["seconds"] for p in agrum), default=None)
    found["pgmpy"] = peers.get("pgmpy", {}).get("seconds", peers.get("pgmpy", {}).get("failed"))
    found["largest difference"] = worst
    return found


def shown(found: dict[str, Any]) -> str:
    def number(value: Any) -> str:
        return f"{value:9.4f}" if isinstance(value, float) else f"{value or '> limit':>9}"

    def ratio(peer: Any, own: float) -> str:
        return f"{peer / own:8.1f}" if isinstance(peer, float) else f"{'-':>8}"

    agrum, pgmpy = found["pyagrum"], found["pgmpy"]
    return (
        f"{found['network']:11s}{found['cells']:13,}{number(found['compiled'])}"
        f"{number(found['first'])}{number(agrum)}{number(pgmpy)}"
        f"{ratio(agrum, found['compiled'])}{ratio(agrum, found['first'])}"
        f"{ratio(pgmpy, found['first'])}   {found['largest difference']:.0e}"
    )


# A table of evidence ------------------------------------------------------------------------------


def table_of_evidence(rows: int = 1000) -> dict[str, float]:
    """Rows of alarm with five random observed variables each."""
    import pyagrum

    warnings.simplefilter("ignore")
    tables = read("alarm")
    rng = np.random.default_rng(0)
    drawn = sample_indices(tables, rows, rng)
    frame = pd.DataFrame({v: np.array(tables.states[v])[drawn[v]] for v in tables.states})
    hidden = np.argsort(rng.random(frame.shape), axis=1) >= 5
    frame = frame.mask(hidden, None)
    engine = graphs.JunctionTree(tables)
    engine.query(frame)
    own = statistics.median(seconds(lambda: engine.query(frame).to_numpy())[0] for _ in range(5))
    answer = engine.query(frame).to_numpy()
    net = in_pyagrum(tables)
    names = list(tables.states)
    observed = [
        {v: int(drawn[v][i]) for j, v in enumerate(names) if not hidden[i, j]} for i in range(rows)
    ]

    def clean_loop() -> Any:
        inference = pyagrum.LazyPropagation(net)
        for row in observed:
            inference.setEvidence(row)
            inference.makeInference()
            for v in names:
                inference.posterior(v).toarray()

    peer, _ = seconds(clean_loop)
    worst = 0.0
    for i in range(0, rows, 50):
        single = engine.query({v: tables.states[v][s] for v, s in observed[i].items()}).to_numpy()
        worst = max(worst, *(float(np.abs(single[v] - answer[v][i]).max()) for v in names))
    model, some = load("alarm"), 20
    spent, _ = seconds(
        lambda: [
            pgmpy_posteriors(model, {v: tables.states[v][s] for v, s in row.items()})
            for row in observed[:some]
        ]
    )
    return {
        "ours": own,
        "pyagrum": peer,
        "pgmpy": spent / some * rows,
        "largest difference to single queries": worst,
    }


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("networks", nargs="*", default=NAMES, metavar="NETWORK")
    parser.add_argument("--no-pgmpy", action="store_true", help="leave pgmpy out: it is slow")
    parser.add_argument("--rows", action="store_true", help="only the table of evidence on alarm")
    parser.add_argument("--json", help="also write the figures to this file")
    given = parser.parse_args(argv)
    results: dict[str, Any] = {}
    if given.rows:
        found = table_of_evidence()
        results["rows"] = found
        print(
            f"1,000 rows of alarm, 5 observed each: ours {found['ours']:.4f} s, pyAgrum "
            f"{found['pyagrum']:.2f} s ({found['pyagrum'] / found['ours']:.0f} x), pgmpy "
            f"{found['pgmpy']:.1f} s ({found['pgmpy'] / found['ours']:.0f} x, from 20 rows); "
            f"largest difference to single queries "
            f"{found['largest difference to single queries']:.0e}"
        )
    else:
        print(
            f"{'network':11s}{'cells':>13s}{'compiled':>9s}{'first':>9s}{'pyAgrum':>9s}{'pgmpy':>9s}"
            f"{'pA/comp':>8s}{'pA/1st':>8s}{'pg/1st':>8s}   difference"
        )
        for name in given.networks:
            results[name] = compare(name, not given.no_pgmpy)
            print(shown(results[name]), flush=True)
    if given.json:
        with open(given.json, "w") as file:
            json.dump(results, file, indent=1)
    return results


if __name__ == "__main__":
    main()
