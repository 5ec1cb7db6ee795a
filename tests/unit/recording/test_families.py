"""Recording on every family: the moments, and for experts who was routed where, against one forward per trace."""

from pathlib import Path

import numpy as np
import pytest

from steering_oracle import every_activation
from tiny_models import D_FF, FAMILIES, MIXTURES, N_EXPERTS, N_LAYERS, TOP_K, VOCABULARY, tiny, word_tokenizer
from trimtab.errors import InputError
from trimtab.model import LanguageModel, find_ffn, identify
from trimtab.moments import MOMENTS
from trimtab.recording import RecordingSettings, batch_features, record_batch, record_prompts, record_traces
from trimtab.traces import Trace

SCOPES = ("all", "response", "prompt", "last-prompt")


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> LanguageModel:
    model = tiny(request.param)
    layout = find_ffn(model)
    tokenizer = word_tokenizer(pad_token="w0", eos_token="w1")
    return LanguageModel(model, tokenizer, layout, identify(model, "tiny", None, layout=layout))


@pytest.fixture(params=MIXTURES)
def mixture(request: pytest.FixtureRequest) -> LanguageModel:
    model = tiny(request.param)
    layout = find_ffn(model)
    tokenizer = word_tokenizer(pad_token="w0", eos_token="w1")
    return LanguageModel(model, tokenizer, layout, identify(model, "tiny", None, layout=layout))


def _trace(name: str, prompt: int, response: int, seed: int) -> Trace:
    ids = np.random.default_rng(seed).integers(2, VOCABULARY, prompt + response).tolist()
    return Trace(name, name, 0, tuple(ids[:prompt]), tuple(ids[prompt:]), "", "stop")


TRACES = [_trace("a", 5, 6, 0), _trace("b", 1, 2, 1), _trace("c", 8, 4, 2)]


def _tokens(trace: Trace, scope: str) -> range:
    prompt, end = len(trace.prompt_ids), len(trace.prompt_ids) + len(trace.response_ids) - 1
    return {"all": range(end), "response": range(prompt, end), "prompt": range(prompt), "last-prompt": range(prompt - 1, prompt)}[
        scope
    ]


def _alone(model: LanguageModel, trace: Trace) -> np.ndarray:
    return every_activation(model.hf_model, [*trace.prompt_ids, *trace.response_ids[:-1]])


def test_moments_and_counts_equal_the_naive_loop(model: LanguageModel) -> None:
    mixture = model.layout.mixture
    recorded = record_batch(model, TRACES, SCOPES, MOMENTS)
    for row, trace in enumerate(TRACES):
        kept = _alone(model, trace)
        for scope, moments in recorded.items():
            expected = {name: np.zeros((N_LAYERS, D_FF)) for name in MOMENTS}
            routed = np.zeros((N_LAYERS, D_FF), int)
            for token in _tokens(trace, scope):
                present = ~np.isnan(kept[token])
                value = np.where(present, kept[token], 0.0)
                expected["sum"] += value
                expected["magnitude"] += np.abs(value)
                expected["square"] += value**2
                routed += present
            for name in MOMENTS:
                np.testing.assert_allclose(getattr(moments, name)[row], expected[name], rtol=2e-4, atol=2e-5)
            by_neuron = (
                np.repeat(moments.count[row], D_FF // N_EXPERTS, axis=1) if mixture else np.full_like(routed, moments.count[row])
            )
            np.testing.assert_array_equal(by_neuron, routed)
            mean, magnitude, rms = (getattr(moments, name)()[row] for name in ("mean", "mean_magnitude", "rms"))
            with np.errstate(invalid="ignore"):
                np.testing.assert_allclose(mean, expected["sum"] / routed, rtol=2e-4, atol=2e-5)
                np.testing.assert_allclose(magnitude, expected["magnitude"] / routed, rtol=2e-4, atol=2e-5)
                np.testing.assert_allclose(rms, np.sqrt(expected["square"] / routed), rtol=2e-4, atol=2e-5)
            all_tokens = expected["sum"] / len(_tokens(trace, scope))
            np.testing.assert_allclose(moments.mean_of_all_tokens()[row], all_tokens, rtol=2e-4, atol=2e-5)


def test_a_trace_is_recorded_alike_in_any_batch(model: LanguageModel) -> None:
    together = record_batch(model, TRACES, SCOPES, ("sum",))
    for row, trace in enumerate(TRACES):
        for scope, alone in record_batch(model, [trace], SCOPES, ("sum",)).items():
            np.testing.assert_allclose(together[scope].sum[row], alone.sum[0], rtol=1e-4, atol=1e-5)
            np.testing.assert_array_equal(together[scope].count[row], alone.count[0])


def test_features_of_the_gate_and_of_each_token(model: LanguageModel, tmp_path: Path) -> None:
    prompts = {trace.id: trace.prompt_ids for trace in TRACES}
    recording = record_prompts(model, prompts, tmp_path, scopes=("last-prompt", "prompt"), batch_tokens=12)
    last, mean = (recording.means(scope, ["c", "a"]) for scope in ("last-prompt", "prompt"))
    layer, index = np.array([2, 0, 2]), np.array([40, 3, 12])
    each = batch_features(model, [TRACES[2], TRACES[0]], layer, index, "prompt")
    for row, trace in enumerate((TRACES[2], TRACES[0])):
        naive = np.nan_to_num(every_activation(model.hf_model, trace.prompt_ids))
        np.testing.assert_allclose(last[row], naive[-1], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(mean[row], naive.mean(0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(each[row], naive[:, layer, index], rtol=1e-4, atol=1e-5)


def test_no_token_in_an_expert_is_nan_and_only_that(mixture: LanguageModel, tmp_path: Path) -> None:
    settings = RecordingSettings(scopes=("response",), moments=MOMENTS, batch_tokens=30)
    recording = record_traces(mixture, TRACES, settings, tmp_path)
    seen = {}
    for ids, moments in recording.stream("response"):
        assert moments.count.shape == (len(ids), N_LAYERS, N_EXPERTS)
        assert moments.is_mixture
        assert moments.n_experts == N_EXPERTS
        empty = np.repeat(moments.count == 0, D_FF // N_EXPERTS, axis=2)
        for value in (moments.mean(), moments.mean_magnitude(), moments.rms()):
            assert value.dtype == np.float32
            np.testing.assert_array_equal(np.isnan(value), empty)
        assert not np.isnan(moments.mean_of_all_tokens()).any()
        seen.update(zip(ids, moments.count, strict=True))
        np.testing.assert_array_equal(moments.count.sum(2), TOP_K * moments.tokens[:, None].repeat(N_LAYERS, 1))
    assert seen["b"].sum() == N_LAYERS * TOP_K, "trace b has one response token, in two of four experts"
    assert (seen["b"] == 0).any()


def test_moments_of_experts_merge_and_are_taken(mixture: LanguageModel) -> None:
    recorded = record_batch(mixture, TRACES, SCOPES, MOMENTS)
    merged = recorded["prompt"].merge(recorded["response"])
    np.testing.assert_array_equal(merged.count, recorded["all"].count)
    np.testing.assert_array_equal(merged.tokens, recorded["all"].tokens)
    np.testing.assert_allclose(merged.mean(), recorded["all"].mean(), rtol=1e-4, atol=1e-5)
    taken = merged.take([2, 0])
    np.testing.assert_array_equal(taken.count, merged.count[[2, 0]])
    np.testing.assert_array_equal(taken.mean_of_all_tokens(), merged.mean_of_all_tokens()[[2, 0]])


@pytest.mark.parametrize("broken", [1, 2])
def test_an_expert_with_nan_names_the_trace_and_the_layer(mixture: LanguageModel, broken: int) -> None:
    """Only trace b's one token is looked at, in an expert that it is routed to."""
    count = record_batch(mixture, [TRACES[1]], ("response",), ("sum",))["response"].count[0]
    expert = int(np.flatnonzero(count[broken])[0])
    mixture.layout.modules[broken].gate_up_proj.data[expert, 3, 0] = float("nan")
    with pytest.raises(InputError, match=f"trace b has activations that are NaN or infinite, first in layer {broken}; record in"):
        record_batch(mixture, [TRACES[1]], ("response",), ("sum",))
    assert not any(module._forward_pre_hooks for module in mixture.layout.modules)
