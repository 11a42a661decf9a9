"""What a diffusion model is trained by: its ELBO, or its denoising terms with other weights."""

import math
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributions import kl_divergence

from ..nn.schedules import LearnedSchedule
from ..objective import ELBO, Objective, Terms
from ..sites import Batch, sample_sites
from .diffusion_chain import DiffusionChain, SpreadTimes, first_or_later, step_at
from .diffusion_continuous import schedule_loss

Weighting = Literal["elbo", "simple", "min_snr"]

# Sites of the collapsed program and what the textbook calls their terms; t and x_t have the same
# law in model and guide, and no term.
TITLES = {
    "reconstruction": "reconstruction",
    "kl/x_T": "prior_matching",
    "kl/x_prev": "denoising_matching",
    "kl/drift": "denoising_matching",
}


class DiffusionELBO(ELBO):
    """`ELBO` of the collapsed program, with the terms under the textbook's titles.

    Terms `reconstruction`, `prior_matching` and `denoising_matching`, in nats per example, sum to
    the loss. Arguments as in `ELBO`. The shape of a learned schedule, on which the bound does not
    depend, is trained to lower the variance of the loss; see `schedule_loss`.
    """

    def _particle(self, batch: Batch) -> Any:
        found = super()._particle(batch)
        schedule = self.program.schedule
        if not isinstance(schedule, LearnedSchedule):
            return found
        guide, model = (sample_sites(trace) for trace in (found.guide, found.model))
        loss = kl_divergence(guide["drift"]["fn"], model["drift"]["fn"])  # (n,)
        first, t = first_or_later(guide["t"]["value"])
        shape = schedule_loss(schedule, t, torch.where(first, 0.0, loss))
        # Its gradient joins that of the bound, its value does not.
        reconstruction = found.parts["reconstruction"] + shape - shape.detach()
        return replace(found, parts=found.parts | {"reconstruction": reconstruction})

    def forward(self, *batch: Tensor) -> tuple[Tensor, Terms]:
        loss, terms = super().forward(*batch)
        return loss, {TITLES[key]: value for key, value in terms.items() if key in TITLES}


class DenoisingLoss(Objective):
    """The squared error of the noise, with a weight of its own in place of the ELBO's.

    loss = E_t w(t) ||eps_hat(x_t) - eps||^2 with t uniform on 1..T, spread evenly over the batch;
    w = 1 for "simple" (Ho, Jain and Abbeel 2020, eq. 14) and min(SNR, limit) / SNR for "min_snr"
    (Hang et al. 2023, eq. 8). The ELBO's own weight is (1/2) (SNR(t-1) - SNR(t)) / SNR(t). The
    scales of the reconstruction, of which this error knows nothing, are fitted to a thirty-second
    of the batch by their own log-likelihood, with no gradient to the network; in evaluation mode
    all of the batch is reconstructed.

    Terms: those of `DiffusionELBO` in nats per example, whose sum is the bound but not the loss,
    and `noise_error`, the loss of the network.

    Args:
        program: a diffusion model.
        weighting: "simple" or "min_snr".
        limit: the largest weight of the error of x_0, gamma of Hang et al.
    """

    program: DiffusionChain
    unit = "squared error"

    def __init__(
        self, program: DiffusionChain, weighting: Weighting = "simple", limit: float = 5.0
    ) -> None:
        super().__init__(program)
        if not limit > 0:
            raise ValueError(f"limit must be positive; got {limit}")
        self.limit = limit if weighting == "min_snr" else math.inf

    def forward(self, *batch: Tensor) -> tuple[Tensor, Terms]:
        program, x = self.program, batch[0]
        total, level = program.timesteps, program.schedule.level
        x0, y = program.scaled(x), program.label(x, batch[1] if len(batch) > 1 else None)
        step = step_at(SpreadTimes(len(x), x).sample(), 1, total)
        x_t = program.noised(x0, step).sample()
        x0_hat = program.x0_at(x_t, step, y)
        error = (x0_hat - x0).square().flatten(1).sum(1)  # (n,)
        snr = level(step).exp()
        loss = (snr.clamp(max=self.limit) * error).mean()  # SNR times this error is the noise's
        with torch.no_grad():
            weight = 0.5 * (level(step - 1).exp() - snr) * (step > 1)  # step 1 reconstructs
            matching = total * (weight * error).mean()
            last = torch.full((), total, device=x.device)
            prior = kl_divergence(program.noised(x0, last), program.prior(x0)).mean()
        reconstruction = self._reconstruction(x, x0, y)
        terms: dict[str, Any] = {
            "reconstruction": reconstruction.detach(),
            "prior_matching": prior,
            "denoising_matching": matching,
            "noise_error": loss.detach(),
        }
        return loss + reconstruction - reconstruction.detach(), terms

    def _reconstruction(self, x: Tensor, x0: Tensor, y: Tensor | None) -> Tensor:
        program = self.program
        rows = math.ceil(len(x) / 32) if self.training else len(x)
        x, x0, y = x[:rows], x0[:rows], None if y is None else y[:rows]
        first = torch.ones((), dtype=torch.long, device=x.device)
        with torch.no_grad():
            x0_hat = program.x0_at(program.noised(x0, first).sample(), first, y)
        return -program.observation(x0_hat).log_prob(x).mean()
