r"""The weather behind the temperatures: a hidden Markov model, decoded and then learned.

Each day has a hidden regime z_t, cold, mild or hot, that tends to last; only the day's temperature
x_t is measured:

    p(z, x) = p(z_0) prod_t p(z_t | z_{t-1}) prod_t N(x_t; mu_{z_t}, s_{z_t}^2)

Decoding, with the parameters known (Rabiner 1989):

    smoothing    p(z_t | x): the most probable regime of each day, right on the most days
    Viterbi      argmax_z p(z | x): the most probable year as a whole
    day alone    p(z_t | x_t): for comparison, without the neighbours

Learning, from the temperatures alone: Baum-Welch raises log p(x) with every iteration, to a maximum
near its start, which need not be the best one. So it starts several times.
"""

import argparse
from itertools import pairwise, permutations
from pathlib import Path

import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from graphs import HMM, Gaussian
from graphs.pictures.picture import INK, PALE

REGIMES = "cold", "mild", "hot"
COLOURS = "#0072B2", "#E69F00", "#CC3311"
DAYS, STARTS = 365, 12
TRUTH = HMM(
    [0.5, 0.4, 0.1],
    [[0.94, 0.06, 0.00], [0.04, 0.91, 0.05], [0.00, 0.12, 0.88]],
    Gaussian([6.0, 14.0, 22.0], [4.0, 3.0, 4.5]),
)


def day_by_day(model, x):
    """p(z_t | x_t): the long-run share of each regime times the density."""
    share = torch.linalg.matrix_power(model.transition, 1000)[0]
    log_density = model.emission.log_prob(x).T  # (K, T) -> (T, K)
    return (share.log() + log_density).softmax(1)


def matched(model, truth):
    """The order of the learned states in which the means are nearest to the true ones."""
    mean, wanted = model.emission.mean, truth.emission.mean
    return min(permutations(range(3)), key=lambda o: float((mean[list(o)] - wanted).abs().sum()))


def strip(axes, rows, names):
    """Regimes as coloured bands, one row each."""
    for row, states in enumerate(rows):
        for regime, colour in enumerate(COLOURS):
            here = (states == regime).nonzero().flatten().tolist()
            bars = [(day - 0.5, 1.04) for day in here]
            axes.broken_barh(bars, (-row - 0.4, 0.8), color=colour, lw=0)
    axes.set_yticks([-row for row in range(len(rows))], names)
    axes.tick_params(axis="y", length=0)


def draw(out, drawn, found, decoded, alone, fitted, order, reference):
    figure = Figure(figsize=(13, 9.6), layout="constrained")
    grid = figure.add_gridspec(4, 2, height_ratios=[2.1, 1.05, 1.15, 2.5], hspace=0.06)
    days = range(DAYS)
    x, z = drawn.observations, drawn.states

    top = figure.add_subplot(grid[0, :])
    top.plot(days, x, color=PALE, lw=0.7, zorder=1)
    top.scatter(days, x, c=[COLOURS[k] for k in z.tolist()], s=11, zorder=2)
    top.set_ylabel("temperature, °C")
    top.set_title("Temperatures are measured; the regime (colour) is hidden", loc="left")
    handles = [Patch(color=c, label=name) for name, c in zip(REGIMES, COLOURS, strict=True)]
    top.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False)

    middle = figure.add_subplot(grid[1, :], sharex=top)
    middle.stackplot(days, found.smoothed.T, colors=COLOURS, alpha=0.85, lw=0)
    middle.set(ylim=(0, 1), yticks=[0, 0.5, 1], ylabel="p($z_t$ | x)")
    middle.set_title("Smoothing: how sure we can be of each day, given all of them", loc="left")

    lower = figure.add_subplot(grid[2, :], sharex=top)
    right = {
        name: float((states == drawn.states).double().mean())
        for name, states in (("Viterbi", decoded.states), ("each day alone", alone.argmax(1)))
    }
    strip(
        lower,
        [z, decoded.states, alone.argmax(1)],
        ["truth", *(f"{name}\n{share:.0%} right" for name, share in right.items())],
    )
    lower.set(xlim=(-0.5, DAYS - 0.5), xlabel="day")
    lower.set_title("Decoding: the neighbours tell what one temperature cannot", loc="left")

    curves = figure.add_subplot(grid[3, 0])
    for i, curve in enumerate(fitted.log_likelihoods):
        best = i == fitted.best
        colour, width = (INK, 2.2) if best else (PALE, 1.1)
        curves.plot(range(1, len(curve)), curve[1:], color=colour, lw=width, zorder=2 + best)
        curves.plot(len(curve) - 1, curve[-1], "o", color=colour, ms=4, zorder=2 + best)
    curves.axhline(reference, color=COLOURS[2], ls="--", lw=1.2, zorder=1)
    ends = [curve[-1] for curve in fitted.log_likelihoods]
    caught = sum(end < max(ends) - 1 for end in ends)
    low = min(curve[1] for curve in fitted.log_likelihoods)
    curves.set(xlabel="iteration of Baum-Welch", ylabel="log p(x), nats", xlim=(0, 40))
    curves.set_ylim(low - 45, max(ends) + 15)  # room for the legend
    curves.set_title(f"Learning: {caught} of {STARTS} starts end in a lesser maximum", loc="left")
    curves.legend(
        handles=[
            Line2D([], [], color=INK, lw=2.2, label="the best start"),
            Line2D([], [], color=PALE, label="the others"),
            Line2D([], [], color=COLOURS[2], ls="--", label="the true parameters"),
        ],
        loc="lower right",
        frameon=False,
    )

    densities = figure.add_subplot(grid[3, 1])
    values = drawn.observations.numpy()
    densities.hist(values, bins=40, density=True, color="0.9")
    line = torch.linspace(values.min(), values.max(), 400, dtype=torch.float64)
    learned = list(order)
    for model, states, style in ((TRUTH, [0, 1, 2], "--"), (fitted.hmm, learned, "-")):
        share = torch.linalg.matrix_power(model.transition, 1000)[0]
        curve = share[:, None] * model.emission.log_prob(line).exp()
        for regime, state in enumerate(states):
            densities.plot(line, curve[state], style, color=COLOURS[regime], lw=1.8)
    densities.set(xlabel="temperature, °C", yticks=[])
    densities.set_title("The regimes that were learned from temperatures alone", loc="left")
    densities.legend(
        handles=[
            Line2D([], [], color=INK, label="learned"),
            Line2D([], [], color=INK, ls="--", label="true"),
            Patch(color="0.9", label="all days"),
        ],
        loc="upper right",
        frameon=False,
    )
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    lower.spines["left"].set_visible(False)
    for axes in (top, middle):
        axes.tick_params(labelbottom=False)
    figure.savefig(out, dpi=110)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("weather_hmm.png"))
    out = parser.parse_args(argv).out

    drawn = TRUTH.sample(DAYS, seed=3)
    x, z = drawn.observations, drawn.states
    found, decoded, alone = TRUTH.forward_backward(x), TRUTH.viterbi(x), day_by_day(TRUTH, x)
    reference = float(found.log_likelihood)
    print(f"{DAYS} days, log p(x) = {reference:.2f} nats under the true parameters")
    accuracies = {}
    for name, states in (
        ("each day alone", alone.argmax(1)),
        ("filtered", found.filtered.argmax(1)),
        ("smoothed", found.smoothed.argmax(1)),
        ("Viterbi", decoded.states),
    ):
        accuracies[name] = float((states == z).double().mean())
        print(f"  {name + ':':16} {accuracies[name]:.1%} of days right")
    promised = float(found.smoothed.amax(1).mean())
    print(f"  smoothing expected to be right on {promised:.1%}")

    fitted = HMM.fit(x, 3, "gaussian", restarts=STARTS, tolerance=1e-8, iterations=400, seed=2)
    order = list(matched(fitted.hmm, TRUTH))
    ends = [curve[-1] for curve in fitted.log_likelihoods]
    print(fitted)
    print(f"  starts end between {min(ends):.2f} and {max(ends):.2f} nats")
    mean, scale = fitted.hmm.emission.mean[order], fitted.hmm.emission.scale[order]
    moves = fitted.hmm.transition[order][:, order]
    for i, regime in enumerate(REGIMES):
        row = ", ".join(f"{p:.3f}" for p in moves[i].tolist())
        print(f"  {regime}: {mean[i]:5.2f} ± {scale[i]:.2f} °C, on to {', '.join(REGIMES)}: {row}")
    relabelled = torch.tensor(order).argsort()[fitted.hmm.viterbi(x).states]
    learned = float((relabelled == z).double().mean())
    print(f"  Viterbi with the learned model: {learned:.1%} of days right")
    fall = max(a - b for c in fitted.log_likelihoods for a, b in pairwise(c))
    draw(out, drawn, found, decoded, alone, fitted, order, reference)
    print(f"picture: {out}")
    return {
        "log p(x), true parameters": reference,
        "log p(x), learned": max(ends),
        "log p(x), worst start": min(ends),
        "starts at the best maximum": sum(end > max(ends) - 0.1 for end in ends),
        "largest fall": fall,
        **{f"right, {name}": share for name, share in accuracies.items()},
        "right, smoothing's own estimate": promised,
        "right, learned": learned,
        "largest error of a mean": float((mean - TRUTH.emission.mean).abs().max()),
        "largest error of a transition": float((moves - TRUTH.transition).abs().max()),
    }


if __name__ == "__main__":
    main()
