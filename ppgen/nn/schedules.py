"""Noise schedules of diffusion: how fast the signal gives way to noise.

A schedule is a falling function log SNR(t) on 0 <= t <= 1. The forward process is
q(x_t | x_0) = N(signal x_0, noise^2 I), signal^2 = abar = sigmoid(log SNR) and
noise^2 = 1 - abar = sigmoid(-log SNR), which keeps the variance (Kingma et al. 2021, section 3).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..names import one_of

SCHEDULES = ("linear", "cosine", "learned")


class Schedule(nn.Module):
    """A strictly falling log SNR(t); subclasses define `log_snr`.

    Attributes:
        timesteps: T, where step i of the chain stands at t = i / T; None in continuous time.
    """

    timesteps: int | None = None

    def log_snr(self, t: Tensor) -> Tensor:
        """log SNR(t) = log(abar / (1 - abar)), finite, for float t in [0, 1] of any shape."""
        raise NotImplementedError(f"{type(self).__name__} does not define log_snr")

    def signal(self, t: Tensor) -> Tensor:
        """sqrt(abar(t)), the factor of x_0 in x_t."""
        return torch.sigmoid(self.log_snr(t)).sqrt()

    def noise(self, t: Tensor) -> Tensor:
        """sqrt(1 - abar(t)), the standard deviation of x_t given x_0."""
        return torch.sigmoid(-self.log_snr(t)).sqrt()


class TableSchedule(Schedule):
    """A schedule of T steps given by abar at t = 1/T, ..., 1, linear in log SNR between them.

    The chain's step 0 is the datum itself, where abar = 1 and log SNR is infinite: `at_step` says
    so. `log_snr(t)` goes on below t = 1/T in the straight line of the next stretch instead, so
    that it is finite and falls everywhere.

    Args:
        abar: the share of the signal's variance at steps 1 to T, falling inside (0, 1).

    Raises:
        ValueError: no steps, or values that do not fall inside (0, 1).
    """

    steps: Tensor

    def __init__(self, abar: Tensor) -> None:
        super().__init__()
        abar = abar.double()
        whole = abar.new_ones(1)
        vector = abar.dim() == 1 and len(abar) > 0
        if not vector or not (torch.cat([whole, abar]).diff() < 0).all() or not abar[-1] > 0:
            raise ValueError(
                f"abar must be a vector that falls from below 1 to above 0; got {abar}"
            )
        self.timesteps = len(abar)
        steps = torch.logit(abar)  # log(abar / (1 - abar)) in float64; kept in float32
        start = 2 * steps[0] - steps[1] if len(steps) > 1 else steps[0] + 1.0
        self.register_buffer("steps", torch.cat([start[None], steps]).float(), persistent=False)

    def log_snr(self, t: Tensor) -> Tensor:
        place = t * self.timesteps  # type: ignore[operator]
        left = place.detach().floor().long().clamp(0, len(self.steps) - 2)
        start, end = self.level(left), self.level(left + 1)
        return start + (place - left) * (end - start)

    def at_step(self, step: Tensor) -> Tensor:
        """log SNR at whole steps 0 to T of the chain, of the same shape; infinite at step 0."""
        return torch.where(step == 0, math.inf, self.level(step))

    def level(self, step: Tensor) -> Tensor:
        """log SNR at whole steps 0 to T in the straight lines of `log_snr`: finite at step 0."""
        # Indexing by a tensor without axes would read its number, which cannot be traced.
        return self.steps.index_select(0, step.reshape(-1)).reshape(step.shape)


class LinearSchedule(TableSchedule):
    """The variance added a step, beta, rises linearly (Ho, Jain and Abbeel 2020, section 4).

    abar_i = prod_{j <= i} (1 - beta_j). The defaults are meant for T = 1000, after which next to
    nothing of the signal is left; short chains need larger variances, which `make_schedule` gives
    them: these times 1000 / T, below 1.

    Args:
        timesteps: T.
        first: beta_1.
        last: beta_T.

    Raises:
        ValueError: timesteps < 1, or variances outside (0, 1).
    """

    def __init__(self, timesteps: int, first: float = 1e-4, last: float = 0.02) -> None:
        count = check_timesteps(timesteps)
        if not (0 < first < 1 and 0 < last < 1):
            raise ValueError(f"first and last must lie between 0 and 1; got {first} and {last}")
        beta = torch.linspace(first, last, count, dtype=torch.float64)
        super().__init__((1 - beta).cumprod(0))


class CosineSchedule(TableSchedule):
    """abar falls like a squared cosine (Nichol and Dhariwal 2021, section 3.2).

    abar_i = f(i/T) / f(0), f(t) = cos((t + 0.008) / 1.008 * pi / 2)^2, no step adding a variance
    above 0.999.

    Args:
        timesteps: T.

    Raises:
        ValueError: timesteps < 1.
    """

    def __init__(self, timesteps: int) -> None:
        t = torch.linspace(0, 1, check_timesteps(timesteps) + 1, dtype=torch.float64)
        f = ((t + 0.008) / 1.008 * (math.pi / 2)).cos() ** 2
        super().__init__((f[1:] / f[:-1]).clamp(min=1 - 0.999).cumprod(0))


class LearnedSchedule(Schedule):
    """SNR(t) = exp(-omega(t)), omega a monotone network (Kingma et al. 2021, appendix H).

    omega(t) runs from omega_0 to omega_1 along the shape g(t) = l_1(t) + l_3(sigmoid(l_2(l_1(t)))),
    shifted and scaled to 0 at t = 0 and 1 at t = 1; l_1, l_2, l_3 are linear with positive weights
    and l_1, l_3 have one output. The two end points are parameters of their own, since the bound
    of continuous time depends on the schedule through them alone.

    Args:
        highest: log SNR at t = 0, where training starts.
        lowest: log SNR at t = 1.
        hidden: outputs of l_2.

    Raises:
        ValueError: hidden < 1, or highest not above lowest.
    """

    def __init__(self, *, highest: float = 13.3, lowest: float = -5.0, hidden: int = 1024) -> None:
        super().__init__()
        if hidden < 1:
            raise ValueError(f"hidden must be 1 or more; got {hidden}")
        if not highest > lowest:
            raise ValueError(f"highest must lie above lowest; got {highest} and {lowest}")
        span = highest - lowest
        self.highest = nn.Parameter(torch.tensor(float(highest)))
        # softplus of it is the span: the end points cannot pass each other.
        self.raw_span = nn.Parameter(torch.tensor(span + math.log(-math.expm1(-span))))
        # softplus(0.54) = 1. The sum over hidden units starts small beside the straight line.
        self.raw_first = nn.Parameter(torch.tensor([0.5413, 0.0]))
        self.raw_weights = nn.Parameter(torch.randn(2, hidden) * 0.1)
        self.biases = nn.Parameter(torch.randn(hidden))

    @property
    def span(self) -> Tensor:
        """log SNR(0) - log SNR(1), positive."""
        return F.softplus(self.raw_span)

    def log_snr(self, t: Tensor) -> Tensor:
        return self.between(self.progress(t))

    def between(self, progress: Tensor) -> Tensor:
        """log SNR where so much of the way is gone."""
        return self.highest - self.span * progress

    def progress(self, t: Tensor) -> Tensor:
        """How much of the way from omega_0 to omega_1 is gone at t: rises from 0 to 1."""
        start, whole = self._shape(t.new_zeros(())), self._shape(t.new_ones(()))
        return (self._shape(t) - start) / (whole - start)

    def slope(self, t: Tensor) -> Tensor:
        """d progress / dt, positive, in closed form."""
        start, whole = self._shape(t.new_zeros(())), self._shape(t.new_ones(()))
        first, _, inner, outer, units = self._units(t)
        # g' = w_1 (1 + sum_k w_3k w_2k s_k (1 - s_k))
        return first * (1 + (outer * inner * units * (1 - units)).sum(-1)) / (whole - start)

    def _shape(self, t: Tensor) -> Tensor:
        _, line, _, outer, units = self._units(t)
        return line + (outer * units).sum(-1)

    def _units(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """w_1, l_1(t), the weights of l_2 and l_3, and the hidden units (..., hidden)."""
        first = F.softplus(self.raw_first[0])
        line = first * t + self.raw_first[1]
        inner, outer = F.softplus(self.raw_weights).unbind()
        outer = outer / len(outer)
        return first, line, inner, outer, torch.sigmoid(inner * line[..., None] + self.biases)


def make_schedule(name: str, timesteps: int) -> Schedule:
    """The schedule of a name of `SCHEDULES`.

    Raises:
        ValueError: an unknown name, or timesteps < 1.
    """
    one_of("schedule", name, SCHEDULES)
    check_timesteps(timesteps)
    if name == "learned":
        return LearnedSchedule()
    if name == "cosine":
        return CosineSchedule(timesteps)
    # Short chains take larger steps, so that next to nothing of the signal is left at their end.
    scale = 1000 / timesteps
    return LinearSchedule(timesteps, min(1e-4 * scale, 0.999), min(0.02 * scale, 0.999))


def check_timesteps(timesteps: int) -> int:
    if isinstance(timesteps, bool) or not isinstance(timesteps, int):
        raise TypeError(f"timesteps must be a whole number; got {timesteps!r}")
    if timesteps < 1:
        raise ValueError(f"timesteps must be 1 or more; got {timesteps}")
    return timesteps
