"""vLLM's two model runners, and the methods at which each tells the plugin about its batch.

V1 is the CPU wheel's, and that of GPUs with ``VLLM_USE_V2_MODEL_RUNNER=0``. V2 is the default on GPUs. It replays graphs without
any Python, so only buffers filled before can vary; its own hooks are those of its ``ModelState``. V2 needs Triton and was not run
live: it is tested against vLLM's classes only.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimtab.vllm_plugin.requests import NOBODY
from trimtab.vllm_plugin.step import EngineSteering

Runner = Any
"""vLLM's GPUModelRunner, of either kind, or CPUModelRunner; vLLM is not there when types are checked."""


def follow_v1(runner: Runner, steering: EngineSteering) -> None:
    """Keep the steering informed of a V1 runner's batch, by wrapping four methods of this one object.

    Rows are built *after* the runner has updated its batch: before, they would be those of the step before it.
    """
    runner._update_states = _then(runner._update_states, lambda scheduled: _note_leavers(steering, scheduled))
    runner._prepare_inputs = _then(runner._prepare_inputs, lambda _, count: _fill_v1(runner, steering, count))
    runner._model_forward = _then(runner._model_forward, lambda *_, **__: steering.after_forward())
    runner._dummy_run = _first(runner._dummy_run, lambda *_, **__: steering.idle())


def follow_v2(runner: Runner, steering: EngineSteering) -> None:
    """Keep the steering informed of a V2 runner's batch, by wrapping methods of its model state and the one that ends requests.

    A preempted request leaves the model state as a finished one does; only the runner knows which it is.
    """
    state = runner.model_state
    state.add_request = _first(state.add_request, lambda _, new: _begin(steering, new))
    state.prepare_inputs = _first(state.prepare_inputs, lambda batch, _: _fill_v2(steering, batch))
    state.prepare_dummy_inputs = _first(state.prepare_dummy_inputs, lambda *_, **__: steering.idle())
    state.postprocess_state = _first(state.postprocess_state, lambda *_, **__: steering.after_forward())
    runner.finish_requests = _first(runner.finish_requests, lambda scheduled: _note_leavers(steering, scheduled))


def _note_leavers(steering: EngineSteering, scheduled: Any) -> None:
    for request_id in scheduled.finished_req_ids:
        steering.end(request_id)
    for request_id in scheduled.preempted_req_ids or ():
        steering.pause(request_id)


def _fill_v1(runner: Runner, steering: EngineSteering, count: NDArray[np.int32]) -> None:
    batch = runner.input_batch
    req_indices = [
        steering.begin(
            request_id,
            _extra_args(runner.requests[request_id]),
            int(batch.num_prompt_tokens[i]),
            int(batch.num_tokens_no_spec[i]),
        )
        for i, request_id in enumerate(batch.req_ids)
    ]
    steering.before_forward(req_indices, batch.num_computed_tokens_cpu[: len(req_indices)], count)


def _begin(steering: EngineSteering, new: Any) -> None:
    steering.begin(new.req_id, _extra_args(new), new.prompt_len, len(new.prefill_token_ids))


def _fill_v2(steering: EngineSteering, batch: Any) -> None:
    states = steering.requests.states
    req_indices = [states[request_id].req_index if request_id in states else NOBODY for request_id in batch.req_ids]
    count = np.asarray(batch.num_scheduled_tokens)[: len(req_indices)]
    steering.before_forward(req_indices, np.asarray(batch.num_computed_tokens_np)[: len(req_indices)], count)


def _extra_args(request: Any) -> dict[str, object] | None:
    return None if request.sampling_params is None else request.sampling_params.extra_args


def _then(original: Callable[..., Any], after: Callable[..., None]) -> Callable[..., Any]:
    @wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        after(*args, **kwargs)
        return result

    return wrapped


def _first(original: Callable[..., Any], before: Callable[..., None]) -> Callable[..., Any]:
    @wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        before(*args, **kwargs)
        return original(*args, **kwargs)

    return wrapped
