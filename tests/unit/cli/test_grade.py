"""``trimtab grade FILE``: any answers, without a run."""

import json
import sys
from pathlib import Path

import pytest

from trimtab.cli import main as module

ROWS = [
    {"id": "m", "kind": "math", "gold": "\\frac{1}{2}", "response": "The answer is 0.5.", "note": "not read"},
    {"id": "c", "kind": "choice", "gold": "B", "choices": ["a hat", "a coat"], "response": "I'd go with A."},
    {"id": "y", "kind": "yes-no", "gold": "no", "response": "Therefore the statement is false."},
    {"kind": "exact", "gold": "north", "response": "</think>North"},
    {
        "id": "p",
        "kind": "code",
        "entry_point": "twice",
        "preamble": "",
        "tests": {"suites": [{"name": "base", "asserts": ["assert twice(2) == 4"]}]},
        "response": "[PYTHON]\ndef twice(x):\n    return 2 * x\n[/PYTHON]",
    },
]


def _grade(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["trimtab", "grade", *map(str, arguments)])
    code: object = 0
    try:
        module.main()
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert isinstance(code, int | None)
    return int(code or 0), out, err


def _file(folder: Path, rows: list[dict[str, object]]) -> Path:
    path = folder / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_one_line_an_answer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = _grade(monkeypatch, capsys, _file(tmp_path, ROWS))
    graded = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [(one["id"], one["verdict"]) for one in graded] == [
        ("m", "correct"),
        ("c", "incorrect"),
        ("y", "correct"),
        ("4", "correct"),
        ("p", "correct"),
    ]
    assert [set(one) for one in graded] == [{"id", "verdict", "answer", "reason"}] * 5
    assert (graded[0]["answer"], graded[1]["answer"]) == ("0.5", "A")
    assert err == "4 correct, 1 incorrect, 0 unscored of 5\n"
    assert json.loads(_grade(monkeypatch, capsys, tmp_path / "answers.jsonl", "--json", "--quiet")[1]) == graded


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "essay"}, "unknown kind 'essay'; accepted: exact, math, choice, yes-no, code"),
        ({"gold": None}, "the row has none of the fields gold"),
        ({"gold": " "}, "the gold answer is empty"),
        ({"response": None}, "the row has none of the fields response"),
        ({"kind": "choice", "choices": "AB"}, "choices must be a list of texts"),
        ({"kind": "code"}, "code needs tests"),
        ({"kind": "code", "tests": {"suites": []}}, "tests must have suites"),
    ],
)
def test_every_row_that_cannot_be_graded_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, change: dict[str, object], message: str
) -> None:
    bad = {key: value for key, value in {**ROWS[0], **change}.items() if value is not None}
    code, out, err = _grade(monkeypatch, capsys, _file(tmp_path, [ROWS[1], {**bad, "id": "1"}, {**bad, "id": "2"}]))
    assert (code, out) == (1, "")
    assert "2 rows of" in err
    assert f"row 2: {message}" in err
    assert f"row 3: {message}" in err


def test_an_id_that_stands_twice(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = _grade(monkeypatch, capsys, _file(tmp_path, [ROWS[0], ROWS[0]]))
    assert (code, "id 'm' is that of row 1 too" in err) == (1, True)
