"""Belief propagation: ours beside PGMax on grids and beside pyAgrum on networks, in one run.

    python -m venv pgmax && pgmax/bin/pip install pgmax==0.6.1   # brings JAX
    pip install pyagrum==3.3.1
    export OMP_NUM_THREADS=1
    taskset -c 0 python benchmarks/belief_propagation.py --pgmax pgmax/bin/python

Grids: binary, 256 x 256 and 512 x 512, float32, one coupling for all edges and random fields.
Milliseconds for one sweep of all messages, sum- and max-product: the fast path of grids and the
general engine, as `belief_propagation` runs them (residuals are looked at, which PGMax does not),
and PGMax 0.6.1, compiled by JAX, in a process of its own that takes turns with ours on the same
core. Beliefs after equally many sweeps are compared. One thread. The bytes that a sweep must move
are set beside the speed of a copy in memory.

Networks: all posteriors by loopy propagation given a state of three leaves, until it converges:
ours, with the tolerance that brings it as near to the fixed point as pyAgrum's own stopping rule
brings pyAgrum, or nearer; errors are against exact inference.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from typing import Any

import numpy as np

SIZES, COUPLING, SWEEPS, ROUNDS = (256, 512), 0.5, 40, 5
TABLE = COUPLING * np.array([[1.0, -1.0], [-1.0, 1.0]], dtype=np.float32)
NETWORKS = ("alarm", "hailfinder", "andes", "link")
TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6, 1e-8)


def field(size: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(size, size, 2)).astype(np.float32)


# The peer's process: one line of JSON in, one out ------------------------------------------------


def serve() -> None:
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    from types import SimpleNamespace

    import jax
    import jax.extend.backend

    # PGMax 0.6.1 asks for a module that JAX has since moved.
    jax.lib.xla_bridge = SimpleNamespace(  # type: ignore[attr-defined]
        get_backend=lambda *_: jax.extend.backend.get_backend()
    )
    from pgmax import fgraph, fgroup, infer, vgroup

    built: dict[int, Any] = {}
    ready: dict[tuple[int, str], Any] = {}
    for line in sys.stdin:
        size, product = json.loads(line)
        answer: dict[str, Any] = {}
        if size not in built:
            start = time.perf_counter()
            v = vgroup.NDVarArray(num_states=2, shape=(size, size))
            graph = fgraph.FactorGraph(variable_groups=[v])
            pairs = [[v[i, j], v[i + 1, j]] for i in range(size - 1) for j in range(size)]
            pairs += [[v[i, j], v[i, j + 1]] for i in range(size) for j in range(size - 1)]
            graph.add_factors(
                fgroup.PairwiseFactorGroup(variables_for_factors=pairs, log_potential_matrix=TABLE)
            )
            engine = infer.build_inferer(graph.bp_state, backend="bp")
            answer["build"] = time.perf_counter() - start
            built[size] = engine, v, engine.init(evidence_updates={v: field(size)})
        engine, v, arrays = built[size]
        if (size, product) not in ready:
            hot = 1.0 if product == "sum" else 0.0
            ready[size, product] = jax.jit(
                lambda a, e=engine, t=hot: e.run(a, num_iters=SWEEPS, damping=0.0, temperature=t)
            )
            jax.block_until_ready(ready[size, product](arrays).ftov_msgs)
        start = time.perf_counter()
        done = ready[size, product](arrays)
        jax.block_until_ready(done.ftov_msgs)
        answer["ms"] = (time.perf_counter() - start) / SWEEPS * 1e3
        beliefs = engine.get_beliefs(done)
        if product == "sum":
            beliefs = infer.get_marginals(beliefs)
        sample = np.asarray(next(iter(beliefs.values())))[:4, :4].astype(float)
        answer["corner"] = (sample[..., 1] - sample[..., 0]).tolist()
        print(json.dumps(answer), flush=True)


# Ours --------------------------------------------------------------------------------------------


def fast(graph: Any, product: str) -> tuple[float, Any]:
    """ms a sweep, as a long run less a short one; and the beliefs after SWEEPS."""
    import graphs

    def run(sweeps: int) -> tuple[float, Any]:
        start = time.perf_counter()
        found = graphs.belief_propagation(
            graph, product, "flooding", tolerance=0.0, max_iterations=sweeps
        )
        return time.perf_counter() - start, found

    short, found = run(SWEEPS)
    long, _ = run(3 * SWEEPS)
    return (long - short) / (2 * SWEEPS) * 1e3, found


def general(engine: Any) -> float:
    """ms a sweep of the general engine, residuals and all."""
    import torch

    with torch.no_grad():
        start = time.perf_counter()
        engine.run(0.0, 0.0, SWEEPS, "")
    return (time.perf_counter() - start) / SWEEPS * 1e3


def bandwidth() -> float:
    """GB/s of a copy of 256 MiB, reading and writing counted."""
    a = np.ones(2**25)
    b = np.empty_like(a)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        np.copyto(b, a)
        best = min(best, time.perf_counter() - start)
    return 2 * a.nbytes / best / 1e9


def grids(python: str | None) -> None:
    import torch

    import graphs
    from graphs.messages.flooding import Flooding
    from graphs.messages.wiring import Wiring

    peer = None
    if python:
        peer = subprocess.Popen(
            [python, __file__, "--serve"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def ask(size: int, product: str) -> dict[str, Any]:
        assert peer is not None and peer.stdin and peer.stdout
        peer.stdin.write(json.dumps([size, product]) + "\n")
        peer.stdin.flush()
        return json.loads(peer.stdout.readline())

    torch.set_num_threads(1)
    speed = bandwidth()
    print(f"memory: {speed:.1f} GB/s copied on one core")
    for size in SIZES:
        unary = field(size)
        start = time.perf_counter()
        graph = graphs.FactorGraph.grid(unary, TABLE)
        built = time.perf_counter() - start
        said = f"{size}x{size}: built in {built:.3f} s"
        for product in ("sum", "max"):
            engine = Flooding(Wiring(graph, {}, None), product)
            times: dict[str, list[float]] = {"fast": [], "general": [], "peer": []}
            corner = None
            for _ in range(ROUNDS):
                seconds, found = fast(graph, product)
                times["fast"].append(seconds)
                times["general"].append(general(engine))
                if peer is not None:
                    answer = ask(size, product)
                    if "build" in answer:
                        said += (
                            f"; PGMax in {answer['build']:.1f} s, {answer['build'] / built:.0f}x"
                        )
                    times["peer"].append(answer["ms"])
                    corner = np.array(answer["corner"])
            if said:
                print(said)
                said = ""
            ms = {name: statistics.median(values) for name, values in times.items() if values}
            # A sweep reads and writes four log-odds a pixel, and reads the unary one.
            moved = size * size * 9 * 4 / 1e9
            line = (
                f"  {product}: fast {ms['fast']:.2f} ms ({moved / ms['fast'] * 1e3:.1f} GB/s, "
                f"{moved / ms['fast'] * 1e3 / speed:.0%} of a copy), general {ms['general']:.2f} ms"
            )
            if "peer" in ms:
                logs = found.array[:4, :4]
                ours = logs[..., 1] - logs[..., 0]
                if product == "max":
                    ours = np.log(logs[..., 1]) - np.log(logs[..., 0])
                line += (
                    f", PGMax {ms['peer']:.2f} ms: {ms['peer'] / ms['fast']:.1f}x and "
                    f"{ms['peer'] / ms['general']:.1f}x; largest difference of beliefs "
                    f"{np.abs(ours - corner).max():.1e}"
                )
            print(line, flush=True)
    if peer is not None:
        peer.kill()


# Networks ----------------------------------------------------------------------------------------


Beliefs = dict[str, np.ndarray]


class Question:
    """A network with evidence on three leaves, as both sides read it."""

    def __init__(self, name: str) -> None:
        import pyagrum

        import graphs

        model = graphs.load(name)
        with tempfile.NamedTemporaryFile(suffix=".bif") as file:
            graphs.save(model, file.name, overwrite=True)
            self.bn = pyagrum.loadBN(file.name)
            tables = graphs.read(file.name)
        self.graph = graphs.FactorGraph.of(tables)
        self.nodes = list(self.bn.names())
        leaves = sorted(node for node in self.nodes if not self.bn.children(node))[:3]
        row = graphs.sample(model, 1, seed=0).iloc[0]  # states that can be together
        self.evidence = {leaf: row[leaf] for leaf in leaves}
        self.exact = graphs.JunctionTree(tables).query(self.evidence).to_numpy()

    def theirs(self) -> tuple[float, Beliefs]:
        import pyagrum

        engine = pyagrum.LoopyBeliefPropagation(self.bn)
        engine.setEvidence({k: str(v) for k, v in self.evidence.items()})
        start = time.perf_counter()
        engine.makeInference()
        found = {node: engine.posterior(node).toarray() for node in self.nodes}
        taken = time.perf_counter() - start
        for node, values in found.items():
            order = [self.bn.variable(node).index(str(s)) for s in self.graph.states[node]]
            found[node] = values[order]
        return taken, found

    def ours(self, tolerance: float) -> tuple[float, Beliefs, int]:
        import graphs

        start = time.perf_counter()
        found = graphs.belief_propagation(
            self.graph, evidence=self.evidence, tolerance=tolerance, max_iterations=20_000
        )
        beliefs = {node: found[node] for node in self.nodes}
        return time.perf_counter() - start, beliefs, found.iterations


def apart(found: Beliefs, other: Beliefs) -> float:
    return max(float(np.abs(found[node] - other[node]).max()) for node in found)


def networks() -> None:
    import pyagrum
    import torch

    torch.set_num_threads(1)
    pyagrum.setNumberOfThreads(1)
    for name in NETWORKS:
        question = Question(name)
        fixed = question.ours(1e-12)[1]
        gap = apart(question.theirs()[1], fixed)
        near = [t for t in TOLERANCES if apart(question.ours(t)[1], fixed) <= gap]
        tolerance = near[0] if near else TOLERANCES[-1]
        mine, other = [], []
        for _ in range(7):
            mine.append(question.ours(tolerance))
            other.append(question.theirs())
        one, two = (statistics.median(x[0] for x in runs) for runs in (mine, other))
        found, peers = mine[0][1], other[0][1]
        print(
            f"{name}: ours {one * 1e3:.1f} ms ({mine[0][2]} iterations, tolerance {tolerance:g}), "
            f"pyAgrum {two * 1e3:.1f} ms: {two / one:.1f}x; from the fixed point "
            f"{apart(found, fixed):.1e} and {gap:.1e}, from exact "
            f"{apart(found, question.exact):.4f} and {apart(peers, question.exact):.4f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pgmax", help="the Python of an environment that has PGMax")
    parser.add_argument("--only", choices=("grids", "networks"))
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    warnings.simplefilter("ignore")
    if options.only != "networks":
        grids(options.pgmax)
    if options.only != "grids":
        networks()


if __name__ == "__main__":
    main()
