"""The commands on models whose sampling has options: sample, evaluate and train."""

import inspect
import io
import re
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import docstring_parser
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from ppgen import Diffusion, cli, load, plots, sample_command, sample_pictures
from ppgen.arguments import Parser
from ppgen.data import load_data
from ppgen.images import read_images
from ppgen.nn.schedules import LearnedSchedule
from ppgen.pair_pictures import pair_rows
from ppgen.run import load_checkpoint, read_json
from ppgen.seeding import seeded

MLP = ["--model", "Diffusion", "--model.network", "mlp", "--model.hidden", "[16]"]
SMALL = [*MLP, "--model.timesteps", "6"]
HIERARCHY = ["--model", "HierarchicalVAE", "--model.latent_dims", "[4,3]", "--model.hidden", "[16]"]
DIGITS = ["--data", "digits", "--sample_epochs", "0", "--progress", "false"]


def run(*words):
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        return cli.main([str(word) for word in words])


def trained(factory, name, *words):
    out = factory.mktemp("runs") / name
    assert run("train", *words, "--steps", 4, "--out", out) == 0
    return out


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    return trained(tmp_path_factory, "y", *SMALL, *DIGITS, "--conditional", "true")


@pytest.fixture(scope="module")
def binary(tmp_path_factory):
    return trained(tmp_path_factory, "binary", *SMALL, *DIGITS, "--binarize", "static")


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    return trained(tmp_path_factory, "points", *SMALL, *DIGITS, "--data", "moons")


@pytest.fixture(scope="module")
def hierarchy(tmp_path_factory):
    return trained(tmp_path_factory, "hierarchy", *HIERARCHY, *DIGITS, "--binarize", "static")


@pytest.fixture
def refused(capsys):
    """Check that a command is refused: status 2, one line on stderr, no traceback."""

    def check(*words, match):
        capsys.readouterr()
        status, error = run(*words), capsys.readouterr().err
        assert status == 2 and error.count("\n") == 1 and error.endswith("\n"), error
        assert "Traceback" not in error and len(error) < 400, error
        assert re.search(match, error), error

    return check


def arrays(path):
    with np.load(path) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def picture(path, pixels):
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)
    return path


# Sampling --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ([], {}),
        (["--steps", "3"], {"steps": 3}),
        (["--sampler", "ddim", "--steps", "3", "--eta", "0.5"],
         {"sampler": "ddim", "steps": 3, "eta": 0.5}),
        (["--sampler", "heun", "--steps", "2"], {"sampler": "heun", "steps": 2}),
        (["--guidance", "3"], {"guidance": 3.0}),
        (["--guidance", "0", "--sampler", "euler"], {"guidance": 0.0, "sampler": "euler"}),
        (["--draw"], {"mean": False}),
    ],
)  # fmt: skip
def test_options_reach_the_program(words, options, conditional, tmp_path):
    out = tmp_path / "x.npz"
    more = ["--n", 5, "--y", 3, "--seed", 2]
    assert run("sample", conditional, "--out", out, *more, *words) == 0
    y = torch.full((5,), 3)
    with seeded(2):
        wanted = load(conditional).sample(5, y, **{"mean": True, **options})
    found = arrays(out)
    assert found["y"].tolist() == [3] * 5
    assert torch.equal(found["x"], wanted)
    with seeded(2):
        plain = load(conditional).sample(5, y, mean=True)
    # A check of the check: every option changes the draws.
    assert torch.equal(plain, wanted) == (not options)


def test_what_is_not_given_is_left_to_the_program(conditional, tmp_path, monkeypatch):
    seen = []

    def generate(self, n, *conditions, mean=False, **options):
        seen.append((mean, options))
        return torch.zeros(n, *self.shape)

    monkeypatch.setattr("ppgen.Diffusion.generate", generate)
    assert run("sample", conditional, "--out", tmp_path / "x.png") == 0
    assert run("sample", conditional, "--out", tmp_path / "y.png", "--eta", 0, "--draw") == 0
    assert seen == [(True, {}), (False, {"eta": 0.0})]


@pytest.fixture
def half(tmp_path):
    """An image of the digits' size, and a mask that is white on its right half."""
    levels = np.arange(64).reshape(8, 8) * 4
    mask = np.zeros((8, 8))
    mask[:, 4:] = 255
    return picture(tmp_path / "image.png", levels), picture(tmp_path / "mask.png", mask)


def test_inpainting_keeps_what_is_black_and_paints_what_is_white(conditional, half, tmp_path):
    out = tmp_path / "x.npz"
    image, mask = half
    words = ["--inpaint", image, "--mask", mask, "--steps", 3, "--resample", 2, "--y", 1]
    assert run("sample", conditional, "--out", out, *words, "--n", 4) == 0
    x = arrays(out)["x"]
    assert x.shape == (4, 1, 8, 8)
    known = torch.from_numpy(np.round(np.arange(64.0) * 4 / 255 * 16) / 16).reshape(1, 8, 8).float()
    assert torch.equal(x[..., :4], known[..., :4].expand(4, -1, -1, -1))
    painted = x[..., 4:]
    assert not torch.isclose(painted, known[..., 4:]).all()
    assert painted.std(0).min() > 0  # each variant has its own
    kept = torch.arange(8).expand(8, 8) < 4
    options = {"known": known, "mask": kept, "steps": 3, "resample": 2}
    with seeded(0):
        wanted = load(conditional).sample(4, torch.ones(4).long(), mean=True, **options)
    assert torch.equal(x, wanted)


def test_the_picture_shows_the_image_what_is_kept_and_the_variants(conditional, half, tmp_path):
    image, mask = half
    words = ["--inpaint", image, "--mask", mask, "--steps", 2, "--resample", 1]
    for end in ("png", "npz"):
        assert run("sample", conditional, "--out", tmp_path / f"x.{end}", *words) == 0
    x = arrays(tmp_path / "x.npz")["x"]
    assert len(x) == sample_command.VARIANTS
    with Image.open(tmp_path / "x.png") as file:
        sheet = np.asarray(file)
    side = 2 + plots.TILE  # ten tiles of one row, each after its frame of two pixels
    assert sheet.shape == (side + 2, 10 * side + 2, 3)
    tiles = [sheet[2:side, 2 + k * side : (k + 1) * side][2::5, 2::5] for k in range(10)]
    whole = np.round(np.round(np.arange(64).reshape(8, 8) * 4 / 255 * 16) / 16 * 255)
    assert (tiles[0] == whole[..., None]).all()
    assert (tiles[1][:, :4] == tiles[0][:, :4]).all()
    assert (tiles[1][:, 4:] == np.round(255 * np.array(sample_pictures.UNKNOWN))).all()
    for tile, draw in zip(tiles[2:], x, strict=True):
        assert (tile == np.round(draw[0].numpy() * 255)[..., None]).all()


def test_an_image_is_taken_in_the_units_of_the_model(conditional, binary, tmp_path):
    grey = np.array([[0, 127, 128, 255, 100, 200, 30, 220]] * 8)
    colour = np.stack([grey, grey, grey], 2)
    mask = np.zeros((8, 8, 3))
    mask[0] = 255
    mask = picture(tmp_path / "mask.png", mask)
    transparent = Image.fromarray(np.dstack([colour, 255 * (grey > 50)]).astype(np.uint8))
    transparent.save(tmp_path / "clear.png")
    wide = Image.fromarray((grey * 257).astype(np.uint16))
    wide.save(tmp_path / "wide.png")
    picture(tmp_path / "grey.png", grey)
    picture(tmp_path / "colour.png", colour)
    for path, levels in ((binary, 2), (conditional, 17)):
        for name in ("grey", "colour", "clear", "wide"):
            image = str(tmp_path / f"{name}.png")
            assert read_json(path / "run.json")["data"]["levels"] == levels
            x, kept = sample_pictures.task(image, str(mask), (1, 8, 8), levels)
            shown = np.where(grey > 50, grey, 255) if name == "clear" else grey
            wanted = np.round(shown / 255 * (levels - 1)) / (levels - 1)
            assert x.shape == (1, 8, 8) and x[0].numpy() == pytest.approx(wanted)
            assert kept.tolist() == [[False] * 8] + [[True] * 8] * 7
    out = tmp_path / "x.npz"
    words = ["--inpaint", tmp_path / "colour.png", "--mask", mask, "--n", 2, "--draw"]
    assert run("sample", binary, "--out", out, *words) == 0
    x = arrays(out)["x"]
    assert (x[:, 0, 1:] == torch.tensor([0, 0, 1, 1, 0, 1, 0, 1.0])).all()
    assert set(x.unique().tolist()) <= {0.0, 1.0}


def test_colour_images_are_painted_in_colour(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3))
    image = picture(tmp_path / "x.png", pixels)
    mask = picture(tmp_path / "m.png", 255 * np.eye(4, 6))
    x, kept = sample_pictures.task(str(image), str(mask), (3, 4, 6), 256)
    assert x.shape == (3, 4, 6) and kept.shape == (4, 6)
    assert x.permute(1, 2, 0).numpy() == pytest.approx(pixels / 255)
    assert kept.tolist() == (np.eye(4, 6) == 0).tolist()


# Trajectories ----------------------------------------------------------------------------------


def frames_of(data):
    with Image.open(data) as file:
        found = []
        for k in range(file.n_frames):
            file.seek(k)
            found.append((np.asarray(file.convert("L")), file.info["duration"]))
    return found


def test_a_trajectory_is_a_film_from_noise_to_the_draws(conditional, tmp_path):
    out, film = tmp_path / "x.npz", tmp_path / "way.gif"
    assert run("sample", conditional, "--out", out, "--trajectory", film, "--n", 12) == 0
    x = arrays(out)["x"]
    frames = frames_of(film)
    assert len(frames) == 7  # before each of six steps, and the end
    assert [time for _, time in frames] == [sample_pictures.FRAME] * 6 + [sample_pictures.LAST]
    rows = 6  # every other one of the twelve, as no more than eight are shown
    tile = sample_pictures.SIDE + 2
    height, width = frames[0][0].shape
    assert height == 2 * tile + 2
    edge = width - rows * tile - 2  # where the names end

    def tiles(frame, row):
        line = frame[2 + row * tile : (row + 1) * tile, edge + 2 :]
        return np.stack([line[4::8, 4 + k * tile : (k + 1) * tile - 2 : 8] for k in range(rows)])

    wanted = np.round(x[::2, 0].numpy() * 255)
    last = frames[-1][0]
    assert np.abs(tiles(last, 0) - wanted).max() <= 1
    assert (tiles(last, 1) == tiles(last, 0)).all()
    noise = tiles(frames[0][0], 0)
    assert ((noise == 0) | (noise == 255)).mean() > 0.2  # P(|N(0, 1)| > 1) = 0.32
    assert (tiles(frames[0][0], 1) != noise).any()
    # The film changes no draw.
    assert run("sample", conditional, "--out", tmp_path / "again.npz", "--n", 12) == 0
    assert torch.equal(arrays(tmp_path / "again.npz")["x"], x)


@pytest.mark.parametrize("calls", [1, 5, 59, 60, 61, 119, 120, 121, 1000, 10_000])
def test_a_film_of_any_number_of_steps_is_short(calls):
    film = sample_pictures.Film(SimpleNamespace())
    for k in range(calls):
        x = torch.full((10, 1, 4, 4), k / calls)
        film(SimpleNamespace(time=1 - k / calls, x=x, x0=1 - x))
    film(SimpleNamespace(time=0.0, x=torch.ones(10, 1, 4, 4), x0=torch.ones(10, 1, 4, 4)))
    assert len(film.kept) <= 2 * sample_pictures.FRAMES
    assert film.kept[0][0] == 1.0 and film.last[0] == 0.0
    assert all(len(x) == 5 for _, x, _ in film.kept)
    frames = frames_of(io.BytesIO(film.gif()))
    assert min(calls + 1, 50) <= len(frames) <= sample_pictures.FRAMES
    shades = [int(frame[20, -20]) for frame, _ in frames]  # in a tile of the first row
    assert shades[0] == 0 and shades[-1] == 255 and shades == sorted(shades)
    assert np.diff(shades).max() <= 255 / min(calls, 30) + 1


def test_inpainting_has_a_trajectory_too(binary, half, tmp_path):
    image, mask = half
    film = tmp_path / "way.gif"
    words = ["--inpaint", image, "--mask", mask, "--resample", 3, "--n", 2, "--trajectory", film]
    assert run("sample", binary, "--out", tmp_path / "x.png", *words) == 0
    # Pillow joins frames that look alike.
    assert 10 <= len(frames_of(film)) <= 6 * 3 + 1


# What is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["RUN", "--sampler", "ddmi"], "must be one of ancestral, ddim, .*; did you mean ddim"),
        (["RUN", "--steps", "7"], "steps must not exceed the timesteps of the chain, 6; got 7"),
        (["RUN", "--steps", "0"], "--steps must be 1 or more; got 0"),
        (["RUN", "--steps", "many"], "--steps: expected int; got 'many'"),
        (["RUN", "--eta", "1.5"], "eta must lie between 0 .* and 1 .*; got 1.5"),
        (["RUN", "--eta", ".nan"], "eta must lie between 0"),
        (["RUN", "--sampler", "heun", "--eta", "0.5"], "heun takes no option eta; taken by ddim"),
        (["RUN", "--draw", "--eta", "0.5"], "ancestral takes no option eta; taken by ddim"),
        (["RUN", "--guidance", "-1"], "--guidance must be finite and 0 or more; got -1"),
        (["RUN", "--guidance", ".inf"], "--guidance must be finite and 0 or more; got inf"),
        (["RUN", "--y", "10"], "--y must be from 0 to 9; got 10"),
        (["BINARY", "--guidance", "2"], "--guidance is for conditional models"),
        (["BINARY", "--y", "3"], "--y is for conditional models"),
        (["HIERARCHY", "--sampler", "ddim"],
         "HierarchicalVAE takes no option --sampler; Diffusion does"),
        (["HIERARCHY", "--trajectory", "NEW.gif"], "no option --trajectory; Diffusion does"),
        (["HIERARCHY", "--inpaint", "IMAGE", "--mask", "MASK"], "no option --inpaint; Diffusion"),
        (["RUN", "--inpaint", "IMAGE"], "--inpaint needs --mask.*white is painted anew"),
        (["RUN", "--mask", "MASK"], "--mask needs --inpaint"),
        (["RUN", "--resample", "3"], "--resample needs --inpaint"),
        (["RUN", "--inpaint", "IMAGE", "--mask", "MASK", "--resample", "0"],
         "--resample must be 1 or more; got 0"),
        (["RUN", "--inpaint", "IMAGE", "--mask", "MASK", "--sampler", "heun"],
         "heun takes no option --inpaint; taken by ancestral and ddim"),
        (["RUN", "--inpaint", "IMAGE", "--mask", "LARGE"],
         r"large.png has 12x10 pixels and .*image.png 8x8: a mask has the size of its image"),
        (["RUN", "--inpaint", "LARGE", "--mask", "LARGE"],
         r"large.png has 12x10 pixels, and the model's images have 8x8: .*resize"),
        (["RUN", "--inpaint", "IMAGE", "--mask", "BLACK"], "no white pixel: white is what"),
        (["RUN", "--inpaint", "none.png", "--mask", "MASK"], "none.png is not a file"),
        (["RUN", "--inpaint", "TEXT", "--mask", "MASK"], "no image of a format"),
        (["RUN", "--inpaint", "BROKEN", "--mask", "MASK"], "broken.png cannot be read"),
        (["POINTS", "--inpaint", "IMAGE", "--mask", "MASK"], r"images; .* shape \(2,\)"),
        (["POINTS", "--trajectory", "NEW.gif"], r"images; .* shape \(2,\)"),
        (["RUN", "--trajectory", "NEW.png"], "--trajectory must end in .gif; got NEW.png"),
        (["RUN", "--trajectory", "OLD.gif"], "OLD.gif exists: choose another name"),
        (["RUN", "--trajectory", "."], "is a folder: name a file"),
        (["RUN", "--n", "0"], "--n must be 1 or more; got 0"),
        (["RUN", "--sampel", "ddim"], "unknown option --sampel; did you mean"),
    ],
)  # fmt: skip
def test_bad_options_of_sampling(
    words, match, conditional, binary, points, hierarchy, half, tmp_path, refused, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("OLD.gif").write_text("precious")
    (tmp_path / "text.png").write_text("no picture")
    whole = half[0].read_bytes()
    (tmp_path / "broken.png").write_bytes(whole[:50])
    places = {
        "RUN": conditional, "BINARY": binary, "POINTS": points, "HIERARCHY": hierarchy,
        "IMAGE": half[0], "MASK": half[1], "TEXT": "text.png", "BROKEN": "broken.png",
        "LARGE": picture(tmp_path / "large.png", 255 * np.ones((10, 12))),
        "BLACK": picture(tmp_path / "black.png", np.zeros((8, 8))),
    }  # fmt: skip
    before = sorted(tmp_path.iterdir())
    refused("sample", *(places.get(w, w) for w in words), "--out", "NEW.png", match=match)
    assert sorted(tmp_path.iterdir()) == before
    assert Path("OLD.gif").read_text() == "precious"


@pytest.mark.parametrize(
    "words",
    [
        ["--out", "x.jpg"], ["--n", "0"], ["--steps", "0"], ["--guidance", "-1"],
        ["--mask", "m.png"], ["--inpaint", "x.png"], ["--trajectory", "x.mp4"],
        ["--out", "file/x.png"],
    ],
)  # fmt: skip
def test_what_can_be_refused_at_once_is(words, tmp_path, refused, monkeypatch):
    def never(*_, **__):
        raise AssertionError("the run was opened")

    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    monkeypatch.setattr(sample_command, "opened", never)
    refused("sample", "nowhere", "--out", "x.png", *words, match=words[0] + "|cannot be written")


# Evaluation ------------------------------------------------------------------------------------


def test_evaluate_shows_each_method_with_its_kind(conditional, tmp_path, capsys):
    place = Path(shutil.copytree(conditional, tmp_path / "run"))

    def evaluated(*words):
        capsys.readouterr()
        assert run("evaluate", place, "--limit", 5, *words) == 0
        return capsys.readouterr().out, read_json(place / "evaluation.json")

    printed, found = evaluated("--others", 2)
    main, others = found["log_likelihood_nats"], found["others"]
    steps = load(place).likelihoods()[0].particles
    assert (main["kind"], main["particles"], main["examples"]) == ("bound", steps, 5)
    assert [(o["kind"], o["examples"]) for o in others] == [("estimate", 2)] * 2
    for value in (main["value"], *(other["value"] for other in others)):
        assert f"{value:.2f} +-" in printed
    assert printed.count("by another method") == 2 and printed.count("estimate: ") == 2
    assert printed.count("5 examples") == 1 and printed.count("2 examples") == 2
    # The bound is the ELBO; its terms add up to it, and each is shown.
    assert re.search(r"ELBO +│ the same +│ minus the sum of", printed)
    terms = {k: v for k, v in found["elbo_nats"].items() if k not in ("value", "stderr")}
    assert sum(terms.values()) == pytest.approx(-main["value"], rel=1e-5)
    for title, value in terms.items():
        assert re.search(rf"{title} +│ {value:.2f} nats", printed)
    assert f"written to {place / 'evaluation.json'}" in printed.replace("\n", "")
    printed, found = evaluated("--others", 0, "--particles", 3)
    assert found["others"] == [] and "by another method" not in printed
    assert found["log_likelihood_nats"]["particles"] == 3
    assert re.search(r"bound, 3\b", printed)


def test_evaluate_draws_the_guide_100_times_by_default(hierarchy, tmp_path, capsys, refused):
    place = Path(shutil.copytree(hierarchy, tmp_path / "run"))
    capsys.readouterr()
    assert run("evaluate", place, "--limit", 3) == 0
    printed = capsys.readouterr().out
    found = read_json(place / "evaluation.json")
    assert found["log_likelihood_nats"]["particles"] == 100
    elbo = found["elbo_nats"]["value"]
    assert re.search(rf"ELBO +│ {elbo:.2f} \+- [\d.]+ nats +│ bound", printed)
    refused("evaluate", place, "--others", "-1", match="others must be 0 or more; got -1")


# Training --------------------------------------------------------------------------------------

UNET = [
    "--model", "Diffusion", "--model.channels", "4", "--model.multipliers", "[1,2]",
    "--model.attention", "[4]", "--model.blocks", "1", "--model.schedule", "learned",
    "--compile", "none",
    "--conditional", "true", "--model.label_dropout", "0.2", *DIGITS,
]  # fmt: skip
CONSTANT = ["--schedule", "constant", "--warmup_steps", "0"]  # as long a run as one likes


def weights(out):
    return load_checkpoint(out)[0]


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


@pytest.mark.parametrize(
    "words",
    [
        UNET,
        [*SMALL, *DIGITS, "--model.predict", "v", "--model.schedule", "cosine",
         "--model.weighting", "min_snr"],
        [*HIERARCHY, *DIGITS, "--binarize", "dynamic", "--model.guide", "bottom_up",
         "--objective.kl_warmup", "0"],
    ],
    ids=["unet", "mlp", "hierarchy"],
)  # fmt: skip
def test_a_configuration_trains_again_and_a_run_goes_on(words, tmp_path):
    words = [*words, *CONSTANT]
    whole, again, parts = (tmp_path / name for name in ("whole", "again", "parts"))
    if "--model.guide" in words:
        words += ["--objective", "ELBO"]
    assert run("train", *words, "--steps", 6, "--out", whole) == 0
    saved = whole / "config.yaml"
    assert run("train", "--config", saved, "--out", again) == 0
    assert (again / "config.yaml").read_text() == saved.read_text()
    assert same(weights(whole), weights(again))
    assert run("train", *words, "--steps", 3, "--out", parts) == 0
    assert not same(weights(parts), weights(whole))
    assert run("train", "--resume", "--out", parts, "--steps", 6) == 0
    assert same(weights(parts), weights(whole))


def test_the_options_of_diffusion_are_words(tmp_path):
    out = tmp_path / "run"
    assert run("train", *UNET, "--steps", 1, "--out", out) == 0
    program = load(out)
    assert isinstance(program.schedule, LearnedSchedule) and program.num_classes == 10
    assert [len(program.network.down), len(program.network.shrink)] == [2, 1]
    given = yaml.safe_load((out / "config.yaml").read_text())["model"]["init_args"]
    wanted = {"channels": 4, "multipliers": [1, 2], "attention": [4], "schedule": "learned"}
    assert wanted.items() <= given.items() and given["label_dropout"] == 0.2
    assert run("sample", out, "--out", tmp_path / "x.npz", "--n", 2, "--steps", 2) == 0
    assert arrays(tmp_path / "x.npz")["x"].shape == (2, 1, 8, 8)


def test_the_help_of_training_explains_the_model(capsys):
    capsys.readouterr()
    assert run("train", "--model", "Diffusion", "--help") == 0
    printed = capsys.readouterr().out
    text = " ".join(printed.split())
    options = "".join(printed.partition("model Diffusion:")[2].split()).split("--model.")
    names = ("timesteps", "schedule", "predict", "weighting", "network", "channels", "multipliers",
             "blocks", "attention", "hidden", "dropout", "label_dropout")  # fmt: skip
    described = docstring_parser.parse(inspect.getdoc(Diffusion)).params
    meanings = {param.arg_name: "".join(param.description.split()) for param in described}
    for name in names:
        assert any(o.startswith(name) and meanings[name] in o for o in options), name
    assert "--model.shape" not in text and "--model.num_classes" not in text
    # A program's own defaults of training are the ones shown.
    assert re.search(r"--lr LR .*?default: 0.001\)", text)
    assert re.search(r"--ema EMA .*?default: 0.999\)", text)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--size", "6", "--model.multipliers", "[1,2,4]"],
         "6x6 do not fit 3 resolutions: .* divisible by 4, such as 4x4 or 8x8"),
        (["--size", "9", "--model.multipliers", "[1,2]"], "divisible by 2, such as 8x8 or 10x10"),
        (["--model.attention", "[5]"], "attention"),
        (["--model.attention", "5"], "attention: expected a list such as"),
        (["--model.multipliers", "[]"], "multipliers must have one entry a resolution"),
        (["--model.multipliers", "2"], "multipliers: expected a list such as"),
        (["--model.multipliers", "[0]"], "multipliers must be 1 or more"),
        (["--model.channels", "0"], "channels must be 1 or more; got 0"),
        (["--model.timesteps", "0"], "timesteps must be 1 or more; got 0"),
        (["--model.timesteps", "ten"], "timesteps: expected int; got 'ten'"),
        (["--model.schedule", "cosin"],
         "schedule must be one of linear, cosine, learned; got 'cosin'; did you mean cosine"),
        (["--model.schedule", "learned", "--model.weighting", "simple"], "needs weighting='elbo'"),
        (["--model.network", "u-net"], "network must be one of unet, mlp; .*did you mean unet"),
        (["--model.predict", "nose"],
         "predict: expected 'noise', 'x0', 'v', 'mean', 'score'; got 'nose'; did you mean noise"),
        (["--model.weighting", "snr"], r"weighting: expected .*did you mean min_snr"),
        (["--model.label_dropout", "1"], "label_dropout must be at least 0 and below 1"),
        (["--model.dropout", "-1"], "dropout must be at least 0 and below 1"),
        (["--model.multiplier", "[1]"], "unknown option --model.multiplier; did you mean"),
        (["--data", "moons", "--conditional", "false"], r"takes images.*\(2,\): use network=.mlp."),
    ],
)  # fmt: skip
def test_bad_options_of_training_diffusion(words, match, tmp_path, refused):
    out = tmp_path / "out"
    base = ["--model", "Diffusion", "--model.channels", "4", *DIGITS, "--steps", "1"]
    given = {word for word in words if word.startswith("--")}
    pairs = zip(base[::2], base[1::2], strict=True)
    kept = [word for pair in pairs if pair[0] not in given for word in pair]
    refused("train", *kept, "--out", out, *words, match=match)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "given", "wanted"),
    [
        (Literal["bottom_up", "top_down"], "c", "expected 'bottom_up', 'top_down'; got 'c'"),
        (Literal["bottom_up", "top_down"], "top_dwon",
         "expected 'bottom_up', 'top_down'; got 'top_dwon'; did you mean top_down?"),
        (Literal["a", "b"] | None, "c", "expected 'a', 'b'; got 'c'"),
        (float | Literal["learned"], "c", "expected float, 'learned'; got 'c'"),
        (Sequence[int], "c", "expected a list such as [64, 64]; got 'c'"),
        (Sequence[int] | None, "5", "expected a list such as [64, 64]; got '5'"),
        (Sequence[int] | None, "[a]", """expected a list such as [64, 64]; got "['a']\""""),
        (Sequence[int], "[a]", "expected int; got 'a'"),
        (int | None, "x", "expected int; got 'x'"),
        (bool, "maybe", "expected bool; got 'maybe'"),
    ],
)  # fmt: skip
def test_what_was_expected_is_said_in_few_words(kind, given, wanted):
    parser = Parser()
    parser.add_argument("--option", type=kind)
    with pytest.raises(ValueError, match=f"^--option: {re.escape(wanted)}$"):
        parser.parse_args(["--option", given])


# Images as conditions ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def paintings(tmp_path_factory):
    """A folder of coloured disks on paper."""
    folder = tmp_path_factory.mktemp("paintings")
    rows, columns = np.mgrid[:20, :20]
    for k in range(20):
        pixels = np.full((20, 20, 3), 230, np.uint8)
        pixels[(rows - 6 - k % 8) ** 2 + (columns - 10) ** 2 < 16] = (200 - 5 * k, 40, 5 * k)
        Image.fromarray(pixels).save(folder / f"{k}.png")
    return folder


@pytest.fixture(scope="module")
def translator(tmp_path_factory, paintings):
    model = ["--model", "Pix2Pix", "--model.channels", 4, "--data", f"pairs:{paintings}"]
    return trained(tmp_path_factory, "pix2pix", *model, "--size", 16, "--progress", "false")


def test_a_model_of_pairs_is_trained_and_shows_what_it_was_given(translator):
    assert load(translator).condition_shape == (1, 16, 16)
    shown = sorted((translator / "samples").iterdir())
    assert shown and Image.open(io.BytesIO(shown[-1].read_bytes())).mode == "RGB"


def test_a_sketch_is_painted(translator, tmp_path):
    lines = np.full((16, 16), 255, np.uint8)
    lines[4:12, 8] = 0
    file = picture(tmp_path / "sketch.png", lines)
    words = ["sample", translator, "--input", file, "--seed", 3]
    assert run(*words, "--out", tmp_path / "x.npz") == 0
    found = arrays(tmp_path / "x.npz")
    given = torch.from_numpy(lines).float()[None, None] / 255
    assert torch.equal(found["condition"], given)  # of the model's size: taken as it is
    with seeded(3):
        assert torch.equal(found["x"], load(translator).sample(1, given, mean=True))
    # A single draw is the painting itself, pixel for pixel.
    assert run(*words, "--out", tmp_path / "x.png") == 0
    painted = np.array(Image.open(io.BytesIO((tmp_path / "x.png").read_bytes())))
    wanted = (found["x"][0] * 255).round().byte().permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(painted, wanted)
    assert run(*words, "--n", 3, "--out", tmp_path / "many.npz") == 0
    many = arrays(tmp_path / "many.npz")
    assert torch.equal(many["condition"], given.expand(3, -1, -1, -1))
    assert not torch.equal(many["x"][0], many["x"][1])
    assert run(*words, "--n", 3, "--out", tmp_path / "many.png") == 0
    sheet = plots.image_grid(torch.cat([given.expand(-1, 3, -1, -1), many["x"]]), columns=10)
    assert (tmp_path / "many.png").read_bytes() == sheet


def test_any_picture_is_cut_and_resized_as_data_are(tmp_path):
    wide = np.random.default_rng(0).integers(0, 256, (8, 24, 3), dtype=np.uint8)
    file = picture(tmp_path / "wide.png", wide)
    data = read_images([file], 4)[0]
    found = sample_pictures.condition_from(str(file), (3, 4, 4))
    assert torch.equal((found * 255).round().byte(), torch.from_numpy(data))
    whole = sample_pictures.condition_from(str(file), (3, 8, 24))
    assert torch.equal((whole * 255).round().byte(), torch.from_numpy(wide).permute(2, 0, 1))
    red = picture(tmp_path / "red.png", np.full((9, 7, 3), (255, 0, 0)))
    grey = sample_pictures.condition_from(str(red), (1, 4, 6))
    assert grey.shape == (1, 4, 6) and ((grey * 255).round() == 76).all()
    with pytest.raises(ValueError, match=r"grey or colour images; .* shape \(2, 4, 4\)"):
        sample_pictures.condition_from(str(red), (2, 4, 4))


def test_held_out_images_are_taken_where_none_is_named(translator, paintings, tmp_path):
    data = load_data(f"pairs:{paintings}", size=16)
    assert run("sample", translator, "--out", tmp_path / "x.npz") == 0
    found = arrays(tmp_path / "x.npz")
    assert torch.equal(found["condition"], data.test.batch(slice(None))[1])
    assert run("sample", translator, "--out", tmp_path / "x.png") == 0
    sheet = pair_rows({"sketch": found["condition"], "drawn": found["x"]})
    assert (tmp_path / "x.png").read_bytes() == sheet


def test_bad_images_to_draw_for(translator, conditional, paintings, tmp_path, refused):
    words = ["--out", tmp_path / "x.png"]
    refused(
        "sample",
        conditional,
        *words,
        "--input",
        "a.png",
        match="--input is for models conditional on an image, such as Pix2Pix; .*Diffusion",
    )
    refused("sample", translator, *words, "--input", tmp_path / "none.png", match="is not a file")
    (tmp_path / "text.png").write_text("no picture")
    refused("sample", translator, *words, "--input", tmp_path / "text.png", match="is no image")
    refused("sample", translator, *words, "--n", 3, match="--n is 3, and .* have 2 test examples")
    refused("sample", translator, *words, "--y", 3, match="takes no label")
    refused("sample", translator, *words, "--steps", 3, match="Pix2Pix takes no option --steps")
    refused(
        "train",
        "--model",
        "Pix2Pix",
        "--data",
        "digits",
        "--size",
        16,
        "--out",
        tmp_path / "run",
        match=r"digits has none \(pairs:DIR makes some\)",
    )
    moved = shutil.copytree(translator, tmp_path / "moved")
    config = yaml.safe_load((moved / "config.yaml").read_text())
    for data, match in (
        (f"pairs:{tmp_path / 'gone'}", "not at hand, so --input is needed: .*gone"),
        (None, "given as tensors: name one with --input"),
    ):
        (moved / "config.yaml").write_text(yaml.safe_dump(config | {"data": data}))
        refused("sample", moved, *words, match=match)
    assert not (tmp_path / "x.png").exists()
