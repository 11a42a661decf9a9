"""Likelihoods and scores of runs side by side, ranked only where they are of one thing."""

import dataclasses
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text
from torch import nn

from . import evaluation
from .comparison_records import Group, Row, Space, cautions, grouped, listed, reasons_apart
from .comparison_scores import chosen, lacking, placed, score_notes
from .comparison_text import LEGEND, csv_of, table_of
from .data import Dataset
from .evaluation_record import NOT_ASKED, Evaluation, stored_evaluation
from .loading import open_run, template
from .names import one_of
from .processes import find_device
from .run import Run, check_format, read_yaml
from .sample_scores import planned
from .score_record import NUMBERS, Score, check_metrics
from .sites import accepted

Evaluate = Literal["missing", "all", "never"]


@dataclass(frozen=True)
class Comparison:
    """Runs with their log-likelihoods, in groups of numbers that can be ranked.

    Attributes:
        groups: one for each data space and measure, by the first of its runs.
        notes: what a reader has to know of the ranks, a sentence each.
        runs: the runs by name, from which `picture` draws samples.
    """

    groups: tuple[Group, ...]
    notes: tuple[str, ...]
    runs: dict[str, Run] = field(repr=False)

    @property
    def rows(self) -> tuple[Row, ...]:
        """All rows: a run's main likelihood, then its further methods."""
        return tuple(row for group in self.groups for row in group.rows)

    def table(self) -> Table:
        """One table with a section a group; rows without a rank cannot be ranked, or are alone."""
        return table_of(self.groups)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.table()
        yield from map(Text, self.notes)  # not markup: names come from files

    def __str__(self) -> str:
        text = io.StringIO()
        Console(file=text, width=1000, markup=False, highlight=False).print(self)
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines())

    def to_csv(self) -> str:
        """All rows in full precision; `group` numbers the data spaces, empty is what is unknown.

        Of a tie, rank_best and rank_worst differ; `main` tells a run's own number from its further
        methods. Nats are per example, bits_per_dim is empty for reals.
        """
        return csv_of(self.groups)

    def picture(
        self, *, samples: int = 10, seed: int = 0, device: str = "cpu", progress: bool = False
    ) -> bytes:
        """A PNG: a panel a group with a value a run, and samples beside runs of images.

        Args:
            samples: pictures a run, the means of p(x | latents).
            seed: of the draws.
            device: where to draw them.
            progress: show a progress bar, should it take long.
        """
        from .comparison_picture import draw_comparison

        return draw_comparison(self, samples, seed, device, progress)


def compare(
    runs: Sequence[Run | str | Path],
    *,
    models: Sequence[type[nn.Module]] = (),
    evaluate: Evaluate = "missing",
    particles: int | None = None,
    limit: int | None = None,
    others: int | None = None,
    split: Literal["test", "validation"] = "test",
    device: str = "cpu",
    seed: int = 0,
    progress: bool = False,
    metrics: Sequence[str] = (),
    samples: int | None = None,
    features: str | nn.Module | None = None,
    means: bool = False,
) -> Comparison:
    """Compare runs by the log-likelihoods and scores of their evaluations; those without get one.

    Ranks are given within one data space and one measure only, see `Space`: bits/dim of unlike
    data, or densities and probabilities, say nothing about each other. A difference within two
    standard errors is a tie; these are of the difference of two means taken as independent, so a
    paired comparison of the same examples could tell finer ones. A run is ranked by its main
    number, the first of its methods.

    Scores of samples have places of their own, among runs of the same data by the same extractor,
    of as many samples, given the same of the examples, means or draws alike; others are shown
    without one, with the reason. They are what the evaluations hold, of whatever seed; `metrics`
    computes what is missing.

    Args:
        runs: runs, or their directories.
        models: classes of models that are not ppgen's own.
        evaluate: which runs to evaluate first: those without evaluation.json of their last step
            ("missing"), "all", or "never". The arguments that follow concern these alone; see
            `ppgen.evaluate`.
        particles: draws an example; None for the program's own number.
        limit: only the first examples of the split.
        others: examples for the further methods that some programs have; 0 leaves them out.
        split: "test" or "validation".
        device: where to compute.
        seed: of the draws.
        progress: show progress bars.
        metrics: scores that every run is to have, see `ppgen.evaluate`, and no others are shown;
            none shows what the evaluations hold.
        samples: of the scores, see `ppgen.evaluate`; so are the next two.
        features: of the scores.
        means: of the scores.

    Raises:
        ValueError: no run, a run twice, a directory that is none, a damaged evaluation.json.
    """
    one_of("evaluate", evaluate, get_args(Evaluate))
    metrics = check_metrics(metrics) if metrics else ()
    if isinstance(runs, (str, Path, Run)) or not runs:
        raise ValueError("nothing to compare: give a list of one run or more")
    names = _names(runs)
    stored = {
        name: None if evaluate == "all" else _stored(name, run)
        for name, run in zip(names, runs, strict=True)
    }
    opened: dict[str, Run] = {}
    for name, run in zip(names, runs, strict=True):  # all of them before any takes long
        wanted = evaluate != "never" and (_unknown(stored[name]) or bool(metrics))
        opened[name] = run if isinstance(run, Run) else _opened(Path(run), models, wanted)
        if wanted and opened[name].dataset is None:
            missing = "evaluation" if _unknown(stored[name]) else "means to be scored"
            raise ValueError(
                f"{name} has no {missing} and its data are not at hand, as tensors never are: "
                "ppgen.evaluate(run) where they are, or compare without (evaluate never)"
            )
    asked: dict[str, Any]
    options: dict[str, Any] = {"particles": particles, "limit": limit, "others": others}
    options |= {"split": split, "device": device, "seed": seed}
    scoring = {"samples": samples, "features": features, "means": means}
    wanted_terms: dict[str, tuple] = {}
    for name, run in opened.items():  # what is refused is refused before any is evaluated
        if metrics and evaluate != "never" and run.dataset is not None:
            asked = {**scoring, "split": split, "device": find_device(device), "seed": seed}
            try:
                plan = planned(run.program, run.dataset, metrics, progress=progress, **asked)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
            wanted_terms[name] = plan.terms
    done: dict[str, Evaluation | None] = {}
    scores: dict[str, tuple[Score, ...]] = {}
    for name, run in opened.items():
        found, terms = stored[name], wanted_terms.get(name)
        asked = {"likelihood": _unknown(found)}
        try:
            if terms is not None:
                lacks = metrics if evaluate == "all" else lacking(found, metrics, terms)
                asked |= {"metrics": lacks, **scoring} if lacks else {}
            if evaluate != "never" and (asked["likelihood"] or asked.get("metrics")):
                if progress:
                    Console(stderr=True).print(f"evaluating {name}", markup=False, highlight=False)
                found = evaluation.evaluate(run, progress=progress, **options, **asked)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        done[name], scores[name] = found, () if found is None else found.scores
        if metrics:
            numbers = [number for metric in metrics for number in NUMBERS[metric]]
            scores[name] = tuple(
                s for s in scores[name]
                if s.metric in numbers and (terms is None or s.terms == terms)
            )  # fmt: skip
    entries = [_rows(name, run, done[name], scores[name]) for name, run in opened.items()]
    groups = grouped(placed(chosen(entries)))
    notes = [LEGEND, *cautions(groups), *reasons_apart(groups), *score_notes(groups, seed)]
    kept = [name for name, found in stored.items() if not _unknown(found)]
    if kept and (particles, limit, split, seed) != (None, None, "test", 0):
        notes.append(
            "Read from evaluation.json, whatever particles, limit, split and seed say: "
            f"{listed(kept)}; evaluate=all (--evaluate all) evaluates anew."
        )
    return Comparison(tuple(groups), tuple(notes), opened)


def _unknown(found: Evaluation | None) -> bool:
    """Whether a likelihood is still to be computed; some programs have none."""
    return found is None or found.reason == NOT_ASKED


# Reading --------------------------------------------------------------------------------------


def _names(runs: Sequence[Run | str | Path]) -> list[str]:
    """What to call each run: its directory as it was given.

    Raises:
        ValueError: one of them twice.
    """
    names: list[str] = []
    seen: dict[Any, str] = {}
    for k, run in enumerate(runs, 1):
        path = run.path if isinstance(run, Run) else Path(run)
        name = f"run {k}, in memory" if path is None else str(path)
        identity: Any = id(run) if path is None else path.resolve()
        if identity in seen:
            raise ValueError(f"{name} is given twice{_also(name, seen[identity])}")
        seen[identity] = name
        names.append(name)
    return names


def _also(name: str, other: str) -> str:
    return "" if name == other else f", also as {other}"


def _opened(path: Path, models: Sequence[type[nn.Module]], with_data: bool) -> Run:
    check_format(path)
    described = read_yaml(path / "config.yaml").get("model")
    wanted = described.get("class_path") if isinstance(described, dict) else None
    fits = [cls for cls in models if f"{cls.__module__}.{cls.__qualname__}" == wanted]
    return open_run(path, fits[0] if fits else None, with_data=with_data)


def _stored(name: str, run: Run | str | Path) -> Evaluation | None:
    """The evaluation in a run's directory; None where there is none of its last step."""
    path = run.path if isinstance(run, Run) else Path(run)
    if path is None:
        return None
    check_format(path)
    try:
        return stored_evaluation(path)
    except ValueError as error:
        raise ValueError(
            f"{error}: evaluate again, with `ppgen evaluate {name}` or --evaluate all"
        ) from None


def _rows(name: str, run: Run, found: Evaluation | None, scores: tuple[Score, ...]) -> list[Row]:
    """The rows of a run, without ranks: its main number, then its further methods."""
    space = _space(run, found, name)
    row = Row(
        run=name,
        model=type(run.program).__name__,
        space=space,
        likelihood=None,
        main=True,
        seconds=run.info.get("training_seconds"),
        parameters=sum(p.numel() for p in run.program.parameters()),
        reason="not evaluated" if found is None else found.reason,
        scores=scores,
    )
    if found is None or found.log_likelihood is None:
        return [dataclasses.replace(row, reason=row.reason or "no likelihood")]
    return [
        dataclasses.replace(
            row,
            space=dataclasses.replace(space, measure=one.measure, examples=one.examples),
            likelihood=one,
            main=k == 0,
            scores=scores if k == 0 else (),
        )
        for k, one in enumerate((found.log_likelihood, *found.others))
    ]


def _space(run: Run, found: Evaluation | None, name: str) -> Space:
    data, config, program = run.info["data"], run.config, run.program
    source = config.get("data")
    if source is None:  # tensors: the same where they are at hand and equal
        source = f"known to {name} alone" if run.dataset is None else _fingerprint(run.dataset)
    binarize = config.get("binarize", "none")
    if hasattr(program, "num_classes"):
        labels = program.num_classes is not None
    else:
        labels = len(accepted(program, template(data))) > 1
    return Space(
        name=str(data["name"]),
        source=str(source),
        shape=tuple(data["shape"]),
        levels=data["levels"],
        # Both draw the pixels of validation and test once, by the same generator.
        binarize="drawn" if binarize in ("static", "dynamic") else str(binarize),
        labels=bool(labels),
        measure=None,
        split="" if found is None else found.split,
        split_seed=int(config.get("split_seed", 0)),
        examples=None,
    )


def _fingerprint(dataset: Dataset) -> str:
    """A name for held-out data, the same for equal ones."""
    found = hashlib.sha256()
    for split in (dataset.validation, dataset.test):
        for part in (split.stored, *split.conditions):
            found.update(part.cpu().contiguous().numpy().tobytes())
    return f"sha256 {found.hexdigest()[:16]}"
