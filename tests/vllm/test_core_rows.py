"""Rows: sentinels whose answers cannot be confused, in batches that are shuffled, chunked, cached, preempted and reloaded."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from live_engines import answer, prompts, sampling, start, stop, tokens
from sentinels import WORDS
from trimtab.model import OpenModel
from trimtab.vllm_plugin.config import PluginConfig
from trimtab.vllm_plugin.offline import load, registry_of, scores, status, unload

LENGTH = 6
NAMED = {"six": "six", "sun": "sun", "gated": "minus"}
"""Steering to sentinel."""


def word(opened: OpenModel, name: str, sign: float = 1.0) -> int:
    """The token that a sentinel repeats."""
    found = opened.tokenizer.convert_tokens_to_ids(WORDS[NAMED.get(name, name)][0 if sign > 0 else 1])
    assert isinstance(found, int)
    return found


def drawn(rng: np.random.Generator) -> dict[str, Any]:
    """What a random request asks for."""
    name = rng.choice(["none", "six", "sun", "gated"])
    if name == "none":
        return {}
    asked: dict[str, Any] = {"steering": str(name), "strength": float(rng.choice([1.0, -1.0, 0.8]))}
    if name == "gated":
        return asked | {"gate": str(rng.choice(["auto", "on", "off"]))}
    return asked | ({"scope": "all"} if rng.random() < 0.3 else {})


def expected(opened: OpenModel, asked: dict[str, Any], plain: list[int], fires: bool) -> list[int]:
    """The answer of a request; its first token is of the prompt, which only scope ``all`` steers."""
    open_gate = {"auto": fires, "on": True, "off": False}[asked.get("gate", "auto")] if asked.get("steering") == "gated" else True
    if not asked or not open_gate:
        return plain
    repeated = [word(opened, asked["steering"], asked["strength"])] * LENGTH
    return repeated if asked.get("scope") == "all" else plain[:1] + repeated[1:]


def mixes(llm: Any, opened: OpenModel, number: int, seed: int = 0) -> tuple[int, int]:
    """Run random mixes; returns how many requests ran and how many were answered as another should have been."""
    rng, asked = np.random.default_rng(seed), prompts(opened)
    plain = [tokens(output) for output in answer(llm, asked, [sampling(LENGTH)] * len(asked))]
    read = scores(llm, [each.request_id for each in answer(llm, asked, [sampling(2, steering="gated")] * len(asked))])
    fires = [facts["fired"] for facts in read]
    assert set(fires) == {True, False}
    total = wrong = 0
    for _ in range(number):
        chosen = rng.integers(0, len(asked), rng.integers(1, 13))
        requests = [drawn(rng) for _ in chosen]
        outputs = answer(llm, [asked[i] for i in chosen], [sampling(LENGTH, **request) for request in requests])
        for i, request, output in zip(chosen, requests, outputs, strict=True):
            total += 1
            wrong += tokens(output) != expected(opened, request, plain[i], fires[i])
    return total, wrong


def test_two_hundred_random_mixes_in_the_compiled_engine(compiled: Any, reasoner: OpenModel) -> None:
    total, wrong = mixes(compiled, reasoner, 200)
    assert total > 1000
    assert wrong == 0
    assert status(compiled)["self_test"] == {"layers": (0, 1, 2, 3), "identical": True, "counted": True}


def test_random_mixes_in_the_eager_engine(eager: Any, reasoner: OpenModel) -> None:
    assert mixes(eager, reasoner, 10, seed=1)[1] == 0


@pytest.fixture(scope="module")
def cramped(steerings: dict[str, str]) -> Iterator[Any]:
    """An engine with too little cache for its requests, so that it preempts some."""
    given = {name: steerings[name] for name in ("six", "sun", "gated")}
    llm = start(PluginConfig(steerings=given), num_gpu_blocks_override=9, max_model_len=192)
    yield llm
    stop(llm)


def test_preempted_requests_go_on_as_they_were(cramped: Any, reasoner: OpenModel, capsys: pytest.CaptureFixture[str]) -> None:
    asked = prompts(reasoner)
    requests: list[dict[str, Any]] = [{"steering": "six"}, {"steering": "gated"}, {}, {"steering": "sun"}, {"steering": "gated"}, {}]
    length = 90
    alone = [tokens(answer(cramped, [p], [sampling(length, **xargs)])[0]) for p, xargs in zip(asked, requests, strict=True)]
    scheduler = cramped.llm_engine.engine_core.engine_core.scheduler
    preempted: list[str] = []
    original = scheduler._preempt_request

    def noted(request: Any, *args: Any, **kwargs: Any) -> Any:
        preempted.append(request.request_id)
        return original(request, *args, **kwargs)

    scheduler._preempt_request = noted
    together = answer(cramped, asked, [sampling(length, **xargs) for xargs in requests])
    scheduler._preempt_request = original
    assert len(preempted) > 2
    for output, xargs, own in zip(together, requests, alone, strict=True):
        assert tokens(output)[:30] == own[:30], xargs
        if "steering" in xargs:
            assert tokens(output) == own
    print(f"{len(preempted)} preemptions")


def test_steerings_come_and_go_while_requests_run(eager: Any, reasoner: OpenModel, steerings: dict[str, str]) -> None:
    engine, own = eager.llm_engine, registry_of(eager)
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
    eager: Any, reasoner: OpenModel, steerings: dict[str, str]
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
def test_a_second_turn_reads_the_first_answer_as_a_fresh_engine_would(eager: Any, reasoner: OpenModel, asked: dict[str, Any]) -> None:
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


def test_unsteered_requests_share_their_cache_with_no_steered_one(eager: Any, reasoner: OpenModel) -> None:
    prompt = (prompts(reasoner)[1] * 3)[:100]
    eager.reset_prefix_cache()
    hits = [
        answer(eager, [prompt], [sampling(2, **xargs)])[0].num_cached_tokens
        for xargs in ({}, {"steering": "six"}, {"steering": "six", "strength": 0.5}, {"steering": "sun"}, {"steering": "six"}, {})
    ]
    assert hits[:4] == [0, 0, 0, 0]
    assert hits[4] == hits[5] >= 64
