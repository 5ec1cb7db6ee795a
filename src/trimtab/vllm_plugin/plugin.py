"""The entry points that vLLM calls: :func:`register` in each of its processes, :class:`Endpoints` in the HTTP server.

``register`` wraps three methods that run once, at the start. A wrapper looks for the plugin's configuration and returns where
there is none: an engine that did not ask for steering has no hook and runs none of this in a step. The rest is put on single
objects.
"""

import logging
from argparse import Namespace
from collections.abc import Callable
from functools import wraps
from typing import Any

from trimtab.errors import ModelError
from trimtab.vllm_plugin.config import config_of, installed
from trimtab.vllm_plugin.server import load_folder

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
    _wrap(InputProcessor, "__init__", _processor_made)
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


def _processor_made(processor: Any) -> None:
    config = config_of(processor.vllm_config.additional_config)
    if config is not None:
        from trimtab.vllm_plugin.adapters import follow_input_processor

        follow_input_processor(processor, config)


def _core_made(core: Any) -> None:
    if config_of(core.vllm_config.additional_config) is not None:
        from trimtab.vllm_plugin.adapters import separate_blocks

        separate_blocks()


def _worker_made(wrapper: Any) -> None:
    config = config_of(wrapper.vllm_config.additional_config)
    if config is not None:
        from trimtab.vllm_plugin.worker import follow_worker

        follow_worker(wrapper.worker, config)


class Endpoints:
    """vLLM's ``EndpointPlugin``: adds nothing to a server whose engine did not ask for the plugin."""

    name = "trimtab"
    required_tasks = ("generate",)

    def attach_router(self, app: Any) -> None:
        """Add the routes, the check of requests and the metrics; vLLM's API key comes before all three."""
        if config_of(app.state.args.additional_config) is None:
            return
        from trimtab.vllm_plugin.metrics import FreshMetrics
        from trimtab.vllm_plugin.routes import RequestCheck, router

        app.include_router(router)
        app.add_middleware(RequestCheck)
        app.add_middleware(FreshMetrics)

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:
        """Called when the engine has started.

        Raises:
            ModelError: a server without an engine.
        """
        if config_of(args.additional_config) is None:
            return
        from trimtab.vllm_plugin.metrics import register_metrics
        from trimtab.vllm_plugin.routes import ServedAdapters

        if engine_client is None:
            raise ModelError("this server only renders prompts and has no engine to steer; start it without the trimtab plugin")
        served = ServedAdapters(engine_client, load_folder(args))
        await served.engine_status()  # fails at the start, not at the first request, where the workers do not steer
        state.trimtab, state.trimtab_metrics = served, register_metrics()
