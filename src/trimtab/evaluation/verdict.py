"""One condition judged against the base on the outcomes of the same problems."""

from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.pairing import paired, unscored_bounds
from trimtab.stats.paired import smallest_gain
from trimtab.stats.values import PairedComparison, VerdictWord
from trimtab.stats.verdict import POWER, UnscoredBounds, verdict


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
