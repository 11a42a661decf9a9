"""Belief propagation with all messages sent at once, from those of the iteration before."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..factor_graph import FactorGraph
from ..factor_groups import as_numbers
from ..progress import Bar
from .algebra import (
    REACH,
    ROUNDING,
    Algebra,
    Linear,
    Logarithmic,
    Maximal,
    Total,
    outgoing,
    peak,
    start,
)
from .flat import Flat
from .pairwise import Pairwise
from .wiring import Block, Wiring

Messages = dict[int, Tensor]


class Outcome(NamedTuple):
    """Where an iteration of messages ended."""

    messages: Messages
    """By number of states (K, messages [, B]): normalised logarithms of the messages from factors
    to variables."""
    iterations: int
    residual: float
    converged: bool


class Flooding:
    """One structure with its tables, ready to send messages.

    Args:
        wiring: the structure and the tables.
        product: "sum" or "max".
        weights: by number of states, one factor a message that multiplies it where messages are
            summed at a variable; None for ones. (Tree-reweighted messages need it.)
    """

    def __init__(
        self, wiring: Wiring, product: str = "sum", weights: dict[int, Tensor] | None = None
    ) -> None:
        self.wiring, self.product, self.weights = wiring, product, weights
        self.reach = REACH[wiring.dtype]
        self.exact: Algebra = Maximal() if product == "max" else Logarithmic()
        self._spread = max((_span(b) for b in wiring.blocks), default=0.0)
        self.fast = product == "sum" and not wiring.hard and self._spread < self.reach
        self._arity = max((len(b.shape) for b in wiring.blocks), default=1)
        self._linear = Linear()
        self._tables: list[Tensor | None] = [None] * len(wiring.blocks)

    def run(self, damping: float, tolerance: float, max_iterations: int, text: str) -> Outcome:
        """Iterate until no message changes by more than the tolerance.

        Raises:
            ValueError: a message that forbids every state: the constraints contradict each other.
        """
        messages = self.first()
        flat = None
        if self.product == "sum" and self.weights is None and Flat.pays(self.wiring):
            flat = Flat(self.wiring, self.reach, self._spread)
            messages = {0: flat.pack(messages)}
        pairs = Pairwise(self) if flat is None and Pairwise.pays(self) else None
        residual, rounding, done = math.inf, 0.0, 0
        floor = lowest(self.wiring.graph) if self.wiring.hard else -math.inf
        with Bar(text, max_iterations) as bar:
            for done in range(1, max_iterations + 1):
                after: Messages | None = None
                if flat is not None:
                    quick = flat.sweep(messages[0])
                    if quick is None:
                        messages, flat = flat.unpack(messages[0]), None
                    else:
                        after = {0: quick}
                if pairs is not None:
                    after = pairs.sweep(messages)
                if after is None:
                    after = self.sweep(messages)
                if damping:
                    after = {k: _damped(new, messages[k], damping) for k, new in after.items()}
                spare = None if pairs is None else pairs.nu
                residual, rounding = change(messages, after, floor, spare)
                messages = after
                bar.at(done, f"residual {residual:.2g}")
                if residual <= max(tolerance, rounding):
                    break
        if flat is not None:
            messages = flat.unpack(messages[0])
        return Outcome(messages, done, residual, residual <= max(tolerance, rounding))

    def first(self) -> Messages:
        """Messages that say nothing."""
        even = 0.0 if self.product == "max" else 1.0
        return {k: zero - even * math.log(k) for k, zero in self.wiring.zeros().items()}

    def sweep(self, messages: Messages) -> Messages:
        """Every message once, from the given ones."""
        nu = self.cavities(messages)
        algebra = self._algebra(nu)
        fresh = isinstance(algebra, Linear)
        lifted = {  # in place where nobody asks for gradients: nothing reads nu again
            k: values.exp_() if fresh and not values.requires_grad else algebra.lift(values)
            for k, values in nu.items()
        }
        found: dict[int, list[Tensor]] = {k: [] for k in nu}
        for index, block in enumerate(self.wiring.blocks):
            parts = _parts(block, lifted)
            table = self._table(index, algebra)
            out = outgoing(algebra, table, parts, range(len(parts)))
            for axis, size in enumerate(block.shape):
                found[size].append(out[axis])
        after = {}
        for size, pieces in found.items():
            if not pieces:
                after[size] = messages[size]
                continue
            whole = pieces[0] if len(pieces) == 1 else torch.cat(pieces, 1)
            after[size] = algebra.lower(whole)
            if self.wiring.hard:
                self._refuse_nothing(size, after[size])
        return after

    def totals(self, messages: Messages) -> dict[int, Total]:
        """log psi_v + the sum of the messages that reach v, for each variable."""
        wiring, weights = self.wiring, self.weights
        return {
            k: start(unary, wiring.hard).add(
                wiring.ends[k], messages[k], None if weights is None else weights[k]
            )
            for k, unary in wiring.unary.items()
        }

    def cavities(self, messages: Messages) -> Messages:
        """Messages from variables to factors: all that reach the variable from elsewhere."""
        nu = {
            k: total.without(self.wiring.ends[k], messages[k])
            for k, total in self.totals(messages).items()
        }
        if self.wiring.hard:
            for size, values in nu.items():
                self._refuse_nothing(size, values)
        return nu

    def factor_sums(self, block: Block, nu: Messages) -> Tensor:
        """log sum psi_i prod nu for each factor of a block, (F [, B]), in float64."""
        algebra = Linear() if self.fast else Logarithmic()
        arity = len(block.shape)
        parts = [algebra.lift(part) for part in _parts(block, nu)]
        out = outgoing(algebra, algebra.table(block.table, arity), parts, [0])[0]
        if not self.fast:
            return torch.logsumexp(out + parts[0], 0).double()
        top = peak(block.table, arity)
        return ((out * parts[0]).sum(0).log() + top.reshape(top.shape[arity:])).double()

    def log_partition(self, messages: Messages) -> Tensor:
        """The Bethe approximation of log Z, exact on forests, shape () or (B,), in float64.

        sum_i log sum psi_i prod nu - sum_(i, v) log sum nu mu + sum_v log sum psi_v prod mu, over
        factors i, their variables v, messages nu to and mu from factors (Yedidia, Freeman and
        Weiss 2005, "Constructing free-energy approximations", equations 37 to 43).
        """
        nu = self.cavities(messages)
        total = self.wiring.constant
        for block in self.wiring.blocks:
            total = total + self.factor_sums(block, nu).sum(0)
        for size, total_here in self.totals(messages).items():
            total = total - torch.logsumexp(nu[size] + messages[size], 0).double().sum(0)
            total = total + torch.logsumexp(total_here.value, 0).double().sum(0)
        return total

    def _algebra(self, nu: Messages) -> Algebra:
        """Linear sums where they lose nothing; with hard constraints that depends on how far the
        messages' finite entries lie apart."""
        if self.product == "max":
            return self.exact
        if self.fast:
            return self._linear
        lowest = 0.0
        for values in nu.values():
            if values.numel():
                finite = values.detach().masked_fill(torch.isneginf(values), 0.0)
                lowest = min(lowest, float(finite.amin()))
        near = self._spread - self._arity * lowest < self.reach
        return self._linear if near else self.exact

    def _table(self, index: int, algebra: Algebra) -> Tensor:
        block = self.wiring.blocks[index]
        if not isinstance(algebra, Linear):
            return block.table
        found = self._tables[index]
        if found is None:
            found = self._tables[index] = algebra.table(block.table, len(block.shape))
        return found

    def _refuse_nothing(self, size: int, values: Tensor) -> None:
        """Raise where a message forbids every state."""
        bad = torch.isnan(values[0])
        if not bad.any():
            return
        place = bad.nonzero()[0].tolist()
        wiring = self.wiring
        variable = wiring.name_of(size, int(wiring.ends[size][place[0]]))
        field = f" of field {place[1]}" if len(place) > 1 else ""
        for block in wiring.blocks:
            for axis, span in enumerate(block.spans):
                if block.shape[axis] == size and span.start <= place[0] < span.stop:
                    number = int(block.numbers[place[0] - span.start])
        scope = ", ".join(str(name) for name in wiring.graph.factors[number][0])
        raise ValueError(
            f"hard constraints contradict each other{field}: at factor {number} over {scope} no "
            f"state of {variable} is left"
        )


def change(
    before: Messages, after: Messages, floor: float, spare: Messages | None = None
) -> tuple[float, float]:
    """The largest change of a log message, and how much of it may be rounding; what is below the
    floor is taken to be equal to it. `spare` is memory for the differences."""
    largest = least = rounding = 0.0
    for size, new in after.items():
        if new.numel():
            old, new = before[size].detach(), new.detach()
            if floor > -math.inf:
                old, new = old.clamp(min=floor), new.clamp(min=floor)
            gap = torch.sub(old, new, out=None if spare is None else spare[size])
            largest = max(largest, float(gap.abs_().amax()))
            least, rounding = min(least, float(new.amin())), ROUNDING[new.dtype]
    return largest, -rounding * least


def lowest(graph: FactorGraph) -> float:
    """The log message below which a state is out of the question, -inf where there is no such.

    Finite tables bound all messages, and a state that one message all but excludes may win by the
    others. Only constraints that hand on what they are told, on cycles, can drive a message down
    for ever. It counts for nothing once it is below whatever the factors of any one variable could
    say against it, and below rounding.
    """
    said = np.zeros(len(graph.variables))
    hard = False
    for shape, scopes, _, given in graph.groups:
        if not shape:
            continue
        table = as_numbers(given)
        states, fields = tuple(range(len(shape))), tuple(range(1, table.ndim - len(shape)))
        low = table.min(states, initial=math.inf, where=table > -math.inf)
        span = np.asarray(table.max(states) - low, np.float64).max(fields, initial=0.0)
        np.add.at(said, scopes, np.broadcast_to(span, len(scopes))[:, None])
        hard = hard or (len(shape) > 1 and bool(np.isneginf(table).any()))
    if not hard:
        return -math.inf
    eps = np.finfo(as_numbers(graph.groups[0].table[..., :0]).dtype).eps
    return math.log(eps) - float(said.max())


def _damped(new: Tensor, old: Tensor, damping: float) -> Tensor:
    mixed = torch.lerp(new, old, damping)
    return torch.where(torch.isneginf(new) | torch.isneginf(old), new, mixed)


def _parts(block: Block, values: Messages) -> list[Tensor]:
    return [values[k][:, span] for k, span in zip(block.shape, block.spans, strict=True)]


def _span(block: Block) -> float:
    """How far the finite entries of any factor lie apart."""
    table = block.table.detach()
    if not table.numel():
        return 0.0
    axes = tuple(range(len(block.shape)))
    low = table.masked_fill(torch.isneginf(table), math.inf)
    return float((table.amax(axes) - low.amin(axes)).amax())
