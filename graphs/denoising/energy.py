"""The energy of a binary image x given a noisy one y, and when a pixel gains by a flip."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

# (rows, columns) to the neighbours that come later in raster order: each pair is met once.
LATER = {4: ((0, 1), (1, 0)), 8: ((0, 1), (1, 0), (1, 1), (1, -1))}


@dataclass(frozen=True)
class Ising:
    """E(x, y) = h sum_i x_i - beta sum_{i, j neighbours} x_i x_j - eta sum_i x_i y_i, in nats.

    x and y are in {-1, +1}; p(x | y) is in proportion to exp(-E). An image's border has fewer
    neighbours.
    """

    h: float
    beta: float
    eta: float
    neighbours: int

    def energy(self, x: "Tensor", y: "Tensor") -> np.ndarray:
        """E of each image of a batch, (B, H, W) of int8 to (B,); the sums are exact integers."""
        pairs = np.zeros(len(x), np.int64)
        for offset in LATER[self.neighbours]:
            first, second = sides(offset)
            pairs += total(x[:, *first] * x[:, *second])
        return self.of_sums(total(x), pairs, total(x * y))

    def of_sums(self, plain: np.ndarray, pairs: np.ndarray, agreed: np.ndarray) -> np.ndarray:
        """E from sum_i x_i, sum_{ij} x_i x_j and sum_i x_i y_i."""
        return self.h * plain - self.beta * pairs - self.eta * agreed

    def thresholds(self) -> tuple[int, int, int]:
        """When a pixel is better off at +1, in integers: (factor, threshold at y = +1, at y = -1).

        With s the sum of a pixel's neighbours, +1 has the lower energy where beta s + eta y - h is
        positive, and equal energies keep the pixel. All of that is

            new x_i = +1 where factor * s + x_i > threshold(y_i), else -1:

        the factor is 4 times the sign of beta, and the threshold 4 k where s = k is a tie (x_i then
        decides) or 4 k + 2 where the change falls between k and k + 1.
        """
        sign = int(np.sign(self.beta))
        return 4 * sign, self._threshold(1), self._threshold(-1)

    def _threshold(self, y: int) -> int:
        reach = self.neighbours if self.beta else 0
        for k in range(-reach, reach + 1):
            force = abs(self.beta) * k + self.eta * y - self.h
            if force >= 0:  # it rises with k: this is the first that is not negative
                return 4 * k if force == 0 else 4 * k - 2
        return 4 * reach + 2


@dataclass(frozen=True, eq=False)
class Restored:
    """What a method makes of a batch of images."""

    image: "Tensor"
    """(B, H, W) in {-1, +1}, int8."""
    energies: list[np.ndarray]
    """(B,) after each sweep, of the state that the method was in."""
    converged: bool | None = None
    """Whether it came to rest; None for methods that do not."""
    rounding: np.ndarray | None = None
    """(B,): the energy is at most so far above the minimum; None where nothing is known."""
    probabilities: "Tensor | None" = None
    """(B, H, W): p(x_i = +1 | y) as the method has it."""


def total(values: "Tensor") -> np.ndarray:
    """Exact sums of the images of a batch of small integers, (B, H, W) to (B,)."""
    import torch

    # A row fits in 32 bits, which torch adds three times as fast as 64.
    return values.sum(-1, dtype=torch.int32).sum(-1).cpu().numpy()


def sides(offset: tuple[int, int]) -> tuple[Any, Any]:
    """The slices of an image that hold the first and the second pixel of each pair."""
    down, right = offset
    rows = (slice(None, -down or None), slice(down, None))
    if right < 0:
        return (rows[0], slice(-right, None)), (rows[1], slice(None, right))
    return (rows[0], slice(None, -right or None)), (rows[1], slice(right, None))
