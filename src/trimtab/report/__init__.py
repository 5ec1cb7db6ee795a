"""The report: one data object, its JSON twin, one self-contained HTML file, a terminal table and a picture for a README."""

from trimtab.report.data import (
    CalibrationRow,
    CriterionRow,
    DoseRow,
    EstimateRow,
    Example,
    FlipsReport,
    GateReport,
    NeuronRow,
    NeuronsReport,
    Report,
    RunReport,
    ThresholdRow,
    TuneReport,
    TuneRow,
    read_report,
)
from trimtab.report.data_verdict import (
    BreakdownReport,
    UnscoredBounds,
    VerdictReport,
)
from trimtab.report.figure_svg import result_svg
from trimtab.report.html import render_html, write_report
from trimtab.report.tables import terminal_table
from trimtab.report.terminal import breakdown_table, verdict_line, verdict_table

__all__ = [
    "BreakdownReport",
    "CalibrationRow",
    "CriterionRow",
    "DoseRow",
    "EstimateRow",
    "Example",
    "FlipsReport",
    "GateReport",
    "NeuronRow",
    "NeuronsReport",
    "Report",
    "RunReport",
    "ThresholdRow",
    "TuneReport",
    "TuneRow",
    "UnscoredBounds",
    "VerdictReport",
    "breakdown_table",
    "read_report",
    "render_html",
    "result_svg",
    "terminal_table",
    "verdict_line",
    "verdict_table",
    "write_report",
]
