"""What a factor does to messages, in three algebras: sums of products in linear space or of
logarithms, and maxima of sums."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# exp() of what is further below the largest term is lost, in natural logarithms: float32 and
# float64 end near e^-87 and e^-708, and a term smaller than rounding may be lost.
REACH = {torch.float32: 60.0, torch.float64: 600.0}

# Sums of a few log messages are off by a few roundings of the largest; no change is finer.
ROUNDING = {dtype: 4 * torch.finfo(dtype).eps for dtype in REACH}


class Linear:
    """Sums of products of potentials scaled to a largest entry of 1.

    Exact to rounding where the logarithms that are summed span less than `REACH`.
    """

    def table(self, log_table: Tensor, arity: int) -> Tensor:
        return (log_table - peak(log_table, arity)).exp()

    def lift(self, nu: Tensor) -> Tensor:
        return nu.exp()

    def contract(self, table: Tensor, e: Tensor, axis: int, arity: int) -> Tensor:
        if arity == 2 and table[0, 0].numel() == 1:
            whole = table.reshape(table.shape[:2])
            return torch.tensordot(whole, e, dims=([axis], [0]))
        return (table * spread(e, axis, arity)).sum(axis)

    def lower(self, out: Tensor) -> Tensor:
        """Normalised logarithms; -inf where nothing is left, NaN where nothing at all is."""
        total = out.sum(0)
        if not out.requires_grad:
            return out.div_(total).log_()
        share = out / total
        live = share > 0
        return torch.where(live, share.where(live, torch.ones_like(share)).log(), -math.inf)


class Logarithmic:
    """The same of logarithms, exact for any numbers, at several times the cost."""

    def table(self, log_table: Tensor, arity: int) -> Tensor:
        return log_table

    def lift(self, nu: Tensor) -> Tensor:
        return nu

    def contract(self, table: Tensor, e: Tensor, axis: int, arity: int) -> Tensor:
        return log_sum(table + spread(e, axis, arity), axis)

    def lower(self, out: Tensor) -> Tensor:
        total = log_sum(out, 0)
        return (out - total).masked_fill(torch.isneginf(total), math.nan)


class Maximal:
    """Maxima of sums of logarithms: max-product."""

    def table(self, log_table: Tensor, arity: int) -> Tensor:
        return log_table

    def lift(self, nu: Tensor) -> Tensor:
        return nu

    def contract(self, table: Tensor, e: Tensor, axis: int, arity: int) -> Tensor:
        return (table + spread(e, axis, arity)).amax(axis)

    def lower(self, out: Tensor) -> Tensor:
        top = out.amax(0)
        return (out - top).masked_fill_(torch.isneginf(top), math.nan)


Algebra = Linear | Logarithmic | Maximal


def outgoing(
    algebra: Algebra, table: Tensor, lifted: Sequence[Tensor], wanted: Sequence[int]
) -> dict[int, Tensor]:
    """Of each wanted axis, the table with all other axes multiplied and summed out.

    Halves the axes again and again, so that a table of arity a is gone through about log2 a times.
    Nothing is divided out, which keeps zeros exact.
    """

    def part(table: Tensor, axes: list[int]) -> None:
        if not any(axis in wanted for axis in axes):
            return
        if len(axes) == 1:
            found[axes[0]] = table
            return
        half = len(axes) // 2
        left, right = axes[:half], axes[half:]
        if any(axis in wanted for axis in left):
            rest = table
            for place in reversed(range(half, len(axes))):
                rest = algebra.contract(rest, lifted[axes[place]], place, place + 1)
            part(rest, left)
        if any(axis in wanted for axis in right):
            rest = table
            for place in range(half):
                rest = algebra.contract(rest, lifted[axes[place]], 0, len(axes) - place)
            part(rest, right)

    found: dict[int, Tensor] = {}
    part(table, list(range(len(lifted))))
    return found


class Total(NamedTuple):
    """Sums of messages at variables, with the -inf counted apart so that one can be taken out."""

    finite: Tensor
    zeros: Tensor | None

    @property
    def value(self) -> Tensor:
        if self.zeros is None:
            return self.finite
        return self.finite.masked_fill(self.zeros > 0, -math.inf)

    def add(self, ends: Tensor, messages: Tensor, weights: Tensor | None = None) -> "Total":
        """With messages added at the variables where they end."""
        if self.zeros is None:
            given = messages if weights is None else messages * weights
            return Total(self.finite.index_add(1, ends, given), None)
        dead = torch.isneginf(messages)
        given = messages.masked_fill(dead, 0.0)
        given = given if weights is None else given * weights
        return Total(
            self.finite.index_add(1, ends, given),
            self.zeros.index_add(1, ends, dead.to(self.zeros.dtype)),
        )

    def without(self, ends: Tensor, messages: Tensor) -> Tensor:
        """What is left at the end of each message when that message is taken out, up to a constant:
        the largest entry is 0; NaN where nothing is left."""
        left = self.finite.index_select(1, ends)
        if self.zeros is None:
            left = left.sub_(messages)
        else:
            dead = torch.isneginf(messages)
            left = left - messages.masked_fill(dead, 0.0)
            others = self.zeros.index_select(1, ends) - dead.to(self.zeros.dtype)
            left = left.masked_fill(others > 0, -math.inf)
        return left.sub_(left.amax(0).detach())


def start(unary: Tensor, hard: bool) -> Total:
    """A total before any message has come."""
    return Total(unary, torch.zeros(unary.shape, dtype=torch.int32, device=unary.device)
                 if hard else None)  # fmt: skip


def log_sum(values: Tensor, axis: int) -> Tensor:
    """log sum exp, -inf where all are; several times faster than `torch.logsumexp` on a CPU."""
    top = values.detach().amax(axis, keepdim=True)
    top = top.masked_fill(torch.isneginf(top), 0.0)
    total = (values - top).exp().sum(axis)
    if values.requires_grad:  # the gradient of log at 0 is no number
        live = total > 0
        total = total.where(live, torch.ones_like(total)).log().masked_fill(~live, -math.inf)
    else:
        total = total.log_()
    return total + top.squeeze(axis)


def peak(log_table: Tensor, arity: int) -> Tensor:
    """The largest entry of each factor, with axes of length 1 for its states."""
    return log_table.detach().amax(tuple(range(arity)), keepdim=True)


def spread(e: Tensor, axis: int, arity: int) -> Tensor:
    """(K, ...) as the axis of a table of some arity."""
    return e.reshape(*(1,) * axis, len(e), *(1,) * (arity - axis - 1), *e.shape[1:])
