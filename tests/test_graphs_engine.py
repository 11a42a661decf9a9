"""The engine where it is hard: batches, underflow, impossible evidence, derivatives, memory."""

import itertools
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import graphs
from graphs import JunctionTree, clique_tree, engine
from graphs.reduction import Reduction
from graphs.tables import Factor, bayesian, tables_of
from tests.networks import (
    conditioned,
    grid,
    joint_table,
    named,
    quietly,
    random_bayesian,
    random_codes,
    random_factors,
    summed,
)

CLOSE = {"rtol": 1e-11, "atol": 1e-12}


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


# Numbers too small for linear space ---------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_a_long_chain_of_unlikely_evidence(dtype, as_tensor):
    """2,000 nodes observed at probability about 1e-3 each, against a forward pass in logarithms."""
    n = 2000
    rng = np.random.default_rng(0)
    transition = np.array([[0.9, 0.1], [0.2, 0.8]])  # [from, to]
    factors = [Factor(("z0",), np.array([0.6, 0.4]))]
    forward, total = np.array([0.6, 0.4]), 0.0
    states = {"z0": ("a", "b")}
    for i in range(n):
        rare = rng.random(2) * 1e-3 + 5e-4
        if i:
            states[f"z{i}"] = ("a", "b")
            factors.append(Factor((f"z{i}", f"z{i - 1}"), transition.T))
            forward = forward @ transition
        states[f"x{i}"] = ("often", "rare")
        factors.append(Factor((f"x{i}", f"z{i}"), np.stack([1 - rare, rare])))
        forward = forward * rare
        total += math.log(forward.sum())
        forward /= forward.sum()
    tree = JunctionTree(bayesian(states, factors), dtype=dtype)
    soft = {"z7": torch.ones(2)} if as_tensor else None
    found = tree.query(
        {f"x{i}": "rare" for i in range(n)}, targets=[f"z{n - 1}", "z0"], likelihoods=soft
    )
    exact = dtype == "float64"
    assert float(found.log_evidence) == pytest.approx(total, rel=1e-12 if exact else 1e-6)
    np.testing.assert_allclose(found[f"z{n - 1}"], forward, rtol=1e-10 if exact else 1e-4)
    assert total < -10_000


def tiny_model(rng, power):
    """Random factors whose entries spread over hundreds of orders of magnitude, and their logs."""
    scopes = [("a",), ("a", "b"), ("b", "c"), ("a", "c"), ("c", "a"), ("b",), ("c", "d"), ("d",)]
    found = []
    for scope in scopes:
        logs = -rng.random([3] * len(scope)) * power * math.log(10)
        logs += power / 2 * math.log(10) * rng.integers(-1, 2)
        logs[rng.random(logs.shape) < 0.15] = -np.inf
        found.append((scope, logs))
    return found


def log_margins(logs, names, codes):
    """log Z and log marginals by summing the whole joint table in logarithms."""
    table = np.zeros([3] * len(names))
    for scope, values in logs:
        order = sorted(range(len(scope)), key=lambda i: names.index(scope[i]))
        shape = [3 if v in scope else 1 for v in names]
        table = table + values.transpose(order).reshape(shape)
    for v, code in codes.items():
        shape = [3 if u == v else 1 for u in names]
        table = table + np.where(np.arange(3) == code, 0.0, -np.inf).reshape(shape)
    log_z = np.logaddexp.reduce(table, None)
    with np.errstate(invalid="ignore"):
        return (
            log_z,
            {
                v: np.exp(
                    np.logaddexp.reduce(table, tuple(j for j in range(len(names)) if j != i))
                    - log_z
                )
                for i, v in enumerate(names)
            },
            table,
        )


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize(
    ("dtype", "power"), [("float64", 60), ("float64", 150), ("float64", 290), ("float32", 150)]
)
def test_products_that_underflow_or_overflow_in_one_clique(dtype, power, as_tensor):
    """1e-200 times 1e-200 is no zero, nor is 1e200 squared infinite: logarithms decide."""
    close = {"rtol": 1e-11, "atol": 1e-12} if dtype == "float64" else {"rtol": 2e-6, "atol": 2e-6}
    checked = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        logs = tiny_model(rng, power)
        tree = JunctionTree([(scope, np.exp(values)) for scope, values in logs], dtype=dtype)
        with np.errstate(divide="ignore"):  # what the tables really hold
            logs = [(scope, np.log(np.exp(values))) for scope, values in logs]
        names = list(tree.tables.states)
        codes = {v: int(rng.integers(3)) for v in names if rng.random() < 0.4}
        log_z, margins, table = log_margins(logs, names, codes)
        scale = 10.0 ** rng.integers(-250, 250) if dtype == "float64" else 1.0
        weight = np.full(3, scale)
        soft = {"d": torch.tensor(weight) if as_tensor else weight}
        if log_z == -np.inf:
            with pytest.raises(ValueError, match=r"impossible|no assignment"):
                tree.query(codes, likelihoods=soft)
            continue
        checked += 1
        found = tree.query(codes, likelihoods=soft)
        assert float(found.log_evidence) == pytest.approx(
            log_z + math.log(scale), **{"rel": close["rtol"], "abs": close["atol"]}
        )
        for v in names:
            np.testing.assert_allclose(found[v].numpy(), margins[v], **close)
        assert tree.mpe(codes).log_probability == pytest.approx(table.max(), rel=1e-11, abs=1e-10)
        drawn = tree.sample(200, codes, seed=seed)
        for v in names:
            share = np.bincount(drawn[v].cat.codes, minlength=3) / 200
            np.testing.assert_allclose(share, margins[v], atol=0.2)
            assert (share[margins[v] == 0] == 0).all()
    assert checked > 20


@pytest.mark.parametrize("as_tensor", [False, True])
def test_a_tiny_row_does_not_disturb_the_others(as_tensor):
    """One row underflows, one is impossible; the rest is right to the last digits."""
    tables = bayesian(
        {"a": "xy", "b": "xyz", "c": "xy"},
        [
            Factor(("a",), np.array([1.0, 1e-170])),
            Factor(("b", "a"), np.array([[0.5, 1e-150], [0.5, 1.0], [0.0, 0.0]])),
            Factor(("c", "b"), np.array([[0.3, 1.0, 0.5], [0.7, 0.0, 0.5]])),
        ],
    )
    evidence = {"a": ["x", "y", "x", None, None], "b": ["x", "x", "z", None, "y"]}
    soft = {"c": torch.ones(2)} if as_tensor else None
    found = JunctionTree(tables).query(evidence, likelihoods=soft)
    wanted = [math.log(0.5), -320 * math.log(10), -math.inf, 0.0, math.log(0.5)]
    np.testing.assert_allclose(found.log_evidence, wanted, rtol=1e-13, atol=1e-14)
    assert found.possible.tolist() == [True, True, False, True, True]
    np.testing.assert_allclose(
        found["c"], [[0.3, 0.7], [0.3, 0.7], [np.nan] * 2, [0.65, 0.35], [1, 0]], rtol=1e-13
    )


# Impossible evidence ------------------------------------------------------------------------------


def blamed(error, tables):
    """The evidence that a message names: variables, and whether it is their likelihood."""
    text = str(error.value).split("impossible: ")[1].split(" cannot hold")[0]
    text = text.removesuffix(" has probability zero")
    by_text = {str(v): v for v in tables.states}
    found, rest = [], text
    while rest:  # names may hold commas themselves
        soft = rest.startswith("the likelihood of ")
        rest = rest.removeprefix("the likelihood of ")
        name = max((n for n in by_text if rest.startswith(n)), key=len)
        rest = rest[len(name) :]
        if not soft:
            state = next(s for s in tables.states[by_text[name]] if rest.startswith(f"={s}"))
            rest = rest[len(str(state)) + 1 :]
        rest = rest.removeprefix(", ")
        found.append((by_text[name], soft))
    return found


@pytest.mark.parametrize("as_tensor", [False, True])
def test_impossible_evidence_names_a_minimal_conflict(as_tensor):
    sizes = set()
    for seed in range(250):
        rng = np.random.default_rng(seed)
        model = random_bayesian(rng, zeros=0.6) if seed % 2 else random_factors(rng, zeros=0.5)
        tree = JunctionTree(model)
        tables = tree.tables
        codes = random_codes(rng, tables, 0.8)
        weights = {
            v: (rng.random(len(s)) > 0.5) * 0.5
            for v, s in tables.states.items()
            if rng.random() < 0.3
        }
        joint = joint_table(tables)
        if conditioned(tables, joint, codes, weights).sum() > 0 or joint.sum() == 0:
            continue
        soft = {v: torch.tensor(w) if as_tensor else w for v, w in weights.items()}
        with pytest.raises(ValueError, match="the evidence is impossible") as error:
            tree.query(named(tables, codes), likelihoods=soft)
        items = blamed(error, tables)

        def mass(some, tables=tables, joint=joint, codes=codes, weights=weights):
            hard = {v: codes[v] for v, soft in some if not soft}
            return conditioned(tables, joint, hard, {v: weights[v] for v, s in some if s}).sum()

        assert mass(items) == 0
        for left_out in items:
            assert mass([item for item in items if item != left_out]) > 0
        sizes.add(len(items))
        if not weights:
            for ask in (tree.mpe, lambda e, t=tree: t.sample(1, e)):
                with pytest.raises(ValueError, match="the evidence is impossible") as again:
                    ask(named(tables, codes))
                assert str(again.value) == str(error.value)
    assert sizes >= {1, 2}


@pytest.mark.parametrize("size", [2, 3, 7])
def test_a_conflict_of_many_is_found_among_more(size):
    """The parity of some bits is wrong, whatever else is observed; each of them is needed."""
    table = np.indices([2] * size).sum(0) % 2 == 0
    bits = [f"bit{i}" for i in range(size)]
    others = [((f"other{i}",), np.ones(2)) for i in range(20)]
    tree = JunctionTree([*others[:10], (tuple(bits), table), *others[10:]])
    evidence = {v: 0 for v in tree.tables.states} | {bits[-1]: 1}
    with pytest.raises(ValueError, match="cannot hold together") as error:
        tree.query(evidence)
    assert {v for v, _ in blamed(error, tree.tables)} == set(bits)
    assert tree.query(evidence | {bits[0]: 1}).possible


def test_tables_that_make_the_evidence_impossible_are_believed():
    """The conflict is looked for in the tables of the query, not in those of the model."""
    tree = JunctionTree(graphs.read("asia"))
    never = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"impossible: lung=yes has probability zero"):
        tree.query({"xray": "yes", "lung": "yes"}, tables={"lung": never})
    with pytest.raises(ValueError, match="zero everywhere"):
        tree.query(tables={"lung": torch.zeros(2, 2)})
    with pytest.raises(ValueError, match="zero everywhere"):
        tree.query({"xray": "yes"}, tables={"lung": torch.zeros(2, 2)})


# Derivatives --------------------------------------------------------------------------------------


def differences(function, tensor, step=1e-6):
    """Central differences of several numbers; one-sided of second order at a zero."""
    found = []
    for i in range(tensor.numel()):

        def at(shift, i=i):
            moved = tensor.detach().clone()
            moved.view(-1)[i] += shift
            with torch.no_grad():
                return function(moved).detach()

        if tensor.detach().view(-1)[i] == 0:
            found.append((-3 * at(0) + 4 * at(step) - at(2 * step)) / (2 * step))
        else:
            found.append((at(step) - at(-step)) / (2 * step))
    return torch.stack(found, -1)


def check_gradient(function, tensor):
    """Every output's gradient against finite differences."""
    tensor = tensor.detach().clone().requires_grad_()
    output = function(tensor)
    exact = torch.stack(
        [torch.autograd.grad(value, tensor, retain_graph=True)[0].reshape(-1) for value in output]
    )
    numeric = differences(function, tensor)
    np.testing.assert_allclose(exact, numeric, rtol=2e-5, atol=2e-6)
    assert exact.abs().max() > 0
    return exact


def outputs(posterior, *joint):
    """All that a query answers, as one vector."""
    tables = [posterior[v].reshape(-1) for v in posterior]
    tables += [posterior.joint(*joint).reshape(-1)] if joint else []
    return torch.cat([posterior.log_evidence.reshape(-1), *tables])


@pytest.mark.parametrize("batch", [False, True])
def test_gradients_of_a_networks_tables(batch):
    rng = np.random.default_rng(1)
    model = random_bayesian(rng, 5, zeros=0.3, cards=3)
    tree = JunctionTree(model)
    best = tree.mpe().assignment
    observed = list(model.states)[::2]
    evidence = {v: [best[v], None, best[v]] if batch else best[v] for v in observed}
    zeros = 0
    for variable in model.states:
        table = torch.tensor(model.conditional(variable))
        zeros += int((table == 0).sum())
        names = list(model.states)
        if table.numel() == 1:
            continue
        check_gradient(
            lambda t, v=variable, n=names: outputs(
                tree.query(evidence, tables={v: t}), n[0], n[-1]
            ),
            table,
        )
    assert zeros > 0
    plain = JunctionTree(model).query(evidence)
    np.testing.assert_allclose(outputs(tree.query(evidence)), outputs(plain), **CLOSE)


def test_gradients_of_factors_and_their_later_values():
    """Factors given as tensors are followed when an optimiser moves them, in every question."""
    rng = np.random.default_rng(4)
    start = torch.tensor(rng.random((2, 3)) + 0.1)
    start[0, 0] = 0.0
    other = rng.random((3, 2)) + 0.1

    def ask(tensor, evidence=None):
        tree = JunctionTree([(("a", "b"), tensor), [("b", "c"), other]])
        return outputs(tree.query(evidence), "a", "c")

    for evidence in (None, {"c": 1}, {"c": [0, 1, 1]}):
        check_gradient(lambda t, e=evidence: ask(t.requires_grad_(), e), start)
    tensor = start.clone().requires_grad_()
    for model in (
        [(("a", "b"), tensor), (("b", "c"), other)],
        [[("a", "b"), tensor], (("b", "c"), other)],
    ):
        tree = JunctionTree(model)
        assert tree.query().log_evidence.requires_grad
    with torch.no_grad():
        tensor[:] = torch.tensor([[5.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert tree.query()["b"].tolist() == [1, 0, 0]
    assert tree.log_partition == pytest.approx(math.log(5 * other[0].sum()))
    best = tree.mpe()
    assert best.assignment["b"] == 0 and best.assignment["a"] == 0
    assert best.log_probability == pytest.approx(math.log(5 * other[0].max()))
    assert set(tree.sample(20)["b"]) == {0}
    with pytest.raises(ValueError, match="impossible: b=2 has probability zero"):
        tree.query({"b": 2})
    with pytest.raises(ValueError, match="impossible: b=2 has probability zero"):
        tree.mpe({"b": 2})


@pytest.mark.parametrize("shape", [(3,), (4, 3)])
def test_gradients_of_likelihoods(shape):
    rng = np.random.default_rng(2)
    model = [(("a", "b"), rng.random((3, 2))), (("b", "c"), rng.random((2, 3)))]
    tree = JunctionTree(model)
    weights = torch.tensor(rng.random(shape) + 0.1)
    weights.view(-1)[1] = 0.0
    check_gradient(lambda w: outputs(tree.query(likelihoods={"a": w}), "c", "a"), weights)
    check_gradient(lambda w: outputs(tree.query({"b": 1}, likelihoods={"a": w})), weights)
    check_gradient(
        lambda w: tree.query({"a": 2}, likelihoods={"a": w}).log_evidence.reshape(-1), weights
    )


def test_the_gradient_check_of_torch_agrees():
    tables = graphs.read("cancer")
    tree = JunctionTree(tables)
    given = {v: torch.tensor(tables.conditional(v)).requires_grad_() for v in tables.states}

    def ask(*values):
        found = tree.query({"Xray": "positive"}, tables=dict(zip(given, values, strict=True)))
        return outputs(found, "Cancer", "Smoker")

    assert torch.autograd.gradcheck(ask, tuple(given.values()), atol=1e-7)
    soft = torch.tensor([0.3, 0.9], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(
        lambda w: tree.query(likelihoods={"Dyspnoea": w})["Cancer"], (soft,)
    )


def test_bad_rows_leave_the_other_rows_gradients_alone():
    """An impossible row and one in logarithms: the others' one-sided derivatives stay."""
    values = torch.tensor([[0.0, 0.5], [1.0, 0.5]], dtype=torch.float64)
    model = bayesian(
        {"a": "xy", "b": "xy"},
        [Factor(("a",), np.array([1e-250, 1.0])), Factor(("b", "a"), values.numpy())],
    )
    tree = JunctionTree(model)
    alone = check_gradient(lambda t: tree.query({"b": ["x"]}, tables={"b": t}).log_evidence, values)
    tensor = values.clone().requires_grad_()
    found = tree.query({"b": ["x", "x", "y"], "a": [None, "x", "x"]}, tables={"b": tensor})
    assert found.possible.tolist() == [True, False, True]
    gradient = torch.autograd.grad(found.log_evidence[0], tensor, retain_graph=True)[0]
    np.testing.assert_allclose(gradient.reshape(1, -1), alone, rtol=1e-12)
    low = torch.autograd.grad(found.log_evidence[2], tensor)[0]
    np.testing.assert_allclose(low, [[0, 0], [1.0, 0]], rtol=1e-12)


def test_answers_without_gradients_have_none():
    tree = JunctionTree(graphs.read("asia"))
    found = tree.query({"xray": "yes"}, likelihoods={"lung": torch.ones(2)})
    assert not found.log_evidence.requires_grad and not found["tub"].requires_grad
    learned = torch.ones(2, requires_grad=True)
    with torch.no_grad():
        found = tree.query({"xray": "yes"}, likelihoods={"lung": learned})
        assert not found.log_evidence.requires_grad and not found["tub"].requires_grad
    with torch.inference_mode():
        still = tree.query({"xray": "yes"}, likelihoods={"lung": torch.ones(2)})
    np.testing.assert_allclose(still["tub"], found["tub"])


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
