"""Factor graphs in libDAI's format: read as they are written, or refused with the line."""

import gzip
import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pgmpy.factors.discrete import DiscreteFactor
from pgmpy.models import DiscreteMarkovNetwork

import graphs
from graphs.factor_graph import FactorGraph
from graphs.tables import Factor, Tables, tables_of
from tests.networks import quietly, random_factors

# The factor over 4, 8 and 7 of the format's description: entry 5 is zero, 10 and 11 exchanged.
DESCRIBED = """# factors over three variables
2

3
4 8 7
3 2 2
11
0 0.1
1 3.5
2 2.8
3 6.3
4 8.4
6 7.4
7 2.4
8 8.9
9 1.3
11 2.6
10 1.6   # out of order

# the second
1
7
2
2
0 2
1 0.5e1
"""


def written(folder: Path, text: str, name: str = "x.fg") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def assert_same(found: Tables, wanted: Tables, rtol: float = 0.0) -> None:
    """The same factors over the same variables, up to the labels of states."""
    assert found.cardinalities == wanted.cardinalities
    assert len(found.factors) == len(wanted.factors)
    for one, other in zip(found.factors, wanted.factors, strict=True):
        assert one.variables == other.variables
        np.testing.assert_allclose(one.values, other.values, rtol=rtol, atol=0)


def test_the_first_variable_varies_fastest(tmp_path):
    tables = graphs.read(written(tmp_path, DESCRIBED))
    assert tables.states == {4: (0, 1, 2), 7: (0, 1), 8: (0, 1)} and not tables.directed
    (scope, values), (single, vector) = tables.factors
    assert scope == (4, 8, 7) and single == (7,) and vector.tolist() == [2.0, 5.0]
    flat = [0.1, 3.5, 2.8, 6.3, 8.4, 0.0, 7.4, 2.4, 8.9, 1.3, 1.6, 2.6]
    for x4, x8, x7 in product(range(3), range(2), range(2)):
        assert values[x4, x8, x7] == flat[x4 + 3 * x8 + 6 * x7]
    assert tables.name == "x"


def test_a_fg_file_is_loaded_as_a_factor_graph(tmp_path):
    path = written(tmp_path, DESCRIBED)
    graph, tables = graphs.load(path), graphs.read(path)
    assert isinstance(graph, FactorGraph)
    assert graph.variables == (4, 7, 8) and len(graph.factors) == 2 and graph.name == "x"
    assert_same(Tables(graph.states, [Factor(v, np.exp(t)) for v, t in graph.factors]),
                tables, 1e-15)  # fmt: skip
    assert np.isneginf(graph.factors[0].log_table[2, 1, 0])
    total = graph.score({4: 1, 8: 0, 7: 1})
    assert total == pytest.approx(np.log(2.4 * 5.0), abs=1e-14)
    zipped = tmp_path / "y.FG.gz"
    zipped.write_bytes(gzip.compress(DESCRIBED.replace("\n", "\r\n").encode()))
    assert_same(graphs.read(zipped), tables)
    assert isinstance(graphs.load(zipped), FactorGraph)


def test_constants_and_variables_of_one_state(tmp_path):
    tables = graphs.read(written(tmp_path, "2\n0\n\n\n1\n0 2.5\n\n2\n900 3\n1 2\n2\n0 1\n1 3\n"))
    assert tables.factors[0].variables == () and float(tables.factors[0].values) == 2.5
    assert tables.factors[1].values.tolist() == [[1.0, 3.0]]
    assert tables.cardinalities == {3: 2, 900: 1}
    engine = graphs.JunctionTree(FactorGraph.of(tables))
    assert engine.log_partition == pytest.approx(np.log(10.0))


LINES = DESCRIBED.splitlines(keepends=True)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\n2\n\n3\n", "\n-2\n\n3\n", "line 2: the number of factors must be a whole number"),
        ("3\n4 8 7", "63\n4 8 7", "line 4: factor 0 has 63 variables, over 62"),
        ("4 8 7", "4 8 4", r"line 5: factor 0 names a variable twice: \[4, 8, 4\]"),
        ("4 8 7", "4 x 7", "line 5: a variable of factor 0 must be a whole number; got 'x'"),
        ("4 8 7", "4 -8 7", "line 5: a variable of factor 0 must be a whole number; got '-8'"),
        ("3 2 2", "3 0 2", "line 6: variable 8 has no states"),
        ("3 2 2", "3 2 99999999", "line 6: the tables up to that of factor 0 would have"),
        ("\n11\n", "\n13\n", "line 7: factor 0 has 12 entries, not 13"),
        ("3 6.3", "12 6.3", "line 11: factor 0 has entries 0 to 11; got 12"),
        ("3 6.3", "2 6.3", "line 11: factor 0 has the entry 2 twice"),
        ("3 6.3", "-3 6.3", "line 11: the index of an entry of factor 0 must be a whole"),
        ("3 6.3", "3 -6.3", "line 11: entry 3 of factor 0 must be finite and not negative"),
        ("3 6.3", "3 nan", "line 11: entry 3 of factor 0: 'nan' is not a number"),
        ("3 6.3", "3 inf", "line 11: entry 3 of factor 0: 'inf' is not a number"),
        ("3 6.3", "3 1e999", "line 11: entry 3 of factor 0 must be finite"),
        ("3 6.3", "3 6_3", "line 11: entry 3 of factor 0: '6_3' is not a number"),
        ("3 6.3", "3 1 6.3", "line 11: the index of an entry of factor 0 must be .*; got '6.3'"),
        ("7\n2\n2\n0 2", "7\n3\n2\n0 2", "line 23: factor 1 has 3 states for variable 7, which"),
        ("0.5e1\n", "0.5e1\n7", "line 27: '7' follows where the file should end"),
        ("0.5e1", "", "line 26: the file ends where entry 1 of factor 1 should follow; it is cut"),
    ],
)  # fmt: skip
def test_broken_files_are_refused_with_the_line(tmp_path, old, new, message):
    assert DESCRIBED.count(old) == 1
    path = written(tmp_path, DESCRIBED.replace(old, new))
    for read in (graphs.read, graphs.load):
        with pytest.raises(ValueError, match=f"x.fg: ({message})"):
            read(path)


def test_every_cut_is_noticed(tmp_path):
    """All but the last digits of the last number, and spaces and comments."""
    end = len(DESCRIBED.rstrip()) - len("0.5e1")
    for cut in range(end):
        with pytest.raises(ValueError, match="line"):
            graphs.read(written(tmp_path, DESCRIBED[:cut]))


def test_empty_files_and_factors_of_zeros(tmp_path):
    for text, message in (("", "the number of factors"), ("# none\n0\n", "declares no variable")):
        with pytest.raises(ValueError, match=message):
            graphs.read(written(tmp_path, text))
    path = written(tmp_path, "1\n\n1\n0\n2\n0\n")
    assert graphs.read(path).factors[0].values.tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match=r"x.fg: the log-table over 0 is -inf everywhere"):
        graphs.load(path)


def test_a_large_file_of_zeros_asks_for_no_memory(tmp_path):
    block = "2\n{} {}\n8000 8000\n0\n"
    blocks = "".join(block.format(2 * i, 2 * i + 1) for i in range(50))
    with pytest.raises(ValueError, match="up to that of factor 2 would have 192000000 entries"):
        graphs.read(written(tmp_path, "50\n" + blocks))


# Writing


@st.composite
def number_factors(draw):
    """Linear factors over variables with gaps in their numbers."""
    names = draw(st.lists(st.integers(0, 10**12 - 1), min_size=1, max_size=5, unique=True))
    sizes = {v: draw(st.integers(1, 3)) for v in names}
    factors = []
    for _ in range(draw(st.integers(1, 5))):
        scope = draw(st.lists(st.sampled_from(names), max_size=3, unique=True))
        shape = [sizes[v] for v in scope]
        entry = st.one_of(st.just(0.0), st.floats(1e-300, 1e300))
        size = int(np.prod(shape, dtype=int))
        values = draw(st.lists(entry, min_size=size, max_size=size))
        factors.append(Factor(tuple(scope), np.array(values).reshape(shape)))
    return Tables({v: (*range(k),) for v, k in sizes.items()}, factors)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(number_factors())
def test_what_is_written_is_read_bit_by_bit(tmp_path, tables):
    path = tmp_path / "x.fg"
    graphs.save(tables, path, overwrite=True)
    found = graphs.read(path)
    bare = set(tables.states) - {v for variables, _ in tables.factors for v in variables}
    ones = [Factor((v,), np.ones(len(s))) for v, s in tables.states.items() if v in bare]
    assert_same(found, Tables(tables.states, [*tables.factors, *ones]))
    assert list(found.states) == sorted(tables.states)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ending", ["fg", "uai"])
def test_a_factor_graph_is_saved_unscaled(tmp_path, seed, ending):
    rng = np.random.default_rng(seed)
    factors = [
        ((2, 30), rng.normal(size=(3, 4)) * 30.0 + 200.0),
        ((30, 2, 5), np.where(rng.random((4, 3, 2)) < 0.3, -np.inf, rng.normal(size=(4, 3, 2)))),
        ((), np.array(-321.5)),
        ((5,), rng.normal(size=2) - 500.0),
    ]
    graph = FactorGraph({2: 3, 5: 2, 30: 4, 31: 2}, factors)
    path = tmp_path / f"x.{ending}"
    graphs.save(graph, path)
    again = FactorGraph.of(graphs.read(path))
    renamed = {v: i if ending == "uai" else v for i, v in enumerate(graph.variables)}
    assert again.cardinalities == {renamed[v]: k for v, k in graph.cardinalities.items()}
    for (scope, log_table), (other, found) in zip(graph.factors, again.factors, strict=False):
        assert tuple(renamed[v] for v in scope) == other
        np.testing.assert_allclose(found, log_table, rtol=1e-15, atol=1e-15)
    assert len(again.factors) == len(factors) + (ending == "fg")  # ones for the bare variable 31
    one, two = graphs.JunctionTree(graph), graphs.JunctionTree(again)
    assert two.log_partition == pytest.approx(one.log_partition, abs=1e-11)


def test_each_factor_is_saved_as_it_is_where_the_scales_cancel(tmp_path):
    graph = FactorGraph([2], [((0,), np.array([2.0, 1.0])), ((0,), np.array([-2.0, -3.0]))])
    assert graph.tables().log_scale == 0.0
    for ending in ("fg", "uai"):
        graphs.save(graph, tmp_path / f"x.{ending}")
        first, second = graphs.read(tmp_path / f"x.{ending}").factors
        np.testing.assert_allclose(first.values, np.exp([2.0, 1.0]), rtol=1e-15)
        np.testing.assert_allclose(second.values, np.exp([-2.0, -3.0]), rtol=1e-15)


def test_tables_that_have_a_scale_are_saved_with_it(tmp_path):
    tables = FactorGraph([2], [((0,), np.array([50.0, 52.0]))]).tables()
    assert tables.log_scale == 52.0
    for ending in ("fg", "uai"):
        graphs.save(tables, tmp_path / f"x.{ending}")
        found = graphs.read(tmp_path / f"x.{ending}")
        total = graphs.JunctionTree(found).log_partition
        assert total == pytest.approx(np.logaddexp(50.0, 52.0), abs=1e-13)


@pytest.mark.parametrize(("entry", "said"), [(1000.0, "1000"), (-720.0, "-720"), (-1e4, "-10000")])
def test_what_float64_cannot_hold_is_not_written(tmp_path, entry, said):
    graph = FactorGraph([2, 2], [((0,), np.zeros(2)), ((1, 0), np.array([[0, 1], [entry, 2.0]]))])
    for ending in ("fg", "uai"):
        path = tmp_path / f"x.{ending}"
        message = rf"factor 1 over 1, 0 has the log-potential {said}, .*subtract a constant"
        with pytest.raises(ValueError, match=message):
            graphs.save(graph, path)
        assert not path.exists()


def test_batches_and_names_that_are_no_numbers_are_refused(tmp_path):
    batch = FactorGraph.grid(np.zeros((3, 1, 2, 2)), np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"a batch of 3 fields; take one of them: field\(i\)"):
        graphs.save(batch, tmp_path / "x.fg")
    for name in ("a", -1, (0, 0), True, 1.0, 10**12):
        graph = FactorGraph({name: 2}, [((name,), np.zeros(2))])
        message = f"hold numbers only.*{re.escape(repr(name))}.*save as .uai"
        with pytest.raises(ValueError, match=message):
            graphs.save(graph, tmp_path / "x.fg")
    with pytest.raises(TypeError, match=r"\.bif files hold Bayesian networks only.*\.uai or \.fg"):
        graphs.save(FactorGraph([2], []), tmp_path / "x.bif")
    assert not list(tmp_path.iterdir())


def test_one_field_of_a_batch_and_tensors_are_saved(tmp_path):
    torch = pytest.importorskip("torch")
    table = torch.tensor([[0.0, 1.0]], dtype=torch.float32, requires_grad=True)
    graph = FactorGraph([2], [((0,), table)])
    assert graph.batch == 1
    graphs.save(graph, tmp_path / "x.fg")
    values = graphs.read(tmp_path / "x.fg").factors[0].values
    np.testing.assert_allclose(values, [1.0, np.e], rtol=1e-15)


def test_markov_and_bayesian_networks_with_numbers_for_names(tmp_path):
    model = DiscreteMarkovNetwork([(3, 1)])
    values = np.arange(1.0, 7.0)
    model.add_factors(DiscreteFactor([3, 1], [2, 3], values))
    graphs.save(model, tmp_path / "m.fg")
    assert_same(graphs.read(tmp_path / "m.fg"), tables_of(model))
    tables = quietly(graphs.read, "asia")
    graphs.save(tables, tmp_path / "asia.uai")
    numbered = graphs.load(tmp_path / "asia.uai")
    graphs.save(numbered, tmp_path / "asia.fg")
    again = graphs.load(tmp_path / "asia.fg")
    assert_same(graphs.read(tmp_path / "asia.fg"), tables_of(numbered))
    assert graphs.JunctionTree(again).log_partition == pytest.approx(0.0, abs=1e-14)
    with pytest.raises(ValueError, match=r"hold numbers only.*'asia'"):
        graphs.save(tables, tmp_path / "named.fg")


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 5, 6, 7, 8])
def test_factors_of_any_kind_by_way_of_uai_and_fg(tmp_path, seed):
    given = tables_of(random_factors(np.random.default_rng(seed)))
    graphs.save(given, tmp_path / "x.uai")
    numbered = graphs.read(tmp_path / "x.uai")
    graphs.save(numbered, tmp_path / "x.fg")
    assert_same(graphs.read(tmp_path / "x.fg"), numbered)
    mapping = dict(enumerate(given.states))
    for one, other in zip(numbered.factors, given.factors, strict=True):
        assert tuple(mapping[v] for v in one.variables) == other.variables
        assert (one.values == other.values).all()
