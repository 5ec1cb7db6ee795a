"""Answers of any file, one JSON object a line with what is needed to grade it, without a run."""

import json
from collections.abc import Iterable
from typing import NamedTuple

from trimtab.errors import InputError
from trimtab.store import parse_json
from trimtab.tasks.benchmarks.code import code_tests, tests_from_json
from trimtab.tasks.files import Row, text_field
from trimtab.tasks.grading.grader import Grader
from trimtab.traces import AnswerKind, Problem, Split

MOST_SHOWN = 20


class GivenAnswer(NamedTuple):
    """One answer of a file, and the problem that it is judged by; the problem's question is not known."""

    problem: Problem
    response: str


def read_answers(rows: Iterable[Row], where: str) -> list[GivenAnswer]:
    """Answers from rows of ``kind``, ``gold`` and ``response``; ``id`` is the row's number where there is none.

    A choice may come with ``choices``. Code comes without ``gold``, with ``entry_point``, ``tests`` (``{"suites": [...]}`` as in
    :class:`trimtab.tasks.grading.code.CodeTests`, or a list of asserts) and a ``preamble``, which may be empty. Other
    fields are not read.

    Args:
        rows: what the file holds.
        where: its name, for messages.

    Raises:
        InputError: names every row that cannot be used, and why; or no row, or one id twice.
    """
    answers: list[GivenAnswer] = []
    wrong: list[str] = []
    places: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        try:
            answer = _answer(row, number)
        except InputError as error:
            wrong.append(f"row {number}: {error}")
            continue
        first = places.setdefault(answer.problem.id, number)
        if first != number:
            wrong.append(f"row {number}: id {answer.problem.id!r} is that of row {first} too; give each row its own")
        answers.append(answer)
    if wrong:
        shown = "\n  ".join([*wrong[:MOST_SHOWN], *([f"and {len(wrong) - MOST_SHOWN} more"] if len(wrong) > MOST_SHOWN else [])])
        raise InputError(f"{len(wrong)} rows of {where} cannot be graded:\n  {shown}")
    if not answers:
        raise InputError(f"{where} holds no row; give a file with at least one")
    return answers


def grade_answers(answers: list[GivenAnswer], grader: Grader) -> list[dict[str, str]]:
    """``id``, ``verdict``, ``answer`` (what was extracted) and ``reason`` of each answer, in order."""
    judged = grader.judge(answers)
    return [
        {"id": given.problem.id, "verdict": one.score.value, "answer": one.answer, "reason": one.reason}
        for given, one in zip(answers, judged, strict=True)
    ]


def _answer(row: Row, number: int) -> GivenAnswer:
    kind = _kind(row)
    response = text_field(row, ("response",), "the row")
    code = kind is AnswerKind.CODE
    problem = Problem(
        id=text_field({"number": number, **row}, ("id", "number"), "the row"),
        question="(not in the file)",
        answer="" if code else text_field(row, ("gold",), "the row"),
        split=Split.TEST,
        kind=kind,
        choices=_choices(row),
        tests=_tests(row) if code else "",
    )
    if not code and not problem.answer.strip():
        raise InputError("the gold answer is empty; give it one, or remove the row")
    return GivenAnswer(problem, response)


def _kind(row: Row) -> AnswerKind:
    kinds = [kind.value for kind in AnswerKind if kind is not AnswerKind.GYM]  # whose verifier needs the problem, not its gold
    if row.get("kind") not in kinds:
        raise InputError(f"unknown kind {row.get('kind')!r}; accepted: {', '.join(kinds)}")
    return AnswerKind(str(row["kind"]))


def _choices(row: Row) -> tuple[str, ...]:
    choices = row.get("choices")
    if choices is None:
        return ()
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise InputError(f"choices must be a list of texts, got {str(choices)[:80]}")
    return tuple(choices)


def _tests(row: Row) -> str:
    tests, preamble = row.get("tests"), str(row.get("preamble") or "")
    if isinstance(tests, str):
        try:
            tests = parse_json(tests)
        except ValueError as error:
            raise InputError(f"tests is a text that is no JSON ({error}); give an object or a list of asserts") from error
    if isinstance(tests, list):
        tests = {"suites": [{"name": "base", "asserts": tests}]}
    if not isinstance(tests, dict):
        raise InputError(f'code needs tests, {{"suites": [...]}} or a list of asserts; the row has {", ".join(row)}')
    if "entry_point" in tests:
        return tests_from_json(json.dumps({"preamble": preamble, **tests}))
    unknown = sorted(set(tests) - {"suites"})
    suites = tests.get("suites")
    if unknown or not isinstance(suites, list) or not suites:
        raise InputError(
            f"tests must have suites, a list, and nothing else beside entry_point and preamble; it has {', '.join(tests)}"
        )
    return code_tests(text_field(row, ("entry_point",), "the row"), suites, preamble)
