"""Finite Markov chains: classes, stationary distributions, convergence, hitting times.

A chain has the transition matrix A[i, j] = p(next is j | now is i), whose rows sum to one; a row
vector v of probabilities becomes v A in one step. The linear systems are solved by censoring, which
never subtracts (`chain_algebra.py`).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np

from ..ancestral import checked_count
from . import chain_algebra as algebra
from .transitions import (
    SHOWN,
    CommunicatingClass,
    PerState,
    State,
    checked,
    columns,
    distinct,
    listed,
    per_state,
    read,
    several,
    short,
    weights,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FINEST = 1e-12  # the least distance between distributions that float64 tells from none
TABLE = 10  # states up to which the print shows the matrix
TONES = ("#56B4E9", "#E9B24A", "#7CC8A5", "#F0E442", "#CC9BBF", "#E58E6B")
TRANSIENT = "#e9ebee"
LABELLED = 4  # transitions a state up to which a picture has room for their probabilities


@dataclass(frozen=True, eq=False, repr=False, init=False)
class MarkovChain:
    """A finite chain whose transition probabilities do not change with time.

    Args:
        A: the square transition matrix, A[i, j] = p(next is j | now is i), rows summing to one:
            array, nested lists (of fractions too), PyTorch tensor, or a DataFrame whose index and
            columns name the states. A row whose sum is off by at most 1e-6 is print rounding: it is
            renormalised, with a warning.
        states: the distinct states, in the order of the rows; by default 0, 1, ...

    Matrices of fractions and integers of at most 60 states are kept exact. So are floats that read
    as fractions with denominators up to 1000, of at most 12 states, where the fractions give back
    the floats, to two roundings, and rows that sum to exactly one.

    Raises:
        TypeError: entries that are not real numbers; states that are not hashable.
        ValueError: not square, an entry that is negative or not finite, a row that does not sum to
            one, states that repeat or do not match the matrix.
    """

    states: tuple[State, ...]
    """The states, in the order of the matrix."""
    matrix: np.ndarray
    """The transition matrix A in float64, read-only."""
    exact: tuple[tuple[Fraction, ...], ...] | None
    """The rows of A as fractions; None where they are not known."""

    def __init__(self, A: Any, states: Iterable[State] | None = None) -> None:
        values, labels = read(A)
        if labels is not None and states is not None:
            raise ValueError("a DataFrame names its states in its index; leave `states` out")
        names = distinct(labels if states is None else states, len(values))
        matrix, exact = checked(values, names, stacklevel=3)
        matrix.setflags(write=False)
        object.__setattr__(self, "states", names)
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "exact", exact)

    # The classes

    @cached_property
    def classes(self) -> tuple[CommunicatingClass, ...]:
        """The communicating classes, in the order of their first states."""
        moves = self._numbers > 0
        graph = nx.DiGraph()
        graph.add_nodes_from(range(len(moves)))
        graph.add_edges_from(np.argwhere(moves).tolist())
        found = []
        for members in sorted(sorted(part) for part in nx.strongly_connected_components(graph)):
            inside = np.isin(np.arange(len(moves)), members)
            closed = not moves[np.ix_(inside, ~inside)].any()
            states = tuple(self.states[i] for i in members)
            steps = algebra.period(moves[np.ix_(inside, inside)])
            found.append(CommunicatingClass(states, closed, steps))
        return tuple(found)

    @property
    def irreducible(self) -> bool:
        """Whether every state leads to every other."""
        return len(self.classes) == 1

    @property
    def aperiodic(self) -> bool:
        """Whether every recurrent class has period 1; transient states do not matter."""
        return all(part.period == 1 for part in self._closed)

    @property
    def absorbing(self) -> tuple[State, ...]:
        """The states that are never left."""
        return tuple(part.states[0] for part in self._closed if len(part.states) == 1)

    @cached_property
    def reversible(self) -> bool:
        """Whether the chain looks the same backwards: pi_i A[i, j] = pi_j A[j, i] (detailed
        balance) for every stationary pi; within a relative 1e-9 where fractions are not known."""
        for pi in self._extreme:
            flow = pi[:, None] * self._numbers  # (k, k)
            slack = 0 if flow.dtype == object else 1e-9 * np.maximum(flow, flow.T)
            if (abs(flow - flow.T) > slack).any():
                return False
        return True

    # The long run

    @cached_property
    def stationary(self) -> tuple[PerState, ...]:
        """The extreme stationary distributions, pi A = pi: one for each recurrent class, zero
        elsewhere. The stationary distributions are these and their mixtures, nothing else.

        Source: Levin, Peres and Wilmer, Markov Chains and Mixing Times, sections 1.5 and 1.7.
        """
        titles, of = ["the stationary distribution"], len(self._extreme)
        if of > 1:
            titles = [f"extreme stationary distribution {i + 1} of {of}" for i in range(of)]
        found = zip(titles, self._extreme, strict=True)
        return tuple(per_state(title, self.states, pi) for title, pi in found)

    @cached_property
    def return_times(self) -> PerState:
        """The expected number of steps until the chain, started in a state, is there again:
        1 / pi_i with the stationary distribution of i's class, infinite where i is transient.

        Source: Norris, Markov Chains, theorem 1.7.7.
        """
        total = sum(self._extreme)
        with np.errstate(over="ignore"):
            found = np.where(total > 0, 1 / np.where(total > 0, total, 1), math.inf)
        return per_state("expected steps until the first return", self.states, found)

    def distribution(self, n: Any, start: Any) -> np.ndarray:
        """p(state after n steps) = start A^n, by repeated squaring.

        Rows are renormalised after every squaring, so that their sums do not drift.

        Args:
            n: a number of steps, or an array of them; up to 2^63 - 1.
            start: a state, or a distribution: an array of k probabilities in the order of the
                states, a mapping from states to probabilities, or what `stationary` holds.

        Returns:
            Shape (k,), or (len(n), k) for an array.

        Raises:
            TypeError: n is not whole.
            ValueError: n out of range; an unknown state; a start that is no distribution.
        """
        steps = np.asarray(n)
        if steps.dtype.kind not in "iu":
            raise TypeError(f"n, the steps, must be whole numbers; got {n!r}")
        if (steps < 0).any() or (steps > np.iinfo(np.int64).max).any():
            raise ValueError(f"n, the steps, must be at least 0 and below 2^63; got {n!r}")
        left = steps.reshape(-1).astype(np.int64)
        rows = np.tile(weights(start, self._positions), (len(left), 1))  # (len(n), k)
        power = self.matrix
        while left.any():
            odd = left % 2 == 1
            rows[odd] = algebra.normalised(rows[odd] @ power)
            left = left // 2
            if left.any():
                power = algebra.normalised(power @ power)
        return rows.reshape(*steps.shape, len(self.states))

    def converge(self, start: Any, n: int) -> "pd.DataFrame":
        """The distributions after 0 to n steps: a row for each, a column for each state.

        Raises:
            TypeError, ValueError: as for `distribution`.
        """
        import pandas as pd

        rows = [weights(start, self._positions)]
        for _ in range(checked_count(n, 0, "n, the steps,")):
            rows.append(algebra.normalised(rows[-1] @ self.matrix))
        heads = pd.Index(self.states, tupleize_cols=False, name="state")
        return pd.DataFrame(np.array(rows), pd.RangeIndex(len(rows), name="step"), heads)

    def mixing_time(self, epsilon: float = 0.25) -> int:
        """The first t at which d(t) <= epsilon, with d(t) = max_x TV(A^t(x, .), pi), the total
        variation TV(p, q) = sum |p_i - q_i| / 2 from the worst start.

        d never rises, so that t is found by doubling and then bisection, with about 2 log2(t)
        products of matrices; a chain that needs 1e12 steps takes no longer than others.

        Raises:
            ValueError: several recurrent classes, or a period: d(t) does not tend to 0. An epsilon
                that is not below 1, or so small (surely below 1e-12) that rounding hides it.

        Source: Levin, Peres and Wilmer, Markov Chains and Mixing Times, equations 4.30 and 4.31.
        """
        if not FINEST <= epsilon < 1:
            raise ValueError(f"epsilon must be at least {FINEST:g} and below 1; got {epsilon}")
        if len(self._closed) > 1 or not self.aperiodic:
            raise ValueError(f"the chain has no mixing time: {self._long_run}")
        return algebra.first_close(self.matrix, self.stationary[0].values, epsilon)

    # Hitting

    def hitting_times(self, targets: Any) -> PerState:
        """The expected number of steps until the chain is first in a set of states, from each.

        The least solution of h_i = 0 in the set and h_i = 1 + sum_j A[i, j] h_j elsewhere, which is
        infinite exactly where the set is not reached with probability one.

        Args:
            targets: a state, or several.

        Raises:
            ValueError: an unknown state, or none.
            OverflowError: a time above 1.8e308, of a chain not known as fractions.

        Source: Norris, Markov Chains, theorem 1.3.5.
        """
        return self._hitting(targets, times=True)

    def hitting_probabilities(self, targets: Any) -> PerState:
        """The probability that the chain is ever in a set of states, from each.

        The least solution of h_i = 1 in the set and h_i = sum_j A[i, j] h_j elsewhere (Norris,
        Markov Chains, theorem 1.3.2). Arguments and errors are those of `hitting_times`.
        """
        return self._hitting(targets, times=False)

    def _hitting(self, targets: Any, times: bool) -> PerState:
        goal = np.zeros(len(self.states), dtype=bool)
        goal[several(targets, self._positions)] = True
        names = listed(s for s, wanted in zip(self.states, goal, strict=True) if wanted)
        what = "expected steps until" if times else "probability that"
        found = algebra.hitting(self._numbers, goal, times)
        return per_state(f"{what} {names} is reached", self.states, found)

    # Draws

    def simulate(self, n: int, start: Any = None, chains: int = 1, seed: int = 0) -> np.ndarray:
        """Draw paths of the chain.

        Args:
            n: how many steps each.
            start: as for `distribution`; None for the stationary distribution, where only one is.
            chains: how many independent paths.
            seed: the same seed gives the same paths.

        Returns:
            Shape (chains, n + 1): the states, that at the start first. A transition of probability
            zero is never drawn.

        Raises:
            TypeError, ValueError: as for `distribution`; no start and several recurrent classes.
        """
        count = checked_count(n, 0, "n, the steps,")
        paths = checked_count(chains, 1, "chains")
        if start is None and len(self._closed) > 1:
            many = f"{len(self._closed)} recurrent classes, so many stationary distributions"
            raise ValueError(f"the chain has {many}; give `start`")
        first = weights(self.stationary[0] if start is None else start, self._positions)
        uniform = np.random.default_rng(seed).random((count + 1, paths))
        return algebra.objects(self.states)[algebra.walks(first, self.matrix, uniform).T]

    # Pictures and prints

    def graph(self) -> nx.DiGraph:
        """The transitions of positive probability as edges with `probability` and `label`."""
        graph = nx.DiGraph()
        graph.add_nodes_from(self.states)
        for i, j in np.argwhere(self._numbers > 0).tolist():
            p = float(self.matrix[i, j])
            graph.add_edge(self.states[i], self.states[j], probability=p, label=self._label(i, j))
        return graph

    def draw(self, path: str | Path | None = None, ax: "Axes | None" = None) -> "Figure":
        """Draw the transitions, each recurrent class in a colour and transient states in grey.

        Probabilities are written on the edges. Where more than four transitions a state leave no
        room, the width of an edge tells its probability.

        Args:
            path: a .png, .svg or .pdf file to write, whole or not at all.
            ax: axes to draw in; by default a figure of its own.

        Returns:
            The figure, which no window and no pyplot state knows of.

        Raises:
            ValueError: a file with another ending.
        """
        from ..pictures.drawing import picture_ending, write_picture
        from ..pictures.picture import EdgeLook, Look, NodeLook, Picture

        ending = None if path is None else picture_ending(Path(path))
        graph = self.graph()
        look = Look({}, {edge: EdgeLook() for edge in graph.edges})
        if len(graph.edges) > LABELLED * len(graph):
            look.title = f"{len(graph)} states, {len(graph.edges)} transitions, too many to label"
            for tail, head, data in graph.edges(data=True):
                del data["label"]
                look.edges[tail, head].width = 0.4 + 3 * data["probability"]
        transient = {part.kind for part in self.classes if not part.recurrent}
        for part in self.classes:
            tone, said = TRANSIENT, part.kind if len(transient) == 1 else "transient"
            if part.recurrent:
                tone = TONES[self._closed.index(part) % len(TONES)]
                said = part.kind if len(self._closed) == 1 else str(part)
            look.nodes |= {state: NodeLook(tone) for state in part.states}
            if said not in [text for text, _ in look.legend]:
                look.legend.append((said, NodeLook(tone)))
        look.nodes = {state: look.nodes[state] for state in graph}
        if look.title:
            look.legend.append(("the wider, the likelier", EdgeLook(width=3.0)))
        figure = Picture(graph, look).draw(ax)
        if path is not None and ending is not None:
            write_picture(figure, Path(path), ending)
        return figure

    def __str__(self) -> str:
        names = [str(state) for state in self.states]
        lines = [f"Markov chain of {len(names)} states: {self._long_run}"]
        if len(names) <= TABLE:
            size = range(len(names))
            cells = [[self._label(i, j) if self.matrix[i, j] else "." for j in size] for i in size]
            rows = [[name, *row] for name, row in zip(names, cells, strict=True)]
            lines += ["transitions, from the row to the column", *columns([["", *names], *rows])]
        shown = [[part.kind, f"{{{listed(part.states)}}}"] for part in self.classes[:SHOWN]]
        lines += ["communicating classes", *columns(shown)]
        if len(self.classes) > SHOWN:
            lines += [f"  and {len(self.classes) - SHOWN} more classes"]
        lines += [str(found) for found in self.stationary[:SHOWN]]
        if len(self.stationary) > 1:
            lines += ["all other stationary distributions are mixtures of these"]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"MarkovChain of {len(self.states)} states: {listed(self.states)}"

    # Within

    @cached_property
    def _positions(self) -> dict[State, int]:
        return {state: i for i, state in enumerate(self.states)}

    @cached_property
    def _numbers(self) -> np.ndarray:
        """The matrix as fractions where they are known, else in float64."""
        return self.matrix if self.exact is None else np.array(self.exact, dtype=object)

    @cached_property
    def _closed(self) -> tuple[CommunicatingClass, ...]:
        return tuple(part for part in self.classes if part.recurrent)

    @cached_property
    def _extreme(self) -> tuple[np.ndarray, ...]:
        """The stationary distribution of each recurrent class, zero elsewhere."""
        found = []
        for part in self._closed:
            inside = [self._positions[state] for state in part.states]
            pi = algebra.zeros(len(self.states), self._numbers.dtype)
            pi[inside] = algebra.balanced(self._numbers[np.ix_(inside, inside)])
            found.append(pi)
        return tuple(found)

    @property
    def _long_run(self) -> str:
        """Whether the chain forgets its start, and if not why."""
        if len(self._closed) > 1:
            return f"{len(self._closed)} recurrent classes, so where it ends depends on its start"
        if not self.aperiodic:
            steps = self._closed[0].period
            return f"its recurrent class has period {steps}, so it never settles"
        return "it converges to one stationary distribution from every start"

    def _label(self, i: int, j: int) -> str:
        return short(self.matrix[i, j], None if self.exact is None else self.exact[i][j])
