"""`belief_propagation`: which engine, and what it found."""

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..ancestral import checked_count
from ..factor_graph import FactorGraph
from ..names import unknown
from ..tables import Variable
from .marginals import checked
from .marginals import seen as observed

if TYPE_CHECKING:
    from .counting import Operations

SCHEDULES = ("flooding", "depth_first", "residual")
SHOWN = 20  # variables that are printed


class Found(Protocol):
    """What an engine leaves behind; states first, fields of a batch last."""

    fields: tuple[int, ...]

    def variable(self, position: int) -> Any:
        """(K [, B]): log-beliefs up to a constant."""

    def stacked(self) -> Any:
        """(K, V [, B]): the same of all variables, which have K states each."""

    def factor(self, number: int) -> Any:
        """(*shape [, B]): log-beliefs up to a constant."""

    def log_partition(self) -> Any:
        """() or (B,): the Bethe approximation."""

    def best(self) -> Any:
        """(V [, B]): state indices of the highest beliefs, jointly best on forests."""


@dataclass(frozen=True, eq=False, repr=False)
class Beliefs:
    """What belief propagation found. `beliefs[variable]` has one entry a state."""

    graph: FactorGraph
    product: str
    """"sum" or "max"."""
    schedule: str
    iterations: int
    """One iteration sends every message once; the two passes of depth_first are one. On grids the
    residual is looked at every 4 iterations, on a GPU every 16."""
    residual: float
    """The largest change of a log message in the last iteration; on grids of its range over the
    states, which normalising does not change."""
    converged: bool
    trace: Any
    """Every message, where it was asked for, else None."""
    _found: Found

    @property
    def exact(self) -> bool:
        """Whether the factor graph is a forest and the messages have converged."""
        return self.converged and self.graph.is_forest

    @property
    def operations(self) -> "Operations":
        """The table entries that messages visit, beside those of the sum over all assignments."""
        from .counting import operations

        return operations(self.graph)

    def __getitem__(self, variable: Variable) -> Any:
        """The belief of a variable, (K,) or (B, K): its marginal distribution; in max-product its
        max-marginal, max over the others of the model, scaled to a largest entry of 1.

        Raises:
            ValueError: no such variable.
        """
        if variable not in self.graph.positions:
            raise ValueError(unknown("variable", variable, self.graph.variables))
        belief = self._found.variable(self.graph.positions[variable])
        return self._given(self._normalised(belief, 1), 1)

    @property
    def array(self) -> Any:
        """All beliefs, (V, K) in the order of `graph.variables`, (H, W, K) on a grid, with the
        fields of a batch first.

        Raises:
            ValueError: variables with different numbers of states.
        """
        sizes = {*self.graph.cardinalities.values()}
        if len(sizes) != 1:
            raise ValueError(
                f"the variables have {len(sizes)} different numbers of states, and no common array;"
                " beliefs[variable] has each"
            )
        whole = self._normalised(self._found.stacked(), 1).movedim(0, 1)
        return self._shaped(self._given(whole, 2), 1)

    def factor(self, number: int) -> Any:
        """The joint belief of a factor's variables, one axis each, behind that of a batch.

        Raises:
            ValueError: no such factor.
        """
        if not 0 <= number < len(self.graph.factors):
            raise ValueError(f"no factor {number}; there are {len(self.graph.factors)}, from 0")
        arity = len(self.graph.factors[number].variables)
        return self._given(self._normalised(self._found.factor(number), arity), arity)

    @cached_property
    def log_partition(self) -> Any:
        """log Z in nats, with evidence log of the sum over what agrees with it: exact on forests,
        else the Bethe approximation, which bounds neither way. None for max-product."""
        if self.product == "max":
            return None
        found = self._given(self._found.log_partition(), 0)
        return float(found) if isinstance(found, np.ndarray) and found.ndim == 0 else found

    @cached_property
    def states(self) -> Any:
        """Max-product: the state index of each variable in the assignment, (V,), (H, W) on a grid,
        the fields of a batch first. None for sum-product."""
        if self.product == "sum":
            return None
        return self._shaped(self._given(self._found.best(), 1), 0)

    @cached_property
    def assignment(self) -> dict[Variable, Any] | None:
        """Max-product: the state of each variable, an array of B states in a batch: a most probable
        assignment on forests; elsewhere each variable's own best. None for sum-product."""
        if self.product == "sum":
            return None
        labels = self.graph.states
        states: np.ndarray = _numbers(self.states)
        if not self._found.fields:
            flat = states.reshape(-1)
            return {v: labels[v][i] for v, i in zip(labels, flat.tolist(), strict=True)}
        rows: np.ndarray = states.reshape(len(states), -1)
        return {v: _column(labels[v])[rows[:, i]] for i, v in enumerate(labels)}

    @cached_property
    def score(self) -> Any:
        """Max-product: the total log-potential of the assignment. None for sum-product."""
        if self.product == "sum":
            return None
        states = _numbers(self.states)
        flat = states.reshape(*states.shape[: len(self._found.fields)], -1)
        found = self.graph.score(flat)
        return float(found) if not self.graph.is_tensor and np.ndim(found) == 0 else found

    def __str__(self) -> str:
        fields = self._found.fields
        many = "" if self.iterations == 1 else "s"
        said = [f"{self.product}-product, {self.schedule}", f"{self.iterations} iteration{many}"]
        said.append(
            "converged" if self.converged else f"not converged: residual {self.residual:.3g}"
        )
        said[-1] += ", exact" if self.exact else ""
        if fields:
            said.append(f"{fields[0]} fields")
        elif self.product == "sum":
            kind = "" if self.exact else " (Bethe)"
            said.append(f"log Z{kind} = {float(_numbers(self.log_partition)):.6g}")
        else:
            said.append(f"score {float(_numbers(self.score)):.6g}")
        lines = ["; ".join(said)]
        if fields:
            return lines[0]
        if self.exact:
            lines.append(f"  {self.operations}")
        names = self.graph.variables
        labels = self.graph.states
        wide = max((len(str(v)) for v in names[:SHOWN]), default=0)
        for variable in names[:SHOWN]:
            shown = [
                f"{state} {value:.4f}"
                for state, value in zip(
                    labels[variable][:8], _numbers(self[variable])[:8].tolist(), strict=True
                )
            ]
            more = " ..." if len(labels[variable]) > 8 else ""
            best = f"  -> {self.assignment[variable]}" if self.assignment else ""
            lines.append(f"  {variable!s:{wide}}  {'  '.join(shown)}{more}{best}")
        if len(names) > SHOWN:
            lines.append(f"  and {len(names) - SHOWN:,} more variables")
        return "\n".join(lines)

    __repr__ = __str__

    def _normalised(self, logs: Any, axes: int) -> Any:
        """Probabilities, or max-marginals with a largest entry of 1, over the first axes."""
        if axes == 0:
            return logs.exp()
        flat = logs.flatten(0, axes - 1)
        if self.product == "max":
            return (flat - flat.amax(0)).exp().reshape(logs.shape)
        return flat.softmax(0).reshape(logs.shape)

    def _given(self, found: Any, axes: int) -> Any:
        """Tensors to who gave tensors, else arrays; the fields of a batch first."""
        if self._found.fields:
            found = found.movedim(-1, 0)
        return found if self.graph.is_tensor else found.numpy()

    def _shaped(self, found: Any, behind: int) -> Any:
        """The axis of the variables as rows and columns, on a grid."""
        shape = self.graph.grid_shape
        if shape is None:
            return found
        at = found.ndim - 1 - behind
        return found.reshape(*found.shape[:at], *shape[:2], *found.shape[at + 1 :])


def belief_propagation(
    fg: Any,
    product: str = "sum",
    schedule: str | None = None,
    *,
    root: Variable | None = None,
    damping: float = 0.0,
    tolerance: float = 1e-6,
    max_iterations: int = 500,
    evidence: Any = None,
    trace: bool = False,
) -> Beliefs:
    """Belief propagation: marginals by sums of products, or the best assignment by maxima.

    From variables v to factors i and back, with messages normalised in every step,

        nu_{v->i}(x_v) = prod of mu_{j->v}(x_v) over the other factors j of v
        mu_{i->v}(x_v) = sum (or max) over x_i without x_v of psi_i(x_i) prod nu_{u->i}(x_u)
        p(x_v) ~ prod of mu_{j->v}(x_v) over the factors j of v

    Exact on forests; elsewhere a fixed point of the Bethe free energy, if it converges. Messages
    are kept as logarithms and nothing underflows.

    Args:
        fg: a `FactorGraph`, or whatever `FactorGraph.of` takes.
        product: "sum" for marginals and log Z, "max" for the best assignment.
        schedule: "depth_first": from the leaves to the root and back, on forests; "flooding": every
            message at once, from those of the iteration before; "residual": always the message that
            would change most, one at a time, in NumPy without gradients, for small graphs: a
            message makes all those behind its variable be thought over. By default depth_first on
            forests and flooding elsewhere; on a regular grid flooding has a fast path of its own.
        root: for depth_first: the variable where the messages go first.
        damping: the share of the old log message that is kept, from 0 to below 1; helps loopy
            messages to converge and is nothing to depth_first.
        tolerance: converged where no log message changes by more, or by more than rounding makes of
            it: four times the dtype's epsilon of the largest.
        max_iterations: at most so many; then a warning says that messages have not converged.
        evidence: a dict from variables to states, or to arrays of n states, or a DataFrame, which
            make n fields; None, NaN and -1 mean unobserved.
        trace: keep each message, for small graphs of one field: `beliefs.trace`.

    Returns:
        `Beliefs`: tensors where the log-tables are tensors, with gradients through all messages.

    Raises:
        TypeError: max_iterations is no whole number.
        ValueError: a schedule that the graph does not allow, evidence outside the states, hard
            constraints that contradict each other (the place is named, and the field of a batch).

    Source: Kschischang, Frey and Loeliger (2001), equations 5 and 6; Pearl, Probabilistic Reasoning
        in Intelligent Systems (1988); Elidan, McGraw and Koller, "Residual belief propagation"
        (2006).
    """
    from .found import by_messages, propagated

    graph = FactorGraph.of(fg)
    schedule = _checked(graph, product, schedule, root, damping, tolerance)
    max_iterations = checked_count(max_iterations, 1, "max_iterations")
    seen, rows = observed(graph, evidence)
    kept = None
    found: Found
    if trace or schedule == "residual":
        from .sequential import run

        _refuse_fields(graph, rows)
        given = {v: int(states[0]) for v, states in seen.items() if states[0] >= 0}
        place = None if root is None else graph.positions[root]
        done = run(
            graph, product=product, schedule=schedule, root=place, damping=damping,
            tolerance=tolerance, max_iterations=max_iterations, evidence=given, keep=trace,
        )  # fmt: skip
        found = by_messages(graph, seen, product, done.messages)
        kept = done.trace
        iterations, residual, converged = done.iterations, done.residual, done.converged
    else:
        found, iterations, residual, converged = propagated(
            graph, seen, rows, product, schedule, root, damping, tolerance, max_iterations
        )
    if not converged:
        warnings.warn(
            f"belief propagation has not converged after {iterations} iterations: the residual is "
            f"{residual:.3g}, the tolerance {tolerance:g}; try damping=0.5, more iterations, or "
            'schedule="residual"',
            stacklevel=2,
        )
    return Beliefs(graph, product, schedule, iterations, residual, converged, kept, found)


def _checked(
    graph: FactorGraph,
    product: str,
    schedule: str | None,
    root: Variable | None,
    damping: float,
    tolerance: float,
) -> str:
    """The schedule, where all options are as they should be."""
    if product not in ("sum", "max"):
        raise ValueError(f'product must be "sum" or "max"; got {product!r}')
    if schedule is not None and schedule not in SCHEDULES:
        raise ValueError(unknown("schedule", schedule, SCHEDULES))
    checked(tolerance, damping)
    if schedule == "depth_first" and not graph.is_forest:
        raise ValueError(
            "depth_first needs a forest, and this factor graph has a cycle; "
            "use flooding or residual"
        )
    if root is not None and root not in graph.positions:
        raise ValueError(unknown("variable", root, graph.variables))
    schedule = schedule or ("depth_first" if graph.is_forest else "flooding")
    if root is not None and schedule != "depth_first":
        raise ValueError(f"root is for depth_first; the schedule here is {schedule}")
    return schedule


def _refuse_fields(graph: FactorGraph, rows: int | None) -> None:
    """The engine that sends one message at a time takes one field, and gives no gradients."""
    if graph.batch is not None or rows is not None:
        raise ValueError(
            "trace and the residual schedule take one field, not a batch; "
            "take graph.field(i), or one row of evidence"
        )
    if any(getattr(group.table, "requires_grad", False) for group in graph.groups):
        raise ValueError(
            "trace and the residual schedule give no gradients; use flooding or depth_first, or "
            "detach the tables"
        )


def _column(labels: tuple[Any, ...]) -> np.ndarray:
    """Labels as an array that keeps what they are: one type, or objects."""
    kinds = {type(label) for label in labels}
    if len(kinds) == 1 and kinds <= {str, int, float, bool}:
        return np.array(labels)
    found = np.empty(len(labels), object)
    found[:] = labels
    return found


def _numbers(found: Any) -> np.ndarray:
    return found.detach().cpu().numpy() if hasattr(found, "detach") else found
