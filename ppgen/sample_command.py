"""`ppgen sample`: draws from a run, how they come about, and images painted anew in part."""

import inspect
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from .arguments import Parser
from .command_parts import new_file, opened, parsed, parser, say
from .sample_pictures import (
    FILMED,
    Film,
    check_images,
    condition_from,
    condition_sheet,
    sheet,
    task,
)

if TYPE_CHECKING:
    from torch import Tensor

# Options of the command, by the arguments of a program's `generate` that they become.
PASSED = {
    "sampler": "sampler",
    "steps": "steps",
    "eta": "eta",
    "guidance": "guidance",
    "known": "inpaint",
    "mask": "mask",
    "resample": "resample",
    "temperature": "temperature",
    "callback": "trajectory",
}
DRAWS, VARIANTS, HELD_OUT = 100, 8, 30  # by default, of one image, of held-out conditions


def sample(argv: list[str]) -> None:
    options = parsed(_parser(), argv)
    if options is None:
        return
    out, film_out = _checked(options)

    from .processes import find_device
    from .program import draw
    from .run import write_atomically
    from .seeding import seeded

    run = opened(options, with_data=False)
    program, shape = run.program, tuple(run.shape)
    given = {
        name: getattr(options, option)
        for name, option in PASSED.items()
        if getattr(options, option) is not None
    }
    _check_taken(program, given)
    if options.guidance is not None and getattr(program, "num_classes", None) is None:
        raise ValueError(
            "--guidance is for conditional models; this run's model takes no label "
            "(ppgen train --conditional true makes one that does)"
        )
    if out.suffix == ".png" and len(shape) not in (1, 2, 3):
        raise ValueError(f"examples of shape {shape} have no picture: write a .npz file")
    device = find_device(options.device)
    conditions, name = conditions_of(run, options)
    n = len(conditions[0]) if conditions else options.n or _usual(options)
    painted = None
    if options.inpaint is not None:
        painted = task(options.inpaint, options.mask, shape, run.info["data"]["levels"])
        given |= {"known": painted[0].to(device), "mask": painted[1].to(device)}
    film = None
    if film_out is not None:
        check_images("--trajectory", shape)
        film = Film(program)
        given["callback"] = film
    program.to(device)
    with seeded(options.seed, device):
        place = [condition.to(device) for condition in conditions]
        x = draw(program, n, *place, shape=shape, mean=not options.draw, **given).cpu()
    if out.suffix == ".npz":
        write_atomically(out, _arrays(x, conditions))
    elif conditions and conditions[0].ndim > 1:
        write_atomically(out, condition_sheet(x, conditions[0], name))
    else:
        write_atomically(out, sheet(x, painted))
    say(f"{n} sample{'s' * (n > 1)} written to {out}")
    if film is not None and film_out is not None:
        write_atomically(film_out, film.gif())
        say(f"trajectory: {film_out}")


def _parser() -> Parser:
    found = parser(
        "sample",
        "Draw from a run, to a picture (.png) or arrays (.npz). How a draw is made is for some "
        "models to choose: those of diffusion take --sampler, --steps, --eta, --guidance, "
        "--inpaint and --trajectory.",
    )
    found.add_argument("run", type=str, help="the run directory")
    found.add_argument(
        "--n",
        type=int | None,
        default=None,
        help=f"how many; {DRAWS}, {VARIANTS} of --inpaint, 1 of --input, or {HELD_OUT} of what a "
        "model is given from its own data",
    )
    found.add_argument("--out", type=str, help="a .png or .npz file", required=True)
    found.add_argument(
        "--y",
        type=int | None,
        default=None,
        help="the class, for a conditional model; all in turn if not given",
    )
    found.add_argument(
        "--input",
        type=str | None,
        default=None,
        help="the image to draw for, of a model that is conditional on one, such as a sketch in "
        "black on white for Pix2Pix: cut and resized to the model's size, and made grey if it "
        "takes grey. A single draw is written as it is, more stand after the image. Without it the "
        "first held-out ones of the run's data are taken",
    )
    found.add_argument(
        "--draw", action="store_true", help="draws of x instead of the decoder's means"
    )
    found.add_argument(
        "--sampler",
        type=str | None,
        default=None,
        help="ancestral, ddim, euler, heun or dpm_solver_pp_2m; by default ddim, and for --draw "
        "and --inpaint ancestral",
    )
    found.add_argument(
        "--steps",
        type=int | None,
        default=None,
        help="of the sampler, at most the model's timesteps; unasked ancestral takes them all, "
        "ddim 50",
    )
    found.add_argument(
        "--eta",
        type=float | None,
        default=None,
        help="of ddim: from 0, deterministic, to 1, as random as ancestral",
    )
    found.add_argument(
        "--temperature",
        type=float | None,
        default=None,
        help="of flows: standard deviation of their noise; below 1 gives likelier, less varied "
        "draws",
    )
    found.add_argument(
        "--guidance",
        type=float | None,
        default=None,
        help="how closely to follow the class: 1 is the conditional model, 0 ignores the class, "
        "2 to 5 exaggerate it",
    )
    found.add_argument(
        "--inpaint",
        type=str | None,
        default=None,
        help="an image of the model's size, to paint anew where --mask is white; n variants, "
        "shown after the image and what is kept of it. Greys and colours are converted to the "
        "model's, for binary data by a threshold at one half",
    )
    found.add_argument(
        "--mask",
        type=str | None,
        default=None,
        help="an image of the same size: white is painted anew, black is kept",
    )
    found.add_argument(
        "--resample",
        type=int | None,
        default=None,
        help="of --inpaint: how often each step is repeated, 10 by default; more fit the kept "
        "part better and take so much longer",
    )
    found.add_argument(
        "--trajectory",
        type=str | None,
        default=None,
        help=f"a .gif to write: how up to {FILMED} of the draws come about, x_t above the x_0 that "
        "the model sees in it",
    )
    found.add_argument("--seed", type=int, default=0, help="of the draws")
    found.add_argument("--device", type=str, default="cpu", help="cpu, cuda or cuda:N")
    found.add_argument("--overwrite", action="store_true", help="replace the files")
    found.add_argument(
        "--model", type=str | None, default=None, help="class of a model not ppgen's own"
    )
    return found


def _checked(options: Namespace) -> tuple[Path, Path | None]:
    """The files to write, after what can be refused at once."""
    out = new_file(options.out, options.overwrite)
    if out.suffix not in (".png", ".npz"):
        raise ValueError(f"--out must end in .png or .npz; got {out.name}")
    film = None
    if options.trajectory is not None:
        film = new_file(options.trajectory, options.overwrite)
        if film.suffix != ".gif":
            raise ValueError(f"--trajectory must end in .gif; got {film.name}")
    if options.inpaint is not None and options.mask is None:
        raise ValueError(
            "--inpaint needs --mask, an image of the same size: white is painted anew, black is "
            "kept"
        )
    for name in ("mask", "resample"):
        if getattr(options, name) is not None and options.inpaint is None:
            raise ValueError(f"--{name} needs --inpaint, the image to paint anew")
    for name in ("n", "steps", "resample"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be 1 or more; got {value}")
    if options.guidance is not None and not (
        math.isfinite(options.guidance) and options.guidance >= 0
    ):
        raise ValueError(f"--guidance must be finite and 0 or more; got {options.guidance}")
    return out, film


def _usual(options: Namespace) -> int:
    """How many are drawn where --n does not say."""
    return DRAWS if options.inpaint is None else VARIANTS


# What a program takes --------------------------------------------------------------------------


def _takes(generate: Callable[..., Any] | None, name: str) -> bool:
    """Whether a keyword may be given: by its name, or since any may."""
    if generate is None:
        return False
    parameters = inspect.signature(generate).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _check_taken(program: Any, given: dict[str, Any]) -> None:
    """Refuse an option that the program's `generate` has no argument for."""
    from .models import MODELS

    for name in given:
        if not _takes(getattr(program, "generate", None), name):
            able = [other for other, cls in MODELS.items() if _takes(cls.generate, name)]
            hint = f"; {' and '.join(able)} {'do' if able[1:] else 'does'}" if able else ""
            raise ValueError(f"{type(program).__name__} takes no option --{PASSED[name]}{hint}")
    if "known" in given and "sampler" in given:
        from .models.samplers import SAMPLERS

        function = SAMPLERS.get(given["sampler"])
        if function is not None and "known" not in inspect.signature(function).parameters:
            able = [s for s, f in SAMPLERS.items() if "known" in inspect.signature(f).parameters]
            raise ValueError(
                f"sampler {given['sampler']} takes no option --inpaint; taken by "
                f"{' and '.join(able)}"
            )


def conditions_of(run: Any, options: Namespace) -> "tuple[tuple[Tensor, ...], str | None]":
    """What to condition on, and the name of held-out images among it.

    Raises:
        ValueError: options for what the model does not take, or data that are not at hand.
    """
    from .loading import data_of

    program = run.program
    wanted = getattr(program, "condition_shape", None)
    labels = labels_of(program, options.y, options.n or _usual(options))
    if wanted is None:
        if options.input is not None:
            raise ValueError(
                f"--input is for models conditional on an image, such as Pix2Pix; this run's "
                f"{type(program).__name__} takes none"
            )
        return labels, None
    if options.input is not None:
        condition = condition_from(options.input, tuple(wanted))
        return (condition.expand(options.n or 1, -1, -1, -1).clone(),), None
    try:
        data = data_of(run.config)
    except (OSError, ValueError) as error:
        raise ValueError(f"the run's data are not at hand, so --input is needed: {error}") from None
    if data is None:
        raise ValueError(
            f"this {type(program).__name__} draws for an image, and the run's data were given as "
            "tensors: name one with --input"
        )
    held = len(data.test)
    if options.n is not None and options.n > held:
        raise ValueError(f"--n is {options.n}, and the run's data have {held} test examples")
    condition = data.test.batch(slice(0, options.n or HELD_OUT))[1]
    return (condition,), data.condition_names[0]


def labels_of(program: Any, y: int | None, n: int) -> "tuple[Tensor, ...]":
    """The labels to condition on: the one asked for, or all classes in turn."""
    import torch

    classes = getattr(program, "num_classes", None)
    if classes is None:
        if y is not None:
            raise ValueError("--y is for conditional models; this run's model takes no label")
        return ()
    if y is None:
        return (torch.arange(n) * classes // n,)
    if not 0 <= y < classes:
        raise ValueError(f"--y must be from 0 to {classes - 1}; got {y}")
    return (torch.full((n,), y),)


def _arrays(x: "Tensor", conditions: "tuple[Tensor, ...]") -> bytes:
    import numpy as np

    buffer = io.BytesIO()
    arrays: dict[str, Any] = {"x": x.numpy()}
    for condition in conditions:
        arrays["y" if condition.ndim == 1 else "condition"] = condition.numpy()
    np.savez(buffer, **arrays)
    return buffer.getvalue()
