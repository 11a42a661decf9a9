"""The one training loop. It knows programs, objectives and data sets, and no family of models."""

import math
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from pyro.infer import ELBO as PyroELBO
from torch import nn

from .compile import Mode
from .data import Dataset
from .loading import FILLED, check_fit, data_info
from .loop import Rows, train
from .objective import Objective, PyroObjective, default_objectives
from .options import Options, own_defaults
from .processes import find_device, is_child, launch, strategy
from .program import Program
from .recorded import describe, plain
from .run import FORMAT, RESUMABLE, Run, check_claim, read_yaml
from .seeding import seeded
from .sites import accepted

# Examples that programs may start from: enough for means and deviations, whatever the batch.
STARTERS, STARTERS_VALUES = 1000, 2**22


def fit(
    program: nn.Module,
    dataset: Dataset,
    *,
    out: str | Path | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int = 128,
    lr: float | None = None,
    warmup_steps: int = 200,
    schedule: Literal["cosine", "constant"] = "cosine",
    weight_decay: float = 0.0,
    clip_norm: float | None = None,
    ema: float | None = None,
    seed: int = 0,
    device: str = "auto",
    devices: int = 1,
    num_nodes: int = 1,
    precision: Literal["32-true", "bf16-mixed"] = "32-true",
    accumulate: int = 1,
    objective: Objective | PyroELBO | None = None,
    compile: Mode = "trace",
    checkpoint_seconds: float = 30.0,
    validate_epochs: int = 1,
    sample_epochs: int = 5,
    progress: bool = True,
    resume: bool = False,
    overwrite: bool = False,
    on_validation: Callable[[Run, Rows], bool | None] | None = None,
) -> Run:
    """Train a program on a data set by stochastic variational inference.

    The optimiser is Adam (AdamW with `weight_decay`), fused. Losses are nats per example. A run
    with `out` can be killed at any moment and resumed to the same bits.

    Args:
        program: any module with `model` and, where its latents are local, `guide`.
        dataset: what `load_data` or `Dataset.from_tensors` gives.
        out: the run directory; None keeps everything in memory.
        epochs: passes through the training data; 10 if neither epochs nor steps is given.
        steps: optimiser steps instead of epochs.
        batch_size: examples a step, over all devices together.
        lr: peak learning rate of Adam; None for the program's own, which is 4e-3 unless its class
            says otherwise (`training_defaults`). So with clip_norm and ema, each 0.
        warmup_steps: steps of linear warm-up, at most a fifth of the run.
        schedule: "cosine" decay to zero, or "constant".
        weight_decay: decoupled weight decay (AdamW); 0 for none.
        clip_norm: clip the gradient to this Euclidean norm; 0 for no clipping.
        ema: decay of an exponential moving average of the weights, such as 0.999; the averaged
            weights are then the ones validated, sampled from and saved. 0 for none.
        seed: of the order of examples and of every draw; the caller's generators are left alone.
        device: "auto", "cpu", "cuda", "mps" or one such as "cuda:1".
        devices: processes of one machine, each with its device (gloo on CPU, NCCL on GPU).
        num_nodes: machines, each started by torchrun.
        precision: "32-true", or "bf16-mixed": networks in bfloat16, log-densities in float32.
        accumulate: split each batch into so many parts, one after the other, to save memory.
        objective: an Objective over the program, or one of Pyro's ELBO objects (then not
            compiled); None for the program's own.
        compile: "trace" (Pyro's cost is paid once), "inductor" (slow start, fused kernels) or
            "none" (plain Pyro).
        checkpoint_seconds: time between checkpoints; one is always written at the end.
        validate_epochs: epochs between validations, the last always among them; 0 for none.
        sample_epochs: epochs between pictures of samples in the run directory; 0 for none.
        progress: show a progress bar.
        resume: go on with the run in `out` where it stopped.
        overwrite: replace a run in `out`.
        on_validation: called after each validation as ``on_validation(run, metrics)``; a true
            answer stops the training.

    Returns:
        The run: program (trained, in evaluation mode), metrics and path.

    Raises:
        ValueError, TypeError: impossible or unfitting arguments; nothing is written then.
        FloatingPointError: a loss that is not finite, with its step, term and site.
        OSError: a checkpoint could not be written; the last good one is kept.
        KeyboardInterrupt: Ctrl-C, after a checkpoint. SIGTERM raises SystemExit(143) likewise.
    """
    own = own_defaults(program)
    options = Options(
        epochs=10 if epochs is None and steps is None else epochs,
        steps=steps,
        batch_size=batch_size,
        lr=own["lr"] if lr is None else lr,
        warmup_steps=warmup_steps,
        schedule=schedule,
        weight_decay=weight_decay,
        clip_norm=own["clip_norm"] if clip_norm is None else clip_norm,
        ema=own["ema"] if ema is None else ema,
        seed=seed,
        accumulate=accumulate,
        compile=compile,
        checkpoint_seconds=checkpoint_seconds,
        validate_epochs=validate_epochs,
        sample_epochs=sample_epochs,
        progress=progress,
    )
    options.check()
    if precision not in ("32-true", "bf16-mixed"):
        raise ValueError(f"precision must be '32-true' or 'bf16-mixed'; got {precision!r}")
    for name, value in (("devices", devices), ("num_nodes", num_nodes)):
        if value < 1:
            raise ValueError(f"{name} must be 1 or more; got {value}")
    if resume and out is None:
        raise ValueError("resume needs out, the run directory")
    accelerator, indices = _accelerator(device, devices)
    check_fit(program, dataset)
    objectives = _objectives(program, objective)
    with seeded(seed):
        order = torch.randperm(len(dataset.train))
        for player in objectives.values():
            player.prepare(*dataset.train.batch(order[:batch_size]))
            if len(order) % batch_size == 1:  # which the last batch of every epoch will be
                player.prepare(*dataset.train.batch(order[:1]))
        if not resume and isinstance(program, Program):
            count = min(STARTERS, max(1, STARTERS_VALUES // math.prod(dataset.shape)))
            with torch.no_grad():
                program.initialise(*accepted(program, dataset.train.batch(order[:count])))
    path = None if out is None else Path(out)
    if path is not None and not is_child():
        check_claim(path, resume=resume, overwrite=overwrite)
    config = {
        "model": _described_model(program),
        "conditional": getattr(program, "num_classes", None) is not None,
        "data": dataset.arguments.get("source"),
        "binarize": dataset.arguments.get("binarize", "none"),
        "size": dataset.arguments.get("size"),
        "split_seed": dataset.arguments.get("seed", 0),
        "objective": _described_objective(objective, objectives),
        "device": device,
        "devices": devices,
        "num_nodes": num_nodes,
        "precision": precision,
        **vars(options),
    }
    if resume and path is not None:
        _check_same(path, config)
    unit = ", ".join(dict.fromkeys(player.unit for player in objectives.values()))
    info = {"format": FORMAT, "ppgen": _version(), **_machine(), "data": data_info(dataset)}
    info["unit"] = unit  # of the losses
    run = Run(program, dataset, config, info, [], path)

    from lightning.fabric import Fabric  # takes seconds to import, so only training does

    fabric = Fabric(
        accelerator=accelerator,
        devices=indices,
        num_nodes=num_nodes,
        precision=precision,
        strategy=strategy(len(objectives) > 1) if devices * num_nodes > 1 else "auto",
    )
    return launch(fabric, train, (run, objectives, options, resume, overwrite, on_validation))


# Preparation ----------------------------------------------------------------------------------


def _accelerator(device: str, devices: int) -> tuple[str, int | list[int]]:
    """Fabric's accelerator and devices for a device's name, refused where it is absent."""
    place = find_device(device)
    if place.type == "cuda" and devices > torch.cuda.device_count():
        raise ValueError(
            f"{devices} devices ({device}) were asked for; there are {torch.cuda.device_count()}"
        )
    if ":" in device and devices > 1:
        raise ValueError(f"device {device!r} is one device, and devices is {devices}")
    return place.type, devices if place.index is None else [place.index]


def _objectives(program: nn.Module, given: Objective | PyroELBO | None) -> dict[str, Objective]:
    if given is None:
        return default_objectives(program)
    if isinstance(given, PyroELBO):
        return {"elbo": PyroObjective(program, given)}
    if not isinstance(given, Objective):
        raise TypeError(
            f"objective must be an Objective or a Pyro ELBO; got {type(given).__name__}"
        )
    if given.program is not program:
        raise ValueError("the objective was made for another program")
    return {type(given).__name__: given}


def _described_model(program: nn.Module) -> dict[str, Any]:
    found = describe(program)
    if found["init_args"] is not None:
        filled = FILLED
        found["init_args"] = {k: v for k, v in found["init_args"].items() if k not in filled}
    return found


def _described_objective(given: Any, used: dict[str, Objective]) -> dict[str, Any] | None:
    """The objective as the commands read it; None where a program has several, or its own kind."""
    if given is not None:
        return describe(given)
    only = next(iter(used.values()))
    ours = type(only).__module__.startswith("ppgen.")
    return describe(only) if len(used) == 1 and ours else None


def _check_same(path: Path, config: dict[str, Any]) -> None:
    """Refuse to resume a run with other settings, naming the first.

    Raises:
        ValueError: a setting differs from the run's own.
    """
    before = read_yaml(path / "config.yaml")
    for key, value in config.items():
        if key in RESUMABLE or key not in before:
            continue
        if plain(value) != before[key]:
            raise ValueError(
                f"the run in {path} has {key} {before[key]!r}; it cannot be resumed with {value!r}"
            )


def _version() -> str:
    from importlib.metadata import version

    return version("ppgen")


def _machine() -> dict[str, Any]:
    hardware = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor()
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "hardware": hardware or platform.machine(),
        "cores": os.cpu_count(),
    }
