"""Diffusion: a training step, sampling beside lucidrains and diffusers, and what bf16 changes.

On a CPU all calls are interleaved in one process, their processor time is taken, and the ratios
are medians over the pairs.

    taskset -c 0 python benchmarks/diffusion.py step       # beside a bare loop in PyTorch
    taskset -c 0 python benchmarks/diffusion.py sampling   # beside the peers that are installed
    taskset -c 0 python benchmarks/diffusion.py frechet    # samples in float32 and in bf16
    python benchmarks/diffusion.py gpu                     # images a second, share of the peak

The peers are `denoising-diffusion-pytorch` and `diffusers`; where torchvision, accelerate or
pytorch_fid are missing, of which sampling uses nothing, empty modules stand in for them.
"""

import argparse
import copy
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import MagicMock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import ppgen
from ppgen.compile import Compiled
from ppgen.nn.schedules import TableSchedule
from ppgen.objective import default_objectives

Call = Callable[[], Any]
STEPS = 50


def in_turn(calls: dict[str, Call], rounds: int, warm: int = 2) -> dict[str, list[float]]:
    """Processor seconds of calls taken in turn."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(warm + rounds):
        for name, call in calls.items():
            start = time.process_time()
            call()
            if turn >= warm:
                spent[name].append(time.process_time() - start)
    return spent


def table(title: str, spent: dict[str, list[float]], against: Sequence[str]) -> None:
    print(f"\n{title}")
    for name, times in spent.items():
        ratios = (
            f"{statistics.median(a / b for a, b in zip(times, spent[base], strict=True)):6.3f} x "
            f"{base}"
            for base in against
        )
        print(f"  {name:24s} {1e3 * statistics.median(times):9.1f} ms  {'  '.join(ratios)}")


def awake(network: nn.Module) -> nn.Module:
    """A fresh U-Net answers exactly zero: give its last layer weights."""
    nn.init.normal_(network.last.weight, std=0.01)  # type: ignore[arg-type, union-attr]
    return network


# One training step


def bare_loss(network: nn.Module, schedule: TableSchedule) -> Callable[[Tensor], Tensor]:
    """The noise's squared error as a textbook's loop has it."""
    abar = torch.sigmoid(schedule.steps)
    count = len(abar) - 1

    def loss(x: Tensor) -> Tensor:
        x0 = 2 * x - 1
        step = torch.randint(1, count + 1, (len(x),), device=x.device)
        share = abar.to(x.device)[step][:, None, None, None]  # (n, 1, 1, 1)
        noise = torch.randn_like(x0)
        x_t = share.sqrt() * x0 + (1 - share).sqrt() * noise
        return F.mse_loss(network(x_t, step / count), noise)

    return loss


def stepper(module: nn.Module, loss: Callable, x: Tensor, bf16: bool = False) -> Call:
    optimizer = torch.optim.Adam(module.parameters(), 1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            value = loss(x)
        (value[0] if isinstance(value, tuple) else value).backward()
        optimizer.step()

    return step


def objective(program: ppgen.Diffusion) -> Compiled:
    return Compiled(next(iter(default_objectives(program).values())))


def step(shape: tuple[int, ...], batch: int, rounds: int) -> None:
    torch.manual_seed(0)
    x = torch.randint(0, 256, (batch, *shape)) / 255
    first = ppgen.Diffusion(shape, levels=256)
    awake(first.network)
    network = copy.deepcopy(first.network)
    calls = {"bare loop": stepper(network, bare_loss(network, first.schedule), x)}
    for weighting in ("elbo", "simple", "min_snr"):
        program = ppgen.Diffusion(shape, levels=256, weighting=weighting)
        program.load_state_dict(first.state_dict())
        calls[weighting] = stepper(program, objective(program), x)
    table(f"training step, {shape}, batch {batch}", in_turn(calls, rounds), ["bare loop"])


# Sampling


def lucidrains(network: nn.Module, shape: tuple[int, ...], n: int) -> Call:
    missing = [
        name + part
        for name in ("torchvision", "accelerate", "pytorch_fid")
        for part in ("", ".transforms", ".fid_score", ".inception")
        if importlib.util.find_spec(name) is None
    ]
    sys.modules.update({name: MagicMock() for name in missing})
    try:
        from denoising_diffusion_pytorch import GaussianDiffusion
    finally:
        for name in missing:
            del sys.modules[name]

    class Network(nn.Module):
        """Our network with the attributes and the steps 0..T-1 that GaussianDiffusion knows."""

        channels = out_dim = shape[0]
        self_condition = False

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Tensor, t: Tensor, x_self_cond: None = None) -> Tensor:
            return self.network(x, (t + 1) / 1000)

    options = {"beta_schedule": "linear", "objective": "pred_noise", "sampling_timesteps": STEPS}
    process = GaussianDiffusion(Network(), image_size=shape[1], **options).eval()
    return lambda: process.sample(batch_size=n)


def diffusers_ddim(network: nn.Module, shape: tuple[int, ...], n: int) -> Call:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
    scheduler.set_timesteps(STEPS)

    @torch.inference_mode()
    def sample() -> Tensor:
        x = torch.randn(n, *shape)
        for t in scheduler.timesteps:
            noise = network(x, ((t + 1) / 1000).expand(n))
            x = scheduler.step(noise, t, x).prev_sample
        return x

    return sample


def half(call: Call) -> Call:
    def run() -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return call()

    return run


def sampling(shape: tuple[int, ...], n: int, rounds: int) -> None:
    torch.manual_seed(0)
    program = ppgen.Diffusion(shape, levels=256).eval()
    ordinary = copy.deepcopy(awake(program.network)).to(memory_format=torch.contiguous_format)
    counted = _count_calls(ordinary, program.network)

    def ours(precision: str) -> Call:
        return lambda: program.sample(
            n, mean=True, sampler="ddim", steps=STEPS, precision=precision, progress=False
        )

    calls: dict[str, Call] = {"ours": ours("32-true"), "ours, bf16": ours("bf16-mixed")}
    against = []
    for name, peer in (("lucidrains", lucidrains), ("diffusers", diffusers_ddim)):
        try:
            call = peer(ordinary, shape, n)
        except ImportError as error:
            print(f"{name} is left out: {error}")
            continue
        against.append(name)
        calls |= {name: call, f"{name}, bf16": half(call)}
    against += [f"{name}, bf16" for name in against]
    spent = in_turn(calls, rounds, warm=0)
    if len(counted) != STEPS * rounds * len(calls):
        raise RuntimeError(f"the network was called {len(counted)} times")
    table(f"{n} images of {shape}, {STEPS} steps of ddim", spent, against)


def _count_calls(*networks: nn.Module) -> list[int]:
    calls: list[int] = []
    for network in networks:
        network.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


# What bf16 changes


def frechet_distance(one: Tensor, other: Tensor) -> float:
    """|m - m'|^2 + tr(S + S' - 2 (S S')^(1/2)) of the Gaussians fitted to two sets of features."""
    apart = (one.mean(0) - other.mean(0)).square().sum()
    s, t = one.T.cov(), other.T.cov()
    roots = torch.linalg.eigvals(s @ t).real.clamp(min=0).sqrt().sum()
    return float(apart + s.trace() + t.trace() - 2 * roots)


def classifier(x: Tensor, y: Tensor, seconds: float = 20.0) -> nn.Sequential:
    """A small convolutional network trained on the digits; all but its last layer are features."""
    side = x.shape[-1] // 4
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(32 * side**2, 32), nn.ReLU(), nn.Linear(32, 10),
    )  # fmt: skip
    optimizer, start = torch.optim.Adam(network.parameters(), 2e-3), time.process_time()
    while time.process_time() - start < seconds:
        index = torch.randint(len(x), (128,))
        optimizer.zero_grad()
        F.cross_entropy(network(x[index]), y[index]).backward()
        optimizer.step()
    return network.eval()


def frechet(source: str, size: int, seconds: float, n: int, seeds: int) -> None:
    torch.manual_seed(0)
    data = ppgen.load_data(source, size=size)
    (x, y), (held_x, held_y) = (split.batch(slice(None)) for split in (data.train, data.test))
    network = classifier(x, y)
    with torch.no_grad():
        right = (network(held_x).argmax(1) == held_y).float().mean()
    print(f"features of a classifier with {right:.1%} of the test digits right")

    program = ppgen.Diffusion(data.shape, levels=256, channels=16, weighting="simple")
    average = torch.optim.swa_utils.AveragedModel(
        program, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995)
    )
    compiled, start, count = objective(program), time.process_time(), 0
    optimizer = torch.optim.Adam(program.parameters(), 2e-3, fused=True)
    while time.process_time() - start < seconds:
        optimizer.zero_grad()
        compiled(x[torch.randint(len(x), (128,))])[0].backward()
        optimizer.step()
        average.update_parameters(program)
        count += 1
    program = average.module.eval()
    print(f"{count} training steps of batch 128; {n} samples of {STEPS} steps of ddim a set")

    @torch.no_grad()
    def features(x: Tensor) -> Tensor:
        return network[:-1](x).double()

    truth = features(held_x)
    print(f"training set against test set: {frechet_distance(features(x), truth):.3f}")
    drawn: dict[tuple[int, str], Tensor] = {}
    for seed in range(seeds):
        for precision in ("32-true", "bf16-mixed"):
            images = program.sample(
                n, mean=True, sampler="ddim", steps=STEPS, precision=precision, seed=seed
            )
            drawn[seed, precision] = found = features(images)
            print(f"seed {seed}, {precision:10s}: {frechet_distance(found, truth):.3f}", flush=True)
    for seed in range(seeds):
        one, other = drawn[seed, "32-true"], drawn[seed, "bf16-mixed"]
        print(f"seed {seed}, 32-true against bf16-mixed: {frechet_distance(one, other):.4f}")
        for later in range(seed + 1, seeds):
            other = drawn[later, "32-true"]
            print(f"32-true, seed {seed} against {later}: {frechet_distance(one, other):.4f}")


# A GPU


def gpu(device: str, sizes: Sequence[int], batch: int, rounds: int) -> None:
    cuda = device.startswith("cuda")

    def seconds(call: Call) -> float:
        for _ in range(3):  # tracing, and the choice of kernels
            call()
        if cuda:
            torch.cuda.synchronize()
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            call()
            if cuda:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    side = 8192 if cuda else 512
    a, b = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    peak = 2 * side**3 / seconds(lambda: a @ b)
    print(torch.cuda.get_device_name(device) if cuda else "CPU")
    print(f"peak: {peak / 1e12:.2f} TFLOP/s, of a bf16 product of {side} x {side} matrices")
    for size in sizes:
        shape = (3, size, size)
        program = ppgen.Diffusion(shape, levels=256).to(device)
        awake(program.network)
        x = torch.randint(0, 256, (batch, *shape), device=device) / 255

        def sample(program: ppgen.Diffusion = program) -> Tensor:
            return program.sample(
                batch, mean=True, sampler="ddim", steps=STEPS, precision="bf16-mixed"
            )

        plain = stepper(program, default_objectives(program)["elbo"], x, bf16=True)
        traced = stepper(program, objective(program), x, bf16=True)
        for name, call, counted in (("step", traced, plain), ("sampling", sample, sample)):
            with FlopCounterMode(display=False) as flops:
                counted()
            taken = seconds(call)
            share = flops.get_total_flops() / taken / peak
            print(
                f"{size} x {size}, batch {batch}, {name}: {batch / taken:,.0f} images a second, "
                f"{share:.1%} of the peak"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("step", "sampling", "frechet", "gpu"))
    parser.add_argument("--shape", type=int, nargs=3, default=(3, 32, 32))
    parser.add_argument("--batch", type=int, help="64 for step, 16 for sampling, 256 for gpu")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--data", default="mnist", help="of frechet")
    parser.add_argument("--size", type=int, default=16, help="of frechet")
    parser.add_argument("--seconds", type=float, default=170.0, help="of training, frechet")
    parser.add_argument("--samples", type=int, default=2000, help="of a set, frechet")
    parser.add_argument("--seeds", type=int, default=3, help="of frechet")
    parser.add_argument("--device", default="cuda", help="of gpu")
    parser.add_argument("--sizes", type=int, nargs="+", default=(32, 64), help="of gpu")
    options = parser.parse_args()
    shape = tuple(options.shape)
    if options.what == "gpu":
        gpu(options.device, options.sizes, options.batch or 256, options.rounds)
        return
    torch.set_num_threads(1)
    if options.what == "step":
        step(shape, options.batch or 64, options.rounds)
    elif options.what == "sampling":
        sampling(shape, options.batch or 16, options.rounds)
    else:
        frechet(options.data, options.size, options.seconds, options.samples, options.seeds)


if __name__ == "__main__":
    main()
