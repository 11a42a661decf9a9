"""Figures of a diffusion model: out of noise, its schedule, its bound step by step, its score."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..charts import (
    BLUE,
    GREY,
    INK,
    VERMILION,
    bars,
    drawn,
    faint_grid,
    heading,
    new_figure,
    square,
)
from ..figures import Figure
from ..nn.schedules import LearnedSchedule, Schedule, make_schedule
from ..plots import image_grid, is_picture
from . import samplers
from .denoising_chain import Intermediate, time_at
from .diffusion_terms import StepTerms, step_terms

if TYPE_CHECKING:
    from .diffusion import Diffusion

# Each a call of the network for so many examples: together they take about half a minute of one
# core for a U-Net of three million parameters on 28x28 pixels.
STRIP_SAMPLES, STRIP_COLUMNS = 5, 11
BOUND_PICTURES = 32
INPAINTED, INPAINT_STEPS, PASSES, HIDDEN = 8, 25, 4, 0.6
POINTS = 500  # of the plane, in a strip


def diffusion_figures(program: "Diffusion", *batch: Tensor) -> Iterator[Figure]:
    """The figures of `Diffusion.figures`; those of the bound and of inpainting need examples."""
    schedule, picture = program.schedule, is_picture(program.shape)
    steps = samplers.default_steps("ddim", schedule)
    levels = f"{steps} levels of t" if schedule.timesteps is None else (
        f"{steps} of the {schedule.timesteps:,} steps")  # fmt: skip
    if picture or program.shape == (2,):
        rows = "samples on their way" if picture else f"{POINTS} samples on their way"
        yield Figure(
            "Out of noise",
            "denoising",
            lambda: (_strip if picture else _cloud)(program),
            f"{rows[0].upper()}{rows[1:]} from noise at t = T to the datum at t = 0, by ddim over "
            f"{levels}. Above x_t, below the datum x̂₀ that the network sees in it."
            + (" Guidance scale 1." if program.num_classes else ""),
            chart=not picture,
        )
    if program.shape == (2,):
        yield Figure(
            "Score",
            "score",
            lambda: score_field(program, *batch[:1]),
            "The score grad log p(x_t) at three times, as arrows s / sqrt(1 + |s|^2), where s is "
            "the score times the standard deviation of the noise."
            + (" Points: test examples with that noise." if batch else "")
            + (" The label is left out." if program.num_classes else ""),
            chart=True,
        )  # fmt: skip
    yield Figure(
        "Noise schedule",
        "schedule",
        lambda: schedule_chart(schedule),
        "The log of the signal-to-noise ratio of x_t, beside the linear and the cosine schedule of "
        "1,000 steps.",
        chart=True,
    )
    if not batch:
        return
    term = "the mean KL divergence of a denoising step, by t,"
    if schedule.timesteps is None:
        term = "the mean diffusion loss by t, nats per unit of time,"
    x, *conditions = (t[: BOUND_PICTURES if picture else None] for t in batch)
    yield Figure(
        "The bound, step by step",
        "steps",
        lambda: terms_chart(step_terms(program, x, *conditions), schedule.timesteps),
        f"The negative ELBO of the first {len(x)} test examples: {term} with two standard errors "
        "over the examples, and the three terms.",
        chart=True,
    )
    if picture:
        few = [t[:INPAINTED] for t in batch]
        count = min(INPAINT_STEPS, schedule.timesteps or INPAINT_STEPS)
        yield Figure(
            "Inpainting",
            "inpainting",
            lambda: _inpainted(program, count, *few),
            "Test examples, what is given of them, and the lower half as the model fills it in: "
            f"ancestral sampling in {count} steps, {PASSES} passes over each.",
        )


def _labels(program: "Diffusion", n: int) -> tuple[Tensor, ...]:
    """One of each class in turn, for programs that have classes."""
    if program.num_classes is None:
        return ()
    return (torch.arange(n, device=program.log_scale.device) % program.num_classes,)


def trajectory(program: "Diffusion", n: int, columns: int) -> list[Intermediate]:
    """What the sampler of pictures sees at some of its levels, the finished sample last."""
    steps = samplers.default_steps("ddim", program.schedule)
    columns = min(columns, steps + 1)
    # The levels are even in sqrt(phi), tan phi = noise / signal; these are even in phi.
    shares = [1 - math.sqrt(1 - k / (columns - 1)) for k in range(columns - 1)]
    chosen = {round(share * (steps - 1)) for share in shares}
    if columns > steps:
        chosen = set(range(steps))
    seen: list[Intermediate] = []

    def look(found: Intermediate) -> None:
        if found.call in chosen or found.time == 0:
            seen.append(found)

    program.sample(n, *_labels(program, n), mean=True, sampler="ddim", steps=steps, callback=look)
    return seen


def _times(program: "Diffusion", times: Sequence[float]) -> list[str]:
    """Names of times: whole steps where there is a chain."""
    total = program.schedule.timesteps
    names = [f"{t:.2f}" if total is None else f"{round(t * total):,}" for t in times]
    return [f"t = {names[0]}", *names[1:]]


def _strip(program: "Diffusion") -> bytes:
    seen = trajectory(program, STRIP_SAMPLES, STRIP_COLUMNS)
    both = torch.stack([torch.stack([one.x, one.x0]) for one in seen])  # (columns, 2, n, *shape)
    both = both if program.levels is None else (both + 1) / 2
    images = both.permute(2, 1, 0, *range(3, both.dim())).flatten(0, 2)  # (n, 2, columns, ...)
    heads = _times(program, [one.time for one in seen])
    names = ["xₜ", "x̂₀"] * STRIP_SAMPLES
    return image_grid(images, len(seen), rows=names, heads=heads, group=2)


def _cloud(program: "Diffusion") -> bytes:
    """The strip of points of the plane: a panel for each time."""
    seen = trajectory(program, POINTS, 7)
    figure, grid = new_figure(11.2, 3.7, 2, len(seen))
    names = _times(program, [one.time for one in seen])
    for k, axes in enumerate(grid):
        one = seen[k % len(seen)]
        first = k < len(seen)
        points = (one.x if first else one.x0).float().cpu()
        axes.plot(
            *points.T.numpy(), ".", ms=3, alpha=0.6, mew=0, color=BLUE if first else VERMILION
        )
        square(axes, torch.cat([seen[0].x, seen[-1].x]).float().cpu())
        axes.set_xticks([])
        axes.set_yticks([])
        if first:
            heading(axes, names[k])
        if k % len(seen) == 0:
            axes.set_ylabel("$x_t$" if first else "$\\hat{x}_0(x_t)$", color=INK)
    return drawn(figure)


def score_field(program: "Diffusion", *batch: Tensor, noises: Sequence[float] = (0.8, 0.4, 0.15),
                arrows: int = 19) -> bytes:  # fmt: skip
    """The score of p(x_t) in the plane where x_t has so much noise, from the denoiser.

    noise * score = -(x_t - signal x_0_hat) / noise, minus the noise that the network sees.

    Args:
        batch: examples (n, 2), shown as x_t with noise; without them the field goes from -3 to 3.
        noises: standard deviations of the noise in x_t, inside (0, 1).
    """
    schedule, device = program.schedule, program.log_scale.device
    labels = tuple(y[:1].expand(arrows**2) for y in _labels(program, 1))
    denoise = program.denoiser(*labels, guidance=0.0) if labels else program.denoiser()
    figure, grid = new_figure(11.2, 4.0, 1, len(noises))
    for axes, noise in zip(grid, noises, strict=True):
        log_snr = torch.tensor(2 * math.log(math.sqrt(1 - noise**2) / noise), device=device)
        t = time_at(schedule, log_snr)
        if schedule.timesteps is not None:
            t = ((t * schedule.timesteps).round().clamp(min=1)) / schedule.timesteps
        signal, deviation = schedule.signal(t), schedule.noise(t)
        span = torch.tensor([[-3.0, -3.0], [3.0, 3.0]])
        if batch:
            x0 = program.scaled(batch[0].to(device))
            span = (signal * x0 + deviation * torch.randn_like(x0)).float().cpu()
            axes.plot(*span.T.numpy(), ".", ms=3.4, alpha=0.45, mew=0, color=VERMILION)
        square(axes, span)
        sides = [torch.linspace(*limits, arrows) for limits in (axes.get_xlim(), axes.get_ylim())]
        x = torch.stack(torch.meshgrid(*sides, indexing="xy"), -1).flatten(0, 1).to(device)
        x0_hat = denoise(x, t.to(x).expand(len(x)))
        score = (-(x - signal * x0_hat) / deviation).float().cpu()
        length = score.norm(dim=1, keepdim=True)
        arrow = score / (1 + length.square()).sqrt() * 0.95 * float(sides[0][1] - sides[0][0])
        axes.quiver(*x.cpu().T.numpy(), *arrow.T.numpy(), color=BLUE, width=0.0045, pivot="mid",
                    angles="xy", scale_units="xy", scale=1)  # fmt: skip
        heading(axes, _times(program, [float(t)])[0], f"noise {float(deviation):.2f}")
    return drawn(figure)


def schedule_chart(schedule: Schedule) -> bytes:
    """log SNR(t) of a schedule with its end points, beside the linear and the cosine one."""
    figure, (axes,) = new_figure(6.4, 3.9)
    own_t, own = _log_snr(schedule)
    same = None
    for name, dashes in (("linear", (5, 2)), ("cosine", (1.5, 1.5))):
        t, values = _log_snr(make_schedule(name, 1000))
        if len(t) == len(own_t) and torch.allclose(values, own, atol=1e-3):
            same = name
            continue
        axes.plot(t, values, color=GREY, lw=1.4, dashes=dashes, label=f"{name}, T = 1,000")
    learned = isinstance(schedule, LearnedSchedule)
    name = "learned" if learned else f"{same or 'this model'}, T = {schedule.timesteps:,}"
    axes.plot(own_t, own, color=BLUE, lw=2.2, label=name)
    axes.plot(own_t[[0, -1]], own[[0, -1]], "o", ms=5, mew=0, color=BLUE)
    axes.axhline(0, color="#c9ccd2", lw=0.9, zorder=0)
    start, end = own[0].item(), own[-1].item()
    for value, t, up in ((start, own_t[0], 5), (end, own_t[-1], 0)):
        axes.annotate(f"{value:.2f}".replace("-", "−"), (t, value), xytext=(8, up), va="center",
                      textcoords="offset points", color=BLUE, fontsize=9.5,
                      weight="bold")  # fmt: skip
    axes.set_xlabel("t" if learned else "t (share of T)", color=INK)
    axes.set_ylabel("log SNR(t)", color=INK)
    axes.set_xlim(-0.02, 1.13)
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    faint_grid(axes)
    heading(axes, "log SNR", f"ends at {start:.2f} and {end:.2f}".replace("-", "−"))
    axes.legend(fontsize=8.5, frameon=False, labelcolor=INK)
    return drawn(figure)


def _log_snr(schedule: Schedule) -> tuple[Tensor, Tensor]:
    total = schedule.timesteps
    device = next((p.device for p in (*schedule.parameters(), *schedule.buffers())), None)
    t = torch.linspace(0, 1, 401) if total is None else torch.arange(1, total + 1) / total
    return t, schedule.log_snr(t.to(device)).detach().float().cpu()


def terms_chart(found: StepTerms, timesteps: int | None) -> bytes:
    """Nats of a denoising step over t, and the three terms of the bound as bars."""
    import matplotlib.ticker

    totals = {
        "reconstruction": found.reconstruction,
        "denoising matching": found.matching.sum(1),
        "prior matching": found.prior_matching,
    }
    figure, (axes, side) = new_figure(10.6, 3.7, 1, 2, widths=(3, 2))
    values, edges = found.per_step.double().cpu(), found.edges.double()
    share = edges.diff()
    chain = timesteps is not None
    edges = edges - 0.5 * chain  # a whole number stands in the middle of its step
    if len(values):
        count = len(found.matching)
        spread = found.matching.double().cpu().std(0, correction=min(1, count - 1))
        error = spread / math.sqrt(count) / share
        floor = values.clamp(min=1e-12)
        low, high = (values - 2 * error).clamp(min=floor / 10), values + 2 * error
        axes.fill_between(edges, _stairs(low), _stairs(high), step="post", color=BLUE, alpha=0.2,
                          lw=0)  # fmt: skip
        axes.stairs(floor.numpy(), edges.numpy(), baseline=None, color=BLUE, lw=1.8)
        total = values * share
        half = int((total.cumsum(0) >= total.sum() / 2).nonzero()[0])
        place = edges[half + 1].item()
        if total.sum() > 0:
            axes.axvline(place, color=VERMILION, lw=1.2, dashes=(4, 2))
            name = f"{place - 0.5:,.0f}" if chain else f"{place:.2f}"
            axes.annotate(f"half of these nats\nup to t = {name}", (place, 0.97),
                          xycoords=("data", "axes fraction"), xytext=(5, 0), fontsize=8.5, va="top",
                          textcoords="offset points", color=VERMILION)  # fmt: skip
    if chain:
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:,.0f}"))
        axes.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    axes.set_xlabel("step t" if chain else "t", color=INK)
    axes.set_ylabel("nats per step" if chain else "nats per unit of t", color=INK)
    if not chain:
        axes.set_ylim(bottom=0)
    faint_grid(axes)
    heading(axes, "denoising matching",
            "KL(q(x$_{t-1}$ | x$_t$, x$_0$) || p(x$_{t-1}$ | x$_t$))" if chain
            else "½ |dSNR/dt| ‖x̂$_0$(x$_t$) − x$_0$‖²")  # fmt: skip
    whole = torch.stack(list(totals.values())).double().sum(0).mean()
    bars(side, {name: term.double() for name, term in totals.items()}, COLOURS_OF_TERMS)
    heading(side, "negative ELBO", f"{float(whole):,.2f} nats")
    return drawn(figure)


COLOURS_OF_TERMS = ("#009E73", BLUE, GREY)


def _stairs(values: Tensor) -> Tensor:
    return torch.cat([values, values[-1:]])


def _inpainted(program: "Diffusion", steps: int, x: Tensor, *conditions: Tensor) -> bytes:
    mask = torch.ones(program.shape, dtype=torch.bool, device=x.device)
    rows = program.shape[-2]
    mask[..., rows - rows // 2 :, :] = False
    options = {"sampler": "ancestral", "steps": steps, "resample": PASSES}
    drawn = program.sample(len(x), *conditions, mean=True, known=x, mask=mask, **options)
    given = torch.where(mask, x, HIDDEN)
    return image_grid(
        torch.cat([x, given, drawn]), len(x), rows=["data", "given", "model"]
    )  # (3 n, *shape)
