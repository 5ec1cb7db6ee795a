"""A predictor of failure by itself: what abstaining where it warns is worth, and how it goes with another quantity."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.stats.estimates import BLOCK, LEVEL
from trimtab.stats.values import Estimate

RESAMPLES = 1_999
"""Each sorts all problems, so they are fewer than those of a mean."""


class RiskCoverage(NamedTuple):
    """The share of failures among the ``k`` problems that are least expected to fail, for k from 1 to n.

    Args:
        coverage: float64 ``[k]``, ``k / n``.
        risk: float64 ``[k]``. Problems with one p(fail) have no order: there it is the mean over their orders.
    """

    coverage: NDArray[np.float64]
    risk: NDArray[np.float64]


def risk_coverage(failed: ArrayLike, p_fail: ArrayLike) -> RiskCoverage:
    """Answer the k problems of the lowest p(fail), abstain on the others, for every k (El-Yaniv and Wiener 2010).

    Args:
        failed: bool ``[problem]``.
        p_fail: ``[problem]``, any score that is higher where a failure is expected.

    Raises:
        InputError: lengths differ, ``failed`` is not bool, or a score is NaN.
        NotEnoughDataError: no problem.

    Example:
        >>> risk_coverage([False, True, False], [0.1, 0.9, 0.3]).risk.round(2).tolist()
        [0.0, 0.0, 0.33]
    """
    wrong, scores = _checked(failed, p_fail)
    n = len(wrong)
    order = np.argsort(scores, kind="stable")
    _, block = np.unique(scores[order], return_inverse=True)
    # every problem of a tie counts as the tie's share of failures, which gives the mean over its orders
    shares = np.bincount(block, wrong[order]) / np.bincount(block)
    k = np.arange(1, n + 1)
    return RiskCoverage(k / n, np.cumsum(shares[block]) / k)


def aurc(failed: ArrayLike, p_fail: ArrayLike) -> float:
    """Area under the risk-coverage curve: the mean of :func:`risk_coverage`'s risks (Geifman and El-Yaniv 2019).

    Lower is better. In random order it is the share of failures on average; the lowest that this share allows is
    :func:`best_aurc`.
    """
    return float(risk_coverage(failed, p_fail).risk.mean())


def best_aurc(n: int, n_failed: int) -> float:
    """The area of an order with every failure last.

    Raises:
        InputError: counts out of range.
    """
    if not 0 <= n_failed <= n or n < 1:
        raise InputError(f"need 0 <= n_failed <= n and n >= 1, got {n_failed} of {n}")
    return aurc(np.arange(n) >= n - n_failed, np.arange(n))


def aurc_estimate(failed: ArrayLike, p_fail: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """:func:`aurc` with its percentile interval over problems, drawn with replacement; ties of a resample in random order.

    Raises:
        InputError: as :func:`risk_coverage`.
        NotEnoughDataError: fewer than two problems.
    """
    wrong, scores = _checked(failed, p_fail, minimum=2)
    n, rng = len(wrong), np.random.default_rng(seed)
    shuffled = rng.permutation(n)
    ordered = wrong[shuffled[np.argsort(scores[shuffled], kind="stable")]].astype(np.float64)
    k = np.arange(1, n + 1)
    areas = [(np.cumsum(ordered[np.sort(drawn, axis=1)], axis=1) / k).mean(axis=1) for drawn in _resampled(rng, n, resamples)]
    return _estimate(aurc(failed, p_fail), np.concatenate(areas))


def rank_correlation(x: ArrayLike, y: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0) -> Estimate | None:
    """Spearman's correlation, midranks for ties, with its percentile interval over problems, drawn with replacement.

    None where ``x`` or ``y`` is the same for every problem. A resample in which one of them is the same for all counts as 0.

    Args:
        x, y: ``[problem]``.
        resamples: how many.
        seed: of the draws.

    Raises:
        InputError: lengths differ, or a value is not finite.
        NotEnoughDataError: fewer than two problems.

    Example:
        >>> rank_correlation([0.1, 0.4, 0.9], [0, 0, 1]).value.__round__(3)
        0.866
    """
    first, second = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if first.ndim != 1 or first.shape != second.shape or not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise InputError(f"need two finite [problem] of one length, got {list(first.shape)} and {list(second.shape)}")
    if len(first) < 2:
        raise NotEnoughDataError(f"a correlation needs two or more problems, got {len(first)}")
    if not np.ptp(first) or not np.ptp(second):
        return None
    rng = np.random.default_rng(seed)
    drawn = [_spearman(first[rows], second[rows]) for rows in _resampled(rng, len(first), resamples)]
    return _estimate(float(_spearman(first[None], second[None])[0]), np.concatenate(drawn))


def _spearman(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of ``[resample, problem]``, row by row; 0 where a row does not vary."""
    ranks = [stats.rankdata(side, axis=1) for side in (x, y)]
    a, b = (rank - rank.mean(axis=1, keepdims=True) for rank in ranks)
    scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    together = (a * b).sum(axis=1)
    return np.divide(together, scale, out=np.zeros_like(together), where=scale > 0)


def _resampled(rng: np.random.Generator, n: int, resamples: int) -> list[NDArray[np.int64]]:
    """Numbers of problems drawn with replacement, ``[resample, n]``, in blocks of bounded size."""
    block = max(1, BLOCK // n)
    return [rng.integers(0, n, (min(block, resamples - start), n)) for start in range(0, resamples, block)]


def _estimate(value: float, drawn: NDArray[np.float64]) -> Estimate:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high))


def _checked(failed: ArrayLike, p_fail: ArrayLike, minimum: int = 1) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    wrong, scores = np.asarray(failed), np.asarray(p_fail, np.float64)
    if wrong.dtype != np.bool_ or wrong.ndim != 1 or wrong.shape != scores.shape or np.isnan(scores).any():
        raise InputError(
            f"need bool failed [problem] and as many scores without NaN, got {wrong.dtype} {list(wrong.shape)} and "
            f"{list(scores.shape)}"
        )
    if len(wrong) < minimum:
        raise NotEnoughDataError(f"need {minimum} or more problems to abstain on, got {len(wrong)}")
    return wrong, scores
