"""Figures of a hierarchy of latents: what each layer says of x, and what it decides in a sample."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import kl_divergence

from ..charts import BLUE, VERMILION, bars, drawn, heading, new_figure
from ..figures import Figure
from ..plots import image_grid, is_picture

if TYPE_CHECKING:
    from .hierarchical import HierarchicalVAE

DEAD = 0.1  # nats of KL, below which a layer says next to nothing of x
COLUMNS, DRAWS = 10, 3


def hierarchy_figures(program: "HierarchicalVAE", *batch: Tensor) -> Iterator[Figure]:
    """The figures of `HierarchicalVAE.figures`; the KL of the layers needs examples."""
    layers = len(program.latent_dims)
    if batch:
        direction = "" if program.top_down else (
            " Bottom up it is E log q(z_t | z_t-1) / p(z_t | z_t+1), which may be negative below "
            "the top.")  # fmt: skip
        yield Figure(
            "Layers",
            "layers",
            lambda: layers_chart(layer_terms(program, *batch)),
            f"The KL divergence of each layer of latents on the first {len(batch[0])} test "
            f"examples; below {DEAD} nats a layer is dead: it says nothing of x." + direction,
            chart=True,
        )
    if layers > 1 and is_picture(program.shape):
        yield Figure(
            "Layers" if batch else "Latents held fixed",
            "levels",
            lambda: _levels(program),
            "Samples from the prior where the latents named to the left are held fixed, at one "
            "draw a row, and those below are drawn anew: each the mean of p(x | z_1).",
        )


def layer_terms(program: "HierarchicalVAE", *batch: Tensor) -> dict[int, Tensor]:
    """The term `kl/z_t` of the negative ELBO by t from the top, at each example (n,), in nats.

    Top down the closed KL divergence at one draw of the layers above; bottom up, where there is
    none, log q(z_t | z_{t-1}) - log p(z_t | z_{t+1}) at one draw of all layers.
    """
    guide: Any = poutine.trace(program.guide).get_trace(*batch)
    model: Any = poutine.trace(poutine.replay(program.model, trace=guide)).get_trace(*batch)
    terms: dict[int, Tensor] = {}
    for t in range(len(program.latent_dims), 0, -1):
        q, p = guide.nodes[f"z_{t}"], model.nodes[f"z_{t}"]
        if program.top_down:
            terms[t] = kl_divergence(q["fn"], p["fn"])
        else:
            terms[t] = q["fn"].log_prob(q["value"]) - p["fn"].log_prob(p["value"])
    return terms


def layers_chart(terms: dict[int, Tensor]) -> bytes:
    """A bar for each layer's KL, the dead ones marked."""
    figure, (axes,) = new_figure(6.8, 0.9 + 0.42 * len(terms))
    dead = [float(value.double().mean()) < DEAD for value in terms.values()]
    names = {_subscript(t) + (", dead" if gone else ""): terms[t]
             for t, gone in zip(terms, dead, strict=True)}  # fmt: skip
    bars(axes, names, [VERMILION if gone else BLUE for gone in dead])
    heading(axes, "KL by layer", "top first")
    return drawn(figure)


def level_samples(program: "HierarchicalVAE", draws: int, columns: int) -> Tensor:
    """The mean of p(x | z_1) with z_L, ..., z_l held fixed and those below drawn anew.

    Returns:
        (draws, L - 1, columns, *shape): along the second axis l = L, ..., 2, where each has the
        layers of the one before fixed at the same values.
    """
    device = next(program.parameters()).device
    layers = len(program.latent_dims)
    found = []
    for k in range(draws):
        batch = [torch.zeros(columns, *program.shape, device=device)]
        if program.num_classes is not None:
            batch.append(torch.full((columns,), k % program.num_classes, device=device))
        model = poutine.uncondition(program.model)
        once: Any = poutine.trace(model).get_trace(*(t[:1] for t in batch))
        fixed: dict[str, Tensor] = {}
        for t in range(layers, 1, -1):
            fixed[f"z_{t}"] = once.nodes[f"z_{t}"]["value"].expand(columns, -1)
            some: Any = poutine.trace(poutine.condition(model, data=fixed)).get_trace(*batch)
            found.append(some.nodes["x"]["fn"].mean)
    return torch.stack(found).unflatten(0, (draws, layers - 1))


def _levels(program: "HierarchicalVAE") -> bytes:
    means = level_samples(program, DRAWS, COLUMNS)
    layers = len(program.latent_dims)
    names = [_subscript(layers)]
    for t in range(layers - 1, 1, -1):
        names.append(f"{_subscript(layers)}{', ' if t == layers - 1 else ' … '}{_subscript(t)}")
    return image_grid(means.flatten(0, 2), COLUMNS, rows=names * DRAWS, group=layers - 1)


def _subscript(t: int) -> str:
    return "z" + "".join(chr(ord("₀") + int(digit)) for digit in str(t))
