"""The Markov properties of a graph, checked on the numbers of a small model.

Of a distribution over the nodes of an undirected graph they say (Lauritzen 1996, section 3.2.1):

    pairwise    a ⟂ b | all others                 for every two nodes that are not adjacent
    local       a ⟂ all others | neighbours of a   for every node
    global      A ⟂ B | S                          for all sets of which S separates A from B

The global one implies the local one, which implies the pairwise one; in positive distributions the
three are equivalent (Pearl and Paz 1987).
"""

import html
import math
from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import networkx as nx
import numpy as np

from ..directed import _short
from ..exact.elimination_record import columns
from ..names import unknown
from ..progress import Bar
from ..tables import Variable
from .cliques import maximal_cliques, undirected_graph
from .energies import one_field
from .separation import boundary, components, minimal_separators

Node = Hashable
LARGEST_JOINT = 2**20  # cells
AXES = 64  # of an array of NumPy's
WORK = 2**30  # multiplications, about, of the equations that decide on a factorisation
MANY = 10_000  # statements of the global property
KINDS = "pairwise", "local", "global"


@dataclass(frozen=True)
class MarkovStatement:
    """The parts are mutually independent given the other nodes named, and whether that holds.

    Attributes:
        kind: "pairwise", "local" or "global": the property that states it.
        parts: two sets of nodes or more.
        given: what they are independent given.
        deviation: the largest |P(parts | given) - prod_i P(part_i | given)| over all their states
            and those states of `given` that have a positive probability.
        holds: the deviation is within the tolerance.
    """

    kind: str
    parts: tuple[tuple[Node, ...], ...]
    given: tuple[Node, ...]
    deviation: float
    holds: bool

    def __str__(self) -> str:
        said = " ⟂ ".join(", ".join(str(node) for node in part) for part in self.parts)
        return said + (f" | {', '.join(str(node) for node in self.given)}" if self.given else "")


@dataclass(frozen=True)
class MarkovProperties:
    """Which Markov properties of a graph a model has; `print` shows every statement.

    Attributes:
        statements: the pairwise ones, then the local ones, then the global ones.
        positive: whether every assignment has a positive probability.
        factorises: whether P is a product over the maximal cliques of the graph; None where to find
            out would take more than a few seconds.
        tolerance: up to which deviation a statement holds.
    """

    statements: tuple[MarkovStatement, ...]
    positive: bool
    factorises: bool | None
    tolerance: float

    @property
    def holding(self) -> dict[str, bool]:
        """By kind whether the property holds, for those that were checked."""
        checked = {kind: self.of(kind) for kind in KINDS}
        return {kind: all(s.holds for s in found) for kind, found in checked.items()}

    def of(self, kind: str) -> tuple[MarkovStatement, ...]:
        """The statements of one property.

        Raises:
            ValueError: no such property.
        """
        if kind not in KINDS:
            raise ValueError(unknown("Markov property", kind, KINDS))
        return tuple(statement for statement in self.statements if statement.kind == kind)

    @property
    def verdict(self) -> str:
        """What it comes to."""
        holding = self.holding
        said = {
            True: "P factorises over the maximal cliques of the graph",
            False: "P does not factorise over the maximal cliques of the graph",
            None: "Whether P factorises over the maximal cliques of the graph was not checked",
        }[self.factorises]
        if self.positive:
            return f"{said}. It is positive, so this and the three properties are equivalent."
        if self.factorises is False and holding["global"]:
            said += ", though it has the Markov properties"
        return f"{said}. It is not positive, so none of the three properties implies this."

    def __str__(self) -> str:
        lines = []
        for kind in KINDS:
            found = self.of(kind)
            held = sum(statement.holds for statement in found)
            worst = max((statement.deviation for statement in found), default=0.0)
            said = "holds" if held == len(found) else "does NOT hold"
            lines.append(
                f"The {kind} Markov property {said}: {held:,} of {len(found):,} statements, "
                f"largest deviation {worst:.2g}"
            )
            rows = [
                (
                    f"  {statement}",
                    "holds" if statement.holds else "FAILS",
                    f"{statement.deviation:.2g}",
                )
                for statement in found
            ]
            lines += [*(columns(rows) if rows else []), ""]
        return "\n".join([*lines, self.verdict])

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def markov_properties(
    model: Any, graph: Any = None, *, tolerance: float = 1e-9, progress: bool = True
) -> MarkovProperties:
    """Check the pairwise, local and global Markov properties on the joint table of a small model.

    A statement is checked as P(parts | given) = prod_i P(part_i | given) wherever P(given) > 0,
    which is P(a, b, c) P(c) = P(a, c) P(b, c) for two parts, so that zeros do no harm. All sums are
    of logarithms, so that nothing underflows.

    Of the global property, which has exponentially many statements, those are checked that imply
    all the others: for each minimal separator S that the components of the graph without S are
    mutually independent given S. (Let C be a component of the graph without any set T. Another
    component D of the graph without C's neighbours N(C) has its own neighbours N(D) within N(C), so
    both C and D touch all of N(D), which is thus a minimal separator: D ⟂ rest | N(D) is checked,
    and gives D ⟂ rest | N(C) by weak union. With that for every D also C ⟂ rest | N(C), and
    C ⟂ rest | T by weak union; with that for every C the components are mutually independent given
    T. None of this needs the distribution to be positive.)

    P factorises over the maximal cliques exactly if log P is a sum of functions of the cliques
    wherever P > 0, and if P is zero only where the states of some clique have probability zero.

    Args:
        model: a Markov network, a `FactorGraph`, or factors, of at most 2**20 assignments; with
            `graph`, a Bayesian network as well.
        graph: the undirected graph whose properties are checked, over the same nodes; by default
            the model's own.
        tolerance: up to which deviation a statement holds.
        progress: show a bar where it takes more than a few seconds.

    Raises:
        TypeError: the graph is directed.
        ValueError: the nodes differ, too many assignments or separators, no assignment is possible,
            a tolerance that is not positive.
    """
    if not (isinstance(tolerance, (int, float, np.number)) and tolerance > 0):
        raise ValueError(f"the tolerance must be a positive number; got {tolerance!r}")
    asked = undirected_graph(model if graph is None else graph)
    logs, variables = _log_joint(model)
    _refuse_others(asked, variables)
    posed = list(_posed(asked))
    place = {variable: i for i, variable in enumerate(variables)}
    statements = []
    with Bar("checking the Markov properties", len(posed), progress) as bar:
        for done, (kind, parts, given) in enumerate(posed):
            bar.at(done)
            axes = [tuple(place[node] for node in part) for part in parts]
            worst = _deviation(logs, axes, tuple(place[node] for node in given))
            statements.append(MarkovStatement(kind, parts, given, worst, worst <= tolerance))
    scopes = [tuple(place[node] for node in clique) for clique in maximal_cliques(asked)]
    positive, product = not np.isneginf(logs).any(), _factorises(logs, scopes, tolerance)
    return MarkovProperties(tuple(statements), positive, product, tolerance)


def _log_joint(model: Any) -> tuple[np.ndarray, tuple[Variable, ...]]:
    """log of the product of all factors, one axis a variable, and the variables."""
    graph = one_field(model)
    cells, variables = math.prod(graph.cardinalities.values()), graph.variables
    if cells > LARGEST_JOINT or len(variables) > AXES:
        raise ValueError(
            f"the joint table of {len(variables)} variables has {_short(cells)} cells; expected at "
            f"most {LARGEST_JOINT:,} cells of {AXES} variables: check a part of the model"
        )
    logs = np.zeros([*graph.cardinalities.values()])
    place = {variable: i for i, variable in enumerate(variables)}
    for scope, table in graph.factors:
        table = np.asarray(table.detach().cpu() if hasattr(table, "detach") else table)
        order = sorted(range(len(scope)), key=lambda axis: place[scope[axis]])
        shape = [graph.cardinalities[v] if v in scope else 1 for v in variables]
        logs = logs + table.transpose(order).reshape(shape)
    if np.isneginf(logs).all():
        raise ValueError("no assignment is possible: the product of the factors is zero everywhere")
    return logs, variables


def _posed(graph: nx.Graph) -> Iterator[tuple[str, tuple[tuple[Node, ...], ...], tuple[Node, ...]]]:
    """The statements: kind, parts, given."""
    for a, b in combinations(graph, 2):
        if b not in graph[a]:
            yield "pairwise", ((a,), (b,)), tuple(node for node in graph if node not in (a, b))
    for node in graph:
        near = boundary(graph, [node])
        rest = tuple(other for other in graph if other != node and other not in near)
        if rest:
            yield "local", ((node,), rest), near
    for separator in minimal_separators(graph, MANY):
        yield "global", tuple(components(graph, separator)), separator


def _deviation(logs: np.ndarray, parts: Sequence[tuple[int, ...]], given: tuple[int, ...]) -> float:
    """max |P(parts | given) - prod_i P(part_i | given)| over the states with P(given) > 0."""
    condition = _margin(logs, given)
    base = np.where(np.isneginf(condition), 0.0, condition)  # both sides are zero where it is
    together = _margin(logs, {*given}.union(*parts)) - base
    apart = sum((_margin(logs, {*part, *given}) - base for part in parts), np.zeros(()))
    return float(np.abs(np.exp(together) - np.exp(apart)).max())


def _factorises(
    logs: np.ndarray, cliques: Sequence[tuple[int, ...]], tolerance: float
) -> bool | None:
    """Whether exp(logs) is a product of one table a clique; None where that is too much work."""
    allowed = np.zeros(logs.shape)
    for clique in cliques:
        allowed = np.minimum(allowed, _margin(logs, clique))
    if (np.isneginf(logs) & ~np.isneginf(allowed)).any():
        return False  # each clique's table must be positive at its states here, so must the product
    possible = ~np.isneginf(logs)
    wanted = logs[possible]
    sizes = [math.prod(logs.shape[axis] for axis in clique) for clique in cliques]
    if len(wanted) * sum(sizes) ** 2 > WORK:
        return None
    states = np.nonzero(possible)
    equations = np.zeros((len(wanted), sum(sizes)))  # which entries of the tables make up each row
    for start, clique in zip(np.cumsum([0, *sizes]), cliques, strict=False):
        places = np.ravel_multi_index(
            [states[axis] for axis in clique], [logs.shape[axis] for axis in clique]
        )
        equations[np.arange(len(wanted)), start + places] = 1.0
    found = np.linalg.lstsq(equations, wanted)[0]
    return bool(np.abs(equations @ found - wanted).max() <= tolerance * (1 + np.ptp(wanted)))


def _margin(logs: np.ndarray, kept: Collection[int]) -> np.ndarray:
    """log of the sum over the other axes, which stay with length 1."""
    axes = tuple(axis for axis in range(logs.ndim) if axis not in kept)
    if not axes:
        return logs
    top = logs.max(axes, keepdims=True)
    top = np.where(np.isneginf(top), 0.0, top)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(logs - top).sum(axes, keepdims=True)) + top


def _refuse_others(graph: nx.Graph, variables: Collection[Variable]) -> None:
    known = set(variables)
    for node in graph:
        if node not in known:
            said = unknown("variable", node, variables)
            raise ValueError(f"the graph has a node that is no variable of the model: {said}")
    missing = [str(variable) for variable in variables if variable not in graph]
    if missing:
        raise ValueError(
            f"the graph must have a node for every variable of the model; it has none for "
            f"{', '.join(missing[:8])}" + (f" and {len(missing) - 8} more" if missing[8:] else "")
        )
