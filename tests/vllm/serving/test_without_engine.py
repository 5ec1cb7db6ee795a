"""What the parts of the server do by themselves, with an engine that only remembers what it was asked."""

import asyncio
import json
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from layered_stack import steering
from trimtab.vllm_plugin.adapters import Adapters
from trimtab.vllm_plugin.config import PluginConfig
from trimtab.vllm_plugin.plugin import Endpoints
from trimtab.vllm_plugin.routes import RequestCheck, ServedAdapters, router


class Engine:
    """Answers ``collective_rpc`` by what is known of a method and its arguments; of anything else it knows nothing."""

    def __init__(self, known: Mapping[tuple[object, ...], object]) -> None:
        self._known = known

    async def collective_rpc(self, method: str, args: tuple[object, ...] = ()) -> list[object]:
        return [self._known.get((method, *args))]


@pytest.fixture(autouse=True)
def adapters(monkeypatch: pytest.MonkeyPatch) -> Adapters:
    made = Adapters(PluginConfig(max_steerings=2))
    monkeypatch.setattr("trimtab.vllm_plugin.adapters._current", [made])
    return made


def client(engine: Engine, folder: Path | None = None) -> TestClient:
    app = FastAPI()
    app.include_router(router)
    app.state.trimtab = ServedAdapters(engine, folder)
    return TestClient(app)


def test_nothing_can_be_loaded_where_no_folder_was_named(tmp_path: Path) -> None:
    http = client(Engine({("trimtab_status",): {}}))
    answer = http.post("/v1/trimtab/load", json={"name": "a", "path": str(tmp_path)})
    assert answer.status_code == 403
    assert "started without --load-from" in answer.json()["error"]["message"]
    assert http.get("/v1/trimtab/status").json()["loading"] is False


def test_ids_of_vllm_are_found_from_that_of_the_answer() -> None:
    ids = [
        "chatcmpl-a",
        "0_chatcmpl-b",
        "1_chatcmpl-b",
        "cmpl-c-0",
        "cmpl-c-1",
        "0_cmpl-d-0",
        "1_cmpl-d-0",
        "0_cmpl-d-1",
        "1_cmpl-d-1",
        "resp_e_0",
        "chatcmpl-f_0",
        "chatcmpl-f_1",
    ]
    http = client(Engine({("trimtab_request", one): {"request_id": one} for one in ids}))

    def found(request_id: str) -> list[str]:
        return [one["request_id"] for one in http.get(f"/v1/trimtab/requests/{request_id}").json()["answers"]]

    assert found("chatcmpl-a") == ["chatcmpl-a"]
    assert found("chatcmpl-b") == ["0_chatcmpl-b", "1_chatcmpl-b"]
    assert found("resp_e") == ["resp_e_0"]
    assert found("chatcmpl-f") == ["chatcmpl-f_0", "chatcmpl-f_1"]
    assert found("cmpl-c") == ["cmpl-c-0", "cmpl-c-1"]
    assert found("cmpl-d") == ["0_cmpl-d-0", "1_cmpl-d-0", "0_cmpl-d-1", "1_cmpl-d-1"]


async def _echo(scope: Scope, receive: Receive, send: Send) -> None:
    body = await Request(scope, receive).body()
    following = await receive()
    await PlainTextResponse(f"{len(body)} {following['type']}")(scope, receive, send)


def run(app: Any, messages: list[Message], headers: list[tuple[bytes, bytes]] | None = None) -> list[Message]:
    """What an ASGI app sends for these messages."""
    sent: list[Message] = []
    waiting = iter(messages)

    async def receive() -> Message:
        return next(waiting)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": headers or [], "query_string": b""}
    asyncio.run(app(scope, receive, send))
    return sent


def part(body: bytes, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


def test_a_body_in_parts_passes_as_it_came_and_then_the_disconnect() -> None:
    parts = [part(b'{"vllm_xar', more=True), part(b'gs": {}, "prompt": "', more=True), part(b"a" * 10**6 + b'"}')]
    sent = run(RequestCheck(_echo), [*parts, {"type": "http.disconnect"}])
    assert sent[1]["body"] == f"{sum(len(each['body']) for each in parts)} http.disconnect".encode()


def test_a_body_in_parts_is_checked_as_a_whole() -> None:
    sent = run(RequestCheck(_echo), [part(b'{"vllm_xar', more=True), part(b'gs": {"steering": "x"}}')])
    assert sent[0]["status"] == 400


def test_too_large_a_dose_is_answered_400_before_the_stream_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Adapters(PluginConfig(max_dose=0.5, over_dose="reject"))
    own = replace(steering(0), facts={"dose": {"layer": [0], "unit": [0.25], "tokens": 9}})
    made.add(made.reserve("a", "a", own))
    monkeypatch.setattr("trimtab.vllm_plugin.adapters._current", [made])
    for strength, status in ((2.0, 200), (2.5, 400)):
        body = json.dumps({"stream": True, "vllm_xargs": {"steering": "a", "strength": strength}}).encode()
        sent = run(RequestCheck(_echo), [part(body), {"type": "http.disconnect"}])
        assert sent[0]["status"] == status
    assert b"accepted: strengths between -2 and 2" in sent[1]["body"]


def test_a_form_is_not_read(adapters: Adapters) -> None:
    headers = [(b"content-type", b"multipart/form-data; boundary=x")]
    sent = run(RequestCheck(_echo), [part(b'{"vllm_xargs": {"steering": "x"}}'), {"type": "http.disconnect"}], headers)
    assert sent[0]["status"] == 200


@pytest.mark.parametrize("additional_config", [{}, {"another": 1}, {"trimtab": False}])
def test_a_server_that_did_not_ask_for_the_plugin_is_left_alone(
    additional_config: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimtab.vllm_plugin.adapters._current", [])
    app = FastAPI()
    app.state.args = Namespace(additional_config=additional_config)
    before = list(app.routes)
    Endpoints().attach_router(app)
    asyncio.run(Endpoints().init_state(None, app.state, app.state.args))
    assert (list(app.routes), app.user_middleware) == (before, [])


@pytest.mark.parametrize("path", ["a\0b", "a" * 5000, "a" * 3000])
def test_a_path_that_is_none_is_refused(path: str, tmp_path: Path) -> None:
    http = client(Engine({}), tmp_path)
    answer = http.post("/v1/trimtab/load", json={"name": "a", "path": path})
    assert answer.status_code in (400, 422)
    assert str(tmp_path) not in answer.text


def test_a_large_body_is_parsed_once_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtab.vllm_plugin.routes._refusal", lambda body: pytest.fail("it was parsed"))
    image = b'{"prompt": "' + b"args" * 10**6 + b'"}'
    assert run(RequestCheck(_echo), [part(image), {"type": "http.disconnect"}])[0]["status"] == 200
    sent = run(RequestCheck(_echo), [part(image[:-1] + b', "vllm_xargs": {"steering": "x"}}')])
    assert sent[0]["status"] == 413
    assert b"up to 2,097,152 bytes" in sent[1]["body"]
