"""Iterated conditional modes: each pixel to its better state, until none gains (Besag 1986)."""

from typing import TYPE_CHECKING

import numpy as np
import torch

from ..progress import Bar
from .energy import Ising, Restored, total
from .planes import PLANES, Planes, flip_signs

if TYPE_CHECKING:
    from torch import Tensor


def checkerboard(
    model: Ising, y: "Tensor", start: "Tensor", limit: int | None, bar: Bar
) -> Restored:
    """ICM colour by colour on a batch (B, H, W): the energy never rises, since the pixels of a
    colour do not meet in it."""
    factor, above, below = model.thresholds()
    state, observed = Planes(start, model.neighbours), Planes(y, model.neighbours)
    slope, middle = (above - below) // 2, (above + below) // 2  # both thresholds are even
    limits = {plane: observed[plane] * slope + middle for plane in PLANES}
    energies: list[np.ndarray] = []
    while limit is None or len(energies) < limit:
        moved = False
        for plane in PLANES:
            here = state[plane]
            pull = torch.add(here, state.around(plane), alpha=factor)
            new = flip_signs(pull > limits[plane])
            moved = moved or not torch.equal(new, here)
            here.copy_(new)
        energies.append(energy_of(model, state, observed))
        bar.at(len(energies))
        if not moved:
            return Restored(state.image(), energies, converged=True)
    return Restored(state.image(), energies, converged=False)


def energy_of(model: Ising, state: Planes, observed: Planes) -> np.ndarray:
    """E of each image of a batch in planes, as `Ising.energy` of the whole images."""
    plain, pairs, agreed = np.zeros((3, state.shape[0]), np.int64)
    for i, plane in enumerate(PLANES):
        agreed += total(state[plane] * observed[plane])
        if model.h:
            plain += total(state[plane])
        if model.neighbours == 8 or i < 2:  # of four neighbours, one colour meets every pair once
            pairs += total(state[plane] * state.around(plane))
    return model.of_sums(plain, pairs // 2 if model.neighbours == 8 else pairs, agreed)


def raster(model: Ising, y: "Tensor", start: "Tensor", limit: int | None, bar: Bar) -> Restored:
    """ICM pixel by pixel, row after row, as the textbook has it (Bishop, PRML, 8.3.3)."""
    runs = [
        _raster_of_one(model, observed.numpy(), first.numpy(), limit, bar)
        for observed, first in zip(y.cpu(), start.cpu(), strict=True)
    ]
    longest = max(len(energies) for _, energies, _ in runs)
    for _, energies, _ in runs:  # an image at rest stays as it is
        energies += energies[-1:] * (longest - len(energies))
    image = torch.from_numpy(np.stack([image for image, _, _ in runs])).to(y.device)
    energies = [np.concatenate(each) for each in zip(*(run[1] for run in runs), strict=True)]
    return Restored(image, energies, converged=all(converged for _, _, converged in runs))


def _raster_of_one(
    model: Ising, y: np.ndarray, start: np.ndarray, limit: int | None, bar: Bar
) -> tuple[np.ndarray, list[np.ndarray], bool]:
    factor, above, below = model.thresholds()
    bounds = np.where(y > 0, above, below).tolist()
    rows = np.pad(start, 1).tolist()  # lists: a NumPy element takes several times as long
    sweep = _sweep_of_four if model.neighbours == 4 else _sweep_of_eight
    energies: list[np.ndarray] = []
    observed = torch.from_numpy(y)[None]
    while limit is None or len(energies) < limit:
        moved = sweep(rows, bounds, factor)
        image = np.array(rows, np.int8)[1:-1, 1:-1]
        energies.append(model.energy(torch.from_numpy(image)[None], observed))
        bar.at(len(energies))
        if not moved:
            return image, energies, True
    return image, energies, False


def _sweep_of_four(rows: list[list[int]], bounds: list[list[int]], factor: int) -> bool:
    moved = False
    for above, row, below, bound in zip(rows, rows[1:], rows[2:], bounds, strict=False):
        left = 0
        for c, limit in enumerate(bound, 1):
            old = row[c]
            around = above[c] + below[c] + left + row[c + 1]
            left = 1 if factor * around + old > limit else -1
            if left != old:
                row[c] = left
                moved = True
    return moved


def _sweep_of_eight(rows: list[list[int]], bounds: list[list[int]], factor: int) -> bool:
    moved = False
    for above, row, below, bound in zip(rows, rows[1:], rows[2:], bounds, strict=False):
        left = 0
        for c, limit in enumerate(bound, 1):
            old = row[c]
            around = left + row[c + 1] + sum(above[c - 1 : c + 2]) + sum(below[c - 1 : c + 2])
            left = 1 if factor * around + old > limit else -1
            if left != old:
                row[c] = left
                moved = True
    return moved
