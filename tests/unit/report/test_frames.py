"""The frames of a report: each holds the figures of its section, and every reading says what they came to."""

from dataclasses import replace

import pytest

from report_sample import make_report, without_text
from steering_samples import logistic, neuron_set
from trimtab.errors import InputError
from trimtab.findings import Frame
from trimtab.report import Report
from trimtab.report.frames import (
    SET,
    accuracy_frame,
    evaluation_figure,
    frame_split,
    gain_frame,
    gate_figure,
    neurons_figure,
    report_frames,
    roc_frame,
    threshold_frame,
    tune_frame,
)
from trimtab.report.plots import draw
from trimtab.stats.estimates import wilson


def frames(report: Report) -> dict[str, Frame]:
    return {frame.name: frame for frame in report_frames(report)}


@pytest.mark.parametrize("gate", [True, False])
def test_every_frame_can_be_drawn_and_says_what_to_read(gate: bool) -> None:
    report = make_report(gate=gate)
    found = report_frames(report)
    assert len(found) == len({frame.name for frame in found}) == (12 if gate else 8)
    for frame in found:
        assert frame.reading.endswith("."), frame.name
        split = frame_split(report, frame.name)
        assert f"{split} split" in draw(frame, split).layout.title.subtitle.text, frame.name
    assert {frame_split(report, name) for name in ("layers", "tune", "gain")} == {"train", "validation", "test"}


def test_accuracy_and_gain_hold_each_condition_and_every_random_set(report: Report) -> None:
    found = accuracy_frame(report.conditions, report.random_gains, "gated")
    rows = [row for row in found.rows if row["series"] != SET]
    assert [(row["value"], row["low"], row["high"]) for row in rows] == [(c.accuracy, c.low, c.high) for c in report.conditions]
    assert [row["label"] for row in rows if row["chosen"]] == ["Steered when the gate fires"]
    assert found.reference == report.conditions[0].accuracy
    gains = gain_frame(report.conditions, report.random_gains, "gated")
    kept = [row for row in gains.rows if row["series"] != SET]
    assert [row["value"] for row in kept] == [None, *(c.gain for c in report.conditions[1:])]
    assert [row["value"] for row in gains.rows if row["series"] == SET] == [
        g for kind in report.random_gains.values() for g in kind
    ]
    assert "0 of 10 random sets" in gains.reading


def test_gain_says_when_random_sets_do_as_well(report: Report) -> None:
    assert "2 of 3 random sets" in gain_frame(report.conditions, {"random": (0.4, 0.1, 0.3517)}, "gated").reading


def test_unsteered_alone_can_be_drawn(report: Report) -> None:
    alone = report.model_copy(update={"conditions": report.conditions[:1], "random_gains": {}})
    assert len(draw(frames(alone)["accuracy"]).data) == 1
    assert "gain" not in frames(alone)


def test_flips_are_shares_of_the_group(report: Report) -> None:
    found = frames(report)
    assert [name for name in found if name.startswith("flips")] == ["flips-source", "flips-domain", "flips-difficulty"]
    fixed = {row["x"]: (row["value"], row["n"]) for row in found["flips-difficulty"].rows if row["series"] == "fixed"}
    assert fixed == {"2": (124 / 544, 544), "4": (200 / 446, 446), "10": (100 / 210, 210)}
    one = report.flips.model_copy(update={"by_source": None, "by_difficulty": {"0": {"fixed": 3}}})
    assert [name for name in frames(report.model_copy(update={"flips": one})) if name.startswith("flips")] == ["flips-domain"]


def test_roc_holds_both_curves_and_says_which_is_ahead(report: Report) -> None:
    assert report.gate is not None
    found = roc_frame(report.gate)
    assert {row["series"]: row["value"] for row in found.rows} == {"gate": 0.916, "wording only": 0.88}
    assert "knows more than the wording: AUROC difference +0.036 [+0.021, +0.051]" in found.reading
    alone = roc_frame(without_text(report.gate))
    assert {row["series"] for row in alone.rows} == {"gate"}
    assert "no text-only baseline was fitted" in alone.reading


def test_thresholds_run_over_the_share_that_is_steered(report: Report) -> None:
    assert report.gate is not None
    found = threshold_frame(report.gate)
    assert [row["x"] for row in found.rows] == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8])
    # a problem is steered from p(fail) = 0.43 on: the policy between two thresholds is that of the upper one
    assert found.mark == pytest.approx(0.4)
    assert "40.0 % are, for +24.0 points [+20.0, +28.0]" in found.reading
    assert "it was not chosen here" in found.note
    seen = threshold_frame(report.gate.model_copy(update={"split": "validation"}))
    assert "may have been chosen on these problems" in seen.note


def test_tune_holds_every_point_and_frames_the_chosen(report: Report) -> None:
    assert report.tune is not None
    rows = tune_frame(report.tune).rows
    assert len(rows) == len(report.tune.points)
    (chosen,) = (row for row in rows if row["chosen"])
    point = report.tune.chosen
    assert (chosen["value"], chosen["column"]) == (point.gated, f"{point.strength:g}")
    assert chosen["low"] == wilson(round(point.gated * point.n), point.n).low


def test_layers_count_every_layer(report: Report) -> None:
    assert [row["value"] for row in frames(report)["layers"].rows] == [0, 1, 4, 15]


def test_values_show_themselves(report: Report) -> None:
    drawn = evaluation_figure(report.conditions, report.random_gains, judged="gated")
    assert drawn.layout.yaxis.ticktext == drawn.layout.yaxis2.ticktext, "the same lines in both panels"
    assert report.gate is not None
    gate = replace(logistic(), facts={"validation_assessment": report.gate.assessment.to_json()})
    names = [trace.name for trace in gate_figure(gate).data if trace.name]
    assert names[0] == "gate: AUROC 0.916 [0.900, 0.931]"
    with pytest.raises(InputError, match="was not assessed"):
        gate_figure(logistic())


def test_neurons_show_their_layers_and_differences() -> None:
    neurons = neuron_set(make_report().run.model, k=30)
    bars, best = neurons_figure(neurons).data
    assert sum(bars.y) == 30
    assert list(best.x) == pytest.approx(neurons.mean_difference[:20].tolist())


def test_coverage_runs_to_all_problems(report: Report) -> None:
    assert report.controls is not None
    gate = report.controls.gate
    assert gate is not None
    found = frames(report)["coverage"]
    assert [(row["x"], row["n"], row["value"]) for row in found.rows] == [(p.coverage, p.n, p.accuracy) for p in gate.curve]
    assert found.mark == 0.588
    assert found.reference == pytest.approx(1 - 441 / 1200)
    assert frame_split(report, "coverage") == "test"
    assert "coverage" not in frames(report.model_copy(update={"controls": None}))
