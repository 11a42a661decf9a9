r"""A normalizing flow, step by step: how noise becomes two half moons, and the density on the way.

x = f_L(... f_1(z)), z ~ N(0, I), every f_l invertible, so that with z = f^{-1}(x)

    log p(x) = log N(z; 0, I) - sum_l log |det df_l / dz_{l-1}|.

Each step moves the points and pays for it in volume: where a layer spreads points out, the
log-determinant is positive and the density falls; where it presses them together, it rises. A
coupling layer moves one coordinate given the other, so that its steps are along one axis each.
The density is exact: it integrates to one, and no bound stands between it and the data.
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

LAYERS = 6
STEPS = 1000


@torch.no_grad()
def steps(flow, z):
    """Where the points are after each layer, (layers + 1, n, 2), and what each layer adds.

    The last of `flow.bijection` only puts the units of the data back.
    """
    layers, units = flow.bijection.layers
    places, volumes = [z], []
    for layer in layers.layers:
        z, log_det = layer(z)
        places.append(z)
        volumes.append(log_det)
    x, log_det = units(z)
    return torch.stack(places), torch.stack([*volumes, log_det]), x


def grid(side=240, reach=1.9):
    line = (torch.arange(side) + 0.5) / side * 2 * reach - reach
    return line, torch.cartesian_prod(line, line), (2 * reach / side) ** 2


def draw(out, flow, data, places, drawn, figures):
    figure = Figure(figsize=(15.2, 7.8), layout="constrained")
    panels = figure.subplots(2, 5).flat
    angle = torch.atan2(places[0, :, 1], places[0, :, 0])
    for number, points in enumerate(places):
        axes = next(panels)
        points = points.flip(1) if number % 2 else points  # the axes change places in every layer
        axes.scatter(*points.T.numpy(), c=angle.numpy(), s=3, cmap="twilight")
        title = "noise z" if number == 0 else f"after layer {number}"
        axes.set_title(title, fontsize=11)
        axes.set(xlim=(-3.6, 3.6), ylim=(-3.6, 3.6), aspect="equal", xticks=[], yticks=[])
    line, points, _ = grid()
    with torch.no_grad():
        density = flow.log_prob(points).exp().reshape(len(line), len(line)).T
    axes = next(panels)
    axes.contourf(line, line, density.numpy(), levels=20, cmap="Blues")
    axes.set_title(f"density, integral {figures['integral']:.3f}", fontsize=11)
    for panel, points, name, colour in (
        (next(panels), drawn, "samples", "C0"),
        (next(panels), data, "data", "0.4"),
    ):
        panel.plot(*points.T.numpy(), ".", color=colour, ms=2)
        panel.set_title(name, fontsize=11)
        panel.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())
    for panel in figure.axes[-3:]:
        panel.set(aspect="equal", xticks=[], yticks=[])
    figure.savefig(out, dpi=100)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("flow_steps.png"))
    out = parser.parse_args(argv).out
    pyro.set_rng_seed(0)

    data = ppgen.load_data("moons")
    flow = ppgen.NeuralSpline(data.shape, layers=LAYERS, hidden=(48, 48))
    ppgen.fit(
        flow, data, steps=STEPS, batch_size=256, lr=4e-3, device="cpu", validate_epochs=0,
        progress=False,
    )  # fmt: skip
    test = data.test.batch(slice(0, 1000))[0]
    z = torch.randn(1500, 2)
    places, volumes, drawn = steps(flow, z)

    _, points, cell = grid(reach=3.5)
    with torch.no_grad():
        told = flow.log_prob(drawn)
        noise = -0.5 * z.square().sum(1) - math.log(2 * math.pi)
        found = {
            "integral": flow.log_prob(points).double().exp().sum().item() * cell,
            "test log p": flow.log_prob(test).mean().item(),
            "log p and the sum of the steps": (noise - volumes.sum(0) - told).abs().mean().item(),
        }
    gaussian = torch.distributions.MultivariateNormal(test.mean(0), test.T.cov())
    found["test log p, one Gaussian"] = gaussian.log_prob(test).mean().item()

    table = Table(title="From noise to moons", caption="nats, means over samples")
    for column in ("", "log |det|", "log density after it", "moved: kept half, other half"):
        table.add_column(column, justify="right" if column else "left")
    density = noise
    table.add_row("noise", "", f"{density.mean().item():.3f}", "")
    for number, volume in enumerate(volumes):
        density = density - volume
        if number < LAYERS:
            # The halves change places in every layer: turned back, one of them has not moved.
            moved = (places[number + 1] - places[number].flip(1)).abs().mean(0)
            found[f"layer {number + 1}: least moved"] = moved.min().item()
            found[f"layer {number + 1}: most moved"] = moved.max().item()
            name, way = f"layer {number + 1}", f"{moved[0].item():.2f}, {moved[1].item():.2f}"
        else:
            name, way = "units of the data", ""
        row = f"{volume.mean().item():.3f}", f"{density.mean().item():.3f}"
        table.add_row(name, *row, way)
    found["log p of samples"] = density.mean().item()
    Console().print(table)
    print(
        f"test points have mean log p {found['test log p']:.3f}, under one Gaussian"
        f" {found['test log p, one Gaussian']:.3f}; the density integrates to"
        f" {found['integral']:.4f}"
    )
    draw(out, flow, test, places, drawn, found)
    print(f"picture: {out}")
    return found


if __name__ == "__main__":
    main()
