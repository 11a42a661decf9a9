"""Hidden Markov models: ours beside hmmlearn and Pyro's DiscreteHMM, in one run.

    pip install hmmlearn==0.3.3        # the peer, written in C++; Pyro is a dependency already
    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/hmm.py

Log-likelihood, smoothing and Viterbi of one long sequence and of a batch, Baum-Welch, and the
gradient of the log-likelihood, which is timed alone. Each call is timed in turn with the peers',
the median counts, and the answers are compared. Baum-Welch is four iterations from each library's
own start, which for hmmlearn's Gaussians includes k-means.
"""

import argparse
import json
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from timing import timed

from graphs.sequences.hmm import HMM, Gaussian


def model(states: int, kind: str, sparse: bool = False) -> HMM:
    rng = np.random.default_rng(states)
    moves = rng.dirichlet(np.ones(states), states) + 4 * np.eye(states)
    if sparse:  # from left to right, and round: zeros keep ours from plain numbers
        moves = np.eye(states) + np.roll(np.eye(states), 1, 1)
    moves /= moves.sum(1, keepdims=True)
    if kind == "gaussian":
        return HMM(
            np.full(states, 1 / states), moves, Gaussian(np.arange(states) * 2.0, np.ones(states))
        )
    return HMM(np.full(states, 1 / states), moves, rng.dirichlet(np.ones(8), states))


def in_hmmlearn(ours: HMM) -> Any:
    from hmmlearn.hmm import CategoricalHMM, GaussianHMM

    if isinstance(ours.emission, Gaussian):
        peer = GaussianHMM(ours.states, "diag", implementation="scaling")
        peer.means_ = ours.emission.mean.numpy()[:, None]
        peer.covars_ = ours.emission.scale.numpy()[:, None] ** 2
    else:
        peer = CategoricalHMM(ours.states, implementation="scaling")
        peer.emissionprob_ = ours.emission.table.numpy()
        peer.n_features = ours.emission.table.shape[1]
    peer.startprob_, peer.transmat_ = ours.initial.numpy(), ours.transition.numpy()
    return peer


def in_pyro(ours: HMM, steps: int) -> Any:
    import pyro.distributions as dist

    emission = ours.emission
    if isinstance(emission, Gaussian):
        observed = dist.Normal(emission.mean, emission.scale)
    else:
        observed = dist.Categorical(emission.table)
    moves = ours.transition.log().expand(steps, -1, -1).clone()
    moves[0] = torch.eye(ours.states, dtype=moves.dtype).log()  # it moves before it emits
    return dist.DiscreteHMM(ours.initial.log(), moves, observed)


def compare(title: str, ours: HMM, steps: int, rows: int, repeats: int) -> list[dict[str, Any]]:
    x = ours.sample(steps, n=rows, seed=0).observations
    flat, lengths = x.numpy().reshape(-1, 1), [steps] * rows
    peer, pyro = in_hmmlearn(ours), in_pyro(ours, steps)

    def gradient() -> torch.Tensor:
        moves = ours.transition.clone().requires_grad_()
        total = HMM(ours.initial, moves, ours.emission).log_likelihood(x).sum()
        return torch.autograd.grad(total, moves)[0]

    def iteration() -> Any:
        kind = "gaussian" if isinstance(ours.emission, Gaussian) else "categorical"
        given = x[..., None] if kind == "gaussian" else x
        return HMM.fit(given, ours.states, kind, restarts=1, iterations=4, tolerance=0)

    def peer_iteration() -> Any:
        learner = type(peer)(ours.states, n_iter=4, tol=-np.inf, implementation="scaling")
        learner.random_state = 0
        return learner.fit(flat, lengths)

    tasks: dict[str, dict[str, Callable[[], Any]]] = {
        "log-likelihood": {
            "ours": lambda: float(ours.log_likelihood(x).sum()),
            "hmmlearn": lambda: peer.score(flat, lengths),
            "Pyro": lambda: float(pyro.log_prob(x).sum()),
        },
        "smoothing": {
            "ours": lambda: ours.forward_backward(x).smoothed.numpy().reshape(-1, ours.states),
            "hmmlearn": lambda: peer.predict_proba(flat, lengths),
        },
        "Viterbi": {
            "ours": lambda: float(ours.viterbi(x).log_probability.sum()),
            "hmmlearn": lambda: peer.decode(flat, lengths)[0],
        },
        "Baum-Welch, 4 steps": {"ours": iteration, "hmmlearn": peer_iteration},
        "gradient": {"ours": gradient},
    }
    found = []
    for task, calls in tasks.items():
        times, answers = timed(calls, repeats)
        apart = 0.0
        if "Baum" not in task:
            apart = max(float(np.abs(answers["ours"] - other).max()) for other in answers.values())
        row = {"case": title, "task": task, **times, "largest difference": float(apart)}
        ratios = [
            f"{name} / ours {times[name] / times['ours']:7.2f}" for name in calls if name != "ours"
        ]
        print(f"{title:36s}{task:21s}{times['ours'] * 1e3:9.2f} ms   {'   '.join(ratios)}"
              f"   apart {apart:.0e}", flush=True)  # fmt: skip
        found.append(row)
    return found


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", help="also write the figures to this file")
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    found = []
    for states in (3, 10):
        for kind, sparse in (("categorical", False), ("gaussian", False), ("categorical", True)):
            title = f"{kind}, K={states}{', zeros' if sparse else ''}, T={given.steps:,}"
            ours = model(states, kind, sparse)
            found += compare(title, ours, given.steps, 1, given.repeats)
    found += compare("categorical, K=3, 500 x T=100", model(3, "categorical"), 100, 500, 5)
    if given.json:
        with open(given.json, "w") as file:
            json.dump(found, file, indent=1)
    return found


if __name__ == "__main__":
    main()
