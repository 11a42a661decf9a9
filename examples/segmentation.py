r"""A flower cut out of a photograph: colour models and an exact minimum cut, in turn.

Each pixel is flower, x_i = 1, or background, x_i = 0. Two mixtures of Gaussians say how likely its
colour c_i is under either, and neighbours like to be the same unless the colour changes between
them:

    E(x) = sum_i -log p(c_i | x_i) + sum_{i, j neighbours} w_ij [x_i != x_j],
    w_ij = (gamma / distance) exp(-|c_i - c_j|^2 / 2 s^2),    s^2 = the mean of |c_i - c_j|^2 / 2.

All w_ij >= 0, so that a minimum cut between two terminals finds the least E exactly (Boykov and
Jolly 2001). It starts from a rectangle: what is outside is background for certain. The mixtures are
fitted to the present segmentation, then the cut is made anew, and so on (Rother, Kolmogorov and
Blake 2004, GrabCut). Without the second term a pixel follows its own colour alone.

The photograph is scikit-learn's `flower.jpg`, halved, with noise as of a night shot: on the clean
one colour alone nearly suffices, and the noisy one is compared with what the cut makes of that.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from sklearn.datasets import load_sample_image
from sklearn.mixture import GaussianMixture

from graphs.denoising.graph_cut import minimum_cut
from graphs.pictures.picture import BLOCKED

TOP, BOTTOM, LEFT, RIGHT = 34, 186, 76, 232  # the rectangle, in the halved photograph
COMPONENTS, GAMMA, ROUNDS = 5, 16.0, 8
SETTLED = 1e-4  # the share of pixels below which a change is none
NOISE = 60.0  # standard deviation, of 255


def photograph():
    whole = load_sample_image("flower.jpg").astype(float)
    whole = whole[: whole.shape[0] // 2 * 2, : whole.shape[1] // 2 * 2]
    # (H, W, 3): the mean of each block of two by two
    return whole.reshape(len(whole) // 2, 2, -1, 2, 3).mean((1, 3))


def contrast(image):
    """w_ij down, right, down and right, down and left; gamma / distance at no contrast."""
    pairs = {
        "down": (image[1:], image[:-1], 1.0),
        "right": (image[:, 1:], image[:, :-1], 1.0),
        "down_right": (image[1:, 1:], image[:-1, :-1], np.sqrt(2)),
        "down_left": (image[1:, :-1], image[:-1, 1:], np.sqrt(2)),
    }
    squares = {name: ((a - b) ** 2).sum(-1) for name, (a, b, _) in pairs.items()}
    twice = np.concatenate([square.ravel() for square in squares.values()]).mean()  # 2 s^2
    return {
        name: GAMMA / pairs[name][2] * np.exp(-square / twice) for name, square in squares.items()
    }


def colours(image, labels, seed):
    """Mixtures for background and flower, and -log p(c | x) of both, (2, H, W)."""
    costs = []
    for label in (False, True):
        mixture = GaussianMixture(COMPONENTS, reg_covar=1.0, random_state=seed)
        mixture.fit(image[labels == label][::3])
        costs.append(-mixture.score_samples(image.reshape(-1, 3)).reshape(labels.shape))
    return np.stack(costs)


def energy(labels, costs, weights):
    """E by its definition, with the costs that both parts were fitted by."""
    x = labels
    cut = {
        "down": x[1:] != x[:-1],
        "right": x[:, 1:] != x[:, :-1],
        "down_right": x[1:, 1:] != x[:-1, :-1],
        "down_left": x[1:, :-1] != x[:-1, 1:],
    }
    rough = sum(weights[name][cut[name]].sum() for name in cut)
    return float(np.where(x, costs[1], costs[0]).sum() + rough)


def border(labels):
    """Pieces of border: pairs of neighbours, down and right, that differ."""
    return int((labels[1:] != labels[:-1]).sum() + (labels[:, 1:] != labels[:, :-1]).sum())


def segmented(image, said):
    """The last labels, costs and weights, and of each round: labels, E before and after the cut."""
    weights = contrast(image)
    inside = np.zeros(image.shape[:2], bool)
    inside[TOP:BOTTOM, LEFT:RIGHT] = True
    labels, rounds = inside, []
    for number in range(1, ROUNDS + 1):
        costs = colours(image, labels, seed=0)
        unary = np.where(inside, costs[1] - costs[0], np.inf)  # infinite: never flower
        cut = minimum_cut(unary, **weights)
        changed = float((cut.labels != labels).mean())
        before, after = (energy(x, costs, weights) for x in (labels, cut.labels))
        labels = cut.labels
        rounds.append((labels, before, after))
        if said:
            print(
                f"  round {number}: flower {labels.mean():6.2%}, {changed:6.2%} changed, "
                f"E from {before:.1f} to {after:.1f}, {cut.searched} pixels left to the flow"
            )
        if changed < SETTLED:
            break
    return labels, costs, weights, inside, rounds


def cut_out(image, labels):
    return np.where(labels[..., None], image.clip(0, 255) / 255, 1.0)


def draw(out, clean, image, costs, alone, rounds, reference):
    figure = Figure(figsize=(13.5, 6.4), layout="constrained")
    grid = figure.subplots(2, 3)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    photo = image.clip(0, 255) / 255
    ratio = costs[0] - costs[1]
    limit = np.percentile(abs(ratio), 98)
    labels = rounds[-1][0]

    def share(x):
        return f"{(x != reference).mean():.1%} unlike the clean photograph's"

    grid[0, 0].imshow(photo)
    grid[0, 0].add_patch(
        Rectangle((LEFT, TOP), RIGHT - LEFT, BOTTOM - TOP, fill=False, ec="white", lw=1.8)
    )
    shown = grid[0, 1].imshow(ratio, cmap="PuOr_r", vmin=-limit, vmax=limit)
    figure.colorbar(shown, ax=grid[0, 1], shrink=0.8, label="nats; positive is flower")
    grid[0, 2].imshow(cut_out(image, alone))
    grid[1, 0].imshow(cut_out(clean, reference))
    grid[1, 1].imshow(cut_out(image, labels))
    grid[1, 2].imshow(photo)
    grid[1, 2].contour(labels, [0.5], colors="white", linewidths=1.8)
    grid[1, 2].contour(reference, [0.5], colors=BLOCKED, linewidths=0.9)
    titles = (
        "Outside the rectangle is background",
        "Log-likelihood ratio of the last colour models",
        f"Own colour alone: {share(alone)}",
        "Minimum cut of the clean photograph",
        f"Minimum cut, round {len(rounds)}: {share(labels)}",
        "Its border (white) on the clean one's (red)",
    )
    for axes, title in zip(grid.flat, titles, strict=True):
        axes.set_title(title, loc="left", fontsize=10)
    figure.savefig(out, dpi=110)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("segmentation.png"))
    out = parser.parse_args(argv).out

    clean = photograph()
    reference = segmented(clean, said=False)[0]
    image = clean + NOISE * np.random.default_rng(0).normal(size=clean.shape)
    print(f"{image.shape[0]} x {image.shape[1]} pixels, noise of {NOISE:g} of 255")
    labels, costs, weights, inside, rounds = segmented(image, said=True)
    alone = inside & (costs[1] < costs[0])
    found = {
        "flower": float(labels.mean()),
        "rounds": len(rounds),
        "least fall of E by a cut": min(before - after for _, before, after in rounds),
        "flower outside the rectangle": float((labels & ~inside).mean()),
    }
    for title, x in (("colour alone", alone), ("round 1", rounds[0][0]), ("cut", labels)):
        found[f"unlike the clean, {title}"] = float((x != reference).mean())
        found[f"border, {title}"] = border(x)
        found[f"E, {title}"] = energy(x, costs, weights)
        print(
            f"  {title + ':':14}{(x != reference).mean():6.2%} unlike the clean photograph's, "
            f"border {border(x):5d} pieces, E = {found[f'E, {title}']:.1f} under the last models"
        )
    draw(out, clean, image, costs, alone, rounds, reference)
    print(f"picture: {out}")
    return found


if __name__ == "__main__":
    main()
