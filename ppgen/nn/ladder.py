"""The networks between the layers of a hierarchy of latents (Sønderby et al. 2016)."""

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .mlp import ACTIVATIONS, mlp


class GaussianMLP(nn.Module):
    """A diagonal Gaussian given the latents of another layer: p(z_t | z_{t+1}), q(z_{t+1} | z_t).

    (..., inputs) and optionally one-hot labels (n, classes) -> batch shape (...), event (outputs,).
    It starts close to N(0, I): what random layers say of each other is noise to the decoder, which
    then learns to overhear them all (after 700 steps on MNIST: 118.7 nats against 123.4).
    """

    def __init__(
        self,
        inputs: int,
        hidden: Sequence[int],
        outputs: int,
        *,
        classes: int = 0,
        activation: str = "gelu",
        normalise: bool = True,
    ) -> None:
        super().__init__()
        self.layers = mlp(
            inputs + classes, hidden, 2 * outputs, activation=activation, normalise=normalise
        )
        with torch.no_grad():
            for parameter in self.layers[-1].parameters():
                parameter.mul_(0.1)

    def forward(self, z: Tensor, y: Tensor | None = None) -> dist.Independent:
        if y is not None:
            z = torch.cat([z, y.expand(*z.shape[:-1], y.shape[-1])], -1)
        return gaussian(self.layers(z))


class UpwardPass(nn.Module):
    """The deterministic half of a ladder: what x says of each layer, the lowest first.

    d_1 = encoder(x), d_{t+1} = network_t(d_t); each d_t gives the layer's evidence by one linear
    map, as `merged` takes it (Sønderby et al. 2016, section 2).

    Args:
        encoder: (n, *shape) and optionally one-hot labels -> (n, width), d_1 before its activation.
        width: of d_1.
        latent_dims: of z_1, ..., z_L.
        hidden: widths of the layers of each network_t; the last is that of d_2, ..., d_L.
    """

    def __init__(
        self,
        encoder: nn.Module,
        width: int,
        latent_dims: Sequence[int],
        hidden: Sequence[int],
        *,
        activation: str = "gelu",
        normalise: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        style: dict[str, Any] = {"activation": activation, "normalise": normalise}
        widths = [width, *(hidden[-1] for _ in latent_dims[1:])]
        self.entrance = _activated(width, **style)
        self.networks = nn.ModuleList(
            nn.Sequential(
                mlp(below, hidden[:-1], hidden[-1], **style), _activated(hidden[-1], **style)
            )
            for below in widths[:-1]
        )
        self.heads = nn.ModuleList(
            nn.Linear(width, 2 * dim) for width, dim in zip(widths, latent_dims, strict=True)
        )

    def forward(self, x: Tensor, y: Tensor | None = None) -> list[tuple[Tensor, Tensor]]:
        """(shift, log-precision) of the evidence on z_1, ..., z_L, each (n, dims of the layer)."""
        d = [self.entrance(self.encoder(x, y))]
        for network in self.networks:
            d.append(network(d[-1]))
        evidence = []
        for head, features in zip(self.heads, d, strict=True):
            shift, log_precision = head(features).float().chunk(2, -1)
            evidence.append((shift, log_precision))
        return evidence


def _activated(width: int, *, activation: str, normalise: bool) -> nn.Sequential:
    norm = [nn.LayerNorm(width)] if normalise else []
    return nn.Sequential(*norm, ACTIVATIONS[activation]())


def gaussian(parameters: Tensor) -> dist.Independent:
    """The diagonal Gaussian of (..., 2 * dims) numbers, locations before log-scales, in float32."""
    loc, log_scale = parameters.float().chunk(2, -1)
    return dist.Normal(loc, log_scale.exp()).to_event(1)


def merged(law: dist.Independent, evidence: tuple[Tensor, Tensor]) -> dist.Independent:
    """A diagonal Gaussian times a Gaussian factor of evidence, normalised: precisions add.

    With w = precision / (precision + scale^-2), the share of the evidence, the product has location
    (1 - w) loc + w (the evidence's location) and variance (1 - w) scale^2 (Sønderby et al. 2016,
    section 2). The network gives w (the evidence's location) as one number: where it gives the
    location alone, the gradients of what x says vanish with w, and a layer that dies while the
    decoder is still blind never comes back (seen on MNIST in every run with a KL warm-up).

    Args:
        law: such as p(z_t | z_{t+1}).
        evidence: w times the location of the factor, and its log-precision. Zero and -infinity
            leave the law as it is.
    """
    shift, log_precision = evidence
    prior: dist.Normal = law.base_dist
    logit = log_precision + 2 * prior.scale.log()  # of w: nothing overflows
    loc = (-logit).sigmoid() * prior.loc + shift
    scale = prior.scale * (0.5 * F.logsigmoid(-logit)).exp()
    return dist.Normal(loc, scale).to_event(1)
