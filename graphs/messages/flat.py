"""A sweep over many small tables of different shapes at once.

What each table entry gives to each message is written down once as indices into one flat array of
messages; a sweep is then some thirty calls, however many shapes there are. The engine by shapes
costs a few calls for each shape, which is most of the time for a network such as alarm.
"""

import math

import numpy as np
import torch
from torch import Tensor

from .wiring import Wiring

ENTRIES = 10_000  # entries times arity a shape, up to which one call over all is the faster way


class Flat:
    """Sum-product in linear space on flat arrays (entries [, B]).

    Messages lie class by class as in the wiring, (K, messages) row by row, one class after the
    other; behind them is one entry that is 1 and takes the place of axes that a table lacks.
    """

    def __init__(self, wiring: Wiring, reach: float, span: float) -> None:
        self.wiring, self.room = wiring, reach - span
        sizes = {k: len(ends) for k, ends in wiring.ends.items()}
        offset, variable_offset, done, passed = {}, {}, 0, 0
        for k, count in sizes.items():
            offset[k], variable_offset[k] = done, passed
            done += k * count
            passed += k * len(wiring.members[k])
        self.length, self.arity = done, max(len(block.shape) for block in wiring.blocks)
        homes, edges, seen = [], [], 0
        for k, ends in wiring.ends.items():
            states = np.arange(k)[:, None]
            homes.append(
                (variable_offset[k] + states * len(wiring.members[k]) + ends.cpu().numpy()).ravel()
            )
            edges.append(np.broadcast_to(seen + np.arange(sizes[k]), (k, sizes[k])).ravel())
            seen += sizes[k]
        self.messages = seen
        places, tables = [], []
        for block in wiring.blocks:
            count = len(block.scopes)
            shape = (*block.shape, count)
            own = np.full((self.arity, *shape), done)
            for axis, (k, part) in enumerate(zip(block.shape, block.spans, strict=True)):
                state = np.arange(k).reshape(k, *(1,) * (len(shape) - 1 - axis))
                own[axis] = offset[k] + state * sizes[k] + part.start + np.arange(count)
            places.append(own.reshape(self.arity, -1))
            whole = block.table - block.table.detach().amax(tuple(range(len(block.shape))))
            tables.append(
                whole.expand(*shape, *block.table.shape[len(shape) :]).flatten(0, len(shape) - 1)
            )
        at = np.concatenate(places, 1)
        self.home, self.edge = (
            self._index(np.concatenate(homes)),
            self._index(np.concatenate(edges)),
        )
        self.places, self.entries = self._index(at.ravel()), at.shape[1]
        fields = max((t.shape[1] for t in tables if t.ndim > 1), default=None)
        self.table = torch.cat(
            [t if fields is None else t.expand(-1, fields) for t in tables]
        ).exp()
        self.unary = torch.cat(
            [self._scaled(unary).flatten(0, 1) for unary in wiring.unary.values()]
        )
        self.one = torch.ones((1, *wiring.fields), dtype=wiring.dtype, device=wiring.device)

    @staticmethod
    def pays(wiring: Wiring) -> bool:
        """Whether there are many shapes for few entries."""
        entries = sum(math.prod(b.shape) * len(b.scopes) * len(b.shape) for b in wiring.blocks)
        return bool(wiring.blocks) and entries * math.prod(wiring.fields) < (
            ENTRIES * len(wiring.blocks)
        )

    def pack(self, messages: dict[int, Tensor]) -> Tensor:
        return torch.cat([messages[k].flatten(0, 1) for k in self.wiring.ends])

    def unpack(self, flat: Tensor) -> dict[int, Tensor]:
        found, done = {}, 0
        for k, ends in self.wiring.ends.items():
            size = k * len(ends)
            found[k] = flat[done : done + size].reshape(k, len(ends), *self.wiring.fields)
            done += size
        return found

    def sweep(self, messages: Tensor) -> Tensor | None:
        """Every message once; None where linear sums might lose something."""
        if self.wiring.hard:
            dead = torch.isneginf(messages)
            finite = messages.masked_fill(dead, 0.0)
            total = self.unary.index_add(0, self.home, finite)
            number = dead.to(messages.dtype)
            zeros = torch.zeros_like(self.unary).index_add_(0, self.home, number)
            nu = total.index_select(0, self.home).sub_(finite)
            others = zeros.index_select(0, self.home).sub_(number)
            nu = nu.masked_fill(others > 0, -math.inf)
        else:
            total = self.unary.index_add(0, self.home, messages)
            nu = total.index_select(0, self.home).sub_(messages)
        seen = nu.detach()
        lowest = seen.masked_fill(torch.isneginf(seen), 0.0).amin()
        if float(lowest) * self.arity < -self.room:
            return None
        e = torch.cat([nu.exp(), self.one])
        given = e.index_select(0, self.places).reshape(self.arity, self.entries, *e.shape[1:])
        before = [self.table.expand(given.shape[1:])]
        for axis in range(self.arity - 1):
            before.append(before[-1] * given[axis])
        after = given[-1]
        parts = [before[-1]]
        for axis in reversed(range(self.arity - 1)):
            parts.append(before[axis] * after)
            after = after * given[axis] if axis else after
        out = torch.zeros_like(e).index_add(0, self.places, torch.cat(parts[::-1]))[:-1]
        sums = torch.zeros((self.messages, *e.shape[1:]), dtype=e.dtype, device=e.device)
        sums = sums.index_add(0, self.edge, out)
        if not float(sums.detach().amin()) > 0:
            return None
        share = out / sums.index_select(0, self.edge)
        if not share.requires_grad:
            return share.log_()
        live = share > 0
        return torch.where(live, share.where(live, torch.ones_like(share)).log(), -math.inf)

    def _index(self, places: np.ndarray) -> Tensor:
        return torch.as_tensor(places, device=self.wiring.device)

    @staticmethod
    def _scaled(unary: Tensor) -> Tensor:
        return unary - unary.detach().amax(0)
