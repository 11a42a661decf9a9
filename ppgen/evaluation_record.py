"""What an evaluation found, and its form in evaluation.json."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from .likelihood import Likelihood
from .run import read_json
from .score_record import Score

NOT_ASKED = "the likelihood was not asked for"
_TYPES: dict[Any, tuple[type, ...]] = {float: (float, int), int: (int,), str: (str,)}


@dataclass(frozen=True)
class Evaluation:
    """What is known of a program on held-out data.

    Attributes:
        data: name of the data set.
        split: "test" or "validation".
        elbo: mean evidence lower bound and its terms in nats, or None where there is none.
        log_likelihood: the mean log-likelihood with its kind and measure, or None.
        bits_per_dim: -log_likelihood / (dimensions log 2); None for reals.
        reason: why there is no likelihood, where there is none.
        seconds: how long it took.
        others: the log-likelihood by further methods that the program offers, each over the
            first examples of the split only where it says so.
        scores: what was found of its samples, each with its own split; see `ppgen.sample_scores`.
    """

    data: str
    split: str
    elbo: dict[str, float] | None
    log_likelihood: Likelihood | None
    bits_per_dim: float | None
    reason: str | None
    seconds: float
    others: tuple[Likelihood, ...] = ()
    scores: tuple[Score, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As it is written to evaluation.json."""
        likelihood = self.log_likelihood
        return {
            "data": self.data,
            "split": self.split,
            "elbo_nats": self.elbo,
            "log_likelihood_nats": None if likelihood is None else dataclasses.asdict(likelihood),
            "bits_per_dim": self.bits_per_dim,
            "reason": self.reason,
            "seconds": round(self.seconds, 3),
            "others": [dataclasses.asdict(other) for other in self.others],
            "scores": [dataclasses.asdict(score) for score in self.scores],
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Evaluation":
        """An evaluation as evaluation.json holds it.

        Raises:
            ValueError: a value that cannot be.
            TypeError: a part that is no JSON object.
            KeyError: a part that is missing.
        """
        if content["split"] not in ("test", "validation"):
            raise ValueError(f"split {content['split']!r}")
        main = content["log_likelihood_nats"]
        elbo = content.get("elbo_nats")
        if not isinstance(elbo, (dict, type(None))):
            raise TypeError("an ELBO that is no JSON object")
        return cls(
            data=str(content.get("data", "")),
            split=content["split"],
            elbo=elbo,
            log_likelihood=None if main is None else _likelihood(main),
            bits_per_dim=content.get("bits_per_dim"),
            reason=content.get("reason"),
            seconds=content.get("seconds", 0.0),
            others=tuple(map(_likelihood, content.get("others", ()))),
            scores=tuple(map(Score.from_dict, content.get("scores", ()))),
        )

    def __str__(self) -> str:
        lines = []
        if self.log_likelihood is not None:
            lines.append(f"{self.split} {self.log_likelihood}")
            lines.append(f"measure: {self.log_likelihood.measure}")
        if self.elbo is not None:
            error = f" +- {self.elbo['stderr']:.2f}" if "stderr" in self.elbo else ""
            parts = [f"{k} {v:.2f}" for k, v in self.elbo.items() if k not in ("value", "stderr")]
            lines.append(f"ELBO {self.elbo['value']:.2f}{error} nats ({', '.join(parts)})")
        if self.bits_per_dim is not None:
            lines.append(f"{self.bits_per_dim:.4f} bits/dim")
        for other in self.others:
            examples = f"{other.examples:,} examples, {other.measure}"
            lines.append(f"{self.split} {other}, {examples}")
        lines.extend(map(str, self.scores))
        return "\n".join(lines + ([self.reason] if self.reason else []))


def _likelihood(content: dict[str, Any]) -> Likelihood:
    if not isinstance(content, dict):
        raise TypeError("a likelihood that is no JSON object")
    given = {}
    for each in dataclasses.fields(Likelihood):
        value = content.get(each.name, each.default)
        if value is dataclasses.MISSING:
            raise KeyError(each.name)
        choices = get_args(each.type)
        if value not in choices if choices else type(value) not in _TYPES[each.type]:
            raise ValueError(f"{each.name} {value!r}")
        given[each.name] = value
    return Likelihood(**given)


def merged(old: Sequence[Score], new: Sequence[Score]) -> tuple[Score, ...]:
    """Scores with newer ones added, in the place of those of the same terms."""
    fresh = {(score.metric, score.terms) for score in new}
    return (*(s for s in old if (s.metric, s.terms) not in fresh), *new)


def stored_evaluation(path: Path) -> Evaluation | None:
    """The evaluation in a run directory; None where there is none of the run's last step.

    Raises:
        ValueError: it is damaged.
    """
    file = path / "evaluation.json"
    if not file.exists():
        return None
    try:
        content = read_json(file)
        if "step" in content and content["step"] != read_json(path / "run.json").get("steps"):
            return None  # it was trained on since
        return Evaluation.from_dict(content)
    except (ValueError, TypeError, KeyError) as error:
        why = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{file} is damaged ({why})") from None
