"""Paired tests over problems, and their correction where several are read together."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from trimtab.errors import InputError
from trimtab.stats.estimates import BLOCK, RESAMPLES, check_counts


def mcnemar_exact(fixed: int, broken: int) -> float:
    """Two-sided exact McNemar: were the fixed and broken problems heads and tails of a fair coin? p = 1 when there are none.

    Example:
        >>> mcnemar_exact(3, 0)
        0.25
    """
    check_counts(fixed, broken)
    return float(stats.binomtest(fixed, fixed + broken).pvalue) if fixed + broken else 1.0


def mcnemar_one_sided(fixed: int, broken: int) -> float:
    """Exact McNemar against a gain: the probability of as many fixed problems or more under a fair coin; 1 for none."""
    check_counts(fixed, broken)
    return float(stats.binomtest(fixed, fixed + broken, alternative="greater").pvalue) if fixed + broken else 1.0


def sign_flip_p(differences: ArrayLike, *, one_sided: bool = False, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """Permutation test of paired differences over problems: were the conditions' names exchangeable within each problem?

    Under that hypothesis each problem's difference has either sign with probability 1/2. Exact, over all signs, when the problems
    whose difference is not 0 are so few that ``2^m <= resamples``; else from random signs, where p is never below
    ``1 / (resamples + 1)`` one-sided and twice that two-sided. With differences of -1, 0 and 1 it is exact McNemar.

    Args:
        differences: ``[problem]``, condition minus base. Give whole numbers (counts of responses) where there are such: sums of
        them tie
            exactly.
        one_sided: against a gain only.
        resamples: of the signs.
        seed: of the draws.

    Raises:
        InputError: a difference is not finite.

    Example:
        >>> sign_flip_p([2, 1, 1])
        0.25
    """
    numbers = np.asarray(differences, np.float64)
    if numbers.ndim != 1 or not np.isfinite(numbers).all():
        raise InputError(f"need finite differences [problem], got {list(numbers.shape)}")
    moved = numbers[numbers != 0]
    if not len(moved):
        return 1.0
    # scipy wants two observations; a zero changes no sum
    moved = np.append(moved, 0.0) if len(moved) == 1 else moved
    result = stats.permutation_test(
        (moved,),
        _total,
        permutation_type="samples",
        n_resamples=resamples,
        batch=max(1, BLOCK // len(moved)),
        vectorized=True,
        alternative="greater" if one_sided else "two-sided",
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


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


def _total(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    return values.sum(axis=axis)
