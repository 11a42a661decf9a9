"""What a diffusion network predicts, and how one prediction becomes another.

With x = signal x_0 + noise eps, signal^2 = sigmoid(log SNR) and noise^2 = sigmoid(-log SNR), the
noise eps, the datum x_0, v = signal eps - noise x_0 (Salimans and Ho 2022, section 4) and the
score -eps / noise of q(x | x_0) are linear functions of each other given x. So is the mean of
q(x_s | x_t, x_0), which belongs to a step from t back to s.

Arguments `log_snr` have the batch axes of x, such as (n,) for x of shape (n, *shape), or no axes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..names import one_of

PREDICTIONS = ("noise", "x0", "v", "mean", "score")


def scales(log_snr: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Signal and noise, shaped so that they broadcast with x."""
    log_snr = over(log_snr, x)
    return torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()


def over(value: Tensor, x: Tensor) -> Tensor:
    """A tensor with the leading axes of x, with the axes of an example added: (n,) -> (n, 1, 1)."""
    return value.reshape(value.shape + (1,) * (x.dim() - value.dim()))


def to_x0(prediction: Tensor, x: Tensor, log_snr: Tensor, predict: str) -> Tensor:
    """x_0 as a prediction of kind "noise", "x0", "v" or "score" at x implies it.

    Raises:
        ValueError: another kind ("mean" needs the next step: `mean_to_x0`).
    """
    _known(predict)
    signal, noise = scales(log_snr, x)
    if predict == "noise":
        return (x - noise * prediction) / signal
    if predict == "v":
        return signal * x - noise * prediction
    if predict == "score":
        return (x + noise**2 * prediction) / signal
    return prediction


def from_x0(x0: Tensor, x: Tensor, log_snr: Tensor, predict: str) -> Tensor:
    """The inverse of `to_x0`: what a network of that kind should predict at x for the datum x_0.

    Raises:
        ValueError: as `to_x0`.
    """
    _known(predict)
    signal, noise = scales(log_snr, x)
    if predict == "noise":
        return (x - signal * x0) / noise
    if predict == "v":
        return (signal * x - x0) / noise
    if predict == "score":
        return (signal * x0 - x) / noise**2
    return x0


def to_noise(prediction: Tensor, x: Tensor, log_snr: Tensor, predict: str) -> Tensor:
    """eps as a prediction of kind "noise", "x0", "v" or "score" at x implies it.

    Raises:
        ValueError: as `to_x0`.
    """
    _known(predict)
    signal, noise = scales(log_snr, x)
    if predict == "x0":
        return (x - signal * prediction) / noise
    if predict == "v":
        return noise * x + signal * prediction
    if predict == "score":
        return -noise * prediction
    return prediction


def posterior(
    x: Tensor, x0: Tensor, log_snr: Tensor, log_snr_before: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of q(x_s | x_t, x_0) for s < t, each broadcast to x's shape.

    With alpha = abar_t / abar_s (alpha_t of one step), the mean is
    [sqrt(alpha) (1 - abar_s) x_t + sqrt(abar_s) (1 - alpha) x_0] / (1 - abar_t) and the variance
    (1 - alpha) (1 - abar_s) / (1 - abar_t) (Ho, Jain and Abbeel 2020, eq. 6 and 7); computed from
    log SNR without cancellation (Kingma et al. 2021, appendix A.4).

    Args:
        log_snr: at t.
        log_snr_before: at s; infinite where x_s is the datum, which gives mean x_0 and 0.
    """
    of_x, of_x0, scale = _posterior(x, log_snr, log_snr_before)
    return of_x * x + of_x0 * x0, scale.expand_as(x)


def x0_to_mean(x0: Tensor, x: Tensor, log_snr: Tensor, log_snr_before: Tensor) -> Tensor:
    """The mean of q(x_s | x_t, x_0); see `posterior`."""
    return posterior(x, x0, log_snr, log_snr_before)[0]


def mean_to_x0(mean: Tensor, x: Tensor, log_snr: Tensor, log_snr_before: Tensor) -> Tensor:
    """The inverse of `x0_to_mean`: the x_0 for which q(x_s | x_t, x_0) has this mean."""
    of_x, of_x0, _ = _posterior(x, log_snr, log_snr_before)
    return (mean - of_x * x) / of_x0


def _posterior(x: Tensor, log_snr: Tensor, before: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The factors of x_t and x_0 in the mean, and the standard deviation."""
    log_snr, before = over(log_snr, x), over(before, x)
    fresh = -torch.expm1(log_snr - before)  # 1 - SNR(t) / SNR(s)
    # log abar = -softplus(-log SNR)
    alpha = torch.exp(F.softplus(-before) - F.softplus(-log_snr))
    variance = torch.sigmoid(-before)
    of_x = alpha.sqrt() * variance / torch.sigmoid(-log_snr)
    return of_x, torch.sigmoid(before).sqrt() * fresh, (variance * fresh).sqrt()


def _known(predict: str) -> None:
    if predict == "mean":
        raise ValueError("predict='mean' depends on the next step: use mean_to_x0 and x0_to_mean")
    one_of("predict", predict, PREDICTIONS)
