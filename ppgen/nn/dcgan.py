"""Convolutional generator and discriminator (Radford et al. 2016), for images of any size."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from .attention import group_norm
from .gan import SLOPE, LatentInput, ProjectionHead
from .spectral import conv

Normalise = Literal["batch", "group", "none"]
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "group": group_norm,
    "none": lambda channels: nn.Identity(),
}
SMALLEST = 4  # pixels a side of an image, and about those of the coarsest resolution


def resolutions(shape: tuple[int, int, int]) -> list[tuple[int, int]]:
    """Heights and widths from full resolution down, halved (rounded up) to 4 to 7 on one side.

    Raises:
        ValueError: an image that is smaller than 4x4.
    """
    _, height, width = shape
    if min(height, width) < SMALLEST:
        raise ValueError(
            f"a convolutional GAN takes images of {SMALLEST}x{SMALLEST} or more; got {height}x"
            f"{width}: use network='mlp'"
        )
    sizes = [(height, width)]
    while min(sizes[-1]) >= 2 * SMALLEST:
        height, width = sizes[-1]
        sizes.append(((height + 1) // 2, (width + 1) // 2))
    return sizes


def widths_of(channels: int, count: int) -> list[int]:
    """Channels of so many resolutions from the finest: doubled each time, at most eightfold."""
    return [channels * min(2**level, 8) for level in range(count)]


@torch.no_grad()
def small_start(network: nn.Module) -> None:
    """Weights drawn from N(0, 0.02^2), as Radford et al. start them; no offsets."""
    for module in network.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            module.weight.normal_(0.0, 0.02)
            if module.bias is not None:
                module.bias.zero_()


class DCGANGenerator(nn.Module):
    """(n, latents) and optionally one-hot labels -> (n, C, H, W).

    A linear layer to the coarsest resolution, then transposed convolutions that double it, the
    last of them to the image; where a side is odd the last row or column is cut off.
    """

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
        self.sizes = resolutions(shape)[::-1]  # from the coarsest
        widths = widths_of(channels, max(len(self.sizes) - 1, 1))[::-1]
        self.first = (widths[0], *self.sizes[0])
        self.start = LatentInput(latents, classes)
        self.linear = nn.Linear(self.start.size, math.prod(self.first))
        self.norms = nn.ModuleList(NORMS[normalise](width) for width in widths)
        if len(self.sizes) == 1:  # nothing to double
            self.layers = nn.ModuleList([nn.Conv2d(widths[0], shape[0], 3, padding=1)])
        else:
            self.layers = nn.ModuleList(
                nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)
                for before, after in pairwise([*widths, shape[0]])
            )
        small_start(self)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.linear(self.start(z, y)).reshape(-1, *self.first)
        for layer, norm, (height, width) in zip(
            self.layers, self.norms, self.sizes[1:] or self.sizes, strict=True
        ):
            h = layer(norm(h).relu())[..., :height, :width]
        return h


class DCGANDiscriminator(nn.Module):
    """(n, C, H, W) and optionally one-hot labels -> scores (n,).

    Convolutions that halve their image (sides rounded down) with leaky rectifiers, normalised (but
    for the first) as asked.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        channels: int,
        *,
        classes: int = 0,
        normalise: Normalise = "none",
        spectral_norm: bool = True,
    ) -> None:
        super().__init__()
        halvings = max(len(resolutions(shape)) - 1, 1)
        layers: list[nn.Module] = []
        for before, after in pairwise([shape[0], *widths_of(channels, halvings)]):
            layers.append(conv(before, after, 4, spectral_norm, stride=2))
            if len(layers) > 1:
                layers.append(NORMS[normalise](after))
            layers.append(nn.LeakyReLU(SLOPE))
        self.layers = nn.Sequential(*layers, nn.Flatten())
        pixels = math.prod(side >> halvings for side in shape[1:])
        self.head = ProjectionHead(after * pixels, classes, spectral_norm)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.head(self.layers(x), y)
