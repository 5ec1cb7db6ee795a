"""Building blocks of a teacher-forced pass over traces: batches, the decoder blocks, and logits a few tokens at a
time, so that no tensor ``[batch, seq, vocab]`` is ever whole."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trimtab.errors import InputError, ModelError, NotEnoughDataError
from trimtab.model import Attachment, LanguageModel, attach
from trimtab.model.attach import GateOverride
from trimtab.model.probes import probe_logits, probe_tokens
from trimtab.recording.tokens import forwarded
from trimtab.steering import Steering
from trimtab.store import make_plan
from trimtab.traces import Trace

BATCH_TOKENS = 8_192


class Responses(NamedTuple):
    """Traces with a response token that is forwarded, and how many have none and were left out."""

    traces: list[Trace]
    left_out: int


def with_response(traces: Sequence[Trace]) -> Responses:
    """Keep the traces of two response tokens or more: the last one is never forwarded, so it has no activation.

    Raises:
        NotEnoughDataError: no trace is left.
    """
    kept = [trace for trace in traces if len(trace.response_ids) > 1]
    if not kept:
        raise NotEnoughDataError(f"none of {len(traces)} traces has two response tokens; give traces that the model generated")
    return Responses(kept, len(traces) - len(kept))


def batches(model: LanguageModel, traces: Sequence[Trace], batch_tokens: int) -> list[list[Trace]]:
    """Length-sorted batches of at most ``batch_tokens`` tokens, padding included.

    Raises:
        InputError: two traces of one id, or a trace longer than the model's context.
    """
    lengths = [len(forwarded(trace)) for trace in traces]
    limit = getattr(model.hf_model.config.get_text_config(), "max_position_embeddings", None)  # not every architecture has one
    if limit is not None and max(lengths, default=0) > limit:
        longest = traces[lengths.index(max(lengths))]
        raise InputError(f"trace {longest.id} has {max(lengths)} tokens, but the model's context is {limit}; give shorter traces")
    by_id = {trace.id: trace for trace in traces}
    plan = make_plan([trace.id for trace in traces], lengths, batch_tokens, {})
    return [[by_id[trace_id] for trace_id in part] for part in plan.parts]


def response_mask(traces: Sequence[Trace], width: int) -> Tensor:
    """Bool ``[batch, seq]``: the positions whose input token was generated."""
    position = torch.arange(width)
    start = torch.tensor([len(trace.prompt_ids) for trace in traces])[:, None]
    stop = torch.tensor([len(forwarded(trace)) for trace in traces])[:, None]
    return (position >= start) & (position < stop)


def steered_pass(
    model: LanguageModel, batch: Sequence[Trace], steering: Steering, gate: GateOverride, strength: Tensor | None = None
) -> Attachment:
    """An attachment for one teacher-forced pass of a batch, which steers where a generation would have been steered.

    Args:
        strength: float32 ``[batch]``, each row's own; the steering's when None.
    """
    return attach(
        model.hf_model,
        steering,
        strength=strength,
        gate=gate,
        prompt_lengths=[len(trace.prompt_ids) for trace in batch],
        layout=model.layout,
        identity=model.identity,
    )


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
            f"{readout.cap}: they differ by {difference:.3g}; add this architecture to trimtab.analysis.passes"
        )
    return readout
