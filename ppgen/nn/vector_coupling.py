"""Coupling bijections of vectors: half of the dimensions moved given the other half."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from .bijections import Bijection
from .mlp import ACTIVATIONS
from .spline import Elementwise


class Coupling(Bijection):
    """z = (f(x_b; network(x_a)), x_a), x_a the first half of x (Dinh et al. 2017, eqs. 4 and 5).

    Both ways are one network pass. The halves change places, so that in a chain of these layers
    the masks alternate.

    Args:
        features: D, 2 or more.
        elementwise: f.
        hidden: widths of the network.
        context: features of a context; 0 for none.
        activation: "relu", "gelu", "tanh" or "silu".

    Raises:
        ValueError: features < 2.
    """

    def __init__(
        self,
        features: int,
        elementwise: Elementwise,
        hidden: Sequence[int] = (64, 64),
        *,
        context: int = 0,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        if features < 2:
            raise ValueError(f"a coupling layer splits 2 dimensions or more; got {features}")
        self.elementwise = elementwise
        self.fixed, self.moved = features // 2, features - features // 2
        widths = [self.fixed + context, *hidden, elementwise.outputs * self.moved]
        layers = [nn.Linear(*pair) for pair in pairwise(widths)]
        with torch.no_grad():  # near the identity, and not at it: all gradients flow
            layers[-1].weight.mul_(0.1)
            layers[-1].bias.zero_()
        self.layers = nn.ModuleList(layers)
        self.activation = ACTIVATIONS[activation]()

    def _outputs(self, columns: Tensor, context: Tensor | None) -> Tensor:
        """(fixed, n) -> (outputs, moved, n)."""
        hidden = columns if context is None else torch.cat([columns, context.T])
        for depth, layer in enumerate(cast(Iterable[nn.Linear], self.layers)):
            hidden = torch.addmm(layer.bias[:, None], layer.weight, hidden)
            if depth < len(self.layers) - 1:
                hidden = self.activation(hidden)
        parameters = hidden.reshape(self.elementwise.outputs, self.moved, -1)
        return parameters.to(columns.dtype)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        fixed, rest = x.T.split([self.fixed, self.moved])
        moved, log_slope = self.elementwise(rest, self._outputs(fixed, context))
        return torch.cat([moved, fixed]).T, log_slope.sum(0)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        moved, fixed = z.T.split([self.moved, self.fixed])
        rest, log_slope = self.elementwise.solve(moved, self._outputs(fixed, context))
        return torch.cat([fixed, rest]).T, log_slope.sum(0)


class Permutation(Bijection):
    """A fixed random order of the dimensions, drawn when it is made; log-determinant 0."""

    order: Tensor
    back: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        order = torch.randperm(features)
        self.register_buffer("order", order)
        self.register_buffer("back", order.argsort())

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z.T.index_select(0, self.back).T, z.new_zeros(len(z))

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x.T.index_select(0, self.order).T, x.new_zeros(len(x))
