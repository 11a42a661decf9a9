"""The messages of one factor graph, computed one at a time in NumPy."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..factor_graph import FactorGraph
from .flooding import lowest
from .trace import Message, Notation, Trace

Place = tuple[int, int]  # a factor, and the axis of its table whose variable gets the message


class Sender:
    """The messages of one graph, in float64: what is sent, and what follows from it."""

    def __init__(
        self,
        graph: FactorGraph,
        product: str,
        damping: float,
        evidence: Mapping[int, int],
        schedule: str,
        keep: bool,
    ) -> None:
        self.graph, self.product, self.schedule = graph, product, schedule
        self.damping = 0.0 if schedule == "depth_first" else damping
        self.tables = [_numbers(table) for _, table in graph.factors]
        self.names = [scope for scope, _ in graph.factors]
        self.scopes = [tuple(graph.positions[v] for v in scope) for scope in self.names]
        self.dtype = graph.groups[0].table.dtype if graph.groups else np.dtype(np.float64)
        self.floor = lowest(graph)
        self.unary = [np.zeros(size) for size in graph.sizes]  # log psi_j
        self.at: list[list[Place]] = [[] for _ in self.unary]  # where a variable gets messages
        self.places: list[Place] = []
        self.mu: list[list[np.ndarray]] = []
        self.nu: list[list[np.ndarray]] = []
        for factor, scope in enumerate(self.scopes):
            sizes = graph.sizes[list(scope)]
            self.mu.append([self._normal(np.zeros(size)) for size in sizes])
            self.nu.append([np.zeros(size) for size in sizes])
            if len(scope) == 1:
                self.unary[scope[0]] = self.unary[scope[0]] + self.tables[factor]
                self.mu[factor] = [self._normal(self.tables[factor])]
            for axis, variable in enumerate(scope) if len(scope) > 1 else ():
                self.places.append((factor, axis))
                self.at[variable].append((factor, axis))
        for variable, state in evidence.items():
            others = np.arange(len(self.unary[variable])) != state
            self.unary[variable] = np.where(others, -np.inf, self.unary[variable])
        for variable in range(len(self.unary)):
            self._check_some(self.unary[variable], variable, "its unary factors")
        self.operations = 0
        self.kept: list[Message] | None = [] if keep else None
        if keep:
            names, states = graph.variables, graph.states
            self.observed = {names[v]: states[names[v]][i] for v, i in evidence.items()}
            self.notation = Notation(self.names, product, self.observed)

    def collect(self, variable: int) -> None:
        """nu from a variable to each of its factors: all its messages but the factor's own.

        Sums from both sides, since what is added cannot be subtracted again where it is -inf.
        """
        places = self.at[variable]
        if not places:
            return
        rows = np.stack([self.unary[variable], *(self.mu[f][a] for f, a in places)])  # (1 + d, K)
        before = np.cumsum(rows[:-1], 0)
        after = np.zeros_like(before)
        after[:-1] = np.cumsum(rows[:1:-1], 0)[::-1]
        for (factor, axis), nu in zip(places, before + after, strict=True):
            self.nu[factor][axis] = nu

    def collect_for(self, factor: int, axis: int, variable: int) -> None:
        """nu from a variable to one factor."""
        others = [self.mu[f][a] for f, a in self.at[variable] if f != factor]
        self.nu[factor][axis] = np.sum([self.unary[variable], *others], 0)

    def message(self, factor: int, axis: int) -> np.ndarray:
        """The log message from what its factor collected, damped and normalised.

        Raises:
            ValueError: no state is left.
        """
        table = self.tables[factor]
        self.operations += table.size
        for other, nu in enumerate(self.nu[factor]):
            if other != axis:
                shape = [1] * table.ndim
                shape[other] = -1
                table = table + nu.reshape(shape)
        rows = np.moveaxis(table, axis, 0).reshape(table.shape[axis], -1)  # (K, the others' states)
        message = rows.max(1) if self.product == "max" else _log_sum(rows)
        if np.isneginf(message).all():
            names = [str(name) for name in self.names[factor]]
            raise ValueError(
                f"the message of factor {factor} over {', '.join(names)} to {names[axis]} is zero "
                "for every state: the factors and the evidence are contradictory"
            )
        return self._damped(self._normal(message), self.mu[factor][axis])

    def residual(self, place: Place, new: np.ndarray) -> float:
        """The largest change of a state's log message, if the message were sent.

        States out of the question do not count; see `lowest`.
        """
        old = self.mu[place[0]][place[1]]
        return float(abs(np.maximum(new, self.floor) - np.maximum(old, self.floor)).max())

    def send(self, place: Place, new: np.ndarray, iteration: int) -> None:
        self.record(place, new, iteration)
        self.mu[place[0]][place[1]] = new

    def record(self, place: Place, new: np.ndarray, iteration: int) -> None:
        """Write a message down, where a trace is kept."""
        if self.kept is None:
            return
        factor, axis = place
        target = self.names[factor][axis]
        name, formula = self.notation.of(factor, target)
        collected = {
            variable: np.exp(self._normal(nu))
            for variable, nu in zip(self.names[factor], self.nu[factor], strict=True)
            if variable != target
        }
        self.kept.append(
            Message(len(self.kept) + 1, iteration, factor, tuple(collected), target, name, formula,
                    collected, np.exp(new), new, self.residual(place, new), self.operations)
        )  # fmt: skip

    def onward(self, place: Place) -> list[Place]:
        """The messages that a message changes, after their sources have collected it."""
        factor, axis = place
        target = self.scopes[factor][axis]
        self.collect(target)
        return [
            (other, onward)
            for other, back in self.at[target]
            if other != factor
            for onward in range(len(self.scopes[other]))
            if onward != back
        ]

    def check_beliefs(self) -> None:
        """Refuse messages that each leave a variable some state, and together none."""
        for variable, places in enumerate(self.at):
            belief = np.sum([self.unary[variable], *(self.mu[f][a] for f, a in places)], 0)
            self._check_some(
                belief, variable, f"its factors {', '.join(str(f) for f, _ in places)}"
            )

    def messages(self) -> list[list[np.ndarray]]:
        kind = str(self.dtype).removeprefix("torch.")
        return [[message.astype(kind) for message in row] for row in self.mu]

    def trace(self) -> Trace | None:
        if self.kept is None:
            return None
        local = dict(zip(self.graph.variables, self.unary, strict=True))
        return Trace(
            self.graph, self.product, self.schedule, self.observed, local, tuple(self.kept)
        )

    def _damped(self, new: np.ndarray, old: np.ndarray) -> np.ndarray:
        if not self.damping:
            return new
        hard = np.isneginf(new) | np.isneginf(old)
        mixed = (1 - self.damping) * np.where(hard, 0.0, new)
        mixed += self.damping * np.where(hard, 0.0, old)
        return self._normal(np.where(hard, new, mixed))

    def _normal(self, log: np.ndarray) -> np.ndarray:
        return log - (log.max() if self.product == "max" else np.logaddexp.reduce(log))

    def _check_some(self, log: np.ndarray, variable: int, what: str) -> None:
        if np.isneginf(log).all():
            name = self.graph.variables[variable]
            raise ValueError(
                f"no state is left for {name}: {what} and the evidence are contradictory"
            )


def _log_sum(rows: np.ndarray) -> np.ndarray:
    """log sum exp of each row, -inf where all of it is."""
    top = rows.max(1)
    top = np.where(np.isneginf(top), 0.0, top)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(rows - top[:, None]).sum(1)) + top


def _numbers(table: Any) -> np.ndarray:
    table = table.detach().cpu().numpy() if hasattr(table, "detach") else table
    return np.asarray(table, np.float64)
