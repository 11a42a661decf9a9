"""`ppgen graph denoise`, and Markov networks from .fg files under the other commands."""

import itertools
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from graph_command import run
from PIL import Image

from graphs.io import read, save
from graphs.ising import METHODS, Denoised
from graphs.ising import denoise as restored
from ppgen import graph_denoise
from ppgen.graph_images import read_image, sheet, two_levels

ROOT = Path(__file__).parents[1]
TABLE = np.array([[3.0, 1.0], [1.0, 2.0]])


def disc(height=24, width=32):
    """Light within an ellipse, dark around it."""
    down, across = np.mgrid[:height, :width]
    return ((down - height / 2) / (height / 3)) ** 2 + ((across - width / 2) / (width / 3)) ** 2 < 1


TRUTH = disc()
NOISY = TRUTH ^ (np.random.default_rng(3).random(TRUTH.shape) < 0.1)
GREY = np.where(TRUTH, 180.0, 60.0) + np.random.default_rng(4).normal(0, 15, TRUTH.shape)


def image(light):
    return Image.fromarray(np.where(light, 255, 0).astype(np.uint8))


def signs(light):
    return np.where(light, 1, -1).astype(np.int8)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image(TRUTH).save("truth.png")
    image(NOISY).save("noisy.png")
    Image.fromarray(GREY.clip(0, 255).astype(np.uint8)).save("grainy.png")
    return tmp_path


def pixels(name):
    with Image.open(name) as found:
        return np.array(found)


# What is restored -------------------------------------------------------------------------------


@pytest.mark.parametrize("neighbours", [4, 8])
@pytest.mark.parametrize("method", METHODS)
def test_each_method_writes_what_the_library_finds(method, neighbours, answered):
    how = ["--method", method, "--neighbours", neighbours, "--noise", 0.1, "--h", 0.05, "--seed", 7]
    document = answered("denoise", "noisy.png", "--out", "clean.png", *how)
    found = restored(
        signs(NOISY), method, noise=0.1, h=0.05, neighbours=neighbours, seed=7, progress=False
    )
    assert (pixels("clean.png") == np.where(found.image > 0, 255, 0)).all()
    assert document["results"][0]["energy"] == found.energy
    assert document["parameters"] == found.parameters
    assert document["method"] == method and document["written"] == "clean.png"
    assert (document["width"], document["height"], document["threshold"]) == (32, 24, 127.5)


def test_raster_order_is_that_of_the_library(answered):
    how = ["--order", "raster", "--beta", 1, "--eta", 0.6]
    answered("denoise", "noisy.png", "--out", "clean.png", "--method", "icm", *how)
    found = restored(signs(NOISY), "icm", order="raster", beta=1, eta=0.6, progress=False)
    other = restored(signs(NOISY), "icm", beta=1, eta=0.6, progress=False)
    assert (pixels("clean.png") == np.where(found.image > 0, 255, 0)).all()
    assert (found.image != other.image).any()  # else the order would not matter here


def test_the_method_follows_the_sign_of_beta(said, answered):
    document = answered("denoise", "noisy.png", "--out", "a.png")
    assert document["method"] == "graph_cut" and document["results"][0]["rounding"] < 1e-3
    text = said("denoise", "noisy.png", "--out", "b.png", "--beta", -1, "--compare", "s.png")
    assert "written: b.png (bp), s.png" in text
    assert "graph_cut is left out: it needs beta of 0 or more" in text
    assert not re.search(r"^graph_cut +-", text, re.MULTILINE)


def test_errors_are_counted_against_the_original(said, answered):
    words = ["denoise", "noisy.png", "--out", "a.png", "--original", "truth.png", "--noise", 0.1]
    document = answered(*words)
    cut = pixels("a.png") > 0
    assert document["wrong_pixels_before"] == (NOISY != TRUTH).mean()
    assert document["results"][0]["wrong_pixels"] == (cut != TRUTH).mean()
    assert (cut != TRUTH).mean() < (NOISY != TRUTH).mean() / 2
    text = said(*words, "--overwrite")
    assert f"{(NOISY != TRUTH).mean():.3%}" in text and f"{(cut != TRUTH).mean():.3%}" in text


def test_flipped_pixels_are_those_of_the_seed(answered):
    document = answered(
        "denoise", "truth.png", "--out", "a.png", "--flip", 0.2, "--seed", 5, "--compare", "s.png"
    )
    flips = np.random.default_rng(5).random(TRUTH.shape) < 0.2
    assert document["wrong_pixels_before"] == flips.mean()
    assert document["parameters"]["eta"] == pytest.approx(np.log(4) / 2)  # the noise is what flips
    assert [one["method"] for one in document["results"]] == ["icm", "graph_cut", "bp"]
    energies = {one["method"]: one["energy"] for one in document["results"]}
    assert energies["graph_cut"] <= min(energies.values()) + 1e-3
    expected = restored(signs(TRUTH ^ flips), "graph_cut", noise=0.2, progress=False).image
    assert (pixels("a.png") == np.where(expected > 0, 255, 0)).all()


def test_grey_images(said, answered):
    Image.fromarray(np.where(TRUTH, 180, 60).astype(np.uint8)).save("levels.png")
    words = ["denoise", "grainy.png", "--out", "a.png", "--levels", 16, "--noise", 15]
    document = answered(*words, "--original", "levels.png", "--compare", "s.png")
    levels = pixels("grainy.png").astype(float)
    found = restored(levels, "bp", levels=16, noise=15, progress=False)
    assert (pixels("a.png") == found.image.round()).all()
    assert document["results"][0]["energy"] == found.energy
    assert document["parameters"] == {"beta": 1 / 30, "eta": 1 / 450}
    true = np.where(TRUTH, 180.0, 60.0)
    assert document["rms_error_before"] == pytest.approx(np.sqrt(((levels - true) ** 2).mean()))
    after = np.sqrt(((found.image - true) ** 2).mean())
    assert document["results"][0]["rms_error"] == pytest.approx(after)
    assert after < document["rms_error_before"] / 2
    text = said(*words, "--original", "levels.png", "--overwrite")
    assert "; beta 0.03333, eta 0.002222\n" in text and f"{after:.3f}" in text
    # The energy printed is that of the formula in the help.
    x = found.image
    steps = [np.abs(np.diff(x, axis=axis)).clip(max=np.ptp(levels) / 5).sum() for axis in (0, 1)]
    by_hand = ((x - levels) ** 2).sum() / 450 + sum(steps) / 30
    assert document["results"][0]["energy"] == pytest.approx(by_hand)


def test_what_is_not_at_rest_says_so(said, monkeypatch):
    class Restless:
        method, energy, energies, sweeps, seconds = "icm", -1.0, np.array([-1.0]), 1, 0.0
        parameters, converged, rounding = {"h": 0.0, "beta": 1.0, "eta": 1.0}, False, None
        image = signs(NOISY)

    monkeypatch.setattr(graph_denoise, "restored", lambda *_, **__: Restless())
    assert "icm: not at rest after 1 sweeps" in said("denoise", "noisy.png", "--out", "a.png")
    assert {*Restless.__dict__} >= {"image", "method", "energy"} <= {*Denoised.__annotations__}


# What is read -----------------------------------------------------------------------------------


def written(name, light):
    """An image of two tones, in the manner that its name asks for."""
    kind, plain = name.split(".")[0], image(light)
    if kind == "alpha":
        levels = np.zeros((*light.shape, 4), np.uint8)
        levels[..., 3] = np.where(light, 0, 255)  # black, where it is not transparent
        Image.fromarray(levels).save(name)
    elif kind == "deep":
        Image.fromarray(np.where(light, 50000, 1000).astype(np.uint16)).save(name)
    elif kind == "float":
        Image.fromarray(np.where(light, 0.7, -0.1).astype(np.float32)).save(name)
    elif kind == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned to the right by a quarter
        plain.transpose(Image.Transpose.ROTATE_90).save(name, exif=exif, quality=95)
    else:
        plain.convert(kind).save(name)


@pytest.mark.parametrize(
    "name",
    ["1.png", "L.png", "LA.png", "P.png", "P.gif", "RGB.bmp", "RGB.jpg", "RGBA.webp", "CMYK.jpg",
     "CMYK.tif", "LAB.tif", "1.pbm", "L.pgm", "alpha.png", "deep.png", "float.tif", "turned.jpg"],
)  # fmt: skip
def test_any_format_of_the_same_image_is_restored_alike(name, said):
    if name.startswith("LAB"):
        Image.fromarray(np.stack([np.where(NOISY, 255, 0), *[np.full(NOISY.shape, 0)] * 2], -1)
                        .astype(np.uint8), "LAB").save(name)  # fmt: skip
    else:
        written(name, NOISY)
    said("denoise", name, "--out", "clean.png")
    said("denoise", "noisy.png", "--out", "plain.png")
    assert (pixels("clean.png") == pixels("plain.png")).all()


def test_deep_levels_are_stretched_and_their_original_likewise(said, answered):
    deep = (GREY * 100).astype(np.uint16)
    Image.fromarray(deep).save("deep.png")
    Image.fromarray(np.where(TRUTH, 18000, 6000).astype(np.uint16)).save("original.png")
    words = ["denoise", "deep.png", "--out", "a.png", "--levels", 8, "--noise", 20]
    document = answered(*words, "--original", "original.png")
    low, high = int(deep.min()), int(deep.max())
    assert document["stretched"] == [low, high]
    off = (deep.astype(float) - np.where(TRUTH, 18000, 6000)) * 255 / (high - low)
    assert document["rms_error_before"] == pytest.approx(np.sqrt((off**2).mean()))
    text = said("denoise", "deep.png", "--out", "b.png")
    assert f"levels {low} to {high} taken as 0 to 255" in text


def test_the_first_of_several_pictures_is_read_with_a_warning(said):
    rest = [image(TRUTH), image(~TRUTH)]
    image(NOISY).save("moving.gif", save_all=True, append_images=rest)
    said("denoise", "moving.gif", "--out", "a.png", warning="moving.gif holds 3 pictures; the fir")
    said("denoise", "noisy.png", "--out", "b.png")
    assert (pixels("a.png") == pixels("b.png")).all()


@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (1, 2), (3, 2)])
def test_thin_images(shape, said):
    light = np.arange(np.prod(shape)).reshape(shape) % 3 > 0
    image(light).save("thin.png")
    said("denoise", "thin.png", "--out", "a.png", "--compare", "s.png", "--beta", 0)
    assert (pixels("a.png") == np.where(light, 255, 0)).all()  # nothing is smoothed


def test_one_colour_is_taken_as_it_is_where_the_threshold_is_given(said, refused):
    Image.new("L", (1, 1), 200).save("one.png")
    refused(
        "denoise", "one.png", "--out", "a.png", match="the level of all its pixels is 200; give"
    )
    said("denoise", "one.png", "--out", "a.png", "--threshold", 100)
    assert pixels("a.png").tolist() == [[255]]
    said("denoise", "one.png", "--out", "b.png", "--threshold", 200)
    assert pixels("b.png").tolist() == [[0]]
    said("denoise", "one.png", "--out", "c.png", "--levels", 9, "--noise", 5)
    assert pixels("c.png").tolist() == [[200]]


def test_the_threshold_of_otsu_is_the_best_there_is():
    levels = np.random.default_rng(0).integers(0, 256, (9, 9)).astype(float)
    y, threshold = two_levels("a.png", levels, None)

    def between(t):
        light = levels > t
        weight = light.mean() * (1 - light.mean())
        return weight and weight * (levels[light].mean() - levels[~light].mean()) ** 2

    assert between(threshold) == pytest.approx(max(between(t + 0.5) for t in range(255)))
    assert ((y > 0) == (levels > threshold)).all()


def test_broken_images_are_refused_whatever_their_decoder_raises(folder):
    rng = np.random.default_rng(0)
    kinds = ("png", "jpg", "gif", "bmp", "tif", "webp", "pgm", "tga", "sgi", "ico")
    broken = 0
    for kind, place in itertools.product(kinds, range(12)):
        image(NOISY).save(f"whole.{kind}")
        data = bytearray((folder / f"whole.{kind}").read_bytes())
        data[place] = rng.integers(256)
        (folder / f"odd.{kind}").write_bytes(data[: rng.integers(len(data)) if place % 2 else None])
        said = ""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                assert np.isfinite(read_image(f"odd.{kind}").values).all()
            except ValueError as error:
                said = str(error)
        broken += bool(said)
        assert not said or f"odd.{kind}" in said
    assert broken > 30


# What is written --------------------------------------------------------------------------------


def test_the_sheet_has_a_panel_for_each(said, monkeypatch):
    titles = []

    def watched(panels):
        titles.extend(title for title, _ in panels)
        return sheet(panels)

    monkeypatch.setattr(graph_denoise, "sheet", watched)
    said("denoise", "truth.png", "--out", "a.png", "--flip", 0.1, "--compare", "sheet.png",
         "--method", "gibbs")  # fmt: skip
    assert [title.split("\n")[0] for title in titles] == [
        "original", "noisy", "icm", "graph_cut", "bp", "gibbs"
    ]  # fmt: skip
    assert all(re.fullmatch(r"\w+\nenergy -[\d.]+; [\d.]+% wrong", title) for title in titles[2:])
    for kind in ("svg", "pdf"):
        said("denoise", "noisy.png", "--out", f"{kind}.png", "--compare", f"sheet.{kind}")
        assert Path(f"sheet.{kind}").stat().st_size > 1000


@pytest.mark.parametrize("shape", [(60, 400), (400, 60), (3, 4), (1, 300), (300, 1), (700, 700)])
def test_nothing_overlaps_on_the_sheet(shape):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    words = "mean_field\nenergy -1234567.8; 10.123% wrong"
    figure = sheet([(words, np.zeros(shape))] * 6)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [ax.title.get_window_extent(canvas.get_renderer()) for ax in figure.axes]
    boxes += [ax.bbox for ax in figure.axes]
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    assert all(0 <= b.x0 < b.x1 <= figure.bbox.x1 and 0 <= b.y0 < b.y1 <= figure.bbox.y1
               for b in boxes)  # fmt: skip
    assert max(figure.get_size_inches()) < 40


def test_each_panel_shows_its_image():
    chess = np.indices((4, 6)).sum(0) % 2 * 255
    figure = sheet([("a", chess), ("b", 255 - chess)])
    figure.savefig("sheet.png")
    shown = pixels("sheet.png")[..., 0]
    for ax, wanted in zip(figure.axes, (chess, 255 - chess), strict=True):
        box = ax.bbox
        for row, column in np.ndindex(4, 6):
            x = int(box.x0 + (column + 0.5) / 6 * box.width)
            y = int(shown.shape[0] - box.y1 + (row + 0.5) / 4 * box.height)
            assert shown[y, x] == wanted[row, column]


@pytest.mark.parametrize("ending", ["png", "tif", "bmp", "gif", "pgm", "webp", "jpg"])
def test_what_a_format_loses_is_said(ending, said):
    text = said("denoise", "noisy.png", "--out", f"a.{ending}")
    said("denoise", "noisy.png", "--out", "plain.png", "--overwrite")
    with Image.open(f"a.{ending}") as back:
        lost = int((np.array(back.convert("L")) != pixels("plain.png")).sum())
    assert (lost > 0) == (f".{ending} is lossy: {lost} of 768 pixels" in text)
    assert (lost > 0) == ("is lossy" in text)
    assert ending in ("jpg", "webp") or not lost


def test_files_that_are_there_are_kept_unless_they_may_be_replaced(said, refused):
    Path("a.png").write_text("mine")
    refused("denoise", "noisy.png", "--out", "a.png", match="a.png exists: .* --overwrite")
    refused("denoise", "noisy.png", "--out", "b.png", "--compare", "a.png", match="a.png exists")
    said("denoise", "noisy.png", "--out", "a.png", "--overwrite")
    assert pixels("a.png").shape == NOISY.shape
    os.link("noisy.png", "same.png")
    for words, match in (
        (["--out", "noisy.png"], "--out noisy.png is the noisy image itself"),
        (["--out", "same.png"], "--out same.png is the noisy image itself"),
        (["--out", "truth.png", "--original", "truth.png"], "--out truth.png is --original itself"),
        (["--out", "b.png", "--compare", "noisy.png"], "--compare noisy.png is the noisy image"),
        (["--out", "b.png", "--compare", "./b.png"], "is --out as well"),
    ):
        refused("denoise", "noisy.png", *words, "--overwrite", match=match)


def test_an_interrupted_run_leaves_no_half_file(folder):
    image(disc(400, 400)).save("large.png")
    words = ["denoise", "large.png", "--out", "a.png", "--flip", "0.2", "--order", "raster",
             "--method", "icm", "--compare", "s.png"]  # fmt: skip
    code = ("import sys, threading; from ppgen import cli, graph_denoise; "
            "go = graph_denoise.restored; "
            "graph_denoise.restored = lambda *a, **k: (print('now', flush=True), go(*a, **k))[1]; "
            f"sys.exit(cli.main(['graph', *{words!r}]))")  # fmt: skip
    began = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    before = {path.name for path in folder.iterdir()}
    assert began.stdout is not None and began.stdout.readline() == "now\n"
    time.sleep(0.05)
    began.send_signal(signal.SIGINT)
    _, error = began.communicate(timeout=60)
    assert began.returncode == 130 and error.splitlines()[-1] == "interrupted"
    assert {path.name for path in folder.iterdir()} == before


def test_a_failing_write_leaves_what_was_there(capsys, folder, monkeypatch):
    Path("a.png").write_text("mine")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert run("denoise", "noisy.png", "--out", "a.png", "--overwrite") == 1
    assert "No space left" in capsys.readouterr().err
    assert Path("a.png").read_text() == "mine"
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


# What is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["noisy.png"], "required: --out"),
        (["noisy.pgn", "--out", "a.png"], "no file 'noisy.pgn' .*did you mean noisy.png"),
        ([".", "--out", "a.png"], r"\. is a folder: name an image"),
        (["empty.png", "--out", "a.png"], "empty.png is no image"),
        (["text.png", "--out", "a.png"], "text.png is no image"),
        (["cut.png", "--out", "a.png"], "cut.png cannot be read as an image: "),
        (["nan.tif", "--out", "a.png"], "nan.tif holds NaN"),
        (["noisy.png", "--out", "none/a.png"], "no folder 'none' to write 'a.png' in"),
        (["noisy.png", "--out", "."], "is a folder"),
        (["noisy.png", "--out", "a"], "a: expected the ending of an image"),
        (["noisy.png", "--out", "a.pdf"], "a.pdf: expected the ending of an image"),
        (["noisy.png", "--out", "a.ico"], "ICO cannot hold this image .* use .png"),
        (["noisy.png", "--out", "a.png", "--compare", "s.jpg"], "s.jpg: expected .* .svg"),
        (["noisy.png", "--out", "a.png", "--compare", "none/s.png"], "no folder 'none'"),
        (["noisy.png", "--out", "a.png", "--method", "cut"], "'cut'; did you mean graph_cut"),
        (["noisy.png", "--out", "a.png", "--nose", "0.1"], "unknown option --nose; .* --noise"),
        (["noisy.png", "--out", "a.png", "--neighbours", "6"], "--neighbours must be 4 or 8"),
        (["noisy.png", "--out", "a.png", "--order", "raster"], "--order is of icm"),
        (["noisy.png", "--out", "a.png", "--order", "random"], "checkerboard or raster; got"),
        (["noisy.png", "--out", "a.png", "--seed", "-1"], "--seed must be 0 or more"),
        (["noisy.png", "--out", "a.png", "--seed", str(2**63)], "below 2\\^63"),
        (["noisy.png", "--out", "a.png", "--levels", "1"], "from 2 to 256; got 1"),
        (["noisy.png", "--out", "a.png", "--levels", "300"], "from 2 to 256; got 300"),
        (["noisy.png", "--out", "a.png", "--threshold", "nan"], "from 0 to 255; got nan"),
        (["noisy.png", "--out", "a.png", "--threshold", "256"], "from 0 to 255; got 256"),
        (["noisy.png", "--out", "a.png", "--flip", "0.5"], "--flip must be above 0 and below 0.5"),
        (["noisy.png", "--out", "a.png", "--flip", "nan"], "--flip must be above 0 and below 0.5"),
        (["noisy.png", "--out", "a.png", "--flip", "0.1", "--original", "truth.png"], "leave out"),
        (["noisy.png", "--out", "a.png", "--original", "wide.png"],
         "wide.png has 9 x 3 pixels and noisy.png 32 x 24: the original must be of the same size"),
        (["noisy.png", "--out", "a.png", "--original", "flat.png"], "flat.png has no dark and li"),
        (["noisy.png", "--out", "a.png", "--beta", "-1", "--method", "graph_cut"],
         "no cut finds the least energy; use --method bp"),
        (["noisy.png", "--out", "a.png", "--noise", "0.1", "--beta", "1", "--eta", "1"],
         "--noise stands for --beta and --eta"),
        (["grainy.png", "--out", "a.png", "--levels", "9"], "a grey image needs --noise"),
        (["grainy.png", "--out", "a.png", "--levels", "9", "--noise", "9", "--method", "icm"],
         "grey images are restored by bp alone"),
        (["grainy.png", "--out", "a.png", "--levels", "9", "--noise", "9", "--h", "1"],
         "--h is for images of two levels"),
        (["grainy.png", "--out", "a.png", "--levels", "9", "--noise", "9", "--flip", "0.1"],
         "--flip is for images of two levels"),
        (["grainy.png", "--out", "a.png", "--levels", "9", "--noise", "9", "--beta", "-1"],
         "--beta of a grey image must be 0 or more"),
        (["grainy.png", "--out", "a.png", "--levels", "9", "--noise", "9", "--original",
          "deep.png"], "one has 8 bits and the other more"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_a_line(words, match, refused, folder):
    Path("empty.png").touch()
    Path("text.png").write_text("hello\n")
    Path("cut.png").write_bytes(Path("noisy.png").read_bytes()[:100])
    odd = np.where(NOISY, 1.0, 0.0).astype(np.float32)
    odd[3, 3] = np.nan
    Image.fromarray(odd).save("nan.tif")
    Image.new("L", (9, 3), 128).save("wide.png")
    Image.new("L", (32, 24), 128).save("flat.png")
    Image.fromarray(np.where(NOISY, 9000, 7).astype(np.uint16)).save("deep.png")
    refused("denoise", *words, match=match)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e308"])
@pytest.mark.parametrize("option", ["--h", "--beta", "--eta", "--noise"])
def test_numbers_that_are_none_are_refused(option, value, refused):
    words = ["denoise", "noisy.png", "--out", "a.png", f"{option}={value}"]
    refused(*words, match=f"{option} ")
    if option != "--h":
        refused(*words, "--levels", 9, *(["--eta", 1] if option == "--beta" else []), match=option)


@pytest.mark.parametrize("value", ["0", "0.5", "1", "-0.1", "1e-320"])
def test_a_share_of_noise_is_within_its_range(value, refused):
    words = ["denoise", "noisy.png", "--out", "a.png", "--noise", value]
    refused(*words, match="--noise is the share of pixels that were flipped, from 1e-9 to below")


@pytest.mark.parametrize("value", ["0", "-3", "1e-200", "1e200"])
def test_a_standard_deviation_is_within_its_range(value, refused):
    words = ["denoise", "grainy.png", "--out", "a.png", "--levels", 9, "--noise", value]
    refused(*words, match="--noise of a grey image is a standard deviation")


@pytest.mark.parametrize("beta", [-1e6, -1e-300, 0, 1e-300, 1e6])
@pytest.mark.parametrize("method", [None, "icm", "bp", "mean_field"])
def test_extreme_parameters_give_finite_numbers(method, beta, answered):
    chosen = [] if method is None else ["--method", method]
    document = answered("denoise", "noisy.png", "--out", "a.png", *chosen, f"--beta={beta}")
    assert document["parameters"]["beta"] == beta
    assert np.isfinite(document["results"][0]["energies"]).all()
    assert {*np.unique(pixels("a.png"))} <= {0, 255}


def test_the_help_teaches(said):
    text = said("denoise", "--help")
    words = " ".join(text.split())
    assert "E(x, y) = h sum x_i - beta sum x_i x_j over neighbours - eta sum x_i y_i" in words
    assert ", ".join(METHODS[:-1]) in words
    image(TRUTH).convert("RGB").save("photo.jpg")
    Image.fromarray(GREY.clip(0, 255).astype(np.uint8)).save("grainy.jpg")
    for example in re.findall(r"^  ppgen graph (.+)$", text, re.MULTILINE):
        said(*shlex.split(example), "--overwrite")


def test_help_needs_no_torch():
    code = """
import sys
from ppgen import cli
cli.main(["graph", "denoise", "--help"])
print(sorted({"torch", "pgmpy", "matplotlib", "PIL", "pandas"} & {*sys.modules}))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert found.stdout.endswith("\n[]\n"), found.stdout[-200:] + found.stderr


def test_standard_output_may_be_closed():
    code = "import sys; from ppgen import cli; sys.exit(cli.main(sys.argv[1:]))"
    words = ["graph", "show", "asia", "--draw", "a.png"]
    shell = f"{shlex.join([sys.executable, '-c', code, *words])} >&-"
    found = subprocess.run(
        ["sh", "-c", shell], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True
    )
    assert (found.returncode, found.stderr) == (0, b"")
    assert pixels("a.png").std() > 1


# Factor graphs of libDAI ------------------------------------------------------------------------


@pytest.fixture
def grid(folder):
    """A field on 3 x 3 variables; 0 and 8 are opposite corners."""
    pairs = [(3 * i + j, 3 * i + j + 3) for i in range(2) for j in range(3)]
    pairs += [(3 * i + j, 3 * i + j + 1) for i in range(3) for j in range(2)]
    save([(pair, TABLE) for pair in pairs] + [((0,), np.array([1.0, 4.0]))], "grid.fg")
    return read("grid.fg").graph()


def test_a_field_is_shown_asked_and_sampled(grid, said, answered):
    assert "grid: a Markov network of 9 variables and 12 edges" in said("show", "grid.fg")
    assert answered("show", "grid.fg", "--variable", 4)["neighbours"] == [
        str(v) for v in grid.neighbors(4)
    ]
    assert sorted(answered("blanket", "grid.fg", 4)["blanket"]) == ["1", "3", "5", "7"]
    tables = read("grid.fg")
    weights = {}
    for states in itertools.product((0, 1), repeat=9):
        if states[8] == 1:
            weights[states] = np.prod([t[tuple(states[v] for v in s)] for s, t in tables.factors])
    total = sum(weights.values())
    document = answered("query", "grid.fg", "--evidence", "8=1", "--targets", 0)
    share = sum(w for states, w in weights.items() if states[0] == 1) / total
    assert document["posteriors"]["0"]["1"] == pytest.approx(share)
    assert document["log_evidence"] == pytest.approx(np.log(total))
    text = said("query", "grid.fg", "--evidence", "8=1", "--mpe")
    best = np.log(max(weights.values()))
    assert f"log product {best:.6f} nats: of the tables, not normalised" in text
    rows = said("sample", "grid.fg", "--n", 50, "--evidence", "8=1").splitlines()
    assert rows[0] == "0,1,2,3,4,5,6,7,8" and len(rows) == 51
    assert {row[-1] for row in rows[1:]} == {"1"}


def test_a_field_without_a_possible_state_is_refused_before_any_output(refused):
    never = [np.array([1.0, 0.0]), np.array([0.0, 1.0])]
    save([((0,), table) for table in never], "never.fg")
    for words in (["query"], ["sample", "--n", 3], ["sample", "--n", 3, "--json"]):
        refused(words[0], "never.fg", *words[1:], match="no assignment is possible")


@pytest.mark.parametrize("given", [[], [4], [1, 3], [1, 4], [2, 4, 6], [5, 7]])
def test_separation_in_a_field(given, grid, said, answered):
    words = ["separate", "grid.fg", 0, 8, *(["--given", *given] if given else [])]
    document = answered(*words, "--draw", "why.png")
    left = grid.subgraph(set(grid) - set(given))
    assert document["separated"] is not nx.has_path(left, 0, 8)
    assert document["directed"] is False and not document["more_trails"]
    paths = {tuple(map(str, path)) for path in nx.all_simple_paths(grid, 0, 8)}
    assert {tuple(trail["nodes"]) for trail in document["trails"]} == paths
    for trail in document["trails"]:
        cut = [v for v in trail["nodes"] if int(v) in given]
        assert trail["blocked_by"] == cut and trail["open"] is not bool(cut)
        assert {*trail["arrows"]} == {"-"}
    assert pixels("why.png").std() > 1
    text = said(*words)
    answer = "is separated" if document["separated"] else "is not separated"
    assert text.startswith(f"0 {answer} from 8 given {', '.join(map(str, given)) or 'nothing'}\n")
    assert text.count("(open)") == sum(trail["open"] for trail in document["trails"])


def test_separation_in_a_field_lists_no_more_trails_than_asked(grid, said, refused):
    text = said("separate", "grid.fg", "0,2", 8, "--given", 4, "--max-trails", 2)
    assert "There are more trails than the 2 listed" in text
    refused("separate", "grid.fg", 0, 9, match="no variable '9'; known: 0, 1, 2")
    refused("separate", "grid.fg", 0, "0,1", match="no node in common; both hold 0")
    refused("separate", "grid.fg", 0, 8, "--max-trails", 0, match="--max-trails must be 1 or more")


def test_the_factor_graph_is_drawn_on_request(grid, said, answered, refused, monkeypatch):
    from graphs.pictures import drawing

    drawn = []
    whole = drawing.draw
    monkeypatch.setattr(
        drawing, "draw", lambda graph, **how: drawn.append(graph) or whole(graph, **how)
    )
    said("draw", "grid.fg", "--out", "plain.png")
    words = ["draw", "grid.fg", "--factors", "--observed", 4, "--highlight", 0]
    assert answered(*words, "--out", "factors.png")["factors"] is True
    said("draw", "asia", "--out", "asia.png", "--factors")
    assert nx.utils.graphs_equal(nx.Graph(drawn[0].edges), nx.Graph(grid.edges))
    assert [len(graph.factors) for graph in drawn[1:]] == [13, 8]
    assert pixels("plain.png").shape != pixels("factors.png").shape
    refused("draw", "asia", "--out", "a.png", "--factors", "--blanket", "lung",
            match="--blanket is of the network itself")  # fmt: skip
    refused("draw", "grid.fg", "--out", "a.png", "--blanket", 4, match="--blanket is of directed")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "line 1: the file ends where the number of factors"),
        ("1\n\n2\n0 1\n2 2\n1\n", "it is cut short"),
        ("1\n\n1\n0\n2\n1\n0 -1\n", "entry 0 of factor 0 must be finite and not negative"),
        ("hello\n", "line 1: "),
    ],
)
def test_a_broken_field_is_refused_with_its_line(text, match, refused):
    Path("odd.fg").write_text(text)
    for words in (["show"], ["separate", 0, 1], ["blanket", 0], ["query"], ["sample", "--n", 1],
                  ["draw", "--out", "a.png", "--factors"]):  # fmt: skip
        refused(words[0], "odd.fg", *words[1:], match=rf"odd.fg: .*{match}")
