"""One forward, recorded: sums per trace and token scope, straight from hooks on the down projections or the experts.

Nothing per token is kept and nothing waits for the device: the sums, float32 whatever the model's dtype, stay where the layer
runs until they are collected. A batch is right-padded and runs without an attention mask: under causal attention no real position
can see the padding, and the sums leave it out.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from math import gcd
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trimtab.errors import InputError
from trimtab.model import FfnLayout, LanguageModel
from trimtab.model.experts import Routed, each_expert, experts_shape, read_routing, summed_output
from trimtab.model.hook_points import hook_residual, refuse_offloaded
from trimtab.moments import ALL_MOMENTS, CONTRIBUTION, MOMENTS, Moments, TokenScope
from trimtab.recording.tokens import right_padded, span
from trimtab.traces import Trace

Hook = Callable[[nn.Module, tuple[Tensor, ...]], None]
Site = Literal["neurons", "residual"]
"""What is summed up: the FFN's neurons, or the residual stream after each decoder block in their place, ``d_model`` wide."""
Spans = Sequence[Sequence[tuple[int, int]]]
"""Start and end of every scope in each row, ``[batch][scope]``."""

_CPU_BLOCK_BYTES = 2 * 2**20
_DEVICE_BLOCK_BYTES = 32 * 2**20
"""Float32 activations that are worked on at once. The magnitudes of a whole layer would go to main memory and back, which takes
several times as long as to sum them up; a block stays in cache. Elsewhere caches are larger, and starting a kernel costs."""


class DenseSums:
    """Per layer ``weights @ a`` for each moment of ``a``, float32 ``[moment, batch, scope, d_ff]``."""

    def __init__(self, spans: Spans, moments: Sequence[str], n_layers: int, device: torch.device) -> None:
        """Nothing runs yet.

        Args:
            spans: of the scopes; what is outside all of them is not read.
            moments: of ``sum``, ``magnitude``, ``square``, in any order.
            n_layers: how many layers get a hook.
            device: where most layers run.
        """
        self.names = tuple(name for name in MOMENTS if name in moments)  # in this order each is made from the one before
        self._reach = [(min(start for start, _ in row), max(end for _, end in row)) for row in spans]
        weights = torch.zeros(len(spans), len(spans[0]), max(end for _, end in self._reach))
        for row, scopes in enumerate(spans):
            for i, (start, end) in enumerate(scopes):
                weights[row, i, start:end] = 1.0
        self._weights = weights.to(device)
        self._layers: list[Tensor | None] = [None] * n_layers
        self._room: Tensor | None = None

    def hook(self, layer: int) -> Hook:
        """To be called before the down projection of a layer."""

        def accumulate(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:  # noqa: ARG001
            self.see(layer, inputs[0])

        return accumulate

    def see(self, layer: int, activation: Tensor) -> None:
        """Take in a layer's ``[batch, seq, width]``, wherever they were seen."""
        self._layers[layer] = self._summed(activation, layer=layer)

    def collect(self, scope: int) -> dict[str, NDArray[np.float32]]:
        """Float32 ``[batch, layer, d_ff]`` by moment; waits for the device."""
        layers = [total for total in self._layers if total is not None]
        batch, width = layers[0].shape[1], layers[0].shape[3]
        arrays = {name: np.empty((batch, len(layers), width), np.float32) for name in self.names}
        for layer, total in enumerate(layers):
            for array, moment in zip(arrays.values(), total[:, :, scope].cpu().numpy(), strict=True):
                array[:, layer] = moment
        return arrays

    def _zeros(self, layer: int | None, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """For the sums of a layer.

        Those of all layers are allocated together, before the second one runs: a small tensor that stays after each large
        activation that goes would keep the heap from shrinking, at the size of all activations.
        """
        if layer is not None and self._room is None:
            self._room = like.new_zeros(len(self._layers), *shape)
        room = self._room
        again = layer is None or self._layers[layer] is not None  # its part of the room holds what it has summed up before
        if again or room is None or room.shape[1:] != shape or room.device != like.device:
            return like.new_zeros(shape)
        return room[layer]

    def _summed(self, activation: Tensor, weights: Tensor | None = None, layer: int | None = None) -> Tensor:
        """The sums of ``[batch, seq, width]``, or of the same with both axes in one, as ``[moment, batch, scope, width]``.

        Args:
            activation: of one layer.
            weights: of the tokens, ``[batch, scope, seq]``; None is 1 within each scope.
            layer: whose sums they are, where it is a whole layer.
        """
        weights = self._weights.to(activation.device) if weights is None else weights
        batch, scopes, _ = weights.shape
        width = activation.shape[-1]
        activation = activation.reshape(batch, -1, width)
        total = self._zeros(layer, (len(self.names), batch, scopes, width), weights)
        block_bytes = _CPU_BLOCK_BYTES if activation.device.type == "cpu" else _DEVICE_BLOCK_BYTES
        tokens = max(1, block_bytes // (4 * width))
        space = weights.new_empty(tokens * width)
        for rows, columns in self._blocks(tokens):
            values = activation[rows, columns]
            own = space[: values.numel()].view(values.shape)
            values = values if values.dtype == torch.float32 else own.copy_(values)
            for name, into in zip(self.names, total, strict=True):
                values = _POWERS[name](values, own)
                into[rows].baddbmm_(weights[rows, :, columns], values)
        return total

    def _blocks(self, tokens: int) -> Iterator[tuple[slice, slice]]:
        """Rows and columns that hold all spans, at most this many tokens at a time."""
        together = max(1, tokens // max(end - start for start, end in self._reach))
        for row in range(0, len(self._reach), together):
            reach = self._reach[row : row + together]
            last, step = max(end for _, end in reach), tokens // len(reach)
            for column in range(min(start for start, _ in reach), last, step):
                yield slice(row, row + len(reach)), slice(column, min(column + step, last))


class BlockSums(DenseSums):
    """The same by blocks of neurons, with the tokens of each block: of experts side by side, and of layers of several widths.

    A block is an expert, or where layers differ in width the largest part that all widths are multiples of. A token adds nothing
    to an expert that it is not routed to, and no token counts for a block that a layer has not.
    """

    def __init__(self, spans: Spans, moments: Sequence[str], layout: FfnLayout, device: torch.device) -> None:
        """As for :class:`DenseSums`."""
        super().__init__(spans, moments, layout.n_layers, device)
        self._layout = layout
        parts = {layer.width // max(1, layer.n_experts) for layer in layout.layers}
        self._block = gcd(*parts)
        self._counts: list[Tensor | None] = [None] * layout.n_layers

    def hook(self, layer: int) -> Hook:
        """To be called before the down projection or the experts of a layer."""
        return self._experts_hook(layer) if self._layout.layers[layer].sparse else self._dense_hook(layer)

    def collect(self, scope: int) -> dict[str, NDArray[np.float32]]:
        """Float32 ``[batch, layer, d_ff]`` by moment, 0 where a layer has no neuron; waits for the device."""
        shape = (len(self._weights), self._layout.n_layers, self._layout.d_ff)
        arrays = {name: np.zeros(shape, np.float32) for name in self.names}
        for layer, total in enumerate(self._layers):
            if total is not None:
                for array, moment in zip(arrays.values(), total[:, :, scope].cpu().numpy(), strict=True):
                    array[:, layer, : moment.shape[-1]] = moment
        return arrays

    def _dense_hook(self, layer: int) -> Hook:
        summed = super().hook(layer)

        def accumulate(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            summed(module, inputs)
            tokens = self._weights.sum(2, keepdim=True)
            self._counts[layer] = tokens.expand(-1, -1, self._layout.layers[layer].width // self._block)

        return accumulate

    def _experts_hook(self, layer: int) -> Hook:
        def accumulate(experts: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            routed, (n_experts, d_expert, _) = read_routing(experts, inputs), experts_shape(experts)
            weights = self._weights.to(routed.hidden.device)
            n_tokens = routed.hidden.shape[-2]
            batch, scopes, stop = weights.shape
            total = weights.new_zeros(len(self.names), batch, scopes, n_experts, d_expert)
            counts = weights.new_zeros(batch, scopes, n_experts)
            for expert, token, _, activation in each_expert(experts, routed):
                # laid out by position with zeros between, so that each row is summed by itself and in the same order every time
                here, values = weights.new_zeros(n_tokens), activation.new_zeros(n_tokens, d_expert)
                here, values = here.index_fill_(0, token, 1.0), values.index_copy_(0, token, activation)
                counts[:, :, expert] = (weights @ here.view(batch, -1, 1)[:, :stop]).squeeze(-1)
                total[:, :, :, expert] = self._summed(values)
            self._counts[layer] = counts.repeat_interleave(d_expert // self._block, 2)
            self._layers[layer] = total.flatten(3)

        return accumulate

    def collect_counts(self, scope: int) -> NDArray[np.int64]:
        """Tokens that have an activation in each block, int64 ``[batch, layer, block]``; waits for the device."""
        found = np.zeros((len(self._weights), self._layout.n_layers, self._layout.d_ff // self._block), np.int64)
        for layer, count in enumerate(self._counts):
            if count is not None:
                found[:, layer, : count.shape[2]] = count[:, scope].cpu().numpy()
        return found


class ContributionSums(DenseSums):
    """``sum_t |w_t a_tj| / ||o_t||`` (:class:`trimtab.moments.Moments`), from hooks that see what a layer's FFN wrote as well.

    ``||o_t||`` is taken in float32 of the output as the model computed it: of the down projection, with its bias if it has one,
    or of the experts together, without what other experts that every token passes (shared ones) add.
    """

    def __init__(self, spans: Spans, layout: FfnLayout, device: torch.device) -> None:
        """As for :class:`DenseSums`."""
        super().__init__(spans, ("magnitude",), layout.n_layers, device)
        self._layout = layout

    def output_hook(self, layer: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        """To be called after the down projection or the experts of a layer."""
        sparse = self._layout.layers[layer].sparse

        def accumulate(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if sparse:
                self._layers[layer] = self._experts(module, read_routing(module, inputs), output)
            else:
                self._layers[layer] = self._summed(inputs[0], self._per_norm(output))

        return accumulate

    def collect(self, scope: int) -> dict[str, NDArray[np.float32]]:
        """Float32 ``[batch, layer, d_ff]``, 0 where a layer has no neuron; waits for the device."""
        found = np.zeros((len(self._weights), self._layout.n_layers, self._layout.d_ff), np.float32)
        for layer, total in enumerate(self._layers):
            if total is not None:
                found[:, layer, : total.shape[-1]] = total[0, :, scope].cpu().numpy()
        return {CONTRIBUTION: found}

    def _per_norm(self, output: Tensor) -> Tensor:
        """The weight of each token in each scope over the norm of ``output [..., d_model]``, ``[batch, scope, seq]``."""
        weights = self._weights.to(output.device)
        batch, _, stop = weights.shape
        norm = output.float().reshape(batch, -1, output.shape[-1])[:, None, :stop].norm(dim=-1)
        return torch.where((weights > 0) & (norm > 0), weights / norm, 0.0)

    def _experts(self, experts: nn.Module, routed: Routed, output: Tensor) -> Tensor:
        weights, (n_experts, d_expert, _) = self._per_norm(summed_output(output, routed)), experts_shape(experts)
        n_tokens = routed.hidden.shape[-2]
        batch, scopes, _ = weights.shape
        total = weights.new_zeros(1, batch, scopes, n_experts, d_expert)
        for expert, token, slot, activation in each_expert(experts, routed):
            share = activation.float() * routed.weight[token, slot, None].float()
            total[:, :, :, expert] = self._summed(share.new_zeros(n_tokens, d_expert).index_copy_(0, token, share), weights)
        return total.flatten(3)


_POWERS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sum": lambda a, _: a,
    "magnitude": lambda a, own: torch.abs(a, out=own),
    "square": lambda a, own: torch.square(a, out=own),  # of magnitudes too, if they were made
}
"""A moment's summand from ``a`` or from the one before it, written into memory of its own."""


Recorded = dict[TokenScope, Moments]


def record_batch(model: LanguageModel, traces: Sequence[Trace], scopes: Sequence[TokenScope], moments: Sequence[str]) -> Recorded:
    """Moments of each trace over the tokens of each scope.

    The scopes are those of :func:`trimtab.recording.tokens.span`. The final token of a response is never forwarded during
    generation, so it is not forwarded here either.

    Args:
        model: the model.
        traces: one batch.
        scopes: token scopes to sum over, each from the same forward.
        moments: of :data:`trimtab.moments.ALL_MOMENTS`.

    Raises:
        InputError: unknown moments, no scope, a trace without a token in a scope, ids outside the vocabulary, or activations
            that are not finite.
    """
    return start_batch(model, traces, scopes, moments)()


@torch.inference_mode()
def start_batch(
    model: LanguageModel,
    traces: Sequence[Trace],
    scopes: Sequence[TokenScope],
    moments: Sequence[str],
    site: Site = "neurons",
) -> Callable[[], Recorded]:
    """:func:`record_batch` in two steps: this one runs the forward, or on a GPU only launches it, on the default stream.

    Args:
        site: ``residual`` sums up the output of every decoder block, ``[trace, layer, d_model]``.

    Returns:
        what waits for the forward and gives the moments; it may be called in another thread, while the next batch runs here.

    Raises:
        InputError: all of :func:`record_batch`; activations that are not finite are found by the second step.
    """
    unknown = set(moments) - set(ALL_MOMENTS)
    if unknown or not moments:
        raise InputError(f"unknown moments {sorted(unknown)}; accepted: {', '.join(ALL_MOMENTS)}")
    if not scopes:
        raise InputError("no token scope to record; give one or more of all, response, prompt, last-prompt")
    ids = right_padded(model, traces).to(model.device)
    spans = [[span(trace, scope) for scope in scopes] for trace in traces]
    layout = model.layout
    if site == "neurons" and (layout.mixture or layout.widths is not None):
        sums = BlockSums(spans, moments, layout, model.device)
    else:
        sums = DenseSums(spans, moments, model.n_layers, model.device)
    written = ContributionSums(spans, layout, model.device) if CONTRIBUTION in moments else None
    with ExitStack() as hooks:
        for layer in range(layout.n_layers if site == "residual" else 0):
            hooks.callback(hook_residual(layout, layer, partial(sums.see, layer)).remove)
        for layer, ffn, module in layout.places if site == "neurons" else ():
            if ffn.sparse:
                refuse_offloaded(layer, module)
            hooks.callback(module.register_forward_pre_hook(sums.hook(layer)).remove)
            if written is not None:
                hooks.callback(module.register_forward_hook(written.output_hook(layer)).remove)
        model.layout.base(input_ids=ids, use_cache=False)

    def collect() -> Recorded:
        recorded: Recorded = {}
        for i, scope in enumerate(scopes):
            arrays: dict[str, Any] = sums.collect(i) | (written.collect(i) if written is not None else {})
            _refuse_not_finite(arrays, traces)
            tokens = np.array([stop - start for start, stop in (row[i] for row in spans)], np.int64)
            if isinstance(sums, BlockSums):
                recorded[scope] = Moments(sums.collect_counts(i), **arrays, tokens=tokens)
            else:
                recorded[scope] = Moments(tokens, **arrays)
        return recorded

    return collect


def _refuse_not_finite(arrays: dict[str, NDArray[np.float32]], traces: Sequence[Trace]) -> None:
    for array in arrays.values():
        broken = ~np.isfinite(array).all(axis=2)
        if broken.any():
            row, layer = (int(i) for i in np.argwhere(broken)[0])
            raise InputError(
                f"trace {traces[row].id} has activations that are NaN or infinite, first in layer {layer}; "
                "record in dtype float32 or bfloat16, or remove the trace",
                code="not-finite-activations",
            )
