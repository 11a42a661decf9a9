"""Undirected models: P(Y) = 1/Z prod_C psi_C(Y_C) over the maximal cliques C of a graph.

A Markov random field (Markov network) has one non-negative potential psi_C a maximal clique; Z sums
their product over all assignments (Lauritzen 1996, section 3.2; Bishop, PRML, section 8.3). Factors
over parts of a clique are multiplied into it, so a list of factors says the same.
"""

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np

from ..directed import NEXT, THIN, WIDTH, _latex, _lines, _plain
from ..tables import Tables, Variable, tables_of
from .cliques import maximal_cliques, undirected_graph

SHOWN = 40  # cliques whose factors are printed
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
MARKOV = "pairwise, local and global Markov properties"


@dataclass(frozen=True)
class GibbsFactorization:
    """P(Y) = 1/Z prod_C psi_C(Y_C); `print` shows text, a notebook typesets it.

    Attributes:
        variables: Y, in the model's order.
        cliques: the maximal cliques C, in the order of their variables.
        factors: the scopes of the model's factors; None for a graph without factors.
        members: for each clique the numbers of the factors, from 0, whose product psi_C is. Printed
            numbers are from 1. A factor goes into the first clique that holds its scope.
        zeros: for each factor how many of its entries are zero.
        sizes: for each factor how many entries it has.
    """

    variables: tuple[Variable, ...]
    cliques: tuple[tuple[Variable, ...], ...]
    factors: tuple[tuple[Variable, ...], ...] | None = None
    members: tuple[tuple[int, ...], ...] = ()
    zeros: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()

    @property
    def positive(self) -> bool | None:
        """Whether every assignment has a positive product; None for a graph without factors.

        Each entry of a factor takes part in the product of some assignment, so the product is
        positive everywhere exactly if no factor has a zero.
        """
        return None if self.factors is None else not any(self.zeros)

    @property
    def equation(self) -> str:
        """The equation in text, on several lines where it is long."""
        left, right = self._lines(_plain, _potential, ", ", " ")
        one = f"P({', '.join(left)}) = 1/Z {' '.join(right)}"
        if len(one) <= WIDTH:
            return one
        return f"P({f',{NEXT}'.join(left)})\n= 1/Z {NEXT.join(right)}"

    @property
    def latex(self) -> str:
        """The equation in LaTeX, without the dollars; on several lines where the text is."""
        left, right = self._lines(_latex, _latex_potential, ", ", THIN)
        z = r"\frac{1}{Z}" + THIN
        if "\n" not in self.equation:
            return f"P({', '.join(left)}) = {z}{THIN.join(right)}"
        break_line = r" \\" + "\n" + r"& \quad "
        equation = f"P({f',{break_line}'.join(left)}) \\\\\n& = {z}{break_line.join(right)}"
        return "\n".join([r"\begin{aligned}", f"& {equation}", r"\end{aligned}"])

    def _lines(
        self,
        name: Callable[[Variable], str],
        potential: Callable[[int, Sequence[Variable]], str],
        comma: str,
        glue: str,
    ) -> tuple[list[str], list[str]]:
        """Both sides in lines that are broken where the plain text is."""
        names = [_plain(variable) for variable in self.variables]
        terms = [_potential(i, clique) for i, clique in enumerate(self.cliques)]
        written = [potential(i, clique) for i, clique in enumerate(self.cliques)]
        left = _lines([name(variable) for variable in self.variables], names, comma)
        return left, _lines(written, terms, glue)

    def _factor(self, number: int) -> str:
        return called("φ", number, (self.factors or ())[number])

    def _placed(self) -> list[str]:
        """Which factors make up each potential."""
        lines = []
        for i, (clique, members) in enumerate(zip(self.cliques, self.members, strict=True)):
            if i == SHOWN:
                lines.append(f"and {len(self.cliques) - SHOWN:,} more cliques")
                break
            product = " ".join(self._factor(number) for number in members) or "1"
            lines.append(f"{_potential(i, clique)} = {product}")
        return lines

    @property
    def verdict(self) -> str:
        """What the theorem of Hammersley and Clifford says here."""
        if self.factors is None:
            return (
                f"For a positive distribution the {MARKOV} of the graph are equivalent, and so is "
                "that it factorises as above (Hammersley and Clifford 1971). One with zeros may "
                "have all three and not factorise (Moussouris 1974)."
            )
        if self.positive:
            return (
                f"No factor has a zero, so P is positive. Then the {MARKOV} of the graph are "
                "equivalent, and so is that P factorises as above (Hammersley and Clifford 1971)."
            )
        with_zeros = [number for number, zeros in enumerate(self.zeros) if zeros]
        said = [
            f"{self._factor(n)} has {self.zeros[n]} zero{'s' if self.zeros[n] > 1 else ''} among "
            f"its {self.sizes[n]:,} entries"
            for n in with_zeros[:8]
        ]
        said += [f"{len(with_zeros) - 8} more factors have zeros"] if with_zeros[8:] else []
        return (
            f"P is not positive: {'; '.join(said)}. As a product it has the {MARKOV} of the "
            "graph nonetheless, but the theorem of Hammersley and Clifford does not apply: a "
            "distribution with zeros may have all three and not factorise (Moussouris 1974), or "
            "have the pairwise one without the local, or the local one without the global."
        )

    def __str__(self) -> str:
        placed = self._placed() if self.factors is not None else []
        said = textwrap.fill(self.verdict, WIDTH, break_on_hyphens=False)
        return "\n\n".join(filter(None, [self.equation, "\n".join(placed), said]))

    def _repr_latex_(self) -> str:
        return rf"$\displaystyle {self.latex}$"


def gibbs_factorization(model: Any) -> GibbsFactorization:
    """The factorisation P(Y) = 1/Z prod_C psi_C(Y_C) over the maximal cliques of the graph.

    A product of non-negative potentials of the cliques has the pairwise, the local and the global
    Markov property of the graph. The other way round, a positive distribution with any of them is
    such a product (Hammersley and Clifford 1971; Lauritzen 1996, theorem 3.9). Where a factor has a
    zero the distribution is not positive, which the result says.

    Args:
        model: an undirected graph, a pgmpy Markov network, or factors that
            `graphs.tables.tables_of` takes; see
            `graphs.undirected.cliques.undirected_graph`.

    Raises:
        TypeError: a directed graph or model.
        ValueError: no variables; the scope of a factor is no clique of the model's graph; a factor
            that is zero everywhere.
    """
    graph = undirected_graph(model)
    if not graph:
        raise ValueError("the model has no variables, so it has no cliques")
    variables, found = tuple(graph), tuple(maximal_cliques(graph))
    bare = not model.get_factors() if hasattr(model, "get_factors") else model is graph
    if bare:
        return GibbsFactorization(variables, found)
    from ..factor_graph import FactorGraph

    factors = FactorGraph.of(model).factors  # logarithms: what is tiny is not taken for a zero
    scopes = tuple(scope for scope, _ in factors)
    tables = [t.detach().cpu() if hasattr(t, "detach") else t for _, t in factors]
    return GibbsFactorization(
        variables,
        found,
        scopes,
        _members(graph, found, scopes),
        tuple(int(np.count_nonzero(np.isneginf(table))) for table in tables),
        tuple(math.prod(table.shape) for table in tables),
    )


def to_markov(model: Any) -> Any:
    """The pgmpy Markov network with the same distribution as a Bayesian network.

    Its graph is the moral graph, its factors are the tables p(x_i | pa_i), which lie within the
    cliques of the moral graph; Z = 1 (Bishop, PRML, section 8.3.4). Independences of the directed
    graph that moralisation hides are still in the numbers. Factors that are undirected already
    become a Markov network whose edges join the scope of each.

    Args:
        model: whatever `graphs.tables.tables_of` takes.

    Returns:
        A pgmpy `DiscreteMarkovNetwork`.

    Raises:
        TypeError, ValueError: see `graphs.tables.tables_of`.
    """
    from ..io import markov_network

    tables = tables_of(model)
    return markov_network(Tables(tables.states, tables.factors, False, tables.name))


def _members(
    graph: nx.Graph, found: Sequence[tuple[Variable, ...]], scopes: Sequence[tuple[Variable, ...]]
) -> tuple[tuple[int, ...], ...]:
    """For each clique the factors that go into it: each into the first that holds its scope."""
    holding: dict[Variable, set[int]] = {variable: set() for variable in graph}
    for i, clique in enumerate(found):
        for variable in clique:
            holding[variable].add(i)
    members: list[list[int]] = [[] for _ in found]
    for number, scope in enumerate(scopes):
        within = set.intersection(*(holding[v] for v in scope)) if scope else {0}
        if not within:
            one, other = next(
                (a, b) for i, a in enumerate(scope) for b in scope[i + 1 :] if b not in graph[a]
            )
            raise ValueError(
                f"factor {number} over {', '.join(map(str, scope))} is over no clique of the "
                f"model's graph: {one} and {other} are not adjacent; add the edge"
            )
        members[min(within)].append(number)
    return tuple(tuple(numbers) for numbers in members)


def called(letter: str, number: int, scope: Sequence[Variable]) -> str:
    """`φ₁(a, b)`: numbers are printed from 1."""
    return f"{letter}{str(number + 1).translate(_SUBSCRIPTS)}({', '.join(map(_plain, scope))})"


def _potential(number: int, clique: Sequence[Variable]) -> str:
    return called("ψ", number, clique)


def _latex_potential(number: int, clique: Sequence[Variable]) -> str:
    return rf"\psi_{{{number + 1}}}({', '.join(map(_latex, clique))})"
