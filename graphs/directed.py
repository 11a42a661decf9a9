"""Bayesian networks: p(x) = prod_i p(x_i | pa_i), written, counted, tabulated, scored, sampled."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np

from .ancestral import checked_count, flat_index, sample_indices, topological_order
from .evidence import UNOBSERVED, encode
from .tables import Tables, Variable, directed_tables, refuse_cycles

if TYPE_CHECKING:
    import pandas as pd

LARGEST_JOINT = 2**24  # cells; as float64, 128 MiB
WIDTH, NEXT = 88, "\n  "  # of printed lines: the longest, and how one continues
THIN = r" \, "  # between factors in LaTeX
_LATEX = {c: "\\" + c for c in "_%&#${} "} | {"\\": r"\backslash ", "~": r"\sim ", "^": r"\wedge "}


@dataclass(frozen=True)
class Factorization:
    """p(x) = prod_i p(x_i | pa_i); `print` shows text, a notebook typesets it."""

    terms: tuple[tuple[Variable, tuple[Variable, ...]], ...]
    """Each variable with its parents, in topological order."""

    def __str__(self) -> str:
        names, terms = self._written(_plain, " | ")
        left, right = _lines(names, names, ", "), _lines(terms, terms, " ")
        one = f"p({', '.join(left)}) = {' '.join(right)}"
        if len(one) <= WIDTH:
            return one
        return f"p({f',{NEXT}'.join(left)})\n= {NEXT.join(right)}"

    @property
    def latex(self) -> str:
        """The equation in LaTeX, without the dollars; on several lines where the text is."""
        plain_names, plain_terms = self._written(_plain, " | ")
        names, terms = self._written(_latex, r" \mid ")
        left, right = _lines(names, plain_names, ", "), _lines(terms, plain_terms, THIN)
        if "\n" not in str(self):
            return f"p({', '.join(left)}) = {THIN.join(right)}"
        break_line = r" \\" + "\n" + r"& \quad "
        equation = f"p({f',{break_line}'.join(left)}) \\\\\n& = {break_line.join(right)}"
        return "\n".join([r"\begin{aligned}", f"& {equation}", r"\end{aligned}"])

    def _repr_latex_(self) -> str:
        return rf"$\displaystyle {self.latex}$"

    def _written(self, name: Callable[[Variable], str], bar: str) -> tuple[list[str], list[str]]:
        """The names, and the terms p(name | parents), each name written by `name`."""
        terms = [
            f"p({name(variable)}{bar if given else ''}{', '.join(map(name, given))})"
            for variable, given in self.terms
        ]
        return [name(variable) for variable, _ in self.terms], terms or ["1"]


@dataclass(frozen=True)
class ParameterCount:
    """How many numbers a Bayesian network needs, and how many its full table would."""

    factorised: int
    """sum_i (K_i - 1) prod of K over the parents: the free entries of the conditional tables."""
    full: int
    """prod_i K_i - 1: the free entries of the joint table."""

    def __str__(self) -> str:
        said = f"{_short(self.factorised)} free parameters; the full table has {_short(self.full)}"
        if not 0 < self.factorised < self.full:
            return said
        return (
            f"{said}, {_power(math.log10(self.full) - math.log10(self.factorised))} times as many"
        )


def factorization(bn: Any) -> Factorization:
    """The factorisation p(x) = prod_i p(x_i | pa_i) of a network, to print or to typeset.

    Variables stand in topological order; of those that may come next, the model's first.

    Args:
        bn: a Bayesian network, its `Tables`, or any networkx DiGraph.

    Raises:
        TypeError: not directed.
        ValueError: a directed cycle, which is named.
    """
    if isinstance(bn, nx.Graph):
        if not bn.is_directed() or bn.is_multigraph():
            raise TypeError(
                f"expected a directed graph (networkx DiGraph); got {type(bn).__name__}"
            )
        refuse_cycles(bn)
        graph = bn
    else:
        graph = directed_tables(bn).graph()
    order = topological_order(graph)
    place = {variable: i for i, variable in enumerate(order)}
    parents = {v: sorted(graph.predecessors(v), key=place.__getitem__) for v in order}
    return Factorization(tuple((v, tuple(parents[v])) for v in order))


def num_parameters(bn: Any) -> ParameterCount:
    """The free parameters of a network and of its full table, exactly.

    A chain of M nodes with K states has K - 1 + (M - 1) K (K - 1), against K^M - 1.

    Args:
        bn: a Bayesian network.
    """
    tables = directed_tables(bn)
    factorised = sum(f.values.size - f.values.size // len(f.values) for f in tables.factors)
    return ParameterCount(factorised, math.prod(tables.cardinalities.values()) - 1)


def joint(bn: Any) -> "pd.Series":
    """The full joint table of a small network, p(x) = prod_i p(x_i | pa_i).

    It is a pandas Series, which a notebook shows as a table and which is sliced, summed and
    unstacked by the names of variables and states: `joint(bn).groupby("rain").sum()`,
    `joint(bn).xs("yes", level="rain")`. `joint(bn).to_numpy()` is the table, last variable fastest.

    Args:
        bn: a Bayesian network of at most 2**24 cells.

    Returns:
        Probabilities, float64, indexed by the states with one level a variable, in the model's
        order.

    Raises:
        ValueError: too many cells, or no variables.
    """
    import pandas as pd

    tables = directed_tables(bn)
    sizes = list(tables.cardinalities.values())
    cells = math.prod(sizes)
    if not sizes:
        raise ValueError("the network has no variables, so there is no table to index")
    if cells > LARGEST_JOINT:
        raise ValueError(
            f"the joint table of {len(sizes)} variables has {_short(cells)} cells, more than the "
            f"{LARGEST_JOINT:,} that fit; graphs.JunctionTree answers queries without it"
        )
    # Variables with one state take no axis: NumPy has 64.
    place = {v: i for i, v in enumerate(tables.states)}
    table = np.ones([size for size in sizes if size > 1])
    for variables, values in tables.factors:
        by_place = sorted(range(len(variables)), key=lambda axis: place[variables[axis]])
        shape = [
            size if v in variables else 1
            for v, size in zip(tables.states, sizes, strict=True)
            if size > 1
        ]
        table *= values.transpose(by_place).reshape(shape)
    codes, repeat = [], cells
    for size in sizes:  # narrow codes: those of pandas' own product take eight times the memory
        repeat //= size
        narrow = np.arange(size, dtype=np.min_scalar_type(-size)).repeat(repeat)
        codes.append(np.tile(narrow, cells // len(narrow)))
    levels = [pd.Index(list(states), tupleize_cols=False) for states in tables.states.values()]
    index = pd.MultiIndex(levels, codes, names=list(tables.states), verify_integrity=False)
    return pd.Series(table.ravel(), index, name="probability")


def log_probability(bn: Any, rows: Any) -> np.ndarray | float:
    """log p(x) = sum_i log p(x_i | pa_i) of complete rows, in nats.

    Args:
        bn: a Bayesian network.
        rows: a state for every variable: a dict of states, a dict of arrays of n states, or a
            DataFrame with one column a variable.

    Returns:
        float64 array (n,), -inf for impossible rows; a float for a single row.

    Raises:
        ValueError: a variable or cell is missing, or a variable or state is unknown.
    """
    tables = directed_tables(bn)
    indices, n = encode(tables, rows)
    _refuse_gaps(tables, indices)
    total = np.zeros(1 if n is None else n)
    for variables, values in tables.factors:
        with np.errstate(divide="ignore"):
            logs = np.log(values).ravel()
        total += logs[flat_index([indices[v] for v in variables], [*values.shape])]
    return float(total[0]) if n is None else total


def sample(bn: Any, n: int, seed: int = 0) -> "pd.DataFrame":
    """n independent rows drawn from the network, each variable given its parents.

    Args:
        bn: a Bayesian network.
        n: how many rows; 0 gives an empty table with the right columns.
        seed: the same seed gives the same rows.

    Returns:
        One column a variable in the model's order, categorical with the variable's states as its
        categories in order.

    Raises:
        TypeError, ValueError: n is no whole number, or negative.
    """
    import pandas as pd

    tables = directed_tables(bn)
    rng = np.random.default_rng(seed)
    drawn = sample_indices(tables, checked_count(n, 0, "n, the rows to draw,"), rng)
    columns = {}
    for place, (variable, states) in enumerate(tables.states.items()):
        kind = pd.CategoricalDtype(pd.Index(list(states), tupleize_cols=False))
        columns[place] = pd.Categorical.from_codes(drawn[variable], dtype=kind)
    frame = pd.DataFrame(columns, index=pd.RangeIndex(n))
    frame.columns = pd.Index(list(tables.states), tupleize_cols=False)  # tuples stay names
    return frame


def _refuse_gaps(tables: Tables, indices: dict[Variable, np.ndarray]) -> None:
    missing = [v for v in tables.states if v not in indices]
    gaps = [v for v, column in indices.items() if (column == UNOBSERVED).any()]
    if not (missing or gaps):
        return
    named = missing or gaps
    listed = ", ".join(str(v) for v in named[:8])
    listed += f" and {len(named) - 8} more" if named[8:] else ""
    raise ValueError(
        f"a complete row has a state for every variable; {'missing' if missing else 'unobserved'} "
        f"here: {listed}. For partial rows use graphs.JunctionTree(model).query(...).log_evidence"
    )


def _lines(pieces: list[str], plain: list[str], glue: str) -> list[str]:
    """The pieces in lines, as many in each as fit when they are written plainly."""
    lines: list[list[str]] = [[]]
    used = len(NEXT)
    for piece, text in zip(pieces, plain, strict=True):
        used += len(text) + 2
        if used > WIDTH and lines[-1]:
            lines.append([])
            used = len(NEXT) + len(text) + 2
        lines[-1].append(piece)
    return [glue.join(line) for line in lines]


def _plain(variable: Variable) -> str:
    return " ".join(str(variable).split())


def _latex(variable: Variable) -> str:
    """A name in mathematics: one letter in italics, more upright, special characters escaped."""
    name = _plain(variable)
    escaped = "".join(_LATEX.get(character, character) for character in name)
    return escaped if len(name) == 1 and name.isalpha() else rf"\mathrm{{{escaped}}}"


def _short(count: int) -> str:
    """A count in full where it can be read, else to three digits; Python refuses to print more."""
    return f"{count:,}" if count < 10**15 else _power(math.log10(count))


def _power(log10: float) -> str:
    """10**log10 to three digits, however large."""
    if log10 < 6:
        return f"{10**log10:,.3g}" if log10 < 3 else f"{10**log10:,.0f}"
    exponent = math.floor(log10)
    mantissa = f"{10 ** (log10 - exponent):.2f}"
    return f"{mantissa}e{exponent}" if mantissa != "10.00" else f"1.00e{exponent + 1}"
