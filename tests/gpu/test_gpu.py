"""On CUDA: compiled equals plain, training and its resumption, bf16, evaluation as on the CPU."""

import copy

import pytest
import torch

from ppgen.compile import Compiled
from ppgen.data import Dataset, load_data
from ppgen.evaluation import evaluate
from ppgen.models import VAE, Diffusion
from ppgen.objective import ELBO, ImportanceWeightedELBO
from ppgen.run import load_checkpoint
from ppgen.training import fit

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
OPTIONS = {"batch_size": 256, "device": "cuda", "progress": False, "sample_epochs": 0}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_data("digits", binarize="dynamic")


def small(dataset: Dataset) -> VAE:
    torch.manual_seed(0)
    return VAE(dataset.shape, latent_dim=2, hidden=(16,), levels=dataset.levels)


@pytest.mark.parametrize("kind", [ELBO, ImportanceWeightedELBO])
def test_compiled_equals_plain_on_cuda(kind, digits):
    found = []
    for mode in ("none", "trace"):
        objective = kind(small(digits)).to("cuda")
        compiled = Compiled(objective, mode)
        for size in (64, 7):
            x, y = digits.train.to("cuda").batch(slice(0, size))
            torch.manual_seed(1)
            loss, _ = compiled(x, y)
            gradients = torch.autograd.grad(loss, list(objective.program.parameters()))
            found.append((loss.detach(), *gradients))
    for plain, traced in zip(found[:2], found[2:], strict=True):
        for left, right in zip(plain, traced, strict=True):
            torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_fit_on_cuda_learns(precision, digits, tmp_path):
    run = fit(small(digits), digits, out=tmp_path / "run", steps=60, precision=precision, **OPTIONS)
    held_out = [row["loss"] for row in run.metrics if row["split"] == "validation"]
    assert held_out[-1] < held_out[0] and held_out[-1] < 44.5
    assert {p.device.type for p in run.program.parameters()} == {"cuda"}
    assert {p.dtype for p in run.program.parameters()} == {torch.float32}
    weights, _ = load_checkpoint(tmp_path / "run")
    for name, value in run.program.state_dict().items():
        assert torch.equal(value.cpu(), weights[name])


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_run_on_cuda_resumes_to_the_same_bits(precision, digits, tmp_path):
    options = OPTIONS | {"precision": precision, "ema": 0.9, "schedule": "constant"}
    options |= {"warmup_steps": 0, "clip_norm": 1.0}
    whole = fit(small(digits), digits, steps=20, **options).program.state_dict()
    fit(small(digits), digits, out=tmp_path / "run", steps=9, **options)
    run = fit(small(digits), digits, out=tmp_path / "run", steps=20, resume=True, **options)
    for name, value in run.program.state_dict().items():
        assert torch.equal(value, whole[name]), name


def test_evaluation_on_cuda_is_that_of_the_cpu(digits):
    program = fit(small(digits), digits, steps=30, **OPTIONS).program.cpu()
    here, there = (
        evaluate(copy.deepcopy(program), digits, particles=500, device=device)
        for device in ("cpu", "cuda")
    )
    error = here.log_likelihood.stderr
    assert abs(here.log_likelihood.value - there.log_likelihood.value) < 0.1 * error + 0.01
    assert here.log_likelihood.kind == there.log_likelihood.kind == "bound"
    assert abs(here.elbo["value"] - there.elbo["value"]) < 0.1 * here.elbo["stderr"] + 0.01
    assert {p.device.type for p in program.parameters()} == {"cpu"}


@pytest.mark.parametrize("weighting", ["elbo", "simple"])
def test_diffusion_on_cuda_learns_samples_and_scores(weighting):
    data = load_data("digits")
    torch.manual_seed(0)
    program = Diffusion(
        data.shape,
        levels=data.levels,
        timesteps=100,
        channels=16,
        multipliers=(1, 2),
        weighting=weighting,
    )
    before = evaluate(program, data, limit=50, others=0).log_likelihood
    fit(program, data, steps=150, precision="bf16-mixed", **OPTIONS)
    found = evaluate(program, data, limit=50, others=8, device="cuda")
    assert found.log_likelihood.value > before.value + 20
    assert len(found.others) == 2
    on_cpu = evaluate(program, data, limit=50, others=0).log_likelihood
    assert abs(on_cpu.value - found.log_likelihood.value) < 5 * found.log_likelihood.stderr
    program.to("cuda")
    for sampler in ("ddim", "dpm_solver_pp_2m", "ancestral"):
        x = program.sample(4, sampler=sampler, steps=10)
        assert x.device.type == "cuda" and x.isfinite().all()
    known, mask = x[:1], torch.zeros_like(x[:1], dtype=torch.bool)
    mask[..., :4] = True
    painted = program.sample(3, known=known, mask=mask, steps=10, resample=2)
    assert (painted[..., :4] == known[..., :4]).all()
