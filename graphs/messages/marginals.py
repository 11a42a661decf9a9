"""What mean field and tree-reweighted messages have in common: marginals and a bound on log Z."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..evidence import encode
from ..factor_graph import FactorGraph
from ..names import unknown
from ..tables import Tables, Variable

SHOWN = 20  # variables that are printed


@dataclass(frozen=True, eq=False, repr=False)
class Marginals:
    """Approximate marginals. `found[variable]` is an array, one entry a state."""

    graph: FactorGraph
    log_partition: Any
    """The bound on log Z in nats, with evidence on log of the sum over what agrees with it: a
    number, or (B,) in a batch."""
    iterations: int
    residual: float
    """The largest change in the last iteration."""
    converged: bool
    _columns: dict[int, Any]  # by number of states: (K, variables [, B])

    def __getitem__(self, variable: Variable) -> Any:
        """The marginal of a variable, (K,) or (B, K).

        Raises:
            ValueError: no such variable.
        """
        position = self.graph.positions.get(variable)
        if position is None:
            raise ValueError(unknown("variable", variable, self.graph.variables))
        size = int(self.graph.sizes[position])
        column = self._columns[size][:, self._places[position]]
        return given(self.graph, column.movedim(-1, 0) if column.ndim > 1 else column)

    @property
    def array(self) -> Any:
        """All marginals, (V, K) in the order of `graph.variables`, (H, W, K) on a grid, with the
        fields of a batch first.

        Raises:
            ValueError: variables with different numbers of states.
        """
        if len(self._columns) != 1:
            raise ValueError(
                f"the variables have {len(self._columns)} different numbers of states, and no "
                "common array; found[variable] has each"
            )
        (columns,) = self._columns.values()
        whole = columns.movedim(0, -1)  # (V [, B], K)
        whole = whole.movedim(1, 0) if whole.ndim == 3 else whole
        shape = self.graph.grid_shape
        if shape is not None:
            whole = whole.reshape(*whole.shape[:-2], *shape)
        return given(self.graph, whole)

    @cached_property
    def _places(self) -> np.ndarray:
        """(V,): the place of each variable among those with as many states."""
        places = np.empty(len(self.graph.sizes), np.int64)
        for size in self._columns:
            members = self.graph.sizes == size
            places[members] = np.arange(members.sum())
        return places

    def _said(self, name: str, bound: str) -> str:
        state = "converged" if self.converged else f"not converged: residual {self.residual:.3g}"
        many = "" if self.iterations == 1 else "s"
        said = f"{name}; {self.iterations} iteration{many}; {state}; "
        fields = np.shape(self.log_partition)
        if fields:
            return said + f"{fields[0]} fields"
        lines = [said + f"log Z {bound} {float(self.log_partition):.6g}"]
        names, labels = self.graph.variables, self.graph.states
        wide = max((len(str(variable)) for variable in names[:SHOWN]), default=0)
        for variable in names[:SHOWN]:
            chances = self[variable][:8].tolist()
            shown = [f"{s} {p:.4f}" for s, p in zip(labels[variable], chances, strict=False)]
            more = " ..." if len(labels[variable]) > 8 else ""
            lines.append(f"  {variable!s:{wide}}  {'  '.join(shown)}{more}")
        if len(names) > SHOWN:
            lines.append(f"  and {len(names) - SHOWN:,} more variables")
        return "\n".join(lines)


def given(graph: FactorGraph, found: Any) -> Any:
    """A tensor to who gave tensors, else an array, or a number where it has no axis."""
    if graph.is_tensor:
        return found
    return found.cpu().numpy() if found.ndim else float(found)


def seen(graph: FactorGraph, evidence: Any) -> tuple[dict[int, np.ndarray], int | None]:
    """State indices by position of a variable, -1 where unobserved, and the number of rows."""
    if evidence is None:
        return {}, None
    found, rows = encode(Tables(graph.states, []), evidence)
    return {graph.positions[variable]: states for variable, states in found.items()}, rows


def checked(tolerance: float, damping: float) -> None:
    """Refuse a tolerance or a damping outside its range.

    Raises:
        ValueError: says which.
    """
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"tolerance must not be negative; got {tolerance!r}")
    if not 0 <= damping < 1:
        raise ValueError(f"damping must be from 0 to below 1; got {damping!r}")
