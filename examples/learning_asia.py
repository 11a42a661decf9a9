r"""Learning a network from data: its tables where cells are missing, and its arcs.

With complete rows maximum likelihood is counting, theta_ijk = N_ijk / N_ij: of the rows whose
parents are in configuration j, the share in which x_i is in state k. Where cells are missing, two
ways are open. Dropping every row with a gap throws most of the data away. EM keeps all of it: it
puts expected counts in the counts' place, the posterior of what is missing under the last tables,

    N_ijk = sum over rows p(x_i = k, pa_i = j | the row's cells),      theta_ijk = N_ijk / N_ij,

and repeats (Lauritzen 1995). What it climbs, log p(the observed cells) plus the log prior, never
falls. Both ways are measured by the divergence of what was learned from the truth, exactly, over
all 256 joint states of asia:

    KL(p || q) = sum over x of p(x) log p(x) / q(x)

(one pseudo-count spread over each table, BDeu, keeps q positive). The arcs are searched for by
hill climbing on BIC, from complete rows, and compared with the true ones by their CPDAGs: an arc
that can be turned without changing what the graph states is not an error.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import graphs
from graphs.learning.comparison import compare_structures
from graphs.learning.learn import learn_parameters
from graphs.learning.structure import learn_structure
from graphs.pictures.picture import BLOCKED, INK, OPEN

ROWS, FEW, SAMPLES = 1000, 300, 8
SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
SIZES = (100, 300, 1000, 3000, 10_000)


def divergence(true, learned):
    """KL(true || learned) in nats over the joint table."""
    p, q = (
        graphs.joint(model).reorder_levels(list(true)).sort_index() for model in (true, learned)
    )
    p, q = p.to_numpy(), q.to_numpy()
    return float((p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum())


def learned(network, rows):
    states = {v: network.get_cpds(v).state_names[v] for v in network}
    return learn_parameters(
        list(network.edges), rows[list(network)], method="bdeu", equivalent_sample_size=1.0,
        states=states, tolerance=1e-6, progress=False,
    )  # fmt: skip


def by_share(network):
    """KL of both ways and complete rows left, (samples), by the share of missing cells."""
    found = {share: {"EM": [], "dropped": [], "rows": []} for share in SHARES}
    for sample in range(SAMPLES):
        whole = graphs.sample(network, ROWS, seed=sample)
        draws = np.random.default_rng(sample).random(whole.shape)
        for share, cell in found.items():
            rows = whole.mask(draws < share)
            complete = rows.dropna()
            cell["EM"].append(divergence(network, learned(network, rows).model))
            cell["rows"].append(len(complete))
            if len(complete):
                cell["dropped"].append(divergence(network, learned(network, complete).model))
            else:  # nothing is left but the uniform prior
                prior = learned(network, whole.iloc[:1].mask(whole.iloc[:1].notna()))
                cell["dropped"].append(divergence(network, prior.model))
    return found


def style(axes, title, x, y):
    axes.set_title(title, size=15, color=INK, pad=10)
    axes.set_xlabel(x, size=11.5)
    axes.set_ylabel(y, size=11.5)
    axes.spines[["top", "right"]].set_visible(False)


def draw(out, found, curve, distances, comparison):
    figure = Figure(figsize=(16, 9))
    axes = figure.add_axes((0.06, 0.57, 0.4, 0.36))
    for key, name, colour in (("dropped", "rows with gaps dropped", BLOCKED),
                              ("EM", "EM on all rows", OPEN)):  # fmt: skip
        values = np.array([found[share][key] for share in SHARES])
        x = 100 * np.array(SHARES)
        axes.plot(x, values.mean(1), color=colour, lw=2.4, marker="o", label=name)
        axes.fill_between(x, values.min(1), values.max(1), color=colour, alpha=0.15, lw=0)
    axes.set_yscale("log")
    for share in SHARES[1:]:
        left = np.mean(found[share]["rows"])
        at = 100 * share, np.mean(found[share]["dropped"])
        axes.annotate(f"{left:.0f} rows", at, (0, 9), textcoords="offset points", ha="center",
                      size=10, color=BLOCKED)  # fmt: skip
    axes.set_ylim(top=axes.get_ylim()[1] * 1.3)
    axes.legend(frameon=False, fontsize=13, loc="upper left")
    title = f"How far from the truth, of {ROWS:,} rows ({SAMPLES} samples, their range shaded)"
    style(axes, title, "cells missing, %", "KL(truth || learned), nats")

    axes = figure.add_axes((0.06, 0.085, 0.175, 0.34))
    axes.plot(range(len(curve)), curve, color=OPEN, lw=2.2, marker="o", ms=4)
    style(axes, "EM never falls", "step, 30% of cells missing", "log-likelihood + log prior, nats")

    axes = figure.add_axes((0.29, 0.085, 0.17, 0.34))
    axes.plot(SIZES, distances, color=INK, lw=2.2, marker="o")
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    style(axes, "More rows, fewer wrong arcs", "complete rows", "SHD, mean of the samples")

    axes = figure.add_axes((0.5, 0.06, 0.48, 0.87))
    title = f"Learned from {FEW} complete rows: SHD {comparison.shd}"
    comparison.draw(ax=axes, title=title)
    figure.savefig(out, dpi=100)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("learning_asia.png"))
    out = parser.parse_args(argv).out

    asia = graphs.load("asia")
    figures = {}
    found = by_share(asia)
    print(f"KL(truth || learned) in nats, {ROWS:,} rows, mean of {SAMPLES} samples")
    for share, cell in found.items():
        em, dropped, left = (float(np.mean(cell[key])) for key in ("EM", "dropped", "rows"))
        print(f"  {share:4.0%} missing: EM {em:.4f}   dropped {dropped:.4f} ({left:.0f} rows left)")
        figures[f"EM, {share:.0%} missing"] = em
        figures[f"dropped, {share:.0%} missing"] = dropped

    rows = graphs.sample(asia, ROWS, seed=0)
    gaps = rows.mask(np.random.default_rng(0).random(rows.shape) < 0.3)
    fit = learned(asia, gaps)
    print(fit)
    figures["smallest step of EM, nats"] = float(np.diff(fit.objectives).min())
    figures["steps of EM"] = fit.iterations

    distances = []
    for size in SIZES:
        shds = []
        for sample in range(SAMPLES):
            structure = learn_structure(graphs.sample(asia, size, seed=sample), progress=False)
            shds.append(compare_structures(structure, asia).shd)
        distances.append(float(np.mean(shds)))
        figures[f"SHD from {size} rows"] = distances[-1]
        print(f"structure from {size:6,} rows: SHD {distances[-1]:.2f}")
    few = graphs.sample(asia, FEW, seed=0)
    comparison = compare_structures(learn_structure(few, progress=False), asia)
    print(comparison)
    figures["skeleton F1"] = comparison.skeleton_f1
    draw(out, found, fit.objectives, distances, comparison)
    print(f"picture: {out}")
    return figures


if __name__ == "__main__":
    main()
