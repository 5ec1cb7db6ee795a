"""The entry point that vLLM calls in each of its processes.

It wraps three methods that run once, at a start. A wrapper looks for the plugin's configuration and, where there is none, does
nothing more: an engine that did not ask for steering has no hook and runs none of this in a step. All else is put on single
objects.
"""

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from trimtab.vllm_plugin.config import config_of
from trimtab.vllm_plugin.versions import installed

logger = logging.getLogger(__name__)

_MARK = "_trimtab_wrapped"


def register() -> None:
    """Let engines ask for the plugin; the second call in a process does nothing."""
    if installed() is None:
        return
    # their modules are loaded in every process of vLLM anyway
    from vllm.v1.engine.core import EngineCore  # pyright: ignore[reportMissingImports]
    from vllm.v1.engine.input_processor import InputProcessor  # pyright: ignore[reportMissingImports]
    from vllm.v1.worker.worker_base import WorkerWrapperBase  # pyright: ignore[reportMissingImports]

    # not init_worker: a worker in a process of its own loads plugins inside it
    _wrap(WorkerWrapperBase, "init_device", _worker_made)
    _wrap(InputProcessor, "__init__", _front_made)
    _wrap(EngineCore, "_initialize_kv_caches", _core_made)


def _wrap(owner: type, name: str, then: Callable[..., None]) -> None:
    original = getattr(owner, name)
    if getattr(original, _MARK, False):
        return

    @wraps(original)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        then(self)
        return result

    setattr(wrapped, _MARK, True)
    setattr(owner, name, wrapped)


def _front_made(processor: Any) -> None:
    config = config_of(processor.vllm_config.additional_config)
    if config is not None:
        from trimtab.vllm_plugin.front import follow_front

        follow_front(processor, config)


def _core_made(core: Any) -> None:
    if config_of(core.vllm_config.additional_config) is not None:
        from trimtab.vllm_plugin.front import separate_blocks

        separate_blocks()


def _worker_made(wrapper: Any) -> None:
    config = config_of(wrapper.vllm_config.additional_config)
    if config is not None:
        from trimtab.vllm_plugin.boot import follow_worker

        follow_worker(wrapper.worker, config)
