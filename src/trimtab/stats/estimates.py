"""Estimates with intervals: shares of problems, paired gains, means over problems with several responses each."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.stats.values import Estimate, Interval

LEVEL = 0.95
RESAMPLES = 9_999
# bounds the memory of one block of resamples, in array elements
BLOCK = 2_000_000


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


def newcombe_paired(both_right: int, fixed: int, broken: int, both_wrong: int, level: float = 0.95) -> Interval:
    """Interval of the gain ``(fixed - broken) / n`` of paired proportions.

    Newcombe (1998), Statistics in Medicine 17:2635, method 10: :func:`square_and_add` of the two Wilson intervals with the
    correlation phi of the table, which is corrected for continuity when it is positive.

    Raises:
        InputError: a negative count, no problem, or a level out of range.
    """
    check_counts(both_right, fixed, broken, both_wrong)
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


def bootstrap_ratio(
    sums: ArrayLike, sizes: ArrayLike, *, resamples: int = RESAMPLES, level: float = 0.95, seed: int = 0
) -> Interval:
    """Percentile interval of ``sum(sums) / sum(sizes)`` over clusters that are drawn with replacement, each with all it holds.

    Args:
        sums: ``[cluster]``, of what is averaged.
        sizes: ``[cluster]``, how many it was summed over.
        resamples, level, seed: as in :func:`bootstrap_mean`.

    Raises:
        NotEnoughDataError: fewer than two clusters.
    """
    columns = np.column_stack([np.asarray(sums, np.float64), np.asarray(sizes, np.float64)])
    if len(columns) < 2:
        raise NotEnoughDataError(f"a bootstrap needs two or more clusters, got {len(columns)}")
    (drawn,) = _resampled_sums([columns], resamples, seed)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def bootstrap_macro(
    values: ArrayLike,
    strata: ArrayLike,
    clusters: Sequence[str] | None = None,
    *,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of the macro average, the unweighted mean over strata of each one's mean; drawn within the strata.

    Args:
        values: ``[problem]``.
        strata: ``[problem]``, a label per problem, such as its domain.
        clusters: ``[problem]``, the name of its cluster of near-duplicates, which is drawn with all it holds of a stratum.
        resamples, level, seed: as in :func:`bootstrap_mean`.

    Raises:
        InputError: lengths differ or a value is not finite.
        NotEnoughDataError: a stratum of fewer than two problems or clusters.
    """
    numbers, labels = np.asarray(values, np.float64), np.asarray(strata)
    if numbers.ndim != 1 or labels.shape != numbers.shape or not np.isfinite(numbers).all():
        raise InputError(f"need finite values [problem] and one stratum each, got {list(numbers.shape)} and {list(labels.shape)}")
    strata_of = [labels == label for label in np.unique(labels)]
    if clusters is None or len(set(clusters)) == numbers.size:
        groups = [numbers[own, None] for own in strata_of]
    else:
        names, both = np.asarray(clusters), np.column_stack([numbers, np.ones_like(numbers)])
        groups = [_by_problem(both[own], names[own]) for own in strata_of]
    smallest = min((len(group) for group in groups), default=0)
    if smallest < 2:
        raise NotEnoughDataError(f"a bootstrap needs two or more problems, in every stratum, got {smallest}")
    drawn = zip(_resampled_sums(groups, resamples, seed), groups, strict=True)
    means = np.mean([sums[:, 0] / (sums[:, 1] if sums.shape[1] == 2 else len(group)) for sums, group in drawn], axis=0)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def ratio_estimates(
    numerator: NDArray[np.float64],
    denominator: NDArray[np.float64],
    problems: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Estimate]:
    """``sum(numerator) / sum(denominator)`` over traces, per column, with a 95 % percentile interval.

    The traces of a problem are alike, so problems are drawn with replacement, each with all its traces. A denominator of ones
    makes it a mean over traces, the number of tokens a mean over tokens.

    Args:
        numerator: ``[trace, column]``.
        denominator: ``[trace]``, above 0.
        problems: the problem of each trace.
        resamples: how many.
        seed: of the draws.

    Raises:
        InputError: lengths differ, a value is not finite, or a denominator is not above 0.
        NotEnoughDataError: fewer than two problems.

    Example:
        >>> estimate, = ratio_estimates(np.array([[1.0], [3.0]]), np.ones(2), ["a", "b"])
        >>> estimate.value, estimate.low, estimate.high
        (2.0, 1.0, 3.0)
    """
    if numerator.ndim != 2 or denominator.shape != (len(numerator),) or len(problems) != len(numerator):
        raise InputError(
            f"need values [trace, column], one denominator and one problem a trace, got {list(numerator.shape)}, "
            f"{list(denominator.shape)} and {len(problems)}"
        )
    if not np.isfinite(numerator).all() or not (denominator > 0).all():
        raise InputError("a mean over traces needs finite values and denominators above 0; leave the traces without a token out")
    above, below = _by_problem(numerator, problems), _by_problem(denominator[:, None], problems)
    if len(above) < 2:
        raise NotEnoughDataError(f"an interval over problems needs two or more, got {len(above)}; give traces of more problems")
    (drawn,) = _resampled_sums([np.hstack([above, below])], resamples, seed)
    ratios = drawn[:, :-1] / drawn[:, -1:]
    low, high = np.quantile(ratios, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    values = above.sum(axis=0) / below.sum()
    return [Estimate(*(float(end) for end in row)) for row in zip(values, low, high, strict=True)]


def mean_estimates(values: NDArray[np.float64], problems: Sequence[str], *, seed: int = 0) -> list[Estimate]:
    """The mean over traces of ``[trace, column]``, every trace weighing the same; see :func:`ratio_estimates`."""
    return ratio_estimates(values, np.ones(len(values)), problems, seed=seed)


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


def _resampled_sums(groups: Sequence[NDArray[np.float64]], resamples: int, seed: int) -> list[NDArray[np.float64]]:
    """Column sums ``[resample, column]`` of each group ``[problem, column]``, its problems drawn with replacement."""
    rng = np.random.default_rng(seed)
    block = max(1, BLOCK // sum(len(group) for group in groups))
    sums: list[list[NDArray[np.float64]]] = [[] for _ in groups]
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        for group, drawn in zip(groups, sums, strict=True):
            n = len(group)
            chosen = rng.integers(0, n, (size, n)) + n * np.arange(size)[:, None]
            counts = np.bincount(chosen.ravel(), minlength=size * n).reshape(size, n)
            drawn.append(counts @ group)
    return [np.concatenate(drawn) for drawn in sums]


def _by_problem(values: NDArray[np.float64], problems: ArrayLike) -> NDArray[np.float64]:
    """Sums ``[problem, column]`` of ``[trace, column]``, problems in the order of their ids."""
    names, member = np.unique(np.asarray(problems), return_inverse=True)
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, member, values)
    return sums


def _corrected_phi(both_right: int, fixed: int, broken: int, both_wrong: int) -> float:
    margins = (both_right + fixed) * (broken + both_wrong) * (both_right + broken) * (fixed + both_wrong)
    if margins == 0:
        return 0.0
    association = both_right * both_wrong - fixed * broken
    if association > 0:
        association = max(association - (both_right + fixed + broken + both_wrong) / 2, 0.0)
    return association / margins**0.5


def check_counts(*counts: int) -> None:
    if min(counts) < 0:
        raise InputError(f"counts of problems cannot be negative, got {list(counts)}")
