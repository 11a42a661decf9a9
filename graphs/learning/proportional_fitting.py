"""Iterative proportional fitting: the log-linear model with given marginals."""

import heapq
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..ancestral import checked_count
from ..exact.clique_tree import CliqueTree
from ..progress import Bar
from ..tables import Variable
from .log_linear import ExactMarginals, LearnedField, checked_number, score
from .marginals import read_marginals
from .scopes import Layout, network, read_observations


def iterative_proportional_fitting(
    model: Any,
    data: Any,
    *,
    states: Mapping[Variable, Any] | None = None,
    tolerance: float = 1e-8,
    max_sweeps: int = 1000,
    progress: bool = True,
) -> LearnedField:
    """The log-linear model over given scopes that has given marginals over each of them.

    From psi = 1, a step takes one scope C,

        psi_C(x_C) <- psi_C(x_C) p(x_C) / q(x_C),

    with p the given marginal, q that of the model as it is now, exact, and 0 / 0 = 0; then the
    model has this marginal. A sweep takes every scope once. No step lowers the log-likelihood, and
    the limit is its maximum: of all distributions with these marginals the one of largest entropy.

    Messages on a clique tree carry the model's marginals along from one scope to the next, so a
    sweep costs about as much as one exact query. Where the scopes are the cliques of a chordal
    graph (a decomposable model) they are taken in a perfect order, and one sweep is all.

    Zeros in the model's tables stay zero; its other entries do not matter.

    Args:
        model: what the scopes are, as in `learn_log_linear`; `list(marginals)` does too.
        data: a DataFrame or the path of a .csv, .csv.gz or .parquet file, a column a variable,
            without missing cells; or the marginals: a mapping from scopes (tuples of variables, in
            any order) to arrays, or a list of such pairs. Counts do too: each array is divided by
            its sum.
        states: of some variables, in order, or their number, where the model has no tables.
        tolerance: the largest difference between a marginal of the model and the given one that is
            taken for none.
        max_sweeps: at most.
        progress: whether to show a bar where it takes more than two seconds.

    Raises:
        FileNotFoundError, ModuleNotFoundError: see `learn_parameters`.
        TypeError: a directed model, no table of data, no mapping of marginals.
        ValueError: an unknown variable or state; a missing cell; a scope that is empty or comes
            twice; a marginal that is missing, of a wrong shape, negative, or that contradicts
            another or a zero of the model.
        MemoryError: a model too dense for exact inference.

    Source: Deming and Stephan (1940); Darroch and Ratcliff (1972); Lauritzen, Graphical Models
        (1996), 4.3; on a clique tree, Jirousek and Preucil (1995).
    """
    tolerance = checked_number(tolerance, "tolerance", least=0.0)
    max_sweeps = checked_count(max_sweeps, 1, "max_sweeps")
    rows: int | None = None
    if isinstance(data, (Mapping, list, tuple)):
        layout, targets = read_marginals(model, data, states)
    else:
        seen = read_observations(model, data, states)
        layout, targets, rows = seen.layout, seen.marginals(), seen.rows
    exact = ExactMarginals(layout)
    fit = Fitting(exact.tree, layout, targets)
    history: list[float] = []
    residual, log_z = np.inf, 0.0
    with Bar("proportional fitting", max_sweeps, progress) as bar:
        while residual > tolerance and len(history) < max_sweeps:
            fit.sweep()
            log_z, found = exact(fit.log_tables)
            residual = max(
                float(np.abs(table - target).max())
                for table, target in zip(found, targets, strict=True)
            )
            held = zip(targets, fit.log_tables, strict=True)
            history.append(sum(score(p.ravel(), table.ravel()) for p, table in held) - log_z)
            bar.at(len(history), f"residual {residual:.1e}")
    if not residual <= tolerance:
        warnings.warn(
            f"iterative_proportional_fitting did not converge: after {max_sweeps:,} sweeps a "
            f"marginal is off by {residual:.2g}, with a tolerance of {tolerance:g}; raise "
            "max_sweeps, or see whether any distribution has these marginals",
            stacklevel=2,
        )
    positive = sum(int((target > 0).sum()) for target in targets)
    return LearnedField(
        model=network(layout, fit.log_tables),
        method="iterative_proportional_fitting",
        rows=rows,
        log_likelihood=history[-1],
        pseudo_log_likelihood=None,
        log_partition=log_z,
        parameters=tuple(fit.log_tables),
        weights=positive,
        unseen=sum(int(support.sum()) for support in layout.supports) - positive,
        l2=0.0,
        iterations=len(history),
        converged=bool(residual <= tolerance),
        residual=residual,
        history=tuple(history),
    )


class Fitting:
    """The steps, with the model's belief over the clique where the last one was.

    The product of the beliefs over the cliques, divided by the tables over the separators, is the
    model throughout; and the belief of the clique `here` is its marginal.

    Args:
        tree: a clique tree that holds every scope.
        layout: scopes, and the entries that are free.
        targets: the marginals, axes in the order of the scopes.
    """

    def __init__(self, tree: CliqueTree, layout: Layout, targets: Sequence[np.ndarray]) -> None:
        self.tree, self.layout, self.targets = tree, layout, targets
        self.log_tables = [np.where(support, 0.0, -np.inf) for support in layout.supports]
        self.holders = [tree.smallest_holder(place) for place in layout.places]
        preorder = _preorder(tree)
        self.order = perfect_order(layout.places) or sorted(
            range(len(targets)), key=lambda f: (preorder[self.holders[f]], f)
        )
        self.beliefs = [np.ones(self._shape(axes)) for axes in tree.axes]
        for holder, place, support in zip(
            self.holders, layout.places, layout.supports, strict=True
        ):
            self.beliefs[holder] *= self._spread(support, place, holder)
        self.shared: list[np.ndarray] = [np.ones(())] * len(tree.axes)
        for clique in reversed(tree.downward):
            self._normalise(clique)
            parent, axes = tree.parents[clique], tree.separators[clique]
            if parent >= 0:
                self.shared[clique] = self._sum(clique, axes)
                self.beliefs[parent] *= self._spread(self.shared[clique], axes, parent)
        self.root_of = [0] * len(tree.axes)
        for clique in tree.downward:
            parent = tree.parents[clique]
            self.root_of[clique] = clique if parent < 0 else self.root_of[parent]
        self.here = {root: root for root in self.root_of}
        """By root, where the last step in its component was."""

    def sweep(self) -> None:
        """A step for each scope.

        Raises:
            ValueError: the model cannot have a marginal, since it is zero where that is not.
        """
        for factor in self.order:
            self._go(self.holders[factor])
            self._step(factor)

    def _step(self, factor: int) -> None:
        holder, place = self.holders[factor], self.layout.places[factor]
        target = self.targets[factor]
        now = self._sum(holder, place)
        if (now[target > 0] <= 0).any():
            self._refuse(factor, (target > 0) & (now <= 0))
        ratio = np.divide(target, now, out=np.zeros_like(now), where=target > 0)
        with np.errstate(divide="ignore"):
            self.log_tables[factor] = self.log_tables[factor] + np.log(ratio)
        self.beliefs[holder] *= self._spread(ratio, place, holder)
        self._normalise(holder)

    def _go(self, goal: int) -> None:
        """Carry the model's marginals along the tree, from where the last step was."""
        root = self.root_of[goal]
        parents, at = self.tree.parents, self.here[root]
        above = {goal}
        down = [goal]
        while parents[down[-1]] >= 0:
            down.append(parents[down[-1]])
            above.add(down[-1])
        while at not in above:
            self._pass(at, parents[at], at)
            at = parents[at]
        for clique in reversed(down[: down.index(at)]):
            self._pass(parents[clique], clique, clique)
        self.here[root] = goal

    def _pass(self, source: int, goal: int, edge: int) -> None:
        """A message between neighbours; an edge has the number of its lower clique."""
        axes = self.tree.separators[edge]
        new, old = self._sum(source, axes), self.shared[edge]
        ratio = np.divide(new, old, out=np.zeros_like(new), where=old > 0)
        self.beliefs[goal] *= self._spread(ratio, axes, goal)
        self._normalise(goal)
        self.shared[edge] = new

    def _normalise(self, clique: int) -> None:
        total = self.beliefs[clique].sum()
        if total > 0:
            self.beliefs[clique] /= total

    def _shape(self, axes: Sequence[int]) -> list[int]:
        return [self.tree.cardinalities[v] for v in axes]

    def _sum(self, clique: int, scope: Sequence[int]) -> np.ndarray:
        """The belief summed to a scope, axes in the scope's order."""
        axes = self.tree.axes[clique]
        kept = [v for v in axes if v in scope]
        table = self.beliefs[clique].sum(tuple(i for i, v in enumerate(axes) if v not in scope))
        return table.transpose([kept.index(v) for v in scope])

    def _spread(self, table: np.ndarray, scope: Sequence[int], clique: int) -> np.ndarray:
        """A table over a scope with the axes of a clique."""
        axes = self.tree.axes[clique]
        ordered = [v for v in axes if v in scope]
        shape = [self.tree.cardinalities[v] if v in scope else 1 for v in axes]
        return table.transpose([list(scope).index(v) for v in ordered]).reshape(shape)

    def _refuse(self, factor: int, bad: np.ndarray) -> None:
        at = tuple(np.argwhere(bad)[0].tolist())
        raise ValueError(
            f"no model over these scopes has these marginals: {self.layout.named(factor, at)} has "
            f"probability {self.targets[factor][at]:.3g}, but zeros of the model or of other "
            "marginals leave it none"
        )


def perfect_order(places: Sequence[tuple[int, ...]]) -> list[int] | None:
    """An order in which each scope meets all earlier ones inside a single one, None without one.

    The greedy tree of largest intersections is a join tree wherever there is one.

    Source: Maier (1983); Lauritzen, Graphical Models (1996), 2.1.3.
    """
    sets = [frozenset(place) for place in places]
    holding: dict[int, list[int]] = {}
    for number, scope in enumerate(sets):
        for v in scope:
            holding.setdefault(v, []).append(number)
    order: list[int] = []
    done: set[int] = set()
    covered: set[int] = set()
    for start in range(len(sets)):
        waiting = [(0, start, start)]  # least first: the size of the intersection, the scope, with
        while waiting:
            _, number, neighbour = heapq.heappop(waiting)
            if number in done:
                continue
            if not sets[number] & covered <= sets[neighbour]:
                return None
            order.append(number)
            done.add(number)
            covered |= sets[number]
            near = {other for v in sets[number] for other in holding[v]} - done
            for other in near:
                heapq.heappush(waiting, (-len(sets[number] & sets[other]), other, number))
    return order


def _preorder(tree: CliqueTree) -> list[int]:
    """The number of each clique in a walk from the roots that goes down before it goes on."""
    numbers, count = [0] * len(tree.axes), 0
    waiting = [clique for clique in reversed(tree.downward) if tree.parents[clique] < 0]
    while waiting:
        clique = waiting.pop()
        numbers[clique] = count
        count += 1
        waiting += reversed(tree.children[clique])
    return numbers
