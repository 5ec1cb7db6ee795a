"""Steerings of the tiny models for tests of exports."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tiny_models import D_FF, N_LAYERS, VOCABULARY, word_tokenizer
from trimtab.gate import ALWAYS
from trimtab.model import LanguageModel, open_model
from trimtab.steering import PositionScope, Steering

QUESTIONS = ("w5 w17 w3 w88", "w41 w2 w9", "w60 w61 w62 w63 w64 w65")


def open_tiny(folder: Path) -> LanguageModel:
    """Open a tiny model with a tokenizer of whole words, whatever tokenizer its family has."""
    return replace(open_model(folder), tokenizer=word_tokenizer(VOCABULARY, eos_token="w1", pad_token="w0"))


def steering_of(
    model: LanguageModel,
    gains: Sequence[float] = (0.5, -1.0, 2.0, -0.5),
    shifts: Sequence[float] = (0.0, 0.0, 0.0, 0.0),
    strength: float = 0.75,
    scope: PositionScope = "all",
    first_layer: bool = True,
) -> Steering:
    """Four neurons over three layers, or over the last two."""
    assert model.identity.n_layers == N_LAYERS
    assert model.identity.d_ff == D_FF
    layer = np.array([0, 1, 1, 2] if first_layer else [1, 1, 2, 2])
    index = np.array([5, 47, 0, 30])
    gain, shift = np.array(gains, np.float32), np.array(shifts, np.float32)
    return Steering(layer, index, gain, shift, strength, scope, ALWAYS, model.identity)
