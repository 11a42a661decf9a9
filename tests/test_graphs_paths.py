"""Belief propagation on deep forests in rounds."""

import itertools
import math
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs.factor_graph import FactorGraph
from graphs.messages import paths, rounds
from graphs.messages.beliefs import belief_propagation
from graphs.messages.flooding import Flooding
from graphs.messages.forest import Forest, rooted
from graphs.messages.paths import Paths, passes
from graphs.messages.rounds import planned
from graphs.messages.wiring import Wiring


def always(engine, root=None):
    """In rounds, however short that is."""
    with patch.object(rounds, "ROUNDS", 0):
        plan = planned(engine.wiring, rooted(engine.wiring, root), math.inf)
    assert plan is not None
    return Paths(engine, root, plan)


def chain(tables, first=None, unary=None):
    """Variables 0, 1, ... with a log-table (K, K) from each to the next."""
    length, size = len(tables) + 1, tables[0].shape[0]
    factors = [((i, i + 1), table) for i, table in enumerate(tables)]
    if first is not None:
        factors.append(((0,), first))
    if unary is not None:
        factors += [((i,), row) for i, row in enumerate(unary)]
    return FactorGraph([size] * length, factors)


def deep(seed, *, length=24, hard=False, batch=None, whole=False, spread=2.0):
    """A random forest with long paths: pairwise tables either way round, some of three variables,
    unary ones; mixed numbers of states; whole numbers make ties."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 5, length)
    scopes, v = [], 1
    while v < length:
        parent = int(rng.integers(max(0, v - rng.integers(1, 4)), v))
        kind = rng.random()
        if kind < 0.08:
            v += 1  # another tree
            continue
        scope = [parent, v, v + 1] if kind < 0.2 and v + 1 < length else [parent, v]
        v += len(scope) - 1
        scopes.append(tuple(int(i) for i in rng.permutation(scope)))
    scopes += [(int(v),) for v in rng.integers(0, length, length // 2)]
    factors = []
    for scope in scopes:
        shape = tuple(sizes[list(scope)])
        if batch and rng.random() < 0.5:
            shape = (batch, *shape)
        table = spread * rng.standard_normal(shape)
        table = np.round(table) if whole else table
        if hard:
            forbidden = rng.random(shape) < 0.3
            forbidden[(..., *(0,) * len(scope))] = rng.random() < 0.03
            if not (forbidden.reshape(-1, math.prod(sizes[list(scope)])).all(1)).any():
                table[forbidden] = -np.inf
        factors.append((scope, table))
    return FactorGraph(sizes.tolist(), factors)


def evidence(seed, graph, rows):
    rng = np.random.default_rng(seed)
    seen = rng.choice(len(graph.sizes), 4, replace=False)
    return {int(v): np.array([rng.integers(-1, graph.sizes[v]) for _ in range(rows)]) for v in seen}


def both(graph, product, seen, rows, root=None):
    """Messages by depths and by rounds, None where they are refused."""
    try:
        engine = Flooding(Wiring(graph, seen, rows), product)
    except ValueError:
        return None, None, None
    found = []
    for run in (Forest(engine, root), always(engine, root)):
        try:
            messages = run.run("")
            totals = engine.totals(messages).values()
            alive = all(bool(t.value.amax(0).isfinite().all()) for t in totals)
            found.append(messages if alive else None)
        except ValueError as error:
            if "contradict" not in str(error):
                raise
            found.append(None)
    return engine, *found


def assert_alike(one, other, tolerance=1e-10):
    assert one.keys() == other.keys()
    for size, values in one.items():
        np.testing.assert_allclose(
            other[size].numpy(), values.numpy(), rtol=tolerance, atol=tolerance
        )


@settings(max_examples=120, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from(["sum", "max"]),
    st.booleans(),
    st.sampled_from([None, 1, 3]),
    st.booleans(),
    st.sampled_from([0.5, 3.0, 300.0]),
)
def test_messages_are_those_sent_depth_by_depth(seed, product, hard, batch, observed, spread):
    graph = deep(seed, hard=hard, batch=batch, spread=spread)
    seen = evidence(seed, graph, batch or 1) if observed else {}
    _, depths, found = both(graph, product, seen, batch, root=seed % 24)
    assert (depths is None) == (found is None)
    if depths is not None:
        assert_alike(depths, found)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.booleans(), st.sampled_from([None, 3]))
def test_the_decoded_assignment_is_a_best_one(seed, hard, batch):
    """Tables of small whole numbers have many ties, and scores without rounding."""
    graph = deep(seed, length=8, hard=hard, batch=batch, whole=True)
    engine, _, found = both(graph, "max", {}, batch)
    if found is None:
        return
    best = always(engine)
    states = best.decode(best.run(""))
    whole = np.empty((len(graph.sizes), batch or 1), np.int64)
    for size, members in engine.wiring.members.items():
        whole[members] = states[size].numpy().reshape(len(members), -1)
    everything = np.array(list(itertools.product(*map(range, graph.sizes))))
    for index in range(batch or 1):
        field = graph.field(index) if graph.batch else graph
        assert field.score(whole[:, index]) == field.score(everything).max()


def test_there_are_contradictions_among_the_random_forests():
    """The test above must meet both kinds."""
    kinds = {both(deep(seed, hard=True), "sum", {}, None)[2] is None for seed in range(40)}
    assert kinds == {True, False}


@pytest.mark.parametrize("product", ["sum", "max"])
def test_a_contradiction_is_named_as_on_short_forests(product):
    stay = np.where(np.eye(2), 0.0, -np.inf)
    graph = chain([stay] * 200)
    with pytest.raises(ValueError, match=r"hard constraints contradict .*(state of|left)") as error:
        belief_propagation(graph, product, evidence={20: 0, 150: 1})
    with (
        patch.object(paths, "DEPTH", 10**9),
        pytest.raises(ValueError, match="contradict") as short,
    ):
        belief_propagation(graph, product, evidence={20: 0, 150: 1})
    assert str(error.value) == str(short.value)
    found = belief_propagation(graph, product, evidence={20: 1, 150: 1})
    np.testing.assert_array_equal(found.array, np.tile([0.0, 1.0], (201, 1)))


def by_hand(tables, unary):
    """Marginals and log Z of a chain, forwards and backwards in NumPy."""
    forward, backward = [unary[0]], [np.zeros_like(unary[0])]
    for table, own in zip(tables, unary[1:], strict=True):
        forward.append(np.logaddexp.reduce(forward[-1][:, None] + table, 0) + own)
    for table, own in zip(tables[::-1], unary[:0:-1], strict=True):
        backward.append(np.logaddexp.reduce(table + own + backward[-1], 1))
    joint = np.array(forward) + np.array(backward[::-1])
    log_z = np.logaddexp.reduce(joint, 1)
    return np.exp(joint - log_z[:, None]), log_z[0]


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("strength", [1.0, 500.0])
def test_strong_couplings_lose_nothing(strength, hard):
    rng = np.random.default_rng(1)
    tables = strength * rng.choice([-0.5, 0.5], (999, 1, 1)) * np.array([[1.0, -1.0], [-1.0, 1.0]])
    unary = rng.standard_normal((1000, 2)) * np.where(rng.random((1000, 1)) < 0.1, strength, 1.0)
    if hard:
        tables[rng.random(999) < 0.3, 0, 1] = -np.inf
    marginals, log_z = by_hand(tables, unary)
    found = belief_propagation(chain(list(tables), unary=unary))
    np.testing.assert_allclose(found.array, marginals, atol=1e-9)
    assert found.log_partition == pytest.approx(log_z, rel=1e-12)


@pytest.mark.parametrize(("dtype", "length"), [(np.float32, 100_000), (np.float64, 10_000)])
def test_a_long_stationary_chain(dtype, length):
    """Every marginal is the stationary distribution, every pair p(a) p(b | a), and Z is 1."""
    move = np.array([[0.9, 0.1], [0.4, 0.6]])
    stationary = np.array([0.8, 0.2])
    table, tolerance = np.log(move).astype(dtype), 1e-5 if dtype == np.float32 else 1e-12
    graph = chain([table] * (length - 1), np.log(stationary).astype(dtype))
    found = belief_propagation(graph)
    assert isinstance(found._found.forest, Paths)
    assert found.array.dtype == dtype
    np.testing.assert_allclose(
        found.array, np.broadcast_to(stationary, found.array.shape), atol=tolerance
    )
    np.testing.assert_allclose(
        found.factor(length // 2), stationary[:, None] * move, atol=tolerance
    )
    assert found.log_partition == pytest.approx(0.0, abs=0.01 * length * tolerance)
    best = belief_propagation(graph, "max", evidence={length - 1: 1})
    assert best.states.tolist() == [0] * (length - 1) + [1]


def test_gradients():
    torch.manual_seed(0)
    pairs = torch.randn(39, 2, 2, dtype=torch.float64, requires_grad=True)
    unary = torch.randn(40, 2, dtype=torch.float64, requires_grad=True)

    def marginals(pairs, unary):
        graph = chain(list(pairs), unary=list(unary))
        with patch.object(paths, "DEPTH", 1), patch.object(rounds, "ROUNDS", 0):
            found = belief_propagation(graph)
        assert isinstance(found._found.forest, Paths)
        return found.array, found.factor(17), found.log_partition

    assert torch.autograd.gradcheck(marginals, (pairs, unary), fast_mode=True)


@pytest.mark.parametrize("product", ["sum", "max"])
def test_gradients_with_hard_constraints_are_those_depth_by_depth(product):
    rng = np.random.default_rng(3)
    values = rng.standard_normal((59, 3, 3))
    values[rng.random((59, 3, 3)) < 0.2] = -np.inf
    values[:, 0, 0] = 0.1
    found = []
    for make in (Forest, always):
        pairs = torch.tensor(values, requires_grad=True)
        engine = Flooding(Wiring(chain(list(pairs)), {5: np.array([0])}, None), product)
        messages = make(engine, None).run("")[3]
        weights = torch.linspace(0, 1, messages.numel(), dtype=torch.float64)
        (messages.exp().flatten() * weights).sum().backward()
        found.append(pairs.grad.numpy())
    assert np.abs(found[0]).max() > 0.1
    np.testing.assert_allclose(found[1], found[0], atol=1e-12)


def engine_of(graph, product="sum"):
    return Flooding(Wiring(graph, {}, None), product)


def test_rounds_grow_with_the_logarithm_of_depth():
    pair = np.log([[0.7, 0.3], [0.2, 0.8]])
    spine = [((i, i + 1), pair) for i in range(9_999)]
    leaves = [((i, 10_000 + i), pair) for i in range(10_000)]
    star = [((i, i + 1) if i % 100 else (0, i + 1), pair) for i in range(9_999)]
    for size, factors in ((10_000, spine), (20_000, spine + leaves), (10_000, star)):
        run = passes(engine_of(FactorGraph([2] * size, factors)), None)
        assert isinstance(run, Paths)
        assert len(run.plan.rounds) <= 17


def test_where_rounds_do_not_pay_it_goes_depth_by_depth():
    pair, wide, triple = np.zeros((2, 2)), np.zeros((100, 100)), np.zeros((2, 2, 2))
    threes = [((2 * i, 2 * i + 1, 2 * i + 2), triple) for i in range(300)]
    for graph in (
        chain([pair] * 30),
        chain([wide] * 100),
        FactorGraph([2] * 601, threes),
        FactorGraph([2] * 300, [((0, i), pair) for i in range(1, 300)]),
    ):
        assert isinstance(passes(engine_of(graph), None), Forest)
    threefold = engine_of(FactorGraph([2] * 601, threes)).wiring
    with patch.object(rounds, "ROUNDS", 0):  # nothing on its path can be eliminated
        assert planned(threefold, rooted(threefold, None), math.inf) is None
    with patch.object(rounds, "MEMORY", 1000):
        assert isinstance(passes(engine_of(chain([pair] * 300)), None), Forest)


def test_a_batch_with_evidence_in_each_field():
    rng = np.random.default_rng(5)
    tables, unary = rng.standard_normal((299, 3, 3)), rng.standard_normal((300, 3))
    rows = {7: [0, None, 2], 250: [None, 1, 1]}
    found = belief_propagation(chain(list(tables), unary=unary), evidence=rows)
    assert isinstance(found._found.forest, Paths)
    for field in range(3):
        masked = unary.copy()
        for v, states in rows.items():
            if states[field] is not None:
                masked[v, np.arange(3) != states[field]] = -np.inf
        marginals, log_z = by_hand(tables, masked)
        np.testing.assert_allclose(found.array[field], marginals, atol=1e-12)
        assert found.log_partition[field] == pytest.approx(log_z, rel=1e-12)
