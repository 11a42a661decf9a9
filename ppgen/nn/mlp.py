"""Multilayer perceptrons as the encoder and decoder of a latent-variable model."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU, "tanh": nn.Tanh, "silu": nn.SiLU}


def mlp(
    inputs: int, hidden: Sequence[int], outputs: int, *, activation: str, normalise: bool
) -> nn.Sequential:
    """Linear layers with an activation between them, and LayerNorm before it if asked."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers.append(nn.Linear(inputs, width))
        if normalise:
            layers.append(nn.LayerNorm(width))
        layers.append(ACTIVATIONS[activation]())
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


class MLPEncoder(nn.Module):
    """(n, *shape) and optionally one-hot labels (n, classes) -> (n, outputs)."""

    def __init__(
        self,
        shape: tuple[int, ...],
        outputs: int,
        hidden: Sequence[int],
        *,
        classes: int = 0,
        activation: str = "gelu",
        normalise: bool = True,
    ) -> None:
        super().__init__()
        self.dims = len(shape)
        self.layers = mlp(
            math.prod(shape) + classes, hidden, outputs, activation=activation, normalise=normalise
        )

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        flat = x.flatten(-self.dims)
        if y is not None:
            flat = torch.cat([flat, y], -1)
        return self.layers(flat)


class MLPDecoder(nn.Module):
    """(..., latents) and optionally one-hot labels -> (..., outputs, *shape)."""

    def __init__(
        self,
        latents: int,
        shape: tuple[int, ...],
        hidden: Sequence[int],
        *,
        outputs: int = 1,
        classes: int = 0,
        activation: str = "gelu",
        normalise: bool = True,
    ) -> None:
        super().__init__()
        self.shape = (outputs, *shape)
        self.layers = mlp(
            latents + classes,
            tuple(reversed(hidden)),
            math.prod(self.shape),
            activation=activation,
            normalise=normalise,
        )

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        if y is not None:
            z = torch.cat([z, y.expand(*z.shape[:-1], y.shape[-1])], -1)
        return self.layers(z).unflatten(-1, self.shape)
