"""Split and Dataset: examples with what accompanies them, handed out in batches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .data_checks import check_seed, class_names, parts_of

CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Split:
    """Examples of one split.

    stored: uint8 levels (n, *shape), or float32 reals when ``maximum`` is None.
    conditions: what accompanies each example, in the order of ``Dataset.condition_names``: class
        labels are int64 (n,); images (n, C, H, W) are bytes, or float32 in [0, 1].
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

        Conditions that are images are float32 in [0, 1] too, level / 255. The tensors are copies.
        A dynamic split draws from the global generator of its device.
        """
        if isinstance(index, slice):
            x, *conditions = (t[index].clone() for t in (self.stored, *self.conditions))
        else:
            index = index.to(self.stored.device)
            x, *conditions = (t.index_select(0, index) for t in (self.stored, *self.conditions))
        if x.device != self.device:
            x, *conditions = (part.to(self.device) for part in (x, *conditions))
        if self.maximum is not None:
            x = _unit(x, self.maximum)
            if self.dynamic:
                x = torch.rand_like(x).lt_(x)  # four times as fast as torch.bernoulli on a CPU
        return (x, *(_unit(c, 255) if c.dtype == torch.uint8 else c for c in conditions))

    def to(self, device: torch.device | str) -> "Split":
        """This split with its batches on ``device``, and its tensors too where they fit.

        They fit a GPU if they take at most half of its free memory; else they stay where they are
        and each batch is sent over.
        """
        device = torch.device(device)
        size = sum(tensor.nbytes for tensor in (self.stored, *self.conditions))
        if device.type == "cuda" and size > torch.cuda.mem_get_info(device)[0] // 2:
            return replace(self, device=device)
        conditions = tuple(c.to(device) for c in self.conditions)
        return replace(self, stored=self.stored.to(device), conditions=conditions, device=device)


def _unit(stored: Tensor, maximum: int) -> Tensor:
    """Levels as float32 in [0, 1], in a tensor of their own."""
    x = stored.float()
    # By a tensor: CUDA divides by a Python number through its reciprocal, an ulp off.
    return x.div_(x.new_full((), maximum))


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three splits and what a model needs to know of them; made by `load_data` or `from_tensors`.

    shape: of one example: (C, H, W) for pictures, (2,) for the toys.
    levels: how many values x can take, k / (levels - 1); None for reals.
    classes: names of the classes, in the order of the labels; None without labels.
    condition_names: names of what a batch holds after x: ("y",) with labels, the name of the image
        where an image accompanies x, else ().
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

    @property
    def condition_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of what accompanies one example: () for a label, (C, H, W) for an image."""
        return tuple(tuple(condition.shape[1:]) for condition in self.train.conditions)

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
        shapes = zip(self.condition_names, self.condition_shapes, strict=True)
        images = "".join(f", each with its {name} {shape}" for name, shape in shapes if shape)
        return (
            f"Dataset({self.name}: {sizes} of shape {self.shape}, {kind}{how}{images}, {classes})"
        )

    @classmethod
    def from_tensors(
        cls,
        train,
        validation=None,
        test=None,
        *,
        levels: int | None = None,
        classes: Sequence[str] | None = None,
        condition: str | None = None,
        name: str = "tensors",
        seed: int = 0,
    ) -> "Dataset":
        """A dataset from tensors or NumPy arrays: each split is x, (x, y) or (x, image).

        x is (n, *shape) and y holds class labels, integers 0, 1, ... of shape (n,). With
        ``condition``, the name of an image that accompanies x, such as "sketch", each split is
        (x, image) instead: bytes, or floats in [0, 1], of shape (n, C, H, W). With ``levels``
        x is either floats k / (levels - 1) or integers k = 0 .. levels - 1; without, x is reals.
        Pictures have shape (n, C, H, W). A missing validation or test split is a tenth of
        ``train``, drawn with ``seed`` so that each class gives its share. ``classes`` names the
        classes ("0", "1", ... by default).

        Raises TypeError for what is no such array, ValueError for values that do not fit.
        """
        check_seed(seed)
        return assemble(name, train, validation, test, levels, classes, condition, seed)


def assemble(
    name,
    train,
    validation=None,
    test=None,
    levels=None,
    classes=None,
    condition=None,
    seed=0,
    every=10,
) -> Dataset:
    """`Dataset.from_tensors`, where a missing split is one in ``every`` of the training data."""
    if levels is not None and (type(levels) is not int or not 2 <= levels <= 256):
        raise ValueError(f"levels is {levels!r}: expected an integer from 2 to 256, or None")
    if condition is not None and not (isinstance(condition, str) and condition.strip()):
        raise TypeError(f"condition is {condition!r}: expected a name, such as 'sketch', or None")
    given = {"train": train, "validation": validation, "test": test}
    parts = {
        key: parts_of(value, levels, key, condition)
        for key, value in given.items()
        if value is not None or key == "train"
    }
    x, conditions = parts["train"]
    word = "labels" if condition is None else f"the condition {condition!r}"
    for key, (other, others) in parts.items():
        if len(others) != len(conditions):
            has, lacks = (key, "train") if others else ("train", key)
            raise ValueError(f"{has} has {word}, but {lacks} has none: give all or none")
        pairs = zip((x, *conditions), (other, *others), strict=True)
        for what, (mine, its) in zip(("examples", word), pairs, strict=False):
            if mine.shape[1:] != its.shape[1:]:
                raise ValueError(
                    f"{key} has {what} of shape {tuple(its.shape[1:])}, but train of shape "
                    f"{tuple(mine.shape[1:])}: all splits need one shape"
                )
    if condition is not None and not conditions:
        raise ValueError(f"condition is named {condition!r}, but there is none: give (x, image)")
    labels = [given[0] for _, given in parts.values() if given and condition is None]
    names = class_names(labels, classes) if labels else None
    if classes is not None and not labels:
        raise ValueError("classes are named, but there are no labels: give train=(x, y)")

    missing = [key for key in given if key not in parts]
    if missing:
        order, slot = _shares(len(x), labels[0] if labels else None, every, seed)
        if len(x) <= len(missing):
            raise ValueError(
                f"train has {len(x)} example{'s' * (len(x) > 1)}, too few to split off "
                f"{' and '.join(missing)}: give more, or give these splits"
            )
        for k, key in enumerate(missing):
            parts[key] = _take(x, conditions, order[slot == k])
        parts["train"] = _take(x, conditions, order[slot >= len(missing)])
    maximum = None if levels is None else levels - 1
    splits = {key: Split(x, conditions, maximum) for key, (x, conditions) in parts.items()}
    condition_names = (condition,) if condition is not None else ("y",) * bool(labels)
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


def _take(
    x: Tensor, conditions: tuple[Tensor, ...], index: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    index = index.to(x.device)
    return x[index], tuple(condition[index] for condition in conditions)
