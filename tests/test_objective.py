"""The ELBO and its kin against Pyro's own, against closed forms and against enumeration."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import RenyiELBO, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule
from torch import nn

from ppgen import ELBO, ImportanceWeightedELBO
from ppgen.objective import PyroObjective
from ppgen.sites import guide_of
from tests.programs import (
    CASES,
    Bits,
    Hierarchy,
    LinearGaussian,
    Location,
    MixedVAE,
    Mixture,
    OwnAutoGuide,
    StrangerVAE,
    TopDown,
    TwoViews,
    reals,
)

PLAIN = [
    "vae-mlp-bernoulli",
    "vae-conditional-prior",
    "stranger",
    "linear-exact-guide",
    "hierarchy",
    "top-down",
    "bits",
    "bits-subsampled",
    "location",
    "own-autoguide",
    "attributes",
    "gaussian",
    "two-views",
    "scaled",
    "masked",
    "gradients",
]


def gradients(program: nn.Module, loss) -> dict[str, torch.Tensor]:
    found = torch.autograd.grad(loss, list(program.parameters()), allow_unused=True)
    names = [name for name, _ in program.named_parameters()]
    return {name: g for name, g in zip(names, found, strict=True) if g is not None}


def at_seed(seed: int, call):
    torch.manual_seed(seed)
    return call()


@pytest.mark.parametrize("analytic", [False, True], ids=["Trace_ELBO", "TraceMeanField_ELBO"])
@pytest.mark.parametrize("name", PLAIN)
def test_loss_and_gradient_are_pyros(name: str, analytic: bool):
    """Per example, under one seed, score-function gradients included."""
    if analytic and name in ("hierarchy", "bits", "bits-subsampled"):
        pytest.skip("not a reparameterised mean-field pair: TraceMeanField_ELBO does not apply")
    case = CASES[name]
    program, batch = case.program().eval(), case.batch()
    objective = ELBO(program, analytic_kl=analytic)
    size = objective.prepare(*batch).data_size
    loss, terms = at_seed(1, lambda: objective(*batch))
    mine = gradients(program, loss)
    elbo = TraceMeanField_ELBO() if analytic else Trace_ELBO()
    with pyro.get_param_store().scope():
        theirs_loss = at_seed(
            1, lambda: elbo.differentiable_loss(program.model, guide_of(program), *batch) / size
        )
        theirs = gradients(program, theirs_loss)
    torch.testing.assert_close(loss, theirs_loss.to(loss), rtol=1e-5, atol=1e-5)
    assert set(mine) == set(theirs)
    for key, value in theirs.items():
        torch.testing.assert_close(mine[key], value, rtol=1e-4, atol=1e-5, msg=key)
    total = terms["reconstruction"] + terms.get("kl", 0.0)
    torch.testing.assert_close(loss.detach(), total, rtol=1e-5, atol=1e-5)


def draws(objective, batch, count: int) -> torch.Tensor:
    with torch.no_grad():
        return torch.stack([objective(*batch)[0] for _ in range(count)]).double()


@pytest.mark.parametrize("analytic", [False, True])
@pytest.mark.parametrize("make", [Hierarchy, TopDown], ids=["bottom-up", "top-down"])
def test_hierarchies_are_unbiased(make, analytic: bool):
    """A closed-form KL is used only where the order of the two programs allows it.

    Bottom up, the prior of z1 hangs on z2, which the guide draws later: taking KL(q(z1|x) ||
    p(z1|z2)) in closed form there gives another number, which this test would see.
    """
    program, x = make((3,)), reals()
    many = x.repeat(200, 1)
    losses = draws(ELBO(program, analytic_kl=analytic), (many,), 60)
    error = losses.std().item() / math.sqrt(60)
    if make is Hierarchy:
        truth = -program.exact_elbo(x).mean().item()
    else:
        other = draws(ELBO(program, analytic_kl=not analytic), (many,), 60)
        truth = other.mean().item()
        error = math.hypot(error, other.std().item() / math.sqrt(60))
    assert losses.mean().item() == pytest.approx(truth, abs=4.5 * error + 1e-5)


def test_only_the_top_layers_kl_is_closed():
    program, x = Hierarchy((3,)), reals()
    terms = at_seed(3, lambda: ELBO(program)(x))[1]
    sampled = at_seed(3, lambda: ELBO(program, analytic_kl=False)(x))[1]
    torch.manual_seed(3)
    z1 = dist.Normal(program.up1 * x, program.log_t1.exp()).rsample()
    top = dist.Normal(program.up2 * z1, program.log_t2.exp())
    closed = torch.distributions.kl_divergence(top, dist.Normal(torch.zeros(3), 1.0))
    torch.testing.assert_close(terms["kl/z2"], closed.sum(-1).mean().detach())
    torch.testing.assert_close(terms["kl/z1"], sampled["kl/z1"])
    assert not torch.isclose(terms["kl/z2"], sampled["kl/z2"])


@pytest.mark.parametrize("analytic", [True, False])
@pytest.mark.parametrize("size", [None, 5000])
def test_score_function_gradients_are_unbiased(analytic: bool, size: int | None):
    """The mean of many gradients is the gradient of the exact ELBO, by enumeration of z."""
    program, x = Bits((3,), data_size=size), reals(4)
    objective = ELBO(program, analytic_kl=analytic)
    exact = gradients(program, -program.exact_elbo(x).mean())
    many = x.repeat(200, 1)  # mean gradients over 200 independent copies of the batch
    found = []
    for _ in range(30):
        found.append(gradients(program, objective(many)[0]))
    assert {"recognise.weight", "recognise.bias", "prior", "emit.weight"} <= set(exact)
    for name, truth in exact.items():
        values = torch.stack([one[name] for one in found]).double()
        error = values.std(0) / math.sqrt(len(found))
        assert ((values.mean(0) - truth).abs() <= 5 * error + 1e-5).all(), name


def test_score_functions_weigh_the_kl():
    """With kl_weight the exact gradient is that of reconstruction + weight x KL."""
    program, x = Bits((2,), bits=1), reals(3, 2)
    log_p, log_q = program.joint(x)
    z = torch.tensor([0.0, 1.0]).view(2, 1, 1).expand(2, 3, 1)
    likelihood = program.observation(z).log_prob(x)
    kl = log_q - (log_p - likelihood)
    exact = gradients(program, (log_q.exp() * (0.25 * kl - likelihood)).sum(0).mean())
    objective = ELBO(program, kl_weight=0.25)
    many = x.repeat(300, 1)
    found = [gradients(program, objective(many)[0]) for _ in range(30)]
    for name, truth in exact.items():
        values = torch.stack([one[name] for one in found]).double()
        error = values.std(0) / math.sqrt(len(found))
        assert ((values.mean(0) - truth).abs() <= 5 * error + 1e-5).all(), name


def test_titles_and_weights():
    """Two latents and two observations: every part has its title, parts add up, beta weighs."""
    program, x = TwoViews((3,)), reals()
    plain, terms = at_seed(1, lambda: ELBO(program)(x))
    weighted, same = at_seed(1, lambda: ELBO(program, kl_weight=2.5)(x))
    titles = ["reconstruction/left", "reconstruction/right", "kl/z1", "kl/z2"]
    assert list(terms) == ["reconstruction", "kl", *titles]
    for kind in ("reconstruction", "kl"):
        parts = [value for title, value in terms.items() if title.startswith(kind + "/")]
        torch.testing.assert_close(terms[kind], sum(parts))
    torch.testing.assert_close(plain.detach(), terms["reconstruction"] + terms["kl"])
    torch.testing.assert_close(weighted.detach(), terms["reconstruction"] + 2.5 * terms["kl"])
    torch.testing.assert_close(same, terms)
    assert list(ELBO(StrangerVAE((3,)))(x)[1]) == ["reconstruction", "kl"]
    assert list(ELBO(CASES["gaussian"].program())(x)[1]) == ["reconstruction"]


def test_the_kl_weight_warms_up_in_training_only():
    program, x = StrangerVAE((3,)), reals()
    objective = ELBO(program, kl_weight=2.0, kl_warmup=4)
    weights = []
    for step in range(6):
        loss, terms = objective(x)
        weights.append(((loss - terms["reconstruction"]) / terms["kl"]).item())
        if step == 1:
            objective.eval()
            loss, terms = objective(x)
            total = terms["reconstruction"] + 2.0 * terms["kl"]
            torch.testing.assert_close(loss.detach(), total)
            objective.train()
    assert weights == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0, 2.0], rel=1e-4)
    assert "turns" in objective.state_dict() and int(objective.turns) == 6


@pytest.mark.parametrize("particles", [1, 3])
def test_free_bits_are_a_floor_under_each_sites_kl(particles: int):
    """loss = reconstruction + weight x sum of max(KL, floor), and sites below have no gradient."""
    program, x = TwoViews((3,)), reals()

    def found(**options):
        objective = ELBO(program, particles=particles, **options)
        return at_seed(1, lambda: objective(x))

    plain, terms = found()
    kls = [terms["kl/z1"], terms["kl/z2"]]
    low, high = min(kls).item(), max(kls).item()
    assert 0.1 < low < high - 0.05
    slopes = {"none": gradients(program, found(kl_weight=0.0)[0]), "all": gradients(program, plain)}
    for floor, above in ((low / 2, "all"), ((low + high) / 2, None), (high + 1, "none")):
        loss, same = found(free_bits=floor, kl_weight=1.5)
        total = terms["reconstruction"] + 1.5 * sum(max(kl.item(), floor) for kl in kls)
        torch.testing.assert_close(loss.detach(), total)
        torch.testing.assert_close(same, terms)
        mine = gradients(program, found(free_bits=floor)[0])
        if above is not None:
            for name, slope in slopes[above].items():
                torch.testing.assert_close(mine[name], slope, rtol=1e-4, atol=1e-6, msg=name)
            continue
        # Between: the loss without the KL of the lower site, by its own runs.
        upper = "kl/z1" if kls[0] > kls[1] else "kl/z2"
        torch.manual_seed(1)
        runs = [ELBO(program)._particle((x,)).parts for _ in range(particles)]
        kept = sum(parts["reconstruction"] + parts[upper] for parts in runs) / particles
        for name, slope in gradients(program, kept).items():
            torch.testing.assert_close(mine[name], slope, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("free", [0.0, 50.0])
def test_score_functions_know_free_bits(free: float):
    """Under the floor the mean gradient is the reconstruction's; a floor of 0 changes nothing."""
    program, x = Bits((2,), bits=1), reals(3, 2)
    log_p, log_q = program.joint(x)
    z = torch.tensor([0.0, 1.0]).view(2, 1, 1).expand(2, 3, 1)
    likelihood = program.observation(z).log_prob(x)
    kl = (log_q - (log_p - likelihood)) * (free == 0)
    exact = gradients(program, (log_q.exp() * (kl - likelihood)).sum(0).mean())
    objective = ELBO(program, free_bits=free, analytic_kl=False)
    many = x.repeat(300, 1)
    found = [gradients(program, objective(many)[0]) for _ in range(30)]
    for name, truth in exact.items():
        values = torch.stack([one[name] for one in found]).double()
        error = values.std(0) / math.sqrt(len(found))
        assert ((values.mean(0) - truth).abs() <= 5 * error + 1e-5).all(), name


def test_particles_are_averaged():
    """K particles are the mean of K draws from one stream, terms too; the noise falls."""
    program, x = StrangerVAE((3,)), reals()
    loss, terms = at_seed(3, lambda: ELBO(program, particles=3)(x))
    torch.manual_seed(3)
    single = [ELBO(program)(x) for _ in range(3)]
    torch.testing.assert_close(loss, sum(one for one, _ in single) / 3)
    mean = sum(parts["reconstruction"] for _, parts in single) / 3
    torch.testing.assert_close(terms["reconstruction"], mean)


@pytest.mark.parametrize("dims", [1, 3])
def test_an_enumerated_mixture_is_the_logsumexp(dims: int):
    program, x = Mixture((dims,)), reals(dims=dims)
    loss, terms = ELBO(program)(x)
    truth = -program.exact_log_prob(x).mean()
    torch.testing.assert_close(loss, truth, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(terms["negative_elbo"], truth.detach(), rtol=1e-5, atol=1e-5)
    mine, theirs = gradients(program, loss), gradients(program, truth)
    for name, value in theirs.items():
        torch.testing.assert_close(mine[name], value, rtol=1e-4, atol=1e-5, msg=name)
    with torch.no_grad():
        quiet, _ = ELBO(program).eval()(x)
    torch.testing.assert_close(quiet, truth.detach(), rtol=1e-5, atol=1e-5)
    assert not quiet.requires_grad


def test_enumerated_and_sampled_sites_together():
    """Given the draw of z the component is summed out exactly."""
    program, x = MixedVAE((3,)), reals()
    loss, _ = at_seed(2, lambda: ELBO(program)(x))
    torch.manual_seed(2)
    q = dist.Normal(program.recognise(x).squeeze(-1), 0.8)
    z = q.rsample()
    prior = dist.Normal(program.centre[:, None], 0.7).log_prob(z)
    prior = (prior + program.logits.log_softmax(0)[:, None]).logsumexp(0)
    likelihood = dist.Normal(z[:, None] * program.emit, 1.0).log_prob(x).sum(-1)
    truth = -(likelihood + prior - q.log_prob(z)).mean()
    torch.testing.assert_close(loss, truth, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="kl_weight must be 1"):
        ELBO(program, kl_weight=0.5)(x)
    with pytest.raises(ValueError, match="free_bits 0 with enumerated sites"):
        ELBO(program, free_bits=0.5)(x)


@pytest.mark.parametrize("make", [Location, OwnAutoGuide])
@pytest.mark.parametrize("analytic", [True, False])
def test_minibatches_of_a_data_plate_average_to_the_full_batch(make, analytic: bool):
    """Losses are per example of the whole data set; the global KL counts once, not per batch."""
    x = reals(20)
    objective = ELBO(make((3,), data_size=20), analytic_kl=analytic)
    objective.prepare(x)
    full = at_seed(4, lambda: objective(x)[0])
    parts = [at_seed(4, lambda part=part: objective(part)[0]) for part in x.split(5)]
    torch.testing.assert_close(torch.stack(parts).mean(), full, rtol=1e-5, atol=1e-6)
    if make is Location and analytic:
        guide = dist.Normal(objective.program.guide_loc, objective.program.guide_scale)
        kl = torch.distributions.kl_divergence(guide, dist.Normal(torch.zeros(3), 3.0)).sum() / 20
        for part in x.split(5):
            torch.testing.assert_close(objective(part)[1]["kl"], kl.detach())


@pytest.mark.parametrize("masked", [False, True])
def test_scale_and_mask_inside_a_program(masked: bool):
    """poutine.scale multiplies its site's term, poutine.mask leaves examples out of it."""
    x = reals()
    plain = TwoViews((3,))
    other = TwoViews((3,), weight=0.25, masked=masked)
    other.load_state_dict(plain.state_dict())
    _, whole = at_seed(5, lambda: ELBO(plain)(x))
    _, terms = at_seed(5, lambda: ELBO(other)(x))
    torch.testing.assert_close(terms["reconstruction/right"], 0.25 * whole["reconstruction/right"])
    torch.testing.assert_close(terms["kl"], whole["kl"])
    if masked:
        positive = x[:, 0] > 0
        assert 0 < positive.sum() < len(x)
        torch.manual_seed(5)
        with pyro.get_param_store().scope():
            trace = pyro.poutine.trace(plain.guide).get_trace(x)
            model = pyro.poutine.trace(pyro.poutine.replay(plain.model, trace)).get_trace(x)
        model.compute_log_prob()
        expected = -model.nodes["left"]["log_prob"][positive].sum() / len(x)
        torch.testing.assert_close(terms["reconstruction/left"], expected.detach())
    else:
        torch.testing.assert_close(terms["reconstruction/left"], whole["reconstruction/left"])


@pytest.mark.parametrize(
    "elbo",
    [
        Trace_ELBO(num_particles=2),
        TraceMeanField_ELBO(),
        TraceGraph_ELBO(),
        RenyiELBO(alpha=0.0, num_particles=3),
    ],
    ids=lambda elbo: type(elbo).__name__,
)
def test_any_pyro_elbo_is_an_objective(elbo):
    """Its own value per example, a usable gradient, and no gradient left on the parameters."""
    program, x = StrangerVAE((3,)), reals()
    objective = PyroObjective(program, elbo)
    objective.prepare(x)
    loss, terms = at_seed(6, lambda: objective(x))
    with pyro.get_param_store().scope():
        expected = at_seed(6, lambda: elbo.loss(program.model, program.guide, x)) / len(x)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert list(terms) == ["negative_elbo"]
    assert all(parameter.grad is None for parameter in program.parameters())
    loss.backward()
    assert all(parameter.grad.abs().max() > 1e-6 for parameter in program.parameters())
    with torch.no_grad():
        quiet, _ = at_seed(6, lambda: objective(x))
    assert quiet.item() == pytest.approx(expected, rel=1e-5) and not quiet.requires_grad


def test_renyis_gradient_is_that_of_the_importance_weighted_bound():
    """RenyiELBO(alpha=0) over one example is IWAE's bound: same draws, same gradient."""
    program, x = LinearGaussian((3,)), reals(1)
    renyi = PyroObjective(program, RenyiELBO(alpha=0.0, num_particles=4))
    mine = ImportanceWeightedELBO(program, particles=4)
    renyi.prepare(x)
    mine.prepare(x)
    mine._broadcasts = False
    a, b = at_seed(7, lambda: renyi(x)[0]), at_seed(7, lambda: mine(x)[0])
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    theirs = gradients(program, b)
    assert theirs
    for name, value in gradients(program, a).items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-4, msg=name)


def test_factors_count_as_reconstruction():
    class Tilted(PyroModule):
        def __init__(self):
            super().__init__()
            self.loc = nn.Parameter(torch.zeros(3))

        def model(self, x):
            with pyro.plate("batch", len(x)):
                pyro.sample("x", dist.Normal(self.loc, 1.0).to_event(1), obs=x)
                pyro.factor("tilt", -x.pow(4).sum(-1))

    x = reals()
    loss, terms = ELBO(Tilted())(x)
    density = dist.Normal(torch.zeros(3), 1.0).log_prob(x).sum(-1)
    torch.testing.assert_close(loss.detach(), (x.pow(4).sum(-1) - density).mean())
    torch.testing.assert_close(terms["reconstruction/tilt"], x.pow(4).sum(-1).mean())


@pytest.mark.parametrize(
    "arguments",
    [
        {"kl_weight": -1.0},
        {"kl_warmup": -1},
        {"particles": 0},
        {"free_bits": -0.1},
        {"free_bits": math.nan},
        {"free_bits": math.inf},
    ],
    ids=str,
)
def test_impossible_numbers_are_refused(arguments: dict):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        ELBO(StrangerVAE((3,)), **arguments)


MASK = torch.tensor([True, False, True, True, False, True])
RISING = torch.linspace(0.1, 2.0, 6)


@pytest.mark.parametrize(
    ("of_model", "of_guide"),
    [
        (poutine.scale(scale=0.1), poutine.scale(scale=1.0)),
        (poutine.scale(scale=RISING), poutine.scale(scale=torch.ones(6))),
        (poutine.scale(scale=RISING), poutine.scale(scale=RISING)),
        (poutine.mask(mask=MASK), poutine.mask(mask=torch.ones(6, dtype=torch.bool))),
        (poutine.mask(mask=MASK), poutine.mask(mask=MASK)),
        (poutine.mask(mask=True), poutine.mask(mask=False)),
    ],
    ids=["scale", "scales", "same scales", "mask", "same mask", "guide left out"],
)
def test_closed_kls_know_masks_and_scales_of_either_side(of_model, of_guide):
    """The mean of many draws is that of the sampled estimator, and so that of Trace_ELBO."""

    class Weighed(PyroModule):
        def site(self, weighing, loc, scale):
            with weighing:
                return pyro.sample("z", dist.Normal(loc.expand(6), scale))

        def model(self, x):
            with pyro.plate("batch", len(x)):
                z = self.site(of_model, torch.tensor(0.0), 1.0)
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        def guide(self, x):
            with pyro.plate("batch", len(x)):
                self.site(of_guide, torch.tensor(0.7), 0.6)

    torch.manual_seed(0)
    x = torch.linspace(-1, 1, 6)
    means = []
    for analytic in (True, False):
        objective = ELBO(Weighed(), analytic_kl=analytic)
        values = torch.stack([objective(x)[0] for _ in range(1500)]).double()
        means.append((values.mean(), values.std() / 1500**0.5))
    (closed, one), (sampled, other) = means
    assert abs(closed - sampled) < 4.5 * (one**2 + other**2).sqrt() + 1e-4
    assert one < 1.05 * other
