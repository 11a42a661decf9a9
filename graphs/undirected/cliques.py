"""Undirected graphs: the graph of a model, and its cliques."""

from collections.abc import Callable, Hashable, Iterable
from itertools import islice
from typing import Any

import networkx as nx

from ..ancestral import checked_count
from ..tables import tables_of

Node = Hashable
MANY = 1_000_000  # cliques that are listed


def undirected_graph(given: Any) -> nx.Graph:
    """The graph of an undirected model, or the undirected graph itself.

    Args:
        given: a networkx Graph, such as a pgmpy Markov network, or factors that
            `graphs.tables.tables_of` takes: the scope of each is then a clique.

    Raises:
        TypeError: a directed graph or model, or one with parallel edges.
        ValueError: see `graphs.tables.tables_of`.
    """
    if isinstance(given, nx.Graph) and given.is_multigraph():
        raise TypeError(f"expected a graph without parallel edges; got {type(given).__name__}")
    tables = None if isinstance(given, nx.Graph) else tables_of(given)
    if given.is_directed() if tables is None else tables.directed:
        network = tables is not None or hasattr(given, "get_cpds")
        raise TypeError(
            f"expected an undirected graph or model; got {type(given).__name__}, which is directed:"
            + (" graphs.to_markov makes it a Markov network," if network else "")
            + " graphs.moralize makes its graph undirected"
        )
    return given if tables is None else tables.graph()


def cliques(graph: Any, limit: int = MANY) -> list[tuple[Node, ...]]:
    """All cliques: sets of nodes of which every two are adjacent, single nodes among them.

    They are in order of size, and then of the graph's nodes. A complete graph of n nodes has
    2^n - 1, which is why there is a limit.

    Args:
        graph: an undirected graph or model, see `undirected_graph`.
        limit: more cliques than this are refused.

    Raises:
        TypeError: a directed graph.
        ValueError: more cliques than the limit.
    """
    return _listed(undirected_graph(graph), nx.enumerate_all_cliques, limit, "cliques")


def maximal_cliques(graph: Any, limit: int = MANY) -> list[tuple[Node, ...]]:
    """The cliques to which no node can be added, in the order of the graph's nodes.

    They are found by the algorithm of Bron and Kerbosch (1973) with pivots. A graph of n nodes has
    at most 3^(n/3) of them (Moon and Moser 1965), a chordal one at most n.

    Args:
        graph: an undirected graph or model, see `undirected_graph`.
        limit: more cliques than this are refused.

    Raises:
        TypeError: a directed graph.
        ValueError: more cliques than the limit.
    """
    return _listed(undirected_graph(graph), nx.find_cliques, limit, "maximal cliques")


def _listed(
    graph: nx.Graph,
    find: Callable[[nx.Graph], Iterable[list[int]]],
    limit: int,
    what: str,
) -> list[tuple[Node, ...]]:
    """The cliques by size and place; networkx is given numbers, so sets come in the same order."""
    limit = checked_count(limit, 1, "limit")
    nodes = list(graph)
    place = {node: i for i, node in enumerate(nodes)}
    numbered: nx.Graph = nx.empty_graph(len(nodes))
    numbered.add_edges_from((place[a], place[b]) for a, b in graph.edges if a != b)
    found = list(islice(find(numbered), limit + 1))
    if len(found) > limit:
        raise ValueError(
            f"the graph of {len(nodes)} nodes has more than {limit:,} {what}; pass a larger limit, "
            "or a part of the graph"
        )
    ordered = sorted(sorted(clique) for clique in found)
    if find is nx.enumerate_all_cliques:
        ordered.sort(key=len)
    return [tuple(nodes[i] for i in clique) for clique in ordered]
