"""The doctor: green on what works, and a named fault for what does not."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, PhiConfig

import causal_families
from causal_families import VOCABULARY
from tiny_models import MIXTURES, tiny, word_tokenizer
from trimtab.errors import ModelError
from trimtab.model import LanguageModel, check_model, find_ffn, identify, open_model, prove
from trimtab.model.check import shift_survival
from trimtab.sampling import way_of


def _opened(model):
    layout = find_ffn(model)
    return LanguageModel(model, None, layout, identify(model, "tiny", None, layout=layout))


def test_green_on_every_family(tiny_model):
    diagnosis = check_model(_opened(tiny_model))
    assert diagnosis.ok
    assert (diagnosis.found_by, diagnosis.dtype, diagnosis.device) == ("adapter", "float32", "cpu")
    ungated = tiny_model.config.model_type in ("gpt2", "gpt_neox")
    assert (diagnosis.gated, diagnosis.tied_embeddings) == (not ungated, False)
    assert [finding.layer for finding in diagnosis.layers] == [0, 1, 2]
    assert all(finding.width == 48 and finding.faults == () for finding in diagnosis.layers)
    assert diagnosis.shift_survives == 1.0
    assert diagnosis.seconds > 0
    summary = diagnosis.summary()
    width = "4 experts x 12" if tiny_model.config.model_type in MIXTURES else "48"
    assert f"3 layers x {width} = 144 neurons" in summary
    assert "ok: 3 of 3 layers can be steered" in summary
    assert not any(module._forward_pre_hooks for module in tiny_model.modules())


def test_an_opened_checkpoint(checkpoint):
    assert check_model(open_model(checkpoint, device="cpu")).ok


def test_ungated_and_tied():
    config = PhiConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, vocab_size=97)
    config.initializer_range = 0.2
    diagnosis = check_model(_opened(AutoModelForCausalLM.from_config(config).eval()))
    assert (diagnosis.found_by, diagnosis.gated, diagnosis.ok) == ("search", False, True)
    assert check_model(_opened(tiny("llama", tied=True))).tied_embeddings


def test_unknown_gating(qwen3):
    model = _opened(qwen3)
    qwen3.model.layers[0].mlp.extra = nn.Linear(32, 48)
    assert check_model(model).gated is None


def test_faults_are_named_by_layer(qwen3, monkeypatch):
    model = _opened(qwen3)
    qwen3.model.layers[1].mlp.down_proj.weight.zero_()
    mlp = qwen3.model.layers[2].mlp
    monkeypatch.setattr(mlp, "forward", lambda h: h)
    diagnosis = check_model(model)
    assert not diagnosis.ok
    assert [finding.ok for finding in diagnosis.layers] == [True, False, False]
    summary = diagnosis.summary()
    assert "layer 1: changing the activation does not change the logits" in summary
    assert "layer 2: the hook fired 0 times in one forward" in summary
    assert "NOT OK: 1 of 3 layers" in summary
    with pytest.raises(ModelError, match=r"(?s)layer 1: .*layer 2: "):
        prove(qwen3, model.layout)


def test_a_wrong_width_is_a_fault(qwen3, monkeypatch):
    model = _opened(qwen3)
    mlp = qwen3.model.layers[0].mlp
    narrow = nn.Linear(40, 32)
    mlp.down_proj = narrow
    monkeypatch.setattr(mlp, "forward", lambda h: narrow(h[..., :1].expand(*h.shape[:-1], 40)))
    with torch.no_grad():
        layout = find_ffn(qwen3)
        finding = check_model(LanguageModel(qwen3, None, layout, model.identity)).layers[0]
    assert finding.faults == ("the activation is 40 wide instead of 48",)


def test_a_model_that_is_not_reproducible_does_not_restore(qwen3, monkeypatch):
    model = _opened(qwen3)
    monkeypatch.setattr(qwen3.lm_head, "forward", lambda h: torch.nn.functional.linear(h, torch.randn(97, 32)))
    assert "do not come back bit for bit" in check_model(model).summary()


def _survival_by_hand(values, shift, dtype):
    survived = 0
    for value in values.tolist():
        a = torch.tensor(value, dtype=dtype)
        moved = a + torch.tensor(shift, dtype=dtype)
        survived += moved.item() != a.item() and abs(moved.item() - a.item() - shift) < 0.1 * abs(shift)
    return survived / len(values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shift", [0.3, -0.02, 0.0])
def test_shift_survival_matches_the_loop(dtype, shift):
    values = torch.randn(200, generator=torch.Generator().manual_seed(0)).mul(4).to(dtype)
    assert shift_survival(values, shift) == pytest.approx(_survival_by_hand(values, shift, dtype))


def test_a_shift_below_the_resolution_vanishes():
    assert shift_survival(torch.full((5,), 256.0, dtype=torch.bfloat16), 0.3) == 0.0
    assert shift_survival(torch.full((5,), 256.0), 0.3) == 1.0


def test_a_model_that_cannot_pad_is_proved_row_by_row_and_says_so():
    model = LanguageModel.of(
        causal_families.tiny_model("bart"), word_tokenizer(VOCABULARY, pad_token="w0", eos_token="w2"), "bart"
    )
    diagnosis = check_model(model)
    assert diagnosis.ok
    assert not diagnosis.pads_alike
    assert "gives a row of a padded batch other logits than the row alone: do not pad" in diagnosis.summary()
    assert way_of(model).by_generate


def test_ffns_that_are_not_seen_are_named():
    model = LanguageModel.of(
        causal_families.tiny_model("qwen2_moe"), word_tokenizer(VOCABULARY, pad_token="w0", eos_token="w2"), "moe"
    )
    diagnosis = check_model(model)
    assert diagnosis.pads_alike
    assert "neither recorded nor steered: mlp.shared_expert of 4 layers" in diagnosis.summary()
