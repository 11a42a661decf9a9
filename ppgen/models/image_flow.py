"""Multi-scale flows of images: RealNVP's layers, and how shapes part into scales."""

from collections.abc import Callable, Sequence

from ..nn.bijections import Bijection, Chain
from ..nn.coupling import AffineCoupling, CouplingNetwork
from ..nn.image_flow import ActNorm, Pixelwise, Scale
from .observation import at_least_one

Step = Callable[[tuple[int, int, int], int, int], list[Bijection]]
SMALLEST, MOST = 4, 4  # the side at which the default stops, and its most scales


def scales_of(shape: Sequence[int], scales: int | None = None) -> int:
    """How many times the sides of an image are halved: as asked, or as suits the shape.

    By default until the shorter side would be less than 4, and at most four times.

    Raises:
        ValueError: no image, scales < 1, or a side that does not halve so often.
    """
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(
            f"multi-scale flows take images, shape (C, H, W); got {tuple(shape)}: use RealNVP, "
            "MAF or NeuralSpline for these"
        )
    sides = shape[1:]
    possible = 0
    while all(side % 2 ** (possible + 1) == 0 for side in sides):
        possible += 1
    if possible == 0:
        odd = " and ".join(
            f"{name} {side}"
            for name, side in zip(("height", "width"), sides, strict=True)
            if side % 2
        )
        even = "x".join(str(side + side % 2) for side in sides)
        raise ValueError(
            f"shape {tuple(shape)} cannot be split into 2x2 blocks: odd {odd}; pad or resize to "
            f"{even}, or take RealNVP with network='mlp'"
        )
    if scales is None:
        most = min(possible, MOST)
        return max([1] + [k for k in range(1, most + 1) if min(sides) // 2**k >= SMALLEST])
    at_least_one("scales", scales)
    if scales > possible:
        step = 2**scales
        bad = [
            f"{name} {side}"
            for name, side in zip(("height", "width"), sides, strict=True)
            if side % step
        ]
        fits = "scales=1" if possible == 1 else f"scales from 1 to {possible}"
        raise ValueError(
            f"shape {tuple(shape)} cannot be halved {scales} times: {' and '.join(bad)} not "
            f"divisible by {step}; use {fits}"
        )
    return scales


def multiscale(
    shape: Sequence[int],
    step: Step,
    *,
    scales: int | None,
    steps: int,
    hidden: int,
    context: int,
) -> Scale:
    """`steps` times the layers of `step(shape, number, hidden)` a scale, finest outermost.

    `hidden` doubles at each coarser scale, where there are a quarter of the pixels. At least half
    of the noise is taken out at each scale but the last.
    """
    count = scales_of(shape, scales)
    at_least_one("steps", steps)
    at_least_one("hidden", hidden)
    channels, height, width = 4 * shape[0], shape[1] // 2, shape[2] // 2
    split = (channels, height, width)
    layers = [layer for k in range(steps) for layer in step(split, k, hidden)]
    if count == 1:
        return Scale(Chain(layers), Pixelwise(split, context), None)
    network = CouplingNetwork(
        channels // 2, channels, (height, width), hidden=hidden, context=context
    )
    kept = (channels // 2, height, width)
    inner = multiscale(
        kept, step, scales=count - 1, steps=steps, hidden=2 * hidden, context=context
    )
    return Scale(Chain(layers), AffineCoupling(network, swap=False), inner)


def multiscale_realnvp(
    shape: Sequence[int],
    *,
    scales: int | None = None,
    steps: int = 2,
    hidden: int = 64,
    blocks: int = 1,
    context: int = 0,
) -> Bijection:
    """The multi-scale RealNVP of images (Dinh, Sohl-Dickstein and Bengio 2017, section 3.6).

    Each scale takes 2x2 blocks apart and has `steps` times four affine couplings: two by
    checkerboard, black given white and white given black, and two by channels; then half of the
    channels is factored out. The networks see the image at half its side, which is where the
    coupling by checkerboard costs a quarter. Actnorm stands where the paper has batch
    normalisation. Factored-out halves are standardised given the rest.

    Args:
        shape: (C, H, W).
        scales: how often the sides are halved; None for what suits the shape.
        steps: groups of four couplings a scale.
        hidden: channels of the networks at the finest scale, doubled at each coarser one.
        blocks: residual blocks of each network.
        context: features of the context; 0 for none.

    Raises:
        ValueError: a shape that does not split, with the sides at fault.
    """

    def step(shape: tuple[int, int, int], number: int, hidden: int) -> list[Bijection]:
        layers: list[Bijection] = []
        for split in ("channel", "checkerboard"):  # from noise to pixels
            for swap in (True, False):
                network = CouplingNetwork(
                    shape[0] // 2, shape[0], shape[1:], hidden=hidden, blocks=blocks,
                    context=context,
                )  # fmt: skip
                layers += [AffineCoupling(network, split, swap=swap), ActNorm(shape[0])]
        return layers

    return multiscale(shape, step, scales=scales, steps=steps, hidden=hidden, context=context)
