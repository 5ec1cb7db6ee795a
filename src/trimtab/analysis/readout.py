"""From the decoder stack's output to logits, a few tokens at a time: no tensor ``[batch, seq, vocab]`` is ever whole."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trimtab.errors import ModelError
from trimtab.model import LanguageModel
from trimtab.model.probes import probe_logits, probe_tokens

# bounds the logits of one chunk, in array elements
CHUNK = 2**25


@dataclass(frozen=True, slots=True, eq=False)
class Readout:
    """``logits = cap * tanh(scale * head(hidden) / cap)``, without the cap where the model has none.

    Args:
        head: the unembedding, tied to the embeddings or not.
        scale: a positive factor (Cohere multiplies by one, Granite divides).
        cap: of Gemma 2; the cap is monotone, so it changes no order of logits.
    """

    head: nn.Module
    scale: float
    cap: float | None
    vocabulary: int

    def logits(self, hidden: Tensor) -> Tensor:
        """Float32 ``[..., vocab]`` of ``[..., d_model]``."""
        logits = self.head(hidden) * self.scale
        if self.cap is not None:
            logits = torch.tanh(logits / self.cap) * self.cap
        return logits.float()

    def chunks(self, n: int) -> Iterator[slice]:
        """Slices of n tokens, each few enough for :data:`CHUNK`."""
        size = max(1, CHUNK // self.vocabulary)
        return (slice(start, min(start + size, n)) for start in range(0, n, size))


@torch.inference_mode()
def find_readout(model: LanguageModel) -> Readout:
    """The readout of a model, shown to give the model's own logits on a short input.

    Raises:
        ModelError: no language-model head, or other logits than the model's.
    """
    config = model.hf_model.config.get_text_config()
    head = model.hf_model.get_output_embeddings()
    if not isinstance(head, nn.Module):
        raise ModelError(f"{model.identity.name} has no language-model head; open it with AutoModelForCausalLM")
    # these are the names that transformers' configurations use, absent where a model has no such thing
    multiplied, divided = getattr(config, "logit_scale", None), getattr(config, "logits_scaling", None)
    scale = float(1.0 if multiplied is None else multiplied) / float(1.0 if divided is None else divided)
    tokens = probe_tokens(model.hf_model)
    expected = probe_logits(model.hf_model, tokens).float()
    readout = Readout(head, scale, getattr(config, "final_logit_softcapping", None), expected.shape[-1])
    hidden = model.layout.base(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False).last_hidden_state
    difference = float((readout.logits(hidden) - expected).abs().max())
    if scale <= 0 or not difference <= (1e-4 if model.hf_model.dtype == torch.float32 else 2e-2) * float(expected.abs().max()):
        raise ModelError(
            f"the logits of {model.identity.name} are not its head on the last hidden state, scaled by {scale:g} and capped at "
            f"{readout.cap}: they differ by {difference:.3g}; add this architecture to trimtab.analysis.readout"
        )
    return readout
