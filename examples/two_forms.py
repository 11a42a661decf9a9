r"""One ELBO of a diffusion model in two forms, by five estimators: one value, unlike variances.

With the chain p(x_T) p(x_{T-1} | x_T) ... p(x | x_1) and the forward process q, the bound is

    1.  E log p(x | x_1) - E KL(q(x_T | x_{T-1}) || p(x_T))
        - sum_t E [log q(x_t | x_{t-1}) - log p(x_t | x_{t+1})]                   consistency
    2.  E log p(x | x_1) - KL(q(x_T | x_0) || p(x_T))
        - sum_t E KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t))                   denoising

by Bayes' rule, q(x_t | x_{t-1}, x_0) = q(x_{t-1} | x_t, x_0) q(x_t | x_0) / q(x_{t-1} | x_0). A
term of the first form takes two random draws and is no divergence of fixed laws; one of the second
takes one draw, and the rest is a KL in closed form. Five programs share the bound:

    chain       form 2, all T steps                      T calls of the network
    collapsed   form 2, one t an example, spread evenly  1 call; what `fit` trains
    shared      form 2, one t for the whole batch        2 calls
    forward     one draw of the whole chain, no closed form, T calls
    first       form 1, one t an example                 2 calls

Here x_0 ~ N(0, diag(v)), and the denoiser is the exact E[x_0 | x_t] = a_t x_t, with
a_t = s v / (s^2 v + n^2), s and n the signal and the noise at t. Everything then has a closed form,

    E ||x_0_hat - x_0||^2 = sum_i ((a_i s - 1)^2 x_0i^2 + a_i^2 n^2),

so that the five estimates are compared with the bound itself, and the bound with log p(x). Between
these lies what falls like 1 / T: p(x_{t-1} | x_t) has the variance of q(x_{t-1} | x_t, x_0), which
leaves out that x_0 is not known.

"forward" sums the terms of the first form along one path, where the noise of neighbours cancels: it
is as good as closed forms here. Taken one by one, as "first" does, they are far worse, and the more
so the more steps there are.
"""

import argparse
import math
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import nn

import ppgen
from ppgen.nn.schedules import TableSchedule

VARIANCES = torch.tensor([4.0, 2.0, 1.0, 0.5, 0.2, 0.1])  # v, of the data
ENDS = (5.0, -5.0)  # log SNR at the first and the last step; even between them
LENGTHS = (4, 8, 16, 32)  # T
LONGER = (128, 512, 2048)  # of the closed form alone
SHOWN = 16  # the T whose estimates are drawn
BATCH, DRAWS = 64, 64
CALLS = {
    "chain": lambda steps: steps,
    "collapsed": lambda steps: 1,
    "shared": lambda steps: 2,
    "forward": lambda steps: steps,
    "first": lambda steps: 2,
}
COLOURS = dict(zip(CALLS, ("C0", "C2", "C4", "C1", "C3"), strict=True))


class ExactDenoiser(nn.Module):
    """E[x_0 | x_t] for Gaussian data, a linear function of x_t."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule

    def factor(self, t):
        """a_t of each coordinate, (n, D) for t (n,)."""
        signal, noise = self.schedule.signal(t)[:, None], self.schedule.noise(t)[:, None]
        return signal * VARIANCES / (signal**2 * VARIANCES + noise**2)

    def forward(self, x, t):
        return self.factor(t) * x


def diffusion(steps):
    schedule = TableSchedule(torch.linspace(*ENDS, steps, dtype=torch.float64).sigmoid())
    program = ppgen.Diffusion(
        VARIANCES.shape, schedule=schedule, predict="x0", network=ExactDenoiser(schedule)
    )
    with torch.no_grad():  # the scale of p(x | x_1) that is best on average, tr cov(x_0 | x_1) / D
        t = torch.tensor([1 / steps])
        rest = VARIANCES * (1 - program.network.factor(t) * schedule.signal(t)[:, None])
        program.log_scale.fill_(rest.mean().sqrt().log().item())
    return program.requires_grad_(False)


def exact_elbo(program, x):
    """The bound of a batch in closed form, in float64, mean nats an example."""
    schedule, steps = program.schedule, program.timesteps
    t = torch.arange(1, steps + 1) / steps
    x, snr = x.double(), schedule.steps.double().exp()
    signal, noise = schedule.signal(t).double()[:, None], schedule.noise(t).double()[:, None]
    factor = program.network.factor(t).double()  # (T, D)
    # E (x_0_hat - x_0)^2 of each step, example and coordinate, (T, n, D)
    error = ((factor * signal - 1)[:, None] * x).square() + (factor * noise).square()[:, None]
    errors = error.sum(-1)  # (T, n)
    matching = ((snr[1:-1] - snr[2:])[:, None] * errors[1:]).sum(0) / 2
    end = signal[-1] ** 2
    prior = (end * x.square() - end - torch.log1p(-end)).sum(-1) / 2
    scale = program.log_scale.double().exp()
    normal = len(VARIANCES) * (scale.log() + math.log(2 * math.pi) / 2)
    reconstruction = -errors[0] / (2 * scale**2) - normal
    return (reconstruction - prior - matching).mean().item()


def estimates(program, name, x, count):
    """Estimates of the bound of the same batch, (count,)."""
    objective = ppgen.ELBO(program.form(name))
    with torch.no_grad():
        return torch.stack([-objective(x)[0] for _ in range(count)]).double()


def draw(out, shown, bounds, spread, evidence):
    figure = Figure(figsize=(13, 4.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.25, 1, 0.9))
    places = range(len(CALLS), 0, -1)
    for place, (name, values) in zip(places, shown.items(), strict=True):
        parts = left.violinplot(
            values.numpy(), [place], orientation="horizontal", widths=0.85, showextrema=False
        )
        parts["bodies"][0].set(facecolor=COLOURS[name], alpha=0.55)
        mean, error = values.mean(), values.std() / len(values) ** 0.5
        left.errorbar(mean, place, xerr=2 * error, fmt="k.", capsize=3, lw=1)
    left.axvline(bounds[SHOWN], color="0.2", lw=1, ls=":", label="the bound, closed form")
    left.set(yticks=list(places), yticklabels=list(CALLS), xlabel="ELBO of one batch, nats")
    left.set_title(f"One estimate each, T = {SHOWN}; dots: their means")
    left.legend(loc="lower left", fontsize=9)

    for name, by_length in spread.items():
        middle.loglog(LENGTHS, list(by_length), "o-", color=COLOURS[name], label=name)
    middle.set(title="Standard deviation of an estimate", xlabel="T", ylabel="nats")
    middle.legend(fontsize=9)
    gaps = [evidence - bound for bound in bounds.values()]
    right.loglog(list(bounds), gaps, "o-", color="0.3", label="closed form")
    right.loglog(
        list(bounds), [gaps[-1] * LONGER[-1] / T for T in bounds], ":", color="C3", label="1 / T"
    )
    right.set(xlabel="T", ylabel="nats", title="log p(x) - ELBO")
    right.legend(fontsize=9)
    middle.set_xticks(LENGTHS, [str(steps) for steps in LENGTHS])
    middle.minorticks_off()
    for axes in (left, middle, right):
        axes.grid(alpha=0.25)
    figure.savefig(out, dpi=110)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("two_forms.png"))
    out = parser.parse_args(argv).out
    pyro.set_rng_seed(0)

    law = dist.Normal(torch.zeros_like(VARIANCES), VARIANCES.sqrt()).to_event(1)
    x = law.sample((BATCH,))
    evidence = law.log_prob(x).mean().item()
    found, shown, bounds = {"log p(x)": evidence}, {}, {}
    spread = {name: [] for name in CALLS}
    table = Table(title=f"ELBO of one batch of {BATCH}, log p(x) = {evidence:.3f}", caption="nats")
    for column in ("T", "estimator", "mean", "exact", "one estimate", "per call"):
        table.add_column(column, justify="left" if column == "estimator" else "right")
    for steps in LENGTHS:
        program = diffusion(steps)
        bounds[steps] = found[f"T={steps}: closed form"] = exact_elbo(program, x)
        for name, calls in CALLS.items():
            values = estimates(program, name, x, DRAWS)
            mean, sd = values.mean().item(), values.std().item()
            error = sd / len(values) ** 0.5
            # The same calls could be spent on the mean of several estimates.
            fair = sd * calls(steps) ** 0.5
            spread[name].append(sd)
            key = f"{name}, T={steps}"
            found |= {f"{key}: mean": mean, f"{key}: error": error, f"{key}: deviation": sd}
            found[f"{key}: deviation at equal calls"] = fair
            if steps == SHOWN:
                shown[name] = values
            table.add_row(
                str(steps),
                name,
                f"{mean:.3f} ± {error:.3f}",
                f"{bounds[steps]:.3f}",
                f"± {sd:.3f}",
                f"± {fair:.3f}",
                end_section=name == "first",
            )
    Console().print(table)
    print(
        "one estimate: its standard deviation over draws; per call: times the root of the\n"
        "calls of the network that one takes, which the chain spends all on one number"
    )
    bounds |= {steps: exact_elbo(diffusion(steps), x) for steps in LONGER}
    for steps, bound in bounds.items():
        gap = found[f"T={steps}: gap"] = evidence - bound
        print(f"T = {steps:4}: the bound is {gap:7.3f} nats below log p(x)")
    draw(out, shown, bounds, spread, evidence)
    print(f"picture: {out}")
    return found


if __name__ == "__main__":
    main()
