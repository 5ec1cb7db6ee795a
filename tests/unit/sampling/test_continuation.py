"""Responses that go on from a beginning, against the bare model asked row by row with that beginning in its prompt."""

from pathlib import Path

import pytest

from steering_samples import logistic, neuron_set
from tiny_testbed import settings, some_problems
from trimtab.errors import InputError
from trimtab.model import LanguageModel
from trimtab.sampling import TRANSFORMERS, Generation, Request, generate_batch, plan_requests, read_traces, sample_traces
from trimtab.sampling.continuation import after_beginning, beginning, continuations_job, whole_traces
from trimtab.sampling.decoding import row_seed
from trimtab.steering import Steering
from trimtab.traces import Trace

GREEDY = settings()


@pytest.fixture(scope="module")
def requests(model: LanguageModel) -> list[Request]:
    return list(plan_requests(model, some_problems(9), GREEDY)[0].values())


def _naive(model: LanguageModel, request: Request, steering: Steering, gate: str, tokens: int) -> tuple[tuple[int, ...], str]:
    """One row: the whole steered response cut after its first tokens, and the bare model's greedy ones behind it."""
    (steered,) = generate_batch(model, [request], GREEDY, steering, gate)  # type: ignore[arg-type]
    start = steered.response_ids[:tokens]
    if len(steered.response_ids) <= tokens and steered.finish == "stop":
        return start, "stop"
    rest = GREEDY.model_copy(update={"max_new_tokens": GREEDY.max_new_tokens - tokens})
    (bare,) = generate_batch(model, [Request("x", request.prompt_ids + start)], rest)
    return start + bare.response_ids, bare.finish


@pytest.mark.parametrize("gate", ["on", "auto"])
@pytest.mark.parametrize("tokens", [1, 2, 5])
def test_only_the_first_tokens_are_the_steerings(model: LanguageModel, requests: list[Request], gate: str, tokens: int) -> None:
    steering = Steering.of(neuron_set(model.identity), 1.0, gate=logistic())
    found = after_beginning(TRANSFORMERS, model, requests, GREEDY, steering, gate, tokens)  # type: ignore[arg-type]
    expected = [_naive(model, request, steering, gate, tokens) for request in requests]
    assert [(one.response_ids, one.finish) for one in found] == expected
    assert [one.id for one in found] == [request.id for request in requests]
    whole = generate_batch(model, requests, GREEDY, steering, gate)  # type: ignore[arg-type]
    assert [one.p_fail for one in found] == [one.p_fail for one in whole]
    assert [one.response_ids for one in found] != [one.response_ids for one in whole]


def test_without_a_steering_it_is_the_bare_model(model: LanguageModel, requests: list[Request]) -> None:
    found = after_beginning(TRANSFORMERS, model, requests, GREEDY, None, "on", 3)
    bare = generate_batch(model, requests, GREEDY)
    assert [(one.response_ids, one.finish) for one in found] == [(one.response_ids, one.finish) for one in bare]
    assert any(len(one.response_ids) <= 3 for one in bare), "a response that ends in its beginning is left as it is"


def test_what_follows_draws_from_a_seed_of_its_own(model: LanguageModel, requests: list[Request]) -> None:
    warm = settings(temperature=1.0)
    found = after_beginning(TRANSFORMERS, model, requests, warm, None, "on", 2)
    begun = generate_batch(model, requests, warm.model_copy(update={"max_new_tokens": 2}))
    open_rows = [i for i, one in enumerate(begun) if one.finish == "length"]
    asked = [
        Request("x", requests[i].prompt_ids + begun[i].response_ids, row_seed(requests[i].seed, "continuation", 0))
        for i in open_rows
    ]
    rest: list[Generation] = generate_batch(model, asked, warm.model_copy(update={"max_new_tokens": warm.max_new_tokens - 2}))
    for i, one in zip(open_rows, rest, strict=True):
        assert found[i].response_ids == begun[i].response_ids + one.response_ids


@pytest.mark.parametrize("tokens", [0, 12])
def test_a_beginning_needs_room(model: LanguageModel, requests: list[Request], tokens: int) -> None:
    with pytest.raises(InputError, match=f"a beginning of {tokens} tokens"):
        after_beginning(TRANSFORMERS, model, requests, settings(max_new_tokens=12), None, "on", tokens)


def test_a_beginning_leaves_a_token_to_write() -> None:
    traces = [Trace("p/0", "p", 0, (1,), tuple(range(length)), "", "stop") for length in (2, 3, 5, 8)]
    assert [len(beginning(trace, 0.5)) for trace in traces] == [1, 1, 2, 4]
    assert [len(beginning(trace, 0.01)) for trace in traces] == [1, 1, 1, 1]
    assert [len(beginning(trace, 0.99)) for trace in traces] == [1, 2, 4, 7]


def test_traces_are_continued_and_put_together(model: LanguageModel, tmp_path: Path) -> None:
    warm = settings(temperature=1.0, n=2)
    traces = [one for one in sample_traces(model, some_problems(6), warm, tmp_path / "traces") if len(one.response_ids) > 1]
    job = continuations_job(model, traces, 0.5, 3, warm, tmp_path / "more")
    job.run(model, job.missing(), lambda items, tokens: None)
    found = read_traces(tmp_path / "more", list(job.requests))
    whole = whole_traces(model, traces, found, warm.max_new_tokens)
    assert len(whole) == 3 * len(traces)
    responses: dict[str, set[tuple[int, ...]]] = {}
    for (origin, one), continuation in zip(whole, found, strict=True):
        start = beginning(origin, 0.5)
        ids = start + continuation.response_ids
        assert one.response_ids == ids[: warm.max_new_tokens]
        assert (one.problem_id, one.prompt_ids) == (origin.problem_id, origin.prompt_ids)
        assert one.text == model.tokenizer.decode(list(one.response_ids), skip_special_tokens=True)
        assert one.truncated == (len(ids) > warm.max_new_tokens or continuation.truncated)
        responses.setdefault(origin.id, set()).add(one.response_ids)
    assert max(map(len, responses.values())) > 1, "continuations of one trace differ"
    assert any(len(one.response_ids) == warm.max_new_tokens and one.truncated for _, one in whole)


def test_traces_that_cannot_be_continued(model: LanguageModel, tmp_path: Path) -> None:
    trace = Trace("p/0", "p", 0, (1,), (5, 6), "", "stop")
    with pytest.raises(InputError, match=r"set sampling\.temperature above 0"):
        continuations_job(model, [trace], 0.5, 2, GREEDY, tmp_path)
    short = Trace("p/1", "p", 1, (1,), (5,), "", "stop")
    with pytest.raises(InputError, match="'p/1' has one token"):
        continuations_job(model, [trace, short], 0.5, 2, settings(temperature=1.0), tmp_path)
