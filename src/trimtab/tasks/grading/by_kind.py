"""One grader for problems of every kind."""

from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from trimtab.tasks.grading.exact import ExactGrader
from trimtab.tasks.grading.grader import Grader, Judgement
from trimtab.traces import AnswerKind, Problem


class KindGrader:
    """Gives every answer to the grader of its problem's kind, each kind in one batch; graders are made when first needed.

    Example:
        >>> from trimtab.traces import Split
        >>> problem = Problem("p", "Can penguins fly?", "no", Split.TEST, kind=AnswerKind.YES_NO)
        >>> KindGrader().judge([(problem, "They are birds, but the answer is no.")])[0].reason
        'equals the gold answer'
    """

    def __init__(self) -> None:
        self._graders: dict[AnswerKind, Grader] = {}
        self._open = ExitStack()

    def judge(self, answers: Sequence[tuple[Problem, str]]) -> list[Judgement]:
        """One judgement per (problem, response), in order."""
        judged: dict[int, Judgement] = {}
        for kind in sorted({problem.kind for problem, _ in answers}):
            places = [place for place, (problem, _) in enumerate(answers) if problem.kind is kind]
            judgements = self.grader(kind).judge([answers[place] for place in places])
            judged.update(zip(places, judgements, strict=True))
        return [judged[place] for place in range(len(answers))]

    def grader(self, kind: AnswerKind) -> Grader:
        """The grader of a kind, the same one at every call."""
        if kind not in self._graders:
            self._graders[kind] = self._make(kind)
        return self._graders[kind]

    def close(self) -> None:
        """End the worker processes of the graders that have some."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        """A copy in another process makes graders of its own."""
        return type(self), ()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _make(self, kind: AnswerKind) -> Grader:
        match kind:
            case AnswerKind.EXACT:
                return ExactGrader()
            case AnswerKind.MATH:
                from trimtab.tasks.grading.math import MathGrader

                return self._open.enter_context(MathGrader())
            case AnswerKind.CHOICE:
                from trimtab.tasks.grading.choice import ChoiceGrader

                return ChoiceGrader()
            case AnswerKind.YES_NO:
                from trimtab.tasks.grading.yes_no import YesNoGrader

                return YesNoGrader()
            case AnswerKind.CODE:
                from trimtab.tasks.grading.code import CodeGrader

                return CodeGrader()
