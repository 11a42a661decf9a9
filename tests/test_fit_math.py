"""What a training step computes: accumulation, averages, schedules, clipping, precision."""

import copy
import math
import random

import pytest
import torch

from ppgen import ELBO, VAE, Dataset, evaluate, fit
from ppgen.options import Options
from ppgen.program import draw
from tests.programs import CASES, Gaussian, Poisoned, StrangerVAE, reals

QUIET = {"progress": False, "compile": "trace"}
PLAIN = {**QUIET, "schedule": "constant", "warmup_steps": 0}


def dataset(n: int = 23) -> Dataset:
    return Dataset.from_tensors(reals(n) + 0.5, reals(7, seed=2), reals(7, seed=3))


def parameters(program) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in program.parameters()])


@pytest.mark.parametrize("compile", ["trace", "none"])
def test_accumulation_changes_nothing(compile: str):
    """A noise-free program; 23 examples in batches of 10, so the last has 3 for 4 parts."""
    runs = [
        fit(
            Gaussian((3,)),
            dataset(),
            epochs=4,
            batch_size=10,
            lr=1e-2,
            progress=False,
            compile=compile,
            accumulate=parts,
        )
        for parts in (1, 4)
    ]
    a, b = (parameters(run.program) for run in runs)
    assert (a - parameters(Gaussian((3,)))).abs().max() > 0.05
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    for mine, theirs in zip(*(run.metrics for run in runs), strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], abs=1e-5)


def adam_by_hand(steps: int, batch: int, rate, weight_decay=0.0, clip=None, seed: int = 0):
    """Adam on a Gaussian as Kingma and Ba wrote it, on the batches of the documented order."""
    program, data = Gaussian((3,)), dataset()
    x = data.train.batch(slice(None))[0]
    params = list(program.parameters())
    first, second = ([torch.zeros_like(p) for p in params] for _ in range(2))
    per_epoch = math.ceil(len(x) / batch)
    history = []
    for step in range(steps):
        epoch, place = divmod(step, per_epoch)
        generator = torch.Generator().manual_seed((seed << 20) + epoch)
        order = torch.randperm(len(x), generator=generator)
        part = x[order[place * batch : (place + 1) * batch]]
        loss = -program.exact_log_prob(part).mean()
        grads = list(torch.autograd.grad(loss, params))
        if clip is not None:
            norm = torch.sqrt(sum((g**2).sum() for g in grads))
            grads = [g * min(1.0, clip / (norm.item() + 1e-6)) for g in grads]
        lr = rate(step)
        with torch.no_grad():
            for p, g, m, v in zip(params, grads, first, second, strict=True):
                p.mul_(1 - lr * weight_decay)
                m.mul_(0.9).add_(g, alpha=0.1)
                v.mul_(0.999).addcmul_(g, g, value=0.001)
                scale = (v / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8
                p.sub_(lr * m / (1 - 0.9 ** (step + 1)) / scale)
        history.append(parameters(program))
    return history


def cosine(step: int, total: int = 12, warm: int = 2, lr: float = 0.05) -> float:
    if step < warm:
        return lr * (step + 1) / warm
    return 0.5 * lr * (1 + math.cos(math.pi * (step - warm) / (total - warm)))


@pytest.mark.parametrize(
    ("options", "by_hand"),
    [
        ({"schedule": "constant", "warmup_steps": 0}, {"rate": lambda step: 0.05}),
        ({}, {"rate": cosine}),
        ({"weight_decay": 0.3}, {"rate": cosine, "weight_decay": 0.3}),
        ({"clip_norm": 0.2}, {"rate": cosine, "clip": 0.2}),
        ({"seed": 5}, {"rate": cosine, "seed": 5}),
    ],
    ids=["adam", "cosine", "weight-decay", "clip", "seed"],
)
def test_steps_are_adams(options: dict, by_hand: dict):
    """Twelve steps, with warm-up capped at a fifth of them, an odd last batch in each epoch."""
    run = fit(Gaussian((3,)), dataset(), steps=12, batch_size=10, lr=0.05, **QUIET, **options)
    expected = adam_by_hand(12, 10, **by_hand)[-1]
    torch.testing.assert_close(parameters(run.program), expected, rtol=1e-4, atol=1e-5)


def test_the_average_of_the_weights():
    """EMA by hand, with the decay min(ema, (1 + step) / (10 + step))."""
    history = adam_by_hand(12, 10, lambda step: 0.05)
    average = parameters(Gaussian((3,)))
    for step, weights in enumerate(history):
        decay = min(0.6, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weights
    run = fit(Gaussian((3,)), dataset(), steps=12, batch_size=10, lr=0.05, ema=0.6, **PLAIN)
    torch.testing.assert_close(parameters(run.program), average, rtol=1e-4, atol=1e-5)
    # The validated number is that of the averaged weights.
    x = dataset().validation.batch(slice(None))[0]
    loss = -run.program.exact_log_prob(x).mean().item()
    assert run.metrics[-1]["loss"] == pytest.approx(loss, rel=1e-4)


def test_learning_rates():
    options = Options(lr=1.0, warmup_steps=10, schedule="cosine")
    rates = [options.learning_rate(step, 110) for step in range(110)]
    assert rates[:10] == pytest.approx([(k + 1) / 10 for k in range(10)])
    assert rates[10] == 1.0 and rates[60] == pytest.approx(0.5) and 0 < rates[-1] < 1e-3
    assert rates[10:] == sorted(rates[10:], reverse=True)
    constant = Options(lr=2.0, warmup_steps=0, schedule="constant")
    assert {constant.learning_rate(step, 50) for step in range(50)} == {2.0}


@pytest.mark.parametrize(("batch_size", "per_epoch"), [(10, 3), (1, 23), (1000, 1), (23, 1)])
def test_epochs_and_steps_count_batches(batch_size: int, per_epoch: int):
    """Odd last batches, batches of one, and batches larger than the data."""
    run = fit(CASES["noisy"].make() if batch_size > 1 else StrangerVAE((3,)), dataset(24 - 1),
              epochs=2, batch_size=batch_size, **QUIET)  # fmt: skip
    assert run.info["steps"] == 2 * per_epoch
    rows = [row for row in run.metrics if row["split"] == "validation"]
    assert [row["step"] for row in rows] == [per_epoch, 2 * per_epoch]
    assert [row["epoch"] for row in rows] == [1.0, 2.0]
    counted = fit(StrangerVAE((3,)), dataset(), steps=5, batch_size=batch_size, **QUIET)
    assert counted.info["steps"] == 5
    assert all(parameters(one.program).isfinite().all() for one in (run, counted))


def test_every_example_is_seen_once_an_epoch():
    seen = []

    class Watched(Gaussian):
        def model(self, x):
            if self.training:
                seen.append(x)
            super().model(x)

    program = Watched((3,))
    ELBO(program).prepare(reals(4))
    fit(program, dataset(), epochs=1, batch_size=10, progress=False, compile="none")
    epoch = torch.cat(seen[-3:])
    x = dataset().train.batch(slice(None))[0]
    assert torch.equal(epoch.sort(0).values, x.sort(0).values)
    assert not torch.equal(epoch, x)


@pytest.mark.parametrize(
    "name", ["vae-mlp-bernoulli", "vae-conv-logistic", "vae-mlp-gaussian-fixed"]
)
def test_bfloat16_trains_and_reports_honest_nats(name: str):
    """The reported figures are within 1 % of a float32 evaluation of the same weights."""
    case = CASES[name]
    run = fit(
        case.program(), case.dataset(64), epochs=8, batch_size=16, lr=5e-3, precision="bf16-mixed",
        **PLAIN,
    )  # fmt: skip
    rows = [row for row in run.metrics if row["split"] == "validation"]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert all(p.dtype == torch.float32 for p in run.program.parameters())
    x = case.dataset(64).validation.batch(slice(None))
    with torch.no_grad():
        exact = torch.stack([ELBO(run.program)(*x)[0] for _ in range(200)])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = torch.stack([ELBO(run.program)(*x)[0] for _ in range(200)])
    assert rounded.dtype == torch.float32
    error = math.hypot(exact.std().item(), rounded.std().item()) / math.sqrt(200)
    scale = abs(exact.mean().item())
    assert abs((rounded.mean() - exact.mean()).item()) <= 0.01 * scale + 4.5 * error
    assert abs(rows[-1]["loss"] - exact.mean().item()) <= 0.01 * scale + 5 * exact.std().item()


def test_on_validation_may_stop_the_run():
    calls = []

    def look(run, metrics) -> bool:
        calls.append((metrics["step"], metrics["split"], run.program.training))
        return len(calls) == 2

    run = fit(Gaussian((3,)), dataset(), epochs=9, batch_size=10, on_validation=look, **QUIET)
    assert [call[:2] for call in calls] == [(3, "validation"), (6, "validation")]
    assert run.info["steps"] == 6


def test_the_callers_generators_are_untouched():
    """Nor does their state matter: two runs with one seed are the same."""
    case = CASES["vae-custom"]
    states, results = [], []
    for outside in (1, 2):
        torch.manual_seed(outside)
        random.seed(outside)
        before = torch.get_rng_state(), random.getstate()
        run = fit(case.program(), case.dataset(), steps=4, batch_size=8, ema=0.9, **QUIET)
        evaluate(run, particles=3)
        states.append(torch.equal(before[0], torch.get_rng_state()))
        states.append(before[1] == random.getstate())
        results.append(parameters(run.program))
        draw(run.program, 2, shape=case.shape)
        states.append(before[1] == random.getstate())
    assert all(states)
    assert torch.equal(*results)
    other = fit(case.program(), case.dataset(), steps=4, batch_size=8, ema=0.9, seed=1, **QUIET)
    assert not torch.equal(results[0], parameters(other.program))


@pytest.mark.parametrize("compile", ["trace", "none"])
def test_a_loss_that_is_not_finite_stops(compile: str):
    """The step, the term and the site are named; the weights before it are kept."""
    x = reals(20)
    x[13] = 50.0
    data = Dataset.from_tensors(x, x[:4], x[:4])
    program = Poisoned((3,))
    generator = torch.Generator().manual_seed(0)
    step = torch.randperm(20, generator=generator).tolist().index(13) // 2 + 1
    words = rf"not finite at step {step}, in the term 'reconstruction' at the site 'x' in the model"
    with pytest.raises(FloatingPointError, match=words):
        fit(program, data, epochs=1, batch_size=2, compile=compile, progress=False)
    assert parameters(program).isfinite().all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epochs": 1, "steps": 1}, "not both"),
        ({"steps": 0}, "steps must be 1 or more; got 0"),
        ({"batch_size": 0}, "batch_size must be 1 or more"),
        ({"lr": -1.0}, "lr must be positive"),
        ({"lr": math.nan}, "lr must be positive"),
        ({"ema": 1.0}, "ema is a decay between 0 and 1"),
        ({"clip_norm": -1.0}, "clip_norm must be 0 or more"),
        ({"weight_decay": -0.1}, "weight_decay must be 0 or more"),
        ({"accumulate": 11, "batch_size": 10}, "cannot pass batch_size"),
        ({"schedule": "linear"}, "schedule must be"),
        ({"precision": "16"}, "precision must be"),
        ({"device": "gpu"}, "device must be"),
        ({"resume": True}, "resume needs out"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_impossible_options_are_refused(options: dict, words: str):
    before = Gaussian((3,))
    program = copy.deepcopy(before)
    with pytest.raises(ValueError, match=words):
        fit(program, dataset(), progress=False, **options)
    assert torch.equal(parameters(program), parameters(before))


def test_objectives_belong_to_their_program():
    with pytest.raises(ValueError, match="made for another program"):
        fit(Gaussian((3,)), dataset(), objective=ELBO(Gaussian((3,))), **QUIET)
    with pytest.raises(TypeError, match="must be an Objective or a Pyro ELBO; got str"):
        fit(Gaussian((3,)), dataset(), objective="elbo", **QUIET)
    program = VAE((3,), latent_dim=2, hidden=(4,))
    run = fit(program, dataset(), steps=2, objective=ELBO(program, kl_warmup=50), **QUIET)
    assert run.config["objective"]["init_args"]["kl_warmup"] == 50
