"""The likelihood of a diffusion model by its probability-flow ODE."""

import math
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor

from ..names import one_of
from ..nn.schedules import Schedule
from ..progress import WaitingBar
from .denoising_chain import positive, time_at
from .guidance import Denoiser

# Dormand and Prince 1980: times of the stages, their weights in each other, and the weights of the
# error estimate. The last stage is the result of the step, of fifth order.
STAGES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
WEIGHTS = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


def ode_log_likelihood(
    denoise: Denoiser,
    schedule: Schedule,
    x: Tensor,
    *,
    steps: int | None = None,
    tolerance: float | None = None,
    trace: Literal["hutchinson", "exact"] = "hutchinson",
    probes: int = 1,
    seed: int | None = None,
    progress: bool = True,
) -> Tensor:
    """log p(x) by the probability-flow ODE, an estimate in nats per example, shape (n,).

    log p_0(x_0) = log N(x_1; 0, I) + int div f du, the instantaneous change of variables along
    dx / du = f = -signal (signal x - x_0) / 2, u = log SNR (Song et al. 2021, eq. 13 and 39). It is
    a density of reals: that of the flow's own samples at the first step, scaled to signal 1, whose
    noise there is not taken off. Data with levels are to be dequantised by the caller.

    Args:
        x: shape (n, *shape), in the denoiser's units.
        steps: equal steps in log SNR, six calls each, in place of a tolerance.
        tolerance: of each step, relative to 1 + |value|, for every example; 1e-5 by default.
        trace: "hutchinson", unbiased for div f, with one set of random signs kept along the way;
            "exact", one backward pass a dimension.
        probes: sets of random signs, averaged.
        seed: of the signs.
        progress: show a progress bar after two seconds, on a terminal.

    Raises:
        ValueError: impossible numbers, both steps and tolerance, an unknown trace.
        RuntimeError: the tolerance cannot be met in this precision, or numbers are not finite.
    """
    one_of("trace", trace, ("hutchinson", "exact"))
    positive("probes", probes)
    if steps is not None and tolerance is not None:
        raise ValueError("give steps or a tolerance, not both")
    if steps is not None:
        positive("steps", steps)
    tolerance = 1e-5 if tolerance is None else tolerance
    if not tolerance > 0:
        raise ValueError(f"tolerance must be positive; got {tolerance}")
    size = x[0].numel()
    signs = x.new_empty(0)
    if trace == "hutchinson":
        generator = None if seed is None else torch.Generator(x.device).manual_seed(seed)
        signs = torch.randint(0, 2, (probes, *x.shape), generator=generator, device=x.device)
        signs = (2 * signs - 1).to(x) / math.sqrt(probes)

    def directions() -> Iterator[Tensor]:
        """v, for the divergence sum v . J v."""
        yield from signs
        if trace == "exact":
            for index in range(size):
                unit = torch.zeros(size, dtype=x.dtype, device=x.device)
                unit[index] = 1
                yield unit.view(x.shape[1:]).expand_as(x)

    def slope(log_snr: Tensor, t: Tensor, state: Tensor) -> Tensor:
        """d (x, int div f) / du for state (n, D + 1)."""
        with torch.enable_grad():
            x_t = state[:, :-1].to(x.dtype).reshape(x.shape).requires_grad_()
            x0 = denoise(x_t, t.to(x.dtype).expand(len(x)))
            divergence = state.new_zeros(len(x))
            for direction in directions():
                (back,) = torch.autograd.grad(x0, x_t, direction, retain_graph=True)
                divergence += (back * direction).flatten(1).sum(1)
        signal = torch.sigmoid(log_snr).sqrt()
        flow = signal * state[:, :-1] - x0.detach().flatten(1)
        trace_of_flow = signal * size - divergence
        return -signal / 2 * torch.cat([flow, trace_of_flow[:, None]], 1)

    with torch.inference_mode(False), torch.no_grad():
        first = 0.0 if schedule.timesteps is None else 1 / schedule.timesteps
        ends = schedule.log_snr(torch.tensor([first, 1.0]).to(x)).double()
        signal = torch.sigmoid(ends[0]).sqrt()
        state = torch.cat([signal * x.flatten(1).double(), x.new_zeros(len(x), 1)], 1)
        state = _integrate(slope, schedule, state, ends, x.dtype, steps, tolerance, progress)
        end, change = state[:, :-1], state[:, -1]
        prior = -(end.square().sum(1) + size * math.log(2 * math.pi)) / 2
        # The last term: the density of x, not of signal x.
        return (prior + change + size * signal.log()).to(x.dtype)


def _integrate(
    slope: Callable[[Tensor, Tensor, Tensor], Tensor],
    schedule: Schedule,
    state: Tensor,
    ends: Tensor,
    precision: torch.dtype,
    steps: int | None,
    tolerance: float,
    progress: bool,
) -> Tensor:
    """Solve d state / du = slope from one end to the other, in equal or in adapted steps."""
    start, end = ends.tolist()
    whole, done, share = end - start, 0.0, 1 / steps if steps else 0.01
    first: Tensor | None = None
    with WaitingBar("integrating", 1000, progress) as bar:
        while done < 1 - 1e-12:
            share = min(share, 1 - done)
            at = start + whole * (done + share * torch.tensor(STAGES, dtype=torch.float64))
            at = at.to(state.device)
            t = time_at(schedule, at.to(precision))
            slopes = [slope(at[0], t[0], state) if first is None else first]
            ahead = state
            for row, weights in enumerate(WEIGHTS, 1):
                moved = sum(w * k for w, k in zip(weights, slopes, strict=True))
                ahead = state + share * whole * moved
                slopes.append(slope(at[row], t[row], ahead))
            error = share * whole * sum(w * k for w, k in zip(ERROR, slopes, strict=True))
            error = error / (1 + torch.maximum(state.abs(), ahead.abs()))
            # The larger one of an example's x and its integral, the worst example.
            worst = torch.maximum(error[:, :-1].square().mean(1).sqrt(), error[:, -1].abs()).max()
            ratio = worst.item() / tolerance
            if steps or ratio <= 1:
                state, first, done = ahead, slopes[-1], done + share
                bar.at(int(1000 * done))
            else:
                first = slopes[0]
            if not math.isfinite(ratio) or (first is slopes[0] and share < 1e-6):
                raise RuntimeError(
                    f"the ODE cannot be solved to tolerance {tolerance} at log SNR {at[0]:.3g}: "
                    "the denoiser is not smooth or not finite there; raise the tolerance, use "
                    "float64, or give steps"
                )
            if not steps:
                share *= min(5.0, max(0.2, 0.9 * max(ratio, 1e-10) ** -0.2))
    return state
