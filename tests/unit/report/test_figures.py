"""Figures: every one says n and split, draws its intervals, and leaves nothing out."""

import re

import plotly.graph_objects as go
import pytest
from report_sample import Names, make_report

from trimtab.report import Report
from trimtab.report.figures import (
    Drawing,
    accuracy_figure,
    draw,
    flip_figures,
    gain_figure,
    layer_figure,
    roc_figure,
    tune_figure,
)
from trimtab.stats.estimates import wilson


def title(figure: go.Figure) -> str:
    return f"{figure.layout.title.text} {figure.layout.title.subtitle.text}"


def traces(drawing: Drawing, **wanted: object) -> list[go.Scatter]:
    return [trace for trace in drawing.figure.data if all(getattr(trace, name) == value for name, value in wanted.items())]


@pytest.mark.parametrize("gate", [True, False])
def test_every_figure_says_n_and_split(gate: bool) -> None:
    drawings = draw(make_report(gate=gate))
    assert len(drawings) == (11 if gate else 8)
    for drawing in drawings:
        assert re.search(r"n = [\d,]+ (problems|neurons)", title(drawing.figure)), drawing.name
        assert re.search(r"(train|validation|test) split", title(drawing.figure)), drawing.name
        assert drawing.reading.endswith("."), drawing.name
        assert drawing.figure.layout.height > 0, drawing.name
    assert len({drawing.name for drawing in drawings}) == len(drawings)


def test_accuracy_draws_each_condition_with_its_interval(report: Report) -> None:
    dots = traces(accuracy_figure(report), mode="markers+text")
    assert len(dots) == len(report.conditions)
    for dot, row in zip(dots, report.conditions, strict=True):
        assert dot.x == (row.accuracy,)
        assert dot.x[0] + dot.error_x.array[0] == pytest.approx(row.high)
        assert dot.x[0] - dot.error_x.arrayminus[0] == pytest.approx(row.low)


def test_gain_draws_each_interval_and_every_random_set(report: Report) -> None:
    drawing = gain_figure(report)
    dots = traces(drawing, mode="markers+text")
    for dot, row in zip(dots, report.conditions[1:], strict=True):
        assert dot.x[0] + dot.error_x.array[0] == pytest.approx(100 * row.gain_high)
        assert dot.x[0] - dot.error_x.arrayminus[0] == pytest.approx(100 * row.gain_low)
    rings = [list(ring.x) for ring in traces(drawing, mode="markers")]
    assert rings == [[100 * gain for gain in report.random_gains[kind]] for kind in ("random", "random-norm")]
    assert "0 of 10 random sets" in drawing.reading


def test_gain_says_when_random_sets_do_as_well(report: Report) -> None:
    lucky = report.model_copy(update={"random_gains": {"random": (0.4, 0.1, 0.3517)}})
    assert "2 of 3 random sets" in gain_figure(lucky).reading


def test_unsteered_alone_can_be_drawn(report: Report) -> None:
    alone = report.model_copy(update={"conditions": report.conditions[:1], "random_gains": {}})
    assert len(accuracy_figure(alone).figure.data) == 1
    assert len(gain_figure(alone).figure.data) == 0


def test_flips_stack_shares_of_the_group(report: Report) -> None:
    drawings = flip_figures(report)
    assert [drawing.name for drawing in drawings] == ["flips-source", "flips-domain", "flips-difficulty"]
    bars = {bar.name: bar.x for bar in drawings[2].figure.data}
    assert list(bars) == ["fixed", "broken", "still wrong"]
    # difficulty 2, 4, 10
    assert bars["fixed"] == pytest.approx((124 / 544, 200 / 446, 100 / 210))
    assert "n = 1,200" in title(drawings[2].figure)


def test_one_group_needs_no_figure(report: Report) -> None:
    flips = report.flips.model_copy(update={"by_source": None, "by_difficulty": {"0": {"fixed": 3}}})
    assert [d.name for d in flip_figures(report.model_copy(update={"flips": flips}))] == ["flips-domain"]


def test_roc_legend_holds_both_areas(report: Report) -> None:
    assert report.gate is not None
    legend = [trace.name for trace in roc_figure(report.gate).figure.data if trace.name]
    assert legend == ["wording only: AUROC 0.880 [0.861, 0.898]", "gate: AUROC 0.916 [0.900, 0.931]"]


def test_layers_count_every_layer(report: Report) -> None:
    assert layer_figure(report).figure.data[0].y == (0, 1, 4, 15)


def test_tune_has_a_line_per_k_and_criterion_and_rings_the_chosen(report: Report) -> None:
    drawing = tune_figure(report.tune)
    lines = traces(drawing, mode="lines+markers")
    assert len(lines) == 9
    drawn = {(trace.xaxis, trace.name, x, y) for trace in lines for x, y in zip(trace.x, trace.y, strict=True)}
    assert len(drawn) == len(report.tune.points)
    assert {y for *_, y in drawn} == {point.gated for point in report.tune.points}
    (ring,) = traces(drawing, mode="markers")
    chosen = report.tune.chosen
    assert (ring.x, ring.y) == ((f"{chosen.strength:g}",), (chosen.gated,))
    assert ring.y[0] - ring.error_y.arrayminus[0] == pytest.approx(wilson(round(chosen.gated * chosen.n), chosen.n).low)


def test_tune_has_a_panel_per_intervention(report: Report) -> None:
    points = report.tune.points
    more = tuple(point.model_copy(update={"intervention": "ablate", "gated": point.gated - 0.1}) for point in points[:4])
    drawing = tune_figure(report.tune.model_copy(update={"points": (*points, *more)}))
    titles = [annotation.text for annotation in drawing.figure.layout.annotations]
    assert titles == [
        "mean-difference, add",
        "adaras, add",
        "paired-t, add",
        "mean-difference, ablate",
    ]
    assert sum(len(trace.x) for trace in traces(drawing, mode="lines+markers")) == len(points) + 4


def test_roc_of_an_artifact_has_one_curve(report: Report) -> None:
    assert report.gate is not None
    gate = report.gate.model_copy(update={"text_auroc": None, "difference": None, "text_brier": None})
    assert [trace.name for trace in roc_figure(gate).figure.data if trace.name] == ["gate: AUROC 0.916 [0.900, 0.931]"]


def test_names_are_not_read_as_tags() -> None:
    hostile = "<a href='http://evil'>x</a>"
    drawings = draw(make_report(Names(domain=hostile, criterion=hostile, condition=hostile)))
    for drawing in drawings:
        text = str(drawing.figure.to_json())
        assert "<a" not in text.replace("\\u003c", "<"), drawing.name
