r"""Posterior collapse in a hierarchy of latents, and what keeps a layer alive.

A chain z_3 -> z_2 -> z_1 -> x of latents, p(x, z) = p(z_3) p(z_2 | z_3) p(z_1 | z_2) p(x | z_1), is
fitted to binary digits by the ELBO, whose KL has a part for each layer,

    KL_t = E_q KL(q(z_t | z_{t+1}, x) || p(z_t | z_{t+1})) = nats that layer t says of x, at least.

Early in training the decoder cannot use z, so that what a layer says costs its KL and earns
nothing: q falls onto the prior. With KL_t = 0 the layers below get noise from it and learn to
ignore it, and then it never earns anything: a dead layer. Two common helps change the objective and
not the model:

    warm-up      the KL's weight rises from 0 to 1, here in 0.6 of the training (Bowman et al. 2016)
    free bits    a layer's KL enters as max(KL_t, 2 nats): what is below is not pushed down
                 (Kingma et al. 2016)

Whether a layer lives is seen by keeping z_3 of an image, drawing the layers below it anew, and
asking a nearest-neighbour classifier whether the result is still the same digit: one time in ten by
chance. The bound compares all runs by the same ELBO, without any help.
"""

import argparse
from pathlib import Path

import pyro
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from sklearn.neighbors import KNeighborsClassifier

import ppgen

FREE = 2.0  # nats a layer
HELPS = {
    "none": {},
    "warm-up": {"kl_warmup": 0.6},
    "warm-up, free bits": {"kl_warmup": 0.6, "free_bits": FREE},
}
DIMS = (16, 8, 4)  # of z_1, z_2, z_3
LAYERS = {"z_1": "C0", "z_2": "C1", "z_3": "C3"}
STEPS = 450
TESTED = 400
SHOWN = 12


def train(data, helps):
    pyro.set_rng_seed(0)  # the same start for all
    program = ppgen.HierarchicalVAE(
        data.shape, latent_dims=DIMS, hidden=(256,), latent_hidden=(64,), levels=data.levels
    )
    return ppgen.fit(
        program, data, steps=STEPS, lr=3e-3, objective=ppgen.ELBO(program, **helps), device="cpu",
        validate_epochs=0, progress=False,
    )  # fmt: skip


@torch.no_grad()
def from_the_top(program, x):
    """p(x | z_1) at means, with z_3 ~ q(z_3 | x) and the rest drawn from the model given z_3."""
    z = program.encode(x)["z_3"].sample()
    for layer in (program.down[1], program.down[0]):  # p(z_2 | z_3), p(z_1 | z_2)
        z = layer(z, None).sample()
    return program.decode(z).mean


def draw(out, runs, results, x, found):
    figure = Figure(figsize=(13, 7.6), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    for axes, (name, run) in zip(
        above.subplots(1, len(HELPS), sharey=True), runs.items(), strict=True
    ):
        steps = [row["step"] for row in run.metrics]
        for layer, colour in LAYERS.items():
            axes.plot(steps, [row[f"kl/{layer}"] for row in run.metrics], color=colour, label=layer)
        if "free_bits" in HELPS[name]:
            axes.axhline(FREE, color="0.4", lw=1, ls=":", label="free bits")
        axes.set_yscale("symlog", linthresh=0.1)
        axes.set(ylim=(0, 30), xlabel="step", xlim=(0, STEPS), yticks=(0, 0.1, 1, 10))
        axes.set_yticklabels(("0", "0.1", "1", "10"))
        axes.set_title(f"{name}: ELBO {found[f'{name}: ELBO']:.1f} nats")
        axes.legend(loc="center right", fontsize=9)
        axes.grid(alpha=0.25)
        if name == next(iter(HELPS)):
            axes.set_ylabel("KL of a layer, nats")
    panels = below.subplots(1 + len(HELPS), SHOWN)
    for row, (name, pictures) in zip(panels, {"x": x, **results}.items(), strict=True):
        for axes, picture in zip(row, pictures, strict=False):
            axes.imshow(picture[0].numpy(), cmap="gray_r", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
        same = "" if name == "x" else f"\nsame digit: {found[f'{name}: same digit from z_3']:.0%}"
        row[0].set_ylabel(name + same, rotation=0, ha="right", va="center", fontsize=10)
    below.suptitle(
        "Images drawn given the $z_3$ of the image above: does the top layer say anything?"
    )
    figure.savefig(out, dpi=100)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("posterior_collapse.png"))
    out = parser.parse_args(argv).out

    data = ppgen.load_data("mnist", binarize="threshold", size=14)
    train_x, train_y = data.train.batch(slice(0, None))
    classifier = KNeighborsClassifier(3).fit(train_x.flatten(1).numpy(), train_y.numpy())
    x, y = data.test.batch(slice(0, TESTED))

    runs, results, found = {}, {}, {}
    table = Table(title=f"{TESTED} test digits after {STEPS} steps", caption="nats")
    for column in ("help", "ELBO", *(f"KL {layer}" for layer in reversed(LAYERS)), "same digit"):
        table.add_column(column, justify="left" if column == "help" else "right")
    for name, helps in HELPS.items():
        run = runs[name] = train(data, helps)
        elbo = ppgen.evaluate(run, particles=20, limit=TESTED).elbo
        results[name] = from_the_top(run.program, x)
        guessed = (results[name].flatten(1) > 0.5).float().numpy()
        kls = {layer: elbo[f"kl/{layer}"] for layer in reversed(LAYERS)}
        found |= {f"{name}: KL of {layer}": kl for layer, kl in kls.items()}
        found |= {
            f"{name}: ELBO": elbo["value"],
            f"{name}: same digit from z_3": classifier.score(guessed, y.numpy()),
        }
        table.add_row(
            name,
            f"{elbo['value']:.2f} ± {elbo['stderr']:.2f}",
            *(f"{kl:.3f}" for kl in kls.values()),
            f"{found[f'{name}: same digit from z_3']:.1%}",
        )
    Console().print(table)
    print(
        "same digit: drawn anew from its z_3, an image still shows its digit\n"
        "±: over test digits, which are the same for all"
    )
    draw(out, runs, results, x, found)
    print(f"picture: {out}")
    return found


if __name__ == "__main__":
    main()
