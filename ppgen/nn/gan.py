"""Generators and discriminators: multilayer perceptrons, and what all discriminators end with."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .spectral import linear

SLOPE = 0.2  # of leaky rectifiers, in all discriminators
EMBEDDING = 64  # dimensions of a label in a generator


class LatentInput(nn.Module):
    """(n, latents) and optionally one-hot labels (n, classes) -> (n, size): z beside W y.

    Attributes:
        size: of what comes out.
    """

    def __init__(self, latents: int, classes: int = 0) -> None:
        super().__init__()
        self.size = latents
        if classes:
            self.size += EMBEDDING
            self.embedding = nn.Linear(classes, EMBEDDING, bias=False)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return z if y is None else torch.cat([z, self.embedding(y)], -1)


class ProjectionHead(nn.Module):
    """Features (n, features) and optionally one-hot labels -> scores (n,).

    The score is w^T h + b + (V y)^T h: the form that the log-ratio of two class-conditional
    densities takes where both are log-linear in h (Miyato and Koyama 2018, eq. 3).
    """

    def __init__(self, features: int, classes: int = 0, spectral_norm: bool = False) -> None:
        super().__init__()
        self.score = linear(features, 1, spectral_norm)
        if classes:
            self.embedding = linear(classes, features, spectral_norm, bias=False)

    def forward(self, h: Tensor, y: Tensor | None = None) -> Tensor:
        score = self.score(h).squeeze(-1)
        return score if y is None else score + (self.embedding(y) * h).sum(-1)


class MLPGenerator(nn.Module):
    """(n, latents) and optionally one-hot labels -> (n, *shape), through rectifiers."""

    def __init__(
        self, latents: int, shape: Sequence[int], hidden: Sequence[int], *, classes: int = 0
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.start = LatentInput(latents, classes)
        layers: list[nn.Module] = []
        inputs = self.start.size
        for width in hidden:
            layers += [nn.Linear(inputs, width), nn.ReLU()]
            inputs = width
        self.layers = nn.Sequential(*layers, nn.Linear(inputs, math.prod(self.shape)))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.layers(self.start(z, y)).unflatten(-1, self.shape)


class MLPDiscriminator(nn.Module):
    """(n, *shape) and optionally one-hot labels -> scores (n,), through leaky rectifiers."""

    def __init__(
        self,
        shape: Sequence[int],
        hidden: Sequence[int],
        *,
        classes: int = 0,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        inputs = math.prod(shape)
        for width in hidden:
            layers += [linear(inputs, width, spectral_norm), nn.LeakyReLU(SLOPE)]
            inputs = width
        self.layers = nn.Sequential(*layers)
        self.head = ProjectionHead(inputs, classes, spectral_norm)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.head(self.layers(x), y)
