"""Marginals that are given in place of data."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..names import unknown
from ..tables import ROUNDING, Variable, tables_of
from .scopes import Layout, Scope, read_scopes, refuse_other_states, shown


def read_marginals(
    model: Any, data: Any, states: Mapping[Variable, Any] | None
) -> tuple[Layout, list[np.ndarray]]:
    """The scopes of a model, and the given marginals in their order, each of sum one.

    Raises:
        TypeError, ValueError: see `iterative_proportional_fitting`.
    """
    found = read_scopes(model)
    pairs = list(data.items()) if isinstance(data, Mapping) else list(data)
    for pair in pairs:
        if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[0], tuple):
            raise TypeError(
                "marginals must be a mapping from scopes, tuples of variables, to arrays, or a "
                f"list of such pairs; got {pair!r:.80}"
            )
    tables = tables_of([(scope, np.asarray(array)) for scope, array in pairs])
    arrays: dict[frozenset[Variable], tuple[Scope, np.ndarray]] = {}
    for scope, array in tables.factors:
        if frozenset(scope) in arrays:
            raise ValueError(f"two marginals over {shown(scope)} were given; one is enough")
        if not array.sum() > 0:
            raise ValueError(f"the marginal over {shown(scope)} is zero everywhere")
        arrays[frozenset(scope)] = scope, array / array.sum()
    scopes = {frozenset(scope) for scope in found.scopes}
    for key, (scope, _) in arrays.items():
        if key not in scopes:
            raise ValueError(
                f"a marginal over {shown(scope)} was given, which is no scope of the model"
            )
    targets = []
    for scope in found.scopes:
        if frozenset(scope) not in arrays:
            raise ValueError(
                f"no marginal over {shown(scope)}: each scope of the model needs one, and "
                "list(marginals) as the model has no others"
            )
        order, array = arrays[frozenset(scope)]
        targets.append(array.transpose([order.index(v) for v in scope]))
    refuse_other_states(found, states)
    named = {v: tables.states[v] for v in found.variables} | found.states
    named |= {v: _labels(v, given, named) for v, given in (states or {}).items()}
    for v in found.states:
        if len(named[v]) != len(tables.states[v]):
            raise ValueError(
                f"{v} has {len(named[v])} states in the model and {len(tables.states[v])} in the "
                "marginals"
            )
    supports = found.supports or [np.ones(target.shape, bool) for target in targets]
    _refuse_contradictions(found.scopes, targets)
    return Layout(named, found.scopes, supports, found.name), targets


def _labels(variable: Variable, given: Any, known: Mapping[Variable, Any]) -> tuple[Any, ...]:
    if variable not in known:
        raise ValueError(unknown("variable", variable, known))
    if isinstance(given, (int, np.integer)):
        given = range(given)
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        raise TypeError(f"the states of {variable} must be a list, or their number; got {given!r}")
    labels = tuple(given)
    if len(labels) != len(known[variable]) or len({str(k) for k in labels}) < len(labels):
        raise ValueError(
            f"{variable} has {len(known[variable])} states in the marginals, which need as many "
            f"different names; got {labels}"
        )
    return labels


def _refuse_contradictions(scopes: Sequence[Scope], targets: Sequence[np.ndarray]) -> None:
    """Refuse marginals that differ over the variables that they share."""
    holding: dict[Variable, list[int]] = {}
    for number, scope in enumerate(scopes):
        met = {other for v in scope for other in holding.get(v, ())}
        for other in sorted(met):
            common = [v for v in scopes[other] if v in scope]
            first, second = (_summed(scopes[i], targets[i], common) for i in (other, number))
            apart = float(np.abs(first - second).max())
            if apart > ROUNDING:
                raise ValueError(
                    f"the marginals over {shown(scopes[other])} and {shown(scope)} contradict each "
                    f"other: those over {shown(common)} that they imply differ by {apart:.2g}"
                )
        for v in scope:
            holding.setdefault(v, []).append(number)


def _summed(scope: Scope, table: np.ndarray, kept: Sequence[Variable]) -> np.ndarray:
    """The margin over some variables, in the order given."""
    summed = table.sum(tuple(i for i, v in enumerate(scope) if v not in kept))
    left = [v for v in scope if v in kept]
    return summed.transpose([left.index(v) for v in kept])
