"""The VAE's own choices: likelihoods by levels, networks on odd sizes, what it refuses."""

import math

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from ppgen import ELBO, VAE, Dataset, evaluate, fit
from ppgen.distributions import DiscretizedLogistic
from tests.programs import Network


@pytest.mark.parametrize(
    ("levels", "family", "measure"),
    [
        (None, dist.Normal, "density"),
        (2, dist.Bernoulli, "probability"),
        (16, DiscretizedLogistic, "probability"),
        (256, DiscretizedLogistic, "probability"),
    ],
)
def test_the_default_likelihood_fits_the_levels(levels, family, measure: str):
    program = VAE((1, 3, 2), latent_dim=2, hidden=(4,), levels=levels)
    law = program.decode(torch.randn(5, 2))
    assert isinstance(law.base_dist, family)
    assert law.batch_shape == (5,) and law.event_shape == (1, 3, 2)
    assert getattr(law.base_dist, "levels", levels) == levels or levels in (None, 2)
    assert law.support.is_discrete == (measure == "probability")
    if levels is not None:  # a probability: over all values of one pixel it sums to one
        values = torch.arange(levels).div(levels - 1).view(-1, 1, 1, 1, 1)
        total = law.base_dist.log_prob(values.expand(-1, 5, 1, 3, 2)).exp().sum(0)
        torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"likelihood": "bernoulli", "levels": 256}, "2 levels and the data have 256"),
        ({"likelihood": "discretized_logistic"}, "levels"),
        ({"likelihood": "bernouli"}, "did you mean '?bernoulli"),
        ({"latent_dim": 0}, "latent_dim must be 1 or more; got 0"),
        ({"hidden": (8, 0)}, "hidden must be 1 or more; got 0"),
        ({"network": "convv"}, "did you mean '?conv"),
        ({"network": "conv", "hidden": ()}, "hidden channels"),
        ({"network": nn.Linear(2, 2)}, "no module `encoder`"),
        ({"activation": "swish"}, "activation must be one of"),
        ({"scale": -1.0}, "scale must be positive"),
        ({"scale": "learnt"}, "scale must be positive or 'learned'"),
        ({"prior": "conditional"}, "needs num_classes"),
        ({"prior": "flat"}, "prior must be one of"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_is_refused(arguments: dict, words: str):
    with pytest.raises(ValueError, match=words):
        VAE((1, 4, 4), **arguments)


def test_vectors_have_no_convolutions():
    with pytest.raises(ValueError, match="takes images"):
        VAE((7,), network="conv")
    with pytest.raises(ValueError, match="labels y needed"):
        VAE((3,), num_classes=2).encode(torch.zeros(2, 3))


@pytest.mark.parametrize("classes", [None, 3])
@pytest.mark.parametrize("network", ["mlp", "conv", Network])
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "discretized_logistic"])
def test_shapes_of_its_queries(network, classes, likelihood: str):
    levels = {"bernoulli": 2, "gaussian": None, "discretized_logistic": 4}[likelihood]
    if network is Network:
        network = Network((1, 4, 4), 3, 2 if likelihood == "discretized_logistic" else 1)
    program = VAE(
        (1, 4, 4),
        latent_dim=3,
        network=network,
        likelihood=likelihood,
        levels=levels,
        num_classes=classes,
    ).eval()
    x = torch.rand(5, 1, 4, 4).round()
    y = () if classes is None else (torch.tensor([0, 1, 2, 0, 1]),)
    posterior = program.encode(x, *y)
    assert posterior.batch_shape == (5,) and posterior.event_shape == (3,)
    picture = program.reconstruct(x, *y)
    assert picture.shape == x.shape
    torch.testing.assert_close(picture, program.decode(posterior.mean, *y).mean)
    particles = program.decode(posterior.sample((4,)), *y)  # (4, 5, 3)
    assert particles.batch_shape == (4, 5)
    z = torch.randn(4, 5, 3)
    whole, parts = program.decode(z, *y).mean, [program.decode(part, *y).mean for part in z]
    torch.testing.assert_close(whole, torch.stack(parts), rtol=1e-4, atol=1e-5)
    if likelihood != "gaussian":
        assert ((picture >= 0) & (picture <= 1)).all()


@pytest.mark.parametrize(
    "shape", [(1, 28, 28), (3, 27, 27), (3, 8, 8), (1, 4, 4), (2, 5, 7), (1, 1, 9)], ids=str
)
@pytest.mark.parametrize("hidden", [None, (4,), (8, 8), (6, 12, 10, 9)], ids=str)
def test_convolutions_fit_any_size(shape: tuple, hidden):
    """Shapes come back; a changed corner of the image reaches the code; batches of one work."""
    program = VAE(shape, latent_dim=2, network="conv", hidden=hidden, levels=2)
    x = torch.rand(2, *shape).round()
    assert program.reconstruct(x).shape == x.shape
    other = x.clone()
    other[..., -1, -1] = 1 - other[..., -1, -1]
    assert not torch.equal(program.encode(x).mean, program.encode(other).mean)
    torch.testing.assert_close(
        program.encode(x[:1]).mean, program.encode(x).mean[:1], rtol=1e-3, atol=1e-4
    )
    z = program.encode(x).mean
    assert not torch.equal(program.decode(z).mean[0], program.decode(z + 1.0).mean[0])


def test_labels_matter():
    """Encoder, decoder and conditional prior all read y; examples keep their own label."""
    torch.manual_seed(1)
    program = VAE((3,), latent_dim=2, hidden=(8,), num_classes=3, prior="conditional").eval()
    x, y = torch.randn(4, 3), torch.tensor([0, 1, 2, 1])
    assert not torch.equal(program.encode(x, y).mean, program.encode(x, (y + 1) % 3).mean)
    z = torch.randn(4, 2)
    assert not torch.equal(program.decode(z, y).mean, program.decode(z, (y + 1) % 3).mean)
    with torch.no_grad():
        program.prior_network.weight.copy_(torch.arange(12.0).view(3, 4) / 10)
    expected = torch.tensor([[0.0, 0.1], [0.4, 0.5], [0.8, 0.9], [0.4, 0.5]])
    torch.testing.assert_close(program._prior(x, y).mean, expected)


def test_the_gaussian_scale_is_learned_or_fixed():
    learned, fixed = (VAE((3,), latent_dim=2, hidden=(4,), scale=s) for s in ("learned", 0.5))
    assert learned.log_scale.requires_grad and not fixed.log_scale.requires_grad
    torch.testing.assert_close(
        fixed.decode(torch.zeros(1, 2)).base_dist.scale, torch.full((1, 3), 0.5)
    )
    ELBO(learned)(torch.randn(4, 3))[0].backward()
    assert learned.log_scale.grad.abs() > 1e-6
    data = Dataset.from_tensors(torch.randn(40, 3))
    run = fit(fixed, data, steps=3, ema=0.9, progress=False)
    assert run.program.log_scale.item() == pytest.approx(math.log(0.5))


def test_it_learns_and_knows_two_patterns():
    """Two binary patterns: the loss falls to about log 2 and reconstructions are the patterns."""
    pattern = torch.tensor([[1.0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]])
    data = Dataset.from_tensors(pattern.repeat(100, 1), levels=2)
    program = VAE((6,), latent_dim=1, hidden=(16,), levels=2)
    run = fit(program, data, steps=400, batch_size=50, lr=1e-2, progress=False)
    found = evaluate(run, particles=50).log_likelihood
    assert -0.85 < found.value <= -math.log(2) + 0.02
    assert torch.equal(run.program.reconstruct(pattern).round(), pattern)
    drawn = run.program.sample(200)
    share = (drawn[:, None] == pattern).all(-1).float().mean(0)
    assert share.sum() > 0.8 and share.min() > 0.2
