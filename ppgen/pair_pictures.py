"""Pictures of pairs: what was given above what was made of it."""

from typing import Any

import torch
from torch import Tensor

from . import plots

COLUMNS = 10


def pair_rows(images: dict[str, Tensor], columns: int = COLUMNS) -> bytes:
    """Images that belong together below each other, line by line.

    Args:
        images: by the name of their row, each (n, C, H, W) in [0, 1].
        columns: how many stand side by side.
    """
    several = [in_colour(x.detach().cpu().float()) for x in images.values()]
    n = len(several[0])
    columns = min(columns, n)
    lines = -(-n // columns)
    blank = lines * columns - n
    if blank:  # so that the last line has as many as the others
        several = [torch.cat([x, x.new_full((blank, *x.shape[1:]), 224 / 255)]) for x in several]
    sheet = torch.stack([x.unflatten(0, (lines, columns)) for x in several], 1)
    names = [*images] * lines
    return plots.image_grid(sheet.flatten(0, 2), columns, rows=names, group=len(images))


def in_colour(x: Tensor) -> Tensor:
    """Images (n, C, H, W) with three channels: any number but three becomes grey, by its mean."""
    return x if x.shape[1] == 3 else x.mean(1, keepdim=True).expand(-1, 3, -1, -1)


def preview(dataset: Any, count: int = 100) -> bytes | None:
    """The first training examples as a picture, with the images that accompany them above.

    None where they have no picture.
    """
    x, *conditions = dataset.train.batch(slice(0, count))
    shown = {
        name: condition
        for name, condition in zip(dataset.condition_names, conditions, strict=True)
        if condition.shape[-2:] == x.shape[-2:] and condition.ndim == x.ndim == 4
    }
    if not shown:
        return plots.samples(x)
    few = slice(0, count // 2)
    return pair_rows({name: t[few] for name, t in (shown | {"x": x}).items()})
