"""Paired statistics: known values, values worked by hand, and sums over outcomes in plain Python."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.evaluation.statistics import compare, holm, mcnemar_exact, mcnemar_one_sided, newcombe_paired, wilson

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
