"""Neuron-level MathNeuro (arXiv 2410.16930): active in correct reasoning and not in incorrect reasoning."""

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError
from trimtab.ranking.contrast import ClassMoments, Statistic
from trimtab.ranking.criterion import Ranking, needed, sort_neurons
from trimtab.ranking.shares import top_share

NAME = "mathneuro"
NEEDS: frozenset[Statistic] = frozenset(("magnitude",))


def score(moments: ClassMoments, /, *, share: float = 0.05) -> Ranking:
    """Order by the mean magnitude over correct traces, among the neurons of its top share that are not in that of incorrect ones.

    MathNeuro removes from the weights that matter most for one task those that matter most for another. The baseline of neuron
    activation differential analysis does the same to neurons, with correct and incorrect reasoning as the tasks. Few neurons
    leave the top between two classes of like traces, so a small share may leave fewer than K; see :func:`share_for`.

    Args:
        moments: with magnitudes.
        share: of all neurons of the model, in each class; 5 % by default, a choice of ours.

    Raises:
        InputError: a share outside (0, 1], or magnitudes were not recorded.
    """
    correct_mean = needed(moments.correct_magnitude, "magnitude", NAME)
    incorrect_mean = needed(moments.incorrect_magnitude, "magnitude", NAME)
    active = top_share(moments.comparable & (correct_mean > 0), correct_mean, share)
    also_active = top_share(moments.comparable & (incorrect_mean > 0), incorrect_mean, share)
    return sort_neurons(
        active & ~also_active, correct_mean, facts={"top_share": share, "in_both_tops": int((active & also_active).sum())}
    )


def _places(eligible: NDArray[np.bool_], value: NDArray[np.float64]) -> NDArray[np.int64]:
    """Each neuron's place by value, from 0; the number of neurons for those that have none."""
    ranking = sort_neurons(eligible, value)
    places = np.full(value.size, value.size)
    places[ranking.order] = np.arange(len(ranking.order))
    return places


def share_for(moments: ClassMoments, k: int) -> float:
    """The smallest share that leaves k neurons or more, for a comparison at equal counts.

    Raises:
        InputError: no share does, or magnitudes were not recorded.
    """
    correct_mean = needed(moments.correct_magnitude, "magnitude", NAME)
    incorrect_mean = needed(moments.incorrect_magnitude, "magnitude", NAME)
    # a neuron is left by the tops of n neurons where place_good < n <= place_bad
    place_good, place_bad = (_places(moments.comparable & (value > 0), value) for value in (correct_mean, incorrect_mean))
    enters = place_good < place_bad
    come, go = (np.bincount(place[enters] + 1, minlength=correct_mean.size + 2) for place in (place_good, place_bad))
    left = np.cumsum(come - go)[: correct_mean.size + 1]
    if left.max() < k:
        raise InputError(f"criterion {NAME!r} leaves at most {left.max()} neurons at any share, not {k}; give a smaller k")
    return int(np.argmax(left >= k)) / correct_mean.size
