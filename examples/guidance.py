r"""Classifier-free guidance: digits that obey their label better, and differ less.

One network is trained with labels y, and with the label left out one time in ten; it then knows the
noise in x_t with and without a label. Guidance goes along their difference (Ho and Salimans 2022),

    eps = eps(x_t) + scale (eps(x_t, y) - eps(x_t)),

where scale 0 ignores the label, 1 is the conditional model, and more overdoes it: since eps is
minus the score times the noise, this is the score of q(x_t) q(y | x_t)^scale up to a constant, with
q(y | x_t) the classifier hidden in the network. It samples roughly where that is sure of y: far
from other digits, and close together.

    accuracy    how often a 3-nearest-neighbour classifier, trained on data, sees that label
    diversity   mean distance of two digits drawn for one label, in pixels
    recall      share of real digits that lie among the drawn ones: nearer to one of them than
                its third neighbour of its own kind (Kynkaanniemi et al. 2019)
    precision   the same with the parts exchanged: drawn digits that lie among real ones

At scale 1 the last two say how good the network is: modest, it is trained for seconds. All scales
start from the same noise.
"""

import argparse
from pathlib import Path

import numpy as np
import pyro
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from sklearn.neighbors import KNeighborsClassifier

import ppgen

SCALES = (0, 1, 2, 4, 8)
EACH = 30  # drawn for each of the ten labels
SHOWN = (2, 4, 8)  # labels in the picture
ROWS, COLUMNS = 2, 6  # of digits of one label


def train(data):
    program = ppgen.Diffusion(
        data.shape, timesteps=100, schedule="cosine", predict="v", weighting="simple", channels=8,
        multipliers=(1, 2), blocks=1, attention=(), num_classes=data.num_classes,
        levels=data.levels,
    )  # fmt: skip
    ppgen.fit(
        program, data, steps=500, batch_size=64, lr=3e-3, ema=0.99, device="cpu",
        validate_epochs=0, progress=False,
    )  # fmt: skip
    return program


def diversity(x, labels):
    return np.mean([torch.pdist(x[labels == label]).mean().item() for label in labels.unique()])


def coverage(points, others, neighbours=3):
    """Share of the points nearer to one of the others than that one's third own neighbour."""
    radius = torch.cdist(others, others).kthvalue(neighbours + 1, dim=1).values  # itself is one
    return (torch.cdist(points, others) <= radius).any(1).double().mean().item()


def draw(out, pictures, curves, data_diversity):
    figure = Figure(figsize=(14, 6.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.75, 1))
    panels = left.subplots(len(SCALES), len(SHOWN))
    for row, scale in zip(panels, SCALES, strict=True):
        for axes, label in zip(row, SHOWN, strict=True):
            # (ROWS COLUMNS, 10, 10), each with a white edge, as one picture
            digits = np.pad(pictures[scale][label], ((0, 0), (1, 1), (1, 1)))
            sheet = digits.reshape(ROWS, COLUMNS, 10, 10).transpose(0, 2, 1, 3)
            sheet = sheet.reshape(ROWS * 10, COLUMNS * 10)
            axes.imshow(sheet, cmap="gray_r", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
            if scale == SCALES[0]:
                axes.set_title(f"y = {label}")
        row[0].set_ylabel(f"scale {scale}", fontsize=11)

    obeys, differs = right.subplots(2, 1, sharex=True)
    places = range(len(SCALES))
    for name, colour in (("accuracy", "C0"), ("recall", "C3"), ("precision", "C1")):
        obeys.plot(places, curves[name], "o-", color=colour, label=name)
    obeys.set(ylim=(0, 1.25), title="Does it obey the label, and cover the data?")
    obeys.set_yticks([0, 0.25, 0.5, 0.75, 1])
    obeys.legend(fontsize=9, loc="upper center", ncols=3)
    differs.plot(places, curves["diversity"], "o-", color="C2", label="drawn")
    differs.axhline(data_diversity, color="0.3", ls=":", lw=1, label="real digits of a class")
    differs.set(title="Distance of two digits of a label", xlabel="guidance scale", ylim=(0, 3))
    differs.set_xticks(places, [str(scale) for scale in SCALES])
    differs.legend(fontsize=9, loc="lower left")
    for axes in (obeys, differs):
        axes.grid(alpha=0.25)
    figure.savefig(out, dpi=100)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("guidance.png"))
    out = parser.parse_args(argv).out
    pyro.set_rng_seed(0)

    data = ppgen.load_data("digits")
    program = train(data)
    x, y = data.train.batch(slice(0, None))
    x = x.flatten(1)
    classifier = KNeighborsClassifier(3).fit(x.numpy(), y.numpy())
    test, truth = data.test.batch(slice(0, None))
    labels = torch.arange(10).repeat_interleave(EACH)
    # as many real digits of each label as are drawn
    real = torch.cat([x[y == label][:EACH] for label in range(10)])
    found = {
        "test digits: accuracy": classifier.score(test.flatten(1).numpy(), truth.numpy()),
        "data: diversity": diversity(real, labels),
        "test digits: recall by real ones": coverage(test.flatten(1), real),
    }

    curves = {name: [] for name in ("accuracy", "diversity", "recall", "precision")}
    pictures = {}
    table = Table(title=f"{len(labels)} digits drawn at each guidance scale")
    for column in ("scale", *curves):
        table.add_column(column, justify="right")
    for scale in SCALES:
        drawn = program.sample(
            len(labels), labels, mean=True, steps=25, guidance=float(scale), seed=0
        )
        flat = drawn.flatten(1)
        figures = {
            "accuracy": classifier.score(flat.numpy(), labels.numpy()),
            "diversity": diversity(flat, labels),
            "recall": coverage(real, flat),
            "precision": coverage(flat, real),
        }
        for name, value in figures.items():
            curves[name].append(value)
            found[f"scale {scale}: {name}"] = value
        table.add_row(str(scale), *(f"{value:.3f}" for value in figures.values()))
        pictures[scale] = {y: drawn[labels == y][: ROWS * COLUMNS, 0].numpy() for y in SHOWN}
    Console().print(table)
    print(
        f"the classifier is right on {found['test digits: accuracy']:.1%} of test digits;"
        f" two real digits of a class are {found['data: diversity']:.2f} apart;"
        f" {found['test digits: recall by real ones']:.1%} of test digits lie among real ones"
    )
    draw(out, pictures, curves, found["data: diversity"])
    print(f"picture: {out}")
    return found


if __name__ == "__main__":
    main()
