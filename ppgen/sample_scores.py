"""Scores of a program's samples against held-out data, for any program that can be sampled."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from . import metrics as measures
from .data import Dataset, Split
from .features import Extractor, extractor
from .metrics import Estimate
from .program import draw
from .score_record import NUMBERS, Score, check_metrics
from .seeding import seeded
from .sites import accepted

CLASSIFIED = ("inception", "classes")
MOST = 10_000  # samples, by default
VALUES_AT_ONCE, ROWS = 2**22, 250  # drawn at once


def sample_scores(
    program: nn.Module,
    dataset: Dataset,
    metrics: Sequence[str],
    *,
    samples: int | None = None,
    features: str | nn.Module | None = None,
    split: str = "test",
    means: bool = False,
    device: torch.device | str = "cpu",
    seed: int = 0,
    progress: bool = False,
) -> tuple[Score, ...]:
    """Judge samples of a program by held-out examples of the data, both n, in some features.

    The n examples are drawn from the split without replacement, all of them where n is its size;
    a conditional program is given their conditions. Samples of data with levels are clamped to
    [0, 1], as a picture file would; they are not rounded to the levels.

    Args:
        program: any program, on `device`.
        dataset: what it models.
        metrics: which, of `ppgen.score_record.METRICS`.
        samples: n, by default as many as the split has, at most 10,000.
        features: the extractor, see `ppgen.features.extractor`.
        split: "test" or "validation".
        means: judge the means of p(x | latents), the usual pictures, in place of draws of x, which
            are what the model says. They carry no pixel noise, and are no samples of the model.
        device: where to compute.
        seed: of the draws, and of the choice of examples.
        progress: show progress bars.

    Raises:
        ValueError: an unknown metric, too few samples for one, more samples than the split has
            examples, an extractor that does not fit or is no classifier where one is needed,
            samples that are not finite or of another shape.
    """
    return planned(
        program, dataset, metrics, samples=samples, features=features, split=split, means=means,
        device=device, seed=seed, progress=progress,
    ).scores()  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """Scores to be computed, of which all is checked that can be before samples are drawn."""

    program: nn.Module
    dataset: Dataset
    metrics: tuple[str, ...]
    judge: Extractor
    samples: int
    split: str
    means: bool
    given: str
    device: torch.device
    seed: int
    progress: bool

    @property
    def terms(self) -> tuple:
        """As `Score.terms` of what comes of it."""
        return str(self.judge), self.samples, self.split, self.means, self.given

    def scores(self) -> tuple[Score, ...]:
        """Draw the samples and judge them; the program is on the device."""
        judge, dataset, count, progress = self.judge, self.dataset, self.samples, self.progress
        chosen = _first_of(getattr(dataset, self.split), count, self.seed).to(self.device)
        reference = _all(judge, _stored(chosen, progress, f"features of {self.split} data"))
        other = "test" if self.split == "validation" else "validation"
        real_split = other if len(getattr(dataset, other)) >= count else "train"
        whole = real = None
        with seeded(self.seed, self.device):
            ours = _all(judge, _drawn(self.program, chosen, dataset, self.means, progress))
            if "neighbours" in self.metrics:
                training = dataset.train.to(self.device)
                whole = _all(judge, _stored(training, progress, "features of training data"))[0]
            if len(getattr(dataset, real_split)) >= count:
                same = _first_of(getattr(dataset, real_split), count, self.seed + 1)
                real = _all(judge, _stored(same.to(self.device), False, ""))
        return tuple(
            Score(name, mine.value, mine.stderr, None if theirs is None else theirs.value,
                  str(judge), count, self.split, self.means, self.seed, mine.note, self.given,
                  real_split)
            for name, mine, theirs in _measured(
                self.metrics, ours, real, reference, whole, self.seed
            )
        )  # fmt: skip


def planned(
    program: nn.Module,
    dataset: Dataset,
    metrics: Sequence[str],
    *,
    samples: int | None,
    features: str | nn.Module | None,
    split: str,
    means: bool,
    device: torch.device | str,
    seed: int,
    progress: bool,
) -> Plan:
    """Check what `sample_scores` is given and make the extractor; nothing is drawn.

    Raises:
        ValueError: as `sample_scores`, but for what is wrong with the samples themselves.
    """
    metrics = check_metrics(metrics)
    part: Split = getattr(dataset, split)
    count = min(len(part), MOST) if samples is None else samples
    if count < 1:
        raise ValueError(f"samples must be 1 or more; got {count}")
    if count > len(part):
        raise ValueError(
            f"{count:,} samples are asked for and the {split} split of {dataset.name} has "
            f"{len(part):,} examples: a score takes as many of both, so ask for {len(part):,} or "
            "fewer"
        )
    device = torch.device(device)
    judge = extractor(features, dataset, device=device, progress=progress)
    with seeded(0, device):  # a dynamic split draws its pixels
        batch = part.batch(slice(0, 2))
    _check(metrics, judge, batch[0].to(device), count)
    conditions = _conditions(program, batch)
    given = "images" if any(c.ndim > 1 for c in conditions) else "labels" if conditions else ""
    return Plan(program, dataset, metrics, judge, count, split, bool(means), given, device, seed,
                progress)  # fmt: skip


def _check(metrics: Sequence[str], judge: Extractor, x: Tensor, count: int) -> None:
    features, logits = judge(x)
    for name in metrics:
        if name in CLASSIFIED and logits is None:
            raise ValueError(
                f"{name} needs a classifier, and the features {judge.name} are none: leave it out, "
                "or choose the features classifier"
            )
        measures.need(name, count, features.shape[1])


Features = tuple[Tensor, Any]  # with the logits of a classifier, else None


def _measured(
    metrics: Sequence[str],
    ours: Features,
    real: Features | None,
    reference: Features,
    training: Any,
    seed: int,
) -> Iterator[tuple[str, Estimate, Estimate | None]]:
    """Each number by its name: of the samples, and of real data in their place."""

    def both(measure: Callable[[Features], Any]) -> list[tuple[Any, Any]]:
        mine, theirs = measure(ours), None if real is None else measure(real)
        if isinstance(mine, Estimate):
            return [(mine, theirs)]
        return list(zip(mine, theirs or [None] * len(mine), strict=True))

    features, logits = reference
    ways: dict[str, Callable[[Features], Any]] = {
        "fid": lambda found: measures.fid(found[0], features),
        "kid": lambda found: measures.kid(found[0], features),
        "inception": lambda found: measures.inception(found[1]),
        "precision_recall": lambda found: measures.precision_recall(found[0], features),
        "c2st": lambda found: measures.c2st(found[0], features, seed),
        "neighbours": lambda found: measures.neighbours(found[0], features, training, seed),
        "classes": lambda found: measures.classes(found[1], logits),
    }
    for metric in metrics:
        mine: Any = ways[metric](ours)
        # Of data it is 1/2 but for chance, and of training examples, their own neighbours, 1.
        theirs: Any = None if real is None or metric == "neighbours" else ways[metric](real)
        if isinstance(mine, Estimate):
            mine, theirs = (mine,), (theirs,)
        yield from zip(NUMBERS[metric], mine, theirs or (None, None), strict=False)


# Batches --------------------------------------------------------------------------------------


def _first_of(part: Split, count: int, seed: int) -> Split:
    """`count` examples of a split, drawn without replacement, in random order."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.randperm(len(part), generator=generator)[:count].to(part.stored.device)
    conditions = tuple(condition[index] for condition in part.conditions)
    return dataclasses.replace(part, stored=part.stored[index], conditions=conditions)


def _rows(shape: Sequence[int]) -> int:
    return max(1, min(ROWS, VALUES_AT_ONCE // max(1, math.prod(shape))))


def _tracked(total: int, rows: int, text: str, progress: bool) -> Iterator[slice]:
    from rich.console import Console
    from rich.progress import track

    starts = range(0, total, rows)
    bar = track(starts, text, console=Console(stderr=True), disable=not progress)
    for start in bar:
        yield slice(start, min(start + rows, total))


def _stored(part: Split, progress: bool, text: str) -> Iterator[Tensor]:
    for rows in _tracked(len(part), _rows(part.stored.shape[1:]), text, progress):
        yield part.batch(rows)[0]


def _drawn(
    program: nn.Module, part: Split, dataset: Dataset, means: bool, progress: bool
) -> Iterator[Tensor]:
    """Samples, as many as the split has examples, with the conditions of these."""
    shape = tuple(dataset.shape)
    for rows in _tracked(len(part), _rows(shape), "drawing samples", progress):
        conditions = _conditions(program, part.batch(rows))
        size = rows.stop - rows.start
        try:
            x = draw(program, size, *conditions, shape=shape, mean=means)
        except NotImplementedError:
            raise ValueError(f"{type(program).__name__} has no means: score its draws") from None
        if tuple(x.shape) != (size, *shape):
            raise ValueError(
                f"{type(program).__name__} draws samples of shape {tuple(x.shape[1:])}, and "
                f"examples of {dataset.name} have {shape}"
            )
        wrong = int((~x.isfinite().flatten(1).all(1)).sum())
        if wrong:
            raise ValueError(f"{wrong} of {size} samples of {type(program).__name__} are not "
                             "finite: they cannot be scored")  # fmt: skip
        yield x.clamp(0, 1) if dataset.levels is not None else x


def _conditions(program: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What of a batch its samples are drawn given."""
    # Its model may take y and be without classes.
    labelled = getattr(program, "num_classes", True) is not None
    return accepted(program, batch)[1:] if labelled else ()


def _all(judge: Extractor, batches: Iterator[Tensor]) -> Features:
    parts = [judge(x.float()) for x in batches]
    logits = [part[1] for part in parts if part[1] is not None]
    return torch.cat([part[0] for part in parts]), torch.cat(logits) if logits else None
