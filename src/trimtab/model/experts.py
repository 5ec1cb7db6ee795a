"""The neurons of a mixture of experts: one wide FFN in which the experts stand side by side, ``index = expert * d_expert + i``.

transformers keeps all experts of a layer in one module with 3-D parameters and runs them in one of several ways (grouped,
batched, looped, fused kernels). None of these is touched. The down projection is linear, so a change of its input is a change of
its output, the sum over a token's experts e of ``routing weight * W_down[e] @ change``, and that is added to what the library
computed. Adding zero changes no bit, whichever way the library takes.

The parameters differ in form: gate and up projection one after the other or row by row in turn (gpt-oss), matrices transposed
(gpt-oss, Llama 4), with biases, or no gate at all (Nemotron-H). Llama 4 gives every expert all tokens, scaled by their routing
weights, which are 0 where a token is not routed.

A token has no activation in an expert that it is not routed to; it stands as 0 here, which is what it adds to the FFN's output.

Not guaranteed: where the library computes all tokens of an expert together (grouped, looped), the last bits of a row depend on
the other rows, so a row with a closed gate differs by rounding from a run in which its neighbours are not steered either.
"""

import sys
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
        hidden: ``[token, d_model]``, the rows of a batch one after the other; in Llama 4 ``[expert, token, d_model]``, each
            expert's own copy scaled by the routing weight.
        expert: int64 ``[token, top_k]``, each expert at most once in a row; in Llama 4 bool ``[token, expert]``.
        weight: ``[token, top_k]``, what the expert's output is multiplied by; in Llama 4 ``[token, expert]``, 1 or 0.
    """

    hidden: Tensor
    expert: Tensor
    weight: Tensor

    @property
    def is_scaled(self) -> bool:
        """Whether each expert has an input of its own, scaled already, as in Llama 4."""
        return self.hidden.dim() == 3


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


class _Form(NamedTuple):
    """How the parameters of a layer's experts lie."""

    gated: bool
    interleaved: bool
    transposed: bool
    biased: bool
    scaled: bool

    @property
    def up(self) -> str:
        return "gate_up_proj" if self.gated else "up_proj"


def _is_llama4(experts: nn.Module) -> bool:
    module = sys.modules.get("transformers.models.llama4.modeling_llama4")  # a class that nobody imported has no instance
    return module is not None and isinstance(experts, module.Llama4TextExperts)


def _form_of(experts: nn.Module) -> _Form:
    if _is_llama4(experts):
        return _Form(gated=True, interleaved=False, transposed=True, biased=False, scaled=True)
    # transformers' own marks (use_experts_implementation); a class without them is of the first form that it had
    return _Form(
        gated=getattr(experts, "has_gate", True),
        interleaved=not getattr(experts, "is_concatenated", True),
        transposed=getattr(experts, "is_transposed", False),
        biased=getattr(experts, "has_bias", False),
        scaled=False,
    )


def holds_experts(module: nn.Module) -> bool:
    """Whether a module holds the weights of all experts of a layer, whatever their form."""
    down = module._parameters.get("down_proj")
    return down is not None and down.dim() == 3


def experts_shape(experts: nn.Module) -> ExpertsShape:
    """Sizes of a layer's experts.

    Raises:
        ModelError: the weights do not lie as ``gate_up_proj [expert, 2 * d_expert, d_model]`` (``up_proj`` of half the rows
            without a gate) and ``down_proj [expert, d_model, d_expert]``, the matrices transposed where transformers says so:
            quantised, sharded, or of another form.
    """
    form, weights = _form_of(experts), dict(experts.named_parameters())
    down, up = weights.get("down_proj"), weights.get(form.up)
    names = {form.up, "down_proj"} | ({f"{form.up}_bias", "down_proj_bias"} if form.biased else set())
    if down is not None and up is not None and set(weights) == names and down.dim() == up.dim() == 3:
        n_experts, d_model, d_expert = down.mT.shape if form.transposed else down.shape
        wide = up.mT if form.transposed else up
        if wide.shape == (n_experts, (1 + form.gated) * d_expert, d_model) and down.is_floating_point():
            return ExpertsShape(n_experts, d_expert, d_model)
    found = ", ".join(f"{name} {list(weight.shape)} {weight.dtype}" for name, weight in weights.items())
    raise ModelError(
        f"the experts ({type(experts).__name__}) hold {found or 'no parameters'}; trimtab needs {form.up} "
        "[expert, 2 * d_expert, d_model] and down_proj [expert, d_model, d_expert] in a float dtype, or what transformers marks "
        "as transposed, biased or ungated. Open the model without quantisation and without expert parallelism"
    )


def is_gated(experts: nn.Module) -> bool:
    """Whether two projections make an expert's activation."""
    return _form_of(experts).gated


def down_matrix(experts: nn.Module) -> Tensor:
    """The down projections side by side, ``[d_model, n_experts * d_expert]``."""
    shape, stacked = experts_shape(experts), experts.get_parameter("down_proj")
    stacked = stacked.mT if _form_of(experts).transposed else stacked
    return stacked.permute(1, 0, 2).reshape(shape.d_model, shape.n_experts * shape.d_expert)


def read_routing(experts: nn.Module, args: tuple[object, ...]) -> Routed:
    """The arguments of a layer's experts.

    Raises:
        ModelError: the block calls its experts in another way.
    """
    if _is_llama4(experts) and len(args) == 1 and isinstance(args[0], Tensor):
        shape = experts_shape(experts)
        hidden = args[0].view(shape.n_experts, -1, shape.d_model)
        routed = (hidden != 0).any(-1).T
        return Routed(hidden, routed, routed.to(hidden.dtype))
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
        self._experts, self._form = experts, _form_of(experts)
        self._d_expert = experts_shape(experts).d_expert
        self._expert, self._within = index // self._d_expert, index % self._d_expert
        owner = self._rows_of(self._expert)
        self._rows_in = {one: torch.nonzero(owner == one).squeeze(1) for one in owner.unique().tolist()}

    def read(self, routed: Routed) -> Tensor:
        """Activations ``[token, neuron]`` in the model's dtype, 0 where a token is not routed to the neuron's expert."""
        expert, within = self._at(routed)
        owner, row, name = self._rows_of(expert), _rows(self._form, within, self._d_expert), self._form.up
        weight = self._experts.get_parameter(name)
        rows = weight[owner, :, row] if self._form.transposed else weight[owner, row]
        bias = self._experts.get_parameter(f"{name}_bias")[owner, row] if self._form.biased else None
        if routed.is_scaled:
            projected = routed.hidden.new_empty(routed.hidden.shape[1], len(rows))
            for one, columns in self._rows_in.items():
                projected[:, columns] = linear(routed.hidden[one], rows[columns])
        else:
            projected = linear(routed.hidden, rows, bias)
        activation = _activated(self._experts, self._form, projected)
        if activation.shape[-1] != len(expert):
            raise ModelError(
                f"{type(self._experts).__name__} makes no activation of each pair of projections, so neurons cannot be "
                "read apart; this architecture is not supported"
            )
        return activation.masked_fill(~_reaches(routed, expert), 0.0)

    def routing(self, routed: Routed) -> Tensor:
        """What the edits are multiplied by on their way out: float32 ``[token, neuron]``, 0 where a token is not routed."""
        return _weight_at(routed, self._at(routed)[0])

    def push(self, routed: Routed, change: Tensor) -> Tensor:
        """What a change of these activations, float32 ``[token, neuron]``, adds to the output: float32 ``[token, d_model]``."""
        expert, within = self._at(routed)
        down = self._experts.get_parameter("down_proj")
        columns = down[expert, within] if self._form.transposed else down[expert, :, within]
        return (_weight_at(routed, expert) * change) @ columns.float()

    def _rows_of(self, expert: Tensor) -> Tensor:
        if not self._form.gated:
            return expert
        return expert.repeat_interleave(2) if self._form.interleaved else torch.cat((expert, expert))

    def _at(self, routed: Routed) -> tuple[Tensor, Tensor]:
        device = routed.hidden.device
        if self._expert.device != device:
            self._expert, self._within = self._expert.to(device), self._within.to(device)
        return self._expert, self._within


def each_expert(experts: nn.Module, routed: Routed) -> Iterator[RoutedExpert]:
    """Every expert that has a token in this forward, with all of its activations, in order."""
    form, weight = _form_of(experts), experts.get_parameter(_form_of(experts).up)
    bias = experts.get_parameter(f"{form.up}_bias") if form.biased else None
    n_experts = len(weight)
    present = routed.expert.any(0).nonzero().flatten() if routed.is_scaled else routed.expert.unique()
    for expert in present.tolist():
        if expert >= n_experts:  # a slot that is switched off
            continue
        if routed.is_scaled:
            token = routed.expert[:, expert].nonzero().squeeze(-1)
            slot, hidden = torch.full_like(token, expert), routed.hidden[expert, token]
        else:
            token, slot = torch.nonzero(routed.expert == expert, as_tuple=True)
            hidden = routed.hidden[token]
        matrix = weight[expert].T if form.transposed else weight[expert]
        projected = linear(hidden, matrix, None if bias is None else bias[expert])
        yield RoutedExpert(expert, token, slot, _activated(experts, form, projected))


def recompute(experts: nn.Module, routed: Routed, edit: Callable[[Tensor], Tensor]) -> Tensor:
    """The output by its definition, with every activation passed through ``edit``; summed in float32.

    Returns:
        what the module returns: ``[token, d_model]``, or in Llama 4 ``[expert * token, d_model]`` with all in the first expert.
    """
    form, down = _form_of(experts), experts.get_parameter("down_proj")
    bias = experts.get_parameter("down_proj_bias") if form.biased else None
    hidden = routed.hidden[0] if routed.is_scaled else routed.hidden
    output = torch.zeros_like(hidden, dtype=torch.float32)
    for part in each_expert(experts, routed):
        matrix = down[part.expert].T if form.transposed else down[part.expert]
        projected = linear(edit(part.activation), matrix, None if bias is None else bias[part.expert])
        output.index_add_(0, part.token, projected.float() * routed.weight[part.token, part.slot, None].float())
    total = output.to(hidden.dtype)
    return with_added(torch.zeros_like(routed.hidden).flatten(0, 1), routed, total) if routed.is_scaled else total


def summed_output(output: Tensor, routed: Routed) -> Tensor:
    """What a layer's experts returned, ``[token, d_model]``: Llama 4 returns each expert's part and sums outside."""
    return output.view(routed.hidden.shape).sum(0) if routed.is_scaled else output


def with_added(output: Tensor, routed: Routed, change: Tensor) -> Tensor:
    """What a layer's experts returned, with ``change [token, d_model]`` added to it."""
    if not routed.is_scaled:
        return output + change.to(output.dtype)
    changed = output.view(routed.hidden.shape).clone()
    changed[0] += change.to(output.dtype)
    return changed.view(output.shape)


def _rows(form: _Form, within: Tensor, d_expert: int) -> Tensor:
    """Rows of the up projection that make some neurons of an expert."""
    if not form.gated:
        return within
    return torch.stack((2 * within, 2 * within + 1), -1).flatten() if form.interleaved else torch.cat((within, d_expert + within))


def _activated(experts: nn.Module, form: _Form, projected: Tensor) -> Tensor:
    """``act(gate) * up`` as the class computes it (some clamp both), from gate and up projection as they lie."""
    if not form.gated:
        return experts.act_fn(projected)  # type: ignore[operator]
    apply = getattr(experts, "_apply_gate", None)  # of classes that transformers marks, and none of the others
    if apply is not None:
        return apply(projected)
    gate, up = projected.chunk(2, -1)
    return experts.act_fn(gate) * up  # type: ignore[operator]


def _reaches(routed: Routed, expert: Tensor) -> Tensor:
    """Bool ``[token, neuron]``: whether the token is routed to the neuron's expert."""
    return routed.expert[:, expert] if routed.is_scaled else _is_routed(routed, expert).any(-1)


def _weight_at(routed: Routed, expert: Tensor) -> Tensor:
    """Float32 ``[token, neuron]``: the routing weight of the neuron's expert, 0 where the token is not routed to it."""
    if routed.is_scaled:
        return routed.weight[:, expert].float()
    return torch.where(_is_routed(routed, expert), routed.weight.float().unsqueeze(1), 0.0).sum(-1)


def _is_routed(routed: Routed, expert: Tensor) -> Tensor:
    """Bool ``[token, neuron, top_k]``: whether that slot of the token is the neuron's expert."""
    return routed.expert.unsqueeze(1) == expert.view(1, -1, 1)
