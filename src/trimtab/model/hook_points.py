"""Where a layer's activations are read and changed in any architecture: a hook on its down projection or on its experts."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from trimtab.errors import ModelError
from trimtab.model.adapters import FfnLayout
from trimtab.model.experts import ExpertNeurons, read_routing

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
    module = layout.modules[layer]
    if layout.mixture:
        return module.register_forward_hook(_after_experts(ExpertNeurons(module, chosen), edit))
    return module.register_forward_pre_hook(_before_down(layout, layer, edit))


def columns(layout: FfnLayout, chosen: Tensor, index: Tensor) -> Tensor:
    """Where the neurons ``index``, all of them chosen, stand in what :func:`hook_neurons` hands over; int64 ``[neuron]``."""
    return torch.searchsorted(chosen, index) if layout.mixture else index


def watch_neurons(layout: FfnLayout, layer: int, index: Tensor, see: Callable[[Tensor], None]) -> RemovableHandle:
    """Show ``see`` the activations ``[..., neuron]`` of some neurons at every forward, in the order of ``index``.

    Args:
        index: int64 ``[neuron]``, coordinates in the layer's d_ff, each at most once.
    """
    chosen = index.sort().values
    place = columns(layout, chosen, index)

    def look(activation: Tensor) -> None:
        see(activation.index_select(-1, place.to(activation.device)))

    return hook_neurons(layout, layer, look, chosen)


def _before_down(layout: FfnLayout, layer: int, edit: Edit):
    def before(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        activation = args[0]
        if not activation.is_floating_point() or activation.shape[-1] != layout.d_ff:
            raise ModelError(
                f"layer {layer}: the down projection's input is {activation.dtype}, {activation.shape[-1]} wide; steering needs "
                f"a float tensor {layout.d_ff} wide. Quantised activations and tensor parallelism are not supported"
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
        return output + neurons.push(routed, changed.float() - activation.float()).to(output.dtype)

    return after
