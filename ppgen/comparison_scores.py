"""Scores of samples in a comparison: which compare, their places, and why others do not."""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from .comparison_records import Row, listed
from .evaluation_record import Evaluation
from .features import extractor
from .run import Run
from .sample_scores import BETTER, MOST, NUMBERS, Score

Entries = Sequence[Sequence[Row]]  # the rows of each run, its main one first


def wanted_terms(run: Run, asked: Mapping[str, Any], split: str, device: str, progress: bool):
    """The terms, see `Score.terms`, on which a run's samples are to be judged."""
    dataset: Any = run.dataset
    part = getattr(dataset, split)
    samples = asked["samples"] or min(len(part), MOST)
    judge = extractor(asked["features"], dataset, device=device, progress=progress)
    return str(judge), samples, split, bool(asked["means"])


def lacking(found: Evaluation | None, metrics: Sequence[str], terms: tuple) -> list[str]:
    """The metrics that an evaluation does not hold on these terms."""
    stored = set() if found is None else {s.metric for s in found.scores if s.terms == terms}
    return [name for name in metrics if not stored.issuperset(NUMBERS[name])]


def chosen(stored: Mapping[str, Sequence[Score]]) -> dict[str, tuple[Score, ...]]:
    """Of each run's scores those on one set of terms: what most runs have, then the newest."""
    common = Counter(terms for scores in stored.values() for terms in {s.terms for s in scores})
    found = {}
    for name, scores in stored.items():
        newest = list(dict.fromkeys(score.terms for score in reversed(scores)))
        best = max(newest, key=lambda terms: common[terms], default=None)
        found[name] = tuple(score for score in scores if score.terms == best)
    return found


def placed(entries: Entries) -> list[list[Row]]:
    """The rows with the places of their scores, among runs of the same data and terms.

    As with likelihoods a place is a range, which differences within two standard errors leave
    open; of a number without one every difference counts. Neither is best of a metric that has no
    better side, and a run alone has no place.
    """
    rivals: dict[tuple, list[Score]] = {}
    for rows in entries:
        for score in rows[0].scores:
            rivals.setdefault(_arena(rows[0], score), []).append(score)
    found = []
    for rows in entries:
        first = rows[0]
        places = {}
        for score in first.scores:
            others = rivals[_arena(first, score)]
            if len(others) > 1 and BETTER[score.metric] is not None:
                ahead = sum(_better(other, score) for other in others)
                behind = sum(_better(score, other) for other in others)
                places[score.metric] = 1 + ahead, len(others) - behind
        found.append([dataclasses.replace(first, places=places), *rows[1:]])
    return found


def _arena(row: Row, score: Score) -> tuple:
    return row.space.data, row.space.split_seed, score.metric, score.terms


def _better(one: Score, other: Score) -> bool:
    """Whether one score is better than another by more than two standard errors."""
    gap = other.value - one.value if BETTER[one.metric] == "low" else one.value - other.value
    return gap > 2 * math.hypot(one.stderr or 0.0, other.stderr or 0.0)


def score_notes(entries: Entries) -> list[str]:
    """What a reader has to know of the scores: why some are not ranked together."""
    rows = [rows[0] for rows in entries if rows[0].scores]
    if not rows:
        return []
    found = [
        "Scores judge samples, each number in its own way; in brackets its place, a range where "
        "differences are within two standard errors."
    ]
    told = set()
    for k, row in enumerate(rows):
        for other in rows[:k]:
            shared = {s.metric for s in row.scores} & {s.metric for s in other.scores}
            alike = (row.space.data, row.space.split_seed) == (
                other.space.data, other.space.split_seed
            )  # fmt: skip
            pair = frozenset((row.scores[0].terms, other.scores[0].terms))
            if not shared or not alike or len(pair) == 1 or pair in told:
                continue
            told.add(pair)
            found.append(
                f"Scores of {listed([other.run, row.run])} are not ranked together: "
                f"{_unlike(other.scores[0], row.scores[0])}."
            )
    return found


def _unlike(one: Score, other: Score) -> str:
    """What the terms of two scores differ in, the gravest difference first."""
    if one.extractor != other.extractor:
        return (
            f"they are by different extractors, {one.extractor} and {other.extractor}, whose "
            "features have no common scale (--metrics with one --features computes them alike)"
        )
    if one.split != other.split:
        return f"{one.split} and {other.split} data are different examples"
    if one.means != other.means:
        words = ("means" if each.means else "draws" for each in (one, other))
        return f"{' and '.join(words)} are not the same thing (--means)"
    return (
        f"they are of {one.samples:,} and {other.samples:,} samples, and the bias of some depends "
        "on how many (--samples)"
    )


def place_of(row: Row, metric: str) -> str:
    """ " (1)" or " (1-2)", "" without a place."""
    if metric not in row.places:
        return ""
    best, worst = row.places[metric]
    return f" ({best})" if best == worst else f" ({best}-{worst})"
