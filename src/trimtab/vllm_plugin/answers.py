"""HTTP errors in the form in which vLLM answers them, so that a client meets one kind."""

from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.responses import JSONResponse  # pyright: ignore[reportMissingImports]


def answer_error(cause: Exception | str, status: HTTPStatus) -> "JSONResponse":
    """The cause's message, without the paths of this machine."""
    from starlette.responses import JSONResponse  # pyright: ignore[reportMissingImports]
    from vllm.entrypoints.serve.engine.protocol import ErrorInfo, ErrorResponse  # pyright: ignore[reportMissingImports]
    from vllm.entrypoints.serve.exception_handling.utils import sanitize_message  # pyright: ignore[reportMissingImports]

    error = ErrorInfo(message=sanitize_message(str(cause)), type=f"{status.phrase.replace(' ', '')}Error", code=status.value)
    return JSONResponse(ErrorResponse(error=error).model_dump(), status_code=status.value)
