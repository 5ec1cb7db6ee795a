"""Which neurons tell correct from incorrect reasoning: contrast, criteria, and random controls."""

from trimtab.ranking.contrast import ClassMoments, LabelledMoments, class_moments
from trimtab.ranking.criteria import CRITERIA
from trimtab.ranking.criterion import Criterion, Ranking
from trimtab.ranking.random_sets import norm_matched, random_like
from trimtab.ranking.selection import rank

__all__ = [
    "CRITERIA",
    "ClassMoments",
    "Criterion",
    "LabelledMoments",
    "Ranking",
    "class_moments",
    "norm_matched",
    "random_like",
    "rank",
]
