"""Markov chains against closed forms, powers, eigenvectors, fundamental matrices and draws."""

import copy
import math
import pickle
from decimal import Decimal
from fractions import Fraction as F

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from graphs.sequences import chain_algebra as algebra
from graphs.sequences.markov_chain import MarkovChain

MEALS = ("burger", "pizza", "hot dog")
A = [[0.2, 0.6, 0.2], [0.3, 0.0, 0.7], [0.5, 0.0, 0.5]]
PI = (F(25, 71), F(15, 71), F(31, 71))


def meals():
    return MarkovChain(A, MEALS)


def gambler(n, p):
    """Fortunes 0 to n, one up with probability p, else one down; 0 and n absorb."""
    matrix = [[p - p] * (n + 1) for _ in range(n + 1)]
    matrix[0][0] = matrix[n][n] = p - p + 1
    for i in range(1, n):
        matrix[i][i + 1], matrix[i][i - 1] = p, 1 - p
    return MarkovChain(matrix)


def cycle(n, p=0.5, lazy=0.0):
    matrix = np.eye(n) * lazy
    for i in range(n):
        matrix[i, (i + 1) % n] += p * (1 - lazy)
        matrix[i, (i - 1) % n] += (1 - p) * (1 - lazy)
    return MarkovChain(matrix)


def random_matrix(seed, n, zeros=0.0):
    rng = np.random.default_rng(seed)
    weights = rng.gamma(0.5, size=(n, n)) * (rng.random((n, n)) >= zeros)
    weights[np.arange(n), rng.integers(n, size=n)] += 0.1
    return weights / weights.sum(1, keepdims=True)


def worst_distance(matrix, pi, t):
    return abs(np.linalg.matrix_power(matrix, t) - pi).sum(1).max() / 2


# The three meals


@pytest.mark.parametrize(
    "given_matrix",
    [
        A,
        np.array(A),
        torch.tensor(A),
        torch.tensor(A, dtype=torch.float64, requires_grad=True),
        [[F(1, 5), F(3, 5), F(1, 5)], [F(3, 10), 0, F(7, 10)], [F(1, 2), 0, F(1, 2)]],
        [[Decimal(str(p)) for p in row] for row in A],
        np.array(A, dtype=np.longdouble),
    ],
    ids=["lists", "array", "float32 tensor", "tensor", "fractions", "decimals", "long double"],
)
def test_three_meals_exactly(given_matrix):
    chain = MarkovChain(given_matrix, MEALS)
    (pi,) = chain.stationary
    assert pi.exact == dict(zip(MEALS, PI, strict=True))
    assert pi["hot dog"] == 31 / 71
    assert chain.return_times.exact["burger"] == F(71, 25)
    times = chain.hitting_times("pizza").exact  # b = 1 + b/5 + h/5, h = 1 + b/2 + h/2
    assert times == {"burger": F(7, 3), "pizza": 0, "hot dog": F(13, 3)}
    assert set(chain.hitting_probabilities("pizza").exact.values()) == {1}
    assert chain.irreducible and chain.aperiodic and not chain.absorbing and not chain.reversible
    assert chain.mixing_time() == 2
    assert [worst_distance(chain.matrix, pi.values, t) > 0.25 for t in (1, 2)] == [True, False]


def test_the_print_says_what_a_student_asks():
    text = str(meals())
    assert "converges to one stationary distribution from every start" in text
    assert "25/71  0.352113" in text and "recurrent, aperiodic  {burger, pizza, hot dog}" in text
    assert "  pizza       0.3      .      0.7" in text.splitlines()
    assert "period 2" in str(MarkovChain([[0, 1], [1, 0]]))
    two = str(MarkovChain(np.eye(2)))
    assert "2 recurrent classes" in two and "mixtures of these" in two
    assert repr(meals()) == "MarkovChain of 3 states: burger, pizza, hot dog"
    big = str(cycle(50, lazy=0.1))
    assert "and 30 more states" in big and len(big.splitlines()) < 40
    many = str(MarkovChain(np.eye(50)))
    assert "and 30 more classes" in many
    assert str(gambler(2, F(1, 2)).classes[1]) == "{1} transient, no way back"


def test_from_a_frame_with_columns_in_another_order():
    frame = pd.DataFrame(A, MEALS, MEALS)[["pizza", "hot dog", "burger"]]
    chain = MarkovChain(frame)
    assert chain.states == MEALS
    assert chain.matrix.tolist() == A


def test_frozen_and_whole_after_a_copy():
    chain = meals()
    with pytest.raises(AttributeError):
        chain.states = ()
    with pytest.raises(ValueError, match="read-only"):
        chain.matrix[0, 0] = 1
    for other in (pickle.loads(pickle.dumps(chain)), copy.deepcopy(chain)):
        assert other.stationary[0].exact == chain.stationary[0].exact


def test_the_given_array_stays_as_it_was():
    given_array = random_matrix(0, 5)
    kept = given_array.copy()
    MarkovChain(given_array).hitting_times(0)
    given_array[:] = 7  # and the chain does not see what becomes of it
    chain = MarkovChain(kept)
    kept[0, 0] = 5
    assert chain.matrix[0].sum() == pytest.approx(1, abs=1e-15)


# Exactness of what is given


def test_thirds_and_roundings_are_recovered_and_other_floats_are_not():
    thirds = MarkovChain([[1 / 3, 1 - 1 / 3], [1 - 0.9, 0.9]])
    assert thirds.exact == ((F(1, 3), F(2, 3)), (F(1, 10), F(9, 10)))
    assert MarkovChain(random_matrix(0, 3)).exact is None
    assert MarkovChain([[1 - 1e-16, 1e-16], [0.5, 0.5]]).exact is None  # not rounded to 1, 0
    assert MarkovChain([[1 - 2**-11, 2**-11], [0.5, 0.5]]).exact is None
    assert MarkovChain(np.full((13, 13), 1 / 13)).exact is None
    assert MarkovChain(np.eye(61, dtype=int)).exact is None
    assert MarkovChain(np.eye(13, dtype=bool)).exact is not None


@pytest.mark.parametrize(
    "row", [[0.333333, 0.333333, 0.333333], [F(333333, 10**6)] * 3], ids=["floats", "fractions"]
)
def test_printed_digits_are_renormalised_with_a_warning(row):
    with pytest.warns(UserWarning, match=r"3 rows .* only within 1e-06.* renormalised") as caught:
        chain = MarkovChain([row] * 3)
    assert caught[0].filename == __file__
    assert chain.matrix == pytest.approx(np.full((3, 3), 1 / 3), abs=1e-15)
    if chain.exact is not None:
        assert chain.exact[0] == (F(1, 3),) * 3


@pytest.mark.parametrize(
    ("matrix", "states", "kind", "text"),
    [
        ([[0.5, 0.5], [0.6, 0.5]], "ab", ValueError, "row of b sums to 1.1, not to 1"),
        ([[0.5, 0.6], [0.5, 0.4]], None, ValueError, "row of 0 sums to 1.1.*transpose"),
        ([[1.5, -0.5], [0, 1]], "ab", ValueError, r"p\(b \| a\) is -0.5, negative"),
        ([[1, 0], [math.nan, 1]], "ab", ValueError, r"p\(a \| b\) is nan, not a number"),
        ([[1, 0], [math.inf, 1]], "ab", ValueError, r"p\(a \| b\) is inf, not a number"),
        ([[0.5, 0.5]], None, ValueError, r"square; got the shape \(1, 2\)"),
        ([0.5, 0.5], None, ValueError, r"square; got the shape \(2,\)"),
        ([[1], [0, 1]], None, ValueError, "square; got rows of unequal length"),
        ([], None, ValueError, "square; got the shape"),
        ([["a", "b"], ["c", "d"]], None, TypeError, "real numbers"),
        ([[1j, 0], [0, 1]], None, TypeError, "real numbers"),
        ([[None, 1], [0, 1]], None, ValueError, r"p\(0 \| 0\) is nan, not a number"),
        ([["", 1], [0, 1]], None, TypeError, "real numbers"),
        ([[object(), 1], [0, 1]], None, TypeError, "real numbers"),
        (np.eye(2), "abc", ValueError, "2 rows; got 3 states, a, b, c"),
        (np.eye(2), "aa", ValueError, "distinct; got 'a' twice"),
        (np.eye(2), [1, True], ValueError, "distinct; got True twice"),
        (np.eye(2), [[1], [2]], TypeError, r"hashable; got \[1\]"),
        (pd.DataFrame(np.eye(2), list("ab"), list("ac")), None, ValueError, "index a, b .* a, c"),
        (pd.DataFrame(np.eye(2), list("ab"), list("ab")), "ab", ValueError, "leave `states` out"),
    ],
)
def test_what_is_no_transition_matrix(matrix, states, kind, text):
    with pytest.raises(kind, match=text):
        MarkovChain(matrix, states)


# Classes


def test_states_are_any_hashables():
    states = [1, "1", (2, 3), None, frozenset()]
    chain = MarkovChain(np.roll(np.eye(5), 1, axis=1), states)
    assert chain.classes[0].states == tuple(states)
    assert chain.classes[0].period == 5
    assert chain.distribution(2, (2, 3)).tolist() == [0, 0, 0, 0, 1]
    assert chain.simulate(6, None, seed=1).shape == (1, 7)
    assert chain.simulate(6, (2, 3))[0].tolist() == [
        (2, 3),
        None,
        frozenset(),
        1,
        "1",
        (2, 3),
        None,
    ]
    assert list(chain.converge("1", 3).columns) == states
    assert chain.hitting_times([(2, 3), None])["1"] == 1
    assert chain.hitting_times((2, 3))[None] == 4


def test_classes_of_a_chain_with_every_kind():
    # a <-> b leaks into c, which is passed once; from there d absorbs or e <-> f goes on for ever
    edges = "ab ba ac cd ce dd ef fe"
    states = "abcdef"
    matrix = np.zeros((6, 6))
    for tail, head in edges.split():
        matrix[states.index(tail), states.index(head)] = 1
    chain = MarkovChain(matrix / matrix.sum(1, keepdims=True), states)
    found = [("".join(part.states), part.recurrent, part.period) for part in chain.classes]
    assert found == [("ab", False, 2), ("c", False, 0), ("d", True, 1), ("ef", True, 2)]
    assert chain.absorbing == ("d",)
    assert not chain.irreducible and not chain.aperiodic
    assert [found.exact["f"] for found in chain.stationary] == [0, F(1, 2)]
    assert chain.hitting_probabilities("d").exact["a"] == F(1, 2)
    assert chain.hitting_times("d")["a"] == math.inf
    assert chain.hitting_times(["d", "e"]).exact["a"] == 4  # a: 1 + b/2 + c/2, b: 1 + a, c: 1
    assert chain.return_times.exact == dict(zip(states, [math.inf] * 3 + [1, 2, 2], strict=True))


@pytest.mark.parametrize("seed", range(30))
def test_classes_against_reachability_by_powers(seed):
    n = 7
    matrix = random_matrix(seed, n, zeros=0.8)
    chain = MarkovChain(matrix)
    step = (matrix > 0).astype(int)
    reach = np.linalg.matrix_power(np.eye(n, dtype=int) + step, n) > 0
    returns = {i: [] for i in range(n)}
    power = np.eye(n, dtype=int)
    for t in range(1, 2 * n * n):
        power = ((power @ step) > 0).astype(int)
        for i in range(n):
            if power[i, i]:
                returns[i].append(t)
    covered = []
    for part in chain.classes:
        covered += part.states
        for i in part.states:
            assert {j for j in range(n) if reach[i, j] and reach[j, i]} == set(part.states)
            assert part.recurrent == all(reach[j, i] for j in range(n) if reach[i, j])
            assert part.period == math.gcd(*returns[i])
    assert sorted(covered) == list(range(n))
    assert chain.irreducible == nx.is_strongly_connected(chain.graph())
    assert len(chain.stationary) == sum(part.recurrent for part in chain.classes)


@pytest.mark.parametrize(("n", "period"), [(3, 1), (4, 2), (7, 1), (10, 2)])
def test_walk_on_a_cycle(n, period):
    chain = cycle(n)
    assert [part.period for part in chain.classes] == [period]
    assert chain.reversible
    assert not cycle(n, p=0.7).reversible or n == 2
    assert chain.stationary[0].values == pytest.approx(np.full(n, 1 / n), rel=1e-14)
    times = chain.hitting_times(0).values  # k (n - k)
    assert times == pytest.approx([k * (n - k) for k in range(n)], rel=1e-12)
    if period == 2:
        with pytest.raises(ValueError, match="no mixing time: its recurrent class has period 2"):
            chain.mixing_time()


# Stationary distributions


@pytest.mark.parametrize("seed", range(20))
def test_stationary_against_eigenvectors(seed):
    matrix = random_matrix(seed, 30, zeros=0.3)
    values, vectors = np.linalg.eig(matrix.T)
    pi = np.real(vectors[:, np.argmin(abs(values - 1))])
    found = MarkovChain(matrix).stationary
    assert len(found) == 1
    assert found[0].values == pytest.approx(pi / pi.sum(), rel=1e-9, abs=1e-12)


@st.composite
def matrices(draw):
    n = draw(st.integers(1, 7))
    cell = st.sampled_from([0, 0, 0, 1, 2, 5, 10**6])
    rows = draw(st.lists(st.lists(cell, min_size=n, max_size=n), min_size=n, max_size=n))
    keep = draw(st.lists(st.integers(0, n - 1), min_size=n, max_size=n))
    for row, j in zip(rows, keep, strict=True):
        row[j] += 1
    return [[F(v, sum(row)) for v in row] for row in rows]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(matrices())
def test_laws_in_exact_and_in_floating_arithmetic(rows):
    n = len(rows)
    exact = MarkovChain(rows)
    floats = MarkovChain(exact.matrix + 0.0)
    object.__setattr__(floats, "exact", None)
    closed = [part for part in exact.classes if part.recurrent]
    assert len(exact.stationary) == len(closed) > 0
    for part, pi, approx in zip(closed, exact.stationary, floats.stationary, strict=True):
        p = [pi.exact[i] for i in range(n)]
        assert sum(p) == 1
        assert [sum(p[i] * rows[i][j] for i in range(n)) for j in range(n)] == p
        assert {i for i in range(n) if p[i] > 0} == set(part.states)
        assert approx.exact is None
        assert approx.values == pytest.approx(pi.values, rel=1e-13)
        assert exact.distribution(10**6, pi) == pytest.approx(pi.values, abs=1e-12)
    times, reach = exact.hitting_times(0), exact.hitting_probabilities(0)
    assert floats.hitting_times(0).values == pytest.approx(times.values, rel=1e-12)
    assert floats.hitting_probabilities(0).values == pytest.approx(reach.values, rel=1e-12)
    h, p = times.exact, reach.exact
    assert h[0] == 0 and p[0] == 1
    for i in range(1, n):
        assert p[i] == sum(rows[i][j] * p[j] for j in range(n))
        assert (h[i] < math.inf) == (p[i] == 1)
        if p[i] == 1:
            assert h[i] == 1 + sum(rows[i][j] * h[j] for j in range(n) if rows[i][j])
    back = sum(rows[0][j] * (1 + h[j]) for j in range(n) if rows[0][j])
    assert exact.return_times.exact[0] == back  # Kac's formula against the first step
    assert exact.reversible == floats.reversible


def test_doubly_stochastic_is_uniform_and_birth_and_death_is_reversible():
    rng = np.random.default_rng(3)
    matrix = sum(w * np.eye(40)[rng.permutation(40)] for w in rng.dirichlet(np.ones(6)))
    chain = MarkovChain(matrix)
    assert chain.irreducible
    assert chain.stationary[0].values == pytest.approx(np.full(40, 1 / 40), rel=1e-13)
    up, down = rng.uniform(0.01, 0.5, (2, 30))
    tri = np.diag(up[:-1], 1) + np.diag(down[1:], -1)
    birth = MarkovChain(tri + np.diag(1 - tri.sum(1)))
    weights = np.cumprod(np.concatenate([[1], up[:-1] / down[1:]]))
    assert birth.stationary[0].values == pytest.approx(weights / weights.sum(), rel=1e-12)
    assert birth.reversible


def test_probabilities_that_fall_below_every_float_and_rise_again():
    """A walk pulled to both ends: pi falls by 4 a step to the middle, far below 1e-308."""
    middle = 600
    up = np.repeat([0.2, 0.5, 0.8], [middle, 1, middle])
    matrix = np.diag(up[:-1], 1) + np.diag(1 - up[1:], -1)
    matrix[0, 0], matrix[-1, -1] = 1 - up[0], up[-1]
    chain = MarkovChain(matrix)
    pi = chain.stationary[0].values
    assert pi[middle] == 0 < pi[middle - 100]
    assert pi == pytest.approx(pi[::-1], rel=1e-12, abs=1e-300)
    one_side = 0.375 * 4.0 ** -np.arange(200)  # a half, geometric
    assert pi[:200] == pytest.approx(one_side, rel=1e-12)
    times = chain.return_times
    assert times[0] == pytest.approx(1 / 0.375) and times[middle] == math.inf
    with pytest.raises(OverflowError, match=r"exceeds 1.8e308.* give the matrix as fractions"):
        chain.hitting_times(0)  # 1e361 steps from the far end
    tiny = F(1, 10**400)
    slow = MarkovChain([[1 - tiny, tiny], [1, 0]])
    assert slow.hitting_times(1).exact[0] == 10**400
    assert slow.hitting_times(1)[0] == math.inf
    assert slow.irreducible and slow.stationary[0].exact[1] == tiny / (1 + tiny)
    assert slow.mixing_time(1e-12) == 1  # pi is all but certain of state 0


@pytest.mark.parametrize("rare", [1e-6, 1e-12, 1e-200])
def test_nearly_decomposable_chains_keep_relative_accuracy(rare):
    """Two blocks joined by rare transitions, of which 1 - A[i, i] remembers nothing at 1e-200."""
    rng = np.random.default_rng(5)
    inner = [random_matrix(6, 4), random_matrix(7, 3)]
    weights = np.zeros((7, 7))
    weights[:4, :4], weights[4:, 4:] = inner
    weights[:4, 4:] = rare * rng.random((4, 3))
    weights[4:, :4] = 3 * rare * rng.random((3, 4))
    chain = MarkovChain(weights / weights.sum(1, keepdims=True))
    assert chain.exact is None
    rows = [[F(v) for v in row] for row in chain.matrix.tolist()]
    for i, row in enumerate(rows):  # what the floats say off the diagonal, with exact row sums
        row[i] = 1 - sum(row[:i] + row[i + 1 :])
    exact = MarkovChain(rows)
    pi = exact.stationary[0]
    assert chain.stationary[0].values == pytest.approx(pi.values, rel=1e-14, abs=0)
    assert chain.hitting_times(6).values == pytest.approx(exact.hitting_times(6).values, rel=1e-14)
    if rare == 1e-12:  # the textbook's way, for contrast
        values, vectors = np.linalg.eig(chain.matrix.T)
        other = np.real(vectors[:, np.argmin(abs(values - 1))])
        assert abs(other / other.sum() / pi.values - 1).max() > 1e-7


# Hitting


@pytest.mark.parametrize("p", [F(1, 2), F(1, 3), F(3, 5)])
def test_gamblers_ruin(p):
    n = 10
    chain, r = gambler(n, p), (1 - p) / p
    for i in range(n + 1):
        win = F(i, n) if r == 1 else (1 - r**i) / (1 - r**n)
        steps = F(i * (n - i)) if r == 1 else (i - n * win) / (1 - 2 * p)
        assert chain.hitting_probabilities(n).exact[i] == win
        assert chain.hitting_times({0, n}).exact[i] == steps
        assert chain.hitting_times(n)[i] == (0 if i == n else math.inf)
    assert chain.absorbing == (0, n)
    assert len(chain.stationary) == 2


def test_ruin_in_floats_where_winning_is_rare():
    n, p = 300, 0.1
    chain, r = gambler(n, p), 9.0
    win = chain.hitting_probabilities(n).values
    i = np.arange(1, n + 1)
    assert np.log(win[1:]) == pytest.approx(np.log1p(-(r**-i)) + (i - n) * np.log(r), rel=1e-12)
    assert win[1] == pytest.approx((r - 1) * r**-300, rel=1e-12)  # 4e-286


@pytest.mark.parametrize("seed", range(10))
def test_absorbing_chains_against_the_fundamental_matrix(seed):
    matrix = random_matrix(seed, 12)
    matrix[8:] = np.eye(12)[8:]
    chain = MarkovChain(matrix)
    fundamental = np.linalg.inv(np.eye(8) - matrix[:8, :8])
    assert chain.hitting_times([8, 9, 10, 11]).values[:8] == pytest.approx(fundamental.sum(1))
    ends = fundamental @ matrix[:8, 8:]
    for j in range(4):
        reach = chain.hitting_probabilities(8 + j).values
        assert reach[:8] == pytest.approx(ends[:, j])
        assert reach[8:].tolist() == np.eye(4)[j].tolist()
    assert chain.distribution(10**6, 0)[8:] == pytest.approx(ends[0])


def test_names_that_are_no_states():
    chain = meals()
    for wrong in (lambda: chain.hitting_times("piza"), lambda: chain.distribution(1, "piza"),
                  lambda: chain.hitting_probabilities(["pizza", "piza"]),
                  lambda: chain.stationary[0]["piza"],
                  lambda: chain.simulate(3, {"piza": 1})):  # fmt: skip
        with pytest.raises(ValueError, match=r"no state 'piza'; did you mean pizza\?"):
            wrong()
    with pytest.raises(ValueError, match="no target"):
        chain.hitting_times([])
    with pytest.raises(ValueError, match="no state '5'"):
        chain.hitting_times(5)


# Steps


@pytest.mark.parametrize("seed", range(5))
def test_distribution_against_plain_steps(seed):
    matrix = random_matrix(seed, 6, zeros=0.4)
    chain, start = MarkovChain(matrix), np.random.default_rng(seed).dirichlet(np.ones(6))
    rows = [start]
    for _ in range(40):
        rows.append(rows[-1] @ matrix)
    assert chain.distribution(np.arange(41), start) == pytest.approx(np.array(rows), abs=1e-14)
    assert chain.distribution(37, list(start)) == pytest.approx(rows[37], abs=1e-14)
    table = chain.converge(start, 40)
    assert table.shape == (41, 6) and table.index.name == "step"
    assert table.to_numpy() == pytest.approx(np.array(rows), abs=1e-14)
    assert chain.distribution(np.arange(0), 0).shape == (0, 6)
    mapped = chain.distribution(3, {0: 0.25, 4: 0.75})
    expected = 0.25 * chain.distribution(3, 0) + 0.75 * chain.distribution(3, 4)
    assert mapped == pytest.approx(expected, abs=1e-15)


def test_many_steps():
    chain = MarkovChain(A)
    for n in (10**9, 2**63 - 1):
        assert chain.distribution(n, 0) == pytest.approx(np.array(PI, dtype=float), abs=1e-15)
    turning = MarkovChain(np.roll(np.eye(7), 1, axis=1))
    n = np.array([0, 6, 7, 10**9, 2**62 + 3])
    assert turning.distribution(n, 0).argmax(1).tolist() == (n % 7).tolist()
    leaving = MarkovChain([[1 - 1e-9, 1e-9], [0, 1]])
    kept = leaving.distribution(np.array([1, 10**6, 10**9]), 0)
    gone = -np.expm1(np.array([1, 1e6, 1e9]) * np.log1p(-1e-9))
    assert kept[:, 1] == pytest.approx(gone, rel=1e-13)  # the rare transition, not 1 - A[0, 0]
    two = MarkovChain([[0.5, 0.25, 0.25], [0, 1, 0], [0, 0, 1]])
    assert two.distribution(10**9, 0) == pytest.approx([0, 0.5, 0.5], abs=1e-15)


@pytest.mark.parametrize(
    ("n", "start", "kind", "text"),
    [
        (-1, 0, ValueError, "at least 0"),
        (2**63, 0, ValueError, "below 2\\^63"),
        (0.5, 0, TypeError, "whole numbers; got 0.5"),
        (True, 0, TypeError, "whole numbers"),
        (1, [0.5, 0.5], ValueError, r"3 probabilities .* shape \(2,\)"),
        (1, [0.5, 0.5, 0.5], ValueError, "sum to 1.* 1.5"),
        (1, [1.5, -0.5, 0], ValueError, "not negative"),
        (1, [math.nan, 1, 0], ValueError, "not negative"),
        (1, {0: 0.5}, ValueError, "sum to 1"),
        (1, None, ValueError, "no state 'None'; known: 0, 1, 2"),
        (1, ["a", "b", "c"], ValueError, "no state"),
    ],
)
def test_wrong_steps_and_starts(n, start, kind, text):
    with pytest.raises(kind, match=text):
        MarkovChain(A).distribution(n, start)


# Mixing


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("epsilon", [0.9, 0.25, 1e-3, 1e-9])
def test_mixing_time_against_every_power(seed, epsilon):
    chain = MarkovChain(0.7 * np.eye(6) + 0.3 * random_matrix(seed, 6, zeros=0.3))
    if len(chain.stationary) > 1:
        with pytest.raises(ValueError, match=r"no mixing time: .* recurrent classes"):
            chain.mixing_time(epsilon)
        return
    pi, power, t = chain.stationary[0].values, np.eye(6), 0
    while abs(power - pi).sum(1).max() / 2 > epsilon:
        power, t = power @ chain.matrix, t + 1
    assert chain.mixing_time(epsilon) == t


@pytest.mark.parametrize("rare", [1e-3, 1e-9, 1e-12, 1e-15, 1e-30])
def test_mixing_time_of_slow_chains(rare):
    """A = [[1 - a, a], [2a, 1 - 2a]] has d(t) = 2/3 (1 - 3a)^t, worst from state 1."""
    chain = MarkovChain([[1 - rare, rare], [2 * rare, 1 - 2 * rare]])
    exact = math.log(0.25 * 3 / 2) / math.log1p(-3 * rare)
    assert chain.mixing_time() == pytest.approx(math.ceil(exact), rel=1e-12)
    if rare > 1e-12:
        assert abs(chain.mixing_time() - math.ceil(exact)) <= 1


def test_mixing_time_of_the_lazy_walk_on_a_hypercube():
    """2^5 vertices; TV from the binomial laws of how many of the 5 coordinates were refreshed."""
    graph = nx.hypercube_graph(5)
    walk = nx.to_numpy_array(graph) / 5
    chain = MarkovChain((np.eye(32) + walk) / 2, graph.nodes)
    modes = np.array([1 - 2 * k / 5 for k in range(6)]) / 2 + 0.5

    def distance(t):  # the law of the distance from the start, by Krawtchouk polynomials
        total = 0.0
        for w in range(6):
            terms = [
                sum((-1) ** j * math.comb(w, j) * math.comb(5 - w, k - j) for j in range(k + 1))
                for k in range(6)
            ]
            p = sum(modes[k] ** t * terms[k] for k in range(6)) / 32
            total += math.comb(5, w) * abs(p - 1 / 32)
        return total / 2

    for epsilon in (0.25, 0.01):
        t = chain.mixing_time(epsilon)
        assert distance(t) <= epsilon < distance(t - 1)


def test_mixing_at_once_never_and_beyond_rounding():
    assert MarkovChain([[1]]).mixing_time() == 0
    assert MarkovChain(np.full((4, 4), 0.25)).mixing_time() == 1
    assert MarkovChain([[0, 1], [0, 1]]).mixing_time() == 1  # a transient state does not matter
    with pytest.raises(ValueError, match="2 recurrent classes"):
        MarkovChain(np.eye(2)).mixing_time()
    for epsilon in (0, 1, -1, math.nan, 1e-13):
        with pytest.raises(ValueError, match="epsilon must be at least 1e-12 and below 1"):
            meals().mixing_time(epsilon)
    with pytest.raises(ValueError, match="rounding keeps"):
        algebra.first_close(np.array(A), np.array([0.3, 0.3, 0.4]), 1e-3)


# Draws


@pytest.mark.parametrize(("n", "chains"), [(60_000, 1), (30, 2_000)])
def test_drawn_transitions_by_chi_square(n, chains):
    chain = meals()
    paths = chain.simulate(n, chains=chains, seed=3)
    assert paths.shape == (chains, n + 1)
    for state, row in zip(MEALS, chain.matrix, strict=True):
        after = paths[:, 1:][paths[:, :-1] == state]
        counts = np.array([(after == other).sum() for other in MEALS])
        assert (counts[row == 0] == 0).all()
        keep = row > 0
        assert chisquare(counts[keep], row[keep] * counts.sum()).pvalue > 1e-3
    if chains > 1:
        counts = np.array([(paths[:, 0] == state).sum() for state in MEALS])
        assert chisquare(counts, chains * np.array(PI, dtype=float)).pvalue > 1e-3


def test_draws_repeat_with_the_seed_and_both_ways_to_walk_agree():
    chain = MarkovChain(random_matrix(2, 17, zeros=0.5))
    assert (chain.simulate(50, 0, 3, seed=4) == chain.simulate(50, 0, 3, seed=4)).all()
    assert (chain.simulate(50, 0, 3, seed=4) != chain.simulate(50, 0, 3, seed=5)).any()
    u = np.random.default_rng(0).random((200, 12))
    first = np.full(17, 1 / 17)
    together = algebra.walks(first, chain.matrix, u)
    alone = np.hstack([algebra.walks(first, chain.matrix, u[:, [i]]) for i in range(12)])
    assert (together == alone).all()


@pytest.mark.parametrize("paths", [1, 20])
def test_no_uniform_number_draws_what_has_probability_zero(paths):
    row = np.array([0, 0.1, 0, *[0.1] * 9, 0, 0])
    sums = np.cumsum(row)
    below_one = np.nextafter(1, 0)
    assert sums[-1] <= below_one  # so that a count of the sums would run past the end
    matrix = np.tile(row, (14, 1))
    for value in (0.0, 0.1, np.nextafter(0.1, 0), sums[4], 0.95, below_one):
        walk = algebra.walks(row, matrix, np.full((4, paths), value))
        assert (walk == (11 if value == below_one else np.argmax(sums > value))).all(), value
        assert (row[walk] > 0).all(), value


def test_wrong_draws():
    with pytest.raises(ValueError, match=r"2 recurrent classes.* give `start`"):
        MarkovChain(np.eye(2)).simulate(3)
    with pytest.raises(ValueError, match="chains must be at least 1"):
        meals().simulate(3, chains=0)
    with pytest.raises(TypeError, match="n, the steps, must be a whole number"):
        meals().converge("pizza", 2.5)
    assert meals().simulate(0, "pizza").tolist() == [["pizza"]]


# Pictures


def test_the_graph_and_its_labels():
    graph = meals().graph()
    assert list(graph) == list(MEALS)
    labels = {edge: data["label"] for *edge, data in graph.edges(data=True) for edge in [(*edge,)]}
    assert labels["burger", "pizza"] == "0.6" and ("pizza", "pizza") not in labels
    assert graph.edges["burger", "burger"]["probability"] == 0.2
    thirds = MarkovChain([[F(1, 3), F(2, 3)], [1, 0]]).graph()
    assert [data["label"] for *_, data in thirds.edges(data=True)] == ["1/3", "2/3", "1"]
    rare = MarkovChain([[1 - 1e-12, 1e-12], [1, 0]]).graph()
    assert rare.edges[0, 1]["label"] == "1e-12"
    back = nx.to_numpy_array(graph, weight="probability")
    assert (back == meals().matrix).all()


def test_the_picture_names_classes_probabilities_and_kinds(tmp_path):
    path = tmp_path / "chain.svg"
    chain = gambler(3, F(1, 3))
    figure = chain.draw(path)
    said = [text.get_text() for text in figure.axes[0].texts]
    for text in ("1/3", "2/3", "{0} recurrent, aperiodic", "{3} recurrent, aperiodic"):
        assert text in said
    assert "transient, period 2" in said
    fills = {
        a.get_gid(): a.get_facecolor() for a in figure.axes[0].patches if a.get_gid() is not None
    }
    assert fills["node-1"] == fills["node-2"]
    assert len({fills[f"node-{i}"] for i in (0, 1, 3)}) == 3
    assert path.read_text().startswith("<?xml")
    again = tmp_path / "again.svg"
    chain.draw(again)
    assert again.read_bytes() == path.read_bytes()
    with pytest.raises(ValueError, match="ends in one of"):
        meals().draw(tmp_path / "chain.bmp")


def test_a_crowded_picture_has_widths_for_labels_and_one_grey_for_what_is_transient():
    figure = MarkovChain(random_matrix(0, 6)).draw()
    said = [text.get_text() for text in figure.axes[0].texts]
    assert "6 states, 36 transitions, too many to label" in said
    assert not [text for text in said if text.startswith("0.")]
    widths = {line.get_linewidth() for line in figure.axes[0].lines}
    assert len(widths) > 30
    mixed = np.zeros((4, 4))  # 0 is left at once, 1 <-> 2 has period 2, 3 absorbs
    mixed[[0, 1, 2, 2, 3], [1, 2, 1, 3, 3]] = [1, 1, 0.5, 0.5, 1]
    said = [text.get_text() for text in MarkovChain(mixed).draw().axes[0].texts]
    assert said[-2:] == ["transient", "recurrent, aperiodic"]


def test_drawn_in_given_axes():
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.add_axes((0, 0, 1, 1))
    assert meals().draw(ax=axes) is figure
    assert "recurrent, aperiodic" in [text.get_text() for text in axes.texts]


def test_mixing_at_an_exact_tie():
    """d(t) = (1/5)^t / 2 is exactly 0.0008 at t = 4."""
    chain = MarkovChain([[0.6, 0.4], [0.4, 0.6]])
    assert chain.mixing_time(0.0008) == 4
    assert chain.mixing_time(0.000799) == 5
