"""Sweeps in memory that is used again: the same messages as the sweep by shapes."""

import math

import numpy as np
import pytest
import torch

from graphs import FactorGraph, belief_propagation
from graphs.messages import pairwise
from graphs.messages.flooding import Flooding, change
from graphs.messages.pairwise import Pairwise
from graphs.messages.wiring import Wiring


def pairs(seed, *, shared=False, batch=(), states=4, dtype=np.float64):
    """A random pairwise graph with cycles, of mixed numbers of states unless tables are shared."""
    rng = np.random.default_rng(seed)
    count = 9
    sizes = [3] * count if shared else [int(k) for k in rng.integers(1, states + 1, count)]
    ends = [(i, j) for i in range(count) for j in range(i) if rng.random() < 0.4]
    table = rng.normal(size=(3, 3)).astype(dtype)
    factors = [
        ((i, j), table if shared else rng.normal(size=(*batch, sizes[i], sizes[j])).astype(dtype))
        for i, j in ends
    ]
    factors += [((v,), rng.normal(size=(*batch, sizes[v])).astype(dtype)) for v in range(count)]
    return FactorGraph(sizes, factors)


@pytest.mark.parametrize("product", ["sum", "max"])
@pytest.mark.parametrize("kind", [{}, {"shared": True}, {"batch": (3,)}, {"dtype": np.float32}])
def test_the_same_messages(product, kind):
    for seed in range(10):
        engine = Flooding(Wiring(pairs(seed, **kind), {}, None), product)
        quick = Pairwise(engine)
        messages = other = engine.first()
        close = 1e-5 if engine.wiring.dtype == torch.float32 else 1e-12
        for _ in range(5):
            before, messages = messages, engine.sweep(messages)
            last, other = other, quick.sweep(other)
            for size, values in messages.items():
                np.testing.assert_allclose(other[size], values, atol=close)
            moved = change(before, messages, -math.inf)
            assert change(last, other, -math.inf, quick.nu) == pytest.approx(moved, abs=close)


@pytest.mark.parametrize("product", ["sum", "max"])
def test_a_grid_with_one_table_for_all(product):
    graph = FactorGraph.grid(np.random.default_rng(0).normal(size=(7, 6, 3)), 0.3 * np.eye(3))
    engine = Flooding(Wiring(graph, {}, None), product)
    quick, messages = Pairwise(engine), engine.first()
    for _ in range(4):
        wanted, messages = engine.sweep(messages), quick.sweep(messages)
        for size, values in wanted.items():
            np.testing.assert_allclose(messages[size], values, atol=1e-12)


def test_which_graphs_take_it(monkeypatch):
    graph = pairs(1)
    assert not Pairwise.pays(Flooding(Wiring(graph, {}, None)))  # too small
    monkeypatch.setattr(pairwise, "LARGE", 0)
    assert Pairwise.pays(Flooding(Wiring(graph, {}, None)))
    assert Pairwise.pays(Flooding(Wiring(graph, {}, None), "max"))
    wanted = graph.to()
    for group in wanted.groups:
        group.table.requires_grad_()
    assert not Pairwise.pays(Flooding(Wiring(wanted, {}, None)))
    with torch.no_grad():
        assert Pairwise.pays(Flooding(Wiring(wanted, {}, None)))
    hard = FactorGraph([2, 2], [((0, 1), [[0.0, -np.inf], [0.0, 0.0]])])
    assert not Pairwise.pays(Flooding(Wiring(hard, {}, None)))
    wide = FactorGraph([2, 2], [((0, 1), [[0.0, -700.0], [0.0, 0.0]])])
    assert not Pairwise.pays(Flooding(Wiring(wide, {}, None)))
    assert Pairwise.pays(Flooding(Wiring(wide, {}, None), "max"))
    triple = FactorGraph([2] * 3, [((0, 1, 2), np.zeros((2, 2, 2)))])
    assert not Pairwise.pays(Flooding(Wiring(triple, {}, None)))


@pytest.mark.parametrize("damping", [0.0, 0.4])
@pytest.mark.parametrize("product", ["sum", "max"])
def test_a_whole_run(monkeypatch, product, damping):
    """With evidence, damping, and a max-product that wide tables let settle."""
    rng = np.random.default_rng(3)
    ends = [(i, (i + 1) % 12) for i in range(12)] + [(0, 5), (3, 9)]
    factors = [(scope, 0.3 * rng.normal(size=(3, 3))) for scope in ends]
    factors += [((v,), 2 * rng.normal(size=3)) for v in range(12)]
    graph = FactorGraph([3] * 12, factors)
    options = {"damping": damping, "evidence": {4: 2}, "tolerance": 1e-10}
    monkeypatch.setattr(pairwise, "LARGE", 10**9)
    wanted = belief_propagation(graph, product, **options)
    monkeypatch.setattr(pairwise, "LARGE", 0)
    monkeypatch.setattr("graphs.messages.flat.Flat.pays", staticmethod(lambda wiring: False))
    found = belief_propagation(graph, product, **options)
    assert found.converged and abs(found.iterations - wanted.iterations) <= 1
    for variable in graph.variables:
        np.testing.assert_allclose(found[variable], wanted[variable], atol=1e-8)
