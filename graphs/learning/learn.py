"""Parameters of a Bayesian network from data: by counting, and by EM where cells are missing."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import networkx as nx
import numpy as np

from ..ancestral import checked_count
from ..io import bayesian_network
from ..names import unknown
from ..progress import Bar
from ..tables import Factor, Tables, Variable, bayesian, refuse_cycles
from .counts import Cells, counts, read_cells
from .expectation import Expectation, Family

METHODS = ("maximum_likelihood", "bdeu", "k2")


@dataclass(frozen=True, eq=False)
class Learned:
    """A Bayesian network with learned tables, and how well it fits."""

    model: Any = field(repr=False)
    """A pgmpy DiscreteBayesianNetwork."""
    method: str
    log_likelihood: float
    """log p(the observed cells) of all rows together, in nats."""
    rows: int
    missing: int
    """Cells that were not observed, those of latent variables among them."""
    iterations: int
    """EM's steps; 0 where nothing was missing, since counting then is exact."""
    converged: bool
    """Whether the last step gained less than the tolerance."""
    log_likelihoods: tuple[float, ...] = field(repr=False)
    """`log_likelihood` of EM's start, and after each step."""
    objectives: tuple[float, ...] = field(repr=False)
    """What EM climbs, which never falls: `log_likelihoods`, for "bdeu" and "k2" with the prior,
    sum of pseudo-count * log theta, added."""
    starts: tuple[float, ...] = field(repr=False)
    """The objective that each start of EM ended at; the best was kept."""
    undefined: int
    """Parent configurations without data, to which maximum likelihood gave the uniform table."""

    @property
    def mean_log_likelihood(self) -> float:
        """`log_likelihood` per row, in nats."""
        return self.log_likelihood / self.rows

    def __str__(self) -> str:
        lines = [
            f"{len(self.model.nodes)} variables, {len(self.model.edges)} arcs, {self.rows:,} rows, "
            f"{self.missing:,} cells missing; {self.method.replace('_', ' ')}",
            f"log-likelihood {self.log_likelihood:,.4f} nats, {self.mean_log_likelihood:.6f} a row",
        ]
        if self.iterations:
            said = "converged after" if self.converged else "not converged after"
            lines.append(f"EM {said} {self.iterations} steps")
            if len(self.starts) > 1:
                lines[-1] += f", the best of {len(self.starts)} starts"
        if self.undefined:
            lines.append(f"{self.undefined:,} parent configurations without data: uniform")
        return "\n".join(lines)


def learn_parameters(
    graph: Any,
    data: Any,
    *,
    method: str = "maximum_likelihood",
    equivalent_sample_size: float = 10.0,
    states: Mapping[Variable, Any] | None = None,
    starts: int = 1,
    seed: int = 0,
    max_iterations: int = 1000,
    tolerance: float = 1e-8,
    progress: bool = True,
) -> Learned:
    """The tables p(x_i | pa_i) of a network, from complete or incomplete rows.

    With N_ijk the rows in which x_i is in state k and its parents in configuration j,

        theta_ijk = (N_ijk + alpha_ijk) / sum over k (N_ijk + alpha_ijk),

    where alpha_ijk is 0 for "maximum_likelihood", 1 for "k2" (Cooper and Herskovits 1992), and
    equivalent_sample_size / (K_i q_i) for "bdeu", with K_i states and q_i configurations
    (Heckerman, Geiger and Chickering 1995). These are posterior means under
    Dirichlet(alpha) priors.

    Where cells are missing, at random, or variables are latent, EM puts expected counts
    N_ijk = sum over rows p(x_i = k, pa_i = j | the row's cells) in the counts' place, exactly, and
    repeats (Lauritzen 1995). Its fixed points are stationary points of the log-likelihood of the
    observed cells; for "bdeu" and "k2" of that plus sum alpha_ijk log theta_ijk, so posterior modes
    under Dirichlet(alpha + 1) priors. Rows of which nothing was observed do not count. The first
    start is the frequencies among the rows that have the whole family, with one added to each
    count; tables that a latent variable takes part in, and all tables of further starts, are drawn
    uniformly.

    Args:
        graph: a networkx DiGraph, a pgmpy Bayesian network or `Tables` (whose tables give the
            states), or a list of arcs; for a list, columns in no arc are variables too.
        data: a DataFrame or the path of a .csv, .csv.gz or .parquet file, as `read_cells` has it.
        method: one of the three above.
        equivalent_sample_size: of "bdeu".
        states: of some variables, in order, or their number; all that have no column need them.
        starts: how often EM starts; the best end is kept.
        seed: of the random tables.
        max_iterations: EM's steps at most.
        tolerance: EM stops where the objective gains less than this part of itself.
        progress: whether to show a bar where it takes more than two seconds.

    Raises:
        FileNotFoundError, ModuleNotFoundError: see `read_cells`.
        TypeError: no directed graph, no table.
        ValueError: a directed cycle, an unknown method, or what `read_cells` refuses.
        MemoryError: missing cells, and a graph too dense for exact inference.
    """
    if method not in METHODS:
        raise ValueError(unknown("method", method, METHODS))
    if not (equivalent_sample_size > 0 and math.isfinite(equivalent_sample_size)):
        raise ValueError(
            f"equivalent_sample_size must be a positive number; got {equivalent_sample_size!r}"
        )
    starts = checked_count(starts, 1, "starts")
    max_iterations = checked_count(max_iterations, 1, "max_iterations")
    dag, known, open_ended = _structure(graph)
    known = known | dict(states or {})
    cells = read_cells(data, variables=list(dag), others=open_ended, states=known)
    dag.add_nodes_from(cells.states)
    families: list[Family] = [(v, *dag.predecessors(v)) for v in cells.states]
    sizes = cells.sizes
    priors = [
        _pseudo_count(method, equivalent_sample_size, [sizes[v] for v in family])
        for family in families
    ]
    missing = sum(cells.missing.values())
    if missing:
        found = _by_em(cells, families, priors, starts, seed, max_iterations, tolerance, progress)
    else:
        found = _by_counting(cells, families, priors)
    undefined = 0
    if method == "maximum_likelihood":
        undefined = sum(int((table.sum(0) <= 0).sum()) for table in found.counts)
    if undefined:
        warnings.warn(
            f"{undefined:,} parent configurations have no data, so that maximum likelihood leaves "
            'their tables open; they are uniform here. method="bdeu" has no such gaps',
            stacklevel=2,
        )
    factors = [Factor(f, table) for f, table in zip(families, found.tables, strict=True)]
    name = str(getattr(graph, "name", "") or "")
    model = bayesian_network(bayesian(cells.states, factors, name))
    model.latents = {v for v in cells.states if v not in cells.codes}
    return Learned(
        model=model,
        method=method,
        log_likelihood=found.log_likelihoods[-1],
        rows=cells.rows,
        missing=missing,
        iterations=len(found.log_likelihoods) - 1,
        converged=found.converged,
        log_likelihoods=tuple(found.log_likelihoods),
        objectives=tuple(found.objectives),
        starts=found.starts,
        undefined=undefined,
    )


def _structure(graph: Any) -> tuple[nx.DiGraph, dict[Variable, Any], bool]:
    """The graph, the states that it knows, and whether it may lack nodes."""
    dag: nx.DiGraph = nx.DiGraph()
    if isinstance(graph, Tables):
        graph, states = graph.graph(), dict(graph.states)
    elif isinstance(graph, nx.Graph):
        cpds = graph.get_cpds() if graph.is_directed() and hasattr(graph, "get_cpds") else []
        states = {c.variable: list(c.state_names[c.variable]) for c in cpds}
    else:
        listed = isinstance(graph, (list, tuple, set, frozenset))
        arcs = list(graph) if listed else []
        if not listed or any(not isinstance(a, (tuple, list)) or len(a) != 2 for a in arcs):
            raise TypeError(
                "graph must be a networkx DiGraph, a pgmpy Bayesian network or a list of arcs "
                f"(parent, child); got {graph!r:.80}"
            )
        dag.add_edges_from(arcs)
        refuse_cycles(dag)
        return dag, {}, True
    if not graph.is_directed() or graph.is_multigraph():
        raise TypeError(f"expected a directed graph (networkx DiGraph); got {type(graph).__name__}")
    dag.add_nodes_from(graph.nodes)
    dag.add_edges_from((parent, v) for v in graph for parent in graph.predecessors(v))
    refuse_cycles(dag)
    if not len(dag):
        raise ValueError("the graph has no nodes, so there is nothing to learn")
    return dag, states, False


def _pseudo_count(method: str, equivalent_sample_size: float, sizes: list[int]) -> float:
    if method == "bdeu":
        return equivalent_sample_size / math.prod(sizes)
    return 1.0 if method == "k2" else 0.0


# Estimates ----------------------------------------------------------------------------------------


@dataclass
class Estimate:
    """Tables, and the (expected) counts that they come from."""

    tables: list[np.ndarray]
    counts: list[np.ndarray]
    log_likelihoods: list[float]
    objectives: list[float]
    converged: bool
    starts: tuple[float, ...] = ()


def maximised(found: list[np.ndarray], priors: list[float]) -> list[np.ndarray]:
    """theta = (N + alpha) / sum (N + alpha) over the first axis; uniform where that is 0 / 0."""
    tables = []
    for table, prior in zip(found, priors, strict=True):
        sums = table.sum(0) + prior * len(table)
        with np.errstate(invalid="ignore", divide="ignore"):
            tables.append(np.where(sums > 0, (table + prior) / sums, 1 / len(table)))
    return tables


def _log_prior(tables: list[np.ndarray], priors: list[float]) -> float:
    """sum of alpha log theta, what the mode under Dirichlet(alpha + 1) adds to the likelihood."""
    pairs = zip(tables, priors, strict=True)
    return sum(prior * float(np.log(table).sum()) for table, prior in pairs if prior)


def _by_counting(cells: Cells, families: list[Family], priors: list[float]) -> Estimate:
    sizes = cells.sizes
    found = [
        counts([cells.codes[v] for v in family], [sizes[v] for v in family]) for family in families
    ]
    tables = maximised(found, priors)
    total = 0.0
    for table, count in zip(tables, found, strict=True):
        total += float((count * np.log(np.where(count > 0, table, 1.0))).sum())
    return Estimate(tables, found, [total], [total + _log_prior(tables, priors)], True)


def _by_em(
    cells: Cells,
    families: list[Family],
    priors: list[float],
    starts: int,
    seed: int,
    max_iterations: int,
    tolerance: float,
    progress: bool,
) -> Estimate:
    """The best of several runs of EM."""
    expectation = Expectation(cells, families)
    rng = np.random.default_rng(seed)
    runs: list[Estimate] = []
    with Bar("EM", starts * max_iterations, progress) as bar:
        for start in range(starts):
            first = initial_tables(cells, families, rng, random=start > 0)
            done = start * max_iterations
            runs.append(em(expectation, first, priors, max_iterations, tolerance, bar, done))
    best = max(runs, key=lambda run: run.objectives[-1])
    best.starts = tuple(run.objectives[-1] for run in runs)
    return best


def initial_tables(
    cells: Cells, families: list[Family], rng: np.random.Generator, random: bool
) -> list[np.ndarray]:
    """Positive tables to start from: frequencies of the rows that have the family, or drawn."""
    sizes = cells.sizes
    tables = []
    for family in families:
        shape = [sizes[v] for v in family]
        if random or any(v not in cells.codes for v in family):
            drawn = rng.dirichlet(np.ones(shape[0]), size=shape[1:]) + 1e-6
            tables.append(np.moveaxis(drawn / drawn.sum(-1, keepdims=True), -1, 0))
            continue
        columns = [cells.codes[v] for v in family]
        whole = np.all([column >= 0 for column in columns], axis=0)
        found = counts([column[whole] for column in columns], shape) + 1.0
        tables.append(found / found.sum(0))
    return tables


def em(
    expectation: Expectation,
    tables: list[np.ndarray],
    priors: list[float],
    max_iterations: int,
    tolerance: float,
    bar: Bar,
    done: int = 0,
) -> Estimate:
    """Expected counts, tables that maximise given these, and again (Lauritzen 1995)."""
    log_likelihoods: list[float] = []
    objectives: list[float] = []
    found: list[np.ndarray] = []
    for step in range(max_iterations + 1):
        log_likelihood, expected = expectation(tables)
        log_likelihoods.append(log_likelihood)
        objectives.append(log_likelihood + _log_prior(tables, priors))
        bar.at(done + step, f"{log_likelihood:,.2f} nats")
        converged = step > 0 and (
            objectives[-1] - objectives[-2] <= tolerance * abs(objectives[-1])
        )
        if converged or step == max_iterations:
            break
        found = expected
        tables = maximised(found, priors)
    return Estimate(tables, found, log_likelihoods, objectives, converged)
