"""Pix2Pix: the program, its two players, its networks, and what it is refused."""

import io

import pytest
import torch
from PIL import Image
from pyro import poutine

from ppgen import fit, load
from ppgen.compile import Compiled
from ppgen.data import Dataset
from ppgen.loading import check_fit
from ppgen.models.gan_objectives import discriminator_loss, generator_loss
from ppgen.models.translation import Pix2Pix
from ppgen.nn.translation import PatchDiscriminator, depth_for, patch_layers_for
from ppgen.pairs import sketch
from ppgen.seeding import seeded
from ppgen.sites import prepare
from ppgen.validation import sample_picture

LOSSES = ("nonsaturating", "minimax", "hinge", "wasserstein_gp")
PLAYERS = ("discriminator", "generator")


def pictures(n, side=16, seed=0):
    """Bright disks on darker paper, each with a colour of its own, as bytes."""
    generator = torch.Generator().manual_seed(seed)
    paper, ink = torch.rand(2, n, 3, 1, 1, generator=generator)
    place = side * (0.3 + 0.4 * torch.rand(n, 2, 1, 1, generator=generator))
    at = torch.arange(side) + 0.5
    far = ((at[:, None] - place[:, :1]) ** 2 + (at - place[:, 1:]) ** 2).sqrt()  # (n, 1, H, W)
    x = torch.where(far < side / 4, 0.5 + ink / 2, paper / 2)
    return (x * 255).round().to(torch.uint8)


def pairs(n=20, **options):
    x = pictures(n, **options)
    return Dataset.from_tensors((x, sketch(x)), levels=256, condition="sketch")


def small(seed=0, **options):
    torch.manual_seed(seed)
    return Pix2Pix((3, 16, 16), **{"channels": 4, **options})


# The program


def test_the_masks_are_its_latents_and_x_a_function_of_them():
    program, (x, condition) = small(), pairs().train.batch(slice(0, 5))
    trace = poutine.trace(program.model).get_trace(x, condition)
    names = [f"mask_{k}" for k in range(len(program.generator.noise))]
    masks = [trace.nodes[name]["value"] for name in names]
    assert len(masks) == 1 and all(set(m.unique().tolist()) == {0, 1} for m in masks)
    made = trace.nodes["x"]["value"]
    assert made.shape == x.shape and made.min() >= 0 and made.max() <= 1
    torch.testing.assert_close(made, program.translate(condition, *masks))
    replayed = poutine.trace(poutine.replay(program.model, trace=trace)).get_trace(x, condition)
    torch.testing.assert_close(replayed.nodes["x"]["value"], made)
    # x itself is no input, and examples do not mix.
    torch.testing.assert_close(program.translate(condition[2:3], masks[0][2:3]), made[2:3])
    assert program.density == "implicit" and prepare(program, (x, condition)).observed == ()


def test_masks_keep_what_the_dropout_leaves():
    program, (x, condition) = small(dropout=0.25), pairs(400).train.batch(slice(0, 300))
    mask = poutine.trace(program.model).get_trace(x, condition).nodes["mask_0"]["value"]
    assert mask.mean().item() == pytest.approx(0.75, abs=5 * (0.1875 / mask.numel()) ** 0.5)


def test_draws_differ_by_the_dropout_alone():
    _, condition = pairs().train.batch(slice(0, 4))
    for dropout, same in ((0.5, False), (0.0, True)):
        program = small(dropout=dropout)
        one, two = (program.sample(4, condition, mean=True) for _ in range(2))
        assert torch.equal(one, two) == same
        with seeded(3):
            first = program.sample(4, condition)
        with seeded(3):
            assert torch.equal(program.sample(4, condition), first)
        assert torch.equal(first * 255, (first * 255).round())


def test_there_is_no_likelihood():
    x, condition = pairs().train.batch(slice(0, 2))
    with pytest.raises(ValueError, match="implicit"):
        small().log_prob(x, condition)


# The players


@pytest.mark.parametrize("loss", LOSSES)
def test_the_objectives_are_their_formulas(loss):
    program = small(dropout=0.0, loss=loss, l1_weight=7.0, gradient_penalty=0.0)
    x, condition = pairs().train.batch(slice(0, 6))
    drawn, given = 2 * program.translate(condition) - 1, 2 * condition - 1
    real, fake = (program.discriminator(t, given) for t in (2 * x - 1, drawn))
    l1 = (2 * x - 1 - drawn).abs().mean()
    objectives = program.objectives()
    found, _ = objectives["discriminator"](x, condition)
    torch.testing.assert_close(found, discriminator_loss(loss, real, fake))
    found, terms = objectives["generator"](x, condition)
    torch.testing.assert_close(found, generator_loss(loss, fake) + 7 * l1)
    torch.testing.assert_close(terms["l1"], l1.detach())
    torch.testing.assert_close(terms["adversarial"], generator_loss(loss, fake).detach())


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("player", PLAYERS)
def test_a_player_gets_gradients_for_all_of_its_own_and_no_other(player, loss):
    program = small(loss=loss)
    batch = pairs().train.batch(slice(0, 6))
    program.objectives()[player](*batch)[0].backward()
    for name, parameter in program.named_parameters():
        if name.startswith(player):
            # A constant cancels from differences of scores, as hinges are before they are met.
            last = program.discriminator.layers[-1].bias
            constant = parameter is last and loss in ("wasserstein_gp", "hinge")
            assert constant or parameter.grad.abs().max() > 1e-9, name
        else:
            assert parameter.grad is None, name


@pytest.mark.parametrize("player", PLAYERS)
def test_a_step_moves_its_own_player_alone(player):
    program = small()
    before = {name: p.detach().clone() for name, p in program.named_parameters()}
    objective = program.objectives()[player]
    fit(program, pairs(), objective=objective, steps=2, batch_size=8, progress=False, ema=0.0)
    for name, parameter in program.named_parameters():
        assert torch.equal(parameter, before[name]) != name.startswith(player), name


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("player", PLAYERS)
def test_compiled_equals_plain(player, loss):
    program = small(loss=loss)
    data = pairs()
    objective = program.objectives()[player]
    compiled = Compiled(objective)
    for size in (6, 6, 3):  # an odd last batch gets its own graph
        batch, found = data.train.batch(slice(0, size)), []
        for one in (compiled, objective):
            program.zero_grad()
            with seeded(5):
                value, terms = one(*batch)
            value.backward()
            grads = [p.grad.clone() for p in objective.player() if p.grad is not None]
            found.append((value.detach(), terms, grads))
        assert compiled.mode == "trace" and compiled.reason is None
        for mine, plain in zip(found[0][2], found[1][2], strict=True):
            torch.testing.assert_close(mine, plain, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found[0][:2], found[1][:2], rtol=1e-5, atol=1e-6)


def test_four_pairs_are_learned_by_heart():
    data = pairs(4 + 2)
    x, condition = data.train.batch(slice(None))
    program = small(channels=8, dropout=0.0)
    run = fit(program, data, steps=150, batch_size=4, lr=2e-3, ema=0.0, warmup_steps=5,
              validate_epochs=0, progress=False)  # fmt: skip
    drawn = run.program.sample(len(x), condition, mean=True)
    assert (drawn - x).abs().mean() < 0.4 * (x.mean(0) - x).abs().mean()


def test_a_run_is_saved_and_repeats(tmp_path):
    data, runs = pairs(), []
    for name in ("a", "b"):
        run = fit(small(), data, out=tmp_path / name, steps=3, batch_size=8, progress=False)
        runs.append(run.program.state_dict())
    assert all(torch.equal(runs[0][name], value) for name, value in runs[1].items())
    loaded = load(tmp_path / "a", Pix2Pix)
    _, condition = data.test.batch(slice(None))
    with seeded(1):
        wanted = run.program.sample(len(condition), condition)
    with seeded(1):
        assert torch.equal(loaded.sample(len(condition), condition), wanted)
    shown = sorted((tmp_path / "a" / "samples").iterdir())
    assert Image.open(io.BytesIO(shown[-1].read_bytes())).size[1] > 2 * 40  # conditions above draws


# The networks


@pytest.mark.parametrize(("layers", "patch"), [(1, 16), (2, 34), (3, 70)])
def test_a_logit_sees_a_patch(layers, patch):
    network = PatchDiscriminator(2, 4, layers)
    for index, layer in enumerate(network.layers):
        if isinstance(layer, torch.nn.GroupNorm):  # the norms alone see the whole image
            network.layers[index] = torch.nn.Identity()
    for parameter in network.parameters():
        torch.nn.init.constant_(parameter, 0.1)
    x = torch.ones(1, 1, 128, 128, requires_grad=True)
    scores = network(x, torch.ones(1, 1, 128, 128))
    scores[0, 0, scores.shape[2] // 2, scores.shape[3] // 2].backward()
    rows = (x.grad[0, 0].abs().sum(1) > 0).nonzero()
    assert rows.max() - rows.min() + 1 == patch


def test_the_size_chooses_the_depth():
    sizes = [(64, 64), (128, 128), (28, 28), (64, 24), (2048, 2048)]
    assert [depth_for(*size) for size in sizes] == [4, 5, 2, 2, 7]
    assert [patch_layers_for(side) for side in (16, 32, 64, 128, 256)] == [1, 1, 2, 3, 3]
    for shape in ((1, 28, 28), (3, 64, 24), (3, 32, 48)):
        program = Pix2Pix(shape, channels=2)
        assert program.sample(2, torch.rand(2, 1, *shape[1:])).shape == (2, *shape)


def test_no_place_of_the_picture_is_marked():
    """A blank condition gives, inside, a picture as even as its borders allow."""
    program = Pix2Pix((3, 64, 64), channels=8, dropout=0.0)
    made = program.sample(1, torch.ones(1, 1, 64, 64), mean=True)[0]
    assert made.std((1, 2)).max() < 0.05


# What is shown, and what is refused


def test_figures_are_pictures():
    program = small()
    batch = pairs(40).test.batch(slice(None))
    found = {figure.name: figure.draw() for figure in program.figures(*batch)}
    assert set(found) == {"translations", "variants"}
    for picture in found.values():
        assert Image.open(io.BytesIO(picture)).mode == "RGB"
    assert list(program.figures()) == [] and list(program.figures(batch[0])) == []


def test_no_picture_without_data():
    class Nothing:
        dataset, shape = None, (3, 16, 16)

    assert sample_picture(small(), Nothing(), 0) is None


@pytest.mark.parametrize(
    ("shape", "options", "match"),
    [
        ((2,), {}, r"makes images \(C, H, W\); the shape is \(2,\)"),
        ((1, 25, 25), {}, "25x25 cannot be halved twice"),
        ((1, 8, 8), {}, "8x8 cannot be halved twice"),
        ((3, 64, 64), {"depth": 5}, "depth must be from 2 to 4 for images of 64x64.*got 5"),
        ((3, 16, 16), {"patch_layers": 3}, "patch_layers must be from 1 to 2 .*got 3"),
        ((3, 16, 16), {"condition_shape": (1, 8, 8)}, "one height and width"),
        ((3, 16, 16), {"levels": None}, "reals"),
        ((3, 16, 16), {"loss": "hinges"}, "hinge"),
        ((3, 16, 16), {"dropout": 1.0}, "dropout must be from 0 to below 1; got 1.0"),
        ((3, 16, 16), {"l1_weight": -1}, "l1_weight must be 0 or more; got -1"),
        ((3, 16, 16), {"generator_lr_factor": 0}, "generator_lr_factor must be positive; got 0"),
        ((3, 16, 16), {"channels": 0}, "channels must be 1 or more; got 0"),
    ],
)
def test_bad_arguments(shape, options, match):
    with pytest.raises(ValueError, match=match):
        Pix2Pix(shape, **options)


def test_bad_conditions():
    program = small()
    with pytest.raises(ValueError, match=r"needs a condition: images of shape \(1, 16, 16\)"):
        program.sample(2)
    with pytest.raises(ValueError, match=r"shape \(3, 16, 16\); expected \(1, 16, 16\)"):
        program.sample(2, torch.rand(2, 3, 16, 16))
    alone = Dataset.from_tensors(pictures(20), levels=256)
    with pytest.raises(ValueError, match=r"none \(pairs:DIR makes some"):
        check_fit(program, alone)
