"""Small random models, and what they answer by summing their whole joint table."""

import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from graphs.tables import Factor, Tables, bayesian

NAMES = ("a", "b", 7, (2, "x"), "e", frozenset({1}), "g", 3.5)  # any hashable names a variable


def random_bayesian(
    rng: np.random.Generator, count: int | None = None, zeros: float = 0.3, cards: int = 4
) -> Tables:
    """A random network of up to eight variables of 1..`cards` states; tables with many zeros."""
    count = int(rng.integers(1, 9)) if count is None else count
    names = [NAMES[i] for i in rng.permutation(count)]
    states = {v: tuple(f"s{i}" for i in range(rng.integers(1, cards + 1))) for v in names}
    factors = []
    for i, child in enumerate(names):
        chosen = rng.permutation(i)[: rng.integers(0, 4)]
        scope = (child, *(names[j] for j in chosen))
        values = rng.random([len(states[v]) for v in scope])
        values *= rng.random(values.shape) >= zeros
        values[0] += values.sum(0) == 0  # every column keeps some mass
        factors.append(Factor(scope, values / values.sum(0)))
    order = rng.permutation(count)  # the model's order is not the order of the arcs
    return bayesian({names[i]: states[names[i]] for i in order}, factors)


def random_factors(
    rng: np.random.Generator, zeros: float = 0.3
) -> list[tuple[tuple[Hashable, ...], np.ndarray]]:
    """A random list of (variables, array), with constants, repeated scopes and islands."""
    count = int(rng.integers(1, 9))
    sizes = {v: int(rng.integers(1, 5)) for v in NAMES[:count]}
    factors = []
    for _ in range(rng.integers(1, 9)):
        scope = tuple(NAMES[i] for i in rng.permutation(count)[: rng.integers(0, 4)])
        if factors and rng.random() < 0.2:
            scope = factors[-1][0][::-1]
        values = rng.random([sizes[v] for v in scope]) * 10.0 ** rng.integers(-3, 4)
        factors.append((scope, values * (rng.random(values.shape) >= zeros)))
    return factors


def joint_table(tables: Tables, factors: Sequence[Factor] | None = None) -> np.ndarray:
    """The product of all tables, one axis a variable in the model's order."""
    names = list(tables.states)
    table = np.ones([len(tables.states[v]) for v in names])
    for scope, values in tables.factors if factors is None else factors:
        order = sorted(range(len(scope)), key=lambda i: names.index(scope[i]))
        shape = [len(tables.states[v]) if v in scope else 1 for v in names]
        table = table * np.transpose(values, order).reshape(shape)
    return table


def conditioned(
    tables: Tables,
    joint: np.ndarray,
    codes: Mapping[Hashable, int],
    weights: Mapping[Hashable, np.ndarray] | None = None,
) -> np.ndarray:
    """The joint table times the evidence: state indices (-1 unobserved) and likelihoods."""
    names = list(tables.states)
    for variable, code in codes.items():
        if code >= 0:
            joint = joint * _along(names, variable, np.eye(len(tables.states[variable]))[code])
    for variable, weight in (weights or {}).items():
        joint = joint * _along(names, variable, np.asarray(weight, float))
    return joint


def _along(names: list[Any], variable: Hashable, vector: np.ndarray) -> np.ndarray:
    shape = [1] * len(names)
    shape[names.index(variable)] = len(vector)
    return vector.reshape(shape)


def summed(tables: Tables, table: np.ndarray, *variables: Hashable) -> np.ndarray:
    """The normalised margin over these variables, axes in the order given."""
    names = list(tables.states)
    axes = [names.index(v) for v in variables]
    kept = sorted(axes)
    found = table.sum(tuple(i for i in range(len(names)) if i not in axes)) / table.sum()
    return found.transpose([kept.index(axis) for axis in axes])


def random_codes(
    rng: np.random.Generator, tables: Tables, share: float = 0.4
) -> dict[Hashable, int]:
    """State indices for some of the variables."""
    return {
        v: int(rng.integers(len(states)))
        for v, states in tables.states.items()
        if rng.random() < share
    }


def named(tables: Tables, codes: Mapping[Hashable, int]) -> dict[Hashable, Any]:
    """The same as states, None where unobserved."""
    return {v: tables.states[v][c] if c >= 0 else None for v, c in codes.items()}


def grid(
    rows: int, columns: int, rng: np.random.Generator
) -> list[tuple[tuple[Hashable, ...], np.ndarray]]:
    """Random positive pairwise factors on a grid of binary variables (row, column)."""
    found = []
    for r in range(rows):
        for c in range(columns):
            if r + 1 < rows:
                found.append((((r, c), (r + 1, c)), rng.random((2, 2)) + 0.1))
            if c + 1 < columns:
                found.append((((r, c), (r, c + 1)), rng.random((2, 2)) + 0.1))
    return found


def quietly(read: Callable[[str], Any], name: str) -> Any:
    """`graphs.read` or `graphs.load` by name; the digits of some files are rounded."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*sum to 1 only within", category=UserWarning)
        return read(name)
