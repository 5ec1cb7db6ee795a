"""Seconds to grade mathematical answers, one of which hangs the parser's algebra: ``python benchmarks/grade_speed.py``.

The answers are of twelve forms, mostly numbers as in MATH, every gold answer different, half of the answers wrong; the clock
runs from a grader without workers to the last verdict. Every verdict is known beforehand and checked: one that differs, or a
second unscored answer, ends the benchmark with exit status 1. On a busy machine look at ``cpu_s``, shared among the workers.
"""

import json
import os
import platform
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.metadata import version

import click

from trimtab.tasks.grading.grader import Judgement
from trimtab.tasks.grading.math import TIMEOUT_S, MathGrader
from trimtab.traces import AnswerKind, Problem, Score, Split

POISON = r"\boxed{\left(10!\right)!}"
FORMS: list[tuple[int, Callable[[int], str], Callable[[int], str]]] = [
    (6, str, lambda n: rf"\boxed{{{n}}}"),
    (6, str, lambda n: f"So he pays {n}.\n#### {n:,}"),
    (6, str, lambda n: f"That is 3 more.\nThe answer is ${n:,} per day."),
    (6, str, lambda n: rf"\boxed{{{n}\text{{ eggs}}}}"),
    (2, lambda n: f"{n}.5", lambda n: rf"\boxed{{{n}.50}}"),
    (4, lambda n: rf"\frac{{{n}}}{{{n + 3}}}", lambda n: rf"\boxed{{\frac{{{2 * n}}}{{{2 * n + 6}}}}}"),
    (3, lambda n: rf"{n}\sqrt{{3}}", lambda n: rf"\boxed{{\sqrt{{{3 * n * n}}}}}"),
    (2, lambda n: f"x^2+{n}x", lambda n: rf"\boxed{{x(x+{n})}}"),
    (2, lambda n: f"({n},{n + 1})", lambda n: rf"\boxed{{\left({n}, {n + 1}\right)}}"),
    (1, lambda n: f"{n},{n + 5}", lambda n: rf"\boxed{{{n + 5}, {n}}}"),
    (1, lambda n: rf"(-\infty,{n}]", lambda n: rf"\boxed{{(-\infty, {n}]}}"),
    (1, lambda n: f"y={n}x+3", lambda n: rf"\boxed{{y = 3 + {n}x}}"),
]
"""How often each form comes in forty answers, a gold answer from a number, and a response that states it."""


def make_answers(n: int) -> tuple[list[tuple[Problem, str]], list[Score]]:
    """Problems with responses, and the verdict that each must get; the middle one hangs."""
    forms = [form for times, *form in FORMS for _ in range(times)]
    answers, verdicts = [], []
    for i in range(n):
        gold, response = forms[i % len(forms)]
        right = i // len(forms) % 2 == 0
        answers.append(
            (Problem(f"p{i}", "?", gold(i + 2), Split.TEST, kind=AnswerKind.MATH), response(i + 2 if right else i + 3))
        )
        verdicts.append(Score.CORRECT if right else Score.INCORRECT)
    answers[n // 2] = (Problem("poison", "?", "5", Split.TEST, kind=AnswerKind.MATH), POISON)
    verdicts[n // 2] = Score.UNSCORED
    return answers, verdicts


def graded(answers: Sequence[tuple[Problem, str]], workers: int, timeout: float) -> tuple[float, list[Judgement], int]:
    """Seconds with a new grader, its judgements, and on how many its two checks disagree."""
    start = time.perf_counter()
    with MathGrader(timeout, workers) as grader:
        judgements = grader.judge(answers)
        return time.perf_counter() - start, judgements, len(grader.disagreements)


@click.command()
@click.option("--n", default=10_000, show_default=True, help="Answers.")
@click.option("--workers", default=2, show_default=True, help="Processes at most.")
@click.option("--timeout", default=TIMEOUT_S, show_default=True, help="Seconds for one comparison.")
def main(n: int, workers: int, timeout: float) -> None:
    """Print one JSON object: machine, versions, seconds, and the verdicts."""
    answers, wanted = make_answers(n)
    few = answers[:24]
    seconds_of_few, _, _ = graded(few, workers, timeout)
    seconds, judgements, disagreements = graded(answers, workers, timeout)
    cpu = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    wrong = [
        (problem.answer, response, *judgement)
        for (problem, response), judgement, verdict in zip(answers, judgements, wanted, strict=True)
        if judgement.score is not verdict
    ]
    table = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "workers": workers,
        "math-verify": version("math-verify"),
        "n": n,
        "forms": len(FORMS),
        "seconds": round(seconds, 1),
        "answers_per_s": round(n / seconds),
        "timeout_s": timeout,
        "cpu_s": round(cpu, 1),
        "seconds for 24": round(seconds_of_few, 2),
        "verdicts": dict(Counter(judgement.score.value for judgement in judgements)),
        "not as made": wrong[:10],
        "checks disagree": disagreements,
    }
    click.echo(json.dumps(table, indent=2))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
