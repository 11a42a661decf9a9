"""Belief propagation on grids of any number of states: one row of the grid's places a state.

    sum:  m(y) = sum_x psi(x, y) c(x)         max:  log m(y) = max_x (log psi(x, y) + log c(x))

c being the product of what the sender says and receives from elsewhere. Sums run over the numbers
themselves where the tables' range loses nothing by it, else over logarithms.
"""

import math

import torch
from torch import Tensor

from .lattice_sweeps import Band, Messages, Sweeps, places


class StateSweeps(Sweeps):
    """Sweeps over messages with a largest entry of 1, or over their logarithms.

    Args:
        unary: (K, B, H, W), logarithms; -inf allowed.
        down, right: (K, K, 1 or B, 1 or H-1, 1 or W) and (K, K, 1 or B, 1 or H, 1 or W-1), finite.
        start: the first messages.
        product: "sum" or "max".
        damping: d in [0, 1): log new = (1 - d) log new + d log old.
    """

    def __init__(
        self,
        unary: Tensor,
        down: Tensor,
        right: Tensor,
        start: Messages,
        product: str,
        damping: float,
    ) -> None:
        states, *grid = unary.shape
        self.product, self.damping = product, damping
        self.shared = down[0, 0].numel() == right[0, 0].numel() == 1
        if self.shared:
            pair = [t.reshape(states, states) for t in (down, right)]
            # (4, x, y, 1): the sender's state first
            table = torch.stack([pair[0], pair[0].T, pair[1], pair[1].T])[..., None]
        else:
            table = unary.new_zeros((4, states, states, *grid))  # by the pixel that sends
            table[0, ..., :-1, :], table[1, ..., 1:, :] = down, down.transpose(0, 1)
            table[2, ..., :-1], table[3, ..., 1:] = right, right.transpose(0, 1)
            table = table.flatten(3)  # (4, x, y, N)
        own = (unary - unary.amax(0)).reshape(states, -1)  # (K, N)
        first = list(start)
        least = _least(table, first) if product == "sum" else None
        self.linear = least is not None
        self.neutral = 1.0 if self.linear else 0.0
        if least is not None:
            own = own.masked_fill(own < least, -math.inf).exp_()
            first = [m.exp() for m in first]
            table = (table - table.amax((1, 2), keepdim=True)).exp_()
            self.matrices = table[..., 0].transpose(1, 2).contiguous()  # (4, y, x)
        size = places(own.device, states)
        self.lay_out(unary.shape[1:], own, first, table, size, 3)

    def pass_messages(self, band: Band) -> None:
        others, work, out = band.scratch
        joined = torch.mul if self.linear else torch.add
        h = work[0]  # (K, n)
        for i, j in ((0, 2), (2, 0)):
            joined(joined(band.unary, band.received[j], out=h), band.received[j + 1], out=h)
            for k in (i, i + 1):
                joined(h, band.received[k], out=others[k])
        if self.linear and self.shared:
            torch.bmm(self.matrices, others, out=out)
        else:
            for y in range(len(h)):
                joined(others, band.table[:, :, y], out=work)
                if self.linear:
                    torch.sum(work, 1, out=out[:, y])
                elif self.product == "max":
                    torch.amax(work, 1, out=out[:, y])
                else:
                    torch.logsumexp(work, 1, out=out[:, y])
        top = torch.amax(out, 1, keepdim=True)
        if not self.linear:
            torch.sub(out, top, out=band.new)
            if self.damping:
                band.new.lerp_(band.old, self.damping)
        elif not self.damping:
            torch.div(out, top, out=band.new)
        else:
            log = out.div_(top).log_().lerp_(torch.log(band.old, out=work), self.damping)
            torch.exp(log, out=band.new)
        if self.damping:
            self._scale(band.new)

    def log_messages(self) -> Messages:
        return Messages(*(m.log() if self.linear else m.clone() for m in self.sent()))

    def change(self, band: Band) -> Tensor:
        gap = band.scratch[0]
        if self.linear:
            torch.div(band.new, band.old, out=gap).log_()
        else:
            torch.sub(band.new, band.old, out=gap)
        return (gap.amax(1) - gap.amin(1)).amax()

    def _scale(self, new: Tensor) -> None:
        top = new.amax(1, keepdim=True)
        if self.linear:
            new.div_(top)
        else:
            new.sub_(top)


def _least(table: Tensor, first: list[Tensor]) -> float | None:
    """The log-potential below which a pixel's state counts for nothing; None where sums of plain
    numbers could lose some that count.

    With tables whose entries lie within r, messages lie within r too (or where they start), m say.
    A state at -c brings at most e^(3 m + r - c) of a sum, to be less than rounding, and its product
    with three messages and an entry is no less than e^(-c - 3 m - r), to stay in range.
    """
    kind = torch.finfo(table.dtype)
    largest, rounding = -math.log(kind.tiny) - 2, 6 - math.log(kind.eps)
    if not table.numel():
        return -(largest + rounding) / 2
    reach = float((table.amax((1, 2)) - table.amin((1, 2))).amax())
    message = max([reach, *(float(-m.min()) for m in first if m.numel())])
    used = 3 * message + reach
    return -(largest + rounding) / 2 if used <= (largest - rounding) / 2 else None
