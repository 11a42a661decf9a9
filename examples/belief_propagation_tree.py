r"""Belief propagation on a tree of six: whatever the order of the messages, one answer.

    x1            x5
      \          /
       x3 --- x4
      /          \
    x2            x6

    m_{j->i}(x_i) = sum_{x_j} psi(x_i, x_j) psi(x_j) prod_{k in N(j) without i} m_{k->j}(x_j)

Depth first, messages go from the leaves to a root and back: 2 (N-1) of them, each once, for any
root. Flooding sends all from those of the round before, until nothing changes: after as many rounds
as the longest way has edges, and one more that shows it, they are the same. On a tree both are
exact: p(x_i) = psi(x_i) prod_j m_{j->i}(x_i), normalised (Pearl 1988; Bishop, PRML, section 8.4.4).

With max in place of sum the same messages find the most probable configuration (Bishop, section
8.4.5). It need not be made of each variable's most probable state, and here four of six differ: the
sum says what is likely of one variable, the maximum what is likely of all together.

    enumeration |x|^N = 3^6 = 729 configurations; messages 2 (N-1) |x|^2 = 90 table entries
"""

import argparse
from itertools import product
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import graphs

NAMES = ("x1", "x2", "x3", "x4", "x5", "x6")
EDGES = (("x1", "x3"), ("x2", "x3"), ("x3", "x4"), ("x4", "x5"), ("x4", "x6"))
STATES = ("a", "b", "c")
SEED = 343


def tree():
    """Random potentials on the edges and the variables."""
    rng = np.random.default_rng(SEED)
    scopes = [*((name,) for name in NAMES), *EDGES]
    factors = [(scope, rng.normal(size=(3,) * len(scope))) for scope in scopes]
    return graphs.FactorGraph(dict.fromkeys(NAMES, 3), factors, states=dict.fromkeys(NAMES, STATES))


def enumerated(fg):
    """The marginals, log Z, and the best configuration, from all 729 configurations."""
    every = np.array([*product(range(3), repeat=len(NAMES))])
    scores = fg.score(every)
    weights = np.exp(scores - scores.max())
    marginals = np.array([[weights[every[:, i] == k].sum() for k in range(3)]
                          for i in range(len(NAMES))]) / weights.sum()  # fmt: skip
    log_z = float(np.log(weights.sum()) + scores.max())
    return marginals, log_z, every[scores.argmax()]


def draw(out, traces):
    """Two depth-first runs halfway, when all messages have come to the root, and two at the end."""
    figure = Figure(figsize=(17, 11.4))
    views = [("from the root x1, halfway: the root knows all", traces["root x1"], 5),
             ("from the root x1: there and back", traces["root x1"], None),
             ("from the root x6, halfway: the root knows all", traces["root x6"], 5),
             ("max-product: max-marginals", traces["max-product"], None)]  # fmt: skip
    for i, (title, trace, step) in enumerate(views):
        row, column = divmod(i, 2)
        trace.draw(step, ax=figure.add_axes((0.5 * column + 0.01, 0.5 - 0.5 * row, 0.48, 0.46)))
        figure.text(0.25 + 0.5 * column, 0.97 - 0.5 * row, title, size=15, ha="center",
                    weight="bold")  # fmt: skip
    figure.savefig(out, dpi=100)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("belief_propagation_tree.png"))
    out = parser.parse_args(argv).out

    fg = tree()
    marginals, log_z, best = enumerated(fg)
    counted = graphs.belief_propagation(fg).operations
    print(counted, end="\n\n")
    found = {"operations": counted.passes, "configurations": counted.enumeration, "log Z": log_z}

    runs = {
        "root x1": {"schedule": "depth_first", "root": "x1"},
        "root x6": {"schedule": "depth_first", "root": "x6"},
        "flooding": {"schedule": "flooding"},
        "residual": {"schedule": "residual"},
    }
    table = Table(title="sum-product on the tree, by schedule")
    for column in ("schedule", "iterations", "messages", "operations", "log Z", "worst error"):
        table.add_column(column, justify="left" if column == "schedule" else "right")
    traces = {}
    for name, options in runs.items():
        beliefs = graphs.belief_propagation(fg, **options, tolerance=1e-12, trace=True)
        trace = traces[name] = beliefs.trace
        worst = float(abs(beliefs.array - marginals).max())
        table.add_row(name, str(beliefs.iterations), str(len(trace)), str(trace.operations),
                      f"{beliefs.log_partition:.6f}", f"{worst:.1e}")  # fmt: skip
        found |= {
            f"{name}: iterations": beliefs.iterations,
            f"{name}: messages": len(trace),
            f"{name}: operations": trace.operations,
            f"{name}: worst error": worst,
            f"{name}: log Z": beliefs.log_partition,
        }
    Console().print(table)
    print(traces["root x1"], end="\n\n")

    largest = graphs.belief_propagation(fg, "max", "depth_first", root="x1", trace=True)
    traces["max-product"] = largest.trace
    each = marginals.argmax(1)
    print(f"{'':16}{'  '.join(NAMES)}   score")
    for name, states in (
        ("max-product", largest.states), ("enumeration", best), ("each by itself", each)
    ):  # fmt: skip
        text = "   ".join(STATES[k] for k in states)
        print(f"{name:16}{text}   {float(fg.score(states)):.4f}")
    found |= {
        "max-product: score": largest.score,
        "max-product: differs from enumeration": int((largest.states != best).sum()),
        "best score": float(fg.score(best)),
        "each by itself: score": float(fg.score(each)),
        "each by itself: variables that differ": int((each != best).sum()),
    }
    draw(out, traces)
    film = out.with_suffix(".gif")
    found["frames"] = traces["root x1"].animate(film, overwrite=True)
    print(f"picture: {out}; moving picture: {film}")
    return found


if __name__ == "__main__":
    main()
