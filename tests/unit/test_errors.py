"""Every code is registered, raised and explained, and an error prints its own."""

import ast
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import trimtab.errors
from trimtab.cli import main as command_line
from trimtab.error_codes import CODES
from trimtab.errors import ConfigError, InputError, ModelError, TrimtabError
from trimtab.store.lock import HeldElsewhereError
from trimtab.tasks.grading.code import TrustedTesterError
from trimtab.tasks.sandbox.program import NoSandboxError, SandboxError

ROOT = Path(__file__).parents[2]
OTHERS = (HeldElsewhereError, TrustedTesterError, SandboxError, NoSandboxError)
CLASSES = {kind.__name__: kind for kind in [*vars(trimtab.errors).values(), *OTHERS] if isinstance(kind, type)}


def _raised() -> Iterator[str]:
    """The codes at all raise sites of the package, read from the source, since no one machine has all its extras."""
    for path in (ROOT / "src" / "trimtab").rglob("*.py"):
        yield from _codes_in(ast.parse(path.read_text()), None)


def _codes_in(node: ast.AST, within: str | None) -> Iterator[str]:
    if isinstance(node, ast.ClassDef):
        within = node.name
    if isinstance(node, ast.Call):
        called = ast.unparse(node.func).rpartition(".")[2]
        kind = CLASSES.get(within or "" if called == "__init__" else called)
        for keyword in node.keywords:
            if kind is not None and keyword.arg == "code" and isinstance(keyword.value, ast.Constant):
                yield f"{kind.kind}/{keyword.value.value}"
    for child in ast.iter_child_nodes(node):
        yield from _codes_in(child, within)


def test_every_code_that_is_raised_is_registered_and_every_registered_one_is_raised() -> None:
    assert set(_raised()) == set(CODES)
    assert len(CODES) >= 50


def test_a_code_is_short_and_readable_and_has_a_cause_and_a_fix() -> None:
    for code, explained in CODES.items():
        kind, _, name = code.partition("/")
        assert kind in {known.kind for known in CLASSES.values() if issubclass(known, TrimtabError)}
        assert len(code) < 40
        assert name == "-".join(part for part in name.lower().split("-") if part)
        assert explained.cause.endswith((".", "`")), code
        assert explained.fix.endswith((".", "`")), code
        assert "|" not in explained.cause + explained.fix, "it would end the cell of a table"


def test_the_page_explains_every_code() -> None:
    subprocess.run([sys.executable, ROOT / "docs" / "make_errors.py", "--check"], check=True, timeout=60)
    page = (ROOT / "docs" / "errors.md").read_text()
    assert [code for code in CODES if page.count(f"| `{code}` |") != 1] == []


def test_a_code_that_nobody_registered_is_refused() -> None:
    with pytest.raises(LookupError, match="no error has the code 'model/no-such'"):
        ModelError("it happened", code="no-such")
    with pytest.raises(LookupError, match="'settings/no-folder'"):
        ConfigError("it happened", code="no-folder")  # the name of another kind


def test_an_error_keeps_its_code_in_another_process() -> None:
    error = pickle.loads(pickle.dumps(ModelError("it happened", code="no-folder")))
    assert (error.code, str(error), error.told()) == ("model/no-folder", "it happened", "error[model/no-folder]: it happened")
    assert HeldElsewhereError("busy", "7").code == "files/held-elsewhere"
    assert InputError("rare").told() == "error[input]: rare"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("tasks show local:none.jsonl", "input/no-file"),
        ("tasks show nothing", "input/unknown-task"),
        ("tasks show local:torn.jsonl", "input/not-json"),
        ("tasks show local:columns.jsonl", "input/no-such-field"),
        ("tasks show local:one.jsonl", "input/unusable-rows"),
        ("tasks show local:twice.jsonl", "input/repeated-question"),
        ("tasks show local:empty.jsonl", "input/unusable-rows"),
        ("run none.toml --out r", "settings/unreadable"),
        ("run torn.toml --out r", "settings/not-toml"),
        ("run key.toml --out r", "settings/not-accepted"),
        ("run good.toml --out full", "settings/not-a-run"),
        ("doctor ./none", "model/no-folder"),
        ("doctor testbed:none", "input/no-bundled-model"),
        ("show ./none", "files/no-artifact"),
        ("compare a.csv unknown.json", "input/unknown-results"),
        ("compare a.csv b.csv", "input/nothing-in-common"),
    ],
)
def test_the_command_line_prints_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, code: str
) -> None:
    files = {
        "torn.jsonl": '{"question": ',
        "one.jsonl": '{"question": "1 + 1", "answer": "2"}\n{"question": "1 + 2", "gold_": "3"}\n',
        "columns.jsonl": '{"ask": "1 + 1", "gold": "2"}\n',
        "twice.jsonl": '{"question": "1 + 1", "answer": "2"}\n{"question": "1 + 1", "answer": "2"}\n',
        "empty.jsonl": '{"question": "", "answer": "2"}\n',
        "torn.toml": "model = [",
        "key.toml": '[modle]\nname = "testbed:mixed"\n',
        "good.toml": '[model]\nsource = "testbed:mixed"\n[task]\nsource = "testbed"\n',
        "full/thesis.txt": "not yours\n",
        "unknown.json": "{}",
        "a.csv": "id,correct\none,1\ntwo,0\n",
        "b.csv": "id,correct\nthree,1\nfour,0\n",
    }
    (tmp_path / "full").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["trimtab", *line.split()])
    with pytest.raises(SystemExit) as stopped:
        command_line.main()
    out, err = capsys.readouterr()
    assert (stopped.value.code, out) == (1, "")
    assert err.startswith(f"error[{code}]: ")
