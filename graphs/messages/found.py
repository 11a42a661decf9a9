"""Which engine runs, and what its messages say."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..factor_graph import FactorGraph
from .algebra import spread
from .by_lattice import ByLattice, by_lattice
from .flooding import Flooding, Messages
from .forest import Forest
from .paths import Paths, passes
from .wiring import Block, Wiring

Evidence = Mapping[int, np.ndarray]


class ByMessages:
    """Beliefs from the messages of the general engine."""

    def __init__(self, engine: Flooding, messages: Messages, forest: Forest | Paths | None) -> None:
        self.engine, self.messages, self.forest = engine, messages, forest
        self.wiring = engine.wiring
        self.fields: tuple[int, ...] = self.wiring.fields
        for size, total in self.totals.items():
            dead = torch.isneginf(total.detach().amax(0))
            if self.wiring.hard and dead.any():
                at: list[int] = dead.nonzero()[0].tolist()
                field = f" of field {at[1]}" if len(at) > 1 else ""
                raise ValueError(
                    f"hard constraints contradict each other{field}: no state of "
                    f"{self.wiring.name_of(size, at[0])} is left by its factors"
                )

    @cached_property
    def totals(self) -> dict[int, Tensor]:
        return {k: total.value for k, total in self.engine.totals(self.messages).items()}

    @cached_property
    def cavities(self) -> Messages:
        return self.engine.cavities(self.messages)

    def variable(self, position: int) -> Tensor:
        size, place = self.wiring.place_of(position)
        return self.totals[size][:, place]

    def stacked(self) -> Tensor:
        (whole,) = self.totals.values()  # one number of states: the order is the graph's
        return whole

    def factor(self, number: int) -> Tensor:
        graph = self.wiring.graph
        for block in self.wiring.blocks:
            rows = np.flatnonzero(block.numbers == number)
            if len(rows):
                return self._of_block(block, int(rows[0]))
        names = graph.factors[number].variables
        if names:
            return self.variable(graph.positions[names[0]])
        return torch.zeros(self.fields, dtype=self.wiring.dtype, device=self.wiring.device)

    def log_partition(self) -> Tensor:
        return self.engine.log_partition(self.messages)

    def best(self) -> Tensor:
        if self.forest is None and self.wiring.graph.is_forest:  # ties are broken along the tree
            self.forest = Forest(self.engine, None)
        states = {k: total.argmax(0) for k, total in self.totals.items()}
        if self.forest is not None:
            states = self.forest.decode(self.messages)
        whole = torch.empty(
            (len(self.wiring.graph.variables), *self.fields),
            dtype=torch.int64,
            device=self.wiring.device,
        )
        for size, members in self.wiring.members.items():
            whole[torch.as_tensor(members, device=whole.device)] = states[size]
        return whole

    def _of_block(self, block: Block, row: int) -> Tensor:
        arity = len(block.shape)
        place = row if block.table.shape[arity] > 1 else 0
        whole = block.table.select(arity, place)
        for axis, (size, span) in enumerate(zip(block.shape, block.spans, strict=True)):
            whole = whole + spread(self.cavities[size][:, span.start + row], axis, arity)
        return whole


def propagated(
    graph: FactorGraph,
    evidence: Evidence,
    rows: int | None,
    product: str,
    schedule: str,
    root: object,
    damping: float,
    tolerance: float,
    max_iterations: int,
) -> tuple[ByMessages | ByLattice, int, float, bool]:
    """By the fastest engine: what it found, iterations, the residual, whether it converged."""
    wanted = any(getattr(group.table, "requires_grad", False) for group in graph.groups)
    with torch.set_grad_enabled(wanted and torch.is_grad_enabled()):
        if schedule == "depth_first":
            engine = Flooding(Wiring(graph, evidence, rows), product)
            forest = passes(engine, None if root is None else graph.positions[root])
            messages = forest.run("belief propagation")
            return ByMessages(engine, messages, forest), 1, 0.0, True
        grid = by_lattice(graph, evidence, rows, product, damping, tolerance, max_iterations)
        if grid is not None:
            return grid[0], grid[1].iterations, grid[1].residual, grid[1].converged
        engine = Flooding(Wiring(graph, evidence, rows), product)
        done = engine.run(damping, tolerance, max_iterations, "belief propagation")
        found = ByMessages(engine, done.messages, None)
        return found, done.iterations, done.residual, done.converged


def by_messages(
    graph: FactorGraph,
    evidence: Evidence,
    product: str,
    given: Sequence[Sequence[np.ndarray]],
) -> ByMessages:
    """Beliefs from log messages by factor and axis."""
    engine = Flooding(Wiring(graph, evidence, None), product)
    messages = engine.first()
    for block in engine.wiring.blocks:
        for axis, (size, span) in enumerate(zip(block.shape, block.spans, strict=True)):
            found = np.stack([given[number][axis] for number in block.numbers], 1)
            messages[size][:, span] = torch.as_tensor(found)
    return ByMessages(engine, messages, None)
