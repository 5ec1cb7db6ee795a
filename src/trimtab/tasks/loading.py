"""The problems of a run: the testbed's, a benchmark's, or those of any JSON lines or Parquet file."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from string import ascii_uppercase
from typing import NamedTuple

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.store import at_home
from trimtab.tasks.benchmark import Benchmark, Entry
from trimtab.tasks.benchmarks import BENCHMARKS
from trimtab.tasks.benchmarks.choice import letter_of, lettered, yes_or_no
from trimtab.tasks.benchmarks.code import code_tests, entry_point_of, tests_from_json
from trimtab.tasks.files import Row, read_rows, text_field
from trimtab.tasks.gym import gym_problems
from trimtab.tasks.near_duplicates import leaks
from trimtab.tasks.prompts import CHAT, Prompt
from trimtab.tasks.repositories import Origin, Piece, Provenance, digest_of_problems, pieces_of
from trimtab.tasks.settings import GYM, LOCAL, TESTBED, TaskSettings
from trimtab.tasks.splits import bounded, check_disjoint, named_split, shuffled, split_by_hash
from trimtab.testbed.problems import STREAMS, unique_problems
from trimtab.traces import AnswerKind, Problem, Split

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
            "changed: get the version that was pinned, or pin this one",
            code="data-changed",
        )
    problems = bounded(_of_domains(everything, settings), {split: settings.count(split) for split in Split})
    if settings.drop_leaks:
        leaking = {leak.id for leak in leaks(problems)}
        left_out["the test problem stands, exactly or nearly, in train or validation"] = len(leaking)
        problems = [problem for problem in problems if problem.id not in leaking]
    if not problems:
        raise NotEnoughDataError(f"task {settings.source!r} gave no problem for the asked splits", code="no-problem")
    return Task(problems, Provenance(settings.source, tuple(origins), digest, dict(left_out)))


def task_prompt(settings: TaskSettings) -> Prompt:
    """How the task's benchmark is asked; the bare question for any other source."""
    return BENCHMARKS[settings.source].prompt if settings.source in BENCHMARKS else CHAT


def _read(settings: TaskSettings) -> tuple[list[Problem], list[Origin], Counter[str]]:
    if settings.source == TESTBED:
        problems = [problem for split in Split for problem in _testbed(split, settings)]
        origins, left_out = [Origin(TESTBED, rows=len(problems))], Counter[str]()
    elif settings.source.startswith(LOCAL):
        path = at_home(settings.source.removeprefix(LOCAL))
        rows = list(read_rows(path))
        found = problems_of(rows, str(path), kind=settings.answer, fields=settings.fields)
        problems = _all_checked(found)
        origins, left_out = [Origin(str(path), rows=len(rows))], Counter[str]()
    elif settings.source.startswith(GYM):
        generated, origin, left_out = gym_problems(settings)
        problems, origins = _all_checked(generated), [origin]
    elif settings.source in BENCHMARKS:
        problems, pieces, left_out = read_benchmark(BENCHMARKS[settings.source], settings)
        return shuffled(problems, settings.seed), [piece.origin for piece in pieces], left_out
    else:
        raise InputError(
            f"unknown task {settings.source!r}; accepted: {TESTBED}, {LOCAL}PATH (a .jsonl or .parquet file), "
            f"{GYM}NAME (a family of reasoning-gym), or a benchmark: {', '.join(BENCHMARKS)}",
            code="unknown-task",
        )
    check_disjoint(problems)
    return problems, origins, left_out


MOST_OF_TESTBED = 1_000_000


def _testbed(split: Split, settings: TaskSettings) -> list[Problem]:
    if settings.count(split) > MOST_OF_TESTBED:
        raise InputError(f"task.{split} asks for {settings.count(split):,} problems of the testbed; it makes {MOST_OF_TESTBED:,}")
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


REPEATED = "the same question stands earlier in the same split"
REPEATED_OTHERWISE = "the same question stands earlier in the same split with another answer"


def read_benchmark(benchmark: Benchmark, settings: TaskSettings) -> tuple[list[Problem], list[Piece], Counter[str]]:
    """All problems of a benchmark in the order of its rows, the pieces they came from, and the rows left out by reason.

    A question that stands twice in one split counts once. One that stands in two splits, as official splits do, is kept in both
    and found by :func:`trimtab.tasks.near_duplicates.leaks`.

    Raises:
        InputError: the data cannot be read, a row does not fit the benchmark, or two problems have one id.
    """
    wanted = tuple(split for split in Split if settings.count(split))
    pieces = pieces_of(benchmark, settings.data, settings.revision, wanted)
    by_id: dict[str, Problem] = {}
    by_question: dict[tuple[Split, str], Problem] = {}
    left_out: Counter[str] = Counter()
    wrong: list[str] = []
    for piece in pieces:
        for number, row in enumerate(piece.rows, start=1):
            place = " ".join(filter(None, (piece.origin.where, piece.origin.config, piece.origin.split))) + f", row {number}"
            try:
                problem = _read_row(benchmark, piece, row, number, place)
            except InputError as error:
                wrong.append(str(error))
                continue
            if isinstance(problem, str):
                left_out[f"the row {problem}"] += 1
                continue
            before = by_question.setdefault((problem.split, problem.question), problem)
            if before is not problem:
                left_out[REPEATED if before.answer == problem.answer else REPEATED_OTHERWISE] += 1
                continue
            if by_id.setdefault(problem.id, problem) is not problem:
                wrong.append(f"{place}: id {problem.id!r} was already used for another question; give each problem its own id")
    _refuse(wrong)
    return list(by_id.values()), pieces, left_out


def _read_row(benchmark: Benchmark, piece: Piece, row: Row, number: int, place: str) -> Problem | str:
    """The problem of a row, or the reason why it is none."""
    try:
        reason = piece.leaves_out(row)
        return reason or checked(_problem_of_entry(benchmark, piece, benchmark.entry(row), row, number))
    except InputError as error:
        raise InputError(f"{place}: {error} (is this the data of {benchmark.name}?)") from error


def _problem_of_entry(benchmark: Benchmark, piece: Piece, entry: Entry, row: Row, number: int) -> Problem:
    if benchmark.domains and entry.domain not in benchmark.domains:
        raise InputError(f"unknown domain {entry.domain!r}; accepted: {', '.join(benchmark.domains)}")
    in_file = not piece.origin.split and row.get("split") is not None
    return Problem(
        id=entry.id or f"{piece.label}-{number:05d}",
        question=entry.question,
        answer=entry.answer,
        split=named_split(row["split"]) if in_file else split_by_hash(entry.question, piece.to),
        domain=entry.domain,
        difficulty=entry.difficulty,
        kind=benchmark.kind,
        choices=entry.choices,
        tests=entry.tests,
    )


COLUMNS = {"question": ("question", "problem", "prompt"), "answer": ("gold_answer", "answer")}
LETTERS_WITHOUT_CHOICES = ascii_uppercase[:10]


def problems_of(
    rows: Iterable[Row],
    where: str,
    split: Split | None = None,
    *,
    kind: AnswerKind = AnswerKind.EXACT,
    fields: Mapping[str, str] | None = None,
) -> list[Problem]:
    """Problems from rows with a question and a gold answer (``gold_answer``, else ``answer``); repeated ids must agree.

    Args:
        rows: what the file holds.
        where: its name, for messages.
        split: of all problems; None takes the row's ``split``, or a hash of its question.
        kind: of the answers. A choice problem with ``choices`` gets them as lettered lines; a code problem needs ``tests``,
            which are asserts or the JSON of :class:`trimtab.tasks.grading.code_tests.CodeTests`.
        fields: the column of each of our names that has another one in this file.

    Raises:
        InputError: a missing field, an unknown split, an answer that is none of this kind, or one id for two problems.
        NotEnoughDataError: no row.
    """
    found: dict[str, Problem] = {}
    wrong: list[str] = []
    number, missing = 0, list[InputError]()
    for number, row in enumerate(rows, start=1):
        place = f"{where}, row {number}"
        try:
            problem = _problem_of_row(_renamed(row, fields or {}, place), number, place, split, kind)
            _check_repeated(found.setdefault(problem.id, problem), problem, place)
        except InputError as error:
            told = str(error)
            missing += [error] if error.name == "no-such-field" else []
            wrong.append(told if told.startswith(place) else f"{place}: {told}")  # a value knows nothing of its file
    if missing and len(missing) == number:
        raise InputError(
            f"{missing[0]}. Every row of {where} lacks a field like this: name your columns in the section [task], "
            'fields = {question = "...", answer = "..."}',
            code="no-such-field",
        )
    _refuse(wrong)
    if not found:
        raise NotEnoughDataError(f"{where} holds no row; give a file with at least one")
    return list(found.values())


def _check_repeated(known: Problem, problem: Problem, place: str) -> None:
    for name in ("question", "answer", "split"):
        before, now = str(getattr(known, name)), str(getattr(problem, name))
        if before != now:
            raise InputError(
                f"{place}: id {problem.id!r} was already used with another {name} ({before[:60]!r}, here {now[:60]!r}); "
                "give each problem its own id, and its gold answer as gold_answer"
            )


def _refuse(wrong: Sequence[str]) -> None:
    """Raise InputError with every row that cannot be used, so that all are mended at once."""
    if len(wrong) == 1:
        raise InputError(wrong[0], code="unusable-rows")
    if wrong:
        more = [f"and {len(wrong) - MOST_SHOWN} more"] if len(wrong) > MOST_SHOWN else []
        raise InputError("\n  ".join([f"{len(wrong)} rows cannot be used:", *wrong[:MOST_SHOWN], *more]), code="unusable-rows")


def _problem_of_row(row: Row, number: int, place: str, split: Split | None, kind: AnswerKind) -> Problem:
    question, choices = text_field(row, COLUMNS["question"], place), _choices(row, place)
    answer = text_field(row, COLUMNS["answer"], place)
    try:
        if kind is AnswerKind.CHOICE:
            answer = letter_of(answer, choices or LETTERS_WITHOUT_CHOICES)
            question = lettered(question, choices) if choices else question
        elif kind is AnswerKind.YES_NO:
            answer = yes_or_no(answer)
        tests = _tests(row, answer) if kind is AnswerKind.CODE else ""
        named = named_split(row["split"]) if row.get("split") is not None else None
    except InputError as error:
        raise InputError(f"{place}: {error}") from error
    name = text_field({"number": number, **row}, ("id", "number"), place)
    if not question.strip():
        raise InputError(f"{place}: the question of problem {name!r} is empty; give it one, or remove the row")
    return Problem(
        id=name,
        question=question,
        answer=answer,
        split=split or named or split_by_hash(question),
        domain=str(row.get("domain") or ""),
        difficulty=_difficulty(row, place),
        kind=kind,
        choices=choices,
        tests=tests,
    )


def _renamed(row: Row, fields: Mapping[str, str], place: str) -> Row:
    """The row under our names; a column that was named takes the place of every name that is accepted by default."""
    missing = sorted(f"{column!r} (task.fields.{name})" for name, column in fields.items() if column not in row)
    if missing:
        raise InputError(f"{place} has no column {', '.join(missing)}; it has {', '.join(row)}")
    replaced = {name for ours in fields for name in COLUMNS.get(ours, (ours,))}
    kept = {name: value for name, value in row.items() if name not in replaced}
    return kept | {COLUMNS.get(ours, (ours,))[0]: row[column] for ours, column in fields.items()}


def _choices(row: Row, place: str) -> tuple[str, ...]:
    choices = row.get("choices") or []
    if isinstance(choices, dict):
        choices = choices.get("text")
    if not isinstance(choices, list):
        raise InputError(
            f'{place}: choices must be a list of texts, or {{"label": [...], "text": [...]}}, got {str(choices)[:80]}'
        )
    return tuple(str(choice) for choice in choices)


def _tests(row: Row, reference: str) -> str:
    """From asserts on a function that the reference solution defines, or from CodeTests as JSON, as text or not."""
    tests = row.get("tests")
    if tests is None:
        raise InputError(f"a code problem needs tests; the row has {', '.join(row)}")
    if isinstance(tests, list):
        asserts = [str(line) for line in tests]
        return code_tests(entry_point_of(reference, asserts), [{"name": "base", "asserts": asserts}])
    return tests_from_json(tests if isinstance(tests, str) else json.dumps(tests))


def _difficulty(row: Row, place: str) -> int:
    value = row.get("difficulty")
    try:
        return 0 if value is None else int(str(value))
    except ValueError as error:
        raise InputError(f"{place}: difficulty {value!r} is no whole number; give a number of steps, or leave it out") from error


MOST_SHOWN = 20
MAX_ANSWER = 20_000
MAX_QUESTION = 200_000


def _all_checked(problems: Iterable[Problem]) -> list[Problem]:
    kept, wrong = [], []
    for problem in problems:
        try:
            kept.append(checked(problem))
        except InputError as error:
            wrong.append(str(error))
    _refuse(wrong)
    return kept


def checked(problem: Problem) -> Problem:
    """The problem itself.

    Raises:
        InputError: an empty question or answer, or one that is too long to be real.
    """
    for name, text, most in (("question", problem.question, MAX_QUESTION), ("answer", problem.answer, MAX_ANSWER)):
        if not text.strip():
            raise InputError(f"the {name} of problem {problem.id!r} is empty; give it one, or remove the row")
        if len(text) > most:
            raise InputError(
                f"the {name} of problem {problem.id!r} has {len(text):,} characters, at most {most:,} are accepted; "
                "take the right column, or remove the row"
            )
    return problem
