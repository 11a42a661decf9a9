"""Differentiable augmentation of images, the same law for real and fake (Zhao et al. 2020)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..names import near

POLICIES = ("colour", "translation", "cutout")


class Augment(nn.Module):
    """T(x) for images x (n, C, H, W) in [-1, 1]: drawn anew for each image, differentiable in x.

    A discriminator that sees T(x) of data and of fakes alike, in both players' steps, cannot learn
    small data by heart, and the generator is not led to draw T(x), as it would be were the data
    alone augmented (Zhao et al. 2020, eqs. 4 and 5). The transformations are theirs:

        colour        brightness + U(-1/2, 1/2), saturation * U(0, 2), contrast * U(1/2, 3/2);
                      saturation for three channels alone
        translation   by up to an eighth of each side, zeros moving in
        cutout        a rectangle of half of each side, its centre anywhere, put to zero

    Args:
        policy: "none", or some of these names joined by commas.

    Raises:
        ValueError: an unknown name.
    """

    def __init__(self, policy: str = "none") -> None:
        super().__init__()
        names = [] if policy == "none" else [name.strip() for name in policy.split(",")]
        for name in names:
            if name not in POLICIES:
                raise ValueError(
                    f"augment must be 'none' or some of {', '.join(POLICIES)} joined by commas; "
                    f"got {name!r}{near(name, POLICIES)}"
                )
        self.names = tuple(name for name in POLICIES if name in names)

    def forward(self, x: Tensor) -> Tensor:
        for name in self.names:
            x = {"colour": colour, "translation": translation, "cutout": cutout}[name](x)
        return x


def colour(x: Tensor) -> Tensor:
    """Brightness, saturation (of three channels) and contrast, each drawn for each image."""
    brightness, saturation, contrast = torch.rand(3, len(x), 1, 1, 1, device=x.device)
    x = x + (brightness - 0.5)
    if x.shape[1] == 3:
        grey = x.mean(1, keepdim=True)
        x = grey + 2 * saturation * (x - grey)
    middle = x.mean((1, 2, 3), keepdim=True)
    return middle + (0.5 + contrast) * (x - middle)


def translation(x: Tensor, part: float = 0.125) -> Tensor:
    """Moved by up to so large a part of each side; zeros move in."""
    n, _, height, width = x.shape
    rows, down = _moved(n, height, part, x)
    columns, right = _moved(n, width, part, x)
    padded = F.pad(x, (right, right, down, down))
    which = torch.arange(n, device=x.device)[:, None, None]
    found = padded.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]]
    return found.permute(0, 3, 1, 2)  # (n, H, W, C) -> (n, C, H, W)


def _moved(n: int, side: int, part: float, like: Tensor) -> tuple[Tensor, int]:
    """Places (n, side) in an image padded by the most that it moves, and how much that is."""
    most = int(side * part + 0.5)
    shift = torch.randint(2 * most + 1, (n, 1), device=like.device)
    return torch.arange(side, device=like.device) + shift, most


def cutout(x: Tensor, part: float = 0.5) -> Tensor:
    """A rectangle of so large a part of each side put to zero, its centre anywhere."""
    n, _, height, width = x.shape
    inside = _inside(n, height, part, x)[:, :, None] & _inside(n, width, part, x)[:, None, :]
    return x * ~inside[:, None]


def _inside(n: int, side: int, part: float, like: Tensor) -> Tensor:
    """Whether each place (n, side) is within the part cut out."""
    long = int(side * part + 0.5)
    first = torch.randint(side + 1 - long % 2, (n, 1), device=like.device) - long // 2
    place = torch.arange(side, device=like.device)
    return (place >= first) & (place < first + long)
