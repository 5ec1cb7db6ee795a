"""The exact grader: the final answer must be the gold answer, up to notation."""

from collections.abc import Sequence

from trimtab.tasks.grading.answers import final_answer, normalise
from trimtab.tasks.grading.grader import Judgement
from trimtab.traces import Problem, Verdict

NO_ANSWER = Judgement(Verdict.INCORRECT, "no answer found")


class ExactGrader:
    """Correct when the final answer equals the gold answer after :func:`trimtab.tasks.grading.answers.normalise`."""

    def judge(self, answers: Sequence[tuple[Problem, str]]) -> list[Judgement]:
        """One judgement per (problem, response)."""
        return [_judge(problem, response) for problem, response in answers]


def _judge(problem: Problem, response: str) -> Judgement:
    answer = final_answer(response)
    if answer is None:
        return NO_ANSWER
    if normalise(answer) == normalise(problem.answer):
        return Judgement(Verdict.CORRECT, "equals the gold answer", answer)
    return Judgement(Verdict.INCORRECT, f"differs from the gold answer {problem.answer}", answer)
