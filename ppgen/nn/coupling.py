"""Affine coupling of images: one half of the channels moves the other."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .bijections import Bijection

Split = Literal["checkerboard", "channel"]
LOG_SCALE = 2.0  # bound of the log-scale of one coupling
PLACES = 4  # learned channels beside the input of a network


class CouplingNetwork(nn.Module):
    """(n, inputs, H, W) and a context (n, features) -> (n, outputs, H, W): zero at the start.

    Convolutions of 3x3, 1x1 and 3x3 (1x1 on a single pixel) with relu between them, the last one
    zeros (Kingma and Dhariwal 2018, section 3.3 and appendix B). Beside its input it reads a few
    learned channels, so that it knows where in the image it is; a linear map of the context is
    added after the first layer.

    Args:
        inputs: channels of the half that is read.
        outputs: channels of the answer.
        size: (H, W).
        hidden: channels inside.
        blocks: 1x1 convolutions in the middle, residual from the second on.
        context: features of the context; 0 for none.
        zero: start with a last layer of zeros.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: tuple[int, int],
        *,
        hidden: int,
        blocks: int = 1,
        context: int = 0,
        zero: bool = True,
    ) -> None:
        super().__init__()
        if blocks < 0:
            raise ValueError(f"blocks must be 0 or more; got {blocks}")
        kernel = 1 if tuple(size) == (1, 1) else 3
        self.place = nn.Parameter(torch.zeros(PLACES, *size))
        self.first = nn.Conv2d(inputs + PLACES, hidden, kernel, padding="same")
        self.context = nn.Linear(context, hidden, bias=False) if context else None
        self.middle = nn.ModuleList(nn.Conv2d(hidden, hidden, 1) for _ in range(blocks))
        self.last = nn.Conv2d(hidden, outputs, kernel, padding="same")
        for layer in (self.first, *self.middle):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # type: ignore[arg-type]
        if zero:
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]
        # Channels last: half the time of a convolution in bfloat16 on a CPU.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        place = self.place.expand(len(x), -1, -1, -1)  # (n, PLACES, H, W)
        x = torch.cat([x, place], 1).contiguous(memory_format=torch.channels_last)
        hidden = self.first(x)
        if self.context is not None:
            hidden = hidden + self.context(context)[:, :, None, None]  # (n, hidden, 1, 1)
        hidden = F.relu(hidden)
        for k, layer in enumerate(self.middle):
            moved = F.relu(layer(hidden))
            hidden = moved if k == 0 else hidden + moved
        return self.last(hidden)


class AffineCoupling(Bijection):
    """x_b = z_b exp(s(z_a)) + t(z_a), x_a = z_a (Dinh, Sohl-Dickstein and Bengio 2017, eq. 7, 8).

    The log-scale is bounded, s = 2 tanh(r / 2), so that no layer scales by more than e^2; s and t
    are zero at the start. Both directions cost one run of the network.

    The halves a and b are halves of the channels. On what `squeeze` gives, "checkerboard" takes the
    first and the last half, the white and the black fields of the image before it; "channel" takes
    the even and the odd channels, which parts other pixels.

    Args:
        network: maps z_a (n, C / 2, H, W) and the context to r, then t, (n, C, H, W); C is even.
        split: "checkerboard" or "channel".
        swap: exchange a and b.
    """

    def __init__(self, network: nn.Module, split: Split = "checkerboard", *, swap: bool) -> None:
        super().__init__()
        self.network, self.split, self.swap = network, split, swap

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        a, b = self._halves(z)
        log_scale, shift = self._affine(a, context)
        return self._joined(a, torch.addcmul(shift, b, log_scale.exp())), total(log_scale)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        a, b = self._halves(x)
        log_scale, shift = self._affine(a, context)
        return self._joined(a, (b - shift) * torch.exp(-log_scale)), -total(log_scale)

    def _affine(self, a: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        # Under autocast the network answers in half precision; what it moves is never in it.
        raw, shift = self.network(a, context).to(a.dtype).chunk(2, 1)
        return LOG_SCALE * torch.tanh(raw / LOG_SCALE), shift

    def _halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.split == "checkerboard":
            a, b = x.chunk(2, 1)
        else:
            a, b = x[:, 0::2], x[:, 1::2]
        return (b, a) if self.swap else (a, b)

    def _joined(self, a: Tensor, b: Tensor) -> Tensor:
        if self.swap:
            a, b = b, a
        if self.split == "checkerboard":
            return torch.cat([a, b], 1)
        return torch.stack([a, b], 2).flatten(1, 2)  # (n, C/2, 2, H, W) -> (n, C, H, W)


def total(log_scale: Tensor) -> Tensor:
    """The sum over all but the batch, (n,): the log-determinant of a diagonal Jacobian."""
    return log_scale.flatten(1).sum(1)
