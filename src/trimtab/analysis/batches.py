"""Traces in batches for one teacher-forced pass each, and which of their tokens count."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.model import Attachment, LanguageModel, attach
from trimtab.model.attach import GateOverride
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
