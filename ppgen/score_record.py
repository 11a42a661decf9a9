"""Scores of samples: what there is to ask for, and the form of one in evaluation.json."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .names import near

# What can be asked for, with what it is.
METRICS = {
    "fid": "Frechet distance of Gaussians fitted to the features",
    "kid": "squared maximum mean discrepancy, cubic kernel, unbiased for independent samples",
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
    "kid": "kernel distance, about 0 if alike",
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
GIVEN = ("", "labels", "images")


@dataclass(frozen=True)
class Score:
    """A number that judges samples, with everything needed to compare it honestly.

    Attributes:
        metric: which number, of `BETTER`; see `ppgen.metrics`.
        value: the number.
        stderr: its standard error over samples and examples, as the metric says; None where there
            is none.
        real: the same number of as many examples of `real_split` in the place of the samples. None
            where that says nothing or they are too few.
        extractor: the features it is in, with a digest; scores by different ones do not compare.
        samples: how many samples, and as many held-out examples.
        split: which examples, "test" or "validation".
        means: whether means of p(x | latents) were judged in place of draws.
        seed: of the draws and the choice of examples.
        note: what else the metric says.
        given: what of the held-out examples each sample was drawn given: "" for nothing, "labels"
            or "images". Given them, the shares of the classes are right without being learned.
        real_split: which examples stand for real data: the other held-out split ("validation", or
            "test" against validation examples) where it has as many, new to the extractor as to the
            program: what samples of the data themselves get, but for chance. Else "train", whose
            labels the classifier has learned, so that they score as no new data do.
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
    given: str = ""
    real_split: str = "train"

    @property
    def terms(self) -> tuple:
        """What has to agree, besides the data, for two scores of one metric to be compared."""
        return self.extractor, self.samples, self.split, self.means, self.given

    @property
    def number(self) -> str:
        """ "12.34 +- 0.20", or "10" of classes."""
        if self.stderr is None:
            return self.written(self.value)
        return f"{self.written(self.value)} +- {self.written(self.stderr)}"

    @property
    def real_number(self) -> str:
        """The number of real data, "" where there is none."""
        return "" if self.real is None else self.written(self.real)

    def written(self, value: float) -> str:
        """A value to `decimals`."""
        return f"{value:,.{self.decimals}f}"

    @property
    def decimals(self) -> int:
        """As many as show two figures of the standard error, at least two."""
        if self.stderr is not None and math.isfinite(self.stderr) and self.stderr > 0:
            return min(6, max(2, 1 - math.floor(math.log10(self.stderr))))
        return 0 if self.metric == "classes" else 2

    @property
    def how(self) -> str:
        """ "1,000 draws against as many test examples, EXTRACTOR"."""
        what = "means" if self.means else "draws"
        given = f" given the {self.given} of as many" if self.given else " against as many"
        judged = ", against these" if self.given else ""
        return f"{self.samples:,} {what}{given} {self.split} examples{judged}, {self.extractor}"

    @property
    def real_how(self) -> str:
        """What stands for real data, in words."""
        if self.real_split == "train":
            return "training examples in the place of the samples, known to a trained classifier"
        return f"{self.real_split} examples in the place of the samples"

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
        later: dict[str, Any] = {"given": "", "real_split": "train"}  # fields that older files lack
        whole = later | content
        given = {each.name: whole[each.name] for each in dataclasses.fields(cls)}
        number = (float, int)
        kinds: dict[str, Any] = {"value": number, "samples": int, "means": bool, "seed": int}
        kinds |= {"stderr": (*number, type(None)), "real": (*number, type(None))}
        for name, value in given.items():
            kind = kinds.get(name, str)
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                raise ValueError(f"{name} {value!r} of a score")
        if given["metric"] not in BETTER:
            raise ValueError(f"metric {given['metric']!r} of a score")
        for name, known in (("given", GIVEN), ("real_split", ("train", "validation", "test"))):
            if given[name] not in known:
                raise ValueError(f"{name} {given[name]!r} of a score")
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
