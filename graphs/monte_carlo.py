"""Posteriors by sampling, with error bars, to set beside the exact answers."""

import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np

from .ancestral import checked_count, flat_index, index_type, sample_indices
from .evidence import UNOBSERVED, encode
from .names import unknown
from .tables import Tables, Variable, directed_tables

if TYPE_CHECKING:
    import pandas as pd

# Of each factor: the other variables, their sizes, and logarithms (states of those, own states).
Blanket = list[tuple[tuple[Variable, ...], list[int], np.ndarray]]
STARTS = 10_000  # weighted draws among which Gibbs finds its first states


@dataclass(frozen=True, eq=False, repr=False)
class Estimate:
    """Posterior probabilities from samples. `estimate[variable]` is an array, one entry a state."""

    method: str
    states: dict[Variable, tuple[Any, ...]]
    """The states of each target, in the order of its arrays."""
    probabilities: dict[Variable, np.ndarray]
    """p(x = k | evidence), estimated."""
    errors: dict[Variable, np.ndarray]
    """Standard errors of `probabilities`; 0 also where no draw, or every draw, was in a state."""
    draws: int
    """Weighted draws, or kept states of all chains together."""
    effective_samples: float
    """How many independent draws of the posterior would do as well; for Gibbs the least of all
    targets' states, infinite where nothing varied."""
    log_evidence: float | None = None
    """log p(evidence) in nats; None for Gibbs, which does not tell."""
    log_evidence_error: float | None = None
    """The standard error of `log_evidence`, by the delta method."""
    r_hat: dict[Variable, float] | None = None
    """Gibbs: the potential scale reduction of each target, the largest of its states; near 1 where
    the chains agree. None for likelihood weighting."""

    def __getitem__(self, variable: Variable) -> np.ndarray:
        return self._of(self.probabilities, variable)

    def error(self, variable: Variable) -> np.ndarray:
        """The standard error of each probability of a variable.

        Raises:
            ValueError: not among the targets.
        """
        return self._of(self.errors, variable)

    def to_frame(self) -> "pd.DataFrame":
        """One row for each state of each target: variable, state, probability, error."""
        import pandas as pd

        cells = [
            (variable, state, probability, error)
            for variable, states in self.states.items()
            for state, probability, error in zip(
                states, self.probabilities[variable], self.errors[variable], strict=True
            )
        ]
        return pd.DataFrame(cells, columns=["variable", "state", "probability", "error"])

    def __str__(self) -> str:
        rows = [("variable", "state", "probability", "error")]
        for variable, states in self.states.items():
            for i, state in enumerate(states):
                figures = f"{self[variable][i]:.5f}", f"{self.error(variable)[i]:.5f}"
                rows.append((str(variable) if i == 0 else "", str(state), *figures))
        wide = [max(len(row[i]) for row in rows) for i in range(4)]
        said = f"{self.method}: {self.draws:,} draws, worth {self.effective_samples:,.0f}"
        if self.log_evidence is not None:
            said += f"; log evidence {self.log_evidence:.5f} +- {self.log_evidence_error:.5f}"
        if self.r_hat:
            said += f"; largest R-hat {max(self.r_hat.values()):.4f}"
        lines = [
            f"{a:{wide[0]}}  {b:{wide[1]}}  {c:>{wide[2]}}  {d:>{wide[3]}}" for a, b, c, d in rows
        ]
        return "\n".join([said, *lines])

    __repr__ = __str__

    def _of(self, arrays: dict[Variable, np.ndarray], variable: Variable) -> np.ndarray:
        if variable not in arrays:
            raise ValueError(unknown("target", variable, arrays))
        return arrays[variable]


def likelihood_weighting(
    bn: Any,
    evidence: Mapping[Variable, Any] | None = None,
    n: int = 10_000,
    seed: int = 0,
    targets: Iterable[Variable] | None = None,
) -> Estimate:
    """Posteriors from weighted draws: the unobserved are drawn given their parents, and a draw
    weighs w = prod over the observed of p(e | parents).

    The estimate of p(x = k | e) is sum_{x_i = k} w_i / sum_i w_i, biased in the order 1/n, with
    standard error sqrt(sum_i w_i^2 (1[x_i = k] - p_k)^2) / sum_i w_i (the delta method). The mean
    weight is an unbiased estimate of p(e). The effective sample size is (sum w)^2 / sum w^2: where
    it is small, so is the trust that the error deserves.

    Args:
        bn: a Bayesian network.
        evidence: the state of each observed variable.
        n: how many draws, 2 or more.
        seed: the same seed gives the same estimate.
        targets: the variables asked for; None for all that are unobserved. Only their ancestors and
            those of the evidence are drawn.

    Raises:
        ValueError: no draw has positive weight; several rows of evidence; an unknown name.

    Source: Fung and Chang (1990), Shachter and Peot (1990); Koller and Friedman, Probabilistic
        Graphical Models, algorithm 12.2.
    """
    count = checked_count(n, 2, "n, the draws,")
    tables, observed, wanted = _question(bn, evidence, targets)
    rng = np.random.default_rng(seed)
    drawn, log_weights = _weighted_draws(tables, observed, count, rng)
    top = log_weights.max()
    weights = np.exp(log_weights - top)
    total, squares = weights.sum(), weights @ weights
    probabilities, errors = {}, {}
    for variable in wanted:
        size = len(tables.states[variable])
        p = np.bincount(drawn[variable], weights, size) / total
        own = np.bincount(drawn[variable], weights**2, size)
        spread = own * (1 - p) ** 2 + (squares - own).clip(0) * p**2
        probabilities[variable], errors[variable] = p, np.sqrt(spread) / total
    return Estimate(
        "likelihood weighting",
        {variable: tables.states[variable] for variable in wanted},
        probabilities,
        errors,
        count,
        float(total**2 / squares),
        float(top + math.log(total / count)),
        float(weights.std(ddof=1) / math.sqrt(count) / (total / count)),
    )


def gibbs(
    model: Any,
    evidence: Mapping[Variable, Any] | None = None,
    n: int = 1000,
    chains: int = 64,
    burn_in: int = 100,
    seed: int = 0,
    targets: Iterable[Variable] | None = None,
) -> Estimate:
    """Posteriors from Markov chains that redraw each unobserved variable from p(x | blanket) in
    turn, p(x_i | blanket) ∝ the product of the factors that hold x_i; in a Bayesian network
    p(x_i | pa_i) prod over the children of p(child | its parents).

    All chains move together. Those of a Bayesian network start at states picked by weight among
    10,000 draws of likelihood weighting. In a factor graph variables are coloured so that no two of
    a colour share a factor, and a colour moves together too; chains start at independent draws from
    the unary factors, and where these are forbidden at states that sweeps of a relaxed model reach,
    in which what is forbidden costs ever more. The standard error is that of the mean of the
    chains' means, which needs no model of how slowly a chain moves; the effective sample size is
    p (1 - p) / error^2, and R-hat that of Gelman et al., Bayesian Data Analysis (3rd ed.), equation
    11.4, on half chains.

    Where tables hold zeros a chain may be unable to reach every possible state (Gibbs sampling is
    then not ergodic), so a warning is given: R-hat and the errors show only what the starts cover.

    Args:
        model: a Bayesian network; or a factor graph of one field, a Markov network or a list of
            factors.
        evidence: the state of each observed variable.
        n: sweeps kept of each chain, 4 or more.
        chains: 2 or more; the errors are themselves uncertain by a part in sqrt(2 (chains - 1)).
        burn_in: sweeps dropped at the start.
        seed: the same seed gives the same estimate.
        targets: the variables asked for; None for all that are unobserved. In a Bayesian network
            only their ancestors and those of the evidence are drawn.

    Raises:
        ValueError: no start agrees with the evidence; several rows of evidence; an unknown name; a
            batch of several fields.

    Source: Geman and Geman (1984); Koller and Friedman, Probabilistic Graphical Models,
        algorithm 12.4; Gonzalez, Low, Gretton and Guestrin, "Parallel Gibbs sampling: from colored
        fields to thin junction trees" (2011), for colours.
    """
    count = checked_count(n, 4, "n, the sweeps kept,")
    many = checked_count(chains, 2, "chains")
    burnt = checked_count(burn_in, 0, "burn_in")
    directed = isinstance(model, Tables) and model.directed
    if not directed and not hasattr(model, "get_cpds"):
        return _chromatic(model, evidence, targets, (count, many, burnt), seed)
    tables, observed, wanted = _question(model, evidence, targets)
    zeros = [factor.variables[0] for factor in tables.factors if not factor.values.all()]
    if zeros:
        warnings.warn(
            f"{len(zeros)} tables hold zeros, as that of {zeros[0]} does: a Gibbs chain may "
            "not reach every possible state; likelihood_weighting has no such limit",
            stacklevel=2,
        )
    rng = np.random.default_rng(seed)
    drawn, log_weights = _weighted_draws(tables, observed, max(STARTS, 10 * many), rng)
    weights = np.exp(log_weights - log_weights.max())
    # Evenly spaced quantiles pick each start as often as its weight says, or one more or less.
    picks = (np.arange(many) + rng.random()) / many * weights.sum()
    start = np.searchsorted(weights.cumsum(), picks, side="right")
    start = rng.permutation(start.clip(max=np.flatnonzero(weights)[-1]))
    state = {variable: column[start].astype(np.int64) for variable, column in drawn.items()}
    free = [v for v in tables.states if v not in observed and len(tables.states[v]) > 1]
    blankets = [(v, _blanket(tables, v)) for v in free]
    kept = {
        v: np.empty((count, many), index_type(len(tables.states[v]))) for v in wanted
    }  # (sweeps, chains)
    for sweep in range(-burnt, count):
        for (variable, logs), uniform in zip(blankets, rng.random((len(free), many)), strict=True):
            state[variable] = _redrawn(logs, state, uniform)
        if sweep >= 0:
            for variable, history in kept.items():
                history[sweep] = state[variable]
    half = count // 2
    found = []
    for variable, history in kept.items():
        each = range(len(tables.states[variable]))
        ends = np.concatenate([history[:half], history[count - half :]], 1)  # (half, 2 chains)
        means = np.stack([(history == k).mean(0) for k in each])  # (states, chains)
        halves = np.stack([(ends == k).mean(0) for k in each])
        found.append(([variable], means[None], halves[None]))
    return _summary({v: tables.states[v] for v in wanted}, found, count, many)


def _chromatic(
    model: Any,
    evidence: Mapping[Variable, Any] | None,
    targets: Iterable[Variable] | None,
    counts: tuple[int, int, int],
    seed: int,
) -> Estimate:
    """`gibbs` on a factor graph."""
    from .factor_graph import FactorGraph
    from .messages.chromatic import shares

    graph = FactorGraph.of(model)
    found = shares(graph, evidence, targets, *counts, np.random.default_rng(seed))
    names, labels = graph.variables, graph.states
    wanted = sorted(int(v) for share in found for v in share.variables)
    alike = [([names[v] for v in share.variables], share.means, share.halves) for share in found]
    return _summary({names[v]: labels[names[v]] for v in wanted}, alike, *counts[:2])


def _question(
    bn: Any, evidence: Mapping[Variable, Any] | None, targets: Iterable[Variable] | None
) -> tuple[Tables, dict[Variable, int], list[Variable]]:
    """The tables that matter, the observed state indices, and the targets in the model's order."""
    tables = directed_tables(bn)
    found, rows = encode(tables, evidence)
    if rows is not None:
        raise ValueError(
            f"sampling answers one row of evidence at a time; got {rows} rows. "
            "Give one state a variable, or use graphs.JunctionTree for many rows"
        )
    observed = {v: int(index[0]) for v, index in found.items() if index[0] != UNOBSERVED}
    if targets is None:
        wanted = [variable for variable in tables.states if variable not in observed]
    else:
        asked = [targets] if isinstance(targets, str) else list(targets)
        for variable in asked:
            if variable not in tables.states:
                raise ValueError(unknown("variable", variable, tables.states))
        wanted = [variable for variable in tables.states if variable in asked]
    graph = tables.graph()
    needed = {*wanted, *observed}
    needed = needed.union(*(nx.ancestors(graph, variable) for variable in needed))
    return (
        Tables(
            {v: states for v, states in tables.states.items() if v in needed},
            [factor for factor in tables.factors if factor.variables[0] in needed],
            directed=True,
        ),
        observed,
        wanted,
    )


def _weighted_draws(
    tables: Tables, observed: dict[Variable, int], n: int, rng: np.random.Generator
) -> tuple[dict[Variable, np.ndarray], np.ndarray]:
    """Draws with the observed held, and the logarithms of their weights (n,)."""
    drawn = sample_indices(tables, n, rng, observed)
    log_weights = np.zeros(n)
    for variables, values in tables.factors:
        if variables[0] in observed:
            logs = _logs(values).ravel()
            log_weights += logs[flat_index([drawn[v] for v in variables], [*values.shape])]
    if not np.isfinite(log_weights.max()):
        raise ValueError(
            f"none of {n:,} weighted draws agrees with the evidence: it is impossible, or too rare "
            "for sampling; graphs.JunctionTree tells which"
        )
    return drawn, log_weights


def _blanket(tables: Tables, variable: Variable) -> Blanket:
    """The factors that hold a variable: those of its Markov blanket."""
    found = []
    for variables, values in tables.factors:
        if variable in variables:
            others = tuple(v for v in variables if v != variable)
            last = np.moveaxis(_logs(values), variables.index(variable), -1)
            found.append((others, [*last.shape[:-1]], last.reshape(-1, last.shape[-1])))
    return found


def _redrawn(
    blanket: Blanket, state: dict[Variable, np.ndarray], uniform: np.ndarray
) -> np.ndarray:
    """A variable drawn afresh in every chain from its distribution given all others."""
    total = np.zeros((len(uniform), blanket[0][2].shape[1]))  # (chains, states)
    for others, sizes, logs in blanket:
        total += logs[flat_index([state[v] for v in others], sizes)]
    mass = np.exp(total - total.max(1, keepdims=True)).cumsum(1)
    # u is at most 1 - 2^-53, so u * mass rounds to below the whole mass: no state after the last
    # possible one is reached.
    reached = uniform * mass[:, -1]
    return (mass <= reached[:, None]).sum(1)


def _summary(
    states: dict[Variable, tuple[Any, ...]],
    found: Iterable[tuple[list[Variable], np.ndarray, np.ndarray]],
    sweeps: int,
    chains: int,
) -> Estimate:
    """The estimate from how often variables were in each state.

    Args:
        states: of each target.
        found: variables with the same number of states K; the shares of their states in each chain,
            (variables, K, chains); and in each half chain, (variables, K, 2 chains).
        sweeps: of a chain.
        chains: how many.
    """
    probabilities: dict[Variable, np.ndarray] = {}
    errors: dict[Variable, np.ndarray] = {}
    r_hat: dict[Variable, float] = {}
    least = math.inf
    for variables, means, halves in found:
        p, error = means.mean(2), means.std(2, ddof=1) / math.sqrt(chains)
        moved = error > 0
        least = min(least, np.min((p * (1 - p))[moved] / error[moved] ** 2, initial=math.inf))
        probabilities |= zip(variables, p, strict=True)
        errors |= zip(variables, error, strict=True)
        r_hat |= zip(variables, _r_hat(halves, sweeps // 2).tolist(), strict=True)
    return Estimate(
        "Gibbs sampling",
        states,
        {variable: probabilities[variable] for variable in states},
        {variable: errors[variable] for variable in states},
        sweeps * chains,
        float(least),
        r_hat={variable: r_hat[variable] for variable in states},
    )


def _r_hat(means: np.ndarray, length: int) -> np.ndarray:
    """The largest R-hat of a variable's states, from the share of each state in each sequence.

    A sequence of zeros and ones with mean m has variance length / (length - 1) m (1 - m).

    Args:
        means: (..., states, sequences).
        length: of every sequence.

    Returns:
        Shape (...).
    """
    within = (length / (length - 1) * means * (1 - means)).mean(-1)
    between = means.var(-1, ddof=1)  # B / n of the book
    ratio = np.ones_like(within)
    np.divide(between, within, out=ratio, where=within > 0)
    ratio = np.where(within > 0, (length - 1) / length + ratio, 1.0)
    # each sequence stuck in a state, not all in the same
    ratio[(within == 0) & (between > 0)] = math.inf
    return np.sqrt(ratio.max(-1, initial=1.0))


def _logs(values: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(values)
