"""Tiny checkpoints on disk and steerings for them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from tiny_models import D_FF, N_LAYERS, VOCABULARY, tiny, word_tokenizer
from trimtab.gate import ALWAYS
from trimtab.model import OpenModel, open_model
from trimtab.steering import PositionScope, Steering

QUESTIONS = ("w5 w17 w3 w88", "w41 w2 w9", "w60 w61 w62 w63 w64 w65")


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
def opened(save_tiny: Callable[..., Path]) -> OpenModel:
    """A tiny Qwen3 of a folder."""
    return open_model(save_tiny("qwen3"))


def steering_of(
    opened: OpenModel,
    gains: Sequence[float] = (0.5, -1.0, 2.0, -0.5),
    shifts: Sequence[float] = (0.0, 0.0, 0.0, 0.0),
    strength: float = 0.75,
    scope: PositionScope = "all",
    first_layer: bool = True,
) -> Steering:
    """Four neurons over three layers, or over the last two."""
    assert opened.identity.n_layers == N_LAYERS
    assert opened.identity.d_ff == D_FF
    layer = np.array([0, 1, 1, 2] if first_layer else [1, 1, 2, 2])
    index = np.array([5, 47, 0, 30])
    dgain, shift = np.array(gains, np.float32), np.array(shifts, np.float32)
    return Steering(layer, index, dgain, shift, strength, scope, ALWAYS, opened.identity)
