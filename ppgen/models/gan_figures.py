"""Figures of a GAN: ways through its latents."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..figures import Figure
from ..plots import image_grid, is_picture
from ..sites import device_of

if TYPE_CHECKING:
    from .gan import GAN

ROWS, COLUMNS = 8, 10


def spherical(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Between a (weight 0) and b (weight 1) along the great circle: (n, weights, latents).

    sin((1 - w) t) / sin(t) a + sin(w t) / sin(t) b, t the angle between them (White 2016). The
    straight line passes lengths that N(0, I) hardly ever draws; this way keeps to those of a and b.

    Args:
        a: (n, latents), so is b.
        weight: (weights,).
    """
    cosine = torch.cosine_similarity(a, b, -1).clamp(-1 + 1e-6, 1 - 1e-6)
    angle = cosine.arccos()[:, None]  # (n, 1)
    first = torch.sin((1 - weight) * angle) / torch.sin(angle)  # (n, weights)
    second = torch.sin(weight * angle) / torch.sin(angle)
    return first[..., None] * a[:, None] + second[..., None] * b[:, None]


def interpolation(program: "GAN", rows: int = ROWS, columns: int = COLUMNS) -> Tensor:
    """G along the way from one draw of z to another, a row each: (rows, columns, *shape)."""
    device = device_of(program)
    a, b = torch.randn(2, rows, program.latent_dim, device=device)
    z = spherical(a, b, torch.linspace(0, 1, columns, device=device)).flatten(0, 1)
    y = None
    if program.num_classes is not None:
        y = (torch.arange(rows, device=device) % program.num_classes).repeat_interleave(columns)
    return program.decode(z, y).unflatten(0, (rows, columns))


def gan_figures(program: "GAN") -> Iterator[Figure]:
    """The figures of `GAN.figures`."""
    if not is_picture(program.shape):
        return
    label = "" if program.num_classes is None else ", with one label a row"
    yield Figure(
        "Latent interpolation",
        "interpolation",
        lambda: image_grid(interpolation(program).flatten(0, 1), COLUMNS),
        f"Each row goes from one draw of z to another along the great circle{label}: where every "
        "picture on the way could be data, the generator has not learned examples by heart.",
    )
