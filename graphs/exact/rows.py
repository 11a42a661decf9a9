"""Rows of evidence as state indices and weights of states."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..evidence import UNOBSERVED
from .reduction import Table


@dataclass
class Rows:
    """Evidence: state indices, -1 where unobserved, and weights of states, by variable."""

    codes: dict[int, np.ndarray]  # (count,)
    count: int = 1
    weights: dict[int, Table] = field(default_factory=dict)  # (states, count) or (states, 1)

    def everywhere(self) -> frozenset[int]:
        """The variables that are observed in every row."""
        return frozenset(v for v, codes in self.codes.items() if (codes >= 0).all())

    def at(self, rows: np.ndarray) -> "Rows":
        """Some of the rows."""
        weights = {v: t if t.shape[1] == 1 else t[:, rows] for v, t in self.weights.items()}
        return Rows({v: codes[rows] for v, codes in self.codes.items()}, len(rows), weights)

    def only(self, items: Sequence[tuple[int, bool]]) -> "Rows":
        """The same rows with this evidence alone: variables, and whether it is their weights."""
        return Rows(
            {v: self.codes[v] for v, soft in items if not soft},
            self.count,
            {v: self.weights[v] for v, soft in items if soft},
        )


def observed(rows: Rows) -> list[tuple[int, bool]]:
    """What a single row says, as `Rows.only` takes it."""
    hard = [(v, False) for v, codes in rows.codes.items() if codes[0] != UNOBSERVED]
    return hard + [(v, True) for v in rows.weights]


def unit(rows: Rows) -> tuple[Rows, Any]:
    """Weights with a largest entry of 1, and the logarithm of what that takes out of each row."""
    if not rows.weights:
        return rows, 0.0
    tops = {v: np.where((t > 0).any(0), t.max(0), 1.0) for v, t in rows.weights.items()}
    weights = {v: table / tops[v] for v, table in rows.weights.items()}
    return Rows(rows.codes, rows.count, weights), sum(np.log(top) for top in tops.values())
