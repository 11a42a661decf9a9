"""Mean field below, tree-reweighted messages above: bounds on log Z, and what attains them."""

import itertools
import math
import warnings

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

import graphs
from graphs.factor_graph import FactorGraph
from graphs.messages.reweighted import packed, resistances, tree_reweighted
from graphs.messages.variational import mean_field

NAMES = ("a", 7, (2, "x"), "d", frozenset({1}), 3.5)
SPIN = np.array([[1.0, -1.0], [-1.0, 1.0]])
ROUNDING = 1e-9
quick = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


def random_graph(rng, count=5, factors=7, arity=3, cards=4, strength=1.0, zeros=0.0):
    sizes = {v: int(rng.integers(1, cards + 1)) for v in NAMES[:count]}
    found = [((), rng.normal(size=()))]
    for _ in range(factors):
        scope = [NAMES[i] for i in rng.permutation(count)[: rng.integers(1, arity + 1)]]
        table = strength * rng.normal(size=[sizes[v] for v in scope])
        table[rng.random(table.shape) < zeros] = -np.inf
        table.flat[0] = 0.0  # all variables in their first state: always possible
        found.append((scope, table))
    return FactorGraph(sizes, found)


def ring(size, couplings, field=0.0):
    pairs = [((i, (i + 1) % size), j * SPIN) for i, j in enumerate(couplings)]
    return FactorGraph([2] * size, [*pairs, *(((i,), [-field, field]) for i in range(size))])


def spins(rng, count, strength, sign=0):
    """A random pairwise graph of spins with fields; sign 1 attracts, -1 repels."""
    pairs = [p for p in itertools.combinations(range(count), 2) if rng.random() < 0.6]
    draws = strength * rng.normal(size=len(pairs))
    draws = sign * abs(draws) if sign else draws
    fields = rng.normal(size=count) * 0.5
    return FactorGraph(
        [2] * count,
        [(pair, j * SPIN) for pair, j in zip(pairs, draws, strict=True)]
        + [((i,), [-h, h]) for i, h in enumerate(fields)],
    )


def joint(graph, evidence=None):
    """All assignments that agree with the evidence, and their scores."""
    rows = np.array(list(itertools.product(*map(range, graph.sizes))), dtype=np.int64)
    for variable, state in (evidence or {}).items():
        rows = rows[rows[:, graph.positions[variable]] == state]
    return rows, np.asarray(graph.score(rows))


def log_z(graph, evidence=None):
    return float(np.logaddexp.reduce(joint(graph, evidence)[1]))


def marginals(graph, evidence=None):
    rows, scores = joint(graph, evidence)
    p = np.exp(scores - np.logaddexp.reduce(scores))
    return {v: np.bincount(rows[:, i], p, graph.sizes[i]) for v, i in graph.positions.items()}


def assert_proper(graph, found):
    for variable, size in graph.cardinalities.items():
        assert found[variable].shape == (size,)
        assert (found[variable] >= 0).all()
        assert found[variable].sum() == pytest.approx(1)


def quietly(ask, *given, **options):
    """Without the warning that says that there is no convergence yet."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not converged")
        return ask(*given, **options)


# Bounds


@quick
@given(
    st.integers(0, 10**6), st.integers(1, 4), st.floats(0.1, 3), st.sampled_from([0.0, 0.0, 0.2]),
    st.booleans(),
)  # fmt: skip
def test_log_z_lies_between_the_bounds(seed, arity, strength, zeros, observe):
    rng = np.random.default_rng(seed)
    graph = random_graph(rng, arity=arity, strength=strength, zeros=zeros)
    evidence = {"d": 0, "a": 0} if observe else None
    exact = log_z(graph, evidence)
    below = quietly(mean_field, graph, evidence=evidence, restarts=2, seed=seed)
    assert -np.inf < below.log_partition <= exact + ROUNDING
    assert np.diff(below.elbos).min(initial=0) >= -ROUNDING
    assert below.elbos[-1] == below.log_partition and len(below.elbos) == below.iterations
    above = quietly(tree_reweighted, graph, evidence=evidence, max_iterations=200)
    assert above.certified and exact - ROUNDING <= above.log_partition < np.inf
    for found in (below, above):
        assert_proper(graph, found)
        if observe:
            assert found["a"][0] == found["d"][0] == 1


@settings(quick, max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from([-1, 0, 1]), st.floats(0.05, 2.5))
def test_the_bounds_on_spins(seed, sign, strength):
    graph = spins(np.random.default_rng(seed), 6, strength, sign)
    exact = log_z(graph)
    below = mean_field(graph, restarts=3, max_iterations=5000)
    assert below.log_partition <= exact + ROUNDING
    assert np.diff(below.elbos).min(initial=0) >= -ROUNDING
    early = quietly(tree_reweighted, graph, max_iterations=1)
    late = quietly(tree_reweighted, graph, max_iterations=200)
    uniform = quietly(tree_reweighted, graph, weights="uniform", max_iterations=200)
    assert exact - ROUNDING <= late.log_partition <= early.log_partition + 1e-6
    if uniform.converged:
        assert exact - 1e-5 <= uniform.log_partition


@pytest.mark.parametrize("seed", range(10))
def test_the_elbo_is_that_of_the_marginals_and_at_a_maximum(seed):
    rng = np.random.default_rng(seed)
    graph = random_graph(rng, arity=4, zeros=0.15 * (seed % 2))
    found = mean_field(graph, tolerance=1e-10, seed=seed)
    q = {v: found[v] for v in graph.variables}

    def elbo(q):
        rows, scores = joint(graph)
        p = np.prod([q[v][rows[:, i]] for v, i in graph.positions.items()], 0)
        return float(p[p > 0] @ scores[p > 0] - p[p > 0] @ np.log(p[p > 0]))

    assert elbo(q) == pytest.approx(found.log_partition, abs=1e-9)
    for variable in graph.variables:
        for other in rng.dirichlet(np.ones(len(q[variable])), 20):
            moved = 0.9 * q[variable] + 0.1 * other
            assert not elbo(q | {variable: moved}) > found.log_partition + 1e-9


def test_mean_field_of_a_product_is_exact():
    rng = np.random.default_rng(0)
    tables = [rng.normal(size=k) for k in (2, 3, 5)]
    graph = FactorGraph([2, 3, 5], [((i,), t) for i, t in enumerate(tables)] + [((), 1.5)])
    for ask in (mean_field, tree_reweighted):
        found = ask(graph)
        assert found.log_partition == pytest.approx(
            1.5 + sum(np.logaddexp.reduce(t) for t in tables), abs=1e-12
        )
        for i, table in enumerate(tables):
            np.testing.assert_allclose(found[i], np.exp(table) / np.exp(table).sum(), atol=1e-12)
    empty = FactorGraph([], [((), np.array(0.7))])
    assert mean_field(empty).log_partition == tree_reweighted(empty).log_partition == 0.7


def test_mean_field_of_two_spins_by_hand():
    """Without fields m = tanh(J m) for both: 0 below J = 1, and broken symmetry above."""
    weak = mean_field(FactorGraph([2, 2], [((0, 1), 0.5 * SPIN)]), tolerance=1e-12)
    assert weak[0] == pytest.approx([0.5, 0.5], abs=1e-9)
    assert weak.log_partition == pytest.approx(2 * math.log(2), abs=1e-12)
    strong = mean_field(FactorGraph([2, 2], [((0, 1), 2 * SPIN)]), tolerance=1e-12)
    m = strong[0][1] - strong[0][0]
    assert abs(m) > 0.9 and m == pytest.approx(math.tanh(2 * m), abs=1e-9)
    entropy = -sum(p * math.log(p) for p in strong[0])
    assert strong.log_partition == pytest.approx(2 * m * m + 2 * entropy, abs=1e-9)


def test_restarts_and_damping():
    graph = spins(np.random.default_rng(8), 6, 2.0)
    bounds = [mean_field(graph, seed=s).log_partition for s in range(6)]
    assert max(bounds) > min(bounds) + 0.05  # there are several maxima
    best = mean_field(graph, restarts=30)
    assert best.log_partition >= max(bounds) - 1e-6
    damped = mean_field(graph, damping=0.6, max_iterations=5000)
    assert np.diff(damped.elbos).min() >= -ROUNDING
    assert damped.iterations > mean_field(graph).iterations
    again = mean_field(graph, restarts=30)
    assert again.log_partition == best.log_partition
    np.testing.assert_array_equal(again.array, best.array)


# Tree-reweighted


@pytest.mark.parametrize("seed", range(8))
def test_reweighted_is_exact_on_forests(seed):
    rng = np.random.default_rng(seed)
    factors = [((0, 1), (2, 3)), ((1, 2, 3), (3, 2, 4)), ((3, 4, 5), (4, 2, 2)), ((6, 7), (3, 3))]
    sizes = [2, 3, 2, 4, 2, 2, 3, 3]
    tables = [(scope, rng.normal(size=shape) * 2) for scope, shape in factors]
    graph = FactorGraph(sizes, [*tables, ((2,), rng.normal(size=2))])
    evidence = {4: 1} if seed % 2 else None
    found = tree_reweighted(graph, evidence=evidence, tolerance=1e-10)
    assert (found.weights == 1).all() and found.forests == 1
    assert found.log_partition == pytest.approx(log_z(graph, evidence), abs=1e-8)
    exact = marginals(graph, evidence)
    for variable in graph.variables:
        np.testing.assert_allclose(found[variable], exact[variable], atol=1e-8)
    ones = tree_reweighted(graph, evidence=evidence, weights=np.ones(5), tolerance=1e-10)
    assert ones.log_partition == pytest.approx(found.log_partition, abs=1e-8)
    assert not ones.certified


@pytest.mark.parametrize("seed", range(6))
def test_the_dual_value_is_the_mean_over_forests_at_convergence(seed):
    graph = random_graph(np.random.default_rng(seed), arity=2 + seed % 2, factors=9, strength=0.7)
    found = tree_reweighted(graph, max_iterations=5000, tolerance=1e-10)
    dual = tree_reweighted(graph, weights=found.weights, max_iterations=5000, tolerance=1e-10)
    assert found.certified != dual.certified
    assert dual.log_partition == pytest.approx(found.log_partition, abs=1e-8)


def test_reweighted_is_the_best_of_its_class():
    """A triangle of spins: the maximum of the concave objective, by an optimiser that knows no
    messages, over marginals m_i and joint probabilities c_ij of both spins up."""
    couplings, fields, rho = [0.9, -0.7, 1.2], [0.3, -0.2, 0.1], 2 / 3
    pairs = [(0, 1), (1, 2), (2, 0)]
    graph = FactorGraph(
        [2] * 3,
        [(pair, j * SPIN) for pair, j in zip(pairs, couplings, strict=True)]
        + [((i,), [-h, h]) for i, h in enumerate(fields)],
    )

    def entropy(p):
        p = np.maximum(p, 1e-300)
        return -(p * np.log(p)).sum()

    def objective(x):
        m, total = x[:3], 0.0
        for i in range(3):
            total += fields[i] * (2 * m[i] - 1) + entropy(np.array([m[i], 1 - m[i]]))
        for (i, j), c, coupling in zip(pairs, x[3:], couplings, strict=True):
            both = np.array([c, m[i] - c, m[j] - c, 1 - m[i] - m[j] + c])
            if both.min() < 0:
                return 1e3 - 1e3 * both.min()
            single = sum(entropy(np.array([m[k], 1 - m[k]])) for k in (i, j))
            total += coupling * (both[0] + both[3] - both[1] - both[2])
            total -= rho * (single - entropy(both))
        return -total

    start = np.array([0.5] * 3 + [0.25] * 3)
    options = {"xatol": 1e-10, "fatol": 1e-13, "maxiter": 20_000, "maxfev": 20_000}
    best = minimize(objective, start, method="Nelder-Mead", options=options)
    best = minimize(objective, best.x, method="Nelder-Mead", options=options)
    for weights in (None, "uniform", [rho] * 3 + [1] * 3):
        found = tree_reweighted(graph, weights=weights, tolerance=1e-10)
        np.testing.assert_allclose(found.weights, [rho] * 3 + [1] * 3, atol=1e-12)
        assert found.log_partition == pytest.approx(-best.fun, abs=1e-6)
        assert [found[i][1] for i in range(3)] == pytest.approx(best.x[:3], abs=1e-4)


def test_bethe_bounds_neither_way():
    """On a ring Z is the Bethe value times 1 + the product of the couplings' eigenvalue ratios,
    which is positive where the ring attracts and negative where it is frustrated."""
    for couplings, sign in (([1.0] * 4, -1), ([1.0, 1.0, 1.0, -1.0], 1)):
        graph = ring(4, couplings)
        exact = log_z(graph)
        bethe = graphs.belief_propagation(graph).log_partition
        assert bethe - exact == pytest.approx(-math.log(1 - sign * math.tanh(1) ** 4), abs=1e-9)
        assert mean_field(graph).log_partition < exact < tree_reweighted(graph).log_partition


def test_packed_forests():
    rng = np.random.default_rng(0)
    for case in range(12):
        variables = int(rng.integers(3, 8))
        scopes = [
            rng.permutation(variables)[: rng.integers(2, min(5, variables + 1))].tolist()
            for _ in range(rng.integers(1, 12))
        ]
        forests, shares = packed(scopes, variables, 10, seed=case)
        assert shares.sum() == pytest.approx(1) and (shares > 0).all()
        assert forests.any(0).all()  # every factor somewhere
        for kept in forests:
            bipartite = nx.Graph()
            bipartite.add_nodes_from(range(variables))
            chosen = [i for i in range(len(scopes)) if kept[i]]
            bipartite.add_edges_from((v, ("f", i)) for i in chosen for v in scopes[i])
            assert nx.is_forest(bipartite)
            for i in set(range(len(scopes))) - set(chosen):  # maximal
                larger = bipartite.copy()
                larger.add_edges_from((v, ("f", i)) for v in scopes[i])
                assert not nx.is_forest(larger)
    # even where the graph is: (n - 1) / edges
    shapes = {
        "ring": [[i, (i + 1) % 4] for i in range(4)],
        "K4": [*itertools.combinations(range(4), 2)],
    }
    for name, expected in (("ring", 0.75), ("K4", 0.5)):
        forests, shares = packed(shapes[name], 4, 24, seed=1)
        np.testing.assert_allclose(shares @ forests, expected)


def test_resistances_count_spanning_trees():
    shape = nx.Graph([(0, 1), (1, 2), (2, 3), (3, 0), (0, 2), (3, 4), (4, 5), (5, 3), (5, 6)])
    trees = [{frozenset(e) for e in tree.edges} for tree in nx.SpanningTreeIterator(shape)]
    edges = [*shape.edges]
    expected = [np.mean([frozenset(edge) in tree for tree in trees]) for edge in edges]
    np.testing.assert_allclose(resistances([*map(list, edges)], 7), expected, atol=1e-12)
    # two edges side by side share what one of them would have; islands change nothing
    np.testing.assert_allclose(resistances([[0, 1], [1, 0], [3, 4]], 6), [0.5, 0.5, 1], atol=1e-12)


def test_weights_that_are_refused():
    graph = ring(4, [1.0] * 4, field=0.1)
    ones = [1.0] * 4
    with pytest.raises(
        ValueError, match=r"around 0 the sum of weight times .* is 3.2, and a forest"
    ):
        tree_reweighted(graph, weights=[0.8] * 4 + ones)
    with pytest.raises(ValueError, match=r"weight of factor 2 over 2, 3 must be above 0.*got 0.0"):
        tree_reweighted(graph, weights=[0.8, 0.8, 0.0, 0.8, *ones])
    with pytest.raises(ValueError, match=r"one number for each of 8 factors; got \(4,\)"):
        tree_reweighted(graph, weights=[0.75] * 4)
    with pytest.raises(ValueError, match="no weights 'uniforn'; did you mean uniform"):
        tree_reweighted(graph, weights="uniforn")
    threes = FactorGraph([2] * 3, [((0, 1, 2), np.zeros((2, 2, 2)))])
    with pytest.raises(ValueError, match="pairwise graphs, and this one has a factor of 3"):
        tree_reweighted(threes, weights="uniform")
    large = FactorGraph.grid(np.zeros((50, 50, 2)), SPIN)
    with pytest.raises(ValueError, match="2,500 variables take a dense matrix"):
        tree_reweighted(large, weights="uniform")
    tensor = torch.tensor([0.75] * 4 + ones)
    assert tree_reweighted(graph, weights=tensor).weights.tolist() == [0.75] * 4 + ones


# Fields, evidence, forms


@pytest.mark.parametrize("ask", [mean_field, tree_reweighted])
def test_a_batch_is_its_fields(ask):
    rng = np.random.default_rng(2)
    unary, right = rng.normal(size=(3, 2, 3, 2)), rng.normal(size=(3, 2, 2, 2, 2))
    graph = FactorGraph.grid(unary, (0.5 * SPIN, right))
    options = {"tolerance": 1e-11, "max_iterations": 5000}
    if ask is mean_field:
        options["restarts"] = 20
    found = ask(graph, **options)
    assert found.log_partition.shape == (3,) and found.array.shape == (3, 2, 3, 2)
    assert found[(0, 1)].shape == (3, 2)
    for i in range(3):
        one = ask(graph.field(i), **options)
        assert isinstance(one.log_partition, float) and one.array.shape == (2, 3, 2)
        assert found.log_partition[i] == pytest.approx(one.log_partition, abs=1e-8)
        np.testing.assert_allclose(found.array[i], one.array, atol=1e-5)
        np.testing.assert_allclose(found[(0, 1)][i], one[(0, 1)], atol=1e-5)
    if ask is mean_field:
        assert found.elbos.shape == (found.iterations, 3)
    assert "3 fields" in str(found)


@pytest.mark.parametrize("ask", [mean_field, tree_reweighted])
def test_rows_of_evidence_are_fields(ask):
    graph = random_graph(np.random.default_rng(12), cards=3, strength=0.5)
    size = graph.cardinalities["a"]
    rows = pd.DataFrame({"a": [0, size - 1, None], "d": [0, 0, 0]})
    found = ask(graph, evidence=rows, tolerance=1e-10, max_iterations=5000)
    for i, evidence in enumerate([{"a": 0, "d": 0}, {"a": size - 1, "d": 0}, {"d": 0}]):
        one = ask(graph, evidence=evidence, tolerance=1e-10, max_iterations=5000)
        assert found.log_partition[i] == pytest.approx(one.log_partition, abs=1e-7)
        for variable in graph.variables:
            np.testing.assert_allclose(found[variable][i], one[variable], atol=1e-5)
    with pytest.raises(ValueError, match="no variable 'b'"):
        ask(graph, evidence={"b": 0})
    with pytest.raises(ValueError, match="no state '9' of a"):
        ask(graph, evidence={"a": 9})


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("ask", [mean_field, tree_reweighted])
def test_tensors_give_tensors(ask, dtype):
    arrays = random_graph(np.random.default_rng(5), strength=0.5)
    tensors = arrays.to(dtype=dtype)
    for group in tensors.groups:
        group.table.requires_grad_()
    plain, found = ask(arrays), ask(tensors, tolerance=1e-5)
    assert isinstance(found.log_partition, torch.Tensor) and not found.log_partition.requires_grad
    assert float(found.log_partition) == pytest.approx(plain.log_partition, rel=1e-4)
    for variable in arrays.variables:
        assert isinstance(plain[variable], np.ndarray)
        assert found[variable].dtype == dtype
        np.testing.assert_allclose(found[variable].numpy(), plain[variable], atol=1e-3)
    half = ask(arrays.to(dtype=dtype))
    assert half.converged  # also in single precision, at the usual tolerance


@pytest.mark.parametrize("ask", [mean_field, tree_reweighted])
def test_networks_and_lists_are_models_too(ask):
    linear = [(("a", "b"), np.array([[2.0, 1], [1, 3]])), (("b",), np.array([0.4, 0.6]))]
    found = ask(linear, evidence={"a": 1}, tolerance=1e-12)
    assert found.log_partition == pytest.approx(math.log(1 * 0.4 + 3 * 0.6), abs=1e-9)
    assert found["b"] == pytest.approx([0.4 / 2.2, 1.8 / 2.2], abs=1e-9)


@pytest.mark.parametrize("ask", [mean_field, tree_reweighted])
def test_no_convergence_is_never_silent(ask):
    graph = spins(np.random.default_rng(3), 6, 1.5)
    with pytest.warns(UserWarning, match=r"not converged in 2 .*still changes by"):
        found = ask(graph, max_iterations=2)
    assert not found.converged and found.iterations == 2 and found.residual > 1e-6
    assert "not converged" in str(found)
    if ask is tree_reweighted:
        with pytest.warns(UserWarning, match="no bound yet"):
            ask(graph, weights="uniform", max_iterations=2)


@pytest.mark.parametrize("ask", [mean_field, tree_reweighted])
def test_reads_well_and_refuses(ask):
    graph = FactorGraph({"rain": 2, "wet": 9}, [(("rain", "wet"), np.zeros((2, 9)))],
                        states={"rain": ["no", "yes"]})  # fmt: skip
    found = ask(graph)
    lines = str(found).splitlines()
    assert repr(found) == str(found) and len(lines) == 3
    assert "converged; log Z " + ("<=" if ask is tree_reweighted else ">=") in lines[0]
    assert lines[1].split() == ["rain", "no", "0.5000", "yes", "0.5000"]
    assert lines[2].endswith(" ...")
    with pytest.raises(ValueError, match="no variable 'rian'; did you mean rain"):
        found["rian"]
    with pytest.raises(ValueError, match="2 different numbers of states"):
        _ = found.array
    for name, value, said in (
        ("damping", 1.0, "damping must be from 0 to below 1; got 1.0"),
        ("tolerance", -1.0, "tolerance must not be negative"),
        ("max_iterations", 0, "max_iterations must be at least 1; got 0"),
        ("seed", -1, "seed must be at least 0"),
        ("trees" if ask is tree_reweighted else "restarts", 0, "must be at least 1; got 0"),
    ):
        with pytest.raises(ValueError, match=said):
            ask(graph, **{name: value})
    many = ask(FactorGraph([2] * 30, []))
    assert str(many).splitlines()[-1] == "  and 10 more variables"
    assert many.array.shape == (30, 2)


# Hard constraints


def test_mean_field_with_constraints_keeps_to_a_possible_box():
    """x = y, with weights: independent q can only sit on one of the possible pairs."""
    weights = np.log([1.0, 2.0, 4.0])
    graph = FactorGraph([3, 3], [((0, 1), np.where(np.eye(3), 0.0, -np.inf)), ((0,), weights)])
    found = [mean_field(graph, seed=s).log_partition for s in range(12)]
    assert {round(v, 9) for v in found} == {round(float(w), 9) for w in weights}
    best = mean_field(graph, restarts=12)
    assert best.log_partition == pytest.approx(math.log(4)) and best[1].tolist() == [0, 0, 1]


def test_mean_field_spreads_where_it_may():
    """Not both ones: from any start q spreads over the boxes {0} x {0, 1} or {0, 1} x {0}."""
    graph = FactorGraph([2, 2], [((0, 1), np.array([[0.0, 0.0], [0.0, -np.inf]]))])
    found = mean_field(graph)
    assert found.log_partition == pytest.approx(math.log(2))
    assert sorted([found[0][1], found[1][1]]) == pytest.approx([0, 0.5])


def test_a_bound_of_minus_infinity_says_why():
    differ = np.where(np.eye(2), -np.inf, 0.0)
    triangle = [((0, 1), differ), ((1, 2), differ), ((2, 0), differ)]
    with pytest.warns(UserWarning, match="bound is -inf: no state of positive probability"):
        found = mean_field(FactorGraph([2] * 3, triangle))
    assert found.log_partition == -np.inf
    assert_proper(found.graph, found)
    batch = FactorGraph([2] * 3, [(s, np.stack([np.zeros((2, 2)), t])) for s, t in triangle])
    with pytest.warns(UserWarning, match=r"bound is -inf: .*\(field 1\)"):
        found = mean_field(batch)
    assert found.log_partition.tolist() == [pytest.approx(3 * math.log(2)), -np.inf]


def test_contradictions_are_named():
    graph = FactorGraph([2, 2], [((0,), [0.0, -np.inf]), ((0, 1), np.zeros((2, 2)))])
    for ask in (mean_field, tree_reweighted):
        with pytest.raises(ValueError, match="every state of 0 is forbidden by its own factors"):
            ask(graph, evidence={0: 1})
