"""Log-linear models from data, against enumerated joints, closed forms and finite differences."""

import itertools
import math
import warnings

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphs.exact.engine
import graphs.learning.pseudo_likelihood
from graphs.exact.junction_tree import JunctionTree
from graphs.factor_graph import FactorGraph
from graphs.learning.log_linear import (
    ExactMarginals,
    climb,
    learn_log_linear,
    likelihood,
    pseudo_likelihood,
)
from graphs.learning.potentials import Potentials
from graphs.learning.proportional_fitting import (
    iterative_proportional_fitting,
    perfect_order,
)
from graphs.learning.pseudo_likelihood import PseudoLikelihood
from graphs.learning.scopes import Layout, Observations, read_observations, read_scopes
from graphs.progress import Bar
from graphs.tables import Factor, Tables, tables_of
from tests.networks import NAMES, joint_table, summed

QUIET = {"progress": False}
LOOP = [("a", "b"), ("b", "c"), ("c", "d"), ("d", "a")]
EQUAL = np.array([[[1.0, -1.0], [-1.0, 1.0]]])  # x_i x_j of spins


def sampled(seed: int, n: int, sizes: dict) -> pd.DataFrame:
    """Rows from a random joint table over all these variables."""
    rng = np.random.default_rng(seed)
    joint = rng.dirichlet(np.full(math.prod(sizes.values()), 0.7))
    drawn = np.unravel_index(rng.choice(len(joint), n, p=joint), list(sizes.values()))
    frame = pd.DataFrame(dict(enumerate(drawn)))
    frame.columns = pd.Index(list(sizes), tupleize_cols=False)
    return frame.map(lambda k: f"s{k}")


def random_problem(seed: int) -> tuple[list, pd.DataFrame, dict]:
    """Scopes without repeats that cover up to five variables, rows, and the states."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 6))
    sizes = {v: int(rng.integers(1, 4)) for v in NAMES[:count]}
    found = {}
    for _ in range(rng.integers(1, 6)):
        scope = tuple(NAMES[i] for i in rng.permutation(count)[: rng.integers(1, 4)])
        found.setdefault(frozenset(scope), scope)
    scopes = list(found.values())
    scopes += [(v,) for v in sizes if not any(v in scope for scope in scopes)]
    states = {v: [f"s{i}" for i in range(k)] for v, k in sizes.items()}
    return scopes, sampled(seed, int(rng.integers(5, 60)), sizes), states


def frequencies(data: pd.DataFrame, scope, states: dict) -> np.ndarray:
    table = np.zeros([len(states[v]) for v in scope])
    for row in zip(*(data[v] for v in scope), strict=True):
        table[tuple(states[v].index(k) for v, k in zip(scope, row, strict=True))] += 1
    return table / len(data)


def log_probabilities(model, data: pd.DataFrame) -> np.ndarray:
    """log p of each row, by the enumerated joint."""
    tables = tables_of(model)
    joint = joint_table(tables)
    with np.errstate(divide="ignore"):
        logs = np.log(joint / joint.sum())
    cells = [[tables.positions[v][str(k)] for k in data[v]] for v in tables.states]
    return logs[tuple(cells)]


def pseudo_log_likelihood(model, data: pd.DataFrame) -> float:
    """The mean over rows of sum over i of log p(x_i | x_-i), by the enumerated joint."""
    tables = tables_of(model)
    joint = joint_table(tables)
    cells = tuple([tables.positions[v][str(k)] for k in data[v]] for v in tables.states)
    total = 0.0
    for axis in range(joint.ndim):
        conditional = joint / np.where(
            joint.sum(axis, keepdims=True) > 0, joint.sum(axis, keepdims=True), 1
        )
        total += np.log(conditional[cells]).sum()
    return total / len(data)


def margins_agree(fit, data: pd.DataFrame, scopes, states: dict, tolerance: float) -> None:
    tables = tables_of(fit.model)
    joint = joint_table(tables)
    for scope in scopes:
        assert summed(tables, joint, *scope) == pytest.approx(
            frequencies(data, scope, states), abs=tolerance
        )


# Objectives


def spelled(layout: Layout, weights: np.ndarray, potentials: Potentials) -> Tables:
    """The model of some weights as linear tables."""
    tables = potentials.tables(potentials.cells(weights))
    factors = [Factor(s, np.exp(t)) for s, t in zip(layout.scopes, tables, strict=True)]
    return Tables(dict(layout.states), factors)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_objectives_are_those_of_the_enumerated_joint(seed, with_features):
    scopes, data, states = random_problem(seed)
    rng = np.random.default_rng(seed)
    seen = read_observations(scopes, data, states)
    assert seen.rows == len(data)
    features = {}
    if with_features:
        shape = seen.layout.supports[0].shape
        features = {0: rng.normal(size=(int(rng.integers(1, 4)), *shape))}
    potentials = Potentials(seen.layout.scopes, seen.layout.supports, None, features)
    weights = rng.normal(size=potentials.count)
    cells = potentials.cells(weights)
    observed = potentials.summed(seen.marginals())
    model = spelled(seen.layout, weights, potentials)
    exact = likelihood(seen, potentials, observed)
    assert exact(cells)[0] == pytest.approx(-log_probabilities(model, data).mean(), abs=1e-10)
    pseudo = pseudo_likelihood(seen, potentials)
    assert pseudo(cells)[0] == pytest.approx(-pseudo_log_likelihood(model, data), abs=1e-10)
    for objective in (exact, pseudo):
        gradient = potentials.gradient(objective(cells)[1])
        for k in range(potentials.count):
            step = 1e-5 * np.eye(potentials.count)[k]
            up, down = (objective(potentials.cells(weights + s))[0] for s in (step, -step))
            assert gradient[k] == pytest.approx((up - down) / 2e-5, abs=1e-8)


@pytest.mark.parametrize("method", [likelihood, pseudo_likelihood])
def test_gradients_of_tied_tables_with_zeros_and_features(method):
    data = pd.DataFrame({v: list("xxyyxyxy") for v in "abc"})
    data["b"] = list("xyxyyyxx")
    data["c"] = list("yyxyxxxy")
    keep = np.array([[1.0, 1.0], [0.0, 1.0]])
    data = data[~((data["a"] == "y") & (data["b"] == "x"))]
    data = data[~((data["b"] == "y") & (data["c"] == "x"))]
    states = {v: ("x", "y") for v in "abc"}
    factors = [
        Factor(("a", "b"), keep),
        Factor(("b", "c"), keep),
        Factor(("a", "c"), np.ones((2, 2))),
    ]
    seen = read_observations(Tables(states, factors), data, None)
    features = {2: np.array([[[1.0, 0.5], [0.5, -1.0]]])}
    potentials = Potentials(seen.layout.scopes, seen.layout.supports, [[1, 0]], features)
    assert potentials.count == 4  # three free cells of the tied table, one feature
    objective = (
        likelihood(seen, potentials, potentials.summed(seen.marginals()))
        if method is likelihood
        else pseudo_likelihood(seen, potentials)
    )
    weights = np.array([0.3, -0.7, 1.1, 0.4])
    value, by_cell = objective(potentials.cells(weights))
    model = spelled(seen.layout, weights, potentials)
    brute = (
        log_probabilities(model, data).mean()
        if method is likelihood
        else pseudo_log_likelihood(model, data)
    )
    assert value == pytest.approx(-brute, abs=1e-12)
    for k, slope in enumerate(potentials.gradient(by_cell)):
        step = 1e-5 * np.eye(4)[k]
        up, down = (objective(potentials.cells(weights + s))[0] for s in (step, -step))
        assert slope == pytest.approx((up - down) / 2e-5, abs=1e-9)


def test_many_neighbours_are_numbered_within_the_integers(monkeypatch):
    rng = np.random.default_rng(0)
    columns = rng.integers(0, 3, (6, 40))
    places = [(i, j) for i in range(6) for j in range(i)]
    starts = [9 * f for f in range(len(places))]
    cells = rng.normal(size=9 * len(places))
    args = (columns, np.ones(40), [3] * 6, places, starts, len(cells))
    value, gradient = PseudoLikelihood(*args)(cells)
    monkeypatch.setattr(graphs.learning.pseudo_likelihood, "ROOM", 2000)  # not 3^5 rows to a code
    for room in (10, 100, 2000):
        monkeypatch.setattr(graphs.learning.pseudo_likelihood, "ROOM", room)
        again, slope = PseudoLikelihood(*args)(cells)
        assert again == pytest.approx(value, abs=1e-9)
        assert slope == pytest.approx(gradient, abs=1e-9)


# Maximum likelihood


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_fits_match_the_marginals_and_each_other(seed):
    scopes, data, states = random_problem(seed)
    with warnings.catch_warnings():  # a maximum at infinity, behind a face that no zero tells
        warnings.filterwarnings("ignore", message=".*did not converge", category=UserWarning)
        fitted = iterative_proportional_fitting(
            scopes, data, states=states, max_sweeps=3000, **QUIET
        )
        climbed = learn_log_linear(scopes, data, states=states, tolerance=1e-6, **QUIET)
    assert climbed.residual < 1e-5
    margins_agree(climbed, data, scopes, states, 1e-5)
    if fitted.converged:
        margins_agree(fitted, data, scopes, states, 1e-7)
    for fit in (climbed, fitted):
        found = log_probabilities(fit.model, data)
        assert np.isfinite(found).all()
        assert fit.log_likelihood == pytest.approx(found.mean(), abs=1e-9)
        total = joint_table(tables_of(fit.model)).sum()
        assert fit.log_partition == pytest.approx(math.log(total), abs=1e-9)
        assert np.all(np.diff(fit.history) >= -1e-12)
    assert climbed.log_likelihood == pytest.approx(fitted.log_likelihood, abs=1e-3)
    assert climbed.unseen == fitted.unseen and climbed.weights == fitted.weights


def test_likelihood_equals_proportional_fitting_on_a_loop():
    sizes = {"a": 2, "b": 3, "c": 2, "d": 3}
    data = sampled(1, 5000, sizes)
    climbed = learn_log_linear(LOOP, data, tolerance=1e-8, **QUIET)
    fitted = iterative_proportional_fitting(LOOP, data, tolerance=1e-12, **QUIET)
    assert climbed.converged and fitted.converged and fitted.iterations > 1
    first, second = (joint_table(tables_of(fit.model)) for fit in (climbed, fitted))
    assert first / first.sum() == pytest.approx(second / second.sum(), abs=1e-7)
    assert climbed.log_likelihood == pytest.approx(fitted.log_likelihood, abs=1e-12)


def test_penalty_is_a_gaussian_prior():
    data = sampled(2, 200, {"a": 2, "b": 3, "c": 2})
    fit = learn_log_linear([("a", "b"), ("b", "c")], data, l2=3.0, tolerance=1e-8, **QUIET)
    tables = tables_of(fit.model)
    joint = joint_table(tables)
    states = {v: list(k) for v, k in tables.states.items()}
    for scope, weights in zip([("a", "b"), ("b", "c")], fit.parameters, strict=True):
        apart = frequencies(data, scope, states) - summed(tables, joint, *scope)
        assert 3.0 * weights == pytest.approx(200 * apart, abs=1e-5)
    penalty = 1.5 * sum((w**2).sum() for w in fit.parameters) / 200
    assert fit.history[-1] == pytest.approx(fit.log_likelihood - penalty, abs=1e-12)
    loose = learn_log_linear([("a", "b"), ("b", "c")], data, **QUIET)
    assert loose.log_likelihood > fit.log_likelihood


def test_weights_are_the_smallest_of_equal_models():
    """Gauge directions leave the model alone; the climb from zero has nothing along them."""
    data = sampled(3, 300, {"a": 2, "b": 2, "c": 2})
    fit = learn_log_linear([("a", "b"), ("b", "c")], data, **QUIET)
    first, second = fit.parameters
    # psi_ab(a, b) f(b) and psi_bc(b, c) / f(b) are the same model
    assert first.sum(0) == pytest.approx(second.sum(1), abs=1e-9)


def test_same_data_same_numbers():
    data = sampled(4, 300, {"a": 2, "b": 2, "c": 3, "d": 2})
    for method in ("likelihood", "pseudo_likelihood"):
        first, second = (learn_log_linear(LOOP, data, method, **QUIET) for _ in range(2))
        for one, other in zip(first.parameters, second.parameters, strict=True):
            assert np.array_equal(one, other)


def test_log_potentials_of_any_size_keep_the_model_finite():
    """A feature near to a constant has a large weight, and its exponential must not overflow."""
    data = sampled(5, 400, {"a": 2, "b": 2})
    share = frequencies(data, ("a",), {"a": ["s0", "s1"]})
    fit = learn_log_linear(
        [("a",), ("b",)], data, features={0: [[10000.0, 10001.0]]}, tolerance=1e-5, **QUIET
    )
    (weight,) = fit.parameters[0]
    assert weight == pytest.approx(math.log(share[1] / share[0]), abs=1e-4)
    values = tables_of(fit.model).factors[0].values
    assert np.isfinite(values).all() and values[1] / values[0] == pytest.approx(
        share[1] / share[0], rel=1e-4
    )
    total = joint_table(tables_of(fit.model)).sum()
    assert fit.log_partition == pytest.approx(math.log(total), abs=1e-6)


# Pseudo-likelihood


def spins(n: int) -> tuple[list, list]:
    nodes = [((r, c),) for r in range(n) for c in range(n)]
    edges = [((r, c), (r + 1, c)) for r in range(n - 1) for c in range(n)]
    edges += [((r, c), (r, c + 1)) for r in range(n) for c in range(n - 1)]
    return nodes, edges


def test_pseudo_likelihood_of_the_whole_distribution_gives_the_parameters():
    """With each configuration weighted by its probability the maximum is at the truth."""
    nodes, edges = spins(3)
    rng = np.random.default_rng(0)
    truth = np.concatenate([rng.normal(0, 0.5, len(nodes)), rng.normal(0, 0.7, len(edges))])
    scopes = nodes + edges
    features = {f: [[1.0, -1.0]] for f in range(len(nodes))}
    features |= {f: EQUAL for f in range(len(nodes), len(scopes))}
    supports = [np.ones((2,) * len(scope), bool) for scope in scopes]
    layout = Layout({v: ("+", "-") for (v,) in nodes}, scopes, supports)
    potentials = Potentials(scopes, supports, None, features)
    cells = potentials.cells(truth)
    columns = np.array(list(itertools.product((0, 1), repeat=9))).T
    score = sum(
        table[tuple(columns[v] for v in place)]
        for place, table in zip(layout.places, potentials.tables(cells), strict=True)
    )
    seen = Observations(layout, columns, np.exp(score - score.max()))
    objective = pseudo_likelihood(seen, potentials)
    assert potentials.gradient(objective(cells)[1]) == pytest.approx(np.zeros(21), abs=1e-13)
    found = climb(objective, potentials, 0.0, 1e-9, 500, Bar("", None, False))
    assert found.weights == pytest.approx(truth, abs=1e-6)


def test_pseudo_likelihood_recovers_an_ising_model():
    nodes, edges = spins(3)
    rng = np.random.default_rng(1)
    field, coupling = rng.normal(0, 0.3, len(nodes)), rng.normal(0, 0.5, len(edges))
    model = [(s, np.exp(h * np.array([1, -1]))) for s, h in zip(nodes, field, strict=True)]
    model += [(s, np.exp(j * EQUAL[0])) for s, j in zip(edges, coupling, strict=True)]
    data = JunctionTree(model).sample(60_000, seed=3)
    features = {f: [[1.0, -1.0]] for f in range(len(nodes))}
    features |= {f: EQUAL for f in range(len(nodes), len(nodes) + len(edges))}
    for method in ("likelihood", "pseudo_likelihood"):
        fit = learn_log_linear(nodes + edges, data, method, features=features, **QUIET)
        found = np.concatenate(fit.parameters)
        assert found == pytest.approx(np.concatenate([field, coupling]), abs=0.04)
        assert fit.converged and fit.weights == 21
    assert fit.log_likelihood is None and fit.log_partition is None
    assert fit.pseudo_log_likelihood == pytest.approx(
        pseudo_log_likelihood(fit.model, data), abs=1e-9
    )


def test_pseudo_likelihood_equals_likelihood_without_interactions():
    data = sampled(6, 100, {"a": 2, "b": 3})
    fits = [learn_log_linear([("a",), ("b",)], data, method, **QUIET) for method in
            ("likelihood", "pseudo_likelihood")]  # fmt: skip
    assert fits[0].log_likelihood == pytest.approx(fits[1].pseudo_log_likelihood, abs=1e-9)
    for first, second in zip(fits[0].parameters, fits[1].parameters, strict=True):
        assert first == pytest.approx(second, abs=1e-5)


def test_pseudo_likelihood_of_a_large_grid():
    """48 x 48 has no exact answer; the coupling of a homogeneous field comes back."""
    n, coupling = 48, 0.25
    rng = np.random.default_rng(0)
    x = rng.choice([-1, 1], (40, n, n))
    dark = np.add.outer(np.arange(n), np.arange(n)) % 2 == 0
    for _ in range(30):
        for colour in (dark, ~dark):
            around = np.pad(x, ((0, 0), (1, 1), (1, 1)))
            force = around[:, :-2, 1:-1] + around[:, 2:, 1:-1]
            force = force + around[:, 1:-1, :-2] + around[:, 1:-1, 2:]
            up = rng.random(x.shape) < 1 / (1 + np.exp(-2 * coupling * force))
            x = np.where(colour, np.where(up, 1, -1), x)
    nodes, edges = spins(n)
    data = pd.DataFrame(x.reshape(len(x), -1))
    data.columns = pd.Index([v for (v,) in nodes], tupleize_cols=False)
    tied = [range(len(edges))]
    fit = learn_log_linear(
        edges, data, "pseudo_likelihood", tied=tied, features={0: EQUAL}, **QUIET
    )
    assert fit.parameters[0] == pytest.approx([coupling], abs=0.01)


def test_what_exact_inference_cannot_hold_is_refused():
    """Each of 45 variables meets each other: tables of 2^45 cells."""
    rng = np.random.default_rng(0)
    data = pd.DataFrame(rng.integers(0, 2, (50, 45)))
    pairs = list(itertools.combinations(range(45), 2))
    for learn in (learn_log_linear, iterative_proportional_fitting):
        with pytest.raises(MemoryError, match=r"too dense .*method=\"pseudo_likelihood\""):
            learn(pairs, data, **QUIET)
    assert learn_log_linear(pairs, data, "pseudo_likelihood", l2=1.0, **QUIET).converged


def test_pseudo_likelihood_is_refused_where_memory_does_not_hold_it(monkeypatch):
    data = sampled(7, 500, {"a": 3, "b": 3, "c": 3, "d": 3})
    learn_log_linear(LOOP, data, "pseudo_likelihood", **QUIET)
    monkeypatch.setattr(graphs.learning.pseudo_likelihood, "free_memory", lambda: 1000)
    with pytest.raises(MemoryError, match="use fewer rows"):
        learn_log_linear(LOOP, data, "pseudo_likelihood", **QUIET)


# Tied parameters


@pytest.mark.parametrize("method", ["likelihood", "pseudo_likelihood"])
def test_tied_factors_share_their_table(method):
    nodes, edges = spins(3)
    data = sampled(8, 400, {v: 2 for (v,) in nodes[:1]} | {v: 2 for (v,) in nodes[1:]})
    tied = [range(len(nodes)), range(len(nodes), len(nodes) + len(edges))]
    fit = learn_log_linear(nodes + edges, data, method, tied=tied, tolerance=1e-7, **QUIET)
    assert len(fit.parameters) == 2 and fit.weights == 2 + 4
    tables = tables_of(fit.model)
    for factor in tables.factors:
        shared = fit.parameters[0 if len(factor.variables) == 1 else 1]
        assert factor.values == pytest.approx(np.exp(shared), abs=1e-12)
    if method == "likelihood":  # the sums over a group are what is matched
        joint = joint_table(tables)
        states = {v: list(k) for v, k in tables.states.items()}
        for group in (nodes, edges):
            model = sum(summed(tables, joint, *scope) for scope in group)
            assert model == pytest.approx(
                sum(frequencies(data, scope, states) for scope in group), abs=1e-5
            )
    free = learn_log_linear(nodes + edges, data, method, **QUIET)
    name = "log_likelihood" if method == "likelihood" else "pseudo_log_likelihood"
    assert getattr(free, name) > getattr(fit, name)
    assert "21 factors (tied to 2)" in str(fit)


def test_a_group_of_one_and_no_group_are_the_same():
    data = sampled(9, 200, {"a": 2, "b": 2, "c": 2, "d": 2})
    first = learn_log_linear(LOOP, data, **QUIET)
    second = learn_log_linear(LOOP, data, tied=[[2], [], [0]], **QUIET)
    for one, other in zip(first.parameters, second.parameters, strict=True):
        assert np.array_equal(one, other)


def test_features_for_one_factor_hold_for_its_group():
    data = sampled(10, 300, {"a": 2, "b": 2, "c": 2, "d": 2})
    tied = [[0, 1, 2, 3]]
    fits = [
        learn_log_linear(LOOP, data, tied=tied, features=features, **QUIET)
        for features in ({0: EQUAL}, {3: EQUAL}, {1: EQUAL, 2: EQUAL})
    ]
    assert fits[0].weights == 1
    assert fits[0].parameters[0] == fits[1].parameters[0] == fits[2].parameters[0]


def test_indicator_features_are_a_table():
    data = sampled(11, 300, {"a": 2, "b": 3})
    plain = learn_log_linear([("a", "b")], data, l2=1.0, **QUIET)
    spelled_out = learn_log_linear(
        [("a", "b")], data, l2=1.0, features={0: np.eye(6).reshape(6, 2, 3)}, **QUIET
    )
    assert spelled_out.parameters[0].reshape(2, 3) == pytest.approx(plain.parameters[0], abs=1e-12)


# Zeros


def test_zeros_of_the_model_stay_and_its_other_entries_do_not_matter():
    states = {v: ("x", "y") for v in "abcd"}
    zero = np.array([[0.0, 3.0], [0.5, 2.0]])
    others = np.ones((2, 2))
    factors = [Factor(s, zero if s == ("b", "c") else others) for s in LOOP]
    data = sampled(12, 900, {v: 2 for v in "abcd"}).replace({"s0": "x", "s1": "y"})
    data = data[~((data["b"] == "x") & (data["c"] == "x"))]
    model = Tables(states, factors)
    for learn in (learn_log_linear, iterative_proportional_fitting):
        fit = learn(model, data, **QUIET)
        values = {f.variables: f.values for f in tables_of(fit.model).factors}
        assert values["b", "c"][0, 0] == 0 and (values["b", "c"] > 0).sum() == 3
        assert fit.unseen == 0 and fit.weights == 15
        margins_agree(fit, data, LOOP, {v: ["x", "y"] for v in "abcd"}, 1e-5)
    penalised = learn_log_linear(model, data, "pseudo_likelihood", l2=1.0, **QUIET)
    assert penalised.parameters[1][0, 0] == -np.inf
    assert np.isfinite(penalised.parameters[1]).sum() == 3
    assert penalised.pseudo_log_likelihood == pytest.approx(
        pseudo_log_likelihood(penalised.model, data), abs=1e-10
    )


def test_cells_without_data_are_zero_unless_a_prior_holds_them():
    data = pd.DataFrame({"a": list("xxyy"), "b": list("uvuu"), "c": list("pqpq")})
    for method in ("likelihood", "pseudo_likelihood"):
        fit = learn_log_linear([("a", "b"), ("b", "c")], data, method, **QUIET)
        assert fit.unseen == 2  # y with v, and v with p
        assert fit.parameters[0][1, 1] == -np.inf and fit.parameters[1][1, 0] == -np.inf
        assert "2 cells without data: zero" in str(fit)
        held = learn_log_linear([("a", "b"), ("b", "c")], data, method, l2=0.1, **QUIET)
        assert held.unseen == 0 and np.isfinite(np.concatenate(held.parameters, None)).all()
    fitted = iterative_proportional_fitting([("a", "b"), ("b", "c")], data, **QUIET)
    climbed = learn_log_linear([("a", "b"), ("b", "c")], data, **QUIET)
    assert fitted.unseen == 2
    assert fitted.log_likelihood == pytest.approx(climbed.log_likelihood, abs=1e-9)
    assert joint_table(tables_of(fitted.model)) / math.exp(fitted.log_partition) == pytest.approx(
        joint_table(tables_of(climbed.model)) / math.exp(climbed.log_partition), abs=1e-6
    )


def test_rows_that_the_model_forbids_are_refused():
    model = [(("a", "b"), np.array([[1.0, 0.0], [1.0, 1.0]]))]
    data = pd.DataFrame({"a": [0, 0, 1], "b": [1, 1, 0]})
    for learn in (learn_log_linear, iterative_proportional_fitting):
        with pytest.raises(ValueError, match=r"2 rows .* such as one with a=0, b=1"):
            learn(model, data, **QUIET)


# Proportional fitting


def chordal(seed: int) -> nx.Graph:
    """A random chordal graph: each node joins a clique of earlier ones."""
    rng = np.random.default_rng(seed)
    graph = nx.Graph()
    for i in range(int(rng.integers(1, 8))):
        graph.add_node(i)
        if i and rng.random() < 0.9:
            cliques = sorted(map(sorted, nx.find_cliques(graph.subgraph(range(i)))))
            clique = cliques[rng.integers(len(cliques))]
            graph.add_edges_from((i, int(j)) for j in rng.permutation(clique)[: rng.integers(0, 3)])
    return graph


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_decomposable_models_take_one_sweep_to_their_closed_form(seed):
    graph = chordal(seed)
    rng = np.random.default_rng(seed)
    sizes = {v: int(rng.integers(2, 4)) for v in graph}
    data = sampled(seed, int(rng.integers(3, 200)), sizes)
    states = {v: [f"s{i}" for i in range(k)] for v, k in sizes.items()}
    fit = iterative_proportional_fitting(graph, data, states=states, tolerance=1e-12, **QUIET)
    assert fit.converged and fit.iterations == 1
    # prod over cliques of p(x_C) / prod over separators of p(x_S), Lauritzen (1996), 4.4.1
    scopes = [factor.variables for factor in tables_of(fit.model).factors]
    order = perfect_order([tuple(sorted(scope)) for scope in scopes])
    seen: set = set()
    expected = np.zeros(len(data))
    for number in order:
        scope = scopes[number]
        for inside, sign in ((scope, 1), (tuple(v for v in scope if v in seen), -1)):
            if not inside:
                continue
            table = frequencies(data, inside, states)
            cells = tuple([states[v].index(k) for k in data[v]] for v in inside)
            expected += sign * np.log(table[cells])
        seen |= set(scope)
    assert log_probabilities(fit.model, data) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6))
def test_perfect_orders_are_perfect_and_there_is_one_where_there_can_be(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 6))
    drawn = {frozenset(rng.permutation(5)[: rng.integers(1, 4)].tolist()) for _ in range(count)}
    sets = sorted(drawn, key=sorted)

    def perfect(order) -> bool:
        for i, number in enumerate(order):
            met = sets[number] & frozenset().union(*(sets[k] for k in order[:i]))
            if i and not any(met <= sets[k] for k in order[:i]):
                return False
        return True

    order = perfect_order([tuple(s) for s in sets])
    if order is None:
        assert not any(map(perfect, itertools.permutations(range(len(sets)))))
    else:
        assert sorted(order) == list(range(len(sets))) and perfect(order)


def test_a_loop_has_no_perfect_order():
    assert perfect_order([(0, 1), (1, 2), (2, 3), (0, 3)]) is None
    assert perfect_order([(0, 1), (1, 2), (2, 3)]) == [0, 1, 2]


def test_marginals_in_place_of_data():
    """Scopes in another order, and counts, say the same as the rows that they come from."""
    data = sampled(13, 700, {"a": 2, "b": 3, "c": 2, "d": 2})
    states = {v: sorted(set(data[v])) for v in data}
    by_rows = iterative_proportional_fitting(LOOP, data, **QUIET)
    marginals = {s: 700 * frequencies(data, s, states) for s in LOOP}
    turned = {s[::-1]: table.T for s, table in marginals.items()}
    for given_marginals in (marginals, turned, list(marginals.items())):
        fit = iterative_proportional_fitting(LOOP, given_marginals, states=states, **QUIET)
        assert fit.rows is None and "given marginals" in str(fit)
        assert fit.log_likelihood == pytest.approx(by_rows.log_likelihood, abs=1e-9)
        assert tables_of(fit.model).states == tables_of(by_rows.model).states
        for one, other in zip(fit.parameters, by_rows.parameters, strict=True):
            assert one == pytest.approx(other, abs=1e-9)
    unnamed = iterative_proportional_fitting(list(marginals), marginals, **QUIET)
    assert tables_of(unnamed.model).states["b"] == (0, 1, 2)
    graph = nx.Graph(LOOP)
    assert iterative_proportional_fitting(graph, marginals, **QUIET).converged


def test_contingency_table_of_fienberg():
    """Two sets of margins on a 2 x 2 table: the odds ratio of the start stays, which is one."""
    fit = iterative_proportional_fitting(
        [("row",), ("column",)], {("row",): [30, 70], ("column",): [0.6, 0.4]}, **QUIET
    )
    joint = joint_table(tables_of(fit.model)) / math.exp(fit.log_partition)
    assert joint == pytest.approx(np.outer([0.3, 0.7], [0.6, 0.4]), abs=1e-15)


def test_the_fit_has_the_largest_entropy():
    data = sampled(14, 500, {"a": 2, "b": 2, "c": 2})
    scopes = [("a", "b"), ("b", "c"), ("a", "c")]
    fit = iterative_proportional_fitting(scopes, data, tolerance=1e-13, **QUIET)
    joint = joint_table(tables_of(fit.model)) / math.exp(fit.log_partition)
    assert fit.log_likelihood == pytest.approx((joint * np.log(joint)).sum(), abs=1e-12)
    # the only direction that changes no pair's marginal
    parity = np.fromfunction(lambda a, b, c: (-1.0) ** (a + b + c), (2, 2, 2))
    for step in (1e-3, -1e-3):
        other = joint + step * joint.min() * parity
        assert -(other * np.log(other)).sum() < -(joint * np.log(joint)).sum()


def test_marginals_that_no_distribution_has():
    split = [[0.0, 0.5], [0.5, 0.0]]
    pairs = [("a", "b"), ("b", "c"), ("a", "c")]  # three that all differ from each other
    with pytest.raises(ValueError, match=r"leave it none"):
        iterative_proportional_fitting(pairs, dict.fromkeys(pairs, split), **QUIET)
    nearly = [[0.05, 0.45], [0.45, 0.05]]
    with pytest.warns(UserWarning, match=r"did not converge: after 50 sweeps .* is off by 0"):
        fit = iterative_proportional_fitting(
            pairs, dict.fromkeys(pairs, nearly), max_sweeps=50, **QUIET
        )
    assert not fit.converged and fit.residual > 1e-3 and "not converged after 50 sweeps" in str(fit)


BOTH = {("a", "b"): np.full((2, 2), 0.25), ("b", "c"): np.full((2, 2), 0.25)}


@pytest.mark.parametrize(
    ("marginals", "error", "text"),
    [
        ({("a", "b"): BOTH["a", "b"]}, ValueError, "no marginal over b, c"),
        (BOTH | {("a", "c"): np.eye(2)}, ValueError, "over a, c was given, which is no scope"),
        (BOTH | {("b", "a"): np.eye(2)}, ValueError, "two marginals over b, a"),
        (BOTH | {("b", "c"): np.zeros((2, 2))}, ValueError, "b, c is zero everywhere"),
        (BOTH | {("b", "c"): np.full((2, 2), -1.0)}, ValueError, "negative"),
        (BOTH | {("b", "c"): np.full((3, 2), 1.0)}, ValueError, "3 states for b"),
        (BOTH | {("b", "c"): np.ones(4)}, ValueError, "one axis a variable"),
        (BOTH | {("b", "c"): [[0.4, 0.4], [0.1, 0.1]]}, ValueError, "over b that they imply"),
        ([("a", "b")], TypeError, "list of such pairs"),
        ({"ab": np.ones((2, 2))}, TypeError, "tuples of variables"),
    ],
)
def test_marginals_that_do_not_fit(marginals, error, text):
    with pytest.raises(error, match=text):
        iterative_proportional_fitting([("a", "b"), ("b", "c")], marginals, **QUIET)


def test_marginals_and_states_that_do_not_fit():
    scopes = [("a", "b"), ("b", "c")]
    with pytest.raises(ValueError, match="no variable 'z'"):
        iterative_proportional_fitting(scopes, BOTH, states={"z": 2}, **QUIET)
    with pytest.raises(ValueError, match="a has 2 states in the marginals"):
        iterative_proportional_fitting(scopes, BOTH, states={"a": 3}, **QUIET)
    with pytest.raises(TypeError, match="the states of a must be a list, or their number"):
        iterative_proportional_fitting(scopes, BOTH, states={"a": "xy"}, **QUIET)
    model = Tables({"a": (0, 1, 2)}, [Factor(("a",), np.ones(3))])
    with pytest.raises(ValueError, match="a has 3 states in the model and 2 in the marginals"):
        iterative_proportional_fitting(model, {("a",): [1, 1]}, **QUIET)
    with pytest.raises(ValueError, match="the model's tables give the states of a"):
        iterative_proportional_fitting(model, {("a",): [1, 1, 1]}, states={"a": 3}, **QUIET)
    zero = Tables({"a": (0, 1, 2)}, [Factor(("a",), np.array([1.0, 0, 1]))])
    with pytest.raises(ValueError, match=r"a=1 has probability 0\.333"):
        iterative_proportional_fitting(zero, {("a",): [1, 1, 1]}, **QUIET)


# What is read


def test_models_of_all_kinds_give_the_same():
    data = sampled(15, 300, {"a": 2, "b": 2, "c": 2, "d": 2})
    states = {v: ("s0", "s1") for v in "abcd"}
    tables = Tables(states, [Factor(s, np.ones((2, 2))) for s in LOOP])
    by_scopes = learn_log_linear(LOOP, data, **QUIET)
    assert tables_of(by_scopes.model).states == states
    logs = FactorGraph(
        dict.fromkeys("abcd", 2), [(s, np.zeros((2, 2))) for s in LOOP], states=states
    )
    for model in (tables, by_scopes.model, logs, [list(scope) for scope in LOOP]):
        fit = learn_log_linear(model, data, **QUIET)
        for one, other in zip(fit.parameters, by_scopes.parameters, strict=True):
            assert np.array_equal(one, other)
    by_graph = learn_log_linear(nx.Graph(LOOP), data, **QUIET)
    assert by_graph.log_likelihood == pytest.approx(by_scopes.log_likelihood, abs=1e-9)
    numbered = [(s, np.ones((2, 2))) for s in LOOP]  # states 0, 1
    renamed = data.replace({"s0": 0, "s1": 1}).astype(int)
    assert learn_log_linear(numbered, renamed, **QUIET).log_likelihood == by_scopes.log_likelihood


def test_cliques_come_in_the_order_of_the_nodes():
    graph = nx.Graph()
    graph.add_nodes_from(["z", (1, 2), 5, "alone", frozenset({3})])
    graph.add_edges_from([(5, "z"), ((1, 2), "z"), (5, (1, 2)), (frozenset({3}), 5)])
    assert read_scopes(graph).scopes == [("z", (1, 2), 5), (5, frozenset({3})), ("alone",)]


def test_a_network_of_pgmpy_without_tables_is_a_graph():
    from pgmpy.models import DiscreteMarkovNetwork

    data = sampled(16, 100, {"a": 2, "b": 2, "c": 2})
    fit = learn_log_linear(DiscreteMarkovNetwork([("a", "b"), ("b", "c")]), data, **QUIET)
    assert [f.variables for f in tables_of(fit.model).factors] == [("a", "b"), ("b", "c")]
    assert fit.model.check_model()


GOOD = pd.DataFrame({"a": [0, 1, 1, 0], "b": [0, 1, 0, 1], "c": [1, 1, 0, 0]})
CHAIN = [("a", "b"), ("b", "c")]


@pytest.mark.parametrize(
    ("model", "data", "options", "error", "text"),
    [
        (CHAIN, GOOD[["a", "b"]], {}, ValueError, "no column 'c'"),
        ([("a", "b")], GOOD, {}, ValueError, "no variable 'c'"),
        ([*CHAIN, ("b", "a")], GOOD, {}, ValueError, "factors 0 and 2 have the same variables"),
        ([*CHAIN, ("a", "a")], GOOD, {}, ValueError, "factor 2 names a variable twice"),
        ([*CHAIN, ()], GOOD, {}, ValueError, "factor 2 has no variables"),
        ([], GOOD, {}, ValueError, "no factors"),
        (["ab", "bc"], GOOD, {}, TypeError, "scope 0 must be a tuple"),
        ([("a", {"b": 1}), "bc"], GOOD, {}, TypeError, "cannot name a variable"),
        ("asia", GOOD, {}, TypeError, "list of scopes.*got str"),
        (nx.DiGraph(CHAIN), GOOD, {}, TypeError, "learn_parameters"),
        (nx.MultiGraph(CHAIN), GOOD, {}, TypeError, "without parallel edges"),
        (nx.Graph(), GOOD, {}, ValueError, "no factors"),
        (CHAIN, GOOD.assign(a=[0, None, 1, 0]), {}, ValueError, "a lacks 1 of 4 cells"),
        (CHAIN, GOOD, {"states": {"a": [1, 2]}}, ValueError, "no state '0' of a"),
        (CHAIN, GOOD, {"states": {"z": [1, 2]}}, ValueError, "no variable 'z'"),
        (CHAIN, [1, 2], {}, TypeError, "DataFrame"),
        (CHAIN, GOOD, {"tied": [[0, 2]]}, ValueError, "no factor 2: there are 2"),
        (CHAIN, GOOD, {"tied": [[0, 1], [1]]}, ValueError, "factor 1 is tied twice"),
        (CHAIN, GOOD, {"tied": [0, 1]}, TypeError, "list of lists"),
        (CHAIN, GOOD, {"tied": 3}, TypeError, "list of lists of factor numbers; got 3"),
        (CHAIN, GOOD, {"features": [EQUAL]}, TypeError, "features must be a mapping .*got list"),
        (CHAIN, GOOD, {"tied": [["a"]]}, TypeError, "by their numbers, 0 to 1; got 'a'"),
        ([("a", "b"), ("c",)], GOOD, {"tied": [[0, 1]]}, ValueError, r"\(2, 2\) and \(2,\)"),
        (CHAIN, GOOD, {"features": {0: np.eye(2)}}, ValueError, r"shape \(features, 2, 2\)"),
        (CHAIN, GOOD, {"features": {0: [[["x"]]]}}, TypeError, "must be an array"),
        (CHAIN, GOOD, {"features": {0: EQUAL * np.inf}}, ValueError, "not all finite"),
        (
            CHAIN,
            GOOD,
            {"features": {0: EQUAL, 1: 2 * EQUAL}, "tied": [[0, 1]]},
            ValueError,
            "features differ",
        ),
        (CHAIN, GOOD, {"method": "pseudo"}, ValueError, "did you mean pseudo_likelihood"),
        (CHAIN, GOOD, {"l2": -1.0}, ValueError, "l2 must be a finite number, at least 0"),
        (CHAIN, GOOD, {"l2": "much"}, TypeError, "l2 must be a number"),
        (CHAIN, GOOD, {"tolerance": np.nan}, ValueError, "tolerance"),
        (CHAIN, GOOD, {"max_iterations": 0}, ValueError, "max_iterations must be at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(model, data, options, error, text):
    with pytest.raises(error, match=text):
        learn_log_linear(model, data, **options, **QUIET)
    shared = {"method", "l2", "features", "tied", "max_iterations"}
    if not shared & set(options) and not isinstance(data, list):
        with pytest.raises(error, match=text):
            iterative_proportional_fitting(model, data, **options, **QUIET)


def test_tables_that_cannot_be_learned_are_refused():
    states = {"a": (0, 1), "b": (0, 1), "c": (0, 1)}
    ones = np.ones((2, 2))
    bayes = Tables({"a": (0, 1)}, [Factor(("a",), np.array([0.5, 0.5]))], directed=True)
    with pytest.raises(TypeError, match="Bayesian network"):
        learn_log_linear(bayes, GOOD[["a"]], **QUIET)
    with pytest.raises(ValueError, match=r"no factor mentions c; add the scope"):
        learn_log_linear(Tables(states, [Factor(("a", "b"), ones)]), GOOD, **QUIET)
    chain = Tables(states, [Factor(s, ones) for s in CHAIN])
    with pytest.raises(ValueError, match="no state '7' of c"):
        learn_log_linear(chain, GOOD.assign(c=[1, 7, 0, 0]), **QUIET)
    with pytest.raises(ValueError, match="tables give the states of a"):
        learn_log_linear(chain, GOOD, states={"a": 2}, **QUIET)
    upper = Factor(("b", "c"), np.array([[1.0, 0.0], [1.0, 1.0]]))
    mixed = Tables(states, [Factor(("a", "b"), ones), upper])
    possible = GOOD[~((GOOD["b"] == 0) & (GOOD["c"] == 1))]
    with pytest.raises(ValueError, match="zero in different places"):
        learn_log_linear(mixed, possible, tied=[[0, 1]], **QUIET)


@pytest.mark.parametrize("count", [40, 70])  # more than fits, and than an array has axes
@pytest.mark.parametrize("learn", [learn_log_linear, iterative_proportional_fitting])
def test_a_clique_too_large_for_a_table_is_refused(learn, count):
    data = pd.DataFrame(np.random.default_rng(0).integers(0, 2, (20, count)))
    with pytest.raises(
        MemoryError, match=rf"over 0, 1, 2, 3, \.\.\., {count} variables, would take"
    ):
        learn(nx.complete_graph(count), data, **QUIET)


# What is said


def test_a_climb_that_is_cut_short_warns():
    data = sampled(17, 300, {"a": 2, "b": 2, "c": 2, "d": 2})
    with pytest.warns(UserWarning, match=r"after 1 steps .*raise max_iterations"):
        fit = learn_log_linear(LOOP, data, max_iterations=1, **QUIET)
    assert not fit.converged and fit.iterations == 1 and fit.residual > 1e-6
    with pytest.warns(UserWarning, match="rounding of the objective"):
        learn_log_linear(LOOP, data, tolerance=0.0, **QUIET)
    with pytest.warns(UserWarning, match="after 1 sweeps"):
        iterative_proportional_fitting(LOOP, data, max_sweeps=1, **QUIET)


def test_reports():
    data = sampled(18, 300, {"a": 2, "b": 2, "c": 2, "d": 2})
    fit = learn_log_linear(LOOP, data, l2=0.5, **QUIET)
    assert str(fit).splitlines() == [
        "4 variables, 4 factors, 16 weights, 300 rows; likelihood, l2 0.5",
        f"log-likelihood {fit.log_likelihood:.6f} nats a row",
        f"converged after {fit.iterations} steps, residual {fit.residual:.2g}",
    ]
    pseudo = learn_log_linear(LOOP, data, "pseudo_likelihood", **QUIET)
    assert str(pseudo).splitlines()[1].startswith("pseudo-log-likelihood -")
    assert type(pseudo.pseudo_log_likelihood) is float and "np.float64" not in repr(pseudo)
    fitted = iterative_proportional_fitting(CHAIN, data[["a", "b", "c"]], **QUIET)
    assert "300 rows; iterative proportional fitting" in str(fitted)
    assert "converged after 1 sweep, residual" in str(fitted)
    with pytest.raises(AttributeError):
        fit.rows = 3  # type: ignore[misc]


def test_exact_marginals_hold_for_potentials_of_any_range():
    layout = Layout({"a": (0, 1), "b": (0, 1), "c": (0, 1)}, CHAIN, [np.ones((2, 2), bool)] * 2)
    logs = [np.array([[900.0, -900.0], [-np.inf, 2000.0]]), np.array([[0.0, -1100.0], [5.0, 5.0]])]
    log_z, found = ExactMarginals(layout)(logs)
    score = logs[0][:, :, None] + logs[1][None]
    top = score.max()
    joint = np.exp(score - top)
    assert log_z == pytest.approx(top + math.log(joint.sum()), abs=1e-9)
    assert found[0] == pytest.approx(joint.sum(2) / joint.sum(), abs=1e-15)
    assert found[1] == pytest.approx(joint.sum(0) / joint.sum(), abs=1e-15)


def test_a_bar_is_shown_where_it_takes_long(monkeypatch):
    """Both climbs report each step."""
    steps = []
    monkeypatch.setattr(Bar, "at", lambda self, done, note="": steps.append((self.text, done)))
    data = sampled(19, 100, {"a": 2, "b": 2, "c": 2, "d": 2})
    climbed = learn_log_linear(LOOP, data)
    fitted = iterative_proportional_fitting(LOOP, data)
    likelihoods = [done for text, done in steps if text == "likelihood"]
    sweeps = [done for text, done in steps if text == "proportional fitting"]
    assert likelihoods == list(range(1, climbed.iterations + 1))
    assert sweeps == list(range(1, fitted.iterations + 1))
