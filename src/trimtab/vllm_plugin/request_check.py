"""A bad steering option is refused with HTTP 400 before vLLM starts to answer.

The engine's front checks every request, too, but one that is to be streamed only after HTTP 200 was sent; it sees numbers where
the client wrote true or false, and never sees that a request asks for a beam search.
"""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

from trimtab.errors import InputError
from trimtab.vllm_plugin.answers import answer_error
from trimtab.vllm_plugin.options import RequestOptions, resolve
from trimtab.vllm_plugin.registry import registry
from trimtab.vllm_plugin.salts import salted

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send  # pyright: ignore[reportMissingImports]

_MARKS = (b"args", b"beam", b"salt", b"\\u", b"\0")
"""A body without any of these bytes says nothing to check; JSON may escape the letters of a key, or come in wider characters."""


class RequestCheck:
    """ASGI middleware: answers HTTP 400 to what :func:`check` refuses, and lets every other request pass as it came."""

    def __init__(self, app: "ASGIApp") -> None:
        self._app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Read the body, check it and hand it on."""
        if scope["type"] != "http" or scope["method"] != "POST" or _is_upload(scope):
            return await self._app(scope, receive, send)
        messages = await _read(receive)
        refusal = _refusal(b"".join(message.get("body", b"") for message in messages))
        if refusal is None:
            return await self._app(scope, _again(messages, receive), send)
        return await answer_error(refusal, HTTPStatus.BAD_REQUEST)(scope, receive, send)


def check(request: Mapping[str, object]) -> None:
    """Refuse what the front of the engine would refuse, and a steered beam search.

    Raises:
        InputError: naming the key, the value and what is accepted.
    """
    own = registry()
    resolved = resolve(RequestOptions.parse(_options(request), own.loaded()), own.default, own.loaded())
    if resolved.record:
        raise InputError("record 1 cannot be used over HTTP, which has no route for moments; accepted: 0")
    salt = request.get("cache_salt")
    salted(salt if isinstance(salt, str) else None, resolved)
    if resolved.steers and request.get("use_beam_search"):
        raise InputError(
            "use_beam_search cannot be steered: each of its steps is a request of its own, whose prompt holds what was "
            "generated; accepted: no beam search, or steering 'none'"
        )


def _options(request: Mapping[str, object]) -> Mapping[str, object]:
    """``vllm_xargs``, or ``sampling_params.extra_args`` of the route that takes tokens; vLLM refuses both in any other form."""
    sampling = request.get("sampling_params")
    found = request.get("vllm_xargs") or (sampling.get("extra_args") if isinstance(sampling, dict) else None)
    return found if isinstance(found, dict) else {}


def _refusal(body: bytes) -> InputError | None:
    if not any(mark in body for mark in _MARKS):
        return None
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        return None  # no JSON: vLLM says so
    if not isinstance(request, dict):
        return None
    try:
        check(cast("dict[str, object]", request))
    except InputError as error:
        return error
    return None


def _is_upload(scope: "Scope") -> bool:
    """Whether the body is a form, such as a recording to be transcribed, and not JSON."""
    return any(name == b"content-type" and value.startswith(b"multipart/") for name, value in scope["headers"])


async def _read(receive: "Receive") -> list["Message"]:
    """All messages of a body, or those up to the client's disconnect."""
    messages = [await receive()]
    while messages[-1].get("more_body", False):
        messages.append(await receive())
    return messages


def _again(messages: list["Message"], receive: "Receive") -> "Receive":
    """The messages once more, then whatever comes after them: vLLM waits there for a disconnect."""
    waiting = iter(messages)

    async def replay() -> "Message":
        for message in waiting:
            return message
        return await receive()

    return replay
