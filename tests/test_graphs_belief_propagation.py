"""Belief propagation against enumeration, on every schedule, path and dtype."""

import math
import warnings

import networkx as nx
import numpy as np
import pytest
import torch
from fields import enumerated, exact, possible, random_forest, random_graph
from hypothesis import given, settings
from hypothesis import strategies as st

import graphs
from graphs import FactorGraph, JunctionTree, belief_propagation
from graphs.messages import flat, flooding
from graphs.messages.flat import Flat
from graphs.messages.flooding import Flooding
from graphs.messages.wiring import Wiring

SEEDS = st.integers(0, 2**32 - 1)
SCHEDULES = ("depth_first", "flooding", "residual")


@settings(max_examples=120, deadline=None)
@given(SEEDS, st.integers(1, 7), st.booleans(), st.sampled_from(SCHEDULES))
def test_forests_are_exact(seed: int, count: int, hard: bool, schedule: str) -> None:
    rng = np.random.default_rng(seed)
    graph = random_forest(rng, count, hard=hard)
    assert graph.is_forest
    if not possible(graph):
        for product in ("sum", "max"):
            with pytest.raises(ValueError, match="contradict"):
                belief_propagation(graph, product, schedule)
        return
    log_z, marginals = exact(graph)
    found = belief_propagation(graph, schedule=schedule, tolerance=1e-12)
    assert found.exact and found.log_partition == pytest.approx(log_z, abs=1e-9)
    for variable, marginal in zip(graph.variables, marginals, strict=True):
        np.testing.assert_allclose(found[variable], marginal, atol=1e-9)
    x, scores = enumerated(graph)
    best = belief_propagation(graph, "max", schedule, tolerance=1e-12)
    assert best.score == pytest.approx(scores.max(), abs=1e-9)
    assert graph.score(best.assignment) == pytest.approx(scores.max(), abs=1e-9)
    for place, variable in enumerate(graph.variables):
        top = [scores[x[:, place] == k].max() for k in range(graph.sizes[place])]
        np.testing.assert_allclose(best[variable], np.exp(np.array(top) - scores.max()), atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(2, 6))
def test_beliefs_of_factors(seed: int, count: int) -> None:
    graph = random_forest(np.random.default_rng(seed), count)
    x, scores = enumerated(graph)
    weights = np.exp(scores - scores.max())
    found = belief_propagation(graph)
    for number, (variables, table) in enumerate(graph.factors):
        if not variables:
            assert found.factor(number) == 1.0  # a constant has one configuration
            continue
        wanted = np.zeros(table.shape)
        places = tuple(x[:, graph.positions[v]] for v in variables)
        np.add.at(wanted, places, weights / weights.sum())
        np.testing.assert_allclose(found.factor(number), wanted, atol=1e-9)


@pytest.mark.parametrize("schedule", ["depth_first", "flooding"])
def test_arity_and_states(schedule: str) -> None:
    """Arity up to 5, up to 50 states, beside the exact engine."""
    rng = np.random.default_rng(0)
    sizes = [2, 3, 50, 4, 2, 3, 7, 1, 5]
    scopes = [(0, 1, 2, 3, 4), (4, 5), (5, 6, 7), (2, 8)]
    graph = FactorGraph(sizes, [(s, rng.normal(size=[sizes[v] for v in s])) for s in scopes])
    found, tree = belief_propagation(graph, schedule=schedule), JunctionTree(graph)
    answer = tree.query()
    assert found.log_partition == pytest.approx(tree.log_partition, abs=1e-9)
    for variable in graph.variables:
        np.testing.assert_allclose(found[variable], answer[variable], atol=1e-10)


def test_polytree() -> None:
    """A Bayesian network whose skeleton is a tree is a forest of higher arity."""
    rng = np.random.default_rng(3)

    def conditional(*shape: int) -> np.ndarray:
        table = rng.random(shape)
        return table / table.sum(0)

    factors = [
        (("a",), conditional(3)),
        (("b",), conditional(2)),
        (("c", "a", "b"), conditional(4, 3, 2)),
        (("d", "c"), conditional(2, 4)),
        (("e", "c"), conditional(3, 4)),
    ]
    graph, tree = FactorGraph.of(factors), JunctionTree(factors)
    found = belief_propagation(graph, evidence={"d": 1, "e": 2})
    assert found.schedule == "depth_first" and found.exact
    answer = tree.query({"d": 1, "e": 2})
    for variable in graph.variables:
        np.testing.assert_allclose(found[variable], answer[variable], atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.booleans())
def test_loopy_schedules_agree(seed: int, hard: bool) -> None:
    """Weak couplings have one fixed point, which every schedule finds."""
    graph = random_graph(np.random.default_rng(seed), 6, 8, hard=hard)
    if not possible(graph):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one = belief_propagation(graph, schedule="flooding", damping=0.2, tolerance=1e-10)
        other = belief_propagation(graph, schedule="residual", tolerance=1e-10)
    if not (one.converged and other.converged):
        return
    for variable in graph.variables:
        np.testing.assert_allclose(one[variable], other[variable], atol=1e-7)
    assert one.log_partition == pytest.approx(other.log_partition, abs=1e-7)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.booleans(), st.booleans())
def test_sweeps_agree(seed: int, hard: bool, batched: bool) -> None:
    """The flat sweep and the sweep by shapes are the same map, also in the logarithmic algebra."""
    graph = random_graph(
        np.random.default_rng(seed), 6, 9, arity=4, hard=hard, batch=3 if batched else None
    )
    if all(len(group.shape) < 2 for group in graph.groups) or not feasible(graph):
        return
    engine = Flooding(Wiring(graph, {}, None))
    exact_engine = Flooding(Wiring(graph, {}, None))
    exact_engine.fast, exact_engine.reach = False, 0.0
    quick = Flat(engine.wiring, engine.reach, engine._spread)
    messages = engine.first()
    for _ in range(4):
        same = quick.sweep(quick.pack(messages))
        if same is None:
            with pytest.raises(ValueError, match="contradict"):
                engine.sweep(messages)
            return
        after = engine.sweep(messages)
        logs = exact_engine.sweep(messages)
        for size, values in quick.unpack(same).items():
            np.testing.assert_allclose(values, after[size], atol=1e-10)
            np.testing.assert_allclose(logs[size], after[size], atol=1e-10)
        messages = after


def feasible(graph: FactorGraph) -> bool:
    """Whether every field of a batch has an assignment of positive probability."""
    return bool(np.isfinite(enumerated(graph)[1].max(0)).all())


def test_flat_sweep_gives_way() -> None:
    """Where linear sums would lose a state, the sweep in logarithms takes over."""
    far = -2000.0  # e^-2000 is no float64
    keep = np.full((2, 2), -np.inf)
    keep[0, 0] = keep[1, 1] = 0.0
    choose = np.array([[0.0, -np.inf], [-np.inf, -np.inf]])
    factors = [((0,), [far, 0.0]), ((0, 1), keep), ((1, 2), keep), ((2, 3), choose), ((0, 3), keep)]
    graph = FactorGraph([2, 2, 2, 2], factors)
    assert Flat.pays(Wiring(graph, {}, None))
    found = belief_propagation(graph)
    assert not graph.is_forest
    np.testing.assert_allclose([found[v][0] for v in range(4)], 1.0)
    assert found.log_partition == pytest.approx(far, abs=1e-9)


@pytest.mark.parametrize("product", ["sum", "max"])
def test_batch_of_fields(product: str) -> None:
    rng = np.random.default_rng(5)
    for graph in (
        random_forest(rng, 7, batch=4, hard=True, scale=1.0),
        random_graph(rng, 6, 7, batch=4, scale=0.3, arity=2),
        FactorGraph.grid(rng.normal(size=(4, 3, 5, 2)), 0.3 * rng.normal(size=(2, 2))),
    ):  # fmt: skip
        together = belief_propagation(graph, product, tolerance=1e-10)
        for b in range(graph.batch):
            alone = belief_propagation(graph.field(b), product, tolerance=1e-10)
            for variable in graph.variables:
                np.testing.assert_allclose(together[variable][b], alone[variable], atol=1e-8)
            if product == "sum":
                assert together.log_partition[b] == pytest.approx(alone.log_partition, abs=1e-8)
                for number in range(len(graph.factors)):
                    np.testing.assert_allclose(
                        together.factor(number)[b], alone.factor(number), atol=1e-8
                    )
            else:
                assert together.score[b] == pytest.approx(alone.score, abs=1e-8)


def test_evidence() -> None:
    """One row, many rows, missing entries; the same as the exact engine on a polytree."""
    asia = graphs.read("cancer")
    tree, graph = JunctionTree(asia), FactorGraph.of(asia)
    single = belief_propagation(graph, evidence={"Xray": "positive"})
    answer = tree.query({"Xray": "positive"})
    for variable in graph.variables:
        np.testing.assert_allclose(single[variable], answer[variable], atol=1e-12)
    assert single.log_partition == pytest.approx(float(answer.log_evidence), abs=1e-12)
    rows = {"Xray": ["positive", None, "negative"], "Smoker": [None, "True", "False"]}
    many, answers = belief_propagation(graph, evidence=rows), tree.query(rows)
    for variable in graph.variables:
        np.testing.assert_allclose(many[variable], answers[variable], atol=1e-12)
    np.testing.assert_allclose(many.log_partition, answers.log_evidence, atol=1e-12)
    best = belief_propagation(graph, "max", evidence={"Xray": "positive"})
    assert best.assignment == tree.mpe({"Xray": "positive"}).assignment


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("schedule", ["depth_first", "flooding"])
def test_tensors(dtype: torch.dtype, schedule: str) -> None:
    graph = random_forest(np.random.default_rng(2), 7)
    found = belief_propagation(graph.to(dtype=dtype), schedule=schedule)
    log_z, marginals = exact(graph)
    limit = 1e-5 if dtype == torch.float32 else 1e-12
    assert torch.is_tensor(found.log_partition)
    assert float(found.log_partition) == pytest.approx(log_z, abs=limit)
    for variable, marginal in zip(graph.variables, marginals, strict=True):
        assert found[variable].dtype == dtype
        np.testing.assert_allclose(found[variable], marginal, atol=limit)


@pytest.mark.parametrize("product", ["sum", "max"])
@pytest.mark.parametrize("schedule", ["depth_first", "flooding"])
@pytest.mark.parametrize("hard", [False, True])
def test_gradients(product: str, schedule: str, hard: bool) -> None:
    """Finite differences; on a forest the gradient of log Z is the belief of the factor."""
    rng = np.random.default_rng(11)
    graph = random_forest(rng, 5, arity=3, states=3, hard=hard)
    while not possible(graph):
        graph = random_forest(rng, 5, arity=3, states=3, hard=hard)
    plain = [(scope, torch.as_tensor(np.array(table))) for scope, table in graph.factors]
    leaves = [table.masked_fill(torch.isneginf(table), 0.0).requires_grad_() for _, table in plain]

    def answers(*tables: torch.Tensor) -> tuple[torch.Tensor, ...]:
        masked = [
            (scope, leaf.masked_fill(torch.isneginf(table), -math.inf))
            for (scope, table), leaf in zip(plain, tables, strict=True)
        ]
        model = FactorGraph(graph.cardinalities, masked)
        found = belief_propagation(model, product, schedule)
        beliefs = tuple(found[v] for v in graph.variables)
        return beliefs if product == "max" else (found.log_partition, *beliefs)

    assert torch.autograd.gradcheck(answers, leaves)
    if product == "sum":
        (answers(*leaves)[0]).backward()
        found = belief_propagation(graph)
        for number, leaf in enumerate(leaves):
            np.testing.assert_allclose(leaf.grad, found.factor(number), atol=1e-10)


def test_gradients_through_a_loop() -> None:
    rng = np.random.default_rng(4)
    leaves = [torch.tensor(rng.normal(size=(2, 2)) * 0.3, requires_grad=True) for _ in range(3)]

    def answers(*tables: torch.Tensor) -> tuple[torch.Tensor, ...]:
        scopes = [(0, 1), (1, 2), (2, 0)]
        graph = FactorGraph([2, 2, 2], zip(scopes, tables, strict=True))
        found = belief_propagation(graph, tolerance=1e-13)
        return found.log_partition, found[0], found.factor(1)

    assert torch.autograd.gradcheck(answers, leaves)


def test_no_underflow() -> None:
    """Couplings of hundreds of nats, in float32 as well."""
    for dtype in (torch.float32, torch.float64):
        table = torch.tensor([[500.0, -500.0], [-500.0, 500.0]], dtype=dtype)
        scopes = [(i, i + 1) for i in range(30)]
        lean = torch.tensor([0.5, 0.0], dtype=dtype)
        graph = FactorGraph([2] * 31, [((0,), lean), *((scope, table) for scope in scopes)])
        for schedule in ("depth_first", "flooding"):
            found = belief_propagation(graph, schedule=schedule)
            wanted = math.log(math.exp(0.5) + 1) + 30 * 500
            assert float(found.log_partition) == pytest.approx(wanted, rel=1e-6)
            assert float(found[30][0]) == pytest.approx(1 / (1 + math.exp(-0.5)), abs=1e-4)


def test_ties_are_decoded_together() -> None:
    """Two best assignments, 01 and 10: neither 00 nor 11 is an answer."""
    differ = np.array([[-np.inf, 0.0], [0.0, -np.inf]])
    graph = FactorGraph([2] * 4, [((i, i + 1), differ) for i in range(3)])
    for schedule in SCHEDULES:
        found = belief_propagation(graph, "max", schedule)
        assert found.score == 0.0 and found.states.tolist() in ([0, 1, 0, 1], [1, 0, 1, 0])


def test_a_loop_of_published_numbers() -> None:
    """On a single binary cycle with couplings J and no field, Bethe's log Z is V log 2 + E log cosh
    J at the symmetric fixed point, against the exact one of the transfer matrix."""
    coupling, length = 0.4, 5
    table = coupling * np.array([[1.0, -1.0], [-1.0, 1.0]])
    scopes = [(i, (i + 1) % length) for i in range(length)]
    graph = FactorGraph([2] * length, [(scope, table) for scope in scopes])
    found = belief_propagation(graph)
    bethe = length * math.log(2) + length * math.log(math.cosh(coupling))
    assert found.log_partition == pytest.approx(bethe, abs=1e-9)
    one, two = 2 * math.cosh(coupling), 2 * math.sinh(coupling)
    log_z = math.log(one**length + two**length)
    assert JunctionTree(graph).log_partition == pytest.approx(log_z, abs=1e-12)
    assert found.log_partition < log_z


@pytest.mark.parametrize("coupling", [0.3, 0.34, 0.36, 0.5])
def test_the_transition_of_bethe_and_peierls(coupling: float) -> None:
    """On a torus of four neighbours messages obey the Bethe lattice's equation, whose transition
    is at tanh J = 1/3 (Bethe 1935; Baxter, Exactly Solved Models, section 4.7)."""
    side, lean = 6, 1e-6
    table = coupling * np.array([[1.0, -1.0], [-1.0, 1.0]])
    cells = [(r, c) for r in range(side) for c in range(side)]
    scopes = [((r, c), ((r + 1) % side, c)) for r, c in cells]
    scopes += [((r, c), (r, (c + 1) % side)) for r, c in cells]
    factors = [(scope, table) for scope in scopes] + [((v,), [lean, -lean]) for v in cells]
    graph = FactorGraph(dict.fromkeys(cells, 2), factors)
    assert graph.grid_shape is None  # a torus is no grid
    found = belief_propagation(graph, tolerance=1e-13, max_iterations=20_000)
    sent = 0.0
    for _ in range(20_000):
        sent = math.atanh(math.tanh(coupling) * math.tanh(3 * sent + lean))
    magnetisation = math.tanh(4 * sent + lean)
    assert found[3, 4][0] - found[3, 4][1] == pytest.approx(magnetisation, abs=1e-8)
    assert (magnetisation > 0.1) == (math.tanh(coupling) > 1 / 3)


def test_not_converged_is_said() -> None:
    """A frustrated loop at low temperature oscillates."""
    strong = 3.0 * np.array([[1.0, -1.0], [-1.0, 1.0]])
    factors = [((i, j), -strong) for i in range(5) for j in range(i)]
    factors += [((v,), np.array([1.0, 0.0])) for v in range(5)]
    graph = FactorGraph([2] * 5, factors)
    with pytest.warns(UserWarning, match=r"not converged after 20 iterations.*damping=0.5"):
        found = belief_propagation(graph, max_iterations=20)
    assert not found.converged and not found.exact and found.residual > 1e-6
    assert "not converged" in str(found)


def test_iterations_and_operations() -> None:
    """Flooding on a chain takes as many sweeps as the chain is long, and one to see it."""
    graph = FactorGraph([3] * 6, [((i, i + 1), np.eye(3)) for i in range(5)])
    assert belief_propagation(graph, schedule="depth_first").iterations == 1
    assert belief_propagation(graph, schedule="flooding", tolerance=0.0).iterations <= 7
    loose = belief_propagation(graph, schedule="flooding", tolerance=10.0)
    assert loose.iterations == 1


def test_roots_agree() -> None:
    graph = random_forest(np.random.default_rng(8), 7)
    first = belief_propagation(graph)
    for root in graph.variables:
        found = belief_propagation(graph, root=root)
        for variable in graph.variables:
            np.testing.assert_allclose(found[variable], first[variable], atol=1e-12)


def test_networks_beside_a_peer() -> None:
    """The fixed point of alarm, with evidence, as pyAgrum's loopy propagation finds it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alarm = FactorGraph.of(graphs.read("alarm"))
    found = belief_propagation(alarm, evidence={"HR": "HIGH"}, tolerance=1e-10)
    assert found.converged
    np.testing.assert_allclose(found["HR"], [0.0, 0.0, 1.0], atol=1e-12)
    assert float(found["CATECHOL"].sum()) == pytest.approx(1.0)


def test_answers_print() -> None:
    asia = FactorGraph.of(graphs.read("cancer"))
    said = str(belief_propagation(asia))
    assert "depth_first" in said and "exact" in said and "log Z" in said and "Pollution" in said
    said = str(belief_propagation(asia, "max"))
    assert "score" in said and "-> low" in said
    large = FactorGraph.grid(np.zeros((9, 9, 2)), np.eye(2))
    assert "61 more variables" in str(belief_propagation(large)) and "Bethe" in str(
        belief_propagation(large)
    )


def test_grid_arrays() -> None:
    rng = np.random.default_rng(1)
    unary = rng.normal(size=(3, 4, 2))
    graph = FactorGraph.grid(unary, 0.2 * np.eye(2))
    found = belief_propagation(graph)
    assert found.array.shape == (3, 4, 2)
    np.testing.assert_allclose(found.array[1, 2], found[1, 2])
    best = belief_propagation(graph, "max")
    assert best.states.shape == (3, 4) and best.assignment is not None
    assert best.states[2, 1] == best.assignment[2, 1]
    mixed = FactorGraph([2, 3], [((0, 1), np.zeros((2, 3)))])
    with pytest.raises(ValueError, match="no common array"):
        _ = belief_propagation(mixed).array


CHAIN = FactorGraph([2, 2, 2], [((0, 1), np.eye(2)), ((1, 2), np.eye(2))])
LOOP = FactorGraph([2, 2, 2], [((i, (i + 1) % 3), np.eye(2)) for i in range(3)])


@pytest.mark.parametrize(
    ("graph", "options", "said"),
    [
        (CHAIN, {"product": "mean"}, '"sum" or "max"'),
        (CHAIN, {"schedule": "floding"}, "did you mean flooding"),
        (LOOP, {"schedule": "depth_first"}, "has a cycle; use flooding"),
        (LOOP, {"root": 1}, "root is for depth_first"),
        (CHAIN, {"root": 9}, "no variable"),
        (CHAIN, {"damping": 1.0}, "below 1"),
        (CHAIN, {"damping": -0.1}, "below 1"),
        (CHAIN, {"tolerance": -1.0}, "tolerance"),
        (CHAIN, {"tolerance": math.nan}, "tolerance"),
        (CHAIN, {"max_iterations": 0}, "max_iterations"),
        (CHAIN, {"evidence": {0: 2}}, "no state"),
        (CHAIN, {"evidence": {5: 0}}, "no variable"),
        (CHAIN, {"evidence": {0: [0, 1]}, "trace": True}, "one field"),
        (CHAIN.to(), {"schedule": "sum"}, "no schedule"),
    ],
)
def test_bad_questions(graph: FactorGraph, options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        belief_propagation(graph, **options)
    with pytest.raises(TypeError, match="max_iterations must be a whole number"):
        belief_propagation(CHAIN, max_iterations=2.5)


def test_contradictions_name_the_place() -> None:
    never = np.array([[0.0, -np.inf], [-np.inf, -np.inf]])
    graph = FactorGraph([2, 2], [((0, 1), never), ((0,), np.array([-np.inf, 0.0]))])
    for schedule in SCHEDULES:
        for product in ("sum", "max"):
            with pytest.raises(ValueError, match=r"factor 0|no state of"):
                belief_propagation(graph, product, schedule)
    with pytest.raises(ValueError, match=r"every state of 0 is forbidden"):
        belief_propagation(graph, evidence={0: 0})
    rows = {1: [None, 1, 0]}
    free = FactorGraph([2, 2], [((0, 1), np.array([[0.0, -np.inf], [0.0, -np.inf]]))])
    with pytest.raises(ValueError, match=r"of field 1"):
        belief_propagation(free, evidence=rows)


def test_a_model_goes_straight_in() -> None:
    model = nx.Graph([("a", "b")])
    with pytest.raises(TypeError, match="DiscreteBayesianNetwork"):
        belief_propagation(model)
    found = belief_propagation([(("a", "b"), np.array([[1.0, 2.0], [3.0, 4.0]]))])
    np.testing.assert_allclose(found["a"], [0.3, 0.7])
    assert found.log_partition == pytest.approx(math.log(10))


def test_thresholds_are_where_they_are_said() -> None:
    assert flat.ENTRIES == 10_000 and flooding.REACH[torch.float64] < 700


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.booleans())
def test_grids_take_their_own_path(
    seed: int, height: int, width: int, size: int, turned: bool
) -> None:
    """The fast path of grids finds what the general engine finds, from `grid` and from lists of
    factors in any order and direction; hard constraints go to the general engine."""
    rng = np.random.default_rng(seed)
    batch = (2,) if rng.random() < 0.3 else ()
    unary = rng.normal(size=(*batch, height, width, size))
    down = 0.4 * rng.normal(size=(height - 1, width, size, size))
    right = 0.4 * rng.normal(size=(*batch, height, width - 1, size, size))
    graph = FactorGraph.grid(unary, (down, right) if turned else 0.4 * rng.normal(size=(size,) * 2))
    factors = list(graph.factors)
    if turned:  # the same factors, mixed up
        factors = [factors[i] for i in rng.permutation(len(factors))]
        factors = [
            (scope[::-1], np.swapaxes(table, -1, -2))
            if len(scope) == 2 and i % 2
            else (scope, table)
            for i, (scope, table) in enumerate(factors)
        ]
    mixed = FactorGraph(graph.cardinalities, factors)
    assert mixed.grid_shape == graph.grid_shape == (height, width, size)
    plain = FactorGraph(graph.cardinalities, factors)
    plain.__dict__["grid_shape"] = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FactorGraph, "is_forest", False)
        for product in ("sum", "max"):
            options = {"schedule": "flooding", "tolerance": 1e-11, "damping": 0.1}
            given = {(0, 0): 0} if seed % 2 else None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = [
                    belief_propagation(g, product, evidence=given, **options)
                    for g in (plain, mixed, graph)
                ]
            assert [type(f._found).__name__ for f in found] == ["ByMessages"] + ["ByLattice"] * 2
            if not all(f.converged for f in found):
                continue
            for other in found[1:]:
                for variable in graph.variables:
                    np.testing.assert_allclose(other[variable], found[0][variable], atol=1e-8)
                if product == "sum":
                    np.testing.assert_allclose(
                        other.log_partition, found[0].log_partition, atol=1e-8
                    )
                else:
                    np.testing.assert_allclose(other.score, found[0].score, atol=1e-8)
            for number in range(len(factors)):
                np.testing.assert_allclose(
                    found[1].factor(number), found[0].factor(number), atol=1e-8
                )


def test_grids_with_hard_constraints() -> None:
    apart = np.array([[0.0, 0.0], [0.0, -np.inf]])  # no two neighbours both 1
    unary = np.random.default_rng(0).normal(size=(4, 4, 2))
    found = belief_propagation(FactorGraph.grid(unary, apart), "max", damping=0.3)
    assert type(found._found).__name__ == "ByMessages" and np.isfinite(found.score)
    best = found.states
    assert not (best[1:] & best[:-1]).any() and not (best[:, 1:] & best[:, :-1]).any()
