"""The neurons of a mixture of experts: one wide FFN in which the experts stand side by side, ``index = expert * d_expert + i``.

transformers keeps all experts of a layer in one module with 3-D parameters and runs them in one of several ways (grouped,
batched, looped, fused kernels). None of these is touched. The down projection is linear, so a change of its input is a change of
its output, the sum over a token's experts e of ``routing weight * W_down[e] @ change``, and that is added to what the library
computed. Adding zero changes no bit, whichever way the library takes.

A token has no activation in an expert that it is not routed to; it stands as 0 here, which is what it adds to the FFN's output.

Not guaranteed: where the library computes all tokens of an expert together (grouped, looped), the last bits of a row depend on
the other rows, so a row with a closed gate differs by rounding from a run in which its neighbours are not steered either.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from trimtab.errors import ModelError


class ExpertsShape(NamedTuple):
    """Sizes of the experts of one layer."""

    n_experts: int
    d_expert: int
    d_model: int


class Routed(NamedTuple):
    """The input of a layer's experts.

    Args:
        hidden: ``[token, d_model]``, the rows of a batch one after the other.
        expert: int64 ``[token, top_k]``, each expert at most once in a row.
        weight: ``[token, top_k]``, what the expert's output is multiplied by.
    """

    hidden: Tensor
    expert: Tensor
    weight: Tensor


class RoutedExpert(NamedTuple):
    """One expert's share of a forward.

    Args:
        token: int64 ``[routed]``, the tokens routed to it, in order.
        slot: int64 ``[routed]``, its column in the token's row of ``Routed.expert``.
        activation: ``[routed, d_expert]``, the input of its down projection.
    """

    expert: int
    token: Tensor
    slot: Tensor
    activation: Tensor


def experts_shape(experts: nn.Module) -> ExpertsShape:
    """Sizes of a layer's experts.

    Raises:
        ModelError: the weights do not lie as ``gate_up_proj [expert, 2 * d_expert, d_model]`` (the gate's rows before the up
            projection's) and ``down_proj [expert, d_model, d_expert]``, without biases: quantised, sharded, or of another form.
    """
    weights = dict(experts.named_parameters())
    down, gate_up = weights.get("down_proj"), weights.get("gate_up_proj")
    if down is not None and gate_up is not None and set(weights) == {"down_proj", "gate_up_proj"} and down.dim() == 3:
        n_experts, d_model, d_expert = down.shape
        whole = n_experts == experts.num_experts and getattr(experts, "is_concatenated", True)
        if whole and gate_up.shape == (n_experts, 2 * d_expert, d_model) and down.is_floating_point():
            return ExpertsShape(n_experts, d_expert, d_model)
    found = ", ".join(f"{name} {list(weight.shape)} {weight.dtype}" for name, weight in weights.items())
    raise ModelError(
        f"the experts ({type(experts).__name__}) hold {found or 'no parameters'}; trimtab needs gate_up_proj "
        "[expert, 2 * d_expert, d_model] and down_proj [expert, d_model, d_expert] in a float dtype. Open the model without "
        "quantisation and without expert parallelism"
    )


def read_routing(experts: nn.Module, args: tuple[object, ...]) -> Routed:
    """The arguments of a layer's experts.

    Raises:
        ModelError: the block calls its experts in another way.
    """
    if len(args) == 3 and all(isinstance(value, Tensor) for value in args):
        return Routed(*args)  # type: ignore[arg-type]
    raise ModelError(
        f"{type(experts).__name__} was called with {[type(value).__name__ for value in args]} instead of hidden states, expert "
        "numbers and routing weights, so the tokens of an expert are unknown; this version of transformers is not supported"
    )


class ExpertNeurons:
    """Some neurons of one layer's experts, read and pushed without running whole experts.

    Args:
        experts: the module of all experts of the layer.
        index: int64 ``[neuron]``, ``expert * d_expert + i``.
    """

    def __init__(self, experts: nn.Module, index: Tensor) -> None:
        self._experts = experts
        self._d_expert = experts_shape(experts).d_expert
        self._expert, self._within = index // self._d_expert, index % self._d_expert

    def read(self, routed: Routed) -> Tensor:
        """Activations ``[token, neuron]`` in the model's dtype, 0 where a token is not routed to the neuron's expert."""
        expert, within = self._at(routed)
        gate, up = (self._experts.gate_up_proj[expert, row] for row in (within, self._d_expert + within))  # type: ignore[index]
        activation = self._experts.act_fn(linear(routed.hidden, gate)) * linear(routed.hidden, up)  # type: ignore[operator]
        return activation.masked_fill(~_is_routed(routed, expert).any(-1), 0.0)

    def push(self, routed: Routed, change: Tensor) -> Tensor:
        """What a change of these activations, float32 ``[token, neuron]``, adds to the output: float32 ``[token, d_model]``."""
        expert, within = self._at(routed)
        weight = torch.where(_is_routed(routed, expert), routed.weight.float().unsqueeze(1), 0.0).sum(-1)
        return (weight * change) @ self._experts.down_proj[expert, :, within].float()  # type: ignore[index]

    def _at(self, routed: Routed) -> tuple[Tensor, Tensor]:
        device = routed.hidden.device
        if self._expert.device != device:
            self._expert, self._within = self._expert.to(device), self._within.to(device)
        return self._expert, self._within


def each_expert(experts: nn.Module, routed: Routed) -> Iterator[RoutedExpert]:
    """Every expert that has a token in this forward, with all of its activations, in order."""
    for expert in routed.expert.unique().tolist():
        token, slot = torch.nonzero(routed.expert == expert, as_tuple=True)
        gate, up = linear(routed.hidden[token], experts.gate_up_proj[expert]).chunk(2, -1)  # type: ignore[index]
        yield RoutedExpert(expert, token, slot, experts.act_fn(gate) * up)  # type: ignore[operator]


def recompute(experts: nn.Module, routed: Routed, edit: Callable[[Tensor], Tensor]) -> Tensor:
    """The output ``[token, d_model]`` by its definition, with every activation passed through ``edit``; summed in float32."""
    output = torch.zeros_like(routed.hidden, dtype=torch.float32)
    for part in each_expert(experts, routed):
        projected = linear(edit(part.activation), experts.down_proj[part.expert])  # type: ignore[index]
        output.index_add_(0, part.token, projected.float() * routed.weight[part.token, part.slot, None].float())
    return output.to(routed.hidden.dtype)


def _is_routed(routed: Routed, expert: Tensor) -> Tensor:
    """Bool ``[token, neuron, top_k]``: whether that slot of the token is the neuron's expert."""
    return routed.expert.unsqueeze(1) == expert.view(1, -1, 1)
