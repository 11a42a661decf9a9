"""The weights of a log-linear model, and the log-tables that they give."""

import operator
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from .scopes import Scope, shown


class Potentials:
    """log psi_f = sum_k w_k phi_k, with factors that share their weights.

    The tables of all groups of tied factors lie one behind the other in one vector of cells. A
    group without features has a weight for each cell that is free, so phi_k is the indicator of a
    cell; a cell that is not free has the log-potential -inf.

    Args:
        scopes: the variables of each factor, for messages.
        supports: the free cells of each factor's table.
        tied: groups of factors that share one table.
        features: by factor the tables phi, (features, *shape); they hold for its whole group.

    Raises:
        TypeError, ValueError: groups or features that do not fit the factors.
    """

    def __init__(
        self,
        scopes: Sequence[Scope],
        supports: Sequence[np.ndarray],
        tied: Sequence[Sequence[int]] | None = None,
        features: Mapping[int, Any] | None = None,
    ) -> None:
        self.scopes = list(scopes)
        self.shapes = [support.shape for support in supports]
        self.groups = _groups(scopes, supports, tied)
        self.features = self._features({} if features is None else features)
        sizes = [supports[group[0]].size for group in self.groups]
        ends = np.cumsum([0, *sizes])
        self.parts = [slice(a, b) for a, b in pairwise(ends.tolist())]
        """The cells of each group."""
        self.of_factor = {f: self.parts[g] for g, group in enumerate(self.groups) for f in group}
        self.free = np.concatenate([supports[group[0]].ravel() for group in self.groups])
        self._lay_out()

    def keep(self, cells: np.ndarray) -> int:
        """Fix at -inf the cells, of groups without features, that are not among these.

        Returns:
            How many of the free ones these were.
        """
        before = self.free.copy()
        for part, features in zip(self.parts, self.features, strict=True):
            if features is None:
                self.free[part] &= cells[part]
        gone = int(before.sum() - self.free.sum())
        if gone:
            self._lay_out()
        return gone

    def _lay_out(self) -> None:
        """The matrix that takes weights to cells."""
        rows, columns, values, count = [], [], [], 0
        self._weights: list[slice] = []
        for part, features in zip(self.parts, self.features, strict=True):
            free = np.flatnonzero(self.free[part])
            if features is None:
                phi = np.ones(len(free))
                here, which = free, np.arange(len(free))
                length = len(free)
            else:
                table = features.reshape(len(features), -1)
                which, here = np.nonzero(table * self.free[part])
                phi, length = table[which, here], len(features)
            rows.append(part.start + here)
            columns.append(count + which)
            values.append(phi)
            self._weights.append(slice(count, count + length))
            count += length
        self.count = count
        entries = (np.concatenate(rows), np.concatenate(columns))
        self._basis = csr_array((np.concatenate(values), entries), shape=(len(self.free), count))

    def cells(self, weights: np.ndarray) -> np.ndarray:
        """The log-potentials of all groups, one behind the other."""
        return np.where(self.free, self._basis @ weights, -np.inf)

    def gradient(self, cells: np.ndarray) -> np.ndarray:
        """Derivatives with respect to cells, as such with respect to weights."""
        return self._basis.T @ np.where(self.free, cells, 0.0)

    def summed(self, tables: Sequence[np.ndarray]) -> np.ndarray:
        """Tables of all factors, summed over those that are tied, as cells."""
        total = np.zeros(len(self.free))
        for factor, table in enumerate(tables):
            total[self.of_factor[factor]] += table.ravel()
        return total

    def tables(self, cells: np.ndarray) -> list[np.ndarray]:
        """The table of each factor."""
        return [cells[self.of_factor[f]].reshape(shape) for f, shape in enumerate(self.shapes)]

    def parameters(self, weights: np.ndarray) -> tuple[np.ndarray, ...]:
        """For each group its weights, or where it has no features its log-table."""
        cells = self.cells(weights)
        return tuple(
            cells[part].reshape(self.shapes[group[0]]) if features is None else weights[which]
            for group, part, which, features in zip(
                self.groups, self.parts, self._weights, self.features, strict=True
            )
        )

    def _features(self, given: Mapping[int, Any]) -> list[np.ndarray | None]:
        """The features of each group."""
        found: dict[int, np.ndarray] = {}
        if not isinstance(given, Mapping):
            raise TypeError(
                "features must be a mapping from numbers of factors to arrays, such as {0: phi}; "
                f"got {type(given).__name__}"
            )
        for key, table in given.items():
            factor = _number(key, len(self.scopes))
            shape = self.shapes[factor]
            try:
                table = np.array(table, dtype=np.float64)
            except (TypeError, ValueError):
                raise TypeError(f"the features of factor {factor} must be an array") from None
            if table.ndim != len(shape) + 1 or table.shape[1:] != shape or not len(table):
                raise ValueError(
                    f"the features of factor {factor}, over {shown(self.scopes[factor])}, need the "
                    f"shape (features, {', '.join(map(str, shape))}); got {table.shape}"
                )
            if not np.isfinite(table).all():
                raise ValueError(f"the features of factor {factor} are not all finite")
            found[factor] = table
        result: list[np.ndarray | None] = []
        for group in self.groups:
            named = [factor for factor in group if factor in found]
            for factor in named[1:]:
                if not np.array_equal(found[factor], found[named[0]]):
                    raise ValueError(
                        f"factors {named[0]} and {factor} are tied, but their features differ; "
                        "features given for one factor hold for its whole group"
                    )
            result.append(found[named[0]] if named else None)
        return result


def _number(factor: Any, count: int) -> int:
    try:
        number = operator.index(factor)
    except TypeError:
        raise TypeError(
            f"factors are named by their numbers, 0 to {count - 1}; got {factor!r}"
        ) from None
    if not 0 <= number < count:
        raise ValueError(f"there is no factor {number}: there are {count}, from 0 on")
    return number


def _groups(
    scopes: Sequence[Scope],
    supports: Sequence[np.ndarray],
    tied: Sequence[Sequence[int]] | None,
) -> list[list[int]]:
    """All factors in groups, by the first factor of each; one not tied is a group by itself."""
    groups: list[list[int]] = []
    seen: set[int] = set()
    if not hasattr(() if tied is None else tied, "__iter__"):
        raise TypeError(f"tied must be a list of lists of factor numbers; got {tied!r}")
    for given in tied or ():
        if isinstance(given, str) or not hasattr(given, "__iter__"):
            raise TypeError(f"tied must be a list of lists of factor numbers; got {given!r} in it")
        group = sorted(_number(factor, len(scopes)) for factor in given)
        for factor in group:
            if factor in seen:
                raise ValueError(f"factor {factor} is tied twice; join the two groups to one")
            seen.add(factor)
            first = group[0]
            if supports[factor].shape != supports[first].shape:
                raise ValueError(
                    f"factors {first} and {factor} are tied, but the shapes of their tables are "
                    f"{supports[first].shape} and {supports[factor].shape} (states= gives a "
                    "variable the states that no row has)"
                )
            if not np.array_equal(supports[factor], supports[first]):
                raise ValueError(
                    f"factors {first} and {factor} are tied, but their tables are zero in "
                    "different places, and zeros stay"
                )
        if group:
            groups.append(group)
    groups += [[factor] for factor in range(len(scopes)) if factor not in seen]
    return sorted(groups)
