"""From outcomes to the tables of a verdict: one row per condition, always beside the unsteered model on the same problems."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from trimtab.evaluation.names import ALWAYS, GATED, RANDOM, RANDOM_NORM, UNSTEERED, is_claim, place
from trimtab.evaluation.outcomes import Outcome, by_problem
from trimtab.evaluation.pairing import correctness, matched, paired
from trimtab.evaluation.rows import ConditionSummary
from trimtab.stats.estimates import mean_pass_at
from trimtab.stats.paired import gain_p, smallest_gain
from trimtab.stats.significance import holm
from trimtab.stats.values import PairedComparison
from trimtab.stats.verdict import POWER, finite

Outcomes = Mapping[str, Sequence[Outcome]]

DISAGREEMENT = "string check disagrees"
"""Marks a reason of the math grader whose second, independent check came to another verdict."""


def summarise(outcomes: Outcomes, alpha: float = 0.05) -> dict[str, ConditionSummary]:
    """A row per condition in the order of a table; random sets are folded into one row each kind by :func:`summarise_random`.

    Args:
        outcomes: by condition, with the unsteered ones.
        alpha: level of the test whose power gives the detectable gain.

    Raises:
        InputError: conditions of other problems.
    """
    base = outcomes[UNSTEERED]
    rows = {name: _summary(name, base, condition, alpha) for name, condition in outcomes.items() if not name.startswith(RANDOM)}
    for kind in (RANDOM, RANDOM_NORM):
        sets = {name: condition for name, condition in outcomes.items() if name.rpartition("-")[0] == kind}
        if sets:
            rows[kind] = summarise_random(kind, base, sets, alpha)
    corrected = _with_holm(rows)
    return {name: corrected[name] for name in sorted(corrected, key=place)}


def summarise_random(
    kind: str, base: Sequence[Outcome], sets: Mapping[str, Sequence[Outcome]], alpha: float = 0.05
) -> ConditionSummary:
    """The mean over random sets; its p is the smallest one-sided p for a gain after Holm over the sets."""
    rows = [_summary(name, base, condition, alpha) for name, condition in sets.items()]
    p = min(holm([gain_p(*correctness(base, condition)[:2]) for condition in sets.values()]).tolist())

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
    """True per response where the verdict is correct."""
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


def _summary(name: str, base: Sequence[Outcome], condition: Sequence[Outcome], alpha: float) -> ConditionSummary:
    comparison = paired(base, condition)
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
    solved = [sum(chain.correct for chain in chains.values()) for chains in by_problem(condition).values()]
    return mean_pass_at(comparison.k, solved, comparison.k)


def _with_holm(rows: Mapping[str, ConditionSummary]) -> dict[str, ConditionSummary]:
    claims = [name for name in rows if is_claim(name)]
    adjusted = dict(zip(claims, holm([rows[name].p for name in claims]).tolist(), strict=True))
    return {name: replace(row, p_holm=adjusted.get(name)) for name, row in rows.items()}
