"""Finding the FFN: the table, the structural search, and what is refused."""

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma3Config,
    GemmaConfig,
    OlmoeConfig,
    PhiConfig,
    Qwen2Model,
    T5Config,
    T5ForConditionalGeneration,
)

from steering_oracle import prompts, steering_for, stepwise_logits
from tiny_models import D_FF, D_MODEL, FAMILIES, MIXTURES, N_LAYERS, tiny
from trimtab.errors import ModelError
from trimtab.model import adapters, attach, find_ffn, identify

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 97}


def _random(config):
    config.initializer_range = 0.2
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def _phi():
    return _random(PhiConfig(**SIZES, eos_token_id=None))


def test_families_are_read_from_the_table(tiny_model):
    layout = find_ffn(tiny_model)
    assert layout.family == tiny_model.config.model_type
    assert layout.family in FAMILIES
    assert layout.found_by == "adapter"
    assert layout.base is tiny_model.base_model
    ffn = {"gpt2": "c_proj", "gpt_neox": "dense_4h_to_h", "qwen3_moe": "experts", "mixtral": "experts"}.get(
        layout.family, "down_proj"
    )
    named = [module for name, module in tiny_model.named_modules() if name.endswith(f"mlp.{ffn}")]
    assert layout.modules == tuple(named)
    assert (layout.d_ff, layout.d_model, layout.n_layers) == (D_FF, D_MODEL, N_LAYERS)
    assert (layout.mixture, layout.n_experts) == ((True, 4) if layout.family in MIXTURES else (False, 1))


@pytest.mark.parametrize(
    ("build", "path", "d_ff"),
    [
        (_phi, "model.layers.{}.mlp.fc2", 48),
        (lambda: _random(GemmaConfig(**SIZES, head_dim=8, num_key_value_heads=2)), "model.layers.{}.mlp.down_proj", 48),
        (
            lambda: _random(BloomConfig(hidden_size=32, n_layer=3, n_head=4, vocab_size=97)),
            "transformer.h.{}.mlp.dense_4h_to_h",
            128,
        ),
    ],
    ids=["phi", "gemma", "bloom"],
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


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in MIXTURES])
def test_search_agrees_with_the_table(family, monkeypatch):
    model = tiny(family)
    known = find_ffn(model)
    assert known.found_by == "adapter"
    monkeypatch.setattr(adapters, "FAMILIES", {})
    searched = find_ffn(model)
    assert (searched.base, searched.down, searched.d_ff, searched.found_by) == (known.base, known.down, known.d_ff, "search")


def test_nothing_found_lists_each_block():
    model = _phi()
    model.model.layers[1].mlp.fc2 = nn.Identity()
    with pytest.raises(ModelError) as caught:
        find_ffn(model)
    message = str(caught.value)
    assert "or for the one linear layer 48->32 (intermediate size to hidden size) in each block" in message
    assert "block 1: 0 matches (none) among [self_attn.q_proj 32->32" in message
    assert "block 0" not in message
    assert "Families known by name: qwen2, qwen3, llama, mistral" in message


def test_two_candidates_are_ambiguous():
    model = _phi()
    model.model.layers[2].spare = nn.Sequential(nn.Linear(32, 48), nn.Linear(48, 32))
    with pytest.raises(ModelError, match=r"block 2: 2 matches \(mlp\.fc2, spare\.1\)"):
        find_ffn(model)


def test_two_block_lists_are_ambiguous():
    model = _phi()
    model.model.towers = nn.ModuleList([nn.Identity() for _ in range(3)])
    with pytest.raises(ModelError, match="one longest list of 3 blocks, found layers of 3, towers of 3"):
        find_ffn(model)


def test_a_match_without_effect_fails_its_probe():
    model = _phi()
    block = model.model.layers[0]
    block.mlp.fc2.weight.data.zero_()
    with pytest.raises(ModelError, match="layer 0: changing the activation does not change the logits"):
        find_ffn(model)
    block.mlp = nn.Identity()
    block.bait = nn.Linear(48, 32)
    with pytest.raises(ModelError, match="layer 0: the hook fired 0 times"):
        find_ffn(model)


def test_a_search_needs_eval_mode():
    with pytest.raises(ModelError, match=r"model\.eval\(\)"):
        find_ffn(_phi().train())


def test_a_dense_layer_beside_experts_of_an_unknown_form_is_refused():
    model = _random(OlmoeConfig(**SIZES, num_key_value_heads=2, num_experts=4, num_experts_per_tok=2))
    block = model.model.layers[1].mlp
    block.shared, block.experts = nn.Sequential(nn.Linear(32, 48), nn.Linear(48, 32)), nn.ModuleList([nn.Linear(32, 32)])
    with pytest.raises(ModelError, match=r"mixture of experts \(num_experts = 4\) of a form .*beside mlp\.shared a block holds"):
        find_ffn(model)


@pytest.mark.parametrize(
    ("dense", "layers"), [({"mlp_only_layers": [1]}, {1}), ({"decoder_sparse_step": 2}, {0, 2})], ids=["one", "every other"]
)
def test_dense_layers_among_sparse_ones_have_their_own_width(dense, layers):
    model = tiny("qwen3_moe", intermediate_size=40, **dense)
    layout = find_ffn(model)
    assert layout.widths == tuple(40 if layer in layers else 48 for layer in range(3))
    assert (layout.d_ff, layout.n_experts, layout.mixture) == (48, 4, True)
    assert [layer.sparse for layer in layout.layers] == [layer not in layers for layer in range(3)]
    identity = identify(model, "tiny", None, layout=layout)
    assert identity.widths == layout.widths
    assert identity.n_neurons == sum(layout.widths)


def test_experts_side_by_side_are_at_least_as_wide_as_a_dense_layer():
    with pytest.raises(ModelError, match="differ in their experts: 4 experts of 12, dense layers up to 64 wide"):
        find_ffn(tiny("qwen3_moe", intermediate_size=64, mlp_only_layers=[1]))


def test_a_block_of_mixers_alone_has_no_neurons():
    class SomeMixer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(32, 32)

        def forward(self, hidden):
            return self.inner(hidden)

    model = _phi()
    model.model.layers[1].mlp = SomeMixer()
    layout = find_ffn(model)
    assert layout.widths == (48, 0, 48)
    assert layout.modules[1] is None
    model.model.layers[1].mlp = nn.Linear(32, 32)  # may be anything
    with pytest.raises(ModelError, match="block 1: 0 matches"):
        find_ffn(model)


def test_a_mixture_has_no_down_projection_of_its_own():
    layout = find_ffn(tiny("mixtral"))
    assert (layout.n_experts, layout.d_ff, layout.n_layers) == (4, 48, 3)
    assert layout.modules == tuple(block.mlp.experts for block in layout.base.layers)
    with pytest.raises(ModelError, match="'mixtral' is a mixture of experts, on which this does not work; use a dense model"):
        _ = layout.down


@pytest.mark.parametrize("change", ["transposed", "int8", "bias", "of another size"])
def test_experts_of_another_form_are_refused(change):
    model = tiny("mixtral")
    experts = model.model.layers[1].mlp.experts
    down = experts.down_proj.data
    if change == "bias":
        experts.down_proj_bias = nn.Parameter(torch.zeros(4, 32))
    else:
        other = {"transposed": down.transpose(1, 2), "int8": down.to(torch.int8), "of another size": down[:3]}[change]
        experts.down_proj = nn.Parameter(other, requires_grad=False)
    with pytest.raises(
        ModelError, match=r"MixtralExperts\) hold gate_up_proj \[4, 24, 32\] torch.float32, .*without quantisation"
    ):
        find_ffn(model)


def test_a_text_decoder_inside_a_multimodal_wrapper():
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 8,
        "patch_size": 4,
    }
    text = {"head_dim": 8, "num_key_value_heads": 2, "sliding_window": 4, "query_pre_attn_scalar": 8}
    model = _random(
        Gemma3Config(text_config={**SIZES, **text}, vision_config=vision, mm_tokens_per_image=4, image_token_index=96)
    )
    assert type(model).__name__ == "Gemma3ForConditionalGeneration"
    layout = find_ffn(model)
    assert (layout.family, layout.found_by, layout.d_ff, layout.d_model) == ("gemma3", "adapter", 48, 32)
    assert layout.base is model.model.language_model
    ids, mask = prompts((6, 3), extra=2)
    plain = stepwise_logits(model, ids, mask, 6)
    with attach(model, steering_for(model)) as attachment:
        steered = stepwise_logits(model, ids, mask, 6)
    assert torch.equal(steered[:, :6], plain[:, :6])
    assert not torch.allclose(steered[:, 6:], plain[:, 6:])
    assert attachment.calls == {0: 2, 1: 2, 2: 2}
    assert torch.equal(stepwise_logits(model, ids, mask, 6), plain)


def test_widths_are_those_of_the_modules():
    model = _phi()
    vars(model.config)["intermediate_size"] = [48, 48, 64]  # Gemma 3n has such a list; this config class checks its types
    assert find_ffn(model).widths is None
    mlp = model.model.layers[2].mlp
    mlp.fc1, mlp.fc2 = nn.Linear(32, 64), nn.Linear(64, 32)
    layout = find_ffn(model)
    assert (layout.widths, layout.d_ff) == ((48, 48, 64), 64)
    with pytest.raises(ModelError, match=r"have \[48, 64\] neurons, and this works only where all have the same number"):
        _ = layout.down


def test_models_without_a_language_head_are_refused():
    with pytest.raises(ModelError, match="AutoModelForCausalLM"):
        find_ffn(Qwen2Model(tiny("qwen2").config))
    config = T5Config(d_model=32, d_ff=48, num_layers=2, num_heads=4, d_kv=8, vocab_size=97)
    with pytest.raises(ModelError, match="not a decoder with a language-model head"):
        find_ffn(T5ForConditionalGeneration(config))
    with pytest.raises(ModelError, match="expected a transformers PreTrainedModel or a PeftModel, got Linear"):
        find_ffn(nn.Linear(2, 2))


def test_a_family_with_other_paths_says_what_it_expected(qwen3):
    qwen3.model.layers[0].mlp.down = qwen3.model.layers[0].mlp.down_proj
    del qwen3.model.layers[0].mlp.down_proj
    with pytest.raises(ModelError, match=r"expected model\.layers\.<layer>\.mlp\.down_proj"):
        find_ffn(qwen3)
