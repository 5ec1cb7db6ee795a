"""Abstention and rank correlation against loops over orders and pairs."""

from itertools import permutations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.stats.selective import aurc, aurc_estimate, best_aurc, rank_correlation, risk_coverage


def _risks(failed: list[bool], p_fail: list[float]) -> list[float]:
    """The mean over all orders of the problems that p(fail) allows, risk by risk."""
    orders = [order for order in permutations(range(len(failed))) if sorted(p_fail) == [p_fail[i] for i in order]]
    return [float(np.mean([np.mean([failed[i] for i in order[:k]]) for order in orders])) for k in range(1, len(failed) + 1)]


@pytest.mark.parametrize(
    ("failed", "p_fail"),
    [
        ([False, True, True, False, True], [0.2, 0.9, 0.1, 0.3, 0.8]),
        ([False, True, True, False, True], [0.2, 0.2, 0.2, 0.5, 0.5]),
        ([True, False, False, True, False], [0.7] * 5),
        ([True], [0.0]),
    ],
)
def test_the_curve_is_the_mean_over_all_orders(failed: list[bool], p_fail: list[float]) -> None:
    curve = risk_coverage(failed, p_fail)
    expected = _risks(failed, p_fail)
    assert_allclose(curve.risk, expected, atol=1e-12)
    assert_allclose(curve.coverage, np.arange(1, len(failed) + 1) / len(failed))
    assert aurc(failed, p_fail) == pytest.approx(np.mean(expected))


def test_no_order_beats_the_best_one() -> None:
    failed = [False, True, False, True, False]
    areas = [aurc(failed, order) for order in permutations(range(5))]
    assert best_aurc(5, 2) == pytest.approx(min(areas)) == pytest.approx((1 / 4 + 2 / 5) / 5)
    assert np.mean(areas) == pytest.approx(2 / 5), "in random order the area is the share of failures"
    assert (best_aurc(4, 0), best_aurc(4, 4)) == (0.0, 1.0)


def test_the_interval_of_the_area_covers_what_a_loop_draws() -> None:
    rng = np.random.default_rng(5)
    p_fail = rng.random(60)
    failed = rng.random(60) < p_fail
    estimate = aurc_estimate(failed, p_fail)
    drawn = [aurc(failed[rows], p_fail[rows]) for rows in rng.integers(0, 60, (2_000, 60))]
    assert estimate.value == aurc(failed, p_fail)
    assert_allclose([estimate.low, estimate.high], np.quantile(drawn, [0.025, 0.975]), atol=0.01)
    assert aurc_estimate(failed, p_fail) == estimate


def test_the_correlation_is_scipys_and_its_interval_a_loops() -> None:
    rng = np.random.default_rng(6)
    x = rng.random(50)
    y = np.sign(np.round(x - 0.5 + rng.normal(0, 0.6, 50)))
    estimate = rank_correlation(x, y)
    assert estimate is not None
    assert estimate.value == pytest.approx(stats.spearmanr(x, y).statistic)
    drawn = [stats.spearmanr(x[rows], y[rows]).statistic for rows in rng.integers(0, 50, (1_500, 50))]
    assert_allclose([estimate.low, estimate.high], np.quantile(drawn, [0.025, 0.975]), atol=0.03)
    assert rank_correlation(x, np.zeros(50)) is None
    rare = rank_correlation(x, np.arange(50) == 49)
    assert rare is not None
    assert np.isfinite([rare.low, rare.high]).all(), "a resample in which nothing varies is no NaN"


def test_what_cannot_be_ordered_raises() -> None:
    with pytest.raises(InputError, match="bool failed"):
        aurc([0, 1], [0.1, 0.2])
    with pytest.raises(InputError, match="without NaN"):
        aurc([True, False], [0.1, float("nan")])
    with pytest.raises(NotEnoughDataError, match="problems to abstain on"):
        aurc(np.zeros(0, np.bool_), [])
    with pytest.raises(InputError, match="two finite"):
        rank_correlation([0.1, 0.2], [0.1])
    with pytest.raises(NotEnoughDataError, match="two or more"):
        rank_correlation([0.1], [0.1])
    with pytest.raises(InputError, match="n_failed"):
        best_aurc(3, 4)
