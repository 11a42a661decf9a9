r"""Information, entropy and the divergences, on coins; then what a coin's draws say about it.

An outcome of probability p carries -log2 p bits. For distributions p and q:

    entropy                 H(p)        = -sum_k p_k log2 p_k
    cross-entropy           H(p, q)     = -sum_k p_k log2 q_k
    Kullback-Leibler        KL(p || q)  = H(p, q) - H(p) >= 0, not symmetric
    Jensen-Shannon          JS(p, q)    = (KL(p || m) + KL(q || m)) / 2, m = (p + q) / 2

Maximum likelihood: n draws of which r are red have log p(draws | theta) =
r log theta + (n - r) log(1 - theta), largest at theta = r / n. Pyro finds it by gradient ascent.

Bayes: with a prior theta ~ Beta(a, b) the posterior is Beta(a + r, b + n - r). Pyro is asked for
it by SVI with a Beta guide, which holds the answer, and gives it back.
"""

import argparse
import math
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule, PyroParam
from pyro.optim import ClippedAdam
from rich.console import Console
from rich.table import Table
from torch.distributions import constraints

from ppgen.information import cross_entropy, entropy, js_divergence, kl_divergence

RED, DRAWS = 30, 100
PRIOR = (2.0, 2.0)


def coin(theta):
    """The distribution of a coin with P(heads) = theta; theta of any shape, K = 2 added last."""
    theta = torch.as_tensor(theta, dtype=torch.float64)
    return torch.stack([theta, 1 - theta], -1)


class DrawsWithoutPrior(PyroModule):
    """r of n draws are red; theta is a parameter."""

    def __init__(self):
        super().__init__()
        half = torch.tensor(0.5, dtype=torch.float64)
        self.theta = PyroParam(half, constraint=constraints.unit_interval)

    def forward(self, red, draws):
        pyro.sample("red", dist.Binomial(draws, self.theta), obs=red)


class DrawsWithPrior(PyroModule):
    """r of n draws are red; theta has a Beta prior."""

    def forward(self, red, draws):
        a, b = torch.tensor(PRIOR, dtype=torch.float64)
        theta = pyro.sample("theta", dist.Beta(a, b))
        pyro.sample("red", dist.Binomial(draws, theta), obs=red)


class BetaGuide(PyroModule):
    """q(theta) = Beta(a, b) with a and b to be fitted, from the prior on."""

    def __init__(self):
        super().__init__()
        start = torch.tensor(PRIOR, dtype=torch.float64)
        self.ab = PyroParam(start, constraint=constraints.positive)

    def forward(self, red, draws):
        a, b = self.ab.unbind(-1)
        pyro.sample("theta", dist.Beta(a, b))


def fit(model, guide, loss, steps=800, rate=0.2):
    """Gradient ascent on the ELBO (without latents: on the log likelihood), the rate falling."""
    red, draws = (torch.tensor(n, dtype=torch.float64) for n in (RED, DRAWS))
    # Clipped: before the guide has found the data, a few draws of theta near 0 or 1 would dominate.
    svi = SVI(model, guide, ClippedAdam({"lr": rate, "lrd": 0.01 ** (1 / steps)}), loss)
    for _ in range(steps):
        svi.step(red, draws)


def figures():
    """The numbers that are printed and tested, by name; in bits where they have a unit."""
    fair, biased = coin(0.5), coin(0.2)
    return {
        "information of a fair coin's head": -math.log2(0.5),
        "H(p), p = (.5, .5)": entropy(fair, 2).item(),
        "H(q), q = (.2, .8)": entropy(biased, 2).item(),
        "H(p, q)": cross_entropy(fair, biased, 2).item(),
        "H(q, p)": cross_entropy(biased, fair, 2).item(),
        "KL(p || q)": kl_divergence(fair, biased, 2).item(),
        "KL(q || p)": kl_divergence(biased, fair, 2).item(),
        "JS(p, q)": js_divergence(fair, biased, 2).item(),
        "JS of disjoint coins": js_divergence(coin(0.0), coin(1.0), 2).item(),
    }


def draw(out, a, b):
    p = torch.linspace(0, 1, 401, dtype=torch.float64)
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)

    left.plot(p, entropy(coin(p), 2), color="C0")
    for theta, place in ((0.5, (0.32, 1.05)), (0.2, (0.25, 0.7))):
        bits = entropy(coin(theta), 2).item()
        left.plot(theta, bits, "o", color="C3")
        left.annotate(f"H({theta:g}, {1 - theta:g}) = {bits:.2f}", (theta, bits), place)
    left.set(title="Entropy of a coin", xlabel="P(heads)", ylabel="bits", ylim=(0, 1.15))

    fair = coin(0.5)
    middle.plot(p, kl_divergence(fair, coin(p), 2), label="KL(fair || coin)", color="C0")
    middle.plot(p, kl_divergence(coin(p), fair, 2), label="KL(coin || fair)", color="C1")
    middle.plot(p, js_divergence(coin(p), fair, 2), label="JS(coin, fair)", color="C2")
    middle.set(title="Divergence from a fair coin", xlabel="P(heads) of the coin", ylabel="bits")
    middle.set_ylim(0, 1.5)
    middle.legend(loc="upper center")

    for (alpha, beta), label, colour in (
        (PRIOR, "prior Beta({:g}, {:g})", "C7"),
        ((PRIOR[0] + RED, PRIOR[1] + DRAWS - RED), "posterior Beta({:g}, {:g})", "C0"),
    ):
        alpha, beta = torch.tensor([alpha, beta], dtype=torch.float64)
        density = dist.Beta(alpha, beta).log_prob(p[1:-1]).exp()
        right.plot(p[1:-1], density, label=label.format(alpha, beta), color=colour)
    guide = dist.Beta(a, b).log_prob(p[1:-1]).exp()
    right.plot(p[1:-1], guide, "--", label=f"fitted Beta({a:.1f}, {b:.1f})", color="C1")
    right.axvline(RED / DRAWS, color="C3", lw=1, label=f"maximum likelihood {RED / DRAWS:g}")
    right.set(title=f"{RED} red of {DRAWS} draws", xlabel="P(red)", ylabel="density")
    right.set_ylim(0, 14)  # room for the legend
    right.legend(loc="upper right")
    for axes in (left, middle, right):
        axes.set_xlim(0, 1)
        axes.grid(alpha=0.25)
    figure.savefig(out, dpi=120)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("entropy_of_coins.png"))
    out = parser.parse_args(argv).out
    pyro.set_rng_seed(0)

    found = figures()
    likelihood, posterior = DrawsWithoutPrior(), BetaGuide()
    # The KL of two Betas is known, and leaves less noise than sampling both log densities.
    bound = TraceMeanField_ELBO(num_particles=128, vectorize_particles=True, max_plate_nesting=0)
    with pyro.get_param_store().scope():  # SVI fills Pyro's global store: leave it as it was
        fit(likelihood, lambda red, draws: None, Trace_ELBO(max_plate_nesting=0), steps=300)
        fit(DrawsWithPrior(), posterior, bound)
    found["maximum likelihood P(red)"] = likelihood.theta.item()
    a, b = posterior.ab.tolist()
    found["fitted posterior a"], found["fitted posterior b"] = a, b

    table = Table(title="Coins", caption="Information, H, KL and JS in bits")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in found.items():
        table.add_row(name, f"{value:.4f}")
    table.add_row("exact posterior a, b", f"{PRIOR[0] + RED:g}, {PRIOR[1] + DRAWS - RED:g}")
    Console().print(table)
    draw(out, a, b)
    print(f"picture: {out}")
    return found


if __name__ == "__main__":
    main()
