"""Student's paired t over problems, which cancels what differs between problems and not between their verdicts."""

import numpy as np

from trimtab.errors import NotEnoughDataError
from trimtab.ranking.contrast import ClassMoments, Statistic
from trimtab.ranking.criterion import Ranking, needed, sort_neurons

NAME = "paired-t"
NEEDS: frozenset[Statistic] = frozenset(("difference",))


def score(moments: ClassMoments, /) -> Ranking:
    """Order by ``|t| = |mean| / sqrt(variance / n)`` of the within-problem differences, then by ``|mean|``.

    A difference that is the same in every problem (variance exactly 0) has t = infinity and comes first; a mean of exactly 0 has
    t = 0, also with variance 0, and is never selected. In a mixture of experts n is a neuron's own, and it needs two as well.

    Raises:
        InputError: the class moments were computed without the statistic ``difference``.
        NotEnoughDataError: fewer than two problems have both verdicts.
    """
    mean = needed(moments.difference_mean, "difference", NAME)
    variance = needed(moments.difference_variance, "difference", NAME)
    if moments.n_problems < 2:
        raise NotEnoughDataError(
            f"criterion {NAME!r} needs two or more problems with correct and incorrect traces, got {moments.n_problems}; "
            "sample more responses per problem, or use 'mean-difference'"
        )
    own = None if moments.counts is None else moments.counts.problems
    n = np.full(mean.shape, moments.n_problems) if own is None else own
    size = np.abs(mean)
    standard_error = np.sqrt(variance / np.maximum(n, 1))
    t = np.divide(size, standard_error, out=np.full_like(size, np.inf), where=standard_error > 0)
    return sort_neurons((n > 1) & (size > 0), t, size)
