"""Exact inference: compiled once for a structure, then any number of queries."""

from collections.abc import Collection, Hashable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..evidence import encode, soft_evidence
from ..names import unknown
from ..tables import Variable, tables_of
from .clique_tree import Cost
from .conflict import minimal_conflict
from .engine import Engine, Scope
from .posterior import MostProbable, Posterior
from .reduction import not_barren
from .rows import Rows, observed

if TYPE_CHECKING:
    import pandas as pd


class JunctionTree:
    """Exact inference by message passing on a clique tree (Lauritzen & Spiegelhalter 1988).

    The structure is compiled once; each query then runs a fixed program, for one row of evidence or
    for many. The cost is known before any table is made::

        engine = JunctionTree(graphs.load("alarm"))
        print(engine.cost)
        posterior = engine.query({"HISTORY": "TRUE", "CVP": "LOW"})
        posterior["LVFAILURE"], posterior.log_evidence

    Args:
        model: a pgmpy Bayesian or Markov network, a `FactorGraph`, or a list of factors: pgmpy's,
            or pairs of variables and a NumPy array or tensor. Tensors that require gradients make
            every answer differentiable with respect to them.
        seed: of ties between equally good elimination orders.
        dtype: "float64" or "float32", or NumPy's or torch's dtype of that name.
        device: where to compute: NumPy on the CPU, PyTorch elsewhere.

    Attributes:
        tables: the model as checked states and tables.

    Raises:
        TypeError, ValueError: see `graphs.tables.tables_of`.
        ValueError: an unknown dtype, or a device that is not there.
    """

    def __init__(
        self, model: Any, *, seed: int = 0, dtype: Any = "float64", device: Any = "cpu"
    ) -> None:
        self.tables = tables_of(model)
        name = getattr(dtype, "__name__", None) or str(dtype).removeprefix("torch.")
        if name not in ("float64", "float32"):
            raise ValueError(f"dtype must be float64 or float32; got {dtype!r}")
        self._device = str(device)
        if self._device != "cpu":
            _refuse_absent(self._device)
        self._names = list(self.tables.states)
        self._index = {variable: i for i, variable in enumerate(self._names)}
        factors = self.tables.factors
        self._log_scale: Any = self.tables.log_scale
        given = model
        if getattr(model, "is_tensor", False):  # a factor graph's, that leads back to its tensors
            given, self._log_scale = model.linear()
        self._learned = _tensors(given)
        directed = self.tables.directed
        scopes = [tuple(self._index[v] for v in factor.variables) for factor in factors]
        self._engine = Engine(
            [len(states) for states in self.tables.states.values()],
            scopes,
            [factor.values for factor in factors],
            partial(not_barren, scopes) if directed else None,
            seed,
            np.dtype(name),
        )

    @property
    def cost(self) -> Cost:
        """What a query without evidence takes; known before any table is made."""
        return self._engine.whole.tree.cost

    @property
    def log_partition(self) -> float:
        """log of the sum of the product of all tables, in nats, without any evidence."""
        return float(self.query(targets=()).log_evidences()[0])

    def query(
        self,
        evidence: Any = None,
        targets: Collection[Variable] | None = None,
        likelihoods: Mapping[Variable, Any] | None = None,
        tables: Mapping[Any, Any] | None = None,
    ) -> Posterior:
        """Marginals given the evidence.

        Args:
            evidence: a dict from variables to states, or to arrays of n states, or a DataFrame with
                one column a variable. None, NaN and, in integer arrays, -1 mean unobserved; states
                match by their text; integer tensors are state indices.
            targets: the variables to answer for; all by default.
            likelihoods: soft evidence: by variable a vector over its states, or (n, states), that
                multiplies the model; tensors may require gradients.
            tables: tensors in place of the model's tables: by variable for a Bayesian network (the
                table p(variable | parents), shaped as `engine.tables` has it), else by the factor's
                number in `engine.tables.factors`, whose `log_scale` stays. Answers can be
                differentiated with respect to them.

        Raises:
            ValueError: the single row of evidence is impossible (a smallest conflicting part is
                named), names what is not there, or rows differ in number.
            MemoryError: the tables would not fit into the memory that is free.
        """
        rows, single = self._rows(evidence, likelihoods)
        wanted: list[Scope] = [(v,) for v in self._targets(targets)]
        replaced = self._learned | (self._replaced(tables) if tables else {})
        log_z, found = self._marginals(rows, wanted, replaced)
        if single and not log_z[0] > -np.inf:
            raise ValueError(self._conflict(rows, replaced))
        return Posterior(
            _log_evidence=_scaled(log_z, self._log_scale),
            _marginals={self._names[v]: t for (v,), t in zip(wanted, found, strict=True)},
            _states=self.tables.states,
            _single=single,
            _joint=lambda variables: self._joint(variables, rows, replaced),
            _index=getattr(evidence, "index", None) if hasattr(evidence, "columns") else None,
        )

    def mpe(
        self, evidence: Any = None, likelihoods: Mapping[Variable, Any] | None = None
    ) -> MostProbable:
        """The most probable explanation: the states that maximise the product of all tables.

        Evidence and likelihoods are as in `query`. Each variable's state is that of the joint
        maximum, which need not be the most probable state of the variable by itself. Among equals
        one is chosen, always the same.

        Raises:
            ValueError, MemoryError: as in `query`.
        """
        rows, single = self._rows(evidence, likelihoods)
        rows.weights = _arrays(rows.weights)
        tables = _arrays(self._learned)
        states, value = self._engine.most_probable(rows, tables)
        if single and not value[0] > -np.inf:
            raise ValueError(self._conflict(rows, tables))
        states[:, ~(value > -np.inf)] = -1
        value = value + self.tables.log_scale
        assignment: dict[Variable, Any] = {}
        for name, found in zip(self._names, states, strict=True):
            known = np.empty(len(self.tables.states[name]) + 1, dtype=object)  # the last is None
            known[:-1] = self.tables.states[name]
            assignment[name] = known[found[0]] if single else known[found]
        index = getattr(evidence, "index", None) if hasattr(evidence, "columns") else None
        return MostProbable(assignment, float(value[0]) if single else value, index)

    def sample(
        self,
        n: int,
        evidence: Any = None,
        seed: int | None = 0,
        likelihoods: Mapping[Variable, Any] | None = None,
    ) -> "pd.DataFrame":
        """n exact draws of all variables given one row of evidence, as a DataFrame of states.

        Evidence and likelihoods are as in `query`; seed None draws differently each time.

        Raises:
            ValueError, MemoryError: as in `query`.
        """
        import pandas as pd

        if not isinstance(n, (int, np.integer)) or n < 0:
            raise ValueError(f"n must be a whole number of draws, not negative; got {n!r}")
        rows, _ = self._rows(evidence, likelihoods)
        rows.weights = _arrays(rows.weights)
        if rows.count != 1:
            raise ValueError("sample takes one row of evidence: a state a variable, not arrays")
        tables = _arrays(self._learned)
        if not self._engine.possible(rows, tables)[0]:
            raise ValueError(self._conflict(rows, tables))
        drawn = self._engine.draw(int(n), rows, np.random.default_rng(seed), tables)
        columns = {
            i: pd.Categorical.from_codes(codes, list(self.tables.states[name]))
            for i, (name, codes) in enumerate(zip(self._names, drawn, strict=True))
        }
        frame = pd.DataFrame(columns, index=range(n))
        frame.columns = pd.Index(self._names, tupleize_cols=False)
        return frame

    def __repr__(self) -> str:
        return f"<JunctionTree of {len(self._names)} variables: {self.cost}>"

    # What was asked, in numbers -------------------------------------------------------------------

    def _rows(self, evidence: Any, likelihoods: Mapping[Variable, Any] | None) -> tuple[Rows, bool]:
        codes, count = encode(self.tables, evidence)
        weights, count = soft_evidence(self.tables, likelihoods, count)
        rows = Rows(
            {self._index[v]: states for v, states in codes.items()},
            1 if count is None else count,
            {self._index[v]: table for v, table in weights.items()},
        )
        if count is not None:  # what is said once holds in every row
            for v, states in rows.codes.items():
                if len(states) != count:
                    rows.codes[v] = np.repeat(states, count)
        return rows, count is None

    def _targets(self, targets: Collection[Variable] | None) -> list[int]:
        if targets is None:
            return list(range(len(self._names)))
        if isinstance(targets, Hashable) and targets in self._index:
            targets = [targets]  # a node by itself, whatever it is
        if isinstance(targets, str) or not isinstance(targets, Iterable):
            raise ValueError(unknown("variable", targets, self._names))
        targets = list(targets)
        for variable in targets:
            if variable not in self._index:
                raise ValueError(unknown("variable", variable, self._names))
        return sorted({self._index[variable] for variable in targets})

    def _replaced(self, tables: Mapping[Any, Any]) -> dict[int, Any]:
        import torch

        found: dict[int, Any] = {}
        for key, table in tables.items():
            directed = self.tables.directed
            at = self._index.get(key) if directed else key
            if at is None or not (isinstance(at, int) and 0 <= at < len(self.tables.factors)):
                raise ValueError(
                    unknown(
                        "table", key, self._names if directed else range(len(self._engine.scopes))
                    )
                )
            shape = self.tables.factors[at].values.shape
            table = torch.as_tensor(table)
            if tuple(table.shape) != shape:
                raise ValueError(
                    f"the table of {key} has the shape {shape} over "
                    f"{self.tables.factors[at].variables}; got {tuple(table.shape)}"
                )
            found[at] = table
        return found

    def _marginals(
        self, rows: Rows, wanted: list[Scope], tables: Mapping[int, Any]
    ) -> tuple[Any, list[Any]]:
        engine = self._engine
        torch_needed = tables or self._device != "cpu"
        if not torch_needed and not any(hasattr(t, "detach") for t in rows.weights.values()):
            return engine.marginals(rows, wanted)
        from .differentiation import by_gradients

        return by_gradients(engine, rows, wanted, tables=tables, device=self._device)

    def _joint(self, variables: tuple[Variable, ...], rows: Rows, tables: Mapping[int, Any]) -> Any:
        """p(variables | evidence), axes in the order asked for, rows last."""
        scope = tuple(self._index[v] for v in variables)
        engine = self._engine
        free = tuple(v for v in scope if v not in rows.everywhere())
        ordered = tuple(sorted(free))
        log_z, found = self._marginals(rows, [ordered] if free else [], tables)
        cards = engine.cardinalities
        import torch

        if free:
            table = torch.as_tensor(found[0])
        else:  # all mass at the observed states, where they are possible
            certain = torch.as_tensor(log_z).detach() > -np.inf
            table = torch.where(certain, 1.0, np.nan).to(getattr(torch, engine.dtype.name))
        table = table.reshape(*(cards[v] for v in ordered), rows.count)
        table = table.permute(*(ordered.index(v) for v in free), len(free))
        table = table.reshape(*(cards[v] if v in free else 1 for v in scope), rows.count)
        for axis, v in enumerate(scope):
            if v not in free:  # observed in every row: all mass at its state
                hot = torch.as_tensor(rows.codes[v]) == torch.arange(cards[v])[:, None]
                shape = [1] * len(scope) + [rows.count]
                shape[axis] = cards[v]
                table = table * hot.reshape(shape).to(table)
        return table

    def _conflict(self, rows: Rows, tables: Mapping[int, Any]) -> str:
        """What a person is told of impossible evidence."""
        rows = Rows(rows.codes, rows.count, _arrays(rows.weights))
        arrays = _arrays(tables)

        def possible(items: list[tuple[int, bool]]) -> bool:
            return bool(self._engine.possible(rows.only(items), arrays)[0])

        needed = minimal_conflict(observed(rows), possible)
        if not needed:
            return "no assignment is possible: the product of the model's tables is zero everywhere"
        said = []
        for v, soft in needed:
            name = self._names[v]
            said.append(
                f"the likelihood of {name}"
                if soft
                else f"{name}={self.tables.states[name][rows.codes[v][0]]}"
            )
        if len(said) == 1:
            return f"the evidence is impossible: {said[0]} has probability zero"
        return (
            f"the evidence is impossible: {', '.join(said)} cannot hold together "
            "(without any one of them the rest can)"
        )


def _refuse_absent(device: str) -> None:
    import torch

    try:
        torch.zeros(0, device=device)
    except (AssertionError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"cannot compute on device {device!r}: {reason}; use 'cpu'") from error


def _arrays(tables: Mapping[int, Any]) -> dict[int, np.ndarray]:
    """NumPy's arrays with the values that tensors have now."""
    return {at: t.detach().cpu().numpy() if hasattr(t, "detach") else t for at, t in tables.items()}


def _tensors(model: Any) -> dict[int, Any]:
    """The factors that were given as tensors which require gradients."""
    if not isinstance(model, (list, tuple)):
        return {}
    found = {}
    for index, item in enumerate(model):
        values = item[1] if isinstance(item, (tuple, list)) and len(item) == 2 else None
        if getattr(values, "requires_grad", False):
            found[index] = values
    return found


def _scaled(log_z: Any, log_scale: Any) -> Any:
    """log Z of each row with the logarithm of the model's scale, a number or a tensor."""
    if hasattr(log_scale, "detach"):
        import torch

        log_z = torch.as_tensor(log_z)
        log_scale = log_scale.to(log_z.device)
    return log_z + log_scale
