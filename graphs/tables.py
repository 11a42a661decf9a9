"""What the engines read of a model: the states of each variable, and tables over variables.

pgmpy's networks, lists of factors and files all come down to this one form at the door, where they
are checked once; nothing behind the door checks again.
"""

import math
import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

import networkx as nx
import numpy as np

Variable = Hashable
ROUNDING = 1e-6  # a column of a printed table may be off by this much; more is a mistake


class Factor(NamedTuple):
    """A non-negative table; axis i of `values` runs over the states of `variables[i]`."""

    variables: tuple[Variable, ...]
    values: np.ndarray


@dataclass(frozen=True)
class Tables:
    """The states of each variable in order, and the factors whose product is the model.

    `directed` says that the model is a Bayesian network: factor i is then p(child | parents) of the
    i-th variable, the child's axis first. `log_scale` is the log of a constant that multiplies the
    product of the factors.
    """

    states: dict[Variable, tuple[Any, ...]]
    factors: list[Factor]
    directed: bool = False
    name: str = ""
    log_scale: float = 0.0
    positions: dict[Variable, dict[str, int]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        positions = {v: {str(s): i for i, s in enumerate(k)} for v, k in self.states.items()}
        object.__setattr__(self, "positions", positions)

    @property
    def cardinalities(self) -> dict[Variable, int]:
        return {variable: len(states) for variable, states in self.states.items()}

    def parents(self, variable: Variable) -> tuple[Variable, ...]:
        """The parents of a variable of a Bayesian network, in the order of its table's axes."""
        return self._conditionals[variable].variables[1:]

    def conditional(self, variable: Variable) -> np.ndarray:
        """p(variable | parents): the variable's axis first, then one axis a parent."""
        return self._conditionals[variable].values

    @cached_property
    def _conditionals(self) -> dict[Variable, Factor]:
        return {factor.variables[0]: factor for factor in self.factors}

    def graph(self) -> nx.Graph | nx.DiGraph:
        """The directed graph of a Bayesian network; else each factor's scope joined pairwise."""
        graph = nx.DiGraph() if self.directed else nx.Graph()
        graph.add_nodes_from(self.states)
        for variables, _ in self.factors:
            if self.directed:
                graph.add_edges_from((parent, variables[0]) for parent in variables[1:])
            else:
                graph.add_edges_from(
                    (a, b) for i, a in enumerate(variables) for b in variables[i + 1 :]
                )
        return graph


def tables_of(model: Any) -> Tables:
    """The tables of a pgmpy network, of a factor graph, of a list of factors, or of tables.

    Args:
        model: `DiscreteBayesianNetwork`, `DiscreteMarkovNetwork`, `FactorGraph`, `Tables`, or a
            list of pgmpy factors and of pairs (variables, array). Arrays are NumPy's or PyTorch's.

    Raises:
        TypeError: none of these.
        ValueError: a missing table, parents that differ from the graph's, states that differ
            between tables, a negative or infinite entry, a column that does not sum to one, or a
            cycle.
    """
    if isinstance(model, Tables):
        return model
    if hasattr(model, "grid_shape"):
        return model.tables()
    if hasattr(model, "get_cpds"):
        return _of_bayesian_network(model)
    if hasattr(model, "get_factors"):
        return _of_factors(model.get_factors(), model.nodes)
    if isinstance(model, Sequence) and not isinstance(model, str):
        return _of_factors(model, ())
    hint = "; graphs.load reads one from a name or a file" if isinstance(model, str) else ""
    if type(model).__name__ == "Energies":
        hint = "; graphs.boltzmann makes a factor graph of energies"
    raise TypeError(
        "expected a pgmpy DiscreteBayesianNetwork or DiscreteMarkovNetwork, or a list of factors; "
        f"got {type(model).__name__}{hint}"
    )


def directed_tables(model: Any) -> Tables:
    """`tables_of` for what makes sense for Bayesian networks only.

    Raises:
        TypeError: not a Bayesian network.
    """
    tables = tables_of(model)
    if not tables.directed:
        raise TypeError(
            "expected a Bayesian network (pgmpy's DiscreteBayesianNetwork); "
            f"got an undirected model, {type(model).__name__}"
        )
    return tables


def bayesian(
    states: Mapping[Variable, Sequence[Any]], factors: Iterable[Factor], name: str = ""
) -> Tables:
    """Checked tables of a Bayesian network, one factor a variable with the child's axis first.

    A column whose sum is off by at most 1e-6 is print rounding: it is renormalised in float64, and
    one warning counts such columns.

    Raises:
        ValueError: see `tables_of`.
    """
    kept = {variable: _distinct(variable, given) for variable, given in states.items()}
    found = {factor.variables[0]: factor for factor in factors}
    missing = [variable for variable in kept if variable not in found]
    if missing:
        raise ValueError(f"{_of(name)}no table for {_listed(missing)}: each variable needs one")
    ordered, rounded, worst = [], 0, 0.0
    for variable in kept:
        factor = found[variable]
        sums = np.add.reduce(factor.values, 0)
        away = np.abs(sums - 1.0)
        off = np.maximum.reduce(away, None, initial=0.0)
        if not off <= ROUNDING or not np.minimum.reduce(factor.values, None, initial=0.0) >= 0:
            raise ValueError(_of(name) + _bad_column(variable, factor, kept))
        if off > 1e-14:
            factor = Factor(factor.variables, factor.values / sums)
            if off > 1e-12:
                rounded += int(np.count_nonzero(away > 1e-14))
                worst = max(worst, float(off))
        ordered.append(factor)
    if rounded:
        warn_of_rounding(name, rounded, worst, stacklevel=5)
    tables = Tables(kept, ordered, True, name)
    if not acyclic(ordered):
        refuse_cycles(tables.graph(), name)
    return tables


def acyclic(factors: list[Factor]) -> bool:
    """Whether the arcs have no cycle, without the cost of a graph."""
    before: set[Hashable] = set()
    for variables, _ in factors:  # many files have every parent before its children
        if not before.issuperset(variables[1:]):
            break
        before.add(variables[0])
    else:
        return True
    try:
        TopologicalSorter({v[0]: v[1:] for v, _ in factors}).prepare()
    except CycleError:
        return False
    return True


def warn_of_rounding(name: str, columns: int, worst: float, stacklevel: int) -> None:
    """One warning for all columns that were renormalised."""
    warnings.warn(
        f"{_of(name)}{columns} columns of tables sum to 1 only within {worst:.1g}, as printed "
        "digits do; renormalised",
        stacklevel=stacklevel,
    )


def refuse_cycles(graph: nx.DiGraph, name: str = "") -> None:
    """Raise where a directed graph has a cycle.

    Raises:
        ValueError: names the cycle.
    """
    if nx.is_directed_acyclic_graph(graph):
        return
    cycle = [edge[0] for edge in nx.find_cycle(graph)]
    shown = " -> ".join(str(node) for node in [*cycle, cycle[0]])
    raise ValueError(f"{_of(name)}a Bayesian network has no directed cycle; found {shown}")


def _of_bayesian_network(model: Any) -> Tables:
    cpds = {cpd.variable: cpd for cpd in model.cpds}
    missing = [node for node in model.nodes if node not in cpds]
    if missing:
        raise ValueError(f"no table (CPD) for {_listed(missing)}: each variable needs one")
    states = {node: tuple(cpds[node].state_names[node]) for node in model.nodes}
    kept = {node: _distinct(node, given) for node, given in states.items()}
    factors = []
    for node in model.nodes:
        cpd = cpds[node]
        parents = set(model.predecessors(node))
        if set(cpd.variables[1:]) != parents:
            raise ValueError(
                f"the table of {node} is given {_listed(cpd.variables[1:]) or 'nothing'}, but its "
                f"parents in the graph are {_listed(parents) or 'none'}"
            )
        factors.append(_aligned(cpd, kept))
    return bayesian(kept, factors, str(getattr(model, "name", "") or ""))


def _of_factors(given: Iterable[Any], nodes: Iterable[Variable]) -> Tables:
    given = list(given)
    states: dict[Variable, tuple[Any, ...]] = {}
    plain = []
    for item in given:  # named states first: a factor that only counts its states adopts the names
        if hasattr(item, "state_names"):
            for variable, size in zip(item.variables, item.cardinality, strict=True):
                names = tuple(item.state_names.get(variable, range(int(size))))
                if variable not in states or _counted(states[variable]):
                    states[variable] = _distinct(variable, names)
    for index, item in enumerate(given):
        if hasattr(item, "state_names"):
            plain.append(_aligned(item, states))
            continue
        try:
            variables, values = item
            variables = tuple(variables)
        except (TypeError, ValueError):
            raise TypeError(
                f"factor {index} must be a pgmpy factor or a pair (variables, array); "
                f"got {type(item).__name__}"
            ) from None
        if len(set(variables)) != len(variables):
            raise ValueError(f"factor {index} names a variable twice: {_listed(variables)}")
        values = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
        if values.ndim != len(variables):
            raise ValueError(
                f"factor {index} over {_listed(variables)} needs one axis a variable; "
                f"got an array of shape {values.shape}"
            )
        for variable, size in zip(variables, values.shape, strict=True):
            if states.setdefault(variable, tuple(range(size))) and len(states[variable]) == size:
                continue
            raise ValueError(
                f"factor {index} has {size} states for {variable}, which has "
                f"{len(states[variable])} elsewhere"
            )
        plain.append(Factor(variables, values.astype(np.float64)))
    for factor in plain:
        if not (np.isfinite(factor.values).all() and (factor.values >= 0).all()):
            raise ValueError(
                f"the factor over {_listed(factor.variables)} has an entry that is negative or not "
                "finite; factors are non-negative tables, not their logarithms"
            )
    bare = [node for node in nodes if node not in states]
    if bare:
        raise ValueError(
            f"no factor mentions {_listed(bare)}, so the number of states is unknown: "
            "add a factor of ones"
        )
    return Tables(states, plain)


def _aligned(factor: Any, states: Mapping[Variable, tuple[Any, ...]]) -> Factor:
    """A pgmpy factor with the states of every axis in the model's order."""
    values = factor.values
    if hasattr(values, "detach"):  # pgmpy's torch backend
        values = values.detach().cpu().numpy()
    values = np.array(values, dtype=np.float64)  # a copy: the model may change, the engine does not
    for axis, variable in enumerate(factor.variables):
        if variable not in states:
            raise ValueError(f"a table mentions {variable}, which is no variable of the model")
        named = tuple(factor.state_names.get(variable, range(values.shape[axis])))
        wanted = states[variable]
        if named == wanted:
            continue
        texts = {str(state): i for i, state in enumerate(named)}
        if set(texts) != {str(state) for state in wanted}:
            if len(named) == len(wanted) and _counted(named):  # states that pgmpy merely numbered
                continue
            raise ValueError(
                f"the states of {variable} are {_listed(wanted)} in one table and "
                f"{_listed(named)} in that of {_listed(factor.variables)}"
            )
        values = values.take([texts[str(state)] for state in wanted], axis)
    return Factor(tuple(factor.variables), values)


def _counted(states: Sequence[Any]) -> bool:
    return all(state == i and not isinstance(state, (str, bool)) for i, state in enumerate(states))


def _distinct(variable: Variable, states: Sequence[Any]) -> tuple[Any, ...]:
    if not states:
        raise ValueError(f"{variable} has no states")
    texts = [str(state) for state in states]
    if len(set(texts)) != len(texts):
        twice = next(text for text in texts if texts.count(text) > 1)
        raise ValueError(f"{variable} has the state {twice!r} twice")
    return tuple(states)


def _bad_column(
    variable: Variable, factor: Factor, states: Mapping[Variable, Sequence[Any]]
) -> str:
    """What is wrong with a conditional table, with the column it is wrong in."""
    values = factor.values
    bad = (abs(values.sum(0) - 1.0) > ROUNDING) | (values < 0).any(0) | ~np.isfinite(values).all(0)
    where = np.argwhere(bad)[0]
    column = values[(slice(None), *where)]
    given = [f"{p}={states[p][i]}" for p, i in zip(factor.variables[1:], where, strict=True)]
    of = f"{variable}" + (f" | {', '.join(given)}" if given else "")
    if (column < 0).any():
        return f"the table of {variable} has a negative probability in the column p({of})"
    total = float(column.sum())
    if not math.isfinite(total):
        return f"the table of {variable} has an entry that is not a number in the column p({of})"
    return f"the column p({of}) sums to {total:.9g}, not to 1"


def _listed(names: Iterable[Any], limit: int = 8) -> str:
    names = [str(name) for name in names]
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if names[limit:] else "")


def _of(name: str) -> str:
    return f"{name}: " if name else ""
