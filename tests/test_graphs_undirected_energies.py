"""Energies, the Boltzmann form, and log Z against enumeration."""

import math
import time

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

import graphs
from graphs.tables import Factor, tables_of
from graphs.undirected.energies import Energies, boltzmann, energies, energy, partition_function
from tests.networks import grid, joint_table, random_bayesian, random_factors

SEEDS = st.integers(0, 2**32 - 1)
LN2 = math.log(2)
PAIR = [("ab", [[1.0, 2.0], [0.0, 4.0]]), ("b", [0.5, 1.0])]


def nonzero(factors):
    """Factors that are zero everywhere forbid the model, and are tested apart."""
    return [(v, t if t.any() else t + 1.0) for v, t in factors]


def test_energies_by_hand():
    found = energies(PAIR)
    assert found.terms[0].variables == ("a", "b")
    assert found.terms[0].values.tolist() == [[0.0, -LN2], [math.inf, -2 * LN2]]
    assert found.terms[1].values.tolist() == [LN2, 0.0]
    assert not np.signbit(found.terms[0].values[0, 0])
    assert str(found).split("\n") == [
        "E(Y) = sum of 2 terms over 2 variables",
        "  E₁(a, b) from -1.38629 to 0, 1 of 4 infinite",
        "  E₂(b) from 0 to 0.693147",
    ]


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_there_and_back(seed):
    rng = np.random.default_rng(seed)
    tables = random_bayesian(rng) if rng.random() < 0.5 else None
    model = tables or tables_of(nonzero(random_factors(rng)))
    back = boltzmann(energies(model))
    assert back.states == model.states
    for (v, log_table), factor in zip(back.factors, model.factors, strict=True):
        assert v == factor.variables
        np.testing.assert_allclose(np.exp(log_table), factor.values, rtol=1e-15)


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_total_energy_by_brute_force(seed):
    model = tables_of(nonzero(random_factors(np.random.default_rng(seed))))
    table = joint_table(model)
    with np.errstate(divide="ignore"):
        expected = -np.log(table).ravel()
    rows = np.indices(table.shape).reshape(table.ndim, table.size).T
    np.testing.assert_allclose(energy(model, rows), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(energy(energies(model), rows), expected, rtol=1e-9, atol=1e-9)


def test_assignments_in_all_their_forms():
    states = {"a": ("no", "yes"), "b": ("low", "high")}
    tables = graphs.Tables(states, tables_of(PAIR).factors)
    expected = [LN2, -2 * LN2, math.inf]
    rows = {"b": ["low", "high", "low"], "a": ["no", "yes", "yes"]}
    for given_rows in (rows, pd.DataFrame(rows), [[0, 0], [1, 1], [1, 0]]):
        found = energy(tables, given_rows)
        assert found.shape == (3,) and found.tolist() == pytest.approx(expected)
    single = [{"a": "yes", "b": "high"}, pd.Series({"a": "yes", "b": "high"}), [1, 1], (1, 1)]
    for one in [*single, np.array([1, 1]), torch.tensor([1, 1])]:
        found = energy(tables, one)
        assert type(found) is float and found == pytest.approx(-2 * LN2)


def test_energy_of_tensors_can_be_differentiated():
    table = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    model = graphs.FactorGraph({"a": 2, "b": 2}, [("ab", table)])
    energy(model, {"a": [0, 1, 1], "b": [1, 1, 1]}).sum().backward()
    assert table.grad.tolist() == [[0.0, -1.0], [0.0, -2.0]]
    energies(model)  # numbers alone


def test_energy_of_a_batch_of_fields():
    tables = np.random.default_rng(0).normal(size=(3, 2, 2))
    fields = graphs.FactorGraph([2, 2], [((0, 1), tables)])
    assert energy(fields, [0, 1]) == pytest.approx(-tables[:, 0, 1])
    each = energy(fields, np.array([[0, 1], [1, 1], [1, 0]]))
    assert each == pytest.approx([-tables[0, 0, 1], -tables[1, 1, 1], -tables[2, 1, 0]])


def test_temperature():
    pair = energies(PAIR)
    for temperature in (0.5, 1.0, 3.0):
        found = boltzmann(pair, temperature).tables()
        table = joint_table(found) * math.exp(found.log_scale)
        np.testing.assert_allclose(table, joint_table(tables_of(PAIR)) ** (1 / temperature))
    cold = boltzmann(pair, 1e-3)  # exp(1386) has no float64: the logarithm has
    assert graphs.JunctionTree(cold).query()["a"].tolist() == pytest.approx([0.0, 1.0])
    hot = graphs.JunctionTree(boltzmann(pair, 1e9)).query().joint("a", "b")
    assert hot.numpy() == pytest.approx(np.array([[1, 1], [0, 1]]) / 3, abs=1e-8)
    listed = boltzmann([("xy", np.zeros((2, 3))), (("y",), torch.zeros(3))])
    assert listed.states == {"x": (0, 1), "y": (0, 1, 2)}


def test_a_term_without_possible_states_is_shown():
    barred = Energies({"a": (0, 1)}, (Factor(("a",), np.full(2, math.inf)),))
    assert str(barred).splitlines()[1] == "  E₁(a) 2 of 2 infinite"
    assert "from 0 to 1, 1 of 3 infinite" in str(
        Energies({"a": (0, 1, 2)}, (Factor(("a",), np.array([0.0, 1.0, math.inf])),))
    )


def test_a_temperature_close_to_zero_forbids_nothing():
    scores = boltzmann([("a", [0.0, 5.0])], 1e-300).score(np.array([[0], [1]]))
    assert scores[0] == 0 and scores[1] == pytest.approx(-5e300)


def test_energies_have_a_partition_function():
    pair = energies(PAIR)
    for method in ("exact", "bethe"):
        expected = math.log(sum(np.exp(-energy(PAIR, [i, j])) for i in range(2) for j in range(2)))
        assert partition_function(pair, method).log_z == pytest.approx(expected, abs=1e-9)


def test_mistakes_are_named():
    pair = energies(PAIR)
    for bad in (0, -1.0, math.inf, math.nan, "hot"):
        with pytest.raises(ValueError, match="temperature must be positive and finite; got"):
            boltzmann(pair, bad)
    for bad in (math.nan, -math.inf):
        with pytest.raises(ValueError, match="term 0 over a has an energy that is NaN or -inf"):
            boltzmann([("a", [0.0, bad])])
    with pytest.raises(ValueError, match="forbids every configuration"):
        boltzmann([("a", [math.inf, math.inf])])
    with pytest.raises(ValueError, match="needs a log-table of shape"):
        boltzmann([("a", [0.0, 1.0]), ("a", [0.0, 1.0, 2.0])])
    with pytest.raises(ValueError, match="term 0 over a, b needs one axis a variable"):
        boltzmann([("ab", [0.0, 1.0])])
    with pytest.raises(TypeError, match=r"term 0 must be a pair \(variables, energies\); got int"):
        boltzmann([3])
    for bad in (3, "ab", graphs.FactorGraph([2], [((0,), np.zeros(2))])):
        with pytest.raises(TypeError, match=r"list of pairs .*graphs\.energies gives the energies"):
            boltzmann(bad)
    with pytest.raises(TypeError, match="energies of term 0 over a must be an array of numbers"):
        boltzmann([("a", ["x", "y"])])
    with pytest.raises(ValueError, match=r"1e-308 is too small: E / T overflows, .* up to 5"):
        boltzmann([("a", [0.0, -5.0])], 1e-308)
    with pytest.raises(ValueError, match="missing here: b"):
        energy(PAIR, {"a": 0})
    with pytest.raises(ValueError, match="unobserved here: a"):
        energy(PAIR, {"a": None, "b": 1})
    with pytest.raises(ValueError, match="no state '5' of a"):
        energy(PAIR, {"a": 5, "b": 1})
    with pytest.raises(ValueError, match="no variable 'c'"):
        energy(PAIR, {"a": 0, "b": 1, "c": 0})
    with pytest.raises(ValueError, match="got float64 of shape"):
        energy(PAIR, np.zeros(2))
    with pytest.raises(ValueError, match="state index outside"):
        energy(PAIR, [0, 2])
    with pytest.raises(TypeError, match="evidence must be a dict"):
        energy(PAIR, "ab")
    for bad in (-1.0, math.nan):
        with pytest.raises(ValueError, match="negative or not finite"):
            energies([("a", [1.0, bad])])
    with pytest.raises(ValueError, match="batch of 2 fields"):
        energies(graphs.FactorGraph([2], [((0,), np.zeros((2, 2)))]))
    one = graphs.FactorGraph([2], [((0,), np.zeros((1, 2)))])
    assert energies(one).terms[0].values.shape == (2,)
    assert isinstance(energies(one), Energies)


# log Z


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_exact_partition_by_enumeration(seed):
    model = tables_of(nonzero(random_factors(np.random.default_rng(seed))))
    total = joint_table(model).sum()
    if total == 0:
        with pytest.raises(ValueError, match="no assignment is possible"):
            partition_function(model)
        return
    found = partition_function(model)
    assert found.method == "exact" and found.converged is None and found.refused is None
    assert found.log_z == pytest.approx(math.log(total), abs=1e-9)


def test_partition_of_a_factor_graph_keeps_its_scale():
    model = graphs.FactorGraph([2, 2], [((0, 1), np.full((2, 2), 2000.0)), ((), np.array(5.0))])
    assert partition_function(model).log_z == pytest.approx(2005 + 2 * LN2, rel=1e-15)


def test_partition_of_a_bayesian_network_is_one():
    found = partition_function(graphs.load("asia"))
    assert found.log_z == pytest.approx(0, abs=1e-12)
    assert str(found).endswith(f"nats, exact ({found.cost})")


def test_bethe_is_exact_on_trees():
    rng = np.random.default_rng(0)
    tree = [((i, i // 2), rng.random((3, 3))) for i in range(1, 12)]
    found, exact = partition_function(tree, "bethe"), partition_function(tree, "exact")
    assert found.method == "bethe" and found.converged and found.iterations > 0
    assert found.log_z == pytest.approx(exact.log_z, abs=1e-9)
    assert found.cost is None and "Bethe approximation (belief propagation converged in" in str(
        found
    )


def test_bethe_on_a_cycle_is_an_approximation():
    model = grid(2, 2, np.random.default_rng(1))
    exact, bethe = partition_function(model), partition_function(model, "bethe")
    assert exact.log_z == pytest.approx(math.log(joint_table(tables_of(model)).sum()), abs=1e-12)
    assert 1e-6 < abs(bethe.log_z - exact.log_z) < 0.1


def test_what_does_not_fit_falls_back_and_says_so():
    rng = np.random.default_rng(2)  # a list of factors, 4 states: the search for a tree finds out
    edges = [scope for scope, _ in grid(21, 21, rng)]
    model = [(scope, rng.random((4, 4)) + 0.5) for scope in edges]
    found = partition_function(model)
    assert found.method == "bethe" and found.converged
    assert found.cost.at_least
    assert found.refused.startswith("exact inference would need more than")
    assert "the exact value was refused: exact inference would need" in str(found)
    needs = "exact inference would need more than .*method='bethe' approximates log Z"
    with pytest.raises(MemoryError, match=needs):
        partition_function(model, "exact")
    with pytest.raises(ValueError, match="method must be 'exact', 'bethe' or None; got 'best'"):
        partition_function(model, "best")


def test_a_large_grid_is_refused_without_a_search():
    """The 3 x 3 grid is summed; of 200 x 300 the shorter side says enough."""
    rng = np.random.default_rng(3)
    small = graphs.FactorGraph.grid(rng.normal(size=(3, 3, 2)), rng.normal(size=(2, 2)))
    rows = np.indices((2,) * 9).reshape(9, -1).T
    expected = logsumexp(-energy(small, rows))
    assert partition_function(small, "exact").log_z == pytest.approx(expected, abs=1e-12)
    large = graphs.FactorGraph.grid(np.zeros((200, 300, 2)), np.zeros((2, 2)))
    started = time.perf_counter()
    with pytest.raises(MemoryError, match="treewidth of its shorter side, 200"):
        partition_function(large, "exact")
    assert time.perf_counter() - started < 2
    wide = graphs.FactorGraph.grid(np.zeros((2, 400, 2)), np.zeros((2, 2)))
    assert partition_function(wide, "exact").log_z == pytest.approx(800 * LN2, rel=1e-12)
