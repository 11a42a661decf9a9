"""Parameters from data: counting and EM against formulas and enumerated completions."""

import gzip
import math
import sys
import warnings
from itertools import product

import networkx as nx
import numpy as np
import pandas as pd
import pytest

import graphs.exact.engine
import graphs.learning.expectation
from graphs.directed import log_probability, sample
from graphs.exact.junction_tree import JunctionTree
from graphs.learning.counts import MANY, counts, read_cells
from graphs.learning.expectation import Expectation
from graphs.learning.learn import _pseudo_count, em, initial_tables, learn_parameters, maximised
from graphs.progress import Bar
from graphs.tables import Factor, bayesian, tables_of

STATES = {"a": ("no", "yes"), "b": (0, 1, 2), ("c", 1): ("x", "y"), "d": ("p", "q", "r")}
ARCS = [("a", ("c", 1)), ("b", ("c", 1)), (("c", 1), "d"), ("a", "d")]
DAG = nx.DiGraph()
DAG.add_nodes_from(STATES)
DAG.add_edges_from(ARCS)
QUIET = {"progress": False}


def network(seed: int = 0, concentration: float = 5.0):
    """Random tables for the graph."""
    rng = np.random.default_rng(seed)
    factors = []
    for v in DAG:
        parents = list(DAG.predecessors(v))
        shape = [len(STATES[p]) for p in parents]
        table = rng.dirichlet(np.full(len(STATES[v]), concentration), size=shape)
        factors.append(Factor((v, *parents), np.moveaxis(table, -1, 0)))
    return bayesian(STATES, factors)


def rows(n: int, seed: int = 0) -> pd.DataFrame:
    return sample(network(), n, seed=seed)


def holes(frame: pd.DataFrame, share: float, seed: int = 0) -> pd.DataFrame:
    return frame.mask(np.random.default_rng(seed).random(frame.shape) < share)


def tables_by_family(model) -> dict:
    tables = tables_of(model)
    return {factor.variables: factor.values for factor in tables.factors}


# Complete data


def test_maximum_likelihood_is_the_frequencies():
    data = rows(500)
    found = learn_parameters(DAG, data, **QUIET)
    for family, table in tables_by_family(found.model).items():
        for states in product(*(range(len(STATES[v])) for v in family)):
            chosen = [data[v] == STATES[v][k] for v, k in zip(family, states, strict=True)]
            both = np.logical_and.reduce(chosen).sum()
            given = np.logical_and.reduce([np.ones(500, bool), *chosen[1:]]).sum()
            assert table[states] == pytest.approx(both / given, abs=1e-14)
    assert found.log_likelihood == pytest.approx(log_probability(found.model, data).sum(), abs=1e-9)
    assert found.mean_log_likelihood == pytest.approx(found.log_likelihood / 500)
    assert found.iterations == 0 and found.converged and found.missing == 0
    assert found.log_likelihood >= log_probability(network(), data).sum()


@pytest.mark.parametrize("method", ["bdeu", "k2"])
def test_pseudo_counts_are_those_of_the_formula(method):
    data = rows(60)
    found = learn_parameters(DAG, data, method=method, equivalent_sample_size=7, **QUIET)
    for family, table in tables_by_family(found.model).items():
        codes = [[STATES[v].index(state) for state in data[v]] for v in family]
        count = np.zeros(table.shape)
        np.add.at(count, tuple(codes), 1)
        alpha = 1.0 if method == "k2" else 7 / table.size
        assert np.allclose(table, (count + alpha) / (count + alpha).sum(0), atol=1e-14)
    assert found.undefined == 0
    total = log_probability(found.model, data).sum()
    assert found.log_likelihood == pytest.approx(total, abs=1e-9)


def test_agrees_with_pgmpy():
    from pgmpy.models import DiscreteBayesianNetwork
    from pgmpy.parameter_estimator import DiscreteBayesianEstimator, DiscreteMLE

    data = rows(400).rename(columns={("c", 1): "c"}).astype(str)
    arcs = [tuple("c" if v == ("c", 1) else v for v in arc) for arc in ARCS]
    for method, estimator in (
        ("maximum_likelihood", DiscreteMLE()),
        ("bdeu", DiscreteBayesianEstimator(prior_type="BDeu", equivalent_sample_size=10)),
    ):
        found = learn_parameters(arcs, data, method=method, **QUIET).model
        peer = DiscreteBayesianNetwork(arcs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            peer.add_cpds(*estimator.fit(peer, data).parameters_)
        theirs = log_probability(peer, data)
        assert np.allclose(log_probability(found, data), theirs, atol=1e-10)
        assert found.check_model()


def test_parent_configurations_without_data_are_uniform_and_reported_once():
    data = rows(500)
    data = data[~((data["a"] == "yes") & (data["b"] == 1))]
    with pytest.warns(UserWarning, match="1 parent configurations have no data") as said:
        found = learn_parameters(DAG, data, **QUIET)
    assert len(said) == 1 and found.undefined == 1
    table = tables_by_family(found.model)[("c", 1), "a", "b"]
    assert (table[:, 1, 1] == 0.5).all()
    assert "1 parent configurations without data: uniform" in str(found)
    assert learn_parameters(DAG, data, method="k2", **QUIET).undefined == 0


def test_kinds_of_graphs_and_of_states():
    data = rows(300)
    one = learn_parameters(DAG, data, **QUIET)
    for graph in (ARCS, one.model, network()):
        other = learn_parameters(graph, data, **QUIET)
        assert other.log_likelihood == pytest.approx(one.log_likelihood, abs=1e-9)
    assert tables_of(one.model).states == STATES
    # states by order given, by number, and with one that never occurs
    two = learn_parameters(DAG, data, states={"a": ["yes", "no"], "b": 4}, method="k2", **QUIET)
    assert tables_of(two.model).states["a"] == ("yes", "no")
    assert tables_of(two.model).states["b"] == (0, 1, 2, 3)
    flipped = tables_by_family(two.model)["a",]
    assert flipped[0] == pytest.approx(((data["a"] == "yes").sum() + 1) / 302)
    # columns in no arc are variables of their own
    spare = learn_parameters([("a", "b")], data[["a", "b", "d"]], **QUIET)
    assert list(spare.model.nodes) == ["a", "b", "d"] and len(spare.model.edges) == 1


def test_numbers_with_gaps_truth_values_and_mixed_cells():
    frame = pd.DataFrame({"n": [1.0, None, 10.0, 2.0], "t": [True, False, None, True]})
    cells = read_cells(frame)
    assert cells.states == {"n": (1, 2, 10), "t": (False, True)}
    assert cells.codes["n"].tolist() == [0, -1, 2, 1]
    assert cells.codes["t"].tolist() == [1, 0, -1, 1]
    assert cells.missing == {"n": 1, "t": 1}
    mixed = read_cells(pd.DataFrame({"m": pd.Series([1, True, "1", pd.NA], dtype=object)}))
    assert mixed.states["m"] == (1, True)
    assert mixed.codes["m"].tolist() == [0, 1, 0, -1]
    halves = read_cells(pd.DataFrame({"h": [0.5, 1.5, 1.0]}))
    assert halves.states["h"] == (0.5, 1.0, 1.5)


def test_counts_against_a_loop():
    rng = np.random.default_rng(0)
    columns, sizes = [rng.integers(0, k, 200) for k in (3, 1, 4)], [3, 1, 4]
    expected = np.zeros(sizes, int)
    for index in zip(*columns, strict=True):
        expected[index] += 1
    assert (counts(columns, sizes) == expected).all()


# EM


def brute_force_step(families, tables, codes, sizes):
    """log-likelihood and expected counts, each row's completions enumerated."""
    variables = list(sizes)
    total = 0.0
    found = [np.zeros(table.shape) for table in tables]
    for r in range(len(codes[variables[0]])):
        seen = [int(codes[v][r]) for v in variables]
        free = [range(sizes[v]) if s < 0 else [s] for v, s in zip(variables, seen, strict=True)]
        if all(s < 0 for s in seen):
            continue
        weights = {}
        for states in product(*free):
            full = dict(zip(variables, states, strict=True))
            weights[states] = math.prod(
                float(table[tuple(full[v] for v in family)])
                for family, table in zip(families, tables, strict=True)
            )
        norm = math.fsum(weights.values())
        total += math.log(norm)
        for states, weight in weights.items():
            full = dict(zip(variables, states, strict=True))
            for i, family in enumerate(families):
                found[i][tuple(full[v] for v in family)] += weight / norm
    return total, found


@pytest.fixture(params=["whole", "chunks", "sliced"])
def way(request, monkeypatch):
    """All rows at once; few at a time; and by what the evidence leaves of an expensive model."""
    if request.param == "chunks":
        monkeypatch.setattr(graphs.learning.expectation, "CHUNK", 300)
    if request.param == "sliced":
        monkeypatch.setattr(graphs.exact.engine, "EXPENSIVE", 0)
        monkeypatch.setattr(graphs.exact.engine.Engine, "_affordable", lambda *_: True)
    return request.param


@pytest.mark.parametrize("method", ["maximum_likelihood", "bdeu", "k2"])
@pytest.mark.parametrize("hidden", [(), ("d",), (("c", 1), "b")])
def test_every_step_of_em_equals_enumerated_completions(way, method, hidden):
    data = holes(rows(40), 0.25).drop(columns=list(hidden))
    if len(hidden) == 1:
        data["a"] = rows(40)["a"]  # observed in every row
    data.iloc[3] = None
    cells = read_cells(data, variables=list(STATES), states=STATES)
    families = [(v, *DAG.predecessors(v)) for v in STATES]
    sizes = cells.sizes
    priors = [_pseudo_count(method, 5.0, [sizes[v] for v in f]) for f in families]
    tables = initial_tables(cells, families, np.random.default_rng(1), random=True)
    expectation = Expectation(cells, families)
    codes = {v: cells.codes.get(v, np.full(40, -1)) for v in STATES}
    for _ in range(4):
        log_likelihood, expected = expectation(tables)
        exact, by_hand = brute_force_step(families, tables, codes, sizes)
        assert log_likelihood == pytest.approx(exact, abs=1e-10)
        for one, other in zip(expected, by_hand, strict=True):
            assert np.allclose(one, other, atol=1e-10)
        tables = maximised(expected, priors)
    # the loop itself takes the same steps
    first = initial_tables(cells, families, np.random.default_rng(1), random=True)
    with Bar("EM", shown=False) as bar:
        run = em(Expectation(cells, families), first, priors, 4, 0.0, bar)
    for one, other in zip(run.tables, tables, strict=True):
        assert np.allclose(one, other, atol=1e-10)


def test_em_on_complete_data_is_counting_in_one_step():
    data = rows(300)
    cells = read_cells(data, variables=list(DAG))
    families = [(v, *DAG.predecessors(v)) for v in STATES]
    first = initial_tables(cells, families, np.random.default_rng(0), random=True)
    with Bar("EM", shown=False) as bar:
        run = em(Expectation(cells, families), first, [0.0] * 4, 50, 1e-12, bar)
    assert len(run.log_likelihoods) == 3 and run.converged  # the step, and one that gains nothing
    exact = tables_by_family(learn_parameters(DAG, data, **QUIET).model)
    for family, table in zip(families, run.tables, strict=True):
        assert np.allclose(table, exact[family], atol=1e-14)


@pytest.mark.parametrize("method", ["maximum_likelihood", "bdeu", "k2"])
def test_the_objective_never_falls(method):
    import graphs

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "alarm: 6 columns", UserWarning)
        alarm = graphs.load("alarm")
    data = holes(sample(alarm, 300), 0.3)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*parent configurations have no data", UserWarning)
        found = learn_parameters(alarm, data, method=method, max_iterations=25, **QUIET)
    curve = np.array(found.objectives)
    assert len(curve) > 5 and curve[-1] > curve[0] + 1
    assert (np.diff(curve) >= -1e-9 * abs(curve[-1])).all()
    assert found.log_likelihood == found.log_likelihoods[-1]
    exact = JunctionTree(found.model).query(data.astype(object), targets=[]).log_evidence.sum()
    assert found.log_likelihood == pytest.approx(float(exact), rel=1e-10)
    if method == "maximum_likelihood":
        assert found.objectives == found.log_likelihoods


def test_converges_to_a_stationary_point():
    data = holes(rows(400), 0.2)
    found = learn_parameters(DAG, data, tolerance=1e-13, max_iterations=5000, **QUIET)
    assert found.converged and found.iterations > 5
    again = learn_parameters(DAG, data, tolerance=1e-13, max_iterations=3, **QUIET)
    assert not again.converged and again.iterations == 3
    assert "not converged after 3 steps" in str(again)
    # no small change of a table gains: the derivative along the simplex vanishes
    cells = read_cells(data, variables=list(DAG))
    families = [(v, *DAG.predecessors(v)) for v in STATES]
    tables = [tables_by_family(found.model)[family] for family in families]
    _, expected = Expectation(cells, families)(tables)
    for one, other in zip(maximised(expected, [0.0] * 4), tables, strict=True):
        assert np.allclose(one, other, atol=1e-4)


def test_rows_without_any_cell_change_nothing():
    data = holes(rows(200), 0.2)
    empty = pd.DataFrame([[None] * 4] * 50, columns=data.columns)
    more = pd.concat([data.astype(object), empty], ignore_index=True)
    one, two = (learn_parameters(DAG, d, states=STATES, **QUIET) for d in (data, more))
    assert two.log_likelihood == pytest.approx(one.log_likelihood, rel=1e-12)
    assert two.rows == 250 and two.missing == one.missing + 200


def test_a_latent_class_is_recovered():
    rng = np.random.default_rng(0)
    z = rng.random(6000) < 0.35
    yes = {"q1": (0.9, 0.2), "q2": (0.85, 0.1), "q3": (0.15, 0.7), "q4": (0.8, 0.25)}
    frame = pd.DataFrame({v: rng.random(6000) < np.where(z, p, q) for v, (p, q) in yes.items()})
    arcs = [("class", v) for v in yes]
    found = learn_parameters(arcs, frame, states={"class": ["one", "two"]}, starts=3, **QUIET)
    tables = tables_by_family(found.model)
    share = tables["class",]
    k = int(share.argmin())  # the classes have no order
    assert share[k] == pytest.approx(0.35, abs=0.04)
    for v, (p, q) in yes.items():
        assert tables[v, "class"][1, k] == pytest.approx(p, abs=0.06)
        assert tables[v, "class"][1, 1 - k] == pytest.approx(q, abs=0.06)
    apart = learn_parameters(nx.empty_graph(list(yes), nx.DiGraph), frame, **QUIET)
    assert found.log_likelihood > apart.log_likelihood + 500
    assert len(found.starts) == 3 and max(found.starts) == found.objectives[-1]
    assert found.model.latents == {"class"} and found.missing == 6000
    again = learn_parameters(arcs, frame, states={"class": 2}, starts=3, **QUIET)
    assert again.log_likelihoods == found.log_likelihoods
    other = learn_parameters(arcs, frame, states={"class": 2}, starts=3, seed=1, **QUIET)
    assert other.log_likelihoods != found.log_likelihoods
    assert other.log_likelihood == pytest.approx(found.log_likelihood, abs=0.1)


# The engine's part


def test_joint_marginals_have_their_axes_as_asked_and_tables_can_be_replaced():
    model, other = network(0), network(1)
    engine = JunctionTree(model)
    scopes = [("a", "d"), ("d", "a"), (("c", 1), "b", "a"), ("b", ("c", 1))]
    for tables in (model, other):
        full = np.einsum(
            *[x for f in tables.factors for x in (f.values, [[*STATES].index(v) for v in f[0]])],
            [0, 1, 2, 3],
        )
        engine._engine.rebind([f.values for f in tables.factors])
        posterior = engine.query()
        for scope in scopes:
            axes = [[*STATES].index(v) for v in scope]
            exact = np.einsum(full, [0, 1, 2, 3], axes)
            assert np.allclose(posterior.joint(*scope).numpy(), exact, atol=1e-14)
        many = engine.query({"a": ["no", "yes", None] * 20})
        exact = np.einsum(full, [0, 1, 2, 3], [3, 0])
        given = exact / exact.sum(0)
        found = many.joint("d", "b").numpy()
        assert np.allclose(found.sum(2)[:2].T, given, atol=1e-13)


def test_joint_marginals_of_every_family_of_a_larger_network():
    import graphs

    model = graphs.load("asia")
    posterior = JunctionTree(model).query()
    for cpd in model.cpds:
        table = posterior.joint(*cpd.variables).numpy()
        for axis, variable in enumerate(cpd.variables):
            others = tuple(i for i in range(table.ndim) if i != axis)
            assert np.allclose(table.sum(others), posterior[variable].numpy(), atol=1e-14)
        assert np.allclose(table, cpd.values * table.sum(0), atol=1e-14)


# At the door


def test_files(tmp_path):
    data = holes(rows(200).rename(columns={("c", 1): "c"}), 0.1).astype(object)
    arcs = [tuple("c" if v == ("c", 1) else v for v in arc) for arc in ARCS]
    expected = learn_parameters(arcs, data, **QUIET).log_likelihood
    for name in ("data.csv", "data.csv.gz", "DATA.CSV"):
        data.to_csv(tmp_path / name, index=False)
        found = learn_parameters(arcs, tmp_path / name, **QUIET)
        assert found.log_likelihood == pytest.approx(expected, rel=1e-12)
    text = "a,b\nNA,1\nTRUE,01\n,1\nTRUE,nan\n"
    (tmp_path / "na.csv").write_text(text)
    cells = read_cells(tmp_path / "na.csv")
    assert cells.states == {"a": ("TRUE",), "b": ("01", "1")}
    assert cells.codes["b"].tolist() == [1, 0, 1, -1]
    named = read_cells(tmp_path / "na.csv", states={"a": ["NA", "TRUE"]})
    assert named.codes["a"].tolist() == [0, 1, -1, 1]


def raises(error, text, *arguments, **options):
    with pytest.raises(error, match=text) as caught:
        learn_parameters(*arguments, **options, **QUIET)
    assert "\n" not in str(caught.value)


def test_errors_of_data():
    frame = pd.DataFrame({"a": ["x", "y"] * 50, "b": [0, 1] * 50})
    arcs = [("a", "b")]
    dag = nx.DiGraph(arcs)
    raises(TypeError, "DataFrame with one column a variable.*got list", dag, [1, 2])
    raises(ValueError, "0 rows and 2 columns", dag, frame.iloc[:0])
    raises(ValueError, "100 rows and 0 columns", dag, frame[[]])
    raises(ValueError, "column 'a' more than once", dag, frame[["a", "b", "a"]])
    raises(ValueError, "to_csv.index=False", dag, frame.rename(columns={"b": None}))
    wide = frame.copy()
    wide.columns = pd.MultiIndex.from_tuples([("a", 1), ("b", 1)])
    raises(ValueError, "several levels", dag, wide)
    raises(ValueError, "no variable 'aa'; did you mean a?", dag, frame.assign(aa=1))
    raises(ValueError, "no column 'b'; did you mean bb?", arcs, frame.rename(columns={"b": "bb"}))
    raises(ValueError, "its states: states=.'b'", dag, frame[["a"]])
    raises(ValueError, 'no state .z. of a; known: x, y', dag, frame.replace("y", "z"),
           states={"a": ["x", "y"]})  # fmt: skip
    rng = np.random.default_rng(0)
    raises(ValueError, "a has 100 different numbers.*bin it", dag, frame.assign(a=rng.random(100)))
    texts = frame.assign(a=[str(x) for x in rng.random(100)])
    raises(ValueError, "a has 100 different numbers.*bin it", dag, texts)
    names = pd.DataFrame({"a": [f"row {i}" for i in range(MANY + 1)], "b": 0})
    raises(ValueError, "1,001 different values.*identifier", dag, names)
    raises(ValueError, "every cell of b is missing", dag, frame.assign(b=None))
    raises(TypeError, "a cell of b is a list", dag, frame.assign(b=[[1]] * 100))
    raises(ValueError, "no variable 'c'", dag, frame, states={"c": 2})
    raises(TypeError, "states of b must be a list", dag, frame, states={"b": "01"})
    raises(ValueError, "b needs one state or more", dag, frame, states={"b": 0})
    raises(ValueError, "same text", dag, frame, states={"b": [0, "0", 1]})


def test_errors_of_files(tmp_path, monkeypatch):
    dag = nx.DiGraph([("a", "b")])
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    raises(FileNotFoundError, "did you mean rows.csv", dag, tmp_path / "row.csv")
    raises(ValueError, "ending must be .csv", dag, tmp_path / "rows.txt")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    raises(ModuleNotFoundError, "pip install pyarrow", dag, tmp_path / "rows.parquet")
    (tmp_path / "empty.csv").write_text("")
    raises(ValueError, "empty.csv is empty", dag, tmp_path / "empty.csv")
    (tmp_path / "header.csv").write_text("a,b\n")
    raises(ValueError, "0 rows and 2 columns", dag, tmp_path / "header.csv")
    (tmp_path / "twice.csv").write_text("a,b,a\n1,2,3\n")
    raises(ValueError, "column 'a' more than once", dag, tmp_path / "twice.csv")
    (tmp_path / "index.csv").write_text(",a,b\n0,1,2\n")
    raises(ValueError, "has no name", dag, tmp_path / "index.csv")
    (tmp_path / "ragged.csv").write_text("a,b\n1,2,3\n")
    raises(
        ValueError,
        "ragged.csv, line 2: 3 cells, where the header has 2",
        dag,
        tmp_path / "ragged.csv",
    )
    (tmp_path / "latin.csv").write_bytes("a,b\n\xe9,1\n".encode("latin-1"))
    raises(ValueError, "latin.csv cannot be read as a table", dag, tmp_path / "latin.csv")
    (tmp_path / "broken.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n" * 99)[:20])
    raises(ValueError, "broken.csv.gz cannot be read", dag, tmp_path / "broken.csv.gz")


def test_errors_of_the_question():
    frame = pd.DataFrame({"a": ["x", "y"], "b": [0, 1]})
    dag = nx.DiGraph([("a", "b")])
    raises(ValueError, "no method 'mle'", dag, frame, method="mle")
    raises(ValueError, "equivalent_sample_size", dag, frame, equivalent_sample_size=0)
    raises(ValueError, "starts must be at least 1", dag, frame, starts=0)
    raises(TypeError, "max_iterations must be a whole", dag, frame, max_iterations=1.5)
    raises(TypeError, "directed graph .*got Graph", nx.Graph([("a", "b")]), frame)
    raises(TypeError, "got MultiDiGraph", nx.MultiDiGraph([("a", "b")]), frame)
    raises(TypeError, "a list of arcs", "a -> b", frame)
    raises(TypeError, "a list of arcs", ["ab"], frame)
    raises(ValueError, "found a -> b -> a", nx.DiGraph([("a", "b"), ("b", "a")]), frame)
    raises(ValueError, "found a -> b -> a", [("a", "b"), ("b", "a")], frame)
    raises(ValueError, "no nodes", nx.DiGraph(), frame)


def test_the_bar_waits_and_keeps_quiet_off_a_terminal(monkeypatch, capsys):
    with Bar("waiting", 3) as bar:
        bar.at(1)
        assert bar._progress is None
    monkeypatch.setattr("graphs.progress.PATIENCE", 0.0)
    with Bar("shown", 3) as bar:
        bar.at(2, "note")
        assert bar._progress.tasks[0].completed == 2
        assert bar._progress.tasks[0].description == "shown note"
    with Bar("hidden", 3, shown=False) as bar:
        bar.at(2)
        assert bar._progress is None
    assert capsys.readouterr() == ("", "")


def test_a_cut_row_of_a_file_is_refused(tmp_path):
    """pandas would fill it up, and what is not there would look missing."""
    path = tmp_path / "rows.csv"
    path.write_text("a,b\nx,y\nx\n")
    with pytest.raises(ValueError, match="line 3: 1 cells, where the header has 2"):
        learn_parameters([("a", "b")], path)


def test_an_empty_line_of_one_column_is_a_missing_cell(tmp_path):
    path = tmp_path / "one.csv"
    path.write_text("A\nx\n\nx\ny\n\n")
    from_file = learn_parameters([], path, progress=False)
    frame = pd.DataFrame({"A": ["x", None, "x", "y", None]})
    assert from_file.log_likelihood == learn_parameters([], frame, progress=False).log_likelihood
    table = from_file.model.get_cpds("A").values
    assert table == pytest.approx([2 / 3, 1 / 3])
