"""The threshold curve against a loop over thresholds and problems."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.evaluation.summary import threshold_curve
from trimtab.stats.paired import compare


def naive(base: list[bool], steered: list[bool], p_fail: list[float]) -> list[tuple[float, ...]]:
    rows = []
    for threshold in sorted({*p_fail, 1.0}):
        policy, fired = [], 0
        for before, after, p in zip(base, steered, p_fail, strict=True):
            fires = p >= threshold
            fired += fires
            policy.append(after if fires else before)
        result = compare(np.array(base), np.array(policy))
        rows.append((threshold, fired / len(base), result.accuracy, result.gain, result.gain_low, result.gain_high))
    return rows


@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0])), min_size=1, max_size=12)
)
def test_equals_the_naive_loop(problems: list[tuple[bool, bool, float]]) -> None:
    base, steered, p_fail = map(list, zip(*problems, strict=True))
    curve = threshold_curve(base, steered, p_fail)
    expected = naive(base, steered, p_fail)
    assert len(curve) == len(expected)
    for point, row in zip(curve, expected, strict=True):
        actual = (point.threshold, point.steered, point.accuracy, point.gain, point.low, point.high)
        np.testing.assert_allclose(actual, row, atol=1e-12)


def test_its_ends_are_always_and_never() -> None:
    rng = np.random.default_rng(0)
    base, steered, p_fail = rng.random(200) < 0.6, rng.random(200) < 0.7, rng.random(200)
    curve = threshold_curve(base, steered, p_fail)
    assert (curve[0].steered, curve[0].accuracy) == (1.0, steered.mean())
    assert (curve[-1].threshold, curve[-1].steered, curve[-1].accuracy, curve[-1].gain) == (1.0, 0.0, base.mean(), 0.0)
    assert len(curve) == 201
    assert all(point.low <= point.gain <= point.high for point in curve)


def test_a_gate_that_is_sure_is_steered_at_one() -> None:
    curve = threshold_curve([False, True], [True, True], [1.0, 0.5])
    assert [(point.threshold, point.steered, point.gain) for point in curve] == [(0.5, 1.0, 0.5), (1.0, 0.5, 0.5)]


def test_what_cannot_be_drawn() -> None:
    with pytest.raises(InputError, match="two bool"):
        threshold_curve([0, 1], [True, True], [0.1, 0.2])
    with pytest.raises(InputError, match="two bool"):
        threshold_curve([True, False], [True, True], [0.1])
    with pytest.raises(InputError, match="between 0 and 1"):
        threshold_curve([True], [True], [np.nan])
    with pytest.raises(NotEnoughDataError, match="at least one"):
        threshold_curve(np.zeros(0, bool), np.zeros(0, bool), np.zeros(0))
