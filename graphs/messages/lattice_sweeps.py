"""Where the messages of a grid lie in memory while they are passed, and the order of the work.

All pixels of all images stand in one row of N = B H W places, and each direction has its own row:
`sent[i]` at place n is what pixel n sent that way. A neighbour is then a fixed number of places
off, so that every step is one pass over contiguous memory. W free places at either end, and the
pixels that have no neighbour to send to, hold the message that says nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

PLACES = 65536  # of a band on one thread; then a score of its arrays fit a cache of a few megabytes


class Messages(NamedTuple):
    """Of each direction, the logarithm of the message about the states of the pixel it reaches.

    Shapes (K, B, H-1, W) for `down` and `up`, (K, B, H, W-1) for `right` and `left`; each message
    is shifted such that its largest entry is 0. `down[:, b, r, c]` goes from (r, c) to (r+1, c),
    `up[:, b, r, c]` from (r+1, c) to (r, c), `right[:, b, r, c]` from (r, c) to (r, c+1), and
    `left[:, b, r, c]` from (r, c+1) to (r, c).
    """

    down: Tensor
    up: Tensor
    right: Tensor
    left: Tensor


class Band(NamedTuple):
    """Some places in a row, few enough to stay in the cache from the first step to the last."""

    unary: Tensor
    """(..., n): what the pixels say themselves."""
    received: tuple[Tensor, Tensor, Tensor, Tensor]
    """(..., n) each: what the pixels received from above, below, the left and the right."""
    old: Tensor
    """(4, ..., n): what they sent in the iteration before."""
    new: Tensor
    """(4, ..., n): what they send now, to be filled in."""
    scratch: tuple[Tensor, ...]
    """(4, ..., n) each."""
    table: Tensor
    """(4, ..., n or 1): the couplings of the edges that these messages pass."""


class Sweeps(ABC):
    """Flooding: each sweep computes all messages from those of the sweep before.

    Two buffers take turns, so that nothing is allocated between the first sweep and the last.
    """

    neutral: float  # the message that says nothing, in the form in which messages are kept

    @abstractmethod
    def pass_messages(self, band: Band) -> None:
        """Fill `band.new`."""

    @abstractmethod
    def log_messages(self) -> Messages:
        """The messages of the last sweep."""

    @abstractmethod
    def change(self, band: Band) -> Tensor:
        """The largest range over the states of log(new) - log(old), as a tensor of one number."""

    def lay_out(
        self,
        shape: torch.Size,
        unary: Tensor,
        start: Sequence[Tensor],
        table: Tensor,
        places: int,
        scratches: int,
    ) -> None:
        """Allocate, and cut the row into bands.

        Args:
            shape: (B, H, W).
            unary: (..., N), its leading axes those of a message.
            start: the first messages, (..., B, H-1, W) twice and (..., B, H, W-1) twice.
            table: (4, ..., N), or (4, ..., 1) where edges share: the coupling of what is sent.
            places: of a band.
            scratches: how many work arrays of the size of a band's messages `pass_messages` needs.
        """
        self.shape, self.width, self.count = tuple(shape), shape[2], unary.shape[-1]
        leading, room = unary.shape[:-1], self.count + 2 * self.width
        old = unary.new_full((4, *leading, room), self.neutral)
        new = torch.full_like(old, self.neutral)
        for view, message in zip(self._edges(old), start, strict=True):
            view.copy_(message)
        places = min(places, self.count)
        work = [unary.new_empty(4 * leading.numel() * places) for _ in range(scratches)]
        self.plans: list[list[Band]] = []
        self.edges: list[list[Tensor]] = []
        for a, b in ((old, new), (new, old)):
            plan = []
            for first in range(0, self.count, places):
                size = min(places, self.count - first)
                begin = first + self.width
                received = tuple(
                    a[i, ..., begin + shift : begin + shift + size]
                    for i, shift in enumerate((-self.width, self.width, -1, 1))
                )
                flat = 4 * leading.numel() * size
                plan.append(
                    Band(
                        unary[..., first : first + size],
                        received,  # type: ignore[arg-type]
                        a[..., begin : begin + size],
                        b[..., begin : begin + size],
                        tuple(w[:flat].view(4, *leading, size) for w in work),
                        table if table.shape[-1] == 1 else table[..., first : first + size],
                    )
                )
            self.plans.append(plan)
            core = self._core(b)
            ends = [core[0, ..., -1, :], core[1, ..., 0, :], core[2, ..., -1], core[3, ..., 0]]
            self.edges.append(ends)
        self.buffers, self.turn = (old, new), 0

    def sweep(self) -> None:
        """One iteration: all four directions of all pixels once."""
        for band in self.plans[self.turn]:
            self.pass_messages(band)
        for end in self.edges[self.turn]:
            end.fill_(self.neutral)
        self.turn = 1 - self.turn

    def residual(self) -> float:
        """How far the last sweep moved the messages; waits for the device."""
        changes = [self.change(band) for band in self.plans[1 - self.turn]]
        return float(torch.stack(changes).max())

    def sent(self) -> tuple[Tensor, ...]:
        """The messages of the last sweep as they are kept, each direction's on its edges."""
        return self._edges(self.buffers[self.turn])

    def _core(self, buffer: Tensor) -> Tensor:
        return buffer[..., self.width : self.width + self.count].unflatten(-1, self.shape)

    def _edges(self, buffer: Tensor) -> tuple[Tensor, ...]:
        core = self._core(buffer)  # (4, ..., B, H, W)
        return (
            core[0, ..., :-1, :],
            core[1, ..., 1:, :],
            core[2, ..., :-1],
            core[3, ..., 1:],
        )


def places(device: torch.device, numbers: int) -> int:
    """How many places a band has, with so many numbers a message."""
    if device.type != "cpu":
        return 1 << 30
    threads = torch.get_num_threads()
    return max(1, PLACES * (threads if threads == 1 else 4 * threads) // numbers)
