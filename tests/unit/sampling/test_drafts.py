"""A draft changes the time that a steered response takes, and no token of it."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from steering_oracle import logistic_gate, steering_for
from tiny_models import FAMILIES, VOCABULARY, tiny, word_tokenizer
from tiny_testbed import D_FF, forwards, settings, some_problems
from trimtab.errors import ModelError
from trimtab.gate import ALWAYS, AnyGate, Gate, RandomOpening
from trimtab.model import LanguageModel, attach, find_ffn, identify
from trimtab.sampling import Generation, Request, generate_batch
from trimtab.sampling import drafts as drafting
from trimtab.sampling.prefills import Prefills
from trimtab.sampling.ways import drafts_hold
from trimtab.steering import PositionScope, Steering
from trimtab.tasks import render_prompt

LIMIT = 40
GREEDY = settings(max_new_tokens=LIMIT)
SCOPES: tuple[PositionScope, ...] = ("generated", "last-and-generated", "all")


@pytest.fixture(scope="module")
def requests(model: LanguageModel) -> list[Request]:
    return [Request(p.id, render_prompt(model.tokenizer, p.question)) for p in some_problems(12, seed=3)]


@pytest.fixture(scope="module")
def bare(model: LanguageModel, requests: list[Request]) -> list[Generation]:
    return generate_batch(model, requests, GREEDY)


def _ids(generations: Sequence[Generation]) -> dict[str, tuple[int, ...]]:
    return {one.id: one.response_ids for one in generations}


def _steering(model: LanguageModel, strength: float, scope: PositionScope = "generated", gate: AnyGate = ALWAYS) -> Steering:
    layer, index, shift = np.array([0, 1, 1]), np.array([3, 5, D_FF - 1]), np.array([0.2, -0.1, 0.3], np.float32)
    return Steering(layer, index, np.zeros(3, np.float32), shift, strength, scope, gate, model.identity)


def _reading_gate(threshold: float) -> Gate:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=6).astype(np.float32)
    return Gate("logistic", layer=np.arange(6) % 2, index=rng.permutation(D_FF)[:6], weight=weight, bias=0.0, threshold=threshold)


@pytest.mark.parametrize("strength", [0.0, 0.5, 3.0, 8.0, 40.0, -8.0])
@pytest.mark.parametrize("scope", SCOPES)
def test_a_drafted_condition_gives_the_tokens_of_the_plain_one(
    model: LanguageModel, requests: list[Request], bare: list[Generation], strength: float, scope: PositionScope
) -> None:
    steering = _steering(model, strength, scope)
    plain = generate_batch(model, requests, GREEDY, steering, "on")
    kept = Prefills(100_000)
    generate_batch(model, requests, GREEDY, prefills=kept)
    assert generate_batch(model, requests, GREEDY, steering, "on", drafts=_ids(bare)) == plain
    assert generate_batch(model, requests, GREEDY, steering, "on", prefills=kept, drafts=_ids(bare)) == plain


def test_the_conditions_above_depart_nowhere_somewhere_and_at_once(
    model: LanguageModel, requests: list[Request], bare: list[Generation]
) -> None:
    """Or the tests of equal tokens would show nothing."""

    def departures(strength: float) -> list[int]:
        found = generate_batch(model, requests, GREEDY, _steering(model, strength), "on")
        return [
            next((i for i, (a, b) in enumerate(zip(x.response_ids, y.response_ids, strict=False)) if a != b), LIMIT)
            for x, y in zip(found, bare, strict=True)
        ]

    assert set(departures(0.0)) == {LIMIT}
    assert len(set(departures(3.0))) > 3
    assert sum(at < drafting.BLOCK for at in departures(40.0)) > len(requests) / 2


@hypothesis_settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_tokens_at_all_may_be_a_draft(model: LanguageModel, requests: list[Request], data: st.DataObject) -> None:
    strength, limit = data.draw(st.sampled_from([0.5, 3.0, 8.0])), data.draw(st.integers(1, LIMIT))
    greedy, some = settings(max_new_tokens=limit), requests[: data.draw(st.integers(1, 6))]
    true = _ids(generate_batch(model, some, settings(max_new_tokens=data.draw(st.integers(1, LIMIT)))))
    token = st.integers(0, model.identity.vocab_size - 1)
    drafts = {
        name: ids[: data.draw(st.integers(1, len(ids)))] + tuple(data.draw(st.lists(token, max_size=LIMIT)))
        for name, ids in true.items()
    }
    steering = _steering(model, strength)
    plain = generate_batch(model, some, greedy, steering, "on")
    assert generate_batch(model, some, greedy, steering, "on", drafts=drafts) == plain


def test_a_response_that_never_departs_takes_a_forward_a_block(
    model: LanguageModel, requests: list[Request], bare: list[Generation]
) -> None:
    longest = max(len(one.response_ids) for one in bare)
    with forwards(model) as shapes:
        assert generate_batch(model, requests, GREEDY, _steering(model, 1e-6), "on", drafts=_ids(bare)) == bare
    blocks, read = 0, 1
    while read < longest:
        read += min(drafting.FIRST_BLOCK << blocks, drafting.BLOCK)
        blocks += 1
    assert len(shapes) == 1 + blocks < longest
    assert sum(rows * length for rows, length in shapes[1:]) >= sum(len(one.response_ids) - 1 for one in bare)


def test_what_a_gate_leaves_alone_is_not_forwarded(model: LanguageModel, requests: list[Request], bare: list[Generation]) -> None:
    read = generate_batch(model, requests, GREEDY, _steering(model, 8.0, gate=_reading_gate(0.5)))
    threshold = float(np.median([one.p_fail or 0.0 for one in read]))
    steering = _steering(model, 8.0, gate=_reading_gate(threshold))
    plain = generate_batch(model, requests, GREEDY, steering)
    with forwards(model) as shapes:
        drafted = generate_batch(model, requests, GREEDY, steering, drafts=_ids(bare))
    assert drafted == plain != bare
    fired = sum((one.p_fail or 0.0) >= threshold for one in plain)
    assert 0 < fired < len(requests)
    assert shapes[0][0] == len(requests)
    assert max(rows for rows, _ in shapes[1:]) <= fired


@pytest.mark.parametrize("idle", [1, 11])
def test_a_gate_that_parts_one_row_from_the_others(idle: int) -> None:
    """One row of twelve is too few to be dropped, so it stays in the batch when it is finished."""
    model = LanguageModel.of(tiny("qwen3"), word_tokenizer(pad_token="w0", eos_token="w1"))
    rng = np.random.default_rng(0)
    requests = [Request(str(n), tuple(rng.integers(2, VOCABULARY, n).tolist())) for n in range(3, 15)]
    greedy = settings(max_new_tokens=8)
    bare = generate_batch(model, requests, greedy)
    assert all(one.finish == "length" for one in bare), "or rows would be dropped"
    read = generate_batch(model, requests, greedy, steering_for(model.hf_model, gate=logistic_gate(threshold=0.5)))
    gate = logistic_gate(threshold=sorted(one.p_fail or 0.0 for one in read)[idle])
    for strength in (0.01, 1.0, 4.0):
        steering = steering_for(model.hf_model, gate=gate, strength=strength)
        plain = generate_batch(model, requests, greedy, steering)
        assert sum((one.p_fail or 0.0) < gate.cutoff for one in plain) == idle
        assert generate_batch(model, requests, greedy, steering, drafts=_ids(bare)) == plain


def test_a_draft_that_is_cut_is_gone_on_with_where_the_gate_is_closed(
    model: LanguageModel, requests: list[Request], bare: list[Generation]
) -> None:
    cut = {name: ids[:3] for name, ids in _ids(bare).items()}
    steering = _steering(model, 8.0, gate=_reading_gate(0.999999))
    assert _ids(generate_batch(model, requests, GREEDY, steering, drafts=cut)) == _ids(bare)


def test_a_near_tie_is_decided_by_a_plain_step(
    model: LanguageModel, requests: list[Request], bare: list[Generation], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drafting, "NEAR_TIE", 3.0)
    steering = _steering(model, 0.5)
    plain = generate_batch(model, requests, GREEDY, steering, "on")
    with forwards(model) as shapes:
        assert generate_batch(model, requests, GREEDY, steering, "on", drafts=_ids(bare)) == plain
    assert any(length > 1 for _, length in shapes[1:])
    assert sum(length == 1 for _, length in shapes) > LIMIT / 4, "some token was near a tie"


def _unused(requests: Sequence[Request]) -> Mapping[str, tuple[int, ...]]:
    return {request.id: (1, 2, 3) for request in requests}


def test_what_decides_at_each_token_or_at_random_is_written_token_by_token(model: LanguageModel, requests: list[Request]) -> None:
    running = _steering(model, 8.0, gate=RandomOpening(np.array([2, 4]), 3))
    for steering, sampling in ((running, GREEDY), (_steering(model, 8.0), settings(max_new_tokens=8, temperature=1.0))):
        plain = generate_batch(model, requests, sampling, steering)
        with forwards(model) as shapes:
            assert _ids(generate_batch(model, requests, sampling, steering, drafts=_unused(requests))) == _ids(plain)
        assert all(length == 1 for _, length in shapes[1:])
    with attach(model, running) as attachment, pytest.raises(ModelError, match="many tokens at a time"):
        attachment.expect_generated()


def test_drafts_of_some_requests_are_left_alone(model: LanguageModel, requests: list[Request], bare: list[Generation]) -> None:
    steering = _steering(model, 3.0)
    plain = generate_batch(model, requests, GREEDY, steering, "on")
    assert generate_batch(model, requests, GREEDY, steering, "on", drafts=_ids(bare[1:])) == plain


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_that_proves_it_gives_the_same_tokens(family: str) -> None:
    hf_model, tokenizer = tiny(family), word_tokenizer(pad_token="w0", eos_token="w1")
    layout = find_ffn(hf_model)
    model = LanguageModel(hf_model, tokenizer, layout, identify(hf_model, "tiny", None, layout=layout))
    rng = np.random.default_rng(0)
    requests = [Request(str(n), tuple(rng.integers(2, VOCABULARY, n).tolist())) for n in (6, 3, 5, 4)]
    greedy = settings(max_new_tokens=12)
    bare = generate_batch(model, requests, greedy)
    hold = drafts_hold(model)
    for strength, gate in ((1.0, ALWAYS), (4.0, ALWAYS), (4.0, logistic_gate(threshold=0.5))):
        steering = steering_for(model.hf_model, gate=gate, strength=strength)
        plain = generate_batch(model, requests, greedy, steering)
        with forwards(model) as shapes:
            drafted = generate_batch(model, requests, greedy, steering, drafts=_ids(bare))
        assert [one.response_ids for one in drafted] == [one.response_ids for one in plain]
        assert hold or all(length == 1 for _, length in shapes[1:])


def test_half_precision_is_written_token_by_token() -> None:
    assert drafts_hold(LanguageModel.of(tiny("qwen3"), word_tokenizer(pad_token="w0", eos_token="w1")))
    half = tiny("qwen3").to(torch.bfloat16)  # type: ignore[arg-type]
    assert not drafts_hold(LanguageModel.of(half, word_tokenizer(pad_token="w0", eos_token="w1")))
