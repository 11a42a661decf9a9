"""Gibbs sampling of a factor graph: all variables of a colour, in all chains, at once."""

import math
import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from ..ancestral import flat_index, index_type
from ..evidence import UNOBSERVED, encode
from ..factor_graph import FactorGraph
from ..names import unknown
from ..tables import Tables, Variable
from .blocks import Block, Term, add_to, blocks, joining

REPAIRS = 400  # sweeps in which a forbidden start may become a possible one
PENALTY = 0.1  # nats by which a forbidden configuration costs more after each of them


class Shares(NamedTuple):
    """How often some variables, all with K states, were in each state."""

    variables: np.ndarray
    """(n,): their positions."""
    means: np.ndarray
    """(n, K, chains): over all kept sweeps."""
    halves: np.ndarray
    """(n, K, 2 chains): over the first half of them, and over the last."""


class Reading(NamedTuple):
    """How a term is looked up in the rows of a table."""

    term: Term
    others: list[np.ndarray]
    """Of each other axis, the positions (m,) of the factors' variables."""
    sizes: list[int]
    """How many states those have."""
    offset: np.ndarray
    """(m, 1), or (1, 1) where all factors share the table: where a factor's columns begin."""


class Chains:
    """Markov chains side by side that redraw each free variable from p(x | its neighbours).

    Args:
        graph: one field, not a batch of several.
        codes: (V,): state indices of the observed, -1 for the free.
        count: how many chains.
        rng: where the uniform numbers come from.

    Attributes:
        state: (V, chains) state indices.
        groups: the groups of factors of several variables.
        hard: which of those groups forbid something.

    Raises:
        ValueError: all states of a variable are forbidden by its own factors; no state of positive
            probability was found for any chain.
    """

    def __init__(
        self, graph: FactorGraph, codes: np.ndarray, count: int, rng: np.random.Generator
    ) -> None:
        self.graph, self.rng = graph, rng
        self.blocks = blocks(graph, (codes == UNOBSERVED) & (graph.sizes > 1))
        self._single = _unary(graph)
        self.groups = joining(graph)
        self._rows = [_rows(group.shape, _one_field(graph, group.table)) for group in self.groups]
        self._readings = [
            [self._reading(term, len(block.variables)) for term in block.terms]
            for block in self.blocks
        ]
        self.state = np.empty((len(codes), count), index_type(int(graph.sizes.max(initial=1))))
        self.state[:] = np.maximum(codes, 0)[:, None]
        self._check_single(codes)
        for block in self.blocks:
            self._draw(block, self._totals(block))
        self.hard = [i for i, rows in enumerate(self._rows) if np.isneginf(rows[0]).any()]
        if self.hard:
            self._repair()

    def sweep(self) -> None:
        """Every free variable is drawn anew in every chain."""
        for block, readings in zip(self.blocks, self._readings, strict=True):
            totals = self._totals(block)
            for reading in readings:
                add_to(totals, reading.term, self._said(reading, self._rows))
            self._draw(block, totals)

    def _totals(self, block: Block) -> np.ndarray:
        """(K, n, chains): logarithms from the unary factors alone."""
        own = self._single[: block.size, block.variables, None]
        return np.repeat(own, self.state.shape[1], axis=2)

    def _said(self, reading: Reading, rows: list[list[np.ndarray]]) -> np.ndarray:
        """(K, m, chains): log psi of each state of the block's variable, the others held."""
        place = flat_index([self.state[ends] for ends in reading.others], reading.sizes)
        place = place + reading.offset
        return rows[reading.term.group][reading.term.axis].take(place, axis=1)

    def _reading(self, term: Term, block: int) -> Reading:
        shape, scopes, _, table = self.groups[term.group]
        others = [axis for axis in range(len(shape)) if axis != term.axis]
        sizes = [shape[axis] for axis in others]
        width = math.prod(sizes)
        factors = term.factors
        shared = table.shape[len(shape)] == 1
        offset = factors * (0 if shared else width)
        if term.alone and block / 2 <= len(factors) < block:
            # Most variables of the block have such a factor: the others read the zeros at the end
            # of the rows, which costs less than to pick places.
            members, some = term.members, factors
            offset = np.full(block, (1 if shared else len(scopes)) * width)
            offset[members] = 0 if shared else some * width
            factors = np.full(block, some[0])
            factors[members] = some
            term = term._replace(members=np.arange(block))
        elif shared:
            offset = offset[:1]
        return Reading(term, [scopes[factors, axis] for axis in others], sizes, offset[:, None])

    def _draw(self, block: Block, totals: np.ndarray) -> None:
        totals -= totals.max(0)
        mass = np.exp(totals, out=totals)
        for k in range(1, block.size):
            mass[k] += mass[k - 1]
        # u is at most 1 - 2^-53, so u * mass rounds to below the whole mass: no state after the
        # last possible one is reached.
        reached = self.rng.random(mass.shape[1:])
        reached *= mass[-1]
        drawn = np.zeros(reached.shape, self.state.dtype)
        for k in range(block.size - 1):
            drawn += mass[k] <= reached
        self.state[block.variables] = drawn

    def _check_single(self, codes: np.ndarray) -> None:
        chosen = self._single[np.maximum(codes, 0), np.arange(len(codes))]
        free = self._single.max(0, initial=-np.inf)
        dead = np.flatnonzero(np.isneginf(np.where(codes == UNOBSERVED, free, chosen)))
        if len(dead):
            raise ValueError(
                f"the factors over {self.graph.variables[dead[0]]} alone forbid "
                + ("the state observed" if codes[dead[0]] >= 0 else "all its states")
            )

    def _impossible(self) -> np.ndarray:
        """(chains,): whether a chain is in a forbidden configuration."""
        found = np.zeros(self.state.shape[1], bool)
        for i in self.hard:
            shape, scopes, _, table = self.groups[i]
            width = math.prod(shape[1:])
            place = flat_index([self.state[ends] for ends in scopes.T[1:]], [*shape[1:]])
            if table.shape[len(shape)] > 1:
                place = place + (np.arange(len(scopes)) * width)[:, None]
            found |= np.isneginf(self._rows[i][0][self.state[scopes[:, 0]], place]).any(0)
        return found

    def _repair(self) -> None:
        """Gibbs sweeps of a relaxed model, in which each forbidden configuration costs some nats,
        more with every sweep, until all chains are in possible states."""
        relaxed = [
            [np.where(np.isneginf(table), -1.0, 0.0) for table in rows] for rows in self._rows
        ]
        bad = self._impossible()
        kept = self.state.copy()
        for sweep in range(1, REPAIRS + 1):
            if not bad.any():
                break
            for block, readings in zip(self.blocks, self._readings, strict=True):
                totals = self._totals(block)
                for reading in readings:
                    if reading.term.group in self.hard:
                        costs = self._said(reading, relaxed)
                        add_to(totals, reading.term, sweep * PENALTY * costs)
                self._draw(block, totals)
            mended = bad & ~self._impossible()
            kept[:, mended] = self.state[:, mended]
            bad &= ~mended
        if bad.all():
            raise ValueError(
                f"no state of positive probability was found by {len(bad)} chains in {REPAIRS} "
                "sweeps: the evidence and the -inf of the tables may contradict each other, or "
                "leave too little; graphs.JunctionTree tells which"
            )
        kept[:, bad] = kept[:, self.rng.choice(np.flatnonzero(~bad), int(bad.sum()))]
        self.state = kept


def shares(
    graph: FactorGraph,
    evidence: Any,
    targets: Iterable[Variable] | None,
    sweeps: int,
    chains: int,
    burn_in: int,
    rng: np.random.Generator,
) -> list[Shares]:
    """How often each target was in each state, of chains that are not stored.

    Raises:
        ValueError: a batch of several fields; several rows of evidence; an unknown name; no start.
    """
    if graph.batch is not None and graph.batch > 1:
        raise ValueError(
            f"sampling answers one field at a time; got a batch of {graph.batch}: take field(i)"
        )
    codes = _codes(graph, evidence)
    wanted = _wanted(graph, codes, targets)
    run = Chains(graph, codes, chains, rng)
    if run.hard:
        group = run.groups[run.hard[0]]
        scope = ", ".join(str(graph.variables[v]) for v in group.scopes[0])
        warnings.warn(
            f"tables hold zeros (-inf), as those like that over {scope} do: a Gibbs chain may not "
            "reach every possible state; R-hat and the errors show only what the starts cover",
            stacklevel=3,
        )
    alike = [wanted[graph.sizes[wanted] == k] for k in np.unique(graph.sizes[wanted])]
    half = sweeps // 2
    counts = [  # of the first half, the last half, and the sweep between them; not of state 0
        [np.zeros((graph.sizes[v[0]] - 1, len(v), chains), np.int32) for v in alike]
        for _ in range(2 + sweeps % 2)
    ]
    for sweep in range(-burn_in, sweeps):
        run.sweep()
        if sweep >= 0:
            part = 0 if sweep < half else 1 if sweep >= sweeps - half else 2
            for variables, count in zip(alike, counts[part], strict=True):
                state = run.state[variables]
                for k in range(len(count)):
                    count[k] += state == k + 1
    found = []
    for variables, first, last, *rest in zip(alike, *counts, strict=True):
        whole = first + last + sum(rest)
        ends = np.concatenate([_with_rest(first, half), _with_rest(last, half)], 2)
        found.append(Shares(variables, _with_rest(whole, sweeps), ends))
    return found


def _with_rest(counts: np.ndarray, sweeps: int) -> np.ndarray:
    """(K - 1, n, sequences) of states 1, 2, ... -> shares (n, K, sequences) of all states."""
    first = sweeps - counts.sum(0, keepdims=True)
    return np.concatenate([first, counts]).transpose(1, 0, 2) / sweeps


def _codes(graph: FactorGraph, evidence: Any) -> np.ndarray:
    found, rows = encode(Tables(graph.states, []), evidence) if evidence is not None else ({}, None)
    if rows is not None:
        raise ValueError(
            f"sampling answers one row of evidence at a time; got {rows} rows. "
            "Give one state a variable, or use graphs.JunctionTree for many rows"
        )
    codes = np.full(len(graph.variables), UNOBSERVED)
    for variable, states in found.items():
        codes[graph.positions[variable]] = states[0]
    return codes


def _wanted(
    graph: FactorGraph, codes: np.ndarray, targets: Iterable[Variable] | None
) -> np.ndarray:
    """The positions of the targets, in the graph's order."""
    if targets is None:
        return np.flatnonzero(codes == UNOBSERVED)
    asked = [targets] if isinstance(targets, str) else list(targets)
    for variable in asked:
        if variable not in graph.positions:
            raise ValueError(unknown("variable", variable, graph.variables))
    return np.array(sorted({graph.positions[variable] for variable in asked}), np.int64)


def _one_field(graph: FactorGraph, table: Any) -> np.ndarray:
    table = table.detach().cpu().numpy() if hasattr(table, "detach") else table
    return (table if graph.batch is None else table[..., 0]).astype(np.float64)


def _unary(graph: FactorGraph) -> np.ndarray:
    """(largest K, V): the sum of each variable's unary log-tables; -inf beyond its states."""
    sizes = graph.sizes
    states = np.arange(int(sizes.max(initial=1)))[:, None]
    total = np.where(states < sizes, 0.0, -np.inf)
    for shape, scopes, _, table in graph.groups:
        if len(shape) == 1:
            values = np.broadcast_to(_one_field(graph, table), (*shape, len(scopes)))
            np.add.at(total[: shape[0]].T, scopes[:, 0], values.T)
    return total


def _rows(shape: tuple[int, ...], table: np.ndarray) -> list[np.ndarray]:
    """For each axis the table as (K, (F or 1) x others), and as many zeros behind as one factor
    has columns."""
    found = []
    for axis, size in enumerate(shape):
        first = np.moveaxis(table, (axis, -1), (0, 1))  # (K, F or 1, others)
        rows = first.reshape(size, -1)
        found.append(np.pad(rows, ((0, 0), (0, rows.shape[1] // table.shape[-1]))))
    return found
