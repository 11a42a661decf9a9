"""Test nats of the hierarchical VAE beside the one-layer VAE at equal training time, on MNIST.

-IWAE-100 in nats on 2,000 test images, one fixed stochastic binarisation, the first thousand left
out, by which the settings of the hierarchy were chosen; training on dynamically binarised images.
Each model trains for as many steps as fit into the budget, by the times of single steps measured
in turn, so that other work on the machine favours none.

    taskset -c 1 python benchmarks/hierarchical.py --data PATH_TO_MNIST_IDX_FILES --seconds 120
    ... --long RUN --epochs 400    # the long recipe, in a run directory, which it resumes
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

import ppgen
from ppgen.compile import Compiled
from ppgen.data import Dataset
from ppgen.evaluation import Evaluation
from ppgen.program import Program


def models(dataset: Dataset) -> dict[str, Callable[[], Program]]:
    """Every model by its defaults, and the hierarchy with either guide."""
    return {
        "VAE": lambda: ppgen.VAE(dataset.shape, levels=2),
        "top_down": lambda: ppgen.HierarchicalVAE(dataset.shape, levels=2, guide="top_down"),
        "bottom_up": lambda: ppgen.HierarchicalVAE(dataset.shape, levels=2, guide="bottom_up"),
    }


def unseen(dataset: Dataset, first: int = 1000) -> Dataset:
    """Without the first test images, by which the settings of the hierarchy were chosen."""
    test = dataset.test
    conditions = tuple(condition[first:] for condition in test.conditions)
    return replace(dataset, test=replace(test, stored=test.stored[first:], conditions=conditions))


def step_seconds(dataset: Dataset, batch_size: int, repeats: int = 30) -> dict[str, float]:
    """Seconds of processor time that one training step of each model takes, medians in turn."""
    x = dataset.train.batch(slice(0, batch_size))[0]

    def stepper(program: Program) -> Callable[[], float]:
        objective = Compiled(next(iter(program.objectives().values())))
        optimizer = torch.optim.Adam(program.parameters(), 1e-4, fused=True)

        def step() -> float:
            start = time.process_time()
            optimizer.zero_grad(set_to_none=True)
            objective(x)[0].backward()
            optimizer.step()
            return time.process_time() - start

        return step

    steps = {name: stepper(make()) for name, make in models(dataset).items()}
    found: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeats + 2):
        for name, step in steps.items():
            seconds = step()
            if turn >= 2:  # the first calls trace
                found[name].append(seconds)
    return {name: statistics.median(values) for name, values in found.items()}


def line(found: Evaluation) -> str:
    layers = [f"{k} {v:.2f}" for k, v in (found.elbo or {}).items() if k.startswith("kl")]
    value = found.log_likelihood
    return f"{-value.value:.2f} +- {value.stderr:.2f} nats ({', '.join(layers)})"


def long_recipe(dataset: Dataset, options: argparse.Namespace) -> None:
    """Five layers, as in the ladder paper: 64, 32, 16, 8, 4 latents, the KL warmed up slowly.

    Sønderby et al. 2016 report about 82 nats by 5,000 particles after 2,000 epochs and more.
    """
    torch.manual_seed(0)
    program = ppgen.HierarchicalVAE(
        dataset.shape, levels=2, latent_dims=(64, 32, 16, 8, 4), latent_hidden=(256, 256)
    )
    folder = Path(options.long)
    run = ppgen.fit(
        program,
        dataset,
        out=folder,
        epochs=options.epochs,
        lr=1e-3,
        ema=0.999,
        clip_norm=200.0,
        device="cpu",
        objective=ppgen.ELBO(program, kl_warmup=0.3, free_bits=0.5),
        validate_epochs=20,
        sample_epochs=0,
        resume=folder.exists(),
    )
    found = ppgen.evaluate(run, particles=options.particles, progress=True)
    print(
        f"{options.epochs} epochs, {run.info['training_seconds'] / 60:.1f} minutes: {line(found)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of the original MNIST files")
    parser.add_argument("--seconds", type=float, default=120.0, help="training time of each model")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=2000)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--only", nargs="*", help="models by name; all by default")
    parser.add_argument("--long", help="run the long recipe instead, in this run directory")
    parser.add_argument("--epochs", type=int, default=400, help="of the long recipe")
    parser.add_argument("--particles", type=int, default=1000, help="of the long recipe")
    options = parser.parse_args()
    torch.set_num_threads(1)
    dataset = unseen(ppgen.load_data(f"idx:{options.data}", binarize="dynamic"))
    if options.long:
        long_recipe(dataset, options)
        return
    seconds = step_seconds(dataset, options.batch_size)
    nats: dict[str, list[float]] = {}
    for seed in range(options.seeds):
        for name, make in models(dataset).items():
            if options.only and name not in options.only:
                continue
            torch.manual_seed(seed)
            run = ppgen.fit(
                make(),
                dataset,
                steps=max(1, round(options.seconds / seconds[name])),
                batch_size=options.batch_size,
                seed=seed,
                validate_epochs=0,
                progress=False,
                device="cpu",
            )
            found = ppgen.evaluate(run, particles=100, limit=options.limit)
            nats.setdefault(name, []).append(-found.log_likelihood.value)
            print(
                f"seed {seed} {name}: {run.config['steps']} steps of {1e3 * seconds[name]:.1f} ms, "
                f"trained {run.info['training_seconds']:.0f} s: {line(found)}",
                flush=True,
            )
    for name, values in nats.items():
        print(
            f"{name}: mean {statistics.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})"
        )
    print(json.dumps({"nats": nats, "step_seconds": seconds}))


if __name__ == "__main__":
    main()
