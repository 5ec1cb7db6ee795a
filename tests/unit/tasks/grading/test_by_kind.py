"""Every answer goes to the grader of its kind, and comes back in its place."""

from collections.abc import Sequence

import pytest

from trimtab.tasks.grading import Judgement, KindGrader
from trimtab.traces import AnswerKind, Problem, Split, Verdict

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
        assert [j.verdict.value for j in grader.judge(mixed)] == ["correct"] * 4 + ["incorrect"] * 4
        assert grader.judge([]) == []


def test_one_batch_a_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    class Recorder:
        def __init__(self) -> None:
            self.batches: list[list[str]] = []

        def judge(self, answers: Sequence[tuple[Problem, str]]) -> list[Judgement]:
            self.batches.append([problem.id for problem, _ in answers])
            return [Judgement(Verdict.CORRECT, problem.id) for problem, _ in answers]

    recorders = {kind: Recorder() for kind in AnswerKind}
    grader = KindGrader()
    monkeypatch.setattr(grader, "grader", recorders.__getitem__)
    kinds = [*AnswerKind, *reversed(AnswerKind)]
    problems = [Problem(f"p{i}", "?", "1", Split.TEST, kind=kind) for i, kind in enumerate(kinds)]
    assert [j.reason for j in grader.judge([(problem, "1") for problem in problems])] == [f"p{i}" for i in range(10)]
    assert [recorders[kind].batches for kind in AnswerKind] == [[[f"p{i}", f"p{9 - i}"]] for i in range(5)]


def test_a_grader_is_made_once() -> None:
    grader = KindGrader()
    assert grader.grader(AnswerKind.CHOICE) is grader.grader(AnswerKind.CHOICE)
