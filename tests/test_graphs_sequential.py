"""Belief propagation message by message, against enumeration of every configuration."""

import math
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs.factor_graph import FactorGraph
from graphs.messages import sequential
from graphs.messages.sequential import run
from graphs.tables import Factor, bayesian
from tests.networks import NAMES, joint_table

SCHEDULES = ("flooding", "depth_first", "residual")
SEEDS = st.integers(0, 2**32 - 1)


def sent(graph, schedule="flooding", product="sum", evidence=None, **options):
    """`run` with what most tests need."""
    given = {"root": None, "damping": 0.0, "tolerance": 1e-12, "max_iterations": 200, "keep": False}
    return run(graph, product=product, schedule=schedule, evidence=evidence or {},
               **(given | options))  # fmt: skip


def log_joint(graph, evidence):
    """The sum of all log-tables, one axis a variable, -inf where the evidence excludes it."""
    total = np.zeros(tuple(graph.sizes))
    for scope, table in graph.factors:
        places = [graph.positions[v] for v in scope]
        order = np.argsort(places)
        shape = [size if i in places else 1 for i, size in enumerate(graph.sizes)]
        total = total + np.transpose(np.asarray(table, float), order).reshape(shape)
    for variable, state in evidence.items():
        mask = np.full(graph.sizes[variable], -np.inf)
        mask[state] = 0
        total = total + mask.reshape([-1 if i == variable else 1 for i in range(total.ndim)])
    return total


def enumerated(graph, evidence, product):
    """The marginals, or the max-marginals with maximum 1."""
    joint = log_joint(graph, evidence)
    joint = np.exp(joint - joint.max())
    found = []
    for axis in range(joint.ndim):
        others = tuple(i for i in range(joint.ndim) if i != axis)
        values = joint.sum(others) if product == "sum" else joint.max(others)
        found.append(values / (values.sum() if product == "sum" else values.max()))
    return found


def believed(graph, messages, evidence, product):
    """The product of all messages to each variable, and the evidence."""
    total = [np.zeros(size) for size in graph.sizes]
    for (scope, _), row in zip(graph.factors, messages, strict=True):
        for variable, message in zip(scope, row, strict=True):
            total[graph.positions[variable]] += message
    for variable, state in evidence.items():
        total[variable][np.arange(len(total[variable])) != state] = -np.inf
    found = [np.exp(log - log.max()) for log in total]
    return [values / values.sum() if product == "sum" else values for values in found]


def check(graph, found, evidence, product, atol=1e-9):
    wanted = enumerated(graph, evidence, product)
    for one, other in zip(believed(graph, found.messages, evidence, product), wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=atol)


def random_forest(rng, zeros=0.25):
    """Variables of 1 to 50 states, factors of arity 0 to 5 without a cycle; one configuration is
    possible whatever the zeros are. The graph, and that configuration."""
    names = list(NAMES[: rng.integers(1, 8)])
    sizes = {v: int(rng.integers(1, 5)) for v in names}
    if rng.random() < 0.3:
        sizes[names[0]] = 50
    planted = {v: int(rng.integers(size)) for v, size in sizes.items()}

    def factor(scope):
        table = np.array(rng.normal(size=[sizes[v] for v in scope]) * rng.choice([1.0, 30.0]))
        table[rng.random(table.shape) < zeros] = -np.inf
        table[tuple(planted[v] for v in scope)] = rng.normal()
        return scope, table

    parts = [[v] for v in names]
    factors = [factor(())] if rng.random() < 0.3 else []
    while len(parts) > 1 and rng.random() < 0.85:
        arity = min(len(parts), int(rng.integers(2, 6)))
        chosen = [parts.pop(rng.integers(len(parts))) for _ in range(arity)]
        scope = [part[rng.integers(len(part))] for part in chosen]
        factors.append(factor(tuple(scope)))
        parts.append([*chain.from_iterable(chosen)])
    factors += [factor((names[i],)) for i in rng.integers(len(names), size=rng.integers(0, 5))]
    factors = [factors[i] for i in rng.permutation(len(factors))]
    return FactorGraph(sizes, factors), planted


def seen(graph, planted, rng):
    """Evidence of some variables that is possible."""
    return {i: planted[v] for i, v in enumerate(graph.variables) if rng.random() < 0.25}


@settings(max_examples=150, deadline=None)
@given(SEEDS, st.sampled_from(SCHEDULES), st.sampled_from(["sum", "max"]))
def test_forests_are_exact(seed, schedule, product):
    rng = np.random.default_rng(seed)
    graph, planted = random_forest(rng)
    evidence = seen(graph, planted, rng)
    found = sent(graph, schedule, product, evidence)
    assert found.converged
    assert found.residual <= 1e-12
    check(graph, found, evidence, product)
    for (scope, table), row in zip(graph.factors, found.messages, strict=True):
        assert [len(message) for message in row] == [graph.cardinalities[v] for v in scope]
        for message in row:
            total = np.exp(message).sum() if product == "sum" else np.exp(message).max()
            assert total == pytest.approx(1, abs=1e-12)
        if len(scope) == 1:
            np.testing.assert_allclose(row[0] - row[0].max(), table - table.max(), atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.sampled_from(["sum", "max"]))
def test_two_passes_from_any_root_give_what_flooding_gives(seed, product):
    rng = np.random.default_rng(seed)
    graph, planted = random_forest(rng)
    evidence = seen(graph, planted, rng)
    flooded = sent(graph, "flooding", product, evidence).messages
    pairs = sum(len(scope) for scope, _ in graph.factors if len(scope) > 1)
    for root in range(len(graph.variables)):
        found = sent(graph, "depth_first", product, evidence, root=root, keep=True, damping=0.5)
        assert (found.iterations, found.residual, found.converged) == (1, 0.0, True)
        assert len({(m.factor, m.target) for m in found.trace}) == len(found.trace) == pairs
        for one, other in zip(chain(*found.messages), chain(*flooded), strict=True):
            np.testing.assert_allclose(np.exp(one), np.exp(other), rtol=1e-9, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.sampled_from(SCHEDULES))
def test_polytrees_are_exact(seed, schedule):
    # Each child takes its parents from trees of their own: arity 1 to 4, and no cycle.
    rng = np.random.default_rng(seed)
    names = list(NAMES[: rng.integers(2, 8)])
    states = {v: tuple(f"s{i}" for i in range(rng.integers(1, 4))) for v in names}
    parts, factors = [], []
    for child in names:
        count = min(len(parts), int(rng.integers(0, 4)))
        chosen = [parts.pop(rng.integers(len(parts))) for _ in range(count)]
        scope = (child, *(part[rng.integers(len(part))] for part in chosen))
        values = rng.random([len(states[v]) for v in scope]) + 1e-3
        factors.append(Factor(scope, values / values.sum(0)))
        parts.append([child, *chain.from_iterable(chosen)])
    tables = bayesian(states, factors)
    graph = FactorGraph.of(tables)
    assert graph.is_forest
    joint = joint_table(tables)
    found = believed(graph, sent(graph, schedule).messages, {}, "sum")
    for axis, values in enumerate(found):
        others = tuple(i for i in range(joint.ndim) if i != axis)
        np.testing.assert_allclose(values, joint.sum(others), rtol=0, atol=1e-12)


def test_the_best_configuration_of_a_tree_is_found():
    rng = np.random.default_rng(3)
    for _ in range(20):
        graph, _ = random_forest(rng)
        found = believed(graph, sent(graph, "depth_first", "max").messages, {}, "max")
        best = np.array([values.argmax() for values in found])
        assert graph.score(best) == pytest.approx(log_joint(graph, {}).max(), abs=1e-9)


def field(rng, height, width, coupling, states=2):
    unary = rng.normal(size=(height, width, states)) * 0.5
    return FactorGraph.grid(unary, coupling * np.eye(states))


@pytest.mark.parametrize("damping", [0.0, 0.4])
def test_residual_finds_the_fixed_point_of_flooding_on_attractive_loops(damping):
    rng = np.random.default_rng(0)
    for coupling in (0.2, 0.6, 1.0):
        graph = field(rng, 3, 4, coupling)
        flooded = sent(graph, "flooding", tolerance=1e-10)
        found = sent(graph, "residual", tolerance=1e-10, damping=damping)
        assert flooded.converged
        assert found.converged
        assert found.residual <= 1e-10
        for one, other in zip(chain(*found.messages), chain(*flooded.messages), strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-8)
        # a fixed point indeed: flooding from it changes nothing, and it is not the exact answer
        exact = enumerated(graph, {}, "sum")
        off = max(abs(a - b).max() for a, b in
                  zip(believed(graph, found.messages, {}, "sum"), exact, strict=True))  # fmt: skip
        assert 1e-6 < off < 0.2


def test_residual_sends_fewer_messages_than_flooding():
    graph = field(np.random.default_rng(1), 6, 6, 0.8)
    runs = {s: sent(graph, s, tolerance=1e-8, keep=True) for s in ("flooding", "residual")}
    assert len(runs["residual"].trace) < 0.8 * len(runs["flooding"].trace)


def test_residual_sends_the_message_that_changes_most():
    graph = field(np.random.default_rng(2), 3, 3, 0.9)
    first = sent(graph, "flooding", max_iterations=1, tolerance=0.0, keep=True).trace
    found = sent(graph, "residual", max_iterations=1, tolerance=0.0, keep=True).trace
    most = max(first, key=lambda m: m.residual)
    assert (found[0].factor, found[0].target) == (most.factor, most.target)
    assert found[0].residual == most.residual
    # Each later one at least as large as every first message that is still unsent and unchanged.
    moved = set()
    for message in found[:5]:
        rest = [m.residual for m in first
                if (m.factor, m.target) not in {(s.factor, s.target) for s in found[: message.step]}
                and not moved & set(m.sources)]  # fmt: skip
        assert message.residual >= max(rest)
        moved.add(message.target)


def test_clearing_the_heap_changes_nothing(monkeypatch):
    graph = field(np.random.default_rng(5), 4, 4, 0.9)
    kept = []
    for stale in (0, 2, 10**9):
        monkeypatch.setattr(sequential, "STALE", stale)
        kept.append([(m.factor, m.target) for m in sent(graph, "residual", keep=True).trace])
    assert kept[0] == kept[1] == kept[2]
    assert len(kept[0]) > 100


@pytest.mark.parametrize("schedule", ["flooding", "residual"])
def test_what_does_not_converge_says_so(schedule):
    rng = np.random.default_rng(0)
    graph = FactorGraph([2] * 6, [((i, j), -1.5 * np.eye(2)) for i in range(6) for j in range(i)]
                        + [((i,), rng.normal(size=2)) for i in range(6)])  # fmt: skip
    found = sent(graph, schedule, max_iterations=7, tolerance=1e-6, keep=True)
    assert not found.converged
    assert found.iterations == 7
    assert found.residual > 1e-2
    assert len(found.trace) == 7 * 30
    damped = sent(graph, schedule, max_iterations=200, tolerance=1e-6, damping=0.5)
    assert damped.converged


def test_damping_mixes_logarithms():
    table = np.log([[0.9, 0.2], [0.3, 0.6]])
    graph = FactorGraph([2, 2], [((0, 1), table), ((0,), np.log([0.25, 0.75]))])
    even, full = np.log([0.5, 0.5]), np.log([0.25 * 0.9 + 0.75 * 0.3, 0.25 * 0.2 + 0.75 * 0.6])
    for damping in (0.0, 0.5, 0.9):
        found = sent(graph, max_iterations=1, damping=damping).messages[0][1]
        mixed = np.exp((1 - damping) * (full - np.log(np.exp(full).sum())) + damping * even)
        np.testing.assert_allclose(np.exp(found), mixed / mixed.sum(), rtol=1e-12)


def test_damping_keeps_zeros():
    graph = FactorGraph([2, 2], [((0, 1), np.log(np.array([[1, 1e-300], [1, 1]]))),
                                 ((0,), np.array([0.0, -np.inf]))])  # fmt: skip
    hard = FactorGraph([2, 2], [((0, 1), np.array([[0.0, -np.inf], [0.0, 0.0]])),
                                ((0,), np.array([0.0, -np.inf]))])  # fmt: skip
    found = sent(hard, damping=0.5, max_iterations=1).messages[0][1]
    np.testing.assert_array_equal(np.exp(found), [1, 0])
    assert sent(graph, damping=0.5, max_iterations=1).messages[0][1][1] > -np.inf


def test_unlikely_states_count_where_other_messages_may_favour_them():
    graph = FactorGraph([2, 2], [((0, 1), np.array([[0.0, -1000.0], [-1000.0, -900.0]]))])
    found = sent(graph, "flooding", keep=True)
    assert found.trace[0].log_values[1] == pytest.approx(-900, abs=1e-9)
    assert found.trace[0].residual == pytest.approx(900 + math.log(0.5), abs=1e-9)


@pytest.mark.parametrize("schedule", ["flooding", "residual"])
def test_states_that_nothing_can_favour_do_not_hold_up_convergence(schedule):
    # Round a cycle of equalities the evidence counts again and again: a message falls for ever.
    equal = np.array([[0.0, -np.inf], [-np.inf, 0.0]])
    pairs = [((i, (i + 1) % 3), equal) for i in range(3)]
    graph = FactorGraph([2] * 3, [*pairs, ((0,), np.array([0.0, -2.0]))])
    found = sent(graph, schedule, max_iterations=200)
    # from log eps less what three factors could say against it, here 2
    assert found.converged
    least = min(message[1] for pair in found.messages[:3] for message in pair)
    assert least < math.log(np.finfo(np.float64).eps) - 2


def path(count, rng):
    joint = [((i, i + 1), rng.normal(size=(3, 3))) for i in range(count - 1)]
    return FactorGraph([3] * count, joint)


def test_long_chains_need_no_recursion():
    rng = np.random.default_rng(0)
    graph = path(3000, rng)
    found = sent(graph, "depth_first", root=1500)
    forward = np.zeros(3)
    for i, (_, table) in enumerate(graph.factors):
        forward = np.log(np.exp(forward) @ np.exp(table))
        forward -= np.log(np.exp(forward).sum())
        np.testing.assert_allclose(found.messages[i][1], forward, rtol=0, atol=1e-10)


def test_hard_constraints_at_a_variable_of_many_factors():
    # 400 neighbours; one of them forbids state 0, which no other message may lose or resurrect.
    rng = np.random.default_rng(0)
    tables = [rng.normal(size=(3, 2)) for _ in range(400)]
    tables[7][0] = -np.inf
    graph = FactorGraph([3, *[2] * 400], [((0, i + 1), t) for i, t in enumerate(tables)])
    found = sent(graph, "depth_first")
    total = sum(np.log(np.exp(t[1:]).sum(1)) for t in tables)
    for i, table in enumerate(tables):
        others = np.exp(total - np.log(np.exp(table[1:]).sum(1)))
        weights = np.exp(table[1:]) * (others / others.sum())[:, None]
        wanted = weights.sum(0) / weights.sum()
        if i != 7:
            np.testing.assert_allclose(np.exp(found.messages[i][1]), wanted, rtol=1e-9)


def test_numbers_keep_their_type():
    rng = np.random.default_rng(0)
    table, unary = rng.normal(size=(3, 4)), rng.normal(size=3)
    wanted = sent(FactorGraph([3, 4], [((0, 1), table), ((0,), unary)])).messages
    for convert in (np.float32, torch.tensor, lambda t: torch.tensor(t, dtype=torch.float32)):
        graph = FactorGraph([3, 4], [((0, 1), _as(convert, table)), ((0,), _as(convert, unary))])
        found = sent(graph).messages
        kind = "float64" if convert is torch.tensor else "float32"
        for one, other in zip(chain(*found), chain(*wanted), strict=True):
            assert one.dtype == kind
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


def _as(convert, table):
    return table.astype(convert) if convert is np.float32 else convert(table)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_contradictions_are_refused(schedule):
    no, equal = -np.inf, np.where(np.eye(2), 0.0, -np.inf)
    one, other = np.array([0, no]), np.array([no, 0])
    twice = FactorGraph({"a": 2, "b": 2}, [(("a",), one), (("a",), other)])
    with pytest.raises(ValueError, match=r"no state is left for a: .* contradictory"):
        sent(twice, schedule)
    observed = FactorGraph({"a": 2, "b": 2}, [(("a",), one)])
    with pytest.raises(ValueError, match=r"no state is left for a: .* evidence are contradictory"):
        sent(observed, schedule, evidence={0: 1})
    # the two ends of an equality; no message is empty, only their product
    ends = FactorGraph({"a": 2, "b": 2}, [(("a", "b"), equal)])
    with pytest.raises(ValueError, match=r"no state is left for a: its factors 0 and the evidence"):
        sent(ends, schedule, evidence={0: 0, 1: 1})
    far = FactorGraph(dict.fromkeys("abc", 2), [(("a", "b"), equal), (("b", "c"), equal)])
    with pytest.raises(ValueError, match=r"(message of factor . over ., . to . is zero|no state)"):
        sent(far, schedule, evidence={0: 0, 2: 1})
    wall = FactorGraph(dict.fromkeys("abc", 2), [
        (("a", "b"), np.array([[0, no], [no, no]])), (("b", "c"), np.array([[no, no], [0, 0]])),
    ])  # fmt: skip
    with pytest.raises(
        ValueError,
        match=r"message of factor (0 over a, b to a|1 over b, c to c) is "
        "zero for every state: the factors and the evidence are contradictory",
    ):
        sent(wall, schedule)


def test_contradictions_in_loops_are_refused():
    differ = np.where(np.eye(2), -np.inf, 0.0)
    triangle = FactorGraph([2] * 3, [((i, (i + 1) % 3), differ) for i in range(3)])
    for schedule in ("flooding", "residual"):
        with pytest.raises(ValueError, match="contradictory"):
            sent(triangle, schedule, evidence={0: 0})


def test_requests_that_cannot_be_met():
    loop = FactorGraph([2] * 3, [((i, (i + 1) % 3), np.zeros((2, 2))) for i in range(3)])
    with pytest.raises(ValueError, match='use the schedule "flooding" or "residual"'):
        sent(loop, "depth_first")
    both = FactorGraph([2] * 2, [((0, 1), np.zeros((2, 2))), ((1, 0), np.zeros((2, 2)))])
    with pytest.raises(ValueError, match="without cycles"):
        sent(both, "depth_first")
    names = FactorGraph({"rain": 2, "sun": 2}, [(("rain", "sun"), np.zeros((2, 2)))])
    with pytest.raises(ValueError, match="no schedule 'residuals'; did you mean residual"):
        sent(names, "residuals")


def test_the_same_run_twice():
    graph = field(np.random.default_rng(4), 4, 4, 0.7, states=3)
    for schedule in ("flooding", "residual"):
        one, other = (sent(graph, schedule, keep=True, tolerance=1e-6).trace for _ in range(2))
        assert [(m.factor, m.target) for m in one] == [(m.factor, m.target) for m in other]
        assert all((a.values == b.values).all() for a, b in zip(one, other, strict=True))
