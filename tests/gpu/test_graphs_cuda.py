"""Exact inference on CUDA: the same answers as NumPy's, single and batched, with gradients."""

import numpy as np
import pytest
import torch

import graphs
from graphs import JunctionTree
from tests.networks import (
    conditioned,
    joint_table,
    named,
    quietly,
    random_bayesian,
    random_codes,
    random_factors,
)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


def check_same(found, wanted, **close):
    assert found.log_evidence.device.type == "cuda"
    np.testing.assert_allclose(found.log_evidence.cpu(), wanted.log_evidence, **close)
    for v in wanted:
        assert found[v].device.type == "cuda"
        np.testing.assert_allclose(found[v].cpu(), wanted[v], **close)
        np.testing.assert_allclose(found.to_numpy()[v], wanted.to_numpy()[v], **close)


def test_random_models_answer_on_cuda_as_on_the_cpu():
    answered = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        model = random_bayesian(rng) if seed % 2 else random_factors(rng)
        tree, other = JunctionTree(model), JunctionTree(model, device="cuda")
        codes = random_codes(rng, tree.tables)
        table = conditioned(tree.tables, joint_table(tree.tables), codes)
        if table.sum() == 0:
            with pytest.raises(ValueError, match=r"impossible|no assignment"):
                other.query(named(tree.tables, codes))
            continue
        wanted = tree.query(named(tree.tables, codes))
        found = other.query(named(tree.tables, codes))
        check_same(found, wanted, rtol=1e-11, atol=1e-12)
        if not tree.tables.states:
            continue
        names = list(tree.tables.states)[:3]
        np.testing.assert_allclose(
            found.joint(*names).cpu(), wanted.joint(*names), rtol=1e-11, atol=1e-12
        )
        answered += 1
    assert answered > 20


@pytest.mark.parametrize(("dtype", "close"), [("float64", 1e-12), ("float32", 2e-5)])
def test_batches_answer_on_cuda_as_on_the_cpu(dtype, close):
    tables = quietly(graphs.read, "alarm")
    drawn = JunctionTree(tables).sample(700, seed=1)
    rng = np.random.default_rng(0)
    evidence = {
        v: np.where(rng.random(700) < 0.3, -1, drawn[v].cat.codes) for v in list(tables.states)[::3]
    }
    evidence["CVP"] = np.full(700, 2)
    evidence = {v: torch.tensor(codes, dtype=torch.long) for v, codes in evidence.items()}
    wanted = JunctionTree(tables).query(evidence)
    found = JunctionTree(tables, device="cuda", dtype=dtype).query(evidence)
    check_same(found, wanted, rtol=10 * close, atol=close)
    np.testing.assert_allclose(
        found.joint("HR", "CVP").cpu(), wanted.joint("HR", "CVP"), rtol=0, atol=close
    )


def test_gradients_on_cuda_are_those_on_the_cpu():
    tables = graphs.read("asia")
    gradients = []
    for device in ("cpu", "cuda"):
        tree = JunctionTree(tables, device=device)
        table = torch.tensor(tables.conditional("lung"), device=device, requires_grad=True)
        soft = torch.tensor([[0.3, 0.7], [1.0, 0.0]], device=device).requires_grad_()
        found = tree.query(
            {"xray": ["yes", "no"]}, likelihoods={"dysp": soft}, tables={"lung": table}
        )
        total = (
            found.log_evidence.sum()
            + (found["tub"] ** 2).sum()
            + found.joint("tub", "lung")[0, 0, 0]
        )
        gradients.append([g.cpu() for g in torch.autograd.grad(total, [table, soft])])
    for left, right in zip(*gradients, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-7)
        assert left.abs().max() > 0


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_underflow_on_cuda_is_repaired_in_logarithms(dtype):
    factors = [
        (("a",), [1.0, 1e-170]),
        (("a",), [1.0, 1e-170]),
        (("a", "b"), [[1.0, 2.0], [3.0, 1.0]]),
    ]
    factors = [(scope, np.array(values)) for scope, values in factors]
    found = JunctionTree(factors, device="cuda", dtype=dtype).query({"a": [1, 0, None]})
    np.testing.assert_allclose(
        found.log_evidence.cpu(), [np.log(4) - 340 * np.log(10), np.log(3), np.log(3)], rtol=1e-6
    )
    np.testing.assert_allclose(
        found["b"].cpu(), [[0.75, 0.25], [1 / 3, 2 / 3], [1 / 3, 2 / 3]], rtol=1e-6
    )
