"""Intervals and exact tests of counts: published values, values by hand, sums in plain Python, and statsmodels."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from trimtab.errors import InputError
from trimtab.evaluation.statistics import (
    Interval,
    holm,
    mcnemar_exact,
    mcnemar_one_sided,
    newcombe_paired,
    square_and_add,
    wilson,
)

Z = 1.959963984540054
counts = st.integers(0, 40)


def naive_wilson(successes: int, n: int) -> tuple[float, float]:
    p = successes / n
    centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return centre - half, centre + half


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(1, 200))
def test_wilson_equals_its_formula(successes, n):
    successes = min(successes, n)
    assert wilson(successes, n) == pytest.approx(naive_wilson(successes, n), abs=1e-9)


def test_wilson_known_values():
    # Newcombe (1998, Statistics in Medicine 17:857), table I, method 3
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


@pytest.mark.parametrize(("successes", "n", "level"), [(-1, 3, 0.95), (4, 3, 0.95), (0, 0, 0.95), (1, 3, 1.0)])
def test_wilson_refusals(successes, n, level):
    with pytest.raises(InputError):
        wilson(successes, n, level)


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


def naive_newcombe(a: int, b: int, c: int, d: int) -> tuple[float, float]:
    """Newcombe's steps with his letters: a both, b first only, c second only, d neither."""
    n = a + b + c + d
    p1, p2 = (a + b) / n, (a + c) / n
    (l1, u1), (l2, u2) = naive_wilson(a + b, n), naive_wilson(a + c, n)
    dl1, du1, dl2, du2 = p1 - l1, u1 - p1, p2 - l2, u2 - p2
    product = (a + b) * (c + d) * (a + c) * (b + d)
    phi = 0.0
    if product:
        top = a * d - b * c
        phi = (top if top <= 0 else max(top - n / 2, 0)) / math.sqrt(product)
    low = (p1 - p2) - math.sqrt(max(0.0, dl1**2 - 2 * phi * dl1 * du2 + du2**2))
    high = (p1 - p2) + math.sqrt(max(0.0, du1**2 - 2 * phi * du1 * dl2 + dl2**2))
    return max(low, -1.0), min(high, 1.0)


@settings(deadline=None)
@given(counts, counts, counts, st.integers(1, 40))
def test_newcombe_equals_its_steps(a, b, c, d):
    interval = newcombe_paired(a, b, c, d)
    assert interval == pytest.approx(naive_newcombe(a, b, c, d), abs=1e-9)
    assert interval.low - 1e-12 <= (b - c) / (a + b + c + d) <= interval.high + 1e-12
    mirrored = newcombe_paired(a, c, b, d)
    assert (-mirrored.high, -mirrored.low) == pytest.approx(interval, abs=1e-9)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        # Newcombe (1998, Statistics in Medicine 17:2635), method 10
        ((36, 12, 2, 0), (0.0569, 0.3404)),
        ((20, 12, 2, 16), (0.0562, 0.3292)),
        ((36, 14, 0, 0), (0.1528, 0.4167)),
        # phi = 0 and both proportions 1: the interval is the Wilson reach 1 - 54 / (54 + z^2) on both sides
        ((54, 0, 0, 0), (-0.0664, 0.0664)),
    ],
)
def test_newcombe_known_values(table, expected):
    assert newcombe_paired(*table) == pytest.approx(expected, abs=5e-5)


def test_newcombe_covers_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    shares = [0.5, 0.15, 0.05, 0.3]
    tables = rng.multinomial(80, shares, 400).tolist()
    hits = sum(low <= 0.10 <= high for low, high in (newcombe_paired(*table) for table in tables))
    assert 0.91 < hits / 400 < 0.985


def test_newcombe_refusals():
    with pytest.raises(InputError, match="cannot be negative"):
        newcombe_paired(1, -1, 0, 2)
    with pytest.raises(InputError):
        newcombe_paired(0, 0, 0, 0)


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


@pytest.mark.parametrize(("fixed", "broken"), [(3, 0), (12, 3), (0, 7), (20, 20), (1, 0), (41, 23)])
def test_mcnemar_is_that_of_statsmodels(fixed, broken):
    assert mcnemar_exact(fixed, broken) == pytest.approx(mcnemar([[10, broken], [fixed, 5]], exact=True).pvalue, rel=1e-12)


@pytest.mark.parametrize(("successes", "n"), [(0, 7), (7, 7), (8, 10), (250, 1319), (1, 1)])
def test_wilson_is_that_of_statsmodels(successes, n):
    assert wilson(successes, n) == pytest.approx(proportion_confint(successes, n, method="wilson"), abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_holm_is_that_of_statsmodels(seed):
    p = np.random.default_rng(seed).beta(0.5, 3, 9).tolist()
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1], atol=1e-15)


def test_square_and_add_by_hand():
    # the condition reaches 3 down and 4 up, the base 1 down and 4 up, all in hundredths: sqrt(9 + 16) and sqrt(16 + 1)
    condition, base = Interval(0.47, 0.54), Interval(0.39, 0.44)
    low, high = square_and_add(0.1, 0.5, condition, 0.4, base)
    assert (low, high) == pytest.approx((0.05, 0.1 + 0.01 * math.sqrt(17)))
    # whole correlation: only the difference of the two ways is left
    assert square_and_add(0.1, 0.5, condition, 0.4, base, 1.0) == pytest.approx((0.1 - 0.01, 0.1 + 0.03))
    assert square_and_add(1.0, 1.0, Interval(0.2, 1.0), 0.0, Interval(0.0, 0.8)).high == 1.0
