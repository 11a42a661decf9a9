"""Figures of flows over images: temperatures, the way between two images, scale by scale."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..distributions import Cut
from ..figures import Figure
from ..nn.image_flow import Scale
from ..plots import image_grid, is_picture
from .observation import label_of

if TYPE_CHECKING:
    from .flow import Flow

TEMPERATURES = (0.4, 0.6, 0.8, 1.0)
COLUMNS, PAIRS, DRAWS = 10, 4, 3


def image_flow_figures(program: "Flow", *batch: Tensor) -> Iterator[Figure]:
    """The figures of a flow over images; that between two images needs examples."""
    if not is_picture(program.shape):
        return
    yield Figure(
        "Temperature",
        "temperatures",
        lambda: image_grid(
            temperatures(program, COLUMNS).flatten(0, 1),
            COLUMNS,
            rows=[f"T = {temperature:g}" for temperature in TEMPERATURES],
        ),
        "Samples x = f(T z) with the same z ~ N(0, I) in each column: the lower the temperature T, "
        "the likelier and the less varied.",
    )
    if batch and len(batch[0]) > 1:
        yield Figure(
            "Between two images",
            "interpolation",
            lambda: image_grid(interpolations(program, *batch).flatten(0, 1), COLUMNS),
            "f of the points on the arc from the noise of one test image to that of another. Left "
            "and right are the images themselves: a flow loses nothing.",
        )
    scale = scales_of(program)
    if scale is not None and scale.inner is not None:
        count = 1 + int(scale.noise_scales(program.shape).max())
        names = [_kept(k, count) for k in range(count - 1)]
        yield Figure(
            "Scale by scale",
            "scales",
            lambda: image_grid(
                scale_samples(program, DRAWS, COLUMNS).flatten(0, 2),
                COLUMNS,
                rows=names * DRAWS,
                group=count - 1,
            ),
            "Samples where the noise of the scales named to the left is held fixed and that of the "
            "finer ones is drawn anew: what stays is what the coarse scales decide.",
        )


def scales_of(program: "Flow") -> Scale | None:
    """The outermost scale of a multi-scale flow; None for another."""
    first: Any = program.bijection.layers[0]
    return first if isinstance(first, Scale) else None


def _kept(k: int, count: int) -> str:
    """Names of the scales held fixed when those up to the k-th are drawn anew, the finest first."""
    if count == 2:
        return "coarse"
    return f"coarsest {count - 1 - k}" if k < count - 2 else "coarsest"


def _labels(program: "Flow", n: int) -> tuple[Tensor, ...]:
    """One of each class in turn, for programs that have classes."""
    if program.num_classes is None:
        return ()
    return (torch.arange(n, device=next(program.parameters()).device) % program.num_classes,)


def _noise(program: "Flow", n: int) -> Tensor:
    like = next(program.parameters())
    return torch.randn(n, *program.shape, dtype=like.dtype, device=like.device)


def _images(program: "Flow", z: Tensor, context: Tensor | None) -> Tensor:
    """x = f(z), at the levels of the data where they have any."""
    x, _ = program.bijection(z, context)
    return x if program.levels is None else Cut(x, program.levels).mean


def temperatures(program: "Flow", columns: int) -> Tensor:
    """x = f(T z), the same z in each column: (temperatures, columns, *shape)."""
    z = _noise(program, columns)
    context = label_of(program, z, *(_labels(program, columns) or (None,)))
    return torch.stack([_images(program, t * z, context) for t in TEMPERATURES])


def interpolations(program: "Flow", x: Tensor, *conditions: Tensor) -> Tensor:
    """From one example to the next: (PAIRS, COLUMNS, *shape), f of their own noise at the ends.

    Between them z = (sin((1 - t) w) z_1 + sin(t w) z_2) / sin(w), w the angle of the two, so that
    z is as long as noise is; a label goes straight from the one to the other.
    """
    count = min(PAIRS, len(x) // 2)
    x, conditions = x[: 2 * count], tuple(c[: 2 * count] for c in conditions)
    context = label_of(program, x, *(conditions or (None,)))
    v = x if program.levels is None else program.dequantiser(x).sample()
    z, _ = program.bijection.inverse(v, context)
    rows = []
    for k in range(count):
        start, end = z[2 * k], z[2 * k + 1]
        cosine = (start * end).sum() / (start.norm() * end.norm())
        angle = torch.acos(cosine.clamp(-0.999, 0.999))
        t = torch.linspace(0, 1, COLUMNS, device=z.device, dtype=z.dtype).view(-1, 1, 1, 1)
        between = (torch.sin((1 - t) * angle) * start + torch.sin(t * angle) * end) / angle.sin()
        labels = None
        if context is not None:
            share = t.view(-1, 1)
            labels = (1 - share) * context[2 * k] + share * context[2 * k + 1]
        rows.append(_images(program, between, labels))
    return torch.stack(rows)


def scale_samples(program: "Flow", draws: int, columns: int) -> Tensor:
    """f(z) with z of the coarse scales fixed and that of the finer ones drawn anew.

    Returns:
        (draws, S - 1, columns, *shape): along the second axis the noise of scales 0..k is new in
        each column, k = 0, ..., S - 2, scale 0 the finest.
    """
    scale = scales_of(program)
    if scale is None:
        raise ValueError("this flow has no scales")
    of = scale.noise_scales(program.shape).to(next(program.parameters()).device)
    labels = _labels(program, draws)
    found = []
    for k in range(draws):
        fixed = _noise(program, 1)
        mine = tuple(label[k : k + 1].expand(columns) for label in labels)
        for finer in range(int(of.max())):
            z = torch.where(of <= finer, _noise(program, columns), fixed)
            found.append(_images(program, z, label_of(program, z, *(mine or (None,)))))
    return torch.stack(found).unflatten(0, (draws, int(of.max())))
