"""The problems of a run: the testbed's, a benchmark's, or those of any JSON lines or Parquet file."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.tasks.benchmarks import BENCHMARKS
from trimtab.tasks.checks import checked
from trimtab.tasks.files import read_rows
from trimtab.tasks.loading import read_benchmark
from trimtab.tasks.local import problems_of
from trimtab.tasks.near_duplicates import leaks
from trimtab.tasks.prompts import CHAT, Prompt
from trimtab.tasks.provenance import Origin, Provenance, digest_of_problems
from trimtab.tasks.settings import LOCAL, TESTBED, TaskSettings
from trimtab.tasks.splits import bounded, check_disjoint, shuffled
from trimtab.testbed.problems import STREAMS, unique_problems
from trimtab.traces import Problem, Split

__all__ = ["Task", "TaskSettings", "check_disjoint", "load_problems", "load_task", "problems_of", "task_prompt"]


class Task(NamedTuple):
    """The problems of a run, train first, then validation, then test, and where they came from."""

    problems: list[Problem]
    provenance: Provenance


def load_problems(settings: TaskSettings) -> list[Problem]:
    """:func:`load_task` without the provenance."""
    return load_task(settings).problems


def load_task(settings: TaskSettings) -> Task:
    """All problems of a task with their provenance.

    The digest is taken of everything that was read, before domains, counts and leaks choose among it, so that it names the data
    and not the choice.

    Raises:
        InputError: unknown source, data that cannot be read or does not fit, another digest than asked for, or the same question
            twice in a file of one's own.
        NotEnoughDataError: no problem is left.
    """
    everything, origins, left_out = _read(settings)
    digest = digest_of_problems(everything)
    if settings.digest and settings.digest != digest:
        raise InputError(
            f"the problems of {settings.source} have the digest {digest}, and task.digest asks for {settings.digest}; the data "
            "changed: get the version that was pinned, or pin this one"
        )
    problems = bounded(_of_domains(everything, settings), {split: settings.count(split) for split in Split})
    if settings.drop_leaks:
        leaking = {leak.id for leak in leaks(problems)}
        left_out["the test problem stands, exactly or nearly, in train or validation"] = len(leaking)
        problems = [problem for problem in problems if problem.id not in leaking]
    if not problems:
        raise NotEnoughDataError(f"task {settings.source!r} gave no problem for the asked splits")
    return Task(problems, Provenance(settings.source, tuple(origins), digest, dict(left_out)))


def task_prompt(settings: TaskSettings) -> Prompt:
    """How the task's benchmark is asked; the bare question for any other source."""
    return BENCHMARKS[settings.source].prompt if settings.source in BENCHMARKS else CHAT


def _read(settings: TaskSettings) -> tuple[list[Problem], list[Origin], Counter[str]]:
    if settings.source == TESTBED:
        problems = [problem for split in Split for problem in _testbed(split, settings)]
        origins, left_out = [Origin(TESTBED, rows=len(problems))], Counter[str]()
    elif settings.source.startswith(LOCAL):
        path = Path(settings.source.removeprefix(LOCAL)).expanduser()
        rows = list(read_rows(path))
        found = problems_of(rows, str(path), kind=settings.answer, fields=settings.fields)
        problems = [checked(problem) for problem in found]
        origins, left_out = [Origin(str(path), rows=len(rows))], Counter[str]()
    elif settings.source in BENCHMARKS:
        problems, pieces, left_out = read_benchmark(BENCHMARKS[settings.source], settings)
        return shuffled(problems, settings.seed), [piece.origin for piece in pieces], left_out
    else:
        raise InputError(
            f"unknown task {settings.source!r}; accepted: {TESTBED}, {LOCAL}PATH (a .jsonl or .parquet file), "
            f"or a benchmark: {', '.join(BENCHMARKS)}"
        )
    check_disjoint(problems)
    return problems, origins, left_out


def _testbed(split: Split, settings: TaskSettings) -> list[Problem]:
    return [
        Problem(f"{STREAMS[split]}-{i:05d}", p.question, p.answer, split, p.instance.domain, p.instance.steps)
        for i, p in enumerate(unique_problems(split, settings.count(split), settings.seed))
    ]


def _of_domains(problems: list[Problem], settings: TaskSettings) -> list[Problem]:
    known = sorted({problem.domain for problem in problems} - {""})
    unknown = sorted(set(settings.domains) - set(known))
    if unknown:
        raise InputError(f"task.domains names {', '.join(unknown)}; {settings.source} has {', '.join(known) or 'no domains'}")
    return [problem for problem in problems if not settings.domains or problem.domain in settings.domains]
