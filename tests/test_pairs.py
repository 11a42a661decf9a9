"""Pairs of pictures: the drawing of lines, the sources that make pairs, images as conditions."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from ppgen import VAE, images, pairs
from ppgen.data import Dataset, load_data
from ppgen.loading import build, check_fit, data_info, template
from ppgen.pair_pictures import pair_rows, preview
from ppgen.pairs import sketch


def picture(seed, height=12, width=12, colour=True):
    """A random picture of large soft shapes, as the pixels of a file."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    pixels = np.array(coarse.resize((width, height), Image.Resampling.BICUBIC))
    return pixels if colour else pixels[..., 0]


def write(folder, count=10, start=0, **options):
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(start, start + count):
        Image.fromarray(picture(k, **options)).save(folder / f"{k}.png")


def splits(data):
    return data.train, data.validation, data.test


# The drawing


def blurred(grey, sigma):
    """A Gaussian blur by its definition: a weighted sum, beyond the edge of the nearest."""
    reach = int(4 * sigma + 0.5)
    offsets = range(-reach, reach + 1)
    weights = np.exp([-(k**2) / (2 * sigma**2) for k in offsets])
    weights /= weights.sum()
    out = grey
    for axis in (0, 1):
        indices = np.arange(grey.shape[axis])
        shifted = [out.take((indices + k).clip(0, len(indices) - 1), axis) for k in offsets]
        out = sum(w * s for w, s in zip(weights, shifted, strict=True))
    return out


def test_a_sketch_is_its_formula():
    image = picture(0, 10, 14).transpose(2, 0, 1) / 255
    grey = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
    d = blurred(grey, 0.6) - blurred(grey, 0.96)
    wanted = np.empty_like(d)
    for i, j in np.ndindex(d.shape):
        u = d[i, j] / (np.sqrt((d**2).mean()) + 0.004)
        wanted[i, j] = 1 if u >= -0.25 else 1 + np.tanh(0.7 * (u + 0.25))
    found = sketch(image)
    assert found.shape == (1, 10, 14) and found.dtype == np.float32
    np.testing.assert_allclose(found[0], wanted, atol=1e-6)
    assert wanted.min() < 0.7  # there is something to draw


def test_a_sketch_shows_lines_and_leaves_grounds_white():
    paper = np.full((1, 20, 20), 0.5, np.float32)
    assert (sketch(paper) == 1).all() and (sketch(paper * 0) == 1).all()
    inked = paper.copy()
    inked[:, :, 10] = 0.1
    found = sketch(inked)[0]
    assert (found[:, 10] < 0.2).all()
    assert (found[:, :8] == 1).all() and (found[:, 13:] == 1).all()
    # Fainter ink on a paper of its own is drawn as well, and noise that nobody sees is not.
    faint = sketch(0.5 + 0.2 * (inked - 0.5))[0]
    assert (faint[:, 10] < 0.3).all()
    noise = np.random.default_rng(0).uniform(0.499, 0.501, (1, 20, 20))
    assert sketch(noise).min() > 0.85


def test_a_sketch_is_the_same_in_every_kind_of_array():
    x = np.stack([picture(k).transpose(2, 0, 1) for k in range(6)])
    found = sketch(x)
    assert found.dtype == np.uint8 and found.shape == (6, 1, 12, 12)
    for k in range(6):
        np.testing.assert_array_equal(sketch(x[k]), found[k])  # alone as among others
    np.testing.assert_array_equal(
        sketch(x.reshape(2, 3, 3, 12, 12)), found.reshape(2, 3, 1, 12, 12)
    )
    tensor = sketch(torch.from_numpy(x))
    assert isinstance(tensor, torch.Tensor) and np.array_equal(tensor.numpy(), found)
    floats = sketch(torch.from_numpy(x).float() / 255)
    assert floats.dtype == torch.float32
    assert (floats * 255 - tensor).abs().max() <= 0.5 + 1e-3
    grey = x[:, :1]
    np.testing.assert_array_equal(sketch(grey), sketch(np.repeat(grey, 3, 1)))


@pytest.mark.parametrize(
    ("image", "kind", "match"),
    [
        ([[1.0]], TypeError, "image is list: expected a tensor or array"),
        (np.zeros((1, 4, 4), np.int64), TypeError, "image is int64"),
        (np.zeros((4, 4)), ValueError, r"shape \(4, 4\): expected \(..., C, H, W\)"),
        (np.zeros((2, 4, 4)), ValueError, "C = 1 or 3"),
        (torch.full((1, 4, 4), 200.0), ValueError, r"from 200 to 200: expected floats in \[0, 1\]"),
        (torch.full((1, 4, 4), float("nan")), ValueError, "nan"),
    ],
)
def test_what_cannot_be_sketched(image, kind, match):
    with pytest.raises(kind, match=match):
        sketch(image)


# Sources


@pytest.mark.parametrize("colour", [True, False])
def test_every_picture_comes_with_its_own_sketch(tmp_path, colour):
    write(tmp_path, 20, colour=colour)
    data = load_data(f"pairs:{tmp_path}", size=8)
    assert data.shape == (3 if colour else 1, 8, 8) and data.levels == 256
    assert data.classes is None and data.num_classes is None
    assert data.condition_names == ("sketch",) and data.condition_shapes == ((1, 8, 8),)
    assert tuple(map(len, splits(data))) == (16, 2, 2)
    assert "each with its sketch (1, 8, 8)" in repr(data)
    for split in splits(data):
        (stored,) = split.conditions
        assert stored.dtype == torch.uint8 and torch.equal(stored, sketch(split.stored))
        x, condition = split.batch(slice(None))
        assert condition.dtype == torch.float32 and torch.equal(condition * 255, stored.float())
        assert (condition - sketch(x)).abs().max() <= 0.5 / 255 + 1e-5
    # Otherwise it is the folder: the same pictures in the same order.
    folder = load_data(f"folder:{tmp_path}", size=8)
    for mine, other in zip(splits(data), splits(folder), strict=True):
        assert torch.equal(mine.stored, other.stored)
    assert data.arguments == {"source": f"pairs:{tmp_path}", "binarize": "none", "size": 8,
                              "seed": 0}  # fmt: skip


def test_pairs_keep_given_splits_and_take_class_folders(tmp_path):
    for k, name in enumerate(("landscape", "figure")):
        write(tmp_path / "train" / name, 10, 20 * k)
        write(tmp_path / "test" / name, 3, 20 * k + 10)
    data = load_data(f"pairs:{tmp_path}", size=12)
    assert tuple(map(len, splits(data))) == (18, 2, 6) and data.classes is None
    wanted = {picture(k).transpose(2, 0, 1).tobytes() for k in (10, 11, 12, 30, 31, 32)}
    assert {x.numpy().tobytes() for x in data.test.stored} == wanted
    assert torch.equal(data.test.conditions[0], sketch(data.test.stored))


def test_pairs_repeat_under_a_seed(tmp_path):
    write(tmp_path, 20)
    state = torch.get_rng_state()
    first, again, other = (load_data(f"pairs:{tmp_path}", size=8, seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    for mine, its in zip(splits(first), splits(again), strict=True):
        assert torch.equal(mine.stored, its.stored)
        assert torch.equal(mine.conditions[0], its.conditions[0])
    assert not torch.equal(first.train.stored, other.train.stored)


@pytest.mark.parametrize("width", [24, 25])
def test_halves_are_the_left_given_the_right_made(tmp_path, width):
    """The left half is the condition, the right one x; a column in the middle belongs to none."""
    half = width // 2
    for k in range(10):
        pixels = np.full((12, width, 3), 255, np.uint8)
        pixels[:, :half], pixels[:, -half:] = (k, 0, 0), (0, 0, 200 + k)
        Image.fromarray(pixels).save(tmp_path / f"{k}.png")
    data = load_data(f"halves:{tmp_path}", size=12)
    assert data.condition_names == ("left",) and data.condition_shapes == ((3, 12, 12),)
    for split in splits(data):
        x, left = split.stored, split.conditions[0]
        assert (x == x[:, :, :1, :1]).all() and (left == left[:, :, :1, :1]).all()
        assert torch.equal(x[:, 2, 0, 0], left[:, 0, 0, 0] + 200)
        assert (x[:, :2] == 0).all() and (left[:, 1:] == 0).all()


def test_halves_of_one_picture_are_refused(tmp_path):
    write(tmp_path, 4)
    with pytest.raises(
        ValueError, match=r"\d.png .* it is 12x12: expected two pict.* side by side"
    ):
        load_data(f"halves:{tmp_path}")


@pytest.mark.parametrize("source", ["pairs", "halves"])
def test_missing_folders_are_named(tmp_path, source):
    with pytest.raises(FileNotFoundError, match=f"is missing: {source}:DIR needs a folder"):
        load_data(f"{source}:{tmp_path / 'none'}")
    with pytest.raises(ValueError, match="holds no images"):
        load_data(f"{source}:{tmp_path}")


def test_slow_drawing_shows_progress(tmp_path, monkeypatch):
    write(tmp_path, 5)
    seen = []

    def watched(results, total, title):
        seen.append((total, title))
        return images.with_progress(results, total, title=title)

    monkeypatch.setattr(pairs, "with_progress", watched)
    load_data(f"pairs:{tmp_path}", size=8)
    assert seen == [(5, "drawing sketches")]


def test_binarizing_leaves_the_sketches(tmp_path):
    write(tmp_path, 10)
    plain, binary = (
        load_data(f"pairs:{tmp_path}", size=8, binarize=how) for how in ("none", "threshold")
    )
    assert set(binary.train.stored.unique().tolist()) == {0, 1}
    assert torch.equal(plain.train.conditions[0], binary.train.conditions[0])
    assert torch.equal(plain.train.batch(slice(3))[1], binary.train.batch(slice(3))[1])


# Images as conditions


def given(n=12, seed=0, dtype=torch.uint8):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (n, 3, 8, 8), generator=generator, dtype=torch.uint8)
    condition = x[:, :1] // 2
    return x, condition if dtype == torch.uint8 else condition.to(dtype) / 255


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_tensors_in_pairs(dtype):
    x, condition = given(dtype=dtype)
    data = Dataset.from_tensors((x, condition), levels=256, condition="mask")
    assert data.condition_names == ("mask",) and data.condition_shapes == ((1, 8, 8),)
    assert data.classes is None and tuple(map(len, splits(data))) == (8, 2, 2)
    for split in splits(data):
        made, beside = split.batch(slice(None))
        assert beside.dtype == torch.float32
        levels = (made * 255).round().to(torch.uint8)[:, :1] // 2
        assert torch.equal((beside * 255).round().to(torch.uint8), levels)
    three = Dataset.from_tensors(
        (x, condition), (x[:3], condition[:3]), (x[:4], condition[:4]), levels=256, condition="mask"
    )
    assert tuple(map(len, splits(three))) == (12, 3, 4)
    one, two = (Dataset.from_tensors((x, condition), levels=256, condition="m", seed=s)
                for s in (0, 1))  # fmt: skip
    assert not torch.equal(one.train.stored, two.train.stored)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_batches_of_images_are_copies(dtype):
    x, condition = given(dtype=dtype)
    data = Dataset.from_tensors((x, condition), levels=256, condition="mask")
    before = data.train.conditions[0].clone()
    for index in (slice(0, 3), torch.tensor([0, 1, 2])):
        batch = data.train.batch(index)
        assert torch.equal(batch[1], data.train.batch(slice(0, 3))[1])
        batch[1].fill_(0.5)
        assert torch.equal(data.train.conditions[0], before)
    moved = data.to("cpu")
    assert torch.equal(moved.train.batch(slice(None))[1], data.train.batch(slice(None))[1])
    assert moved.train.conditions[0].device == moved.train.stored.device


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_images_on_cuda_equal_those_on_the_cpu():
    x, condition = given()
    data = Dataset.from_tensors((x, condition), levels=256, condition="mask")
    there = data.to("cuda").train.batch(slice(None))[1]
    assert there.is_cuda and torch.equal(there.cpu(), data.train.batch(slice(None))[1])


X, CONDITION = given()


@pytest.mark.parametrize(
    ("train", "options", "kind", "match"),
    [
        ((X, CONDITION), {}, ValueError, r"labels of train have shape \(12, 1, 8, 8\)"),
        ((X, CONDITION[:5]), {"condition": "mask"}, ValueError, r"mask of train .* 12 examples"),
        ((X, CONDITION[:, 0]), {"condition": "mask"}, ValueError, r"expected \(12, C, H, W\)"),
        ((X, CONDITION.long()), {"condition": "mask"}, TypeError, "dtype torch.int64: expected ui"),
        ((X, CONDITION.float()), {"condition": "mask"}, ValueError, r"outside \[0, 1\]"),
        ((X, CONDITION / 0.0), {"condition": "mask"}, ValueError, r"outside \[0, 1\]"),
        (X, {"condition": "mask"}, ValueError, "named 'mask', but there is none"),
        ((X, CONDITION), {"condition": ""}, TypeError, "condition is '': expected a name"),
        ((X, CONDITION), {"condition": 3}, TypeError, "condition is 3: expected a name"),
        ((X, CONDITION), {"condition": "m", "classes": ["a"]}, ValueError, "no labels"),
        ((X, CONDITION), {"condition": "m", "test": X}, ValueError, "train has .*'m', but test"),
        ((X, CONDITION), {"condition": "m", "test": (X, CONDITION[:, :, :4])}, ValueError,
         r"test has the condition 'm' of shape \(1, 4, 8\), but train of shape \(1, 8, 8\)"),
    ],
)  # fmt: skip
def test_bad_pairs(train, options, kind, match):
    with pytest.raises(kind, match=match):
        Dataset.from_tensors(train, levels=256, **options)


def test_a_run_knows_the_shapes_of_its_conditions(tmp_path):
    x, condition = given()
    data = Dataset.from_tensors((x, condition), levels=256, condition="mask")
    info = json.loads(json.dumps(data_info(data)))  # as it is written and read
    zeros = template(info, 4)
    assert [t.shape for t in zeros] == [(4, 3, 8, 8), (4, 1, 8, 8)]
    assert all(t.dtype == torch.float32 and not t.any() for t in zeros)
    labelled = data_info(load_data("digits"))
    for found in (labelled, {k: v for k, v in labelled.items() if k != "condition_shapes"}):
        x, y = template(found, 3)  # runs written before images could be conditions say names alone
        assert y.shape == (3,) and y.dtype == torch.int64 and x.shape == (3, 1, 8, 8)


class Conditional(VAE):
    """A stranger's program of an image given an image."""

    def __init__(self, shape, *, condition_shape=None, levels=None):
        super().__init__(shape, levels=levels, latent_dim=2, hidden=(4,))
        self.condition_shape = condition_shape


def test_the_shape_of_a_condition_is_filled_in():
    x, condition = given()
    data = Dataset.from_tensors((x, condition), levels=256, condition="mask")
    info = data_info(data)
    for arguments in ({}, {"condition_shape": None}):  # left out, or left open on a command line
        program = build(Conditional, arguments, info)
        assert program.condition_shape == (1, 8, 8)
    check_fit(program, data)
    assert build(Conditional, {"condition_shape": [2, 8, 8]}, info).condition_shape == [2, 8, 8]
    assert build(Conditional, {}, data_info(load_data("digits"))).condition_shape is None


def test_data_without_the_images_that_a_program_needs_are_refused():
    digits = load_data("digits")
    program = Conditional((1, 8, 8), condition_shape=(1, 8, 8), levels=17)
    with pytest.raises(ValueError, match=r"images of shape \(1, 8, 8\) and .* digits has none"):
        check_fit(program, digits)
    x, condition = given()
    data = Dataset.from_tensors((x, condition), levels=256, condition="mask")
    program = Conditional((3, 8, 8), condition_shape=(3, 8, 8), levels=256)
    with pytest.raises(ValueError, match=r"shape \(3, 8, 8\) and .* has images of shape \(1, 8, 8"):
        check_fit(program, data)


def test_a_model_without_conditions_ignores_them(tmp_path):
    from ppgen import fit, load

    x, condition = given(40)
    paired = Dataset.from_tensors((x, condition), levels=256, condition="mask")
    alone = Dataset.from_tensors(x, levels=256)
    found = []
    for name, data in (("paired", paired), ("alone", alone)):
        torch.manual_seed(0)
        program = VAE((3, 8, 8), levels=256, latent_dim=2, hidden=(8,))
        check_fit(program, data)
        run = fit(program, data, out=tmp_path / name, steps=4, batch_size=8, progress=False)
        found.append([row["loss"] for row in run.metrics])
        assert list((tmp_path / name / "samples").iterdir())
    assert found[0] == found[1]
    loaded = load(tmp_path / "paired")
    assert torch.equal(loaded.sample(2, mean=True)[0, 0, :0], torch.empty(0, 8))


# Pictures


def test_pairs_stand_below_each_other():
    import io

    first = torch.stack([torch.full((1, 40, 40), k / 10) for k in range(5)])
    second = torch.zeros(5, 3, 40, 40)
    second[:, 0] = 1
    sheet = np.array(Image.open(io.BytesIO(pair_rows({"a": first, "b": second}, 3))))
    right = sheet[:, -3 * 42 - 2 :]  # without the names of the rows
    tops = [22, 64, 22 + 2 * 42 + 8, 64 + 2 * 42 + 8]  # the middles; a gap parts the lines
    levels = [[right[top, 22 + 42 * k].tolist() for k in range(3)] for top in tops]
    grey = [[round(25.5 * k)] * 3 for k in range(5)]
    assert levels[0] == grey[:3] and levels[2] == [*grey[3:], [224] * 3]
    assert levels[1] == [[255, 0, 0]] * 3 and levels[3] == [[255, 0, 0]] * 2 + [[224] * 3]


def test_a_preview_shows_both():
    x, condition = given(60)
    data = Dataset.from_tensors((x, condition), levels=256, condition="mask")
    shown = data.train.batch(slice(0, 50))
    assert preview(data) == pair_rows({"mask": shown[1], "x": shown[0]})
    from ppgen import plots

    digits = load_data("digits")
    assert preview(digits) == plots.samples(digits.train.batch(slice(0, 100))[0])
    reals = Dataset.from_tensors(torch.randn(20, 2, 2, 2, 2))
    assert preview(reals) is None
