"""Diffusion in continuous time with a learned schedule (Kingma et al. 2021)."""

import pyro
import torch
from torch import Tensor

from ..nn.parameterisation import over
from ..nn.schedules import LearnedSchedule
from .diffusion_chain import FIRST_SHARE, DiffusionChain, SpreadTimes, first_or_later, for_some


class ContinuousTime:
    """The laws of a diffusion model whose `schedule` is a `LearnedSchedule`, and its program.

    The shape of the schedule, its `progress` from 0 to 1, enters without gradient: the bound
    depends on the end points alone, and the shape is trained by `schedule_loss`. The network is
    told `progress(t)` as its time, so that what it sees depends on log SNR and not on the shape.
    """

    def __init__(self, program: DiffusionChain, schedule: LearnedSchedule) -> None:
        self.program, self.schedule = program, schedule

    def log_snr(self, t: Tensor) -> Tensor:
        """log SNR(t), differentiable in the end points alone."""
        return self.schedule.between(self.schedule.progress(t).detach())

    def rate(self, t: Tensor) -> Tensor:
        """-d SNR / dt at t, positive, differentiable in the end points alone."""
        return self.log_snr(t).exp() * self.schedule.span * self.schedule.slope(t).detach()

    def x0_at(self, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        """The datum that the network sees in x_t at times t of [0, 1]."""
        log_snr = self.log_snr(t)
        time = self.schedule.progress(t).detach().to(x.dtype)
        return self.program.predicted_x0(x, time, log_snr, log_snr, y)

    def run(self, x: Tensor, y: Tensor | None, reverse: bool) -> None:
        """The program: model if `reverse`, else guide.

        As in the collapsed chain each example has one time of its own, and a share of them, at
        t = 0, are those from which x is reconstructed. x_t has the same law in both; x_T = x_t at
        t = 1. The site `drift` is N(u, I) with u = sqrt(rate) x_0 in the guide and sqrt(rate)
        x_0_hat in the model: what the drifts of two diffusions of one noise differ by, so that its
        KL, (1/2) rate ||x_0_hat - x_0||^2, is the rate at which their KL grows (Girsanov), and its
        mean over t the diffusion loss (Kingma et al. 2021, eq. 17).
        """
        program = self.program
        x0 = program.scaled(x)
        y = program.label(x, y) if reverse else y
        with pyro.plate("batch", len(x)):
            last = program.noised_at(x0, self.log_snr(x.new_ones(())))
            pyro.sample("x_T", program.prior(x0) if reverse else last)
            first, t = first_or_later(pyro.sample("t", SpreadTimes(len(x), x)))
            x_t = pyro.sample("x_t", program.noised_at(x0, self.log_snr(t)))
            towards = self.x0_at(x_t, t, y) if reverse else x0
            if reverse:
                with for_some(first, 1 / FIRST_SHARE):
                    pyro.sample("x", program.observation(towards), obs=x)
            with for_some(~first, 1 / (1 - FIRST_SHARE)):
                drift = over(self.rate(t).sqrt(), towards) * towards
                pyro.sample("drift", program.unit_normal(drift))


def schedule_loss(schedule: LearnedSchedule, t: Tensor, loss: Tensor) -> Tensor:
    """A scalar whose gradient in the schedule's shape is that of log E loss(t)^2, t uniform.

    E loss does not depend on the shape, so that this lowers the variance of the loss (Kingma et
    al. 2021, appendix I.2). With s(t) = d progress / dt and the loss written as s F(log SNR), where
    F does not know the shape, E loss^2 is the integral of s F^2 over log SNR, and its gradient that
    of s at fixed log SNR, weighed by F^2: no gradient of the network is needed. The value is 1.

    Args:
        t: times drawn uniformly, (n,).
        loss: the diffusion loss at these, (n,), taken as constants.
    """
    slope = schedule.slope(t).detach()
    # The time at which progress is what it is at t, as the shape changes: t, with a gradient.
    progress = schedule.progress(t)
    held = t - (progress - progress.detach()) / slope
    squares = loss.detach().square()
    tiny = torch.finfo(squares.dtype).tiny  # where all losses are 0
    return (squares * schedule.slope(held) / slope).mean() / squares.mean().clamp(min=tiny)
