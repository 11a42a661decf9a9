"""Objectives: modules over a program that map a batch to a loss and its titled terms."""

import math
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import ELBO as PyroELBO
from pyro.infer import RenyiELBO, TraceEnum_ELBO
from pyro.infer.util import MultiFrameTensor
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from .likelihood import broadcasts, log_likelihoods, log_weights, own_methods
from .recorded import Recorded
from .scoring import KeepNoise, Term, evaluate_terms, terms_of
from .sites import (
    Batch,
    Structure,
    accepted,
    data_size,
    guide_of,
    isolated,
    log_prob,
    model_of,
    prepare,
    sample_sites,
)

Terms = dict[str, Tensor]


class Objective(Recorded, nn.Module):
    """What one player minimises: ``loss, terms = objective(x, *conditions)``.

    `loss` is a scalar in mean nats per example; `terms` are its unweighted, detached parts by
    title. Subclasses define `forward`. Whatever an objective must remember between steps is a
    buffer, so that it is saved and restored with a run.

    Attributes:
        program: the module with `model` (and `guide`).
        steps: optimiser steps this player takes a turn.
        lr_factor: factor on the learning rate of `fit` for this player.
        betas: of its Adam, decay rates of the averages of the gradient and of its square.
        unit: of the loss.
    """

    steps: int = 1
    lr_factor: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    unit: str = "nats"

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program
        self.structure: Structure | None = None

    def player(self) -> list[nn.Parameter]:
        """The parameters that this objective moves; by default all of the program's."""
        return list(self.program.parameters())

    def prepare(self, *batch: Tensor) -> Structure:
        """Complete and check the program on a batch, once. Leaves the random generators alone."""
        if self.structure is None:
            self.structure = prepare(self.program, batch)
            if self.structure.too_small:
                warnings.warn(
                    f"{type(self.program).__name__} has global latents "
                    f"{list(self.structure.shared)} but its data plate {self.structure.plate!r} is "
                    "only as large as the batch: the posterior will be too wide. Use "
                    "pyro.plate(name, size=data_size, subsample=x)",
                    stacklevel=2,
                )
        return self.structure

    def begin(self, turns: int) -> None:
        """Called by `fit` before training: how many turns there will be, for schedules."""

    def forward(self, *batch: Tensor) -> tuple[Tensor, Terms]:
        """The loss and its terms on a batch ``(x, *conditions)``."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")


class _Bound(Objective):
    """A bound on log p(x), which a program that observes nothing has none of."""

    def prepare(self, *batch: Tensor) -> Structure:
        found = super().prepare(*batch)
        if not (found.observed or found.factors):
            name = type(self.program).__name__
            raise ValueError(
                f"{name} is implicit, it has no observed site: there is no density that "
                f"{type(self).__name__} could bound; leave its own objectives in place"
            )
        return found


class ELBO(_Bound):
    """The negative evidence lower bound, per example.

    loss = E_q[-log p(x|z)] + kl_weight * KL(q(z|x) || p(z)), terms `reconstruction` and `kl`
    (and one title a site where there are several). The KL is closed form where both sides allow
    it; sites without reparameterised draws get the score-function estimator with plate-wise
    Rao-Blackwellisation; discrete sites annotated ``infer={"enumerate": "parallel"}`` are summed
    out by Pyro's `TraceEnum_ELBO` (one term, `negative_elbo`).

    Args:
        program: a module with `model` and, unless its latents are global or absent, `guide`.
        kl_weight: weight of the KL, the beta of the beta-VAE (Higgins et al. 2017).
        kl_warmup: how long the weight rises linearly to `kl_weight` (Bowman et al. 2016): below 1
            a part of the training that `fit` does, from 1 on training steps; 0 for none.
        free_bits: nats an example that each latent site may spend for nothing: its KL, averaged
            over the batch, enters the loss as max(KL, free_bits), and below that is not pushed
            towards zero (Kingma et al. 2016, on inverse autoregressive flow, "free bits").
        particles: draws of the guide an example.
        analytic_kl: take KL terms in closed form where that is valid.

    Raises:
        ValueError: kl_weight, kl_warmup or free_bits < 0, or particles < 1.
    """

    kl_weight: Tensor
    turns: Tensor
    warmup_turns: Tensor

    def __init__(
        self,
        program: nn.Module,
        kl_weight: float = 1.0,
        kl_warmup: float = 0.0,
        particles: int = 1,
        analytic_kl: bool = True,
        free_bits: float = 0.0,
    ) -> None:
        super().__init__(program)
        if kl_weight < 0 or kl_warmup < 0:
            raise ValueError(
                f"kl_weight and kl_warmup must be 0 or more; got {kl_weight} and {kl_warmup}"
            )
        if not 0 <= free_bits < math.inf:
            raise ValueError(f"free_bits must be 0 or more nats; got {free_bits}")
        self.particles = _positive("particles", particles)
        self.kl_warmup = kl_warmup
        self.free_bits = free_bits
        self.weighted = kl_weight != 1 or kl_warmup != 0 or free_bits != 0
        self.analytic_kl = analytic_kl
        self.register_buffer("kl_weight", torch.tensor(float(kl_weight)))
        self.register_buffer("turns", torch.zeros((), dtype=torch.long))
        self.register_buffer(
            "warmup_turns", torch.tensor(float(kl_warmup if kl_warmup >= 1 else 0))
        )

    def begin(self, turns: int) -> None:
        if self.kl_warmup < 1:
            self.warmup_turns.fill_(self.kl_warmup * turns * self.steps)

    def forward(self, *batch: Tensor) -> tuple[Tensor, Terms]:
        structure = self.prepare(*batch)
        weight = self.kl_weight
        if self.kl_warmup and self.training:
            self.turns += 1
            weight = weight * (self.turns / self.warmup_turns.clamp(min=1.0)).clamp(max=1.0)
        if structure.enumerated:
            return self._enumerated(structure, batch)
        particles = [self._particle(batch) for _ in range(self.particles)]
        parts = particles[0].parts
        if self.particles > 1:
            parts = {t: torch.stack([one.parts[t] for one in particles]).mean(0) for t in parts}
        loss = parts.get("reconstruction", weight.new_zeros(()))
        weights = {}
        if "kl" in parts:
            kl = parts["kl"]
            for site in particles[0].latent:
                weights[site] = weight
                if self.free_bits and site in particles[0].model.nodes:
                    # max(KL, free) = KL + max(free - KL, 0), whose gradient is KL's, or none.
                    free = (self.free_bits - parts.get(f"kl/{site}", parts["kl"])).clamp(min=0)
                    kl = kl + free
                    weights[site] = weight * (free.detach() == 0)
            loss = loss + weight * kl
        for one in particles:
            surrogate = _score_function(one.model, one.guide, weights, one.size, one.closed)
            if surrogate is not None:
                loss = loss + (surrogate - surrogate.detach()) / self.particles
        return loss, {title: value.detach() for title, value in parts.items()}

    def _particle(self, batch: Batch) -> "_Particle":
        args = accepted(self.program, batch)
        with isolated():
            with KeepNoise():
                guide = poutine.trace(guide_of(self.program)).get_trace(*args)
            model = poutine.trace(poutine.replay(model_of(self.program), trace=guide)).get_trace(
                *args
            )
        size = data_size(model, len(batch[0]))
        values, terms = evaluate_terms(terms_of(model, guide, self.analytic_kl))
        latent = list(dict.fromkeys(term.site for term in terms if term.kind == "kl"))
        observed = list(dict.fromkeys(term.site for term in terms if term.kind != "kl"))
        titles = ["reconstruction"] if observed else []
        titles += ["kl"] if latent else []
        titles += [f"reconstruction/{site}" for site in observed if len(observed) > 1]
        titles += [f"kl/{site}" for site in latent if len(latent) > 1 and site in model.nodes]
        rows = [[_belongs(term, title) / size for term in terms] for title in titles]
        # (titles, terms) x (terms,): a product and a sum, since autocast would halve a matmul.
        sums = (values.new_tensor(rows) * values).sum(1)
        parts = dict(zip(titles, sums.unbind(), strict=True))
        counts = Counter(term.site for term in terms if term.kind == "kl")
        closed = {site for site, count in counts.items() if count == 1 and site in model.nodes}
        return _Particle(parts, latent, model, guide, size, closed)

    def _enumerated(self, structure: Structure, batch: Batch) -> tuple[Tensor, Terms]:
        if self.weighted:
            raise ValueError("kl_weight must be 1, free_bits 0 with enumerated sites: no KL term")
        if structure.latent == structure.enumerated and len(structure.latent) == 1:
            # A mixture: its exact likelihood, by tensors alone, so that it can be traced.
            logs = log_likelihoods(self.program, structure, batch, 1, broadcast=False)
            loss = -logs.mean()
            return loss, {"negative_elbo": loss.detach()}
        elbo = TraceEnum_ELBO(max_plate_nesting=structure.nesting, num_particles=self.particles)
        return _by_pyro(elbo, self.program, batch)


class PyroObjective(_Bound):
    """Any of Pyro's ELBO objects as an objective, per example, with one term `negative_elbo`.

    Args:
        program: the module with `model` and `guide`.
        elbo: such as ``pyro.infer.RenyiELBO(alpha=0.5, num_particles=8)``.
    """

    def __init__(self, program: nn.Module, elbo: PyroELBO) -> None:
        super().__init__(program)
        self.elbo = elbo

    def prepare(self, *batch: Tensor) -> Structure:
        if isinstance(self.elbo, RenyiELBO):
            _refuse_weights(self.program)
        return super().prepare(*batch)

    def forward(self, *batch: Tensor) -> tuple[Tensor, Terms]:
        self.prepare(*batch)
        return _by_pyro(self.elbo, self.program, batch)


class ImportanceWeightedELBO(_Bound):
    """The importance-weighted bound, per example (Burda, Grosse and Salakhutdinov 2016, eq. 8).

    loss = -E log (1/K) sum_k p(x, z_k) / q(z_k | x), z_k ~ q(z | x); one term,
    `negative_bound`. K = 1 is the ELBO; the bound rises with K towards log p(x).

    Args:
        program: a module with `model` and `guide`, its guide reparameterised.
        particles: K.

    Raises:
        ValueError: particles < 1; when it is run: sites that are subsampled or scaled (the
            average inside the logarithm is then no bound), global latents, or guide sites
            without reparameterised draws.
    """

    def __init__(self, program: nn.Module, particles: int = 8) -> None:
        super().__init__(program)
        self.particles = _positive("particles", particles)
        self._broadcasts: bool | None = None

    def prepare(self, *batch: Tensor) -> Structure:
        if self.structure is not None:
            return self.structure
        name = type(self.program).__name__
        _refuse_weights(self.program)
        found = super().prepare(*batch)
        if found.shared or found.scaled:
            sites = list(found.shared or found.scaled)
            raise ValueError(
                f"an importance-weighted bound needs latents of one example each and unscaled "
                f"sites; {name} has {'global latents' if found.shared else 'scaled sites'} "
                f"{sites}: use ELBO"
            )
        devices = [batch[0].device] if batch[0].is_cuda else []
        with torch.random.fork_rng(devices=devices):
            with isolated(), torch.no_grad():
                guide = poutine.trace(guide_of(self.program)).get_trace(
                    *accepted(self.program, batch)
                )
            for site, node in sample_sites(guide).items():
                if not node["fn"].has_rsample:
                    raise ValueError(
                        f"the guide site {site!r} of {name} has no reparameterised draws, which "
                        "this bound's gradient needs; use ELBO, which has the score function"
                    )
            self._broadcasts = broadcasts(self.program, found, batch)
        return found

    def forward(self, *batch: Tensor) -> tuple[Tensor, Terms]:
        structure = self.prepare(*batch)
        weights = log_weights(
            self.program, structure, batch, self.particles, broadcast=bool(self._broadcasts)
        )  # (K, n)
        bound = torch.logsumexp(weights, 0) - math.log(self.particles)
        loss = -bound.mean()
        return loss, {"negative_bound": loss.detach()}


def _refuse_weights(program: nn.Module) -> None:
    """Refuse importance weighting to a program that has likelihoods of its own."""
    own = own_methods(program)
    if own:
        raise ValueError(
            f"importance weighting is refused to {type(program).__name__}: an average of its "
            "weights estimates no likelihood, since its program is made for the mean of the log "
            f"alone; its log_prob is the {own[0].name}"
        )


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{name} must be 1 or more; got {value}")
    return value


def _belongs(term: Term, title: str) -> float:
    kind = "kl" if term.kind == "kl" else "reconstruction"
    return float(title in (kind, f"{kind}/{term.site}"))


@dataclass(frozen=True)
class _Particle:
    """One run of guide and model."""

    parts: Terms  # with their gradients
    latent: list[str]  # sites with a KL, auxiliary ones of the guide among them
    model: poutine.Trace
    guide: poutine.Trace
    size: int  # of the data that the density speaks of
    closed: set[str]  # sites whose KL is in closed form


def _score_function(
    model: poutine.Trace,
    guide: poutine.Trace,
    weights: dict[str, Tensor],
    size: int,
    closed: set[str],
) -> Tensor | None:
    """The surrogate whose gradient is the score-function estimator; None where none is needed.

    grad E_q f = E_q [f grad log q]; f keeps only the costs that share a site's plates
    (Rao-Blackwellisation), as `Trace_ELBO` does. A KL in closed form has its own gradient, and
    is no cost of its own site.
    """
    sites = [
        (name, site)
        for name, site in sample_sites(guide).items()
        if not site["fn"].has_rsample and log_prob(site).requires_grad
    ]
    if not sites:
        return None
    costs = MultiFrameTensor()
    for trace, sign in ((model, -1.0), (guide, 1.0)):
        for name, site in sample_sites(trace).items():
            kl = trace is guide or not site["is_observed"]
            factor = sign * weights[name] if kl else sign
            costs.add((site["cond_indep_stack"], (factor * log_prob(site)).detach()))
    surrogate = torch.zeros((), device=next(iter(weights.values())).device)
    for name, site in sites:
        cost = costs.sum_to(site["cond_indep_stack"])
        if name in closed:
            own = log_prob(site) - log_prob(sample_sites(model)[name])
            cost = cost - (weights[name] * own).detach()
        surrogate = surrogate + (cost * log_prob(site, scaled=False)).sum()
    return surrogate / size


class _SeeSize(Messenger):
    """Note the full size of the data plate while something else runs the program."""

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.size = batch_size

    def _pyro_post_sample(self, msg: Any) -> None:
        for frame in msg["cond_indep_stack"]:
            if frame.vectorized and frame.size == self.batch_size:
                self.size = int(frame.full_size)


def _by_pyro(elbo: Any, program: nn.Module, batch: Batch) -> tuple[Tensor, Terms]:
    args = accepted(program, batch)
    differentiate = torch.is_grad_enabled()
    # TraceEnum_ELBO refuses to run where gradients are off.
    with isolated(), _SeeSize(len(batch[0])) as seen, torch.enable_grad():
        if hasattr(elbo, "differentiable_loss"):
            loss = elbo.differentiable_loss(model_of(program), guide_of(program), *args)
        else:
            loss = _with_own_gradients(elbo, program, args)
    loss = (loss if differentiate else loss.detach()) / seen.size
    return loss, {"negative_elbo": loss.detach()}


def _with_own_gradients(elbo: Any, program: nn.Module, args: Batch) -> Tensor:
    """The loss of an ELBO that calls `backward` itself, such as RenyiELBO, as one that does not."""
    parameters = [parameter for parameter in program.parameters() if parameter.requires_grad]
    kept = [parameter.grad for parameter in parameters]

    def guide(*args: Tensor) -> Any:
        pyro.module("program", program)  # or Pyro finds nothing to differentiate
        return guide_of(program)(*args)

    try:
        for parameter in parameters:
            parameter.grad = None
        value = elbo.loss_and_grads(model_of(program), guide, *args)
        found = [(parameter, parameter.grad) for parameter in parameters]
    finally:
        for parameter, gradient in zip(parameters, kept, strict=True):
            parameter.grad = gradient
    loss = args[0].new_tensor(value)
    for parameter, gradient in found:
        if gradient is not None:  # adds nothing to the value, and this gradient
            loss = loss + (gradient * (parameter - parameter.detach())).sum()
    return loss


def default_objectives(program: nn.Module) -> dict[str, Objective]:
    """The objectives that `fit` trains a program with: its own, or the ELBO."""
    own = getattr(program, "objectives", None)
    return own() if callable(own) else {"elbo": ELBO(program)}
