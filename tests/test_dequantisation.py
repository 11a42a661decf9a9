"""Noise below the last digit: uniform and learned, against exact probabilities of levels."""

import math

import pyro
import pytest
import torch
from torch import Tensor, nn

from ppgen import ELBO, fit
from ppgen.compile import Compiled
from ppgen.data import Dataset
from ppgen.distributions import Cell, Cut
from ppgen.models.dequantisation import UniformDequantiser, VariationalDequantiser
from ppgen.models.flow import Flow
from ppgen.nn.bijections import Bijection
from ppgen.nn.image_flow import Pixelwise
from ppgen.program import log_prob

SHAPES = ((1, 4, 6), (2, 2, 2), (1, 3, 3), (5,), (1,), (2, 3))
DEQUANTISERS = (UniformDequantiser, VariationalDequantiser)


def perturbed(module: nn.Module, size: float, seed: int = 0) -> nn.Module:
    """The module with noise on its parameters: at birth the last layers are zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter += size * noise
    return module


def levels_of(shape: tuple[int, ...], levels: int, n: int = 4, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(levels, (n, *shape), generator=generator).float() / (levels - 1)


class Mixed(Bijection):
    """Two dimensions: a scale and a shift each, and the second bent by the first."""

    def __init__(self) -> None:
        super().__init__()
        self.affine = Pixelwise((2,))
        self.bend = nn.Parameter(torch.tensor([0.4, -0.3]))

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        first, second = z.unbind(1)
        log_scale = self.bend[1] * torch.tanh(first)
        z = torch.stack([first, second * log_scale.exp() + self.bend[0] * first**2], 1)
        x, log_det = self.affine(z)
        return x, log_det + log_scale

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_det = self.affine.inverse(x)
        first, second = z.unbind(1)
        log_scale = self.bend[1] * torch.tanh(first)
        second = (second - self.bend[0] * first**2) * torch.exp(-log_scale)
        return torch.stack([first, second], 1), log_det - log_scale


def flow(levels: int = 3, **arguments) -> Flow:
    program = Flow((2,), Mixed(), levels=levels, **arguments)
    with torch.no_grad():  # a few nats from uniform, and steep inside the cells
        program.bijection.layers[0].affine.loc += torch.tensor([0.3, -0.4])
        program.bijection.layers[0].affine.log_scale += torch.tensor([-0.4, 0.1])
    return program


def exact(program: Flow, x: Tensor, count: int = 60) -> Tensor:
    """log of the integral of p(v) over the cell of x, by Gauss-Legendre in both dimensions."""
    nodes, weights = (torch.as_tensor(a) for a in _legendre(count))
    u = torch.cartesian_prod((nodes + 1) / 2, (nodes + 1) / 2)  # (count^2, 2)
    weight = torch.cartesian_prod(weights / 2, weights / 2).prod(1)
    low = torch.round(x.double() * (program.levels - 1)) / program.levels
    program.double()
    with torch.no_grad():
        found = [
            torch.logsumexp(
                program.distribution(len(u)).log_prob(one + u / program.levels) + weight.log(), 0
            )
            for one in low
        ]
    program.float()
    return torch.stack(found) - 2 * math.log(program.levels)


def _legendre(count: int):
    import numpy as np

    return np.polynomial.legendre.leggauss(count)


def grid(levels: int) -> Tensor:
    return torch.cartesian_prod(*[torch.arange(levels) / (levels - 1)] * 2)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("family", DEQUANTISERS)
def test_draws_lie_in_their_cells(family, shape):
    torch.manual_seed(0)
    dequantiser = perturbed(family(shape, 5), 0.2)
    x = levels_of(shape, 5, n=200)
    inside = dequantiser(x).rsample() * 5 - torch.round(x * 4)
    assert inside.shape == x.shape
    assert inside.min() >= -1e-5 and inside.max() <= 1 + 1e-5
    assert inside.std() > 0.05


@pytest.mark.parametrize("shape", SHAPES)
def test_the_learned_noise_starts_as_uniform(shape):
    dequantiser = VariationalDequantiser(shape, 4)
    q = dequantiser(levels_of(shape, 4, n=500))
    torch.manual_seed(0)
    v = q.rsample()
    torch.testing.assert_close(
        q.log_prob(v), torch.full((500,), math.prod(shape) * math.log(4)), rtol=1e-5, atol=1e-5
    )
    u = (v * 4 % 1).flatten().sort().values.double()
    expected = (torch.arange(len(u), dtype=torch.double) + 0.5) / len(u)
    assert (u - expected).abs().max() < 1.95 / math.sqrt(len(u))  # Kolmogorov-Smirnov, p = 0.001


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if math.prod(shape) < 10])
def test_the_density_of_learned_noise_is_its_jacobian(shape):
    dequantiser = perturbed(VariationalDequantiser(shape, 3, hidden=4), 0.1).double()
    x = levels_of(shape, 3, n=2).double()
    a = torch.randn(2, *shape, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    q = dequantiser(x)
    for k in range(2):

        def drawn(one, k=k):
            value = torch.cat([a[:k], one.view(1, *shape), a[k + 1 :]])
            for transform in dequantiser(x).transforms:
                value = transform(value)
            return value[k].flatten()

        jacobian = torch.autograd.functional.jacobian(drawn, a[k].flatten())
        noise = -0.5 * (a[k] ** 2 + math.log(2 * math.pi)).sum()
        v = drawn(a[k].flatten()).view(shape)
        expected = noise - torch.linalg.slogdet(jacobian)[1]
        known = q.log_prob(v.expand(2, *shape).clone())[k]  # by the inverse, not remembered
        torch.testing.assert_close(known, expected, rtol=1e-9, atol=1e-9)


def test_a_draw_and_the_same_numbers_have_one_density():
    """What the draw remembers and what the inverse finds anew; also for particles."""
    dequantiser = perturbed(VariationalDequantiser((1, 4, 4), 8), 0.05).double()
    x = levels_of((1, 4, 4), 8).double()
    q = dequantiser(x).expand((6, 4))
    v = q.rsample()
    found = q.log_prob(v)
    assert v.shape == (6, 4, 1, 4, 4) and found.shape == (6, 4)
    for k in range(6):
        torch.testing.assert_close(dequantiser(x).log_prob(v[k].clone()), found[k])


def test_noise_at_the_edges_of_a_cell_stays_finite():
    dequantiser = VariationalDequantiser((1, 4, 4), 256)
    with torch.no_grad():  # a thousandth of u on either side: sharp in float32
        dequantiser.flow.affine.bias[:4] = 4.0
        dequantiser.flow.affine.bias[4:] = torch.tensor([9.0, -9.0, 30.0, -30.0])
    x = levels_of((1, 4, 4), 256, n=50)
    q = dequantiser(x)
    v = q.rsample()
    assert v.isfinite().all() and q.log_prob(v).isfinite().all()
    assert q.log_prob(v.clone()).isfinite().all()
    q.log_prob(v).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in dequantiser.parameters())
    # the program takes every draw for the level that it came from
    program = Flow((1, 4, 4), Pixelwise((1, 4, 4)), levels=256, dequantisation="variational")
    program.dequantiser = dequantiser
    assert ELBO(program)(x)[0].isfinite()


@pytest.mark.parametrize("dequantisation", ["uniform", "variational"])
def test_the_bound_stays_below_the_exact_probability_and_rises_to_it(dequantisation):
    torch.manual_seed(0)
    program = flow(dequantisation=dequantisation)
    if dequantisation == "variational":
        perturbed(program.dequantiser, 0.05)
    x = grid(3)
    truth = exact(program, x)
    assert truth.exp().sum() == pytest.approx(1, abs=0.1)  # the rest maps outside of [0, 1]
    with torch.no_grad():
        bounds = []
        for particles in (1, 8, 1000):
            values = torch.stack([log_prob(program, x, num_particles=particles) for _ in range(40)])
            error = values.std(0) / 40**0.5
            bounds.append(values.mean(0).double())
            assert (bounds[-1] <= truth + 4 * error).all()
    assert (bounds[1].mean() > bounds[0].mean()) and (bounds[2].mean() > bounds[1].mean())
    torch.testing.assert_close(bounds[2], truth, rtol=0, atol=0.05)


def test_learned_noise_gives_a_tighter_bound():
    """The flow is fixed: only the dequantiser learns, so that its bound is at least uniform's."""
    x = grid(3).repeat(20, 1)
    gaps = {}
    for dequantisation in ("uniform", "variational"):
        torch.manual_seed(0)
        program = flow(dequantisation=dequantisation)
        truth = exact(program, grid(3)).mean()
        if dequantisation == "variational":
            optimiser = torch.optim.Adam(program.dequantiser.parameters(), 1e-2)
            objective = Compiled(ELBO(program))
            for _ in range(150):
                optimiser.zero_grad()
                objective(x)[0].backward()
                optimiser.step()
        with torch.no_grad():
            gaps[dequantisation] = float(truth - log_prob(program, x.repeat(20, 1)).mean())
    assert gaps["uniform"] > 0.02
    assert 0 <= gaps["variational"] < 0.5 * gaps["uniform"]


@pytest.mark.parametrize("shape", [(1, 4, 4), (3,)])
def test_compiled_and_plain_are_one(shape):
    program = perturbed(Flow(shape, Pixelwise(shape), levels=4, dequantisation="variational"), 0.2)
    x = levels_of(shape, 4)
    found = []
    for mode in ("none", "trace"):
        program.zero_grad()
        objective = Compiled(ELBO(program), mode)
        pyro.set_rng_seed(3)
        loss = objective(x)[0]
        loss.backward()
        assert objective.mode == mode
        found.append([loss.detach(), *(p.grad.clone() for p in program.parameters())])
    for plain, traced in zip(*found, strict=True):
        torch.testing.assert_close(plain, traced, rtol=1e-5, atol=1e-6)


def test_training_learns_the_noise_and_keeps_it(tmp_path):
    """Through `fit`, saved and loaded; the trained bound beats that of the same uniform flow."""
    x = torch.full((64, 3), 1 / 3)  # one level of four: a constant
    data = Dataset.from_tensors((x,), (x[:8],), (x[:8],), levels=4)
    found = {}
    for dequantisation in ("uniform", "variational"):
        torch.manual_seed(0)
        program = Flow((3,), Pixelwise((3,)), levels=4, dequantisation=dequantisation)
        out = tmp_path / dequantisation
        run = fit(program, data, steps=120, batch_size=64, lr=5e-2, out=out, progress=False,
                  sample_epochs=0, validate_epochs=0, device="cpu")  # fmt: skip
        with torch.no_grad():
            found[dequantisation] = float(log_prob(run.program, x.repeat(20, 1)).mean())
    # Uniform on a cell under the best Gaussian: log sqrt(2 pi e / 12) nats a dimension.
    assert found["uniform"] < -3 * 0.15
    assert found["uniform"] + 0.2 < found["variational"] <= 0.0


def test_no_draw_of_the_uniform_dequantiser_is_impossible():
    """Rounding takes one draw in some millions onto the end of its cell."""
    for levels in (2, 17, 256):
        x = torch.full((2**20,), 1.0)
        law = Cell(x, levels)
        end = torch.full_like(x, 1.0)  # the end itself, and the numbers next to it
        for v in (law.sample(), end, torch.nextafter(end, end + 1), law.mean):
            assert (law.log_prob(v) == math.log(levels)).all()
            assert (Cut(v, levels).log_prob(x) == 0).all()
        assert (law.log_prob(law.mean - 1 / levels) == -math.inf).all()
        assert (Cut(law.mean - 1 / levels, levels).log_prob(x) == -math.inf).all()
    v = Cell(torch.tensor([0.0, 0.5, 1.0]), 3).sample((50_000,))
    torch.testing.assert_close(v.mean(0), torch.tensor([1, 3, 5]) / 6, atol=3e-3, rtol=0)
    assert (Cut(v, 3).mean == torch.tensor([0.0, 0.5, 1.0])).all()
