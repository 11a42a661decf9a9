"""A comparison as a picture: a panel a group, a row a run, and samples beside it."""

import io
import math
import textwrap
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from os.path import commonpath, dirname
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .charts import COLOURS, FAINT, GREY, INK, drawn, legible, new_figure, plain_text
from .comparison_panel import columns_of, score_panel
from .comparison_records import Group, Row
from .comparison_text import with_error
from .plots import image_grid, is_picture
from .processes import find_device
from .program import draw
from .progress import WaitingBar
from .run import Run
from .seeding import seeded

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .comparison import Comparison

# Inches.
NAMES, VALUES, TILE, MARGIN = 1.9, 3.6, 0.46, 0.15
ROW, HEAD, AXIS, FOOT, NOTE = 0.66, 0.62, 0.52, 0.36, 0.2
GAP = 0.55  # before the scores
LINE = 24  # characters of a name that fit beside the values
DIM = "#6b7078"
_SIGNS = {"exact": ("=", "="), "bound": ("≥", "≤"), "estimate": ("≈", "≈")}  # nats, bits/dim


_WHAT = {
    frozenset({True}): "means of p(x | latents)",
    frozenset({False}): "draws of x",
    frozenset({True, False}): "means of p(x | latents); draws of x where a model has none",
}  # above the samples


@dataclass(frozen=True)
class _Strip:
    """Samples of a run in one line, or why there are none."""

    pixels: Any
    labels: Sequence[str]
    reason: str = ""
    means: bool = True


def draw_comparison(
    comparison: "Comparison", samples: int, seed: int, device: str, progress: bool
) -> bytes:
    """The picture as a PNG; see `Comparison.picture`.

    Raises:
        ValueError: samples < 1, no such device.
    """
    if samples < 1:
        raise ValueError(f"samples must be 1 or more; got {samples}")
    place = find_device(device)
    strips: dict[str, _Strip] = {}
    with WaitingBar("drawing samples", len(comparison.runs), progress) as bar:
        for k, (name, run) in enumerate(comparison.runs.items()):
            bar.at(k)
            if is_picture(run.shape):
                strips[name] = _strip(run, samples, seed, place)
    names = _short([name for name in comparison.runs])
    models = dict.fromkeys(row.model for row in comparison.rows)
    colours = {model: COLOURS[k % len(COLOURS)] for k, model in enumerate(models)}
    heights = [HEAD + ROW * len(_shown(group)) + AXIS for group in comparison.groups]
    columns = columns_of(comparison.groups)
    scores = GAP + sum(columns.values()) + MARGIN if columns else 0.0
    left = MARGIN + NAMES + VALUES + MARGIN + scores
    width = left + (samples * TILE + MARGIN if strips else 0)
    height = sum(heights) + FOOT + (NOTE if len(heights) > 1 else 0)
    figure, grid = new_figure(width, height, len(heights), 3)
    figure.set_layout_engine("none")
    top = height
    for k, (group, high) in enumerate(zip(comparison.groups, heights, strict=True)):
        panel, table, strip = grid[3 * k : 3 * k + 3]
        _panel(figure, panel, group, top, names, colours)
        rows = _shown(group)
        long = ROW * len(rows)
        box = (left - scores + GAP, top - HEAD - long, max(scores - GAP - MARGIN, 0.01), long)
        score_panel(figure, table, rows, columns, box, ROW)
        _strips(figure, strip, group, top, left, strips, samples)
        top -= high
    likelihoods = (row.likelihood for group in comparison.groups for row in _shown(group))
    kinds = {likelihood.kind for likelihood in likelihoods if likelihood is not None}
    _foot(figure, len(heights), kinds, bool(columns))
    return drawn(figure)


# Samples


def _strip(run: Run, count: int, seed: int, device: torch.device) -> _Strip:
    """`count` pictures of a run: the means given the latents, of the classes in turn."""
    program: Any = run.program
    classes = getattr(program, "num_classes", None)
    labels = () if classes is None else (torch.arange(count, device=device) % classes,)
    names = run.info["data"].get("classes") or []
    home = next((part.device for part in program.parameters()), device)
    try:
        program.to(device)
        means = True
        with seeded(seed, device):
            try:
                x = draw(program, count, *labels, shape=run.shape, mean=True)
            except NotImplementedError:  # a distribution without a mean
                means = False
                x = draw(program, count, *labels, shape=run.shape)
    except (ValueError, TypeError, RuntimeError, AttributeError) as error:  # a stranger's
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return _Strip(None, (), f"no samples ({reason[:60]})")
    finally:
        program.to(home)
    words = [] if not labels else [str(k) for k in labels[0].tolist()]
    known = len(names) >= (classes or 0)
    shown = [str(names[int(k)]) if known else k for k in words]
    return _Strip(_pixels(x), shown, means=means)


def _pixels(x: Tensor) -> Any:
    """The pictures side by side, as an array of pixels."""
    import numpy as np
    from PIL import Image

    scale = max(1, math.ceil(160 / x.shape[-1]))  # beyond the resolution: shrunk, not blurred
    sheet = image_grid(x, columns=len(x), pad=6, scale=scale)
    return np.asarray(Image.open(io.BytesIO(sheet)).convert("RGB"))


def _strips(
    figure: "Figure",
    axes: "Axes",
    group: Group,
    top: float,
    left: float,
    strips: dict[str, _Strip],
    count: int,
) -> None:
    """The samples of a panel's runs, each beside its row."""
    axes.set_axis_off()
    width, height = figure.get_size_inches()
    rows = _shown(group)
    wide = count * TILE
    bottom = top - HEAD - ROW * len(rows)
    axes.set_position((left / width, bottom / height, wide / width, ROW * len(rows) / height))
    axes.set_xlim(0, wide)
    axes.set_ylim(ROW * len(rows), 0)  # inches, down from the first row
    drawn = [strips[row.run] for row in rows if row.main and row.run in strips]
    kinds = {strip.means for strip in drawn if strip.pixels is not None}
    if kinds:
        axes.text(0, -0.07, _WHAT[frozenset(kinds)], color=DIM, fontsize=7, va="bottom")
    for k, row in enumerate(rows):
        strip = strips.get(row.run)
        if strip is None or not row.main:
            continue
        middle = ROW * (k + 0.5)
        if strip.pixels is None:
            axes.text(0, middle, _text(strip.reason), color=DIM, fontsize=8,
                      va="center")  # fmt: skip
            continue
        high, long = strip.pixels.shape[:2]
        size = min(wide / long, 0.8 * ROW / high)
        down = middle + (0.06 if strip.labels else 0.0)
        axes.imshow(strip.pixels, extent=(0, size * long, down + size * high / 2,
                    down - size * high / 2), aspect="auto")  # fmt: skip
        for place, label in enumerate(strip.labels):
            across = (place + 0.5) * size * long / len(strip.labels)
            text = _text(label if len(label) <= 7 else f"{label[:6]}…")
            axes.text(across, down - size * high / 2 - 0.02, text, color=DIM, fontsize=7,
                      ha="center", va="bottom")  # fmt: skip
    axes.set_xlim(0, wide)
    axes.set_ylim(ROW * len(rows), 0)


# Values


def _shown(group: Group) -> list[Row]:
    """The rows of a panel: the runs, and what else is of the same space."""
    return [row for row in group.rows if row.main or row.space == group.space]


def _panel(
    figure: "Figure",
    axes: "Axes",
    group: Group,
    top: float,
    names: dict[str, str],
    colours: dict[str, str],
) -> None:
    """The values of a group from left to right, a run a line."""
    width, height = figure.get_size_inches()
    rows, space = _shown(group), group.space
    bottom = top - HEAD - ROW * len(rows)
    axes.set_position(((MARGIN + NAMES) / width, bottom / height, VALUES / width,
                       ROW * len(rows) / height))  # fmt: skip
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    for k in range(len(rows)):
        axes.axhline(k, color=FAINT, lw=0.8, zorder=0)
    bits = space.levels is not None
    found = [_interval(row) for row in rows]
    points = [point for point in found if point is not None]
    _limits(axes, points)
    for k, (row, point) in enumerate(zip(rows, found, strict=True)):
        _name(axes, k, row, names[row.run])
        if point is None:
            reason = (row.reason or "not finite").partition(";")[0]  # what to do is in the table
            axes.text(0.5, k, _text(_wrapped(reason, 52, 3)), color=DIM, fontsize=8,
                      ha="center", va="center", backgroundcolor="white",
                      transform=axes.get_yaxis_transform())  # fmt: skip
        else:
            _value(axes, k, row, point, colours[row.model], bits)
    unit = "bits/dim, less is better" if bits else "log-likelihood in nats, more is better"
    axes.set_xlabel(unit if points else "", color=INK)
    if not points:
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
    left = MARGIN / width
    over = (top - 0.1) / height
    figure.text(left, over, _text(str(space)), color=INK, fontsize=10.5, weight="bold",
                va="top")  # fmt: skip
    if space.measure is not None:
        what = "probability of levels" if space.measure == "probability" else "density"
        note = f"{what}, {space.examples:,} {space.split} examples"
        figure.text(left, over - 0.2 / height, note, color=DIM, fontsize=8.5, va="top")


def _interval(row: Row) -> tuple[float, float] | None:
    """The number in the panel's unit with two standard errors; None where there is none."""
    one, bits = row.likelihood, row.bits_per_dim
    if one is None or not math.isfinite(one.value):
        return None
    error = 2 * one.stderr if math.isfinite(one.stderr) else 0.0
    return (one.value, error) if bits is None else (bits, error / row.nats_per_bit_per_dim)


def _limits(axes: "Axes", points: Sequence[tuple[float, float]]) -> None:
    if not points:
        axes.set_xlim(0, 1)
        return
    low, high = min(v - e for v, e in points), max(v + e for v, e in points)
    room = 0.2 * (high - low) or 0.05 * abs(high) or 1.0
    axes.set_xlim(low - room, high + room)
    axes.locator_params("x", nbins=6)


def _name(axes: "Axes", k: int, row: Row, name: str) -> None:
    """The run, and below it its model; or the further method, in both lines."""
    if row.main:
        shown, below = _wrapped(name, LINE, 2), row.model
        up, down = (-0.13, 0.27) if "\n" in shown else (-0.06, 0.22)
        _beside(axes, k + up, shown, INK, 9.5)
        _beside(axes, k + down, below, DIM, 8)
    elif row.likelihood is not None:
        _beside(axes, k, _wrapped(row.likelihood.how, 30, 3), DIM, 8)


def _beside(axes: "Axes", height: float, text: str, colour: str, size: float) -> None:
    axes.text(-0.02, height, _text(text), color=colour, fontsize=size, ha="right", va="center",
              transform=axes.get_yaxis_transform(), linespacing=1.05)  # fmt: skip


def _value(
    axes: "Axes", k: int, row: Row, point: tuple[float, float], colour: str, bits: bool
) -> None:
    """A dot (exact, or hollow for an estimate) or a bar with an arrow (bound), and the number."""
    from matplotlib.transforms import offset_copy

    if row.likelihood is None:
        return
    value, error = point
    kind = row.likelihood.kind
    if error:
        axes.plot([value - error, value + error], [k, k], color=colour, alpha=0.3, lw=7,
                  solid_capstyle="butt")  # fmt: skip
    if kind == "bound":
        axes.plot([value], [k], "|", color=colour, ms=13, mew=2.2)
        head = {"arrowstyle": "->", "color": colour, "lw": 1.8, "shrinkA": 0, "shrinkB": 0}
        figure: Any = axes.figure
        shift = offset_copy(axes.transData, figure, -22 if bits else 22, units="points")
        axes.annotate("", (value, k), (value, k), shift, "data", arrowprops=head)
    else:
        face = colour if kind == "exact" else "white"
        axes.plot([value], [k], "o", color=colour, mfc=face, ms=7.5, mew=1.8)
    number = f"{value:.4f}" if bits else with_error(value, row.likelihood.stderr).partition(" ")[0]
    sign = _SIGNS[kind][bits]
    axes.text(value, k - 0.2, f"{sign} {number}".replace("-", "−"), color=INK, fontsize=8.5,
              ha="center", va="bottom")  # fmt: skip


def _foot(figure: "Figure", panels: int, kinds: Collection[str], scored: bool) -> None:
    """What the marks of the kinds that are drawn mean."""
    from matplotlib.lines import Line2D

    def mark(shape: str, face: str, text: str) -> Line2D:
        return Line2D([], [], color=GREY, marker=shape, mfc=face, ls="", ms=7, mew=1.8, label=text)

    width, height = figure.get_size_inches()
    marks = {
        "exact": mark("o", GREY, "exact"),
        "bound": mark("$\\leftarrow$", GREY, "bound: the truth lies where it points"),
        "estimate": mark("o", "white", "estimate"),
    }
    handles = [handle for kind, handle in marks.items() if kind in kinds]
    handles.append(Line2D([], [], color=GREY, alpha=0.4, lw=7, label="± 2 standard errors"))
    left, low = MARGIN / width, 0.08
    if panels > 1:
        note = "likelihoods of different panels do not compare"
        if scored:
            note += "; places of scores are among all runs of the same data and terms"
        figure.text(left, low / height, note, color=DIM, fontsize=8, va="baseline")
        low += NOTE
    figure.legend(handles=handles, loc="lower left", ncols=4, frameon=False, fontsize=8,
                  labelcolor=DIM, bbox_to_anchor=(left, low / height), borderpad=0,
                  borderaxespad=0, handletextpad=0.6, columnspacing=1.6,
                  handlelength=1.3)  # fmt: skip


# Text


def _short(names: Sequence[str]) -> dict[str, str]:
    """The names of runs without the folder that all of them share."""
    try:
        shared = commonpath(names) if len(names) > 1 else dirname(names[0])
    except ValueError:  # absolute and relative ones
        shared = ""
    return {name: name[len(shared) :].lstrip("/") or name for name in names}


def _wrapped(text: str, width: int, lines: int) -> str:
    """A text in a few lines, its middle left out where it is too long for them."""
    found = textwrap.wrap(text, width)
    if len(found) > lines:
        most = width * lines
        if len(text) > most:
            text = f"{text[: most // 2]}…{text[len(text) - (most - 1) // 2 :]}"
        found = [text[k : k + width] for k in range(0, len(text), width)][:lines]
    return "\n".join(found)


def _text(text: str) -> str:
    """Without mathematics, and with a box for each character that the font lacks."""
    return plain_text("".join(c if c == "\n" else legible(c, "□") for c in text))
