"""Invertible layers of images: squeeze, actnorm, 1x1 convolution, and scales that factor out."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .bijections import Bijection
from .coupling import total


def squeeze(x: Tensor) -> Tensor:
    """(n, C, H, W) -> (n, 4 C, H/2, W/2): each 2x2 block's pixels become channels.

    White fields of the checkerboard first (upper left, lower right), then the black ones (upper
    right, lower left): the halves of the channels are the checkerboard masks of Dinh et al. (2017).
    """
    fields = (x[:, :, 0::2, 0::2], x[:, :, 1::2, 1::2], x[:, :, 0::2, 1::2], x[:, :, 1::2, 0::2])
    return torch.cat(fields, 1)


def unsqueeze(x: Tensor) -> Tensor:
    """(n, 4 C, H, W) -> (n, C, 2 H, 2 W), the inverse of `squeeze`."""
    upper_left, lower_right, upper_right, lower_left = x.chunk(4, 1)
    upper = torch.stack([upper_left, upper_right], -1).flatten(-2)  # (n, C, H, 2 W)
    lower = torch.stack([lower_left, lower_right], -1).flatten(-2)
    return torch.stack([upper, lower], -2).flatten(-3, -2)  # (n, C, 2 H, 2 W)


class ActNorm(Bijection):
    """x = loc + exp(log_scale) z, a number each a channel (Kingma and Dhariwal 2018, section 3.1).

    `initialise` sets both so that z has mean 0 and standard deviation 1 in each channel over that
    batch and its pixels; from there on they are ordinary parameters.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(channels, 1, 1))
        self.log_scale = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return torch.addcmul(self.loc, z, self.log_scale.exp()), self._log_det(z)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (x - self.loc) * torch.exp(-self.log_scale), -self._log_det(x)

    def _log_det(self, x: Tensor) -> Tensor:
        return (self.log_scale.sum() * (x.shape[-2] * x.shape[-1])).expand(len(x))

    @torch.no_grad()
    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        deviation, mean = torch.std_mean(x, (0, 2, 3), correction=0)
        deviation = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
        self.loc.copy_(mean[:, None, None])
        self.log_scale.copy_(deviation.log()[:, None, None])


class InvertibleConvolution(Bijection):
    """z = W x at every pixel, W = P L (U + diag(sign exp(log_scale))) (same, section 3.2, eq. 10).

    P is a fixed permutation, L lower triangular with ones, U strictly upper triangular, the signs
    are fixed: log |det W| is the sum of `log_scale`. The start is a random rotation. Computed in
    the parameters' own precision also under autocast.
    """

    permutation: Tensor
    sign: Tensor
    one: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        rotation = torch.linalg.qr(torch.randn(channels, channels))[0]
        permutation, lower, upper = torch.linalg.lu(rotation)
        diagonal = upper.diagonal()
        self.lower = nn.Parameter(lower.tril(-1))
        self.upper = nn.Parameter(upper.triu(1))
        self.log_scale = nn.Parameter(diagonal.abs().log())
        self.register_buffer("permutation", permutation)
        self.register_buffer("sign", diagonal.sign())
        self.register_buffer("one", torch.eye(channels))

    def weight(self) -> Tensor:
        """W, (C, C)."""
        upper = self.upper.triu(1) + torch.diag(self.sign * self.log_scale.exp())
        return self.permutation @ (self.lower.tril(-1) + self.one) @ upper

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        with torch.autocast(z.device.type, enabled=False):
            return self._mixed(z, torch.linalg.inv(self.weight())), -self._log_det(z)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        with torch.autocast(x.device.type, enabled=False):
            return self._mixed(x, self.weight()), self._log_det(x)

    def _mixed(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, weight[:, :, None, None])

    def _log_det(self, x: Tensor) -> Tensor:
        return (self.log_scale.sum() * (x.shape[-2] * x.shape[-1])).expand(len(x))


class Pixelwise(Bijection):
    """x = loc + exp(log_scale) z, a number each an entry, both linear in the context."""

    def __init__(self, shape: tuple[int, ...], context: int = 0) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(shape))
        self.log_scale = nn.Parameter(torch.zeros(shape))
        self.context = nn.Linear(context, 2 * shape[0], bias=False) if context else None
        if self.context is not None:
            nn.init.zeros_(self.context.weight)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        loc, log_scale = self._affine(z, context)
        return torch.addcmul(loc, z, log_scale.exp()), total(log_scale)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        loc, log_scale = self._affine(x, context)
        return (x - loc) * torch.exp(-log_scale), -total(log_scale)

    def _affine(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        loc, log_scale = self.loc, self.log_scale
        if self.context is not None:
            of_class = self.context(context).to(x.dtype)[:, :, None, None]  # (n, 2 C, 1, 1)
            loc, log_scale = loc + of_class.chunk(2, 1)[0], log_scale + of_class.chunk(2, 1)[1]
        return loc.expand_as(x), log_scale.expand_as(x)


class Scale(Bijection):
    """One scale of a multi-scale flow (Dinh et al. 2017, section 3.6): pixels to noise,

    squeeze, then `steps`, then half of the channels goes on to the next scale, `inner`, and the
    other half, standardised by `prior` given the first, is noise already. Noise keeps the shape of
    the image: halves are joined again and blocks unfolded, so that the noise of the whole flow is
    N(0, I) of that shape.

    Args:
        steps: layers on (4 C, H/2, W/2).
        prior: an `AffineCoupling` by halves on that shape, or, innermost, any layer.
        inner: on (2 C, H/2, W/2); None at the innermost scale, where all is noise.
    """

    def __init__(self, steps: Bijection, prior: Bijection, inner: Bijection | None) -> None:
        super().__init__()
        self.steps, self.prior, self.inner = steps, prior, inner

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_det = squeeze(z), z.new_zeros(len(z))
        if self.inner is not None:
            kept, out = z.chunk(2, 1)
            kept, log_det = self.inner(kept, context)
            z = torch.cat([kept, out], 1)
        z, of_prior = self.prior(z, context)
        x, of_steps = self.steps(z, context)
        return unsqueeze(x), log_det + of_prior + of_steps

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, of_steps = self.steps.inverse(squeeze(x), context)
        z, log_det = self.prior.inverse(x, context)
        log_det = log_det + of_steps
        if self.inner is not None:
            kept, out = z.chunk(2, 1)
            kept, of_inner = self.inner.inverse(kept, context)
            z, log_det = torch.cat([kept, out], 1), log_det + of_inner
        return unsqueeze(z), log_det

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        x = squeeze(x)
        self.steps.initialise(x, context)
        x, _ = self.steps.inverse(x, context)
        self.prior.initialise(x, context)
        if self.inner is not None:
            x, _ = self.prior.inverse(x, context)
            self.inner.initialise(x.chunk(2, 1)[0], context)

    def noise_scales(self, shape: tuple[int, ...]) -> Tensor:
        """Which scale each entry of the noise belongs to, 0 the finest: integers (C, H, W)."""
        channels, height, width = 4 * shape[0], shape[1] // 2, shape[2] // 2
        scales = torch.zeros(channels, height, width, dtype=torch.long)
        if self.inner is not None:
            inner = cast(Any, self.inner).noise_scales((channels // 2, height, width))
            scales = torch.cat([inner + 1, scales[channels // 2 :]])
        return unsqueeze(scales[None])[0]
