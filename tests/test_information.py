"""Information measures against the texts' figures, brute force, torch and their own laws."""

import doctest
import math

import pytest
import torch
from torch.distributions import Categorical, Normal
from torch.distributions import kl_divergence as torch_kl

import ppgen.information as information
from ppgen.information import (
    cross_entropy,
    entropy,
    gaussian_kl,
    js_divergence,
    kl_divergence,
)

FAIR, BIASED = (torch.tensor(p, dtype=torch.float64) for p in ([0.5, 0.5], [0.2, 0.8]))
PAIRWISE = [cross_entropy, kl_divergence, js_divergence]


def random_probabilities(*shape: int, seed: int = 0, zeros: bool = False) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    p = torch.rand(*shape, generator=generator, dtype=torch.float64)
    if zeros:
        p[..., ::3] = 0
    return p / p.sum(-1, keepdim=True)


def brute(p: list[float], q: list[float]) -> dict[str, float]:
    """The definitions, one Python float at a time."""

    def cross(a, b):
        total = 0.0
        for x, y in zip(a, b, strict=True):
            if x > 0:
                total += math.inf if y == 0 else -x * math.log(y)
        return total

    m = [(x + y) / 2 for x, y in zip(p, q, strict=True)]
    return {
        "entropy": cross(p, p),
        "cross_entropy": cross(p, q),
        "kl_divergence": cross(p, q) - cross(p, p),
        "js_divergence": (cross(p, m) - cross(p, p) + cross(q, m) - cross(q, q)) / 2,
    }


def test_the_texts_coins_in_bits():
    assert entropy(FAIR, base=2).item() == pytest.approx(1, abs=1e-15)
    assert entropy(BIASED, base=2).item() == pytest.approx(0.72, abs=5e-3)
    assert cross_entropy(FAIR, BIASED, base=2).item() == pytest.approx(1.32, abs=5e-3)
    # the same figure to all its digits: -(log2 1/5 + log2 4/5) / 2
    assert cross_entropy(FAIR, BIASED, base=2).item() == pytest.approx(math.log2(5) - 1, abs=1e-14)


def test_bits_are_nats_over_log_2():
    assert entropy(BIASED).item() == pytest.approx(entropy(BIASED, base=2).item() * math.log(2))
    for measure in PAIRWISE:
        nats, bits = measure(FAIR, BIASED), measure(FAIR, BIASED, base=2)
        assert nats.item() == pytest.approx(bits.item() * math.log(2), abs=1e-15)


@pytest.mark.parametrize("p_zeros", [False, True])
@pytest.mark.parametrize("q_zeros", [False, True])
def test_against_brute_force(p_zeros, q_zeros):
    p = random_probabilities(3, 4, 7, seed=1, zeros=p_zeros)
    q = random_probabilities(4, 7, seed=2, zeros=q_zeros)
    got = {"entropy": entropy(p)} | {f.__name__: f(p, q) for f in PAIRWISE}
    for i in range(3):
        for j in range(4):
            for name, value in brute(p[i, j].tolist(), q[j].tolist()).items():
                assert got[name].shape == (3, 4)
                assert got[name][i, j].item() == pytest.approx(value, abs=1e-13), name


def test_against_torch():
    p, q = random_probabilities(5, 6, seed=3), random_probabilities(5, 6, seed=4)
    torch.testing.assert_close(entropy(p), Categorical(probs=p).entropy())
    torch.testing.assert_close(
        kl_divergence(p, q), torch_kl(Categorical(probs=p), Categorical(probs=q))
    )


def test_laws():
    p, q = random_probabilities(500, 9, seed=5), random_probabilities(500, 9, seed=6, zeros=True)
    assert (entropy(p) >= 0).all() and (entropy(p) <= math.log(9) + 1e-15).all()
    assert entropy(torch.full((9,), 1 / 9, dtype=torch.float64)).item() == pytest.approx(
        math.log(9)
    )
    assert (kl_divergence(q, p) > 0).all()
    assert kl_divergence(p, p).abs().max() < 1e-15
    torch.testing.assert_close(kl_divergence(q, p), cross_entropy(q, p) - entropy(q))
    assert (kl_divergence(q, p) != torch_kl(Categorical(probs=p), Categorical(probs=q))).all()
    torch.testing.assert_close(js_divergence(p, q), js_divergence(q, p), rtol=1e-14, atol=1e-16)
    assert (js_divergence(p, q) > 0).all() and (js_divergence(p, q) < math.log(2)).all()


def test_zero_probabilities():
    heads, tails = torch.eye(2, dtype=torch.float64)
    assert entropy(heads).item() == 0
    assert kl_divergence(heads, FAIR).item() == pytest.approx(math.log(2), abs=1e-15)
    assert kl_divergence(FAIR, heads).item() == math.inf
    assert cross_entropy(FAIR, heads).item() == math.inf
    assert kl_divergence(heads, heads).item() == 0
    # disjoint supports: log 2, wherever the mass lies
    spread = torch.tensor([0.0, 0.1, 0.9, 0.0, 0.0]), torch.tensor([0.7, 0.0, 0.0, 0.3, 0.0])
    assert js_divergence(heads, tails).item() == math.log(2)
    assert js_divergence(*(p.double() / p.double().sum() for p in spread)).item() == pytest.approx(
        math.log(2), abs=1e-15
    )


def test_gradients():
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    a, b = (x.requires_grad_() for x in logits.clone().unbind(0))
    assert torch.autograd.gradcheck(lambda a: entropy(a.softmax(-1)), (a,))
    for measure in PAIRWISE:
        assert torch.autograd.gradcheck(
            lambda a, b, measure=measure: measure(a.softmax(-1), b.softmax(-1)), (a, b)
        )


def test_gradients_beside_zeros():
    # a probability that underflows must not poison the others: d/dlogit is p * (...) = 0 there
    logits = torch.tensor([0.0, 1.0, -2000.0], dtype=torch.float64, requires_grad=True)
    p = logits.softmax(-1)
    assert p[-1] == 0
    other = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)
    measures = [entropy(p)] + [measure(p, other) for measure in PAIRWISE]
    for value in measures:
        (grad,) = torch.autograd.grad(value, logits, retain_graph=True)
        assert grad.isfinite().all() and grad[-1] == 0 and grad[0] != 0
    # where q is positive, d H(p, q) / d p_k = -log q_k also at p_k = 0
    p = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(cross_entropy(p, BIASED), p)
    torch.testing.assert_close(grad, -BIASED.log())


def test_gaussian_kl():
    generator = torch.Generator().manual_seed(8)
    m1, m2 = torch.randn(2, 50, generator=generator, dtype=torch.float64)
    s1, s2 = torch.rand(2, 50, generator=generator, dtype=torch.float64) + 0.1
    torch.testing.assert_close(
        gaussian_kl(m1, s1, m2, s2), torch_kl(Normal(m1, s1), Normal(m2, s2))
    )
    torch.testing.assert_close(gaussian_kl(m1, s1), (m1**2 + s1**2 - (s1**2).log() - 1) / 2)
    assert (gaussian_kl(m1, s1, m2, s2) > 0).all()
    assert gaussian_kl(m1, s1, m1, s1).abs().max() < 1e-15
    assert gaussian_kl(m1.float(), s1.float()).dtype == torch.float32
    assert gaussian_kl(m1[:, None], s1[:, None], m2, s2).shape == (50, 50)
    # its integral, on a grid: an answer that shares nothing with the formula
    z = torch.linspace(-12, 12, 20_001, dtype=torch.float64)
    a, b = Normal(0.3, 0.8), Normal(-1.0, 1.5)
    integral = torch.trapezoid(a.log_prob(z).exp() * (a.log_prob(z) - b.log_prob(z)), z)
    assert gaussian_kl(0.3, 0.8, -1.0, 1.5).item() == pytest.approx(integral.item(), abs=1e-6)


@pytest.mark.parametrize(
    ("p", "error", "says"),
    [
        ([0.5, 0.5], TypeError, "got a list"),
        (torch.tensor([0, 1]), TypeError, "torch.int64"),
        (torch.tensor([0.5, 0.5], dtype=torch.float16), TypeError, "torch.float16"),
        (torch.tensor(1.0), ValueError, r"got \(\)"),
        (torch.ones(3, 0), ValueError, r"got \(3, 0\)"),
        (torch.tensor([-0.5, 1.5]), ValueError, "non-negative.*-0.5"),
        (torch.tensor([math.nan, 1.0]), ValueError, "finite.*nan"),
        (torch.tensor([math.inf, 0.0]), ValueError, "finite.*inf"),
        (torch.tensor([0.5, 0.4]), ValueError, "sum to 1.*0.9"),
        (torch.tensor([0.5, 0.50001], dtype=torch.float64), ValueError, "within 1e-06"),
    ],
)
def test_what_is_refused(p, error, says):
    good = torch.tensor([0.5, 0.5])
    with pytest.raises(error, match=says):
        entropy(p)
    for measure in PAIRWISE:
        with pytest.raises(error, match="^p must.*" + says):
            measure(p, good)
        with pytest.raises(error, match="^q must.*" + says):
            measure(good, p)


@pytest.mark.parametrize("measure", PAIRWISE)
def test_pairs_must_match(measure):
    with pytest.raises(ValueError, match="2 and 1 entries"):
        measure(FAIR, torch.ones(1))
    with pytest.raises(ValueError, match=r"broadcast.*\(2, 2\) and \(3, 2\)"):
        measure(FAIR.expand(2, 2), FAIR.expand(3, 2))


@pytest.mark.parametrize("base", [1, 0, -2, 0.5, math.inf, math.nan])
def test_base_is_above_one(base):
    with pytest.raises(ValueError, match="base must be above 1"):
        entropy(FAIR, base=base)
    with pytest.raises(TypeError, match="base must be a number"):
        entropy(FAIR, base="2")


def test_gaussian_kl_refuses():
    with pytest.raises(ValueError, match=r"s1 must be.*above 0; it holds 0"):
        gaussian_kl(0.0, torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match=r"s2 must be.*above 0; it holds -1"):
        gaussian_kl(0.0, 1.0, 0.0, -1.0)
    with pytest.raises(ValueError, match="m1 must be a finite mean; it holds nan"):
        gaussian_kl(math.nan, 1.0)


def test_float32_sums_get_more_room():
    p = torch.full((10_000,), 1e-4)  # its float32 sum is 1 to some 1e-6
    assert entropy(p).item() == pytest.approx(math.log(10_000), rel=1e-5)
    assert entropy(p).dtype == torch.float32


def test_docstring_examples():
    result = doctest.testmod(information)
    assert result.attempted >= 8 and result.failed == 0
