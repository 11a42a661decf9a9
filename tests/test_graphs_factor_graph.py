"""Factor graphs: the factors as they were given, scores by hand, and what their structure is."""

import math
import re
from itertools import product

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import graphs
from graphs.factor_graph import FactorGraph
from graphs.factor_groups import FactorNode
from graphs.io import bayesian_network, markov_network
from graphs.tables import Tables, tables_of
from tests.networks import NAMES, quietly, random_bayesian, random_factors


@st.composite
def described(draw, batches=True):
    """Cardinalities, the factors as pairs, and the length of the batch or None."""
    count = draw(st.integers(0, 5))
    sizes = {v: draw(st.integers(1, 3)) for v in NAMES[:count]}
    batch = draw(st.sampled_from([None, None, 1, 3])) if batches else None
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    factors, several = [], False
    for _ in range(draw(st.integers(0, 6))):
        scope = draw(st.lists(st.sampled_from(NAMES[:count]), max_size=3, unique=True)
                     if count else st.just([]))  # fmt: skip
        shape = [sizes[v] for v in scope]
        mine = batch is not None and draw(st.booleans())
        several = several or mine
        table = rng.normal(size=[batch, *shape] if mine else shape)
        if scope and draw(st.booleans()):  # forbidden configurations, never all
            table = np.where(rng.random(table.shape) < 0.3, -np.inf, table)
            table[(..., *(0,) * len(scope))] = 0.5
        factors.append((tuple(scope), table))
    return sizes, factors, batch if several else None


def score_by_hand(sizes, factors, batch, x) -> np.ndarray:
    """(n,) or (B, n): the sum of the entries at each row of state indices."""
    at = {v: x[:, i] for i, v in enumerate(sizes)}
    total = np.zeros((len(x),) if batch is None else (batch, len(x)))
    for scope, table in factors:
        total = total + table[(..., *(at[v] for v in scope))] if scope else (
            total + np.reshape(table, (-1, 1) if batch is not None else ()))  # fmt: skip
    return total


def configurations(sizes) -> np.ndarray:
    found = [*product(*map(range, sizes.values()))]
    return np.array(found, dtype=int).reshape(len(found), len(sizes))


# The factors


@settings(deadline=None)
@given(described())
def test_the_factors_come_back_in_the_order_given(what):
    sizes, factors, batch = what
    graph = FactorGraph(sizes, factors)
    assert graph.variables == tuple(sizes) and graph.cardinalities == sizes
    assert graph.batch == batch and len(graph.factors) == len(factors)
    for i, ((scope, table), (found, log_table)) in enumerate(
        zip(factors, graph.factors, strict=True)
    ):
        assert found == scope
        if batch == 1 and table.ndim == len(scope):
            log_table = log_table[0]
        np.testing.assert_array_equal(log_table, table)
        np.testing.assert_array_equal(graph.factors[i - len(factors)].log_table,
                                      graph.factors[i].log_table)  # fmt: skip
    assert [f.variables for f in graph.factors[1:3]] == [scope for scope, _ in factors[1:3]]
    with pytest.raises(IndexError, match=f"no factor {len(factors)}; there are {len(factors)}"):
        graph.factors[len(factors)]


@settings(deadline=None)
@given(described())
def test_groups_hold_each_factor_once_with_factors_of_its_shape(what):
    sizes, factors, batch = what
    graph = FactorGraph(sizes, factors)
    numbers = [int(i) for group in graph.groups for i in group.numbers]
    assert sorted(numbers) == list(range(len(factors)))
    for shape, scopes, numbers, table in graph.groups:
        assert table.shape[: len(shape)] == shape
        assert table.shape[len(shape)] == len(numbers) == len(scopes)
        assert table.ndim == len(shape) + (1 if batch is None else 2)
        assert batch is None or table.shape[-1] in (1, batch)
        for place, number in enumerate(numbers):
            scope, given_table = factors[number]
            assert tuple(graph.variables[v] for v in scopes[place]) == scope
            found = table[..., place] if batch is None else np.moveaxis(table[..., place, :], -1, 0)
            np.testing.assert_array_equal(found, given_table.reshape(found.shape))


@settings(max_examples=60, deadline=None)
@given(described())
def test_scores_are_sums_of_entries(what):
    sizes, factors, batch = what
    graph = FactorGraph(sizes, factors)
    x = configurations(sizes)
    wanted = score_by_hand(sizes, factors, batch, x)
    states = {v: graph.states[v][int(i)] for v, i in zip(sizes, x[-1], strict=True)}
    if batch is None:
        np.testing.assert_allclose(graph.score(x), wanted, rtol=1e-13, atol=1e-12)
        assert graph.score(x).shape == (len(x),) and np.shape(graph.score(x[0])) == ()
        np.testing.assert_allclose(graph.score(states), wanted[-1], rtol=1e-13, atol=1e-12)
        return
    for j in range(len(x)):
        found = graph.score(x[j])
        assert found.shape == (batch,)
        np.testing.assert_allclose(found, wanted[:, j], rtol=1e-13, atol=1e-12)
        np.testing.assert_array_equal(found, graph.score(x[[j]]))
    chosen = np.arange(batch) % len(x)  # another assignment in each field
    np.testing.assert_allclose(
        graph.score(x[chosen]), wanted[np.arange(batch), chosen], rtol=1e-13, atol=1e-12
    )
    np.testing.assert_allclose(graph.score(states), wanted[:, -1], rtol=1e-13, atol=1e-12)
    for i in range(batch):
        np.testing.assert_allclose(graph.field(i).score(x), wanted[i], rtol=1e-13, atol=1e-12)
    np.testing.assert_array_equal(graph.field(-1).score(x), graph.field(batch - 1).score(x))


def test_scores_without_factors_and_of_constants():
    x = np.zeros((3, 2), int)
    assert FactorGraph([2, 2], []).score(x).tolist() == [0.0, 0.0, 0.0]
    assert FactorGraph([2, 2], [((), np.array(-2.5))]).score(x).tolist() == [-2.5] * 3
    both = FactorGraph([2, 2], [((), np.array([1.0, 2.0])), ((1,), np.zeros(2))])
    assert both.batch == 2 and both.score(x[0]).tolist() == [1.0, 2.0]


def test_states_have_labels_where_they_were_given():
    graph = FactorGraph({"a": 2, "b": 3}, [(("a",), np.array([0.0, 1.0]))],
                        states={"a": ("no", "yes")}, name="two")  # fmt: skip
    assert graph.states == {"a": ("no", "yes"), "b": (0, 1, 2)}
    assert graph.score({"a": "yes", "b": 2}) == 1.0
    assert graph.score({"a": "no", "b": "2"}) == 0.0  # states match by their text
    assert FactorGraph([2, 3], []).cardinalities == {0: 2, 1: 3}
    assert str(graph) == (
        "factor graph two: 2 variables of 2 to 3 states, 1 factors, a forest\n  1 of shape 2"
    )


# Tensors


def test_one_tensor_makes_all_tensors_and_gradients_reach_every_table():
    rng = np.random.default_rng(0)
    learned = torch.tensor(rng.normal(size=(2, 3)), requires_grad=True)
    constant = torch.tensor(0.25, dtype=torch.float64, requires_grad=True)
    graph = FactorGraph([2, 3], [((0, 1), learned), ((1,), rng.normal(size=3)), ((), constant)])
    assert graph.is_tensor and all(torch.is_tensor(table) for _, table in graph.factors)
    x = np.array([[0, 2], [1, 1], [0, 2], [1, 0]])
    score = graph.score(torch.tensor(x))
    score.sum().backward()
    counts = np.zeros((2, 3))
    np.add.at(counts, (x[:, 0], x[:, 1]), 1)
    np.testing.assert_array_equal(learned.grad, counts)
    assert float(constant.grad) == 4.0
    plain = FactorGraph([2, 3], [(v, t.detach().numpy()) for v, t in graph.factors])
    assert not plain.is_tensor
    np.testing.assert_allclose(score.detach(), plain.score(x), rtol=1e-15)


FOREIGN = [
    np.arange(6.0).reshape(2, 3)[::-1],
    np.arange(6.0).reshape(2, 3).astype(">f8"),
    np.arange(6.0).reshape(2, 3).astype(np.longdouble),
    np.arange(12.0).reshape(2, 6)[:, ::2],
    np.broadcast_to(np.float32(1.5), (2, 3)),  # read-only
    np.arange(6, dtype=np.uint16).reshape(2, 3),
    [[0, 1, 2], [3.5, 4, 5]],
]


@pytest.mark.parametrize("table", FOREIGN)
def test_arrays_of_any_layout_beside_tensors(table):
    graph = FactorGraph([2, 3], [((0, 1), table), ((0,), torch.zeros(2))])
    assert graph.is_tensor
    np.testing.assert_array_equal(graph.factors[0].log_table, np.asarray(table, float))
    moved = FactorGraph([2, 3], [((0, 1), table)]).to(dtype=torch.float64)
    np.testing.assert_array_equal(moved.factors[0].log_table, np.asarray(table, float))


@pytest.mark.parametrize("make", [np.array, torch.tensor])
def test_a_graph_does_not_change_with_the_arrays_it_was_made_of(make):
    table, single, constant = make([[0.0, 1.0]]), make([0.5]), make(2.0)
    graph = FactorGraph([1, 2], [((0, 1), table), ((0,), single), ((), constant)])
    for array in (table, single, constant):
        array[...] = math.nan
    assert float(graph.score([0, 1])) == 3.5


def test_tables_are_float32_where_all_are():
    single, double = np.zeros(2, np.float32), np.zeros(2)
    assert FactorGraph([2], [((0,), single)]).groups[0].table.dtype == np.float32
    assert FactorGraph([2], [((0,), single), ((0,), double)]).groups[0].table.dtype == np.float64
    assert FactorGraph([2], [((0,), [0, 1])]).groups[0].table.dtype == np.float64
    mixed = FactorGraph([2], [((0,), torch.zeros(2)), ((0,), single)])
    assert mixed.groups[0].table.dtype == torch.float32
    moved = FactorGraph([2], [((0,), double)]).to(dtype=torch.float32)
    assert moved.groups[0].table.dtype == torch.float32 and moved.is_tensor


@pytest.mark.parametrize("batch", [None, 1, 3])
def test_a_batch_of_tensors_is_that_of_arrays(batch):
    rng = np.random.default_rng(1)
    lead = () if batch is None else (batch,)
    factors = [((0, 1), rng.normal(size=(*lead, 2, 3))), ((1,), rng.normal(size=3))]
    graph = FactorGraph([2, 3], factors)
    tensors = graph.to()
    x = np.array([1, 2])
    np.testing.assert_array_equal(tensors.score(x), graph.score(x))
    for (_, one), (_, other) in zip(tensors.factors, graph.factors, strict=True):
        np.testing.assert_array_equal(one, other)


# The structure


@settings(deadline=None)
@given(described(batches=False))
def test_the_bipartite_graph_and_whether_it_is_a_forest(what):
    sizes, factors, _ = what
    graph = FactorGraph(sizes, factors)
    found = graph.graph()
    assert {n for n, side in found.nodes(data="bipartite") if side == 0} == set(sizes)
    assert {str(n) for n, side in found.nodes(data="bipartite") if side == 1} == {
        f"f{i}" for i in range(len(factors))
    }
    for i, (scope, _) in enumerate(factors):
        assert set(found[FactorNode(i)]) == set(scope)
    assert graph.is_forest == (len(found) == 0 or nx.is_forest(found))


def test_a_doubled_edge_is_a_cycle_and_a_node_is_no_variable():
    pair = ((0, 1), np.zeros((2, 2)))
    assert FactorGraph([2, 2], [pair]).is_forest
    assert not FactorGraph([2, 2], [pair, pair]).is_forest
    graph = FactorGraph({(0,): 2, 0: 2}, [(((0,), 0), np.zeros((2, 2)))]).graph()
    assert len(graph) == 3 and sorted(dict(graph.degree).values()) == [1, 1, 2]


def test_a_field_of_a_batch():
    batch = FactorGraph.grid(np.arange(12.0).reshape(3, 1, 2, 2), np.zeros((2, 2)))
    one = batch.field(1)
    assert one.batch is None and one.grid_shape == (1, 2, 2)
    assert one.factors[1].log_table.tolist() == [6.0, 7.0]
    with pytest.raises(IndexError, match="field 3 of a batch of 3"):
        batch.field(3)
    with pytest.raises(ValueError, match="one field, not a batch"):
        one.field(0)


# From models and back


@pytest.mark.parametrize("seed", range(12))
def test_bayesian_networks_tables_and_lists(seed):
    rng = np.random.default_rng(seed)
    tables = random_bayesian(rng)
    for model in (tables, bayesian_network(tables)):
        graph = FactorGraph.of(model)
        assert graph.states == tables.states and len(graph.factors) == len(tables.factors)
        for (scope, table), (other, values) in zip(graph.factors, tables.factors, strict=True):
            assert scope == other
            np.testing.assert_allclose(np.exp(table), values, rtol=1e-15)
            np.testing.assert_array_equal(np.isneginf(table), values == 0)
    assert FactorGraph.of(graph) is graph


def test_markov_networks_of_files(tmp_path):
    source = tables_of(random_factors(np.random.default_rng(3), zeros=0.0))
    graphs.save(source, tmp_path / "x.uai")
    read = graphs.read(tmp_path / "x.uai")
    graph, loaded = FactorGraph.of(read), FactorGraph.of(graphs.load(tmp_path / "x.uai"))
    assert graph.cardinalities == loaded.cardinalities
    x = np.stack([np.random.default_rng(4).integers(0, k, 9) for k in graph.sizes], 1)
    at = {v: x[:, i] for i, v in enumerate(graph.variables)}
    by_hand = sum(np.log(values[tuple(at[v] for v in scope)]) for scope, values in read.factors)
    np.testing.assert_allclose(graph.score(x), by_hand, rtol=1e-13)
    order = [graph.variables.index(v) for v in loaded.variables]
    np.testing.assert_allclose(loaded.score(x[:, order]), by_hand, rtol=1e-13)


def test_a_network_and_its_file_have_the_same_score():
    tables = quietly(graphs.read, "asia")
    graph, model = FactorGraph.of(tables), bayesian_network(tables)
    assignment = {v: states[-1] for v, states in tables.states.items()} | {"either": "yes"}
    assert graph.score(assignment) == pytest.approx(graphs.log_probability(model, assignment))


@settings(deadline=None)
@given(described(batches=False))
def test_tables_and_their_scale_are_the_factors(what):
    sizes, factors, _ = what
    graph = FactorGraph(sizes, factors)
    tables = graph.tables()
    assert isinstance(tables, Tables) and not tables.directed
    assert all(values.max() == 1.0 for _, values in tables.factors)
    back, x = FactorGraph.of(tables), configurations(sizes)
    assert back.cardinalities == sizes
    np.testing.assert_allclose(back.score(x), graph.score(x), rtol=1e-13, atol=1e-13)
    if sizes:
        again = FactorGraph.of(markov_network(tables))
        order = [graph.variables.index(v) for v in again.variables]
        np.testing.assert_allclose(again.score(x[:, order]) + tables.log_scale, graph.score(x),
                                   rtol=1e-13, atol=1e-13)  # fmt: skip


def test_wide_tables_are_parted_and_the_widest_refused():
    wide = np.array([[0.0, -1500.0], [-np.inf, -599.0]])
    tables = FactorGraph([2, 2], [((0, 1), wide + 1e6), ((1,), np.array([0.0, -600.0]))]).tables()
    assert [scope for scope, _ in tables.factors] == [(0, 1)] * 3 + [(1,)]
    assert tables.log_scale == 1e6
    with np.errstate(divide="ignore"):
        logs = sum(np.log(values) for scope, values in tables.factors if scope == (0, 1))
    np.testing.assert_allclose(logs, wide, rtol=1e-15)
    with pytest.raises(ValueError, match=r"over 0, 1 spans 1e\+09 nats.*forbid.*with -inf"):
        FactorGraph([2, 2], [((0, 1), np.array([[0, 0], [0, -1e9]]))]).tables()


# What is refused

PAIR = np.zeros((2, 3))


@pytest.mark.parametrize(
    ("factors", "kind", "message"),
    [
        ([((0, 1), PAIR.T)], ValueError, r"factor 0 over 0, 1 needs a log-table of shape \(2, 3\), "
                                         r"or with a batch axis before it; got \(3, 2\)"),
        ([((0,), np.zeros(2)), ((0,), np.zeros((1, 4, 2)))], ValueError, r"factor 1 .*\(1, 4, 2\)"),
        ([((0, 7), PAIR)], ValueError, "factor 0: no variable '7'; known: 0, 1"),
        ([(("1",), PAIR)], ValueError, "factor 0: no variable '1'; there is 1, of type int"),
        ([((0, 0), np.zeros((2, 2)))], ValueError, "factor 0 names a variable twice: 0, 0"),
        ([np.zeros(3)], TypeError, r"factor 0 must be a pair .*; got ndarray"),
        ([(0, np.zeros(2))], TypeError, "factor 0 must be a pair"),
        ([((0,), ["a", "b"])], TypeError, "of factor 0 over 0 must hold numbers; got <U1"),
        ([((0, 1), PAIR + np.nan)], ValueError, "over 0, 1 has an entry that is NaN or "),
        ([((0,), np.log([1.0, 2.0])), ((0,), np.array([0, np.inf]))], ValueError, r"or \+inf.*neg"),
        ([((1,), np.array([-np.inf, np.nan, 0]))], ValueError, "over 1 has an entry that is NaN"),
        ([((1,), np.full(3, -np.inf))], ValueError, "over 1 is -inf everywhere: it forbids every"),
        ([((), np.array(-np.inf))], ValueError, "is -inf everywhere"),
        ([((0,), np.array([[0.0, 0], [-np.inf] * 2]))], ValueError, "over 0 of field 1 is -inf"),
        ([((0,), np.zeros((4, 2))), ((1,), np.zeros((5, 3)))], ValueError,
         "batches of different lengths: 4 over 0, 5 over 1"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("tensors", [False, True])
def test_factors_that_are_refused(factors, kind, message, tensors):
    if tensors and kind is ValueError:
        factors = [(scope, torch.tensor(table)) for scope, table in factors]
    with pytest.raises(kind, match=message):
        FactorGraph([2, 3], factors)


@pytest.mark.parametrize("make", [np.zeros, torch.zeros])
def test_complex_tables_are_refused(make):
    table = make(2) + 1j * make(2)
    with pytest.raises(TypeError, match=r"factor 0 over 0 must hold numbers; got .*complex"):
        FactorGraph([2], [((0,), table)])


def test_factors_have_as_many_variables_as_arrays_have_axes():
    def of(count):
        return FactorGraph([1] * count, [(range(count), np.zeros((2, *[1] * count)))])

    np.testing.assert_array_equal(graphs.belief_propagation(of(62)).log_partition, [0.0, 0.0])
    with pytest.raises(ValueError, match="factor 0 has 63 variables; arrays have axes for 62"):
        FactorGraph([1] * 63, [(range(63), [0.0])])


def test_cardinalities_and_states_that_are_refused():
    for wrong in (0, -1, 2.0, True, "2", None):
        message = f"b needs a number of states, a whole number from 1; got {wrong!r}"
        with pytest.raises(ValueError, match=re.escape(message)):
            FactorGraph({"a": 2, "b": wrong}, [])
    for states, message in (
        ({"b": (0, 1)}, "no variable 'b'; known: a"),
        ({"a": ("x",)}, "a has 2 states; got 1 labels"),
        ({"a": (1, "1")}, "two states of a have the same text"),
    ):
        with pytest.raises(ValueError, match=message):
            FactorGraph({"a": 2}, [], states=states)


def test_assignments_and_models_that_are_refused():
    graph = FactorGraph({"a": 2, "b": 3}, [(("a", "b"), PAIR)])
    for assignment, message in (
        ({"a": 0}, "the assignment has no state for b"),
        ({"a": 0, "b": 5}, "no state '5' of b; known: 0, 1, 2"),
        ({"a": 0, "b": 0, "bb": 1}, "no variable 'bb'; did you mean b"),
        (np.array([0, 3]), "a state index outside the states"),
        (np.array([-1, 0]), "a state index outside the states"),
        (np.array([0.0, 1.0]), r"integers of shape \(2,\) or \(n, 2\); got float64"),
        (np.zeros((2, 3), int), r"got int64 of shape \(2, 3\)"),
    ):
        with pytest.raises(ValueError, match=message):
            graph.score(assignment)
    batch = FactorGraph([2], [((0,), np.zeros((3, 2)))])
    with pytest.raises(ValueError, match="2 assignments for a batch of 3 fields"):
        batch.score(np.zeros((2, 1), int))
    with pytest.raises(ValueError, match=r"a batch of 3 fields; take one of them: field\(i\)"):
        batch.tables()
    with pytest.raises(TypeError, match="expected a pgmpy"):
        FactorGraph.of(3)
