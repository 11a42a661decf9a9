"""A flow of noise that reads the data which the noise belongs to."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .bijections import Bijection
from .coupling import LOG_SCALE, AffineCoupling, CouplingNetwork, total
from .image_flow import squeeze, unsqueeze


class NoiseFlow(Bijection):
    """a = g(eps; x): an affine map of each entry, then affine couplings, all reading x.

    The context is what `features` gives of x. Pictures with even sides are taken apart into 2x2
    blocks, and the two fields of the checkerboard move each other; of all else the entries are one
    vector, and its halves do. A single entry has the affine map alone. At the start a = eps.

    Args:
        shape: of eps, a and x.
        couplings: affine couplings, each with the halves exchanged.
        hidden: width of the networks.
    """

    def __init__(self, shape: tuple[int, ...], couplings: int, hidden: int) -> None:
        super().__init__()
        self.shape, self.hidden = tuple(shape), hidden
        self.blocks = len(shape) == 3 and shape[1] % 2 == 0 and shape[2] % 2 == 0
        size = (shape[1] // 2, shape[2] // 2) if self.blocks else (1, 1)
        channels = math.prod(shape) // math.prod(size)
        self.reader = CouplingNetwork(channels, hidden, size, hidden=hidden, zero=False)
        self.affine = nn.Conv2d(hidden, 2 * channels, 1)
        nn.init.zeros_(self.affine.weight)
        nn.init.zeros_(self.affine.bias)  # type: ignore[arg-type]
        self.couplings = nn.ModuleList()
        for k in range(couplings if channels > 1 else 0):
            moved = channels // 2 if k % 2 == 0 else channels - channels // 2
            network = CouplingNetwork(
                channels - moved + hidden, 2 * moved, size, hidden=hidden, blocks=1
            )
            self.couplings.append(AffineCoupling(_Reading(network), swap=k % 2 == 1))

    def features(self, x: Tensor) -> Tensor:
        """What the layers see of x (n, *shape) in [0, 1]: (n, features)."""
        return F.relu(self.reader(self._parted(2 * x - 1))).flatten(1)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z = self._parted(z)
        log_scale, shift = self._affine(z, context)
        a, log_det = torch.addcmul(shift, z, log_scale.exp()), total(log_scale)
        for layer in self.couplings:
            a, further = layer(a, context)
            log_det = log_det + further
        return self._whole(a), log_det

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, log_det = self._parted(x), x.new_zeros(len(x))
        for layer in reversed(self.couplings):
            x, further = layer.inverse(x, context)  # type: ignore[operator]
            log_det = log_det + further
        log_scale, shift = self._affine(x, context)
        return self._whole((x - shift) * torch.exp(-log_scale)), log_det - total(log_scale)

    def _affine(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        raw, shift = self.affine(_pictures(context, x.shape[-2:])).to(x.dtype).chunk(2, 1)
        return LOG_SCALE * torch.tanh(raw / LOG_SCALE), shift

    def _parted(self, x: Tensor) -> Tensor:
        return squeeze(x) if self.blocks else x.reshape(len(x), -1, 1, 1)

    def _whole(self, x: Tensor) -> Tensor:
        return unsqueeze(x) if self.blocks else x.reshape(len(x), *self.shape)


class _Reading(nn.Module):
    """A network that reads the context as further channels."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, a: Tensor, context: Tensor | None = None) -> Tensor:
        return self.network(torch.cat([a, _pictures(context, a.shape[-2:])], 1))


def _pictures(context: Tensor | None, size: tuple[int, ...]) -> Tensor:
    if context is None:
        raise ValueError("a flow of noise reads x: give the context that `features` gives")
    return context.unflatten(1, (-1, *size))  # (n, hidden, H, W)
