"""Bootstrap and sign flips by enumeration and by scipy on other roads; pass@k by trying every subset."""

import math
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.evaluation.statistics import (
    bootstrap_macro,
    bootstrap_mean,
    mcnemar_exact,
    mcnemar_one_sided,
    mean_pass_at,
    pass_at_k,
    sign_flip_p,
)


@pytest.mark.parametrize("n", [1, 2, 5, 7])
def test_pass_at_k_equals_trying_every_subset(n):
    for correct in range(n + 1):
        for k in range(1, n + 1):
            subsets = list(combinations(range(n), k))
            expected = sum(any(i < correct for i in subset) for subset in subsets) / len(subsets)
            assert pass_at_k(n, correct, k) == pytest.approx(expected, abs=1e-12)
            # the chance that k draws without replacement hold no correct sample
            assert pass_at_k(n, correct, k) == pytest.approx(1 - stats.hypergeom.pmf(0, n, correct, k), abs=1e-12)


def test_pass_at_k_stays_exact_for_many_samples():
    assert pass_at_k(1000, 1, 1) == 0.001
    assert pass_at_k(10_000, 10, 5000) == pytest.approx(1 - 0.5**10, rel=0.01)


@pytest.mark.parametrize("arguments", [(4, 5, 1), (4, -1, 1), (4, 2, 5), (4, 2, 0)])
def test_pass_at_k_refusals(arguments):
    with pytest.raises(InputError, match="pass@k needs"):
        pass_at_k(*arguments)


def test_mean_pass_by_hand():
    # of 4 chains 0, 1 and 4 are correct: pass@2 is 0, 1 - 3/6 and 1
    assert mean_pass_at(4, [0, 1, 4], 2) == pytest.approx(0.5)
    assert mean_pass_at(4, [0, 1, 4], 1) == pytest.approx(5 / 12), "pass@1 is avg@k"
    assert mean_pass_at(4, [0, 1, 4], 4) == pytest.approx(2 / 3)
    with pytest.raises(NotEnoughDataError, match="no problem"):
        mean_pass_at(4, [], 1)


def test_bootstrap_near_students_interval():
    values = np.random.default_rng(0).normal(0.1, 1.0, 400)
    expected = stats.t.interval(0.95, 399, values.mean(), stats.sem(values))
    assert bootstrap_mean(values) == pytest.approx(expected, abs=0.01)


def test_bootstrap_of_three_problems_equals_all_27_draws():
    values = [0.0, 0.25, 1.0]
    means = sorted(sum(draw) / 3 for draw in product(values, repeat=3))
    for level in (0.5, 0.8):
        tail = (1 - level) / 2
        low, high = bootstrap_mean(values, level=level)
        # a resampled quantile may be the neighbour where the 27 means step
        shares = [np.mean([mean <= low + 1e-9 for mean in means]), np.mean([mean < high - 1e-9 for mean in means])]
        assert shares[0] >= tail - 0.02
        assert shares[1] <= 1 - tail + 0.02
        assert any(low == pytest.approx(mean) for mean in means)
        assert any(high == pytest.approx(mean) for mean in means)


def test_chains_of_a_problem_widen_the_interval_when_they_are_alike():
    rng = np.random.default_rng(1)
    shares = rng.integers(0, 2, 60).astype(float)  # 10 chains each, all alike
    low, high = bootstrap_mean(shares)
    half = 1.96 * (shares.mean() * (1 - shares.mean()) / 600) ** 0.5
    assert high - low > 2.5 * (2 * half)


def test_bootstrap_covers_about_as_often_as_it_says():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(200):
        low, high = bootstrap_mean(rng.normal(0.2, 1, 60), resamples=500)
        hits += low <= 0.2 <= high
    assert 0.88 < hits / 200 < 0.985


def test_blocks_do_not_change_the_draws(monkeypatch):
    values = np.random.default_rng(3).normal(size=40)
    whole = bootstrap_mean(values)
    monkeypatch.setattr("trimtab.evaluation.statistics.samples.BLOCK", 40 * 300)
    assert bootstrap_mean(values) == pytest.approx(whole, abs=1e-12)


def test_seeds():
    values = np.random.default_rng(4).normal(size=40)
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)
    assert sign_flip_p(values, seed=1) == sign_flip_p(values, seed=1)
    assert sign_flip_p(values, seed=1) != sign_flip_p(values, seed=2)


def test_macro_interval_near_that_of_stratified_sampling():
    rng = np.random.default_rng(5)
    sizes = {"a": 300, "b": 40, "c": 120}
    values = np.concatenate([rng.normal(i, 1 + i, n) for i, n in enumerate(sizes.values())])
    strata = np.repeat(list(sizes), list(sizes.values()))
    groups = [values[strata == name] for name in sizes]
    mean = np.mean([group.mean() for group in groups])
    error = np.sqrt(sum(group.var() / len(group) for group in groups)) / 3
    low, high = bootstrap_macro(values, strata)
    assert (low, high) == pytest.approx((mean - 1.96 * error, mean + 1.96 * error), abs=0.03)
    # the mean over all problems lies elsewhere: the big group has the lowest mean
    assert values.mean() < low


def test_one_stratum_is_the_plain_bootstrap():
    values = np.random.default_rng(6).normal(size=30)
    assert bootstrap_macro(values, ["all"] * 30) == bootstrap_mean(values)


def naive_sign_flip(differences, one_sided):
    sums = [sum(s * d for s, d in zip(signs, differences, strict=True)) for signs in product((1, -1), repeat=len(differences))]
    up = sum(total >= sum(differences) for total in sums) / len(sums)
    down = sum(total <= sum(differences) for total in sums) / len(sums)
    return up if one_sided else min(1.0, 2 * min(up, down))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(-8, 8), min_size=1, max_size=9), st.booleans())
def test_sign_flips_equal_trying_all_signs(differences, one_sided):
    assert sign_flip_p(differences, one_sided=one_sided) == pytest.approx(naive_sign_flip(differences, one_sided), rel=1e-12)


@pytest.mark.parametrize(("fixed", "broken"), [(0, 0), (1, 0), (3, 0), (0, 6), (7, 2), (5, 5)])
def test_with_one_chain_each_it_is_exact_mcnemar(fixed, broken):
    differences = [1] * fixed + [-1] * broken + [0] * 20
    assert sign_flip_p(differences) == pytest.approx(mcnemar_exact(fixed, broken), rel=1e-12)
    assert sign_flip_p(differences, one_sided=True) == pytest.approx(mcnemar_one_sided(fixed, broken), rel=1e-12)


def test_random_signs_agree_with_mcnemar_and_with_the_t_test():
    assert sign_flip_p([1] * 40 + [-1] * 25) == pytest.approx(mcnemar_exact(40, 25), abs=0.015)
    differences = np.random.default_rng(7).normal(0.12, 1, 200)
    assert sign_flip_p(differences) == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=0.015)


def test_random_signs_never_give_zero():
    assert sign_flip_p([1] * 60, resamples=999) == pytest.approx(2 / 1000)
    assert sign_flip_p([1] * 60, one_sided=True, resamples=999) == pytest.approx(1 / 1000)
    assert sign_flip_p([-1] * 60, one_sided=True, resamples=999) == 1.0


def test_level_holds_where_nothing_happens():
    rng = np.random.default_rng(8)
    found = [sign_flip_p(rng.integers(-4, 5, 30), resamples=399) <= 0.05 for _ in range(300)]
    assert sum(found) / 300 < 0.09


def test_refusals():
    with pytest.raises(NotEnoughDataError, match="got 1"):
        bootstrap_mean([0.1])
    with pytest.raises(NotEnoughDataError, match="got 0"):
        bootstrap_mean([])
    with pytest.raises(NotEnoughDataError, match="got 1"):
        bootstrap_macro([0.1, 0.2, 0.3], ["a", "a", "b"])
    with pytest.raises(InputError, match="finite"):
        bootstrap_mean([0.1, math.nan])
    with pytest.raises(InputError, match="one stratum each"):
        bootstrap_macro([0.1, 0.2], ["a"])
    with pytest.raises(InputError, match="finite differences"):
        sign_flip_p([1.0, math.inf])
