"""Samplers of diffusion models, as functions of a denoiser and a schedule.

A denoiser is a callable `denoise(x, t)` that gives E[x_0 | x_t = x], for x of shape (n, *shape)
and t of shape (n,) in [0, 1]; the schedule says what x_t holds, x_t = signal x_0 + noise eps.
Every sampler has one signature, `sampler(denoise, schedule, x, *, steps=..., **options)`. It calls
the denoiser at `steps` levels from t = 1 to the first step of the chain (t = 0 in continuous time);
the last of these calls gives the datum itself, to which no noise is added.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, Unpack

from torch import Tensor

from ..names import near, one_of
from ..nn.parameterisation import posterior
from ..nn.schedules import Schedule
from .denoising_chain import Chain, Level, Options
from .guidance import Denoiser


def ancestral(
    denoise: Denoiser,
    schedule: Schedule,
    x: Tensor | Sequence[int],
    *,
    steps: int | None = None,
    variance: Literal["posterior", "forward"] = "posterior",
    known: Tensor | None = None,
    mask: Tensor | None = None,
    resample: int = 10,
    jump: int = 1,
    **options: Unpack[Options],
) -> Tensor:
    """Draw x_s from q(x_s | x_t, x_0) at the denoised x_0, down the chain (Ho et al. 2020, alg. 2).

    Runs under inference mode, as every sampler does; the result is an ordinary tensor.

    Inpainting: after every step the known part of x_s is replaced by a draw of q(x_s | known). One
    pass is biased, since the rest of x_s was drawn without seeing that draw; going `jump` steps
    forward again by fresh noise and back, `resample` times in all, lowers the bias (RePaint,
    Lugmayr et al. 2022, alg. 1) and costs `resample` times as many calls.

    Args:
        x: float32 or float64, x_1 ~ N(0, I) of shape (n, *shape); or a shape, to draw it.
        steps: how many of the chain's steps, all T by default.
        variance: "posterior", that of q(x_s | x_t, x_0), right where x_0 is one point;
            "forward", that of q(x_t | x_s), right where x_0 ~ N(0, I) (Ho et al. 2020, 3.2).
        known: what to keep of the datum, broadcast to x; anything where `mask` is false.
        mask: bool, broadcast to x, true where the datum is known.
        resample: passes over each stretch of the chain where something is known.
        jump: steps of a stretch.
        options: see `Options`.

    Returns:
        samples, shape (n, *shape), in the denoiser's units; the known part exactly as given.

    Raises:
        ValueError: impossible numbers or shapes, steps > timesteps, unknown names.
        TypeError: x or mask of another type.
    """
    if steps is None:
        steps = schedule.timesteps
        if steps is None:
            raise ValueError("this schedule is continuous, it has no number of steps: give steps")
    one_of("variance", variance, ("posterior", "forward"))
    chain = Chain(denoise, schedule, x, steps, **options)
    chain.inpaint(known, mask, resample, jump)

    def advance(x: Tensor, x0: Tensor, here: Level, there: Level) -> Tensor:
        between = x.new_tensor(here.log_snr), x.new_tensor(there.log_snr)
        mean, scale = posterior(x, x0, *between)
        if variance == "forward":
            scale = scale * (here.noise / there.noise)
        return mean + scale * chain.draw()

    return chain.run(advance)


def ddim(
    denoise: Denoiser,
    schedule: Schedule,
    x: Tensor | Sequence[int],
    *,
    steps: int = 50,
    eta: float = 0.0,
    known: Tensor | None = None,
    mask: Tensor | None = None,
    resample: int = 10,
    jump: int = 1,
    **options: Unpack[Options],
) -> Tensor:
    """x_s = signal_s x_0 + sqrt(noise_s^2 - sd^2) eps + sd z (Song, Meng and Ermon 2021, eq. 12).

    eps is the noise in x_t given the denoised x_0, and sd = eta times the standard deviation of
    q(x_s | x_t, x_0): eta = 0 is a deterministic map, eta = 1 is `ancestral`.

    Args:
        eta: in [0, 1].
        known, mask, resample, jump: inpainting, and all else, as in `ancestral`.

    Raises:
        ValueError: as `ancestral`, or eta outside [0, 1].
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie between 0 (deterministic) and 1 (ancestral); got {eta}")
    chain = Chain(denoise, schedule, x, steps, **options)
    chain.inpaint(known, mask, resample, jump)

    def advance(x: Tensor, x0: Tensor, here: Level, there: Level) -> Tensor:
        eps = (x - here.signal * x0) / here.noise
        fresh = -math.expm1(here.log_snr - there.log_snr)  # 1 - SNR(t) / SNR(s)
        kept = there.noise * math.sqrt(1 - eta**2 * fresh)
        mean = there.signal * x0 + kept * eps
        return mean + eta * there.noise * math.sqrt(fresh) * chain.draw() if eta else mean

    return chain.run(advance)


def euler(
    denoise: Denoiser,
    schedule: Schedule,
    x: Tensor | Sequence[int],
    *,
    steps: int = 250,
    **options: Unpack[Options],
) -> Tensor:
    """The probability-flow ODE by Euler's method, of first order: a reference for the others.

    With signal = cos phi and noise = sin phi the ODE (Song et al. 2021, eq. 13; Karras et al. 2022,
    eq. 4) is dx / dphi = v, v = signal eps - noise x_0 = (signal x - x_0) / noise, which stays
    bounded at both ends. Arguments as in `ancestral`.
    """
    chain = Chain(denoise, schedule, x, steps, **options)

    def advance(x: Tensor, x0: Tensor, here: Level, there: Level) -> Tensor:
        return x + (there.angle - here.angle) * _velocity(x, x0, here)

    return chain.run(advance)


def heun(
    denoise: Denoiser,
    schedule: Schedule,
    x: Tensor | Sequence[int],
    *,
    steps: int = 25,
    **options: Unpack[Options],
) -> Tensor:
    """The probability-flow ODE by Heun's method, of second order (Karras et al. 2022, alg. 1).

    Their algorithm with s = cos phi and sigma = tan phi, in the variable phi of `euler`: an Euler
    step, then a step with the mean of v at both ends. 2 steps - 1 calls of the denoiser. Arguments
    as in `ancestral`.
    """
    chain = Chain(denoise, schedule, x, steps, **options)

    def advance(x: Tensor, x0: Tensor, here: Level, there: Level) -> Tensor:
        length, v = there.angle - here.angle, _velocity(x, x0, here)
        ahead = x + length * v
        return x + length * (v + _velocity(ahead, chain.x0(ahead, there), there)) / 2

    return chain.run(advance)


def dpm_solver_pp_2m(
    denoise: Denoiser,
    schedule: Schedule,
    x: Tensor | Sequence[int],
    *,
    steps: int = 25,
    **options: Unpack[Options],
) -> Tensor:
    """The probability-flow ODE by DPM-Solver++ 2M, of second order (Lu et al. 2022b, alg. 2).

    The linear part of the ODE is solved exactly and x_0 extrapolated from this call and the one
    before, in lambda = log SNR / 2: x_s = noise_s / noise_t x_t - signal_s (exp(-h) - 1) D with
    h = lambda_s - lambda_t. The first step is of first order. Arguments as in `ancestral`.
    """
    chain = Chain(denoise, schedule, x, steps, **options)
    past: list[tuple[Tensor, float]] = []  # x_0 and h of the step before

    def advance(x: Tensor, x0: Tensor, here: Level, there: Level) -> Tensor:
        h = (there.log_snr - here.log_snr) / 2
        ahead = x0
        if past:
            before, length = past.pop()
            ahead = x0 + (x0 - before) * (h / (2 * length))
        past.append((x0, h))
        return (there.noise / here.noise) * x - there.signal * math.expm1(-h) * ahead

    return chain.run(advance)


# Steps of ancestral sampling where no chain gives a number.
CONTINUOUS_STEPS = 250

SAMPLERS: dict[str, Callable[..., Tensor]] = {
    "ancestral": ancestral,
    "ddim": ddim,
    "euler": euler,
    "heun": heun,
    "dpm_solver_pp_2m": dpm_solver_pp_2m,
}


def sample(
    denoise: Denoiser,
    schedule: Schedule,
    x: Tensor | Sequence[int],
    *,
    sampler: str = "ancestral",
    **options: Any,
) -> Tensor:
    """Call the sampler of a name of `SAMPLERS`.

    Raises:
        ValueError: an unknown sampler, an option that it does not take, or what it raises.
    """
    one_of("sampler", sampler, SAMPLERS)
    function = SAMPLERS[sampler]
    taken = _options(function)
    for name in options.keys() - taken:
        able = [other for other in SAMPLERS if name in _options(SAMPLERS[other])]
        hint = f"; taken by {' and '.join(able)}" if able else near(name, taken)
        raise ValueError(f"sampler {sampler} takes no option {name}{hint}")
    return function(denoise, schedule, x, **options)


def default_steps(sampler: str, schedule: Schedule) -> int:
    """Steps that a sampler takes unasked: all of the chain if ancestral, and never more."""
    one_of("sampler", sampler, SAMPLERS)
    steps = inspect.signature(SAMPLERS[sampler]).parameters["steps"].default
    most = schedule.timesteps
    return min(steps or most or CONTINUOUS_STEPS, most or CONTINUOUS_STEPS)


def _options(function: Callable[..., Tensor]) -> set[str]:
    own = inspect.signature(function).parameters.values()
    return {p.name for p in own if p.kind is p.KEYWORD_ONLY} | set(Options.__annotations__)


def _velocity(x: Tensor, x0: Tensor, level: Level) -> Tensor:
    return (level.signal * x - x0) / level.noise
