"""Status, scores, loading and unloading, the key and the metrics of a running server."""

import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from sentinels import QUESTIONS, WORDS
from trimtab.gate import RunningGate
from trimtab.model import LanguageModel
from trimtab.recording.features import batch_features
from trimtab.steering import Steering
from trimtab.traces import Trace
from vllm_server import Server

TOKENS = 5


def ask(server: Server, question: str, xargs: dict[str, object], **more: object) -> dict[str, object]:
    """One chat answer, as vLLM sends it."""
    body = {"model": "reasoner", "messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": TOKENS}
    with server.http() as http:
        answer = http.post("/v1/chat/completions", json={**body, "ignore_eos": True, "vllm_xargs": xargs, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def words(answer: dict[str, object]) -> list[str]:
    return answer["choices"][0]["message"]["content"].split()  # type: ignore[index]


def get(server: Server, path: str) -> dict[str, object]:
    with server.http() as http:
        answer = http.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


def metrics(server: Server) -> dict[str, float]:
    time.sleep(0.6)  # the engine is asked at most twice a second
    with server.http() as http:
        lines = http.get("/metrics").text.splitlines()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(("trimtab", "vllm:"))}


def test_status_names_what_is_loaded_and_no_path(server: Server, artifacts: Path) -> None:
    status = get(server, "/v1/trimtab/status")
    assert (status["default"], status["loading"]) == ("minus", True)
    assert [steering["name"] for steering in status["steerings"]] == ["minus", "six", "gated", "watchful"]  # type: ignore[union-attr,index]
    assert status["slots"] == {"total": 5, "free": 1}
    assert status["engine"]["runner"] == "V1"  # type: ignore[index]
    assert str(artifacts) not in str(status)


def test_scores_are_those_of_transformers(server: Server, p_fail: list[float]) -> None:
    for question, expected in zip(QUESTIONS, p_fail, strict=True):
        answer = ask(server, question, {"steering": "gated"})
        (scores,) = get(server, f"/v1/trimtab/requests/{answer['id']}")["answers"]  # type: ignore[misc]
        assert scores["p_fail"] == pytest.approx(expected, abs=1e-4)
        assert (scores["fired"], scores["strength"], scores["running"]) == (expected >= 0.5, 1.0, False)
        assert (scores["monitored_tokens"], 0 < scores["monitor"] < 1) == (TOKENS - 1, True)  # the last one is not forwarded


def test_each_prompt_and_each_choice_of_a_completion_has_its_scores(server: Server, prompts: list[list[int]]) -> None:
    body = {"model": "reasoner", "prompt": prompts[:2], "max_tokens": 2, "n": 2, "vllm_xargs": {"steering": "gated"}}
    with server.http() as http:
        answer = http.post("/v1/completions", json=body).json()
    scores = get(server, f"/v1/trimtab/requests/{answer['id']}")["answers"]
    assert [one["fired"] for one in scores] == [True, True, False, False]  # type: ignore[union-attr,index]
    assert len(answer["choices"]) == 4


def test_choices_of_a_chat_have_their_scores(server: Server) -> None:
    answer = ask(server, QUESTIONS[0], {"steering": "gated"}, n=3, temperature=1)
    scores = get(server, f"/v1/trimtab/requests/{answer['id']}")["answers"]
    assert [one["fired"] for one in scores] == [True] * 3  # type: ignore[union-attr,index]


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/responses", {"input": QUESTIONS[0], "max_output_tokens": 2}),
        ("/v1/messages", {"messages": [{"role": "user", "content": QUESTIONS[0]}], "max_tokens": 2}),
    ],
)
def test_other_forms_of_chat_are_steered_and_scored_alike(
    server: Server, p_fail: list[float], path: str, asked: dict[str, object]
) -> None:
    with server.http() as http:
        answer = http.post(path, json={"model": "reasoner", **asked, "vllm_xargs": {"steering": "gated"}}).json()
        (scores,) = get(server, f"/v1/trimtab/requests/{answer['id']}")["answers"]  # type: ignore[misc]
        assert scores["p_fail"] == pytest.approx(p_fail[0], abs=1e-4)
        assert http.post(path, json={"model": "reasoner", **asked, "vllm_xargs": {"steering": "x"}}).status_code == 400


def test_an_unsteered_request_is_watched_and_a_warning_is_told_while_it_runs(
    server: Server, prompts: list[list[int]], artifacts: Path, reasoner: LanguageModel
) -> None:
    gate = Steering.from_pretrained(artifacts / "watchful").gate
    assert isinstance(gate, RunningGate)
    before, told = metrics(server)["trimtab_warnings_total"], []
    for prompt, question in zip(prompts, QUESTIONS, strict=True):
        answer = ask(server, question, {"steering": "none"}, max_tokens=30, return_token_ids=True)
        (scores,) = get(server, f"/v1/trimtab/requests/{answer['id']}")["answers"]  # type: ignore[misc]
        response = answer["choices"][0]["token_ids"]  # type: ignore[index]
        read = batch_features(
            reasoner, [Trace("a", "a", 0, tuple(prompt), tuple(response), "", "length")], gate.layer, gate.index, "response"
        )[0]
        p = gate.probability(read)
        course, warned = scores["running_gate"], np.flatnonzero(p >= gate.cutoff)
        assert (course["tokens"], scores["steered_tokens"], scores["fired"]) == (29, 0, False)
        assert course["p_fail"] == pytest.approx(p[-1], abs=1e-4)
        assert course["warned_at"] == (int(warned[0]) + 1 if len(warned) else None)
        told.append(len(warned) > 0)
    assert set(told) == {True, False}
    assert metrics(server)["trimtab_warnings_total"] - before == sum(told)


def test_a_running_gate_steers_from_the_token_after_the_one_that_opened_it(server: Server) -> None:
    opened = []
    for question in QUESTIONS:
        plain, steered = (ask(server, question, {"steering": name}, max_tokens=30) for name in ("none", "watchful"))
        (scores,) = get(server, f"/v1/trimtab/requests/{steered['id']}")["answers"]  # type: ignore[misc]
        at = scores["running_gate"]["opened_at"]
        opened.append(at)
        steers = at or 30
        assert words(steered)[:steers] == words(plain)[:steers]
        assert set(words(steered)[steers:]) <= {WORDS["six"][0]}
        assert scores["steered_tokens"] == (30 - at if at else 0)  # its last token is not forwarded
    assert len(set(opened)) > 2


def test_a_caller_may_choose_the_id(server: Server) -> None:
    body = {"model": "reasoner", "prompt": "1", "max_tokens": 2, "vllm_xargs": {"steering": "six", "strength": 0.25}}
    with server.http() as http:
        answer = http.post("/v1/completions", json=body, headers={"X-Request-Id": "of-my-own"}).json()
    assert answer["id"] == "cmpl-of-my-own"
    (scores,) = get(server, "/v1/trimtab/requests/cmpl-of-my-own")["answers"]  # type: ignore[misc]
    assert (scores["p_fail"], scores["fired"], scores["strength"]) == (None, True, 0.25)


@pytest.mark.parametrize("request_id", ["nothing", "cmpl-nothing", "chatcmpl-nothing", "0_a", "%00", "cmpl-"])
def test_scores_of_an_unknown_request_are_not_found(server: Server, request_id: str) -> None:
    with server.http() as http:
        answer = http.get(f"/v1/trimtab/requests/{request_id}")
    assert answer.status_code == 404
    assert "is remembered" in answer.json()["error"]["message"]


def test_load_and_unload_while_requests_run(server: Server) -> None:
    stop, failures = threading.Event(), []

    def load_on() -> None:
        while not stop.is_set():
            got = words(ask(server, QUESTIONS[0], {"steering": "six"}))
            if got[1:] != [WORDS["six"][0]] * (TOKENS - 1):
                failures.append(got)

    threads = [threading.Thread(target=load_on) for _ in range(4)]
    for thread in threads:
        thread.start()
    with server.http() as http:
        for name in ("sun", "ivy", "sun", "ivy"):  # in the same slot, one after the other
            loaded = http.post("/v1/trimtab/load", json={"name": name, "path": name})
            assert loaded.status_code == 200, loaded.text
            assert words(ask(server, QUESTIONS[0], {"steering": name}))[1:] == [WORDS[name][0]] * (TOKENS - 1)
            assert http.post("/v1/trimtab/unload", json={"name": name}).status_code == 200
            assert http.post(
                "/v1/completions", json={"model": "reasoner", "prompt": "1", "vllm_xargs": {"steering": name}}
            ).is_error
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    status = get(server, "/v1/trimtab/status")
    assert (status["slots"], status["draining"]) == ({"total": 5, "free": 1}, [])


def test_a_request_that_runs_keeps_the_steering_that_is_unloaded(server: Server) -> None:
    body = {"model": "reasoner", "prompt": "1", "max_tokens": 400, "temperature": 0, "ignore_eos": True, "stream": True}
    with server.http() as http, server.http() as other:  # opened before the request, which ends within a second or two
        assert other.get("/v1/trimtab/status").is_success
        for _ in range(5):
            assert http.post("/v1/trimtab/load", json={"name": "sun", "path": "sun"}).status_code == 200
            asked = {**body, "vllm_xargs": {"steering": "sun", "scope": "all"}}
            with http.stream("POST", "/v1/completions", json=asked) as answer:
                chunks = answer.iter_lines()
                next(chunks)
                assert other.post("/v1/trimtab/unload", json={"name": "sun"}).status_code == 200
                draining = other.get("/v1/trimtab/status").json()["draining"]
                taken = other.post("/v1/trimtab/load", json={"name": "ivy", "path": "ivy"})
                text = "".join(re.findall(r'"text":"([^"]*)"', "".join(chunks)))
            if draining:
                break
            assert not taken.is_success or http.post("/v1/trimtab/unload", json={"name": "ivy"}).status_code == 200
        assert [(one["name"], one["requests"]) for one in draining] == [("sun", 1)]
        assert (taken.status_code, "still in use: 'sun' (1 requests)" in taken.text) == (400, True)
        assert set(text.split()) == {"sun"}
        assert http.post("/v1/trimtab/load", json={"name": "ivy", "path": "ivy"}).status_code == 200
        assert http.post("/v1/trimtab/unload", json={"name": "ivy"}).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"name": "x", "path": "../outside"}, 403, "not in the folder of --load-from"),
        ({"name": "x", "path": "/etc"}, 403, "not in the folder of --load-from"),
        ({"name": "x", "path": "link"}, 403, "not in the folder of --load-from"),
        ({"name": "x", "path": "missing"}, 400, "missing does not exist"),
        ({"name": "x", "path": "."}, 400, "config.json is missing"),
        ({"name": "six", "path": "sun"}, 400, "is loaded already"),
        ({"name": "none", "path": "sun"}, 400, "cannot be the name"),
        ({"name": "x", "path": "sun", "more": 1}, 400, "more"),
        ({"name": "x"}, 400, "path"),
    ],
)
def test_what_cannot_be_loaded(server: Server, artifacts: Path, body: dict[str, object], status: int, message: str) -> None:
    link = artifacts / "link"
    if not link.is_symlink():
        link.symlink_to("/etc")
    with server.http() as http:
        answer = http.post("/v1/trimtab/load", json=body)
    assert (answer.status_code, message in answer.json()["error"]["message"]) == (status, True), answer.text


@pytest.mark.parametrize(("name", "message"), [("minus", "is the default"), ("nothing", "no steering 'nothing' is loaded")])
def test_what_cannot_be_unloaded(server: Server, name: str, message: str) -> None:
    with server.http() as http:
        answer = http.post("/v1/trimtab/unload", json={"name": name})
    assert (answer.status_code, message in answer.json()["error"]["message"]) == (400, True)


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "status"), ("GET", "requests/a"), ("POST", "load"), ("POST", "unload"), ("POST", "../completions")],
)
def test_every_route_needs_the_key(server: Server, method: str, path: str) -> None:
    with server.http(key="another") as http:
        assert http.request(method, f"/v1/trimtab/{path}", json={"vllm_xargs": {"steering": "x"}}).status_code == 401


def test_metrics_stand_beside_vllms_own(server: Server) -> None:
    before = metrics(server)
    for question in QUESTIONS[:2]:  # the gate fires on the first
        ask(server, question, {"steering": "gated"})
    ask(server, QUESTIONS[0], {})
    ask(server, QUESTIONS[0], {"steering": "none"})
    after = metrics(server)
    grown = {name: after[name] - before.get(name, 0) for name in after if name.startswith("trimtab")}
    assert grown['trimtab_requests_total{steering="gated"}'] == 2
    assert grown['trimtab_requests_total{steering="minus"}'] == 1
    assert grown['trimtab_gate_decisions_total{decision="fired"}'] == 1
    assert grown['trimtab_gate_decisions_total{decision="not_fired"}'] == 1
    assert grown['trimtab_gate_p_fail_bucket{le="+Inf"}'] == 2
    assert grown["trimtab_steered_tokens_total"] == 2 * (TOKENS - 1)
    assert after['trimtab_slots{state="loaded"}'] == 4
    assert any(name.startswith("vllm:request_success_total") for name in after)
