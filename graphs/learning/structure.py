"""Structures from data: search by a score, tests of independence, trees."""

import math
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import networkx as nx
import numpy as np

from ..ancestral import checked_count
from ..names import unknown
from ..progress import Bar
from ..tables import Variable, refuse_cycles
from .comparison import cpdag
from .counts import Cells, read_cells
from .hill_climbing import HillClimbing
from .scores import SCORES, FamilyScores

Arc = tuple[Variable, Variable]
LEAST_ROWS = 10
WANDER = 4  # random steps before each climb after the first
SHOWN = 60  # variables whose parents are printed


@dataclass(frozen=True, eq=False)
class LearnedStructure:
    """A directed acyclic graph that was learned from data."""

    graph: nx.DiGraph = field(repr=False)
    """Over the columns of the data."""
    cpdag: nx.DiGraph = field(repr=False)
    """What is known of it: of an arc that could as well be turned round both directions are there.
    For "pc" the pattern as the tests left it."""
    score: float
    """Of `graph`, in nats."""
    score_name: str
    method: str
    rows: int
    families: int
    """How many families were counted and scored; 0 where pgmpy searched."""

    def __str__(self) -> str:
        undirected = sum(1 for u, v in self.cpdag.edges if self.cpdag.has_edge(v, u)) // 2
        lines = [
            f"{self.method}: {len(self.graph.edges)} arcs over {len(self.graph)} variables from "
            f"{self.rows:,} rows, {undirected} of them without a direction that data can tell",
            f"{self.score_name} {self.score:,.2f} nats, {self.score / self.rows:.4f} a row",
        ]
        for node in list(self.graph)[:SHOWN]:
            parents = ", ".join(str(parent) for parent in self.graph.predecessors(node))
            lines.append(f"  {node}" + (f" <- {parents}" if parents else ""))
        more = len(self.graph) - SHOWN
        return "\n".join(lines + ([f"  ... and {more} more"] if more > 0 else []))


def learn_structure(
    data: Any,
    *,
    method: str = "hill_climb",
    score: str = "bic-d",
    equivalent_sample_size: float = 10.0,
    max_parents: int | None = None,
    required: Collection[Arc] = (),
    forbidden: Collection[Arc] = (),
    restarts: int = 40,
    tabu: int = 0,
    significance_level: float = 0.01,
    max_conditions: int = 5,
    states: Mapping[Variable, Any] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> LearnedStructure:
    """A directed acyclic graph over the columns of complete data.

    - "hill_climb": the step of one arc that gains most, until none gains; then from an equivalent
      graph, a few random steps off, again (Koller and Friedman 2009, 18.4.3). A local optimum.
    - "ges": greedy search over equivalence classes (Chickering 2002), by pgmpy. Slow from some 20
      variables on.
    - "pc": chi-square tests of conditional independence (Spirtes, Glymour and Scheines 2000), by
      pgmpy. `graph` is an extension of the pattern found; where it has none, a warning says how
      many arcs were turned.
    - "chow_liu": the tree that maximises the likelihood, by mutual information (Chow and Liu 1968),
      its arcs pointing away from the first variable.

    Args:
        data: a DataFrame or the path of a .csv, .csv.gz or .parquet file, as `read_cells` has it.
        method: one of the four above.
        score: "bic-d", "aic-d", "bdeu" or "k2"; what "hill_climb" and "ges" maximise, and what is
            reported for all.
        equivalent_sample_size: of "bdeu".
        max_parents: of a variable at most, for "hill_climb".
        required, forbidden: arcs that must, or must not, be there, for "hill_climb".
        restarts: climbs after the first, for "hill_climb".
        tabu: steps past a top before a climb ends, for "hill_climb".
        significance_level: of the tests of "pc".
        max_conditions: variables that a test of "pc" conditions on at most.
        states: of some variables, in order, or their number; by default those that occur.
        seed: of the restarts.
        progress: whether to show a bar where it takes more than two seconds.

    Raises:
        FileNotFoundError, ModuleNotFoundError, TypeError: see `read_cells`.
        ValueError: missing cells, fewer than ten rows or two columns, a column of one value for
            "pc", arcs that contradict each other, an unknown name, an option that the method has
            not, or what `read_cells` refuses.
    """
    searches: dict[str, Callable[[], Any]] = {
        "hill_climb": lambda: _hill_climb(
            scores, names, max_parents, required, forbidden, restarts, tabu, seed, progress
        ),
        "ges": lambda: _ges(cells, score, equivalent_sample_size),
        "pc": lambda: _pc(cells, significance_level, max_conditions),
        "chow_liu": lambda: _chow_liu(cells),
    }
    if method not in searches:
        raise ValueError(unknown("method", method, searches))
    if score not in SCORES:
        raise ValueError(unknown("score", score, SCORES))
    if not (equivalent_sample_size > 0 and math.isfinite(equivalent_sample_size)):
        raise ValueError(
            f"equivalent_sample_size must be a positive number; got {equivalent_sample_size!r}"
        )
    if not 0 < significance_level < 1:
        raise ValueError(f"significance_level must lie in (0, 1); got {significance_level!r}")
    constrained = max_parents is not None or len(required) or len(forbidden)
    if method != "hill_climb" and constrained:
        raise ValueError(
            f'max_parents, required and forbidden are for method="hill_climb"; got {method!r}'
        )
    checked_count(max_conditions, 0, "max_conditions")
    cells = read_cells(data, states=states)
    _check(cells, method)
    names = list(cells.states)
    scores = FamilyScores(cells, score, equivalent_sample_size)
    graph = searches[method]()
    pattern = graph if method == "pc" else cpdag(graph)
    if method == "pc":
        graph = _extension(pattern)
    place = {name: i for i, name in enumerate(names)}
    total = sum(scores(place[v], [place[p] for p in graph.predecessors(v)]) for v in names)
    searched = scores.counted if method == "hill_climb" else 0
    return LearnedStructure(graph, pattern, total, score, method, cells.rows, searched)


def _check(cells: Cells, method: str) -> None:
    for variable, missing in cells.missing.items():
        raise ValueError(
            f"{variable} lacks {missing:,} of {cells.rows:,} cells: structures are learned from "
            "complete rows; drop rows or fill cells (learn_parameters takes missing cells)"
        )
    if cells.rows < LEAST_ROWS or len(cells.states) < 2:
        raise ValueError(
            f"{cells.rows} rows of {len(cells.states)} columns are too few to learn a structure "
            f"from: at least {LEAST_ROWS} rows of 2 columns are needed"
        )
    if method == "pc":
        for variable, codes in cells.codes.items():
            if (codes == codes[0]).all():
                raise ValueError(
                    f"{variable} has the same state in every row, so nothing can be tested on it: "
                    "drop the column"
                )


def _graph(names: Collection[Variable], arcs: Any) -> nx.DiGraph:
    graph: nx.DiGraph = nx.DiGraph()
    graph.add_nodes_from(names)
    graph.add_edges_from(arcs)
    return graph


# Searches -----------------------------------------------------------------------------------------


def _hill_climb(
    scores: FamilyScores,
    names: list[Variable],
    max_parents: int | None,
    required: Collection[Arc],
    forbidden: Collection[Arc],
    restarts: int,
    tabu: int,
    seed: int,
    progress: bool,
) -> nx.DiGraph:
    most = len(names) if max_parents is None else checked_count(max_parents, 0, "max_parents")
    restarts, tabu = checked_count(restarts, 0, "restarts"), checked_count(tabu, 0, "tabu")
    must, refused = (_marked(arcs, names) for arcs in (required, forbidden))
    refuse_cycles(_graph(names, required), "required arcs")
    if (must & refused).any():
        u, v = np.argwhere(must & refused)[0]
        raise ValueError(f"the arc {names[u]} -> {names[v]} is both required and forbidden")
    if (must.sum(0) > most).any():
        v = int(np.argmax(must.sum(0)))
        raise ValueError(f"{names[v]} has more required parents than max_parents={most}")
    # An arc at a variable of one state changes no score, so that no step would take it away again.
    free = np.array(scores.sizes) > 1
    allowed = ~refused & ~np.eye(len(names), dtype=bool) & np.outer(free, free)
    rng = np.random.default_rng(seed)
    with Bar("climbing", restarts + 1, progress) as bar:
        search = HillClimbing(scores, allowed, must, most)
        best, arcs = -math.inf, search.arcs
        for climb in range(restarts + 1):
            if climb:
                search.wander(arcs, WANDER, rng)
            value, found = search.climb(tabu, lambda: bar.at(climb, f"{best:,.1f}"))  # noqa: B023
            if value > best - 1e-6:  # an equal one, so that the walk goes on
                best, arcs = max(value, best), found
    return _graph(names, [(names[u], names[v]) for u, v in np.argwhere(arcs)])


def _marked(arcs: Collection[Arc], names: list[Variable]) -> np.ndarray:
    marked = np.zeros((len(names), len(names)), bool)
    for arc in arcs:
        if not isinstance(arc, (tuple, list)) or len(arc) != 2:
            raise TypeError(f"an arc is a pair (parent, child); got {arc!r}")
        for name in arc:
            if name not in names:
                raise ValueError(unknown("variable", name, names))
        marked[names.index(arc[0]), names.index(arc[1])] = True
    return marked


def _chow_liu(cells: Cells) -> nx.DiGraph:
    names = list(cells.states)
    fit = FamilyScores(cells, "log-likelihood")
    pairs: nx.Graph = nx.Graph()
    pairs.add_nodes_from(range(len(names)))
    for v in range(len(names)):
        alone, earlier = fit(v, ()), range(v)
        for u, together in zip(earlier, fit.with_each(v, (), earlier), strict=True):
            pairs.add_edge(u, v, weight=together - alone)  # rows times mutual information
    tree = nx.maximum_spanning_tree(pairs)
    arcs = nx.bfs_edges(tree, 0)
    return _graph(names, [(names[u], names[v]) for u, v in arcs])


def _encoded(cells: Cells) -> Any:
    """The data as pgmpy is sure to take it: sortable names, integers as states."""
    import pandas as pd

    return pd.DataFrame(
        {
            f"{i:06d}": pd.Categorical.from_codes(cells.codes[v], list(range(len(states))))
            for i, (v, states) in enumerate(cells.states.items())
        }
    )


def _named(found: Any, cells: Cells) -> nx.DiGraph:
    """A graph over the encoded columns, over the true ones, in their order."""
    names = list(cells.states)
    arcs = sorted((int(tail), int(head)) for tail, head in found)
    return _graph(names, [(names[tail], names[head]) for tail, head in arcs])


def _ges(cells: Cells, score: str, equivalent_sample_size: float) -> nx.DiGraph:
    from pgmpy.causal_discovery import GES
    from pgmpy.structure_score import AIC, BIC, K2, BDeu

    frame = _encoded(cells)
    names = {str(column): list(frame[column].cat.categories) for column in frame}
    if score == "bdeu":
        scoring: Any = BDeu(frame, equivalent_sample_size, state_names=names)
    else:
        scoring = {"bic-d": BIC, "aic-d": AIC, "k2": K2}[score](frame, state_names=names)
    pattern = _named(GES(scoring_method=scoring).fit(frame).causal_graph_.edges(), cells)
    return _extension(pattern)


def _pc(cells: Cells, significance_level: float, max_conditions: int) -> nx.DiGraph:
    from pgmpy.causal_discovery import PC

    search = PC(
        variant="stable",
        ci_test="chi_square",
        significance_level=significance_level,
        max_cond_vars=max_conditions,
        n_jobs=1,
        show_progress=False,
    )
    return _named(search.fit(_encoded(cells)).causal_graph_.edges(), cells)


def _extension(pattern: nx.DiGraph) -> nx.DiGraph:
    """A directed acyclic graph with the arcs and v-structures of a pattern (Dor and Tarsi 1992).

    Where there is none, the arcs that stand in the way are turned, and a warning counts them.
    """
    left = pattern.copy()
    arcs: list[Arc] = []
    turned = 0
    while len(left):
        sink = next((node for node in left if _is_sink(left, node)), None)
        if sink is None:  # the node with the fewest arcs that must be turned
            out = {v: sum(not left.has_edge(w, v) for w in left.successors(v)) for v in left}
            sink = min(out, key=lambda v: out[v])
            turned += out[sink]
        into = {*left.predecessors(sink), *left.successors(sink)}
        arcs += [(other, sink) for other in pattern if other in into]
        left.remove_node(sink)
    if turned:
        warnings.warn(
            f"no directed acyclic graph has this pattern; {turned} of its arcs were turned",
            stacklevel=3,
        )
    return _graph(pattern.nodes, arcs)


def _is_sink(graph: nx.DiGraph, node: Variable) -> bool:
    """Whether all edges of a node can point at it without a new v-structure or cycle."""
    parents, children = set(graph.predecessors(node)), set(graph.successors(node))
    if children - parents:
        return False
    near = parents | children
    return all(
        near - {other} <= {*graph.predecessors(other), *graph.successors(other)}
        for other in children
    )
