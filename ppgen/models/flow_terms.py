"""The likelihood of a diffusion model's data by its probability-flow ODE."""

import math
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from ..names import one_of
from .flow_likelihood import ode_log_likelihood
from .guidance import Denoiser

if TYPE_CHECKING:
    from .diffusion import Diffusion

FlowStart = Literal["datum", "first step"]


def flow_terms(
    program: "Diffusion", denoise: Denoiser, x: Tensor, start: FlowStart, **options: Any
) -> dict[str, Tensor]:
    """Minus log p(x) of the probability-flow ODE by terms, nats per example, each of shape (n,).

    Where samples come from the ODE, and not from the chain, this is another model than that of the
    bound, with the same network. Two ways lead to its density.

    "datum": that of `ode_log_likelihood` at x_0, for data with levels at the level plus uniform
    noise of its width, E_u log p(x + u) <= log P(x) (Theis et al. 2016, section 3.1; Song et al.
    2021). The flow ends at the noise of the first step: where that is wider than a level, or most
    pixels have one level only, this comes out too low.

    "first step": E_q log p(x | x_1) + log p(x_1) - log q(x_1 | x_0) <= log P(x), by the density of
    the flow where it ends and the reconstruction of the bound, without that loss.

    Args:
        denoise: the program's denoiser, with the labels of x.
        options: of `ode_log_likelihood`; the tolerance is 1e-4 by default.

    Raises:
        ValueError: an unknown start, and what `ode_log_likelihood` raises.
    """
    one_of("start", start, get_args(FlowStart))
    options = {"tolerance": 1e-4, "progress": False} | options
    schedule, x0, size = program.schedule, program.scaled(x), x[0].numel()
    if start == "first step":
        time = torch.tensor(1 / (schedule.timesteps or math.inf), device=x.device)
        law = program.noised_at(x0, schedule.log_snr(time))
        x_1, signal = law.sample(), schedule.signal(time)
        density = ode_log_likelihood(denoise, schedule, x_1 / signal, **options)
        return {
            "reconstruction": -program.observation(denoise(x_1, time.expand(len(x)))).log_prob(x),
            "ode": law.log_prob(x_1) - density + size * signal.log(),
        }
    width = 0.0 if program.levels is None else 2 / (program.levels - 1)
    noisy = x0 + width * (torch.rand_like(x0) - 0.5)
    density = ode_log_likelihood(denoise, schedule, noisy, **options)
    return {"ode": -density - (size * math.log(width) if width else 0.0)}
