"""From a run directory, or a class and a data set, to a program."""

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .data import Dataset, load_data
from .models import MODELS
from .run import Run, check_format, load_checkpoint, read_metrics, read_yaml
from .sites import accepted, model_of, prepare

# Constructor arguments that the data set fills in.
FILLED = ("shape", "levels", "num_classes", "data_size", "condition_shape")


def data_info(dataset: Dataset) -> dict[str, Any]:
    """What a run keeps of its data set, to build the program again without it."""
    return {
        "name": dataset.name,
        "shape": list(dataset.shape),
        "levels": dataset.levels,
        "num_classes": dataset.num_classes,
        "data_size": dataset.size,
        "classes": None if dataset.classes is None else list(dataset.classes),
        "conditions": list(dataset.condition_names),
        "condition_shapes": [list(shape) for shape in dataset.condition_shapes],
    }


def template(info: dict[str, Any], n: int = 2) -> tuple[torch.Tensor, ...]:
    """A batch of zeros as the run's data set gives them: (x, *conditions)."""
    conditions = (
        torch.zeros(n, *shape, dtype=torch.float32 if shape else torch.long)
        for shape in condition_shapes(info)
    )
    return (torch.zeros(n, *info["shape"]), *conditions)


def condition_shapes(info: dict[str, Any]) -> list[tuple[int, ...]]:
    """Shapes of what accompanies an example: () for a label, which is all that old runs knew."""
    shapes = info.get("condition_shapes", [() for _ in info["conditions"]])
    return [tuple(shape) for shape in shapes]


def build(
    cls: type[nn.Module], arguments: dict[str, Any], info: dict[str, Any], conditional: bool = False
) -> nn.Module:
    """Make a program from its class, its written arguments and what its data set fills in.

    `num_classes` is filled in for a conditional model, or where the class requires it;
    `condition_shape` is the shape of the image that accompanies an example, None without one.

    Raises:
        TypeError: an argument that the class does not take, or one that it needs and lacks.
        ValueError: a conditional model of unlabelled data, or of a class without `num_classes`.
    """
    parameters = inspect.signature(cls.__init__).parameters
    images = (shape for shape in condition_shapes(info) if shape)
    known = info | {"condition_shape": next(images, None)}
    # An option of the command that was left open is None.
    given = {name for name in arguments if name not in FILLED or arguments[name] is not None}
    filled = {name: known[name] for name in FILLED if name in parameters and name not in given}
    if "shape" in filled:
        filled["shape"] = tuple(filled["shape"])
    required = "num_classes" in filled and parameters["num_classes"].default is inspect._empty
    if conditional or required:
        if "num_classes" not in parameters:
            raise ValueError(
                f"{cls.__name__} has no argument num_classes: it cannot be conditional"
            )
        if info["num_classes"] is None:
            raise ValueError(f"the data set {info['name']} has no labels to condition on")
    else:
        filled.pop("num_classes", None)
    program = cls(**(arguments | filled))
    if "arguments" not in vars(program):
        program.__dict__["arguments"] = arguments | filled  # a stranger's class: kept for the run
    return program


def class_of(name: str, model: type[nn.Module] | None) -> type[nn.Module]:
    """The class that a run names: one of this package's, or the one that the caller gives."""
    for known in MODELS.values():
        if name == f"{known.__module__}.{known.__qualname__}":
            return known
    if model is None:
        raise ValueError(
            f"the run's model is {name}, which is not ppgen's own: name the class yourself "
            f"(load(path, model={name.rpartition('.')[2]}) or --model {name})"
        )
    if f"{model.__module__}.{model.__qualname__}" != name:
        raise ValueError(
            f"the run's model is {name}; {model.__module__}.{model.__qualname__} given"
        )
    return model


def load(path: str | Path, model: type[nn.Module] | nn.Module | None = None) -> nn.Module:
    """The trained program of a run, in evaluation mode, on the CPU.

    Args:
        path: the run directory.
        model: the class of a model that is not ppgen's own, or a program already built, whose
            weights are then filled in. Files never name a class that is imported.

    Raises:
        ValueError: not a run directory, written by a newer version, a model that has to be given,
            no whole checkpoint, or weights that do not fit the program.
    """
    return open_run(path, model).program


def open_run(
    path: str | Path,
    model: type[nn.Module] | nn.Module | None = None,
    *,
    with_data: bool = False,
) -> Run:
    """A run from its directory, with its program, and with its data set if asked; see `load`."""
    path = Path(path)
    info = check_format(path)
    config = read_yaml(path / "config.yaml")
    described = config.get("model")
    if not isinstance(described, dict) or "class_path" not in described:
        raise ValueError(f"{path / 'config.yaml'} names no model")
    if isinstance(model, nn.Module):
        program = model
    else:
        arguments = described.get("init_args")
        if arguments is None:
            name = str(described["class_path"]).rpartition(".")[2]
            raise ValueError(
                f"the arguments of {name} in {path} could not be written down: build the "
                "program and give it (load(path, model=program))"
            )
        cls = class_of(str(described["class_path"]), model)
        with torch.random.fork_rng(devices=[]):
            try:
                program = build(cls, arguments, info["data"], bool(config.get("conditional")))
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"the model in {path / 'config.yaml'} cannot be built: {error}"
                ) from None
    prepare(program, template(info["data"]), check=False)
    found = load_checkpoint(path)
    if found is None:
        raise ValueError(f"{path} has no whole checkpoint: resume the run, or train it again")
    fill(program, found[0], path)
    program.eval()
    dataset = data_of(config) if with_data else None
    return Run(program, dataset, config, info, read_metrics(path), path)


def data_of(config: dict[str, Any]) -> Dataset | None:
    """The data set that a configuration names; None where it was made from tensors."""
    if config.get("data") is None:
        return None
    names = {"source": "data", "binarize": "binarize", "size": "size", "seed": "split_seed"}
    return load_data(**{name: config[key] for name, key in names.items() if key in config})


def fill(program: nn.Module, weights: dict[str, torch.Tensor], path: Path) -> None:
    """Load weights into a program, in place.

    Raises:
        ValueError: names or shapes differ, in one line.
    """
    try:
        program.load_state_dict(weights)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:300]
        raise ValueError(
            f"the weights in {path} do not fit {type(program).__name__}: {first}"
        ) from None


def check_fit(program: nn.Module, dataset: Dataset) -> None:
    """Refuse a data set that a program was not made for.

    Raises:
        ValueError: another shape, other levels, labels missing or out of range, no image to
            condition on or one of another shape.
    """
    name = type(program).__name__
    shape = getattr(program, "shape", None)
    if shape is not None and tuple(shape) != tuple(dataset.shape):
        raise ValueError(
            f"{name} was made for examples of shape {tuple(shape)}; "
            f"the data set {dataset.name} has {tuple(dataset.shape)}"
        )
    arguments = getattr(program, "arguments", {})
    if "levels" in arguments:
        levels = arguments["levels"]
        binary = getattr(program, "likelihood", None) == "bernoulli"
        if levels != dataset.levels and not (binary and levels is None and dataset.levels == 2):
            raise ValueError(
                f"{name} was made for {levels or 'no'} levels (reals if none); the data set "
                f"{dataset.name} has {dataset.levels or 'none'}: build it with "
                f"levels={dataset.levels}, or binarize the data"
            )
    classes = getattr(program, "num_classes", None)
    if classes is not None and dataset.num_classes is None:
        raise ValueError(
            f"{name} is conditional on {classes} classes and the data set {dataset.name} "
            "has no labels"
        )
    if classes is not None and dataset.num_classes > classes:
        raise ValueError(
            f"{name} knows {classes} classes and the data set {dataset.name} "
            f"has {dataset.num_classes}"
        )
    wanted = getattr(program, "condition_shape", None)
    if wanted is not None and tuple(wanted) not in dataset.condition_shapes:
        found = [str(shape) for shape in dataset.condition_shapes if shape]
        has = f"images of shape {' and '.join(found)}" if found else "none (pairs:DIR makes some)"
        raise ValueError(
            f"{name} is conditional on images of shape {tuple(wanted)} and the data set "
            f"{dataset.name} has {has}"
        )
    batch = dataset.train.batch(slice(0, 2))
    needed = _required(program)
    if len(accepted(program, batch)) < needed:
        raise ValueError(
            f"{name}.model needs {needed} inputs and the data set {dataset.name} gives "
            f"{len(batch)} ({', '.join(('x', *dataset.condition_names))})"
        )


def _required(program: nn.Module) -> int:
    parameters = inspect.signature(model_of(program)).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds and p.default is p.empty for p in parameters)
