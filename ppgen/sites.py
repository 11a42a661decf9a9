"""What a program's traces say: its sites, its data plate, which latents need which guide.

Everything here works on any module with a ``model`` method, whoever wrote it.
"""

import inspect as signatures
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

Batch = tuple[Tensor, ...]

# A full covariance is exact where the posterior is Gaussian and costs its square in memory.
FULL_COVARIANCE_LIMIT = 256


@contextmanager
def isolated() -> Iterator[dict]:
    """Run Pyro with a parameter store of its own, so that none leaks into or out of a program.

    `PyroModule` writes its parameters to Pyro's global store when it is called; a second model
    of the same name would then silently share or ignore them. The store that was filled inside is
    yielded, to be looked at after the block.
    """
    with pyro.get_param_store().scope() as state:
        yield state  # type: ignore[misc]


def accepted(program: nn.Module, batch: Batch) -> Batch:
    """The leading entries of a batch ``(x, *conditions)`` that `program.model` has room for."""
    count = 0
    for parameter in signatures.signature(model_of(program)).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            return batch
        count += parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    return batch[:count]


def model_of(program: nn.Module) -> Callable[..., Any]:
    """The program's model, as a function.

    Raises:
        TypeError: the object has no `model` method.
    """
    model: Any = getattr(program, "model", None)
    if not callable(model):
        raise TypeError(
            f"{type(program).__name__} has no method `model(self, x)`; a program defines its "
            "density there with pyro.sample statements"
        )
    return model


def guide_of(program: nn.Module) -> Callable[..., Any]:
    """The program's guide; one without sites where it has none (a program without latents)."""
    guide: Any = getattr(program, "guide", None)
    return guide if guide is not None else _no_sites


def _no_sites(*batch: Tensor) -> None:
    return None


def device_of(program: nn.Module) -> torch.device:
    """Where a program's parameters are; the CPU if it has none."""
    return next((parameter.device for parameter in program.parameters()), torch.device("cpu"))


def sample_sites(trace: poutine.Trace) -> dict[str, dict]:
    """The random sites of a trace by name, in the order they ran.

    Plate indices are left out, and what `pyro.deterministic` names, which has no density.
    """
    nodes: dict[str, Any] = trace.nodes
    return {
        name: site
        for name, site in nodes.items()
        if site["type"] == "sample"
        and not site_is_subsample(site)
        and not site["infer"].get("_deterministic")
    }


def is_factor(site: dict) -> bool:
    """Whether a site was made by `pyro.factor`: a weight, not an observation."""
    return site["is_observed"] and type(site["fn"]).__name__ == "Unit"


def data_frame(trace: poutine.Trace, batch_size: int) -> Any:
    """The plate over examples: the outermost one of a site, as long as the batch; None if none."""
    for site in sample_sites(trace).values():
        for frame in site["cond_indep_stack"]:
            if frame.vectorized and frame.size == batch_size:
                return frame
    return None


def data_size(trace: poutine.Trace, batch_size: int) -> int:
    """How many examples the traced density speaks of: the data plate's full size."""
    frame = data_frame(trace, batch_size)
    return batch_size if frame is None else int(frame.full_size)


def base(fn: Any) -> Any:
    """A distribution without its `to_event` wrapping."""
    while hasattr(fn, "base_dist") and hasattr(fn, "reinterpreted_batch_ndims"):
        fn = fn.base_dist
    return fn


@dataclass(frozen=True)
class Structure:
    """The sites of a program as one run of its model shows them."""

    observed: tuple[str, ...]
    local: tuple[str, ...]  # latents inside the data plate, one an example
    shared: tuple[str, ...]  # latents outside it: global to the data set
    enumerated: tuple[str, ...]  # latents annotated for exact summation
    factors: tuple[str, ...]
    scaled: tuple[str, ...]  # sites whose log-probability is subsampled or scaled
    data_size: int
    plate: str | None
    plate_dim: int | None  # the data plate's dimension, counted from the right
    nesting: int  # how many dimensions plates take, from the right
    too_small: bool  # whether latents are global and the data plate knows only the batch
    discrete: bool  # whether every observation is a probability rather than a density

    @property
    def latent(self) -> tuple[str, ...]:
        return self.local + self.shared


def structure(program: nn.Module, batch: Batch) -> Structure:
    """Run the model once on a batch and sort its sites. Draws from the global generator."""
    args = accepted(program, batch)
    with isolated(), torch.no_grad():
        trace = poutine.trace(model_of(program)).get_trace(*args)
    frame = data_frame(trace, len(batch[0]))
    found: dict[str, list[str]] = {key: [] for key in Structure.__dataclass_fields__}
    for name, site in sample_sites(trace).items():
        if is_factor(site):
            found["factors"].append(name)
        elif site["is_observed"]:
            found["observed"].append(name)
        else:
            if site["infer"].get("enumerate"):
                if site["infer"]["enumerate"] != "parallel":
                    raise ValueError(
                        f"the site {name!r} is annotated enumerate={site['infer']['enumerate']!r}: "
                        'only infer={"enumerate": "parallel"} is summed out'
                    )
                found["enumerated"].append(name)
            inside = frame is not None and any(
                f.name == frame.name for f in site["cond_indep_stack"]
            )
            found["local" if inside else "shared"].append(name)
        if not (isinstance(site["scale"], (int, float)) and site["scale"] == 1):
            found["scaled"].append(name)
    keys = ("observed", "local", "shared", "enumerated", "factors", "scaled")
    return Structure(
        **{key: tuple(found[key]) for key in keys},
        too_small=False,
        data_size=data_size(trace, len(batch[0])),
        plate=None if frame is None else frame.name,
        plate_dim=None if frame is None else frame.dim,
        nesting=max(
            (
                -f.dim
                for s in sample_sites(trace).values()
                for f in s["cond_indep_stack"]
                if f.vectorized
            ),
            default=0,
        ),
        discrete=all(
            sample_sites(trace)[name]["fn"].support.is_discrete for name in found["observed"]
        ),
    )


def prepare(program: nn.Module, batch: Batch, *, check: bool = True) -> Structure:
    """Complete a program before an optimiser sees its parameters, and refuse what cannot train.

    A program without a guide gets an autoguide where all of its latents are global (a full
    covariance Gaussian up to 256 dimensions, a diagonal one above); lazily made parameters are
    made. Already prepared programs and the random generators are left as they are. With `check`
    the observations are held against the supports of their distributions (a template of zeros may
    lie outside).

    Raises:
        TypeError: the object has no `model` method.
        ValueError: a latent of the data plate has no guide; guide and model do not match; a
            parameter lives in Pyro's global store.
    """
    args = accepted(program, batch)
    if not args:
        raise TypeError(f"{type(program).__name__}.model takes no arguments; it needs the data `x`")
    devices = [batch[0].device] if batch[0].is_cuda else []
    python = random.getstate()
    with torch.random.fork_rng(devices=devices), pyro.validation_enabled(check):
        try:
            return _prepare(program, batch, args)
        finally:
            random.setstate(python)


def _prepare(program: nn.Module, batch: Batch, args: Batch) -> Structure:
    found = structure(program, batch)
    sampled = [name for name in found.latent if name not in found.enumerated]
    if not (found.observed or found.factors):
        sampled = []  # nothing is known of the latents: there is nothing to infer
    if sampled and getattr(program, "guide", None) is None:
        local = [name for name in sampled if name in found.local]
        if local:
            raise ValueError(
                f"the local latent {local[0]!r} of {type(program).__name__} has no guide: define "
                "`guide(self, x)` with a site of the same name, or annotate a discrete site with "
                'infer={"enumerate": "parallel"}; autoguides are for global latents only'
            )
        program.guide = _autoguide(program, found, args)
    with isolated() as store:
        model_trace = poutine.trace(model_of(program)).get_trace(*args)
        guide_trace = poutine.trace(guide_of(program)).get_trace(*args)
    own = {id(parameter) for parameter in program.parameters()}
    for name, value in store["params"].items():
        if id(value) not in own:
            raise ValueError(
                f"pyro.param({name!r}) lives in Pyro's global store, where a saved run cannot "
                "find it: make it an attribute of the module, a PyroParam or nn.Parameter"
            )
    for name in getattr(program, "_pyro_samples", ()):
        if name not in model_trace.nodes and name not in guide_trace.nodes:
            raise ValueError(
                f"the PyroSample {name!r} of {type(program).__name__} made no sample site: "
                "Pyro makes them only in methods decorated with pyro.nn.pyro_method"
            )
    _match(type(program).__name__, sampled, model_trace, guide_trace)
    if found.shared and _batch_only(model_trace, found, len(batch[0])):
        return replace(found, too_small=True)
    return found


def _batch_only(trace: poutine.Trace, found: Structure, size: int) -> bool:
    """Whether the data plate was made without `subsample=`, so that it knows only the batch."""
    if found.data_size != size or found.plate is None or found.plate not in trace.nodes:
        return False
    indices: Any = trace.nodes[found.plate]["value"]
    return not indices.is_floating_point() and torch.equal(
        indices, torch.arange(size, device=indices.device)
    )


def _autoguide(program: nn.Module, found: Structure, args: Batch) -> nn.Module:
    model = model_of(program)
    if found.enumerated:
        model = poutine.block(model, hide=list(found.enumerated))
    with isolated(), torch.no_grad():
        trace = poutine.trace(model_of(program)).get_trace(*args)
    dimensions = sum(
        sample_sites(trace)[name]["value"].numel()
        for name in found.shared
        if name not in found.enumerated
    )
    family = AutoMultivariateNormal if dimensions <= FULL_COVARIANCE_LIMIT else AutoNormal
    return family(model)


def _match(name: str, latent: list[str], model: poutine.Trace, guide: poutine.Trace) -> None:
    guided = sample_sites(guide)
    missing = [site for site in latent if site not in guided]
    if missing:
        raise ValueError(
            f"the guide of {name} has no site {missing[0]!r}, a latent of its model; the guide "
            f"has {sorted(guided) or 'no sites'}"
        )
    known = sample_sites(model)
    for site, node in guided.items():
        if site not in known and not node["infer"].get("is_auxiliary"):
            raise ValueError(
                f"the guide of {name} has a site {site!r} that its model lacks; the model has "
                f"{sorted(known)}. Mark it infer={{'is_auxiliary': True}} if it is meant"
            )


def log_prob(site: dict, *, scaled: bool = True) -> Tensor:
    """A site's log-probability, masked and (unless not asked for) scaled, over its batch shape."""
    value = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    return weighed(value, site, scaled=scaled)


def weighed(value: Tensor, site: dict, *, scaled: bool = True) -> Tensor:
    """What a site contributes, masked and (unless not asked for) scaled as the site is."""
    mask = site["mask"]
    if mask is False:
        return torch.zeros_like(value)
    if isinstance(mask, Tensor):
        value = torch.where(mask, value, torch.zeros_like(value))
    return value * site["scale"] if scaled else value


def first_nonfinite(program: nn.Module, batch: Batch) -> str | None:
    """Name the first site whose value, parameters or log-probability is not finite on a batch."""
    args = accepted(program, batch)
    with isolated(), torch.no_grad(), pyro.validation_enabled(False):
        guide = poutine.trace(guide_of(program)).get_trace(*args)
        model = poutine.trace(poutine.replay(model_of(program), trace=guide)).get_trace(*args)
    for trace, side in ((guide, "guide"), (model, "model")):
        for name, site in sample_sites(trace).items():
            parts = {
                key: value
                for key, value in vars(base(site["fn"])).items()
                if isinstance(value, Tensor) and not key.startswith("_")
            }
            parts |= {"value": site["value"], "log-probability": log_prob(site)}
            for part, value in parts.items():
                if not torch.isfinite(value).all():
                    return f"{name!r} in the {side} ({part})"
    return None
