"""The way down a diffusion chain: its levels, its noise, and what is known or seen on the way."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypedDict

import torch
from torch import Tensor

from ..names import one_of
from ..nn.schedules import Schedule
from ..progress import WaitingBar
from .guidance import Denoiser, thresholded


class Level(NamedTuple):
    """A point of the chain; the datum itself has time 0, signal 1 and noise 0."""

    time: float
    log_snr: float
    signal: float
    noise: float

    @property
    def angle(self) -> float:
        """phi with signal = cos phi and noise = sin phi, along which dx / dphi = v."""
        return math.atan2(self.noise, self.signal)


DATUM = Level(0.0, math.inf, 1.0, 0.0)
Advance = Callable[[Tensor, Tensor, Level, Level], Tensor]


@dataclass(frozen=True)
class Intermediate:
    """What a callback is given.

    Attributes:
        call: steps before this one, 0 for pure noise; passes of inpainting are counted.
        time: t, 0 for the finished sample.
        x: x_t, shape (n, *shape).
        x0: the datum as the denoiser sees it from x_t; x itself at the end.
    """

    call: int
    time: float
    x: Tensor
    x0: Tensor


class Options(TypedDict, total=False):
    """Options of every sampler.

    Attributes:
        seed: of the sampler's own generator; None draws from PyTorch's.
        spacing: of the levels where not all steps are taken. "angle", the default, is even in
            sqrt(phi) with tan phi = noise / signal: whatever the schedule, it comes near the
            quadratic sub-sequence of Song, Meng and Ermon (2021, appendix D.2). "time" is even
            in t, with larger errors of the second-order solvers in few steps.
        threshold: None, "clip" or "dynamic"; see `thresholded`.
        callback: called with an `Intermediate` at the start, after every `every` steps and at the
            end.
        every: steps between two calls of the callback, 1 by default.
        progress: show a progress bar after two seconds, on a terminal; True by default.
    """

    seed: int | None
    spacing: Literal["angle", "time"]
    threshold: Literal["clip", "dynamic"] | None
    callback: Callable[[Intermediate], Any] | None
    every: int
    progress: bool


class Chain:
    """What all samplers share: the levels, the noise, the walk over the levels, what is seen."""

    def __init__(
        self,
        denoise: Denoiser,
        schedule: Schedule,
        x: Tensor | Sequence[int],
        steps: int,
        *,
        seed: int | None = None,
        spacing: Literal["angle", "time"] = "angle",
        threshold: Literal["clip", "dynamic"] | None = None,
        callback: Callable[[Intermediate], Any] | None = None,
        every: int = 1,
        progress: bool = True,
    ) -> None:
        positive("steps", steps)
        positive("every", every)
        one_of("spacing", spacing, ("angle", "time"))
        if schedule.timesteps is not None and steps > schedule.timesteps:
            raise ValueError(
                f"steps must not exceed the timesteps of the chain, {schedule.timesteps}; "
                f"got {steps}"
            )
        if threshold is not None:
            denoise = thresholded(denoise, threshold)
        drawn = not isinstance(x, Tensor)
        if not isinstance(x, Tensor):
            places = [p.device for p in (*schedule.parameters(), *schedule.buffers())]
            x = torch.empty(tuple(x), device=places[0] if places else None)
        if x.dtype not in (torch.float32, torch.float64):
            raise TypeError(
                f"x must be float32 or float64; got {x.dtype} (lower precision belongs inside the "
                "denoiser, as autocast)"
            )
        self.denoise = denoise
        self.levels = levels(schedule, steps, x, spacing)
        self.seen, self.every, self.progress = callback, every, progress
        self.generator = None
        if seed is not None:
            self.generator = torch.Generator(x.device).manual_seed(seed)
        self.x = x
        if drawn:
            self.x = self.draw()
        self.known: tuple[Tensor, Tensor] | None = None
        self.passes = self.stretch = 1

    def inpaint(self, known: Tensor | None, mask: Tensor | None, resample: int, jump: int) -> None:
        positive("resample", resample)
        positive("jump", jump)
        if known is None and mask is None:
            return
        if known is None or mask is None:
            raise ValueError("inpainting takes both known= and mask=; one of them is missing")
        if mask.dtype != torch.bool:
            raise TypeError(f"mask must be bool, true where known; got {mask.dtype}")
        for name, value in (("known", known), ("mask", mask)):
            try:
                fits = torch.broadcast_shapes(value.shape, self.x.shape) == self.x.shape
            except RuntimeError:
                fits = False
            if not fits:
                raise ValueError(
                    f"{name} must have the shape of x, {tuple(self.x.shape)}, or one that "
                    f"broadcasts to it; got {tuple(value.shape)}"
                )
        self.known = self._like(known.to(self.x).expand_as(self.x)), mask.to(self.x.device)
        self.passes, self.stretch = resample, jump

    def draw(self) -> Tensor:
        """Standard Gaussian noise like x."""
        x, own = self.x, self.generator
        # Drawn in one order whatever x's memory format, so that a seed means the same.
        return self._like(torch.randn(x.shape, generator=own, dtype=x.dtype, device=x.device))

    def _like(self, value: Tensor) -> Tensor:
        """In the memory format of x, such as channels_last."""
        if value.stride() == self.x.stride():
            return value
        return torch.empty_like(self.x).copy_(value)

    def x0(self, x: Tensor, level: Level) -> Tensor:
        """The denoiser at a level."""
        x0 = self.denoise(x, x.new_full((len(x),), level.time))
        if x0.shape != x.shape:
            raise ValueError(
                f"the denoiser gives shape {tuple(x0.shape)} for x of shape {tuple(x.shape)}"
            )
        return x0.to(x.dtype)

    def run(self, advance: Advance) -> Tensor:
        """Walk from the first level to the datum, which is the last call's x_0."""
        steps, calls, x = len(self.levels) - 1, 0, self.x
        bar = WaitingBar("sampling", steps * self.passes, self.progress)
        with torch.inference_mode(), bar:
            for start, end in self._walk(steps):
                here, there = self.levels[start], self.levels[end]
                if end < start:  # forward in the chain: q(x_t | x_s), t later than s
                    kept = there.signal / here.signal
                    fresh = there.noise**2 - (kept * here.noise) ** 2
                    x = kept * x + math.sqrt(fresh) * self.draw()
                    continue
                x0 = self.x0(x, here)
                self._show(calls, here, x, x0)
                x = x0 if there is DATUM else advance(x, x0, here, there)
                if self.known is not None:
                    known, mask = self.known
                    if there is not DATUM:
                        known = there.signal * known + there.noise * self.draw()
                    x = torch.where(mask, known, x)
                calls += 1
                bar.at(calls)
            self._show(calls, DATUM, x, x)
        return x.clone()  # outside of inference mode: an ordinary tensor

    def _walk(self, steps: int) -> Iterator[tuple[int, int]]:
        """Moves between indices of levels: each stretch `passes` times, with jumps back."""
        for start in range(0, steps, self.stretch):
            end = min(start + self.stretch, steps)
            for again in range(self.passes):
                if again:
                    yield end, start
                for index in range(start, end):
                    yield index, index + 1

    def _show(self, call: int, level: Level, x: Tensor, x0: Tensor) -> None:
        if self.seen is not None and (call % self.every == 0 or level is DATUM):
            with torch.inference_mode(False):  # so that the copies are ordinary tensors
                self.seen(Intermediate(call, level.time, x.clone(), x0.clone()))


def levels(schedule: Schedule, steps: int, x: Tensor, spacing: str) -> list[Level]:
    """The levels of `steps` calls from t = 1 down, then the datum."""
    count = schedule.timesteps
    share = torch.linspace(0, 1, steps, dtype=torch.float64)
    with torch.no_grad():
        last = 1 / count if count else 0.0
        if spacing == "time":
            t = 1 + (last - 1) * share
        else:
            ends = schedule.log_snr(torch.tensor([1.0, last]).to(x)).double().cpu()
            start, end = ends.tolist()
            high, low = torch.atan(torch.exp(-ends / 2)).sqrt().tolist()
            angle = (high + (low - high) * share).square()
            log_snr = (-2 * torch.log(torch.tan(angle))).clamp(start, end)
            t = time_at(schedule, log_snr.to(x)).double().cpu()
            t[0] = 1.0
        if count:
            t = torch.tensor(_whole((t * count).tolist()), dtype=torch.float64) / count
        log_snr = schedule.log_snr(t.to(x)).double()
    scales = (torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt())
    columns = (values.tolist() for values in (t, log_snr, *scales))
    return [*map(Level._make, zip(*columns, strict=True)), DATUM]


def _whole(places: list[float]) -> list[int]:
    """Falling whole steps near the given places, none twice, none below 1."""
    found: list[int] = []
    highest = round(places[0])
    for index, place in enumerate(places):
        found.append(min(max(round(place), len(places) - index), highest))
        highest = found[-1] - 1
    return found


def positive(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number; got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be 1 or more; got {value}")


def time_at(schedule: Schedule, log_snr: Tensor) -> Tensor:
    """t with schedule.log_snr(t) = log_snr, by bisection."""
    low, high = torch.zeros_like(log_snr), torch.ones_like(log_snr)
    for _ in range(30 if log_snr.dtype == torch.float32 else 52):
        middle = (low + high) / 2
        later = schedule.log_snr(middle) > log_snr
        low, high = torch.where(later, middle, low), torch.where(later, high, middle)
    return (low + high) / 2
