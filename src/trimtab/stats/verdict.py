"""One sentence on whether a condition beats the base, with every figure that a sceptic asks for."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trimtab.stats.paired import compare, smallest_gain
from trimtab.stats.values import UNSCORED_LIMIT, PairedComparison, TestName, VerdictWord

POWER = 0.8
TEST_NAMES: dict[TestName, str] = {"McNemar": "exact McNemar", "permutation": "sign-flip permutation test"}


class VerdictSentence(NamedTuple):
    """The word and the sentences that explain it."""

    word: VerdictWord
    sentence: str


class UnscoredBounds(NamedTuple):
    """The responses that the grader could not score, and how far they could move the comparison.

    Args:
        base, condition: how many responses of each.
        worst: the comparison with all of the base counted right and all of the condition wrong.
        best: the other way round.
    """

    base: int
    condition: int
    worst: PairedComparison
    best: PairedComparison


def unscored_bounds(
    base: NDArray[np.bool_],
    condition: NDArray[np.bool_],
    base_unscored: NDArray[np.bool_],
    condition_unscored: NDArray[np.bool_],
    shared: int | None = None,
    clusters: Sequence[str] | None = None,
) -> UnscoredBounds | None:
    """How far unscored responses could move the comparison; None when all were scored.

    Args:
        base, condition, shared, clusters: as in :func:`trimtab.stats.paired.compare`, an unscored response given as False.
        base_unscored, condition_unscored: which ones are unscored, in the same shapes.
    """
    counts = int(base_unscored.sum()), int(condition_unscored.sum())
    if not any(counts):
        return None
    worst = compare(base | base_unscored, condition, shared, clusters)
    return UnscoredBounds(*counts, worst, compare(base, condition | condition_unscored, shared, clusters))


def verdict(
    comparison: PairedComparison, bounds: UnscoredBounds | None = None, alpha: float = 0.05, floor: float = 0.0
) -> VerdictSentence:
    """Judge a comparison by its p: ``helps`` or ``hurts`` when p <= alpha, by the sign of the gain, else ``no evidence``.

    When more than 1 % of the responses of either could not be scored there is ``no verdict``. Unscored responses count as wrong
    in the comparison, which is not what they are: the sentence gives the bounds with those of the condition counted wrong and
    those of the base right, and the other way round. Where ``helps`` or ``hurts`` would not hold at both ends it hangs on them:
    the sentence says so, and the word is ``no verdict``.

    Args:
        comparison: of all problems.
        bounds: what the grader could not score; None when there was nothing.
        alpha: two-sided level.
        floor: no gain of this size or less is called one, whatever its p.
    """
    word = verdict_word(comparison, comparison.p, bounds, alpha, floor)
    sentences = [f"{word.capitalize()}: {figures(comparison)}.", detectable(comparison, alpha)]
    if bounds:
        sentences.append(unscored_range(comparison, bounds))
        sentences += hangs_on_unscored(comparison, bounds, alpha)
    return VerdictSentence(word, " ".join(sentences))


def verdict_word(
    comparison: PairedComparison, p: float, bounds: UnscoredBounds | None, alpha: float = 0.05, floor: float = 0.0
) -> VerdictWord:
    """The word alone, for a ``p`` that may be corrected for the table it stands in."""
    if bounds and too_many_unscored(comparison, bounds.base, bounds.condition):
        return "no verdict"
    word = _word(comparison, p, alpha, floor)
    if bounds and word != "no evidence" and {word} != _ends(comparison, p, bounds, alpha, floor):
        return "no verdict"
    return word


def _word(comparison: PairedComparison, p: float, alpha: float, floor: float = 0.0) -> VerdictWord:
    if p > alpha or abs(comparison.gain) <= floor:
        return "no evidence"
    return "helps" if comparison.gain > 0 else "hurts"


def _ends(comparison: PairedComparison, p: float, bounds: UnscoredBounds, alpha: float, floor: float) -> set[VerdictWord]:
    """The words at both ends of what is unscored, their p corrected as this one is."""
    corrected = p / comparison.p if comparison.p else 1.0
    return {_word(side, min(1.0, side.p * corrected), alpha, floor) for side in (bounds.worst, bounds.best)}


def too_many_unscored(comparison: PairedComparison, base: int, condition: int) -> bool:
    """Whether more than 1 % of the responses of either are unscored."""
    c = comparison
    return base > UNSCORED_LIMIT * c.n * c.base_k or condition > UNSCORED_LIMIT * c.n * c.k


def finite(gain: float) -> float | None:
    """A detectable gain as a report holds it: None where no gain of any size could be shown."""
    return gain if math.isfinite(gain) else None


def figures(comparison: PairedComparison) -> str:
    """Accuracies, gain, interval, test, flips and n, as the main clause of a sentence."""
    c = comparison
    p = "p < 0.0001" if c.p < 0.0001 else f"p = {c.p:.2g}"
    responses = "" if c.base_k == c.k == 1 else f" over {_responses(c)}"
    pairs = "" if c.pairs == c.n else f" of {c.pairs} pairs"
    clusters = f" in {c.clusters} clusters of near-duplicates, each of which counts once in the test" if c.clusters else ""
    counts = f"{c.fixed} fixed, {c.broken} broken{pairs}" if c.pairs else "no pairs of responses"
    return (
        f"accuracy{responses} went from {percent(c.base_accuracy)} to {percent(c.accuracy)}, a gain of {points(c.gain)} points "
        f"(95 % interval {points(c.gain_low)} to {points(c.gain_high)}; {TEST_NAMES[c.test]} {p}; "
        f"{counts}, n = {c.n}{clusters})"
    )


def _responses(comparison: PairedComparison) -> str:
    base, k = comparison.base_k, comparison.k
    return f"{k} responses a problem" if base == k else f"{base} against {k} responses a problem"


def detectable(comparison: PairedComparison, alpha: float) -> str:
    """A sentence on the gain that these problems would show."""
    gain = smallest_gain(comparison, POWER, alpha)
    if math.isinf(gain):
        return f"With n = {comparison.n} no gain of any size could have been shown."
    return f"With n = {comparison.n} this test finds a true gain of {100 * gain:.1f} points in {100 * POWER:.0f} % of cases."


def unscored_range(
    comparison: PairedComparison, bounds: UnscoredBounds, names: tuple[str, str] = ("the base", "the condition")
) -> str:
    """How many responses of each could not be scored, and between which figures they leave accuracies and gain."""
    c, (base, condition, worst, best) = comparison, bounds
    what = "problems" if c.base_k == c.k == 1 else "responses"
    limit = f"; above {percent(UNSCORED_LIMIT)} there is no verdict" if too_many_unscored(c, base, condition) else ""
    return (
        f"{base} {what} of {names[0]} and {condition} of {names[1]} could not be scored{limit}. Counted wrong or right, they put "
        f"{names[0]} between {percent(c.base_accuracy)} and {percent(worst.base_accuracy)}, "
        f"{names[1]} between {percent(c.accuracy)} and {percent(best.accuracy)}, "
        f"and the gain between {points(worst.gain)} and {points(best.gain)} points."
    )


def hangs_on_unscored(comparison: PairedComparison, bounds: UnscoredBounds, alpha: float) -> list[str]:
    """A sentence where scoring the unscored responses could change the word, else none."""
    word, lowest, highest = (_word(side, side.p, alpha) for side in (comparison, bounds.worst, bounds.best))
    if word == lowest == highest or too_many_unscored(comparison, bounds.base, bounds.condition):
        return []
    return [f'The verdict hangs on them: it lies between "{lowest}" and "{highest}".']


def percent(share: float) -> str:
    """``12.3 %``."""
    return f"{100 * share:.1f} %"


def points(gain: float) -> str:
    """Percentage points with their sign."""
    return f"{100 * gain:+.1f}"
