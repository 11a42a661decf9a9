"""Belief propagation on a clique tree as a fixed program of NumPy calls on preallocated memory.

Messages go up and come down again (Jensen, Lauritzen & Olesen 1990, the HUGIN scheme): a clique's
belief is its potential times the messages from its children; what comes down to a separator is
divided by what went up. Which arrays meet in which call depends on the tree alone, so that the
calls are written down once, with every view and every result's place, and a query only runs them.
The batch of evidence rows is the last axis. Messages are scaled to a largest entry of 1, and the
logarithms of the scales add up to the log of the evidence.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from .calls import Call, Calls
from .clique_tree import CliqueTree

SEARCHED = 12  # operands of a clique up to which the cheapest pair is looked for


class Propagation:
    """The program of one clique tree, its potentials and its memory, for a batch of fixed size.

    Args:
        tree: the clique tree.
        factors: (scope, table) pairs over the tree's variables; axes in the scope's order, and one
            more axis at the end where the table differs between the rows of the batch.
        batch: rows answered at once.
        dtype: of all tables.
        targets: scopes whose marginals are wanted, each inside a clique, axes in the scope's
            order; all variables by default.
    """

    def __init__(
        self,
        tree: CliqueTree,
        factors: Sequence[tuple[tuple[int, ...], np.ndarray]],
        batch: int = 1,
        dtype: Any = np.float64,
        targets: Sequence[tuple[int, ...]] | None = None,
    ) -> None:
        self.tree, self.batch, self.dtype = tree, batch, np.dtype(dtype)
        self._calls = Calls(tree, batch, self.dtype)
        everything = [(v,) for v in range(len(tree.cardinalities))]
        self.targets = everything if targets is None else list(targets)
        self._bind(factors)
        self._lay_out()
        self.scales = np.ones((len(tree.axes), batch), self.dtype)
        separators = [tree.size(scope) for scope in tree.separators]
        # One block: the system hands out large blocks in large pages, which is much faster.
        memory = np.empty(
            (sum(tree.cells) + 2 * sum(separators) + self._room()) * batch, self.dtype
        )
        parts = np.split(memory, np.cumsum([*tree.cells, *separators, *separators]) * batch)
        count = len(tree.axes)
        self.beliefs, self.messages = parts[:count], parts[count : 2 * count]
        self._separator_beliefs, self._calls.scratch = parts[2 * count : -1], parts[-1]
        self._up = [self._upward(clique) for clique in tree.downward]
        self._outgoing = [self._message(clique) for clique in tree.downward]
        self._smallest = _smallest_cliques(tree)
        self._down = self._downward()

    # Potentials ---------------------------------------------------------------------------------

    def _bind(self, factors: Sequence[tuple[tuple[int, ...], np.ndarray]]) -> None:
        """Multiply the factors of each clique, over no more variables than they mention."""
        tree = self.tree
        here: list[list[tuple[tuple[int, ...], np.ndarray]]] = [[] for _ in tree.axes]
        self.log_scale: Any = 0.0
        for scope, table in factors:
            axes = tree.ordered(scope)
            extra = table.ndim > len(scope)
            moved = [scope.index(v) for v in axes]
            table = table.transpose(moved + [len(scope)] * extra)
            if not extra:
                table = table[..., None]
            if not scope:
                with np.errstate(divide="ignore"):
                    self.log_scale = self.log_scale + np.log(table.astype(np.float64))
                continue
            table, _ = self._scaled(table)
            here[tree.home_of(scope)].append((axes, table))
        self.potentials: list[tuple[tuple[int, ...], np.ndarray] | None] = []
        self._tops = np.ones((len(here), self.batch))
        for clique, group in enumerate(here):
            group.sort(key=lambda item: item[1].size)
            merged: tuple[tuple[int, ...], np.ndarray] | None = None
            for axes, table in group:
                if merged is None:
                    merged = axes, table
                    continue
                union = tree.ordered({*merged[0], *axes})
                merged = union, self._spread(*merged, union) * self._spread(axes, table, union)
            if merged is not None:
                axes, table = merged
                if len(group) > 1:
                    table, self._tops[clique] = self._scaled(table)
                rows = table.shape[-1]
                merged = axes, np.ascontiguousarray(table, self.dtype).reshape(-1, rows)
            self.potentials.append(merged)

    def _scaled(self, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The table with a largest entry of 1 in each row, so that products cannot overflow."""
        top = table.reshape(-1, table.shape[-1]).max(0)
        top = np.where(top > 0, top, 1.0)
        self.log_scale = self.log_scale + np.log(top.astype(np.float64))
        return table / top, top

    def rebind(self, factors: Sequence[tuple[tuple[int, ...], np.ndarray]]) -> None:
        """Other tables in the place of the first ones: the same scopes in the same order."""
        first = self.potentials
        self._bind(factors)
        for old, new in zip(first, self.potentials, strict=True):
            if old is not None and new is not None:
                np.copyto(old[1], new[1])  # the calls hold views of this memory
        self.potentials = first

    def _spread(self, scope: Sequence[int], table: np.ndarray, over: Sequence[int]) -> np.ndarray:
        """A table with axes of length 1 for the variables that it does not mention."""
        cards, inside = self.tree.cardinalities, set(scope)
        return table.reshape([cards[v] if v in inside else 1 for v in over] + [table.shape[-1]])

    # The layout of calls --------------------------------------------------------------------------

    def _lay_out(self) -> None:
        """In which order each clique multiplies its potential and messages, small ones first."""
        self._steps: list[list[tuple[Any, Any, tuple[int, ...]]]] = []
        for clique, axes in enumerate(self.tree.axes):
            operands: list[tuple[tuple[int, ...], Any]] = []
            potential = self.potentials[clique]
            if potential is not None:
                operands.append((potential[0], "potential"))
            for child in self.tree.children[clique]:
                operands.append((self.tree.separators[child], child))
            steps: list[tuple[Any, Any, tuple[int, ...]]] = []
            operands = self._alike(operands, steps)
            while len(operands) > 1:
                pair = (0, 1)
                # Full tables share the belief's memory: from the first one on, all else joins it.
                full = operands[0][0] == axes and isinstance(operands[0][1], tuple)
                if 2 < len(operands) <= SEARCHED and not full:
                    pair = min(
                        ((i, j) for j in range(len(operands)) for i in range(j)),
                        key=lambda ij: self.tree.size({*operands[ij[0]][0], *operands[ij[1]][0]}),
                    )
                first, second = operands[pair[0]], operands[pair[1]]
                union = self.tree.ordered({*first[0], *second[0]})
                operands = [o for k, o in enumerate(operands) if k not in pair]
                steps.append((first, second, union))
                operands.insert(0, (union, ("step", len(steps) - 1)))
            if not operands or operands[0][0] != axes or not steps:
                steps.append((operands[0] if operands else None, None, axes))
            self._steps.append(steps)

    def _alike(self, operands: list[Any], steps: list[Any]) -> list[Any]:
        """Operands of one scope multiplied at once: a hundred children of one variable, say."""
        found: dict[tuple[int, ...], Any] = {}
        for scope, what in operands:
            if scope in found:
                steps.append((found[scope], (scope, what), scope))
                what = "step", len(steps) - 1
            found[scope] = scope, what
        return sorted(found.values(), key=lambda operand: self.tree.size(operand[0]))

    def _room(self) -> int:
        """Cells of scratch memory that the worst clique needs, for one row."""
        room = 0
        for clique, steps in enumerate(self._steps):
            partial = sum(self.tree.size(union) for *_, union in steps[:-1])
            room = max(room, partial + self.tree.cells[clique])
        return room

    def _upward(self, clique: int) -> list[Call]:
        """Belief = potential x messages from the children; message = belief summed, scaled."""
        tree = self.tree
        calls: list[Call] = []
        axes, belief = tree.axes[clique], self.beliefs[clique]
        used = 0
        results: list[np.ndarray] = []

        def buffer(operand: Any) -> np.ndarray:
            if operand[1] == "potential":
                return self.potentials[clique][1]  # type: ignore[index]
            if isinstance(operand[1], tuple):
                return results[operand[1][1]]
            return self.messages[operand[1]]

        for first, second, union in self._steps[clique]:
            size = tree.size(union) * self.batch
            if union == axes:
                out = belief
            else:
                out = self._calls.scratch[used : used + size]
                used += size
            spare = self._calls.scratch[used:]
            if second is None:
                if first is None:
                    calls.append((np.copyto, (out, 1.0)))
                else:
                    view, target = self._calls.broadcast(buffer(first), first[0], out, union)
                    calls.append((np.copyto, (target, view)))
            else:
                pair = (buffer(first), first[0]), (buffer(second), second[0])
                calls += self._calls.multiply(*pair, (out, union), spare)
            results.append(out)
        return calls

    def _message(self, clique: int) -> list[Call]:
        """The belief summed to the separator, scaled to a largest entry of 1; at a root, its sum.

        Scaled to sum to one, a hundred messages over one variable would multiply to nothing.
        """
        tree = self.tree
        belief, scale = self.beliefs[clique], self.scales[clique]
        if tree.parents[clique] < 0:
            calls = self._calls.sum(belief, tree.axes[clique], (), scale)
            return [*calls, (np.divide, self._rows(belief, scale))]
        message = self.messages[clique]
        calls = self._calls.sum(belief, tree.axes[clique], tree.separators[clique], message)
        if self.batch == 1:
            calls.append((partial(np.maximum.reduce, out=scale.reshape(())), (message,)))
        else:
            table = message.reshape(-1, self.batch)
            calls.append((partial(np.maximum.reduce, out=scale), (table,)))
        return [*calls, (np.divide, self._rows(message, scale))]

    def _rows(self, buffer: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, ...]:
        table = buffer.reshape(-1, self.batch)
        return table, scale, table

    def _downward(self) -> list[Call]:
        """The beliefs on the way to the targets, each read from the smallest table that has it."""
        tree = self.tree
        holders = self._holders()
        needed: set[int] = set()
        for kind, clique in holders:
            clique = clique if kind == "clique" else tree.parents[clique]
            while clique >= 0 and clique not in needed:
                needed.add(clique)
                clique = tree.parents[clique]
        read = {clique for kind, clique in holders if kind == "separator"}
        calls: list[Call] = []
        marginals = self._separator_beliefs
        for clique in tree.downward:
            parent = tree.parents[clique]
            if parent < 0 or (clique not in needed and clique not in read):
                continue
            scope, message = tree.separators[clique], self.messages[clique]
            calls += self._calls.sum(
                self.beliefs[parent], tree.axes[parent], scope, marginals[clique]
            )
            if clique in needed:
                # The belief was not scaled when the message was. Where nothing went up nothing
                # comes down: 0 / tiny instead of 0 / 0.
                calls.append((np.multiply, self._rows(message, self.scales[clique])))
                calls.append(
                    (partial(np.maximum, out=message), (message, np.finfo(self.dtype).tiny))
                )
                calls.append((np.divide, (marginals[clique], message, message)))
                belief, axes = self.beliefs[clique], tree.axes[clique]
                calls += self._calls.multiply(
                    (belief, axes), (message, scope), (belief, axes), self._calls.scratch
                )
        sizes = [tree.size(scope) for scope in self.targets]
        self.posterior = np.empty((sum(sizes), self.batch), self.dtype)
        start = 0
        for scope, size, (kind, clique) in zip(self.targets, sizes, holders, strict=True):
            out = self.posterior[start : start + size].reshape(-1)
            start += size
            axes = tree.ordered(scope)
            target = out if axes == scope else np.empty(out.size, self.dtype)
            if kind == "clique":
                calls += self._calls.sum(self.beliefs[clique], tree.axes[clique], scope, target)
            else:
                calls += self._calls.sum(marginals[clique], tree.separators[clique], scope, target)
            if axes != scope:
                table = target.reshape([*(tree.cardinalities[v] for v in axes), self.batch])
                moved = table.transpose([*(axes.index(v) for v in scope), len(axes)])
                calls.append((np.copyto, (out.reshape(moved.shape), moved)))
        return calls

    def _holders(self) -> list[tuple[str, int]]:
        """The smallest table, a clique's or a separator's, that has each target."""
        tree = self.tree
        best = dict(self._smallest)
        for clique, scope in enumerate(tree.separators):
            for v in scope:
                kind, at = best[v]
                held = tree.cells[at] if kind == "clique" else tree.size(tree.separators[at])
                if tree.size(scope) < held:
                    best[v] = "separator", clique
        return [
            best[scope[0]] if len(scope) == 1 else ("clique", tree.smallest_holder(scope))
            for scope in self.targets
        ]

    # Running --------------------------------------------------------------------------------------

    def collect(self, likelihoods: Mapping[int, np.ndarray]) -> np.ndarray:
        """Messages up; the log of the evidence of each row, nan where nothing is possible.

        Args:
            likelihoods: by variable a table (states, batch or 1) that multiplies the model.
        """
        tree = self.tree
        entering: dict[int, list[Call]] = {}
        for v, table in likelihoods.items():
            clique = self._smallest[v][1]
            axes, belief = tree.axes[clique], self.beliefs[clique]
            at = axes.index(v)
            before = math.prod(tree.cardinalities[u] for u in axes[:at])
            after = math.prod(tree.cardinalities[u] for u in axes[at + 1 :])
            shape = (before, tree.cardinalities[v], after, self.batch)
            target = belief.reshape(shape)
            weight = table.astype(self.dtype, copy=False)[:, None, :]
            entering.setdefault(clique, []).append((np.multiply, (target, weight, target)))
        with np.errstate(all="ignore"):
            for clique in reversed(tree.downward):
                for function, arguments in self._up[clique]:
                    function(*arguments)
                for function, arguments in entering.get(clique, ()):
                    function(*arguments)
                for function, arguments in self._outgoing[clique]:
                    function(*arguments)
            logs = np.log(self.scales.astype(np.float64, copy=False)).sum(0)
        return logs + np.reshape(self.log_scale, -1)

    def doubtful(self) -> np.ndarray:
        """The rows, after `collect`, in which small numbers may have lost digits: (batch,) bools.

        No table entry exceeds 1, so that what underflowed in a clique is at most the smallest
        normal number; it is nothing beside a sum that is much larger.
        """
        floor = 1e-200 if self.dtype == np.float64 else 1e-25
        return (self.scales * self._tops).min(0, initial=1.0) < floor

    def distribute(self) -> np.ndarray:
        """Messages down, after `collect`: the marginals of the targets, (their states, batch)."""
        with np.errstate(all="ignore"):
            for function, arguments in self._down:
                function(*arguments)
        return self.posterior


def _smallest_cliques(tree: CliqueTree) -> dict[int, tuple[str, int]]:
    """The smallest clique that holds each variable."""
    found: dict[int, tuple[str, int]] = {}
    for clique, axes in enumerate(tree.axes):
        for v in axes:
            if v not in found or tree.cells[clique] < tree.cells[found[v][1]]:
                found[v] = "clique", clique
    return found
