"""The lines of a drawing: borders of nodes, ways of edges, arrowheads. Points are arrays (n, 2)."""

import numpy as np

from .layout import Size

HIGH = 0.36  # inches of a node with one line, and twice the radius of its corners
HEAD_LONG, HEAD_WIDE = 0.13, 0.1  # of an arrow, in inches


def border_of(size: Size, square: bool = False) -> np.ndarray:
    """The border of a node around the origin: a circle, drawn out to its size, or a square."""
    turn = np.linspace(0, 2 * np.pi, 128, endpoint=False) + np.pi / 128
    round_ = np.stack([np.cos(turn), np.sin(turn)], 1)
    corner = radius(size, square)
    return corner * round_ + np.sign(round_) * (np.array(size) / 2 - corner)


def arc(start: np.ndarray, end: np.ndarray, bend: float) -> np.ndarray:
    """A parabola whose middle is beside the straight line, by `bend` of its length."""
    t = np.linspace(0, 1, 161)[:, None]
    side = np.array([start[1] - end[1], end[0] - start[0]])
    return start + t * (end - start) + 4 * t * (1 - t) * bend * side


def cornered(points: np.ndarray, near: float) -> np.ndarray:
    """The polygon with more points beside its corners, so that these are rounded off less."""
    steps = np.diff(points, axis=0)
    lengths = np.hypot(*steps.T)[:, None]
    inset = steps * np.minimum(near / np.maximum(lengths, 1e-9), 0.4)
    pieces = np.stack([points[:-1], points[:-1] + inset, points[1:] - inset], 1)
    return np.vstack([pieces.reshape(-1, 2), points[-1:]])


def smooth(points: np.ndarray) -> np.ndarray:
    """The polygon with its corners rounded (Chaikin 1974), as points close together."""
    for _ in range(4):
        quarters = points[:-1] + np.array([0.25, 0.75])[:, None, None] * np.diff(points, axis=0)
        inner = quarters.swapaxes(0, 1).reshape(-1, 2)  # two points on each side
        points = np.vstack([points[:1], inner[1:-1], points[-1:]])
    steps = np.hypot(*np.diff(points, axis=0).T).cumsum()
    along = np.concatenate([[0.0], steps])
    at = np.linspace(0, along[-1], 241)
    return np.stack([np.interp(at, along, points[:, 0]), np.interp(at, along, points[:, 1])], 1)


def distance(
    points: np.ndarray, centre: np.ndarray, size: Size, square: bool = False
) -> np.ndarray:
    """How far points are outside the border of a node with round corners; negative inside."""
    corner = radius(size, square)
    q = abs(points - centre) - np.array(size) / 2 + corner
    return np.hypot(*np.maximum(q, 0).T) + np.minimum(q.max(-1), 0) - corner


def clipped(points: np.ndarray, centre: np.ndarray, size: Size, square: bool = False) -> np.ndarray:
    """The line from where it leaves the node that it starts in."""
    away = distance(points, centre, size, square)
    inside = np.nonzero(away <= 0)[0]
    last = int(inside[-1]) if len(inside) else 0
    if not len(inside) or last == len(points) - 1:
        return points
    share = away[last] / (away[last] - away[last + 1])
    border = points[last] + share * (points[last + 1] - points[last])
    return np.vstack([border, points[last + 1 :]])


def hidden_points(points: np.ndarray, centres: np.ndarray, sizes: np.ndarray) -> int:
    """How many of the points lie within a node, or almost."""
    apart = abs(points[:, None] - centres[None]) - sizes / 2  # (points, nodes, 2)
    return int((apart < 0.03).all(-1).any(-1).sum())


def headed(points: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The line up to the arrowhead's base, the tip, and the way it points."""
    tip = points[-1]
    far = np.hypot(*(points - tip).T)
    before = np.nonzero(far >= HEAD_LONG * scale)[0]
    last = int(before[-1]) if len(before) else 0
    way = tip - points[last]
    way = way / max(float(np.hypot(*way)), 1e-9)
    return np.vstack([points[: last + 1], [tip - way * HEAD_LONG * scale * 0.9]]), tip, way


def reach(size: Size, way: np.ndarray) -> float:
    """Inches from the centre of a node to its border in a direction of length one."""
    along = np.linspace(0, np.hypot(*size), 200)
    outside = distance(along[:, None] * way, np.zeros(2), size) > 0
    return float(along[int(np.argmax(outside))])


def radius(size: Size, square: bool = False) -> float:
    """Of the corners of a node, which those of a square only round off."""
    return 0.1 * min(size) if square else float(min(size[0], size[1], HIGH)) / 2
