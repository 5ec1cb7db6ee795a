"""From outcomes to the tables of a verdict: a row per condition, by domain and difficulty, and the gate's threshold curve.

Every row stands beside the unsteered model on the same problems. The threshold curve holds the accuracy of steering where
``p(fail) >= t``, for every t.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.evaluation.outcomes import Outcome, by_problem
from trimtab.evaluation.rows import (
    ALWAYS,
    GATED,
    RANDOM,
    RANDOM_NORM,
    SOME_PROBLEMS,
    UNSTEERED,
    Average,
    Breakdown,
    BreakdownBy,
    ConditionSummary,
    GroupRow,
    Mean,
    ThresholdPoint,
    is_claim,
    place,
)
from trimtab.evaluation.verdict import Clusters, asked_too, correctness, matched, named_clusters, paired, unscored_bounds
from trimtab.stats.estimates import bootstrap_macro, mean_pass_at, newcombe_paired
from trimtab.stats.paired import gain_p, smallest_gain
from trimtab.stats.significance import holm
from trimtab.stats.values import PairedComparison
from trimtab.stats.verdict import POWER, UnscoredBounds, finite, verdict_word

Outcomes = Mapping[str, Sequence[Outcome]]

DISAGREEMENT = "string check disagrees"
"""Marks a reason of the math grader whose second, independent check came to another verdict."""


def summarise(outcomes: Outcomes, alpha: float = 0.05, clusters: Clusters = MappingProxyType({})) -> dict[str, ConditionSummary]:
    """A row per condition in the order of a table; random sets are folded into one row each kind by :func:`summarise_random`.

    Args:
        outcomes: by condition, with the unsteered ones. Conditions of ``SOME_PROBLEMS`` may be of some of the problems.
        alpha: level of the test whose power gives the detectable gain.
        clusters: of near-duplicate problems, see :func:`trimtab.evaluation.verdict.paired`.

    Raises:
        InputError: conditions of other problems.
    """
    base = outcomes[UNSTEERED]
    rows = {
        name: _summary(name, asked_too(base, condition) if name in SOME_PROBLEMS else base, condition, alpha, clusters)
        for name, condition in outcomes.items()
        if not name.startswith(RANDOM)
    }
    for kind in (RANDOM, RANDOM_NORM):
        sets = {name: condition for name, condition in outcomes.items() if name.rpartition("-")[0] == kind}
        if sets:
            rows[kind] = summarise_random(kind, base, sets, alpha, clusters)
    corrected = _with_holm(rows)
    return {name: corrected[name] for name in sorted(corrected, key=place)}


def summarise_random(
    kind: str,
    base: Sequence[Outcome],
    sets: Mapping[str, Sequence[Outcome]],
    alpha: float = 0.05,
    clusters: Clusters = MappingProxyType({}),
) -> ConditionSummary:
    """The mean over random sets; its p is the smallest one-sided p for a gain after Holm over the sets."""
    rows = [_summary(name, base, condition, alpha, clusters) for name, condition in sets.items()]
    names = named_clusters(base, clusters)
    p = min(holm([gain_p(*correctness(base, condition)[:2], names) for condition in sets.values()]).tolist())

    def mean(name: str) -> float:
        return float(np.mean([getattr(row, name) for row in rows]))

    def mean_or_none(name: str) -> float | None:
        values = [getattr(row, name) for row in rows]
        return None if None in values else float(np.mean(values))

    floats = ("accuracy", "low", "high", "gain", "gain_low", "gain_high", "tokens_per_answer")
    optional = ("minimum_detectable_gain", "pass_at_k", "steps_right")
    counts = ("fixed", "broken", "unscored", "truncated", "disagreements")
    return replace(
        rows[0],
        condition=kind,
        p=p,
        firing_rate=None,
        **{name: mean(name) for name in floats},
        **{name: mean_or_none(name) for name in optional},
        **{name: round(mean(name)) for name in counts},
    )


def condition_metrics(rows: Mapping[str, ConditionSummary]) -> dict[str, dict[str, float]]:
    """Accuracy and gain of the conditions a model card shows, each with its interval and n."""
    metrics: dict[str, dict[str, float]] = {}
    for name in (UNSTEERED, ALWAYS, GATED):
        row = rows[name]
        metrics[f"accuracy, {name}"] = {"value": row.accuracy, "low": row.low, "high": row.high, "n": row.n}
        if name != UNSTEERED:
            metrics[f"gain, {name}"] = {"value": row.gain, "low": row.gain_low, "high": row.gain_high, "n": row.n}
    return metrics


def correct(outcomes: Sequence[Outcome]) -> NDArray[np.bool_]:
    """True per response where the score is correct."""
    return np.array([outcome.correct for outcome in outcomes])


def random_gains(outcomes: Outcomes) -> dict[str, list[float]]:
    """The gain of every random set by kind: the spread that one set would hide."""
    base = correct(outcomes[UNSTEERED])
    gains: dict[str, list[float]] = {}
    for name, condition in outcomes.items():
        kind, _, number = name.rpartition("-")
        if kind in (RANDOM, RANDOM_NORM) and number.isdigit():
            gains.setdefault(kind, []).append(float(correct(condition).mean() - base.mean()))
    return gains


def flips(base: Sequence[Outcome], condition: Sequence[Outcome], groups: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """Fixed, broken and still wrong counts of pairs per group of problems (a domain, a failure source)."""
    kind = {(False, True): "fixed", (True, False): "broken", (False, False): "still wrong", (True, True): "still right"}
    table: dict[str, Counter[str]] = {}
    for before, after in matched(base, condition):
        table.setdefault(groups[before.problem_id], Counter())[kind[before.correct, after.correct]] += 1
    return {group: dict(counts) for group, counts in sorted(table.items())}


def _summary(
    name: str, base: Sequence[Outcome], condition: Sequence[Outcome], alpha: float, clusters: Clusters
) -> ConditionSummary:
    comparison = paired(base, condition, clusters)
    fired = [outcome.fired for outcome in condition if outcome.fired is not None]
    steps = [outcome.steps_right for outcome in condition if outcome.steps_right is not None]
    return ConditionSummary(
        condition=name,
        n=comparison.n,
        k=comparison.k,
        accuracy=comparison.accuracy,
        low=comparison.low,
        high=comparison.high,
        gain=comparison.gain,
        gain_low=comparison.gain_low,
        gain_high=comparison.gain_high,
        p=comparison.p,
        test=comparison.test,
        p_holm=None,
        minimum_detectable_gain=None if name == UNSTEERED else finite(smallest_gain(comparison, POWER, alpha)),
        fixed=comparison.fixed,
        broken=comparison.broken,
        pairs=comparison.pairs,
        pass_at_k=_pass_at_k(condition, comparison),
        unscored=sum(outcome.unscored for outcome in condition),
        truncated=sum(outcome.truncated for outcome in condition),
        disagreements=sum(DISAGREEMENT in outcome.reason for outcome in condition),
        tokens_per_answer=float(np.mean([outcome.tokens for outcome in condition])),
        firing_rate=float(np.mean(fired)) if fired else None,
        steps_right=float(np.mean(steps)) if steps else None,
    )


def _pass_at_k(condition: Sequence[Outcome], comparison: PairedComparison) -> float | None:
    if comparison.k == 1:
        return None
    solved = [sum(response.correct for response in responses.values()) for responses in by_problem(condition).values()]
    return mean_pass_at(comparison.k, solved, comparison.k)


def _with_holm(rows: Mapping[str, ConditionSummary]) -> dict[str, ConditionSummary]:
    claims = [name for name in rows if is_claim(name)]
    adjusted = dict(zip(claims, holm([rows[name].p for name in claims]).tolist(), strict=True))
    return {name: replace(row, p_holm=adjusted.get(name)) for name, row in rows.items()}


UNKNOWN = "(unknown)"


def break_down(
    base: Sequence[Outcome],
    condition: Sequence[Outcome],
    alpha: float = 0.05,
    floor: float = 0.0,
    clusters: Clusters = MappingProxyType({}),
) -> tuple[Breakdown, ...]:
    """The comparison of two conditions by domain and by difficulty, each where the problems have two groups or more.

    Args:
        base, condition: outcomes on the same problems.
        alpha: level of the words.
        floor: no gain of this size or less is called one.
        clusters: of near-duplicate problems, see :func:`trimtab.evaluation.verdict.paired`.

    Raises:
        InputError: the conditions hold other problems.
    """
    tables = []
    for by, group_of in _GROUPS.items():
        groups = {outcome.problem_id: group_of(outcome) for outcome in base}
        if len(set(groups.values())) > 1:
            averages = _averages(base, condition, groups, clusters) if by == "domain" else ()
            tables.append(Breakdown(by, _rows(base, condition, groups, alpha, floor, clusters), averages))
    return tuple(tables)


def _rows(
    base: Sequence[Outcome],
    condition: Sequence[Outcome],
    groups: dict[str, str],
    alpha: float,
    floor: float,
    clusters: Clusters,
) -> tuple[GroupRow, ...]:
    sides = {
        name: tuple([outcome for outcome in side if groups[outcome.problem_id] == name] for side in (base, condition))
        for name in sorted(set(groups.values()), key=_reading_order)
    }
    comparisons = [paired(before, after, clusters) for before, after in sides.values()]
    adjusted = holm([comparison.p for comparison in comparisons]).tolist()
    return tuple(
        _row(name, comparison, p_holm, unscored_bounds(before, after, clusters), alpha, floor)
        for (name, (before, after)), comparison, p_holm in zip(sides.items(), comparisons, adjusted, strict=True)
    )


def _row(
    group: str, comparison: PairedComparison, p_holm: float, bounds: UnscoredBounds | None, alpha: float, floor: float
) -> GroupRow:
    return GroupRow(
        group=group,
        word=verdict_word(comparison, p_holm, bounds, alpha, floor),
        comparison=comparison,
        p_holm=p_holm,
        minimum_detectable_gain=finite(smallest_gain(comparison, POWER, alpha)),
        base_unscored=bounds.base if bounds else 0,
        unscored=bounds.condition if bounds else 0,
    )


def _averages(
    base: Sequence[Outcome], condition: Sequence[Outcome], groups: dict[str, str], clusters: Clusters
) -> tuple[Average, ...]:
    c, correct = paired(base, condition, clusters), correctness(base, condition)
    strata = np.array([groups[problem] for problem in dict.fromkeys(outcome.problem_id for outcome in base)])
    before, after = correct.base.mean(axis=1), correct.condition.mean(axis=1)
    n_groups = len(np.unique(strata))
    micro = Average(
        "micro",
        n_groups,
        Mean(c.base_accuracy, c.base_low, c.base_high),
        Mean(c.accuracy, c.low, c.high),
        Mean(c.gain, c.gain_low, c.gain_high),
    )
    names = np.array(named_clusters(base, clusters))
    return micro, Average("macro", n_groups, *(_macro(values, strata, names) for values in (before, after, after - before)))


def _macro(values: NDArray[np.float64], strata: NDArray[np.str_], clusters: NDArray[np.str_]) -> Mean:
    groups = [strata == name for name in np.unique(strata)]
    value = float(np.mean([values[group].mean() for group in groups]))
    if min(len(set(clusters[group])) for group in groups) < 2 or not any(np.ptp(values[group]) > 0 for group in groups):
        return Mean(value, None, None)
    return Mean(value, *bootstrap_macro(values, strata, clusters.tolist()))


def _reading_order(group: str) -> tuple[bool, float, str]:
    numeric = group.isdecimal()
    return (not numeric, float(group) if numeric else 0.0, group)


_GROUPS: dict[BreakdownBy, Callable[[Outcome], str]] = {
    "domain": lambda outcome: outcome.domain or UNKNOWN,
    "difficulty": lambda outcome: str(outcome.difficulty) if outcome.difficulty else UNKNOWN,
}


def threshold_curve(base_correct: ArrayLike, steered_correct: ArrayLike, p_fail: ArrayLike) -> tuple[ThresholdPoint, ...]:
    """Every threshold that makes a difference on these problems, ascending.

    The thresholds are the distinct values of p(fail), at each of which the problems of that value are steered, and 1 (above every
    p(fail), which no gate quite reaches: no problem is steered). Between two neighbours the policy is that of the upper one. A
    threshold chosen from this curve would have to be judged on other problems.

    Args:
        base_correct, steered_correct: bool ``[problem]``, the unsteered answer is correct, and that with every problem steered.
        p_fail: ``[problem]``.

    Raises:
        InputError: lengths differ, not bool, or a p(fail) outside [0, 1].
        NotEnoughDataError: no problem.

    Example:
        >>> curve = threshold_curve([True, False], [False, True], [0.2, 0.7])
        >>> [(point.threshold, point.steered, point.gain) for point in curve]
        [(0.2, 1.0, 0.0), (0.7, 0.5, 0.5), (1.0, 0.0, 0.0)]
    """
    base, steered, p = np.asarray(base_correct), np.asarray(steered_correct), np.asarray(p_fail, np.float64)
    if base.dtype != np.bool_ or steered.dtype != np.bool_ or not base.shape == steered.shape == p.shape or p.ndim != 1:
        raise InputError(
            f"need two bool [problem] and p(fail) [problem], got {base.dtype} {list(base.shape)}, "
            f"{steered.dtype} {list(steered.shape)} and {list(p.shape)}"
        )
    if not len(p):
        raise NotEnoughDataError("no problem to draw a threshold curve of; give at least one")
    if not ((p >= 0) & (p <= 1)).all():
        raise InputError("p(fail) lies between 0 and 1, and holds other values or NaN")
    thresholds, start = np.unique(np.sort(p), return_index=True)
    order = np.argsort(p, kind="stable")
    fixed, broken = (_at_or_above(flips[order], start) for flips in (~base & steered, base & ~steered))
    count = len(p) - start
    if thresholds[-1] < 1:
        thresholds = np.append(thresholds, 1.0)
        count, fixed, broken = (np.append(column, 0) for column in (count, fixed, broken))
    n, right = len(p), int(base.sum())
    tables, place = np.unique(np.stack([right - broken, fixed, broken, n - right - fixed]), axis=1, return_inverse=True)
    intervals = [newcombe_paired(*table) for table in tables.T.tolist()]
    return tuple(
        ThresholdPoint(t, k / n, (right + f - b) / n, (f - b) / n, intervals[i].low, intervals[i].high)
        for t, k, f, b, i in zip(*(a.tolist() for a in (thresholds, count, fixed, broken, place.ravel())), strict=True)
    )


def _at_or_above(flags: NDArray[np.bool_], start: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many of ``flags[i:]`` are set, for each i of ``start``."""
    return np.cumsum(flags[::-1], dtype=np.int64)[::-1][start]
