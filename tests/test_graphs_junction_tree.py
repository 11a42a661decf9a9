"""The junction tree against brute force: everything a small model can be asked."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import graphs
from graphs import JunctionTree
from graphs.exact import calls, clique_tree, engine
from graphs.exact.reduction import Reduction
from graphs.io import networks
from graphs.tables import Tables, tables_of
from tests.networks import (
    conditioned,
    joint_table,
    named,
    quietly,
    random_bayesian,
    random_codes,
    random_factors,
    summed,
)

CLOSE = {"rtol": 1e-11, "atol": 1e-12}
FAST = {
    "asia": ["either", "bronc"],
    "cancer": ["Cancer", "Smoker"],
    "earthquake": ["Burglary", "JohnCalls"],
    "survey": ["T", "A"],
    "sachs": ["Akt", "PKC"],
    "child": ["Disease", "LungParench"],
    "insurance": ["Accident", "DrivQuality"],
    "alarm": ["LVFAILURE", "CATECHOL"],
    "hailfinder": ["Scenario", "CldShadeOth"],
    "win95pts": ["Problem1", "PrtData"],
    "hepar2": ["Cirrhosis", "PBC"],
}


def random_model(seed):
    rng = np.random.default_rng(seed)
    return random_bayesian(rng) if seed % 2 else random_factors(rng)


def random_weights(rng, tables, share=0.3):
    """Likelihoods of some variables, on observed ones too, with zeros and any scale."""
    return {
        v: rng.random(len(s)) * (rng.random(len(s)) > 0.2) * 10.0 ** rng.integers(-2, 3)
        for v, s in tables.states.items()
        if rng.random() < share
    }


def check_against_brute_force(model, rng, *, kind="arrays", tree=None):
    """One random question to a model, answered by the tree and by summing the joint table."""
    tree = JunctionTree(model) if tree is None else tree
    tables = tree.tables
    codes = random_codes(rng, tables, rng.choice([0.0, 0.3, 0.7]))
    weights = {} if kind == "hard" else random_weights(rng, tables)
    table = conditioned(tables, joint_table(tables), codes, weights)
    given_weights = weights
    if kind == "tensors":
        given_weights = {v: torch.tensor(w) for v, w in weights.items()}
    ask = {"evidence": named(tables, codes), "likelihoods": given_weights}
    if table.sum() == 0:
        with pytest.raises(ValueError, match=r"impossible|no assignment"):
            tree.query(**ask)
        return False
    posterior = tree.query(**ask)
    assert posterior.possible is True
    assert not posterior.log_evidence.requires_grad
    np.testing.assert_allclose(posterior.log_evidence.item(), np.log(table.sum()), **CLOSE)
    assert posterior.variables == list(tables.states)
    for variable in tables.states:
        found = posterior[variable].numpy()
        np.testing.assert_allclose(found, summed(tables, table, variable), **CLOSE)
        if codes.get(variable, -1) >= 0 and kind != "tensors":
            assert found.tolist() == np.eye(len(found))[codes[variable]].tolist()
    names = list(tables.states)
    if names:
        chosen = [names[i] for i in rng.permutation(len(names))[: rng.integers(1, 5)]]
        found = posterior.joint(*chosen)
        assert found.dtype == torch.float64
        np.testing.assert_allclose(found.numpy(), summed(tables, table, *chosen), **CLOSE)
        subset = tree.query(targets=chosen, **ask)
        assert set(subset.variables) == set(chosen)
        for variable in chosen:
            np.testing.assert_allclose(
                subset[variable].numpy(), summed(tables, table, variable), **CLOSE
            )
    if not weights:
        best = tree.mpe(ask["evidence"])
        np.testing.assert_allclose(best.log_probability, np.log(table.max()), **CLOSE)
        at = tuple(tables.positions[v][str(s)] for v, s in best.assignment.items())
        np.testing.assert_allclose(table[at], table.max(), rtol=1e-11)
    return True


@pytest.mark.parametrize("kind", ["hard", "arrays", "tensors"])
def test_random_models_answer_as_their_joint_table_does(kind):
    answered = 0
    for seed in range(200):
        rng = np.random.default_rng(1000 + seed)
        answered += check_against_brute_force(random_model(seed), rng, kind=kind)
    assert answered > 100  # and the rest was refused, as it should


def test_the_path_of_other_devices_gives_the_same():
    """PyTorch's path, which devices other than the CPU take, here on the CPU under its index."""
    answered = 0
    for seed in range(80):
        rng = np.random.default_rng(3000 + seed)
        tree = JunctionTree(random_model(seed), device="cpu:0")
        answered += check_against_brute_force(None, rng, kind="tensors", tree=tree)
    assert answered > 30


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9))
def test_any_random_model(seed):
    check_against_brute_force(random_model(seed), np.random.default_rng(seed))


@pytest.mark.parametrize("path", ["reduced", "unmerged", "merged", "short loops", "long loops"])
def test_every_path_through_the_engine_gives_the_same(path, monkeypatch):
    """Reductions, other cliques, and other calls into NumPy, each forced by its constant."""
    if path == "reduced":
        monkeypatch.setattr(engine, "EXPENSIVE", 0)
    elif path in ("unmerged", "merged"):
        limit = 0 if path == "unmerged" else 10**6
        for function in (Reduction.__init__, clique_tree.CliqueTree.__init__):
            monkeypatch.setitem(function.__kwdefaults__, "merged", limit)
        monkeypatch.setattr(engine, "BATCH_MERGED", limit)
    else:
        monkeypatch.setattr(calls, "INNER", 2 if path == "short loops" else 500)
        monkeypatch.setattr(calls, "BLOCK", 0 if path == "short loops" else 10**6)
    answered = 0
    for seed in range(120):
        rng = np.random.default_rng(5000 + seed)
        tree = JunctionTree(random_model(seed), seed=seed)
        for kind in ("hard", "arrays"):
            answered += check_against_brute_force(None, rng, kind=kind, tree=tree)
    assert answered > 120


@pytest.mark.parametrize("path", ["plain", "reduced", "one by one", "small batches"])
def test_batches_of_random_models_answer_row_by_row(path, monkeypatch):
    """Missing cells, impossible rows, likelihoods by row: each row by brute force."""
    if path == "reduced":
        monkeypatch.setattr(engine, "EXPENSIVE", 0)
    elif path == "one by one":
        monkeypatch.setattr(engine, "BATCH_CELLS", 1)
    elif path == "small batches":
        monkeypatch.setattr(engine, "BATCH_CELLS", 4096)
    possible = impossible = 0
    for seed in range(40):
        rng = np.random.default_rng(7000 + seed)
        tree = JunctionTree(random_model(seed))
        tables = tree.tables
        rows = int(rng.integers(1, 13))
        codes = {
            v: np.where(rng.random(rows) < 0.7, rng.integers(0, len(s), rows), -1)
            for v, s in tables.states.items()
            if rng.random() < 0.5
        }
        if codes and rng.random() < 0.5:  # observed in every row
            v = next(iter(codes))
            codes[v] = np.maximum(codes[v], 0)
        weights = {
            v: rng.random((rows, len(s))) * (rng.random((rows, len(s))) > 0.3)
            for v, s in tables.states.items()
            if rng.random() < 0.2
        }
        if not codes and not weights:
            continue
        evidence = {
            v: [tables.states[v][c] if c >= 0 else None for c in column]
            for v, column in codes.items()
        }
        for kind in ("arrays", "tensors"):
            soft = {v: torch.tensor(w) if kind == "tensors" else w for v, w in weights.items()}
            posterior = tree.query(evidence, likelihoods=soft)
            assert len(posterior) == rows
            names = list(tables.states)
            pair = [names[i] for i in rng.permutation(len(names))[:2]]
            both = posterior.joint(*pair)
            joint = joint_table(tables)
            for row in range(rows):
                table = conditioned(
                    tables,
                    joint,
                    {v: column[row] for v, column in codes.items()},
                    {v: w[row] for v, w in weights.items()},
                )
                if table.sum() == 0:
                    impossible += 1
                    assert not posterior.possible[row]
                    assert posterior.log_evidence[row] == -np.inf
                    assert torch.isnan(both[row]).all()
                    assert all(torch.isnan(posterior[v][row]).all() for v in names)
                    continue
                possible += 1
                assert posterior.possible[row]
                np.testing.assert_allclose(
                    posterior.log_evidence[row].item(), np.log(table.sum()), **CLOSE
                )
                np.testing.assert_allclose(both[row].numpy(), summed(tables, table, *pair), **CLOSE)
                for v in names:
                    np.testing.assert_allclose(
                        posterior[v][row].numpy(), summed(tables, table, v), **CLOSE
                    )
        if not weights:
            best = tree.mpe(evidence)
            for row in range(rows):
                table = conditioned(tables, joint, {v: c[row] for v, c in codes.items()})
                assignment = {v: states[row] for v, states in best.assignment.items()}
                if table.sum() == 0:
                    assert best.log_probability[row] == -np.inf
                    assert set(assignment.values()) == {None}
                    continue
                at = tuple(tables.positions[v][str(s)] for v, s in assignment.items())
                np.testing.assert_allclose(table[at], table.max(), rtol=1e-11)
                np.testing.assert_allclose(best.log_probability[row], np.log(table.max()), **CLOSE)
    assert possible > 100 and impossible > 20


# Small and strange models -------------------------------------------------------------------------


def test_an_empty_model_has_the_empty_product():
    tree = JunctionTree([])
    assert tree.log_partition == 0.0
    posterior = tree.query()
    assert posterior.variables == [] and posterior.log_evidence == 0.0
    assert tree.mpe().assignment == {} and tree.mpe().log_probability == 0.0
    assert tree.sample(3).shape == (3, 0)
    assert tree.cost.total_cells == 0
    assert len(posterior.to_frame()) == 0
    assert "JunctionTree of 0 variables" in repr(tree)


def test_constant_factors_multiply():
    tree = JunctionTree([((), np.array(3.0)), ((), np.array(2.0))])
    assert tree.log_partition == pytest.approx(np.log(6), abs=1e-15)
    with_variable = JunctionTree([((), np.array(3.0)), (("a",), np.array([1.0, 3.0]))])
    assert with_variable.log_partition == pytest.approx(np.log(12), abs=1e-14)
    assert with_variable.query()["a"].tolist() == [0.25, 0.75]
    assert with_variable.mpe().log_probability == pytest.approx(np.log(9), abs=1e-14)
    with pytest.raises(ValueError, match="no assignment is possible"):
        JunctionTree([((), np.array(0.0)), (("a",), np.ones(2))]).query()


def test_a_zero_model_is_said_to_be_zero():
    tree = JunctionTree([(("a", "b"), np.diag([1.0, 0.0])), (("b",), np.array([0.0, 1.0]))])
    for ask in (tree.query, tree.mpe, lambda e: tree.sample(1, e)):
        with pytest.raises(ValueError, match="zero everywhere"):
            ask({"a": 0})
    with pytest.raises(ValueError, match="zero everywhere"):
        _ = tree.log_partition


def test_variables_without_a_factor_are_uniform():
    """Only checked tables can have them; the sum runs over their states."""
    tree = JunctionTree(Tables({"a": ("x", "y", "z"), "b": ("u",)}, []))
    assert tree.log_partition == pytest.approx(np.log(3))
    np.testing.assert_allclose(tree.query()["a"], np.full(3, 1 / 3))
    assert tree.query({"a": "y"})["a"].tolist() == [0, 1, 0]


def test_a_repeated_scope_multiplies():
    values = np.array([[1.0, 2.0], [3.0, 4.0]])
    tree = JunctionTree([(("a", "b"), values), (("b", "a"), values.T), (("a", "b"), values)])
    assert tree.log_partition == pytest.approx(np.log((values**3).sum()))
    np.testing.assert_allclose(tree.query().joint("b", "a"), values.T**3 / (values**3).sum())


def test_disconnected_parts_are_independent():
    tree = JunctionTree([(("a", "b"), np.eye(2) + 0.5), (("c", "d"), np.array([[1.0, 0], [0, 3]]))])
    posterior = tree.query({"a": 1})
    table = posterior.joint("d", "b", "a")
    np.testing.assert_allclose(table[:, :, 1], np.outer([0.25, 0.75], [0.25, 0.75]), **CLOSE)
    assert (table[:, :, 0] == 0).all()


# Arguments ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def asia():
    return JunctionTree(graphs.read("asia"))


def test_unknown_names_come_back_with_near_matches(asia):
    with pytest.raises(ValueError, match="no variable 'xrai'; did you mean xray"):
        asia.query({"xrai": "yes"})
    with pytest.raises(ValueError, match="no state 'yess' of xray; did you mean yes"):
        asia.query({"xray": "yess"})
    with pytest.raises(ValueError, match="no variable 'lun'; did you mean lung"):
        asia.query(targets=["lun"])
    with pytest.raises(ValueError, match="no variable 'lun'; did you mean lung"):
        asia.query(likelihoods={"lun": [1, 1]})
    with pytest.raises(ValueError, match="no table 'lun'; did you mean lung"):
        asia.query(tables={"lun": torch.ones(2, 2)})
    with pytest.raises(KeyError, match="did you mean lung"):
        asia.query()["lun"]
    with pytest.raises(KeyError, match="not among the targets"):
        asia.query(targets=["lung"])["tub"]
    with pytest.raises(KeyError, match="did you mean lung"):
        asia.query().joint("lun")
    for wrong in ((), ("lung", "lung")):
        with pytest.raises(ValueError, match="one or more different variables"):
            asia.query().joint(*wrong)


def test_shapes_and_types_are_checked(asia):
    with pytest.raises(ValueError, match=r"needs the shape \(2,\)"):
        asia.query(likelihoods={"lung": [1, 2, 3]})
    with pytest.raises(ValueError, match="negative or not finite"):
        asia.query(likelihoods={"lung": [1, -2]})
    with pytest.raises(ValueError, match="negative or not finite"):
        asia.query(likelihoods={"lung": [1, np.nan]})
    with pytest.raises(ValueError, match="has 2 rows; the evidence has 3"):
        asia.query({"xray": ["yes"] * 3}, likelihoods={"lung": np.ones((2, 2))})
    with pytest.raises(ValueError, match=r"the table of lung has the shape \(2, 2\)"):
        asia.query(tables={"lung": torch.ones(2)})
    with pytest.raises(ValueError, match="dtype must be float64 or float32"):
        JunctionTree(graphs.read("asia"), dtype="float16")
    for wrong in ("cuda:77", "tpu"):
        with pytest.raises(ValueError, match=f"cannot compute on device '{wrong}': .*; use 'cpu'"):
            JunctionTree(graphs.read("asia"), device=wrong)
    with pytest.raises(TypeError, match=r"graphs\.load reads one"):
        JunctionTree("asia")
    with pytest.raises(ValueError, match="one row of evidence"):
        asia.sample(3, {"xray": ["yes", "no"]})
    for wrong in (-1, 2.5):
        with pytest.raises(ValueError, match="whole number of draws"):
            asia.sample(wrong)


@pytest.mark.parametrize("dtype", ["float32", np.float32, torch.float32, np.dtype("float32")])
def test_single_precision(dtype):
    tree = JunctionTree(graphs.read("asia"), dtype=dtype)
    exact = JunctionTree(graphs.read("asia")).query({"xray": "yes"})
    posterior = tree.query({"xray": "yes"})
    assert posterior["lung"].dtype == torch.float32
    np.testing.assert_allclose(posterior["lung"], exact["lung"], atol=1e-6)
    np.testing.assert_allclose(
        posterior.joint("lung", "tub"), exact.joint("lung", "tub"), atol=1e-6
    )
    assert posterior.joint("xray").dtype == torch.float32
    assert float(posterior.log_evidence) == pytest.approx(float(exact.log_evidence), abs=1e-6)


@pytest.mark.parametrize("torch_path", [False, True])
def test_no_rows_give_no_answers(asia, torch_path):
    soft = {"lung": torch.ones(0, 2)} if torch_path else None
    posterior = asia.query({"xray": []}, likelihoods=soft)
    assert len(posterior) == 0
    assert posterior["lung"].shape == (0, 2)
    assert posterior.joint("lung", "tub").shape == (0, 2, 2)
    assert posterior.joint("lung", "xray").shape == (0, 2, 2)
    assert posterior.log_evidence.shape == (0,) and posterior.possible.shape == (0,)
    assert posterior.to_frame().shape == (0, 16)
    best = asia.mpe({"xray": []})
    assert best.log_probability.shape == (0,) and best.assignment["lung"].shape == (0,)


def test_results_print_and_become_frames(asia):
    posterior = asia.query({"xray": "yes"}, targets=["lung", "tub"])
    frame = posterior.to_frame()
    assert frame.index.tolist() == [(v, s) for v in posterior for s in posterior.states(v)]
    np.testing.assert_allclose(frame["probability"][:2], posterior[posterior.variables[0]])
    assert "log evidence -2.2" in str(posterior) and "lung" in str(posterior)
    rows = asia.query({"xray": ["yes", "no"], "either": ["no", "yes"], "tub": ["no", "yes"]})
    assert "2 rows" in str(rows)
    np.testing.assert_allclose(rows.to_frame()["lung", "yes"], rows["lung"][:, 0])
    best = asia.mpe({"xray": ["yes", "no"]})
    assert best.to_frame().shape == (2, 8) and "8 variables" in str(best)
    assert asia.mpe({"xray": "yes"}).to_frame().shape == (1, 8)
    assert "xray" in str(asia.mpe({"xray": "yes"}))


# Draws --------------------------------------------------------------------------------------------


def test_draws_follow_the_exact_conditional():
    """Chi-square against the brute-force conditional; what is impossible is never drawn."""
    from scipy.stats import chi2

    tested = 0
    for seed in range(24):
        rng = np.random.default_rng(seed)
        tree = JunctionTree(random_model(seed))
        tables = tree.tables
        codes = random_codes(rng, tables, 0.2)
        table = conditioned(tables, joint_table(tables), codes)
        if table.sum() == 0:
            continue
        n = 4000
        drawn = tree.sample(n, named(tables, codes), seed=seed)
        assert list(drawn.columns) == list(tables.states)
        indices = tuple(drawn[v].cat.codes.to_numpy(np.int64) for v in tables.states)
        assert drawn.equals(tree.sample(n, named(tables, codes), seed=seed))
        counts = np.zeros(table.shape)
        np.add.at(counts, indices, 1)
        expected = table / table.sum() * n
        assert (counts[table == 0] == 0).all()
        many = expected >= 5
        observed = np.append(counts[many], counts[~many].sum())
        wanted = np.append(expected[many], expected[~many].sum())
        keep = wanted > 0
        if keep.sum() > 1:
            statistic = ((observed - wanted)[keep] ** 2 / wanted[keep]).sum()
            assert chi2.sf(statistic, keep.sum() - 1) > 1e-5, (seed, statistic)
            tested += 1
    assert tested > 10


@pytest.mark.parametrize("number", [0.0, np.nextafter(1.0, 0.0)])
def test_the_ends_of_the_unit_interval_draw_what_is_possible(number):
    """The smallest and the largest number that a generator gives, at states without mass."""

    class Constant:
        def random(self, n):
            return np.full(n, number)

    values = np.array([[0.0, 0.0, 0.1, 0.0], [0.0, 0.7, 0.3, 0.0]])
    tree = JunctionTree([(("a", "b"), values), (("b", "c"), np.eye(4)[::-1] * 0.3)])
    rows, _ = tree._rows(None, None)
    a, b, c = tree._engine.draw(3, rows, Constant())
    assert (values[a, b] > 0).all() and (b + c == 3).all()


# Real networks ------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*StructureScore:FutureWarning:pgmpy")
@pytest.mark.parametrize("name", FAST)
def test_networks_answer_as_variable_elimination_does(name):
    """pgmpy's own elimination on pgmpy's own model, for two targets given leaves."""
    from pgmpy.inference import VariableElimination

    model = quietly(graphs.load, name)
    tree = JunctionTree(model)
    targets = FAST[name]
    leaves = [v for v in model.nodes if not list(model.successors(v)) and v not in targets]
    drawn = tree.sample(1, seed=5).iloc[0]
    evidence = {v: drawn[v] for v in leaves[:4]}
    posterior = tree.query(evidence, targets=targets)
    expected = VariableElimination(model).query(
        targets, evidence=evidence, joint=True, show_progress=False
    )
    order = [expected.variables.index(v) for v in targets]
    table = expected.values.transpose(order)
    for axis, v in enumerate(targets):  # pgmpy's own order of states
        names = [str(s) for s in expected.state_names[v]]
        table = table.take([names.index(str(s)) for s in posterior.states(v)], axis)
    np.testing.assert_allclose(posterior.joint(*targets).numpy(), table, atol=1e-10)
    for axis, v in enumerate(targets):
        np.testing.assert_allclose(posterior[v].numpy(), table.sum(1 - axis), atol=1e-10)


@pytest.mark.parametrize("name", networks())
def test_every_network_compiles(name):
    tables = quietly(graphs.read, name)
    cost = JunctionTree(tables).cost
    assert cost.largest_table >= max(f.values.size for f in tables.factors)
    assert cost.total_cells >= cost.largest_table and not cost.at_least


# Properties ---------------------------------------------------------------------------------------


def test_orders_and_seeds_change_nothing():
    """Factors and variables in another order, other names, other elimination orders."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        model = tables_of(random_model(seed))
        codes = random_codes(rng, model, 0.3)
        if conditioned(model, joint_table(model), codes).sum() == 0:
            continue
        first = JunctionTree(model).query(named(model, codes))
        names = list(model.states)
        label = {v: i * 10 for i, v in enumerate(names)}
        shuffled = [names[i] for i in rng.permutation(len(names))]
        factors = []
        for i in rng.permutation(len(model.factors)):
            scope, values = model.factors[i]
            order = rng.permutation(len(scope))
            factors.append((tuple(label[scope[j]] for j in order), values.transpose(order)))
        other = JunctionTree(
            Tables({label[v]: model.states[v] for v in shuffled}, tables_of(factors).factors),
            seed=seed,
        ).query({label[v]: model.states[v][c] for v, c in codes.items()})
        np.testing.assert_allclose(other.log_evidence, first.log_evidence, **CLOSE)
        for v in names:
            np.testing.assert_allclose(other[label[v]], first[v], **CLOSE)


def test_seeds_of_the_engine_change_nothing_on_a_network():
    tables = quietly(graphs.read, "alarm")
    evidence = {"HISTORY": "TRUE", "CVP": "LOW", "BP": "HIGH"}
    answers = [JunctionTree(tables, seed=seed).query(evidence) for seed in range(6)]
    for other in answers[1:]:
        assert float(other.log_evidence) == pytest.approx(float(answers[0].log_evidence), abs=1e-10)
        for v in tables.states:
            np.testing.assert_allclose(other[v], answers[0][v], atol=1e-10)


def test_marginals_are_margins_of_joints():
    posterior = JunctionTree(quietly(graphs.read, "alarm")).query({"CVP": "LOW"})
    for first, second in itertools.islice(
        itertools.combinations(posterior.variables, 2), 0, 666, 41
    ):
        table = posterior.joint(first, second)
        np.testing.assert_allclose(table.sum(1), posterior[first], atol=1e-12)
        np.testing.assert_allclose(table.sum(0), posterior[second], atol=1e-12)


def test_no_draws_at_all():
    tree = JunctionTree([(("a", "b"), np.ones((2, 3)))])
    assert tree.sample(0).shape == (0, 2) and tree.sample(0, {"a": 1}).shape == (0, 2)
