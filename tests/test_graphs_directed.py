"""Bayesian networks: the factorisation, its sizes, its joint table, its rows."""

import itertools
import math
import warnings

import networkx as nx
import numpy as np
import pytest
from scipy import stats

import graphs
from graphs.ancestral import CHUNK, sample_indices
from graphs.tables import Factor, Tables, bayesian


def network(parents, sizes, seed=0, states=None):
    """Random tables for a graph given as {variable: its parents}."""
    rng = np.random.default_rng(seed)
    factors = []
    for child, given in parents.items():
        shape = [sizes[v] for v in (child, *given)]
        values = rng.gamma(1.0, size=shape)
        factors.append(Factor((child, *given), values / values.sum(0)))
    named = states or {v: [f"{v}{k}" for k in range(sizes[v])] for v in parents}
    return bayesian(named, factors)


def pgmpy_network(tables):
    from pgmpy.factors.discrete import TabularCPD
    from pgmpy.models import DiscreteBayesianNetwork

    model = DiscreteBayesianNetwork()
    model.add_nodes_from(tables.states)
    model.add_edges_from(tables.graph().edges)
    for (child, *given), values in tables.factors:
        names = {v: list(tables.states[v]) for v in (child, *given)}
        sizes = [len(names[v]) for v in given]
        flat = values.reshape(len(values), -1)
        model.add_cpds(TabularCPD(child, len(flat), flat, given or None, sizes or None, names))
    return model


def by_hand(tables):
    """The joint probability of each assignment of indices, by plain Python loops."""
    found = {}
    order = list(tables.states)
    for row in itertools.product(*(range(len(k)) for k in tables.states.values())):
        at = dict(zip(order, row, strict=True))
        found[row] = math.prod(
            float(values[tuple(at[v] for v in scope)]) for scope, values in tables.factors
        )
    return found


FOUR = network({"d": ["b", "c"], "a": [], "b": ["a"], "c": ["a"]}, {"a": 2, "b": 3, "c": 2, "d": 4})
STRANGE = network(
    {(0, 1): [], 7: [(0, 1)], "x": [7, (0, 1)]},
    {(0, 1): 2, 7: 3, "x": 2},
    states={(0, 1): ["low", 1.5], 7: [10, 20, 30], "x": [True, False]},
)


@pytest.mark.parametrize(
    ("edges", "text", "latex"),
    [
        ("ca cb", "p(c, a, b) = p(c) p(a | c) p(b | c)", r"p(c) \, p(a \mid c) \, p(b \mid c)"),
        ("ac cb", "p(a, c, b) = p(a) p(c | a) p(b | c)", r"p(a) \, p(c \mid a) \, p(b \mid c)"),
        ("ac bc", "p(a, b, c) = p(a) p(b) p(c | a, b)", r"p(a) \, p(b) \, p(c \mid a, b)"),
        ("ab ac bc", "p(a, b, c) = p(a) p(b | a) p(c | a, b)", r"p(a) \, p(b \mid a) \, p(c"),
    ],
)
def test_factorization_of_the_small_graphs(edges, text, latex):
    graph = nx.DiGraph()
    graph.add_nodes_from("abc")
    graph.add_edges_from(edges.split())
    found = graphs.factorization(graph)
    assert str(found) == text
    assert latex in found.latex
    assert found._repr_latex_() == rf"$\displaystyle {found.latex}$"


def test_factorization_prefers_the_order_of_the_model():
    graph = nx.DiGraph([("z", "a"), (3, "a")])
    graph.add_node((1, "b"))
    assert [v for v, _ in graphs.factorization(graph).terms] == ["z", 3, "a", (1, "b")]
    # the tables, pgmpy's network and its bare graph say the same
    told = {str(graphs.factorization(m)) for m in (FOUR, pgmpy_network(FOUR), FOUR.graph())}
    assert told == {"p(a, b, c, d) = p(a) p(b | a) p(c | a) p(d | b, c)"}
    assert str(graphs.factorization(nx.DiGraph())) == "p() = 1"


def test_long_factorizations_wrap_between_terms():
    names = [f"quantity_{i}" for i in range(40)]
    graph = nx.DiGraph(itertools.pairwise(names))
    found = graphs.factorization(graph)
    text = str(found)
    assert max(map(len, text.splitlines())) <= 88
    assert 10 < len(text.splitlines()) < 30
    terms = ["p(quantity_0)", *(f"p({b} | {a})" for a, b in itertools.pairwise(names))]
    assert all(any(term in line for line in text.splitlines()) for term in terms)
    assert text.split() == f"p({', '.join(names)}) = {' '.join(terms)}".split()
    assert found.latex.startswith(r"\begin{aligned}") and found.latex.endswith(r"\end{aligned}")
    assert len(found.latex.splitlines()) == len(text.splitlines()) + 2
    assert r"\mathrm{quantity\_3} \mid \mathrm{quantity\_2}" in found.latex


def test_latex_is_typeset_whatever_the_names_hold():
    from matplotlib.mathtext import MathTextParser

    names = [
        "a_b",
        "50%",
        "R&D",
        "#1",
        "$",
        "{x}",
        "back\\slash",
        "x^2",
        "a~b",
        "two words",
        (0, 1),
    ]
    graph = nx.DiGraph([(names[0], names[1])])
    graph.add_nodes_from(names)
    terms = graphs.factorization(graph).terms
    for term in terms:
        latex = graphs.directed.Factorization((term,)).latex
        # parse raises where the syntax is wrong; it knows no \&, which LaTeX needs
        MathTextParser("path").parse("$" + latex.replace(r"\&", "and") + "$")
    found = graphs.factorization(graph).latex
    assert r"\mathrm{a\_b}" in found and r"\mathrm{50\%}" in found and r"\mathrm{R\&D}" in found
    assert r"\mathrm{two\ words}" in found and r"\mathrm{\{x\}}" in found


def test_factorization_refuses():
    with pytest.raises(ValueError, match="a -> b -> a"):
        graphs.factorization(nx.DiGraph(["ab", "ba"]))
    with pytest.raises(TypeError, match="directed"):
        graphs.factorization(nx.Graph(["ab"]))
    with pytest.raises(TypeError, match="Bayesian network"):
        graphs.factorization([("ab", np.ones((2, 2)))])


@pytest.mark.parametrize(("length", "size"), [(1, 2), (4, 3), (10, 2), (7, 1), (400, 5)])
def test_parameters_of_a_chain(length, size):
    parents = {i: [i - 1] if i else [] for i in range(length)}
    found = graphs.num_parameters(network(parents, dict.fromkeys(range(length), size)))
    assert found.factorised == size - 1 + (length - 1) * size * (size - 1)
    assert found.full == size**length - 1
    assert f"{found.factorised:,} free parameters" in str(found)


def test_parameters_print_astronomical_numbers():
    count = graphs.directed.ParameterCount
    assert str(count(7981, 5**400 - 1)) == (
        "7,981 free parameters; the full table has 3.87e279, 4.85e275 times as many"
    )
    assert str(count(10, 10**20000 - 1)).endswith("has 1.00e20000, 1.00e19999 times as many")
    assert str(count(9, 15)) == "9 free parameters; the full table has 15, 1.67 times as many"
    assert str(count(2, 20_000)).endswith("20,000, 10,000 times as many")
    assert str(count(3, 3)) == "3 free parameters; the full table has 3"
    assert str(count(0, 0)) == "0 free parameters; the full table has 0"


@pytest.mark.parametrize("tables", [FOUR, STRANGE])
def test_joint_is_the_product_of_the_tables(tables):
    found = graphs.joint(tables)
    assert found.index.names == list(tables.states)
    assert found.dtype == np.float64
    for row, probability in by_hand(tables).items():
        states = [tables.states[v][i] for v, i in zip(tables.states, row, strict=True)]
        # a boolean state cannot go through .loc, so go by position
        position = np.ravel_multi_index(row, [len(k) for k in tables.states.values()])
        assert list(found.index[position]) == states
        assert found.iloc[position] == pytest.approx(probability, rel=1e-14)
    assert found.sum() == pytest.approx(1, abs=1e-14)


def test_joint_reads_as_a_table():
    found = graphs.joint(pgmpy_network(FOUR))
    assert found.loc["d1", "a0", "b2", "c1"] > 0
    marginal = found.groupby("a", observed=True).sum()
    assert marginal["a0"] == pytest.approx(FOUR.conditional("a")[0])
    assert found.unstack("d").columns.tolist() == ["d0", "d1", "d2", "d3"]


def test_joint_of_many_variables_with_one_state():
    parents = {i: [i - 1] if i else [] for i in range(90)}
    found = graphs.joint(network(parents, {i: 2 if i in (3, 4) else 1 for i in parents}))
    assert found.shape == (4,) and found.sum() == pytest.approx(1)


def test_joint_refuses_what_does_not_fit():
    parents = {i: [] for i in range(25)}
    with pytest.raises(ValueError, match=r"25 variables has 33,554,432 cells.*JunctionTree"):
        graphs.joint(network(parents, dict.fromkeys(parents, 2)))
    with pytest.raises(ValueError, match="no variables"):
        graphs.joint(Tables({}, [], directed=True))


@pytest.mark.parametrize("tables", [FOUR, STRANGE])
def test_log_probability_is_the_log_of_the_joint(tables):
    table = graphs.joint(tables)
    frame = table.index.to_frame(index=False)
    found = graphs.log_probability(tables, frame)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, np.log(table.to_numpy()), rtol=1e-13)
    # one row, as a dict: a float
    one = graphs.log_probability(tables, dict(zip(tables.states, table.index[5], strict=True)))
    assert isinstance(one, float) and one == pytest.approx(found[5])
    # columns of a dict; a state that all rows share
    columns = {v: frame[v].to_numpy() for v in frame}
    np.testing.assert_array_equal(graphs.log_probability(tables, columns), found)
    last = list(tables.states)[-1]
    shared = graphs.log_probability(tables, columns | {last: tables.states[last][1]})
    np.testing.assert_array_equal(shared[1 :: len(tables.states[last])],
                                  found[1 :: len(tables.states[last])])  # fmt: skip
    assert graphs.log_probability(tables, frame.iloc[:0]).shape == (0,)


def test_log_probability_agrees_with_pgmpy():
    model = pgmpy_network(FOUR)
    for row in [("d0", "a0", "b0", "c0"), ("d3", "a1", "b2", "c1"), ("d2", "a0", "b1", "c0")]:
        states = dict(zip(FOUR.states, row, strict=True))
        expected = math.log(model.get_state_probability(states))
        assert graphs.log_probability(model, states) == pytest.approx(expected, rel=1e-12)


def test_impossible_rows_have_log_probability_minus_infinity():
    model = bayesian(
        {"a": "xy", "b": "xy"},
        [Factor(("a",), np.array([1.0, 0.0])), Factor(("b", "a"), np.array([[0.5, 0], [0.5, 1]]))],
    )
    found = graphs.log_probability(model, {"a": ["x", "x", "y", "y"], "b": ["x", "y", "x", "y"]})
    assert found.tolist() == [math.log(0.5), math.log(0.5), -math.inf, -math.inf]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({"a": "a0", "b": "b0"}, "missing here: d, c.*JunctionTree.*log_evidence"),
        (None, "missing here: d, a, b, c"),
        ({"a": [None, "a0"], "b": "b0", "c": "c0", "d": "d0"}, "unobserved here: a.*JunctionTree"),
        ({"a": "A1", "b": "b0", "c": "c0", "d": "d0"}, "did you mean a1"),
        ({"a": "a1", "e": "e0"}, "no variable 'e'"),
    ],
)
def test_log_probability_refuses(rows, said):
    with pytest.raises(ValueError, match=said):
        graphs.log_probability(FOUR, rows)


def test_samples_come_as_categories():
    frame = graphs.sample(STRANGE, 300, seed=3)
    assert list(frame.columns) == list(STRANGE.states)
    for variable, states in STRANGE.states.items():
        assert tuple(frame[variable].cat.categories) == states
        assert set(frame[variable]) == set(states)
    assert np.isfinite(graphs.log_probability(STRANGE, frame)).all()
    assert graphs.sample(pgmpy_network(FOUR), 50, 1).equals(graphs.sample(FOUR, 50, 1))
    assert not graphs.sample(FOUR, 50, 1).equals(graphs.sample(FOUR, 50, 2))
    assert graphs.sample(FOUR, 100_000).memory_usage(deep=True).sum() < 5 * 100_000


@pytest.mark.parametrize("tables", [FOUR, STRANGE])
@pytest.mark.parametrize("n", [1000, 3 * CHUNK + 17])
def test_samples_follow_the_joint(tables, n):
    drawn = sample_indices(tables, n, np.random.default_rng(5))
    sizes = list(tables.cardinalities.values())
    cells = np.ravel_multi_index([drawn[v].astype(int) for v in tables.states], sizes)
    counts = np.bincount(cells, minlength=math.prod(sizes))
    expected = n * np.array(list(by_hand(tables).values()))
    rare = expected < 5
    if rare.any():  # the test needs a few draws in each cell
        counts = np.append(counts[~rare], counts[rare].sum())
        expected = np.append(expected[~rare], expected[rare].sum())
    assert stats.chisquare(counts, expected).pvalue > 1e-3


@pytest.mark.parametrize("n", [1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 17])
def test_every_row_is_drawn(n):
    sure = bayesian({"a": "xy"}, [Factor(("a",), np.array([0.0, 1.0]))])
    assert sample_indices(sure, n, np.random.default_rng(0))["a"].tolist() == [1] * n


def test_rows_are_independent_across_chunks():
    coin = bayesian({"a": "xy"}, [Factor(("a",), np.array([0.5, 0.5]))])
    drawn = sample_indices(coin, 4 * CHUNK, np.random.default_rng(0))["a"].reshape(4, CHUNK)
    for first, second in itertools.combinations(drawn, 2):
        assert abs((first == second).mean() - 0.5) < 4 * 0.5 / math.sqrt(CHUNK)


class Extreme:
    """Uniform numbers at the ends of [0, 1)."""

    def __init__(self, value):
        self.value = value

    def random(self, n):
        return np.full(n, self.value)


@pytest.mark.parametrize("u", [0.0, 1 - 2**-53])
@pytest.mark.parametrize("size", [2, 3, 4, 5, 21])
def test_states_of_probability_zero_are_never_drawn(u, size):
    rng = np.random.default_rng(size)
    for _ in range(50):
        values = rng.random((size, 6)) * (rng.random((size, 6)) < 0.6)
        values[rng.integers(size), values.sum(0) == 0] = 1
        values = values / values.sum(0)  # sums that rounding may leave below one
        states = {"a": range(6), "b": range(size)}
        tables = bayesian(states, [Factor(("a",), np.full(6, 1 / 6)), Factor(("b", "a"), values)])
        for column in range(6):
            drawn = sample_indices(tables, 1, Extreme(u), {"a": column})["b"][0]
            possible = np.flatnonzero(values[:, column])
            assert drawn == possible[0 if u == 0 else -1]


def test_many_states_follow_their_table():
    rng = np.random.default_rng(1)
    p = rng.random(300) * (rng.random(300) < 0.7)
    p[-1] = 0
    p /= p.sum()
    tables = bayesian({"a": range(300)}, [Factor(("a",), p)])
    drawn = sample_indices(tables, 100_000, rng)["a"]
    assert drawn.dtype == np.int16
    counts = np.bincount(drawn, minlength=300)
    assert not counts[p == 0].any()
    assert stats.chisquare(counts[p > 0], 100_000 * p[p > 0]).pvalue > 1e-3


def test_sizes_of_samples():
    empty = graphs.sample(FOUR, 0)
    assert len(empty) == 0 and list(empty.columns) == list(FOUR.states)
    assert list(empty["d"].cat.categories) == ["d0", "d1", "d2", "d3"]
    assert graphs.log_probability(FOUR, empty).shape == (0,)
    with pytest.raises(ValueError, match="at least 0; got -1"):
        graphs.sample(FOUR, -1)
    with pytest.raises(TypeError, match=r"whole number; got 2\.5"):
        graphs.sample(FOUR, 2.5)
    with pytest.raises(TypeError, match="Bayesian network"):
        graphs.sample([("ab", np.ones((2, 2)))], 3)


def test_marginals_of_a_large_network():
    """A chain of 300 variables: its marginals by multiplication."""
    parents = {i: [i - 1] if i else [] for i in range(300)}
    chain = network(parents, dict.fromkeys(parents, 3), seed=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = sample_indices(chain, 20_000, np.random.default_rng(0))
    marginal = chain.conditional(0)
    scores = []
    for i in range(300):
        marginal = chain.conditional(i) @ marginal if i else marginal
        counts = np.bincount(drawn[i], minlength=3)
        scores.append(stats.chisquare(counts, 20_000 * marginal).pvalue)
    assert min(scores) > 1e-3 / 300
    assert stats.kstest(scores, "uniform").pvalue > 1e-4
