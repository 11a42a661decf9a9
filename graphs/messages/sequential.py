"""Belief propagation as the textbooks write it: one message after another.

    m_{f->i}(x_i) = sum_{x_f without x_i} psi_f(x_f) prod_{j in f, j != i} nu_{j->f}(x_j)
    nu_{j->f}(x_j) = psi_j(x_j) prod_{g of j, g != f} m_{g->j}(x_j)

psi_j is the product of the unary factors of x_j, zero for the states that its evidence excludes;
max-product has a maximum in place of the sum. In a pairwise model f joins two variables and this is
m_ji(x_i) = sum_{x_j} psi_ij(x_i, x_j) psi_j(x_j) prod_{k in N(j) without i} m_kj(x_j).

Source: Pearl (1988); Kschischang, Frey and Loeliger (2001), equations 5 and 6.
"""

import heapq
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from ..factor_graph import FactorGraph
from ..names import unknown
from ..progress import Bar
from .beliefs import SCHEDULES
from .sender import Place, Sender
from .trace import Trace

STALE = 8  # entries a message in the heap, from where outdated ones are cleared away


class Run(NamedTuple):
    """What a run leaves."""

    messages: list[list[np.ndarray]]
    """For each factor, for each axis: the log message (K,) to that variable, normalised so that
    the sum of its exponentials is 1 (sum-product) or its maximum 0 (max-product). A unary factor
    sends its own table."""
    iterations: int
    """Every one as many messages as there are (factor, axis) pairs of arity 2 and more."""
    residual: float
    """The largest change of a message in the last iteration of flooding, or of those that the
    residual schedule had still to send; see `Sender.residual`."""
    converged: bool
    trace: Trace | None


def run(
    graph: FactorGraph,
    *,
    product: str,
    schedule: str,
    root: int | None,
    damping: float,
    tolerance: float,
    max_iterations: int,
    evidence: Mapping[int, int],
    keep: bool,
) -> Run:
    """Send messages by a schedule, until they change no more.

    Args:
        graph: one field, no batch.
        product: "sum" or "max".
        schedule: "flooding", all messages from the previous ones; "depth_first", on forests, from
            the leaves to the root and back the same way, exact after these two passes; "residual",
            always the message that changes most (Elidan, McGraw and Koller 2006).
        root: of the depth-first schedule, the position of a variable; by default, and in other
            trees, the first variable of each.
        damping: d in log m = (1 - d) log m_new + d log m_old. The depth-first schedule sends each
            message once, and damps none.
        tolerance: converged where no message has a larger change to make.
        max_iterations: of flooding and of the residual schedule.
        evidence: states by position: variable -> state.
        keep: whether to record every message.

    Raises:
        ValueError: contradictory factors or evidence; a depth-first schedule on a graph with a
            cycle; an unknown schedule.
    """
    sender = Sender(graph, product, damping, evidence, schedule, keep)
    if schedule == "depth_first":
        _depth_first(sender, root)
        iterations, residual, converged = 1, 0.0, True
    elif schedule == "flooding":
        iterations, residual = _flooding(sender, tolerance, max_iterations)
        converged = residual <= tolerance
    elif schedule == "residual":
        iterations, residual = _by_residual(sender, tolerance, max_iterations)
        converged = residual <= tolerance
    else:
        raise ValueError(unknown("schedule", schedule, SCHEDULES))
    sender.check_beliefs()
    return Run(sender.messages(), iterations, residual, converged, sender.trace())


# Schedules


def _flooding(sender: Sender, tolerance: float, max_iterations: int) -> tuple[int, float]:
    iteration, residual = 0, np.inf
    with Bar("sending messages", max_iterations) as bar:
        while iteration < max_iterations and residual > tolerance:
            iteration, residual, found = iteration + 1, 0.0, []
            for variable in range(len(sender.unary)):
                sender.collect(variable)
            for place in sender.places:
                new = sender.message(*place)
                residual = max(residual, sender.residual(place, new))
                sender.record(place, new, iteration)
                found.append(new)
            for (factor, axis), message in zip(sender.places, found, strict=True):
                sender.mu[factor][axis] = message
            bar.at(iteration, f"residual {residual:.2g}")
    return iteration, residual


def _depth_first(sender: Sender, root: int | None) -> None:
    if not sender.graph.is_forest:
        raise ValueError(
            "the depth-first schedule needs a graph without cycles; this one has some: use the "
            'schedule "flooding" or "residual"'
        )
    seen = [False] * len(sender.unary)
    for start in (*(() if root is None else (root,)), *range(len(seen))):
        if not seen[start]:
            seen[start] = True
            order = list(_downwards(sender, start, seen))
            _up_and_down(sender, order)


def _downwards(sender: Sender, start: int, seen: list[bool]) -> Iterator[Place]:
    """The factors of one tree, each with the axis of its parent, none before its parent's."""
    stack = list(sender.at[start])
    while stack:
        factor, axis = stack.pop()
        yield factor, axis
        for other, child in enumerate(sender.scopes[factor]):
            if other != axis:
                seen[child] = True
                stack += [place for place in sender.at[child] if place[0] != factor]


def _up_and_down(sender: Sender, order: list[Place]) -> None:
    for factor, axis in reversed(order):
        for other, child in enumerate(sender.scopes[factor]):
            if other != axis:
                sender.collect_for(factor, other, child)
        sender.send((factor, axis), sender.message(factor, axis), 1)
    complete = set()
    for factor, axis in order:
        parent = sender.scopes[factor][axis]
        if parent not in complete:  # once for all factors below it
            complete.add(parent)
            sender.collect(parent)
        for other in range(len(sender.scopes[factor])):
            if other != axis:
                sender.send((factor, other), sender.message(factor, other), 1)


def _by_residual(sender: Sender, tolerance: float, max_iterations: int) -> tuple[int, float]:
    """A heap of (-residual, place, version), of which the outdated are dropped when they come up.

    A message that is sent changes those that its receiver sends on. These are computed at once, as
    their residuals are what decides.
    """
    pending: dict[Place, np.ndarray] = {}
    version = dict.fromkeys(sender.places, 0)
    heap: list[tuple[float, Place, int]] = []

    def renew(place: Place) -> None:
        pending[place] = sender.message(*place)
        version[place] += 1
        change = sender.residual(place, pending[place])
        heapq.heappush(heap, (-change, place, version[place]))

    for variable in range(len(sender.unary)):
        sender.collect(variable)
    for place in sender.places:
        renew(place)
    each = max(len(sender.places), 1)
    sent, residual = 0, 0.0
    with Bar("sending messages", max_iterations * each) as bar:
        while heap:  # each message that would change something is in it
            change, place, number = heap[0]
            if number != version[place]:
                heapq.heappop(heap)
                continue
            residual = -change
            if residual <= tolerance or sent == max_iterations * each:
                break
            heapq.heappop(heap)
            sent, residual = sent + 1, 0.0
            sender.send(place, pending[place], (sent - 1) // each + 1)
            version[place] += 1
            if sender.damping:  # which leaves a part of the change to be made
                renew(place)
            for onward in sender.onward(place):
                renew(onward)
            if len(heap) > STALE * each:
                heap[:] = [entry for entry in heap if entry[2] == version[entry[1]]]
                heapq.heapify(heap)
            bar.at(sent, f"residual {-change:.2g}")
    return -(-sent // each), residual
