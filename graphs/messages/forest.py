"""Belief propagation on forests in two passes: from the leaves to the roots, and back.

Messages of one depth go together, and each depth costs a little Python: `paths` has another way for
deep trees, such as chains.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, dijkstra
from torch import Tensor

from ..progress import Bar
from .algebra import Algebra, Linear, Total, outgoing, spread, start
from .flooding import Flooding, Messages
from .wiring import Wiring


class Step(NamedTuple):
    """The factors of one group that hang at one depth by the same axis."""

    block: int
    axis: int
    """The axis of the parent."""
    table: Tensor
    ends: list[Tensor]
    """Of each axis, the places of its variables among those of their depth and number of states."""
    slots: list[Tensor]
    """Of each axis, where its messages are among all of that number of states."""


class Forest:
    """The depths of a forest's variables and factors.

    Args:
        engine: its structure, which must be a forest, and the product.
        root: the position of a variable to be the root of its tree; each other tree has its first
            variable as root.
        tree: what `rooted` says of them, where that is known.
    """

    def __init__(self, engine: Flooding, root: int | None, tree: "Rooted | None" = None) -> None:
        self.engine, self.wiring = engine, engine.wiring
        self.algebra: Algebra = Linear() if engine.fast else engine.exact
        tree = rooted(self.wiring, root) if tree is None else tree
        self._set_variables(tree.depth)
        self.steps: list[list[Step]] = [[] for _ in range(max(self.height - 1, 0))]
        for index, (parent, depth) in enumerate(zip(tree.parents, tree.depths, strict=True)):
            self._set_steps(index, parent, depth)

    def _set_variables(self, depth: np.ndarray) -> None:
        wiring = self.wiring
        self.height = int(depth.max(initial=-1)) + 1
        self.within = np.empty(len(depth), np.int64)
        self.unary: list[dict[int, Tensor]] = [{} for _ in range(self.height)]
        self.places: list[dict[int, Tensor]] = [{} for _ in range(self.height)]
        for size, members in wiring.members.items():
            here = depth[members]
            order = np.argsort(here, kind="stable")
            levels, counts = np.unique(here, return_counts=True)
            starts = np.repeat(np.cumsum(counts) - counts, counts)
            self.within[members[order]] = np.arange(len(members)) - starts
            at = _index(order, wiring)
            cut = counts.tolist()
            pieces = wiring.unary[size].index_select(1, at).split(cut, 1)
            for level, piece, places in zip(levels.tolist(), pieces, at.split(cut), strict=True):
                self.unary[level][size], self.places[level][size] = piece, places

    def _set_steps(self, index: int, parent: np.ndarray, depth: np.ndarray) -> None:
        wiring = self.wiring
        block = wiring.blocks[index]
        arity = len(block.shape)
        table = self.algebra.table(block.table, arity)
        for axis in np.unique(parent).tolist():
            mine = np.flatnonzero(parent == axis)
            mine = mine[np.argsort(depth[mine], kind="stable")]
            levels, counts = np.unique(depth[mine], return_counts=True)
            cut = counts.tolist()
            tables: Sequence[Tensor] = [table] * len(cut)
            if table.shape[arity] > 1:
                tables = table.index_select(arity, _index(mine, wiring)).split(cut, arity)
            ends = [
                _index(self.within[block.scopes[mine, a]], wiring).split(cut) for a in range(arity)
            ]
            slots = [_index(span.start + mine, wiring).split(cut) for span in block.spans]
            rows = zip(levels.tolist(), tables, zip(*ends, strict=True),
                       zip(*slots, strict=True), strict=True)  # fmt: skip
            for level, piece, end, slot in rows:
                self.steps[level].append(Step(index, axis, piece, list(end), list(slot)))

    def run(self, text: str) -> Messages:
        """All messages, exact after the two passes.

        Raises:
            ValueError: hard constraints that contradict each other.
        """
        with Bar(text, 2 * len(self.steps)) as bar:
            up, totals = self._up(bar)
            down = self._down(up, totals, bar)
        return self._assembled(up, down)

    def _up(self, bar: Bar) -> tuple[list[list[Tensor]], list[dict[int, Total]]]:
        """By depth, the message of each step to its parents, and what each variable sums up."""
        algebra, hard = self.algebra, self.wiring.hard
        up: list[list[Tensor]] = [[] for _ in self.steps]
        totals = [{k: start(u, hard) for k, u in level.items()} for level in self.unary]
        for level in reversed(range(len(self.steps))):
            lifted = {
                size: algebra.lift(_scaled(total.value))
                for size, total in totals[level + 1].items()
            }
            for step in self.steps[level]:
                sizes = self.wiring.blocks[step.block].shape
                parts = [
                    step.table if axis == step.axis else lifted[size].index_select(1, end)
                    for axis, (size, end) in enumerate(zip(sizes, step.ends, strict=True))
                ]  # the parent's place holds nothing that is used
                out = outgoing(algebra, step.table, parts, [step.axis])
                message = algebra.lower(out[step.axis])
                if hard:
                    self._refuse_nothing(step, step.axis, message)
                up[level].append(message)
                size = sizes[step.axis]
                totals[level][size] = totals[level][size].add(step.ends[step.axis], message)
            bar.at(len(self.steps) - level)
        return up, totals

    def _down(
        self,
        up: list[list[Tensor]],
        totals: list[dict[int, Total]],
        bar: Bar,
    ) -> list[list[dict[int, Tensor]]]:
        """By depth, the messages of each step to its children, by axis."""
        algebra = self.algebra
        down: list[list[dict[int, Tensor]]] = [[] for _ in self.steps]
        for level, steps in enumerate(self.steps):
            lifted = {
                size: algebra.lift(_scaled(total.value))
                for size, total in totals[level + 1].items()
            }
            for step, message in zip(steps, up[level], strict=True):
                sizes = self.wiring.blocks[step.block].shape
                above = totals[level][sizes[step.axis]].without(step.ends[step.axis], message)
                parts = [
                    algebra.lift(above) if axis == step.axis else lifted[size].index_select(1, end)
                    for axis, (size, end) in enumerate(zip(sizes, step.ends, strict=True))
                ]
                others = [axis for axis in range(len(sizes)) if axis != step.axis]
                out = outgoing(algebra, step.table, parts, others)
                sent = {axis: algebra.lower(out[axis]) for axis in others}
                if self.wiring.hard:
                    for axis in others:
                        self._refuse_nothing(step, axis, sent[axis])
                down[level].append(sent)
            below = totals[level + 1]
            for step, sent in zip(steps, down[level], strict=True):
                sizes = self.wiring.blocks[step.block].shape
                for axis, message in sent.items():
                    below[sizes[axis]] = below[sizes[axis]].add(step.ends[axis], message)
            bar.at(len(self.steps) + level)
        return down

    def _assembled(self, up: list[list[Tensor]], down: list[list[dict[int, Tensor]]]) -> Messages:
        """The messages in the order of the wiring."""
        pieces: dict[int, list[Tensor]] = {size: [] for size in self.wiring.ends}
        slots: dict[int, list[Tensor]] = {size: [] for size in self.wiring.ends}
        for level, steps in enumerate(self.steps):
            for step, message, sent in zip(steps, up[level], down[level], strict=True):
                sizes = self.wiring.blocks[step.block].shape
                for axis, piece in [(step.axis, message), *sent.items()]:
                    pieces[sizes[axis]].append(piece)
                    slots[sizes[axis]].append(step.slots[axis])
        messages = self.wiring.zeros()
        for size, found in pieces.items():
            if found:
                order = torch.argsort(torch.cat(slots[size]))
                messages[size] = torch.cat(found, 1).index_select(1, order)
        return messages

    def decode(self, messages: Messages) -> dict[int, Tensor]:
        """The best states, by number of states (variables [, B]), ties broken consistently: from
        each root on, a factor's other variables take the best states given its parent's."""
        nu = self.engine.cavities(messages)
        best = {k: total.value.argmax(0) for k, total in self.engine.totals(messages).items()}
        for level, steps in enumerate(self.steps):
            for step in steps:
                sizes = self.wiring.blocks[step.block].shape
                arity = len(sizes)
                whole = step.table
                for axis, size in enumerate(sizes):
                    if axis != step.axis:
                        part = nu[size].index_select(1, step.slots[axis])
                        whole = whole + spread(part, axis, arity)
                at = self.places[level][sizes[step.axis]].index_select(0, step.ends[step.axis])
                above = best[sizes[step.axis]].index_select(0, at)
                flat = whole.movedim(step.axis, 0).flatten(1, arity - 1)
                flat = flat.expand(*flat.shape[:2], *above.shape)
                chosen = flat.gather(0, above[None, None].expand(1, *flat.shape[1:]))[0].argmax(0)
                for axis in reversed(range(arity)):
                    if axis != step.axis:
                        at = self.places[level + 1][sizes[axis]][step.ends[axis]]
                        best[sizes[axis]][at] = chosen % sizes[axis]
                        chosen = chosen // sizes[axis]
        return best

    def _refuse_nothing(self, step: Step, axis: int, message: Tensor) -> None:
        bad = torch.isnan(message[0])
        if not bad.any():
            return
        block = self.wiring.blocks[step.block]
        place = bad.nonzero()[0].tolist()
        row = int(step.slots[axis][place[0]]) - block.spans[axis].start
        names = [str(self.wiring.graph.variables[v]) for v in block.scopes[row]]
        field = f" of field {place[1]}" if len(place) > 1 else ""
        raise ValueError(
            f"hard constraints contradict each other{field}: at factor {block.numbers[row]} over "
            f"{', '.join(names)} no state of {names[axis]} is left"
        )


class Rooted(NamedTuple):
    """What hangs where, counted from the roots."""

    depth: np.ndarray
    """(V,): how many factors lie between a variable and its root."""
    parents: list[np.ndarray]
    """Of each block, (F,): the axis of each factor's parent."""
    depths: list[np.ndarray]
    """Of each block, (F,): the depth of each factor's parent."""


def rooted(wiring: Wiring, root: int | None) -> Rooted:
    """The trees of a forest seen from their roots; see `Forest` for which they are."""
    nodes = variables = len(wiring.graph.variables)
    tails, heads = [], []
    for block in wiring.blocks:
        for axis in range(len(block.shape)):
            tails.append(block.scopes[:, axis])
            heads.append(np.arange(nodes, nodes + len(block.scopes)))
        nodes += len(block.scopes)
    none = [np.empty(0, np.int64)]
    ends = np.concatenate(none + tails), np.concatenate(none + heads)
    joined = coo_array((np.ones(len(ends[0])), ends), (nodes, nodes)).tocsr()
    trees = connected_components(joined, directed=False)[1]
    roots = np.unique(trees[:variables], return_index=True)[1]
    if root is not None:
        roots[trees[roots] == trees[root]] = root
    far, before, _ = dijkstra(
        joined, directed=False, indices=roots, unweighted=True, min_only=True,
        return_predecessors=True,
    )  # fmt: skip
    depth = far.astype(np.int64) // 2
    parents, depths, done = [], [], variables
    for block in wiring.blocks:
        own = slice(done, done + len(block.scopes))
        parents.append((block.scopes == before[own, None]).argmax(1))
        depths.append(depth[own])
        done += len(block.scopes)
    return Rooted(depth[:variables], parents, depths)


def _scaled(total: Tensor) -> Tensor:
    """With a largest entry of 0; NaN where nothing is left."""
    top = total.detach().amax(0)
    return total - top.masked_fill(torch.isneginf(top), math.nan)


def _index(places: np.ndarray, wiring: Wiring) -> Tensor:
    return torch.as_tensor(places, device=wiring.device)
