"""A report and an experiment as HTML pages that load nothing from anywhere, and the files beside them."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from trimtab.errors import InputError, StoreError
from trimtab.findings import Findings, Frame
from trimtab.report import tables, wording
from trimtab.report.data import Report
from trimtab.store import AnyPath, read_json, write_json, write_text

if TYPE_CHECKING:
    import plotly.graph_objects as go

FINDINGS = "findings.json"
NARROW = ("roc", "calibration")
"""Figures that stand side by side."""
SHORT, LONG = 30, 400
"""A table with more rows than SHORT is folded; one with more than LONG is left to the files."""

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
    write_json(data_path, report.model_dump(mode="json"), report.run.config_digest)
    write_text(page_path, page)
    return data_path, page_path


def render_html(report: Report, view: str = "") -> str:
    """The page: verdict, caveats, conditions, figures, tables, examples.

    Args:
        report: what it shows.
        view: name of the view's file beside it; empty for none.

    All text of the report is escaped, and the page's content security policy forbids every request, so hostile text can neither
    run nor call home.

    Raises:
        InputError: plotly is not installed.
    """
    with needs_plotly():
        from trimtab.report.frames import frame_split, report_frames

        drawings = [_drawing(frame, frame.name, frame_split(report, frame.name)) for frame in report_frames(report)]
        experiments = {findings.name: _drawings(findings) for findings in report.experiments}
    every = [*drawings, *(drawing for group in experiments.values() for drawing in group)]
    lead, figures, rest = split_sentence(report)
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            view=view,
            lead=lead,
            figures=figures,
            rest=rest,
            base=wording.base_condition(report),
            labels={row.condition: wording.condition_label(report, row.condition) for row in report.conditions},
            spread=[
                (wording.condition_label(report, kind).partition(" (")[0], *numbers)
                for kind, *numbers in wording.random_spread(report)
            ],
            notes=wording.notes(report),
            has_claims=any(row.p_holm is not None for row in report.conditions),
            has_steps=any(row.steps_right is not None for row in report.conditions),
            has_gate=any(row.firing_rate is not None for row in report.conditions),
            drawings=drawings,
            experiment_drawings=experiments,
            page=page(every),
            model_facts=asdict(report.run.model).items(),
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


def write_findings(findings: Findings, folder: AnyPath) -> AnyPath:
    """Write ``NAME.csv`` for each frame, ``index.html``, and last ``findings.json``; the same findings give the same bytes.

    The JSON says that the experiment is done, so a killed one is run again.

    Raises:
        InputError: plotly is not installed; nothing is written.
        StoreError: the folder cannot be written.
    """
    page = render_findings(findings)
    for frame in findings.frames:
        write_text(folder / f"{frame.name}.csv", tables.frame_csv(frame))
    write_text(folder / "index.html", page)
    write_json(folder / FINDINGS, findings.to_json())
    return folder / FINDINGS


def read_findings(path: AnyPath) -> Findings:
    """Read ``findings.json``.

    Raises:
        StoreError: the file is missing, truncated, or holds something else.
    """
    try:
        return Findings.from_json(read_json(path))  # type: ignore[arg-type]  # which checks what it is given
    except InputError as cause:
        raise StoreError(f"{path}: {cause}. Was it edited, or written by another version? Run the experiment again") from cause


def render_findings(findings: Findings) -> str:
    """The page of one experiment: question, sentences, figures and tables.

    Raises:
        InputError: plotly is not installed.
    """
    with needs_plotly():
        drawings = _drawings(findings)
    template = environment().get_template("findings.html.j2")
    return template.render(findings=findings, drawings=drawings, page=page(drawings))


class Drawing(NamedTuple):
    """A figure of a page: its name there, and one sentence that says what to read from it."""

    name: str
    reading: str
    figure: "go.Figure"
    narrow: bool


def _drawings(findings: Findings) -> list[Drawing]:
    """Names begin with the experiment's, so that one page can hold several; a frame without a value is a table alone."""
    return [
        _drawing(frame, f"{findings.name}-{frame.name}", findings.split)
        for frame in findings.frames
        if frame.plot and any(row["value"] is not None for row in frame.rows)
    ]


def _drawing(frame: Frame, name: str, split: str) -> Drawing:
    from trimtab.report.plots import draw

    return Drawing(name, frame.reading, draw(frame, split), narrow=frame.name in NARROW)


class Page(NamedTuple):
    """What the script of a page needs: every figure's name and JSON, plotly's own script, its settings and dark colours."""

    plots: list[tuple[str, Markup]]
    plotly_js: Markup
    config: dict[str, object]
    dark: dict[str, str]


def page(drawings: Sequence[Drawing]) -> Page:
    """The figures of a page, as JSON that is safe within a script element.

    Raises:
        InputError: plotly is not installed.
    """
    with needs_plotly():
        from plotly.offline import get_plotlyjs

        from trimtab.report.look import DARK
    return Page([(drawing.name, plot_json(drawing.figure)) for drawing in drawings], Markup(get_plotlyjs()), CONFIG, DARK)


def plot_json(drawn: "go.Figure") -> Markup:
    """A figure as JSON that is safe within a script element."""
    figure = json.loads(str(drawn.to_json()))
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
            "the HTML report draws with plotly, which is not installed; run: pip install 'trimtab[report]'", code="no-plotly"
        ) from cause


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
        short=SHORT,
        long=LONG,
    )
    return made
