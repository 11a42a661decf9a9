r"""From levels to reals: what uniform and learned noise cost a flow, against exact probabilities.

A flow gives a density p(v), and data have levels k = 0, ..., K-1. A level's probability is the
density's share in its cell,

    P(k) = integral over [k/K, (k+1)/K] of p(v) dv,

which no flow of many dimensions can compute. Noise u in (0, 1), added below the last digit, v =
(k + u)/K, gives a bound: for any q(u | k)

    log P(k) >= E_q [log p(v) - log q(v | k)],   with the gap KL(q(v | k) || p(v | k)).

    uniform        q = 1: Theis, van den Oord and Bethge (2016). The gap is small only where p is
                   flat in each cell, so that training makes p flat there.
    variational    q is a flow itself, which is trained along: Ho et al. (2019). It takes the shape
                   that p has in the cell.

Here a smooth density, the logistic function of a Gaussian, is trained on a grey value of 8 levels.
It cannot make steps at the edges of the cells: under uniform noise it pays for that, and grows too
wide; under learned noise it need not. In one dimension the integrals are done by quadrature.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import pyro
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import ppgen
from ppgen.data import Dataset
from ppgen.models.flow import Flow
from ppgen.nn.bijections import Chain
from ppgen.nn.image_flow import Pixelwise

LEVELS = 8
COUNTS = torch.tensor([0, 0, 2, 60, 30, 8, 0, 0])  # of 100 grey values
STEPS = 600
COLOURS = {"uniform": "C0", "variational": "C3"}


def data():
    levels = torch.repeat_interleave(torch.arange(LEVELS), COUNTS)
    x = (levels.float() / (LEVELS - 1))[:, None].repeat(20, 1)  # (2000, 1)
    return Dataset.from_tensors((x,), (x[:100],), (x[:100],), levels=LEVELS)


def train(dataset, dequantisation):
    pyro.set_rng_seed(0)
    layers = Chain([Pixelwise((1,))])  # v = sigmoid(loc + scale z), up to the margin
    program = Flow((1,), layers, levels=LEVELS, dequantisation=dequantisation)
    return ppgen.fit(
        program, dataset, steps=STEPS, lr=2e-2, batch_size=500, device="cpu", validate_epochs=0,
        progress=False,
    ).program  # fmt: skip


@torch.no_grad()
def exact(program, count=200):
    """log P(k) of every level by Gauss-Legendre quadrature, (LEVELS,), in nats."""
    nodes, weights = (torch.from_numpy(a).float() for a in np.polynomial.legendre.leggauss(count))
    v = (torch.arange(LEVELS)[:, None] + (nodes + 1) / 2) / LEVELS  # (LEVELS, count)
    density = program.distribution(v.numel()).log_prob(v.view(-1, 1)).view(v.shape)
    return torch.logsumexp(density + (weights / 2).log(), 1) - math.log(LEVELS)


@torch.no_grad()
def bound(program, particles, repeats=4000):
    """The importance-weighted bound of every level, (LEVELS,): 1 particle is the ELBO."""
    x = (torch.arange(LEVELS) / (LEVELS - 1))[:, None]
    draws = program.log_prob(x.repeat(repeats // particles, 1), num_particles=particles)
    return draws.view(-1, LEVELS).mean(0)


@torch.no_grad()
def draw(out, programs, found):
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    v = torch.linspace(0.001, 0.999, 900)[:, None]
    share = COUNTS / COUNTS.sum()
    for axes, (name, program) in zip(
        figure.subplots(1, len(programs), sharey=True), programs.items(), strict=True
    ):
        edges = torch.arange(LEVELS + 1) / LEVELS
        axes.stairs((share * LEVELS).numpy(), edges.numpy(), fill=True, color="0.85",
                    label="data, as a density")  # fmt: skip
        density = program.distribution(len(v)).log_prob(v).exp()
        axes.plot(v[:, 0], density, color="0.2", label="p(v), the flow")
        q = program.dequantiser
        for k in COUNTS.nonzero()[:, 0].tolist():
            inside = (k + torch.linspace(0.002, 0.998, 200)[:, None]) / LEVELS
            x = torch.full_like(inside, k / (LEVELS - 1))
            noise = q(x).log_prob(inside).exp() * share[k]
            label = "data x q(v | level)" if k == int(COUNTS.argmax()) else None
            axes.plot(inside[:, 0], noise, color=COLOURS[name], lw=2, label=label)
        axes.set(xlabel="v", xlim=(0, 1), xticks=edges[::2].tolist())
        axes.set_title(
            f"{name}: exact {found[f'{name}: exact']:.3f}, bound {found[f'{name}: bound']:.3f} nats"
        )
        axes.legend(loc="upper right", fontsize=9)
        axes.grid(alpha=0.25)
    figure.savefig(out, dpi=100)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("dequantisation.png"))
    out = parser.parse_args(argv).out

    dataset = data()
    share = COUNTS / COUNTS.sum()
    programs = {name: train(dataset, name) for name in COLOURS}
    found = {"entropy of the data": float(torch.special.entr(share).sum())}
    table = Table(title="log-likelihood of the levels, mean over the data", caption="nats")
    for column in ("noise", "exact", "bound", "gap", "bound, 8 particles", "gap "):
        table.add_column(column, justify="left" if column == "noise" else "right")
    for name, program in programs.items():
        pyro.set_rng_seed(1)
        values = [float(share @ part) for part in (exact(program), bound(program, 1),
                                                   bound(program, 8))]  # fmt: skip
        titles = ("exact", "bound", "bound of 8 particles")
        found |= {f"{name}: {title}": value for title, value in zip(titles, values, strict=True)}
        truth, one, eight = values
        table.add_row(name, *(f"{value:.4f}" for value in (truth, one, truth - one, eight,
                                                            truth - eight)))  # fmt: skip
    Console().print(table)
    print(
        f"minus the entropy of the data, which no model passes: {-found['entropy of the data']:.4f}"
    )
    draw(out, programs, found)
    print(f"picture: {out}")
    return found


if __name__ == "__main__":
    main()
