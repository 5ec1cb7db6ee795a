"""The most active neurons in correct reasoning, whatever they do in incorrect reasoning: a baseline."""

from trimtab.ranking.contrast import ClassMoments, Statistic
from trimtab.ranking.criterion import Ranking, needed, sort_neurons

NAME = "top-activation"
NEEDS: frozenset[Statistic] = frozenset(("magnitude",))


def score(moments: ClassMoments, /) -> Ranking:
    """Order by the mean magnitude over correct traces; neurons that are 0 on all of them are never selected.

    Raises:
        InputError: magnitudes were not recorded.
    """
    magnitude = needed(moments.correct_magnitude, "magnitude", NAME)
    return sort_neurons(moments.comparable & (magnitude > 0), magnitude)
