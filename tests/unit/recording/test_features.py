"""Per-token activations of chosen neurons against one unpadded forward per trace."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tiny_models import D_FF, N_LAYERS, VOCABULARY, tiny, word_tokenizer
from trimtab.errors import InputError
from trimtab.model import LanguageModel, open_model
from trimtab.recording import batch_features
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
        assert len(rows) == len(expected)
        np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-5)
    assert not any(module._forward_pre_hooks for module in model.layout.down)


def test_what_cannot_be_recorded(model: LanguageModel) -> None:
    with pytest.raises(InputError, match=f"layer {N_LAYERS}, index 0"):
        batch_features(model, TRACES, np.array([N_LAYERS]), np.array([0]), "all")
    with pytest.raises(InputError, match=f"index {D_FF}"):
        batch_features(model, TRACES, np.array([0]), np.array([D_FF]), "all")
    with pytest.raises(InputError, match="one layer and one index per neuron, got 0 and 0"):
        batch_features(model, TRACES, LAYER[:0], INDEX[:0], "all")
    with pytest.raises(InputError, match="trace d has no token in the scope 'response'; its response is too short"):
        batch_features(model, [replace(TRACES[3], response_ids=(4,))], LAYER, INDEX, "response")


def test_activations_that_are_not_finite_are_refused(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    mlp = model.hf_model.model.layers[1].mlp
    monkeypatch.setattr(mlp.act_fn, "forward", lambda x: x * float("nan"))
    with pytest.raises(InputError, match="trace a has activations that are NaN or infinite"):
        batch_features(model, TRACES, LAYER, INDEX, "all")
