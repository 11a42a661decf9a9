"""Log-tables side by side by their shape, as arrays or tensors."""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .tables import Variable

AXES = 62  # variables of a factor: NumPy's 64 axes, less those of the factors and the batch


class Group(NamedTuple):
    """Factors of one shape, side by side."""

    shape: tuple[int, ...]
    """The numbers of states of their variables."""
    scopes: np.ndarray
    """(F, arity): the positions of each factor's variables in `FactorGraph.variables`."""
    numbers: np.ndarray
    """(F,): which factors of the graph these are."""
    table: Any
    """Log-tables (*shape, F), or (*shape, 1) where all factors share one; in a batch one more axis
    behind, of length B, or 1 where all fields share it."""


@dataclass(frozen=True)
class FactorNode:
    """A factor as a node of the bipartite graph, which equals no variable's name."""

    number: int

    def __str__(self) -> str:
        return f"f{self.number}"


class LogFactor(NamedTuple):
    """One factor: its variables, and log psi with one axis a variable (behind the batch axis)."""

    variables: tuple[Variable, ...]
    log_table: Any


class Factors(Sequence[LogFactor]):
    """The factors of a graph as a sequence; tables are views of the groups'."""

    def __init__(
        self, variables: tuple[Variable, ...], groups: Sequence[Group], batch: int | None
    ) -> None:
        self._variables, self._groups, self._batch = variables, groups, batch
        total = sum(len(group.numbers) for group in groups)
        self._group, self._place = np.empty((2, total), np.int64)
        for index, group in enumerate(groups):
            self._group[group.numbers] = index
            self._place[group.numbers] = np.arange(len(group.numbers))

    def __len__(self) -> int:
        return len(self._group)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(f"no factor {number}; there are {len(self)}")
        shape, scopes, _, table = self._groups[self._group[number]]
        place = int(self._place[number])
        table = table[(*(slice(None),) * len(shape), place if table.shape[len(shape)] > 1 else 0)]
        batch = self._batch
        if batch is not None and table.shape[-1] < batch:  # shared by all fields
            table = table[..., 0]
        elif batch is not None:
            axes = table.ndim - 1, *range(table.ndim - 1)
            table = table.permute(axes) if hasattr(table, "detach") else table.transpose(axes)
        return LogFactor(tuple(self._variables[v] for v in scopes[place]), table)

    def __iter__(self) -> Iterator[LogFactor]:
        return (self[i] for i in range(len(self)))


def checked_size(variable: Hashable, given: Any) -> int:
    if not isinstance(given, (int, np.integer)) or isinstance(given, bool) or given < 1:
        raise ValueError(
            f"{variable} needs a number of states, a whole number from 1; got {given!r}"
        )
    return int(given)


def alike(*tables: Any) -> list[Any]:
    """The tables as arrays of one dtype, or as tensors of one dtype and device."""
    tensors = [table for table in tables if hasattr(table, "detach")]
    kinds = {str(getattr(table, "dtype", "")).removeprefix("torch.") for table in tables}
    dtype = "float32" if kinds == {"float32"} else "float64"
    if not tensors:
        return [np.asarray(table, dtype=dtype) for table in tables]
    import torch

    devices = {table.device for table in tensors}
    if len(devices) > 1:
        raise ValueError(f"log-tables lie on different devices: {sorted(map(str, devices))}")
    device, kind = tensors[0].device, getattr(torch, dtype)
    return [  # PyTorch takes no array that is read-only, strided backwards, or of a foreign order
        t.to(device, kind)
        if hasattr(t, "detach")
        else torch.from_numpy(np.array(t, dtype, order="C")).to(device)
        for t in tables
    ]


def real(table: Any, what: str) -> Any:
    """The table as an array, or the tensor that it is.

    Raises:
        TypeError: it does not hold real numbers. ValueError: rows of different lengths.
    """
    if hasattr(table, "detach"):
        numbers = not table.is_complex()
    else:
        try:
            table = np.asarray(table)
        except ValueError as error:
            raise ValueError(f"{what} is no array of numbers: {error}") from None
        numbers = table.dtype.kind in "fiub"
    if not numbers:
        raise TypeError(f"{what} must hold numbers; got {table.dtype}")
    return table


def stacked(tables: list[Any], batched: bool) -> Any:
    if hasattr(tables[0], "detach"):
        import torch

        return torch.stack(tables, 1 if batched else 0)
    return np.stack(tables, 1 if batched else 0)


def states_first(table: Any, arity: int) -> Any:
    """([B,] F, *states) -> (*states, F [, B]), contiguous, in memory of its own."""
    axes = [*range(table.ndim - arity, table.ndim), *reversed(range(table.ndim - arity))]
    if hasattr(table, "detach"):
        import torch

        return table.permute(axes).clone(memory_format=torch.contiguous_format)
    return np.array(table.transpose(axes), order="C")


def as_numbers(table: Any) -> np.ndarray:
    return table.detach().cpu().numpy() if hasattr(table, "detach") else np.asarray(table)


def listed(names: Iterable[Any], limit: int = 6) -> str:
    names = [str(name) for name in names]
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if names[limit:] else "")
