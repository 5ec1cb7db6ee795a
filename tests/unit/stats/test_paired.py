"""Which test and which intervals two conditions get, with one response a problem and with several."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.stats.estimates import bootstrap_mean, newcombe_paired, wilson
from trimtab.stats.paired import compare, gain_p, smallest_gain
from trimtab.stats.power import minimum_detectable_gain, permutation_detectable_gain
from trimtab.stats.significance import mcnemar_exact, mcnemar_one_sided, sign_flip_p


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_compare_equals_counting(pairs):
    result = compare(np.array([b for b, _ in pairs]), np.array([a for _, a in pairs]))
    fixed, broken = pairs.count((False, True)), pairs.count((True, False))
    right = pairs.count((True, True))
    assert (result.n, result.fixed, result.broken) == (len(pairs), fixed, broken)
    assert result.accuracy == (right + fixed) / len(pairs)
    assert result.base_accuracy == (right + broken) / len(pairs)
    assert result.gain == pytest.approx(result.accuracy - result.base_accuracy)
    assert (result.gain_low, result.gain_high) == newcombe_paired(right, fixed, broken, pairs.count((False, False)))
    assert (result.low, result.high) == wilson(right + fixed, len(pairs))
    assert (result.base_low, result.base_high) == wilson(right + broken, len(pairs))
    assert result.p == mcnemar_exact(fixed, broken)


def test_compare_on_aime_24_as_published():
    # 47.83 to 60.87 of n = 23 is three problems, and p can be no smaller than 0.25
    base = np.arange(23) < 11
    result = compare(base, base | (np.arange(23) >= 20))
    assert round(100 * result.base_accuracy, 2) == 47.83
    assert round(100 * result.accuracy, 2) == 60.87
    assert result.p == 0.25
    assert result.gain_low < 0


def test_compare_refusals():
    with pytest.raises(NotEnoughDataError, match="no problem"):
        compare(np.zeros(0, np.bool_), np.zeros(0, np.bool_))
    with pytest.raises(InputError, match="bool"):
        compare(np.array([1, 0]), np.array([1, 1]))
    with pytest.raises(InputError, match=r"\[2\] and bool \[3\]"):
        compare(np.ones(2, np.bool_), np.ones(3, np.bool_))


def responses(*rows: str) -> np.ndarray:
    """One string of 0 and 1 per problem."""
    return np.array([[mark == "1" for mark in row] for row in rows])


BASE = responses("1100", "0000", "1111", "1000", "0110", "0000", "1110", "0001")
CONDITION = responses("1110", "0100", "1111", "1100", "0111", "0010", "1111", "0101")


def test_several_responses_by_hand():
    result = compare(BASE, CONDITION)
    # 2 + 0 + 4 + 1 + 2 + 0 + 3 + 1 = 13 of 32, and 3 + 1 + 4 + 2 + 3 + 1 + 4 + 2 = 20
    assert (result.base_accuracy, result.accuracy) == (13 / 32, 20 / 32)
    assert result.gain == 7 / 32
    assert (result.n, result.base_k, result.k, result.pairs) == (8, 4, 4, 32)
    assert (result.fixed, result.broken) == (7, 0)
    assert result.test == "permutation"
    # seven problems gain one response, one gains none: 2 of the 2^7 signs are as far out
    assert result.p == pytest.approx(2 / 2**7)
    assert gain_p(BASE, CONDITION) == pytest.approx(1 / 2**7)
    differences = np.array([1, 1, 0, 1, 1, 1, 1, 1]) / 4
    assert result.standard_error == pytest.approx(stats.sem(differences))
    assert (result.gain_low, result.gain_high) == bootstrap_mean(differences)
    assert (result.low, result.high) == bootstrap_mean(CONDITION.mean(axis=1))
    assert (result.base_low, result.base_high) == bootstrap_mean(BASE.mean(axis=1))


def test_responses_that_repeat_themselves_prove_no_more_than_one():
    rng = np.random.default_rng(0)
    base, condition = rng.random(12) < 0.3, rng.random(12) < 0.8
    one, several = compare(base, condition), compare(np.repeat(base[:, None], 5, 1), np.repeat(condition[:, None], 5, 1))
    assert several.p == pytest.approx(one.p), "the problem is the unit, not the response"
    assert several.gain == pytest.approx(one.gain)
    assert several.fixed == 5 * one.fixed


def test_another_number_of_responses_compares_means():
    greedy = np.array([True, False, False, True, False, True, False])
    sampled = np.array([[True, True, False]] * 3 + [[True, False, False]] * 4)
    result = compare(greedy, sampled, shared=1)
    assert (result.base_k, result.k, result.pairs, result.test) == (1, 3, 7, "permutation")
    assert result.accuracy == pytest.approx((2 * 3 + 4) / 21)
    assert (result.base_low, result.base_high) == wilson(3, 7)
    # counts times the other's responses: whole thirds
    assert result.p == sign_flip_p([2 - 3, 2, 2, 1 - 3, 1, 1 - 3, 1])
    # all first responses are right: four problems fixed, none broken
    assert (result.fixed, result.broken) == (4, 0)
    none = compare(greedy, sampled, shared=0)
    assert (none.fixed, none.broken, none.pairs) == (0, 0, 0)
    assert none.p == result.p


def test_no_spread_gives_an_interval_with_width():
    right = np.ones((30, 4), np.bool_)
    same = compare(right, right)
    assert (same.low, same.high) == wilson(30, 30), "30 problems, not 120 responses"
    assert same.gain_low < 0 < same.gain_high
    assert same.p == 1.0
    # both conditions at 1: Wilson reaches 1 - 30 / (30 + z^2) down, and not up
    reach = 1 - 30 / (30 + 1.959963984540054**2)
    assert (same.gain_low, same.gain_high) == pytest.approx((-reach, reach))
    half = compare(responses("10", "01", "10"), responses("11", "11", "11"))
    assert half.gain == 0.5
    assert half.gain_low < 0.5 < half.gain_high
    assert (half.base_low, half.base_high) == (wilson(1, 3).low, wilson(2, 3).high), "1.5 of 3 problems lies between"
    alone = compare(responses("10"), responses("11"))
    assert alone.standard_error is None
    assert smallest_gain(alone) == np.inf


@settings(deadline=None, max_examples=15)
@given(st.integers(2, 6), st.integers(1, 4), st.integers(1, 4), st.randoms())
def test_figures_equal_loops(n, base_k, k, random):
    base = np.array([[random.random() < 0.4 for _ in range(base_k)] for _ in range(n)])
    condition = np.array([[random.random() < 0.6 for _ in range(k)] for _ in range(n)])
    result = compare(base, condition)
    shares = [(sum(b) / base_k, sum(a) / k) for b, a in zip(base.tolist(), condition.tolist(), strict=True)]
    assert result.base_accuracy == pytest.approx(sum(b for b, _ in shares) / n)
    assert result.accuracy == pytest.approx(sum(a for _, a in shares) / n)
    assert result.gain == pytest.approx(sum(a - b for b, a in shares) / n)
    pairs = [(b, a) for i in range(n) for b, a in zip(base[i].tolist(), condition[i].tolist(), strict=False)]
    assert (result.fixed, result.broken, result.pairs) == (
        pairs.count((False, True)),
        pairs.count((True, False)),
        len(pairs),
    )
    for low, value, high in (
        (result.low, result.accuracy, result.high),
        (result.base_low, result.base_accuracy, result.base_high),
        (result.gain_low, result.gain, result.gain_high),
    ):
        assert low - 1e-12 <= value <= high + 1e-12


def test_the_gain_interval_covers_about_as_often_as_it_says(monkeypatch):
    rng = np.random.default_rng(1)
    monkeypatch.setattr("trimtab.stats.paired.sign_flip_p", lambda differences: 1.0)
    hits = 0
    for _ in range(40):
        easy = rng.uniform(0.1, 0.7, 50)
        base = rng.random((50, 3)) < easy[:, None]
        condition = rng.random((50, 3)) < easy[:, None] + 0.2
        result = compare(base, condition)
        hits += result.gain_low <= 0.2 <= result.gain_high
    assert 0.85 <= hits / 40 <= 1


def test_the_smallest_gain_is_that_of_the_test():
    one = compare(np.array([True] * 30 + [False] * 70), np.array([True] * 25 + [False] * 60 + [True] * 15))
    assert smallest_gain(one) == minimum_detectable_gain(100, 20 / 100)
    several = compare(BASE, CONDITION)
    assert several.standard_error is not None
    assert smallest_gain(several, 0.9, 0.1) == permutation_detectable_gain(8, several.standard_error, 0.9, 0.1)


def test_a_gain_p_of_one_response_is_mcnemars():
    base, condition = np.array([False] * 5 + [True]), np.array([True] * 5 + [False])
    assert gain_p(base, condition) == mcnemar_one_sided(5, 1)


def test_refusals_of_chains():
    with pytest.raises(InputError, match="3 responses of a problem cannot be pairs: the base has 2 and the condition 4"):
        compare(np.ones((3, 2), np.bool_), np.ones((3, 4), np.bool_), shared=3)
    with pytest.raises(InputError, match="0 responses of a problem cannot be pairs"):
        compare(np.ones(3, np.bool_), np.ones(3, np.bool_), shared=0)
    with pytest.raises(InputError, match=r"bool \[3, 0\]"):
        compare(np.ones(3, np.bool_), np.ones((3, 0), np.bool_))
