"""Messages on a graph: arrows beside the edges, one step after another."""

import io
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import write_whole
from ..progress import Bar
from .drawing import picture_ending, write_picture
from .message_places import BARS, COUNTED, WIDE, Places, Slot
from .picture import (
    BLOCKED,
    FAINT,
    FONT,
    INK,
    LINE,
    OPEN,
    PALE,
    SHADE,
    WIDEST,
    _legible,
    _width,
)
from .shapes import border_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..messages.trace import Message, Trace

FRAMES, GROWING = 200, 8  # of messages at most, and of the beliefs
PIXELS = 1200  # of a moving picture's longer side
HEAD, FOOT = 0.22, 0.3  # inches of a line above, and of the legend


class Film:
    """The pictures of a trace.

    Raises:
        ValueError: see `Places`.
    """

    def __init__(self, trace: "Trace") -> None:
        self.trace = trace
        self.places = Places(trace.graph)
        self.width = max(self.places.right - self.places.left, 4.6)

    def draw(self, step: int | None, ax: "Axes | None", path: str | Path | None) -> "Figure":
        """See `Trace.draw`."""
        from matplotlib.figure import Figure

        ending = None if path is None else picture_ending(Path(path))
        shown = self.trace.checked(step)
        lines = len(self.head(step))
        if ax is None:
            figure = Figure(tuple(self.size(lines) * min(1, WIDEST / max(self.size(lines)))),
                            dpi=160)  # fmt: skip
            ax = figure.add_axes((0, 0, 1, 1))
        else:
            figure = ax.figure.get_figure(root=True)
        _Frame(self, ax, lines).draw(shown, step, 1.0 if step is None else 0.0)
        if path is not None and ending is not None:
            write_picture(figure, Path(path), ending)
        return figure

    def animate(self, path: Path, seconds: float, overwrite: bool) -> int:
        """See `Trace.animate`."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from PIL import Image

        if path.suffix.lower() != ".gif":
            raise ValueError(f"{path}: expected a file that ends in .gif")
        if not 0.02 <= seconds <= 60:
            raise ValueError(f"seconds must be between 0.02 and 60 a message, got {seconds}")
        if path.exists() and not overwrite:
            raise FileExistsError(f"{str(path)!r} exists; pass overwrite=True to replace it")
        total = len(self.trace)
        steps = np.unique(np.linspace(0, total, min(total, FRAMES) + 1).round().astype(int))
        views: list[tuple[int, int | None, float]] = [(int(k), int(k), 0.0) for k in steps]
        views += [(total, None, (k + 1) / GROWING) for k in range(GROWING)]
        lines = max(len(self.head(step)) for _, step, _ in views)
        size = self.size(lines)
        figure = Figure(tuple(size), dpi=min(110.0, PIXELS / size.max()))
        canvas = FigureCanvasAgg(figure)
        frames, colours = [], _palette()
        with Bar("drawing the messages", len(views)) as bar:
            for done, view in enumerate(views, 1):
                figure.clear()
                _Frame(self, figure.add_axes((0, 0, 1, 1)), lines).draw(*view)
                canvas.draw()
                pixels = np.asarray(canvas.buffer_rgba())[..., :3]
                picture = Image.fromarray(np.ascontiguousarray(pixels))
                frames.append(picture.quantize(palette=colours, dither=Image.Dither.NONE))
                bar.at(done)
        times = [round(1000 * seconds)] * len(steps) + [80] * (GROWING - 1)
        times.append(round(3000 * seconds))
        out = io.BytesIO()
        frames[0].save(out, format="GIF", save_all=True, append_images=frames[1:],
                       duration=times, loop=0)  # fmt: skip
        write_whole(path, out.getvalue())
        return len(frames)

    def size(self, lines: int) -> np.ndarray:
        """Inches of a picture with so many lines above."""
        return np.array(
            [self.width, self.places.high - self.places.low + FOOT + HEAD * lines + 0.1]
        )

    def head(self, step: int | None) -> list[str]:
        """The lines above the picture: which step, and its formula."""
        trace = self.trace
        kind = f"{trace.product}-product, {trace.schedule.replace('_', '-')}"
        if step is None:
            what = "sum" if trace.product == "sum" else "maximum"
            return [
                f"after {len(trace):,} messages ({kind})",
                f"belief: psi(x) times the messages to x, with {what} 1",
            ]
        if step == 0:
            return [f"before the first of {len(trace):,} messages ({kind})"]
        message = trace[step - 1]
        text = _legible(f"{message.name} = {message.formula}")
        lines = textwrap.wrap(text, max(44, int(self.width / 0.088)))
        if len(lines) > 4:
            lines = [*lines[:3], f"{lines[3]} ..."]
        return [f"step {step:,} of {len(trace):,} ({kind})", *lines]


def _palette() -> Any:
    """The colours of all frames, mixed with what may be behind them."""
    from matplotlib.colors import to_rgb
    from PIL import Image

    share = np.linspace(0, 1, 8)[:, None]  # of more, Pillow takes the palest for white
    pairs = [(colour, "white") for colour in (INK, PALE, FAINT, SHADE, OPEN, BLOCKED)]
    pairs += [(INK, SHADE), (OPEN, SHADE), (OPEN, PALE), (INK, OPEN)]
    mixed = [share * to_rgb(one) + (1 - share) * to_rgb(other) for one, other in pairs]
    palette = Image.new("P", (1, 1))
    palette.putpalette((255 * np.concatenate(mixed)).round().astype(int).ravel().tolist())
    return palette


class _Frame:
    """One picture, in inches times a scale, on axes."""

    def __init__(self, film: Film, ax: "Axes", lines: int) -> None:
        self.film, self.places, self.ax = film, film.places, ax
        ax.set_axis_off()
        ax.set_aspect("equal")
        width, height = film.size(lines)
        self.middle = (self.places.left + self.places.right) / 2
        self.bottom = self.places.low - FOOT
        self.top = self.bottom + height
        ax.set_xlim(self.middle - width / 2, self.middle + width / 2)
        ax.set_ylim(self.bottom, self.top)
        box, dpi = ax.get_window_extent(), ax.figure.get_figure(root=True).dpi
        self.scale = min(box.width / width, box.height / height) / dpi

    def draw(self, shown: int, step: int | None, grown: float) -> None:
        """So many messages, that of the step highlighted, and the beliefs coloured so far up."""
        places, trace = self.places, self.film.trace
        for a, b in places.edges:
            self._line(np.array([places.places[a], places.places[b]]), FAINT, 1.2, 1)
        newest = trace[step - 1] if step else None
        for slot, message in {(m.factor, m.target): m for m in trace[:shown]}.items():
            self._message(slot, message, message is newest)
        beliefs = trace.beliefs(shown)
        for node, variable in enumerate(places.graph.variables):
            self._variable(node, beliefs[variable], variable in trace.evidence, grown)
        for node, text in places.squares.items():
            (x, y), (w, h) = places.places[node], places.sizes[node]
            self._box(x - w / 2, y - h / 2, w, h, INK, 3)
            self._text(x, y, text, "white", 0.9, 4)
        for i, line in enumerate(self.film.head(step)):
            self._text(self.middle, self.top - 0.2 - HEAD * i, line, INK, 1.1, 4)
        self._legend(step is None)

    def _message(self, slot: Slot, message: "Message", newest: bool) -> None:
        from matplotlib.patches import Polygon

        colour = BLOCKED if newest else OPEN
        begin, finish = self.places.arrow(slot)
        way = (finish - begin) / max(float(np.hypot(*(finish - begin))), 1e-9)
        side = np.array([-way[1], way[0]])
        base = finish - way * 0.11
        self._line(np.array([begin, base]), colour, 2.4 if newest else 1.4, 2)
        corners = [finish, base + side * 0.05, base - side * 0.05]
        self.ax.add_artist(Polygon(corners, closed=True, fc=colour, ec="none", zorder=2,
                                  gid="newest" if newest else "message"))  # fmt: skip
        (x, y, w, h), free = self.places.numbers[slot]
        if not free and not newest:
            return
        above = 2.5 if free else 5.0
        if not free:
            self._box(x - w / 2, y - h / 2, w, h, "white", above)
        if len(message.values) <= COUNTED:
            text = " ".join(f"{value:.2f}" for value in message.values)
            self._text(x, y, text, colour, 0.8, above)
        else:
            self._bars((x - w / 2, y - h / 2, w, h), message.values, colour, above)

    def _variable(self, node: int, belief: np.ndarray, observed: bool, grown: float) -> None:
        from matplotlib.patches import Polygon

        (x, y), (w, h) = self.places.places[node], self.places.sizes[node]
        outline = np.array([x, y]) + border_of((w, h))
        self.ax.add_artist(Polygon(outline, closed=True, fc=SHADE if observed else "white", ec=INK,
                                  lw=1.2 * self.scale, zorder=3, gid=f"node-{node}"))  # fmt: skip
        for i, line in enumerate(self.places.lines[node]):
            self._text(x, y + h / 2 - 0.13 - LINE * i, line, INK, 1.0, 4)
        left, bottom, slot = x - WIDE / 2, y - h / 2 + 0.17, WIDE / len(belief)
        box = (left, bottom, WIDE, BARS)
        self._bars(box, belief, "white" if observed else PALE, 4)
        if grown:
            self._bars(box, grown * belief, OPEN, 4, belief.max())
        self._line(np.array([[left, bottom], [left + WIDE, bottom]]), INK, 0.8, 4.2)
        for i, text in enumerate(self.places.labels[node]):
            self._text(left + (i + 0.5) * slot, bottom - 0.075, text, INK, 0.65, 4)
        if grown == 1 and len(belief) <= COUNTED:
            for i, value in enumerate(belief):
                height = bottom + BARS * float(value) + 0.07
                self._text(left + (i + 0.5) * slot, height, f"{value:.2f}", INK, 0.7, 4.3)

    def _bars(
        self, box: tuple[float, float, float, float], values: np.ndarray, colour: str,
        above: float, largest: float | None = None,
    ) -> None:  # fmt: skip
        """Bars side by side: of few states to the scale 0 to 1, of many to the largest value."""
        from matplotlib.collections import PolyCollection

        (x, y, w, h), count = box, len(values)
        top = 1.0 if count <= COUNTED else largest or values.max()
        left = x + w * (np.arange(count) + (0.14 if count <= 20 else 0.0)) / count
        right = left + w * (0.72 if count <= 20 else 1.0) / count
        low, high = np.full(count, y), y + h * values / top
        corners = np.stack([left, low, right, low, right, high, left, high], 1)  # (K, 8)
        self.ax.add_collection(
            PolyCollection([*corners.reshape(-1, 4, 2)], facecolors=colour, edgecolors="none",
                           zorder=above), autolim=False)  # fmt: skip

    def _legend(self, done: bool) -> None:
        lines = [("message", OPEN, 1.4)] if done else [
            ("this step's message", BLOCKED, 2.4), ("last sent before", OPEN, 1.4)]  # fmt: skip
        box = ("belief", OPEN) if done else ("belief so far", PALE)
        wide = [0.38 + 0.85 * _width(text) + 0.24 for text, _, _ in lines]
        x = self.middle - (sum(wide) + 0.2 + 0.85 * _width(box[0])) / 2
        y = self.bottom + 0.17
        for (text, colour, thick), step in zip(lines, wide, strict=True):
            self._line(np.array([[x, y], [x + 0.3, y]]), colour, thick, 3)
            self._text(x + 0.38, y, text, INK, 0.85, 4, "left")
            x += step
        self._box(x, y - 0.06, 0.12, 0.12, box[1], 3)
        self._text(x + 0.2, y, box[0], INK, 0.85, 4, "left")

    def _line(self, points: np.ndarray, colour: str, width: float, above: float) -> None:
        from matplotlib.lines import Line2D

        self.ax.add_artist(Line2D(*points.T, color=colour, lw=width * self.scale, zorder=above,
                                solid_capstyle="butt"))  # fmt: skip

    def _box(self, x: float, y: float, w: float, h: float, colour: str, above: float) -> None:
        from matplotlib.patches import Rectangle

        self.ax.add_artist(Rectangle((x, y), w, h, fc=colour, ec="none", zorder=above))

    def _text(
        self, x: float, y: float, text: str, colour: str, size: float, above: float,
        side: Any = "center",
    ) -> None:  # fmt: skip
        self.ax.text(x, y, text, color=colour, fontsize=FONT * size * self.scale, ha=side,
                     va="center_baseline", parse_math=False, family="DejaVu Sans",
                     zorder=above)  # fmt: skip
