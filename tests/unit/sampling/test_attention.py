"""Grouped decode attention gives the same logits as transformers' own, and leaves no trace."""

import torch
from transformers import DynamicCache

from tiny_models import tiny
from trimtab.sampling.decoding import grouped_attention


def _decode(model) -> torch.Tensor:
    """Logits of a decode step behind a left-padded prefill."""
    ids = torch.arange(2, 14).view(2, 6)
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[0, :3] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        model(ids, attention_mask=mask[:, :6], position_ids=positions[:, :6], past_key_values=cache)
        return model(ids[:, :1], attention_mask=mask, position_ids=positions[:, 6:], past_key_values=cache).logits


def test_equals_sdpa_and_restores_it() -> None:
    model = tiny("qwen3")
    plain = _decode(model)
    with grouped_attention(model):
        assert model.config._attn_implementation != "sdpa"
        torch.testing.assert_close(_decode(model), plain, rtol=1e-5, atol=1e-5)
    assert model.config._attn_implementation == "sdpa"


def test_leaves_another_attention_alone() -> None:
    model = tiny("qwen3")
    model.set_attn_implementation("eager")
    with grouped_attention(model):
        assert model.config._attn_implementation == "eager"
