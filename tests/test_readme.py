"""What the README shows runs as it stands, with fewer steps."""

import re
import shlex
from pathlib import Path

import pytest

import ppgen
import ppgen.models
from ppgen import cli

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README.read_text(), re.DOTALL)
PYTHON = [text for kind, text in BLOCKS if kind == "python"]
COMMANDS = [
    line.split("#")[0].strip()
    for kind, text in BLOCKS
    if not kind
    for line in text.splitlines()
    if line.startswith("ppgen ")
]


def test_the_library_block(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "readme"}
    exec(PYTHON[0].replace("epochs=20", "steps=2").replace("particles=100", "particles=2"), names)
    assert "log p(x) >=" in capsys.readouterr().out
    assert names["x"].shape == (100, 1, 28, 28)
    assert isinstance(names["vae"], ppgen.VAE)


def test_the_block_on_diffusion(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "readme"}
    exec(PYTHON[2], names)
    chain, collapsed, *shapes = capsys.readouterr().out.splitlines()
    values = [float(line.split()[1]) for line in (chain, collapsed)]
    assert values[1] == pytest.approx(values[0], rel=0.1)
    assert shapes == ["torch.Size([16, 1, 8, 8])"] * 2
    assert names["run"].config["ema"] == 0.999


def test_the_block_on_flows_and_gans(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(PYTHON[3], {"__name__": "readme"})
    said = capsys.readouterr().out
    assert "log p(x) = " in said and "log p(x) >= " in said
    assert "GAN is implicit" in said and "c2st" in said and "recall" in said


def test_the_model_in_twenty_lines():
    names: dict = {"__name__": "readme"}
    exec(PYTHON[1], names)
    run = ppgen.fit(names["PPCA"]((2,)), ppgen.load_data("moons"), epochs=2, progress=False)
    first, *_, last = (row["loss"] for row in run.metrics if row["split"] == "train")
    assert last < first


@pytest.mark.filterwarnings("ignore:.*renormalised:UserWarning")
def test_the_block_on_bayesian_networks(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "readme"}
    exec(PYTHON[4], names)
    assert "HISTORY is not d-separated from HYPOVOLEMIA" in capsys.readouterr().out
    assert (tmp_path / "blanket.png").exists()
    assert names["table"].shape == (1000, 105)
    assert names["posterior"]["LVFAILURE"].sum() == pytest.approx(1.0)


def test_the_block_on_markov_random_fields(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "readme"}
    exec(PYTHON[5], names)
    said = capsys.readouterr().out
    assert "m_{x3->x2}(x2) = sum_{x3} psi(x2,x3)" in said and "graph_cut" in said
    assert names["beliefs"]["x2"] == pytest.approx([0.55, 0.45])


@pytest.mark.parametrize("line", COMMANDS)
def test_every_option_of_the_commands_is_known(line, tmp_path, monkeypatch, capsys):
    """Each line is refused, if at all, for want of the run it speaks of, not for its options."""
    monkeypatch.chdir(tmp_path)
    said = shlex.split(line)[1:]
    parts = 2 if said[0] == "graph" else 1
    command, words = said[:parts], said[parts:]
    given = words[words.index("--model") + 1] if "--model" in words else ""
    model = ["--model", given] if said[0] == "train" and given in ppgen.models.MODELS else []
    assert cli.main([*command, *model, "--help"]) == 0
    text = capsys.readouterr().out
    known = set(re.findall(r"--[\w.-]+", text))
    assert {word for word in words if word.startswith("--")} <= known
