"""Scores the sites of a model and a guide together: one log-density for many sites of one family.

A Pyro trace scores site by site. A chain of fifty Normal sites then costs fifty small kernels
each way; stacked, it costs one. The noise of a reparameterised Normal draw is kept, so that its
own log-density needs no division. Numbers are those of Pyro's `Trace_ELBO`, up to rounding.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from .sites import base, is_factor, log_prob, sample_sites, weighed

LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
# Stacking copies its inputs: it pays while a call costs more than the copy.
STACK_LIMIT = 2**16


class KeepNoise(Messenger):
    """Draw reparameterised Normal sites as loc + noise * scale and keep the noise.

    The generator is read exactly as `Normal.rsample` reads it, so draws are the same numbers.
    """

    def _pyro_sample(self, msg: Any) -> None:
        fn = base(msg["fn"])
        if msg["done"] or msg["value"] is not None or type(fn) is not dist.Normal:
            return
        noise = torch.empty(fn.loc.shape, dtype=fn.loc.dtype, device=fn.loc.device).normal_()
        msg["value"] = fn.loc + noise * fn.scale
        msg["infer"]["_noise"] = noise


def _normal(value: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    return -0.5 * ((value - loc) / scale) ** 2 - scale.log() - LOG_SQRT_2PI


def _normal_at_own_draw(noise: Tensor, scale: Tensor) -> Tensor:
    return -0.5 * noise**2 - scale.log() - LOG_SQRT_2PI


def _normal_kl(loc: Tensor, scale: Tensor, prior_loc: Tensor, prior_scale: Tensor) -> Tensor:
    # KL(q || p) = log(s_p / s_q) + (s_q^2 + (m_q - m_p)^2) / (2 s_p^2) - 1/2
    ratio = (scale / prior_scale) ** 2
    return 0.5 * (ratio + ((loc - prior_loc) / prior_scale) ** 2 - 1 - ratio.log())


@dataclass(frozen=True)
class Term:
    """One summand of the negative ELBO: weight x sum(formula(*tensors))."""

    site: str
    kind: str  # "reconstruction" or "kl"
    weight: float
    formula: Callable[..., Tensor]
    tensors: tuple[Tensor, ...]


def _total(value: Tensor) -> Tensor:
    return value


def _bernoulli_loss(value: Tensor, logits: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, value, reduction="none")


def _full(value: Tensor, shape: torch.Size) -> Tensor:
    """Expanded, and in float32 at least: log-densities are never summed in half precision."""
    value = value.float() if value.dtype in (torch.bfloat16, torch.float16) else value
    return value.expand(shape)


def _plain(site: dict) -> bool:
    """Whether neither a mask nor a scale tensor stands between a site and its density."""
    return site["mask"] is None and isinstance(site["scale"], (int, float))


def terms_of(model: poutine.Trace, guide: poutine.Trace, analytic_kl: bool) -> list[Term]:
    """The summands of the negative ELBO of a pair of traces.

    A latent's KL is taken in closed form where that is valid: the model draws nothing before
    the site that the guide draws after it, so that the prior's parameters are fixed given
    what precedes the site in the guide (the mean-field condition of `TraceMeanField_ELBO`,
    checked site by site).
    """
    terms: list[Term] = []
    in_guide, in_model = sample_sites(guide), sample_sites(model)
    place = {name: index for index, name in enumerate(in_guide)}
    closed: set[str] = set()
    latest = -1
    for name, site in in_model.items():
        if site["is_observed"]:
            kind = "factor" if is_factor(site) else "reconstruction"
            terms.append(_density(name, kind, -1.0, site))
            continue
        first = place.get(name, -1) > latest
        latest = max(latest, place.get(name, -1))
        if analytic_kl and first and name in in_guide:
            kl = _closed_kl(name, in_guide[name], site)
            if kl is not None:
                terms.append(kl)
                closed.add(name)
                continue
        terms.append(_density(name, "kl", -1.0, site))
    for name, site in in_guide.items():
        if name in closed:
            continue
        if site["fn"].has_rsample:
            terms.append(_density(name, "kl", 1.0, site))
        else:  # its gradient is the score function's, and on its own has mean zero
            terms.append(Term(name, "kl", 1.0, _total, (log_prob(site).detach(),)))
    return terms


def _density(name: str, kind: str, sign: float, site: dict) -> Term:
    fn = base(site["fn"])
    if _plain(site):
        scale = float(site["scale"])
        if type(fn) is dist.Normal:
            shape = site["value"].shape
            if sign > 0 and "_noise" in site["infer"]:
                own = (_full(site["infer"]["_noise"], shape), _full(fn.scale, shape))
                return Term(name, kind, sign * scale, _normal_at_own_draw, own)
            parts = (site["value"], fn.loc, fn.scale)
            return Term(name, kind, sign * scale, _normal, tuple(_full(t, shape) for t in parts))
        if type(fn) is dist.Bernoulli and "logits" in vars(fn):
            shape = site["value"].shape
            pair = (site["value"], fn.logits)
            return Term(
                name, kind, -sign * scale, _bernoulli_loss, tuple(_full(t, shape) for t in pair)
            )
    return Term(name, kind, sign, _total, (log_prob(site),))


def _closed_kl(name: str, guide: dict, model: dict) -> Term | None:
    q, p = base(guide["fn"]), base(model["fn"])
    plain = _plain(guide) and _plain(model) and guide["scale"] == model["scale"]
    if plain and type(q) is dist.Normal and type(p) is dist.Normal:
        shape = torch.broadcast_shapes(q.batch_shape, p.batch_shape)
        parts = (q.loc, q.scale, p.loc, p.scale)
        tensors = tuple(_full(part, shape) for part in parts)
        return Term(name, "kl", float(model["scale"]), _normal_kl, tensors)
    if not (plain or guide["fn"].has_rsample):
        return None
    try:
        found = torch.distributions.kl_divergence(guide["fn"], model["fn"])
    except NotImplementedError:
        return None
    value = torch.as_tensor(found, device=guide["value"].device).expand(guide["fn"].batch_shape)
    value = weighed(value, model)
    if not plain:
        # E_q [w_q log q - w_p log p] = w_p KL + (w_q - w_p) E_q log q, where model and guide have
        # masks or weights of their own.
        own = guide["fn"].log_prob(guide["value"])
        value = value + weighed(own, guide) - weighed(own, model)
    return Term(name, "kl", 1.0, _total, (value,))


def evaluate_terms(terms: list[Term]) -> tuple[Tensor, list[Term]]:
    """The signed sum of every term as one vector, and the terms in the vector's order.

    Terms of one formula and shape are stacked and computed by one call.
    """
    groups: dict[tuple, list[Term]] = {}
    for index, term in enumerate(terms):
        shape = term.tensors[0].shape
        stackable = term.formula is not _total and shape.numel() <= STACK_LIMIT
        dtypes = tuple(tensor.dtype for tensor in term.tensors)
        groups.setdefault((term.formula, shape, dtypes) if stackable else (index,), []).append(term)
    sums: list[Tensor] = []
    order: list[Term] = []
    for members in groups.values():
        order += members
        first = members[0]
        if len(members) == 1:
            total = _sum(first.formula, first.tensors)
            sums.append((total if first.weight == 1.0 else total * first.weight).reshape(1))
            continue
        columns = zip(*(term.tensors for term in members), strict=True)
        stacked = [torch.stack(column) for column in columns]
        values = first.formula(*stacked).flatten(1).sum(1)  # (members,)
        sums.append(values * values.new_tensor([term.weight for term in members]))
    return torch.cat(sums), order


def _sum(formula: Callable[..., Tensor], tensors: tuple[Tensor, ...]) -> Tensor:
    if formula is _bernoulli_loss:
        value, logits = tensors
        return F.binary_cross_entropy_with_logits(logits, value, reduction="sum")
    return formula(*tensors).sum()
