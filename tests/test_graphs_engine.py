"""The engine where it is hard: batches, threads, memory."""

import itertools
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import graphs
from graphs import JunctionTree
from graphs.exact import clique_tree, engine
from graphs.exact.reduction import Reduction
from graphs.tables import Factor, bayesian, tables_of
from tests.networks import (
    conditioned,
    grid,
    joint_table,
    quietly,
    summed,
)


@pytest.fixture(scope="module")
def alarm():
    return quietly(graphs.read, "alarm")


@pytest.fixture(scope="module")
def rows(alarm):
    """1000 draws of every third variable, a third of the cells missing; each row's answer."""
    tree = JunctionTree(alarm)
    drawn = tree.sample(1000, seed=2)
    rng = np.random.default_rng(0)
    columns = {}
    for v in list(alarm.states)[::3]:
        codes = drawn[v].cat.codes.to_numpy(np.int64)
        columns[v] = np.where(rng.random(1000) < 0.33, -1, codes)
    singles = []
    for i in range(1000):
        evidence = {v: alarm.states[v][c[i]] for v, c in columns.items() if c[i] >= 0}
        found = tree.query(evidence)
        singles.append((float(found.log_evidence), np.concatenate([*found.to_numpy().values()])))
    return columns, np.array([z for z, _ in singles]), np.stack([table for _, table in singles])


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 255, 256, 257, 1000])
def test_every_row_of_a_batch_is_its_own_query(count, alarm, rows):
    columns, log_z, marginals = rows
    found = JunctionTree(alarm).query({v: torch.tensor(c[:count]) for v, c in columns.items()})
    np.testing.assert_allclose(found.log_evidence, log_z[:count], rtol=1e-12)
    np.testing.assert_allclose(
        np.concatenate([*found.to_numpy().values()], 1), marginals[:count], rtol=0, atol=1e-12
    )


@pytest.mark.parametrize(
    ("constant", "value"),
    [("EXPENSIVE", 0), ("BATCH_CELLS", 1), ("BATCH_CELLS", 30_000), ("BATCH_MERGED", 0)],
)
def test_rows_do_not_depend_on_how_they_are_batched(constant, value, alarm, rows, monkeypatch):
    monkeypatch.setattr(engine, constant, value)
    columns, log_z, marginals = rows
    chosen = np.arange(0, 1000, 9 if constant == "EXPENSIVE" else 3)
    tree = JunctionTree(alarm)
    found = tree.query({v: torch.tensor(c[chosen]) for v, c in columns.items()})
    np.testing.assert_allclose(found.log_evidence, log_z[chosen], rtol=1e-12)
    answers = np.concatenate([*found.to_numpy().values()], 1)
    np.testing.assert_allclose(answers, marginals[chosen], rtol=0, atol=1e-12)
    target = list(alarm.states)[4]
    alone = tree.query({v: torch.tensor(c[chosen]) for v, c in columns.items()}, targets=[target])
    np.testing.assert_allclose(alone[target], found[target], rtol=0, atol=1e-12)


@pytest.mark.parametrize("merged", [0, 10**5])
def test_rows_do_not_depend_on_the_cliques(merged, alarm, rows, monkeypatch):
    for function in (Reduction.__init__, clique_tree.CliqueTree.__init__):
        monkeypatch.setitem(function.__kwdefaults__, "merged", merged)
    columns, log_z, marginals = rows
    tree = JunctionTree(alarm)
    for i in range(0, 1000, 50):
        evidence = {v: alarm.states[v][c[i]] for v, c in columns.items() if c[i] >= 0}
        found = tree.query(evidence)
        assert float(found.log_evidence) == pytest.approx(log_z[i], rel=1e-12)
        answer = np.concatenate([*found.to_numpy().values()])
        np.testing.assert_allclose(answer, marginals[i], rtol=0, atol=1e-12)


def test_tensors_and_arrays_take_the_same_rows(alarm, rows):
    """The differentiable path answers a batch as the fast one does."""
    columns, log_z, marginals = rows
    soft = {"CVP": torch.ones(3, dtype=torch.float64)}
    found = JunctionTree(alarm).query(
        {v: torch.tensor(c[:300]) for v, c in columns.items()}, likelihoods=soft
    )
    np.testing.assert_allclose(found.log_evidence, log_z[:300], rtol=1e-12)
    answers = np.concatenate([*found.to_numpy().values()], 1)
    np.testing.assert_allclose(answers, marginals[:300], rtol=0, atol=1e-12)


def test_a_tree_answers_again_and_again(alarm, rows):
    """Kinds of queries in turn leave no trace in the engine's memory."""
    columns, log_z, marginals = rows
    tree = JunctionTree(alarm)
    for i in range(0, 60, 6):
        evidence = {v: alarm.states[v][c[i]] for v, c in columns.items() if c[i] >= 0}
        tree.query({v: torch.tensor(c[i : i + 20]) for v, c in columns.items()})
        tree.query(evidence, likelihoods={"HR": [0.0, 1.0, 0.2]}, targets=["CVP"])
        with pytest.raises(ValueError, match=r"HR has probability zero|likelihood of HR"):
            tree.query(evidence, likelihoods={"HR": [0.0, 0.0, 0.0]})
        tree.query(evidence).joint("CVP", "BP")
        tree.mpe(evidence)
        tree.sample(3, evidence)
        found = tree.query(evidence)
        assert float(found.log_evidence) == pytest.approx(log_z[i], rel=1e-12)
        answer = np.concatenate([*found.to_numpy().values()])
        np.testing.assert_allclose(answer, marginals[i], rtol=0, atol=1e-12)


@pytest.mark.parametrize("expensive", [0, engine.EXPENSIVE])
def test_threads_share_an_engine(expensive, alarm, rows, monkeypatch):
    """Eight threads, all kinds of queries, many more reductions than are kept."""
    monkeypatch.setattr(engine, "EXPENSIVE", expensive)
    columns, log_z, marginals = rows
    tree = JunctionTree(alarm)
    start = threading.Barrier(8)

    def work(thread):
        start.wait()
        for i in range(thread, 160 if expensive else 48, 8):
            if i % 5 == 0:
                batch = {v: torch.tensor(c[i : i + 9]) for v, c in columns.items()}
                found = tree.query(batch)
                np.testing.assert_allclose(found.log_evidence, log_z[i : i + 9], rtol=1e-12)
            evidence = {v: alarm.states[v][c[i]] for v, c in columns.items() if c[i] >= 0}
            found = tree.query(evidence)
            np.testing.assert_allclose(float(found.log_evidence), log_z[i], rtol=1e-12)
            answer = np.concatenate([*found.to_numpy().values()])
            np.testing.assert_allclose(answer, marginals[i], rtol=0, atol=1e-12)
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


# Cost ---------------------------------------------------------------------------------------------


def test_cost_is_that_of_the_cliques(alarm):
    tree = JunctionTree(alarm)
    cliques = tree._engine.whole.tree
    sizes = [
        math.prod(len(alarm.states[list(alarm.states)[v]]) for v in axes) for axes in cliques.axes
    ]
    assert tree.cost.total_cells == sum(sizes) and tree.cost.largest_table == max(sizes)
    assert tree.cost.bytes >= 8 * 2 * sum(sizes)
    assert not tree.cost.at_least and "largest table" in str(tree.cost)
    assert tree.cost.width >= max(len(scope) - 1 for scope in tree._engine.scopes)


@pytest.fixture(scope="module")
def large():
    """A grid of 40 x 40 binary variables: its factors, its tree, and how long that took."""
    factors = grid(40, 40, np.random.default_rng(0))
    start = time.perf_counter()
    tree = JunctionTree(factors)
    return factors, tree, time.perf_counter() - start


def test_a_grid_too_large_is_refused_at_once(large):
    _, tree, seconds = large
    start = time.perf_counter()
    assert tree.cost.at_least and "at least" in str(tree.cost)
    for ask in (tree.query, tree.mpe, lambda: tree.sample(1), lambda: tree.query({(0, 0): 1})):
        with pytest.raises(
            MemoryError, match=r"more than .*iB with .* free .*likelihood_weighting"
        ):
            ask()
    assert seconds + time.perf_counter() - start < 10


def test_a_large_grid_with_every_other_column_observed(large):
    """Chains are left, each column's answer is a forward pass and a backward pass."""
    factors, tree, _ = large
    rng = np.random.default_rng(1)
    evidence = {(r, c): int(rng.integers(2)) for r in range(40) for c in range(1, 40, 2)}
    found = tree.query(evidence)
    pair = {frozenset(scope): (scope, values) for scope, values in factors}

    def between(a, b):
        scope, values = pair[frozenset((a, b))]
        return values if scope == (a, b) else values.T

    total = sum(
        math.log(between((r, c), (r + 1, c))[evidence[r, c], evidence[r + 1, c]])
        for r in range(39)
        for c in range(1, 40, 2)
    )
    for c in range(0, 40, 2):
        local = []
        for r in range(40):
            weight = np.ones(2)
            for side in (c - 1, c + 1):
                if 0 <= side < 40:
                    weight = weight * between((r, c), (r, side))[:, evidence[r, side]]
            local.append(weight)
        down, up = [local[0]], [np.ones(2)]
        for r in range(1, 40):
            down.append(local[r] * (down[-1] @ between((r - 1, c), (r, c))))
        for r in range(38, -1, -1):
            up.append(between((r, c), (r + 1, c)) @ (local[r + 1] * up[-1]))
        total += math.log(down[-1].sum())
        for r in range(40):
            exact = down[r] * up[39 - r]
            np.testing.assert_allclose(found[r, c], exact / exact.sum(), rtol=1e-11)
    assert float(found.log_evidence) == pytest.approx(total, rel=1e-12)
    best = tree.mpe(evidence)
    assert {v: best.assignment[v] for v in evidence} == evidence
    product = sum(math.log(t[tuple(best.assignment[v] for v in s)]) for s, t in factors)
    assert best.log_probability == pytest.approx(product, rel=1e-12)
    assert (tree.sample(5, evidence, seed=0)[[*evidence]].to_numpy() == [*evidence.values()]).all()


def test_free_memory_is_asked_for(alarm, monkeypatch):
    tree = JunctionTree(alarm)
    before = tree.query()
    monkeypatch.setattr(engine, "free_memory", lambda: 1000)
    np.testing.assert_allclose(tree.query()["CVP"], before["CVP"])  # small ones always may
    monkeypatch.setattr(engine, "ALWAYS", 0)
    for ask in (tree.query, tree.mpe, lambda: tree.sample(1), lambda: tree.query({"CVP": ["LOW"]})):
        with pytest.raises(
            MemoryError, match=r"KiB with 1,000 bytes free .*observe more variables"
        ):
            ask()
    monkeypatch.setattr(engine, "free_memory", lambda: 10**9)
    np.testing.assert_allclose(tree.query()["CVP"], before["CVP"])


def test_targets_leave_out_what_is_barren():
    """A network far too large as a whole answers for a few ancestors of a small part of it."""
    rng = np.random.default_rng(0)
    states = {(r, c): (0, 1) for r in range(26) for c in range(26)}
    factors = []
    for r, c in states:
        given = [p for p in ((r - 1, c), (r, c - 1), (r - 1, c - 1)) if p in states]
        values = rng.random([2] * (1 + len(given))) + 0.1
        factors.append(Factor(((r, c), *given), values / values.sum(0)))
    model = bayesian(states, factors)
    tree = JunctionTree(model)
    assert tree.cost.at_least
    with pytest.raises(MemoryError, match="ask for fewer targets"):
        tree.query()
    corner = {v: k for v, k in states.items() if max(v) < 3}
    small = bayesian(corner, [f for f in model.factors if f.variables[0] in corner])
    table = conditioned(small, joint_table(small), {(2, 2): 1})
    for batch in (False, True):
        found = tree.query({(2, 2): [1, 1] if batch else 1}, targets=[(0, 1), (2, 1)])
        for v in ((0, 1), (2, 1)):
            answers = found[v] if batch else found[v][None]
            for answer in answers:
                np.testing.assert_allclose(answer, summed(small, table, v), rtol=1e-11)
        joint = found.joint((2, 1), (0, 1))
        for answer in joint if batch else joint[None]:
            np.testing.assert_allclose(answer, summed(small, table, (2, 1), (0, 1)), rtol=1e-11)
        np.testing.assert_allclose(found.log_evidence, math.log(table.sum()), rtol=1e-11)
    assert abs(tree.log_partition) < 1e-12


def test_joints_across_cliques_are_refused_where_they_do_not_fit(alarm, monkeypatch):
    posterior = JunctionTree(alarm).query()
    assert posterior.joint("CVP", "BP", "HISTORY", "LVFAILURE").sum() == pytest.approx(1)
    with pytest.raises(MemoryError, match="largest table"):
        posterior.joint(*alarm.states)


def test_a_joint_is_the_product_of_conditionals(alarm):
    """p(a, b, c) = p(a) p(b | a) p(c | a, b), each by a query of its own."""
    tree = JunctionTree(alarm)
    names = ("HR", "CVP", "PRESS")
    joint = tree.query({"BP": "LOW"}).joint(*names)
    for codes in itertools.product(*(range(len(alarm.states[v])) for v in names)):
        evidence, product = {"BP": "LOW"}, 1.0
        for v, code in zip(names, codes, strict=True):
            product *= float(tree.query(evidence, targets=[v])[v][code])
            evidence[v] = alarm.states[v][code]
        assert float(joint[codes]) == pytest.approx(product, abs=1e-12)


def test_other_tables_take_the_place_of_the_first(alarm):
    """The compiled programs stay, with the answers of a tree that is compiled anew."""
    rng = np.random.default_rng(0)
    tree = JunctionTree(alarm)
    evidence = {"CVP": ["LOW", None, "HIGH"], "BP": ["LOW"] * 3}
    for ask in ({"CVP": "LOW"}, evidence):
        tree.query(ask).joint("HR", "PRESS")
    arrays = []
    for factor in alarm.factors:
        values = rng.random(factor.values.shape) ** 8
        arrays.append(values / values.sum(0))
    tree._engine.rebind(arrays)
    scopes = [f.variables for f in alarm.factors]
    other = JunctionTree(tables_of([*zip(scopes, arrays, strict=True)]))
    codes = {v: [alarm.positions[v][s] if s else None for s in k] for v, k in evidence.items()}
    for ask, same in (({"CVP": "LOW"}, {"CVP": alarm.positions["CVP"]["LOW"]}), (evidence, codes)):
        found, wanted = tree.query(ask), other.query(same)
        np.testing.assert_allclose(found.log_evidence, wanted.log_evidence, rtol=1e-12)
        for v in alarm.states:
            np.testing.assert_allclose(found[v], wanted[v], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(
            found.joint("HR", "PRESS"), wanted.joint("HR", "PRESS"), rtol=1e-9, atol=1e-12
        )
