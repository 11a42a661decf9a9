"""A denoiser of fully connected layers, for vectors and tiny images."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .embed import TimeClassEmbedding, check_inputs


class MLPDenoiser(nn.Module):
    """A prediction of the shape of x from a noisy x, its time, and optionally its class.

    W h_L + gate(t, y) * x, h_l = silu((1 + scale_l) W_l h_{l-1} + shift_l), h_0 = x: time and
    class scale and shift each layer. The gated copy of x carries what layers narrower than x
    cannot, such as the noise of an image. A fresh network predicts exactly zero.

    By the defaults it has 364,292 parameters for (2,).

    Args:
        shape: shape of one example, without the batch.
        hidden: widths of the layers.
        num_classes: classes of the label y; None for no label.

    Raises:
        ValueError: impossible numbers.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        hidden: Sequence[int] = (256, 256, 256),
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        if not self.shape or min(self.shape) < 1:
            raise ValueError(f"shape must be the sizes of one example, such as (2,); got {shape}")
        if not len(hidden) or min(hidden) < 1:
            raise ValueError(
                f"hidden must be widths of 1 or more, such as (256, 256); got {hidden}"
            )
        if num_classes is not None and num_classes < 1:
            raise ValueError(f"num_classes must be 1 or more; got {num_classes}")
        self.num_classes = num_classes
        size = math.prod(self.shape)
        embedding = 128
        self.embedding = TimeClassEmbedding(embedding, num_classes)
        inputs = [size, *hidden[:-1]]
        pairs = list(zip(inputs, hidden, strict=True))
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairs)
        self.modulations = nn.ModuleList(nn.Linear(embedding, 2 * width) for width in hidden)
        self.last = nn.Linear(hidden[-1], size)
        self.gate = nn.Linear(embedding, size)
        for layer in (self.last, self.gate):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self, x: Tensor, time: Tensor, y: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        """The prediction, (n, *shape), in the precision of x.

        Args:
            x: noisy examples (n, *shape), values of about unit size.
            time: (n,), expected in [0, 1] (see `sinusoidal`).
            y: (n,) class indices; `num_classes` means no class, as does None for all.
            context: not taken, only refused.

        Raises:
            TypeError, ValueError: inputs of another type or shape, a context.
        """
        check_inputs(x, time, y, self.shape, self.num_classes)
        if context is not None:
            raise ValueError("this network takes no context: use the U-Net with context_dim")
        condition = self.embedding(time, y)
        flat = x.flatten(1)
        hidden = flat
        for layer, modulation in zip(self.layers, self.modulations, strict=True):
            scale, shift = modulation(condition).chunk(2, -1)
            hidden = F.silu(torch.addcmul(shift, layer(hidden), 1 + scale))
        prediction = self.last(hidden) + self.gate(condition) * flat
        return prediction.unflatten(-1, self.shape).to(x.dtype)
