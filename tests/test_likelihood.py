"""Likelihoods against closed forms: the linear-Gaussian VAE, mixtures, Bayesian regression."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import nn

from ppgen import ELBO, Dataset, ImportanceWeightedELBO, evaluate, fit
from ppgen.likelihood import Likelihood, broadcasts, kind_of, log_likelihoods, log_weights
from ppgen.program import log_prob
from ppgen.sites import prepare
from tests.programs import (
    CASES,
    SIZE,
    Bits,
    Case,
    Gaussian,
    LinearGaussian,
    Location,
    MixedVAE,
    Mixture,
    Regression,
    StrangerVAE,
    TwoViews,
    reals,
)


def test_the_exact_posterior_reaches_the_evidence():
    """With q(z|x) = p(z|x) the ELBO is log p(x), draw by draw, and so is every other bound."""
    program, x = LinearGaussian((3,), exact_guide=True), reals(20)
    evidence = program.exact_log_prob(x)
    loss, _ = ELBO(program)(x)
    torch.testing.assert_close(-loss, evidence.mean(), rtol=1e-4, atol=1e-4)
    loss, _ = ImportanceWeightedELBO(program, particles=5)(x)
    torch.testing.assert_close(-loss, evidence.mean(), rtol=1e-4, atol=1e-4)
    for particles in (1, 7):
        found = log_prob(program, x, num_particles=particles)
        torch.testing.assert_close(found, evidence, rtol=1e-4, atol=1e-4)


def test_the_bound_tightens_with_every_particle():
    """E log (1/K) sum w rises with K towards log p(x), each step beyond its error bar."""
    program, x = LinearGaussian((3,)), reals(8)
    exact = program.posterior(torch.zeros(1, 3))
    with torch.no_grad():  # near the posterior: its mean, with independent and wider noise
        program.recognise.weight.copy_(exact.covariance_matrix[0] @ program.weight.T / 0.36)
        program.recognise.bias.copy_(exact.mean[0])
        program.log_scale.copy_(exact.stddev[0].mul(1.2).log())
    many = x.repeat(100, 1)
    means, errors = [], []
    with torch.no_grad():
        evidence = program.exact_log_prob(x).mean().item()
        for particles in (1, 4, 16, 64):
            objective = ImportanceWeightedELBO(program, particles)
            values = torch.stack([-objective(many)[0] for _ in range(12)]).double()
            means.append(values.mean().item())
            errors.append(values.std().item() / math.sqrt(12))
        elbo = torch.stack([-ELBO(program)(many)[0] for _ in range(12)]).double()
    for k in range(3):
        assert means[k + 1] - means[k] > 4 * math.hypot(errors[k], errors[k + 1])
    assert all(mean <= evidence + 4 * error for mean, error in zip(means, errors, strict=True))
    assert evidence - means[-1] < 0.2 * (evidence - means[0])
    error = elbo.std().item() / math.sqrt(12)
    assert means[0] == pytest.approx(elbo.mean().item(), abs=4.5 * math.hypot(error, errors[0]))


@pytest.mark.parametrize(
    ("program", "word"),
    [
        (Location((3,), data_size=SIZE), "global latents"),
        (TwoViews((3,), weight=0.5), "scaled sites"),
        (Bits((3,)), "no reparameterised draws"),
        (Bits((3,), data_size=SIZE), "scaled sites"),
    ],
    ids=["global", "scaled", "non-reparameterised", "subsampled"],
)
def test_the_importance_weighted_bound_refuses(program, word: str):
    with pytest.raises(ValueError, match=word):
        ImportanceWeightedELBO(program)(reals())


@pytest.mark.parametrize(
    ("name", "kind", "method"),
    [
        ("gaussian", "exact", "density"),
        ("mixture", "exact", "enumeration"),
        ("mixed", "bound", "importance-weighted"),
        ("stranger", "bound", "importance-weighted"),
        ("bits", "bound", "importance-weighted"),
        ("location", "estimate", "posterior predictive"),
        ("attributes", "estimate", "posterior predictive"),
    ],
)
def test_every_number_says_what_it_is(name: str, kind: str, method: str):
    case = CASES[name]
    program = case.program()
    assert kind_of(prepare(program, case.batch())) == (kind, method)
    found = evaluate(program, case.dataset(), particles=3).log_likelihood
    assert (found.kind, found.measure, found.examples) == (kind, "density", 6)
    assert found.particles == (1 if kind == "exact" else 3)


@pytest.mark.parametrize("name", ["mixture", "gaussian"])
def test_exact_values_are_exact(name: str):
    case = CASES[name]
    program, (x,) = case.program(), case.batch()
    found = log_prob(program, x, num_particles=10)  # particles change nothing
    torch.testing.assert_close(found, program.exact_log_prob(x), rtol=1e-5, atol=1e-5)


BROADCASTING = ["vae-mlp-bernoulli", "vae-conv-bernoulli", "stranger", "linear", "mixed", "bits"]


@pytest.mark.parametrize("name", BROADCASTING)
def test_broadcasting_and_repeating_have_one_law(name: str):
    """log w of single draws: equal means and spreads; and the exact value is the limit of both."""
    case = CASES[name]
    program, batch = case.program().eval(), case.batch(3)
    with torch.no_grad():
        found = prepare(program, batch)
        assert broadcasts(program, found, batch)
        together, repeated = (
            log_weights(program, found, batch, 1500, broadcast=flag).double()
            for flag in (True, False)
        )
    assert together.shape == repeated.shape == (1500, 3)
    error = ((together.var(0) + repeated.var(0)) / 1500).sqrt()
    assert ((together.mean(0) - repeated.mean(0)).abs() <= 4.5 * error + 1e-5).all()
    ratio = (together.std(0) + 1e-6) / (repeated.std(0) + 1e-6)
    assert ((ratio > 0.8) & (ratio < 1.25)).all()
    if name in ("mixed", "bits"):  # whose guides are near enough for the limit to be reached
        exact = program.exact_log_prob(*batch)
        for weights in (together, repeated):
            limit = weights.logsumexp(0) - math.log(1500)
            assert (limit <= exact + 0.3).all() and (limit >= exact - 1.0).all()


class Mixing(StrangerVAE):
    """Its decoder subtracts the mean over the first axis: particles would be mixed."""

    def model(self, x):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("code", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            loc = self.decoder(z - 0.5 * z.mean(0, keepdim=True))
            pyro.sample("pixels", dist.Normal(loc, 0.5).to_event(1), obs=x)


class Failing(StrangerVAE):
    """Its decoder takes a batch of vectors and nothing else."""

    def model(self, x):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("code", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            loc = self.decoder(z.view(len(x), 2))
            pyro.sample("pixels", dist.Normal(loc, 0.5).to_event(1), obs=x)


@pytest.mark.parametrize("make", [Mixing, Failing])
def test_what_would_mix_examples_is_repeated_instead(make):
    program, x = make((3,)).eval(), reals()
    found = prepare(program, (x,))
    assert not broadcasts(program, found, (x,))
    values = log_prob(program, x, num_particles=4)
    assert values.shape == (6,) and values.isfinite().all()
    assert program.training is False
    assert not broadcasts(*_regression(reals(10)))


def _regression(x):
    program = Regression((3,), data_size=len(x))
    return program, prepare(program, (x,)), (x,)


def test_chunks_of_draws_make_one_average():
    """The same draws, all at once or in parts."""
    program, x = LinearGaussian((3,), exact_guide=True), reals()
    found = prepare(program, (x,))
    whole = log_likelihoods(program, found, (x,), 10, broadcast=True)
    parts = log_likelihoods(program, found, (x,), 10, broadcast=True, chunk=3)
    torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-4)


def test_the_posterior_predictive_of_bayesian_regression():
    """With the exact posterior as guide, log_prob is the closed-form predictive density."""
    generator = torch.Generator().manual_seed(3)
    train = torch.randn(30, 3, generator=generator)
    train[:, 2] = train[:, 0] - 0.5 * train[:, 1] + 0.5 * torch.randn(30, generator=generator)
    program = Regression((3,), data_size=30)
    mean, covariance = program.posterior(train)

    class Exact(nn.Module):
        def forward(self, x):
            law = dist.MultivariateNormal(mean.float(), covariance.float())
            return pyro.sample("w", law)

    program.guide = Exact()
    test = torch.randn(8, 3, generator=generator)
    test[:, 2] *= 0.5
    test[:, 2] += test[:, 0] - 0.5 * test[:, 1]
    truth = program.predictive(train, test)
    draws = 4000
    with torch.no_grad():
        weights = log_weights(
            program, prepare(program, (test[:4],)), (test,), draws, broadcast=False
        ).double()
    found = weights.logsumexp(0) - math.log(draws)
    ratio = (weights - found).exp()
    error = ratio.std(0) / math.sqrt(draws)  # of the log, by the delta method
    assert ((found - truth).abs() <= 4.5 * error + 1e-4).all()
    plug_in = dist.Normal(test[:, :2].double() @ mean, 0.5).log_prob(test[:, 2].double())
    assert ((truth - plug_in).abs() > 4.5 * error).any()  # it is not the plug-in density


class Pixels(PyroModule):
    """Each coordinate has its own enumerated component, in a plate inside the data plate."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([0.3, -0.4]))
        self.loc = nn.Parameter(torch.tensor([-1.0, 1.5]))

    def model(self, x):
        with pyro.plate("batch", len(x), dim=-2), pyro.plate("coordinates", x.shape[1], dim=-1):
            k = pyro.sample(
                "k", dist.Categorical(logits=self.logits), infer={"enumerate": "parallel"}
            )
            pyro.sample("x", dist.Normal(self.loc[k], 0.7), obs=x)

    def exact_log_prob(self, x):
        law = dist.Normal(self.loc.view(2, 1, 1), 0.7).log_prob(x)
        return (law + self.logits.log_softmax(0).view(2, 1, 1)).logsumexp(0).sum(-1)


def test_components_inside_an_inner_plate_are_summed_one_by_one():
    program, x = Pixels(), reals()
    truth = program.exact_log_prob(x)
    torch.testing.assert_close(-ELBO(program)(x)[0], truth.mean(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(log_prob(program, x), truth, rtol=1e-5, atol=1e-5)


def test_densities_that_do_not_split_are_refused():
    class Unplated(Gaussian):
        def model(self, x):
            pyro.sample("x", dist.Normal(self.loc, self.scale).expand(x.shape).to_event(2), obs=x)

    class Tilted(Gaussian):
        def model(self, x):
            super().model(x)
            pyro.factor("tilt", x.new_zeros(()))

    with pytest.raises(ValueError, match="no plate of the program"):
        log_prob(Unplated((3,)), reals())
    with pytest.raises(ValueError, match=r"unnormalised density .*tilt"):
        log_prob(Tilted((3,)), reals())
    with pytest.raises(ValueError, match="num_particles must be 1 or more; got 0"):
        log_prob(Gaussian((3,)), reals(), num_particles=0)


def test_evaluation_agrees_with_the_closed_form():
    """Value, standard error over examples, measure and the ELBO below the bound."""
    program = LinearGaussian((3,), exact_guide=True)
    data = Dataset.from_tensors(reals(20), reals(20, seed=2), reals(40, seed=3))
    found = evaluate(program, data, particles=20)
    evidence = program.exact_log_prob(reals(40, seed=3)).detach().double()
    likelihood = found.log_likelihood
    assert likelihood.value == pytest.approx(evidence.mean().item(), abs=1e-3)
    assert likelihood.stderr == pytest.approx((evidence.std() / math.sqrt(40)).item(), rel=1e-3)
    assert (likelihood.kind, likelihood.particles, likelihood.examples) == ("bound", 20, 40)
    assert found.elbo["value"] == pytest.approx(likelihood.value, abs=1e-3)
    assert found.bits_per_dim is None
    part = evaluate(program, data, particles=2, limit=10, split="validation")
    assert part.log_likelihood.examples == 10 and part.split == "validation"
    learned = evaluate(LinearGaussian((3,)), data, particles=50)
    assert learned.elbo["value"] < learned.log_likelihood.value < likelihood.value


def test_levels_are_probabilities_and_bits():
    """A discrete likelihood over all data sums to one, and bits/dim follow from its nats."""
    case: Case = CASES["vae-mlp-bernoulli"]
    found = evaluate(case.program(), case.dataset(), particles=5)
    assert found.log_likelihood.measure == "probability"
    nats = found.log_likelihood.value
    assert nats < 0 and found.bits_per_dim == pytest.approx(-nats / (16 * math.log(2)))
    grey = CASES["vae-mlp-gaussian-fixed"]
    assert evaluate(grey.program(), grey.dataset(), particles=2).log_likelihood.measure == "density"


def test_marks_in_print():
    def shown(kind) -> str:
        return str(Likelihood(-1.0, 0.1, kind, "density", "m", 1, 2))

    assert [shown(kind).split()[2] for kind in ("exact", "bound", "estimate")] == ["=", ">=", "~"]


def test_evaluation_leaves_the_program_as_it_was():
    program = Mixture((3,)).train()
    other = MixedVAE((3,)).eval()
    for one, mode in ((program, True), (other, False)):
        evaluate(one, CASES["mixture"].dataset(), particles=2)
        assert one.training is mode
    run = fit(Gaussian((3,)), CASES["gaussian"].dataset(), steps=2, progress=False)
    state = torch.get_rng_state()
    evaluate(run, particles=2)
    assert torch.equal(torch.get_rng_state(), state)
