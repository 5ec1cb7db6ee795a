"""Requests over HTTP, by the official client: who is steered by what, beside each other, and what is refused."""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import pytest
from openai import BadRequestError, OpenAI

from live_engines import Figures
from sentinels import QUESTIONS, WORDS
from vllm_server import Server

Options = dict[str, object]
TOKENS = 6
BAD: list[tuple[Options, str]] = [
    ({"steering": "unknown"}, "none, minus, six, gated"),
    ({"steering": 1}, "none, minus, six, gated"),
    ({"steering": ["six"]}, "none, minus, six, gated"),
    ({"steering": "six", "strength": "1"}, "a finite number"),
    ({"steering": "six", "strength": True}, "a finite number"),
    ({"steering": "six", "strength": [1]}, "a finite number"),
    ({"steering": "six", "strength": 10**400}, "a finite number"),
    ({"steering": "six", "strength": float("nan")}, "a finite number"),
    ({"steering": "six", "strength": float("inf")}, "a finite number"),
    ({"steering": "six", "strength": {"a": 1}}, "a finite number"),
    ({"steering": "six", "gate": "maybe"}, "auto, on, off"),
    ({"steering": "six", "gate": 1}, "auto, on, off"),
    ({"steering": "six", "scope": "prompt"}, "generated, last-and-generated, all"),
    ({"steering": "gated", "scope": "all"}, "scope 'generated', or gate 'on'"),
    ({"steering": "none", "strength": 0.5}, "has no effect on an unsteered request"),
    ({"steering": "six", "record": 1}, "over HTTP"),
    ({"trimtab_slot": 1}, "set by the engine itself"),
]
"""Options, and what the message must name."""


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[OpenAI]:
    with server.openai() as made:
        yield made


def chat(client: OpenAI, question: str, options: Options, stream: bool = False) -> list[str]:
    """The words of an answer."""
    asked = {"model": "reasoner", "messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": TOKENS}
    extra = {"vllm_xargs": options, "ignore_eos": True}
    if stream:
        chunks = client.chat.completions.create(**asked, stream=True, extra_body=extra)  # type: ignore[call-overload]
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks).split()
    return client.chat.completions.create(**asked, extra_body=extra).choices[0].message.content.split()  # type: ignore[call-overload]


def complete(client: OpenAI, prompt: Sequence[int], options: Options, stream: bool = False) -> list[str]:
    """The same over the other route, from token ids."""
    asked = {"model": "reasoner", "prompt": prompt, "temperature": 0, "max_tokens": TOKENS}
    extra = {"vllm_xargs": options, "ignore_eos": True}
    if stream:
        chunks = client.completions.create(**asked, stream=True, extra_body=extra)  # type: ignore[call-overload]
        return "".join(chunk.choices[0].text for chunk in chunks).split()
    return client.completions.create(**asked, extra_body=extra).choices[0].text.split()  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def alone(client: OpenAI) -> dict[str, list[str]]:
    """What is answered unsteered, one question at a time."""
    return {question: chat(client, question, {"steering": "none"}) for question in QUESTIONS}


def steered(first: str, name: str, sign: int = 1) -> list[str]:
    """A word from an unsteered prompt, then the sentinel's."""
    return [first] + [WORDS[name][0 if sign > 0 else 1]] * (TOKENS - 1)


def test_requests_of_one_batch_are_steered_each_by_its_own(
    client: OpenAI, alone: dict[str, list[str]], prompts: list[list[int]], figures: Figures
) -> None:
    kinds: list[tuple[Options, Callable[[list[str]], list[str]]]] = [
        ({}, lambda bare: steered(bare[0], "minus")),
        ({"steering": "none"}, lambda bare: bare),
        ({"steering": "six"}, lambda bare: steered(bare[0], "six")),
        ({"steering": "six", "strength": -1}, lambda bare: steered(bare[0], "six", -1)),
        ({"steering": "minus", "strength": -1.5}, lambda bare: steered(bare[0], "minus", -1)),
        ({"steering": "six", "strength": 0}, lambda bare: bare),
        ({"steering": "six", "scope": "all"}, lambda _: [WORDS["six"][0]] * TOKENS),
        ({"steering": "six", "gate": "off"}, lambda bare: bare),
        ({"steering": "gated", "gate": "off"}, lambda bare: bare),
        ({"steering": "gated", "gate": "on"}, lambda bare: steered(bare[0], "six")),
    ]
    calls = list(product(range(len(QUESTIONS)), kinds, (False, True), (False, True)))

    def run(call: tuple[int, tuple[Options, Callable[[list[str]], list[str]]], bool, bool]) -> tuple[list[str], list[str]]:
        number, (options, expected), stream, as_chat = call
        got = chat(client, QUESTIONS[number], options, stream) if as_chat else complete(client, prompts[number], options, stream)
        return got, expected(alone[QUESTIONS[number]])

    with ThreadPoolExecutor(24) as pool:
        wrong = [
            (call[0], call[1][0], *pair) for call, pair in zip(calls, pool.map(run, calls), strict=True) if pair[0] != pair[1]
        ]
    figures(f"{len(calls)} requests of {len(kinds)} kinds at once over HTTP: {len(wrong)} wrong")
    assert not wrong


def test_the_gate_decides_by_the_question(client: OpenAI, alone: dict[str, list[str]], p_fail: list[float]) -> None:
    fires = [p >= 0.5 for p in p_fail]
    assert fires.count(True) == fires.count(False)
    for question, fire in zip(QUESTIONS, fires, strict=True):
        bare = alone[question]
        assert chat(client, question, {"steering": "gated"}) == (steered(bare[0], "six") if fire else bare)


def test_strength_0_is_the_unsteered_model_to_the_last_bit(client: OpenAI, prompts: list[list[int]]) -> None:
    def logprobs(options: Options) -> list[float | None]:
        extra = {"vllm_xargs": options, "cache_salt": json.dumps(options)}  # each computes its whole prompt
        answer = client.completions.create(
            model="reasoner", prompt=prompts[1], temperature=0, max_tokens=TOKENS, logprobs=1, extra_body=extra
        )
        assert answer.choices[0].logprobs is not None
        return answer.choices[0].logprobs.token_logprobs or []

    assert logprobs({"steering": "none"}) == logprobs({"steering": "six", "strength": 0})
    assert logprobs({"steering": "none"}) != logprobs({"steering": "six", "strength": 1e-3})


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("options", "accepted"), BAD, ids=[str(options)[:40] for options, _ in BAD])
def test_a_bad_option_is_answered_400_before_the_stream_starts(
    server: Server, options: Options, accepted: str, stream: bool
) -> None:
    body = {"model": "reasoner", "prompt": "1", "max_tokens": 2, "stream": stream, "vllm_xargs": options}
    with server.http() as http:
        answer = http.post("/v1/completions", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert accepted in answer.json()["error"]["message"]


def test_the_client_raises_for_it(client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="accepted: none, minus, six, gated"):
        chat(client, QUESTIONS[0], {"steering": "sixx"}, stream=True)


@pytest.mark.parametrize("steering", [{}, {"steering": "six"}])
def test_a_steered_beam_search_is_refused(server: Server, steering: Options) -> None:
    body = {"model": "reasoner", "prompt": "1", "max_tokens": 2, "use_beam_search": True, "n": 2, "temperature": 0}
    with server.http() as http:
        answer = http.post("/v1/completions", json={**body, "vllm_xargs": steering})
        assert answer.status_code == 400
        assert "use_beam_search cannot be steered" in answer.json()["error"]["message"]
        assert http.post("/v1/completions", json={**body, "vllm_xargs": {"steering": "none"}}).status_code == 200


def test_a_caller_cannot_take_a_salt_of_ours(server: Server) -> None:
    body = {"model": "reasoner", "prompt": "1", "max_tokens": 2, "stream": True, "cache_salt": "trimtab:1"}
    with server.http() as http:
        answer = http.post("/v1/completions", json=body)
    assert (answer.status_code, "cache_salt" in answer.json()["error"]["message"]) == (400, True)


def test_options_of_the_route_that_takes_tokens_are_checked_too(server: Server, prompts: list[list[int]]) -> None:
    sampling = {"max_tokens": 3, "temperature": 0.0, "ignore_eos": True, "extra_args": {"steering": "six", "scope": "all"}}
    body = {"model": "reasoner", "token_ids": prompts[0], "sampling_params": sampling}
    with server.http() as http:
        answer = http.post("/inference/v1/generate", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["token_ids"] == [61, 61, 61]
        sampling["extra_args"] = {"steering": "six", "scope": "everywhere"}
        assert http.post("/inference/v1/generate", json={**body, "stream": True}).status_code == 400


def test_a_body_that_hides_its_keys_is_checked(server: Server) -> None:
    escaped = '{"model": "reasoner", "prompt": "1", "max_tokens": 2, "vllm_x\\u0061rgs": {"steering": "a"}, "stream": true}'
    with server.http() as http:
        for body in (escaped.encode(), escaped.encode("utf-16"), escaped.encode("utf-32")):
            headers = {"Content-Type": "application/json"}
            assert http.post("/v1/completions", content=body, headers=headers).status_code == 400


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b'{"vllm_xargs": ' + b"[" * 100_000, b'{"vllm_xargs": 3}'])
def test_what_is_no_request_is_vllms_to_refuse(server: Server, body: bytes) -> None:
    with server.http() as http:
        answer = http.post("/v1/completions", content=body, headers={"Content-Type": "application/json"})
        assert 400 <= answer.status_code < 500
        assert http.get("/health").status_code == 200
