"""Derivatives of every answer, against finite differences."""

import math

import numpy as np
import pytest
import torch

import graphs
from graphs import JunctionTree
from graphs.tables import Factor, bayesian
from tests.networks import (
    random_bayesian,
)

CLOSE = {"rtol": 1e-11, "atol": 1e-12}


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
