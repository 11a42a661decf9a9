"""A factor graph as tensors: variables and messages side by side by their number of states.

Arrays have the states first, then the variables (or messages), then the fields of a batch where
there is one, so that every operation runs along contiguous memory. Unary factors and evidence are
part of the variable.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..factor_graph import FactorGraph


class Block(NamedTuple):
    """The factors of one group, and where their messages are."""

    shape: tuple[int, ...]
    table: Tensor
    """(*shape, F or 1 [, B or 1]): log-tables."""
    scopes: np.ndarray
    """(F, arity): positions of variables."""
    numbers: np.ndarray
    """(F,): which factors of the graph."""
    spans: tuple[slice, ...]
    """Of each axis, where its messages are among those of its number of states."""


class Variables:
    """The variables of a factor graph, with what their unary factors and the evidence say.

    Args:
        graph: the factor graph.
        evidence: state indices by position of a variable, -1 where unobserved, of length 1, or n
            for n fields.
        rows: the number of fields that evidence makes, None for one.

    Raises:
        ValueError: a variable whose states are all forbidden, by unary factors and evidence.
    """

    def __init__(
        self, graph: FactorGraph, evidence: Mapping[int, np.ndarray], rows: int | None
    ) -> None:
        self.graph = graph
        self.batch = graph.batch if rows is None else rows
        if graph.batch not in (None, 1) and rows not in (None, graph.batch):
            raise ValueError(f"evidence has {rows} rows for a batch of {graph.batch} fields")
        self.tables = [as_tensor(group.table) for group in graph.groups]
        self.dtype = self.tables[0].dtype if self.tables else torch.float64
        self.device = self.tables[0].device if self.tables else torch.device("cpu")
        if self.batch is not None and graph.batch is None:
            self.tables = [table[..., None] for table in self.tables]
        self.fields: tuple[int, ...] = () if self.batch is None else (self.batch,)
        self.members = {int(k): np.flatnonzero(graph.sizes == k) for k in np.unique(graph.sizes)}
        self.place = np.empty(len(graph.sizes), np.int64)
        for members in self.members.values():
            self.place[members] = np.arange(len(members))
        self.unary = {
            k: torch.zeros((k, len(v), *self.fields), dtype=self.dtype, device=self.device)
            for k, v in self.members.items()
        }
        self.constant = torch.zeros(self.fields, dtype=torch.float64, device=self.device)
        for (shape, scopes, numbers, _), table in zip(graph.groups, self.tables, strict=True):
            if len(shape) == 0:
                # (F or 1 [, B or 1]) -> a sum over the factors
                share = len(numbers) // table.shape[0]
                self.constant = self.constant + table.double().sum(0) * share
            elif len(shape) == 1:
                whole = table.expand(*shape, len(scopes), *self.fields)
                at = torch.as_tensor(self.place[scopes[:, 0]], device=self.device)
                self.unary[shape[0]] = self.unary[shape[0]].index_add(1, at, whole)
        self._observe(evidence)

    def place_of(self, position: int) -> tuple[int, int]:
        """The number of states of a variable, and its place among the variables that have it."""
        return int(self.graph.sizes[position]), int(self.place[position])

    def name_of(self, size: int, place: int) -> str:
        """The variable at a place, for messages of errors."""
        return str(self.graph.variables[self.members[size][place]])

    def _observe(self, evidence: Mapping[int, np.ndarray]) -> None:
        masks: dict[int, np.ndarray] = {}
        for position, states in evidence.items():
            size, place = self.place_of(position)
            mask = masks.setdefault(size, np.zeros((size, len(self.members[size]), *self.fields)))
            rows = np.broadcast_to(states, self.fields or (1,))
            seen = np.flatnonzero(rows >= 0)
            if self.fields:
                mask[:, place, seen] = -np.inf
                mask[rows[seen], place, seen] = 0.0
            elif len(seen):
                mask[:, place] = -np.inf
                mask[rows[0], place] = 0.0
        for size, mask in masks.items():
            given = torch.as_tensor(mask, dtype=self.dtype, device=self.device)
            self.unary[size] = self.unary[size] + given
        for size, unary in self.unary.items():
            dead = torch.isneginf(unary.detach().amax(0))
            if dead.any():
                at: list[int] = dead.nonzero()[0].tolist()
                field = f" of field {at[1]}" if len(at) > 1 else ""
                raise ValueError(
                    f"every state of {self.name_of(size, at[0])}{field} is forbidden by its own "
                    "factors and the evidence: they contradict each other"
                )


class Wiring(Variables):
    """Where everything is: the variables, and of each factor of several variables its messages.

    Args:
        graph, evidence, rows: see `Variables`.
    """

    def __init__(
        self, graph: FactorGraph, evidence: Mapping[int, np.ndarray], rows: int | None
    ) -> None:
        super().__init__(graph, evidence, rows)
        self.blocks: list[Block] = []
        ends: dict[int, list[np.ndarray]] = {k: [np.empty(0, np.int64)] for k in self.members}
        for (shape, scopes, numbers, _), table in zip(graph.groups, self.tables, strict=True):
            if len(shape) < 2:
                continue
            spans = []
            for axis, size in enumerate(shape):
                start = sum(map(len, ends[size]))
                ends[size].append(self.place[scopes[:, axis]])
                spans.append(slice(start, start + len(scopes)))
            self.blocks.append(Block(shape, table, scopes, numbers, tuple(spans)))
        self.ends = {
            k: torch.as_tensor(np.concatenate(found), device=self.device)
            for k, found in ends.items()
        }
        """Of each message of a number of states, the place of its variable."""
        self.hard = any(bool(torch.isneginf(block.table).any()) for block in self.blocks)
        """Whether a factor of several variables forbids something."""

    def zeros(self) -> dict[int, Tensor]:
        """One number for each state of each message."""
        return {
            k: torch.zeros((k, len(ends), *self.fields), dtype=self.dtype, device=self.device)
            for k, ends in self.ends.items()
        }


def as_tensor(table: object) -> Tensor:
    """A tensor that shares the memory of an array where it may."""
    if isinstance(table, np.ndarray) and not table.flags.writeable:
        table = table.copy()
    return torch.as_tensor(table)
