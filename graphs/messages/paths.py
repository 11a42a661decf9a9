"""Belief propagation on deep forests in a number of rounds that grows with the logarithm of depth.

Each round sends the messages of leaves, and eliminates variables from the paths between branches:
where v lies in two factors only, both of two variables,

    a - psi_1 - v - psi_2 - b    becomes    a - psi' - b,
    psi'(a, b) = sum (or max) over v of psi_1(a, v) psi_v(v) psi_2(v, b)

with psi_v what leaves have sent to v. No two of a round lie side by side. The rounds are then
undone, the last one first: psi' has sent to a what psi_1 would have sent, and to b what psi_2 would
have sent, so that v can be told by both.

Source: Miller and Reif, "Parallel tree contraction and its application" (1985), whose rake and
    compress these are.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..progress import Bar
from .algebra import Algebra, Linear, Total, outgoing, peak, spread, start
from .flooding import Flooding, Messages
from .forest import Forest, rooted
from .rounds import Fold, Plan, Rake, Shape, index, planned

DEPTH = 64  # a forest of fewer depths has no need of this
# Terms of psi' in the time that a depth takes; sums of logarithms are slower than other terms.
WORK, LOGARITHMIC_WORK = 100_000, 30_000


class Paths:
    """Leaves and paths of a forest, round by round.

    Args:
        engine: its structure, which must be a forest, and the product.
        root: the position of a variable to be the root of its tree; each other tree has its first
            variable as root.
        plan: what `planned` says.
    """

    def __init__(self, engine: Flooding, root: int | None, plan: Plan) -> None:
        self.engine, self.wiring, self.root, self.plan = engine, engine.wiring, root, plan
        self.tables: dict[Shape, Tensor] = {}
        self.sent: dict[Shape, list[Tensor]] = {}
        """Of each pool, by axis, the messages (K, columns [, B]) of its factors."""
        self.rest: list[tuple[list[list[Tensor]], list[Tensor]]] = []
        """Of each round, what children tell the factors of a rake, and what v has been told by
        leaves: logarithms with a largest entry of 0."""

    def run(self, text: str) -> Messages:
        """All messages, exact after the rounds and their undoing.

        Raises:
            ValueError: hard constraints that contradict each other.
        """
        self._load()
        totals = {k: start(u, self.wiring.hard) for k, u in self.wiring.unary.items()}
        with Bar(text, 2 * len(self.plan.rounds)) as bar:
            for done, (rakes, folds) in enumerate(self.plan.rounds):
                told = [self._rake(rake, totals) for rake in rakes]
                left = [self._fold(fold, totals) for fold in folds]
                self.rest.append((told, left))
                bar.at(done + 1)
            if not all(bool(t.value.amax(0).isfinite().all()) for t in totals.values()):
                # No assignment is possible. The messages of single factors tell where.
                return Forest(self.engine, self.root).run(text)
            for done, (rakes, folds) in enumerate(reversed(self.plan.rounds)):
                told, _ = self.rest[-1 - done]
                for fold in folds:
                    self._unfold(fold, totals)
                for rake, parts in zip(rakes, told, strict=True):
                    self._unrake(rake, parts, totals)
                bar.at(len(self.plan.rounds) + done + 1)
        return self._assembled()

    def decode(self, messages: Messages) -> dict[int, Tensor]:
        """The best states, by number of states (variables [, B]), ties broken consistently: each
        round undone gives states to what it took away, given those of its neighbours."""
        best = {k: total.value.argmax(0) for k, total in self.engine.totals(messages).items()}
        for (rakes, folds), (told, left) in zip(
            reversed(self.plan.rounds), reversed(self.rest), strict=True
        ):
            for fold, own in zip(folds, left, strict=True):
                a, _, b = (best[k][end] for k, end in zip(fold.shape, fold.ends, strict=True))
                above, below = self._sides(fold)
                score = _given(above, 0, a) + own + _given(below, 1, b)
                best[fold.shape[1]][fold.ends[1]] = score.argmax(0)
            for rake, parts in zip(rakes, told, strict=True):
                self._choose(rake, parts, best)
        return best

    def _load(self) -> None:
        """The tables of the given factors, each with the axis of its parent first."""
        wiring = self.wiring
        self.rest.clear()
        for shape, pool in self.plan.pools.items():
            size = (*shape, pool.columns, *wiring.fields)
            self.tables[shape] = torch.empty(size, dtype=wiring.dtype, device=wiring.device)
            for number, order, rows, first in pool.sources:
                table = wiring.blocks[number].table
                arity = len(order)
                if table.shape[arity] > 1:
                    table = table.index_select(arity, index(rows, wiring))
                whole = table.permute(*order, *range(arity, table.ndim))
                self.tables[shape].narrow(arity, first, len(rows)).copy_(whole)
            self.sent[shape] = [
                torch.zeros((k, *size[len(shape) :]), dtype=wiring.dtype, device=wiring.device)
                for k in shape
            ]

    def _rake(self, rake: Rake, totals: dict[int, Total]) -> list[Tensor]:
        """Send to the parents, and return what the children said."""
        shape, ends = rake.shape, rake.ends
        told = [_heard(totals[k], end) for k, end in zip(shape[1:], ends[1:], strict=True)]
        table = self._table(rake)
        algebra = self._algebra([table], told)
        parts = [table, *map(algebra.lift, told)]  # the parent's place holds nothing that is used
        out = outgoing(algebra, algebra.table(table, len(shape)), parts, [0])
        message = algebra.lower(out[0])
        self.sent[shape][0].index_copy_(1, rake.columns, message)
        totals[shape[0]] = totals[shape[0]].add(ends[0], message)
        return told

    def _unrake(self, rake: Rake, told: list[Tensor], totals: dict[int, Total]) -> None:
        """Send to the children."""
        shape, ends = rake.shape, rake.ends
        message = self.sent[shape][0].index_select(1, rake.columns)
        above = totals[shape[0]].without(ends[0], message)
        table = self._table(rake)
        algebra = self._algebra([table], [above, *told])
        parts = [algebra.lift(part) for part in (above, *told)]
        out = outgoing(algebra, algebra.table(table, len(shape)), parts, range(1, len(shape)))
        for axis in range(1, len(shape)):
            message, size = algebra.lower(out[axis]), shape[axis]
            self.sent[shape][axis].index_copy_(1, rake.columns, message)
            totals[size] = totals[size].add(ends[axis], message)

    def _fold(self, fold: Fold, totals: dict[int, Total]) -> Tensor:
        """Make the factors that do without v, and return what v has been told by leaves."""
        own = _heard(totals[fold.shape[1]], fold.ends[1])
        above, below = self._sides(fold)
        below = below + spread(own, 0, 2)
        algebra = self._algebra([above, below], [])
        above, below = algebra.table(above, 2), algebra.table(below, 2)
        if isinstance(algebra, Linear):
            made = torch.einsum("av...,vb...->ab...", above, below)
            live = made > 0  # the gradient of log at 0 is no number
            made = made.where(live, torch.ones_like(made)).log().masked_fill(~live, -torch.inf)
        else:
            made = torch.stack([algebra.contract(below, row, 0, 2) for row in above])
        a, _, b = fold.shape
        self.tables[a, b][:, :, fold.made] = made - peak(made, 2)
        return own

    def _unfold(self, fold: Fold, totals: dict[int, Total]) -> None:
        """Send to v from both sides, and to both sides what the factors in their place have sent
        there."""
        (a, v, b), (parents, own, children) = fold.shape, fold.ends
        up, down = (sent[:, fold.made].clone() for sent in self.sent[a, b])
        above, below = self._sides(fold)
        sides = (
            (above, 0, totals[a].without(parents, up)),
            (below, 1, totals[b].without(children, down)),
        )
        told = []
        for table, axis, nu in sides:
            algebra = self._algebra([table], [nu])
            out = algebra.contract(algebra.table(table, 2), algebra.lift(nu), axis, 2)
            told.append(algebra.lower(out))
            totals[v] = totals[v].add(own, told[-1])
        for shape, columns, sent in (
            ((a, v), fold.above, (up, told[0])),
            ((v, b), fold.below, (told[1], down)),
        ):
            for axis in (0, 1):
                self.sent[shape][axis].index_copy_(1, columns, sent[axis])

    def _choose(self, rake: Rake, told: list[Tensor], best: dict[int, Tensor]) -> None:
        """States of the children, given the parent's."""
        shape, ends = rake.shape, rake.ends
        whole = self._table(rake)
        for axis, part in enumerate(told, 1):
            whole = whole + spread(part, axis, len(shape))
        score = _given(whole, 0, best[shape[0]][ends[0]])
        chosen = score.flatten(0, len(shape) - 2).argmax(0)
        for size, end in zip(reversed(shape[1:]), reversed(ends[1:]), strict=True):
            best[size][end] = chosen % size
            chosen = chosen // size

    def _table(self, rake: Rake) -> Tensor:
        return self.tables[rake.shape].index_select(len(rake.shape), rake.columns)

    def _sides(self, fold: Fold) -> tuple[Tensor, Tensor]:
        a, v, b = fold.shape
        return (
            self.tables[a, v].index_select(2, fold.above),
            self.tables[v, b].index_select(2, fold.below),
        )

    def _algebra(self, tables: Sequence[Tensor], told: Sequence[Tensor]) -> Algebra:
        """Linear sums where no term that counts can be lost: the finite entries of the tables lie
        near together, and, where those likeliest by the messages may be forbidden, so do those of
        the messages."""
        engine = self.engine
        if engine.product == "max":
            return engine.exact
        span = sum(_span(table, len(table.shape) - 1 - len(self.wiring.fields)) for table in tables)
        if self.wiring.hard:
            span += sum(_span(nu, 1) for nu in told)
        return Linear() if span < engine.reach else engine.exact

    def _assembled(self) -> Messages:
        """The messages in the order of the wiring."""
        wiring = self.wiring
        messages = wiring.zeros()
        for shape, pool in self.plan.pools.items():
            for number, order, rows, first in pool.sources:
                for axis, sent in zip(order, self.sent[shape], strict=True):
                    slots = index(wiring.blocks[number].spans[axis].start + rows, wiring)
                    found = sent.narrow(1, first, len(rows))
                    messages[wiring.blocks[number].shape[axis]].index_copy_(1, slots, found)
        return messages


def passes(engine: Flooding, root: int | None) -> Forest | Paths:
    """The faster of the two for a forest: depth by depth, or in rounds."""
    tree = rooted(engine.wiring, root)
    plan = None
    if tree.depth.max(initial=0) >= DEPTH:
        slow = engine.product == "sum" and not engine.fast
        plan = planned(engine.wiring, tree, LOGARITHMIC_WORK if slow else WORK)
    return Forest(engine, root, tree) if plan is None else Paths(engine, root, plan)


def _heard(total: Total, ends: Tensor) -> Tensor:
    """What has come to some variables, with a largest entry of 0; NaN where nothing is left."""
    zeros = None if total.zeros is None else total.zeros.index_select(1, ends)
    value = Total(total.finite.index_select(1, ends), zeros).value
    return value - value.detach().amax(0)


def _given(table: Tensor, axis: int, states: Tensor) -> Tensor:
    """The rest of each table (K, ..., n [, B]) at a state (n [, B]) of one axis."""
    table = table.movedim(axis, 0)
    return table.gather(0, states.expand(1, *table.shape[1:]))[0]


def _span(values: Tensor, arity: int) -> float:
    """How far the finite entries lie apart, at most."""
    values = values.detach()
    axes = tuple(range(arity))
    low = values.masked_fill(torch.isneginf(values), torch.inf)
    return float((values.amax(axes) - low.amin(axes)).amax())
