"""The interface of a grader: it scores finished responses, many at a time."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from trimtab.traces import AnswerKind, Problem, Score

VERSIONS: dict[AnswerKind, int] = dict.fromkeys(AnswerKind, 2)
"""The version of each kind's grader. It rises with every change that can move a score; 1 is that of trimtab 0.1."""


class Judgement(NamedTuple):
    """The score of one response, a reason in words, and the answer that was found."""

    score: Score
    reason: str
    answer: str = ""


class Grader(Protocol):
    """Judges responses against gold answers. A grader that fails itself answers ``unscored``, never ``incorrect``."""

    def judge(self, answers: Sequence[tuple[Problem, str]]) -> list[Judgement]:
        """One judgement per (problem, response), in order. The responses are finished and hostile."""
        ...
