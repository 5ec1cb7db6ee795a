"""A file to write and the tiny model that lists are made for: 3 layers of 16 neurons."""

from collections.abc import Callable
from pathlib import Path

import pytest

Written = Callable[[str], Path]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    def write(text: str) -> Path:
        path = tmp_path / "list"
        path.write_text(text)
        return path

    return write
