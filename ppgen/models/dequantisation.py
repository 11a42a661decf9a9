"""From levels to reals and back: noise below the last digit, and the cut that removes it."""

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Transform, constraints

from ..distributions import Cell
from ..nn.bijections import BijectionTransform
from ..nn.noise_flow import NoiseFlow


class UniformDequantiser(nn.Module):
    """q(v | x) for v = (k + u) / K, u uniform on [0, 1)^D, k = (K - 1) x the level of x.

    Theis, van den Oord and Bethge (2016), section 3.1: E_u log p(v) - D log K is a bound on the
    log-probability of the levels.

    Args:
        shape: of one example.
        levels: K.
    """

    def __init__(self, shape: tuple[int, ...], levels: int) -> None:
        super().__init__()
        self.shape, self.levels = shape, levels

    def forward(self, x: Tensor) -> Any:
        return Cell(x, self.levels).to_event(len(self.shape))


class VariationalDequantiser(nn.Module):
    """q(v | x) for v = (k + u) / K, u in (0, 1)^D by a flow that reads x (Ho et al. 2019, eq. 11).

    E_q [log p(v) - log q(v | x)] is a bound on the log-probability of the levels, and tighter than
    that of uniform noise where p is not flat in a cell: u = Phi(a), a = g(eps; x), eps ~ N(0, I),
    with Phi the distribution function of N(0, 1) and g a `NoiseFlow`. Since g starts as the
    identity, u starts as uniform. Where a cell is so sharply distributed that u rounds to 0 or 1,
    v lies on the edge of the cell, and the density of the draw itself is still that of a.

    Args:
        shape: of one example.
        levels: K.
        couplings: affine couplings, each with the halves exchanged.
        hidden: width of the networks.
    """

    def __init__(
        self, shape: tuple[int, ...], levels: int, *, couplings: int = 2, hidden: int = 32
    ) -> None:
        super().__init__()
        self.shape, self.levels = tuple(shape), levels
        self.flow = NoiseFlow(self.shape, couplings, hidden)

    def forward(self, x: Tensor) -> Any:
        low = torch.round(x * (self.levels - 1)) / self.levels
        noise = dist.Normal(torch.zeros_like(low), torch.ones_like(low)).to_event(len(self.shape))
        flow = BijectionTransform(self.flow, self.shape, self.flow.features(x))
        return dist.TransformedDistribution(noise, [flow, _Cells(low, self.levels, self.shape)])


class _Cells(Transform):
    """v = low + Phi(a) / K, entry by entry."""

    bijective = True

    def __init__(self, low: Tensor, levels: int, shape: tuple[int, ...]) -> None:
        super().__init__(cache_size=1)
        self.low, self.levels, self.dims = low, levels, len(shape)
        self.domain = self.codomain = constraints.independent(constraints.real, self.dims)

    def _call(self, x: Tensor) -> Tensor:
        return self.low + torch.special.ndtr(x) / self.levels

    def _inverse(self, y: Tensor) -> Tensor:
        u = (y - self.low) * self.levels
        tiny = torch.finfo(u.dtype).eps  # rounding takes u to 0 and 1, and a little beyond
        return torch.special.ndtri(u.clamp(tiny, 1 - tiny))

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        slopes = -0.5 * x.square() - 0.5 * math.log(2 * math.pi) - math.log(self.levels)
        return slopes.flatten(-self.dims).sum(-1)

    def with_cache(self, cache_size: int = 1) -> "_Cells":
        return self
