"""What variable elimination did: its steps, the graph that they induce, and the clique tree."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np

from ..tables import Variable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 12  # factors and edges of a step, and names in an error, that are written out
ROWS = 20  # of a posterior that are printed
Scope = tuple[Variable, ...]


@dataclass(frozen=True)
class Step:
    """One product of tables, and the sum over one variable that follows it.

    Attributes:
        variable: the variable that is summed out; None for the last product, over the query.
        tables: numbers of the model's factors that are joined.
        messages: numbers of the earlier steps, from 0, whose messages are joined.
        joined: the scopes of these, in this order, without observed variables.
        factors: how they are written: "p(A | B)", "f(A, B)", "m1(A)".
        scope: the variables of the product, before the sum.
        cells: the size of the product's table.
        left: the variables of the message, in the model's order; of the last product, the query.
        fill: pairs of `left` that no factor and no earlier step had joined.
        message: how that which is left is written.
    """

    variable: Variable | None
    tables: tuple[int, ...]
    messages: tuple[int, ...]
    joined: tuple[Scope, ...]
    factors: tuple[str, ...]
    scope: Scope
    cells: int
    left: Scope
    fill: tuple[tuple[Variable, Variable], ...]
    message: str

    def __str__(self) -> str:
        return "  ".join(part for part in self.parts() if part)

    def parts(self) -> tuple[str, str, str, str, str]:
        """What is printed: what is done, the product, the message, its cells, the fill edges."""
        what = "multiply:" if self.variable is None else f"sum out {self.variable}:"
        adds = some([f"{a} - {b}" for a, b in self.fill])
        cells = f"{self.cells:,} cell{'s' if self.cells != 1 else ''}"
        product = some(self.factors, " ") or "1"
        return what, product, f"->  {self.message}", cells, f"adds {adds}" if adds else ""


@dataclass(frozen=True)
class RunningIntersection:
    """For each variable whether the cliques that hold it are connected, as in every clique tree.

    Attributes:
        cliques: the cliques that hold each variable, as they are written.
        connected: whether they form one subtree.
    """

    cliques: dict[Variable, tuple[str, ...]]
    connected: dict[Variable, bool]

    @property
    def holds(self) -> bool:
        """Whether every variable's cliques form one subtree."""
        return all(self.connected.values())

    def __str__(self) -> str:
        said = {True: "one subtree", False: "not connected"}
        rows = [
            (f"{variable}:", " ".join(cliques), said[self.connected[variable]])
            for variable, cliques in self.cliques.items()
        ]
        verb = "holds" if self.holds else "does not hold"
        return "\n".join([*columns(rows), f"the running intersection property {verb}"])


@dataclass(frozen=True, eq=False, repr=False)
class Elimination:
    """A posterior by variable elimination, and how it was found; `print` shows it step by step.

    Attributes:
        query: the variables asked for.
        states: their states, in the order of the axes of `posterior`.
        evidence: the states that were observed.
        steps: one for each variable summed out.
        last: the product of what is left, over the query.
        posterior: p(query | evidence), one axis a query variable, in the order asked for.
        log_evidence: log of the sum over all unobserved variables of the product of all tables, in
            nats: log p(evidence) for a Bayesian network, the clamped log Z for a Markov one.
    """

    query: Scope
    states: Mapping[Variable, tuple[Any, ...]]
    evidence: Mapping[Variable, Any]
    steps: tuple[Step, ...]
    last: Step
    posterior: np.ndarray
    log_evidence: float

    @property
    def order(self) -> Scope:
        """The variables that were summed out, in turn."""
        return tuple(step.variable for step in self.steps)

    @property
    def largest_table(self) -> int:
        """Cells of the largest table that a step made before its sum, or of the last product."""
        return max(step.cells for step in self._all)

    @property
    def total_cells(self) -> int:
        """Cells of the tables that the steps made before their sums, and of the last product."""
        return sum(step.cells for step in self._all)

    @property
    def width(self) -> int:
        """The induced width: variables of the largest clique of the induced graph, minus one.

        The query is a clique too, since the last product holds it whole.
        """
        return max(0, max(len(step.scope) for step in self._all) - 1)

    @property
    def _all(self) -> tuple[Step, ...]:
        return (*self.steps, self.last)

    def induced_graph(self) -> nx.Graph:
        """The unobserved variables, joined where they meet in the table of a step.

        Edges that no factor has carry `fill=True`, the others `fill=False`; the last product fills
        in between the query's variables. The graph is chordal, and its maximal cliques are those of
        `clique_tree` (Koller & Friedman, Probabilistic Graphical Models, theorem 9.6).
        """
        graph: nx.Graph = nx.Graph()
        graph.add_nodes_from((*self.order, *self.query))
        fill = {frozenset(pair) for step in self._all for pair in step.fill}
        for step in self._all:
            for one, other in combinations(step.scope, 2):
                graph.add_edge(one, other, fill=frozenset((one, other)) in fill)
        return graph

    def clique_tree(self) -> nx.Graph:
        """The maximal cliques of the induced graph, joined where a message went.

        Nodes are frozensets of variables, with a `label` such as "{A, B}"; edges have the label of
        their separator, which is what the two cliques share. Parts of the model that share no
        variable are trees of their own (Koller & Friedman, sections 10.1.1 and 10.4.1).
        """
        tree: nx.Graph = nx.Graph()
        holder: list[frozenset[Variable]] = []  # of each step's scope
        for step in self._all:
            scope = frozenset(step.scope)
            sent = [s for s in step.messages if self.steps[s].left]
            # Not maximal is what lies within the clique of a step that sent all of it.
            within = [holder[s] for s in sent if scope == frozenset(self.steps[s].left)]
            clique = within[0] if within else scope
            holder.append(clique)
            if clique == scope and scope:
                tree.add_node(scope, label=braced(step.scope))
            for s in sent:
                if holder[s] != clique:
                    shared = [v for v in self.steps[s].left if v in clique]
                    tree.add_edge(holder[s], clique, label=braced(shared))
        return tree

    def running_intersection(self) -> RunningIntersection:
        """Checks of each variable that the cliques that hold it form one subtree of the tree.

        Then what two cliques both know of a variable is also known to all cliques between them, so
        that messages over the separators are enough (Koller & Friedman, definition 10.2).
        """
        tree = self.clique_tree()
        holding = {
            variable: [clique for clique in tree if variable in clique]
            for variable in (*self.order, *self.query)
        }
        return RunningIntersection(
            {v: tuple(tree.nodes[c]["label"] for c in cliques) for v, cliques in holding.items()},
            {v: nx.is_connected(tree.subgraph(cliques)) for v, cliques in holding.items()},
        )

    def draw(self, path: str | Path | None = None) -> "Figure":
        """The induced graph, its fill edges dashed and the query yellow, beside the clique tree.

        Args:
            path: a .png, .svg or .pdf file to write, whole or not at all.

        Raises:
            ValueError: another ending.
        """
        from matplotlib.figure import Figure

        from ..pictures.drawing import draw

        graph, tree = self.induced_graph(), self.clique_tree()
        side = min(12.0, 4.0 + 0.12 * len(graph))
        figure = Figure((2 * side, 0.75 * side), dpi=160, layout="constrained")
        left, right = figure.subplots(1, 2)
        edges = sum(fill for _, _, fill in graph.edges(data="fill"))
        draw(graph, ax=left, highlight=list(self.query),
             title=f"induced graph: {edges} fill edges, width {self.width}")  # fmt: skip
        draw(tree, ax=right, title=f"clique tree: {len(tree)} cliques", path=path)
        return figure

    @property
    def _question(self) -> str:
        given = some([f"{variable}={state}" for variable, state in self.evidence.items()])
        return f"p({some(self.query)}{' | ' if given else ''}{given})"

    def __str__(self) -> str:
        lines = columns([step.parts() for step in self._all])
        rows = [(*map(str, self.query), self._question)]
        for place in list(np.ndindex(self.posterior.shape))[:ROWS] if self.query else []:
            states = (self.states[v][i] for v, i in zip(self.query, place, strict=True))
            rows.append((*map(str, states), f"{self.posterior[place]:.6g}"))
        more = self.posterior.size - ROWS
        nats = round(self.log_evidence, 12) + 0.0  # 1e-16 and -0 are rounding
        return "\n".join(
            [
                *lines,
                "",
                *(columns(rows) if self.query else []),
                *([f"and {more:,} more rows"] if more > 0 else []),
                f"log evidence {nats:.6g} nats; largest table {self.largest_table:,} cells, "
                f"{self.total_cells:,} cells in all, width {self.width}",
            ]
        )

    def __repr__(self) -> str:
        return (
            f"<Elimination for {self._question}: {len(self.steps)} steps, largest table "
            f"{self.largest_table:,} cells>"
        )


# Text


def some(names: Sequence[Any], between: str = ", ") -> str:
    more = len(names) - SHOWN
    return between.join(str(n) for n in names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def braced(names: Iterable[Variable]) -> str:
    return "{" + ", ".join(str(name) for name in names) + "}"


def columns(rows: Sequence[Sequence[str]], widest: int = 60) -> list[str]:
    """Lines with the cells of the rows below each other; a longer cell pushes only its own line."""
    wide = [min(widest, max(len(cell) for cell in column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{c:{w}}" for c, w in zip(row, wide, strict=True)).rstrip() for row in rows]
