"""Frames as tables that a reader sees: an interval stands in brackets beside its value, on a page, in a terminal and in Markdown.

A column ``X_low, X_high`` is the interval of ``X``. Columns named ``accuracy``, ``share`` or ``rate`` hold fractions and are
shown in per cent; a column of bools marks rows where it is called ``chosen``.
"""

import csv
import io
import re
from collections.abc import Mapping
from typing import NamedTuple

from rich.table import Table as TerminalTable
from rich.text import Text

from trimtab.findings import Cell, Frame
from trimtab.report.wording import DASH, cell, count, p_value, significant

_LEAD = ("label", "row", "column", "series", "x", "n", "value", "p", "p_holm")
_SHARE = re.compile(r"(^|_)(accuracy|share|rate|always|unsteered)$")


class Column(NamedTuple):
    """A column that is shown: its key in the rows, its heading, and whether it is words rather than numbers."""

    key: str
    heading: str
    is_text: bool


class Shown(NamedTuple):
    """A cell: its text, its interval or nothing, and whether it is words."""

    text: str
    interval: str
    is_text: bool


def columns_shown(frame: Frame) -> list[Column]:
    """The columns that say something, those that every frame has first; bounds stand beside what they bound."""
    bounds = {"low", "high"} | {f"{key}_{end}" for key in frame.columns for end in ("low", "high")}
    keys = [
        key for key in frame.columns if key not in bounds | {"unit", "chosen"} and any(row[key] is not None for row in frame.rows)
    ]
    for twin in ("series", "row", "column"):
        # a label that only repeats the column beside it
        if twin in keys and "label" in keys and all(row["label"] == row[twin] for row in frame.rows):
            keys.remove("label")
    if "series" in keys and len({row["series"] for row in frame.rows}) == 1 and len(keys) > 1:
        keys.remove("series")
    keys.sort(key=lambda key: _LEAD.index(key) if key in _LEAD else len(_LEAD))
    return [Column(key, _heading(frame, key), all(isinstance(row[key], str | None) for row in frame.rows)) for key in keys]


def cells_shown(frame: Frame, row: Mapping[str, Cell]) -> list[Shown]:
    """The cells of a row, one for each of :func:`columns_shown`."""
    return [_cell(row, column) for column in columns_shown(frame)]


def terminal_table(frame: Frame) -> TerminalTable:
    """The table for a terminal; chosen rows are bold."""
    # Text, because a name from a file may hold what rich would read as markup
    drawn = TerminalTable(title=Text(frame.title), title_justify="left", caption=Text(frame.note), caption_justify="left")
    for column in columns_shown(frame):
        drawn.add_column(Text(column.heading), justify="left" if column.is_text else "right")
    for row in frame.rows:
        texts = [Text(f"{shown.text} {shown.interval}".rstrip()) for shown in cells_shown(frame, row)]
        drawn.add_row(*texts, style="bold" if row.get("chosen") else None)
    return drawn


def frame_csv(frame: Frame) -> str:
    """All columns as CSV with a header; shares and gains stay fractions, what has no value is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, frame.columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(frame.rows)
    return text.getvalue()


def _heading(frame: Frame, key: str) -> str:
    across = {"x": frame.x_label, "row": frame.y_label, "column": frame.x_label}
    value = frame.x_label if frame.plot == "dots" else frame.y_label if frame.plot in ("curves", "bars") else ""
    known = {**across, "value": value, "p_holm": "p (Holm)", "label": "what"}
    return known.get(key) or key.replace("_", " ")


def _cell(row: Mapping[str, Cell], column: Column) -> Shown:
    key, value = column.key, row[column.key]
    low, high = (row.get(end if key == "value" else f"{key}_{end}") for end in ("low", "high"))
    text = _text(row, key, value)
    if value is None or low is None or high is None:
        return Shown(text, "", column.is_text)
    interval = f"[{_text(row, key, low).removesuffix(' %')}, {_text(row, key, high).removesuffix(' %')}]"
    return Shown(text, interval, column.is_text)


def _text(row: Mapping[str, Cell], key: str, value: Cell) -> str:
    if value is None or isinstance(value, str):
        return value or DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key == "value":
        return cell(value, row["unit"] or "number")  # type: ignore[arg-type]  # Frame has checked it
    if key in ("p", "p_holm"):
        return p_value(value)
    if _SHARE.search(key):
        return cell(value, "share")
    return count(value) if isinstance(value, int) else f"{value:g}" if key == "x" else significant(value)
