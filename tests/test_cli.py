"""The command: what it writes, what it refuses in one line, and how it stops."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import killable
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from ppgen import cli, load
from ppgen.loading import open_run
from ppgen.run import load_checkpoint, read_json, read_metrics

SMALL = ["--model", "VAE", "--model.latent_dim", "2", "--model.hidden", "[16]"]
DIGITS = [*SMALL, "--data", "digits", "--binarize", "static", "--sample_epochs", "0"]
QUIET = ["--progress", "false"]
TESTS = Path(__file__).parent


def run(*words):
    """The command in this process: its status, as a person's shell would show it."""
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        return cli.main([str(word) for word in words])


def weights(out):
    return load_checkpoint(out)[0]


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "vae"
    assert run("train", *DIGITS, *QUIET, "--epochs", 2, "--out", out) == 0
    return out


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "cvae"
    words = ["--conditional", "true", "--model.prior", "conditional", "--steps", 4]
    assert run("train", *DIGITS, *QUIET, *words, "--out", out) == 0
    return out


@pytest.fixture
def copy(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "copy"))


@pytest.fixture
def refused(tmp_path, capsys, monkeypatch):
    """Check that a command is refused: status 2, one line on stderr that says why, no traceback."""

    def check(*words, match, status=2):
        capsys.readouterr()
        found = run(*words)
        printed = capsys.readouterr()
        assert found == status, printed.err
        assert printed.err.count("\n") == 1 and printed.err.endswith("\n"), printed.err
        assert re.search(match, printed.err), printed.err
        assert "Traceback" not in printed.err and len(printed.err) < 400, printed.err

    return check


# What is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "match"),
    [
        # impossible numbers
        (["--batch_size", "0"], "batch_size must be 1 or more; got 0"),
        (["--lr", "-1"], "lr must be positive; got -1"),
        (["--lr", "nan"], "--lr: expected float; got 'nan'"),
        (["--lr", ".nan"], "lr must be positive; got nan"),
        (["--lr", ".inf"], "lr must be positive; got inf"),
        (["--lr", "fast"], "--lr: expected float; got 'fast'"),
        (["--epochs", "0"], "epochs must be 1 or more; got 0"),
        (["--steps", "0"], "steps must be 1 or more; got 0"),
        (["--epochs", "1.5"], "--epochs: .*1.5"),
        (["--epochs", "1", "--steps", "1"], "epochs or steps, not both"),
        (["--ema", "1"], "ema is a decay between 0 and 1"),
        (["--clip_norm", "-1"], "clip_norm must be 0 or more"),
        (["--accumulate", "500"], r"accumulate \(500\) cannot pass batch_size"),
        (["--warmup_steps", "-1"], "warmup_steps must be 0 or more"),
        (["--checkpoint_seconds", ".nan"], "checkpoint_seconds must be 0 or more"),
        (["--seed", "-1"], "seed must be 0 or more"),
        (["--devices", "0"], "devices must be 1 or more"),
        (["--model.latent_dim", "0"], "latent_dim must be 1 or more; got 0"),
        (["--model.hidden", "[0]"], "hidden must be 1 or more"),
        (["--model.latent_dim", "two"], "model.latent_dim: expected int; got 'two'"),
        (["--size", "0"], "size is 0: expected an integer of at least 1"),
        (["--objective", "ELBO", "--objective.particles", "0"], "particles must be 1 or more"),
        (["--objective", "ELBO", "--objective.kl_weight", "-1"], "must be 0 or more; got -1"),
        # unknown words, with near matches
        (["--model", "VEA"], "unknown model 'VEA'; did you mean VAE"),
        (["--model", "no.such.Model"], "there is no module 'no'"),
        (["--model", "killable.Nosy"], "killable has no 'Nosy'; did you mean Noisy"),
        (["--model", "killable.digest"], "killable.digest is not a class"),
        (["--model", "killable.NoModel"], "method `model`"),
        (["--model", "collections.OrderedDict"], "is not a program"),
        (["--data", "digit"], "unknown source 'digit'[;,] did you mean digits"),
        (["--data", "npz:"], "incomplete"),
        (["--binarize", "dynamite"], "--binarize: .*did you mean dynamic"),
        (["--objective", "EBLO"], "unknown objective 'EBLO'; did you mean ELBO"),
        (["--objective", "torch.nn.Linear"], "neither an Objective nor one of Pyro's ELBOs"),
        (["--lrr", "1"], "unknown option --lrr; did you mean --lr"),
        (["--model.latent_din", "1"], "unknown option --model.latent_din; did you mean --model.l"),
        (["--schedule", "cosin"], "--schedule: .*did you mean cosine"),
        (["--precision", "16"], "--precision: expected"),
        (["--model.network", "cnn"], "network must be one of mlp, conv; got 'cnn'"),
        (["--device", "gpu"], "device must be auto, cpu, cuda"),
        (["stray"], "stray"),
        # what does not fit together
        (["--data", "killable", "--epochs"], "epochs"),
        (["--model", "killable.NoGuide", "--data", "moons", "--binarize", "none"],
         "local latent 'z' of NoGuide has no guide"),
        (["--binarize", "none", "--model.likelihood", "bernoulli"], "binarize the data"),
        (["--data", "moons"], "moons is reals"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--overwrite", "--resume"], ""),
    ],
)  # fmt: skip
def test_bad_options_are_refused_and_nothing_is_written(words, match, tmp_path, refused):
    out = tmp_path / "out"
    base = [*DIGITS, "--epochs", "1"] if not {"--epochs", "--steps"} & set(words) else DIGITS
    for option in {"--model", "--data", "--binarize"} & set(words):
        at = base.index(option)
        base = base[:at] + base[at + 2 :]
    if "--model" in words:
        base = [
            word for word in base if not word.startswith("--model.") and word not in ("2", "[16]")
        ]
    refused("train", *base, *QUIET, "--out", out, *words, match=match)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
@pytest.mark.parametrize("command", ["train", "evaluate", "sample"])
def test_cuda_that_is_absent_is_refused(command, copy, tmp_path, refused):
    out = tmp_path / "x.npz"
    words = {
        "train": ["train", *DIGITS, "--out", out, "--device", "cuda"],
        "evaluate": ["evaluate", copy, "--device", "cuda"],
        "sample": ["sample", copy, "--out", out, "--device", "cuda"],
    }
    refused(*words[command], match="(?i)'cuda'.*no CUDA device|device 'cuda'")
    assert not out.exists()


def _npz(**arrays):
    def write(path):
        np.savez(path / "data.npz", **arrays)
        return f"npz:{path / 'data.npz'}"

    return write


def _image_folder(path):
    (path / "pictures").mkdir()
    for k in range(12):
        Image.new("L", (8, 8), 20 * k).save(path / "pictures" / f"{k}.png")
    (path / "pictures" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n, cut short")
    return f"folder:{path / 'pictures'}"


def _empty_folder(path):
    (path / "empty").mkdir()
    return f"folder:{path / 'empty'}"


X = np.random.default_rng(0).random((40, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("source", "words", "match"),
    [
        (_npz(x=np.where(X > 0.9, np.nan, X)), [], "not finite"),
        (_npz(x=np.where(X > 0.9, np.inf, X)), [], "not finite"),
        (_npz(x=X.astype(float) * 1e300), [], "beyond float32"),
        (_npz(x=X.astype(str)), [], "dtype"),
        (_npz(x=X.astype(np.int32)), [], "dtype int32"),
        (_npz(x=X.astype(complex)), [], "complex|dtype"),
        (_npz(x=X[:, 0]), [], r"shape \(40,\): expected \(n, \*shape\)"),
        (_npz(x=X[:0]), [], "is empty"),
        (_npz(x=X.astype(object)), [], "cannot be read|object|pickle"),
        (_npz(x=X, y=np.zeros(39, int)), [], r"labels of train have shape \(39,\)"),
        (_npz(x=X, y=np.zeros(40)), [], "labels of train have dtype torch.float64"),
        (_npz(x=X, y=-np.ones(40, int)), [], "below 0"),
        (_npz(x_train=X, x_test=X[:, :2]), [], "all splits need one shape"),
        (_npz(z=X), [], "no array x_train or x, only z"),
        (_npz(x=X), ["--binarize", "static"], "reals"),
        (_npz(x=X), ["--conditional", "true"], "no labels to condition on"),
        (_npz(x=X), ["--model.network", "conv"], "conv"),
        (_npz(x=np.zeros((40, 4, 4), np.uint8)), ["--model.likelihood", "bernoulli"], "256"),
        (lambda path: f"npz:{path / 'absent.npz'}", [], "absent.npz is not a file"),
        (lambda path: f"folder:{path / 'absent'}", [], "absent"),
        (_empty_folder, [], "holds no images"),
        (_image_folder, [], r"broken\.png cannot be read as an image"),
    ],
)
def test_bad_data_are_refused_and_nothing_is_written(source, words, match, tmp_path, refused):
    data = source(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    out = tmp_path / "out"
    refused("train", *SMALL, "--data", data, "--out", out, *QUIET, *words, match=match)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_text_file_named_npz_is_refused(tmp_path, refused):
    (tmp_path / "data.npz").write_text("1,2,3")
    source = f"npz:{tmp_path / 'data.npz'}"
    refused("train", *SMALL, "--data", source, "--out", tmp_path / "out", match=r"data\.npz")
    assert not (tmp_path / "out").exists()


def test_where_to_write_is_settled_before_anything_is_written(copy, tmp_path, refused):
    before = {file: file.read_bytes() for file in copy.rglob("*") if file.is_file()}
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    train = ["train", *DIGITS, *QUIET]
    refused(*train, match="--out is missing")
    refused(*train, "--out", copy, match="exists: go on with --resume")
    refused(*train, "--out", mine, "--overwrite", match="is not a run directory")
    refused(*train, "--out", mine, match="exists")
    refused("train", "--resume", match="--resume needs --out")
    refused("train", "--resume", "--out", tmp_path / "none", match="no run to resume")
    refused("train", "--resume", "--out", mine, match="no run to resume")
    for words in (["--lr", "0.1"], ["--model.latent_dim", "3"], ["--data", "mnist"]):
        refused("train", "--resume", "--out", copy, *words, match="cannot change in a resumed run")
    refused("train", "--resume", "--out", copy, "--model", "killable.Noisy", match="model|Noisy")
    refused(*train, "--out", mine / "thesis.tex" / "run", match="thesis.tex")
    refused(*train, "--out", "/proc/none/run", match="/proc")
    assert {file: file.read_bytes() for file in copy.rglob("*") if file.is_file()} == before
    assert [file.name for file in mine.iterdir()] == ["thesis.tex"]
    assert (mine / "thesis.tex").read_text() == "years of work"
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("command", ["evaluate", "sample", "report", "resume"])
def test_what_is_not_a_run_or_a_newer_one_is_refused(command, copy, tmp_path, refused):
    def words(path):
        return {
            "evaluate": ["evaluate", path],
            "sample": ["sample", path, "--out", tmp_path / "x.npz"],
            "report": ["report", path],
            "resume": ["train", "--resume", "--out", path],
        }[command]

    refused(*words(tmp_path / "none"), match="not a run directory|no run to resume")
    refused(*words(tmp_path), match="not a run directory|no run to resume")
    info = read_json(copy / "run.json")
    for change, match in (
        ({"format": 999, "ppgen": "9.1"}, r"written by a newer ppgen \(9.1, format 999"),
        ({"format": "new"}, "not that of a run"),
        ({"data": None}, "not that of a run"),
    ):
        (copy / "run.json").write_text(json.dumps(info | change))
        refused(*words(copy), match=match)
    (copy / "run.json").write_text("{")
    refused(*words(copy), match="not readable as JSON")
    (copy / "run.json").write_text(json.dumps(info))
    for text, match in (
        ("model: !!python/object/apply:os.system [touch /tmp/never]", "not readable as YAML"),
        ("- 1", "does not hold a YAML mapping"),
        ("lr: 1", "names no model|missing"),
    ):
        (copy / "config.yaml").write_text(text)
        refused(*words(copy), match=match)
    assert not (tmp_path / "x.npz").exists()


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["evaluate", "RUN", "--particles", "0"], "particles must be 1 or more; got 0"),
        (["evaluate", "RUN", "--limit", "0"], "limit must be 1 or more; got 0"),
        (["evaluate", "RUN", "--split", "train"], "--split: "),
        (["evaluate", "RUN", "--data", "moons"], "reals|shape"),
        (["evaluate", "RUN", "--data", "mnist"], r"shape \(1, 8, 8\)"),
        (["evaluate", "RUN", "--device", "gpu"], "gpu"),
        (["evaluate"], "run"),
        (["sample", "RUN", "--out", "NEW.npz", "--n", "0"], "--n must be 1 or more; got 0"),
        (["sample", "RUN", "--out", "NEW.gif"], r"must end in .png or .npz; got NEW.gif"),
        (["sample", "RUN", "--out", "NEW.npz", "--y", "3"], "takes no label"),
        (["sample", "CONDITIONAL", "--out", "NEW.npz", "--y", "10"], "--y must be from 0 to 9"),
        (["sample", "CONDITIONAL", "--out", "NEW.npz", "--y", "-1"], "--y must be from 0 to 9"),
        (["sample", "RUN", "--out", "OLD.npz"], r"OLD.npz exists: .*--overwrite"),
        (["sample", "RUN", "--out", "OLD.npz/NEW.npz"], "OLD.npz"),
        (["sample", "RUN"], "out"),
        (["data", "moon"], "unknown source 'moon'[;,] did you mean moons"),
        (["data", "digits", "--preview", "OLD.npz"], "exists"),
        (["data", "--preview", "NEW.png"], "needs a source"),
        (["models", "VEA"], "did you mean VAE"),
        (["report"], "run"),
        (["trian"], "unknown command 'trian'; did you mean train"),
        (["sampel", "--help"], "did you mean sample"),
    ],
)
def test_bad_words_after_training(
    words, match, trained, conditional, tmp_path, monkeypatch, refused
):
    monkeypatch.chdir(tmp_path)
    Path("OLD.npz").write_text("precious")
    places = {"RUN": trained, "CONDITIONAL": conditional}
    refused(*(places.get(word, word) for word in words), match=match)
    assert [file.name for file in tmp_path.iterdir()] == ["OLD.npz"]
    assert Path("OLD.npz").read_text() == "precious"


def test_a_config_imports_no_class_that_the_caller_did_not_name(copy, tmp_path, refused, capsys):
    side = tmp_path / "side_effect.py"
    side.write_text("import pathlib\npathlib.Path('imported').touch()\nclass Evil: pass\n")
    config = yaml.safe_load((copy / "config.yaml").read_text())
    train = ["train", *QUIET, "--out", tmp_path / "new", "--config", copy / "config.yaml"]
    every = [
        train, ["train", "--resume", "--out", copy], ["evaluate", copy], ["report", copy],
        ["sample", copy, "--out", tmp_path / "x.npz"],
    ]  # fmt: skip
    foreign = {"class_path": "side_effect.Evil", "init_args": {}}
    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        for key in ("model", "objective"):
            (copy / "config.yaml").write_text(yaml.safe_dump(config | {key: foreign}))
            for words in every if key == "model" else every[:2]:
                refused(*words, match=f"{key} is side_effect.Evil, which is not ppgen's own")
        for init in ({"network": foreign}, {"hidden": [{"class_path": "x"}]}, {"nothing": 1}):
            nested = {"class_path": config["model"]["class_path"], "init_args": init}
            (copy / "config.yaml").write_text(yaml.safe_dump(config | {"model": nested}))
            for words in every:
                refused(
                    *words,
                    match="names further classes|cannot be built|unknown option --model.nothing",
                )
        assert not Path("imported").exists() and "side_effect" not in sys.modules
        refused(*every[2], "--model", "side_effect.Evil", match="not a program")
        assert Path("imported").exists()  # named by the caller: imported
    finally:
        os.chdir(here)
        sys.modules.pop("side_effect", None)
    assert not (tmp_path / "new").exists() and not (tmp_path / "x.npz").exists()


# What works ------------------------------------------------------------------------------------


def test_train_writes_a_whole_run(trained):
    assert {file.name for file in trained.iterdir()} == {
        "config.yaml", "run.json", "metrics.csv", "checkpoints", "tensorboard",
    }  # fmt: skip
    info = read_json(trained / "run.json")
    assert info["format"] == 1 and info["steps"] == 24
    assert info["data"]["shape"] == [1, 8, 8] and info["data"]["levels"] == 2
    rows = read_metrics(trained)
    assert [row["step"] for row in rows if row["split"] == "validation"] == [12, 24]
    for row in rows:
        if row["split"] != "validation":  # while training the KL may have a weight
            continue
        assert row["loss"] == pytest.approx(row["reconstruction"] + row["kl"], rel=1e-5)
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert load(trained).arguments["hidden"] == [16]


@pytest.mark.parametrize(
    "words",
    [
        [*DIGITS, "--epochs", "2"],
        [*SMALL, "--model.likelihood", "gaussian", "--model.scale", "0.3", "--model.normalise",
         "false", "--data", "moons", "--steps", "5", "--objective", "ELBO", "--objective.kl_weight",
         "0.5", "--objective.kl_warmup", "3", "--ema", "0.9", "--clip_norm", "1", "--lr", "1e-3",
         "--schedule", "constant", "--weight_decay", "0.1", "--accumulate", "2", "--seed", "7",
         "--compile", "none", "--batch_size", "64", "--precision", "bf16-mixed", "--split_seed",
         "3", "--warmup_steps", "2"],
        [*DIGITS, "--size", "6", "--binarize", "dynamic", "--steps", "3", "--conditional=true",
         "--objective=ImportanceWeightedELBO", "--objective.particles=3"],
        ["--model", "killable.Noisy", "--model.width", "5", "--data", "digits", "--binarize",
         "threshold", "--steps", "5", "--objective", "pyro.infer.RenyiELBO", "--objective.alpha",
         "0.5", "--objective.num_particles", "2"],
    ],
    ids=["defaults", "options", "conditional", "stranger"],
)  # fmt: skip
def test_a_saved_configuration_is_complete(words, tmp_path, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    assert run("train", *words, *QUIET, "--sample_epochs", 0, "--out", first) == 0
    stranger = ["--model", "killable.Noisy"] if "killable.Noisy" in words else []
    config = first / "config.yaml"
    capsys.readouterr()
    status = run("train", "--config", config, "--out", second, *stranger)
    assert status == 0, capsys.readouterr().err
    left, right = (load_checkpoint(out) for out in (first, second))
    assert same(left[0], right[0]) and left[1]["step"] == right[1]["step"]
    assert (second / "config.yaml").read_text() == config.read_text()
    given = dict(itertools.pairwise(words))
    saved = yaml.safe_load(config.read_text())
    for name in ("lr", "ema", "seed", "accumulate", "split_seed", "kl_weight", "alpha", "scale"):
        for prefix, place in (
            ("--", saved), ("--objective.", (saved["objective"] or {}).get("init_args", {})),
            ("--model.", saved["model"]["init_args"]),
        ):  # fmt: skip
            if prefix + name in given:
                assert place[name] == float(given[prefix + name])
    # An option given beside the configuration wins.
    third = tmp_path / "third"
    assert run("train", "--config", config, "--steps", 2, "--out", third, *stranger) == 0
    assert load_checkpoint(third)[1]["step"] == 2


def test_resume_with_more_epochs_goes_on(copy, tmp_path):
    before = read_metrics(copy)
    assert run("train", "--resume", "--out", copy, "--epochs", 3) == 0
    after = read_metrics(copy)
    assert after[: len(before)] == before
    assert [row["step"] for row in after if row["split"] == "validation"] == [12, 24, 36]
    assert load_checkpoint(copy)[1]["step"] == 36
    assert yaml.safe_load((copy / "config.yaml").read_text())["epochs"] == 3


def test_overwrite_replaces_a_run_and_nothing_else(copy):
    (copy / "notes.txt").write_text("mine")
    assert run("evaluate", copy, "--particles", 1, "--limit", 5) == 0
    assert run("train", *DIGITS, *QUIET, "--steps", 2, "--out", copy, "--overwrite") == 0
    assert load_checkpoint(copy)[1]["step"] == 2
    assert not (copy / "evaluation.json").exists()
    assert (copy / "notes.txt").read_text() == "mine"


def test_evaluate_writes_what_kind_of_number_it_is(copy, capsys):
    capsys.readouterr()
    assert run("evaluate", copy, "--particles", 20, "--limit", 50) == 0
    printed = capsys.readouterr().out
    found = read_json(copy / "evaluation.json")
    likelihood, elbo = found["log_likelihood_nats"], found["elbo_nats"]
    assert likelihood["kind"] == "bound" and likelihood["measure"] == "probability"
    assert likelihood["particles"] == 20 and likelihood["examples"] == 50
    assert "importance" in likelihood["method"] and likelihood["stderr"] > 0
    assert elbo["value"] < likelihood["value"] < 0
    assert found["bits_per_dim"] == pytest.approx(-likelihood["value"] / (64 * np.log(2)))
    assert f"{likelihood['value']:.2f}" in printed and "bound" in printed
    assert f"{found['bits_per_dim']:.4f} bits/dim" in printed
    assert open_run(copy).evaluation == found
    # The same command, the same number.
    assert run("evaluate", copy, "--particles", 20, "--limit", 50) == 0
    assert read_json(copy / "evaluation.json")["log_likelihood_nats"] == likelihood
    # Another split and another source of the same shape.
    assert run("evaluate", copy, "--particles", 2, "--split", "validation", "--limit", 5) == 0
    assert read_json(copy / "evaluation.json")["split"] == "validation"


def test_sample_to_arrays_and_pictures(trained, conditional, tmp_path):
    arrays, picture = tmp_path / "x.npz", tmp_path / "x.png"
    assert run("sample", trained, "--n", 7, "--out", arrays) == 0
    with np.load(arrays) as file:
        assert file.files == ["x"] and file["x"].shape == (7, 1, 8, 8)
        mean = file["x"]
    assert mean.min() > 0 and mean.max() < 1 and len(np.unique(mean)) > 50
    assert run("sample", trained, "--n", 7, "--out", arrays, "--draw", "--overwrite") == 0
    with np.load(arrays) as file:
        assert set(np.unique(file["x"])) == {0.0, 1.0}
        first = file["x"]
    assert run("sample", trained, "--n", 7, "--out", arrays, "--draw", "--overwrite") == 0
    with np.load(arrays) as file:
        assert (file["x"] == first).all()
    words = ["--out", arrays, "--draw", "--overwrite", "--seed", 1]
    assert run("sample", trained, "--n", 7, *words) == 0
    with np.load(arrays) as file:
        assert (file["x"] != first).any()
    assert run("sample", trained, "--out", picture) == 0
    with Image.open(picture) as image:
        image.load()
        assert image.format == "PNG" and min(image.size) >= 80
    assert run("sample", conditional, "--n", 5, "--y", 3, "--out", tmp_path / "y.npz") == 0
    with np.load(tmp_path / "y.npz") as file:
        assert file["y"].tolist() == [3] * 5 and file["x"].shape == (5, 1, 8, 8)
    assert run("sample", conditional, "--n", 20, "--out", tmp_path / "all.npz") == 0
    with np.load(tmp_path / "all.npz") as file:
        assert file["y"].tolist() == [k // 2 for k in range(20)]


def test_report_models_and_data(copy, tmp_path, capsys):
    assert run("evaluate", copy, "--particles", 2, "--limit", 10) == 0
    value = read_json(copy / "evaluation.json")["log_likelihood_nats"]["value"]
    assert run("report", copy) == 0
    page = (copy / "report.html").read_text()
    assert f"{value:.2f}"[:5] in page.replace("−", "-") and "<script" not in page
    capsys.readouterr()
    assert run("models") == 0
    listed = capsys.readouterr().out
    assert "VAE" in listed and "bound" in listed
    assert run("models", "VAE") == 0
    assert "latent_dim" in capsys.readouterr().out
    assert run("data") == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in ("mnist", "digits", "folder:DIR", "npz:FILE", "moons"))
    preview = tmp_path / "preview.png"
    assert run("data", "digits", "--preview", preview) == 0
    assert "1,437 / 180 / 180" in capsys.readouterr().out
    with Image.open(preview) as image:
        image.load()
        assert image.format == "PNG"


def test_a_stranger_needs_to_be_named(tmp_path, refused, capsys):
    out = tmp_path / "noisy"
    words = ["--model", "killable.Noisy", "--data", "digits", "--binarize", "static"]
    assert run("train", *words, *QUIET, "--steps", 2, "--out", out) == 0
    assert "--model killable.Noisy" in capsys.readouterr().out  # what to type next
    again = ["evaluate", out, "--particles", 2, "--limit", 8]
    refused(*again, match="not ppgen's own: name the class yourself.*--model killable.Noisy")
    refused(*again, "--model", "killable.Quiet", match="the run's model is killable.Noisy")
    assert run(*again, "--model", "killable.Noisy") == 0
    assert run("report", out, "--model", "killable.Noisy") == 0
    words = ["train", "--resume", "--out", out, "--steps", 4]
    refused(*words, match="not ppgen's own")
    assert run(*words, "--model", "killable.Noisy") == 0
    assert same(load(out, killable.Noisy).state_dict(), weights(out))


def test_a_warning_is_one_line(copy, capsys):
    newest = sorted((copy / "checkpoints").glob("*.pt"))[-1]
    other = newest.with_name(newest.name.replace("24", "23"))
    for file in newest.parent.glob("*24.*"):
        shutil.copy(file, file.with_name(file.name.replace("24", "23")))
    assert other.exists()
    newest.write_bytes(b"")
    capsys.readouterr()
    assert run("sample", copy, "--n", 1, "--out", copy / "x.npz") == 0
    error = capsys.readouterr().err
    assert error.startswith("warning: checkpoint step_000000024") and error.count("\n") == 1


@pytest.mark.parametrize("bad", [["--lr", "1e30"]])
def test_a_loss_that_is_not_finite_stops_the_run_in_one_line(bad, tmp_path, capsys):
    out = tmp_path / "run"
    capsys.readouterr()
    status = run("train", *DIGITS, *QUIET, "--warmup_steps", 0, "--epochs", 3, "--out", out, *bad)
    error = capsys.readouterr().err
    assert status == 1 and error.count("\n") == 1, error
    assert re.search(r"the loss is not finite at step \d+, in the term '.*' at the site", error)


# In a process of its own -----------------------------------------------------------------------


def shell(*words, **keywords):
    return subprocess.Popen(
        [sys.executable, "-m", "ppgen.cli", *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, **keywords,
    )  # fmt: skip


LONG = [*DIGITS, *QUIET, "--epochs", 30, "--ema", "0.9"]


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory):
    out = tmp_path_factory.mktemp("long") / "run"
    assert run("train", *LONG, "--out", out) == 0
    return out


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_run_goes_on_to_the_same_bits(number, status, left_alone, tmp_path):
    out = tmp_path / "run"
    process = shell("train", *LONG, "--out", out)
    while process.poll() is None and len(read_metrics(out)) < 3:
        time.sleep(0.01)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == status, error
    assert error.count("\n") == 1 and "--resume goes on" in error, error
    step = load_checkpoint(out)[1]["step"]
    assert 12 <= step < 360 and read_json(out / "run.json")["steps"] == step
    assert run("train", "--resume", "--out", out) == 0
    assert same(weights(out), weights(left_alone))
    assert same(load_checkpoint(out)[1]["raw"], load_checkpoint(left_alone)[1]["raw"])
    places = [[(row["step"], row["split"]) for row in read_metrics(o)] for o in (out, left_alone)]
    assert places[0] == places[1]


def test_help_is_quick_and_names_every_option(tmp_path):
    code = """
        import sys, time
        start = time.perf_counter()
        from ppgen import cli
        assert cli.main(["--help"]) == 0
        assert not {"torch", "numpy", "pyro", "jsonargparse", "lightning"} & set(sys.modules)
        print("took", time.perf_counter() - start)
    """

    def best(words):
        times = []
        for _ in range(3):
            start = time.perf_counter()
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            times.append(time.perf_counter() - start)
            if times[-1] < 1:
                break
        return min(times), done.stdout

    seconds, text = best([sys.executable, "-c", textwrap.dedent(code)])
    assert seconds < 2  # 1 s on a quiet machine
    for command in cli.COMMANDS:
        assert re.search(rf"^  {command} +\w", text, re.MULTILINE)
    seconds, text = best([sys.executable, "-m", "ppgen.cli", "train", "--help"])
    assert seconds < 9  # 3 s on a quiet machine
    import inspect

    from ppgen.training import fit

    names = set(inspect.signature(fit).parameters) - {"program", "dataset", "on_validation"}
    for name in names | {"data", "binarize", "size", "conditional", "config", "model.latent_dim"}:
        assert re.search(rf"--{re.escape(name)}\b", text), name


@pytest.mark.parametrize("command", [c for c in cli.COMMANDS if c != "train"])
def test_every_command_has_its_help(command, capsys):
    assert run(command, "--help") == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: ppgen {command}") and len(text) > 200


def test_version_and_a_closed_pipe(trained):
    done = subprocess.run(
        f"{sys.executable} -m ppgen.cli --version; {sys.executable} -m ppgen.cli data | true; "
        "echo ${PIPESTATUS[0]}",
        shell=True, executable="/bin/bash", capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[0].startswith("ppgen 0.")
    assert done.stdout.splitlines()[-1] == "0" and "Traceback" not in done.stderr


def test_an_option_is_never_shortened(tmp_path, capsys):
    """A shortened --objective.kl_we would be read, and then lost."""
    out = tmp_path / "run"
    for word in ("--objective.kl_we", "--epoch"):
        assert run("train", "--model", "VAE", word, "4", "--out", out) == 2
        assert "unknown option" in capsys.readouterr().err
    assert not out.exists()


def test_a_configuration_does_not_say_where_to_write(trained, tmp_path, capsys):
    config = tmp_path / "planted.yaml"
    planted = tmp_path / "planted"
    config.write_text((trained / "config.yaml").read_text() + f"out: {planted}\n")
    assert run("train", "--config", config) == 2
    assert "--out is missing" in capsys.readouterr().err
    assert not planted.exists()


def test_other_data_leave_the_evaluation_of_the_run_alone(trained, tmp_path, capsys):
    run("evaluate", trained, "--particles", 2)
    before = (trained / "evaluation.json").read_bytes()
    data = tmp_path / "other.npz"
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (40, 1, 8, 8)).astype(bool)
    np.savez(data, x=x)
    assert run("evaluate", trained, "--particles", 2, "--data", f"npz:{data}") == 0
    assert (trained / "evaluation.json").read_bytes() == before
