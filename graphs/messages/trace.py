"""Every message of belief propagation, in the order in which they were sent."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..exact.elimination_record import columns, some
from ..factor_graph import FactorGraph
from ..tables import Variable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROWS = 60  # messages that are printed
STATES = 6  # numbers of a message that are printed in a row


@dataclass(frozen=True, eq=False, repr=False)
class Message:
    """One message from a factor to a variable.

    Attributes:
        step: its place in the order, from 1.
        iteration: from 1; each sends as many messages as there are.
        factor: the number of the factor that sends it.
        sources: the factor's other variables.
        target: the variable that gets it.
        name: how it is written, "m_{x1->x2}(x2)"; where the factor has other than two variables or
            is not alone over its two, "m_{f3->x2}(x2)".
        formula: what it is computed from, in symbols.
        collected: of each source the product of what it knows without this factor, nu (K,),
            normalised as the messages are.
        values: the message (K,): with sum 1 (sum-product) or maximum 1 (max-product).
        log_values: its logarithms.
        residual: how far it is from the message that was sent before, or from an even one: the
            largest difference of logarithms.
        operations: table entries that were visited up to here.
    """

    step: int
    iteration: int
    factor: int
    sources: tuple[Variable, ...]
    target: Variable
    name: str
    formula: str
    collected: dict[Variable, np.ndarray]
    values: np.ndarray
    log_values: np.ndarray
    residual: float
    operations: int

    def __str__(self) -> str:
        lines = [f"step {self.step}, iteration {self.iteration}, factor {self.factor}"]
        lines.append(f"  {self.name} = {self.formula}")
        lines += [f"  collected from {v}: {numbers(nu)}" for v, nu in self.collected.items()]
        lines.append(f"  sent to {self.target}: {numbers(self.values)}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<{self.name} = {numbers(self.values)}, step {self.step}>"


@dataclass(frozen=True, eq=False, repr=False)
class Trace:
    """The messages of one run; `print` shows a line for each, `trace[i]` is the i-th from 0.

    Attributes:
        graph: the factor graph.
        product: "sum" or "max".
        schedule: "flooding", "depth_first" or "residual".
        evidence: the observed states.
        local: log psi(x) of each variable: its unary factors, and -inf for states that its evidence
            excludes.
        messages: what was sent, in turn.
    """

    graph: FactorGraph
    product: str
    schedule: str
    evidence: Mapping[Variable, Any]
    local: Mapping[Variable, np.ndarray]
    messages: tuple[Message, ...]

    def __len__(self) -> int:
        return len(self.messages)

    def __iter__(self) -> Iterator[Message]:
        return iter(self.messages)

    def __getitem__(self, index: Any) -> Any:
        return self.messages[index]

    @property
    def operations(self) -> int:
        """Table entries that were visited.

        A message visits its factor's whole table. The residual schedule computes more messages
        than it sends; these count too.
        """
        return self.messages[-1].operations if self.messages else 0

    def beliefs(self, step: int | None = None) -> dict[Variable, np.ndarray]:
        """What each variable knows after some messages: psi(x) times the last ones to reach it.

        Args:
            step: how many messages; all by default.

        Returns:
            (K,) for each variable, with sum 1 (sum-product) or maximum 1 (max-product). After all
            messages, and convergence, the marginals or max-marginals.

        Raises:
            ValueError: a step outside 0 to the number of messages.
        """
        last = {(m.factor, m.target): m.log_values for m in self.messages[: self.checked(step)]}
        total = {variable: np.array(log) for variable, log in self.local.items()}
        for (_, target), log in last.items():
            total[target] += log
        found = {}
        for variable, log in total.items():
            share = np.exp(log - log.max())
            found[variable] = share / share.sum() if self.product == "sum" else share
        return found

    def checked(self, step: int | None) -> int:
        """The number of messages that a step stands for.

        Raises:
            ValueError: outside 0 to the number of messages.
        """
        if step is None:
            return len(self)
        if not 0 <= step <= len(self):
            raise ValueError(f"step must be between 0 and {len(self)}, got {step}")
        return step

    def to_frame(self) -> "pd.DataFrame":
        """One row for each message and state.

        Columns: step, iteration, factor, sources (a tuple), target, message, state (its label),
        value, log_value, residual, operations.
        """
        import pandas as pd

        states = self.graph.states
        names = ("step", "iteration", "factor", "sources", "target", "message", "state", "value",
                 "log_value", "residual", "operations")  # fmt: skip
        rows = [
            (m.step, m.iteration, m.factor, m.sources, m.target, m.name, state, value, log,
             m.residual, m.operations)
            for m in self.messages
            for state, value, log in zip(states[m.target], m.values, m.log_values, strict=True)
        ]  # fmt: skip
        return pd.DataFrame({name: [row[i] for row in rows] for i, name in enumerate(names)})

    def draw(
        self,
        step: int | None = None,
        *,
        ax: "Axes | None" = None,
        path: str | Path | None = None,
    ) -> "Figure":
        """The graph with the messages that were sent, the last one highlighted.

        An arrow beside an edge is a message, with its numbers or, of more than three states, bars.
        Bars in a node are its belief so far, coloured once all messages are there. Where factors
        join other than two variables, or the same two, they are squares of their own. Numbers that
        find no free place are left out, except the last message's.

        Args:
            step: how many messages; all by default.
            ax: axes to draw in; by default a figure of its own.
            path: a .png, .svg or .pdf file to write, whole or not at all.

        Raises:
            ValueError: a step outside 0 to the number of messages, another ending.
        """
        from ..pictures.message_film import Film

        return Film(self).draw(step, ax, path)

    def animate(
        self, path: str | Path, *, seconds: float = 1.0, overwrite: bool = False
    ) -> int:  # fmt: skip
        """Write a moving picture: message after message, then the beliefs.

        Args:
            path: a .gif file to write, whole or not at all.
            seconds: how long each message is shown.
            overwrite: replace a file that is there.

        Returns:
            The number of frames: one before the first message, one for each message (of more than
            200, so many spread evenly), and eight in which the beliefs grow.

        Raises:
            ValueError: another ending, or no time.
            FileExistsError: the file exists and `overwrite` is false.
        """
        from ..pictures.message_film import Film

        return Film(self).animate(Path(path), seconds, overwrite)

    def __str__(self) -> str:
        counted = f"{len(self):,} message{'s' if len(self) != 1 else ''}"
        lines = [
            f"{counted} of {self.product}-product, schedule {self.schedule}: "
            f"{self.operations:,} operations (table entries visited)"
        ]
        if self.evidence:
            lines.append("evidence: " + some([f"{v}={s}" for v, s in self.evidence.items()]))
        rows = [("step", "message", "value", "operations")]
        rows += [
            (f"{m.step:4}", f"{m.name} = {m.formula}", numbers(m.values), f"{m.operations:,}")
            for m in self.messages[:ROWS]
        ]
        lines += columns(rows, 84) if self.messages else []
        more = len(self) - ROWS
        if more > 0:
            lines.append(f"and {more:,} more messages, in trace[{ROWS}:]")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Trace of {len(self):,} messages, {self.product}-product, {self.schedule}>"


class Notation:
    """Messages in symbols, as m_{x2->x3}(x3) = sum_{x2} psi(x2,x3) psi(x2) m_{x1->x2}(x2).

    Args:
        scopes: the variables of each factor.
        product: "sum" or "max".
        evidence: observed states; [x=state] stands for the indicator.
    """

    def __init__(
        self, scopes: Sequence[tuple[Variable, ...]], product: str, evidence: Mapping[Variable, Any]
    ) -> None:
        self.scopes, self.product, self.evidence = scopes, product, evidence
        self.local = {scope[0] for scope in scopes if len(scope) == 1}
        self.factors: dict[Variable, list[int]] = {}  # of two and more variables
        for factor, scope in enumerate(scopes):
            for variable in scope if len(scope) > 1 else ():
                self.factors.setdefault(variable, []).append(factor)
        self.alike = Counter(frozenset(scope) for scope in scopes if len(scope) > 1)
        self._found: dict[tuple[int, Variable], tuple[str, str]] = {}

    def of(self, factor: int, target: Variable) -> tuple[str, str]:
        """How a message is written, and what it is computed from."""
        if (factor, target) not in self._found:
            self._found[factor, target] = self.name(factor, target), self._formula(factor, target)
        return self._found[factor, target]

    def name(self, factor: int, target: Variable) -> str:
        """How a message is written."""
        scope = self.scopes[factor]
        if len(scope) == 2 and self.alike[frozenset(scope)] == 1:
            return f"m_{{{scope[scope[0] == target]}->{target}}}({target})"
        return f"m_{{f{factor}->{target}}}({target})"

    def _formula(self, factor: int, target: Variable) -> str:
        scope = self.scopes[factor]
        sources = [variable for variable in scope if variable != target]
        which = f"_{factor}" if self.alike[frozenset(scope)] > 1 else ""
        terms = [f"psi{which}({','.join(map(str, scope))})"]
        for source in sources:
            terms += [f"psi({source})"] if source in self.local else []
            terms += [f"[{source}={self.evidence[source]}]"] if source in self.evidence else []
            terms += [self.name(f, source) for f in self.factors[source] if f != factor]
        return f"{self.product}_{{{','.join(map(str, sources))}}} {some(terms, ' ')}"


def numbers(values: np.ndarray) -> str:
    """A message in a few digits."""
    shown = " ".join(f"{value:.4g}" for value in values[:STATES])
    more = len(values) - STATES
    return shown + (f" and {more} more" if more > 0 else "")
