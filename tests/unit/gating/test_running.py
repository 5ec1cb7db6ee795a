"""Thresholds and the assessment of a running gate by time, worked out by hand on made-up courses of p."""

import numpy as np
import pytest

from trimtab.errors import InputError
from trimtab.gate import RandomOpening, RunningGate
from trimtab.gating.reading import predict
from trimtab.gating.running import SHARES, Readings, assess_running, set_thresholds
from trimtab.gating.settings import RunningGateSettings
from trimtab.stats.auroc import auroc

GATE = RunningGate(np.array([0]), np.array([1]), np.ones(1, np.float32))


def courses() -> Readings:
    """Ten responses of ten tokens: of the five that fail, four rise at token 4, 5, 6 and 7."""
    rows = [np.full(10, 0.2 + 0.01 * i) for i in range(10)]
    for row in range(4):
        rows[row][3 + row :] = 0.8
    return Readings(tuple(rows), np.arange(10) < 5)


def test_the_threshold_lies_between_those_who_rise_and_the_others() -> None:
    gate = set_thresholds(GATE, RunningGateSettings(hysteresis=0.25, after=2), courses())
    assert gate.threshold is not None
    assert 0.29 < gate.threshold < 0.8
    assert gate.release == pytest.approx(0.75 * gate.threshold)
    assert (gate.action, gate.after) == ("open", 2)
    closing = set_thresholds(GATE, RunningGateSettings(action="close", hysteresis=0.5), courses())
    assert closing.threshold is not None
    assert closing.release == pytest.approx((1 + closing.threshold) / 2)
    assert set_thresholds(GATE, RunningGateSettings(), courses()).release is None


def test_the_assessment_by_hand() -> None:
    readings = courses()
    found = assess_running(readings, 0.5, after=1)
    assert [point.share for point in found.points] == list(SHARES)
    assert [point.warned for point in found.points] == [0.0, 0.0, 0.4, 0.8, 0.8]  # tokens 1, 2, 5, 8 and 10
    assert [point.false_alarms for point in found.points] == [0.0] * 5
    assert found.lead == (3.75, 4.5, 5.25)  # the warnings at tokens 4 to 7 of 10
    assert found.left == 0.45
    for point in found.points:
        assert point.auroc.value == auroc(readings.failed, readings.at_share(point.share))
    assert found.points[0].text_auroc is None


def test_baselines_stand_beside_it() -> None:
    readings = courses()
    told = readings.failed.astype(float) + np.linspace(0, 1e-3, 10)
    none = np.tile([0.0, 1.0], 5)
    found = assess_running(readings, 0.5, 1, [(none, told)] * len(SHARES))
    for point in found.points:
        assert point.text_auroc is not None
        assert point.length_auroc is not None
        assert point.text_auroc.value == 1.0
        assert point.length_auroc.value == auroc(readings.failed, none)
        assert point.difference is not None
        assert point.difference.value == point.auroc.value - 1.0


def test_a_gate_that_reads_responses_says_nothing_of_a_prompt() -> None:
    gate = RandomOpening(np.array([1, 0], np.int64))
    with pytest.raises(InputError, match="says nothing of a prompt"):
        predict(None, gate, {"p": (1, 2)})  # type: ignore[arg-type]
