"""Student's paired t over problems, which cancels what differs between problems and not between their verdicts."""

import numpy as np

from trimtab.errors import NotEnoughDataError
from trimtab.ranking.contrast import ClassMoments
from trimtab.ranking.criterion import Ranking, sort_neurons

NAME = "paired-t"


def score(moments: ClassMoments) -> Ranking:
    """Order by ``|t| = |mean| / sqrt(variance / n)`` of the within-problem differences, then by ``|mean|``.

    A difference that is the same in every problem (variance exactly 0) has t = infinity and comes first; a mean of exactly 0 has
    t = 0, also with variance 0, and is never selected.

    Raises:
        NotEnoughDataError: fewer than two problems have both verdicts.
    """
    if moments.n_problems < 2:
        raise NotEnoughDataError(
            f"criterion {NAME!r} needs two or more problems with correct and incorrect traces, got {moments.n_problems}; "
            "sample more chains per problem, or use 'mean-difference'"
        )
    size = np.abs(moments.difference_mean)
    standard_error = np.sqrt(moments.difference_variance / moments.n_problems)
    t = np.divide(size, standard_error, out=np.full_like(size, np.inf), where=standard_error > 0)
    return sort_neurons(size > 0, t, size)
