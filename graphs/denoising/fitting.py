"""h, beta and eta of the Ising energy from clean and noisy images."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..progress import Bar
from .planes import PLANES, Planes

if TYPE_CHECKING:
    from torch import Tensor

Parameters = dict[str, float]
NAMES = ("h", "beta", "eta")
FINEST = 0.02  # the last step of the search, of log beta, log eta and of h / eta


@dataclass(frozen=True, eq=False, repr=False)
class FittedIsing:
    """Parameters found in two ways, and how they do.

    They are for `denoise(image, **fitted.searched)`, with `method` and `neighbours` as in the fit.
    """

    pseudo_likelihood: Parameters
    """h, beta and eta at the maximum of the penalised pseudo-likelihood of p(x | y)."""
    searched: Parameters
    """h, beta and eta of the fewest wrong pixels that the direct search found."""
    method: str
    """Of `denoise`, that was used for the errors and for the search."""
    errors: dict[str, float]
    """The share of wrong pixels, on the images that were learned from: "noisy", of the noisy image
    itself, "pseudo_likelihood" and "searched", denoised with these parameters. The graph cut tries
    a beta below 0 as 0."""
    log_pseudo_likelihoods: dict[str, float]
    """sum_i log p(x_i | neighbours, y) in nats per pixel, of "pseudo_likelihood", "searched"."""
    evaluations: int
    """Images denoised in the search."""

    def __str__(self) -> str:
        lines = [
            f"{'':18}{'h':>9}{'beta':>9}{'eta':>9}{'wrong':>9}   log pseudo-likelihood",
            f"{'noisy':45}{self.errors['noisy']:9.3%}",
        ]
        for title in ("pseudo_likelihood", "searched"):
            numbers = "".join(f"{getattr(self, title)[name]:9.4f}" for name in NAMES)
            lines.append(
                f"{title.replace('_', '-'):18}{numbers}{self.errors[title]:9.3%}"
                f"{self.log_pseudo_likelihoods[title]:12.5f} nats/pixel"
            )
        lines.append(
            f"by {self.method}, {self.evaluations} images denoised, on the images learned from"
        )
        return "\n".join(lines)

    __repr__ = __str__


def pseudo_likelihood(
    x: "Tensor", y: "Tensor", neighbours: int, penalty: float
) -> tuple[Parameters, np.ndarray, np.ndarray]:
    """The parameters of the largest penalised pseudo-likelihood, and the data in short.

    log p(x_i | neighbours, y) depends on (x_i, their sum s, y_i) alone, so that all pixels are a
    table of counts of these; features (cells, 3) and counts (cells,) come back too.
    """
    features, counts = _counted(x, y, neighbours)
    weights = np.zeros(3)

    def objective(at: np.ndarray) -> float:
        return counts @ _log_sigma(features @ at) - penalty / 2 * at @ at

    reached = objective(weights)
    for _ in range(100):
        inverse = np.exp(_log_sigma(-features @ weights))  # 1 - sigma
        slope = features.T @ (counts * inverse) - penalty * weights
        bend = (features.T * (counts * inverse * (1 - inverse))) @ features + penalty * np.eye(3)
        step = np.linalg.solve(bend, slope)
        gain = slope @ step  # twice what Newton's step promises
        if gain <= 1e-12 * (1 + abs(reached)):
            break
        length = 1.0
        while objective(weights + length * step) < reached + 1e-4 * length * gain:
            length /= 2
            if length < 1e-10:  # as good as rounding allows
                return _named(weights), features, counts
        weights = weights + length * step
        reached = objective(weights)
    return _named(weights), features, counts


def search(
    x: "Tensor",
    y: "Tensor",
    learned: tuple[Parameters, np.ndarray, np.ndarray],
    wrong: Callable[[Parameters], float],
    free: Sequence[str],
    method: str,
    only_smooth: bool,
    evaluations: int,
    bar: Bar,
) -> FittedIsing:
    """A pattern search over the free parameters, from the better of two starts.

    beta and eta move by factors, h by parts of eta. A round tries a step up and down for each
    parameter and keeps what is better; one that finds nothing halves the steps.
    """
    weights, features, counts = learned
    flipped = float((x != y).double().mean())
    share = min(max(flipped, 1e-4), 0.4999)
    faith = math.log((1 - share) / share) / 2
    usable = dict(weights, beta=max(weights["beta"], 0.0)) if only_smooth else weights
    tried: dict[tuple[float, ...], float] = {}

    def error(parameters: Parameters) -> float:
        key = tuple(parameters[name] for name in NAMES)
        if key not in tried:
            tried[key] = wrong(parameters)
            bar.at(len(tried), f"{min(tried.values()):.3%} wrong")
        return tried[key]

    of_learned = error(usable)
    best, least = usable, of_learned
    by_noise = {"h": 0.0, "beta": faith / 2, "eta": faith}
    if error(by_noise) < least:
        best, least = by_noise, error(by_noise)
    step = 0.5
    while step >= FINEST and len(tried) < evaluations:
        before = least
        for name in free:
            for sign in (1, -1):
                if len(tried) >= evaluations:
                    break
                moved = dict(best)
                if name == "h":
                    moved["h"] += sign * step * abs(best["eta"])
                else:
                    moved[name] = (best[name] or 0.1) * math.exp(sign * step)
                if error(moved) < least:
                    best, least = moved, error(moved)
                    break
        if least == before:
            step /= 2
    found = {"pseudo_likelihood": weights, "searched": best}
    pixels = counts.sum()
    return FittedIsing(
        weights,
        best,
        method,
        {"noisy": flipped, "pseudo_likelihood": of_learned, "searched": least},
        {
            title: float(counts @ _log_sigma(features @ [at[n] for n in NAMES]) / pixels)
            for title, at in found.items()
        },
        len(tried),
    )


def _counted(x: "Tensor", y: "Tensor", neighbours: int) -> tuple[np.ndarray, np.ndarray]:
    """Features 2 x (-1, s, y), (cells, 3), and how many pixels have them, (cells,)."""
    state, observed = Planes(x, neighbours), Planes(y, neighbours)
    sizes = (2, 2 * neighbours + 1, 2)
    counts = np.zeros(sizes, np.int64)
    for plane in PLANES:
        code = (state[plane] > 0).long() * sizes[1] + state.around(plane) + neighbours
        code = code * 2 + (observed[plane] > 0)
        found = torch.bincount(code.flatten(), minlength=counts.size)
        counts += found.cpu().numpy().reshape(sizes)
    cells = np.argwhere(counts)
    sign, s, of_y = 2 * cells[:, 0] - 1, cells[:, 1] - neighbours, 2 * cells[:, 2] - 1
    features = 2.0 * sign[:, None] * np.stack([-np.ones(len(cells)), s, of_y], 1)
    return features, counts[tuple(cells.T)].astype(float)


def _log_sigma(values: np.ndarray) -> np.ndarray:
    return -np.logaddexp(0, -values)


def _named(weights: np.ndarray) -> Parameters:
    return dict(zip(NAMES, weights.tolist(), strict=True))
