"""A generative model of pictures: object, position and orientation make an image, and back.

    p(Im, Ob, Po, Or) = p(Im | Ob, Po, Or) p(Ob) p(Po) p(Or)

Ancestral sampling draws the causes, then the picture. The picture has 30 x 30 black and
white pixels, independent of each other given the causes: each is black by the share of it that the
object covers, then flipped with probability 0.15. So Im is 900 variables of the network:

    p(Im | Ob, Po, Or) = prod_j p(Im_j | Ob, Po, Or)

Bayes' rule goes the other way, from a noisy picture to what it shows, over all 360 causes:

    p(Ob, Po, Or | Im) = p(Im | Ob, Po, Or) p(Ob) p(Po) p(Or) / p(Im)

The posterior is exact, so it knows what cannot be known: a square turned by 90 degrees is the same
square, and only the prior says more.
"""

import argparse
from pathlib import Path

import networkx as nx
import numpy as np
from matplotlib.figure import Figure
from matplotlib.path import Path as Outline
from pgmpy.factors.discrete import TabularCPD
from pgmpy.models import DiscreteBayesianNetwork

from graphs import factorization, joint, log_probability, num_parameters, sample

SIDE, PLACES, REACH, FLIPPED = 30, (6, 15, 24), 5.5, 0.15  # lengths in pixels
TRIED = 200
OBJECTS = {  # corners, in units of REACH
    "triangle": [(-0.7, -0.8), (0.7, -0.8), (0, 1.1)],
    "square": [(-0.7, -0.7), (0.7, -0.7), (0.7, 0.7), (-0.7, 0.7)],
    "arrow": [(-0.3, -1), (0.3, -1), (0.3, 0.1), (0.8, 0.1), (0, 1.1), (-0.8, 0.1), (-0.3, 0.1)],
    "cross": [(-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3), (1, 0.3), (0.3, 0.3), (0.3, 1),
              (-0.3, 1), (-0.3, 0.3), (-1, 0.3), (-1, -0.3), (-0.3, -0.3)],
    "bar": [(-0.35, -1.1), (0.35, -1.1), (0.35, 1.1), (-0.35, 1.1)],
}  # fmt: skip
CAUSES = {
    "object": {"triangle": 0.25, "square": 0.2, "arrow": 0.25, "cross": 0.15, "bar": 0.15},
    "position": {
        f"{row} {column}".replace("middle centre", "centre"): weight * height
        for row, height in (("top", 0.3), ("middle", 0.4), ("bottom", 0.3))
        for column, weight in (("left", 0.3), ("centre", 0.4), ("right", 0.3))
    },
    "orientation": {
        f"{45 * i}°": p for i, p in enumerate((0.3, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1))
    },
}


def coverage(corners, place, degrees):
    """The share of each pixel that an object covers, at one of nine places: (SIDE, SIDE).

    It is turned counter-clockwise; 8 x 8 points are tried in each pixel.
    """
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    fine = (np.arange(SIDE * 8) + 0.5) / 8
    x, y = np.meshgrid(fine - PLACES[place % 3], PLACES[place // 3] - fine)  # rows run down
    points = np.stack([x.ravel(), y.ravel()], 1) / REACH
    inside = Outline(np.array(corners) @ turn).contains_points(points)
    return inside.reshape(SIDE, 8, SIDE, 8).mean((1, 3))


def clean_pictures():
    """What each of the causes would give without noise: (5, 9, 8, SIDE, SIDE)."""
    turned = [[[(c, p, 45 * i) for i in range(8)] for p in range(9)] for c in OBJECTS.values()]
    return np.array([[[coverage(*cause) for cause in a] for a in b] for b in turned])


def network(clean):
    """The causes as three variables without parents, and every pixel as their child."""
    names = {cause: list(states) for cause, states in CAUSES.items()}
    sizes = [len(states) for states in names.values()]
    pixels = [(i, j) for i in range(SIDE) for j in range(SIDE)]  # a variable's name may be a tuple
    model = DiscreteBayesianNetwork([(cause, pixel) for cause in names for pixel in pixels])
    for cause, states in CAUSES.items():
        column = [[p] for p in states.values()]
        model.add_cpds(TabularCPD(cause, len(column), column, state_names={cause: names[cause]}))
    ink = FLIPPED + (1 - 2 * FLIPPED) * clean.reshape(-1, SIDE, SIDE)  # p(pixel = 1 | causes)
    for pixel in pixels:
        one = ink[:, *pixel]
        named = {pixel: [0, 1], **names}
        model.add_cpds(TabularCPD(pixel, 2, [1 - one, one], [*names], sizes, state_names=named))
    return model


def posterior(picture, clean, prior):
    """p(causes | picture), of the shape of the prior, by Bayes' rule; and log p(picture)."""
    ink = FLIPPED + (1 - 2 * FLIPPED) * clean
    log_joint = np.log(prior) + np.where(picture, np.log(ink), np.log1p(-ink)).sum((-2, -1))
    top = log_joint.max()
    weights = np.exp(log_joint - top)
    return weights / weights.sum(), float(top + np.log(weights.sum()))


def show(axes, picture, title, size):
    axes.imshow(picture, cmap="gray_r", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=size, pad=3)


def draw(out, sheet, labels, cases):
    """Sampled pictures with their causes; and for a few pictures the posterior as bars."""
    figure = Figure(figsize=(16, 8.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.25))
    left.suptitle("Drawn: causes, then picture")
    for axes, picture, label in zip(left.subplots(5, 5).flat, sheet, labels, strict=True):
        show(axes, picture, "{}, {}\n{}".format(*label), 8)
    right.suptitle("Explained: p(cause | picture), exact (orange: the truth)")
    grid = right.subplots(len(cases), 5, width_ratios=(1.4, 1.4, 1, 1, 1))
    for row, (picture, clean, label, table) in zip(grid, cases, strict=True):
        show(row[0], picture, "picture", 9)
        show(row[1], clean, "without noise\n(never shown)", 9)
        for axis, (axes, truth) in enumerate(zip(row[2:], label, strict=True)):
            cause = list(CAUSES)[axis]
            names = list(CAUSES[cause])
            others = tuple(other for other in range(3) if other != axis)
            colours = ["C1" if name == truth else "C0" for name in names]
            axes.barh(names, table.sum(others), color=colours)
            axes.set(xlim=(0, 1.02), xticks=(0, 0.5, 1))
            axes.set_title(cause, fontsize=9)
            axes.invert_yaxis()
            axes.tick_params(labelsize=8)
            axes.grid(axis="x", alpha=0.25)
    figure.savefig(out, dpi=110)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("image_generator.png"))
    out = parser.parse_args(argv).out

    clean = clean_pictures()
    model = network(clean)
    structure = nx.DiGraph()
    structure.add_nodes_from(("Ob", "Po", "Or", "Im"))
    structure.add_edges_from((cause, "Im") for cause in ("Ob", "Po", "Or"))
    print(factorization(structure))
    count = num_parameters(model)
    print(f"with {SIDE * SIDE} pixels for Im: {count}")

    rows = sample(model, TRIED, seed=7)
    labels = list(rows[list(CAUSES)].itertuples(index=False, name=None))
    codes = [tuple(rows[cause].cat.codes.iloc[i] for cause in CAUSES) for i in range(TRIED)]
    pixels = np.stack([rows[i, j].to_numpy(int) for i in range(SIDE) for j in range(SIDE)], 1)
    pictures = pixels.reshape(TRIED, SIDE, SIDE)
    causes_alone = DiscreteBayesianNetwork()
    causes_alone.add_nodes_from(CAUSES)
    causes_alone.add_cpds(*(model.get_cpds(cause) for cause in CAUSES))
    prior = joint(causes_alone)
    shape = tuple(len(states) for states in CAUSES.values())

    tables, doubts = [], []
    right, all_right, same = np.zeros(3), 0, 0
    for picture, truth in zip(pictures, codes, strict=True):
        table, log_picture = posterior(picture, clean, prior.to_numpy().reshape(shape))
        mode = np.unravel_index(table.argmax(), shape)
        right += np.array(mode) == truth
        all_right += mode == truth
        same += np.allclose(clean[mode], clean[truth])
        tables.append(table)
        doubts.append(-(table[table > 0] * np.log(table[table > 0])).sum())
    # The network itself says the same as Bayes' rule on its parts: the last picture, all causes.
    every = {cause: prior.index.get_level_values(cause) for cause in CAUSES}
    every |= {name: np.full(len(prior), rows[name].iloc[-1]) for name in rows if name not in CAUSES}
    log_rows = log_probability(model, every)
    off = np.abs(np.exp(log_rows - log_picture).reshape(shape) - tables[-1]).max()

    found = {
        "object right": right[0] / TRIED,
        "position right": right[1] / TRIED,
        "orientation right": right[2] / TRIED,
        "all three right": all_right / TRIED,
        "all three right, as the posterior expects": float(
            np.mean([table.max() for table in tables])
        ),
        "the true picture without noise": same / TRIED,
        "mean entropy of the posterior, nats": float(np.mean(doubts)),
        "Bayes' rule against log_probability": float(off),
    }
    print(f"the mode of the posterior over {TRIED} pictures:")
    for name, value in found.items():
        print(f"  {name:42} {value:.4g}")
    sure = next(i for i, label in enumerate(labels) if label[0] == "arrow")
    turned = next(i for i, label in enumerate(labels) if label[0] == "cross")
    chosen = (sure, turned, int(np.argmax(doubts)))
    cases = [(pictures[i], clean[codes[i]], labels[i], tables[i]) for i in chosen]
    draw(out, pictures[:25], labels[:25], cases)
    print(f"picture: {out}")
    return found


if __name__ == "__main__":
    main()
