"""Images of many levels: max-product belief propagation with truncated linear steps.

    E(x, y) = eta sum_i min((x_i - y_i)^2, data_limit)
              + beta sum_{i, j neighbours} min(|x_i - x_j|, step_limit)

over the four neighbours, with x_i one of K evenly spaced values. A message is a lower envelope of
K cones cut off at one height, found in O(K) by two passes (Felzenszwalb and Huttenlocher 2006,
section 4.1), for all pixels of a batch at once.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..progress import Bar
from .energy import Restored
from .images import pair_of_numbers, real

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Grey:
    """The energy above; see there."""

    values: "Tensor"
    """(K,), evenly spaced and rising."""
    beta: float
    eta: float
    data_limit: float
    step_limit: float

    def energy(self, x: "Tensor", y: "Tensor") -> np.ndarray:
        """(B,), of images (B, H, W) of values."""
        data = (x - y).double().square().clamp(max=self.data_limit).sum((-2, -1))
        steps = [(x[:, 1:] - x[:, :-1]), (x[:, :, 1:] - x[:, :, :-1])]
        rough = sum(s.double().abs().clamp(max=self.step_limit).sum((-2, -1)) for s in steps)
        return (self.eta * data + self.beta * rough).cpu().numpy()

    def restore(self, y: "Tensor", sweeps: int, bar: Bar) -> Restored:
        """The image of least energy among those that the sweeps decode, argmin of the beliefs.

        Args:
            y: (B, H, W), float.
        """
        values = self.values.reshape(-1, 1, 1, 1)
        data = self.eta * (values - y).square().clamp(max=self.data_limit)
        data = data.float()  # (K, B, H, W)
        slope = self.beta * float(values[1, 0, 0, 0] - values[0, 0, 0, 0])
        height = self.beta * self.step_limit
        # Messages to each pixel from the one above, below, to the left and to the right of it.
        above, below, left, right = (torch.zeros_like(data) for _ in range(4))
        energies: list[np.ndarray] = []
        image, least = y, np.full(len(y), np.inf)
        for sweep in range(sweeps):
            belief = data + above + below + left + right
            sent = [cut_envelope(belief - back, slope, height) for back in (below, above)]
            above[:, :, 1:], below[:, :, :-1] = sent[0][:, :, :-1], sent[1][:, :, 1:]
            sent = [cut_envelope(belief - back, slope, height) for back in (right, left)]
            left[..., 1:], right[..., :-1] = sent[0][..., :-1], sent[1][..., 1:]
            belief = data + above + below + left + right
            decoded = self.values[belief.argmin(0)]
            energies.append(self.energy(decoded, y))
            better = energies[-1] < least
            least = np.where(better, energies[-1], least)
            chosen = torch.as_tensor(better, device=y.device)[:, None, None]
            image = torch.where(chosen, decoded, image)
            bar.at(sweep + 1)
        return Restored(image, energies)


def model_of(
    y: "Tensor",
    is_bytes: bool,
    levels: int,
    beta: float | None,
    eta: float | None,
    noise: float | None,
    limits: tuple[float, float] | None,
) -> Grey:
    """The energy for an image, from the arguments of `denoise`."""
    if noise is None and (beta is None or eta is None):
        raise ValueError(
            "a grey image needs noise=, its standard deviation in units of the image, or beta= and "
            "eta= both"
        )
    if noise is not None:
        noise = real("noise", noise)
        if not noise > 0:
            raise ValueError(f"noise is a standard deviation above 0; got {noise!r}")
        beta = 1 / (2 * noise) if beta is None else beta
        eta = 1 / (2 * noise**2) if eta is None else eta
    beta, eta = real("beta", beta), real("eta", eta)
    if beta < 0 or eta < 0:
        raise ValueError(
            f"beta and eta of a grey image must be zero or more; got {beta:g} and {eta:g}"
        )
    low, high = (0.0, 255.0) if is_bytes else (float(y.min()), float(y.max()))
    if limits is None:
        limits = (math.inf, (high - low) / 5)
    if not pair_of_numbers(limits) or not limits[0] >= 0 or not 0 <= limits[1] < math.inf:
        raise ValueError(
            "limits are the largest squared difference and the largest step that count, zero or "
            f"more, the second finite; got {limits!r}"
        )
    values = torch.linspace(low, high, levels, dtype=y.dtype, device=y.device)
    return Grey(values, beta, eta, float(limits[0]), float(limits[1]))


def cut_envelope(costs: "Tensor", slope: float, height: float) -> "Tensor":
    """m(k) = min over l of costs(l) + min(slope |k - l|, height), less its least: (K, ...)."""
    message = costs.clone()
    for k in range(1, len(message)):
        torch.minimum(message[k], message[k - 1] + slope, out=message[k])
    for k in range(len(message) - 2, -1, -1):
        torch.minimum(message[k], message[k + 1] + slope, out=message[k])
    least = costs.amin(0)
    return torch.minimum(message, least + height, out=message).sub_(least)
