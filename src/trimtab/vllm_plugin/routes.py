"""The routes under ``/v1/trimtab``, and the check of every request before vLLM starts to answer it.

vLLM's API key guards all that begins with ``/v1``. ``InputProcessor`` checks requests, too, but one that is streamed only after
HTTP 200 was sent; it sees numbers where the client wrote true or false, and never sees that a request asks for a beam search.
"""

import asyncio
import json
from collections.abc import Mapping
from http import HTTPStatus
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fastapi import APIRouter, Request  # pyright: ignore[reportMissingImports]
from fastapi.responses import JSONResponse  # pyright: ignore[reportMissingImports]
from pydantic import BaseModel, ConfigDict, Field

from trimtab.errors import InputError, ModelError, TrimtabError
from trimtab.vllm_plugin.adapters import cache_salt, current_adapters
from trimtab.vllm_plugin.options import Adapter, RequestOptions, resolve
from trimtab.vllm_plugin.refusals import read_steering

if TYPE_CHECKING:
    from starlette.responses import JSONResponse  # pyright: ignore[reportMissingImports]
    from starlette.types import ASGIApp, Message, Receive, Scope, Send  # pyright: ignore[reportMissingImports]


def answer_error(cause: Exception | str, status: HTTPStatus) -> "JSONResponse":
    """Answer with the message of a cause, without the paths of this machine."""
    from starlette.responses import JSONResponse  # pyright: ignore[reportMissingImports]
    from vllm.entrypoints.serve.engine.protocol import ErrorInfo, ErrorResponse  # pyright: ignore[reportMissingImports]
    from vllm.entrypoints.serve.exception_handling.utils import sanitize_message  # pyright: ignore[reportMissingImports]

    error = ErrorInfo(message=sanitize_message(str(cause)), type=f"{status.phrase.replace(' ', '')}Error", code=status.value)
    return JSONResponse(ErrorResponse(error=error).model_dump(), status_code=status.value)


_MARKS = (b"args", b"beam", b"salt", b"\\u", b"\0")
"""A body without any of these bytes says nothing to check; JSON may escape the letters of a key, or come in wider characters."""


LARGEST_CHECKED = 2**21
"""Bytes of a body that is parsed here, on the event loop: some 0.1 s. vLLM parses every body once more."""
_MARKS_OF_LARGE = (b'"vllm_xargs"', b'"extra_args"', b'"use_beam_search"', b'"cache_salt"', b"\\u", b"\0")
"""What says something to check in a larger body, where text in base64 may hold any letters, but no quotation mark."""
_TOO_LARGE = (
    "a request of {:,} bytes names options that the trimtab plugin has to check, or escapes its letters; accepted: up to "
    f"{LARGEST_CHECKED:,} bytes, or larger ones in plain UTF-8 without vllm_xargs, extra_args, use_beam_search and cache_salt"
)


class RequestCheck:
    """ASGI middleware that answers HTTP 400 to requests that :func:`check` refuses, and passes on all others unchanged."""

    def __init__(self, app: "ASGIApp") -> None:
        self._app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Read the body, check it and pass it on."""
        if scope["type"] != "http" or scope["method"] != "POST" or _is_upload(scope):
            return await self._app(scope, receive, send)
        messages = await _read(receive)
        body = b"".join(message.get("body", b"") for message in messages)
        if len(body) > LARGEST_CHECKED and any(mark in body for mark in _MARKS_OF_LARGE):
            return await answer_error(_TOO_LARGE.format(len(body)), HTTPStatus.REQUEST_ENTITY_TOO_LARGE)(scope, receive, send)
        refusal = _refusal(body) if len(body) <= LARGEST_CHECKED else None
        if refusal is None:
            return await self._app(scope, _again(messages, receive), send)
        return await answer_error(refusal, HTTPStatus.BAD_REQUEST)(scope, receive, send)


def check(request: Mapping[str, object]) -> None:
    """Refuse a request that the input processor would refuse, and a steered beam search.

    Raises:
        InputError: naming the key, the value and what is accepted.
    """
    own = current_adapters()
    loaded = own.loaded()
    resolved = resolve(RequestOptions.parse(_options(request), loaded), own.default, loaded, own.guard, own.config.watch)
    if resolved.record:
        raise InputError("record 1 cannot be used over HTTP, which has no route for moments; accepted: 0")
    salt = request.get("cache_salt")
    cache_salt(salt if isinstance(salt, str) else None, resolved)
    if resolved.edits and request.get("use_beam_search"):
        raise InputError(
            "use_beam_search cannot be steered: each of its steps is a request of its own, whose prompt holds what was "
            "generated; accepted: no beam search, or steering 'none'"
        )


def _options(request: Mapping[str, object]) -> Mapping[str, object]:
    """Return ``vllm_xargs``, or ``sampling_params.extra_args`` of the token route; vLLM refuses both in any other form."""
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
    """Tell whether the body is a form, such as a recording to transcribe, and not JSON."""
    return any(name == b"content-type" and value.startswith(b"multipart/") for name, value in scope["headers"])


async def _read(receive: "Receive") -> list["Message"]:
    """Read all messages of a body, or those up to the client's disconnect."""
    messages = [await receive()]
    while messages[-1].get("more_body", False):
        messages.append(await receive())
    return messages


def _again(messages: list["Message"], receive: "Receive") -> "Receive":
    """Replay the messages, then pass on what follows: vLLM waits there for a disconnect."""
    waiting = iter(messages)

    async def replay() -> "Message":
        for message in waiting:
            return message
        return await receive()

    return replay


class ServedAdapters:
    """The steerings of a running server: loads and unloads them one at a time, and asks the workers."""

    def __init__(self, engine: Any, folder: Path | None) -> None:
        """Serve an engine that has just started.

        Args:
            engine: vLLM's engine client, which answers ``collective_rpc``.
            folder: artifacts in it may be loaded; None allows none.
        """
        self._engine, self._folder = engine, folder
        self._lock = asyncio.Lock()

    async def load(self, name: str, path: str) -> Adapter:
        """Read an artifact, have the workers load it, and only then let requests name it.

        Args:
            name: what requests will call it.
            path: of its folder, from the folder that the server was started with.

        Raises:
            PermissionError: the server was started without such a folder, or the path leads out of it.
            TrimtabError: a name that is taken, no free slot, or an artifact that does not fit.
        """
        root, folder = self._inside(path)
        try:
            return await self._load(name, str(folder))
        except TrimtabError as cause:
            raise type(cause)(
                str(cause).replace(f"{root}/", ""), code=cause.name
            ) from cause  # where the folder is is no client's business

    async def _load(self, name: str, folder: str) -> Adapter:
        own, hf_config = current_adapters(), self._engine.vllm_config.model_config.hf_text_config
        steering = await asyncio.to_thread(read_steering, folder, name, own.config, hf_config)
        async with self._lock:
            await self._empty_drained()
            reservation = own.reserve(name, folder, steering)
            try:
                await self._tell(reservation.adapter)
            except BaseException:
                own.abandon(reservation)
                raise
            return own.add(reservation)

    async def unload(self, name: str) -> Adapter:
        """Admit no more requests for a steering. Its slot is emptied at once if none runs, else before it is needed again.

        Raises:
            InputError: none of that name, or the default.
        """
        async with self._lock:
            adapter = current_adapters().remove(name)
            await self._empty_drained()
            return adapter

    async def status(self) -> dict[str, object]:
        """Return the loaded steerings, the requests that hold each slot, and the status of the first worker."""
        async with self._lock:
            await self._empty_drained()
        own = current_adapters()
        loaded, draining = own.loaded(), own.draining()
        return {
            "default": own.default,
            "max_dose": own.guard.limit,
            "over_dose": own.guard.action,
            "loading": self._folder is not None,
            "slots": {"total": own.config.max_steerings, "free": own.config.max_steerings - len(loaded) - len(draining)},
            "steerings": [shown(adapter) | {"requests": own.requests(adapter.slot)} for adapter in loaded.values()],
            "draining": [shown(adapter) | {"requests": own.requests(slot)} for slot, adapter in draining.items()],
            "engine": await self.engine_status(),
        }

    async def engine_status(self) -> dict[str, Any]:
        """Return the status of the first worker; the others of a tensor-parallel group do the same."""
        return await self._ask("trimtab_status")

    async def answers(self, request_id: str) -> list[dict[str, object]]:
        """Return the gate's outputs for each choice, prompt by prompt; empty if the request is not remembered.

        vLLM appends a number to each prompt of a completion or a batch of chats and to each round of a response, and prepends one
        to the answers of ``n > 1``.
        """
        found = await self._choices(request_id)
        if found:
            return found
        mark = "-" if request_id.startswith("cmpl-") else "_"
        for number in count():
            choices = await self._choices(f"{request_id}{mark}{number}")
            if not choices:
                break
            found += choices
        return found

    async def _choices(self, request_id: str) -> list[dict[str, object]]:
        only = await self._ask("trimtab_request", request_id)
        if only is not None:
            return [only]
        found: list[dict[str, object]] = []
        while (answer := await self._ask("trimtab_request", f"{len(found)}_{request_id}")) is not None:
            found.append(answer)
        return found

    def _inside(self, path: str) -> tuple[Path, Path]:
        if self._folder is None:
            raise PermissionError(
                "this server was started without --load-from FOLDER, so clients cannot make it read files; restart it with one"
            )
        root = self._folder.resolve()
        try:
            folder = (root / path).resolve()  # links are followed first: one could lead out
            _ = folder.exists()  # raises for a name that is too long
        except (OSError, ValueError, RuntimeError) as cause:  # too long, a NUL byte, or links in a circle
            raise InputError(f"{path[:80]!r} is no path ({cause}); accepted: the path of an artifact in --load-from") from cause
        if not folder.is_relative_to(root):
            raise PermissionError(f"{path!r} is not in the folder of --load-from; accepted: the path of an artifact in it")
        return root, folder

    async def _empty_drained(self) -> None:
        own = current_adapters()
        for slot in own.drained():
            await self._ask("trimtab_unload", slot)
            own.forget(slot)

    async def _tell(self, adapter: Adapter) -> None:
        try:
            await self._ask("trimtab_load", adapter.slot, adapter.path, adapter.digest)
        except Exception as cause:
            if type(cause) is not Exception:  # vLLM raises a bare one for what a worker has refused
                raise
            raise ModelError(f"{adapter.name!r} was not loaded: {cause}") from cause

    async def _ask(self, method: str, *arguments: object) -> Any:
        return (await self._engine.collective_rpc(method, args=arguments))[0]


def shown(adapter: Adapter) -> dict[str, object]:
    """Describe a steering to clients, without its path on the server."""
    facts: dict[str, object] = {
        name: getattr(adapter, name) for name in ("name", "slot", "digest", "strength", "scope", "gate", "neurons")
    }
    return facts | {"dose": None if adapter.dose is None else adapter.dose.at(adapter.strength)}


router = APIRouter(prefix="/v1/trimtab", tags=["trimtab"])


LONGEST_NAME, LONGEST_PATH = 200, 4096


class Load(BaseModel):
    """Body of the route: ``name`` for requests to use, ``path`` in the folder of ``--load-from``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(max_length=LONGEST_NAME)
    path: str = Field(max_length=LONGEST_PATH)


class Unload(BaseModel):
    """Body of the route: ``name`` of a loaded steering."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(max_length=LONGEST_NAME)


@router.get("/status")
async def status(request: Request) -> JSONResponse:
    """Return the loaded steerings and the engine's counters."""
    return JSONResponse(await _adapters(request).status())


@router.get("/requests/{request_id}")
async def gate_outputs(request: Request, request_id: str) -> JSONResponse:
    """Return p(fail), decision, running gate and monitor of each prompt and choice, by the ``id`` of the answer."""
    answers = await _adapters(request).answers(request_id)
    if not answers:
        return answer_error(
            f"no request {request_id!r} is remembered; the last 4,096 that were steered or watched are", HTTPStatus.NOT_FOUND
        )
    return JSONResponse({"id": request_id, "answers": answers})


@router.post("/load")
async def load(request: Request, body: Load) -> JSONResponse:
    """Load one more steering while requests run."""
    try:
        return JSONResponse(shown(await _adapters(request).load(body.name, body.path)))
    except PermissionError as refusal:
        return answer_error(refusal, HTTPStatus.FORBIDDEN)
    except TrimtabError as refusal:
        return answer_error(refusal, HTTPStatus.BAD_REQUEST)


@router.post("/unload")
async def unload(request: Request, body: Unload) -> JSONResponse:
    """Admit no more requests for a steering; running ones finish as they began."""
    try:
        return JSONResponse(shown(await _adapters(request).unload(body.name)))
    except TrimtabError as refusal:
        return answer_error(refusal, HTTPStatus.BAD_REQUEST)


def _adapters(request: Request) -> ServedAdapters:
    return request.app.state.trimtab
