"""p(x | z) over data of any levels, read off a decoder's outputs; labels as the networks read them.

What the families with a decoder share, so that their nats compare.
"""

import math
from typing import Any

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributions import DiscretizedLogistic
from ..names import one_of

LIKELIHOODS = ("bernoulli", "gaussian", "discretized_logistic")


def likelihood_for(likelihood: str | None, levels: int | None) -> str:
    """The likelihood asked for, or the one that fits the levels: a probability where it can be.

    Raises:
        ValueError: an unknown name, or a likelihood that does not fit the levels.
    """
    if likelihood is None:
        return {None: "gaussian", 2: "bernoulli"}.get(levels, "discretized_logistic")
    one_of("likelihood", likelihood, LIKELIHOODS)
    if likelihood == "bernoulli" and levels not in (None, 2):
        raise ValueError(
            f"likelihood='bernoulli' is a probability of 2 levels and the data have {levels}: "
            "binarize the data (binarize='dynamic') or use 'discretized_logistic'"
        )
    if likelihood == "discretized_logistic" and levels is None:
        raise ValueError(
            "likelihood='discretized_logistic' is a probability of levels and these data are reals "
            "(levels=None): use 'gaussian', or give levels"
        )
    return likelihood


def outputs_of(likelihood: str) -> int:
    """How many numbers a decoder gives for each number of x."""
    return 2 if likelihood == "discretized_logistic" else 1


def log_scale_of(scale: Any) -> nn.Parameter:
    """The logarithm of the Gaussian likelihood's scale: a fixed number, or "learned" from 1.

    Raises:
        ValueError: neither positive nor "learned".
    """
    if scale != "learned" and not (isinstance(scale, (int, float)) and scale > 0):
        raise ValueError(f"scale must be positive or 'learned'; got {scale!r}")
    value = torch.tensor(0.0 if scale == "learned" else math.log(scale))
    return nn.Parameter(value, requires_grad=scale == "learned")


def observation(program: Any, outputs: Tensor) -> Any:
    """p(x | z) of a decoder's outputs (..., outputs, *shape), its event shape `shape`, in float32.

    Args:
        program: has `shape`, `likelihood`, `levels` and, for a Gaussian, `log_scale`.
        outputs: logits, means, or centres and log-scales; see `outputs_of`.
    """
    dims = len(program.shape)
    first, *rest = outputs.float().unbind(-dims - 1)  # each (..., *shape)
    if program.likelihood == "bernoulli":
        return dist.Bernoulli(logits=first).to_event(dims)
    if program.likelihood == "gaussian":
        return dist.Normal(first, program.log_scale.exp().expand_as(first)).to_event(dims)
    # Centred on mid-grey with a broad start; the floor keeps a level's width resolvable.
    levels = program.levels or 256
    log_scale = (rest[0] - 2.0).clamp(min=-math.log(levels) - 4.0)
    return DiscretizedLogistic(first + 0.5, log_scale, levels).to_event(dims)


def label_of(program: Any, like: Tensor, y: Tensor | None) -> Tensor | None:
    """The label y (n,) one-hot in the number type of `like`; None where the program takes none.

    Raises:
        ValueError: the program is conditional and there is no y.
    """
    if program.num_classes is None:
        return None
    if y is None:
        raise ValueError(
            f"this {type(program).__name__} is conditional on {program.num_classes} classes: "
            "labels y needed"
        )
    return F.one_hot(y, program.num_classes).to(like.dtype)


def at_least_one(name: str, value: int) -> int:
    """The value, refused below 1."""
    if value < 1:
        raise ValueError(f"{name} must be 1 or more; got {value}")
    return value
