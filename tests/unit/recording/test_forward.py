"""Streamed moments against a naive loop that keeps every activation of every token."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from tiny_models import D_FF, N_LAYERS, VOCABULARY, tiny, word_tokenizer
from tiny_testbed import tree_bytes
from trimtab.errors import ConfigError, InputError, StoreError
from trimtab.model import LanguageModel, open_model
from trimtab.moments import MOMENTS
from trimtab.recording import RecordingSettings, record_batch, record_prompts, record_traces
from trimtab.recording import record as module
from trimtab.recording.forward import start_batch
from trimtab.store import Parts, read_arrow
from trimtab.traces import Trace

SCOPES = ("all", "response", "prompt", "last-prompt")


@pytest.fixture(params=["qwen3", "llama"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> LanguageModel:
    tiny(request.param).save_pretrained(tmp_path / "model")
    word_tokenizer(pad_token="w0", eos_token="w1").save_pretrained(tmp_path / "model")
    return open_model(tmp_path / "model")


def _trace(name: str, prompt: int, response: int, seed: int = 0) -> Trace:
    ids = np.random.default_rng(seed).integers(2, VOCABULARY, prompt + response).tolist()
    return Trace(name, name, 0, tuple(ids[:prompt]), tuple(ids[prompt:]), "", "stop")


TRACES = [_trace("a", 5, 9), _trace("b", 3, 2, 1), _trace("c", 12, 6, 2), _trace("d", 1, 4, 3)]


def _activations(model: LanguageModel, trace: Trace) -> np.ndarray:
    """Every activation of one trace run alone, float64 ``[token, layer, d_ff]``."""
    kept: list[np.ndarray] = []
    hooks = [
        block.mlp.down_proj.register_forward_pre_hook(lambda module, inputs: kept.append(inputs[0][0].double().numpy()))
        for block in model.hf_model.model.layers
    ]
    with torch.no_grad():
        model.hf_model(input_ids=torch.tensor([[*trace.prompt_ids, *trace.response_ids[:-1]]]))
    for hook in hooks:
        hook.remove()
    return np.stack(kept, 1)


def test_moments_of_every_scope_equal_the_naive_loop(model: LanguageModel) -> None:
    recorded = record_batch(model, TRACES, SCOPES, MOMENTS)
    assert set(recorded) == set(SCOPES)
    for row, trace in enumerate(TRACES):
        kept, prompt = _activations(model, trace), len(trace.prompt_ids)
        tokens = {
            "all": range(len(kept)),
            "response": [t for t in range(len(kept)) if t >= prompt],
            "prompt": range(prompt),
            "last-prompt": [prompt - 1],
        }
        for scope, moments in recorded.items():
            expected = {name: np.zeros((N_LAYERS, D_FF)) for name in MOMENTS}
            for token in tokens[scope]:
                expected["sum"] += kept[token]
                expected["magnitude"] += np.abs(kept[token])
                expected["square"] += kept[token] ** 2
            assert moments.count[row] == len(tokens[scope])
            for name in MOMENTS:
                actual = getattr(moments, name)[row]
                assert actual.dtype == np.float32
                np.testing.assert_allclose(actual, expected[name], rtol=2e-4, atol=2e-5)


def test_a_trace_is_recorded_alike_in_any_batch(model: LanguageModel) -> None:
    together = record_batch(model, TRACES, SCOPES, ("sum",))
    for row, trace in enumerate(TRACES):
        for scope, alone in record_batch(model, [trace], SCOPES, ("sum",)).items():
            np.testing.assert_allclose(together[scope].sum[row], alone.sum[0], rtol=1e-4, atol=1e-5)


def test_only_the_moments_asked_for(model: LanguageModel) -> None:
    moments = record_batch(model, TRACES, ("all",), ("magnitude",))["all"]
    assert moments.sum is None
    assert moments.square is None
    assert moments.magnitude.shape == (4, N_LAYERS, D_FF)
    for unknown in (("mean",), ()):
        with pytest.raises(InputError, match="accepted: sum, magnitude, square"):
            record_batch(model, TRACES, ("all",), unknown)
    with pytest.raises(InputError, match="no token scope to record; give one or more of all"):
        record_batch(model, TRACES, (), ("sum",))


def test_hooks_are_gone_afterwards(model: LanguageModel) -> None:
    record_batch(model, TRACES, SCOPES, MOMENTS)
    assert not any(module._forward_pre_hooks for module in model.layout.down)


@pytest.mark.parametrize("layer", [0, 2])
def test_nan_weights_name_trace_and_layer(model: LanguageModel, layer: int) -> None:
    model.hf_model.model.layers[layer].mlp.up_proj.weight.data[3, 0] = float("nan")
    with pytest.raises(InputError, match=f"trace a has activations that are NaN or infinite, first in layer {layer}; record in"):
        record_batch(model, TRACES, ("all",), ("sum",))
    assert not any(module._forward_pre_hooks for module in model.layout.down)


@pytest.mark.parametrize("bad", [VOCABULARY, -1])
def test_ids_of_another_vocabulary(model: LanguageModel, bad: int) -> None:
    trace = replace(TRACES[0], prompt_ids=(3, bad, 4))
    with pytest.raises(InputError, match=f"trace a has token ids outside 0..{VOCABULARY - 1}: they are of another tokenizer"):
        record_batch(model, [TRACES[1], trace], ("all",), ("sum",))


def test_empty_scopes(model: LanguageModel) -> None:
    with pytest.raises(InputError, match="trace a has no token in the scope 'response'; its response is too short"):
        record_batch(model, [_trace("a", 4, 1)], ("response",), ("sum",))
    with pytest.raises(InputError, match="trace a has no token in the scope 'last-prompt'"):
        record_batch(model, [_trace("a", 0, 4)], ("last-prompt",), ("sum",))
    assert record_batch(model, [_trace("a", 4, 1)], ("all",), ("sum",))["all"].count.tolist() == [4]


SETTINGS = RecordingSettings(scopes=("all", "response"), moments=("sum", "square"), batch_tokens=30)


def test_a_recording_on_disk(model: LanguageModel, tmp_path: Path) -> None:
    recording = record_traces(model, TRACES, SETTINGS, tmp_path / "r")
    direct = record_batch(model, TRACES, SETTINGS.scopes, SETTINGS.moments)
    place = {trace.id: row for row, trace in enumerate(TRACES)}
    for scope in SETTINGS.scopes:
        seen = []
        for ids, moments in recording.stream(scope):
            rows = [place[trace_id] for trace_id in ids]
            seen += ids
            assert moments.count.tolist() == direct[scope].count[rows].tolist()
            np.testing.assert_allclose(moments.sum, direct[scope].sum[rows], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(moments.square, direct[scope].square[rows], rtol=1e-4, atol=1e-5)
            assert moments.magnitude is None
        assert sorted(seen) == ["a", "b", "c", "d"]
    with pytest.raises(InputError, match="holds the scopes all, response, not 'last-prompt'; record again"):
        next(recording.stream("last-prompt"))
    index = read_arrow(tmp_path / "r" / "index.parquet").to_pylist()
    assert {(row["trace_id"], row["problem_id"]) for row in index} == {(t.id, t.problem_id) for t in TRACES}
    for row in index:
        assert list(recording.stream("all"))[row["part"]][0][row["row"]] == row["trace_id"]


def test_last_prompt_tokens(model: LanguageModel, tmp_path: Path) -> None:
    prompts = {trace.id: trace.prompt_ids for trace in TRACES}
    recording = record_prompts(model, prompts, tmp_path / "p", batch_tokens=12)
    features = recording.means("last-prompt", ["c", "a", "d"])
    assert features.shape == (3, N_LAYERS, D_FF)
    for row, trace in zip(features, (TRACES[2], TRACES[0], TRACES[3]), strict=True):
        alone = _activations(model, replace(trace, response_ids=(2,)))[-1]
        np.testing.assert_allclose(row, alone, rtol=1e-4, atol=1e-5)


def test_means_of_prompt_tokens(model: LanguageModel, tmp_path: Path) -> None:
    prompts = {trace.id: trace.prompt_ids for trace in TRACES}
    recording = record_prompts(model, prompts, tmp_path / "p", scopes=("last-prompt", "prompt"), batch_tokens=12)
    assert recording.means("last-prompt", ["d"]).shape == (1, N_LAYERS, D_FF)
    for row, trace in zip(recording.means("prompt", ["b", "c"]), (TRACES[1], TRACES[2]), strict=True):
        alone = _activations(model, replace(trace, response_ids=(2,))).mean(axis=0)
        np.testing.assert_allclose(row, alone, rtol=1e-4, atol=1e-5)


def test_what_a_gate_reads_is_what_a_trace_passed_through(model: LanguageModel, tmp_path: Path) -> None:
    """The recorded last prompt token is the one that the response continues from."""
    recording = record_prompts(model, {"a": TRACES[0].prompt_ids}, tmp_path / "p")
    whole = record_batch(model, [TRACES[0]], ("last-prompt",), ("sum",))["last-prompt"]
    np.testing.assert_allclose(recording.means("last-prompt", ["a"]), whole.sum, rtol=1e-4, atol=1e-5)


def test_resume_after_an_exception_ends_with_the_same_bytes(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_traces(model, TRACES, SETTINGS, tmp_path / "undisturbed")
    calls = []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return start_batch(*args)

    monkeypatch.setattr(module, "start_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        record_traces(model, TRACES, SETTINGS, tmp_path / "resumed")
    assert len(list((tmp_path / "resumed").glob("part-*"))) == 1
    record_traces(model, TRACES, SETTINGS, tmp_path / "resumed")
    assert tree_bytes(tmp_path / "resumed") == tree_bytes(tmp_path / "undisturbed")


def test_a_part_that_cannot_be_written_is_an_error(model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def full(parts: Parts, part: int, *_: object) -> None:
        written.append(part)
        raise StoreError("the disk is full")

    monkeypatch.setattr(Parts, "write_tensors", full)
    with pytest.raises(StoreError, match="the disk is full"):
        record_traces(model, TRACES, SETTINGS, tmp_path)
    assert written == [0]
    assert not (tmp_path / "index.parquet").exists()


def test_not_finite_activations_end_a_recording_and_name_the_trace(model: LanguageModel, tmp_path: Path) -> None:
    model.hf_model.model.layers[1].mlp.up_proj.weight.data[3, 0] = float("nan")
    with pytest.raises(InputError, match="trace c has activations that are NaN or infinite, first in layer 1"):
        record_traces(model, TRACES, SETTINGS, tmp_path)
    assert not list(tmp_path.glob("part-*"))


def test_a_trace_twice_is_refused(model: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1 ids of a plan appear twice, first 'a'"):
        record_traces(model, [*TRACES, TRACES[0]], SETTINGS, tmp_path)


def test_bfloat16_equals_float32_sums_of_its_activations(tmp_path: Path) -> None:
    tiny("qwen3").save_pretrained(tmp_path / "model")
    word_tokenizer(pad_token="w0", eos_token="w1").save_pretrained(tmp_path / "model")
    model = open_model(tmp_path / "model", dtype="bfloat16")
    recorded = record_batch(model, [TRACES[0]], ("all",), MOMENTS)["all"]
    kept = _activations(model, TRACES[0])
    expected = {"sum": kept.sum(0), "magnitude": np.abs(kept).sum(0), "square": (kept**2).sum(0)}
    for name in MOMENTS:
        np.testing.assert_allclose(getattr(recorded, name)[0], expected[name], rtol=1e-5, atol=1e-6)


def test_only_what_is_asked_for_is_read_back(model: LanguageModel, tmp_path: Path) -> None:
    recording = record_traces(model, TRACES, SETTINGS, tmp_path)
    assert recording.shape("all") == (N_LAYERS, D_FF, 0)
    parts = zip(recording.stream("all"), recording.stream("all", ("square", "magnitude"), slice(1, 2)), strict=True)
    for (ids, whole), (same, some) in parts:
        assert ids == same
        assert some.sum is None
        assert some.magnitude is None
        np.testing.assert_array_equal(some.count, whole.count)
        np.testing.assert_array_equal(some.square, whole.square[:, 1:2])
    with pytest.raises(InputError, match="holds the scopes all, response, not 'last-prompt'"):
        recording.shape("last-prompt")


def test_another_plan_is_refused(model: LanguageModel, tmp_path: Path) -> None:
    record_traces(model, TRACES, SETTINGS, tmp_path)
    with pytest.raises(ConfigError, match=r"another plan: .*moments"):
        record_traces(model, TRACES, RecordingSettings(moments=("sum",), batch_tokens=30), tmp_path)


def test_batches_hold_their_budget(model: LanguageModel, tmp_path: Path) -> None:
    recording = record_traces(model, TRACES, SETTINGS, tmp_path)
    length = {t.id: len(t.prompt_ids) + len(t.response_ids) - 1 for t in TRACES}
    parts = [ids for ids, _ in recording.stream("all")]
    assert all(len(ids) * max(length[i] for i in ids) <= 30 for ids in parts)
    longest = [max(length[i] for i in ids) for ids in parts]
    assert all(a >= b for a, b in pairwise(longest))
