r"""Which direction of an autoregressive flow is fast: MAF and IAF, the same layer both ways.

    MAF:  z_i = (x_i - m(x_<i)) / s(x_<i)      all i at once from x; x from z one after the other
    IAF:  x_i = z_i s(z_<i) + m(z_<i)          all i at once from z; z from x one after the other

Training on data asks for z of x, sampling for x of z. So a MAF trains fast and samples slowly, and
an IAF the reverse; which of the two a program wants depends on what it does most. A coupling layer
reads half of the numbers and moves the other half, and is fast both ways.

Counted are the turns, calls of a layer's network that have to wait for one another; measured are
milliseconds. The turns of a slow direction are the number of dimensions. They are small ones: what
a turn computes it never computes again, so that all of them cost the arithmetic of one pass, and
the time goes to calls. Which form is written down matters as much: Pyro's
``TransformedDistribution(noise, [affine_autoregressive(D)])`` is an IAF, trained the slow way.
"""

import argparse
import statistics
import time
from pathlib import Path

import pyro
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import ppgen
from ppgen.nn.masked import MADE, Unrolled

SIZES = (2, 4, 8, 16, 32, 64)
BATCH = 128
REPEATS = 3
KINDS = {
    "MAF": lambda size: ppgen.MAF((size,), layers=2, hidden=(64, 64)),
    "IAF": lambda size: ppgen.IAF((size,), layers=2, hidden=(64, 64)),
    "coupling": lambda size: ppgen.RealNVP((size,), layers=2, hidden=(64, 64)),
}


def train_step(flow, x):
    flow.zero_grad()
    (-flow.log_prob(x).mean()).backward()


def sample(flow, x):
    flow.sample(len(x))


def turns(flow, work, x):
    """Network calls of one layer of a flow of two that wait for one another."""
    seen = []
    whole, part = MADE.forward, Unrolled.parameters
    try:
        MADE.forward = lambda self, *args: seen.append(1) or whole(self, *args)
        Unrolled.parameters = lambda self, *args: seen.append(1) or part(self, *args)
        work(flow, x)
    finally:
        MADE.forward, Unrolled.parameters = whole, part
    return len(seen) // 2 or 1  # a coupling layer has no masked network, and calls its own once


def milliseconds(flow, work, x):
    spent = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        work(flow, x)
        spent.append(1e3 * (time.perf_counter() - start))
    return statistics.median(spent[1:])


def draw(out, found):
    figure = Figure(figsize=(11.2, 4.6), layout="constrained")
    for axes, work, title in zip(
        figure.subplots(1, 2, sharey=True),
        ("train", "sample"),
        (f"a training step on {BATCH} points", f"{BATCH} samples"),
        strict=True,
    ):
        for kind, style in zip(KINDS, ("o-", "s-", "^--"), strict=True):
            times = [found[f"{kind}, {size}: {work} ms"] for size in SIZES]
            axes.loglog(SIZES, times, style, label=kind)
        axes.set(xlabel="dimensions", title=title, xticks=SIZES)
        axes.set_xticklabels(SIZES)
        axes.minorticks_off()
        axes.legend()
    figure.axes[0].set_ylabel("milliseconds")
    figure.savefig(out, dpi=100)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("flow_directions.png"))
    out = parser.parse_args(argv).out
    pyro.set_rng_seed(0)

    found = {}
    table = Table(title="Turns of a layer, and milliseconds of a flow of two layers")
    for column in ("dimensions", "flow", "turns: train", "sample", "ms: train", "sample"):
        table.add_column(column, justify="left" if column == "flow" else "right")
    for size in SIZES:
        x = torch.randn(BATCH, size)
        for kind, make in KINDS.items():
            flow, row = make(size), []
            for measure, unit in ((turns, "turns"), (milliseconds, "ms")):
                for work, name in ((train_step, "train"), (sample, "sample")):
                    found[f"{kind}, {size}: {name} {unit}"] = value = measure(flow, work, x)
                    row.append(f"{value:.1f}" if unit == "ms" else str(value))
            table.add_row(str(size), kind, *row, end_section=kind == "coupling")
    Console().print(table)
    last = SIZES[-1]
    for work, slow, fast in (("train", "IAF", "MAF"), ("sample", "MAF", "IAF")):
        ratio = found[f"{slow}, {last}: {work} ms"] / found[f"{fast}, {last}: {work} ms"]
        found[f"{work}: {slow} / {fast}"] = ratio
        print(f"{last} dimensions, {work}: {slow} takes {ratio:.0f} times as long as {fast}")
    draw(out, found)
    print(f"picture: {out}")
    return found


if __name__ == "__main__":
    main()
