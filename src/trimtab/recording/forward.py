"""One forward, recorded: masked sums per trace and token scope, straight from hooks on the down projections or the experts.

Nothing per token is kept. A batch is right-padded and runs without an attention mask: under causal attention no real position can
see the padding, and the sums leave it out.
"""

from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trimtab.errors import InputError
from trimtab.model import OpenModel
from trimtab.model.experts import each_expert, experts_shape, read_routing
from trimtab.moments import MOMENTS, Moments, TokenScope
from trimtab.recording.tokens import right_padded, span
from trimtab.traces import Trace


@torch.inference_mode()
def record_batch(
    opened: OpenModel, traces: Sequence[Trace], scopes: Sequence[TokenScope], moments: Sequence[str]
) -> dict[TokenScope, Moments]:
    """Moments of each trace over the tokens of each scope.

    The scopes are those of :func:`trimtab.recording.tokens.span`. The final token of a response is never forwarded during
    generation, so it is not forwarded here either.

    Args:
        traces: one batch.
        scopes: token scopes to sum over, each from the same forward.
        moments: of ``sum``, ``magnitude``, ``square``.

    Raises:
        InputError: a trace without a token in a scope, ids outside the vocabulary, or activations that are not finite.
    """
    ids, weights = _collate(opened, traces, scopes)
    sums = _Sums(weights.to(opened.device), moments, opened.n_layers)
    hook = sums.hook_experts if opened.layout.mixture else sums.hook
    with ExitStack() as hooks:
        for layer, module in enumerate(opened.layout.modules):
            hooks.callback(module.register_forward_pre_hook(hook(layer)).remove)
        opened.layout.base(input_ids=ids.to(opened.device), use_cache=False)
    arrays = sums.collect()
    _refuse_not_finite(arrays, traces)
    tokens = weights.sum(-1).to(torch.int64).numpy()
    routed = sums.collect_counts() if opened.layout.mixture else None
    recorded = {}
    for i, scope in enumerate(scopes):
        total, magnitude, square = (np.ascontiguousarray(arrays[name][:, i]) if name in arrays else None for name in MOMENTS)
        if routed is None:
            recorded[scope] = Moments(tokens[:, i], total, magnitude, square)
        else:
            recorded[scope] = Moments(np.ascontiguousarray(routed[:, i]), total, magnitude, square, tokens[:, i])
    return recorded


class _Sums:
    """Collects ``weights @ a`` for each layer: float32 ``[batch, scope, d_ff]`` per moment, and the tokens of each expert."""

    def __init__(self, weights: Tensor, moments: Sequence[str], n_layers: int) -> None:
        unknown = set(moments) - set(MOMENTS)
        if unknown or not moments:
            raise InputError(f"unknown moments {sorted(unknown)}; accepted: {', '.join(MOMENTS)}")
        self._weights = weights
        self._layers: dict[str, list[Tensor | None]] = {name: [None] * n_layers for name in moments}
        self._counts: list[Tensor | None] = [None] * n_layers

    def hook(self, layer: int):
        def accumulate(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:  # noqa: ARG001
            activation = inputs[0].float()
            weights = self._weights.to(activation.device)
            for name, layers in self._layers.items():
                layers[layer] = torch.bmm(weights, _POWERS[name](activation))

        return accumulate

    def hook_experts(self, layer: int):
        def accumulate(experts: nn.Module, inputs: tuple[object, ...]) -> None:
            routed, (n_experts, d_expert, _) = read_routing(experts, inputs), experts_shape(experts)
            weights = self._weights.to(routed.hidden.device)
            batch, scope, seq = weights.shape
            sums = {name: weights.new_zeros(batch, scope, n_experts, d_expert) for name in self._layers}
            counts = weights.new_zeros(batch, scope, n_experts)
            for expert, token, _, activation in each_expert(experts, routed):
                # laid out by position with zeros between, so that each row is summed by itself and in the same order every time
                here, values = weights.new_zeros(batch * seq, 1), weights.new_zeros(batch * seq, d_expert)
                counts[:, :, expert] = torch.bmm(weights, here.index_fill_(0, token, 1.0).view(batch, seq, 1)).squeeze(-1)
                values = values.index_copy_(0, token, activation.float()).view(batch, seq, d_expert)
                for name, total in sums.items():
                    total[:, :, expert] = torch.bmm(weights, _POWERS[name](values))
            self._counts[layer] = counts
            for name, total in sums.items():
                self._layers[name][layer] = total.flatten(2)

        return accumulate

    def collect_counts(self) -> NDArray[np.int64]:
        """Tokens routed to each expert, int64 ``[batch, scope, layer, expert]``."""
        return torch.stack([t.cpu() for t in self._counts if t is not None], 2).to(torch.int64).numpy()

    def collect(self) -> dict[str, NDArray[np.float32]]:
        """Float32 ``[batch, scope, layer, d_ff]`` per moment."""
        return {name: torch.stack([t.cpu() for t in layers if t is not None], 2).numpy() for name, layers in self._layers.items()}


_POWERS = {"sum": lambda a: a, "magnitude": torch.abs, "square": torch.square}


def _collate(opened: OpenModel, traces: Sequence[Trace], scopes: Sequence[TokenScope]) -> tuple[Tensor, Tensor]:
    """Right-padded ids ``[batch, seq]`` and 0/1 weights ``[batch, scope, seq]``."""
    ids = right_padded(opened, traces)
    weights = torch.zeros(len(traces), len(scopes), ids.shape[1])
    for row, trace in enumerate(traces):
        for i, scope in enumerate(scopes):
            start, end = span(trace, scope)
            weights[row, i, start:end] = 1.0
    return ids, weights


def _refuse_not_finite(arrays: dict[str, NDArray[np.float32]], traces: Sequence[Trace]) -> None:
    for array in arrays.values():
        broken = ~np.isfinite(array).all(axis=(1, 3))
        if broken.any():
            row, layer = (int(i) for i in np.argwhere(broken)[0])
            raise InputError(
                f"trace {traces[row].id} has activations that are NaN or infinite, first in layer {layer}; "
                "record in dtype float32 or bfloat16, or remove the trace"
            )
