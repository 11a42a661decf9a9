"""What each subcommand of `ppgen` does."""

import inspect
from pathlib import Path
from typing import Any, Literal

import docstring_parser
from jsonargparse import Namespace, set_parsing_settings
from rich.table import Table

from .arguments import Parser, add_class, flags, model_class, objective_class, saved, without
from .command_parts import new_file, opened, parsed, say
from .command_parts import parser as new_parser
from .run import RESUMABLE

NOT_OPTIONS: set[str | int] = {
    "program",
    "dataset",
    "objective",
    "on_validation",
    "out",
    "resume",
    "overwrite",
}
# What the command may say of a resumed run; the rest is the run's own.
SAID = RESUMABLE | {"out", "resume", "model"}


# train ------------------------------------------------------------------------------------------


def _train_parser(model: type, objective: type) -> Parser:
    from .objective import ELBO
    from .options import own_defaults
    from .training import fit

    parser = Parser(
        prog="ppgen train",
        description="Train a model on a data set: by stochastic variational inference, or by the "
        "objectives that it has of its own.",
    )
    parser.add_argument("--config", type=str, help="a saved configuration; options given here win")
    parser.add_argument("--conditional", type=bool, default=False, help="condition on the labels")
    parser.add_argument("--data", type=str, default="mnist", help="a source; see `ppgen data`")
    parser.add_argument(
        "--binarize",
        type=Literal["none", "threshold", "static", "dynamic"],
        default="none",
        help="make pixels 0 or 1; dynamic draws them afresh at each batch",
    )
    parser.add_argument(
        "--size", type=int | None, default=None, help="resize images to size x size"
    )
    parser.add_argument("--split_seed", type=int, default=0, help="seed of splits and static draws")
    parser.add_argument("--out", type=str, help="the run directory to write")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument("--overwrite", action="store_true", help="replace the run in --out")
    parser.add_function_arguments(fit, None, skip=NOT_OPTIONS)
    add_class(parser, "model", model, "short name (`ppgen models`) or package.module.Class")
    implicit = getattr(model, "density", None) == "implicit"  # its objectives are its own
    if not implicit or objective is not ELBO:
        add_class(
            parser, "objective", objective, "ELBO, ImportanceWeightedELBO or package.module.Class"
        )
    parser.set_defaults(own_defaults(model))
    if objective is ELBO and not implicit:
        own = getattr(model, "objective_defaults", {})
        parser.set_defaults({f"objective.{name}": value for name, value in own.items()})
    return parser


def train(argv: list[str]) -> None:
    set_parsing_settings(docstring_parse_style=docstring_parser.DocstringStyle.GOOGLE)
    given = flags(argv)
    words = list(argv)
    helping = "-h" in argv or "--help" in argv
    if "resume" in given:
        words = _resumed(given) + words
    elif given.get("config"):
        words = saved(Path(str(given["config"])), given) + words
    wanted = flags(words)
    name = wanted.get("model") or ("VAE" if helping else None)
    if name is None:
        from .models import MODELS

        raise ValueError(
            f"--model is missing; known: {', '.join(MODELS)} (or package.module.Class)"
        )
    model = model_class(name)
    objective = objective_class(wanted.get("objective") or "ELBO")
    parser = _train_parser(model, objective)
    if helping:
        parser.print_help()
        return
    options = parser.parse_args(without(words, "model", "objective"))
    if options.out is None:
        raise ValueError("--out is missing: the run directory to write")
    own_objective = any(flag.split(".")[0] == "objective" for flag in wanted)
    stranger = None if model.__module__.startswith("ppgen.") else name
    _train(model, objective if own_objective else None, options, stranger)


def _resumed(given: dict[str, str | None]) -> list[str]:
    if not given.get("out"):
        raise ValueError("--resume needs --out, the run directory to go on with")
    path = Path(str(given["out"]))
    changed = sorted(set(given) - SAID)
    if changed:
        raise ValueError(
            f"--{changed[0]} cannot change in a resumed run, which keeps its model, data and "
            "training; only --epochs, --steps, --device and what is shown can"
        )
    if not (path / "config.yaml").exists():
        raise ValueError(f"{path} holds no run to resume (no config.yaml there)")
    from .run import check_claim

    check_claim(path, resume=True, overwrite=False)
    return saved(path / "config.yaml", given)


def _train(
    model: type,
    objective: type | None,
    options: Namespace,
    stranger: str | None,
) -> None:
    import torch

    from .data import load_data
    from .loading import build, data_info
    from .options import Options, own_defaults
    from .processes import is_child
    from .progress import losses
    from .run import check_claim
    from .training import fit

    training = {
        key: options[key] for key in inspect.signature(fit).parameters if key not in NOT_OPTIONS
    }
    own = own_defaults(model)
    training |= {name: value for name, value in own.items() if training[name] is None}
    fields = Options.__dataclass_fields__
    Options(**{key: value for key, value in training.items() if key in fields}).check()
    out = Path(options.out)
    if not is_child():
        check_claim(out, resume=options.resume, overwrite=options.overwrite)
    dataset = load_data(
        options.data, binarize=options.binarize, size=options.size, seed=options.split_seed
    )
    torch.manual_seed(options.seed)
    arguments = dict(options.model.items()) if "model" in options else {}
    program = build(model, arguments, data_info(dataset), options.conditional)
    chosen: Any = None
    if objective is not None:
        chosen = _objective(program, objective, options)
    say(f"{model.__name__} on {dataset}")
    run = fit(
        program,
        dataset,
        out=out,
        objective=chosen,
        resume=options.resume,
        overwrite=options.overwrite,
        **training,
    )
    last = next((row for row in reversed(run.metrics) if row["split"] == "validation"), None)
    if last is not None:
        several = any(key.endswith("/loss") for key in last)
        found = losses(last) if several else f"{losses(last, run.info['unit'])} an example"
        say(f"validation: {found} after {last['step']} steps")
    more = f" --model {stranger}" if stranger else ""
    say(f"run: {out}; next: ppgen evaluate {out}{more}")


def _objective(program: Any, cls: type, options: Namespace) -> Any:
    from .objective import Objective

    given = dict(options.objective.items()) if "objective" in options else {}
    if issubclass(cls, Objective):
        return cls(program, **given)
    chosen = cls(**given)
    chosen.__dict__["arguments"] = given
    return chosen


# report -----------------------------------------------------------------------------------------


def report(argv: list[str]) -> None:
    parser = new_parser(
        "report", "Write a run's report.html: curves, samples, figures on one page."
    )
    parser.add_argument("run", type=str, help="the run directory")
    parser.add_argument(
        "--model", type=str | None, default=None, help="class of a model not ppgen's own"
    )
    options = parsed(parser, argv)
    if options is None:
        return
    from .report import write_report

    path = write_report(opened(options, with_data=True))
    say(f"report: {path}")


# models, data ---------------------------------------------------------------------------------


def models(argv: list[str]) -> None:
    parser = new_parser("models", "List the models, or show one with its options.")
    parser.add_argument("name", type=str, nargs="?", help="a model to show")
    options = parsed(parser, argv)
    if options is None:
        return
    from .models import MODELS

    if options.name is not None:
        cls = model_class(options.name)
        say(inspect.getdoc(cls) or f"{cls.__name__} has no documentation")
        return
    table = Table(title="models", caption="`ppgen models NAME` shows one")
    for column in ("name", "density", "what it is"):
        table.add_column(column)
    for name, cls in MODELS.items():
        table.add_row(name, cls.density, (inspect.getdoc(cls) or "").splitlines()[0])
    say(table)


def data(argv: list[str]) -> None:
    parser = new_parser("data", "List the data sources, or look at one.")
    parser.add_argument("source", type=str, nargs="?", help="a source to look at, such as mnist")
    parser.add_argument("--binarize", type=str, default="none", help="as in `ppgen train`")
    parser.add_argument("--size", type=int | None, default=None, help="resize images")
    parser.add_argument(
        "--preview", type=str | None, default=None, help="write a picture of examples"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the picture")
    options = parsed(parser, argv)
    if options is None:
        return
    from .data import SOURCES, load_data

    if options.source is None:
        if options.preview is not None:
            raise ValueError("--preview needs a source: ppgen data SOURCE --preview picture.png")
        table = Table(
            title="data sources", caption="`ppgen data SOURCE --preview out.png` looks at one"
        )
        table.add_column("source")
        table.add_column("what it is")
        for name, text in SOURCES.items():
            table.add_row(name, text)
        say(table)
        return
    out = None if options.preview is None else new_file(options.preview, options.overwrite)
    dataset = load_data(options.source, binarize=options.binarize, size=options.size)
    say(repr(dataset))
    if out is not None:
        from .pair_pictures import preview
        from .run import write_atomically

        picture = preview(dataset)
        if picture is None:
            raise ValueError(f"examples of shape {dataset.shape} have no picture")
        write_atomically(out, picture)
        say(f"preview: {out}")
