"""Regular grids: the fast path of flooding, chosen by the structure."""

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..factor_graph import FactorGraph
from ..progress import Bar
from .flooding import Outcome
from .lattice import Lattice, Passed
from .wiring import Variables


class ByLattice:
    """Beliefs from the messages along the rows and columns of a grid."""

    def __init__(self, variables: Variables, lattice: Lattice, passed: Passed) -> None:
        self.graph, self.fields = variables.graph, variables.fields
        self._lattice, self._messages = lattice, passed.messages
        self.width = lattice.shape[2]

    @cached_property
    def logs(self) -> Tensor:
        """(K, V [, B]): log-beliefs."""
        return self._last(self._lattice.beliefs(self._messages).flatten(1, 2), 2)

    def variable(self, position: int) -> Tensor:
        return self.logs[:, position]

    def stacked(self) -> Tensor:
        return self.logs

    def factor(self, number: int) -> Tensor:
        names = self.graph.factors[number].variables
        at = [self.graph.positions[name] for name in names]
        if len(at) == 1:
            return self.logs[:, at[0]]
        first, second = sorted(at)
        row, column = divmod(first, self.width)
        down, right = self._edges
        joint = (down if second - first == self.width else right)[:, row, column]
        joint = self._last(joint[:, None], 1)[:, :, 0]
        return joint if at[0] == first else joint.transpose(0, 1)

    def log_partition(self) -> Tensor:
        found = self._lattice.bethe(self._messages)
        return found if self.fields else found[0]

    def best(self) -> Tensor:
        return self.logs.argmax(0)

    @cached_property
    def _edges(self) -> tuple[Tensor, Tensor]:
        return self._lattice.edge_beliefs(self._messages)

    def _last(self, found: Tensor, behind: int) -> Tensor:
        """(B, V, *states) -> (*states, V [, B])."""
        found = found.permute(*range(2, found.ndim), 1, 0)
        return found if self.fields else found[..., 0]


def by_lattice(
    graph: FactorGraph,
    evidence: Mapping[int, np.ndarray],
    rows: int | None,
    product: str,
    damping: float,
    tolerance: float,
    max_iterations: int,
) -> tuple[ByLattice, Outcome] | None:
    """Flooding on a regular grid; None where the graph is none, or has hard constraints."""
    if graph.grid_shape is None:
        return None
    height, width, size = graph.grid_shape
    variables = Variables(graph, evidence, rows)
    edges = _edges(variables, height, width, size)
    if not Lattice.supports(*edges):
        return None
    unary = variables.unary[size]  # (K, V [, B])
    whole = unary if variables.fields else unary[..., None]
    lattice = Lattice(whole.permute(2, 1, 0).reshape(-1, height, width, size), *edges)
    with Bar("belief propagation", max_iterations) as bar:
        passed = lattice.run(
            product, damping, tolerance, max_iterations,
            lambda done, residual: bar.at(done, f"residual {residual:.2g}"),
        )  # fmt: skip
    done = Outcome({}, passed.iterations, passed.residual, passed.converged)
    return ByLattice(variables, lattice, passed), done


def _edges(variables: Variables, height: int, width: int, size: int) -> list[Tensor]:
    """The log-tables of the edges down and right, (K, K) or (B or 1, rows, columns, K, K)."""
    at = np.arange(height * width).reshape(height, width)
    ways = (at[:-1], at[1:]), (at[:, :-1], at[:, 1:])
    found = []
    for first, second in ways:
        wanted = np.stack([first.ravel(), second.ravel()], 1)
        found.append(_along(variables, wanted, first.shape, size))
    return found


def _along(variables: Variables, wanted: np.ndarray, cells: tuple[int, ...], size: int) -> Tensor:
    pairs = [
        (group, table)
        for group, table in zip(variables.graph.groups, variables.tables, strict=True)
        if len(group.shape) == 2
    ]
    for group, table in pairs:
        if np.array_equal(group.scopes, wanted):  # one group is this way, as `grid` makes it
            if table.shape[2] == 1 and table.shape[3:] in ((), (1,)):
                return table.reshape(size, size)
            table = table if variables.fields else table[..., None]
            table = table.expand(size, size, len(wanted), table.shape[-1])
            return table.permute(3, 2, 0, 1).reshape(table.shape[3], *cells, size, size)
    whole = torch.zeros(
        (size, size, len(wanted), *variables.fields), dtype=variables.dtype, device=variables.device
    )
    place = {(a, b): i for i, (a, b) in enumerate(wanted.tolist())}
    for group, table in pairs:
        table = table.expand(size, size, len(group.scopes), *variables.fields)
        for turned in (False, True):
            scopes = (group.scopes[:, ::-1] if turned else group.scopes).tolist()
            rows = [i for i, (a, b) in enumerate(scopes) if (a, b) in place]
            if rows:
                own = table.transpose(0, 1) if turned else table
                target = torch.as_tensor(
                    [place[a, b] for a, b in (scopes[i] for i in rows)], device=whole.device
                )
                part = own.index_select(2, torch.as_tensor(rows, device=whole.device))
                whole = whole.index_add(2, target, part)
    whole = whole if variables.fields else whole[..., None]
    return whole.permute(3, 2, 0, 1).reshape(whole.shape[3], *cells, size, size)
