"""Per-token activations of chosen neurons against one unpadded forward per trace."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tiny_models import D_FF, N_LAYERS, VOCABULARY, tiny, word_tokenizer
from tiny_testbed import tree_bytes
from trimtab.errors import ConfigError, InputError
from trimtab.model import LanguageModel, open_model
from trimtab.recording import batch_features, record_features, tokens_in
from trimtab.recording import features as module
from trimtab.traces import Trace

LAYER, INDEX = np.array([2, 0, 2, 1]), np.array([7, 47, 0, 7])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = tmp_path_factory.mktemp("model")
    tiny("qwen3").save_pretrained(folder)
    word_tokenizer(pad_token="w0", eos_token="w1").save_pretrained(folder)
    return open_model(folder)


def _trace(name: str, prompt: int, response: int, seed: int) -> Trace:
    ids = np.random.default_rng(seed).integers(2, VOCABULARY, prompt + response).tolist()
    return Trace(name, name, 0, tuple(ids[:prompt]), tuple(ids[prompt:]), "", "stop")


TRACES = [_trace("a", 5, 9, 0), _trace("b", 3, 2, 1), _trace("c", 12, 6, 2), _trace("d", 1, 4, 3)]


def _alone(model: LanguageModel, trace: Trace) -> np.ndarray:
    """Activations of the chosen neurons at every forwarded token of one trace, float32 ``[token, feature]``."""
    kept: dict[int, torch.Tensor] = {}
    hooks = [
        block.mlp.down_proj.register_forward_pre_hook(lambda _, inputs, layer=layer: kept.update({layer: inputs[0][0]}))
        for layer, block in enumerate(model.hf_model.model.layers)
    ]
    with torch.no_grad():
        model.hf_model(input_ids=torch.tensor([[*trace.prompt_ids, *trace.response_ids[:-1]]]))
    for hook in hooks:
        hook.remove()
    return np.stack([kept[layer][:, index].numpy() for layer, index in zip(LAYER.tolist(), INDEX.tolist(), strict=True)], axis=1)


def _of_scope(trace: Trace, rows: np.ndarray, scope: str) -> np.ndarray:
    prompt = len(trace.prompt_ids)
    return {"all": rows, "prompt": rows[:prompt], "last-prompt": rows[prompt - 1 : prompt], "response": rows[prompt:]}[scope]


@pytest.mark.parametrize("scope", ["all", "prompt", "last-prompt", "response"])
def test_a_batch_equals_one_forward_per_trace(model: LanguageModel, scope: str) -> None:
    for trace, rows in zip(TRACES, batch_features(model, TRACES, LAYER, INDEX, scope), strict=True):
        assert rows.dtype == np.float32
        expected = _of_scope(trace, _alone(model, trace), scope)
        assert len(tokens_in(trace, scope)) == len(rows) == len(expected)
        np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-5)
    assert not any(module._forward_pre_hooks for module in model.layout.down)


def test_tokens_are_named() -> None:
    trace = Trace("a", "a", 0, (4, 5, 6), (7, 8, 9), "", "stop")
    assert tokens_in(trace, "all") == (4, 5, 6, 7, 8)
    assert tokens_in(trace, "prompt") == (4, 5, 6)
    assert tokens_in(trace, "last-prompt") == (6,)
    assert tokens_in(trace, "response") == (7, 8)


def test_the_store_gives_back_what_a_batch_gives(model: LanguageModel, tmp_path: Path) -> None:
    stored = record_features(model, TRACES, LAYER, INDEX, "response", tmp_path / "f", batch_tokens=30)
    direct = dict(zip("abcd", batch_features(model, TRACES, LAYER, INDEX, "response"), strict=True))
    seen = []
    for ids, part in stored.stream():
        seen += ids
        for name, rows in zip(ids, part, strict=True):
            np.testing.assert_allclose(rows, direct[name], rtol=1e-4, atol=1e-5)
    assert sorted(seen) == ["a", "b", "c", "d"]
    assert len(list((tmp_path / "f").glob("part-*"))) > 1
    for rows, name in zip(stored.of(["d", "b"]), "db", strict=True):
        np.testing.assert_allclose(rows, direct[name], rtol=1e-4, atol=1e-5)
    layer, index = stored.addresses
    assert (layer.tolist(), index.tolist()) == (LAYER.tolist(), INDEX.tolist())


def test_resume_ends_with_the_same_bytes(model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def record(name: str) -> None:
        record_features(model, TRACES, LAYER, INDEX, "all", tmp_path / name, batch_tokens=30)

    record("undisturbed")
    calls = []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return batch_features(*args)

    monkeypatch.setattr(module, "batch_features", interrupted)
    with pytest.raises(KeyboardInterrupt):
        record("resumed")
    assert len(list((tmp_path / "resumed").glob("part-*"))) == 1
    record("resumed")
    assert tree_bytes(tmp_path / "resumed") == tree_bytes(tmp_path / "undisturbed")


def test_other_neurons_or_another_scope_are_another_plan(model: LanguageModel, tmp_path: Path) -> None:
    record_features(model, TRACES, LAYER, INDEX, "all", tmp_path)
    with pytest.raises(ConfigError, match=r"another plan: .*neurons"):
        record_features(model, TRACES, LAYER[::-1], INDEX[::-1], "all", tmp_path)
    with pytest.raises(ConfigError, match=r"another plan: .*scope all -> prompt"):
        record_features(model, TRACES, LAYER, INDEX, "prompt", tmp_path)


def test_what_cannot_be_recorded(model: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"layer {N_LAYERS}, index 0"):
        batch_features(model, TRACES, np.array([N_LAYERS]), np.array([0]), "all")
    with pytest.raises(InputError, match=f"index {D_FF}"):
        record_features(model, TRACES, np.array([0]), np.array([D_FF]), "all", tmp_path / "a")
    with pytest.raises(InputError, match="one layer and one index per neuron, got 0 and 0"):
        batch_features(model, TRACES, LAYER[:0], INDEX[:0], "all")
    with pytest.raises(InputError, match="trace d has no token in the scope 'response'; its response is too short"):
        batch_features(model, [replace(TRACES[3], response_ids=(4,))], LAYER, INDEX, "response")


def test_activations_that_are_not_finite_are_refused(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    mlp = model.hf_model.model.layers[1].mlp
    monkeypatch.setattr(mlp.act_fn, "forward", lambda x: x * float("nan"))
    with pytest.raises(InputError, match="trace a has activations that are NaN or infinite"):
        batch_features(model, TRACES, LAYER, INDEX, "all")
