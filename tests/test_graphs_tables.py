"""What is checked at the door: models of every kind, and what is wrong with them."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch

import graphs
from graphs.tables import Factor, Tables, bayesian, directed_tables, tables_of

pgmpy = pytest.importorskip("pgmpy")
from pgmpy.factors.discrete import DiscreteFactor, TabularCPD  # noqa: E402
from pgmpy.models import DiscreteBayesianNetwork, DiscreteMarkovNetwork  # noqa: E402


def network(edges, *cpds):
    """A pgmpy network that pgmpy itself has not checked."""
    model = DiscreteBayesianNetwork(edges)
    for cpd in cpds:
        model.add_nodes_from([cpd.variable])
        model.cpds.append(cpd)
    return model


def rain(states=("no", "yes"), values=((0.7,), (0.3,))):
    return TabularCPD("rain", 2, [list(row) for row in values], state_names={"rain": list(states)})


def spoilt(cpd, values):
    """A table that pgmpy would not make."""
    cpd.values = np.array(values)
    return cpd


def grass(rain_states=("no", "yes"), dry=(0.9, 0.2), states=("dry", "wet")):
    return TabularCPD(
        "grass",
        2,
        [list(dry), [1 - p for p in dry]],
        ["rain"],
        [2],
        state_names={"grass": list(states), "rain": list(rain_states)},
    )


def test_a_network_of_pgmpy():
    tables = tables_of(network([("rain", "grass")], grass(), rain()))
    assert tables.directed and tables.states == {"rain": ("no", "yes"), "grass": ("dry", "wet")}
    assert tables.parents("grass") == ("rain",) and tables.parents("rain") == ()
    np.testing.assert_allclose(tables.conditional("grass"), [[0.9, 0.2], [0.1, 0.8]])
    assert tables.cardinalities == {"rain": 2, "grass": 2}
    assert list(tables.graph().edges) == [("rain", "grass")]
    assert tables_of(tables) is tables and directed_tables(tables) is tables
    np.testing.assert_allclose(
        graphs.JunctionTree(tables).query({"grass": "wet"})["rain"][1], 0.24 / 0.31
    )


@pytest.mark.parametrize(
    ("own", "of_child"),
    [
        (("no", "yes"), ("yes", "no")),
        ((0, 1), (1, 0)),
        ((1, 0), (0, 1)),
        ((0, 1), ("1", "0")),
        (("True", "False"), (False, True)),
        ((5, 7), (7, 5)),
    ],
)
def test_states_are_aligned_by_their_text(own, of_child):
    """The child's table lists its parent's states in another order than the parent's own does."""
    swapped = network([("rain", "grass")], rain(own), grass(of_child, dry=(0.2, 0.9)))
    tables = tables_of(swapped)
    assert tables.states["rain"] == own
    np.testing.assert_allclose(tables.conditional("grass"), [[0.9, 0.2], [0.1, 0.8]])
    found = graphs.JunctionTree(swapped).query({"grass": "wet"})
    np.testing.assert_allclose(found["rain"], np.array([0.07, 0.24]) / 0.31)


def test_states_that_are_only_counted_take_the_names():
    child = TabularCPD("grass", 2, [[0.9, 0.2], [0.1, 0.8]], ["rain"], [2])
    tables = tables_of(network([("rain", "grass")], rain(), child))
    assert tables.states == {"rain": ("no", "yes"), "grass": (0, 1)}
    np.testing.assert_allclose(tables.conditional("grass"), [[0.9, 0.2], [0.1, 0.8]])


def test_parents_in_any_order_of_axes():
    rng = np.random.default_rng(0)
    roots = [
        TabularCPD(v, k, rng.dirichlet(np.ones(k))[:, None], state_names={v: list("xyz"[:k])})
        for v, k in (("a", 2), ("b", 3))
    ]
    values = rng.dirichlet(np.ones(2), 6).T
    child = TabularCPD(
        "c", 2, values, ["b", "a"], [3, 2], {"c": ["n", "y"], "b": list("zyx"), "a": list("yx")}
    )
    model = network([("a", "c"), ("b", "c")], *roots, child)
    tables = tables_of(model)
    assert tables.parents("c") == ("b", "a")
    np.testing.assert_allclose(tables.conditional("c"), values.reshape(2, 3, 2)[:, ::-1, ::-1])


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (network([("rain", "grass")], rain()), "no table .CPD. for grass: each variable needs one"),
        (
            network(
                [("rain", "grass"), ("sun", "grass")],
                rain(),
                grass(),
                TabularCPD("sun", 2, [[0.5], [0.5]]),
            ),
            "the table of grass is given rain, but its parents in the graph are .*sun",
        ),
        (
            network([], rain(), grass()),
            "the table of grass is given rain, but its parents in the graph are none",
        ),
        (
            network([("rain", "grass")], rain(), TabularCPD("grass", 2, [[0.5], [0.5]])),
            "the table of grass is given nothing, but its parents in the graph are rain",
        ),
        (
            network([("rain", "grass")], rain(), grass(("no", "maybe"))),
            "the states of rain are no, yes in one table and no, maybe in that of grass, rain",
        ),
        (
            network([("rain", "grass")], rain(), grass((False, True))),
            "the states of rain are no, yes in one table and False, True in that of grass, rain",
        ),
        (
            network([("rain", "grass")], rain(), spoilt(grass(), [[0.9, 1.2], [0.1, -0.2]])),
            r"the table of grass has a negative probability in the column p\(grass \| rain=yes\)",
        ),
        (
            network([("rain", "grass")], rain(), spoilt(grass(), [[np.nan, 0.2], [0.1, 0.8]])),
            r"not a number in the column p\(grass \| rain=no\)",
        ),
        (
            network([], spoilt(rain(), [0.7, 0.301])),
            r"the column p\(rain\) sums to 1.001, not to 1",
        ),
        (network([], spoilt(rain(), [0.7, np.inf])), r"not a number in the column p\(rain\)"),
    ],
)
def test_what_is_wrong_with_a_network_is_said(model, text):
    with pytest.raises(ValueError, match=text):
        tables_of(model)


def test_a_column_that_is_off_is_named():
    values = np.full((2, 2, 3), 0.5)
    values[0, 1, 2] += 1e-3
    states = {"c": "ny", "a": "xy", "b": "pqr"}
    roots = [Factor(("a",), np.full(2, 0.5)), Factor(("b",), np.full(3, 1 / 3))]
    with pytest.raises(ValueError, match=r"p\(c \| a=y, b=r\) sums to 1.001, not to 1"):
        bayesian(states, [*roots, Factor(("c", "a", "b"), values)])


def test_printed_digits_are_renormalised_with_one_warning():
    values = np.array([[0.3333333, 0.5, 0.1], [0.3333333, 0.25, 0.2], [0.3333333, 0.25, 0.7]])
    states = {"a": "xyz", "b": "xyz"}
    factors = [Factor(("a",), np.array([0.3, 0.3, 0.4 + 1e-7])), Factor(("b", "a"), values)]
    with pytest.warns(
        UserWarning, match="2 columns of tables sum to 1 only within 1e-07"
    ) as record:
        tables = bayesian(states, factors, "thirds")
    assert len(record) == 1 and "thirds: " in str(record[0].message)
    for variable in states:
        np.testing.assert_allclose(tables.conditional(variable).sum(0), 1.0, rtol=0, atol=3e-16)
    np.testing.assert_allclose(tables.conditional("b")[:, 0], 1 / 3, rtol=1e-15)
    with warnings.catch_warnings():  # the last bits of float64 are no printing
        warnings.simplefilter("error")
        bayesian({"a": "xyz"}, [Factor(("a",), np.array([0.1, 0.2, 0.7 + 1e-13]))])
    with pytest.raises(ValueError, match=r"sums to 1.00000"):
        bayesian({"a": "xy"}, [Factor(("a",), np.array([0.5, 0.5 + 2e-6]))])


@pytest.mark.parametrize("size", [1, 2, 5])
def test_cycles_are_named(size):
    names = [f"v{i}" for i in range(size)]
    factors = [Factor((v, names[i - 1]), np.full((2, 2), 0.5)) for i, v in enumerate(names)]
    if size == 1:
        factors = [Factor(("v0", "v0"), np.full((2, 2), 0.5))]
    outside = Factor(("root",), np.ones(1))
    with pytest.raises(ValueError, match=r"no directed cycle; found v.* -> v") as error:
        bayesian({"root": "a"} | dict.fromkeys(names, "xy"), [outside, *factors], "ring")
    arrows = str(error.value).split("found ")[1].split(" -> ")
    assert arrows[0] == arrows[-1] and len(arrows) == size + 1 and set(arrows) == set(names)


def test_duplicate_and_missing_states_and_tables():
    with pytest.raises(ValueError, match="a has the state '1' twice"):
        bayesian({"a": (1, "1")}, [Factor(("a",), np.array([0.5, 0.5]))])
    with pytest.raises(ValueError, match="a has no states"):
        bayesian({"a": ()}, [Factor(("a",), np.zeros(0))])
    with pytest.raises(ValueError, match="no table for b: each variable needs one"):
        bayesian({"a": "x", "b": "x"}, [Factor(("a",), np.ones(1))])


# Lists of factors and Markov networks -------------------------------------------------------------


def test_a_list_of_factors_of_every_kind():
    named = DiscreteFactor(["a", "b"], [2, 2], [1, 2, 3, 4], {"a": ["n", "y"], "b": ["p", "q"]})
    swapped = DiscreteFactor(["b"], [2], [10, 20], {"b": ["q", "p"]})
    counted = DiscreteFactor(["a"], [2], [5, 6])
    tables = tables_of(
        [counted, named, swapped, (("b", "c"), torch.ones(2, 3)), [["c"], [1, 2, 3]], ((), 4.0)]
    )
    assert not tables.directed
    assert tables.states == {"a": ("n", "y"), "b": ("p", "q"), "c": (0, 1, 2)}
    values = [f.values.tolist() for f in tables.factors]
    assert values[0] == [5, 6] and values[1] == [[1, 2], [3, 4]] and values[2] == [20, 10]
    assert values[4] == [1, 2, 3] and values[5] == 4.0
    assert all(f.values.dtype == np.float64 for f in tables.factors)
    assert set(map(frozenset, tables.graph().edges)) == {frozenset("ab"), frozenset("bc")}
    total = sum(
        4 * (5, 6)[a] * (1, 2, 3, 4)[2 * a + b] * (20, 10)[b] * 6 for a in (0, 1) for b in (0, 1)
    )
    assert graphs.JunctionTree(tables).log_partition == pytest.approx(np.log(total))


def test_a_markov_network_of_pgmpy():
    model = DiscreteMarkovNetwork([("a", "b")])
    model.add_factors(DiscreteFactor(["a", "b"], [2, 2], [1, 2, 3, 4]))
    assert graphs.JunctionTree(model).log_partition == pytest.approx(np.log(10))
    with pytest.raises(TypeError, match=r"expected a Bayesian network .*; got an undirected model"):
        directed_tables(model)
    model.add_node("lonely")
    with pytest.raises(ValueError, match="no factor mentions lonely"):
        tables_of(model)


@pytest.mark.parametrize(
    ("model", "error", "text"),
    [
        ([(("a", "a"), np.ones((2, 2)))], ValueError, "factor 0 names a variable twice: a, a"),
        (
            [(("a",), np.ones((2, 2)))],
            ValueError,
            r"factor 0 over a needs one axis a variable.*\(2, 2\)",
        ),
        (
            [(("a",), np.ones(2)), (("a", "b"), np.ones((3, 2)))],
            ValueError,
            "factor 1 has 3 states for a, which has 2 elsewhere",
        ),
        ([(("a",), [1.0, -1.0])], ValueError, "the factor over a has an entry that is negative"),
        ([(("a",), [1.0, np.inf])], ValueError, "negative or not finite"),
        ([(("a",), [1.0, np.nan])], ValueError, "negative or not finite"),
        ([np.ones(3)], TypeError, "factor 0 must be a pgmpy factor or a pair"),
        ([3], TypeError, "factor 0 must be a pgmpy factor or a pair .* got int"),
        ([(("a",), np.zeros(0))], ValueError, "a has no states|has 0 states"),
        ("asia", TypeError, r"got str; graphs.load reads one"),
        (None, TypeError, "got NoneType"),
        ({}, TypeError, "got dict"),
        (pd.DataFrame(), TypeError, "got DataFrame"),
    ],
)
def test_what_is_wrong_with_factors_is_said(model, error, text):
    with pytest.raises(error, match=text):
        tables_of(model)


def test_factors_with_other_states_are_an_error():
    first = DiscreteFactor(["a"], [2], [1, 2], {"a": ["n", "y"]})
    second = DiscreteFactor(["a"], [2], [1, 2], {"a": ["n", "x"]})
    with pytest.raises(
        ValueError, match="the states of a are n, y in one table and n, x in that of a"
    ):
        tables_of([first, second])
    third = DiscreteFactor(["a"], [3], [1, 2, 3])
    with pytest.raises(ValueError, match="the states of a are n, y in one table and 0, 1, 2"):
        tables_of([first, third])


def test_given_arrays_are_not_held():
    """What becomes of an array after the model was read is nobody's business."""
    array = np.array([1.0, 3.0])
    tables = tables_of([(("a",), array)])
    array[:] = 0
    assert tables.factors[0].values.tolist() == [1, 3]
    assert isinstance(tables, Tables)
