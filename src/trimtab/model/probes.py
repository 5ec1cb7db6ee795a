"""Probes that show, rather than assume, that a hook point is the one that matters."""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trimtab.errors import ModelError

if TYPE_CHECKING:
    from trimtab.model.adapters import FfnLayout

_PROBE_LENGTH = 8


class Probe(NamedTuple):
    """What one layer did under a disturbance of +1 on every activation.

    Args:
        fired: how often the hook ran in one forward; 1 is right.
        activation: the input it saw, ``[..., d_ff]`` in the model's dtype, None when it never ran.
        changes_logits: whether the disturbance reached the logits.
        restores: whether the logits came back bit for bit after the hook was removed.
    """

    fired: int
    activation: Tensor | None
    changes_logits: bool
    restores: bool

    @property
    def width(self) -> int | None:
        return None if self.activation is None else self.activation.shape[-1]

    def faults(self, d_ff: int) -> list[str]:
        """What is wrong, in words; empty when the layer can be steered."""
        if self.fired != 1:
            return [f"the hook fired {self.fired} times in one forward"]
        faults = [] if self.width == d_ff else [f"the activation is {self.width} wide instead of {d_ff}"]
        if not self.changes_logits:
            faults.append("changing the activation does not change the logits")
        if not self.restores:
            faults.append("the logits do not come back bit for bit after the hook is removed")
        return faults


def probe_tokens(model: PreTrainedModel) -> Tensor:
    """A fixed short input, int64 ``[1, 8]``."""
    return torch.arange(1, _PROBE_LENGTH + 1, device=model.device)[None] % model.config.get_text_config().vocab_size


@torch.no_grad()
def probe_logits(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    """Logits ``[1, seq, vocab]`` of one forward without a cache."""
    return model(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits


def probe_layer(model: PreTrainedModel, down: nn.Module, tokens: Tensor, reference: Tensor) -> Probe:
    """Disturb one down projection's input by +1, look at the logits, and take the disturbance away again."""
    seen: list[Tensor] = []

    def disturb(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen.append(args[0].detach())
        return (args[0] + 1, *args[1:])

    handle = down.register_forward_pre_hook(disturb)
    try:
        disturbed = probe_logits(model, tokens)
    finally:
        handle.remove()
    restored = probe_logits(model, tokens)
    return Probe(
        fired=len(seen),
        activation=seen[0] if seen else None,
        changes_logits=not torch.equal(disturbed, reference),
        restores=torch.equal(restored, reference),
    )


def prove(model: PreTrainedModel, layout: "FfnLayout") -> None:
    """Raise ModelError unless every down projection of the layout fires once, is d_ff wide, moves the logits and restores.

    Costs two forwards of eight tokens a layer.
    """
    if model.training:
        raise ModelError(
            f"model type {layout.family!r} is not in the table, so its layout has to be proved, and dropout would hide the "
            "effect: call model.eval() first, or give the layout found in eval mode"
        )
    tokens = probe_tokens(model)
    reference = probe_logits(model, tokens)
    problems = [
        f"layer {layer}: {'; '.join(faults)}"
        for layer, down in enumerate(layout.down)
        if (faults := probe_layer(model, down, tokens, reference).faults(layout.d_ff))
    ]
    if problems:
        raise ModelError(
            f"the FFN layout of model type {layout.family!r} (found by {layout.found_by}) fails its probes:\n  "
            + "\n  ".join(problems)
            + "\nThis architecture cannot be steered as it is; fused MLP kernels and tensor parallelism have to be switched off"
        )
