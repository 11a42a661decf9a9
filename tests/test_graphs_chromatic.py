"""Gibbs sampling of factor graphs against brute force: conditionals, colours, starts, estimates."""

import itertools
import math

import networkx as nx
import numpy as np
import pytest
import torch

import graphs
from graphs.factor_graph import FactorGraph
from graphs.messages.blocks import add_to, blocks, colouring, joining
from graphs.messages.chromatic import Chains
from graphs.monte_carlo import _r_hat

NAMES = ("a", 7, (2, "x"), "d", frozenset({1}), 3.5)


def random_graph(seed, count=5, factors=8, arity=3, cards=5, strength=0.7):
    rng = np.random.default_rng(seed)
    sizes = {v: int(rng.integers(2, cards + 1)) for v in NAMES[:count]}
    found = []
    for _ in range(factors):
        scope = [NAMES[i] for i in rng.permutation(count)[: rng.integers(1, arity + 1)]]
        found.append((scope, strength * rng.normal(size=[sizes[v] for v in scope])))
    return FactorGraph(sizes, found)


def ising(height, width, coupling, field=0.0):
    pair = coupling * np.array([[1.0, -1.0], [-1.0, 1.0]])
    return FactorGraph.grid(np.full((height, width, 2), [-field, field]), pair)


def marginals(graph, evidence=None):
    """By scoring every assignment: {variable: marginal}."""
    rows = np.array(list(itertools.product(*map(range, graph.sizes))))
    for variable, state in (evidence or {}).items():
        rows = rows[rows[:, graph.positions[variable]] == state]
    scores = graph.score(rows)
    p = np.exp(scores - scores.max())
    p /= p.sum()
    return {v: np.bincount(rows[:, i], p, graph.sizes[i]) for v, i in graph.positions.items()}


def markov(graph):
    """The graph that joins the variables of each factor."""
    found = nx.Graph()
    found.add_nodes_from(range(len(graph.variables)))
    for group in graph.groups:
        for scope in group.scopes.tolist():
            found.add_edges_from(itertools.combinations(scope, 2))
    return found


# Colours and blocks


@pytest.mark.parametrize("seed", range(20))
def test_no_two_variables_of_a_colour_share_a_factor(seed):
    rng = np.random.default_rng(seed)
    graph = random_graph(seed, count=6, factors=7, arity=1 + seed % 4)
    free = rng.random(6) < 0.8
    colours = colouring(graph, free)
    assert ((colours == -1) == ~free).all()
    near = markov(graph).subgraph(np.flatnonzero(free).tolist())
    assert all(colours[a] != colours[b] for a, b in near.edges)
    assert colours.max(initial=-1) <= max(dict(near.degree).values(), default=-1)


@pytest.mark.parametrize(
    "shape",
    [nx.path_graph(9), nx.cycle_graph(8), nx.balanced_tree(3, 3), nx.complete_bipartite_graph(4, 5),
     nx.grid_2d_graph(4, 5), nx.disjoint_union(nx.cycle_graph(6), nx.path_graph(3)),
     nx.hypercube_graph(4)],
    ids=str,
)  # fmt: skip
def test_bipartite_graphs_take_two_colours(shape):
    order = np.random.default_rng(1).permutation(len(shape))
    nodes = [list(shape)[i] for i in order]
    pair = np.zeros((2, 2))
    graph = FactorGraph(dict.fromkeys(nodes, 2), [((a, b), pair) for a, b in shape.edges])
    colours = colouring(graph, np.ones(len(nodes), bool))
    assert set(colours.tolist()) == {0, 1}
    assert all(colours[graph.positions[a]] != colours[graph.positions[b]] for a, b in shape.edges)


def test_a_grid_is_coloured_by_parity():
    colours = colouring(ising(3, 4, 0.2), np.ones(12, bool)).reshape(3, 4)
    np.testing.assert_array_equal(colours, np.indices((3, 4)).sum(0) % 2)


@pytest.mark.parametrize("seed", range(8))
def test_every_factor_of_a_free_variable_is_in_one_term(seed):
    graph = random_graph(seed, factors=12)
    free = np.array([True, True, False, True, True])
    seen = []
    for block in blocks(graph, free):
        assert (graph.sizes[block.variables] == block.size).all()
        for term in block.terms:
            scopes = joining(graph)[term.group].scopes[term.factors]
            np.testing.assert_array_equal(
                scopes[:, term.axis], block.variables[term.members], strict=True
            )
            assert (np.diff(term.members) >= 0).all()
            assert term.alone == (len(set(term.members)) == len(term.members))
            seen += [(term.group, term.axis, factor) for factor in term.factors.tolist()]
    wanted = [
        (number, axis, factor)
        for number, group in enumerate(joining(graph))
        for axis in range(len(group.shape))
        for factor in range(len(group.scopes))
        if free[group.scopes[factor, axis]]
    ]
    assert sorted(seen) == sorted(wanted)


@pytest.mark.parametrize("tensors", [False, True])
def test_sums_at_members(tensors):
    rng = np.random.default_rng(0)
    graph = FactorGraph([2, 2, 2, 2], [((0, i), np.zeros((2, 2))) for i in (1, 2, 3)])
    found = blocks(graph, np.ones(4, bool))
    terms = [term for block in found for term in block.terms]
    assert sorted(term.alone for term in terms) == [False, True]
    for block in found:
        for term in block.terms:
            totals = rng.random((2, len(block.variables), 3))
            values = rng.random((2, len(term.members), 3))
            expected = totals.copy()
            for i, member in enumerate(term.members):
                expected[:, member] += values[:, i]
            if tensors:
                totals, values = torch.as_tensor(totals), torch.as_tensor(values)
                term = term._replace(members=torch.as_tensor(term.members))
            add_to(totals, term, values)
            np.testing.assert_allclose(np.asarray(totals), expected, rtol=1e-14)


# What a sweep draws from


def conditionals(chains):
    """For each free variable the logits from which its next state is drawn: (K, chains)."""
    found = {}
    for block, readings in zip(chains.blocks, chains._readings, strict=True):
        totals = chains._totals(block)
        for reading in readings:
            add_to(totals, reading.term, chains._said(reading, chains._rows))
        found |= {int(v): totals[:, i] for i, v in enumerate(block.variables)}
    return found


MODELS = {
    "pairs": random_graph(0, arity=2),
    "threes": random_graph(1, arity=3, factors=11),
    "fours": random_graph(2, arity=4, cards=3),
    "shared tables": ising(3, 4, 0.4, 0.1),
    "own tables": FactorGraph.grid(
        np.random.default_rng(5).normal(size=(4, 3, 3)),
        (
            np.random.default_rng(6).normal(size=(3, 3, 3, 3)),
            np.random.default_rng(7).normal(size=(4, 2, 3, 3)),
        ),
    ),
    "tensors": random_graph(3).to(dtype=torch.float64),
    "batch of one": FactorGraph([2, 3], [((0, 1), np.arange(6.0).reshape(1, 2, 3))]),
    "island": FactorGraph([2, 3, 1], [((2, 0), np.array([[0.3, -1]]))]),
}


@pytest.mark.parametrize("name", MODELS)
def test_conditionals_are_differences_of_scores(name):
    graph = MODELS[name]
    chains = Chains(graph, np.full(len(graph.sizes), -1), 7, np.random.default_rng(0))
    chains.sweep()
    rows = chains.state.T.astype(int)  # (chains, V)
    found = conditionals(chains)
    assert set(found) == set(np.flatnonzero(graph.sizes > 1).tolist())
    for variable, logits in found.items():
        for k in range(graph.sizes[variable]):
            moved = rows.copy()
            moved[:, variable] = k
            first = rows.copy()
            first[:, variable] = 0
            one = graph if graph.batch is None else graph.field(0)
            step = np.asarray(one.score(moved) - one.score(first))
            np.testing.assert_allclose(logits[k] - logits[0], step, atol=1e-12)


def test_draws_follow_the_conditional():
    """With all but one variable observed each sweep is an independent draw."""
    graph = random_graph(4, count=4, factors=9)
    variable = NAMES[0]
    held = {v: int(graph.sizes[i]) - 1 for v, i in graph.positions.items() if v != variable}
    found = graphs.gibbs(graph, held, n=500, chains=200, seed=1)
    exact = marginals(graph, held)[variable]
    assert list(found.states) == [variable]
    assert (abs(found[variable] - exact) < 4 * found.error(variable)).all()
    independent = np.sqrt(exact * (1 - exact) / found.draws)
    assert found.error(variable) == pytest.approx(independent, rel=0.25)


# Estimates


CASES = [(seed, arity, seen) for seed, arity in enumerate((2, 3, 3, 4)) for seen in (False, True)]


@pytest.mark.parametrize(("seed", "arity", "seen"), CASES)
def test_estimates_lie_within_four_errors_of_the_truth(seed, arity, seen):
    graph = random_graph(seed + 10, arity=arity, strength=0.5)
    evidence = {NAMES[1]: 1, NAMES[3]: 0} if seen else {}
    found = graphs.gibbs(graph, evidence, n=600, chains=64, seed=seed)
    exact = marginals(graph, evidence)
    assert set(found.states) == set(graph.variables) - set(evidence)
    for variable in found.states:
        error = found.error(variable)
        assert (error > 0).all() and (error < 0.02).all()
        assert (abs(found[variable] - exact[variable]) < 4 * error).all(), variable
        assert found[variable].sum() == pytest.approx(1)
    assert max(found.r_hat.values()) < 1.02
    assert 1000 < found.effective_samples < found.draws * 2
    assert found.log_evidence is None


def test_the_errors_are_calibrated():
    graph = random_graph(3, count=4, factors=7)
    exact = marginals(graph)["d"]
    scores = []
    for seed in range(120):
        found = graphs.gibbs(graph, n=30, chains=24, burn_in=10, seed=seed)
        scores.append((found["d"][1] - exact[1]) / found.error("d")[1])
    assert 0.65 < np.var(scores) < 1.5
    assert abs(np.mean(scores)) < 4 / math.sqrt(120)


@pytest.mark.parametrize("sweeps", [4, 5, 11])
def test_counts_say_what_stored_states_say(sweeps):
    graph = random_graph(6)
    found = graphs.gibbs(graph, n=sweeps, chains=6, burn_in=3, seed=9)
    chains = Chains(graph, np.full(5, -1), 6, np.random.default_rng(9))
    history = []
    for sweep in range(-3, sweeps):
        chains.sweep()
        if sweep >= 0:
            history.append(chains.state.copy())
    history = np.array(history)  # (sweeps, V, chains)
    half = sweeps // 2
    for variable, i in graph.positions.items():
        each = range(graph.sizes[i])
        means = np.stack([(history[:, i] == k).mean(0) for k in each])
        ends = np.concatenate([history[:half, i], history[-half:, i]], 1)  # (half, 2 chains)
        halves = np.stack([(ends == k).mean(0) for k in each])
        np.testing.assert_allclose(found[variable], means.mean(1), atol=1e-14)
        np.testing.assert_allclose(
            found.error(variable), means.std(1, ddof=1) / math.sqrt(6), atol=1e-14
        )
        assert found.r_hat[variable] == pytest.approx(float(_r_hat(halves, half)), rel=1e-12)


def test_energy_of_a_large_field_without_phase_transition():
    """The mean of x_i x_j over the edges of a 64 x 64 Ising model with free borders.

    Far from the critical point log Z(L) = a L^2 + b L + c up to terms that fall exponentially, so
    three exact small squares tell the large one, and the mean energy is its derivative.
    """
    coupling, step = 0.2, 1e-3
    sides = np.array([7, 8, 9])

    def log_z(value):
        exact = [graphs.JunctionTree(ising(n, n, value)).log_partition for n in sides]
        return np.polyval(np.polyfit(sides, exact, 2), 64)

    edges = 2 * 64 * 63
    expected = (log_z(coupling + step) - log_z(coupling - step)) / (2 * step) / edges
    # Onsager's bulk value, -u / 2J, is near: borders are a part in 64
    assert expected == pytest.approx(0.2137, abs=0.01)
    graph = ising(64, 64, coupling)
    chains = Chains(graph, np.full(64 * 64, -1), 16, np.random.default_rng(2))
    energies = []
    for sweep in range(60):
        chains.sweep()
        if sweep >= 20:
            spins = 2.0 * chains.state.reshape(64, 64, 16) - 1
            down, right = spins[1:] * spins[:-1], spins[:, 1:] * spins[:, :-1]
            energies.append((down.sum((0, 1)) + right.sum((0, 1))) / edges)
    means = np.mean(energies, 0)
    error = means.std(ddof=1) / 4
    assert error < 1e-3
    assert means.mean() == pytest.approx(expected, abs=4 * error)


def test_targets_and_evidence():
    graph = random_graph(7)
    found = graphs.gibbs(graph, {"a": 1, 7: None}, n=50, targets=["d", "a"])
    assert list(found.states) == ["a", "d"]
    assert found["a"][1] == 1 and (found.error("a") == 0).all()
    assert found.r_hat["a"] == 1
    assert list(graphs.gibbs(graph, n=4, targets="a").states) == ["a"]
    again = graphs.gibbs(graph, {"a": 1, 7: None}, n=50, targets=["d"])
    np.testing.assert_array_equal(again["d"], found["d"])
    other = graphs.gibbs(graph, {"a": 1, 7: None}, n=50, targets=["d"], seed=1)
    assert (other["d"] != found["d"]).any()


def test_models_of_other_forms():
    linear = [(("a", "b"), np.array([[2.0, 1], [1, 3]])), (("b",), np.array([0.4, 0.6]))]
    whole = graphs.gibbs(FactorGraph.of(linear), n=50, seed=3)
    for model in (linear, graphs.tables_of(linear), FactorGraph.of(linear).to(dtype=torch.float64)):
        assert str(graphs.gibbs(model, n=50, seed=3)) == str(whole)
    exact = np.array([2 * 0.4 + 0.6, 0.4 + 3 * 0.6]) / 3.6
    assert (abs(whole["a"] - exact) < 4 * whole.error("a")).all()


@pytest.mark.filterwarnings("ignore:.pgmpy.estimators.StructureScore:FutureWarning")
def test_a_markov_network_of_pgmpy():
    from pgmpy.factors.discrete import DiscreteFactor
    from pgmpy.models import DiscreteMarkovNetwork

    model = DiscreteMarkovNetwork([("a", "b"), ("b", "c")])
    model.add_factors(
        DiscreteFactor(["a", "b"], [2, 3], np.arange(1.0, 7)),
        DiscreteFactor(["b", "c"], [3, 2], [3.0, 1, 1, 1, 1, 5]),
    )
    found = graphs.gibbs(model, {"c": 1}, n=300, seed=1)
    exact = graphs.JunctionTree(model).query({"c": 1})
    assert set(found.states) == {"a", "b"}
    for variable in ("a", "b"):
        assert (abs(found[variable] - exact[variable].numpy()) < 4 * found.error(variable)).all()


def test_graphs_without_factors():
    found = graphs.gibbs(FactorGraph([3, 1], []), n=300, chains=100)
    assert (abs(found[0] - 1 / 3) < 4 * found.error(0)).all()
    assert found[1].tolist() == [1]
    assert graphs.gibbs(FactorGraph([], [((), np.array(2.0))]), n=4).states == {}


# Hard constraints


def colours_of_a_map(size, states):
    """Proper colourings of a grid."""
    differ = np.where(np.eye(states, dtype=bool), -np.inf, 0.0)
    return FactorGraph.grid(np.zeros((size, size, states)), differ)


def test_starts_are_repaired_and_states_stay_possible():
    graph = colours_of_a_map(8, 3)
    chains = Chains(graph, np.full(64, -1), 20, np.random.default_rng(0))
    for _ in range(10):
        assert np.isfinite(graph.score(chains.state.T.astype(int))).all()
        before = chains.state.copy()
        chains.sweep()
        assert (before != chains.state).mean() > 0.05


def test_estimates_with_zeros():
    """x + y + z is even, with weights; a fourth variable moves freely."""
    table = np.where(np.indices((3, 3, 3)).sum(0) % 2 == 0, 0.0, -np.inf)
    pull = np.random.default_rng(3).normal(size=(3, 2))
    graph = FactorGraph([3, 3, 3, 2], [((0, 1, 2), table), ((1, 3), pull)])
    with pytest.warns(UserWarning, match="as those like that over 0, 1, 2 do: a Gibbs chain may"):
        found = graphs.gibbs(graph, {0: 1}, n=400, chains=128)
    # y and z have opposite parity, and a chain changes one at a time: it stays as it began
    assert found.r_hat[1] > 1.5
    with pytest.warns(UserWarning, match="zeros"):
        held = graphs.gibbs(graph, {0: 1, 1: 2}, n=400, chains=128)
    exact = marginals(graph, {0: 1, 1: 2})
    for variable in (2, 3):
        assert (abs(held[variable] - exact[variable]) <= 4 * held.error(variable)).all()
    assert held[2].tolist() == [0, 1, 0]


def test_unary_zeros_are_no_trap():
    graph = FactorGraph(
        [3, 2], [((0,), np.array([0.3, -np.inf, 1.0])), ((0, 1), np.arange(6.0).reshape(3, 2) / 4)]
    )
    found = graphs.gibbs(graph, n=300)  # and no warning
    exact = marginals(graph)
    for variable in (0, 1):
        assert (abs(found[variable] - exact[variable]) <= 4 * found.error(variable)).all()
    assert found[0][1] == 0


def test_what_cannot_start():
    with pytest.raises(
        ValueError, match=r"no state of positive probability was found by 64 chains"
    ):
        graphs.gibbs(colours_of_a_map(2, 2), {(0, 0): 0, (1, 1): 1})
    with pytest.raises(ValueError, match="the factors over 0 alone forbid all its states"):
        graphs.gibbs(FactorGraph([2], [((0,), [0, -np.inf]), ((0,), [-np.inf, 0])]))
    with pytest.raises(ValueError, match="the factors over 0 alone forbid the state observed"):
        graphs.gibbs(FactorGraph([2, 2], [((0,), [0, -np.inf])]), {0: 1})


def test_refuses():
    graph = random_graph(0)
    with pytest.raises(ValueError, match="one row of evidence at a time; got 2 rows"):
        graphs.gibbs(graph, {"a": [0, 1]})
    with pytest.raises(ValueError, match="no variable 'aa'; did you mean a"):
        graphs.gibbs(graph, targets=["aa"])
    with pytest.raises(ValueError, match="no state '9' of a"):
        graphs.gibbs(graph, {"a": 9})
    with pytest.raises(ValueError, match=r"one field at a time; got a batch of 3: take field\(i\)"):
        graphs.gibbs(FactorGraph([2], [((0,), np.zeros((3, 2)))]))
    with pytest.raises(ValueError, match="chains must be at least 2; got 1"):
        graphs.gibbs(graph, chains=1)
    with pytest.raises(TypeError, match="expected a pgmpy"):
        graphs.gibbs(3)
