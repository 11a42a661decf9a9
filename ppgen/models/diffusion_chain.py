"""The T-step diffusion chain as Pyro programs, unrolled: for study, and small T."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, cast, get_args

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions import constraints

from ..likelihood import Method
from ..names import one_of
from ..nn.parameterisation import mean_to_x0, over, posterior, scales, to_x0
from ..nn.schedules import TableSchedule
from ..program import Program

FormName = Literal["collapsed", "chain", "forward", "first", "shared"]

# Of a batch of the collapsed program, the share of examples that are at step 1, from which the
# datum is reconstructed. With a call of the network for every example of its own at step 1, a
# step of training would cost twice as much.
FIRST_SHARE = 1 / 16


class SpreadTimes(TorchDistribution):
    """Times uniform on [0, 1), each on its own, and together spread evenly over a batch.

    Example i of n gets (u + i/n) mod 1, u ~ U(0, 1) shared: a low-discrepancy set, by which the
    mean over a batch of a function of time varies less (Kingma et al. 2021, appendix I.1).
    `log_prob` is that of one example's time, 0.

    Args:
        size: n, the batch.
        like: a tensor on the device to draw on; the CPU without one.
    """

    arg_constraints = {}  # noqa: RUF012
    support = constraints.unit_interval
    has_rsample = True  # the law has no parameters

    def __init__(self, size: int | Sequence[int], like: Tensor | None = None) -> None:
        self.like = torch.empty(0) if like is None else like.new_empty(0)
        shape = (size,) if isinstance(size, int) else tuple(size)
        super().__init__(torch.Size(shape), validate_args=False)

    def expand(self, batch_shape: Any, _instance: object = None) -> "SpreadTimes":
        return SpreadTimes(batch_shape, self.like)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        shape = self._extended_shape(sample_shape)
        start = torch.rand(*shape[:-1], 1, device=self.like.device)
        return (start + torch.arange(shape[-1], device=start.device) / shape[-1]) % 1

    def log_prob(self, value: Tensor) -> Tensor:
        return value.new_zeros(()).expand(torch.broadcast_shapes(value.shape, self.batch_shape))


def step_at(t: Tensor, first: int, last: int) -> Tensor:
    """The whole number of first..last in whose equal share of [0, 1) the time t falls."""
    count = last - first + 1
    return first + (t * count).long().clamp(max=count - 1)


def first_or_later(t: Tensor, share: float = FIRST_SHARE) -> tuple[Tensor, Tensor]:
    """Which times of [0, 1) are of the share at the first step, and where in [0, 1) the others are.

    The time of those at the first step is 0.
    """
    return t < share, ((t - share) / (1 - share or 1.0)).clamp(min=0.0)


@contextmanager
def for_some(chosen: Any, weight: float) -> Iterator[None]:
    """Sites inside count for the chosen examples of a batch alone, (n,) bool, with a weight."""
    with poutine.scale(scale=weight), poutine.mask(mask=chosen):
        yield


class DiffusionChain(Program):
    """p(x_T) prod_t p(x_{t-1} | x_t) p(x | x_1) and its fixed forward process q, in parts.

    A subclass gives the attributes below, `scaled`, `observation` and `label`; here are the
    conditional distributions of the chain, named as in the textbook, and the programs that unroll
    them over t. Steps are whole numbers 0 to T; step 0 is the datum.

    Attributes:
        schedule: a schedule with T `timesteps`.
        network: `network(x, t[, y])` -> prediction, for x (n, *shape), t = step / T of shape (n,).
        predict: what the network predicts; see `ppgen.nn.parameterisation`.
        num_classes: classes of y, or None.
    """

    schedule: TableSchedule
    network: nn.Module
    predict: str
    num_classes: int | None

    def scaled(self, x: Tensor) -> Tensor:
        """The data as the chain knows them, x_0 in about [-1, 1]."""
        raise NotImplementedError

    def observation(self, x0: Tensor) -> Any:
        """p(x | x_1), where the network sees the datum x0 in x_1."""
        raise NotImplementedError

    def label(self, x: Tensor, y: Tensor | None) -> Tensor | None:
        """The labels that the network is given in training."""
        raise NotImplementedError

    @property
    def timesteps(self) -> int:
        """T, the number of steps.

        Raises:
            ValueError: the schedule is continuous.
        """
        if self.schedule.timesteps is None:
            raise ValueError(
                "a learned schedule is in continuous time and has no chain of steps: use model and "
                "guide, or schedule='linear' or 'cosine'"
            )
        return self.schedule.timesteps

    def prior(self, x0: Tensor) -> dist.Independent:
        """p(x_T) = N(0, I), for examples like x0."""
        return self.unit_normal(torch.zeros_like(x0))

    def unit_normal(self, mean: Tensor) -> dist.Independent:
        """N(mean, I)."""
        return self._normal(mean, torch.ones_like(mean))

    def noised(self, x0: Tensor, step: Tensor) -> dist.Independent:
        """q(x_t | x_0) = N(sqrt(abar_t) x_0, (1 - abar_t) I) at steps t of 1..T, (n,) or ()."""
        return self.noised_at(x0, self.schedule.at_step(step))

    def noised_at(self, x0: Tensor, log_snr: Tensor) -> dist.Independent:
        """q(x_t | x_0) by log SNR(t), (n,) or ()."""
        signal, noise = scales(log_snr, x0)
        mean = signal * x0
        return self._normal(mean, noise.expand_as(mean))

    def forward_step(self, before: Tensor, step: Tensor) -> dist.Independent:
        """q(x_t | x_{t-1}) = N(sqrt(alpha_t) x_{t-1}, (1 - alpha_t) I) given x_{t-1}."""
        # log abar = -softplus(-log SNR), so log alpha_t is a difference of two of them.
        now, then = self.schedule.at_step(step), self.schedule.at_step(step - 1)
        softplus = nn.functional.softplus
        log_alpha = over(softplus(-then) - softplus(-now), before)
        scale = (-torch.expm1(log_alpha)).sqrt()
        return self._normal((log_alpha / 2).exp() * before, scale.expand_as(before))

    def backward_step(self, x: Tensor, x0: Tensor, step: Tensor) -> dist.Independent:
        """q(x_{t-1} | x_t, x_0) given x = x_t; see `posterior`. Steps t of 2..T.

        Step 1 would give a point mass at x_0; it gives the step to log SNR(0) of the schedule,
        which is finite.
        """
        level = self.schedule.level
        return self._normal(*posterior(x, x0, level(step), level(step - 1)))

    def reverse_step(self, x: Tensor, step: Tensor, y: Tensor | None) -> dist.Independent:
        """p(x_{t-1} | x_t) = q(x_{t-1} | x_t, x_0 = the datum that the network sees in x_t)."""
        return self.backward_step(x, self.x0_at(x, step, y), step)

    def x0_at(self, x: Tensor, step: Tensor, y: Tensor | None) -> Tensor:
        """The datum that the network sees in x_t, from x of shape (..., *shape) at step t."""
        at = self.schedule.at_step
        return self.predicted_x0(x, step / self.timesteps, at(step), at(step - 1), y)

    def predicted_x0(
        self, x: Tensor, t: Tensor, log_snr: Tensor, log_snr_before: Tensor, y: Tensor | None
    ) -> Tensor:
        """The network's prediction at x (..., *shape) and time t, turned into x_0."""
        batch = x.shape[: x.dim() - len(self.shape)]
        if x.shape[len(batch) :] != self.shape:
            raise ValueError(
                f"expected examples of shape {tuple(self.shape)}; got {tuple(x.shape[1:])}"
            )
        inputs = [x.reshape(-1, *self.shape), t.expand(batch).reshape(-1)]
        if self.num_classes is not None and y is not None:
            inputs.append(y.expand(batch).reshape(-1))
        # Under autocast the network answers in half precision; x_0 and nats are never in it.
        prediction = self.network(*inputs).to(x.dtype).reshape(x.shape)
        if self.predict == "mean":
            return mean_to_x0(prediction, x, log_snr, log_snr_before)
        return to_x0(prediction, x, log_snr, self.predict)

    def chain_model(self, x: Tensor, y: Tensor | None = None) -> None:
        """All T steps: sites x_T, ..., x_1 and the observed x. T calls of the network."""
        x0, y = self.scaled(x), self.label(x, y)
        with pyro.plate("batch", len(x)):
            here = pyro.sample(f"x_{self.timesteps}", self.prior(x0))
            for t in range(self.timesteps, 1, -1):
                here = pyro.sample(f"x_{t - 1}", self.reverse_step(here, self._step(t, x), y))
            x0_hat = self.x0_at(here, self._step(1, x), y)
            pyro.sample("x", self.observation(x0_hat), obs=x)

    def chain_guide(self, x: Tensor, y: Tensor | None = None) -> None:
        """The forward process taken backwards: q(x_T | x_0), then q(x_{t-1} | x_t, x_0).

        With `chain_model` this is the second form of the ELBO: a reconstruction, the prior
        matching KL(q(x_T | x_0) || p(x_T)) and T - 1 denoising matching terms
        KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)), each in closed form given x_t.
        """
        x0 = self.scaled(x)
        with pyro.plate("batch", len(x)):
            here = pyro.sample(
                f"x_{self.timesteps}", self.noised(x0, self._step(self.timesteps, x))
            )
            for t in range(self.timesteps, 1, -1):
                here = pyro.sample(f"x_{t - 1}", self.backward_step(here, x0, self._step(t, x)))

    def forward_guide(self, x: Tensor, y: Tensor | None = None) -> None:
        """The forward process as it runs: q(x_1 | x_0), then q(x_t | x_{t-1}).

        The same law as `chain_guide` in another order, so that one draw of the whole chain has the
        same log p - log q. But its terms log q(x_t | x_{t-1}) - log p(x_t | x_{t+1}) have no closed
        form, and each varies far more: see `first_model`.
        """
        here = self.scaled(x)
        with pyro.plate("batch", len(x)):
            for t in range(1, self.timesteps + 1):
                here = pyro.sample(f"x_{t}", self.forward_step(here, self._step(t, x)))

    def first_model(self, x: Tensor, y: Tensor | None = None) -> None:
        """The first form of the ELBO, one t an example, to be compared with `model`.

        Its terms are a reconstruction, the prior matching KL(q(x_T | x_{T-1}) || p(x_T)), and
        T - 1 consistency terms log q(x_t | x_{t-1}) - log p(x_t | x_{t+1}). These take x_{t-1},
        x_t and x_{t+1} drawn together: x_{t+1} comes from x_t, so that to average over x_t with
        x_{t+1} held fixed, KL(q(x_t | x_{t-1}) || p(x_t | x_{t+1})) as some texts write it, gives
        another number. Same value as the second form, much more variance. x_{t+1} is masked: it is
        drawn in the guide alone and has no term.
        """
        self._first(x, y, reverse=True)

    def first_guide(self, x: Tensor, y: Tensor | None = None) -> None:
        self._first(x, y, reverse=False)

    def shared_model(self, x: Tensor, y: Tensor | None = None) -> None:
        """One t for the whole batch, a subsampled plate over the steps 2..T; for teaching.

        Plain Pyro weighs the one step by T - 1. Right on average, but the loss varies far more than
        with one t an example.
        """
        self._shared(x, y, reverse=True)

    def shared_guide(self, x: Tensor, y: Tensor | None = None) -> None:
        self._shared(x, y, reverse=False)

    def form(self, name: FormName = "chain") -> "Form":
        """One of the programs with this ELBO as a program of its own, sharing all parameters.

        "collapsed" is `model` and `guide`, "chain" is `chain_model` and `chain_guide`, "forward" is
        `chain_model` and `forward_guide`, "first" and "shared" are those two methods each::

            ELBO(diffusion.form("first"))(x)

        Raises:
            ValueError: an unknown name.
        """
        one_of("form", name, get_args(FormName))
        return Form(self, name)

    def _first(self, x: Tensor, y: Tensor | None, reverse: bool) -> None:
        x0 = self.scaled(x)
        y = self.label(x, y) if reverse else y
        total = self.timesteps
        with pyro.plate("batch", len(x)):
            self._reconstruct(x, x0, y, reverse)
            before = self._noisy("x_T-1", x0, self._step(total - 1, x))
            last = self.forward_step(before, self._step(total, x))
            pyro.sample("x_T", self.prior(x0) if reverse else last)
            if total == 1:
                return
            step = step_at(pyro.sample("t", SpreadTimes(len(x), x)), 1, total - 1)
            before = self._noisy("x_before", x0, step - 1)
            with poutine.scale(scale=float(total - 1)):
                if reverse:
                    with poutine.mask(mask=False):
                        after = pyro.sample("x_after", self.prior(x0))
                    pyro.sample("x_t", self.reverse_step(after, step + 1, y))
                else:
                    x_t = pyro.sample("x_t", self.forward_step(before, step))
                    with poutine.mask(mask=False):
                        pyro.sample("x_after", self.forward_step(x_t, step + 1))

    def _noisy(self, name: str, x0: Tensor, step: Tensor) -> Tensor:
        """x_t by a site for its noise, which also step 0 has, where x_t is a point."""
        signal, noise = scales(self.schedule.at_step(step), x0)
        return signal * x0 + noise * pyro.sample(f"noise of {name}", self.prior(x0))

    def _shared(self, x: Tensor, y: Tensor | None, reverse: bool) -> None:
        x0 = self.scaled(x)
        y = self.label(x, y) if reverse else y
        with pyro.plate("batch", len(x), dim=-1):
            self._ends(x, x0, y, reverse)
            if self.timesteps == 1:
                return
            with pyro.plate("steps", self.timesteps - 1, subsample_size=1, dim=-2) as index:
                step = cast(Tensor, index).to(x.device)[:, None] + 2  # (1, 1)
                x_t = pyro.sample("x_t", self.noised(x0[None], step))  # (1, n, *shape)
                law = (
                    self.reverse_step(x_t, step, y)
                    if reverse
                    else self.backward_step(x_t, x0[None], step)
                )
                pyro.sample("x_prev", law)

    def _ends(self, x: Tensor, x0: Tensor, y: Tensor | None, reverse: bool) -> None:
        """The sites x_T, x_1 and x of a program in which each is drawn from q(. | x_0)."""
        last = self._step(self.timesteps, x)
        pyro.sample("x_T", self.prior(x0) if reverse else self.noised(x0, last))
        self._reconstruct(x, x0, y, reverse)

    def _reconstruct(self, x: Tensor, x0: Tensor, y: Tensor | None, reverse: bool) -> None:
        first = self._step(1, x)
        x_1 = pyro.sample("x_1", self.noised(x0, first))
        if reverse:
            pyro.sample("x", self.observation(self.x0_at(x_1, first, y)), obs=x)

    def _collapsed(self, x: Tensor, y: Tensor | None, reverse: bool) -> None:
        x0 = self.scaled(x)
        y = self.label(x, y) if reverse else y
        total, share = self.timesteps, FIRST_SHARE if self.timesteps > 1 else 1.0
        with pyro.plate("batch", len(x)):
            last = self._step(total, x)
            pyro.sample("x_T", self.prior(x0) if reverse else self.noised(x0, last))
            first, later = first_or_later(pyro.sample("t", SpreadTimes(len(x), x)), share)
            step = torch.where(first, 1, step_at(later, 2, max(total, 2)))
            x_t = pyro.sample("x_t", self.noised(x0, step))
            towards = self.x0_at(x_t, step, y) if reverse else x0
            if reverse:
                with for_some(first, 1 / share):
                    pyro.sample("x", self.observation(towards), obs=x)
            if total > 1:
                weight = (total - 1) / (1 - share)
                with for_some(~first, weight):
                    pyro.sample("x_prev", self.backward_step(x_t, towards, step))

    def _normal(self, mean: Tensor, scale: Tensor) -> dist.Independent:
        return dist.Normal(mean, scale).to_event(len(self.shape))

    def _step(self, t: int, x: Tensor) -> Tensor:
        return torch.full((), t, dtype=torch.long, device=x.device)


class Form(PyroModule):
    """A view of a diffusion model under which another pair of programs is `model` and `guide`."""

    def __init__(self, program: DiffusionChain, name: FormName) -> None:
        super().__init__()
        self.program, self.name = program, name

    def likelihoods(self) -> list[Method]:
        """Those of the diffusion model; none where the whole chain is unrolled.

        The chain may be importance-weighted; the others are made for the mean of the log alone.
        """
        return [] if self.name in ("chain", "forward") else self.program.likelihoods()

    def _pair(self) -> tuple[Callable[..., None], Callable[..., None]]:
        program = self.program
        return {
            "collapsed": (program.model, program.guide),
            "chain": (program.chain_model, program.chain_guide),
            "forward": (program.chain_model, program.forward_guide),
            "first": (program.first_model, program.first_guide),
            "shared": (program.shared_model, program.shared_guide),
        }[self.name]

    def model(self, x: Tensor, y: Tensor | None = None) -> None:
        self._pair()[0](x, y)

    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        self._pair()[1](x, y)
