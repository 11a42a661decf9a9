"""Scores of a program's samples against held-out data, for any program that can be sampled."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from . import metrics as measures
from .data import Dataset, Split
from .features import Extractor, extractor
from .metrics import Estimate
from .names import near
from .program import draw
from .seeding import seeded
from .sites import accepted

# What can be asked for, with what it is.
METRICS = {
    "fid": "Frechet distance of Gaussians fitted to the features",
    "kid": "squared maximum mean discrepancy, cubic kernel, unbiased",
    "inception": "Inception score exp(E KL(p(y|x) || p(y))), by a classifier",
    "precision_recall": "shares of samples near the data, and of the data near samples",
    "c2st": "held-out accuracy of a classifier of samples against data; 1/2 if alike",
    "neighbours": "share of samples nearer to the training set than new data; 1/2 if alike",
    "classes": "classes found among the samples, and their shares against the data's",
}
# The numbers that come of them, and which way is better; None where neither is.
BETTER: dict[str, Literal["low", "high"] | None] = {
    "fid": "low",
    "kid": "low",
    "inception": "high",
    "precision": "high",
    "recall": "high",
    "c2st": "low",
    "neighbours": None,
    "data_copying": None,
    "classes": "high",
    "class_variation": "low",
}
# Each in a few words.
WHAT = {
    "fid": "Frechet distance, less is better",
    "kid": "kernel distance, 0 if alike",
    "inception": "clear and varied classes, more is better",
    "precision": "share of samples near the data",
    "recall": "share of the data near samples",
    "c2st": "samples told from data, 0.5 if alike",
    "neighbours": "nearer to training data than new data are, 0.5 if alike, 1 of copies",
    "data_copying": "the same in deviations, below -3 copies, above 3 too far",
    "classes": "classes found among the samples",
    "class_variation": "total variation of the classes' shares",
}
# Metric -> its numbers.
NUMBERS: dict[str, tuple[str, ...]] = {name: (name,) for name in METRICS} | {
    "precision_recall": ("precision", "recall"),
    "neighbours": ("neighbours", "data_copying"),
    "classes": ("classes", "class_variation"),
}
CLASSIFIED = ("inception", "classes")
MOST = 10_000  # samples, by default
VALUES_AT_ONCE, ROWS = 2**22, 250  # drawn at once


@dataclass(frozen=True)
class Score:
    """A number that judges samples, with everything needed to compare it honestly.

    Attributes:
        metric: which number, of `BETTER`; see `ppgen.metrics`.
        value: the number.
        stderr: its standard error over samples and examples, as the metric says; None where there
            is none.
        real: the same number of as many training examples in the place of the samples: what
            perfect samples would get. None where that means nothing or they are too few.
        extractor: the features it is in, with a digest; scores by different ones do not compare.
        samples: how many samples, and as many held-out examples.
        split: which examples, "test" or "validation".
        means: whether means of p(x | latents) were judged in place of draws.
        seed: of the draws and the choice of examples.
        note: what else the metric says.
    """

    metric: str
    value: float
    stderr: float | None
    real: float | None
    extractor: str
    samples: int
    split: str
    means: bool
    seed: int
    note: str = ""

    @property
    def terms(self) -> tuple:
        """What has to agree, besides the data, for two scores of one metric to be compared."""
        return self.extractor, self.samples, self.split, self.means

    @property
    def number(self) -> str:
        """ "12.34 +- 0.20", or "10" of classes."""
        if self.stderr is None:
            return self._written(self.value)
        return f"{self._written(self.value)} +- {self._written(self.stderr)}"

    @property
    def real_number(self) -> str:
        """The number of real data, "" where there is none."""
        return "" if self.real is None else self._written(self.real)

    def _written(self, value: float) -> str:
        """To as many decimals as show two figures of the standard error, at least two."""
        decimals = 0 if self.metric == "classes" else 2
        if self.stderr is not None and math.isfinite(self.stderr) and self.stderr > 0:
            decimals = min(6, max(2, 1 - math.floor(math.log10(self.stderr))))
        return f"{value:,.{decimals}f}"

    @property
    def how(self) -> str:
        """ "1,000 draws against as many test examples, by EXTRACTOR"."""
        what = "means" if self.means else "draws"
        return f"{self.samples:,} {what} against as many {self.split} examples, {self.extractor}"

    def __str__(self) -> str:
        real = "" if self.real is None else f", real data {self.real_number}"
        note = f", {self.note}" if self.note else ""
        return f"{self.metric} {self.number}{real}{note} ({self.how})"

    @classmethod
    def from_dict(cls, content: Any) -> "Score":
        """A score as evaluation.json holds it.

        Raises:
            ValueError: a field of another type, or an unknown metric.
            TypeError: no JSON object.
            KeyError: a field that is missing.
        """
        if not isinstance(content, dict):
            raise TypeError("a score that is no JSON object")
        given = {each.name: content[each.name] for each in dataclasses.fields(cls)}
        number = (float, int)
        kinds: dict[str, Any] = {"value": number, "samples": int, "means": bool, "seed": int}
        kinds |= {"stderr": (*number, type(None)), "real": (*number, type(None))}
        for name, value in given.items():
            kind = kinds.get(name, str)
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                raise ValueError(f"{name} {value!r} of a score")
        if given["metric"] not in BETTER:
            raise ValueError(f"metric {given['metric']!r} of a score")
        return cls(**given)


def check_metrics(metrics: Sequence[str]) -> tuple[str, ...]:
    """The names of metrics, each once.

    Raises:
        ValueError: none of them is known, with what there is; none at all.
    """
    if isinstance(metrics, str):
        raise ValueError(f"metrics is {metrics!r}: expected a list of names")
    if not metrics:
        raise ValueError(f"name a metric or more: {', '.join(METRICS)}")
    for name in metrics:
        if name not in METRICS:
            raise ValueError(
                f"unknown metric {name!r}{near(str(name), METRICS)} (metrics: {', '.join(METRICS)})"
            )
    return tuple(dict.fromkeys(metrics))


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
        metrics: which, of `METRICS`.
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
    _check(metrics, judge, part.to(device).batch(slice(0, 2))[0], count)

    chosen = _first_of(part, count, seed).to(device)
    reference = _all(judge, _stored(chosen, progress, f"features of {split} data"))
    training = dataset.train.to(device)
    whole = None
    with seeded(seed, device):
        ours = _all(judge, _drawn(program, chosen, dataset, means, progress))
        if "neighbours" in metrics:
            whole = _all(judge, _stored(training, progress, "features of training data"))[0]
        real = None
        if len(training) >= count:
            same = _first_of(training, count, seed + 1)
            real = _all(judge, _stored(same, False, ""))
    found = []
    for name, mine, theirs in _measured(metrics, ours, real, reference, whole, seed):
        found.append(
            Score(name, mine.value, mine.stderr, None if theirs is None else theirs.value,
                  str(judge), count, split, means, seed, mine.note)
        )  # fmt: skip
    return tuple(found)


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
        # Training examples are their own neighbours, which says nothing.
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
    labelled = getattr(program, "num_classes", True) is not None  # its model may take y and not
    for rows in _tracked(len(part), _rows(shape), "drawing samples", progress):
        conditions = accepted(program, part.batch(rows))[1:] if labelled else ()
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


def _all(judge: Extractor, batches: Iterator[Tensor]) -> Features:
    parts = [judge(x.float()) for x in batches]
    logits = [part[1] for part in parts if part[1] is not None]
    return torch.cat([part[0] for part in parts]), torch.cat(logits) if logits else None
