r"""Belief propagation on a chain of three, every message looked at.

    p(x1, x2, x3) = 1/Z psi(x1) psi(x2) psi(x3) psi(x1, x2) psi(x2, x3)

A message from j to its neighbour i says what the part of the graph behind j has to say of x_i:

    m_{j->i}(x_i) = sum_{x_j} psi(x_i, x_j) psi(x_j) prod_{k in N(j) without i} m_{k->j}(x_j)
    p(x_i) = psi(x_i) prod_{j in N(i)} m_{j->i}(x_i) / sum of the same

(Pearl 1988; Bishop, PRML, section 8.4.1). To the end of the chain and back, four messages give all
three marginals. Enumeration sums over |x|^N configurations; the messages to one end visit (N-1)
|x|^2 table entries, and those of both directions twice as many.

Here each x_i is a switch that is off or on. Neighbours tend to agree; x1 is rather on, x3 rather
off, and x2 has no preference of its own. Then x3 is seen on. Beside the picture, a moving picture
(.gif) shows the messages one by one.
"""

import argparse
from itertools import product
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import graphs

OFF_ON = ("off", "on")
AGREE = np.array([[3.0, 1.0], [1.0, 3.0]])
FACTORS = {
    ("x1",): np.array([0.2, 0.8]),
    ("x2",): np.array([0.5, 0.5]),
    ("x3",): np.array([0.7, 0.3]),
    ("x1", "x2"): AGREE,
    ("x2", "x3"): AGREE,
}
VARIABLES = ("x1", "x2", "x3")


def chain():
    """The factor graph: the tables' logarithms, and how many states each variable has."""
    logs = [(scope, np.log(table)) for scope, table in FACTORS.items()]
    return graphs.FactorGraph(
        dict.fromkeys(VARIABLES, 2), logs, states=dict.fromkeys(VARIABLES, OFF_ON)
    )


def enumerated(evidence):
    """All marginals and Z by going through every configuration."""
    total = {v: np.zeros(2) for v in VARIABLES}
    for states in product(range(2), repeat=3):
        x = dict(zip(VARIABLES, states, strict=True))
        if any(OFF_ON[x[v]] != state for v, state in evidence.items()):
            continue
        weight = np.prod([table[tuple(x[v] for v in scope)] for scope, table in FACTORS.items()])
        for v in VARIABLES:
            total[v][x[v]] += weight
    z = float(total["x1"].sum())
    return {v: weights / z for v, weights in total.items()}, z


def draw(out, traces):
    """The four steps of the first run, and what each run leaves."""
    figure = Figure(figsize=(15, 10))
    for step in range(1, 5):
        row, column = divmod(step - 1, 2)
        traces["nothing seen"].draw(
            step, ax=figure.add_axes((0.5 * column, 0.69 - 0.315 * row, 0.5, 0.3))
        )
    for column, (seen, trace) in enumerate(traces.items()):
        trace.draw(ax=figure.add_axes((0.5 * column, 0.01, 0.5, 0.3)))
        figure.text(0.25 + 0.5 * column, 0.325, seen, size=15, ha="center", weight="bold")
    figure.savefig(out, dpi=100)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("belief_propagation_chain.png"))
    out = parser.parse_args(argv).out

    fg, found, traces = chain(), {}, {}
    counted = graphs.belief_propagation(fg).operations
    print(counted, end="\n\n")
    found |= {
        "operations, one marginal": counted.one_pass,
        "operations, all marginals": counted.passes,
        "configurations": counted.enumeration,
    }
    for seen, evidence in (("nothing seen", {}), ("x3 seen on", {"x3": "on"})):
        beliefs = graphs.belief_propagation(
            fg, schedule="depth_first", root="x3", evidence=evidence, trace=True
        )
        marginals, z = enumerated(evidence)
        traces[seen] = beliefs.trace
        print(f"{seen}: {beliefs.trace}\n")
        for message in beliefs.trace:
            found[f"{seen}: {message.name}, on"] = float(message.values[1])
        print(f"  {'':4}{'messages':>12}{'enumeration':>14}")
        for v in VARIABLES:
            print(f"  {v:4}{beliefs[v][1]:12.6f}{marginals[v][1]:14.6f}   p({v} = on)")
            found[f"{seen}: p({v} = on)"] = float(beliefs[v][1])
            found[f"{seen}: p({v} = on), enumerated"] = float(marginals[v][1])
        print(f"  log Z{beliefs.log_partition:11.6f}{np.log(z):14.6f}\n")
        found[f"{seen}: log Z"] = beliefs.log_partition
        found[f"{seen}: log Z, enumerated"] = float(np.log(z))

    draw(out, traces)
    film = out.with_suffix(".gif")
    found["frames"] = traces["nothing seen"].animate(film, seconds=1.2, overwrite=True)
    print(f"picture: {out}; moving picture: {film}")
    return found


if __name__ == "__main__":
    main()
