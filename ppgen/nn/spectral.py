"""Layers whose weights have spectral norm one (Miyato et al. 2018)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

START = 15  # iterations at birth, from where one a step keeps up


class Spectral(nn.Module):
    """A layer that uses weight / sigma, sigma the largest singular value of the weight.

    As a matrix (outputs, everything else) the weight W has sigma = u^T W v for its leading
    singular vectors, which power iteration tracks in buffers; the gradient takes u and v for
    constants (Miyato et al. 2018, eq. 12 and algorithm 1). A forward pass leaves them as they are:
    `advance` moves them, once a step of the player that moves the weights.
    """

    weight: Tensor
    u: Tensor
    v: Tensor

    def start(self) -> None:
        matrix = self.weight.detach().flatten(1)
        self.register_buffer("u", F.normalize(torch.randn(len(matrix)), dim=0))
        self.register_buffer("v", torch.zeros(matrix.shape[1]))
        for _ in range(START):
            self.iterate()

    @torch.no_grad()
    def iterate(self) -> None:
        """One step of power iteration."""
        matrix = self.weight.flatten(1)
        self.v.copy_(F.normalize(self.u @ matrix, dim=0))
        self.u.copy_(F.normalize(matrix @ self.v, dim=0))

    def normalised(self) -> Tensor:
        """weight / sigma."""
        with torch.autocast(self.weight.device.type, enabled=False):
            # Copies, so that losses of several steps may wait for one backward pass.
            sigma = self.u.clone() @ (self.weight.flatten(1) @ self.v.clone())
            return self.weight / sigma


class SpectralLinear(Spectral, nn.Linear):
    """`nn.Linear` with a weight of spectral norm one."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        nn.Linear.__init__(self, inputs, outputs, bias=bias)
        self.start()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.normalised(), self.bias)


class SpectralConv2d(Spectral, nn.Conv2d):
    """`nn.Conv2d` with a weight that has spectral norm one as a matrix."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0
    ) -> None:
        nn.Conv2d.__init__(self, inputs, outputs, kernel, stride=stride, padding=padding)
        self.start()

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.normalised(), self.bias)


def advance(network: nn.Module) -> None:
    """One step of power iteration in every layer of a network that has a spectral norm."""
    for module in network.modules():
        if isinstance(module, Spectral):
            module.iterate()


def linear(inputs: int, outputs: int, spectral_norm: bool, bias: bool = True) -> nn.Linear:
    """A linear layer, with a weight of spectral norm one if asked."""
    if spectral_norm:
        return SpectralLinear(inputs, outputs, bias)
    return nn.Linear(inputs, outputs, bias)


def conv(inputs: int, outputs: int, kernel: int, spectral_norm: bool, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps sizes, or halves them (stride 2); of spectral norm one if asked."""
    padding = math.ceil((kernel - stride) / 2)
    if spectral_norm:
        return SpectralConv2d(inputs, outputs, kernel, stride, padding)
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding)
