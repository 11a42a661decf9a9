"""Diffusion models as hierarchical VAEs (Sohl-Dickstein et al. 2015; Ho, Jain and Abbeel 2020)."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, ClassVar, Literal, cast, get_args

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributions import DiscretizedLogistic
from ..figures import Figure
from ..likelihood import Measure, Method
from ..names import one_of
from ..nn.embed import check_labels
from ..nn.mlp_denoiser import MLPDenoiser
from ..nn.parameterisation import PREDICTIONS
from ..nn.schedules import LearnedSchedule, Schedule, TableSchedule, make_schedule
from ..nn.unet import UNet
from ..objective import Objective
from ..seeding import seeded
from . import samplers
from .diffusion_chain import DiffusionChain
from .diffusion_continuous import ContinuousTime
from .diffusion_figures import diffusion_figures
from .diffusion_objectives import DenoisingLoss, DiffusionELBO, Weighting
from .diffusion_terms import step_terms
from .flow_terms import FlowStart, flow_terms
from .guidance import guided
from .inference import Precision, inference_precision

# An ODE is solved for so many examples by default: each takes hundreds of calls of the network.
ODE_EXAMPLES = 64
PICTURE_STEPS = 50
# The bound is made of all its terms where they are no more than these, else of some.
ALL_STEPS, SOME_STEPS = 100, 20


class Diffusion(DiffusionChain):
    """Diffusion: a Markov hierarchical VAE whose encoder is a fixed Gaussian process of noise.

    Three restrictions make it one: every latent has the shape of the data, the encoder is a fixed
    linear Gaussian, and the last latent is a standard Gaussian.

    The chain is p(x_T) prod_{t=2}^T p(x_{t-1} | x_t) p(x | x_1), see `chain_model`. `model` and
    `guide` are a collapsed program with the same ELBO, in which each example has one step t, and
    calls the network once: t and x_t have the same law in both; x_T is an ordinary site. A share s
    of the examples has t = 1 and reconstructs x from x_1, weighed by 1 / s; of the others x_{t-1}
    has p(. | x_t) in the model and q(. | x_t, x_0) in the guide, weighed by (T - 1) / (1 - s). In
    nats,

        ELBO = E log p(x | x_1) - KL(q(x_T | x_0) || p(x_T))
               - (T - 1) E_{t > 1} KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)),

    where a step's KL is (1/2) (SNR(t-1) - SNR(t)) E ||x_0_hat(x_t) - x_0||^2. The reconstruction
    is a probability of levels: the discretised logistic around the datum that the network sees in
    x_1, with one learned scale for each level that it sees; for reals a Gaussian density with one
    learned scale.

    For reals a chain of the named schedules loses nats even with a perfect network: its first steps
    divide SNR(t) by (t + 1) / t, which the fixed variance of a reverse step pays for with
    (1/2) sum_t [1/t - log(1 + 1/t)], towards half of Euler's constant, 0.29 nats a dimension, as T
    grows. Continuous time, schedule="learned", loses nothing.

    Args:
        shape: shape of one example, (C, H, W) for images.
        timesteps: T.
        schedule: "linear" (of T = 1000; for others its variances times 1000 / T), "cosine",
            "learned" (in continuous time, without `timesteps`; see `ContinuousTime`), or a
            `TableSchedule` or `LearnedSchedule`, whose timesteps then hold.
        predict: "noise", "x0", "v", "mean" (of x_{t-1}) or "score"; the network's output is that
            quantity itself. v is the default: x_0 follows from it without a division by a small
            signal, as it does from the noise where little signal is left (at the last steps of
            "cosine" such an error of x_0 costs tens of thousands of nats at first).
        weighting: what `fit` minimises: "elbo"; "simple", the squared error of the noise (Ho et
            al. 2020, eq. 14); "min_snr", the same with its weight clipped (Hang et al. 2023).
        network: "unet" (images), "mlp" (vectors and tiny images), or a module `network(x, t[, y])`
            for x (n, *shape) in about [-1, 1], t (n,) in [0, 1], y (n,) class indices among which
            `num_classes` stands for no class.
        channels: channels of the U-Net at full resolution.
        multipliers: channels of each of its resolutions, as multiples of `channels`.
        blocks: its residual blocks a resolution.
        attention: its resolutions with self-attention; None for the finest of at most 16.
        hidden: widths of the "mlp" network's layers.
        dropout: of the U-Net.
        num_classes: classes of the label y; None for no label.
        label_dropout: how often in training the label is left out, which is what classifier-free
            guidance needs (Ho and Salimans 2022).
        levels: levels of the data, 2 for binary; None for reals, best of about unit size.

    Raises:
        ValueError: impossible numbers, unknown names, sizes that do not fit the network.
        TypeError: a schedule that is none.
    """

    training_defaults: ClassVar[dict[str, float]] = {"lr": 1e-3, "clip_norm": 1.0, "ema": 0.999}
    picture_count: ClassVar[int] = 40
    picture_words: ClassVar[str] = "the datum that the network sees at the last step of ddim"

    def __init__(
        self,
        shape: Sequence[int],
        *,
        timesteps: int = 1000,
        schedule: str | Schedule = "linear",
        predict: Literal["noise", "x0", "v", "mean", "score"] = "v",
        weighting: Weighting = "elbo",
        network: str | nn.Module = "unet",
        channels: int = 32,
        multipliers: Sequence[int] = (1, 2, 4),
        blocks: int = 2,
        attention: Sequence[int] | None = None,
        hidden: Sequence[int] = (256, 256, 256),
        dropout: float = 0.0,
        num_classes: int | None = None,
        label_dropout: float = 0.1,
        levels: int | None = None,
    ) -> None:
        super().__init__()
        one_of("predict", predict, PREDICTIONS)
        one_of("weighting", weighting, get_args(Weighting))
        if not 0 <= label_dropout < 1:
            raise ValueError(f"label_dropout must be at least 0 and below 1; got {label_dropout}")
        if levels is not None and levels < 2:
            raise ValueError(f"levels must be 2 or more, or None for reals; got {levels}")
        self.shape = tuple(shape)
        self.predict, self.weighting = predict, weighting
        self.num_classes, self.label_dropout = num_classes, label_dropout
        self.levels = levels
        if not isinstance(schedule, nn.Module):
            schedule = make_schedule(schedule, timesteps)
        if not isinstance(schedule, (TableSchedule, LearnedSchedule)):
            raise TypeError(
                "schedule must be a name, a TableSchedule or a LearnedSchedule; got "
                f"{type(schedule).__name__}"
            )
        if isinstance(schedule, LearnedSchedule) and (predict == "mean" or weighting != "elbo"):
            raise ValueError(
                "a learned schedule is trained by its bound, in continuous time: it needs "
                "weighting='elbo', and there is no step whose mean could be predicted; got "
                f"weighting={weighting!r}, predict={predict!r}"
            )
        self.schedule = cast(TableSchedule, schedule)
        if isinstance(network, nn.Module):
            self.network = network
        else:
            one_of("network", network, ("unet", "mlp"))
            self.network = (
                MLPDenoiser(shape, hidden=hidden, num_classes=num_classes)
                if network == "mlp"
                else UNet(
                    shape,
                    channels=channels,
                    multipliers=multipliers,
                    blocks=blocks,
                    attention=attention,
                    num_classes=num_classes,
                    dropout=dropout,
                )
            )
            # Convolutions then take less time, on images of any format.
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        # As wide as x_1 / signal is around x_0: right as long as the network does nothing.
        first = torch.tensor(0.0 if schedule.timesteps is None else 1 / schedule.timesteps)
        ratio = math.exp(-0.5 * schedule.log_snr(first).item())
        spread = min(ratio, 1.0) * (1.0 if levels is None else 0.5 * math.sqrt(3) / math.pi)
        self.log_scale = nn.Parameter(torch.full((levels or 1,), math.log(spread)))

    def model(self, x: Tensor, y: Tensor | None = None) -> None:
        self._program(x, y, reverse=True)

    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        self._program(x, y, reverse=False)

    def _program(self, x: Tensor, y: Tensor | None, reverse: bool) -> None:
        continuous = self._continuous()
        if continuous is None:
            self._collapsed(x, y, reverse)
        else:
            continuous.run(x, y, reverse)

    def _continuous(self) -> ContinuousTime | None:
        schedule: Schedule = self.schedule
        return ContinuousTime(self, schedule) if isinstance(schedule, LearnedSchedule) else None

    def objectives(self) -> dict[str, Objective]:
        if self.weighting == "elbo":
            return {"elbo": DiffusionELBO(self)}
        return {self.weighting: DenoisingLoss(self, self.weighting)}

    def scaled(self, x: Tensor) -> Tensor:
        return x if self.levels is None else 2 * x - 1

    def observation(self, x0: Tensor) -> Any:
        events = len(self.shape)
        if self.levels is None:
            return dist.Normal(x0, self.log_scale.exp().expand_as(x0)).to_event(events)
        loc, top = (x0 + 1) / 2, self.levels - 1
        # The scale by the level that the network sees: what is plain black is sure, greys are not.
        seen = (loc.detach() * top).round().nan_to_num(0.0).clamp(0, top).long()
        # A soft floor, where a level is sure: below a hard one a parameter would stay for good.
        floor = -math.log(self.levels) - 4.0
        log_scale = floor + F.softplus(self.log_scale - floor)
        return DiscretizedLogistic(loc, log_scale[seen], self.levels).to_event(events)

    def label(self, x: Tensor, y: Tensor | None) -> Tensor | None:
        y = self._given(x, y)
        if y is None or not self.training or self.label_dropout == 0:
            return y
        dropped = torch.rand(y.shape, device=y.device) < self.label_dropout
        return torch.where(dropped, self.num_classes or 0, y)

    def _given(self, x: Tensor, y: Tensor | None) -> Tensor | None:
        """The labels, one an example; those of a data set mean nothing to a model without classes.

        Raises:
            ValueError: none, or too few or many, to a model with classes.
        """
        if self.num_classes is None:
            return None
        if y is None:
            raise ValueError(
                f"this Diffusion is conditional on {self.num_classes} classes: labels y needed"
            )
        if len(y) != len(x):
            raise ValueError(f"expected a label for each of {len(x)} examples; got {len(y)}")
        return y

    def log_prob(self, x: Tensor, *conditions: Tensor, num_particles: int = 1) -> Tensor:
        """The variational bound, nats per example, shape (n,): minus the sum of `bound_terms`."""
        terms = self.bound_terms(x, *conditions, num_particles=num_particles)
        return -torch.stack(list(terms.values())).sum(0)

    def bound_terms(
        self, x: Tensor, *conditions: Tensor, num_particles: int = 1
    ) -> dict[str, Tensor]:
        """The three terms of the negative ELBO by title, nats per example, each of shape (n,).

        See `step_terms`: unbiased, so that where steps are left out one value may lie above the
        truth by chance, and means over many examples do not. Draws are averaged, never importance-
        weighted: each step sees an x_t of its own, so that exp of the summed log-ratios averages
        to no likelihood, and the log of a mean of them would be no bound.

        Args:
            x: float32, shape (n, *shape).
            num_particles: denoising terms an example, each a call of the network; T - 1 are all.

        Raises:
            ValueError: num_particles < 1, labels missing or out of range.
        """
        if num_particles < 1:
            raise ValueError(f"num_particles must be 1 or more; got {num_particles}")
        found = step_terms(self, x, *conditions, stretches=num_particles, progress=False)
        return {
            "reconstruction": found.reconstruction,
            "prior_matching": found.prior_matching,
            "denoising_matching": found.matching.sum(1),
        }

    def likelihoods(self) -> list[Method]:
        """The variational bound, and estimates by the probability-flow ODE; see `ode_terms`."""
        measure: Measure = "density" if self.levels is None else "probability"
        most = None if self.schedule.timesteps is None else max(self.timesteps - 1, 1)
        bound = Method(
            "variational bound",
            "bound",
            measure,
            self.bound_terms,
            particles=most if most and most <= ALL_STEPS else SOME_STEPS,
            unit="steps",
            most=most,
        )

        def flow(name: str, start: FlowStart) -> Method:
            terms = partial(self.ode_terms, start=start)
            return Method(name, "estimate", measure, terms, 1, "probes", ODE_EXAMPLES)

        if self.levels is None:
            return [bound, flow("probability-flow ODE", "datum")]
        return [
            bound,
            flow("probability-flow ODE from x_1", "first step"),
            flow("probability-flow ODE, uniform dequantisation", "datum"),
        ]

    def ode_terms(
        self,
        x: Tensor,
        *conditions: Tensor,
        num_particles: int = 1,
        start: FlowStart = "datum",
        **options: Any,
    ) -> dict[str, Tensor]:
        """Minus log p(x) of the probability-flow ODE by terms, nats per example; see `flow_terms`.

        Args:
            num_particles: probes of the trace.
            start: "datum" or "first step".
            options: of `ode_log_likelihood`.
        """
        y = self.scored_labels(x, *conditions)
        denoise = self.denoiser(y)
        return flow_terms(self, denoise, x, start, probes=num_particles, **options)

    def denoiser(
        self, y: Tensor | None = None, *, guidance: float = 1.0
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """denoise(x, t) -> x_0_hat, what the samplers take: x (n, *shape), t (n,) in [0, 1].

        Args:
            y: (n,) labels, or None for the unconditional model.
            guidance: scale of classifier-free guidance: 0 leaves the label out, 1 is the
                conditional model, more follows the label more closely; see `guidance.guided`.

        Raises:
            ValueError: guidance without labels, labels out of range or of a model without classes.
        """
        y = self._checked(*() if y is None else (y,))
        if self.num_classes is not None and not self.label_dropout and (y is None or guidance != 1):
            raise ValueError(
                "this model was built with label_dropout=0 and knows nothing without labels: give "
                "labels y, and no guidance"
            )
        schedule, continuous = self.schedule, self._continuous()
        first = 0.0 if continuous is not None else 1.0 / self.timesteps

        def denoise(x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
            if continuous is not None:
                return continuous.x0_at(x, t, y)
            before = schedule.log_snr((t - first).clamp(min=0.0))
            before = torch.where(t > 1.5 * first, before, math.inf)  # step 1 leads to the datum
            return self.predicted_x0(x, t, schedule.log_snr(t), before, y)

        if y is None:
            if guidance != 1:
                raise ValueError("guidance needs labels y, of a model with num_classes")
            return denoise
        nothing = torch.full_like(y, self.num_classes or 0)
        return guided(denoise, y, nothing, guidance)

    def generate(
        self,
        n: int,
        *conditions: Tensor,
        mean: bool = False,
        sampler: str | None = None,
        guidance: float = 1.0,
        known: Tensor | None = None,
        precision: Precision = "auto",
        **options: Any,
    ) -> Tensor:
        """The hook behind `sample`: run a sampler of `ppgen.models.samplers` down the chain.

        Args:
            mean: give the datum that the last step sees, instead of a draw of p(x | x_1).
            sampler: a name of `samplers.SAMPLERS`. By default a draw is the program's own,
                "ancestral" over all steps (250 where time is continuous), and so is inpainting;
                a mean, the usual picture, takes 50 steps, of "ddim" where nothing is known.
            guidance: see `denoiser`.
            known: for inpainting, with `mask`: what to keep, in the data's own units.
            precision: of the network, "32-true" or "bf16-mixed"; "auto", the default, is bfloat16
                for networks with convolutions where the machine has it natively.
            options: of the sampler, such as steps, eta, mask, seed, callback. The x_0 of data with
                levels is clipped to their range, unless threshold says otherwise.
        """
        denoise = self.denoiser(*conditions, guidance=guidance)
        place = self.log_scale.device
        if options.get("steps") is None:
            most = samplers.default_steps(sampler or "ancestral", self.schedule)
            options["steps"] = min(most, PICTURE_STEPS) if mean and sampler is None else most
        if sampler is None:
            sampler = "ddim" if mean and known is None else "ancestral"
        if self.levels is not None:
            options.setdefault("threshold", "clip")
        if known is not None:
            known = known.to(place, self.log_scale.dtype)
            if self.levels is not None and not (known.min() >= 0 and known.max() <= 1):
                raise ValueError(
                    "known must be in the units of the data, levels scaled to [0, 1]; got values "
                    f"from {known.min():.4g} to {known.max():.4g}"
                )
            options["known"] = self.scaled(known)
        shape = (n, *self.shape)
        with inference_precision(precision, self.network, place):
            x0 = samplers.sample(denoise, self.schedule, shape, sampler=sampler, **options)
        picture = x0 if self.levels is None else ((x0 + 1) / 2).clamp(0, 1)
        seed = options.get("seed")
        with nullcontext() if seed is None else seeded(seed + 1, place):
            x = picture if mean else self.observation(x0).sample()
        return x if known is None else torch.where(options["mask"].to(place), known, x)

    def figures(self, *batch: Tensor) -> Iterator[Figure]:
        """Samples out of noise, the schedule, the bound by its steps, the score, inpainting."""
        return diffusion_figures(self, *batch)

    def scored_labels(self, x: Tensor, y: Tensor | None = None) -> Tensor | None:
        """The labels of examples to be scored, checked; None for a model without classes."""
        return self._checked(self._given(x, y))

    def _checked(self, y: Tensor | None = None) -> Tensor | None:
        if y is None:
            return None
        if self.num_classes is None:
            raise ValueError("labels y were given to a Diffusion without num_classes")
        check_labels(y, self.num_classes)
        if (y == self.num_classes).any():
            raise ValueError(
                f"labels y must be 0 to {self.num_classes - 1}; got {self.num_classes}, which "
                "stands for no label inside the network: leave y out for that"
            )
        return y
