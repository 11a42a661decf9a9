r"""A canteen with three meals: a Markov chain, and where it settles.

Today's meal decides the probabilities of tomorrow's, A[i, j] = p(tomorrow j | today i):

    burger   0.2  0.6  0.2
    pizza    0.3  0    0.7
    hot dog  0.5  0    0.5

A distribution v (a row) becomes v A a day later. This chain is irreducible and aperiodic, so it has
one stationary distribution, pi A = pi, and v A^t tends to it from every v. In whole numbers

    pi = (25, 15, 31) / 71

How far it still is after t days is the total variation TV(p, q) = sum_i |p_i - q_i| / 2, which in
the long run shrinks like |lambda_2|^t. The eigenvalues other than 1 have the sum trace A - 1 = -0.3
and the product det A = 0.12, so they are complex, and |lambda_2| = sqrt(0.12) = 0.346.

Two chains of which this is not true. A rota, always in the same order, has period 3: it has one
stationary distribution and does not tend to it. A chain with two closed classes tends to a
distribution that depends on the start, a mixture of the two extreme stationary ones (Levin, Peres
and Wilmer, Markov Chains and Mixing Times, chapters 1 and 4).
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from graphs import MarkovChain
from graphs.pictures.picture import FAINT, INK, PALE

MEALS = MarkovChain([[0.2, 0.6, 0.2], [0.3, 0, 0.7], [0.5, 0, 0.5]], ["burger", "pizza", "hot dog"])
ROTA = MarkovChain([[0, 1, 0], [0, 0, 1], [1, 0, 0]], MEALS.states)
CLOSED = MarkovChain(
    [[0, 1 / 3, 1 / 3, 1 / 3], [0, 0.5, 0.5, 0], [0, 0.25, 0.75, 0], [0, 0, 0, 1]],
    ["undecided", "tea", "coffee", "water"],
)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
MARKS = ("o", "s", "^")
DAYS, FEW = 24, 8


def total_variation(chain, start, days):
    """TV(start A^t, pi) for t = 0..days, with the first extreme stationary distribution as pi."""
    table = chain.converge(start, days).to_numpy()
    return abs(table - chain.stationary[0].values).sum(1) / 2


def show_convergence(axes):
    days = np.arange(FEW + 1)
    for start, mark in zip(MEALS.states, MARKS, strict=True):
        table = MEALS.converge(start, FEW)
        for meal, colour in zip(MEALS.states, COLOURS, strict=False):
            axes.plot(days, table[meal], mark + "-", color=colour, ms=5.5, lw=1.3, alpha=0.8)
        axes.plot([], [], mark, color=INK, label=f"from {start}")
    for (meal, value), colour in zip(MEALS.stationary[0].items(), COLOURS, strict=False):
        axes.axhline(value, color=colour, lw=1, ls=":", zorder=0)
        said = f"{meal} {MEALS.stationary[0].exact[meal]}"
        axes.text(FEW + 0.35, value, said, color=colour, size=12, va="center")
    axes.set(xlim=(-0.2, FEW + 0.2), ylim=(-0.03, 1.03), xticks=days, yticks=np.linspace(0, 1, 6))
    axes.legend(loc="upper right", frameon=False, fontsize=12, labelcolor=INK)
    finish(axes, "Every start leads to the same distribution", "days", "probability of a meal")


def show_distance(axes, rate):
    days = np.arange(DAYS + 1)
    for start, mark, colour in zip(
        MEALS.states, MARKS, ("#4b5563", "#7b8794", "#a3acb8"), strict=True
    ):
        distance = total_variation(MEALS, start, DAYS)
        axes.semilogy(days, distance, mark + "-", color=colour, ms=5, lw=1.1, label=f"from {start}")
    axes.semilogy(days, rate**days, color=COLOURS[1], lw=2, ls="--", zorder=3)
    axes.text(12.6, rate**11.2, r"$|\lambda_2|^t = 0.12^{\,t/2}$", color=COLOURS[1], size=15)
    axes.axhline(0.25, color=PALE, lw=1, ls=":")
    axes.text(
        DAYS, 0.32, f"1/4: mixed after {MEALS.mixing_time()} days", color=PALE, size=12, ha="right"
    )
    axes.set(xlim=(-0.4, DAYS + 0.4), ylim=(1e-12, 3), yticks=10.0 ** np.arange(-12, 1, 3))
    axes.minorticks_off()
    axes.legend(loc="lower left", frameon=False, fontsize=12, labelcolor=INK)
    finish(
        axes,
        "How fast: like the second eigenvalue",
        "days",
        "total variation from the limit",
    )


def show_contrast(axes, chain, starts, state, title):
    days = np.arange(FEW + 1)
    for (start, (y, colour)), mark in zip(starts.items(), MARKS, strict=False):
        table = chain.converge(start, FEW)
        axes.plot(days, table[state], mark + "-", color=colour, ms=5.5, lw=1.6)
        axes.text(FEW, y, f"from {start}", color=colour, size=12, ha="right", va="center")
    axes.set(xlim=(-0.2, FEW + 0.2), ylim=(-0.06, 1.12), xticks=days[::2], yticks=(0, 0.5, 1))
    finish(axes, title, "days", f"p({state})")


def finish(axes, title, x, y):
    axes.set_title(title, size=15, pad=10, color=INK)
    axes.set_xlabel(x, size=12)
    axes.set_ylabel(y, size=12)
    axes.spines[["top", "right"]].set_visible(False)


def show_numbers(axes):
    """Exact figures, a column for each meal."""
    axes.set_axis_off()
    pi, back = MEALS.stationary[0], MEALS.return_times
    rows = [
        ("share in the long run, \u03c0", [pi.exact[s] for s in MEALS.states]),
        ("", [f"{pi[s]:.4f}" for s in MEALS.states]),
        ("days until it is back, 1/\u03c0", [back.exact[s] for s in MEALS.states]),
    ]
    for target in MEALS.states:
        times = MEALS.hitting_times(target).exact
        rows.append((f"days until {target}, from", [times[s] or "\u2013" for s in MEALS.states]))
    across, down = (0.58, 0.775, 0.97), (0.78, 0.67, 0.5, 0.33, 0.19, 0.05)
    for x, meal, colour in zip(across, MEALS.states, COLOURS, strict=False):
        axes.text(x, 0.93, meal, size=14, ha="center", color=colour, weight="bold")
    for y, (name, cells) in zip(down, rows, strict=True):
        axes.text(0.0, y, name, size=13.5, color=INK)
        for x, cell in zip(across, cells, strict=True):
            axes.text(x, y, str(cell), size=13.5, ha="center", color=INK if name else PALE)
    for y in (0.9, 0.615, 0.445):
        axes.axhline(y, color=FAINT, lw=1)
    axes.set(xlim=(0, 1.05), ylim=(0, 1))


def draw(out, rate):
    figure = Figure(figsize=(16, 9))
    MEALS.draw(ax=figure.add_axes((0.005, 0.47, 0.285, 0.52)))
    show_convergence(figure.add_axes((0.335, 0.57, 0.24, 0.36)))
    show_distance(figure.add_axes((0.73, 0.57, 0.26, 0.36)), rate)
    show_numbers(figure.add_axes((0.015, 0.05, 0.31, 0.36)))
    ROTA.draw(ax=figure.add_axes((0.335, 0.03, 0.15, 0.4)))
    CLOSED.draw(ax=figure.add_axes((0.66, 0, 0.185, 0.475)))
    title = "Period 3: it never settles"
    axes = figure.add_axes((0.525, 0.1, 0.125, 0.28))
    show_contrast(axes, ROTA, {"burger": (1.08, COLOURS[0])}, "burger", title)
    axes.axhline(1 / 3, color=PALE, lw=1, ls=":", zorder=0)
    axes.text(FEW + 0.3, 1 / 3, "\u03c0", color=PALE, size=14, va="center")
    axes.set_yticks([0, 1 / 3, 1], ["0", "1/3", "1"])
    title = "Two closed classes:\nthe start decides"
    starts = {"tea": (0.76, COLOURS[1]), "undecided": (0.34, PALE), "water": (0.07, COLOURS[2])}
    axes = figure.add_axes((0.875, 0.1, 0.115, 0.28))
    show_contrast(axes, CLOSED, starts, "coffee", title)
    figure.savefig(out, dpi=100)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("three_meals.png"))
    out = parser.parse_args(argv).out

    print(MEALS, MEALS.return_times, MEALS.hitting_times("pizza"), sep="\n\n", end="\n\n")
    rate = float(np.sort(abs(np.linalg.eigvals(MEALS.matrix)))[-2])
    distance = max(total_variation(MEALS, start, DAYS)[-1] for start in MEALS.states)
    for epsilon in (0.25, 0.01, 1e-6):
        print(f"within {epsilon:g} of the limit after {MEALS.mixing_time(epsilon)} days")
    print(f"second eigenvalue {rate:.4f}; worst total variation after {DAYS} days {distance:.2e}\n")

    print(ROTA, end="\n\n")
    swings = [total_variation(ROTA, start, 1000)[-1] for start in ROTA.states]
    print(f"total variation after 1000 days, from any start: {min(swings):.4f}\n")
    print(CLOSED, CLOSED.hitting_probabilities("water"), sep="\n\n")
    draw(out, rate)
    print(f"picture: {out}")

    found = {f"pi({meal})": value for meal, value in MEALS.stationary[0].items()}
    found |= {f"mixing time({e:g})": MEALS.mixing_time(e) for e in (0.25, 0.01, 1e-6)}
    found |= {f"days until pizza, from {s}": v for s, v in MEALS.hitting_times("pizza").items()}
    settled = CLOSED.distribution(10**9, "undecided")
    return {
        **found,
        "second eigenvalue": rate,
        f"total variation after {DAYS} days": distance,
        "total variation of the rota after 1000 days": min(swings),
        "extreme stationary distributions of the last chain": len(CLOSED.stationary),
        "p(ends with water | undecided)": CLOSED.hitting_probabilities("water")["undecided"],
        "p(coffee after 1e9 days | undecided)": float(settled[2]),
    }


if __name__ == "__main__":
    main()
