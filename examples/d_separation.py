r"""d-separation: read off a graph what must be independent, and check it on random tables.

A trail between a and b is blocked given the observed nodes C if it has a node that is

    head-to-tail (-> n ->) or tail-to-tail (<- n ->) and in C, or
    head-to-head (-> n <-) with neither n nor any descendant of n in C.

If every trail is blocked, then p(a, b | C) = p(a | C) p(b | C) in every distribution that
factorises over the graph, whatever its tables are (Bishop, PRML, section 8.2.2). The other way it
holds for all but exceptional tables: where a trail is open, random tables make a and b dependent
(Meek 1995). The measure is the mutual information, from the whole table p(x),

    I(a; b | C) = sum_{a,b,C} p(a, b, C) log2 p(a, b, C) p(C) / (p(a, C) p(b, C))

The graph of Bishop's figure 8.22, a -> e <- f -> b with e -> c, is asked every question that it has
(10 pairs, each given any of the 8 subsets of the rest); then two causes in the alarm network are
asked for, which the blood pressure makes compete.
"""

import argparse
from itertools import chain, combinations, product
from pathlib import Path

import networkx as nx
import numpy as np
from matplotlib.figure import Figure
from scipy.special import rel_entr

import graphs
from graphs.pictures.picture import BLOCKED, INK, OPEN

NODES, STATES, TABLES = "abcef", 3, 40
BISHOP = nx.DiGraph([("a", "e"), ("f", "e"), ("f", "b"), ("e", "c")])
ONE, OTHER, SEEN = "LVFAILURE", "ANAPHYLAXIS", "BP"


def random_joint(rng):
    """p(a, b, c, e, f) = p(a) p(f) p(e | a, f) p(b | f) p(c | e), with random tables."""
    flat = np.ones(STATES)
    a, f = rng.dirichlet(flat), rng.dirichlet(flat)
    e = rng.dirichlet(flat, (STATES, STATES))  # (a, f, e)
    b, c = rng.dirichlet(flat, STATES), rng.dirichlet(flat, STATES)  # (f, b) and (e, c)
    return np.einsum("a,f,afe,fb,ec->abcef", a, f, e, b, c)


def mutual_information(table):
    """I(a; b | c) in bits, of a table p(a, b, c)."""
    c = table.sum((0, 1), keepdims=True)
    blocked = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / c
    return float(rel_entr(table, blocked).sum() / np.log(2))


def every_question():
    """Each pair of nodes, given each subset of the others."""
    for one, other in combinations(NODES, 2):
        rest = [node for node in NODES if node not in (one, other)]
        sizes = range(len(rest) + 1)
        for given in chain.from_iterable(combinations(rest, size) for size in sizes):
            yield one, other, given


def check_bishop(rng):
    """The mutual informations of separated and of other questions, over random tables."""
    joints = [random_joint(rng) for _ in range(TABLES)]
    bits, questions = {True: [], False: []}, {True: 0, False: 0}
    for one, other, given in every_question():
        separated = graphs.d_separated(BISHOP, one, other, given)
        questions[separated] += 1
        for joint in joints:
            table = np.einsum(f"{NODES}->{one}{other}{''.join(given)}", joint)
            bits[separated].append(mutual_information(table.reshape(STATES, STATES, -1)))
    return {answer: np.array(values) for answer, values in bits.items()}, questions


def check_alarm(model, given):
    """I(LVFAILURE; v | given) in alarm's own tables for each variable v, by d-separation."""
    engine = graphs.JunctionTree(model)
    states = [engine.query(targets=()).states(v) for v in (ONE, *given)]
    rows = dict(zip((ONE, *given), zip(*product(*states), strict=True), strict=True))
    posterior = engine.query(rows)  # a row for each state of LVFAILURE and of what is given
    weights = posterior.log_evidence.exp().numpy()[:, None]
    bits = {True: {}, False: {}}
    for variable in model:
        if variable not in rows:
            table = weights * posterior[variable].numpy()  # p(LVFAILURE, given, variable)
            table = np.moveaxis(table.reshape(len(states[0]), -1, table.shape[1]), 1, 2)
            separated = graphs.d_separated(model, ONE, variable, given)
            bits[separated][variable] = mutual_information(table)
    return bits


def draw(out, bishop, alarm, bits, questions):
    wide, high, zoom = 16.0, 9.0, 1.15
    figure = Figure(figsize=(wide, high))
    for index, found in enumerate(bishop):
        width, height = graphs.draw(found).get_size_inches() * zoom  # inches: both at one scale
        left, bottom = 1.65 + 3.3 * index - width / 2, high - 0.4 - height
        box = left / wide, bottom / high, width / wide, height / high
        graphs.draw(found, ax=figure.add_axes(box))
    graphs.draw(alarm, ax=figure.add_axes((0.425, 0.01, 0.57, 0.98)))

    axes = figure.add_axes((0.055, 0.09, 0.34, 0.36))
    bins = np.linspace(-20, 0.5, 60)
    said = {True: ("d-separated", BLOCKED), False: ("not d-separated", OPEN)}
    for answer, (text, colour) in said.items():
        sizes = np.log10(np.maximum(np.abs(bits[answer]), 1e-19))
        axes.hist(sizes, bins, color=colour, label=text)
    axes.set_xlabel("I(x; y | C) in bits", size=11)
    axes.set_xticks([-19, -15, -10, -5, 0], ["0", "1e-15", "1e-10", "1e-5", "1"])
    axes.set_ylabel("questions and tables", size=11)
    axes.set_title(
        f"All {questions} questions of this graph, on random tables", size=13, pad=8, color=INK
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper center", frameon=False, fontsize=11)
    figure.savefig(out, dpi=100)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("d_separation.png"))
    out = parser.parse_args(argv).out

    bishop = [graphs.explain_separation(BISHOP, "a", "b", given) for given in ("c", "f")]
    for explanation in bishop:
        print(explanation, end="\n\n")
    bits, questions = check_bishop(np.random.default_rng(0))
    print(f"all {sum(questions.values())} questions of this graph, on {TABLES} random tables each:")
    print(f"  {questions[True]} are d-separated: I at most {np.abs(bits[True]).max():.1e} bits")
    print(f"  {questions[False]} are not: I at least {bits[False].min():.1e} bits\n")

    model = graphs.load("alarm")
    alarm = graphs.explain_separation(model, ONE, OTHER, SEEN)
    print(alarm, end="\n\n")
    found = {}
    for given in ((), (SEEN,)):
        answers = check_alarm(model, given)
        apart, linked = answers[True], answers[False]
        name = f"alarm given {', '.join(given) or 'nothing'}"
        found |= {
            f"{name}: variables separated from {ONE}": len(apart),
            f"{name}: largest I where separated, bits": max(map(abs, apart.values())),
            f"{name}: least I where not, bits": min(linked.values()),
            f"{name}: I({ONE}; {OTHER}), bits": (apart | linked)[OTHER],
        }
    for name, value in found.items():
        print(f"{name:58} {value:.2g}")
    draw(out, bishop, alarm, bits, sum(questions.values()))
    print(f"picture: {out}")
    return {
        "a and b separated given c": float(bishop[0].separated),
        "a and b separated given f": float(bishop[1].separated),
        "questions": sum(questions.values()),
        "questions d-separated": questions[True],
        "largest I where separated, bits": float(np.abs(bits[True]).max()),
        "least I where not, bits": float(bits[False].min()),
        "alarm: trails": len(alarm.trails),
        "alarm: open trails": sum(trail.open for trail in alarm.trails),
        **found,
    }


if __name__ == "__main__":
    main()
