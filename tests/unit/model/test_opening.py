"""Opening a checkpoint, and one clear message for each way it can fail."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma2ForCausalLM

from steering_oracle import steering_for
from tiny_models import D_FF, N_LAYERS, tiny, word_tokenizer
from trimtab.errors import ModelError
from trimtab.model import (
    LanguageModel,
    attach,
    check_model,
    down_weights,
    find_ffn,
    identify,
    open_model,
    tokenizer_fingerprint,
)
from trimtab.recording.forward import record_batch
from trimtab.traces import Trace


@pytest.fixture(autouse=True)
def _cpu_only(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


@pytest.mark.parametrize("as_text", [False, True])
def test_open_a_folder(checkpoint, as_text):
    model = open_model(str(checkpoint) if as_text else checkpoint)
    assert (model.device, model.d_ff, model.n_layers) == (torch.device("cpu"), D_FF, N_LAYERS)
    assert model.layout.found_by == "adapter"
    assert model.identity == identify(tiny("qwen3"), str(checkpoint), None)
    assert model.tokenizer_fingerprint == tokenizer_fingerprint(model.tokenizer)
    assert not model.hf_model.training
    assert not any(parameter.requires_grad for parameter in model.hf_model.parameters())
    assert (model.tokenizer.pad_token, model.tokenizer.padding_side) == ("w1", "left")
    assert model.tokenizer(["w5 w6", "w7"], padding=True)["input_ids"] == [[5, 6], [1, 7]]


@pytest.mark.parametrize(
    ("dtype", "expected"), [("auto", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)]
)
def test_dtypes(tmp_path, checkpoint, dtype, expected):
    folder = tmp_path / "half"
    tiny("qwen3").to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(folder)
    assert open_model(folder, dtype=dtype).hf_model.dtype == expected


with_sdpa = pytest.mark.skipif(not Gemma2ForCausalLM._supports_sdpa, reason="this transformers refuses sdpa for Gemma 2 itself")


@with_sdpa
def test_the_soft_cap_of_attention_is_kept(tmp_path):
    """transformers' sdpa leaves it out; the layout and everything else is as in any other family."""
    hf_model = tiny("gemma2")
    hf_model.save_pretrained(tmp_path)
    word_tokenizer(pad_token="w0", eos_token="w1").save_pretrained(tmp_path)
    ids = torch.arange(2, 14)[None]
    without = hf_model(input_ids=ids).logits
    hf_model.set_attn_implementation("eager")
    model = open_model(tmp_path)
    assert model.hf_model.config._attn_implementation == "eager"
    assert torch.equal(model.hf_model(input_ids=ids).logits, hf_model(input_ids=ids).logits)
    assert not torch.allclose(model.hf_model(input_ids=ids).logits, without, atol=1e-3)
    tiny("gemma3_text").save_pretrained(tmp_path)
    assert open_model(tmp_path).hf_model.config._attn_implementation == "sdpa"


def test_balanced_spreads_with_accelerate(checkpoint):
    pytest.importorskip("accelerate")
    assert open_model(checkpoint, device="balanced").device.type == "cpu"


def test_an_existing_pad_token_stays(checkpoint):
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    tokenizer.pad_token = "w2"
    tokenizer.save_pretrained(checkpoint)
    assert open_model(checkpoint).tokenizer.pad_token == "w2"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int4"}, "unknown dtype 'int4'; accepted: auto, float32, bfloat16, float16"),
        ({"device": "abacus"}, "unknown device 'abacus'; accepted: auto, cpu"),
        ({"device": "cuda"}, "'cuda' asked for, but torch sees 0 CUDA devices"),
        ({"device": "cuda:3"}, "'cuda:3' asked for"),
    ],
)
def test_bad_options(checkpoint, options, message):
    with pytest.raises(ModelError, match=message):
        open_model(checkpoint, **options)


@pytest.mark.parametrize("source", [Path("nowhere"), "./nowhere", "/nowhere/model"])
def test_a_missing_folder(source):
    with pytest.raises(ModelError, match=r"nowhere.* does not exist; give a folder"):
        open_model(source)


def test_an_unreachable_hub_id(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="'trimtab-tests/absent'") as caught:
        open_model("trimtab-tests/absent")
    assert "hf download trimtab-tests/absent" in str(caught.value)


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(ModelError, match="cannot open the model"):
        open_model(tmp_path)


def test_a_folder_without_a_tokenizer(tmp_path):
    tiny("qwen3").save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="has no tokenizer files"):
        open_model(tmp_path)


def test_a_folder_whose_tokenizer_cannot_be_made(tmp_path):
    tiny("llama").save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="cannot open the tokenizer"):
        open_model(tmp_path)


def test_truncated_weights(checkpoint):
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(ModelError, match="cannot open the model"):
        open_model(checkpoint)


def test_missing_weights_do_not_stay_random(checkpoint):
    weights = checkpoint / "model.safetensors"
    tensors = load_file(weights)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 of its weights.*model\.layers\.1\.mlp\.up_proj\.weight"):
        open_model(checkpoint)


def test_a_tokenizer_that_cannot_pad(checkpoint):
    word_tokenizer().save_pretrained(checkpoint)
    with pytest.raises(ModelError, match="neither a pad nor an eos token"):
        open_model(checkpoint)


def test_a_loaded_model_is_wrapped_and_left_as_it_was(qwen3):
    tokenizer = word_tokenizer(eos_token="w1", padding_side="right")
    model = LanguageModel.of(qwen3, tokenizer)
    assert model.hf_model is qwen3
    assert model.identity == identify(qwen3, "Qwen3ForCausalLM", None)
    assert model.tokenizer(["w5 w6", "w7"], padding=True)["input_ids"] == [[5, 6], [1, 7]]
    assert (tokenizer.padding_side, tokenizer.pad_token) == ("right", None)
    assert LanguageModel.of(qwen3, tokenizer, "mine").identity.name == "mine"


def test_a_loaded_model_must_be_ready(qwen3):
    with pytest.raises(ModelError, match=r"call model\.eval\(\) first"):
        LanguageModel.of(qwen3.train(), word_tokenizer(eos_token="w1"))
    with pytest.raises(ModelError, match="neither a pad nor an eos token"):
        LanguageModel.of(qwen3.eval(), word_tokenizer())


@with_sdpa
def test_a_loaded_model_must_not_leave_out_the_soft_cap():
    with pytest.raises(ModelError, match=r'set_attn_implementation\("eager"\)'):
        LanguageModel.of(tiny("gemma2"), word_tokenizer(eos_token="w1"))


def test_a_model_shows_itself_in_three_lines(qwen3):
    model = LanguageModel.of(qwen3, word_tokenizer(eos_token="w1"), "org/<tiny>")
    lines = repr(model).splitlines()
    assert len(lines) == 3
    assert lines[0] == "LanguageModel org/<tiny>: qwen3, float32 on cpu"
    assert "3 layers x 48 = 144 neurons" in lines[1]
    assert model.identity.fingerprint in lines[2]
    assert "org/&lt;tiny&gt;" in model._repr_html_()
    assert len(repr(model.layout).splitlines()) == 1


@pytest.mark.filterwarnings("ignore:You are calling .generate:UserWarning")  # the inputs move where the weights run
@pytest.mark.parametrize("family", ["qwen3", "mixtral"])
def test_weights_on_disk_are_hooked_where_they_run_or_refused(family, tmp_path):
    at_hand = tiny(family)
    at_hand.save_pretrained(tmp_path)
    steering, ids = steering_for(at_hand, scope="all"), torch.tensor([[3, 4, 5, 6]])
    on_disk = AutoModelForCausalLM.from_pretrained(tmp_path, device_map={"": "disk"}, offload_folder=tmp_path / "off").eval()
    opened = LanguageModel(on_disk, word_tokenizer(pad_token="w0", eos_token="w1"), find_ffn(on_disk), steering.model)
    trace = Trace("t", "p", 0, (3, 4, 5), (6, 7), "", "stop")
    with pytest.raises(ModelError, match="offloaded"):
        down_weights(opened, [1])
    with pytest.raises(ModelError, match="is offloaded, so the weights cannot be fingerprinted"):
        identify(on_disk, "x", None)
    if family == "mixtral":
        for act in (lambda: record_batch(opened, [trace], ("all",), ("sum",)), lambda: attach(opened, steering).__enter__()):
            with pytest.raises(ModelError, match="the weights of the experts of layer 0 are offloaded"):
                act()
        return
    assert check_model(opened).ok
    with attach(at_hand, steering):
        expected = at_hand(ids).logits
    with attach(opened, steering), torch.no_grad():
        torch.testing.assert_close(on_disk(ids).logits, expected)
    here = LanguageModel(at_hand, opened.tokenizer, find_ffn(at_hand), steering.model)
    sums = [record_batch(one, [trace], ("all",), ("sum",))["all"].sum for one in (opened, here)]
    np.testing.assert_allclose(*sums, rtol=1e-6)
