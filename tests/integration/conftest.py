"""A folder in which the documentation is followed: its pages and the notebooks work with the same study, computed once."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone as a reader has it; TRIMTAB_CACHE is the notebooks' folder, so a study without a path reads their results."""
    folder = Path(tmp_path_factory.mktemp("reader"))
    for name in ("examples", "docs", "src", "pyproject.toml", "constraints.txt"):
        (folder / name).symlink_to(ROOT / name)
    return folder
