"""Intervals and exact tests of counts of problems, one response each."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from trimtab.errors import InputError
from trimtab.gating.discrimination import Interval


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion (1927).

    Raises:
        InputError: counts or level out of range.

    Example:
        >>> [round(end, 3) for end in wilson(8, 10)]
        [0.49, 0.943]
    """
    if not 0 <= successes <= n or n < 1:
        raise InputError(f"a proportion needs 0 <= successes <= n and n >= 1, got {successes} of {n}")
    if not 0 < level < 1:
        raise InputError(f"a level lies between 0 and 1, got {level}")
    interval = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    return Interval(float(interval.low), float(interval.high))


def mcnemar_exact(fixed: int, broken: int) -> float:
    """Two-sided exact McNemar: were the fixed and broken problems heads and tails of a fair coin? p = 1 when there are none.

    Example:
        >>> mcnemar_exact(3, 0)
        0.25
    """
    _check_counts(fixed, broken)
    return float(stats.binomtest(fixed, fixed + broken).pvalue) if fixed + broken else 1.0


def mcnemar_one_sided(fixed: int, broken: int) -> float:
    """Exact McNemar against a gain: the probability of as many fixed problems or more under a fair coin; 1 for none."""
    _check_counts(fixed, broken)
    return float(stats.binomtest(fixed, fixed + broken, alternative="greater").pvalue) if fixed + broken else 1.0


def newcombe_paired(both_right: int, fixed: int, broken: int, both_wrong: int, level: float = 0.95) -> Interval:
    """Interval of the gain ``(fixed - broken) / n`` of paired proportions.

    Newcombe (1998), Statistics in Medicine 17:2635, method 10: :func:`square_and_add` of the two Wilson intervals with the
    correlation phi of the table, which is corrected for continuity when it is positive.

    Raises:
        InputError: a negative count, no problem, or a level out of range.
    """
    _check_counts(both_right, fixed, broken, both_wrong)
    n = both_right + fixed + broken + both_wrong
    condition, base = both_right + fixed, both_right + broken
    condition_interval, base_interval = wilson(condition, n, level), wilson(base, n, level)
    phi = _corrected_phi(both_right, fixed, broken, both_wrong)
    return square_and_add((fixed - broken) / n, condition / n, condition_interval, base / n, base_interval, phi)


def square_and_add(
    gain: float, condition: float, condition_interval: Interval, base: float, base_interval: Interval, phi: float = 0.0
) -> Interval:
    """Interval of ``gain = condition - base`` from the interval of each: the distances to their ends, squared and added.

    ``low = gain - sqrt(d^2 - 2 phi d e + e^2)`` with ``d`` the way down of the condition and ``e`` the way up of the base;
    ``high`` the other way round (Newcombe 1998; Zou and Donner 2008). ``phi`` 0 leaves out what pairing gains: wider than need
    be.
    """

    def distance(condition_side: float, base_side: float) -> float:
        # zero at most up to rounding when phi = 1 and both sides are equal
        return max(0.0, condition_side**2 - 2 * phi * condition_side * base_side + base_side**2) ** 0.5

    low = gain - distance(condition - condition_interval.low, base_interval.high - base)
    high = gain + distance(condition_interval.high - condition, base - base_interval.low)
    return Interval(max(-1.0, low), min(1.0, high))


def holm(p_values: Sequence[float]) -> NDArray[np.float64]:
    """Holm's (1979) adjusted p-values, in the order given: ``max over j <= i of min(1, (m - j) * p_(j))`` with j from 0.

    Raises:
        InputError: a value is NaN or outside [0, 1].

    Example:
        >>> holm([0.01, 0.04, 0.03]).tolist()
        [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise InputError(f"p-values lie between 0 and 1, got {list(p_values)}")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def _corrected_phi(both_right: int, fixed: int, broken: int, both_wrong: int) -> float:
    margins = (both_right + fixed) * (broken + both_wrong) * (both_right + broken) * (fixed + both_wrong)
    if margins == 0:
        return 0.0
    association = both_right * both_wrong - fixed * broken
    if association > 0:
        association = max(association - (both_right + fixed + broken + both_wrong) / 2, 0.0)
    return association / margins**0.5


def _check_counts(*counts: int) -> None:
    if min(counts) < 0:
        raise InputError(f"counts of problems cannot be negative, got {list(counts)}")
