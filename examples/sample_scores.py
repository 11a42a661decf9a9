r"""Scores of samples, on sets whose faults are known: what each score sees, and what it misses.

Against 180 held-out digits, in the features f of a classifier of digits, are held as many of

    real        other held-out digits: what a perfect model gets, and none beats but by chance
    blurred     these, a little blurred
    noise       independent uniform pixels
    one class   training threes alone: a model that lost its modes
    copied      training digits with a speck of noise: a model that learned its data by heart

The classifier has learned the labels of the training digits too, so that features of its own
training data are not quite those of new data: "real" must be new to it.

FID and KID are distances of the distributions of f,

    FID = ||m - m_r||^2 + tr(C + C_r - 2 (C C_r)^(1/2)),    KID = MMD^2 with (f . g / d + 1)^3

(below 0 for real digits here: both splits hold each class in equal numbers, so that they are more
alike than independent sets are);

precision is the share of samples near the data and recall the share of data near samples, c2st the
accuracy of a classifier that tells samples from data, and the last the share of samples that lie
nearer to the training set than held-out digits do. All but that one take copies for good samples.
"""

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import nn

from ppgen import load_data, metrics
from ppgen.features import extractor

COUNT = 180
COLUMNS = ("fid", "kid", "precision", "recall", "c2st", "nearer to training")


def blurred(x):
    weights = torch.tensor([1.0, 6.0, 1.0]) / 8
    padded = nn.functional.pad(x, (1, 1, 1, 1), mode="replicate")
    return nn.functional.conv2d(padded, torch.outer(weights, weights)[None, None])


def sets(data):
    """The sets by name, and what is left to train on: no three is both."""
    real = data.validation.batch(slice(COUNT))[0]
    x, y = data.train.batch(slice(None))
    threes = x[y == 3]
    rest = torch.cat([x[y != 3], threes[: len(threes) // 2]])
    rest = rest[torch.randperm(len(rest))]
    found = {
        "real": real,
        "blurred": blurred(real),
        "noise": torch.rand_like(real),
        "one class": threes[torch.randint(len(threes) // 2, len(threes), (COUNT,))],
        "copied": (rest[:COUNT] + 0.02 * torch.randn_like(real)).clamp(0, 1),
    }
    return found, rest


def scores(samples, reference, training):
    precision, recall = metrics.precision_recall(samples, reference)
    return dict(
        zip(
            COLUMNS,
            (
                metrics.fid(samples, reference),
                metrics.kid(samples, reference),
                precision,
                recall,
                metrics.c2st(samples, reference),
                metrics.neighbours(samples, reference, training)[0],
            ),
            strict=True,
        )
    )


def draw(out, pictures, table):
    figure = Figure(figsize=(12.5, 0.85 * len(table) + 0.7))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 12.5), ylim=(len(table), -0.75))
    axes.set_axis_off()
    for k, name in enumerate(COLUMNS):
        axes.text(6.1 + 1.1 * k, -0.3, name.replace(" to ", "\nto "), ha="center", va="center")
    for line, (name, row) in enumerate(table.items()):
        axes.text(1.1, line + 0.5, name, ha="right", va="center", weight="bold")
        strip = torch.cat([*nn.functional.pad(pictures[name][:10], (0, 1), value=1)], 2)[0].numpy()
        axes.imshow(strip, cmap="gray", extent=(1.3, 5.3, line + 0.75, line + 0.25), aspect="auto")
        for k, found in enumerate(row.values()):
            text = f"{found.value:.2f}\n"
            axes.text(6.1 + 1.1 * k, line + 0.53, text, ha="center", va="center")
            error = f"\n± {found.stderr:.2f}"
            axes.text(6.1 + 1.1 * k, line + 0.53, error, ha="center", va="center", color="0.5",
                      fontsize=8)  # fmt: skip
    axes.set(xlim=(0, 12.5), ylim=(len(table), -0.75))
    figure.savefig(out, dpi=110)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("sample_scores.png"))
    out = parser.parse_args(argv).out
    torch.manual_seed(0)

    data = load_data("digits")
    judge = extractor("classifier", data)
    pictures, rest = sets(data)
    reference, training = judge(data.test.batch(slice(None))[0])[0], judge(rest)[0]
    table = {name: scores(judge(x)[0], reference, training) for name, x in pictures.items()}

    shown = Table(title=f"{COUNT} samples against as many held-out digits", caption=str(judge))
    for column in ("samples", *COLUMNS):
        shown.add_column(column, justify="left" if column == "samples" else "right")
    for name, row in table.items():
        shown.add_row(name, *(f"{each.value:.3f} ± {each.stderr:.3f}" for each in row.values()))
    Console().print(shown)
    draw(out, pictures, table)
    print(f"picture: {out}")
    return {
        f"{name}: {key}": each.value for name, row in table.items() for key, each in row.items()
    }


if __name__ == "__main__":
    main()
