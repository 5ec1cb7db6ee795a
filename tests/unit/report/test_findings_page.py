"""Tables, page and files of an experiment."""

import csv
import io
import json
from pathlib import Path

import pytest

from findings_sample import findings_sample
from trimtab.errors import StoreError
from trimtab.findings import Frame
from trimtab.report import FINDINGS, Report, read_findings, render_findings, terminal_table, write_findings
from trimtab.report.tables import cells_shown, columns_shown, frame_csv
from trimtab.report.wording import DASH, MINUS
from trimtab.store import write_json

HOSTILE = '</script><script>alert(1)</script><b onclick="x">&'


def test_an_interval_stands_beside_its_value() -> None:
    frame = findings_sample()["gains"]
    assert [column.heading for column in columns_shown(frame)] == ["what", "series", "n", "value", "p", "accuracy"]
    shown = cells_shown(frame, frame.rows[1])
    assert [cell.text for cell in shown] == ["ablated", "a", "1,200", f"{MINUS}12.5", "< 0.001", "53.5 %"]
    assert [cell.interval for cell in shown] == ["", "", "", f"[{MINUS}20.0, {MINUS}5.0]", "", "[50.0, 57.0]"]
    assert [cell.text for cell in cells_shown(frame, frame.rows[0])][3:] == [DASH, DASH, "66.0 %"]


def test_columns_that_only_repeat_are_left_out() -> None:
    assert [column.heading for column in columns_shown(findings_sample()["curves"])] == ["series", "K", "n", "accuracy"]
    assert [column.heading for column in columns_shown(findings_sample()["bars"])] == ["layer", "n", "neurons"]


def test_csv_keeps_every_column_and_digit() -> None:
    frame = findings_sample('a,"b"\nc')["gains"]
    header, first, second = csv.reader(io.StringIO(frame_csv(frame)))
    assert header[:8] == ["label", "n", "value", "low", "high", "p", "p_holm", "unit"]
    assert first[:4] == ["unsteered", "1200", "", ""]
    assert second[:6] == ['a,"b"\nc', "1200", "-0.125", "-0.2", "-0.05", "0.0004"]


def test_a_terminal_sees_the_same_cells() -> None:
    drawn = terminal_table(findings_sample("[red]x")["gains"])
    assert [str(column.header) for column in drawn.columns] == ["what", "series", "n", "value", "p", "accuracy"]
    assert [str(cell) for cell in drawn.columns[3].cells] == [DASH, f"{MINUS}12.5 [{MINUS}20.0, {MINUS}5.0]"]
    assert str(list(drawn.columns[0].cells)[1]) == "[red]x"


@pytest.mark.usefixtures("no_plotly_js")
def test_two_runs_write_the_same_bytes_and_the_json_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (write_findings(findings_sample(), tmp_path / name).parent for name in ("a", "b"))
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted([f"{frame.name}.csv" for frame in findings_sample().frames] + ["index.html", FINDINGS])
    assert [(first / name).read_bytes() for name in names] == [(second / name).read_bytes() for name in names]
    assert read_findings(first / FINDINGS).to_json() == findings_sample().to_json()

    def full(*args: object) -> None:
        raise StoreError("disk full")

    monkeypatch.setattr("trimtab.report.html.write_text", full)
    with pytest.raises(StoreError, match="disk full"):
        write_findings(findings_sample(), tmp_path / "other")
    assert not (tmp_path / "other" / FINDINGS).exists()


@pytest.mark.parametrize("change", [{"surprise": 1}, {"frames": [{"name": "f", "surprise": 1}]}, {"sentences": None}])
def test_findings_of_another_form_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / FINDINGS
    write_json(path, {**findings_sample().to_json(), **change})
    with pytest.raises(StoreError, match=r"findings\.json: not the findings of an experiment.*Run the experiment again"):
        read_findings(path)


@pytest.mark.usefixtures("no_plotly_js")
def test_hostile_labels_stay_text() -> None:
    page = render_findings(findings_sample(HOSTILE))
    assert "<script>alert" not in page
    assert "<b onclick" not in page
    data = page.split('id="data-sample-dots">')[1].split("</script>")[0]
    assert json.loads(data)["layout"]["yaxis"]["ticktext"][0].startswith("&lt;/script&gt;")


@pytest.mark.usefixtures("no_plotly_js")
def test_the_page_shows_sentences_figures_and_tables_and_loads_nothing() -> None:
    page = render_findings(findings_sample())
    assert "default-src 'none'" in page
    assert "<script src" not in page
    assert page.count('class="plot"') == 5
    assert page.count("<h3>") == 6
    assert "<li>It is ablated.</li>" in page


@pytest.mark.usefixtures("no_plotly_js")
def test_long_tables_are_folded_and_longer_ones_left_to_the_csv() -> None:
    found = findings_sample()
    for rows, mark in ((31, "<summary>Long: 31 rows</summary>"), (401, "Long: 401 rows, in long.csv.")):
        long = Frame("long", "Long", [{"label": str(i), "value": i, "unit": "count"} for i in range(rows)])
        page = render_findings(type(found)(found.name, "T", "Q", (), "test", (long,)))
        assert mark in page
        assert (">30</td>" in page) == (rows == 31)


def test_a_report_holds_the_frames(report: Report) -> None:
    whole = report.model_copy(update={"experiments": (findings_sample(),)})
    again = Report.model_validate_json(whole.model_dump_json())
    assert [findings.to_json() for findings in again.experiments] == [findings_sample().to_json()]
    with pytest.raises(ValueError, match="not the findings of an experiment"):
        Report.model_validate({**report.model_dump(), "experiments": [{"name": "x"}]})
