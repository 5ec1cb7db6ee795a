"""Which neurons tell correct from incorrect reasoning: contrast, criteria, and random controls."""

from trimtab.ranking import cett  # noqa: F401  # registers the criterion
from trimtab.ranking.contrast import DEFAULT_STATISTICS, ClassMoments, NeuronCounts, Statistic
from trimtab.ranking.criteria import CRITERIA, NEEDS, Criterion, Ranking, column_norms, criterion, reaching, sort_neurons
from trimtab.ranking.random_sets import norm_matched, random_like
from trimtab.ranking.resample import Choice, TraceMeans
from trimtab.ranking.select import rank
from trimtab.ranking.streamed import LabelledMoments, class_moments, labelled, recorded_class_moments

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
    "criterion",
    "labelled",
    "norm_matched",
    "random_like",
    "rank",
    "reaching",
    "recorded_class_moments",
    "sort_neurons",
]
