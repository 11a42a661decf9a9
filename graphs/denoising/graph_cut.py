"""The exact minimum of a submodular energy of two labels on a grid, by a minimum cut."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .energy import LATER, sides
from .persistency import Bounds

Grid = np.ndarray[Any, Any]
SCALE = 2**26  # the largest sum of integer weights at a pixel: sums of a few such stay in 32 bits
LEAST = 1e-290  # a sum of weights that can still be divided by


@dataclass(frozen=True, eq=False)
class Cut:
    """A labelling of least cost."""

    labels: Grid
    """(H, W) of booleans."""
    cost: float
    """sum_i unary_i [x_i] + sum_ij w_ij [x_i != x_j] of these labels; -inf where a cost of -inf
    forces label 1."""
    rounding: float
    """The cost is at most so far above the minimum: sum over all terms of what rounding them to
    integers changed. 0 where nothing was changed."""
    searched: int
    """Pixels that were left to the flow; the others were proved to have their label before."""


def minimum_cut(
    unary: Any,
    down: Any,
    right: Any,
    down_right: Any = None,
    down_left: Any = None,
) -> Cut:
    """argmin over x in {0, 1}^(H, W) of sum_i unary_i x_i + sum_{ij} w_ij [x_i != x_j], exactly.

    It is a minimum cut between two terminals, where pixel i hangs on one of them with |unary_i| and
    on its neighbours with w_ij. Costs are scaled to integers, for which the cut is exact. Where the
    label of a pixel, or of a block of two by two, is proved whatever the pixels around it are
    (`persistency`), it is fixed at once, and SciPy's maximum flow (Dinic) sees the rest alone.

    Args:
        unary: (H, W), the cost of label 1 less that of label 0; infinite where a label is forced.
        down: weight between (r, c) and (r + 1, c): a number, or (H - 1, W); zero or more.
        right: between (r, c) and (r, c + 1): a number, or (H, W - 1).
        down_right: between (r, c) and (r + 1, c + 1): a number, or (H - 1, W - 1); None for none.
        down_left: between (r, c + 1) and (r + 1, c): the same.

    Raises:
        ValueError: shapes that do not fit, NaN, weights that are negative or infinite.

    Source: Greig, Porteous and Seheult (1989), JRSS B 51; Kolmogorov and Zabih (2004), PAMI 26, for
        what can be minimised in this way.
    """
    costs = np.asarray(unary, np.float64)
    if costs.ndim != 2 or not costs.size:
        raise ValueError(f"unary must be (H, W) with pixels in it; got shape {costs.shape}")
    if np.isnan(costs).any():
        raise ValueError(f"unary holds {np.isnan(costs).sum()} NaN; give costs, or +-inf to force")
    given = {"right": right, "down": down, "down_right": down_right, "down_left": down_left}
    weights = []
    for (name, value), offset in zip(given.items(), LATER[8], strict=True):
        if value is not None:
            weight = _checked(name, value, costs.shape, offset)
            if pairs_of(costs.shape, offset):
                weights.append((offset, weight))

    sums = np.zeros_like(costs)  # of the weights at each pixel
    for offset, weight in weights:
        first, second = sides(offset)
        sums[first] += weight
        sums[second] += weight
    unit = max(float(sums.max()), LEAST)
    # A cost above the sum of the weights decides its pixel, and twice that sum does as well: so no
    # cost is out of proportion. At least 64 of the integers are left of it, lest rounding the
    # weights undo the decision.
    decided = np.abs(costs) > sums * (1 + 1e-12)
    limit = np.maximum(2 * sums, 64 / SCALE * unit)
    moderate = np.where(decided, np.copysign(limit, costs), costs)
    scale = SCALE / unit
    numbers = np.rint(moderate * -scale).astype(np.int32)  # the gain of label 1
    rounding = np.where(decided, 0.0, np.abs(moderate + numbers / scale)).sum()
    integers = []
    for offset, weight in weights:
        rounded = np.rint(weight * scale).astype(np.int32)
        changed = np.abs(weight - rounded / scale)
        rounding += changed.sum() * (1 if weight.ndim else pairs_of(costs.shape, offset))
        integers.append((offset, rounded))

    bounds = Bounds(numbers, integers)
    bounds.tighten()
    labels = bounds.fixed > 0
    free = bounds.fixed == 0
    searched = int(np.count_nonzero(free))
    if searched:
        labels[free] = _flow(bounds.gains(free), integers, free)
    cost = float(costs[labels].sum())
    for offset, weight in weights:
        first, second = sides(offset)
        cut = labels[first] != labels[second]
        cost += float(weight[cut].sum() if weight.ndim else weight * np.count_nonzero(cut))
    return Cut(labels, cost, float(rounding), searched)


def pairs_of(shape: tuple[int, ...], offset: tuple[int, int]) -> int:
    return (shape[0] - offset[0]) * (shape[1] - abs(offset[1]))


def _checked(name: str, value: Any, shape: tuple[int, ...], offset: tuple[int, int]) -> Grid:
    weight = np.asarray(value, np.float64)
    wanted = (shape[0] - offset[0], shape[1] - abs(offset[1]))
    if weight.ndim and weight.shape != wanted:
        raise ValueError(
            f"{name} must be a number or {wanted}, for an image {shape}; got {weight.shape}"
        )
    if not (weight < 1e300).all():
        raise ValueError(f"{name} holds NaN or infinity; weights must be finite, below 1e300")
    if (weight < 0).any():
        raise ValueError(
            f"{name} holds a negative weight, {weight.min():g}: the energy is not submodular, and "
            "no cut minimises it"
        )
    return weight


def _flow(gains: Grid, weights: Sequence[tuple[tuple[int, int], Grid]], free: Grid) -> Grid:
    """Labels (n,) of the free pixels, by maximum flow among them.

    Args:
        gains: (n,), of label 1, given the fixed pixels.
        weights: by offset.
        free: (H, W).
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    count = len(gains)
    source, sink = count, count + 1
    width = free.shape[1]
    number = np.full((free.shape[0] + 2, width + 2), -1, np.int32)  # with a border
    number[1:-1, 1:-1][free] = np.arange(count, dtype=np.int32)
    places = np.flatnonzero(number.ravel() >= 0)
    number = number.ravel()
    # Of each pixel: its neighbours in raster order, then its terminal. That is a sorted row of CSR.
    entries = []
    for offset, weight in weights:
        forward, backward = (np.zeros((free.shape[0], width), np.int32) for _ in range(2))
        first, second = sides(offset)
        forward[first] = weight
        backward[second] = weight
        step = offset[0] * (width + 2) + offset[1]
        entries += [(step, forward[free]), (-step, backward[free])]
    entries.sort(key=lambda entry: entry[0])
    columns = np.empty((count, len(entries) + 1), np.int32)
    capacities = np.empty_like(columns)
    for k, (step, capacity) in enumerate(entries):
        columns[:, k] = number[places + step]
        capacities[:, k] = capacity
    columns[:, -1] = np.where(gains > 0, source, sink)
    capacities[:, -1] = np.maximum(-gains, 0)
    there = (columns >= 0) & (capacities > 0)
    there[:, -1] = True  # both directions of each edge, so that SciPy need not add them
    given, taken = np.flatnonzero(gains > 0), np.flatnonzero(gains <= 0)
    lengths = np.concatenate([[0], there.sum(1), [len(given), len(taken)]])
    graph = csr_array(
        (
            np.concatenate([capacities[there], gains[given], np.zeros_like(gains[taken])]),
            np.concatenate([columns[there], given, taken]).astype(np.int32),
            lengths.cumsum().astype(np.int32),
        ),
        shape=(count + 2, count + 2),
    )
    found = maximum_flow(graph, source, sink, method="dinic")
    left = graph - found.flow
    left.eliminate_zeros()
    reached = breadth_first_order(left, source, return_predecessors=False)
    labels = np.zeros(count + 2, bool)
    labels[reached] = True
    return labels[:count]
