"""Evidence in every form that people have it in, as state indices."""

import numpy as np
import pandas as pd
import pytest
import torch

from graphs import JunctionTree
from graphs.evidence import encode, soft_evidence
from graphs.tables import Tables

TABLES = Tables(
    {
        "text": ("low", "mid", "high"),
        "number": (0, 1, 2),
        "offset": (5, 7),
        "truth": (False, True),
        "real": (0.5, 1.0),
        "negative": ("-1", "0", "1"),
        ("t", 1): ("a", "b"),
        4: ("x", "y"),
    },
    [],
)


def codes(variable, given, tables=TABLES):
    found, count = encode(tables, {variable: given})
    return found[variable].tolist(), count


@pytest.mark.parametrize(
    ("variable", "state", "index"),
    [
        ("text", "high", 2),
        ("text", np.str_("mid"), 1),
        ("text", np.array("mid"), 1),
        ("text", None, -1),
        ("text", float("nan"), -1),
        ("text", pd.NA, -1),
        ("text", pd.NaT, -1),
        ("number", 2, 2),
        ("number", "2", 2),
        ("number", 2.0, 2),
        ("number", np.int8(1), 1),
        ("number", np.array(1), 1),
        ("number", torch.tensor(1), 1),
        ("offset", 7, 1),
        ("offset", torch.tensor(1), 1),
        ("truth", True, 1),
        ("truth", np.bool_(False), 0),
        ("truth", "True", 1),
        ("real", 0.5, 0),
        ("real", 1.0, 1),
        ("negative", "-1", 0),
        ("negative", -1, 0),
        (("t", 1), "b", 1),
        (4, "x", 0),
    ],
)
def test_one_state(variable, state, index):
    assert codes(variable, state) == ([index], None)


@pytest.mark.parametrize(
    ("variable", "given", "expected"),
    [
        ("text", ["low", None, "high"], [0, -1, 2]),
        ("text", ("low", float("nan"), "high"), [0, -1, 2]),
        ("text", np.array(["low", "high"]), [0, 2]),
        ("text", np.array(["low", None, np.nan], dtype=object), [0, -1, -1]),
        ("text", pd.Series(["low", None, "high"]), [0, -1, 2]),
        ("text", pd.Series(["low", None], dtype=object), [0, -1]),
        ("text", pd.Series(["low", pd.NA], dtype="string"), [0, -1]),
        ("text", pd.Series(["low", None, "mid"], dtype="category"), [0, -1, 1]),
        (
            "text",
            pd.Categorical(["high", None, "low"], categories=["high", "odd", "low"]),
            [2, -1, 0],
        ),
        ("text", pd.array(["low", pd.NA], dtype="string"), [0, -1]),
        ("text", pd.Index(["low", "mid"]), [0, 1]),
        ("text", pd.Series(["mid", "low"], index=[7, 3]), [1, 0]),
        ("text", torch.tensor([2, -1, 0]), [2, -1, 0]),
        ("text", torch.tensor([2, -1], dtype=torch.int8), [2, -1]),
        ("number", [2, 0, None], [2, 0, -1]),
        ("number", ["2", 0, 1.0], [2, 0, 1]),
        ("number", np.array([2, -1, 1]), [2, -1, 1]),
        ("number", np.array([2, 1], dtype=np.uint8), [2, 1]),
        ("number", np.array([2.0, np.nan, 1.0]), [2, -1, 1]),
        ("number", pd.Series([2.0, None, 1.0]), [2, -1, 1]),
        ("number", pd.Series([2, None, 1], dtype="Int64"), [2, -1, 1]),
        ("number", pd.Series([2, 1], dtype="Int8"), [2, 1]),
        ("number", pd.array([2, pd.NA, 0], dtype="Int32"), [2, -1, 0]),
        ("number", pd.Series([2, 0, None], dtype="category"), [2, 0, -1]),
        ("number", [2, pd.NA], [2, -1]),
        ("offset", np.array([5, 7, -1]), [0, 1, -1]),
        ("offset", [7.0, float("nan")], [1, -1]),
        ("truth", [True, False, None], [1, 0, -1]),
        ("truth", np.array([True, False]), [1, 0]),
        ("truth", pd.Series([True, None], dtype="boolean"), [1, -1]),
        ("truth", ["True", False], [1, 0]),
        ("real", np.array([1.0, 0.5, np.nan]), [1, 0, -1]),
        ("negative", ["-1", "1", None], [0, 2, -1]),
        ("negative", np.array([0, 1]), [1, 2]),
        (("t", 1), ["b", "a"], [1, 0]),
        ("text", [], []),
        ("text", np.array([]), []),
        ("number", np.array([], dtype=int), []),
        ("text", torch.zeros(0, dtype=torch.long), []),
        ("text", pd.Series([], dtype="string"), []),
    ],
)
def test_many_states(variable, given, expected):
    assert codes(variable, given) == (expected, len(expected))


def test_tables_of_evidence():
    frame = pd.DataFrame(
        {
            "text": pd.Categorical(["low", None], categories=["low"]),
            "number": [1.0, np.nan],
            "truth": [True, False],
            4: ["y", None],
        },
        index=[9, 9],
    )
    found, count = encode(TABLES, frame)
    assert count == 2
    assert {v: c.tolist() for v, c in found.items()} == {
        "text": [0, -1],
        "number": [1, -1],
        "truth": [1, 0],
        4: [1, -1],
    }
    assert encode(TABLES, frame.iloc[:0])[1] == 0
    assert encode(TABLES, pd.DataFrame(index=range(3))) == ({}, 3)
    assert encode(TABLES, None) == ({}, None)
    assert encode(TABLES, {}) == ({}, None)


def test_rows_of_a_table_without_columns_are_answered():
    found = JunctionTree(TABLES).query(pd.DataFrame(index=range(3)))
    assert found["text"].shape == (3, 3) and found.log_evidence.shape == (3,)
    np.testing.assert_allclose(found["text"], 1 / 3)
    np.testing.assert_allclose(found.log_evidence, np.log(3 * 3 * 2 * 2 * 2 * 3 * 2 * 2))


def test_a_state_beside_arrays_holds_in_every_row():
    found = JunctionTree(TABLES).query({"text": "mid", "number": [0, None], "offset": None})
    assert found["text"].tolist() == [[0, 1, 0], [0, 1, 0]]
    np.testing.assert_allclose(found["number"], [[1, 0, 0], [1 / 3] * 3])
    np.testing.assert_allclose(found["offset"], 0.5)


@pytest.mark.parametrize(
    ("evidence", "error", "text"),
    [
        ({"txet": "low"}, ValueError, "no variable 'txet'; did you mean text?"),
        ({5: "x"}, ValueError, "no variable '5'"),
        ({"text": "hihg"}, ValueError, "no state 'hihg' of text; did you mean high?"),
        ({"text": ["low", "lwo"]}, ValueError, "no state 'lwo' of text; did you mean low?"),
        (
            {"text": pd.Series(["low", "lwo"], dtype="category")},
            ValueError,
            "no state 'lwo' of text",
        ),
        ({"text": pd.Series(["low", "lwo"], dtype="string")}, ValueError, "no state 'lwo' of text"),
        ({"text": 0}, ValueError, "no state '0' of text; known: low, mid, high"),
        ({"text": -1}, ValueError, "no state '-1' of text"),
        ({"number": [torch.tensor(1)]}, ValueError, r"no state 'tensor\(1\)' of number"),
        ({"text": True}, ValueError, "no state 'True' of text"),
        ({"number": 3}, ValueError, "no state '3' of number"),
        ({"number": 1.5}, ValueError, "no state '1.5' of number"),
        ({"number": np.array([0, 9])}, ValueError, "no state '9' of number"),
        ({"number": float("inf")}, ValueError, "no state 'inf' of number"),
        ({"truth": 1}, ValueError, "no state '1' of truth"),
        ({"text": torch.tensor([0, 3])}, ValueError, "between 0 and 2, or are -1 .* got 0 to 3"),
        ({"text": torch.tensor([-2, 1])}, ValueError, "between 0 and 2, or are -1 .* got -2 to 1"),
        ({"text": torch.tensor([0.0])}, TypeError, "integers in one dimension.*float"),
        ({"text": torch.zeros(2, 2, dtype=torch.long)}, TypeError, r"one dimension.*\(2, 2\)"),
        ({"text": np.array([["low"]])}, ValueError, r"one dimension.*\(1, 1\)"),
        ({"negative": np.array([-1, 0])}, ValueError, "could be its state '-1' or mean unobserved"),
        ({"text": ["low"], "number": [0, 1]}, ValueError, "2 rows for number and 1 for text"),
        (["low"], TypeError, "evidence must be a dict .* got list"),
        ("low", TypeError, "evidence must be a dict .* got str"),
    ],
)
def test_what_cannot_be_meant_is_an_error(evidence, error, text):
    with pytest.raises(error, match=text):
        encode(TABLES, evidence)


def test_likelihoods_have_a_row_or_many():
    found, rows = soft_evidence(TABLES, {"text": [1, 2, 3], "offset": np.ones((4, 2))}, None)
    assert rows == 4 and found["text"].tolist() == [[1], [2], [3]]
    assert found["offset"].shape == (2, 4)
    tensor = torch.ones(3, requires_grad=True)
    assert soft_evidence(TABLES, {"text": tensor}, None)[0]["text"].requires_grad
    assert soft_evidence(TABLES, None, 3) == ({}, 3)
    for wrong, text in (
        ({"txt": [1]}, "did you mean text"),
        ({"text": [1, 2]}, r"needs the shape \(3,\), or \(rows, 3\); got \(2,\)"),
        ({"text": 1.0}, r"needs the shape \(3,\)"),
        ({"text": [1, -1, 0]}, "negative or not finite"),
        ({"text": torch.tensor([1, np.inf, 0])}, "negative or not finite"),
    ):
        with pytest.raises(ValueError, match=text):
            soft_evidence(TABLES, wrong, None)
    with pytest.raises(ValueError, match="has 4 rows; the evidence has 2"):
        soft_evidence(TABLES, {"offset": np.ones((4, 2))}, 2)
