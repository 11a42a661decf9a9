"""Autoregressive bijections of vectors: one network pass one way, D turns the other."""

import torch
from torch import Tensor

from .bijections import Bijection
from .masked import MADE, Unrolled
from .spline import Elementwise


class Autoregressive(Bijection):
    """z_i = f(x_i; MADE(x_<i)): the masked autoregressive flow (Papamakarios et al. 2017).

    `inverse`, from data to noise, is one network pass; `forward` finds x_1, x_2, ... in D turns
    that together cost the arithmetic of one pass. `Inverted` exchanges them: the inverse
    autoregressive flow (Kingma et al. 2016).

    Args:
        elementwise: f.
        network: a `MADE` with as many outputs as f has parameters.
    """

    def __init__(self, elementwise: Elementwise, network: MADE) -> None:
        super().__init__()
        self.elementwise, self.network = elementwise, network

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        columns = x.T  # (D, n)
        parameters = self.network(columns, None if context is None else context.T)
        z, log_slope = self.elementwise(columns, parameters.to(x.dtype))
        return z.T, log_slope.sum(0)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        columns = z.T.contiguous()  # (D, n)
        turns = Unrolled(self.network, columns, None if context is None else context.T)
        found: list[Tensor] = [columns[0]] * len(columns)
        log_det = z.new_zeros(len(z))
        for turn, place in enumerate(self.network.order):
            parameters = turns.parameters(turn).to(z.dtype)
            found[place], log_slope = self.elementwise.solve(columns[place], parameters)
            turns.tell(turn, found[place])
            log_det = log_det + log_slope
        return torch.stack(found).T, log_det
