"""Our figures on vLLM's own ``/metrics`` page, fetched from the engine when somebody reads it."""

import time
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from prometheus_client import REGISTRY  # pyright: ignore[reportMissingImports]
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily  # pyright: ignore[reportMissingImports]
from prometheus_client.registry import Collector  # pyright: ignore[reportMissingImports]

from trimtab.vllm_plugin.adapters import current_adapters

if TYPE_CHECKING:
    from prometheus_client import Metric  # pyright: ignore[reportMissingImports]
    from starlette.types import ASGIApp, Receive, Scope, Send  # pyright: ignore[reportMissingImports]


_PAUSE = 0.5
"""Seconds in which the engine is asked once: the page needs no key, and a question costs the engine time between two steps."""


class SteeringMetrics(Collector):
    """The engine's counters since its start, as of the last request for them; none before the first.

    Attributes:
        engine: see :meth:`trimtab.vllm_plugin.routes.ServedAdapters.engine_status`.
        asked: when, on the monotonic clock.
    """

    def __init__(self) -> None:
        """Start without counters."""
        self.engine: Mapping[str, Any] | None = None
        self.asked = -_PAUSE

    def collect(self) -> Iterator["Metric"]:
        """Yield one family per metric."""
        if self.engine is None:
            return
        yield _by("trimtab_requests", "Requests with a steering.", "steering", current_adapters().entered)
        yield _by("trimtab_over_dose", "Requests above max_dose that were steered.", "steering", current_adapters().over_dose)
        read, fired = self.engine["gate_read"], self.engine["gate_fired"]
        decisions = {"fired": fired, "not_fired": read - fired}
        yield _by("trimtab_gate_decisions", "Prompts that a gate has read, by what it decided.", "decision", decisions)
        yield _histogram("trimtab_gate_p_fail", "p(fail) of the prompts that a gate has read.", self.engine["p_fail_histogram"])
        warned = self.engine["warnings"]
        yield CounterMetricFamily("trimtab_warnings", "Responses of which a running gate has warned.", warned)
        yield CounterMetricFamily("trimtab_steered_tokens", "Tokens that were steered.", self.engine["steered_tokens"])
        loaded, draining = len(current_adapters().loaded()), len(current_adapters().draining())
        slots = GaugeMetricFamily("trimtab_slots", "Room for steerings.", labels=["state"])
        for state, number in (
            ("loaded", loaded),
            ("draining", draining),
            ("free", current_adapters().config.max_steerings - loaded - draining),
        ):
            slots.add_metric([state], number)
        yield slots


class FreshMetrics:
    """ASGI middleware that fetches the engine's counters before vLLM answers ``/metrics``."""

    def __init__(self, app: "ASGIApp") -> None:
        """Wrap the rest of the server."""
        self._app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Refresh the counters, then let vLLM answer."""
        if scope["type"] == "http" and scope["path"].removeprefix(scope.get("root_path", "")).rstrip("/") == "/metrics":
            await _refresh(scope["app"].state)
        await self._app(scope, receive, send)


def register_metrics() -> SteeringMetrics:
    """Add the plugin's metrics to the registry that vLLM shows."""
    made = SteeringMetrics()
    REGISTRY.register(made)
    return made


async def _refresh(state: Any) -> None:
    metrics: SteeringMetrics = state.trimtab_metrics
    if state.engine_client.errored:
        metrics.engine = None  # a page of old figures would look alive
    elif time.monotonic() - metrics.asked >= _PAUSE:
        metrics.asked = time.monotonic()
        metrics.engine = await state.trimtab.engine_status()


def _by(name: str, text: str, label: str, numbers: Mapping[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, number in numbers.items():
        family.add_metric([value], number)
    return family


def _histogram(name: str, text: str, counts: list[int]) -> HistogramMetricFamily:
    """Make a Prometheus histogram, which counts values below each bound. It has no sum, because only bins were kept."""
    bounds = [str((i + 1) / len(counts)) for i in range(len(counts) - 1)] + ["+Inf"]
    buckets = list(zip(bounds, accumulate(counts), strict=True))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=None)
