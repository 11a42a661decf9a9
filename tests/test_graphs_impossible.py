"""Numbers too small for linear space, and evidence that has no probability at all."""

import math

import numpy as np
import pytest
import torch

import graphs
from graphs import JunctionTree
from graphs.tables import Factor, bayesian
from tests.networks import (
    conditioned,
    joint_table,
    named,
    random_bayesian,
    random_codes,
    random_factors,
)


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
def test_large_numbers_do_not_hide_lost_digits(as_tensor):
    """1e-318 has few digits in float64; a likelihood of 1e250 does not bring them back."""
    tree = JunctionTree(
        [(("a",), np.array([1.0, 1.23456789e-160])), (("a",), np.array([1.0, 1e-158]))]
    )
    soft = np.array([0.0, 1e250])
    found = tree.query(likelihoods={"a": torch.tensor(soft) if as_tensor else soft})
    wanted = math.log(1.23456789) - 68 * math.log(10)
    assert float(found.log_evidence) == pytest.approx(wanted, rel=1e-13)
    large = np.array([[1e200, 3e200], [1e200, 1e100]])
    factors = [(("a", "b"), large), (("b", "a"), large.T), (("a",), np.array([1e300, 1e300]))]
    tree = JunctionTree(factors)  # 1e700 is infinite in linear space
    weights = {"a": torch.ones(2)} if as_tensor else None
    found = tree.query(likelihoods=weights)
    assert float(found.log_evidence) == pytest.approx(700 * math.log(10) + math.log(11), rel=1e-14)
    np.testing.assert_allclose(found.joint("a", "b"), [[1 / 11, 9 / 11], [1 / 11, 0]], atol=1e-14)


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
