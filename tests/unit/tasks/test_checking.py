"""Rows that look broken, golds that are compared as text, and controls of the graders in every benchmark."""

from pathlib import Path

import pytest

from trimtab.tasks.benchmarks import BENCHMARKS
from trimtab.tasks.checking import Suspicion, compared_as_text, graders_hold, suspicions
from trimtab.tasks.loading import read_benchmark
from trimtab.tasks.settings import TaskSettings
from trimtab.traces import AnswerKind, Problem, Score, Split

DATA = Path(__file__).parents[2] / "data" / "benchmarks"


def _problem(question: str, answer: str, kind: AnswerKind = AnswerKind.MATH) -> Problem:
    return Problem(question[:20], question, answer, Split.TRAIN, kind=kind)


@pytest.mark.parametrize(
    ("question", "answer", "what"),
    [
        ("What is $\x0crac{1}{3}+1$?", "4/3", "the question has a control character"),
        ("Find $x$ in $\text{eq}: x = 4$.", "4", "the question has a control character"),
        ("Evaluate $\times$.", "1", "the question has a control character"),
        ("Evaluate it.", "\x0crac{1}{2}", "the gold answer has a control character"),
        ("Solve x + 2 = 5. The answer is 3.", "3", "the question gives the gold answer away: '3'"),
        ("Solve it. Answer: $\\frac{1}{2}$", "\\frac{1}{2}", "the question gives the gold answer away"),
        ("AIME problem: find m+n.", "1002", "the gold answer is no whole number from 0 to 999, as AIME's are: '1002'"),
        ("AIME problem: find m+n.", "1/2", "the gold answer is no whole number"),
        (
            "Why does it converge?",
            "Because the terms shrink fast enough, the partial sums stay below a bound and so have a limit.",
            "the gold answer is an explanation",
        ),
    ],
)
def test_a_broken_row_is_named(question: str, answer: str, what: str) -> None:
    (found,) = suspicions([_problem(question, answer), _problem("What is 2 + 2?", "4")])
    assert found.problem_id == question[:20]
    assert what in found.what


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is $\\frac{1}{3}+1$?", "4/3"),
        ("Two lines:\n\tone\n\ttwo", "2"),
        ("The answer is a number. Which number is 3 + 4?", "7"),
        ("The answer is 31 in base 4. What is it?", "3"),
        ("AIME problem: find m+n.", "025"),
        ("AIME problem: find the angle.", "336^\\circ"),
        ("Compute it.", "x^2+3x+\\frac{\\sqrt{5}-1}{2}y^2+\\text{ an arbitrary constant } C"),
    ],
)
def test_a_sound_row_is_not(question: str, answer: str) -> None:
    assert suspicions([_problem(question, answer)]) == []


def test_every_fault_of_a_row_is_named() -> None:
    found = suspicions([_problem("$\x0crac{2}{1}$. The answer is 1200.", "1200")], "aime24")
    assert [suspicion.what.split(":")[0] for suspicion in found] == [
        "the question has a control character where LaTeX has a backslash",
        "the question gives the gold answer away",
        "the gold answer is no whole number from 0 to 999, as AIME's are",
    ]
    assert all(isinstance(suspicion, Suspicion) for suspicion in found)


def test_golds_that_mathematics_cannot_read() -> None:
    problems = [_problem(f"{answer}?", answer) for answer in ("12:00", "7", "1, 2, \\ldots, n", "\\frac{1}{2}", "x+1")]
    assert [problem.answer for problem in compared_as_text(problems)] == ["12:00", "1, 2, \\ldots, n"]
    assert compared_as_text([_problem("?", "12:00", AnswerKind.EXACT)]) == []


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_graders_hold_in_every_benchmark(name: str) -> None:
    problems, _, _ = read_benchmark(BENCHMARKS[name], TaskSettings(source=name, data=str(DATA / f"{name}.jsonl")))
    controls = {control.name: control for control in graders_hold(problems)}
    assert {name: control.failed for name, control in controls.items()} == dict.fromkeys(controls, ())
    assert controls["gold answer"].n == controls["empty answer"].n == len(problems)


def test_a_control_that_fails_names_the_problems() -> None:
    controls = graders_hold([_problem("a?", "7"), Problem("b", "b?", "maybe", Split.TRAIN, kind=AnswerKind.YES_NO)])
    assert controls[0].failed == ("b",)
    assert controls[0].to_json() == {"control": "gold answer", "expected": Score.CORRECT.value, "n": 2, "failed": ["b"]}
