"""The entry points that vLLM calls: :func:`register` in each of its processes, :class:`Endpoints` in the HTTP server.

``register`` wraps four methods and a function that run once, at the start. A wrapper looks for the plugin's configuration and
returns where there is none: an engine that did not ask for steering has no hook and runs none of this in a step. The rest is put
on single objects.
"""

import logging
import os
from argparse import Namespace
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, cast

from trimtab.errors import ConfigError, ModelError
from trimtab.vllm_plugin.config import EXTENSION, PluginConfig, config_of, engine_arguments, installed, requested_config
from trimtab.vllm_plugin.server import check_single

logger = logging.getLogger(__name__)

_MARK = "_trimtab_wrapped"


def register() -> None:
    """Make the plugin available to engines of this process. A second call does nothing."""
    if installed() is None:
        return
    # their modules are loaded in every process of vLLM anyway
    from vllm.engine.arg_utils import EngineArgs  # pyright: ignore[reportMissingImports]
    from vllm.v1.engine.core import EngineCore  # pyright: ignore[reportMissingImports]
    from vllm.v1.engine.input_processor import InputProcessor  # pyright: ignore[reportMissingImports]
    from vllm.v1.worker.worker_base import WorkerWrapperBase  # pyright: ignore[reportMissingImports]

    from vllm import plugins  # pyright: ignore[reportMissingImports]

    _wrap_arguments(EngineArgs)
    _wrap_endpoints(plugins)
    # not init_worker: a worker in a process of its own loads plugins inside it
    _wrap(WorkerWrapperBase, "init_device", _worker_made)
    _wrap(InputProcessor, "__init__", _processor_made)
    _wrap(EngineCore, "_initialize_kv_caches", _core_made)


def _wrap_arguments(owner: Any) -> None:
    """Configure each engine that asks for the plugin, before vLLM builds its own configuration."""
    original = owner.create_engine_config
    if getattr(original, _MARK, False):
        return

    @wraps(original)
    def create_engine_config(self: Any, *args: Any, **kwargs: Any) -> Any:
        config = requested_config(self.additional_config, os.environ)
        if config is None:
            return original(self, *args, **kwargs)
        set_arguments(self, config)
        made = original(self, *args, **kwargs)
        from trimtab.vllm_plugin.refusals import check_engine

        check_engine(made, config)
        return made

    setattr(create_engine_config, _MARK, True)
    owner.create_engine_config = create_engine_config


def set_arguments(given: Any, config: PluginConfig) -> None:
    """Set the plugin's engine arguments beside those that were given.

    Args:
        given: vLLM's EngineArgs.
        config: with absolute paths.

    Raises:
        ConfigError: another worker extension was given, and vLLM takes one.
    """
    ours = engine_arguments(config)
    if given.worker_extension_cls not in ("", EXTENSION):
        raise ConfigError(
            f"worker_extension_cls {given.worker_extension_cls!r}: the trimtab plugin needs {EXTENSION}, and vLLM takes one; "
            "leave it out, or derive yours from the plugin's and start the engine without trimtab's configuration"
        )
    given.worker_extension_cls = EXTENSION
    given.additional_config = {**given.additional_config, **cast("dict[str, object]", ours["additional_config"])}
    if given.async_scheduling is None and "async_scheduling" in ours:
        given.async_scheduling = ours["async_scheduling"]


def _wrap_endpoints(module: Any) -> None:
    """Open our routes in a server whose engine asks for the plugin.

    vLLM opens a plugin's routes only where ``VLLM_PLUGINS`` names it. The plugin's configuration says as much, and leaves all
    other plugins as they are.
    """
    original = module.load_endpoint_plugins
    if getattr(original, _MARK, False):
        return

    @wraps(original)
    def load_endpoint_plugins(*args: Any, **kwargs: Any) -> list[Any]:
        found = original(*args, **kwargs)
        ours = _serves() and not any(isinstance(plugin, Endpoints) for plugin in found)
        return [*found, Endpoints()] if ours else found

    setattr(load_endpoint_plugins, _MARK, True)
    module.load_endpoint_plugins = load_endpoint_plugins


def _serves() -> bool:
    """Tell whether an engine of this process runs with the plugin."""
    from trimtab.vllm_plugin.adapters import published

    return published()


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
    """vLLM's ``EndpointPlugin``. It adds nothing to a server whose engine runs without the plugin."""

    name = "trimtab"
    required_tasks = ("generate",)

    def attach_router(self, app: Any) -> None:
        """Add the routes, the check of requests and the metrics; vLLM's API key comes before all three.

        Raises:
            ConfigError: several API servers or engines.
        """
        if not _serves():
            return
        check_single(app.state.args, os.environ)
        from trimtab.vllm_plugin.metrics import FreshMetrics
        from trimtab.vllm_plugin.routes import RequestCheck, router

        app.include_router(router)
        app.add_middleware(RequestCheck)
        app.add_middleware(FreshMetrics)

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:
        """Prepare the routes' state, once the engine has started.

        Raises:
            ModelError: a server without an engine.
        """
        config = config_of(args.additional_config if engine_client is None else engine_client.vllm_config.additional_config)
        if config is None:
            return
        from trimtab.vllm_plugin.metrics import register_metrics
        from trimtab.vllm_plugin.routes import ServedAdapters

        if engine_client is None:
            raise ModelError("this server only renders prompts and has no engine to steer; start it without the trimtab plugin")
        served = ServedAdapters(engine_client, None if config.load_from is None else Path(config.load_from))
        await served.engine_status()  # fails at the start, not at the first request, where the workers do not steer
        state.trimtab, state.trimtab_metrics = served, register_metrics()
