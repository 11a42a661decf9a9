"""Forward and backward messages of hidden Markov models, and what follows from them.

With e_t(k) = p(x_t | z_t = k), divided by its largest entry s_t, and e_0 also times p(z_0 = k):

    f_t = (A^T f_{t-1}) * e_t / c_t          p(z_t | x_0..t), and log p(x) = sum_t log c_t + log s_t
    w_t = (A w_{t+1}) * e_t, up to a factor  p(x_t.. | z_t)
    p(z_t = i | x)                           ~  f_t(i) (A w_{t+1})(i)
    p(z_t = i, z_{t+1} = j | x)              ~  f_t(i) A_ij w_{t+1}(j)

Rabiner (1989), "A tutorial on hidden Markov models", sections III and V; Bishop, PRML, 13.2. Both
recursions are one (`scans.recursion`): the backward one runs on reversed sequences with A^T, beside
the forward one. Shapes are those of `scans`: (T, G, K, N).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .scans import Algebra, Logarithmic, Scaled, Watched, block_length, recursion, safe_log

LEAST = 0.3  # products of three such powers of the smallest float are floats
PIECE = 2**22  # entries of the largest array that is made of (K, K) at each step


@dataclass(frozen=True)
class Weighted:
    """A sequence as the recursions read it."""

    algebra: Algebra
    matrix: Tensor
    """A, (G, K, K), in the algebra."""
    weights: Tensor
    """e, (T, G, K, N), in the algebra."""
    shift: Tensor
    """log s, (T, G, N)."""
    mask: Tensor
    """Where there is a sequence and not padding, (T, N)."""
    way: str
    """"auto", "sequential" or "scan"."""

    def block(self, models: int) -> int | None:
        steps, _, states, rows = self.weights.shape
        if self.way == "auto":
            device = self.weights.device
            return block_length(steps, models, states, rows, self.algebra, device)
        return None if self.way == "sequential" else 16


def weigh(
    initial: Tensor,
    transition: Tensor,
    log_emission: Tensor,
    mask: Tensor,
    way: str = "auto",
    algebra: Algebra | None = None,
) -> Weighted:
    """What the recursions read, in plain numbers where these cannot underflow.

    Let a be the smallest transition probability. A state whose weight at one step falls below the
    smallest float has at most 1 / a^4 times that share in any later message or transfer, so that
    plain numbers lose nothing where a is not nearly zero. With zeros among the transitions, a state
    may look lost for hundreds of steps, and be the only one possible in the end. Plain numbers are
    then watched: where all positive results stay above t, and all positive A_ij e_t(j) do, every
    product of two of them is a float, and nothing was lost. Else it is done again in logarithms.

    Args:
        initial: p(z_0), (G, K).
        transition: A, (G, K, K).
        log_emission: log p(x_t | z_t), (T, G, K, N), 0 where missing or padded.
        mask: (T, N).
        way: "auto", "sequential" or "scan".
        algebra: to take this one.
    """
    first = log_emission[:1] + safe_log(initial)[..., None]
    logs = torch.cat([first, log_emission[1:]])
    shift = logs.detach().amax(2)
    shift = shift.masked_fill(shift == -math.inf, 0.0)
    logs = logs - shift[:, :, None]
    if algebra is None:
        algebra = _algebra_for(transition.detach(), logs.detach())
    if isinstance(algebra, Scaled):
        return Weighted(algebra, transition, logs.exp(), shift, mask, way)
    return Weighted(algebra, safe_log(transition), logs, shift, mask, way)


def _algebra_for(transition: Tensor, logs: Tensor) -> Algebra:
    tiny = torch.finfo(logs.dtype).tiny
    if bool((transition > tiny**0.2).all()):
        return Scaled()
    moves = torch.where(transition > 0, transition, 1.0).amin().log()
    steps = torch.where(logs > -math.inf, logs, 0.0).amin()
    return Watched() if float(moves + steps) > LEAST * math.log(tiny) else Logarithmic()


def _nothing_lost(algebra: Algebra) -> bool:
    if not isinstance(algebra, Watched) or algebra.least is None:
        return True
    return float(algebra.least) > torch.finfo(algebra.least.dtype).tiny ** LEAST


def _in_logarithms(given: Weighted) -> Weighted:
    matrix, weights = safe_log(given.matrix), safe_log(given.weights)
    return replace(given, algebra=Logarithmic(), matrix=matrix, weights=weights)


def log_likelihood(given: Weighted, log_scales: Tensor) -> Tensor:
    """log p(x), (G, N), from log c, (T, G, N)."""
    # (T, 1, N) against (T, G, N)
    return torch.where(given.mask[:, None], log_scales + given.shift, 0.0).sum(0)


def forward(given: Weighted) -> tuple[Weighted, Tensor, Tensor]:
    """What was read, the messages f, (T, G, K, N), and log p(x), (G, N)."""
    block = given.block(given.weights.shape[1])
    messages, scales = recursion(given.matrix, given.weights, given.algebra, block)
    if not _nothing_lost(given.algebra):
        return forward(_in_logarithms(given))
    return given, messages, log_likelihood(given, scales)


def forward_backward(given: Weighted) -> tuple[Weighted, Tensor, Tensor, Tensor]:
    """What was read, the messages f and w, (T, G, K, N) each, and log p(x), (G, N)."""
    models = given.weights.shape[1]
    weights = torch.cat([given.weights, reverse(given.weights, given.mask)], 1)
    matrix = torch.cat([given.matrix, given.matrix.mT])
    messages, scales = recursion(matrix, weights, given.algebra, given.block(2 * models))
    if not _nothing_lost(given.algebra):
        return forward_backward(_in_logarithms(given))
    backward = reverse(messages[:, models:], given.mask)
    return given, messages[:, :models], backward, log_likelihood(given, scales[:, :models])


def reverse(values: Tensor, mask: Tensor) -> Tensor:
    """Each sequence of (T, G, K, N) backwards within its length; its padding stays behind it."""
    if mask.all():
        return values.flip(0)
    steps = torch.arange(len(mask), device=mask.device)[:, None]  # (T, 1)
    index = torch.where(mask, mask.sum(0) - 1 - steps, steps)  # (T, N)
    return values.gather(0, index[:, None, None].expand_as(values))


def smoothed(given: Weighted, forward: Tensor, backward: Tensor) -> Tensor:
    """p(z_t | x), (T, G, K, N): zero in padding, nan where the sequence is impossible."""
    algebra, mask = given.algebra, given.mask[:, None, None]
    steps, models, states, rows = forward.shape
    found = torch.full_like(forward, algebra.one)  # after the last step nothing is known
    if steps > 1:
        later = [
            # (steps, G, K, N) as (G, K, steps * N), to one step of the recursion
            algebra.step(given.matrix.mT, part.movedim(0, 2).flatten(2))
            .unflatten(2, (-1, rows))
            .movedim(2, 0)
            for part in backward[1:].split(_steps(models * rows * states**2))
        ]
        ends = torch.cat([~mask[1:], torch.ones_like(mask[:1])])
        found = torch.where(ends, found, torch.cat([*later, found[-1:]]))
    found = algebra.times(found, forward)
    total = algebra.total(found, 2)
    found = algebra.number(algebra.divide(found, total))
    possible = algebra.log(total.detach()) > -math.inf
    return torch.where(mask, found.masked_fill(~possible, math.nan), 0.0)


def pairwise(given: Weighted, forward: Tensor, backward: Tensor) -> Iterator[Tensor]:
    """p(z_t = i, z_{t+1} = j | x) in pieces of (some t, G, K, K, N), T - 1 steps in all.

    Zero where t + 1 is in padding, nan where the sequence is impossible.
    """
    algebra = given.algebra
    _, models, states, rows = forward.shape
    size = _steps(models * rows * states**2)
    parts = zip(
        forward[:-1].split(size), backward[1:].split(size), given.mask[1:].split(size), strict=True
    )
    for before, after, mask in parts:
        found = algebra.times(before[:, :, :, None], after[:, :, None])
        found = algebra.times(found, given.matrix[..., None])
        found = found.flatten(2, 3)
        total = algebra.total(found, 2)
        found = algebra.number(algebra.divide(found, total))
        possible = algebra.log(total.detach()) > -math.inf
        found = torch.where(mask[:, None, None], found.masked_fill(~possible, math.nan), 0.0)
        yield found.unflatten(2, (states, states))


def transition_counts(given: Weighted, forward: Tensor, backward: Tensor) -> Tensor:
    """sum_t p(z_t = i, z_{t+1} = j | x), (G, K, K), over all steps of all sequences."""
    if len(forward) < 2:
        return torch.zeros_like(given.matrix)
    if not isinstance(given.algebra, Scaled):
        return torch.stack([part.sum((0, 4)) for part in pairwise(given, forward, backward)]).sum(0)
    # One product of matrices over all steps: (G, K, (T - 1) N).
    before, after = (v.movedim(0, 2).flatten(2) for v in (forward[:-1], backward[1:]))
    total = (before * (given.matrix @ after)).sum(1, keepdim=True)
    before = torch.where(given.mask[1:].flatten(), before / total, 0.0)
    return given.matrix * (before @ after.mT)


def _steps(entries: int) -> int:
    """How many steps of so many entries make a piece."""
    return max(1, PIECE // entries)
