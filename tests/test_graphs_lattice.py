"""Belief propagation on grids against its definition, enumeration and what symmetry demands."""

import itertools
import math

import numpy as np
import pytest
import torch

from graphs.messages.lattice import Lattice
from graphs.messages.lattice_binary import BinarySweeps
from graphs.messages.lattice_states import StateSweeps
from graphs.messages.lattice_sweeps import Messages

KINDS = ("shared", "two", "edges", "batch of edges", "mixed")


def model(batch, height, width, states, kind="shared", scale=1.0, seed=0, dtype=torch.float64):
    """Random tables, neither symmetric nor of one sign."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return torch.as_tensor(scale * rng.normal(size=shape)).to(dtype)

    unary, pair = draw(batch, height, width, states), (states, states)
    if kind == "shared":
        return unary, draw(*pair), None
    if kind == "two":
        return unary, draw(*pair), draw(*pair)
    some = batch if kind == "batch of edges" else 1
    down = draw(*pair) if kind == "mixed" else draw(some, height - 1, width, *pair)
    return unary, down, draw(some, height, width - 1, *pair)


def table(given, b, r, c):
    given = given.double().numpy()
    return given if given.ndim == 2 else given[b if len(given) > 1 else 0, r, c]


def defined(unary, down, right, product, sweeps, damping=0.0, b=0):
    """Messages {(from, to): log m} by the definition, a message at a time, in float64."""
    right = down if right is None else right
    height, width, states = unary.shape[1:]
    psi = {}
    for r, c in itertools.product(range(height), range(width)):
        if r + 1 < height:
            psi[(r, c), (r + 1, c)] = table(down, b, r, c)
        if c + 1 < width:
            psi[(r, c), (r, c + 1)] = table(right, b, r, c)
    psi |= {(q, p): t.T for (p, q), t in psi.items()}
    add = np.logaddexp if product == "sum" else np.maximum
    own = unary[b].double().numpy()
    messages, moved = {edge: np.zeros(states) for edge in psi}, math.inf
    for _ in range(sweeps):
        after, moved = {}, 0.0
        for (p, q), log in psi.items():
            others = own[p] + sum(messages[k, s] for k, s in psi if s == p and k != q)
            new = add.reduce(others[:, None] + log, 0)
            new = (1 - damping) * (new - new.max()) + damping * messages[p, q]
            after[p, q] = new - new.max()
            moved = max(moved, np.ptp(after[p, q] - messages[p, q]))
        messages = after
    return messages, moved


def compare(found, wanted, shape, b=0, atol=1e-10):
    _, height, width, _ = shape
    seen = 0
    for r, c in itertools.product(range(height), range(width)):
        for q, forth, back in (
            ((r + 1, c), found.down, found.up),
            ((r, c + 1), found.right, found.left),
        ):
            if q[0] < height and q[1] < width:
                got = [m[:, b, r, c].detach().double().numpy() for m in (forth, back)]
                np.testing.assert_allclose(got[0], wanted[(r, c), q], 1e-6, atol)
                np.testing.assert_allclose(got[1], wanted[q, (r, c)], 1e-6, atol)
                seen += 2
    assert seen == len(wanted)


def enumerated(unary, down, right, b=0):
    """log Z, the marginals (H, W, K), and the log-potentials of all assignments."""
    right = down if right is None else right
    height, width, states = unary.shape[1:]
    every = np.array(list(itertools.product(range(states), repeat=height * width)))
    every = every.reshape(-1, height, width)
    score = np.zeros(len(every))
    own = unary[b].double().numpy()
    for r, c in itertools.product(range(height), range(width)):
        score += own[r, c][every[:, r, c]]
        if r + 1 < height:
            score += table(down, b, r, c)[every[:, r, c], every[:, r + 1, c]]
        if c + 1 < width:
            score += table(right, b, r, c)[every[:, r, c], every[:, r, c + 1]]
    log_z = np.logaddexp.reduce(score)
    weight = np.exp(score - log_z)
    marginals = np.stack([(weight[:, None, None] * (every == k)).sum(0) for k in range(states)], -1)
    return log_z, marginals, every, score


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("states", [2, 3, 5])
@pytest.mark.parametrize("product", ["sum", "max"])
@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_messages_are_those_of_the_definition(kind, states, product, damping):
    tables = model(2, 3, 4, states, kind, seed=states)
    lattice = Lattice(*tables)
    found = lattice.run(product, damping, 0.0, 6)
    asked = Lattice(tables[0].clone().requires_grad_(), *tables[1:]).run(product, damping, 0.0, 6)
    assert asked.messages.down.requires_grad and not found.messages.down.requires_grad
    moved = 0.0
    for b in range(2):
        wanted, change = defined(*tables, product, 6, damping, b)
        moved = max(moved, change)
        compare(found.messages, wanted, lattice.shape, b)
        compare(asked.messages, wanted, lattice.shape, b)
    for passed in (found, asked):
        assert passed.iterations == 6 or passed.converged
        assert passed.converged == (passed.residual < 1e-13)  # a tolerance of 0 is rounding
        assert passed.residual == pytest.approx(moved, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("kind", ["two", "edges"])
@pytest.mark.parametrize("states", [2, 3])
@pytest.mark.parametrize("scale", [0.5, 3.0, 200.0])
@pytest.mark.parametrize("product", ["sum", "max"])
def test_all_forms_in_float32(kind, states, scale, product):
    # Small scales run over odds or plain numbers, large ones over logarithms.
    tables = model(1, 4, 3, states, kind, scale, seed=7, dtype=torch.float32)
    lattice = Lattice(*tables)
    found = lattice.run(product, 0.0, 0.0, 5)
    wanted, _ = defined(*tables, product, 5)
    compare(found.messages, wanted, lattice.shape, atol=2e-6 * max(1.0, scale))
    assert found.messages.down.dtype == torch.float32


def test_which_form_runs():
    def odds(coupling, dtype, states=2, shift=0.0):
        pair = torch.eye(states, dtype=dtype) * coupling
        pair[1] += shift
        lattice = Lattice(torch.zeros(1, 3, 3, states, dtype=dtype), pair)
        form = BinarySweeps if states == 2 else StateSweeps
        args = (lattice.unary, lattice.down, lattice.right, lattice._nothing(), "sum", 0.0)
        return form(*args).odds if states == 2 else form(*args).linear

    assert odds(6.0, torch.float32) and odds(-6.0, torch.float32) and odds(60.0, torch.float64)
    assert not odds(12.0, torch.float32) and not odds(120.0, torch.float64)
    assert not odds(1.0, torch.float32, shift=40.0)  # the first messages would be out of range
    assert odds(5.0, torch.float32, 4) and not odds(20.0, torch.float32, 4)


@pytest.mark.parametrize("states", [2, 4])
@pytest.mark.parametrize("coupling", [500.0, -500.0])
@pytest.mark.parametrize("product", ["sum", "max"])
@pytest.mark.parametrize("gradients", [False, True])
def test_couplings_of_500_nats_in_float32(states, coupling, product, gradients):
    # On a chain the answer is exact: all pixels agree, or in turns disagree, with the sum of votes.
    unary = torch.tensor([0.3, -0.1, 0.4, 0.2]).reshape(1, 1, 4, 1) * torch.eye(states)[0]
    unary.requires_grad_(gradients)
    pair = torch.eye(states) * coupling
    lattice = Lattice(unary, pair)
    passed = lattice.run(product, max_iterations=8, tolerance=1e-4)
    assert passed.converged
    if states == 2 or coupling > 0:
        votes = 0.8 if coupling > 0 else 0.3 + 0.1 + 0.4 - 0.2
        signs = [1, 1, 1, 1] if coupling > 0 else [1, -1, 1, -1]
        found = lattice.beliefs(passed.messages).detach()[0, 0]
        for pixel, sign in enumerate(signs):
            gap = float(found[pixel, 0] - found[pixel, 1])
            assert gap == pytest.approx(sign * votes, abs=2e-3)
    wanted, _ = defined(unary.detach(), pair, None, product, 8)
    compare(passed.messages, wanted, lattice.shape, atol=1e-3)


@pytest.mark.parametrize("shape", [(1, 6), (6, 1), (1, 1), (1, 2), (2, 1)])
@pytest.mark.parametrize("states", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_chains_are_exact(shape, states, kind, scale):
    tables = model(2, *shape, states, kind, scale, seed=3)
    lattice = Lattice(*tables)
    passed = lattice.run("sum", tolerance=1e-12)
    assert passed.converged and passed.iterations <= 12
    beliefs, log_z = lattice.beliefs(passed.messages), lattice.bethe(passed.messages)
    best = lattice.run("max", tolerance=1e-12)
    decoded = lattice.beliefs(best.messages).argmax(-1).numpy()
    down, right = lattice.edge_beliefs(passed.messages)
    assert beliefs.shape == lattice.shape and log_z.shape == (2,)
    for b in range(2):
        total, marginals, every, score = enumerated(*tables, b)
        np.testing.assert_allclose(beliefs[b].exp().numpy(), marginals, 1e-9, 1e-12)
        assert float(log_z[b]) == pytest.approx(total, rel=1e-12)
        assert np.array_equal(decoded[b], every[score.argmax()])
        for r, c in itertools.product(*map(range, shape)):
            weight = np.exp(score - total)
            for q, found in (((r + 1, c), down), ((r, c + 1), right)):
                if q[0] < shape[0] and q[1] < shape[1]:
                    joint = np.zeros((states, states))
                    np.add.at(joint, (every[:, r, c], every[(slice(None), *q)]), weight)
                    np.testing.assert_allclose(found[b, r, c].exp().numpy(), joint, 1e-9, 1e-12)


@pytest.mark.parametrize("states", [2, 3])
def test_bethe_is_the_sum_over_factors_of_its_definition(states):
    # At messages that have not converged, where its terms do not simplify.
    tables = model(1, 3, 2, states, "edges", seed=5)
    lattice = Lattice(*tables)
    found = float(lattice.bethe(lattice.run(max_iterations=3, tolerance=0.0).messages))
    messages, _ = defined(*tables, "sum", 3)
    own = tables[0][0].numpy()
    nu = {
        (p, q): own[p] + sum(messages[k, s] for k, s in messages if s == p and k != q)
        for p, q in messages
    }
    total = 0.0
    for (p, q), message in messages.items():
        total -= np.logaddexp.reduce(nu[q, p] + message)
        if p < q:
            psi = table(tables[1] if p[1] == q[1] else tables[2], 0, *p)
            total += np.logaddexp.reduce((psi + nu[p, q][:, None] + nu[q, p]).ravel())
    for p in itertools.product(range(3), range(2)):
        total += np.logaddexp.reduce(own[p] + sum(m for (_, q), m in messages.items() if q == p))
    assert found == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("states", [2, 3])
@pytest.mark.parametrize("scale", [0.5, 30.0])
@pytest.mark.parametrize("gradients", [False, True])
def test_evidence(dtype, states, scale, gradients):
    unary, down, right = model(1, 3, 3, states, "two", scale, 11, dtype)
    unary[0, 0, 1] = unary[0, 2, 2] = unary[0, 1, 1] = -math.inf
    unary[0, 0, 1, 0], unary[0, 2, 2, 1], unary[0, 1, 1, 1] = 0.0, 2.0, -70.0
    if states == 3:
        unary[0, 2, 0, 0] = -math.inf  # one state of three
    for product in ("sum", "max"):
        lattice = Lattice(unary.clone().requires_grad_(gradients), down, right)
        found = lattice.run(product, 0.0, 0.0, 5)
        wanted, _ = defined(unary, down, right, product, 5)
        rounding = 2e-6 if dtype == torch.float32 else 1e-12
        compare(found.messages, wanted, lattice.shape, atol=rounding * 10 * max(1, scale))
        beliefs = lattice.beliefs(found.messages).exp().detach()
        assert beliefs[0, 0, 1].tolist() == [1.0] + [0.0] * (states - 1)
        assert float(beliefs[0, 2, 2, 1]) == 1.0
        assert torch.isfinite(lattice.bethe(found.messages)).all()


def test_unaries_beyond_the_range_of_odds_are_as_good_as_evidence():
    for size in (30.0, 60.0, 300.0, 1e4):
        unary = torch.tensor([[0.0, size], [0.0, -0.5], [0.4, 0.0], [size, 0.0]]).reshape(
            1, 2, 2, 2
        )
        pair = torch.tensor([[1.5, 0.0], [0.2, 1.0]])
        lattice = Lattice(unary, pair)
        found = lattice.run("sum", 0.0, 0.0, 6)
        wanted, _ = defined(unary, pair, None, "sum", 6)
        compare(found.messages, wanted, lattice.shape, atol=1e-6)


@pytest.mark.parametrize("states", [2, 3])
@pytest.mark.parametrize("product", ["sum", "max"])
@pytest.mark.parametrize("damping", [0.0, 0.5])
@pytest.mark.parametrize("coupling", [3.0, 30.0])
def test_ties_stay_ties(states, product, damping, coupling):
    # Below the critical temperature the symmetric fixed point repels: rounding would leave it.
    lattice = Lattice(torch.zeros(1, 9, 7, states), torch.eye(states) * coupling)
    passed = lattice.run(product, damping, 0.0, 200)
    beliefs = lattice.beliefs(passed.messages)
    if states == 2:
        assert all((m == 0).all() for m in passed.messages)
        assert passed.iterations == 4 and passed.residual == 0.0 and passed.converged
    assert (beliefs.amax(-1) - beliefs.amin(-1)).max() < 1e-6


@pytest.mark.parametrize("states", [2, 3])
@pytest.mark.parametrize("kind", ["shared", "edges"])
@pytest.mark.parametrize("damping", [0.0, 0.25])
def test_gradients(states, kind, damping):
    unary, down, right = model(2, 2, 3, states, kind, 0.7, 13)
    right = down.clone() if right is None else right

    def results(*tables):
        lattice = Lattice(*tables)
        messages = lattice.run("sum", damping, 0.0, 4).messages
        return lattice.beliefs(messages), lattice.bethe(messages), *lattice.edge_beliefs(messages)

    given = tuple(t.clone().requires_grad_() for t in (unary, down, right))
    assert torch.autograd.gradcheck(results, given)

    def maxima(*tables):
        lattice = Lattice(*tables)
        return lattice.beliefs(lattice.run("max", damping, 0.0, 4).messages)

    assert torch.autograd.gradcheck(maxima, given)


@pytest.mark.parametrize("states", [2, 3])
def test_gradient_of_log_z_of_a_chain_is_its_marginals_with_evidence_and_ties(states):
    unary = torch.zeros(1, 1, 4, states, dtype=torch.float64)
    unary[0, 0, 2, 1:] = -math.inf
    unary.requires_grad_()
    lattice = Lattice(unary, torch.zeros(states, states, dtype=torch.float64))
    passed = lattice.run("sum", tolerance=1e-12)
    (found,) = torch.autograd.grad(lattice.bethe(passed.messages).sum(), unary)
    torch.testing.assert_close(found, lattice.beliefs(passed.messages).exp().detach())


@pytest.mark.parametrize("states", [2, 3])
@pytest.mark.parametrize("product", ["sum", "max"])
def test_bands_change_nothing(monkeypatch, states, product):
    tables = model(3, 5, 7, states, "edges", seed=17)
    lattice = Lattice(*tables)
    whole = lattice.run(product, 0.2, 0.0, 7)
    monkeypatch.setattr("graphs.messages.lattice_sweeps.PLACES", 13 * states)
    form = BinarySweeps if states == 2 else StateSweeps
    parts = (lattice.unary, lattice.down, lattice.right, lattice._nothing())
    sizes = [band.new.shape[-1] for band in form(*parts, product, 0.2).plans[0]]
    assert len(sizes) >= 4 and sum(sizes) == 3 * 5 * 7 and sizes[-1] < sizes[0]
    bands = lattice.run(product, 0.2, 0.0, 7)
    for a, b in zip(whole.messages, bands.messages, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)
    assert bands.residual == pytest.approx(whole.residual, rel=1e-12)


@pytest.mark.parametrize("states", [2, 3])
def test_a_start_goes_on_where_it_stopped(states):
    lattice = Lattice(*model(2, 3, 4, states, "two", seed=19))
    whole = lattice.run("sum", 0.3, 0.0, 9)
    part = lattice.run("sum", 0.3, 0.0, 5)
    rest = lattice.run("sum", 0.3, 0.0, 4, start=part.messages)
    for a, b in zip(whole.messages, rest.messages, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)
    assert rest.residual == pytest.approx(whole.residual, rel=1e-6)


@pytest.mark.parametrize("gradients", [False, True])
def test_iterations_are_those_that_were_done(gradients):
    unary, down, _ = model(1, 4, 4, 2, scale=0.3)
    lattice = Lattice(unary.requires_grad_(gradients), down)
    seen = []
    passed = lattice.run(
        tolerance=1e-8, progress=lambda done, residual: seen.append((done, residual))
    )
    assert passed.converged and passed.residual <= 1e-8 < seen[-2][1]
    assert seen[-1] == (passed.iterations, passed.residual)
    exact = [defined(unary.detach(), down, None, "sum", n)[1] <= 1e-8 for n in range(1, 30)]
    assert exact.index(True) + 1 <= passed.iterations < exact.index(True) + (2 if gradients else 5)
    never = lattice.run(max_iterations=0)
    assert never.iterations == 0 and never.residual == math.inf and not never.converged
    assert all(m.abs().max() < 1e-15 for m in never.messages)


def test_inputs_are_left_alone():
    tables = model(1, 3, 4, 2, "edges", dtype=torch.float32)
    before = [t.clone() for t in tables]
    lattice = Lattice(*tables)
    for product in ("sum", "max"):
        passed = lattice.run(product)
        again = lattice.run(product)
        assert all(torch.equal(a, b) for a, b in zip(passed.messages, again.messages, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(tables, before, strict=True))


def test_what_is_refused():
    unary, pair = torch.zeros(1, 2, 3, 2), torch.zeros(2, 2)
    hard = torch.tensor([[0.0, -math.inf], [0.0, 0.0]])
    assert Lattice.supports(pair) and not Lattice.supports(hard)
    assert not Lattice.supports(pair, hard) and not Lattice.supports(pair * math.nan)
    with pytest.raises(ValueError, match=r"down has NaN or infinite entries"):
        Lattice(unary, hard)
    with pytest.raises(ValueError, match=r"right must be \(2, 2\) or \(1, 2, 2, 2, 2\)"):
        Lattice(unary, pair, torch.zeros(1, 2, 3, 2, 2))
    with pytest.raises(ValueError, match=r"unary must be \(B, H, W, K\).*got \(2, 3, 2\)"):
        Lattice(unary[0], pair)
    with pytest.raises(ValueError, match=r"float32 or float64; got torch\.int64"):
        Lattice(unary.long(), pair)
    for bad in ([-math.inf, -math.inf], [math.nan, 0.0], [math.inf, 0.0]):
        wrong = unary.clone()
        wrong[0, 1, 2] = torch.tensor(bad)
        with pytest.raises(ValueError, match=r"pixel \(1, 2\) of grid 0"):
            Lattice(wrong, pair)
    lattice = Lattice(unary, pair)
    with pytest.raises(ValueError, match="product must be"):
        lattice.run("mean")
    with pytest.raises(ValueError, match="damping must be"):
        lattice.run(damping=1.0)
    with pytest.raises(ValueError, match="max_iterations must be"):
        lattice.run(max_iterations=-1)
    assert isinstance(lattice.run().messages, Messages)
