"""The Gaussian mixture against brute force, quadrature and scikit-learn's EM."""

import math

import pytest
import torch
from sklearn.mixture import GaussianMixture as ScikitMixture
from torch.distributions import MultivariateNormal

import ppgen
from ppgen import ELBO, fit
from ppgen.models import GaussianMixture


def mixture(covariance="full", components=3, shape=(2,)):
    torch.manual_seed(0)
    program = GaussianMixture(shape, components=components, covariance=covariance)
    with torch.no_grad():
        for parameter in program.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape))
    return program.double()


def by_hand(program, x):
    """log sum_k w_k N(x; m_k, S_k) with S_k = L L', one component and one example at a time."""
    size = program.means.shape[1]
    values = []
    for one in x.flatten(1):
        total = 0.0
        for k, weight in enumerate(program.logits.softmax(0)):
            scales = program.scale * (program.log_scales[k].exp() ** 2 + program.floor).sqrt()
            factor = torch.eye(size, dtype=torch.double)
            if program.covariance == "full":
                factor += program.correlations[k].tril(-1)
            factor = scales[:, None] * factor
            mean = program.loc + program.scale * program.means[k]
            law = MultivariateNormal(mean, factor @ factor.T)
            total = total + weight * law.log_prob(one).exp()
        values.append(total.log())
    return torch.stack(values)


@pytest.mark.parametrize("covariance", ["diag", "full"])
@pytest.mark.parametrize("shape", [(2,), (1, 2, 2)])
@torch.no_grad()
def test_the_likelihood_is_the_sum_over_components(covariance, shape):
    program = mixture(covariance, shape=shape)
    x = torch.randn(7, *shape, dtype=torch.double)
    exact = by_hand(program, x)
    torch.testing.assert_close(program.log_prob(x), exact)
    loss, _ = ELBO(program)(x)  # and the ELBO is the likelihood
    torch.testing.assert_close(loss, -exact.mean())
    posterior = program.responsibilities(x)
    torch.testing.assert_close(posterior.sum(1), torch.ones(7, dtype=torch.double))
    k = posterior.argmax(1)
    joint = program.component(k).log_prob(x.flatten(1)) + program.logits.log_softmax(0)[k]
    torch.testing.assert_close(posterior.amax(1).log(), joint - exact)


@torch.no_grad()
def test_the_density_integrates_to_one():
    program = mixture()
    line = torch.linspace(-12, 12, 400, dtype=torch.double)
    grid = torch.cartesian_prod(line, line)
    total = program.log_prob(grid).exp().sum() * (line[1] - line[0]) ** 2
    assert total.item() == pytest.approx(1, abs=1e-6)


@torch.no_grad()
def test_draws_have_the_moments_of_the_mixture():
    program = mixture()
    n = 40_000
    drawn = program.sample(n)
    weights = program.logits.softmax(0)
    every = program.component(torch.arange(3))
    mean = weights @ every.mean
    spread = every.covariance_matrix + every.mean[:, :, None] * every.mean[:, None]
    covariance = (weights[:, None, None] * spread).sum(0) - torch.outer(mean, mean)
    error = 4 * (covariance.diagonal() / n).sqrt()
    assert ((drawn.mean(0) - mean).abs() < error).all()
    torch.testing.assert_close(drawn.T.cov(), covariance, rtol=0.05, atol=0.02)
    means = program.sample(50, mean=True)
    assert torch.cdist(means, program.means).amin(1).max() < 1e-12


@pytest.mark.parametrize(
    ("source", "covariance", "unit"),
    [("pinwheel", "full", 1.0), ("moons", "diag", 1e-3), ("moons", "diag", 1e3)],
)
def test_gradients_climb_as_high_as_expectation_maximisation(source, covariance, unit):
    """Within one hundredth, the better of two starts each, whatever the unit of the data."""
    data = ppgen.load_data(source)
    x = data.train.batch(slice(0, None))[0]
    data = ppgen.Dataset.from_tensors(x * unit)
    ours, theirs = [], []
    for seed in range(2):
        program = GaussianMixture(data.shape, components=5, covariance=covariance)
        fit(program, data, steps=800, batch_size=512, lr=0.03, seed=seed, device="cpu",
            validate_epochs=0, progress=False)  # fmt: skip
        x = data.train.batch(slice(0, None))[0]
        with torch.no_grad():
            ours.append(program.log_prob(x).mean().item() + 2 * math.log(unit))
        peer = ScikitMixture(5, covariance_type=covariance, random_state=seed, max_iter=500)
        theirs.append(peer.fit(x.numpy() / unit).score(x.numpy() / unit))
    assert max(ours) > max(theirs) - 0.01 * abs(max(theirs))


def test_evaluation_is_exact_and_a_density():
    data = ppgen.load_data("digits")
    program = GaussianMixture(data.shape, components=4, levels=data.levels, floor=1e-3)
    fit(program, data, steps=30, device="cpu", validate_epochs=0, progress=False)
    found = ppgen.evaluate(program, data, limit=50)
    assert (found.log_likelihood.kind, found.log_likelihood.measure) == ("exact", "density")
    x = data.test.batch(slice(0, 50))[0]
    with torch.no_grad():
        exact = by_hand(program.double(), x.double()).mean().item()
    assert found.log_likelihood.value == pytest.approx(exact, rel=1e-4)


def test_constant_dimensions_leave_the_density_finite():
    x = torch.randn(200, 3) * torch.tensor([1.0, 0.0, 1.0])
    data = ppgen.Dataset.from_tensors(x)
    program = GaussianMixture((3,), components=2)
    run = fit(program, data, steps=100, device="cpu", progress=False)
    assert all(math.isfinite(row["loss"]) for row in run.metrics)


def test_components_start_at_points_far_apart():
    centres = torch.tensor([[-9.0, 0], [9, 0], [0, 9]])
    x = centres.repeat_interleave(30, 0) + 0.1 * torch.randn(90, 2)
    program = GaussianMixture((2,), components=3)
    with torch.no_grad():
        program.initialise(x)
        means = program.loc + program.scale * program.means
        program.initialise(x + 100)  # it has had its start
        assert torch.equal(means, program.loc + program.scale * program.means)
    nearest = torch.cdist(means, centres)
    assert sorted(nearest.argmin(1).tolist()) == [0, 1, 2]
    assert nearest.amin(1).max() < 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"components": 0}, "components must be 1 or more; got 0"),
        ({"covariance": "ful"}, "did you mean full"),
        ({"floor": 0.0}, "floor must be a positive variance; got 0.0"),
        ({"shape": (3, 32, 32), "covariance": "full"}, "use 'diag'"),
    ],
)
def test_bad_arguments_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(**{"shape": (2,), **given})
