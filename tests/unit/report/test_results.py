"""Tables, figures and files of an experiment."""

import csv
import io
import json
import logging
from pathlib import Path

import pytest
from pydantic import ValidationError
from result_sample import result_sample

from trimtab.errors import StoreError
from trimtab.report import RESULT, read_result, render_result, terminal_table, write_result
from trimtab.report.figures_results import draw_results
from trimtab.report.tables import cells_shown, columns_shown, table_csv
from trimtab.report.wording import DASH, MINUS
from trimtab.results import Column, Table

HOSTILE = '</script><script>alert(1)</script><b onclick="x">&'


def test_an_interval_stands_beside_its_value() -> None:
    table = result_sample().tables[0]
    assert [column.name for column in columns_shown(table)] == ["what", "n", "gain", "p"]
    shown = cells_shown(table, table.rows[1])
    assert [cell.text for cell in shown] == ["suppressed", "1,200", f"{MINUS}12.5", "< 0.001"]
    assert [cell.interval for cell in shown] == ["", "", f"[{MINUS}20.0, {MINUS}5.0]", ""]
    assert [cell.text for cell in cells_shown(table, table.rows[0])] == ["unsteered", "1,200", DASH, DASH]


def test_csv_keeps_every_column_and_digit() -> None:
    table = result_sample('a,"b"\nc').tables[0]
    header, first, second = csv.reader(io.StringIO(table_csv(table)))
    assert header == ["what", "n", "gain", "gain low", "gain high", "p"]
    assert first == ["unsteered", "1200", "", "", "", ""]
    assert second == ['a,"b"\nc', "1200", "-0.125", "-0.2", "-0.05", "0.0004"]


def test_a_terminal_sees_the_same_cells() -> None:
    drawn = terminal_table(result_sample().tables[0])
    assert [column.header for column in drawn.columns] == ["what", "n", "gain", "p"]
    assert list(drawn.columns[2].cells) == [DASH, f"{MINUS}12.5 [{MINUS}20.0, {MINUS}5.0]"]


def test_a_row_with_a_cell_too_few_is_refused() -> None:
    with pytest.raises(ValidationError, match="row 1 has 1 cells for 2 columns"):
        Table(name="t", title="T", columns=(Column(name="a"), Column(name="b")), rows=(("x", 1), ("y",)))


def test_nan_is_no_value() -> None:
    with pytest.raises(ValidationError, match="finite"):
        Table(name="t", title="T", columns=(Column(name="a", unit="number"),), rows=((float("nan"),),))


def test_every_figure_says_n_and_split_and_its_axes() -> None:
    drawings = draw_results(result_sample())
    assert [drawing.name for drawing in drawings] == ["sample-dots", "sample-curves", "sample-matrix", "sample-bars"]
    for drawing in drawings:
        layout = drawing.figure.layout
        assert layout.title.subtitle.text.startswith("n = 1,200 problems, test split")
        assert layout.xaxis.title.text


def test_dots_are_drawn_in_points_with_their_intervals_and_rings() -> None:
    figure = draw_results(result_sample())[0].figure
    mark, rings, other = figure.data
    assert mark.x == (-12.5,)
    assert mark.error_x.array == pytest.approx((7.5,))
    assert mark.error_x.arrayminus == pytest.approx((7.5,))
    assert rings.x == pytest.approx((-10.0, 2.0))
    assert other.x == (0.0,)
    assert other.error_x.array is None


def test_curves_have_bands_and_matrices_leave_holes() -> None:
    _, curves, matrix, _ = (drawing.figure for drawing in draw_results(result_sample()))
    band, line, *_ = curves.data
    assert line.y == pytest.approx((1, 10, 50))
    assert band.y == pytest.approx((2, 11, 51, 49, 9, 0))
    assert curves.layout.xaxis.type == "log"
    assert curves.layout.xaxis.tickvals == pytest.approx((1, 2, 5, 10, 20, 50))
    assert [note.x for note in curves.layout.annotations if note.text.strip() == "chosen"] == [1.0], "the logarithm of 10"
    assert matrix.data[0].z[0][1] is None
    assert (matrix.data[0].zmin, matrix.data[0].zmax) == (-10, 10)


def test_files_come_back_and_the_json_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = result_sample()
    written: list[str] = []
    monkeypatch.setattr("trimtab.report.result_files.write_pictures", lambda drawings, folder: written.append("pictures"))
    path = write_result(result, tmp_path / "sample")
    assert path == tmp_path / "sample" / RESULT
    assert read_result(path) == result
    assert sorted(file.name for file in path.parent.iterdir()) == ["gains.csv", "index.html", RESULT]
    assert written == ["pictures"]

    def full(*args: object) -> None:
        raise StoreError("disk full")

    monkeypatch.setattr("trimtab.report.result_files.write_pictures", full)
    with pytest.raises(StoreError, match="disk full"):
        write_result(result, tmp_path / "other")
    assert not (tmp_path / "other" / RESULT).exists()


def test_hostile_labels_stay_text() -> None:
    page = render_result(result_sample(HOSTILE), draw_results(result_sample(HOSTILE)))
    assert "<script>alert" not in page
    assert "<b onclick" not in page
    data = page.split('id="data-sample-dots">')[1].split("</script>")[0]
    assert json.loads(data)["layout"]["yaxis"]["ticktext"][0].startswith("&lt;/script&gt;")


def test_the_page_loads_nothing() -> None:
    page = render_result(result_sample(), draw_results(result_sample()))
    assert "default-src 'none'" in page
    assert "<script src" not in page


def test_without_a_browser_there_are_no_pictures_and_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import kaleido
    from choreographer.browsers.chromium import ChromeNotFoundError

    from trimtab.report.pictures import write_pictures

    def missing(*args: object, **options: object) -> None:
        raise ChromeNotFoundError

    monkeypatch.setattr(kaleido, "write_fig_from_object_sync", missing)
    with caplog.at_level(logging.INFO):
        assert not write_pictures(draw_results(result_sample()), tmp_path)
    assert "no Chrome" in caplog.text
    assert not list(tmp_path.iterdir())
