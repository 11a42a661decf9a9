"""Sweeps over many pairwise factors, in memory that is used again.

New memory for every intermediate result of a large graph costs as much as the arithmetic, since the
system hands it out page by page.
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .algebra import peak
from .wiring import Block

if TYPE_CHECKING:
    from .flooding import Flooding

LARGE = 20_000  # entries of all messages from which it pays


class Pairwise:
    """Sum- or max-product where all factors join two variables, finitely, without gradients.

    The numbers are those of `Flooding.sweep`; what `sweep` returns is overwritten by the call after
    the next.
    """

    def __init__(self, engine: "Flooding") -> None:
        self.wiring, self.sums = engine.wiring, engine.product == "sum"
        zeros = self.wiring.zeros
        self.nu, self._buffers = zeros(), (zeros(), zeros())
        self._totals = {k: torch.empty_like(unary) for k, unary in self.wiring.unary.items()}
        self._top = {k: torch.empty_like(nu[0]) for k, nu in self.nu.items()}
        self._tables = [
            (block.table - peak(block.table, 2)).exp() if self.sums else block.table
            for block in self.wiring.blocks
        ]
        longest = max(k * len(b.scopes) for b in self.wiring.blocks for k in b.shape)
        fields = math.prod(self.wiring.fields)
        self._terms = torch.empty(
            longest * fields, dtype=self.wiring.dtype, device=self.wiring.device
        )

    @staticmethod
    def pays(engine: "Flooding") -> bool:
        wiring = engine.wiring
        return (
            bool(wiring.blocks)
            and all(len(block.shape) == 2 for block in wiring.blocks)
            and sum(k * len(ends) for k, ends in wiring.ends.items()) >= LARGE
            and (engine.fast or engine.product == "max")
            and not wiring.hard
            and engine.weights is None
            and not (
                torch.is_grad_enabled() and any(table.requires_grad for table in wiring.tables)
            )
        )

    def sweep(self, old: dict[int, Tensor]) -> dict[int, Tensor]:
        """Every message once, from those of the sweep before."""
        new = self._buffers[old is self._buffers[0]]
        for k, ends in self.wiring.ends.items():
            nu, top = self.nu[k], self._top[k]
            torch.index_add(self.wiring.unary[k], 1, ends, old[k], out=self._totals[k])
            torch.index_select(self._totals[k], 1, ends, out=nu).sub_(old[k])
            nu.sub_(torch.amax(nu, 0, out=top))
            if self.sums:
                nu.exp_()
        for block, table in zip(self.wiring.blocks, self._tables, strict=True):
            self._send(block, table, new)
        for k, messages in new.items():
            if self.sums:
                messages.div_(torch.sum(messages, 0, out=self._top[k])).log_()
            else:
                messages.sub_(torch.amax(messages, 0, out=self._top[k]))
        return new

    def _send(self, block: Block, table: Tensor, new: dict[int, Tensor]) -> None:
        """The messages of a block: sums of products, or maxima of sums, over its other axis."""
        shared = table[0, 0].numel() == 1
        for axis in (0, 1):
            other = 1 - axis
            given = self.nu[block.shape[other]][:, block.spans[other]]
            target = new[block.shape[axis]][:, block.spans[axis]]
            rows = table.movedim(axis, 0)
            if self.sums and shared:
                whole = rows.reshape(rows.shape[:2])
                torch.mm(whole, given.flatten(1), out=target.flatten(1))
                continue
            terms = self._terms[: given.numel()].view(given.shape)
            for state, row in enumerate(rows):
                if self.sums:
                    torch.sum(torch.mul(given, row, out=terms), 0, out=target[state])
                else:
                    torch.amax(torch.add(given, row, out=terms), 0, out=target[state])
