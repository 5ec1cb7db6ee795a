"""The README's picture."""

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_sample import Names, make_report

from trimtab.report import Report, result_svg
from trimtab.report.figure_svg import WIDTH, _scale

SVG = "{http://www.w3.org/2000/svg}"


def elements(picture: str, tag: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(picture).iter(SVG + tag))


def test_every_condition_and_every_random_set_is_drawn(report: Report) -> None:
    circles = elements(result_svg(report), "circle")
    dots = [circle for circle in circles if circle.get("fill") != "none"]
    assert len(dots) == len(report.conditions)
    assert len(circles) - len(dots) == 10
    # the order of the dots along the axis is that of the accuracies
    places = [float(dot.get("cx", "")) for dot in dots]
    accuracies = [row.accuracy for row in report.conditions]
    assert sorted(range(7), key=places.__getitem__) == sorted(range(7), key=accuracies.__getitem__)
    assert all(0 < place < WIDTH for place in places)


def test_intervals_are_drawn_to_scale(report: Report) -> None:
    picture = result_svg(report)
    bars = [line for line in elements(picture, "line") if line.get("stroke-width") == "2.4"]
    lengths = [float(bar.get("x2", "")) - float(bar.get("x1", "")) for bar in bars]
    spans = [row.high - row.low for row in report.conditions]
    scale = lengths[0] / spans[0]
    assert lengths == pytest.approx([scale * span for span in spans], abs=0.2)


def test_n_split_and_figures_are_written(report: Report) -> None:
    texts = [text.text for text in elements(result_svg(report), "text")]
    assert "Accuracy: n = 1,200 problems, test split" in texts
    assert {"98.4 %", "[97.7, 99.1]", "Random neurons (5 sets)"} <= set(texts)


def test_it_stands_on_white_and_loads_nothing(report: Report) -> None:
    picture = result_svg(report)
    assert elements(picture, "rect")[0].get("fill") == "#ffffff"
    assert not any(elements(picture, tag) for tag in ("image", "script", "style", "use", "a", "foreignObject"))
    assert picture.count("http") == 1, "only the namespace"


def test_hostile_names_are_escaped() -> None:
    picture = result_svg(make_report(Names(condition="</text><script>1</script>")))
    assert not elements(picture, "script")
    assert "</text><script>1</script>" in [text.text for text in elements(picture, "text")]


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=9))
def test_scale_holds_all_values_within_few_steps(values: list[float]) -> None:
    low, high, step = _scale(values)
    assert -1e-9 <= low <= min(values) + 1e-9
    assert max(values) - 1e-9 <= high <= 1 + 1e-9
    assert low < high
    assert (high - low) / step <= 7 + 1e-9
