"""Noise schedules against their formulas, and every parameterisation against every other."""

import itertools
import math

import pytest
import torch

from ppgen.nn.parameterisation import (
    from_x0,
    mean_to_x0,
    posterior,
    scales,
    to_noise,
    to_x0,
    x0_to_mean,
)
from ppgen.nn.schedules import (
    CosineSchedule,
    LearnedSchedule,
    LinearSchedule,
    Schedule,
    TableSchedule,
    make_schedule,
)

TABLES = {
    "linear-1": LinearSchedule(1),
    "linear-5": LinearSchedule(5, 0.1, 0.4),
    "linear-1000": LinearSchedule(1000),
    "cosine-1": CosineSchedule(1),
    "cosine-7": CosineSchedule(7),
    "cosine-1000": CosineSchedule(1000),
}
ALL = {**TABLES, "learned": LearnedSchedule(hidden=32)}
KINDS = ("noise", "x0", "v", "score")


def test_the_linear_schedule_is_a_product():
    """By hand, for three steps."""
    schedule = LinearSchedule(3, 0.1, 0.3)
    abar = torch.tensor([0.9, 0.9 * 0.8, 0.9 * 0.8 * 0.7])
    steps = torch.arange(1, 4)
    torch.testing.assert_close(torch.sigmoid(schedule.at_step(steps)), abar)
    torch.testing.assert_close(schedule.signal(steps / 3), abar.sqrt())
    torch.testing.assert_close(schedule.noise(steps / 3), (1 - abar).sqrt())
    default = LinearSchedule(1000)
    last = torch.prod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64))
    assert float(default.signal(torch.tensor(1.0))) ** 2 == pytest.approx(float(last), rel=1e-5)


def test_the_cosine_schedule_is_a_cosine():
    """abar is f(t) / f(0) but at the end, where a step's variance is cut off at 0.999."""
    schedule = CosineSchedule(1000)
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    f = [math.cos((s + 0.008) / 1.008 * math.pi / 2) ** 2 for s in (0.0, *t.tolist())]
    abar = torch.sigmoid(schedule.at_step(torch.arange(1, 1001))).double()
    expected = torch.tensor(f[1:], dtype=torch.float64) / f[0]
    torch.testing.assert_close(abar[:-1], expected[:-1], rtol=1e-5, atol=0)
    assert float(abar[-1] / abar[-2]) == pytest.approx(1e-3, rel=1e-4)


@pytest.mark.parametrize("name", ALL)
def test_every_schedule_falls_and_keeps_the_variance(name: str):
    schedule = ALL[name]
    t = torch.linspace(0, 1, 2001)
    values = schedule.log_snr(t)
    assert values.shape == t.shape and values.isfinite().all()
    assert (values.diff() < 0).all()
    torch.testing.assert_close(schedule.signal(t) ** 2 + schedule.noise(t) ** 2, torch.ones(2001))
    snr = (schedule.signal(t) / schedule.noise(t)) ** 2
    torch.testing.assert_close(snr.log(), values, rtol=1e-4, atol=1e-4)
    assert schedule.log_snr(t.view(3, 23, 29)).shape == (3, 23, 29)


@pytest.mark.parametrize("name", TABLES)
def test_tables_pass_through_their_steps_in_straight_lines(name: str):
    schedule = TABLES[name]
    total = schedule.timesteps
    assert total == int(name.partition("-")[2])
    steps = torch.arange(total + 1)
    exact = schedule.at_step(steps)
    assert exact[0] == math.inf and exact[1:].isfinite().all()
    torch.testing.assert_close(schedule.log_snr(steps / total)[1:], exact[1:], rtol=0, atol=2e-5)
    t = (torch.arange(total, dtype=torch.float64) + 0.3) / total
    t.requires_grad_(True)
    between = schedule.log_snr(t)
    nodes = schedule.log_snr(steps.double() / total)
    torch.testing.assert_close(between, 0.7 * nodes[:-1] + 0.3 * nodes[1:], rtol=1e-6, atol=1e-6)
    (slope,) = torch.autograd.grad(between.sum(), t)
    torch.testing.assert_close(slope, nodes.diff() * total, rtol=1e-6, atol=1e-6)


def test_the_learned_schedule_has_its_end_points_and_slope():
    torch.manual_seed(0)
    schedule = LearnedSchedule(highest=9.0, lowest=-4.0, hidden=16).double()
    with torch.no_grad():  # far from a straight line
        schedule.raw_weights.add_(torch.randn(2, 16) * 2 + 2)
    ends = schedule.log_snr(torch.tensor([0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(
        ends, torch.tensor([9.0, -4.0], dtype=torch.float64), rtol=1e-6, atol=1e-6
    )
    t = torch.linspace(0.01, 0.99, 50, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(schedule.progress(t).sum(), t)
    torch.testing.assert_close(schedule.slope(t), expected)
    step = 1e-5
    difference = (schedule.progress(t + step) - schedule.progress(t - step)) / (2 * step)
    torch.testing.assert_close(schedule.slope(t), difference, rtol=1e-6, atol=1e-6)
    assert schedule.slope(t).max() / schedule.slope(t).min() > 1.2
    schedule.log_snr(t).square().sum().backward()
    for name, parameter in schedule.named_parameters():
        # A shift or scale of l_1 moves the units too, and so the shape.
        assert parameter.grad.abs().max() > 1e-8, name


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LinearSchedule(0), "timesteps must be 1 or more; got 0"),
        (lambda: CosineSchedule(-3), "timesteps must be 1 or more; got -3"),
        (lambda: LinearSchedule(10, 0.0, 0.1), "first and last must lie between 0 and 1"),
        (lambda: LinearSchedule(10, 0.1, 1.0), "first and last must lie between 0 and 1"),
        (lambda: TableSchedule(torch.tensor([0.9, 0.9])), "falls"),
        (lambda: TableSchedule(torch.tensor([0.9, 0.0])), "falls"),
        (lambda: TableSchedule(torch.tensor([])), "falls"),
        (lambda: TableSchedule(torch.tensor([[0.9, 0.5]])), "falls"),
        (lambda: LearnedSchedule(hidden=0), "hidden must be 1 or more"),
        (lambda: LearnedSchedule(highest=-1.0, lowest=2.0), "highest must lie above lowest"),
        (lambda: make_schedule("cosin", 10), "did you mean '?cosine"),
        (lambda: make_schedule("linear", 0), "timesteps must be 1 or more; got 0"),
    ],
)
def test_what_is_no_schedule_is_refused(make, words: str):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_schedule_defines_log_snr():
    with pytest.raises(NotImplementedError, match="does not define log_snr"):
        Schedule().signal(torch.zeros(1))


def some(dtype=torch.float64):
    """x_0, eps and the x_t that they make at six levels of noise, a pair (5, 6) of each."""
    generator = torch.Generator().manual_seed(0)
    log_snr = torch.tensor([8.0, 3.0, 0.5, -1.0, -4.0], dtype=dtype)
    x0 = torch.randn(5, 2, 3, generator=generator, dtype=dtype)
    eps = torch.randn(5, 2, 3, generator=generator, dtype=dtype)
    signal, noise = scales(log_snr, x0)
    assert signal.shape == noise.shape == (5, 1, 1)
    return x0, eps, signal, noise, signal * x0 + noise * eps, log_snr


def test_each_prediction_is_what_its_paper_says():
    x0, eps, signal, noise, x, log_snr = some()
    expected = {"noise": eps, "x0": x0, "v": signal * eps - noise * x0, "score": -eps / noise}
    # The score of q(x | x_0), by differentiation of its log-density.
    point = x.clone().requires_grad_(True)
    law = torch.distributions.Normal(signal * x0, noise.expand_as(x0))
    (score,) = torch.autograd.grad(law.log_prob(point).sum(), point)
    torch.testing.assert_close(expected["score"], score)
    for kind, value in expected.items():
        torch.testing.assert_close(from_x0(x0, x, log_snr, kind), value)
        torch.testing.assert_close(to_x0(value, x, log_snr, kind), x0)
        torch.testing.assert_close(to_noise(value, x, log_snr, kind), eps)


@pytest.mark.parametrize(("first", "second"), [*itertools.product(KINDS, (*KINDS, "mean"))])
def test_every_prediction_converts_into_every_other(first: str, second: str):
    """There and back, for predictions that are no truth; in float32 to its rounding."""
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 2e-3)):
        *_, x, log_snr = some(dtype)
        prediction = torch.randn(5, 2, 3, dtype=dtype)
        x0 = to_x0(prediction, x, log_snr, first)
        before = log_snr + torch.tensor([0.02, 0.3, 1.0, 5.0, math.inf], dtype=dtype)
        if second == "mean":
            again = mean_to_x0(x0_to_mean(x0, x, log_snr, before), x, log_snr, before)
        else:
            again = to_x0(from_x0(x0, x, log_snr, second), x, log_snr, second)
        back = from_x0(again, x, log_snr, first)
        scale = prediction.abs().max() + x0.abs().max()
        assert (back - prediction).abs().max() <= tolerance * scale
        noise = from_x0(x0, x, log_snr, "noise")
        found = to_noise(prediction, x, log_snr, first)
        assert (found - noise).abs().max() <= tolerance * scale


def test_the_posterior_is_the_textbooks():
    """SPEC's formula from alpha and abar, and Bayes' rule on the joint Gaussian."""
    x0, _, _, _, x, log_snr = some()
    before = log_snr + torch.tensor([0.02, 0.3, 1.0, 5.0, 9.0], dtype=torch.float64)
    mean, scale = posterior(x, x0, log_snr, before)
    assert mean.shape == scale.shape == x.shape
    now, then = torch.sigmoid(log_snr)[:, None, None], torch.sigmoid(before)[:, None, None]
    alpha = now / then
    expected = (alpha.sqrt() * (1 - then) * x + then.sqrt() * (1 - alpha) * x0) / (1 - now)
    torch.testing.assert_close(mean, expected)
    variance = (1 - alpha) * (1 - then) / (1 - now)
    torch.testing.assert_close(scale**2, variance.expand_as(scale))
    # x_s ~ N(sqrt(then) x_0, 1 - then), x_t | x_s ~ N(sqrt(alpha) x_s, 1 - alpha).
    gain = (1 - then) * alpha.sqrt() / (1 - now)
    bayes = then.sqrt() * x0 + gain * (x - now.sqrt() * x0)
    torch.testing.assert_close(mean, bayes)
    torch.testing.assert_close(scale**2, ((1 - then) * (1 - gain * alpha.sqrt())).expand_as(scale))


def test_the_step_to_the_datum_is_a_point():
    x0, _, _, _, x, log_snr = some()
    mean, scale = posterior(x, x0, log_snr, torch.full_like(log_snr, math.inf))
    torch.testing.assert_close(mean, x0)
    assert (scale == 0).all()
    prediction = torch.randn_like(x)
    again = mean_to_x0(prediction, x, log_snr, torch.full_like(log_snr, math.inf))
    torch.testing.assert_close(again, prediction)


def test_neighbouring_steps_do_not_cancel_in_float32():
    """A thousand cosine steps: the variance of a step in float32 against float64."""
    schedule = CosineSchedule(1000)
    steps = torch.arange(2, 1001)
    now, then = schedule.at_step(steps), schedule.at_step(steps - 1)
    x = torch.ones(999, 1)
    mean, scale = posterior(x, x, now, then)
    wide_mean, wide = posterior(x.double(), x.double(), now.double(), then.double())
    torch.testing.assert_close(scale.double(), wide, rtol=2e-4, atol=0)
    torch.testing.assert_close(mean.double(), wide_mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("convert", [to_x0, from_x0, to_noise])
def test_unknown_predictions_are_refused(convert):
    x = torch.zeros(1, 2)
    with pytest.raises(ValueError, match=r"did you mean .?noise"):
        convert(x, x, torch.zeros(1), "nois")
    with pytest.raises(ValueError, match="use mean_to_x0 and x0_to_mean"):
        convert(x, x, torch.zeros(1), "mean")
