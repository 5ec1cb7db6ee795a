"""The figure of the threshold draws the curve as it is and says that it was not chosen from."""

import pytest
from report_sample import make_report

from trimtab.report.data import GateReport
from trimtab.report.figures_threshold import threshold_figure


@pytest.fixture
def gate() -> GateReport:
    gate = make_report().gate
    assert gate is not None
    return gate


def test_it_draws_every_threshold_with_its_interval(gate: GateReport) -> None:
    low, high, gain, steered = threshold_figure(gate).figure.data
    rows = (gate.thresholds[0], *gate.thresholds)
    assert list(gain.x) == [0.0, *(row.threshold for row in gate.thresholds)]
    assert list(gain.y) == [100 * row.gain for row in rows]
    assert list(steered.y) == [100 * row.steered for row in rows]
    assert (list(low.y), list(high.y)) == ([100 * row.low for row in rows], [100 * row.high for row in rows])
    # a policy holds up to and with its threshold
    assert {trace.line.shape for trace in (low, high, gain, steered)} == {"vh"}


def test_it_marks_the_chosen_threshold_and_reads_the_policy_there(gate: GateReport) -> None:
    drawing = threshold_figure(gate)
    marks = {shape.x0 for shape in drawing.figure.layout.shapes if shape.x0 == shape.x1}
    assert marks == {gate.threshold}
    assert any("chosen on validation" in note.text for note in drawing.figure.layout.annotations)
    assert "not chosen here" in drawing.figure.layout.title.subtitle.text
    on_tune = threshold_figure(gate.model_copy(update={"split": "validation"}))
    assert "may have been chosen on them" in on_tune.figure.layout.title.subtitle.text
    # 0.43 lies between 0.4 and 0.6, so the policy is that of 0.6
    assert "40.0 % are, for +24.0 points [+20.0, +28.0]" in drawing.reading
    assert "from all (+30.0 points) to none" in drawing.reading
