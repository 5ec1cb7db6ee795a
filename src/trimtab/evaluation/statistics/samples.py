"""Statistics of several responses per problem: intervals and tests that draw problems, never single chains."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.gating.discrimination import Interval

RESAMPLES = 9_999
# bounds the memory of one block of resamples, in array elements
BLOCK = 2_000_000


def bootstrap_mean(values: ArrayLike, *, resamples: int = RESAMPLES, level: float = 0.95, seed: int = 0) -> Interval:
    """Percentile interval of the mean over problems of ``values``, for example of each problem's difference between two
    conditions.

    Problems are drawn with replacement, each with all its responses: the responses of a problem are alike, so drawing them one
    by one would claim more than n problems can show. Percentile intervals are narrow for few problems: below about 30 read them
    as too optimistic.

    Args:
        values: ``[problem]``: a share of correct responses, or the difference of two.
        resamples: how many.
        level: coverage.
        seed: of the draws.

    Raises:
        InputError: a value is not finite.
        NotEnoughDataError: fewer than two problems.
    """
    return bootstrap_macro(values, np.zeros(np.size(values)), resamples=resamples, level=level, seed=seed)


def bootstrap_macro(
    values: ArrayLike, strata: ArrayLike, *, resamples: int = RESAMPLES, level: float = 0.95, seed: int = 0
) -> Interval:
    """Percentile interval of the macro average, the unweighted mean over strata of each one's mean; drawn within the strata.

    Args:
        values: ``[problem]``.
        strata: ``[problem]``, a label per problem, such as its domain.
        resamples, level, seed: as in :func:`bootstrap_mean`.

    Raises:
        InputError: lengths differ or a value is not finite.
        NotEnoughDataError: a stratum of fewer than two problems.
    """
    numbers, labels = np.asarray(values, np.float64), np.asarray(strata)
    if numbers.ndim != 1 or labels.shape != numbers.shape or not np.isfinite(numbers).all():
        raise InputError(f"need finite values [problem] and one stratum each, got {list(numbers.shape)} and {list(labels.shape)}")
    groups = [numbers[labels == label] for label in np.unique(labels)]
    smallest = min((len(group) for group in groups), default=0)
    if smallest < 2:
        raise NotEnoughDataError(f"a bootstrap needs two or more problems, in every stratum, got {smallest}")
    result = stats.bootstrap(
        groups,
        _mean_of_means,
        n_resamples=resamples,
        batch=max(1, BLOCK // len(numbers)),
        vectorized=True,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return Interval(float(result.confidence_interval.low), float(result.confidence_interval.high))


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


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Unbiased probability that one of k samples is correct: ``1 - C(n - correct, k) / C(n, k)`` (Chen et al. 2021).

    Args:
        n: samples drawn for the problem.
        correct: how many of them are correct.
        k: samples allowed, at most n.

    Raises:
        InputError: a count is out of range.

    Example:
        >>> pass_at_k(4, 1, 2)
        0.5
    """
    if not 0 <= correct <= n or not 1 <= k <= n:
        raise InputError(f"pass@k needs 0 <= correct <= n and 1 <= k <= n, got {n=}, {correct=}, {k=}")
    # exact integers up to one division
    return (math.comb(n, k) - math.comb(n - correct, k)) / math.comb(n, k)


def mean_pass_at(n: int, correct: Sequence[int], k: int) -> float:
    """Mean over problems of :func:`pass_at_k`; with ``k`` 1 it is avg@n.

    Raises:
        InputError: a count is out of range.
        NotEnoughDataError: no problem.
    """
    if not len(correct):
        raise NotEnoughDataError("no problem to take pass@k of; give at least one")
    return math.fsum(pass_at_k(n, int(one), k) for one in correct) / len(correct)


def _mean_of_means(*groups: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    return np.mean([group.mean(axis=axis) for group in groups], axis=0)


def _total(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    return values.sum(axis=axis)
