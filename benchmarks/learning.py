"""Learning from data: ours beside pgmpy and pyAgrum, in one process, in turn; medians.

    pip install pyagrum==3.3.1        # a peer; pgmpy is a dependency already
    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/learning.py

Structure: hill climbing by BIC on 5,000 rows of alarm. Ours with one climb and with the default
forty restarts; pgmpy's HillClimbSearch, whose tabu list holds 100 steps; pyAgrum's greedy hill
climbing. All graphs are scored by the same formula and compared with the truth by SHD between
CPDAGs.

Parameters: EM on 1,000 rows of asia and of alarm with cells missing at random. pgmpy drops every
row with a gap, so that its EM is given what it can take: one column of asia hidden wholly, all else
complete. Both then start at random, and ours stops at the first step that reaches pgmpy's
log-likelihood. pyAgrum takes gaps as they are; there the starts are counts of the observed cells.
"""

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd

import graphs
from graphs.exact.junction_tree import JunctionTree
from graphs.learning.comparison import compare_structures
from graphs.learning.counts import read_cells
from graphs.learning.learn import learn_parameters
from graphs.learning.scores import FamilyScores
from graphs.learning.structure import learn_structure


def in_turn(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, tuple[float, Any]]:
    """Median seconds of each run, and what it last returned."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    found: dict[str, Any] = {}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            found[name] = run()
            times[name].append(time.perf_counter() - start)
    return {name: (statistics.median(times[name]), found[name]) for name in runs}


def structure(rows: int, repeats: int) -> None:
    import pyagrum
    from pgmpy.causal_discovery import HillClimbSearch

    alarm = graphs.load("alarm")
    data = graphs.sample(alarm, rows, seed=0)
    names = list(alarm)
    plain: nx.DiGraph = nx.DiGraph(alarm.edges)

    def climb(restarts: int) -> nx.DiGraph:
        return learn_structure(data, restarts=restarts, progress=False).graph

    def by_pgmpy() -> nx.DiGraph:
        search = HillClimbSearch(scoring_method="bic-d", return_type="dag", show_progress=False)
        return nx.DiGraph(search.fit(data).causal_graph_.edges())

    texts = data.astype(str)

    def by_pyagrum() -> nx.DiGraph:
        learner = pyagrum.BNLearner(texts)
        learner.useScoreBIC()
        learner.useNoPrior()
        learner.useGreedyHillClimbing()
        return nx.DiGraph(
            [(texts.columns[a], texts.columns[b]) for a, b in learner.learnDAG().arcs()]
        )

    found = in_turn(
        {
            "ours, one climb": lambda: climb(0),
            "ours, default": lambda: climb(40),
            "pyAgrum": by_pyagrum,
            "pgmpy": by_pgmpy,
        },
        repeats,
    )
    scores = FamilyScores(read_cells(data), "bic-d")
    place = {name: i for i, name in enumerate(names)}
    base = found["ours, one climb"][0]
    print(f"structure of alarm, {rows:,} rows, BIC")
    for method, (seconds, graph) in [*found.items(), ("the true graph", (0.0, plain))]:
        graph.add_nodes_from(names)
        value = sum(scores(place[v], [place[p] for p in graph.predecessors(v)]) for v in names)
        shd = compare_structures(graph, alarm).shd
        print(
            f"  {method:16s} {seconds:7.3f} s {seconds / base:6.1f} x   score {value:12,.1f}   "
            f"{len(graph.edges)} arcs, SHD {shd}",
            flush=True,
        )
        print(json.dumps({"method": method, "seconds": seconds, "score": value, "shd": shd}))


def log_likelihood(model: Any, data: pd.DataFrame) -> float:
    return float(JunctionTree(model).query(data, targets=[]).log_evidence.sum())


def latent(rows: int, repeats: int) -> None:
    """EM with one hidden variable, which pgmpy can take."""
    from pgmpy.models import DiscreteBayesianNetwork
    from pgmpy.parameter_estimator import DiscreteEM

    asia = graphs.load("asia")
    data = graphs.sample(asia, rows, seed=0).drop(columns="bronc").astype(str)

    def by_pgmpy() -> Any:
        model = DiscreteBayesianNetwork(asia.edges, latents={"bronc"})
        estimator = DiscreteEM(
            latent_card={"bronc": 2}, max_iter=STEPS, seed=0, show_progress=False
        )
        model.add_cpds(*estimator.fit(model, data).parameters_)
        return model

    (theirs, model) = in_turn({"pgmpy": by_pgmpy}, 1)["pgmpy"]
    aim = log_likelihood(model, data)
    arcs = nx.DiGraph(asia.edges)

    def ours(steps: int = 1000) -> Any:
        return learn_parameters(
            arcs, data, states={"bronc": 2}, max_iterations=steps, tolerance=0.0, progress=False
        )

    curve = np.array(ours(2000).log_likelihoods)
    steps = max(1, int(np.argmax(curve >= aim - 1e-6))) if curve[-1] >= aim - 1e-6 else 2000
    seconds, found = in_turn({"ours": lambda: ours(steps)}, repeats)["ours"]
    print(f"EM on asia without bronc, {rows:,} rows")
    print(f"  pgmpy {theirs:8.3f} s   {STEPS} steps at most   log-likelihood {aim:,.4f}")
    print(
        f"  ours  {seconds:8.3f} s   {found.iterations} steps   log-likelihood "
        f"{found.log_likelihood:,.4f}; ratio {theirs / seconds:,.0f}"
    )
    print(json.dumps({"pgmpy": theirs, "ours": seconds, "aim": aim, "ll": found.log_likelihood}))


def gaps(name: str, rows: int, share: float, repeats: int) -> None:
    """EM with cells missing at random: ours beside pyAgrum, and what dropping rows would leave."""
    import pyagrum

    network = graphs.load(name)
    rng = np.random.default_rng(0)
    whole = graphs.sample(network, rows, seed=0)
    data = whole.mask(rng.random(whole.shape) < share)
    states = {v: list(whole[v].cat.categories) for v in whole}

    def ours() -> Any:
        return learn_parameters(network, data, method="k2", tolerance=1e-7, progress=False).model

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "data.csv")
        data.astype(object).where(data.notna(), "?").to_csv(path, index=False)
        bif = Path(folder, "network.bif")
        graphs.save(network, bif)

        def by_pyagrum() -> Any:
            template = pyagrum.loadBN(str(bif))
            learner = pyagrum.BNLearner(str(path), template, ["?"])
            learner.useSmoothingPrior(1)
            learner.useEM(1e-7)
            return learner.learnParameters(template.dag())

        found = in_turn({"ours": ours, "pyAgrum": by_pyagrum}, repeats)
        learned = Path(folder, "learned.bif")
        found["pyAgrum"][1].saveBIF(str(learned))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peer = graphs.load(learned)
    complete = int(data.notna().all(axis=1).sum())
    print(f"EM on {name}, {rows:,} rows, {share:.0%} of cells missing, one added to each count")
    print(f"  {complete} rows are complete: what pgmpy would keep; {len(states)} variables")
    for method, (seconds, model) in found.items():
        value = log_likelihood(peer if method == "pyAgrum" else model, data)
        ratio = seconds / found["ours"][0]
        print(f"  {method:8s} {seconds:8.3f} s {ratio:6.2f} x   log-likelihood {value:,.4f}")
        print(json.dumps({"method": method, "seconds": seconds, "log_likelihood": value}))


STEPS = 50  # of pgmpy's EM


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=5000, help="for the structure")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    structure(options.rows, options.repeats)
    latent(1000, options.repeats)
    gaps("asia", 1000, 0.1, options.repeats)
    gaps("alarm", 1000, 0.1, options.repeats)


if __name__ == "__main__":
    main()
