"""Which neurons tell correct from incorrect reasoning: contrast, criteria, and random controls."""

from trimtab.ranking.contrast import DEFAULT_STATISTICS, ClassMoments, NeuronCounts, Statistic
from trimtab.ranking.criteria import CRITERIA, NEEDS
from trimtab.ranking.criteria.wanda import column_norms
from trimtab.ranking.criterion import Criterion, Ranking, reaching, sort_neurons
from trimtab.ranking.random_sets import norm_matched, random_like
from trimtab.ranking.resampling import Choice
from trimtab.ranking.selection import rank
from trimtab.ranking.streamed import LabelledMoments, class_moments, labelled, recorded_class_moments
from trimtab.ranking.trace_means import TraceMeans

__all__ = [
    "CRITERIA",
    "DEFAULT_STATISTICS",
    "NEEDS",
    "Choice",
    "ClassMoments",
    "Criterion",
    "LabelledMoments",
    "NeuronCounts",
    "Ranking",
    "Statistic",
    "TraceMeans",
    "class_moments",
    "column_norms",
    "labelled",
    "norm_matched",
    "random_like",
    "rank",
    "reaching",
    "recorded_class_moments",
    "sort_neurons",
]
