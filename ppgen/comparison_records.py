"""What a comparison holds: data spaces, rows, groups of them, and their ranks."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .likelihood import Likelihood
from .score_record import Score


@dataclass(frozen=True)
class Space:
    """What has to agree for two log-likelihoods to be numbers of the same thing.

    Attributes:
        name: of the data set.
        source: where the data come from, as `load_data` takes it.
        shape: of one example, which a source and a `size` determine.
        levels: that x can take; None for reals.
        binarize: "none", "threshold", or "drawn" ("static" and "dynamic", alike in held-out data).
        labels: whether the model is given the label: log p(x | y) instead of log p(x).
        measure: "probability" of levels or "density"; None without a likelihood.
        split: "test" or "validation".
        split_seed: which chose the examples and drew their pixels.
        examples: how many, the first of the split; None without a likelihood.
    """

    name: str = field(compare=False)
    source: str
    shape: tuple[int, ...]
    levels: int | None
    binarize: str
    labels: bool
    measure: str | None
    split: str
    split_seed: int
    examples: int | None

    @property
    def data(self) -> tuple:
        """The data, whatever is asked of them."""
        return self.source, self.shape, self.levels, self.binarize

    @property
    def size(self) -> str:
        """ "28x28", "3x32x32" of colours, "2-d" of vectors."""
        if len(self.shape) == 1:
            return f"{self.shape[0]}-d"
        shape = self.shape[1:] if len(self.shape) == 3 and self.shape[0] == 1 else self.shape
        return "x".join(map(str, shape))

    @property
    def values(self) -> str:
        """ "256 levels", or "reals"."""
        return "reals" if self.levels is None else f"{self.levels} levels"

    @property
    def how(self) -> str:
        """How it became two levels: "", " (drawn)" or " (by threshold)"."""
        return {"threshold": " (by threshold)", "drawn": " (drawn)"}.get(self.binarize, "")

    def __str__(self) -> str:
        given = ", given the label" if self.labels else ""
        return f"{self.name} {self.size}, {self.values}{self.how}{given}"


@dataclass(frozen=True)
class Row:
    """A log-likelihood of a run, or why there is none.

    Attributes:
        run: name of the run, its directory.
        model: name of its class.
        space: what the number is of.
        likelihood: the number with its kind; None where there is none.
        main: whether it is the run's main number, by which it is ranked.
        seconds: of training; None where unknown.
        parameters: how many numbers the model has learned.
        reason: why there is no likelihood.
        rank: the best and the worst place that differences beyond two standard errors leave;
            None where there is no one to rank it with.
        scores: of the run's samples, on one set of terms; with its main number.
        places: of the scores, by metric, as `rank`; see `comparison_scores.placed`.
    """

    run: str
    model: str
    space: Space
    likelihood: Likelihood | None
    main: bool
    seconds: float | None
    parameters: int
    reason: str | None = None
    rank: tuple[int, int] | None = None
    scores: tuple[Score, ...] = ()
    places: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def bits_per_dim(self) -> float | None:
        """-nats / (D log 2) for D dimensions; None for reals."""
        if self.likelihood is None or self.space.levels is None:
            return None
        return -self.likelihood.value / self.nats_per_bit_per_dim

    @property
    def nats_per_bit_per_dim(self) -> float:
        return math.prod(self.space.shape) * math.log(2)


@dataclass(frozen=True)
class Group:
    """Runs whose main numbers are of one space, best first; below each its further methods."""

    space: Space
    rows: tuple[Row, ...]


def grouped(entries: list[list[Row]]) -> list[Group]:
    """Runs of one space together and ranked; one without a likelihood joins those of its data."""
    spaces = dict.fromkeys(rows[0].space for rows in entries if rows[0].likelihood is not None)
    groups: dict[Space, list[list[Row]]] = {space: [] for space in spaces}
    for rows in entries:
        space = rows[0].space
        if rows[0].likelihood is None:
            alike = [one for one in groups if one.data == space.data]
            space = alike[0] if alike else space
        groups.setdefault(space, []).append(rows)
    return [Group(space, ranked(members)) for space, members in groups.items()]


def ranked(members: Sequence[Sequence[Row]]) -> tuple[Row, ...]:
    """The rows of several runs of one space, the first of each ranked; the best run first.

    Being tied is not transitive, so each run has a range of places: 1 + how many are better by
    more than two standard errors, to n - how many are worse by as much. A standard error that is
    not known, of one example, tells nothing apart.
    """
    able = [rows for rows in members if _finite(rows[0])]
    able.sort(key=lambda rows: -_of(rows[0]).value)
    rest = [rows for rows in members if not _finite(rows[0])]
    found = []
    for rows in able:
        place = None
        if len(able) > 1:
            gaps = [_beyond(_of(rows[0]), _of(other[0])) for other in able]
            place = 1 + gaps.count(-1), len(able) - gaps.count(1)
        found += [dataclasses.replace(rows[0], rank=place), *rows[1:]]
    return tuple([*found, *(row for rows in rest for row in rows)])


def _finite(row: Row) -> bool:
    return row.likelihood is not None and math.isfinite(row.likelihood.value)


def _of(row: Row) -> Likelihood:
    if row.likelihood is None:
        raise ValueError(f"{row.run} has no likelihood to rank")
    return row.likelihood


def _beyond(one: Likelihood, other: Likelihood) -> int:
    """1 where one is larger by more than two standard errors of the difference, -1 smaller."""
    gap = one.value - other.value
    error = math.hypot(one.stderr, other.stderr)
    if not abs(gap) > 2 * error:
        return 0
    return 1 if gap > 0 else -1


# Why groups are apart -------------------------------------------------------------------------


def reasons_apart(groups: Sequence[Group]) -> list[str]:
    """A sentence for each group after the first: why it is not ranked with the one most like it."""
    spaces = [group.space for group in groups]
    found = []
    for k, space in enumerate(spaces[1:], 1):
        found.append(max((_apart(other, space) for other in spaces[:k]), key=lambda pair: pair[0]))
    return list(dict.fromkeys(text for _, text in found))


def _apart(one: Space, other: Space) -> tuple[int, str]:
    """How alike two spaces are, larger for more, and in words what they differ in."""
    if one.data != other.data:
        left, right = _told_apart(one, other)
        return 0, (
            f"{left} and {right} are different data: nats and bits/dim of one say nothing about "
            "the other."
        )
    name = f"{one.name} in {one.values}"
    if one.labels != other.labels:
        return 1, (
            f"log p(x | y) of models given the label and log p(x) of others, on {name}, answer "
            "different questions: they are not ranked together."
        )
    if one.measure != other.measure:
        return 2, (
            f"A density and a probability of levels, of {name}, are different measures: their "
            "nats and bits/dim are not ranked together."
        )
    if one.split != other.split:
        return 3, (
            f"{one.split} and {other.split} data of {name} are different examples: evaluate all "
            "runs on one split (--evaluate all)."
        )
    if one.split_seed != other.split_seed:
        return 4, (
            f"Split seeds {one.split_seed} and {other.split_seed} of {name} choose different "
            "examples, or draw them differently: their averages are not ranked together."
        )
    return 5, (
        f"Averages over {one.examples:,} and {other.examples:,} examples of {name} are not ranked "
        "together: evaluate all runs on the same (--evaluate all --limit N)."
    )


def _told_apart(one: Space, other: Space) -> tuple[str, str]:
    """Two spaces in as few words as tell them apart, the name and the levels always among them."""
    texts = []
    for space in (one, other):
        name = space.name
        if one.name == other.name and one.source != other.source:
            name += f" ({space.source})"
        size = f" {space.size}" if one.shape != other.shape else ""
        how = space.how if one.levels == other.levels and one.binarize != other.binarize else ""
        texts.append(f"{name}{size} in {space.values}{how}")
    return texts[0], texts[1]


def cautions(groups: Sequence[Group]) -> list[str]:
    """What the ranks that are shown do not say."""
    places = [row for group in groups for row in group.rows if row.rank is not None]
    kinds = {row.likelihood.kind for row in places if row.likelihood is not None}
    found = []
    if any(row.rank[0] < row.rank[1] for row in places if row.rank is not None):
        found.append(
            "A range of ranks is a tie: its differences are within two standard errors of the "
            "difference, unpaired."
        )
    if "bound" in kinds:
        found.append(
            "A bound (>=) that ranks lower does not prove the worse model: its truth may be higher."
        )
    if "estimate" in kinds:
        found.append("The rank of an estimate (~) proves nothing: it may be too high or too low.")
    if any(not row.main for group in groups for row in group.rows):
        found.append(
            "Rows without a name are further methods of the run above, which is ranked by its "
            "first."
        )
    return found


def listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
