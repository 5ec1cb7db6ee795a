"""Where a layer's activations and the residual stream are read and changed in any architecture, and the weights of its down
projection.

The hook is on the down projection, on the experts of a mixture, or for the residual stream on the decoder block; the weights have
one orientation whatever the module.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers.pytorch_utils import Conv1D

from trimtab.errors import ModelError
from trimtab.model.adapters import FfnLayout
from trimtab.model.experts import ExpertNeurons, down_matrix, holds_experts, read_routing, with_added
from trimtab.model.opening import LanguageModel

Edit = Callable[[Tensor], Tensor | None]
"""Takes the activations of a forward and returns what they become, or None to leave them."""


def hook_neurons(layout: FfnLayout, layer: int, edit: Edit, chosen: Tensor) -> RemovableHandle:
    """Call ``edit`` at every forward of a layer, until the handle is removed.

    A dense layer hands over all of its activations, ``[..., d_ff]``, since they are at hand. A layer of experts hands over the
    chosen ones only, ``[token, neuron]`` in the order of ``chosen`` and 0 where a token is not routed to the neuron's expert.
    Both are in the model's dtype; :func:`columns` says where the chosen neurons stand.

    Args:
        chosen: int64 ``[neuron]``, ascending coordinates in the layer's d_ff.
    """
    ffn = layout.layers[layer]
    if ffn.module is None:
        raise ModelError(f"layer {layer} of this {layout.family!r} has no neurons")
    if ffn.sparse:
        refuse_offloaded(layer, ffn.module)
        return ffn.module.register_forward_hook(_after_experts(ExpertNeurons(ffn.module, chosen), edit))
    return ffn.module.register_forward_pre_hook(_before_down(layer, ffn.width, edit))


def columns(layout: FfnLayout, layer: int, chosen: Tensor, index: Tensor) -> Tensor:
    """Where the neurons ``index``, all of them chosen, stand in what :func:`hook_neurons` hands over; int64 ``[neuron]``."""
    return torch.searchsorted(chosen, index) if layout.layers[layer].sparse else index


def watch_neurons(layout: FfnLayout, layer: int, index: Tensor, see: Callable[[Tensor], None]) -> RemovableHandle:
    """Show ``see`` the activations ``[..., neuron]`` of some neurons at every forward, in the order of ``index``.

    Args:
        index: int64 ``[neuron]``, coordinates in the layer's d_ff, each at most once.
    """
    chosen = index.sort().values
    place = columns(layout, layer, chosen, index)

    def look(activation: Tensor) -> None:
        see(activation.index_select(-1, place.to(activation.device)))

    return hook_neurons(layout, layer, look, chosen)


def watch_routing(layout: FfnLayout, layer: int, index: Tensor, see: Callable[[Tensor], None]) -> RemovableHandle:
    """Show ``see`` the routing weights of some neurons of a layer of experts at every forward, float32 ``[token, neuron]``.

    Args:
        index: int64 ``[neuron]``, coordinates in the layer's d_ff.
    """
    experts = layout.modules[layer]
    assert experts is not None
    assert layout.layers[layer].sparse
    refuse_offloaded(layer, experts)
    neurons = ExpertNeurons(experts, index)

    def after(module: nn.Module, args: tuple[object, ...], output: Tensor) -> None:  # noqa: ARG001
        see(neurons.routing(read_routing(module, args)))

    return experts.register_forward_hook(after)


def decoder_blocks(layout: FfnLayout) -> tuple[nn.Module, ...]:
    """One block per layer, in order: the list of modules of which each holds the neurons of its layer.

    Raises:
        ModelError: there is no such list.
    """
    ffn = layout.modules
    for stack in layout.base.modules():
        if isinstance(stack, nn.ModuleList) and len(stack) == len(ffn) and all(map(_holds, stack, ffn)):
            return tuple(stack)
    raise ModelError(
        f"cannot tell the decoder blocks of this {layout.family!r}: no list of {len(ffn)} modules holds one FFN each; the "
        "residual stream of this architecture cannot be read"
    )


def residual(output: object) -> Tensor:
    """The residual stream ``[batch, seq, d_model]`` from what a block returns, alone or first of several."""
    first = output[0] if isinstance(output, tuple) else output
    if not isinstance(first, Tensor):
        raise ModelError(f"a decoder block returned a {type(first).__name__} where the residual stream was expected")
    return first


def _holds(block: nn.Module, ffn: nn.Module | None) -> bool:
    return ffn is None or any(module is ffn for module in block.modules())


def hook_residual(layout: FfnLayout, layer: int, edit: Edit) -> RemovableHandle:
    """Call ``edit`` with the output ``[..., d_model]`` of a decoder block at every forward, until the handle is removed.

    Raises:
        ModelError: no such list of blocks; in a forward, an output that is no residual stream of one vector a token.
    """

    def after(_: nn.Module, inputs: tuple[object, ...], output: object) -> object:  # noqa: ARG001
        stream = residual(output)
        if not stream.is_floating_point() or stream.dim() > 3 or stream.shape[-1] != layout.d_model:
            raise ModelError(
                f"layer {layer}: the decoder block returned {stream.dtype} {list(stream.shape)}; a direction needs a residual "
                f"stream of one float vector a token, {layout.d_model} wide"
            )
        changed = edit(stream)
        if changed is None:
            return None
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    blocks = decoder_blocks(layout)
    if len(set(blocks)) < len(blocks):
        raise ModelError(
            f"layers of this {layout.family!r} share a decoder block, so no direction can be added after one of them"
        )
    return blocks[layer].register_forward_hook(after)


def refuse_offloaded(layer: int, module: nn.Module) -> None:
    """Raise ModelError where a module's weights are on disk but for its own forward, so that no hook beside it reads them."""
    if any(weight.is_meta for weight in module.parameters()):
        what = "experts" if holds_experts(module) else "down projection"
        raise ModelError(f"the weights of the {what} of layer {layer} are offloaded, so they cannot be read; use one device")


def _before_down(layer: int, width: int, edit: Edit):
    def before(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        activation = args[0]
        if not activation.is_floating_point() or activation.shape[-1] != width:
            raise ModelError(
                f"layer {layer}: the down projection's input is {activation.dtype}, {activation.shape[-1]} wide; steering needs "
                f"a float tensor {width} wide. Quantised activations and tensor parallelism are not supported"
            )
        changed = edit(activation)
        return None if changed is None else (changed, *args[1:])

    return before


def _after_experts(neurons: ExpertNeurons, edit: Edit):
    def after(experts: nn.Module, args: tuple[object, ...], output: Tensor) -> Tensor | None:
        routed = read_routing(experts, args)
        activation = neurons.read(routed)
        changed = edit(activation)
        if changed is None:
            return None
        # the change as the activation's dtype holds it, which is what an edit before the down projection would have done
        return with_added(output, routed, neurons.push(routed, changed.float() - activation.float()))

    return after


def down_weights(model: LanguageModel, layers: Sequence[int]) -> dict[int, NDArray[np.float32]]:
    """``W`` of each layer, float32 ``[d_model, d_ff]``, so that ``W[:, S] @ shift`` is what a shift adds to the FFN's output.

    Experts stand side by side; the shift of a neuron reaches the output of a token times the routing weight of its expert.
    Columns of neurons that a narrower layer has not are 0.

    Raises:
        ModelError: a quantised down projection, whose weight is not a plain matrix.
    """
    weights = {}
    for layer in layers:
        ffn = model.layout.layers[layer]
        module, wide = ffn.module, torch.zeros(model.layout.d_model, model.layout.d_ff)
        if module is not None:
            refuse_offloaded(layer, module)
        if module is None:
            weight = wide[:, :0]
        elif ffn.sparse:
            weight = down_matrix(module)
        elif type(module) is nn.Linear:
            weight = module.weight
        elif isinstance(module, Conv1D):
            weight = module.weight.T
        else:
            raise ModelError(
                f"the down projection of layer {layer} is a {type(module).__name__}, whose weight cannot be read as a matrix; "
                "open the model without quantisation to match the norms of random controls"
            )
        if len(weight) != len(wide):
            raise ModelError(f"the experts of layer {layer} work in {len(weight)} dimensions, the model in {len(wide)}")
        wide[:, : weight.shape[1]] = weight.detach()
        weights[layer] = wide.numpy()
    return weights
