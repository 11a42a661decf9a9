"""Log-likelihoods of any program: exact where it can be, else the importance-weighted bound."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn

from .sites import Batch, Structure, accepted, guide_of, isolated, log_prob, model_of, sample_sites

Kind = Literal["exact", "bound", "estimate"]
Measure = Literal["probability", "density"]


@dataclass(frozen=True)
class Likelihood:
    """A mean log-likelihood with everything needed to compare it honestly.

    Attributes:
        value: mean nats per example.
        stderr: standard error of the mean over examples.
        kind: "exact", "bound" (the truth is at least this) or "estimate".
        measure: "probability" of levels, or "density" (of reals, or of levels taken as reals).
            Unlike measures cannot be ranked.
        method: how it was computed.
        particles: draws of the guide an example, or what else `unit` says.
        examples: how many examples were averaged.
        unit: what the particles are.
    """

    value: float
    stderr: float
    kind: Kind
    measure: Measure
    method: str
    particles: int
    examples: int
    unit: str = "particles"

    def __str__(self) -> str:
        mark = {"exact": "=", "bound": ">=", "estimate": "~"}[self.kind]
        return f"log p(x) {mark} {self.value:.2f} +- {self.stderr:.2f} nats ({self.how})"

    @property
    def how(self) -> str:
        """The method, with its particles where it has any."""
        if self.kind == "exact":
            return self.method
        unit = self.unit if self.particles != 1 else self.unit.removesuffix("s")
        return f"{self.method}, {self.particles} {unit}"


@dataclass(frozen=True)
class Method:
    """A way of its own that a program offers to its log-likelihood; see `Program.likelihoods`.

    Attributes:
        name: of the method.
        kind: of the number.
        measure: of the number.
        terms: `terms(x, *conditions, num_particles=K)` -> title -> nats per example (n,), whose
            sum over the titles is minus the log-likelihood.
        particles: K by default.
        unit: what the K are, in the plural.
        examples: how many examples it is computed on by default; None for all.
        most: the largest K that there is; None for any.
    """

    name: str
    kind: Kind
    measure: Measure
    terms: Callable[..., dict[str, Tensor]]
    particles: int
    unit: str
    examples: int | None = None
    most: int | None = None


def own_methods(program: nn.Module) -> list[Method]:
    """What a program's `likelihoods` gives; nothing of a stranger's."""
    offered: Callable[[], list[Method]] | None = getattr(program, "likelihoods", None)
    return offered() if callable(offered) else []


def kind_of(structure: Structure) -> tuple[Kind, str]:
    """Which kind of number `log_weights` gives for a program, and the method's name."""
    sampled = [name for name in structure.local if name not in structure.enumerated]
    if structure.shared:
        return "estimate", "posterior predictive"
    if sampled:
        return "bound", "importance-weighted"
    return "exact", "enumeration" if structure.enumerated else "density"


def log_weights(
    program: nn.Module, structure: Structure, batch: Batch, particles: int, *, broadcast: bool
) -> Tensor:
    """log p(x, z_k) - log q(z_k | x) of K draws z_k from the guide, shape (K, n), in nats.

    Enumerated sites are summed out. With global latents the draws are of these, and the value is
    log p(x | globals): the log of its mean over K is the posterior predictive density.

    Args:
        broadcast: run all draws in one plate to the left of the program's own; only for
            programs for which `broadcasts` is true. Otherwise the batch is repeated.
    """
    size = len(batch[0])
    if structure.shared:
        draws = [_weights(program, structure, batch, None) for _ in range(particles)]
        return torch.cat(draws)
    if particles == 1:
        return _weights(program, structure, batch, None)
    if broadcast:
        return _weights(program, structure, batch, particles)
    repeated = tuple(part.repeat(particles, *[1] * (part.dim() - 1)) for part in batch)
    return _weights(program, structure, repeated, None).view(particles, size)


def _weights(
    program: nn.Module, structure: Structure, batch: Batch, particles: int | None
) -> Tensor:
    """One run of guide and model: (K, n), where K is 1 without a particle plate."""
    nesting = structure.nesting + (particles is not None)
    model = model_of(program)
    if structure.enumerated:
        model = poutine.enum(model, first_available_dim=-nesting - 1)
    args = accepted(program, batch)
    with isolated():
        if particles is None:
            traces = _traces(model, guide_of(program), args)
        else:
            with pyro.plate("_particles", particles, dim=-nesting):
                traces = _traces(model, guide_of(program), args)
    return _example_sums(structure, *traces, len(batch[0]), particles)


def _traces(model: Callable, guide: Callable, args: Batch) -> tuple[poutine.Trace, poutine.Trace]:
    guide_trace = poutine.trace(guide).get_trace(*args)
    return poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args), guide_trace


def _example_sums(
    structure: Structure,
    model: poutine.Trace,
    guide: poutine.Trace,
    size: int,
    particles: int | None,
) -> Tensor:
    nesting = structure.nesting + (particles is not None)
    kept = {structure.plate_dim} | ({-nesting} if particles is not None else set())
    # Summands and summed-out variables by the plates inside the data plate that they are in.
    groups: dict[frozenset[int], Any] = {frozenset(): 0.0}
    hidden: dict[frozenset[int], list[int]] = {}
    for trace, sign in ((model, 1.0), (guide, -1.0)):
        for site in sample_sites(trace).values():
            frames = site["cond_indep_stack"]
            if (
                structure.shared
                and structure.plate is not None
                and all(frame.name != structure.plate for frame in frames)
            ):
                continue  # a global latent: drawn, not scored
            value = log_prob(site)
            if structure.shared:
                value = value / site["scale"]
            else:  # a subsampled plate weighs its examples for the whole data set: undone here
                for frame in frames:
                    if frame.name == structure.plate:
                        value = value * (frame.size / frame.full_size)
            value = value.reshape((1,) * max(nesting - value.dim(), 0) + value.shape)
            inner = frozenset(f.dim for f in frames if f.vectorized and f.dim not in kept)
            groups[inner] = groups.get(inner, 0.0) + sign * value
            if trace is model and site["infer"].get("_enumerate_dim") is not None:
                hidden.setdefault(inner, []).append(site["infer"]["_enumerate_dim"])
    # From the innermost plates outwards: sum variables out where they live, then the plate.
    for inner in sorted(groups, key=len, reverse=True):
        if not inner:
            break
        value = groups.pop(inner)
        for dim in hidden.get(inner, ()):
            value = value.logsumexp(dim, keepdim=True)
        outer = max((group for group in groups if group < inner), key=len)
        for dim in inner - outer:
            value = value.sum(dim, keepdim=True)
        groups[outer] = groups[outer] + value
    total = groups[frozenset()]
    if not isinstance(total, Tensor):
        raise ValueError("the program has no sites to score")
    enumerated = total.dim() - nesting
    if enumerated > 0:
        total = torch.logsumexp(total.flatten(0, enumerated - 1), 0)
    if structure.plate_dim is None:
        return total.reshape(-1, 1) if size == 1 else _unplated(total, size)
    return total.reshape(particles or 1, size)


def _unplated(total: Tensor, size: int) -> Tensor:
    raise ValueError(
        f"no plate of the program is as long as the batch of {size}, so its density does not "
        'split into examples: put the data sites into pyro.plate("batch", len(x))'
    )


def broadcasts(program: nn.Module, structure: Structure, batch: Batch) -> bool:
    """Whether the program may run many draws in one plate: tried and compared with single runs.

    Networks that flatten or reshape their input by position may fail, or silently mix examples;
    the trial takes two examples and three draws, and scores each draw again on its own.
    """
    if structure.shared or structure.plate_dim is None:
        return False
    small = tuple(part[:2] for part in batch)
    training = program.training
    program.eval()
    try:
        with torch.no_grad(), pyro.validation_enabled(False), isolated():
            dim = -structure.nesting - 1
            model = model_of(program)
            if structure.enumerated:
                model = poutine.enum(model, first_available_dim=dim - 1)
            args = accepted(program, small)
            with pyro.plate("_particles", 3, dim=dim):
                traces = _traces(model, guide_of(program), args)
            together = _example_sums(structure, *traces, len(small[0]), 3)
            if structure.enumerated:
                model = poutine.enum(model_of(program), first_available_dim=dim)
            for k in range(3):
                drawn = traces[1].copy()
                for name, site in sample_sites(drawn).items():
                    drawn.nodes[name] = {**site, "value": site["value"][k]}
                guide = poutine.replay(guide_of(program), trace=drawn)
                single = _example_sums(structure, *_traces(model, guide, args), len(small[0]), None)
                if not torch.allclose(single[0], together[k], rtol=1e-4, atol=1e-3):
                    return False
    except Exception:  # whatever a stranger's network raises: it does not broadcast
        return False
    finally:
        program.train(training)
    return True


def log_likelihoods(
    program: nn.Module,
    structure: Structure,
    batch: Batch,
    particles: int,
    *,
    broadcast: bool,
    chunk: int | None = None,
) -> Tensor:
    """log (1/K) sum_k w_k for each example, shape (n,), in nats; see `log_weights`.

    Args:
        chunk: at most so many draws at once, to bound memory; all by default.
    """
    kind, _ = kind_of(structure)
    count = 1 if kind == "exact" else particles
    parts = []
    for start in range(0, count, chunk or count):
        draws = min(chunk or count, count - start)
        weights = log_weights(program, structure, batch, draws, broadcast=broadcast)
        parts.append(torch.logsumexp(weights, 0))
    return torch.logsumexp(torch.stack(parts), 0) - math.log(count)
