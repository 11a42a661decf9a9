"""`ppgen graph` chain, learn, from-program and draw: against closed forms and the truth."""

import re
import shlex
import textwrap
from fractions import Fraction

import numpy as np
import pytest
from graph_command import run
from PIL import Image

from graphs.io import read
from graphs.learning.learn import learn_parameters
from graphs.tables import tables_of
from ppgen import graph_commands
from ppgen.graph_chains import read_chain

MEALS = """\
,burger,pizza,hot dog
burger,0.2,0.6,0.2
pizza,0.3,0,0.7
hot dog,1/2,0,1/2
"""
PI = {"burger": "25/71", "pizza": "15/71", "hot dog": "31/71"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "meals.csv").write_text(MEALS)
    return tmp_path


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """2,000 rows of asia, as the command draws them."""
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    assert run("sample", "asia", "--n", 2000, "--out", path) == 0
    return path


def picture(name):
    """The pixels of a picture, (height, width, 3)."""
    with Image.open(name) as found:
        return np.asarray(found.convert("RGB")).astype(int)


def program(folder, name, text):
    """A module of a name of its own, for modules once imported stay."""
    (folder / f"{name}.py").write_text(textwrap.dedent(text))


# Help -------------------------------------------------------------------------------------------


def test_help_lists_the_commands_that_take_no_network(said):
    text = said("--help")
    for command in graph_commands.OTHERS:
        assert re.search(rf"^  {command} +\w", text, re.MULTILINE)
        assert f"  ppgen graph {command} " in text


@pytest.mark.parametrize("command", graph_commands.OTHERS)
def test_the_examples_of_each_help_run(command, said, rows, folder, capsys):
    text = said(command, "--help")
    assert text.startswith(f"usage: ppgen graph {command} ") and len(text) > 500
    examples = re.findall(r"^  ppgen graph (.+)$", text, re.MULTILINE)
    assert len(examples) >= 2
    (folder / "rows.csv").write_bytes(rows.read_bytes())
    light = np.indices((9, 12)).sum(0) // 6 % 2 * 255
    for name in ("noisy.png", "truth.png", "photo.jpg", "grainy.jpg"):
        Image.fromarray(light.astype(np.uint8)).save(name)
    for example in examples:
        (folder / "clean.png").unlink(missing_ok=True)  # more than one example writes it
        assert run(*shlex.split(example)) == 0, capsys.readouterr().err


# Chains -----------------------------------------------------------------------------------------


def test_the_three_meals(said, answered):
    text = said("chain", "meals.csv", "--start", "pizza", "--steps", 3, "--targets", "pizza")
    for state, share in PI.items():
        assert re.search(rf"^  {state} +{share} ", text, re.MULTILINE)
    assert "recurrent, aperiodic  {burger, pizza, hot dog}" in text and "mixing time 2 " in text
    found = answered("chain", "meals.csv", "--start", "pizza", "--steps", 3, "--targets", "pizza")
    (pi,) = found["stationary"]
    assert {state: cell["exact"] for state, cell in pi.items()} == PI
    assert pi["hot dog"]["value"] == 31 / 71
    assert found["mixing_time"] == 2 and found["irreducible"] and found["aperiodic"]
    matrix = np.array([[0.2, 0.6, 0.2], [0.3, 0, 0.7], [0.5, 0, 0.5]])
    after = [cell["value"] for cell in found["after"]["states"].values()]
    assert after == pytest.approx(np.linalg.matrix_power(matrix, 3)[1], abs=1e-15)
    times = {s: cell["exact"] for s, cell in found["targets"]["expected_steps"].items()}
    assert times == {"burger": "7/3", "pizza": "0", "hot dog": "13/3"}
    assert {cell["exact"] for cell in found["targets"]["probability"].values()} == {"1"}


def test_chains_without_a_mixing_time_say_why(said, answered, folder):
    (folder / "ruin.csv").write_text("1,0,0\n1/2,0,1/2\n0,0,1\n")
    found = answered("chain", "ruin.csv", "--targets", "2")
    assert found["mixing_time"] is None and "2 recurrent classes" in found["why_none"]
    assert found["absorbing"] == ["0", "2"] and len(found["stationary"]) == 2
    assert [part["period"] for part in found["classes"]] == [1, None, 1]
    steps, chance = found["targets"]["expected_steps"], found["targets"]["probability"]
    assert [steps[s]["value"] for s in "012"] == [None, None, 0.0]
    assert [chance[s]["exact"] for s in "012"] == ["0", "1/2", "1"]
    text = said("chain", "ruin.csv", "--targets", "2")
    assert "no mixing time: 2 recurrent classes" in text and "probability that 2 is reached" in text
    (folder / "turn.csv").write_text("a,b\n0,1\n1,0\n")
    assert "period 2" in answered("chain", "turn.csv")["why_none"]


@pytest.mark.parametrize(
    "text",
    [
        MEALS,
        MEALS.replace(",burger", "from,burger", 1),
        MEALS.removeprefix(","),  # a header that leaves out the corner, as R writes it
        "burger,pizza,hot dog\n.2,.6,.2\n3e-1,0,0.7\n0.50,0,1/2\n\n",
        "burger,1/5,3/5,1/5\npizza, 3/10, 0, 7/10\nhot dog,1/2,0,1/2\n",
        ",hot dog,burger,pizza\nburger,0.2,0.2,0.6\npizza,0.7,0.3,0\nhot dog,1/2,1/2,0\n",
    ],
    ids=["both", "a corner", "no corner", "header", "column", "columns in another order"],
)
def test_names_in_a_header_a_column_or_both(text, folder):
    (folder / "m.csv").write_text(text)
    found = read_chain(folder / "m.csv")
    assert found.states == ("burger", "pizza", "hot dog")
    assert {s: str(p) for s, p in found.stationary[0].exact.items()} == PI


def test_numbers_as_names_and_digits_of_floats(folder):
    path = folder / "m.csv"
    path.write_text(",0,1\n0,0.25,0.75\n1,1,0\n")
    assert read_chain(path).states == ("0", "1")
    path.write_text("0.25,0.75\n1,0\n")
    assert read_chain(path).states == (0, 1)
    path.write_text(f"{1 / 3},{2 / 3}\n1,0\n")
    assert read_chain(path).exact[0] == (Fraction(1, 3), Fraction(2, 3))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "empty"),
        ("0.5,0.5\n", "1 rows of 2 cells: a transition matrix is square"),
        ("0.4,0.6\n1,0\n0,1\n", "3 rows of 2 cells"),
        ("1,0,0\n", "1 rows of 3 cells"),
        ("0.5,0.5\n0.5,x\n", "p\\(1 \\| 1\\) is 'x'; expected such as"),
        ("a,b\n1/0,1\n0,1\n", "1/0, over zero"),
        ("a,b\n0.5,\n0,1\n", "p\\(b \\| a\\) is an empty cell"),
        ("a,b\n0.5,0.25\n0,1\n", "row of a sums to 0.75"),
        ("a,b\n-0.5,1.5\n0,1\n", "negative"),
        ("a,a\n0.5,0.5\n0,1\n", "distinct"),
        (",a,b\na,0.5,0.5\nc,0,1\n", "same states"),
        ("1e99999999,0\n0,1\n", "is '1e99999999'"),
        ("0.5,0.5\n0.5,0.5\n0.5\n", "row 3: 1 cells"),
    ],
)
def test_broken_matrices_are_refused(text, match, refused, folder):
    (folder / "m.csv").write_text(text)
    refused("chain", "m.csv", match=match)


def test_wrong_words_for_a_chain_are_refused(refused, folder):
    refused("chain", "meal.csv", match="did you mean meals.csv")
    refused("chain", "meals.csv", "--targets", "piza", match="did you mean pizza")
    refused("chain", "meals.csv", "--start", "burgr", "--steps", 1, match="did you mean burger")
    refused("chain", "meals.csv", "--steps", 1, match="go together")
    refused("chain", "meals.csv", "--start", "pizza", "--steps", -1, match="0 or more")
    refused("chain", "meals.csv", "--target", "pizza", match="did you mean --targets")
    refused("chain", "meals.csv", "--draw", "m.txt", match="ends in one of .png")
    (folder / "m.png").write_text("mine")
    refused("chain", "meals.csv", "--draw", "m.png", match="m.png exists")


# Learning ---------------------------------------------------------------------------------------


def test_asia_is_learned_and_compared(answered, rows):
    words = ("learn", rows, "--method", "bdeu", "--compare", "asia")
    found = answered(*words, "--out", "net.bif", "--draw", "net.png")
    compared = found["compared"]
    # Of 2,000 rows 1% have been in Asia: the arc from there is too weak to be found.
    assert compared["shd"] <= 2 and compared["precision"] >= 0.85 and compared["recall"] >= 0.75
    right = [arc for arc in found["arcs"] if arc in [list(a) for a in read("asia").graph().edges]]
    assert sorted(right) == sorted(compared["correct"])
    assert compared["precision"] == len(right) / len(found["arcs"])
    assert compared["recall"] == len(right) / 8
    assert found["rows"] == 2000 and found["missing"] == 0 and found["score_name"] == "bic-d"
    written = read("net.bif")
    assert [list(arc) for arc in written.graph().edges] == found["arcs"]
    fitted = tables_of(learn_parameters(written.graph(), rows, method="bdeu").model)
    for variable in written.states:
        family = written.conditional(variable), fitted.conditional(variable)
        np.testing.assert_allclose(*family, rtol=0, atol=1e-12)
    assert picture("net.png").std() > 5


def test_the_same_words_write_the_same_network(said, rows, folder):
    for name in ("a.bif", "b.bif"):
        text = said("learn", rows, "--out", name, "--method", "bdeu", "--compare", "asia")
        assert "precision" in text and f"written: {name}" in text
    a, b = ((folder / name).read_text() for name in ("a.bif", "b.bif"))
    assert a == b


@pytest.mark.parametrize("structure", ["chow_liu", "pc", "ges"])
def test_other_structures(structure, answered, rows):
    out = "net.net"
    found = answered("learn", rows, "--out", out, "--structure", structure, "--method", "k2")
    assert found["structure"] == structure and found["method"] == "k2"
    assert len(found["arcs"]) == 7 if structure == "chow_liu" else len(found["arcs"]) >= 4
    assert {tuple(arc) for arc in found["arcs"]} == set(read(out).graph().edges)


@pytest.mark.parametrize("ending", ["bif", "xmlbif", "uai", "net"])
def test_a_given_structure_with_missing_cells_and_a_latent_variable(ending, answered, folder, rows):
    lines = [line.split(",") for line in rows.read_text().splitlines()[:301]]
    gone = lines[0].index("either")
    for i, line in enumerate(lines):
        del line[gone]
        if i % 5 == 2:
            line[i % len(line)] = ""
    (folder / "gaps.csv").write_text("\n".join(",".join(line) for line in lines) + "\n")
    words = ("learn", "gaps.csv", "--graph", "asia", "--method", "bdeu", "--seed", 1)
    found = answered(*words, "--out", f"net.{ending}", "--compare", "asia")
    assert found["latent"] == ["either"] and found["missing"] == 360 and found["iterations"] > 0
    assert found["compared"]["shd"] == 0 and found["compared"]["f1"] == 1
    written = read(f"net.{ending}")
    names = [str(v) for v in read("asia").states]
    if ending != "uai":
        assert [str(v) for v in written.states] == names
    for variable in written.states:
        np.testing.assert_allclose(written.conditional(variable).sum(0), 1, atol=1e-12)


def test_wrong_words_for_learning_are_refused(refused, folder, rows):
    words = ("learn", rows, "--out")
    refused(*words, "n.bif", "--structure", "hill_clim", match="did you mean hill_climb")
    refused(*words, "n.bif", "--method", "bdue", match="--method: .*did you mean bdeu")
    refused(*words, "n.bif", "--score", "bic", match="--score: .*did you mean bic-d")
    refused(*words, "n.bif", "--graph", "asai", match="did you mean asia")
    refused(*words, "n.bif", "--graph", "asia", "--structure", "pc", match="leave out --structure")
    refused(*words, "n.bif", "--starts", 3, match="--starts is of EM")
    refused(*words, "n.bif", "--graph", "cancer", match="no variable 'asia'")
    refused(*words, "n.bif", "--compare", "cancer", match="only .*rows.csv has asia")
    refused(*words, "n.txt", match="ends in one of .bif")
    refused(*words, "n.bif", "--draw", "n.jpg", match="ends in one of .png")
    refused("learn", "row.csv", "--out", "n.bif", match="no file 'row.csv'")
    refused("learn", rows, match="--out")
    (folder / "mine.bif").write_text("mine")
    refused(*words, "mine.bif", match="mine.bif exists: .*--overwrite")
    (folder / "gap.csv").write_text("a,b\n" + "0,1\n1,0\n" * 10 + "1,\n")
    refused("learn", "gap.csv", "--out", "n.bif", match="b lacks 1 of 21 cells")


def test_gaps_of_maximum_likelihood_are_a_warning_and_files_replaced_when_asked(said, folder):
    (folder / "few.csv").write_text("a,b,c\n" + "0,0,0\n1,1,0\n1,1,1\n0,0,1\n0,0,0\n" * 6)
    (folder / "g.bif").write_text("old")
    words = ("learn", "few.csv", "--out", "g.bif", "--overwrite")
    said(*words)
    assert ("a", "b") in {tuple(sorted(arc)) for arc in read("g.bif").graph().edges}


# Programs ---------------------------------------------------------------------------------------


def test_the_graph_of_the_vae(said, answered):
    found = answered("from-program", "VAE", "--draw", "vae.png", "--separate", "z", "x")
    assert found["edges"] == [["z", "x"]] and found["observed"] == ["x"]
    assert found["plates"] == ["batch"] and found["program"] == "VAE.model"
    assert [(site["name"], site["parents"]) for site in found["sites"]] == [("z", []), ("x", ["z"])]
    assert not found["separate"]["separated"]
    assert picture("vae.png").std() > 5
    text = said(
        "from-program", "ppgen.models.VAE", "--shape", 1, 4, 4, "--args", '{"latent_dim":2}'
    )
    assert "2 sample sites, 1 edge\n" in text and "edges: z -> x" in text
    assert answered("from-program", "ppgen.models.VAE")["edges"] == [["z", "x"]]
    guide = answered("from-program", "VAE", "--method", "guide")
    assert [site["name"] for site in guide["sites"]] == ["z"]
    labelled = answered("from-program", "VAE", "--args", '{"num_classes":3,"prior":"conditional"}')
    assert labelled["edges"] == [["z", "x"]]


def test_programs_of_the_callers_own(said, answered, folder):
    program(
        folder,
        "own_programs",
        """
        import pyro
        import pyro.distributions as dist
        import torch
        from pyro.nn import PyroModule

        print("imported")

        def sprinkler():
            rain = pyro.sample("rain", dist.Bernoulli(0.2))
            on = pyro.sample("sprinkler", dist.Bernoulli(0.4 - 0.39 * rain))
            grass = pyro.sample("grass", dist.Bernoulli(0.1 + 0.4 * rain + 0.4 * on))

        def regression(x, y=None):
            slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
            with pyro.plate("rows", len(x)):
                pyro.sample("y", dist.Normal(slope * x, 1.0), obs=y)

        class Chain(PyroModule):
            def __init__(self, length=3):
                super().__init__()
                self.length = length

            def forward(self):
                z = torch.tensor(0.0)
                for i in range(self.length):
                    z = pyro.sample(f"z{i}", dist.Normal(z, 1.0))
                pyro.sample("seen", dist.Normal(z, 1.0), obs=torch.tensor(1.0))

        class Mixture:
            def model(self, x):
                with pyro.plate("points", len(x)):
                    k = pyro.sample("k", dist.Categorical(torch.ones(2)))
                    pyro.sample("x", dist.Normal(k.float(), 1.0), obs=x)

        chain = Chain(2)
        """,
    )
    # What the module prints goes to stderr, and the answer alone to stdout.
    found = answered(
        *("from-program", "own_programs.sprinkler", "--separate", "rain", "sprinkler"),
        *("--given", "grass"),
        warning="^imported\n$",
    )
    edges = {("rain", "sprinkler"), ("rain", "grass"), ("sprinkler", "grass")}
    assert {tuple(edge) for edge in found["edges"]} == edges and found["observed"] == []
    assert found["separate"]["given"] == ["grass"] and not found["separate"]["separated"]
    chain = answered(
        "from-program", "own_programs.Chain", "--separate", "z0", "seen", "--given", "z1"
    )
    assert chain["edges"] == [["z0", "z1"], ["z1", "z2"], ["z2", "seen"]]
    assert chain["observed"] == ["seen"] and chain["separate"]["separated"]
    longer = answered("from-program", "own_programs.Chain", "--args", "[5]")
    assert len(longer["sites"]) == 6
    assert len(answered("from-program", "own_programs.chain")["sites"]) == 3
    found = answered("from-program", "own_programs.Mixture", "--shape")
    assert found["edges"] == [["k", "x"]] and found["plates"] == ["points"]
    found = answered("from-program", "own_programs.regression", "--args", '{"x":[1.0,2.0,3.0]}')
    assert found["edges"] == [["slope", "y"]] and found["observed"] == []
    data = '{"x":[1.0,2.0],"y":[0.5,1.5]}'
    found = answered("from-program", "own_programs.regression", "--args", data)
    assert found["observed"] == ["y"]
    text = said("from-program", "own_programs.regression", "--shape", "--draw", "r.svg")
    assert "slope -> y" in text and "drawn: r.svg" in text
    assert "<svg" in (folder / "r.svg").read_text()


def test_wrong_words_for_programs_are_refused(refused, folder):
    program(
        folder,
        "odd_programs",
        """
        import pyro
        import pyro.distributions as dist

        SIZE = 3

        def takes(x):
            pyro.sample("x", dist.Normal(0.0, 1.0).expand([len(x)]).to_event(1), obs=x)

        def fails():
            raise KeyError("oh")

        class Sized:
            def __init__(self, shape, width):
                self.shape = shape

            def model(self, x):
                takes(x)

        class Bad(Sized):
            def __init__(self):
                raise RuntimeError("no data folder")

        made = Sized((1,), 2)
        """,
    )
    program(folder, "broken_programs", "def model(:\n")
    refused("from-program", "VEA", match="unknown program 'VEA'; did you mean VAE")
    refused("from-program", "odd_programs.py", match="is a file")
    refused("from-program", "none_such.model", match="there is no module 'none_such'")
    refused("from-program", "broken_programs.model", match="cannot be imported: SyntaxError")
    program(folder, "failing_programs", "import math\nmath.none_such\n")
    refused("from-program", "failing_programs.model", match="cannot be imported: AttributeError")
    refused("from-program", "odd_programs.take", match="did you mean takes")
    refused("from-program", "odd_programs.SIZE", match="is no program: it is a int")
    refused("from-program", "odd_programs.takes", match="takes x: give the shape")
    refused("from-program", "odd_programs.fails", match="does not run: KeyError: 'oh'")
    refused("from-program", "odd_programs.Bad", match="could not be built: RuntimeError: no data")
    refused("from-program", "odd_programs.Sized", "--shape", 1, match="width: give --args")
    refused("from-program", "odd_programs.made", "--args", "[1]", match="is an instance")
    refused("from-program", "VAE", "--method", "gide", match="did you mean guide")
    refused("from-program", "VAE", "--args", "{latent", match="is not JSON")
    refused("from-program", "VAE", "--args", "3", match="object or list")
    refused("from-program", "VAE", "--args", '{"latent":3}', match="unexpected keyword")
    refused("from-program", "VAE", "--shape", 0, match="whole numbers from 1")
    refused("from-program", "VAE", "--given", "z", match="goes with --separate")
    refused("from-program", "VAE", "--separate", "zz", "x", match="no site 'zz'; did you mean z")


# Pictures ---------------------------------------------------------------------------------------


def test_a_network_is_drawn(said, answered, folder):
    assert "drawn: a.png" in said("draw", "asia", "--out", "a.png")
    found = answered(
        *("draw", "asia", "--out", "b.png", "--observed", "xray,smoke", "--highlight", "lung"),
    )
    assert found["observed"] == ["xray", "smoke"] and found["drawn"] == "b.png"
    plain, marked = picture("a.png"), picture("b.png")
    yellow = np.array([0xF0, 0xE4, 0x42])
    assert (abs(plain - yellow).sum(-1) > 30).all()
    assert (abs(marked - yellow).sum(-1) == 0).sum() > 500
    said("draw", "asia", "--out", "c.svg", "--blanket", "either", "--title", "Around either")
    assert "<svg" in (folder / "c.svg").read_text()
    said("draw", "asia", "--out", "a.png", "--overwrite", "--observed", "xray")


def test_wrong_words_for_a_picture_are_refused(refused, folder):
    refused("draw", "asia", match="--out")
    refused("draw", "asai", "--out", "a.png", match="did you mean asia")
    refused("draw", "asia", "--out", "a.gif", match="ends in one of .png")
    refused("draw", "asia", "--out", "a.png", "--observed", "xry", match="did you mean xray")
    refused("draw", "asia", "--out", "a.png", "--blanket", "lng", match="did you mean lung")
    refused("draw", "asia", "--out", "no/a.png", match="no folder")
    (folder / "mine.png").write_text("mine")
    refused("draw", "asia", "--out", "mine.png", match="mine.png exists")
