"""A traced objective is the objective: same numbers, same gradients, same state afterwards."""

import copy
import random
import warnings

import numpy
import pytest
import torch
from pyro.infer import RenyiELBO
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from ppgen import ELBO, ImportanceWeightedELBO
from ppgen.compile import Compiled
from ppgen.objective import Objective, PyroObjective, default_objectives
from ppgen.simplify import simplify
from tests.programs import CASES, StrangerVAE, reals

TRACED = {name: case for name, case in CASES.items() if case.traced}


def run(call, batches, seed: int = 0):
    """Losses, terms and accumulated gradients over several calls, and the generator afterwards."""
    torch.manual_seed(seed)
    losses, terms = [], []
    for batch in batches:
        loss, parts = call(*batch)
        if loss.requires_grad:
            loss.backward()
        losses.append(loss.detach())
        terms.append(parts)
    return losses, terms, torch.get_rng_state()


def check_equal(objective: Objective, batches, training: bool, mode: str = "trace") -> Compiled:
    objective.prepare(*batches[0])
    objective.train(training)
    twin = copy.deepcopy(objective)
    compiled = Compiled(twin, mode).train(training)
    expected, found = run(objective, batches), run(compiled, batches)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-5)
    for mine, theirs in zip(found[1], expected[1], strict=True):
        assert list(mine) == list(theirs)
        for title, value in theirs.items():
            torch.testing.assert_close(mine[title], value, rtol=1e-5, atol=1e-5)
            assert not mine[title].requires_grad
    for (name, mine), theirs in zip(twin.named_parameters(), objective.parameters(), strict=True):
        assert (mine.grad is None) == (theirs.grad is None), name
        if theirs.grad is not None:
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-5, msg=name)
    for (name, mine), theirs in zip(twin.named_buffers(), objective.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6, msg=name)
    assert torch.equal(found[2], expected[2])
    return compiled


@pytest.mark.parametrize("name", ["gaussian", "diffusion"])
@pytest.mark.filterwarnings("ignore")  # of the compiler's own parts
def test_fused_kernels_equal_plain(name: str):
    """One term that is the loss itself; steps of a chain looked up in a table."""
    case = CASES[name]
    objective, batches = ELBO(case.program()), [case.batch()] * 2
    objective.prepare(*batches[0])
    twin = copy.deepcopy(objective)
    compiled = Compiled(twin, "inductor")
    with torch.no_grad():
        expected, found = run(objective, batches), run(compiled, batches)
    torch.testing.assert_close(found[:2], expected[:2], rtol=1e-4, atol=1e-5)
    assert torch.equal(found[2], expected[2])
    # With gradients the compiler may draw in another order, which programs without latents lack.
    expected, found = run(objective, batches), run(compiled, batches)
    assert torch.equal(found[2], expected[2])
    if name == "diffusion":
        assert all(parameter.grad.isfinite().all() for parameter in twin.parameters())
        return
    torch.testing.assert_close(found[:2], expected[:2], rtol=1e-4, atol=1e-5)
    for mine, theirs in zip(twin.parameters(), objective.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", TRACED)
def test_compiled_equals_plain(name: str, training: bool):
    """Repeated calls and an odd last batch; each size has its own graph, and only one."""
    case = TRACED[name]
    sizes = (5, 5, 3)
    batches = [case.batch(n, seed=k) for k, n in enumerate(sizes)]
    objectives: list[Objective] = [ELBO(case.program())]
    if getattr(objectives[0].program, "density", None) == "implicit":  # each on a program anew
        players = default_objectives(case.program())
        objectives = [default_objectives(case.program())[player] for player in players]
    for objective in objectives:
        compiled = check_equal(objective, batches, training)
        assert compiled.mode == "trace" and compiled.reason is None
        assert len(compiled.graphs) == len(set(sizes))


@pytest.mark.parametrize("name", ["vae-mlp-bernoulli", "vae-conv-bernoulli", "bits", "two-views"])
def test_a_batch_of_one(name: str):
    case = TRACED[name]
    compiled = check_equal(ELBO(case.program()), [case.batch(1), case.batch(4)], training=True)
    assert compiled.mode == "trace"


@pytest.mark.parametrize("name", ["vae-custom", "hierarchy", "bits", "gradients"])
@pytest.mark.parametrize(
    "options",
    [
        {"kl_weight": 0.3, "kl_warmup": 4},
        {"particles": 3},
        {"analytic_kl": False},
        {"free_bits": 0.8, "particles": 2},
    ],
    ids=["warm-up", "particles", "sampled-kl", "free-bits"],
)
def test_options_of_the_elbo_survive(name: str, options: dict):
    """The warm-up's counter advances call by call: six calls pass its end."""
    case = TRACED[name]
    objective = ELBO(case.program(), **options)
    compiled = check_equal(objective, [case.batch(4, seed=k) for k in range(6)], training=True)
    assert compiled.mode == "trace"
    assert int(objective.turns) == (6 if objective.kl_warmup else 0)


@pytest.mark.parametrize("name", ["vae-custom", "vae-conv-logistic", "linear", "mixed"])
def test_the_importance_weighted_bound_compiles(name: str):
    case = CASES[name]
    objective = ImportanceWeightedELBO(case.program(), particles=4)
    compiled = check_equal(objective, [case.batch(4), case.batch(4, seed=2)], training=True)
    assert compiled.mode == "trace"


def test_without_gradients_and_in_autocast():
    """Gradient mode and autocast are part of the key: switching gives a new graph, not an old."""
    case = CASES["vae-mlp-bernoulli"]
    batch = case.batch()
    objective = ELBO(case.program())
    compiled = Compiled(objective)

    def both() -> float:
        torch.manual_seed(0)
        plain, _ = objective(*batch)
        torch.manual_seed(0)
        traced, _ = compiled(*batch)
        assert traced.requires_grad == plain.requires_grad == torch.is_grad_enabled()
        torch.testing.assert_close(traced, plain, rtol=1e-5, atol=1e-5)
        return traced.item()

    first = both()
    with torch.no_grad():
        both()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = both()
    assert both() == first
    assert rounded != first
    assert len(compiled.graphs) == 3 and compiled.mode == "trace"


def test_parameters_and_numbers_are_inputs_of_the_graph():
    """Weights changed in place or replaced, and a buffer or number set anew, all count."""
    case = CASES["vae-mlp-gaussian-learned"]
    batch = case.batch()
    objective = ELBO(case.program())
    compiled = Compiled(objective)

    def difference() -> float:
        torch.manual_seed(0)
        traced, _ = compiled(*batch)
        torch.manual_seed(0)
        torch.testing.assert_close(traced, objective(*batch)[0], rtol=1e-5, atol=1e-5)
        return traced.item()

    values = [difference()]
    with torch.no_grad():
        objective.program.log_scale.add_(0.5)
    values.append(difference())
    objective.program.log_scale = nn.Parameter(torch.tensor(-0.5))
    values.append(difference())
    objective.kl_weight.fill_(3.0)
    values.append(difference())
    objective.analytic_kl = False
    values.append(difference())
    assert len(set(values)) == 5
    assert compiled.mode == "trace"


def test_a_recording_leaves_no_trace():
    """The first call changes buffers and the generator as one plain call does, not as two."""
    case = CASES["vae-custom"]
    batch = case.batch()
    objective = ELBO(case.program(), kl_warmup=10)
    objective.prepare(*batch)
    before = [int(count) for count in _counts(objective)]
    compiled = Compiled(objective)
    compiled(*batch)
    assert [int(count) for count in _counts(objective)] == [count + 1 for count in before] != []
    assert int(objective.turns) == 1
    assert all(parameter.grad is None for parameter in objective.parameters())


def _counts(objective: Objective) -> list[torch.Tensor]:
    named = objective.named_buffers()
    return [buffer for name, buffer in named if name.endswith("num_batches_tracked")]


@pytest.mark.parametrize("name", ["branching", "gambling", "counting", "refined", "mixed"])
def test_what_cannot_be_traced_falls_back_with_one_warning(name: str):
    """And the numbers of every call are those of the plain program."""
    case = CASES[name]
    objective = ELBO(case.program())
    twin = copy.deepcopy(objective)
    for one in (objective, twin):
        random.seed(0)
        one.prepare(*case.batch())
    compiled = Compiled(twin)
    batches = [case.batch(4, seed=k) for k in range(3)]
    random.seed(1)
    expected = run(objective, batches)[0]
    random.seed(1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = run(compiled, batches)[0]
    (warning,) = caught
    assert type(case.program()).__name__ in str(warning.message)
    assert "plain Pyro" in str(warning.message) and compiled.reason in str(warning.message)
    assert compiled.mode == "none"
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_an_error_of_the_program_is_its_own():
    """A broken batch is not called untraceable."""
    compiled = Compiled(ELBO(StrangerVAE((3,))))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        compiled(torch.zeros(4, 2))
    with pytest.raises(ValueError, match="compile must be"):
        Compiled(ELBO(StrangerVAE((3,))), "fast")


def test_pyros_elbos_run_plainly_and_silently():
    compiled = Compiled(PyroObjective(StrangerVAE((3,)), RenyiELBO(0.5, num_particles=2)))
    loss, _ = compiled(reals())
    assert compiled.mode == "none" and compiled.reason is None and loss.isfinite()


class Filled(nn.Module):
    """Zeros and ones that are written to after they are made, directly and through a view."""

    def forward(self, x):
        shift, scale, view = x.new_zeros(x.shape), torch.ones_like(x), x.new_zeros(x.shape)
        shift.add_(2.0)
        scale[:, 0] = 3.0
        view[:, 1].fill_(5.0)
        constant = torch.tensor([1.0, 2.0, 3.0])
        constant.mul_(2.0)
        return ((x + shift) / scale + view - x.new_zeros(x.shape)) * constant


def test_simplifying_a_graph_keeps_what_is_written_to():
    x = torch.randn(4, 3)
    graph = make_fx(Filled(), pre_dispatch=True)(x)
    calls = len(graph.graph.nodes)
    expected = Filled()(x)
    simplify(graph)
    for _ in range(2):  # a constant changed by the first run would show in the second
        torch.testing.assert_close(graph(x), expected)
    assert len(graph.graph.nodes) < calls


WRITERS = {
    "parameter": lambda x, w: (w - torch.zeros_like(w)).detach().add_(1.0) * x,
    "detached": lambda x, w: (w.detach() * torch.ones_like(w)).add_(1.0) * x,
    "batch": lambda x, w: (x * torch.ones_like(x)).clamp_(min=0.0) * w,
    "source": lambda x, w: _late(w * x),
    "view": lambda x, w: (x + torch.zeros_like(x)).view(-1).mul_(2.0).view(x.shape) * w,
}


def _late(z):
    kept = z + torch.zeros_like(z)
    z.detach().mul_(3.0)
    return kept


@pytest.mark.parametrize("name", WRITERS)
def test_a_simplified_graph_writes_to_nothing_else(name: str):
    """A copy made by adding zeros stays a copy where either side is written to later."""
    x, w = torch.randn(4, 3), torch.randn(4, 3)
    before, function = (x.clone(), w.clone()), WRITERS[name]
    graph = make_fx(function, pre_dispatch=True)(x, w)
    simplify(graph)
    for _ in range(2):
        torch.testing.assert_close(graph(x, w), function(*(part.clone() for part in before)))
        torch.testing.assert_close((x, w), before)


class Remembering(StrangerVAE):
    """Keeps state where a graph cannot see it: a tensor, a list, or NumPy's generator."""

    def __init__(self, shape, where: str):
        super().__init__(shape)
        self.where, self.count, self.counts = where, torch.zeros(()), [0]

    def model(self, x):
        if self.where == "tensor":
            self.count = self.count + 1
        elif self.where == "list":
            self.counts[0] += 1
        else:
            numpy.random.rand()
        return super().model(x)


@pytest.mark.parametrize("where", ["tensor", "list", "numpy"])
def test_hidden_state_is_not_frozen(where: str):
    program, x = Remembering((3,), where), reals()
    compiled = Compiled(ELBO(program))
    with pytest.warns(UserWarning, match="plain Pyro"):
        compiled(x)
    seen = float(program.count), program.counts[0]
    compiled(x)
    if where != "numpy":
        moved = float(program.count) - seen[0] + program.counts[0] - seen[1]
        assert moved == 1
