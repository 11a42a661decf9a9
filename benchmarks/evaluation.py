"""Importance-weighted test likelihood with 100 particles: ours beside Pythae's `get_nll`.

Both score the same network (784-512-latent and back) with the same weights on the same binary
images, in turn in one process on one thread. Pythae is needed only here: `pip install pythae`.

    taskset -c 0 python benchmarks/evaluation.py
"""

import argparse
import statistics
import time
import warnings

import pyro
import torch
from pyro import distributions as dist
from pythae.models import VAE as PythaeVAE
from pythae.models import VAEConfig
from torch import Tensor

import ppgen


class Same(ppgen.Program):
    """Pythae's default VAE as a program: its own encoder and decoder modules."""

    def __init__(self, peer: PythaeVAE, latent_dim: int) -> None:
        super().__init__()
        self.shape, self.latent_dim = (1, 28, 28), latent_dim
        self.encoder, self.decoder = peer.encoder, peer.decoder.layers

    def model(self, x: Tensor) -> None:
        with pyro.plate("batch", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), self.latent_dim), 1.0).to_event(1))
            for layer in self.decoder[:-1]:
                z = layer(z)
            logits = self.decoder[-1][0](z).unflatten(-1, self.shape)  # before the sigmoid
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(3), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("batch", len(x)):
            found = self.encoder(x)
            scale = torch.exp(0.5 * found.log_covariance)
            pyro.sample("z", dist.Normal(found.embedding, scale).to_event(1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--particles", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = ppgen.load_data("mnist", binarize="static")
    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=16, reconstruction_loss="bce")
    peer = PythaeVAE(config).eval()
    program = Same(peer, 16).eval()
    x = data.test.batch(slice(0, options.examples))[0]
    pairs, values = [], []
    for _ in range(options.rounds):
        start = time.perf_counter()
        with torch.no_grad():
            theirs = peer.get_nll(x, n_samples=options.particles, batch_size=options.particles)
        middle = time.perf_counter()
        ours = ppgen.evaluate(program, data, particles=options.particles, limit=options.examples)
        pairs.append((time.perf_counter() - middle, middle - start))
        values.append((ours.log_likelihood.value, float(theirs)))
    ours_s, theirs_s = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(theirs / ours for ours, theirs in pairs)
    print(f"{options.examples} images, {options.particles} particles; nats, ours / Pythae:")
    print("  " + ", ".join(f"{a:.2f} / {b:.2f}" for a, b in values))
    print(f"ours {ours_s:.2f} s, Pythae {theirs_s:.2f} s: {ratio:.2f} x faster")


if __name__ == "__main__":
    main()
