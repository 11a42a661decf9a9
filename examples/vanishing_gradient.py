r"""Why the generator of a GAN does not minimise what the discriminator maximises.

In the game of Goodfellow et al. (2014) the generator minimises E log(1 - D(G(z))). With the score
s = logit D its gradient is -E[D s'], and where the discriminator is sure of itself, D = 0 on all
that G makes, there is none: the worse the generator, the less it learns. The non-saturating
generator maximises E log D(G(z)) instead, with the gradient -E[(1 - D) s'], which is then at its
strongest. A critic whose slopes are held near one (Arjovsky et al. 2017) gives a gradient that
hardly depends on the distance.

Here G shifts its noise, p_G = N(a, 1), and data are N(0, 1), so that all is known: the best D has
the logit s*(x) = a^2 / 2 - a x, and the two gradients with respect to the shift a are

    minimax          a E[D*],    non-saturating    a E[1 - D*],    x ~ N(a, 1),

while a linear critic s(x) = -w x with the penalty k (w - 1)^2 has its best at w = 1 + a / 2k, which
is its gradient. To the left these curves, by quadrature, beside what trained discriminators give;
to the right a discriminator while it learns, at one distance. All generators begin with next to
nothing from a discriminator that knows nothing; as it learns the others hear of it, and minimax
does not, since what D gains in slope it loses in doubt.
"""

import argparse
import math
from pathlib import Path

import pyro
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import nn

import ppgen
from ppgen.models.gan import GAN

SHIFTS = (1.0, 2.0, 3.0, 4.0, 5.0)
ASIDE = 5.0  # where a discriminator is watched as it learns
STEPS = (0, 2, 5, 15, 50, 250)
PENALTY = 10.0
NAMES = {"minimax": "C3", "nonsaturating": "C0", "wasserstein_gp": "C2"}
DRAWS = 20_000


class Shift(nn.Module):
    def __init__(self, shift):
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(shift))

    def forward(self, z):
        return z + self.shift


class Networks(nn.Module):
    """G(z) = z + a, and a discriminator with a logit of the exact form, w x + b."""

    def __init__(self, shift):
        super().__init__()
        self.generator = Shift(shift)
        self.discriminator = nn.Linear(1, 1)


def best(loss, shift):
    """The size of the generator's gradient at the best discriminator, by quadrature."""
    if loss == "wasserstein_gp":
        return 1 + shift / (2 * PENALTY)
    x = torch.linspace(shift - 9, shift + 9, 4001, dtype=torch.float64)
    density = (-0.5 * (x - shift) ** 2).exp() / math.sqrt(2 * math.pi)
    logit = shift**2 / 2 - shift * x
    weight = torch.sigmoid(logit if loss == "minimax" else -logit)
    return shift * torch.trapezoid(density * weight, x).item()


def trained(loss, shift, data, steps, lr):
    """A program whose discriminator alone has been trained for so many steps."""
    pyro.set_rng_seed(1)
    program = GAN((1,), latent_dim=1, network=Networks(shift), loss=loss, gradient_penalty=PENALTY)
    with torch.no_grad():  # a discriminator that knows next to nothing
        program.discriminator.weight.fill_(-0.1)
        program.discriminator.bias.zero_()
    if steps:
        ppgen.fit(
            program, data, steps=steps, batch_size=500, lr=lr, warmup_steps=0, ema=0,
            objective=program.objectives()["discriminator"], device="cpu",
            validate_epochs=0, progress=False,
        )  # fmt: skip
    return program


def gradient(program):
    """The size of the gradient of the generator's loss with respect to its shift."""
    pyro.set_rng_seed(2)
    loss, _ = program.objectives()["generator"](torch.zeros(DRAWS, 1))
    (slope,) = torch.autograd.grad(loss, program.generator.shift)
    return abs(slope.item())


def draw(out, found):
    figure = Figure(figsize=(12.5, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    fine = torch.linspace(0.5, 5.5, 51).tolist()
    for loss, colour in NAMES.items():
        left.plot(fine, [best(loss, a) for a in fine], color=colour, alpha=0.5, lw=3)
        left.plot(
            SHIFTS, [found[f"{loss}: gradient at {a:g}"] for a in SHIFTS], "o", color=colour,
            label=loss,
        )  # fmt: skip
        right.plot(
            STEPS, [found[f"{loss}: gradient after {n} steps"] for n in STEPS], "o-", color=colour,
            label=loss,
        )  # fmt: skip
    left.set(yscale="log", ylim=(5e-3, 20), xlabel="shift of the generator from the data, a",
             ylabel="gradient of the generator's loss with respect to a")  # fmt: skip
    left.set_title("at the best discriminator (lines), at a trained one (points)", fontsize=11)
    right.set_xscale("symlog", linthresh=2)
    right.set(xlabel="steps of the discriminator", xticks=STEPS, xlim=(-0.3, 300))
    right.set_xticklabels([str(n) for n in STEPS])
    right.set_title(f"at a = {ASIDE:g}, while the discriminator learns", fontsize=11)
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.legend(loc="lower left")
    figure.savefig(out, dpi=100)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("vanishing_gradient.png"))
    out = parser.parse_args(argv).out
    pyro.set_rng_seed(0)

    data = ppgen.Dataset.from_tensors(*(torch.randn(n, 1) for n in (50_000, 100, 100)))
    found = {}
    table = Table(
        title="Size of the generator's gradient with respect to its shift a",
        caption="at a trained discriminator / at the best one",
    )
    for column in ("a", *NAMES):
        table.add_column(column, justify="right")
    for a in SHIFTS:
        cells = []
        for loss in NAMES:
            program = trained(loss, a, data, STEPS[-1], lr=3.0)
            found[f"{loss}: best at {a:g}"] = best(loss, a)
            found[f"{loss}: gradient at {a:g}"] = gradient(program)
            cells.append(f"{gradient(program):.3f} / {best(loss, a):.3f}")
        table.add_row(f"{a:g}", *cells)
    for loss in NAMES:
        for steps in STEPS:
            program = trained(loss, ASIDE, data, steps, lr=0.3)
            found[f"{loss}: gradient after {steps} steps"] = gradient(program)
    Console().print(table)
    for loss in NAMES:
        first, last = (found[f"{loss}: gradient after {n} steps"] for n in (STEPS[0], STEPS[-1]))
        print(f"{loss} at a = {ASIDE:g}: {first:.3f} at first, {last:.3f} after {STEPS[-1]} steps")
    draw(out, found)
    print(f"picture: {out}")
    return found


if __name__ == "__main__":
    main()
