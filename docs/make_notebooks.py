"""Executes the notebooks of examples/ and keeps their outputs: text, tables and SVG, no scripts. Needs Chrome or Chromium.

``python docs/make_notebooks.py [NAME ...]`` takes those whose file name begins with one of the names; without one, all of them.
They share ``runs/notebook`` in a temporary folder, so what one of them computed is read by the next.
"""

import sys
import tempfile
from pathlib import Path

import nbclient
import nbformat

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples").glob("*.ipynb"))


def main(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for path in NOTEBOOKS:
            if names and not path.name.startswith(tuple(names)):
                continue
            notebook = nbformat.read(path, as_version=4)
            nbclient.NotebookClient(notebook, timeout=1800, kernel_name="python3").execute(cwd=folder)
            for cell in notebook.cells:
                cell.metadata = {key: value for key, value in cell.metadata.items() if key == "tags"}
                if cell.cell_type == "code":
                    cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
            nbformat.write(notebook, path)
            print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
