"""The networks that denoise: the U-Net and the fully connected one."""

import math

import pyro
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from ppgen.nn.attention import Attention, group_norm
from ppgen.nn.embed import TimeClassEmbedding, check_labels, sinusoidal
from ppgen.nn.mlp_denoiser import MLPDenoiser
from ppgen.nn.unet import ResidualBlock, UNet

SMALL = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (4,), "heads": 2}


def unet(shape=(3, 8, 8), *, seed=0, awake=True, dtype=torch.float64, **options) -> UNet:
    """A small U-Net whose output layer has been moved from zero, unless it is to be as born."""
    torch.manual_seed(seed)
    return wake(UNet(shape, **(SMALL | options)), awake).to(dtype)


def mlp(shape=(2,), *, seed=0, awake=True, dtype=torch.float64, **options) -> MLPDenoiser:
    torch.manual_seed(seed)
    return wake(MLPDenoiser(shape, **({"hidden": (16, 24)} | options)), awake).to(dtype)


def wake(network: nn.Module, awake: bool) -> nn.Module:
    if awake:
        for name in ("last", "gate"):
            if hasattr(network, name):
                nn.init.normal_(getattr(network, name).weight, std=0.3)
    return network


def inputs(network, n=3, *, seed=1, context=None):
    """(x, time, y, context) that fit a network; context is the number of its tokens."""
    generator = torch.Generator().manual_seed(seed)
    dtype = next(network.parameters()).dtype
    x = torch.randn(n, *network.shape, generator=generator, dtype=dtype)
    time = torch.rand(n, generator=generator, dtype=dtype)
    classes = network.num_classes
    y = None if classes is None else torch.randint(classes + 1, (n,), generator=generator)
    tokens = None
    if context is not None:
        tokens = torch.randn(n, context, network.context_dim, generator=generator, dtype=dtype)
    return x, time, y, tokens


def close(one, other, tolerance=1e-10):
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


CONFIGURATIONS = {
    "default": ((1, 28, 28), {}),
    "colour": ((3, 32, 32), {"num_classes": 10}),
    "one level": ((2, 5, 7), {"channels": 6, "multipliers": (3,), "attention": (7,)}),
    "oblong": ((3, 8, 16), {"channels": 8, "multipliers": (1, 2, 3), "attention": (8, 4)}),
    "deep": ((1, 8, 8), {"channels": 4, "multipliers": (1, 1, 2, 2), "blocks": 1}),
    "no attention": ((1, 4, 4), {"channels": 3, "multipliers": (2, 1), "attention": ()}),
    "many blocks": ((1, 4, 4), {"channels": 5, "multipliers": (1, 3), "blocks": 3, "dropout": 0.5}),
    "wide output": ((3, 8, 8), {"channels": 8, "heads": 4, "out_channels": 6}),
    "context": (
        (1, 8, 8),
        {"channels": 8, "context_dim": 5, "num_classes": 2, "attention": (8, 2)},
    ),
    "uneven channels": ((1, 4, 4), {"channels": 50, "multipliers": (1, 2), "blocks": 1}),
}


@pytest.mark.parametrize(("shape", "options"), CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_shapes_and_exactly_zero_at_birth(shape, options):
    torch.manual_seed(0)
    network = UNet(shape, **options)
    batch = inputs(network, 2, context=4 if "context_dim" in options else None)
    with torch.no_grad():
        born = network(*batch)
        assert born.shape == (2, options.get("out_channels", shape[0]), *shape[1:])
        assert born.dtype == torch.float32 and (born == 0).all()
        wake(network, True)
        assert network(*batch).isfinite().all() and (network(*batch) != 0).all()


@pytest.mark.parametrize("shape", [(2,), (1, 4, 4), (3, 2)])
def test_the_fully_connected_network_has_shapes_and_zero_at_birth(shape):
    network = mlp(shape, awake=False, dtype=torch.float32, num_classes=3)
    batch = inputs(network, 5)
    assert network(*batch).shape == (5, *shape) and (network(*batch) == 0).all()
    assert (wake(network, True)(*batch) != 0).all()


def test_defaults_have_the_documented_number_of_parameters():
    for network in (UNet((1, 28, 28)), UNet((3, 32, 32)), MLPDenoiser((2,))):
        count = sum(parameter.numel() for parameter in network.parameters())
        assert f"{count:,}" in " ".join((type(network).__doc__ or "").split())
    assert 2e6 < sum(parameter.numel() for parameter in UNet((3, 32, 32)).parameters()) < 6e6


def test_resolutions_with_attention():
    def sides(network):
        """Where each attention sits: its image's longer side, in the order of the forward pass."""
        seen = []
        for module in network.modules():
            if isinstance(module, Attention):
                module.register_forward_hook(lambda m, args, out: seen.append(max(out.shape[2:])))
        network(*inputs(network, 1, context=2 if network.context_dim else None))
        return seen

    small = {"channels": 4, "multipliers": (1, 1, 1), "blocks": 1, "heads": 2}
    assert sides(unet((1, 28, 28), **small | {"attention": None})) == [14, 7, 14]
    assert sides(unet((1, 64, 64), **small | {"attention": None})) == [16, 16, 16]
    assert sides(unet((1, 4, 8), **small | {"attention": (8, 2)})) == [8, 2, 2, 2, 8]
    assert sides(unet((1, 8, 8), **small | {"attention": ()})) == []
    # Cross-attention follows each self-attention.
    assert sides(unet((1, 8, 8), **small | {"attention": (4,), "context_dim": 3})) == [
        *(4, 4, 2, 2, 4, 4)
    ]


def networks():
    yield unet(num_classes=4, context_dim=5, dropout=0.2), 6
    yield unet((1, 4, 4), attention=(), num_classes=2), None
    yield mlp((2, 3), num_classes=4), None


def test_gradients_reach_every_parameter_and_every_input():
    for network, tokens in networks():
        x, time, _, context = inputs(network, 6, context=tokens)
        y = torch.arange(6) % (network.num_classes + 1)  # every row of the table
        x.requires_grad_(), time.requires_grad_()
        if context is not None:
            context.requires_grad_()
        out = network(x, time, y, context)
        (out * torch.randn_like(out)).sum().backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad.abs().max() > 1e-6, name
        assert (network.embedding.table.weight.grad.abs().amax(1) > 1e-6).all()
        for part in (x, time) if context is None else (x, time, context):
            # Each example by itself, and each token of the context.
            axes = tuple(range(1 if part is not context else 2, part.ndim))
            assert (part.grad.abs().sum(axes) > 1e-6).all()


def test_at_birth_only_the_output_layer_learns():
    for network in (unet(awake=False), mlp(awake=False)):
        x, time, *_ = inputs(network)
        (network(x, time) - x).square().sum().backward()
        moving = {
            name.split(".")[0] for name, p in network.named_parameters() if p.grad.abs().max() > 0
        }
        assert moving == ({"last"} if isinstance(network, UNet) else {"last", "gate"})


def test_input_gradients_agree_with_finite_differences():
    for network, tokens in networks():
        network.eval()
        x, time, y, context = inputs(network, 2, context=tokens)
        parts = [x, time] if context is None else [x, time, context]

        def loss(*parts, network=network, y=y):
            x, time, *rest = parts
            return network(x, time, y, *rest).sin().sum()

        for part in parts:
            part.requires_grad_()
        assert torch.autograd.gradcheck(loss, parts, fast_mode=True)


def test_every_output_sees_every_pixel():
    network = unet((1, 8, 8))
    x, time, *_ = inputs(network, 1)
    x.requires_grad_()
    for row, column in ((0, 0), (3, 5), (7, 7)):
        grad = torch.autograd.grad(network(x, time)[0, 0, row, column], x)[0]
        assert (grad != 0).all()


def test_no_class_is_the_last_row_and_what_none_means():
    for network in (unet(num_classes=3), mlp(num_classes=3)):
        x, time, *_ = inputs(network)
        nothing = network(x, time, torch.full((3,), 3))
        close(network(x, time), nothing)
        outputs = [network(x, time, torch.full((3,), y)) for y in range(4)]
        for i, one in enumerate(outputs):
            for other in outputs[:i]:
                assert (one - other).abs().amax((*range(1, one.ndim),)).min() > 1e-4
        mixed = network(x, time, torch.tensor([2, 3, 0]))
        close(mixed, torch.stack([outputs[2][0], outputs[3][1], outputs[0][2]]))


def test_examples_do_not_see_each_other():
    for network, tokens in networks():
        network.eval()
        x, time, y, context = inputs(network, 5, context=tokens)
        whole = network(x, time, y, context)
        for i in range(5):
            rest = None if context is None else context[i : i + 1]
            close(network(x[i : i + 1], time[i : i + 1], y[i : i + 1], rest), whole[i : i + 1])


def test_the_order_of_the_context_does_not_matter_and_its_content_does():
    network = unet(context_dim=5)
    x, time, _, context = inputs(network, context=7)
    out = network(x, time, context=context)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(2))
    close(network(x, time, context=context[:, order]), out)
    # Softmax weighs: a sequence said twice says the same, one token fewer does not.
    close(network(x, time, context=context.repeat(1, 2, 1)), out)
    assert (network(x, time, context=context[:, 1:]) - out).abs().max() > 1e-4
    assert (network(x, time, context=context.flip(-1)) - out).abs().max() > 1e-3


def test_each_block_on_the_way_up_reads_its_counterpart_on_the_way_down():
    network = unet((1, 8, 8), blocks=2)
    down = [stage for level in network.down for stage in level]
    up = [stage for level in network.up for stage in level]
    seen = {}
    for stage in (*down, *up):
        stage.register_forward_hook(lambda m, args, out: seen.update({m: (args[0], out)}))
    network(*inputs(network))
    assert len(down) == len(up) == 4
    for before, after in zip(reversed(down), up, strict=True):
        kept = seen[before][1]
        close(seen[after][0][:, -kept.shape[1] :], kept, 0)


def test_attention_is_its_formula():
    torch.manual_seed(0)
    for context_dim in (None, 3):
        layer = Attention(6, 2, context_dim).double()
        x = torch.randn(2, 6, 2, 3, dtype=torch.float64)
        context = None if context_dim is None else torch.randn(2, 5, 3, dtype=torch.float64)
        expected = x.clone()
        for n in range(2):
            tokens = layer.norm(x)[n].reshape(6, 6).T  # (H * W, C)
            source = tokens if context is None else context[n]
            key, value = layer.key_value(source).split(6, -1)
            query, heads = layer.query(tokens), []
            for head in (slice(0, 3), slice(3, 6)):
                weights = torch.exp(query[:, head] @ key[:, head].T / math.sqrt(3))
                heads.append(weights / weights.sum(1, keepdim=True) @ value[:, head])
            expected[n] += layer.out(torch.cat(heads, 1)).T.reshape(6, 2, 3)
        close(layer(x, context), expected)


def test_a_residual_block_is_its_formula():
    torch.manual_seed(0)
    for inputs_, outputs in ((4, 4), (4, 40)):
        block = ResidualBlock(inputs_, outputs, 5, 0.0).double()
        nn.init.normal_(block.norm.weight), nn.init.normal_(block.norm.bias)
        x, condition = torch.randn(2, inputs_, 3, 3).double(), torch.randn(2, 5).double()

        def normal(x, groups):
            parts = x.reshape(len(x), groups, -1)
            centred = parts - parts.mean(2, keepdim=True)
            scaled = centred / (centred.square().mean(2, keepdim=True) + 1e-5).sqrt()
            return scaled.reshape(x.shape)

        hidden = normal(x, 1) * block.norm.weight[:, None, None] + block.norm.bias[:, None, None]
        hidden = block.first(hidden * hidden.sigmoid())
        scale, shift = block.modulation(condition).reshape(2, 2, outputs, 1, 1).unbind(1)
        hidden = (1 + scale) * normal(hidden, 2 if outputs == 40 else 1) + shift
        close(block(x, condition), block.skip(x) + block.second(hidden * hidden.sigmoid()))


def test_fresh_residual_branches_are_small():
    torch.manual_seed(0)
    x, condition = torch.randn(4, 32, 8, 8), torch.randn(4, 16)
    block, attention = ResidualBlock(32, 32, 16, 0.0), Attention(32, 2)
    for out in (block(x, condition), attention(x)):
        assert 0 < (out - x).std() < 0.1 * x.std()


def test_the_fully_connected_network_is_its_formula():
    network = mlp((2, 3), num_classes=2)
    x, time, y, _ = inputs(network)
    condition = network.embedding(time, y)
    hidden = x.reshape(3, 6)
    for layer, modulation in zip(network.layers, network.modulations, strict=True):
        scale, shift = modulation(condition).tensor_split(2, 1)
        before = (1 + scale) * layer(hidden) + shift
        hidden = before * before.sigmoid()
    expected = network.last(hidden) + network.gate(condition) * x.reshape(3, 6)
    close(network(x, time, y), expected.reshape(3, 2, 3))


def test_groups_divide_the_channels():
    for channels in range(1, 300):
        groups = group_norm(channels).num_groups
        assert channels % groups == 0
        assert groups == 1 or channels // groups >= 16
    counts = [group_norm(channels).num_groups for channels in (8, 16, 32, 96, 512)]
    assert counts == [1, 1, 2, 6, 32]


def test_the_time_embedding_is_its_formula_in_float32_at_least():
    time = torch.tensor([0.0, 0.3, 1.0])
    found = sinusoidal(time, 6)
    for n, t in enumerate(time.tolist()):
        for i in range(3):
            angle = 1000 * 10000 ** (-i / 3) * t
            assert found[n, i].item() == pytest.approx(math.sin(angle), abs=2e-4)
            assert found[n, 3 + i].item() == pytest.approx(math.cos(angle), abs=2e-4)
    assert sinusoidal(time.double()).dtype == torch.float64
    assert sinusoidal(time.bfloat16()).dtype == torch.float32
    network = TimeClassEmbedding(8)
    with torch.autocast("cpu", torch.bfloat16):
        inside = network(time)
        assert F.linear(inside, inside).dtype == torch.bfloat16  # autocast is on again
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, network(time), rtol=0, atol=0)
    # Neighbouring steps of a chain of a thousand are told apart.
    steps = network(torch.arange(1001) / 1000)
    assert (steps[1:] - steps[:-1]).abs().amax(1).min() > 1e-3


def test_channels_last_equals_contiguous():
    for options in ({"context_dim": 5, "num_classes": 3}, {"attention": ()}):
        network = unet(**options).eval()
        x, time, y, context = inputs(network, context=4 if "context_dim" in options else None)
        x.requires_grad_()
        plain = network(x, time, y, context)
        plain_grads = torch.autograd.grad(plain.square().sum(), [x, *network.parameters()])
        network.to(memory_format=torch.channels_last)
        for given in (x, x.contiguous(memory_format=torch.channels_last)):
            out = network(given, time, y, context)
            close(out, plain)
            assert out.is_contiguous(memory_format=torch.channels_last)  # never converted back
            grads = torch.autograd.grad(out.square().sum(), [x, *network.parameters()])
            for one, other in zip(grads, plain_grads, strict=True):
                close(one, other, 1e-8)


def test_autocast_stays_near_and_gives_back_the_precision_of_x():
    for network in (unet(dtype=torch.float32, context_dim=5), mlp(dtype=torch.float32)):
        x, time, _, context = inputs(network, 8, context=3 if isinstance(network, UNet) else None)
        full = network(x, time, None, context)
        with torch.autocast("cpu", torch.bfloat16):
            half = network(x, time, None, context)
        assert half.dtype == torch.float32
        assert 0 < (half - full).square().mean().sqrt() < 0.03 * full.square().mean().sqrt()
        half.sum().backward()
        assert all(p.grad.dtype == torch.float32 for p in network.parameters())
        pure = network.bfloat16()(
            x.bfloat16(), time, None, context if context is None else context.bfloat16()
        )
        assert pure.dtype == torch.bfloat16
        assert (pure.float() - full).square().mean().sqrt() < 0.1 * full.square().mean().sqrt()


def loss_of(network, autocast):
    """A function of parameters and a batch, as `ppgen.compile` traces one."""
    names = [name for name, _ in network.named_parameters()]

    def loss(values, batch):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            out = functional_call(network, dict(zip(names, values, strict=True)), batch)
        return (out - batch[0]).square().mean()

    return loss


@pytest.mark.parametrize("autocast", [False, True])
def test_traced_graphs_give_the_same_losses_and_gradients(autocast):
    for network, tokens in networks():
        network.float()
        batch = inputs(network, 4, context=tokens)
        other = inputs(network, 4, seed=5, context=tokens)
        run = loss_of(network, autocast)
        values = [p.detach().clone().requires_grad_() for p in network.parameters()]
        graph = make_fx(run, pre_dispatch=True)(values, batch)
        graph.graph.eliminate_dead_code()
        graph.recompile()
        for again in (batch, other):
            results = []
            for call in (run, graph):
                torch.manual_seed(3)  # dropout
                loss = call(values, again)
                results.append([loss, *torch.autograd.grad(loss, values)])
            for one, two in zip(*results, strict=True):
                torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_compile_sees_one_graph():
    for network, tokens in networks():
        network.eval()
        batch = inputs(network, context=tokens)
        # Importing its compiler turns PyTorch's own validation off for the whole process.
        with pyro.settings.context(validate_distributions_torch=True):
            compiled = torch.compile(network, fullgraph=True, backend="eager")
            close(compiled(*batch), network(*batch))


def test_a_divergence_is_exact_and_second_derivatives_exist_by_the_plain_kernel():
    """The trace of the Jacobian by vector products, as a likelihood by the flow needs it."""
    network = unet((1, 4, 4), attention=(4,)).eval()
    x, time, *_ = inputs(network, 1)
    jacobian = torch.autograd.functional.jacobian(lambda x: network(x, time), x).reshape(16, 16)
    x.requires_grad_()
    out = network(x, time)
    products = [
        torch.autograd.grad(out, x, unit.reshape(1, 1, 4, 4), retain_graph=True)[0].flatten()
        for unit in torch.eye(16, dtype=x.dtype)
    ]
    close(torch.stack(products), jacobian)
    with sdpa_kernel(SDPBackend.MATH):
        first = torch.autograd.grad(network(x, time).square().sum(), x, create_graph=True)[0]
        assert torch.autograd.grad(first.square().sum(), x)[0].abs().max() > 1e-6


def test_dropout_acts_in_training_alone():
    network = unet(dropout=0.5)
    x, time, *_ = inputs(network)
    assert (network(x, time) - network(x, time)).abs().max() > 1e-3
    network.eval()
    close(network(x, time), network(x, time), 0)


def test_state_survives_safetensors(tmp_path):
    for network, tokens in networks():
        network.to(memory_format=torch.channels_last).eval()
        state = {name: value.contiguous() for name, value in network.state_dict().items()}
        save_file(state, tmp_path / "weights.safetensors")
        batch = inputs(network, context=tokens)
        out = network(*batch)
        for parameter in network.parameters():
            nn.init.zeros_(parameter)
        assert (network(*batch) == 0).all()
        network.load_state_dict(load_file(tmp_path / "weights.safetensors"))
        close(network(*batch), out, 0)


def test_a_short_training_learns_to_denoise():
    """Noise prediction on one repeated image nears its optimum, which is linear in x."""
    for network in (
        unet((1, 4, 4), channels=16, awake=False, dtype=torch.float32),
        mlp((1, 4, 4), awake=False, dtype=torch.float32, hidden=(64, 64)),
    ):
        torch.manual_seed(0)
        datum = torch.randn(1, 4, 4).sign()
        optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
        losses = []
        for _ in range(150):
            time = torch.rand(32)
            signal, noise = (
                f(time * math.pi / 2)[:, None, None, None] for f in (torch.cos, torch.sin)
            )
            draw = torch.randn(32, 1, 4, 4)
            prediction = network(signal * datum + noise * draw, time)
            loss = (prediction - draw).square().mean()
            optimiser.zero_grad(), loss.backward(), optimiser.step()
            losses.append(loss.item())
        assert losses[0] == pytest.approx(1.0, abs=0.2)  # it predicts zero
        assert sum(losses[-10:]) / 10 < 0.35


REFUSED = {
    "odd size": (
        {"shape": (1, 30, 30)},
        "30x30 do not fit 3 .* divisible by 4, such as 28x28 or 32x32",
    ),
    "one side": ({"shape": (1, 28, 27)}, "28x27 .* such as 28x24 or 28x28"),
    "tiny": ({"shape": (1, 2, 2)}, "divisible by 4, such as 4x4"),
    "vector": ({"shape": (3,)}, r"shape \(C, H, W\); got \(3,\): use network=.mlp."),
    "empty": ({"shape": (0, 8, 8)}, r"got \(0, 8, 8\)"),
    "no levels": ({"multipliers": ()}, "multipliers must have one entry a resolution"),
    "zero multiplier": ({"multipliers": (1, 0)}, "multipliers must be 1 or more; got 0"),
    "no channels": ({"channels": 0}, "channels must be 1 or more; got 0"),
    "no blocks": ({"blocks": 0}, "blocks must be 1 or more"),
    "no heads": ({"heads": 0}, "heads must be 1 or more"),
    "heads": ({"channels": 6, "heads": 4, "attention": (28,)}, "heads=4 and 6 channels"),
    "classes": ({"num_classes": 0}, "num_classes must be 1 or more; got 0"),
    "context": ({"context_dim": -1}, "context_dim must be 1 or more; got -1"),
    "outputs": ({"out_channels": 0}, "out_channels must be 1 or more; got 0"),
    "dropout": ({"dropout": 1.0}, "dropout must be at least 0 and below 1; got 1.0"),
    "attention": (
        {"attention": (14, 16)},
        "resolution 16 never occurs: this network has 28, 14, 7",
    ),
    "context alone": ({"attention": (), "context_dim": 4}, "context_dim needs attention"),
}


@pytest.mark.parametrize(("options", "text"), REFUSED.values(), ids=REFUSED)
def test_configurations_refused(options, text):
    with pytest.raises(ValueError, match=text):
        UNet(**({"shape": (1, 28, 28)} | options))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"shape": ()}, "shape must be the sizes"),
        ({"shape": (2, 0)}, "shape must be the sizes"),
        ({"hidden": ()}, "hidden must be widths"),
        ({"hidden": (8, 0)}, r"hidden must be widths of 1 or more.*got \(8, 0\)"),
        ({"num_classes": 0}, "num_classes must be 1 or more; got 0"),
    ],
)
def test_configurations_of_the_fully_connected_network_refused(options, text):
    with pytest.raises(ValueError, match=text):
        MLPDenoiser(**({"shape": (2,)} | options))


def test_inputs_refused():
    plain, labelled = unet(), unet(num_classes=4, context_dim=5)
    x, time, y, context = inputs(labelled, context=2)
    cases = [
        (plain, (x[:, :2], time), ValueError, r"\(n, 3, 8, 8\) .* got \(3, 2, 8, 8\)"),
        (plain, (x.byte(), time), TypeError, "x must be floating point; got torch.uint8"),
        (plain, (x, time[0]), ValueError, r"one number an example, \(3,\); got \(\)"),
        (plain, (x, time[:2]), ValueError, r"\(3,\); got \(2,\)"),
        (plain, (x, torch.arange(3)), TypeError, "time must be floating point"),
        (plain, (x, time, y), ValueError, "network without classes"),
        (plain, (x, time, None, context), ValueError, "built without context_dim"),
        (labelled, (x, time, y), ValueError, r"\(3, L >= 1, 5\); got none"),
        (labelled, (x, time, y, context[..., :4]), ValueError, r"5\); got \(3, 2, 4\)"),
        (labelled, (x, time, y, context[:, :0]), ValueError, r"5\); got \(3, 0, 5\)"),
        (labelled, (x, time, y, context[:1]), ValueError, r"5\); got \(1, 2, 5\)"),
        (labelled, (x, time, y, context[0]), ValueError, r"5\); got \(2, 5\)"),
        (labelled, (x, time, y.double(), context), TypeError, "class indices .* not one-hot"),
        (labelled, (x, time, y[:2], context), ValueError, r"one index an example, \(3,\)"),
        (mlp((3, 8, 8)), (x, time, None, context), ValueError, "takes no context"),
        (mlp((2,)), (x, time), ValueError, r"x must be \(n, 2\)"),
    ]
    for network, batch, kind, text in cases:
        with pytest.raises(kind, match=text):
            network(*batch)


def test_labels_out_of_range():
    check_labels(torch.arange(5), 4)
    check_labels(torch.arange(0), 4)
    for wrong in (-1, 5):
        with pytest.raises(
            ValueError, match=f"label {wrong} is out of range: classes are 0..3, and 4"
        ):
            check_labels(torch.tensor([0, wrong, 2]), 4)
        network = unet(num_classes=4)
        x, time, *_ = inputs(network, 1)
        with pytest.raises(IndexError):  # never silently another class
            network(x, time, torch.tensor([wrong]))
