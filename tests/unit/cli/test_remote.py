import json
import sys
from pathlib import Path

import pytest

from trimtab.cli.main import main
from trimtab.store import any_path, read_text

CONFIG = '[task]\nsource = "testbed"\ntrain = 4\nvalidation = 3\ntest = 2\n'


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["trimtab", *arguments])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_run_at_a_url(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.toml").write_text(CONFIG)
    url = f"memory://{tmp_path.name}/run" if kind == "memory" else f"file://{tmp_path}/run"
    assert call(monkeypatch, "run", str(tmp_path / "a.toml"), "--out", url, "--until", "problems", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"train problems": 4, "validation problems": 3, "test problems": 2}
    assert "[task]" in read_text(any_path(url) / "run.toml")
    assert call(monkeypatch, "stage", "problems", url, "--json") == 0
    assert json.loads(capsys.readouterr().out)["train problems"] == 4
    assert call(monkeypatch, "run", f"{url}/run.toml", "--out", url, "--until", "problems", "--quiet") == 0
    capsys.readouterr()
    assert call(monkeypatch, "cache", url, "--json") == 0
    assert [row["name"].split("/")[0] for row in json.loads(capsys.readouterr().out)["results"]] == ["problems"]


@pytest.mark.parametrize(
    ("url", "module", "message"),
    [
        (
            "s4://bucket/run",
            None,
            "error[input/unknown-file-system]: s4://bucket/run: there is no file system s4://; give a folder, or a URL",
        ),
        ("gs://bucket/run", "gcsfs", "error[files/no-client]: gs://bucket/run needs a package that is not installed"),
    ],
)
def test_a_url_that_cannot_be_opened_is_one_line(
    url: str,
    module: str | None,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "a.toml").write_text(CONFIG)
    if module is not None:
        monkeypatch.setitem(sys.modules, module, None)
    assert call(monkeypatch, "run", str(tmp_path / "a.toml"), "--out", url) == 1
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1


def test_a_file_is_no_run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.toml").write_text(CONFIG)
    for out in (str(tmp_path / "a.toml"), f"file://{tmp_path}/a.toml"):
        assert call(monkeypatch, "run", str(tmp_path / "a.toml"), "--out", out) == 2
        assert "is a file" in capsys.readouterr().err
