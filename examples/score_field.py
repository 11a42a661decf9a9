r"""Diffusion on two half moons: the score it learns at each noise level, and where its samples go.

x_t = s x_0 + n eps, with signal s and noise n, has the density q_t, and its score points to where
points are likelier:

    grad_x log q_t(x) = (s E[x_0 | x_t = x] - x) / n^2,

so a network that denoises knows the score. The moons' own density is known, a Gaussian of standard
deviation r smeared along two half circles c(y, angle), and with it every q_t,

    q_t(x) = E_{y, angle} N(x; s c(y, angle), (s^2 r^2 + n^2) I),

so that here the learned score has a truth to be compared with, and log p(x) an exact mean. Samples
come down by two ways with the same score: the ancestral chain, noise added at every step, and the
probability-flow ODE, dx / dt = f(x, t) without any (Song et al. 2021), whose density is computed
along the way. How good they are is counted in nats: the bound of the chain, the density of the ODE,
and the exact mean log p(x), which no model surpasses on average. The bound with the exact score
shows what T steps alone cost, whatever the network.

Where q_t has no mass nothing is learned, and at low noise that is nearly everywhere: there the
arrows go wrong. Few samples come by, since they get near the moons while the noise is large; what a
network trained for seconds leaves between the moons are those.
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
from ppgen.nn.parameterisation import from_x0

STEPS = 100  # T
LEVELS = (2, 15, 35, 65)  # steps t whose fields are drawn
WIDTH = 0.06  # r
TESTED = 500
ANGLES = 256
DATUM = torch.tensor(math.inf)  # its log SNR


def centres():
    """c(y, angle) on a fine grid, shape (2 ANGLES, 2): the moons without their width."""
    angle = (torch.arange(ANGLES) + 0.5) * (math.pi / ANGLES)
    one = torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], -1)
    return torch.cat([one, -one])


def exact(x, log_snr):
    """log q_t(x) and its score, shapes (n,) and (n, 2); log SNR of t for all, or (n,)."""
    x, place, log_snr = x.double(), centres().double(), log_snr.double().reshape(-1, 1)
    signal, noise = torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()
    variance = (signal * WIDTH) ** 2 + noise**2  # (n, 1) or (1, 1)
    away = signal[..., None] * place - x[:, None]  # (n, 2 ANGLES, 2)
    logs = -away.square().sum(-1) / (2 * variance)
    density = torch.logsumexp(logs, 1) - (2 * math.pi * variance[:, 0] * len(place)).log()
    return density, (logs.softmax(1)[..., None] * away).sum(1) / variance


class ExactScore(nn.Module):
    """A network that need not be trained."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule

    def forward(self, x, t):
        return exact(x, self.schedule.log_snr(t))[1]


@torch.no_grad()
def learned(program, x, step):
    """The score that the network has at x, shape (n, 2)."""
    time = torch.full((len(x),), step / program.timesteps)
    log_snr = program.schedule.log_snr(time)
    return from_x0(program.denoiser()(x, time), x, log_snr, "score")


def score_error(program, x0, step):
    """E |learned - exact|^2 / E |exact|^2 over q_t: 0 is perfect, 1 no better than no score."""
    at = torch.tensor(step)
    x = program.noised(x0, at).sample()
    truth = exact(x, program.schedule.at_step(at))[1]
    error = learned(program, x, step).double() - truth
    return (error.square().sum() / truth.square().sum()).item()


def paths(program, sampler, n, **options):
    """x_t of every step, shape (steps + 1, n, 2)."""
    seen = []
    program.sample(
        n, sampler=sampler, mean=True, seed=2, callback=lambda now: seen.append(now.x), **options
    )
    return torch.stack(seen)


def likelihoods(program, x):
    """{name: values in nats}: the bound of the chain, the density of the ODE, and the truth."""
    ideal = ppgen.Diffusion(
        x.shape[1:], schedule=program.schedule, predict="score",
        network=ExactScore(program.schedule),
    )  # fmt: skip
    with torch.no_grad():
        return {
            "chain, bound": program.log_prob(x, num_particles=STEPS - 1),
            "the same with the exact score": ideal.log_prob(x, num_particles=STEPS - 1),
            "ODE": -program.ode_terms(x, tolerance=1e-3, trace="exact")["ode"],
            "exact": exact(x, DATUM)[0],
        }


def draw(out, program, data, samples, flows, figures):
    figure = Figure(figsize=(14.4, 7.6), layout="constrained")
    panels = figure.subplots(2, 4)
    line = torch.linspace(-2.1, 2.1, 90)
    fine = torch.cartesian_prod(line, line)
    rough = torch.linspace(-1.9, 1.9, 15)
    grid = torch.cartesian_prod(rough, rough)
    for axes, step in zip(panels[0], LEVELS, strict=True):
        log_snr = program.schedule.at_step(torch.tensor(step))
        density = exact(fine, log_snr)[0].reshape(90, 90).T.exp()
        axes.contourf(line, line, density.numpy(), levels=12, cmap="Blues")
        noise = torch.sigmoid(-log_snr).sqrt().item()
        for score, colour, width in (
            (exact(grid, log_snr)[1], "0.6", 0.009),
            (learned(program, grid, step), "C3", 0.0035),
        ):
            arrow = score * noise
            arrow = arrow / (1 + arrow.norm(dim=1, keepdim=True))  # below 1, however steep
            axes.quiver(*grid.T.numpy(), *arrow.T.numpy(), color=colour, width=width, scale=17)
        error = figures[f"score error, t={step}"]
        axes.set_title(f"t = {step}, noise {noise:.2f}: error {error:.2%}", fontsize=11)
    panels[0, 0].set_ylabel("score: learned (red), exact (grey)", fontsize=11)

    first, second, third, last = panels[1]
    for axes, points, name in (
        (first, samples["ancestral"], "ancestral"),
        (second, samples["ODE"], "ODE"),
    ):
        axes.plot(*data[:TESTED].T.numpy(), ".", color="0.75", ms=3, label="data")
        axes.plot(*points[:TESTED].T.numpy(), ".", color="C0", ms=3, label=name)
        nats = figures[f"samples, {name}: mean log p"]
        axes.set_title(f"{name} samples: mean log p {nats:.2f}", fontsize=11)
        axes.legend(loc="upper right", fontsize=9)
    for axes, name, count in ((third, "ancestral", 3), (last, "ODE", 40)):
        walks = flows[name][:, :count]  # (T + 1, count, 2)
        for way in walks.transpose(0, 1):
            axes.plot(*way.T.numpy(), lw=0.8)
        axes.plot(*walks[0].T.numpy(), "o", ms=3, color="0.5", label="noise, t = T")
        axes.plot(*walks[-1].T.numpy(), "o", ms=4, color="C3", label="sample")
        axes.set_title(f"{name} paths", fontsize=11)
        axes.legend(loc="upper right", fontsize=9)
    for axes in panels.flat:
        size = 2.8 if axes in (third, last) else 2.1
        axes.set(xlim=(-size, size), ylim=(-size, size), aspect="equal", xticks=[], yticks=[])
    figure.savefig(out, dpi=100)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("score_field.png"))
    out = parser.parse_args(argv).out
    pyro.set_rng_seed(0)

    data = ppgen.load_data("moons")
    program = ppgen.Diffusion(
        data.shape, timesteps=STEPS, schedule="cosine", network="mlp", hidden=(256, 256),
        predict="v", weighting="simple",
    )  # fmt: skip
    ppgen.fit(
        program, data, steps=1200, batch_size=256, lr=4e-3, ema=0.99, device="cpu",
        validate_epochs=0, progress=False,
    )  # fmt: skip
    x = data.test.batch(slice(0, TESTED))[0]

    found = {}
    for step in LEVELS:
        found[f"score error, t={step}"] = score_error(program, x, step)
    nats = likelihoods(program, x)
    table = Table(title=f"Mean log p(x) of {len(x)} test points", caption="nats")
    for column in ("", "mean", "below the exact"):
        table.add_column(column, justify="right" if column else "left")
    for name, values in nats.items():
        below = (nats["exact"] - values).double()  # point by point: the points' own spread is gone
        mean, error = below.mean().item(), (below.std() / len(below) ** 0.5).item()
        found[f"{name}: log p"] = values.double().mean().item()
        if name != "exact":
            found |= {f"{name}: below the exact": mean, f"{name}: error": error}
        gap = "" if name == "exact" else f"{mean:.3f} ± {error:.3f}"
        table.add_row(name, f"{found[f'{name}: log p']:.3f}", gap)
    Console().print(table)
    for step in LEVELS:
        error = found[f"score error, t={step}"]
        print(f"t = {step:2}: relative squared error of the score {error:.2%}")

    flows = {
        "ancestral": paths(program, "ancestral", 1000),
        "ODE": paths(program, "ddim", 1000, steps=STEPS),
    }
    samples = {name: walks[-1] for name, walks in flows.items()}
    for name, points in samples.items():
        found[f"samples, {name}: mean log p"] = exact(points, DATUM)[0].mean().item()
        nearest = torch.cdist(points, centres()).argmin(1)
        upper = (nearest < ANGLES).double().mean().item()
        found[f"samples, {name}: share of the upper moon"] = upper
        steps = flows[name].diff(dim=0).norm(dim=-1).sum(0).mean().item()
        found[f"samples, {name}: length of a path"] = steps
        print(
            f"{name}: samples have mean log p {found[f'samples, {name}: mean log p']:.2f}, where"
            f" test points have {found['exact: log p']:.2f};"
            f" {upper:.1%} of them on the upper moon; a path is {steps:.1f} long"
        )
    draw(out, program, x, samples, flows, found)
    print(f"picture: {out}")
    return found


if __name__ == "__main__":
    main()
