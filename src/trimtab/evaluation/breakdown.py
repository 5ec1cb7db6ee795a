"""A verdict taken apart: by domain and by difficulty, with micro and macro averages over the domains."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from trimtab.evaluation.names import BreakdownBy
from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.pairing import correctness, paired, unscored_bounds
from trimtab.evaluation.rows import Average, Breakdown, GroupRow, Mean
from trimtab.stats.estimates import bootstrap_macro
from trimtab.stats.paired import smallest_gain
from trimtab.stats.significance import holm
from trimtab.stats.values import PairedComparison
from trimtab.stats.verdict import POWER, finite, verdict_word

UNKNOWN = "(unknown)"


def break_down(base: Sequence[Outcome], condition: Sequence[Outcome], alpha: float = 0.05) -> tuple[Breakdown, ...]:
    """The comparison of two conditions by domain and by difficulty, each where the problems have two groups or more.

    Args:
        base, condition: outcomes on the same problems.
        alpha: level of the words.

    Raises:
        InputError: the conditions hold other problems.
    """
    tables = []
    for by, group_of in _GROUPS.items():
        groups = {outcome.problem_id: group_of(outcome) for outcome in base}
        if len(set(groups.values())) > 1:
            averages = _averages(base, condition, groups) if by == "domain" else ()
            tables.append(Breakdown(by, _rows(base, condition, groups, alpha), averages))
    return tuple(tables)


def _rows(base: Sequence[Outcome], condition: Sequence[Outcome], groups: dict[str, str], alpha: float) -> tuple[GroupRow, ...]:
    sides = {
        name: tuple([outcome for outcome in side if groups[outcome.problem_id] == name] for side in (base, condition))
        for name in sorted(set(groups.values()), key=_reading_order)
    }
    comparisons = [paired(before, after) for before, after in sides.values()]
    adjusted = holm([comparison.p for comparison in comparisons]).tolist()
    return tuple(
        _row(name, comparison, p_holm, before, after, alpha)
        for (name, (before, after)), comparison, p_holm in zip(sides.items(), comparisons, adjusted, strict=True)
    )


def _row(
    group: str, comparison: PairedComparison, p_holm: float, base: Sequence[Outcome], condition: Sequence[Outcome], alpha: float
) -> GroupRow:
    bounds = unscored_bounds(base, condition)
    return GroupRow(
        group=group,
        word=verdict_word(comparison, p_holm, bounds, alpha),
        comparison=comparison,
        p_holm=p_holm,
        minimum_detectable_gain=finite(smallest_gain(comparison, POWER, alpha)),
        base_unscored=bounds.base if bounds else 0,
        unscored=bounds.condition if bounds else 0,
    )


def _averages(base: Sequence[Outcome], condition: Sequence[Outcome], groups: dict[str, str]) -> tuple[Average, ...]:
    c, correct = paired(base, condition), correctness(base, condition)
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
    return micro, Average("macro", n_groups, *(_macro(values, strata) for values in (before, after, after - before)))


def _macro(values: NDArray[np.float64], strata: NDArray[np.str_]) -> Mean:
    groups = [values[strata == name] for name in np.unique(strata)]
    value = float(np.mean([group.mean() for group in groups]))
    if min(map(len, groups)) < 2 or not any(np.ptp(group) > 0 for group in groups):
        return Mean(value, None, None)
    return Mean(value, *bootstrap_macro(values, strata))


def _reading_order(group: str) -> tuple[bool, float, str]:
    numeric = group.isdecimal()
    return (not numeric, float(group) if numeric else 0.0, group)


_GROUPS: dict[BreakdownBy, Callable[[Outcome], str]] = {
    "domain": lambda outcome: outcome.domain or UNKNOWN,
    "difficulty": lambda outcome: str(outcome.difficulty) if outcome.difficulty else UNKNOWN,
}
