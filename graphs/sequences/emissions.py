"""What the hidden states of a Markov model emit: categories, or normally distributed numbers.

An emission holds tensors of shape (..., K, ...): axes before K are models side by side, which is
how restarts of Baum-Welch run together.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .scans import safe_log

ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-4}  # of sums that should be one
MISSING = -1


def tensor(name: str, given: Any, dtype: torch.dtype | None = None) -> Tensor:
    """A float64 or float32 tensor, the given one where it is one already.

    Raises:
        TypeError: not numbers.
    """
    if isinstance(given, Tensor) and given.dtype in ROUNDING:
        return given if dtype is None else given.to(dtype)
    try:
        return torch.as_tensor(given if isinstance(given, Tensor) else np.array(given)).to(
            dtype or torch.float64
        )
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be an array of numbers; got {type(given).__name__}") from None


def distributions(name: str, values: Tensor) -> None:
    """Check probabilities that sum to one along the last axis.

    Raises:
        ValueError: a negative entry, one that is not a number, a sum that is not one.
    """
    flat = values.detach()
    if not flat.isfinite().all() or (flat < 0).any():
        raise ValueError(f"{name} must hold probabilities; it has an entry that is negative or not "
                         "finite")  # fmt: skip
    sums = flat.sum(-1)
    off = (sums - 1).abs()
    if off.numel() and off.max() > ROUNDING[values.dtype]:
        worst = int(off.argmax())
        row = f"row {worst} of {name}" if sums.ndim else name
        raise ValueError(f"{row} sums to {float(sums.flatten()[worst]):.9g}, not to 1")


class Categorical:
    """p(x = m | z = k) = table[k, m]; observations are the integers 0 to M - 1, -1 for missing.

    Args:
        table: (K, M), each row a distribution.

    Raises:
        ValueError: a wrong shape, a row that is no distribution.
    """

    event = 0  # axes of one observation

    def __init__(self, table: Any) -> None:
        self.table = tensor("the emission table", table)
        if self.table.ndim != 2 or 0 in self.table.shape:
            raise ValueError(
                "a table of categorical emissions needs the shape (states, categories); "
                f"got {tuple(self.table.shape)}"
            )
        distributions("the emission table", self.table)

    @classmethod
    def unchecked(cls, table: Tensor) -> "Categorical":
        """Without checks, and of several models where there are axes before the states."""
        made = cls.__new__(cls)
        made.table = table
        return made

    def __repr__(self) -> str:
        return f"Categorical({self.table.shape[-2]} states, {self.table.shape[-1]} categories)"

    @property
    def states(self) -> int:
        return self.table.shape[-2]

    @property
    def parameters(self) -> dict[str, Tensor]:
        return {"table": self.table}

    def read(self, x: Any, like: Tensor) -> Tensor:
        """Observations as integers, or as floats that `checked` makes integers."""
        values = torch.as_tensor(x if isinstance(x, Tensor) else np.asarray(x)).to(like.device)
        if values.dtype == torch.bool or values.is_complex():
            raise TypeError(f"categorical observations are integers; got {values.dtype}")
        return values if values.is_floating_point() else values.long()

    def checked(self, x: Tensor) -> Tensor:
        """Integers from -1, for missing, to M - 1.

        Raises:
            TypeError: fractions.
            ValueError: outside of the categories.
        """
        if x.is_floating_point():  # a column of integers with gaps is one of floats
            whole = x.nan_to_num(nan=float(MISSING), posinf=0.5, neginf=0.5)
            if (whole != whole.round()).any():
                raise TypeError("categorical observations are integers; got fractions or inf")
            x = whole.long()
        size = self.table.shape[-1]
        if x.min() < MISSING or x.max() >= size:
            raise ValueError(
                f"observations of {size} categories are 0 to {size - 1}, or -1 where missing; "
                f"got {int(x.min())} to {int(x.max())}"
            )
        return x

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x | z = k), (..., K, *x.shape); 0 for missing observations."""
        logs = safe_log(self.table)
        missing = logs.new_zeros(*logs.shape[:-1], 1)
        padded = torch.cat([logs, missing], -1)  # the last column is also that of index -1
        index = torch.where(x == MISSING, self.table.shape[-1], x).flatten()
        return padded.index_select(-1, index).unflatten(-1, x.shape)

    def sample(self, z: Tensor, generator: torch.Generator) -> Tensor:
        """One observation for each state in z, of the same shape."""
        cumulated = self.table.detach().cumsum(-1).cpu()
        uniform = torch.rand(z.shape, generator=generator, dtype=cumulated.dtype)
        return inverse_cdf(cumulated[z.cpu()], uniform[..., None]).squeeze(-1).to(z.device)


class Gaussian:
    """p(x | z = k) = N(x; mean_k, covariance_k), of numbers or vectors; nan for missing.

    Of a vector, single coordinates may be missing too: they are marginalised.

    Args:
        mean: (K,) for numbers, (K, D) for vectors.
        scale: standard deviations, of the mean's shape; the coordinates are independent given z.
        covariance: (K, D, D) instead of `scale`.

    Raises:
        ValueError: a wrong shape, a scale that is not positive, a covariance that is not symmetric
            and positive definite.
    """

    mean: Tensor
    scale: Any  # a tensor, or None beside a covariance
    covariance: Any  # a tensor, or None beside a scale

    def __init__(self, mean: Any, scale: Any = None, covariance: Any = None) -> None:
        self.mean = tensor("mean", mean)
        if self.mean.ndim not in (1, 2) or 0 in self.mean.shape:
            raise ValueError(
                "the mean of Gaussian emissions needs the shape (states,) or (states, "
                f"coordinates); got {tuple(self.mean.shape)}"
            )
        if not self.mean.detach().isfinite().all():
            raise ValueError("the mean of Gaussian emissions has an entry that is not finite")
        if (scale is None) == (covariance is None):
            raise ValueError("Gaussian emissions need either scale or covariance, not both")
        self.scale = None if scale is None else tensor("scale", scale, self.mean.dtype)
        self.covariance = (
            None if covariance is None else tensor("covariance", covariance, self.mean.dtype)
        )
        if self.scale is not None:
            if self.scale.shape != self.mean.shape:
                raise ValueError(
                    f"scale needs the shape of the mean, {tuple(self.mean.shape)}; "
                    f"got {tuple(self.scale.shape)}"
                )
            if not (self.scale.detach().isfinite().all() and (self.scale > 0).all()):
                raise ValueError("a scale is a standard deviation: positive and finite")
        if self.covariance is not None:
            wanted = (*self.mean.shape, self.mean.shape[-1])
            if self.mean.ndim != 2 or self.covariance.shape != wanted:
                raise ValueError(
                    "covariance needs the shape (states, coordinates, coordinates) beside a mean "
                    f"of shape (states, coordinates); got {tuple(self.covariance.shape)} beside "
                    f"{tuple(self.mean.shape)}"
                )
            self._check_covariance(self.covariance.detach())

    @staticmethod
    def _check_covariance(values: Tensor) -> None:
        apart = (values - values.mT).abs().amax((1, 2))
        bad = ~(apart <= ROUNDING[values.dtype] * values.abs().amax((1, 2)))
        if bad.any():
            raise ValueError(
                f"the covariance of state {int(bad.int().argmax())} is not symmetric and finite"
            )
        failed = torch.linalg.cholesky_ex(values).info > 0
        if failed.any():
            raise ValueError(
                f"the covariance of state {int(failed.int().argmax())} is not positive definite"
            )

    @classmethod
    def unchecked(
        cls, mean: Tensor, scale: Tensor | None = None, covariance: Tensor | None = None
    ) -> "Gaussian":
        """Without checks, and of several models where there are axes before the states."""
        made = cls.__new__(cls)
        made.mean, made.scale, made.covariance = mean, scale, covariance
        return made

    def __repr__(self) -> str:
        of = f" of {self.mean.shape[-1]} coordinates" if self.event else ""
        return f"Gaussian({self.states} states{of})"

    @property
    def event(self) -> int:
        """Axes of one observation."""
        return int(self.mean.ndim > 1)

    @property
    def states(self) -> int:
        return self.mean.shape[-1 - self.event]

    @property
    def parameters(self) -> dict[str, Tensor]:
        named = {"mean": self.mean, "scale": self.scale, "covariance": self.covariance}
        return {name: value for name, value in named.items() if value is not None}

    def read(self, x: Any, like: Tensor) -> Tensor:
        """Observations as floats of the dtype and on the device of `like`."""
        return tensor("x", x, like.dtype).to(like.device)

    def checked(self, x: Tensor) -> Tensor:
        """Finite numbers, nan for missing.

        Raises:
            ValueError: other coordinates than the mean has, or infinite.
        """
        if self.event and x.shape[-1] != self.mean.shape[-1]:
            raise ValueError(
                f"observations have {x.shape[-1]} coordinates; the mean has {self.mean.shape[-1]}"
            )
        if x.isinf().any():
            raise ValueError("observations are finite numbers, or nan where missing; got inf")
        return x

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x | z = k), (..., K, *x.shape without coordinates); 0 for missing observations."""
        if not self.event:
            mean, scale = self.mean[..., None], self.scale[..., None]  # (K, 1)
            found = _normal(x.flatten(), mean, scale)
            return found.unflatten(-1, x.shape)
        shape = x.shape[:-1]
        x = x.reshape(-1, x.shape[-1])
        if self.covariance is None:
            # (M, D) against (..., K, 1, D)
            found = _normal(x, self.mean.unsqueeze(-2), self.scale.unsqueeze(-2)).sum(-1)
            return found.unflatten(-1, shape)
        known = ~x.isnan()
        if known.all():
            return self._full(x, self.mean, self.covariance).unflatten(-1, shape)
        found = self.mean.new_zeros(*self.mean.shape[:-1], len(x))
        patterns, pattern_of = known.unique(dim=0, return_inverse=True)
        for i, pattern in enumerate(patterns):  # the marginal over the coordinates that are known
            rows = (pattern_of == i).nonzero().squeeze(1)
            mean, covariance = self.mean[..., pattern], self.covariance[..., pattern, :]
            if pattern.any():
                part = self._full(x[rows][:, pattern], mean, covariance[..., pattern])
                found = found.index_copy(-1, rows, part)
        return found.unflatten(-1, shape)

    @staticmethod
    def _full(x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
        root = torch.linalg.cholesky(covariance)  # (..., K, D, D)
        centred = x.mT - mean[..., None]  # (..., K, D, M)
        white = torch.linalg.solve_triangular(root, centred, upper=False)
        half_log_det = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)[..., None]
        return -0.5 * (white.square().sum(-2) + x.shape[-1] * math.log(2 * math.pi)) - half_log_det

    def sample(self, z: Tensor, generator: torch.Generator) -> Tensor:
        """One observation for each state in z, of the same shape and with coordinates last."""
        mean = self.mean.detach()
        shape = (*z.shape, *mean.shape[1:])
        noise = torch.randn(shape, generator=generator, dtype=mean.dtype).to(mean.device)
        if self.scale is not None:
            return mean[z] + self.scale.detach()[z] * noise
        root = torch.linalg.cholesky(self.covariance.detach())
        return mean[z] + (root[z] @ noise[..., None]).squeeze(-1)


def _normal(x: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """log N(x; mean, scale^2), 0 where x is nan."""
    missing = x.isnan()
    white = (torch.where(missing, 0.0, x) - mean) / scale
    found = -0.5 * (white.square() + math.log(2 * math.pi)) - scale.log()
    return torch.where(missing, 0.0, found)


def inverse_cdf(cumulated: Tensor, uniform: Tensor) -> Tensor:
    """The index whose share of the cumulated weights (..., K) holds each uniform number (..., n).

    Never one of weight zero, whatever the rounding; K where all weights are zero.
    """
    total = cumulated[..., -1:]
    level = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulated.contiguous(), level.contiguous(), right=True)
