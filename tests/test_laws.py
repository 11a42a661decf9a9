"""Laws that every program of the zoo obeys, ours and strangers'."""

import math
import random
import subprocess
import sys
from pathlib import Path

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO

import ppgen.program
from ppgen import ELBO, evaluate, fit, load
from ppgen.likelihood import kind_of
from ppgen.models import MODELS
from ppgen.objective import default_objectives
from ppgen.program import draw, log_prob
from ppgen.sites import guide_of, isolated, model_of, prepare, sample_sites
from tests.programs import CASES, Case

laws = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def implicit(case: Case) -> bool:
    """Whether a program draws samples and has no density."""
    return getattr(case.program(), "density", None) == "implicit"


def some(condition) -> pytest.MarkDecorator:
    chosen = {name: case for name, case in CASES.items() if condition(case)}
    assert chosen
    return pytest.mark.parametrize("case", chosen.values(), ids=chosen)


def restart(program, seed: int) -> None:
    """Everything that a run may draw from or count with, set to a known state."""
    torch.manual_seed(seed)
    random.seed(seed)
    if "calls" in vars(program):
        program.calls = 0


def test_every_registered_model_is_held_against_the_laws():
    made = {type(case.program()) for case in CASES.values()}
    assert set(MODELS.values()) <= made


@laws
def test_guide_covers_the_models_latents(case: Case):
    program, batch = case.program(), case.batch()
    found = prepare(program, batch)
    with isolated():
        guide = sample_sites(poutine.trace(guide_of(program)).get_trace(*batch))
    own = {name for name, site in guide.items() if not site["infer"].get("is_auxiliary")}
    if implicit(case):  # it observes nothing, and so infers nothing
        assert not own and not found.observed
        return
    assert set(found.latent) - set(found.enumerated) == own
    assert found.observed


@laws
def test_gradients_reach_every_parameter(case: Case):
    program, batch = case.program(), case.batch()
    # Its own objective may warm up its KL, or train what the bound does not depend on.
    objectives = [] if implicit(case) else [ELBO(program)]
    for objective in (*objectives, *default_objectives(program).values()):
        objective.prepare(*batch)
        sum(objective(*batch)[0] for _ in range(20)).backward()
    silent = [
        name
        for name, parameter in program.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or parameter.grad.abs().max() < 1e-6)
    ]
    assert set(silent) <= set(case.silent)


@laws
def test_samples_have_their_shape_and_repeat_under_a_seed(case: Case):
    program = case.program()
    program.train()
    for n in (1, 5):
        conditions = case.conditions(n)
        drawn = []
        for _ in range(2):
            restart(program, 3)
            drawn.append(draw(program, n, *conditions, shape=case.shape))
        mean = draw(program, n, *conditions, shape=case.shape, mean=True)
        assert drawn[0].shape == mean.shape == (n, *case.sample_shape)
        assert drawn[0].isfinite().all() and mean.isfinite().all()
        torch.testing.assert_close(drawn[0], drawn[1], rtol=0, atol=0)
        assert not drawn[0].requires_grad
    assert program.training  # put back as it was


@some(lambda case: case.template and "generate" not in vars(type(case.program())))
def test_the_template_of_the_default_hook_is_never_read(case: Case, monkeypatch):
    """Random numbers in place of the zeros template give the same samples."""
    program, n = case.program(), 4
    generator = torch.Generator().manual_seed(5)

    class Perturbed:
        """torch, but a template of zeros comes back as noise."""

        def __getattr__(self, name):
            return getattr(torch, name)

        def zeros(self, *shape, **options):
            assert shape == (n, *case.shape)
            return torch.rand(*shape, generator=generator)

    drawn = []
    for module in (torch, Perturbed()):
        monkeypatch.setattr(ppgen.program, "torch", module)
        restart(program, 4)
        drawn.append(draw(program, n, *case.conditions(n), shape=case.shape))
    torch.testing.assert_close(drawn[0], drawn[1], rtol=0, atol=0)


@laws
def test_a_saved_run_gives_the_same_likelihood(case: Case, tmp_path):
    run = fit(
        case.program(),
        case.dataset(),
        out=tmp_path / "run",
        steps=2,
        batch_size=8,
        compile="none",
        sample_epochs=0,
        progress=False,
    )
    program = run.program
    # A program is rebuilt from its class where its arguments can be written down; else it is given.
    written = run.config["model"]["init_args"]
    loaded = load(tmp_path / "run", case.program(seed=7) if written is None else type(program))
    assert not loaded.training and loaded is not program
    values = []
    for one in (program, loaded):
        restart(one, 2)
        with torch.no_grad():
            if implicit(case):
                values.append(one.sample(5, *case.conditions(5)).flatten(1).sum(1))
            else:
                values.append(log_prob(one, *case.batch(), num_particles=3))
    assert values[0].shape == (5,)
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=0)


@some(implicit)
def test_programs_without_a_density_have_no_likelihood(case: Case):
    """And say what judges them instead, to `log_prob`, `evaluate` and the ELBO."""
    program = case.program()
    with pytest.raises(ValueError, match=r"is implicit.*no likelihood.*--metrics"):
        log_prob(program, *case.batch())
    found = evaluate(program, case.dataset())
    assert found.log_likelihood is None and "is implicit" in str(found.reason)
    with pytest.raises(ValueError, match="is implicit"):
        ELBO(program).prepare(*case.batch())


@some(lambda case: hasattr(case.program(), "levels") and case.levels and not implicit(case))
def test_what_is_no_level_and_no_label_is_refused(case: Case):
    program = case.program()
    x, *conditions = case.batch()
    for wrong in (x + 1.5, x - 0.5, 0 * x + 0.123, x * math.nan):
        with pytest.raises(ValueError, match=f"was made for {case.levels} levels"):
            log_prob(program, wrong, *conditions)
    if case.classes is None:
        return
    for labels in (conditions[0] + case.classes, conditions[0] - 1, conditions[0].float()):
        with pytest.raises(ValueError, match=f"whole numbers from 0 to {case.classes - 1}"):
            log_prob(program, x, labels)
        with pytest.raises(ValueError, match="whole numbers"):
            draw(program, len(labels), labels, shape=case.shape)


explicit = some(lambda case: not implicit(case))


@explicit
def test_likelihoods_are_no_greater_than_the_truth(case: Case):
    """log_prob is finite for all; where the exact value is known, no bound passes it."""
    program, batch = case.program().eval(), case.batch(4)
    known = getattr(program, "exact_log_prob", None) is not None
    with torch.no_grad():
        found = prepare(program, batch)
        kind, _ = kind_of(found)
        draws = 300 if known and kind == "bound" else 2
        values = torch.stack([log_prob(program, *batch, num_particles=2) for _ in range(draws)])
        assert values.shape == (draws, 4) and values.isfinite().all()
        if not known:
            return
        exact = program.exact_log_prob(*batch)
    if kind == "exact":
        torch.testing.assert_close(values[0], exact, rtol=1e-5, atol=1e-5)
        return
    error = values.std(0) / draws**0.5
    assert (values.mean(0) <= exact + 4 * error + 1e-5).all()
    assert (values.mean(0) > exact - 20).all()


@explicit
def test_pyros_own_inference_runs_unchanged(case: Case):
    """Trace_ELBO gives the ELBO's number under one seed, and SVI its own step."""
    program, batch = case.program().eval(), case.batch()
    found = prepare(program, batch)
    if found.enumerated:
        pytest.skip("Trace_ELBO needs a guide site for every latent; see test_objective")
    objective = ELBO(program, analytic_kl=False).eval()
    objective.prepare(*batch)
    values = []
    for score in (
        lambda: objective(*batch)[0].item() * found.data_size,
        lambda: Trace_ELBO().loss(program.model, guide_of(program), *batch),
        lambda: SVI(
            program.model, guide_of(program), pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()
        ).step(*batch),
    ):
        with pyro.get_param_store().scope():
            restart(program, 6)
            values.append(score())
    assert values[1] == pytest.approx(values[0], rel=2e-5)
    assert values[2] == pytest.approx(values[0], rel=2e-5)


@laws
def test_pyros_predictive_and_condition_run_unchanged(case: Case):
    program, batch = case.program().eval(), case.batch()
    found = prepare(program, batch)
    with pyro.get_param_store().scope():
        trace = poutine.trace(model_of(program)).get_trace(*batch)
        posterior = Predictive(
            program.model, guide=None if found.enumerated else guide_of(program), num_samples=3
        )(*batch)
        for name in found.observed:
            assert posterior[name].shape[0] == 3
        if not found.enumerated:
            assert set(found.latent) <= set(posterior)
        # Predictive may keep singleton batch dimensions for its own plate; these go.
        latents = {
            name: posterior[name][0].reshape(trace.nodes[name]["value"].shape)
            for name in found.latent
            if name in posterior
        }
        trace = poutine.trace(poutine.condition(model_of(program), data=latents)).get_trace(*batch)
    for name, value in latents.items():
        assert trace.nodes[name]["is_observed"]
        assert trace.nodes[name]["value"] is value


def test_importing_changes_nothing_global():
    """Neither generators, nor settings, nor warnings filters: in a process of its own."""
    script = """
import random, sys, warnings
import numpy as np, pyro, torch
{imports}
def state():
    return {{
        "torch": torch.get_rng_state().tolist(), "python": random.getstate(),
        "numpy": str(np.random.get_state()), "settings": pyro.settings.get(),
        "store": list(pyro.get_param_store().keys()), "dtype": torch.get_default_dtype(),
        "filters": list(warnings.filters), "threads": torch.get_num_threads(),
        "grad": torch.is_grad_enabled(), "matmul": torch.get_float32_matmul_precision(),
        "validation": torch.distributions.Distribution._validate_args,
    }}
before = state()
import ppgen
for name in ppgen.__all__:
    getattr(ppgen, name)
import ppgen.cli, ppgen.commands, ppgen.arguments, ppgen.plots, ppgen.report, ppgen.information
after = state()
print([key for key in before if before[key] != after[key]])
"""
    # Other people's packages may do as they like on import: they are imported beforehand.
    others = (
        "import matplotlib, PIL, rich.console, jsonargparse, yaml, scipy.stats, safetensors.torch"
    )
    found = subprocess.run(
        [sys.executable, "-c", script.format(imports=others)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[1],
        timeout=60,
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == "[]"
