"""Mean field: the best product of independent distributions, by coordinate ascent."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..ancestral import checked_count
from ..evidence import UNOBSERVED
from ..factor_graph import FactorGraph
from ..progress import Bar
from .algebra import Linear
from .blocks import Block, Term, add_to, blocks
from .chromatic import Chains
from .marginals import Marginals, checked, given, seen
from .wiring import Wiring

Columns = dict[int, Tensor]  # by number of states: (K, variables, fields ..., restarts)


@dataclass(frozen=True, eq=False, repr=False)
class MeanField(Marginals):
    """What `mean_field` found: the factors q_v of its best start, and a lower bound on log Z."""

    elbos: Any
    """The bound after each sweep, (iterations,) or (iterations, B): it never falls."""

    def __str__(self) -> str:
        return self._said("mean field", ">=")

    __repr__ = __str__


def mean_field(
    fg: Any,
    *,
    evidence: Any = None,
    tolerance: float = 1e-6,
    max_iterations: int = 1000,
    damping: float = 0.0,
    restarts: int = 1,
    seed: int = 0,
) -> MeanField:
    """The product q(x) = prod_v q_v(x_v) that is nearest to the model, at a local maximum of

        ELBO(q) = sum_i E_q[log psi_i(x_i)] + sum_v H(q_v) = log Z - KL(q || p)

    so a lower bound on log Z in nats. Coordinate ascent sets

        q_v(x_v) ∝ exp sum over the factors i of v of E_q[log psi_i(x_i) | x_v],

    for all variables of a colour at once: no two of them share a factor, so that this is exact and
    the bound never falls. A start is a random q; where it puts mass on what is forbidden (0 times
    -inf counts as 0) the ascent starts from one possible configuration instead, which Gibbs sweeps
    of a relaxed model look for. All starts run together and each field keeps its best.

    Args:
        fg: a `FactorGraph`, or whatever `FactorGraph.of` takes.
        evidence: a dict from variables to states, or to arrays of n states, or a DataFrame, which
            make n fields; None, NaN and -1 mean unobserved.
        tolerance: converged where no probability changes by more in a sweep.
        max_iterations: at most so many sweeps; then a warning says that q has not converged.
        damping: the share of the old q_v that is kept, from 0 to below 1; the bound still rises.
        restarts: how many starts.
        seed: of the starts.

    Returns:
        `MeanField`: tensors where the log-tables are tensors, without gradients.

    Raises:
        ValueError: evidence outside the states, or in conflict with a unary factor; a setting
            outside its range.

    Warns:
        UserWarning: not converged; or no possible configuration was found, so the bound is -inf.

    Source: Koller and Friedman, Probabilistic Graphical Models, section 11.5.1, equation 11.54 and
        algorithm 11.7; Wainwright and Jordan, "Graphical models, exponential families, and
        variational inference" (2008), section 5.3.
    """
    graph = FactorGraph.of(fg)
    checked(tolerance, damping)
    limit = checked_count(max_iterations, 1, "max_iterations")
    count = checked_count(restarts, 1, "restarts")
    checked_count(seed, 0, "seed")
    codes, rows = seen(graph, evidence)
    with torch.no_grad():
        ascent = Ascent(Wiring(graph, codes, rows), codes, count)
        q = ascent.start(seed)
        stuck = _mend(ascent, q, codes, seed)
        elbos = []
        with Bar("mean field", limit) as bar:
            for done in range(1, limit + 1):
                residual = ascent.sweep(q, damping)
                elbos.append(ascent.elbo(q))
                largest = float(residual.max()) if residual.numel() else 0.0  # no fields
                bar.at(done, f"residual {largest:.2g}")
                if largest <= tolerance:
                    break
        curve = torch.stack(elbos)  # (sweeps [, B], restarts)
        best = curve[-1].argmax(-1)  # () or (B,)
        curve = _chosen(curve, best)
        columns = {size: _chosen(values, best) for size, values in q.items()}
        moved = float(_chosen(residual, best).max()) if residual.numel() else 0.0
    if stuck:
        warnings.warn(f"the mean-field bound is -inf: {stuck}", stacklevel=2)
    if moved > tolerance:
        warnings.warn(
            f"mean field has not converged in {len(elbos)} sweeps: a probability still changes by "
            f"{moved:.2g}; the bound holds, and rises with a larger max_iterations",
            stacklevel=2,
        )
    return MeanField(
        graph=graph,
        log_partition=given(graph, curve[-1]),
        iterations=len(elbos),
        residual=moved,
        converged=moved <= tolerance,
        _columns=columns,
        elbos=given(graph, curve),
    )


class Ascent:
    """One structure with its tables, ready for coordinate ascent.

    Args:
        wiring: the structure and the tables.
        codes: the evidence, by position of a variable.
        restarts: how many starts run together.
    """

    def __init__(self, wiring: Wiring, codes: dict[int, np.ndarray], restarts: int) -> None:
        self.wiring = wiring
        self.shape = (*wiring.fields, restarts)
        free = np.ones(len(wiring.graph.sizes), bool)
        free[[v for v, states in codes.items() if (states != UNOBSERVED).all()]] = False
        self.blocks = [self._moved(block) for block in blocks(wiring.graph, free)]
        self.tables: list[tuple[Tensor, Tensor | None]] = []
        """Of each group its finite log-tables, and 1 where they are -inf, None where nowhere."""
        self.places: list[list[Tensor]] = []
        """Of each group and axis, the place of each factor's variable."""
        for block in wiring.blocks:
            table = block.table.detach()[..., None]
            dead = torch.isneginf(table)
            forbidden = dead.to(table.dtype) if bool(dead.any()) else None
            self.tables.append((table.masked_fill(dead, 0.0), forbidden))
            self.places.append([self._index(wiring.place[ends]) for ends in block.scopes.T])
        self.unary = {size: u.detach()[..., None] for size, u in wiring.unary.items()}

    def start(self, seed: int) -> Columns:
        """Random q_v ∝ exp(unary) times a draw of the uniform distribution on the simplex."""
        rng = np.random.default_rng(seed)
        found = {}
        for size, unary in self.unary.items():
            noise = torch.as_tensor(rng.exponential(size=(*unary.shape[:2], *self.shape)))
            found[size] = (unary + noise.log().to(unary)).softmax(0)
        return found

    def sweep(self, q: Columns, damping: float) -> Tensor:
        """Every q_v once, in place; the largest change, ([B,] restarts)."""
        wiring = self.wiring
        largest = torch.zeros(self.shape, dtype=wiring.dtype, device=wiring.device)
        for block in self.blocks:
            old = q[block.size].index_select(1, block.variables)
            totals = self.unary[block.size].index_select(1, block.variables).expand_as(old).clone()
            for term in block.terms:
                add_to(totals, term, self._expected(q, term.group, term))
            top = totals.amax(0)
            live = ~torch.isneginf(top)  # else nothing is possible yet: keep the old
            new = torch.where(live, (totals - top.masked_fill(~live, 0.0)).softmax(0), old)
            new = torch.lerp(new, old, damping)
            largest = torch.maximum(largest, (new - old).abs().amax((0, 1)))
            q[block.size][:, block.variables] = new
        return largest

    def elbo(self, q: Columns) -> Tensor:
        """The bound, ([B,] restarts), in float64."""
        total: Any = self.wiring.constant[..., None].expand(self.shape)
        for size, unary in self.unary.items():
            energy = torch.where(q[size] > 0, q[size] * unary, 0.0)
            total = total + (energy + torch.special.entr(q[size])).double().sum((0, 1))
        for group in range(len(self.tables)):
            total = total + self._expected(q, group, None).double().sum(0)
        return total

    def _expected(self, q: Columns, group: int, term: Term | None) -> Tensor:
        """E_q[log psi | x_v], (K, m, ...) for the variables v of a term; E_q[log psi] of every
        factor of the group, (F, ...), without a term."""
        finite, forbidden = self.tables[group]
        found = self._contracted(q, finite, group, term)
        if forbidden is not None:
            mass = self._contracted(q, forbidden, group, term)
            found = found.masked_fill(mass > 0, -torch.inf)
        return found

    def _contracted(self, q: Columns, table: Tensor, group: int, term: Term | None) -> Tensor:
        shape = self.wiring.blocks[group].shape
        if term is not None and table.shape[len(shape)] > 1:
            table = table.index_select(len(shape), term.factors)
        left = len(shape)
        for axis in reversed(range(len(shape))):
            if term is not None and axis == term.axis:
                continue
            places = self.places[group][axis]
            places = places if term is None else places[term.factors]
            place = axis if term is None or axis < term.axis else left - 1
            table = Linear().contract(table, q[shape[axis]].index_select(1, places), place, left)
            left -= 1
        return table

    def _moved(self, block: Block) -> Block:
        """The same with tensors, and places in the wiring for positions."""
        terms = [
            term._replace(factors=self._index(term.factors), members=self._index(term.members))
            for term in block.terms
        ]
        return Block(self._index(self.wiring.place[block.variables]), block.size, terms)

    def _index(self, numbers: np.ndarray) -> Tensor:
        return torch.as_tensor(numbers, device=self.wiring.device)


def _mend(ascent: Ascent, q: Columns, codes: dict[int, np.ndarray], seed: int) -> str:
    """Possible configurations in place of starts whose bound is -inf; why none was found, if so."""
    wiring, graph = ascent.wiring, ascent.wiring.graph
    bad = torch.isneginf(ascent.elbo(q)).cpu().numpy()
    why = ""
    for field in np.ndindex(bad.shape[:-1]):
        wanted = np.flatnonzero(bad[field])
        if not len(wanted):
            continue
        one = graph if graph.batch is None else graph.field(field[0] if graph.batch > 1 else 0)
        held = np.full(len(graph.sizes), UNOBSERVED)
        for position, states in codes.items():
            held[position] = states[field[0] if len(states) > 1 else 0]
        try:
            chains = Chains(one, held, len(wanted), np.random.default_rng([seed, *field]))
        except ValueError as error:
            why = f"{error} (field {field[0]})" if field else str(error)
            continue
        for size, members in wiring.members.items():
            indices = torch.as_tensor(chains.state[members].astype(np.int64))
            hot = torch.nn.functional.one_hot(indices, size).movedim(-1, 0)  # (K, n, wanted)
            for i, restart in enumerate(wanted):
                q[size][(slice(None), slice(None), *field, int(restart))] = hot[..., i].to(q[size])
    return why


def _chosen(values: Tensor, best: Tensor) -> Tensor:
    """(..., [B,] restarts) -> (... [, B]): of each field the restart that was best."""
    index = best.reshape(*(1,) * (values.ndim - best.ndim - 1), *best.shape, 1)
    return values.gather(-1, index.expand(*values.shape[:-1], 1))[..., 0]
