r"""The forward process of diffusion on two pictures: small steps of noise, or one jump.

Each step shrinks the picture a little and adds a little Gaussian noise,

    q(x_t | x_{t-1}) = N(sqrt(alpha_t) x_{t-1}, (1 - alpha_t) I),

and t of them are one Gaussian again, since a sum of Gaussians is one:

    q(x_t | x_0) = N(sqrt(abar_t) x_0, (1 - abar_t) I),    abar_t = alpha_1 alpha_2 ... alpha_t.

So no chain is walked in training. A schedule chooses abar_t, and with it the signal-to-noise ratio
SNR(t) = abar_t / (1 - abar_t): "linear" lets 1 - alpha_t rise linearly in 1000 steps (Ho et al.
2020), "cosine" lets abar_t fall like a squared cosine (Nichol and Dhariwal 2021), which destroys
the picture later and more evenly. What is left at the end is counted in nats,

    KL(q(x_T | x_0) || N(0, I)) = sum_i (abar_T x_0i^2 - abar_T - log(1 - abar_T)) / 2,

the part of the bound that no network can mend: where it is large, the chain starts its way back
from the wrong law.
"""

import argparse
import math
from pathlib import Path

import pyro
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_sample_image
from torch import nn

import ppgen
from ppgen.nn.schedules import CosineSchedule, LinearSchedule

STEPS = 1000
SCHEDULES = {"linear": "C0", "cosine": "C1"}
SHOWN = (0, 50, 150, 300, 500, 750, 1000)
CHECKED = (1, 10, 100, 250, 500, 1000)
VALUES = torch.tensor([-1.0, 0.0, 0.4, 1.0])  # pixels of x_0
COPIES = 20_000


def digit():
    return ppgen.load_data("mnist").train.batch(slice(0, 1))[0][0]  # (1, 28, 28)


def flower():
    """scikit-learn's photograph, cut square and shrunk, (3, 96, 96) in [0, 1]."""
    whole = torch.from_numpy(load_sample_image("flower.jpg").copy()).float() / 255
    square = whole[:416, 112:528].permute(2, 0, 1)  # (3, 416, 416)
    return nn.functional.interpolate(square[None], size=96, mode="area")[0]


def chain(schedule, shape, steps=STEPS):
    """The forward process belongs to no network: any will do."""
    # With the variances of a thousand steps for any number of them, to see what that does.
    schedule = {"linear": LinearSchedule, "cosine": CosineSchedule}[schedule](steps)
    return ppgen.Diffusion(shape, schedule=schedule, network=nn.Identity(), levels=256)


def abar(program, step):
    return torch.sigmoid(program.schedule.at_step(torch.tensor(step)).double()).item()


def walk(program):
    """Step by step: exact moments of x_t by recursion, and those of COPIES walks, at CHECKED.

    Returns {t: (mean, variance, drawn x_t)}, each for all of VALUES.
    """
    mean, variance = VALUES.double(), torch.zeros(len(VALUES), dtype=torch.float64)
    x = VALUES.expand(COPIES, 1, -1)  # (COPIES, 1, values)
    found = {}
    for t in range(1, STEPS + 1):
        step = torch.tensor(t)
        # A Gaussian through a linear Gaussian step; at 1 the law's mean is sqrt(alpha_t).
        law = program.forward_step(torch.ones(1, 1, len(VALUES)), step)
        shrink, fresh = law.mean[0, 0].double(), law.variance[0, 0].double()
        mean, variance = shrink * mean, shrink**2 * variance + fresh
        x = program.forward_step(x, step).sample()
        if t in CHECKED:
            found[t] = mean, variance, x[:, 0]
    return found


def compare(program, walked, t):
    """How far moments by steps are from those of the jump: exactly, and in standard errors."""
    mean, variance, x = walked
    law = program.noised(VALUES.view(1, 1, -1), torch.tensor(t))
    jump_mean, jump_variance = law.mean[0, 0].double(), law.variance[0, 0].double()
    exact = max((mean - jump_mean).abs().max(), (variance - jump_variance).abs().max())
    off_mean = (x.double().mean(0) - jump_mean) / (jump_variance / COPIES).sqrt()
    # The variance of a sample variance of Gaussians is 2 sigma^4 / (n - 1).
    off_variance = (x.double().var(0) / jump_variance - 1) / (2 / (COPIES - 1)) ** 0.5
    drawn = max(off_mean.abs().max(), off_variance.abs().max())
    return exact.item(), drawn.item()


def left_over(program, picture):
    """KL(q(x_T | x_0) || N(0, I)) in nats."""
    share, x0 = abar(program, program.timesteps), program.scaled(picture).double()
    return (share * x0.square() - share - math.log1p(-share)).sum().item() / 2


def draw(out, pictures, walks):
    figure = Figure(figsize=(11, 11), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(2, 1))
    images = above.subplots(4, len(SHOWN))
    rows = [(name, picture, s) for name, picture in pictures.items() for s in SCHEDULES]
    for row, (_, picture, schedule) in enumerate(rows):
        program = chain(schedule, picture.shape)
        x0 = program.scaled(picture[None])
        eps = torch.randn_like(x0)  # one noise for all t: the picture sinks in it
        for column, t in enumerate(SHOWN):
            share = abar(program, t)
            x = share**0.5 * x0 + (1 - share) ** 0.5 * eps
            axes = images[row, column]
            image = ((x[0] + 1) / 2).clamp(0, 1).permute(1, 2, 0)
            axes.imshow(image.squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
            axes.set_xlabel(rf"$\bar\alpha$ = {share:.2g}", fontsize=8.5, labelpad=2)
            if row == 0:
                axes.set_title(f"t = {t}", fontsize=11)
            if column == 0:
                axes.set_ylabel(schedule, color=SCHEDULES[schedule], fontsize=12)

    left, right = below.subplots(1, 2)
    for name, colour in SCHEDULES.items():
        log_snr = chain(name, (1, 1, 1)).schedule.steps[1:]
        left.plot(range(1, STEPS + 1), log_snr.exp(), color=colour, label=name)
    left.axhline(1, color="0.3", lw=1, ls=":", label="as much noise as signal")
    left.set(yscale="log", title="Signal-to-noise ratio", xlabel="t", ylabel="SNR(t)")
    left.set(xlim=(0, STEPS))
    left.legend(loc="lower left")

    line = torch.linspace(-3, 3, 300)
    for name, colour in SCHEDULES.items():
        law = chain(name, (1, 1, 1)).noised(torch.ones(1, 1, 1, 1), torch.tensor(250))
        drawn = walks[name][250][2][:, -1].numpy()
        right.hist(drawn, bins=80, range=(-3, 3), density=True, color=colour, alpha=0.35)
        density = torch.exp(law.base_dist.log_prob(line.view(-1, 1, 1, 1)).flatten())
        right.plot(line, density, color=colour, label=f"{name}: one jump")
    right.fill_between([], [], color="0.7", label="250 small steps")
    right.set(title="A white pixel at t = 250", xlabel="$x_t$", ylabel="density", xlim=(-3, 3))
    right.legend(loc="upper left", fontsize=9)
    for axes in (left, right):
        axes.grid(alpha=0.25)
    figure.savefig(out, dpi=100)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("forward_process.png"))
    out = parser.parse_args(argv).out
    pyro.set_rng_seed(0)

    found, walks, pictures = {}, {}, {"digit": digit(), "flower": flower()}
    table = Table(title=f"{COPIES:,} walks of {len(VALUES)} pixels, against one jump")
    for column in ("schedule", "t", "abar", "SNR", "exact moments off", "drawn moments off"):
        table.add_column(column, justify="left" if column == "schedule" else "right")
    for name in SCHEDULES:
        program = chain(name, (1, 1, len(VALUES)))
        walks[name] = walk(program)
        for t in CHECKED:
            exact, drawn = compare(program, walks[name][t], t)
            share = abar(program, t)
            found[f"{name}, t={t}: abar"] = share
            found[f"{name}, t={t}: exact moments off"] = exact
            found[f"{name}, t={t}: drawn moments off, standard errors"] = drawn
            cells = f"{share:.4g}", f"{share / (1 - share):.3g}", f"{exact:.1e}", f"{drawn:.1f} se"
            table.add_row(name, str(t), *cells, end_section=t == CHECKED[-1])
        falls = program.schedule.steps[1:] < 0
        found[f"{name}: first t with more noise than signal"] = int(falls.int().argmax()) + 1
    Console().print(table)
    for name in SCHEDULES:
        for steps in (STEPS, 50):
            short = chain(name, pictures["digit"].shape, steps)
            found[f"{name}, T={steps}: nats left"] = left_over(short, pictures["digit"])
        print(
            f"{name}: more noise than signal from"
            f" t = {found[f'{name}: first t with more noise than signal']}; of the digit,"
            f" {found[f'{name}, T={STEPS}: nats left']:.2g} nats are left in x_T after {STEPS}"
            f" steps, {found[f'{name}, T=50: nats left']:.2g} after 50"
        )
    draw(out, pictures, walks)
    print(f"picture: {out}")
    return found


if __name__ == "__main__":
    main()
