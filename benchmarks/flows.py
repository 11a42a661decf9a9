"""Flows over vectors beside Zuko's, normflows' and Pyro's, in one process, one thread.

    taskset -c 0 python benchmarks/flows.py [--parts step moons sample direction] [--digits]

step: one training step, ours as `fit` runs it (a traced graph, clipping, fused Adam) beside a
plain loop over Zuko's flow of the same layers, widths and bins, with Adam as PyTorch has it by
default and fused. moons: test nats after equal steps at equal sizes, all on the same standardised
points, in nats of the data. sample: draws beside Zuko's of the same kind, and our coupling spline
beside our autoregressive one. direction: what a density costs in the slow direction. --digits
(takes minutes): 8x8 digits until the validation nats rise, Zuko's layers in the same program and
so under the same dequantisation.
"""

import argparse
import copy
import json
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import normflows
import pyro
import pyro.distributions.transforms as T
import torch
import zuko
from timing import timed
from torch import Tensor, nn

import ppgen
from ppgen.compile import Compiled
from ppgen.models.flow import Flow
from ppgen.models.vector_flow import IAF, MAF, NeuralSpline, RealNVP
from ppgen.nn.bijections import Chain, Flattened, Inverted, Standardise
from ppgen.nn.transform_adapters import from_pyro, from_zuko
from ppgen.objective import ELBO

HIDDEN = (64, 64)
LAYERS = 4


def ours(kind: str, features: int) -> Flow:
    if kind == "MAF":
        return MAF((features,), layers=LAYERS, hidden=HIDDEN)
    if kind == "RealNVP":
        return RealNVP((features,), layers=LAYERS, hidden=HIDDEN)
    way: Any = "coupling" if kind == "spline, coupling" else "autoregressive"
    return NeuralSpline((features,), kind=way, layers=LAYERS, hidden=HIDDEN)


def zukos(kind: str, features: int) -> nn.Module:
    sizes: dict[str, Any] = {"transforms": LAYERS, "hidden_features": HIDDEN}
    if kind == "MAF":
        return zuko.flows.MAF(features, **sizes)
    if kind == "RealNVP":
        return zuko.flows.RealNVP(features, **sizes)
    if kind == "spline, coupling":
        return zuko.flows.NSF(features, passes=2, **sizes)
    return zuko.flows.NSF(features, **sizes)


def normflowss(kind: str, features: int) -> nn.Module:
    base = normflows.distributions.base.DiagGaussian(features, trainable=False)
    layers: list[nn.Module] = []
    for _ in range(LAYERS):
        parts = normflows.flows
        if kind == "spline, coupling":
            layer = parts.CoupledRationalQuadraticSpline(features, 1, HIDDEN[0], tail_bound=5)
        else:
            layer = parts.AutoregressiveRationalQuadraticSpline(
                features, 1, HIDDEN[0], tail_bound=5, permute_mask=True
            )
        layers += [layer, parts.LULinearPermute(features)]
    return normflows.NormalizingFlow(base, layers)


def pyros(features: int) -> Flow:
    """Pyro's spline flow: one dimension at a time, then one given the other."""
    layers = []
    for _ in range(LAYERS // 2):
        layers.append(from_pyro(T.Spline(features, count_bins=8, bound=5.0)))
        layers.append(from_pyro(T.spline_coupling(features, 1, list(HIDDEN), 8, 5.0)))
        layers.append(from_pyro(T.Permute(torch.arange(features).flip(0))))
    return Flow((features,), Chain(layers))


def stepper(module: nn.Module, loss: Callable, x: Tensor, *, fused: bool, clip: bool) -> Callable:
    optimizer = torch.optim.Adam(module.parameters(), 1e-4, fused=fused)

    def step() -> None:
        optimizer.zero_grad()
        value = loss(x)
        (value[0] if isinstance(value, tuple) else value).backward()
        if clip:
            nn.utils.clip_grad_norm_(module.parameters(), 5.0)
        optimizer.step()

    return step


def steps(options: argparse.Namespace) -> None:
    print(f"\nTraining step, batch {options.batch}, {LAYERS} layers, hidden {HIDDEN}")
    for features in (2, 8, 64):
        x = torch.randn(options.batch, features)
        for kind in ("MAF", "spline, autoregressive", "spline, coupling"):
            mine, theirs = ours(kind, features), zukos(kind, features)

            def peer(x: Tensor, flow: nn.Module = theirs) -> Tensor:
                return -flow().log_prob(x).mean()

            runs = {
                "ours": stepper(mine, Compiled(ELBO(mine)), x, fused=True, clip=True),
                "ours, no clipping": stepper(mine, Compiled(ELBO(mine)), x, fused=True, clip=False),
                "Zuko": stepper(theirs, peer, x, fused=False, clip=False),
                "Zuko, fused Adam": stepper(theirs, peer, x, fused=True, clip=False),
            }
            if options.inductor:
                compiled = Compiled(ELBO(mine), "inductor")
                runs["ours, inductor"] = stepper(mine, compiled, x, fused=True, clip=True)
            if kind != "MAF":
                third = normflowss(kind, features)
                runs["normflows"] = stepper(third, third.forward_kld, x, fused=False, clip=False)
            show(f"D={features:2} {kind}", timed(runs, options.rounds)[0], "Zuko")


def samples(options: argparse.Namespace) -> None:
    print(f"\nSamples, {LAYERS} layers, hidden {HIDDEN}")
    for features in (2, 8, 64):
        for n in (100, 1000):
            spent = {}
            for kind in ("RealNVP", "MAF", "spline, coupling", "spline, autoregressive"):
                mine, theirs = ours(kind, features), zukos(kind, features)

                def peer(flow: nn.Module = theirs, n: int = n) -> Tensor:
                    with torch.no_grad():
                        return flow().sample((n,))

                runs = {"ours": lambda mine=mine, n=n: mine.sample(n), "Zuko": peer}
                long = features == 64 and "autoregressive" in kind
                times, _ = timed(runs, 2 if long else options.rounds)
                show(f"D={features:2} n={n:4} {kind}", times, "Zuko")
                spent[kind] = times
            for theirs in ("ours", "Zuko"):
                for fast, slow in (
                    ("spline, coupling", "spline, autoregressive"),
                    ("RealNVP", "MAF"),
                ):
                    ratio = spent[fast]["ours"] / spent[slow][theirs]
                    print(f"    our {fast} beside {theirs} {slow}: {ratio:.3f} x")


def directions(options: argparse.Namespace) -> None:
    print("\nA training step by direction, one affine autoregressive layer, hidden (64, 64)")
    for features in (2, 16, 64):
        x = torch.randn(options.batch, features)
        sizes: Any = {"layers": 1, "hidden": HIDDEN}
        docstring = Flow((features,), from_pyro(T.affine_autoregressive(features, [64, 64])))
        turned = Flow((features,), Inverted(from_pyro(T.affine_autoregressive(features, [64, 64]))))
        flows = {
            "MAF": MAF((features,), **sizes),
            "IAF": IAF((features,), **sizes),
            "Pyro, as its docstrings": docstring,
            "Pyro, inverted": turned,
        }
        runs = {
            name: stepper(flow, Compiled(ELBO(flow)), x, fused=True, clip=False)
            for name, flow in flows.items()
        }
        show(f"D={features:2}", timed(runs, 10)[0], "MAF")


def moons(options: argparse.Namespace) -> None:
    print(f"\nTwo moons, test nats after {options.steps} steps of 256, {LAYERS} layers, {HIDDEN}")
    data = ppgen.load_data("moons")
    train, test = data.train.batch(slice(None))[0], data.test.batch(slice(None))[0]
    loc, scale = train.mean(0), train.std(0)
    standard, held = (train - loc) / scale, (test - loc) / scale

    def nats(make: Callable[[], tuple[nn.Module, Callable, Callable]], seed: int) -> float:
        torch.manual_seed(seed)
        module, loss, log_prob = make()
        optimizer = torch.optim.Adam(module.parameters(), 3e-3, fused=True)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
        for _ in range(options.steps):
            optimizer.zero_grad()
            value = loss(standard[torch.randint(len(standard), (256,))])
            (value[0] if isinstance(value, tuple) else value).backward()
            nn.utils.clip_grad_norm_(module.parameters(), 5.0)
            optimizer.step()
            scheduler.step()
        with torch.no_grad():
            return -(log_prob(held).mean() - scale.log().sum()).item()

    def of_ours(flow: Flow) -> tuple[nn.Module, Callable, Callable]:
        return flow, Compiled(ELBO(flow)), flow.log_prob

    def of_zuko(kind: str) -> tuple[nn.Module, Callable, Callable]:
        flow = zukos(kind, 2)
        return flow, lambda x: -flow().log_prob(x).mean(), lambda x: flow().log_prob(x)

    def of_normflows(kind: str) -> tuple[nn.Module, Callable, Callable]:
        flow = normflowss(kind, 2)
        return flow, flow.forward_kld, flow.log_prob

    kinds = ("spline, coupling", "spline, autoregressive")
    made: dict[str, Callable] = {}
    for kind in ("RealNVP", "MAF", *kinds):
        made[f"ours, {kind}"] = lambda kind=kind: of_ours(ours(kind, 2))
        made[f"Zuko, {kind}"] = lambda kind=kind: of_zuko(kind)
    for kind in kinds:
        made[f"normflows, {kind}"] = lambda kind=kind: of_normflows(kind)
    made["Pyro, spline"] = lambda: of_ours(pyros(2))
    for name in options.flows or made:
        make = made[name]
        start = time.perf_counter()
        found = [nats(make, seed) for seed in range(options.seeds)]
        spent = (time.perf_counter() - start) / options.seeds
        mean = statistics.mean(found)
        each = " ".join(f"{one:.3f}" for one in found)
        print(f"  {name:36s} {mean:7.3f} nats  ({each})  {spent:5.1f} s a run", flush=True)
        print(json.dumps({"part": "moons", "flow": name, "nats": found}))


def digits(options: argparse.Namespace) -> None:
    print("\nDigits 8x8, 17 levels, uniform dequantisation: trained until validation nats rise")
    data = ppgen.load_data("digits")
    features, sizes = 64, {"hidden": (128, 128)}

    def of_zuko(passes: int | None, layers: int) -> Flow:
        flow = zuko.flows.NSF(
            features, passes=passes, transforms=layers, hidden_features=(128, 128)
        )
        made = [from_zuko(layer) for layer in reversed(flow.transform.transforms)]
        vectors = Chain([*made, Standardise((features,))])
        return Flow(data.shape, Flattened(vectors, data.shape), levels=data.levels)

    made: dict[str, Callable[[], Flow]] = {
        "ours, spline, coupling": lambda: NeuralSpline(data.shape, levels=data.levels, **sizes),
        "ours, spline, autoregressive": lambda: NeuralSpline(
            data.shape, kind="autoregressive", levels=data.levels, **sizes
        ),
        "ours, MAF": lambda: MAF(data.shape, levels=data.levels, **sizes),
        "ours, RealNVP mlp": lambda: RealNVP(
            data.shape, network="mlp", levels=data.levels, **sizes
        ),
        "Zuko, spline, coupling": lambda: of_zuko(2, 8),
        "Zuko, spline, autoregressive": lambda: of_zuko(None, 4),
    }
    for name in options.flows or made:
        torch.manual_seed(0)
        flow = made[name]()
        best: dict[str, Any] = {"loss": float("inf")}
        start = time.perf_counter()

        def watch(run: Any, metrics: Any, best: dict = best, start: float = start) -> bool:
            if metrics["loss"] < best["loss"]:
                state = copy.deepcopy(run.program.state_dict())
                best |= {"loss": metrics["loss"], "epoch": metrics["epoch"], "state": state}
            late = time.perf_counter() - start > options.seconds
            best["end"] = "time" if late else "converged"
            return late or metrics["epoch"] - best["epoch"] >= options.patience

        ppgen.fit(
            flow, data, epochs=options.epochs, device="cpu", progress=False,
            schedule="constant", ema=0.99, on_validation=watch,
        )  # fmt: skip
        flow.load_state_dict(best["state"])
        flow.eval()
        x = data.test.batch(slice(None))[0]
        with torch.no_grad():  # the mean over draws of the dequantisation
            draws = torch.stack([flow.log_prob(x) for _ in range(5)]).mean(0)
        nats, error = -draws.mean().item(), (draws.std() / len(draws) ** 0.5).item()
        times, _ = timed({"sample": lambda flow=flow: flow.sample(100)}, 2)
        spent = time.perf_counter() - start
        print(
            f"  {name:32s} {nats:7.2f} +- {error:.2f} nats  best epoch {best['epoch']:.0f}, "
            f"ended by {best['end']}  {spent:5.0f} s  100 samples {1e3 * times['sample']:.1f} ms",
            flush=True,
        )


def show(title: str, times: dict[str, float], base: str) -> None:
    ratios = "  ".join(
        f"{name} {1e3 * value:.2f} ms ({value / times[base]:.2f} x)"
        for name, value in times.items()
    )
    print(f"  {title:32s} {ratios}", flush=True)
    print(json.dumps({"case": title, "ms": {key: 1e3 * value for key, value in times.items()}}))


def main() -> None:
    parts = {"step": steps, "moons": moons, "sample": samples, "direction": directions}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="*", choices=parts, default=list(parts))
    parser.add_argument("--digits", action="store_true", help="also the digits (minutes)")
    parser.add_argument("--inductor", action="store_true", help="also our inductor mode")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--patience", type=int, default=10, help="epochs without a better one")
    parser.add_argument("--seconds", type=float, default=900, help="at most, a flow of digits")
    parser.add_argument("--flows", nargs="*", help="which of the moons' or digits' flows")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    pyro.enable_validation(False)
    torch.manual_seed(0)
    for name in options.parts:
        parts[name](options)
    if options.digits:
        digits(options)


if __name__ == "__main__":
    main()
