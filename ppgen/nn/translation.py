"""Networks from image to image, and the one that judges them (Isola et al. 2017, appendix 6.1)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .attention import group_norm

DROPPED = 3  # stages on the way up with dropout
WIDEST = 8  # channels at most, as a multiple of the finest stage's


def depth_for(height: int, width: int, most: int = 7) -> int:
    """How often an image can be halved, to sides of no less than four pixels."""
    depth = 0
    while depth < most and height % 2 == width % 2 == 0 and min(height, width) >= 8:
        height, width, depth = height // 2, width // 2, depth + 1
    return depth


def patch_layers_for(side: int) -> int:
    """The most halvings whose patch is at most 0.6 times as long as an image, but at least one."""
    patches = {1: 16, 2: 34, 3: 70}
    return max(k for k, patch in patches.items() if k == 1 or patch <= 0.6 * side)


def initialise(module: nn.Module) -> None:
    """Weights of convolutions from N(0, 0.02^2), biases zero."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class TranslationUNet(nn.Module):
    """An image (n, C, H, W), any reals, from another of the same size: the U-Net of pix2pix.

    `depth` halvings by 4x4 convolutions and as many doublings by transposed ones, each of the
    latter fed with the stage of its size on the way down too. Group norm takes the place of batch
    norm: it needs no running averages, which would not be those of averaged weights, and no large
    batches. Norms of single channels, to which batch norm comes down in the paper's batches of
    one, turn the little that varies over the coarsest stages into a pattern that all pictures
    share. The outermost stages and the coarsest have none.

    Args:
        shape: (C, H, W) of the output.
        given: channels of the input.
        channels: of the finest stage; they double from stage to stage, up to eight times as many.
        depth: number of halvings; sides are divisible by 2^depth.
    """

    def __init__(self, shape: Sequence[int], given: int, channels: int, depth: int) -> None:
        super().__init__()
        made, height, width = shape
        widths = [channels * min(2**k, WIDEST) for k in range(depth)]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.noise: list[tuple[int, int, int]] = []  # shapes of the dropout masks, coarse to fine
        for k, features in enumerate(widths):
            normed = 0 < k < depth - 1
            layers: list[nn.Module] = [nn.LeakyReLU(0.2)] if k else []
            before = widths[k - 1] if k else given
            layers.append(nn.Conv2d(before, features, 4, 2, 1, bias=not normed))
            if normed:
                layers.append(group_norm(features))
            self.down.append(nn.Sequential(*layers))
        for k in reversed(range(depth)):
            inputs = widths[k] if k == depth - 1 else 2 * widths[k]
            features = widths[k - 1] if k else made
            layers = [nn.ReLU(), nn.ConvTranspose2d(inputs, features, 4, 2, 1, bias=not k)]
            if k:
                layers.append(group_norm(features))
                if len(self.noise) < DROPPED:
                    self.noise.append((features, height >> k, width >> k))
            self.up.append(nn.Sequential(*layers))
        self.apply(initialise)

    def forward(self, image: Tensor, masks: Sequence[Tensor]) -> Tensor:
        """Translate an image.

        Args:
            image: (n, given, H, W).
            masks: what the first stages on the way up are multiplied by, (n, *shape) for each
                shape of `noise`; or none.
        """
        features = image
        stages = []
        for layers in self.down:
            features = layers(features)
            stages.append(features)
        for k, layers in enumerate(self.up):
            if k:
                features = torch.cat([features, stages[-1 - k]], 1)
            features = layers(features)
            if k < len(masks):
                features = features * masks[k]
        return features


class PatchDiscriminator(nn.Module):
    """Logits (n, 1, h, w) that patches of an image x are real, given another image beside it.

    `layers` 4x4 convolutions with stride 2 and two with stride 1: each logit sees a patch of 16,
    34, 70, ... pixels for 1, 2, 3, ... layers.

    Args:
        given: channels of both images together.
        channels: of the first layer.
        layers: halvings.
    """

    def __init__(self, given: int, channels: int, layers: int) -> None:
        super().__init__()
        stages: list[nn.Module] = [nn.Conv2d(given, channels, 4, 2, 1), nn.LeakyReLU(0.2)]
        features = channels
        for k in range(1, layers + 1):
            before, features = features, channels * min(2**k, WIDEST)
            stride = 2 if k < layers else 1
            stages += [
                nn.Conv2d(before, features, 4, stride, 1, bias=False),
                group_norm(features),
                nn.LeakyReLU(0.2),
            ]
        stages.append(nn.Conv2d(features, 1, 4, 1, 1))
        self.layers = nn.Sequential(*stages)
        self.apply(initialise)

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        return self.layers(torch.cat([image, x], 1))
