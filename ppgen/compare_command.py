"""`ppgen compare`: log-likelihoods and scores of several runs side by side."""

from pathlib import Path
from typing import Literal

from .arguments import Parser, model_class
from .command_parts import add_evaluation_options, new_file, parsed, parser, say
from .evaluate_command import add_score_options, score_options


def compare(argv: list[str]) -> None:
    options = parsed(_parser(), argv)
    if options is None:
        return
    if not options.runs:
        raise ValueError("name a run directory or more: ppgen compare RUN...")
    out, table = (
        None if path is None else new_file(path, options.overwrite)
        for path in (options.out, options.csv)
    )
    _ends(out, "--out", ".png")
    _ends(table, "--csv", ".csv")
    if options.samples < 1:
        raise ValueError(f"--samples must be 1 or more; got {options.samples}")
    scoring = score_options(options, "score_samples")

    from .comparison import compare as compared
    from .run import write_atomically

    found = compared(
        options.runs,
        models=[model_class(name) for name in options.model or ()],
        evaluate=options.evaluate,
        particles=options.particles,
        limit=options.limit,
        others=options.others,
        split=options.split,
        device=options.device,
        seed=options.seed,
        progress=True,
        **scoring,
    )
    say(found)
    if table is not None:
        write_atomically(table, found.to_csv().encode())
        say(f"table: {table}")
    if out is not None:
        picture = found.picture(
            samples=options.samples, seed=options.seed, device=options.device, progress=True
        )
        write_atomically(out, picture)
        say(f"picture: {out}")


def _ends(path: Path | None, option: str, suffix: str) -> None:
    if path is not None and path.suffix != suffix:
        raise ValueError(f"{option} must end in {suffix}; got {path.name}")


def _parser() -> Parser:
    found = parser(
        "compare",
        "Log-likelihoods of runs side by side, each with its kind: = exact, >= bound, ~ estimate; "
        "and scores of their samples. Ranked only where they are numbers of one thing: the same "
        "data, levels, split, examples and measure, or the same data and extractor.",
    )
    found.add_argument("runs", type=str, nargs="*", metavar="RUN", help="run directories")
    found.add_argument(
        "--evaluate",
        type=Literal["missing", "all", "never"],
        default="missing",
        help="which runs to evaluate first, as `ppgen evaluate` does: those never evaluated, all "
        "of them, or none; the options from here to --seed concern these",
    )
    add_evaluation_options(found)
    add_score_options(found, "score_samples")
    found.add_argument("--csv", type=str | None, default=None, help="also write the table, a .csv")
    found.add_argument(
        "--out", type=str | None, default=None, help="also draw a picture, with samples, a .png"
    )
    found.add_argument("--samples", type=int, default=10, help="samples a run in the picture")
    found.add_argument("--overwrite", action="store_true", help="replace these files")
    found.add_argument(
        "--model",
        type=str,
        action="append",
        help="class of a model not ppgen's own; once for each class",
    )
    return found
