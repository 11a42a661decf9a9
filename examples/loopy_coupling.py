r"""Belief propagation on loops as the coupling grows, between two bounds that are certain.

Spins x_v = -1 or +1 with couplings of one strength J, signs s, and small fields:

    p(x) = 1/Z exp(J sum_uv s_uv x_u x_v + sum_v h_v x_v)

on a cycle of four and on a grid of 3 x 3, small enough for the exact answer. All s are +1 where the
model attracts. It is frustrated where the product of s around every square is -1: no assignment
suits all edges. Three approximations of log Z and of the marginals are set beside it:

    mean field      log Z - KL(q || p) for independent q: a lower bound
    Bethe           belief propagation, messages at once, half damped: no bound
    tree-reweighted sum_T p_T log Z(theta^T) over spanning trees: an upper bound

On one cycle Z is the Bethe value's times 1 + sign tanh^4 J where there are no fields, so belief
propagation errs downwards where the cycle attracts and upwards where it is frustrated. Strong
attraction makes it choose one of two states that are both likely; on the frustrated grid its
messages stop converging (hollow points, some of them beyond the picture), while the bounds go on.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import graphs
from graphs import mean_field, tree_reweighted
from graphs.pictures.picture import BLOCKED, INK, OPEN, PALE

SPIN = np.array([[1.0, -1.0], [-1.0, 1.0]])
COUPLINGS = np.linspace(0, 3, 25)
SHOWN = (0.5, 1.0, 2.0, 3.0)
FIELD = 0.2  # standard deviation
WAYS = {"mean field": OPEN, "Bethe": INK, "tree-reweighted": BLOCKED}


def cycle(frustrated):
    """Edges with their signs: one edge of four repels."""
    return [((i, (i + 1) % 4), -1 if frustrated and i == 3 else 1) for i in range(4)]


def grid(frustrated):
    """Every other column repels: one edge of each square."""
    edges = []
    for row in range(3):
        for column in range(3):
            if column < 2:
                edges.append((((row, column), (row, column + 1)), 1))
            if row < 2:
                sign = -1 if frustrated and column == 1 else 1
                edges.append((((row, column), (row + 1, column)), sign))
    return edges


def fields_of(edges):
    """One structure, and a batch of one field for each coupling."""
    nodes = sorted({node for edge, _ in edges for node in edge})
    pulls = FIELD * np.random.default_rng(0).normal(size=len(nodes))
    pairs = [(edge, sign * COUPLINGS[:, None, None] * SPIN) for edge, sign in edges]
    singles = [((node,), [-h, h]) for node, h in zip(nodes, pulls, strict=True)]
    return graphs.FactorGraph(dict.fromkeys(nodes, 2), pairs + singles)


def compared(edges):
    """Errors of log Z, the largest error of a marginal, and where belief propagation converged."""
    batch = fields_of(edges)
    fields = [batch.field(i) for i in range(batch.batch)]
    exact = [graphs.JunctionTree(field).query() for field in fields]
    log_z = np.array([posterior.log_evidence.item() for posterior in exact])
    truth = np.array([[posterior[v].tolist() for v in batch.variables] for posterior in exact])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="belief propagation has not converged")
        beliefs = [graphs.belief_propagation(f, damping=0.5, max_iterations=400) for f in fields]
    below = mean_field(batch, restarts=20)
    above = tree_reweighted(batch, max_iterations=3000)
    values = {
        "mean field": below.log_partition,
        "Bethe": np.array([found.log_partition for found in beliefs]),
        "tree-reweighted": above.log_partition,
    }
    tables = {
        "mean field": np.stack([below[v] for v in batch.variables], 1),
        "Bethe": np.array([[found[v] for v in batch.variables] for found in beliefs]),
        "tree-reweighted": np.stack([above[v] for v in batch.variables], 1),
    }
    gaps = {way: value - log_z for way, value in values.items()}
    errors = {way: abs(table - truth).max((1, 2)) for way, table in tables.items()}
    return gaps, errors, np.array([found.converged for found in beliefs])


def draw(out, results):
    figure = Figure(figsize=(14, 9), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True)
    for row, kind in zip(axes, ("attractive", "frustrated"), strict=True):
        gaps, errors, converged = results[f"grid, {kind}"]
        row[0].fill_between(
            COUPLINGS, gaps["mean field"], gaps["tree-reweighted"], color=PALE, alpha=0.2, lw=0
        )
        row[0].axhline(0, color=PALE, lw=1)
        for panel, found in zip(row, (gaps, errors), strict=True):
            for way, colour in WAYS.items():
                sure = converged if way == "Bethe" else np.ones_like(converged)
                line = np.where(sure, found[way], np.nan)
                panel.plot(COUPLINGS, line, "o-", color=colour, ms=4, lw=2, label=way)
                if not sure.all():
                    panel.plot(COUPLINGS[~sure], found[way][~sure], "o", color=colour, mfc="white",
                               ms=6, label="Bethe, not converged")  # fmt: skip
        row[0].set_ylim(1.15 * gaps["mean field"].min(), 1.3 * gaps["tree-reweighted"].max())
        row[0].set_ylabel("error of log Z, nats", size=13)
        row[1].set_ylabel("largest error of a marginal", size=13)
        row[1].set_ylim(-0.02, 0.75)
        row[0].set_title(f"log Z, {kind} grid of 3 × 3", size=15, loc="left", color=INK)
        row[1].set_title(f"marginals, {kind} grid of 3 × 3", size=15, loc="left", color=INK)
    axes[0, 1].legend(loc="upper left", frameon=False, fontsize=12)
    axes[1, 0].legend(loc="upper left", frameon=False, fontsize=12)
    for panel in axes[1]:
        panel.set_xlabel("coupling J", size=13)
    for panel in axes.flat:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", color=PALE, alpha=0.3, lw=0.8)
    figure.savefig(out, dpi=100)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("loopy_coupling.png"))
    out = parser.parse_args(argv).out

    results = {
        f"{name}, {'frustrated' if frustrated else 'attractive'}": compared(shape(frustrated))
        for name, shape in (("cycle", cycle), ("grid", grid))
        for frustrated in (False, True)
    }
    table = Table(title="error of log Z in nats, and the largest error of a marginal")
    for column in ("model", "J", *WAYS):
        table.add_column(column, justify="left" if column == "model" else "right")
    found = {}
    for model, (gaps, errors, converged) in results.items():
        for coupling in SHOWN:
            i = int(abs(COUPLINGS - coupling).argmin())
            cells = []
            for way in WAYS:
                lost = "" if way != "Bethe" or converged[i] else " (not converged)"
                cells.append(f"{gaps[way][i]:+.4f}, {errors[way][i]:.4f}{lost}")
                found[f"{model}, J = {coupling:g}: {way}, log Z"] = gaps[way][i]
                found[f"{model}, J = {coupling:g}: {way}, marginal"] = errors[way][i]
            table.add_row(model if coupling == SHOWN[0] else "", f"{coupling:g}", *cells)
        found[f"{model}: mean field, highest"] = gaps["mean field"].max()
        found[f"{model}: tree-reweighted, lowest"] = gaps["tree-reweighted"].min()
        found[f"{model}: couplings at which belief propagation converged"] = int(converged.sum())
    Console(width=130).print(table)
    for model, (_, _, converged) in results.items():
        print(f"{model}: belief propagation converged at {converged.sum()} of {len(COUPLINGS)}")
    draw(out, results)
    print(f"picture: {out}")
    return found


if __name__ == "__main__":
    main()
