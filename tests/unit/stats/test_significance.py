"""Exact tests and sign flips by enumeration, and statsmodels; Holm by its step-down procedure."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from trimtab.errors import InputError
from trimtab.stats.significance import holm, mcnemar_exact, mcnemar_one_sided, sign_flip_p

counts = st.integers(0, 40)


def naive_two_sided(fixed: int, broken: int) -> float:
    n = fixed + broken
    observed = math.comb(n, fixed)
    return sum(math.comb(n, k) for k in range(n + 1) if math.comb(n, k) <= observed) / 2**n


@settings(deadline=None)
@given(counts, counts)
def test_mcnemar_equals_counting_outcomes(fixed, broken):
    assert mcnemar_exact(fixed, broken) == pytest.approx(naive_two_sided(fixed, broken), rel=1e-9)
    assert mcnemar_exact(fixed, broken) == mcnemar_exact(broken, fixed)
    tail = sum(math.comb(fixed + broken, k) for k in range(fixed, fixed + broken + 1)) / 2 ** (fixed + broken)
    assert mcnemar_one_sided(fixed, broken) == pytest.approx(tail, rel=1e-9)


def test_mcnemar_by_hand():
    assert mcnemar_exact(3, 0) == 0.25
    assert mcnemar_one_sided(3, 0) == 0.125
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_one_sided(0, 0) == 1.0
    assert mcnemar_exact(6, 0) == pytest.approx(2 / 64)
    assert mcnemar_one_sided(0, 6) == 1.0
    with pytest.raises(InputError, match="cannot be negative"):
        mcnemar_exact(-1, 2)


@pytest.mark.parametrize(("fixed", "broken"), [(3, 0), (12, 3), (0, 7), (20, 20), (1, 0), (41, 23)])
def test_mcnemar_is_that_of_statsmodels(fixed, broken):
    assert mcnemar_exact(fixed, broken) == pytest.approx(mcnemar([[10, broken], [fixed, 5]], exact=True).pvalue, rel=1e-12)


p_values = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@settings(deadline=None)
@given(p_values)
def test_holm_laws(p):
    adjusted = holm(p)
    order = np.argsort(p, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()
    assert (adjusted >= np.array(p)).all()
    assert (adjusted <= 1).all()
    # never harsher than Bonferroni, and the smallest is Bonferroni's
    assert (adjusted <= np.minimum(1, np.array(p) * len(p))).all()
    assert adjusted.min() == min(1, min(p) * len(p))


@settings(deadline=None)
@given(p_values, st.floats(0.001, 0.5))
def test_holm_rejects_as_the_step_down_procedure_does(p, alpha):
    rejected = set()
    for step, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        if p[i] * (len(p) - step) > alpha:
            break
        rejected.add(i)
    assert set(np.flatnonzero(holm(p) <= alpha).tolist()) == rejected


def test_holm_by_hand():
    assert holm([0.04, 0.01, 0.03, 0.5]).tolist() == pytest.approx([0.09, 0.04, 0.09, 0.5])
    assert holm([]).tolist() == []
    with pytest.raises(InputError, match="between 0 and 1"):
        holm([0.1, float("nan")])


@pytest.mark.parametrize("seed", range(4))
def test_holm_is_that_of_statsmodels(seed):
    p = np.random.default_rng(seed).beta(0.5, 3, 9).tolist()
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1], atol=1e-15)


def test_seeds():
    values = np.random.default_rng(4).normal(size=40)
    assert sign_flip_p(values, seed=1) == sign_flip_p(values, seed=1)
    assert sign_flip_p(values, seed=1) != sign_flip_p(values, seed=2)


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
def test_with_one_response_each_it_is_exact_mcnemar(fixed, broken):
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
    with pytest.raises(InputError, match="finite differences"):
        sign_flip_p([1.0, math.inf])
