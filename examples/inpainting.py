r"""Half a digit given, the other half drawn: inpainting by an unconditional diffusion model.

The network knows nothing of masks. In every step of the chain the known pixels are replaced by the
datum with the noise of that level, and the rest comes from the model:

    x_s = known, noised by q(x_s | x_0),          where the mask says so
          a draw of p(x_s | x_t),                 elsewhere

The drawn part then answers to the known part of x_t only, and was drawn without seeing that of x_s:
after one pass the halves fit badly. Going back by fresh noise, q(x_t | x_s), and down again lets
each half see the other; RePaint (Lugmayr et al. 2022) does so `resample` times in each step, for as
many more calls of the network.

    consistency   how often a 3-nearest-neighbour classifier sees the true digit in a completion;
                  with the given half alone, such a classifier is right as often as it says below
    seam          mean step of grey across the border of the halves, |x_below - x_above|
    distance      to the nearest digit of the training data, in pixels: what fits badly is far away
    diversity     distance of two completions of one half: more than one lower half is right

The test digits' own figures stand beside them, and those of another digit's half, which ignores the
given one.
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

HALF = 4  # rows given, of 8
DIGITS, COMPLETIONS = 60, 4
SHOWN = 8
PASSES = (1, 10)


def train(data):
    program = ppgen.Diffusion(
        data.shape, timesteps=100, schedule="cosine", predict="v", weighting="simple",
        network="mlp", hidden=(256, 256), levels=data.levels,
    )  # fmt: skip
    ppgen.fit(
        program, data, steps=800, batch_size=128, lr=3e-3, ema=0.99, device="cpu",
        validate_epochs=0, progress=False,
    )  # fmt: skip
    return program


def measure(x, labels, classifier, train):
    """Figures of x, shape (DIGITS, completions, 1, 8, 8)."""
    flat = x.flatten(0, 1).flatten(1)
    each = labels.repeat_interleave(x.shape[1])
    figures = {
        "consistency": classifier.score(flat.numpy(), each.numpy()),
        "seam": (x[..., HALF, :] - x[..., HALF - 1, :]).abs().mean().item(),
        "distance": torch.cdist(flat, train).min(1).values.mean().item(),
    }
    if x.shape[1] > 1:
        apart = [torch.pdist(some.flatten(1)).mean().item() for some in x]
        figures["diversity"] = float(np.mean(apart))
    return figures


def draw(out, x, completions, figures):
    figure = Figure(figsize=(13.5, 7.4), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(2.3, 1))
    panels = left.subplots(2 + 2 * len(PASSES), SHOWN)
    rows = [("digit", x, False), ("given", x, True)]
    for passes in PASSES:
        name = f"resample {passes}"
        rows += [(name, completions[passes][:, k], False) for k in range(2)]
    for row, (name, pictures, hidden) in zip(panels, rows, strict=True):
        for axes, picture in zip(row, pictures, strict=False):
            shown = picture[0].numpy().copy()
            if hidden:
                shown[HALF:] = np.nan
                axes.set_facecolor("#cfe3f1")
            axes.imshow(shown, cmap="gray_r", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
            if name.startswith("resample"):
                axes.axhline(HALF - 0.5, color="C3", lw=0.8)
        row[0].set_ylabel(name, fontsize=11)

    names = ("consistency", "seam", "distance")
    for axes, name in zip(right.subplots(3, 1), names, strict=True):
        values = [figures[kind][name] for kind in figures]
        colours = ["0.75", *("C1", "C0"), "0.45"]
        bars = axes.barh(range(len(values)), values, color=colours)
        axes.bar_label(bars, fmt="%.2f", padding=3)
        axes.set_yticks(range(len(values)), list(figures))
        axes.set(title=name, xlim=(0, 1.2 * max(values)), xticks=[])
        axes.invert_yaxis()
        axes.spines[["top", "right", "bottom"]].set_visible(False)
    figure.savefig(out, dpi=100)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("inpainting.png"))
    out = parser.parse_args(argv).out
    pyro.set_rng_seed(0)

    data = ppgen.load_data("digits")
    program = train(data)
    train_x, train_y = data.train.batch(slice(0, None))
    flat = train_x.flatten(1)
    classifier = KNeighborsClassifier(3).fit(flat.numpy(), train_y.numpy())
    x, labels = data.test.batch(slice(0, DIGITS))
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[:, :HALF] = True

    known = x.repeat_interleave(COMPLETIONS, 0)
    completions = {}
    for passes in PASSES:
        drawn = program.sample(
            len(known), known=known, mask=mask, resample=passes, mean=True, seed=0
        )
        completions[passes] = drawn.unflatten(0, (DIGITS, COMPLETIONS))
    # another digit's lower half
    other = train_x[torch.randint(len(train_x), (len(known),))]
    blind = torch.where(mask, known, other).unflatten(0, (DIGITS, COMPLETIONS))
    kinds = {"another's half": blind}
    kinds |= {f"resample {passes}": completions[passes] for passes in PASSES}
    kinds["test digits"] = x[:, None]

    figures = {kind: measure(of, labels, classifier, flat) for kind, of in kinds.items()}
    found = {f"{kind}: {name}": v for kind, some in figures.items() for name, v in some.items()}
    half = KNeighborsClassifier(3).fit(train_x[:, :, :HALF].flatten(1).numpy(), train_y.numpy())
    found["given half alone: consistency"] = half.score(
        x[:, :, :HALF].flatten(1).numpy(), labels.numpy()
    )
    kept = max((completions[passes] - x[:, None])[..., :HALF, :].abs().max() for passes in PASSES)
    found["largest change of what is given"] = kept.item()
    table = Table(title=f"{DIGITS} test digits, {COMPLETIONS} completions each")
    for column in ("lower half", "consistency", "seam", "distance", "diversity"):
        table.add_column(column, justify="left" if column == "lower half" else "right")
    for kind, some in figures.items():
        table.add_row(kind, *(f"{value:.3f}" for value in some.values()))
    Console().print(table)
    print(
        "from the given half alone a classifier is right"
        f" {found['given half alone: consistency']:.1%} of the time; what is given changed by"
        f" {found['largest change of what is given']:.0e}"
    )
    draw(out, x, completions, figures)
    print(f"picture: {out}")
    return found


if __name__ == "__main__":
    main()
