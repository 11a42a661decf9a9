"""`ppgen graph`: its numbers are the engine's, its files whole or absent, its refusals a line."""

import csv
import gzip
import io
import itertools
import json
import math
import os
import pty
import re
import resource
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from graph_command import run
from PIL import Image

from graphs.directed import sample as ancestral_sample
from graphs.exact.junction_tree import JunctionTree
from graphs.io import networks, read, save
from graphs.tables import Factor, bayesian
from ppgen import cli, graph_commands, graph_queries, graph_rows, graph_samples
from ppgen.graph_rows import Codes

ROOT = Path(__file__).parents[1]


@pytest.fixture
def refused(capsys):
    """Check that a command is refused: status 2 and one line on stderr that says why."""

    def check(*words, match):
        capsys.readouterr()
        status = run(*words)
        printed = capsys.readouterr()
        assert status == 2, printed.err
        assert printed.err.count("\n") == 1 and printed.err.startswith("ppgen graph: error: ")
        assert re.search(match, printed.err), printed.err
        assert len(printed.err) < 500, printed.err

    return check


@pytest.fixture(scope="module")
def asia():
    return JunctionTree(read("asia"))


@pytest.fixture(scope="module")
def markov(tmp_path_factory):
    """A chain 0 - 1 - 2 - 3 whose variables are integers."""
    path = tmp_path_factory.mktemp("markov") / "chain.uai"
    table = np.array([[3.0, 1.0], [1.0, 2.0]])
    save([((i, i + 1), table * (i + 1)) for i in range(3)], path)
    return path


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """Names that hold what the command line gives a meaning: = and commas."""
    path = tmp_path_factory.mktemp("odd") / "odd.bif"
    states = {"a": ("b=c", "d"), "a=b": ("c", "e,f"), "x,y": ("1", "2")}
    half = np.array([0.25, 0.75])
    pair = np.array([[0.1, 0.6], [0.9, 0.4]])
    factors = [Factor(("a",), half), Factor(("a=b", "a"), pair), Factor(("x,y", "a=b"), pair)]
    save(bayesian(states, factors, "odd"), path)
    return path


def rows_of(text):
    return list(csv.reader(io.StringIO(text)))


def written(path, frame):
    frame.to_csv(path, index=False)
    return path


def cases(n, seed=0):
    """Rows of evidence on asia, some impossible, some without any observation."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({v: rng.choice(["yes", "no"], n) for v in ("smoke", "lung", "either")})
    frame["xray"] = rng.choice(["yes", "no"], n)
    frame = frame.mask(rng.random(frame.shape) < 0.4)
    frame.insert(0, "patient", [f"p{i}, ward {i % 3}" for i in range(n)])
    return frame


# Help -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_the_commands_with_examples(words, said):
    text = said(*words)
    assert text.startswith("usage: ppgen graph ")
    for command in graph_commands.COMMANDS:
        assert re.search(rf"^  {command} +\w", text, re.MULTILINE)
        assert f"  ppgen graph {command} alarm" in text


@pytest.mark.parametrize("command", graph_commands.COMMANDS)
def test_the_examples_of_each_help_run(command, said, capsys, tmp_path, monkeypatch):
    text = said(command, "--help")
    assert text.startswith(f"usage: ppgen graph {command} ") and len(text) > 500
    examples = re.findall(r"^  ppgen graph (.+)$", text, re.MULTILINE)
    assert len(examples) >= 2 and all(example.startswith(command) for example in examples)
    monkeypatch.chdir(tmp_path)
    Path("cases.csv").write_text("patient,CVP\na,LOW\nb,\n")
    for example in examples:
        assert run(*example.split()) == 0, capsys.readouterr().err
        assert capsys.readouterr().out


def test_the_command_is_in_the_help_of_ppgen(capsys):
    assert cli.main(["--help"]) == 0
    assert re.search(r"^  graph +\w", capsys.readouterr().out, re.MULTILINE)


# show -------------------------------------------------------------------------------------------


def test_show_lists_the_networks(said, answered):
    lines = said("show").splitlines()
    listed = {line.split()[0]: line.split()[1:] for line in lines[1 : 1 + len(networks())]}
    assert [*listed] == networks()
    assert listed["alarm"] == ["37", "46"] and listed["munin"] == ["1,041", "1,397"]
    document = answered("show")["networks"]
    assert {"name": "asia", "variables": 8, "arcs": 8} in document
    assert len(document) == len(networks())


def test_show_a_network(said, answered, asia):
    text = said("show", "asia")
    assert "a Bayesian network of 8 variables and 8 arcs" in text
    assert "18 free parameters; the full table has 255" in text
    assert str(asia.cost) in text
    assert "p(lung | smoke)" in text and re.search(r"^lung +yes, no +smoke$", text, re.MULTILINE)
    document = answered("show", "asia")
    assert document["parameters"]["factorised"] == 18 and document["parameters"]["full"] == 255
    assert document["parameters"]["log10_full"] == pytest.approx(math.log10(255))
    assert document["variables"]["lung"] == {"states": ["yes", "no"]}
    assert sorted(map(tuple, document["arcs"])) == sorted(asia.tables.graph().edges)
    assert document["cost"]["total_cells"] == asia.cost.total_cells


def test_what_is_long_is_shortened_unless_asked(said, answered):
    short, full = said("show", "win95pts"), said("show", "win95pts", "--full")
    assert "more lines (--full shows all)" in short
    assert "... and 16 more variables (--full shows all)" in short
    assert "--full" not in full and len(full) > len(short)
    names = read("win95pts").states
    assert all(re.search(rf"^{name} ", full, re.MULTILINE) for name in names)
    # More parameters than a JSON reader's numbers hold.
    assert answered("show", "win95pts")["parameters"]["full"] is None


def test_show_a_variable_with_its_table(said, answered, asia):
    lines = said("show", "asia", "--variable", "dysp").splitlines()
    assert lines[:5] == [
        "dysp in asia",
        "states      yes, no",
        "parents     bronc, either",
        "children    none",
        "",
    ]
    assert lines[5] == "p(dysp | bronc, either)"
    assert lines[6].split() == ["bronc", "either", "yes", "no"]
    table = asia.tables.conditional("dysp")
    expected = [
        [b, e, f"{table[0, i, j]:.6g}", f"{table[1, i, j]:.6g}"]
        for (i, b), (j, e) in itertools.product(enumerate(["yes", "no"]), repeat=2)
    ]
    assert [line.split() for line in lines[7:]] == expected
    document = answered("show", "asia", "--variable", "dysp")
    assert document["axes"] == ["dysp", "bronc", "either"]
    assert document["table"] == table.tolist()
    assert answered("show", "asia", "--variable", "asia")["children"] == ["tub"]
    assert "p(asia)" in said("show", "asia", "--variable", "asia")


def test_a_long_table_is_cut(said):
    assert "more rows" not in said("show", "win95pts", "--variable", "Problem1")
    wide = said("show", "win95pts", "--variable", "PC2PRT")
    full = said("show", "win95pts", "--variable", "PC2PRT", "--full")
    rows = math.prod(read("win95pts").conditional("PC2PRT").shape[1:])
    assert rows > 60
    assert f"... and {rows - 60:,} more rows (--full shows all)" in wide
    assert len(full.splitlines()) == len(wide.splitlines()) - 1 + rows - 60


def test_show_a_markov_network(said, answered, markov):
    text = said("show", markov)
    assert "chain: a Markov network of 4 variables and 3 edges" in text
    assert "3 tables of 12 entries" in text
    document = answered("show", markov)
    assert document["edges"] == [["0", "1"], ["1", "2"], ["2", "3"]]
    assert "parameters" not in document and not document["directed"]
    text = said("show", markov, "--variable", 1)
    assert "neighbours  0, 2" in text and "factor(1, 0)" in text and "factor(1, 2)" in text
    assert text.splitlines()[-2:] == ["0  6  2", "1  2  4"]
    factors = answered("show", markov, "--variable", 1)["factors"]
    assert factors[1] == {"axes": ["1", "2"], "table": [[6.0, 2.0], [2.0, 4.0]]}


# separate, blanket ------------------------------------------------------------------------------


def test_separate(said, answered):
    from graphs.trails import explain_separation

    graph = read("asia").graph()
    expected = explain_separation(graph, ["asia", "smoke"], "xray", ["either"])
    assert said("separate", "asia", "asia,smoke", "xray", "--given", "either") == f"{expected}\n"
    assert expected.separated
    document = answered("separate", "asia", "asia", "bronc", "--given", "dysp", "xray")
    assert document["separated"] is False and document["given"] == ["xray", "dysp"]
    found = explain_separation(graph, "asia", "bronc", ["dysp", "xray"])
    assert [t["nodes"] for t in document["trails"]] == [[*trail.nodes] for trail in found.trails]
    assert [t["open"] for t in document["trails"]] == [trail.open for trail in found.trails]
    middle = document["trails"][0]["middles"][0]
    assert set(middle) == {"node", "kind", "observed", "blocks", "opened_by"}
    # Given twice, and with commas, is the same.
    words = ["--given", "dysp", "--given", "xray"]
    assert answered("separate", "asia", "asia", "bronc", *words) == document
    assert answered("separate", "asia", "asia", "bronc", "--given", "xray,dysp") == document
    assert answered("separate", "asia", "asia", "smoke")["separated"] is True
    few = answered("separate", "asia", "asia", "bronc", "--max-trails", 1)
    assert few["more_trails"] is True and len(few["trails"]) == 1


def test_blanket(said, answered, markov):
    document = answered("blanket", "asia", "lung")
    assert document["parents"] == ["smoke"] and document["children"] == ["either"]
    assert document["co-parents"] == ["tub"]
    assert document["blanket"] == ["smoke", "either", "tub"]
    text = said("blanket", "asia", "lung")
    assert text.splitlines()[0] == "Markov blanket of lung in asia: 3 variables"
    assert "co-parents  tub (through either)" in text
    assert "parents     none" in said("blanket", "asia", "asia")
    assert answered("blanket", markov, "1")["neighbours"] == ["0", "2"]


def test_a_co_parent_that_is_a_parent_has_one_role(answered, tmp_path):
    from graphs.independence import markov_blanket

    with warnings.catch_warnings():  # of print rounding
        warnings.simplefilter("ignore")
        tables = read("alarm")
    graph, path = tables.graph(), tmp_path / "alarm.bif"
    save(tables, path)
    for variable in graph:
        document = answered("blanket", path, variable)
        roles = document["parents"] + document["children"] + document["co-parents"]
        assert len(roles) == len(set(roles)) and set(roles) == markov_blanket(graph, variable)


@pytest.mark.parametrize(
    "words",
    [
        ["show", "asia"],
        ["show", "asia", "--variable", "lung"],
        ["separate", "asia", "asia", "xray"],
        ["blanket", "asia", "lung"],
        ["blanket", "MARKOV", "1"],
    ],
)
def test_pictures(words, said, answered, refused, markov, tmp_path):
    words = [markov if word == "MARKOV" else word for word in words]
    out = tmp_path / "out.png"
    assert f"drawn: {out}" in said(*words, "--draw", out)
    with Image.open(out) as image:
        image.load()
        assert image.format == "PNG" and min(image.size) > 100
        assert len(image.getcolors(image.width * image.height)) > 2
    out.write_bytes(b"precious")
    refused(*words, "--draw", out, match=r"out\.png exists: .*--overwrite")
    assert out.read_bytes() == b"precious"
    assert answered(*words, "--draw", out, "--overwrite")["drawn"] == str(out)
    assert out.read_bytes().startswith(b"\x89PNG")
    refused(*words, "--draw", tmp_path / "out.gif", match=r"ends in one of \.png, \.svg, \.pdf")
    refused(words[0], "none_such", *words[2:], "--draw", tmp_path / "out.gif", match="ends in one")
    refused(*words, "--draw", tmp_path / "none" / "out.png", match="no folder")
    refused(*words, "--draw", tmp_path, match="is a folder")
    assert [file.name for file in tmp_path.iterdir()] == ["out.png"]


# query: one case --------------------------------------------------------------------------------


def test_query_prints_the_numbers_of_the_engine(said, answered, asia):
    found = asia.query({"smoke": "yes", "xray": "no"})
    document = answered("query", "asia", "--evidence", "smoke=yes", "xray=no")
    assert document["log_evidence"] == float(found.log_evidence)
    assert document["evidence"] == {"smoke": "yes", "xray": "no"}
    assert [*document["posteriors"]] == ["asia", "tub", "lung", "bronc", "either", "dysp"]
    for variable, shares in document["posteriors"].items():
        assert [*shares] == ["yes", "no"]
        assert [*shares.values()] == found[variable].tolist()
    text = said("query", "asia", "--evidence", "smoke=yes", "xray=no")
    prior = asia.query()
    for variable in document["posteriors"]:
        row = re.search(rf"^{variable} +yes +(\S+) +(\S+)$", text, re.MULTILINE)
        assert row is not None, text
        for text_of, posterior in ((row[1], found), (row[2], prior)):
            assert float(text_of) == pytest.approx(float(posterior[variable][0]), abs=5e-7)
    assert f"log evidence {float(found.log_evidence):.6f} nats" in text
    assert "changed most: bronc=yes, 0.450000 -> 0.600000" in text


def test_query_of_some_variables_and_without_evidence(said, answered, asia):
    document = answered("query", "asia", "--evidence", "smoke=yes", "--targets", "lung,smoke")
    assert document["posteriors"] == {
        "smoke": {"yes": 1.0, "no": 0.0},
        "lung": {"yes": pytest.approx(0.1), "no": pytest.approx(0.9)},
    }
    assert answered("query", "asia", "--targets", "lung")["log_evidence"] == pytest.approx(0)
    text = said("query", "asia")
    assert "given nothing" in text and "without evidence" not in text
    assert len(text.splitlines()) == 4 + 16


def test_query_with_soft_evidence(said, answered, asia):
    words = ["query", "asia", "--likelihood", "lung=0.8,0.2", "--evidence", "smoke=no"]
    found = asia.query({"smoke": "no"}, likelihoods={"lung": [0.8, 0.2]})
    document = answered(*words)
    assert document["likelihoods"] == {"lung": [0.8, 0.2]}
    assert document["log_evidence"] == float(found.log_evidence)
    assert [*document["posteriors"]["lung"].values()] == found["lung"].tolist()
    assert "given smoke=no, lung weighed 0.8,0.2" in said(*words)


def test_the_most_probable_explanation(said, answered, asia):
    found = asia.mpe({"smoke": "yes"})
    document = answered("query", "asia", "--evidence", "smoke=yes", "--mpe")
    assert document["assignment"] == found.assignment
    assert document["log_probability"] == found.log_probability
    some = answered("query", "asia", "--evidence", "smoke=yes", "--mpe", "--targets", "lung")
    assert some["assignment"] == {"lung": "no"}
    text = said("query", "asia", "--evidence", "smoke=yes", "--mpe")
    assert re.search("^smoke +yes +observed$", text, re.MULTILINE)
    assert f"log probability {found.log_probability:.6f} nats" in text


def test_a_markov_network_whose_variables_are_integers(said, answered, markov):
    engine = JunctionTree(read(markov))
    found = engine.query({0: 1})
    document = answered("query", markov, "--evidence", "0=1")
    assert document["log_evidence"] == float(found.log_evidence)
    for variable in (1, 2, 3):
        shares = document["posteriors"][str(variable)]
        assert [*shares] == ["0", "1"] and [*shares.values()] == found[variable].tolist()
    assert "the log of what the tables sum to" in said("query", markov, "--evidence", "0=1")


def test_names_that_hold_equals_signs_and_commas(answered, odd):
    # `a=b` is a variable, so that a=b=c says c of it; only what is no variable is split.
    assert answered("query", odd, "--evidence", "a=b=c")["evidence"] == {"a=b": "c"}
    assert answered("query", odd, "--evidence", "a=d")["evidence"] == {"a": "d"}
    assert answered("query", odd, "--evidence", "a=b=e,f")["evidence"] == {"a=b": "e,f"}
    assert [*answered("query", odd, "--targets", "x,y", "a")["posteriors"]] == ["a", "x,y"]
    assert answered("separate", odd, "a", "x,y", "--given", "a=b")["separated"] is True


def test_evidence_less_probable_than_any_float(said, tmp_path):
    path = tmp_path / "coins.bif"
    states = {f"c{i}": ("h", "t") for i in range(200)}
    save(bayesian(states, [Factor((v,), np.array([1e-6, 1 - 1e-6])) for v in states]), path)
    text = said("query", path, "--evidence", *(f"{v}=h" for v in states), "--targets", "c0")
    assert f"log evidence {200 * math.log(1e-6):.6f} nats (probability 1.00e-1200)" in text


def test_a_warning_of_the_reader_is_one_line(capsys):
    assert run("query", "alarm", "--evidence", "HISTORY=TRUE", "--json") == 0
    printed = capsys.readouterr()
    assert printed.err.startswith("warning: alarm: ") and printed.err.count("\n") == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = JunctionTree(read("alarm")).query({"HISTORY": "TRUE"})
    document = json.loads(printed.out)
    assert document["log_evidence"] == float(found.log_evidence)
    assert [*document["posteriors"]["CVP"].values()] == found["CVP"].tolist()


# query: many rows -------------------------------------------------------------------------------


def test_a_streamed_file_equals_one_query(said, asia, tmp_path, monkeypatch):
    n = 1000
    frame = cases(n)
    path, out = written(tmp_path / "cases.csv", frame), tmp_path / "out.csv"
    monkeypatch.setattr(graph_queries, "BLOCK", 19 * 150)  # 150 rows at a time, a last one of 100
    words = ["query", "asia", "--evidence-file", path, "--keep", "patient", "--out", out]
    found = asia.query(frame.drop(columns="patient"))
    possible = found.log_evidences() > -np.inf
    bad = int((~possible).sum())
    assert 10 < bad < n / 2
    assert said(*words) == f"{n:,} rows answered, {bad} of them impossible: {out}\n"
    header, *rows = rows_of(out.read_text())
    names = [f"{v}={s}" for v in asia.tables.states for s in ("yes", "no")]
    assert header == ["patient", *names, "log_evidence", "possible"]
    assert [row[0] for row in rows] == frame["patient"].tolist()
    assert [row[-1] for row in rows] == [str(bool(p)) for p in possible]
    expected = found.to_frame().to_numpy()
    for row, numbers, log, ok in zip(rows, expected, found.log_evidences(), possible, strict=True):
        assert float(row[-2]) == pytest.approx(log, rel=1e-12)
        if ok:
            np.testing.assert_allclose([float(x) for x in row[1:-2]], numbers, atol=1e-14)
            assert all(repr(float(x)) == x for x in row[1:-1])
        else:
            assert set(row[1:-2]) == {""} and row[-2] == "-inf"
    # In one part, the same; and pandas reads it back.
    monkeypatch.setattr(graph_queries, "BLOCK", 2**20)
    said(*words, "--overwrite")
    whole = pd.read_csv(out)
    assert whole["possible"].tolist() == possible.tolist()
    np.testing.assert_allclose(whole[names].to_numpy(), expected, atol=1e-14, equal_nan=True)


def test_compressed_files_and_standard_output(said, answered, tmp_path, capsys):
    frame = cases(300, seed=1)
    path = written(tmp_path / "cases.csv", frame)
    zipped = tmp_path / "cases.csv.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    words = ["--ignore", "patient", "--targets", "bronc", "dysp"]
    assert run("query", "asia", "--evidence-file", path, *words) == 0
    plain = capsys.readouterr()
    assert plain.err.startswith("warning: 300 rows answered, ") and plain.err.count("\n") == 1
    outs = [tmp_path / "1.csv", tmp_path / "2.csv.gz", tmp_path / "3.csv.gz"]
    for out in outs:
        document = answered("query", "asia", "--evidence-file", zipped, *words, "--out", out)
        assert document["rows"] == 300 and document["out"] == str(out)
        assert document["columns"] == plain.out.splitlines()[0].split(",")
        assert document["impossible"] == sum(line.endswith("False") for line in plain.out.split())
    assert outs[0].read_text() == plain.out
    assert gzip.decompress(outs[1].read_bytes()).decode() == plain.out
    assert outs[1].read_bytes() == outs[2].read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "1.csv", "2.csv.gz", "3.csv.gz", "cases.csv", "cases.csv.gz",
    ]  # fmt: skip


def test_evidence_of_every_row_and_columns_left_out(said, asia, tmp_path):
    frame = cases(60, seed=2)
    path = written(tmp_path / "cases.csv", frame)
    words = ["--evidence", "dysp=yes", "--likelihood", "bronc=0.3,0.9", "--ignore", "lung"]
    words += ["--keep", "patient", "lung", "--targets", "tub", "lung"]
    header, *rows = rows_of(said("query", "asia", "--evidence-file", path, *words))
    assert header[:2] == ["patient", "lung"]
    assert [row[1] for row in rows] == frame["lung"].fillna("").tolist()
    evidence = {v: frame[v] for v in ("smoke", "either", "xray")} | {"dysp": "yes"}
    found = asia.query(evidence, ["tub", "lung"], {"bronc": [0.3, 0.9]})
    numbers = np.array([[float(x) for x in row[2:7]] for row in rows])
    expected = np.column_stack([found.to_frame(), found.log_evidences()])
    np.testing.assert_allclose(numbers, expected, atol=1e-14)


def test_explanations_by_row(said, asia, tmp_path, monkeypatch):
    frame = cases(200, seed=3)
    path, out = written(tmp_path / "cases.csv", frame), tmp_path / "out.csv"
    monkeypatch.setattr(graph_queries, "BLOCK", 64 * 11)
    words = ["--evidence-file", path, "--keep", "patient", "--mpe", "--out", out]
    said("query", "asia", *words)
    found = asia.mpe(frame.drop(columns="patient"))
    header, *rows = rows_of(out.read_text())
    assert header == ["patient", *asia.tables.states, "log_probability", "possible"]
    assert {row[-1] for row in rows} == {"True", "False"}
    for i, row in enumerate(rows):
        states = [found.assignment[v][i] for v in asia.tables.states]
        assert row[1:-2] == ["" if state is None else state for state in states]
        assert float(row[-2]) == pytest.approx(found.log_probability[i], rel=1e-12)
        assert (row[-2] == "-inf") == (row[-1] == "False") == (row[1] == "")
    said("query", "asia", *words, "--overwrite", "--targets", "lung")
    assert rows_of(out.read_text())[0] == ["patient", "lung", "log_probability", "possible"]


def test_integers_that_a_program_wrote_as_floats(said, markov, tmp_path):
    engine = JunctionTree(read(markov))
    frame = pd.DataFrame({"0": [1, None, 0], "2": [0, 1, None]})
    path = written(tmp_path / "rows.csv", frame)
    assert "1.0" in path.read_text()
    header, *rows = rows_of(said("query", markov, "--evidence-file", path))
    assert header[:2] == ["0=0", "0=1"]
    found = engine.query({0: frame["0"], 2: frame["2"]})
    assert [float(row[-2]) for row in rows] == pytest.approx(found.log_evidences())


def test_a_file_without_rows_and_blank_lines_at_the_end(said, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("\ufeffsmoke,lung\n")
    assert len(rows_of(said("query", "asia", "--evidence-file", path))) == 1
    path.write_text("smoke,lung\r\nyes,\r\n\r\n\r\n")
    assert len(rows_of(said("query", "asia", "--evidence-file", path))) == 2


@pytest.mark.parametrize("cell", [None, "", math.nan])
def test_a_cell_that_says_nothing(cell):
    assert Codes({"a": 0, "b": 1})[cell] == -1


@pytest.mark.parametrize("cell", ["c", "nan", "1e400", "0.5", 0.5, math.inf, "A"])
def test_a_cell_that_is_no_state(cell):
    with pytest.raises(KeyError):
        Codes({"a": 0, "1": 1, "0": 2})[cell]


def test_parquet_without_pyarrow_is_refused(refused, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    source = tmp_path / "rows.parquet"
    source.write_bytes(b"PAR1")
    refused("query", "asia", "--evidence-file", source, match="need pyarrow")
    source.unlink()
    refused("sample", "asia", "--n", 3, "--out", source, match="need pyarrow")
    assert not list(tmp_path.iterdir())


def test_parquet_holds_the_same_as_csv(said, refused, tmp_path):
    pytest.importorskip("pyarrow")
    frame = cases(200, seed=4)
    frame.insert(0, "number", range(200))
    path = written(tmp_path / "cases.csv", frame)
    frame.to_parquet(tmp_path / "cases.parquet")
    words = ["--keep", "number", "patient"]
    text = said("query", "asia", "--evidence-file", path, *words, "--out", tmp_path / "1.csv")
    words += ["--out", tmp_path / "2.parquet"]
    assert said("query", "asia", "--evidence-file", tmp_path / "cases.parquet", *words) == (
        text.replace("1.csv", "2.parquet")
    )
    left, right = pd.read_csv(tmp_path / "1.csv"), pd.read_parquet(tmp_path / "2.parquet")
    assert right["number"].tolist() == [*range(200)]
    assert left["possible"].tolist() == right["possible"].tolist()
    np.testing.assert_array_equal(
        left.drop(columns="patient").to_numpy(float), right.drop(columns="patient").to_numpy(float)
    )
    (tmp_path / "bad.parquet").write_text("not this")
    refused("query", "asia", "--evidence-file", tmp_path / "bad.parquet", match="not a whole parq")


# sample -----------------------------------------------------------------------------------------


def test_sample_draws_the_rows_of_the_library(said, answered, tmp_path, monkeypatch):
    out = tmp_path / "rows.csv"
    monkeypatch.setattr(graph_samples, "BLOCK", 1)  # the smallest blocks: three of them
    n = 40_000
    assert said("sample", "asia", "--n", n, "--out", out, "--seed", 5) == (
        f"{n:,} rows drawn: {out}\n"
    )
    expected = ancestral_sample(read("asia"), n, seed=5)
    assert out.read_text() == expected.to_csv(index=False)
    few = said("sample", "asia", "--n", 7, "--seed", 5)
    assert few == ancestral_sample(read("asia"), 7, seed=5).to_csv(index=False)
    assert said("sample", "asia", "--n", 7) == said("sample", "asia", "--n", 7, "--seed", 0)
    document = answered("sample", "asia", "--n", 7, "--seed", 5)
    assert [document["columns"], *document["rows"]] == rows_of(few)
    document = answered("sample", "asia", "--n", 2, "--out", out, "--overwrite")
    assert document["out"] == str(out) and document["n"] == 2
    assert len(rows_of(out.read_text())) == 3
    assert said("sample", "asia", "--n", 0).count("\n") == 1
    assert answered("sample", "asia", "--n", 0)["rows"] == []


def test_sample_given_evidence_is_exact(said, asia, markov, monkeypatch):
    evidence = {"xray": "yes", "dysp": "no"}
    words = ["--evidence", "xray=yes", "dysp=no"]
    few = said("sample", "asia", "--n", 50, "--seed", 3, *words)
    assert few == asia.sample(50, evidence, seed=3).to_csv(index=False)
    monkeypatch.setattr(graph_samples, "BLOCK", 1)
    n = 40_000
    frame = pd.read_csv(io.StringIO(said("sample", "asia", "--n", n, *words)))
    assert len(frame) == n and set(frame["xray"]) == {"yes"} and set(frame["dysp"]) == {"no"}
    found = asia.query(evidence)
    for variable in ("tub", "lung", "bronc", "smoke"):
        p = float(found[variable][0])
        assert (frame[variable] == "yes").mean() == pytest.approx(p, abs=5 * (p / n) ** 0.5)
    # The blocks are different draws.
    assert not frame[:7232].equals(frame[16384 : 16384 + 7232].reset_index(drop=True))
    # An undirected network is sampled as well.
    rows = rows_of(said("sample", markov, "--n", 20, "--evidence", "0=1"))
    assert rows[0] == ["0", "1", "2", "3"] and {row[0] for row in rows[1:]} == {"1"}


def test_many_rows_take_no_more_memory(tmp_path):
    """The peak of ten times as many rows is that of the fewer, and little more."""
    peaks = []
    code = (
        "import resource, sys; from ppgen import cli; status = cli.main(sys.argv[1:]); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(status)"
    )
    for n in (100_000, 1_000_000):
        words = ["graph", "sample", "cancer", "--n", str(n), "--out", str(tmp_path / f"{n}.csv")]
        done = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout.splitlines()[-1]))
    assert peaks[1] < peaks[0] + 60_000  # KiB; the rows themselves are 30 MB of text, and objects


# What is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["shwo"], "unknown command 'shwo'; did you mean show"),
        (["show", "alram"], "no network 'alram'; did you mean alarm"),
        (["show", "nowhere.bif"], "no file 'nowhere.bif'"),
        (["show", "rows.txt"], r"ending must be \.bif"),
        (["show", "."], "is a folder"),
        (["show", "broken.bif"], r"broken\.bif: "),
        (["show", "--variable", "x"], "--variable needs a network"),
        (["show", "--draw", "x.png"], "--draw needs a network"),
        (["show", "asia", "--variable", "lnug"], "no variable 'lnug'; did you mean lung"),
        (["show", "asia", "cancer"], "one word too many: 'cancer'; usage: ppgen graph show"),
        (["show", "asia", "--ful"], "unknown option --ful; did you mean --full"),
        (["show", "asia", "--variable"], "--variable: expected one argument"),
        (["separate", "asia", "lung"], "required: B"),
        (["separate", "asia", "lung", "nolung"], "no variable 'nolung'; did you mean lung"),
        (["separate", "asia", "lung", "asia,"], "no variable ''"),
        (["separate", "asia", "lung", "lung"], "no node in common; both hold lung"),
        (["separate", "asia", "lung", "tub", "--given", "tub"], "no node in common"),
        (["separate", "asia", "lung", "tub", "--max-trails", "0"], "must be 1 or more; got 0"),
        (["separate", "asia", "lung", "tub", "--max-trails", "x"], "--max-trails: invalid int"),
        (["blanket", "asia", "lnug"], "did you mean lung"),
        (["blanket", "asia"], "required: X"),
        (["query"], "required: NETWORK"),
        (["query", "asia", "--evidence", "lung"], "--evidence takes NAME=VALUE; got 'lung'"),
        (["query", "asia", "--evidence", "lnug=yes"], "no variable 'lnug'; did you mean lung"),
        (["query", "asia", "--evidence", "lung=yse"], "no state 'yse' of lung; did you mean yes"),
        (["query", "asia", "--evidence", "lung="], "no state '' of lung; known: yes, no"),
        (["query", "asia", "--evidence", "lung=yes", "lung=no"], "--evidence has lung twice"),
        (["query", "asia", "--evidence", "lung=yes", "smoke=no", "either=no"],
         "impossible: lung=yes, either=no cannot hold together"),
        (["query", "asia", "--mpe", "--evidence", "lung=yes", "smoke=no", "either=no"],
         "impossible: lung=yes, either=no cannot hold together"),
        (["query", "asia", "--targets", "lnug"], "did you mean lung"),
        (["query", "asia", "--targets"], "--targets: expected at least one"),
        (["query", "asia", "--likelihood", "lung=1"], "needs 2 numbers .*for yes, no; got '1'"),
        (["query", "asia", "--likelihood", "lung=a,b"], "lung needs 2 numbers"),
        (["query", "asia", "--likelihood", "lung=1,-1"], "negative or not finite"),
        (["query", "asia", "--likelihood", "lung=1,nan"], "negative or not finite"),
        (["query", "asia", "--likelihood", "lung=0,0"], "impossible: the likelihood of lung"),
        (["query", "asia", "--likelihood", "lung=1,1", "--mpe"], "--mpe takes no --likelihood"),
        (["query", "asia", "--out", "x.csv"], "--out goes with --evidence-file"),
        (["query", "asia", "--keep", "x"], "--keep goes with --evidence-file"),
        (["query", "asia", "--ignore", "x"], "--ignore goes with --evidence-file"),
        (["query", "asia", "--overwrite"], "--overwrite goes with --evidence-file"),
        (["query", "asia", "--evidnce", "x"], "unknown option --evidnce; did you mean --evidence"),
        (["query", "LARGE", "--targets", "0"], "exact inference would need .* TiB"),
        (["sample", "asia"], "required: --n"),
        (["sample", "asia", "--n", "-1"], "--n must be 0 or more; got -1"),
        (["sample", "asia", "--n", "1.5"], "--n: invalid int value: '1.5'"),
        (["sample", "asia", "--n", "1", "--seed", "-1"], "--seed must be 0 or more; got -1"),
        (["sample", "asia", "--n", "1", "--out", "x.txt"], r"must end in \.csv, \.csv\.gz or "),
        (["sample", "asia", "--n", "1", "--out", "old.csv"], r"old\.csv exists: .*--overwrite"),
        (["sample", "asia", "--n", "1", "--out", "none/x.csv"], "no folder 'none'"),
        (["sample", "asia", "--n", "1", "--evidence", "lung=yes", "either=no"], "impossible"),
        (["sample", "asia", "--n", "1", "--evidence", "lung=yes", "either=no", "--out", "x.csv"],
         "impossible"),
    ],
)  # fmt: skip
def test_bad_words(words, match, refused, markov, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("old.csv").write_text("precious")
    Path("broken.bif").write_text("network x {\n}\nvariable a {\n  type discrete [ 2 ] { t")
    if "LARGE" in words:
        pairs = itertools.combinations(range(36), 2)  # 2**36 cells, 512 GiB
        save([(pair, np.ones((2, 2))) for pair in pairs], "large.uai")
    before = sorted(tmp_path.iterdir())
    places = {"MARKOV": markov, "LARGE": "large.uai"}
    refused(*(places.get(word, word) for word in words), match=match)
    assert sorted(tmp_path.iterdir()) == before
    assert Path("old.csv").read_text() == "precious"


@pytest.mark.parametrize(
    ("content", "words", "match"),
    [
        ("", [], "is empty"),
        ("smoke,lung\nyes,yse\n", [], "row 1 after the header: no state 'yse' of lung; did you m"),
        ("smoke,lung\nyes,no\nyes,NaN\n", [], "row 2 after the header: no state 'NaN' of lung"),
        ("smoke,lung\nyes\n", [], "line 2: 1 cells, where the header has 2 columns"),
        ("smoke,lung\nyes,no,no\n", [], "line 2: 3 cells"),
        ("smoke,lung\nyes,no\n\nyes,no\n", [], "line 3: blank"),
        ('smoke,lung\n"yes"x,no\n', [], "line 2: "),
        ('smoke,lung\nyes,"no\n', [], "unexpected end of data"),
        (b"smoke,lung\nyes,n\xff\n", [], "not UTF-8 text"),
        ("smoke,smoke\nyes,no\n", [], "has the column 'smoke' twice"),
        (
            "smok,lung\nyes,no\n",
            [],
            "no variable 'smok'; did you mean smoke.*--keep smok .*--ignor",
        ),
        (",lung\n0,no\n", [], "no variable ''.*--keep ''"),
        ("id,lung\n0,no\n", ["--keep", "di"], "--keep: no column 'di' of .*did you mean id"),
        ("id,lung\n0,no\n", ["--ignore", "di"], "--ignore: no column 'di' of"),
        ("id,lung\n0,no\n", ["--ignore", "id", "lung"], "has no column that is evidence"),
        ("lung\nno\n", ["--evidence", "lung=yes"], "lung is a column of .*rows.csv as well"),
        ("lung\nno\n", ["--mpe", "--keep", "lung"], "two columns 'lung': leave it out of --keep"),
        ("possible,lung\n1,no\n", ["--keep", "possible"], "two columns 'possible'"),
        ("lung\nno\n", ["--targets", "lnug"], "did you mean lung"),
        ("lung\nno\n", ["--likelihood", "lung=1"], "needs 2 numbers"),
    ],
)
def test_bad_files_of_evidence(content, words, match, refused, tmp_path, monkeypatch):
    monkeypatch.setattr(graph_queries, "BLOCK", 1)  # a row at a time: those before are written
    path = tmp_path / "rows.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    out = tmp_path / "out.csv"
    out.write_text("precious")
    words = ["query", "asia", "--evidence-file", path, *words]
    refused(*words, "--out", out, "--overwrite", match=match)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out.csv", "rows.csv"]
    assert out.read_text() == "precious"


def test_where_to_write_is_settled_first(refused, said, tmp_path, monkeypatch):
    path, out = written(tmp_path / "rows.csv", cases(5)), tmp_path / "out.csv"
    words = ["query", "asia", "--ignore", "patient", "--evidence-file"]
    before = path.read_bytes()
    refused(*words, path, "--out", path, "--overwrite", match="is the file of evidence itself")
    refused(*words, path, "--out", path, match="exists")
    refused(*words, path, "--out", tmp_path, match="is a folder|must end in")
    refused(*words, path, "--out", tmp_path / "out.txt", match="must end in")
    refused(*words, path, "--json", match="--json needs --out")
    refused(*words, tmp_path / "none.csv", match="no file .*none.csv")
    refused(*words, tmp_path / "rows.txt", match="must end in")
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress(before)[:-9])
    refused(*words, tmp_path / "rows.csv.gz", "--out", out, match="not a whole gzip file")
    (tmp_path / "rows.csv.gz").write_bytes(b"not this")
    refused(*words, tmp_path / "rows.csv.gz", "--out", out, match="not a whole gzip file")
    assert path.read_bytes() == before and not out.exists()
    # A file that came into being while the rows were answered is left alone.
    wrote = graph_rows.os.fsync

    def fsync(number):
        out.write_text("precious")
        wrote(number)

    with monkeypatch.context() as patch:
        patch.setattr(graph_rows.os, "fsync", fsync)
        refused(*words, path, "--out", out, match=r"out\.csv exists")
    assert out.read_text() == "precious"
    assert {file.name for file in tmp_path.iterdir()} == {"rows.csv", "rows.csv.gz", "out.csv"}


def test_a_full_disk_is_a_failed_run(capsys, tmp_path, monkeypatch):
    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(graph_rows.os, "fsync", full)
    assert run("sample", "asia", "--n", 5, "--out", tmp_path / "rows.csv.gz") == 1
    assert "No space left" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# In a process of its own ------------------------------------------------------------------------


def shell(*words, **keywords):
    return subprocess.Popen(
        [sys.executable, "-m", "ppgen.cli", "graph", *map(str, words)],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, **keywords,
    )  # fmt: skip


def test_an_answer_is_quick_and_imports_what_it_needs():
    code = """
        import sys
        from ppgen import cli
        assert cli.main(["graph", *sys.argv[1:]]) == 0
        slow = {"torch", "pyro", "pgmpy", "lightning", "matplotlib"} & set(sys.modules)
        assert not slow, slow
    """
    for words in (
        ["query", "alarm", "--evidence", "HISTORY=TRUE"],
        ["query", "alarm", "--evidence", "HISTORY=TRUE", "--mpe", "--json"],
        ["show", "alarm"],
        ["show"],
        ["sample", "alarm", "--n", "10"],
        ["separate", "alarm", "HISTORY", "CVP"],
    ):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-c", textwrap.dedent(code), *words]
        subprocess.run(command, capture_output=True, check=True, cwd=ROOT)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # Of the processor, so that a busy machine is no matter: 0.5 s, and 1 s for the list.
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        assert seconds < 2.5, (words, seconds)


@pytest.fixture(scope="module")
def long_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("long") / "long.csv"
    path.write_text("smoke,xray\n" + "yes,no\n,yes\nno,\n" * 150_000)
    return path


@pytest.mark.parametrize(
    ("number", "status", "text"),
    [
        (signal.SIGINT, 130, "interrupted: nothing was written; the same command starts over\n"),
        (signal.SIGTERM, 143, "terminated: nothing was written; the same command starts over\n"),
        (signal.SIGKILL, -9, ""),
    ],
)
@pytest.mark.parametrize("ending", [".csv", ".csv.gz"])
def test_a_signal_leaves_no_half_file(number, status, text, ending, long_file, tmp_path):
    out = tmp_path / f"out{ending}"
    words = ["query", "asia", "--evidence-file", long_file, "--out", out]
    process = shell(*words, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not any(f.stat().st_size for f in tmp_path.iterdir()):
        time.sleep(0.01)
    assert not out.exists()
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == status and error == text
    assert not out.exists()
    left = [file.name for file in tmp_path.iterdir()]
    assert left == [] or (number == signal.SIGKILL and left[0].endswith(".tmp"))


def test_a_closed_pipe_is_quiet(long_file):
    ppgen = f"{sys.executable} -m ppgen.cli graph"
    for command in (
        f"{ppgen} sample asia --n 1000000",
        f"{ppgen} sample asia --n 1000000 --json",
        f"{ppgen} query asia --evidence-file {long_file}",
        f"{ppgen} show win95pts --full",
    ):
        done = subprocess.run(
            f"{command} | head -n 2; echo ${{PIPESTATUS[0]}}",
            shell=True, executable="/bin/bash", capture_output=True, text=True, cwd=ROOT,
        )  # fmt: skip
        assert done.stderr == "" and done.stdout.splitlines()[-1] == "0", done


def test_a_terminal_gets_a_drawn_table_and_a_bar(long_file, tmp_path):
    def on_terminal(*words, stream):
        master, slave = pty.openpty()
        process = shell(*words, **{stream: slave}, **{"stdin": subprocess.DEVNULL})
        os.close(slave)
        parts = []
        try:
            while part := os.read(master, 4096):
                parts.append(part)
        except OSError:  # the terminal's other end was closed
            pass
        os.close(master)
        assert process.wait(timeout=60) == 0
        return b"".join(parts).decode()

    words = ["query", "asia", "--evidence", "smoke=yes", "--targets", "lung"]
    text = on_terminal(*words, stream="stdout")
    assert "│ lung " in text and "0.100000" in text
    out = tmp_path / "out.csv"
    path = tmp_path / "rows.csv"
    path.write_text("smoke\n" + "yes\nno\n" * 100)
    words = ["query", "asia", "--evidence-file", path, "--out", out, "--targets", "lung"]
    text = on_terminal(*words, stream="stderr")
    assert "200 rows" in text and len(rows_of(out.read_text())) == 201
