"""Scores of samples in a comparison: which compare, their places, and why others do not."""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence

from .comparison_records import Group, Row, listed
from .evaluation_record import Evaluation
from .score_record import BETTER, NUMBERS, Score

Entries = Sequence[Sequence[Row]]  # the rows of each run, its main one first


def lacking(found: Evaluation | None, metrics: Sequence[str], terms: tuple) -> list[str]:
    """The metrics that an evaluation does not hold on these terms."""
    stored = set() if found is None else {s.metric for s in found.scores if s.terms == terms}
    return [name for name in metrics if not stored.issuperset(NUMBERS[name])]


def chosen(entries: Entries) -> list[list[Row]]:
    """The rows, each run with those of its scores that are on one set of terms.

    These are the terms that most runs of the same data have. Ties are broken alike for all of
    them, so that terms that all share are found: the newest of the first run goes before.
    """
    common: dict[tuple, Counter] = {}  # in the order of first mention, by which ties are broken
    for rows in entries:
        newest = dict.fromkeys(score.terms for score in reversed(rows[0].scores))
        common.setdefault(_data(rows[0]), Counter()).update(list(newest))
    found = []
    for rows in entries:
        first, order = rows[0], common[_data(rows[0])].most_common()
        own = {score.terms for score in first.scores}
        best = next((terms for terms, _ in order if terms in own), None)
        scores = tuple(score for score in first.scores if score.terms == best)
        found.append([dataclasses.replace(first, scores=scores), *rows[1:]])
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


def _data(row: Row) -> tuple:
    return row.space.data, row.space.split_seed


def _arena(row: Row, score: Score) -> tuple:
    return *_data(row), score.metric, score.terms


def real_lines(groups: Sequence[Group]) -> list[list[tuple[tuple[Score, ...], list[str]]]]:
    """What real data get, for each group: the scores of one data set and terms, and the numbers.

    Runs of several groups may have them in common; they then go with the first of these groups.
    """
    members: dict[tuple, list[Score]] = {}
    homes: dict[tuple, int] = {}
    for k, group in enumerate(groups):
        for row in group.rows:
            if row.scores:
                key = *_data(row), row.scores[0].terms
                members.setdefault(key, []).extend(row.scores)
                homes.setdefault(key, k)
    found: list[list[tuple[tuple[Score, ...], list[str]]]] = [[] for _ in groups]
    for key, scores in members.items():
        texts = [(name, real_text([s for s in scores if s.metric == name])) for name in BETTER]
        lines = [f"{name} {text}" for name, text in texts if text]
        if lines:
            found[homes[key]].append((tuple(scores), lines))
    return found


def real_text(scores: Sequence[Score]) -> str:
    """The number of real data that scores of one metric have in common, "" where there is none.

    Numbers that would be written alike count as one: batches of other sizes change last bits.
    """
    reals = [score.real for score in scores if score.real is not None]
    if not reals or len(reals) < len(scores):
        return ""
    decimals = min(score.decimals for score in scores)
    return f"{reals[0]:,.{decimals}f}" if max(reals) - min(reals) < 0.5 * 10**-decimals else ""


def shared_how(groups: Sequence[Group]) -> str:
    """The terms of all scores in words, where all are on the same; else ""."""
    hows = {row.scores[0].how for group in groups for row in group.rows if row.scores}
    return hows.pop() if len(hows) == 1 else ""


def _better(one: Score, other: Score) -> bool:
    """Whether one score is better than another by more than two standard errors."""
    gap = other.value - one.value if BETTER[one.metric] == "low" else one.value - other.value
    return gap > 2 * math.hypot(one.stderr or 0.0, other.stderr or 0.0)


def score_notes(groups: Sequence[Group], seed: int) -> list[str]:
    """What a reader has to know of the scores: their terms, why some are not ranked together."""
    rows = [row for group in groups for row in group.rows if row.scores]
    if not rows:
        return []
    found = [
        "Scores judge samples, each number in its own way; in brackets its place among all runs of "
        "the same data and terms, a range where differences are within two standard errors."
    ]
    if shared_how(groups):
        found.append(f"Scores: {shared_how(groups)}.")
    reals = dict.fromkeys(s.real_how for row in rows for s in row.scores if s.real is not None)
    found += [f"Real data: {how}." for how in reals]
    others = [row.run for row in rows if any(score.seed != seed for score in row.scores)]
    if others:
        found.append(
            f"Scores of {listed(others)} are of another seed than {seed}, as evaluation.json holds "
            "them; evaluate=all (--evaluate all) evaluates anew."
        )
    told = set()
    for k, row in enumerate(rows):
        for other in rows[:k]:
            shared = {s.metric for s in row.scores} & {s.metric for s in other.scores}
            pair = frozenset((row.scores[0].terms, other.scores[0].terms))
            if not shared or _data(row) != _data(other) or len(pair) == 1 or pair in told:
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
    if one.given != other.given:
        given = (f"the examples' own {s.given}" if s.given else "nothing" for s in (one, other))
        return f"the models were given {' and '.join(given)}, which is not the same task"
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
