"""Baum-Welch: a hidden Markov model learned by expectation maximisation, from several starts."""

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..ancestral import checked_count
from ..names import unknown
from ..progress import Bar
from . import smoothing
from .emission_steps import FLOOR, Normals, Tables, normalised
from .hmm import HMM


@dataclass(frozen=True, eq=False, repr=False)
class Fitted:
    """A learned model, and how each start did."""

    hmm: HMM
    """The model of the best start."""
    log_likelihoods: tuple[tuple[float, ...], ...]
    """Of each start: log p(x) in nats of the first guess, then after every iteration."""
    objectives: tuple[tuple[float, ...], ...]
    """What never falls: log p(x) + pseudocount * (sum of the logarithms of all probabilities);
    equal to `log_likelihoods` where the pseudocount is zero."""
    converged: tuple[bool, ...]
    """Of each start: whether it came to rest before the iterations ran out."""
    best: int
    """The start with the largest objective."""
    floored: tuple[int, ...]
    """States of the model whose variance was kept from vanishing."""

    def __str__(self) -> str:
        reached = self.log_likelihoods[self.best][-1]
        done = len(self.log_likelihoods[self.best]) - 1
        said = f"{self.hmm!r}\nlog-likelihood {reached:.6g} nats after {done} iterations"
        said += f"; {sum(self.converged)} of {len(self.converged)} starts converged"
        return said + (f"; variances floored of states {self.floored}" if self.floored else "")

    __repr__ = __str__


@torch.no_grad()
def fit(
    x: Any,
    states: int,
    emission: str = "categorical",
    *,
    lengths: Any = None,
    restarts: int = 5,
    iterations: int = 200,
    tolerance: float = 1e-6,
    seed: int = 0,
    pseudocount: float = 0.0,
    categories: int | None = None,
    dtype: torch.dtype = torch.float64,
    device: Any = "cpu",
    progress: bool = True,
) -> Fitted:
    """Maximise log p(x) over all parameters by expectation maximisation; starts run side by side.

    With g_t(i) = p(z_t = i | x) and n_ij = sum_t p(z_t = i, z_{t+1} = j | x), each iteration sets

        initial_i = g_0(i),  transition_ij = n_ij / sum_j n_ij,
        table_im = sum_t g_t(i) [x_t = m] / sum_t g_t(i),   or mean and covariance of x under g(i)

    which never lowers the likelihood. It ends in a local maximum: hence several starts. A state
    that is never visited keeps its parameters.

    A Gaussian state can come down to one observation, where the likelihood has no bound. So every
    covariance is at least 1e-6 of the data's variances (its eigenvalues, in units in which each
    coordinate has variance one, are held at 1e-6), which leaves each iteration a maximum under
    this constraint. A warning says when it binds, and `Fitted.floored` where.

    Args:
        x: categories (T,) or (N, T); numbers (T,); vectors (T, D) or (N, T, D), so that a batch of
            numbers is (N, T, 1). Missing observations are summed out; of a vector, all coordinates
            are missing or none.
        states: K. Vectors get full covariances, numbers a scale.
        emission: "categorical" or "gaussian".
        lengths: of the sequences of a batch.
        restarts: starts from random parameters.
        iterations: at most.
        tolerance: a start has converged when an iteration gains less than
            tolerance * (1 + |objective|).
        seed: the same seed gives the same answer.
        pseudocount: added to each expected count of initial states, transitions and categories:
            the maximum a posteriori under Dirichlet(1 + pseudocount).
        categories: M, where larger observations exist than x shows.
        dtype, device: of the computation and of the model.
        progress: show a bar on the error stream where it takes more than two seconds.

    Raises:
        TypeError, ValueError: observations as in `HMM`; nothing observed; numbers out of range.

    Source: Baum et al. (1970), Annals of Mathematical Statistics 41; Rabiner (1989), section III.C;
        Bishop, PRML, 13.2.1.
    """
    for name, given in (("states", states), ("restarts", restarts), ("iterations", iterations)):
        if isinstance(given, bool) or not isinstance(given, int) or given < 1:
            raise ValueError(f"{name} must be an integer of 1 or more; got {given!r}")
    for name, value in (("tolerance", tolerance), ("pseudocount", pseudocount)):
        if not (value >= 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be zero or more; got {value!r}")
    if emission not in ("categorical", "gaussian"):
        raise ValueError(unknown("emission", emission, ("categorical", "gaussian")))
    like = torch.empty(0, dtype=dtype, device=device)
    rng = np.random.default_rng(seed)
    emissions: Tables | Normals
    if emission == "categorical":
        if categories is not None:
            categories = checked_count(categories, 1, "categories")
        emissions = Tables(x, lengths, like, (restarts, states), rng, pseudocount, categories)
    else:
        if categories is not None:
            raise ValueError("categories belong to categorical emissions; emission is 'gaussian'")
        emissions = Normals(x, lengths, like, (restarts, states), rng)
    initial, transition = _first_guess(states, restarts, rng, like)

    curves: list[list[float]] = [[] for _ in range(restarts)]
    objectives: list[list[float]] = [[] for _ in range(restarts)]
    converged = [False] * restarts
    running = torch.arange(restarts, device=device)
    with Bar("Baum-Welch", iterations, progress) as bar:
        for iteration in range(iterations + 1):
            weighted = smoothing.weigh(
                initial[running], transition[running], emissions.log_prob(running), emissions.mask
            )
            weighted, forward, backward, totals = smoothing.forward_backward(weighted)
            reached = totals.sum(1) + emissions.log_unit
            held = reached
            if pseudocount:
                prior = initial[running].log().sum(1) + transition[running].log().sum((1, 2))
                held = reached + pseudocount * (prior + emissions.log_prior(running))
            for i, a, b in zip(running.tolist(), reached.tolist(), held.tolist(), strict=True):
                curves[i].append(a)
                objectives[i].append(b)
                if len(objectives[i]) > 1:
                    converged[i] = b - objectives[i][-2] < tolerance * (1 + abs(b))
            kept = torch.tensor([not converged[i] for i in running.tolist()], device=device)
            bar.at(iteration, f"{max(curve[-1] for curve in curves):.6g} nats")
            if iteration == iterations or not kept.any():
                break
            marginals = smoothing.smoothed(weighted, forward, backward)[:, kept]
            counts = smoothing.transition_counts(weighted, forward, backward)[kept]
            running = running[kept]
            first = marginals[0].sum(-1)
            initial[running] = normalised(first + pseudocount, initial[running])
            transition[running] = normalised(counts + pseudocount, transition[running])
            emissions.learn(running, marginals)
    best = max(range(restarts), key=lambda i: objectives[i][-1])
    floored = emissions.floored(best)
    if floored:
        warnings.warn(
            f"the variances of states {', '.join(map(str, floored))} were about to vanish and are "
            f"held at {FLOOR:g} of the data's: fewer states, or more data, may suit",
            stacklevel=3,
        )
    model = HMM(initial[best], transition[best], emissions.of(best), dtype=dtype, device=device)
    return Fitted(
        model,
        tuple(map(tuple, curves)),
        tuple(map(tuple, objectives)),
        tuple(converged),
        best,
        floored,
    )


def _first_guess(
    states: int, restarts: int, rng: np.random.Generator, like: Tensor
) -> tuple[Tensor, Tensor]:
    """Uniform initial states, and transitions that stay more or less often, by the start."""
    initial = torch.full((restarts, states), 1 / states).to(like)
    stay = rng.uniform(size=(restarts, 1, 1))
    moves = rng.dirichlet(np.ones(states), (restarts, states))
    moves = 0.9 * (stay * np.eye(states) + (1 - stay) * moves) + 0.1 / states
    return initial, torch.as_tensor(moves).to(like)
