"""What is given as data, checked once at the door and trusted from then on."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def parts_of(
    value, levels: int | None, name: str, condition: str | None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """(stored, conditions) of what was given for split ``name``: x, (x, y) or (x, image).

    Args:
        condition: the name of an image that accompanies x; None for what is then a label.
    """
    if isinstance(value, (tuple, list)):
        if len(value) not in (1, 2):
            raise TypeError(f"{name} is a tuple of {len(value)}: expected x or (x, y)")
        x, y = value[0], value[1] if len(value) == 2 else None
    else:
        x, y = value, None
    x = _stored(_tensor(x, name), levels, name)
    if y is None:
        return x, ()
    if condition is None:
        return x, (_labels(_tensor(y, f"the labels of {name}"), len(x), name, x),)
    title = f"the {condition} of {name}"
    return x, (_image(_tensor(y, title), len(x), title).to(x.device),)


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


def _image(image: Tensor, n: int, title: str) -> Tensor:
    """Conditions that are images: bytes, or floats in [0, 1]."""
    if image.ndim != 4 or len(image) != n or image.numel() == 0:
        raise ValueError(
            f"{title} has shape {tuple(image.shape)}, but there are {n:,} examples: expected "
            f"({n}, C, H, W)"
        )
    if image.dtype == torch.uint8:
        return image
    if not image.is_floating_point():
        raise TypeError(f"{title} has dtype {image.dtype}: expected uint8, or floats in [0, 1]")
    outside = ~((image >= 0) & (image <= 1))  # as it is not for NaN
    if outside.any():
        raise ValueError(
            f"{title} has {_some(outside, image)} outside [0, 1]: rescale it, or give bytes"
        )
    return image.float()


def class_names(labels: list[Tensor], classes: Sequence[str] | None) -> tuple[str, ...]:
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


def check_seed(seed: int) -> None:
    if type(seed) is not int or seed < 0:
        raise ValueError(f"seed is {seed!r}: expected an integer of at least 0")
