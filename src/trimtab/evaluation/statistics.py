"""Paired statistics of two arms on the same problems. Distributions come from scipy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.evaluation.statistics_power import minimum_detectable_gain
from trimtab.evaluation.statistics_samples import paired_bootstrap, pass_at_k
from trimtab.gating.discrimination import Interval, auroc, delong_difference, delong_interval

__all__ = [
    "Interval",
    "PairedComparison",
    "auroc",
    "compare",
    "delong_difference",
    "delong_interval",
    "holm",
    "mcnemar_exact",
    "mcnemar_one_sided",
    "minimum_detectable_gain",
    "newcombe_paired",
    "paired_bootstrap",
    "pass_at_k",
    "wilson",
]


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """An arm against the base on the same n problems; all intervals are 95 %.

    Args:
        n: problems.
        base_accuracy, base_low, base_high: share the base solves, with Wilson's interval.
        accuracy, low, high: the same of the arm.
        gain, gain_low, gain_high: ``accuracy - base_accuracy`` as a fraction, with Newcombe's paired interval.
        p: two-sided exact McNemar.
        fixed, broken: problems that only the arm, and that only the base, solves.
    """

    n: int
    base_accuracy: float
    base_low: float
    base_high: float
    accuracy: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float
    p: float
    fixed: int
    broken: int


def compare(base_correct: NDArray[np.bool_], arm_correct: NDArray[np.bool_]) -> PairedComparison:
    """Compare two arms problem by problem.

    Args:
        base_correct, arm_correct: bool ``[problem]``, in the same order. A problem that could not be scored is given as False, so
            that both arms keep all problems; :func:`trimtab.evaluation.verdict.verdict` takes the number of such problems.

    Raises:
        InputError: not bool, or lengths differ.
        NotEnoughDataError: no problem.

    Example:
        >>> result = compare(np.array([True, False, False]), np.array([True, True, False]))
        >>> result.fixed, result.broken, result.p
        (1, 0, 1.0)
    """
    if (
        base_correct.dtype != np.bool_
        or arm_correct.dtype != np.bool_
        or base_correct.shape != arm_correct.shape
        or base_correct.ndim != 1
    ):
        raise InputError(
            "two arms need bool [problem] of one length, got "
            f"{base_correct.dtype} {list(base_correct.shape)} and {arm_correct.dtype} {list(arm_correct.shape)}"
        )
    n = len(base_correct)
    if not n:
        raise NotEnoughDataError("no problem to compare two arms on; give at least one")
    both_right = int((base_correct & arm_correct).sum())
    fixed = int((~base_correct & arm_correct).sum())
    broken = int((base_correct & ~arm_correct).sum())
    base, arm = both_right + broken, both_right + fixed
    base_interval, interval = wilson(base, n), wilson(arm, n)
    gain = newcombe_paired(both_right, fixed, broken, n - both_right - fixed - broken)
    return PairedComparison(
        n=n,
        base_accuracy=base / n,
        base_low=base_interval.low,
        base_high=base_interval.high,
        accuracy=arm / n,
        low=interval.low,
        high=interval.high,
        gain=(fixed - broken) / n,
        gain_low=gain.low,
        gain_high=gain.high,
        p=mcnemar_exact(fixed, broken),
        fixed=fixed,
        broken=broken,
    )


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

    Newcombe (1998), Statistics in Medicine 17:2635, method 10: squares and adds the distances to the Wilson limits of both
    proportions, with their correlation phi, which is corrected for continuity when it is positive.

    Raises:
        InputError: a negative count, no problem, or a level out of range.
    """
    _check_counts(both_right, fixed, broken, both_wrong)
    n = both_right + fixed + broken + both_wrong
    arm, base = both_right + fixed, both_right + broken
    (arm_low, arm_high), (base_low, base_high) = wilson(arm, n, level), wilson(base, n, level)
    phi = _corrected_phi(both_right, fixed, broken, both_wrong)

    def distance(arm_side: float, base_side: float) -> float:
        # zero at most up to rounding when phi = 1 and both sides are equal
        return max(0.0, arm_side**2 - 2 * phi * arm_side * base_side + base_side**2) ** 0.5

    gain = (fixed - broken) / n
    low = gain - distance(arm / n - arm_low, base_high - base / n)
    high = gain + distance(arm_high - arm / n, base / n - base_low)
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
