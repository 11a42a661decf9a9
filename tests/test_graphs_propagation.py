"""The fixed program of NumPy calls: no clique's product may overwrite another."""

import itertools

import numpy as np
import pytest

from graphs.exact.clique_tree import CliqueTree
from graphs.exact.propagation import Propagation
from graphs.io import networks, read


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("seed", range(20))
def test_messages_whose_products_are_all_full(seed, batch):
    """A triangle with a child on each edge: any two messages together fill the clique's table."""
    rng = np.random.default_rng(seed)
    cards = [3, 4, 5, *[2] * 6]
    edges = [(0, 1), (1, 2), (0, 2)] * 2
    scopes = [(a, b, 3 + i) for i, (a, b) in enumerate(edges)]
    scopes += [(2, 0), (0, 1, 2)] if seed % 2 else [(0, 1), (1, 2), (0, 2)]
    factors = [(s, rng.random([cards[v] for v in s])) for s in scopes]
    letters = "abcdefghi"
    inputs = ",".join("".join(letters[v] for v in s) for s in scopes)
    full = np.einsum(f"{inputs}->{letters}", *(t for _, t in factors), optimize=True)
    program = Propagation(CliqueTree(cards, scopes, merged=0), factors, batch)
    assert program.collect({}) == pytest.approx(np.log(full.sum()), abs=1e-12)
    found = program.distribute()
    expected = [
        full.sum(tuple(u for u in range(len(cards)) if u != v)) / full.sum()
        for v in range(len(cards))
    ]
    for column in range(batch):
        assert found[:, column] == pytest.approx(np.concatenate(expected), abs=1e-12)


@pytest.mark.filterwarnings("ignore:.*renormalised:UserWarning")
@pytest.mark.parametrize("name", networks())
@pytest.mark.parametrize("merged", [0, 256])
def test_a_bayesian_network_sums_to_one(name, merged):
    """log Z is 0 without evidence, and every marginal sums to one, by plain linear numbers."""
    tables = read(name)
    index = {v: i for i, v in enumerate(tables.states)}
    factors = [(tuple(index[v] for v in f.variables), f.values) for f in tables.factors]
    cards = [len(states) for states in tables.states.values()]
    tree = CliqueTree(cards, [scope for scope, _ in factors], merged=merged)
    if tree.cost.total_cells > 6e6:
        pytest.skip("too large for a quick test")
    program = Propagation(tree, factors)
    assert program.collect({}) == pytest.approx(0.0, abs=1e-11)
    assert not program.doubtful().any()
    starts = np.cumsum([0, *cards])
    marginals = program.distribute()[:, 0]
    for a, b in itertools.pairwise(starts):
        assert marginals[a:b].sum() == pytest.approx(1.0, abs=1e-11)
