"""Loopy belief propagation on regular grids with four neighbours: the fast path of flooding.

    m_{p->q}(y) = sum_x (or max_x) psi_pq(x, y) psi_p(x) prod of m_{k->p}(x), k next to p but not q

for all directed edges at once, from the messages of the iteration before. Source: Pearl (1988);
Yedidia, Freeman and Weiss (2005), equations 12 and 13, with a factor an edge.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from .algebra import ROUNDING
from .lattice_binary import BinarySweeps
from .lattice_states import StateSweeps
from .lattice_sweeps import Messages, Sweeps

EVERY = {"cpu": 4, "cuda": 16}  # sweeps between two looks at the residual


@dataclass(frozen=True, eq=False)
class Passed:
    """Where the messages ended."""

    messages: Messages
    iterations: int
    """Sweeps that were done: up to three more than needed, fifteen on a GPU, where looking at the
    residual would hold up the work."""
    residual: float
    """In the last sweep, the largest range over the states of log(new message) - log(old message),
    which does not depend on how messages are normalised; for two states, the largest change of
    log-odds. Infinite before the first sweep."""
    converged: bool
    """The residual of all grids of the batch is no more than the tolerance, or than rounding."""


class Lattice:
    """A batch of grids, ready to pass messages.

    Args:
        unary: log-tables (B, H, W, K), float32 or float64; -inf for states that cannot be.
        down: one log-table (K, K), the upper pixel's state first; or one an edge, (B or 1, H-1, W,
            K, K), between (r, c) and (r+1, c). Finite.
        right: the same of edges between (r, c) and (r, c+1): (K, K), the left pixel's state first,
            or (B or 1, H, W-1, K, K). None for the same as `down`, which is (K, K) then.

    Raises:
        ValueError: shapes or dtypes that do not fit, NaN or +inf, a pixel without a possible state,
            an infinite entry in `down` or `right` (see `supports`).
    """

    def __init__(self, unary: Any, down: Any, right: Any = None) -> None:
        unary = torch.as_tensor(unary)
        if unary.ndim != 4 or 0 in unary.shape:
            raise ValueError(f"unary must be (B, H, W, K), none of them 0; got {_shape(unary)}")
        if unary.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"unary must be float32 or float64; got {unary.dtype}")
        self.shape = unary.shape
        _, height, width, _ = unary.shape
        self.unary = unary.movedim(-1, 0).contiguous()  # (K, B, H, W)
        top = self.unary.detach().amax(0)
        if not top.isfinite().all():
            place = (~top.isfinite()).nonzero()[0].tolist()
            raise ValueError(
                f"each pixel needs a state above -inf, and neither NaN nor +inf; pixel "
                f"{tuple(place[1:])} of grid {place[0]} has {unary[tuple(place)].tolist()}"
            )
        if right is None:
            right = down
        self.down = self._edges("down", down, (height - 1, width))
        self.right = self._edges("right", right, (height, width - 1))

    @staticmethod
    def supports(down: Any, right: Any = None) -> bool:
        """Whether the tables of the edges are finite: with hard constraints messages can vanish,
        and the general engine looks after that."""
        tables = (down,) if right is None else (down, right)
        return all(bool(torch.as_tensor(t).detach().isfinite().all()) for t in tables)

    def run(
        self,
        product: str = "sum",
        damping: float = 0.0,
        tolerance: float = 1e-6,
        max_iterations: int = 500,
        progress: Callable[[int, float], Any] | None = None,
        start: Messages | None = None,
    ) -> Passed:
        """Flood until no message moves by more than the tolerance.

        Where a table requires a gradient, the messages are functions of the tables, with all
        iterations in the graph; else the work is done in two buffers.

        Args:
            product: "sum" or "max".
            damping: d in [0, 1): log new = (1 - d) log new + d log old.
            tolerance: of the residual, see `Passed`; at least what rounding makes of the largest
                log message.
            max_iterations: at most so many sweeps.
            progress: called now and then with the sweeps done and the residual.
            start: the first messages; None for messages that say nothing.

        Raises:
            ValueError: one of these is out of range.
        """
        if product not in ("sum", "max"):
            raise ValueError(f'product must be "sum" or "max"; got {product!r}')
        if not 0 <= damping < 1:
            raise ValueError(f"damping must be from 0 to below 1; got {damping!r}")
        if max_iterations < 0:
            raise ValueError(f"max_iterations must be 0 or more; got {max_iterations!r}")
        tolerance = max(tolerance, ROUNDING[self.unary.dtype] * self._span())
        start = self._nothing() if start is None else start
        tables = (self.unary, self.down, self.right)
        if torch.is_grad_enabled() and any(t.requires_grad for t in (*tables, *start)):
            sweeps: Any = _Functional(*tables, start, product, damping)
            return _flood(sweeps, tolerance, max_iterations, progress, 1)
        with torch.no_grad():
            form: type[Sweeps] = BinarySweeps if self.shape[3] == 2 else StateSweeps
            sweeps = form(*tables, start, product, damping)  # type: ignore[call-arg]
            every = EVERY.get(self.unary.device.type, 1)
            return _flood(sweeps, tolerance, max_iterations, progress, every)

    def beliefs(self, messages: Messages) -> Tensor:
        """log p(x) ~ log psi(x) + the sum of all messages to a pixel, (B, H, W, K); each pixel's
        probabilities sum to 1."""
        total = self._total(messages)
        return (total - total.logsumexp(0)).movedim(0, -1)

    def edge_beliefs(self, messages: Messages) -> tuple[Tensor, Tensor]:
        """log p(x, y) ~ log psi(x, y) + what either pixel says and receives from elsewhere.

        Shapes (B, H-1, W, K, K) of edges down and (B, H, W-1, K, K) of edges right; each edge's
        probabilities sum to 1.
        """
        upper, lower, before, behind = cavities(self.unary, messages)
        found = []
        for table, first, second in ((self.down, upper, lower), (self.right, before, behind)):
            joint = table + first[:, None] + second[None]  # (x, y, B, ..., ...)
            joint = joint - joint.flatten(0, 1).logsumexp(0)
            found.append(joint.permute(2, 3, 4, 0, 1))
        return found[0], found[1]

    def bethe(self, messages: Messages) -> Tensor:
        """The Bethe approximation of log Z in nats, (B,) in float64, from messages of sum-product;
        exact where the grid is a chain and the messages have converged.

        The messages to edges nu and from edges mu give sum_f log sum psi_f prod nu - sum_(f,v) log
        sum nu mu + sum_v log sum psi_v prod mu. Here nu mu is the belief of v for every f at v, so
        that with Z_v its sum, it is sum_f log Z_f + sum_v (1 - degree of v) log Z_v.
        """
        _, height, width, _ = self.shape
        rows = 2 - self._at_end(height)[:, None]
        degree = rows + (2 - self._at_end(width))
        pixel = self._total(messages).logsumexp(0)  # (B, H, W)
        found = ((1 - degree) * pixel).double().sum((1, 2))
        upper, lower, before, behind = cavities(self.unary, messages)
        for table, first, second in ((self.down, upper, lower), (self.right, before, behind)):
            edge = (_sent(first, table, "sum") + second).logsumexp(0)
            found = found + edge.double().sum((1, 2))
        return found

    def _span(self) -> float:
        """How far the entries of any edge's table lie apart, which bounds all log messages."""
        tables = [table.detach() for table in (self.down, self.right) if table.numel()]
        spans = [(table.amax((0, 1)) - table.amin((0, 1))).amax() for table in tables]
        return float(torch.stack(spans).amax()) if spans else 0.0

    def _at_end(self, length: int) -> Tensor:
        """How many of its two neighbours along an axis each place lacks."""
        lacking = self.unary.new_zeros(length)
        lacking[0] += 1
        lacking[-1] += 1
        return lacking

    def _total(self, messages: Messages) -> Tensor:
        above, below, before, behind = _received(messages)
        return self.unary + above + below + before + behind

    def _nothing(self) -> Messages:
        batch, height, width, states = self.shape
        zero = self.unary.new_zeros(())
        along = zero.expand(states, batch, height - 1, width)
        across = zero.expand(states, batch, height, width - 1)
        return Messages(along, along, across, across)

    def _edges(self, name: str, given: Any, edges: tuple[int, int]) -> Tensor:
        """(K, K, 1 or B, 1 or rows, 1 or columns), checked."""
        batch, _, _, states = self.shape
        table = torch.as_tensor(given).to(self.unary)
        pair = (states, states)
        if table.shape != pair and (
            table.ndim != 5 or table.shape[0] not in (1, batch) or table.shape[1:] != edges + pair
        ):
            raise ValueError(
                f"{name} must be {pair} or {(batch, *edges, *pair)}, the first of these also 1; "
                f"got {_shape(table)}"
            )
        if not table.detach().isfinite().all():
            raise ValueError(
                f"{name} has NaN or infinite entries; with hard constraints between neighbours "
                "take the general engine"
            )
        if table.ndim == 2:
            return table[:, :, None, None, None]
        return table.permute(3, 4, 0, 1, 2)


class _Functional:
    """The same sweeps as functions, for gradients."""

    def __init__(
        self,
        unary: Tensor,
        down: Tensor,
        right: Tensor,
        start: Messages,
        product: str,
        damping: float,
    ) -> None:
        self.unary, self.product, self.damping = unary, product, damping
        self.tables = (down, down.transpose(0, 1), right, right.transpose(0, 1))
        self.new = self.old = start

    def sweep(self) -> None:
        self.old, found = self.new, []
        parts = cavities(self.unary, self.old)
        for other, table, old in zip(parts, self.tables, self.old, strict=True):
            new = _scaled(_sent(other, table, self.product))
            found.append(_scaled(torch.lerp(new, old, self.damping)) if self.damping else new)
        self.new = Messages(*found)

    def residual(self) -> float:
        largest = 0.0
        for new, old in zip(self.new, self.old, strict=True):
            if new.numel():
                gap = new.detach() - old.detach()
                largest = max(largest, float((gap.amax(0) - gap.amin(0)).amax()))
        return largest

    def log_messages(self) -> Messages:
        return self.new


def cavities(unary: Tensor, messages: Messages) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What each pixel says and receives, but for the pixel it sends to, on the edges of `Messages`.

    Sums that leave one out, rather than differences, so that nothing cancels.
    """
    above, below, before, behind = _received(messages)
    across, along = unary + before + behind, unary + above + below
    return (
        (across + above)[..., :-1, :],
        (across + below)[..., 1:, :],
        (along + before)[..., :-1],
        (along + behind)[..., 1:],
    )


def _received(messages: Messages) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What each pixel receives from above, below, the left and the right; 0 from no neighbour."""
    down, up, right, left = messages
    return (
        pad(down, (0, 0, 1, 0)),
        pad(up, (0, 0, 0, 1)),
        pad(right, (1, 0)),
        pad(left, (0, 1)),
    )


def _sent(others: Tensor, table: Tensor, product: str) -> Tensor:
    """The logarithm of a message, not scaled: others (x, ...), table (x, y, ...)."""
    if not others.numel():
        return others
    found = []
    for y in range(table.shape[1]):
        joint = others + table[:, y]
        found.append(joint.logsumexp(0) if product == "sum" else joint.amax(0))
    return torch.stack(found)


def _scaled(log: Tensor) -> Tensor:
    """With a largest entry of 0. A shift says nothing, and so needs no gradient."""
    return log - log.detach().amax(0)


def _flood(
    sweeps: Any,
    tolerance: float,
    max_iterations: int,
    progress: Callable[[int, float], Any] | None,
    every: int,
) -> Passed:
    done, residual = 0, math.inf
    while done < max_iterations and not residual <= tolerance:
        for _ in range(min(every, max_iterations - done)):
            sweeps.sweep()
            done += 1
        residual = sweeps.residual()
        if progress is not None:
            progress(done, residual)
    return Passed(sweeps.log_messages(), done, residual, residual <= tolerance)


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
