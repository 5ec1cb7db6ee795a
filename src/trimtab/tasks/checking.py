"""Is a task fit to be graded? Rows that look broken, golds that mathematics cannot read, and negative controls of the graders."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from trimtab.tasks.grading.choice import gold_letter
from trimtab.tasks.grading.code import CodeTests
from trimtab.tasks.grading.grade import KindGrader
from trimtab.tasks.grading.math import MathGrader
from trimtab.tasks.grading.math_notation import same_text
from trimtab.tasks.grading.math_text import gold_text
from trimtab.traces import AnswerKind, Problem, Score

MOST_CONTROLLED = 500
LONGEST_GOLD = 60
"""Characters of a gold answer in words, above which it is taken for an explanation."""

_EATEN = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\t(?=(?:ext|imes|heta|an|au|o|frac|riangle|ilde)\b)|\r(?=(?:ight|ho|"
    r"m)\b)|\n(?=(?:eq|abla|u)\b)"
)
_AIME_GOLD = re.compile(r"(?:\\?\$)?0*\d{1,3}(?:\.0*)?(?:\^\{?\\circ\}?)?\$?")


class Suspicion(NamedTuple):
    """A row that looks broken, and the reason."""

    problem_id: str
    what: str


@dataclass(frozen=True, slots=True)
class Control:
    """The graders' scores of answers whose score is known.

    Args:
        name: of the control.
        expected: the score that every answer must have.
        n: how many answers were graded.
        failed: ids of the problems whose answer got another score.
    """

    name: str
    expected: Score
    n: int
    failed: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return {"control": self.name, "expected": self.expected.value, "n": self.n, "failed": list(self.failed)}


def suspicions(problems: Sequence[Problem], source: str = "") -> list[Suspicion]:
    r"""Rows that look broken, each with what is odd: several lines for a row with several faults.

    Control characters where LaTeX had a backslash (a form feed and ``rac`` for ``\frac``), a gold answer that the question gives
    away, a gold answer of AIME that is no whole number from 0 to 999, and a gold answer that is an explanation.

    Args:
        problems: of a task.
        source: its name; ``aime...`` says that answers are those of AIME.
    """
    found = []
    for problem in problems:
        found += [Suspicion(problem.id, what) for what in _faults(problem, source)]
    return found


def _faults(problem: Problem, source: str) -> list[str]:
    faults = []
    for name, text in (("question", problem.question), ("gold answer", problem.answer)):
        eaten = _EATEN.search(text)
        if eaten is not None and problem.kind is not AnswerKind.CODE:
            shown = text[max(0, eaten.start() - 10) : eaten.end() + 10]
            faults.append(f"the {name} has a control character where LaTeX has a backslash: {shown!r}")
    if problem.kind in (AnswerKind.MATH, AnswerKind.EXACT):
        gold = re.escape(gold_text(problem.answer).strip())
        if re.search(
            rf"(?i)\b(?:answer|solution)\b[^.\n]{{0,40}}?(?:\bis\b|[:=])\s*[$\\(]*{gold}[)$]*(?![\w/]|\.\d)", problem.question
        ):
            faults.append(f"the question gives the gold answer away: {problem.answer[:40]!r}")
        is_aime = source.startswith("aime") or re.search(r"\bAIME\b", problem.question) is not None
        if is_aime and not _AIME_GOLD.fullmatch(gold_text(problem.answer).strip()):
            faults.append(f"the gold answer is no whole number from 0 to 999, as AIME's are: {problem.answer[:40]!r}")
        words = re.findall(r"(?<![\\A-Za-z])[A-Za-z]{2,}", gold_text(problem.answer))
        if len(problem.answer) > LONGEST_GOLD and len(words) > 6 and "\\boxed" not in problem.answer:
            faults.append(f"the gold answer is an explanation, which no answer will equal: {problem.answer[:40]!r}...")
    return faults


def compared_as_text(problems: Sequence[Problem]) -> list[Problem]:
    """The mathematical problems whose gold answer mathematics cannot read, such as ``12:00``: answers are compared as text."""
    of_mathematics = [problem for problem in problems if problem.kind is AnswerKind.MATH]
    if not of_mathematics:
        return []
    with MathGrader() as grader:
        return grader.unreadable_golds(of_mathematics)


def graders_hold(problems: Sequence[Problem], seed: int = 0, most: int = MOST_CONTROLLED) -> list[Control]:
    """Negative controls: gold answers are correct; those of other problems, none, and the same answer to everything are not.

    A problem whose own gold answer equals what a control gives it is left out of that control.

    Args:
        problems: of one task; at most ``most`` of them are used, drawn with the seed.
        seed: of the draw and of the permutation.
        most: how many problems at most.
    """
    rng = random.Random(seed)
    chosen = list(problems) if len(problems) <= most else rng.sample(list(problems), most)
    shuffled = rng.sample(chosen, len(chosen))
    neighbours = [*chosen[1:], *chosen[:1]]
    controls = [
        ("gold answer", Score.CORRECT, [(one, stated_gold(one)) for one in chosen]),
        ("another problem's gold answer", Score.INCORRECT, _of_others(chosen, neighbours)),
        ("shuffled gold answers", Score.INCORRECT, _of_others(chosen, shuffled)),
        ("empty answer", Score.INCORRECT, [(one, "") for one in chosen]),
        ("constant answer", Score.INCORRECT, [(one, text) for one in chosen if (text := _constant(one, chosen[0]))]),
    ]
    with KindGrader() as grader:
        return [_control(grader, *control) for control in controls]


def stated_gold(problem: Problem) -> str:
    """A response that states a problem's gold answer."""
    return _stated(problem, gold_text(problem.answer) if problem.kind is AnswerKind.MATH else problem.answer)


def _stated(problem: Problem, answer: str) -> str:
    match problem.kind:
        case AnswerKind.CODE:
            return f"```python\n{answer}\n```"
        case AnswerKind.MATH:
            return f"The answer is $\\boxed{{{answer}}}$."
        case AnswerKind.EXACT:
            return f"</think>{answer}"
        case AnswerKind.GYM:
            return f"<answer>{answer}</answer>"
        case AnswerKind.CHOICE | AnswerKind.YES_NO:
            return f"The answer is {answer}."


def _of_others(problems: Sequence[Problem], others: Sequence[Problem]) -> list[tuple[Problem, str]]:
    return [
        (one, stated_gold(other))
        for one, other in zip(problems, others, strict=True)
        if one.kind is other.kind and not _alike(one, other)
    ]


def _alike(one: Problem, other: Problem) -> bool:
    """Whether the gold answer of another problem is one of this problem's too, or may be."""
    if one.kind is AnswerKind.CHOICE:
        return gold_letter(one) == gold_letter(other)
    if one.kind is AnswerKind.CODE:
        return _entry_point(one) == _entry_point(other)
    return same_text(gold_text(one.answer), gold_text(other.answer))


def _constant(problem: Problem, first: Problem) -> str:
    """The answer to everything; empty where it is right."""
    if problem.kind is AnswerKind.CODE:
        return f"def {_entry_point(problem)}(*arguments, **named):\n    return None"
    return "" if problem.kind is not first.kind or _alike(problem, first) else stated_gold(first)


def _entry_point(problem: Problem) -> str:
    return CodeTests.model_validate_json(problem.tests).entry_point


def _control(grader: KindGrader, name: str, expected: Score, answers: Sequence[tuple[Problem, str]]) -> Control:
    judged = grader.judge(answers)
    failed = [problem.id for (problem, _), one in zip(answers, judged, strict=True) if one.score is not expected]
    return Control(name, expected, len(answers), tuple(failed))
