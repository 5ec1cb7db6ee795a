"""A tiny model that speaks the testbed's language, and outcomes made by hand."""

from pathlib import Path

import pytest

from tiny_testbed import open_tiny_testbed
from trimtab.model import OpenModel


@pytest.fixture(scope="session")
def opened(tmp_path_factory: pytest.TempPathFactory) -> OpenModel:
    """Open and left as it is by every test."""
    return open_tiny_testbed(Path(tmp_path_factory.mktemp("tiny")) / "model")
