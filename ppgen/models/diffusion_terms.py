"""The bound of a diffusion model step by step: which steps cost nats."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributions import kl_divergence

from ..nn.schedules import LearnedSchedule, Schedule
from ..progress import WaitingBar
from .diffusion_chain import SpreadTimes, step_at
from .diffusion_continuous import ContinuousTime

if TYPE_CHECKING:
    from .diffusion import Diffusion


@dataclass(frozen=True)
class StepTerms:
    """The terms of a diffusion model's negative ELBO, the denoising terms by their steps, in nats.

    Attributes:
        edges: of B stretches, (B + 1,): stretch b has the steps edges[b] <= t < edges[b + 1] of
            2..T, or in continuous time those times of [0, 1].
        matching: the denoising terms of each stretch summed, an unbiased estimate for each
            example, (n, B).
        reconstruction: the term of step 1, (n,).
        prior_matching: KL(q(x_T | x_0) || p(x_T)), (n,).
    """

    edges: Tensor
    matching: Tensor
    reconstruction: Tensor
    prior_matching: Tensor

    @property
    def per_step(self) -> Tensor:
        """Nats of one step in each stretch, the mean over the examples; nats per unit of time."""
        return self.matching.mean(0) / self.edges.diff().to(self.matching)


def step_terms(
    program: "Diffusion", x: Tensor, *conditions: Tensor, stretches: int = 40, progress: bool = True
) -> StepTerms:
    """The three terms of a diffusion model's negative ELBO, the denoising terms by their steps.

    Steps 2..T are parted into stretches that grow with t, since the first steps cost most and
    differ most; in continuous time into equal ones. In each stretch every example has one step,
    drawn evenly over the examples, and weighed by the steps of its stretch, so that the sum is
    unbiased. Where there are no more steps than stretches, each step stands for itself. x_1 is
    drawn once; the prior matching is exact.

    Args:
        x: float32, shape (n, *shape).
        conditions: the labels (n,), of a model that has them.
        stretches: at most so many, each a call of the network.
        progress: show a progress bar after two seconds, on a terminal.

    Raises:
        ValueError: stretches < 1, labels missing or out of range.
    """
    if stretches < 1:
        raise ValueError(f"stretches must be 1 or more; got {stretches}")
    y = program.scored_labels(x, *conditions)
    x0, schedule = program.scaled(x), program.schedule
    continuous = isinstance(schedule, LearnedSchedule)
    edges = torch.linspace(0, 1, stretches + 1) if continuous else _edges(schedule, stretches)
    reconstruction, prior_matching = _ends(program, x, x0, y)
    found = []
    with WaitingBar("terms of the bound", len(edges) - 1, progress) as bar:
        for k, (start, end) in enumerate(pairwise(edges.tolist())):
            t = SpreadTimes(len(x), x).sample()
            if isinstance(schedule, LearnedSchedule):
                time = start + (end - start) * t
                laws = ContinuousTime(program, schedule)
                x_t = program.noised_at(x0, laws.log_snr(time)).sample()
                error = (laws.x0_at(x_t, time, y) - x0).flatten(1).square().sum(1)
                term = 0.5 * laws.rate(time) * error
            else:
                step = step_at(t, start, end - 1)
                x_t = program.noised(x0, step).sample()
                law = program.reverse_step(x_t, step, y)
                term = kl_divergence(program.backward_step(x_t, x0, step), law)
            found.append(term * (end - start))
            bar.at(k + 1)
    matching = torch.stack(found, 1) if found else x.new_zeros(len(x), 0)
    return StepTerms(edges, matching, reconstruction, prior_matching)


def _ends(program: "Diffusion", x: Tensor, x0: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
    """The reconstruction from one draw of x_1, and the prior matching, each (n,)."""
    schedule: Schedule = program.schedule
    if isinstance(schedule, LearnedSchedule):
        laws, start = ContinuousTime(program, schedule), x.new_zeros(())
        x_1 = program.noised_at(x0, laws.log_snr(start)).sample()
        x0_hat = laws.x0_at(x_1, start, y)
        last = program.noised_at(x0, laws.log_snr(x.new_ones(())))
    else:
        first = torch.ones((), dtype=torch.long, device=x.device)
        x_1 = program.noised(x0, first).sample()
        x0_hat = program.x0_at(x_1, first, y)
        last = program.noised(x0, first * program.timesteps)
    return -program.observation(x0_hat).log_prob(x), kl_divergence(last, program.prior(x0))


def _edges(schedule: Schedule, stretches: int) -> Tensor:
    """Where the stretches of 2..T start, and T + 1: evenly in log t, each of one step or more."""
    total = schedule.timesteps or 1
    if total - 1 <= stretches:
        return torch.arange(2, total + 2)
    places = torch.linspace(math.log(2), math.log(total + 1), stretches + 1).exp()
    return places.round().long().unique()
