r"""A Bayesian network fitted by variational inference, beside the posterior that is known.

The chest clinic: the x-ray shows something and the patient is short of breath (e). For any q over
the unobserved z,

    log p(e) = ELBO(q) + KL(q || p(z | e)),   ELBO(q) = E_q[log p(z, e) - log q(z)]

so the ELBO is below the exact log evidence by as much as q is away from the posterior. Two guides:

    mean field   q(z) = prod_i q_i(z_i)    independent
    full         q(z) = a table of all 32 joint states of the five

over the five that are random; `either` (tuberculosis or lung cancer) is a function of two of them.
The posterior is not in the first family: the x-ray is explained by tuberculosis or by lung cancer,
so the two compete, and no product says that. All sums are exact (Pyro enumerates the guide's sites
in parallel), so the curves have no noise.
"""

import argparse
from itertools import product
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure
from pyro.infer import SVI, TraceEnum_ELBO

import graphs
from graphs import to_pyro
from graphs.pictures.picture import BLOCKED, INK, OPEN, PALE

SEEN = {"xray": "yes", "dysp": "yes"}
FREE = {
    "asia": "visit to Asia",
    "tub": "tuberculosis",
    "smoke": "smoker",
    "lung": "lung cancer",
    "bronc": "bronchitis",
}
STATES = torch.tensor(list(product((0, 1), repeat=len(FREE))))  # (32, 5); 0 is yes
STEPS, SHOWN = 300, 1e-4


def follow(tub, lung):
    """`either` in the guide: yes (0) if one of the two is; its density in the tables' dtype."""
    either = tub * lung
    pyro.sample("either", dist.Delta(either, torch.zeros(either.shape, dtype=torch.double)))


def mean_field():
    z = {}
    for name in FREE:
        logits = pyro.param(f"{name} logits", lambda: torch.zeros(2, dtype=torch.double))
        z[name] = pyro.sample(
            name, dist.Categorical(logits=logits), infer={"enumerate": "parallel"}
        )
    follow(z["tub"], z["lung"])


def full():
    logits = pyro.param("logits", lambda: torch.zeros(len(STATES), dtype=torch.double))
    kind = {"enumerate": "parallel", "is_auxiliary": True}
    row = pyro.sample("row", dist.Categorical(logits=logits), infer=kind)
    for name, column in zip(FREE, STATES.T, strict=True):
        zero = torch.zeros(row.shape, dtype=torch.double)
        pyro.sample(name, dist.Delta(column[row], zero))
    follow(STATES[row, 1], STATES[row, 3])


def fit(program, guide):
    """The ELBO before every step and at the end, and q as a table of the 32 joint states."""
    with pyro.get_param_store().scope():
        elbo = TraceEnum_ELBO(max_plate_nesting=0)
        svi = SVI(program, guide, pyro.optim.Adam({"lr": 0.15}), elbo)
        curve = [-svi.step() for _ in range(STEPS)]
        curve.append(-svi.evaluate_loss())
        if guide is full:
            q = pyro.param("logits").softmax(0)
        else:
            each = torch.stack([pyro.param(f"{name} logits").softmax(0) for name in FREE])
            q = each[torch.arange(len(FREE)), STATES].prod(1)
    return np.array(curve), q.detach().numpy()


def exact_posterior(model):
    """p(z | e) of the 32 joint states, from the clique tree; and log p(e)."""
    posterior = graphs.JunctionTree(model).query(SEEN)
    return posterior.joint(*FREE).numpy().ravel(), posterior.log_evidence.item()


def marginals(table):
    """p(yes) of each of the five, and p(tub, lung) as (tub, lung)."""
    table = table.reshape([2] * len(FREE))
    single = [table.sum(tuple(a for a in range(5) if a != axis))[0] for axis in range(5)]
    return single, table.sum((0, 2, 4))


def draw(out, exact, log_evidence, curves, tables):
    figure = Figure(figsize=(16, 8.6))
    colours = {"mean field": OPEN, "full": BLOCKED}
    left = figure.add_axes((0.06, 0.57, 0.4, 0.36))
    steps = np.arange(STEPS + 1)
    for name, curve in curves.items():
        left.plot(steps, curve, color=colours[name], lw=2.5, label=f"ELBO, {name} guide")
    left.axhline(log_evidence, color=INK, lw=1.5, ls="--",
                 label=f"exact log p(e) = {log_evidence:.4f}")  # fmt: skip
    left.set(xlim=(0, STEPS), ylim=(log_evidence - 1.6, log_evidence + 0.1), ylabel="nats")
    left.set_title("The ELBO climbs to the log evidence, or not", size=17, pad=10, color=INK)
    left.legend(loc="lower right", frameon=False, fontsize=13)

    low = figure.add_axes((0.06, 0.09, 0.4, 0.36))
    for name, curve in curves.items():
        low.semilogy(steps, (log_evidence - curve).clip(SHOWN / 10), color=colours[name], lw=2.5)
        gap = log_evidence - curve[-1]
        low.text(STEPS, max(gap, SHOWN) * 1.5, f"{name}: {gap:.2g}", color=colours[name], size=14,
                 ha="right", va="bottom")  # fmt: skip
    low.set(xlim=(0, STEPS), ylim=(SHOWN, 10), xlabel="step", ylabel="nats")
    low.set_title("The gap is KL(q || p(z | e))", size=17, pad=10, color=INK)

    right = figure.add_axes((0.52, 0.57, 0.46, 0.36))
    bars = {"exact": (exact, INK)} | {n: (tables[n], colours[n]) for n in tables}
    for i, (name, (table, colour)) in enumerate(bars.items()):
        values = marginals(table)[0]
        drawn = right.bar(np.arange(5) + (i - 1) * 0.3, values, 0.28, color=colour, label=name)
        right.bar_label(drawn, [f"{v:.3f}" for v in values], padding=2, size=9.5, color=INK)
    right.set_xticks(range(5), list(FREE.values()), size=13)
    right.set(ylim=(0, 1.08), yticks=np.linspace(0, 1, 6))
    right.set_title("p(yes | e)", size=17, pad=10, color=INK)
    right.legend(loc="upper left", frameon=False, fontsize=13)

    for i, (name, (table, colour)) in enumerate(bars.items()):
        axes = figure.add_axes((0.535 + 0.155 * i, 0.09, 0.13, 0.13 * 16 / 8.6))
        both = marginals(table)[1]
        axes.imshow(both, cmap="Greys", vmin=0, vmax=1)
        for (tub, lung), value in np.ndenumerate(both):
            axes.text(lung, tub, f"{value:.3f}", ha="center", va="center", size=14,
                      color="white" if value > 0.5 else INK)  # fmt: skip
        axes.set_xticks([0, 1], ["yes", "no"], size=12)
        axes.set_yticks([0, 1], ["yes", "no"] if i == 0 else ["", ""], size=12)
        axes.set_xlabel("lung cancer", size=13)
        axes.set_ylabel("tuberculosis" if i == 0 else "", size=13)
        axes.tick_params(length=0)
        axes.set_title(name, size=15, color=colour)
    figure.text(0.755, 0.415, "p(tuberculosis, lung cancer | e)", size=17, ha="center", color=INK)
    for axes in (left, low, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color=PALE, alpha=0.3, lw=0.8)
        axes.set_axisbelow(True)
    figure.savefig(out, dpi=100)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("network_by_svi.png"))
    out = parser.parse_args(argv).out

    model = graphs.load("asia")
    positions = graphs.tables_of(model).positions
    data = {v: torch.tensor(positions[v][state]) for v, state in SEEN.items()}
    program = pyro.condition(to_pyro(model), data=data)
    exact, log_evidence = exact_posterior(model)
    curves, tables, found = {}, {}, {"log p(e)": log_evidence}
    for name, guide in (("mean field", mean_field), ("full", full)):
        curves[name], q = fit(program, guide)
        tables[name] = q
        kl = float((q * np.log(q / exact)).sum())
        single, both = marginals(q)
        found |= {
            f"{name}: ELBO": curves[name][-1],
            f"{name}: KL by the table": kl,
            f"{name}: |ELBO + KL - log p(e)|": abs(curves[name][-1] + kl - log_evidence),
            f"{name}: highest ELBO": curves[name].max(),
            f"{name}: largest error of a marginal": max(
                abs(np.subtract(single, marginals(exact)[0]))
            ),
            f"{name}: p(tub and lung | e)": both[0, 0],
            f"{name}: p(neither | e)": both[1, 1],
        }
    both = marginals(exact)[1]
    found |= {"exact: p(tub and lung | e)": both[0, 0], "exact: p(neither | e)": both[1, 1]}
    for name, value in found.items():
        print(f"{name:42} {value:.6g}")
    draw(out, exact, log_evidence, curves, tables)
    print(f"picture: {out}")
    return {name: float(value) for name, value in found.items()}


if __name__ == "__main__":
    main()
