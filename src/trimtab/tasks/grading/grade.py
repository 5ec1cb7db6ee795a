"""The verb ``grade``: a grader for problems of every kind, and a score with its reason for every trace."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import NamedTuple, Self

from trimtab.errors import InputError
from trimtab.tasks.grading.grader import Grader, Judgement
from trimtab.tasks.grading.text import ExactGrader
from trimtab.testbed.chains import check_steps
from trimtab.testbed.problems import parse
from trimtab.traces import AnswerKind, Problem, Score, ScoredTrace, Trace

StepChecker = Callable[[Problem, str], bool]


def testbed_steps(problem: Problem, chain: str) -> bool:
    """True when every step of a testbed chain is right and none is missing."""
    return check_steps(parse(problem.question), chain).all_right


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

    def check(self, kinds: Collection[AnswerKind]) -> None:
        """Find out now, and not after hours of sampling, whether answers of these kinds can be graded here.

        Raises:
            NoSandboxError: programs are to be run, and no sandbox works on this machine.
        """
        if AnswerKind.CODE in kinds:
            from trimtab.tasks.grading.code import CodeGrader

            grader = self.grader(AnswerKind.CODE)
            assert isinstance(grader, CodeGrader)
            _ = grader.sandbox

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
                from trimtab.tasks.grading.choice import YesNoGrader

                return YesNoGrader()
            case AnswerKind.CODE:
                from trimtab.tasks.grading.code import CodeGrader

                return CodeGrader()
            case AnswerKind.GYM:
                from trimtab.tasks.gym import GymGrader

                return GymGrader()


TRUNCATED = Judgement(Score.INCORRECT, "truncated at the token limit")


def grade_traces(
    traces: Iterable[Trace],
    problems: Mapping[str, Problem],
    grader: Grader,
    labels: Mapping[str, bool] | None = None,
    checker: StepChecker | None = None,
    quality: Mapping[str, bool] | None = None,
) -> list[ScoredTrace]:
    """Grade traces in order. A truncated trace is incorrect.

    Args:
        traces: what to grade.
        problems: by id.
        grader: used where ``labels`` is None.
        labels: the user's own binary verdict by trace id (any label: correct, safe, polite); replaces the grader.
        checker: fills ``ScoredTrace.quality``: were the steps right, not only the answer?
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
    judgements = _judge_traces(traces, problems, grader) if labels is None else [_label(trace, labels) for trace in traces]
    grades = []
    for trace, judgement in zip(traces, judgements, strict=True):
        problem = problems[trace.problem_id]
        good_steps = quality[trace.id] if quality else checker(problem, trace.text) if checker else None
        grades.append(ScoredTrace(trace.id, trace.problem_id, judgement.score, judgement.reason, judgement.answer, good_steps))
    return grades


def _judge_traces(traces: Sequence[Trace], problems: Mapping[str, Problem], grader: Grader) -> list[Judgement]:
    ended = [trace for trace in traces if not trace.truncated]
    judged = iter(grader.judge([(problems[trace.problem_id], trace.text) for trace in ended]))
    return [TRUNCATED if trace.truncated else next(judged) for trace in traces]


def _label(trace: Trace, labels: Mapping[str, bool]) -> Judgement:
    if trace.id not in labels:
        raise InputError(f"trace {trace.id} has no label in the verdict column; every trace needs one")
    return Judgement(Score.CORRECT if labels[trace.id] else Score.INCORRECT, "the user's label")


class Change(NamedTuple):
    """A trace whose score is another one than before, and the reasons that were given for both."""

    trace_id: str
    problem_id: str
    before: Score
    after: Score
    why_before: str
    why_after: str


def regraded(old: Iterable[ScoredTrace], new: Iterable[ScoredTrace]) -> list[Change]:
    """The traces on which two gradings of the same traces disagree, in the order of the new one.

    Raises:
        InputError: the two do not hold the same traces.

    Example:
        >>> old = [ScoredTrace("p/0", "p", Score.INCORRECT, "no answer found")]
        >>> new = [ScoredTrace("p/0", "p", Score.CORRECT, "equals the gold answer")]
        >>> [(change.trace_id, change.after.value) for change in regraded(old, new)]
        [('p/0', 'correct')]
    """
    before = {grade.trace_id: grade for grade in old}
    after = list(new)
    missing = sorted(before.keys() ^ {grade.trace_id for grade in after})
    if missing:
        raise InputError(
            f"the two gradings do not hold the same traces: {len(missing)} stand in one of them alone, {missing[0]} first; "
            "grade the same traces again"
        )
    return [
        Change(now.trace_id, now.problem_id, then.score, now.score, then.reason, now.reason)
        for now in after
        if (then := before[now.trace_id]).score is not now.score
    ]


def read_label(value: object, trace_id: str) -> bool:
    """A binary label from a column: booleans, 0 and 1, and the words true/false, correct/incorrect, yes/no in any case."""
    words = {"true": True, "1": True, "correct": True, "yes": True, "false": False, "0": False, "incorrect": False, "no": False}
    if isinstance(value, float) and not math.isnan(value):
        value = int(value) if value in (0.0, 1.0) else value
    label = words.get(str(value).strip().lower())
    if label is None:
        raise InputError(f"trace {trace_id}: {value!r} is no binary label; accepted: {', '.join(words)}")
    return label
