"""Who a model is, and which differences are refused."""

import logging
from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from steering_samples import neuron_set
from tiny_models import tiny
from trimtab.errors import MismatchError, ModelError
from trimtab.model import check_identity, identify, rebind, tokenizer_fingerprint, weights_digest
from trimtab.model import identity as identity_module
from trimtab.neurons import ModelIdentity
from trimtab.steering import Steering

IDENTITY = ModelIdentity("org/model", "abc", "qwen3", "f00d", 3, 32, 48, 97)


def test_sizes(qwen3):
    identity = identify(qwen3, "org/tiny", "main")
    assert identity == ModelIdentity("org/tiny", "main", "qwen3", identity.fingerprint, 3, 32, 48, 97)
    assert len(identity.fingerprint) == 32


def test_same_weights_same_fingerprint(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    expected = identify(tiny_model, "a", None).fingerprint
    for dtype in ("float32", "bfloat16"):
        again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype)
        assert identify(again, "b", None).fingerprint == expected, dtype


def test_a_bfloat16_checkpoint_agrees_in_every_dtype(tmp_path):
    tiny("qwen2").to(torch.bfloat16).save_pretrained(tmp_path)
    loaded = [AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype) for dtype in ("bfloat16", "float32")]
    assert len({identify(model, "m", None).fingerprint for model in loaded}) == 1


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "model.layers.2.mlp.down_proj.weight", "model.norm.weight"])
def test_one_changed_parameter_shows(qwen3, name):
    before = identify(qwen3, "m", None).fingerprint
    qwen3.get_parameter(name).data.mul_(1.1)
    assert identify(qwen3, "m", None).fingerprint != before


def test_large_parameters_are_sampled_evenly(qwen3, monkeypatch):
    monkeypatch.setattr("trimtab.model.identity._SAMPLE", 100)
    before = identify(qwen3, "m", None).fingerprint
    weight = qwen3.model.layers[0].mlp.down_proj.weight.data.view(-1)  # 1536 elements, every 16th is read
    weight[1] += 1
    assert identify(qwen3, "m", None).fingerprint == before
    weight[1520] += 1
    assert identify(qwen3, "m", None).fingerprint != before


def test_the_digest_sees_every_element_dtype_and_setting(qwen3):
    digests = [weights_digest(qwen3), weights_digest(tiny("qwen3"))]
    assert digests[0] == digests[1]
    with torch.no_grad():
        qwen3.model.layers[0].mlp.down_proj.weight[3, 7] += 1e-6
    digests.append(weights_digest(qwen3))
    qwen3.config.rms_norm_eps = 1e-3
    digests.append(weights_digest(qwen3))
    qwen3.model.norm.weight = torch.nn.Parameter(torch.full((32,), 2.0))
    digests.append(weights_digest(qwen3))
    digests.append(weights_digest(qwen3.to(torch.bfloat16)))
    qwen3.generation_config.eos_token_id = 5
    digests.append(weights_digest(qwen3))
    assert len(set(digests)) == 6


def test_the_digest_hashes_bytes_only_when_a_version_counter_has_moved(qwen3, monkeypatch):
    runs: list[int] = []
    hash_bytes = identity_module._hash_bytes
    monkeypatch.setattr(identity_module, "_hash_bytes", lambda tensors: runs.append(1) or hash_bytes(tensors))
    first = weights_digest(qwen3)
    assert (weights_digest(qwen3), len(runs)) == (first, 1)
    weight = qwen3.model.layers[1].mlp.up_proj.weight
    with torch.no_grad():
        weight[0, 0] += 1
    changed = weights_digest(qwen3)
    assert (changed != first, len(runs)) == (True, 2)
    with torch.no_grad():
        weight[0, 0] -= 1
    weights_digest(qwen3)
    assert len(runs) == 3
    weight.data.mul_(2.0)  # moves no counter, but the fingerprint
    weights_digest(qwen3)
    assert len(runs) == 4


def test_weights_that_count_no_versions_are_hashed_each_time(monkeypatch):
    with torch.inference_mode():
        model = tiny("qwen3")
        first = weights_digest(model)
        model.model.norm.weight[3] += 1
        assert weights_digest(model) != first


def test_other_seeds_families_and_ties_differ():
    models = [tiny("qwen3"), tiny("qwen3", seed=1), tiny("qwen2"), tiny("llama"), tiny("qwen3", tied=True)]
    assert len({identify(model, "m", None).fingerprint for model in models}) == len(models)


def test_offloaded_weights_are_refused():
    with pytest.raises(ModelError, match="offloaded"):
        identify(tiny("qwen3").to("meta"), "m", None)


def test_names_and_revisions_may_differ():
    check_identity(IDENTITY, replace(IDENTITY, name="elsewhere", revision=None))


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    ("field", "value"), [("architecture", "llama"), ("n_layers", 4), ("d_model", 64), ("d_ff", 96), ("vocab_size", 98)]
)
def test_sizes_may_never_differ(field, value, force):
    with pytest.raises(MismatchError, match=f"{field}: expected {getattr(IDENTITY, field)}, this model has {value}") as caught:
        check_identity(IDENTITY, replace(IDENTITY, **{field: value}), force=force)
    assert "open org/model at revision abc" in str(caught.value)


def test_every_difference_is_named():
    with pytest.raises(MismatchError, match=r"(?s)n_layers: .*d_ff: .*fingerprint: "):
        check_identity(IDENTITY, replace(IDENTITY, n_layers=9, d_ff=9, fingerprint="beef"))


def test_other_weights_need_force(caplog):
    other = replace(IDENTITY, fingerprint="beef")
    with pytest.raises(MismatchError, match="fingerprint: expected f00d, this model has beef") as caught:
        check_identity(IDENTITY, other)
    assert "force_model=True" in str(caught.value)
    with caplog.at_level(logging.WARNING):
        check_identity(IDENTITY, other, force=True)
    assert "beef" in caplog.text


def test_a_steering_is_rebound_to_other_weights_and_remembers_it():
    steering = Steering.of(neuron_set(IDENTITY), 2.0)
    tuned = replace(IDENTITY, name="org/tuned", fingerprint="beef")
    rebound = rebind(steering, tuned)
    assert rebound.model is tuned
    assert rebound.facts["forced_from"] == {"name": "org/model", "fingerprint": "f00d"}
    assert rebind(steering, replace(IDENTITY, name="renamed")) is steering
    with pytest.raises(MismatchError, match="d_ff"):
        rebind(steering, replace(tuned, d_ff=49))


def _tokenizer(vocabulary, splitter, **special):
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="a"))
    backend.pre_tokenizer = splitter
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


def test_tokenizer_fingerprint(tmp_path):
    vocabulary = {"a": 0, "b": 1, "c": 2}
    tokenizer = _tokenizer(vocabulary, pre_tokenizers.Whitespace(), pad_token="a")
    expected = tokenizer_fingerprint(tokenizer)
    tokenizer(["a b", "c"], padding=True, truncation=True, max_length=4)
    tokenizer.chat_template = "{{ messages }}"
    assert tokenizer_fingerprint(tokenizer) == expected
    tokenizer.save_pretrained(tmp_path)
    assert tokenizer_fingerprint(PreTrainedTokenizerFast.from_pretrained(tmp_path)) == expected
    swapped = _tokenizer({"a": 0, "b": 2, "c": 1}, pre_tokenizers.Whitespace(), pad_token="a")
    other_rules = _tokenizer(vocabulary, pre_tokenizers.Digits(), pad_token="a")
    added = _tokenizer(vocabulary, pre_tokenizers.Whitespace(), pad_token="a", additional_special_tokens=["<think>"])
    assert len({expected, *map(tokenizer_fingerprint, (swapped, other_rules, added))}) == 4
