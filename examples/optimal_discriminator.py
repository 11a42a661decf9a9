r"""The discriminator of a GAN against the best one there is, where both densities are known.

For a fixed generator the discriminator maximises

    V(D) = E_{x ~ p_data} log D(x) + E_{x ~ p_G} log(1 - D(x)).

Point by point that is a log D + b log(1 - D) with a = p_data(x), b = p_G(x), whose maximum lies at

    D*(x) = p_data(x) / (p_data(x) + p_G(x)),    V(D*) = -log 4 + 2 JS(p_data, p_G),

JS the Jensen-Shannon divergence in nats: 0 where the two are one, log 2 where they do not overlap
(Goodfellow et al. 2014, proposition 1 and theorem 1). The generator here is a fixed shift of its
noise, p_G = N(shift, 1), the data a mixture of two Gaussians; D is a small network that sees
samples alone. JS is an integral over a line, which quadrature gives exactly; the trained D gives a
lower bound of it. Where there is neither data nor draws nothing is learned and nothing is lost.
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

SHIFTS = (0.0, 1.5, 3.0)
STEPS = 800
LINE = torch.linspace(-7, 9, 3201, dtype=torch.float64)


def log_normal(x, mean, scale):
    return -0.5 * ((x - mean) / scale) ** 2 - math.log(scale) - 0.5 * math.log(2 * math.pi)


def log_data(x):
    """log of 0.6 N(-1.5, 0.5^2) + 0.4 N(1.5, 0.8^2)."""
    parts = (math.log(0.6) + log_normal(x, -1.5, 0.5), math.log(0.4) + log_normal(x, 1.5, 0.8))
    return torch.logaddexp(*parts)


def draws_of_data(n):
    first = torch.rand(n, 1) < 0.6
    return torch.where(first, -1.5 + 0.5 * torch.randn(n, 1), 1.5 + 0.8 * torch.randn(n, 1))


def exact(shift):
    """D* on the line, and JS by the trapezoidal rule."""
    p, q = log_data(LINE), log_normal(LINE, shift, 1.0)
    middle = torch.logaddexp(p, q) - math.log(2)
    inside = 0.5 * (p.exp() * (p - middle) + q.exp() * (q - middle))
    return torch.sigmoid(p - q), torch.trapezoid(inside, LINE).item()


class Shift(nn.Module):
    """G(z) = z + shift, which nothing trains."""

    def __init__(self, shift):
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(shift))

    def forward(self, z):
        return z + self.shift


class Networks(nn.Module):
    def __init__(self, shift):
        super().__init__()
        self.generator = Shift(shift)
        self.discriminator = nn.Sequential(
            nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1)
        )


def train(shift, data):
    """The program after its discriminator alone has been trained."""
    pyro.set_rng_seed(1)
    program = GAN((1,), latent_dim=1, network=Networks(shift), loss="minimax")
    player = program.objectives()["discriminator"]
    ppgen.fit(
        program, data, steps=STEPS, batch_size=1000, lr=5e-3, ema=0, objective=player,
        device="cpu", validate_epochs=0, progress=False,
    )  # fmt: skip
    return program, player


@torch.no_grad()
def value(program, x, shift):
    """V(D), its two expectations over as many draws, and its standard error."""
    fake = torch.randn(len(x), 1) + shift
    real = nn.functional.logsigmoid(program.judge(x, None))
    other = nn.functional.logsigmoid(-program.judge(fake, None))
    error = (real.var() + other.var()).div(len(x)).sqrt()
    return (real.mean() + other.mean()).item(), error.item()


def draw(out, curves, found):
    figure = Figure(figsize=(13, 6.4), layout="constrained")
    panels = figure.subplots(2, len(SHIFTS), sharex=True, sharey="row")
    for (above, below), (shift, (best, learned)) in zip(panels.T, curves.items(), strict=True):
        for log_density, colour, name in (
            (log_data(LINE), "C0", "p_data"),
            (log_normal(LINE, shift, 1.0), "C1", "p_G"),
        ):
            above.fill_between(LINE, log_density.exp(), color=colour, alpha=0.3)
            above.plot(LINE, log_density.exp(), color=colour, label=name)
        above.set_title(f"shift {shift:g}: JS = {found[f'shift {shift:g}: JS']:.3f} nats")
        below.plot(LINE, best, color="0.3", lw=4, alpha=0.4, label="D* = p_data / (p_data + p_G)")
        below.plot(LINE, learned, color="C3", label="trained D")
        below.set(xlabel="x", xlim=(-5, 6.5), ylim=(-0.03, 1.03))
        found_value, best_value = (
            found[f"shift {shift:g}: {name}"] for name in ("V(D)", "-log 4 + 2 JS")
        )
        below.set_title(f"V(D) = {found_value:.3f}, V(D*) = {best_value:.3f} nats", fontsize=11)
        for axes in (above, below):
            axes.grid(alpha=0.25)
    panels[0, 0].legend(loc="upper right")
    panels[1, 2].legend(loc="upper right", fontsize=9)
    panels[0, 0].set_ylabel("density")
    panels[1, 0].set_ylabel("probability to be data")
    figure.savefig(out, dpi=100)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("optimal_discriminator.png"))
    out = parser.parse_args(argv).out
    pyro.set_rng_seed(0)

    x, held_out = draws_of_data(50_000), draws_of_data(50_000)
    data = ppgen.Dataset.from_tensors(x, held_out[:1000], held_out)
    found, curves = {}, {}
    table = Table(title=f"A discriminator after {STEPS} steps", caption="nats")
    for column in ("shift", "JS", "-log 4 + 2 JS", "V(D)", "mean |D - D*|"):
        table.add_column(column, justify="right")
    for shift in SHIFTS:
        program, _ = train(shift, data)
        best, divergence = exact(shift)
        with torch.no_grad():
            learned = program.judge(LINE.float()[:, None], None)[:, 0].sigmoid().double()
        weight = 0.5 * (log_data(LINE).exp() + log_normal(LINE, shift, 1.0).exp())
        away = torch.trapezoid(weight * (learned - best).abs(), LINE).item()
        reached, error = value(program, held_out, shift)
        name = f"shift {shift:g}"
        found |= {
            f"{name}: JS": divergence,
            f"{name}: -log 4 + 2 JS": -math.log(4) + 2 * divergence,
            f"{name}: V(D)": reached,
            f"{name}: error of V(D)": error,
            f"{name}: mean |D - D*|": away,
        }
        curves[shift] = best, learned
        table.add_row(
            f"{shift:g}", f"{divergence:.4f}", f"{-math.log(4) + 2 * divergence:.4f}",
            f"{reached:.4f} ± {error:.4f}", f"{away:.4f}",
        )  # fmt: skip
    Console().print(table)
    print("V(D) on held-out draws; the mean of |D - D*| is over data and draws, half and half")
    draw(out, curves, found)
    print(f"picture: {out}")
    return found


if __name__ == "__main__":
    main()
