"""Where a gate fires."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trimtab.stats.auroc import check_cases, check_probabilities


def youden(failed: ArrayLike, probability: ArrayLike) -> float:
    """The threshold t with the largest ``TPR - FPR`` of "fires when p >= t" (Youden's index), chosen on the `validation` split.

    t lies halfway between two neighbouring values of p, so that the rounding of an engine does not decide a problem,
    and strictly between 0 and 1. Ties go to the lowest cost, that is to the highest t, which steers the fewest problems. So a
    probability that tells nothing gets a threshold that no problem of `validation` reaches.

    Args:
        failed: bool ``[problem]``.
        probability: p(fail) ``[problem]``.

    Raises:
        InputError: lengths differ or a probability is NaN or outside [0, 1].
        NotEnoughDataError: no failed or no solved problem.

    Example:
        >>> youden([False, False, True, True], [0.1, 0.2, 0.6, 0.8])
        0.4
    """
    failed, probability = check_cases(failed, probability)
    check_probabilities(probability)
    values = np.unique(np.concatenate([[0.0], probability, [1.0]]))
    middles = (values[1:] + values[:-1]) / 2
    # two neighbouring floats have no number between them; then the upper one, which fires itself, is the cut
    cuts = np.where(middles > values[:-1], middles, values[1:])
    candidates = cuts[cuts < 1]
    true_positives = _at_or_above(probability[failed], candidates)
    false_positives = _at_or_above(probability[~failed], candidates)
    # integers, so that equal indices are equal
    index = true_positives * int((~failed).sum()) - false_positives * int(failed.sum())
    return float(candidates[np.flatnonzero(index == index.max())[-1]])


def _at_or_above(values: NDArray[np.float64], thresholds: NDArray[np.float64]) -> NDArray[np.int64]:
    return len(values) - np.searchsorted(np.sort(values), thresholds, side="left")
