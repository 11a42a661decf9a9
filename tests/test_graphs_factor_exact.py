"""Exact inference in factor graphs: log-tables of any size, against sums over all assignments."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import graphs
from graphs.factor_graph import FactorGraph
from tests.networks import quietly


def random_graph(seed, magnitude, forbidden=0.25, constant=True) -> FactorGraph:
    """Five variables, the last one without a factor; entries of either sign, -inf among them."""
    rng = np.random.default_rng(seed)
    sizes = [int(k) for k in rng.integers(1, 4, 5)]
    factors = [((), np.array(rng.normal() * magnitude))] if constant else []
    for _ in range(6):
        scope = tuple(int(v) for v in rng.permutation(4)[: rng.integers(1, 4)])
        table = rng.normal(size=[sizes[v] for v in scope]) * magnitude
        table[rng.random(table.shape) < forbidden] = -np.inf
        table.flat[0] = rng.normal() * magnitude  # all variables in state 0 stay possible
        factors.append((scope, table))
    return FactorGraph(sizes, factors)


class Enumerated:
    """All assignments with their scores, under evidence and log-likelihoods by variable."""

    def __init__(self, graph, evidence=None, log_weights=None) -> None:
        self.sizes = list(graph.cardinalities.values())
        self.x = np.array([*product(*map(range, self.sizes))])
        self.scores = np.asarray(graph.score(self.x), dtype=np.float64)
        for v, state in (evidence or {}).items():
            self.scores = np.where(self.x[:, v] == state, self.scores, -np.inf)
        for v, weights in (log_weights or {}).items():
            self.scores = self.scores + np.asarray(weights)[self.x[:, v]]
        top = self.scores.max()
        self.log_z = -np.inf
        if top > -np.inf:
            self.log_z = top + np.log(np.exp(self.scores - top).sum())
            self.p = np.exp(self.scores - self.log_z)

    def marginal(self, v) -> np.ndarray:
        return np.bincount(self.x[:, v], self.p, self.sizes[v])


def near(found, wanted, magnitude) -> bool:
    return abs(float(found) - wanted) <= 1e-13 * max(1.0, magnitude * 10)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1.0, 1e2, 1e4]))
def test_answers_are_those_of_enumeration(seed, magnitude):
    graph = random_graph(seed, magnitude)
    engine, exact = graphs.JunctionTree(graph), Enumerated(graph)
    assert near(engine.log_partition, exact.log_z, magnitude)
    posterior = engine.query()
    assert near(posterior.log_evidence, exact.log_z, magnitude)
    for v in graph.variables:
        np.testing.assert_allclose(posterior[v], exact.marginal(v), atol=1e-14 * magnitude + 1e-13)
    joint = posterior.joint(2, 0).numpy()
    wanted = np.zeros((exact.sizes[2], exact.sizes[0]))
    np.add.at(wanted, (exact.x[:, 2], exact.x[:, 0]), exact.p)
    np.testing.assert_allclose(joint, wanted, atol=1e-14 * magnitude + 1e-13)
    best = engine.mpe()
    assert near(best.log_probability, exact.scores.max(), magnitude)
    assert near(graph.score(best.assignment), exact.scores.max(), magnitude)


@pytest.mark.parametrize("magnitude", [1.0, 1e4])
@pytest.mark.parametrize("seed", range(8))
def test_evidence_likelihoods_and_rows(seed, magnitude):
    graph = random_graph(seed, magnitude)
    engine = graphs.JunctionTree(graph)
    evidence = {0: 0, 4: 0}
    weights = np.linspace(0.5, 2.0, graph.cardinalities[1])
    exact = Enumerated(graph, evidence, {1: np.log(weights)})
    found = engine.query(evidence, likelihoods={1: weights})
    assert near(found.log_evidence, exact.log_z, magnitude)
    np.testing.assert_allclose(found[2], exact.marginal(2), atol=1e-14 * magnitude + 1e-13)
    best = engine.mpe(evidence, likelihoods={1: weights})
    assert near(best.log_probability, exact.scores.max(), magnitude)
    states = np.arange(graph.cardinalities[2])
    rows = engine.query({2: states})
    bests = engine.mpe({2: states})
    for i in states:
        one = Enumerated(graph, {2: i})
        if one.log_z == -np.inf:
            assert rows.log_evidences()[i] == bests.log_probability[i] == -np.inf
            assert not rows.possible[i] and bests.assignment[0][i] is None
            continue
        assert near(rows.log_evidences()[i], one.log_z, magnitude)
        assert near(bests.log_probability[i], one.scores.max(), magnitude)
        np.testing.assert_allclose(rows[0][i], one.marginal(0), atol=1e-14 * magnitude + 1e-13)


def test_draws_follow_the_law():
    graph = random_graph(1, 1.0)
    exact, n = Enumerated(graph), 20_000
    drawn = graphs.JunctionTree(graph).sample(n, seed=0)
    for v in graph.variables:
        shares = np.bincount(drawn[v].astype(int), minlength=exact.sizes[v]) / n
        np.testing.assert_allclose(shares, exact.marginal(v), atol=4 * 0.5 / n**0.5)
    steep = graphs.JunctionTree(random_graph(2, 1e4)).sample(5, seed=0)
    best = graphs.JunctionTree(random_graph(2, 1e4)).mpe()
    assert all((steep[v] == best.assignment[v]).all() for v in range(4))


def test_what_is_unlikely_by_thousands_of_nats_is_not_impossible():
    """Either factor alone forbids in float64 what the other demands."""
    first, second = np.array([0.0, -9e3]), np.array([-np.inf, 5.0])
    graph = FactorGraph([2, 2], [((0,), first), ((0,), second)])
    engine = graphs.JunctionTree(graph)
    assert engine.log_partition == pytest.approx(-9e3 + 5.0 + np.log(2.0), abs=1e-9)
    assert engine.query()[0].tolist() == [0.0, 1.0]
    assert engine.mpe().log_probability == pytest.approx(-8995.0, abs=1e-9)
    with pytest.raises(ValueError, match="0=0 has probability zero"):
        engine.query({0: 0})
    nothing = FactorGraph([2], [((0,), np.array([0.0, -np.inf])), ((0,), np.array([-np.inf, 0.0]))])
    with pytest.raises(ValueError, match="no assignment is possible"):
        graphs.JunctionTree(nothing).mpe()


def test_variables_without_a_factor():
    engine = graphs.JunctionTree(FactorGraph({"a": 2, "b": 5}, []))
    assert engine.log_partition == pytest.approx(np.log(10.0))
    np.testing.assert_allclose(engine.query()["b"], np.full(5, 0.2))
    assert engine.query({"b": 3}).log_evidence == pytest.approx(np.log(2.0))
    assert engine.mpe().log_probability == 0.0 and len(engine.sample(3)) == 3


def test_tables_in_place_of_others_keep_the_scale():
    graph = random_graph(3, 10.0)
    engine = graphs.JunctionTree(graph)
    plain = engine.log_partition
    same = {0: torch.tensor(engine.tables.factors[0].values)}
    assert float(engine.query(tables=same).log_evidence) == pytest.approx(plain, abs=1e-11)
    doubled = engine.query(tables={0: 2.0 * same[0]}).log_evidence
    assert float(doubled) == pytest.approx(plain + np.log(2.0), abs=1e-11)


@pytest.mark.parametrize("magnitude", [1.0, 300.0])
def test_gradients_reach_the_log_tables(magnitude):
    """d log Z / d log psi(x) is the marginal of the factor's scope, and 1 for a constant."""
    graph = random_graph(4, magnitude, forbidden=0.0)
    tables = [torch.tensor(t, requires_grad=True) for _, t in graph.factors]
    scopes = [scope for scope, _ in graph.factors]
    learned = FactorGraph(list(graph.cardinalities.values()), zip(scopes, tables, strict=True))
    log_z = graphs.JunctionTree(learned).query().log_evidence
    exact = Enumerated(graph)
    assert near(log_z.detach(), exact.log_z, magnitude)
    log_z.backward()
    for scope, table in zip(scopes, tables, strict=True):
        wanted = np.zeros(table.shape) if scope else np.ones(())
        if scope:
            np.add.at(wanted, tuple(exact.x[:, v] for v in scope), exact.p)
        np.testing.assert_allclose(table.grad, wanted, atol=1e-12 * magnitude)
    constant = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    only = FactorGraph([2], [((), constant), ((0,), np.zeros(2))])
    value = graphs.JunctionTree(only).query().log_evidence
    assert float(value.detach()) == pytest.approx(3.0 + np.log(2.0))
    value.backward()
    assert float(constant.grad) == 1.0


def test_batches_are_refused_but_for_one_of_them():
    batch = FactorGraph.grid(np.random.default_rng(0).normal(size=(3, 2, 2, 2)), np.eye(2))
    with pytest.raises(ValueError, match=r"a batch of 3 fields; take one of them: field\(i\)"):
        graphs.JunctionTree(batch)
    for i in range(3):
        one = batch.field(i)
        assert graphs.JunctionTree(one).log_partition == pytest.approx(Enumerated(one).log_z)
    single = FactorGraph.grid(np.zeros((1, 2, 2, 2)), np.eye(2))
    assert graphs.JunctionTree(single).log_partition == pytest.approx(
        graphs.JunctionTree(single.field(0)).log_partition
    )


def test_the_graph_of_a_network_has_its_answers():
    tables = quietly(graphs.read, "asia")
    one, other = graphs.JunctionTree(tables), graphs.JunctionTree(FactorGraph.of(tables))
    evidence = {"xray": "yes", "smoke": "no"}
    a, b = one.query(evidence), other.query(evidence)
    assert float(a.log_evidence) == pytest.approx(float(b.log_evidence), abs=1e-13)
    for v in tables.states:
        np.testing.assert_allclose(a[v], b[v], atol=1e-13)
    assert one.mpe(evidence).log_probability == pytest.approx(other.mpe(evidence).log_probability)
