"""Tree-reweighted belief propagation: a convex relative of belief propagation, and an upper bound
on log Z."""

import copy
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from ..ancestral import checked_count
from ..factor_graph import FactorGraph
from ..names import unknown
from .algebra import spread
from .flooding import Flooding, Messages
from .forest import Forest
from .marginals import Marginals, checked, given, seen
from .wiring import Block, Wiring

DENSE = 2000  # variables of which effective resistances are computed, cubic in their number


@dataclass(frozen=True, eq=False, repr=False)
class TreeReweighted(Marginals):
    """What `tree_reweighted` found: pseudo-marginals, and an upper bound on log Z."""

    weights: np.ndarray
    """(factors,): rho, how probable each factor is in a random forest; 1 for unary factors."""
    forests: int
    """How many different forests the weights are the mean of; 0 where they are not from a list."""

    @property
    def certified(self) -> bool:
        """Whether `log_partition` is an upper bound whatever the messages: it was summed up forest
        by forest. Otherwise it is one where they have converged."""
        return self.forests > 0

    def __str__(self) -> str:
        return self._said("tree-reweighted", "<=" if self.certified or self.converged else "near")

    __repr__ = __str__


def tree_reweighted(
    fg: Any,
    *,
    weights: Any = None,
    evidence: Any = None,
    tolerance: float = 1e-6,
    max_iterations: int = 1000,
    damping: float = 0.5,
    trees: int = 24,
    seed: int = 0,
) -> TreeReweighted:
    """Pseudo-marginals and an upper bound on log Z from a distribution over forests of the graph.

    Let T be a random set of factors of several variables whose bipartite graph has no cycle, and
    rho_i > 0 the probability that factor i is in it. With any log-tables theta^T of forests whose
    mean is the model's theta, log Z(theta) <= sum_T p_T log Z(theta^T), because log Z is convex.
    The least such bound, over all theta^T, is where these messages stand still:

        nu_{v->i}(x_v) = theta_v(x_v) + sum_j rho_j mu_{j->v}(x_v) - mu_{i->v}(x_v)
        mu_{i->v}(x_v) = log sum over x_i without x_v of exp(theta_i(x_i) / rho_i + sum nu_{u->i})

    with beliefs softmax(theta_v + sum_j rho_j mu_{j->v}). All rho are 1 on a forest, where that is
    belief propagation, and exact. Elsewhere the fixed point is unique.

    By default the forests are packed greedily: each is a maximal forest of the factors that were
    used least so far, ties in random order, so every factor is soon covered and the rho are nearly
    even. The bound is then summed up forest by forest, with exact messages, so it holds also before
    convergence. With weights it is the dual value sum_v log Z_v + sum_i rho_i (log Z_i - sum_v log
    Z_iv) of the local normalisers, which is that bound only at convergence.

    Args:
        fg: a `FactorGraph`, or whatever `FactorGraph.of` takes.
        weights: None for packed forests; "uniform" for a uniformly drawn spanning tree, rho =
            effective resistance (pairwise graphs of at most 2,000 variables); or one rho in (0, 1]
            for each factor of `fg.factors`, of which those of one or no variable are not read.
            What is checked of given weights is their range, and that in each connected component
            sum_i rho_i (arity_i - 1) is at most the number of variables less one; weights outside
            the forest polytope may pass, and then bound nothing.
        evidence: a dict from variables to states, or to arrays of n states, or a DataFrame, which
            make n fields; None, NaN and -1 mean unobserved. Forests are of the whole graph: cycles
            through observed variables count as cycles.
        tolerance: converged where no normalised log message changes by more.
        max_iterations: at most so many; then a warning says that messages have not converged.
        damping: the share of the old log message that is kept, from 0 to below 1.
        trees: how many forests are packed; more where those leave out a factor.
        seed: of the order among factors that are used equally.

    Returns:
        `TreeReweighted`: tensors where the log-tables are tensors, without gradients.

    Raises:
        ValueError: weights or settings outside their range, evidence outside the states, hard
            constraints that contradict each other.

    Source: Wainwright, Jaakkola and Willsky, "A new class of upper bounds on the log partition
        function" (2005), theorem 1, equations 39 and 40 (messages); for packing, Thorup,
        "Fully-dynamic min-cut" (2007), section 2.
    """
    graph = FactorGraph.of(fg)
    checked(tolerance, damping)
    limit = checked_count(max_iterations, 1, "max_iterations")
    wanted = checked_count(trees, 1, "trees")
    checked_count(seed, 0, "seed")
    codes, rows = seen(graph, evidence)
    with torch.no_grad():
        wiring = Wiring(graph, codes, rows)
        numbers = np.concatenate([np.empty(0, np.int64), *(b.numbers for b in wiring.blocks)])
        scopes = [scope for block in wiring.blocks for scope in block.scopes.tolist()]
        forests = np.empty((0, len(scopes)), bool)
        shares = np.empty(0)
        if weights is None:
            forests, shares = packed(scopes, len(graph.variables), wanted, seed)
            rho = shares @ forests
        elif isinstance(weights, str):
            rho = _by_name(weights, graph, scopes)
        else:
            rho = _given_weights(weights, graph, numbers, scopes)
        scaled, by_size = _reweighted(wiring, rho)
        engine = Flooding(scaled, "sum", by_size)
        sent = engine.run(damping, tolerance, limit, "tree-reweighted messages")
        if len(forests):
            bound = _bound(engine, sent.messages, forests, shares)
        else:
            bound = _dual(engine, sent.messages, rho)
        totals = engine.totals(sent.messages)
        columns = {size: total.value.softmax(0) for size, total in totals.items()}
    if not sent.converged:
        held = "the bound holds, but is not the least" if len(forests) else "no bound yet"
        warnings.warn(
            f"tree-reweighted messages have not converged in {sent.iterations} iterations: one "
            f"still changes by {sent.residual:.2g} ({held}); a larger max_iterations or damping "
            "may help",
            stacklevel=2,
        )
    whole = np.ones(len(graph.factors))
    whole[numbers] = rho
    return TreeReweighted(
        graph=graph,
        log_partition=given(graph, bound),
        iterations=sent.iterations,
        residual=sent.residual,
        converged=sent.converged,
        _columns=columns,
        weights=whole,
        forests=len(forests),
    )


def packed(
    scopes: list[list[int]], variables: int, trees: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Maximal forests that use all factors about equally often.

    Returns:
        (forests, factors) which factors are in each, and (forests,) the probability of each.
    """
    rng = np.random.default_rng(seed)
    uses = np.zeros(len(scopes), np.int64)
    found: list[np.ndarray] = []
    while len(found) < trees or not uses.all():
        kept = np.zeros(len(scopes), bool)
        parent = list(range(variables))
        for factor in np.lexsort((rng.random(len(scopes)), uses)).tolist():
            roots = set()
            for v in scopes[factor]:
                while parent[v] != v:
                    parent[v] = v = parent[parent[v]]
                roots.add(v)
            if len(roots) == len(scopes[factor]):
                kept[factor] = True
                first = roots.pop()
                for v in roots:
                    parent[v] = first
        uses += kept
        found.append(kept)
        if kept.all():
            return kept[None], np.ones(1)
    forests, counts = np.unique(found, axis=0, return_counts=True)
    return forests, counts / counts.sum()


def resistances(scopes: list[list[int]], variables: int) -> np.ndarray:
    """The effective resistance of each edge of a graph of unit resistors: how probable the edge is
    in a uniformly drawn spanning tree (Kirchhoff)."""
    one, other = np.array(scopes).T
    laplacian = np.zeros((variables, variables))
    for i, j, value in ((one, one, 1), (other, other, 1), (one, other, -1), (other, one, -1)):
        np.add.at(laplacian, (i, j), value)
    inverse = np.linalg.pinv(laplacian, hermitian=True)
    found = inverse[one, one] + inverse[other, other] - 2 * inverse[one, other]
    return found.clip(0, 1)


def _by_name(name: str, graph: FactorGraph, scopes: list[list[int]]) -> np.ndarray:
    if name != "uniform":
        raise ValueError(unknown("weights", name, ["uniform"]))
    if any(len(scope) > 2 for scope in scopes):
        raise ValueError(
            "uniform spanning trees are of pairwise graphs, and this one has a factor of "
            f"{max(map(len, scopes))} variables; weights=None packs forests of any factors"
        )
    if len(graph.variables) > DENSE:
        raise ValueError(
            f"effective resistances of {len(graph.variables):,} variables take a dense matrix; at "
            f"most {DENSE:,} are done: weights=None packs trees instead"
        )
    return resistances(scopes, len(graph.variables)) if scopes else np.empty(0)


def _given_weights(
    weights: Any, graph: FactorGraph, numbers: np.ndarray, scopes: list[list[int]]
) -> np.ndarray:
    if hasattr(weights, "detach"):
        weights = weights.detach().cpu().numpy()
    whole = np.asarray(weights, np.float64)
    if whole.shape != (len(graph.factors),):
        raise ValueError(
            f"weights need one number for each of {len(graph.factors)} factors; got {whole.shape}"
        )
    rho = whole[numbers]
    bad = numbers[~((rho > 0) & (rho <= 1))]
    if len(bad):
        names = ", ".join(str(v) for v in graph.factors[int(bad[0])].variables)
        raise ValueError(
            f"the weight of factor {bad[0]} over {names} must be above 0 and at most 1; "
            f"got {whole[bad[0]]}"
        )
    if not scopes:
        return rho
    first = np.array([scope[0] for scope in scopes])
    pairs = np.array([(scope[0], v) for scope in scopes for v in scope[1:]]).T
    size = len(graph.variables)
    joined = coo_array((np.ones(pairs.shape[1]), (pairs[0], pairs[1])), (size, size))
    component = connected_components(joined, directed=False)[1]
    spent = np.bincount(component[first], rho * [len(s) - 1 for s in scopes], component.max() + 1)
    over = np.flatnonzero(spent > np.bincount(component) - 1 + 1e-9)
    if len(over):
        one = graph.variables[int(np.flatnonzero(component == over[0])[0])]
        raise ValueError(
            f"no distribution over forests has these weights: around {one} the sum of weight times "
            f"(arity - 1) is {spent[over[0]]:.6g}, and a forest of those "
            f"{np.bincount(component)[over[0]]} variables has at most one less than them"
        )
    return rho


def _reweighted(wiring: Wiring, rho: np.ndarray) -> tuple[Wiring, dict[int, Tensor]]:
    """The wiring with theta_i / rho_i for theta_i, and the rho of each message."""
    scaled = copy.copy(wiring)
    scaled.blocks = []
    by_size = {
        size: torch.empty((len(ends), *(1,) * len(wiring.fields)), dtype=wiring.dtype)
        for size, ends in wiring.ends.items()
    }
    done = 0
    for block in wiring.blocks:
        mine = rho[done : done + len(block.scopes)]
        done += len(mine)
        own = torch.as_tensor(mine, dtype=wiring.dtype).reshape(-1, *(1,) * len(wiring.fields))
        for size, span in zip(block.shape, block.spans, strict=True):
            by_size[size][span] = own
        scaled.blocks.append(block._replace(table=block.table.detach() / own.to(wiring.device)))
    return scaled, {size: values.to(wiring.device) for size, values in by_size.items()}


def _bound(engine: Flooding, messages: Messages, forests: np.ndarray, shares: np.ndarray) -> Tensor:
    """sum_T p_T log Z(theta^T) where a forest has theta_v + sum_j rho_j mu_{j->v} on its variables
    and theta_i / rho_i - sum_v mu_{i->v} on its factors, whose mean is theta whatever mu is."""
    wiring = engine.wiring
    unary = {size: total.value for size, total in engine.totals(messages).items()}
    tables = []
    for block in wiring.blocks:
        table = block.table
        for axis, (size, span) in enumerate(zip(block.shape, block.spans, strict=True)):
            # a state that a message forbids is forbidden by `unary` already
            said = messages[size][:, span]
            said = said.masked_fill(torch.isneginf(said), 0.0)
            table = table - spread(said, axis, len(block.shape))
        tables.append(table)
    total: Any = 0.0
    for kept, share in zip(forests, shares, strict=True):
        tree = Flooding(_restricted(wiring, kept, unary, tables))
        total = total + share * tree.log_partition(Forest(tree, None).run("a forest"))
    return total


def _restricted(
    wiring: Wiring, kept: np.ndarray, unary: dict[int, Tensor], tables: list[Tensor]
) -> Wiring:
    """A wiring of some of the factors, with other tables."""
    part = copy.copy(wiring)
    part.unary, part.blocks = unary, []
    ends: dict[int, list[Tensor]] = {size: [] for size in wiring.ends}
    counts = dict.fromkeys(wiring.ends, 0)
    done = 0
    for block, table in zip(wiring.blocks, tables, strict=True):
        mine = np.flatnonzero(kept[done : done + len(block.scopes)])
        done += len(block.scopes)
        index = torch.as_tensor(mine, device=wiring.device)
        spans = []
        for size, span in zip(block.shape, block.spans, strict=True):
            ends[size].append(wiring.ends[size][span][index])
            spans.append(slice(counts[size], counts[size] + len(mine)))
            counts[size] += len(mine)
        if len(mine):
            table = table.index_select(len(block.shape), index)
            part.blocks.append(
                Block(block.shape, table, block.scopes[mine], block.numbers[mine], tuple(spans))
            )
    part.ends = {k: torch.cat(found) if found else wiring.ends[k] for k, found in ends.items()}
    return part


def _dual(engine: Flooding, messages: Messages, rho: np.ndarray) -> Tensor:
    """sum_v log Z_v + sum_i rho_i (log Z_i - sum_v log Z_iv), the bound at a fixed point."""
    wiring = engine.wiring
    nu = engine.cavities(messages)
    total = wiring.constant
    for values in engine.totals(messages).values():
        total = total + torch.logsumexp(values.value, 0).double().sum(0)
    done = 0
    for block in wiring.blocks:
        own = torch.as_tensor(rho[done : done + len(block.scopes)], device=wiring.device)
        done += len(own)
        local = engine.factor_sums(block, nu)
        for size, span in zip(block.shape, block.spans, strict=True):
            local = local - torch.logsumexp(nu[size][:, span] + messages[size][:, span], 0)
        total = total + (local * own.reshape(-1, *(1,) * len(wiring.fields))).sum(0)
    return total
