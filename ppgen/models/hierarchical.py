"""The hierarchical variational autoencoder (Rezende et al. 2014; Sønderby et al. 2016)."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Literal

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ..figures import Figure
from ..names import one_of
from ..nn.conv import ConvDecoder, ConvEncoder
from ..nn.ladder import GaussianMLP, UpwardPass, gaussian, merged
from ..nn.mlp import ACTIVATIONS, MLPDecoder, MLPEncoder
from ..program import Program
from .hierarchical_figures import hierarchy_figures
from .observation import (
    at_least_one,
    label_of,
    likelihood_for,
    log_scale_of,
    observation,
    outputs_of,
)


class HierarchicalVAE(Program):
    """A Markov chain of latents: p(x, z) = p(z_L) prod_t p(z_t | z_{t+1}) p(x | z_1).

    p(z_L) = N(0, I); every other conditional is a diagonal Gaussian by a network. The guide is

    - "bottom_up": q(z | x) = q(z_1 | x) prod_t q(z_{t+1} | z_t), the chain against its direction;
    - "top_down", the ladder: q(z | x) = q(z_L | x) prod_t q(z_t | z_{t+1}, x), where each factor is
      the model's own p(z_t | z_{t+1}) times the evidence of x on z_t, the precisions added
      (Sønderby et al. 2016, section 2; here p(z_L) is weighed in too). Its networks are
      the model's and one deterministic pass up from x.

    The ELBO has one title a layer. Top down `kl/z_t` is E_q KL(q(z_t | z_{t+1}, x) || p(z_t |
    z_{t+1})), zero where the layer says nothing of x: a dead layer. Bottom up it is E_q log q(z_t |
    z_{t-1}) / p(z_t | z_{t+1}), which may be negative below the top. Its options `kl_warmup` and
    `free_bits` keep layers alive, by default 0.6 and 1 nat: less suits data that hold little.
    With `num_classes` every conditional but p(z_L) knows the label.

    Args:
        shape: shape of one example, (C, H, W) for images.
        latent_dims: dimensions of z_1, ..., z_L, from x upwards.
        guide: "bottom_up" or "top_down".
        network: of p(x | z_1) and of what reads x: "mlp", or "conv", residual, for images.
        hidden: widths of the encoder's layers, those of the decoder in reverse. By default two of
            512 for "mlp", channels 32, 64 for "conv", each at half the size of the one before.
        latent_hidden: widths of the networks between two layers of latents.
        activation: "gelu", "relu", "tanh" or "silu", of the multilayer perceptrons.
        normalise: LayerNorm in them.
        likelihood: "bernoulli" (2 levels), "discretized_logistic" (probabilities of any number
            of levels), "gaussian" (a density), or None for the one that fits the data.
        scale: standard deviation of the Gaussian likelihood, or "learned" (one number, trained).
        num_classes: classes of the label y; None for no label.
        levels: levels of the data, 2 for binary; None for reals.

    Raises:
        ValueError: no layer, impossible numbers, unknown names, a likelihood that does not fit the
            levels.
    """

    density = "bound"
    # Both keep layers in use that would die while the decoder is still blind.
    objective_defaults: ClassVar[dict[str, Any]] = {"kl_warmup": 0.6, "free_bits": 1.0}

    def __init__(
        self,
        shape: Sequence[int],
        *,
        latent_dims: Sequence[int] = (64, 32, 16),
        guide: Literal["bottom_up", "top_down"] = "top_down",
        network: Literal["mlp", "conv"] = "mlp",
        hidden: Sequence[int] | None = None,
        latent_hidden: Sequence[int] = (256,),
        activation: Literal["gelu", "relu", "tanh", "silu"] = "gelu",
        normalise: bool = True,
        likelihood: Literal["bernoulli", "gaussian", "discretized_logistic"] | None = None,
        scale: float | Literal["learned"] = "learned",
        num_classes: int | None = None,
        levels: int | None = None,
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.latent_dims = _widths("latent_dims", latent_dims)
        self.levels = levels
        self.num_classes = num_classes
        self.likelihood = likelihood_for(likelihood, levels)
        one_of("guide", guide, ("bottom_up", "top_down"))
        one_of("network", network, ("mlp", "conv"))
        one_of("activation", activation, tuple(ACTIVATIONS))
        self.top_down = guide == "top_down"
        between = _widths("latent_hidden", latent_hidden)
        if hidden is None:
            hidden = (512, 512) if network == "mlp" else (32, 64)
        outer = _widths("hidden", hidden)
        style: dict[str, Any] = {"activation": activation, "normalise": normalise}
        label: dict[str, Any] = {"classes": num_classes or 0}
        read = outer[-1] if network == "mlp" else between[-1]  # numbers that the ladder has of x
        read = read if self.top_down else 2 * self.latent_dims[0]
        outputs = outputs_of(self.likelihood)
        encoder: nn.Module
        if network == "mlp":
            self.decoder: nn.Module = MLPDecoder(
                self.latent_dims[0], self.shape, outer, outputs=outputs, **style, **label
            )
            widths = outer[:-1] if self.top_down else outer
            encoder = MLPEncoder(self.shape, read, widths, **style, **label)
        else:
            if len(self.shape) != 3:
                raise ValueError(f"network='conv' takes images (C, H, W); got {self.shape}")
            image = (self.shape[0], self.shape[1], self.shape[2])
            self.decoder = ConvDecoder(
                self.latent_dims[0], image, outer, outputs=outputs, residual=True, **label
            )
            encoder = ConvEncoder(image, read, outer, residual=True, **label)
        layers = list(zip(self.latent_dims, self.latent_dims[1:], strict=False))
        self.down = nn.ModuleList(  # p(z_t | z_{t+1}), t = 1, ..., L - 1
            GaussianMLP(above, between, below, **style, **label) for below, above in layers
        )
        if self.top_down:
            self.recognition = UpwardPass(encoder, read, self.latent_dims, between, **style)
        else:
            self.encoder = encoder
            self.up = nn.ModuleList(  # q(z_{t+1} | z_t), t = 1, ..., L - 1
                GaussianMLP(below, between, above, **style, **label) for below, above in layers
            )
        if self.likelihood == "gaussian":
            self.log_scale = log_scale_of(scale)

    def model(self, x: Tensor, y: Tensor | None = None) -> None:
        label = label_of(self, x, y)
        with pyro.plate("batch", len(x)):
            z = pyro.sample(f"z_{len(self.latent_dims)}", self._top(x))
            for t in range(len(self.latent_dims) - 1, 0, -1):
                z = pyro.sample(f"z_{t}", self.down[t - 1](z, label))
            pyro.sample("x", observation(self, self.decoder(z, label)), obs=x)

    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("batch", len(x)):
            self._infer(x, label_of(self, x, y), pyro.sample)

    def _infer(
        self, x: Tensor, label: Tensor | None, draw: Callable[[str, dist.Independent], Tensor]
    ) -> None:
        """The guide's chain; `draw` gives the value of each layer from its name and its law."""
        layers = len(self.latent_dims)
        if self.top_down:
            evidence = self.recognition(x, label)
            z = draw(f"z_{layers}", merged(self._top(x), evidence[-1]))
            for t in range(layers - 1, 0, -1):
                z = draw(f"z_{t}", merged(self.down[t - 1](z, label), evidence[t - 1]))
        else:
            z = draw("z_1", gaussian(self.encoder(x, label)))
            for t in range(2, layers + 1):
                z = draw(f"z_{t}", self.up[t - 2](z, label))

    def encode(self, x: Tensor, y: Tensor | None = None) -> dict[str, dist.Independent]:
        """The guide's law of each layer by name, given the means of the layers drawn before it.

        Batch shapes (n,), event shapes (latent_dims[t - 1],).
        """
        laws: dict[str, dist.Independent] = {}

        def mean(name: str, law: dist.Independent) -> Tensor:
            laws[name] = law
            return law.mean

        self._infer(x, label_of(self, x, y), mean)
        return laws

    def decode(self, z: Tensor, y: Tensor | None = None) -> dist.Independent:
        """The observation p(x | z_1[, y]) for z_1 of shape (..., latent_dims[0])."""
        return observation(self, self.decoder(z, label_of(self, z, y)))

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The mean of p(x | z_1) at the guide's means, shape (n, *shape)."""
        return self.decode(self.encode(x, y)["z_1"].mean, y).mean

    def figures(self, *batch: Tensor) -> Iterator[Figure]:
        """The KL of each layer, and samples with the upper layers held fixed."""
        return hierarchy_figures(self, *batch)

    def _top(self, x: Tensor) -> dist.Independent:
        """p(z_L) = N(0, I) for each example of x."""
        loc = x.new_zeros(len(x), self.latent_dims[-1])
        return dist.Normal(loc, torch.ones_like(loc)).to_event(1)


def _widths(name: str, values: Sequence[int]) -> tuple[int, ...]:
    if isinstance(values, int) or not values:
        raise ValueError(f"{name} must name one width or more, as in ({values or 64},)")
    return tuple(at_least_one(name, value) for value in values)
