"""The routes under ``/v1/trimtab``; vLLM's API key guards all that begins with ``/v1``."""

from http import HTTPStatus

from fastapi import APIRouter, Request  # pyright: ignore[reportMissingImports]
from fastapi.responses import JSONResponse  # pyright: ignore[reportMissingImports]
from pydantic import BaseModel, ConfigDict

from trimtab.errors import TrimtabError
from trimtab.vllm_plugin.answers import answer_error
from trimtab.vllm_plugin.steerings import Steerings, shown

router = APIRouter(prefix="/v1/trimtab", tags=["trimtab"])


class Load(BaseModel):
    """``name``: what requests will call it; ``path``: in the folder of ``--load-from``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    path: str


class Unload(BaseModel):
    """``name``: of a steering that is loaded."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str


@router.get("/status")
async def status(request: Request) -> JSONResponse:
    """What is loaded, and what the engine has counted."""
    return JSONResponse(await _steerings(request).status())


@router.get("/requests/{request_id}")
async def scores(request: Request, request_id: str) -> JSONResponse:
    """Score, decision and monitor of each answer to a request, by the ``id`` of that answer."""
    answers = await _steerings(request).answers(request_id)
    if not answers:
        return answer_error(
            f"no steered request {request_id!r} is remembered; the last 4,096 are, and unsteered ones never", HTTPStatus.NOT_FOUND
        )
    return JSONResponse({"id": request_id, "answers": answers})


@router.post("/load")
async def load(request: Request, body: Load) -> JSONResponse:
    """Load one more steering while requests run."""
    try:
        return JSONResponse(shown(await _steerings(request).load(body.name, body.path)))
    except PermissionError as refusal:
        return answer_error(refusal, HTTPStatus.FORBIDDEN)
    except TrimtabError as refusal:
        return answer_error(refusal, HTTPStatus.BAD_REQUEST)


@router.post("/unload")
async def unload(request: Request, body: Unload) -> JSONResponse:
    """Take no more requests for a steering; those that run end as they began."""
    try:
        return JSONResponse(shown(await _steerings(request).unload(body.name)))
    except TrimtabError as refusal:
        return answer_error(refusal, HTTPStatus.BAD_REQUEST)


def _steerings(request: Request) -> Steerings:
    return request.app.state.trimtab
