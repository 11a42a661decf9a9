"""Image-to-image translation by a conditional GAN: pix2pix (Isola et al. 2017)."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from ..figures import Figure
from ..names import one_of
from ..nn.translation import PatchDiscriminator, TranslationUNet, depth_for, patch_layers_for
from ..objective import Objective, Terms
from ..pair_pictures import pair_rows
from ..program import Program
from ..sites import isolated
from .gan_objectives import (
    LOSSES,
    DiscriminatorObjective,
    Loss,
    Player,
    check_weights,
    generator_loss,
    judged,
)
from .observation import at_least_one

SHOWN, VARIED, VARIANTS = 30, 10, 3  # examples in a figure; those drawn several times, how often


class TranslatorObjective(Player):
    """Moves the generator: `generator_loss` + l1_weight E |x - G(condition, m)|.

    |.| is the mean over the numbers of x, scaled to [-1, 1] (Isola et al. 2017, eq. 4). Terms:
    `adversarial`, the first part; `l1`, the second without its weight.
    """

    def __init__(self, program: nn.Module) -> None:
        super().__init__(program)
        self.unit = "adversarial and L1 loss"
        self.lr_factor = self.program.generator_lr_factor

    def player(self) -> list[nn.Parameter]:
        return list(self.program.generator.parameters())

    def forward(self, *batch: Tensor) -> tuple[Tensor, Terms]:
        program = self.program
        x, drawn = program.scaled(batch[0]), program.scaled(self.draws(batch))
        scores = program.judge(drawn, program.label(*batch), frozen=True)
        adversarial = generator_loss(program.loss, scores)
        l1 = (x - drawn).abs().mean()
        terms = {"adversarial": adversarial.detach(), "l1": l1.detach()}
        return adversarial + program.l1_weight * l1, terms


class Pix2Pix(Program):
    """An image x given another image, such as a painting given its sketch (Isola et al. 2017).

    x = G(condition, m): G is a U-Net, whose latent variables m are the masks of its dropout, drawn
    in training and in sampling. They are all the noise there is, and little of it reaches x, so
    that draws for one condition are much alike. There is no density. Two objectives train it: a
    discriminator of patches tells (x, condition) from (G, condition), and G minimises

        adversarial loss + l1_weight E |x - G(condition, m)|

    The L1 gives what is likely at large, the adversarial loss the texture of it.

    Args:
        shape: (C, H, W) of x.
        condition_shape: (C', H, W) of the condition; by default of one channel.
        channels: of the finest stage of the U-Net, doubled from stage to stage up to eightfold.
        depth: how often the U-Net halves the image; H and W are divisible by 2^depth. By default
            until a side has less than eight pixels or is odd, seven times at most.
        dropout: probability that a mask drops a number, in the three coarsest stages on the way
            up; 0 for a function without noise.
        discriminator_channels: of the discriminator's first layer; as many as `channels` by
            default.
        patch_layers: its halvings: 1, 2, 3 for patches of 16, 34, 70 pixels. By default the most
            whose patch is at most 0.6 times as long as the image.
        loss: "nonsaturating", "minimax", "hinge" or "wasserstein_gp"; see `discriminator_loss` in
            `ppgen.models.gan_objectives`.
        l1_weight: weight of the L1.
        gradient_penalty: its weight, for "wasserstein_gp".
        discriminator_steps: of the discriminator a step of the generator.
        generator_lr_factor: factor on the learning rate for the generator.
        discriminator_lr_factor: the same for the discriminator.
        levels: levels of the data.

    Raises:
        ValueError: no images, sides that cannot be halved so often, sizes of x and condition that
            differ, an unknown loss, reals instead of levels, other impossible numbers.
    """

    density = "implicit"
    training_defaults: ClassVar[dict[str, float]] = {"lr": 2e-4, "ema": 0.995}
    picture_count: ClassVar[int] = SHOWN
    picture_words: ClassVar[str] = "as the generator gives it, not rounded to levels"

    def __init__(
        self,
        shape: Sequence[int],
        *,
        condition_shape: Sequence[int] | None = None,
        channels: int = 32,
        depth: int | None = None,
        dropout: float = 0.5,
        discriminator_channels: int | None = None,
        patch_layers: int | None = None,
        loss: Loss = "nonsaturating",
        l1_weight: float = 100.0,
        gradient_penalty: float = 10.0,
        discriminator_steps: int = 1,
        generator_lr_factor: float = 1.0,
        discriminator_lr_factor: float = 1.0,
        levels: int | None = 256,
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        if len(self.shape) != 3:
            raise ValueError(f"Pix2Pix makes images (C, H, W); the shape is {self.shape}")
        _, height, width = self.shape
        given = (1, height, width) if condition_shape is None else tuple(condition_shape)
        if len(given) != 3 or given[1:] != self.shape[1:]:
            raise ValueError(
                f"the condition has shape {given} and x {self.shape}: images of one height and "
                "width are expected"
            )
        self.condition_shape = given
        if levels is None:
            raise ValueError("Pix2Pix makes images with levels, and these data are reals")
        one_of("loss", loss, LOSSES)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be from 0 to below 1; got {dropout}")
        if not l1_weight >= 0:
            raise ValueError(f"l1_weight must be 0 or more; got {l1_weight}")
        check_weights(
            gradient_penalty,
            generator_lr_factor=generator_lr_factor,
            discriminator_lr_factor=discriminator_lr_factor,
        )
        depth = _depth(height, width, depth)
        layers = _patch_layers(height, width, patch_layers)
        at_least_one("channels", channels)
        width_of_patches = channels if discriminator_channels is None else discriminator_channels
        at_least_one("discriminator_channels", width_of_patches)
        self.loss, self.levels, self.dropout = loss, levels, dropout
        self.smooth = loss == "wasserstein_gp"  # which betas its players take
        self.l1_weight, self.gradient_penalty = float(l1_weight), float(gradient_penalty)
        self.discriminator_steps = at_least_one("discriminator_steps", discriminator_steps)
        self.generator_lr_factor = generator_lr_factor
        self.discriminator_lr_factor = discriminator_lr_factor
        self.generator = TranslationUNet(self.shape, given[0], channels, depth)
        both = given[0] + self.shape[0]
        self.discriminator = PatchDiscriminator(both, width_of_patches, layers)

    def model(self, x: Tensor, condition: Tensor) -> None:
        with pyro.plate("batch", len(condition)):
            masks = []
            for k, shape in enumerate(self.generator.noise if self.dropout else ()):
                kept = condition.new_full((len(condition), *shape), 1 - self.dropout)
                masks.append(pyro.sample(f"mask_{k}", dist.Bernoulli(kept).to_event(3)))
            pyro.deterministic("x", self.translate(condition, *masks), event_dim=3)

    def objectives(self) -> dict[str, Objective]:
        return {
            "discriminator": DiscriminatorObjective(self),
            "generator": TranslatorObjective(self),
        }

    def translate(self, condition: Tensor, *masks: Tensor) -> Tensor:
        """x = G(condition, masks) in [0, 1], (n, *shape); without masks nothing is dropped.

        Args:
            condition: (n, *condition_shape) in [0, 1].
            masks: zeros and ones, (n, *shape) for each shape of `generator.noise`.
        """
        scaled = [mask / (1 - self.dropout) for mask in masks]
        return (self.generator(self.scaled(condition), scaled).float().tanh() + 1) / 2

    def label(self, x: Tensor, condition: Tensor) -> Tensor:
        """The condition as both networks read it."""
        return self.scaled(condition)

    def scaled(self, x: Tensor) -> Tensor:
        """Images as the networks read them: [0, 1] to [-1, 1]."""
        return 2 * x - 1

    def augment(self, x: Tensor) -> Tensor:
        """x as it is: a pair cannot be moved or cut on one side alone."""
        return x

    def judge(self, x: Tensor, label: Tensor | None, *, frozen: bool = False) -> Tensor:
        """The discriminator's scores of scaled x beside a scaled condition, (n, 1, h, w).

        Args:
            frozen: take its parameters for constants.
        """
        return judged(self.discriminator, x, label, frozen)

    def generate(self, n: int, *conditions: Tensor, mean: bool = False) -> Tensor:
        """n draws, (n, *shape), one a condition; to the nearest levels unless mean=True.

        Raises:
            ValueError: no condition, or one of another shape.
        """
        if not conditions:
            raise ValueError(
                f"Pix2Pix needs a condition: images of shape {self.condition_shape}, one a sample"
            )
        condition = conditions[0]
        if tuple(condition.shape[1:]) != self.condition_shape:
            raise ValueError(
                f"the condition has examples of shape {tuple(condition.shape[1:])}; expected "
                f"{self.condition_shape}"
            )
        with isolated():
            trace = poutine.trace(self.model).get_trace(condition, condition)
        x: Any = trace.nodes["x"]["value"]
        return x if mean else (x * (self.levels - 1)).round() / (self.levels - 1)

    def figures(self, *batch: Tensor) -> Iterator[Figure]:
        """What it makes of held-out conditions, beside what they belong to."""
        if len(batch) < 2:
            return
        x, condition = batch[0], batch[1]

        def results() -> bytes:
            drawn = self.sample(len(x[:SHOWN]), condition[:SHOWN], mean=True)
            return pair_rows({"given": condition[:SHOWN], "drawn": drawn, "true": x[:SHOWN]})

        def variants() -> bytes:
            few = condition[:VARIED]
            drawn = {
                f"draw {k + 1}": self.sample(len(few), few, mean=True) for k in range(VARIANTS)
            }
            spread = torch.stack([*drawn.values()]).std(0)
            return pair_rows({"given": few, **drawn, "spread": (4 * spread).clamp(max=1)})

        yield Figure(
            "Translations", "translations", results,
            "Test examples: the condition, what the model draws for it, and the truth.",
        )  # fmt: skip
        if self.dropout:
            yield Figure(
                "Translations", "variants", variants,
                f"{VARIANTS} draws for one condition, which differ by the masks of the dropout; "
                "below them four times their standard deviation.",
            )  # fmt: skip


def _depth(height: int, width: int, depth: int | None) -> int:
    """How often the U-Net halves an image.

    Raises:
        ValueError: sides that are not divisible, or that would end below four pixels.
    """
    most = depth_for(height, width, 64)
    if most < 2:
        raise ValueError(
            f"images of {height}x{width} cannot be halved twice: sides of at least 16 that are "
            "divisible by 4 are expected (--size 64 resizes)"
        )
    if depth is None:
        return min(most, 7)
    if not 2 <= depth <= most:
        raise ValueError(
            f"depth must be from 2 to {most} for images of {height}x{width}, whose sides are "
            f"halved so often; got {depth}"
        )
    return depth


def _patch_layers(height: int, width: int, layers: int | None) -> int:
    """How often the discriminator halves an image.

    Raises:
        ValueError: so often that nothing is left to judge.
    """
    side = min(height, width)
    if layers is None:
        return patch_layers_for(side)
    if layers < 1 or side >> layers < 3:
        most = max(k for k in range(1, 64) if k == 1 or side >> k >= 3)
        raise ValueError(
            f"patch_layers must be from 1 to {most} for images of {height}x{width}; got {layers}"
        )
    return layers
