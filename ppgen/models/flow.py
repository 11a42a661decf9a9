"""Normalizing flows: exact densities by invertible maps (Rezende and Mohamed 2015)."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ..distributions import Cut
from ..names import one_of
from ..nn.bijections import Bijection, BijectionTransform, Chain, Logistic, Standardise
from ..program import Program
from ..scoring import LOG_SQRT_2PI
from .dequantisation import UniformDequantiser, VariationalDequantiser
from .observation import label_of

Dequantisation = Literal["uniform", "variational"]


class _StandardNormal(dist.Normal):
    """N(0, 1), its log-density without the shift, division and logarithm of any other normal."""

    def log_prob(self, value: Tensor) -> Tensor:
        return -0.5 * value.square() - LOG_SQRT_2PI


class Flow(Program):
    """A normalizing flow: x = f(z), z ~ N(0, I), with f invertible.

    log p(x) = log N(z; 0, I) + log |det dz/dx|, z = f^{-1}(x). Reals are one observed site "x", and
    there is nothing to infer: the ELBO is the log-likelihood. Data with K levels are the cut
    picture: v ~ the flow over [0, 1]^D, x the level of the cell that v lies in. The latent
    v = (k + u) / K has a guide, the dequantiser of the noise u in [0, 1)^D: uniform (Theis et al.
    2016) or learned (Ho et al. 2019). Then the ELBO bounds the log-probability of the levels.

    A flow's density reaches a little beyond [0, 1]^D, what the margin of `Logistic` leaves there;
    draws from it count as the nearest level, and a likelihood leaves them out: one more reason why
    it is a bound.

    A flow of one's own is a subclass that hands its layers to the constructor; `MAF` and its
    siblings are such.

    Args:
        shape: of one example.
        bijection: f, from noise to reals, or to logits of v where there are levels.
        levels: of the data; None for reals.
        num_classes: classes of the label y, one-hot the context of every layer; None for none.
        dequantisation: "uniform" or "variational", for data with levels.
    """

    training_defaults: ClassVar[dict[str, float]] = {"lr": 1e-3, "clip_norm": 5.0}

    initialised: Tensor  # whether layers have had their start from data

    def __init__(
        self,
        shape: Sequence[int],
        bijection: Bijection,
        *,
        levels: int | None = None,
        num_classes: int | None = None,
        dequantisation: Dequantisation = "uniform",
    ) -> None:
        super().__init__()
        one_of("dequantisation", dequantisation, get_args(Dequantisation))
        self.shape = tuple(shape)
        self.levels, self.num_classes = levels, num_classes
        self.density = "exact" if levels is None else "bound"
        last = Standardise(self.shape) if levels is None else Logistic()
        self.bijection = Chain([bijection, last])
        if levels is not None:
            learned = dequantisation == "variational"
            noise = VariationalDequantiser if learned else UniformDequantiser
            self.dequantiser = noise(self.shape, levels)
        elif dequantisation == "variational":
            raise ValueError("dequantisation='variational' is for levels, and these data are reals")
        self.register_buffer("initialised", torch.zeros((), dtype=torch.uint8))

    def model(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("batch", len(x)):
            flow = self.distribution(len(x), label_of(self, x, y))
            if self.levels is None:
                pyro.sample("x", flow, obs=x)
            else:
                v = pyro.sample("v", flow)
                pyro.sample("x", Cut(v, self.levels).to_event(len(self.shape)), obs=x)

    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        if self.levels is not None:
            with pyro.plate("batch", len(x)):
                pyro.sample("v", self.dequantiser(x))

    def distribution(
        self, n: int, context: Tensor | None = None, temperature: float = 1.0
    ) -> dist.TransformedDistribution:
        """The flow, batch shape (n,), event shape `shape`; of x, or of v for data with levels."""
        like = next(self.parameters())
        loc = torch.zeros(n, *self.shape, dtype=like.dtype, device=like.device)
        kind = _StandardNormal if temperature == 1 else dist.Normal
        base = kind(loc, torch.full_like(loc, temperature)).to_event(len(self.shape))
        transform = BijectionTransform(self.bijection, self.shape, context)
        return dist.TransformedDistribution(base, [transform])

    def initialise(self, x: Tensor, y: Tensor | None = None) -> None:
        if self.initialised:
            return
        self.bijection.initialise(
            x if self.levels is None else self.dequantiser(x).sample(), label_of(self, x, y)
        )
        self.initialised.fill_(1)

    def generate(
        self, n: int, *conditions: Tensor, mean: bool = False, temperature: float = 1.0
    ) -> Any:
        """Draws of x = f(z); all noise is in z, so that `mean` asks for the same.

        Args:
            temperature: standard deviation of z; below 1 gives likelier, less varied draws
                (Kingma and Dhariwal 2018).
        """
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be positive and finite; got {temperature}")
        like = next(self.parameters())
        y = conditions[0] if conditions else None
        # What a draw of `distribution` does, without what it costs to make one.
        noise = temperature * torch.randn(n, *self.shape, dtype=like.dtype, device=like.device)
        drawn, _ = self.bijection(noise, label_of(self, like, y))
        return drawn if self.levels is None else Cut(drawn, self.levels).mean
