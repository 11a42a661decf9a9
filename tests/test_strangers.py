"""Other people's programs through `fit`, and what is refused with a reason."""

import copy
import warnings

import pyro
import pytest
import torch
from pyro.infer import RenyiELBO, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal
from pyro.nn import PyroModule, PyroSample

from ppgen import Dataset, evaluate, fit
from ppgen.objective import ELBO
from ppgen.program import draw, log_prob
from ppgen.sites import guide_of, isolated
from tests.programs import (
    Attributes,
    BatchOnly,
    Bits,
    Branching,
    Counting,
    Gambling,
    Gaussian,
    LinearGaussian,
    Location,
    Mixture,
    NoGuide,
    NoModel,
    OwnAutoGuide,
    Refined,
    Regression,
    StoreParam,
    StrangerVAE,
    reals,
)


def data(n: int = 200, dims: int = 3) -> Dataset:
    """Correlated reals: one factor, so that a latent pays."""
    generator = torch.Generator().manual_seed(9)
    factor = torch.randn(n, 1, generator=generator)
    x = factor * torch.linspace(0.5, 1.5, dims) + 0.5 * torch.randn(n, dims, generator=generator)
    return Dataset.from_tensors(x + 0.3, x[:40] + 0.3, x[:40] + 0.3)


QUIET = {"progress": False, "schedule": "constant", "warmup_steps": 0}


def losses(run, split: str = "validation") -> list[float]:
    return [row["loss"] for row in run.metrics if row["split"] == split]


def test_an_amortised_module_learns():
    """No base class of ours: a linear-Gaussian model comes near its best evidence."""
    torch.manual_seed(0)
    program = LinearGaussian((3,), latents=1, noise=0.5)
    run = fit(program, data(), steps=600, batch_size=64, lr=1e-2, **QUIET)
    assert run.program is program and not program.training
    test = data().test.batch(slice(None))[0]
    evidence = program.exact_log_prob(test).mean().item()
    best = torch.distributions.MultivariateNormal(test.mean(0), test.T.cov()).log_prob(test)
    bound = evaluate(run, particles=50).log_likelihood.value
    assert evidence > best.mean().item() - 0.25
    assert evidence - 0.15 < bound <= evidence + 0.02


def test_an_enumerated_mixture_finds_its_clusters():
    generator = torch.Generator().manual_seed(1)
    centres = torch.tensor([[4.0, 0.0], [-3.0, 3.0], [-3.0, -4.0]])
    share = torch.tensor([0.5, 0.3, 0.2])
    label = torch.multinomial(share, 500, replacement=True, generator=generator)
    x = centres[label] + 0.5 * torch.randn(500, 2, generator=generator)
    program = Mixture((2,))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(program, Dataset.from_tensors(x), steps=300, batch_size=128, lr=5e-2, **QUIET)
    assert len(caught) <= 1
    order = torch.cdist(centres, program.loc.detach()).argmin(1)
    assert sorted(order.tolist()) == [0, 1, 2]
    torch.testing.assert_close(program.loc[order].detach(), centres, atol=0.2, rtol=0)
    torch.testing.assert_close(program.logits.softmax(0)[order].detach(), share, atol=0.07, rtol=0)
    torch.testing.assert_close(
        program.scale[order].detach(), torch.full((3,), 0.5), atol=0.12, rtol=0
    )


@pytest.mark.parametrize("batch_size", [40, 10])
def test_bayesian_regression_recovers_the_exact_posterior(batch_size: int):
    """The guide made by fit: standard deviations within 5 %, means within a tenth of one."""
    generator = torch.Generator().manual_seed(2)
    train = torch.randn(40, 3, generator=generator)
    train[:, 2] = 1.2 * train[:, 0] - 0.7 * train[:, 1]
    train[:, 2] += 0.5 * torch.randn(40, generator=generator)
    program = Regression((3,), data_size=40)
    fit(
        program,
        Dataset.from_tensors(train, train, train),
        steps=2500,
        batch_size=batch_size,
        lr=2e-2,
        ema=0.99,
        progress=False,
    )
    assert isinstance(program.guide, AutoMultivariateNormal)
    mean, covariance = program.posterior(train)
    with isolated():
        law = program.guide.get_posterior()
    deviation = covariance.diagonal().sqrt()
    assert ((law.mean.double() - mean).abs() <= 0.1 * deviation).all()
    assert ((law.stddev.double() / deviation - 1).abs() <= 0.05).all()


def test_without_latents_it_is_maximum_likelihood():
    program, dataset = Gaussian((3,)), data()
    fit(program, dataset, steps=500, batch_size=200, lr=3e-2, progress=False)
    x = dataset.train.batch(slice(None))[0]
    torch.testing.assert_close(program.loc.detach(), x.mean(0), atol=5e-3, rtol=0)
    torch.testing.assert_close(program.scale.detach(), x.std(0, correction=0), atol=1e-2, rtol=0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Attributes((3,), data_size=200),
        lambda: OwnAutoGuide((3,), data_size=200),
        lambda: Location((3,), data_size=200),
        lambda: Bits((3,)),
        lambda: StrangerVAE((3,)),
    ],
    ids=["attributes", "own-autoguide", "location", "score-function", "vae"],
)
def test_every_habit_trains(make):
    """Every trainable parameter moves, held-out loss falls, samples and likelihoods work."""
    program, dataset = make(), data()
    batch = dataset.train.batch(slice(0, 50))
    ELBO(program).prepare(*batch)
    before = copy.deepcopy(program.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = fit(program, dataset, epochs=12, batch_size=50, lr=2e-2, **QUIET)
    assert losses(run)[-1] < losses(run)[0]
    for name, _ in program.named_parameters():
        assert not torch.equal(before[name], program.state_dict()[name]), name
    assert draw(program, 4, shape=(3,)).shape == (4, 3)
    assert log_prob(program, reals(), num_particles=3).isfinite().all()


@pytest.mark.parametrize("make", [Branching, Gambling, Counting, Refined])
def test_what_cannot_be_traced_trains_with_one_warning(make):
    program = make((3,))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = fit(program, data(), epochs=4, batch_size=50, lr=2e-2, **QUIET)
    assert len([w for w in caught if "plain Pyro" in str(w.message)]) == len(caught) == 1
    if make is not Counting:  # whose density changes as it counts
        assert losses(run)[-1] < losses(run)[0]


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: StoreParam(), ValueError, r"pyro.param\('stray'\) lives in Pyro's global store"),
        (lambda: NoGuide((3,)), ValueError, "local latent 'z' of NoGuide has no guide"),
        (lambda: NoModel((3,)), TypeError, "NoModel has no"),
    ],
    ids=["store", "no-guide", "no-model"],
)
def test_refusals_say_why_and_write_nothing(make, error, words: str, tmp_path):
    with pytest.raises(error, match=words):
        fit(make(), data(), out=tmp_path / "run", steps=2, progress=False)
    assert not (tmp_path / "run").exists()


def test_guides_that_do_not_match_are_refused():
    program = StrangerVAE((3,))
    program.guide = lambda x: None
    with pytest.raises(ValueError, match="has no site 'code', a latent of its model"):
        fit(program, data(), steps=1, progress=False)
    other = Gaussian((3,))
    other.guide = lambda x: pyro.sample("w", pyro.distributions.Normal(0.0, 1.0))
    with pytest.raises(ValueError, match="has a site 'w' that its model lacks"):
        fit(other, data(), steps=1, progress=False)


def test_a_batch_only_plate_warns_and_a_full_batch_does_not():
    with pytest.warns(UserWarning, match="posterior will be too wide"):
        fit(BatchOnly((3,)), data(), steps=1, batch_size=200, progress=False)
    fit(Location((3,), data_size=200), data(), steps=1, batch_size=200, progress=False)


@pytest.mark.parametrize(
    "elbo",
    [RenyiELBO(alpha=0.0, num_particles=4), Trace_ELBO(), TraceMeanField_ELBO()],
    ids=lambda elbo: type(elbo).__name__,
)
def test_any_pyro_elbo_trains(elbo):
    program = StrangerVAE((3,))
    before = copy.deepcopy(program.state_dict())
    run = fit(program, data(), objective=elbo, epochs=6, batch_size=50, lr=2e-2, **QUIET)
    assert losses(run)[-1] < losses(run)[0]
    assert all(not torch.equal(before[k], v) for k, v in program.state_dict().items())
    assert "negative_elbo" in run.metrics[-1]


def test_two_models_of_one_class_train_apart():
    """No store is shared: the first stays as it is while the second moves, and the other way."""
    torch.manual_seed(0)
    first, second = StrangerVAE((3,)), StrangerVAE((3,))
    for turn in range(2):
        for moving, still in ((first, second), (second, first)):
            at, rest = copy.deepcopy(moving.state_dict()), copy.deepcopy(still.state_dict())
            fit(moving, data(), steps=3, seed=turn, progress=False)
            assert all(not torch.equal(at[k], v) for k, v in moving.state_dict().items())
            assert all(torch.equal(rest[k], v) for k, v in still.state_dict().items())
    twins = [StrangerVAE((3,)), StrangerVAE((3,))]
    twins[1].load_state_dict(twins[0].state_dict())
    for twin in twins:
        fit(twin, data(), steps=5, progress=False)
    for a, b in zip(*(twin.parameters() for twin in twins), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert guide_of(twins[0]) != guide_of(twins[1])


def test_sequential_enumeration_is_refused():
    """Pyro would draw such a site, and the figure would be called exact."""

    class Sequential(Mixture):
        def model(self, x):
            with pyro.poutine.infer_config(config_fn=lambda site: {"enumerate": "sequential"}):
                super().model(x)

    with pytest.raises(ValueError, match="'k' is annotated enumerate='sequential'"):
        log_prob(Sequential((3,)), reals())


def test_a_pyro_sample_read_in_an_undecorated_model_is_not_lost():
    """Outside `pyro_method` Pyro draws the attribute and makes no site: refuse it, or see it."""

    class Bare(PyroModule):
        def __init__(self):
            super().__init__()
            self.mu = PyroSample(pyro.distributions.Normal(torch.zeros(3), 1.0).to_event(1))
            self.shift = torch.nn.Parameter(torch.zeros(3))

        def model(self, x):
            law = pyro.distributions.Normal(self.mu + self.shift, 1.0).to_event(1)
            with pyro.plate("data", 20, subsample=x):
                pyro.sample("x", law, obs=x)

    try:
        found = ELBO(Bare()).prepare(reals())
    except ValueError:
        return
    assert found.shared == ("mu",)
