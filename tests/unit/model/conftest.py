"""A checkpoint on disk."""

from pathlib import Path

import pytest

from tiny_models import tiny, word_tokenizer


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder with a tiny Qwen3 and a tokenizer that has an eos but no pad token."""
    folder = tmp_path / "checkpoint"
    tiny("qwen3").save_pretrained(folder)
    word_tokenizer(eos_token="w1").save_pretrained(folder)
    return folder
