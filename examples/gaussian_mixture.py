r"""Finite mixtures of Gaussians, and the infinite one: the VAE.

    p(x) = sum_k w_k N(x; m_k, S_k)         a finite mixture: the class k is summed out exactly
    p(x) = int N(z; 0, I) N(x; m(z), s^2) dz    a VAE: every z is a component; bounded, not exact

Two half moons are fitted by mixtures of 1, 2, 5, 10 and 20 components, by gradients of the
Pyro program and, beside it, by scikit-learn's EM; both climb the same likelihood. Each is kept the
best of three starts, by its training data, since both end in local optima: where the two differ,
as they do for 5 components, these are others. Then a VAE with a latent
of two dimensions. Its importance-weighted bound (1,000 draws) is set on the same axis.
"""

import argparse
from pathlib import Path

import pyro
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from rich.console import Console
from rich.table import Table
from sklearn.mixture import GaussianMixture as ScikitMixture

import ppgen
from ppgen.models import GaussianMixture

COMPONENTS = (1, 2, 5, 10, 20)
STARTS = 3
STEPS, STEPS_OF_VAE = 600, 2800
SHOWN = 10  # components of the mixture that is drawn


def mixture(data, components):
    """The best of several starts, by the likelihood of the training data."""
    x = data.train.batch(slice(0, None))[0]
    found = []
    for seed in range(STARTS):
        program = GaussianMixture(data.shape, components=components, covariance="full")
        ppgen.fit(
            program, data, steps=STEPS, batch_size=512, lr=0.03, seed=seed, device="cpu",
            validate_epochs=0, progress=False,
        )  # fmt: skip
        with torch.no_grad():
            found.append((program.log_prob(x).mean().item(), program))
    return max(found, key=lambda pair: pair[0])


def vae(data):
    pyro.set_rng_seed(0)
    program = ppgen.VAE(data.shape, latent_dim=2, hidden=(64, 64))
    ppgen.fit(program, data, steps=STEPS_OF_VAE, device="cpu", validate_epochs=0, progress=False)
    return program


@torch.no_grad()
def draw(out, data, rows, program, infinite, bound):
    figure = Figure(figsize=(13, 4.3), layout="constrained")
    curve, finite, samples = figure.subplots(1, 3)
    curve.plot(COMPONENTS, [row["ours"] for row in rows], "o-", label="mixture, by gradients")
    curve.plot(COMPONENTS, [row["EM"] for row in rows], "x--", label="mixture, by EM")
    curve.axhline(bound, color="C3", label="VAE, a bound")
    curve.set(
        xscale="log", xticks=COMPONENTS, xlabel="components", ylabel="test log-likelihood, nats"
    )
    curve.set_xticklabels(map(str, COMPONENTS))
    curve.minorticks_off()
    curve.set_title("More components, and infinitely many")
    curve.legend(fontsize=9)
    curve.grid(alpha=0.25)

    x = data.test.batch(slice(0, None))[0]
    finite.scatter(*x.T, s=3, c="0.6", linewidths=0)
    components = program.component(torch.arange(program.components))
    weights = program.logits.softmax(0)
    for mean, covariance, weight in zip(
        components.mean, components.covariance_matrix, weights, strict=True
    ):
        values, vectors = torch.linalg.eigh(covariance)
        width, height = (4 * values.sqrt()).tolist()  # two standard deviations either way
        angle = torch.rad2deg(torch.atan2(vectors[1, 0], vectors[0, 0])).item()
        style = {"fill": False, "edgecolor": "C0", "lw": 1 + 8 * weight.item()}
        finite.add_patch(Ellipse(mean.tolist(), width, height, angle=angle, **style))
    finite.set_title(f"{SHOWN} components: ellipses of 2 standard deviations")

    drawn = ppgen.program.draw(infinite, len(x), shape=data.shape)
    samples.scatter(*x.T, s=3, c="0.6", linewidths=0, label="test data")
    samples.scatter(*drawn.T, s=3, c="C3", linewidths=0, label="drawn from the VAE")
    samples.set_title("The infinite mixture: draws of a VAE")
    samples.legend(fontsize=9, markerscale=4, loc="lower left")
    for axes in (finite, samples):
        axes.set(xlim=(-2, 2), ylim=(-1.5, 1.5), xticks=[], yticks=[], aspect="equal")
    figure.savefig(out, dpi=100)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gaussian_mixture.png"))
    out = parser.parse_args(argv).out

    data = ppgen.load_data("moons")
    train, test = (split.batch(slice(0, None))[0] for split in (data.train, data.test))
    table = Table(title=f"two moons: {len(train):,} training, {len(test):,} test points")
    for column in ("model", "train", "test", "train by EM", "test by EM"):
        table.add_column(column, justify="left" if column == "model" else "right")
    rows, found, shown = [], {}, None
    for components in COMPONENTS:
        trained, program = mixture(data, components)
        peer = max(
            (ScikitMixture(components, random_state=seed, max_iter=1000, tol=1e-6).fit(train)
             for seed in range(STARTS)),
            key=lambda one: one.score(train),
        )  # fmt: skip
        with torch.no_grad():
            tested = program.log_prob(test).mean().item()
        row = {"ours": tested, "EM": peer.score(test)}
        rows.append(row)
        found |= {f"{components}: train": trained, f"{components}: train by EM": peer.score(train)}
        found |= {f"{components}: test": tested, f"{components}: test by EM": row["EM"]}
        numbers = (trained, tested, peer.score(train), row["EM"])
        table.add_row(f"{components} components", *(f"= {value:.3f}" for value in numbers))
        shown = program if components == SHOWN else shown
    infinite = vae(data)
    bound = ppgen.evaluate(infinite, data, particles=1000).log_likelihood
    found["VAE"] = bound.value
    table.add_row("VAE", "", f">= {bound.value:.3f}", "", "")
    Console().print(table)
    draw(out, data, rows, shown, infinite, bound.value)
    print(f"picture: {out}")
    return found


if __name__ == "__main__":
    main()
