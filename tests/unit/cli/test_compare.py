"""``trimtab compare``: a table or one JSON object, and a refusal that lists what differs."""

import json
import sys
from pathlib import Path

import pytest

from outcome_samples import outcomes, run_folder
from trimtab.cli.main import main


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """Two runs, the second with six more problems right."""
    a, b = "1" * 10 + "0" * 10, "1" * 16 + "0" * 4
    first = run_folder(tmp_path / "a", [*outcomes("gated", a), *outcomes("always", a)])
    return first, run_folder(tmp_path / "b", [*outcomes("gated", b), *outcomes("always", a)], model={"source": "two"})


def _call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["trimtab", "compare", *map(str, arguments)])
    code: object = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert isinstance(code, int | None)
    return int(code or 0), out, err


def test_the_gated_conditions_are_compared(runs, monkeypatch, capsys) -> None:
    code, out, err = _call(monkeypatch, capsys, *runs)
    assert (code, err) == (0, "")
    text = " ".join(out.split())
    assert "gated, n = 20 problems" in text
    assert "by domain" in text
    assert "Helps: accuracy went from 50.0 % to 80.0 %, a gain of +30.0 points" in text
    assert "exact McNemar p = 0.031; 6 fixed, 0 broken, n = 20)" in text


def test_json_is_one_object(runs, monkeypatch, capsys) -> None:
    code, out, err = _call(monkeypatch, capsys, *runs, "--json")
    assert (code, err) == (0, "")
    data = json.loads(out)
    assert (data["verdict"], data["condition"], data["comparison"]["fixed"]) == ("helps", "gated", 6)
    assert data["runs"] == [str(run) for run in runs]


def test_another_condition(runs, monkeypatch, capsys) -> None:
    code, out, _ = _call(monkeypatch, capsys, *runs, "--condition", "always", "--json")
    assert (code, json.loads(out)["verdict"]) == (0, "no evidence")
    code, out, err = _call(monkeypatch, capsys, *runs, "--condition", "majority")
    assert (code, out) == (1, "")
    assert "has no condition 'majority'; it has gated, always" in err


def test_what_differs_is_listed(runs, tmp_path, monkeypatch, capsys) -> None:
    other = run_folder(tmp_path / "c", outcomes("gated", "1" * 20), sampling={"max_new_tokens": 7})
    code, out, err = _call(monkeypatch, capsys, runs[0], other)
    assert (code, out) == (1, "")
    assert "sampling.max_new_tokens: 100 -> 7" in err
    code, _, err = _call(monkeypatch, capsys, runs[0], tmp_path / "none")
    assert code == 1
    assert "Traceback" not in err
