"""The images of `ppgen graph denoise`: read from any format, cut into two levels, written."""

import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from graphs.names import unknown

from .graph_rows import new_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

SIDE = 4.2  # inches of the longer side of an image on a sheet
NARROW = 2.7  # inches that two lines of words need
DOTS = 150  # of a sheet, an inch


@dataclass(frozen=True, eq=False)
class Levels:
    """The levels of an image in its file's own unit, and which of them count as 0 and 255."""

    values: np.ndarray
    """(H, W), float64, finite."""
    low: float
    high: float
    deep: bool
    """More than 8 bits: low and high are then the least and the greatest level there is."""

    def between(self, low: float, high: float) -> np.ndarray:
        """The levels on a scale on which low is 0 and high is 255."""
        return (self.values - low) * (255.0 / (high - low) if high > low else 0.0)


def read_image(path: str) -> Levels:
    """The levels of a picture: colours become grey, what is transparent becomes white.

    Of several pictures in a file the first is read, with a warning.

    Raises:
        FileNotFoundError: no such file; near matches are named.
        ValueError: a folder, not an image, a broken one, or one with NaN or infinity in it.
    """
    from PIL import Image, UnidentifiedImageError

    place = Path(path)
    if place.is_dir():
        raise ValueError(f"{path} is a folder: name an image")
    if not place.exists():
        there = [p.name for p in place.parent.iterdir()] if place.parent.is_dir() else []
        folder = "this folder" if place.parent == Path() else str(place.parent)
        raise FileNotFoundError(unknown("file", place.name, there, folder))
    try:
        with Image.open(place) as file:
            pictures = getattr(file, "n_frames", 1)
            values, deep = _levels(file)
    except UnidentifiedImageError:
        raise ValueError(f"{path} is no image of a format that Pillow reads") from None
    except (PermissionError, MemoryError):
        raise
    except Exception as error:  # decoders raise whatever a broken file leads them to
        said = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} cannot be read as an image: {said}") from error
    if pictures > 1:
        warnings.warn(f"{path} holds {pictures} pictures; the first is read", stacklevel=2)
    if not values.size:
        raise ValueError(f"{path} has no pixels")
    low, high = (float(values.min()), float(values.max())) if deep else (0.0, 255.0)
    if not math.isfinite(high - low):
        raise ValueError(f"{path} holds NaN, infinity or levels too far apart; give finite levels")
    return Levels(values, low, high, deep)


def _levels(file: "Image") -> tuple[np.ndarray, bool]:
    """The levels as they are, and whether they have more than 8 bits."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(file)
    if image.mode[0] in "IF":
        return np.array(image, dtype=np.float64), True
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode in ("LAB", "HSV"):
        image = image.convert("RGB")
    return np.array(image.convert("L"), dtype=np.float64), False


def two_levels(path: str, image: np.ndarray, threshold: float | None) -> tuple[np.ndarray, float]:
    """-1 where an image is dark and +1 where it is light, and the level that parts them.

    Of an image of two levels that is their mean; else, where none is given, the threshold that
    parts dark from light with the largest variance between them (Otsu 1979, IEEE SMC 9).

    Raises:
        ValueError: the image has one level, and no threshold says whether that is dark or light.
    """
    if threshold is None:
        if image.min() == image.max():
            raise ValueError(
                f"{path} has no dark and light to tell apart: the level of all its pixels is "
                f"{image.min():g}; give --threshold to take it as it is, or another image"
            )
        counts = np.bincount(image.round().astype(np.int64).ravel(), minlength=256)
        levels = np.arange(256.0)
        below, mass = counts.cumsum()[:-1], (counts * levels).cumsum()
        above = image.size - below
        with np.errstate(divide="ignore", invalid="ignore"):
            apart = mass[:-1] / below - (mass[-1] - mass[:-1]) / above
            between = np.nan_to_num(below * above * apart**2)
        best = np.flatnonzero(between == between.max())
        threshold = float(best.mean() + 0.5)  # between levels; amid a gap that has none
    return np.where(image > threshold, 1, -1).astype(np.int8), threshold


# Written ----------------------------------------------------------------------------------------


def image_file(path: str, overwrite: bool) -> Path:
    """The image to write, refused before any work where it cannot be.

    Raises:
        ValueError: no ending of an image, or a file that is there.
        FileNotFoundError: no folder to write in.
    """
    out = new_file(path, overwrite)
    if _kind(out) is None:
        raise ValueError(f"{out}: expected the ending of an image, such as .png or .tif")
    return out


def encoded(pixels: np.ndarray, out: Path) -> tuple[bytes, int]:
    """The bytes of an image file for pixels of 0 to 255, and how many pixels they change.

    Raises:
        ValueError: the format cannot hold the image.
    """
    from PIL import Image

    file = io.BytesIO()
    kind = _kind(out)
    try:
        Image.fromarray(pixels).save(file, format=kind)
        with Image.open(file) as back:
            if back.size != pixels.shape[::-1]:
                raise ValueError(f"its size would become {back.size[0]} x {back.size[1]}")
            lost = int((np.array(back.convert("L")) != pixels).sum())
    except (OSError, ValueError) as error:
        raise ValueError(f"{out}: {kind} cannot hold this image ({error}); use .png") from None
    return file.getvalue(), lost


def _kind(path: Path) -> str | None:
    """Pillow's name of a format that it writes and reads back, by a file's ending."""
    from PIL import Image

    kind = Image.registered_extensions().get(path.suffix.lower())
    return kind if kind in Image.SAVE and kind in Image.OPEN else None


# Shown ------------------------------------------------------------------------------------------


def sheet(panels: Sequence[tuple[str, np.ndarray]]) -> "Figure":
    """Images of one size, levels 0 to 255, side by side under their titles of up to two lines."""
    from matplotlib.figure import Figure

    high, wide = panels[0][1].shape
    # A pixel of an image gets one of the sheet, up to twice the usual size; words grow with it.
    size = min(max(1.0, max(high, wide) / (SIDE * DOTS)), 2.0)
    inch = SIDE * size / max(high, wide)
    across, down = max(wide * inch, 0.15 * size), max(high * inch, 0.15 * size)
    gap, words = 0.2 * size, 0.42 * size
    cell_across, cell_down = max(across, NARROW * size) + gap, down + words + gap

    def odd(columns: int) -> float:
        """How far a sheet is from 3 to 2, and how much of it is empty."""
        rows = math.ceil(len(panels) / columns)
        empty = columns * rows - len(panels)
        return abs(math.log(columns * cell_across / (rows * cell_down) / 1.5)) + 0.2 * empty

    columns = min(range(1, len(panels) + 1), key=odd)
    total = (columns * cell_across + gap, math.ceil(len(panels) / columns) * cell_down + gap)
    figure = Figure(figsize=total, dpi=DOTS)
    smooth = max(high, wide) * inch * DOTS < max(high, wide)
    for place, (title, image) in enumerate(panels):
        row, column = divmod(place, columns)
        left = gap + column * cell_across + (cell_across - gap - across) / 2
        bottom = total[1] - (row + 1) * cell_down
        ax = figure.add_axes(
            (left / total[0], bottom / total[1], across / total[0], down / total[1])
        )
        ax.imshow(image, cmap="gray", vmin=0, vmax=255, aspect="auto",
                  interpolation="antialiased" if smooth else "nearest")  # fmt: skip
        ax.set_title(title, fontsize=9 * size, pad=4 * size)
        ax.set_xticks([])
        ax.set_yticks([])
        for side in ax.spines.values():
            side.set_linewidth(0.5)
            side.set_color("0.6")
    return figure
