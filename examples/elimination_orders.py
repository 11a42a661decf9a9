"""Variable elimination in good and bad orders: the same answer, at very different cost.

    p(query, evidence) = sum_x1 sum_x2 ... sum_xn  prod_i p(x_i | parents of x_i)

Each sum moves inwards to the tables that mention its variable: these are multiplied, the variable
is summed out, and a message over its neighbours is left. That joins the neighbours, in the graph
too: the pairs that had no edge get a fill edge. So an order costs as much as the cliques that it
makes, sum_k prod of the states of clique k, which is known from the graph alone.

Every order gives the same posterior. Asia has 5040 of them: all are tried. Of alarm's, a
random one needs a table of a thousand to millions of cells, where the greedy orders do with 144:

    min-fill     next goes the variable whose elimination adds the fewest fill edges
    min-weight   next goes the variable whose table is the smallest
"""

import argparse
import random
import time
import warnings
from itertools import combinations, permutations
from math import prod
from pathlib import Path
from statistics import median_high

import networkx as nx
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from graphs import eliminate, moralize
from graphs.exact.elimination import elimination_steps
from graphs.io import read

ASIA = "dysp", {}
ALARM = "LVFAILURE", {"BP": "LOW", "PRESS": "HIGH", "EXPCO2": "LOW", "HRBP": "HIGH"}
RANDOM = 100
PLACES = {"asia": (0.3, 3.1), "smoke": (2.7, 3.4), "tub": (-0.3, 1.5), "lung": (1.75, 2.45),
          "bronc": (4.6, 2.2), "either": (2.35, 1.15), "xray": (1.2, -0.2),
          "dysp": (3.9, 0.3)}  # fmt: skip
INK, GOOD, BAD, SEEN = "#30343b", "#0072B2", "#D55E00", "#F0E442"


def hidden(tables, query, evidence):
    """What must be summed out."""
    return [
        variable for variable in tables.states if variable != query and variable not in evidence
    ]


def cost(tables, question, order):
    """Cells of the largest table and of all tables, without making any."""
    cells = [step.cells for step in elimination_steps(tables, *question, order)]
    return max(cells), sum(cells)


def min_weight(tables, query, evidence):
    """The greedy order that takes the variable with the smallest table next."""
    graph = nx.Graph(moralize(tables.graph()))
    graph.remove_nodes_from(evidence)
    cards, left, order = tables.cardinalities, hidden(tables, query, evidence), []
    while left:
        best = min(left, key=lambda v: cards[v] * prod(cards[u] for u in graph[v]))
        graph.add_edges_from(combinations(graph[best], 2))
        graph.remove_node(best)
        left.remove(best)
        order.append(best)
    return order


def shuffled(tables, question, count):
    """Random orders."""
    rng, names = random.Random(0), hidden(tables, *question)
    return [rng.sample(names, len(names)) for _ in range(count)]


def compare(name, tables, question, orders, found):
    """Eliminate in each order, and show what it took."""
    query, evidence = question
    given = ", ".join(f"{variable}={state}" for variable, state in evidence.items())
    table = Table(title=f"{name}: p({query}{' | ' if given else ''}{given})")
    for column in ("order", "largest table", "cells in all", "width", "ms"):
        table.add_column(column, justify="left" if column == "order" else "right")
    results = {}
    for label, order in orders.items():
        times = []
        for _ in range(3):
            start = time.perf_counter()
            results[label] = eliminate(tables, query, evidence, order)
            times.append(1e3 * (time.perf_counter() - start))
        done = results[label]
        table.add_row(label, f"{done.largest_table:,}", f"{done.total_cells:,}", str(done.width),
                      f"{min(times):.2f}")  # fmt: skip
        found |= {
            f"{name}, {label}: largest table": done.largest_table,
            f"{name}, {label}: cells in all": done.total_cells,
            f"{name}, {label}: width": done.width,
        }
    Console().print(table)
    posteriors = np.array([done.posterior for done in results.values()])
    found[f"{name}: p({query})"] = float(posteriors[0, 0])
    found[f"{name}: posteriors differ by"] = float(np.ptp(posteriors, 0).max())
    return results


def draw_graph(axes, done, title, colour):
    """An induced graph: its fill edges dashed, the query yellow, and the order in numbers."""
    graph = done.induced_graph()
    for one, other, fill in graph.edges(data="fill"):
        (x, u), (y, v) = PLACES[one], PLACES[other]
        style = (
            {"color": colour, "lw": 2.2, "ls": (0, (4, 2))} if fill else {"color": INK, "lw": 1.6}
        )
        axes.plot([x, y], [u, v], zorder=2 if fill else 1, **style)
    turn = {variable: i for i, variable in enumerate(done.order, 1)}
    for node in graph:
        box = {"boxstyle": "round,pad=0.35,rounding_size=0.7", "ec": INK, "lw": 1.4}
        box["fc"] = SEEN if node in done.query else "white"
        axes.text(*PLACES[node], node, ha="center", va="center", fontsize=13, bbox=box, zorder=3)
        if node in turn:
            badge = {"boxstyle": "circle,pad=0.2", "fc": colour, "ec": "white", "lw": 1.2}
            corner = -7 - 4.2 * len(node), 13
            axes.annotate(turn[node], PLACES[node], corner, textcoords="offset points", ha="center",
                          va="center", color="white", weight="bold", fontsize=10, bbox=badge,
                          zorder=4)  # fmt: skip
    count = sum(fill for _, _, fill in graph.edges(data="fill"))
    said = f"{count} fill edge{'s' if count != 1 else ''}, width {done.width}; "
    said += f"largest table {done.largest_table} cells, {done.total_cells} in all"
    axes.set_title(title, fontsize=15, color=colour, weight="bold")
    axes.text(0.5, -0.02, said, transform=axes.transAxes, ha="center", va="top", fontsize=12,
              color=INK)  # fmt: skip
    axes.set(xlim=(-0.8, 5.1), ylim=(-0.5, 3.75))
    axes.axis("off")


def draw_strip(axes, sizes, marks):
    """A dot for each random order, stacked where they fall together; greedy orders marked."""
    bins = np.round(np.log10(sizes) * 12).astype(int)
    heights = {}
    for size in sorted(bins):
        heights[size] = heights.get(size, 0) + 1
        axes.plot(10 ** (size / 12), heights[size], "o", color=BAD, ms=6.5, alpha=0.75, mew=0)
    top = max(heights.values())
    text = {"ha": "center", "va": "bottom", "textcoords": "offset points"}
    text |= {"fontsize": 13, "weight": "bold"}
    for size in set(marks.values()):
        label = ", ".join(name for name in marks if marks[name] == size)
        axes.plot([size, size], [0, 0.62 * top], color=GOOD, lw=2)
        axes.plot(size, 0.62 * top, "D", color=GOOD, ms=9)
        label += f"\n{size:,} cells"
        axes.annotate(label, (size, 0.62 * top), (0, 10), color=GOOD, **text)
    middle = median_high(sizes)
    label = f"{len(sizes)} random orders\nmedian {middle:,} cells"
    axes.annotate(label, (middle, top + 0.6), (0, 4), color=BAD, **text)
    axes.set(xscale="log", ylim=(0, top * 1.5), yticks=[])
    axes.set_xlim(min(marks.values()) / 4, max(sizes) * 2)
    axes.set_xlabel("cells of the largest table", fontsize=13)
    axes.tick_params(labelsize=12)
    axes.spines[["left", "top", "right"]].set_visible(False)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("elimination_orders.png"))
    out = parser.parse_args(argv).out
    asia = read("asia")
    with warnings.catch_warnings():  # its file has a few columns rounded to seven digits
        warnings.filterwarnings("ignore", "alarm: .* renormalised", UserWarning)
        alarm = read("alarm")

    found = {}
    every = {order: cost(asia, ASIA, order) for order in permutations(hidden(asia, *ASIA))}
    best, worst = (choose(every, key=lambda o: every[o][::-1]) for choose in (min, max))
    orders = {"best of all": best, "worst of all": worst, "min-fill": None}
    orders["min-weight"] = min_weight(asia, *ASIA)
    orders |= {f"random {i}": order for i, order in enumerate(shuffled(asia, ASIA, 3), 1)}
    on_asia = compare("asia", asia, ASIA, orders, found)
    found["asia: orders"] = len(every)
    equal = sum(found_cost == every[best] for found_cost in every.values())
    found["asia: orders as good as the best"] = equal
    print(f"{equal} of {len(every)} orders are as good as the best; min-fill, step by step:")
    print(on_asia["min-fill"], end="\n\n")

    orders = {"min-fill": None, "min-weight": min_weight(alarm, *ALARM)}
    tried = shuffled(alarm, ALARM, RANDOM)
    sizes = [cost(alarm, ALARM, order)[0] for order in tried]
    ranked = [tried[i] for i in np.argsort(sizes)]
    orders["best random"], orders["median random"], orders["worst random"] = (
        ranked[0], ranked[RANDOM // 2], ranked[-1]
    )  # fmt: skip
    on_alarm = compare("alarm", alarm, ALARM, orders, found)
    found["alarm: median of the random orders"] = median_high(sizes)

    figure = Figure(figsize=(13.3, 8.6), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.35, 1), hspace=0.04)
    left, right = top.subplots(1, 2)
    draw_graph(left, on_asia["best of all"], f"the best of all {len(every):,} orders", GOOD)
    draw_graph(right, on_asia["worst of all"], "the worst", BAD)
    heading = {"fontsize": 15, "weight": "bold", "color": INK}
    top.suptitle("asia: every order finds the same p(dysp), at another cost", **heading)
    bottom.suptitle("alarm: random orders against greedy ones", **heading)
    marks = {name: on_alarm[name].largest_table for name in ("min-fill", "min-weight")}
    draw_strip(bottom.subplots(), sizes, marks)
    figure.savefig(out, dpi=120)
    print(f"picture: {out}")
    return found


if __name__ == "__main__":
    main()
