"""One sentence on whether an arm helped, with every figure that a sceptic asks for."""

import math
from typing import Literal, NamedTuple

from trimtab.errors import InputError
from trimtab.evaluation.statistics import PairedComparison, minimum_detectable_gain

VerdictWord = Literal["helps", "no evidence", "hurts", "no verdict"]
UNSCORED_LIMIT = 0.01
POWER = 0.8


class VerdictSentence(NamedTuple):
    """The word and the sentences that explain it."""

    word: VerdictWord
    sentence: str


def verdict(comparison: PairedComparison, unscored_base: int, unscored_arm: int, alpha: float = 0.05) -> VerdictSentence:
    """Judge a comparison by its exact p: ``helps`` or ``hurts`` when p <= alpha, by the sign of the gain, else ``no evidence``.

    When more than 1 % of the problems could not be scored in either arm there is ``no verdict``. Unscored problems count as
    wrong in the comparison (see :func:`trimtab.evaluation.statistics.compare`), which is not what they are; the sentence gives
    the gain with those of the arm counted wrong and of the base right, and the other way round.

    Args:
        comparison: of all problems.
        unscored_base, unscored_arm: how many of them the grader could not score.
        alpha: two-sided level.

    Raises:
        InputError: unscored counts exceed the problems that are counted wrong.
    """
    wrong_base = comparison.n - round(comparison.base_accuracy * comparison.n)
    wrong_arm = comparison.n - round(comparison.accuracy * comparison.n)
    if not (0 <= unscored_base <= wrong_base and 0 <= unscored_arm <= wrong_arm):
        raise InputError(
            f"{unscored_base} and {unscored_arm} unscored problems, but the comparison counts {wrong_base} and {wrong_arm} "
            "as wrong; give unscored problems to compare() as False"
        )
    word = _word(comparison, max(unscored_base, unscored_arm), alpha)
    sentences = [f"{word.capitalize()}: {_figures(comparison)}.", _detectable(comparison, alpha)]
    if unscored_base or unscored_arm:
        sentences.append(_unscored(comparison, unscored_base, unscored_arm))
    return VerdictSentence(word, " ".join(sentences))


def _word(comparison: PairedComparison, unscored: int, alpha: float) -> VerdictWord:
    if unscored > UNSCORED_LIMIT * comparison.n:
        return "no verdict"
    if comparison.p > alpha or comparison.gain == 0:
        return "no evidence"
    return "helps" if comparison.gain > 0 else "hurts"


def _figures(comparison: PairedComparison) -> str:
    c = comparison
    p = "p < 0.0001" if c.p < 0.0001 else f"p = {c.p:.2g}"
    return (
        f"accuracy went from {_percent(c.base_accuracy)} to {_percent(c.accuracy)}, a gain of {_points(c.gain)} points "
        f"(95 % interval {_points(c.gain_low)} to {_points(c.gain_high)}; exact McNemar {p}; "
        f"{c.fixed} fixed, {c.broken} broken, n = {c.n})"
    )


def _detectable(comparison: PairedComparison, alpha: float) -> str:
    gain = minimum_detectable_gain(comparison.n, (comparison.fixed + comparison.broken) / comparison.n, POWER, alpha)
    if math.isinf(gain):
        return f"With n = {comparison.n} no gain of any size could have been shown."
    return f"With n = {comparison.n} this test finds a true gain of {100 * gain:.1f} points in {100 * POWER:.0f} % of cases."


def _unscored(comparison: PairedComparison, base: int, arm: int) -> str:
    c = comparison
    lowest, highest = c.gain - base / c.n, c.gain + arm / c.n
    limit = f"; above {_percent(UNSCORED_LIMIT)} there is no verdict" if max(base, arm) > UNSCORED_LIMIT * c.n else ""
    return (
        f"{base} problems of the base and {arm} of the arm could not be scored{limit}. Counted wrong or right, they put the base "
        f"between {_percent(c.base_accuracy)} and {_percent(c.base_accuracy + base / c.n)}, "
        f"the arm between {_percent(c.accuracy)} and {_percent(c.accuracy + arm / c.n)}, "
        f"and the gain between {_points(lowest)} and {_points(highest)} points."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _points(gain: float) -> str:
    return f"{100 * gain:+.1f}"
