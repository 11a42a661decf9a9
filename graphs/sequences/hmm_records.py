"""What hidden Markov models answer."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor


@dataclass(frozen=True, eq=False, repr=False)
class Smoothed:
    """Marginals of the hidden states given the observations.

    Rows in the padding of a batch are zero. Where the observations are impossible, so that there is
    no posterior, `log_likelihood` is -inf and the marginals are nan (those of `filtered` from the
    impossible step on).
    """

    filtered: Tensor
    """p(z_t | x_0..t), (T, K) or (N, T, K)."""
    smoothed: Tensor
    """p(z_t | x), of the same shape."""
    log_likelihood: Tensor
    """log p(x) in nats, () or (N,)."""
    _pairs: Callable[[], Tensor]

    @cached_property
    def pairwise(self) -> Tensor:
        """p(z_t = i, z_{t+1} = j | x), (T - 1, K, K) or (N, T - 1, K, K), made when asked for.

        Its sum over t is the expected number of each transition.
        """
        return self._pairs()

    def __str__(self) -> str:
        value = self.log_likelihood.detach()
        shown = f"{float(value):.6g} nats" if value.ndim == 0 else f"of {len(value)} sequences"
        return f"smoothed marginals {tuple(self.smoothed.shape)}; log-likelihood {shown}"

    __repr__ = __str__


@dataclass(frozen=True, eq=False, repr=False)
class Decoded:
    """The most probable path of hidden states."""

    states: Tensor
    """(T,) or (N, T): integers, -1 in padding and where the observations are impossible."""
    log_probability: Tensor
    """log p(states, x) in nats, () or (N,); -inf where the observations are impossible."""

    def __str__(self) -> str:
        shape, value = tuple(self.states.shape), self.log_probability.detach()
        shown = f"; log-probability {float(value):.6g} nats" if value.ndim == 0 else ""
        return f"most probable states {shape}{shown}"

    __repr__ = __str__


@dataclass(frozen=True, eq=False, repr=False)
class Drawn:
    """Sequences that the model made."""

    states: Tensor
    """(T,), or (n, T): integers."""
    observations: Tensor
    """(T,), (T, D), (n, T) or (n, T, D)."""

    def __str__(self) -> str:
        return f"drawn states {tuple(self.states.shape)} and their observations"

    __repr__ = __str__
