"""Samplers, guidance and likelihood with exact denoisers of Gaussians and their mixtures."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

import ppgen.progress
from ppgen.models.flow_likelihood import ode_log_likelihood
from ppgen.models.guidance import guided, thresholded
from ppgen.models.samplers import (
    SAMPLERS,
    ancestral,
    ddim,
    dpm_solver_pp_2m,
    euler,
    heun,
    sample,
)
from ppgen.nn.parameterisation import from_x0, to_x0
from ppgen.nn.schedules import CosineSchedule, LearnedSchedule, LinearSchedule, Schedule

MEAN = torch.tensor([0.5, -0.3], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.5, 0.25], [0.25, 0.2]], dtype=torch.float64)
ODE = [euler, heun, dpm_solver_pp_2m]


class Straight(Schedule):
    """log SNR = 12 - 24 t in continuous time."""

    def log_snr(self, t: Tensor) -> Tensor:
        return 12 - 24 * t


def levels(schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
    return schedule.signal(t)[:, None], schedule.noise(t)[:, None]


def gaussian(schedule: Schedule, mean: Tensor = MEAN, covariance: Tensor = COVARIANCE):
    """E[x_0 | x_t] = m + a S (a^2 S + s^2 I)^-1 (x_t - a m) for x_0 ~ N(m, S)."""
    values, basis = torch.linalg.eigh(covariance)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        a, s = levels(schedule, t)
        gain = a * values / (a**2 * values + s**2)
        return mean + ((x - a * mean) @ basis * gain) @ basis.T

    return denoise


def mixture(schedule: Schedule, centres: Tensor, sd: float, weights: Tensor):
    """E[x_0 | x_t] for x_0 from Gaussians N(c_k, sd^2 I)."""

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        a, s = levels(schedule, t)
        variance = a**2 * sd**2 + s**2
        apart = x[:, None] - a[:, :, None] * centres  # (n, K, D)
        share = (weights.log() - apart.square().sum(-1) / (2 * variance)).softmax(-1)
        means = centres + (a * sd**2 / variance)[:, :, None] * apart
        return (share[:, :, None] * means).sum(1)

    return denoise


def flow(schedule: Schedule, x: Tensor, last: float) -> Tensor:
    """The probability-flow ODE in closed form from t = 1 to `last`, then E[x_0 | x_last]."""
    values, basis = torch.linalg.eigh(COVARIANCE)
    t = torch.tensor([last, 1.0], dtype=x.dtype)
    a, s = schedule.signal(t), schedule.noise(t)
    scale = ((a[0] ** 2 * values + s[0] ** 2) / (a[1] ** 2 * values + s[1] ** 2)).sqrt()
    end = a[0] * MEAN + ((x - a[1] * MEAN) @ basis * scale) @ basis.T
    return gaussian(schedule)(end, torch.full((len(x),), last, dtype=x.dtype))


def noise(n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 2, generator=generator, dtype=torch.float64)


def check_moments(x: Tensor, mean: Tensor, covariance: Tensor, bias: float = 0.0) -> None:
    """Mean and covariance of draws within 4.5 standard errors, and a bias that is allowed."""
    n = len(x)
    variance = covariance.diagonal()
    error = (x.mean(0) - mean).abs()
    assert (error < 4.5 * (variance / n).sqrt() + bias).all(), error
    # var of an entry of the sample covariance: (S_ii S_jj + S_ij^2) / n
    spread = ((torch.outer(variance, variance) + covariance**2) / n).sqrt()
    error = (x.T.cov() - covariance).abs()
    assert (error < 4.5 * spread + bias).all(), error


# --- the chain in law


@pytest.mark.parametrize("variance", ["posterior", "forward"])
@pytest.mark.parametrize(
    "make", [lambda: LinearSchedule(400, 2.5e-4, 0.05), lambda: CosineSchedule(400)]
)
def test_ancestral_gives_the_datas_mean_and_covariance(make, variance):
    schedule = make()
    x = ancestral(gaussian(schedule), schedule, noise(10_000), variance=variance, seed=1)
    # the chain of T steps has a variance that is off by O(1 / T)
    check_moments(x, MEAN, COVARIANCE, bias=4e-3)


def test_the_two_variances_bracket_the_truth_in_few_steps():
    """Too small at a point-like x_0, too large otherwise (Ho et al. 2020, section 3.2)."""
    schedule = CosineSchedule(1000)
    found = {}
    for variance in ("posterior", "forward"):
        x = ancestral(gaussian(schedule), schedule, noise(20_000), steps=8, variance=variance)
        found[variance] = x.T.cov().trace()
    assert found["posterior"] < 0.97 * COVARIANCE.trace() < 1.03 * COVARIANCE.trace()
    assert found["forward"] > 1.03 * COVARIANCE.trace()


def test_ancestral_matches_the_recursion_of_its_moments():
    """Linear steps keep a Gaussian: the chain's exact law by the textbook's formulas, T = 20."""
    schedule, variance, mean = LinearSchedule(20, 0.02, 0.5), 1.0, 0.0
    m, v = 0.7, 0.3  # the data, one dimension
    beta = torch.linspace(0.02, 0.5, 20, dtype=torch.float64)
    abar = torch.cat([torch.ones(1, dtype=torch.float64), (1 - beta).cumprod(0)])
    for i in range(20, 0, -1):
        alpha, here, there = 1 - beta[i - 1], abar[i], abar[i - 1]
        gain = here.sqrt() * v / (here * v + 1 - here)
        of_x0 = there.sqrt() * (1 - alpha) / (1 - here)
        of_x = alpha.sqrt() * (1 - there) / (1 - here) + of_x0 * gain
        mean = of_x * mean + of_x0 * (m - gain * here.sqrt() * m)
        variance = of_x**2 * variance + (1 - alpha) * (1 - there) / (1 - here)
    double = {"dtype": torch.float64}
    denoise = gaussian(schedule, torch.tensor([m], **double), torch.tensor([[v]], **double))
    x = ancestral(denoise, schedule, noise(50_000).view(-1, 1), seed=2)
    check_moments(x, mean.view(1), variance.view(1, 1))


@pytest.mark.parametrize("steps", [1, 7, 50])
def test_ddim_at_eta_1_is_ancestral_draw_for_draw(steps):
    schedule = CosineSchedule(50)
    same = {"steps": steps, "seed": 3}
    a = ancestral(gaussian(schedule), schedule, noise(50), **same)
    b = ddim(gaussian(schedule), schedule, noise(50), eta=1.0, **same)
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_keeps_the_forward_marginals_at_every_eta(eta):
    """With a denoiser that knows the datum, x_t ~ q(x_t | x_0) all along (lemma 1 of DDIM)."""
    schedule, seen = CosineSchedule(20), []
    datum = torch.tensor([0.3, -0.6], dtype=torch.float64)
    options = {"steps": 6, "eta": eta, "seed": 1, "callback": seen.append}
    ddim(lambda x, t: datum.expand_as(x), schedule, noise(20_000), **options)
    assert len(seen) == 7
    for step in seen[1:-1]:
        t = torch.tensor(step.time, dtype=torch.float64)
        covariance = schedule.noise(t) ** 2 * torch.eye(2, dtype=torch.float64)
        # x_T is drawn without the signal, of which hardly any is left at T.
        check_moments(step.x, schedule.signal(t) * datum, covariance, bias=2e-3)


def test_a_mixture_keeps_its_modes_and_weights():
    schedule = CosineSchedule(200)
    centres = torch.tensor([[-2.0, 0.0], [1.0, 1.0], [2.0, -2.0]], dtype=torch.float64)
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    denoise = mixture(schedule, centres, 0.1, weights)
    for name, steps in (("ancestral", 200), ("ddim", 100), ("heun", 50), ("dpm_solver_pp_2m", 50)):
        x = sample(denoise, schedule, noise(4000), sampler=name, steps=steps)
        distance, nearest = torch.cdist(x, centres).min(1)
        shares = nearest.bincount(minlength=3) / len(x)
        error = 4.5 * (weights * (1 - weights) / len(x)).sqrt() + 0.01
        assert ((shares - weights).abs() < error).all(), (name, shares)
        assert (distance < 0.6).double().mean() > 0.99, name
        assert distance.square().mean().sqrt() == pytest.approx(0.1 * math.sqrt(2), rel=0.2), name


# --- the probability flow


def test_ddim_at_eta_0_goes_to_the_closed_form_map():
    schedule, x = Straight(), noise(100)
    exact = flow(schedule, x, 0.0)
    errors = [
        (ddim(gaussian(schedule), schedule, x, steps=steps + 1) - exact).abs().max().item()
        for steps in (50, 100, 200, 400)
    ]
    assert errors[-1] < 0.02
    for coarse, fine in itertools.pairwise(errors):
        assert 1.7 < coarse / fine < 2.3, errors  # first order


@pytest.mark.parametrize(("solver", "order"), [(euler, 1), (heun, 2), (dpm_solver_pp_2m, 2)])
@pytest.mark.parametrize("discrete", [False, True])
def test_order_of_convergence(solver, order, discrete):
    schedule, x = CosineSchedule(481) if discrete else Straight(), noise(100)
    exact = flow(schedule, x, 1 / 481 if discrete else 0.0)
    denoise = gaussian(schedule)
    errors = [  # even in t, these all fall on whole steps of the chain
        (solver(denoise, schedule, x, steps=n + 1, spacing="time") - exact).abs().max().item()
        for n in (120, 240, 480)
    ]
    rates = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert rates == pytest.approx([order, order], abs=0.25), errors
    assert errors[-1] < (3e-3 if order == 1 else 3e-4)


def test_the_solvers_agree_with_a_very_fine_euler_run():
    schedule, x = Straight(), noise(40)
    centres = torch.tensor([[-1.0, 0.0], [0.5, 0.8], [1.0, -1.0]], dtype=torch.float64)
    denoise = mixture(schedule, centres, 0.6, torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64))
    fine = euler(denoise, schedule, x, steps=6000)
    for solver, steps in ((heun, 60), (dpm_solver_pp_2m, 120), (ddim, 3000)):
        error = (solver(denoise, schedule, x, steps=steps) - fine).abs().max()
        assert error < 2e-3, (solver.__name__, error)
    assert (euler(denoise, schedule, x, steps=30) - fine).abs().max() > 1e-2  # it is not trivial


def times(sampler, schedule: Schedule, **options) -> list[float]:
    seen = []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        assert t.shape == (len(x),) and (t == t[0]).all()
        seen.append(t[0].item())
        return x

    sampler(denoise, schedule, noise(2), **options)
    return seen


@pytest.mark.parametrize("spacing", ["angle", "time"])
@pytest.mark.parametrize("make", [CosineSchedule, LinearSchedule])
def test_levels_are_whole_steps_from_the_last_to_the_first(make, spacing):
    for steps in (1, 2, 3, 17, 58, 59, 60):
        found = [60 * t for t in times(ddim, make(60), steps=steps, spacing=spacing)]
        assert found == pytest.approx([round(i) for i in found], abs=1e-9)
        assert len(set(map(round, found))) == steps
        assert found == sorted(found, reverse=True)
        assert round(found[0]) == 60 and (steps == 1 or round(found[-1]) == 1)
    assert [round(60 * t) for t in times(ancestral, make(60))] == list(range(60, 0, -1))


def test_levels_are_even_in_the_root_of_the_angle():
    t = torch.tensor(times(ddim, Straight(), steps=9), dtype=torch.float64)
    root = torch.atan2(Straight().noise(t), Straight().signal(t)).sqrt()
    torch.testing.assert_close(root.diff(), root.diff().mean().expand(8), rtol=1e-6, atol=0)
    assert t[0] == 1 and t[-1] == pytest.approx(0, abs=1e-9)
    even = torch.tensor(times(ddim, Straight(), steps=9, spacing="time"), dtype=torch.float64)
    torch.testing.assert_close(even, torch.linspace(1, 0, 9, dtype=torch.float64))


def test_that_spacing_lowers_the_error_of_few_steps():
    schedule, x = LinearSchedule(1000), noise(100)
    exact = flow(schedule, x, 1 / 1000)
    for sampler, factor in ((ddim, 1.5), (heun, 5), (dpm_solver_pp_2m, 10)):
        angle, time = (
            (sampler(gaussian(schedule), schedule, x, steps=20, spacing=s) - exact).norm()
            for s in ("angle", "time")
        )
        assert factor * angle < time, sampler.__name__


def test_a_learned_schedule_is_continuous_and_needs_steps():
    schedule = LearnedSchedule(lowest=-10.0, highest=10.0, hidden=8)
    x = noise(200).float()
    x = heun(gaussian_in_float(schedule), schedule, x, steps=60)
    exact = flow(schedule.double(), noise(200), 0.0)
    torch.testing.assert_close(x.double(), exact.detach(), rtol=0, atol=5e-3)
    with pytest.raises(ValueError, match=r"continuous.*give steps"):
        ancestral(gaussian(schedule), schedule, x)


def gaussian_in_float(schedule: Schedule):
    mean, covariance = MEAN.float(), COVARIANCE.float()
    return gaussian(schedule, mean, covariance)


# --- noise, seeds and what is seen


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_last_step_is_the_denoisers_x0_without_noise(name):
    schedule, calls = CosineSchedule(12), []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        calls.append((t[0].item(), gaussian(schedule)(x, t)))
        return calls[-1][1]

    x = sample(denoise, schedule, noise(5), sampler=name, steps=12)
    assert calls[-1][0] == pytest.approx(1 / 12)
    assert torch.equal(x, calls[-1][1])
    assert len(calls) == (23 if name == "heun" else 12)


@pytest.mark.parametrize("name", SAMPLERS)
def test_seeds(name):
    schedule = CosineSchedule(20)
    denoise, options = gaussian_in_float(schedule), {"sampler": name, "steps": 10}
    state = torch.random.get_rng_state()
    first = sample(denoise, schedule, (4, 2), seed=5, **options)
    again = sample(denoise, schedule, (4, 2), seed=5, **options)
    other = sample(denoise, schedule, (4, 2), seed=6, **options)
    assert torch.equal(first, again) and not torch.isclose(first, other).any()
    assert torch.equal(torch.random.get_rng_state(), state)  # PyTorch's own generator is not used
    unseeded = sample(denoise, schedule, (4, 2), **options)
    assert not torch.equal(torch.random.get_rng_state(), state)
    assert unseeded.shape == (4, 2) and unseeded.dtype == torch.float32
    # From noise of the caller's only the noise on the way is drawn.
    x = noise(4).float()
    a, b = (sample(denoise, schedule, x, seed=seed, **options) for seed in (5, 6))
    assert torch.equal(a, b) == (name != "ancestral")
    torch.testing.assert_close(x, noise(4).float(), rtol=0, atol=0)  # and left as it was


def test_noise_goes_in_with_eta_alone():
    schedule, x = CosineSchedule(20), noise(4)
    for eta, equal in ((0.0, True), (0.5, False), (1.0, False)):
        a, b = (
            ddim(gaussian(schedule), schedule, x, steps=10, eta=eta, seed=seed) for seed in (1, 2)
        )
        assert torch.equal(a, b) == equal


def test_callbacks_see_the_chain_and_results_are_ordinary_tensors():
    schedule, seen = CosineSchedule(10), []
    denoise = gaussian(schedule)

    def watched(x: Tensor, t: Tensor) -> Tensor:
        assert torch.is_inference_mode_enabled()
        return denoise(x, t)

    start = noise(3)
    x = ancestral(watched, schedule, start, callback=seen.append, every=4)
    assert [step.call for step in seen] == [0, 4, 8, 10]
    assert [step.time for step in seen] == pytest.approx([1.0, 0.6, 0.2, 0.0])
    assert torch.equal(seen[0].x, start) and torch.equal(seen[-1].x, x)
    for step in seen[:-1]:
        torch.testing.assert_close(step.x0, denoise(step.x, step.x.new_full((3,), step.time)))
    for tensor in (x, seen[1].x, seen[1].x0):
        assert not tensor.is_inference()
        tensor.requires_grad_().square().sum().backward()  # as inference tensors could not


@pytest.mark.parametrize(
    ("name", "known"), [*((name, False) for name in SAMPLERS), ("ancestral", True), ("ddim", True)]
)
def test_channels_last_goes_all_the_way_and_changes_no_number(name, known):
    schedule, formats = CosineSchedule(10), []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        formats.append(x.is_contiguous(memory_format=torch.channels_last))
        return x / 2

    image = torch.randn(3, 4, 5)
    options = {"known": image, "mask": image[0] > 0, "resample": 2} if known else {}
    x = torch.randn(2, 3, 4, 5)
    plain = sample(denoise, schedule, x, sampler=name, steps=5, seed=0, **options)
    formats.clear()
    last = x.to(memory_format=torch.channels_last)
    last = sample(denoise, schedule, last, sampler=name, steps=5, seed=0, **options)
    assert all(formats) and last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(plain, last)


def test_a_bar_is_shown_after_a_while_on_a_terminal(monkeypatch, capsys):
    schedule = CosineSchedule(5)
    denoise = gaussian(schedule)
    ancestral(denoise, schedule, noise(2))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(ppgen.progress, "PATIENCE", 0.0)
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes the stream for a terminal
    ancestral(denoise, schedule, noise(2), progress=False)
    assert capsys.readouterr().err == ""
    ancestral(denoise, schedule, noise(2))
    assert "sampling" in capsys.readouterr().err


# --- thresholds and guidance


def test_clipping_and_dynamic_thresholds():
    x0 = torch.tensor([[0.5, -0.9, 0.2, 0.1], [4.0, -2.0, 1.0, 0.5]])
    t = torch.zeros(2)
    clipped = thresholded(lambda x, t: x, "clip")(x0, t)
    assert clipped.tolist() == x0.clamp(-1, 1).tolist()
    # The quantile 0.75 of |x_0| is 0.5, so 1, in the first example and 2 in the second.
    inside = thresholded(lambda x, t: x, "dynamic", quantile=0.75)(x0, t)
    expected = torch.tensor([[0.5, -0.9, 0.2, 0.1], [1.0, -1.0, 0.5, 0.25]])
    torch.testing.assert_close(inside, expected)
    images = 3 * torch.randn(2, 3, 4, 4)
    inside = thresholded(lambda x, t: x, "dynamic")(images, t)
    torch.testing.assert_close(inside, images / images.abs().amax((1, 2, 3), keepdim=True))


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_take_thresholds(name):
    schedule = CosineSchedule(20)
    wide = gaussian(schedule, 2 + MEAN, COVARIANCE)
    options = {"sampler": name, "steps": 10, "seed": 0}
    free = sample(wide, schedule, noise(50), **options)
    for threshold in ("clip", "dynamic"):
        x = sample(wide, schedule, noise(50), threshold=threshold, **options)
        assert free.max() > 2 and x.abs().max() <= 1
    # Where nothing is cut off it changes nothing.
    narrow = gaussian(schedule, 0 * MEAN, 1e-4 * COVARIANCE)
    free = sample(narrow, schedule, noise(50), **options)
    assert torch.equal(free, sample(narrow, schedule, noise(50), threshold="clip", **options))


def labelled(schedule: Schedule):
    """Data N(m_y, S), labels 0 and 1, and their mean's Gaussian for the label 2."""
    means = torch.stack([MEAN, -MEAN, 0 * MEAN])
    calls = []

    def denoise(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        calls.append(len(x))
        return gaussian(schedule, means[y])(x, t)

    return denoise, calls


def test_guidance_is_the_combination_of_the_noises():
    schedule = CosineSchedule(20)
    denoise, calls = labelled(schedule)
    x, y, none = noise(3), torch.tensor([0, 1, 1]), torch.full((3,), 2)
    t = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    log_snr = schedule.log_snr(t)

    def eps(y: Tensor) -> Tensor:
        return from_x0(denoise(x, t, y), x, log_snr, "noise")

    for scale in (0.0, 0.3, 1.0, 3.0):
        expected = to_x0(eps(none) + scale * (eps(y) - eps(none)), x, log_snr, "noise")
        calls.clear()
        found = guided(denoise, y, none, scale)(x, t)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        assert calls == ([3] if scale in (0, 1) else [6])  # one call, of doubled size
    assert torch.equal(guided(denoise, y, none, 1.0)(x, t), denoise(x, t, y))
    assert torch.equal(guided(denoise, y, none, 0)(x, t), denoise(x, t, none))


def test_guidance_moves_samples_away_from_the_unconditional_ones():
    schedule = CosineSchedule(100)
    denoise, _ = labelled(schedule)
    y, none = torch.zeros(2000, dtype=torch.long), torch.full((2000,), 2)
    along = [
        float(ddim(guided(denoise, y, none, scale), schedule, noise(2000)).mean(0) @ MEAN)
        for scale in (0, 1, 2)
    ]
    # Here the guided flow is that of a Gaussian with mean scale * m.
    assert along == pytest.approx([0, float(MEAN @ MEAN), 2 * float(MEAN @ MEAN)], abs=0.05)


# --- inpainting


KNOWN, MASK = torch.tensor([math.nan, 0.2], dtype=torch.float64), torch.tensor([False, True])


@pytest.mark.parametrize("name", ["ancestral", "ddim"])
def test_inpainting_keeps_the_known_and_resampling_lowers_the_bias_of_the_rest(name):
    schedule = CosineSchedule(50)
    slope = COVARIANCE[0, 1] / COVARIANCE[1, 1]
    mean = MEAN[0] + slope * (0.2 - MEAN[1])  # of x_1 given x_2 = 0.2
    variance = COVARIANCE[0, 0] - slope * COVARIANCE[0, 1]
    options = {"sampler": name, "known": KNOWN, "mask": MASK, "steps": 50, "seed": 0}
    bias = []
    for resample in (1, 4, 20):
        x = sample(gaussian(schedule), schedule, noise(2000), resample=resample, **options)
        assert (x[:, 1] == 0.2).all()
        bias.append(abs(float(x[:, 0].mean() - mean)))
    unconditional = abs(float(MEAN[0] - mean))
    assert unconditional > bias[0] > 1.5 * bias[1] > 2 * bias[2], bias
    assert bias[2] < 0.15 * unconditional
    assert 0.6 < x[:, 0].var() / variance < 1.25


def test_inpainting_goes_back_by_stretches():
    schedule = CosineSchedule(7)
    inpaint = {"known": KNOWN, "mask": MASK, "resample": 2}

    def walk(**options) -> list[int]:
        return [round(7 * t) for t in times(ancestral, schedule, **options)]

    assert walk(jump=3, **inpaint) == [7, 6, 5, 7, 6, 5, 4, 3, 2, 4, 3, 2, 1, 1]
    assert walk(jump=1, **inpaint) == [7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1]
    assert walk(resample=2) == [7, 6, 5, 4, 3, 2, 1]  # nothing known, nothing to resample


def test_going_forward_again_follows_the_forward_process():
    """With a denoiser that knows the datum, the x_t seen are draws of q(x_t | x_0) every time."""
    schedule, seen = CosineSchedule(10), []
    datum = torch.tensor([0.3, -0.6], dtype=torch.float64)
    ancestral(
        lambda x, t: datum.expand_as(x),
        schedule,
        noise(20_000),
        known=datum,
        mask=torch.tensor([False, True]),
        resample=2,
        jump=4,
        callback=seen.append,
        seed=1,
    )
    for step in seen[1:-1]:
        if step.time < 1:
            t = torch.tensor(step.time, dtype=torch.float64)
            a, s = schedule.signal(t), schedule.noise(t)
            covariance = s**2 * torch.eye(2, dtype=torch.float64)
            check_moments(step.x, a * datum, covariance, bias=2e-3)


# --- likelihood


class Wide(Schedule):
    """log SNR = 14 - 34 t: so little signal at t = 1 that x_1 is standard Gaussian to 1e-4."""

    def log_snr(self, t: Tensor) -> Tensor:
        return 14 - 34 * t


def draws(n: int) -> tuple[Tensor, Tensor]:
    law = MultivariateNormal(MEAN, COVARIANCE)
    x = MEAN + noise(n, seed=9) @ torch.linalg.cholesky(COVARIANCE).T
    return x, law.log_prob(x)


@pytest.mark.parametrize("options", [{"tolerance": 1e-5}, {"steps": 40}, {}])
def test_the_flows_likelihood_is_the_gaussians(options):
    x, exact = draws(50)
    schedule = Wide()
    found = ode_log_likelihood(gaussian(schedule), schedule, x, trace="exact", **options)
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-3)
    in_float = ode_log_likelihood(
        gaussian_in_float(schedule), schedule, x.float(), trace="exact", **options
    )
    assert in_float.dtype == torch.float32
    torch.testing.assert_close(in_float.double(), exact, rtol=0, atol=1e-3)


@pytest.mark.parametrize("make", [LinearSchedule, CosineSchedule])
def test_the_likelihood_is_that_of_the_flows_own_samples(make):
    """Whatever little signal is left at t = 1: the flow is an affine map of N(0, I)."""
    schedule = make(200) if make is CosineSchedule else make(200, 5e-4, 0.1)
    x, _ = draws(20)
    values, basis = torch.linalg.eigh(COVARIANCE)
    t = torch.tensor([1 / 200, 1.0], dtype=torch.float64)
    a, s = schedule.signal(t), schedule.noise(t)
    before, after = (a[i] ** 2 * values + s[i] ** 2 for i in (0, 1))
    # x_t - a m is scaled by sqrt(before / after) along the axes; then x = x_t / a_0.
    scale = (before / after).sqrt() / a[0]
    mean = MEAN - (basis * scale) @ basis.T @ MEAN * a[1]
    law = MultivariateNormal(mean, basis @ torch.diag(scale**2) @ basis.T)
    found = ode_log_likelihood(gaussian(schedule), schedule, x, trace="exact", tolerance=1e-7)
    torch.testing.assert_close(found, law.log_prob(x), rtol=0, atol=1e-5)


def test_fixed_steps_converge_and_a_tolerance_is_kept():
    schedule, (x, _) = Wide(), draws(20)
    centres = torch.tensor([[-1.0, 0.0], [0.5, 0.8]], dtype=torch.float64)
    weights = torch.tensor([0.6, 0.4], dtype=torch.float64)
    denoise = mixture(schedule, centres, 0.3, weights)
    squares = (x[:, None] - centres).square().sum(-1)
    exact = torch.logsumexp(weights.log() - squares / (2 * 0.09) - math.log(2 * math.pi * 0.09), -1)
    error = {}
    for steps in (10, 20, 80):
        found = ode_log_likelihood(denoise, schedule, x, trace="exact", steps=steps)
        error[steps] = (found - exact).abs().max()
    assert error[80] < 3e-3 < error[10]
    found = ode_log_likelihood(denoise, schedule, x, trace="exact", tolerance=1e-6)
    assert (found - exact).abs().max() < 3e-3


def test_hutchinsons_trace_is_unbiased_and_probes_lower_its_variance():
    schedule, (x, _) = Wide(), draws(5)
    many = x.repeat(400, 1)  # independent signs for each
    spread = {}
    for probes in (1, 4):
        found = ode_log_likelihood(
            gaussian(schedule), schedule, many, steps=12, probes=probes, seed=1
        ).view(400, 5)
        plain = ode_log_likelihood(gaussian(schedule), schedule, x, steps=12, trace="exact")
        error = (found.mean(0) - plain).abs()
        spread[probes] = found.std(0)
        assert (error < 4.5 * spread[probes] / 20).all()
    ratio = spread[1] / spread[4]
    assert ((ratio > 1.7) & (ratio < 2.3)).all()  # sqrt(4)
    again = [
        ode_log_likelihood(gaussian(schedule), schedule, x, steps=5, seed=s) for s in (1, 1, 2)
    ]
    assert torch.equal(again[0], again[1]) and not torch.equal(again[0], again[2])


def test_the_likelihood_of_images_leaves_parameters_alone():
    schedule = CosineSchedule(50)
    network = torch.nn.Conv2d(1, 1, 3, padding=1)
    x = torch.randn(3, 1, 4, 4)
    with torch.inference_mode():
        found = ode_log_likelihood(lambda x, t: network(x).tanh(), schedule, x, trace="exact")
    one_by_one = torch.cat(
        [
            ode_log_likelihood(lambda x, t: network(x).tanh(), schedule, row, trace="exact")
            for row in x.split(1)
        ]
    )
    assert found.shape == (3,) and not found.requires_grad
    torch.testing.assert_close(found, one_by_one, rtol=1e-4, atol=1e-3)
    assert all(p.grad is None for p in network.parameters())


# --- bad input


def refuse(match: str, error: type[Exception] = ValueError, **options) -> None:
    schedule = CosineSchedule(20)
    with pytest.raises(error, match=match) as caught:
        sample(gaussian(schedule), schedule, noise(3), **options)
    assert "\n" not in str(caught.value)


def test_bad_samplers_and_options():
    refuse("one of ancestral, ddim, .*'huen'; did you mean heun", sampler="huen")
    refuse("heun takes no option eta; taken by ddim", sampler="heun", eta=1.0)
    refuse("heun takes no option known; taken by ancestral and ddim", sampler="heun", known=KNOWN)
    refuse("takes no option stepps; did you mean steps", stepps=3)
    for name in SAMPLERS:
        refuse("must not exceed the timesteps of the chain, 20; got 21", sampler=name, steps=21)
        refuse("steps must be 1 or more; got 0", sampler=name, steps=0)
    refuse("steps must be a whole number; got 2.5", TypeError, steps=2.5)
    refuse("every must be 1 or more; got 0", every=0)
    refuse("eta must lie between 0 .* and 1 .*; got 1.5", sampler="ddim", eta=1.5)
    refuse("variance must be one of posterior, forward; got 'postrior'", variance="postrior")
    refuse("threshold must be one of clip, dynamic; got 'clips'", threshold="clips")
    refuse("spacing must be one of angle, time; got 'tim'", spacing="tim")


def test_bad_inpainting():
    refuse("both known= and mask=", known=KNOWN)
    refuse("both known= and mask=", mask=MASK)
    refuse("mask must be bool.*float32", TypeError, known=KNOWN, mask=MASK.float())
    refuse(r"known must have the shape of x, \(3, 2\).*\(4,\)", known=torch.ones(4), mask=MASK)
    refuse(r"mask must have the shape of x.*\(5, 3, 2\)", known=KNOWN, mask=MASK.expand(5, 3, 2))
    refuse("resample must be 1 or more; got 0", known=KNOWN, mask=MASK, resample=0)
    refuse("jump must be 1 or more; got -1", known=KNOWN, mask=MASK, jump=-1)


def test_bad_tensors_and_denoisers():
    schedule = CosineSchedule(20)
    with pytest.raises(TypeError, match=r"x must be float32 or float64; got torch\.int64"):
        ddim(gaussian(schedule), schedule, torch.ones(2, 2, dtype=torch.long), steps=2)
    with pytest.raises(ValueError, match=r"denoiser gives shape \(3, 1\) for x of shape \(3, 2\)"):
        ddim(lambda x, t: x[:, :1], schedule, noise(3), steps=2)


def test_bad_guidance_and_thresholds():
    y = torch.zeros(3, dtype=torch.long)
    for scale in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="scale must be finite and 0 or more"):
            guided(lambda x, t, y: x, y, y, scale)
    with pytest.raises(ValueError, match=r"one shape; got \(3,\) and \(2,\)"):
        guided(lambda x, t, y: x, y, y[:2], 2.0)
    with pytest.raises(ValueError, match=r"quantile must lie in \(0, 1\]; got 0"):
        thresholded(lambda x, t: x, "dynamic", quantile=0)


def test_bad_likelihoods():
    schedule, x = CosineSchedule(20), noise(2)
    for options, match in (
        ({"steps": 3, "tolerance": 1e-3}, "steps or a tolerance, not both"),
        ({"steps": 0}, "steps must be 1 or more; got 0"),
        ({"tolerance": 0.0}, "tolerance must be positive; got 0"),
        ({"probes": 0}, "probes must be 1 or more; got 0"),
        ({"trace": "exakt"}, "trace must be one of hutchinson, exact.*did you mean exact"),
    ):
        with pytest.raises(ValueError, match=match):
            ode_log_likelihood(gaussian(schedule), schedule, x, **options)
    with pytest.raises(RuntimeError, match="cannot be solved to tolerance 1e-05 at log SNR"):
        ode_log_likelihood(lambda x, t: x * math.nan, schedule, x)
