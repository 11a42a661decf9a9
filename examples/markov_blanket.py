r"""The Markov blanket: what is left to know of a variable once its neighbourhood is known.

The blanket of x_i is its parents, its children and its co-parents, the other parents of its
children. Of all factors p(x_j | pa_j) only its own and its children's mention x_i; the others
cancel from numerator and denominator (Bishop, PRML, section 8.2.2):

    p(x_i | rest) = p(x_i | blanket) ∝ p(x_i | pa_i) prod_{children j} p(x_j | pa_j)

The alarm network has 37 variables. Complete rows are sampled from it; each of its variables is
hidden in turn, and asked for given all 36 others, and given its blanket alone. Every member of the
blanket is needed: with one of them left out, the answer is another. How much is lost is

    E KL(p(x | blanket) || p(x | blanket without m)) = I(x; m | the others of the blanket)
"""

import argparse
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.special import rel_entr

import graphs
from graphs.pictures.drawing import CHILD, CO_PARENT, PARENT
from graphs.pictures.picture import INK, PALE

SHOWN, ROWS = "HR", 1000
KINDS = {"parents": PARENT, "children": CHILD, "co-parents": CO_PARENT}


def kinds(model, variable):
    """The members of the blanket, by what they are to the variable."""
    parents, children = list(model.predecessors(variable)), list(model.successors(variable))
    others = graphs.markov_blanket(model, variable) - {*parents, *children}
    co_parents = [other for other in model if other in others]
    return {"parents": parents, "children": children, "co-parents": co_parents}


def by_hand(model, variable, rows):
    """p(variable | rest) of each row by the formula: the factors that mention it, normalised."""
    mentioned = [variable, *model.successors(variable)]
    weights = []
    for state in rows[variable].cat.categories:
        product = np.ones(len(rows))
        for child in mentioned:
            table = model.get_cpds(child)
            given = rows[table.variables].assign(**{variable: state})
            codes = [given[v].map(table.name_to_no[v]).to_numpy(int) for v in table.variables]
            product *= table.values[tuple(codes)]
        weights.append(product)
    weights = np.stack(weights, 1)
    return weights / weights.sum(1, keepdims=True)


def draw(out, model, sizes, needed):
    figure = Figure(figsize=(16, 9))
    graphs.draw(model, blanket=SHOWN, ax=figure.add_axes((0.0, 0.01, 0.58, 0.98)))

    members = kinds(model, SHOWN)
    colour = {v: KINDS[kind] for kind, names in members.items() for v in names}
    axes = figure.add_axes((0.7, 0.56, 0.28, 0.37))
    order = sorted(needed, key=needed.get)
    axes.barh(order, [needed[v] for v in order], color=[colour[v] for v in order])
    axes.set_xlabel(f"lost about {SHOWN} without it, in bits", size=11)
    axes.set_title("Each member of the blanket is needed", size=13, color=INK)

    bars = figure.add_axes((0.63, 0.09, 0.355, 0.33))
    counts = np.bincount(list(sizes.values()))
    bars.bar(range(len(counts)), counts, color=PALE)
    bars.set_xlabel("variables in the blanket, of 36", size=11)
    bars.set_ylabel("variables of alarm", size=11)
    bars.set_xticks(range(len(counts)))
    mean = np.mean(list(sizes.values()))
    bars.set_title(f"Blankets are small: {mean:.1f} of 36 on average", size=13, color=INK)
    for panel in (axes, bars):
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, dpi=100)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("markov_blanket.png"))
    out = parser.parse_args(argv).out

    model = graphs.load("alarm")
    rows = graphs.sample(model, ROWS, seed=1)
    engine = graphs.JunctionTree(model)
    blankets = {v: [m for m in model if m in graphs.markov_blanket(model, v)] for v in model}
    print(f"the blanket of {SHOWN}: {len(blankets[SHOWN])} of {len(model) - 1} variables")
    for kind, names in kinds(model, SHOWN).items():
        print(f"  {kind + ':':12} {', '.join(names)}")

    worst, started = 0.0, time.perf_counter()
    for variable, blanket in blankets.items():
        by_rest = engine.query(rows.drop(columns=variable), targets=[variable])[variable]
        by_blanket = engine.query(rows[blanket], targets=[variable])[variable]
        worst = max(worst, (by_rest - by_blanket).abs().max().item())
    took = time.perf_counter() - started
    print(f"p(x | rest) and p(x | blanket) of all {len(model)} variables in {ROWS:,} rows:")
    print(f"  apart by at most {worst:.1e}; {took:.2f} s for {2 * len(model) * ROWS:,} queries")

    exact = engine.query(rows[blankets[SHOWN]], targets=[SHOWN])[SHOWN].numpy()
    hand = np.abs(by_hand(model, SHOWN, rows) - exact).max()
    needed = {}
    for member in blankets[SHOWN]:
        fewer = [m for m in blankets[SHOWN] if m != member]
        without = engine.query(rows[fewer], targets=[SHOWN])[SHOWN].numpy()
        needed[member] = rel_entr(exact, without).sum(1).mean() / np.log(2)
    print(f"the formula by hand for {SHOWN}: apart by at most {hand:.1e}")
    for member in sorted(needed, key=needed.get, reverse=True):
        print(f"  without {member:12} {needed[member]:.4f} bits are lost")
    sizes = {v: len(blanket) for v, blanket in blankets.items()}
    mean = float(np.mean(list(sizes.values())))
    moral = 2 * graphs.moralize(model).number_of_edges() / len(model)
    print(f"a blanket has {mean:.2f} of {len(model) - 1} variables on average, at most"
          f" {max(sizes.values())}")  # fmt: skip
    draw(out, model, sizes, needed)
    print(f"picture: {out}")
    return {
        "largest difference": worst,
        "largest difference by hand": float(hand),
        f"blanket of {SHOWN}": sizes[SHOWN],
        "mean size of a blanket": mean,
        "mean degree of the moral graph": moral,
        "largest blanket": max(sizes.values()),
        "least needed member, bits": min(needed.values()),
        "most needed member, bits": max(needed.values()),
        "seconds": took,
    }


if __name__ == "__main__":
    main()
