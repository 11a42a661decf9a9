"""Test nats of the VAE on the full MNIST, by the defaults, beside the same network by hand.

-IWAE-100 in nats on the first 2,000 test images, one fixed stochastic binarisation; training on
dynamically binarised images, 10 epochs, batch 128. By hand is plain PyTorch: the same network,
recipe and number of steps, without Pyro, logging or checkpoints.

    taskset -c 0 python benchmarks/mnist_nats.py --data PATH_TO_MNIST_IDX_FILES
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F

import ppgen
from ppgen.data import Dataset
from ppgen.nn.mlp import MLPDecoder, MLPEncoder
from ppgen.options import Options


def by_hand(
    dataset: Dataset, epochs: int, seed: int, batch_size: int = 128
) -> tuple[float, ppgen.VAE]:
    """Train the default VAE's network in plain PyTorch: the seconds, and the result to score."""
    torch.manual_seed(seed)
    encoder = MLPEncoder(dataset.shape, 64, (512, 512))
    decoder = MLPDecoder(32, dataset.shape, (512, 512))
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, 4e-3, fused=True)
    images = dataset.train.stored
    per_epoch = math.ceil(len(images) / batch_size)
    options, total = Options(epochs=epochs), per_epoch * epochs
    start = time.perf_counter()
    step = 0
    for _ in range(epochs):
        order = torch.randperm(len(images))
        for index in order.split(batch_size):
            p = images[index].float().div_(255)
            x = (torch.rand_like(p) < p).float()  # a quarter of torch.bernoulli's time
            loc, log_scale = encoder(x).chunk(2, -1)
            z = loc + torch.randn_like(loc) * log_scale.exp()
            nll = F.binary_cross_entropy_with_logits(decoder(z).squeeze(1), x, reduction="sum")
            kl = 0.5 * (loc**2 + (2 * log_scale).exp() - 1 - 2 * log_scale).sum()
            loss = (nll + min(1.0, step / (0.2 * total)) * kl) / len(x)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.param_groups[0]["lr"] = options.learning_rate(step, total)
            optimizer.step()
            step += 1
    seconds = time.perf_counter() - start
    program = ppgen.VAE(dataset.shape, levels=2)  # only to score the result
    program.encoder.load_state_dict(encoder.state_dict())
    program.decoder.load_state_dict(decoder.state_dict())
    return seconds, program


def long_recipe(dataset: Dataset, epochs: int, out: str, particles: int) -> None:
    """The published single-layer VAE: 2x200 tanh units, 50 latents, batch 100, dynamic.

    Burda et al. 2016 report 86.76 nats (table 1, VAE, one layer, k = 1) with 5,000 particles.
    """
    torch.manual_seed(0)
    network = {"hidden": (200, 200), "activation": "tanh", "normalise": False}
    program = ppgen.VAE(dataset.shape, levels=2, latent_dim=50, **network)
    start = time.perf_counter()
    folder = Path(out)
    run = ppgen.fit(
        program,
        dataset,
        out=folder,
        epochs=epochs,
        batch_size=100,
        lr=1e-3,
        device="cpu",
        validate_epochs=20,
        sample_epochs=0,
        resume=folder.exists(),
    )
    minutes = (time.perf_counter() - start) / 60
    found = ppgen.evaluate(run, particles=particles, progress=True)
    print(f"{epochs} epochs, {minutes:.1f} minutes, evaluation {found.seconds / 60:.1f} minutes")
    print(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of the original MNIST files")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=2000)
    parser.add_argument("--long", help="run the long recipe instead, in this run directory")
    parser.add_argument("--particles", type=int, default=5000, help="of the long recipe")
    options = parser.parse_args()
    torch.set_num_threads(1)
    dataset = ppgen.load_data(f"idx:{options.data}", binarize="dynamic")
    if options.long:
        long_recipe(dataset, options.epochs, options.long, options.particles)
        return
    nats, ratios = [], []
    for seed in range(options.seeds):
        torch.manual_seed(seed)
        program = ppgen.VAE(dataset.shape, levels=2)
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            run = ppgen.fit(
                program,
                dataset,
                out=Path(folder) / "run",
                epochs=options.epochs,
                seed=seed,
                progress=False,
                device="cpu",
            )
            ours = time.perf_counter() - start
            training = run.info["training_seconds"]
            start = time.perf_counter()
            found = ppgen.evaluate(run, particles=100, limit=options.limit)
            scoring = time.perf_counter() - start
        hand, copy = by_hand(dataset, options.epochs, seed)
        theirs = ppgen.evaluate(copy, dataset, particles=100, limit=options.limit)
        nats.append(-found.log_likelihood.value)
        ratios.append(training / hand)
        print(
            f"seed {seed}: {nats[-1]:.2f} +- {found.log_likelihood.stderr:.2f} nats; "
            f"fit {ours:.1f} s (training {training:.1f} s), by hand {hand:.1f} s, "
            f"ratio {ratios[-1]:.3f}, its nats {-theirs.log_likelihood.value:.2f}; "
            f"evaluation {scoring:.1f} s",
            flush=True,
        )
    print(
        f"mean {statistics.mean(nats):.2f} nats (spread {min(nats):.2f} to {max(nats):.2f}); "
        f"training time {statistics.median(ratios):.3f} x by hand"
    )
    print(json.dumps({"nats": nats, "ratios": ratios}))


if __name__ == "__main__":
    main()
