"""Diffusion: four programs with one ELBO, against closed forms with a fixed linear denoiser."""

import copy
import math

import pyro
import pytest
import torch
from pyro.infer import RenyiELBO, Trace_ELBO, TraceMeanField_ELBO
from torch import nn

from ppgen import ELBO, Dataset, ImportanceWeightedELBO, fit
from ppgen.models.diffusion import Diffusion
from ppgen.models.diffusion_chain import SpreadTimes, step_at
from ppgen.models.diffusion_continuous import schedule_loss
from ppgen.models.diffusion_objectives import DenoisingLoss, DiffusionELBO
from ppgen.nn.parameterisation import PREDICTIONS, from_x0, scales, x0_to_mean
from ppgen.nn.schedules import CosineSchedule, LearnedSchedule, LinearSchedule, TableSchedule
from ppgen.objective import PyroObjective
from tests.test_compile import check_equal

T, D = 5, 2
SCHEDULES = {"linear": LinearSchedule(T, 0.1, 0.4), "cosine": CosineSchedule(T)}
FORMS = ("collapsed", "chain", "forward", "first", "shared")


class LinearDenoiser(nn.Module):
    """x_0_hat = gain(t) x + shift(t), given out as whatever a network is asked to predict."""

    def __init__(self, schedule, predict: str, gain, shift) -> None:
        super().__init__()
        self.schedule, self.predict = copy.deepcopy(schedule), predict
        self.gain, self.shift = gain, shift

    def forward(self, x, t):
        step = (t * self.schedule.timesteps).round().long()
        x0 = self.gain[step][:, None] * x + self.shift[step][:, None]
        now, then = self.schedule.at_step(step), self.schedule.at_step(step - 1)
        if self.predict == "mean":
            return x0_to_mean(x0, x, now, then)
        return from_x0(x0, x, now, self.predict)


GAIN, SHIFT = torch.linspace(0.95, 0.3, T + 1), torch.linspace(0.0, 0.4, T + 1)


def linear(schedule: str = "linear", predict: str = "noise", **arguments) -> Diffusion:
    chosen = SCHEDULES[schedule]
    network = LinearDenoiser(chosen, predict, GAIN, SHIFT)
    program = Diffusion((D,), schedule=chosen, predict=predict, network=network, **arguments)
    return program.eval().requires_grad_(False)


def data(n: int = 64) -> torch.Tensor:
    return torch.randn(n, D, generator=torch.Generator().manual_seed(3)) * 0.5 + 0.7


def exact_terms(program: Diffusion, x: torch.Tensor, gain=GAIN, shift=SHIFT) -> dict:
    """Each term of the ELBO (n,) in float64, with x_0_hat = gain_t x_t + shift_t and x = x_0.

    E ||x_0_hat - x_0||^2 = ||(gain signal - 1) x_0 + shift||^2 + D gain^2 noise^2.
    """
    x = x.double()
    abar = torch.sigmoid(program.schedule.steps.double())
    abar[0] = 1.0
    total = program.timesteps

    def error(t: int):
        bias = (gain[t] * abar[t].sqrt() - 1) * x + shift[t]
        return bias.square().sum(-1) + x.shape[1] * gain[t].double() ** 2 * (1 - abar[t])

    scale = program.log_scale.double().exp()
    log_scale = math.log(2 * math.pi) / 2 + scale.log()
    last = abar[total]
    prior = 0.5 * (last * x.square() + (1 - last) - 1 - (1 - last).log()).sum(-1)
    snr = abar / (1 - abar)
    return {
        "reconstruction": x.shape[1] * log_scale + error(1) / (2 * scale**2),
        "prior_matching": prior,
        "denoising_matching": sum(
            0.5 * (snr[t - 1] - snr[t]) * error(t) for t in range(2, total + 1)
        ),
    }


def draws(objective, x, count: int, elbo=None) -> torch.Tensor:
    if elbo is not None:
        form = objective.program
        return torch.tensor([elbo.loss(form.model, form.guide, x) / len(x) for _ in range(count)])
    with torch.no_grad():
        return torch.stack([objective(x)[0] for _ in range(count)])


def agrees(values: torch.Tensor, expected: float) -> None:
    """The mean within 4.5 standard errors, and the standard error small enough to tell."""
    values = values.double()
    error = float(values.std() / len(values) ** 0.5)
    assert error < 0.05 * abs(expected)
    assert abs(float(values.mean()) - expected) < 4.5 * error + 1e-4


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("schedule", "predict"),
    [("linear", predict) for predict in PREDICTIONS] + [("cosine", "v"), ("cosine", "x0")],
)
def test_all_programs_have_one_elbo(form: str, schedule: str, predict: str):
    torch.manual_seed(0)
    program, x = linear(schedule, predict), data()
    expected = float(sum(exact_terms(program, x).values()).mean())
    many, count = (x, 400) if form == "shared" else (x.repeat(40, 1), 20)
    agrees(draws(ELBO(program.form(form)).eval(), many, count), expected)


def test_each_term_has_its_value_and_title():
    torch.manual_seed(0)
    program, x = linear(), data()
    (objective,) = program.objectives().values()
    assert isinstance(objective, DiffusionELBO)
    with torch.no_grad():
        runs = [objective(x.repeat(40, 1)) for _ in range(300)]
    expected = {key: value.mean().item() for key, value in exact_terms(program, x).items()}
    assert set(runs[0][1]) == set(expected)
    for title, value in expected.items():
        agrees(torch.stack([terms[title] for _, terms in runs]), value)
    loss, terms = runs[0]
    torch.testing.assert_close(loss, sum(terms.values()))
    # What the collapsed program draws from one law in model and guide costs nothing at all.
    _, terms = ELBO(program)(x)
    for site in ("t", "x_t"):
        assert terms[f"kl/{site}"] == 0


def test_the_first_form_varies_more_than_the_second_and_a_shared_t_more_than_one_each():
    torch.manual_seed(0)
    program, x = linear(), data()
    spread = {form: draws(ELBO(program.form(form)).eval(), x, 100).std() for form in FORMS}
    assert spread["first"] > 2 * spread["collapsed"]
    assert spread["shared"] > 3 * spread["collapsed"]


def test_each_consistency_term_varies_more_than_each_denoising_term():
    """Over the whole chain too, though there the sum of all terms is that of the second form."""
    torch.manual_seed(0)
    program, x = linear(), data()
    spread = {}
    for form in ("chain", "forward"):
        objective = ELBO(program.form(form)).eval()
        with torch.no_grad():
            terms = [objective(x)[1] for _ in range(150)]
        spread[form] = {t: torch.stack([one[f"kl/x_{t}"] for one in terms]).std() for t in (2, 3)}
    for t in (2, 3):
        assert spread["forward"][t] > 2 * spread["chain"][t]


def test_the_forward_guide_has_the_law_of_the_backward_one():
    """One joint law of (x_1, ..., x_T) given x_0: mean and covariance of the draws of both."""
    torch.manual_seed(0)
    program, x = linear(), data(1).expand(40_000, -1)
    moments = []
    for guide in (program.chain_guide, program.forward_guide):
        trace = pyro.poutine.trace(guide).get_trace(x)
        chain = torch.stack([trace.nodes[f"x_{t}"]["value"][:, 0] for t in range(1, T + 1)])
        moments.append((chain.mean(1), chain.cov()))
    signal, noise = scales(program.schedule.at_step(torch.arange(1, T + 1)), torch.zeros(T))
    mean = signal * x[0, 0]
    # cov(x_s, x_t) = signal_t / signal_s (1 - abar_s) for s <= t.
    covariance = torch.outer(noise**2 / signal, signal)
    covariance = covariance.triu() + covariance.triu(1).T
    for found_mean, found in moments:
        torch.testing.assert_close(found_mean, mean, rtol=0, atol=0.03)
        torch.testing.assert_close(found, covariance, rtol=0, atol=0.03)


def test_averaging_a_consistency_term_over_x_t_with_its_successor_fixed_is_another_number():
    """Why the first form has no closed form: x_{t+1} is drawn from x_t."""
    torch.manual_seed(0)
    program, x = linear(), data(1).expand(20_000, -1)
    trace = pyro.poutine.trace(program.forward_guide).get_trace(x)
    x_2, x_3, x_4 = (trace.nodes[f"x_{t}"]["value"] for t in (2, 3, 4))
    three, four = torch.tensor(3), torch.tensor(4)
    q, p = program.forward_step(x_2, three), program.reverse_step(x_4, four, None)
    right = q.log_prob(x_3) - p.log_prob(x_3)
    wrong = torch.distributions.kl_divergence(q, p)
    error = (right.std() + wrong.std()) / 20_000**0.5
    assert (wrong.mean() - right.mean()).abs() > 10 * error


@pytest.mark.parametrize("form", FORMS)
def test_pyros_own_elbos_agree(form: str):
    """Trace_ELBO gives the same number under one seed; TraceMeanField_ELBO the same mean."""
    program, x = linear(), data()
    expected = float(sum(exact_terms(program, x).values()).mean())
    view = program.form(form)
    objective = ELBO(view, analytic_kl=False).eval()
    torch.manual_seed(5)
    own = objective(x)[0].item()
    torch.manual_seed(5)
    assert Trace_ELBO().loss(view.model, view.guide, x) / len(x) == pytest.approx(own, rel=2e-5)
    torch.manual_seed(0)
    many, count = (x, 400) if form == "shared" else (x.repeat(20, 1), 40)
    agrees(draws(objective, many, count, Trace_ELBO()), expected)
    if form not in ("first", "forward"):  # these run the other way round: no mean field
        agrees(draws(objective, many, count, TraceMeanField_ELBO()), expected)


@pytest.mark.parametrize("timesteps", [1, 2, 3])
def test_the_shortest_chains(timesteps: int):
    torch.manual_seed(0)
    schedule = LinearSchedule(timesteps, 0.5, 0.6)
    gain, shift = torch.linspace(0.9, 0.5, timesteps + 1), torch.zeros(timesteps + 1)
    network = LinearDenoiser(schedule, "x0", gain, shift)
    program = Diffusion((D,), schedule=schedule, predict="x0", network=network).eval()
    program.requires_grad_(False)
    x = data()
    terms = exact_terms(program, x, gain, shift)
    expected = float(sum(terms.values()).mean())
    for form in FORMS:
        agrees(draws(ELBO(program.form(form)).eval(), x.repeat(20, 1), 40), expected)
    agrees(-torch.stack([program.log_prob(x).mean() for _ in range(300)]), expected)


def gaussian(total: int, spread: float) -> tuple[Diffusion, torch.Tensor, torch.Tensor]:
    """The exact denoiser E[x_0 | x_t] of x_0 ~ N(0, spread^2), log SNR from 2 to -9 in T steps."""
    schedule = TableSchedule(torch.sigmoid(torch.linspace(2.0, -9.0, total, dtype=torch.float64)))
    signal, noise = scales(schedule.at_step(torch.arange(total + 1)), torch.zeros(total + 1))
    gain = spread**2 * signal / (spread**2 * signal**2 + noise**2)
    shift = torch.zeros(total + 1)
    network = LinearDenoiser(schedule, "v", gain, shift)
    program = Diffusion((1,), schedule=schedule, predict="v", network=network).eval()
    program.requires_grad_(False)
    # p(x | x_1) has the variance of x_0 given x_1.
    variance = spread**2 * noise[1] ** 2 / (spread**2 * signal[1] ** 2 + noise[1] ** 2)
    program.log_scale.fill_(0.5 * math.log(variance))
    return program, gain, shift


def test_for_gaussian_data_the_elbo_meets_the_likelihood_as_t_grows():
    """E ELBO rises to E log p(x) between fixed ends of log SNR, at the rate 1/T."""
    torch.manual_seed(0)
    spread = 0.5
    x = torch.randn(4000, 1) * spread
    truth = torch.distributions.Normal(0.0, spread).log_prob(x).squeeze(1).double()
    gaps = {}
    for total in (8, 32, 128, 512):
        program, gain, shift = gaussian(total, spread)
        bound = -sum(exact_terms(program, x, gain, shift).values())
        gaps[total] = float((truth - bound).mean())
        if total <= 128:  # the program itself: all T terms, then three of them
            agrees(-program.log_prob(x, num_particles=total), float(-bound.mean()))
        few = [program.log_prob(x, num_particles=3).mean() for _ in range(40)]
        agrees(-torch.stack(few), float(-bound.mean()))
    for total in (8, 32, 128):
        assert gaps[total] > 3 * gaps[4 * total] > 0
    assert gaps[512] < 5e-3


def test_log_prob_is_unbiased_for_each_example_and_more_steps_vary_less():
    torch.manual_seed(0)
    program, x = linear(), data(6)
    expected = -sum(exact_terms(program, x).values())
    spread = []
    for particles in (1, 2, T - 1, 50):
        runs = [program.log_prob(x.repeat(500, 1), num_particles=particles) for _ in range(20)]
        values = torch.cat(runs).view(-1, 6).double()  # (10000, 6)
        error = values.std(0) / len(values) ** 0.5
        assert ((values.mean(0) - expected).abs() < 4.5 * error).all()
        spread.append(values.std(0).mean().item())
    assert spread[0] > 1.1 * spread[1] > 1.1 * spread[2]
    assert spread[3] == pytest.approx(spread[2], rel=0.1)  # no more than T - 1 terms there are


def test_importance_weighting_is_refused():
    program, x = linear(), data()
    with pytest.raises(ValueError, match=r"refused to Diffusion: .* is the variational bound"):
        ImportanceWeightedELBO(program)(x)
    with pytest.raises(ValueError, match="num_particles must be 1 or more"):
        program.log_prob(x, num_particles=0)


def test_times_are_uniform_and_spread_over_the_batch():
    torch.manual_seed(0)
    law = SpreadTimes(8)
    drawn = law.sample((20_000,))
    assert drawn.shape == (20_000, 8)
    steps = step_at(drawn, 2, 5)
    counts = torch.stack([(steps == k).float().mean(0) for k in range(2, 6)])
    torch.testing.assert_close(counts, torch.full((4, 8), 0.25), rtol=0, atol=0.02)
    for row in steps[:50]:  # eight examples, four steps: twice each
        assert torch.bincount(row, minlength=6).tolist() == [0, 0, 2, 2, 2, 2]
    assert torch.equal(law.log_prob(drawn[0]), torch.zeros(8))
    assert law.support.check(drawn).all()
    ends = torch.tensor([0.0, 0.2499, 0.25, 1.0 - 1e-7, 1.0])
    assert step_at(ends, 2, 5).tolist() == [2, 2, 3, 5, 5]


class Network(nn.Module):
    """A small denoiser for images and vectors, with a class and with dropout."""

    def __init__(self, shape: tuple[int, ...], classes: int | None = None) -> None:
        super().__init__()
        size = math.prod(shape)
        self.first, self.last = nn.Linear(size + 1, 16), nn.Linear(16, size)
        self.drop = nn.Dropout(0.1)
        self.classes = nn.Embedding(classes + 1, 16) if classes else None

    def forward(self, x, t, y=None):
        hidden = self.first(torch.cat([x.flatten(1), t[:, None]], 1))
        if self.classes is not None:
            hidden = hidden + self.classes(y)
        return self.last(self.drop(torch.tanh(hidden))).view(x.shape)


def small(levels: int | None = None, classes: int | None = None, **arguments) -> Diffusion:
    torch.manual_seed(0)
    shape = (1, 4, 4)
    arguments = {"timesteps": 20, "schedule": "cosine"} | arguments
    network = Network(shape, classes)
    return Diffusion(shape, network=network, levels=levels, num_classes=classes, **arguments)


def images(n: int, levels: int | None, classes: int | None, seed: int = 1) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    if levels is None:
        x = torch.randn(n, 1, 4, 4, generator=generator)
    else:
        x = torch.randint(levels, (n, 1, 4, 4), generator=generator) / (levels - 1)
    return (x,) if classes is None else (x, torch.arange(n) % classes)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("predict", PREDICTIONS)
@pytest.mark.parametrize("weighting", ["elbo", "simple", "min_snr"])
def test_compiled_equals_plain(weighting: str, predict: str, training: bool):
    levels = {"noise": None, "v": 2, "x0": 256, "mean": 16, "score": 2}[predict]
    program = small(levels, 3, predict=predict, weighting=weighting)
    (objective,) = program.objectives().values()
    batches = [images(n, levels, 3, seed=n) for n in (5, 5, 3)]
    compiled = check_equal(objective, batches, training)
    assert compiled.mode == "trace" and compiled.reason is None
    assert len(compiled.graphs) == 2


@pytest.mark.parametrize("form", FORMS)
def test_every_program_compiles(form: str):
    program = small(2, timesteps=4)
    compiled = check_equal(ELBO(program.form(form)), [images(5, 2, None)] * 2, training=True)
    assert compiled.mode == "trace"


@pytest.mark.parametrize("levels", [None, 2, 256])
def test_gradients_reach_every_parameter(levels):
    program = small(levels, 3)
    objective = ELBO(program)
    sum(objective(*images(30, levels, 3))[0] for _ in range(3)).backward()
    for name, parameter in program.named_parameters():
        assert parameter.grad.abs().max() > 1e-6, name


@pytest.mark.parametrize("levels", [2, 3, 256])
def test_the_reconstruction_is_a_probability_of_levels(levels: int):
    program = small(levels)
    with torch.no_grad():
        program.log_scale.add_(torch.randn(levels))
    x0 = torch.randn(7, 1, 4, 4)
    law = program.observation(x0)
    assert law.batch_shape == (7,) and law.support.is_discrete
    values = torch.linspace(0, 1, levels).view(-1, 1, 1, 1, 1).expand(-1, 7, 1, 4, 4)
    total = law.base_dist.log_prob(values).exp().sum(0)
    torch.testing.assert_close(total, torch.ones(7, 1, 4, 4), rtol=1e-4, atol=1e-4)
    # Where the network sees a level well, that level has a scale of its own.
    black = program.observation(torch.full((1, 1, 4, 4), -1.0)).base_dist.log_scale
    floor = -math.log(levels) - 4
    expected = floor + torch.log1p(torch.exp(program.log_scale[0] - floor))
    torch.testing.assert_close(black, expected.expand(1, 1, 4, 4))


def test_data_are_scaled_inside_the_model():
    program = small(256)
    x = torch.tensor([0.0, 0.5, 1.0])
    torch.testing.assert_close(program.scaled(x), torch.tensor([-1.0, 0.0, 1.0]))
    assert small().scaled(x) is x


@pytest.mark.parametrize(("weighting", "limit"), [("simple", math.inf), ("min_snr", 5.0)])
@pytest.mark.parametrize("predict", PREDICTIONS)
def test_other_weights_are_those_of_their_papers(weighting: str, limit: float, predict: str):
    """E ||eps_hat - eps||^2 min(1, limit / SNR), its mean over the steps in closed form."""
    torch.manual_seed(0)
    program, x = linear(predict=predict, weighting=weighting), data()
    (objective,) = program.objectives().values()
    assert isinstance(objective, DenoisingLoss)
    objective.eval()
    signal, noise = scales(program.schedule.at_step(torch.arange(1, T + 1)), torch.zeros(T))
    snr = (signal / noise) ** 2
    bias = (GAIN[1:] * signal - 1)[:, None, None] * x + SHIFT[1:, None, None]
    error = bias.square().sum(-1) + D * (GAIN[1:] ** 2 * noise**2)[:, None]
    expected = (snr.clamp(max=limit)[:, None] * error).mean().item()
    with torch.no_grad():
        runs = [objective(x.repeat(20, 1)) for _ in range(40)]
    agrees(torch.stack([loss for loss, _ in runs]), expected)
    for title, value in exact_terms(program, x).items():
        rows = value[:40] if title == "reconstruction" else value  # a thirty-second of the batch
        agrees(torch.stack([terms[title] for _, terms in runs]), rows.mean().item())


def test_other_weights_train_the_network_by_the_error_alone_and_the_scales_too():
    program = small(2)
    objective = DenoisingLoss(program).eval()
    torch.manual_seed(1)
    objective(*images(8, 2, None))[0].backward()
    assert program.log_scale.grad.abs().max() > 1e-6
    found = program.network.last.weight.grad.clone()
    program.zero_grad()
    with torch.no_grad():
        program.log_scale.add_(3.0)
    torch.manual_seed(1)
    objective(*images(8, 2, None))[0].backward()
    torch.testing.assert_close(program.network.last.weight.grad, found)


def test_labels_are_left_out_in_training_alone():
    program = small(None, 3, label_dropout=0.25)
    x, y = images(6000, None, 3)
    kept = program.train().label(x, y)
    share = (kept == 3).float().mean().item()
    assert share == pytest.approx(0.25, abs=0.03)
    assert torch.equal(kept[kept != 3], y[kept != 3])
    assert program.eval().label(x, y) is y
    program.eval()
    with torch.no_grad():
        torch.manual_seed(0)
        first = program.log_prob(x[:9], y[:9], num_particles=50)
        torch.manual_seed(0)
        second = program.log_prob(x[:9], (y[:9] + 1) % 3, num_particles=50)
    assert ((first - second).abs() > 1e-4).all()


@pytest.mark.parametrize("predict", PREDICTIONS)
def test_the_denoiser_is_what_the_chain_sees(predict: str):
    program = small(None, 3, predict=predict).eval()
    x, y = images(6, None, 3)
    with torch.no_grad():
        for t in (1, 2, 10, 20):
            expected = program.x0_at(x, torch.full((6,), t), y)
            found = program.denoiser(y)(x, torch.full((6,), t / 20))
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
        t = torch.full((6,), 0.5)
        nothing = program.x0_at(x, torch.full((6,), 10), torch.full((6,), 3))
        once = program.x0_at(x, torch.full((6,), 10), y)
        guided = program.denoiser(y, guidance=2.5)(x, t)
        torch.testing.assert_close(guided, nothing + 2.5 * (once - nothing), rtol=1e-3, atol=1e-3)


def test_samples_by_every_way_have_the_units_of_the_data():
    program = small(4, 3, predict="x0")
    y = torch.tensor([0, 1, 2])
    drawn = program.sample(3, y)
    assert drawn.shape == (3, 1, 4, 4)
    torch.testing.assert_close(drawn * 3, (drawn * 3).round())
    mean = program.sample(3, y, mean=True, sampler="ddim", steps=5, guidance=2.0)
    assert ((mean >= 0) & (mean <= 1)).all() and not torch.equal(mean * 3, (mean * 3).round())
    known, mask = torch.full((3, 1, 4, 4), 1 / 3), torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[:, :2] = True
    whole = program.sample(3, y, known=known, mask=mask, resample=2)
    assert torch.equal(whole[:, :, :2], known[:, :, :2])
    assert len(whole[:, :, 2:].unique()) > 1
    assert small().sample(2).isfinite().all()


class GaussianDenoiser(nn.Module):
    """E[x_0 | x_t] of x_0 ~ N(0, spread^2) times a factor, told the share of the schedule's way."""

    def __init__(self, schedule, spread: float, factor: float) -> None:
        super().__init__()
        self.ends = schedule.log_snr(torch.tensor([0.0, 1.0])).tolist()
        self.spread, self.factor = spread, factor

    def forward(self, x, t):
        log_snr = self.ends[0] + t * (self.ends[1] - self.ends[0])
        signal, noise = scales(log_snr, x)
        gain = self.spread**2 * signal / (self.spread**2 * signal**2 + noise**2)
        return self.factor * gain * x


def learned(factor: float = 1.0, spread: float = 0.5) -> Diffusion:
    torch.manual_seed(0)
    schedule = LearnedSchedule(highest=6.0, lowest=-6.0, hidden=32)
    with torch.no_grad():
        schedule.raw_weights.add_(torch.randn(2, 32) + 1)  # no straight line
    network = GaussianDenoiser(schedule, spread, factor)
    program = Diffusion((1,), schedule=schedule, predict="x0", network=network).eval()
    with torch.no_grad():  # the scale of x_0 given x_0 signal + noise eps at t = 0
        program.log_scale.fill_(-0.5 * math.log(spread**-2 + math.exp(6.0)))
    return program


def test_in_continuous_time_the_bound_is_the_likelihood_of_gaussian_data():
    """With the exact denoiser nothing is lost but the prior matching; program and log_prob agree.

    A denoiser wrong by a factor loses (1/2) times the integral of E (x_0_hat - E[x_0 | x_t])^2 over
    the SNR, here known in closed form.
    """
    spread = 0.5
    x = torch.randn(8000, 1, generator=torch.Generator().manual_seed(0)) * spread
    truth = torch.distributions.Normal(0.0, spread).log_prob(x).mean().item()
    # The numbers of the two ends, e^6 and e^-6, and s^2 SNR / (1 + s^2 SNR) = power of the mean.
    power = [spread**2 * math.exp(end) for end in (6.0, -6.0)]
    # E gain^2 x_t^2 = s^2 r / (1 + r), r = s^2 SNR; integrated over SNR: r - log(1 + r).
    integral = (power[0] - math.log1p(power[0])) - (power[1] - math.log1p(power[1]))
    for factor in (1.0, 0.98):
        program = learned(factor)
        last = 1 / (1 + math.exp(6.0))  # abar at t = 1
        prior = 0.5 * (last * spread**2 + (1 - last) - 1 - math.log(1 - last))
        first = power[0] / (1 + power[0]) * spread**2  # E x_0_hat^2 at t = 0
        variance = spread**2 / (1 + power[0])
        missing = (1 - factor) ** 2 * (0.5 * integral + 0.5 * first / variance)
        # Exact: what the prior N(0, I) misses of q(x_T), a little less than its KL given x.
        marginal = last * spread**2 + 1 - last
        gap = 0.5 * (marginal - 1 - math.log(marginal))
        expected = -truth + gap + missing
        assert prior >= gap
        objective = ELBO(program).eval()
        agrees(draws(objective, x, 40), expected)
        with torch.no_grad():
            agrees(-torch.stack([program.log_prob(x).mean() for _ in range(20)]), expected)
            agrees(-program.log_prob(x, num_particles=30), expected)


def test_the_shape_of_a_schedule_is_trained_by_the_variance_alone():
    """Its gradient is that of log E loss^2, by finite differences of an integral over t."""
    torch.manual_seed(0)
    schedule = LearnedSchedule(highest=6.0, lowest=-6.0, hidden=8).double()
    with torch.no_grad():
        schedule.raw_weights.add_(torch.randn(2, 8) + 1)
    t = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000

    def loss() -> torch.Tensor:
        """s(t) F(log SNR(t)) for some F of log SNR alone."""
        log_snr = schedule.log_snr(t)
        return schedule.slope(t) * (1.0 + torch.sigmoid(log_snr - 1.0) + 0.1 * log_snr.square())

    with torch.no_grad():
        value = loss()
    schedule_loss(schedule, t, value).backward()
    for name in ("raw_weights", "biases", "raw_first"):
        parameter = getattr(schedule, name)
        flat, found = parameter.data.view(-1), parameter.grad.view(-1)
        for index in range(0, len(flat), 3):
            kept, ends, means = flat[index].item(), [], []
            for step in (1e-4, -1e-4):
                flat[index] = kept + step
                with torch.no_grad():
                    ends.append(loss().square().mean().log().item())
                    means.append(loss().mean().item())
            flat[index] = kept
            expected = (ends[0] - ends[1]) / 2e-4
            assert found[index].item() == pytest.approx(expected, rel=1e-3, abs=1e-6)
            assert means[0] == pytest.approx(means[1], rel=1e-6)  # the bound stays
    assert found.abs().max() > 1e-3


def test_training_a_schedule_lowers_the_variance_and_moves_only_what_it_should():
    program = learned(0.8)
    program.requires_grad_(False)
    (objective,) = program.objectives().values()
    assert isinstance(objective, DiffusionELBO)
    schedule = program.schedule
    shape = [schedule.raw_weights, schedule.biases, schedule.raw_first]
    for parameter in shape:
        parameter.requires_grad_(True)
    x = torch.randn(500, 1) * 0.5

    def spread() -> tuple[float, float]:
        with torch.no_grad():
            t = torch.rand(50_000)
            many = x.repeat(100, 1)
            continuous = program._continuous()
            x_t = program.noised_at(many, continuous.log_snr(t)).sample()
            error = (continuous.x0_at(x_t, t, None) - many).square().sum(1)
            loss = 0.5 * continuous.rate(t) * error
            return loss.mean().item(), loss.std().item()

    before = spread()
    optimiser = torch.optim.Adam(shape, lr=0.05)
    for _ in range(150):
        optimiser.zero_grad()
        objective(x)[0].backward()
        optimiser.step()
    after = spread()
    assert after[0] == pytest.approx(before[0], rel=0.1)
    assert after[1] < 0.8 * before[1]


def test_a_learned_schedule_compiles_trains_and_samples():
    program = small(4, 3, schedule="learned", predict="v")
    with torch.no_grad():
        program.log_scale.add_(5.0)  # four levels are too sure at first for a gradient
    (objective,) = program.objectives().values()
    compiled = check_equal(objective, [images(5, 4, 3, seed=n) for n in (1, 2)], training=True)
    assert compiled.mode == "trace"
    for name, parameter in objective.named_parameters():
        assert parameter.grad.abs().max() > 1e-8, name
    drawn = program.sample(3, torch.tensor([0, 1, 2]), steps=10, guidance=2.0)
    torch.testing.assert_close(drawn * 3, (drawn * 3).round())
    assert program.sample(1, torch.tensor([0])).shape == (1, 1, 4, 4)
    with pytest.raises(ValueError, match="no chain of steps"):
        ELBO(program.form("chain"))(*images(2, 4, 3))
    for arguments in ({"weighting": "simple"}, {"predict": "mean"}):
        with pytest.raises(ValueError, match="a learned schedule is trained by its bound"):
            Diffusion((2,), network="mlp", schedule="learned", **arguments)


CENTRES, WIDTH = torch.tensor([[1.0, -0.5], [-1.0, 0.5]]), 0.2


class ExactMixture(nn.Module):
    """E[x_0 | x_t] of two Gaussian clouds of one width."""

    def __init__(self, schedule) -> None:
        super().__init__()
        self.schedule = schedule

    def forward(self, x, t):
        signal, noise = self.schedule.signal(t)[:, None], self.schedule.noise(t)[:, None]
        variance = (signal * WIDTH) ** 2 + noise**2
        far = x[:, None] - signal[..., None] * CENTRES  # (n, 2, 2): to each centre
        share = (-far.square().sum(-1) / (2 * variance)).softmax(-1)[..., None]
        return (share * (CENTRES + (signal * WIDTH**2 / variance)[..., None] * far)).sum(1)


def test_it_learns_a_mixture_of_two_clouds():
    """The bound comes near that of the exact denoiser, and samples are of both clouds."""
    torch.manual_seed(0)
    x = CENTRES[torch.arange(2000) % 2] + WIDTH * torch.randn(2000, 2)
    # Between the ends of log SNR that matter, so that the bound is near the truth as well.
    schedule = TableSchedule(torch.sigmoid(torch.linspace(5.0, -7.0, 50)))
    program = Diffusion((2,), schedule=schedule, predict="v", network="mlp", hidden=(64, 64))
    data = Dataset.from_tensors(x, x)
    run = fit(program, data, steps=700, batch_size=200, lr=4e-3, progress=False)
    program = run.program.eval()
    exact = Diffusion((2,), schedule=schedule, predict="x0", network=ExactMixture(schedule))
    with torch.no_grad():
        exact.log_scale.copy_(program.log_scale)
        bound, best = (each.log_prob(x, num_particles=49).mean() for each in (program, exact))
    truth = -math.log(2) - math.log(2 * math.pi * math.e * WIDTH**2)
    assert best - 0.15 < bound < truth + 0.05
    assert truth - 0.4 < best
    drawn = program.sample(400)
    near = (drawn[:, None] - CENTRES).norm(dim=-1).min(1)
    assert near.values.square().mean().item() == pytest.approx(2 * WIDTH**2, rel=0.4)
    assert near.indices.float().mean().item() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"timesteps": 0}, "timesteps must be 1 or more; got 0"),
        ({"schedule": "cosin"}, "schedule must be one of"),
        ({"predict": "nois"}, "predict must be one of"),
        ({"weighting": "simpel"}, "weighting must be one of"),
        ({"network": "unett"}, "network must be one of"),
        ({"label_dropout": 1.0}, "label_dropout must be at least 0 and below 1"),
        ({"levels": 1}, "levels must be 2 or more"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_is_refused(arguments: dict, words: str):
    with pytest.raises(ValueError, match=words):
        Diffusion((2,), **{"network": "mlp", **arguments})


def test_a_schedule_is_a_table_or_learned():
    with pytest.raises(TypeError, match="schedule must be a name, a TableSchedule"):
        Diffusion((2,), network="mlp", schedule=nn.Linear(1, 1))


def test_labels_that_cannot_be_are_refused():
    program, x = small(None, 3), images(2, None, None)[0]
    with pytest.raises(ValueError, match="labels y needed"):
        program.model(x)
    with pytest.raises(ValueError, match="labels y needed"):
        program.log_prob(x)
    with pytest.raises(ValueError, match="out of range"):
        program.log_prob(x, torch.tensor([0, 7]))
    with pytest.raises(ValueError, match="out of range"):
        program.denoiser(torch.tensor([-1, 0]))
    with pytest.raises(ValueError, match="guidance needs labels"):
        small().denoiser(guidance=2.0)
    with pytest.raises(ValueError, match="without num_classes"):
        small().denoiser(torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="form must be one of"):
        program.form("frist")
    with pytest.raises(ValueError, match="limit must be positive"):
        DenoisingLoss(program, limit=0.0)


def labelled(**arguments) -> Diffusion:
    torch.manual_seed(0)
    given = {"levels": 3, "timesteps": 5, "network": "mlp", "hidden": (8,), "num_classes": 4}
    return Diffusion((1, 2, 3), **{**given, **arguments})


def test_what_would_give_a_wrong_number_is_refused():
    program, x, y = labelled(), torch.ones(2, 1, 2, 3), torch.tensor([0, 3])
    assert program.log_prob(x, y).shape == (2,)
    refused = {
        r"expected examples of shape \(1, 2, 3\); got \(1, 3, 2\)": lambda: program.log_prob(
            x.transpose(2, 3), y
        ),
        "expected a label for each of 2 examples; got 1": lambda: program.log_prob(x, y[:1]),
        "labels y needed": lambda: program.ode_terms(x),
        "labels y must be 0 to 3; got 4": lambda: program.log_prob(x, y + 1),
        "in the units of the data.*to 255": lambda: program.sample(
            2, y, known=255 * x, mask=x > 0, steps=2
        ),
        "label_dropout=0": lambda: labelled(label_dropout=0.0).sample(2, y, guidance=3.0),
        "refused to Diffusion": lambda: PyroObjective(program, RenyiELBO(alpha=0.0))(x, y),
        "refused to Form": lambda: ImportanceWeightedELBO(program.form("first"))(x, y),
    }
    for message, call in refused.items():
        with pytest.raises(ValueError, match=message):
            call()


def test_scoring_draws_no_label_dropout():
    """In training mode too: the draws of a score are those of evaluation mode."""
    program, x, y = labelled(), torch.ones(2, 1, 2, 3), torch.tensor([0, 3])
    found = []
    for mode in (True, False):
        torch.manual_seed(1)
        found.append(program.train(mode).log_prob(x, y, num_particles=4))
    assert torch.equal(*found)


def test_a_seed_determines_a_draw():
    program = labelled(num_classes=None)
    torch.manual_seed(1)
    first = program.sample(4, seed=7)
    torch.manual_seed(2)
    assert torch.equal(first, program.sample(4, seed=7))
    assert not torch.equal(first, program.sample(4, seed=8))


def test_a_diverged_network_is_named_by_its_term():
    program = labelled(num_classes=None)
    x = torch.randint(3, (32, 1, 2, 3)).float() / 2
    with pytest.raises(FloatingPointError, match="the loss is not finite at step"):
        fit(
            program,
            Dataset.from_tensors(x, levels=3),
            steps=60,
            batch_size=16,
            lr=1e12,
            schedule="constant",
            progress=False,
        )
