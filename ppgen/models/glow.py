"""Glow: a multi-scale flow of images with invertible 1x1 convolutions."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

from torch import Tensor

from ..figures import Figure
from ..nn.bijections import Bijection
from ..nn.coupling import AffineCoupling, CouplingNetwork
from ..nn.image_flow import ActNorm, InvertibleConvolution
from .flow import Dequantisation, Flow
from .flow_figures import image_flow_figures
from .image_flow import multiscale


class Glow(Flow):
    """A multi-scale flow of actnorm, 1x1 convolution, affine coupling (Kingma and Dhariwal 2018).

    From pixels to noise, each scale takes 2x2 blocks apart into channels, runs `steps` of flow,
    and factors half of the channels out: these are standardised given the other half, which goes
    on to the next scale. With `num_classes` every network knows the label.

    Args:
        shape: (C, H, W), both sides even.
        levels: of the data; None for reals.
        num_classes: classes of the label y; None for none.
        scales: how often the sides are halved; None for what suits the shape: until the shorter
            side would be less than 4, at most four times.
        steps: of flow a scale.
        hidden: channels of the coupling networks at the finest scale, doubled at each coarser one.
        blocks: residual blocks of each network.
        dequantisation: "uniform" or "variational", for data with levels.

    Raises:
        ValueError: a shape that does not split, with the sides at fault and the scales that do.
    """

    training_defaults: ClassVar[dict[str, float]] = {"lr": 3e-3, "clip_norm": 5.0, "ema": 0.999}

    def __init__(
        self,
        shape: Sequence[int],
        *,
        levels: int | None = None,
        num_classes: int | None = None,
        scales: int | None = None,
        steps: int = 8,
        hidden: int = 64,
        blocks: int = 1,
        dequantisation: Dequantisation = "uniform",
    ) -> None:
        context = num_classes or 0

        def step(shape: tuple[int, int, int], number: int, hidden: int) -> list[Bijection]:
            network = CouplingNetwork(
                shape[0] // 2, shape[0], shape[1:], hidden=hidden, blocks=blocks, context=context
            )
            return [
                AffineCoupling(network, swap=False),
                InvertibleConvolution(shape[0]),
                ActNorm(shape[0]),
            ]

        bijection = multiscale(
            shape, step, scales=scales, steps=steps, hidden=hidden, context=context
        )
        super().__init__(
            shape,
            bijection,
            levels=levels,
            num_classes=num_classes,
            dequantisation=dequantisation,
        )

    def figures(self, *batch: Tensor) -> Iterator[Figure]:
        """Temperatures, the way between two test images, and samples scale by scale."""
        return image_flow_figures(self, *batch)
