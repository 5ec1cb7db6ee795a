"""The gate's figures against loops."""

import json
from itertools import pairwise

import numpy as np
import pytest

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.gating import assess
from trimtab.gating.assess import calibration_curve
from trimtab.stats.auroc import auroc, delong_difference, delong_interval


def cases(
    seed: int, n: int = 200, strength: float = 2.0, text_strength: float = 0.5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    failed = rng.random(n) < 0.4

    def p(effect: float) -> np.ndarray:
        return 1 / (1 + np.exp(-(effect * (failed - 0.4) + rng.normal(size=n))))

    return failed, p(strength), p(text_strength)


def test_figures_by_loops():
    failed, p, text = cases(0)
    result = assess(failed, p, text)
    assert (result.n, result.n_failed) == (200, failed.sum())
    assert result.auroc.value == auroc(failed, p)
    assert (result.auroc.low, result.auroc.high) == delong_interval(failed, p)
    assert result.text_auroc.value == auroc(failed, text)
    assert result.brier == pytest.approx(sum((a - b) ** 2 for a, b in zip(p.tolist(), failed.tolist(), strict=True)) / 200)
    assert result.difference.value == result.auroc.value - result.text_auroc.value
    assert (result.difference.low, result.difference.high) == delong_difference(failed, p, text)


def test_beating_text_needs_the_whole_interval():
    assert assess(*cases(3, strength=3.0, text_strength=0.0)).beats_text
    assert not assess(*cases(4, strength=0.5, text_strength=0.5)).beats_text
    failed, p, _ = cases(5)
    same = assess(failed, p, p)
    assert (same.difference.value, same.difference.low, same.difference.high) == (0, 0, 0)
    assert not same.beats_text


def test_without_a_text_baseline_the_gate_has_the_same_figures():
    failed, p, text = cases(2)
    alone, beside = assess(failed, p), assess(failed, p, text)
    assert (alone.auroc, alone.brier, alone.calibration, alone.roc) == (
        beside.auroc,
        beside.brier,
        beside.calibration,
        beside.roc,
    )
    assert (alone.text_auroc, alone.difference, alone.text_brier, alone.beats_text) == (None, None, None, False)


def test_calibration_curve_by_hand():
    failed = np.array([False, False, True, True])
    curve = calibration_curve(failed, np.array([0.1, 0.2, 0.2, 0.9]), bins=2)
    assert [(b.n, b.observed) for b in curve] == [(1, 0.0), (3, pytest.approx(2 / 3))]
    assert curve[1].predicted == pytest.approx(1.3 / 3)


def test_calibration_bins_are_even_and_hold_every_problem():
    failed, p, text = cases(7)
    curve = assess(failed, p, text).calibration
    assert [b.n for b in curve] == [20] * 10
    assert sum(b.n * b.observed for b in curve) == pytest.approx(failed.sum())
    assert len(calibration_curve(failed, np.full(200, 0.4))) == 1


def test_roc_runs_from_corner_to_corner_and_has_the_area():
    failed, p, text = cases(8)
    result = assess(failed, p, text)
    assert result.roc[0] == (0.0, 0.0)
    assert result.roc[-1] == (1.0, 1.0)
    area = sum((right[0] - left[0]) * (right[1] + left[1]) / 2 for left, right in pairwise(result.roc))
    assert area == pytest.approx(result.auroc.value)


def test_json_round_trip():
    result = assess(*cases(9))
    data = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert data["auroc"]["low"] == result.auroc.low
    assert data["calibration"][0]["n"] == result.calibration[0].n
    assert data["roc"] == [list(point) for point in result.roc]
    assert data["beats_text"] is result.beats_text


def test_refusals():
    failed, p, text = cases(10)
    with pytest.raises(InputError, match="between 0 and 1"):
        assess(failed, p * 2, text)
    with pytest.raises(InputError, match="scores are NaN"):
        assess(failed, np.where(failed, np.nan, p), text)
    with pytest.raises(NotEnoughDataError, match="at least 2 of each class, got 1 positive"):
        assess(np.arange(200) < 1, p, text)
