"""What `fit` costs beside a bare loop over the same compiled objective and the same tensors.

`fit` runs with its progress bar, logging and run directory; validation and pictures are off. The
two run in turn, and medians of the time a step are compared.

    taskset -c 0 python benchmarks/fit_overhead.py
"""

import argparse
import math
import statistics
import tempfile
import time
from pathlib import Path

import torch

import ppgen
from ppgen.compile import Compiled
from ppgen.data import Dataset


def bare(dataset: Dataset, steps: int, batch_size: int) -> float:
    torch.manual_seed(0)
    program = ppgen.VAE(dataset.shape, levels=2)
    objective = Compiled(ppgen.ELBO(program))
    optimizer = torch.optim.Adam(program.parameters(), 2e-3, fused=True)
    images = dataset.train.stored
    per_epoch = math.ceil(len(images) / batch_size)
    objective(dataset.train.batch(slice(0, batch_size))[0])  # trace
    start = time.perf_counter()
    for step in range(steps):
        place = step % per_epoch
        if place == 0:
            order = torch.randperm(len(images))
        index = order[place * batch_size : (place + 1) * batch_size]
        x, _ = dataset.train.batch(index)
        loss, _ = objective(x)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return (time.perf_counter() - start) / steps


def fitted(dataset: Dataset, steps: int, batch_size: int) -> float:
    """Seconds a step after the first log row, by which time the graph is traced."""
    program = ppgen.VAE(dataset.shape, levels=2)
    with tempfile.TemporaryDirectory() as folder:
        run = ppgen.fit(
            program,
            dataset,
            out=Path(folder) / "run",
            steps=steps,
            batch_size=batch_size,
            validate_epochs=0,
            sample_epochs=0,
            device="cpu",
        )
    rows = run.metrics
    return (rows[-1]["seconds"] - rows[0]["seconds"]) / (rows[-1]["step"] - rows[0]["step"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=310)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    dataset = ppgen.load_data("mnist", binarize="dynamic")
    pairs = []
    for _ in range(options.rounds):
        pairs.append((fitted(dataset, options.steps, 125), bare(dataset, options.steps, 125)))
    ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"fit {1e3 * ours:.3f} ms a step, bare loop {1e3 * theirs:.3f} ms, ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
