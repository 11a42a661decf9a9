"""One training step: ours beside hand-written PyTorch, Pyro's `SVI.step` and Pyro's JIT.

Three programs: a VAE 784-400-20, a Markov hierarchy of five layers, a chain of fifty sites with
tied networks. All steps are interleaved in one process, and medians are compared.

    taskset -c 0 python benchmarks/svi_step.py
"""

import argparse
import json
import math
import statistics
import time
import warnings
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.infer import SVI, JitTrace_ELBO, Trace_ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppgen.compile import Compiled
from ppgen.objective import ELBO

LATENT = 20
CONSTANT = -0.5 * math.log(2 * math.pi)


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


class Chain(PyroModule):
    """z_T -> ... -> z_1 -> x with the bottom-up guide q(z_1 | x) prod q(z_t+1 | z_t)."""

    def __init__(self, layers: int, hidden: int, tied: bool) -> None:
        super().__init__()
        self.layers, count = layers, 1 if tied else layers - 1
        self.encoder, self.decoder = mlp(784, hidden, 2 * LATENT), mlp(LATENT, hidden, 784)
        self.up = nn.ModuleList(mlp(LATENT, hidden, 2 * LATENT) for _ in range(count))
        self.down = nn.ModuleList(mlp(LATENT, hidden, 2 * LATENT) for _ in range(count))

    def q(self, t: int, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.up[t % len(self.up)](z).chunk(2, -1)

    def p(self, t: int, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.down[t % len(self.down)](z).chunk(2, -1)

    def model(self, x: Tensor) -> None:
        with pyro.plate("batch", len(x)):
            zeros = x.new_zeros(len(x), LATENT)
            prior = dist.Normal(zeros, torch.ones_like(zeros)).to_event(1)
            z = pyro.sample(f"z{self.layers}", prior)
            for t in range(self.layers - 2, -1, -1):
                loc, log_scale = self.p(t, z)
                z = pyro.sample(f"z{t + 1}", dist.Normal(loc, log_scale.exp()).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("batch", len(x)):
            loc, log_scale = self.encoder(x).chunk(2, -1)
            z = pyro.sample("z1", dist.Normal(loc, log_scale.exp()).to_event(1))
            for t in range(self.layers - 1):
                loc, log_scale = self.q(t, z)
                z = pyro.sample(f"z{t + 2}", dist.Normal(loc, log_scale.exp()).to_event(1))

    def by_hand(self, x: Tensor) -> Tensor:
        loc, log_scale = self.encoder(x).chunk(2, -1)
        if self.layers == 1:
            z = loc + torch.randn_like(loc) * log_scale.exp()
            kl = 0.5 * (loc**2 + (2 * log_scale).exp() - 1 - 2 * log_scale).sum()
            nll = F.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum")
            return (nll + kl) / len(x)
        noise = torch.randn_like(loc)
        zs = [loc + noise * log_scale.exp()]
        loss = (CONSTANT - log_scale - 0.5 * noise * noise).sum()
        for t in range(self.layers - 1):
            loc, log_scale = self.q(t, zs[-1])
            noise = torch.randn_like(loc)
            zs.append(loc + noise * log_scale.exp())
            loss = loss + (CONSTANT - log_scale - 0.5 * noise * noise).sum()
        loss = loss - (CONSTANT - 0.5 * zs[-1] ** 2).sum()
        for t in range(self.layers - 2, -1, -1):
            loc, log_scale = self.p(t, zs[t + 1])
            standard = (zs[t] - loc) * (-log_scale).exp()
            loss = loss - (CONSTANT - log_scale - 0.5 * standard**2).sum()
        nll = F.binary_cross_entropy_with_logits(self.decoder(zs[0]), x, reduction="sum")
        return (loss + nll) / len(x)


def stepper(module: nn.Module, loss: Callable, x: Tensor, fused: bool = True) -> Callable:
    optimizer = torch.optim.Adam(module.parameters(), 1e-4, fused=fused)

    def step() -> None:
        optimizer.zero_grad()
        value = loss(x)
        (value[0] if isinstance(value, tuple) else value).backward()
        optimizer.step()

    return step


def svi(program: Chain, elbo: object, x: Tensor, name: str) -> Callable:
    def model(x: Tensor) -> None:
        pyro.module(name, program)
        program.model(x)

    engine = SVI(model, program.guide, pyro.optim.Adam({"lr": 1e-4}), elbo)
    return lambda: engine.step(x)


def cuda_graphed(program: Chain, x: Tensor) -> Callable:
    optimizer = torch.optim.Adam(program.parameters(), 1e-4, fused=True, capturable=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        program.by_hand(x).backward()
        optimizer.step()

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument(
        "--inductor", action="store_true", help="also our inductor mode (slow start)"
    )
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    pyro.enable_validation(False)
    torch.manual_seed(0)
    x = (torch.rand(options.batch, 784) > 0.8).float().to(options.device)
    cuda = x.is_cuda
    print(torch.cuda.get_device_name() if cuda else "CPU, one thread", f"batch {options.batch}")

    for name, layers, hidden, tied in (
        ("VAE", 1, 400, True),
        ("hierarchy of 5", 5, 400, False),
        ("chain of 50, tied", 50, 128, True),
    ):
        programs = [Chain(layers, hidden, tied).to(options.device) for _ in range(7)]
        hand = stepper(programs[0], programs[0].by_hand, x)
        elbo = TraceMeanField_ELBO() if layers == 1 else Trace_ELBO()
        runs: dict[str, Callable] = {
            "by hand, fused Adam": hand,
            "by hand, plain Adam": stepper(programs[1], programs[1].by_hand, x, fused=False),
            "ours": stepper(programs[2], Compiled(ELBO(programs[2])), x),
            "ours, not compiled": stepper(programs[3], ELBO(programs[3]), x),
            "SVI.step": svi(programs[4], elbo, x, name),
        }
        if not cuda:
            runs["SVI.step, JitTrace"] = svi(programs[5], JitTrace_ELBO(), x, name + " jit")
        if cuda:
            runs["by hand, CUDA graph"] = cuda_graphed(programs[5], x)
        if options.inductor:
            runs["ours, inductor"] = stepper(
                programs[6], Compiled(ELBO(programs[6]), "inductor"), x
            )
        times: dict[str, list[float]] = {key: [] for key in runs}
        for _ in range(options.rounds + 5):
            for key, run in runs.items():
                start = time.perf_counter()
                run()
                if cuda:
                    torch.cuda.synchronize()
                times[key].append(time.perf_counter() - start)
        medians = {key: statistics.median(value[5:]) for key, value in times.items()}
        base = medians["by hand, fused Adam"]
        print(f"\n{name}")
        for key, value in medians.items():
            print(
                f"  {key:22s} {1e3 * value:8.2f} ms   {value / base:5.2f} x by hand, fused   "
                f"{value / medians['SVI.step']:5.2f} x SVI.step   first {times[key][0]:5.2f} s"
            )
        print(json.dumps({"program": name, "batch": options.batch, "ms": medians}))


if __name__ == "__main__":
    main()
