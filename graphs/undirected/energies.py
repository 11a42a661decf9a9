"""Potentials as energies: psi_C = exp(-E_C / T), so that the energies of the cliques add up.

P(Y) = 1/Z prod_C psi_C(Y_C) is the Boltzmann distribution P(Y) = 1/Z exp(-E(Y) / T) of the total
energy E(Y) = sum_C E_C(Y_C) (Bishop, PRML, section 8.3.2; Koller and Friedman 2009, section 4.4.1).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..directed import _refuse_gaps
from ..evidence import encode
from ..tables import Factor, Tables, Variable
from .factorization import SHOWN, called

if TYPE_CHECKING:
    from ..exact.clique_tree import Cost
    from ..factor_graph import FactorGraph

METHODS = "exact", "bethe"


@dataclass(frozen=True, eq=False)
class Energies:
    """E(Y) = sum_i E_i(Y_i), in units of k T at temperature 1, that is in nats.

    Attributes:
        states: the states of each variable.
        terms: pairs (variables, values), one axis a variable, float64; inf where it is impossible.
    """

    states: dict[Variable, tuple[Any, ...]]
    terms: tuple[Factor, ...]

    def __str__(self) -> str:
        lines = [f"E(Y) = sum of {len(self.terms):,} terms over {len(self.states):,} variables"]
        for number, (scope, values) in enumerate(self.terms[:SHOWN]):
            finite = values[np.isfinite(values)]
            barred = values.size - finite.size
            said = [f"from {finite.min():.6g} to {finite.max():.6g}"] if finite.size else []
            said += [f"{barred:,} of {values.size:,} infinite"] if barred else []
            lines.append(f"  {called('E', number, scope)} {', '.join(said)}")
        if len(self.terms) > SHOWN:
            lines.append(f"  and {len(self.terms) - SHOWN:,} more")
        return "\n".join(lines)

    __repr__ = __str__


@dataclass(frozen=True)
class Partition:
    """log Z, in nats, and how it was found.

    Attributes:
        log_z: log of the sum of the product of all factors over all assignments.
        method: "exact" by a clique tree; "bethe" for the Bethe approximation at a fixed point of
            belief propagation, which is exact on trees, and else no bound in either direction.
        cost: what the exact way takes; None where it was not asked.
        refused: why the exact way was left; None where it was not.
        converged: whether belief propagation came to rest; None for the exact way.
        iterations: of belief propagation; None for the exact way.
    """

    log_z: float
    method: str
    cost: "Cost | None" = None
    refused: str | None = None
    converged: bool | None = None
    iterations: int | None = None

    def __str__(self) -> str:
        if self.method == "exact":
            return f"log Z = {self.log_z:.9g} nats, exact ({self.cost})"
        rest = "converged" if self.converged else "did NOT converge"
        said = (
            f"log Z ≈ {self.log_z:.9g} nats, Bethe approximation (belief propagation {rest} in "
            f"{self.iterations:,} iterations)"
        )
        return said + (f"; the exact value was refused: {self.refused}" if self.refused else "")


def energies(model: Any) -> Energies:
    """E_i = -log psi_i of every factor, inf where the factor is zero.

    Args:
        model: a `FactorGraph`, or whatever `graphs.tables.tables_of` takes.

    Raises:
        TypeError, ValueError: see `graphs.tables.tables_of`; a factor that is zero everywhere; a
            batch of several fields.
    """
    graph = one_field(model)
    terms = []
    for variables, table in graph.factors:
        table = table.detach().cpu().numpy() if hasattr(table, "detach") else table
        terms.append(Factor(variables, 0.0 - table.astype(np.float64)))  # 0 - 0 has no sign
    return Energies(graph.states, tuple(terms))


def boltzmann(energies: Any, temperature: float = 1.0) -> "FactorGraph":
    """The model with the potentials psi_i = exp(-E_i / T), as logarithms: nothing overflows.

    As T goes to 0 the assignments of least energy take all the probability; as it grows, all
    possible assignments come to be equally likely. `boltzmann(energies(model))` is the model.

    Args:
        energies: `Energies`, or a list of pairs (variables, values) with one axis a variable, whose
            states are then numbered from 0. An energy of inf is impossible at every temperature.
        temperature: T > 0, with Boltzmann's constant 1.

    Raises:
        TypeError: neither, or an item that is no such pair.
        ValueError: T that is not positive and finite, or so small that E_i / T overflows; an energy
            that is NaN or -inf; a term that is inf everywhere; numbers of states that differ.
    """
    from ..factor_graph import FactorGraph

    if not (isinstance(temperature, (int, float, np.number)) and 0 < temperature < math.inf):
        raise ValueError(f"the temperature must be positive and finite; got {temperature!r}")
    known = energies if isinstance(energies, Energies) else _numbered(energies)
    for number, (variables, values) in enumerate(known.terms):
        if np.isnan(values).any() or np.isneginf(values).any():
            raise ValueError(
                f"term {number} over {', '.join(map(str, variables))} has an energy that is NaN or "
                "-inf; energies are real numbers, or inf for what is impossible"
            )
    sizes = {variable: len(states) for variable, states in known.states.items()}
    finite = [np.abs(values[np.isfinite(values)]) for _, values in known.terms]
    largest = max((float(values.max(initial=0.0)) for values in finite), default=0.0)
    if temperature < 1 and largest > temperature * np.finfo(np.float64).max:
        raise ValueError(
            f"the temperature {temperature:g} is too small: E / T overflows, with energies up to "
            f"{largest:g}; raise it"
        )
    factors = [(variables, 0.0 - values / temperature) for variables, values in known.terms]
    return FactorGraph(sizes, factors, states=known.states)


def energy(model: Any, assignments: Any) -> Any:
    """The total energy E(y) = sum_i E_i(y_i) = -log(Z P(y)) of complete assignments, in nats.

    Args:
        model: `Energies`, a `FactorGraph`, or whatever `graphs.tables.tables_of` takes.
        assignments: a state for every variable: a dict of states, a dict of arrays of n states, or
            a DataFrame with one column a variable; or state indices, an integer array of shape (V,)
            or (n, V) in the order of the model's variables.

    Returns:
        A float for one assignment, else an array (n,); inf where one is impossible. Where the model
        holds tensors, a tensor; of a batch of B fields (B,), one assignment a field or one for all.

    Raises:
        ValueError: a variable or cell is missing; an unknown variable or state; a wrong shape.
    """
    from ..factor_graph import FactorGraph

    graph = boltzmann(model) if isinstance(model, Energies) else FactorGraph.of(model)
    arrayed = hasattr(assignments, "shape") and not hasattr(assignments, "to_dict")
    if isinstance(assignments, (list, tuple)):
        assignments, arrayed = np.asarray(assignments), True
    if not arrayed:
        tables = Tables(graph.states, [])
        columns, rows = encode(tables, assignments)
        _refuse_gaps(tables, columns)
        length = 1 if rows is None else rows
        indices = np.empty((length, len(graph.variables)), dtype=np.int64)
        for i, variable in enumerate(graph.variables):
            indices[:, i] = columns[variable]
        assignments = indices[0] if rows is None else indices
    total = 0.0 - graph.score(assignments)
    return total if getattr(total, "ndim", 0) or hasattr(total, "detach") else float(total)


def partition_function(model: Any, method: str | None = None) -> Partition:
    """log Z = log sum_y prod_i psi_i(y_i): exactly where that is affordable, else approximately.

    The sum has as many terms as there are assignments. A clique tree does it in time and memory
    exponential in its width alone, which are known before any table is made (`Partition.cost`).

    Args:
        model: `Energies`, a `FactorGraph`, or whatever `graphs.tables.tables_of` takes; Z = 1 for a
            Bayesian network.
        method: "exact"; "bethe", for the Bethe approximation by belief propagation (Yedidia,
            Freeman and Weiss 2005); None for the exact value, or the Bethe approximation where the
            exact one would not fit into the memory that is free. The result says which it is.

    Raises:
        ValueError: an unknown method, no assignment is possible.
        MemoryError: the method is "exact", and it would not fit into memory.
    """
    if method not in (None, *METHODS):
        raise ValueError(f"method must be 'exact', 'bethe' or None; got {method!r}")
    from .. import belief_propagation
    from ..exact.clique_tree import readable
    from ..exact.junction_tree import JunctionTree

    cost, refused = None, None
    model = boltzmann(model) if isinstance(model, Energies) else model
    if method != "bethe":
        cost = _cost_of_large_grid(model)
        try:
            if cost is not None:
                raise MemoryError(
                    f"exact inference would need more than {readable(cost.bytes)}: a grid has the "
                    f"treewidth of its shorter side, {cost.width}"
                )
            engine = JunctionTree(model)
            cost = engine.cost
            return Partition(engine.log_partition, "exact", cost)
        except MemoryError as error:
            if method == "exact":
                raise MemoryError(f"{error}; method='bethe' approximates log Z") from error
            refused = str(error)
    found = belief_propagation(one_field(model))
    return Partition(
        float(found.log_partition),
        "bethe",
        cost,
        refused,
        bool(found.converged),
        int(found.iterations),
    )


def _cost_of_large_grid(model: Any) -> "Cost | None":
    """What the exact way takes at least, where that is known to be too much without a search.

    The treewidth of a grid is its shorter side (Bodlaender 1998, corollary 89), so that any clique
    tree has a clique of one variable more.
    """
    from ..exact.clique_tree import LIMIT, Cost

    shape = getattr(model, "grid_shape", None)
    if shape is None:
        return None
    height, width, size = shape
    treewidth = min(height, width)
    if (treewidth + 1) * math.log(size) <= math.log(LIMIT):
        return None
    return Cost(int(LIMIT), int(LIMIT), 8 * int(LIMIT), treewidth, at_least=True)


def one_field(model: Any) -> "FactorGraph":
    """The factor graph of a model, without a batch axis.

    Raises:
        TypeError, ValueError: see `graphs.tables.tables_of`; a batch of several fields.
    """
    from ..factor_graph import FactorGraph

    graph = FactorGraph.of(model)
    if graph.batch is None:
        return graph
    if graph.batch > 1:
        raise ValueError(
            f"this factor graph is a batch of {graph.batch} fields; take one of them: field(i)"
        )
    return graph.field(0)


def _numbered(pairs: Iterable[Any]) -> Energies:
    """Terms from pairs (variables, values); states are numbered from 0."""
    states: dict[Variable, tuple[Any, ...]] = {}
    terms = []
    if isinstance(pairs, str) or not hasattr(pairs, "__iter__"):
        raise TypeError(
            "expected Energies, or a list of pairs (variables, energies); got "
            f"{type(pairs).__name__}: graphs.energies gives the energies of a model"
        )
    for number, item in enumerate(pairs):
        try:
            variables, values = item
            variables = tuple(variables)
        except (TypeError, ValueError):
            raise TypeError(
                f"term {number} must be a pair (variables, energies); got {type(item).__name__}"
            ) from None
        values = values.detach().cpu().numpy() if hasattr(values, "detach") else values
        try:
            table = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError):
            raise TypeError(
                f"the energies of term {number} over {', '.join(map(str, variables))} must be an "
                f"array of numbers; got {values!r:.80}"
            ) from None
        if table.ndim != len(variables):
            raise ValueError(
                f"term {number} over {', '.join(map(str, variables))} needs one axis a variable; "
                f"got an array of shape {table.shape}"
            )
        for variable, size in zip(variables, table.shape, strict=True):
            states.setdefault(variable, tuple(range(size)))
        terms.append(Factor(variables, table))
    return Energies(states, tuple(terms))
