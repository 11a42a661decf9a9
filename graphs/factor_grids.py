"""Factor graphs on grids: built at once, and recognised."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .factor_groups import Group, alike, real, states_first
from .tables import Variable


def grid_groups(unary: Any, pairwise: Any) -> tuple[tuple[int, int, int], list[Group], int | None]:
    """(H, W, K), the groups of unary factors and of edges down and right, and the batch.

    Raises:
        TypeError: other than real numbers. ValueError: shapes that do not fit.
    """
    both = pairwise if isinstance(pairwise, (tuple, list)) else (pairwise, pairwise)
    unary, *edges = alike(real(unary, "unary"), *(real(table, "pairwise") for table in both))
    if len(edges) != 2:
        raise ValueError(f"pairwise must be a table or a pair (down, right); got {len(edges)}")
    if unary.ndim not in (3, 4) or 0 in unary.shape[-3:]:
        raise ValueError(
            f"unary needs the shape (H, W, K) or (B, H, W, K); got {tuple(unary.shape)}"
        )
    height, width, size = (int(n) for n in unary.shape[-3:])
    shapes = [(height - 1, width), (height, width - 1)]
    lengths = {len(unary)} if unary.ndim == 4 else set()
    for way, table, cells in zip(("down", "right"), edges, shapes, strict=True):
        if table.shape != (size, size) and tuple(table.shape[-4:]) != (*cells, size, size):
            raise ValueError(
                f"the tables of the edges {way} need the shape ({size}, {size}) or "
                f"{(*cells, size, size)}; got {tuple(table.shape)}"
            )
        if table.ndim > 5:
            raise ValueError(f"the tables of the edges {way} have {table.ndim} axes, over 5")
        lengths |= {len(table)} if table.ndim == 5 else set()
    if len(lengths) > 1:
        raise ValueError(f"batches of different lengths: {sorted(lengths)}")
    batch = lengths.pop() if lengths else None
    at = np.arange(height * width).reshape(height, width)
    all_scopes = [
        at.reshape(-1, 1),
        np.stack([at[:-1].ravel(), at[1:].ravel()], 1),
        np.stack([at[:, :-1].ravel(), at[:, 1:].ravel()], 1),
    ]
    groups: list[Group] = []
    done = 0
    for scopes, table in zip(all_scopes, (unary, *edges), strict=True):
        arity = scopes.shape[1]
        numbers = np.arange(done, done + len(scopes))
        if arity == 1 or table.ndim > 2:  # states first, then the cells, then the batch
            table = table.reshape(*table.shape[: -arity - 2], len(scopes), *(size,) * arity)
        else:
            table = table[None]
        table = states_first(table, arity)
        if batch is not None and table.ndim == arity + 1:
            table = table[..., None]
        if len(scopes):
            groups.append(Group((size,) * arity, scopes, numbers, table))
        done += len(scopes)
    return (height, width, size), groups, batch


def grid_shape(
    variables: Sequence[Variable], cardinalities: Mapping[Variable, int], groups: Sequence[Group]
) -> tuple[int, int, int] | None:
    """(H, W, K) of a regular grid with 4 neighbours, else None; see `FactorGraph.grid_shape`."""
    kinds = set(cardinalities.values())
    if not variables:
        return None
    pairs = all(
        type(v) is tuple and len(v) == 2 and type(v[0]) is int and type(v[1]) is int
        for v in variables
    )
    if len(kinds) != 1 or not pairs or any(len(g.shape) not in (1, 2) for g in groups):
        return None
    cells = np.array(variables)
    height, width = (int(n) + 1 for n in cells.max(0))
    at = np.arange(len(cells))
    if height * width != len(cells) or (cells @ [width, 1] != at).any() or cells.min() < 0:
        return None
    steps = [np.sort(g.scopes, 1) for g in groups if len(g.shape) == 2]
    edges = np.concatenate(steps) if steps else np.empty((0, 2), np.int64)
    down = edges[:, 1] - edges[:, 0] == width
    right = (edges[:, 1] - edges[:, 0] == 1) & (edges[:, 1] % width > 0)
    wanted = (height - 1) * width + height * (width - 1)
    if len(edges) != wanted or not (down | right).all():
        return None
    # A grid of one column has its steps down where another has them to the right.
    codes = edges[:, 0] * 2 + (down & ~right)
    return (height, width, kinds.pop()) if len(np.unique(codes)) == wanted else None
