"""DiscretizedLogistic against a direct formula in float64 and against enumeration of its levels."""

import pyro.distributions as dist
import pytest
import torch

from ppgen.distributions import DiscretizedLogistic

LOCS = [-5.0, -0.1, 0.0, 0.3, 0.5, 1.0, 1.2, 8.0]
LOG_SCALES = [-9.0, -6.0, -3.0, -1.0, 0.0, 3.0]
levels_of = pytest.mark.parametrize("levels", [2, 17, 256])


def grid(levels: int, dtype=torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Every level against every loc and scale: values (levels, 1), loc and log_scale (m,)."""
    pairs = torch.cartesian_prod(torch.tensor(LOCS), torch.tensor(LOG_SCALES)).to(dtype)
    values = torch.arange(levels, dtype=dtype).div(levels - 1).unsqueeze(-1)
    return values, pairs[:, 0].contiguous(), pairs[:, 1].contiguous()


@levels_of
def test_probabilities_sum_to_one_and_gradients_are_finite(levels: int):
    values, loc, log_scale = grid(levels)
    loc.requires_grad_()
    log_scale.requires_grad_()
    log_probs = DiscretizedLogistic(loc, log_scale, levels).log_prob(values)
    assert log_probs.dtype == torch.float32 and log_probs.isfinite().all()
    assert (log_probs <= 1e-6).all()
    torch.testing.assert_close(log_probs.exp().sum(0), torch.ones(len(loc)), rtol=2e-4, atol=2e-4)
    for gradient in torch.autograd.grad(log_probs.sum(), [loc, log_scale]):
        assert gradient.isfinite().all()


@levels_of
def test_log_prob_is_the_difference_of_two_sigmoids(levels: int):
    """In float64, by the formula as it is written, wherever that one keeps its digits."""
    values, loc, log_scale = grid(levels, torch.float64)
    half, scale = 0.5 / (levels - 1), log_scale.exp()
    upper = torch.sigmoid((values + half - loc) / scale)
    lower = torch.sigmoid((values - half - loc) / scale)
    upper[-1], lower[0] = 1.0, 0.0
    direct = upper - lower
    sure = direct > 1e-7
    assert sure.float().mean() > 0.2
    found = DiscretizedLogistic(loc, log_scale, levels).log_prob(values)
    torch.testing.assert_close(found[sure], direct[sure].log(), rtol=1e-7, atol=1e-7)
    single = DiscretizedLogistic(loc.float(), log_scale.float(), levels).log_prob(values.float())
    wide = sure & (log_scale > -6.5)
    torch.testing.assert_close(single[wide].double(), found[wide], rtol=2e-3, atol=2e-3)


@levels_of
def test_moments_are_those_of_the_levels(levels: int):
    values, loc, log_scale = grid(levels, torch.float64)
    law = DiscretizedLogistic(loc, log_scale, levels)
    probabilities = law.log_prob(values).exp()
    mean = (probabilities * values).sum(0)
    torch.testing.assert_close(law.mean, mean, rtol=1e-6, atol=1e-9)
    variance = (probabilities * (values - mean) ** 2).sum(0)
    torch.testing.assert_close(law.variance, variance, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("levels", [2, 5])
def test_samples_are_levels_with_their_frequencies(levels: int):
    values = torch.arange(levels).div(levels - 1)
    law = DiscretizedLogistic(torch.tensor([0.2, 0.7]), torch.tensor([-1.0, -2.5]), levels)
    draws = law.sample((40_000,))
    assert draws.shape == (40_000, 2) and set(draws.unique().tolist()) <= set(values.tolist())
    frequency = (draws == values.view(-1, 1, 1)).float().mean(1)
    probability = law.log_prob(values.unsqueeze(-1)).exp()
    error = (probability * (1 - probability) / 40_000).sqrt()
    assert ((frequency - probability).abs() <= 5 * error + 1e-6).all()


def test_it_behaves_as_a_pyro_distribution():
    law = DiscretizedLogistic(torch.zeros(3), torch.zeros(3), 4)
    assert law.expand((2, 3)).batch_shape == (2, 3)
    event = law.to_event(1)
    assert event.event_shape == (3,) and event.log_prob(torch.zeros(3)).shape == ()
    torch.testing.assert_close(event.log_prob(torch.ones(3)), law.log_prob(torch.ones(3)).sum())
    assert law.support.is_discrete and event.support.is_discrete and not law.has_rsample
    checked = DiscretizedLogistic(torch.zeros(3), torch.zeros(3), 4, validate_args=True)
    assert checked.support.check(torch.tensor([-0.1, 0.0, 1.0, 1.1])).tolist() == [
        False,
        True,
        True,
        False,
    ]
    with pytest.raises(ValueError, match="levels must be 2 or more; got 1"):
        DiscretizedLogistic(torch.zeros(3), torch.zeros(3), 1)


def test_the_closed_form_of_the_normal_kl():
    """The formula of the scoring against torch's, in float64, at many pairs."""
    from ppgen.scoring import _normal_kl

    draw = torch.randn(4, 200, dtype=torch.float64)
    loc, prior_loc = draw[0], draw[1]
    scale, prior_scale = draw[2].exp(), draw[3].exp()
    expected = torch.distributions.kl_divergence(
        dist.Normal(loc, scale), dist.Normal(prior_loc, prior_scale)
    )
    torch.testing.assert_close(_normal_kl(loc, scale, prior_loc, prior_scale), expected)
