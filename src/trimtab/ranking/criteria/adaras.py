"""AdaRAS's criterion (arXiv 2601.19847): sign flips between the classes first, large differences first among them."""

import numpy as np

from trimtab.ranking.contrast import ClassMoments, Statistic
from trimtab.ranking.criterion import Ranking, sort_neurons

NAME = "adaras"
NEEDS: frozenset[Statistic] = frozenset()


def score(moments: ClassMoments, /) -> Ranking:
    """Order by ``r = |correct_mean - incorrect_mean| / (|correct_mean| + |incorrect_mean|)``, then by ``|correct_mean -
    incorrect_mean|``, in float64 and without an epsilon.

    A sign flip gives r = 1 exactly, since ``|correct_mean - incorrect_mean|`` and ``|correct_mean| + |incorrect_mean|`` are then
    the same sum; so does an exact zero on one side. Neurons without a difference (r = 0, which includes 0/0) are never selected.
    """
    size = np.abs(moments.mean_difference)
    total = np.abs(moments.correct_mean) + np.abs(moments.incorrect_mean)
    differs = size > 0
    relative = np.divide(size, total, out=np.zeros_like(size), where=differs)
    return sort_neurons(differs, relative, size)
