"""The grader of mathematical answers: ``math-verify`` in worker processes, and a second check without computer algebra."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Self

from trimtab.tasks.grading.exact import NO_ANSWER
from trimtab.tasks.grading.grader import Judgement
from trimtab.tasks.grading.math_answers import LAST_NUMBER, gold_text, pair_for_math_verify, stated_answer
from trimtab.tasks.grading.math_pool import ANSWER_UNREADABLE, DIED, EQUAL, FAILED, GOLD_UNREADABLE, UNEQUAL, MathPool, Outcome
from trimtab.tasks.grading.string_check import same_text
from trimtab.traces import Problem, Verdict

DISAGREES = "the string check disagrees"
"""Stands in the reason of every judgement on which the two checks disagree."""
GUESSED = "read as the last number"
"""Stands in the reason where no answer was stated."""

TIMEOUT_S = 10.0
MEMORY_MB = 2_048
MOST_WORKERS = 8
LONGEST_SHOWN = 200

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Disagreement:
    """An answer on which ``math-verify`` and the string check disagree, with the verdict that each alone would give."""

    problem_id: str
    gold: str
    answer: str
    math: Verdict
    string: Verdict


class _Comparison(NamedTuple):
    """What both checks say of an answer; ``string`` is whether the texts are the same."""

    math: Outcome
    string: bool


class MathGrader:
    """Correct when the stated answer equals the gold answer as mathematics.

    An answer is correct when ``math-verify`` finds it equal, or when it is the same exact number or the same text as the gold
    answer, which needs no computer algebra. It is incorrect when ``math-verify`` came to an end without finding it equal, when
    it is no mathematics, and when there is none. It is unscored when ``math-verify`` timed out, broke, or cannot read the gold.

    Which part of a response is its answer: :func:`trimtab.tasks.grading.math_answers.stated_answer`. What ``math-verify`` is not
    asked about: :func:`trimtab.tasks.grading.math_answers.for_math_verify`. Decimals that agree to six places are equal to it,
    and where it fails inside to show that two expressions are equal, it says that they are not.

    Workers start at the first call that needs them and stay for the next one, until ``close``, the end of a ``with`` block or of
    the interpreter. One call at a time: the grader is not for several threads.

    Args:
        timeout_s: seconds for one comparison.
        workers: processes at most; one per 64 different answers is started.
        memory_mb: address space of one worker, held by Linux only.

    Example:
        >>> from trimtab.traces import Split
        >>> problem = Problem("p", "What is a half of a half?", r"\\frac{1}{4}", Split.TEST)
        >>> with MathGrader() as grader:
        ...     print(grader.judge([(problem, r"A half times a half is $\\boxed{0.25}$.")])[0].verdict)
        correct
    """

    def __init__(self, timeout_s: float = TIMEOUT_S, workers: int | None = None, memory_mb: int = MEMORY_MB) -> None:
        self.disagreements: list[Disagreement] = []
        """Those of the last call, in order."""
        self.pool = MathPool(timeout_s, workers or min(MOST_WORKERS, os.cpu_count() or 1), memory_mb)

    def judge(self, answers: Sequence[tuple[Problem, str]]) -> list[Judgement]:
        """One judgement per (problem, response), in order.

        Raises:
            TrimtabError: the workers cannot start.
        """
        self.disagreements = []
        golds = [gold_text(problem.answer) for problem, _ in answers]
        stated = [stated_answer(response) for _, response in answers]
        compared = self._compare(
            sorted({(gold, found.text) for gold, found in zip(golds, stated, strict=True) if found is not None})
        )
        judgements = []
        for (problem, _), gold, found in zip(answers, golds, stated, strict=True):
            if found is None:
                judgements.append(NO_ANSWER)
                continue
            comparison = compared[gold, found.text]
            if _disagree(comparison):
                self._note_disagreement(problem.id, gold, found.text, comparison.string)
            judgements.append(_judgement(gold, found.text, found.where == LAST_NUMBER, comparison))
        return judgements

    def close(self) -> None:
        """End the workers."""
        self.pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _compare(self, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], _Comparison]:
        written = [pair_for_math_verify(*pair) for pair in pairs]
        asked = sorted({(gold, answer) for gold, answer in written if gold is not None and answer is not None})
        outcomes = dict(zip(asked, self.pool.compare(asked), strict=True))
        return {
            pair: _Comparison(outcomes.get((gold or "", answer or "")) or _not_asked(gold), same_text(*pair))
            for pair, (gold, answer) in zip(pairs, written, strict=True)
        }

    def _note_disagreement(self, problem_id: str, gold: str, answer: str, same: bool) -> None:
        math, string = (Verdict.INCORRECT, Verdict.CORRECT) if same else (Verdict.CORRECT, Verdict.INCORRECT)
        self.disagreements.append(Disagreement(problem_id, gold, _shown(answer), math, string))
        log.info(
            "%s: math-verify says %s, the string check %s: gold %r, answer %r", problem_id, math, string, gold, _shown(answer)
        )


def _not_asked(gold: str | None) -> Outcome:
    return Outcome(GOLD_UNREADABLE if gold is None else ANSWER_UNREADABLE)


def _disagree(comparison: _Comparison) -> bool:
    return (comparison.math.result, comparison.string) in ((EQUAL, False), (UNEQUAL, True))


def _judgement(gold: str, answer: str, guessed: bool, comparison: _Comparison) -> Judgement:
    (result, why), shown = comparison.math, _shown(answer)
    if result == EQUAL or comparison.string:
        reason = ["equals the gold answer", GUESSED if guessed else "", DISAGREES if _disagree(comparison) else ""]
        return Judgement(Verdict.CORRECT, "; ".join(filter(None, reason)), shown)
    if result == GOLD_UNREADABLE:
        return Judgement(Verdict.UNSCORED, f"the gold answer {_shown(gold)} cannot be read as mathematics", shown)
    if result in (FAILED, DIED):
        return Judgement(Verdict.UNSCORED, f"the math grader {why}", shown)
    reason = [f"differs from the gold answer {_shown(gold)}", GUESSED if guessed else ""]
    reason.append("cannot be read as mathematics" if result == ANSWER_UNREADABLE else "")
    return Judgement(Verdict.INCORRECT, "; ".join(filter(None, reason)), shown)


def _shown(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}... ({len(text):,} characters)"
