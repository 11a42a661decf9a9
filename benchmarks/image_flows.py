"""Bits per dimension of flows of images on the full MNIST, 256 levels.

Trains Glow or RealNVP for so many steps, in a run directory that a second start goes on with, and
scores the test set by the importance-weighted bound. Ends with a picture of samples in the run
directory.

    taskset -c 0 python benchmarks/image_flows.py --data PATH_TO_MNIST_IDX_FILES --out RUN
"""

import argparse
import json
import time
from pathlib import Path

import torch

import ppgen
from ppgen.models.glow import Glow
from ppgen.models.vector_flow import RealNVP
from ppgen.plots import samples

MODELS = ("Glow", "RealNVP")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of the original MNIST files")
    parser.add_argument("--out", type=Path, required=True, help="run directory")
    parser.add_argument("--model", choices=MODELS, default="Glow")
    parser.add_argument("--steps", type=int, default=7000, help="of training")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=5e-3)
    parser.add_argument("--flow-steps", type=int, help="of flow a scale")
    parser.add_argument("--hidden", type=int, default=64, help="channels of the networks")
    parser.add_argument("--dequantisation", default="variational")
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--particles", type=int, default=16, help="draws a test image")
    parser.add_argument("--limit", type=int, help="only the first test images")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dataset = ppgen.load_data(f"idx:{options.data}")
    common = {"levels": dataset.levels, "dequantisation": options.dequantisation}
    program: ppgen.Program
    if options.model == "Glow":
        program = Glow(
            dataset.shape, steps=options.flow_steps or 8, hidden=options.hidden, **common
        )
    else:  # two steps of four couplings a scale
        program = RealNVP(
            dataset.shape, layers=options.flow_steps or 2, hidden=(options.hidden,), **common
        )
    start = time.perf_counter()
    run = ppgen.fit(
        program,
        dataset,
        out=options.out,
        steps=options.steps,
        batch_size=options.batch_size,
        lr=options.lr,
        ema=0.999,
        precision=options.precision,
        device="cpu",
        resume=options.out.exists(),
    )
    minutes = (time.perf_counter() - start) / 60
    count = sum(parameter.numel() for parameter in program.parameters())
    print(f"{options.model}: {count:,} parameters, {options.steps:,} steps, {minutes:.1f} minutes")
    found = ppgen.evaluate(
        run.program, dataset, particles=options.particles, limit=options.limit, progress=True
    )
    print(found)
    torch.manual_seed(0)
    picture = samples(run.program.sample(100))
    if picture is not None:
        (options.out / "benchmark_samples.png").write_bytes(picture)
    (options.out / "benchmark.json").write_text(json.dumps({"minutes": minutes, **found.to_dict()}))


if __name__ == "__main__":
    main()
