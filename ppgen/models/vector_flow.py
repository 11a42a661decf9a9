"""Flows over vectors, each a choice of layers: RealNVP, MAF, IAF and neural splines."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, get_args

from torch import Tensor

from ..figures import Figure
from ..names import one_of
from ..nn.autoregressive import Autoregressive
from ..nn.bijections import Bijection, Chain, Flattened, Inverted, Standardise
from ..nn.masked import MADE
from ..nn.mlp import ACTIVATIONS
from ..nn.spline import Affine, Elementwise, RationalQuadratic
from ..nn.vector_coupling import Coupling, Permutation
from .flow import Dequantisation, Flow
from .flow_figures import image_flow_figures
from .image_flow import multiscale_realnvp
from .observation import at_least_one

Activation = Literal["relu", "gelu", "tanh", "silu"]
Kind = Literal["coupling", "autoregressive"]
Network = Literal["mlp", "multiscale"]


class RealNVP(Flow):
    """The real-valued non-volume-preserving flow (Dinh, Sohl-Dickstein and Bengio 2017).

    Affine coupling: half of the dimensions are scaled and shifted by what a network reads off the
    other half, and the masks alternate; densities and samples both are one network pass a layer.
    On images the layers are those of `multiscale_realnvp`, by checkerboards and channels.

    Args:
        shape: of one example.
        network: "mlp" (couplings of the flattened example), "multiscale" (images (C, H, W) with
            even sides), or None for "multiscale" where the shape has three dimensions.
        layers: couplings of the "mlp" flow, by default 8; of "multiscale" the groups of four
            couplings a scale, by default 2.
        hidden: widths of the network of each coupling, by default two of 128; for "multiscale"
            one number, the channels at the finest scale, by default 64.
        activation: "relu", the default, "gelu", "tanh" or "silu", of the "mlp" networks.
        scales: how often "multiscale" halves the sides; None for what suits the shape.
        levels: of the data, dequantised; None for reals.
        num_classes: classes of the label y; None for none.
        dequantisation: "uniform" or "variational", for data with levels.

    Raises:
        ValueError: impossible numbers, unknown names, or a shape that does not split.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        network: Network | None = None,
        layers: int | None = None,
        hidden: int | Sequence[int] | None = None,
        activation: Activation | None = None,
        scales: int | None = None,
        levels: int | None = None,
        num_classes: int | None = None,
        dequantisation: Dequantisation = "uniform",
    ) -> None:
        if network is None:
            network = "multiscale" if len(shape) == 3 else "mlp"
        one_of("network", network, get_args(Network))
        hidden = (hidden,) if isinstance(hidden, int) else hidden
        if network == "mlp":
            if scales is not None:
                raise ValueError("scales are those of network='multiscale'; leave them out")
            widths, count = (
                (128, 128) if hidden is None else hidden,
                8 if layers is None else layers,
            )
            made = _couplings(shape, Affine, count, widths, activation or "relu", num_classes)
            bijection = _of_vectors(shape, made, levels)
        else:
            if activation is not None:
                raise ValueError("activation is that of network='mlp'; leave it out")
            channels = (64,) if hidden is None else tuple(hidden)
            if len(channels) != 1:
                raise ValueError(
                    f"hidden of network='multiscale' is one number of channels; got {channels}"
                )
            bijection = multiscale_realnvp(
                shape, scales=scales, steps=2 if layers is None else layers, hidden=channels[0],
                context=num_classes or 0,
            )  # fmt: skip
        super().__init__(
            shape, bijection, levels=levels, num_classes=num_classes, dequantisation=dequantisation
        )

    def figures(self, *batch: Tensor) -> Iterator[Figure]:
        """Of images: temperatures, the way between two of them, and samples scale by scale."""
        return image_flow_figures(self, *batch)


class MAF(Flow):
    """The masked autoregressive flow (Papamakarios, Pavlakou and Murray 2017).

    z_i = (x_i - m_i(x_<i)) / s_i(x_<i) in every layer, all m and s from one masked network; the
    order of the dimensions turns round from layer to layer. A density is one network pass a
    layer; samples come one dimension after the other, D turns a layer. `IAF` is the reverse.

    Args:
        shape: of one example, taken as a vector.
        layers: of the flow.
        hidden: widths of the network of each layer.
        activation: "relu", "gelu", "tanh" or "silu".
        levels: of the data, dequantised; None for reals.
        num_classes: classes of the label y; None for none.
        dequantisation: "uniform" or "variational", for data with levels.

    Raises:
        ValueError: impossible numbers, or unknown names.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        layers: int = 5,
        hidden: Sequence[int] = (128, 128),
        activation: Activation = "relu",
        levels: int | None = None,
        num_classes: int | None = None,
        dequantisation: Dequantisation = "uniform",
    ) -> None:
        made = _autoregressive(shape, Affine, layers, hidden, activation, num_classes)
        super().__init__(
            shape, _of_vectors(shape, made, levels), levels=levels, num_classes=num_classes,
            dequantisation=dequantisation,
        )  # fmt: skip


class IAF(Flow):
    """The inverse autoregressive flow (Kingma et al. 2016): `MAF`, the other way round.

    x_i = z_i s_i(z_<i) + m_i(z_<i): samples, and the density of the flow's own samples, are one
    network pass a layer, which is what a guide of Pyro's needs. The density of data takes D turns
    a layer, and so does a training step on data: fit a `MAF` or a coupling flow instead, unless
    fast samples are worth it.

    Args and errors are those of `MAF`.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        layers: int = 5,
        hidden: Sequence[int] = (128, 128),
        activation: Activation = "relu",
        levels: int | None = None,
        num_classes: int | None = None,
        dequantisation: Dequantisation = "uniform",
    ) -> None:
        made = _autoregressive(shape, Affine, layers, hidden, activation, num_classes)
        inverted = [Inverted(layer) for layer in made]
        super().__init__(
            shape, _of_vectors(shape, inverted, levels), levels=levels, num_classes=num_classes,
            dequantisation=dequantisation,
        )  # fmt: skip


class NeuralSpline(Flow):
    """The neural spline flow (Durkan, Bekasov, Murray and Papamakarios 2019).

    Each layer maps every dimension by a monotone rational-quadratic spline whose knots and slopes
    a network reads off other dimensions: in a coupling layer one half from the other, so that
    densities and samples both are one network pass a layer; in an autoregressive layer each from
    those before it, which fits closer with as many layers and samples in D turns a layer.

    Args:
        shape: of one example, taken as a vector.
        kind: "coupling" or "autoregressive".
        layers: of the flow. By default 8 of "coupling", 4 of "autoregressive".
        hidden: widths of the network of each layer.
        bins: of a spline, 2 or more.
        bound: the splines act on [-bound, bound] and leave what is outside of it; reals come
            standardised by the first batch.
        activation: "relu", "gelu", "tanh" or "silu".
        levels: of the data, dequantised; None for reals.
        num_classes: classes of the label y; None for none.
        dequantisation: "uniform" or "variational", for data with levels.

    Raises:
        ValueError: impossible numbers, unknown names, or a shape of 1 number to be split.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        kind: Kind = "coupling",
        layers: int | None = None,
        hidden: Sequence[int] = (128, 128),
        bins: int = 8,
        bound: float = 5.0,
        activation: Activation = "relu",
        levels: int | None = None,
        num_classes: int | None = None,
        dequantisation: Dequantisation = "uniform",
    ) -> None:
        one_of("kind", kind, get_args(Kind))

        def spline() -> RationalQuadratic:
            return RationalQuadratic(bins, bound)

        if kind == "coupling":
            count = 8 if layers is None else layers
            made = _couplings(shape, spline, count, hidden, activation, num_classes)
        else:
            count = 4 if layers is None else layers
            made = _autoregressive(shape, spline, count, hidden, activation, num_classes)
        super().__init__(
            shape, _of_vectors(shape, made, levels), levels=levels, num_classes=num_classes,
            dequantisation=dequantisation,
        )  # fmt: skip


def _autoregressive(
    shape: Sequence[int],
    elementwise: Callable[[], Elementwise],
    layers: int,
    hidden: Sequence[int],
    activation: str,
    classes: int | None,
) -> list[Bijection]:
    """Layers by turns in the order of the dimensions and in the reverse, the first next to z."""
    _check(layers, hidden, activation)
    made: list[Bijection] = []
    for depth in range(layers):
        f = elementwise()
        style: dict[str, Any] = {"context": classes or 0, "activation": activation}
        network = MADE(
            math.prod(shape), f.outputs, hidden, reverse=(layers - 1 - depth) % 2 == 1, **style
        )
        made.append(Autoregressive(f, network))
    return made


def _couplings(
    shape: Sequence[int],
    elementwise: Callable[[], Elementwise],
    layers: int,
    hidden: Sequence[int],
    activation: str,
    classes: int | None,
) -> list[Bijection]:
    """Coupling layers, their halves drawn anew after each two."""
    _check(layers, hidden, activation)
    features = math.prod(shape)
    if features < 2:
        raise ValueError(
            f"a coupling layer splits 2 dimensions or more and shape {tuple(shape)} has 1: use MAF "
            "or NeuralSpline(kind='autoregressive')"
        )
    made: list[Bijection] = []
    for depth in range(layers):
        if features > 2 and depth and depth % 2 == 0:
            made.append(Permutation(features))
        made.append(
            Coupling(
                features, elementwise(), hidden, context=classes or 0, activation=activation
            )
        )  # fmt: skip
    return made


def _check(layers: int, hidden: Sequence[int], activation: str) -> None:
    at_least_one("layers", layers)
    for width in hidden:
        at_least_one("hidden", width)
    one_of("activation", activation, tuple(ACTIVATIONS))


def _of_vectors(shape: Sequence[int], layers: Sequence[Bijection], levels: int | None) -> Bijection:
    """The layers on flattened examples; logits of levels come standardised, as reals do.

    A pixel that hardly varies at first, at the border of a digit, gets a tenth of the others' scale
    at least: ink there would otherwise lie hundreds of deviations out.
    """
    features = math.prod(shape)
    if levels is not None:
        layers = [*layers, Standardise((features,), floor=0.1)]
    return Chain(layers) if len(shape) == 1 else Flattened(Chain(layers), tuple(shape))
