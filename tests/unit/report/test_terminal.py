"""The verdict in a terminal."""

import re

import pytest
from report_sample import Names, make_report
from rich.console import Console

from trimtab.report import Report, verdict_line, verdict_table


def shown(renderable: object, width: int = 130) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_row_holds_every_figure(report: Report) -> None:
    (row,) = (line for line in shown(verdict_table(report)).splitlines() if "when the gate fires" in line)
    assert re.split(r"\s{2,}", row.strip()) == [
        "Steered when the gate fires",
        "98.4 % [97.7, 99.1]",
        "+35.2 [+33.2, +37.2]",
        "< 0.001",
        "424 / 2",
        "31.4",
        "7",
    ]


def test_unsteered_has_no_gain_over_itself(report: Report) -> None:
    (row,) = (line for line in shown(verdict_table(report)).splitlines() if "Unsteered" in line)
    assert row.count("\u2013") == 3


def test_n_split_and_test_are_named(report: Report) -> None:
    text = shown(verdict_table(report))
    assert "n = 1,200 problems, test split" in text
    assert "exact McNemar" in text
    assert "Holm" in text
    assert "Holm" not in shown(verdict_table(report.model_copy(update={"random_gains": {}})))


@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_figure_is_cut_in_a_narrow_terminal(report: Report, width: int) -> None:
    text = shown(verdict_table(report), width)
    assert max(map(len, text.splitlines())) <= width
    if width >= 80:
        assert "…" not in text


def test_names_are_not_markup() -> None:
    assert "[red]arm[/red]" in shown(verdict_table(make_report(Names(arm="[red]arm[/red]"))))


def test_line_is_the_sentence_and_the_claims(report: Report) -> None:
    line = verdict_line(report)
    assert line.plain == "\n".join([report.verdict.sentence, *report.claims])
    assert line.spans[0].style == "bold green"
    assert line.plain[line.spans[0].start : line.spans[0].end] == "Helps"
