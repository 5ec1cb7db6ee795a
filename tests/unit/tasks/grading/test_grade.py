"""Every answer goes to the grader of its kind, and every trace gets its verdict and reason."""

from collections.abc import Sequence

import pytest

from trimtab.errors import InputError
from trimtab.tasks import ExactGrader, grade_traces
from trimtab.tasks.grading import Judgement, KindGrader, read_label
from trimtab.tasks.grading.grade import Change, regraded
from trimtab.tasks.grading.grader import VERSIONS
from trimtab.traces import AnswerKind, Problem, Score, ScoredTrace, Split, Trace

ANSWERS = {
    AnswerKind.EXACT: ("6", "x</think>6", "x</think>7"),
    AnswerKind.MATH: (r"\frac{1}{2}", r"\boxed{0.5}", r"\boxed{0.6}"),
    AnswerKind.CHOICE: ("B", "The answer is B", "The answer is A"),
    AnswerKind.YES_NO: ("no", "The answer is no", "The answer is yes"),
}


def _answers() -> list[tuple[Problem, str]]:
    rows = [(kind, gold, text) for kind, (gold, *texts) in ANSWERS.items() for text in texts]
    return [(Problem(f"p{i}", "?", gold, Split.TEST, kind=kind), text) for i, (kind, gold, text) in enumerate(rows)]


def test_kinds_in_any_order() -> None:
    answers = _answers()
    mixed = [*answers[::2], *reversed(answers[1::2])]
    with KindGrader() as grader:
        assert [j.score.value for j in grader.judge(mixed)] == ["correct"] * 4 + ["incorrect"] * 4
        assert grader.judge([]) == []


def test_one_batch_a_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    class Recorder:
        def __init__(self) -> None:
            self.batches: list[list[str]] = []

        def judge(self, answers: Sequence[tuple[Problem, str]]) -> list[Judgement]:
            self.batches.append([problem.id for problem, _ in answers])
            return [Judgement(Score.CORRECT, problem.id) for problem, _ in answers]

    recorders = {kind: Recorder() for kind in AnswerKind}
    grader = KindGrader()
    monkeypatch.setattr(grader, "grader", recorders.__getitem__)
    kinds = [*AnswerKind, *reversed(AnswerKind)]
    problems = [Problem(f"p{i}", "?", "1", Split.TEST, kind=kind) for i, kind in enumerate(kinds)]
    assert [j.reason for j in grader.judge([(problem, "1") for problem in problems])] == [f"p{i}" for i in range(len(kinds))]
    assert [recorders[kind].batches for kind in AnswerKind] == [
        [[f"p{i}", f"p{len(kinds) - 1 - i}"]] for i in range(len(AnswerKind))
    ]


def test_a_grader_is_made_once() -> None:
    grader = KindGrader()
    assert grader.grader(AnswerKind.CHOICE) is grader.grader(AnswerKind.CHOICE)


PROBLEM = Problem("p", "what?", "1,000", Split.TRAIN)
PROBLEMS = {"p": PROBLEM}


def _trace(text: str, finish: str = "stop", sample: int = 0, problem: str = "p") -> Trace:
    return Trace(f"{problem}/{sample}", problem, sample, (1,), (2, 3), text, finish)


@pytest.mark.parametrize(
    ("text", "verdict", "reason", "answer"),
    [
        ("x </think> 1000", "correct", "equals the gold answer", "1000"),
        ("x </think> 1000.0", "correct", "equals the gold answer", "1000.0"),
        (r"\boxed{1,000}", "correct", "equals the gold answer", "1,000"),
        ("x </think> 100", "incorrect", "differs from the gold answer 1,000", "100"),
        ("x 1000", "incorrect", "no answer found", ""),
    ],
)
def test_exact_grader(text: str, verdict: str, reason: str, answer: str) -> None:
    assert ExactGrader().judge([(PROBLEM, text)]) == [Judgement(Score(verdict), reason, answer)]
    grade = grade_traces([_trace(text)], PROBLEMS, ExactGrader())[0]
    assert (grade.trace_id, grade.problem_id, grade.score, grade.answer, grade.quality) == ("p/0", "p", verdict, answer, None)


def test_a_truncated_trace_is_incorrect_whatever_it_says() -> None:
    grade = grade_traces([_trace("x </think> 1000", "length")], PROBLEMS, ExactGrader())[0]
    assert (grade.score, grade.reason) == (Score.INCORRECT, "truncated at the token limit")


def test_a_grader_that_fails_itself_is_not_a_wrong_answer() -> None:
    class Broken:
        def judge(self, answers: Sequence[tuple[Problem, str]]) -> list[Judgement]:
            return [Judgement(Score.UNSCORED, "the sandbox did not start") for _ in answers]

    assert grade_traces([_trace("1")], PROBLEMS, Broken())[0].score is Score.UNSCORED


def test_the_users_labels_replace_the_grader() -> None:
    traces = [_trace("x </think> 1000"), _trace("", sample=1), _trace("", "length", 2)]
    grades = grade_traces(traces, PROBLEMS, ExactGrader(), labels={"p/0": False, "p/1": True, "p/2": True})
    assert [grade.score for grade in grades] == ["incorrect", "correct", "correct"]
    assert {grade.reason for grade in grades} == {"the user's label"}
    with pytest.raises(InputError, match="trace p/3 has no label in the verdict column; every trace needs one"):
        grade_traces([_trace("", sample=3)], PROBLEMS, ExactGrader(), labels={"p/0": True})


def test_quality_from_a_checker_or_from_a_column() -> None:
    traces = [_trace("good </think> 1000"), _trace("bad </think> 1000", sample=1)]
    checked = grade_traces(traces, PROBLEMS, ExactGrader(), checker=lambda problem, text: text.startswith("good"))
    assert [(g.score, g.quality) for g in checked] == [("correct", True), ("correct", False)]
    column = grade_traces(traces, PROBLEMS, ExactGrader(), checker=lambda *_: True, quality={"p/0": False, "p/1": True})
    assert [g.quality for g in column] == [False, True]


def test_an_unknown_problem() -> None:
    with pytest.raises(InputError, match="trace q/0 belongs to problem 'q', which is not among the 1 problems"):
        grade_traces([_trace("", problem="q")], PROBLEMS, ExactGrader())


@pytest.mark.parametrize("value", [True, 1, 1.0, "True", " true ", "1", "Correct", "yes", "YES"])
def test_labels_that_mean_true(value: object) -> None:
    assert read_label(value, "t") is True


@pytest.mark.parametrize("value", [False, 0, 0.0, "False", "false", "0", "incorrect", "No"])
def test_labels_that_mean_false(value: object) -> None:
    assert read_label(value, "t") is False


@pytest.mark.parametrize("value", [None, 2, 0.5, float("nan"), float("inf"), "", "maybe", [True]])
def test_labels_that_mean_nothing(value: object) -> None:
    with pytest.raises(InputError, match=r"trace t: .* is no binary label; accepted: true, 1, correct"):
        read_label(value, "t")


def test_two_gradings_of_the_same_traces() -> None:
    old = [
        ScoredTrace("p/0", "p", Score.INCORRECT, "no answer found"),
        ScoredTrace("p/1", "p", Score.CORRECT, "equals the gold answer"),
    ]
    new = [ScoredTrace("p/1", "p", Score.CORRECT, "names it"), ScoredTrace("p/0", "p", Score.CORRECT, "equals the gold answer")]
    assert regraded(old, old) == []
    assert regraded(old, new) == [Change("p/0", "p", Score.INCORRECT, Score.CORRECT, "no answer found", "equals the gold answer")]
    with pytest.raises(InputError, match=r"do not hold the same traces: 1 stand in one of them alone, p/1 first"):
        regraded(old, new[1:])


def test_every_kind_has_a_version() -> None:
    assert {kind: version >= 1 for kind, version in VERSIONS.items()} == dict.fromkeys(AnswerKind, True)
