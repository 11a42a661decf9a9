"""Sampled posteriors against brute force: the estimates, and the errors they claim."""

import itertools
import math

import numpy as np
import pytest

import graphs
from graphs.monte_carlo import _r_hat, _redrawn
from graphs.tables import Factor, bayesian


def network(parents, sizes, seed, concentration=1.0):
    """Random positive tables for a graph given as {variable: its parents}."""
    rng = np.random.default_rng(seed)
    factors = []
    for child, given in parents.items():
        values = rng.gamma(concentration, size=[sizes[v] for v in (child, *given)]) + 0.02
        factors.append(Factor((child, *given), values / values.sum(0)))
    return bayesian({v: [f"{v}{k}" for k in range(sizes[v])] for v in parents}, factors)


def posterior(tables, evidence):
    """p(variable | evidence) of every variable and log p(evidence), by summing the joint."""
    table = np.ones([1] * len(tables.states))
    names = list(tables.states)
    for scope, values in tables.factors:
        order = sorted(range(len(scope)), key=lambda i: names.index(scope[i]))
        shape = [len(tables.states[v]) if v in scope else 1 for v in names]
        table = table * values.transpose(order).reshape(shape)
    for variable, state in evidence.items():
        held = np.zeros(len(tables.states[variable]))
        held[tables.positions[variable][str(state)]] = 1
        axes = [1] * len(names)
        axes[names.index(variable)] = -1
        table = table * held.reshape(axes)
    total = table.sum()
    axes = range(len(names))
    found = {v: table.sum(tuple(a for a in axes if a != i)) / total for i, v in enumerate(names)}
    return found, math.log(total)


DIAMOND = network(
    {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"], "e": ["d"]},
    {"a": 2, "b": 3, "c": 2, "d": 3, "e": 2},
    seed=4,
)
V = network({1: [], "b": [], (2, 3): [1, "b"], "d": [(2, 3)]}, {1: 2, "b": 2, (2, 3): 3, "d": 2}, 8)
TREE = network({i: [(i - 1) // 2] if i else [] for i in range(7)}, dict.fromkeys(range(7), 2), 1)
CASES = [
    pytest.param(DIAMOND, {}, id="no evidence"),
    pytest.param(DIAMOND, {"e": "e1"}, id="one leaf"),
    pytest.param(DIAMOND, {"d": "d2", "a": "a0"}, id="middle and root"),
    pytest.param(V, {"d": "d1"}, id="below a collider"),
    pytest.param(TREE, {3: "31", 6: "60"}, id="two leaves of a tree"),
]
METHODS = {"likelihood weighting": graphs.likelihood_weighting, "gibbs": graphs.gibbs}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("tables", "evidence"), CASES)
def test_estimates_lie_within_four_errors_of_the_truth(method, tables, evidence):
    found = METHODS[method](tables, evidence, n=20_000 if method[0] == "l" else 400, seed=2)
    exact, log_evidence = posterior(tables, evidence)
    assert set(found.states) == set(tables.states) - set(evidence)
    for variable in found.states:
        error = found.error(variable)
        assert (error > 0).all() and (error < 0.02).all()
        assert (abs(found[variable] - exact[variable]) < 4 * error).all(), variable
        assert found[variable].sum() == pytest.approx(1)
    if method == "gibbs":
        assert found.log_evidence is None
        assert set(found.r_hat) == set(found.states)
        assert max(found.r_hat.values()) < 1.02
    else:
        assert found.r_hat is None
        off = abs(found.log_evidence - log_evidence)
        assert off <= 4 * found.log_evidence_error
        assert bool(evidence) == (found.log_evidence_error > 0)


def calibration(method, repeats, **settings):
    """Standardised errors of one state's probability, and of the log evidence, over seeds."""
    evidence = {"e": "e1", "a": "a0"}
    exact, log_evidence = posterior(DIAMOND, evidence)
    scores, logs = [], []
    for seed in range(repeats):
        found = METHODS[method](DIAMOND, evidence, seed=seed, **settings)
        scores.append((found["b"][1] - exact["b"][1]) / found.error("b")[1])
        if found.log_evidence is not None:
            logs.append((found.log_evidence - log_evidence) / found.log_evidence_error)
    return scores, logs


def test_the_errors_of_likelihood_weighting_are_calibrated():
    for scores in calibration("likelihood weighting", 200, n=2000):
        assert 0.7 < np.var(scores) < 1.4
        assert abs(np.mean(scores)) < 4 / math.sqrt(200)


def test_the_errors_of_gibbs_are_calibrated():
    scores, _ = calibration("gibbs", 200, n=50, chains=32, burn_in=10)
    assert 0.7 < np.var(scores) < 1.4
    assert abs(np.mean(scores)) < 4 / math.sqrt(200)


def test_effective_samples_of_weights_by_hand():
    """Two roots, one observed leaf: the weights are known, so are all the sums."""
    a, b = np.array([0.5, 0.5]), np.array([[0.9, 0.2], [0.1, 0.8]])
    tables = bayesian({"a": "xy", "b": "uv"}, [Factor(("a",), a), Factor(("b", "a"), b)])
    found = graphs.likelihood_weighting(tables, {"b": "u"}, n=5000, seed=1)
    drawn = graphs.ancestral.sample_indices(tables, 5000, np.random.default_rng(1), {"b": 0})["a"]
    w = np.where(drawn == 0, 0.9, 0.2)
    assert found.effective_samples == pytest.approx(w.sum() ** 2 / (w**2).sum(), rel=1e-12)
    p = w[drawn == 0].sum() / w.sum()
    assert found["a"] == pytest.approx([p, 1 - p], rel=1e-12)
    spread = (w**2 * ((drawn == 0) - p) ** 2).sum()
    assert found.error("a") == pytest.approx([math.sqrt(spread) / w.sum()] * 2, rel=1e-9)
    assert found.log_evidence == pytest.approx(math.log(w.mean()), rel=1e-12)
    assert found.log_evidence_error == pytest.approx(
        w.std(ddof=1) / math.sqrt(5000) / w.mean(), rel=1e-12
    )
    # without evidence every draw counts fully
    plain = graphs.likelihood_weighting(tables, n=100)
    assert plain.effective_samples == 100
    assert (plain.log_evidence, plain.log_evidence_error) == (0, 0)


def test_effective_samples_of_gibbs():
    """One variable alone is redrawn independently: each state is worth itself. Two that hold on to
    each other are worth far less."""
    alone = bayesian({"a": "xy"}, [Factor(("a",), np.array([0.3, 0.7]))])
    found = graphs.gibbs(alone, n=500, chains=200)
    assert found.draws == 100_000
    assert found.effective_samples == pytest.approx(100_000, rel=0.4)  # 4 errors of a variance
    p, error = found["a"], found.error("a")
    assert found.effective_samples == pytest.approx((p * (1 - p) / error**2).min())
    near = np.array([[0.95, 0.05], [0.05, 0.95]])
    pair = bayesian(
        {"a": "xy", "b": "xy"}, [Factor(("a",), np.array([0.5, 0.5])), Factor(("b", "a"), near)]
    )
    # the chain of a is symmetric with p(stay) = .95^2 + .05^2 = (1 + r) / 2 for its correlation r
    r = 2 * (0.95**2 + 0.05**2) - 1
    found = graphs.gibbs(pair, n=500, chains=200)
    assert found.effective_samples == pytest.approx(100_000 * (1 - r) / (1 + r), rel=0.4)


def test_sweeps_keep_the_posterior():
    """One sweep from starts that follow the posterior keeps it: many chains, few sweeps."""
    found = graphs.gibbs(DIAMOND, {"e": "e0"}, n=4, chains=20_000, burn_in=0, seed=3)
    exact, _ = posterior(DIAMOND, {"e": "e0"})
    for variable in found.states:
        # the starts are picked among 10 x 20,000 weighted draws, which adds a little
        assert (abs(found[variable] - exact[variable]) < 5 * found.error(variable)).all()


def test_error_of_two_chains_by_hand():
    """The mean of two chains' means m1 and m2 has the standard error |m1 - m2| / 2."""
    for seed in range(5):
        found = graphs.gibbs(DIAMOND, n=4, chains=2, burn_in=0, seed=seed)
        for variable in found.states:
            quarters = 4 * (found[variable][:, None] + [1, -1] * found.error(variable)[:, None])
            np.testing.assert_allclose(quarters, quarters.round(), atol=1e-12)


@pytest.mark.parametrize("u", [0.0, 1 - 2**-53])
def test_redraws_keep_to_possible_states(u):
    rng = np.random.default_rng(0)
    table = rng.random((500, 5)) * (rng.random((500, 5)) < 0.6)
    table[table.sum(1) == 0, 2] = 1
    with np.errstate(divide="ignore"):
        logs = np.log(table)
    state = _redrawn([(("c",), [500], logs)], {"c": np.arange(500)}, np.full(500, u))
    possible = [np.flatnonzero(row)[0 if u == 0 else -1] for row in table]
    np.testing.assert_array_equal(state, possible)


def test_r_hat_by_the_book():
    rng = np.random.default_rng(0)
    chains = (rng.random((6, 100)) < rng.random((6, 1))).astype(float)  # six, not of one law
    means = chains.mean(1)
    between = 100 * means.var(ddof=1)
    within = chains.var(1, ddof=1).mean()
    expected = math.sqrt((99 / 100 * within + between / 100) / within)
    assert expected > 1.1
    assert _r_hat(np.stack([means, 1 - means]), 100) == pytest.approx(expected, rel=1e-12)
    assert _r_hat(np.array([[1.0, 1.0], [0.0, 0.0]]), 50) == 1
    assert _r_hat(np.array([[1.0, 0.0], [0.0, 1.0]]), 50) == math.inf


EQUAL = bayesian(  # b is a copy of a: Gibbs cannot move either
    {"a": "xy", "b": "xy", "c": "xy"},
    [
        Factor(("a",), np.array([0.3, 0.7])),
        Factor(("b", "a"), np.eye(2)),
        Factor(("c", "b"), np.array([[0.9, 0.4], [0.1, 0.6]])),
    ],
)


def test_gibbs_says_that_zeros_may_trap_it():
    with pytest.warns(UserWarning, match="1 tables hold zeros, as that of b does"):
        found = graphs.gibbs(EQUAL, {"c": "x"}, seed=1)
    assert found.r_hat["a"] == math.inf  # and it shows
    exact, _ = posterior(EQUAL, {"c": "x"})
    # the starts still follow the posterior, and the chains' spread is honest about them
    assert (abs(found["a"] - exact["a"]) < 4 * found.error("a")).all()
    assert found.error("a")[0] > 0.03
    weighted = graphs.likelihood_weighting(EQUAL, {"c": "x"}, seed=1)
    assert (abs(weighted["a"] - exact["a"]) < 4 * weighted.error("a")).all()


def test_zeros_are_never_entered():
    rng = np.random.default_rng(3)
    b, c = rng.random((3, 2)), rng.random((3, 3))
    b[2, 0] = c[0, 0] = c[2, 1] = 0
    tables = bayesian(
        {"a": "xy", "b": "uvw", "c": "pqr"},
        [
            Factor(("a",), np.array([0.4, 0.6])),
            Factor(("b", "a"), b / b.sum(0)),
            Factor(("c", "b"), c / c.sum(0)),
        ],
    )
    for evidence in ({"a": "x"}, {"c": "p"}, {"a": "x", "c": "r"}):
        exact, _ = posterior(tables, evidence)
        with pytest.warns(UserWarning, match="2 tables hold zeros"):
            chains = graphs.gibbs(tables, evidence, n=200)
        for found in (chains, graphs.likelihood_weighting(tables, evidence)):
            for v in found.states:
                impossible = exact[v] == 0
                assert (found[v][impossible] == 0).all()
                assert (abs(found[v] - exact[v]) <= 4 * found.error(v)).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.filterwarnings("ignore:1 tables hold zeros:UserWarning")
def test_impossible_evidence(method):
    with pytest.raises(ValueError, match=r"none of 10,000 weighted draws agrees.*JunctionTree"):
        METHODS[method](EQUAL, {"a": "x", "b": "y"})


@pytest.mark.parametrize("method", METHODS)
def test_targets_leave_out_what_does_not_matter(method):
    """A long tail below the target is not drawn: it changes neither answer nor time."""
    parents = {i: [i - 1] if i else [] for i in range(400)}
    chain = network(parents, dict.fromkeys(parents, 2), seed=6)
    found = METHODS[method](chain, {0: "01"}, targets=[2, 1], seed=5)
    assert list(found.states) == [1, 2]
    exact = chain.conditional(1)[:, 1]
    assert (abs(found[1] - exact) < 4 * found.error(1)).all()
    assert (abs(found[2] - chain.conditional(2) @ exact) < 4 * found.error(2)).all()
    short = network({i: parents[i] for i in range(3)}, dict.fromkeys(range(3), 2), seed=6)
    assert str(METHODS[method](short, {0: "01"}, seed=5)) == str(found)
    # an observed target is certain, and a single name is one target
    sure = METHODS[method](DIAMOND, {"a": "a1"}, targets="a")
    assert sure["a"].tolist() == [0, 1] and sure.error("a").tolist() == [0, 0]


@pytest.mark.parametrize("method", METHODS)
def test_same_seed_same_numbers(method):
    first, again, other = (METHODS[method](V, {"d": "d0"}, n=200, seed=s) for s in (1, 1, 2))
    assert str(first) == str(again) != str(other)
    for variable in first.states:
        np.testing.assert_array_equal(first[variable], again[variable])


@pytest.mark.parametrize("method", METHODS)
def test_reads_as_a_table(method):
    found = METHODS[method](V, {"d": "d0"}, n=500)
    frame = found.to_frame()
    assert list(frame.columns) == ["variable", "state", "probability", "error"]
    states = [(v, s) for v, states in found.states.items() for s in states]
    assert list(zip(frame["variable"], frame["state"], strict=True)) == states
    assert frame["probability"].to_numpy() == pytest.approx(
        np.concatenate([found[v] for v in found.states])
    )
    assert frame["error"].to_numpy() == pytest.approx(
        np.concatenate([found.error(v) for v in found.states])
    )
    lines = str(found).splitlines()
    assert repr(found) == str(found) and len(lines) == 2 + len(states)
    assert f"{found.draws:,} draws" in lines[0]
    assert ("R-hat" in lines[0]) == (method == "gibbs")
    assert ("log evidence" in lines[0]) == (method != "gibbs")
    assert lines[2].split() == ["1", "10", f"{found[1][0]:.5f}", f"{found.error(1)[0]:.5f}"]


@pytest.mark.parametrize("method", METHODS)
def test_refuses(method):
    ask = METHODS[method]
    with pytest.raises(ValueError, match="one row of evidence at a time; got 2 rows"):
        ask(DIAMOND, {"a": ["a0", "a1"]})
    with pytest.raises(ValueError, match="no variable 'dd'"):
        ask(DIAMOND, targets=["dd"])
    with pytest.raises(ValueError, match="no state 'a9' of a"):
        ask(DIAMOND, {"a": "a9"})
    with pytest.raises(ValueError, match=r"n, the \w+( kept)?, must be at least [24]; got 1"):
        ask(DIAMOND, n=1)
    with pytest.raises(TypeError, match="whole number"):
        ask(DIAMOND, n=1e4)
    if method != "gibbs":
        with pytest.raises(TypeError, match="Bayesian network"):
            ask([("ab", np.ones((2, 2)))])
    found = ask(DIAMOND, {"a": None}, n=50, targets=["a"])
    assert "a" in found.states  # None observes nothing
    with pytest.raises(ValueError, match="no target 'b'; known: a"):
        found["b"]
    with pytest.raises(ValueError, match="no target 'b'; known: a"):
        found.error("b")


def test_gibbs_refuses_too_few_chains():
    for name, value in (("chains", 1), ("burn_in", -1)):
        with pytest.raises(ValueError, match=f"{name} must be at least"):
            graphs.gibbs(DIAMOND, **{name: value})


def test_many_children_do_not_underflow():
    """2,000 observed children: each probability is fine, their product is not."""
    size = 2000
    factors = [Factor(("a",), np.array([0.5, 0.5]))]
    factors += [Factor((i, "a"), np.array([[0.51, 0.49], [0.49, 0.51]])) for i in range(size)]
    tables = bayesian({"a": "xy"} | {i: "xy" for i in range(size)}, factors)
    evidence = {i: "xy"[i % 2] for i in range(size)}
    exact = size / 2 * math.log(0.51 * 0.49)
    assert exact < -1000
    weighted = graphs.likelihood_weighting(tables, evidence, n=500)
    assert weighted.log_evidence == pytest.approx(exact)
    found = graphs.gibbs(tables, evidence, n=10, chains=100)
    assert (abs(found["a"] - 0.5) < 4 * found.error("a")).all()


@pytest.mark.filterwarnings("ignore:.pgmpy.estimators.StructureScore:FutureWarning")
def test_pgmpy_network_and_its_own_answer():
    from pgmpy.factors.discrete import TabularCPD
    from pgmpy.inference import VariableElimination
    from pgmpy.models import DiscreteBayesianNetwork

    model = DiscreteBayesianNetwork([("rain", "wet"), ("sprinkler", "wet")])
    on = ["off", "on"]
    named = {"rain": on, "sprinkler": on, "wet": on}
    model.add_cpds(
        TabularCPD("rain", 2, [[0.8], [0.2]], state_names={"rain": on}),
        TabularCPD("sprinkler", 2, [[0.6], [0.4]], state_names={"sprinkler": on}),
        TabularCPD(
            "wet", 2, [[0.98, 0.1, 0.2, 0.02], [0.02, 0.9, 0.8, 0.98]],
            ["rain", "sprinkler"], [2, 2], state_names=named,
        ),
    )  # fmt: skip
    exact = VariableElimination(model).query(["rain"], {"wet": "on"}, show_progress=False)
    for ask, n in ((graphs.likelihood_weighting, 20_000), (graphs.gibbs, 500)):
        found = ask(model, {"wet": "on"}, n=n)
        assert (abs(found["rain"] - exact.values) < 4 * found.error("rain")).all()


def test_posterior_by_brute_force_is_itself_right():
    """The reference of these tests, by plain loops, on one case."""
    evidence = {"e": "e1"}
    total, a0 = 0.0, 0.0
    for row in itertools.product(*(range(len(k)) for k in DIAMOND.states.values())):
        at = dict(zip(DIAMOND.states, row, strict=True))
        if at["e"] == 1:
            p = math.prod(float(t[tuple(at[v] for v in scope)]) for scope, t in DIAMOND.factors)
            total, a0 = total + p, a0 + p * (at["a"] == 0)
    exact, log_evidence = posterior(DIAMOND, evidence)
    assert exact["a"][0] == pytest.approx(a0 / total)
    assert log_evidence == pytest.approx(math.log(total))
