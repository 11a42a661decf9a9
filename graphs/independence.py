"""Independence that a directed graph states: blankets, moral graphs, equivalence."""

from collections.abc import Hashable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import networkx as nx

from .trails import nodes_of, require_dag

Node = Hashable


def markov_blanket(dag: nx.DiGraph, node: Node) -> set[Node]:
    """Parents, children and co-parents: p(x_i | rest) = p(x_i | blanket) (PRML, section 8.2.2).

    Raises:
        TypeError: the graph is not directed.
        ValueError: an unknown node, a directed cycle.
    """
    require_dag(dag)
    _one_node(dag, node)
    children = set(dag.successors(node))
    co_parents = {parent for child in children for parent in dag.predecessors(child)}
    return (set(dag.predecessors(node)) | children | co_parents) - {node}


def moralize(dag: nx.DiGraph) -> nx.Graph:
    """The undirected graph in which the parents of every node are joined (PRML, section 8.3.4).

    Attributes of nodes and edges are kept; edges that marry parents have `married=True`. A
    distribution that factorises over the directed graph factorises over the cliques of this one.

    Raises:
        TypeError: the graph is not directed.
        ValueError: a directed cycle.
    """
    require_dag(dag)
    moral: nx.Graph = nx.Graph()
    moral.add_nodes_from((node, dict(data)) for node, data in dag.nodes(data=True))
    moral.add_edges_from((*edge, dict(data)) for *edge, data in dag.edges(data=True))
    for node in dag:
        for one, other in combinations(dag.predecessors(node), 2):
            if not moral.has_edge(one, other):
                moral.add_edge(one, other, married=True)
    return moral


@dataclass(frozen=True)
class Independence:
    """One statement: the node is independent of the others given its parents."""

    node: Node
    others: tuple[Node, ...]  # in the graph's order
    given: tuple[Node, ...]

    def __str__(self) -> str:
        others, given = (", ".join(str(n) for n in nodes) for nodes in (self.others, self.given))
        return f"{self.node} ⟂ {others}" + (f" | {given}" if given else "")


class Independencies(tuple[Independence, ...]):
    """Statements of independence; prints one a line."""

    __slots__ = ()

    def __str__(self) -> str:
        return "\n".join(str(statement) for statement in self)


def local_independencies(dag: nx.DiGraph) -> Independencies:
    """Each node is independent of its other non-descendants given its parents.

    A distribution satisfies these statements exactly if it factorises over the graph (Koller and
    Friedman 2009, theorems 3.1 and 3.2). Nodes that have no other non-descendants state nothing.

    Raises:
        TypeError: the graph is not directed.
        ValueError: a directed cycle.
    """
    require_dag(dag)
    statements = []
    for node in dag:
        parents = tuple(dag.predecessors(node))
        excluded = nx.descendants(dag, node).union(parents, [node])
        others = tuple(other for other in dag if other not in excluded)
        if others:
            statements.append(Independence(node, others, parents))
    return Independencies(statements)


def equivalent(dag1: nx.DiGraph, dag2: nx.DiGraph) -> bool:
    """Whether two graphs over the same nodes state the same independences.

    They do exactly if they have the same skeleton and the same v-structures a -> c <- b with a and
    b not adjacent (Verma and Pearl 1990).

    Raises:
        TypeError: a graph is not directed.
        ValueError: the nodes differ, or there is a directed cycle.
    """
    for dag in (dag1, dag2):
        require_dag(dag)
    for one, other, which in ((dag1, dag2, "first"), (dag2, dag1, "second")):
        only = [str(node) for node in one if node not in other]
        if only:
            raise ValueError(
                f"both graphs must have the same nodes; only the {which} has {', '.join(only[:8])}"
                + (f" and {len(only) - 8} more" if only[8:] else "")
            )
    if {frozenset(edge) for edge in dag1.edges} != {frozenset(edge) for edge in dag2.edges}:
        return False
    return _v_structures(dag1) == _v_structures(dag2)


def _v_structures(dag: nx.DiGraph) -> set[tuple[frozenset[Node], Node]]:
    return {
        (frozenset(pair), node)
        for node in dag
        for pair in combinations(dag.predecessors(node), 2)
        if not (dag.has_edge(*pair) or dag.has_edge(*pair[::-1]))
    }


def _one_node(graph: nx.Graph, node: Any) -> None:
    if nodes_of(graph, node) != (node,):
        raise ValueError(f"expected one node of the graph; got {node!r}")
