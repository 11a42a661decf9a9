"""A model as one query sees it: observed variables sliced away, barren ones left out."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from .clique_tree import MERGED, TRIALS, CliqueTree

Table = Any  # numpy.ndarray or torch.Tensor


class Reduction:
    """The clique tree of what is left of a model once some variables are observed.

    Attributes:
        variables: the model's number of each variable that is left.
        tree: the clique tree over these, numbered in this order.
    """

    def __init__(
        self,
        cardinalities: Sequence[int],
        scopes: Sequence[tuple[int, ...]],
        *,
        observed: Collection[int] = (),
        kept: Collection[int] | None = None,
        wanted: Sequence[tuple[int, ...]] = (),
        seed: int = 0,
        merged: int = MERGED,
        steps: list[tuple[int, ...]] | None = None,
        trials: int = TRIALS,
    ) -> None:
        """
        Args:
            cardinalities: states of each of the model's variables.
            scopes: variables of each factor.
            observed: variables observed in every row.
            kept: factors to keep; all by default.
            wanted: scopes that must fit into one clique.
            seed: of the search for an elimination order.
            merged, steps, trials: see `CliqueTree`.
        """
        gone = set(observed)
        factors = range(len(scopes)) if kept is None else sorted(kept)
        if kept is None:
            self.variables = [v for v in range(len(cardinalities)) if v not in gone]
        else:
            left = {v for f in factors for v in scopes[f]} | {v for scope in wanted for v in scope}
            self.variables = sorted(left - gone)
        self.local = {v: i for i, v in enumerate(self.variables)}
        self._cut = []
        for f in factors:
            free = [axis for axis, v in enumerate(scopes[f]) if v not in gone]
            fixed = [axis for axis, v in enumerate(scopes[f]) if v in gone]
            scope = tuple(self.local[scopes[f][axis]] for axis in free)
            self._cut.append((f, scope, free + fixed, [scopes[f][axis] for axis in fixed]))
        together = [tuple(self.local[v] for v in scope if v not in gone) for scope in wanted]
        self.programs: dict[Any, Any] = {}  # what an engine keeps for the next query
        self.tree = CliqueTree(
            [cardinalities[v] for v in self.variables],
            [scope for _, scope, *_ in self._cut] + together,
            seed=seed,
            merged=merged,
            steps=steps,
            trials=trials,
        )

    def factors(
        self, tables: Sequence[Table], codes: Mapping[int, np.ndarray]
    ) -> list[tuple[tuple[int, ...], Table]]:
        """Each factor at the observed states, (scope, table) with the rows' axis last."""
        found = []
        for f, scope, moved, fixed in self._cut:
            table = tables[f]
            if not fixed:
                found.append((scope, table[..., None]))
                continue
            table = (
                table.transpose(moved) if isinstance(table, np.ndarray) else table.permute(moved)
            )
            found.append((scope, table[(..., *(_like(codes[v], table) for v in fixed))]))
        return found


def _like(codes: np.ndarray, table: Table) -> Any:
    if isinstance(table, np.ndarray):
        return codes
    import torch

    return torch.as_tensor(codes, device=table.device)


def not_barren(scopes: Sequence[tuple[int, ...]], needed: Collection[int]) -> set[int]:
    """The factors of a Bayesian network that bear on some variables: their own and ancestors'.

    Factor i is the table of variable i, whose scope is the variable and then its parents.

    What is neither asked for nor observed, nor has such a descendant, sums to one (Shachter 1986).
    """
    found, waiting = set(needed), list(needed)
    while waiting:
        for parent in scopes[waiting.pop()][1:]:
            if parent not in found:
                found.add(parent)
                waiting.append(parent)
    return found
