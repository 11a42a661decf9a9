"""Layers of flows: both directions, the Jacobian of each, and what makes them fast."""

import copy
import math
import subprocess
import sys
from pathlib import Path

import pyro.distributions.transforms as T
import pytest
import torch
import zuko
from torch import nn

from ppgen.nn.autoregressive import Autoregressive
from ppgen.nn.bijections import (
    BijectionTransform,
    Chain,
    Flattened,
    Inverted,
    Logistic,
    Standardise,
)
from ppgen.nn.masked import MADE, MaskedLinear
from ppgen.nn.spline import Affine, RationalQuadratic
from ppgen.nn.transform_adapters import from_pyro, from_zuko
from ppgen.nn.vector_coupling import Coupling, Permutation

# Zuko's import switches it off for the whole process.
torch.distributions.Distribution.set_default_validate_args(True)

CONTEXT = 3


def standardised():
    layer = Standardise((4,))
    layer.initialise(torch.randn(50, 4) * 3 + 1)
    return layer


def autoregressive(elementwise, features, hidden=(11, 9), **options):
    network = MADE(features, elementwise.outputs, hidden, **options)
    return Autoregressive(elementwise, network)


# Features and a layer; those of the second table read a context.
LAYERS = {
    "standardise": (4, standardised),
    "permutation": (5, lambda: Permutation(5)),
    "affine coupling": (5, lambda: Coupling(5, Affine(), (8,))),
    "affine coupling of two": (2, lambda: Coupling(2, Affine(), ())),
    "spline coupling": (4, lambda: Coupling(4, RationalQuadratic(5, 3.0), (8, 8))),
    "affine autoregressive": (5, lambda: autoregressive(Affine(), 5)),
    "spline autoregressive": (4, lambda: autoregressive(RationalQuadratic(4), 4, reverse=True)),
    "narrow autoregressive": (6, lambda: autoregressive(Affine(), 6, hidden=(2, 1))),
    "linear autoregressive": (4, lambda: autoregressive(Affine(), 4, hidden=(), reverse=True)),
    "one dimension": (1, lambda: autoregressive(RationalQuadratic(3), 1)),
    "inverted": (4, lambda: Inverted(autoregressive(Affine(), 4))),
    "chain": (
        4,
        lambda: Chain([Coupling(4, Affine(), (8,)), Permutation(4), autoregressive(Affine(), 4)]),
    ),
    "Pyro's coupling": (4, lambda: from_pyro(T.affine_coupling(4, hidden_dims=[8]))),
    "Pyro's autoregressive": (4, lambda: from_pyro(T.affine_autoregressive(4, [16]))),
    "Pyro's spline": (3, lambda: from_pyro(T.Spline(3, count_bins=4))),
    "Pyro's permutation": (4, lambda: from_pyro(T.Permute(torch.tensor([2, 0, 3, 1])))),
    "PyTorch's own": (3, lambda: from_pyro(torch.distributions.transforms.SigmoidTransform())),
    "Zuko's autoregressive": (4, lambda: from_zuko(lazy(zuko.flows.MAF(4, transforms=2)))),
    "Zuko's spline": (3, lambda: from_zuko(lazy(zuko.flows.NSF(3, transforms=1, passes=2)))),
}
CONDITIONAL = {
    "affine coupling": (5, lambda: Coupling(5, Affine(), (8,), context=CONTEXT)),
    "spline coupling": (3, lambda: Coupling(3, RationalQuadratic(4), (8,), context=CONTEXT)),
    "affine autoregressive": (4, lambda: autoregressive(Affine(), 4, context=CONTEXT)),
    "spline autoregressive": (
        3,
        lambda: autoregressive(RationalQuadratic(4), 3, context=CONTEXT, reverse=True),
    ),
    "linear autoregressive": (3, lambda: autoregressive(Affine(), 3, hidden=(), context=CONTEXT)),
    "one dimension": (1, lambda: autoregressive(Affine(), 1, context=CONTEXT)),
    "Pyro's coupling": (4, lambda: from_pyro(T.conditional_affine_coupling(4, CONTEXT, [8]))),
    "Zuko's autoregressive": (
        4,
        lambda: from_zuko(lazy(zuko.flows.MAF(4, CONTEXT, transforms=2))),
    ),
}
CASES = [(name, *case, False) for name, case in LAYERS.items()]
CASES += [(name, *case, True) for name, case in CONDITIONAL.items()]
cases = pytest.mark.parametrize(
    ("features", "make", "conditional"),
    [case[1:] for case in CASES],
    ids=[f"{case[0]}{', context' if case[3] else ''}" for case in CASES],
)


def lazy(flow):
    return flow.transform


@pytest.fixture(autouse=True)
def number_type():
    """What `made` sets is put back."""
    before = torch.get_default_dtype()
    yield
    torch.set_default_dtype(before)


def made(features, make, conditional, dtype=torch.float64, n=6):
    """A layer with weights of some size, data that reach its tails, a context."""
    torch.manual_seed(1)
    torch.set_default_dtype(dtype)  # Pyro's autoregressive inverse makes tensors of the default
    layer = make().to(dtype)
    size = 0.05 if hasattr(layer, "transform") else 0.3  # others' scales have no bound
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(size * torch.randn_like(parameter))
    x = 2.5 * torch.randn(n, features, dtype=dtype)
    context = torch.randn(n, CONTEXT, dtype=dtype) if conditional else None
    return layer, x, context


@cases
def test_inverse_undoes_forward(features, make, conditional):
    for dtype, error in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        layer, z, context = made(features, make, conditional, dtype)
        if dtype == torch.float32 and hasattr(layer, "transform"):
            continue  # how others round is theirs
        with torch.no_grad():
            x, log_det = layer(z, context)
            back, back_log_det = layer.inverse(x, context)
            again, _ = layer(back, context)
        assert x.shape == z.shape and log_det.shape == (len(z),)
        torch.testing.assert_close(back, z, rtol=error, atol=error)
        torch.testing.assert_close(again, x, rtol=error, atol=error)
        torch.testing.assert_close(back_log_det, -log_det, rtol=10 * error, atol=10 * error)


@cases
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_log_determinant_is_that_of_autograds_jacobian(features, make, conditional, direction):
    layer, value, context = made(features, make, conditional)
    if direction == "inverse":
        with torch.no_grad():
            value = layer(value, context)[0]
    run = getattr(layer, direction)
    for row in range(len(value)):
        given = None if context is None else context[row : row + 1]
        jacobian = torch.autograd.functional.jacobian(
            lambda one, given=given: run(one[None], given)[0][0], value[row]
        )
        expected = torch.linalg.slogdet(jacobian)[1]
        found = run(value[row : row + 1], given)[1][0]
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


@cases
def test_both_directions_are_differentiable(features, make, conditional):
    """Gradients of parameters by either direction agree with finite differences."""
    layer, value, context = made(features, make, conditional, n=3)
    parameters = [one for one in layer.parameters() if one.requires_grad]
    with torch.no_grad():
        middle = layer(value, context)[0]
    for run, start in ((layer.forward, value), (layer.inverse, middle)):

        def loss(run=run, start=start):
            image, log_det = run(start, context)
            return (image.sin().sum(1) + log_det).sum()

        if not parameters:
            continue
        gradients = torch.autograd.grad(loss(), parameters, allow_unused=True)
        torch.manual_seed(2)
        away = [torch.randn_like(one) for one in parameters]
        step = 1e-6
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                for one, move in zip(parameters, away, strict=True):
                    one.add_(move, alpha=sign * step)
                values.append(loss())
                for one, move in zip(parameters, away, strict=True):
                    one.add_(move, alpha=-sign * step)
        slope = sum(
            (gradient * move).sum()
            for gradient, move in zip(gradients, away, strict=True)
            if gradient is not None
        )
        expected = (values[0] - values[1]) / (2 * step)
        torch.testing.assert_close(slope, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("hidden", [(), (7,), (3, 40, 5)])
@pytest.mark.parametrize("context", [0, 2])
def test_made_sees_those_before_and_all_of_them(reverse, hidden, context):
    torch.manual_seed(0)
    features, outputs = 6, 2
    network = MADE(
        features, outputs, hidden, context=context, reverse=reverse, activation="tanh"
    ).double()
    given = torch.randn(context, 1, dtype=torch.float64) if context else None
    x = torch.randn(features, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: network(x[:, None], given)[..., 0], x)
    rank = {place: turn for turn, place in enumerate(network.order)}
    for i in range(features):
        for j in range(features):
            slope = jacobian[:, i, j].abs().max()
            if rank[j] >= rank[i]:
                assert slope == 0, (i, j)
            elif not hidden or min(hidden) >= features:  # else units are too few for all degrees
                assert slope > 0, (i, j)
    # However narrow, the last dimension sees all others and each but the last is seen by it.
    assert (jacobian[:, network.order[-1], list(network.order[:-1])].abs().amax(0) > 0).all()
    if given is not None:
        of_context = torch.autograd.functional.jacobian(
            lambda c: network(x[:, None], c)[..., 0], given
        )
        seen = of_context.abs().amax((0, 2, 3)) > 0
        assert seen.all() if hidden else seen.any()


def test_all_turns_together_cost_the_arithmetic_of_one_pass(monkeypatch):
    """The weights that samples multiply by are at most those of one pass, whatever D."""
    used = []
    product = torch.addmm

    def counted(bias, weight, x):
        used.append(weight.numel())
        return product(bias, weight, x)

    for features in (4, 32):
        layer = autoregressive(Affine(), features, hidden=(64, 64))
        total = sum(part.weight.numel() for part in layer.network.layers)
        monkeypatch.setattr(torch, "addmm", counted)
        with torch.no_grad():
            used.clear()
            z, _ = layer.inverse(torch.randn(3, features))
            assert sum(used) == total and len(used) == 3
            used.clear()
            layer(z)
            assert 0 < sum(used) <= total
        monkeypatch.undo()


def test_directions_by_passes_of_the_network(monkeypatch):
    """Density training runs each masked network once, an inverted layer runs it once to sample."""
    passes = []
    forward = MADE.forward

    def counted(self, *args):
        passes.append(self)
        return forward(self, *args)

    monkeypatch.setattr(MADE, "forward", counted)
    layer = autoregressive(Affine(), 5)
    x = torch.randn(3, 5)
    layer.inverse(x)
    assert len(passes) == 1
    layer(x)
    assert len(passes) == 1  # in turns
    inverted = Inverted(layer)
    inverted(x)
    assert len(passes) == 2
    inverted.inverse(x)
    assert len(passes) == 2


def test_zeros_are_the_identity():
    x = torch.linspace(-7, 7, 29)
    for elementwise in (Affine(), RationalQuadratic(6, 4.0)):
        parameters = torch.zeros(elementwise.outputs, *x.shape)
        y, log_slope = elementwise(x, parameters)
        torch.testing.assert_close(y, x, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(log_slope, torch.zeros_like(x), rtol=0, atol=1e-5)


def test_spline_meets_the_identity_smoothly_and_rises():
    torch.manual_seed(3)
    spline = RationalQuadratic(7, 3.0).double()
    edge = torch.tensor([-3.0, 3.0], dtype=torch.float64)
    x = torch.cat([torch.linspace(-4, 4, 4001, dtype=torch.float64), edge - 1e-13, edge + 1e-13])
    x = x.sort().values
    raw = 3 * torch.randn(spline.outputs, 1, dtype=torch.float64)
    y, log_slope = spline(x, raw.expand(-1, len(x)))
    assert (y.diff() > 0).all()
    outside = x.abs() >= 3
    assert torch.equal(y[outside], x[outside]) and (log_slope[outside] == 0).all()
    near = (x.abs() - 3).abs() < 1e-12
    torch.testing.assert_close(y[near], x[near], rtol=0, atol=1e-11)
    assert log_slope[near].abs().max() < 1e-5


def test_spline_is_that_of_its_knots():
    """Against the paper's formula, bin by bin, written out for one spline."""
    torch.manual_seed(4)
    bins, bound = 4, 2.0
    spline = RationalQuadratic(bins, bound).double()
    raw = torch.randn(spline.outputs, dtype=torch.float64)
    pairs = raw[: 2 * bins].view(bins, 2)
    sizes = 1e-3 + (1 - 1e-3 * bins) * pairs.softmax(0)
    knots = torch.cat([torch.zeros(1, 2), sizes.cumsum(0)]) * 2 * bound - bound
    inner = nn.functional.softplus(raw[2 * bins :] + math.log(math.e ** (1 - 1e-3) - 1)) + 1e-3
    slopes = torch.cat([torch.ones(1), inner, torch.ones(1)])
    for x in torch.linspace(-1.99, 1.99, 41, dtype=torch.float64):
        k = max(j for j in range(bins) if knots[j, 0] <= x)
        (x0, y0), (x1, y1) = knots[k], knots[k + 1]
        t, s = (x - x0) / (x1 - x0), (y1 - y0) / (x1 - x0)
        below = s + (slopes[k] + slopes[k + 1] - 2 * s) * t * (1 - t)
        expected = y0 + (y1 - y0) * (s * t**2 + slopes[k] * t * (1 - t)) / below
        found, _ = spline(x[None], raw[:, None])
        torch.testing.assert_close(found[0], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("elementwise", [Affine(), RationalQuadratic()], ids=["affine", "spline"])
def test_extreme_parameters_stay_finite_in_float32(elementwise):
    torch.manual_seed(5)
    x = torch.cat([torch.linspace(-6, 6, 500), torch.tensor([-5.0, 5.0, 1e4, -1e4])])
    for size in (1.0, 10.0, 100.0, 1e4):
        raw = (size * torch.randn(elementwise.outputs, len(x))).requires_grad_()
        value = x.clone().requires_grad_()
        y, log_slope = elementwise(value, raw)
        (y.sum() + log_slope.sum()).backward()
        for tensor in (y, log_slope, raw.grad, value.grad, *elementwise.solve(x, raw.detach())):
            assert tensor.isfinite().all(), size


def test_logistic_and_flattened_of_pictures():
    torch.manual_seed(0)
    shape = (1, 2, 3)
    layer = Chain([Flattened(Coupling(6, Affine(), (8,)), shape), Logistic()]).double()
    x = torch.rand(5, *shape, dtype=torch.float64)
    x[0], x[1] = 0.0, 1.0
    z, log_det = layer.inverse(x)
    assert z.shape == x.shape and z.isfinite().all()
    torch.testing.assert_close(layer(z)[0], x, rtol=1e-10, atol=1e-10)
    for row in range(5):
        jacobian = torch.autograd.functional.jacobian(
            lambda one: layer.inverse(one[None])[0][0].flatten(), x[row]
        ).reshape(6, 6)
        torch.testing.assert_close(torch.linalg.slogdet(jacobian)[1], log_det[row])


def test_transform_of_a_bijection_is_torchs_own_frame():
    torch.manual_seed(0)
    layer = Coupling(4, Affine(), (8,)).double()
    transform = BijectionTransform(layer, (4,))
    base = torch.distributions.Independent(
        torch.distributions.Normal(torch.zeros(4).double(), torch.ones(4).double()), 1
    )
    flow = torch.distributions.TransformedDistribution(base, [transform])
    x = torch.randn(3, 5, 4, dtype=torch.float64)
    z, log_det = layer.inverse(x.reshape(15, 4))
    expected = (base.log_prob(z) + log_det).reshape(3, 5)
    torch.testing.assert_close(flow.log_prob(x), expected)
    drawn = transform(z)
    torch.testing.assert_close(transform.log_abs_det_jacobian(z, drawn), -log_det)
    # One that it does not remember is computed anew.
    torch.testing.assert_close(transform.log_abs_det_jacobian(z.clone(), drawn), -log_det)


def test_what_a_call_leaves_on_pyros_transforms_is_put_back():
    layer = from_pyro(T.affine_autoregressive(3, [8]))
    before = dict(vars(layer.transform))
    x = layer(torch.randn(4, 3))[0]
    layer.inverse(x)
    after = vars(layer.transform)
    assert before.keys() == after.keys()
    assert all(after[key] is value for key, value in before.items())
    copy.deepcopy(layer)  # a graph held on to could not be copied


def test_refusals():
    with pytest.raises(TypeError, match="takes a transform of Pyro or PyTorch; got Linear"):
        from_pyro(nn.Linear(2, 2))
    with pytest.raises(TypeError, match=r"got MAF; give its `transform`"):
        from_zuko(zuko.flows.MAF(2))
    with pytest.raises(ValueError, match=r"Planar has no inverse.*Inverted"):
        from_pyro(T.planar(2)).inverse(torch.randn(3, 2))
    with pytest.raises(ValueError, match="needs a context"):
        from_pyro(T.conditional_affine_coupling(4, 2))(torch.randn(3, 4))
    with pytest.raises(ValueError, match="bins must be from 2 to 256; got 1"):
        RationalQuadratic(1)
    with pytest.raises(ValueError, match="bound must be positive; got 0"):
        RationalQuadratic(4, 0.0)
    with pytest.raises(ValueError, match="2 dimensions or more; got 1"):
        Coupling(1, Affine())
    # The other way round, what has no inverse gives densities.
    z, log_det = Inverted(from_pyro(T.planar(2))).inverse(torch.randn(3, 2))
    assert z.shape == (3, 2) and log_det.shape == (3,)


def test_from_zuko_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "zuko.lazy", None)
    with pytest.raises(ImportError, match="pip install zuko"):
        from_zuko(nn.Linear(2, 2))


def test_the_adapter_leaves_validation_on():
    script = """
import torch
from torch.distributions import Distribution
from ppgen.nn.transform_adapters import from_zuko
try:
    from_zuko(torch.nn.Linear(2, 2))
except TypeError:
    import zuko
    print(Distribution._validate_args, bool(zuko.flows))
"""
    found = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[1],
        timeout=60,
    )
    assert found.stdout.strip() == "True True", found.stderr


def test_masked_weights_are_zero_and_stay_so():
    layer = MaskedLinear(torch.tensor([[True, False], [True, True]]))
    x = torch.randn(2, 5)
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad[0, 1] == 0 and (layer.weight.grad[layer.mask == 1] != 0).all()
    changed = layer(x + torch.tensor([[0.0], [1.0]]))
    torch.testing.assert_close(changed[0], layer(x)[0])
