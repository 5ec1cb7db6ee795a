"""Settings, files and outputs that nobody wants: one line each, no traceback, no control character of a file on the terminal."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trimtab.cli.main import main
from trimtab.display import printable
from trimtab.errors import InputError

OK = '[task]\nsource = "testbed"\ntrain = 4\nvalidation = 3\ntest = 2\n'


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["trimtab", *map(str, arguments)])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[task]\nsource = "testbed"\ntrain = 100000000000000000000000\n',
            "task.train: 10000000000000000000... is larger than any",
        ),
        ('[task]\nsource = "testbed"\ntrain = 1000000000000\n', "task.train: Input should be less than or equal to 1000000000"),
        ('[task]\nsource = "testbed"\ntrain = -1\n', "task.train: Input should be greater than or equal to 0"),
        ("[tune]\nstrengths = [inf]\n", "tune.strengths: inf is no finite number"),
        ("[tune]\nstrengths = [1.0, nan]\n", "tune.strengths: nan is no finite number"),
        ("[sampling]\ntemperature = 1e999\n", "sampling.temperature: inf is no finite number"),
        (f"x = {'[' * 100_000}\n", "is not TOML: lists and objects are nested more than 100 deep"),
        ("x = 1\nx = 2\n", "is not TOML: "),
        ('[task]\nsource = "\x1b[2J"\n', "is not TOML: "),
        ('[task]\nsource = "\\u001b[2J"\n', "\\x1b[2J"),
    ],
)
def test_settings_that_cannot_be(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.toml").write_text(text)
    assert call(monkeypatch, "run", tmp_path / "a.toml", "--out", tmp_path / "run", "--until", "problems", "--quiet") == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error[")
    assert "Traceback" not in error
    assert "\x1b" not in error


def test_a_pipe_in_place_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.toml", "a.parquet", "b.jsonl"):
        os.mkfifo(tmp_path / name)
    assert call(monkeypatch, "compare", tmp_path / "a.parquet", tmp_path / "b.jsonl") == 1
    assert "it is a pipe, a socket or a device, and no file" in capsys.readouterr().err
    assert call(monkeypatch, "run", tmp_path / "a.toml", "--out", tmp_path / "run") in (1, 2)
    assert "Traceback" not in capsys.readouterr().err


def test_a_folder_in_place_of_the_report(tmp_path: Path) -> None:
    from trimtab.errors import StoreError
    from trimtab.store import write_text

    (tmp_path / "report.html").mkdir()
    with pytest.raises(StoreError, match=r"cannot write .*report\.html: .*; a folder stands where a file is needed"):
        write_text(tmp_path / "report.html", "<p>")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize("redirect", [">/dev/full", ">&-", "2>&-", ">&- 2>&- <&-"])
def test_an_output_that_cannot_be_written(redirect: str) -> None:
    command = f'"{sys.executable}" -m trimtab.cli.main tasks --json {redirect}'
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == (1 if "full" in redirect else 0)
    said = "error: the output cannot be written: No space left on device; results that were finished are kept\n"
    assert done.stderr == (said if "full" in redirect else "")


def test_control_characters_of_an_error_are_escaped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def show() -> None:
        raise InputError("a\x1b[2J\x07b\u202e\nc")

    monkeypatch.setattr("trimtab.cli.main.trimtab.main", lambda **_: show())
    assert call(monkeypatch) == 1
    assert capsys.readouterr().err == "error[input]: a\\x1b[2J\\x07b\\u202e\nc\n"


def test_printable_text_keeps_lines_tabs_and_letters() -> None:
    assert printable("é\t漢\n\x9b1m\x7f") == "é\t漢\n\\x9b1m\\x7f"
