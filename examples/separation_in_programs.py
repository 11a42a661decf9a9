r"""What depends on what in a Pyro program: its graph, and d-separation on it.

`from_pyro` runs a program, follows every sampled value to the distributions that are given it, and
returns the graph p(sites) = prod_i p(site_i | pa_i); a site in a plate is one node for all its
elements. The questions of d-separation then have answers before anything is fitted:

    VAE                z -> x                     the latents and the data: no node can part them
    hierarchical VAE   z3 -> z2 -> z1 -> x        a Markov chain: given z1, the data say no more of
                                                  z3; given the data alone, all layers are joined
    mixture            weights -> k -> x <- means x is head-to-head: weights and means are a priori
                                                  independent, and the data join them: a mean-field
                                                  guide q(weights) q(means) leaves something out
"""

import argparse
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure

import graphs
from graphs import from_pyro
from graphs.pictures.picture import INK
from ppgen.models import VAE

DATA = torch.zeros(8, 4)


def hierarchical(x):
    """p(z3) p(z2 | z3) p(z1 | z2) p(x | z1)."""
    with pyro.plate("batch", len(x)):
        z = pyro.sample("z3", dist.Normal(x.new_zeros(len(x), 4), 1.0).to_event(1))
        for name in ("z2", "z1"):
            z = pyro.sample(name, dist.Normal(torch.tanh(z), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(torch.tanh(z), 1.0).to_event(1), obs=x)


def mixture(x, components=3):
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(components)))
    with pyro.plate("components", components):
        means = pyro.sample("means", dist.Normal(torch.zeros(4), 3.0).to_event(1))
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(weights))
        pyro.sample("x", dist.Normal(means[k], 1.0).to_event(1), obs=x)


QUESTIONS = {  # program: questions (a, b, given)
    "VAE": [("z", "x", ())],
    "hierarchical VAE": [("z3", "x", "z1"), ("z3", "z1", "x")],
    "mixture": [("weights", "means", ()), ("weights", "means", "x")],
}


def key(program, explanation):
    given = f" given {', '.join(explanation.given)}" if explanation.given else ""
    return f"{program}: {explanation.a[0]} and {explanation.b[0]} separated{given}"


def draw(out, shown, programs):
    wide, high, column, row, zoom = 15.0, 10.6, 5.0, 4.95, 1.12  # inches
    figure = Figure(figsize=(wide, high))
    for (program, j), (drawn, options) in shown.items():
        i = list(programs).index(program)
        width, height = graphs.draw(drawn, **options).get_size_inches() * zoom  # one scale for all
        left, top = i * column + (column - width) / 2, high - 0.7 - j * row
        box = left / wide, (top - height) / high, width / wide, height / high
        graphs.draw(drawn, ax=figure.add_axes(box), **options)
        if j == 0:
            figure.text((left + width / 2) / wide, 0.955, program, size=19, ha="center", color=INK)
    figure.savefig(out, dpi=100)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("separation_in_programs.png"))
    out = parser.parse_args(argv).out

    programs = {
        "VAE": from_pyro(VAE((4,), latent_dim=2, hidden=[8]).model, DATA),
        "hierarchical VAE": from_pyro(hierarchical, DATA),
        "mixture": from_pyro(mixture, DATA),
    }
    shown, found = {}, {}
    for name, graph in programs.items():
        print(f"{name}: {graphs.factorization(graph)}")
        for node, says in graph.nodes(data=True):
            seen = "observed" if says["observed"] else "latent"
            plates = f", in {' in '.join(reversed(says['plates']))}" if says["plates"] else ""
            print(f"  {node:8} {says['distribution']}, {seen}{plates}")
        found[f"{name}: edges"] = graph.number_of_edges()
        for j, question in enumerate(QUESTIONS[name]):
            explanation = graphs.explain_separation(graph, *question)
            found[key(name, explanation)] = float(explanation.separated)
            seen = f"{', '.join(explanation.given) or 'nothing'} observed"
            title = f"{seen}: {'separated' if explanation.separated else 'joined'}"
            shown[name, j] = explanation, {"title": title}
            print(f"\n{explanation}\n")
    shown["VAE", 1] = programs["VAE"], {"observed": "x", "title": "what the program observes"}
    draw(out, shown, programs)
    print(f"picture: {out}")
    return found


if __name__ == "__main__":
    main()
