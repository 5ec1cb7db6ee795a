"""Vocabulary projection: which tokens a neuron promotes and demotes by what it writes into the residual stream.

``logits = unembedding @ final_norm(W_down[:, index])`` per unit of activation, with the norm's scale and, for a LayerNorm,
without the mean; where the architecture normalises the FFN's output first, through that norm too.

This is the direct path: exact for the last layer's neurons up to the norms' positive factors and for as long as those stay what
they are; for an earlier layer it leaves out what later layers make of the neuron. A cap on the logits (Gemma 2) is
monotone: it changes no sign and no order of the logits, and is left out. A mixture's router weighs an expert by a positive
factor.
"""

from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedTokenizerBase

from trimtab.analysis.layers import in_words
from trimtab.analysis.norms import NormMap, find_norms
from trimtab.errors import InputError, ModelError
from trimtab.model import LanguageModel, down_weights
from trimtab.neurons import check_addresses

TOP = 10
# rows of the unembedding that are brought to float32 at a time
ROWS = 16_384


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
    """What one neuron writes; a negative activation promotes what is ``demoted`` here."""

    layer: int
    index: int
    address: str
    promoted: tuple[TokenPush, ...]
    demoted: tuple[TokenPush, ...]


@dataclass(frozen=True, slots=True)
class VocabularyProjection:
    """The projection of several neurons, with what it passed through.

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
    spread = logits.std(axis=1, keepdims=True)
    z = np.divide(logits - logits.mean(axis=1, keepdims=True), spread, out=np.zeros_like(logits), where=spread > 0)
    neurons = []
    for row in range(len(layer)):
        order = np.argsort(-logits[row], kind="stable")
        sides = (order[:top], order[::-1][:top])
        promoted, demoted = (
            tuple(TokenPush(i, _text(model.tokenizer, i), float(logits[row, i]), float(z[row, i])) for i in side.tolist())
            for side in sides
        )
        at = int(layer[row]), int(index[row])
        neurons.append(NeuronVocabulary(*at, in_words(model.identity, *at), promoted, demoted))
    return VocabularyProjection(
        tuple(neurons),
        logits.shape[1],
        None if norms.final is None else "layer" if norms.final.centred else "rms",
        any(one in norms.after_ffn for one in np.unique(layer).tolist()),
        getattr(model.hf_model.config.get_text_config(), "final_logit_softcapping", None),  # absent where there is none
    )


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


def _text(tokenizer: PreTrainedTokenizerBase, token_id: int) -> str:
    """The token as text, or its own spelling where it is a part of a character only."""
    text = str(tokenizer.decode([token_id]))
    return str(tokenizer.convert_ids_to_tokens(token_id)) if "\ufffd" in text or not text else text
