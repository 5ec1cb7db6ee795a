"""Top-activating tokens against a sort of every token."""

from dataclasses import replace

import numpy as np
import pytest

from analysis_samples import model, trace, traces
from trimtab.analysis import top_tokens
from trimtab.errors import InputError
from trimtab.recording import batch_features

TRACES = traces()
LAYER, INDEX = np.array([0, 2, 2]), np.array([5, 1, 30])


@pytest.mark.parametrize("batch_tokens", [10, 10_000])
def test_they_are_the_ends_of_a_sort(batch_tokens: int) -> None:
    lm = model("qwen3")
    found = top_tokens(lm, TRACES, LAYER, INDEX, top=4, batch_tokens=batch_tokens)
    rows = [batch_features(lm, [one], LAYER, INDEX, "response")[0] for one in TRACES]
    assert found.n_tokens == sum(map(len, rows))
    for column, neuron in enumerate(found.neurons):
        every = [
            (float(value), one.id, len(one.prompt_ids) + t)
            for one, row in zip(TRACES, rows, strict=True)
            for t, value in enumerate(row[:, column])
        ]
        for hits, reverse in ((neuron.highest, True), (neuron.lowest, False)):
            expected = sorted(every, key=lambda hit: hit[0], reverse=reverse)[:4]
            assert [(hit.trace_id, hit.position) for hit in hits] == [(name, position) for _, name, position in expected]
            np.testing.assert_allclose([hit.value for hit in hits], [value for value, *_ in expected], rtol=1e-4, atol=1e-6)


def test_context_on_either_side() -> None:
    lm = model("qwen3")
    (neuron,) = top_tokens(lm, TRACES, LAYER[:1], INDEX[:1], top=50, context=2).neurons
    by_id = {one.id: one for one in TRACES}
    for hit in neuron.highest:
        ids = (*by_id[hit.trace_id].prompt_ids, *by_id[hit.trace_id].response_ids)
        words = [f"w{i}" for i in ids]
        assert hit.token == words[hit.position]
        assert hit.before.split() == words[max(0, hit.position - 2) : hit.position]
        assert hit.after.split() == words[hit.position + 1 : hit.position + 3]
        # the last token of a response is never forwarded, but is seen after the one before it
        assert hit.position < len(ids) - 1


def test_ties_go_to_the_first_trace_and_token() -> None:
    lm = model("qwen3")
    one = trace("a", 3, 5)
    # batches are made in the order of the names
    twins = [replace(one, id=name, problem_id=name) for name in ("d", "c", "a", "b")]
    for batch_tokens in (7, 1000):
        (neuron,) = top_tokens(lm, twins, LAYER[:1], INDEX[:1], top=2, batch_tokens=batch_tokens).neurons
        for hits in (neuron.highest, neuron.lowest):
            assert [hit.trace_id for hit in hits] == ["d", "c"]
            assert hits[0].position == hits[1].position


def test_refusals_and_counts() -> None:
    lm = model("qwen3")
    found = top_tokens(lm, [*TRACES, trace("z/0", 3, 1)], LAYER, INDEX, top=1)
    assert (found.n_traces, found.left_out) == (6, 1)
    with pytest.raises(InputError, match="top of at least 1"):
        top_tokens(lm, TRACES, LAYER, INDEX, top=0)
    with pytest.raises(InputError, match="outside"):
        top_tokens(lm, TRACES, np.array([7]), np.array([0]))
