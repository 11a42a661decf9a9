r"""An image in four planes, by the parity of row and column: none holds two neighbours.

    a b a b
    c d c d      plane (0, 0) holds the a's, (0, 1) the b's, (1, 0) the c's, (1, 1) the d's
    a b a b

Of four neighbours each, (0, 0) with (1, 1) is one colour of the checkerboard and (0, 1) with (1, 0)
the other; of eight, each plane is a colour. Pixels of a colour are independent given the rest, so
that they can be updated at once; and every step runs through contiguous rows of memory.
"""

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

# In this order the two planes of a colour follow each other.
PLANES = ((0, 0), (1, 1), (0, 1), (1, 0))


class Planes:
    """A batch of images (B, H, W), split; a border of zeros surrounds each plane."""

    def __init__(self, images: "Tensor", neighbours: int) -> None:
        self.neighbours = neighbours
        self.shape = images.shape
        batch, height, width = images.shape
        self._padded = {}
        for r, c in PLANES:
            plane = images.new_zeros(batch, (height + 1) // 2 + 2, (width + 1) // 2 + 2)
            part = images[:, r::2, c::2]
            plane[:, 1 : part.shape[1] + 1, 1 : part.shape[2] + 1] = part
            self._padded[r, c] = plane
        self._views = {plane: self._shifted(plane, 0, 0, plane) for plane in PLANES}
        self._around = {plane: self._neighbours(*plane) for plane in PLANES}

    def __getitem__(self, plane: tuple[int, int]) -> "Tensor":
        """A view of one plane, to be changed in place."""
        return self._views[plane]

    def around(self, plane: tuple[int, int]) -> "Tensor":
        """The sum of the neighbours of each pixel of a plane, a new tensor."""
        first, second, *others = self._around[plane]
        found = first + second
        for other in others:
            found += other
        return found

    def image(self) -> "Tensor":
        """The images put together again."""
        whole = self._views[0, 0].new_empty(self.shape)
        for r, c in PLANES:
            whole[:, r::2, c::2] = self._views[r, c]
        return whole

    def _neighbours(self, r: int, c: int) -> list["Tensor"]:
        """Of each pixel of a plane: views of the planes around, shifted onto it."""
        steps = [(0, -1), (0, 1), (-1, 0), (1, 0)]
        if self.neighbours == 8:
            steps += [(-1, -1), (-1, 1), (1, -1), (1, 1)]
        found = []
        for down, right in steps:
            row, column = r + down, c + right
            # In its plane, pixel (2 i + row, 2 j + column) is at (i + row // 2, j + column // 2).
            found.append(self._shifted((row % 2, column % 2), row // 2, column // 2, (r, c)))
        return found

    def _shifted(
        self, plane: tuple[int, int], down: int, right: int, onto: tuple[int, int]
    ) -> "Tensor":
        height = (self.shape[1] - onto[0] + 1) // 2
        width = (self.shape[2] - onto[1] + 1) // 2
        return self._padded[plane][:, 1 + down : 1 + down + height, 1 + right : 1 + right + width]


def flip_signs(images: "Tensor") -> "Tensor":
    """Booleans to {-1, +1}, in their own memory."""
    return images.view(torch.int8).mul_(2).sub_(1)
