"""Two conditions side by side, on the same responses of the same problems, and one judged against the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError
from trimtab.evaluation.outcomes import Outcome, ResponseKey, by_problem
from trimtab.stats import verdict as statistics
from trimtab.stats.paired import compare, smallest_gain
from trimtab.stats.values import UNSCORED_LIMIT, PairedComparison, VerdictWord
from trimtab.stats.verdict import POWER, UnscoredBounds, verdict

Responses = Mapping[str, Mapping[ResponseKey, Outcome]]


class Correctness(NamedTuple):
    """Which responses are correct, ``[problem, response]``; the first ``shared`` ones of a problem are pairs."""

    base: NDArray[np.bool_]
    condition: NDArray[np.bool_]
    shared: int


Clusters = Mapping[str, str]
"""The cluster of near-duplicates that a problem is in, by its id; a problem that is not named has none."""


def paired(base: Sequence[Outcome], condition: Sequence[Outcome], clusters: Clusters = MappingProxyType({})) -> PairedComparison:
    """Compare two conditions on the same problems; an unscored response counts as not correct.

    Args:
        base, condition: outcomes.
        clusters: near-duplicates count once in the test, see :func:`trimtab.stats.paired.compare`.

    Raises:
        InputError: the conditions hold other problems, or a condition has other responses for one problem than for another.
        NotEnoughDataError: no problem.
    """
    return compare(*correctness(base, condition), named_clusters(base, clusters))


def named_clusters(base: Sequence[Outcome], clusters: Clusters) -> list[str]:
    """The cluster of each problem, in the order of :func:`correctness`; one that has none is its own."""
    return [clusters.get(problem, problem) for problem in dict.fromkeys(outcome.problem_id for outcome in base)]


def unscored_bounds(
    base: Sequence[Outcome], condition: Sequence[Outcome], clusters: Clusters = MappingProxyType({})
) -> UnscoredBounds | None:
    """How far unscored responses could move the comparison; None when all were scored."""
    scored, right = (correctness(base, condition, unscored_base=counted, unscored_condition=counted) for counted in (False, True))
    unscored = right.base & ~scored.base, right.condition & ~scored.condition
    names = named_clusters(base, clusters)
    return statistics.unscored_bounds(scored.base, scored.condition, *unscored, shared=scored.shared, clusters=names)


def matched(base: Sequence[Outcome], condition: Sequence[Outcome]) -> list[tuple[Outcome, Outcome]]:
    """Pairs of responses: those of one problem, seed and sample that both conditions have.

    With one response a problem in both conditions the pair is the problem, whatever the seed.
    """
    before, after = _same_problems(base, condition)
    first, second, shared = _columns(before, after)
    return [
        (before[problem][one], after[problem][other])
        for problem in before
        for one, other in zip(first[:shared], second[:shared], strict=True)
    ]


def asked_too(base: Sequence[Outcome], condition: Sequence[Outcome]) -> list[Outcome]:
    """The base's outcomes on the problems of a condition that was asked only some of them."""
    asked = {outcome.problem_id for outcome in condition}
    return [outcome for outcome in base if outcome.problem_id in asked]


def correctness(
    base: Sequence[Outcome], condition: Sequence[Outcome], *, unscored_base: bool = False, unscored_condition: bool = False
) -> Correctness:
    """Correct responses of both conditions, problems in the base's order; unscored ones count as ``unscored_base``,
    ``unscored_condition``."""
    before, after = _same_problems(base, condition)
    first, second, shared = _columns(before, after)
    return Correctness(
        _matrix(before, list(before), first, unscored_base), _matrix(after, list(before), second, unscored_condition), shared
    )


def _same_problems(base: Sequence[Outcome], condition: Sequence[Outcome]) -> tuple[Responses, Responses]:
    before, after = by_problem(base), by_problem(condition)
    if before.keys() != after.keys():
        alone = {"the base": sorted(before.keys() - after.keys()), "the other condition": sorted(after.keys() - before.keys())}
        listed = "; ".join(f"only {side} has {len(ids)}, first {ids[0]!r}" for side, ids in alone.items() if ids)
        raise InputError(f"two conditions are compared on the same problems, but {listed}; evaluate both on one set of problems")
    return before, after


def _columns(before: Responses, after: Responses) -> tuple[list[ResponseKey], list[ResponseKey], int]:
    """The responses of each condition, those that both have first, and how many these are."""
    if not before:
        return [(0, 0)], [(0, 0)], 1
    first, second = (sorted(next(iter(side.values()))) for side in (before, after))
    if len(first) == len(second) == 1:
        return first, second, 1
    shared = [key for key in first if key in second]
    rest = [[key for key in side if key not in shared] for side in (first, second)]
    return shared + rest[0], shared + rest[1], len(shared)


def _matrix(responses: Responses, problems: Sequence[str], columns: Sequence[ResponseKey], unscored: bool) -> NDArray[np.bool_]:
    rows = [
        [response.correct or (unscored and response.unscored) for response in map(responses[p].__getitem__, columns)]
        for p in problems
    ]
    return np.array(rows, np.bool_).reshape(len(problems), len(columns))


@dataclass(frozen=True, slots=True)
class ConditionVerdict:
    """A condition judged against the base: the word, the sentence, and the comparison behind them.

    ``smallest_gain`` is infinite where no gain could be shown; ``bounds`` is None where every response was scored.
    """

    word: VerdictWord
    sentence: str
    comparison: PairedComparison
    smallest_gain: float
    bounds: UnscoredBounds | None

    @property
    def ranges(self) -> dict[str, float] | None:
        """Accuracies and gain with every unscored response counted against the condition, and for it; or None."""
        if self.bounds is None:
            return None
        c, (_, _, worst, best) = self.comparison, self.bounds
        return {
            "base_low": c.base_accuracy,
            "base_high": worst.base_accuracy,
            "condition_low": c.accuracy,
            "condition_high": best.accuracy,
            "gain_low": worst.gain,
            "gain_high": best.gain,
        }


def one_sided_truncation(base: Sequence[Outcome], condition: Sequence[Outcome]) -> list[str]:
    """A sentence where the token limit cut the responses of one condition more often than those of the other; else none.

    More often is: none of one, or shares that differ by more than one percent of the responses.
    """
    cut = [sum(outcome.truncated for outcome in side) for side in (base, condition)]
    shares = [count / len(side) if side else 0.0 for count, side in zip(cut, (base, condition), strict=True)]
    if cut[0] == cut[1] or (all(cut) and abs(shares[0] - shares[1]) <= UNSCORED_LIMIT):
        return []
    return [
        f"The token limit cut {cut[0]} of {len(base)} responses of the base and {cut[1]} of {len(condition)} of the condition, "
        "so part of the difference may be answers that were not reached; raise sampling.max_new_tokens."
    ]


def judge(
    base: Sequence[Outcome],
    condition: Sequence[Outcome],
    alpha: float = 0.05,
    floor: float = 0.0,
    clusters: Clusters = MappingProxyType({}),
) -> ConditionVerdict:
    """Compare two conditions on the same problems and say what it means.

    Args:
        base, condition, clusters: as of :func:`paired`.
        alpha: two-sided level.
        floor: no gain of this size or less is called one.

    Raises:
        InputError: the conditions hold other problems.
        NotEnoughDataError: no problem.
    """
    comparison, bounds = paired(base, condition, clusters), unscored_bounds(base, condition, clusters)
    word, sentence = verdict(comparison, bounds, alpha, floor)
    sentence = " ".join([sentence, *one_sided_truncation(base, condition)])
    return ConditionVerdict(word, sentence, comparison, smallest_gain(comparison, POWER, alpha), bounds)
