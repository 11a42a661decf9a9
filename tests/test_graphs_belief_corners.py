"""Belief propagation where structures, tables and options are at their extremes."""

import math
import time
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from fields import enumerated, exact

from graphs import FactorGraph, belief_propagation, mean_field, tree_reweighted
from graphs.messages.counting import operations
from graphs.messages.flooding import Flooding, lowest
from graphs.messages.wiring import Wiring

SCHEDULES = (None, "flooding", "residual")
EQUAL = np.array([[0.0, -np.inf], [-np.inf, 0.0]])


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    ("sizes", "factors"),
    [
        ([], []),
        ([], [((), 2.0), ((), 1.5)]),
        ([2, 3, 1], []),
        ([2, 3], [((0,), [0.0, 1.0]), ((0,), [0.5, 0.0]), ((1,), [0.0, 1.0, 2.0])]),
        ([1, 1, 1], [((0, 1), [[1.0]]), ((1, 2), [[2.0]]), ((0, 2), [[3.0]])]),
        ([2, 2, 2], [((2, 0, 1), np.arange(8.0).reshape(2, 2, 2))]),
    ],
)
def test_corner_structures(sizes: list, factors: list, schedule: str | None) -> None:
    graph = FactorGraph(sizes, factors)
    log_z, marginals = exact(graph)
    for trace in (False, True):
        found = belief_propagation(graph, schedule=schedule, trace=trace)
        assert found.log_partition == pytest.approx(log_z, abs=1e-12) and found.converged
        for variable, marginal in zip(graph.variables, marginals, strict=True):
            np.testing.assert_allclose(found[variable], marginal, atol=1e-12)
        best = belief_propagation(graph, "max", schedule, trace=trace)
        assert best.score == pytest.approx(enumerated(graph)[1].max(), abs=1e-12)
        assert "log Z" in str(found) and "score" in str(best)


def strong(rng: np.random.Generator, scale: float) -> FactorGraph:
    """A chain whose messages all but exclude states that later messages favour."""
    joint = [((i, i + 1), rng.normal(size=(3, 3)) * scale) for i in range(4)]
    return FactorGraph([3] * 5, [*joint, *(((i,), rng.normal(size=3) * scale) for i in range(5))])


@pytest.mark.parametrize("product", ["sum", "max"])
@pytest.mark.parametrize("damping", [0.0, 0.5])
@pytest.mark.parametrize("schedule", ["flooding", "residual"])
def test_converged_means_that_unlikely_states_have_settled_too(
    product: str, damping: float, schedule: str
) -> None:
    for seed in range(20):
        graph = strong(np.random.default_rng(seed), 1000.0)
        right = belief_propagation(graph, product)
        found = belief_propagation(graph, product, schedule, damping=damping)
        assert found.converged
        for variable in graph.variables:
            np.testing.assert_allclose(found[variable], right[variable], atol=1e-4)
        if product == "max":
            assert found.score == pytest.approx(right.score, abs=1e-6)
        else:
            assert found.log_partition == pytest.approx(right.log_partition, abs=1e-3)


@pytest.mark.parametrize("batched", [False, True])
def test_the_lowest_message_that_counts(batched: bool) -> None:
    unary = np.array([0.0, -3.0])
    joint = np.array([[0.0, -5.0], [-np.inf, -1.0]])
    given = np.stack([unary, 2 * unary]) if batched else unary
    graph = FactorGraph([2, 2], [((0,), given), ((0, 1), joint), ((0, 1), joint), ((), 99.0)])
    said = (6.0 if batched else 3.0) + 5.0 + 5.0
    assert lowest(graph) == pytest.approx(math.log(np.finfo(np.float64).eps) - said)
    assert lowest(graph.to()) == lowest(graph)
    single = graph.to(dtype=torch.float32)
    assert lowest(single) == pytest.approx(math.log(np.finfo(np.float32).eps) - said, rel=1e-6)
    assert lowest(FactorGraph([2], [((0,), [0.0, -np.inf])])) == -math.inf
    assert lowest(FactorGraph([], [])) == -math.inf


def test_messages_that_fall_for_ever_converge() -> None:
    pairs = [((i, (i + 1) % 3), EQUAL) for i in range(3)]
    graph = FactorGraph([2] * 3, [*pairs, ((0,), np.array([0.0, -2.0]))])
    for damping in (0.0, 0.5):
        found = belief_propagation(graph, damping=damping)
        assert found.converged
        np.testing.assert_allclose(found[1], [1.0, 0.0], atol=1e-12)


def loops(rng: np.random.Generator, copies: int, steps: tuple[int, ...]) -> FactorGraph:
    joint = []
    for first in range(0, 8 * copies, 8):
        for step in steps:
            joint += [
                ((first + i, first + (i + step) % 8), rng.normal(size=(3, 3)) * 20)
                for i in range(8)
            ]
    return FactorGraph([3] * 8 * copies, joint)


def field(rng: np.random.Generator) -> FactorGraph:
    down, right = rng.normal(size=(4, 4, 3, 3)) * 5, rng.normal(size=(5, 3, 3, 3)) * 5
    return FactorGraph.grid(rng.normal(size=(5, 4, 3)) * 5, (down, right))


@pytest.mark.parametrize("product", ["sum", "max"])
@pytest.mark.parametrize("path", ["general", "grid", "many"])
def test_rounding_in_float32_is_not_taken_for_a_change(product: str, path: str) -> None:
    # Where float64 converges, so does float32, though a rounding of messages of -100 is 8e-6.
    checked = 0
    for seed in (15,) if path == "many" else (1, 2, 4, 5, 7, 19, 29):
        rng = np.random.default_rng(seed)
        options: dict = {}
        if path == "many":
            graph, options = loops(rng, 430, (1,)), {"damping": 0.5, "max_iterations": 2000}
        else:
            graph = field(rng) if path == "grid" else loops(rng, 1, (1, 3))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*has not converged", UserWarning)
            double = belief_propagation(graph, product, **options)
            single = belief_propagation(graph.to(dtype=torch.float32), product, **options)
        checked += double.converged
        assert single.converged or not double.converged, seed
        assert single.residual < 1e-3 or not double.converged
    assert checked


@pytest.mark.parametrize("grid", [False, True])
def test_the_sum_of_a_large_field_in_float32_is_summed_in_float64(grid: bool) -> None:
    if grid:
        graph = FactorGraph.grid(np.ones((60, 60, 2), np.float32), np.ones((2, 2), np.float32))
    else:
        joint = [(edge, np.ones((2, 2), np.float32)) for edge in pairwise(range(3600))]
        graph = FactorGraph([2] * 3600, joint)
    found = belief_propagation(graph.to(), schedule="flooding").log_partition
    assert found.dtype == torch.float64
    edges = 2 * 60 * 59 + 3600 if grid else 3599
    assert float(found) == pytest.approx(edges + 3600 * math.log(2), rel=1e-7)


def test_rows_of_evidence_on_a_batch_of_one() -> None:
    table = np.random.default_rng(0).normal(size=(1, 2, 3))
    graph = FactorGraph([2, 3], [((0, 1), table)])
    found = belief_propagation(graph, "max", evidence={0: [0, 1, None]})
    tops = [table[0, 0].max(), table[0, 1].max(), table.max()]
    np.testing.assert_allclose(found.score, tops, rtol=1e-15)
    with pytest.raises(ValueError, match="2 assignments for a batch of 3 fields"):
        FactorGraph([2], [((0,), np.zeros((3, 2)))]).score(np.zeros((2, 1), int))


def test_batches_of_no_fields_have_no_answers() -> None:
    none = FactorGraph([2, 3], [((0, 1), np.zeros((0, 2, 3)))])
    one = FactorGraph([2, 3], [((0, 1), np.zeros((2, 3)))])
    for graph, evidence in ((none, None), (one, {0: []})):
        for method in (belief_propagation, mean_field, tree_reweighted):
            found = method(graph, evidence=evidence)
            assert found[1].shape == (0, 3) and found.log_partition.shape == (0,)
            assert "0 fields" in str(found)


@pytest.mark.parametrize("product", ["sum", "max"])
def test_answers_with_gradients_print(product: str) -> None:
    table = torch.zeros(2, 2, requires_grad=True)
    found = belief_propagation(FactorGraph([2, 2], [((0, 1), table)]), product)
    assert ("log Z = 1.38629" if product == "sum" else "score 0") in str(found)


def test_labels_of_a_batch_stay_what_they_are() -> None:
    labels = {"a": ((0, 1), (1, 0)), "b": (1, "x", None), "c": ("u", "v")}
    graph = FactorGraph({"a": 2, "b": 3, "c": 2}, [(("a", "b"), np.zeros((2, 3)))], states=labels)
    evidence = {"a": [(1, 0), (0, 1)], "b": ["x", 1], "c": ["v", "u"]}
    found = belief_propagation(graph, "max", evidence=evidence).assignment
    assert found["a"].shape == (2,) and found["c"].dtype.kind == "U"
    assert {v: list(column) for v, column in found.items()} == evidence
    assert type(found["b"][1]) is int


def test_iterations_may_be_numpy_integers() -> None:
    graph = FactorGraph([2, 2], [((0, 1), np.eye(2))])
    assert belief_propagation(graph, max_iterations=np.int64(5)).converged


def test_gradients_of_potentials_that_are_zero() -> None:
    table = torch.tensor([[1.0, 0.0], [0.5, 2.0]], requires_grad=True)
    belief_propagation(FactorGraph.of([(("a", "b"), table)])).log_partition.backward()
    np.testing.assert_allclose(table.grad, np.array([[1, 0], [1, 1]]) / 3.5, rtol=1e-6)


def test_many_variables_of_different_sizes_print_at_once() -> None:
    graph = FactorGraph([2, 3] * 100_000, [])
    start = time.perf_counter()
    counted = operations(graph)
    assert time.perf_counter() - start < 1  # one product after the other took some 5 seconds
    assert counted.enumeration == 6**100_000
    assert "about" in str(counted)


def test_a_pairwise_sweep_is_the_general_one() -> None:
    rng = np.random.default_rng(3)
    sizes = [2, 3] * 1500
    ends = rng.integers(0, len(sizes), (6000, 2))
    joint = [
        ((int(a), int(b)), rng.normal(size=(sizes[a], sizes[b])) * 0.3) for a, b in ends if a != b
    ]
    graph = FactorGraph(sizes, joint)
    for product in ("sum", "max"):
        engine = Flooding(Wiring(graph, {}, None), product)
        fast = engine.run(0.3, 0.0, 7, "test")
        messages = engine.first()
        for _ in range(7):
            after = engine.sweep(messages)
            messages = {k: torch.lerp(new, messages[k], 0.3) for k, new in after.items()}
        for size, expected in messages.items():
            np.testing.assert_allclose(fast.messages[size], expected, atol=1e-11)
