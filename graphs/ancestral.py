"""Ancestral sampling: every variable is drawn given its parents, parents first."""

import operator
from collections.abc import Mapping
from typing import Any

import networkx as nx
import numpy as np

from .tables import Factor, Tables, Variable

CHUNK = 1 << 14  # rows drawn together: what they need stays in a core's cache


def topological_order(graph: nx.DiGraph) -> list[Variable]:
    """The variables, parents before children; of those that may come next, the graph's first."""
    place = {variable: i for i, variable in enumerate(graph)}
    return list(nx.lexicographical_topological_sort(graph, place.__getitem__))


def sample_indices(
    tables: Tables,
    n: int,
    rng: np.random.Generator,
    fixed: Mapping[Variable, int] | None = None,
) -> dict[Variable, np.ndarray]:
    """n independent draws of every variable from prod_i p(x_i | pa_i), as state indices.

    The inverse of the cumulative distribution, by bisection: one uniform number a cell, and a
    number of look-ups that grows with the logarithm of the number of states. States of probability
    zero are never drawn.

    Args:
        tables: of a Bayesian network.
        n: how many rows.
        rng: where the uniform numbers come from.
        fixed: state indices of variables that are not drawn but held, with their tables left out.

    Returns:
        By variable, in the model's order, an array (n,) of the narrowest signed integers that hold
        its states: widen it before arithmetic.
    """
    fixed = fixed or {}
    sizes = tables.cardinalities
    found = {
        variable: np.full(n, fixed.get(variable, 0), index_type(size))
        for variable, size in sizes.items()
    }
    by_child = {factor.variables[0]: factor for factor in tables.factors}
    steps = []
    for variable in topological_order(tables.graph()):
        if variable not in fixed and sizes[variable] > 1:
            parents = by_child[variable].variables[1:]
            steps.append((variable, parents, _thresholds(by_child[variable])))
    for start in range(0, n, CHUNK):
        rows = slice(start, min(start + CHUNK, n))
        for variable, parents, bounds in steps:
            uniform = rng.random(rows.stop - rows.start)
            columns = [found[parent][rows] for parent in parents]
            column = flat_index(columns, [sizes[parent] for parent in parents])
            found[variable][rows] = _bisect(bounds, column, uniform)
    return found


def flat_index(columns: list[np.ndarray], sizes: list[int]) -> np.ndarray | int:
    """The position in a flattened table of each row of state indices, the last varying fastest."""
    position: np.ndarray | int = 0
    for column, size in zip(columns, sizes, strict=True):
        position = position * size + column.astype(np.int64)
    return position


def index_type(size: int) -> np.dtype:
    """The narrowest signed integers that count to `size`."""
    return np.min_scalar_type(-size)


def checked_count(n: Any, least: int, what: str) -> int:
    """n as an int, where it is a whole number that is large enough.

    Raises:
        TypeError: not a whole number.
        ValueError: fewer than `least`.
    """
    try:
        count = operator.index(n)
    except TypeError:
        raise TypeError(f"{what} must be a whole number; got {n!r}") from None
    if count < least:
        raise ValueError(f"{what} must be at least {least}; got {count}")
    return count


def _thresholds(factor: Factor) -> np.ndarray:
    """Bounds (configurations, width), width a power of two: state k is drawn where
    bounds[k - 1] <= u < bounds[k].

    Rounding may leave the sum of a column just under one. So there is no bound (infinity) from the
    last possible state on, and no u passes it.
    """
    size = len(factor.values)
    columns = factor.values.reshape(size, -1).T  # (configurations, states)
    later = columns[:, ::-1].cumsum(1)[:, ::-1]  # the mass of this state and those after it
    width = 1 << (size - 1).bit_length()
    bounds = np.full((len(columns), width), np.inf)
    bounds[:, : size - 1] = np.where(later[:, 1:] > 0, columns.cumsum(1)[:, :-1], np.inf)
    return bounds


def _bisect(bounds: np.ndarray, column: np.ndarray | int, uniform: np.ndarray) -> np.ndarray:
    """How many bounds of its column each uniform number has reached."""
    width = bounds.shape[1]
    flat = bounds.ravel()
    first = column * width
    state = np.zeros(len(uniform), np.int64)
    step = width >> 1
    while step:
        state += step * (flat[first + state + (step - 1)] <= uniform)
        step >>= 1
    return state
