"""Tiny checkpoints on disk and steerings for them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from export_samples import open_tiny
from tiny_models import VOCABULARY, tiny, word_tokenizer
from trimtab.model import LanguageModel


@pytest.fixture
def save_tiny(tmp_path: Path) -> Callable[..., Path]:
    """Save a tiny random model of a family with a tokenizer of whole words."""

    def save(family: str, **changes: object) -> Path:
        folder = tmp_path / f"base-{family}"
        tiny(family, **changes).save_pretrained(folder)  # type: ignore[arg-type]
        word_tokenizer(VOCABULARY, eos_token="w1", pad_token="w0").save_pretrained(folder)
        return folder

    return save


@pytest.fixture
def model(save_tiny: Callable[..., Path]) -> LanguageModel:
    """A tiny Qwen3 of a folder."""
    return open_tiny(save_tiny("qwen3"))
