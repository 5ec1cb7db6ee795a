"""Logits, blocks and norms of every family, against the model's own."""

import numpy as np
import pytest
import torch
from torch import nn

from analysis_samples import alone, model, trace
from tiny_models import D_MODEL, FAMILIES, MIXTURES, N_LAYERS, VOCABULARY
from trimtab.analysis import passes as module
from trimtab.analysis.passes import find_readout
from trimtab.analysis.vocabulary import find_norms, measure_norm
from trimtab.errors import ModelError
from trimtab.model.hook_points import decoder_blocks, residual

AFTER_FFN = ("gemma2", "gemma3_text", "olmo2")
CENTRED = ("gpt2", "gpt_neox")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_readout_gives_the_models_logits(family: str) -> None:
    lm = model(family)
    ids = alone(trace("a", 4, 6))
    with torch.inference_mode():
        hidden = lm.layout.base(input_ids=ids, use_cache=False).last_hidden_state
        torch.testing.assert_close(find_readout(lm).logits(hidden), lm.hf_model(input_ids=ids).logits)


def test_a_readout_that_is_not_understood_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = model("qwen3")
    # this architecture reads no such setting, so the readout would cap where the model does not
    monkeypatch.setattr(lm.hf_model.config, "final_logit_softcapping", 0.5, raising=False)
    with pytest.raises(ModelError, match=r"scaled by 1 and capped at 0\.5: they differ by"):
        find_readout(lm)


def test_chunks_cover_all_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 3 * VOCABULARY + 1)
    slices = list(find_readout(model("qwen3")).chunks(8))
    assert [i for one in slices for i in range(8)[one]] == list(range(8))
    assert max(one.stop - one.start for one in slices) == 3


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_return_the_residual_stream(family: str) -> None:
    lm = model(family)
    seen: list[torch.Tensor] = []
    hooks = [b.register_forward_hook(lambda m, i, out: seen.append(residual(out))) for b in decoder_blocks(lm.layout)]
    with torch.inference_mode():
        states = lm.hf_model(input_ids=alone(trace("a", 4, 6)), output_hidden_states=True).hidden_states
    for hook in hooks:
        hook.remove()
    assert len(seen) == N_LAYERS
    # transformers lists the embeddings first, and the last layer after the final norm
    for ours, theirs in zip(seen[:-1], states[1:-1], strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("family", FAMILIES)
def test_norms_are_found_where_an_architecture_has_them(family: str) -> None:
    hooks = sum(len(one._forward_hooks) for one in model(family).layout.base.modules())
    norms = find_norms(model(family))
    assert norms.final is not None
    assert norms.final.centred == (family in CENTRED)
    assert sorted(norms.after_ffn) == (list(range(N_LAYERS)) if family in AFTER_FFN else [])
    assert sum(len(one._forward_hooks) for one in model(family).layout.base.modules()) == hooks


def test_a_stack_without_a_final_norm_and_one_that_ends_in_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    base = model("llama").layout.base
    monkeypatch.setitem(base._modules, "norm", nn.Identity())
    assert find_norms(model("llama")).final is None
    two_steps = nn.Sequential(nn.Linear(D_MODEL, 2), nn.Linear(2, D_MODEL)).requires_grad_(False)
    monkeypatch.setitem(base._modules, "norm", two_steps)
    with pytest.raises(ModelError, match="something between the last block and the head"):
        find_norms(model("llama"))


@pytest.mark.parametrize("width", [8, 9])
@pytest.mark.parametrize("centred", [True, False])
def test_a_norm_is_measured_up_to_a_positive_factor(width: int, centred: bool) -> None:
    norm = nn.LayerNorm(width) if centred else nn.RMSNorm(width, eps=1e-6)
    weight = torch.linspace(-2, 3, width)
    norm.weight.data = weight.clone()
    if centred:
        norm.bias.data = torch.arange(width).float()
    measured = measure_norm(norm, width)
    assert measured.centred == centred
    factor = measured.scale / weight.numpy()
    assert factor.min() > 0
    np.testing.assert_allclose(factor, factor[0], rtol=1e-4)
    direction = np.random.default_rng(0).normal(size=(2, width))
    expected = direction - direction.mean(-1, keepdims=True) if centred else direction
    np.testing.assert_allclose(measured.apply(direction), measured.scale * expected)


@pytest.mark.parametrize("other", [nn.Tanh(), nn.Linear(D_MODEL, D_MODEL)])
def test_what_is_no_norm_is_refused(other: nn.Module) -> None:
    with pytest.raises(ModelError, match=f"a {type(other).__name__} stands where a norm was expected"):
        measure_norm(other, D_MODEL)


def test_mixtures_are_among_the_families() -> None:
    assert set(MIXTURES) <= set(FAMILIES)
