"""Networks as Pyro programs and programs as networks: one posterior by every road."""

import random
from itertools import product

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro import poutine
from pyro.infer import SVI, Predictive, TraceEnum_ELBO, config_enumerate, infer_discrete
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import tensor

import graphs
from graphs.bridge import from_pyro, to_bayesian_network, to_pyro
from graphs.tables import Factor, bayesian
from ppgen.models import VAE

MOVED = "ignore:.pgmpy.estimators.StructureScore. is deprecated:FutureWarning"
PRINTED = "ignore:.*columns of tables sum to 1 only within:UserWarning"
TABLE = tensor([[0.2, 0.8], [0.6, 0.4]])
HALF = tensor([0.5, 0.5])


def random_network(seed, nodes, least=2, parents=2, states=3):
    """Random tables, some entries zero, over a random graph; named as DiscreteBayesianNetwork."""
    rng = np.random.default_rng(seed)
    sizes = {f"v{i}": int(rng.integers(least, states + 1)) for i in range(nodes)}
    names, factors = list(sizes), []
    for i, name in enumerate(names):
        given = [names[j] for j in rng.permutation(i)[: rng.integers(0, parents + 1)]]
        table = rng.gamma(1.0, size=[sizes[v] for v in (name, *given)]) + 0.01
        if sizes[name] > 2:
            table[0] *= rng.random(table.shape[1:]) < 0.8
        factors.append(Factor((name, *given), table / table.sum(0)))
    return bayesian({v: range(size) for v, size in sizes.items()}, factors)


def pgmpy_model(tables):
    return to_bayesian_network(to_pyro(tables))


def indices(model, evidence):
    positions = graphs.tables_of(model).positions
    return {str(v): tensor(positions[v][str(state)]) for v, state in evidence.items()}


def enumerated(program):
    elbo = TraceEnum_ELBO(max_plate_nesting=0)
    seen = config_enumerate(program)
    found = elbo.compute_marginals(seen, lambda: None)
    return {name: site.probs for name, site in found.items()}, -elbo.loss(seen, lambda: None)


# One posterior by every road ----------------------------------------------------------------------

NETWORKS = {
    "asia": "asia",
    "cancer": "cancer",
    "earthquake": "earthquake",
    "survey": "survey",
    "sachs": "sachs",
    "child": "child",
    "insurance": "insurance",
    "alarm": "alarm",
    "water": "water",
    "mildew": "mildew",
    "random, 7 nodes": 1,
    "random, 9 nodes": 2,
}
LARGEST_BY_HAND = 2**18
BY_PGMPY = {"mildew": 3, "water": 3}  # how many targets, where pgmpy needs seconds for each


def case(name):
    known = NETWORKS[name]
    model = graphs.load(known) if isinstance(known, str) else random_network(known, 5 + 2 * known)
    leaves = [v for v in graphs.tables_of(model).graph() if not _children(model, v)][-2:]
    row = graphs.sample(model, 1, seed=7).iloc[0]
    return model, {leaf: row[leaf] for leaf in leaves}


def _children(model, node):
    return list(graphs.tables_of(model).graph().successors(node))


@pytest.mark.filterwarnings(PRINTED, MOVED)
@pytest.mark.parametrize("name", NETWORKS)
def test_one_posterior_by_every_road(name):
    model, evidence = case(name)
    tables = graphs.tables_of(model)
    exact = graphs.JunctionTree(model).query(evidence)
    free = [v for v in tables.states if v not in evidence]
    marginals, log_evidence = enumerated(
        pyro.condition(to_pyro(model), data=indices(model, evidence))
    )
    assert set(marginals) == set(map(str, free))
    assert log_evidence == pytest.approx(float(exact.log_evidence), abs=1e-9)
    for variable in free:
        torch.testing.assert_close(marginals[str(variable)], exact[variable], rtol=0, atol=1e-9)

    if np.prod([*tables.cardinalities.values()], dtype=float) <= LARGEST_BY_HAND:
        joint = graphs.joint(model)
        for variable, state in evidence.items():
            joint = joint[joint.index.get_level_values(variable).astype(str) == str(state)]
        assert np.log(joint.sum()) == pytest.approx(float(exact.log_evidence), abs=1e-9)
        for variable in free:
            by_hand = (joint / joint.sum()).groupby(level=variable, observed=False).sum()
            by_hand = by_hand.reindex(list(tables.states[variable])).to_numpy()
            np.testing.assert_allclose(exact[variable].numpy(), by_hand, rtol=0, atol=1e-9)

    from pgmpy.inference import VariableElimination  # where its own warning is expected

    elimination = VariableElimination(pgmpy_model(tables) if name[:6] == "random" else model)
    for variable in free[: BY_PGMPY.get(name, 6)]:
        factor = elimination.query([variable], evidence=evidence, show_progress=False)
        order = [factor.state_names[variable].index(state) for state in tables.states[variable]]
        found = factor.values[order]
        np.testing.assert_allclose(exact[variable].numpy(), found, rtol=0, atol=1e-9)

    weighted = graphs.likelihood_weighting(model, evidence, n=20_000, seed=3)
    for variable in free:
        error = 4 * weighted.error(variable) + 4 / weighted.effective_samples
        assert (abs(weighted[variable] - exact[variable].numpy()) <= error).all(), variable


def test_a_program_samples_what_its_network_says():
    model, evidence = case("asia")
    exact = graphs.JunctionTree(model).query(evidence)
    seen = pyro.condition(to_pyro(model), data=indices(model, evidence))
    n = 2000
    drawn = {name: 0.0 for name in map(str, exact.to_numpy())}
    sampler = infer_discrete(config_enumerate(seen), first_available_dim=-1, temperature=1)
    for _ in range(100):
        for name, value in sampler().items():
            drawn[name] += float(value == 0) / 100
    forward = Predictive(to_pyro(model), num_samples=n, parallel=False)()
    prior = graphs.JunctionTree(model).query()
    for variable, share in prior.to_numpy().items():
        frequency = float((forward[variable] == 0).double().mean())
        assert frequency == pytest.approx(
            share[0], abs=4.5 * (share[0] * (1 - share[0]) / n) ** 0.5
        )
        p = exact[variable][0].item()
        assert drawn[variable] == pytest.approx(p, abs=4.5 * (p * (1 - p) / 100) ** 0.5 + 1e-9)


def full_guide(cards):
    """q = a categorical over all joint states of some sites."""
    logits = torch.zeros(int(np.prod(list(cards.values()))), dtype=torch.double)

    def guide():
        q = dist.Categorical(logits=pyro.param("logits", logits))
        index = pyro.sample("joint", q, infer={"enumerate": "parallel", "is_auxiliary": True})
        for name, size in cards.items():
            # The density in the dtype of the tables, else Pyro cannot multiply them.
            zero = torch.zeros(index.shape, dtype=torch.double)
            pyro.sample(name, dist.Delta(index % size, zero))
            index = index // size

    return guide


@pytest.mark.parametrize("name", ["cancer", "earthquake", "survey"])
def test_variational_inference_reaches_the_exact_posterior(name):
    """|q - p| <= sqrt(KL / 2) (Pinsker), and KL = log p(e) - ELBO, which is exact here."""
    model, evidence = case(name)
    exact = graphs.JunctionTree(model).query(evidence)
    tables = graphs.tables_of(model)
    cards = {v: len(s) for v, s in tables.states.items() if v not in evidence}
    seen = pyro.condition(to_pyro(model), data=indices(model, evidence))
    guide, elbo = full_guide(cards), TraceEnum_ELBO(max_plate_nesting=0)
    with pyro.get_param_store().scope():
        svi = SVI(seen, guide, pyro.optim.Adam({"lr": 0.3}), elbo)
        losses = [svi.step() for _ in range(400)]
        gap = float(exact.log_evidence) + svi.evaluate_loss()
        q = torch.softmax(pyro.param("logits"), 0).detach()
    assert losses[0] > losses[-1]
    assert -1e-9 <= gap < 1e-3
    index = torch.arange(len(q))
    for variable, size in cards.items():
        marginal = torch.zeros(size, dtype=torch.double).index_add(0, index % size, q)
        index = index // size
        assert float(abs(marginal - exact[variable]).max()) <= (max(gap, 0) / 2) ** 0.5 + 1e-9


# There and back -----------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 7))
def test_there_and_back_is_the_same_joint(seed, nodes):
    network = random_network(seed, nodes, least=1)
    back = to_bayesian_network(to_pyro(network))
    assert set(back.edges) == set(network.graph().edges)
    one = graphs.joint(network)
    two = graphs.joint(back).reorder_levels(one.index.names).reindex(one.index)
    np.testing.assert_allclose(two.to_numpy(), one.to_numpy(), rtol=0, atol=1e-12)


@pytest.mark.filterwarnings(PRINTED)
def test_alarm_there_and_back():
    alarm = graphs.load("alarm")
    back = to_bayesian_network(to_pyro(alarm))
    assert set(back.edges) == set(alarm.edges)
    one, two = graphs.tables_of(alarm), graphs.tables_of(back)
    for variable in one.states:
        axes = [0, *(1 + two.parents(variable).index(p) for p in one.parents(variable))]
        other = two.conditional(variable).transpose(axes)
        np.testing.assert_allclose(other, one.conditional(variable), rtol=0, atol=1e-14)


def test_the_log_density_of_the_program_is_that_of_the_network():
    network = random_network(5, 8)
    states = [range(size) for size in network.cardinalities.values()]
    back = graphs.joint(network)
    for row in list(product(*states))[::7]:
        data = {v: tensor(s) for v, s in zip(network.states, row, strict=True)}
        trace = poutine.trace(pyro.condition(to_pyro(network), data=data)).get_trace()
        assert float(trace.log_prob_sum().exp()) == pytest.approx(back[row], abs=1e-15)


# to_pyro ------------------------------------------------------------------------------------------


def chain(n):
    first = [Factor((0,), np.array([0.3, 0.7]))]
    rest = [Factor((i, i - 1), np.array([[0.9, 0.2], [0.1, 0.8]])) for i in range(1, n)]
    return bayesian({i: ("no", "yes") for i in range(n)}, first + rest)


def test_enumeration_has_63_dimensions():
    program = to_pyro(chain(65))
    exact = graphs.JunctionTree(chain(65)).query({0: "no", 64: "yes"})
    ends = {"0": tensor(0), "64": tensor(1)}
    marginals, log_evidence = enumerated(pyro.condition(program, data=ends))
    assert log_evidence == pytest.approx(float(exact.log_evidence), abs=1e-9)
    torch.testing.assert_close(marginals["31"], exact[31], rtol=0, atol=1e-9)
    for data in ({"0": tensor(0)}, {"64": tensor(1)}):
        with pytest.raises(ValueError, match=r"more than 63 dimensions.*graphs.JunctionTree"):
            enumerated(pyro.condition(program, data=data))
    assert len(to_pyro(chain(500))()) == 500


def test_names_and_values_are_checked():
    table = Factor((1,), HALF.numpy()), Factor(("1",), HALF.numpy())
    with pytest.raises(ValueError, match="1 and '1' are both '1'"):
        to_pyro(bayesian({1: "ab", "1": "ab"}, table))
    with pytest.raises(ValueError, match="_RETURN is a name"):
        to_pyro(bayesian({"_RETURN": "ab"}, [Factor(("_RETURN",), HALF.numpy())]))
    with pytest.raises(TypeError, match=r"state index, .*torch.tensor\(0\) for no; got 'yes'"):
        pyro.condition(to_pyro(chain(2)), data={"0": "yes"})()
    with pytest.raises(TypeError, match="Bayesian network"):
        to_pyro([Factor(("a",), np.ones(2))])


def test_evidence_that_cannot_be_has_no_density():
    network = bayesian({"a": (0, 1)}, [Factor(("a",), np.array([1.0, 0.0]))])
    seen = pyro.condition(to_pyro(network), data={"a": tensor(1)})
    assert float(poutine.trace(seen).get_trace().log_prob_sum()) == -np.inf


# from_pyro ----------------------------------------------------------------------------------------


def normal(name, loc=0.0, **options):
    return pyro.sample(name, dist.Normal(loc, 1.0), **options)


def coin(name, p=0.5):
    return pyro.sample(name, dist.Bernoulli(torch.as_tensor(p)))


def no_transitive_edges():
    c = normal("c", normal("b", normal("a")))
    normal("d", c)


def collider():
    normal("c", normal("a") + normal("b"))


def by_index():
    pyro.sample("x", dist.Categorical(TABLE[pyro.sample("z", dist.Categorical(HALF))]))


def by_item():
    z = pyro.sample("z", dist.Categorical(HALF))
    pyro.sample("x", dist.Categorical(TABLE[z.item()]))


def by_branch():
    normal("x", 0.0 if coin("z", 0.01) else 3.0)


def by_absence():
    if coin("z", 0.01):
        normal("x")


def by_assignment():
    loc = torch.zeros(3)
    loc[1] = normal("z")
    pyro.sample("x", dist.Normal(loc, 1.0).to_event(1))


def by_a_new_tensor():
    z = normal("z")
    pyro.sample("x", dist.Normal(torch.tensor([z, 1.0]), 1.0).to_event(1))


def by_vmap():
    """Provenance is lost inside, and nothing leaves the tensors."""
    loc = torch.vmap(lambda z: 2 * z)(normal("z").expand(3))
    pyro.sample("x", dist.Normal(loc, 1.0).to_event(1))


def by_numpy():
    pyro.sample("x", dist.Normal(torch.from_numpy(2 * normal("z").expand(3).numpy()), 1.0))


def by_size():
    n = pyro.sample("n", dist.Poisson(3.0))
    with pyro.plate("p", int(n)):
        x = normal("x")
    normal("y", x.sum())


def by_scale_and_mask():
    z, w = normal("z"), normal("w")
    with poutine.scale(scale=z.exp()):
        normal("x", obs=tensor(1.0))
    normal("y")
    pyro.sample("v", dist.Normal(0.0, 1.0).mask(w > 0), obs=tensor(1.0))


def through_deterministic():
    d = pyro.deterministic("d", 2 * normal("z"))
    e = pyro.sample("e", dist.Delta(d + 1))
    normal("x", e)


def hard_constraint():
    z = coin("z")
    pyro.sample("x", dist.Delta(2 * z), obs=tensor(2.0))


def weighed():
    a, b = normal("a"), normal("b")
    pyro.factor("f", -((a - b) ** 2))


def of_observed():
    y = normal("y", obs=tensor(0.3))
    normal("x", y, obs=tensor(1.0))


def nested():
    def inner(loc):
        return normal("b", loc)

    inner(normal("a"))


def learned():
    loc = pyro.param("loc", lambda: torch.zeros(2))
    pyro.sample("x", dist.Normal(loc, 1.0).to_event(1))


def sequential():
    z = normal("z0")
    for i in pyro.plate("steps", 3):
        z = normal(f"z{i + 1}", z)
        normal(f"x{i + 1}", z, obs=tensor(0.0))


def hierarchy():
    mu = normal("mu")
    with pyro.plate("groups", 4):
        theta = normal("theta", mu)
        with pyro.plate("rows", 3, dim=-2):
            normal("y", theta, obs=torch.zeros(3, 4))


def mixture():
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(2)))
    with pyro.plate("components", 2):
        means = normal("means")
    with pyro.plate("data", 6, subsample_size=4) as rows:
        k = pyro.sample("k", dist.Categorical(weights))
        normal("x", means[k], obs=torch.zeros(6)[rows])


def own_randomness():
    """Numbers that are drawn between the sites, and not by them."""
    z = normal("z")
    y = normal("y", torch.randn(()) * z)
    normal("x", y + float(torch.randn(())) + (1.0 if y > 0 else 0.0))


def one_of_two():
    """Which of a and b the site c is given is itself drawn, and the branch hides it."""
    a, b = coin("a"), coin("b")
    pyro.sample("c", dist.Bernoulli(0.9 if (a if coin("s") else b) else 0.2))


PROGRAMS = {
    no_transitive_edges: "a-b b-c c-d",
    collider: "a-c b-c",
    by_index: "z-x",
    by_item: "z-x",
    by_branch: "z-x",
    by_absence: "z-x",
    by_assignment: "z-x",
    by_a_new_tensor: "z-x",
    by_vmap: "z-x",
    by_numpy: "z-x",
    by_size: "n-x x-y",
    by_scale_and_mask: "z-x w-v",
    through_deterministic: "z-x",
    hard_constraint: "z-x",
    weighed: "a-f b-f",
    of_observed: "y-x",
    nested: "a-b",
    learned: "",
    sequential: "z0-z1 z1-z2 z2-z3 z1-x1 z2-x2 z3-x3",
    hierarchy: "mu-theta theta-y",
    mixture: "weights-k means-x k-x",
    own_randomness: "z-y y-x",
    one_of_two: "a-c b-c s-c",
}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_the_graph_of_a_program(program):
    graph = from_pyro(program)
    wanted = {tuple(edge.split("-")) for edge in PROGRAMS[program].split()}
    assert set(graph.edges) == wanted


def test_what_the_nodes_say():
    nodes = dict(from_pyro(mixture).nodes(data=True))
    assert list(nodes) == ["weights", "means", "k", "x"]
    assert nodes["k"] == {"observed": False, "plates": ("data",), "distribution": "Categorical"}
    assert nodes["x"] == {"observed": True, "plates": ("data",), "distribution": "Normal"}
    nodes = from_pyro(hierarchy).nodes
    assert nodes["y"]["plates"] == ("groups", "rows")
    assert nodes["theta"]["plates"] == ("groups",)
    assert from_pyro(sequential).nodes["x2"]["plates"] == ("steps",)
    assert from_pyro(weighed).nodes["f"] == {
        "observed": True,
        "plates": (),
        "distribution": "Unit",
    }
    assert list(from_pyro(through_deterministic)) == ["z", "x"]


def test_questions_to_the_graph_of_a_program():
    graph = from_pyro(sequential)
    assert graphs.d_separated(graph, "z1", "z3", "z2")
    assert not graphs.d_separated(graph, "z1", "z3", ["x1", "x2", "x3"])
    assert graphs.d_separated(from_pyro(mixture), "weights", "means")
    assert not graphs.d_separated(from_pyro(mixture), "weights", "means", "x")
    assert not graphs.d_separated(from_pyro(weighed), "a", "b", "f")
    assert graphs.markov_blanket(graph, "z2") == {"z1", "z3", "x2"}
    explanation = graphs.explain_separation(from_pyro(collider), "a", "b", "c")
    assert "head-to-head" in str(explanation)
    assert graphs.draw(graph, observed=["x1", "x2", "x3"]).axes


class Regression(PyroModule):
    def __init__(self):
        super().__init__()
        self.bias = PyroParam(tensor(0.0))
        self.slope = PyroSample(dist.Normal(0.0, 1.0))
        self.norm = torch.nn.BatchNorm1d(1)

    def forward(self, x, y=None):
        noise = pyro.sample("noise", dist.HalfNormal(1.0))
        loc = self.norm(x[:, None])[:, 0] * self.slope + self.bias
        with pyro.plate("rows", len(x)):
            return pyro.sample("y", dist.Normal(loc, noise), obs=y)


def test_modules_and_methods_and_what_stays_as_it_was():
    torch.manual_seed(3)
    x = torch.randn(5, 4)
    vae = VAE((4,), latent_dim=2, hidden=[8])
    module = Regression()
    pyro.param("mine", tensor([1.0, 2.0]))
    mine = pyro.get_param_store().get_state()["params"]["mine"]
    before = {k: v.clone() for k, v in {**vae.state_dict(), **module.state_dict()}.items()}
    seeds = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    try:
        assert set(from_pyro(vae.model, x).edges) == {("z", "x")}
        assert from_pyro(vae.model, x).nodes["x"]["observed"]
        assert not from_pyro(vae.guide, x).edges
        graph = from_pyro(module, x[:, 0], y=x[:, 1])
        assert set(graph.edges) == {("noise", "y"), ("slope", "y")}
        assert not from_pyro(module, x[:, 0]).nodes["y"]["observed"]
        store = pyro.get_param_store()
        assert list(store.keys()) == ["mine"]
        assert store.get_state()["params"]["mine"] is mine
    finally:
        pyro.clear_param_store()
    for name, value in {**vae.state_dict(), **module.state_dict()}.items():
        assert type(value) is torch.Tensor
        assert torch.equal(value, before[name]), name
    assert torch.equal(torch.get_rng_state(), seeds[0])
    assert np.random.get_state()[1].tolist() == seeds[1]
    assert random.getstate() == seeds[2]


def test_a_graph_does_not_depend_on_the_seed():
    graphs_seen = set()
    for seed in range(5):
        torch.manual_seed(seed)
        graph = from_pyro(one_of_two)
        graphs_seen.add((tuple(graph.nodes), tuple(graph.edges)))
    assert len(graphs_seen) == 1


def test_errors_of_the_program_are_its_own():
    def broken():
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        from_pyro(broken)

    def half_broken():
        if coin("z", 1e-6):
            raise RuntimeError("never thought of")

    with pytest.raises(ValueError, match=r"fails when some of z take other values.*never thought"):
        from_pyro(half_broken)


def test_an_order_that_changes_is_refused():
    def either_way():
        if coin("s"):
            normal("b", normal("a"))
        else:
            normal("a", normal("b"))

    with pytest.raises(ValueError, match="cycle"):
        from_pyro(either_way)


@pytest.mark.filterwarnings(PRINTED)
def test_the_graphs_of_networks_come_back():
    for name in ("asia", "alarm", "insurance"):
        model = graphs.load(name)
        graph = from_pyro(to_pyro(model))
        assert set(graph.edges) == set(model.edges)
        assert set(graph) == set(model)


# to_bayesian_network ------------------------------------------------------------------------------


def zoo(seen=None):
    a = pyro.sample("a", dist.Bernoulli(tensor(0.0)))
    b = pyro.sample("b", dist.Binomial(2, 0.2 + 0.5 * a))
    k = pyro.sample("k", dist.OneHotCategorical(tensor([0.2, 0.3, 0.5])))
    p = TABLE[int(b > 0)] if k[0] else HALF
    pyro.sample("c", dist.Categorical(p), obs=seen)


def test_a_program_of_many_kinds():
    model = to_bayesian_network(zoo, tensor(1))
    assert set(model.edges) == {("a", "b"), ("b", "c"), ("k", "c")}
    tables = graphs.tables_of(model)
    assert tables.states == {"a": (0, 1), "b": (0, 1, 2), "k": (0, 1, 2), "c": (0, 1)}
    assert tables.conditional("a").tolist() == [1.0, 0.0], "zero stays zero"
    p = np.array([0.2, 0.7])
    binomial = np.array([(1 - p) ** 2, 2 * p * (1 - p), p**2])
    np.testing.assert_allclose(tables.conditional("b"), binomial, atol=1e-6)
    given_b = np.full((2, 3, 3), 0.5)  # (c, b, k)
    given_b[:, :, 0] = np.array([[0.2, 0.8], [0.6, 0.4], [0.6, 0.4]]).T
    np.testing.assert_allclose(tables.conditional("c"), given_b, atol=1e-6)
    evidence = {v: s for v, s in model.nodes(data="observed_state") if s is not None}
    assert evidence == {"c": 1}
    assert list(to_bayesian_network(zoo).nodes(data="observed_state", default=None))[3][1] is None
    posterior = graphs.JunctionTree(model).query(evidence)["k"].numpy()
    likelihood = np.array([(binomial[:, 0] * given_b[1, :, 0]).sum(), 0.5, 0.5])
    by_hand = likelihood * [0.2, 0.3, 0.5]
    np.testing.assert_allclose(posterior, by_hand / by_hand.sum(), atol=1e-6)


def test_sequential_plates_are_unrolled():
    def coins():
        p = pyro.sample("kind", dist.Categorical(HALF))
        for i in pyro.plate("throws", 3):
            pyro.sample(f"throw{i}", dist.Bernoulli(TABLE[p, 1]))

    model = to_bayesian_network(coins)
    assert set(model.edges) == {("kind", f"throw{i}") for i in range(3)}
    assert graphs.tables_of(model).conditional("throw2")[1] == pytest.approx([0.8, 0.4], abs=1e-6)


def continuous():
    normal("z")


def scaled():
    with poutine.scale(scale=2.0):
        coin("z")


def switched():
    if coin("z"):
        coin("x")


def grows():
    pyro.sample("x", dist.Binomial(1 + int(coin("z")), 0.5))


def leaks():
    z = coin("z")
    zoo_state["calls"] += 1
    coin("x", 0.1 + 0.8 * (zoo_state["calls"] % 2) * z)


zoo_state = {"calls": 0}


def in_a_plate():
    with pyro.plate("p", 3):
        coin("x", tensor(0.5))


def outside():
    pyro.sample("x", dist.Bernoulli(0.5), obs=tensor(0.25))


def weighed_coins():
    pyro.factor("f", coin("z"))


REFUSED = {
    continuous: "z is Normal of event shape .*without a finite support",
    in_a_plate: r"x has elements of shape \(3,\).*sequential plate",
    weighed_coins: "f is a pyro.factor",
    scaled: "z is scaled or masked",
    switched: "the sites x run for some values",
    grows: "values that x can take depend on other values",
    leaks: "distribution of x differs between runs",
    outside: "observed at 0.25, outside of its support",
}


@pytest.mark.parametrize("program", REFUSED)
def test_programs_that_are_no_network_are_refused_with_the_reason(program):
    zoo_state["calls"] = 0
    with pytest.raises(ValueError, match=REFUSED[program]):
        to_bayesian_network(program)


@pytest.mark.parametrize("count", [2, 3, 4, 5])
@pytest.mark.parametrize("style", ["list", "short-circuit"])
def test_a_conjunction_is_seen_whole_or_refused(count, style):
    """Each coin counts only where all the others show heads."""

    def program():
        coins = [pyro.sample(f"z{i}", dist.Bernoulli(0.5)) for i in range(count)]
        shown = (coin.item() == 1 for coin in coins)
        heads = all(list(shown)) if style == "list" else all(shown)
        pyro.sample("y", dist.Bernoulli(0.9 if heads else 0.1))

    model = to_bayesian_network(program)
    assert set(model.predecessors("y")) == {f"z{i}" for i in range(count)}
    found = graphs.JunctionTree(model).query(targets=["y"])["y"]
    assert float(found[1]) == pytest.approx(0.1 + 0.8 / 2**count, abs=1e-6)
