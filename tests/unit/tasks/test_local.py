"""Files of one's own: columns with other names, and each kind of answer."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from trimtab.errors import InputError
from trimtab.tasks.grading.code_tests import CodeTests
from trimtab.tasks.local import problems_of
from trimtab.tasks.problems import load_problems
from trimtab.tasks.settings import TaskSettings
from trimtab.traces import AnswerKind, Split


def test_columns_with_other_names() -> None:
    row = {"prompt": "not this", "body": "What?", "key": 7, "nr": 3, "topic": "sums", "steps": 2, "part": "tune", "answer": "no"}
    fields = {"question": "body", "answer": "key", "id": "nr", "domain": "topic", "difficulty": "steps", "split": "part"}
    problem = problems_of([row], "f", fields=fields)[0]
    assert (problem.question, problem.answer, problem.id, problem.domain, problem.difficulty, problem.split) == (
        "What?",
        "7",
        "3",
        "sums",
        2,
        Split.VALIDATION,
    )


def test_a_named_column_is_never_replaced_by_a_default_one() -> None:
    with pytest.raises(InputError, match="f, row 1 has none of the fields gold_answer, answer"):
        problems_of([{"question": "x", "key": None, "answer": "1"}], "f", fields={"answer": "key"})
    with pytest.raises(InputError, match=r"f, row 2 has no column 'key' \(task\.fields\.answer\); it has question, answer"):
        problems_of([{"question": "x", "key": "1"}, {"question": "y", "answer": "1"}], "f", fields={"answer": "key"})


def test_choice() -> None:
    rows = [
        {"question": "Even?", "choices": ["3", "4"], "answer": "b"},
        {"question": "Odd?", "choices": {"label": ["A", "B"], "text": ["3", "4"]}, "answer": "A"},
        {"question": "Which?\nA. one\nB. two", "answer": "B"},
    ]
    problems = problems_of(rows, "f", kind=AnswerKind.CHOICE)
    assert [(p.question, p.answer, p.choices) for p in problems] == [
        ("Even?\nA. 3\nB. 4", "B", ("3", "4")),
        ("Odd?\nA. 3\nB. 4", "A", ("3", "4")),
        ("Which?\nA. one\nB. two", "B", ()),
    ]


@pytest.mark.parametrize(
    ("kind", "row", "message"),
    [
        (
            "choice",
            {"question": "x", "choices": ["3", "4"], "answer": "C"},
            "f, row 1: the gold answer 'C' names no choice; .* A, B",
        ),
        ("choice", {"question": "x", "choices": ["3", "4"], "answer": 1}, "the gold answer '1' names no choice"),
        ("choice", {"question": "x", "choices": ["3"], "answer": "A"}, "needs 2 to 26 choices, got 1"),
        ("choice", {"question": "x", "choices": "3 or 4", "answer": "A"}, "choices must be a list of texts"),
        ("yes-no", {"question": "x", "answer": "maybe"}, "f, row 1: the gold answer 'maybe' is neither yes nor no"),
        (
            "code",
            {"question": "x", "answer": "def f(): ..."},
            "f, row 1: a code problem needs tests; the row has question, answer",
        ),
        ("code", {"question": "x", "answer": "def f(): ...", "tests": "{}"}, "no CodeTests .entry_point: Field required"),
        ("code", {"question": "x", "answer": "def f(): ...", "tests": ["assert g(1)"]}, r"no test calls what .* defines \(f\)"),
    ],
)
def test_answers_that_are_none_of_their_kind(kind: str, row: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        problems_of([row], "f", kind=AnswerKind(kind))


def test_code() -> None:
    tests = {"entry_point": "f", "suites": [{"name": "base", "asserts": ["assert f(1) == 2"]}]}
    forms = [tests, json.dumps(tests), ["assert f(1) == 2"]]
    rows = [{"question": f"x{i}", "answer": "def f(x):\n    return x + 1", "tests": form} for i, form in enumerate(forms)]
    problems = problems_of(rows, "f", kind=AnswerKind.CODE)
    assert {CodeTests.model_validate_json(p.tests) for p in problems} == {CodeTests.model_validate(tests)}


@pytest.mark.parametrize(("answer", "expected"), [(True, "yes"), ("No", "no"), ("false", "no"), (" YES ", "yes")])
def test_yes_no(answer: object, expected: str) -> None:
    assert problems_of([{"question": "x", "answer": answer}], "f", kind=AnswerKind.YES_NO)[0].answer == expected


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "x", "answer": ""}, "the answer of problem '1' is empty; give it one, or remove the row"),
        ({"question": "x", "answer": "7" * 1_000_000}, "the answer of problem '1' has 1,000,000 characters, at most 20,000"),
        ({"question": "  ", "answer": "7"}, "the question of problem '1' is empty"),
        ({"question": "\ud800", "answer": "7"}, "is not Unicode text"),
    ],
)
def test_rows_that_cost_nothing_yet(tmp_path: Path, row: dict[str, str], message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match=message):
        load_problems(TaskSettings(source=f"local:{path}"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"source": "gsm8k", "answer": "math"}, "'gsm8k' declares its own"),
        ({"source": "gsm8k", "fields": {"question": "q"}}, "'gsm8k' declares its own"),
        ({"source": "local:x.jsonl", "fields": {"text": "q"}}, "fields names text; accepted: question, answer, id"),
        ({"source": "local:x.jsonl", "revision": "abc"}, "data and revision belong to a benchmark"),
        ({"source": "testbed", "data": "x"}, "data and revision belong to a benchmark"),
        ({"source": "gsm8k", "data": "x", "revision": "abc"}, "give one of the two"),
        ({"source": "local:x.jsonl", "answer": "essay"}, "Input should be 'exact', 'math', 'choice', 'yes-no' or 'code'"),
    ],
)
def test_settings_that_the_source_would_not_read(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TaskSettings.model_validate(values)
