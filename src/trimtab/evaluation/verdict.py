"""One sentence on whether a condition helped, with every figure that a sceptic asks for."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from trimtab.evaluation.names import VerdictWord
from trimtab.evaluation.outcomes import UNSCORED_LIMIT, Outcome
from trimtab.evaluation.pairing import UnscoredBounds, paired, unscored_bounds
from trimtab.stats.paired import smallest_gain
from trimtab.stats.values import PairedComparison, TestName

POWER = 0.8
TEST_NAMES: dict[TestName, str] = {"McNemar": "exact McNemar", "permutation": "sign-flip permutation test"}


class VerdictSentence(NamedTuple):
    """The word and the sentences that explain it."""

    word: VerdictWord
    sentence: str


@dataclass(frozen=True, slots=True)
class ConditionVerdict:
    """A condition judged against the base: word, sentence and what they stand on.

    ``smallest_gain`` is infinite where no gain could be shown; ``bounds`` is None where every response was scored.
    """

    word: VerdictWord
    sentence: str
    comparison: PairedComparison
    smallest_gain: float
    bounds: UnscoredBounds | None

    @property
    def ranges(self) -> dict[str, float] | None:
        """Accuracies and gain with every unscored chain counted against the condition, and for it; None where there was none."""
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


def judge(base: Sequence[Outcome], condition: Sequence[Outcome], alpha: float = 0.05) -> ConditionVerdict:
    """Compare two conditions on the same problems and say what it means.

    Raises:
        InputError: the conditions hold other problems.
        NotEnoughDataError: no problem.
    """
    comparison, bounds = paired(base, condition), unscored_bounds(base, condition)
    word, sentence = verdict(comparison, bounds, alpha)
    return ConditionVerdict(word, sentence, comparison, smallest_gain(comparison, POWER, alpha), bounds)


def verdict(comparison: PairedComparison, bounds: UnscoredBounds | None = None, alpha: float = 0.05) -> VerdictSentence:
    """Judge a comparison by its p: ``helps`` or ``hurts`` when p <= alpha, by the sign of the gain, else ``no evidence``.

    When more than 1 % of the responses could not be scored in either condition there is ``no verdict``. Unscored chains count as
    wrong in the comparison, which is not what they are: the sentence gives the bounds with those of the condition counted wrong
    and of the base right, and the other way round, and says so when the word hangs on them.

    Args:
        comparison: of all problems.
        bounds: what the grader could not score; None when there was nothing.
        alpha: two-sided level.
    """
    word = verdict_word(comparison, comparison.p, bounds, alpha)
    sentences = [f"{word.capitalize()}: {_figures(comparison)}.", _detectable(comparison, alpha)]
    if bounds:
        sentences.append(_unscored(comparison, bounds))
        sentences += _hangs(word, bounds, alpha)
    return VerdictSentence(word, " ".join(sentences))


def verdict_word(comparison: PairedComparison, p: float, bounds: UnscoredBounds | None, alpha: float = 0.05) -> VerdictWord:
    """The word alone, for a ``p`` that may be corrected for the table it stands in."""
    if bounds and too_many_unscored(comparison, bounds.base, bounds.condition):
        return "no verdict"
    if p > alpha or comparison.gain == 0:
        return "no evidence"
    return "helps" if comparison.gain > 0 else "hurts"


def too_many_unscored(comparison: PairedComparison, base: int, condition: int) -> bool:
    """Whether more than 1 % of the responses of either condition are unscored."""
    c = comparison
    return base > UNSCORED_LIMIT * c.n * c.base_k or condition > UNSCORED_LIMIT * c.n * c.k


def _figures(comparison: PairedComparison) -> str:
    c = comparison
    p = "p < 0.0001" if c.p < 0.0001 else f"p = {c.p:.2g}"
    chains = "" if c.test == "McNemar" else f" over {_chains(c)}"
    pairs = "" if c.pairs == c.n else f" of {c.pairs} pairs"
    counts = f"{c.fixed} fixed, {c.broken} broken{pairs}" if c.pairs else "no pairs of responses"
    return (
        f"accuracy{chains} went from {_percent(c.base_accuracy)} to {_percent(c.accuracy)}, a gain of {_points(c.gain)} points "
        f"(95 % interval {_points(c.gain_low)} to {_points(c.gain_high)}; {TEST_NAMES[c.test]} {p}; "
        f"{counts}, n = {c.n})"
    )


def _chains(comparison: PairedComparison) -> str:
    base, condition = comparison.base_k, comparison.k
    return f"{condition} chains a problem" if base == condition else f"{base} against {condition} chains a problem"


def _detectable(comparison: PairedComparison, alpha: float) -> str:
    gain = smallest_gain(comparison, POWER, alpha)
    if math.isinf(gain):
        return f"With n = {comparison.n} no gain of any size could have been shown."
    return f"With n = {comparison.n} this test finds a true gain of {100 * gain:.1f} points in {100 * POWER:.0f} % of cases."


def _unscored(comparison: PairedComparison, bounds: UnscoredBounds) -> str:
    c, (base, condition, worst, best) = comparison, bounds
    what = "problems" if c.base_k == c.k == 1 else "chains"
    limit = f"; above {_percent(UNSCORED_LIMIT)} there is no verdict" if too_many_unscored(c, base, condition) else ""
    return (
        f"{base} {what} of the base and {condition} of the condition could not be scored{limit}. Counted wrong or right, "
        f"they put the base between {_percent(c.base_accuracy)} and {_percent(worst.base_accuracy)}, "
        f"the condition between {_percent(c.accuracy)} and {_percent(best.accuracy)}, "
        f"and the gain between {_points(worst.gain)} and {_points(best.gain)} points."
    )


def _hangs(word: VerdictWord, bounds: UnscoredBounds, alpha: float) -> list[str]:
    lowest, highest = (verdict_word(side, side.p, None, alpha) for side in (bounds.worst, bounds.best))
    if word == "no verdict" or lowest == highest == word:
        return []
    return [f'The verdict hangs on them: it lies between "{lowest}" and "{highest}".']


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _points(gain: float) -> str:
    return f"{100 * gain:+.1f}"
