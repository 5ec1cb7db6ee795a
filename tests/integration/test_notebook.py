"""``examples/notebook.ipynb`` runs from top to bottom, and its committed outputs are pictures and text, not scripts."""

from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebook.ipynb"


def test_its_outputs_are_committed_and_hold_no_script() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "executed once, from top to bottom"
    outputs = [output for cell in code for output in cell.outputs]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert {"text/plain", "text/html", "image/svg+xml"} <= kinds
    assert not [kind for kind in kinds if "plotly" in kind or "javascript" in kind]
    assert "<script" not in NOTEBOOK.read_text()
    assert NOTEBOOK.stat().st_size < 200_000


def test_it_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:  # the outputs are compared with nothing: other machines round in another way
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    # a picture needs a browser, which not every machine has; the plot itself is made all the same
    notebook.cells[1].source = notebook.cells[1].source.replace('"svg"', '"json"')
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute(cwd=str(tmp_path))
    shown = {cell.source.splitlines()[-1]: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    # a cell may also write to stderr, as loading weights does
    texts = {
        last: [out["data"]["text/plain"] for out in outputs if "text/plain" in out.get("data", {})]
        for last, outputs in shown.items()
    }
    assert "traces of 48 problems" in texts["traces"][0]
    assert "validation problems" in texts["best"][0]
    assert "accuracy went from" in texts["result"][0]
