"""Batches of traces, and which of their tokens count."""

import pytest

from analysis_samples import model, trace, traces
from trimtab.analysis.passes import batches, response_mask, with_response
from trimtab.errors import InputError, NotEnoughDataError
from trimtab.recording.tokens import forwarded


def test_every_trace_is_in_one_batch_that_holds_its_budget() -> None:
    some = traces(9)
    parts = batches(model("qwen3"), some, 24)
    assert sorted(t.id for part in parts for t in part) == sorted(t.id for t in some)
    assert len(parts) > 1
    assert all(len(part) * max(len(forwarded(t)) for t in part) <= 24 for part in parts)


def test_the_mask_covers_the_forwarded_response() -> None:
    mask = response_mask([trace("a", 2, 3), trace("b", 1, 5)], 6)
    assert mask.int().tolist() == [[0, 0, 1, 1, 0, 0], [0, 1, 1, 1, 1, 0]]


def test_traces_without_a_forwarded_response_are_counted() -> None:
    short = trace("c", 3, 1)
    kept, left_out = with_response([trace("a", 2, 3), short])
    assert ([t.id for t in kept], left_out) == (["a"], 1)
    with pytest.raises(NotEnoughDataError, match="none of 1 traces has two response tokens"):
        with_response([short])


def test_a_trace_beyond_the_context_is_named() -> None:
    with pytest.raises(InputError, match="trace long has 259 tokens, but the model's context is 256"):
        batches(model("qwen3"), [trace("a", 2, 3), trace("long", 10, 250)], 100)
