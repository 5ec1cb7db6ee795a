"""Fixtures shared by all tests."""

import sys
from pathlib import Path

import pytest

# lets every test import the helper modules beside this file, whatever pytest's import mode
sys.path.insert(0, str(Path(__file__).parent))

from transformers import PreTrainedModel

from tiny_models import FAMILIES, tiny


@pytest.fixture
def qwen3() -> PreTrainedModel:
    """A tiny random Qwen3."""
    return tiny("qwen3")


@pytest.fixture(params=FAMILIES)
def tiny_model(request: pytest.FixtureRequest) -> PreTrainedModel:
    """A tiny random model of each family in turn."""
    return tiny(request.param)
