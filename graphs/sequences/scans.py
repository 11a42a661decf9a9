"""Recursions of hidden Markov models over time: step by step, or as a scan of few wide steps.

All messages of a hidden Markov model come from one recursion, which is normalised at every step:

    v_0 = e_0 / c_0,    v_t = (A^T v_{t-1}) * e_t / c_t

over the numbers (sum, product), their logarithms (logsumexp, sum), or logarithms with a maximum in
place of the sum. It is associative, so that it can be cut into blocks of L steps (Blelloch 1990;
Sarkka and Garcia-Fernandez 2021, "Temporal parallelization of Bayesian smoothers"):

1.  for all blocks at once, L steps from each of the K states give the block's (K, K) transfer;
2.  the messages before each block are the same recursion over the transfers, cut up in turn;
3.  for all blocks at once, L steps from these messages give every message.

That is K times the arithmetic of a loop over T steps, in about 2 L log(T) / log(L) steps.

Shapes: G models at once, K states, N sequences, T steps. Vectors are (G, K, N), the weights e are
(T, G, K, N), and A is (G, K, K). States stand before sequences, so that each step runs along
contiguous sequences and blocks rather than along a handful of states.
"""

import math
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

CELLS = 2**19  # of the largest array of a step; more would leave the processor's cache


class Algebra(Protocol):
    """A sum and a product, and how to keep their results within the range of floats."""

    one: float
    zero: float

    def step(self, matrix: Tensor, vectors: Tensor) -> Tensor:
        """sum_i A_ij v_i: (G, K, K) and (G, K, R) to (G, K, R)."""

    def times(self, a: Tensor, b: Tensor) -> Tensor:
        """The product, entry by entry."""

    def total(self, values: Tensor, axis: int) -> Tensor:
        """The sum over an axis, which stays with length one."""

    def largest(self, matrices: Tensor) -> Tensor:
        """The largest entry over axes 1 and 2, which stay with length one."""

    def divide(self, values: Tensor, by: Tensor) -> Tensor:
        """The quotient; zero where both are zero."""

    def log(self, values: Tensor) -> Tensor:
        """Logarithms; -inf for zero."""

    def number(self, values: Tensor) -> Tensor:
        """Plain numbers."""


class Scaled:
    """Numbers, with sums and products: the fastest, where nothing can underflow."""

    one, zero = 1.0, 0.0

    def step(self, matrix: Tensor, vectors: Tensor) -> Tensor:
        return matrix.mT @ vectors

    def times(self, a: Tensor, b: Tensor) -> Tensor:
        return a * b

    def total(self, values: Tensor, axis: int) -> Tensor:
        return values.sum(axis, keepdim=True)

    def largest(self, matrices: Tensor) -> Tensor:
        return matrices.detach().amax((1, 2), keepdim=True)

    def divide(self, values: Tensor, by: Tensor) -> Tensor:
        return values / by.clamp_min(torch.finfo(by.dtype).tiny)

    def log(self, values: Tensor) -> Tensor:
        return safe_log(values)

    def number(self, values: Tensor) -> Tensor:
        return values


class Watched(Scaled):
    """Numbers, with the smallest positive entry of all results kept: whether any could be lost."""

    def __init__(self) -> None:
        self.least: Tensor | None = None

    def divide(self, values: Tensor, by: Tensor) -> Tensor:
        found = super().divide(values, by)
        if found.numel():
            seen = found.detach()
            least = torch.where(seen > 0, seen, math.inf).amin()
            self.least = least if self.least is None else torch.minimum(self.least, least)
        return found


class Logarithmic:
    """Logarithms, with logsumexp and sums: exact for whatever floats can hold."""

    one, zero = 0.0, -math.inf

    def step(self, matrix: Tensor, vectors: Tensor) -> Tensor:
        # (G, K from, K to, 1) + (G, K from, 1, R), summed over "from"
        return log_sum(matrix[..., None] + vectors[:, :, None, :], 1).squeeze(1)

    def times(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b

    def total(self, values: Tensor, axis: int) -> Tensor:
        return log_sum(values, axis)

    def largest(self, matrices: Tensor) -> Tensor:
        return matrices.detach().amax((1, 2), keepdim=True)

    def divide(self, values: Tensor, by: Tensor) -> Tensor:
        return values - by.masked_fill(by == -math.inf, 0.0)

    def log(self, values: Tensor) -> Tensor:
        return values

    def number(self, values: Tensor) -> Tensor:
        return values.exp()


class MaxPlus(Logarithmic):
    """Logarithms, with a maximum in place of the sum: the most probable path."""

    def step(self, matrix: Tensor, vectors: Tensor) -> Tensor:
        return (matrix[..., None] + vectors[:, :, None, :]).amax(1)

    def total(self, values: Tensor, axis: int) -> Tensor:
        return values.amax(axis, keepdim=True)


def safe_log(values: Tensor) -> Tensor:
    """log, -inf at zero, where the gradient is zero and not a nan."""
    positive = values > 0
    return torch.where(positive, torch.where(positive, values, 1.0).log(), -math.inf)


def log_sum(values: Tensor, axis: int) -> Tensor:
    """logsumexp over an axis, which stays, with a gradient of zero where all is -inf.

    PyTorch's has the gradient nan there, and one impossible state would spoil all others.
    """
    top = values.detach().amax(axis, keepdim=True)
    top = top.masked_fill(top == -math.inf, 0.0)
    return safe_log((values - top).exp().sum(axis, keepdim=True)) + top


def recursion(
    matrix: Tensor, weights: Tensor, algebra: Algebra, block: int | None
) -> tuple[Tensor, Tensor]:
    """All messages v_0 = e_0 / c_0 and v_t = (A^T v_{t-1}) * e_t / c_t, each of total one.

    Args:
        matrix: A, (G, K, K), from the row's state to the column's.
        weights: e, (T, G, K, N).
        algebra: what both are written in.
        block: steps in a block, or None for one step after the other.

    Returns:
        The messages (T, G, K, N), and the logarithms of c (T, G, N): -inf from the first step on at
        which everything is zero.
    """
    scale = algebra.total(weights[0], 1)
    first = algebra.divide(weights[0], scale)
    rest, scales = _messages(first, matrix, weights[1:], algebra, block)
    messages = torch.cat([first[None], rest])
    return messages, algebra.log(torch.cat([scale[None], scales]).squeeze(2))


def _messages(
    before: Tensor, matrix: Tensor, weights: Tensor, algebra: Algebra, block: int | None
) -> tuple[Tensor, Tensor]:
    """The messages after `before`, (T, G, K, N), and their totals, (T, G, 1, N)."""
    length, rows = len(weights), weights.shape[3]
    if block is None or length <= 2 * block:
        return _in_turn(before, matrix, weights, algebra)
    blocks = -(-length // block)
    # What is padded comes after all that is kept, and messages do not look ahead.
    weights = pad(weights, (0, 0, 0, 0, 0, 0, 0, blocks * block - length), value=algebra.one)
    # (blocks, block, G, K, N) -> (block, G, K, blocks, N)
    weights = weights.unflatten(0, (blocks, block)).permute(1, 2, 3, 0, 4).contiguous()
    transfers = _transfers(matrix, weights, algebra)
    starts = _before_each(before, transfers, algebra, block)
    found, totals = _in_turn(starts.flatten(2), matrix, weights.flatten(3), algebra)

    def in_order(values: Tensor) -> Tensor:  # (block, G, any, blocks * N) -> (T, G, any, N)
        values = values.unflatten(3, (blocks, rows)).permute(3, 0, 1, 2, 4)
        return values.flatten(0, 1)[:length]

    return in_order(found), in_order(totals)


def _in_turn(
    vectors: Tensor, matrix: Tensor, weights: Tensor, algebra: Algebra
) -> tuple[Tensor, Tensor]:
    found, totals = [], []
    for weight in weights.unbind():
        vectors = algebra.times(algebra.step(matrix, vectors), weight)
        total = algebra.total(vectors, 1)
        vectors = algebra.divide(vectors, total)
        found.append(vectors)
        totals.append(total)
    if not found:
        models, states, rows = vectors.shape
        return vectors.new_empty(0, models, states, rows), vectors.new_empty(0, models, 1, rows)
    return torch.stack(found), torch.stack(totals)


def _transfers(matrix: Tensor, weights: Tensor, algebra: Algebra) -> Tensor:
    """Each block from each state: (block, G, K, B, N) to (G, K to, K from, B, N), up to a factor.

    The recursion of K start vectors, whose ratio must be kept: only the largest entry of a transfer
    is brought to one.
    """
    _, models, states, blocks, rows = weights.shape
    # (G, to, from, 1, 1) * (G, to, 1, B, N)
    found = algebra.times(matrix.mT[..., None, None], weights[0][:, :, None])
    found = algebra.divide(found, algebra.largest(found))
    for weight in weights[1:].unbind():
        found = algebra.step(matrix, found.flatten(2)).view(models, states, states, blocks, rows)
        found = algebra.times(found, weight[:, :, None])
        found = algebra.divide(found, algebra.largest(found))
    return found


def _apply(transfers: Tensor, vectors: Tensor, algebra: Algebra) -> Tensor:
    """(G, K to, K from, ...) and (G, K from, ...) to (G, K to, ...), the largest entry one."""
    found = algebra.total(algebra.times(transfers, vectors[:, None]), 2).squeeze(2)
    return algebra.divide(found, algebra.largest(found[:, :, None]).squeeze(2))


def _compose(later: Tensor, earlier: Tensor, algebra: Algebra) -> Tensor:
    """Transfers after one another, (G, K to, K from, ...), the largest entry one."""
    # (G, to, via, 1, ...) * (G, 1, via, from, ...), summed over "via"
    found = algebra.total(algebra.times(later[:, :, :, None], earlier[:, None]), 2).squeeze(2)
    return algebra.divide(found, algebra.largest(found))


def _before_each(before: Tensor, transfers: Tensor, algebra: Algebra, block: int) -> Tensor:
    """The message before each block, (G, K, B, N), from the one before the first, (G, K, N)."""
    blocks = transfers.shape[3]
    if blocks <= 2 * block:
        found = [before]
        for transfer in transfers.unbind(3)[:-1]:
            found.append(_apply(transfer, found[-1], algebra))
        # All are brought to total one, which is what the recursion's factors c build on.
        stacked = torch.stack(found, 2)
        return algebra.divide(stacked, algebra.total(stacked, 1))
    groups = -(-blocks // block)
    filled = pad(transfers, (0, 0, 0, groups * block - blocks), value=algebra.one)
    parts = filled.unflatten(3, (groups, block)).unbind(4)  # block of (G, K, K, groups, N)
    whole = parts[0]
    for part in parts[1:]:
        whole = _compose(part, whole, algebra)
    found = [_before_each(before, whole, algebra, block)]
    for part in parts[:-1]:
        found.append(_apply(part, found[-1], algebra))
    stacked = torch.stack(found, 3).flatten(2, 3)[:, :, :blocks]
    return algebra.divide(stacked, algebra.total(stacked, 1))


def block_length(
    steps: int, models: int, states: int, rows: int, algebra: Algebra, device: torch.device
) -> int | None:
    """Steps in a block by the faster of the two ways, None for one step after the other.

    A step costs its calls and its arithmetic.
    """
    width = models * rows * states**2  # products of one step, without blocks
    if steps < 64:
        return None
    cells = states * (1 if isinstance(algebra, Scaled) else states)  # of a message, in a transfer
    # Blocks as short as the largest array allows.
    block = max(16, math.ceil(steps * models * rows * states * cells / CELLS))
    call, product = COSTS[device.type == "cpu", isinstance(algebra, Scaled)]
    in_turn = steps * (call + product * width)
    levels = math.log(steps) / math.log(block)
    blocked = 2 * block * levels * call + steps * product * width * (states + 1) * 1.1
    return block if 2 * block < steps and blocked < in_turn else None


# Seconds of a step's calls, and of one product within it, by (on a CPU?, plain numbers?). Those of
# CPUs are measured; those of GPUs only say that calls cost more there, and products little.
COSTS = {
    (True, True): (1.2e-5, 4e-10),
    (True, False): (3e-5, 5e-9),
    (False, True): (6e-5, 1e-11),
    (False, False): (1e-4, 1e-11),
}


def follow(first: Tensor, maps: Tensor, block: int | None = None) -> Tensor:
    """The walk s_0 = first, s_{t+1} = maps[t, n, s_t], in blocks of steps like the recursion.

    Args:
        first: states, (N,).
        maps: the next state by the present one, (T, N, K).
        block: steps in a block; about the square root of T by default.

    Returns:
        The states s_0 to s_T, (T + 1, N).
    """
    length, rows, states = maps.shape
    block = block or max(1, math.isqrt(length))
    blocks = -(-length // block)
    maps = pad(maps, (0, 0, 0, 0, 0, blocks * block - length))  # what comes after is not kept
    maps = maps.unflatten(0, (blocks, block)).movedim(1, 0).contiguous()  # (block, blocks, N, K)
    ends = torch.arange(states, device=maps.device).expand(blocks, rows, states)
    for step in maps.unbind():
        ends = step.gather(2, ends)
    starts = [first]
    for end in ends.unbind():
        starts.append(end.gather(1, starts[-1][:, None]).squeeze(1))
    if not blocks:
        return first[None]
    present = torch.stack(starts[:-1])  # (blocks, N)
    found = []
    for step in maps.unbind():
        present = step.gather(2, present[..., None]).squeeze(2)
        found.append(present)
    walked = torch.stack(found, 1).flatten(0, 1)[:length]  # (T, N)
    return torch.cat([first[None], walked])
