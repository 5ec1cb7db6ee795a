"""The report: one data object, its JSON twin, one self-contained HTML file and a terminal table; and the pages of experiments."""

from trimtab.report.data import (
    CriterionRow,
    DoseRow,
    Example,
    FlipsReport,
    GateReport,
    NeuronRow,
    NeuronsReport,
    Report,
    RunReport,
    TuneReport,
    UnscoredBounds,
    VerdictReport,
    read_report,
)
from trimtab.report.html import FINDINGS, read_findings, render_findings, render_html, write_findings, write_report
from trimtab.report.tables import terminal_table
from trimtab.report.terminal import breakdown_table, verdict_table

__all__ = [
    "FINDINGS",
    "CriterionRow",
    "DoseRow",
    "Example",
    "FlipsReport",
    "GateReport",
    "NeuronRow",
    "NeuronsReport",
    "Report",
    "RunReport",
    "TuneReport",
    "UnscoredBounds",
    "VerdictReport",
    "breakdown_table",
    "read_findings",
    "read_report",
    "render_findings",
    "render_html",
    "terminal_table",
    "verdict_table",
    "write_findings",
    "write_report",
]
