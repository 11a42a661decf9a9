"""Convolutional encoder and decoder for images of any size from 4x4."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def _norm(channels: int) -> nn.GroupNorm:
    # Four channels a group where there are as many: one alone would be normalised to zero at 1x1.
    return nn.GroupNorm(math.gcd(8, channels, max(channels // 4, 1)), channels)


def _sizes(size: tuple[int, int], count: int) -> list[tuple[int, int]]:
    """Heights and widths before and after each halving (rounded up)."""
    sizes = [size]
    for _ in range(count):
        height, width = sizes[-1]
        sizes.append(((height + 1) // 2, (width + 1) // 2))
    return sizes


class ResidualBlock(nn.Module):
    """x + convolutions of x, normalised first (He et al. 2016, identity mappings)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _norm(channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            _norm(channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class ConvEncoder(nn.Module):
    """(n, C, H, W) and optionally one-hot labels (n, classes) -> (n, outputs).

    With `residual` a residual block follows each halving.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        outputs: int,
        hidden: Sequence[int],
        *,
        classes: int = 0,
        residual: bool = False,
    ) -> None:
        super().__init__()
        channels, height, width = shape
        layers: list[nn.Module] = []
        inputs = channels + classes
        for features in hidden:
            layers += [
                nn.Conv2d(inputs, features, 3, stride=2, padding=1),
                _norm(features),
                nn.SiLU(),
            ]
            if residual:
                layers.append(ResidualBlock(features))
            inputs = features
        self.layers = nn.Sequential(*layers)
        last = math.prod(_sizes((height, width), len(hidden))[-1])
        self.head = nn.Linear(inputs * last, outputs)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        if y is not None:
            planes = y[:, :, None, None].expand(-1, -1, *x.shape[-2:])  # (n, classes, H, W)
            x = torch.cat([x, planes], 1)
        return self.head(self.layers(x).flatten(1))


class ConvDecoder(nn.Module):
    """(..., latents) and optionally one-hot labels -> (..., outputs, C, H, W).

    With `residual` a residual block precedes each doubling.
    """

    def __init__(
        self,
        latents: int,
        shape: tuple[int, int, int],
        hidden: Sequence[int],
        *,
        outputs: int = 1,
        classes: int = 0,
        residual: bool = False,
    ) -> None:
        super().__init__()
        channels, height, width = shape
        sizes = _sizes((height, width), len(hidden))
        self.outputs, self.channels = outputs, channels
        self.start = (hidden[-1], *sizes[-1])
        self.head = nn.Linear(latents + classes, math.prod(self.start))
        layers: list[nn.Module] = []
        widths = [*reversed(hidden)]
        for index, features in enumerate(widths):
            after = widths[index + 1] if index + 1 < len(widths) else widths[-1]
            if residual:
                layers.append(ResidualBlock(features))
            layers += [
                _norm(features),
                nn.SiLU(),
                nn.Upsample(size=sizes[len(hidden) - 1 - index], mode="nearest"),
                nn.Conv2d(features, after, 3, padding=1),
            ]
        layers += [
            _norm(widths[-1]),
            nn.SiLU(),
            nn.Conv2d(widths[-1], outputs * channels, 3, padding=1),
        ]
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        if y is not None:
            z = torch.cat([z, y.expand(*z.shape[:-1], y.shape[-1])], -1)
        batch = z.shape[:-1]
        # Convolutions take one batch axis: particles and examples are joined and parted again.
        image = self.layers(self.head(z).reshape(-1, *self.start))
        return image.reshape(*batch, self.outputs, self.channels, *image.shape[-2:])
