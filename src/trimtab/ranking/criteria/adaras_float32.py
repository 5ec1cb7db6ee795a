"""AdaRAS's criterion as its released code computes it; for parity and import only."""

import numpy as np

from trimtab.ranking.contrast import ClassMoments, Statistic
from trimtab.ranking.criterion import Ranking, sort_neurons

NAME = "adaras-float32"
NEEDS: frozenset[Statistic] = frozenset()
DENOMINATOR_OFFSET = np.float32(1e-8)


def score(moments: ClassMoments, /) -> Ranking:
    """Order by ``r = |good - bad| / (|good| + |bad| + 1e-8)``, then by ``|good - bad|``, all in float32.

    Below ``|good - bad|`` of about 0.17 the offset moves r by one rounding step or more, so rounding decides the order among
    sign flips; :mod:`~trimtab.ranking.criteria.mean_difference_polarity` is the exact rule. Neurons without a difference in
    float32 are never selected.
    """
    good, bad = moments.good_mean.astype(np.float32), moments.bad_mean.astype(np.float32)
    size = np.abs(good - bad)
    relative = size / (np.abs(good) + np.abs(bad) + DENOMINATOR_OFFSET)
    return sort_neurons(size > 0, relative, size)
