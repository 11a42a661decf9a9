"""The variational autoencoder (Kingma and Welling 2014; Rezende et al. 2014)."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributions import DiscretizedLogistic
from ..names import one_of
from ..nn.conv import ConvDecoder, ConvEncoder
from ..nn.mlp import ACTIVATIONS, MLPDecoder, MLPEncoder
from ..program import Program

LIKELIHOODS = ("bernoulli", "gaussian", "discretized_logistic")


class VAE(Program):
    """The variational autoencoder: p(x, z) = N(z; 0, I) p(x | z), q(z | x) a diagonal Gaussian.

    An infinite mixture: every z is a component. With `num_classes` it is the conditional VAE,
    p(x, z | y) (Sohn et al. 2015). A weight on the KL (beta-VAE) and its warm-up belong to the
    objective `ELBO`.

    Args:
        shape: shape of one example, (C, H, W) for images.
        latent_dim: dimensions of z.
        hidden: widths of the layers, those of the decoder in reverse. By default two of 512 for
            "mlp", channels 32, 64, 128 for "conv".
        network: "mlp", "conv" (images), or a module with two parts, `encoder(x, y)` giving
            (n, 2 * latent_dim) and `decoder(z, y)` giving (..., outputs, *shape); y is one-hot
            or None, outputs is 2 for "discretized_logistic" and 1 otherwise.
        activation: "gelu", "relu", "tanh" or "silu", of the "mlp" network.
        normalise: LayerNorm in the "mlp" network.
        likelihood: "bernoulli" (2 levels), "discretized_logistic" (probabilities of any number
            of levels), "gaussian" (a density), or None for the one that fits the data.
        scale: standard deviation of the Gaussian likelihood, or "learned" (one number, trained).
        num_classes: classes of the label y; None for no label.
        prior: "standard", p(z) = N(0, I), or "conditional", p(z | y) with a Gaussian a class.
        levels: levels of the data, 2 for binary; None for reals.

    Raises:
        ValueError: impossible numbers, unknown names, a likelihood that does not fit the levels.
    """

    density = "bound"
    # A KL that comes in slowly keeps latents in use that would collapse at the start.
    objective_defaults: ClassVar[dict[str, Any]] = {"kl_warmup": 0.2}

    def __init__(
        self,
        shape: Sequence[int],
        *,
        latent_dim: int = 32,
        hidden: Sequence[int] | None = None,
        network: str | nn.Module = "mlp",
        activation: Literal["gelu", "relu", "tanh", "silu"] = "gelu",
        normalise: bool = True,
        likelihood: Literal["bernoulli", "gaussian", "discretized_logistic"] | None = None,
        scale: float | Literal["learned"] = "learned",
        num_classes: int | None = None,
        prior: Literal["standard", "conditional"] = "standard",
        levels: int | None = None,
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.latent_dim = _at_least_one("latent_dim", latent_dim)
        self.levels = levels
        self.num_classes = num_classes
        self.likelihood = _likelihood(likelihood, levels)
        one_of("prior", prior, ("standard", "conditional"))
        self.prior = prior
        classes = num_classes or 0
        outputs = 2 if self.likelihood == "discretized_logistic" else 1
        parts = (self.shape, latent_dim, outputs, classes)
        self.encoder, self.decoder = _networks(network, hidden, activation, normalise, *parts)
        if self.likelihood == "gaussian":
            if scale != "learned" and not (isinstance(scale, (int, float)) and scale > 0):
                raise ValueError(f"scale must be positive or 'learned'; got {scale!r}")
            value = torch.tensor(0.0 if scale == "learned" else math.log(scale))
            self.log_scale = nn.Parameter(value, requires_grad=scale == "learned")
        if prior == "conditional":
            if num_classes is None:
                raise ValueError("prior='conditional' is p(z | y): it needs num_classes")
            self.prior_network = nn.Embedding(num_classes, 2 * latent_dim)
            nn.init.zeros_(self.prior_network.weight)

    def model(self, x: Tensor, y: Tensor | None = None) -> None:
        label = self._label(x, y)
        with pyro.plate("batch", len(x)):
            z = pyro.sample("z", self._prior(x, y))
            pyro.sample("x", self._observation(self.decoder(z, label)), obs=x)

    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("batch", len(x)):
            pyro.sample("z", self.encode(x, y))

    def encode(self, x: Tensor, y: Tensor | None = None) -> dist.Independent:
        """The approximate posterior q(z | x[, y]), batch shape (n,), event shape (latent_dim,)."""
        loc, log_scale = self.encoder(x, self._label(x, y)).float().chunk(2, -1)
        return dist.Normal(loc, log_scale.exp()).to_event(1)

    def decode(self, z: Tensor, y: Tensor | None = None) -> dist.Independent:
        """The observation p(x | z[, y]) for z of shape (..., latent_dim)."""
        return self._observation(self.decoder(z, self._label(z, y)))

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The mean of p(x | z) at the posterior's mean z, shape (n, *shape)."""
        return self.decode(self.encode(x, y).mean, y).mean

    def _label(self, like: Tensor, y: Tensor | None) -> Tensor | None:
        if self.num_classes is None:
            return None
        if y is None:
            raise ValueError(
                f"this VAE is conditional on {self.num_classes} classes: labels y needed"
            )
        return F.one_hot(y, self.num_classes).to(like.dtype)

    def _prior(self, x: Tensor, y: Tensor | None) -> dist.Independent:
        if self.prior == "conditional":
            loc, log_scale = self.prior_network(y).float().chunk(2, -1)
            return dist.Normal(loc, log_scale.exp()).to_event(1)
        loc = x.new_zeros(len(x), self.latent_dim)
        return dist.Normal(loc, torch.ones_like(loc)).to_event(1)

    def _observation(self, outputs: Tensor) -> Any:
        event = len(self.shape)
        first, *rest = outputs.float().unbind(-event - 1)  # each (..., *shape)
        if self.likelihood == "bernoulli":
            return dist.Bernoulli(logits=first).to_event(event)
        if self.likelihood == "gaussian":
            return dist.Normal(first, self.log_scale.exp().expand_as(first)).to_event(event)
        # Centred on mid-grey with a broad start; the floor keeps a level's width resolvable.
        levels = self.levels or 256
        log_scale = (rest[0] - 2.0).clamp(min=-math.log(levels) - 4.0)
        return DiscretizedLogistic(first + 0.5, log_scale, levels).to_event(event)


def _networks(
    network: str | nn.Module,
    hidden: Sequence[int] | None,
    activation: str,
    normalise: bool,
    shape: tuple[int, ...],
    latents: int,
    outputs: int,
    classes: int,
) -> tuple[nn.Module, nn.Module]:
    if isinstance(network, nn.Module):
        for part in ("encoder", "decoder"):
            if not isinstance(getattr(network, part, None), nn.Module):
                raise ValueError(f"the network {type(network).__name__} has no module `{part}`")
        return network.encoder, network.decoder  # type: ignore[return-value]
    one_of("network", network, ("mlp", "conv"))
    one_of("activation", activation, tuple(ACTIVATIONS))
    widths = tuple(
        hidden if hidden is not None else (512, 512) if network == "mlp" else (32, 64, 128)
    )
    for width in widths:
        _at_least_one("hidden", width)
    if network == "mlp":
        style: dict[str, Any] = {"activation": activation, "normalise": normalise}
        encoder = MLPEncoder(shape, 2 * latents, widths, classes=classes, **style)
        return encoder, MLPDecoder(
            latents, shape, widths, outputs=outputs, classes=classes, **style
        )
    if len(shape) != 3 or not widths:
        raise ValueError(f"network='conv' takes images (C, H, W) and hidden channels; got {shape}")
    image = (shape[0], shape[1], shape[2])
    decoder = ConvDecoder(latents, image, widths, outputs=outputs, classes=classes)
    return ConvEncoder(image, 2 * latents, widths, classes=classes), decoder


def _likelihood(likelihood: str | None, levels: int | None) -> str:
    if likelihood is None:
        return {None: "gaussian", 2: "bernoulli"}.get(levels, "discretized_logistic")
    one_of("likelihood", likelihood, LIKELIHOODS)
    if likelihood == "bernoulli" and levels not in (None, 2):
        raise ValueError(
            f"likelihood='bernoulli' is a probability of 2 levels and the data have {levels}: "
            "binarize the data (binarize='dynamic') or use 'discretized_logistic'"
        )
    if likelihood == "discretized_logistic" and levels is None:
        raise ValueError(
            "likelihood='discretized_logistic' is a probability of levels and these data are reals "
            "(levels=None): use 'gaussian', or give levels"
        )
    return likelihood


def _at_least_one(name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{name} must be 1 or more; got {value}")
    return value
