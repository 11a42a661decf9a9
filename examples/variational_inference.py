r"""Variational inference worked end to end, on a model whose posterior is known.

    z ~ Exp(1),   x | z ~ N(z, 1)

Completing the square, -z - (x - z)^2 / 2 = -(z - (x - 1))^2 / 2 + 1/2 - x, so

    p(z | x) = N(z; x - 1, 1) / Phi(x - 1) for z >= 0      a truncated normal
    log p(x) = 1/2 - x + log Phi(x - 1)                    Phi: the standard normal's cdf

and with m = x - 1, h = N(m; 0, 1) / Phi(m): E[z | x] = m + h, Var[z | x] = 1 - m h - h^2.

Pyro fits three families q of positive numbers by maximising ELBO(q) = E_q[log p(x, z) - log q(z)].
What each leaves is its gap, log p(x) - ELBO(q) = KL(q || p(z | x)): the log-normal and the softplus
of a normal have no density at z = 0, where the posterior has plenty; the truncated normal contains
the posterior and its gap closes. The ELBO is measured by Pyro on samples, the KL by quadrature.
"""

import argparse
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure
from pyro.distributions import constraints, transforms
from pyro.infer import SVI, Trace_ELBO
from pyro.nn import PyroModule, PyroParam
from pyro.optim import ClippedAdam
from rich.console import Console
from rich.table import Table
from torch.distributions.transforms import CumulativeDistributionTransform

X = torch.tensor(1.5, dtype=torch.float64)
ZERO, ONE = torch.zeros_like(X), torch.ones_like(X)
STANDARD = dist.Normal(ZERO, ONE)
STEPS = 800
WIDTH = 1e-4
GRID = (torch.arange(150_000, dtype=torch.float64) + 0.5) * WIDTH  # the middles of cells of [0, 15]


def model(x):
    z = pyro.sample("z", dist.Exponential(ONE))
    pyro.sample("x", dist.Normal(z, ONE), obs=x)


def integral(values):
    """Of a function given on the grid. Midpoints, since the families are not defined at z = 0."""
    return values.sum() * WIDTH


def log_evidence(x):
    return 0.5 - x + STANDARD.cdf(x - 1).log()


def log_posterior(z, x):
    return dist.Normal(x - 1, ONE).log_prob(z) - STANDARD.cdf(x - 1).log()


def posterior_moments(x):
    """Mean and standard deviation of the truncated normal."""
    m = x - 1
    h = STANDARD.log_prob(m).exp() / STANDARD.cdf(m)
    return (m + h).item(), (1 - m * h - h**2).sqrt().item()


def softplus_normal(loc, scale):
    return dist.TransformedDistribution(
        dist.Normal(loc, scale), [transforms.SoftplusTransform(cache_size=1)]
    )


def truncated_normal(loc, scale):
    """N(loc, scale^2) on z >= 0: the inverse cdf of a uniform variable between cdf(0) and 1."""
    normal = dist.Normal(loc, scale)
    inverse_cdf = CumulativeDistributionTransform(normal, cache_size=1).inv
    return dist.TransformedDistribution(dist.Uniform(normal.cdf(ZERO), ONE), [inverse_cdf])


FAMILIES = {
    "log-normal": dist.LogNormal,
    "softplus-normal": softplus_normal,
    "truncated normal": truncated_normal,
}


class Guide(PyroModule):
    """q(z | x) for the one x at hand: a family, its location and its scale."""

    def __init__(self, family):
        super().__init__()
        self.family = family
        self.loc = PyroParam(ONE.clone())
        self.scale = PyroParam(0.5 * ONE, constraint=constraints.positive)

    def q(self):
        return self.family(self.loc, self.scale)

    def forward(self, x):
        pyro.sample("z", self.q())


def elbo(particles):
    return Trace_ELBO(num_particles=particles, vectorize_particles=True, max_plate_nesting=0)


def fit(guide):
    """Maximise the ELBO; the ELBO estimate of every step."""
    optimizer = ClippedAdam({"lr": 0.03, "lrd": 0.03 ** (1 / STEPS)})
    svi = SVI(model, guide, optimizer, elbo(particles=256))
    return [-svi.step(X) for _ in range(STEPS)]


@torch.no_grad()
def measure(guide):
    """Mean, std and KL to the posterior by quadrature; the ELBO and its error by sampling."""
    log_q = guide.q().log_prob(GRID)
    q = log_q.exp()
    mean = integral(q * GRID)
    std = integral(q * (GRID - mean) ** 2).sqrt()
    # Where q underflows to 0 its log is -inf, and 0 log 0 = 0.
    kl = integral(torch.where(q > 0, q * (log_q - log_posterior(GRID, X)), 0.0))
    estimates = torch.tensor([-elbo(20_000).loss(model, guide, X) for _ in range(20)])
    return {
        "mean": mean.item(),
        "std": std.item(),
        "ELBO": estimates.mean().item(),
        "ELBO error": (estimates.std() / len(estimates) ** 0.5).item(),
        "KL": kl.item(),
    }


def draw(out, guides, curves):
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    shown = GRID[GRID < 5]
    left.fill_between(shown, log_posterior(shown, X).exp(), color="0.88", label="exact posterior")
    styles = dict(zip(guides, ("C0-", "C1-", "C3--"), strict=True))
    for name, guide in guides.items():
        with torch.no_grad():
            left.plot(shown, guide.q().log_prob(shown).exp(), styles[name], label=name)
        smooth = torch.tensor(curves[name]).unfold(0, 25, 1).mean(-1)
        right.plot(range(25, STEPS + 1), smooth, styles[name], label=name)
    left.set(xlim=(0, 5), ylim=(0, None), xlabel="z", ylabel="density")
    left.set_title(f"q(z) and p(z | x = {X:g})")
    exact = log_evidence(X).item()
    right.axhline(exact, color="0.4", lw=1, ls=":", label=f"log p(x) = {exact:.3f}")
    right.set(xlim=(0, STEPS), ylim=(exact - 0.4, exact + 0.03))
    right.set(xlabel="step", ylabel="nats", title="ELBO (mean of the last 25 steps)")
    for axes, place in ((left, "upper right"), (right, "lower right")):
        axes.legend(loc=place)
        axes.grid(alpha=0.25)
    figure.savefig(out, dpi=120)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("variational_inference.png"))
    out = parser.parse_args(argv).out
    pyro.set_rng_seed(0)

    guides = {name: Guide(family) for name, family in FAMILIES.items()}
    curves, found = {}, {}
    for name, guide in guides.items():
        # SVI fills Pyro's global store, where three guides would share their names: one store each.
        with pyro.get_param_store().scope():
            curves[name] = fit(guide)
            found |= {f"{name}: {key}": value for key, value in measure(guide).items()}

    exact = log_evidence(X).item()
    joint = STANDARD.log_prob(X - GRID) - GRID
    found["log p(x)"] = exact
    found["log p(x) by quadrature"] = integral(joint.exp()).log().item()
    found["posterior mean"], found["posterior std"] = posterior_moments(X)

    table = Table(
        title=f"z ~ Exp(1), x | z ~ N(z, 1), x = {X:g}",
        caption="ELBO and KL(q || posterior) in nats",
    )
    for column in ("q(z)", "mean", "std", "ELBO", "KL", "ELBO + KL"):
        table.add_column(column, justify="left" if column == "q(z)" else "right")
    for name in guides:
        mean, std, bound, error, kl = (
            found[f"{name}: {key}"] for key in ("mean", "std", "ELBO", "ELBO error", "KL")
        )
        row = f"{mean:.4f}", f"{std:.4f}", f"{bound:.4f} ± {error:.4f}", f"{kl:.5f}"
        table.add_row(name, *row, f"{bound + kl:.4f}")
    mean, std = f"{found['posterior mean']:.4f}", f"{found['posterior std']:.4f}"
    table.add_row("exact posterior", mean, std, f"{exact:.4f}", "0", f"{exact:.4f}")
    Console().print(table)
    print(f"log p(x) by quadrature: {found['log p(x) by quadrature']:.6f}, exact: {exact:.6f}")
    draw(out, guides, curves)
    print(f"picture: {out}")
    return found


if __name__ == "__main__":
    main()
