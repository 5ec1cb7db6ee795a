"""The site builds without a warning, and what its pages say of errors and of files is what the code does."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import trimtab.errors
from trimtab.errors import TrimtabError
from trimtab.tasks.grading.code import TrustedTesterError
from trimtab.tasks.sandbox.program import SandboxError

ROOT = Path(__file__).parents[2]
TROUBLES = (ROOT / "docs" / "troubleshooting.md").read_text()
ERRORS = [
    *(kind for kind in vars(trimtab.errors).values() if isinstance(kind, type) and issubclass(kind, TrimtabError)),
    SandboxError,
    TrustedTesterError,
]


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for page in ("index.html", "api/trimtab.steering.html", "notebooks/1_find_neurons.html", "contributing.html"):
        assert (tmp_path / "site" / page).is_file()
    assert "unpkg.com" not in (tmp_path / "site" / "index.html").read_text(), "nothing is fetched from elsewhere"
    assert "with_strength" in (tmp_path / "site" / "api" / "trimtab.steering.html").read_text()


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_every_kind_of_error_has_a_code_of_its_own_that_is_explained(kind: type[TrimtabError]) -> None:
    assert [other for other in ERRORS if other.kind == kind.kind] == [kind]
    assert kind("what happened").told() == f"error[{kind.kind}]: what happened"
    section = TROUBLES.split(f"### error[{kind.kind}]\n")[1].split("\n##")[0]
    assert kind.__name__ in section or kind is TrimtabError


def test_every_message_that_is_explained_is_one_of_ours() -> None:
    listed = TROUBLES.split("## Errors by code")[1]
    told = [found for row in re.findall(r"^\| (`.+?`) \|", listed, re.M) for found in re.findall(r"`([^`]+)`", row)]
    assert len(told) > 40
    texts = "\n".join(_texts())
    for message in told:
        for piece in re.split(r"\.\.\.|\b[KMN]\b", message):
            assert piece.strip(" ,:") in texts, f"no message holds {piece!r}, of {message!r}"


def _texts() -> list[str]:
    """All string literals of the package, the pieces between placeholders of formatted ones on their own."""
    found = []
    for path in (ROOT / "src" / "trimtab").rglob("*.py"):
        found += [
            n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant) and isinstance(n.value, str)
        ]
    return found


def test_every_table_of_a_run_has_the_columns_that_its_section_lists(tmp_path: Path) -> None:
    from trimtab.evaluation.outcomes import Outcome
    from trimtab.evaluation.settings import TunePoint
    from trimtab.store import write_table
    from trimtab.tasks.contrast import ContrastRow
    from trimtab.testbed.sources import FailureSource
    from trimtab.traces import Problem, ScoredTrace, Trace

    kinds = {
        "outcomes.parquet": Outcome,
        "problems/KEY/problems.parquet": Problem,
        "sample/KEY/part-N.parquet": Trace,
        "grade/KEY/grades.parquet": ScoredTrace,
        "contrast/KEY/contrast.parquet": ContrastRow,
        "tune/KEY/points.parquet": TunePoint,
        "sources.parquet": FailureSource,
    }
    page = (ROOT / "docs" / "files.md").read_text().split("## Tables")[1].split("\n## ")[0]
    sections = {part.partition("\n")[0]: part for part in page.split("\n### ")[1:]}
    assert set(sections) == {*kinds, "record/KEY/index.parquet"}
    for name, kind in kinds.items():
        write_table(tmp_path / "table.parquet", [], kind)
        assert re.findall(r"^\| `(\w+)` \|", sections[name], re.M) == pq.read_schema(tmp_path / "table.parquet").names
