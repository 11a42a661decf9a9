"""The hierarchy of latents: closed forms of a linear-Gaussian chain, dead layers, shapes."""

import math
from itertools import pairwise

import pytest
import torch
import torch.distributions as dist
from pyro import poutine

from ppgen import ELBO, Dataset, HierarchicalVAE, evaluate, fit
from ppgen.distributions import DiscretizedLogistic
from ppgen.nn.ladder import GaussianMLP, merged
from ppgen.nn.mlp import MLPDecoder, MLPEncoder
from ppgen.sites import isolated, sample_sites

GUIDES = ("bottom_up", "top_down")
both = pytest.mark.parametrize("guide", GUIDES)
LATENTS = (2, 3, 1)  # of z_1, z_2, z_3
X = torch.tensor([[0.3, -1.2, 0.8, 0.1], [1.5, 0.4, -0.7, 2.0], [-0.6, 0.9, 0.2, -1.1]])


def linear(guide: str, seed: int = 0) -> HierarchicalVAE:
    """A hierarchy whose every conditional is affine in the layer before, its scale a constant."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        program = HierarchicalVAE((4,), latent_dims=LATENTS, guide=guide, scale=1.5, hidden=(5,))
        program.decoder = MLPDecoder(LATENTS[0], (4,), ())
        pairs = list(pairwise(LATENTS))
        program.down = torch.nn.ModuleList(GaussianMLP(above, (), below) for below, above in pairs)
        # The guide is wide and gentle, or a few of the importance weights outweighed the rest.
        maps = [(layer.layers[0], 0.0, 6.0) for layer in program.down]
        if guide == "bottom_up":
            program.encoder = MLPEncoder((4,), 2 * LATENTS[0], ())
            program.up = torch.nn.ModuleList(
                GaussianMLP(below, (), above) for below, above in pairs
            )
            maps += [(layer.layers[0], 0.1, 2.0) for layer in program.up]
            maps.append((program.encoder.layers[0], 0.1, 0.2))
        for one, log_scale, gain in maps:
            half = one.out_features // 2
            with torch.no_grad():
                one.weight[:half] *= gain
                one.bias[:half] *= gain
                one.weight[half:] = 0.0
                one.bias[half:] = torch.linspace(log_scale - 0.2, log_scale + 0.2, half)
        if program.top_down:
            for head in program.recognition.heads:
                head.weight.data *= 0.3
                head.bias.data[head.out_features // 2 :] = -1.5
    return program.eval()


def affine(law, inputs: int):
    """(matrix, offset, scale) of a conditional N(matrix z + offset, scale), from its values."""
    at_zero = law(torch.zeros(1, inputs))
    columns = [law(row[None]).mean - at_zero.mean for row in torch.eye(inputs)]
    scale = at_zero.stddev if at_zero.event_shape else at_zero.scale
    return torch.cat(columns).T.double(), at_zero.mean[0].double(), scale[0].double()


def chained(first, conditionals):
    """Mean and covariance of a Gaussian chain, its blocks in the order drawn.

    `first` is (mean, scale); conditionals are (matrix, offset, scale) given the block before.
    """
    mean, scale = first
    covariance = torch.diag(scale**2)
    width = len(mean)
    for matrix, offset, noise in conditionals:
        last = covariance[:, -width:]
        cross = last @ matrix.T
        corner = matrix @ covariance[-width:, -width:] @ matrix.T + torch.diag(noise**2)
        mean = torch.cat([mean, matrix @ mean[-width:] + offset])
        covariance = torch.cat([torch.cat([covariance, cross], 1), torch.cat([cross.T, corner], 1)])
        width = len(offset)
    return mean, covariance


def joint(program):
    """Moments of p(z_L, ..., z_1, x)."""
    top = LATENTS[-1]
    first = (torch.zeros(top).double(), torch.ones(top).double())
    layers = [affine(program.down[t - 1], LATENTS[t]) for t in range(len(LATENTS) - 1, 0, -1)]
    return chained(first, [*layers, affine(program.decode, LATENTS[0])])


def exact_log_prob(program, x):
    mean, covariance = joint(program)
    d = x.shape[1]
    law = dist.MultivariateNormal(mean[-d:], covariance[-d:, -d:])
    return law.log_prob(x.double())


def posterior(program, x):
    """Moments of the guide given one example x (1, dims), in the order z_L, ..., z_1."""
    last = len(LATENTS)
    if program.top_down:
        evidence = program.recognition(x)
        top = merged(program._top(x), evidence[-1])
        layers = [
            affine(lambda z, t=t: merged(program.down[t - 1](z), evidence[t - 1]), LATENTS[t])
            for t in range(last - 1, 0, -1)
        ]
        return chained((top.mean[0].double(), top.stddev[0].double()), layers)
    bottom = program.encode(x)["z_1"]
    layers = [affine(program.up[t - 1], LATENTS[t - 1]) for t in range(1, last)]
    mean, covariance = chained((bottom.mean[0].double(), bottom.stddev[0].double()), layers)
    starts = torch.tensor([0, *LATENTS]).cumsum(0).tolist()
    order = [i for t in range(last - 1, -1, -1) for i in range(starts[t], starts[t + 1])]
    return mean[order], covariance[order][:, order]


def exact_elbo(program, x):
    """E_q log p(x, z) + H(q) for each example: a quadratic form's mean under a Gaussian."""
    mean, covariance = joint(program)
    law = dist.MultivariateNormal(mean, covariance)
    values = []
    for row in x[:, None]:
        m, s = posterior(program, row)
        at_mean = law.log_prob(torch.cat([m, row[0].double()]))
        spread = 0.5 * (law.precision_matrix[: len(m), : len(m)] * s).sum()
        values.append(at_mean - spread + dist.MultivariateNormal(m, s).entropy())
    return torch.stack(values)


@pytest.mark.parametrize("analytic", [True, False], ids=["closed-kl", "sampled-kl"])
@both
def test_the_elbo_is_that_of_a_linear_gaussian_chain(guide: str, analytic: bool):
    with torch.no_grad():
        program = linear(guide)
        truth = -exact_elbo(program, X).mean().item()
        assert truth > -exact_log_prob(program, X).mean().item() + 0.1  # the guide is not exact
        objective, many = ELBO(program, analytic_kl=analytic), X.repeat(300, 1)
        torch.manual_seed(1)
        losses = torch.stack([objective(many)[0] for _ in range(40)]).double()
    error = losses.std().item() / math.sqrt(40)
    assert error < 0.05
    assert losses.mean().item() == pytest.approx(truth, abs=4.5 * error)


@both
def test_importance_weights_average_to_the_exact_likelihood(guide: str):
    """exp(log_prob) is an unbiased estimate of p(x), and log_prob a bound that rises with K."""
    with torch.no_grad():
        program = linear(guide)
        exact = exact_log_prob(program, X)
        torch.manual_seed(2)
        draws = [program.log_prob(X, num_particles=400) for _ in range(80)]
        values = torch.stack(draws).double() - exact  # (80, n)
        few = torch.stack([program.log_prob(X) for _ in range(80)]).double() - exact
    ratios = values.exp()
    error = ratios.std(0) / math.sqrt(80)
    assert (error < 0.05).all()
    assert ((ratios.mean(0) - 1).abs() < 4.5 * error).all()
    spread = values.std(0) / math.sqrt(80)
    assert (values.mean(0) < 4.5 * spread).all() and (few.mean(0) < values.mean(0)).all()


@both
def test_samples_have_the_moments_of_the_joint(guide: str):
    program = linear(guide)
    with torch.no_grad():
        mean, covariance = (part[-4:] for part in joint(program))
    torch.manual_seed(3)
    drawn = program.sample(40_000).double()
    scale = covariance[:, -4:].diagonal().sqrt()
    assert ((drawn.mean(0) - mean).abs() < 4.5 * scale / 200).all()
    slack = 4.5 * math.sqrt(2) * torch.outer(scale, scale) / 200
    assert ((drawn.T.cov() - covariance[:, -4:]).abs() < slack).all()


def test_a_merged_law_is_the_normalised_product():
    """Against the product of both densities on a fine grid; no evidence leaves the law alone."""
    loc, scale = torch.tensor([[0.4, -1.0]]), torch.tensor([[0.9, 1.7]])
    seen, log_precision = torch.tensor([[1.3, 0.5]]), torch.tensor([[0.8, -0.6]])
    share = log_precision.exp() / (log_precision.exp() + scale**-2)
    prior = dist.Independent(dist.Normal(loc, scale), 1)
    found = merged(prior, (share * seen, log_precision)).base_dist
    grid = torch.linspace(-14, 14, 200_001).double()[:, None]
    product = dist.Normal(loc, scale).log_prob(grid)
    product = (product + dist.Normal(seen, (-log_precision / 2).exp()).log_prob(grid)).exp()
    product = product / product.sum(0)
    mean = (grid * product).sum(0)
    torch.testing.assert_close(found.mean[0].double(), mean, rtol=1e-4, atol=1e-5)
    variance = ((grid - mean) ** 2 * product).sum(0)
    torch.testing.assert_close(found.variance[0].double(), variance, rtol=1e-4, atol=1e-5)
    same = merged(prior, (0 * seen, torch.full_like(seen, -200.0))).base_dist
    assert torch.equal(same.loc, loc) and torch.equal(same.scale, scale)
    sure = merged(prior, (seen, torch.full_like(seen, 40.0))).base_dist
    torch.testing.assert_close(sure.loc, seen)
    assert (sure.scale < 1e-8).all() and (sure.scale > 0).all()


def small(guide: str, **arguments) -> HierarchicalVAE:
    given = {"latent_dims": (4, 3, 2), "hidden": (8,), "latent_hidden": (6,), "levels": 2}
    torch.manual_seed(0)
    return HierarchicalVAE((1, 4, 4), guide=guide, **{**given, **arguments})


def binary(n: int = 6) -> torch.Tensor:
    return torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(1)).round()


@both
def test_the_programs_are_chains(guide: str):
    """The order of the sites, and of each given the ones before: its direct parent alone."""
    program, x = small(guide).eval(), binary()
    with isolated(), torch.no_grad():
        traces = {
            "model": poutine.trace(program.model).get_trace(x),
            "guide": poutine.trace(program.guide).get_trace(x),
        }
    down = ["z_3", "z_2", "z_1"]
    orders = {name: list(sample_sites(trace)) for name, trace in traces.items()}
    assert orders == {"model": [*down, "x"], "guide": down if program.top_down else down[::-1]}
    for name, trace in traces.items():
        order = orders[name]
        for index, grandparent in enumerate(order[:-2]):
            other = trace.copy()
            site = dict(other.nodes[grandparent])
            site["value"] = site["value"] + 1.0
            other.nodes[grandparent] = site
            with isolated(), torch.no_grad():
                again = poutine.trace(poutine.replay(getattr(program, name), other)).get_trace(x)
            for child, moved in zip(order[index + 1 :], [True, False, False], strict=False):
                before, after = trace.nodes[child]["fn"].mean, again.nodes[child]["fn"].mean
                assert torch.equal(before, after) is not moved, (name, grandparent, child)


@both
@pytest.mark.parametrize("analytic", [True, False])
def test_each_layer_has_its_title_and_the_titles_add_up(guide: str, analytic: bool):
    loss, terms = ELBO(small(guide), analytic_kl=analytic)(binary())
    layers = ["kl/z_3", "kl/z_2", "kl/z_1"]
    assert list(terms)[:2] == ["reconstruction", "kl"] and set(terms) == {*list(terms)[:2], *layers}
    torch.testing.assert_close(sum(terms[layer] for layer in layers), terms["kl"])
    torch.testing.assert_close(terms["reconstruction"] + terms["kl"], loss.detach())
    assert list(ELBO(small(guide, latent_dims=(3,)))(binary())[1]) == ["reconstruction", "kl"]


@both
@pytest.mark.parametrize("layer", [1, 2, 3])
def test_a_dead_layer_shows_no_kl(guide: str, layer: int):
    """A layer that says nothing of x, put to death by hand; the others live on."""
    program = small(guide)
    with torch.no_grad():
        for conditional in (*program.down, *getattr(program, "up", ())):
            conditional.layers[-1].weight *= 10  # they start close to N(0, I)
        if program.top_down:
            head = program.recognition.heads[layer - 1]
            half = head.out_features // 2
            head.weight.zero_()
            head.bias[:half] = 0.0
            head.bias[half:] = -60.0  # evidence without precision
        else:
            # q(z_t | z_{t-1}) = p(z_t | z_{t+1}) = N(0, I): both maps end in zeros.
            lower = program.encoder.layers if layer == 1 else program.up[layer - 2].layers
            ends = [lower[-1]] + ([program.down[layer - 1].layers[-1]] if layer < 3 else [])
            for end in ends:
                end.weight.zero_()
                end.bias.zero_()
        torch.manual_seed(5)
        terms = [ELBO(program)(binary(400))[1] for _ in range(20)]
    kl = {t: sum(one[f"kl/z_{t}"] for one in terms).item() / 20 for t in (1, 2, 3)}
    assert kl.pop(layer) == pytest.approx(0.0, abs=1e-5)
    assert all(abs(value) > 0.05 for value in kl.values())


@both
def test_noise_kills_every_layer_unless_bits_are_free(guide: str):
    """Coin flips have nothing to tell: the ELBO's optimum is KL 0; free bits keep layers awake."""
    coins = torch.rand(512, 1, 4, 4, generator=torch.Generator().manual_seed(8)).round()
    data = Dataset.from_tensors(coins, coins, coins, levels=2)
    found = {}
    for free in (0.0, 0.3):
        program = small(guide)
        objective = ELBO(program, kl_warmup=0.2, free_bits=free)
        run = fit(
            program,
            data,
            steps=200,
            lr=1e-2,
            objective=objective,
            progress=False,
            validate_epochs=0,
        )
        terms = evaluate(run, particles=1).elbo
        found[free] = [terms[f"kl/z_{t}"] for t in (1, 2, 3)]
    assert sum(found[0.0]) < 0.15
    assert sum(found[0.3]) > 0.4
    if guide == "top_down":
        assert all(value > 0.1 for value in found[0.3])


@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize("classes", [None, 3])
@pytest.mark.parametrize(("levels", "family"), [(2, "Bernoulli"), (None, "Normal"), (4, None)])
@both
def test_shapes_of_its_queries(guide: str, network: str, classes, levels, family):
    hidden = (8,) if network == "mlp" else (4, 8)
    program = small(guide, network=network, num_classes=classes, levels=levels, hidden=hidden)
    program.eval()
    x, y = binary(5), () if classes is None else (torch.tensor([0, 1, 2, 0, 1]),)
    laws = program.encode(x, *y)
    assert set(laws) == {"z_1", "z_2", "z_3"}
    for t, dim in enumerate((4, 3, 2), 1):
        assert laws[f"z_{t}"].batch_shape == (5,) and laws[f"z_{t}"].event_shape == (dim,)
    picture = program.reconstruct(x, *y)
    assert picture.shape == x.shape
    law = program.decode(laws["z_1"].mean, *y)
    torch.testing.assert_close(picture, law.mean)
    assert type(law.base_dist).__name__ == (family or DiscretizedLogistic.__name__)
    particles = torch.randn(4, 5, 4)
    parts = torch.stack([program.decode(part, *y).mean for part in particles])
    torch.testing.assert_close(program.decode(particles, *y).mean, parts, rtol=1e-4, atol=1e-5)
    assert program.log_prob(x, *y, num_particles=3).shape == (5,)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 27, 27), (2, 5, 7), (1, 4, 4)], ids=str)
@both
def test_residual_convolutions_fit_any_size(guide: str, shape: tuple):
    program = HierarchicalVAE(
        shape, latent_dims=(3, 2), network="conv", hidden=(4, 6), levels=2, guide=guide
    )
    x = torch.rand(2, *shape).round()
    assert program.reconstruct(x).shape == x.shape == program.sample(2).shape
    other = x.clone()
    other[..., -1, -1] = 1 - other[..., -1, -1]
    for name, law in program.encode(x).items():
        assert not torch.equal(law.mean, program.encode(other)[name].mean), name


@both
def test_labels_matter(guide: str):
    """Every conditional but the top reads y, of its own example."""
    program = small(guide, num_classes=3).eval()
    x, y = binary(4), torch.tensor([0, 1, 2, 1])
    other = torch.tensor([0, 1, 2, 0])  # the last alone differs
    z = torch.randn(4, 4)
    one_hot = torch.nn.functional.one_hot
    found = [
        (
            program.encode(x, label)["z_1"].mean,
            program.decode(z, label).mean,
            program.down[0](torch.ones(4, 3), one_hot(label, 3)).mean,
            program.down[1](torch.ones(4, 2), one_hot(label, 3)).mean,
        )
        for label in (y, other)
    ]
    for before, after in zip(*found, strict=True):
        same = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
        assert same == [True, True, True, False]
    with pytest.raises(ValueError, match="this HierarchicalVAE is conditional on 3 classes"):
        program.reconstruct(x)


@both
def test_it_learns_and_knows_two_patterns(guide: str):
    pattern = torch.tensor([[1.0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]])
    data = Dataset.from_tensors(pattern.repeat(100, 1), levels=2)
    torch.manual_seed(0)
    program = HierarchicalVAE((6,), latent_dims=(2, 1), hidden=(16,), levels=2, guide=guide)
    objective = ELBO(program, kl_warmup=0.2)  # the data hold log 2 nats: none are free
    options = {"steps": 400, "batch_size": 50, "lr": 1e-2, "progress": False}
    run = fit(program, data, objective=objective, **options)
    found = evaluate(run, particles=50).log_likelihood
    assert -0.85 < found.value <= -math.log(2) + 0.02 and found.kind == "bound"
    assert torch.equal(run.program.reconstruct(pattern).round(), pattern)
    drawn = run.program.sample(200)
    share = (drawn[:, None] == pattern).all(-1).float().mean(0)
    assert share.sum() > 0.8 and share.min() > 0.2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"latent_dims": ()}, "latent_dims must name one width or more"),
        ({"latent_dims": 32}, "latent_dims must name one width or more, as in \\(32,\\)"),
        ({"latent_dims": (4, 0)}, "latent_dims must be 1 or more; got 0"),
        ({"guide": "top-down"}, "did you mean top_down"),
        ({"guide": "ladder"}, "guide must be one of bottom_up, top_down; got 'ladder'"),
        ({"network": "convv"}, "did you mean conv"),
        ({"hidden": ()}, "hidden must name one width or more"),
        ({"hidden": (8, 0)}, "hidden must be 1 or more; got 0"),
        ({"latent_hidden": ()}, "latent_hidden must name"),
        ({"activation": "swish"}, "activation must be one of"),
        ({"likelihood": "bernouli"}, "did you mean bernoulli"),
        ({"likelihood": "bernoulli", "levels": 256}, "2 levels and the data have 256"),
        ({"likelihood": "discretized_logistic"}, "or give levels"),
        ({"scale": -1.0}, "scale must be positive"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_is_refused(arguments: dict, words: str):
    with pytest.raises(ValueError, match=words):
        HierarchicalVAE((1, 4, 4), **arguments)


def test_vectors_have_no_convolutions():
    with pytest.raises(ValueError, match="takes images"):
        HierarchicalVAE((7,), network="conv")
