"""``trimtab compare``: text or one JSON object, refusals in one message, and no torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from comparison_samples import harness_folder, inspect_log, simple_rows, write_rows
from outcome_samples import outcomes, run_folder
from trimtab.cli.main import main

A, B = "1" * 10 + "0" * 10, "1" * 16 + "0" * 4


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Two files, the second with six more documents right."""
    a, b = (write_rows(tmp_path / f"{name}.jsonl", simple_rows(rows, response=name)) for name, rows in (("a", A), ("b", B)))
    return a, b


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


def test_the_verdict_is_text(files, monkeypatch, capsys) -> None:
    code, out, err = _call(monkeypatch, capsys, *files)
    assert (code, err) == (0, "")
    assert "Better: accuracy went from 50.0 % to 80.0 %, a gain of +30.0 points" in out
    assert "exact McNemar p = 0.031; 6 fixed, 0 broken, n = 20)" in out
    assert "== fixed" not in out


def test_json_is_one_object(files, monkeypatch, capsys) -> None:
    code, out, err = _call(monkeypatch, capsys, *files, "--json")
    assert (code, err) == (0, "")
    (against,) = json.loads(out)["against"]
    assert (against["word"], against["overall"]["fixed"], against["input"]["source"]) == ("better", 6, str(files[1]))
    assert "flips" not in against
    _, out, _ = _call(monkeypatch, capsys, *files, "--json", "--flips")
    assert [flip["other"]["response"] for flip in json.loads(out)["against"][0]["flips"]] == ["b"] * 6


def test_flips_show_both_responses(files, monkeypatch, capsys) -> None:
    _, out, _ = _call(monkeypatch, capsys, *files, "--flips")
    assert out.count("== fixed: document ") == 6
    assert "-- A, incorrect\na\n-- B, correct\nb\n" in out


def test_a_condition_of_two_runs(tmp_path, monkeypatch, capsys) -> None:
    first = run_folder(tmp_path / "a", [*outcomes("gated", A), *outcomes("always", A)])
    second = run_folder(tmp_path / "b", [*outcomes("gated", B), *outcomes("always", A)], model={"source": "two"})
    code, out, _ = _call(monkeypatch, capsys, first, second, "--json")
    result = json.loads(out)
    assert (code, result["base"]["model"], result["against"][0]["input"]["model"]) == (0, "one", "two")
    assert (result["against"][0]["word"], result["against"][0]["overall"]["fixed"]) == ("better", 6)
    assert [row["task"] for row in result["against"][0]["tasks"]] == ["even", "odd"]
    _, out, _ = _call(monkeypatch, capsys, first, second, "--condition", "always", "--json")
    assert json.loads(out)["against"][0]["word"] == "no evidence"
    code, out, err = _call(monkeypatch, capsys, first, second, "--condition", "majority")
    assert (code, out) == (1, "")
    assert "has no condition 'majority'; it has gated, always" in err


def test_runs_measured_otherwise_are_refused(tmp_path, monkeypatch, capsys) -> None:
    first = run_folder(tmp_path / "a", outcomes("gated", A))
    other = run_folder(tmp_path / "c", outcomes("gated", B), sampling={"max_new_tokens": 7})
    code, out, err = _call(monkeypatch, capsys, first, other)
    assert (code, out) == (1, "")
    assert "sampling.max_new_tokens: 100 -> 7" in err
    code, out, _ = _call(monkeypatch, capsys, first, other, "--allow", "sampling.max_new_tokens")
    assert code == 0
    assert "even: sampling.max_new_tokens: 100 -> 7" in out


def test_what_is_missing_is_one_line(files, tmp_path, monkeypatch, capsys) -> None:
    code, out, err = _call(monkeypatch, capsys, files[0], tmp_path / "none")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "none does not exist" in err
    assert _call(monkeypatch, capsys, files[0])[0] == 2


BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "datasets"):
            raise AssertionError(f"{name} was imported")
sys.meta_path.insert(0, Blocked())
import trimtab
from trimtab.cli.main import main
a, b, log, simple, run = sys.argv[1:]
print(trimtab.compare(a, b, filter_name="strict").against[0].word, trimtab.compare(log, log).against[0].word)
for other in (simple, run):
    sys.argv = ["trimtab", "compare", other, other, "--flips"]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, stop.code
assert not {"torch", "transformers", "datasets"} & set(sys.modules)
"""


def test_no_torch_transformers_or_datasets_is_imported(files, tmp_path) -> None:
    a, b = harness_folder(tmp_path / "one", [False] * 6), harness_folder(tmp_path / "two", [True] * 6)
    log = inspect_log(tmp_path / "logs", [True, False])
    run = run_folder(tmp_path / "run", outcomes("gated", A))
    command = [sys.executable, "-c", BLOCKED, *map(str, (a, b, log, files[0], run))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("better no evidence\n")
    assert done.stdout.count("No evidence:") == 2
