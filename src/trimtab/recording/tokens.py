"""Which tokens of a trace are forwarded, and which of them a token scope covers."""

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from trimtab.errors import InputError
from trimtab.model import LanguageModel
from trimtab.moments import TokenScope
from trimtab.traces import Trace


def forwarded(trace: Trace) -> tuple[int, ...]:
    """The input ids of a trace's forward: all but its final token, which generation never forwards either."""
    return (*trace.prompt_ids, *trace.response_ids[:-1])


def n_forwarded(trace: Trace) -> int:
    """How many tokens these are."""
    return len(trace.prompt_ids) + max(len(trace.response_ids) - 1, 0)


def span(trace: Trace, scope: TokenScope) -> tuple[int, int]:
    """Start and end of a scope among the forwarded tokens.

    ``all`` is every position, ``prompt`` those of the question, ``last-prompt`` the last of these, ``response`` those whose input
    token was generated.

    Raises:
        InputError: the trace has no token in the scope.
    """
    prompt, end = len(trace.prompt_ids), n_forwarded(trace)
    spans = {"all": (0, end), "prompt": (0, prompt), "last-prompt": (max(prompt - 1, 0), prompt), "response": (prompt, end)}
    start, stop = spans[scope]
    if stop <= start:
        side = "prompt is empty" if scope in ("prompt", "last-prompt") else "response is too short to record"
        raise InputError(f"trace {trace.id} has no token in the scope {scope!r}; its {side}")
    return start, stop


def prompt_traces(prompts: dict[str, tuple[int, ...]]) -> list[Trace]:
    """Prompts alone, by problem id, as traces that can be recorded."""
    # a trace forwards all but its final token, so a prompt alone is a trace whose response is one token that is never forwarded
    return [Trace(name, name, 0, ids, (0,), "", "stop") for name, ids in prompts.items()]


def right_padded(model: LanguageModel, traces: Sequence[Trace]) -> Tensor:
    """The forwarded ids of a batch, int64 ``[batch, seq]``, which need no attention mask.

    Under causal attention no real position can see the padding at its right.

    Raises:
        InputError: ids outside the vocabulary, or a trace without any token.
    """
    ids = np.full((len(traces), max(map(n_forwarded, traces))), cast("int", model.tokenizer.pad_token_id))
    for row, trace in zip(ids, traces, strict=True):
        tokens = forwarded(trace)
        if not tokens:
            raise InputError(f"trace {trace.id} is empty: it has no prompt and at most one response token; remove it")
        row[: len(tokens)] = tokens
        if row.min() < 0 or row.max() >= model.identity.vocab_size:
            raise InputError(
                f"trace {trace.id} has token ids outside 0..{model.identity.vocab_size - 1}: they are of another tokenizer; "
                "import the text of the traces instead"
            )
    return torch.from_numpy(ids)
