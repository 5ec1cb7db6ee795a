"""The norms that a neuron's output passes on its way to the logits, measured rather than read from a table of architectures.

Whether a norm multiplies by its weight (Llama, Qwen) or by 1 + weight (Gemma), and whether it takes the mean away first
(LayerNorm: GPT-2, GPT-NeoX) or not (RMSNorm), differs by architecture, and the name of the weight does not say. A norm maps x to
``s(x) * scale * (x - centred * mean(x)) + bias`` with a positive s(x), so three inputs measure it and a fourth proves it.
"""

import copy
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trimtab.analysis.blocks import decoder_blocks, residual
from trimtab.errors import ModelError
from trimtab.model import LanguageModel
from trimtab.model.probes import probe_tokens


@dataclass(frozen=True, slots=True, eq=False)
class NormMap:
    """``scale * (x - mean(x))``, or without the mean; up to a positive factor, the norm's own.

    Args:
        scale: float64 ``[d_model]``.
        centred: whether the mean is taken away.
    """

    scale: NDArray[np.float64]
    centred: bool

    def apply(self, directions: NDArray[np.float64]) -> NDArray[np.float64]:
        """``[..., d_model]``."""
        return self.scale * (directions - directions.mean(-1, keepdims=True) if self.centred else directions)


class Norms(NamedTuple):
    """The norm before the unembedding, and those between a layer's FFN and the residual stream; None and absent for none."""

    final: NormMap | None
    after_ffn: dict[int, NormMap]


class _Call(NamedTuple):
    """A leaf module that changed a ``[batch, seq, d_model]`` tensor in the probe."""

    module: nn.Module
    given: Tensor
    returned: Tensor


@torch.inference_mode()
def find_norms(model: LanguageModel) -> Norms:
    """Find and measure the norms in one short forward.

    The final norm is the module that returns the decoder stack's output; a norm after the FFN (Gemma 2 and 3, OLMo 2) is one that
    is given the output of a down projection, or of a layer's experts.

    Raises:
        ModelError: such a module is not a norm, its weights are offloaded, or something else stands before the head.
    """
    calls: list[_Call] = []
    outputs: dict[int, Tensor] = {}
    streams: list[Tensor] = []
    hooks = [decoder_blocks(model)[-1].register_forward_hook(lambda block, given, output: streams.append(residual(output)))]  # noqa: ARG005
    try:
        for module in model.layout.base.modules():
            if not any(module.children()):
                hooks.append(module.register_forward_hook(_note(calls, model.identity.d_model)))
        for layer, module in enumerate(model.layout.modules):
            hooks.append(module.register_forward_hook(_keep(outputs, layer)))
        tokens = probe_tokens(model.hf_model)
        last = model.layout.base(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False).last_hidden_state
    finally:
        for hook in hooks:
            hook.remove()
    width = model.identity.d_model
    final = next((call.module for call in reversed(calls) if torch.equal(call.returned, last)), None)
    if final is None and not torch.equal(streams[0], last):
        raise ModelError(
            f"something between the last block and the head of {model.identity.name} is no norm that is known here; the "
            "vocabulary projection does not know this architecture"
        )
    after = {}
    for layer, output in outputs.items():
        norm = next((call.module for call in calls if _same(call.given, output)), None)
        if norm is not None:
            after[layer] = measure_norm(norm, width)
    return Norms(None if final is None else measure_norm(final, width), after)


def measure_norm(module: nn.Module, d_model: int) -> NormMap:
    """Measure a norm in float32 on the CPU.

    Raises:
        ModelError: the module does something else, or its weights are offloaded.
    """
    if any(parameter.is_meta for parameter in module.parameters()):
        raise ModelError(f"the weights of a {type(module).__name__} are offloaded; open the model on one device")
    norm = copy.deepcopy(module).to("cpu", torch.float32)
    # zero mean and no zero, so that LayerNorm and RMSNorm give the same and a quotient exists everywhere
    signs = torch.where(torch.arange(d_model) % 2 == 0, 1.0, -1.0)
    signs[1] -= signs.sum()
    other = torch.rand(d_model, generator=torch.Generator().manual_seed(0)) * 3 - 1
    with torch.inference_mode():
        zero, at_signs, shifted, at_other = norm(torch.stack([torch.zeros(d_model), signs, signs + 1, other]))
    centred = torch.allclose(at_signs, shifted, rtol=1e-3, atol=1e-5)
    scale = (at_signs - zero) / signs
    mapped = NormMap(scale.double().numpy(), centred)
    expected, actual = mapped.apply(other.double().numpy()), (at_other - zero).double().numpy()
    size = float(expected @ expected)
    factor = float(expected @ actual) / size if size else 1.0
    if factor <= 0 or not np.allclose(actual, factor * expected, rtol=1e-3, atol=1e-4 * np.abs(actual).max()):
        raise ModelError(
            f"a {type(module).__name__} stands where a norm was expected, and is none; the vocabulary projection does not know "
            "this architecture"
        )
    return mapped


def _same(given: Tensor, output: Tensor) -> bool:
    """Whether two tensors hold the same values in the same order; some blocks flatten batch and seq."""
    return given.numel() == output.numel() and torch.equal(given.reshape(output.shape), output)


def _note(calls: list[_Call], d_model: int):
    def note(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        given = inputs[0] if inputs else None
        if not isinstance(given, Tensor) or not isinstance(output, Tensor) or output.shape != given.shape:
            return
        # dropout hands on what it is given, in eval mode
        if output.shape[-1] == d_model and not torch.equal(given, output):
            calls.append(_Call(module, given, output))

    return note


def _keep(outputs: dict[int, Tensor], layer: int):
    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ARG001
        outputs[layer] = output

    return keep
