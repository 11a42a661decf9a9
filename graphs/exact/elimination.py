"""Variable elimination to look at: each product and sum, known before any table is made."""

import math
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from ..evidence import encode
from ..names import unknown
from ..tables import Tables, Variable, tables_of
from .elimination_record import Elimination, RunningIntersection, Scope, Step, some

__all__ = ["Elimination", "RunningIntersection", "Step", "eliminate", "elimination_steps"]

LIMIT = 2**27  # cells of a table: one GiB


class _Problem(NamedTuple):
    """A question about a model, with names checked."""

    tables: Tables
    query: Scope
    codes: dict[Variable, int]  # of the observed variables
    hidden: Scope  # neither asked for nor observed

    def free(self, scope: Iterable[Variable]) -> Scope:
        return tuple(variable for variable in scope if variable not in self.codes)

    def shown(self, variable: Variable) -> str:
        if variable not in self.codes:
            return str(variable)
        return f"{variable}={self.tables.states[variable][self.codes[variable]]}"

    def written(self, scope: Scope) -> str:
        """A factor of the model: p(A | B, C=c) or f(A, B, C=c)."""
        names = [self.shown(variable) for variable in scope]
        if not self.tables.directed:
            return f"f({some(names)})"
        return f"p({names[0]}{' | ' if names[1:] else ''}{some(names[1:])})"

    def neighbours(self) -> dict[Variable, set[Variable]]:
        """Who shares a factor with whom, among the unobserved variables."""
        near: dict[Variable, set[Variable]] = {v: set() for v in (*self.hidden, *self.query)}
        for scope, _ in self.tables.factors:
            free = self.free(scope)
            for variable in free:
                near[variable].update(free)
        for variable, others in near.items():
            others.discard(variable)
        return near


def eliminate(
    model: Any, query: Any, evidence: Any = None, order: Iterable[Variable] | None = None
) -> Elimination:
    """p(query | evidence) by variable elimination, with all that happens on the way.

    Step by step the tables that mention a variable are multiplied, and it is summed out of their
    product; what is left in the end is multiplied and normalised (Koller & Friedman, Probabilistic
    Graphical Models, algorithm 9.1). Evidence is first set in every table. Tables are kept as
    logarithms, so that nothing underflows. `JunctionTree` is faster, and answers for all variables
    and many rows at once::

        found = graphs.eliminate(graphs.load("asia"), "lung", {"xray": "yes"})
        print(found)
        found.draw("steps.png")

    Args:
        model: whatever `graphs.tables.tables_of` takes.
        query: a variable or a sequence of them; an empty one asks for the evidence alone.
        evidence: a dict from variables to states, None where one is unobserved.
        order: the variables that are neither asked for nor observed, each once; by default the
            greedy min-fill order.

    Raises:
        ValueError: unknown or repeated names, a query that is observed, an order that lists other
            variables, more than one row of evidence, or impossible evidence.
        TypeError: no model, a query or an order without a sequence.
        MemoryError: a table of more than 2**27 cells; none is made then.
    """
    problem = _posed(model, query, evidence)
    given = None if order is None else _checked(problem, order)
    *steps, last = _steps(problem, _min_fill(problem) if given is None else given)
    _refuse_large(problem, [*steps, last], given is not None)
    logs = _result(problem, [*steps, last])
    top = logs.max()
    if top == -np.inf:
        raise ValueError(_impossible(problem))
    posterior = np.exp(logs - top)
    total = posterior.sum()
    states = problem.tables.states
    return Elimination(
        problem.query,
        {variable: states[variable] for variable in problem.query},
        {variable: states[variable][code] for variable, code in problem.codes.items()},
        tuple(steps),
        last,
        (posterior / total).reshape([len(states[variable]) for variable in problem.query]),
        float(top + np.log(total)) + problem.tables.log_scale,
    )


def elimination_steps(
    model: Any, query: Any, evidence: Any = None, order: Iterable[Variable] | None = None
) -> tuple[Step, ...]:
    """What `eliminate` would do, the last product included, without making any table.

    Arguments and errors are those of `eliminate`; nothing is too large.
    """
    problem = _posed(model, query, evidence)
    return tuple(_steps(problem, _min_fill(problem) if order is None else _checked(problem, order)))


# The question


def _posed(model: Any, query: Any, evidence: Any) -> _Problem:
    tables = tables_of(model)
    codes, rows = encode(tables, evidence)
    if rows is not None:
        raise ValueError(
            f"eliminate takes one row of evidence, a state a variable; got {rows} rows. "
            "graphs.JunctionTree answers for many"
        )
    observed = {variable: int(code[0]) for variable, code in codes.items() if code[0] >= 0}
    wanted = _wanted(tables, query)
    for variable in wanted:
        if variable not in tables.states:
            raise ValueError(unknown("variable", variable, tables.states))
        if variable in observed:
            raise ValueError(f"{variable} is asked for and observed; leave it out of one of them")
        if wanted.count(variable) > 1:
            raise ValueError(f"the query names {variable} twice")
    hidden = tuple(v for v in tables.states if v not in observed and v not in wanted)
    return _Problem(tables, wanted, observed, hidden)


def _wanted(tables: Tables, query: Any) -> Scope:
    try:
        if query in tables.states:  # a tuple may be a variable
            return (query,)
    except TypeError:  # a list cannot be
        pass
    if isinstance(query, (set, frozenset)):
        raise TypeError(
            "a set has no order for the axes of the posterior; give the query as a list"
        )
    if isinstance(query, (str, bytes)) or not isinstance(query, Iterable):
        raise ValueError(unknown("variable", query, tables.states))
    return tuple(query)


def _checked(problem: _Problem, order: Iterable[Variable]) -> Scope:
    if isinstance(order, (str, bytes, set, frozenset)) or not isinstance(order, Iterable):
        raise TypeError(f"order must be a sequence of variables; got {type(order).__name__}")
    given = tuple(order)
    hidden, seen = set(problem.hidden), set()
    for variable in given:
        if variable not in problem.tables.states:
            raise ValueError("order: " + unknown("variable", variable, problem.hidden))
        if variable not in hidden:
            said = "observed" if variable in problem.codes else "asked for"
            raise ValueError(f"order names {variable}, which is {said} and is not summed out")
        if variable in seen:
            raise ValueError(f"order names {variable} twice")
        seen.add(variable)
    missing = [variable for variable in problem.hidden if variable not in seen]
    if missing:
        raise ValueError(
            f"order leaves out {some(missing)}; it must name every variable that is neither asked "
            "for nor observed"
        )
    return given


def _min_fill(problem: _Problem) -> list[Variable]:
    """The greedy min-fill order, the smaller table first among equals (K&F, algorithm 9.4).

    The query's variables count as neighbours but are never taken. An order of the whole graph, or
    of the graph without them, leaves tables that are several times as large.
    """
    near, cards = problem.neighbours(), problem.tables.cardinalities

    def cost(variable: Variable) -> tuple[int, int]:
        around = near[variable]
        fill = sum(b not in near[a] for a, b in combinations(around, 2))
        return fill, cards[variable] * math.prod(cards[v] for v in around)

    costs = {variable: cost(variable) for variable in problem.hidden}
    order = []
    while costs:
        taken = min(costs, key=costs.__getitem__)
        del costs[taken]
        order.append(taken)
        around = near.pop(taken)
        for variable in around:
            near[variable] = (near[variable] | around) - {variable, taken}
        for variable in around.union(*(near[v] for v in around)) & costs.keys():
            costs[variable] = cost(variable)
    return order


def _impossible(problem: _Problem) -> str:
    if not problem.codes:
        return "no assignment is possible: the product of the model's tables is zero everywhere"
    return (
        f"the evidence is impossible: {some([problem.shown(v) for v in problem.codes])} has "
        "probability zero; graphs.JunctionTree(model).query(evidence) names a smallest conflict"
    )


# The steps


def _steps(problem: _Problem, order: Iterable[Variable]) -> list[Step]:
    """All products and sums by their scopes alone, so that their cost is known before any table."""
    tables, near = problem.tables, problem.neighbours()
    cards, first = tables.cardinalities, len(tables.factors)  # messages are numbered from there
    rank = {variable: i for i, variable in enumerate(tables.states)}
    pool = {
        i: (problem.free(scope), problem.written(scope))
        for i, (scope, _) in enumerate(tables.factors)
    }
    steps: list[Step] = []
    for variable in (*order, None):
        used = [i for i, (scope, _) in pool.items() if variable is None or variable in scope]
        joined = [pool.pop(i) for i in used]
        near_by = {v for scope, _ in joined for v in scope} - {variable}
        left = tuple(sorted(near_by, key=rank.__getitem__))
        name = f"m{len(steps) + 1}"
        name += f"({some(left)})" if left else ""
        if variable is None:
            left = problem.query
            observed = [problem.shown(v) for v in problem.codes]
            observed = observed if len(observed) <= 3 else ["evidence"]
            name = f"p({some([*left, *observed])})" if tables.directed else f"m({some(left)})"
        scope = left if variable is None else (variable, *left)
        fill = tuple((a, b) for a, b in combinations(left, 2) if b not in near[a])
        for a, b in fill:
            near[a].add(b)
            near[b].add(a)
        pool[first + len(steps)] = left, name
        steps.append(
            Step(
                variable,
                tuple(i for i in used if i < first),
                tuple(i - first for i in used if i >= first),
                tuple(scope for scope, _ in joined),
                tuple(text for _, text in joined),
                scope,
                math.prod(cards[v] for v in scope),
                left,
                fill,
                name,
            )
        )
    return steps


def _refuse_large(problem: _Problem, steps: Sequence[Step], given: bool) -> None:
    worst = max(steps, key=lambda step: step.cells)
    if worst.cells <= LIMIT:
        return
    what = (
        "the product over the query" if worst.variable is None else f"summing out {worst.variable}"
    )
    number = next(i for i, step in enumerate(steps, 1) if step is worst)
    least = max(step.cells for step in _steps(problem, _min_fill(problem))) if given else LIMIT + 1
    better = "graphs.JunctionTree may find a better order, or more evidence make the tables smaller"
    if least <= LIMIT:
        better = f"order=None takes the min-fill order, whose largest table has {least:,} cells"
    raise MemoryError(
        f"step {number}, {what}, needs a table of {len(worst.scope)} variables with "
        f"{worst.cells:,} cells; at most {LIMIT:,} are made. {better[0].upper()}{better[1:]}"
    )


def _result(problem: _Problem, steps: Sequence[Step]) -> np.ndarray:
    """log of p(query, evidence), or of its unnormalised counterpart.

    Variables of one state have no axes here, as NumPy's arrays have at most 64.
    """
    cards = problem.tables.cardinalities
    at = {v: problem.codes.get(v, slice(None) if k > 1 else 0) for v, k in cards.items()}
    made: list[tuple[Scope, np.ndarray]] = []  # the messages
    for step in steps:
        axes = tuple(v for v in step.scope if cards[v] > 1)
        table = np.zeros([cards[v] for v in axes])
        for number in step.tables:
            scope, values = problem.tables.factors[number]
            with np.errstate(divide="ignore"):  # log 0 = -inf is meant
                logs = np.log(values[tuple(at[v] for v in scope)])
            table += _aligned(logs, tuple(v for v in scope if at[v] == slice(None)), axes)
        for number in step.messages:
            scope, logs = made[number]
            table += _aligned(logs, scope, axes)
        if step.variable in axes:  # it is the first
            top = table.max(0)
            top = np.where(top == -np.inf, 0.0, top)
            table -= top
            with np.errstate(divide="ignore"):
                table = np.log(np.exp(table, out=table).sum(0)) + top
            axes = axes[1:]
        made.append((axes, table))
    return made[-1][1]


def _aligned(table: np.ndarray, scope: Scope, axes: Scope) -> np.ndarray:
    """A table over some of the axes in their order, with length 1 along the others."""
    order = sorted(range(len(scope)), key=lambda i: axes.index(scope[i]))
    sizes = dict(zip(scope, table.shape, strict=True))
    return table.transpose(order).reshape([sizes.get(v, 1) for v in axes])
