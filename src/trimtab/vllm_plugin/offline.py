"""An engine in this process, with the plugin."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError
from trimtab.moments import Moments
from trimtab.vllm_plugin.adapters import Adapters
from trimtab.vllm_plugin.config import PluginConfig, engine_arguments
from trimtab.vllm_plugin.options import Adapter
from trimtab.vllm_plugin.recording import read_wire

LLM: TypeAlias = Any
"""vLLM's ``LLM``; vLLM is not there when types are checked."""


def open_llm(model: str | Path, steerings: Mapping[str, str | Path] | PluginConfig | None = None, **engine: Any) -> LLM:
    """Start vLLM's ``LLM`` with the plugin.

    Args:
        model: hub id or folder.
        steerings: artifacts by name, or the plugin's whole configuration.
        engine: arguments of ``vllm.LLM``.

    Raises:
        ModelError: vLLM is missing or of an untested version, or the model cannot be steered.
        ConfigError: an engine that the plugin does not work with.

    Example:
        >>> llm = open_llm("Qwen/Qwen3-0.6B", {"careful": "runs/demo/steering"})  # doctest: +SKIP
        >>> llm.generate("2 + 2 =", SamplingParams(extra_args={"steering": "careful"}))  # doctest: +SKIP
    """
    config = (
        steerings
        if isinstance(steerings, PluginConfig)
        else PluginConfig(steerings={n: str(p) for n, p in (steerings or {}).items()})
    )
    arguments = engine_arguments(config)
    if clash := sorted(set(arguments) & set(engine)):
        raise InputError(f"{', '.join(clash)} is set by the plugin; leave it out, or pass its part through PluginConfig")
    from vllm import LLM as VLLM  # pyright: ignore[reportMissingImports]

    return VLLM(model=str(model), **arguments, **engine)


def adapters_of(llm: LLM) -> Adapters:
    """Return the steering adapters of an engine."""
    return llm.llm_engine.input_processor.trimtab_adapters


def load(llm: LLM, name: str, path: str | Path) -> Adapter:
    """Load one more steering while the engine runs.

    Raises:
        InputError: a name that is taken, or no free slot.
        ModelError: it does not fit the model, or the room that the tables have.
    """
    from trimtab.vllm_plugin.refusals import read_steering

    own = adapters_of(llm)
    _empty_drained(llm, own)
    source = str(Path(path).resolve()) if Path(path).exists() else str(path)
    steering = read_steering(source, name, own.config, llm.llm_engine.model_config.hf_text_config)
    reservation = own.reserve(name, source, steering)
    try:
        llm.collective_rpc("trimtab_load", args=(reservation.adapter.slot, source, steering.digest))
    except BaseException:
        own.abandon(reservation)
        raise
    return own.add(reservation)


def unload(llm: LLM, name: str) -> None:
    """Admit no more requests for a steering. Its slot is emptied at once if none runs, else before it is needed again.

    Raises:
        InputError: none of that name, or the engine's default.
    """
    own = adapters_of(llm)
    own.remove(name)
    _empty_drained(llm, own)


def gate_outputs(llm: LLM, request_ids: Sequence[str]) -> list[dict[str, object] | None]:
    """Return p(fail), g and the monitor of each request; see :class:`trimtab.vllm_plugin.requests.GateOutputs`."""
    return [llm.collective_rpc("trimtab_request", args=(request_id,))[0] for request_id in request_ids]


def courses(llm: LLM, request_ids: Sequence[str]) -> list[NDArray[np.float32] | None]:
    """Return what a running gate did in ended responses: p(fail) after each token and g at it, float32 ``[token, 2]``.

    None where no running gate read the response, it was fetched before, or too many have ended since: the engine keeps the last
    million tokens. An engine that schedules ahead forwards the end token, too, so there may be one more than in transformers.
    """
    told = [llm.collective_rpc("trimtab_course", args=(request_id,))[0] for request_id in request_ids]
    return [None if one is None else np.array(one, np.float32).T.reshape(-1, 2) for one in told]


OnWarning: TypeAlias = Callable[[str, int, float], None]
"""Is called with the id of a request, the number of a token of its response, from 1, and p(fail) after that."""


@contextmanager
def warnings_to(llm: LLM, on_warning: OnWarning, seconds: float = 0.05) -> Iterator[None]:
    """Call a function for each response whose running p(fail) reaches the threshold of its gate, while it is written.

    It is called in this thread between two steps of the engine, once a response, and for the last ones when the block ends.

    Args:
        llm: a running engine.
        on_warning: what is called.
        seconds: between two questions to the engine, each of which waits for the device.

    Example:
        >>> with warnings_to(llm, lambda request, token, p: print(request, token, p)):  # doctest: +SKIP
        ...     llm.generate(prompts, SamplingParams(extra_args={"steering": "careful", "gate": "off"}))
    """
    engine = llm.llm_engine
    told, asked, original = _warned(llm, 0)[1], time.monotonic(), engine.step

    def tell() -> None:
        nonlocal told, asked
        new, told = _warned(llm, told)
        asked = time.monotonic()
        for request_id, token, p in new:
            on_warning(request_id, token, p)

    @wraps(original)
    def step(*args: Any, **kwargs: Any) -> Any:
        outputs = original(*args, **kwargs)
        if time.monotonic() - asked >= seconds:
            tell()
        return outputs

    engine.step = step
    try:
        yield
        tell()
    finally:
        engine.step = original


def _warned(llm: LLM, since: int) -> tuple[list[tuple[str, int, float]], int]:
    """Return the warnings after the first ``since``, and how many there are in all."""
    return llm.collective_rpc("trimtab_warnings", args=(since,))[0]


def status(llm: LLM) -> dict[str, object]:
    """Return the status of the first worker."""
    return llm.collective_rpc("trimtab_status")[0]


def moments(llm: LLM, request_ids: Sequence[str]) -> dict[str, Moments]:
    """Return the moments of finished requests by token scope, one trace per request. Each can be fetched once.

    Raises:
        InputError: a request that was not recorded, or was fetched before.
    """
    counts: dict[str, list[int]] = {}
    arrays: dict[str, dict[str, list[Any]]] = {}
    for request_id in request_ids:
        ranks = llm.collective_rpc("trimtab_moments", args=(request_id,))
        if ranks[0] is None:
            raise InputError(
                f"no moments of request {request_id!r}: it ran without record=1, or they were fetched already; sample it again"
            )
        own_counts, own_arrays = read_wire(ranks)
        for scope, count in own_counts.items():
            counts.setdefault(scope, []).append(count)
            for name, array in own_arrays[scope].items():
                arrays.setdefault(scope, {}).setdefault(name, []).append(array)
    return {
        scope: Moments(np.array(count, np.int64), **{name: np.stack(each) for name, each in arrays[scope].items()})
        for scope, count in counts.items()
    }


def _empty_drained(llm: LLM, own: Adapters) -> None:
    for slot in own.drained():
        llm.collective_rpc("trimtab_unload", args=(slot,))
        own.forget(slot)
