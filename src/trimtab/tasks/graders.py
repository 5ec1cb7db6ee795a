"""Grading: a verdict and its reason for every trace, behind one protocol."""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

from trimtab.errors import InputError
from trimtab.tasks.answers import final_answer, normalise
from trimtab.tasks.steps import StepChecker
from trimtab.traces import Grade, Problem, Trace, Verdict


class Judgement(NamedTuple):
    """What a grader says of one response."""

    verdict: Verdict
    reason: str
    answer: str = ""


class Grader(Protocol):
    """Judges a response against a gold answer. A grader that fails itself answers ``unscored``, never ``incorrect``."""

    def grade(self, problem: Problem, response: str) -> Judgement:
        """The verdict on one finished response."""
        ...


class ExactGrader:
    """Correct when the final answer equals the gold answer after :func:`trimtab.tasks.answers.normalise`."""

    def grade(self, problem: Problem, response: str) -> Judgement:
        """The verdict on one finished response."""
        answer = final_answer(response)
        if answer is None:
            return Judgement(Verdict.INCORRECT, "no answer found")
        if normalise(answer) == normalise(problem.answer):
            return Judgement(Verdict.CORRECT, "equals the gold answer", answer)
        return Judgement(Verdict.INCORRECT, f"differs from the gold answer {problem.answer}", answer)


def grade_traces(
    traces: Iterable[Trace],
    problems: Mapping[str, Problem],
    grader: Grader,
    labels: Mapping[str, bool] | None = None,
    checker: StepChecker | None = None,
    quality: Mapping[str, bool] | None = None,
) -> list[Grade]:
    """Grade traces in order. A truncated trace is incorrect.

    Args:
        traces: what to grade.
        problems: by id.
        grader: used where ``labels`` is None.
        labels: the user's own binary verdict by trace id (any label: correct, safe, polite); replaces the grader.
        checker: fills ``Grade.quality``: were the steps right, not only the answer?
        quality: the user's own quality column by trace id, in place of a checker.

    Raises:
        InputError: a trace names no known problem, or has no label where labels were given.
    """
    grades = []
    for trace in traces:
        problem = problems.get(trace.problem_id)
        if problem is None:
            raise InputError(
                f"trace {trace.id} belongs to problem {trace.problem_id!r}, which is not among the {len(problems)} problems"
            )
        judgement = _judge(trace, problem, grader, labels)
        good_steps = quality[trace.id] if quality else checker(problem, trace.text) if checker else None
        grades.append(Grade(trace.id, trace.problem_id, judgement.verdict, judgement.reason, judgement.answer, good_steps))
    return grades


def _judge(trace: Trace, problem: Problem, grader: Grader, labels: Mapping[str, bool] | None) -> Judgement:
    if labels is not None:
        if trace.id not in labels:
            raise InputError(f"trace {trace.id} has no label in the verdict column; every trace needs one")
        return Judgement(Verdict.CORRECT if labels[trace.id] else Verdict.INCORRECT, "the user's label")
    if trace.truncated:
        return Judgement(Verdict.INCORRECT, "truncated at the token limit")
    return grader.grade(problem, trace.text)


def read_label(value: object, trace_id: str) -> bool:
    """A binary label from a column: booleans, 0 and 1, and the words true/false, correct/incorrect, yes/no in any case."""
    words = {"true": True, "1": True, "correct": True, "yes": True, "false": False, "0": False, "incorrect": False, "no": False}
    if isinstance(value, float) and not math.isnan(value):
        value = int(value) if value in (0.0, 1.0) else value
    label = words.get(str(value).strip().lower())
    if label is None:
        raise InputError(f"trace {trace_id}: {value!r} is no binary label; accepted: {', '.join(words)}")
    return label
