"""Rows: sentinels whose answers cannot be confused, in batches that are shuffled, chunked, cached, preempted and reloaded."""

from typing import Any

import numpy as np
import pytest

from live_engines import Figures, answer, preemptions, prompts, sampling, tokens
from live_rows import mixes, word
from trimtab.model import LanguageModel
from trimtab.vllm_plugin.offline import adapters_of, load, status, unload


def test_two_hundred_random_mixes_in_the_compiled_engine(compiled: Any, reasoner: LanguageModel, figures: Figures) -> None:
    total, wrong = mixes(compiled, reasoner, 200)
    figures(f"{wrong} wrong rows among {total} requests in 200 mixes (compiled)")
    assert total > 1000
    assert wrong == 0
    assert status(compiled)["self_test"] == {"layers": (0, 1, 2, 3), "identical": True, "counted": True}


def test_preempted_requests_go_on_as_they_were(cramped: Any, reasoner: LanguageModel, figures: Figures) -> None:
    asked = prompts(reasoner)
    requests: list[dict[str, Any]] = [
        {"steering": "six"},
        {"steering": "gated"},
        {},
        {"steering": "sun"},
        {"steering": "gated"},
        {},
    ]
    length = 90
    alone = [tokens(answer(cramped, [p], [sampling(length, **xargs)])[0]) for p, xargs in zip(asked, requests, strict=True)]
    with preemptions(cramped) as preempted:
        together = answer(cramped, asked, [sampling(length, **xargs) for xargs in requests])
    assert len(preempted) > 2
    for output, xargs, own in zip(together, requests, alone, strict=True):
        assert tokens(output)[:30] == own[:30], xargs
        if "steering" in xargs:
            assert tokens(output) == own
    figures(f"{len(preempted)} preemptions, same answers")


def test_steerings_come_and_go_while_requests_run(eager: Any, reasoner: LanguageModel, steerings: dict[str, str]) -> None:
    engine, own = eager.llm_engine, adapters_of(eager)
    asked = prompts(reasoner)
    load(eager, "ivy", steerings["ivy"])
    slot = own.loaded()["ivy"].slot
    running = sampling(40, steering="ivy")
    internal = engine.add_request("long", {"prompt_token_ids": asked[0]}, running)
    answers: dict[str, list[int]] = {}

    def step() -> None:
        for output in engine.step():
            if output.finished:
                answers[output.request_id] = list(output.outputs[0].token_ids)

    for _ in range(8):
        step()
    unload(eager, "ivy")
    assert own.requests(slot) == 1
    assert slot in own.draining()
    load(eager, "other", steerings["other"])  # gets another slot
    assert own.loaded()["other"].slot != slot
    while engine.has_unfinished_requests():
        step()
    assert answers["long"][1:] == [word(reasoner, "ivy")] * 39
    assert internal.startswith("long-")
    unload(eager, "other")
    load(eager, "ivy2", steerings["ivy"])
    assert slot not in own.draining()
    (output,) = answer(eager, asked[:1], [sampling(5, steering="ivy2")])
    assert tokens(output)[1:] == [word(reasoner, "ivy")] * 4
    unload(eager, "ivy2")
    assert not own.draining() or own.drained() == ()


def test_a_request_never_sees_a_steering_that_was_loaded_into_its_slot_later(
    eager: Any, reasoner: LanguageModel, steerings: dict[str, str]
) -> None:
    prompt = prompts(reasoner)[:1]
    seen = []
    for name in ("ivy", "other", "ivy"):
        load(eager, "late", steerings[name])
        seen.append(tokens(answer(eager, prompt, [sampling(5, steering="late", scope="all")])[0]))
        unload(eager, "late")
    assert seen[0] == seen[2] == [word(reasoner, "ivy")] * 5
    assert seen[1] != seen[0]


@pytest.mark.parametrize("asked", [{"steering": "six"}, {"steering": "gated", "gate": "auto"}, {"steering": "mild"}])
def test_a_second_turn_reads_the_first_answer_as_a_fresh_engine_would(
    eager: Any, reasoner: LanguageModel, asked: dict[str, Any]
) -> None:
    vocab = reasoner.identity.vocab_size
    prompt = prompts(reasoner)[2]
    eager.reset_prefix_cache()
    first = tokens(answer(eager, [prompt], [sampling(70, **asked)])[0])
    second = prompt + first + prompt[-8:]
    warm = answer(eager, [second], [sampling(12, vocab, **asked)])[0]
    assert warm.num_cached_tokens is None or warm.num_cached_tokens <= len(prompt)
    eager.reset_prefix_cache()
    fresh = answer(eager, [second], [sampling(12, vocab, **asked)])[0]
    again = answer(eager, [second], [sampling(12, vocab, **asked)])[0]
    assert tokens(warm) == tokens(fresh) == tokens(again)
    rows = [[row[t].logprob for row in each.outputs[0].logprobs for t in range(vocab)] for each in (warm, fresh, again)]
    np.testing.assert_allclose(rows[0], rows[1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(rows[2], rows[1], rtol=1e-4, atol=1e-4)
    assert again.num_cached_tokens >= 64  # the prompt itself is served from the cache


def test_unsteered_requests_share_their_cache_with_no_steered_one(eager: Any, reasoner: LanguageModel) -> None:
    prompt = (prompts(reasoner)[1] * 3)[:100]
    eager.reset_prefix_cache()
    hits = [
        answer(eager, [prompt], [sampling(2, **xargs)])[0].num_cached_tokens
        for xargs in ({}, {"steering": "six"}, {"steering": "six", "strength": 0.5}, {"steering": "sun"}, {"steering": "six"}, {})
    ]
    assert hits[:4] == [0, 0, 0, 0]
    assert hits[4] == hits[5] >= 64
