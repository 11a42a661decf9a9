"""Hidden Markov models: likelihood, smoothing, decoding, sampling, learning."""

import math
from collections.abc import Iterator
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from . import smoothing
from .emissions import MISSING, Categorical, Gaussian, distributions, inverse_cdf, tensor
from .hmm_records import Decoded, Drawn, Smoothed
from .scans import MaxPlus, follow, safe_log

WAYS = ("auto", "sequential", "scan")


class HMM:
    """A hidden Markov model p(z, x) = p(z_0) prod_t p(z_t | z_{t-1}) prod_t p(x_t | z_t).

    Observations x are one sequence, (T,) or with vectors (T, D), or a batch of N, (N, T) or
    (N, T, D), with `lengths` where they differ; what stands behind a sequence's length is ignored,
    whatever it is. -1 among integers and nan among numbers mark what is missing: it is summed out.
    Everything is differentiable in all parameters; where a transition, initial or categorical
    probability is exactly zero, its gradient is zero. ::

        model = HMM([0.5, 0.5], [[0.9, 0.1], [0.2, 0.8]], Gaussian([10.0, 20.0], [3.0, 4.0]))
        drawn = model.sample(1000)
        found = model.forward_backward(drawn.observations)
        model.viterbi(drawn.observations).states
        HMM.fit(drawn.observations, states=2, emission="gaussian").hmm

    Args:
        initial: p(z_0), (K,).
        transition: p(z_t = j | z_{t-1} = i), (K, K); each row, one i, sums to one.
        emission: `Categorical`, `Gaussian`, or an array (K, M), the table of a `Categorical`.
        recursion: how messages are passed: "sequential", one step after the other; "scan", blocks
            of steps at once (see `graphs.sequences.scans`); "auto", the faster by a measured rule.
        dtype: torch.float64 or torch.float32; by default that of a tensor that is given, or
            float64.
        device: where to compute; by default where a given tensor is, or the CPU.

    Raises:
        TypeError: not numbers, or no emission.
        ValueError: shapes that do not fit, sums off by more than 1e-6 (1e-4 in float32), negative
            entries. Probabilities are used as given, not normalised again.

    Source: Rabiner (1989), "A tutorial on hidden Markov models", Proceedings of the IEEE 77(2);
        Bishop, Pattern Recognition and Machine Learning, section 13.2.
    """

    def __init__(
        self,
        initial: Any,
        transition: Any,
        emission: Any,
        *,
        recursion: str = "auto",
        dtype: torch.dtype | None = None,
        device: Any = None,
    ) -> None:
        if recursion not in WAYS:
            raise ValueError(f"recursion must be one of {', '.join(WAYS)}; got {recursion!r}")
        if not isinstance(emission, (Categorical, Gaussian)):
            emission = Categorical(emission)
        given = [v for v in (initial, transition) if isinstance(v, Tensor)]
        given += [v for v in emission.parameters.values() if v.dtype != torch.float64]
        lower = any(v.dtype == torch.float32 for v in given)
        dtype = dtype or (torch.float32 if lower else torch.float64)
        if dtype not in (torch.float64, torch.float32):
            raise ValueError(f"dtype must be torch.float64 or torch.float32; got {dtype}")
        placed = [v for v in (*given, *emission.parameters.values()) if v.device.type != "cpu"]
        device = torch.device(device or (placed[0].device if placed else "cpu"))
        self.recursion = recursion
        self.initial = tensor("initial", initial, dtype).to(device)
        self.transition = tensor("transition", transition, dtype).to(device)
        self.emission = type(emission).unchecked(
            **{name: value.to(device, dtype) for name, value in emission.parameters.items()}
        )
        self._check()

    def _check(self) -> None:
        states = self.initial.shape[-1] if self.initial.ndim else 0
        if self.initial.ndim != 1 or not states:
            raise ValueError(f"initial needs the shape (states,); got {tuple(self.initial.shape)}")
        if self.transition.shape != (states, states):
            raise ValueError(
                f"transition needs the shape ({states}, {states}), as initial has {states} states; "
                f"got {tuple(self.transition.shape)}"
            )
        if self.emission.states != states:
            raise ValueError(f"initial has {states} states; the emission, {self.emission!r}")
        distributions("initial", self.initial)
        distributions("transition", self.transition)

    @property
    def states(self) -> int:
        """K, the number of hidden states."""
        return len(self.initial)

    def __repr__(self) -> str:
        dtype = str(self.initial.dtype).removeprefix("torch.")
        return f"HMM of {self.states} states, {self.emission!r}, {dtype} on {self.initial.device}"

    # Inference ------------------------------------------------------------------------------------

    def log_likelihood(self, x: Any, lengths: Any = None) -> Tensor:
        """log p(x) in nats: () for one sequence, (N,) for a batch; -inf where x is impossible.

        Raises:
            TypeError, ValueError: observations that the emission cannot make, a wrong shape,
                lengths that do not fit.
        """
        x, mask, single = self._read(x, lengths)
        found = smoothing.forward(self._weigh(x, mask))[2][0]
        return found[0] if single else found

    def forward_backward(self, x: Any, lengths: Any = None) -> Smoothed:
        """Filtered and smoothed marginals of the states, and the log-likelihood.

        Raises:
            TypeError, ValueError: as `log_likelihood`.
        """
        x, mask, single = self._read(x, lengths)
        given, forward, backward, total = smoothing.forward_backward(self._weigh(x, mask))
        filtered = given.algebra.number(forward)
        filtered = filtered.masked_fill(filtered.detach().sum(2, keepdim=True) == 0, math.nan)
        filtered = torch.where(mask[:, None, None], filtered, 0.0)
        marginals = smoothing.smoothed(given, forward, backward)

        def pairs() -> Tensor:
            parts = [p[:, 0].movedim(3, 0) for p in smoothing.pairwise(given, forward, backward)]
            return _first(torch.cat(parts, 1), single)  # (N, T - 1, K, K)

        return Smoothed(
            _first(filtered[:, 0].permute(2, 0, 1), single),  # (T, K, N) -> (N, T, K)
            _first(marginals[:, 0].permute(2, 0, 1), single),
            total[0][0] if single else total[0],
            pairs,
        )

    def viterbi(self, x: Any, lengths: Any = None) -> Decoded:
        """The most probable path, argmax_z p(z, x); any of them where several are equally probable.

        Raises:
            TypeError, ValueError: as `log_likelihood`.
        """
        x, mask, single = self._read(x, lengths)
        log_emission = self._log_emission(x)
        with torch.no_grad():
            paths = self._decode(log_emission, mask)
        # The path's own probability, so that it has a gradient.
        logs = log_emission[:, 0].gather(1, paths[:, None])[:, 0]  # (T, K, N) at (T, 1, N)
        moves = safe_log(self.transition)[paths[:-1], paths[1:]]
        starts = safe_log(self.initial)[paths[0]]
        total = starts + torch.where(mask, logs, 0.0).sum(0)
        total = total + torch.where(mask[1:], moves, 0.0).sum(0)
        kept = mask & (total > -math.inf)
        states = torch.where(kept, paths, MISSING).T
        return Decoded(_first(states, single), total[0] if single else total)

    def _decode(self, log_emission: Tensor, mask: Tensor) -> Tensor:
        """The best paths, (T, N), by messages with a maximum and a walk back."""
        initial, transition = self.initial[None], self.transition[None]
        given = smoothing.weigh(initial, transition, log_emission, mask, self.recursion, MaxPlus())
        messages = smoothing.forward(given)[1][:, 0].mT  # (T, N, K)
        rows, states = messages.shape[1:]
        matrix = given.matrix[0].T.contiguous()  # (to, from)
        size = max(1, smoothing.PIECE // (rows * states**2))
        stay = torch.arange(states, device=mask.device)
        backs = [
            # The best "from" for each "to"; in padding the path stays where it is.
            torch.where(inside[..., None], (part[:, :, None] + matrix).max(-1).indices, stay)
            for part, inside in zip(messages[:-1].split(size), mask[1:].split(size), strict=True)
        ]
        last = messages.gather(0, (mask.sum(0) - 1)[None, :, None].expand(1, -1, states))[0]
        maps = torch.cat(backs).flip(0) if backs else messages.new_empty(0, rows, states).long()
        return follow(last.max(-1).indices, maps).flip(0)

    def predict(self, x: Any, steps: int, lengths: Any = None) -> Tensor:
        """p(z_{T-1+h} | x) for h = 1 to `steps`, (steps, K) or (N, steps, K).

        Times the table of a categorical emission, it is the distribution of the observations.

        Raises:
            TypeError, ValueError: as `log_likelihood`; steps below 1.
        """
        _count("steps", steps)
        x, mask, single = self._read(x, lengths)
        given, messages, total = smoothing.forward(self._weigh(x, mask))
        last = (mask.sum(0) - 1).expand(1, self.states, -1)
        present = given.algebra.number(messages[:, 0].gather(0, last))[0].T  # (N, K)
        present = present.masked_fill((total[0] == -math.inf)[:, None], math.nan)
        found = []
        for _ in range(steps):
            present = present @ self.transition
            found.append(present)
        return _first(torch.stack(found, 1), single)

    # Sampling -------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(self, n_steps: int, n: int | None = None, seed: int = 0) -> Drawn:
        """Sequences from the model: one without, or `n` with an axis before the steps.

        Raises:
            ValueError: n_steps or n below 1.
        """
        _count("n_steps", n_steps)
        rows = 1 if n is None else _count("n", n)
        generator = torch.Generator().manual_seed(seed)
        uniform = torch.rand(n_steps, rows, generator=generator, dtype=torch.float64)
        uniform = uniform.to(self.initial)
        first = inverse_cdf(self.initial.cumsum(0), uniform[0])
        # The next state from each present one, (K, (T - 1) n), with the same number for all.
        cumulated = self.transition.cumsum(1)
        maps = inverse_cdf(cumulated, uniform[1:].flatten().expand(self.states, -1))
        states = follow(first, maps.T.reshape(n_steps - 1, rows, self.states)).T
        observed = self.emission.sample(states, generator)
        return Drawn(_first(states, n is None), _first(observed, n is None))

    @torch.no_grad()
    def sample_posterior(
        self, x: Any, n: int | None = None, seed: int = 0, lengths: Any = None
    ) -> Tensor:
        """Paths from p(z | x): forward filtering, backward sampling. p(z_t | z_{t+1}, x) ~ f A.

        Returns:
            Integers, (T,) or (N, T), with an axis of `n` in front where it is given; -1 in padding.

        Raises:
            TypeError, ValueError: as `log_likelihood`; an impossible sequence, which has no
                posterior.
        """
        draws = 1 if n is None else _count("n", n)
        x, mask, single = self._read(x, lengths)
        given, messages, total = smoothing.forward(self._weigh(x, mask))
        if (total == -math.inf).any():
            where = "" if single else f" {int((total[0] == -math.inf).int().argmax())}"
            raise ValueError(f"sequence{where} is impossible under the model: no path to sample")
        steps, _, states, rows = messages.shape
        # Not the stream of `sample`: with the same seed, its states would come back.
        generator = torch.Generator().manual_seed(seed ^ 0x5EED)
        uniform = torch.rand(steps, rows, draws, generator=generator, dtype=torch.float64)
        uniform = uniform.to(self.initial)
        messages = messages[:, 0].mT  # (T, N, K)
        last = messages.gather(0, (mask.sum(0) - 1)[None, :, None].expand(1, -1, states))[0]
        first = inverse_cdf(given.algebra.number(last).cumsum(-1), uniform[-1])  # (N, n)
        stay = torch.arange(states, device=mask.device)[:, None]
        maps = [
            torch.where(inside[..., None, None], self._backwards(given, part, numbers), stay)
            for part, numbers, inside in _pieces(messages[:-1], uniform[:-1], mask[1:], draws)
        ]
        # (T - 1, N, K, n) -> (T - 1, N * n, K), from the last step on
        joined = torch.cat(maps) if maps else messages.new_empty(0, rows, states, draws).long()
        walk = follow(first.flatten(), joined.mT.flatten(1, 2).flip(0)).flip(0)
        walk = walk.unflatten(1, (rows, draws)).permute(2, 1, 0)  # (n, N, T)
        walk = torch.where(mask.T, walk, MISSING)
        walk = walk[:, 0] if single else walk
        return walk[0] if n is None else walk

    def _backwards(self, given: smoothing.Weighted, part: Tensor, uniform: Tensor) -> Tensor:
        """z_t drawn for every z_{t+1}: (t, N, K from), (t, N, n) to (t, N, K to, n)."""
        algebra = given.algebra
        share = algebra.times(part[:, :, None], given.matrix[0].T)  # (t, N, to, from)
        share = algebra.number(algebra.divide(share, algebra.total(share, 3)))
        drawn = inverse_cdf(share.cumsum(-1), uniform[:, :, None].expand(-1, -1, self.states, -1))
        # Where no state leads to z_{t+1} there is nothing to draw, and no path goes through it.
        return drawn.clamp(max=self.states - 1)

    # Learning and other forms ---------------------------------------------------------------------

    @staticmethod
    def fit(x: Any, states: int, emission: str = "categorical", **options: Any) -> Any:
        """A model learned by Baum-Welch: see `graphs.sequences.baum_welch.fit`."""
        from .baum_welch import fit

        return fit(x, states, emission, **options)

    def to_network(self, n_steps: int) -> list[tuple[tuple[Any, ...], Tensor]]:
        """The model unrolled over time, as factors for `graphs.JunctionTree`.

        Variables are ("z", t) and ("x", t); factors are p(z_0), p(z_{t+1} | z_t) and p(x_t | z_t),
        with the axis of the condition first.

        Raises:
            TypeError: Gaussian emissions, which are no table.
            ValueError: n_steps below 1.
        """
        _count("n_steps", n_steps)
        if not isinstance(self.emission, Categorical):
            raise TypeError("only categorical emissions are tables; the model's are Gaussian")
        factors: list[tuple[tuple[Any, ...], Tensor]] = [((("z", 0),), self.initial)]
        for t in range(n_steps - 1):
            factors.append(((("z", t), ("z", t + 1)), self.transition))
        for t in range(n_steps):
            factors.append(((("z", t), ("x", t)), self.emission.table))
        return factors

    # What is given --------------------------------------------------------------------------------

    def _read(self, x: Any, lengths: Any) -> tuple[Tensor, Tensor, bool]:
        values, mask, single = read_sequences(self.emission, x, lengths, self.initial)
        return self.emission.checked(values), mask, single

    def _log_emission(self, x: Tensor) -> Tensor:
        return self.emission.log_prob(x).permute(1, 0, 2)[:, None]  # (K, T, N) -> (T, 1, K, N)

    def _weigh(self, x: Tensor, mask: Tensor) -> smoothing.Weighted:
        initial, transition = self.initial[None], self.transition[None]
        return smoothing.weigh(initial, transition, self._log_emission(x), mask, self.recursion)


def read_sequences(
    emission: Any, x: Any, lengths: Any, like: Tensor
) -> tuple[Tensor, Tensor, bool]:
    """Observations (T, N, ...) with padding marked missing, where they are (T, N), and whether
    one sequence was given without an axis for a batch.

    Raises:
        ValueError: a wrong shape, lengths that do not fit.
    """
    values = emission.read(x, like)
    single = values.ndim == 1 + emission.event
    if not single and values.ndim != 2 + emission.event:
        last = ", coordinates" if emission.event else ""
        raise ValueError(
            f"observations need the shape (steps{last}) or (sequences, steps{last}); "
            f"got {tuple(values.shape)}"
        )
    values = values[None] if single else values
    rows, steps = values.shape[:2]
    if not rows or not steps:
        raise ValueError(f"observations need one step or more; got {tuple(values.shape)}")
    mask = torch.ones(rows, steps, dtype=torch.bool, device=values.device)
    if lengths is not None:
        if single:
            raise ValueError("lengths belong to a batch of sequences; one sequence was given")
        ends = torch.as_tensor(lengths, device=values.device)
        if ends.shape != (rows,) or ends.is_floating_point():
            raise ValueError(f"lengths must be {rows} integers, one for each sequence")
        if (ends < 1).any() or (ends > steps).any():
            raise ValueError(
                f"lengths lie between 1 and the {steps} steps given; "
                f"got {int(ends.min())} to {int(ends.max())}"
            )
        mask = torch.arange(steps, device=values.device) < ends[:, None]
        inside = mask.reshape(rows, steps, *[1] * emission.event)
        missing = math.nan if values.is_floating_point() else MISSING
        values = values.masked_fill(~inside, missing)
    return values.transpose(0, 1).contiguous(), mask.T.contiguous(), single


def _first(values: Tensor, single: bool) -> Tensor:
    return values[0] if single else values


def _count(name: str, given: Any) -> int:
    if isinstance(given, bool) or not isinstance(given, Integral) or given < 1:
        raise ValueError(f"{name} must be an integer of 1 or more; got {given!r}")
    return int(given)


def _pieces(
    messages: Tensor, uniform: Tensor, mask: Tensor, draws: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Parts of the steps, so that no array of (K, K or draws) at each step is large."""
    _, rows, states = messages.shape
    size = max(1, smoothing.PIECE // (rows * states * max(states, draws)))
    return zip(messages.split(size), uniform.split(size), mask.split(size), strict=True)
