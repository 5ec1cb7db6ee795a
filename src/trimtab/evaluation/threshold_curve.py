"""What a gate's threshold is worth: the accuracy of steering where ``p(fail) >= t``, for every t."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.evaluation.rows import ThresholdPoint
from trimtab.stats.estimates import newcombe_paired


def threshold_curve(base_correct: ArrayLike, steered_correct: ArrayLike, p_fail: ArrayLike) -> tuple[ThresholdPoint, ...]:
    """Every threshold that makes a difference on these problems, ascending.

    The thresholds are the distinct values of p(fail), at each of which the problems of that value are steered, and 1 (above every
    p(fail), which no gate quite reaches: no problem is steered). Between two neighbours the policy is that of the upper one. A
    threshold chosen from this curve would have to be judged on other problems.

    Args:
        base_correct, steered_correct: bool ``[problem]``, the unsteered answer is correct, and that with every problem steered.
        p_fail: ``[problem]``.

    Raises:
        InputError: lengths differ, not bool, or a p(fail) outside [0, 1].
        NotEnoughDataError: no problem.

    Example:
        >>> curve = threshold_curve([True, False], [False, True], [0.2, 0.7])
        >>> [(point.threshold, point.steered, point.gain) for point in curve]
        [(0.2, 1.0, 0.0), (0.7, 0.5, 0.5), (1.0, 0.0, 0.0)]
    """
    base, steered, p = np.asarray(base_correct), np.asarray(steered_correct), np.asarray(p_fail, np.float64)
    if base.dtype != np.bool_ or steered.dtype != np.bool_ or not base.shape == steered.shape == p.shape or p.ndim != 1:
        raise InputError(
            f"need two bool [problem] and p(fail) [problem], got {base.dtype} {list(base.shape)}, "
            f"{steered.dtype} {list(steered.shape)} and {list(p.shape)}"
        )
    if not len(p):
        raise NotEnoughDataError("no problem to draw a threshold curve of; give at least one")
    if not ((p >= 0) & (p <= 1)).all():
        raise InputError("p(fail) lies between 0 and 1, and holds other values or NaN")
    thresholds, start = np.unique(np.sort(p), return_index=True)
    order = np.argsort(p, kind="stable")
    fixed, broken = (_at_or_above(flips[order], start) for flips in (~base & steered, base & ~steered))
    count = len(p) - start
    if thresholds[-1] < 1:
        thresholds = np.append(thresholds, 1.0)
        count, fixed, broken = (np.append(column, 0) for column in (count, fixed, broken))
    n, right = len(p), int(base.sum())
    tables, place = np.unique(np.stack([right - broken, fixed, broken, n - right - fixed]), axis=1, return_inverse=True)
    intervals = [newcombe_paired(*table) for table in tables.T.tolist()]
    return tuple(
        ThresholdPoint(t, k / n, (right + f - b) / n, (f - b) / n, intervals[i].low, intervals[i].high)
        for t, k, f, b, i in zip(*(a.tolist() for a in (thresholds, count, fixed, broken, place.ravel())), strict=True)
    )


def _at_or_above(flags: NDArray[np.bool_], start: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many of ``flags[i:]`` are set, for each i of ``start``."""
    return np.cumsum(flags[::-1], dtype=np.int64)[::-1][start]
