r"""Three unbiased estimators of the gradient of E_q f, and how much their variances differ.

For q = N(theta, I) in d dimensions and f(z) = ||z||^2 / 2 the gradient in theta is theta. From one
draw z = theta + eps, eps ~ N(0, I):

    score function (the log trick)   f(z) grad_theta log q(z)         any f, also of discrete z
    the same with a baseline         (f(z) - b) grad_theta log q(z)   b independent of z
    reparameterisation               grad_theta f(theta + eps)        needs the gradient of f

The baseline here is the mean of f over the other draws, an estimate of E_q f. Their variances per
coordinate, at theta = (1, ..., 1) and with b = E_q f, are in closed form

    d^2 + 3.5 d + 3,     1.5 d + 3,     1

so the score function pays for every dimension and reparameterisation does not. Both come from one
Pyro guide: `has_rsample` chooses, and `compute_score_parts` gives log q where z is not
reparameterised and 0 where it is, which is how Pyro's own ELBOs build their surrogate losses.
"""

import argparse
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure
from pyro import poutine
from rich.console import Console
from rich.table import Table

DIMENSIONS = (1, 4, 16, 64)
SHOWN = 16  # the dimension whose histograms are drawn
DRAWS = 40_000
ESTIMATORS = {
    "score function": lambda d: d**2 + 3.5 * d + 3,
    "score function, baseline": lambda d: 1.5 * d + 3,
    "reparameterisation": lambda d: 1.0,
}


def guide(theta, reparameterised):
    return pyro.sample("z", dist.Normal(theta, 1.0).has_rsample_(reparameterised))


def f(z):
    return z.square().sum(-1) / 2


def gradients(estimator, dimension):
    """The estimate from every single draw, shape (DRAWS, dimension)."""
    # A copy of theta for each draw, so that one backward pass keeps the draws apart.
    theta = torch.ones(DRAWS, dimension, dtype=torch.float64, requires_grad=True)
    trace = poutine.trace(guide).get_trace(theta, estimator == "reparameterisation")
    trace.compute_score_parts()
    site = trace.nodes["z"]
    value = f(site["value"])  # depends on theta only where z is reparameterised
    weight = value.detach()
    if estimator == "score function, baseline":
        weight = weight - (weight.sum() - weight) / (DRAWS - 1)  # the mean of the other draws
    score = site["score_parts"].score_function  # log q of each coordinate, or 0
    surrogate = value.sum() + (weight[:, None] * score).sum()
    return torch.autograd.grad(surrogate, theta)[0]


def draw(out, shown, variances):
    figure = Figure(figsize=(11.5, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    colours = dict(zip(ESTIMATORS, ("C3", "C1", "C0"), strict=True))
    edges = torch.linspace(-50, 50, 201).tolist()
    for name, draws in shown.items():
        left.hist(
            draws, bins=edges, density=True, histtype="stepfilled", alpha=0.35, color=colours[name]
        )
        left.hist(draws, bins=edges, density=True, histtype="step", color=colours[name], label=name)
    left.axvline(1, color="0.2", lw=1, ls=":", label="exact gradient")
    left.set(yscale="log", ylim=(1e-4, 5), xlim=(-50, 50), ylabel="density")
    left.set(xlabel="first coordinate, from one draw", title=f"The estimates in {SHOWN} dimensions")
    left.legend(loc="upper left")

    line = torch.logspace(0, 6, 100, base=2, dtype=torch.float64)
    for name, formula in ESTIMATORS.items():
        right.loglog(line, formula(line) + 0 * line, color=colours[name], lw=1)
        right.loglog(DIMENSIONS, variances[name], "o", color=colours[name], label=name)
    right.set(title="Variance: measured, and the closed form", ylabel="variance per coordinate")
    right.set(xlabel="dimensions", xticks=DIMENSIONS, xticklabels=[str(d) for d in DIMENSIONS])
    right.minorticks_off()
    right.legend(loc="upper left")
    for axes in (left, right):
        axes.grid(alpha=0.25)
    figure.savefig(out, dpi=120)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gradient_estimators.png"))
    out = parser.parse_args(argv).out
    pyro.set_rng_seed(0)

    found, shown, variances = {}, {}, {name: [] for name in ESTIMATORS}
    table = Table(title=f"Gradient of E_q f, {DRAWS:,} draws", caption="exact gradient: 1")
    for column in ("d", "estimator", "mean", "variance", "formula", "ratio"):
        table.add_column(column, justify="left" if column == "estimator" else "right")
    for dimension in DIMENSIONS:
        estimates = {name: gradients(name, dimension) for name in ESTIMATORS}
        for name, draws in estimates.items():
            variance = draws.var(0).mean().item()
            mean = draws.mean().item()
            # The error of the mean over draws and coordinates, from the draws' coordinate means:
            # the coordinates of one draw share f(z), and are not independent.
            error = (draws.mean(1).std() / DRAWS**0.5).item()
            variances[name].append(variance)
            key = f"{name}, d={dimension}"
            found[f"{key}: mean"], found[f"{key}: error"] = mean, error
            found[f"{key}: variance"] = variance
            found[f"{key}: closed form"] = ESTIMATORS[name](dimension)
            ratio = variance / estimates["reparameterisation"].var(0).mean().item()
            found[f"{key}: ratio"] = ratio
            table.add_row(
                str(dimension),
                name,
                f"{mean:.3f} ± {error:.3f}",
                f"{variance:.2f}",
                f"{found[f'{key}: closed form']:.2f}",
                f"{ratio:.1f}",
                end_section=name == "reparameterisation",
            )
        if dimension == SHOWN:
            shown = {name: draws[:, 0] for name, draws in estimates.items()}
    Console().print(table)
    print("d: dimensions; variance: per coordinate; ratio: to the variance of reparameterisation")
    draw(out, shown, variances)
    print(f"picture: {out}")
    return found


if __name__ == "__main__":
    main()
