"""Invertible layers with a cheap Jacobian, their composition, and the way to Pyro's transforms."""

import math
from collections.abc import Iterable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Transform, constraints


class Bijection(nn.Module):
    """An invertible map x = f(z; context), from noise z to data x, with its log-determinant.

    Subclasses define both directions. Each takes a batch (n, *event) and a context (n, features),
    or None, and gives the image with log |det Jacobian| of that very direction, (n,) in nats. That
    of `inverse` is what density training runs: write the layer so that it is the fast one, or take
    `Inverted` of it.
    """

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x = f(z) and log |det dx/dz|."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """z with f(z) = x, and log |det dz/dx|."""
        raise NotImplementedError(f"{type(self).__name__} does not define inverse")

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Set parameters that start from a batch of data; by default there are none."""


class Chain(Bijection):
    """f = f_L o ... o f_1, the first layer next to the noise; log-determinants add up."""

    def __init__(self, layers: Iterable[Bijection]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = z.new_zeros(len(z))
        for layer in self.layers:
            z, log_det = layer(z, context)
            total = total + log_det
        return z, total

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(len(x))
        for layer in reversed(self.layers):
            x, log_det = cast(Bijection, layer).inverse(x, context)
            total = total + log_det
        return x, total

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        for layer in reversed(self.layers):
            cast(Bijection, layer).initialise(x, context)
            x, _ = cast(Bijection, layer).inverse(x, context)


class Inverted(Bijection):
    """The same map the other way round: its `forward` is the layer's `inverse`."""

    def __init__(self, layer: Bijection) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.layer.inverse(z, context)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.layer(x, context)


class Flattened(Bijection):
    """A bijection of vectors on examples of any shape, read row by row.

    Args:
        layer: over (n, prod(shape)).
        shape: of one example.
    """

    def __init__(self, layer: Bijection, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.layer, self.shape = layer, tuple(shape)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, log_det = self.layer(z.flatten(1), context)
        return x.reshape(-1, *self.shape), log_det

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_det = self.layer.inverse(x.flatten(1), context)
        return z.reshape(-1, *self.shape), log_det

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        self.layer.initialise(x.flatten(1), context)


class Standardise(Bijection):
    """x = loc + scale z with the mean and standard deviation of the first batch, one a dimension.

    Not trained: it spares the layers above the units of the data.

    Args:
        shape: of x.
        floor: a share of the largest scale that none goes below, for dimensions in one unit: those
            that hardly vary in the first batch may do so later.
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, shape: tuple[int, ...], floor: float = 0.0) -> None:
        super().__init__()
        self.floor = floor
        self.register_buffer("loc", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.loc + self.scale * z, self.scale.log().sum().expand(len(z))

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (x - self.loc) / self.scale, -self.scale.log().sum().expand(len(x))

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        mean, deviation = location_and_scale(x)
        self.loc.copy_(mean)
        self.scale.copy_(deviation.clamp(min=self.floor * deviation.max()))


def location_and_scale(x: Tensor) -> tuple[Tensor, Tensor]:
    """Means and standard deviations of data (n, *shape); of constants the deviation counts as one.

    Constant but for rounding: a deviation below a millionth of the size of the numbers is none.
    """
    mean = x.mean(0)
    deviation = x.std(0, unbiased=False)
    least = 1e-6 * x.abs().amax(0)
    return mean, torch.where(deviation > least, deviation, torch.ones_like(deviation))


class Logistic(Bijection):
    """x = (sigmoid(z) - margin) / (1 - 2 margin): pictures in [0, 1] from the whole line.

    Its inverse is z = logit(margin + (1 - 2 margin) x) (Dinh, Sohl-Dickstein and Bengio 2017,
    section 4.1), finite on all of [0, 1]; the noise beyond maps just outside of it.
    """

    def __init__(self, margin: float = 0.05) -> None:
        super().__init__()
        if not 0 < margin < 0.5:
            raise ValueError(f"margin must lie between 0 and 0.5; got {margin}")
        self.margin = margin

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = (torch.sigmoid(z) - self.margin) / (1 - 2 * self.margin)
        return x, self._log_det(z)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        inside = self.margin + (1 - 2 * self.margin) * x
        z = torch.log(inside) - torch.log1p(-inside)
        return z, -self._log_det(z)

    def _log_det(self, z: Tensor) -> Tensor:
        slopes = F.logsigmoid(z) + F.logsigmoid(-z) - math.log(1 - 2 * self.margin)
        return slopes.flatten(1).sum(1)


class BijectionTransform(Transform):
    """A `Bijection` under one context as a transform of PyTorch and Pyro, for one use.

    Made anew for each distribution, so that what it remembers of a call (the log-determinant that
    came with the image, which `TransformedDistribution` asks for next) never outlives it. Leading
    dimensions of particles are joined with the batch for the layer, and parted again.

    Args:
        bijection: the map.
        shape: of one event.
        context: (..., n, features), or None.
    """

    bijective = True

    def __init__(
        self, bijection: Bijection, shape: tuple[int, ...], context: Tensor | None = None
    ) -> None:
        super().__init__(cache_size=1)
        self.bijection, self.shape, self.context = bijection, tuple(shape), context
        self.domain = self.codomain = constraints.independent(constraints.real, len(self.shape))
        self._log_det: Tensor | None = None

    def _run(self, direction: Any, value: Tensor) -> tuple[Tensor, Tensor]:
        batch = value.shape[: value.dim() - len(self.shape)]
        context = self.context
        if context is not None:
            context = context.expand(*batch, context.shape[-1]).reshape(-1, context.shape[-1])
        image, log_det = direction(value.reshape(-1, *self.shape), context)
        return image.reshape(*batch, *self.shape), log_det.reshape(batch)

    def _call(self, x: Tensor) -> Tensor:
        image, self._log_det = self._run(self.bijection, x)
        return image

    def _inverse(self, y: Tensor) -> Tensor:
        image, log_det = self._run(self.bijection.inverse, y)
        self._log_det = -log_det
        return image

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        known = self._cached_x_y
        if self._log_det is None or known[0] is not x or known[1] is not y:
            return self._run(self.bijection, x)[1]
        return self._log_det

    def with_cache(self, cache_size: int = 1) -> "BijectionTransform":
        return self
