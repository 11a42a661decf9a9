"""Likelihoods of several runs side by side, ranked only where they are numbers of one thing."""

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
from .comparison_text import LEGEND, csv_of, table_of
from .data import Dataset
from .likelihood import Likelihood
from .loading import open_run, template
from .names import one_of
from .run import Run, check_format, read_json, read_yaml
from .sites import accepted

Evaluate = Literal["missing", "all", "never"]
_TYPES: dict[Any, tuple[type, ...]] = {float: (float, int), int: (int,), str: (str,)}


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
) -> Comparison:
    """Compare the log-likelihoods of runs by their evaluations; runs without one get one.

    Ranks are given within one data space and one measure only, see `Space`: bits/dim of unlike
    data, or densities and probabilities, say nothing about each other. A difference within two
    standard errors is a tie; these are of the difference of two means taken as independent, so a
    paired comparison of the same examples could tell finer ones. A run is ranked by its main
    number, the first of its methods.

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

    Raises:
        ValueError: no run, a run twice, a directory that is none, a damaged evaluation.json.
    """
    one_of("evaluate", evaluate, get_args(Evaluate))
    if isinstance(runs, (str, Path, Run)) or not runs:
        raise ValueError("nothing to compare: give a list of one run or more")
    names = _names(runs)
    stored = {
        name: None if evaluate == "all" else _stored(name, run)
        for name, run in zip(names, runs, strict=True)
    }
    opened: dict[str, Run] = {}
    for name, run in zip(names, runs, strict=True):  # all of them before any takes long
        wanted = stored[name] is None and evaluate != "never"
        opened[name] = run if isinstance(run, Run) else _opened(Path(run), models, wanted)
        if wanted and opened[name].dataset is None:
            raise ValueError(
                f"{name} has no evaluation and its data are not at hand, as tensors never are: "
                "ppgen.evaluate(run) where they are, or compare without (evaluate never)"
            )
    options: dict[str, Any] = {"particles": particles, "limit": limit, "others": others}
    options |= {"split": split, "device": device, "seed": seed}
    entries = []
    for name, run in opened.items():
        found = stored[name]
        if found is None and evaluate != "never":
            if progress:
                Console(stderr=True).print(f"evaluating {name}", markup=False, highlight=False)
            try:
                found = evaluation.evaluate(run, progress=progress, **options).to_dict()
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        entries.append(_rows(name, run, found))
    groups = grouped(entries)
    notes = [LEGEND, *cautions(groups), *reasons_apart(groups)]
    kept = [name for name, found in stored.items() if found is not None]
    if kept and (particles, limit, split) != (None, None, "test"):
        notes.append(
            f"Read from evaluation.json, whatever particles, limit and split say: {listed(kept)}; "
            "evaluate=all (--evaluate all) evaluates anew."
        )
    return Comparison(tuple(groups), tuple(notes), opened)


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


def _stored(name: str, run: Run | str | Path) -> dict[str, Any] | None:
    """The evaluation in a run's directory, its likelihoods read; None where there is none."""
    path = run.path if isinstance(run, Run) else Path(run)
    if path is None:
        return None
    check_format(path)
    if not (path / "evaluation.json").exists():
        return None
    try:
        found = read_json(path / "evaluation.json")
        if "step" in found and found["step"] != read_json(path / "run.json").get("steps"):
            return None  # it was trained on since
        if found["split"] not in ("test", "validation"):
            raise ValueError(f"split {found['split']!r}")
        _likelihoods(found)
    except (ValueError, TypeError, KeyError) as error:
        why = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(
            f"{path / 'evaluation.json'} is damaged ({why}): evaluate again, with "
            f"`ppgen evaluate {name}` or --evaluate all"
        ) from None
    return found


def _likelihoods(found: dict[str, Any]) -> list[Likelihood]:
    """The main likelihood of an evaluation and those by further methods; [] where there is none."""
    main = found["log_likelihood_nats"]
    return [] if main is None else [_likelihood(one) for one in (main, *found.get("others", ()))]


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


def _rows(name: str, run: Run, found: dict[str, Any] | None) -> list[Row]:
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
        reason="not evaluated" if found is None else found.get("reason"),
    )
    likelihoods = [] if found is None else _likelihoods(found)
    if not likelihoods:
        return [dataclasses.replace(row, reason=row.reason or "no likelihood")]
    return [
        dataclasses.replace(
            row,
            space=dataclasses.replace(space, measure=one.measure, examples=one.examples),
            likelihood=one,
            main=k == 0,
        )
        for k, one in enumerate(likelihoods)
    ]


def _space(run: Run, found: dict[str, Any] | None, name: str) -> Space:
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
        split="" if found is None else found["split"],
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
