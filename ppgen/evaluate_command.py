"""`ppgen evaluate`: the likelihood of a run, and scores of its samples."""

from collections.abc import Sequence
from typing import Any

from jsonargparse import Namespace
from rich.table import Table
from rich.text import Text

from .arguments import Parser
from .command_parts import add_evaluation_options, opened, parsed, say
from .command_parts import parser as new_parser


def evaluate(argv: list[str]) -> None:
    parser = new_parser(
        "evaluate",
        "Test likelihood of a run, with its kind: exact, bound or estimate; with --metrics also "
        "scores of its samples.",
    )
    parser.add_argument("run", type=str, help="the run directory")
    add_evaluation_options(parser)
    add_score_options(parser)
    parser.add_argument(
        "--likelihood",
        type=bool | None,
        default=None,
        help="false computes the scores alone, true the likelihood in any case; by default one "
        "that is stored of this step stays where --metrics are asked for",
    )
    parser.add_argument(
        "--data", type=str | None, default=None, help="another source than the run's"
    )
    parser.add_argument(
        "--model", type=str | None, default=None, help="class of a model not ppgen's own"
    )
    options = parsed(parser, argv)
    if options is None:
        return
    from .data import load_data
    from .evaluation import evaluate as run_evaluation

    chosen = {"likelihood": options.likelihood, **score_options(options)}
    run = opened(options, with_data=options.data is None)
    dataset = None
    if options.data is not None:
        kept = {"binarize": run.config["binarize"], "size": run.config["size"]}
        dataset = load_data(options.data, seed=run.config["split_seed"], **kept)
    found = run_evaluation(
        run,
        dataset,
        particles=options.particles,
        limit=options.limit,
        others=options.others,
        split=options.split,
        device=options.device,
        seed=options.seed,
        progress=True,
        **chosen,
    )
    name = f"{type(run.program).__name__} on {(dataset or run.dataset).name}"
    if found.log_likelihood is not None:
        say(_table(found, f"{name}, {found.split} data"))
    if found.reason:
        say(found.reason)
    for told in dict.fromkeys(map(_terms, found.scores)):
        say(_scores([score for score in found.scores if _terms(score) == told], name))
    if dataset is None:
        say(f"written to {run.path / 'evaluation.json'}")


def add_score_options(parser: Parser, samples: str = "samples") -> None:
    """What scores of samples take: --metrics to --means, the number of samples by this name."""
    parser.add_argument(
        "--metrics",
        type=str | None,
        default=None,
        help="scores of samples, with commas between: fid, kid, inception, precision_recall, "
        "c2st, neighbours (memorisation), classes",
    )
    parser.add_argument(
        f"--{samples}",
        type=int | None,
        default=None,
        help="how many to draw for the scores, and how many examples to hold them against; by "
        "default as many as the split has, at most 10,000",
    )
    parser.add_argument(
        "--features",
        type=str | None,
        default=None,
        help="in which samples are judged: classifier (trained once on the training labels), "
        "random (an untrained network), raw, package.module.Class, or inception:FILE with "
        "torch-fidelity; by default raw for points, classifier for pictures with labels, else "
        "random",
    )
    parser.add_argument(
        "--means",
        action="store_true",
        help="score means of the picture given its latents in place of draws",
    )


def score_options(options: Namespace, samples: str = "samples") -> dict[str, Any]:
    """The arguments of `ppgen.evaluate` that stand behind these options.

    Raises:
        ValueError: an unknown metric; no samples; an option of scores without --metrics.
    """
    given = {"samples": options[samples], "features": options.features, "means": options.means}
    if options.metrics is None:
        for name, value in given.items():
            if value is not None and value is not False:
                option = samples if name == "samples" else name
                raise ValueError(f"--{option} is for scores of samples: add --metrics fid, say")
        return {}
    if options[samples] is not None and options[samples] < 1:
        raise ValueError(f"--{samples} must be 1 or more; got {options[samples]}")
    from .score_record import check_metrics

    names = [word.strip() for word in options.metrics.strip("[]").split(",") if word.strip()]
    return {"metrics": check_metrics(names), **given}


def _table(found: Any, name: str) -> Table:
    """An evaluation, each number with the kind that it is."""
    table = Table(title=name, show_header=False)
    main, elbo = found.log_likelihood, found.elbo or {}
    for likelihood in (main, *found.others) if main else ():
        value = f"{likelihood.value:.2f} +- {likelihood.stderr:.2f}"
        title = "log-likelihood" if likelihood is main else "by another method"
        table.add_row(title, f"{value} nats", f"{likelihood.kind}: {likelihood.how}")
        per = f"of {likelihood.measure}, {likelihood.examples:,} examples"
        bits = found.bits_per_dim if likelihood is main else None
        table.add_row("", "" if bits is None else f"{bits:.4f} bits/dim", per)
    for title, value in elbo.items():
        if title == "value" and main and main.kind != "exact" and value == main.value:
            table.add_row("ELBO", "the same", "minus the sum of")
        elif title == "value":
            error = f" +- {elbo['stderr']:.2f}" if "stderr" in elbo else ""
            kind = "exact" if main and main.kind == "exact" else "bound"
            table.add_row("ELBO", f"{value:.2f}{error} nats", kind)
        elif title != "stderr":
            table.add_row(f"  {title}", f"{value:.2f} nats", "")
    return table


def _terms(score: Any) -> tuple:
    return score.how, score.real_how


def _scores(scores: Sequence[Any], name: str) -> Table:
    """Scores of one set of terms, which the caption tells, beside those of real data."""
    from .score_record import WHAT

    first = scores[0]
    table = Table(
        title=f"{name}, samples", caption=Text(f"{first.how}\nreal data: {first.real_how}")
    )
    for column, side in (("metric", "left"), ("samples", "right"), ("real data", "right")):
        table.add_column(column, justify=side, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("what it is")
    for score in scores:
        what = WHAT[score.metric] + (f"; {score.note}" if score.note else "")
        table.add_row(score.metric, score.number, score.real_number, Text(what))
    return table
