"""One forward, recorded: masked sums per trace and token scope, straight from hooks on the down projections.

Nothing per token is kept. A batch is right-padded and runs without an attention mask: under causal attention no real position can
see the padding, and the sums leave it out.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trimtab.errors import InputError
from trimtab.model import OpenModel
from trimtab.moments import MOMENTS, Moments, TokenScope
from trimtab.traces import Trace


@torch.inference_mode()
def record_batch(
    opened: OpenModel, traces: Sequence[Trace], scopes: Sequence[TokenScope], moments: Sequence[str]
) -> dict[TokenScope, Moments]:
    """Moments of each trace over the tokens of each scope.

    ``all`` is every forwarded position, ``response`` those whose input token was generated, ``last-prompt`` the last token of the
    question. The final token of a response is never forwarded during generation, so it is not forwarded here either.

    Args:
        traces: one batch.
        scopes: token scopes to sum over, each from the same forward.
        moments: of ``sum``, ``magnitude``, ``square``.

    Raises:
        InputError: a trace without a token in a scope, ids outside the vocabulary, or activations that are not finite.
    """
    ids, weights = _collate(opened, traces, scopes)
    sums = _Sums(weights.to(opened.device), moments, opened.n_layers)
    with ExitStack() as hooks:
        for layer, module in enumerate(opened.layout.down):
            hooks.callback(module.register_forward_pre_hook(sums.hook(layer)).remove)
        opened.layout.base(input_ids=ids.to(opened.device), use_cache=False)
    arrays = sums.collect()
    _refuse_not_finite(arrays, traces)
    counts = weights.sum(-1).to(torch.int64).numpy()
    return {
        scope: Moments(counts[:, i], **{name: np.ascontiguousarray(array[:, i]) for name, array in arrays.items()})
        for i, scope in enumerate(scopes)
    }


class _Sums:
    """Collects ``weights @ a`` for each layer: float32 ``[batch, scope, d_ff]`` per moment."""

    def __init__(self, weights: Tensor, moments: Sequence[str], n_layers: int) -> None:
        unknown = set(moments) - set(MOMENTS)
        if unknown or not moments:
            raise InputError(f"unknown moments {sorted(unknown)}; accepted: {', '.join(MOMENTS)}")
        self._weights = weights
        self._layers: dict[str, list[Tensor | None]] = {name: [None] * n_layers for name in moments}

    def hook(self, layer: int):
        def accumulate(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:  # noqa: ARG001
            activation = inputs[0].float()
            weights = self._weights.to(activation.device)
            for name, layers in self._layers.items():
                layers[layer] = torch.bmm(weights, _POWERS[name](activation))

        return accumulate

    def collect(self) -> dict[str, NDArray[np.float32]]:
        """Float32 ``[batch, scope, layer, d_ff]`` per moment."""
        return {name: torch.stack([t.cpu() for t in layers if t is not None], 2).numpy() for name, layers in self._layers.items()}


_POWERS = {"sum": lambda a: a, "magnitude": torch.abs, "square": torch.square}


def _collate(opened: OpenModel, traces: Sequence[Trace], scopes: Sequence[TokenScope]) -> tuple[Tensor, Tensor]:
    """Right-padded ids ``[batch, seq]`` and 0/1 weights ``[batch, scope, seq]``."""
    rows = [(*trace.prompt_ids, *trace.response_ids[:-1]) for trace in traces]
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), cast("int", opened.tokenizer.pad_token_id))
    weights = torch.zeros(len(rows), len(scopes), width)
    for row, (trace, tokens) in enumerate(zip(traces, rows, strict=True)):
        _check_ids(opened, trace, tokens)
        ids[row, : len(tokens)] = torch.tensor(tokens)
        prompt = len(trace.prompt_ids)
        spans = {"all": (0, len(tokens)), "response": (prompt, len(tokens)), "last-prompt": (max(prompt - 1, 0), prompt)}
        for i, scope in enumerate(scopes):
            start, end = spans[scope]
            if end <= start:
                raise InputError(f"trace {trace.id} has no token in the scope {scope!r}; its response is too short to record")
            weights[row, i, start:end] = 1.0
    return ids, weights


def _check_ids(opened: OpenModel, trace: Trace, tokens: Sequence[int]) -> None:
    if not tokens or min(tokens) < 0 or max(tokens) >= opened.identity.vocab_size:
        raise InputError(
            f"trace {trace.id} has token ids outside 0..{opened.identity.vocab_size - 1}: they are of another tokenizer; "
            "import the text of the traces instead"
        )


def _refuse_not_finite(arrays: dict[str, NDArray[np.float32]], traces: Sequence[Trace]) -> None:
    for array in arrays.values():
        broken = ~np.isfinite(array).all(axis=(1, 3))
        if broken.any():
            row, layer = (int(i) for i in np.argwhere(broken)[0])
            raise InputError(
                f"trace {traces[row].id} has activations that are NaN or infinite, first in layer {layer}; "
                "record in dtype float32 or bfloat16, or remove the trace"
            )
