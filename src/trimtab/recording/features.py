"""The second, small store: activations of neurons that were selected already, token by token.

Moments of all neurons say which neurons matter; what a few of them do at each token is recorded here, by another forward.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trimtab.errors import InputError
from trimtab.model import LanguageModel
from trimtab.model.hook_points import watch_neurons
from trimtab.moments import TokenScope
from trimtab.neurons import check_addresses
from trimtab.progress import Progress, silent
from trimtab.recording.tokens import forwarded, right_padded, span
from trimtab.store import AnyPath, Parts, digest_of, load_tensors, make_plan, save_tensors
from trimtab.traces import Trace

ADDRESSES = "neurons.safetensors"


class Features:
    """Per-token activations on disk.

    Row t of a trace belongs to the token ``tokens_in(trace, scope)[t]`` (:func:`trimtab.recording.tokens.tokens_in`).
    """

    def __init__(self, folder: AnyPath) -> None:
        self.folder = folder
        self._parts = Parts(folder, ".safetensors")

    @cached_property
    def addresses(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Layer and index of each feature, int64 ``[feature]`` each."""
        tensors, _ = load_tensors(self.folder / ADDRESSES)
        return tensors["layer"], tensors["index"]

    def stream(self) -> Iterator[tuple[tuple[str, ...], list[NDArray[np.float32]]]]:
        """Yield (trace ids, one float32 ``[token, feature]`` a trace) of every part, in the order of the plan.

        Raises:
            StoreError: a part is missing or truncated.
        """
        for part, ids in enumerate(self._parts.plan.parts):
            tensors, _ = load_tensors(self._parts.path(part))
            yield ids, np.split(tensors["values"], np.cumsum(tensors["count"])[:-1])

    def of(self, order: Sequence[str]) -> list[NDArray[np.float32]]:
        """The features of these traces, float32 ``[token, feature]`` each, all in memory."""
        found = {name: values for ids, part in self.stream() for name, values in zip(ids, part, strict=True)}
        return [found[name] for name in order]


def record_features(
    model: LanguageModel,
    traces: Sequence[Trace],
    layer: NDArray[np.int64],
    index: NDArray[np.int64],
    scope: TokenScope,
    folder: AnyPath,
    *,
    batch_tokens: int = 16_384,
    progress: Progress = silent,
) -> Features:
    """Record the activations of some neurons at every token of a scope into ``folder``.

    Killed at any moment and called again, it goes on with the parts that are missing and ends with the same bytes.

    Args:
        layer, index: int64 ``[feature]``, the neurons; their order is that of the columns.
        batch_tokens: bounds rows x longest row of one forward; it is part of the stored plan.

    Raises:
        ConfigError: the folder holds parts of another plan.
        InputError: a neuron that the model has not, or a trace that cannot be recorded; what was recorded before stays.
    """
    _check(model, layer, index)
    by_id = {trace.id: trace for trace in traces}
    facts = {
        "neurons": digest_of({"layer": layer.tolist(), "index": index.tolist()}),
        "scope": scope,
        "model": model.identity.fingerprint,
        "dtype": str(model.hf_model.dtype),
        "tokenizer": model.tokenizer_fingerprint,
    }
    plan = make_plan(list(by_id), [len(forwarded(trace)) for trace in traces], batch_tokens, facts)
    parts = Parts(folder, ".safetensors")
    parts.ensure_plan(plan)
    save_tensors(folder / ADDRESSES, {"layer": layer, "index": index}, {})
    missing = parts.missing()
    done = len(by_id) - sum(len(plan.parts[part]) for part in missing)
    with progress(f"record {folder.name}", len(by_id), done) as advance:
        for part in missing:
            batch = [by_id[trace_id] for trace_id in plan.parts[part]]
            rows = batch_features(model, batch, layer, index, scope)
            counts = np.array([len(row) for row in rows], np.int64)
            parts.write_tensors(part, {"values": np.concatenate(rows), "count": counts}, {})
            advance(len(batch), sum(len(forwarded(trace)) for trace in batch))
    return Features(folder)


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
                "or remove the trace"
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
