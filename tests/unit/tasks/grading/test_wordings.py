"""Forty wordings of an answer: with the gold answer each is correct, with another problem's it is not."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from trimtab.tasks.benchmarks import BENCHMARKS
from trimtab.tasks.grading.grade import KindGrader
from trimtab.tasks.grading.math_notation import same_text
from trimtab.tasks.loading import read_benchmark
from trimtab.tasks.settings import TaskSettings
from trimtab.traces import AnswerKind, Problem

DATA = Path(__file__).parents[3] / "data" / "benchmarks"
# @ stands for the answer; of mathematics it is in dollar signs where the wording says so
WORDINGS = [
    "The answer is @.",
    "The final answer is @.",
    "So the answer is @.",
    "Therefore, the answer is @",
    "Thus, the final answer is: @",
    "the answer is @",
    "The correct answer is @.",
    "My answer is @.",
    "My final answer: @",
    "Answer: @",
    "Answer: @.",
    "ANSWER: @",
    "answer: @",
    "**Answer:** @",
    "**Answer: @**",
    "**Final Answer:** @",
    "### Answer\n@",
    "## Final Answer\n\n@",
    "Answer\n------\n@",
    "Final answer: @",
    "Final answer - @",
    "Answer = @",
    "#### @",
    "Some steps.\n#### @",
    "<answer>@</answer>",
    "<answer>\n@\n</answer>",
    "<think>Let me see.</think>The answer is @.",
    "<think>Hmm.</think>\n\n<answer>@</answer>",
    "[THINK]Hmm.[/THINK]The answer is @.",
    "The answer is @.<|im_end|>",
    "The answer is @</s>",
    "\u7b54\u6848\uff1a@",
    "\u7b54\u6848\u662f @\u3002",
    "\u6700\u7ec8\u7b54\u6848\u662f\uff1a@",
    "Antwort: @",
    "La respuesta es @.",
    "R\u00e9ponse : @",
    "\\boxed{@}",
    "$\\boxed{@}$",
    "\\[\\boxed{@}\\]",
    "The answer is $\\boxed{@}$.",
    "The final answer is $\\boxed{@}$. I hope it is correct.",
    "I first thought of another one. The answer is @.",
    "It took a while, but the answer is @.",
]
KINDS = (AnswerKind.MATH, AnswerKind.CHOICE, AnswerKind.YES_NO)


def _problems() -> list[Problem]:
    found = []
    for name, benchmark in BENCHMARKS.items():
        if benchmark.kind in KINDS:
            found += read_benchmark(benchmark, TaskSettings(source=name, data=str(DATA / f"{name}.jsonl")))[0]
    return found


PROBLEMS = _problems()


@pytest.fixture(scope="module")
def grader() -> Iterator[KindGrader]:
    with KindGrader() as made:
        yield made


def _worded(wording: str, problem: Problem, answer: str) -> str:
    boxed = "boxed" in wording
    return wording.replace("@", answer if boxed or problem.kind is not AnswerKind.MATH or answer.isalnum() else f"${answer}$")


def _json(answer: str) -> str:
    return json.dumps({"reasoning": "two steps", "answer": answer})


def _other(problem: Problem) -> str:
    """The gold answer of the next problem of the same kind that has another one."""
    place = PROBLEMS.index(problem)
    for other in [*PROBLEMS[place + 1 :], *PROBLEMS[:place]]:
        if other.kind is problem.kind and not same_text(other.answer, problem.answer):
            return other.answer
    raise AssertionError(problem.id)


@pytest.mark.parametrize("wording", [*WORDINGS, "json"])
def test_every_wording(grader: KindGrader, wording: str) -> None:
    def say(problem: Problem, answer: str) -> str:
        return _json(answer) if wording == "json" else _worded(wording, problem, answer)

    right = grader.judge([(problem, say(problem, problem.answer)) for problem in PROBLEMS])
    wrong = grader.judge([(problem, say(problem, _other(problem))) for problem in PROBLEMS])
    assert [(p.id, p.answer, j.answer, j.reason) for p, j in zip(PROBLEMS, right, strict=True) if j.score != "correct"] == []
    assert [(p.id, p.answer, j.answer, j.reason) for p, j in zip(PROBLEMS, wrong, strict=True) if j.score != "incorrect"] == []
