r"""Three small graphs, and how two causes compete to explain what they have in common.

A trail from a to b through a middle node c (Bishop, PRML, section 8.2.1):

    tail-to-tail   a <- c -> b    p(a, b, c) = p(c) p(a | c) p(b | c)   c observed blocks it
    head-to-tail   a -> c -> b    p(a, b, c) = p(a) p(c | a) p(b | c)   c observed blocks it
    head-to-head   a -> c <- b    p(a, b, c) = p(a) p(b) p(c | a, b)    c observed opens it

How much a and b then depend on each other is their mutual information, zero where the trail is
blocked, here computed from the whole table p(a, b, c):

    I(a; b | c) = sum_abc p(a, b, c) log2 p(a, b, c) p(c) / (p(a, c) p(b, c))

Explaining away: battery and fuel are independent, and both move the fuel gauge. The gauge at empty
makes an empty tank likelier; that the battery is flat explains the gauge, and the tank is trusted
again. By Bayes' rule, with p(gauge = empty) = 0.315,

    p(fuel = empty | gauge = empty)                 = 0.1 * 0.81 / 0.315         = 0.257
    p(fuel = empty | gauge = empty, battery = flat) = 0.09 / (0.09 + 0.72)       = 0.111
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from pgmpy.factors.discrete import TabularCPD
from pgmpy.models import DiscreteBayesianNetwork

import graphs
from graphs.pictures.picture import BLOCKED, INK, OPEN, PALE

YES_NO = ("no", "yes")
THREE = {  # variable: its parents, and p(variable = yes | parents), the last parent fastest
    "tail-to-tail": {"c": ("", [0.4]), "a": ("c", [0.2, 0.8]), "b": ("c", [0.3, 0.9])},
    "head-to-tail": {"a": ("", [0.4]), "c": ("a", [0.2, 0.8]), "b": ("c", [0.3, 0.9])},
    "head-to-head": {"a": ("", [0.4]), "b": ("", [0.4]), "c": ("ab", [0.1, 0.7, 0.7, 0.9])},
}
CAR = {
    "battery": ("", [0.9]),
    "fuel": ("", [0.9]),
    "gauge": (("battery", "fuel"), [0.1, 0.2, 0.2, 0.8]),
}
CAR_STATES = {"battery": ("flat", "charged"), "fuel": ("empty", "full"), "gauge": ("empty", "full")}
SEEN = {
    "nothing seen": {},
    "gauge empty": {"gauge": "empty"},
    "gauge empty, battery flat": {"gauge": "empty", "battery": "flat"},
    "gauge empty, battery charged": {"gauge": "empty", "battery": "charged"},
}


def network(tables, states):
    """A pgmpy network of variables with two states, by the probability of the second."""
    model = DiscreteBayesianNetwork()
    model.add_nodes_from(tables)
    for variable, (parents, second) in tables.items():
        model.add_edges_from((parent, variable) for parent in parents)
        columns = [1 - np.array(second), second]
        named = {v: list(states[v]) for v in (variable, *parents)}
        table = TabularCPD(variable, 2, columns, [*parents], [2] * len(parents), state_names=named)
        model.add_cpds(table)
    return model


def mutual_information(table):
    """I(a; b | c) in bits, of a table p(a, b, c)."""
    c = table.sum((0, 1), keepdims=True)
    ratio = table * c / (table.sum(1, keepdims=True) * table.sum(0, keepdims=True))
    return float((table * np.log2(ratio)).sum())


def dependence(model):
    """I(a; b) and I(a; b | c)."""
    table = graphs.joint(model).groupby(["a", "b", "c"]).sum().to_numpy().reshape(2, 2, 2)
    return mutual_information(table.sum(2, keepdims=True)), mutual_information(table)


def draw(out, explained, bits, beliefs):
    wide, high, column, row, zoom = 16.0, 8.2, 3.2, 3.75, 1.15  # inches
    figure = Figure(figsize=(wide, high))
    for (name, given), found in explained.items():
        i, j = list(THREE).index(name), len(given)
        title = f"I(a; b{' | c' if given else ''}) = {bits[name, given]:.3f} bits"
        width, height = graphs.draw(found, title=title).get_size_inches() * zoom  # one scale
        left, top = 0.45 + i * column + (column - width) / 2, high - 0.6 - j * row
        box = left / wide, (top - (row + height) / 2) / high, width / wide, height / high
        graphs.draw(found, ax=figure.add_axes(box), title=title)
        if not given:
            figure.text((left + width / 2) / wide, 0.955, name, size=17, ha="center", color=INK)
    for j, text in enumerate(("nothing observed", "c observed")):
        y = (high - 0.6 - (j + 0.5) * row) / high
        figure.text(0.02, y, text, size=15, va="center", ha="center", rotation=90, color=INK)

    axes = figure.add_axes((0.67, 0.17, 0.325, 0.71))
    place = np.arange(len(SEEN))
    bars = ((-0.2, "fuel", "p(fuel empty | seen)", OPEN),
            (0.2, "battery", "p(battery flat | seen)", BLOCKED))  # fmt: skip
    for shift, cause, text, colour in bars:
        values = [beliefs[cause, seen] for seen in SEEN]
        drawn = axes.bar(place + shift, values, 0.38, color=colour, label=text)
        axes.bar_label(drawn, [f"{value:.3f}" for value in values], padding=2, size=11, color=INK)
    axes.axhline(0.1, color=PALE, lw=1, ls=":", zorder=0)
    axes.text(3.62, 0.105, "prior", color=PALE, ha="right", va="bottom", size=11)
    axes.set_xticks(place, [seen.replace(", ", ",\n") for seen in SEEN], size=11.5)
    axes.set(xlim=(-0.55, 3.65), ylim=(0, 1.13), yticks=np.linspace(0, 1, 6))
    axes.set_title("Explaining away: the fuel gauge", size=17, pad=12, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", frameon=False, fontsize=13)
    figure.savefig(out, dpi=100)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("explaining_away.png"))
    out = parser.parse_args(argv).out

    found, explained, bits = {}, {}, {}
    for name, tables in THREE.items():
        model = network(tables, dict.fromkeys("abc", YES_NO))
        print(f"{name}: {graphs.factorization(model)}")
        for given, value in zip(((), ("c",)), dependence(model), strict=True):
            explanation = graphs.explain_separation(model, "a", "b", given)
            explained[name, given], bits[name, given] = explanation, value
            condition = " | c" if given else ""
            separated = graphs.d_separated(model, "a", "b", given)
            print(f"  {explanation.question:42} I(a; b{condition}) = {value:.4f} bits")
            found[f"{name}: I(a; b{condition}), bits"] = value
            found[f"{name}: a and b separated{condition}"] = float(separated)

    engine = graphs.JunctionTree(network(CAR, CAR_STATES))
    print(f"fuel gauge: {graphs.factorization(network(CAR, CAR_STATES))}")
    beliefs = {}
    for seen, evidence in SEEN.items():
        posterior = engine.query(evidence)
        for cause in ("fuel", "battery"):
            beliefs[cause, seen] = posterior[cause][0].item()
        found[f"p(fuel empty | {seen})"] = beliefs["fuel", seen]
        found[f"p(battery flat | {seen})"] = beliefs["battery", seen]
        print(
            f"  {seen + ':':30} p(fuel empty) = {beliefs['fuel', seen]:.3f}"
            f"   p(battery flat) = {beliefs['battery', seen]:.3f}"
        )
    draw(out, explained, bits, beliefs)
    print(f"picture: {out}")
    return found


if __name__ == "__main__":
    main()
