"""Residual generator and discriminator (Gulrajani et al. 2017; Miyato et al. 2018)."""

import itertools
import math

import torch.nn.functional as F
from torch import Tensor, nn

from .dcgan import NORMS, Normalise, resolutions, widths_of
from .gan import LatentInput, ProjectionHead
from .spectral import conv


class _Up(nn.Module):
    """A residual block that enlarges its image to a size: norm, rectifier, convolution, twice."""

    def __init__(
        self, inputs: int, outputs: int, size: tuple[int, int], normalise: Normalise
    ) -> None:
        super().__init__()
        self.size = size
        self.norms = nn.ModuleList([NORMS[normalise](inputs), NORMS[normalise](outputs)])
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(F.interpolate(self.norms[0](x).relu(), self.size))
        h = self.second(self.norms[1](h).relu())
        return h + F.interpolate(self.skip(x), self.size)


class _Down(nn.Module):
    """A residual block that halves its image by averaging, sides rounded down; no norm."""

    def __init__(self, inputs: int, outputs: int, spectral_norm: bool, first: bool) -> None:
        super().__init__()
        self.rectify = not first  # an image is not rectified
        self.first = conv(inputs, outputs, 3, spectral_norm)
        self.second = conv(outputs, outputs, 3, spectral_norm)
        self.skip = conv(inputs, outputs, 1, spectral_norm)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x.relu() if self.rectify else x).relu()
        return F.avg_pool2d(self.second(h), 2) + self.skip(F.avg_pool2d(x, 2))


class ResNetGenerator(nn.Module):
    """(n, latents) and optionally one-hot labels -> (n, C, H, W), by residual blocks."""

    def __init__(
        self,
        latents: int,
        shape: tuple[int, int, int],
        channels: int,
        *,
        classes: int = 0,
        normalise: Normalise = "group",
    ) -> None:
        super().__init__()
        sizes = resolutions(shape)[::-1]  # from the coarsest
        widths = widths_of(channels, len(sizes))[::-1]
        self.first = (widths[0], *sizes[0])
        self.start = LatentInput(latents, classes)
        self.linear = nn.Linear(self.start.size, math.prod(self.first))
        self.blocks = nn.Sequential(
            *(
                _Up(before, after, size, normalise)
                for before, after, size in zip(widths[:-1], widths[1:], sizes[1:], strict=True)
            )
        )
        self.norm = NORMS[normalise](widths[-1])
        self.last = nn.Conv2d(widths[-1], shape[0], 3, padding=1)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.linear(self.start(z, y)).reshape(-1, *self.first)
        return self.last(self.norm(self.blocks(h)).relu())


class ResNetDiscriminator(nn.Module):
    """(n, C, H, W) and optionally one-hot labels -> scores (n,); features summed over pixels."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        channels: int,
        *,
        classes: int = 0,
        spectral_norm: bool = True,
    ) -> None:
        super().__init__()
        widths = [shape[0], *widths_of(channels, max(len(resolutions(shape)) - 1, 1))]
        self.blocks = nn.Sequential(
            *(
                _Down(before, after, spectral_norm, first=not level)
                for level, (before, after) in enumerate(itertools.pairwise(widths))
            )
        )
        self.head = ProjectionHead(widths[-1], classes, spectral_norm)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.head(self.blocks(x).relu().sum((-2, -1)), y)
