"""Data sources: what is read is what was written, splits are shares, errors name the culprit."""

import gzip
import random
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from ppgen.data import SOURCES, Dataset, load_data

PACKAGED = {"mnist": (4000, 500, 500), "digits": (1437, 180, 180)}
TOYS = {"moons": 2, "rings": 3, "pinwheel": 5}


def splits(data):
    return data.train, data.validation, data.test


def rows(split):
    return {bytes(x.numpy().tobytes()) for x in split.stored}


def idx_bytes(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_idx(folder, *, n=60, labels=True, mark="-", zipped=False):
    """A small MNIST: n training images and 12 test images of 5x4, image i filled with level i."""
    folder.mkdir(exist_ok=True)
    for part, count in (("train", n), ("t10k", 12)):
        x = np.arange(count, dtype=np.uint8)[:, None, None] + np.zeros((count, 5, 4), np.uint8)
        files = {f"{part}-images{mark}idx3-ubyte": x}
        if labels:
            files[f"{part}-labels{mark}idx1-ubyte"] = np.arange(count, dtype=np.uint8) % 3
        for name, array in files.items():
            raw = idx_bytes(array)
            path = folder / (name + ".gz" * zipped)
            path.write_bytes(gzip.compress(raw) if zipped else raw)
    return f"idx:{folder}"


def write_image(path, level=100, mode="RGB", size=(12, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    color = level if mode == "L" else (level, 0, 255 - level)
    Image.new(mode, size, color).save(path)


def write_folder(folder, n=10, classes=("cat", "dog"), mode="RGB", suffix="png", start=0):
    for k, name in enumerate(classes):
        for i in range(n):
            write_image(folder / name / f"{i}.{suffix}", start + 100 * k + i, mode)
    return f"folder:{folder}"


# Sources


@pytest.mark.parametrize("source", PACKAGED)
def test_packaged_digits(source):
    data = load_data(source)
    assert tuple(map(len, splits(data))) == PACKAGED[source]
    assert data.size == PACKAGED[source][0]
    assert data.shape == {"mnist": (1, 28, 28), "digits": (1, 8, 8)}[source]
    assert data.levels == {"mnist": 256, "digits": 17}[source]
    assert data.classes == tuple("0123456789") and data.num_classes == 10
    assert data.condition_names == ("y",)
    assert data.arguments == {"source": source, "binarize": "none", "size": None, "seed": 0}
    for split in splits(data):
        x, y = split.batch(slice(None))
        assert x.dtype == torch.float32 and y.dtype == torch.int64
        assert x.shape == (len(split), *data.shape)
        grid = x * (data.levels - 1)
        assert torch.equal(grid, grid.round())
        assert x.min() == 0 and x.max() == 1
        # Every class has its share, to within the one example that rounding may move.
        whole = sum(s.conditions[0].bincount(minlength=10) for s in splits(data))
        share = whole * len(split) / sum(map(len, splits(data)))
        assert ((y.bincount(minlength=10) - share).abs() <= 1.5).all()


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    theirs = {(row.astype(np.uint8).tobytes(), int(k)) for row, k in zip(x, y, strict=True)}
    data = load_data("digits")
    ours = {
        (image.numpy().tobytes(), int(k))
        for split in splits(data)
        for image, k in zip(split.stored, split.conditions[0], strict=True)
    }
    assert ours == theirs


def test_mnist_labels_belong_to_their_images():
    # Nearest class mean gets 80 % of MNIST right, and a tenth if labels are misplaced.
    x, y = load_data("mnist").train.batch(slice(None))
    z, label = load_data("mnist").test.batch(slice(None))
    means = torch.stack([x[y == k].mean(0) for k in range(10)]).flatten(1)
    right = torch.cdist(z.flatten(1), means).argmin(1) == label
    assert 0.75 < right.float().mean() < 0.9


@pytest.mark.parametrize("source", TOYS)
def test_toys(source):
    data = load_data(source)
    assert tuple(map(len, splits(data))) == (8000, 1000, 1000)
    assert data.shape == (2,) and data.levels is None and data.num_classes == TOYS[source]
    x, y = data.train.batch(slice(None))
    assert x.dtype == torch.float32 and y.unique().numel() == TOYS[source]
    assert x.mean(0).abs().max() < 0.1 and 0.5 < x.std() < 1.2 and x.abs().max() < 3
    radius = x.norm(dim=1)
    if source == "rings":
        assert ((radius - 0.5 * (y + 1)).abs() < 0.3).all()
    elif source == "pinwheel":
        assert 0.9 < radius.mean() < 1.1


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("mark", ["-", "."])
def test_idx(tmp_path, mark, zipped):
    data = load_data(write_idx(tmp_path / "kana", mark=mark, zipped=zipped))
    assert tuple(map(len, splits(data))) == (55, 5, 12)  # a twelfth of train validates
    assert data.name == "kana" and data.shape == (1, 5, 4) and data.classes == ("0", "1", "2")
    for split in splits(data):
        levels, y = split.stored[:, 0, 0, 0], split.conditions[0]
        assert torch.equal(split.stored, levels[:, None, None, None].expand(-1, 1, 5, 4))
        assert torch.equal(levels.long() % 3, y)
    assert data.test.stored[:, 0, 0, 0].tolist() == list(range(12))  # the test file's own order
    assert not rows(data.train) & rows(data.validation)


def test_idx_without_labels(tmp_path):
    data = load_data(write_idx(tmp_path, labels=False))
    assert data.classes is None and data.num_classes is None and data.condition_names == ()
    assert len(data.train.batch(slice(0, 3))) == 1


def test_idx_plain_content_under_a_gz_name(tmp_path):
    source = write_idx(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    path.rename(path.with_suffix(".gz"))
    assert len(load_data(source).train) == 55


def test_folder_in_one_piece(tmp_path):
    data = load_data(write_folder(tmp_path / "pets"), size=6)
    assert tuple(map(len, splits(data))) == (16, 2, 2)
    assert data.name == "pets" and data.shape == (3, 6, 6) and data.levels == 256
    assert data.classes == ("cat", "dog")
    for split in splits(data):
        level, y = split.stored[:, 0, 0, 0], split.conditions[0]
        assert torch.equal((level >= 100).long(), y)
        assert torch.equal(split.stored[:, 2, 3, 3], 255 - level)
        assert sorted(y.unique().tolist()) == [0, 1]
    assert load_data(f"folder:{tmp_path / 'pets'}").shape == (3, 64, 64)


@pytest.mark.parametrize("validation", [None, "validation", "val"])
def test_folder_with_splits(tmp_path, validation):
    write_folder(tmp_path / "train")
    write_folder(tmp_path / "test", n=3, start=50)
    if validation:
        write_folder(tmp_path / validation, n=4, start=30)
    data = load_data(f"folder:{tmp_path}", size=4)
    assert tuple(map(len, splits(data))) == ((20, 8, 6) if validation else (18, 2, 6))
    assert sorted(data.test.stored[:, 0, 0, 0].tolist()) == [50, 51, 52, 150, 151, 152]
    assert torch.equal((data.test.stored[:, 0, 0, 0] >= 100).long(), data.test.conditions[0])


def test_folder_with_train_only_splits_off_the_test(tmp_path):
    write_folder(tmp_path / "train")
    data = load_data(f"folder:{tmp_path}", size=4)
    assert tuple(map(len, splits(data))) == (16, 2, 2) and data.classes == ("cat", "dog")


def test_folder_without_classes(tmp_path):
    for i in range(10):
        write_image(tmp_path / f"{i}.png", i)
    data = load_data(f"folder:{tmp_path}", size=4)
    assert data.classes is None and len(data.train) == 8


def test_folder_grey_has_one_channel_unless_one_is_colored(tmp_path):
    source = write_folder(tmp_path, mode="L")
    grey = load_data(source, size=4)
    assert grey.shape == (1, 4, 4)
    write_image(tmp_path / "cat" / "red.png", 200)
    mixed = load_data(source, size=4)
    assert mixed.shape == (3, 4, 4)
    pixel = mixed.train.stored[:, :, 0, 0]
    assert (pixel == pixel[:, :1]).all(1).sum() >= len(pixel) - 1


def test_folder_skips_other_files(tmp_path):
    source = write_folder(tmp_path)
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "cat" / "._0.png").write_text("left by a Mac")
    write_image(tmp_path / "cat" / ".ipynb_checkpoints" / "0.png")
    write_image(tmp_path / "cat" / "deeper" / "0.PNG")
    assert sum(map(len, splits(load_data(source, size=4)))) == 21


@pytest.mark.parametrize("suffix", ["jpg", "bmp", "gif", "webp", "tiff", "ppm"])
def test_folder_formats(tmp_path, suffix):
    data = load_data(write_folder(tmp_path, n=3, suffix=suffix), size=4)
    level = data.train.stored[:, 0].float().mean((1, 2))
    wanted = 100.0 * data.train.conditions[0] + 1
    assert ((level - wanted).abs() < 12).all()  # JPEG and WebP lose a little


def test_folder_special_pixels(tmp_path):
    """The crop is central; transparent is white; 16 bits keep their range; EXIF turns."""
    band = np.zeros((4, 12, 3), np.uint8)
    band[:, 4:8] = 255
    clear = np.zeros((4, 4, 4), np.uint8)
    deep = np.full((4, 4), 65535, np.uint16)
    turned = np.zeros((4, 4, 3), np.uint8)
    turned[:2] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    for name, array in {"a": band, "b": clear, "c": deep}.items():
        (tmp_path / name).mkdir()
        for i in range(4):
            Image.fromarray(array).save(tmp_path / name / f"{i}.png")
    (tmp_path / "d").mkdir()
    for i in range(4):
        Image.fromarray(turned).save(tmp_path / "d" / f"{i}.png", exif=exif)
    x, y = load_data(f"folder:{tmp_path}", size=4).train.batch(slice(None))
    assert (x[y < 3] == 1).all() and y.bincount().min() > 0
    assert (x[y == 3][:, :, :2] == 0).all() and (x[y == 3][:, :, 2:] == 1).all()


def test_npz(tmp_path):
    level = np.arange(40, dtype=np.uint8)
    y = level % 4
    x = np.broadcast_to(level[:, None, None], (40, 5, 4))
    color = np.broadcast_to(level[:, None, None, None], (40, 5, 4, 3)) + np.uint8([0, 50, 100])
    path = tmp_path / "small.npz"

    np.savez(path, x=x, y=y)
    data = load_data(f"npz:{path}")
    assert tuple(map(len, splits(data))) == (32, 4, 4) and data.name == "small"
    assert data.shape == (1, 5, 4) and data.levels == 256 and data.num_classes == 4
    for split in splits(data):
        assert torch.equal(split.stored[:, 0, 2, 2].long() % 4, split.conditions[0])

    np.savez_compressed(path, x_train=color, y_train=y[:, None], x_test=color[:7], y_test=y[:7])
    data = load_data(f"npz:{path}")  # as CIFAR-10 has its labels: (n, 1)
    assert tuple(map(len, splits(data))) == (36, 4, 7) and data.shape == (3, 5, 4)
    assert (data.test.stored[5, :, 0, 0] == torch.tensor([5, 55, 105])).all()
    assert load_data(f"npz:{path}", size=3).shape == (3, 3, 3)

    np.savez(path, x_train=color.transpose(0, 3, 1, 2), x_validation=color[:3], x_test=color[:2])
    data = load_data(f"npz:{path}")
    assert tuple(map(len, splits(data))) == (40, 3, 2) and data.classes is None

    np.savez(path, x=x > 20)
    data = load_data(f"npz:{path}", size=3)
    assert data.levels == 2 and set(data.train.stored.unique().tolist()) == {0, 1}

    reals = np.random.default_rng(0).normal(size=(40, 3)).astype(">f8")
    np.savez(path, x=reals, extra=np.array([object()]))  # what is not asked for is not opened
    data = load_data(f"npz:{path}")
    assert data.levels is None and data.shape == (3,)
    both = torch.cat([s.batch(slice(None))[0] for s in splits(data)])
    assert torch.equal(both.sort(0).values, torch.from_numpy(reals.astype("f4")).sort(0).values)


def test_size_resizes_the_center_square():
    data = load_data("digits", size=4)
    assert data.shape == (1, 4, 4) and data.levels == 17
    x = data.train.batch(slice(None))[0]
    assert torch.equal(x * 16, (x * 16).round()) and x.max() <= 1
    whole = load_data("digits").train.batch(slice(None))[0]
    other = torch.nn.functional.interpolate(whole, (4, 4), mode="bilinear", antialias=True)
    # Pillow rounds to levels after each of the two axes: half a level and half a level.
    assert (x - other).abs().max() < 1.01 / 16 and (x - other).abs().mean() < 0.02


def test_sources_are_listed():
    names = {"mnist", "digits", "idx:DIR", "folder:DIR", "npz:FILE", *TOYS}
    names |= {"pairs:DIR", "halves:DIR"}
    assert set(SOURCES) == names and all(SOURCES.values())


def test_arguments_remake_the_data(tmp_path, monkeypatch):
    write_folder(tmp_path / "pets")
    monkeypatch.chdir(tmp_path)
    data = load_data("folder:pets", size=4, binarize="static", seed=3)
    monkeypatch.chdir("/")
    again = load_data(**data.arguments)
    for a, b in zip(splits(data), splits(again), strict=True):
        assert torch.equal(a.stored, b.stored) and torch.equal(a.conditions[0], b.conditions[0])


# Binarisation


def test_threshold():
    grey, data = load_data("digits"), load_data("digits", binarize="threshold")
    assert data.levels == 2
    for a, b in zip(splits(grey), splits(data), strict=True):
        assert torch.equal(b.batch(slice(None))[0], (a.batch(slice(None))[0] >= 0.5).float())


def test_threshold_at_half_of_an_odd_maximum():
    # 127/255 < 1/2 <= 128/255
    data = load_data("mnist", binarize="threshold")
    grey = load_data("mnist")
    assert torch.equal(data.test.stored, (grey.test.stored > 127).byte())


def test_static_is_drawn_once():
    grey = load_data("mnist")
    first, again = (load_data("mnist", binarize="static") for _ in range(2))
    other = load_data("mnist", binarize="static", seed=1)
    for a, b, g in zip(splits(first), splits(again), splits(grey), strict=True):
        assert torch.equal(a.stored, b.stored)
        x, p = a.batch(slice(None))[0], g.batch(slice(None))[0]
        assert set(x.unique().tolist()) == {0.0, 1.0}
        assert torch.equal(x[p == 0], p[p == 0]) and torch.equal(x[p == 1], p[p == 1])
        # The sum over pixels of x - p has variance sum p (1 - p): five deviations is never.
        assert (x - p).sum().abs() < 5 * (p * (1 - p)).sum().sqrt()
        assert not torch.equal(x, (p >= 0.5).float())
    assert torch.equal(first.test.batch(slice(0, 9))[0], first.test.batch(slice(0, 9))[0])
    assert not torch.equal(first.test.stored, other.test.stored)


def test_dynamic_draws_each_batch_afresh():
    torch.manual_seed(0)
    grey, data = load_data("digits"), load_data("digits", binarize="dynamic")
    static = load_data("digits", binarize="static")
    assert data.levels == 2 and "afresh" in repr(data)
    index = torch.arange(20)
    p = grey.train.batch(index)[0]
    draws = torch.stack([data.train.batch(index)[0] for _ in range(1000)])
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(draws[0], draws[1])
    error = (draws.mean(0) - p) / (p * (1 - p) / 1000).sqrt().clamp_min(1e-6)
    assert error.abs().max() < 5 and 0.9 < error[(p > 0) & (p < 1)].std() < 1.1
    torch.manual_seed(7)
    a = data.train.batch(index)[0]
    torch.manual_seed(7)
    assert torch.equal(a, data.train.batch(index)[0])
    for split, once in ((data.validation, static.validation), (data.test, static.test)):
        assert torch.equal(split.batch(slice(None))[0], split.batch(slice(None))[0])
        assert torch.equal(split.stored, once.stored)


# Splits and batches


@pytest.mark.parametrize("source", [*PACKAGED, "moons"])
def test_splits_are_disjoint_and_reproducible(source):
    data, again, other = load_data(source), load_data(source), load_data(source, seed=1)
    for a, b in zip(splits(data), splits(again), strict=True):
        assert torch.equal(a.stored, b.stored) and torch.equal(a.conditions[0], b.conditions[0])
    assert not torch.equal(data.test.stored, other.test.stored)
    train, validation, test = map(rows, splits(data))
    assert not (train & validation or train & test or validation & test)
    assert len(train | validation | test) == sum(map(len, splits(data)))


def test_splits_off_only_what_is_missing():
    x = torch.arange(50.0)[:, None]
    data = Dataset.from_tensors(x, test=x + 100)
    assert tuple(map(len, splits(data))) == (45, 5, 50)
    assert torch.equal(data.test.stored, x + 100)
    both = torch.cat([data.train.stored, data.validation.stored])
    assert torch.equal(both.sort(0).values, x)
    assert tuple(map(len, splits(Dataset.from_tensors(x, x[:3], x[:4])))) == (50, 3, 4)
    assert tuple(map(len, splits(Dataset.from_tensors(x[:3])))) == (1, 1, 1)


def test_no_global_generator_is_touched(tmp_path):
    sources = [*PACKAGED, *TOYS, write_idx(tmp_path / "idx"), write_folder(tmp_path / "folder")]
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    for source in sources:
        for binarize in ("none",) if source in TOYS else ("static", "dynamic"):
            load_data(source, binarize=binarize).test.batch(slice(0, 2))
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()
    assert before[2] == random.getstate()


def test_batch_by_slice_and_index():
    x = torch.arange(11 * 6, dtype=torch.uint8).reshape(11, 1, 2, 3)
    y = torch.arange(11)
    split = Dataset.from_tensors((x, y), (x, y), (x, y), levels=256).train
    index = torch.tensor([3, 0, 10, 3])
    a, labels = split.batch(index)
    assert torch.equal(a, x[index].float() / 255) and torch.equal(labels, index)
    for s in (slice(0, 4), slice(8, 20), slice(None), slice(0, 0), slice(1, None, 3)):
        a, labels = split.batch(s)
        assert a.dtype == torch.float32
        assert torch.equal(a, x[s].float() / 255) and torch.equal(labels, y[s])
    assert [len(split.batch(i)[0]) for i in torch.arange(11).split(4)] == [4, 4, 3]


def test_batches_are_copies():
    data = load_data("moons")
    before = data.train.stored.clone(), data.train.conditions[0].clone()
    for index in (slice(0, 5), torch.arange(5)):
        x, y = data.train.batch(index)
        x.zero_()
        y.zero_()
    assert torch.equal(data.train.stored, before[0])
    assert torch.equal(data.train.conditions[0], before[1])


@pytest.mark.parametrize("levels", [2, 3, 17, 100, 256])
def test_levels_as_integers_and_as_floats_are_the_same(levels):
    k = torch.arange(levels).repeat(2)[:, None]
    parts = [Dataset.from_tensors(x, x, x, levels=levels) for x in (
        k, k.byte(), k / (levels - 1), (k / (levels - 1)).double(), k.numpy(),
        k.numpy() / (levels - 1),
    )]  # fmt: skip
    for data in parts:
        assert data.levels == levels and data.train.stored.dtype == torch.uint8
        x = data.train.batch(slice(None))[0]
        assert torch.equal(x, k.float() / (levels - 1)) and x.max() == 1
        assert torch.equal((x * (levels - 1)).round(), k.float())


def test_to_and_repr():
    data = load_data("digits", binarize="dynamic")
    there = data.to("meta")
    for split in splits(there):
        assert split.stored.is_meta and split.conditions[0].is_meta
    assert there.train.dynamic and there.classes == data.classes and not data.train.stored.is_meta
    there = data.to("cpu")
    assert torch.equal(there.test.batch(slice(0, 5))[0], data.test.batch(slice(0, 5))[0])
    text = repr(load_data("digits"))
    for part in ("digits", "1,437", "180", "(1, 8, 8)", "17 levels", "10 classes"):
        assert part in text
    assert "\n" not in text and "reals" in repr(load_data("moons"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_batches_on_cuda_equal_those_on_the_cpu():
    for levels in (2, 17, 100, 256):
        k = torch.arange(levels)[:, None]
        data = Dataset.from_tensors(k, k, k, levels=levels)
        x = data.to("cuda").train.batch(torch.arange(levels))[0]
        assert x.is_cuda and torch.equal(x.cpu(), data.train.batch(slice(None))[0])


def test_import_is_cheap():
    code = (
        "import sys, ppgen.data; print([m for m in ('sklearn','PIL','rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = "import sys, torch; print([m for m in ('sklearn','PIL','rich') if m in sys.modules])"
    bare = subprocess.run(
        [sys.executable, "-c", loaded], capture_output=True, text=True, check=True
    )
    assert done.stdout == bare.stdout


# Errors


def refuses(kind, *parts, call):
    """``call`` raises ``kind`` in one line that holds all ``parts``."""
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    for part in parts:
        assert str(part) in text, text


@pytest.mark.parametrize(
    ("arguments", "kind", "parts"),
    [
        ({"source": "mnst"}, ValueError, ["'mnst'", "did you mean mnist", *SOURCES]),
        ({"source": "zebra"}, ValueError, ["'zebra'", *SOURCES]),
        ({"source": "idx"}, ValueError, ["'idx'", "idx:DIR"]),
        ({"source": "idx:"}, ValueError, ["idx:DIR"]),
        ({"source": "mnist:"}, ValueError, ["'mnist:'", "expected mnist"]),
        ({"source": "mnist:here"}, ValueError, ["'mnist:here'"]),
        ({"source": 3}, TypeError, ["int", "'mnist'"]),
        ({"binarize": "dynamc"}, ValueError, ["'dynamc'", "did you mean dynamic", "threshold"]),
        ({"binarize": None}, ValueError, ["None", "threshold"]),
        ({"size": 0}, ValueError, ["size is 0"]),
        ({"size": 2.5}, ValueError, ["2.5"]),
        ({"size": True}, ValueError, ["True"]),
        ({"seed": -1}, ValueError, ["seed is -1"]),
        ({"source": "moons", "size": 8}, ValueError, ["size=8", "moons"]),
        ({"source": "rings", "binarize": "static"}, ValueError, ["'static'", "rings", "reals"]),
    ],
)
def test_bad_arguments(arguments, kind, parts):
    refuses(kind, *parts, call=lambda: load_data(**arguments))


X = torch.zeros(20, 2)
K = torch.zeros(20, 1, 2, 2, dtype=torch.uint8)


def changed(x, value, at):
    x = x.clone()
    x[at] = value
    return x


@pytest.mark.parametrize(
    ("train", "options", "kind", "parts"),
    [
        (changed(X, float("nan"), (3, 1)), {}, ValueError, ["1 value", "(3, 1)", "not finite"]),
        (changed(X, float("inf"), 4), {"levels": 2}, ValueError, ["2 values", "(4, 0)"]),
        (X.double() + 1e300, {}, ValueError, ["beyond float32"]),
        ("text", {}, TypeError, ["train", "str"]),
        ((X, X, X), {}, TypeError, ["tuple of 3"]),
        (np.array([["a"], ["b"]]), {}, TypeError, ["<U1"]),
        (X.to(torch.complex64), {}, TypeError, ["complex64"]),
        (K, {}, TypeError, ["uint8", "levels=", "256"]),
        (X[:, 0], {}, ValueError, ["(20,)", "(n, *shape)"]),
        (X[:0], {}, ValueError, ["train is empty", "(0, 2)"]),
        (X[:2], {}, ValueError, ["train has 2 examples", "validation and test"]),
        (changed(K, 5, 7), {"levels": 5}, ValueError, ["4 values", "(7, 0, 0, 0), 5", "0 to 4"]),
        (K.int() - 1, {"levels": 5}, ValueError, ["80 values", "-1"]),
        (changed(X, 1.5, (2, 0)), {"levels": 5}, ValueError, ["(2, 0), 1.5", "[0, 1]"]),
        (changed(X, 0.3, (2, 0)), {"levels": 5}, ValueError, ["(2, 0), 0.3", "k / 4", "None"]),
        (K, {"levels": 1}, ValueError, ["levels is 1", "2 to 256"]),
        (K, {"levels": 257}, ValueError, ["257"]),
        (K, {"levels": 2.0}, ValueError, ["2.0"]),
        ((X, torch.zeros(20)), {}, TypeError, ["labels of train", "float32"]),
        ((X, torch.arange(20) - 1), {}, ValueError, ["labels of train", "(0,), -1"]),
        ((X, torch.arange(19)), {}, ValueError, ["(19,)", "20 examples"]),
        ((X, torch.zeros(20, 1).long()), {}, ValueError, ["(20, 1)", "expected (20,)"]),
        ((X, torch.arange(20) + 10**9), {}, ValueError, ["1,000,000,019", "number them"]),
        ((X, torch.arange(20)), {"classes": ["a", "b"]}, ValueError, ["19", "2 classes"]),
        ((X, torch.arange(20)), {"classes": "abc"}, TypeError, ["'abc'"]),
        (X, {"classes": ["a", "b"]}, ValueError, ["no labels"]),
        (X, {"test": X[:, :1]}, ValueError, ["test", "(1,)", "train", "(2,)"]),
        (X, {"validation": X[:0]}, ValueError, ["validation is empty"]),
        (X, {"test": (X, torch.arange(20))}, ValueError, ["test has labels", "train has none"]),
        ((X, torch.arange(20)), {"test": X}, ValueError, ["train has labels", "test has none"]),
        (X, {"seed": 1.5}, ValueError, ["seed is 1.5"]),
        (None, {}, TypeError, ["train is NoneType"]),
    ],
)
def test_bad_tensors(train, options, kind, parts):
    refuses(kind, *parts, call=lambda: Dataset.from_tensors(train, **options))


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (lambda raw: raw[:-1], ["1,199 bytes", "(60, 5, 4)", "1,200", "truncated"]),
        (lambda raw: raw + b"!", ["1,201 bytes", "too long"]),
        (lambda raw: raw[:10], ["16-byte IDX header"]),
        (lambda raw: b"", ["starts with 0x,", "0x00000803"]),
        (lambda raw: b"\0\0\x08\x01" + raw[4:], ["0x00000801", "0x00000803", "3 dimensions"]),
        (lambda raw: gzip.compress(raw)[:-20], ["gzip", "truncated"]),
        (lambda raw: b"\x1f\x8b nothing of the kind", ["gzip"]),
        (lambda raw: idx_bytes(np.zeros((0, 5, 4), np.uint8)), ["empty", "(0, 5, 4)"]),
        (lambda raw: struct.pack(">4B3I", 0, 0, 8, 3, *[2**32 - 1] * 3), ["truncated"]),
    ],
)
def test_damaged_idx(tmp_path, damage, parts):
    source = write_idx(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    refuses(ValueError, path, *parts, call=lambda: load_data(source))


def test_idx_files_that_do_not_belong_together(tmp_path):
    source = write_idx(tmp_path)
    path = tmp_path / "t10k-labels-idx1-ubyte"
    path.write_bytes(idx_bytes(np.zeros(11, np.uint8)))
    refuses(ValueError, path, "11 labels", "12 images", call=lambda: load_data(source))
    path.unlink()
    refuses(ValueError, "test has none", call=lambda: load_data(source))
    (tmp_path / "t10k-images-idx3-ubyte").unlink()
    refuses(FileNotFoundError, "t10k-images-idx3-ubyte", call=lambda: load_data(source))
    gone = tmp_path / "gone"
    refuses(FileNotFoundError, gone, "idx:DIR", call=lambda: load_data(f"idx:{gone}"))


@pytest.mark.parametrize("damage", [lambda raw: raw[:45], lambda raw: b"no image", lambda raw: b""])
def test_broken_image_is_named(tmp_path, damage):
    source = write_folder(tmp_path)
    path = tmp_path / "dog" / "4.png"
    path.write_bytes(damage(path.read_bytes()))
    refuses(ValueError, path, "cannot be read as an image", call=lambda: load_data(source))


def test_bad_folders(tmp_path):
    gone, file, empty = tmp_path / "gone", tmp_path / "file", tmp_path / "empty"
    file.write_text("x")
    empty.mkdir()
    refuses(FileNotFoundError, gone, "missing", call=lambda: load_data(f"folder:{gone}"))
    refuses(FileNotFoundError, file, "a file", call=lambda: load_data(f"folder:{file}"))
    refuses(ValueError, empty, "no images", ".png", call=lambda: load_data(f"folder:{empty}"))

    mixed = tmp_path / "mixed"
    source = write_folder(mixed)
    write_image(mixed / "loose.png")
    refuses(ValueError, mixed, "1 images beside", "20 more", call=lambda: load_data(source))

    split = tmp_path / "split"
    write_folder(split / "train")
    write_folder(split / "test", classes=("cat", "emu"))
    source = f"folder:{split}"
    refuses(ValueError, "test", "emu", "cat, dog", call=lambda: load_data(source))
    (split / "val").mkdir()
    refuses(ValueError, split / "val", "no images", call=lambda: load_data(source))
    (split / "validation").mkdir()
    refuses(ValueError, "both validation and val", call=lambda: load_data(source))

    uneven = tmp_path / "uneven"
    write_folder(uneven / "train")
    write_image(uneven / "test" / "0.png")
    refuses(ValueError, "train", "none in test", call=lambda: load_data(f"folder:{uneven}"))


class Trap:
    """Unpickling this would be noticed."""

    def __reduce__(self):
        return (pytest.fail, ("the pickle was opened",))


def test_bad_npz(tmp_path):
    path = tmp_path / "data.npz"
    source = f"npz:{path}"

    def refused(kind, *parts, **arrays):
        np.savez(path, **arrays)
        refuses(kind, path, *parts, call=lambda: load_data(source))

    refuses(FileNotFoundError, path, "npz:FILE", call=lambda: load_data(source))
    path.write_bytes(b"PK no archive")
    refuses(ValueError, path, "not an .npz", call=lambda: load_data(source))
    refused(ValueError, "Python objects", "run any code", x=np.array([Trap()], dtype=object))
    x = np.zeros((20, 4, 4), np.uint8)
    refused(ValueError, "images", "x_train", images=x)
    refused(ValueError, "nothing")
    refused(TypeError, "int64", "uint8", x=x.astype(np.int64))
    refused(TypeError, "float32, uint8", x_train=x, x_test=x.astype(np.float32))
    refused(ValueError, "(20, 16)", "(n, H, W, C)", x=x.reshape(20, 16))
    refused(ValueError, "(20, 4, 4, 2)", x=np.stack([x, x], axis=3))
    np.savez(path, x=x.astype(np.float32))
    refuses(ValueError, "size=8", path, call=lambda: load_data(source, size=8))
    np.savez(path, x=x, y=np.zeros(19, int))
    refuses(ValueError, "(19,)", "20 examples", call=lambda: load_data(source))
    np.savez(path, x=x)
    raw = bytearray(path.read_bytes())
    raw[200] ^= 1
    path.write_bytes(raw)
    refuses(ValueError, path, "cannot be read", call=lambda: load_data(source))


def test_missing_package_says_which(monkeypatch):
    monkeypatch.setattr("ppgen.images.find_spec", lambda name: None)
    refuses(FileNotFoundError, "pip install scikit-learn", call=lambda: load_data("digits"))


def test_slow_reading_shows_progress(monkeypatch):
    from ppgen import images

    clock = iter(range(100))
    monkeypatch.setattr(images.time, "perf_counter", lambda: float(next(clock)))
    assert list(images.with_progress(iter(range(9)), 9)) == list(range(9))
