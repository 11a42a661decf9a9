"""Likelihoods of a trained program, each with the kind of number it is; scores of its samples."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyro
import torch
from torch import Tensor, nn

from .compile import Compiled
from .data import Dataset, Split
from .evaluation_record import NOT_ASKED, Evaluation, merged, stored_evaluation
from .likelihood import Likelihood, Method, broadcasts, kind_of, log_weights, own_methods
from .loading import check_fit, open_run
from .objective import ELBO, PyroObjective, default_objectives
from .processes import find_device
from .program import require_normalised
from .run import Run, write_json
from .sample_scores import planned
from .score_record import check_metrics
from .seeding import seeded
from .sites import Structure, accepted, device_of, prepare
from .validation import evaluate_objective

# Rows of data x draws that are run at once: large enough for BLAS, small enough for the cache.
VALUES_AT_ONCE = 2**21
# Of methods whose every draw is a call of a large network: no slower, and a bar that moves.
ROWS_ON_CPU, ROWS_ON_GPU = 32, 512
PARTICLES = 100


def evaluate(
    run: Run | nn.Module | str | Path,
    dataset: Dataset | None = None,
    *,
    model: type[nn.Module] | None = None,
    particles: int | None = None,
    limit: int | None = None,
    others: int | None = None,
    split: str = "test",
    device: str = "cpu",
    seed: int = 0,
    progress: bool = False,
    likelihood: bool | None = None,
    metrics: Sequence[str] = (),
    samples: int | None = None,
    features: str | nn.Module | None = None,
    means: bool = False,
) -> Evaluation:
    """The likelihood of a run or a program and scores of its samples; written to evaluation.json.

    The value is exact for programs without sampled latents; else the importance-weighted bound
    log (1/K) sum_k p(x, z_k) / q(z_k | x) with K = `particles` (Burda et al. 2016); for global
    latents the posterior predictive density, an estimate. A program may offer `likelihoods` of its
    own instead: the first is then the value, the others stand beside it.

    With `metrics`, samples are judged too, of any program; see `ppgen.sample_scores`. What
    evaluation.json already holds of the same step is not lost: scores stay until the same metric is
    computed on the same terms, and the likelihood stays as `likelihood` says.

    Args:
        run: a run, its directory, or a program (then `dataset` is needed).
        dataset: other data than the run's; nothing is written then.
        model: the class, for a run directory whose model is not ppgen's own.
        particles: K, 100 by default; or of the program's own method, which has its own default.
        limit: only the first examples of the split.
        others: examples that further methods are computed on, by default few where they are slow;
            0 leaves them out.
        split: "test" or "validation".
        device: where to compute.
        seed: of the draws.
        progress: show a progress bar.
        likelihood: whether to compute it; by default yes, but with `metrics` one that is stored of
            the same step stays, of whichever split, unless particles, limit or others are given.
            False computes scores alone, and what is stored stays.
        metrics: of samples, by their names in `ppgen.score_record.METRICS`.
        samples: how many, by default as many as the split has, at most 10,000.
        features: in which they are judged, see `ppgen.features.extractor`.
        means: judge means of p(x | latents) in place of draws of x.

    Raises:
        ValueError: impossible numbers, no data, a split that is empty, data that do not fit; what
            `sample_scores` refuses.
    """
    if likelihood is False or metrics:
        metrics = check_metrics(metrics)
    for name, value in (("particles", particles), ("limit", limit)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be 1 or more; got {value}")
    if others is not None and others < 0:
        raise ValueError(f"others must be 0 or more; got {others}")
    if split not in ("test", "validation"):
        raise ValueError(f"split must be 'test' or 'validation'; got {split!r}")
    if isinstance(run, (str, Path)):
        run = open_run(run, model, with_data=dataset is None)
    program = run.program if isinstance(run, Run) else run
    own = run.dataset if isinstance(run, Run) else None
    dataset = own if dataset is None else dataset
    if dataset is None:
        raise ValueError("the run's data cannot be loaded by name: give the data set")
    check_fit(program, dataset)
    kept = None
    if isinstance(run, Run) and run.path is not None and dataset is own:
        with contextlib.suppress(ValueError):  # a damaged one is replaced
            kept = stored_evaluation(run.path)
    if likelihood is None:
        given = (particles, limit, others) != (None, None, None)
        usable = kept is not None and kept.reason != NOT_ASKED
        likelihood = not metrics or given or not usable
    start = time.monotonic()
    place = find_device(device)
    plan = None
    if metrics:  # what it refuses is refused before anything is computed or written
        plan = planned(
            program, dataset, metrics, samples=samples, features=features, split=split,
            means=means, device=place, seed=seed, progress=progress,
        )  # fmt: skip
    home = device_of(program)
    program.to(place)
    try:
        if likelihood:
            part = _first(getattr(dataset, split), limit).to(place)
            ways, counts = own_methods(program), (particles, others)
            rest: tuple = (part, dataset, split, counts, seed, progress, start)
            found = _by_methods(program, ways, *rest) if ways else _weighted(program, *rest)
        else:
            none = Evaluation(dataset.name, split, None, None, None, NOT_ASKED, 0.0)
            found = none if kept is None else kept
        found = dataclasses.replace(found, scores=() if kept is None else kept.scores)
        _written(run, found, dataset)  # before the samples, of which drawing may fail
        if plan is not None:
            found = dataclasses.replace(found, scores=merged(found.scores, plan.scores()))
            _written(run, found, dataset)
    finally:
        program.to(home)
    return found


def _written(run: Run | nn.Module, found: Evaluation, dataset: Dataset) -> None:
    """Keep an evaluation of a run on disk by its own data."""
    if isinstance(run, Run) and run.path is not None and dataset is run.dataset:
        # With the step, so that a run that was trained on since is seen to need another one.
        step = {"step": run.info.get("steps")}
        write_json(run.path / "evaluation.json", found.to_dict() | step)


def _first(split: Split, limit: int | None) -> Split:
    if limit is None or limit >= len(split):
        return split
    conditions = tuple(condition[:limit] for condition in split.conditions)
    return dataclasses.replace(split, stored=split.stored[:limit], conditions=conditions)


def _weighted(
    program: nn.Module,
    part: Split,
    dataset: Dataset,
    name: str,
    counts: tuple[int | None, int | None],
    seed: int,
    progress: bool,
    start: float,
) -> Evaluation:
    """The evaluation of a program without methods of its own."""
    particles = counts[0] or PARTICLES
    training = program.training
    program.eval()
    try:
        with seeded(seed, part.device), torch.no_grad():
            found = prepare(program, part.batch(slice(0, 2)))
            try:
                require_normalised(program, found.factors)
            except ValueError as error:
                return Evaluation(
                    dataset.name, name, None, None, None, str(error), time.monotonic() - start
                )
            weights = _all_weights(program, found, part, particles, progress)
            terms = _terms(program, part, seed)
    finally:
        program.train(training)
    kind, method = kind_of(found)
    logs, elbos = weights
    count = 1 if kind == "exact" else particles
    likelihood = Likelihood(
        value=logs.mean().item(),
        stderr=_stderr(logs),
        kind=kind,
        measure="probability" if found.discrete else "density",
        method=method,
        particles=count,
        examples=len(logs),
    )
    elbo = None
    if terms is not None:
        shared = bool(found.shared)
        loss = terms.pop("loss")
        value = -loss if shared else elbos.mean().item()
        if not shared and terms.keys() >= {"reconstruction", "kl"}:
            # From the same draws as the value, so that the parts add up to it.
            if terms["reconstruction"] == 0:  # x follows from its latents
                terms["kl"] = -value
            else:
                terms["reconstruction"] = -value - terms["kl"]
        elbo = {"value": value, **({} if shared else {"stderr": _stderr(elbos)}), **terms}
    bits = _bits_per_dim(likelihood, dataset)
    return Evaluation(dataset.name, name, elbo, likelihood, bits, None, time.monotonic() - start)


def _bits_per_dim(likelihood: Likelihood, dataset: Dataset) -> float | None:
    if dataset.levels is None:
        return None
    return -likelihood.value / (math.prod(dataset.shape) * math.log(2))


def _by_methods(
    program: nn.Module,
    ways: list[Method],
    part: Split,
    dataset: Dataset,
    name: str,
    counts: tuple[int | None, int | None],
    seed: int,
    progress: bool,
    start: float,
) -> Evaluation:
    """The evaluation of a program that has methods of its own."""
    particles, others = counts
    found: list[Likelihood] = []
    elbo: dict[str, float] = {}
    training = program.training
    program.eval()
    try:
        for way in ways:
            count, examples = way.particles, len(part)
            if way is ways[0]:
                count = min(particles or count, way.most or particles or count)
            else:
                examples = min(examples, (way.examples or examples) if others is None else others)
                if not examples:
                    continue
            with seeded(seed, part.device), torch.no_grad():
                terms = _all_terms(way, _first(part, examples), count, program, progress)
            values = -torch.stack(list(terms.values())).sum(0)
            value, stderr = values.mean().item(), _stderr(values)
            if not found:
                means = {title: term.mean().item() for title, term in terms.items()}
                elbo = {"value": value, "stderr": stderr, **means}
            found.append(
                Likelihood(
                    value, stderr, way.kind, way.measure, way.name, count, examples, way.unit
                )
            )
    finally:
        program.train(training)
    main, *rest = found
    bits = _bits_per_dim(main, dataset)
    seconds = time.monotonic() - start
    return Evaluation(dataset.name, name, elbo, main, bits, None, seconds, tuple(rest))


def _all_terms(
    way: Method, part: Split, particles: int, program: nn.Module, progress: bool
) -> dict[str, Tensor]:
    pieces: dict[str, list[Tensor]] = {}
    rows = ROWS_ON_CPU if part.device.type == "cpu" else ROWS_ON_GPU
    for begin in _tracked(range(0, len(part), rows), f"evaluating ({way.name})", progress):
        batch = accepted(program, part.batch(slice(begin, begin + rows)))
        for title, value in way.terms(*batch, num_particles=particles).items():
            pieces.setdefault(title, []).append(value)
    return {title: torch.cat(values).double().cpu() for title, values in pieces.items()}


def _tracked(steps: range, text: str, progress: bool) -> Iterable[int]:
    from rich.console import Console
    from rich.progress import track

    return track(steps, text, console=Console(stderr=True), disable=not progress)


def _stderr(values: Tensor) -> float:
    return (values.std() / math.sqrt(len(values))).item() if len(values) > 1 else math.nan


def _all_weights(
    program: nn.Module, found: Structure, part: Split, particles: int, progress: bool
) -> tuple[Tensor, Tensor]:
    """For each example log (1/K) sum_k w_k and (1/K) sum_k log w_k."""
    together = broadcasts(program, found, part.batch(slice(0, 2)))
    rows = max(VALUES_AT_ONCE // math.prod(part.stored.shape[1:]), 1)
    draws = 1 if kind_of(found)[0] == "exact" else particles
    chunk = min(draws, rows)
    size = max(rows // chunk, 1)
    logs, means = [], []
    starts = range(0, len(part), size)
    with pyro.validation_enabled(False):
        for begin in _tracked(starts, "evaluating", progress):
            batch = part.batch(slice(begin, begin + size))
            pieces = [
                log_weights(program, found, batch, min(chunk, draws - k), broadcast=together)
                for k in range(0, draws, chunk)
            ]
            weights = torch.cat(pieces)  # (K, n)
            logs.append(torch.logsumexp(weights, 0) - math.log(draws))
            means.append(weights.mean(0))
    return torch.cat(logs).double().cpu(), torch.cat(means).double().cpu()


def _terms(program: nn.Module, part: Split, seed: int) -> dict[str, float] | None:
    """The mean terms of the program's ELBO; None where it is trained by something else."""
    objectives = default_objectives(program)
    if len(objectives) != 1:
        return None
    objective = next(iter(objectives.values()))
    if not isinstance(objective, (ELBO, PyroObjective)):
        return None
    return evaluate_objective(Compiled(objective, "none"), part, seed)
