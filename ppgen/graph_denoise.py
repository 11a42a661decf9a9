"""`ppgen graph denoise`: an image restored under a Markov random field."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from graphs.ising import METHODS, Denoised
from graphs.ising import denoise as restored

from .graph_images import encoded, image_file, read_image, sheet, two_levels
from .graph_words import Parser, new_picture, say_json, say_lines, say_table
from .names import near

COMPARED = ("icm", "graph_cut", "bp")
LARGEST = 1e6  # of a parameter: beyond it only rounding would change
SEEDS = 2**63


class Task(NamedTuple):
    """An image to restore."""

    y: np.ndarray
    """-1 and +1, or the levels of a grey image from 0 to 255."""
    truth: np.ndarray | None
    """The original, likewise, where it is known."""
    grey: bool
    threshold: float | None
    """Above it a pixel is light; None for a grey image."""
    stretched: tuple[float, float] | None
    """The levels that count as 0 and 255, of an image of more than 8 bits."""

    def pixels(self, image: np.ndarray) -> np.ndarray:
        """The levels that are written, 0 to 255."""
        shown = image.round().clip(0, 255) if self.grey else np.where(image > 0, 255, 0)
        return shown.astype(np.uint8)

    def wrong(self, image: np.ndarray) -> float | None:
        """The share of wrong pixels; of a grey image the root mean square error in levels."""
        if self.truth is None:
            return None
        if self.grey:
            return math.sqrt(float(((image - self.truth) ** 2).mean()))
        return float((image != self.truth).mean())

    def said(self, wrong: float | None) -> str:
        if wrong is None:
            return ""
        return f"{wrong:.3f}" if self.grey else f"{wrong:.3%}"


def denoise(argv: list[str]) -> None:
    options = _options(argv)
    out = image_file(options.out, options.overwrite)
    shown = new_picture(options.compare, options.overwrite)
    _refuse_same(options, out, shown)
    task = _task(options)
    chosen, found = _restored(options, task, shown is not None)
    pixels = task.pixels(chosen.image)
    data, lost = encoded(pixels, out)
    # The sheet goes first: where the restored image is there, all is.
    if shown is not None:
        from graphs.pictures.drawing import picture_ending, write_picture

        write_picture(sheet(_panels(task, found)), shown, picture_ending(shown))
    from graphs.files import write_whole

    write_whole(out, data)
    if options.json:
        say_json(_document(options, task, chosen, found, lost))
        return
    height, width = task.y.shape
    parts = [f"{options.image}: {width} x {height} pixels"]
    if task.stretched is not None:
        parts.append("levels {:g} to {:g} taken as 0 to 255".format(*task.stretched))
    if task.threshold is not None:
        parts.append(f"light above {task.threshold:g}")
    terms = (f"{name} {value:.4g}" for name, value in _parameters(task, chosen).items())
    say_lines(f"{', '.join(parts)}; {', '.join(terms)}")
    measure = [] if task.truth is None else ["error (rms)" if task.grey else "wrong pixels"]
    heads = ["method", "energy (nats)", "sweeps", "seconds", *measure]
    rows = [
        (one.method, f"{float(one.energy):.8g}", one.sweeps, f"{one.seconds:.3f}",
         *([task.said(task.wrong(one.image))] if measure else []))
        for one in found
    ]  # fmt: skip
    if measure:
        rows.insert(0, ("as given", "", "", "", task.said(task.wrong(task.y))))
    say_table(heads, rows, len(heads) - 1)
    _say_notes(options, chosen, found, lost, pixels.size)
    say_lines(f"written: {out} ({chosen.method})" + ("" if shown is None else f", {shown}"))


def _options(argv: list[str]) -> Any:
    parser = Parser(
        "denoise",
        "NOISY --out CLEAN [--method M] [--noise P] [--compare SHEET] [--original FILE] [--json]",
        "Restore a noisy image: find pixels x of low energy E(x, y) = h sum x_i - beta sum x_i x_j "
        "over neighbours - eta sum x_i y_i, with -1 for dark and +1 for light. A grey or coloured "
        "image y is cut into dark and light first, at the threshold of Otsu or the one given. With "
        "--levels K of 3 or more the image is restored in grey by bp, under E(x, y) = "
        "eta sum (x_i - y_i)^2 + beta sum min(|x_i - x_j|, a fifth of the range). Say how much "
        "noise there is (--noise), or choose beta and eta: a larger beta smooths more, a larger "
        "eta changes less. --compare writes a sheet of the image and of what icm (the nearest "
        "minimum), graph_cut (the least energy) and bp make of it, with their energies; with "
        "--original, or --flip on a clean image, also their errors.",
        "ppgen graph denoise noisy.png --out clean.png --noise 0.1",
        "ppgen graph denoise noisy.png --out clean.png --method icm --original truth.png",
        "ppgen graph denoise photo.jpg --out clean.png --flip 0.1 --compare sheet.png",
        "ppgen graph denoise grainy.jpg --out smooth.png --levels 32 --noise 20",
    )
    parser.add_argument(
        "image", metavar="NOISY",
        help="an image of any format; the first picture in it, what is transparent being white",
    )  # fmt: skip
    parser.add_argument(
        "--out", required=True, metavar="CLEAN", help="the image to write, of 8 bits, such as .png"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    parser.add_argument(
        "--method", metavar="M",
        help=f"{', '.join(METHODS[:-1])} or {METHODS[-1]}; by default graph_cut, or bp where beta "
        "is below 0 or the image is grey",
    )  # fmt: skip
    parser.add_argument(
        "--noise", type=float, metavar="P",
        help="the share of pixels that were flipped, from which follow eta = log((1 - P) / P) / 2 "
        "and beta = eta / 2; of a grey image the standard deviation in levels of 0 to 255, with "
        "eta = 1 / (2 P^2) and beta = 1 / (2 P)",
    )  # fmt: skip
    parser.add_argument("--h", type=float, metavar="X", help="above 0, more is dark (0)")
    parser.add_argument("--beta", type=float, metavar="X", help="smoothness (1)")
    parser.add_argument("--eta", type=float, metavar="X", help="faith in the image (2.1)")
    parser.add_argument(
        "--neighbours", type=int, metavar="N", help="4, or 8 with the diagonals (4)"
    )
    parser.add_argument(
        "--order",
        metavar="O",
        help="of icm: checkerboard, or raster, pixel by pixel",
    )
    parser.add_argument(
        "--levels", type=int, default=2, metavar="K",
        help="2, or for grey as many values, evenly spaced from the darkest of the image to its "
        "lightest, up to 256 (2)",
    )  # fmt: skip
    parser.add_argument("--threshold", type=float, metavar="T", help="light is above it, 0 to 255")
    parser.add_argument("--original", metavar="FILE", help="the true image, to count wrong pixels")
    parser.add_argument(
        "--flip", type=float, metavar="P",
        help="flip this share of the pixels first: NOISY is then the original, and P the noise "
        "unless --noise is given",
    )  # fmt: skip
    parser.add_argument("--compare", metavar="SHEET", help="a .png, .svg or .pdf sheet to write")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of --flip, bp, gibbs and annealing (0)"
    )
    options = parser.read(argv)
    _check(options)
    return options


def _check(options: Any) -> None:
    """Refuse what is out of range or does not go together, before anything is read."""
    grey = options.levels > 2
    if not 2 <= options.levels <= 256:
        raise ValueError(f"--levels must be from 2 to 256; got {options.levels}")
    if options.method is not None and options.method not in METHODS:
        raise ValueError(
            f"unknown method {options.method!r}{near(options.method, METHODS)}; known: "
            f"{', '.join(METHODS)}"
        )
    for name in ("h", "beta", "eta"):
        value = getattr(options, name)
        if value is not None and not abs(value) <= LARGEST:
            within = f"from {-LARGEST:,.0f} to {LARGEST:,.0f}"
            raise ValueError(f"--{name} must be {within}; got {value:g}")
    if not 0 <= options.seed < SEEDS:
        raise ValueError(f"--seed must be 0 or more, and below 2^63; got {options.seed}")
    if options.threshold is not None and not 0 <= options.threshold <= 255:
        raise ValueError(f"--threshold must be from 0 to 255; got {options.threshold:g}")
    if options.neighbours not in (None, 4, 8):
        raise ValueError(f"--neighbours must be 4 or 8; got {options.neighbours}")
    if options.order not in (None, "checkerboard", "raster"):
        raise ValueError(f"--order must be checkerboard or raster; got {options.order!r}")
    _check_noise(options, grey)
    if grey:
        binary = ("h", "neighbours", "order", "threshold", "flip")
        for name in binary:
            if getattr(options, name) is not None:
                raise ValueError(
                    f"--{name} is for images of two levels: leave it out, or --levels "
                    f"{options.levels}"
                )
        if options.method not in (None, "bp"):
            raise ValueError(
                f"grey images are restored by bp alone; got --method {options.method}: leave it "
                f"out, or --levels {options.levels}"
            )
        for name in ("beta", "eta"):
            if (getattr(options, name) or 0) < 0:
                raise ValueError(f"--{name} of a grey image must be 0 or more; got "
                                 f"{getattr(options, name):g}")  # fmt: skip
    elif options.order is not None and options.method != "icm" and options.compare is None:
        raise ValueError("--order is of icm: it goes with --method icm or --compare")
    if options.method == "graph_cut" and options.beta is not None and options.beta < 0:
        raise ValueError(
            f"--beta {options.beta:g}: where neighbours repel each other no cut finds the least "
            "energy; use --method bp, annealing or icm"
        )
    if options.flip is not None and options.original is not None:
        raise ValueError("--flip takes the image that is given for the original: leave out "
                         "--original, or --flip")  # fmt: skip


def _check_noise(options: Any, grey: bool) -> None:
    noise, flip, both = options.noise, options.flip, None not in (options.beta, options.eta)
    if flip is not None and not 0 < flip < 0.5:
        raise ValueError(f"--flip must be above 0 and below 0.5; got {flip:g}")
    if noise is not None and both:
        raise ValueError("--noise stands for --beta and --eta: leave it out, or one of the two")
    if grey and noise is None and not both:
        raise ValueError(
            "a grey image needs --noise, its standard deviation in levels of 0 to 255, or --beta "
            "and --eta both"
        )
    if grey and noise is not None and not 0.01 <= noise <= 255:
        raise ValueError(
            "--noise of a grey image is a standard deviation in levels of 0 to 255, from 0.01 to "
            f"255; got {noise:g}"
        )
    if not grey and noise is not None and not 1e-9 <= noise < 0.5:
        raise ValueError(
            "--noise is the share of pixels that were flipped, from 1e-9 to below 0.5; got "
            f"{noise:g}" + (": for a standard deviation in grey add --levels" if noise >= 1 else "")
        )


def _refuse_same(options: Any, out: Path, shown: Path | None) -> None:
    """No file that is read is written, and none twice."""
    taken = {"the noisy image": options.image, "--original": options.original}
    for option, path in {"--out": out, "--compare": shown}.items():
        for what, other in taken.items():
            if path is None or other is None:
                continue
            if path.exists() and Path(other).exists() and path.samefile(other):
                raise ValueError(f"{option} {path} is {what} itself: choose another name")
    if shown is not None and shown.resolve() == out.resolve():
        raise ValueError(f"--compare {shown} is --out as well: choose another name for one of them")


def _task(options: Any) -> Task:
    grey = options.levels > 2
    read = read_image(options.image)
    levels = read.between(read.low, read.high)
    stretched = (read.low, read.high) if read.deep else None
    y, threshold = (levels, None) if grey else two_levels(options.image, levels, options.threshold)
    if options.flip is not None:
        flips = np.random.default_rng(options.seed).random(y.shape) < options.flip
        return Task(np.where(flips, -y, y), y, grey, threshold, stretched)
    if options.original is None:
        return Task(y, None, grey, threshold, stretched)
    true = read_image(options.original)
    if true.values.shape != y.shape:
        raise ValueError(
            f"{options.original} has {_size(true.values)} pixels and {options.image} {_size(y)}: "
            "the original must be of the same size"
        )
    if grey and true.deep != read.deep:
        raise ValueError(
            f"of {options.original} and {options.image} one has 8 bits and the other more: their "
            "levels cannot be compared; convert one of them"
        )
    same = read if true.deep == read.deep else true
    truth = true.between(same.low, same.high)
    if not grey:
        truth, _ = two_levels(options.original, truth, options.threshold)
    return Task(y, truth, grey, threshold, stretched)


def _restored(options: Any, task: Task, compare: bool) -> tuple[Denoised, list[Denoised]]:
    """The answer, and all that the sheet shows in the order of the methods."""
    noise = options.flip if options.noise is None else options.noise
    how: dict[str, Any] = {"noise": noise, "beta": options.beta, "eta": options.eta}
    how["seed"] = options.seed
    if task.grey:
        chosen = restored(task.y, "bp", levels=options.levels, **how)
        return chosen, [chosen]
    how |= {"h": options.h or 0.0, "neighbours": options.neighbours or 4}
    how["order"] = options.order or "checkerboard"
    chosen = restored(task.y, options.method, **how)
    found = [chosen]
    if compare:
        for method in COMPARED:
            repel = method == "graph_cut" and chosen.parameters["beta"] < 0
            if method != chosen.method and not repel:
                found.append(restored(task.y, method, **how))
    return chosen, sorted(found, key=lambda one: METHODS.index(one.method))


def _parameters(task: Task, found: Denoised) -> dict[str, float]:
    return {n: value for n, value in found.parameters.items() if not (task.grey and n == "h")}


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]} x {image.shape[0]}"


def _panels(task: Task, found: list[Denoised]) -> list[tuple[str, np.ndarray]]:
    unit = " rms error" if task.grey else " wrong"
    panels = [] if task.truth is None else [("original", task.pixels(task.truth))]
    before = task.said(task.wrong(task.y))
    panels.append((f"noisy\n{before}{unit}" if before else "noisy", task.pixels(task.y)))
    for one in found:
        words = f"{one.method}\nenergy {float(one.energy):.8g}"
        if task.truth is not None:
            words += f"; {task.said(task.wrong(one.image))}{unit}"
        panels.append((words, task.pixels(one.image)))
    return panels


def _say_notes(
    options: Any, chosen: Denoised, found: list[Denoised], lost: int, pixels: int
) -> None:
    for one in found:
        if one.rounding is not None:
            above = float(np.max(one.rounding))
            most = f"at most {above:.2g} above the least energy" if above else "the least energy"
            say_lines(f"graph_cut: {most} there is")
        elif one.converged is False:
            say_lines(f"{one.method}: not at rest after {one.sweeps} sweeps")
    if options.compare is not None and options.levels == 2 and chosen.parameters["beta"] < 0:
        say_lines("graph_cut is left out: it needs beta of 0 or more")
    if lost:
        ending = Path(options.out).suffix
        say_lines(f"{ending} is lossy: {lost:,} of {pixels:,} pixels of the file differ from what "
                  "was found; .png keeps all")  # fmt: skip


def _document(
    options: Any, task: Task, chosen: Denoised, found: list[Denoised], lost: int
) -> dict[str, Any]:
    measure = "rms_error" if task.grey else "wrong_pixels"
    document: dict[str, Any] = {
        "image": options.image,
        "width": task.y.shape[1],
        "height": task.y.shape[0],
        "levels": options.levels,
        "threshold": task.threshold,
        "stretched": task.stretched,
        "parameters": _parameters(task, chosen),
        "method": chosen.method,
        "written": options.out,
        "pixels_lost": lost,
    }
    if task.truth is not None:
        document[f"{measure}_before"] = task.wrong(task.y)
    document["results"] = [
        {
            "method": one.method,
            "energy": float(one.energy),
            "energies": [float(energy) for energy in one.energies],
            "sweeps": one.sweeps,
            "seconds": one.seconds,
            "at_rest": one.converged,
            **({} if one.rounding is None else {"rounding": float(np.max(one.rounding))}),
            **({} if task.truth is None else {measure: task.wrong(one.image)}),
        }
        for one in found
    ]
    if options.compare is not None:
        document["sheet"] = options.compare
    return document
