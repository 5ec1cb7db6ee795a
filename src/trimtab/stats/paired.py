"""Two conditions on the same problems, one response each or several: which test, which intervals, which counts."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.stats.estimates import bootstrap_mean, bootstrap_ratio, newcombe_paired, square_and_add, wilson
from trimtab.stats.power import minimum_detectable_gain, permutation_detectable_gain
from trimtab.stats.significance import mcnemar_exact, mcnemar_one_sided, sign_flip_p
from trimtab.stats.values import Interval, PairedComparison


class _Counts(NamedTuple):
    """Correct responses of two conditions, ``[problem]``, and how many responses a problem has in each."""

    base: NDArray[np.int64]
    base_k: int
    condition: NDArray[np.int64]
    k: int

    @property
    def differences(self) -> NDArray[np.int64]:
        """Differences of the shares, times ``base_k * k``: whole numbers, so that equal ones are equal."""
        return self.condition * self.base_k - self.base * self.k

    @property
    def shares(self) -> NDArray[np.float64]:
        """The differences as shares."""
        return self.differences / (self.base_k * self.k)

    @property
    def single(self) -> bool:
        """Whether each condition has one response a problem."""
        return self.base_k == self.k == 1


def compare(
    base_correct: NDArray[np.bool_],
    condition_correct: NDArray[np.bool_],
    shared: int | None = None,
    clusters: Sequence[str] | None = None,
) -> PairedComparison:
    """Compare two conditions problem by problem.

    Args:
        base_correct, condition_correct: bool ``[problem]``, or ``[problem, response]`` for several responses each; problems in
            the same order. A response that could not be scored is given as False, so that both conditions keep all problems;
            :func:`trimtab.evaluation.verdict.judge` counts such responses.
        shared: how many of the first responses are pairs, by default all that both conditions can have.
        clusters: ``[problem]``, the name of each problem's cluster of near-duplicates. Where two problems have one, the unit of
            the test is the cluster: its differences are summed, p is that of the sign-flip test over clusters, and the gain's
            interval is bootstrapped over clusters. Problems that are almost the same are no independent evidence.

    Raises:
        InputError: not bool, numbers of problems differ, or ``shared`` is more than a condition has.
        NotEnoughDataError: no problem.

    Example:
        >>> result = compare(np.array([True, False, False]), np.array([True, True, False]))
        >>> result.fixed, result.broken, result.p, result.test
        (1, 0, 1.0, 'McNemar')
    """
    base, condition = _chains(base_correct, condition_correct)
    counts = _counts(base, condition)
    most = min(counts.base_k, counts.k)
    shared = most if shared is None else shared
    if not counts.single <= shared <= most:
        raise InputError(
            f"{shared} responses of a problem cannot be pairs: the base has {counts.base_k} and the condition {counts.k}"
        )
    before, after = base[:, :shared], condition[:, :shared]
    fixed, broken = int((~before & after).sum()), int((before & ~after).sum())
    n = len(base)
    if clusters is not None and len(set(clusters)) < n:
        return _clustered(counts, before, after, clusters)
    base_interval, interval = _share_interval(counts.base, counts.base_k), _share_interval(counts.condition, counts.k)
    gain_interval = _newcombe(base, condition) if counts.single else _gain_interval(counts, base_interval, interval)
    return PairedComparison(
        n=n,
        base_accuracy=float(base.mean()),
        base_low=base_interval.low,
        base_high=base_interval.high,
        accuracy=float(condition.mean()),
        low=interval.low,
        high=interval.high,
        gain=float(counts.differences.sum()) / (n * counts.base_k * counts.k),
        gain_low=gain_interval.low,
        gain_high=gain_interval.high,
        p=mcnemar_exact(fixed, broken) if counts.single else sign_flip_p(counts.differences),
        fixed=fixed,
        broken=broken,
        test="McNemar" if counts.single else "permutation",
        base_k=counts.base_k,
        k=counts.k,
        pairs=n * shared,
        standard_error=float(counts.shares.std(ddof=1)) / n**0.5 if n > 1 else None,
    )


def _clustered(counts: _Counts, before: NDArray[np.bool_], after: NDArray[np.bool_], clusters: Sequence[str]) -> PairedComparison:
    """The same problems and shares, with the cluster as the unit of test and intervals."""
    n, scale = len(counts.base), counts.base_k * counts.k
    sums = _by_cluster(counts.differences, clusters)
    sizes = _by_cluster(np.ones(n, np.int64), clusters)
    m = len(sums)

    def interval(total: NDArray[np.int64], k: int) -> Interval:
        solved = _by_cluster(total, clusters)
        if np.ptp(solved / (sizes * k)) > 0:
            return bootstrap_ratio(solved, sizes * k)
        share = int(total.sum()) / (n * k) * m  # as if each cluster were one response
        return Interval(wilson(math.floor(share), m).low, wilson(math.ceil(share), m).high)

    base_interval, own = interval(counts.base, counts.base_k), interval(counts.condition, counts.k)
    base, condition = float(counts.base.sum()) / (n * counts.base_k), float(counts.condition.sum()) / (n * counts.k)
    gain = float(sums.sum()) / (n * scale)
    varies = np.ptp(sums / sizes) > 0
    gain_interval = bootstrap_ratio(sums, sizes * scale) if varies else square_and_add(gain, condition, own, base, base_interval)
    return PairedComparison(
        n=n,
        base_accuracy=base,
        base_low=base_interval.low,
        base_high=base_interval.high,
        accuracy=condition,
        low=own.low,
        high=own.high,
        gain=gain,
        gain_low=gain_interval.low,
        gain_high=gain_interval.high,
        p=sign_flip_p(sums),
        fixed=int((~before & after).sum()),
        broken=int((before & ~after).sum()),
        test="permutation",
        base_k=counts.base_k,
        k=counts.k,
        pairs=before.size,
        standard_error=float(sums.std(ddof=1)) * m**0.5 / (n * scale) if m > 1 else None,
        clusters=m,
    )


def _by_cluster(values: NDArray[np.int64], clusters: Sequence[str]) -> NDArray[np.int64]:
    """The sum over each cluster, in the order of their names."""
    _, which = np.unique(np.asarray(clusters), return_inverse=True)
    return np.bincount(which, values).astype(np.int64)


def gain_p(base_correct: NDArray[np.bool_], condition_correct: NDArray[np.bool_], clusters: Sequence[str] | None = None) -> float:
    """One-sided p against a gain, by the test that :func:`compare` uses for these arrays."""
    base, condition = _chains(base_correct, condition_correct)
    counts = _counts(base, condition)
    if clusters is not None and len(set(clusters)) < len(base):
        return sign_flip_p(_by_cluster(counts.differences, clusters), one_sided=True)
    if counts.single:
        return mcnemar_one_sided(int((~base & condition).sum()), int((base & ~condition).sum()))
    return sign_flip_p(counts.differences, one_sided=True)


def smallest_gain(comparison: PairedComparison, power: float = 0.8, alpha: float = 0.05) -> float:
    """The gain that these n problems would show with the given power, judged by how much the conditions differ on them.

    Returns:
        A fraction, or infinity where no gain of any size could be shown.
    """
    c = comparison
    if c.test == "McNemar":
        return minimum_detectable_gain(c.n, (c.fixed + c.broken) / c.n, power, alpha)
    return permutation_detectable_gain(c.clusters or c.n, c.standard_error or 0.0, power, alpha)


def _newcombe(base: NDArray[np.bool_], condition: NDArray[np.bool_]) -> Interval:
    tables = (base & condition, ~base & condition, base & ~condition, ~base & ~condition)
    return newcombe_paired(*(int(table.sum()) for table in tables))


def _gain_interval(counts: _Counts, base_interval: Interval, interval: Interval) -> Interval:
    if np.ptp(counts.differences) > 0:
        return bootstrap_mean(counts.shares)
    # the bootstrap would have no width, however few the problems
    base, condition = float(counts.base.mean()) / counts.base_k, float(counts.condition.mean()) / counts.k
    return square_and_add(condition - base, condition, interval, base, base_interval)


def _share_interval(correct: NDArray[np.int64], k: int) -> Interval:
    """Interval of avg@k; where all problems have one share, Wilson's as if each problem were one response."""
    if k > 1 and np.ptp(correct) > 0:
        return bootstrap_mean(correct / k)
    n, solved = len(correct), int(correct.sum()) / k
    return Interval(wilson(math.floor(solved), n).low, wilson(math.ceil(solved), n).high)


def _counts(base: NDArray[np.bool_], condition: NDArray[np.bool_]) -> _Counts:
    return _Counts(base.sum(axis=1), base.shape[1], condition.sum(axis=1), condition.shape[1])


def _chains(base: NDArray[np.bool_], condition: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Both as ``[problem, response]``."""
    shaped = all(side.dtype == np.bool_ and side.ndim in (1, 2) and 0 not in side.shape[1:] for side in (base, condition))
    if not shaped or len(base) != len(condition):
        raise InputError(
            "two conditions need bool [problem] or [problem, response] of one length, got "
            f"{base.dtype} {list(base.shape)} and {condition.dtype} {list(condition.shape)}"
        )
    if not len(base):
        raise NotEnoughDataError("no problem to compare two conditions on; give at least one")
    return base.reshape(len(base), -1), condition.reshape(len(condition), -1)
