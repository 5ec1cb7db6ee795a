"""Statistics of several samples per problem: avg@k and pass@k."""

import math

import numpy as np
from numpy.typing import ArrayLike

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.gating.discrimination import Interval

RESAMPLES = 10_000
# bounds the memory of one block of resamples, in array elements
BLOCK = 2_000_000


def paired_bootstrap(
    differences: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of the mean of per-problem differences, for example of avg@k between two arms.

    Draws problems with replacement, or whole clusters of problems where problems of a cluster are alike (the same template, the
    same source); then a resample's mean is over the problems that it holds. Percentile intervals are narrow for few problems:
    below about 30 problems or clusters read them as too optimistic.

    Args:
        differences: ``[problem]``, arm minus base.
        clusters: ``[problem]``, a label per problem.
        resamples: how many.
        level: coverage.
        seed: of the draws.

    Raises:
        InputError: lengths differ or a difference is not finite.
        NotEnoughDataError: fewer than two problems or clusters.
    """
    values = np.asarray(differences, np.float64)
    labels = np.arange(len(values)) if clusters is None else np.asarray(clusters)
    if values.ndim != 1 or labels.shape != values.shape or not np.isfinite(values).all():
        raise InputError(
            f"need finite differences [problem] and one cluster each, got {list(values.shape)} and {list(labels.shape)}"
        )
    _, member = np.unique(labels, return_inverse=True)
    sums, sizes = np.bincount(member, values), np.bincount(member)
    n = len(sums)
    if n < 2:
        raise NotEnoughDataError(f"a bootstrap needs two or more problems or clusters, got {n}")
    rng = np.random.default_rng(seed)
    block = max(1, BLOCK // n)
    means = []
    for start in range(0, resamples, block):
        counts = rng.multinomial(n, np.full(n, 1 / n), min(block, resamples - start))
        means.append((counts @ sums) / (counts @ sizes))
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail]).tolist()
    return Interval(low, high)


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
