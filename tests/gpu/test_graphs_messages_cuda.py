"""Belief propagation on CUDA: the same answers as on the CPU, on every path."""

import numpy as np
import pytest
import torch

from graphs import FactorGraph, belief_propagation
from tests.fields import possible, random_forest, random_graph

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


def check(graph, product="sum", dtype=torch.float64, **options):
    found = belief_propagation(graph.to("cuda", dtype), product, **options)
    wanted = belief_propagation(graph.to("cpu", dtype), product, **options)
    close = 1e-10 if dtype == torch.float64 else 2e-4
    for variable in graph.variables:
        assert found[variable].device.type == "cuda"
        np.testing.assert_allclose(found[variable].cpu(), wanted[variable], atol=close)
    if product == "sum":
        np.testing.assert_allclose(found.log_partition.cpu(), wanted.log_partition, rtol=close)
    else:
        np.testing.assert_allclose(found.score.cpu(), wanted.score, rtol=close)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("schedule", ["depth_first", "flooding"])
@pytest.mark.parametrize("product", ["sum", "max"])
def test_forests(product, schedule, dtype):
    for seed in range(12):
        graph = random_forest(np.random.default_rng(seed), 7, hard=seed % 2 == 1)
        if possible(graph):
            check(graph, product, dtype, schedule=schedule)


@pytest.mark.parametrize("product", ["sum", "max"])
def test_loops_and_batches(product):
    rng = np.random.default_rng(0)
    check(random_graph(rng, 7, 9, arity=2, batch=5, scale=0.3), product, damping=0.2)
    coupling = 0.4 * np.array([[1.0, -1.0], [-1.0, 1.0]])
    check(FactorGraph.grid(rng.normal(size=(3, 40, 30, 2)), coupling), product, damping=0.1)
    check(FactorGraph.grid(rng.normal(size=(20, 30, 4)), 0.2 * rng.normal(size=(4, 4))), product)


def test_a_deep_chain():
    table = np.log(np.array([[0.9, 0.1], [0.2, 0.8]]))
    graph = FactorGraph([2] * 5000, [((i, i + 1), table) for i in range(4999)])
    check(graph)
    check(graph, "max")


def test_gradients():
    table = torch.randn(3, 3, device="cuda", dtype=torch.float64, requires_grad=True)
    graph = FactorGraph([3] * 4, [((i, (i + 1) % 4), 0.2 * table) for i in range(4)])
    belief_propagation(graph).log_partition.backward()
    other = table.detach().cpu().requires_grad_()
    graph = FactorGraph([3] * 4, [((i, (i + 1) % 4), 0.2 * other) for i in range(4)])
    belief_propagation(graph).log_partition.backward()
    np.testing.assert_allclose(table.grad.cpu(), other.grad, atol=1e-8)
