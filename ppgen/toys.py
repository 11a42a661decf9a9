"""The toys: points of the plane of roughly unit scale, labelled by the piece they belong to."""

from collections.abc import Callable
from functools import partial

import numpy as np


def _moons(rng: np.random.Generator, y: np.ndarray) -> np.ndarray:
    angle, sign = np.pi * rng.random(len(y)), 1 - 2 * y
    x = np.stack([sign * (np.cos(angle) - 0.5), sign * (np.sin(angle) - 0.25)], axis=1)
    return x + 0.06 * rng.standard_normal(x.shape)


def _rings(rng: np.random.Generator, y: np.ndarray) -> np.ndarray:
    angle = 2 * np.pi * rng.random(len(y))
    x = 0.5 * (1 + y)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return x + 0.05 * rng.standard_normal(x.shape)


def _pinwheel(rng: np.random.Generator, y: np.ndarray) -> np.ndarray:
    radius = 1 + 0.3 * rng.standard_normal(len(y))
    across = 0.1 * rng.standard_normal(len(y))
    angle = 2 * np.pi * y / 5 + 0.25 * np.exp(radius)  # the farther out, the more it is bent
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([radius * cos - across * sin, radius * sin + across * cos], axis=1)


def _load(
    name: str, points: Callable, pieces: int, location: str, size: int | None, seed: int
) -> dict:
    if size is not None:
        raise ValueError(f"size={size} is for pictures, but {name} is points: leave size out")
    y = np.arange(10_000) % pieces
    x = points(np.random.default_rng([seed, 3]), y).astype(np.float32)
    return {"name": name, "train": (x, y)}


# By name; each is called as the loaders of `ppgen.images` are, with (location, size, seed).
moons = partial(_load, "moons", _moons, 2)
rings = partial(_load, "rings", _rings, 3)
pinwheel = partial(_load, "pinwheel", _pinwheel, 5)
