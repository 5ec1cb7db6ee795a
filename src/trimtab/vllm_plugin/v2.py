"""The V2 model runner (the default on GPUs), which replays graphs without any Python: only buffers filled before can vary.

Its own hooks are those of its ``ModelState``. Not run live yet, since it needs Triton: tested against vLLM's classes only.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from trimtab.vllm_plugin.engine import EngineSteering
from trimtab.vllm_plugin.request_slots import NOBODY

Runner = Any
"""vLLM's V2 GPUModelRunner; vLLM is not there when types are checked."""


def follow_v2(runner: Runner, steering: EngineSteering) -> None:
    """Tell the steering what this runner does, by wrapping methods of its model state, and the one that ends requests.

    A preempted request leaves the model state as a finished one does; only the runner knows which it is.
    """
    state = runner.model_state
    state.add_request = _before(state.add_request, lambda _, new: _begin(steering, new))
    state.prepare_inputs = _before(state.prepare_inputs, lambda batch, _: _fill(steering, batch))
    state.prepare_dummy_inputs = _before(state.prepare_dummy_inputs, lambda *_, **__: steering.idle())
    state.postprocess_state = _before(state.postprocess_state, lambda *_, **__: steering.after_forward())
    runner.finish_requests = _before(runner.finish_requests, lambda scheduled: _note_leavers(steering, scheduled))


def _begin(steering: EngineSteering, new: Any) -> None:
    params = new.sampling_params
    steering.begin(new.req_id, None if params is None else params.extra_args, new.prompt_len)


def _fill(steering: EngineSteering, batch: Any) -> None:
    states = steering.requests.states
    places = [states[request_id].place if request_id in states else NOBODY for request_id in batch.req_ids]
    count = np.asarray(batch.num_scheduled_tokens)[: len(places)]
    steering.before_forward(places, np.asarray(batch.num_computed_tokens_np)[: len(places)], count)


def _note_leavers(steering: EngineSteering, scheduled: Any) -> None:
    for request_id in scheduled.finished_req_ids:
        steering.end(request_id)
    for request_id in scheduled.preempted_req_ids or ():
        steering.pause(request_id)


def _before(original: Callable[..., Any], first: Callable[..., None]) -> Callable[..., Any]:
    @wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        first(*args, **kwargs)
        return original(*args, **kwargs)

    return wrapped
