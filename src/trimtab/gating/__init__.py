"""When to steer: fit a gate that predicts failure from the prompt, choose its threshold, and assess it.

``trimtab.gating.attention`` and ``trimtab.gating.reading`` need torch, so they are imported by name.
"""

from trimtab.gating.assess import assess, roc_points
from trimtab.gating.cross_validation import Penalty
from trimtab.gating.feature_rows import FeatureRows, RecordedRows, columns
from trimtab.gating.features import choose_features, f_scores
from trimtab.gating.logistic import fit_logistic
from trimtab.gating.text_baseline import TextBaseline, fit_text
from trimtab.gating.threshold import youden
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
    "choose_features",
    "columns",
    "f_scores",
    "fit_logistic",
    "fit_text",
    "roc_points",
    "youden",
]
