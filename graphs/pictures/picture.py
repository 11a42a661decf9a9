"""The artists of a drawing: nodes that fit their names, edges from border to border, a legend."""

import re
import textwrap
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np

from .factor_layout import factor_places
from .layout import Layout, Size, layout_of
from .shapes import (
    HEAD_LONG,
    HEAD_WIDE,
    HIGH,
    arc,
    border_of,
    clipped,
    cornered,
    headed,
    hidden_points,
    reach,
    smooth,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Node = Hashable
INK, PALE, FAINT, SHADE = "#30343b", "#8a8f98", "#c3c7ce", "#c9cdd4"
OPEN, BLOCKED = "#0072B2", "#D55E00"  # Okabe and Ito's, told apart by colour-blind readers too
LABELLED = 200  # nodes; more have no room for their names
ROUTED = 1000  # edges; more are drawn straight, whatever is in the way
FONT, LINE, PAD = 10.0, 0.17, 0.13  # points; inches of a line, and beside a name
SMALL = 0.72  # of a factor and its name, against a variable's
WIDEST = 15.0  # inches of a figure; a wider picture is made smaller


@dataclass
class NodeLook:
    fill: str = "white"
    border: str = INK
    text: str = INK
    width: float = 1.2
    square: bool = False  # a factor


@dataclass
class EdgeLook:
    colour: str = INK
    width: float = 1.2
    dashed: bool = False


@dataclass
class Look:
    """How nodes and edges look, and what the legend says of it."""

    nodes: dict[Node, NodeLook]
    edges: dict[tuple[Node, Node], EdgeLook]
    marked: list[Node] = field(default_factory=list)  # those that block
    legend: list[tuple[str, Any]] = field(default_factory=list)  # text; a look, None for the mark
    title: str = ""


class Picture:
    """Artists in inches, on axes whose unit is an inch times one scale for all."""

    def __init__(self, graph: nx.Graph, look: Look) -> None:
        self.graph, self.look = graph, look
        self.named = len(graph) <= LABELLED
        if not self.named:
            said = f"{len(graph):,} nodes, too many to name"
            look.title = f"{look.title} ({said})" if look.title else said
        self.lines = {
            node: _wrapped(graph.nodes[node].get("label", node)) if self.named else []
            for node in graph
        }
        self.squares = {node for node, style in look.nodes.items() if style.square}
        self.sizes = {
            node: _size(lines, SMALL if node in self.squares else 1.0)
            for node, lines in self.lines.items()
        }
        edge_labels = nx.get_edge_attributes(graph, "label") if self.named else {}
        self.edge_labels = {e[:2]: "\n".join(_wrapped(text)) for e, text in edge_labels.items()}
        tallest = max((text.count("\n") + 1 for text in self.edge_labels.values()), default=0)
        room = 0.46 + (0.2 + LINE * tallest if tallest else 0.0)
        places = factor_places(graph, self.sizes, self.squares, WIDEST) if self.squares else None
        self.layout = Layout(places, {}) if places else layout_of(graph, self.sizes, room)
        self.unit, self.scale = 1.0, 1.0
        if not self.named:
            self._spread()
        corners = np.array(
            [(x + s * self.sizes[n][0] / 2, y + s * self.sizes[n][1] / 2)
             for n, (x, y) in self.layout.places.items() for s in (-1, 1)]
            + [point for way in self.layout.bends.values() for point in way]
        ).reshape(-1, 2)  # fmt: skip
        if not len(corners):
            corners = np.zeros((1, 2))
        self.low, self.high = corners.min(0) - 0.2, corners.max(0) + 0.2

    def draw(self, ax: "Axes | None") -> "Figure":
        from matplotlib.figure import Figure

        if any(a == b for a, b in self.look.edges):
            self.low, self.high = self.low - 0.4, self.high + 0.4  # for the loops
        room = self.high - self.low
        if ax is None:
            sheet, most = None, np.array([WIDEST, WIDEST])
        else:
            sheet = ax.figure.get_figure(root=True)  # of a subfigure too
            box = ax.get_window_extent()
            most = np.array([box.width, box.height]) / sheet.dpi
        self.unit = max(1.0, 0.9 / min(1.0, *(most / room)))
        head, foot = self._strips(room[0] / self.unit)
        width = max(room[0], 2.2 * self.unit, *((_width(line) + 0.4) * self.unit for line in head),
                    *((self._legend_width(row) + 0.3) * self.unit for row in foot))  # fmt: skip
        middle = (self.low[0] + self.high[0]) / 2
        top = self.high[1] + (0.24 * len(head) + 0.08 * bool(head)) * self.unit
        bottom = self.low[1] - 0.28 * len(foot) * self.unit
        self.scale = float(min(1.0 if ax is None else np.inf, *(most / (width, top - bottom))))
        if sheet is None:
            sheet = Figure((width * self.scale, (top - bottom) * self.scale), dpi=160)
        if ax is None:
            ax = sheet.add_axes((0, 0, 1, 1))
        self.ax = ax
        ax.set_axis_off()
        ax.set_aspect("equal")
        ax.set_xlim(middle - width / 2, middle + width / 2)
        ax.set_ylim(bottom, top)
        for index, (edge, style) in enumerate(self.look.edges.items()):
            self._edge(index, edge, style)
        for index, node in enumerate(self.graph):
            self._node(f"node-{index}", node)
        for index, node in enumerate(self.look.marked):
            (x, y), (w, h) = self.layout.places[node], self.sizes[node]
            inset = min(w, h) / 2 * (1 - 0.5**0.5)
            self._mark(f"mark-{index}", x + w / 2 - inset, y + h / 2 - inset)
        for i, line in enumerate(head):
            self._text(middle, top - (0.18 + 0.24 * i) * self.unit, line, INK, 1.1 * self.unit)
        for i, row in enumerate(foot):
            left = middle - self._legend_width(row) / 2 * self.unit
            self._legend(row, left, bottom + (0.28 * (len(foot) - i) - 0.1) * self.unit)
        return sheet

    def _spread(self) -> None:
        """A picture without names may be wide and flat: draw it out to half its width."""
        places = self.layout.places
        across, up = np.array(list(places.values())).T
        by = max(1.0, float(np.ptp(across) / 2 / max(np.ptp(up), 1e-9)))
        self.layout = Layout({node: (x, y * by) for node, (x, y) in places.items()}, {})
        for edge in self.look.edges.values():
            edge.width /= 2
            edge.colour = PALE if edge.colour == INK else edge.colour

    def _node(self, gid: str, node: Node) -> None:
        style, (x, y) = self.look.nodes[node], self.layout.places[node]
        self._box(gid, x, y, self.sizes[node], style)
        if self.lines[node]:
            small = SMALL if style.square else 1.0
            self._text(x, y, "\n".join(self.lines[node]), style.text, small)

    def _box(self, gid: str, x: float, y: float, size: Size, style: NodeLook) -> None:
        from matplotlib.patches import Polygon

        outline = np.array([x, y]) + border_of(size, style.square)
        self.ax.add_artist(Polygon(outline, closed=True, fc=style.fill, ec=style.border,
                                  lw=style.width * self.scale, zorder=3, gid=gid))  # fmt: skip

    def _edge(self, index: int, edge: tuple[Node, Node], style: EdgeLook) -> None:
        from matplotlib.patches import Polygon

        tail, head = edge
        points = self._way(tail, head)
        drawn, directed = points, self.graph.is_directed()
        if directed:
            drawn, tip, way = headed(points, 1.0 if self.named else 0.6)
            side = np.array([-way[1], way[0]]) * HEAD_WIDE / 2
            base = tip - way * HEAD_LONG
            if not self.named:
                side, base = side * 0.6, tip - way * HEAD_LONG * 0.6
            grown = 1 + 0.12 * max(style.width - 1.2, 0)
            corners = [tip, base + side * grown, base - side * grown]
            self.ax.add_artist(Polygon(corners, closed=True, fc=style.colour, ec="none", zorder=2.2,
                                      gid=f"head-{index}"))  # fmt: skip
        above = 2 if style.colour in (OPEN, BLOCKED) else 1
        self._line(f"edge-{index}", drawn, style, above + style.width / 100)
        label = self.edge_labels.get(edge)
        if label:
            x, y = points[len(points) // 2]
            self._text(x, y, label, INK, 0.85, background="white")

    def _line(self, gid: str, points: np.ndarray, style: EdgeLook, above: float) -> None:
        from matplotlib.lines import Line2D

        dashes: Any = (0, (4, 2.4)) if style.dashed else "-"
        line = Line2D(*points.T, color=style.colour, lw=style.width * self.scale, ls=dashes,
                      zorder=above, gid=gid, solid_capstyle="butt")  # fmt: skip
        self.ax.add_artist(line)

    def _way(self, tail: Node, head: Node) -> np.ndarray:
        """The points of an edge from border to border: straight where no node is in the way."""
        places, sizes = self.layout.places, self.sizes
        start, end = np.array(places[tail]), np.array(places[head])
        if tail == head:
            beside = [places[n] for n in nx.all_neighbors(self.graph, tail) if n != tail]
            away = start - np.mean(beside or [(start[0], start[1] - 1.0)], 0)
            away = away / max(float(np.hypot(*away)), 1e-9)
            turn = np.arctan2(away[1], away[0]) + np.linspace(-0.8 * np.pi, 0.8 * np.pi, 60)
            border = start + away * (reach(sizes[tail], away) + 0.09)
            return border + 0.15 * np.stack([np.cos(turn), np.sin(turn)], 1)
        routed = self.named and len(self.look.edges) <= ROUTED
        others = [n for n in self.graph if n not in (tail, head)] if routed else []
        centres = np.array([places[n] for n in others]).reshape(-1, 2)
        boxes = np.array([sizes[n] for n in others]).reshape(-1, 2)
        both_ways = self.graph.is_directed() and self.graph.has_edge(head, tail)
        tries = [] if both_ways else [arc(start, end, 0.0)]
        if routed and (tail, head) in self.layout.bends:
            tries += self._bent(start, end, self.layout.bends[tail, head], centres, boxes)
        if routed or not tries:
            tries += [arc(start, end, bend) for bend in (0.12, -0.12, 0.25, -0.25, 0.4, -0.4)]
        hidden = [hidden_points(points, centres, boxes) for points in tries]
        points = tries[int(np.argmin(hidden))]  # the first of the best
        points = clipped(points, start, sizes[tail], tail in self.squares)
        return clipped(points[::-1], end, sizes[head], head in self.squares)[::-1]

    def _bent(
        self,
        start: np.ndarray,
        end: np.ndarray,
        way: list[tuple[float, float]],
        centres: np.ndarray,
        boxes: np.ndarray,
    ) -> list[np.ndarray]:
        """Ways through the bends: with as few of them as keep clear of the nodes, and with all."""
        points = [start, *(np.array(point) for point in way), end]
        kept = [0]
        while kept[-1] < len(points) - 1:
            ahead = range(len(points) - 1, kept[-1] + 1, -1)
            clear = (
                k
                for k in ahead
                if not hidden_points(arc(points[kept[-1]], points[k], 0.0), centres, boxes)
            )
            kept.append(next(clear, kept[-1] + 1))
        few, every = np.array([points[k] for k in kept]), np.array(points)
        held = (few, cornered(few, 0.25), cornered(every, 0.25), cornered(every, 0.05))
        return [smooth(points) for points in held]

    def _mark(self, gid: str, x: float, y: float, unit: float = 1.0) -> None:
        from matplotlib.lines import Line2D
        from matplotlib.patches import Circle

        thick, arm = self.scale * unit, 0.036 * unit
        self.ax.add_artist(Circle((x, y), 0.085 * unit, fc=BLOCKED, ec="white", lw=0.9 * thick,
                                 zorder=5, gid=gid))  # fmt: skip
        for s in (-1, 1):
            self.ax.add_artist(Line2D([x - arm, x + arm], [y - arm * s, y + arm * s],
                                    color="white", lw=1.4 * thick, zorder=6))  # fmt: skip

    def _text(
        self, x: float, y: float, text: str, colour: str, size: float = 1.0,
        side: Any = "center", background: str | None = None,
    ) -> None:  # fmt: skip
        box: Any = None
        if background:
            box = {"boxstyle": "square,pad=0.15", "fc": background, "ec": "none"}
        self.ax.text(x, y, text, color=colour, fontsize=FONT * size * self.scale, ha=side,
                     va="center_baseline" if "\n" not in text else "center", parse_math=False,
                     family="DejaVu Sans", zorder=4, bbox=box, linespacing=1.15)  # fmt: skip

    # The strips above and below

    def _strips(self, width: float) -> tuple[list[str], list[list[tuple[str, Any]]]]:
        head = textwrap.wrap(_legible(self.look.title), max(44, int(width / 0.1)))
        foot: list[list[tuple[str, Any]]] = []
        for item in self.look.legend:
            if not foot or self._legend_width([*foot[-1], item]) > max(width, 3.6):
                foot.append([])
            foot[-1].append(item)
        return head, foot

    def _legend_width(self, row: list[tuple[str, Any]]) -> float:
        return sum(_sample(style) + 0.85 * _width(text) + 0.24 for text, style in row) - 0.24

    def _legend(self, row: list[tuple[str, Any]], x: float, y: float) -> None:
        unit = self.unit
        for text, style in row:
            if style is None:
                self._mark("legend-mark", x + 0.1 * unit, y, unit)
            elif isinstance(style, NodeLook):
                self._box("legend-node", x + 0.1 * unit, y, (0.2 * unit, 0.2 * unit), style)
            else:
                self._line("legend-edge", np.array([(x, y), (x + 0.34 * unit, y)]), style, 3)
            self._text(x + _sample(style) * unit, y, text, INK, 0.85 * unit, "left")
            x += (_sample(style) + 0.85 * _width(text) + 0.24) * unit


def _sample(style: Any) -> float:
    """Inches that the sample in a legend takes, with the space before its text."""
    return 0.42 if isinstance(style, EdgeLook) else 0.28


# Names


def _wrapped(label: Any) -> list[str]:
    """A label as lines of text that the font can show."""
    lines = []
    for part in _legible(str(label)).split("\n"):
        line = ""
        for piece in re.findall(r"[^_\s]{1,24}[_\s]*|[_\s]+", part):  # a name may break after _
            if line and len(line) + len(piece.rstrip()) > 24:
                lines.append(line.rstrip())
                line = ""
            line += piece
        lines += [line.rstrip()] if line else []
    return lines if len(lines) <= 6 else [*lines[:5], "..."]


def _legible(text: str) -> str:
    """The text with a box for each character that the font lacks."""
    known = _font().get_char_index
    return "".join(c if c == "\n" or known(ord(c)) else "\u25a1" for c in text)


def _width(line: str) -> float:
    """Inches of a line of text."""
    font = _font()
    font.set_size(FONT, 72)
    font.set_text(line, 0.0)
    return font.get_width_height()[0] / 64 / 72


def _font() -> Any:
    from matplotlib import get_data_path
    from matplotlib.font_manager import get_font

    return get_font(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf")


def _size(lines: list[str], scale: float) -> tuple[float, float]:
    if not lines:
        return (0.1, 0.1)
    high = HIGH + LINE * (len(lines) - 1)
    wide = max(_width(line) for line in lines)
    full = HIGH if wide < 0.24 and len(lines) == 1 else max(HIGH, wide + 2 * PAD)
    return (scale * full, scale * high)
