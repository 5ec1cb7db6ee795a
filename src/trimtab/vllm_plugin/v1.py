"""The V1 model runner (the CPU wheel's, and GPUs with ``VLLM_USE_V2_MODEL_RUNNER=0``)."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimtab.vllm_plugin.engine import EngineSteering

Runner = Any
"""vLLM's GPUModelRunner or CPUModelRunner; vLLM is not there when types are checked."""


def follow_v1(runner: Runner, steering: EngineSteering) -> None:
    """Tell the steering what this runner does, by wrapping four methods of this one object.

    Rows are built *after* the runner has updated its batch: before, they would be those of the step before it.
    """
    runner._update_states = _then(runner._update_states, lambda scheduled: _note_leavers(steering, scheduled))
    runner._prepare_inputs = _then(runner._prepare_inputs, lambda _, count: _fill(runner, steering, count))
    runner._model_forward = _then(runner._model_forward, lambda *_, **__: steering.after_forward())
    runner._dummy_run = _first(runner._dummy_run, steering.idle)


def _note_leavers(steering: EngineSteering, scheduled: Any) -> None:
    for request_id in scheduled.finished_req_ids:
        steering.end(request_id)
    for request_id in scheduled.preempted_req_ids or ():
        steering.pause(request_id)


def _fill(runner: Runner, steering: EngineSteering, count: NDArray[np.int32]) -> None:
    batch = runner.input_batch
    places = [
        steering.begin(request_id, _extra_args(runner.requests[request_id]), int(batch.num_prompt_tokens[i]))
        for i, request_id in enumerate(batch.req_ids)
    ]
    steering.before_forward(places, batch.num_computed_tokens_cpu[: len(places)], count)


def _extra_args(request: Any) -> dict[str, object] | None:
    return None if request.sampling_params is None else request.sampling_params.extra_args


def _then(original: Callable[..., Any], after: Callable[..., None]) -> Callable[..., Any]:
    @wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        after(*args, **kwargs)
        return result

    return wrapped


def _first(original: Callable[..., Any], before: Callable[[], None]) -> Callable[..., Any]:
    @wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        before()
        return original(*args, **kwargs)

    return wrapped
