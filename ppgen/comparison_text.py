"""A comparison as a table to read and as a CSV file."""

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from .comparison_records import Group, Row
from .comparison_scores import place_of, real_lines, shared_how
from .score_record import BETTER

MARKS = {"exact": "=", "bound": ">=", "estimate": "~"}  # of nats
BITS_MARKS = MARKS | {"bound": "<="}  # bits/dim have the other sign
LEGEND = (
    "= exact; >= bound, the truth is at least this (of bits/dim <=, at most); ~ estimate, the "
    "truth may lie on either side; +- one standard error."
)
_CSV = ("group", "rank_best", "rank_worst", "run", "model", "main", "data", "source", "shape",
        "levels", "binarize", "given_label", "split", "split_seed", "examples", "measure", "kind",
        "log_likelihood_nats", "stderr_nats", "bits_per_dim", "method", "particles", "unit",
        "training_seconds", "parameters", "reason", "score_extractor", "score_samples",
        "score_split", "score_means", "score_given", "score_real_split",
        *(f"{name}{part}" for name in BETTER
          for part in ("", "_stderr", "_real", "_seed", "_note")))  # fmt: skip


def table_of(groups: Sequence[Group]) -> Table:
    """One table with a section a group; see `Comparison.table`."""
    table = Table(box=box.ROUNDED)
    scored = any(row.scores for group in groups for row in group.rows)
    numbers = "log-likelihood, scores of samples" if scored else "log-likelihood"
    for name, whole in (("rank", True), ("run", False), (numbers, True)):
        table.add_column(name, no_wrap=whole, overflow="fold")
    table.add_column("data, examples, measure, method", overflow="fold")
    shared = bool(shared_how(groups))  # the notes tell it then
    for group, reals in zip(groups, real_lines(groups), strict=True):
        table.add_section()
        for k, row in enumerate(group.rows):
            if k:
                table.add_row()
            cells = (_rank(row), _whose(row), _number(row), _how(row, not shared))
            table.add_row(*map(Text, cells))
        for scores, lines in reals:
            table.add_row()
            what = scores[0].real_split.replace("train", "training") + " examples"
            how = what if shared else f"{what}; scores: {scores[0].how}"
            table.add_row("", "real data", Text("\n".join(lines)), Text(how))
    return table


def csv_of(groups: Sequence[Group]) -> str:
    """A line a row, in full precision; see `Comparison.to_csv`."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV)
    for number, group in enumerate(groups, 1):
        writer.writerows(_record(number, row) for row in group.rows)
    return text.getvalue()


def _whose(row: Row) -> str:
    if not row.main:
        return ""
    lines = [row.run, row.model, f"{row.parameters:,} parameters"]
    if row.seconds is not None:
        lines.append(f"trained for {duration(row.seconds)}")
    return "\n".join(lines)


def _number(row: Row) -> str:
    one, bits = row.likelihood, row.bits_per_dim
    lines = ["none"]
    if one is not None:
        lines = [f"{MARKS[one.kind]} {with_error(one.value, one.stderr)} nats"]
    if one is not None and bits is not None:
        lines.append(f"{BITS_MARKS[one.kind]} {bits:.4f} bits/dim")
    lines += [f"{s.metric} {s.number}{place_of(row, s.metric)}" for s in row.scores]
    return "\n".join(lines)


def _how(row: Row, with_scores: bool) -> str:
    """What the number is of, and how it was found; or why there is none."""
    lines = [str(row.space)] if row.main else []
    one = row.likelihood
    if one is None:
        lines.append(str(row.reason))
    else:
        lines += [f"{row.space.split}, {one.examples:,} examples", one.measure, one.how]
    if row.scores and with_scores:
        lines.append(f"scores: {row.scores[0].how}")
    return "\n".join(lines)


def _rank(row: Row) -> str:
    if row.rank is None:
        return ""
    best, worst = row.rank
    mark = "~" if row.likelihood is not None and row.likelihood.kind == "estimate" else ""
    return mark + (str(best) if best == worst else f"{best}-{worst}")


def _record(group: int, row: Row) -> list[Any]:
    space, one = row.space, row.likelihood
    numbers: list[Any] = [None] * 7
    if one is not None:
        numbers = [one.kind, one.value, one.stderr, row.bits_per_dim]
        numbers += [one.method, one.particles, one.unit]
    return [
        group, *(row.rank or (None, None)), row.run, row.model, row.main, space.name, space.source,
        "x".join(map(str, space.shape)), space.levels, space.binarize, space.labels, space.split,
        space.split_seed, space.examples, space.measure, *numbers, row.seconds, row.parameters,
        row.reason, *_score_cells(row),
    ]  # fmt: skip


def _score_cells(row: Row) -> list[Any]:
    by_name = {score.metric: score for score in row.scores}
    first = row.scores[0] if row.scores else None
    terms = [None] * 6 if first is None else [*first.terms, first.real_split]
    cells = [
        None if name not in by_name else getattr(by_name[name], field)
        for name in BETTER
        for field in ("value", "stderr", "real", "seed", "note")
    ]
    return [*terms, *cells]


def with_error(value: float, stderr: float) -> str:
    """ "-98.42 +- 0.31": two decimals, or as many as show two figures of the error."""
    decimals = 2
    if math.isfinite(stderr) and stderr > 0:
        decimals = min(6, max(2, 1 - math.floor(math.log10(stderr))))
    return f"{value:,.{decimals}f} +- {stderr:.{decimals}f}"


def duration(seconds: float) -> str:
    """In the unit that suits, to one decimal: "12.3 s", "4.5 min", "2.1 h"."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.1f} s"
