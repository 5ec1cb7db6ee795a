"""Nothing tells the method which mode is which: who imports what, read from the source."""

import ast
from pathlib import Path

import trimtab

ROOT = Path(trimtab.__file__).parent


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports would hide from this test"
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def _importers(prefix: str) -> set[str]:
    return {
        str(path.relative_to(ROOT).with_suffix(""))
        for path in ROOT.rglob("*.py")
        if any(name == prefix or name.startswith(f"{prefix}.") for name in _imports(path))
    }


def _outside(paths: set[str]) -> set[str]:
    return {path for path in paths if not path.startswith("testbed/")}


def test_only_the_testbed_reads_the_wordings() -> None:
    importers = _importers("trimtab.testbed.wordings")
    assert importers == {f"testbed/{name}" for name in ("chains", "problems", "tokenizer")}


def test_who_imports_the_testbed() -> None:
    models_only = {"model/opening", "lm_eval", "cli/serve", "export/checkpoint"}
    assert _outside(_importers("trimtab.testbed")) == {"tasks/loading", "tasks/grading/grade", "study/report_data"} | models_only
    for path in models_only:
        used = {name for name in _imports(ROOT / f"{path}.py") if name.startswith("trimtab.testbed")}
        assert used == {"trimtab.testbed.models", "trimtab.testbed.models.resolve"}


def test_failure_sources_are_read_by_the_report_alone() -> None:
    assert _outside(_importers("trimtab.testbed.sources")) == {"study/report_data"}
    assert _outside(_importers("trimtab.testbed.chains")) == {"tasks/grading/grade"}
    for name in ("domains", "tokenizer", "train"):
        assert not _outside(_importers(f"trimtab.testbed.{name}"))


def test_what_finds_gates_and_steers_does_not_name_the_testbed() -> None:
    for package in ("ranking", "gating", "recording", "sampling", "model", "evaluation", "store"):
        for path in (ROOT / package).rglob("*.py"):
            names = [name for name in _imports(path) if not name.startswith("trimtab.testbed.models")]
            assert "testbed" not in " ".join(names), path
