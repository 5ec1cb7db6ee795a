"""Fixtures shared by all tests."""

import sys
from pathlib import Path

import pytest
from hypothesis import settings

# lets every test import the helper modules, whatever pytest's import mode
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "helpers"))

from transformers import PreTrainedModel

from tiny_models import FAMILIES, tiny

# how long an example takes says how busy the machine is, not whether the code is right
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture
def qwen3() -> PreTrainedModel:
    """A tiny random Qwen3."""
    return tiny("qwen3")


@pytest.fixture(params=FAMILIES)
def tiny_model(request: pytest.FixtureRequest) -> PreTrainedModel:
    """A tiny random model of each family in turn."""
    return tiny(request.param)
