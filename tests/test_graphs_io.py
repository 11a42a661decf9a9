"""Reading and writing networks: every file is read as what it says, or not at all."""

import gzip
import os
import random
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pgmpy.factors.discrete import DiscreteFactor
from pgmpy.models import DiscreteBayesianNetwork, DiscreteMarkovNetwork
from pgmpy.readwrite import BIFReader, NETReader, XMLBIFReader

import graphs
from graphs import io
from graphs.formats.bif import read_bif
from graphs.tables import Factor, Tables, tables_of

# Nodes, arcs and parameters as the bnlearn repository publishes them.
PUBLISHED = {
    "asia": (8, 8, 18), "cancer": (5, 4, 10), "earthquake": (5, 4, 10), "sachs": (11, 17, 178),
    "survey": (6, 6, 21), "alarm": (37, 46, 509), "barley": (48, 84, 114005),
    "child": (20, 25, 230), "insurance": (27, 52, 1008), "mildew": (35, 46, 540150),
    "water": (32, 66, 10083), "hailfinder": (56, 66, 2656), "hepar2": (70, 123, 1453),
    "win95pts": (76, 112, 574), "andes": (223, 338, 1157), "diabetes": (413, 602, 429409),
    "link": (724, 1125, 14211), "munin1": (186, 273, 15622), "munin2": (1003, 1244, 69431),
    "munin3": (1041, 1306, 71059), "munin4": (1038, 1388, 80352), "munin": (1041, 1397, 80592),
    "pathfinder": (109, 195, 72079), "pigs": (441, 592, 5618),
}  # fmt: skip

printed_digits = pytest.mark.filterwarnings("ignore:.*as printed digits do:UserWarning")


def bif_text(name: str) -> str:
    return gzip.decompress(Path(io._folder(), f"{name}.bif.gz").read_bytes()).decode()


ASIA = bif_text("asia")
ALARM = bif_text("alarm")
SMALL = """network small {
}
variable A {
  type discrete [ 2 ] { a0, a1 };
}
variable B {
  type discrete [ 3 ] { b0, b1, b2 };
}
variable C {
  type discrete [ 2 ] { c0, c1 };
}
probability ( A ) {
  table 0.25, 0.75;
}
probability ( B ) {
  table 0.5, 0.25, 0.25;
}
probability ( C | A, B ) {
  (a0, b0) 0.1, 0.9;
  (a1, b0) 0.2, 0.8;
  (a0, b1) 0.3, 0.7;
  (a1, b1) 0.4, 0.6;
  (a0, b2) 0.5, 0.5;
  (a1, b2) 0.6, 0.4;
}
"""
OF_C = np.array([[[0.1, 0.3, 0.5], [0.2, 0.4, 0.6]], [[0.9, 0.7, 0.5], [0.8, 0.6, 0.4]]])
ROWS = SMALL[SMALL.index("  (a0, b0)") : SMALL.rindex("}")]


def written(folder: Path, text: str, name: str = "net.bif") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def assert_same(one: Tables, two: Tables) -> None:
    """The same model, to the bit."""
    assert one.name == two.name
    assert one.states == two.states
    assert_same_numbers(one, two)
    assert [factor.variables for factor in one.factors] == [f.variables for f in two.factors]


def assert_same_numbers(one: Tables, two: Tables) -> None:
    assert one.directed == two.directed
    assert len(one.factors) == len(two.factors)
    for a, b in zip(one.factors, two.factors, strict=True):
        assert a.values.dtype == b.values.dtype == np.float64
        np.testing.assert_array_equal(a.values, b.values)


# Reading the repository -------------------------------------------------------------------------


def test_the_networks_are_the_24_of_the_repository():
    assert io.networks() == sorted(PUBLISHED)


@printed_digits
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_network_has_the_published_size(name):
    tables = io.read(name)
    nodes = len(tables.states)
    arcs = tables.graph().number_of_edges()
    parameters = sum(f.values.size - f.values.size // len(f.values) for f in tables.factors)
    assert (nodes, arcs, parameters) == PUBLISHED[name]
    assert tables.name == name
    assert all(np.abs(f.values.sum(0) - 1).max() < 1e-14 for f in tables.factors)


@printed_digits
@pytest.mark.parametrize(
    "name", ["asia", "cancer", "child", "sachs", "alarm", "insurance", "water"]
)
def test_equal_to_pgmpys_reader(name):
    theirs = BIFReader(string=bif_text(name)).get_model()
    ours = io.read(name)
    assert set(ours.states) == set(theirs.nodes)
    assert set(ours.graph().edges) == set(theirs.edges)
    for cpd in theirs.cpds:
        factor = next(f for f in ours.factors if f.variables[0] == cpd.variable)
        assert factor.variables == tuple(cpd.variables)
        assert ours.states[cpd.variable] == tuple(cpd.state_names[cpd.variable])
        np.testing.assert_allclose(factor.values, cpd.values, atol=1e-6, rtol=0)
        exact = np.abs(cpd.values.sum(0) - 1) < 1e-14
        np.testing.assert_array_equal(factor.values[:, exact], cpd.values[:, exact])


def test_rounding_is_renormalised_with_one_warning_at_the_caller():
    assert ALARM.count("0.3333333, 0.3333333, 0.3333333;") == 6
    for call in (io.read, graphs.load):
        with pytest.warns(UserWarning, match="^alarm: 6 columns of tables sum to 1 only") as caught:
            call("alarm")
        assert [Path(w.filename).name for w in caught] == [Path(__file__).name]


@printed_digits
@pytest.mark.parametrize("name", ["asia", "sachs", "alarm", "munin1"])
def test_blocks_in_bulk_and_token_by_token_read_the_same(name, monkeypatch):
    text = bif_text(name)
    usual = read_bif(text)
    # a property in each block makes every one of them unusual
    slow = read_bif(re.sub(r"(?m)^}", '  property "a } { ;";\n  property x = 1 ;\n}', text))
    assert slow.states == usual.states
    for a, b in zip(usual.factors, slow.factors, strict=True):
        assert a.variables == b.variables
        np.testing.assert_allclose(a.values, b.values, atol=1e-6, rtol=0)
    assert usual.checked and not slow.checked  # else one path was compared with itself


def test_reading_imports_neither_pgmpy_nor_torch():
    code = (
        "import sys, graphs.io as io; io.read('asia');"
        "print([m for m in ('pgmpy', 'torch', 'pandas', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# What .bif files may say ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", ""),
        ("network small {", 'network "small" {\n property "by hand; {}" ;'),
        ("variable A {", "// a comment, with { and \"\nvariable A { /* and\n one */"),
        ("};\n}", "};\n  property position = (1, 2) ;\n}"),
        ("a0, a1 }", '"a0" a1 }'),
        ("A, B )", "B, A )"),  # with the rows exchanged below
        (ROWS, "".join(reversed(ROWS.splitlines(keepends=True)))),
        (ROWS, ROWS.replace(", ", " ").replace("(", "( ").replace(")", " )")),
        (ROWS, ROWS.replace("  (a1, b1) 0.4, 0.6;", "  default 0.4 0.6;")),
        (ROWS, "  table " + ", ".join(map(str, OF_C.ravel().tolist())) + ";\n"),
        ("( C | A, B )", "(C A B)"),
        (" 0.5, 0.25, 0.25", " 5.0e-1,\n .25,\t+0.25"),
        ("network small {\n}\n", "\ufeffnetwork small {}"),
        ("\n", "\r\n"),
    ],
)  # fmt: skip
def test_ways_of_writing_the_same(tmp_path, old, new):
    text = SMALL.replace(old, new) if old else SMALL
    if "B, A )" in new:
        text = re.sub(r"\((a\d), (b\d)\)", r"(\2, \1)", text)
        assert io.read(written(tmp_path, text)).parents("C") == ("B", "A")
    tables = io.read(written(tmp_path, text))
    assert tables.states == {"A": ("a0", "a1"), "B": ("b0", "b1", "b2"), "C": ("c0", "c1")}
    order = [("C", "A", "B").index(v) for v in ("C", *tables.parents("C"))]
    np.testing.assert_array_equal(tables.conditional("C"), OF_C.transpose(order))
    np.testing.assert_array_equal(tables.conditional("A"), [0.25, 0.75])
    np.testing.assert_array_equal(tables.conditional("B"), [0.5, 0.25, 0.25])
    assert tables.name == "small"


def test_a_table_of_several_parents_is_what_pgmpy_reads(tmp_path):
    text = SMALL.replace(ROWS, f"  table {', '.join(map(str, OF_C.ravel().tolist()))};\n")
    theirs = BIFReader(string=text).get_model().get_cpds("C")
    np.testing.assert_array_equal(theirs.values, io.read(written(tmp_path, text)).conditional("C"))


def test_labels_are_never_split_differently_from_how_they_are_quoted(tmp_path):
    text = SMALL.replace("{ a0, a1 }", '{ "a0, b0", "a1" }').replace("( C | A, B )", "( C | A )")
    rows = '  ("a0, b0") 0.1, 0.9;\n  (a1) 0.2, 0.8;\n'
    tables = io.read(written(tmp_path, text.replace(ROWS, rows)))
    np.testing.assert_array_equal(tables.conditional("C"), [[0.1, 0.2], [0.9, 0.8]])
    with pytest.raises(ValueError, match="line 19: a row of C names 2 states for 1 parents"):
        io.read(written(tmp_path, text.replace(ROWS, rows.replace('"', ""))))


def test_a_network_without_a_name_is_named_after_its_file(tmp_path):
    assert io.read(written(tmp_path, ASIA, "lungs.bif")).name == "lungs"
    zipped = tmp_path / "chest.bif.gz"
    zipped.write_bytes(gzip.compress(ASIA.encode()))
    assert io.read(zipped).name == "chest"
    assert_same_numbers(io.read(zipped), io.read("asia"))


# Errors -----------------------------------------------------------------------------------------

BROKEN = {
    "variable twice": ("variable B {", "variable A {", "line 6: the variable A is declared twice"),
    "state twice": ("b0, b1, b2", "b0, b1, b1", "line 7: B has the state 'b1' twice"),
    "states counted wrong": ("[ 3 ]", "[ 4 ]", "line 7: B declares 4 states and lists 3"),
    "no states": ("type discrete [ 2 ] { a0, a1 };", "", "line 3: the variable A has no states"),
    "continuous": ("type discrete [ 3 ] { b0, b1, b2 }", "type real [ 1 ] { 0 }", "of type real"),
    "unknown state": ("(a1, b1)", "(a1, bl)", "line 22: no state 'bl' of B; did you mean b"),
    "labels missing": ("(a1, b1)", "(a1)", "line 22: a row of C names 1 states for 2 parents"),
    "unknown parent": ("| A, B )", "| A, b )", "line 18: no parent 'b' of C; did you mean B?"),
    "unknown child": ("( C | A", "( D | A", "line 18: no variable 'D'; known: A, B, C"),
    "parent twice": ("| A, B )", "| A, A )", "line 18: the table of C names a variable twice"),
    "its own parent": ("| A, B )", "| A, C )", "line 18: the table of C names a variable twice"),
    "too few numbers": ("0.4, 0.6;", "0.4;", "line 22: a row of C has 1 numbers; expected 2"),
    "too many numbers": ("0.4, 0.6;", "0.4, 0.3, 0.3;", "line 22: a row of C has 3 numbers"),
    "short table": ("0.25, 0.75", "0.25", "line 13: a row of A has 1 numbers; expected 2"),
    "row missing": ("  (a1, b1) 0.4, 0.6;\n", "", r"line 18: the table of C lacks 1 rows, the "
                    r"first \(a1, b1\), and has no default"),
    "row twice": ("(a1, b1)", "(a0, b1)", r"line 22: the table of C gives \(a0, b1\) twice"),
    "default twice": ("(a1, b1) 0.4, 0.6;", "default 0.4 0.6; default 0.1 0.9;", "default twice"),
    "table beside rows": ("  (a0, b0)", "  table 0.5, 0.5;\n  (a0, b0)", "a table and other rows"),
    "table missing": ("probability ( A ) {\n  table 0.25, 0.75;\n}\n", "", "no table for A up to"),
    "table twice": ("probability ( B )", "probability ( A ) { table 1, 0; }\nprobability ( B )",
                    "A has two tables"),
    "not a number": ("0.4, 0.6;", "0.4, O.6;", "line 22: 'O.6' is not a number"),
    "nan": ("0.4, 0.6;", "nan, 0.6;", "line 22: 'nan' is not a number"),
    "infinite": ("0.4, 0.6;", "1e999, 0.6;", "not a number in the column"),
    "two numbers in one": ("0.4, 0.6;", "0.4.6, 0.6;", "line 22: '0.4.6' is not a number"),
    "python's number": ("0.4, 0.6;", "0_4, 0.6;", "line 22: '0_4' is not a number"),
    "negative": ("0.4, 0.6;", "1.4, -0.4;", r"negative probability in .* p\(C \| A=a1, B=b1"),
    "off by more than rounding": ("0.4, 0.6;", "0.4, 0.61;", r"p\(C \| A=a1, B=b1\) sums"),
    "number between commas": ("0.4, 0.6;", "0.4,, 0.6;", "line 22: expected a number"),
    "semicolon missing": ("0.4, 0.6;", "0.4, 0.6", r"line 23: expected a number or ';', got '\('"),
    "brace missing": ("};\n}\nvariable B", "};\nvariable B", "line 5: expected 'type' or a prop"),
    "unknown block": ("variable B", "varable B", "line 6: expected 'variable' or 'probability'"),
    "stray text": ("probability ( B )", "beside\nprobability ( B )", "got 'beside'"),
    "stray statement": ("  table 0.25, 0.75;", "  table 0.25, 0.75; 1;", "line 13: expected"),
    "two networks": ("variable B", "network n {}\nvariable B", "a file has one network"),
    "no network": ("network small {\n}\n", "", "line 1: a .bif file begins with 'network"),
    "open comment": ("variable B", "/* variable B", "line 6: the comment /.* is not closed"),
    "open quotation": ("a0, a1 }", '"a0, a1 }', "line 4: a quotation mark"),
    "braces in a property": ("};\n}\nvariable B", "};\n property x\n}\nvariable B", "of a prop"),
    "too many digits": ("[ 3 ]", f"[ {'9' * 5000} ]", "must be a whole number"),
    "zero byte": ("0.4, 0.6;", "0.4, 0.6\0;", "not text"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_says_where_it_is_broken(tmp_path, kind):
    old, new, message = BROKEN[kind]
    assert SMALL.count(old) >= 1
    path = written(tmp_path, SMALL.replace(old, new, 1))
    with pytest.raises(ValueError, match=message) as caught:
        io.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1


def test_cycles_are_named(tmp_path):
    rows = "".join(f"  (c{i}) 0.25, 0.75;\n" for i in range(2))
    text = SMALL.replace("( A ) {\n  table 0.25, 0.75;\n", f"( A | C ) {{\n{rows}")
    with pytest.raises(ValueError, match=r"no directed cycle; found (A -> C -> A|C -> A -> C)"):
        io.read(written(tmp_path, text))


def test_a_default_cannot_ask_for_all_the_memory(tmp_path):
    names = [f"v{i}" for i in range(60)]
    text = "network big {\n}\n" + "".join(
        f"variable {v} {{ type discrete [ 2 ] {{ y, n }}; }}\n" for v in names
    )
    text += f"probability ( v0 | {', '.join(names[1:])} ) {{ default 0.5 0.5; }}\n"
    with pytest.raises(ValueError, match="line 63: the table of v0 would have 1152921504606846976"):
        io.read(written(tmp_path, text))


def test_what_cannot_be_found(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no network 'alrm'; did you mean alarm\?"):
        graphs.load("alrm")
    with pytest.raises(FileNotFoundError, match="no network 'nothing-like-it'; there are 24"):
        io.read("nothing-like-it")
    written(tmp_path, ASIA, "asia.bif")
    with pytest.raises(
        FileNotFoundError, match=r"no file 'aisa.bif' of .*; did you mean asia.bif\?"
    ):
        io.read(tmp_path / "aisa.bif")
    with pytest.raises(FileNotFoundError, match=r"no file 'x.bif'"):
        io.read(tmp_path / "nowhere" / "x.bif")
    for name in ("asia.txt", "asia.txt.gz", "asia.gz"):
        with pytest.raises(
            ValueError, match=r"the ending must be .bif, .xmlbif, .xml, .uai, .net or .fg"
        ):
            io.read(tmp_path / name)
    with pytest.raises(TypeError, match="name or the path of a file; got int"):
        io.read(3)


def test_files_that_are_no_text(tmp_path):
    path = tmp_path / "net.bif"
    path.write_bytes(SMALL.encode().replace(b"b1", b"b\xe9"))
    with pytest.raises(ValueError, match=r"net.bif: line 7: not UTF-8 text"):
        io.read(path)
    whole = gzip.compress(SMALL.encode())
    for cut in (0, 3, 12, len(whole) // 2, len(whole) - 1):
        (tmp_path / "net.bif.gz").write_bytes(whole[:cut])
        if cut:
            with pytest.raises(ValueError, match=r"net.bif.gz: not a whole gzip file"):
                io.read(tmp_path / "net.bif.gz")
        else:
            with pytest.raises(ValueError, match="cut short"):
                io.read(tmp_path / "net.bif.gz")


# Fuzzing ----------------------------------------------------------------------------------------


@printed_digits
def test_a_file_cut_short_is_never_a_network():
    end = len(ALARM.rstrip())
    whole = read_bif(ALARM)
    cuts = {*range(0, 400), *range(0, end, 37), *range(end - 120, len(ALARM) + 1)}
    for cut in sorted(cuts):
        if cut < end:
            with pytest.raises(ValueError, match=r"^line [0-9]+: "):
                read_bif(ALARM[:cut])
        else:
            assert read_bif(ALARM[:cut]).states == whole.states


@pytest.mark.parametrize("edit", ["delete", "insert", "replace"])
@pytest.mark.parametrize("name", ["asia", "sachs"])
@printed_digits
def test_one_wrong_character_changes_at_most_what_it_touches(edit, name, tmp_path):
    """A file with one edit is refused, or differs in one name or by rounding."""
    text, original, rng = bif_text(name), io.read(name), random.Random(edit)
    path = tmp_path / "edited.bif"
    refused = read = 0
    for _ in range(400):
        at = rng.randrange(len(text))
        character = rng.choice('a1 .,;|(){}[]"\n/') if edit != "delete" else ""
        path.write_text(text[:at] + character + text[at + (edit != "insert") :])
        said = ""
        try:
            other = io.read(path)
        except ValueError as error:
            said = str(error)
        if said:
            assert said.startswith(f"{path}: ") and len(said.splitlines()) == 1
            refused += 1
            continue
        read += 1
        assert list(other.states) == list(original.states)
        changed = [
            (a, b)
            for v in original.states
            for a, b in zip(original.states[v], other.states[v], strict=True)
            if a != b
        ]
        assert len(changed) <= 1
        for a, b in zip(original.factors, other.factors, strict=True):
            assert a.variables == b.variables
            np.testing.assert_allclose(a.values, b.values, atol=2e-6, rtol=0)
    assert refused > 100 and read > 10


@printed_digits
@pytest.mark.parametrize("ending", [".xmlbif", ".uai", ".net"])
def test_other_formats_cut_short(ending, tmp_path):
    io.save(io.read("sachs"), tmp_path / f"whole{ending}")
    text = (tmp_path / f"whole{ending}").read_text()
    path = tmp_path / f"cut{ending}"
    end = len(text.rstrip())
    for cut in sorted({*range(0, end - 1, 23), *range(end - 60, end)}):
        path.write_text(text[:cut])
        said = ""
        try:
            io.read(path)
        except ValueError as error:
            said = str(error)
        if said:
            assert said.startswith(f"{path}: ")
        else:  # the last digits of the last number of a .uai file, within the rounding of print
            assert ending == ".uai" and end - cut < 14


# Round trips ------------------------------------------------------------------------------------


@printed_digits
@pytest.mark.parametrize("ending", [".bif", ".xmlbif", ".uai", ".net"])
@pytest.mark.parametrize("name", ["asia", "sachs", "child", "alarm", "munin1"])
def test_round_trip(name, ending, tmp_path):
    tables, path = io.read(name), tmp_path / f"{name}{ending}"
    io.save(tables, path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what was renormalised once is exact
        again = io.read(path)
    if ending != ".uai":
        return assert_same(tables, again)
    assert again.states == {i: tuple(range(len(s))) for i, s in enumerate(tables.states.values())}
    index = {variable: i for i, variable in enumerate(tables.states)}
    wanted = [tuple(index[v] for v in factor.variables) for factor in tables.factors]
    assert [factor.variables for factor in again.factors] == wanted
    assert_same_numbers(tables, again)


names = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"], exclude_characters='"'),
    min_size=1, max_size=6,
)  # fmt: skip
spaced = st.one_of(
    names,
    st.builds(" ".join, st.lists(names, min_size=2, max_size=3)),
    st.sampled_from(
        ["a, b", "{", "}", "|", "table", "//", "/* x", "<&>", "%", "(x)", "12+", "a;b"]
    ),
)


@st.composite
def tables_with_odd_names(draw, variables=spaced):
    nodes = draw(st.lists(variables, min_size=1, max_size=4, unique=True))
    states = {n: tuple(draw(st.lists(spaced, min_size=1, max_size=3, unique=True))) for n in nodes}
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    factors = []
    for i, node in enumerate(nodes):
        parents = [other for other in nodes[:i] if draw(st.booleans())]
        shape = tuple(len(states[n]) for n in (node, *parents))
        values = rng.dirichlet([0.3] * shape[0], shape[1:])
        factors.append(Factor((node, *parents), np.moveaxis(values, -1, 0)))
    order = draw(st.permutations(range(len(nodes))))
    return Tables(
        {nodes[i]: states[nodes[i]] for i in order}, [factors[i] for i in order], True,
        draw(spaced.filter(lambda name: name != "unknown")),
    )  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tables_with_odd_names())
def test_odd_names_come_back(tmp_path_factory, tables):
    folder = tmp_path_factory.mktemp("odd")
    for ending in (".bif", ".xmlbif"):
        io.save(tables, folder / f"n{ending}")
        assert_same(io.read(folder / f"n{ending}"), tables)


identifiers = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,6}", fullmatch=True)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tables_with_odd_names(identifiers))
def test_odd_labels_come_back_from_net_files(tmp_path_factory, tables):
    path = tmp_path_factory.mktemp("odd") / "n.net"
    io.save(tables, path)
    assert_same(io.read(path), tables)


def test_names_that_a_format_cannot_hold_are_refused(tmp_path):
    def net(variable, state="s"):
        return Tables({variable: (state, "t")}, [Factor((variable,), np.array([0.5, 0.5]))], True)

    cases = [
        (net('a"b'), ".bif", "cannot hold the name"),
        (net("a", "x\ny"), ".bif", "cannot hold the name"),
        (net("a b"), ".net", "letters, digits and underscores"),
        (net("a", 'x"'), ".net", "cannot hold the name"),
        (net(" a"), ".xmlbif", "spaces at its ends"),
        (net("a", "\x01"), ".xmlbif", "characters that XML does not know"),
        (net("a", "\ud800"), ".bif", "not Unicode text"),
    ]
    for tables, ending, message in cases:
        with pytest.raises(ValueError, match=message):
            io.save(tables, tmp_path / f"x{ending}")
    two = Tables(
        {1: ("a",), "1": ("a",)}, [Factor((1,), np.ones(1)), Factor(("1",), np.ones(1))], True
    )
    with pytest.raises(ValueError, match="two variables are both written '1'"):
        io.save(two, tmp_path / "x.bif")
    assert os.listdir(tmp_path) == []


@printed_digits
@pytest.mark.parametrize("name", ["asia", "insurance"])
@pytest.mark.parametrize(
    ("ending", "reader"), [(".bif", BIFReader), (".net", NETReader), (".xmlbif", XMLBIFReader)]
)
def test_pgmpy_reads_what_is_written(name, ending, reader, tmp_path):
    tables, path = io.read(name), tmp_path / f"{name}{ending}"
    io.save(tables, path)
    theirs = reader(str(path)).get_model()
    assert set(theirs.edges) == set(tables.graph().edges)
    for cpd in theirs.cpds:
        order = (cpd.variable, *tables.parents(cpd.variable))
        assert list(cpd.state_names[cpd.variable]) == list(tables.states[cpd.variable])
        values = np.moveaxis(cpd.values, [cpd.variables.index(v) for v in order], range(len(order)))
        np.testing.assert_allclose(values, tables.conditional(cpd.variable), atol=1e-15)


# Saving -----------------------------------------------------------------------------------------


def test_saving_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "net.bif"
    io.save(io.read("asia"), path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="pass overwrite=True to replace it"):
        io.save(io.read("cancer"), path)
    assert path.read_bytes() == before

    def broken(*_):
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        with pytest.raises(OSError, match="the disk is full"):
            io.save(io.read("cancer"), path, overwrite=True)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["net.bif"]
    io.save(io.read("cancer"), path, overwrite=True)
    assert io.read(path).states == io.read("cancer").states
    with pytest.raises(ValueError, match=r"the ending must be .bif, .xmlbif, .uai, .net or .fg"):
        io.save(io.read("asia"), tmp_path / "net.txt")
    with pytest.raises(FileNotFoundError, match="no folder"):
        io.save(io.read("asia"), tmp_path / "none" / "net.bif")


# pgmpy models -----------------------------------------------------------------------------------


@printed_digits
@pytest.mark.parametrize("name", ["asia", "alarm", "munin"])
def test_the_pgmpy_model_is_whole(name):
    model, tables = graphs.load(name), io.read(name)
    assert type(model) is DiscreteBayesianNetwork
    assert model.name == name
    assert model.check_model()
    assert list(model.nodes) == list(tables.states)
    assert set(model.edges) == set(tables.graph().edges)
    assert {weight for _, _, weight in model.edges(data="weight")} == {None}
    assert len(model.get_cpds()) == len(model)
    assert_same(tables_of(model), tables)
    assert_same_numbers(tables_of(model.copy()), tables)


def test_pgmpy_goes_on_with_the_model():
    model, theirs = graphs.load("asia"), BIFReader(string=ASIA).get_model()
    assert model.get_cpds("either") == theirs.get_cpds("either")
    assert set(map(frozenset, model.to_markov_model().edges)) == set(
        map(frozenset, theirs.to_markov_model().edges)
    )
    with pytest.raises(ValueError, match="Loops are not allowed"):
        model.add_edge("dysp", "asia")
    model.remove_node("xray")
    assert model.check_model()


MARKOV = "MARKOV\n3\n2 3 2\n2\n2 0 1\n1 1\n\n6\n1 2 3\n4 5 6\n\n3\n .5 0 7e1\n"


def test_uai_markov_networks(tmp_path):
    tables = io.read(written(tmp_path, MARKOV, "mrf.uai"))
    assert not tables.directed and tables.name == "mrf"
    assert tables.states == {0: (0, 1), 1: (0, 1, 2), 2: (0, 1)}
    assert [f.variables for f in tables.factors] == [(0, 1), (1,)]
    np.testing.assert_array_equal(tables.factors[0].values, [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(tables.factors[1].values, [0.5, 0, 70])
    model = graphs.load(tmp_path / "mrf.uai")
    assert type(model) is DiscreteMarkovNetwork and model.check_model()
    assert model.factors[0] == DiscreteFactor([0, 1], [2, 3], [1, 2, 3, 4, 5, 6])
    np.testing.assert_array_equal(model.factors[2].values, [1, 1])  # no table has variable 2
    io.save(model, tmp_path / "again.uai")
    assert_same_numbers(io.read(tmp_path / "again.uai"), tables_of(model))
    with pytest.raises(TypeError, match=r".bif files hold Bayesian networks only"):
        io.save(model, tmp_path / "again.bif")


def test_uai_bayes_has_the_child_last(tmp_path):
    text = "BAYES 2 2 3 2 1 0 2 0 1 2 .25 .75 6 .1 .2 .7 .3 .3 .4"
    tables = io.read(written(tmp_path, text, "b.uai"))
    assert tables.parents(1) == (0,)
    np.testing.assert_array_equal(tables.conditional(1), [[0.1, 0.3], [0.2, 0.3], [0.7, 0.4]])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("MARKOV", "MARKOF", "line 1: a UAI file begins with BAYES or MARKOV; got 'MARKOF'"),
        ("2 0 1", "2 0 3", r"line 5: table 0 is over \[0, 3\]; the last variable is 2"),
        ("2 0 1", "2 1 1", "line 5: table 0 names a variable twice"),
        ("2 3 2", "2 x 2", "line 3: the number of states of variable 1 must be a whole number"),
        ("2 3 2", "2 0 2", "line 3: variable 1 has no states"),
        ("2 3 2", "2 3 999999999", "are more than the file has tables for"),
        ("\n6\n", "\n5\n", "line 8: table 0 over .* has 6 entries, not 5"),
        ("4 5 6", "4 5 -6", "negative or infinite"),
        ("4 5 6", "4 5 six", "line 10: 'six' is not a number"),
        ("7e1", "", "the file ends where an entry of table 1"),
        ("7e1", "7e1 8", "'8' follows where the file should end"),
    ],
)
def test_broken_uai_files(tmp_path, old, new, message):
    with pytest.raises(ValueError, match=message):
        io.read(written(tmp_path, MARKOV.replace(old, new, 1), "mrf.uai"))


def test_uai_bayes_wants_one_table_a_variable(tmp_path):
    with pytest.raises(ValueError, match="one that has a table"):
        io.read(written(tmp_path, "BAYES 2 2 2 2 1 0 1 0 2 1 0 2 1 0", "b.uai"))
    with pytest.raises(ValueError, match=r"b.uai: no table for 1"):
        io.read(written(tmp_path, "BAYES 2 2 2 1 1 0 2 1 0", "b.uai"))


NET = """% by hand
net { name = "small"; node_size = (80 40); }
node A { label = "the; first"; position = (1 2); states = ("a 0" a1); }
discrete node B { states = ("b0" "b1" "b2"); HR_Desc = "x"; }
node C { states = ("c0" "c1"); }
potential (A) { data = (0.25 0.75); }
potential (B | ) { data = (.5 .25 .25); }
potential (C | A B) {
  data = (((0.1 0.9)(0.3 0.7)(0.5 0.5)) % A = a 0
          ((0.2 0.8)(0.4 0.6)(0.6 0.4)));
}
"""


def test_hugin_files(tmp_path):
    tables = io.read(written(tmp_path, NET, "x.net"))
    assert tables.name == "small" and tables.states["A"] == ("a 0", "a1")
    np.testing.assert_array_equal(tables.conditional("C"), OF_C)
    np.testing.assert_array_equal(tables.conditional("B"), [0.5, 0.25, 0.25])
    numbers = "data = (.1 .9 .3 .7 .5 .5 .2 .8 .4 .6 .6 .4);"
    flat = re.sub(r"data = \(\(\(.*?;", numbers, NET, flags=re.DOTALL)
    assert flat != NET
    np.testing.assert_array_equal(io.read(written(tmp_path, flat, "x.net")).conditional("C"), OF_C)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("discrete node B", "continuous node B", "line 4: continuous nodes"),
        ("discrete node B", "utility U { }\nnode B", "line 4: utility nodes"),
        ("discrete node B", "decision B", "line 4: decision nodes"),
        ("data = (0.25 0.75)", "model_data = (Normal(0,1))", "line 6: tables given by expressions"),
        ("net {", "class x {", "classes"),
        ("net {", "node Z {", "begins with 'net { }'"),
        ("node C", "node A", "line 5: the node A is declared twice"),
        ('"b1" "b2"', '"b1" "b1"', "line 4: B has the state 'b1' twice"),
        ("(C | A B)", "(C | A D)", "line 8: no parent 'D' of C"),
        ("(C | A B)", "(C A B)", "one child a table"),
        ("(0.3 0.7)", "(0.3 0.7 0)", "has 13 numbers; expected 12, 2 x 3 x 2"),
        ("(0.1 0.9)(0.3 0.7)", "(0.1 0.9 0.3 0.7)", "the parentheses of the data of C"),
        ("0.25 0.75", "0.25 3/4", "line 6: '3/4' is not a number"),
        ("potential (A) { data = (0.25 0.75); }", "", "no potential for A"),
        ("potential (B | )", "potential (A)", "expected 2|A has two potentials"),
        ("data = (0.25 0.75);", "", "line 6: the potential of A has no data"),
        ("(80 40);", "(80 40)", "line 2: expected ';' at the end of node_size"),
    ],
)
def test_broken_hugin_files(tmp_path, old, new, message):
    assert old in NET
    with pytest.raises(ValueError, match=message):
        io.read(written(tmp_path, NET.replace(old, new, 1), "x.net"))


XML = """<?xml version="1.0" encoding="US-ASCII"?>
<!DOCTYPE BIF [
  <!ELEMENT BIF ( NETWORK )*>
  <!ATTLIST BIF VERSION CDATA #REQUIRED>
]>
<BIF VERSION="0.3"><NETWORK><NAME>small</NAME><PROPERTY>by hand</PROPERTY>
<VARIABLE TYPE="nature"><NAME> A </NAME><OUTCOME>a&lt;0</OUTCOME><OUTCOME>a1</OUTCOME></VARIABLE>
<VARIABLE><NAME>B</NAME><OUTCOME>b0</OUTCOME><OUTCOME>b1</OUTCOME><OUTCOME>b2</OUTCOME></VARIABLE>
<VARIABLE><NAME>C</NAME><OUTCOME>c0</OUTCOME><OUTCOME>c1</OUTCOME></VARIABLE>
<DEFINITION><FOR>A</FOR><TABLE>0.25 0.75</TABLE></DEFINITION>
<DEFINITION><FOR>B</FOR><TABLE>.5 .25 .25</TABLE></DEFINITION>
<DEFINITION><FOR>C</FOR><GIVEN>A</GIVEN><GIVEN>B</GIVEN>
<TABLE>.1 .9 .3 .7 .5 .5 <!-- a1 --> .2 .8 .4 .6 .6 .4</TABLE></DEFINITION>
</NETWORK></BIF>
"""


@pytest.mark.parametrize("ending", ["xml", "xmlbif", "XML"])
def test_xmlbif_files(tmp_path, ending):
    tables = io.read(written(tmp_path, XML, f"x.{ending}"))
    assert tables.name == "small" and tables.states["A"] == ("a<0", "a1")
    np.testing.assert_array_equal(tables.conditional("C"), OF_C)


BOMB = "<!DOCTYPE BIF [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;'>]>"
FILE = "<!DOCTYPE BIF [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>"
AWAY = "<!DOCTYPE BIF SYSTEM 'http://localhost/bif.dtd'>"
PARAMETER = "<!DOCTYPE BIF [<!ENTITY % p SYSTEM 'file:///etc/passwd'> %p;]>"


@pytest.mark.parametrize("doctype", [BOMB, FILE, AWAY, PARAMETER])
def test_xml_entities_are_refused(tmp_path, doctype):
    text = re.sub(r"<!DOCTYPE.*?\]>", doctype, XML, flags=re.DOTALL).replace("small", "&a;")
    with pytest.raises(ValueError, match="entities are refused"):
        io.read(written(tmp_path, text, "x.xml"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("</NETWORK>", "", "line 14: not XML: mismatched tag"),
        ('TYPE="nature"', 'TYPE="utility"', "line 7: variables of type utility are not read"),
        ("<NAME>B<", "<NAME>A<", "line 8: the variable A is declared twice"),
        ("<OUTCOME>b1<", "<OUTCOME>b0<", "line 8: B has the state 'b0' twice"),
        ("<GIVEN>B<", "<GIVEN>D<", "line 13: the definition of C: no parent 'D' of C"),
        (".5 .25 .25", ".5 .5", "line 11: the table of B has 2 numbers; expected 3"),
        (".5 .25 .25", ".5 .25 x", "line 11: the definition of B: 'x' is not a number"),
        ("<FOR>B<", "<FOR>A<", "the table of A has 3|A has two definitions"),
        ("<TABLE>0.25 0.75</TABLE>", "", "line 10: the definition of A has 0 tables"),
        ("<DEFINITION><FOR>A</FOR><TABLE>0.25 0.75</TABLE></DEFINITION>", "", "table for A"),
        ("<PROPERTY>", "<NODE>1</NODE><PROPERTY>", "line 6: the element NODE is not known in NET"),
        ("</PROPERTY>", "</PROPERTY>loose", "the text 'loose' stands loose in NETWORK"),
    ],
)
def test_broken_xmlbif_files(tmp_path, old, new, message):
    assert old in XML
    with pytest.raises(ValueError, match=message):
        io.read(written(tmp_path, XML.replace(old, new, 1), "x.xml"))
