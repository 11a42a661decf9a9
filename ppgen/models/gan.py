"""Generative adversarial networks (Goodfellow et al. 2014)."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ..figures import Figure
from ..names import one_of
from ..nn.augment import Augment
from ..nn.dcgan import NORMS, DCGANDiscriminator, DCGANGenerator, Normalise
from ..nn.gan import MLPDiscriminator, MLPGenerator
from ..nn.gan_resnet import ResNetDiscriminator, ResNetGenerator
from ..objective import Objective
from ..program import Program
from .gan_figures import gan_figures
from .gan_objectives import (
    LOSSES,
    DiscriminatorObjective,
    GeneratorObjective,
    Loss,
    check_weights,
    judged,
)
from .observation import at_least_one, label_of

NETWORKS = ("mlp", "dcgan", "resnet")
IMAGE_SIDE = 16  # pixels a side from where convolutions are the default


class GAN(Program):
    """A generative adversarial network: z ~ N(0, I), x = G(z), and a discriminator D beside it.

    The program has no observation and no density: p(x) is what G makes of the noise. Two
    objectives train it, a player each (Goodfellow et al. 2014, eq. 1):

        min_G max_D E log D(x) + E log(1 - D(G(z)))

    The best D is p_data / (p_data + p_G), where the value is -log 4 + 2 JS(p_data, p_G). Other
    losses are those of `discriminator_loss` and `generator_loss`. With `num_classes` it is
    conditional: the label enters G beside z, and D by a projection (Miyato and Koyama 2018).

    Args:
        shape: shape of one example, (C, H, W) for images.
        latent_dim: dimensions of z.
        network: "mlp"; "dcgan" (Radford et al. 2016) or "resnet" (Gulrajani et al. 2017) for
            images of any size from 4x4; None for "dcgan" where images have 16 or more pixels a
            side, else "mlp". Or a module with two parts, `generator(z, y)` giving (n, *shape),
            any reals, and `discriminator(x, y)` giving scores, one an example or several; y is
            one-hot, and left out without classes. Where the data have levels the program maps what
            the generator gives into [0, 1] by tanh, and shows the discriminator [-1, 1].
        loss: "nonsaturating", "minimax", "hinge" or "wasserstein_gp".
        num_classes: classes of the label y; None for no label.
        hidden: widths of the layers of "mlp".
        channels: of "dcgan" and "resnet" at full resolution; doubled at each halving, at most
            eightfold.
        normalise: "group", "batch" or "none", in the generators for images. "batch" normalises
            the discriminator of "dcgan" too, if it has neither spectral norm nor a penalty.
        spectral_norm: layers of spectral norm one in the discriminator (Miyato et al. 2018);
            None for yes in "dcgan" and "resnet", unless the loss has a gradient penalty.
        gradient_penalty: its weight, for "wasserstein_gp".
        discriminator_steps: of the discriminator a step of the generator; None for 5 with
            "wasserstein_gp" and else 1.
        generator_lr_factor: factor on the learning rate for the generator.
        discriminator_lr_factor: the same for the discriminator.
        augment: differentiable augmentation for small data sets, such as
            "colour,translation,cutout"; see `Augment`.
        levels: levels of the data, 2 for binary; None for reals.

    Attributes:
        smooth: whether the discriminator's slopes are held down, by spectral norm or penalty.

    Raises:
        ValueError: impossible numbers, unknown names, shapes that a network does not take.
    """

    density = "implicit"
    training_defaults: ClassVar[dict[str, float]] = {"lr": 5e-4, "ema": 0.999}
    picture_words = "as the generator gives it, not rounded to levels"

    generator: nn.Module
    discriminator: nn.Module

    def __init__(
        self,
        shape: Sequence[int],
        *,
        latent_dim: int = 64,
        network: str | nn.Module | None = None,
        loss: Loss = "nonsaturating",
        num_classes: int | None = None,
        hidden: Sequence[int] = (256, 256),
        channels: int = 32,
        normalise: Normalise = "group",
        spectral_norm: bool | None = None,
        gradient_penalty: float = 10.0,
        discriminator_steps: int | None = None,
        generator_lr_factor: float = 1.0,
        discriminator_lr_factor: float = 1.0,
        augment: str = "none",
        levels: int | None = None,
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.latent_dim = at_least_one("latent_dim", latent_dim)
        one_of("loss", loss, LOSSES)
        one_of("normalise", normalise, NORMS)
        self.loss, self.levels, self.num_classes = loss, levels, num_classes
        check_weights(
            gradient_penalty,
            generator_lr_factor=generator_lr_factor,
            discriminator_lr_factor=discriminator_lr_factor,
        )
        self.gradient_penalty = float(gradient_penalty)
        usual_steps = 5 if loss == "wasserstein_gp" else 1
        steps = usual_steps if discriminator_steps is None else discriminator_steps
        self.discriminator_steps = at_least_one("discriminator_steps", steps)
        self.generator_lr_factor = generator_lr_factor
        self.discriminator_lr_factor = discriminator_lr_factor
        if augment != "none" and len(self.shape) != 3:
            raise ValueError(f"augment={augment!r} takes images (C, H, W); the shape is {shape}")
        self.augment = Augment(augment)
        if network is None:
            image = len(self.shape) == 3 and min(self.shape[1:]) >= IMAGE_SIDE
            network = "dcgan" if image else "mlp"
        if spectral_norm is None:
            spectral_norm = network in ("dcgan", "resnet") and loss != "wasserstein_gp"
        self.smooth = bool(spectral_norm) or loss == "wasserstein_gp"
        if isinstance(network, nn.Module):
            for part in ("generator", "discriminator"):
                if not isinstance(getattr(network, part, None), nn.Module):
                    raise ValueError(f"the network {type(network).__name__} has no module `{part}`")
            self.generator = network.generator  # type: ignore[assignment]
            self.discriminator = network.discriminator  # type: ignore[assignment]
        else:
            batch_norm = normalise == "batch" and not self.smooth
            self.generator, self.discriminator = _networks(
                network, self.shape, latent_dim, num_classes or 0, tuple(hidden), channels,
                normalise, "batch" if batch_norm else "none", spectral_norm,
            )  # fmt: skip

    def model(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("batch", len(x)):
            zeros = x.new_zeros(len(x), self.latent_dim)
            z = pyro.sample("z", dist.Normal(zeros, torch.ones_like(zeros)).to_event(1))
            pyro.deterministic("x", self.decode(z, y), event_dim=len(self.shape))

    def objectives(self) -> dict[str, Objective]:
        return {
            "discriminator": DiscriminatorObjective(self),
            "generator": GeneratorObjective(self),
        }

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """x = G(z[, y]) for z (n, latent_dim): (n, *shape), in [0, 1] where the data have levels.

        Raises:
            ValueError: a conditional program without y.
        """
        label = self.label(z, y)
        x = (self.generator(z) if label is None else self.generator(z, label)).float()
        return x if self.levels is None else (x.tanh() + 1) / 2

    def label(self, like: Tensor, y: Tensor | None = None) -> Tensor | None:
        """The label y (n,) one-hot, as both networks read it; None without classes."""
        return label_of(self, like, y)

    def scaled(self, x: Tensor) -> Tensor:
        """Data as the discriminator sees them: [0, 1] to [-1, 1], reals as they are."""
        return x if self.levels is None else 2 * x - 1

    def judge(self, x: Tensor, label: Tensor | None, *, frozen: bool = False) -> Tensor:
        """The discriminator's scores of scaled x, given a one-hot label; higher is more like data.

        Args:
            frozen: take its parameters for constants.
        """
        return judged(self.discriminator, x, label, frozen)

    def generate(self, n: int, *conditions: Tensor, mean: bool = False) -> Tensor:
        """n draws of G(z), shape (n, *shape); to the nearest levels, if any, unless mean=True."""
        device = next(self.generator.parameters()).device
        z = torch.randn(n, self.latent_dim, device=device)
        x = self.decode(z, *conditions[:1])
        if self.levels is None or mean:
            return x
        return (x * (self.levels - 1)).round() / (self.levels - 1)

    def figures(self, *batch: Tensor) -> Iterator[Figure]:
        """Ways between latents, for pictures."""
        yield from gan_figures(self)


def _networks(
    network: str,
    shape: tuple[int, ...],
    latents: int,
    classes: int,
    hidden: tuple[int, ...],
    channels: int,
    normalise: Normalise,
    discriminator_normalise: Normalise,
    spectral_norm: bool,
) -> tuple[nn.Module, nn.Module]:
    one_of("network", network, NETWORKS)
    if network == "mlp":
        for width in hidden:
            at_least_one("hidden", width)
        generator = MLPGenerator(latents, shape, hidden, classes=classes)
        return generator, MLPDiscriminator(
            shape, hidden, classes=classes, spectral_norm=spectral_norm
        )
    at_least_one("channels", channels)
    if len(shape) != 3:
        raise ValueError(f"network={network!r} takes images (C, H, W); got the shape {shape}")
    image = (shape[0], shape[1], shape[2])
    if network == "resnet":
        return ResNetGenerator(
            latents, image, channels, classes=classes, normalise=normalise
        ), ResNetDiscriminator(image, channels, classes=classes, spectral_norm=spectral_norm)
    return DCGANGenerator(
        latents, image, channels, classes=classes, normalise=normalise
    ), DCGANDiscriminator(
        image,
        channels,
        classes=classes,
        normalise=discriminator_normalise,
        spectral_norm=spectral_norm,
    )
