"""What vLLM reads from the environment, set for an engine in this process and put back when it is closed."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def starting_vllm() -> Iterator[None]:
    """While vLLM is imported and an engine starts: what its authors are warned of is no business of its users."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
