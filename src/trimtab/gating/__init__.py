"""When to steer: fit a gate that predicts failure from the prompt, choose its threshold, and assess it.

``trimtab.gating.attention`` and ``trimtab.gating.reading`` need torch, so they are imported by name.
"""

from trimtab.gating.assess import assess, roc_points, youden
from trimtab.gating.features import FeatureRows, RecordedRows, columns
from trimtab.gating.probe import Penalty, fit_logistic
from trimtab.gating.text import TextBaseline, fit_text
from trimtab.stats.values import CalibrationBin, Estimate, GateAssessment

__all__ = [
    "CalibrationBin",
    "Estimate",
    "FeatureRows",
    "GateAssessment",
    "Penalty",
    "RecordedRows",
    "TextBaseline",
    "assess",
    "columns",
    "fit_logistic",
    "fit_text",
    "roc_points",
    "youden",
]
