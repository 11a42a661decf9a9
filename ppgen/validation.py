"""Looking at a program while it trains: held-out figures and pictures of samples."""

import contextlib
from collections.abc import Callable

import torch
from torch import nn

from . import plots
from .compile import Compiled
from .data import Split
from .pair_pictures import pair_rows
from .program import Program, draw
from .run import Run
from .seeding import seeded
from .sites import device_of

BATCH = 1000


def evaluate_objective(
    compiled: Compiled, split: Split, seed: int, autocast: Callable = contextlib.nullcontext
) -> dict[str, float]:
    """Mean loss and terms over a split, in evaluation mode, with draws from a seed of their own."""
    sums: dict[str, float] = {}
    device = split.device
    training = compiled.training
    compiled.eval()
    try:
        with seeded(seed, device), torch.no_grad(), autocast():
            for start in range(0, len(split), BATCH):
                batch = split.batch(slice(start, start + BATCH))
                loss, terms = compiled(*batch)
                for title, value in {"loss": loss, **terms}.items():
                    weight = len(batch[0]) / len(split)
                    sums[title] = sums.get(title, 0.0) + float(value) * weight
    finally:
        compiled.train(training)
    return sums


def sample_picture(program: nn.Module, run: Run, seed: int) -> bytes | None:
    """A picture of a program's draws, or None where its data have none.

    Pictures are as many as `Program.picture_count` says, vectors 100. A program that is conditional
    on an image is given those of the first validation examples, which are shown above its draws.
    """
    program_count = getattr(program, "picture_count", Program.picture_count)
    count = program_count if plots.is_picture(run.shape) else 100
    classes = getattr(program, "num_classes", None)
    device = device_of(program)
    conditions: tuple[torch.Tensor, ...] = ()
    given = None
    if getattr(program, "condition_shape", None) is not None:
        if run.dataset is None:
            return None
        given = run.dataset.validation.batch(slice(0, count))[1].to(device)
        conditions, count = (given,), len(given)
    elif classes is not None:
        conditions = (torch.arange(count, device=device) * classes // count,)
    try:
        with seeded(seed, device):
            drawn = draw(program, count, *conditions, shape=run.shape, mean=True)
    except (ValueError, NotImplementedError):
        return None  # no observed site to sample, or no mean
    if given is not None and run.dataset is not None:
        return pair_rows({run.dataset.condition_names[0]: given, "drawn": drawn})
    return plots.samples(drawn.cpu())
