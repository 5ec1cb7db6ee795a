"""The report: one data object, its JSON twin, one self-contained HTML file, a terminal table and a picture for a README."""

from trimtab.report.data import (
    ArmRow,
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
    TuneReport,
    TuneRow,
    UnscoredBounds,
    VerdictReport,
    read_report,
)
from trimtab.report.figure_svg import result_svg
from trimtab.report.html import render_html, write_report
from trimtab.report.terminal import verdict_line, verdict_table

__all__ = [
    "ArmRow",
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
    "TuneReport",
    "TuneRow",
    "UnscoredBounds",
    "VerdictReport",
    "read_report",
    "render_html",
    "result_svg",
    "verdict_line",
    "verdict_table",
    "write_report",
]
