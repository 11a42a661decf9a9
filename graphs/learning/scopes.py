"""What undirected models are learned from: the scopes of their factors, and complete rows."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import networkx as nx
import numpy as np

from ..ancestral import flat_index
from ..exact.clique_tree import readable
from ..exact.memory import free_memory
from ..tables import Factor, Tables, Variable, tables_of
from ..undirected.cliques import maximal_cliques
from .counts import read_cells

Scope = tuple[Variable, ...]
BYTES = 24  # that a cell of a table takes: its frequency, its logarithm, and a copy
AXES = 64  # of an array of NumPy's


@dataclass(frozen=True, eq=False)
class Scopes:
    """The factors of an undirected model without their numbers."""

    variables: tuple[Variable, ...]
    scopes: list[Scope]
    states: dict[Variable, tuple[Any, ...]]
    """Of the variables whose states the model knows."""
    supports: list[np.ndarray] | None
    """Where the tables of the model are not zero; None where it has no tables."""
    name: str = ""


@dataclass(frozen=True, eq=False)
class Layout:
    """Scopes whose variables all have their states."""

    states: dict[Variable, tuple[Any, ...]]
    scopes: list[Scope]
    supports: list[np.ndarray]
    """Boolean, with the shape of each scope: the entries that are free."""
    name: str = ""

    @property
    def sizes(self) -> list[int]:
        return [len(states) for states in self.states.values()]

    @cached_property
    def places(self) -> list[tuple[int, ...]]:
        """The positions of each scope's variables."""
        at = {variable: i for i, variable in enumerate(self.states)}
        return [tuple(at[v] for v in scope) for scope in self.scopes]

    def named(self, factor: int, cell: Sequence[int]) -> str:
        """A cell of a factor's table in words: a=yes, b=no."""
        scope = self.scopes[factor]
        return ", ".join(f"{v}={self.states[v][i]}" for v, i in zip(scope, cell, strict=True))


@dataclass(frozen=True, eq=False)
class Observations:
    """Complete rows as state indices, equal ones once."""

    layout: Layout
    columns: np.ndarray
    """(variables, different rows)."""
    weights: np.ndarray
    """(different rows,): how often each occurs."""

    @property
    def rows(self) -> int:
        return round(self.weights.sum())

    def marginals(self) -> list[np.ndarray]:
        """The frequencies of the states of each scope, which sum to one."""
        shares = self.weights / self.weights.sum()
        found = []
        for place, support in zip(self.layout.places, self.layout.supports, strict=True):
            flat = flat_index([self.columns[v] for v in place], list(support.shape))
            found.append(np.bincount(flat, shares, support.size).reshape(support.shape))
        return found


def read_scopes(model: Any) -> Scopes:
    """The scopes of a model: its factors', its maximal cliques, or those listed.

    Maximal cliques come in the order of the graph's nodes, each with its nodes in that order.

    Args:
        model: a pgmpy DiscreteMarkovNetwork, a factor graph, `Tables`, a list of factors, a
            networkx Graph, or a list of scopes, which are tuples or lists of variables.

    Raises:
        TypeError: a directed model, or none of these.
        ValueError: no scope at all, one that is empty, names a variable twice or comes twice, or a
            variable that is in none.
    """
    undirected = isinstance(model, nx.Graph) and not model.is_directed()
    if undirected and not (hasattr(model, "get_factors") and model.get_factors()):
        found = _of_graph(model)
    elif isinstance(model, (list, tuple)) and not any(_is_factor(item) for item in model):
        found = _of_list(model)
    elif isinstance(model, nx.Graph) and not undirected:
        raise TypeError(
            f"expected an undirected model; got {type(model).__name__}: learn_parameters learns "
            "the tables of a Bayesian network, graphs.moralize makes its graph undirected"
        )
    else:
        found = _of_tables(model)
    _check(found)
    return found


_EXPECTED = (
    "expected a pgmpy DiscreteMarkovNetwork, a networkx Graph, a list of scopes (tuples of "
    "variables), a FactorGraph or Tables; got "
)


def _of_graph(graph: nx.Graph) -> Scopes:
    name = str(getattr(graph, "name", "") or "")
    return Scopes(tuple(graph), maximal_cliques(graph), {}, None, name)


def _of_list(given: Sequence[Any]) -> Scopes:
    scopes: list[Scope] = []
    for number, scope in enumerate(given):
        if not isinstance(scope, (list, tuple)):
            raise TypeError(
                f"scope {number} must be a tuple or list of variables; got {scope!r:.80}"
            )
        if not all(isinstance(variable, Hashable) for variable in scope):
            raise TypeError(f"scope {number} holds what cannot name a variable: {scope!r:.80}")
        scopes.append(tuple(scope))
    variables = tuple(dict.fromkeys(variable for scope in scopes for variable in scope))
    return Scopes(variables, scopes, {}, None)


def _of_tables(model: Any) -> Scopes:
    try:
        tables = tables_of(model)
    except TypeError as error:
        if isinstance(model, (list, tuple)):
            raise
        raise TypeError(f"{_EXPECTED}{type(model).__name__}") from error
    if tables.directed:
        raise TypeError(
            "expected an undirected model; these are the tables of a Bayesian network, which "
            "learn_parameters learns"
        )
    return Scopes(
        tuple(tables.states),
        [factor.variables for factor in tables.factors],
        dict(tables.states),
        [factor.values > 0 for factor in tables.factors],
        tables.name,
    )


def _is_factor(item: Any) -> bool:
    """A pgmpy factor or a pair (variables, table), rather than a scope of two variables."""
    if hasattr(item, "state_names"):
        return True
    pair = isinstance(item, (list, tuple)) and len(item) == 2
    return pair and (isinstance(item[1], list) or hasattr(item[1], "shape"))


def _check(found: Scopes) -> None:
    if not found.scopes:
        raise ValueError("the model has no factors, so there is nothing to learn")
    seen: dict[frozenset[Variable], int] = {}
    for number, scope in enumerate(found.scopes):
        if not scope:
            raise ValueError(f"factor {number} has no variables; leave constants out")
        if len(set(scope)) < len(scope):
            raise ValueError(f"factor {number} names a variable twice: {shown(scope)}")
        first = seen.setdefault(frozenset(scope), number)
        if first != number:
            raise ValueError(
                f"factors {first} and {number} have the same variables, {shown(scope)}: one table "
                "over them says all that both could; leave one out"
            )
    inside = {variable for scope in found.scopes for variable in scope}
    for variable in found.variables:
        if variable not in inside:
            raise ValueError(f"no factor mentions {variable}; add the scope ({variable!r},)")


def read_observations(model: Any, data: Any, states: Mapping[Variable, Any] | None) -> Observations:
    """Scopes of a model, and the rows of data over its variables.

    Raises:
        TypeError, ValueError: see `read_scopes` and `counts.read_cells`.
        ValueError: states for a variable whose states the model knows, a missing cell, a row with
            states to which a table of the model gives zero.
    """
    found = read_scopes(model)
    refuse_other_states(found, states)
    cells = read_cells(data, variables=found.variables, states={**found.states, **(states or {})})
    for variable, missing in cells.missing.items():
        raise ValueError(
            f"{variable} lacks {missing:,} of {cells.rows:,} cells: undirected models are learned "
            "from complete rows; drop rows or fill cells"
        )
    columns, weights = np.unique(
        np.array([cells.codes[v] for v in found.variables]), axis=1, return_counts=True
    )
    shapes = [[len(cells.states[v]) for v in scope] for scope in found.scopes]
    supports = found.supports or full_supports(found.scopes, shapes)
    layout = Layout(cells.states, found.scopes, supports, found.name)
    for factor, (place, support) in enumerate(zip(layout.places, supports, strict=True)):
        kept = support[tuple(columns[v] for v in place)]
        if not kept.all():
            cell = columns[list(place), np.flatnonzero(~kept)[0]].tolist()
            raise ValueError(
                f"{weights[~kept].sum():,} rows of the data are impossible, such as one with "
                f"{layout.named(factor, cell)}: there the model has a zero, and zeros stay; drop "
                "such rows or make the entry positive"
            )
    return Observations(layout, columns, weights.astype(float))


def full_supports(scopes: Sequence[Scope], shapes: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """Tables without zeros.

    Raises:
        MemoryError: a scope whose table no memory holds.
    """
    free = free_memory()
    for scope, shape in zip(scopes, shapes, strict=True):
        cells = math.prod(shape)
        if BYTES * cells > free or len(shape) > AXES:
            raise MemoryError(
                f"the table over {shown(scope[:4])}{', ...' if scope[4:] else ''}, {len(scope)} "
                f"variables, would take {readable(BYTES * cells)}, with {readable(free)} free and "
                f"at most {AXES} variables a table: give smaller scopes, such as a graph's edges"
            )
    return [np.ones(shape, bool) for shape in shapes]


def refuse_other_states(found: Scopes, states: Mapping[Variable, Any] | None) -> None:
    """Refuse states that the tables of the model already give.

    Raises:
        ValueError: names the variable.
    """
    for variable in states or {}:
        if variable in found.states:
            raise ValueError(f"the model's tables give the states of {variable}; leave it out")


def network(layout: Layout, log_tables: Sequence[np.ndarray]) -> Any:
    """The pgmpy DiscreteMarkovNetwork whose tables are the exponentials of these."""
    from ..io import markov_network

    factors = [
        Factor(scope, np.exp(table)) for scope, table in zip(layout.scopes, log_tables, strict=True)
    ]
    return markov_network(Tables(dict(layout.states), factors, name=layout.name))


def shown(scope: Sequence[Variable]) -> str:
    return ", ".join(str(variable) for variable in scope)
