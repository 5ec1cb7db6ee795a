"""Tables of experiments as a reader sees them: an interval stands in brackets beside its value."""

import csv
import io
from typing import NamedTuple

from rich.table import Table as TerminalTable

from trimtab.report.wording import cell
from trimtab.results import Cell, Column, Table


class Shown(NamedTuple):
    """A cell: its text, its interval or nothing, and whether it is words rather than a number."""

    text: str
    interval: str
    is_text: bool


def columns_shown(table: Table) -> list[Column]:
    """The columns without those of bounds."""
    return [column for column in table.columns if column.bound is None]


def cells_shown(table: Table, row: tuple[Cell, ...]) -> list[Shown]:
    """The cells of a row, one for each of :func:`columns_shown`."""
    shown: list[Shown] = []
    for column, value in zip(table.columns, row, strict=True):
        text = cell(value, column.unit)
        if column.bound is None:
            shown.append(Shown(text, "", column.unit == "text"))
        elif value is not None:
            last = shown[-1]
            bare = text.removesuffix(" %")
            shown[-1] = last._replace(interval=f"[{bare}" if column.bound == "low" else f"{last.interval}, {bare}]")
    return shown


def terminal_table(table: Table) -> TerminalTable:
    """The table for a terminal."""
    drawn = TerminalTable(title=table.title, title_justify="left", caption=table.note or None, caption_justify="left")
    for column in columns_shown(table):
        drawn.add_column(column.name, justify="left" if column.unit == "text" else "right")
    for i, row in enumerate(table.rows):
        texts = [f"{shown.text} {shown.interval}".rstrip() for shown in cells_shown(table, row)]
        drawn.add_row(*texts, style="bold" if i == table.highlight else None)
    return drawn


def table_csv(table: Table) -> str:
    """All columns as CSV with a header; shares and gains stay fractions, what has no value is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.name for column in table.columns])
    writer.writerows(table.rows)
    return text.getvalue()
