"""The entry point of group ``vllm.endpoint_plugins``: our part of vLLM's HTTP server."""

from argparse import Namespace
from typing import Any

from trimtab.errors import ModelError
from trimtab.vllm_plugin.config import config_of
from trimtab.vllm_plugin.serve import load_folder


class Endpoints:
    """vLLM's ``EndpointPlugin``: adds nothing to a server whose engine did not ask for the plugin."""

    name = "trimtab"
    required_tasks = ("generate",)

    def attach_router(self, app: Any) -> None:
        """Add the routes, the check of requests and the metrics; vLLM's API key comes before all three."""
        if config_of(app.state.args.additional_config) is None:
            return
        from trimtab.vllm_plugin.metrics import FreshMetrics
        from trimtab.vllm_plugin.request_check import RequestCheck
        from trimtab.vllm_plugin.routes import router

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
        from trimtab.vllm_plugin.steerings import Steerings

        if engine_client is None:
            raise ModelError("this server only renders prompts and has no engine to steer; start it without the trimtab plugin")
        steerings = Steerings(engine_client, load_folder(args))
        await steerings.engine_status()  # fails at the start, not at the first request, where the workers do not steer
        state.trimtab, state.trimtab_metrics = steerings, register_metrics()
