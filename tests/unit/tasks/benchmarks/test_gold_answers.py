"""The gold answer of every problem grades as correct, a neighbour of it as incorrect: the loader and the graders agree."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from trimtab.tasks.benchmarks import BENCHMARKS
from trimtab.tasks.grading.code import CodeTests
from trimtab.tasks.grading.grade import KindGrader
from trimtab.tasks.loading import read_benchmark
from trimtab.tasks.settings import TaskSettings
from trimtab.traces import AnswerKind, Problem, Score

DATA = Path(__file__).parents[3] / "data" / "benchmarks"


@pytest.fixture(scope="module")
def grader() -> Iterator[KindGrader]:
    with KindGrader() as model:
        yield model


def _right(problem: Problem) -> str:
    if problem.kind is AnswerKind.CODE:
        return f"I think so.</think>\n```python\n{problem.answer}\n```"
    if problem.kind is AnswerKind.MATH:
        return f"I think so.</think>It is $\\boxed{{{problem.answer}}}$."
    return f"I think so.</think>The answer is {problem.answer}."


def _wrong(problem: Problem) -> str:
    if problem.kind is AnswerKind.CODE:
        nothing = f"def {CodeTests.model_validate_json(problem.tests).entry_point}(*arguments):\n    return None"
        return f"</think>\n```python\n{problem.answer}\n{nothing}\n```"
    if problem.kind is AnswerKind.MATH:
        return f"</think>It is $\\boxed{{{problem.answer} + 1}}$."
    return f"</think>The answer is {({'yes': 'no', 'no': 'yes'} | dict(zip('ABCDE', 'BCDEA', strict=True)))[problem.answer]}."


@pytest.mark.parametrize("name", BENCHMARKS)
def test_gold_answers(name: str, grader: KindGrader) -> None:
    problems, _, _ = read_benchmark(BENCHMARKS[name], TaskSettings(source=name, data=str(DATA / f"{name}.jsonl")))
    right = grader.judge([(problem, _right(problem)) for problem in problems])
    assert [(p.id, j.score, j.reason) for p, j in zip(problems, right, strict=True) if j.score is not Score.CORRECT] == []
    wrong = grader.judge([(problem, _wrong(problem)) for problem in problems])
    assert [(p.id, j.score, j.reason) for p, j in zip(problems, wrong, strict=True) if j.score is not Score.INCORRECT] == []
