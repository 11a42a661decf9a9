"""Messages to the root of a clique tree in any algebra: sums, maxima, truth values, gradients.

`Propagation` is the fast way to marginals. What it cannot do is done here by one pass up the tree,
written once for every algebra: exact supports (or, and), most probable assignments (max, plus),
and marginals on any device with gradients, which are derivatives of log Z with respect to the
logarithm of evidence weights (Darwiche 2003, A differential approach to inference in Bayesian
networks), in linear space or, where numbers would underflow, in logarithms.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .clique_tree import CliqueTree


class Algebra(NamedTuple):
    """times(a, b) broadcasts; plus(table) reduces axis 0; one(shape) is the neutral table."""

    times: Callable[[Any, Any], Any]
    plus: Callable[[Any], Any]
    one: Callable[[Sequence[int]], Any]


SUPPORT = Algebra(np.logical_and, lambda t: t.any(0), lambda shape: np.ones(shape, bool))


def _log_sum(table: np.ndarray) -> np.ndarray:
    top = table.max(0)
    top = np.where(top > -np.inf, top, 0.0)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(table - top).sum(0)) + top


MAX_PLUS = Algebra(np.add, lambda t: t.max(0), np.zeros)
LOG_SUM = Algebra(np.add, _log_sum, np.zeros)


def collect(
    tree: CliqueTree,
    factors: Sequence[tuple[tuple[int, ...], Any]],
    algebra: Algebra,
    scale: Callable[[Any], tuple[Any, Any]] | None = None,
) -> tuple[list[Any], list[Any], list[Any]]:
    """One pass to the roots.

    Args:
        tree: the clique tree.
        factors: (scope, table) pairs; the table's axes in the scope's order, the batch's axis last.
        algebra: what times and plus mean.
        scale: splits a message into what is passed on and what is set aside.

    Returns:
        Each clique's table, the totals over the batch whose product is the whole (one a root, one a
        constant factor), and what was set aside.
    """
    here: list[list[tuple[tuple[int, ...], Any]]] = [[] for _ in tree.axes]
    totals = [table for scope, table in factors if not scope]
    for scope, table in factors:
        if not scope:
            continue
        axes = tree.ordered(scope)
        moved = [scope.index(v) for v in axes] + [len(scope)]
        table = table.transpose(moved) if isinstance(table, np.ndarray) else table.permute(moved)
        here[tree.home_of(scope)].append((axes, table))
    beliefs: list[Any] = [None] * len(tree.axes)
    messages: list[Any] = [None] * len(tree.axes)
    aside: list[Any] = []
    for clique in reversed(tree.downward):
        axes = tree.axes[clique]
        operands = here[clique] + [(tree.separators[c], messages[c]) for c in tree.children[clique]]
        operands.sort(key=lambda operand: tree.size(operand[0]))
        scope, belief = (), algebra.one((1,))
        for other, table in operands:
            union = tree.ordered({*scope, *other})
            belief = algebra.times(
                _over(tree, belief, scope, union), _over(tree, table, other, union)
            )
            scope = union
        if scope != axes:
            ones = algebra.one([tree.cardinalities[v] for v in axes] + [1])
            belief = algebra.times(_over(tree, belief, scope, axes), ones)
        beliefs[clique] = belief
        shared = tree.separators[clique]  # the last of the clique's axes
        message = algebra.plus(belief.reshape(-1, tree.size(shared), belief.shape[-1]))
        if scale is not None:
            message, part = scale(message)
            aside.append(part)
        messages[clique] = message
        if tree.parents[clique] < 0:
            totals.append(message[0])
    return beliefs, totals, aside


def _over(tree: CliqueTree, table: Any, scope: Sequence[int], axes: Sequence[int]) -> Any:
    """The table with axes of length 1 for the variables that it lacks; its batch's axis stays."""
    inside = set(scope)
    shape = [tree.cardinalities[v] if v in inside else 1 for v in axes]
    return table.reshape([*shape, table.shape[-1]])


def possible(tree: CliqueTree, factors: Sequence[tuple[tuple[int, ...], np.ndarray]]) -> np.ndarray:
    """Whether the factors' product has a non-zero entry, by supports alone: (batch,)."""
    supports = [(scope, table > 0) for scope, table in factors]
    _, totals, _ = collect(tree, supports, SUPPORT)
    answer = np.ones(1, bool)
    for total in totals:
        answer = answer & total
    return answer


def most_probable(
    tree: CliqueTree, factors: Sequence[tuple[tuple[int, ...], np.ndarray]], rows: int
) -> tuple[dict[int, np.ndarray], np.ndarray]:
    """The states that maximise the product, by variable (rows,), and the log of the maximum."""
    with np.errstate(divide="ignore"):
        logs = [(scope, np.log(table)) for scope, table in factors]
    beliefs, totals, _ = collect(tree, logs, MAX_PLUS)
    found: dict[int, np.ndarray] = {}
    value = np.zeros(rows)
    for total in totals:
        value = value + total
    each = np.arange(rows)
    for clique in tree.downward:
        axes, shared = tree.axes[clique], tree.separators[clique]
        rest = axes[: len(axes) - len(shared)]
        belief = beliefs[clique].reshape(-1, tree.size(shared), beliefs[clique].shape[-1])
        row = each if belief.shape[-1] > 1 else np.zeros(rows, int)
        at = np.zeros(rows, int)
        for v in shared:
            at = at * tree.cardinalities[v] + found[v]
        best = belief[:, at, row].argmax(0)
        for v in reversed(rest):
            best, found[v] = np.divmod(best, tree.cardinalities[v])
    return found, value


def draw(
    tree: CliqueTree,
    factors: Sequence[tuple[tuple[int, ...], np.ndarray]],
    n: int,
    rng: np.random.Generator,
) -> dict[int, np.ndarray]:
    """n draws from the normalised product, by variable, clique after clique from the roots."""
    with np.errstate(divide="ignore"):
        logs = [(scope, np.log(table)) for scope, table in factors]
    beliefs, _, _ = collect(tree, logs, LOG_SUM)
    found: dict[int, np.ndarray] = {}
    for clique in tree.downward:
        axes, shared = tree.axes[clique], tree.separators[clique]
        rest = axes[: len(axes) - len(shared)]
        table = beliefs[clique].reshape(-1, tree.size(shared))
        at = np.zeros(n, int)
        for v in shared:
            at = at * tree.cardinalities[v] + found[v]
        drawn = np.empty(n, int)
        order = np.argsort(at, kind="stable")
        groups, starts = np.unique(at[order], return_index=True)
        for group, start, stop in zip(groups, starts, [*starts, n][1:], strict=True):
            members = order[start:stop]
            masses = np.exp(table[:, group] - table[:, group].max())
            ladder = np.cumsum(masses)
            # The first step above u x total has positive mass, also where rounding meets the end.
            u = rng.random(len(members)) * ladder[-1]
            last = np.flatnonzero(masses)[-1]
            drawn[members] = np.minimum(np.searchsorted(ladder, u, side="right"), last)
        for v in reversed(rest):
            drawn, found[v] = np.divmod(drawn, tree.cardinalities[v])
    return found


def marginals(
    tree: CliqueTree,
    factors: Sequence[tuple[tuple[int, ...], Any]],
    wanted: Sequence[tuple[int, ...]],
    rows: int,
    *,
    logarithms: bool,
    differentiable: bool,
) -> tuple[Any, list[Any], Any]:
    """log Z of each row and the marginals of each wanted scope, as tensors (cells..., rows).

    The marginal over a scope is the derivative of log Z with respect to the logarithm of a table of
    ones over it; `differentiable` keeps the graph, so that both can be differentiated again. Last
    come the rows, as bools, in which small numbers may have lost digits.
    """
    import torch

    like = factors[0][1] if factors else torch.zeros((), dtype=torch.float64)
    entering = []
    for scope in wanted:
        shape = [tree.cardinalities[v] for v in scope]
        fill = 0.0 if logarithms else 1.0
        entering.append(like.new_full([*shape, rows], fill).requires_grad_())
    low = torch.zeros(rows, dtype=torch.bool, device=like.device)
    with torch.enable_grad():
        ones = [*zip(wanted, entering, strict=True)]
        if logarithms:
            pairs = [(scope, _log(table)) for scope, table in factors]
            algebra = Algebra(torch.add, _logsumexp, lambda shape: like.new_zeros(*shape))
            _, parts, _ = collect(tree, [*pairs, *ones], algebra)
        else:
            # No entry above 1: then nothing overflows, and the scales tell what underflows.
            units = [_unit(table) for _, table in factors]
            pairs = [(scope, unit) for (scope, _), (unit, _) in zip(factors, units, strict=True)]
            algebra = Algebra(torch.mul, lambda t: t.sum(0), lambda shape: like.new_ones(*shape))
            _, totals, aside = collect(tree, [*pairs, *ones], algebra, _scaled)
            floor = math.log(1e-200 if like.dtype == torch.float64 else 1e-25)
            for scale in aside:
                low = low | (scale < floor)
            parts = [*map(_log, totals), *aside, *(top for _, top in units)]
        log_z = like.new_zeros(rows, dtype=like.dtype if like.is_mps else torch.float64)
        for part in parts:
            log_z = log_z + part
        found: Sequence[Any] = ()
        if wanted:
            found = torch.autograd.grad(
                log_z[torch.isfinite(log_z)].sum(), entering, create_graph=differentiable
            )
    return log_z if differentiable else log_z.detach(), list(found), low


def _unit(table: Any) -> tuple[Any, Any]:
    """The table with a largest entry of 1 in each row, and the logarithm of what that was."""
    top = table.detach().reshape(-1, table.shape[-1]).amax(0)
    top = top.where(top > 0, top.new_ones(()))
    return table / top, top.log()


def _scaled(message: Any) -> tuple[Any, Any]:
    """The message over its largest entry, and that one's logarithm; no gradient goes that way."""
    scale = message.detach().amax(0)
    scale = scale.where(scale > 0, scale.new_ones(()))
    return message / scale, scale.log()


def _log(table: Any) -> Any:
    """log, with -inf at zero and no gradient there."""
    positive = table > 0
    return (
        table.where(positive, table.new_ones(())).log().where(positive, table.new_tensor(-np.inf))
    )


def _logsumexp(table: Any) -> Any:
    """log sum exp over axis 0, -inf without a gradient where every term is -inf."""
    top = table.detach().amax(0)
    top = top.where(top > -np.inf, top.new_zeros(()))
    return _log((table - top).exp().sum(0)) + top
