"""The files of one experiment: JSON, a CSV per table, a page with all figures, and a picture per figure."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trimtab.report.html import environment, needs_plotly, page
from trimtab.report.pictures import write_pictures
from trimtab.report.tables import table_csv
from trimtab.results import Result
from trimtab.store import AnyPath, read_record, write_json, write_text

if TYPE_CHECKING:
    from trimtab.report.theme import Drawing

RESULT = "result.json"


def write_result(result: Result, folder: AnyPath) -> AnyPath:
    """Write ``NAME.csv`` per table, ``index.html``, ``NAME.svg`` per figure where a browser is found, at last ``result.json``.

    The JSON says that the experiment is done, so a killed one is run again.

    Raises:
        InputError: plotly is not installed; nothing is written.
        StoreError: the folder cannot be written.
    """
    with needs_plotly():
        from trimtab.report.figures_results import draw_results

        drawings = draw_results(result)
    for table in result.tables:
        write_text(folder / f"{table.name}.csv", table_csv(table))
    write_text(folder / "index.html", render_result(result, drawings))
    write_pictures(drawings, folder)
    write_json(folder / RESULT, result.model_dump(mode="json"))
    return folder / RESULT


def read_result(path: AnyPath) -> Result:
    """Read ``result.json``.

    Raises:
        StoreError: the file is missing, truncated, or has a key that is unknown, missing or of the wrong type; each is named.
    """
    return read_record(path, Result)


def render_result(result: Result, drawings: "Sequence[Drawing]") -> str:
    """One page that loads nothing from anywhere."""
    template = environment().get_template("result.html.j2")
    return template.render(result=result, drawings=drawings, page=page(drawings))
