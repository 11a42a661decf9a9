r"""Diagnosis from a table of patients: posteriors in one query, whether to trust them, what to ask.

The alarm network (Beinlich, Suermondt, Chavez & Cooper 1989) has 8 diagnoses, 16 readings of a
monitor and 13 variables in between. Patients are sampled from it; the diagnoses and what is in
between are hidden, and each reading is missing with probability 0.3. One batched query gives every
patient's p(diagnosis | readings), whatever was read.

Exact posteriors are calibrated: of the cases to which they give 0.2 the disease is there in a
fifth. How much they tell is the fall of the log loss, -log2 p(what the patient has), from the
prior's, and the area under the ROC curve: the probability that a patient with the disease gets a
higher posterior than one without.

What to read next? The expected fall of the entropy of a diagnosis D by the reading R,

    I(D; R | e) = H(D | e) - sum_k p(R = k | e) H(D | e, R = k)

comes for all diagnoses and readings from one batch, with a row for each state of each reading not
taken. It is symmetric, so that diagnoses and readings may change places, which checks it.
"""

import argparse
import time
from pathlib import Path

import networkx as nx
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.special import entr
from sklearn.metrics import roc_auc_score, roc_curve

import graphs
from graphs.pictures.picture import BLOCKED, INK, OPEN, PALE

PATIENTS, TIMED, MISSING = 10_000, 1000, 0.3
DIAGNOSES = {  # the states in which the disease is there
    "HYPOVOLEMIA": ["TRUE"],
    "LVFAILURE": ["TRUE"],
    "ANAPHYLAXIS": ["TRUE"],
    "INSUFFANESTH": ["TRUE"],
    "PULMEMBOLUS": ["TRUE"],
    "INTUBATION": ["ESOPHAGEAL", "ONESIDED"],
    "KINKEDTUBE": ["TRUE"],
    "DISCONNECT": ["TRUE"],
}
TONES = ["#0072B2", "#D55E00", "#009E73", "#8a8f98", "#CC79A7", "#56B4E9", "#30343b", "#E69F00"]
READINGS = [
    *("HISTORY", "CVP", "PCWP", "TPR", "BP", "CO", "HRBP", "HREKG", "HRSAT", "PAP", "SAO2"),
    *("FIO2", "PRESS", "EXPCO2", "MINVOL", "MINVOLSET"),
]


def present(posterior):
    """p(the disease is there) by patient and diagnosis, (n, 8); (8,) for one patient."""
    columns = []
    for diagnosis, states in DIAGNOSES.items():
        ill = [posterior.states(diagnosis).index(state) for state in states]
        columns.append(posterior[diagnosis][..., ill].sum(-1).numpy())
    return np.stack(columns, -1)


def log_loss(truth, p):
    """-log2 p(what the patient has), by diagnosis, on average over the patients: bits."""
    return -np.log2(np.where(truth, p, 1 - p)).mean(0)


def calibration(truth, p):
    """In ten bins of p: cases, mean p, the share that has the disease, its standard error."""
    which = np.minimum((p * 10).astype(int), 9).ravel()
    n = np.bincount(which, minlength=10)
    mean = np.bincount(which, p.ravel(), 10) / n
    share = np.bincount(which, truth.ravel(), 10) / n
    # Were each case a coin with its own p, the share would vary by this much.
    error = np.sqrt(np.bincount(which, (p * (1 - p)).ravel(), 10)) / n
    return n, mean, share, error


def entropy(p):
    """Bits, over the last axis."""
    return entr(p).sum(-1) / np.log(2)


def expected_fall(engine, seen, hidden, asked):
    """I(D; R | seen) in bits: a row for each D hidden, a column for each R that may be asked."""
    now = engine.query(seen)
    answers = [(reading, state) for reading in asked for state in now.states(reading)]
    then = engine.query(pd.DataFrame([seen | dict([answer]) for answer in answers]), hidden)
    # p(R = k | seen) = p(seen, R = k) / p(seen); an impossible answer weighs nothing
    weights = (then.log_evidence - now.log_evidence).exp().numpy()
    fall = {}
    for variable in hidden:
        left = np.where(weights > 0, weights * entropy(then[variable].numpy()), 0)
        left = pd.Series(left).groupby([reading for reading, _ in answers]).sum()
        fall[variable] = entropy(now[variable].numpy()) - left
    return pd.DataFrame(fall).T[[*asked]]


def draw(out, model, patient, fall, bins, curves):
    figure = Figure(figsize=(18, 10))
    network = nx.DiGraph(model.edges)
    for reading, state in patient["seen"].items():
        network.nodes[reading]["label"] = f"{reading}\n{state}"
    for i, name in enumerate(DIAGNOSES):
        before, after = patient["prior"][i], patient["now"][i]
        network.nodes[name]["label"] = f"{name}\n{before:.1%} → {after:.1%}"
    axes = figure.add_axes((0.005, 0.01, 0.5, 0.98))
    title = (
        f"Patient {patient['number']}. Grey: what was read. Yellow: diagnoses, prior → posterior"
    )
    graphs.draw(network, observed=patient["seen"], highlight=DIAGNOSES, title=title, ax=axes)

    bars = figure.add_axes((0.6, 0.58, 0.19, 0.36))
    place = np.arange(len(DIAGNOSES))
    series = (("prior", PALE), ("now", OPEN), ("next", BLOCKED))
    named = "prior", "given what was read", f"and with {patient['best']}"
    for k, ((key, colour), label) in enumerate(zip(series, named, strict=True)):
        bars.barh(place + 0.27 * (k - 1), patient[key], 0.27, color=colour, label=label)
    names = [f"{n} *" if t else n for n, t in zip(DIAGNOSES, patient["truth"], strict=True)]
    bars.set_yticks(place, names, size=9.5)
    bars.invert_yaxis()
    bars.set_xlabel("p(it is there);  * it is", size=11)
    bars.set(xlim=(0, 1))
    bars.legend(fontsize=9.5, frameon=False, loc="upper right")
    bars.set_title(f"Patient {patient['number']}", size=13, color=INK)

    ask = figure.add_axes((0.865, 0.58, 0.125, 0.36))
    order = fall.sum().sort_values().index
    start = np.zeros(len(order))
    for name, tone in zip(DIAGNOSES, TONES, strict=True):
        bits = fall.loc[name, order].to_numpy()
        ask.barh(order, bits, left=start, color=tone)
        start += bits
    ask.set_xlim(0)
    ask.set_xlabel("expected bits; colours below", size=11)
    ask.set_title("What to read next", size=13, color=INK)

    left = figure.add_axes((0.56, 0.08, 0.19, 0.38))
    n, mean, share, error = bins
    left.plot([0, 1], [0, 1], color=PALE, lw=1, ls=":")
    left.errorbar(mean, share, 2 * error, fmt="o", ms=5, color=OPEN, capsize=3)
    left.set(xlim=(0, 1), ylim=(0, 1))
    left.set_xlabel("posterior", size=11)
    left.set_ylabel("share that has the disease (2 s.e.)", size=11)
    left.set_title(f"Calibrated: {n.sum():,} cases", size=13, color=INK)

    roc = figure.add_axes((0.8, 0.08, 0.19, 0.38))
    roc.plot([0, 1], [0, 1], color=PALE, lw=1, ls=":")
    for (name, (false, true, area)), tone in zip(curves.items(), TONES, strict=True):
        roc.plot(false, true, lw=1.8, color=tone, label=f"{name} {area:.2f}")
    roc.set(xlim=(0, 1), ylim=(0, 1.01))
    roc.set_xlabel("false alarms", size=11)
    roc.set_ylabel("diseases found", size=11)
    roc.legend(fontsize=8.5, frameon=False, loc="lower right", labelspacing=0.25)
    roc.set_title("ROC curves and their areas", size=13, color=INK)
    for axes in (bars, ask, left, roc):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, dpi=100)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("diagnosis.png"))
    out = parser.parse_args(argv).out

    model = graphs.load("alarm")
    patients = graphs.sample(model, PATIENTS, seed=0)
    truth = np.stack([patients[d].isin(ill) for d, ill in DIAGNOSES.items()], 1)
    read = np.random.default_rng(0).random((PATIENTS, len(READINGS))) >= MISSING
    table = patients[READINGS].where(read)  # NaN: not read

    engine = graphs.JunctionTree(model)
    prior = present(engine.query(targets=DIAGNOSES))
    posterior = engine.query(table, targets=DIAGNOSES)
    p = present(posterior)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        engine.query(table.head(TIMED), targets=DIAGNOSES)
        times.append(time.perf_counter() - started)
    took = float(np.median(times))
    print(f"{TIMED:,} patients, {len(DIAGNOSES)} diagnoses each: {1000 * took:.1f} ms")
    single = [present(engine.query(table.loc[i].dropna().to_dict())) for i in range(20)]
    apart = np.abs(np.stack(single) - p[:20]).max()
    print(f"batched and one by one: apart by at most {apart:.1e}")

    n, mean, share, error = bins = calibration(truth, p)
    print("posterior      cases   mean p   has it")
    for k in range(10):
        print(f"  [{k / 10:.1f}, {(k + 1) / 10:.1f}) {n[k]:7,} {mean[k]:8.3f} {share[k]:8.3f}"
              f" ± {error[k]:.3f}")  # fmt: skip
    curves = {}
    by_prior, by_posterior = log_loss(truth, prior), log_loss(truth, p)
    print(f"log loss, bits  {'prior':>8} {'posterior':>10} {'ROC area':>9}")
    for i, name in enumerate(DIAGNOSES):
        area = roc_auc_score(truth[:, i], p[:, i])
        curves[name] = (*roc_curve(truth[:, i], p[:, i])[:2], area)
        print(f"  {name:13} {by_prior[i]:8.4f} {by_posterior[i]:10.4f} {area:9.3f}")

    number = int(entropy(np.stack([p, 1 - p], -1))[:TIMED].sum(1).argmax())  # the most doubtful
    seen = table.loc[number].dropna().to_dict()
    unread = [reading for reading in READINGS if reading not in seen]
    fall = expected_fall(engine, seen, [*DIAGNOSES], unread)
    off = np.abs(fall - expected_fall(engine, seen, unread, [*DIAGNOSES]).T).to_numpy().max()
    total = fall.sum().sort_values(ascending=False)
    best = total.index[0]
    with_best = present(engine.query(seen | {best: patients[best][number]}))
    most = engine.mpe(seen)
    explained = [d for d, ill in DIAGNOSES.items() if most.assignment[d] in ill]
    ill = [d for d, there in zip(DIAGNOSES, truth[number], strict=True) if there]
    print(f"patient {number}, {', '.join(f'{r} {s}' for r, s in seen.items())}")
    for name, before, now, then in zip(DIAGNOSES, prior, p[number], with_best, strict=True):
        print(f"  {name:13} prior {before:.3f}  now {now:.3f}  with {best} {then:.3f}")
    print(f"  has: {', '.join(ill)}")
    print(f"  most probable explanation: {', '.join(explained) or 'no disease'}"
          f" (log probability {most.log_probability:.3f} nats)")  # fmt: skip
    print("  to read next, expected bits summed over the diagnoses: "
          + ", ".join(f"{reading} {bits:.3f}" for reading, bits in total.items()))  # fmt: skip
    print(f"  I(D; R | e) and I(R; D | e): apart by at most {off:.1e}")

    patient = {"number": number, "seen": seen, "truth": truth[number],
               "best": best, "prior": prior, "now": p[number], "next": with_best}  # fmt: skip
    draw(out, model, patient, fall, bins, curves)
    print(f"picture: {out}")
    drift = np.abs(p.mean(0) - prior) / (p.std(0) / np.sqrt(PATIENTS))
    return {
        f"{TIMED} patients, seconds": took,
        "batched against one by one": float(apart),
        "calibration, largest error in standard errors": float((abs(share - mean) / error).max()),
        "mean posterior against prior, standard errors": float(drift.max()),
        "log loss of the priors, bits": float(by_prior.sum()),
        "log loss of the posteriors, bits": float(by_posterior.sum()),
        "least gain of a diagnosis, bits": float((by_prior - by_posterior).min()),
        **{f"ROC area of {name}": float(curve[2]) for name, curve in curves.items()},
        "expected bits of the best reading": total.iloc[0],
        "least expected bits of a diagnosis and a reading": float(fall.to_numpy().min()),
        "expected bits both ways": float(off),
        "log probability of the explanation": most.log_probability,
        "log probability of what it says": float(graphs.log_probability(model, most.assignment)),
        "log probability of the truth": float(
            graphs.log_probability(model, patients.loc[number].to_dict())
        ),
    }


if __name__ == "__main__":
    main()
