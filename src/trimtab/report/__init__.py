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
    TuneReport,
    TuneRow,
    read_report,
)
from trimtab.report.data_verdict import (
    ArmRow,
    AverageRow,
    BreakdownReport,
    ComparisonRow,
    GroupRow,
    MeanRow,
    UnscoredBounds,
    VerdictReport,
)
from trimtab.report.figure_svg import result_svg
from trimtab.report.html import render_html, write_report
from trimtab.report.runs import run_tables
from trimtab.report.terminal import breakdown_table, verdict_line, verdict_table

__all__ = [
    "ArmRow",
    "AverageRow",
    "BreakdownReport",
    "CalibrationRow",
    "ComparisonRow",
    "CriterionRow",
    "DoseRow",
    "EstimateRow",
    "Example",
    "FlipsReport",
    "GateReport",
    "GroupRow",
    "MeanRow",
    "NeuronRow",
    "NeuronsReport",
    "Report",
    "RunReport",
    "TuneReport",
    "TuneRow",
    "UnscoredBounds",
    "VerdictReport",
    "breakdown_table",
    "read_report",
    "render_html",
    "result_svg",
    "run_tables",
    "verdict_line",
    "verdict_table",
    "write_report",
]
