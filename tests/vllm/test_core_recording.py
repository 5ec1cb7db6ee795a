"""Moments summed up inside the engine, against a recording of the finished traces in transformers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from live_engines import answer, preemptions, prompts, sampling, start, tokens
from trimtab.errors import InputError
from trimtab.model import LanguageModel
from trimtab.moments import MOMENTS, Moments
from trimtab.recording import record_batch
from trimtab.traces import Trace
from trimtab.vllm_plugin.config import PluginConfig, RecordConfig
from trimtab.vllm_plugin.offline import moments

SCOPES = ("response", "all", "prompt", "last-prompt")
TOLERANCE = 1e-5
"""Of the largest sum of a trace and layer, in float32: what the recorder inside transformers' loop keeps too."""


@pytest.fixture(scope="module", params=[True, False], ids=["eager", "compiled"])
def recording(request: pytest.FixtureRequest, steerings: dict[str, str]) -> Any:
    """An engine that records everything; too small for its requests, so that some are preempted while they are recorded."""
    config = PluginConfig(steerings={"six": steerings["six"]}, record=RecordConfig(moments=MOMENTS, scopes=SCOPES))
    return start(config, enforce_eager=request.param, num_gpu_blocks_override=9, max_model_len=192, max_num_batched_tokens=48)


def test_moments_are_those_of_a_recording_afterwards(recording: Any, reasoner: LanguageModel) -> None:
    asked = prompts(reasoner)
    with preemptions(recording) as preempted:
        outputs = answer(recording, asked, [sampling(60, record=1)] * 6)
    assert preempted
    compare(recording, reasoner, asked, outputs)
    again = answer(recording, asked, [sampling(7, record=1)] * 6)  # prompts that are in the prefix cache
    compare(recording, reasoner, asked, again)


def compare(llm: Any, model: LanguageModel, asked: Sequence[list[int]], outputs: Sequence[Any]) -> None:
    """Every sum within the tolerance, every count exact."""
    ids = [output.request_id for output in outputs]
    found: dict[str, Moments] = moments(llm, ids)
    traces = [
        Trace(f"t{i}", f"t{i}", 0, tuple(p), tuple(tokens(o)), "", "stop")
        for i, (p, o) in enumerate(zip(asked, outputs, strict=True))
    ]
    expected = record_batch(model, traces, SCOPES, MOMENTS)
    for scope in SCOPES:
        np.testing.assert_array_equal(found[scope].count, expected[scope].count)
        for name in MOMENTS:
            ours, theirs = getattr(found[scope], name), getattr(expected[scope], name)
            assert ours.shape == theirs.shape
            assert (np.abs(ours - theirs) <= TOLERANCE * np.abs(theirs).max(-1, keepdims=True)).all(), (scope, name)
    with pytest.raises(InputError, match="fetched already"):
        moments(llm, ids[:1])


def test_only_requests_that_ask_are_recorded(recording: Any, reasoner: LanguageModel) -> None:
    asked = prompts(reasoner)[:2]
    first, second = answer(recording, asked, [sampling(4), sampling(4, steering="six", record=1)])
    with pytest.raises(InputError, match="record=1"):
        moments(recording, [first.request_id])
    assert moments(recording, [second.request_id])["response"].count.tolist() == [3]
