"""The two players of a GAN, as objectives: what each minimises, and how that is called."""

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pyro import poutine
from torch import Tensor, nn
from torch.func import functional_call

from ..names import one_of
from ..nn.input_gradient import input_gradient
from ..nn.spectral import advance
from ..objective import Objective, Terms
from ..sites import Structure, accepted, isolated

Loss = Literal["minimax", "nonsaturating", "wasserstein_gp", "hinge"]
LOSSES = ("minimax", "nonsaturating", "wasserstein_gp", "hinge")
# Adam's averages are short, since the other player's move changes the loss: those of Radford et al.
# (2016, section 4), and shorter ones where the discriminator is held smooth, by a penalty
# (Gulrajani et al. 2017, algorithm 1) or a spectral norm (Miyato et al. 2018, section 4).
BETAS, SMOOTH_BETAS = (0.5, 0.999), (0.0, 0.9)
BatchNorm = nn.modules.batchnorm._BatchNorm


def logarithmic(loss: str) -> bool:
    """Whether a discriminator's score is the logit of a probability, and its loss in nats."""
    return loss in ("minimax", "nonsaturating")


def check_weights(gradient_penalty: float, **lr_factors: float) -> None:
    """Refuse a penalty below 0 and factors on the learning rate that are not positive.

    Raises:
        ValueError: the first of them.
    """
    if not gradient_penalty >= 0:
        raise ValueError(f"gradient_penalty must be 0 or more; got {gradient_penalty}")
    for name, factor in lr_factors.items():
        if not factor > 0:
            raise ValueError(f"{name} must be positive; got {factor}")


def discriminator_loss(loss: Loss, real: Tensor, fake: Tensor) -> Tensor:
    """What the discriminator minimises, given its scores of data and of draws; any shapes.

    With scores s, and D = sigmoid(s):

        minimax, nonsaturating   -E log D(x) - E log(1 - D(G(z)))   (Goodfellow et al. 2014, eq. 1)
        hinge                    E max(0, 1 - s(x)) + E max(0, 1 + s(G(z)))   (Lim and Ye 2017)
        wasserstein_gp           E s(G(z)) - E s(x), the penalty apart   (Arjovsky et al. 2017)

    Raises:
        ValueError: an unknown loss.
    """
    one_of("loss", loss, LOSSES)
    if logarithmic(loss):
        return F.softplus(-real).mean() + F.softplus(fake).mean()
    if loss == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    return fake.mean() - real.mean()


def generator_loss(loss: Loss, fake: Tensor) -> Tensor:
    """What the generator minimises, given the discriminator's scores of its draws; any shape.

        minimax                  E log(1 - D(G(z))): next to no gradient where D is sure
        nonsaturating            -E log D(G(z))   (Goodfellow et al. 2014, section 3)
        hinge, wasserstein_gp    -E s(G(z))

    Raises:
        ValueError: an unknown loss.
    """
    one_of("loss", loss, LOSSES)
    if loss == "minimax":
        return -F.softplus(fake).mean()
    if loss == "nonsaturating":
        return F.softplus(-fake).mean()
    return -fake.mean()


def gradient_penalty(network: nn.Module, real: Tensor, fake: Tensor, *conditions: Tensor) -> Tensor:
    """E (||grad_x network(x)|| - 1)^2 at x between data and draws (Gulrajani et al. 2017, eq. 3).

    x = e real + (1 - e) fake with e ~ U(0, 1) for each example.
    """
    mix = torch.rand(len(real), *[1] * (real.dim() - 1), device=real.device)
    slope = input_gradient(network, mix * real + (1 - mix) * fake, *conditions)
    # Away from zero, where a norm has no derivative.
    norm = (slope.flatten(1).square().sum(1) + 1e-12).sqrt()
    return (norm - 1).square().mean()


class Player(Objective):
    """What the two players share. The program is a `GAN`."""

    program: Any

    def __init__(self, program: nn.Module) -> None:
        super().__init__(program)
        self.betas = SMOOTH_BETAS if self.program.smooth else BETAS
        self.unit = "nats" if logarithmic(self.program.loss) else "score"

    def prepare(self, *batch: Tensor) -> Structure:
        """As in `Objective`.

        Raises:
            ValueError: in training, a batch of one example and batch normalisation.
        """
        if self.training and len(batch[0]) == 1:
            for name, module in self.program.named_modules():
                if isinstance(module, BatchNorm):
                    raise ValueError(
                        f"a batch of one example has no statistics to normalise by, and {name} is "
                        "batch normalisation: choose a batch_size that leaves no single example "
                        "over, or normalise='group'"
                    )
        return super().prepare(*batch)

    def draws(self, batch: tuple[Tensor, ...]) -> Tensor:
        """Draws x = G(z) of the program, as many as the batch has examples: (n, *shape)."""
        with isolated():
            trace = poutine.trace(self.program.model).get_trace(*accepted(self.program, batch))
        return trace.nodes["x"]["value"]


class DiscriminatorObjective(Player):
    """Moves the discriminator to tell data from draws: `discriminator_loss`, with its penalty.

    Terms: for "minimax" and "nonsaturating" `real` and `fake`, the mean probabilities that it
    gives to be data, and `jensen_shannon`, log 2 - loss / 2: a lower bound of the Jensen-Shannon
    divergence between data and draws in nats, which the best discriminator attains (on the examples
    that it learned from it may be above). Else `real` and `fake` are mean scores;
    "wasserstein_gp" has besides `distance`, the estimate real - fake of the Wasserstein distance
    (as far as slopes are at most one; in the units of data scaled to [-1, 1]), and `penalty`, its
    weight included. `accuracy` is the share that it tells right; not for "wasserstein_gp", whose
    scores have no zero.
    """

    def __init__(self, program: nn.Module) -> None:
        super().__init__(program)
        self.steps = self.program.discriminator_steps
        self.lr_factor = self.program.discriminator_lr_factor

    def player(self) -> list[nn.Parameter]:
        return list(self.program.discriminator.parameters())

    def forward(self, *batch: Tensor) -> tuple[Tensor, Terms]:
        program, x, loss_name = self.program, batch[0], self.program.loss
        label = program.label(x, *batch[1:])
        with torch.no_grad():
            drawn = self.draws(batch)
        if self.training:
            advance(program.discriminator)
        x, drawn = program.augment(program.scaled(x)), program.augment(program.scaled(drawn))
        real, fake = program.judge(x, label), program.judge(drawn, label)
        loss = discriminator_loss(loss_name, real, fake)
        terms: Terms = {"real": real.mean(), "fake": fake.mean()}
        if logarithmic(loss_name):
            terms = {"real": real.sigmoid().mean(), "fake": fake.sigmoid().mean()}
            terms["jensen_shannon"] = math.log(2) - loss / 2
        if loss_name == "wasserstein_gp":
            conditions = () if label is None else (label,)
            penalty = program.gradient_penalty * gradient_penalty(
                program.discriminator, x, drawn, *conditions
            )
            terms |= {"distance": -loss, "penalty": penalty}
            loss = loss + penalty
        else:
            right = (real > 0).float().mean() + (fake < 0).float().mean()
            terms["accuracy"] = right / 2
        return loss, {title: value.detach() for title, value in terms.items()}


class GeneratorObjective(Player):
    """Moves the generator to be taken for data: `generator_loss`; no gradient for the other.

    Terms: `fake`, the mean probability ("minimax", "nonsaturating") or score that the
    discriminator gives to its draws.
    """

    def __init__(self, program: nn.Module) -> None:
        super().__init__(program)
        self.lr_factor = self.program.generator_lr_factor

    def player(self) -> list[nn.Parameter]:
        return list(self.program.generator.parameters())

    def forward(self, *batch: Tensor) -> tuple[Tensor, Terms]:
        program = self.program
        drawn = program.augment(program.scaled(self.draws(batch)))
        label = program.label(batch[0], *batch[1:])
        fake = program.judge(drawn, label, frozen=True)
        shown = fake.sigmoid() if logarithmic(program.loss) else fake
        return generator_loss(program.loss, fake), {"fake": shown.mean().detach()}


def judged(network: nn.Module, x: Tensor, label: Tensor | None, frozen: bool) -> Tensor:
    """A discriminator's scores of x; `frozen`, its parameters are taken for constants."""
    batch = (x,) if label is None else (x, label)
    if not frozen:
        return network(*batch).float()
    constants = {name: parameter.detach() for name, parameter in network.named_parameters()}
    return functional_call(network, constants, batch).float()
