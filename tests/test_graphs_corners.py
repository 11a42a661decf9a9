"""Corners that users come to: states named None, shared arrays, stars, tuples as nodes."""

import time

import numpy as np
import pandas as pd
import pytest
import torch

import graphs
from graphs import JunctionTree, read

pytestmark = pytest.mark.filterwarnings("ignore:.*renormalised:UserWarning")


@pytest.fixture(scope="module")
def alarm():
    return JunctionTree(read("alarm"))


@pytest.mark.parametrize(
    "nothing",
    [
        None,
        float("nan"),
        [None],
        np.array([np.nan]),
        pd.Series([None], dtype=object),
        pd.Series([np.nan], dtype=object),
        pd.Series([None], dtype="str"),
        pd.Categorical([None], categories=["Mild"]),
        pd.Series([pd.NA], dtype="object"),
    ],
)
def test_a_missing_cell_is_not_the_state_named_none(nothing):
    """insurance's Accident has a state "None"; a cell without an entry leaves it unobserved."""
    engine = JunctionTree(read("insurance"))
    prior = engine.query()["Accident"]
    assert torch.allclose(engine.query({"Accident": nothing})["Accident"].reshape(-1), prior)
    assert engine.query({"Accident": "None"})["Accident"].tolist() == [1, 0, 0, 0]
    if not isinstance(nothing, (list, np.ndarray, pd.Series, pd.Categorical)):
        with pytest.raises(ValueError):
            graphs.log_probability(read("insurance"), {"Accident": nothing})


def test_a_joint_where_a_row_done_in_logarithms_observes_more():
    engine = JunctionTree([(("a",), np.array([1e-250, 1.0])), (("b",), np.ones(1))])
    found = engine.query({"a": np.array([0, -1])}).joint("a", "b")
    assert found[0].tolist() == [[1.0], [0.0]]
    assert found[1, :, 0] == pytest.approx([1e-250, 1.0])


def test_a_joint_of_doubtful_rows_across_cliques(alarm):
    weak = {"HISTORY": np.array([1, 1e-230])}
    found = alarm.query({"HISTORY": ["FALSE", None]}, likelihoods=weak)
    single = alarm.query({"HISTORY": "FALSE"}).joint("HISTORY", "PRESS", "CVP")
    assert torch.allclose(found.joint("HISTORY", "PRESS", "CVP")[0], single, atol=1e-12)


def test_a_star_of_three_thousand_leaves_is_answered_at_once():
    rng = np.random.default_rng(0)
    tables = rng.dirichlet([1.0, 1.0], (3000, 2))  # p(leaf | root): (leaf, root, states)
    factors = [((0,), np.array([0.5, 0.5]))]
    factors += [((i, 0), t.T) for i, t in enumerate(tables, start=1)]
    start = time.process_time()
    found = JunctionTree(factors).query({1: 1, 7: 0}, targets=[0, 9])
    assert time.process_time() - start < 10
    weight = 0.5 * tables[0, :, 1] * tables[6, :, 0]
    assert found[0] == pytest.approx(weight / weight.sum())
    assert found[9] == pytest.approx((weight / weight.sum()) @ tables[8])
    assert float(found.log_evidence) == pytest.approx(np.log(weight.sum()))


def test_a_variable_of_a_million_states_takes_no_square_of_that():
    engine = JunctionTree([(("a",), np.ones(10**6))])
    assert engine.log_partition == pytest.approx(np.log(1e6))
    assert float(engine.query({"a": 5})["a"][5]) == 1.0


def test_answers_and_models_share_no_memory_with_what_was_given(alarm):
    given = np.array([0.3, 0.7])
    found = alarm.query(likelihoods={"HISTORY": given})
    before = found.joint("HISTORY")
    given[:] = [1.0, 0.0]
    assert torch.equal(found.joint("HISTORY"), before)
    found["HISTORY"][0] = 5.0
    assert found.to_frame().loc[("HISTORY", "TRUE"), "probability"] < 1
    from pgmpy.factors.discrete import TabularCPD
    from pgmpy.models import DiscreteBayesianNetwork

    model = DiscreteBayesianNetwork()
    model.add_node("rain")
    model.add_cpds(TabularCPD("rain", 2, [[0.8], [0.2]]))
    engine = JunctionTree(model)
    model.get_cpds("rain").values[:] = [0.0, 1.0]
    assert engine.query()["rain"].tolist() == engine.query({"rain": [None]})["rain"][0].tolist()
    assert engine.query()["rain"].tolist() == [0.8, 0.2]


def test_the_index_of_a_table_of_evidence_is_kept(alarm):
    rows = pd.DataFrame({"CVP": ["LOW", "HIGH"]}, index=["ann", "bob"])
    assert list(alarm.query(rows).to_frame().index) == ["ann", "bob"]
    assert list(alarm.mpe(rows).to_frame().index) == ["ann", "bob"]


def test_tuples_as_nodes_stay_tuples():
    engine = JunctionTree([((("x", 0), ("y", 1, 2)), np.ones((2, 3)))])
    assert list(engine.sample(2).columns) == [("x", 0), ("y", 1, 2)]
    assert list(engine.mpe().to_frame().columns) == [("x", 0), ("y", 1, 2)]
    assert engine.query(targets=("x", 0)).variables == [("x", 0)]


def test_targets_as_people_give_them(alarm):
    assert alarm.query(targets=(v for v in ["CVP", "HR"])).variables == ["CVP", "HR"]
    assert alarm.query(targets="CVP").variables == ["CVP"]
    with pytest.raises(ValueError, match="no variable '0'"):
        alarm.query(targets=0)
    with pytest.raises(ValueError, match="no variable '0'; there is 0, of type int"):
        JunctionTree([((0,), np.ones(2))]).query({"0": 1})


def test_soft_evidence_by_state_and_in_every_kind_of_answer(alarm):
    by_state = {"CVP": {"LOW": 1.0, "NORMAL": 0.5, "HIGH": 0.0}}
    plain = alarm.query(likelihoods={"CVP": [1.0, 0.5, 0.0]})
    assert torch.equal(alarm.query(likelihoods=by_state)["HR"], plain["HR"])
    with pytest.raises(ValueError, match="says nothing of its state 'HIGH'"):
        alarm.query(likelihoods={"CVP": {"LOW": 1.0, "NORMAL": 0.5}})
    with pytest.raises(TypeError, match="3 numbers, one a state"):
        alarm.query(likelihoods={"CVP": "LOW"})
    hard = {"HR": [0.0, 0.0, 1.0]}
    assert alarm.mpe(likelihoods=hard).assignment == alarm.mpe({"HR": "HIGH"}).assignment
    assert set(alarm.sample(20, likelihoods=hard)["HR"]) == {"HIGH"}


def test_a_series_is_one_row(alarm):
    row = pd.Series({"CVP": "LOW", "HR": None})
    assert torch.equal(alarm.query(row)["BP"], alarm.query({"CVP": "LOW"})["BP"])


def test_draws_repeat_by_default(alarm):
    assert alarm.sample(5).equals(alarm.sample(5))
    assert alarm.sample(5).equals(alarm.sample(5, seed=0))
    assert not alarm.sample(50).equals(alarm.sample(50, seed=1))
