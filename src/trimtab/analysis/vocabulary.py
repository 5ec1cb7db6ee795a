"""Vocabulary projection: which tokens a neuron promotes and demotes by what it writes into the residual stream.

``logits = unembedding @ final_norm(W_down[:, index])`` per unit of activation, with the norm's scale and, for a LayerNorm,
without the mean; where the architecture normalises the FFN's output first, through that norm too.

This is the direct path: exact for the last layer's neurons up to the norms' positive factors and for as long as those stay what
they are; for an earlier layer it leaves out what later layers make of the neuron. A cap on the logits (Gemma 2) is
monotone: it changes no sign and no order of the logits, and is left out. A mixture's router weighs an expert by a positive
factor.

The norms are measured rather than read from a table of architectures. Whether a norm multiplies by its weight (Llama, Qwen) or
by 1 + weight (Gemma), and whether it takes the mean away first (LayerNorm: GPT-2, GPT-NeoX) or not (RMSNorm), differs by
architecture, and the name of the weight does not say. A norm maps x to ``s(x) * scale * (x - centred * mean(x)) + bias`` with a
positive s(x), so three inputs measure it and a fourth proves it.
"""

import copy
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from trimtab.analysis.sets import in_words
from trimtab.errors import InputError, ModelError
from trimtab.model import LanguageModel, down_weights
from trimtab.model.hook_points import decoder_blocks, residual
from trimtab.model.probes import probe_tokens
from trimtab.neurons import check_addresses

TOP = 10
# rows of the unembedding that are brought to float32 at a time
ROWS = 16_384


@dataclass(frozen=True, slots=True, eq=False)
class NormMap:
    """``scale * (x - mean(x))``, or without the mean; up to a positive factor, the norm's own.

    Args:
        scale: float64 ``[d_model]``.
        centred: whether the mean is taken away.
        bias: float64 ``[d_model]``, what the norm gives for 0.
    """

    scale: NDArray[np.float64]
    centred: bool
    bias: NDArray[np.float64]

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
    last = decoder_blocks(model.layout)[-1]
    hooks = [last.register_forward_hook(lambda block, given, output: streams.append(residual(output)))]  # noqa: ARG005
    try:
        for module in model.layout.base.modules():
            if not any(module.children()):
                hooks.append(module.register_forward_hook(_note(calls, model.identity.d_model)))
        for layer, _, module in model.layout.places:
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
    mapped = NormMap(scale.double().numpy(), centred, zero.double().numpy())
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


class TokenPush(NamedTuple):
    """A token and how hard an activation of +1 pushes it.

    Args:
        logit: up to the norms' positive factor, so comparable within a neuron only.
        z: the logit's distance from its mean over the vocabulary, in standard deviations.
    """

    id: int
    token: str
    logit: float
    z: float


@dataclass(frozen=True, slots=True)
class NeuronVocabulary:
    """The tokens that one neuron promotes and demotes; a negative activation swaps the two."""

    layer: int
    index: int
    address: str
    promoted: tuple[TokenPush, ...]
    demoted: tuple[TokenPush, ...]


@dataclass(frozen=True, slots=True)
class VocabularyProjection:
    """The projection of several neurons, and the norms that it passed through.

    Args:
        tokens: how many tokens were compared: those of the tokenizer, without the unembedding's padding rows.
        final_norm: ``rms`` or ``layer`` (which takes the mean away), or None for no norm.
        norm_after_ffn: whether the FFN's output is normalised before it joins the residual stream.
        soft_cap: of the logits, left out because it is monotone; None where the model has none.
    """

    neurons: tuple[NeuronVocabulary, ...]
    tokens: int
    final_norm: str | None
    norm_after_ffn: bool
    soft_cap: float | None

    def to_json(self) -> dict[str, object]:
        """A dictionary of plain numbers, lists and dictionaries."""
        data = asdict(self)
        for neuron in data["neurons"]:
            for side in ("promoted", "demoted"):
                neuron[side] = [push._asdict() for push in neuron[side]]
        return data


def project_vocabulary(
    model: LanguageModel, layer: NDArray[np.int64], index: NDArray[np.int64], *, top: int = TOP
) -> VocabularyProjection:
    """The tokens that each neuron promotes and demotes most.

    Args:
        layer, index: int64 ``[neuron]``.
        top: tokens of each sign.

    Raises:
        InputError: an address outside the model, or a top that is not positive.
        ModelError: quantised weights, or an architecture whose norms are not understood.
    """
    check_addresses(layer, index, model.identity)
    if top < 1 or not len(layer):
        raise InputError(f"a projection needs one neuron and one token or more, got {len(layer)} neurons and top {top}")
    norms = find_norms(model)
    directions = _written(model, layer, index, norms.after_ffn)
    if norms.final is not None:
        directions = norms.final.apply(directions)
    logits = _unembed(model, directions)
    neurons = []
    for row, (promoted, demoted) in enumerate(_sides(model, logits, top)):
        at = int(layer[row]), int(index[row])
        neurons.append(NeuronVocabulary(*at, in_words(model.identity, *at), promoted, demoted))
    return VocabularyProjection(
        tuple(neurons),
        logits.shape[1],
        None if norms.final is None else "layer" if norms.final.centred else "rms",
        any(one in norms.after_ffn for one in np.unique(layer).tolist()),
        getattr(model.hf_model.config.get_text_config(), "final_logit_softcapping", None),  # absent where there is none
    )


def project_directions(
    model: LanguageModel, vectors: NDArray[np.float32], *, top: int = TOP
) -> list[tuple[tuple[TokenPush, ...], tuple[TokenPush, ...]]]:
    """The tokens that each direction of the residual stream promotes and demotes most, through the final norm.

    Args:
        vectors: float32 ``[direction, d_model]``.
        top: tokens of each sign.

    Raises:
        ModelError: as of :func:`project_vocabulary`.
    """
    norms, written = find_norms(model), vectors.astype(np.float64)
    return _sides(model, _unembed(model, written if norms.final is None else norms.final.apply(written)), top)


def _sides(
    model: LanguageModel, logits: NDArray[np.float64], top: int
) -> list[tuple[tuple[TokenPush, ...], tuple[TokenPush, ...]]]:
    """The tokens of the largest and of the smallest logits of each row, ``[row, token]``."""
    spread = logits.std(axis=1, keepdims=True)
    z = np.divide(logits - logits.mean(axis=1, keepdims=True), spread, out=np.zeros_like(logits), where=spread > 0)
    found = []
    for row in range(len(logits)):
        order = np.argsort(-logits[row], kind="stable")
        promoted, demoted = (
            tuple(TokenPush(i, token_text(model.tokenizer, i), float(logits[row, i]), float(z[row, i])) for i in side.tolist())
            for side in (order[:top], order[::-1][:top])
        )
        found.append((promoted, demoted))
    return found


def _written(
    model: LanguageModel, layer: NDArray[np.int64], index: NDArray[np.int64], after_ffn: dict[int, NormMap]
) -> NDArray[np.float64]:
    """What a unit of each neuron adds to the residual stream, up to a positive factor, ``[neuron, d_model]``."""
    directions = np.empty((len(layer), model.identity.d_model))
    for one in np.unique(layer).tolist():
        here = np.flatnonzero(layer == one)
        columns = down_weights(model, [one])[one][:, index[here]].T.astype(np.float64)
        directions[here] = after_ffn[one].apply(columns) if one in after_ffn else columns
    return directions


@torch.inference_mode()
def _unembed(model: LanguageModel, directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """``[neuron, token]`` of ``[neuron, d_model]``, over the tokens of the tokenizer."""
    head = model.hf_model.get_output_embeddings()
    weight = head.weight if type(head) is nn.Linear else None
    if weight is None or weight.shape[1] != model.identity.d_model or weight.is_meta:
        raise ModelError(
            f"the unembedding of {model.identity.name} is a {type(head).__name__} that cannot be read as a matrix "
            f"[vocab, {model.identity.d_model}]; open the model without quantisation, on one device"
        )
    known = min(len(model.tokenizer), weight.shape[0])
    written = torch.from_numpy(directions).float().to(weight.device)
    logits = [(weight[start : min(start + ROWS, known)].float() @ written.T).cpu() for start in range(0, known, ROWS)]
    return torch.cat(logits).T.double().numpy()


def token_text(tokenizer: PreTrainedTokenizerBase, token_id: int) -> str:
    """The token as text, or its own spelling where it is a part of a character only."""
    text = str(tokenizer.decode([token_id]))
    return str(tokenizer.convert_ids_to_tokens(token_id)) if "\ufffd" in text or not text else text
