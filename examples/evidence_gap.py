r"""The gap between the evidence and the ELBO, closing while q is fitted, or staying open.

    z ~ N(0, I),   x | z ~ N(W z, s^2 I)

has the evidence log p(x) = log N(x; 0, W W^T + s^2 I) and the posterior N(mu, P^-1), with the
precision P = I + W^T W / s^2 and mu = P^-1 W^T x / s^2. For every q, and so at every step,

    log p(x) = ELBO(q) + KL(q || p(z | x))

For q = N(m, S) both terms have closed forms, which share nothing but m and S:

    ELBO(q) = log N(x; W m, s^2 I) - tr(W S W^T) / (2 s^2) - KL(q || N(0, I))

A guide with a full covariance contains the posterior: its gap closes. A mean-field guide (S
diagonal) does not where the posterior is correlated: its best S has 1 / S_ii = P_ii, which leaves

    KL = (sum_i log P_ii - log det P) / 2 = -log(1 - rho^2) / 2      the last for two dimensions
"""

import argparse
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure
from pyro.distributions import constraints
from pyro.infer import SVI, Trace_ELBO
from pyro.nn import PyroModule, PyroParam
from pyro.optim import ClippedAdam
from rich.console import Console
from rich.table import Table
from torch.distributions import kl_divergence

W = torch.tensor([[1.0, 0.8], [0.7, 1.0], [0.9, 0.6]], dtype=torch.float64)
X = torch.tensor([1.2, 0.4, 1.5], dtype=torch.float64)
S = 0.5
EYE = torch.eye(2, dtype=torch.float64)
PRIOR = dist.MultivariateNormal(torch.zeros_like(EYE[0]), EYE)
STEPS = 400


def model(x):
    z = pyro.sample("z", PRIOR)
    # W z for a batch of z: the vectorised particles stand on the left
    pyro.sample("x", dist.Normal(z @ W.T, S).to_event(1), obs=x)


class FullGuide(PyroModule):
    """q(z) = N(loc, L L^T)."""

    def __init__(self):
        super().__init__()
        self.loc = PyroParam(torch.zeros(2, dtype=torch.float64))
        self.scale = PyroParam(EYE.clone(), constraint=constraints.lower_cholesky)

    def q(self):
        return dist.MultivariateNormal(self.loc, scale_tril=self.scale)

    def forward(self, x):
        pyro.sample("z", self.q())


class MeanFieldGuide(PyroModule):
    """q(z) = N(loc, diag(scale^2))."""

    def __init__(self):
        super().__init__()
        self.loc = PyroParam(torch.zeros(2, dtype=torch.float64))
        self.scale = PyroParam(torch.ones_like(EYE[0]), constraint=constraints.positive)

    def q(self):
        return dist.MultivariateNormal(self.loc, scale_tril=self.scale.diag())

    def forward(self, x):
        pyro.sample("z", self.q())


def evidence():
    covariance = W @ W.T + S**2 * torch.eye(len(X), dtype=X.dtype)
    return dist.MultivariateNormal(torch.zeros_like(X), covariance).log_prob(X).item()


def posterior():
    precision = EYE + W.T @ W / S**2
    mean = torch.linalg.solve(precision, W.T @ X / S**2)
    return dist.MultivariateNormal(mean, precision_matrix=precision)


def exact_elbo(q):
    spread = (W @ q.covariance_matrix @ W.T).trace() / (2 * S**2)
    fit_of_x = dist.Normal(W @ q.loc, S).to_event(1).log_prob(X)
    return (fit_of_x - spread - kl_divergence(q, PRIOR)).item()


def mean_field_gap():
    precision = posterior().precision_matrix
    return (precision.diag().log().sum() - precision.logdet()).item() / 2


def fit(guide):
    """Maximise Pyro's ELBO estimate; the exact ELBO and KL before every step and after the last."""
    loss = Trace_ELBO(num_particles=64, vectorize_particles=True, max_plate_nesting=0)
    svi = SVI(model, guide, ClippedAdam({"lr": 0.06, "lrd": 0.03 ** (1 / STEPS)}), loss)
    target = posterior()
    track = []
    for step in range(STEPS + 1):
        with torch.no_grad():
            q = guide.q()
            track.append((exact_elbo(q), kl_divergence(q, target).item()))
        if step < STEPS:
            svi.step(X)
    return torch.tensor(track, dtype=torch.float64)


@torch.no_grad()
def sampled_elbo(guide):
    """Pyro's own ELBO, and its standard error: a check of the closed form."""
    loss = Trace_ELBO(num_particles=10_000, vectorize_particles=True, max_plate_nesting=0)
    estimates = torch.tensor([-loss.loss(model, guide, X) for _ in range(20)])
    return estimates.mean().item(), (estimates.std() / len(estimates) ** 0.5).item()


def ellipse(q, radius=2.0):
    """The contour of q at that many standard deviations, shape (2, 200)."""
    angle = torch.linspace(0, 2 * torch.pi, 200, dtype=torch.float64)
    circle = radius * torch.stack([angle.cos(), angle.sin()])
    return q.loc[:, None] + q.scale_tril @ circle


def draw(out, guides, tracks):
    figure = Figure(figsize=(11, 7.4), layout="constrained")
    panels = figure.subplots(2, 2)
    exact, colours = evidence(), dict(zip(guides, ("C0", "C1"), strict=True))
    for axes, (name, track) in zip(panels[0], tracks.items(), strict=True):
        bound = track[:, 0]
        axes.plot(bound, color=colours[name], label="ELBO")
        axes.fill_between(range(STEPS + 1), bound, exact, color=colours[name], alpha=0.2, lw=0)
        axes.fill_between([], [], color=colours[name], alpha=0.2, label="KL(q || posterior)")
        axes.axhline(exact, color="0.3", lw=1, ls=":", label=f"log p(x) = {exact:.3f}")
        axes.set(title=f"{name} guide", xlabel="step", ylabel="nats")
        axes.set(xlim=(0, STEPS // 2), ylim=(exact - 3, exact + 0.3))
        axes.legend(loc="lower right")

    gaps, contours = panels[1]
    for name, track in tracks.items():
        gaps.semilogy(track[:, 1], color=colours[name], label=name)
    gap = mean_field_gap()
    gaps.axhline(gap, color="0.3", lw=1, ls=":", label=f"mean field's best, {gap:.3f}")
    gaps.set(title="KL(q || posterior)", xlabel="step", ylabel="nats")
    gaps.set(xlim=(0, STEPS), ylim=(1e-5, 1e3))  # room for the legend
    gaps.legend(loc="upper right")

    contours.fill(*ellipse(posterior()), color="0.85", label="posterior")
    for name, guide in guides.items():
        with torch.no_grad():
            contours.plot(*ellipse(guide.q()), "--", color=colours[name], label=name)
    contours.set(title="After the fit, at two standard deviations", xlabel="$z_1$", ylabel="$z_2$")
    contours.set_aspect("equal", adjustable="datalim")
    contours.legend(loc="upper right")
    for axes in panels.flat:
        axes.grid(alpha=0.25)
    figure.savefig(out, dpi=110)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("evidence_gap.png"))
    out = parser.parse_args(argv).out
    pyro.set_rng_seed(0)

    exact = evidence()
    guides = {"full covariance": FullGuide(), "mean field": MeanFieldGuide()}
    tracks, found = {}, {"log p(x)": exact, "mean-field gap, closed form": mean_field_gap()}
    table = Table(title=f"Linear-Gaussian model, log p(x) = {exact:.5f}", caption="nats")
    for column in ("guide", "step", "ELBO", "KL(q || posterior)", "ELBO + KL"):
        table.add_column(column, justify="left" if column == "guide" else "right")
    for name, guide in guides.items():
        # SVI fills Pyro's global store, where both guides would share their names: one store each.
        with pyro.get_param_store().scope():
            track = tracks[name] = fit(guide)
            sampled, error = sampled_elbo(guide)
        for step in (0, STEPS // 10, STEPS // 4, STEPS):
            bound, kl = track[step].tolist()
            cells = f"{bound:.5f}", f"{kl:.5f}", f"{bound + kl:.5f}"
            table.add_row(name, str(step), *cells, end_section=step == STEPS)
        found |= {
            f"{name}: ELBO at the end": track[-1, 0].item(),
            f"{name}: ELBO by Pyro": sampled,
            f"{name}: ELBO by Pyro, error": error,
            f"{name}: KL at the start": track[0, 1].item(),
            f"{name}: KL at the end": track[-1, 1].item(),
            f"{name}: worst |ELBO + KL - log p(x)|": (track.sum(1) - exact).abs().max().item(),
        }
    Console().print(table)
    print(f"mean-field gap, closed form: {found['mean-field gap, closed form']:.5f} nats")
    for name in guides:
        print(
            f"{name}: ELBO + KL off log p(x) by at most"
            f" {found[f'{name}: worst |ELBO + KL - log p(x)|']:.1e} at any step; final ELBO by"
            f" sampling {found[f'{name}: ELBO by Pyro']:.4f}"
            f" ± {found[f'{name}: ELBO by Pyro, error']:.4f}"
        )
    draw(out, guides, tracks)
    print(f"picture: {out}")
    return found


if __name__ == "__main__":
    main()
