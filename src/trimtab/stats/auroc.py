"""How well a score tells two classes apart: AUROC with intervals."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.stats.values import Interval


class DeLong(NamedTuple):
    """AUROCs of several scores on the same cases, ``[score]``, and their covariance, ``[score, score]``."""

    auroc: NDArray[np.float64]
    covariance: NDArray[np.float64]


def auroc(positive: ArrayLike, score: ArrayLike) -> float:
    """Share of (positive, negative) pairs in which the positive has the higher score; a tie counts one half.

    Args:
        positive: bool ``[case]``.
        score: ``[case]``, higher for the positive class.

    Raises:
        InputError: lengths differ or a score is NaN.
        NotEnoughDataError: a class is empty.

    Example:
        >>> auroc([False, False, True, True], [0.1, 0.4, 0.35, 0.8])
        0.75
    """
    positive, score = check_cases(positive, score)
    n = int(positive.sum())
    rank_sum = float(stats.rankdata(score)[positive].sum())
    return (rank_sum - n * (n + 1) / 2) / (n * (len(positive) - n))


def delong(positive: ArrayLike, scores: ArrayLike) -> DeLong:
    """DeLong, DeLong and Clarke-Pearson (1988), with the midranks of Sun and Xu (2014).

    Args:
        positive: bool ``[case]``.
        scores: ``[score, case]``.

    Raises:
        InputError: lengths differ or a score is NaN.
        NotEnoughDataError: fewer than two cases in a class.
    """
    positive, scores = check_cases(positive, scores, minimum=2)
    scores = np.atleast_2d(scores)
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    overall = stats.rankdata(scores, axis=1)
    # the placement of a case: the share of the other class that it beats
    positives = (overall[:, positive] - stats.rankdata(scores[:, positive], axis=1)) / n_negative
    negatives = 1.0 - (overall[:, ~positive] - stats.rankdata(scores[:, ~positive], axis=1)) / n_positive
    covariance = np.cov(positives) / n_positive + np.cov(negatives) / n_negative
    return DeLong(positives.mean(axis=1), np.atleast_2d(covariance))


def delong_interval(positive: ArrayLike, score: ArrayLike, level: float = 0.95) -> Interval:
    """Interval of one AUROC from DeLong's variance, clipped to [0, 1].

    A perfect separation has variance 0 and would claim certainty from however few cases; there the interval is Newcombe's
    (2006, Statistics in Medicine 25:559, method 5), which solves ``|theta - A| = z * sqrt(V(theta))``.
    """
    estimate = delong(positive, score)
    area, variance = float(estimate.auroc[0]), float(estimate.covariance[0, 0])
    z = float(stats.norm.isf((1 - level) / 2))
    if area in (0.0, 1.0):
        n_positive = int(np.asarray(positive, np.bool_).sum())
        reach = _newcombe_reach(n_positive, np.size(positive) - n_positive, z)
        return Interval(1 - reach, 1.0) if area == 1.0 else Interval(0.0, reach)
    half = z * variance**0.5
    return Interval(max(0.0, area - half), min(1.0, area + half))


def delong_difference(positive: ArrayLike, score: ArrayLike, other: ArrayLike, level: float = 0.95) -> Interval:
    """Interval of ``AUROC(score) - AUROC(other)`` on the same cases, from DeLong's paired covariance.

    Two perfect scores give a width of 0.
    """
    estimate = delong(positive, np.stack([np.asarray(score, np.float64), np.asarray(other, np.float64)]))
    contrast = np.array([1.0, -1.0])
    difference = float(contrast @ estimate.auroc)
    half = float(stats.norm.isf((1 - level) / 2)) * float(contrast @ estimate.covariance @ contrast) ** 0.5
    return Interval(max(-1.0, difference - half), min(1.0, difference + half))


def check_cases(positive: ArrayLike, scores: ArrayLike, minimum: int = 1) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Labels as bool and scores as float64; raises unless they fit together, are not NaN, and have `minimum` cases per class."""
    labels = np.asarray(positive)
    values = np.asarray(scores, np.float64)
    if labels.dtype != np.bool_ or labels.ndim != 1 or values.shape[-1:] != labels.shape:
        raise InputError(
            f"need bool labels [case] and scores [..., case], got {labels.dtype} {list(labels.shape)} and {list(values.shape)}"
        )
    if np.isnan(values).any():
        raise InputError(f"{int(np.isnan(values).sum())} scores are NaN; leave those cases out and say so")
    n_positive = int(labels.sum())
    if min(n_positive, len(labels) - n_positive) < minimum:
        raise NotEnoughDataError(
            f"need at least {minimum} of each class, got {n_positive} positive and {len(labels) - n_positive} negative"
        )
    return labels, values


def check_probabilities(values: NDArray[np.float64]) -> None:
    """Raise InputError unless all values lie between 0 and 1."""
    if ((values < 0) | (values > 1)).any():
        raise InputError(f"probabilities must lie between 0 and 1, got {values.min():.3g} to {values.max():.3g}")


def _newcombe_reach(n_positive: int, n_negative: int, z: float) -> float:
    """How far below 1 the interval of an AUROC of 1 reaches; by symmetry how far above 0 that of 0 does."""
    extra = (n_positive + n_negative) / 2 - 1

    def excess(theta: float) -> float:
        # (1 - theta)^2 = z^2 V(theta) divided by 1 - theta, which leaves out the root at 1
        spread = theta * (1 + extra * ((1 - theta) / (2 - theta) + theta / (1 + theta))) / (n_positive * n_negative)
        return 1 - theta - z**2 * spread

    return 1 - float(optimize.root_scalar(excess, bracket=(0.0, 1.0)).root)
