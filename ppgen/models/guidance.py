"""What goes around a denoiser: thresholds and classifier-free guidance."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ..names import one_of

Denoiser = Callable[[Tensor, Tensor], Tensor]


def thresholded(
    denoise: Denoiser, how: Literal["clip", "dynamic"], *, quantile: float = 0.995
) -> Denoiser:
    """A denoiser whose x_0 stays within [-1, 1], the range of the data.

    "clip" cuts it off. "dynamic" cuts off at s, the quantile of |x_0| in an example but at least 1,
    and divides by s, which keeps guided images from saturating (Saharia et al. 2022, section 2.3).

    Raises:
        ValueError: another name, a quantile outside (0, 1].
    """
    one_of("threshold", how, ("clip", "dynamic"))
    if not 0 < quantile <= 1:
        raise ValueError(f"quantile must lie in (0, 1]; got {quantile}")

    def inside(x: Tensor, t: Tensor) -> Tensor:
        x0 = denoise(x, t)
        if how == "clip":
            return x0.clamp(-1, 1)
        size = x0.flatten(1).abs()  # (n, D)
        edge = size.kthvalue(math.ceil(quantile * size.shape[1]), dim=1).values.clamp(min=1)
        edge = edge.view(-1, *[1] * (x0.dim() - 1))  # (n, 1, ...)
        return x0.clamp(-edge, edge) / edge

    return inside


def guided(
    denoise: Callable[[Tensor, Tensor, Tensor], Tensor],
    condition: Tensor,
    without: Tensor,
    scale: float,
) -> Denoiser:
    """Classifier-free guidance (Ho and Salimans 2022, eq. 6, with scale = 1 + w).

    eps = eps(x, without) + scale (eps(x, condition) - eps(x, without)). Since eps is linear in x_0
    given x and the weights sum to 1, this is the same combination of the two x_0. Scale 0 leaves
    the condition out, 1 is the conditional denoiser, each with a plain call; any other scale makes
    one call with 2 n examples.

    Args:
        denoise: `denoise(x, t, condition)`.
        condition: such as labels (n,), or an embedded text (n, L, D).
        without: of the same shape, what stands for no condition.

    Raises:
        ValueError: a negative or infinite scale, conditions of unlike shapes.
    """
    if not (math.isfinite(scale) and scale >= 0):
        raise ValueError(f"the guidance scale must be finite and 0 or more; got {scale}")
    if condition.shape != without.shape:
        raise ValueError(
            f"the conditions with and without must have one shape; got {tuple(condition.shape)} "
            f"and {tuple(without.shape)}"
        )
    if scale in (0, 1):
        chosen = condition if scale else without
        return lambda x, t: denoise(x, t, chosen)
    both = torch.cat([condition, without])

    def combined(x: Tensor, t: Tensor) -> Tensor:
        with_it, without_it = denoise(torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)
        return without_it + scale * (with_it - without_it)

    return combined
