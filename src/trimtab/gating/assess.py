"""Where a gate fires, how good it is on problems it was not fitted on, and whether it knows more than the wording."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import roc_curve

from trimtab.stats.auroc import auroc, check_cases, check_probabilities, delong_difference, delong_interval
from trimtab.stats.values import CalibrationBin, Estimate, GateAssessment


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


BINS = 10


def assess(failed: ArrayLike, probability: ArrayLike, text_probability: ArrayLike | None = None) -> GateAssessment:
    """Assess a gate, beside the text-only baseline where there is one, on the same held-out problems, one row a problem.

    Args:
        failed: bool ``[problem]``.
        probability, text_probability: p(fail) ``[problem]`` of the gate and of the baseline.

    Raises:
        InputError: lengths differ, or a probability is NaN or outside [0, 1].
        NotEnoughDataError: fewer than two failed or two solved problems.
    """
    given = [probability] if text_probability is None else [probability, text_probability]
    failed, scores = check_cases(failed, np.stack([np.asarray(p, np.float64) for p in given]), minimum=2)
    check_probabilities(scores)
    areas = [Estimate(auroc(failed, score), *delong_interval(failed, score)) for score in scores]
    briers = [float(((score - failed) ** 2).mean()) for score in scores]
    beside = len(scores) > 1
    return GateAssessment(
        n=len(failed),
        n_failed=int(failed.sum()),
        auroc=areas[0],
        text_auroc=areas[1] if beside else None,
        difference=Estimate(areas[0].value - areas[1].value, *delong_difference(failed, *scores)) if beside else None,
        brier=briers[0],
        text_brier=briers[1] if beside else None,
        calibration=calibration_curve(failed, scores[0]),
        roc=roc_points(failed, scores[0]),
    )


def roc_points(failed: NDArray[np.bool_], probability: NDArray[np.float64]) -> tuple[tuple[float, float], ...]:
    """(false positive rate, true positive rate) from (0, 0) to (1, 1)."""
    false_positive, true_positive, _ = roc_curve(failed, probability)
    return tuple(zip(false_positive.tolist(), true_positive.tolist(), strict=True))


def calibration_curve(
    failed: NDArray[np.bool_], probability: NDArray[np.float64], bins: int = BINS
) -> tuple[CalibrationBin, ...]:
    """Bins between the quantiles of p(fail); equal probabilities share a bin, so there can be fewer than `bins`."""
    inner_edges = np.unique(np.quantile(probability, np.linspace(0, 1, bins + 1)[1:-1]))
    member = np.searchsorted(inner_edges, probability, side="right")
    curve = []
    for i in np.unique(member):
        inside = member == i
        curve.append(CalibrationBin(float(probability[inside].mean()), float(failed[inside].mean()), int(inside.sum())))
    return tuple(curve)
