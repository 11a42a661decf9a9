"""Every example runs, draws its picture and gets its key figures right.

To add an example: write `examples/NAME.py` with `main(argv)`, which takes `--out PICTURE` and
returns a dictionary of its figures; add a line to `examples/README.md`; and add a function here,
decorated with `@example`, named as the script is, that checks the figures.
"""

import math
import re
import runpy
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import matplotlib.image
import networkx as nx
import pyro
import pytest
import torch

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
CHECKS = {}  # script name: the check of its figures


def example(check):
    CHECKS[check.__name__] = check
    return check


@example
def entropy_of_coins(found):
    texts = {"H(p), p = (.5, .5)": 1, "H(q), q = (.2, .8)": 0.72, "H(p, q)": 1.32}
    for name, value in texts.items():
        assert found[name] == pytest.approx(value, abs=5e-3)
    assert found["information of a fair coin's head"] == 1
    assert found["JS of disjoint coins"] == 1
    assert found["KL(p || q)"] == pytest.approx(found["H(p, q)"] - found["H(p), p = (.5, .5)"])
    assert found["KL(p || q)"] != pytest.approx(found["KL(q || p)"], abs=0.02)
    assert found["maximum likelihood P(red)"] == pytest.approx(0.3, abs=1e-3)
    assert found["fitted posterior a"] == pytest.approx(32, rel=0.05)
    assert found["fitted posterior b"] == pytest.approx(72, rel=0.05)


@example
def variational_inference(found):
    x = 1.5
    log_cdf = math.log((1 + math.erf((x - 1) / math.sqrt(2))) / 2)
    assert found["log p(x)"] == pytest.approx(0.5 - x + log_cdf, abs=1e-12)
    assert found["log p(x) by quadrature"] == pytest.approx(found["log p(x)"], abs=1e-8)
    families = ("log-normal", "softplus-normal", "truncated normal")
    for family in families:
        # two measurements that share nothing: Pyro's samples, and quadrature
        total = found[f"{family}: ELBO"] + found[f"{family}: KL"]
        error = found[f"{family}: ELBO error"]
        assert total == pytest.approx(found["log p(x)"], abs=4 * error + 1e-6)
        assert error < 2e-3
    gaps = [found[f"{family}: KL"] for family in families]
    assert gaps[0] > 0.1 > gaps[1] > 0.02
    assert 0 <= gaps[2] < 1e-3
    for moment in ("mean", "std"):
        exact = found[f"posterior {moment}"]
        assert found[f"truncated normal: {moment}"] == pytest.approx(exact, abs=0.02)
    # the exact moments themselves, by brute force
    z = torch.linspace(0, 12, 120_001, dtype=torch.float64)
    weight = (-z - (x - z) ** 2 / 2).exp()
    mean = (torch.trapezoid(weight * z, z) / torch.trapezoid(weight, z)).item()
    var = (torch.trapezoid(weight * (z - mean) ** 2, z) / torch.trapezoid(weight, z)).item()
    assert found["posterior mean"] == pytest.approx(mean, abs=1e-7)
    assert found["posterior std"] == pytest.approx(math.sqrt(var), abs=1e-7)


@example
def evidence_gap(found):
    for guide in ("full covariance", "mean field"):
        assert found[f"{guide}: worst |ELBO + KL - log p(x)|"] < 1e-5
        assert found[f"{guide}: KL at the start"] > 10
        # the closed form against Pyro's samples
        error = found[f"{guide}: ELBO by Pyro, error"]
        exact = found[f"{guide}: ELBO at the end"]
        assert found[f"{guide}: ELBO by Pyro"] == pytest.approx(exact, abs=4 * error + 1e-6)
        assert error < 5e-3
        assert exact <= found["log p(x)"]
    assert 0 <= found["full covariance: KL at the end"] < 5e-3
    gap = found["mean-field gap, closed form"]
    assert gap > 0.5
    assert gap - 1e-12 <= found["mean field: KL at the end"] < gap + 5e-3


@example
def gradient_estimators(found):
    for dimension in (1, 4, 16, 64):
        ratios = []
        for name in ("reparameterisation", "score function, baseline", "score function"):
            key = f"{name}, d={dimension}"
            assert found[f"{key}: mean"] == pytest.approx(1, abs=4 * found[f"{key}: error"]), key
            closed = found[f"{key}: closed form"]
            assert found[f"{key}: variance"] == pytest.approx(closed, rel=0.05), key
            ratios.append(found[f"{key}: ratio"])
        assert ratios[0] == 1 < ratios[1] < ratios[2]
    assert found["score function, d=64: error"] < 0.1


@example
def explaining_away(found):
    separated = {"tail-to-tail": (0, 1), "head-to-tail": (0, 1), "head-to-head": (1, 0)}
    for name, answers in separated.items():
        for condition, answer in zip(("", " | c"), answers, strict=True):
            bits = found[f"{name}: I(a; b{condition}), bits"]
            assert found[f"{name}: a and b separated{condition}"] == answer
            assert abs(bits) < 1e-12 if answer else bits > 0.02
    # I(a; b) of a <- c -> b by hand: p(c = 1) = .4, p(a = 1 | c) = .2, .8, p(b = 1 | c) = .3, .9
    one = {"a": 0.6 * 0.2 + 0.4 * 0.8, "b": 0.6 * 0.3 + 0.4 * 0.9}
    both = 0.6 * 0.2 * 0.3 + 0.4 * 0.8 * 0.9
    cells = {(1, 1): both, (1, 0): one["a"] - both, (0, 1): one["b"] - both}
    cells[0, 0] = 1 - sum(cells.values())
    bits = sum(
        p * math.log2(p / (abs(1 - a - one["a"]) * abs(1 - b - one["b"])))
        for (a, b), p in cells.items()
    )
    assert found["tail-to-tail: I(a; b), bits"] == pytest.approx(bits, abs=1e-12)
    # Bishop, PRML, equations 8.30 to 8.33; then the same with the battery charged
    empty = 0.81 * 0.2 + 2 * 0.09 * 0.8 + 0.01 * 0.9
    beliefs = {
        "nothing seen": (0.1, 0.1),
        "gauge empty": (0.081 / empty, 0.081 / empty),
        "gauge empty, battery flat": (0.09 / (0.09 + 0.72), 1),
        "gauge empty, battery charged": (0.08 / (0.08 + 0.18), 0),
    }
    for seen, (fuel, battery) in beliefs.items():
        assert found[f"p(fuel empty | {seen})"] == pytest.approx(fuel, abs=1e-12)
        assert found[f"p(battery flat | {seen})"] == pytest.approx(battery, abs=1e-12)
    assert found["p(fuel empty | gauge empty)"] == pytest.approx(0.257, abs=5e-4)
    assert found["p(fuel empty | gauge empty, battery flat)"] == pytest.approx(0.111, abs=5e-4)


@example
def d_separation(found):
    assert found["a and b separated given c"] == 0
    assert found["a and b separated given f"] == 1
    dag = nx.DiGraph([("a", "e"), ("f", "e"), ("f", "b"), ("e", "c")])
    answers = [
        nx.is_d_separator(dag, {one}, {other}, set(given))
        for one, other in combinations("abcef", 2)
        for size in range(4)
        for given in combinations({*"abcef"} - {one, other}, size)
    ]
    assert found["questions"] == len(answers) == 80
    assert found["questions d-separated"] == sum(answers)
    assert found["largest I where separated, bits"] < 1e-12
    assert found["least I where not, bits"] > 1e-8
    assert found["alarm: trails"] == 4
    assert found["alarm: open trails"] == 2
    for given in ("nothing", "BP"):
        name = f"alarm given {given}"
        assert found[f"{name}: variables separated from LVFAILURE"] > 0
        assert found[f"{name}: largest I where separated, bits"] < 1e-12
        assert found[f"{name}: least I where not, bits"] > 1e-11
    assert abs(found["alarm given nothing: I(LVFAILURE; ANAPHYLAXIS), bits"]) < 1e-12
    assert found["alarm given BP: I(LVFAILURE; ANAPHYLAXIS), bits"] > 1e-4


@example
def markov_blanket(found):
    assert found["largest difference"] < 1e-12
    assert found["largest difference by hand"] < 1e-12
    assert found["blanket of HR"] == 8  # 1 parent, 4 children, 3 co-parents
    # the neighbours in the moral graph are the blanket
    mean = found["mean size of a blanket"]
    assert mean == pytest.approx(found["mean degree of the moral graph"], abs=1e-12)
    assert mean < found["largest blanket"] < 36
    assert 1e-4 < found["least needed member, bits"] < found["most needed member, bits"]


@example
def elimination_orders(found):
    for name in ("asia", "alarm"):
        assert found[f"{name}: posteriors differ by"] < 1e-12
    # p(dysp) of asia by hand: either disease, given the smoker's state
    yes = 0.0
    for lung, bronchitis in ((0.1, 0.6), (0.01, 0.3)):
        either = 1 - (1 - lung) * (1 - (0.01 * 0.05 + 0.99 * 0.01))
        with_bronchitis = either * 0.9 + (1 - either) * 0.8
        without = either * 0.7 + (1 - either) * 0.1
        yes += (bronchitis * with_bronchitis + (1 - bronchitis) * without) / 2
    assert found["asia: p(dysp)"] == pytest.approx(yes, abs=1e-12)
    assert found["asia: orders"] == math.factorial(7)
    assert 1 <= found["asia: orders as good as the best"] < 5040
    cells = "cells in all"
    best, worst = found[f"asia, best of all: {cells}"], found[f"asia, worst of all: {cells}"]
    for order in ("min-fill", "min-weight", "random 1", "random 2", "random 3"):
        assert best <= found[f"asia, {order}: {cells}"] <= worst
    # its variables have two states, and the treewidth of its moral graph is 2
    assert found["asia, best of all: width"] == 2
    assert found["asia, best of all: largest table"] == 2**3
    largest = [
        found[f"alarm, {order}: largest table"]
        for order in ("min-fill", "best random", "median random", "worst random")
    ]
    assert largest == sorted(largest)
    assert found["alarm, min-weight: largest table"] < largest[1]
    assert largest[-1] > 1000 * largest[0]


@example
def diagnosis(found):
    assert found["batched against one by one"] < 1e-12
    assert found["calibration, largest error in standard errors"] < 4
    assert found["mean posterior against prior, standard errors"] < 4
    priors = (0.2, 0.05, 0.01, 0.1, 0.01, 0.08, 0.04, 0.1)
    bits = -sum(p * math.log2(p) + (1 - p) * math.log2(1 - p) for p in priors)
    assert found["log loss of the priors, bits"] == pytest.approx(bits, rel=0.03)
    assert found["log loss of the posteriors, bits"] < 0.7 * bits
    assert found["least gain of a diagnosis, bits"] > -1e-3
    assert found["ROC area of LVFAILURE"] > 0.98
    assert found["ROC area of HYPOVOLEMIA"] > 0.9
    assert found["ROC area of INSUFFANESTH"] == pytest.approx(0.5, abs=0.05)  # hardly to be seen
    assert found["least expected bits of a diagnosis and a reading"] > -1e-12
    assert found["expected bits both ways"] < 1e-12
    assert found["expected bits of the best reading"] > 0.1
    explained = found["log probability of the explanation"]
    assert explained == pytest.approx(found["log probability of what it says"], abs=1e-9)
    assert explained >= found["log probability of the truth"]
    assert found["1000 patients, seconds"] < 2


@example
def image_generator(found):
    assert found["object right"] > 0.95
    assert found["position right"] > 0.99
    assert found["the true picture without noise"] > 0.95
    # a calibrated posterior knows how often its mode is right: four errors over 200 pictures
    expected = found["all three right, as the posterior expects"]
    error = math.sqrt(expected * (1 - expected) / 200)
    assert found["all three right"] == pytest.approx(expected, abs=4 * error)
    assert found["orientation right"] < 0.9  # a square turned by 90 degrees is the same square
    assert found["Bayes' rule against log_probability"] < 1e-9


@example
def learning_asia(found):
    assert found["EM, 0% missing"] == pytest.approx(found["dropped, 0% missing"])
    for share in ("5%", "10%", "20%", "30%", "40%", "50%"):
        assert 0 < found[f"EM, {share} missing"] < found[f"dropped, {share} missing"]
    assert found["dropped, 50% missing"] > 20 * found["EM, 50% missing"]
    assert found["smallest step of EM, nats"] > -1e-8
    assert found["SHD from 10000 rows"] < found["SHD from 300 rows"] < found["SHD from 100 rows"]


@example
def three_meals(found):
    for meal, count in {"burger": 25, "pizza": 15, "hot dog": 31}.items():
        assert found[f"pi({meal})"] == count / 71
    assert found["second eigenvalue"] == pytest.approx(math.sqrt(0.12), abs=1e-12)
    assert found["total variation after 24 days"] == pytest.approx(0.12**12, rel=0.5)
    assert [found[f"mixing time({e})"] for e in ("0.25", "0.01", "1e-06")] == [2, 5, 14]
    assert found["days until pizza, from burger"] == pytest.approx(7 / 3, rel=1e-15)
    assert found["days until pizza, from hot dog"] == pytest.approx(13 / 3, rel=1e-15)
    assert found["total variation of the rota after 1000 days"] == pytest.approx(2 / 3)
    assert found["extreme stationary distributions of the last chain"] == 2
    assert found["p(ends with water | undecided)"] == pytest.approx(1 / 3, rel=1e-15)
    assert found["p(coffee after 1e9 days | undecided)"] == pytest.approx(4 / 9, rel=1e-12)


@example
def six_ways(found):
    ways = ("clique tree", "variable elimination (pgmpy)", "parallel enumeration (Pyro)")
    for disease in ("tuberculosis", "lung cancer", "bronchitis"):
        exact = found[f"joint table: {disease}"]
        for way in ways:
            assert found[f"{way}: {disease}"] == pytest.approx(exact, abs=1e-9)
            assert found[f"{way}: {disease}, error"] == 0
        error = found[f"likelihood weighting: {disease}, error"]
        assert 0 < error < 0.01
        assert found[f"likelihood weighting: {disease}"] == pytest.approx(exact, abs=4 * error)
        bound = found[f"variational inference (Pyro): {disease}, error"]
        assert 0 < bound < 0.02
        assert abs(found[f"variational inference (Pyro): {disease}"] - exact) <= bound
    assert found["joint table: lung cancer"] == pytest.approx(0.6213, abs=1e-4)


@example
def network_by_svi(found):
    for guide in ("mean field", "full"):
        assert found[f"{guide}: |ELBO + KL - log p(e)|"] < 1e-9
        assert found[f"{guide}: highest ELBO"] <= found["log p(e)"] + 1e-9
    assert 0 < found["full: KL by the table"] < 1e-3 < 0.2 < found["mean field: KL by the table"]
    assert found["full: largest error of a marginal"] < 1e-3
    assert found["mean field: largest error of a marginal"] > 0.1
    exact = found["exact: p(tub and lung | e)"]
    assert found["full: p(tub and lung | e)"] == pytest.approx(exact, abs=1e-3)
    assert found["mean field: p(tub and lung | e)"] > 2 * exact


@example
def separation_in_programs(found):
    assert found["VAE: edges"] == 1
    assert found["hierarchical VAE: edges"] == found["mixture: edges"] == 3
    assert found["VAE: z and x separated"] == 0
    assert found["hierarchical VAE: z3 and x separated given z1"] == 1
    assert found["hierarchical VAE: z3 and z1 separated given x"] == 0
    assert found["mixture: weights and means separated"] == 1
    assert found["mixture: weights and means separated given x"] == 0


@example
def weather_hmm(found):
    assert found["log p(x), learned"] > found["log p(x), true parameters"]
    assert found["log p(x), worst start"] < found["log p(x), learned"] - 10
    assert 1 < found["starts at the best maximum"] < 12
    assert found["largest fall"] <= 1e-6
    assert found["right, each day alone"] < 0.85 < found["right, filtered"]
    assert found["right, filtered"] < found["right, smoothed"]
    expected = found["right, smoothing's own estimate"]
    assert found["right, smoothed"] == pytest.approx(expected, abs=0.03)
    assert found["right, Viterbi"] > 0.95 and found["right, learned"] > 0.95
    assert found["largest error of a mean"] < 1 and found["largest error of a transition"] < 0.1


@example
def loopy_coupling(found):
    for model in ("cycle, attractive", "cycle, frustrated", "grid, attractive", "grid, frustrated"):
        assert found[f"{model}: mean field, highest"] < 1e-9
        assert found[f"{model}: tree-reweighted, lowest"] > -1e-9
        sign = -1 if model.endswith("attractive") else 1
        assert sign * found[f"{model}, J = 0.5: Bethe, log Z"] > 0.01
    for model in ("cycle, attractive", "grid, attractive"):
        assert found[f"{model}, J = 3: Bethe, marginal"] > 0.25
        assert found[f"{model}, J = 3: tree-reweighted, marginal"] < 0.01
    assert found["cycle, frustrated: couplings at which belief propagation converged"] == 25
    assert 3 < found["grid, frustrated: couplings at which belief propagation converged"] < 20


@example
def ising_temperatures(found):
    for where in ("below", "at", "above"):
        exact = found[f"{where}: log Z by enumeration"]
        assert found[f"{where}: log Z"] == pytest.approx(exact, abs=1e-10)
        assert found[f"{where}: log Z by Bethe"] < exact - 0.05
        error = found[f"{where}: u, error"]
        assert found[f"{where}: u"] == pytest.approx(found[f"{where}: u, exact"], abs=5 * error)
    assert found["at: u, exact"] == pytest.approx(-math.sqrt(2))
    assert found["below: |m|"] == pytest.approx(found["below: |m|, exact"], abs=2e-3)
    assert 0.4 < found["at: |m|"] < 0.65
    assert found["above: |m|"] < 0.05


@example
def denoising(found):
    least = found["energy, graph cut"]
    assert all(v >= least for k, v in found.items() if k.startswith("energy"))
    assert found["wrong, ICM"] > 3 * found["wrong, graph cut"]
    assert found["wrong, ICM, learned"] < found["wrong, graph cut"] < found["wrong, noisy"] / 5
    assert found["pixels that ICM moves at the minimum"] == 0


@example
def segmentation(found):
    assert found["least fall of E by a cut"] >= -1e-6
    assert found["unlike the clean, cut"] < 0.005 < 0.015 < found["unlike the clean, colour alone"]
    assert found["border, cut"] < found["border, colour alone"] / 5
    assert found["E, cut"] < found["E, colour alone"] and found["flower outside the rectangle"] == 0


@example
def belief_propagation_chain(found):
    # by hand: m_{x1->x2} = (.2 * 3 + .8, .2 + .8 * 3) / 4, and so on
    assert found["nothing seen: m_{x1->x2}(x2), on"] == pytest.approx(2.6 / 4)
    assert found["nothing seen: m_{x2->x3}(x3), on"] == pytest.approx((1.4 + 3 * 2.6) / 16)
    assert found["nothing seen: m_{x3->x2}(x2), on"] == pytest.approx((0.7 + 3 * 0.3) / 4)
    assert found["x3 seen on: m_{x3->x2}(x2), on"] == pytest.approx(3 / 4)
    for seen in ("nothing seen", "x3 seen on"):
        for name in ("p(x1 = on)", "p(x2 = on)", "p(x3 = on)", "log Z"):
            exact = found[f"{seen}: {name}, enumerated"]
            assert found[f"{seen}: {name}"] == pytest.approx(exact, abs=1e-12)
    assert found["x3 seen on: p(x1 = on)"] > found["nothing seen: p(x1 = on)"]
    assert found["operations, one marginal"] == 2 * 2**2
    assert found["operations, all marginals"] == 2 * 2 * 2**2
    assert found["configurations"] == 2**3
    assert found["frames"] == 1 + 4 + 8


@example
def belief_propagation_tree(found):
    assert found["operations"] == 2 * 5 * 3**2
    assert found["configurations"] == 3**6
    for run in ("root x1", "root x6", "flooding", "residual"):
        assert found[f"{run}: worst error"] < 1e-12
        assert found[f"{run}: log Z"] == pytest.approx(found["log Z"], abs=1e-12)
    for run in ("root x1", "root x6"):
        assert found[f"{run}: messages"] == 2 * 5
        assert found[f"{run}: operations"] == found["operations"]
    assert found["flooding: iterations"] == 3 + 1  # the longest way has three edges
    assert found["flooding: messages"] == 10 * 4
    assert found["residual: messages"] < found["flooding: messages"]
    assert found["max-product: differs from enumeration"] == 0
    assert found["max-product: score"] == pytest.approx(found["best score"], abs=1e-12)
    assert found["each by itself: score"] < found["best score"] - 1
    assert found["each by itself: variables that differ"] == 4
    assert found["frames"] == 1 + 10 + 8


@example
def forward_process(found):
    for name in ("linear", "cosine"):
        for t in (1, 10, 100, 250, 500, 1000):
            assert found[f"{name}, t={t}: exact moments off"] < 2e-6
            assert found[f"{name}, t={t}: drawn moments off, standard errors"] < 4.5
    # abar of the linear schedule by hand: the variances rise from 1e-4 to 0.02
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    for t in (1, 10, 100, 250, 500, 1000):
        by_hand = (1 - beta[:t]).prod().item()
        assert found[f"linear, t={t}: abar"] == pytest.approx(by_hand, rel=1e-5)
    first = "first t with more noise than signal"
    assert found[f"linear: {first}"] < 300 < 480 < found[f"cosine: {first}"] < 500
    assert found["cosine, T=1000: nats left"] < found["linear, T=1000: nats left"] < 0.05
    assert found["linear, T=50: nats left"] > 100  # a schedule for a thousand steps
    assert found["cosine, T=50: nats left"] < 0.01


@example
def two_forms(found):
    for steps in (4, 8, 16, 32):
        bound = found[f"T={steps}: closed form"]
        assert bound < found["log p(x)"]
        spread = {}
        for name in ("chain", "collapsed", "shared", "forward", "first"):
            key = f"{name}, T={steps}"
            assert found[f"{key}: mean"] == pytest.approx(bound, abs=4.5 * found[f"{key}: error"])
            spread[name] = found[f"{key}: deviation"]
        assert spread["chain"] < spread["collapsed"] < spread["shared"]
        assert found[f"chain, T={steps}: error"] < 0.02 * abs(bound) + 0.2
    # the first form, step by step, is the worse the more steps there are
    assert found["first, T=8: deviation"] < 4 * found["collapsed, T=8: deviation"]
    assert found["first, T=32: deviation"] > 3.5 * found["collapsed, T=32: deviation"]
    assert found["shared, T=32: deviation"] > 3.5 * found["collapsed, T=32: deviation"]
    assert found["T=512: gap"] == pytest.approx(found["T=2048: gap"] * 4, rel=0.05)
    assert 0 < found["T=2048: gap"] < 0.05


@example
def score_field(found):
    errors = [found[f"score error, t={t}"] for t in (65, 35, 15, 2)]
    assert errors == sorted(errors), "the more noise, the easier"
    assert errors[0] < 0.005 and errors[2] < 0.15 and errors[3] < 0.4
    # the moons' entropy by hand, as if each were straight: 2 arcs of length pi, width 0.06
    entropy = math.log(2 * math.pi) + math.log(0.06 * math.sqrt(2 * math.pi * math.e))
    assert -found["exact: log p"] == pytest.approx(entropy, abs=0.15)
    steps = "the same with the exact score: below the exact"
    assert found["ODE: below the exact"] > -3 * found["ODE: error"]
    assert found["ODE: below the exact"] < 0.5
    assert found["ODE: below the exact"] < found[steps] < found["chain, bound: below the exact"] < 2
    for name in ("ancestral", "ODE"):
        # a sample without any structure, N(0, I) say, would have mean log p near -100
        assert found[f"samples, {name}: mean log p"] > -3
        assert found[f"samples, {name}: share of the upper moon"] == pytest.approx(0.5, abs=0.06)
    ancestral = found["samples, ancestral: length of a path"]
    assert ancestral > 10 * found["samples, ODE: length of a path"]


@example
def posterior_collapse(found):
    for name in ("none", "warm-up"):
        assert found[f"{name}: KL of z_3"] < 0.05 and found[f"{name}: KL of z_2"] < 0.1
        assert found[f"{name}: KL of z_1"] > 3
        assert found[f"{name}: same digit from z_3"] < 0.17  # chance
    helped = "warm-up, free bits"
    for layer in ("z_1", "z_2", "z_3"):
        assert found[f"{helped}: KL of {layer}"] > 1.7  # two nats are free
    assert found[f"{helped}: same digit from z_3"] > 0.22
    assert found["none: ELBO"] < found["warm-up: ELBO"] < found[f"{helped}: ELBO"] + 0.3
    assert found["none: ELBO"] < found[f"{helped}: ELBO"] - 0.5


@example
def guidance(found):
    accuracy, diversity, recall, precision = (
        [found[f"scale {scale}: {name}"] for scale in (0, 1, 2, 4, 8)]
        for name in ("accuracy", "diversity", "recall", "precision")
    )
    assert accuracy[0] < 0.25 < 0.75 < accuracy[1] < accuracy[2]
    assert min(accuracy[2:]) > 0.97
    assert diversity[0] > diversity[1] > diversity[2] > diversity[3]
    assert diversity[4] < 0.85 * diversity[1]
    assert recall[1] > recall[2] > recall[3] and recall[4] < recall[1] / 3
    assert precision[1] < precision[2] > precision[4]
    assert found["test digits: accuracy"] > 0.95


@example
def inpainting(found):
    assert found["largest change of what is given"] == 0
    once, often, truth = "resample 1", "resample 10", "test digits"
    assert found[f"{once}: consistency"] > found["another's half: consistency"] + 0.1
    assert found[f"{often}: consistency"] > found[f"{once}: consistency"] + 0.05
    assert found[f"{often}: consistency"] < found[f"{truth}: consistency"]
    for name in ("seam", "distance"):
        assert found[f"{often}: {name}"] < found[f"{once}: {name}"]
        assert found[f"{once}: {name}"] < found[f"another's half: {name}"]
    # ten passes mend a good part of what is too far away from digits
    far = found[f"{once}: distance"] - found[f"{truth}: distance"]
    assert found[f"{often}: distance"] - found[f"{truth}: distance"] < 0.6 * far
    assert found[f"{often}: diversity"] > 0.3  # several completions, not one


@example
def gaussian_mixture(found):
    for components in (1, 2, 5, 10, 20):
        # the same likelihood as by EM, within a hundredth; of 5 they end in different optima
        ours, theirs = found[f"{components}: train"], found[f"{components}: train by EM"]
        assert ours == pytest.approx(theirs, rel=0.2 if components == 5 else 0.01)
    tests = [found[f"{components}: test"] for components in (1, 2, 5, 10, 20)]
    assert tests == sorted(tests)
    assert found["5: test"] < found["VAE"] < found["20: test"] + 0.05


@example
def flow_steps(found):
    assert found["integral"] == pytest.approx(1, abs=0.01)
    assert abs(found["log p and the sum of the steps"]) < 1e-3
    assert found["test log p"] > found["test log p, one Gaussian"] + 1.2
    for layer in range(1, 7):  # a coupling keeps one half
        assert found[f"layer {layer}: least moved"] == 0 < found[f"layer {layer}: most moved"]


@example
def flow_directions(found):
    for size in (2, 4, 8, 16, 32, 64):
        turns = {
            (kind, work): found[f"{kind}, {size}: {work} turns"]
            for kind in ("MAF", "IAF", "coupling")
            for work in ("train", "sample")
        }
        slow = {("MAF", "sample"), ("IAF", "train")}
        assert turns == {key: size if key in slow else 1 for key in turns}
    assert found["train: IAF / MAF"] > 4 and found["sample: MAF / IAF"] > 4


@example
def dequantisation(found):
    for noise in ("uniform", "variational"):
        bound, several = (found[f"{noise}: {name}"] for name in ("bound", "bound of 8 particles"))
        exact = found[f"{noise}: exact"]
        assert bound < several + 1e-3 and several < exact + 1e-3
        assert exact < -found["entropy of the data"]
    gaps = [found[f"{n}: exact"] - found[f"{n}: bound"] for n in ("uniform", "variational")]
    assert gaps[0] > 0.04 and gaps[1] < 0.2 * gaps[0]
    assert found["variational: exact"] > found["uniform: exact"]


@example
def optimal_discriminator(found):
    assert found["shift 0: JS"] < found["shift 1.5: JS"] < found["shift 3: JS"] < math.log(2)
    for shift in ("0", "1.5", "3"):
        error = found[f"shift {shift}: error of V(D)"]
        best = found[f"shift {shift}: -log 4 + 2 JS"]
        assert found[f"shift {shift}: V(D)"] == pytest.approx(best, abs=4 * error)
        assert best == pytest.approx(-math.log(4) + 2 * found[f"shift {shift}: JS"])
        assert error < 0.005
        assert found[f"shift {shift}: mean |D - D*|"] < 0.02


@example
def vanishing_gradient(found):
    for loss in ("minimax", "nonsaturating", "wasserstein_gp"):
        for a in (1, 2, 3, 4, 5):
            best = found[f"{loss}: best at {a}"]
            assert found[f"{loss}: gradient at {a}"] == pytest.approx(best, rel=0.06)
    assert found["minimax: best at 5"] < 0.05 < 0.4 < found["minimax: best at 2"]
    assert found["nonsaturating: best at 5"] > 100 * found["minimax: best at 5"]
    last = {
        loss: found[f"{loss}: gradient after 250 steps"] for loss in ("minimax", "nonsaturating")
    }
    assert found["minimax: gradient after 0 steps"] < 2 * last["minimax"] < 0.15
    assert last["nonsaturating"] > 20 * found["nonsaturating: gradient after 0 steps"]


@example
def mode_collapse(found):
    assert found["data: covered"] == 8 and found["data: good"] > 0.97
    assert found["wasserstein_gp: least covered"] >= 7
    for loss in ("minimax", "nonsaturating"):
        assert found[f"{loss}: covered"] < 5
        assert found[f"{loss}: good"] < found["wasserstein_gp: good"]


@example
def sample_scores(found):
    names = ("real", "blurred", "noise", "one class", "copied")
    score = {name: {key.partition(": ")[2]: value for key, value in found.items()
                    if key.startswith(f"{name}: ")} for name in names}  # fmt: skip
    for distance in ("fid", "kid"):
        real, blurred, noise = (score[name][distance] for name in names[:3])
        assert noise > 3 * blurred and blurred > 3 * abs(real)
    assert score["one class"]["recall"] < 0.3 and score["one class"]["precision"] > 0.6
    assert score["real"]["c2st"] == pytest.approx(0.5, abs=0.15)
    assert score["noise"]["c2st"] > 0.9
    # copies are good samples to all scores but one
    assert score["copied"]["nearer to training"] > 0.95
    assert score["copied"]["precision"] > 0.8 and score["copied"]["recall"] > 0.7
    assert score["real"]["nearer to training"] == pytest.approx(0.5, abs=0.12)


@example
def sketch_to_image(found):
    assert found["shapes in their own colour"] > 0.9
    assert found["distance of the drawing"] < 0.6 * found["distance of the mean picture"]


# alarm's file has tables whose printed digits do not sum to one exactly
@pytest.mark.filterwarnings(r"ignore:alarm. \d+ columns of tables sum to 1 only:UserWarning")
@pytest.mark.parametrize("name", CHECKS)
def test_example(name, tmp_path, capsys):
    picture = tmp_path / "picture.png"
    before = set(pyro.get_param_store().keys())
    main = runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name=name)["main"]
    found = main(["--out", str(picture)])
    assert picture.name in capsys.readouterr().out.replace("\n", "")
    assert all(math.isfinite(value) for value in found.values())
    CHECKS[name](found)
    pixels = matplotlib.image.imread(picture)
    assert min(pixels.shape[:2]) >= 300
    assert 0.02 < (pixels[..., :3].min(-1) < 0.95).mean() < 0.9, "blank, or all ink"
    assert set(pyro.get_param_store().keys()) == before, (
        "the example left something in Pyro's store"
    )
    assert torch.get_default_dtype() == torch.float32


def test_as_a_command(tmp_path):
    command = [sys.executable, "-W", "error", str(EXAMPLES / "gradient_estimators.py")]
    done = subprocess.run(
        [*command, "--out", "picture.png"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "reparameterisation" in done.stdout
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_every_example_is_listed_and_tested():
    scripts = {path.stem for path in EXAMPLES.glob("*.py")}
    listed = set(re.findall(r"^\| `(\w+)\.py` \|", (EXAMPLES / "README.md").read_text(), re.M))
    assert listed == scripts, "examples/README.md lists every script, and only those"
    assert set(CHECKS) == scripts, "tests/test_examples.py checks every script, and only those"
    for name in scripts:
        source = (EXAMPLES / f"{name}.py").read_text()
        assert source.endswith('\n\nif __name__ == "__main__":\n    main()\n'), name
