"""The cost of grading a program over running it: ``python benchmarks/sandbox_overhead.py``.

A program with one test that takes no time is graded many times, one at a time, through the whole path: the program is found in
the response, a process is started, isolated and ended, and the test runs in the tester. Wall time is the user's waiting time,
read on an idle machine; processor time is that of all processes of a program together, and hardly depends on other load.
A bare ``python -S -c pass`` is timed in turn with it, as the floor of any design that starts a process for each program.
"""

import json
import os
import platform
import resource
import statistics
import subprocess
import time
from collections.abc import Callable

import click

from trimtab.errors import TrimtabError
from trimtab.tasks.grading.code import CodeGrader, CodeTests, Suite
from trimtab.tasks.sandbox import Sandbox
from trimtab.tasks.sandbox.command import clean_environment, python_command
from trimtab.traces import AnswerKind, Problem, Score, Split

RESPONSE = "```python\ndef add(a, b):\n    return a + b\n```\n"
TESTS = CodeTests(entry_point="add", suites=(Suite(name="base", asserts=("assert add(1, 2) == 3",)),))
PROBLEM = Problem("add", "Add two numbers.", "", Split.TEST, kind=AnswerKind.CODE, tests=TESTS.model_dump_json())


def processor_seconds() -> float:
    """User and system time of this process and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def start_python() -> None:
    """Start an interpreter that does nothing, and wait for it."""
    interpreter = python_command("")[0]
    subprocess.run([interpreter, "-S", "-c", "pass"], check=True, env=clean_environment("/"))


def timed(action: Callable[[], object], times: int) -> dict[str, float]:
    """Milliseconds of one action: wall time and processor time, medians, and the wall time that nine in ten stay under."""
    wall, processor = [], []
    for _ in range(times):
        start, used = time.perf_counter(), processor_seconds()
        action()
        wall.append(1e3 * (time.perf_counter() - start))
        processor.append(1e3 * (processor_seconds() - used))
    return {
        "wall_ms": round(statistics.median(wall), 1),
        "wall_ms_90": round(statistics.quantiles(wall, n=10)[-1], 1),
        "processor_ms": round(statistics.median(processor), 1),
    }


def overhead(sandbox: Sandbox, times: int) -> dict[str, float]:
    """Milliseconds a program, one at a time in one call of ``judge``, so that the tester is started once."""
    grader = CodeGrader(sandbox, workers=1)
    wall, processor = [], []
    for _ in range(3):
        start, used = time.perf_counter(), processor_seconds()
        judgements = grader.judge([(PROBLEM, RESPONSE)] * times)
        wall.append(1e3 * (time.perf_counter() - start) / times)
        processor.append(1e3 * (processor_seconds() - used) / times)
        wrong = [judgement.reason for judgement in judgements if judgement.score is not Score.CORRECT]
        if wrong:
            raise click.ClickException(f"{len(wrong)} of {times} programs were not graded correct: {wrong[0]}")
    return {"wall_ms": round(statistics.median(wall), 1), "processor_ms": round(statistics.median(processor), 1)}


def per_call(sandbox: Sandbox, calls: int) -> float:
    """Microseconds that one more call of the program costs a test: the median of three differences."""

    def seconds(count: int) -> float:
        tests = TESTS.model_copy(update={"suites": (Suite(name="base", source=f"for n in range({count}):\n    add(n, 1)\n"),)})
        problem = Problem("add", "Add.", "", Split.TEST, kind=AnswerKind.CODE, tests=tests.model_dump_json())
        start = time.perf_counter()
        CodeGrader(sandbox, workers=1).judge([(problem, RESPONSE)])
        return time.perf_counter() - start

    return round(statistics.median(1e6 * (seconds(calls) - seconds(1)) / (calls - 1) for _ in range(3)), 1)


@click.command()
@click.option("--programs", default=60, show_default=True)
def main(programs: int) -> None:
    """Print one JSON object: machine, load, and milliseconds a program for each backend that works here."""
    backends: dict[str, object] = {}
    for backend in ("bwrap", "namespaces", "limits"):
        try:
            sandbox = Sandbox(backend=backend, unsafe=True)
        except TrimtabError as error:
            backends[backend] = str(error)
            continue
        backends[backend] = {**overhead(sandbox, programs), "us_per_call": per_call(sandbox, 2000), "layers": sandbox.describe()}
    table = {
        "machine": platform.processor() or platform.machine(),
        "processors": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "programs": programs,
        "bare interpreter": timed(start_python, programs),
        "backends": backends,
    }
    click.echo(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
