"""The verb ``grade``: a verdict and its reason for every trace."""

import math
from collections.abc import Iterable, Mapping, Sequence

from trimtab.errors import InputError
from trimtab.tasks.grading.grader import Grader, Judgement
from trimtab.tasks.steps import StepChecker
from trimtab.traces import Grade, Problem, Trace, Verdict

TRUNCATED = Judgement(Verdict.INCORRECT, "truncated at the token limit")


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
    traces = list(traces)
    for trace in traces:
        if trace.problem_id not in problems:
            raise InputError(
                f"trace {trace.id} belongs to problem {trace.problem_id!r}, which is not among the {len(problems)} problems"
            )
    judgements = _judge(traces, problems, grader) if labels is None else [_label(trace, labels) for trace in traces]
    grades = []
    for trace, judgement in zip(traces, judgements, strict=True):
        problem = problems[trace.problem_id]
        good_steps = quality[trace.id] if quality else checker(problem, trace.text) if checker else None
        grades.append(Grade(trace.id, trace.problem_id, judgement.verdict, judgement.reason, judgement.answer, good_steps))
    return grades


def _judge(traces: Sequence[Trace], problems: Mapping[str, Problem], grader: Grader) -> list[Judgement]:
    ended = [trace for trace in traces if not trace.truncated]
    judged = iter(grader.judge([(problems[trace.problem_id], trace.text) for trace in ended]))
    return [TRUNCATED if trace.truncated else next(judged) for trace in traces]


def _label(trace: Trace, labels: Mapping[str, bool]) -> Judgement:
    if trace.id not in labels:
        raise InputError(f"trace {trace.id} has no label in the verdict column; every trace needs one")
    return Judgement(Verdict.CORRECT if labels[trace.id] else Verdict.INCORRECT, "the user's label")


def read_label(value: object, trace_id: str) -> bool:
    """A binary label from a column: booleans, 0 and 1, and the words true/false, correct/incorrect, yes/no in any case."""
    words = {"true": True, "1": True, "correct": True, "yes": True, "false": False, "0": False, "incorrect": False, "no": False}
    if isinstance(value, float) and not math.isnan(value):
        value = int(value) if value in (0.0, 1.0) else value
    label = words.get(str(value).strip().lower())
    if label is None:
        raise InputError(f"trace {trace_id}: {value!r} is no binary label; accepted: {', '.join(words)}")
    return label
