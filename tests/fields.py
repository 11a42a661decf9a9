"""Small random factor graphs, and what they answer by enumeration."""

import itertools
from typing import Any

import numpy as np

from graphs import FactorGraph

NAMES = ("a", "b", 7, (2, "x"), "e", frozenset({1}), "g", 3.5)  # any hashable names a variable


def random_forest(
    rng: np.random.Generator,
    count: int,
    *,
    arity: int = 4,
    states: int = 4,
    hard: bool = False,
    batch: int | None = None,
    scale: float = 2.0,
) -> FactorGraph:
    """A random forest: factors of 2..`arity` variables, some unary ones and a constant, islands."""
    sizes = [int(k) for k in rng.integers(1, states + 1, count)]
    names = [NAMES[i] if count <= len(NAMES) else i for i in rng.permutation(count)]
    scopes: list[list[int]] = []
    nxt = 1
    while nxt < count:
        new = min(int(rng.integers(1, arity)), count - nxt)
        if rng.random() < 0.15:
            nxt += 1  # an island
            continue
        scope = [int(rng.integers(0, nxt)), *range(nxt, nxt + new)]
        rng.shuffle(scope)
        scopes.append(scope)
        nxt += new
    scopes += [[v] for v in range(count) if rng.random() < 0.6] + [[]]
    return _graph(rng, names, sizes, scopes, hard, batch, scale)


def random_graph(
    rng: np.random.Generator,
    count: int,
    factors: int,
    *,
    arity: int = 3,
    states: int = 3,
    hard: bool = False,
    batch: int | None = None,
    scale: float = 0.5,
) -> FactorGraph:
    """Random scopes, mostly with cycles."""
    sizes = [int(k) for k in rng.integers(1, states + 1, count)]
    scopes = [
        [int(v) for v in rng.permutation(count)[: rng.integers(1, min(arity, count) + 1)]]
        for _ in range(factors)
    ]
    return _graph(rng, list(range(count)), sizes, scopes, hard, batch, scale)


def enumerated(graph: FactorGraph) -> tuple[np.ndarray, np.ndarray]:
    """All assignments, (n, V), and their scores, (n,), or (n, B) in a batch."""
    x = np.array(list(itertools.product(*map(range, graph.sizes.tolist()))), dtype=np.int64)
    x = x.reshape(int(graph.sizes.prod()), len(graph.variables))
    if graph.batch is None:
        return x, np.asarray(graph.score(x), float)
    return x, np.stack([np.asarray(graph.field(b).score(x)) for b in range(graph.batch)], 1)


def exact(graph: FactorGraph) -> tuple[float, list[np.ndarray]]:
    """log Z and the marginals of one field by enumeration."""
    x, scores = enumerated(graph)
    top = scores.max()
    weights = np.exp(scores - top)
    marginals = [
        np.bincount(x[:, v], weights, size) / weights.sum() for v, size in enumerate(graph.sizes)
    ]
    return float(top + np.log(weights.sum())), marginals


def possible(graph: FactorGraph) -> bool:
    """Whether any assignment has positive probability."""
    return bool(np.isfinite(enumerated(graph)[1]).any())


def _graph(
    rng: np.random.Generator,
    names: list[Any],
    sizes: list[int],
    scopes: list[list[int]],
    hard: bool,
    batch: int | None,
    scale: float,
) -> FactorGraph:
    factors = []
    for scope in scopes:
        shape = [sizes[v] for v in scope]
        if batch is not None and rng.random() < 0.7:
            shape = [batch, *shape]
        table = rng.normal(size=shape) * scale
        if hard and scope:
            forbidden = rng.random(table.shape) < 0.25
            live = ~forbidden.reshape(-1, int(np.prod([sizes[v] for v in scope]))).all(1)
            if live.all():
                table[forbidden] = -np.inf
        factors.append(([names[v] for v in scope], table))
    return FactorGraph(dict(zip(names, sizes, strict=True)), factors)
