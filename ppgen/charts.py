"""Charts as PNG bytes, by matplotlib figures of their own: no window, no state shared."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from .report_text import with_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 160  # of charts
# Okabe and Ito's colours, told apart by colour-blind readers too; after them Tol's.
BLUE, VERMILION, GREY = "#0072B2", "#D55E00", "#8a8f98"
COLOURS = (BLUE, "#E69F00", "#009E73", "#CC79A7", "#56B4E9", VERMILION, "#B5A100", "#332288",
           "#882255", "#555555")  # fmt: skip
INK, FAINT = "#30343b", "#e4e6ea"

Row = Mapping[str, Any]
_NO_TERMS = {"step", "epoch", "seconds", "split", "lr"}


def scatter(points: Tensor, reference: Tensor | None = None, title: str = "samples") -> bytes:
    """Points of the plane (n, 2), beside `reference` (m, 2) and in its limits where it is given."""
    points = points.detach().float().cpu()
    panels = [(title, points, BLUE)]
    if reference is not None:
        reference = reference.detach().float().cpu()
        panels.insert(0, ("data", reference, GREY))
    figure, grid = new_figure(4.2 * len(panels), 4.4, 1, len(panels))
    for axes, (name, cloud, colour) in zip(grid, panels, strict=True):
        size = max(1.6, min(5.0, 160 / math.sqrt(len(cloud) + 1)))
        axes.plot(*cloud.T.numpy(), ".", ms=size, alpha=0.5, mew=0, color=colour)
        square(axes, panels[0][1])
        heading(axes, name, f"{len(cloud):,} points")
    return drawn(figure)


def histograms(x: Tensor, reference: Tensor | None, most: int = 8) -> bytes:
    x = x.detach().float().cpu()
    count = min(most, x.shape[1])
    columns = min(4, count)
    lines = math.ceil(count / columns)
    figure, grid = new_figure(2.6 * columns + 0.6, 2.1 * lines + 0.4, lines, columns)
    for k, axes in enumerate(grid):
        if k >= count:
            axes.set_visible(False)
            continue
        clouds = [(x[:, k], BLUE, "samples")]
        if reference is not None:
            clouds.insert(0, (reference[:, k].detach().float().cpu(), GREY, "data"))
        both = torch.cat([c[c.isfinite()] for c, _, _ in clouds])
        low, high = _limits(both)
        for values, colour, name in clouds:
            values = values[(values >= low) & (values <= high)]
            if len(values) == 0:
                continue
            kind: Any = "stepfilled" if name == "data" else "step"
            alpha = 0.45 if name == "data" else 1.0
            axes.hist(
                values.numpy(), bins=40, range=(low, high), density=True, color=colour,
                label=name, histtype=kind, alpha=alpha, lw=1.6,
            )  # fmt: skip
        axes.set_yticks([])
        heading(axes, f"$x_{{{k + 1}}}$")
        if k == 0 and axes.patches:
            axes.legend(fontsize=8, frameon=False, labelcolor=INK)
    return drawn(figure)


def joined(originals: Tensor, means: Tensor) -> bytes:
    a, b = originals.float(), means.float()
    figure, (axes,) = new_figure(4.6, 4.4)
    axes.plot(*torch.stack([a, b]).permute(2, 0, 1).numpy(), "-", lw=0.8, color=GREY, alpha=0.6)
    axes.plot(*a.T.numpy(), "o", ms=4.5, mew=0, color=GREY, label="data")
    axes.plot(*b.T.numpy(), "o", ms=3.5, mew=0, color=BLUE, label="model")
    square(axes, torch.cat([a, b]))
    axes.legend(fontsize=9, frameon=False, labelcolor=INK, loc="lower left", ncols=2,
                bbox_to_anchor=(0, 1), borderaxespad=0.2, borderpad=0)  # fmt: skip
    return drawn(figure)


def warped_net(mean: Tensor) -> bytes:
    across, up = mean.float().permute(2, 0, 1).numpy()  # each (count, count)
    figure, (axes,) = new_figure(4.6, 4.4)
    axes.plot(across.T, up.T, lw=0.9, color=BLUE, alpha=0.8)  # along z_1
    axes.plot(across, up, lw=0.9, color=VERMILION, alpha=0.8)  # along z_2
    axes.plot([], [], color=BLUE, label="along $z_1$")
    axes.plot([], [], color=VERMILION, label="along $z_2$")
    square(axes, mean.flatten(0, 1))
    axes.legend(fontsize=9, frameon=False, labelcolor=INK, loc="lower left", ncols=2,
                bbox_to_anchor=(0, 1), borderaxespad=0.2, borderpad=0)  # fmt: skip
    return drawn(figure)


def curves(rows: Sequence[Row], unit: str = "nats") -> bytes:
    """Learning curves: a panel for the loss and one for each of its terms, by epochs.

    The terms of many sites, such as `kl/z1`, `kl/z2`, share a panel beside that of their sum; a
    term that is the loss itself has none. The limits are those of what follows the first steps,
    see `settled`.

    The losses of several players share a panel; their sum, which says nothing, has none.

    Args:
        rows: what `fit` measured, with the keys `split` ("train" or "validation"), `epoch`,
            `loss` and any terms.
        unit: of the loss.

    Raises:
        ValueError: there is nothing to draw.
    """
    panels = _panels(rows)
    if not panels:
        raise ValueError(f"none of the {len(rows)} rows has a finite loss or term to draw")
    players = any(title.endswith("/loss") for titles in panels.values() for title in titles)
    columns = min(len(panels), 3 if len(panels) != 4 else 2)
    lines = math.ceil(len(panels) / columns)
    width = {1: 6.4, 2: 9.2}.get(columns, 11.2)
    figure, grid = new_figure(width, 3.0 * lines + 0.35, lines, columns)
    until = max(epoch for titles in panels.values() for t in titles
                for epoch, _ in _both(rows, t))  # fmt: skip
    for k, axes in enumerate(grid):
        if k >= len(panels):
            axes.set_visible(False)
            continue
        name, titles = list(panels.items())[k]
        if len(titles) == 1:
            _curve(axes, rows, titles[0])
        else:
            _many_curves(axes, rows, name, titles)
        axes.set_xlim(0, until or 1)
        faint_grid(axes)
        if k + columns >= len(panels):
            axes.set_xlabel("epoch", color=INK)
        if k % columns == 0 and not players:  # whose terms have no unit in common
            axes.set_ylabel(f"{unit} per example", color=INK)
    return drawn(figure)


def _panels(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Panel name -> titles of its curves, the loss first; those drawn already are left out."""
    found: dict[str, None] = {"loss": None}
    for row in rows:
        found |= {key: None for key in row if key not in _NO_TERMS}
    if any(title.endswith("/loss") for title in found):
        del found["loss"]
    titles = [title for title in found if _both(rows, title)]
    drawn: set[tuple] = set()
    panels: dict[str, list[str]] = {}
    for title in titles:
        points = tuple(_both(rows, title))
        if points not in drawn:
            head, _, last = title.rpartition("/")  # of "kl", where there is such a sum
            name = f"{head} by site" if head in titles else title
            panels.setdefault("loss by player" if head and last == "loss" else name, []).append(
                title
            )
        drawn.add(points)
    return {titles[0] if len(titles) == 1 else name: titles for name, titles in panels.items()}


def series(rows: Sequence[Row], split: str, title: str) -> list[tuple[float, float]]:
    """(epoch, value) of one title on one split, the values that are finite numbers."""
    points = []
    for row in rows:
        value = row.get(title)
        if row.get("split") != split or isinstance(value, bool) or "epoch" not in row:
            continue
        if isinstance(value, (int, float)) and math.isfinite(value):
            points.append((float(row["epoch"]), float(value)))
    return points


def _both(rows: Sequence[Row], title: str) -> list[tuple[float, float]]:
    return series(rows, "train", title) + series(rows, "validation", title)


def settled(*curves: list[tuple[float, float]]) -> tuple[float, float]:
    """Limits of the vertical axis that the first steps do not spoil.

    Those of the values after the first epoch or 5% of the epochs, whichever is more, but never
    more than the first quarter; of many values of a curve the outermost 1% at each end do not
    count.
    """
    points = [point for curve in curves for point in curve]
    last = max(epoch for epoch, _ in points)
    cut = min(max(1.0, 0.05 * last), 0.25 * last)
    kept: list[float] = []
    for curve in curves:
        values = sorted(value for epoch, value in curve if epoch >= cut)
        trim = len(values) // 100
        kept += values[trim : len(values) - trim]
    kept = kept or [value for _, value in points]
    low, high = min(kept), max(kept)
    room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room


def _curve(axes: "Axes", rows: Sequence[Row], title: str) -> None:
    train, validation = series(rows, "train", title), series(rows, "validation", title)
    last = []
    if train:
        epochs, values = zip(*train, strict=True)
        noisy = len(train) > 200
        axes.plot(epochs, values, color=BLUE, lw=0.8 if noisy else 1.7, alpha=0.28 if noisy else 1,
                  label=None if noisy else "train")  # fmt: skip
        smooth = _smooth(values) if noisy else list(values)
        if noisy:
            axes.plot(epochs, smooth, color=BLUE, lw=1.7, label="train")
        last.append(f"train {_figures(smooth[-1])}")
    if validation:
        epochs, values = zip(*validation, strict=True)
        marker = "o" if len(values) <= 40 else ""
        axes.plot(
            epochs,
            values,
            color=VERMILION,
            lw=1.7,
            label="validation",
            marker=marker,
            ms=3.6,
            mew=0,
        )
        last.append(f"validation {_figures(values[-1])}")
    axes.set_ylim(*settled(*(c for c in (train, validation) if c)))
    heading(axes, title, ", ".join(last))
    axes.legend(fontsize=8.5, frameon=False, labelcolor=INK)


def _figures(value: float) -> str:
    """Four figures that matter, as decimals."""
    size = abs(value)
    if size >= 1e6 or 0 < size < 1e-4:
        return f"{value:.3g}".replace("-", "−")
    decimals = 3 - math.floor(math.log10(size)) if size > 0 else 0
    return f"{value:.{min(max(decimals, 0), 5)}f}".replace("-", "−")


def _many_curves(axes: "Axes", rows: Sequence[Row], name: str, titles: Sequence[str]) -> None:
    """One curve a site or player; of train, or of validation where there is no other."""
    import matplotlib

    drawn = [series(rows, "train", t) or series(rows, "validation", t) for t in titles]
    shades = matplotlib.colormaps["cividis"]
    for k, (title, points) in enumerate(zip(titles, drawn, strict=True)):
        epochs, values = zip(*points, strict=True)
        site = title.removesuffix("/loss").rpartition("/")[2]
        shown = len(titles) <= 8 or k in (0, len(titles) - 1)
        axes.plot(epochs, _smooth(values) if len(values) > 200 else values, lw=1.5,
                  color=shades(0.92 * k / (len(titles) - 1)),
                  label=plain_text(legible(site, str(k))) if shown else None)  # fmt: skip
    axes.set_ylim(*settled(*drawn))
    split = "train" if series(rows, "train", titles[0]) else "validation"
    heading(axes, name, split)
    axes.legend(fontsize=8, frameon=False, labelcolor=INK, ncols=1 + (len(titles) > 4))


def _smooth(values: Sequence[float]) -> list[float]:
    """The mean of the last fiftieth of the curve at each point, of fewer at its beginning."""
    window = max(2, len(values) // 50)
    sums = torch.tensor(values, dtype=torch.float64).cumsum(0)
    before = torch.cat([torch.zeros(window, dtype=torch.float64), sums])[: len(sums)]
    counts = torch.arange(1, len(sums) + 1).clamp(max=window)
    return ((sums - before) / counts).tolist()


def new_figure(
    width: float,
    height: float,
    lines: int = 1,
    columns: int = 1,
    widths: Sequence[float] | None = None,
) -> tuple["Figure", list["Axes"]]:
    """A figure of so many inches, and its panels line by line; `widths` relative to each other."""
    from matplotlib.figure import Figure

    figure = Figure((width, height), dpi=DPI, layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, width_ratios=widths)
    for axes in grid.flat:
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            axes.spines[side].set_color("#b9bdc4")
        axes.tick_params(colors=INK, labelsize=8.5, length=3, color="#b9bdc4")
        axes.xaxis.label.set_size(9.5)
        axes.yaxis.label.set_size(9.5)
    return figure, list(grid.flat)


def heading(axes: "Axes", title: str, note: str = "") -> None:
    """A bold title to the left, a faint note to the right; below it where both are long."""
    shown = title if title.startswith("$x_") else plain_text(legible(title, "term"))
    crowded = 1.4 * len(shown) + len(note) > 46  # characters of the note, beside which it would lie
    style: dict[str, Any] = {"fontsize": 10.5, "color": INK, "weight": "bold"}
    axes.set_title(shown, loc="left", pad=18 if crowded else None, **style)
    faint: dict[str, Any] = {"fontsize": 8, "color": "#6b7078"}
    if crowded:  # two titles of one axes stand on one line
        axes.annotate(note, (1, 1), (0, 6), xycoords="axes fraction",
                      textcoords="offset points", ha="right", **faint)  # fmt: skip
    else:
        axes.set_title(note, loc="right", **faint)


def faint_grid(axes: "Axes", axis: Literal["x", "y"] = "y") -> None:
    axes.grid(axis=axis, color=FAINT, lw=0.8)
    axes.set_axisbelow(True)


def bars(axes: "Axes", values: Mapping[str, Tensor], colours: Sequence[str]) -> None:
    """A bar for the mean of each (n,), downwards, with its name and mean +- standard error."""
    means = [float(v.double().mean()) for v in values.values()]
    errors = [float(v.double().std() / math.sqrt(len(v))) if len(v) > 1 else 0.0
              for v in values.values()]  # fmt: skip
    axes.barh(range(len(means)), means, 0.62, color=colours)
    axes.axvline(0, color="#b9bdc4", lw=0.9)
    for k, (mean, error) in enumerate(zip(means, errors, strict=True)):
        tiny = abs(mean) + error < 5e-4
        text = "0.000" if tiny else with_error(mean, error)
        axes.annotate(text, (max(mean, 0.0), k), xytext=(5, 0), textcoords="offset points",
                      va="center", fontsize=9, color=INK)  # fmt: skip
    axes.set_yticks(range(len(means)), [plain_text(legible(name, "term")) for name in values])
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0, labelsize=9.5)
    low, high = min(0.0, *means), max(1e-9, *means)
    axes.set_xlim(low - 0.1 * (high - low) * (low < 0), high + 0.5 * (high - low))
    axes.set_xlabel("nats per example", color=INK)
    faint_grid(axes, "x")


def square(axes: "Axes", points: Tensor) -> None:
    """Equal units on both axes, around all but the outermost points."""
    (left, right), (low, high) = _limits(points[:, 0]), _limits(points[:, 1])
    half = 0.54 * max(right - left, high - low)
    axes.set_xlim((left + right) / 2 - half, (left + right) / 2 + half)
    axes.set_ylim((low + high) / 2 - half, (low + high) / 2 + half)
    axes.set_box_aspect(1)


def _limits(values: Tensor) -> tuple[float, float]:
    values = values[values.isfinite()].flatten()[:1_000_000]
    if len(values) == 0:
        return -1.0, 1.0
    low, high = values.quantile(values.new_tensor([0.002, 0.998])).tolist()
    return (low, high) if high > low else (low - 1, low + 1)


def drawn(figure: "Figure") -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", facecolor="white", metadata={"Software": None})
    return out.getvalue()


# Text comes from files: it is neither mathematics nor always in the font at hand.


def plain_text(name: str) -> str:
    return name.replace("$", r"\$")


def legible(name: str, otherwise: str) -> str:
    """The name, or the other where the font lacks one of its characters."""
    from matplotlib.font_manager import get_font

    known = get_font(font_path()).get_char_index
    return name if name and all(known(ord(c)) for c in name) else otherwise


def font_path() -> str:
    from matplotlib import get_data_path

    return f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf"
