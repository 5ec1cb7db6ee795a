"""The notebooks of examples/ run from top to bottom, and their committed outputs are pictures and text, not scripts."""

from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "examples").glob("*.ipynb"))
SLOW = "3_real_model"
"""Without a real model at hand it runs on a bundled one, whose study is of no use to the others. They go on from one another."""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_outputs_are_committed_and_hold_no_script(path: Path) -> None:
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "executed once, from top to bottom"
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert "text/plain" in kinds or any(output.output_type == "stream" for output in outputs)
    assert not [kind for kind in kinds if "plotly" in kind or "javascript" in kind]
    assert "<script" not in path.read_text()
    assert path.stat().st_size < 200_000


@pytest.mark.parametrize(
    "path", [pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem == SLOW else []) for path in NOTEBOOKS]
)
def test_it_runs_from_top_to_bottom(path: Path, reader: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    committed = [_texts(cell) for cell in notebook.cells if cell.cell_type == "code"]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            # a picture needs a browser, which not every machine has; the plot itself is made all the same
            cell.source = cell.source.replace('renderers.default = "svg"', 'renderers.default = "json"')
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute(cwd=str(reader))
    shown = [_texts(cell) for cell in notebook.cells if cell.cell_type == "code"]
    # other machines round in another way, so only the words are compared, and where a cell shows something
    assert [bool(texts) for texts in shown] == [bool(texts) for texts in committed]


def _texts(cell: nbformat.NotebookNode) -> list[str]:
    """What a cell shows as text; it may also write to stderr, as loading weights does."""
    return [
        output.get("text") or output["data"].get("text/plain", "")
        for output in cell.outputs
        if output.get("name") != "stderr" and (output.get("text") or output.get("data", {}).get("text/plain"))
    ]
