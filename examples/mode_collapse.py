r"""Mode collapse on a ring of eight Gaussians, and what the Wasserstein loss does about it.

A generator that makes one thing well satisfies its discriminator for the moment: it maximises what
D says of each draw, and nothing asks for all of the data. When D has learned to refuse that one
thing the generator moves on to the next, and the two may chase each other around the ring for good.
The loss of Arjovsky et al. (2017), with the gradient penalty of Gulrajani et al. (2017), estimates
the Wasserstein distance between draws and data, the least average way that mass must be moved:
mass that misses at one Gaussian costs as long as it is missing there.

Coverage is counted, not judged by eye. A draw belongs to the nearest Gaussian and is good within
three standard deviations of its centre; a Gaussian is covered if a quarter of its share of all
draws is there and good. Networks, data and number of steps of the generator are the same, and the
seeds; what the Wasserstein loss has besides is five steps of its critic a turn, a small weight on
its penalty, as its authors choose for toys of this size, and about five times the time. None of
them has converged after so few: the losses without a penalty partly collapse, partly wander.
"""

import argparse
import math
from pathlib import Path

import pyro
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import ppgen
from ppgen.models.gan import GAN

LOSSES = ("minimax", "nonsaturating", "wasserstein_gp")
MODES, WIDTH, RADIUS = 8, 0.05, 1.0
SEEDS = (0, 1)
TURNS = 600
DRAWS = 2000


def centres():
    angle = torch.arange(MODES) * (2 * math.pi / MODES)
    return RADIUS * torch.stack([angle.cos(), angle.sin()], -1)


def ring(n):
    return centres()[torch.randint(MODES, (n,))] + WIDTH * torch.randn(n, 2)


def coverage(x):
    """{covered: Gaussians with a quarter of their share of good draws, good: share of these}."""
    distance, nearest = torch.cdist(x, centres()).min(1)
    good = distance < 3 * WIDTH
    counts = torch.bincount(nearest[good], minlength=MODES)
    covered = (counts >= len(x) / MODES / 4).sum().item()
    return {"covered": covered, "good": good.float().mean().item()}


def train(loss, seed, data):
    pyro.set_rng_seed(seed)
    program = GAN((2,), latent_dim=16, hidden=(128, 128), loss=loss, gradient_penalty=0.1)
    return ppgen.fit(
        program, data, steps=TURNS, batch_size=128, lr=2e-3, ema=0.9, seed=seed, device="cpu",
        warmup_steps=0, validate_epochs=0, progress=False,
    )  # fmt: skip


def draw(out, data, samples, results):
    figure = Figure(figsize=(7.2, 10.6), layout="constrained")
    panels = figure.subplots(len(LOSSES), len(SEEDS))
    for row, loss in zip(panels, LOSSES, strict=True):
        for axes, seed in zip(row, SEEDS, strict=True):
            one = results[loss, seed]
            axes.plot(*data[:DRAWS].T.numpy(), ".", color="0.8", ms=3, label="data")
            axes.plot(*samples[loss, seed].T.numpy(), ".", color="C0", ms=2, label="draws")
            axes.set(xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), aspect="equal", xticks=[], yticks=[])
            axes.set_title(
                f"{one['covered']} of {MODES} covered, {one['good']:.0%} good", fontsize=11
            )
        row[0].set_ylabel(loss, fontsize=12)
    panels[0, 0].legend(loc="center", fontsize=9, markerscale=4)
    figure.suptitle("A seed a column")
    figure.savefig(out, dpi=100)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("mode_collapse.png"))
    out = parser.parse_args(argv).out
    pyro.set_rng_seed(0)

    x = ring(20_000)
    data = ppgen.Dataset.from_tensors(x, x[:100], ring(DRAWS))
    results, samples, found = {}, {}, {}
    table = Table(title=f"A ring of {MODES} Gaussians after {TURNS} steps of the generator")
    for column in ("loss", "covered, seed by seed", "mean", "good draws", "seconds"):
        table.add_column(column, justify="left" if column == "loss" else "right")
    for loss in LOSSES:
        seconds = 0.0
        for seed in SEEDS:
            run = train(loss, seed, data)
            seconds += run.info["training_seconds"] / len(SEEDS)
            samples[loss, seed] = run.program.sample(DRAWS)
            results[loss, seed] = coverage(samples[loss, seed])
        covered = [results[loss, seed]["covered"] for seed in SEEDS]
        good = sum(results[loss, seed]["good"] for seed in SEEDS) / len(SEEDS)
        found |= {
            f"{loss}: covered": sum(covered) / len(SEEDS),
            f"{loss}: least covered": min(covered),
            f"{loss}: good": good,
        }
        table.add_row(
            loss, ", ".join(map(str, covered)), f"{found[f'{loss}: covered']:.1f}", f"{good:.0%}",
            f"{seconds:.1f}",
        )  # fmt: skip
    found |= {
        f"data: {key}": value
        for key, value in coverage(data.test.batch(slice(0, DRAWS))[0]).items()
    }
    Console().print(table)
    print(f"data themselves: {found['data: covered']} covered, {found['data: good']:.1%} good")
    draw(out, x, samples, results)
    print(f"picture: {out}")
    return found


if __name__ == "__main__":
    main()
