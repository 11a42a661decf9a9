"""Generative adversarial networks: the game's closed forms, its players, and what is refused."""

import copy
import math

import pyro
import pytest
import torch
from pyro import poutine
from torch import nn
from torch.nn import functional as F

from ppgen import Dataset, fit, load
from ppgen.compile import Compiled
from ppgen.models.gan import GAN
from ppgen.models.gan_figures import interpolation, spherical
from ppgen.models.gan_objectives import discriminator_loss, generator_loss
from ppgen.program import draw, log_prob
from ppgen.sites import isolated

LOSSES = ("minimax", "nonsaturating", "wasserstein_gp", "hinge")


def small(shape=(2,), **arguments) -> GAN:
    torch.manual_seed(0)
    return GAN(shape, **({"latent_dim": 3, "hidden": (8, 8), "channels": 4} | arguments))


def images(n=6, shape=(3, 9, 8), classes=None):
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(256, (n, *shape), generator=generator) / 255
    return (x,) if classes is None else (x, torch.arange(n) % classes)


class Parts(nn.Module):
    def __init__(self, generator, discriminator):
        super().__init__()
        self.generator, self.discriminator = generator, discriminator


class Shift(nn.Module):
    """G(z) = z + shift."""

    def __init__(self, shift: float):
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(shift))

    def forward(self, z):
        return z + self.shift


# The game ------------------------------------------------------------------------------------


def test_losses_are_their_formulas():
    real, fake = torch.tensor([1.5, -0.3]), torch.tensor([-2.0, 0.7, 0.1])
    d, e = real.sigmoid(), fake.sigmoid()
    value = d.log().mean() + (1 - e).log().mean()
    expected = {
        "minimax": (-value, (1 - e).log().mean()),
        "nonsaturating": (-value, -e.log().mean()),
        "wasserstein_gp": (fake.mean() - real.mean(), -fake.mean()),
        "hinge": ((0 + 1.3) / 2 + (0 + 1.7 + 1.1) / 3, -fake.mean()),
    }
    for loss in LOSSES:
        found = discriminator_loss(loss, real, fake), generator_loss(loss, fake)
        for one, other in zip(found, expected[loss], strict=True):
            torch.testing.assert_close(one, torch.as_tensor(other), rtol=1e-6, atol=1e-6)


def test_a_trained_discriminator_is_the_ratio_of_densities_and_its_value_the_divergence():
    """D* = p / (p + q) and V(D*) = -log 4 + 2 JS for p = N(0, 1), q = N(2, 1), by quadrature."""
    line = torch.linspace(-8, 10, 3001, dtype=torch.float64)
    p, q = torch.distributions.Normal(0, 1), torch.distributions.Normal(2, 1)
    log_p, log_q = p.log_prob(line), q.log_prob(line)
    middle = torch.logaddexp(log_p, log_q) - math.log(2)
    js = 0.5 * torch.trapezoid(
        log_p.exp() * (log_p - middle) + log_q.exp() * (log_q - middle), line
    )
    x = torch.randn(20_000, 1)
    data = Dataset.from_tensors(x, x[:4000], x[:100])
    network = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1))
    program = GAN((1,), latent_dim=1, network=Parts(Shift(2.0), network), loss="minimax")
    objective = program.objectives()["discriminator"]
    options = {"steps": 250, "batch_size": 500, "lr": 0.02, "ema": 0, "progress": False}
    run = fit(program, data, objective=objective, device="cpu", **options)
    assert program.generator.shift == 2.0  # the other player stood still
    with torch.no_grad():
        found = program.judge(line.float()[:, None], None)[:, 0].sigmoid().double()
    best = torch.sigmoid(log_p - log_q)
    weight = 0.5 * (log_p.exp() + log_q.exp())
    assert torch.trapezoid(weight * (found - best).abs(), line) < 0.015
    with torch.no_grad():
        loss, terms = objective.eval()(torch.randn(100_000, 1))
    assert -loss.item() == pytest.approx(-math.log(4) + 2 * js.item(), abs=0.015)
    assert terms["jensen_shannon"].item() == pytest.approx(js.item(), abs=0.008)
    assert run.metrics[-1]["jensen_shannon"] < math.log(2)


@pytest.mark.parametrize("loss", ["minimax", "nonsaturating"])
@pytest.mark.parametrize("shift", [0.5, 3.0, 6.0])
def test_gradients_of_the_generator_at_the_best_discriminator(loss, shift):
    """minimax: a E[D*], vanishing; non-saturating: a E[1 - D*], growing; x ~ N(a, 1)."""
    best = nn.Linear(1, 1)
    with torch.no_grad():  # logit of N(0, 1) against N(shift, 1)
        best.weight.fill_(-shift)
        best.bias.fill_(shift**2 / 2)
    program = GAN((1,), latent_dim=1, network=Parts(Shift(shift), best), loss=loss)
    value, _ = program.objectives()["generator"](torch.zeros(200_000, 1))
    value.backward()
    x = torch.linspace(shift - 10, shift + 10, 4001, dtype=torch.float64)
    density = torch.distributions.Normal(shift, 1.0).log_prob(x).exp()
    logit = shift**2 / 2 - shift * x
    weight = torch.sigmoid(logit if loss == "minimax" else -logit)
    expected = shift * torch.trapezoid(density * weight, x).item()
    assert program.generator.shift.grad.item() == pytest.approx(expected, rel=0.05, abs=1e-3)
    if shift == 6.0:
        assert expected < 0.02 if loss == "minimax" else expected > 5.9
    assert best.weight.grad is None


def test_the_penalised_critic_of_two_gaussians():
    """A linear critic w x: its loss -a w + k (|w| - 1)^2 is least at w = 1 + a / 2k."""
    x = torch.randn(20_000, 1)
    critic = nn.Linear(1, 1, bias=False)
    program = GAN(
        (1,), latent_dim=1, network=Parts(Shift(-3.0), critic), loss="wasserstein_gp",
        gradient_penalty=5.0,
    )  # fmt: skip
    fit(
        program, Dataset.from_tensors(x, x[:1000], x[:100]), steps=300, batch_size=2000, lr=0.05,
        ema=0, device="cpu", objective=program.objectives()["discriminator"], progress=False,
    )  # fmt: skip
    assert critic.weight.item() == pytest.approx(1 + 3.0 / 10, abs=0.02)
    objective = program.objectives()["discriminator"].eval()
    with torch.no_grad():
        _, terms = objective(x)
    assert terms["penalty"].item() == pytest.approx(5 * (critic.weight.item() - 1) ** 2, rel=1e-3)
    assert terms["distance"].item() == pytest.approx(3 * critic.weight.item(), rel=0.03)


# The players ---------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("network", ["mlp", "dcgan", "resnet"])
def test_each_player_has_its_own_parameters_and_moves_no_other(network, loss):
    program = small((3, 9, 8), network=network, loss=loss, num_classes=3, levels=256)
    batch = images(classes=3)
    players = []
    for name, objective in program.objectives().items():
        program.zero_grad()
        objective.prepare(*batch)
        sum(objective(*batch)[0] for _ in range(5)).backward()
        moved = {key for key, value in program.named_parameters() if value.grad is not None}
        assert moved == {key for key, _ in program.named_parameters() if key.startswith(name)}
        mine = {id(value) for key, value in program.named_parameters() if key in moved}
        assert {id(value) for value in objective.player()} == mine
        silent = {key for key in moved if program.get_parameter(key).grad.abs().max() < 1e-7}
        # the offset of a critic is lost in its difference of scores
        assert silent <= {"discriminator.head.score.bias"}, silent
        players.append(moved)
    assert players[0] | players[1] == {key for key, _ in program.named_parameters()}


@pytest.mark.parametrize(
    ("shape", "arguments"),
    [
        ((2,), {"loss": "minimax"}),
        ((2,), {"loss": "wasserstein_gp", "num_classes": 3}),
        ((3, 9, 8), {"network": "dcgan", "num_classes": 3, "levels": 256}),
        ((3, 9, 8), {"network": "dcgan", "spectral_norm": False, "normalise": "batch"}),
        ((3, 9, 8), {"network": "dcgan", "loss": "wasserstein_gp", "levels": 256}),
        ((3, 9, 8), {"network": "dcgan", "loss": "wasserstein_gp", "spectral_norm": True}),
        ((3, 9, 8), {"network": "resnet", "loss": "hinge", "num_classes": 3,
                     "augment": "colour,translation,cutout"}),
        ((3, 9, 8), {"network": "resnet", "loss": "wasserstein_gp", "num_classes": 3,
                     "augment": "translation"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("training", [True, False])
def test_traced_is_plain(shape, arguments, training):
    """Losses, terms, gradients and buffers; the penalty's inner gradient among them."""
    batch = images(shape=shape, classes=arguments.get("num_classes"))
    for name in ("discriminator", "generator"):
        objective = small(shape, **arguments).objectives()[name]
        objective.prepare(*batch)
        objective.train(training)
        twin = copy.deepcopy(objective)
        compiled = Compiled(twin).train(training)
        for seed in range(3):
            pair = []
            for one, call in ((objective, objective), (twin, compiled)):
                torch.manual_seed(seed)
                loss, terms = call(*batch)
                loss.backward()
                pair.append((loss.detach(), terms))
                with torch.no_grad():  # a graph must not have kept what changes
                    for parameter in one.player():
                        parameter += 0.03
            torch.testing.assert_close(pair[1], pair[0], rtol=1e-5, atol=1e-5)
        assert compiled.mode == "trace"
        for (name, mine), other in zip(
            twin.named_parameters(), objective.parameters(), strict=True
        ):
            assert (mine.grad is None) == (other.grad is None), name
            if mine.grad is not None:
                torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-5, msg=name)
        for mine, other in zip(twin.buffers(), objective.buffers(), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)
        with torch.no_grad():
            assert compiled(*batch)[0].isfinite()
            assert compiled.mode == "trace"


def test_each_player_has_its_steps_rates_and_averages():
    program = small(loss="wasserstein_gp", generator_lr_factor=0.5, discriminator_lr_factor=2.0)
    objectives = program.objectives()
    critic, generator = objectives["discriminator"], objectives["generator"]
    assert (critic.steps, critic.lr_factor, critic.betas) == (5, 2.0, (0.0, 0.9))
    assert (generator.steps, generator.lr_factor, generator.unit) == (1, 0.5, "score")
    assert small(loss="wasserstein_gp", discriminator_steps=2).discriminator_steps == 2
    plain = small().objectives()["discriminator"]
    assert (plain.steps, plain.betas, plain.unit) == (1, (0.5, 0.999), "nats")
    smooth = small((1, 8, 8), network="dcgan").objectives()["generator"]
    assert (smooth.betas, smooth.unit) == ((0.0, 0.9), "nats")


def test_the_projection_makes_scores_depend_on_the_label():
    program = small((1, 8, 8), network="dcgan", num_classes=3, levels=2)
    x = torch.randn(4, 1, 8, 8)
    h = program.discriminator.layers(x)
    head = program.discriminator.head
    y = torch.tensor([0, 1, 2, 1])
    label = program.label(x, y)
    weight = head.score.weight / torch.linalg.matrix_norm(head.score.weight, 2)
    table = head.embedding.weight / torch.linalg.matrix_norm(head.embedding.weight, 2)
    expected = (h * (weight + table.T[y])).sum(1) + head.score.bias
    torch.testing.assert_close(program.judge(x, label), expected, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(program.decode(torch.zeros(1, 3), y[:1]),
                              program.decode(torch.zeros(1, 3), y[1:2]))  # fmt: skip


# Use -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
def test_training_brings_draws_to_the_data(loss):
    torch.manual_seed(0)
    x = 0.3 * torch.randn(4000, 2) + torch.tensor([2.0, -1.0])
    data = Dataset.from_tensors(x, x[:200], x[:200])
    program = GAN((2,), latent_dim=2, hidden=(32,), loss=loss)
    turns = 100 if loss == "wasserstein_gp" else 300
    run = fit(
        program, data, steps=turns, batch_size=100, lr=5e-3, ema=0.9, warmup_steps=0, device="cpu",
        progress=False,
    )  # fmt: skip
    drawn = run.program.sample(2000)
    assert (drawn.mean(0) - x.mean(0)).norm() < 0.35
    assert (drawn.std(0) < 0.7).all()
    titles = {title for title in run.metrics[-1] if "/" in title}
    assert titles >= {"discriminator/loss", "discriminator/real", "generator/loss"}


def test_a_saved_run_draws_the_same(tmp_path):
    x, y = images(40, (1, 8, 8), classes=3)
    data = Dataset.from_tensors((x, y), (x[:8], y[:8]), (x[:8], y[:8]), levels=256)
    program = small((1, 8, 8), network="dcgan", num_classes=3, levels=256)
    options = {"steps": 3, "batch_size": 10, "device": "cpu", "progress": False}
    run = fit(program, data, out=tmp_path / "run", **options)
    again = load(tmp_path / "run", GAN)
    labels = torch.arange(5) % 3
    drawn = []
    for one in (run.program, again):
        torch.manual_seed(1)
        drawn.append(one.sample(5, labels))
    assert torch.equal(*drawn)
    assert ((drawn[0] * 255) % 1 < 1e-3).logical_or((drawn[0] * 255) % 1 > 0.999).all()
    assert drawn[0].min() >= 0 and drawn[0].max() <= 1
    torch.manual_seed(1)
    means = run.program.sample(5, labels, mean=True)
    torch.testing.assert_close(means, drawn[0], rtol=0, atol=0.5 / 255 + 1e-6)
    assert not torch.equal(means, drawn[0])


def test_the_program_is_a_prior_and_a_deterministic_site():
    program = small((1, 8, 8), network="dcgan", levels=256).eval()
    (x,) = images(4, (1, 8, 8))
    with isolated(), torch.no_grad():
        trace = poutine.trace(program.model).get_trace(x)
        z = trace.nodes["z"]["value"]
        assert torch.equal(trace.nodes["x"]["value"], program.decode(z))
        assert trace.nodes["z"]["fn"].event_shape == (3,)
        fixed = poutine.condition(program.model, data={"z": torch.zeros(4, 3)})
        again = poutine.trace(fixed).get_trace(x).nodes["x"]["value"]
    assert (again == again[0]).all()


def test_a_likelihood_is_refused_with_what_to_do_instead():
    program = small()
    with pytest.raises(ValueError, match=r"implicit.*no likelihood.*sampl"):
        log_prob(program, torch.randn(3, 2))
    with pytest.raises(ValueError, match="implicit"):
        program.log_prob(torch.randn(3, 2), num_particles=10)


def test_ways_between_latents():
    a, b = torch.randn(2, 5, 7)
    weight = torch.linspace(0, 1, 4)
    way = spherical(a, b, weight)
    torch.testing.assert_close(way[:, 0], a)
    torch.testing.assert_close(way[:, -1], b)
    a, b = (F.normalize(z, dim=-1) for z in (a, b))
    way = spherical(a, b, weight)
    torch.testing.assert_close(way.norm(dim=-1), torch.ones(5, 4))
    steps = (way[:, 1:] * way[:, :-1]).sum(-1).arccos()  # of equal angles
    torch.testing.assert_close(steps, steps[:, :1].expand_as(steps), rtol=1e-3, atol=1e-4)
    program = small((1, 8, 8), network="dcgan", num_classes=3, levels=2).eval()
    with torch.no_grad():
        assert interpolation(program, 4, 5).shape == (4, 5, 1, 8, 8)
        (figure,) = program.figures()
        assert figure.draw().startswith(b"\x89PNG")
    assert list(small().figures()) == []


@pytest.mark.parametrize("size", [(28, 28), (32, 32), (64, 64), (13, 22), (7, 40), (4, 4)])
@pytest.mark.parametrize("network", ["dcgan", "resnet"])
def test_images_of_any_size(network, size):
    program = small((1, *size), network=network, levels=256, channels=2)
    x = torch.rand(2, 1, *size)
    assert program.sample(2).shape == x.shape
    with torch.no_grad():
        assert program.judge(x, None).shape == (2,)


def test_the_network_that_suits_the_shape_is_the_default():
    names = {shape: type(GAN(shape).discriminator).__name__
             for shape in ((2,), (1, 8, 8), (1, 16, 16), (3, 32, 32))}  # fmt: skip
    assert list(names.values()) == ["MLPDiscriminator"] * 2 + ["DCGANDiscriminator"] * 2


# Refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "arguments", "words"),
    [
        ((2,), {"loss": "wassertein_gp"}, "minimax, nonsaturating, wasserstein_gp, hinge.*did you"),
        ((2,), {"network": "dcgn"}, "mlp, dcgan, resnet.*did you mean dcgan"),
        ((2,), {"network": "dcgan"}, r"takes images \(C, H, W\)"),
        ((1, 3, 9), {"network": "resnet"}, "4x4 or more; got 3x9.*mlp"),
        ((2,), {"network": nn.Linear(1, 1)}, "has no module `generator`"),
        ((2,), {"latent_dim": 0}, "latent_dim must be 1 or more"),
        ((2,), {"hidden": (8, 0)}, "hidden must be 1 or more"),
        ((1, 8, 8), {"network": "dcgan", "channels": 0}, "channels must be 1 or more"),
        ((2,), {"discriminator_steps": 0}, "discriminator_steps must be 1 or more"),
        ((2,), {"gradient_penalty": -1.0}, "gradient_penalty must be 0 or more; got -1"),
        ((2,), {"generator_lr_factor": 0.0}, "generator_lr_factor must be positive"),
        ((2,), {"augment": "cutout"}, "takes images"),
        ((1, 8, 8), {"augment": "cutuot"}, "colour, translation, cutout.*did you mean cutout"),
        ((1, 8, 8), {"normalise": "layer"}, "normalise must be one of batch, group, none"),
    ],
)
def test_impossible_arguments_are_refused(shape, arguments, words):
    with pytest.raises(ValueError, match=words):
        GAN(shape, **arguments)


def test_a_batch_of_one_under_batch_norm_is_refused():
    (x,) = images(9, (1, 8, 8))
    data = Dataset.from_tensors(x, x[:4], x[:4], levels=256)
    program = small((1, 8, 8), network="dcgan", normalise="batch", levels=256)
    for objective in program.objectives().values():
        with pytest.raises(ValueError, match=r"a batch of one example.*normalise='group'"):
            objective.prepare(x[:1])
        objective.eval().prepare(x[:1])  # running statistics serve
    options = {"steps": 3, "batch_size": 4, "device": "cpu", "progress": False}
    with pytest.raises(ValueError, match="a batch of one example"):  # 9 = 4 + 4 + 1
        fit(program, data, **options)
    fit(small((1, 8, 8), network="dcgan", levels=256), data, **options)


def test_a_conditional_program_needs_labels():
    program = small(num_classes=3)
    with pytest.raises(ValueError, match="conditional on 3 classes: labels y needed"):
        draw(program, 2, shape=(2,))


def test_nothing_is_left_in_pyros_store():
    program, x = small(), torch.randn(4, 2)
    for objective in program.objectives().values():
        objective.prepare(x)
        objective(x)
    assert list(pyro.get_param_store().keys()) == []
