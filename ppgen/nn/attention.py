"""Attention of the positions of an image to one another, or to a sequence."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def group_norm(channels: int, *, affine: bool = True) -> nn.GroupNorm:
    """Group normalisation in the most groups that divide the channels, of at least 16 each.

    16 channels a group serve as well as any number (Wu and He 2018, table 3), and with fewer the
    kernels for channels_last lose their vector instructions: ten to a hundred times slower.
    """
    return nn.GroupNorm(math.gcd(channels, max(channels // 16, 1)), channels, affine=affine)


@torch.no_grad()
def quiet(layer: nn.Module) -> None:
    """Start the last layer of a residual branch at a tenth of its usual weights.

    A deep network then starts near the identity, which speeds the first steps as zeros do, while
    gradients reach every layer from the first.
    """
    for parameter in layer.parameters():
        parameter.mul_(0.1)


class Attention(nn.Module):
    """x + W_o softmax(Q K^T / sqrt(d)) V on images (n, C, H, W); d = C / heads.

    The query comes from the normalised image. Key and value come from it too (self-attention), or
    with `context_dim` from a sequence (n, L, context_dim) (cross-attention: Vaswani et al. 2017;
    for images, Rombach et al. 2022, section 3.3). Tokens carry no position: the order of the
    context does not matter unless its entries say it, and the image has it from convolutions.

    PyTorch's fused kernels have no second derivatives and no forward mode: for these, run it
    under `torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`.
    """

    def __init__(self, channels: int, heads: int, context_dim: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.norm = group_norm(channels)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels if context_dim is None else context_dim, 2 * channels)
        self.out = nn.Linear(channels, channels)
        quiet(self.out)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # (n, H * W, C)
        key, value = self.key_value(tokens if context is None else context).chunk(2, -1)
        mixed = F.scaled_dot_product_attention(
            self._split(self.query(tokens)), self._split(key), self._split(value)
        )
        mixed = self.out(mixed.transpose(1, 2).flatten(2))  # (n, H * W, C)
        return x + mixed.transpose(1, 2).unflatten(2, x.shape[-2:])

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (n, heads, L, C / heads)
