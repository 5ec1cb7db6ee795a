"""The size of the mean difference alone: AdaRAS's ablation "without polarity selection"."""

import numpy as np

from trimtab.ranking.contrast import ClassMoments, Statistic
from trimtab.ranking.criterion import Ranking, sort_neurons

NAME = "mean-difference"
NEEDS: frozenset[Statistic] = frozenset()


def score(moments: ClassMoments, /) -> Ranking:
    """Order by ``|correct_mean - incorrect_mean|``; neurons without a difference are never selected."""
    size = np.abs(moments.mean_difference)
    return sort_neurons(size > 0, size)
