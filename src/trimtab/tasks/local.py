"""Problems from any file with questions and answers."""

import json
from collections.abc import Iterable, Mapping
from string import ascii_uppercase

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.tasks.benchmarks.programs import code_tests, entry_point_of, tests_from_json
from trimtab.tasks.choices import letter_of, lettered, yes_or_no
from trimtab.tasks.files import Row, text_field
from trimtab.tasks.splits import named_split, split_by_hash
from trimtab.traces import AnswerKind, Problem, Split

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
    for number, row in enumerate(rows, start=1):
        place = f"{where}, row {number}"
        problem = _problem(_renamed(row, fields or {}, place), number, place, split, kind)
        known = found.setdefault(problem.id, problem)
        for name in ("question", "answer", "split"):
            before, now = str(getattr(known, name)), str(getattr(problem, name))
            if before != now:
                raise InputError(
                    f"{place}: id {problem.id!r} was already used with another {name} ({before[:60]!r}, here {now[:60]!r}); "
                    "give each problem its own id, and its gold answer as gold_answer"
                )
    if not found:
        raise NotEnoughDataError(f"{where} holds no row; give a file with at least one")
    return list(found.values())


def _problem(row: Row, number: int, place: str, split: Split | None, kind: AnswerKind) -> Problem:
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
    return Problem(
        id=text_field({"number": number, **row}, ("id", "number"), place),
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
