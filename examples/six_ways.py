r"""One posterior six ways: the chest clinic of Lauritzen and Spiegelhalter (1988).

    p(d | e) = sum over the rest of prod_i p(x_i | pa_i) / p(e)

for a disease d, when the x-ray shows something and the patient is short of breath (e). Four ways
are exact and agree to rounding: the whole joint table; messages on a clique tree; pgmpy's variable
elimination; and the network as a Pyro program whose sites are summed out in parallel. Two are not.
Likelihood weighting has a standard error. Variational inference fits q, a categorical distribution
over all joint states of the unobserved, which can reach the posterior; how far it is is known,
KL(q || p) = log p(e) - ELBO(q), so by Pinsker's inequality each probability is off by at most
sqrt(KL / 2).
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure
from pyro.infer import SVI, TraceEnum_ELBO, config_enumerate
from rich.console import Console
from rich.table import Table

import graphs
from graphs import to_pyro
from graphs.pictures.picture import BLOCKED, INK, OPEN, PALE

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # pgmpy imports what it has itself deprecated
    from pgmpy.inference import VariableElimination

SEEN = {"xray": "yes", "dysp": "yes"}
DISEASES = {"tub": "tuberculosis", "lung": "lung cancer", "bronc": "bronchitis"}
DRAWS, STEPS = 200_000, 300
COLOURS = [INK, "#5A606C", "#868C98", "#B2B7C1", OPEN, BLOCKED]


def by_joint(model):
    """Every row of the joint table that agrees with what was seen."""
    joint = graphs.joint(model).xs(tuple(SEEN.values()), level=tuple(SEEN))
    joint = joint / joint.sum()
    return {v: joint.xs("yes", level=v).sum() for v in DISEASES}, 0.0


def by_clique_tree(model):
    posterior = graphs.JunctionTree(model).query(SEEN)
    return {v: posterior[v][0].item() for v in DISEASES}, 0.0


def by_pgmpy(model):
    engine = VariableElimination(model)
    found = {v: engine.query([v], evidence=SEEN, show_progress=False) for v in DISEASES}
    return {v: found[v].get_value(**{v: "yes"}) for v in DISEASES}, 0.0


def conditioned(model):
    states = graphs.tables_of(model).positions
    data = {v: torch.tensor(states[v][state]) for v, state in SEEN.items()}
    return pyro.condition(to_pyro(model), data=data)


def by_enumeration(model):
    elbo = TraceEnum_ELBO(max_plate_nesting=0)
    found = elbo.compute_marginals(config_enumerate(conditioned(model)), lambda: None)
    return {v: found[v].probs[0].item() for v in DISEASES}, 0.0


def by_weighting(model):
    found = graphs.likelihood_weighting(model, SEEN, n=DRAWS, targets=DISEASES)
    return {v: found[v][0] for v in DISEASES}, {v: found.error(v)[0] for v in DISEASES}


def by_variational_inference(model):
    """SVI on a table of the joint states that are possible: `either` follows from tub and lung."""
    joint = graphs.joint(model).xs(tuple(SEEN.values()), level=tuple(SEEN))
    possible = joint[joint > 0].index
    states = graphs.tables_of(model).positions
    codes = {  # the state of each variable in each joint state
        v: torch.tensor([states[v][s] for s in possible.get_level_values(v)])
        for v in possible.names
    }

    def guide():
        logits = pyro.param("logits", lambda: torch.zeros(len(possible), dtype=torch.double))
        q = dist.Categorical(logits=logits)
        row = pyro.sample("row", q, infer={"enumerate": "parallel", "is_auxiliary": True})
        for v, code in codes.items():
            pyro.sample(v, dist.Delta(code[row], torch.zeros(row.shape, dtype=torch.double)))

    with pyro.get_param_store().scope():
        svi = SVI(conditioned(model), guide, pyro.optim.Adam({"lr": 0.3}),
                  TraceEnum_ELBO(max_plate_nesting=0))  # fmt: skip
        for _ in range(STEPS):
            svi.step()
        kl = graphs.JunctionTree(model).query(SEEN).log_evidence.item() + svi.evaluate_loss()
        q = pyro.param("logits").detach().softmax(0)
    bound = (max(kl, 0) / 2) ** 0.5
    return {v: q[codes[v] == 0].sum().item() for v in DISEASES}, dict.fromkeys(DISEASES, bound)


WAYS = {
    "joint table": by_joint,
    "clique tree": by_clique_tree,
    "variable elimination\n(pgmpy)": by_pgmpy,
    "parallel enumeration\n(Pyro)": by_enumeration,
    "likelihood weighting": by_weighting,
    "variational inference\n(Pyro)": by_variational_inference,
}


def draw(out, beliefs, errors, seconds):
    figure = Figure(figsize=(16, 7.4))
    left = figure.add_axes((0.05, 0.08, 0.58, 0.84))
    width = 0.13
    for i, (way, colour) in enumerate(zip(WAYS, COLOURS, strict=True)):
        place = np.arange(len(DISEASES)) + (i - 2.5) * width
        bars = left.bar(place, list(beliefs[way].values()), 0.92 * width, color=colour,
                        label=way.replace("\n", " "))  # fmt: skip
        if errors[way]:
            spread = list(errors[way].values())
            left.errorbar(place, list(beliefs[way].values()), spread, fmt="none", ecolor=INK,
                          capsize=4, lw=1.5)  # fmt: skip
        labels = [f"{value:.4f}" for value in beliefs[way].values()]
        left.bar_label(bars, labels, padding=9, size=11, rotation=90, color=INK)
    left.set_xticks(range(len(DISEASES)), list(DISEASES.values()), size=15)
    left.set(ylim=(0, 0.98), yticks=np.linspace(0, 0.8, 5))
    left.set_title("p(disease | x-ray and dyspnoea)", size=17, pad=12, color=INK)
    left.legend(loc="upper left", frameon=False, fontsize=12, ncols=2)

    right = figure.add_axes((0.775, 0.08, 0.2, 0.84))
    place = np.arange(len(WAYS))[::-1]
    taken = [1000 * seconds[way] for way in WAYS]
    bars = right.barh(place, taken, 0.62, color=COLOURS)
    right.bar_label(bars, [f"{t:,.2g} ms" if t < 10 else f"{t:,.0f} ms" for t in taken],
                    padding=4, size=12, color=INK)  # fmt: skip
    right.set_yticks(place, list(WAYS), size=13)
    right.set(xscale="log", xlim=(min(taken) / 3, max(taken) * 30), xlabel="milliseconds")
    right.set_title("Time", size=17, pad=12, color=INK)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    left.grid(axis="y", color=PALE, alpha=0.3, lw=0.8)
    left.set_axisbelow(True)
    figure.savefig(out, dpi=100)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("six_ways.png"))
    out = parser.parse_args(argv).out

    model = graphs.load("asia")
    beliefs, errors, seconds = {}, {}, {}
    for way, answer in WAYS.items():
        taken = []
        for _ in range(1 if answer is by_variational_inference else 4):  # the first also loads
            start = time.perf_counter()
            beliefs[way], errors[way] = answer(model)
            taken.append(time.perf_counter() - start)
        seconds[way] = min(taken)

    table = Table(title="chest clinic: p(disease | x-ray yes, dyspnoea yes)")
    for column in ("way", *DISEASES.values(), "milliseconds"):
        table.add_column(column, justify="left" if column == "way" else "right")
    found = {}
    for way in WAYS:
        name = way.replace("\n", " ")
        cells = []
        for v, disease in DISEASES.items():
            error = errors[way][v] if errors[way] else 0.0
            found |= {f"{name}: {disease}": beliefs[way][v], f"{name}: {disease}, error": error}
            cells.append(f"{beliefs[way][v]:.6f}" + (f" ± {error:.1g}" if error else ""))
        found[f"{name}: seconds"] = seconds[way]
        table.add_row(name, *cells, f"{1000 * seconds[way]:,.2f}")
    Console(width=130).print(table)
    print("errors: the standard error of likelihood weighting; sqrt(KL / 2) for the guide")
    draw(out, beliefs, errors, seconds)
    print(f"picture: {out}")
    return found


if __name__ == "__main__":
    main()
