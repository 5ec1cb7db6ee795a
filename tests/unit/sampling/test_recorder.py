"""Moments summed up while sampling, against a recording made afterwards and against the loop's own activations."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tiny_testbed import D_FF, N_LAYERS, open_tiny_testbed, settings, some_problems
from trimtab.errors import InputError, ModelError
from trimtab.gate import Gate
from trimtab.model import LanguageModel
from trimtab.moments import MOMENTS, Moments, TokenScope
from trimtab.recording import record_batch
from trimtab.sampling import Generation, Request, SamplingSettings, batch, generate_batch, way_of
from trimtab.sampling import generate as loop
from trimtab.sampling.decoding import row_seed
from trimtab.sampling.recorder import Recorder
from trimtab.steering import Steering
from trimtab.tasks import render_prompt
from trimtab.traces import Trace

SCOPES: tuple[TokenScope, ...] = ("response", "all", "prompt", "last-prompt")
SAMPLED = settings(temperature=1.0, max_new_tokens=20)


@pytest.fixture(scope="module")
def requests(model: LanguageModel) -> list[Request]:
    """Three chains for each of five problems, whose prompts differ in length."""
    return [
        Request(f"{p.id}/{sample}", render_prompt(model.tokenizer, p.question), row_seed(0, p.id, sample))
        for p in some_problems(5, seed=3)
        for sample in range(3)
    ]


def _recorded(
    model: LanguageModel, requests: list[Request], sampling: SamplingSettings = SAMPLED, scopes: tuple[TokenScope, ...] = SCOPES
) -> tuple[list[Generation], dict[TokenScope, Moments]]:
    recorder = Recorder(model, [request.id for request in requests], scopes, MOMENTS)
    generations = generate_batch(model, requests, sampling, recorder=recorder)
    return generations, recorder.moments()


def _assert_as_recorded_afterwards(
    model: LanguageModel, requests: list[Request], generations: list[Generation], streamed: dict[TokenScope, Moments], rtol: float
) -> None:
    """Every sum within ``rtol`` of the largest of its trace and layer, for the traces that a recording accepts."""
    rows = [row for row, generation in enumerate(generations) if len(generation.response_ids) > 1]
    traces = [
        Trace(r.id, r.id, 0, r.prompt_ids, g.response_ids, "", g.finish) for r, g in zip(requests, generations, strict=True)
    ]
    for scope, expected in record_batch(model, [traces[row] for row in rows], SCOPES, MOMENTS).items():
        moments = streamed[scope].take(rows)
        assert moments.count.tolist() == expected.count.tolist()
        for name in MOMENTS:
            ours, theirs = getattr(moments, name), getattr(expected, name)
            assert ours.dtype == np.float32
            assert (np.abs(ours - theirs) <= rtol * np.abs(theirs).max(-1, keepdims=True)).all(), (scope, name)


def test_equal_to_a_recording_made_afterwards(model: LanguageModel, requests: list[Request]) -> None:
    generations, streamed = _recorded(model, requests)
    assert len({len(g.response_ids) for g in generations}) > 4, "rows must end at different steps, or dropping them is not tested"
    assert {g.finish for g in generations} == {"stop", "length"}
    _assert_as_recorded_afterwards(model, requests, generations, streamed, rtol=1e-5)


def test_no_token_changes(model: LanguageModel, requests: list[Request]) -> None:
    for sampling in (SAMPLED, settings(max_new_tokens=20)):
        assert _recorded(model, requests, sampling)[0] == generate_batch(model, requests, sampling)


@pytest.mark.parametrize("share", [1e-9, 0.6, 2.0], ids=["at once", "late", "never"])
def test_when_ended_rows_are_dropped_does_not_matter(
    model: LanguageModel, requests: list[Request], share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it is dropped, an ended row goes on computing, and none of that counts."""
    usual, expected = _recorded(model, requests)
    monkeypatch.setattr(batch, "DROP_SHARE", share)
    generations, streamed = _recorded(model, requests)
    assert generations == usual
    _same_up_to_rounding(streamed, expected)


def _same_up_to_rounding(streamed: dict[TokenScope, Moments], expected: dict[TokenScope, Moments]) -> None:
    for scope in SCOPES:
        assert streamed[scope].count.tolist() == expected[scope].count.tolist()
        for name in MOMENTS:
            np.testing.assert_allclose(getattr(streamed[scope], name), getattr(expected[scope], name), rtol=1e-4, atol=1e-4)


def test_equal_to_every_activation_of_the_loop_kept(model: LanguageModel, requests: list[Request]) -> None:
    """One row at a time, where the loop's forwards hold that row's tokens and nothing else."""
    for request in requests[:4]:
        kept: list[list[np.ndarray]] = [[] for _ in range(N_LAYERS)]
        hooks = [
            module.register_forward_pre_hook(lambda _, inputs, mine=mine: mine.append(inputs[0][0].double().numpy()))
            for module, mine in zip(model.layout.down, kept, strict=True)
        ]
        _, streamed = _recorded(model, [request])
        for hook in hooks:
            hook.remove()
        activation = np.stack([np.concatenate(layer) for layer in kept], 1)  # [token, layer, d_ff]
        prompt = len(request.prompt_ids)
        spans = {"response": slice(prompt, None), "all": slice(0, None), "prompt": slice(0, prompt)}
        for scope, span in {**spans, "last-prompt": slice(prompt - 1, prompt)}.items():
            moments = streamed[scope]
            assert moments.count.tolist() == [len(activation[span])]
            np.testing.assert_allclose(moments.sum[0], activation[span].sum(0), rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(moments.magnitude[0], np.abs(activation[span]).sum(0), rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(moments.square[0], (activation[span] ** 2).sum(0), rtol=1e-5, atol=1e-5)


def test_only_what_is_asked_for(model: LanguageModel, requests: list[Request]) -> None:
    recorder = Recorder(model, [r.id for r in requests], ("response",), ("magnitude",))
    generate_batch(model, requests, SAMPLED, recorder=recorder)
    (scope, moments), *others = recorder.moments().items()
    assert (scope, others) == ("response", [])
    assert (moments.sum, moments.square) == (None, None)
    assert moments.magnitude.shape == (len(requests), N_LAYERS, D_FF)
    for unknown in ((), ("mean",)):
        with pytest.raises(InputError, match="accepted: sum, magnitude, square"):
            Recorder(model, ["a"], SCOPES, unknown)


def test_one_new_token_has_no_response_that_was_forwarded(model: LanguageModel, requests: list[Request]) -> None:
    generations, streamed = _recorded(model, requests, settings(max_new_tokens=1))
    assert all(len(g.response_ids) == 1 for g in generations)
    assert not streamed["response"].count.any()
    assert not streamed["response"].sum.any()
    assert streamed["all"].count.tolist() == [len(r.prompt_ids) for r in requests]
    np.testing.assert_array_equal(streamed["all"].sum, streamed["prompt"].sum)


def test_bfloat16_is_summed_in_float32(tmp_path: Path, requests: list[Request]) -> None:
    model = open_tiny_testbed(tmp_path / "model")
    half = replace(model, hf_model=model.hf_model.to(torch.bfloat16))
    generations, streamed = _recorded(half, requests)
    _assert_as_recorded_afterwards(half, requests, generations, streamed, rtol=0.05)
    long = [i for i, g in enumerate(generations) if len(g.response_ids) > 9]
    means = streamed["response"].sum[long]
    assert (means != torch.from_numpy(means).to(torch.bfloat16).float().numpy()).mean() > 0.9


def test_a_steering_and_a_recorder_are_refused(model: LanguageModel, requests: list[Request]) -> None:
    shift = np.ones(1, np.float32)
    steering = Steering(np.array([0]), np.array([0]), 0 * shift, shift, 1.0, "generated", Gate("always"), model.identity)
    with pytest.raises(InputError, match="record without a steering"):
        generate_batch(model, requests, SAMPLED, steering, recorder=Recorder(model, ["a"], SCOPES, MOMENTS))


def test_hooks_are_gone_also_after_an_error(
    model: LanguageModel, requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    _recorded(model, requests)
    assert not any(module._forward_pre_hooks for module in model.layout.down)
    monkeypatch.setattr(loop, "draw_tokens", lambda logits, *_: logits[:, 0].fill_(float("nan")).long())
    with pytest.raises(ModelError, match="NaN logits"):
        _recorded(model, requests)
    assert not any(module._forward_pre_hooks for module in model.layout.down)


def test_activations_that_are_not_finite_name_trace_and_layer(tmp_path: Path, requests: list[Request]) -> None:
    model = open_tiny_testbed(tmp_path / "model")
    way_of(model)  # proved before it breaks
    # infinite going in and zero coming out, so that the logits stay finite and the loop sees nothing
    # the row of the third prompt, which three requests have in common
    model.layout.down[1].register_forward_pre_hook(lambda _, inputs: inputs[0].index_fill(0, torch.tensor(2), torch.inf))
    model.layout.down[1].register_forward_hook(lambda module, inputs, output: torch.zeros_like(output))
    recorder = Recorder(model, [request.id for request in requests], ("prompt",), ("sum",))
    generate_batch(model, requests, settings(max_new_tokens=1), recorder=recorder)
    with pytest.raises(
        InputError, match=rf"trace {requests[2 * 3].id} has activations that are NaN or infinite, first in layer 1"
    ):
        recorder.moments()
