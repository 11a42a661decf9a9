"""Labels that can be proved before any flow: dominated pixels, and blocks of two by two.

With the labels as signs, the force on pixel i is f_i = gain_i + sum_j w_ij x_j, and x_i = +1 is as
good as -1 or better where f_i >= 0. Bounds on f_i over all that the free neighbours may be start
from gain_i -+ sum_j w_ij and close in as neighbours are fixed. A pixel whose lower bound is not
negative is +1 in some minimum, whatever else is fixed; one whose upper bound is not positive, -1.

A block S is +1 in some minimum where x_S = +1 is best with everything around it at -1, since by
submodularity it is then best with anything around it. With l the lower bounds, turning the part B
of the block to -1 must not pay:

    sum_{i in B} l_i + 2 sum_{edges of S that touch B} w >= 0    for each of the 15 parts B,

and for -1 the same with the negated upper bounds (Kohli and Torr 2007 and Kolmogorov and Rother
2007 on persistency; the blocks are this package's own).
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from .energy import sides

Grid = np.ndarray[Any, Any]
ENOUGH = 200  # a round of fixing that reaches fewer than one pixel in so many is the last

STRIP = 2**15  # pixels
# By offset to the neighbour: the edges within a block, as a pair of corners, and the row and column
# where the weights of the blocks' edges begin.
EDGES = {
    (0, 1): (((0, 1), 0, 0), ((2, 3), 1, 0)),
    (1, 0): (((0, 2), 0, 0), ((1, 3), 0, 1)),
    (1, 1): (((0, 3), 0, 0),),
    (1, -1): (((1, 2), 0, 0),),
}


class Bounds:
    """Bounds (H, W) on the force on each pixel, and which pixels are `fixed`: +1, -1, or 0.

    Args:
        gains: (H, W) of int32, of label +1 in units of the weights.
        weights: by offset to the neighbour; numbers or arrays of int32, zero or more.
    """

    def __init__(self, gains: Grid, weights: Sequence[tuple[tuple[int, int], Grid]]) -> None:
        self.weights = weights
        self.lower, self.upper = gains.copy(), gains.copy()
        for offset, weight in weights:
            for side in sides(offset):
                self.lower[side] -= weight
                self.upper[side] += weight
        self.fixed: Grid = np.zeros(gains.shape, np.int8)

    def tighten(self) -> None:
        """Fix what can be fixed, round after round, while a round still fixes much."""
        self._fix_dominated()
        for sign in (1, -1):
            self._fix_blocks(sign)
        while self._fix_dominated() * ENOUGH > self.fixed.size:
            pass

    def gains(self, free: Grid) -> Grid:
        """(n,), the gain of label +1 at each free pixel, given the fixed ones."""
        # Each bound is the gain, less or plus the weights to free neighbours; int32 holds the sum.
        return (self.lower[free] + self.upper[free]) // 2

    def _fix_dominated(self) -> int:
        free = self.fixed == 0
        plus = free & (self.lower >= 0)
        minus = free & (self.upper <= 0) & ~plus
        return self._fix(plus, 1) + self._fix(minus, -1)

    def _fix(self, chosen: Grid, sign: int) -> int:
        count = int(np.count_nonzero(chosen))
        if count:
            self.fixed[chosen] = sign
            bound = self.lower if sign > 0 else self.upper
            for offset, weight in self.weights:
                first, second = sides(offset)
                step = 2 * sign * weight
                bound[first] += step * chosen[second]
                bound[second] += step * chosen[first]
        return count

    def _fix_blocks(self, sign: int) -> None:
        height, width = self.fixed.shape
        chosen = np.zeros(self.fixed.shape, bool)
        rows = max(STRIP // width, 1)
        if width > 1:
            for top in range(0, height - 1, rows):  # strip by strip, which stays in the cache
                bottom = min(top + rows, height - 1)
                corners = [
                    (slice(top + down, bottom + down), slice(right, width - 1 + right))
                    for down in (0, 1)
                    for right in (0, 1)
                ]
                good = self._good_blocks(sign, corners)
                for corner in corners:
                    chosen[corner] |= good
        self._fix(chosen, sign)

    def _good_blocks(self, sign: int, corners: Sequence[Any]) -> Grid:
        """Which blocks of free pixels are proved to be of this sign.

        Args:
            corners: the slices of the image that hold corners 0, 1, 2, 3 of the blocks (0 1 / 2 3).
        """
        edges = self._edges(corners[0])
        own = []  # of each corner: its bound, and twice the edges of the block that touch it
        for i, corner in enumerate(corners):
            value = sign * (self.lower if sign > 0 else self.upper)[corner]
            for pair, weight in edges.items():
                if i in pair:
                    value += 2 * weight
            own.append(value)

        def part(members: Sequence[int]) -> Grid:
            """The bounds of a part, and twice the edges that touch it."""
            value = own[members[0]].copy()
            for i in members[1:]:
                value += own[i]
            for pair in combinations(members, 2):
                if pair in edges:  # counted from both ends
                    value -= 2 * edges[pair]
            return value

        good = part(range(4)) >= 0
        for corner in corners:
            good &= self.fixed[corner] == 0
        if good.any():
            for size in (1, 2, 3):
                for members in combinations(range(4), size):
                    good &= part(members) >= 0
        return good

    def _edges(self, corner: Any) -> dict[tuple[int, int], Grid]:
        """The weights within each block, by the pair of its corners; the first is at `corner`."""
        rows, columns = corner
        found = {}
        for offset, weight in self.weights:
            # The block's edges of this direction: the pair, and where its first pixel is.
            for pair, down, right in EDGES[offset]:
                if weight.ndim:
                    places = (
                        slice(rows.start + down, rows.stop + down),
                        slice(columns.start + right, columns.stop + right),
                    )
                    found[pair] = weight[places]
                else:
                    found[pair] = weight
        return found
