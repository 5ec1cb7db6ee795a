"""The report as one HTML file that loads nothing from anywhere, and its JSON twin."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from trimtab.errors import InputError
from trimtab.report import notes, tables, wording
from trimtab.report.data import Report
from trimtab.store import AnyPath, write_json, write_text

if TYPE_CHECKING:
    from trimtab.report.theme import Drawing

# one button, to save a figure; drag zooms and a double click goes back
CONFIG = {"responsive": True, "displaylogo": False, "modeBarButtons": [["toImage"]]}


def write_report(report: Report, folder: AnyPath) -> tuple[AnyPath, AnyPath]:
    """Write ``report.json`` and ``report.html``, each whole or not at all; the same report gives the same bytes.

    Returns:
        The paths of the JSON and of the HTML.

    Raises:
        InputError: plotly is not installed; nothing is written.
        StoreError: the folder cannot be written.
    """
    page = render_html(report)
    data_path, page_path = folder / "report.json", folder / "report.html"
    write_json(data_path, report.model_dump(mode="json"))
    write_text(page_path, page)
    return data_path, page_path


def render_html(report: Report) -> str:
    """The page: verdict, caveats, conditions, figures, tables, examples.

    All text of the report is escaped, and the page's content security policy forbids every request, so hostile text can neither
    run nor call home.

    Raises:
        InputError: plotly is not installed.
    """
    drawings = _draw(report)
    lead, figures, rest = split_sentence(report)
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            lead=lead,
            figures=figures,
            rest=rest,
            base=wording.base_condition(report),
            labels={row.condition: wording.condition_label(report, row.condition) for row in report.conditions},
            spread=[
                (wording.condition_label(report, kind).partition(" (")[0], *numbers)
                for kind, *numbers in wording.random_spread(report)
            ],
            notes=notes.notes(report),
            has_claims=any(row.p_holm is not None for row in report.conditions),
            has_steps=any(row.steps_right is not None for row in report.conditions),
            has_gate=any(row.firing_rate is not None for row in report.conditions),
            drawings=drawings,
            page=page(drawings),
            seconds=sorted(report.run.seconds.items(), key=lambda item: (-item[1], item[0])),
        )
    )


def split_sentence(report: Report) -> tuple[str, str, str]:
    """The verdict's sentence in three sizes of type: its word, the figures, and what follows.

    Example:
        ``"Helps: accuracy went from ... With n = ..."`` gives ``("Helps", "accuracy went from ...", "With n = ...")``.
    """
    word = report.verdict.word.capitalize()
    first, stop, rest = report.verdict.sentence.partition(". ")
    return word, first.removeprefix(f"{word}: ") + stop.rstrip(), rest


class Page(NamedTuple):
    """What the script of a page needs: every figure's name and JSON, plotly's own script, and its settings."""

    plots: list[tuple[str, Markup]]
    plotly_js: Markup
    config: dict[str, object]


def page(drawings: "Sequence[Drawing]") -> Page:
    """The figures of a page, as JSON that is safe within a script element.

    Raises:
        InputError: plotly is not installed.
    """
    with needs_plotly():
        from plotly.offline import get_plotlyjs
    return Page([(drawing.name, plot_json(drawing)) for drawing in drawings], Markup(get_plotlyjs()), CONFIG)


def plot_json(drawing: "Drawing") -> Markup:
    """A figure as JSON that is safe within a script element."""
    figure = json.loads(str(drawing.figure.to_json()))
    text = json.dumps({"data": figure["data"], "layout": figure["layout"]}, separators=(",", ":"), sort_keys=True)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


@contextmanager
def needs_plotly() -> Iterator[None]:
    """Turns a missing plotly into one clear error; what needs no figure works without it."""
    try:
        yield
    except ModuleNotFoundError as cause:
        if (cause.name or "").partition(".")[0] != "plotly":
            raise
        raise InputError(
            "the HTML report draws with plotly, which is not installed; run: pip install 'trimtab[report]'"
        ) from cause


def _draw(report: Report) -> "list[Drawing]":
    with needs_plotly():
        from trimtab.report.figures import draw

        # plotly imports its parts when they are used, so the drawing is under the guard too
        return draw(report)


def environment() -> Environment:
    """Templates with the words and units of every page; all text is escaped, and a missing value is an error."""
    made = Environment(
        loader=PackageLoader("trimtab.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters.update(
        percent=wording.percent,
        points=wording.points,
        p_value=wording.p_value,
        count=wording.count,
        significant=wording.significant,
        duration=wording.duration,
        tight=wording.tight,
        detectable=wording.detectable,
        fixed_broken=wording.fixed_broken,
    )
    made.globals.update(
        percent_interval=wording.percent_interval,
        points_interval=wording.points_interval,
        is_random=wording.is_random,
        ordered_groups=wording.ordered_groups,
        flip_counts=wording.flip_counts,
        columns_shown=tables.columns_shown,
        cells_shown=tables.cells_shown,
        dash=wording.DASH,
    )
    return made
