"""From outcomes to the tables of a verdict: one row per arm, always beside the unsteered model on the same problems."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from trimtab.evaluation.arms import ALWAYS, GATED, RANDOM, RANDOM_NORM, UNSTEERED
from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.statistics import PairedComparison, compare, holm, mcnemar_one_sided, minimum_detectable_gain
from trimtab.traces import Verdict

Outcomes = Mapping[str, Sequence[Outcome]]


@dataclass(frozen=True, slots=True)
class ArmSummary:
    """One row: accuracy with Wilson interval, paired gain over unsteered with its interval and exact p, and the counts."""

    arm: str
    n: int
    accuracy: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float
    p: float
    fixed: int
    broken: int
    unscored: int
    truncated: int
    tokens_per_answer: float
    firing_rate: float | None
    steps_right: float | None

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return asdict(self)


def correct(outcomes: Sequence[Outcome]) -> NDArray[np.bool_]:
    """True per problem where the verdict is correct."""
    return np.array([outcome.correct for outcome in outcomes])


def summarise(outcomes: Outcomes) -> dict[str, ArmSummary]:
    """A row per arm; random sets are folded into one row each kind by :func:`summarise_random`."""
    base = outcomes[UNSTEERED]
    rows = {name: _summary(name, base, arm) for name, arm in outcomes.items() if not name.startswith(RANDOM)}
    for kind in (RANDOM, RANDOM_NORM):
        sets = {name: arm for name, arm in outcomes.items() if name.rpartition("-")[0] == kind}
        if sets:
            rows[kind] = summarise_random(kind, base, sets)
    return rows


def summarise_random(kind: str, base: Sequence[Outcome], sets: Mapping[str, Sequence[Outcome]]) -> ArmSummary:
    """The mean over random sets; its p is the smallest one-sided p for a gain after Holm over the sets."""
    rows = [_summary(name, base, arm) for name, arm in sets.items()]
    p = min(holm([mcnemar_one_sided(row.fixed, row.broken) for row in rows]))
    steps = [row.steps_right for row in rows if row.steps_right is not None]

    def mean(name: str) -> float:
        return float(np.mean([getattr(row, name) for row in rows]))

    floats = ("accuracy", "low", "high", "gain", "gain_low", "gain_high", "tokens_per_answer")
    counts = ("fixed", "broken", "unscored", "truncated")
    return ArmSummary(
        arm=kind,
        n=rows[0].n,
        p=p,
        firing_rate=None,
        steps_right=float(np.mean(steps)) if steps else None,
        **{name: mean(name) for name in floats},
        **{name: round(mean(name)) for name in counts},
    )


def arm_metrics(rows: Mapping[str, ArmSummary]) -> dict[str, dict[str, float]]:
    """Accuracy and gain of the arms a model card shows, each with its interval and n."""
    metrics: dict[str, dict[str, float]] = {}
    for name in (UNSTEERED, ALWAYS, GATED):
        row = rows[name]
        metrics[f"accuracy, {name}"] = {"value": row.accuracy, "low": row.low, "high": row.high, "n": row.n}
        if name != UNSTEERED:
            metrics[f"gain, {name}"] = {"value": row.gain, "low": row.gain_low, "high": row.gain_high, "n": row.n}
    return metrics


def paired(base: Sequence[Outcome], arm: Sequence[Outcome]) -> PairedComparison:
    """The paired comparison of two arms on the same problems in the same order."""
    if [o.problem_id for o in base] != [o.problem_id for o in arm]:
        raise ValueError("arms do not hold the same problems in the same order")
    return compare(correct(base), correct(arm))


def _summary(name: str, base: Sequence[Outcome], arm: Sequence[Outcome]) -> ArmSummary:
    comparison = paired(base, arm)
    fired = [outcome.fired for outcome in arm if outcome.fired is not None]
    steps = [outcome.steps_right for outcome in arm if outcome.steps_right is not None]
    return ArmSummary(
        arm=name,
        n=len(arm),
        accuracy=comparison.accuracy,
        low=comparison.low,
        high=comparison.high,
        gain=comparison.gain,
        gain_low=comparison.gain_low,
        gain_high=comparison.gain_high,
        p=comparison.p,
        fixed=comparison.fixed,
        broken=comparison.broken,
        unscored=sum(outcome.verdict is Verdict.UNSCORED for outcome in arm),
        truncated=sum(outcome.truncated for outcome in arm),
        tokens_per_answer=float(np.mean([outcome.tokens for outcome in arm])),
        firing_rate=float(np.mean(fired)) if fired else None,
        steps_right=float(np.mean(steps)) if steps else None,
    )


def smallest_gain(base: Sequence[Outcome], arm: Sequence[Outcome]) -> float:
    """The gain that n problems with this discordance could show with 80 % power."""
    comparison = paired(base, arm)
    return minimum_detectable_gain(comparison.n, (comparison.fixed + comparison.broken) / comparison.n)


def random_gains(outcomes: Outcomes) -> dict[str, list[float]]:
    """The gain of every random set by kind: the spread that one set would hide."""
    base = correct(outcomes[UNSTEERED])
    gains: dict[str, list[float]] = {}
    for name, arm in outcomes.items():
        kind, _, number = name.rpartition("-")
        if kind in (RANDOM, RANDOM_NORM) and number.isdigit():
            gains.setdefault(kind, []).append(float(correct(arm).mean() - base.mean()))
    return gains


def flips(base: Sequence[Outcome], arm: Sequence[Outcome], groups: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """Fixed, broken and still wrong counts per group of problems (a domain, a failure source)."""
    table: dict[str, Counter[str]] = {}
    for before, after in zip(base, arm, strict=True):
        kind = {(False, True): "fixed", (True, False): "broken", (False, False): "still wrong", (True, True): "still right"}
        table.setdefault(groups[before.problem_id], Counter())[kind[before.correct, after.correct]] += 1
    return {group: dict(counts) for group, counts in sorted(table.items())}
