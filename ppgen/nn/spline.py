"""Monotone maps of one number with parameters of its own: affine, and rational-quadratic splines.

Parameters come first, (outputs, *shape) for values of any shape: every operation then runs along
the values, however few bins there are.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALLEST = 1e-3  # width and height of a bin, as a part of all, and slope at a knot


class Elementwise(nn.Module):
    """An increasing map of numbers, each with parameters of its own; zeros are the identity.

    Attributes:
        outputs: how many parameters a number has.
    """

    outputs: int

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """y = f(x) and log dy/dx; x of any shape, parameters (outputs, *shape)."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def solve(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """x with f(x) = y, and log dx/dy."""
        raise NotImplementedError(f"{type(self).__name__} does not define solve")


class Affine(Elementwise):
    """y = x exp(s) + t, the log-scale s = bound tanh(raw).

    Unbounded log-scales are what makes affine flows overflow in float32.
    """

    outputs = 2

    def __init__(self, bound: float = 3.0) -> None:
        super().__init__()
        self.bound = bound

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._parts(parameters)
        return torch.addcmul(shift, x, log_scale.exp()), log_scale

    def solve(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._parts(parameters)
        return (y - shift) * (-log_scale).exp(), -log_scale

    def _parts(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = parameters.unbind()  # whose gradient is one stack; that of indices is not
        return self.bound * torch.tanh(raw), shift


class RationalQuadratic(Elementwise):
    """The monotone rational-quadratic spline on [-bound, bound], the identity outside of it.

    Durkan, Bekasov, Murray and Papamakarios (2019), eqs. 4 to 8: K bins between knots (x_k, y_k)
    with slopes d_k, one at both ends. Within a bin, with t = (x - x_k) / (x_{k+1} - x_k) and the
    secant s = (y_{k+1} - y_k) / (x_{k+1} - x_k),

        y = y_k + (y_{k+1} - y_k) (s t^2 + d_k t (1 - t)) / (s + (d_k + d_{k+1} - 2 s) t (1 - t)).

    Its 3 K - 1 parameters are K pairs of a width and a height before their softmax, and the K - 1
    inner slopes before a softplus.

    Args:
        bins: K.
        bound: where the spline ends.

    Raises:
        ValueError: bins < 2 or more than widths allow, or a bound that is not positive.
    """

    below: Tensor
    place: Tensor

    def __init__(self, bins: int = 8, bound: float = 5.0) -> None:
        super().__init__()
        if not 2 <= bins <= 256:
            raise ValueError(f"bins must be from 2 to 256; got {bins}")
        if not 0 < bound < math.inf:
            raise ValueError(f"bound must be positive; got {bound}")
        self.bins, self.bound, self.outputs = bins, bound, 3 * bins - 1
        # Whole numbers, so that no number type rounds them.
        self.register_buffer("below", torch.ones(bins + 1, bins).tril(-1), persistent=False)
        self.register_buffer("place", torch.arange(bins + 1.0)[:, None], persistent=False)

    def _tables(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Knots (K + 1, 2, *shape), abscissae and ordinates, and slopes (K + 1, *shape)."""
        bins, shape = self.bins, parameters.shape[1:]
        sizes, inner = parameters.split([2 * bins, bins - 1])
        shares = sizes.reshape(bins, -1).softmax(0)  # (K, 2 * values)
        # knot_j = -bound + 2 bound sum_{k<j} (smallest + (1 - K smallest) share_k): one product.
        least = self.place * (2 * self.bound * SMALLEST) - self.bound
        free = 2 * self.bound * (1 - bins * SMALLEST)
        with torch.autocast(shares.device.type, enabled=False):  # halved, knots lose their order
            knots = torch.addmm(least, self.below, shares, alpha=free)
        # Zero is a slope of one, there and in the padding: the ends meet the identity smoothly.
        raw = F.pad(inner.reshape(bins - 1, -1), (0, 0, 1, 1))
        slopes = F.softplus(raw + math.log(math.expm1(1 - SMALLEST))) + SMALLEST
        return knots.reshape(bins + 1, 2, *shape), slopes.reshape(bins + 1, *shape)

    def _bin(self, value: Tensor, parameters: Tensor, axis: int) -> tuple[Tensor, ...]:
        """Of the bin that a value lies in along an axis: x_k, width, y_k, height, d_k, d_k+1."""
        knots, slopes = self._tables(parameters)
        index = (value >= knots.detach()[1:-1, axis]).sum(0)  # (*shape)
        both = torch.stack([index, index + 1])  # (2, *shape)
        ends = knots.gather(0, both[:, None].expand(2, 2, *value.shape))
        x0, y0, x1, y1 = ends.flatten(0, 1).unbind()
        d0, d1 = slopes.gather(0, both).unbind()
        return x0, x1 - x0, y0, y1 - y0, d0, d1

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        inside = x.abs() < self.bound
        near = x.clamp(-self.bound, self.bound)
        x0, width, y0, height, d0, d1 = self._bin(near, parameters, 0)
        secant, t = height / width, (near - x0) / width
        product = t * (1 - t)
        below = secant + (d0 + d1 - 2 * secant) * product
        y = y0 + height * (secant * t * t + d0 * product) / below
        log_slope = _log_slope(secant, t, product, below, d0, d1)
        return torch.where(inside, y, x), torch.where(inside, log_slope, 0.0)

    def solve(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        # Eqs. 6 to 8: a t^2 + b t + c = 0, its root in [0, 1] by the form that does not cancel.
        inside = y.abs() < self.bound
        near = y.clamp(-self.bound, self.bound)
        x0, width, y0, height, d0, d1 = self._bin(near, parameters, 1)
        secant, rise = height / width, near - y0
        bend = rise * (d0 + d1 - 2 * secant)
        a, b, c = height * (secant - d0) + bend, height * d0 - bend, -secant * rise
        root, first = (b * b - 4 * a * c).clamp(min=1e-30).sqrt(), b >= 0
        t = torch.where(first, 2 * c, root - b) / torch.where(first, -b - root, 2 * a)
        product = t * (1 - t)
        below = secant + (d0 + d1 - 2 * secant) * product
        log_slope = _log_slope(secant, t, product, below, d0, d1)
        return torch.where(inside, x0 + width * t, y), torch.where(inside, -log_slope, 0.0)


def _log_slope(
    secant: Tensor, t: Tensor, product: Tensor, below: Tensor, d0: Tensor, d1: Tensor
) -> Tensor:
    above = d1 * t * t + 2 * secant * product + d0 * (1 - t) ** 2
    return above.log() + 2 * (secant / below).log()
