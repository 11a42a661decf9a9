"""Flows over vectors: their densities, their directions, what training leaves of them."""

import copy
import math

import pyro.distributions.transforms as T
import pytest
import torch
import zuko

import ppgen
from ppgen.compile import Compiled
from ppgen.models.flow import Flow
from ppgen.models.vector_flow import IAF, MAF, NeuralSpline, RealNVP
from ppgen.nn.bijections import Chain, Inverted, Standardise
from ppgen.nn.spline import Elementwise, RationalQuadratic
from ppgen.nn.transform_adapters import from_pyro, from_zuko
from ppgen.objective import ELBO

# Zuko's import switches it off for the whole process.
torch.distributions.Distribution.set_default_validate_args(True)
SMALL = {"layers": 2, "hidden": (8, 8)}
MADE = {
    "RealNVP": lambda **options: RealNVP((4,), **SMALL, **options),
    "MAF": lambda **options: MAF((4,), **SMALL, **options),
    "IAF": lambda **options: IAF((4,), **SMALL, **options),
    "spline, coupling": lambda **options: NeuralSpline((4,), **SMALL, **options),
    "spline, autoregressive": lambda **options: NeuralSpline(
        (4,), kind="autoregressive", **SMALL, **options
    ),
}
flows = pytest.mark.parametrize("make", MADE.values(), ids=MADE)
CHAINS = {
    "Pyro": lambda: [
        from_pyro(T.affine_coupling(2)),
        from_pyro(T.ComposeTransformModule([T.affine_coupling(2), T.LeakyReLUTransform()])),
        from_pyro(T.Permute(torch.tensor([1, 0]))),
        Inverted(from_pyro(T.planar(2))),
    ],
    "Zuko": lambda: [
        from_zuko(layer)
        for layer in zuko.flows.NSF(2, bins=4, transforms=2, hidden_features=(8,)).transform
        .transforms
    ],
}  # fmt: skip


def rough(flow):
    """The flow with weights of some size, so that nothing is the identity."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return flow


@flows
@pytest.mark.parametrize("classes", [None, 3])
def test_log_prob_is_the_change_of_variables(make, classes):
    """log N(z) + log |det dz/dx| with autograd's Jacobian of z, and the ELBO is its mean."""
    flow = rough(make(num_classes=classes)).double()
    x = 1.5 * torch.randn(6, 4, dtype=torch.float64) + 1
    y = None if classes is None else torch.arange(6) % 3
    batch = (x,) if y is None else (x, y)
    flow.initialise(*batch)  # a scale and a shift of the data are part of the map
    context = None if y is None else torch.nn.functional.one_hot(y, 3).double()
    expected = []
    for row in range(6):
        given = None if context is None else context[row : row + 1]

        def noise(one, given=given):
            return flow.bijection.inverse(one[None], given)[0][0]

        jacobian = torch.autograd.functional.jacobian(noise, x[row])
        normal = -0.5 * noise(x[row]).square().sum() - 2 * math.log(2 * math.pi)
        expected.append(normal + torch.linalg.slogdet(jacobian)[1])
    expected = torch.stack(expected)
    torch.testing.assert_close(flow.log_prob(*batch), expected, rtol=1e-9, atol=1e-9)
    objective = ELBO(flow)
    loss, terms = objective(*batch)
    torch.testing.assert_close(loss, -expected.mean(), rtol=1e-9, atol=1e-9)
    assert list(terms) == ["reconstruction"]  # nothing is inferred
    assert flow.density == "exact"


def agree_when_compiled(flow, *batch):
    plain = ELBO(flow)
    plain.prepare(*batch)
    compiled = Compiled(copy.deepcopy(plain))
    for size in (len(batch[0]), 3):
        part = [one[:size] for one in batch]
        torch.manual_seed(0)
        expected, _ = plain(*part)
        torch.manual_seed(0)
        found, _ = compiled(*part)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        mine = torch.autograd.grad(found, list(compiled.parameters()), allow_unused=True)
        theirs = torch.autograd.grad(expected, list(plain.parameters()), allow_unused=True)
        for one, other in zip(mine, theirs, strict=True):
            assert (one is None) == (other is None)
            if other is not None:
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert compiled.reason is None and len(compiled.graphs) == 2


@flows
@pytest.mark.parametrize(("levels", "classes"), [(None, None), (5, 3)])
def test_compiled_is_plain_and_does_not_fall_back(make, levels, classes):
    flow = rough(make(levels=levels, num_classes=classes))
    x = torch.randn(7, 4) if levels is None else torch.randint(levels, (7, 4)) / (levels - 1)
    batch = (x,) if classes is None else (x, torch.arange(7) % 3)
    flow.initialise(*batch)
    agree_when_compiled(flow, *batch)


@pytest.mark.parametrize("name", CHAINS)
def test_others_transforms_train_as_a_graph(name):
    torch.manual_seed(0)
    flow = Flow((2,), Chain(CHAINS[name]()))
    agree_when_compiled(flow, torch.randn(9, 2))
    drawn = None if name == "Pyro" else flow.sample(5)  # planar flows draw nothing
    assert drawn is None or drawn.isfinite().all()


def test_what_selects_by_a_mask_runs_as_plain_pyro():
    """How many points lie outside of Pyro's spline changes from batch to batch."""
    torch.manual_seed(0)
    flow = Flow((2,), Chain([from_pyro(T.spline_coupling(2))]))
    plain = ELBO(flow)
    one, none, three = torch.rand(3, 9, 2)
    one[0, 1], three[:3, 1] = 10.0, 10.0
    plain.prepare(one)
    compiled = Compiled(copy.deepcopy(plain))
    with pytest.warns(UserWarning, match="depends on the data"):
        compiled(one)
    for batch in (one, none, three):
        torch.testing.assert_close(compiled(batch)[0], plain(batch)[0])


@pytest.mark.parametrize(
    "transform",
    [
        T.batchnorm(4).eval(),
        T.matrix_exponential(4),
        T.ComposeTransformModule([T.spline(4), T.affine_coupling(4)]),
        torch.distributions.transforms.SigmoidTransform().inv,
    ],
    ids=["one for all examples", "a number", "composed", "inverted"],
)
@pytest.mark.parametrize("n", [1, 2, 4, 5])
def test_log_determinants_of_others_are_of_each_example(transform, n):
    bijection = from_pyro(transform)
    z = (0.2 + 0.6 * torch.rand(n, 4)).requires_grad_(False)
    x, log_det = bijection(z)
    for k in range(n):
        jacobian = torch.autograd.functional.jacobian(lambda q: bijection(q[None])[0][0], z[k])
        exact = torch.linalg.slogdet(jacobian)[1]
        torch.testing.assert_close(log_det[k], exact, rtol=1e-3, atol=1e-3)
    back, other = bijection.inverse(x)
    torch.testing.assert_close(back, z, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(other, -log_det, rtol=1e-3, atol=1e-3)


def test_rare_ink_at_the_border_is_not_hundreds_of_deviations_out():
    """A pixel that is dark in the first examples keeps a scale that light fits in."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(256, (600, 1, 4, 4), generator=generator)
    x[:, :, 0] = 0
    rare = x[:20].clone()
    rare[:, :, 0] = 255
    program = NeuralSpline((1, 4, 4), layers=2, hidden=(16,), levels=256)
    data = ppgen.Dataset.from_tensors(x, x[:20], x[:20], levels=256)
    ppgen.fit(program, data, steps=60, device="cpu", progress=False, validate_epochs=0)
    with torch.no_grad():
        worst = program.log_prob(rare.float() / 255).min()
    assert worst > -8000  # tens of deviations out in four pixels; without a floor, some 190,000


def test_the_start_does_not_depend_on_the_batch_size():
    x = 1000 + 100 * torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    data = ppgen.Dataset.from_tensors(x)
    for batch_size in (1, 64):
        flow = MAF((3,), layers=1, hidden=(4,))
        ppgen.fit(flow, data, steps=1, batch_size=batch_size, lr=1e-9, device="cpu",
                  progress=False, validate_epochs=0)  # fmt: skip
        last = flow.bijection.layers[-1]
        torch.testing.assert_close(last.loc, x.mean(0), rtol=0.02, atol=0)
        torch.testing.assert_close(last.scale, x.std(0), rtol=0.1, atol=0)


def test_constant_dimensions_have_a_scale_of_one():
    layer = Standardise((3,))
    layer.initialise(torch.tensor([0.1, 1000.1, 1e-3]).expand(128, 3))
    assert torch.equal(layer.scale, torch.ones(3))


@pytest.mark.parametrize("bins", [4, 16])
def test_a_spline_is_the_same_under_autocast(bins):
    spline = RationalQuadratic(bins)
    x, parameters = torch.linspace(-4.9, 4.9, 2000), torch.randn(3 * bins - 1, 1).expand(-1, 2000)
    plain, slope = spline(x, parameters)
    with torch.autocast("cpu", torch.bfloat16):
        found, other = spline(x, parameters)
    assert torch.equal(found, plain) and torch.equal(other, slope)
    assert (found.diff() > 0).all()


@flows
def test_gradients_reach_every_parameter_from_the_start(make):
    flow = make(num_classes=3)
    loss, _ = ELBO(flow)(torch.randn(40, 4), torch.arange(40) % 3)
    loss.backward()
    silent = [name for name, p in flow.named_parameters() if p.grad.abs().max() < 1e-6]
    assert silent == []


@pytest.fixture(scope="module")
def trained():
    """Flows after a thousand steps on the moons, in float32 as always."""
    data = ppgen.load_data("moons")
    sizes = {"hidden": (32, 32)}
    made = {
        "RealNVP": RealNVP((2,), layers=4, **sizes),
        "MAF": MAF((2,), layers=3, **sizes),
        "spline, coupling": NeuralSpline((2,), layers=2, **sizes),
        "spline, autoregressive": NeuralSpline((2,), kind="autoregressive", layers=2, **sizes),
    }
    torch.manual_seed(0)
    for flow in made.values():
        ppgen.fit(
            flow, data, steps=1000, batch_size=128, lr=4e-3, device="cpu", progress=False,
            validate_epochs=0,
        )  # fmt: skip
    return made, data.test.batch(slice(0, 1000))[0]


def grid(side=500, reach=3.5):
    line = (torch.arange(side) + 0.5) / side * 2 * reach - reach
    return torch.cartesian_prod(line, line), (2 * reach / side) ** 2


def test_densities_integrate_to_one(trained):
    points, cell = grid()
    for name, flow in trained[0].items():
        with torch.no_grad():
            total = flow.log_prob(points).double().exp().sum().item() * cell
        assert total == pytest.approx(1, abs=0.01), name


def test_flows_are_stable_after_training(trained):
    """Finite, and inverse to themselves in float32; better than the Gaussian they start from."""
    made, x = trained
    gaussian = -torch.distributions.MultivariateNormal(x.mean(0), x.T.cov()).log_prob(x).mean()
    for name, flow in made.items():
        with torch.no_grad():
            z, log_det = flow.bijection.inverse(x)
            back, back_log_det = flow.bijection(z)
            nats = -flow.log_prob(x).mean()
            wide = flow.bijection(4 * torch.randn(1000, 2))[0]
        assert (back - x).abs().max() < 1e-3, name
        assert (back - x).abs().mean() < 1e-5, name
        assert (log_det + back_log_det).abs().mean() < 1e-3, name
        assert wide.isfinite().all(), name
        assert nats < gaussian - 0.3, name


def energy(x, y):
    """The energy distance of two samples, each (n, D)."""
    between = torch.cdist(x, y).mean()
    return (2 * between - torch.cdist(x, x).mean() - torch.cdist(y, y).mean()).item()


def p_value(x, y, turns=99):
    """Of the hypothesis that two samples have one law, by permutations."""
    generator = torch.Generator().manual_seed(0)
    both, found = torch.cat([x, y]), energy(x, y)
    more = 0
    for _ in range(turns):
        order = torch.randperm(len(both), generator=generator)
        more += energy(both[order[: len(x)]], both[order[len(x) :]]) >= found
    return (1 + more) / (1 + turns)


def test_samples_have_the_density_that_is_told(trained):
    """Against draws from the density itself, cell by cell; another flow's density is told apart."""
    torch.manual_seed(0)
    points, cell = grid()
    drawn = {}
    for name, flow in trained[0].items():
        with torch.no_grad():
            weights = flow.log_prob(points).exp()
        chosen = points[torch.multinomial(weights, 600, replacement=True)]
        drawn[name] = chosen + (torch.rand(600, 2) - 0.5) * math.sqrt(cell)
        assert p_value(flow.sample(600), drawn[name]) > 0.02, name
    start = MAF((2,), layers=3)
    start.initialise(trained[1])
    assert p_value(start.sample(600), drawn["MAF"]) == 0.01


def test_temperature_is_the_spread_of_the_noise(trained):
    for flow in trained[0].values():
        for temperature in (1.0, 0.5):
            torch.manual_seed(2)
            with torch.no_grad():
                z, _ = flow.bijection.inverse(flow.sample(4000, temperature=temperature))
            torch.testing.assert_close(z.std(0), torch.full((2,), temperature), rtol=0.05, atol=0)
    with pytest.raises(ValueError, match="temperature must be positive and finite; got 0"):
        flow.sample(3, temperature=0.0)


@pytest.mark.parametrize("kind", ["coupling", "autoregressive"])
def test_a_conditional_flow_learns_the_class(kind):
    data = ppgen.load_data("moons")
    flow = NeuralSpline((2,), kind=kind, layers=2, hidden=(32, 32), num_classes=data.num_classes)
    ppgen.fit(flow, data, steps=400, lr=4e-3, device="cpu", progress=False, validate_epochs=0)
    x, y = data.test.batch(slice(0, 500))
    with torch.no_grad():
        each = torch.stack([flow.log_prob(x, torch.full_like(y, k)) for k in range(2)], 1)
    assert (each.argmax(1) == y).double().mean() > 0.98
    drawn = flow.sample(500, y)
    nearest = torch.cdist(drawn, x).argmin(1)
    assert (y[nearest] == y).double().mean() > 0.97


def test_probabilities_of_levels_are_bounded_by_the_mass_of_their_cells():
    """One pixel of 4 levels: the bound is below the log-mass, which many draws reach."""
    levels = 4
    flow = rough(NeuralSpline((1,), kind="autoregressive", levels=levels, **SMALL)).eval()
    flow.initialise(torch.tensor([[0.0], [1 / 3], [1.0], [1.0]]))
    x = torch.arange(levels)[:, None] / (levels - 1)
    fine = (torch.arange(4000) + 0.5)[:, None] / 4000
    with torch.no_grad():
        density = flow.distribution(4000).log_prob(fine).exp()
        mass = density.reshape(levels, -1).sum(1) / 4000
        bound = torch.stack([flow.log_prob(x) for _ in range(400)])
        many = flow.log_prob(x, num_particles=20_000)
    assert flow.density == "bound"
    assert mass.sum() <= 1 + 1e-3
    error = bound.std(0) / len(bound) ** 0.5
    assert (bound.mean(0) <= mass.log() + 4 * error).all()
    torch.testing.assert_close(many, mass.log(), rtol=0, atol=0.05)


def test_samples_of_levels_are_levels():
    for flow in (
        MAF((1, 4, 2), levels=17, **SMALL),
        RealNVP((1, 4, 2), network="mlp", levels=17, **SMALL),
    ):
        x = torch.randint(17, (40, 1, 4, 2)) / 16
        flow.initialise(x)
        drawn = flow.sample(30)
        assert drawn.shape == (30, 1, 4, 2)
        assert torch.equal((drawn * 16).round() / 16, drawn)
        assert flow.log_prob(x).isfinite().all()


def test_realnvp_of_images_is_the_multiscale_one():
    shape = (1, 8, 8)
    image = RealNVP(shape, hidden=(4,), layers=1, levels=17)
    assert not [one for one in image.modules() if isinstance(one, Elementwise)]
    vector = RealNVP(shape, network="mlp", levels=17, **SMALL)
    assert len([one for one in vector.modules() if isinstance(one, Elementwise)]) == 2
    x = torch.randint(17, (6, *shape)) / 16
    for flow in (image, vector):
        flow.initialise(x)
        with torch.no_grad():
            inside = torch.rand(6, *shape)
            z, log_det = flow.bijection.inverse(inside)
            torch.testing.assert_close(flow.bijection(z)[0], inside, rtol=0, atol=1e-4)
        assert log_det.shape == (6,)


def test_a_single_number_has_a_flow_of_splines():
    torch.manual_seed(0)
    x = torch.cat([torch.randn(2000, 1) * 0.3 - 1, torch.randn(1000, 1) * 0.2 + 2])
    data = ppgen.Dataset.from_tensors(x)
    flow = NeuralSpline((1,), kind="autoregressive", layers=1, hidden=(4,), bins=16)
    ppgen.fit(flow, data, steps=300, lr=2e-2, device="cpu", progress=False, validate_epochs=0)
    line = torch.linspace(-3, 4, 1401)[:, None]
    with torch.no_grad():
        found = flow.log_prob(line).exp()

    def normal(loc, scale):
        return torch.distributions.Normal(loc, scale).log_prob(line[:, 0]).exp()

    truth = normal(-1, 0.3) * 2 / 3 + normal(2, 0.2) / 3
    assert (found.sum() * 0.005).item() == pytest.approx(1, abs=0.01)
    assert ((found - truth).abs().sum() * 0.005).item() < 0.15  # twice the total variation


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: NeuralSpline((1,)),
            r"splits 2 dimensions or more and shape \(1,\) has 1: use MAF",
        ),
        (lambda: RealNVP((1,)), r"shape \(1,\) has 1"),
        (lambda: RealNVP((1, 7, 7)), "odd"),
        (lambda: RealNVP((4,), network="multiscale"), r"images, shape \(C, H, W\); got \(4,\)"),
        (lambda: RealNVP((4,), network="mpl"), "did you mean mlp"),
        (lambda: RealNVP((4,), scales=2), "scales are those of network='multiscale'"),
        (lambda: RealNVP((1, 8, 8), hidden=(8, 8)), "one number of channels"),
        (lambda: NeuralSpline((2,), bins=1), "bins must be from 2 to 256; got 1"),
        (lambda: NeuralSpline((2,), bound=-1.0), "bound must be positive; got -1"),
        (lambda: NeuralSpline((2,), kind="autoregresive"), "did you mean autoregressive"),
        (lambda: MAF((2,), hidden=(8, 0)), "hidden must be 1 or more; got 0"),
        (lambda: MAF((2,), layers=0), "layers must be 1 or more; got 0"),
        (lambda: IAF((2,), activation="reluu"), "did you mean relu"),
        (lambda: MAF((2,), levels=4, dequantisation="unifrom"), "did you mean uniform"),
    ],
)
def test_bad_input_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
