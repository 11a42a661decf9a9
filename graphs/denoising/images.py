"""What counts as an image, or as an argument, checked at the door."""

from typing import Any

import numpy as np
import torch

LARGEST = 1e15


def binary(image: Any, name: str) -> Any:
    """(B, H, W) of int8 in {-1, +1}."""
    y = tensor(image, name)
    if not y.dtype.is_signed or not bool(((y == 1) | (y == -1)).all()):
        missing = y.isnan()
        if missing.any():
            raise ValueError(
                f"{name} holds {int(missing.sum()):,} NaN; it must be of -1 and +1: fill them first"
            )
        found = y.double().unique().tolist()
        if {*found} <= {0, 1}:
            raise ValueError(
                f"{name} is of 0 and 1, or of booleans; it must be of -1 and +1: "
                "give 2 * x - 1, in a signed type such as int8"
            )
        some = ", ".join(f"{value:g}" for value in found[:5]) + (", ..." if len(found) > 5 else "")
        raise ValueError(
            f"{name} must be of -1 and +1; it holds {some}. Threshold it at some t, "
            "np.where(image > t, 1, -1), or say how many levels= a grey image has"
        )
    return y.to(torch.int8)


def tensor(image: Any, name: str) -> Any:
    """(B, H, W), on the device where the image is."""
    if isinstance(image, torch.Tensor):
        y = image.detach()
    else:
        array = np.asarray(image)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{name} must be a tensor or an array of numbers; got {array.dtype}")
        y = torch.from_numpy(np.array(array))  # a copy: an array may be read-only or reversed
    if y.ndim not in (2, 3) or not y.numel():
        raise ValueError(f"{name} must be (H, W) or (B, H, W), not empty; got {tuple(y.shape)}")
    return y if y.ndim == 3 else y[None]


def shape(image: Any) -> tuple[int, ...]:
    return tuple(np.shape(image))


def four_or_eight(neighbours: Any) -> int:
    if isinstance(neighbours, bool | str) or neighbours not in (4, 8):
        raise ValueError(f"neighbours must be 4 or 8; got {neighbours!r}")
    return int(neighbours)


def real(name: str, value: Any) -> float:
    """A number of moderate size: what is made of it stays in the range of 32-bit floats."""
    if np.ndim(value) or isinstance(value, str) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a number; got {value!r:.80}")
    number = float(value)
    if not abs(number) <= LARGEST:
        raise ValueError(
            f"{name} must be a finite number, of size {LARGEST:g} at most; got {value!r}"
        )
    return number


def pair_of_numbers(value: Any) -> bool:
    """Whether it is a pair such as (4.0, 0.1)."""
    pair = np.shape(value) == (2,)
    return pair and all(isinstance(number, int | float | np.number) for number in value)


def whole(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} must be an integer of {least} or more; got {value!r}")
