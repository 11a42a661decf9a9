"""Masked networks: all conditionals of a factorised density in one pass (MADE)."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from .mlp import ACTIVATIONS


class MaskedLinear(nn.Linear):
    """W x + b with some weights held at zero, on columns: (inputs, n) -> (outputs, n).

    Args:
        mask: (outputs, inputs), true where there is a weight.
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask.to(self.weight.dtype), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias[:, None], self.weight * self.mask, x)


class MADE(nn.Module):
    """Parameters of each dimension from those before it: (features, n) -> (outputs, features, n).

    The masked autoencoder (Germain et al. 2015): a hidden unit of degree m sees the first m
    dimensions, and the parameters of the t-th dimension see units of degree below t. Examples
    are columns, so that what follows runs along them.

    Args:
        features: D.
        outputs: parameters a dimension.
        hidden: widths; units take the degrees evenly, in ascending order.
        context: features of a context, which all parameters see; 0 for none.
        reverse: the last dimension comes first.
        activation: "relu", "gelu", "tanh" or "silu".
    """

    def __init__(
        self,
        features: int,
        outputs: int,
        hidden: Sequence[int] = (64, 64),
        *,
        context: int = 0,
        reverse: bool = False,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.features, self.outputs = features, outputs
        self.order = tuple(reversed(range(features))) if reverse else tuple(range(features))
        rank = torch.empty(features, dtype=torch.long)
        rank[list(self.order)] = torch.arange(1, features + 1)
        lowest = 0 if context else min(1, features - 1)
        degrees = [rank]
        for width in hidden:
            spread = torch.linspace(lowest, features - 1e-3, width, dtype=torch.float64)
            degrees.append(spread.floor().long())
        masks = [after[:, None] >= before for before, after in pairwise(degrees)]
        masks.append((rank[:, None] > degrees[-1]).repeat(outputs, 1))
        layers = [MaskedLinear(mask) for mask in masks]
        with torch.no_grad():  # near the map that zeros are, and not at it: all gradients flow
            layers[-1].weight.mul_(0.1)
            layers[-1].bias.zero_()
        self.layers = nn.ModuleList(layers)
        self.activation = ACTIVATIONS[activation]()
        self.context = nn.Linear(context, len(masks[0]), bias=False) if context else None
        # How many units of each layer the t-th parameters see; the inputs count as a layer.
        self.seen = [list(range(features))]
        self.seen += [[int((d <= t).sum()) for t in range(features)] for d in degrees[1:]]

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        for depth, layer in enumerate(self.layers):
            x = layer(x)
            if depth == 0 and self.context is not None and context is not None:
                x = torch.addmm(x, self.context.weight, context)
            if depth < len(self.layers) - 1:
                x = self.activation(x)
        return x.reshape(self.outputs, self.features, -1)


class Unrolled:
    """A MADE taken one dimension at a time, each unit computed once, when all it sees is known.

    D turns cost as much arithmetic as one pass. A dimension's parameters are asked for, then its
    value is told.

    Args:
        network: the MADE.
        like: (features, n), for the number type.
        context: (context, n), or None.
    """

    def __init__(self, network: MADE, like: Tensor, context: Tensor | None) -> None:
        self.network = network
        layers = cast(Iterable[MaskedLinear], network.layers)
        self.weights: list[Tensor] = [layer.weight for layer in layers]
        self.biases: list[Tensor] = [layer.bias[:, None] for layer in layers]
        self.context: Tensor | None = None
        if network.context is not None and context is not None:
            self.context = network.context.weight @ context
            if len(self.weights) == 1:
                self.biases[0] = self.biases[0] + self.context
        turned = network.order[0] != 0  # the last dimension comes first
        if len(self.weights) > 1 and turned:
            self.weights[0] = self.weights[0].flip(1)  # columns as they come
        shape = (network.outputs, network.features, -1)
        self.last = self.weights[-1].reshape(shape)
        self.last_bias = self.biases[-1].reshape(shape)
        if len(self.weights) == 1 and turned:
            self.last = self.last.flip(-1)
        rows = [network.features, *(len(bias) for bias in self.biases[:-1])]
        self.values = [like.new_empty(count, like.shape[1]) for count in rows]

    def parameters(self, turn: int) -> Tensor:
        """Those of the dimension `order[turn]`, (outputs, n)."""
        seen = self.network.seen
        for depth in range(1, len(seen)):
            end = seen[depth][turn]
            start = seen[depth][turn - 1] if turn else 0
            if start == end:
                continue
            before = self.values[depth - 1][: seen[depth - 1][turn]]
            weight = self.weights[depth - 1][start:end, : len(before)]
            units = torch.addmm(self.biases[depth - 1][start:end], weight, before)
            if depth == 1 and self.context is not None:
                units = units + self.context[start:end]
            self._put(depth, start, self.network.activation(units))
        place = self.network.order[turn]
        before = self.values[-1][: seen[-1][turn]]
        return torch.addmm(self.last_bias[:, place], self.last[:, place, : len(before)], before)

    def tell(self, turn: int, value: Tensor) -> None:
        """The value of the dimension `order[turn]`, (n,)."""
        self._put(0, turn, value[None])

    def _put(self, depth: int, start: int, rows: Tensor) -> None:
        if torch.is_grad_enabled():  # what went into a product must stay as it was
            self.values[depth] = torch.cat([self.values[depth][:start], rows])
        else:
            self.values[depth][start : start + len(rows)] = rows
