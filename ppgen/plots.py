"""Pictures as PNG bytes: samples, reconstructions and latent spaces; pixels by Pillow."""

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from .charts import (
    COLOURS,
    INK,
    drawn,
    font_path,
    histograms,
    joined,
    legible,
    new_figure,
    plain_text,
    scatter,
    square,
    warped_net,
)
from .data import Split
from .sites import device_of

TILE = 40  # pixels: smaller images are enlarged
GUTTER = 224  # the grey between images
GAP = 8  # pixels between groups of rows
PIECE = 5000  # examples that are looked through at once


# Pixels


def is_picture(shape: Sequence[int]) -> bool:
    """Whether examples of this shape are images: (C, H, W) or (H, W)."""
    return len(shape) in (2, 3)


def image_grid(
    images: Tensor,
    columns: int | None = None,
    pad: int = 2,
    scale: int | None = None,
    rows: Sequence[str] | None = None,
    heads: Sequence[str] | None = None,
    group: int | None = None,
) -> bytes:
    """Images side by side, row by row, on a grey ground.

    Args:
        images: (n, C, H, W) or (n, H, W), values in [0, 1] (clipped). One channel is grey, three
            are colour; of any other number each channel is a grey image, stacked in its tile.
        columns: images a row; by default the grid is nearly square.
        pad: pixels around and between the images.
        scale: every pixel becomes scale x scale; by default as many as make tiles of 40 pixels.
        rows: names written to the left of the rows.
        heads: names written above the columns.
        group: rows that belong together; a wider gap follows each so many.

    Raises:
        ValueError: no images, another number of axes, or columns, scale < 1, pad < 0.
    """
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4 or images.numel() == 0:
        raise ValueError(
            f"expected images of shape (n, C, H, W) or (n, H, W); got {tuple(images.shape)}"
        )
    if images.shape[1] not in (1, 3):
        images = images.flatten(1, 2)[:, None]  # (n, C, H, W) -> (n, 1, C * H, W)
    n, channels, height, width = images.shape
    columns = math.ceil(math.sqrt(n)) if columns is None else columns
    scale = math.ceil(TILE / min(height, width)) if scale is None else scale
    if columns < 1 or scale < 1 or pad < 0:
        raise ValueError(
            f"expected columns and scale of 1 or more, pad of 0 or more; "
            f"got columns={columns}, scale={scale}, pad={pad}"
        )
    columns = min(columns, n)
    lines = math.ceil(n / columns)
    values = images.detach().float().cpu().nan_to_num(0.0).clamp(0, 1)
    pixels = (values * 255).round().to(torch.uint8)
    pixels = pixels.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    high, wide = height * scale + pad, width * scale + pad
    tiles = torch.full((lines * columns, channels, high, wide), GUTTER, dtype=torch.uint8)
    tiles[:n, :, pad:, pad:] = pixels
    # (lines, columns, C, high, wide) -> (lines, high, columns, wide, C) -> one picture
    sheet = tiles.reshape(lines, columns, channels, high, wide).permute(0, 3, 1, 4, 2)
    canvas = torch.full(
        (lines * high + pad, columns * wide + pad, channels), GUTTER, dtype=torch.uint8
    )
    canvas[: lines * high, : columns * wide] = sheet.reshape(lines * high, columns * wide, channels)
    if group is not None:
        canvas = _parted(canvas, group * high, pad)
    if rows is not None:
        middles = [k * high + high / 2 + (k // group * GAP if group else 0) for k in range(lines)]
        canvas = torch.cat([_words_left(rows, middles, canvas), canvas], 1)
    if heads is not None:
        left = canvas.shape[1] - columns * wide - pad
        middles = [left + k * wide + (wide + pad) / 2 for k in range(columns)]
        canvas = torch.cat([_words_above(heads, middles, wide, canvas), canvas])
    return _png(canvas)


def _parted(canvas: Tensor, height: int, pad: int) -> Tensor:
    """The canvas with a gap between every so many lines of pixels and the next."""
    parts = list(canvas[: len(canvas) - pad].split(height))
    gap = torch.full((GAP, *canvas.shape[1:]), GUTTER, dtype=torch.uint8)
    between = [part for k, one in enumerate(parts) for part in ((gap, one) if k else (one,))]
    return torch.cat([*between, canvas[len(canvas) - pad :]])


def _words_left(names: Sequence[str], middles: Sequence[float], canvas: Tensor) -> Tensor:
    """A margin to the left of a picture where the names of its rows stand, at these heights."""
    from PIL import ImageFont

    spacing = min((b - a for a, b in pairwise(middles)), default=30.0)
    font = ImageFont.truetype(font_path(), max(11, min(15, int(spacing) // 2)))
    names = [legible(name, str(k))[:24] for k, name in enumerate(names)]
    width = 10 + max(math.ceil(font.getlength(name)) for name in names)
    places = [(width - 7, middle) for middle in middles]
    return _words(names, places, font, "rm", (len(canvas), width, canvas.shape[2]))


def _words_above(
    names: Sequence[str], middles: Sequence[float], wide: int, canvas: Tensor
) -> Tensor:
    """A margin above a picture where the names of its columns stand, as large as they fit."""
    from PIL import ImageFont

    names = [legible(name, str(k)) for k, name in enumerate(names)]
    sizes = [ImageFont.truetype(font_path(), size) for size in range(14, 8, -1)]
    fits = (f for f in sizes if max(f.getlength(name) for name in names) < wide - 3)
    font = next(fits, sizes[-1])
    places = [(middle, 11.0) for middle in middles]
    return _words(names, places, font, "mm", (20, canvas.shape[1], canvas.shape[2]))


def _words(
    names: Sequence[str],
    places: Sequence[tuple[float, float]],
    font: Any,
    anchor: str,
    size: tuple[int, int, int],
) -> Tensor:
    """uint8 (H, W, C) with names at places (across, down)."""
    import numpy as np
    from PIL import Image, ImageDraw

    height, width, channels = size
    image = Image.new("L", (width, height), GUTTER)
    draw = ImageDraw.Draw(image)
    for name, place in zip(names, places, strict=False):
        draw.text(place, name, 60, font, anchor=anchor)
    return torch.from_numpy(np.array(image))[..., None].expand(-1, -1, channels)


def _png(canvas: Tensor) -> bytes:
    """uint8 (H, W, 1 or 3) as a PNG."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(canvas.squeeze(-1).numpy()).save(out, "PNG")
    return out.getvalue()


def samples(x: Tensor, reference: Tensor | None = None) -> bytes | None:
    """Examples (n, *shape) as their shape asks for; None for shapes that have no picture.

    Images become a grid of ten columns, points of the plane a scatter plot, other vectors
    histograms of their first coordinates. The last two stand beside `reference`, the data.
    """
    if is_picture(x.shape[1:]):
        return image_grid(x, columns=10)
    if x.shape[1:] == (2,):
        return scatter(x, reference, "samples")
    if x.ndim == 2 and x.shape[1] > 0:
        return histograms(x, reference)
    return None


def nearest(x: Tensor, split: Split, count: int) -> Tensor:
    """The examples of a split nearest to each of x (n, *shape), (count, n, *shape), nearest first.

    By Euclidean distance; the split is read in pieces.
    """
    x = x.to(split.device)
    best = x.new_full((len(x), 0), 0.0)
    found = x.new_empty((len(x), 0, *x.shape[1:]))
    for start in range(0, len(split), PIECE):
        piece = split.batch(slice(start, start + PIECE))[0]
        distances = torch.cdist(x.flatten(1), piece.flatten(1))  # (n, piece)
        near, place = distances.topk(min(count, len(piece)), dim=1, largest=False)
        best, found = torch.cat([best, near], 1), torch.cat([found, piece[place]], 1)
        best, order = best.topk(min(count, best.shape[1]), dim=1, largest=False)
        found = torch.stack([rows[kept] for rows, kept in zip(found, order, strict=True)])
    return found.transpose(0, 1).cpu()


def reconstructions(originals: Tensor, means: Tensor) -> bytes:
    """Each example above its reconstruction; points of the plane are joined to theirs.

    Args:
        originals: images (n, C, H, W) or (n, H, W), or points (n, 2).
        means: the same shape.

    Raises:
        ValueError: the shapes differ, or have no picture.
    """
    if originals.shape != means.shape:
        raise ValueError(
            f"originals have shape {tuple(originals.shape)}, means {tuple(means.shape)}: "
            "they must be the same"
        )
    originals, means = originals.detach().cpu(), means.detach().cpu()
    if originals.shape[1:] == (2,):
        return joined(originals, means)
    if not is_picture(originals.shape[1:]):
        raise ValueError(
            f"expected images or points (n, 2); got examples of {tuple(originals.shape[1:])}"
        )
    columns = min(10, len(originals))
    full = max(1, len(originals) // columns) * columns  # whole rows only
    pairs = torch.stack(
        [t[:full].float().unflatten(0, (-1, columns)) for t in (originals, means)], 1
    )  # (lines, 2, columns, ...)
    names = ["data", "model"] * len(pairs)
    return image_grid(pairs.flatten(0, 2), columns, rows=names)


# Latent spaces


@torch.no_grad()
def manifold(program: nn.Module, y: Tensor | int | None = None, count: int = 20) -> bytes:
    """What a two-dimensional latent space decodes to, at equal steps of the prior's probability.

    The mean of p(x | z) at z = (Phi^-1(u_i), Phi^-1(u_j)), u = linspace(.05, .95, count), where
    Phi is the normal distribution function (Kingma and Welling 2014, figure 4). z_1 runs from
    left to right, z_2 from bottom to top. Examples that are points of the plane give a net.

    Args:
        program: has `latent_dim` of 2 and `decode(z[, y])`, a distribution or its mean.
        y: the label to condition on, one number.

    Raises:
        ValueError: the latent space has another number of dimensions, or count < 2.
    """
    if getattr(program, "latent_dim", None) != 2:
        raise ValueError(
            f"a manifold needs latent_dim=2; {type(program).__name__} has "
            f"{getattr(program, 'latent_dim', None)}"
        )
    if count < 2:
        raise ValueError(f"count must be 2 or more; got {count}")
    u = torch.linspace(0.05, 0.95, count, dtype=torch.float64)
    q = torch.special.ndtri(u).float()
    z2, z1 = torch.meshgrid(q.flip(0), q, indexing="ij")  # rows from the top: z2 falls
    z = torch.stack([z1, z2], -1).flatten(0, 1).to(device_of(program))  # (count^2, 2)
    labels = () if y is None else (torch.as_tensor(y).reshape(1).expand(len(z)).to(z.device),)
    with evaluating(program):
        found = program.decode(z, *labels)  # type: ignore[operator]
    mean = (found if isinstance(found, Tensor) else found.mean).cpu()
    if mean.shape[1:] == (2,):
        return warped_net(mean.unflatten(0, (count, count)))
    return image_grid(mean, count, pad=0)


@torch.no_grad()
def latents(
    program: nn.Module, x: Tensor, y: Tensor | None = None, classes: Sequence[str] | None = None
) -> bytes | None:
    """The means of q(z | x) in the plane, coloured by label; None unless `latent_dim` is 2.

    Args:
        program: has `latent_dim` and `encode(x[, y])`, a distribution or its mean.
        x: examples (n, *shape).
        y: their labels (n,); given to `encode` where the program has `num_classes`.
        classes: names of the labels.
    """
    if getattr(program, "latent_dim", None) != 2 or not hasattr(program, "encode"):
        return None
    device = device_of(program)
    conditional = y is not None and getattr(program, "num_classes", None) is not None
    conditions = (y.to(device),) if conditional and y is not None else ()
    with evaluating(program):
        found = program.encode(x.to(device), *conditions)  # type: ignore[operator]
    z = (found if isinstance(found, Tensor) else found.mean).float().cpu()
    if z.shape != (len(x), 2):
        return None
    figure, (axes,) = new_figure(5.6, 5.4)
    groups = [torch.arange(len(z))] if y is None else [(y == k).nonzero()[:, 0].cpu() for k in
              range(int(y.max()) + 1)]  # fmt: skip
    size = max(3.0, min(7.0, 130 / math.sqrt(len(z) + 1)))
    # Where q knows the label every class covers the prior, and there is no place to name it at.
    named = y is not None and not conditional and len(groups) <= 30
    centres = []
    for k, index in enumerate(groups):
        if len(index) == 0:
            continue
        colour = COLOURS[k % len(COLOURS)]
        name = str(k) if classes is None or k >= len(classes) else classes[k]
        name = plain_text(legible(name, str(k)))
        axes.plot(*z[index].T.numpy(), ".", ms=size, alpha=0.7, mew=0, color=colour, label=name)
        centres.append((z[index].median(0).values.tolist(), name, colour))
    for (across, up), name, colour in centres if named else ():
        box = {"boxstyle": "round,pad=0.22", "fc": "white", "ec": colour, "lw": 1.2, "alpha": 0.9}
        axes.text(across, up, name, color=INK, fontsize=9, weight="bold",
                  ha="center", va="center", bbox=box)  # fmt: skip
    if conditional and len(groups) <= 30:
        axes.legend(fontsize=8.5, frameon=False, labelcolor=INK, markerscale=2,
                    loc="center left", bbox_to_anchor=(1, 0.5))  # fmt: skip
    square(axes, z)
    axes.set_xlabel("$z_1$", color=INK)
    axes.set_ylabel("$z_2$", color=INK)
    return drawn(figure)


@contextmanager
def evaluating(program: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every part has the mode it had."""
    modes = {part: part.training for part in program.modules()}
    program.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode


# Charts
