"""What a Pyro program's runs tell of it: its sample sites, and which of them depend on which."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import networkx as nx
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.inspect import TrackProvenance, site_is_deterministic
from pyro.ops.provenance import detach_provenance, get_provenance
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from pyro.util import get_rng_state, set_rng_state
from torch.overrides import TorchFunctionMode

from .tables import refuse_cycles

STARTS = 3  # runs of a program from which its sites are changed
FEW = 16  # states that are all tried; of more, and of continuous sites, a few draws are
DRAWS = 4
ASKS_SIZE = {"__get__", "__len__", "dim", "is_complex", "is_floating_point", "numel", "size"}


@dataclass(frozen=True)
class Site:
    """A sample site of one run."""

    fn: Any
    value: Any
    weight: tuple[Any, Any]  # scale and mask of its log-probability
    observed: bool
    plates: tuple[str, ...]
    parents: frozenset[str] = frozenset()  # as provenance tells

    def form(self) -> tuple[Any, ...]:
        fn = self.fn
        return type(bare(fn)), fn.batch_shape, fn.event_shape

    def fits(self) -> bool:
        """Whether the value has the distribution's shape; held, it may not."""
        if not torch.is_tensor(self.value):
            return True
        sizes = zip(reversed(self.value.shape), reversed(self.fn.shape()), strict=False)
        return all(1 in (one, two) or one == two for one, two in sizes)

    def differs(self, other: "Site") -> bool:
        """Whether the distribution is another one, as far as the density at the value tells."""
        if self.form() != other.form():
            return True
        pairs = zip(self.said(self.value), other.said(self.value), strict=True)
        return not all(equal(detach_provenance(a), detach_provenance(b)) for a, b in pairs)

    def said(self, value: Any) -> tuple[Any, ...]:
        """What the site adds to the log-density at a value: log-probability, scale and mask."""
        if self.observed and self.weight[1] is False:
            return ()
        return (self.fn.log_prob(value), *self.weight)

    def others(self) -> list[Any]:
        """Other values to try."""
        if torch.is_tensor(self.value) and not self.value.numel():
            return []  # pyro.factor
        try:
            if self.fn.has_enumerate_support:
                support = self.fn.enumerate_support(expand=True)
                if len(support) <= FEW:
                    return list(detach_provenance(support))
            return [detach_provenance(self.fn.sample()) for _ in range(DRAWS)]
        except NotImplementedError:  # a likelihood that has only a density
            return []


Run = Callable[[Mapping[str, Any], int], tuple[dict[str, Site], set[str]]]


class _Hold(Messenger):
    """Sites take the values given, observed ones too."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.values:
            msg["value"], msg["done"] = self.values[msg["name"]], True


class _Watch(TorchFunctionMode):
    """Collects the sites whose values leave the tensors that carry their provenance."""

    def __init__(self) -> None:
        super().__init__()
        self.left: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = get_provenance([args, kwargs or {}])
        found = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        written = "out" in (kwargs or {}) or (name[-1:] == "_" and name[-2:] != "__")
        lost = written or (name not in ASKS_SIZE and not given <= get_provenance(found))
        if given and lost:
            self.left |= given
        return found


@contextmanager
def undisturbed(program: Any) -> Iterator[None]:
    """Run Pyro and leave seeds, parameters, settings and the program's buffers as they were."""
    owner = program if isinstance(program, torch.nn.Module) else getattr(program, "__self__", None)
    kept = []
    if isinstance(owner, torch.nn.Module):
        for module in owner.modules():
            buffers = module._buffers
            kept += [(buffers, n, b, b.clone()) for n, b in buffers.items() if b is not None]
    store, seeds = pyro.get_param_store(), get_rng_state()
    try:
        with (
            store.scope(store.get_state()),
            torch.random.fork_rng(),
            torch.no_grad(),
            pyro.validation_enabled(False),
        ):
            yield
    finally:
        set_rng_state(seeds)
        with torch.no_grad():
            for buffers, name, buffer, value in kept:
                buffers[name] = buffer.copy_(value)


def runner(program: Callable[..., Any], args: Any, kwargs: Any) -> Run:
    """A program as a function of the values at which to hold sites, and of a seed.

    It gives the sites of a run in order, and those whose values left the tensors.
    """
    return lambda held, seed: _run(program, args, kwargs, held, seed)


def _run(
    program: Any, args: Any, kwargs: Any, held: Mapping[str, Any], seed: int
) -> tuple[dict[str, Site], set[str]]:
    pyro.set_rng_seed(seed)
    watch = _Watch()
    try:
        with _Hold(held), TrackProvenance(), watch:
            trace = poutine.trace(program).get_trace(*args, **kwargs)
    except Exception as error:
        if not held:
            raise
        raise ValueError(
            f"the program fails when some of {', '.join(list(held)[:8])} take other values that "
            f"their distributions allow: {error}"
        ) from error
    drawn: dict[str, Any] = {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not site_is_subsample(site) and not _computed(site)
    }
    sites = {}
    for name, site in drawn.items():
        value, weight = site["value"], (site["scale"], site["mask"])
        plates = tuple(frame.name for frame in site["cond_indep_stack"])
        found = Site(site["fn"], detach_provenance(value), weight, site["is_observed"], plates)
        if found.fits():
            parents = get_provenance(list(found.said(value))) & drawn.keys() - {name}
            found = replace(found, parents=parents)
        sites[name] = found
    return sites, watch.left & drawn.keys()


def dependencies(run: Run) -> nx.DiGraph:
    """The graph of all sites that the runs showed; see `graphs.from_pyro`.

    Raises:
        ValueError: the order of dependence differs between runs.
    """
    graph = nx.DiGraph()
    for seed in range(STARTS):
        free, _ = run({}, seed)
        # Held where it was, so that the program's own random numbers are those of the runs below.
        start, left = run(_values(free), seed)
        _add(graph, start)
        others = {name: site.others() for name, site in start.items()}
        used = {parent for site in start.values() for parent in site.parents}
        silent = [name for name in start if name not in used | left and others[name]]
        suspects = [(name, start) for name in start if name in left]
        # Most of the silent have no children, which one run for all of them together shows.
        for turn in range(max((len(others[name]) for name in silent), default=0)):
            changes = {name: others[name][turn % len(others[name])] for name in silent}
            after, _ = run(_values(start) | changes, seed)
            if _changed(start, after):
                suspects += [(name, start) for name in silent]
                break
        queued = {name for name, _ in suspects}
        for name, base in suspects:  # grows while it is gone through
            for other in base[name].others():
                after, left = run(_values(base) | {name: other}, seed)
                _add(graph, after)
                found = [(name, child) for child in _changed(base, after) - {name}]
                news = any(not graph.has_edge(*edge) for edge in found)
                graph.add_edges_from(found)
                # What leaves its tensor only now has to be changed from here; and where a change
                # was news, all else too: of several conditions each may count only with the rest.
                again = left - {name} if news else left - queued
                suspects += [(n, after) for n in after if n in again]
                queued |= left
    refuse_cycles(graph)
    return graph


def _values(sites: Mapping[str, Site]) -> dict[str, Any]:
    return {name: site.value for name, site in sites.items()}


def _add(graph: nx.DiGraph, sites: Mapping[str, Site]) -> None:
    for name, site in sites.items():
        if name not in graph:
            kind = type(bare(site.fn)).__name__
            graph.add_node(name, observed=site.observed, plates=site.plates, distribution=kind)
        graph.add_edges_from((parent, name) for parent in site.parents)


def _changed(start: Mapping[str, Site], after: Mapping[str, Site]) -> set[str]:
    """The sites that are new, gone, or of another distribution."""
    both = start.keys() & after.keys()
    return (start.keys() ^ after.keys()) | {n for n in both if start[n].differs(after[n])}


def _computed(site: Mapping[str, Any]) -> bool:
    """Whether a site is a function of others, not a draw."""
    latent_delta = type(bare(site["fn"])).__name__ == "Delta" and not site["is_observed"]
    return latent_delta or site_is_deterministic(dict(site))


def bare(fn: Any) -> Any:
    """A distribution without its `to_event`, `expand` and `mask`."""
    while isinstance(fn, (dist.Independent, dist.ExpandedDistribution, dist.MaskedDistribution)):
        fn = fn.base_dist
    return fn


def equal(one: Any, two: Any) -> bool:
    if not (torch.is_tensor(one) and torch.is_tensor(two)):
        return type(one) is type(two) and one == two
    return one.shape == two.shape and bool(((one == two) | (one.isnan() & two.isnan())).all())
