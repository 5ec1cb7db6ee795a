"""Probes that show, rather than assume, that a hook point is the one that matters."""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trimtab.errors import ModelError
from trimtab.model.experts import (
    ExpertNeurons,
    Routed,
    each_expert,
    experts_shape,
    read_routing,
    recompute,
    summed_output,
)

if TYPE_CHECKING:
    from trimtab.model.adapters import FfnLayout

_PROBE_LENGTH = 8
_CAUSALITY_LIMIT = 1e-2
"""Rounding of experts that another token joins stays below it."""
_MISMATCH_LIMIT = 0.05
"""Rounding in bfloat16 stays below it; gate and up projection exchanged, or another order of experts, exceeds it by far."""


class Probe(NamedTuple):
    """The response of one layer to a disturbance of +1 on every activation.

    Args:
        fired: how often the hook ran in one forward; 1 is right.
        width: of the input it saw, of all experts side by side; None when it never ran.
        activation: that input in the model's dtype, of experts the routed part only; None likewise.
        changes_logits: whether the disturbance reached the logits.
        restores: whether the logits came back bit for bit after the hook was removed.
        mismatch: of experts, the relative difference between their output and what the activations make of it; else 0.
    """

    fired: int
    width: int | None
    activation: Tensor | None
    changes_logits: bool
    restores: bool
    mismatch: float = 0.0

    def faults(self, expected: int) -> list[str]:
        """What is wrong, in words; empty when the layer can be steered."""
        if self.fired != 1:
            return [f"the hook fired {self.fired} times in one forward"]
        faults = [] if self.width == expected else [f"the activation is {self.width} wide instead of {expected}"]
        if self.mismatch > _MISMATCH_LIMIT:
            faults.append(f"the experts' output is not what their activations give: it differs by {self.mismatch:.1%}")
        if not self.changes_logits:
            faults.append("changing the activation does not change the logits")
        if not self.restores:
            faults.append("the logits do not come back bit for bit after the hook is removed")
        return faults


def input_device(model: PreTrainedModel) -> torch.device:
    """Where a model's inputs go: its first device, or the CPU for one that is on disk, which moves them as it runs."""
    return torch.device("cpu") if model.device.type == "meta" else model.device


def probe_tokens(model: PreTrainedModel) -> Tensor:
    """A fixed short input, int64 ``[1, 8]``."""
    return torch.arange(1, _PROBE_LENGTH + 1, device=input_device(model))[None] % model.config.get_text_config().vocab_size


@torch.no_grad()
def probe_logits(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    """Logits ``[1, seq, vocab]`` of one forward without a cache."""
    return model(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits


def probe_layer(model: PreTrainedModel, layout: "FfnLayout", layer: int, tokens: Tensor, reference: Tensor) -> Probe:
    """Disturb the input of one layer's down projection by +1, look at the logits, and take the disturbance away again."""
    ffn = layout.layers[layer]
    assert ffn.module is not None
    seen: list[_Seen] = []

    def disturb(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen.append(_Seen(args[0].shape[-1], args[0].detach()))
        return (args[0] + 1, *args[1:])

    def disturb_experts(experts: nn.Module, args: tuple[object, ...], output: Tensor) -> Tensor:
        routed = read_routing(experts, args)
        activation = torch.cat([part.activation for part in each_expert(experts, routed)])
        defined, given = (summed_output(each, routed).float() for each in (recompute(experts, routed, lambda a: a), output))
        mismatch = torch.linalg.norm(defined - given) / torch.linalg.norm(given)
        shape = experts_shape(experts)
        seen.append(_Seen(shape.n_experts * shape.d_expert, activation, max(mismatch.item(), _misread(experts, routed))))
        return recompute(experts, routed, lambda a: a + 1)

    module = ffn.module
    handle = module.register_forward_hook(disturb_experts) if ffn.sparse else module.register_forward_pre_hook(disturb)
    try:
        disturbed = probe_logits(model, tokens)
    finally:
        handle.remove()
    restored = probe_logits(model, tokens)
    first = seen[0] if seen else _Seen(None, None)
    return Probe(
        fired=len(seen),
        width=first.width,
        activation=first.activation,
        changes_logits=not torch.equal(disturbed, reference),
        restores=torch.equal(restored, reference),
        mismatch=first.mismatch,
    )


def _misread(experts: nn.Module, routed: Routed) -> float:
    """How far some neurons of an expert, read one by one, are from the same neurons among all of it."""
    part, d_expert = next(each_expert(experts, routed)), experts_shape(experts).d_expert
    within = torch.tensor(sorted({0, d_expert // 2, d_expert - 1}), device=part.activation.device)
    try:
        read = ExpertNeurons(experts, part.expert * d_expert + within).read(routed)
    except ModelError:
        return float("inf")
    return relative_difference(read[part.token], part.activation[:, within])


def relative_difference(one: Tensor, other: Tensor) -> float:
    """``norm(one - other) / norm(other)``; infinite where one of two is zero everywhere."""
    difference, size = torch.linalg.norm((one - other).float()).item(), torch.linalg.norm(other.float()).item()
    return 0.0 if difference == 0 else difference / size if size else float("inf")


def causality_fault(model: PreTrainedModel) -> str | None:
    """A sentence where a token changes the logits before it; None for a causal model."""
    tokens = probe_tokens(model)
    changed = tokens.clone()
    changed[:, -1] = (changed[:, -1] + 1) % model.config.get_text_config().vocab_size
    before, after = (probe_logits(model, ids)[:, :-1] for ids in (tokens, changed))
    if relative_difference(after, before) <= _CAUSALITY_LIMIT:
        return None
    return "the model is not causal (a token changes the logits of the tokens before it), so it generates no response"


class _Seen(NamedTuple):
    """What a probe's hook saw; see :class:`Probe`."""

    width: int | None
    activation: Tensor | None
    mismatch: float = 0.0


def prove(model: PreTrainedModel, layout: "FfnLayout") -> None:
    """Raise ModelError unless the neurons of every layer are found once, are as wide as it says, move the logits and restore.

    Costs two forwards of eight tokens a layer. A model that is not causal is refused as well.
    """
    if model.training:
        raise ModelError(
            f"model type {layout.family!r} is not in the table, so its layout has to be proved, and dropout would hide the "
            "effect: call model.eval() first, or give the layout found in eval mode"
        )
    tokens = probe_tokens(model)
    reference = probe_logits(model, tokens)
    if fault := causality_fault(model):
        raise ModelError(f"model type {layout.family!r} cannot be steered: {fault}")
    problems = [
        f"layer {layer}: {'; '.join(faults)}"
        for layer, ffn, _ in layout.places
        if (faults := probe_layer(model, layout, layer, tokens, reference).faults(ffn.width))
    ]
    if problems:
        raise ModelError(
            f"the FFN layout of model type {layout.family!r} (found by {layout.found_by}) fails its probes:\n  "
            + "\n  ".join(problems)
            + "\nThis architecture cannot be steered as it is; fused MLP kernels and tensor parallelism have to be switched off"
        )
