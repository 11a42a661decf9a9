"""Networks where they are only asked, as in sampling: in bfloat16 where the machine has it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch import nn

from ..names import one_of

Precision = Literal["auto", "32-true", "bf16-mixed"]


def native_bf16(device: torch.device) -> bool:
    """Whether the device has bfloat16 arithmetic of its own: emulated, it only loses digits."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    has = torch.cpu.get_capabilities()
    return any(has.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def resolved(precision: Precision, network: nn.Module, device: torch.device) -> Precision:
    """The precision itself, and for "auto" the one chosen, "32-true" or "bf16-mixed".

    "auto" is bfloat16 for networks with convolutions on devices that have it natively. What is
    without them, such as an MLP on points of the plane, gains no time and may need the digits.

    Raises:
        ValueError: an unknown precision.
    """
    one_of("precision", precision, get_args(Precision))
    if precision != "auto":
        return precision
    convolves = any(
        isinstance(part, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) for part in network.modules()
    )
    return "bf16-mixed" if convolves and native_bf16(device) else "32-true"


@contextmanager
def inference_precision(
    precision: Precision, network: nn.Module, device: torch.device
) -> Iterator[None]:
    """Inside, the convolutions and products of `network` run in a precision; see `resolved`.

    Whatever autocast the caller has on makes no difference.

    Raises:
        ValueError: an unknown precision.
    """
    chosen = resolved(precision, network, device)
    with torch.autocast(device.type, torch.bfloat16, enabled=chosen == "bf16-mixed"):
        yield
