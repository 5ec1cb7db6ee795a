"""Every figure of a report, in reading order. Needs plotly: ``pip install 'trimtab[report]'``."""

from trimtab.report.data import Report
from trimtab.report.figures_method import calibration_figure, dose_figure, layer_figure, roc_figure, tune_figure
from trimtab.report.figures_threshold import threshold_figure
from trimtab.report.figures_verdict import accuracy_figure, flip_figure, flip_figures, gain_figure
from trimtab.report.theme import Drawing

__all__ = [
    "Drawing",
    "accuracy_figure",
    "calibration_figure",
    "dose_figure",
    "draw",
    "flip_figure",
    "flip_figures",
    "gain_figure",
    "layer_figure",
    "roc_figure",
    "threshold_figure",
    "tune_figure",
]


def draw(report: Report) -> list[Drawing]:
    """The figures that this report has data for."""
    drawings = [accuracy_figure(report), gain_figure(report), *flip_figures(report)]
    if report.gate is not None:
        drawings += [roc_figure(report.gate), calibration_figure(report.gate)]
        if report.gate.thresholds:
            drawings.append(threshold_figure(report.gate))
    drawings.append(layer_figure(report))
    if report.tune is not None:
        drawings.append(tune_figure(report.tune))
        if report.tune.dose:
            drawings.append(dose_figure(report, report.tune))
    return drawings
