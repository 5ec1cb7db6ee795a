"""Finding the FFN: the table, the structural search, and what is refused."""

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    MixtralConfig,
    Qwen2Model,
    T5Config,
    T5ForConditionalGeneration,
)

from steering_oracle import prompts, steering_for, stepwise_logits
from tiny_models import D_FF, D_MODEL, FAMILIES, N_LAYERS, tiny
from trimtab.errors import ModelError
from trimtab.model import adapters, attach, find_ffn

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 97}


def _random(config):
    config.initializer_range = 0.2
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def _gpt_neox():
    return _random(GPTNeoXConfig(**SIZES, eos_token_id=None))


def test_families_are_read_from_the_table(tiny_model):
    layout = find_ffn(tiny_model)
    assert layout.family == tiny_model.config.model_type
    assert layout.family in FAMILIES
    assert layout.found_by == "adapter"
    assert layout.base is tiny_model.model
    assert layout.down == tuple(block.mlp.down_proj for block in tiny_model.model.layers)
    assert (layout.d_ff, layout.d_model, len(layout.down)) == (D_FF, D_MODEL, N_LAYERS)


@pytest.mark.parametrize(
    ("build", "path", "d_ff"),
    [
        (_gpt_neox, "gpt_neox.layers.{}.mlp.dense_4h_to_h", 48),
        (lambda: _random(GemmaConfig(**SIZES, head_dim=8, num_key_value_heads=2)), "model.layers.{}.mlp.down_proj", 48),
        (lambda: _random(GPT2Config(n_embd=32, n_layer=3, n_head=4, vocab_size=97)), "transformer.h.{}.mlp.c_proj", 128),
    ],
    ids=["gpt_neox", "gemma", "gpt2"],
)
def test_unknown_architectures_are_searched_proved_and_steered(build, path, d_ff):
    model = build()
    layout = find_ffn(model)
    assert (layout.found_by, layout.d_ff) == ("search", d_ff)
    assert layout.down == tuple(model.get_submodule(path.format(layer)) for layer in range(3))
    ids, mask = prompts((4, 4), extra=2)
    plain = stepwise_logits(model, ids, mask, 4)
    with attach(model, steering_for(model), layout=layout) as attachment:
        steered = stepwise_logits(model, ids, mask, 4)
    assert torch.equal(steered[:, :4], plain[:, :4])
    assert not torch.allclose(steered[:, 4:], plain[:, 4:])
    assert attachment.calls == {0: 2, 1: 2, 2: 2}
    assert torch.equal(stepwise_logits(model, ids, mask, 4), plain)


def test_search_agrees_with_the_table(tiny_model, monkeypatch):
    known = find_ffn(tiny_model)
    monkeypatch.setattr(adapters, "FAMILIES", {})
    searched = find_ffn(tiny_model)
    assert (searched.base, searched.down, searched.d_ff, searched.found_by) == (known.base, known.down, known.d_ff, "search")


def test_nothing_found_lists_each_block():
    model = _gpt_neox()
    model.gpt_neox.layers[1].mlp.dense_4h_to_h = nn.Identity()
    with pytest.raises(ModelError) as caught:
        find_ffn(model)
    message = str(caught.value)
    assert "looked for the one linear layer 48->32" in message
    assert "block 1: 0 matches (none) among [attention.query_key_value 32->96" in message
    assert "block 0" not in message
    assert "Families known by name: qwen2, qwen3, llama, mistral" in message


def test_two_candidates_are_ambiguous():
    model = _gpt_neox()
    model.gpt_neox.layers[2].spare = nn.Linear(48, 32)
    with pytest.raises(ModelError, match=r"block 2: 2 matches \(mlp\.dense_4h_to_h, spare\)"):
        find_ffn(model)


def test_two_block_lists_are_ambiguous():
    model = _gpt_neox()
    model.gpt_neox.towers = nn.ModuleList([nn.Identity() for _ in range(3)])
    with pytest.raises(ModelError, match="one longest list of 3 blocks, found layers of 3, towers of 3"):
        find_ffn(model)


def test_a_match_without_effect_fails_its_probe():
    model = _gpt_neox()
    block = model.gpt_neox.layers[0]
    block.mlp.dense_4h_to_h.weight.data.zero_()
    with pytest.raises(ModelError, match="layer 0: changing the activation does not change the logits"):
        find_ffn(model)
    block.mlp = nn.Identity()
    block.bait = nn.Linear(48, 32)
    with pytest.raises(ModelError, match="layer 0: the hook fired 0 times"):
        find_ffn(model)


def test_a_search_needs_eval_mode():
    with pytest.raises(ModelError, match=r"model\.eval\(\)"):
        find_ffn(_gpt_neox().train())


def test_mixture_of_experts_is_refused():
    model = _random(MixtralConfig(**SIZES, num_key_value_heads=2, num_local_experts=2))
    with pytest.raises(ModelError, match=r"mixture of experts .*= 2"):
        find_ffn(model)


def test_widths_that_differ_by_layer_are_refused():
    model = _gpt_neox()
    vars(model.config)["intermediate_size"] = [48, 48, 64]  # Gemma 3n has such a list; this config class checks its types
    with pytest.raises(ModelError, match=r"\[48, 48, 64\].*one FFN width"):
        find_ffn(model)


def test_models_without_a_language_head_are_refused():
    with pytest.raises(ModelError, match="AutoModelForCausalLM"):
        find_ffn(Qwen2Model(tiny("qwen2").config))
    config = T5Config(d_model=32, d_ff=48, num_layers=2, num_heads=4, d_kv=8, vocab_size=97)
    with pytest.raises(ModelError, match="not a decoder with a language-model head"):
        find_ffn(T5ForConditionalGeneration(config))
    with pytest.raises(ModelError, match="expected a transformers PreTrainedModel, got Linear"):
        find_ffn(nn.Linear(2, 2))


def test_a_family_with_other_paths_says_what_it_expected(qwen3):
    qwen3.model.layers[0].mlp.down = qwen3.model.layers[0].mlp.down_proj
    del qwen3.model.layers[0].mlp.down_proj
    with pytest.raises(ModelError, match=r"expected model\.layers\.<layer>\.mlp\.down_proj"):
        find_ffn(qwen3)
