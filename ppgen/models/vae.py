"""The variational autoencoder (Kingma and Welling 2014; Rezende et al. 2014)."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ..names import one_of
from ..nn.conv import ConvDecoder, ConvEncoder
from ..nn.mlp import ACTIVATIONS, MLPDecoder, MLPEncoder
from ..program import Program
from .observation import (
    at_least_one,
    label_of,
    likelihood_for,
    log_scale_of,
    observation,
    outputs_of,
)


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
        self.latent_dim = at_least_one("latent_dim", latent_dim)
        self.levels = levels
        self.num_classes = num_classes
        self.likelihood = likelihood_for(likelihood, levels)
        one_of("prior", prior, ("standard", "conditional"))
        self.prior = prior
        classes = num_classes or 0
        parts = (self.shape, latent_dim, outputs_of(self.likelihood), classes)
        self.encoder, self.decoder = _networks(network, hidden, activation, normalise, *parts)
        if self.likelihood == "gaussian":
            self.log_scale = log_scale_of(scale)
        if prior == "conditional":
            if num_classes is None:
                raise ValueError("prior='conditional' is p(z | y): it needs num_classes")
            self.prior_network = nn.Embedding(num_classes, 2 * latent_dim)
            nn.init.zeros_(self.prior_network.weight)

    def model(self, x: Tensor, y: Tensor | None = None) -> None:
        label = label_of(self, x, y)
        with pyro.plate("batch", len(x)):
            z = pyro.sample("z", self._prior(x, y))
            pyro.sample("x", observation(self, self.decoder(z, label)), obs=x)

    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("batch", len(x)):
            pyro.sample("z", self.encode(x, y))

    def encode(self, x: Tensor, y: Tensor | None = None) -> dist.Independent:
        """The approximate posterior q(z | x[, y]), batch shape (n,), event shape (latent_dim,)."""
        loc, log_scale = self.encoder(x, label_of(self, x, y)).float().chunk(2, -1)
        return dist.Normal(loc, log_scale.exp()).to_event(1)

    def decode(self, z: Tensor, y: Tensor | None = None) -> dist.Independent:
        """The observation p(x | z[, y]) for z of shape (..., latent_dim)."""
        return observation(self, self.decoder(z, label_of(self, z, y)))

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The mean of p(x | z) at the posterior's mean z, shape (n, *shape)."""
        return self.decode(self.encode(x, y).mean, y).mean

    def _prior(self, x: Tensor, y: Tensor | None) -> dist.Independent:
        if self.prior == "conditional":
            loc, log_scale = self.prior_network(y).float().chunk(2, -1)
            return dist.Normal(loc, log_scale.exp()).to_event(1)
        loc = x.new_zeros(len(x), self.latent_dim)
        return dist.Normal(loc, torch.ones_like(loc)).to_event(1)


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
        at_least_one("hidden", width)
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
