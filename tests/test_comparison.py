"""`ppgen compare`: what is ranked with what, by which numbers, and how it looks."""

import csv
import io
import json
import math
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console
from torch import nn

import ppgen
from ppgen import cli, plots
from ppgen.comparison import compare
from ppgen.comparison_panel import COLUMN, columns_of
from ppgen.comparison_picture import _strip, _wrapped
from ppgen.comparison_scores import real_text
from ppgen.comparison_text import LEGEND, duration, with_error
from ppgen.seeding import seeded

DIM = 64 * math.log(2)  # nats of a bit a dimension, of 8x8 pictures


class Pixels(ppgen.Program):
    """Independent pixels: an exact likelihood."""

    density = "exact"

    def __init__(self, shape):
        super().__init__()
        self.shape = tuple(shape)
        self.logits = nn.Parameter(torch.zeros(self.shape))

    def model(self, x):
        with pyro.plate("batch", len(x)):
            law = dist.Bernoulli(logits=self.logits.expand(len(x), *self.shape))
            pyro.sample("x", law.to_event(3), obs=x)


class Implicit(Pixels):
    """What draws samples and says that it has no density."""

    density = "implicit"


MODELS = (Pixels, Implicit)
NAMED = [word for cls in MODELS for word in ("--model", f"test_comparison.{cls.__name__}")]
SMALL = {"latent_dim": 2, "hidden": (16,)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Runs of a few steps, by name, none of them evaluated."""
    place = tmp_path_factory.mktemp("runs")
    data = {
        name: ppgen.load_data("digits", binarize=name) for name in ("none", "static", "dynamic")
    }
    pictures = np.concatenate([getattr(data["none"], k).stored for k in ("train", "test")])
    np.savez(place / "grey.npz", x=(15 * pictures).astype(np.uint8))  # without labels
    data["grey"] = ppgen.load_data(f"npz:{place}/grey.npz")
    data["moons"] = ppgen.load_data("moons")
    shape = (1, 8, 8)
    torch.manual_seed(0)
    runs = {
        "vae": ("dynamic", ppgen.VAE(shape, levels=2, **SMALL)),
        "static": ("static", ppgen.VAE(shape, levels=2, **SMALL)),
        "pixels": ("static", Pixels(shape)),
        "implicit": ("static", Implicit(shape)),
        "conditional": ("static", ppgen.VAE(shape, levels=2, num_classes=10, **SMALL)),
        "grey": ("grey", ppgen.VAE(shape, levels=256, likelihood="discretized_logistic", **SMALL)),
        "density": ("grey", ppgen.VAE(shape, levels=256, likelihood="gaussian", **SMALL)),
        "diffusion": (
            "grey",
            ppgen.Diffusion(shape, levels=256, timesteps=8, schedule="cosine", network="mlp",
                            hidden=(16,)),
        ),
        "moons": ("moons", ppgen.VAE((2,), **SMALL)),
    }  # fmt: skip
    for name, (source, program) in runs.items():
        ppgen.fit(program, data[source], steps=6, out=place / name, progress=False,
                  sample_epochs=0, device="cpu")  # fmt: skip
    return place


@pytest.fixture
def runs(trained, tmp_path, monkeypatch):
    """Copies of some runs beside each other in the working directory."""
    monkeypatch.chdir(tmp_path)

    def copied(*names, source=None):
        for name in names:
            shutil.copytree(trained / (source or name), tmp_path / name)
        return list(names)

    return copied


def number(value, stderr, kind="bound", **more):
    """A likelihood as evaluation.json has it."""
    return {
        "value": value,
        "stderr": stderr,
        "kind": kind,
        "measure": "probability",
        "method": "by hand",
        "particles": 10,
        "examples": 180,
        "unit": "particles",
    } | more


def judged(name, main, others=(), split="test"):
    """Write an evaluation.json by hand."""
    content = {"split": split, "log_likelihood_nats": main, "others": list(others)}
    Path(name, "evaluation.json").write_text(json.dumps(content))


def changed(name, **entries):
    path = Path(name, "config.yaml")
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | entries))


def ranks(found):
    return {row.run: row.rank for row in found.rows if row.main}


# Real runs ------------------------------------------------------------------------------------


def test_real_runs_are_evaluated_and_ranked_within_their_data(runs):
    names = runs("vae", "grey", "static", "pixels", "diffusion", "density", "conditional", "moons")
    found = compare(names, models=MODELS, particles=5, limit=40)
    members = [{row.run for row in group.rows} for group in found.groups]
    assert members == [{"vae", "static", "pixels"}, {"grey", "diffusion"}, {"density"},
                       {"conditional"}, {"moons"}]  # fmt: skip
    for row in found.rows:
        stored = json.loads(Path(row.run, "evaluation.json").read_text())
        if row.main:
            assert row.likelihood.value == stored["log_likelihood_nats"]["value"]
            assert row.bits_per_dim == pytest.approx(stored["bits_per_dim"])
            assert row.parameters == sum(
                p.numel() for p in found.runs[row.run].program.parameters()
            )
        else:
            assert row.run == "diffusion" and row.likelihood.kind == "estimate"
            assert row.rank is None
    exact = next(row for row in found.rows if row.run == "pixels")
    x = ppgen.load_data("digits", binarize="static").test.batch(slice(0, 40))[0]
    nats = found.runs["pixels"].program.logits * x - nn.functional.softplus(
        found.runs["pixels"].program.logits
    )
    nats = nats.sum((1, 2, 3)).double()
    assert exact.likelihood.kind == "exact"
    assert exact.likelihood.value == pytest.approx(nats.mean().item(), rel=1e-6)
    assert exact.likelihood.stderr == pytest.approx(nats.std().item() / math.sqrt(40), rel=1e-4)
    assert exact.bits_per_dim == pytest.approx(-nats.mean().item() / DIM, rel=1e-6)
    text = str(found)
    assert f"= {with_error(exact.likelihood.value, exact.likelihood.stderr)} nats" in text
    assert f"= {exact.bits_per_dim:.4f} bits/dim" in text
    assert "variational bound, 5 steps" in text and "importance-weighted, 5 particles" in text
    assert "digits 8x8, 2 levels (drawn), given the label" in text
    assert text.count("trained for") == 8 and "moons 2-d, reals" in text
    # The second time nothing is computed, and the numbers are the same.
    before = {name: Path(name, "evaluation.json").stat().st_mtime_ns for name in names}
    assert compare(names, models=MODELS).to_csv() == found.to_csv()
    assert {n: Path(n, "evaluation.json").stat().st_mtime_ns for n in names} == before


def test_static_and_dynamic_pixels_are_one_in_held_out_data(trained):
    """Why their runs are ranked together."""
    static, dynamic = (ppgen.load_data("digits", binarize=b) for b in ("static", "dynamic"))
    assert torch.equal(static.test.batch(slice(None))[0], dynamic.test.batch(slice(None))[0])
    assert torch.equal(static.validation.stored, dynamic.validation.stored)


def test_runs_in_memory_compare_by_their_data():
    x = (torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(1)) < 0.3).float()
    same = ppgen.Dataset.from_tensors(x, levels=2)
    again = ppgen.Dataset.from_tensors(x.clone(), levels=2)
    other = ppgen.Dataset.from_tensors(1 - x, levels=2)
    made = [
        ppgen.fit(Pixels((1, 8, 8)), data, steps=2, progress=False, device="cpu")
        for data in (same, again, other)
    ]
    found = compare(made)
    assert ranks(found) == {
        "run 1, in memory": (1, 2),
        "run 2, in memory": (1, 2),
        "run 3, in memory": None,
    }
    assert "are different data" in found.notes[-1]


def test_tensors_behind_directories_are_not_taken_for_the_same(tmp_path):
    x = torch.zeros(60, 1, 8, 8)
    data = ppgen.Dataset.from_tensors(x, levels=2)
    for name in "ab":
        run = ppgen.fit(Pixels((1, 8, 8)), data, steps=2, out=tmp_path / name, progress=False,
                        sample_epochs=0, device="cpu")  # fmt: skip
        ppgen.evaluate(run)
    found = compare([tmp_path / "a", tmp_path / "b"], models=[Pixels])
    assert list(ranks(found).values()) == [None, None]
    (tmp_path / "a" / "evaluation.json").unlink()
    with pytest.raises(ValueError, match=r"a has no evaluation and its data are not at hand"):
        compare([tmp_path / "a"], models=[Pixels])


# Ranks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([(-20.0, 0.3), (-30.0, 0.3)], [(1, 1), (2, 2)]),
        ([(-30.0, 0.3), (-20.0, 0.3)], [(2, 2), (1, 1)]),
        # the standard error of the difference is the root of 0.3^2 + 0.4^2, 0.5
        ([(-20.0, 0.3), (-20.99, 0.4)], [(1, 2), (1, 2)]),
        ([(-20.0, 0.3), (-21.01, 0.4)], [(1, 1), (2, 2)]),
        # being tied is not transitive
        ([(-20.0, 0.3), (-20.8, 0.3), (-21.6, 0.3)], [(1, 2), (1, 3), (2, 3)]),
        ([(-20.0, 0.0), (-20.0, 0.0)], [(1, 2), (1, 2)]),
        # one example has no standard error, and tells nothing apart
        ([(-20.0, math.nan), (-30.0, 0.1)], [(1, 2), (1, 2)]),
        # what is not finite is in no ranking
        ([(-20.0, 0.1), (-math.inf, math.nan), (-30.0, 0.1)], [(1, 1), None, (2, 2)]),
        ([(-20.0, 0.1)], [None]),
    ],
)
def test_ranks_and_ties(runs, numbers, expected):
    names = [f"run{k}" for k in range(len(numbers))]
    runs(*names, source="vae")
    for name, (value, stderr) in zip(names, numbers, strict=True):
        judged(name, number(value, stderr))
    found = compare(names)
    assert [ranks(found)[name] for name in names] == expected
    assert len(found.groups) == 1
    order = [row.likelihood.value for row in found.rows if math.isfinite(row.likelihood.value)]
    assert order == sorted(order, reverse=True)
    tied = any(rank is not None and rank[0] < rank[1] for rank in expected)
    assert any("is a tie" in note and "unpaired" in note for note in found.notes) == tied
    assert found.picture(samples=1).startswith(b"\x89PNG")


def test_kinds_are_marked_wherever_they_stand(runs):
    runs("exact", "low", "guess", source="vae")
    judged("exact", number(-25.0, 0.1, "exact"))
    judged("low", number(-30.0, 0.1))
    judged("guess", number(-20.0, 0.1, "estimate"), [number(-90.0, 1.0), number(-1.0, 1.0)])
    found = compare(["low", "exact", "guess"])
    lines = [line for line in str(found).splitlines() if " nats" in line]
    marked = [re.sub(r"[│\s]+", " ", line).strip() for line in lines]
    assert [line[:34] for line in marked[:1]] == ["~1 guess ~ -20.00 +- 0.10 nats dig"]
    assert marked[1].startswith(">= -90.00 +- 1.00 nats")  # a further method: no rank, no name
    assert marked[3].startswith("2 exact = -25.00 +- 0.10 nats")
    assert marked[4].startswith("3 low >= -30.00 +- 0.10 nats")
    bits = re.findall(r"(\S+) (\S+) bits/dim", str(found).split(LEGEND)[0])
    assert [mark for mark, _ in bits] == ["~", "<=", "<=", "=", "<="]
    assert float(bits[0][1]) == pytest.approx(20 / DIM, abs=5e-5)
    assert found.notes[0] == LEGEND
    assert any("A bound (>=) that ranks lower does not prove" in note for note in found.notes)
    assert any("rank of an estimate (~) proves nothing" in note for note in found.notes)
    assert any("further methods of the run above" in note for note in found.notes)


def test_unlike_levels_are_told_apart_in_a_sentence(runs):
    names = runs("static", "grey")
    for name in names:
        changed(name, data="mnist")
        info = json.loads(Path(name, "run.json").read_text())
        info["data"]["name"] = "mnist"
        Path(name, "run.json").write_text(json.dumps(info))
        judged(name, number(-20.0, 0.1))
    found = compare(names)
    assert ranks(found) == {"static": None, "grey": None}
    assert found.notes[1:] == (
        "mnist in 2 levels and mnist in 256 levels are different data: nats and bits/dim of one "
        "say nothing about the other.",
    )


@pytest.mark.parametrize(
    ("config", "evaluation", "sentence"),
    [
        ({"data": "idx:/elsewhere/digits"}, {}, r"digits \(digits\) in 2 levels and digits \(idx:"),
        ({"binarize": "threshold"}, {}, r"2 levels \(drawn\) and digits in 2 levels \(by thresh"),
        ({"split_seed": 3}, {}, "Split seeds 0 and 3 of digits in 2 levels choose different"),
        ({}, {"measure": "density"}, "A density and a probability of levels, of digits in 2 lev"),
        ({}, {"examples": 50}, r"Averages over 180 and 50 examples .*\(--evaluate all --limit N"),
        ({}, {"split": "validation"}, "test and validation data of digits in 2 levels are diff"),
        ({}, {}, None),
    ],
)
def test_only_numbers_of_one_thing_are_ranked(runs, config, evaluation, sentence):
    runs("one", "two", source="vae")
    changed("two", **config)
    split, kept = evaluation.get("split", "test"), dict(evaluation)
    kept.pop("split", None)
    judged("one", number(-20.0, 0.1))
    judged("two", number(-30.0, 0.1, **kept), split=split)
    found = compare(["one", "two"])
    if sentence is None:
        assert ranks(found) == {"one": (1, 1), "two": (2, 2)}
        return
    assert ranks(found) == {"one": None, "two": None}
    assert len(found.groups) == 2
    assert re.search(sentence, found.notes[-1])


def test_a_third_group_is_told_apart_from_the_one_most_like_it(runs):
    runs("one", "two", "three", source="grey")
    runs("vae")
    for name in ("one", "vae"):
        judged(name, number(-20.0, 0.1))
    judged("two", number(-20.0, 0.1, measure="density"))
    judged("three", number(-20.0, 0.1, examples=7))
    found = compare(["vae", "one", "two", "three"])
    assert [note.split()[0] for note in found.notes[1:]] == ["digits", "A", "Averages"]


def test_models_given_the_label_are_apart(runs):
    names = runs("static", "conditional")
    for name in names:
        judged(name, number(-20.0, 0.1))
    found = compare(names)
    assert ranks(found) == {"static": None, "conditional": None}
    assert "log p(x | y) of models given the label and log p(x) of others" in found.notes[-1]


# Without a likelihood -------------------------------------------------------------------------


def test_a_run_without_a_likelihood_is_shown_with_the_reason(runs):
    found = compare(runs("implicit", "pixels"), models=MODELS)
    assert len(found.groups) == 1
    last = found.rows[-1]
    assert (last.run, last.likelihood, last.rank, last.bits_per_dim) == (
        "implicit",
        None,
        None,
        None,
    )
    assert "Implicit is implicit: it draws samples but has no density" in str(found)
    alone = compare(["implicit"], models=MODELS)
    assert alone.picture(samples=2).startswith(b"\x89PNG")


def test_never_evaluating_says_so(runs):
    found = compare(runs("vae"), evaluate="never")
    assert found.rows[0].reason == "not evaluated"
    assert not Path("vae/evaluation.json").exists()


# CSV ------------------------------------------------------------------------------------------


def test_csv_holds_every_row_in_full(runs):
    names = runs("vae", "grey", "diffusion", "moons", "implicit")
    found = compare(names, models=MODELS, particles=3, limit=20, others=3)
    lines = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert len(lines) == len(found.rows) == 7
    groups = [k for k, group in enumerate(found.groups, 1) for _ in group.rows]
    for line, row, group in zip(lines, found.rows, groups, strict=True):
        assert (line["run"], line["model"]) == (row.run, row.model)
        assert int(line["group"]) == group
        assert line["main"] == str(row.main)
        assert int(line["parameters"]) == row.parameters
        assert float(line["training_seconds"]) == row.seconds
        one = row.likelihood
        if one is None:
            assert line["log_likelihood_nats"] == line["rank_best"] == "" and line["reason"]
            continue
        assert float(line["log_likelihood_nats"]) == one.value
        assert float(line["stderr_nats"]) == one.stderr
        assert (line["kind"], line["measure"], line["method"]) == (
            one.kind,
            one.measure,
            one.method,
        )
        assert (int(line["particles"]), int(line["examples"])) == (one.particles, one.examples)
        assert (line["bits_per_dim"] == "") == (row.run == "moons")
        if row.bits_per_dim is not None:
            assert float(line["bits_per_dim"]) == row.bits_per_dim
        if row.rank is not None:
            assert (int(line["rank_best"]), int(line["rank_worst"])) == row.rank


# The picture ----------------------------------------------------------------------------------


def size(png):
    return Image.open(io.BytesIO(png)).size


def test_the_picture_has_a_panel_a_space_and_a_row_a_run(runs):
    names = runs("vae", "static", "grey", "moons")
    found = compare(names, particles=2, limit=10)
    state = torch.random.get_rng_state()
    one, two, three, all_ = (
        compare(part).picture(samples=4) for part in (names[:1], names[:2], names[:3], names)
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert size(one)[0] == size(two)[0]
    row, panel = size(two)[1] - size(one)[1], size(all_)[1] - size(three)[1]
    assert row > 80 and panel > 2 * row
    assert size(three)[1] - size(two)[1] >= panel  # with a line on unlike panels below
    assert size(found.picture(samples=8))[0] > size(all_)[0]
    assert size(compare(names[3:]).picture())[0] < size(one)[0]  # points have no strip
    assert found.picture(samples=4, seed=3) == found.picture(samples=4, seed=3)
    assert found.picture(samples=4, seed=3) != found.picture(samples=4, seed=4)
    with pytest.raises(ValueError, match="samples must be 1 or more; got 0"):
        found.picture(samples=0)


def test_strips_hold_the_samples_of_the_run(runs):
    (run,) = compare(runs("conditional"), evaluate="never").runs.values()
    strip = _strip(run, 12, 5, torch.device("cpu"))
    assert list(strip.labels) == [*"0123456789", *"01"]
    with seeded(5):
        x = run.program.sample(12, torch.arange(12) % 10, mean=True)
    sheet = plots.image_grid(x, columns=12, pad=6, scale=20)
    assert np.array_equal(strip.pixels[..., 0], np.asarray(Image.open(io.BytesIO(sheet))))


def test_a_run_that_cannot_be_sampled_spoils_no_picture(runs, monkeypatch):
    found = compare(runs("pixels"), models=MODELS, limit=5)

    def generate(self, n, *conditions, mean=False):
        raise RuntimeError("no way\nout")

    monkeypatch.setattr(Pixels, "generate", generate)
    assert _strip(found.runs["pixels"], 2, 0, torch.device("cpu")).reason == (
        "no samples (RuntimeError: no way out)"
    )
    assert found.picture(samples=2).startswith(b"\x89PNG")


def test_odd_names_are_drawn(runs):
    """A glyph that the font lacks would warn, and warnings are errors; so would bad mathematics."""
    name = "a/very long name, with $weird^_ [red]signs[/red] and 名前 and more of it"
    runs(name, source="vae")
    found = compare([name], limit=5, particles=1)
    assert found.picture(samples=1).startswith(b"\x89PNG")
    assert "[red]signs[/red] and 名前" in str(found)
    assert _wrapped("abcdefghij" * 10, 8, 2) == "abcdefgh\n…defghij"
    assert _wrapped("two words", 24, 2) == "two words"


def test_figures_in_words():
    assert with_error(-98.4213, 0.3139) == "-98.42 +- 0.31"
    assert with_error(-1.95412, 0.0142) == "-1.954 +- 0.014"
    assert with_error(-1234.5, math.nan) == "-1,234.50 +- nan"
    assert [duration(s) for s in (0, 119.94, 120, 7199, 7200)] == [
        "0.0 s", "119.9 s", "2.0 min", "120.0 min", "2.0 h",
    ]  # fmt: skip


# The command ----------------------------------------------------------------------------------


def command(*words):
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        return cli.main(["compare", *map(str, words)])


def test_the_command_evaluates_prints_and_writes(runs, capsys):
    runs("vae", "pixels")
    words = ["vae", "pixels", *NAMED, "--csv", "table.csv", "--out", "picture.png"]
    assert command(*words, "--particles", 3, "--limit", 30, "--samples", 3) == 0
    printed = capsys.readouterr()
    assert "evaluating vae" in printed.err and "evaluating pixels" in printed.err
    stored = json.loads(Path("vae/evaluation.json").read_text())["log_likelihood_nats"]
    assert (stored["particles"], stored["examples"]) == (3, 30)
    assert f">= {with_error(stored['value'], stored['stderr'])} nats" in printed.out
    assert LEGEND in " ".join(printed.out.split())
    found = compare(["vae", "pixels"], models=MODELS)
    assert Path("table.csv").read_text() == found.to_csv()
    assert size(Path("picture.png").read_bytes()) == size(found.picture(samples=3))
    # nothing is computed again, unless that is asked for
    assert command("vae", "pixels", *NAMED, "--limit", 9) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    said = " ".join(printed.out.split())
    assert (
        "Read from evaluation.json, whatever particles, limit, split and seed say: vae and" in said
    )
    assert command("vae", *NAMED, "--limit", 9, "--evaluate", "all", "--split", "validation") == 0
    stored = json.loads(Path("vae/evaluation.json").read_text())
    assert (stored["split"], stored["log_likelihood_nats"]["examples"]) == ("validation", 9)
    assert "Read from" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ([], "name a run directory or more: ppgen compare RUN"),
        (["nowhere"], "nowhere is not a run directory"),
        (["nowhere", "--evaluate", "all"], "nowhere is not a run directory"),
        (["vae", "empty"], r"empty is not a run directory \(no run.json there\)"),
        (["vae", "vae"], "vae is given twice"),
        (["vae", "empty/../vae"], "empty/../vae is given twice, also as vae"),
        (["torn"], r"torn/evaluation.json is damaged \(.*\): evaluate again, with `ppgen eval"),
        (["partial"], r"partial/evaluation.json is damaged \('stderr' is missing\)"),
        (["odd"], r"odd/evaluation.json is damaged \(kind 'sure'\)"),
        (["text"], r"text/evaluation.json is damaged \(value '-20'\)"),
        (["pixels"], "which is not ppgen's own: name the class yourself"),
        (["vae", "--csv", "there.csv"], "there.csv exists: .* --overwrite"),
        (["vae", "--out", "there.csv"], "there.csv exists: .* --overwrite"),
        (["vae", "--out", "picture.jpg"], "--out must end in .png; got picture.jpg"),
        (["vae", "--csv", "table.txt"], "--csv must end in .csv; got table.txt"),
        (["vae", "--samples", "0"], "--samples must be 1 or more"),
        (["vae", "--limit", "0"], "vae: limit must be 1 or more; got 0"),
        (["vae", "--evaluate", "some"], "--evaluate: expected"),
        (["vae", "--device", "gpu"], "device must be auto, cpu, cuda"),
        (["vae", "--cvs", "x.csv"], "unknown option --cvs; did you mean --csv"),
    ],
)
def test_what_is_refused(runs, capsys, words, match):
    runs("vae", "pixels")
    runs("torn", "partial", "odd", "text", source="vae")
    Path("empty").mkdir()
    Path("there.csv").write_text("mine")
    Path("torn/evaluation.json").write_text('{"data": "digits", "spl')
    judged("partial", {k: v for k, v in number(-20.0, 0.1).items() if k != "stderr"})
    judged("odd", number(-20.0, 0.1, "sure"))
    judged("text", number("-20", 0.1))
    assert command(*words) == 2
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if not line.startswith("evaluating")]
    assert printed.out == "" and len(lines) == 1, printed
    assert re.search(match, lines[0]), lines[0]
    assert Path("there.csv").read_text() == "mine"


def test_files_are_replaced_when_asked(runs):
    runs("vae")
    Path("table.csv").write_text("old")
    assert command("vae", "--evaluate", "never", "--csv", "table.csv", "--overwrite") == 0
    assert Path("table.csv").read_text().startswith("group,rank_best,rank_worst,run,")


def test_what_the_library_refuses(runs):
    with pytest.raises(ValueError, match="nothing to compare"):
        compare([])
    with pytest.raises(ValueError, match="nothing to compare: give a list"):
        compare("vae")
    with pytest.raises(ValueError, match="evaluate must be one of missing, all, never"):
        compare(runs("vae"), evaluate="al")


def test_an_evaluation_of_an_earlier_step_is_made_again(tmp_path):
    data = ppgen.load_data("digits", binarize="threshold")
    options = {"out": tmp_path / "run", "progress": False, "sample_epochs": 0}
    run = ppgen.fit(
        ppgen.VAE(data.shape, levels=2, latent_dim=2, hidden=(8,)), data, steps=2, **options
    )
    ppgen.evaluate(run, particles=2, limit=20)
    before = compare([run.path], particles=2, limit=20).rows[0].likelihood
    stored = json.loads((run.path / "evaluation.json").read_text())
    assert stored["step"] == 2 and stored["log_likelihood_nats"]["value"] == before.value
    resumed = ppgen.fit(
        ppgen.VAE(data.shape, levels=2, latent_dim=2, hidden=(8,)),
        data,
        steps=40,
        resume=True,
        **options,
    )
    after = compare([resumed.path], particles=2, limit=20).rows[0].likelihood
    assert after.value > before.value + 1
    assert json.loads((run.path / "evaluation.json").read_text())["step"] == 40


# Scores of samples ----------------------------------------------------------------------------


def score(metric, value, stderr=0.1, **more):
    return {
        "metric": metric,
        "value": value,
        "stderr": stderr,
        "real": 0.5,
        "extractor": "classifier of digits [aaaa]",
        "samples": 180,
        "split": "test",
        "means": False,
        "seed": 0,
        "note": "",
    } | more


def scored(name, *scores, main=None, reason="no likelihood here"):
    content = {"split": "test", "log_likelihood_nats": main, "others": [], "scores": list(scores)}
    Path(name, "evaluation.json").write_text(json.dumps(content | {"reason": reason}))


def places(found):
    return {row.run: dict(row.places) for row in found.rows if row.main}


def test_scores_have_places_beside_likelihoods(runs):
    runs("vae", "static", source="static")
    runs("implicit", "pixels")
    scored("vae", score("fid", 9.0), score("recall", 0.5), score("neighbours", 0.5),
           main=number(-20.0, 0.1))  # fmt: skip
    scored("static", score("fid", 9.1), score("recall", 0.9), main=number(-30.0, 0.1))
    scored("implicit", score("fid", 3.0), score("recall", 0.1), score("neighbours", 0.9))
    scored("pixels", main=number(-40.0, 0.1, "exact"))
    found = compare(["vae", "static", "implicit", "pixels"], models=MODELS)
    assert len(found.groups) == 1  # the program without likelihood among the others
    assert places(found) == {
        "vae": {"fid": (2, 3), "recall": (2, 2)},
        "static": {"fid": (2, 3), "recall": (1, 1)},
        "implicit": {"fid": (1, 1), "recall": (3, 3)},
        "pixels": {},
    }
    said = str(found)
    own = [re.split(r"\s*│\s*", line)[3] for line in said.splitlines() if line.startswith("│")]
    assert own[-8:] == ["none", "fid 3.00 +- 0.10 (1)", "recall 0.10 +- 0.10 (3)",
                        "neighbours 0.90 +- 0.10", "", "fid 0.50", "recall 0.50",
                        "neighbours 0.50"]  # fmt: skip
    assert "log-likelihood, scores of samples" in said
    assert "180 draws against as many test examples, classifier of digits [aaaa]" in said
    lines = {line["run"]: line for line in csv.DictReader(io.StringIO(found.to_csv()))}
    assert float(lines["implicit"]["fid"]) == 3 and lines["implicit"]["log_likelihood_nats"] == ""
    assert (lines["vae"]["fid_stderr"], lines["vae"]["fid_real"]) == ("0.1", "0.5")
    assert lines["vae"]["score_extractor"] == "classifier of digits [aaaa]"
    assert lines["vae"]["kid"] == lines["pixels"]["fid"] == ""
    without = compare(["pixels"], models=MODELS)
    assert size(found.picture(samples=2))[0] > size(without.picture(samples=2))[0]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"extractor": "random [bbbb]"}, r"by different extractors, classifier .* and random \[bb"),
        ({"samples": 100}, "they are of 180 and 100 samples"),
        ({"means": True}, "draws and means are not the same thing"),
        ({"split": "validation"}, "test and validation data are different examples"),
        ({"given": "labels"}, "were given nothing and the examples' own labels, which is not the"),
        ({"seed": 4}, None),
    ],
)
def test_scores_on_unlike_terms_are_not_ranked_together(runs, change, sentence):
    runs("one", "two", source="vae")
    scored("one", score("fid", 1.0), main=number(-20.0, 0.1))
    scored("two", score("fid", 9.0, **change), main=number(-20.0, 0.1))
    found = compare(["one", "two"])
    apart = [note for note in found.notes if "not ranked together" in note]
    if sentence is None:
        assert places(found) == {"one": {"fid": (1, 1)}, "two": {"fid": (2, 2)}}
        assert apart == []
        return
    assert places(found) == {"one": {}, "two": {}}
    assert len(apart) == 1 and apart[0].startswith("Scores of one and two are not ranked")
    assert re.search(sentence, apart[0])
    assert found.picture(samples=1).startswith(b"\x89PNG")


def test_scores_of_unlike_data_are_not_ranked_together(runs):
    runs("static", "grey")
    for name in ("static", "grey"):
        scored(name, score("fid", 1.0), main=number(-20.0, 0.1))
    assert places(compare(["static", "grey"])) == {"static": {}, "grey": {}}


def test_of_scores_on_several_terms_those_that_most_runs_have_are_shown(runs):
    runs("one", "two", "three", source="vae")
    few, many = score("fid", 2.0, samples=50), score("fid", 1.0)
    scored("one", many, few, main=number(-20.0, 0.1))
    scored("two", many, main=number(-20.0, 0.1))
    scored("three", few, many, main=number(-20.0, 0.1))
    found = compare(["one", "two", "three"])
    assert {row.scores[0].samples for row in found.rows} == {180}
    assert places(found)["one"] == {"fid": (1, 3)}


def test_ties_of_terms_are_broken_alike_for_all_runs(runs):
    runs("one", "two", source="vae")
    few, many = score("fid", 2.0, samples=50), score("fid", 1.0)
    scored("one", many, few, main=number(-20.0, 0.1))
    scored("two", few, many, main=number(-20.0, 0.1))
    found = compare(["one", "two"])
    assert {row.scores[0].samples for row in found.rows} == {50}  # the newest of the first
    assert places(found) == {name: {"fid": (1, 2)} for name in ("one", "two")}


def test_real_data_are_told_once_and_so_are_shared_terms(runs):
    """Whatever the last bits of its number, and however many panels there are."""
    runs("static", "conditional")
    for name, real in (("static", 0.5), ("conditional", 0.5 + 1e-12)):
        more = {"real": real, "seed": 4, "note": "a note"}
        scored(name, score("fid", 1.0, **more), main=number(-20.0, 0.1))
    found = compare(["static", "conditional"])
    assert len(found.groups) == 2
    said = str(found)
    assert len(re.findall(r"│ real data +│ fid 0\.50 +│ training examples", said)) == 1
    assert said.count("180 draws against as many test") == 1
    assert "Scores: 180 draws against as many test examples, classifier" in said
    assert "Scores of static and conditional are of another seed than 0" in said
    lines = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert {(one["fid_seed"], one["fid_note"]) for one in lines} == {("4", "a note")}
    assert {(one["score_given"], one["score_real_split"]) for one in lines} == {("", "train")}
    assert real_text([row.scores[0] for row in found.rows]) == "0.50"
    scored("conditional", score("fid", 1.0, real=0.6), main=number(-20.0, 0.1))
    found = compare(["static", "conditional"])
    assert real_text([row.scores[0] for row in found.rows]) == ""
    assert "real data " not in str(found)
    scored("conditional", score("fid", 1.0, given="labels"), main=number(-20.0, 0.1))
    said = str(compare(["static", "conditional"]))
    assert said.count("│ real data") == 2
    assert "180 draws given the labels of as many test examples, against these" in said


@pytest.mark.parametrize("width", [80, 120])
def test_tables_fold_and_lose_nothing(runs, width):
    runs("vae")
    scored("vae", score("class_variation", 0.123456, 0.0001), score("fid", 12345.6),
           main=number(-20.0, 0.1, method="a" * 150))  # fmt: skip
    text = io.StringIO()
    Console(file=text, width=width).print(compare(["vae"]))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= width and "…" not in text.getvalue()
    assert "class_variation 0.12346 +- 0.00010" in text.getvalue()


def test_columns_of_scores_hold_their_texts(runs):
    runs("one", "two", source="vae")
    for name in ("one", "two"):
        scored(name, score("data_copying", -1.5), score("fid", 123456.789, 0.0001),
               main=number(-20.0, 0.1))  # fmt: skip
    widths = columns_of(compare(["one", "two"]).groups)
    assert list(widths) == ["fid", "data_copying"]
    assert widths["data_copying"] == COLUMN < 1.5 < widths["fid"]


def test_missing_scores_are_computed_and_no_others(runs, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    names = runs("static", "implicit")
    assert compare(names, models=MODELS, evaluate="never", metrics=["kid"]).rows[0].scores == ()
    words = ["--metrics", "kid", "--features", "random", "--score_samples", 60, "--particles", 2,
             "--limit", 10]  # fmt: skip
    assert command(*names, *NAMED, *words) == 0
    printed = capsys.readouterr()
    assert "evaluating static" in printed.err and "evaluating implicit" in printed.err
    stored = json.loads(Path("implicit/evaluation.json").read_text())
    assert [(s["metric"], s["samples"]) for s in stored["scores"]] == [("kid", 60)]
    assert re.search(r"kid [-\d.]+ \+- [\d.]+ \((1|2|1-2)\)", printed.out)
    assert command(*names, *NAMED, *words) == 0
    assert capsys.readouterr().err == ""  # all is there
    words[1] = "kid,c2st"
    before = json.loads(Path("static/evaluation.json").read_text())["log_likelihood_nats"]
    assert command(*names, *NAMED, *words) == 0
    content = json.loads(Path("static/evaluation.json").read_text())
    assert content["log_likelihood_nats"] == before
    assert [s["metric"] for s in content["scores"]] == ["kid", "c2st"]
    # without --metrics everything that is stored is shown; a bad name is refused at once
    assert "c2st" in str(compare(names, models=MODELS))
    assert command(*names, *NAMED, "--metrics", "kidd") == 2
    assert "unknown metric 'kidd'; did you mean kid" in capsys.readouterr().err
    assert command(*names, *NAMED, "--metrics", "kid", "--score_samples", 0) == 2
    assert "--score_samples must be 1 or more; got 0" in capsys.readouterr().err
    assert command(*names, *NAMED, "--score_samples", 5) == 2
    assert "--score_samples is for scores of samples" in capsys.readouterr().err
    assert command(*names, *NAMED, "--metrics", "kid", "--score_samples", 5000) == 2
    assert "static: 5,000 samples are asked for" in capsys.readouterr().err


def test_a_likelihood_that_was_not_asked_for_is_computed(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    runs("vae")
    ppgen.evaluate("vae", metrics=["kid"], features="random", samples=60, likelihood=False)
    found = compare(["vae"], particles=2, limit=10)
    assert found.rows[0].likelihood.examples == 10 and found.rows[0].scores[0].metric == "kid"


def test_a_damaged_score_is_reported(runs):
    runs("vae")
    scored("vae", score("fid", "much"), main=number(-20.0, 0.1))
    with pytest.raises(ValueError, match=r"is damaged \(value 'much' of a score\): evaluate again"):
        compare(["vae"])
