"""Between Bayesian networks and Pyro programs: a network as a program, a program as a graph."""

import itertools
import math
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import networkx as nx
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.ops.provenance import detach_provenance

from .ancestral import topological_order
from .directed import LARGEST_JOINT
from .inspection import Run, Site, bare, dependencies, equal, runner, undisturbed
from .tables import Factor, Variable, bayesian, directed_tables

LARGEST_DIM = 64  # of a torch tensor
ALL = 512  # joint configurations up to which each of them is run
CHECKS = 64  # beyond: runs more, with all sites at random, in which every column has to come again


def to_pyro(bn: Any) -> Callable[[], dict[str, torch.Tensor]]:
    """A Pyro program with one site a variable: x_i ~ Categorical(p(x_i | pa_i)).

    Its sites are named `str(variable)` and run in topological order; values are state indices, in
    the order of `graphs.tables_of(bn).states`. Handlers and inference of Pyro apply as they are::

        program = to_pyro(graphs.load("asia"))
        seen = pyro.condition(program, data={"xray": torch.tensor(0)})
        elbo = TraceEnum_ELBO(max_plate_nesting=0)
        elbo.compute_marginals(config_enumerate(seen), lambda: None)["tub"].probs

    Parallel enumeration gives each unobserved variable a dimension of its own, and a tensor of
    torch has 64, one of which the states take: up to 63 variables can be enumerated. Without
    enumeration (sampling, SVI with a guide for all variables) networks of any size run. A variable
    with a single state is best observed: Pyro's `compute_marginals` fails on an axis of length 1.

    Args:
        bn: a Bayesian network.

    Returns:
        A function of no arguments. It returns the values by site name; tables are float64, and
        zeros in them have log-probability -inf.

    Raises:
        TypeError: not a Bayesian network; when run, an observation that is no state index.
        ValueError: two variables of one name, or a name that Pyro's traces keep for themselves;
            when run, more than 63 variables to enumerate.
    """
    tables = directed_tables(bn)
    names = {variable: str(variable) for variable in tables.states}
    first: dict[str, Variable] = {}
    for variable, name in names.items():
        if first.setdefault(name, variable) != variable:
            raise ValueError(
                f"sites are named by their variables' text, and {first[name]!r} and {variable!r} "
                f"are both {name!r}; rename one"
            )
        if name in ("_INPUT", "_RETURN"):
            raise ValueError(f"{name} is a name that Pyro's traces use; rename the variable")
    order = topological_order(tables.graph())
    parents = {variable: tables.parents(variable) for variable in order}
    logits = {}
    with np.errstate(divide="ignore"):
        for variable in order:  # (parents..., states)
            table = np.moveaxis(np.log(tables.conditional(variable)), 0, -1)
            logits[variable] = torch.from_numpy(np.ascontiguousarray(table))

    def program() -> dict[str, torch.Tensor]:
        values: dict[Variable, torch.Tensor] = {}
        for variable in order:
            given = tuple(values[parent] for parent in parents[variable])
            # Enumerated values differ in their dimensions; indexing broadcasts them.
            site = dist.Categorical(logits=logits[variable][given])
            value = pyro.sample(names[variable], site)
            if not torch.is_tensor(value) or value.is_floating_point():
                raise TypeError(
                    f"a value of {variable} is a state index, such as torch.tensor(0) for "
                    f"{tables.states[variable][0]}; got {value!r}"
                )
            if value.dim() >= LARGEST_DIM:
                raise ValueError(
                    f"at {variable} enumeration needs more than {LARGEST_DIM - 1} dimensions, one "
                    f"for each unobserved variable (there are {len(order)} variables): observe "
                    "more of them, or use graphs.JunctionTree"
                )
            values[variable] = value
        return {names[variable]: value for variable, value in values.items()}

    return program


def from_pyro(program: Callable[..., Any], *args: Any, **kwargs: Any) -> nx.DiGraph:
    """The graph of a Pyro program: its sample sites, and what the distribution of each is given.

    The program runs a few times. Pyro's provenance tracking (`pyro.infer.inspect`) follows each
    sampled value through torch's operations to the distributions of later sites. A value that
    leaves the tensors (`.item()`, `if z:`, an index into a list, `m[0] = z`, `torch.tensor([z])`)
    or reaches no site is followed by intervention: the site takes other values while all others
    keep theirs, and what then changes its distribution, appears or is gone, depends on it. What
    only shows in rare combinations of other values can be missed; an operation that drops the
    value (`torch.zeros_like(z)`), or a program that runs unlike from call to call, gives edges too
    many. Data that the program reads from its arguments are constants: an edge from an observed y
    is seen where the program goes on with the value that `pyro.sample(..., obs=y)` returns.

    A site inside a vectorised plate is one node for all its elements. `pyro.deterministic` sites
    and latent Delta sites, such as those of automatic guides, are computed, not drawn: they are
    left out, and what uses them depends on what they are computed from. A `pyro.factor` site is an
    observed node of distribution "Unit" below the values it weighs: the density is then the product
    of the distributions and the factors, and independence holds given all factors.

    Args:
        program: a function, a method such as `vae.model`, or a PyroModule.
        args, kwargs: what it is called with.

    Returns:
        Nodes in the order of the run, with the attributes `observed`, a bool; `plates`, the names
        of the plates around, outermost first; `distribution`, the name of its class. Seeds,
        parameters and buffers of modules are as before the call.

    Raises:
        ValueError: the program fails when a site takes another value, or the order of dependence
            changes between runs.

    Source: Wingate et al. (2011), Nonstandard interpretations of probabilistic programs.
    """
    with undisturbed(program):
        return dependencies(runner(program, args, kwargs))


def to_bayesian_network(program: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The Bayesian network of a Pyro program whose sites are all discrete with finite support.

    One variable a site, p(site | its parents in `from_pyro`) for every state of the parents, found
    by running the program with the parents held there. The states are the numbers that the site
    takes (for one-hot vectors the place of the one). Probabilities are read from the distribution,
    not through the clamped logarithms of torch, so that zeros stay zeros.

    Observed sites keep their tables; the state is the node's attribute `observed_state`::

        evidence = {v: s for v, s in model.nodes(data="observed_state") if s is not None}

    Sites with several elements, in a vectorised plate or without, are refused: which element
    depends on which cannot be told from one sample statement for all. A sequential plate,
    `for i in pyro.plate("p", 3): pyro.sample(f"x{i}", ...)`, gives one variable an element.

    Returns:
        pgmpy's `DiscreteBayesianNetwork`.

    Raises:
        ValueError: a site without finite support, with several elements, scaled or masked, or a
            `pyro.factor`; sites or supports that depend on values; a dependence that `from_pyro`
            does not see.
    """
    from .io import bayesian_network

    run = runner(program, args, kwargs)
    with undisturbed(program):
        start, _ = run({}, 0)
        supports = {name: _support(name, site) for name, site in start.items()}
        graph = dependencies(run)
        _same_sites(graph, start)
        tables = _tables(run, graph, supports)
    states: dict[Variable, Any] = {name: _labels(start[name].fn, supports[name]) for name in start}
    model = bayesian_network(bayesian(states, tables))
    for name, site in start.items():
        if site.observed:
            support = supports[name].reshape(len(supports[name]), -1)
            at = (support == torch.as_tensor(site.value).reshape(1, -1)).all(1).nonzero()
            if not len(at):
                raise ValueError(f"{name} is observed at {site.value}, outside of its support")
            model.nodes[name]["observed_state"] = states[name][int(at[0])]
    return model


# Tables of a program


def _support(name: str, site: Site) -> torch.Tensor:
    """The values a site can take, (states, *event shape)."""
    fn, (scale, mask) = site.fn, site.weight
    kind = type(bare(fn)).__name__
    if kind == "Unit":
        raise ValueError(
            f"{name} is a pyro.factor, which weighs and has no probability; "
            "from_pyro gives the graph"
        )
    if fn.batch_shape:
        raise ValueError(
            f"{name} has elements of shape {tuple(fn.batch_shape)}; a table is of one variable: "
            "write a site an element, in a sequential plate: for i in pyro.plate(...)"
        )
    if mask is not None or scale != 1 or isinstance(fn, dist.MaskedDistribution):
        raise ValueError(f"the log-probability of {name} is scaled or masked: it has no table")
    if not fn.has_enumerate_support:
        raise ValueError(
            f"{name} is {kind} of event shape {tuple(fn.event_shape)}, without a finite support to "
            "enumerate; from_pyro gives the graph of any program"
        )
    return detach_provenance(fn.enumerate_support(expand=False))


def _labels(fn: Any, support: torch.Tensor) -> list[Any]:
    if fn.event_shape:  # one-hot vectors
        return support.argmax(-1).tolist()
    return [int(value) if value == int(value) else value for value in support.tolist()]


def _column(fn: Any, support: torch.Tensor) -> np.ndarray:
    """The probabilities of the states, float64."""
    plain = bare(fn)
    if isinstance(plain, (dist.Categorical, dist.OneHotCategorical)):
        found = plain.probs
    elif isinstance(plain, dist.Bernoulli):
        second = plain.probs.double()
        found = torch.stack([1 - second, second])
    else:
        found = fn.log_prob(support).exp()
    column = detach_provenance(found).double().cpu().numpy()
    return column / column.sum()


def _same_sites(expected: Iterable[str], found: Iterable[str]) -> None:
    unlike = sorted(set(expected) ^ set(found))
    if unlike:
        raise ValueError(
            f"the sites {', '.join(unlike[:8])} run for some values of the others and not for all: "
            "a Bayesian network has every variable always; from_pyro gives the graph"
        )


def _tables(run: Run, graph: nx.DiGraph, supports: Mapping[str, torch.Tensor]) -> list[Factor]:
    """p(site | parents) of each site. Each run holds all sites, and fills a column of every one."""
    sizes = {name: len(support) for name, support in supports.items()}
    parents = {name: [p for p in supports if p in graph.pred[name]] for name in supports}
    columns: dict[str, dict[tuple[int, ...], Any]] = {}
    for name, given in parents.items():
        cells = math.prod(sizes[site] for site in (name, *given))
        if cells > LARGEST_JOINT:
            raise ValueError(
                f"the table of {name} given {len(given)} parents has {cells:,} cells, more than "
                f"{LARGEST_JOINT:,}"
            )
        columns[name] = dict.fromkeys(itertools.product(*(range(sizes[p]) for p in given)))
    missing = {name: dict.fromkeys(found) for name, found in columns.items()}
    pick, checks = random.Random(0), iter(range(CHECKS))
    every: Any = ()
    if math.prod(sizes.values()) <= ALL:
        every, checks = itertools.product(*map(range, sizes.values())), iter(())
    every = iter(every)
    while (whole := next(every, None)) or any(missing.values()) or next(checks, None) is not None:
        at: dict[str, int] = dict(zip(sizes, whole, strict=True)) if whole else {}
        for name, left in missing.items():
            wanted = dict(zip(parents[name], next(iter(left), ()), strict=False))
            if all(at.get(parent, state) == state for parent, state in wanted.items()):
                at |= wanted
        # The rest at random: a column that then differs from itself has a parent not seen.
        at = {name: at.get(name, pick.randrange(size)) for name, size in sizes.items()}
        sites, _ = run({name: supports[name][state] for name, state in at.items()}, 0)
        _same_sites(supports, sites)
        for name, site in sites.items():
            if not equal(_support(name, site), supports[name]):
                raise ValueError(
                    f"the values that {name} can take depend on other values: a variable of a "
                    "Bayesian network has the same states always"
                )
            states = tuple(at[parent] for parent in parents[name])
            column, known = _column(site.fn, supports[name]), columns[name][states]
            if known is not None and not np.allclose(known, column, rtol=1e-6, atol=1e-12):
                raise ValueError(
                    f"the distribution of {name} differs between runs in which "
                    f"{', '.join(parents[name]) or 'all that it is seen to depend on'} is the "
                    "same: it depends on something that is no sample site, or hidden from "
                    "inspection"
                )
            columns[name][states] = column
            missing[name].pop(states, None)
    tables = []
    for name, given in parents.items():
        table = np.stack(list(columns[name].values()), axis=-1)  # (states, configurations)
        table = table.reshape(sizes[name], *(sizes[parent] for parent in given))
        tables.append(Factor((name, *given), table))
    return tables
