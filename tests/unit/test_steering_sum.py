"""Two steerings at once."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from steering_oracle import logistic_gate, prompts, steering_for, stepwise_logits
from tiny_models import tiny
from trimtab.errors import InputError
from trimtab.model import attach
from trimtab.steering import Steering

MODEL = tiny("qwen3")


def _other(index: np.ndarray, gain: float = 0.0, **changes: object) -> Steering:
    one = np.ones(len(index), np.float32)
    base = steering_for(MODEL)
    return replace(base, layer=np.zeros(len(index), np.int64), index=index, gain=gain * one, shift=one, strength=2.0, **changes)


def test_a_sum_does_what_both_do() -> None:
    one, other = steering_for(MODEL, gain=[0.0] * 6), _other(np.array([7, 5]))  # index 5 of layer 0 is in both
    both = one + other
    assert (both.strength, len(both)) == (1.0, 7)
    assert both.digest == (other + one).digest
    rows = dict(zip(zip(both.layer.tolist(), both.index.tolist(), strict=True), both.shift.tolist(), strict=True))
    assert rows[0, 5] == 1.5 * 2.0 + 2.0
    assert rows[0, 7] == 2.0
    ids, mask = prompts((6, 3), extra=2)
    with attach(MODEL, both):
        summed = stepwise_logits(MODEL, ids, mask, 6)
    merged = replace(one, shift=one.shift + np.array([2.0 / 1.5, 0, 0, 0, 0, 0], np.float32))
    extra = Steering(
        np.append(merged.layer, 0),
        np.append(merged.index, 7),
        np.append(merged.gain, 0).astype(np.float32),
        np.append(merged.shift, 2.0 / 1.5).astype(np.float32),
        1.5,
        one.scope,
        one.gate,
        one.model,
    )
    with attach(MODEL, extra):
        torch.testing.assert_close(summed, stepwise_logits(MODEL, ids, mask, 6), rtol=1e-4, atol=1e-4)


def test_what_cannot_be_added_is_named() -> None:
    one = steering_for(MODEL)
    assert len(one + _other(np.array([7, 9]), gain=1.0)) == 8
    with pytest.raises(InputError, match="both steerings hold layer 0, index 5"):
        one + _other(np.array([5]), gain=1.0)
    with pytest.raises(InputError, match="scope 'generated' and 'all'"):
        one + _other(np.array([7]), scope="all")
    with pytest.raises(InputError, match=r"steering\.with_gate"):
        one + _other(np.array([7]), gate=logistic_gate())
    with pytest.raises(InputError, match="steerings of two models"):
        one + _other(np.array([7]), model=replace(one.model, fingerprint="other"))
