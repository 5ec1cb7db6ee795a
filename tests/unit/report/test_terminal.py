"""The verdict in a terminal."""

import re

import pytest
from rich.console import Console

from report_sample import Names, make_report, with_responses
from trimtab.report import Report, breakdown_table, verdict_table


def shown(renderable: object, width: int = 160) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_row_holds_every_figure(report: Report) -> None:
    (row,) = (line for line in shown(verdict_table(report)).splitlines() if "when the gate fires" in line)
    assert re.split(r"\s{2,}", row.strip()) == [
        "Steered when the gate fires",
        "98.4 % [97.7,99.1]",
        "+35.2 [+33.2,+37.2]",
        "4.8",
        "< 0.001",
        "< 0.001",
        "424 / 2",
        "31.4",
        "7",
        "0",
    ]


def test_unsteered_has_no_gain_over_itself(report: Report) -> None:
    (row,) = (line for line in shown(verdict_table(report)).splitlines() if "Unsteered" in line)
    assert row.count("\u2013") == 5


def test_n_split_and_test_are_named(report: Report) -> None:
    text = shown(verdict_table(report))
    assert "n = 1,200 problems, test split" in text
    assert "exact McNemar" in text
    assert "corrected for the 3 conditions that are claims" in text
    assert "Of random sets" in " ".join(text.split())
    assert "Of random sets" not in " ".join(shown(verdict_table(report.model_copy(update={"random_gains": {}}))).split())


@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_figure_is_cut_in_a_narrow_terminal(report: Report, width: int) -> None:
    text = shown(verdict_table(report), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for breakdown in report.breakdowns:
        assert "…" not in shown(breakdown_table(breakdown), width)


def test_names_are_not_markup() -> None:
    assert "[red]condition[/red]" in shown(verdict_table(make_report(Names(condition="[red]condition[/red]"))))


def _cells(renderable: object, name: str) -> list[str]:
    (row,) = (line for line in shown(renderable).splitlines() if line.strip().startswith(name))
    return re.split(r"\s{2,}", row.strip())


def test_several_responses_and_what_goes_wrong_with_them() -> None:
    report = with_responses(make_report())
    table = verdict_table(report)
    dash = "\u2013"
    assert _cells(table, "Sampled")[:1] == ["Sampled responses (8 responses)"]
    assert _cells(table, "Sampled")[3:] == ["4.8", "0.010", "0.030", dash, "31.4", "7", "96"]
    assert _cells(table, "Majority")[6:] == ["100 / 19", "31.4", "7", "13"]
    text = " ".join(shown(table).split())
    assert "of Sampled responses (8 responses) sign-flip permutation test over problems" in text
    assert "so there is no verdict: Majority vote (8 responses)." in text
    assert "on 1,234 responses: Sampled responses (8 responses) 1,200, Majority vote (8 responses) 34." in text


def test_breakdown_holds_every_figure(report: Report) -> None:
    domains, levels = report.breakdowns
    assert _cells(breakdown_table(domains), "cup swaps") == [
        "cup swaps",
        "500",
        "89.8 %",
        "90.0 %",
        "+0.2 [\u22123.8,+4.2]",
        "10.0",
        "0.40",
        "0.80",
        "3 / 2",
        "0 / 1",
        "no evidence",
    ]
    assert _cells(breakdown_table(domains), "micro") == ["micro average", "63.2 %", "98.4 %", "+35.2 [+33.2,+37.2]"]
    assert _cells(breakdown_table(domains), "macro") == ["macro average", "63.2 %", "98.4 %", "+35.2"]
    assert _cells(breakdown_table(levels), "10")[5:6] == ["none"]
    assert "average" not in shown(breakdown_table(levels))
    assert "A   " in shown(breakdown_table(levels, "A", "B"))


def test_names_of_groups_are_not_markup() -> None:
    assert "[red]cups[/red]" in shown(breakdown_table(make_report(Names(domain="[red]cups[/red]")).breakdowns[0]))
