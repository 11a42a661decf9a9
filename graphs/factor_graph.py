"""Factor graphs: variables, log-tables over them, and many fields over one structure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import product
from typing import Any

import networkx as nx
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .factor_grids import grid_groups, grid_shape
from .factor_groups import (
    AXES,
    FactorNode,
    Factors,
    Group,
    alike,
    as_numbers,
    checked_size,
    listed,
    real,
    stacked,
    states_first,
)
from .names import unknown
from .tables import Factor, Tables, Variable, tables_of

PIECE = 600.0  # nats that a table may span in float64, far from underflow
MOST = 1000  # pieces that a wider table is parted into


class FactorGraph:
    """p(x) = 1/Z prod_i psi_i(x_i) with each psi_i a table of logarithms over a few variables.

    Args:
        cardinalities: how many states each variable has, a mapping or, for variables 0, 1, ...,
            a list of numbers.
        factors: pairs (variables, log_table). A log-table has one axis a variable, in their order;
            a further axis before them, of the same length B in all that have it, makes a batch: B
            fields over one structure. Entries are natural logarithms; -inf forbids a configuration.
            NumPy arrays or PyTorch tensors; one tensor makes all of them tensors, and answers are
            then tensors that can be differentiated. float32 where all tables are, else float64.
        states: the labels of the states of some variables; 0, 1, ... for the others.
        name: for printing.

    Raises:
        TypeError: a factor that is no such pair, or a table of other than real numbers.
        ValueError: a table that does not match its scope, an unknown or repeated variable, an entry
            NaN or +inf, a factor that is -inf everywhere, batches of different lengths.

    Source: Kschischang, Frey and Loeliger, "Factor graphs and the sum-product algorithm" (2001),
        equation 1.
    """

    variables: tuple[Variable, ...]
    cardinalities: dict[Variable, int]
    groups: list[Group]
    batch: int | None

    def __init__(
        self,
        cardinalities: Mapping[Variable, int] | Sequence[int],
        factors: Iterable[tuple[Sequence[Variable], Any]],
        *,
        states: Mapping[Variable, Sequence[Any]] | None = None,
        name: str = "",
    ) -> None:
        if not isinstance(cardinalities, Mapping):
            cardinalities = dict(enumerate(cardinalities))
        self.cardinalities = {v: checked_size(v, k) for v, k in cardinalities.items()}
        self.variables = tuple(self.cardinalities)
        self._labels = {v: self._labelled(v, given) for v, given in (states or {}).items()}
        self.name = name
        given = [self._read(i, item) for i, item in enumerate(factors)]
        self.batch = _batch(given, self)
        self.groups = self._grouped(given)
        self._check_numbers()

    @classmethod
    def of(cls, model: Any) -> "FactorGraph":
        """The factor graph of a Bayesian network, a Markov network, `Tables`, or linear factors.

        Tensors keep their gradients; an entry that is 0 is taken as a constant, with the gradient
        0, as that of its logarithm is infinite.

        Raises:
            TypeError, ValueError: see `graphs.tables_of`.
        """
        if isinstance(model, FactorGraph):
            return model
        tables = tables_of(model)
        values: list[Any] = [factor.values for factor in tables.factors]
        if isinstance(model, Sequence):  # pairs whose tensors keep their gradients
            values = [
                item[1] if hasattr(item, "__getitem__") and hasattr(item[1], "detach") else table
                for item, table in zip(model, values, strict=True)
            ]
        with np.errstate(divide="ignore"):
            factors: list[tuple[tuple[Variable, ...], Any]] = [
                (variables, _log(table) if hasattr(table, "detach") else np.log(table))
                for (variables, _), table in zip(tables.factors, values, strict=True)
            ]
        if tables.log_scale:
            factors.append(((), np.array(tables.log_scale)))
        return cls(tables.cardinalities, factors, states=tables.states, name=tables.name)

    @classmethod
    def grid(cls, unary: Any, pairwise: Any, *, name: str = "") -> "FactorGraph":
        """A pairwise field on a grid of H x W variables named (row, column), with 4 neighbours.

        Args:
            unary: log-tables (H, W, K), or (B, H, W, K) for B fields.
            pairwise: one log-table (K, K) for every edge, its first axis the upper or left
                variable; or a pair (down, right) of log-tables, each (K, K) or one an edge,
                (H-1, W, K, K) and (H, W-1, K, K), or with a batch axis before those.

        Raises:
            TypeError: other than real numbers. ValueError: shapes that do not fit, NaN or +inf.
        """
        shape, groups, batch = grid_groups(unary, pairwise)
        graph = cls.__new__(cls)
        graph.variables = tuple(product(range(shape[0]), range(shape[1])))
        graph.cardinalities = dict.fromkeys(graph.variables, shape[2])
        graph.groups, graph.batch, graph.name, graph._labels = groups, batch, name, {}
        graph._check_numbers()
        graph.__dict__["grid_shape"] = shape
        return graph

    # What it is made of

    @property
    def states(self) -> dict[Variable, tuple[Any, ...]]:
        """The labels of the states of each variable."""
        counted = {k: tuple(range(k)) for k in set(self.cardinalities.values())}
        return {v: self._labels.get(v) or counted[k] for v, k in self.cardinalities.items()}

    @cached_property
    def factors(self) -> "Factors":
        """The factors in the order in which they were given: pairs (variables, log_table)."""
        return Factors(self.variables, self.groups, self.batch)

    @cached_property
    def positions(self) -> dict[Variable, int]:
        """The place of each variable in `variables`."""
        return {variable: i for i, variable in enumerate(self.variables)}

    @cached_property
    def sizes(self) -> np.ndarray:
        """(V,): the number of states of each variable, in the order of `variables`."""
        return np.fromiter(self.cardinalities.values(), np.int64, len(self.cardinalities))

    @property
    def is_tensor(self) -> bool:
        """Whether the log-tables are PyTorch's."""
        return bool(self.groups) and hasattr(self.groups[0].table, "detach")

    @cached_property
    def is_forest(self) -> bool:
        """Whether the bipartite graph has no cycle, so that belief propagation is exact."""
        edges, nodes = [], len(self.variables)
        for _, scopes, _, _ in self.groups:
            if scopes.shape[1] > 1:
                heads = np.repeat(np.arange(nodes, nodes + len(scopes)), scopes.shape[1])
                edges.append(np.stack([scopes.ravel(), heads]))
                nodes += len(scopes)
        if not edges:
            return True
        ends = np.concatenate(edges, 1)
        joined = coo_array((np.ones(ends.shape[1], bool), (ends[0], ends[1])), (nodes, nodes))
        return bool(ends.shape[1] == nodes - connected_components(joined, False)[0])

    @cached_property
    def grid_shape(self) -> tuple[int, int, int] | None:
        """(H, W, K) where the variables are the cells (row, column) of a rectangle, row by row, all
        with K states, and the factors are one pairwise table for each two neighbours, and unary
        ones. None otherwise."""
        return grid_shape(self.variables, self.cardinalities, self.groups)

    def graph(self) -> nx.Graph:
        """The bipartite graph: variables (`bipartite=0`) and a `FactorNode` for each factor."""
        graph = nx.Graph(name=self.name)
        graph.add_nodes_from(self.variables, bipartite=0)
        scopes = [variables for variables, _ in self.factors]
        graph.add_nodes_from((FactorNode(i) for i in range(len(scopes))), bipartite=1)
        graph.add_edges_from((v, FactorNode(i)) for i, scope in enumerate(scopes) for v in scope)
        return graph

    def tables(self) -> Tables:
        """The linear tables, for `JunctionTree` and whatever else reads a model.

        Each factor is scaled so that its largest entry is 1; the sum of what was taken out, and of
        factors without variables, is `Tables.log_scale`. Where a factor spans more than 600 nats,
        which no float64 would hold, equal factors whose product it is stand in its place.

        Raises:
            ValueError: a batch of several fields, or a factor that spans more than 600 000 nats.
        """
        factors, scale = self.linear()
        linear = [Factor(variables, as_numbers(table)) for variables, table in factors]
        return Tables(self.states, linear, name=self.name, log_scale=float(as_numbers(scale)))

    def linear(self) -> tuple[list[tuple[tuple[Variable, ...], Any]], Any]:
        """What `tables` says, as pairs (variables, table) and the log of the scale: arrays in
        float64, or tensors that lead back to the log-tables.

        Raises:
            ValueError: see `tables`.
        """
        linear: list[tuple[tuple[Variable, ...], Any]] = []
        scale: Any = 0.0
        for variables, given in self.single().factors:
            table: Any = given.cpu().double() if self.is_tensor else np.asarray(given, np.float64)
            if not variables:
                scale = scale + table
                continue
            values = as_numbers(table)
            top = float(values.max())
            span = top - float(values.min(where=values > -np.inf, initial=top))
            if span > MOST * PIECE:
                raise ValueError(
                    f"the log-table over {listed(variables)} spans {span:.3g} nats, more than "
                    f"{MOST * PIECE:.0f}; forbid configurations with -inf"
                )
            pieces = max(1, math.ceil(span / PIECE))
            part = (table - top) / pieces
            linear += [(variables, part.exp() if self.is_tensor else np.exp(part))] * pieces
            scale = scale + top
        return linear, scale

    def single(self) -> "FactorGraph":
        """The graph without a batch axis.

        Raises:
            ValueError: a batch of several fields.
        """
        if self.batch is None:
            return self
        if self.batch != 1:
            raise ValueError(
                f"this factor graph is a batch of {self.batch} fields; take one of them: field(i)"
            )
        return self.field(0)

    def field(self, index: int) -> "FactorGraph":
        """One field of a batch, as a factor graph without batch axis.

        Raises:
            ValueError: no batch. IndexError: outside the batch.
        """
        if self.batch is None:
            raise ValueError("this factor graph is one field, not a batch")
        if not -self.batch <= index < self.batch:
            raise IndexError(f"field {index} of a batch of {self.batch}")
        kept = [
            group._replace(table=group.table[..., index if group.table.shape[-1] > 1 else 0])
            for group in self.groups
        ]
        return self._like(kept, None)

    def to(self, device: Any = None, dtype: Any = None) -> "FactorGraph":
        """The same graph with its log-tables as PyTorch tensors on a device, in a dtype."""
        import torch

        moved = [
            group._replace(table=torch.as_tensor(group.table).to(device=device, dtype=dtype))
            for group in self.groups
        ]
        return self._like(moved, self.batch)

    def score(self, assignment: Any) -> Any:
        """The total log-potential sum_i log psi_i(x), the log of the unnormalised probability.

        Args:
            assignment: a mapping from every variable to its state, or state indices, an array of
                shape (V,) or (n, V); in a batch of B > 1 fields n is B or 1.

        Returns:
            Shape () for one assignment, (n,) for n, (B,) in a batch.

        Raises:
            ValueError: a variable without a state, an unknown state, a wrong shape.
        """
        x = self._indices(assignment)
        if self.batch not in (None, 1) and x.ndim == 2 and len(x) not in (1, self.batch):
            raise ValueError(f"{len(x)} assignments for a batch of {self.batch} fields")
        total: Any = np.zeros(x.shape[:-1]) if not self.groups else 0.0
        for _, scopes, _, table in self.groups:
            place: list[Any] = [x[..., scopes[:, axis]] for axis in range(scopes.shape[1])]
            place.append(np.arange(len(scopes)) if table.shape[len(place)] > 1 else 0)
            if self.batch is not None:
                fields = table.shape[-1]
                place.append(np.arange(fields)[:, None] if fields > 1 else np.zeros((1, 1), int))
            whole = np.zeros((*x.shape[:-1], len(scopes)), int)  # where only constants are
            place = [*np.broadcast_arrays(*place, whole)][:-1]
            total = total + table[tuple(place)].sum(-1)
        return total

    def __str__(self) -> str:
        counts: dict[tuple[int, ...], int] = {}
        for group in self.groups:
            counts[group.shape] = counts.get(group.shape, 0) + len(group.scopes)
        kinds = sorted({k for k in self.cardinalities.values()})
        sizes = f"{kinds[0]} to {kinds[-1]}" if len(kinds) > 1 else f"{kinds[0] if kinds else 0}"
        lines = [
            f"factor graph{f' {self.name}' if self.name else ''}: {len(self.variables)} variables "
            f"of {sizes} states, {sum(counts.values())} factors"
            + (f", a batch of {self.batch} fields" if self.batch is not None else "")
            + (", a forest" if self.is_forest else "")
        ]
        order = sorted(counts.items(), key=lambda item: (len(item[0]), item[0]))
        lines += [
            f"  {number} of shape {' x '.join(map(str, shape)) or '()'}" for shape, number in order
        ]
        return "\n".join(lines)

    __repr__ = __str__

    # How it is read

    def _like(self, groups: list[Group], batch: int | None) -> "FactorGraph":
        graph = type(self).__new__(type(self))
        graph.__dict__.update(self.__dict__)
        graph.__dict__.pop("factors", None)
        graph.groups, graph.batch = groups, batch
        return graph

    def _labelled(self, variable: Variable, given: Sequence[Any]) -> tuple[Any, ...]:
        if variable not in self.cardinalities:
            raise ValueError(unknown("variable", variable, self.cardinalities))
        labels = tuple(given)
        if len({str(label) for label in labels}) != len(labels):
            raise ValueError(f"two states of {variable} have the same text: {labels}")
        if len(labels) != self.cardinalities[variable]:
            raise ValueError(
                f"{variable} has {self.cardinalities[variable]} states; got {len(labels)} labels"
            )
        return labels

    def _read(self, number: int, item: Any) -> tuple[tuple[Variable, ...], Any, bool]:
        """The scope, the table, and whether it has a batch axis."""
        try:
            variables, table = item
            variables = tuple(variables)
        except (TypeError, ValueError):
            raise TypeError(
                f"factor {number} must be a pair (variables, log_table); got {type(item).__name__}"
            ) from None
        for variable in variables:
            if variable not in self.cardinalities:
                raise ValueError(
                    f"factor {number}: {unknown('variable', variable, self.cardinalities)}"
                )
        if len(set(variables)) != len(variables):
            raise ValueError(f"factor {number} names a variable twice: {listed(variables)}")
        if len(variables) > AXES:
            raise ValueError(
                f"factor {number} has {len(variables)} variables; arrays have axes for {AXES}"
            )
        table = real(table, f"the log-table of factor {number} over {listed(variables)}")
        shape = tuple(self.cardinalities[v] for v in variables)
        given = tuple(table.shape)
        if given == shape or (len(given) == len(shape) + 1 and given[1:] == shape):
            return variables, table, len(given) > len(shape)
        raise ValueError(
            f"factor {number} over {listed(variables)} needs a log-table of shape {shape}, or "
            f"with a batch axis before it; got {given}"
        )

    def _grouped(self, given: list[tuple[tuple[Variable, ...], Any, bool]]) -> list[Group]:
        kinds: dict[tuple[Any, ...], list[int]] = {}
        for number, (variables, _, batched) in enumerate(given):
            shape = tuple(self.cardinalities[v] for v in variables)
            kinds.setdefault((shape, batched), []).append(number)
        tables = alike(*(table for _, table, _ in given))
        groups = []
        for (shape, batched), numbers in kinds.items():
            scopes = np.array(
                [[self.positions[v] for v in given[i][0]] for i in numbers], dtype=np.int64
            ).reshape(len(numbers), len(shape))
            table = stacked([tables[i] for i in numbers], batched)
            table = states_first(table, len(shape))
            if self.batch is not None and not batched:
                table = table[..., None]
            groups.append(Group(shape, scopes, np.array(numbers), table))
        return groups

    def _check_numbers(self) -> None:
        """Refuse NaN, +inf, and factors that forbid everything."""
        for shape, _, numbers, table in self.groups:
            values = as_numbers(table)
            top = values.max(tuple(range(len(shape)))) if shape else values
            if np.isfinite(top).all() and not np.isnan(values).any():
                continue
            shared = len(numbers) > 1 and top.shape[0] == 1
            bad = np.isnan(values).any(tuple(range(len(shape)))) | ~np.isfinite(top)
            place = np.argwhere(bad)[0]
            scope = "every edge" if shared else listed(self.factors[int(numbers[place[0]])][0])
            field = f" of field {place[1]}" if len(place) > 1 and top.shape[1] > 1 else ""
            where = f"the log-table over {scope}{field}"
            if np.isneginf(top[tuple(place)]):
                raise ValueError(f"{where} is -inf everywhere: it forbids every configuration")
            raise ValueError(
                f"{where} has an entry that is NaN or +inf; entries are logarithms of potentials, "
                "finite or -inf (were potentials negative?)"
            )

    def _indices(self, assignment: Any) -> np.ndarray:
        if isinstance(assignment, Mapping):
            for variable in assignment:
                if variable not in self.cardinalities:
                    raise ValueError(unknown("variable", variable, self.cardinalities))
            missing = [v for v in self.variables if v not in assignment]
            if missing:
                raise ValueError(f"the assignment has no state for {listed(missing)}")
            states = self.states
            found = []
            for variable in self.variables:
                texts = {str(state): i for i, state in enumerate(states[variable])}
                if str(assignment[variable]) not in texts:
                    raise ValueError(
                        unknown("state", assignment[variable], states[variable], str(variable))
                    )
                found.append(texts[str(assignment[variable])])
            return np.array(found)
        x = np.asarray(as_numbers(assignment))
        if x.ndim not in (1, 2) or x.shape[-1] != len(self.variables) or x.dtype.kind not in "iu":
            raise ValueError(
                f"an assignment is a mapping, or integers of shape ({len(self.variables)},) or "
                f"(n, {len(self.variables)}); got {x.dtype} of shape {x.shape}"
            )
        if x.size and (x.min() < 0 or (x >= self.sizes).any()):
            raise ValueError("an assignment has a state index outside the states of its variable")
        return x


def _log(table: Any) -> Any:
    import torch

    live = table > 0
    return table.where(live, torch.ones_like(table)).log().masked_fill(~live, -math.inf)


def _batch(given: list[tuple[tuple[Variable, ...], Any, bool]], graph: FactorGraph) -> int | None:
    lengths = {len(table): listed(variables) for variables, table, batched in given if batched}
    if len(lengths) > 1:
        said = ", ".join(f"{n} over {scope}" for n, scope in list(lengths.items())[:3])
        raise ValueError(f"log-tables have batches of different lengths: {said}")
    return next(iter(lengths), None)
