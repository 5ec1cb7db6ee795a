"""Intervals of means over traces, from a bootstrap that draws problems with all their traces."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.gating.assess import Estimate

LEVEL = 0.95
RESAMPLES = 2_000
# bounds the memory of one block of resamples, in array elements
BLOCK = 2_000_000


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
    above, below = by_problem(numerator, problems), by_problem(denominator[:, None], problems)
    if len(above) < 2:
        raise NotEnoughDataError(f"an interval over problems needs two or more, got {len(above)}; give traces of more problems")
    rng = np.random.default_rng(seed)
    block = max(1, BLOCK // (len(above) + above.shape[1]))
    draws = []
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        counts = rng.multinomial(len(above), np.full(len(above), 1 / len(above)), size).astype(np.float64)
        draws.append((counts @ above) / (counts @ below))
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(np.concatenate(draws), [tail, 1 - tail], axis=0)
    values = above.sum(axis=0) / below.sum()
    return [Estimate(*(float(end) for end in row)) for row in zip(values, low, high, strict=True)]


def mean_estimates(values: NDArray[np.float64], problems: Sequence[str], *, seed: int = 0) -> list[Estimate]:
    """The mean over traces of ``[trace, column]``, every trace weighing the same; see :func:`ratio_estimates`."""
    return ratio_estimates(values, np.ones(len(values)), problems, seed=seed)


def by_problem(values: NDArray[np.float64], problems: Sequence[str]) -> NDArray[np.float64]:
    """Sums ``[problem, column]`` of ``[trace, column]``, problems in the order of their ids."""
    names, member = np.unique(np.asarray(problems), return_inverse=True)
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, member, values)
    return sums
