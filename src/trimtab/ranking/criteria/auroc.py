"""How well one neuron's trace mean tells correct from incorrect traces of the same problem."""

import numpy as np

from trimtab.errors import NotEnoughDataError
from trimtab.ranking.contrast import ClassMoments, Statistic
from trimtab.ranking.criterion import Ranking, needed, sort_neurons

NAME = "auroc"
NEEDS: frozenset[Statistic] = frozenset(("auroc",))


def score(moments: ClassMoments, /) -> Ranking:
    """Order by ``|AUROC - 0.5|``, then by ``|correct_mean - incorrect_mean|``; neurons at 0.5 are never selected.

    The AUROC is taken within each problem, over its (correct, incorrect) pairs with ties one half, and averaged over problems. It
    knows ranks only, so few pairs give many ties, which the size of the difference decides.

    Raises:
        InputError: the class moments were computed without the statistic ``auroc``.
        NotEnoughDataError: no problem has both verdicts.
    """
    auroc = needed(moments.auroc, "auroc", NAME)
    if not moments.n_problems:
        raise NotEnoughDataError(
            f"criterion {NAME!r} compares traces of one problem, and no problem has correct and incorrect ones; "
            "sample more responses per problem, or use 'mean-difference'"
        )
    distance = np.abs(auroc - 0.5)
    return sort_neurons(moments.comparable & (distance > 0), distance, np.abs(moments.mean_difference))
