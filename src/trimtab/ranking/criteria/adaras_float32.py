"""AdaRAS's criterion as its released code computes it; for parity and import only."""

import numpy as np

from trimtab.ranking.contrast import ClassMoments, Statistic
from trimtab.ranking.criterion import Ranking, sort_neurons

NAME = "adaras-float32"
NEEDS: frozenset[Statistic] = frozenset()
DENOMINATOR_OFFSET = np.float32(1e-8)


def score(moments: ClassMoments, /) -> Ranking:
    """Order by ``r = |correct_mean - incorrect_mean| / (|correct_mean| + |incorrect_mean| + 1e-8)``, then by ``|correct_mean -
    incorrect_mean|``, all in float32.

    Below ``|correct_mean - incorrect_mean|`` of about 0.17 the offset moves r by one rounding step or more, so rounding decides
    the order among sign flips; :mod:`~trimtab.ranking.criteria.adaras` is the exact rule. Neurons without a difference in
    float32 are never selected.
    """
    correct_mean, incorrect_mean = moments.correct_mean.astype(np.float32), moments.incorrect_mean.astype(np.float32)
    size = np.abs(correct_mean - incorrect_mean)
    relative = size / (np.abs(correct_mean) + np.abs(incorrect_mean) + DENOMINATOR_OFFSET)
    return sort_neurons(size > 0, relative, size)
