"""What a query answers: marginals, the probability of the evidence, joints."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..names import unknown
from ..tables import Variable

if TYPE_CHECKING:
    import pandas as pd
    import torch

SHOWN = 40


@dataclass(frozen=True)
class Posterior:
    """Marginals of each target given the evidence; ``posterior[variable]``.

    Attributes:
        log_evidence: log of the sum over unobserved variables of the product of all tables, in
            nats: log P(evidence) for a Bayesian network, the clamped log Z for a Markov one. A
            scalar, or (n,) for n rows.
        possible: whether the evidence has any probability, a bool or (n,) bools. Rows that are not
            possible have log_evidence -inf and marginals nan.
    """

    _log_evidence: Any = field(repr=False)  # (n,)
    _marginals: Mapping[Variable, Any] = field(repr=False)  # (states, n)
    _states: Mapping[Variable, tuple[Any, ...]] = field(repr=False)
    _single: bool = field(repr=False)
    _joint: Callable[[tuple[Variable, ...]], Any] = field(repr=False, compare=False)
    _index: Any = field(default=None, repr=False, compare=False)  # of a DataFrame of evidence

    @property
    def log_evidence(self) -> "torch.Tensor":
        """log of the sum over unobserved variables of the product of all tables, in nats."""
        import torch

        value = torch.as_tensor(self._log_evidence)
        return value[0] if self._single else value

    def log_evidences(self) -> np.ndarray:
        """`log_evidence` as a NumPy array (n,), (1,) for a single query; needs no PyTorch."""
        value = self._log_evidence
        return value if isinstance(value, np.ndarray) else value.detach().cpu().numpy()

    @property
    def possible(self) -> Any:
        """Whether the evidence has any probability: a bool, or (n,) bools for n rows."""
        possible = self.log_evidence.detach() > -np.inf
        return bool(possible) if self._single else possible

    @property
    def variables(self) -> list[Variable]:
        """The targets, in the model's order."""
        return list(self._marginals)

    def __len__(self) -> int:
        """How many rows of evidence were answered."""
        return len(self._log_evidence)

    def __iter__(self) -> Any:
        return iter(self._marginals)

    def __contains__(self, variable: Variable) -> bool:
        return variable in self._marginals

    def __getitem__(self, variable: Variable) -> "torch.Tensor":
        """p(variable | evidence): (states,), or (n, states) for n rows; one-hot where observed.

        Raises:
            KeyError: the variable is unknown or was not among the targets.
        """
        import torch

        table = torch.as_tensor(self._marginals[self._known(variable)]).clone()
        return table[:, 0] if self._single else table.T

    def states(self, variable: Variable) -> tuple[Any, ...]:
        """The states of a variable, in the order of its marginal.

        Raises:
            KeyError: no such variable.
        """
        if variable not in self._states:
            raise KeyError(unknown("variable", variable, self._states))
        return self._states[variable]

    def joint(self, *variables: Variable) -> "torch.Tensor":
        """p(variables | evidence) over several variables, one axis each, a row's axis first.

        Raises:
            KeyError: no such variable.
            ValueError: a variable is named twice, or none is.
            MemoryError: the table that holds them all is too large.
        """
        if len(variables) == 1 and isinstance(variables[0], list):
            variables = tuple(variables[0])
        for variable in variables:
            self.states(variable)
        if not variables or len(set(variables)) != len(variables):
            raise ValueError("joint takes one or more different variables")
        import torch

        table = torch.as_tensor(self._joint(variables))
        return table[..., 0] if self._single else table.movedim(-1, 0)

    def to_numpy(self) -> dict[Variable, np.ndarray]:
        """The marginals as NumPy arrays, (states,) or (n, states), by variable."""
        found = {variable: self._numbers(variable) for variable in self._marginals}
        return {v: table[:, 0] if self._single else table.T for v, table in found.items()}

    def to_frame(self) -> "pd.DataFrame":
        """The marginals: for one query a row each (variable, state), else a column each."""
        import pandas as pd

        labels = [(v, s) for v in self._marginals for s in self._states[v]]
        index = pd.MultiIndex.from_tuples(labels, names=["variable", "state"])
        if not labels:
            index = pd.MultiIndex.from_arrays([[], []], names=["variable", "state"])
        tables = [self._numbers(v) for v in self._marginals]
        values = np.concatenate(tables) if tables else np.empty((0, len(self)))
        if self._single:
            return pd.DataFrame({"probability": values[:, 0]}, index=index)
        return pd.DataFrame(values.T, columns=index, index=self._index)

    def _numbers(self, variable: Variable) -> np.ndarray:
        table = self._marginals[variable]
        return table if isinstance(table, np.ndarray) else table.detach().cpu().numpy()

    def _known(self, variable: Variable) -> Variable:
        if variable in self._marginals:
            return variable
        if variable in self._states:
            raise KeyError(f"{variable} was not among the targets of the query")
        raise KeyError(unknown("variable", variable, self._states))

    def __str__(self) -> str:
        if not self._single:
            impossible = sum(1 for value in self._log_evidence.tolist() if value == -np.inf)
            return (
                f"posteriors of {len(self._marginals)} variables for {len(self)} rows of evidence"
                + (f", {impossible} of them impossible" if impossible else "")
            )
        log_evidence = float(self._log_evidence[0])
        shown = 0.0 if abs(log_evidence) < 1e-12 else log_evidence  # rounding of log 1
        lines = [f"log evidence {shown:.6g} nats"]
        width = max((len(str(v)) for v in self._marginals), default=0)
        for variable in list(self._marginals)[:SHOWN]:
            shares = [
                f"{state} {share:.4f}"
                for state, share in zip(
                    self._states[variable], self._numbers(variable)[:, 0], strict=True
                )
            ]
            lines.append(f"{variable!s:{width}}  " + "  ".join(shares))
        more = len(self._marginals) - SHOWN
        return "\n".join(lines + ([f"... and {more} more variables"] if more > 0 else []))

    def _repr_html_(self) -> str:
        return self.to_frame()._repr_html_()

    def __repr__(self) -> str:
        return f"<Posterior: {str(self).splitlines()[0]}>"


@dataclass(frozen=True)
class MostProbable:
    """The most probable explanation of the evidence.

    Attributes:
        assignment: the state of each variable, or (n,) states for n rows; None in impossible rows.
        log_probability: log of the product of all tables there, in nats: a float, or (n,).
    """

    assignment: dict[Variable, Any]
    log_probability: Any
    _index: Any = field(default=None, repr=False, compare=False)  # of a DataFrame of evidence

    def to_frame(self) -> "pd.DataFrame":
        """One column a variable, one row a row of evidence."""
        import pandas as pd

        single = isinstance(self.log_probability, float)
        states = [[s] if single else s for s in self.assignment.values()]
        frame = pd.DataFrame(dict(enumerate(states)), index=self._index)
        frame.columns = pd.Index(list(self.assignment), tupleize_cols=False)
        return frame

    def __str__(self) -> str:
        if not isinstance(self.log_probability, float):
            return f"most probable states of {len(self.assignment)} variables, by row"
        lines = [f"log probability {self.log_probability:.6g} nats"]
        width = max((len(str(v)) for v in self.assignment), default=0)
        return "\n".join(lines + [f"{v!s:{width}}  {s}" for v, s in self.assignment.items()])
