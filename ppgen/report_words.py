"""What a report says in words and tables."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .report_text import (
    Card,
    duration,
    failed,
    flat,
    likelihood_card,
    list_of,
    number,
    safe,
    split_of,
    table,
    with_error,
    yaml_text,
)
from .score_record import WHAT, Score

if TYPE_CHECKING:
    from .run import Run

LIKELIHOOD = "log_likelihood_nats"

_WIDE = ("log-likelihood", "ELBO")  # cards that need room
_SHOWN = ("training_seconds", "examples_per_second", "steps")


class Words:
    """The head, numbers and configuration of a report; each gives HTML."""

    def __init__(self, run: "Run") -> None:
        self.run = run
        self.program: Any = run.program
        self.dataset = run.dataset

    def head(self, model: str, data: str) -> str:
        cards = [*self._likelihood(), *self._elbo(), *self._others(), *self._facts()]
        on = f' <span class="on">on</span> {safe(data)}' if data else ""
        about = ""
        if self.dataset is not None:
            about = f'<p class="about">{safe(repr(self.dataset))}</p>\n'
        grid = "\n".join(
            f'<div class="card{" wide" if name.endswith(_WIDE) else ""}"><dt>{safe(name)}</dt>'
            f"<dd>{safe(value)}{f' <small>{safe(unit)}</small>' if unit else ''}</dd>"
            f"{f'<p>{safe(note)}</p>' if note else ''}</div>"
            for name, value, unit, note in cards
        )
        made = list_of(flat(
            {k: v for k, v in self.run.info.items() if k not in ("data", "format", "unit", *_SHOWN)}
        ))  # fmt: skip
        return (
            f"<header>\n<h1>{safe(model)}{on}</h1>\n{about}</header>\n"
            f'<dl class="cards">\n{grid}\n</dl>\n<p class="made">{made}</p>'
        )

    def _likelihood(self) -> Iterator[Card]:
        evaluation = self.run.evaluation
        if evaluation is None:
            return
        name, found = f"{split_of(evaluation)} log-likelihood", evaluation.get(LIKELIHOOD)
        if isinstance(found, Mapping):
            notes = [str(found[k]) for k in ("kind", "measure", "method") if found.get(k)]
            yield likelihood_card(name, found, notes)
            return
        density = getattr(self.program, "density", None)
        why = {
            "implicit": "the model draws samples but has no density",
            "unnormalized": "the density is known up to a constant only",
        }.get(str(density), "it was not evaluated")
        yield name, "none", "", why

    def _elbo(self) -> Iterator[Card]:
        evaluation = self.run.evaluation or {}
        found = evaluation.get("elbo_nats")
        if isinstance(found, Mapping):
            terms = [f"{k} {number(v, 4)}" for k, v in found.items()
                     if k not in ("value", "stderr") and "/" not in k]  # fmt: skip
            value = with_error(found.get("value"), found.get("stderr"))
            yield f"{split_of(evaluation)} ELBO", value, "nats", " · ".join(terms)

    def _others(self) -> Iterator[Card]:
        """The log-likelihood by further methods of the program."""
        evaluation = self.run.evaluation or {}
        others = evaluation.get("others")
        for found in others if isinstance(others, list) else ():
            if isinstance(found, Mapping):
                name = f"{split_of(evaluation)} log-likelihood, {found.get('method')}"
                notes = [str(found[k]) for k in ("kind", "measure") if found.get(k)]
                yield likelihood_card(name, found, notes)

    def _facts(self) -> Iterator[Card]:
        run, info = self.run, self.run.info
        bits = (run.evaluation or {}).get("bits_per_dim")
        if bits is not None:
            yield "Bits per dimension", number(bits, 4), "", ""
        count = sum(p.numel() for p in self.program.parameters())
        yield "Parameters", f"{count:,}", "", ""
        last = max(run.metrics, key=lambda row: row["step"], default=None)
        seconds = info.get("training_seconds", last and last.get("seconds"))
        if seconds is not None:
            note = ""
            if last is not None:
                note = f"{last['step']:,} steps, {number(last.get('epoch'))} epochs"
            yield "Training time", duration(seconds), "", note
        if info.get("examples_per_second"):
            yield "Speed", f"{info['examples_per_second']:,.0f}", "examples/s", ""

    def data_name(self) -> str:
        if self.dataset is not None:
            return str(self.dataset.name)
        data = self.run.info.get("data")
        data = data if isinstance(data, Mapping) else {}
        return str(data.get("name") or data.get("source") or "")

    def scores(self) -> str:
        """What was found of the program's samples, each with the features it is in."""
        stored = (self.run.evaluation or {}).get("scores")
        if not isinstance(stored, list) or not stored:
            return ""
        try:
            found = [Score.from_dict(one) for one in stored]
        except (ValueError, TypeError, KeyError) as error:
            return failed("scores of samples", error)
        parts = []
        for how, real in dict.fromkeys((score.how, score.real_how) for score in found):
            rows = [[f"{s.metric}: {WHAT[s.metric]}", s.number, s.real_number or None, s.note]
                    for s in found if (s.how, s.real_how) == (how, real)]  # fmt: skip
            head = ["", "samples", "real data", ""]
            parts.append(table(how, head, rows))
            parts.append(f'<p class="note">Real data: {safe(real)}.</p>')
        return "".join(parts)

    def numbers(self) -> str:
        """The last measurements of either split, and all of the evaluation."""
        parts = []
        measured = {split: self._last(split) for split in ("train", "validation")}
        shown = {split: row for split, row in measured.items() if row}
        if shown:
            keys = dict.fromkeys(k for row in shown.values() for k in row if k != "split")
            lines = [[key, *(row.get(key) for row in shown.values())] for key in keys]
            parts.append(table("The last row of each split", ["", *shown], lines))
        if self.run.evaluation:
            rest = {k: v for k, v in self.run.evaluation.items() if k != "scores"}
            rows = [[name, value] for name, value in flat(rest)]
            split = split_of(self.run.evaluation).lower()
            parts.append(table(f"Evaluation on {split}", ["", "value"], rows))
        return f'<div class="side">{"".join(parts)}</div>' if parts else ""

    def _last(self, split: str) -> dict[str, Any]:
        rows = [row for row in self.run.metrics if row.get("split") == split]
        return max(rows, key=lambda row: row["step"], default={})

    def configuration(self) -> str:
        parts = []
        if self.run.config:
            parts.append(f"<pre>{safe(yaml_text(self.run.config))}</pre>")
        if self.run.info.get("data"):
            parts.append(f"<h3>Data</h3><pre>{safe(yaml_text(self.run.info['data']))}</pre>")
        return "\n".join(parts)
