"""One forward, recorded: sums per trace and token scope, straight from hooks on the down projections or the experts.

Nothing per token is kept. A batch is right-padded and runs without an attention mask: under causal attention no real position can
see the padding, and the sums leave it out.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from numpy.typing import NDArray

from trimtab.errors import InputError
from trimtab.model import LanguageModel
from trimtab.moments import MOMENTS, Moments, TokenScope
from trimtab.recording.sums import DenseSums, ExpertSums
from trimtab.recording.tokens import right_padded, span
from trimtab.traces import Trace

Recorded = dict[TokenScope, Moments]


def record_batch(model: LanguageModel, traces: Sequence[Trace], scopes: Sequence[TokenScope], moments: Sequence[str]) -> Recorded:
    """Moments of each trace over the tokens of each scope.

    The scopes are those of :func:`trimtab.recording.tokens.span`. The final token of a response is never forwarded during
    generation, so it is not forwarded here either.

    Args:
        model: the model.
        traces: one batch.
        scopes: token scopes to sum over, each from the same forward.
        moments: of ``sum``, ``magnitude``, ``square``.

    Raises:
        InputError: unknown moments, no scope, a trace without a token in a scope, ids outside the vocabulary, or activations
            that are not finite.
    """
    return start_batch(model, traces, scopes, moments)()


@torch.inference_mode()
def start_batch(
    model: LanguageModel, traces: Sequence[Trace], scopes: Sequence[TokenScope], moments: Sequence[str]
) -> Callable[[], Recorded]:
    """:func:`record_batch` in two steps: this one runs the forward, or on a GPU only launches it, on the default stream.

    Returns:
        what waits for the forward and gives the moments; it may be called in another thread, while the next batch runs here.

    Raises:
        InputError: all of :func:`record_batch`; activations that are not finite are found by the second step.
    """
    unknown = set(moments) - set(MOMENTS)
    if unknown or not moments:
        raise InputError(f"unknown moments {sorted(unknown)}; accepted: {', '.join(MOMENTS)}")
    if not scopes:
        raise InputError("no token scope to record; give one or more of all, response, prompt, last-prompt")
    ids = right_padded(model, traces).to(model.device)
    spans = [[span(trace, scope) for scope in scopes] for trace in traces]
    sums = (ExpertSums if model.layout.mixture else DenseSums)(spans, moments, model.n_layers, model.device)
    with ExitStack() as hooks:
        for layer, module in enumerate(model.layout.modules):
            hooks.callback(module.register_forward_pre_hook(sums.hook(layer)).remove)
        model.layout.base(input_ids=ids, use_cache=False)

    def collect() -> Recorded:
        recorded: Recorded = {}
        for i, scope in enumerate(scopes):
            arrays = sums.collect(i)
            _refuse_not_finite(arrays, traces)
            tokens = np.array([stop - start for start, stop in (row[i] for row in spans)], np.int64)
            if isinstance(sums, ExpertSums):
                recorded[scope] = Moments(sums.collect_counts(i), **arrays, tokens=tokens)
            else:
                recorded[scope] = Moments(tokens, arrays.get("sum"), arrays.get("magnitude"), arrays.get("square"))
        return recorded

    return collect


def _refuse_not_finite(arrays: dict[str, NDArray[np.float32]], traces: Sequence[Trace]) -> None:
    for array in arrays.values():
        broken = ~np.isfinite(array).all(axis=2)
        if broken.any():
            row, layer = (int(i) for i in np.argwhere(broken)[0])
            raise InputError(
                f"trace {traces[row].id} has activations that are NaN or infinite, first in layer {layer}; "
                "record in dtype float32 or bfloat16, or remove the trace"
            )
