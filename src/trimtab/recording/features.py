"""Activations of neurons that were selected already, token by token.

Moments of all neurons say which neurons matter; another forward shows what a few of them do at each token.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trimtab.errors import InputError
from trimtab.model import LanguageModel
from trimtab.model.hook_points import watch_neurons
from trimtab.moments import TokenScope
from trimtab.neurons import check_addresses
from trimtab.recording.tokens import right_padded, span
from trimtab.traces import Trace


@torch.inference_mode()
def batch_features(
    model: LanguageModel, traces: Sequence[Trace], layer: NDArray[np.int64], index: NDArray[np.int64], scope: TokenScope
) -> list[NDArray[np.float32]]:
    """Activations of some neurons at every token of a scope, from one forward and without a file.

    Returns:
        float32 ``[token, feature]`` a trace, in the order of ``layer`` and ``index``; in a mixture of experts 0 where a token is
        not routed to the neuron's expert.

    Raises:
        InputError: a neuron that the model has not, a trace without a token in the scope, ids outside the vocabulary, or
            activations that are not finite.
    """
    _check(model, layer, index)
    spans = [span(trace, scope) for trace in traces]
    ids = right_padded(model, traces)
    values = torch.empty(*ids.shape, len(layer))
    with ExitStack() as hooks:
        for one in np.unique(layer).tolist():
            columns = np.flatnonzero(layer == one)
            see = _copy_into(values, torch.from_numpy(columns))
            hooks.callback(watch_neurons(model.layout, one, torch.from_numpy(index[columns]), see).remove)
        model.layout.base(input_ids=ids.to(model.device), use_cache=False)
    rows = [values[row, start:stop].numpy().copy() for row, (start, stop) in enumerate(spans)]
    for trace, row in zip(traces, rows, strict=True):
        if not np.isfinite(row).all():
            raise InputError(
                f"trace {trace.id} has activations that are NaN or infinite; record in dtype float32 or bfloat16, "
                "or remove the trace",
                code="not-finite-activations",
            )
    return rows


def _copy_into(values: Tensor, columns: Tensor) -> Callable[[Tensor], None]:
    """Copies what it sees of one layer into ``columns`` of ``[batch, seq, feature]``."""

    def copy(seen: Tensor) -> None:
        values[..., columns] = seen.float().cpu().reshape(*values.shape[:2], -1)  # some blocks flatten batch and seq

    return copy


def _check(model: LanguageModel, layer: NDArray[np.int64], index: NDArray[np.int64]) -> None:
    if not len(layer) == len(index) > 0:
        raise InputError(f"per-token features need one layer and one index per neuron, got {len(layer)} and {len(index)}")
    check_addresses(layer, index, model.identity)
