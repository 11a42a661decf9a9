"""Binary image denoising: ours beside PyMaxflow, OR-tools and loops over lists, in one run.

    pip install pymaxflow==1.3.2 ortools==9.15.6755        # the peers; each is left out if missing
    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/denoising.py

Images of 1024 x 1024, one pixel in ten flipped: text and shapes drawn here, and `camera` and
`horse`, thresholded at their means, if scikit-image is installed (its files are read, it is not
imported). Each call is timed in turn with the peers', building the graph included, and the median
counts; energies are compared. Then every method of `denoise`: seconds, energy above the minimum,
errors.
"""

import argparse
import importlib.util
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from timing import timed

from graphs.denoising.energy import Ising
from graphs.denoising.graph_cut import minimum_cut
from graphs.ising import METHODS, denoise

SIDE, FLIPPED, UNITS = 1024, 0.1, 10_000  # UNITS: integers of the peers to one unit of energy
SETTINGS = {  # title: h, beta, eta, neighbours
    "beta 1, eta 2.1": Ising(0.0, 1.0, 2.1, 4),
    "noise .1": Ising(0.0, np.log(9) / 4, np.log(9) / 2, 4),
    "beta 1, eta 1": Ising(0.0, 1.0, 1.0, 4),
    "beta 1, eta 2.1, 8 neighbours": Ising(0.0, 1.0, 2.1, 8),
}


def images(side: int) -> dict[str, np.ndarray]:
    """Clean images in {-1, +1}, (side, side), by nearest neighbour."""
    found = {"text and shapes": text_and_shapes(side)}
    package = importlib.util.find_spec("skimage")
    folder = Path(package.origin).parent / "data" if package and package.origin else None
    for name in ("camera", "horse"):
        if folder and (folder / f"{name}.png").exists():
            grey = np.asarray(Image.open(folder / f"{name}.png").convert("L"), float)
            rows, columns = (np.arange(side) * n // side for n in grey.shape)
            found[name] = np.where(grey > grey.mean(), 1, -1).astype(np.int8)[rows][:, columns]
    return found


def text_and_shapes(side: int) -> np.ndarray:
    canvas = Image.new("L", (side, side))
    draw = ImageDraw.Draw(canvas)
    for row, text in enumerate(("MARKOV", "RANDOM", "FIELDS", "1984")):
        font = ImageFont.load_default(side // 5)
        draw.text((side // 20, row * side // 5), text, fill=255, font=font)
    part = side // 8
    draw.ellipse((5 * part, 6 * part, 7 * part, 8 * part - 8), outline=255, width=part // 4)
    draw.polygon([(part, 8 * part - 9), (3 * part, 8 * part - 9), (2 * part, 6 * part + 9)], 255)
    return np.where(np.asarray(canvas) > 127, 1, -1).astype(np.int8)


# The peers ----------------------------------------------------------------------------------------


def whole_numbers(model: Ising) -> tuple[int, int]:
    return round(model.beta * UNITS), round(model.eta * UNITS)


def by_pymaxflow(model: Ising, y: np.ndarray) -> np.ndarray:
    import maxflow

    beta, eta = whole_numbers(model)
    graph = maxflow.Graph[int]()
    nodes = graph.add_grid_nodes(y.shape)
    if model.neighbours == 4:
        graph.add_grid_edges(nodes, beta)
    else:
        around = np.array([[0, 0, 0], [0, 0, 1], [1, 1, 1]])
        graph.add_grid_edges(nodes, beta, around, symmetric=True)
    graph.add_grid_tedges(nodes, np.where(y > 0, eta, 0), np.where(y > 0, 0, eta))
    graph.maxflow()
    return np.where(graph.get_grid_segments(nodes), -1, 1).astype(np.int8)


def by_ortools(model: Ising, y: np.ndarray) -> np.ndarray:
    from ortools.graph.python import max_flow

    beta, eta = whole_numbers(model)
    count = y.size
    number = np.arange(count, dtype=np.int32).reshape(y.shape)
    first = np.concatenate([number[:-1].ravel(), number[:, :-1].ravel()])
    second = np.concatenate([number[1:].ravel(), number[:, 1:].ravel()])
    plus, minus = number[y > 0], number[y < 0]
    tails = np.concatenate([first, second, np.full(len(plus), count, np.int32), minus])
    heads = np.concatenate([second, first, plus, np.full(len(minus), count + 1, np.int32)])
    capacities = np.full(len(tails), beta, np.int64)
    capacities[-count:] = eta
    solver = max_flow.SimpleMaxFlow()
    solver.add_arcs_with_capacity(tails, heads, capacities)
    if solver.solve(count, count + 1) != solver.OPTIMAL:
        raise RuntimeError("OR-tools found no optimum")
    image = np.full(count + 2, -1, np.int8)
    image[np.asarray(solver.get_source_side_min_cut())] = 1
    return image[:count].reshape(y.shape)


def by_lists(model: Ising, y: np.ndarray) -> np.ndarray:
    """ICM over Python lists as plainly as one would write it, for four neighbours."""
    height, width = y.shape
    beta, eta, h = model.beta, model.eta, model.h
    seen = y.tolist()
    x = np.pad(y, 1).tolist()
    moved = True
    while moved:
        moved = False
        for r in range(1, height + 1):
            above, row, below, given = x[r - 1], x[r], x[r + 1], seen[r - 1]
            for c in range(1, width + 1):
                around = above[c] + below[c] + row[c - 1] + row[c + 1]
                force = beta * around + eta * given[c - 1] - h
                if force * row[c] < 0:
                    row[c] = -row[c]
                    moved = True
    return np.array(x, np.int8)[1:-1, 1:-1]


# The comparisons ----------------------------------------------------------------------------------


def energy(model: Ising, x: np.ndarray, y: np.ndarray) -> float:
    return float(model.energy(torch.from_numpy(x)[None], torch.from_numpy(y)[None])[0])


def given(model: Ising) -> dict[str, Any]:
    names = ("h", "beta", "eta", "neighbours")
    return {name: getattr(model, name) for name in names}


def cuts(model: Ising, y: np.ndarray, with_ortools: bool, repeats: int) -> dict[str, Any]:
    """Seconds of the exact minimum, and how far the answers' energies lie apart."""
    calls: dict[str, Callable[[], np.ndarray]] = {
        "ours": lambda: denoise(y, "graph_cut", progress=False, **given(model)).image
    }
    if importlib.util.find_spec("maxflow"):
        calls["PyMaxflow"] = lambda: by_pymaxflow(model, y)
    seconds, answers = timed(calls, repeats)
    if with_ortools and model.neighbours == 4 and importlib.util.find_spec("ortools"):
        start = time.perf_counter()
        answers["OR-tools"] = by_ortools(model, y)
        seconds["OR-tools"] = time.perf_counter() - start
    energies = [energy(model, x, y) for x in answers.values()]
    own = minimum_cut(model.h - model.eta * y, *[model.beta] * (model.neighbours // 2))
    return {
        "seconds": seconds,
        "ours less the best peer": energies[0] - min(energies[1:], default=energies[0]),
        "share left to the flow": own.searched / y.size,
    }


def sweeps(model: Ising, y: np.ndarray, repeats: int) -> dict[str, Any]:
    """Seconds of ICM: checkerboard, our raster order, a plain loop over lists."""
    seconds, answers = timed(
        {
            "checkerboard": lambda: denoise(y, "icm", **given(model)).image,
            "raster": lambda: denoise(y, "icm", order="raster", **given(model)).image,
            "lists": lambda: by_lists(model, y),
        },
        repeats,
    )
    if not (answers["raster"] == answers["lists"]).all():
        raise RuntimeError("the two raster orders differ")
    return seconds


def methods(model: Ising, clean: np.ndarray, y: np.ndarray) -> dict[str, dict[str, float]]:
    found = {}
    for method in METHODS:
        answer = denoise(y, method, progress=False, **given(model))
        found[method] = {
            "seconds": answer.seconds,
            "energy": answer.energy,
            "wrong": float((answer.image != clean).mean()),
        }
    least = found["graph_cut"]["energy"]
    for figures in found.values():
        figures["above the minimum"] = (figures["energy"] - least) / abs(least)
    return found


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--side", type=int, default=SIDE)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-ortools", action="store_true", help="leave OR-tools out: it is slow")
    parser.add_argument("--json", help="also write the figures to this file")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    for name, clean in images(options.side).items():
        flips = np.random.default_rng(0).random(clean.shape) < FLIPPED
        y = np.where(flips, -clean, clean)
        print(f"\n{name}, {y.shape[0]} x {y.shape[1]}, {flips.mean():.1%} flipped")
        for title, model in SETTINGS.items():
            slow = title == "beta 1, eta 2.1" and not options.no_ortools
            found = cuts(model, y, slow, options.repeats)
            results[f"{name}: cut, {title}"] = found
            own = found["seconds"]["ours"]
            others = "".join(
                f", {peer} {seconds:.3f} s (ours / it {own / seconds:.2f})"
                for peer, seconds in found["seconds"].items()
                if peer != "ours"
            )
            print(
                f"  cut, {title}: {own:.3f} s{others}; energy less the best peer's "
                f"{found['ours less the best peer']:.2g}; "
                f"{found['share left to the flow']:.1%} of pixels left to the flow",
                flush=True,
            )
        model = SETTINGS["beta 1, eta 2.1"]
        seconds = sweeps(model, y, min(options.repeats, 3))
        results[f"{name}: icm"] = seconds
        print(
            f"  ICM: checkerboard {seconds['checkerboard']:.4f} s; raster {seconds['raster']:.3f} s"
            f" ({seconds['raster'] / seconds['checkerboard']:.0f} x); plain loop over lists "
            f"{seconds['lists']:.3f} s ({seconds['lists'] / seconds['checkerboard']:.0f} x)"
        )
        results[f"{name}: methods"] = methods(model, clean, y)
        for method, figures in results[f"{name}: methods"].items():
            print(
                f"  {method:11}{figures['seconds']:8.3f} s   {figures['above the minimum']:8.4%} "
                f"above the minimum   {figures['wrong']:7.3%} wrong",
                flush=True,
            )
    if options.json:
        with open(options.json, "w") as file:
            json.dump(results, file, indent=1)
    return results


if __name__ == "__main__":
    main()
