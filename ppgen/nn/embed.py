"""Times and class labels as vectors, the condition of every layer of a denoiser."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEATURES = 128


def sinusoidal(time: Tensor, features: int = FEATURES) -> Tensor:
    """Sines and cosines of a time at geometrically spaced frequencies.

    [sin(1000 w_i t), cos(1000 w_i t)], w_i = 10000^(-i / (features / 2)), i = 0, 1, ...: the
    embedding of step 1000 t of a chain of 1000 steps (Vaswani et al. 2017, section 3.5; Ho et al.
    2020, appendix B). Angles reach 1000, so they are never taken in half precision.

    Args:
        time: (n,), expected in [0, 1]; other reals are embedded by the same formula.
        features: an even number.

    Returns:
        (n, features), float32, or float64 for a time in float64.
    """
    time = time if time.dtype == torch.float64 else time.float()
    index = torch.arange(features // 2, device=time.device, dtype=time.dtype)
    frequencies = 1000 * torch.exp(index * (-2 * math.log(10000) / features))
    angles = time[:, None] * frequencies  # (n, features / 2)
    return torch.cat([angles.sin(), angles.cos()], -1)


class TimeClassEmbedding(nn.Module):
    """(n,) times and optionally (n,) class labels -> (n, width).

    silu(MLP(sinusoidal(t)) + table[y]). Row `num_classes` of the table means "no class", as
    classifier-free guidance needs it (Ho and Salimans 2021); y=None means it for every example.
    Computed in the parameters' own precision also under autocast: what is lost here is lost in
    every layer, and it costs next to nothing.
    """

    def __init__(self, width: int, num_classes: int | None = None) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.first = nn.Linear(FEATURES, width)
        self.second = nn.Linear(width, width)
        if num_classes is not None:
            self.table = nn.Embedding(num_classes + 1, width)

    def forward(self, time: Tensor, y: Tensor | None = None) -> Tensor:
        with torch.autocast(time.device.type, enabled=False):
            features = sinusoidal(time).to(self.first.weight.dtype)
            embedded = self.second(F.silu(self.first(features)))
            if self.num_classes is not None:
                row = self.table.weight[self.num_classes] if y is None else self.table(y)
                embedded = embedded + row
            return F.silu(embedded)


def check_inputs(
    x: Tensor, time: Tensor, y: Tensor | None, shape: tuple[int, ...], num_classes: int | None
) -> None:
    """Refuse inputs of a denoiser by their shapes and types alone, which costs no waiting.

    Raises:
        TypeError: x or time that is not floating point, labels that are not integers.
        ValueError: another shape than (n, *shape) or (n,); labels without classes.
    """
    for name, value in (("x", x), ("time", time)):
        if not value.is_floating_point():
            raise TypeError(f"{name} must be floating point; got {value.dtype}: scale it first")
    if tuple(x.shape[1:]) != shape:
        raise ValueError(f"x must be {_row('n', *shape)} for this network; got {_row(*x.shape)}")
    if time.shape != x.shape[:1]:
        raise ValueError(
            f"time must be one number an example, ({len(x)},); got {_row(*time.shape)}: expand it"
        )
    if y is None:
        return
    if num_classes is None:
        raise ValueError("labels y were given to a network without classes: build it with them")
    if y.is_floating_point() or y.dtype == torch.bool:
        raise TypeError(f"labels y must be class indices (int64), not one-hot; got {y.dtype}")
    if y.shape != x.shape[:1]:
        raise ValueError(
            f"labels y must be one index an example, ({len(x)},); got {_row(*y.shape)}"
        )


def check_labels(y: Tensor, num_classes: int) -> None:
    """Refuse labels outside 0..num_classes, where num_classes itself means "no class".

    It reads the numbers, so it waits for the device: call it once where labels come in. A forward
    pass does not, and an index out of range there is PyTorch's own error.

    Raises:
        ValueError: a label out of range.
    """
    if not len(y):
        return
    least, most = (int(value) for value in y.aminmax())
    wrong = least if least < 0 else most
    if not 0 <= wrong <= num_classes:
        raise ValueError(
            f"label {wrong} is out of range: classes are 0..{num_classes - 1}, and {num_classes} "
            "means no class"
        )


def _row(*sizes: int | str) -> str:
    return f"({', '.join(map(str, sizes))}{',' if len(sizes) == 1 else ''})"
