"""Sums and products of tables as single NumPy calls on given memory, with long inner loops."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from .clique_tree import CliqueTree

Call = tuple[Any, tuple[Any, ...]]
Run = tuple[int, tuple[bool, ...]]  # a length, and which of some scopes mention it
Operand = tuple[np.ndarray, Sequence[int]]  # a table's memory and its scope
INNER = 24  # a strided inner loop shorter than this costs more than a copy that lengthens it
BLOCK = 96  # rows of the 0/1 matrix that sums short inner blocks


class Calls:
    """Writes down the calls that multiply and sum tables over a clique tree's variables.

    A table is a piece of memory and its scope; its axes follow the elimination order, and the batch
    is the last one. `scratch` is memory for what lies between two calls.
    """

    def __init__(self, tree: CliqueTree, batch: int, dtype: np.dtype) -> None:
        self.tree, self.batch, self.dtype = tree, batch, dtype
        self.scratch = np.empty(0, dtype)
        self._kernels: dict[tuple[int, int], np.ndarray] = {}

    def runs(self, axes: Sequence[int], *scopes: Sequence[int]) -> list[Run]:
        """Neighbouring axes that the same scopes mention, as one axis: (length, mentioned by)."""
        cards = self.tree.cardinalities
        sets = [set(scope) for scope in scopes]
        return _coalesced(
            [(cards[v], tuple(v in inside for inside in sets)) for v in axes if cards[v] != 1]
        )

    def broadcast(
        self, buffer: np.ndarray, scope: Sequence[int], out: np.ndarray, axes: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        runs = self.runs(axes, scope)
        rows = buffer.size // self.tree.size(scope)
        view = buffer.reshape([n if kept else 1 for n, (kept,) in runs] + [rows])
        return view, out.reshape([n for n, _ in runs] + [self.batch])

    def multiply(
        self, first: Operand, second: Operand, result: Operand, spare: np.ndarray
    ) -> list[Call]:
        """result = first x second, in calls whose inner loops are long."""
        out, axes = result
        calls: list[Call] = []
        operands = []
        for operand in (first, second):
            longer = self._lengthened(operand, axes, spare, calls)
            if longer is not operand:
                spare = spare[longer[0].size :]
            operands.append(longer)
        runs = self.runs(axes, operands[0][1], operands[1][1])
        views = []
        for k, (buffer, scope) in enumerate(operands):
            rows = buffer.size // self.tree.size(scope)
            views.append(buffer.reshape([n if kind[k] else 1 for n, kind in runs] + [rows]))
        target = out.reshape([n for n, _ in runs] + [self.batch])
        calls.append((np.multiply, (*views, target)))
        return calls

    def _lengthened(
        self, operand: Operand, axes: Sequence[int], spare: np.ndarray, calls: list[Call]
    ) -> Operand:
        """The operand with its last axes filled in, where the inner loop would be short."""
        buffer, scope = operand
        runs = self.runs(axes, scope)
        if self.batch > 1 or len(runs) < 2 or runs[-1][0] >= INNER:
            return operand
        cards, wanted, block = self.tree.cardinalities, set(scope), 1
        for v in reversed(axes):
            block *= cards[v]
            wanted.add(v)
            if block >= INNER:
                break
        size = self.tree.size(wanted)
        if 3 * size > self.tree.size(axes) or size > spare.size:
            return operand
        longer = [v for v in axes if v in wanted]
        view, target = self.broadcast(buffer, scope, spare[:size], longer)
        calls.append((np.copyto, (target, view)))
        return spare[:size], longer

    def sum(
        self, buffer: np.ndarray, axes: Sequence[int], kept: Sequence[int], out: np.ndarray
    ) -> list[Call]:
        """out = the table summed to `kept`, in matrix products with ones, outermost axes first."""
        runs = self.runs(axes, kept)
        calls: list[Call] = []
        spare = self.scratch
        while True:
            at = next((i for i, (_, (keep,)) in enumerate(runs) if not keep), None)
            if at is None:
                break
            before = math.prod(n for n, _ in runs[:at])
            length = runs[at][0]
            after = math.prod(n for n, _ in runs[at + 1 :])
            runs = _coalesced(runs[:at] + runs[at + 1 :])
            last = all(keep for _, (keep,) in runs)
            size = before * after * self.batch
            target = out if last else spare[:size]
            if not last:
                spare = spare[size:]
            calls.append(self._contract(buffer, before, length, after * self.batch, target))
            buffer = target
        if not calls:
            calls.append((np.copyto, (out, buffer)))
        return calls

    def _contract(
        self, buffer: np.ndarray, before: int, length: int, after: int, out: np.ndarray
    ) -> Call:
        """Sum over the middle axis of a table (before, length, after)."""
        if after == 1 and length >= 256:
            table = buffer.reshape(before, length)
            return partial(np.add.reduce, out=out.reshape(before)), (table, 1)
        if before == 1:
            ones = self._kernel(length, 0)
            return np.dot, (ones, buffer.reshape(length, after), out.reshape(after))
        if self.batch == 1 and after < 16 and length * after <= BLOCK:
            kernel = self._kernel(length, after)
            return np.dot, (
                buffer.reshape(before, length * after),
                kernel,
                out.reshape(before, after),
            )
        ones = self._kernel(length, 0).reshape(1, length)
        return np.matmul, (
            ones,
            buffer.reshape(before, length, after),
            out.reshape(before, 1, after),
        )

    def _kernel(self, length: int, after: int) -> np.ndarray:
        """Ones, or the matrix that sums blocks: row (i, j) has its one in column j."""
        if (length, after) not in self._kernels:
            if after:
                kernel = np.tile(np.eye(after, dtype=self.dtype), (length, 1))
            else:
                kernel = np.ones(length, self.dtype)
            self._kernels[length, after] = kernel
        return self._kernels[length, after]


def _coalesced(runs: Sequence[Run]) -> list[Run]:
    """Neighbours that the same scopes mention, as one."""
    joined: list[Run] = []
    for length, kind in runs:
        if joined and joined[-1][1] == kind:
            joined[-1] = joined[-1][0] * length, kind
        else:
            joined.append((length, kind))
    return joined
