"""Flows over images: layers against their Jacobians, scales, starts, training, shapes."""

import warnings

import pyro
import pytest
import torch
from torch import Tensor, nn

from ppgen import ELBO, fit, load
from ppgen.compile import Compiled
from ppgen.data import Dataset
from ppgen.models.flow import Flow
from ppgen.models.flow_figures import interpolations, scale_samples, temperatures
from ppgen.models.glow import Glow
from ppgen.models.image_flow import multiscale_realnvp, scales_of
from ppgen.nn.bijections import Bijection
from ppgen.nn.coupling import AffineCoupling, CouplingNetwork
from ppgen.nn.image_flow import (
    ActNorm,
    InvertibleConvolution,
    Pixelwise,
    Scale,
    squeeze,
    unsqueeze,
)
from ppgen.nn.noise_flow import NoiseFlow
from ppgen.program import log_prob

SHAPE, CLASSES = (4, 2, 3), 3


def perturbed(module: nn.Module, size: float = 0.2, seed: int = 0) -> nn.Module:
    """The module with noise on its parameters: at birth most layers are the identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator)
    return module


def coupling(split: str, swap: bool, context: int = 0, blocks: int = 2) -> AffineCoupling:
    size = SHAPE[1:]
    network = CouplingNetwork(2, 4, size, hidden=5, blocks=blocks, context=context)
    return AffineCoupling(network, split, swap=swap)


def glow(shape: tuple[int, ...] = (1, 4, 4), **arguments) -> Glow:
    return Glow(shape, **{"scales": 2, "steps": 2, "hidden": 4, **arguments})


# Layers by name: what makes one, the shape it takes, the features of its context.
LAYERS = {
    "actnorm": (lambda: ActNorm(4), SHAPE, 0),
    "invertible-convolution": (lambda: InvertibleConvolution(4), SHAPE, 0),
    "pixelwise": (lambda: Pixelwise(SHAPE), SHAPE, 0),
    "pixelwise-conditional": (lambda: Pixelwise(SHAPE, CLASSES), SHAPE, CLASSES),
    "coupling-checkerboard": (lambda: coupling("checkerboard", False), SHAPE, 0),
    "coupling-checkerboard-swapped": (lambda: coupling("checkerboard", True), SHAPE, 0),
    "coupling-channel": (lambda: coupling("channel", False), SHAPE, 0),
    "coupling-channel-conditional": (lambda: coupling("channel", True, CLASSES), SHAPE, CLASSES),
    "scale": (lambda: Scale(ActNorm(4), InvertibleConvolution(4), None), (1, 4, 4), 0),
    "noise-flow": (lambda: NoiseFlow((1, 4, 4), 2, 5), (1, 4, 4), 5 * 4),
    "noise-flow-vector": (lambda: NoiseFlow((3,), 2, 5), (3,), 5),
    "realnvp": (
        lambda: multiscale_realnvp((2, 4, 4), scales=2, steps=1, hidden=4),
        (2, 4, 4),
        0,
    ),
    "glow": (lambda: glow().bijection.layers[0], (1, 4, 4), 0),
    "glow-conditional": (
        lambda: glow((1, 8, 4), num_classes=CLASSES).bijection.layers[0],
        (1, 8, 4),
        CLASSES,
    ),
}
layers = pytest.mark.parametrize("name", LAYERS)


def made(name: str) -> tuple[Bijection, Tensor, Tensor | None]:
    """The layer, inputs (3, *shape) and their context, in float32."""
    make, shape, features = LAYERS[name]
    torch.manual_seed(0)
    layer = perturbed(make(), 0.1)
    return layer, torch.randn(3, *shape), torch.randn(3, features) if features else None


@layers
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_inverse_of_forward_is_the_identity(name, dtype, error):
    layer, x, context = made(name)
    layer, x = layer.to(dtype), x.to(dtype)
    context = None if context is None else context.to(dtype)
    with torch.no_grad():
        z, inwards = layer.inverse(x, context)
        back, outwards = layer(z, context)
        z_again, _ = layer.inverse(layer(x, context)[0], context)
    assert z.shape == x.shape and inwards.shape == (3,)
    assert (z - x).abs().max() > 1e-2  # the layer does something
    scale = max(1.0, float(x.abs().max()))
    assert (back - x).abs().max() < error * scale
    assert (z_again - x).abs().max() < error * scale
    torch.testing.assert_close(inwards, -outwards, rtol=1e-4, atol=20 * error)


@layers
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_log_determinants_are_those_of_the_jacobian(name, direction):
    layer, x, context = made(name)
    layer, x = layer.double(), x.double()
    context = None if context is None else context.double()
    run = layer if direction == "forward" else layer.inverse
    found = run(x, context)[1]
    for k in range(len(x)):
        given = None if context is None else context[k : k + 1]
        jacobian = torch.autograd.functional.jacobian(
            lambda one, given=given: run(one[None], given)[0][0].flatten(), x[k]
        ).flatten(1)
        assert len(jacobian) == x[k].numel()
        expected = torch.linalg.slogdet(jacobian)[1]
        torch.testing.assert_close(found[k].detach(), expected, rtol=1e-8, atol=1e-8)


def test_squeeze_takes_the_checkerboard_apart():
    x = torch.arange(2 * 16.0).view(1, 2, 4, 4)
    parts = squeeze(x)
    assert parts.shape == (1, 8, 2, 2)
    torch.testing.assert_close(unsqueeze(parts), x, rtol=0, atol=0)
    row, column = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
    white = ((row + column) % 2 == 0).expand(2, 4, 4)
    found = parts[:, :4].flatten().sort().values
    torch.testing.assert_close(found, x[0][white].sort().values, rtol=0, atol=0)


@pytest.mark.parametrize("split", ["checkerboard", "channel"])
def test_couplings_move_one_half_and_read_the_other(split):
    """In pixels: a checkerboard coupling leaves one field as it is, a channel coupling other rows.

    What is moved depends on its own value entry by entry, and on the other half's neighbours.
    """
    kept = {}
    for swap in (False, True):
        torch.manual_seed(0)
        layer = perturbed(coupling(split, swap, blocks=1), 0.5).double()
        layer.network.place = nn.Parameter(torch.zeros(4, 2, 3).double())
        x = torch.randn(1, 1, 4, 6).double()

        def moved(x, layer=layer):
            return unsqueeze(layer.inverse(squeeze(x))[0])

        same = (moved(x) == x)[0, 0]
        assert same.sum() == 12
        kept[swap] = same
        jacobian = torch.autograd.functional.jacobian(moved, x).view(24, 24)
        rows = jacobian[~same.flatten()]
        own = rows[:, ~same.flatten()]
        assert (own - own.diag().diag()).abs().max() == 0 and own.diag().min() > 0
        assert (rows[:, same.flatten()].abs() > 1e-9).sum(1).min() > 3
    assert (kept[False] == ~kept[True]).all()
    row, column = torch.meshgrid(torch.arange(4), torch.arange(6), indexing="ij")
    expected = (row + column) % 2 == 0 if split == "checkerboard" else row % 2 == 0
    assert (kept[False] == expected).all() or (kept[True] == expected).all()


def test_channel_and_checkerboard_part_different_pixels():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    white, black = squeeze(x).chunk(2, 1)
    even, odd = squeeze(x)[:, 0::2], squeeze(x)[:, 1::2]
    for half in (white, black):
        for other in (even, odd):
            assert len(set(half.flatten().tolist()) & set(other.flatten().tolist())) == 4


@torch.no_grad()
def test_log_scales_are_bounded():
    layer = coupling("checkerboard", False)
    x = torch.randn(3, *SHAPE)
    for raw, bound in ((1000.0, 24.0), (-1000.0, -24.0)):  # 12 entries move
        layer.network.last.bias[:2] = raw
        torch.testing.assert_close(layer(x)[1], torch.full((3,), bound))
        assert layer.inverse(layer(x)[0])[0].sub(x).abs().max() < 1e-5


@torch.no_grad()
def test_actnorm_starts_with_mean_0_and_deviation_1_at_its_noise_side():
    layer = ActNorm(4)
    x = 3 + torch.randn(64, *SHAPE) * torch.tensor([0.01, 1.0, 7.0, 0.0])[:, None, None]
    layer.initialise(x)
    z, _ = layer.inverse(x)
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(4), rtol=0, atol=1e-4)
    expected = torch.tensor([1.0, 1.0, 1.0, 0.0])  # a constant channel is only centred
    torch.testing.assert_close(z.std((0, 2, 3), correction=0), expected, rtol=1e-3, atol=1e-6)


@torch.no_grad()
def test_actnorm_starts_so_everywhere_in_a_multi_scale_flow():
    """`Flow.initialise` passes the batch through: each actnorm sees what the layers above give."""
    torch.manual_seed(0)
    program = glow((1, 8, 8), levels=16, steps=3)
    for module in program.modules():
        if isinstance(module, CouplingNetwork):
            perturbed(module, 0.1)
    x = torch.randint(16, (200, 1, 8, 8)) / 15 * torch.rand(1, 1, 8, 8).round()
    seen = {}
    torch.manual_seed(1)
    program.initialise(x)

    def look(layer, way):
        def inverse(x, context=None):
            z, log_det = way(x, context)
            seen[layer] = (z.mean((0, 2, 3)), z.std((0, 2, 3), correction=0))
            return z, log_det

        return inverse

    norms = [module for module in program.modules() if isinstance(module, ActNorm)]
    assert len(norms) == 6
    for layer in norms:
        layer.inverse = look(layer, layer.inverse)
    torch.manual_seed(1)  # the same noise below the levels
    program.bijection.inverse(program.dequantiser(x).sample())
    for mean, deviation in (seen[layer] for layer in norms):
        torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-3)
        torch.testing.assert_close(deviation, torch.ones_like(mean), rtol=1e-3, atol=0)


def test_the_convolution_starts_as_a_rotation():
    torch.manual_seed(0)
    layer = InvertibleConvolution(6)
    weight = layer.weight().detach()
    torch.testing.assert_close(weight @ weight.T, torch.eye(6), rtol=0, atol=1e-5)
    assert layer.log_scale.sum().abs() < 1e-5
    x = torch.randn(2, 6, 3, 3)
    expected = torch.einsum("oi,nihw->nohw", weight, x)
    torch.testing.assert_close(layer.inverse(x)[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", [lambda: glow((3, 16, 8), scales=3), lambda: glow((1, 8, 8))])
def test_factoring_out_keeps_the_number_of_dimensions(make):
    """At each scale half of what is left is noise; all of it together has the image's shape."""
    program = make()
    scale, dimensions = program.bijection.layers[0], torch.Size(program.shape).numel()
    found = scale.noise_scales(program.shape)
    assert found.shape == program.shape
    counts = found.flatten().bincount().tolist()
    halves = [dimensions // 2 ** (k + 1) for k in range(len(counts))]
    assert counts == [*halves[:-1], 2 * halves[-1]]
    # What is noise of scale 0 does not enter the next scale: its image is not moved by the rest.
    inner = scale.inner
    z = torch.randn(2, *program.shape)
    changed = torch.where(found == 0, z, torch.randn(z.shape))
    kept = [squeeze(one).chunk(2, 1)[0] for one in (z, changed)]
    assert not torch.equal(*kept)
    fixed = torch.where(found == 0, torch.randn(z.shape), z)
    assert torch.equal(squeeze(fixed).chunk(2, 1)[0], kept[0])
    assert inner.noise_scales(tuple(kept[0].shape[1:])).max() == found.max() - 1


def test_the_prior_of_what_is_factored_out_reads_the_rest():
    """p(z_out | z_kept) is Gaussian: given the kept half, what is factored out is affine in it."""
    torch.manual_seed(0)
    scale = perturbed(glow((1, 4, 4), steps=1).bijection.layers[0], 0.5)
    assert isinstance(scale.prior, AffineCoupling)
    h = torch.randn(1, 4, 2, 2)
    z, _ = scale.prior.inverse(h)
    assert torch.equal(z[:, :2], h[:, :2]) and not torch.allclose(z[:, 2:], h[:, 2:])
    other = torch.cat([h[:, :2] + 1, h[:, 2:]], 1)
    assert not torch.allclose(scale.prior.inverse(other)[0][:, 2:], z[:, 2:])


# The program -----------------------------------------------------------------------------------


def images(n: int = 12, shape: tuple[int, ...] = (1, 4, 4), levels: int = 8, seed: int = 1):
    generator = torch.Generator().manual_seed(seed)
    base = torch.linspace(0, 1, torch.Size(shape).numel()).view(shape)
    noisy = base + 0.2 * torch.randn(n, *shape, generator=generator)
    return (noisy.clamp(0, 1) * (levels - 1)).round() / (levels - 1)


def test_the_density_of_reals_is_the_change_of_variables():
    program = perturbed(glow())
    x = images()
    program.initialise(x)
    with torch.no_grad():
        z, log_det = program.bijection.inverse(x)
        expected = torch.distributions.Normal(0, 1).log_prob(z).sum((1, 2, 3)) + log_det
        torch.testing.assert_close(log_prob(program, x), expected, rtol=1e-5, atol=1e-4)
        loss = ELBO(program)(x)[0]
    torch.testing.assert_close(loss, -expected.mean(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dequantisation", ["uniform", "variational"])
def test_samples_are_levels_and_repeat_under_a_seed(dequantisation):
    program = perturbed(glow(levels=8, num_classes=2, dequantisation=dequantisation))
    y = torch.tensor([0, 1, 1, 0, 1])
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        drawn.append(program.sample(5, y))
    assert drawn[0].shape == (5, 1, 4, 4)
    torch.testing.assert_close(drawn[0], drawn[1], rtol=0, atol=0)
    levels = drawn[0] * 7
    assert (levels - levels.round()).abs().max() < 1e-5 and 0 <= levels.min() <= levels.max() <= 7
    torch.manual_seed(3)
    assert not torch.equal(program.sample(5, 1 - y), drawn[0])
    torch.manual_seed(3)
    assert not torch.equal(program.sample(5, y, temperature=0.2), drawn[0])


@pytest.mark.parametrize("dequantisation", ["uniform", "variational"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_compiled_and_plain_are_one(dequantisation, precision):
    program = perturbed(glow(levels=8, num_classes=3, dequantisation=dequantisation), 0.1)
    x, y = images(6), torch.arange(6) % 3
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for mode in ("none", "trace"):
            program.zero_grad()
            objective = Compiled(ELBO(program), mode)
            for k in range(2):  # the first call traces, the second runs the graph alone
                pyro.set_rng_seed(k)
                with torch.autocast("cpu", torch.bfloat16, enabled=precision != "32-true"):
                    loss = objective(x, y)[0]
                loss.backward()
            assert objective.mode == mode and loss.dtype == torch.float32
            found.append([loss.detach(), *(p.grad.clone() for p in program.parameters())])
    for plain, traced in zip(*found, strict=True):
        torch.testing.assert_close(plain, traced, rtol=1e-4, atol=1e-4)


def test_half_precision_is_kept_out_of_the_flow_itself():
    """Under autocast the networks answer in bfloat16: inverse and log-determinants stay exact."""
    torch.manual_seed(0)
    layer = perturbed(glow((1, 8, 8), steps=3).bijection.layers[0], 0.1)
    x = torch.randn(4, 1, 8, 8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        z, inwards = layer.inverse(x)
        back, outwards = layer(z)
    assert z.dtype == inwards.dtype == torch.float32
    exact, log_det = layer.inverse(x)
    assert (back - x).abs().max() < 1e-3
    torch.testing.assert_close(inwards, -outwards, rtol=0, atol=1e-2)
    assert (z - exact).abs().max() < 0.1 and (inwards - log_det).abs().max() < 0.5
    alone = InvertibleConvolution(4)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = alone.inverse(x.view(4, 4, 4, 4))[0]
    torch.testing.assert_close(mixed, alone.inverse(x.view(4, 4, 4, 4))[0], rtol=0, atol=0)


def dataset(n: int) -> Dataset:
    parts = [(images(k, seed=seed), torch.arange(k) % 2) for k, seed in ((n, 1), (64, 2), (64, 3))]
    return Dataset.from_tensors(*parts, levels=8)


def test_a_thousand_steps_stay_stable_and_learn():
    """In float32 and at a high rate: finite, still inverted to 1e-4, better than at the start."""
    torch.manual_seed(0)
    program = glow(levels=8, scales=1)
    data = dataset(4000)
    x = data.test.batch(slice(0, 64))[0]
    with torch.no_grad():
        program.initialise(data.train.batch(slice(0, 64))[0])
        before = log_prob(program, x).mean()
    run = fit(program, data, steps=1000, batch_size=32, lr=5e-3, progress=False, device="cpu",
              validate_epochs=0, sample_epochs=0)  # fmt: skip
    with torch.no_grad():
        after = log_prob(run.program, x)
        v = run.program.dequantiser(x).sample()
        z, inwards = run.program.bijection.inverse(v)
        back, outwards = run.program.bijection(z)
    assert after.isfinite().all() and after.mean() > before + 1
    assert (back - v).abs().max() < 1e-4 and (inwards + outwards).abs().max() < 1e-2
    # Pixels are independent: no bound passes minus the sum of their entropies.
    level = torch.round(data.train.batch(slice(0, 4000))[0] * 7).long().flatten(1)  # (4000, 16)
    shares = torch.nn.functional.one_hot(level, 8).double().mean(0)
    assert after.mean() < 0.5 - torch.special.entr(shares).sum()


def test_bf16_training_runs_and_a_saved_flow_gives_the_same_numbers(tmp_path):
    torch.manual_seed(0)
    program = glow(levels=8, num_classes=2, dequantisation="variational")
    data = dataset(64)
    run = fit(program, data, out=tmp_path / "run", steps=6, batch_size=16, progress=False,
              precision="bf16-mixed", device="cpu", sample_epochs=0)  # fmt: skip
    assert all(torch.isfinite(torch.tensor(row["loss"])) for row in run.metrics)
    loaded = load(tmp_path / "run", Glow)
    values = []
    for one in (run.program, loaded):
        torch.manual_seed(2)
        with torch.no_grad():
            values.append(log_prob(one, *data.test.batch(slice(0, 8)), num_particles=2))
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=0)
    assert isinstance(loaded, Glow) and loaded.arguments["scales"] == 2


def test_realnvp_of_images_is_a_flow_like_any():
    torch.manual_seed(0)
    layers = multiscale_realnvp((1, 4, 4), scales=1, steps=1, hidden=4)
    program = Flow((1, 4, 4), layers, levels=8)
    x = images(64)
    program.initialise(x)
    objective = Compiled(ELBO(program))
    optimiser = torch.optim.Adam(program.parameters(), 5e-3)
    losses = []
    for _ in range(80):
        optimiser.zero_grad()
        losses.append(objective(x)[0])
        losses[-1].backward()
        optimiser.step()
    assert objective.mode == "trace"
    assert torch.stack(losses[-10:]).mean() < torch.stack(losses[:10]).mean() - 1
    couplings = [m for m in layers.modules() if isinstance(m, AffineCoupling)]
    assert [layer.split for layer in couplings].count("checkerboard") == 2


@torch.no_grad()
def test_figures_show_what_they_say():
    torch.manual_seed(0)
    program = perturbed(glow((1, 16, 8), levels=8, num_classes=3, scales=3, steps=1), 0.05).eval()
    x, y = images(6, (1, 16, 8)), torch.arange(6) % 3
    names = []
    for figure in program.figures(x, y):
        names.append(figure.name)
        assert figure.draw().startswith(b"\x89PNG")
    assert names == ["temperatures", "interpolation", "scales"]
    assert [figure.name for figure in program.figures()] == ["temperatures", "scales"]

    found = interpolations(program, x, y)
    assert found.shape == (3, 10, 1, 16, 8)
    torch.testing.assert_close(found[:, 0], x[0::2], rtol=0, atol=1e-6)
    torch.testing.assert_close(found[:, -1], x[1::2], rtol=0, atol=1e-6)

    torch.manual_seed(1)
    found = temperatures(program, 4)
    torch.manual_seed(1)
    z = torch.randn(4, 1, 16, 8)
    context = torch.eye(3)[[0, 1, 2, 0]]
    for row, temperature in zip(found, (0.4, 0.6, 0.8, 1.0), strict=True):
        v, _ = program.bijection(temperature * z, context)
        torch.testing.assert_close(row, (v * 8).floor().clamp(0, 7) / 7, rtol=0, atol=1e-6)


@torch.no_grad()
def test_samples_scale_by_scale_hold_the_coarse_noise_fixed():
    """By the inverse: what is fixed has one value along a row, and what is not differs."""
    torch.manual_seed(0)
    program = perturbed(glow((1, 16, 8), scales=3, steps=1), 0.05).eval()
    of = program.bijection.layers[0].noise_scales(program.shape)
    found = scale_samples(program, 2, 5)
    assert found.shape == (2, 2, 5, 1, 16, 8)
    for draw in found:
        for finer, row in enumerate(draw):
            z, _ = program.bijection.inverse(row)
            spread = z.std(0)
            assert spread[of > finer].max() < 1e-4 < 1e-2 < spread[of <= finer].min()


# Shapes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((1, 28, 28), 2), ((3, 32, 32), 3), ((3, 64, 64), 4), ((3, 128, 128), 4), ((1, 8, 8), 1),
     ((1, 4, 4), 1), ((5, 2, 2), 1), ((1, 14, 14), 1), ((1, 16, 12), 1), ((1, 24, 16), 2)],
)  # fmt: skip
def test_scales_are_chosen_from_the_shape(shape, expected):
    assert scales_of(shape) == expected
    x = torch.rand(2, *shape)
    if max(shape) <= 32:
        bijection = Glow(shape, steps=1, hidden=2).bijection
        assert bijection.inverse(x)[0].shape == x.shape


@pytest.mark.parametrize(
    ("shape", "arguments", "words"),
    [
        ((1, 27, 28), {}, r"shape \(1, 27, 28\) .* odd height 27; pad or resize to 28x28"),
        ((3, 5, 7), {}, "odd height 5 and width 7; pad or resize to 6x8"),
        ((1, 28, 28), {"scales": 3}, "height 28 and width 28 not divisible by 8; use scales from 1 "
                                     "to 2"),
        ((1, 32, 6), {"scales": 2}, "width 6 not divisible by 4; use scales=1"),
        ((1, 28, 28), {"scales": 0}, "scales must be 1 or more; got 0"),
        ((1, 28, 28), {"steps": 0}, "steps must be 1 or more; got 0"),
        ((1, 28, 28), {"hidden": 0}, "hidden must be 1 or more; got 0"),
        ((1, 28, 28), {"blocks": -1}, "blocks must be 0 or more; got -1"),
        ((784,), {}, r"take images, shape \(C, H, W\); got \(784,\)"),
        ((1, 0, 4), {}, r"take images, shape \(C, H, W\); got \(1, 0, 4\)"),
    ],
)  # fmt: skip
def test_shapes_that_do_not_split_are_refused(shape, arguments, words):
    for make in (Glow, multiscale_realnvp):
        with pytest.raises(ValueError, match=words) as caught:
            make(shape, **arguments)
        assert "\n" not in str(caught.value)
