"""Parameters of log-linear models, Markov random fields, from complete rows."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..ancestral import checked_count
from ..exact.engine import Engine
from ..exact.rows import Rows
from ..names import unknown
from ..progress import Bar
from ..tables import Variable
from .potentials import Potentials
from .pseudo_likelihood import PseudoLikelihood
from .scopes import Layout, Observations, network, read_observations

METHODS = ("likelihood", "pseudo_likelihood")
CORRECTIONS = 20  # pairs of steps that L-BFGS remembers
LARGE = 600.0  # up to where a model's largest log-potentials are; exp is finite up to 709


@dataclass(frozen=True, eq=False)
class LearnedField:
    """An undirected model with learned tables, and how well it fits."""

    model: Any = field(repr=False)
    """A pgmpy DiscreteMarkovNetwork, its factors in the order of the scopes that were given."""
    method: str
    rows: int | None
    """None where marginals were given."""
    log_likelihood: float | None
    """log p of a row in nats, on average; None for pseudo-likelihood, which computes no partition
    function."""
    pseudo_log_likelihood: float | None
    """sum over i of log p(x_i | x_-i) of a row in nats, on average; None for other methods."""
    log_partition: float | None
    """log Z of `model`, in nats; None for pseudo-likelihood."""
    parameters: tuple[np.ndarray, ...] = field(repr=False)
    """For each group of tied factors, in the order of the groups' first factors, its log-table, or
    the weights of its features."""
    weights: int
    """How many numbers were learned."""
    unseen: int
    """Table cells without data, whose potential became zero since nothing held it up."""
    l2: float
    iterations: int
    """Steps of L-BFGS, or sweeps of iterative proportional fitting."""
    converged: bool
    """Whether `residual` is within the tolerance."""
    residual: float
    """The largest derivative of the objective, per row, by a weight. For likelihood without a
    penalty, features or ties, and for iterative proportional fitting: the largest difference
    between a marginal of the data and of the model."""
    history: tuple[float, ...] = field(repr=False)
    """The objective after each iteration: the (pseudo-)log-likelihood, less the penalty, of a row
    in nats on average. It never falls."""

    def __str__(self) -> str:
        factors, different = len(self.model.factors), len(self.parameters)
        tied = f" (tied to {different:,})" if different < factors else ""
        rows = "given marginals" if self.rows is None else f"{self.rows:,} rows"
        method = self.method.replace("pseudo_", "pseudo-").replace("_", " ")
        penalty = f", l2 {self.l2:g}" if self.l2 else ""
        lines = [
            f"{len(self.model.nodes):,} variables, {factors:,} factors{tied}, {self.weights:,} "
            f"weights, {rows}; {method}{penalty}"
        ]
        if self.log_likelihood is not None:
            lines.append(f"log-likelihood {self.log_likelihood:.6f} nats a row")
        if self.pseudo_log_likelihood is not None:
            lines.append(f"pseudo-log-likelihood {self.pseudo_log_likelihood:.6f} nats a row")
        step = "sweep" if self.method == "iterative_proportional_fitting" else "step"
        said = "converged" if self.converged else "not converged"
        count = f"{self.iterations:,} {step}{'' if self.iterations == 1 else 's'}"
        lines.append(f"{said} after {count}, residual {self.residual:.2g}")
        if self.unseen:
            lines.append(f"{self.unseen:,} cells without data: zero")
        return "\n".join(lines)


def learn_log_linear(
    model: Any,
    data: Any,
    method: str = "likelihood",
    *,
    l2: float = 0.0,
    tied: Sequence[Sequence[int]] | None = None,
    features: Mapping[int, Any] | None = None,
    states: Mapping[Variable, Any] | None = None,
    tolerance: float = 1e-6,
    max_iterations: int = 2000,
    progress: bool = True,
) -> LearnedField:
    """The tables psi of p(x) = 1/Z prod_f psi_f(x_f), from complete rows.

    log psi_f = sum_k w_k phi_k(x_f). Without features each cell of a table has a weight of its own.
    The weights maximise, over N rows,

        sum over rows of log p(x) - l2/2 |w|^2                        "likelihood",
        sum over rows and i of log p(x_i | x_-i) - l2/2 |w|^2         "pseudo_likelihood",

    so the penalty is a Gaussian prior of variance 1 / l2 on each weight. Both are concave, and are
    climbed by L-BFGS from w = 0. The gradient of the first is the difference between observed and
    expected features, N (E_data phi - E_model phi), with exact expectations on a clique tree: at
    its maximum without a penalty the model has the data's marginals over every scope. The second
    needs no partition function, is exact about the parameters as rows grow, and is the one for
    large grids.

    Tables of one model are not unique: a factor can pass a function of a shared variable on to
    another. Of equal ones, these have the smallest weights.

    Zeros in the model's tables stay zero; its other entries do not matter. Without a penalty a cell
    (of a table without features) that has no data is best at zero, and is zero: rows that have it
    then have probability zero. `unseen` counts them, and any l2 > 0 keeps them positive.

    Args:
        model: what the scopes of the factors are: a pgmpy DiscreteMarkovNetwork, a FactorGraph,
            Tables or a list of factors; a networkx Graph, then its maximal cliques in the order of
            its nodes; or a list of scopes, which are tuples of variables.
        data: a DataFrame or the path of a .csv, .csv.gz or .parquet file, a column a variable,
            without missing cells.
        method: "likelihood" or "pseudo_likelihood".
        l2: the precision of the prior, 0 or more.
        tied: groups of factors, by number, that share one table; their axes correspond in order.
            For a homogeneous field over the edges of a grid, `tied=[range(len(edges))]`.
        features: by the number of a factor, its phi, an array (features, *shape of its table). They
            hold for all factors that are tied with it.
        states: of some variables, in order, or their number, where the model has no tables; those
            that occur by default.
        tolerance: L-BFGS stops where no derivative per row is larger.
        max_iterations: its steps at most.
        progress: whether to show a bar where it takes more than two seconds.

    Raises:
        FileNotFoundError, ModuleNotFoundError: see `learn_parameters`.
        TypeError: a directed model, no table of data.
        ValueError: an unknown method, variable or state; a missing cell; a scope that is empty or
            comes twice; tied factors whose shapes differ; features of a wrong shape; rows to which
            a zero of the model gives probability zero.
        MemoryError: likelihood, of a model too dense for exact inference; pseudo-likelihood, of
            more rows than the memory that is free can hold.

    Source: Koller and Friedman, Probabilistic Graphical Models (2009), 20.3 and 20.6.1; Besag,
        "Statistical analysis of non-lattice data" (1975).
    """
    if method not in METHODS:
        raise ValueError(unknown("method", method, METHODS))
    l2 = checked_number(l2, "l2", least=0.0)
    tolerance = checked_number(tolerance, "tolerance", least=0.0)
    max_iterations = checked_count(max_iterations, 1, "max_iterations")
    seen = read_observations(model, data, states)
    layout = seen.layout
    potentials = Potentials(layout.scopes, layout.supports, tied, features)
    observed = potentials.summed(seen.marginals())
    unseen = 0 if l2 else potentials.keep(observed > 0)
    objective: Objective
    if method == "likelihood":
        objective = likelihood(seen, potentials, observed)
    else:
        objective = pseudo_likelihood(seen, potentials)
    with Bar(method.replace("_", "-"), max_iterations, progress) as bar:
        found = climb(objective, potentials, l2 / seen.rows, tolerance, max_iterations, bar)
    cells = potentials.cells(found.weights)
    fits = -objective(cells)[0]
    log_tables = potentials.tables(cells)
    # Constants that no probability sees, where exponentials would leave the range of numbers.
    tops = [float(table.max()) for table in log_tables]
    shifts = [top - min(max(top, -LARGE), LARGE) for top in tops]
    log_tables = [table - shift for table, shift in zip(log_tables, shifts, strict=True)]
    exact = method == "likelihood"
    residual = float(np.abs(found.gradient).max())
    if residual > tolerance:
        advice = (
            "no step gains more than the rounding of the objective: raise tolerance"
            if found.iterations < max_iterations
            else "raise max_iterations"
        )
        warnings.warn(
            f"learn_log_linear did not converge: after {found.iterations:,} steps a derivative per "
            f"row is {residual:.2g}, with a tolerance of {tolerance:g}; {advice}, or give an l2 "
            "above 0, which keeps weights finite",
            stacklevel=2,
        )
    return LearnedField(
        model=network(layout, log_tables),
        method=method,
        rows=seen.rows,
        log_likelihood=fits if exact else None,
        pseudo_log_likelihood=None if exact else fits,
        log_partition=score(observed, cells) - math.fsum(shifts) - fits if exact else None,
        parameters=potentials.parameters(found.weights),
        weights=potentials.count,
        unseen=unseen,
        l2=l2,
        iterations=found.iterations,
        converged=residual <= tolerance,
        residual=residual,
        history=tuple(found.history),
    )


def checked_number(given: Any, what: str, least: float) -> float:
    try:
        number = float(given)
    except (TypeError, ValueError):
        raise TypeError(f"{what} must be a number; got {given!r}") from None
    if not (number >= least and math.isfinite(number)):
        raise ValueError(f"{what} must be a finite number, at least {least:g}; got {given!r}")
    return number


# Objectives: what is minimised, of the log-potentials, per row, in nats; and its derivatives ------

Objective = Callable[[np.ndarray], tuple[float, np.ndarray]]


def likelihood(seen: Observations, potentials: Potentials, observed: np.ndarray) -> Objective:
    """-mean log p(x) = log Z - sum of observed * log psi; its derivative is expected - observed.

    Raises:
        MemoryError: the clique tree's tables would not fit into memory.
    """
    exact = ExactMarginals(seen.layout)

    def objective(cells: np.ndarray) -> tuple[float, np.ndarray]:
        log_z, expected = exact(potentials.tables(cells))
        return log_z - score(observed, cells), potentials.summed(expected) - observed

    return objective


def pseudo_likelihood(seen: Observations, potentials: Potentials) -> Objective:
    """-mean over rows of sum over i of log p(x_i | x_-i)."""
    layout = seen.layout
    starts = [potentials.of_factor[f].start for f in range(len(layout.scopes))]
    total = PseudoLikelihood(
        seen.columns, seen.weights, layout.sizes, layout.places, starts, len(potentials.free)
    )
    rows = seen.weights.sum()

    def objective(cells: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = total(cells)
        return float(value / rows), gradient / rows

    return objective


def score(observed: np.ndarray, cells: np.ndarray) -> float:
    """sum of frequencies * log-potentials; a cell without data counts nothing, even at -inf."""
    at = np.flatnonzero(observed)
    return float(observed[at] @ cells[at])


class ExactMarginals:
    """log Z and the marginals of all scopes, for one log-table a scope after the other.

    Raises:
        MemoryError: the clique tree's tables would not fit into memory.
    """

    def __init__(self, layout: Layout) -> None:
        sizes, places = layout.sizes, layout.places
        first = [np.ones(support.shape) for support in layout.supports]
        self.engine = Engine(sizes, places, first, None, 0, np.dtype(np.float64))
        self.tree = self.engine.whole.tree
        try:
            self.engine.afford(self.tree.cost)
        except MemoryError as error:
            raise MemoryError(
                f"the model is too dense for exact inference (largest table "
                f"{self.tree.cost.largest_table:,} cells), which its partition function needs; "
                'learn_log_linear(..., method="pseudo_likelihood") does without'
            ) from error
        # The engine answers for scopes in ascending order.
        self._wanted = [tuple(sorted(place)) for place in places]
        self._shapes = [[sizes[v] for v in wanted] for wanted in self._wanted]
        self._axes = [
            [wanted.index(v) for v in place]
            for wanted, place in zip(self._wanted, places, strict=True)
        ]

    def __call__(self, log_tables: Sequence[np.ndarray]) -> tuple[float, list[np.ndarray]]:
        """log Z in nats, and p(x_f) for each scope; nan where nothing is possible."""
        tops = [float(table.max()) for table in log_tables]
        self.engine.rebind(
            [np.exp(table - top) for table, top in zip(log_tables, tops, strict=True)]
        )
        log_z, found = self.engine.marginals(Rows({}, 1), self._wanted)
        marginals = [
            table.reshape(shape).transpose(axes)
            for table, shape, axes in zip(found, self._shapes, self._axes, strict=True)
        ]
        return float(log_z[0]) + math.fsum(tops), marginals


# The climb ----------------------------------------------------------------------------------------


@dataclass
class Climb:
    """Where L-BFGS ended."""

    weights: np.ndarray
    gradient: np.ndarray
    iterations: int
    history: list[float]


def climb(
    objective: Objective,
    potentials: Potentials,
    decay: float,
    tolerance: float,
    max_iterations: int,
    bar: Bar,
) -> Climb:
    """Minimise the objective + decay/2 |w|^2 by L-BFGS, from w = 0."""
    from scipy.optimize import minimize

    def penalised(weights: np.ndarray) -> tuple[float, np.ndarray]:
        value, by_cell = objective(potentials.cells(weights))
        gradient = potentials.gradient(by_cell) + decay * weights
        return value + 0.5 * decay * float(weights @ weights), gradient

    history: list[float] = []

    def step(intermediate_result: Any) -> None:
        history.append(-float(intermediate_result.fun))
        bar.at(len(history), f"{history[-1]:,.4f} nats a row")

    found = minimize(
        penalised,
        np.zeros(potentials.count),
        jac=True,
        method="L-BFGS-B",
        callback=step,
        options={
            "maxiter": max_iterations,
            "maxfun": 20 * max_iterations,
            "maxcor": CORRECTIONS,
            "ftol": 0.0,
            "gtol": tolerance,
        },
    )
    return Climb(found.x, found.jac, int(found.nit), history)
