"""Distributions that Pyro lacks."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all


class _Levels(constraints.Constraint):
    """Values from 0 to 1 that stand for levels: their law is a probability, not a density."""

    is_discrete = True

    def check(self, value: Tensor) -> Tensor:
        return (value >= 0) & (value <= 1)


class DiscretizedLogistic(TorchDistribution):
    """A logistic distribution on K levels 0, 1/(K-1), ..., 1: a probability of levels.

    p(x) = sigmoid((x + h - loc) / scale) - sigmoid((x - h - loc) / scale) with half-width
    h = 1 / (2 (K - 1)); the lowest and highest levels take the tails, so the K probabilities sum
    to one (Kingma et al. 2016, section 3; Salimans et al. 2017, eq. 2).

    Args:
        loc: centre, on the scale of the data in [0, 1].
        log_scale: natural logarithm of the scale.
        levels: K, 2 or more.

    Raises:
        ValueError: levels < 2.
    """

    arg_constraints = {"loc": constraints.real, "log_scale": constraints.real}  # noqa: RUF012
    support = _Levels()
    has_rsample = False

    def __init__(
        self, loc: Tensor, log_scale: Tensor, levels: int, validate_args: bool | None = None
    ) -> None:
        if levels < 2:
            raise ValueError(f"levels must be 2 or more; got {levels}")
        self.loc, self.log_scale = broadcast_all(loc, log_scale)
        self.levels = levels
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: object = None) -> "DiscretizedLogistic":
        shape = torch.Size(batch_shape)
        return DiscretizedLogistic(
            self.loc.expand(shape), self.log_scale.expand(shape), self.levels, validate_args=False
        )

    def log_prob(self, value: Tensor) -> Tensor:
        half = 0.5 / (self.levels - 1)
        inverse = torch.exp(-self.log_scale)
        upper = (value + half - self.loc) * inverse
        lower = (value - half - self.loc) * inverse
        # sigmoid(u) - sigmoid(l) = sigmoid(u) sigmoid(-l) (1 - exp(l - u)): no cancellation.
        middle = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(lower - upper))
        below = value < half
        above = value > 1 - half
        return torch.where(
            below, F.logsigmoid(upper), torch.where(above, F.logsigmoid(-lower), middle)
        )

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        shape = self._extended_shape(sample_shape)
        with torch.no_grad():
            uniform = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
            uniform = uniform.clamp(1e-6, 1 - 1e-6)
            draw = self.loc + self.log_scale.exp() * (uniform.log() - torch.log1p(-uniform))
            top = self.levels - 1
            return (draw * top).round().clamp(0, top) / top

    @property
    def mean(self) -> Tensor:
        """The exact mean over levels: sum of P(x > boundary) over the K - 1 boundaries, / (K-1)."""
        total = torch.zeros_like(self.loc)
        inverse = torch.exp(-self.log_scale)
        for level in range(self.levels - 1):
            total += torch.sigmoid((self.loc - (level + 0.5) / (self.levels - 1)) * inverse)
        return total / (self.levels - 1)

    @property
    def variance(self) -> Tensor:
        first, second = torch.zeros_like(self.loc), torch.zeros_like(self.loc)
        top = self.levels - 1
        for level in range(self.levels):
            probability = self.log_prob(torch.full_like(self.loc, level / top)).exp()
            first += probability * (level / top)
            second += probability * (level / top) ** 2
        return second - first**2


def _slack(levels: int, like: Tensor) -> float:
    """In parts of a cell: how far rounding may take noise beyond the ends of its cell."""
    return max(1e-3, 4 * torch.finfo(like.dtype).eps * levels)


class Cell(TorchDistribution):
    """A real v uniform on the cell [k/K, (k+1)/K] of a level x = k / (K - 1): log q(v) = log K.

    A cell has a thousandth more at both ends for what rounding takes there, so that no draw has
    density zero.

    Args:
        level: x.
        levels: K.
    """

    arg_constraints = {"level": constraints.unit_interval}  # noqa: RUF012
    support = constraints.real
    has_rsample = True

    def __init__(self, level: Tensor, levels: int, validate_args: bool | None = None) -> None:
        self.level, self.levels = level, levels
        super().__init__(level.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: object = None) -> "Cell":
        return Cell(self.level.expand(torch.Size(batch_shape)), self.levels, validate_args=False)

    def _place(self) -> Tensor:
        return torch.round(self.level * (self.levels - 1))

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        shape = self._extended_shape(sample_shape)
        noise = torch.rand(shape, dtype=self.level.dtype, device=self.level.device)
        return (self._place() + noise) / self.levels

    def log_prob(self, value: Tensor) -> Tensor:
        inside = value * self.levels - self._place()
        slack = _slack(self.levels, inside)
        logs = torch.full_like(inside, math.log(self.levels))
        return torch.where((inside >= -slack) & (inside <= 1 + slack), logs, logs - torch.inf)

    @property
    def mean(self) -> Tensor:
        return (self._place() + 0.5) / self.levels


class Cut(TorchDistribution):
    """The level k / (K - 1) of the cell [k/K, (k+1)/K] that a real v lies in, without noise.

    p(x | v) is 1 for that level and 0 for the others: what makes levels of a density over
    [0, 1]^D. Its cells are those of `Cell`.

    Args:
        value: v; values outside [0, 1] count as the end that they are beyond when drawn from.
        levels: K.
    """

    arg_constraints = {"v": constraints.real}  # noqa: RUF012
    support = _Levels()
    has_rsample = False

    def __init__(self, value: Tensor, levels: int, validate_args: bool | None = None) -> None:
        self.v, self.levels = value, levels
        super().__init__(value.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: object = None) -> "Cut":
        return Cut(self.v.expand(torch.Size(batch_shape)), self.levels, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        inside = self.v * self.levels - torch.round(value * (self.levels - 1))
        slack, zero = _slack(self.levels, inside), torch.zeros_like(inside)
        return torch.where((inside >= -slack) & (inside <= 1 + slack), zero, zero - torch.inf)

    @property
    def mean(self) -> Tensor:
        return (self.v * self.levels).floor().clamp(0, self.levels - 1) / (self.levels - 1)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        return self.mean.expand(torch.Size(sample_shape) + self.batch_shape)
