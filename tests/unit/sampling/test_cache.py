"""The preallocated cache gives what the dynamic one gives."""

import pytest
import torch
from transformers import DynamicCache, MistralConfig

from tiny_models import VOCABULARY
from trimtab.sampling.decoding import PreallocatedLayer, keep_rows, new_cache


def _ids(rows: int, width: int, seed: int) -> torch.Tensor:
    return torch.randint(2, VOCABULARY, (rows, width), generator=torch.Generator().manual_seed(seed))


def _steps(model, cache, kept: list[int]) -> list[torch.Tensor]:
    """Logits of a prefill, two tokens, a drop of rows and two more tokens."""
    logits = []
    rows = 4
    with torch.inference_mode():
        logits.append(model(input_ids=_ids(rows, 5, 0), past_key_values=cache, use_cache=True).logits)
        for step in (1, 2):
            logits.append(model(input_ids=_ids(rows, 1, step), past_key_values=cache, use_cache=True).logits)
        keep_rows(cache, torch.tensor(kept))
        for step in (3, 4):
            logits.append(model(input_ids=_ids(rows, 1, step)[kept], past_key_values=cache, use_cache=True).logits)
    return logits


@pytest.mark.parametrize("kept", [[0, 2], [3], [0, 1, 2, 3]])
def test_equals_the_dynamic_cache(tiny_model, kept: list[int]) -> None:
    ours = new_cache(tiny_model.config, 9)
    expected = _steps(tiny_model, DynamicCache(config=tiny_model.config), kept)
    actual = _steps(tiny_model, ours, kept)
    assert torch.equal(torch.cat(actual[:3], 1), torch.cat(expected[:3], 1))
    # after a drop the buffers have other strides, so kernels may add in another order
    for mine, theirs in zip(actual[3:], expected[3:], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    assert ours.get_seq_length() == 9


def test_buffers_are_allocated_once(qwen3) -> None:
    cache = new_cache(qwen3.config, 12)
    assert all(type(layer) is PreallocatedLayer for layer in cache.layers)
    with torch.inference_mode():
        qwen3(input_ids=_ids(2, 4, 0), past_key_values=cache, use_cache=True)
        before = [layer.keys.data_ptr() for layer in cache.layers]
        qwen3(input_ids=_ids(2, 1, 1), past_key_values=cache, use_cache=True)
    assert [layer.keys.data_ptr() for layer in cache.layers] == before
    assert cache.layers[0].keys.shape[-2] == 5


def test_rows_of_an_empty_cache(qwen3) -> None:
    cache = new_cache(qwen3.config, 4)
    keep_rows(cache, torch.tensor([0]))
    assert cache.get_seq_length() == 0


def test_a_sliding_window_keeps_the_models_own_cache() -> None:
    config = MistralConfig(num_hidden_layers=2, sliding_window=4)
    assert not any(isinstance(layer, PreallocatedLayer) for layer in new_cache(config, 8).layers)
