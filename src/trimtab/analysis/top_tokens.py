"""At which tokens of the traces a neuron is most active, of either sign, with the words around them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trimtab.analysis.batches import BATCH_TOKENS, batches, with_response
from trimtab.analysis.layers import in_words
from trimtab.errors import InputError
from trimtab.model import LanguageModel
from trimtab.recording import batch_features
from trimtab.recording.tokens import span
from trimtab.traces import Trace

TOP = 10
CONTEXT = 8


class TokenHit(NamedTuple):
    """One token at which a neuron stands out.

    Args:
        position: among the trace's tokens, prompt included.
        before, token, after: text; the token is the input at which the activation was read.
    """

    trace_id: str
    position: int
    value: float
    before: str
    token: str
    after: str


@dataclass(frozen=True, slots=True)
class NeuronTokens:
    """The tokens with the highest and with the lowest activation of one neuron, most extreme first."""

    layer: int
    index: int
    address: str
    highest: tuple[TokenHit, ...]
    lowest: tuple[TokenHit, ...]


@dataclass(frozen=True, slots=True)
class TopTokens:
    """The top-activating tokens of several neurons.

    Args:
        n_traces, n_tokens: how many were searched.
        left_out: traces without a forwarded response token.
    """

    neurons: tuple[NeuronTokens, ...]
    n_traces: int
    n_tokens: int
    left_out: int

    def to_json(self) -> dict[str, object]:
        """A dictionary of plain numbers, lists and dictionaries."""
        data = asdict(self)
        for neuron in data["neurons"]:
            for side in ("highest", "lowest"):
                neuron[side] = [hit._asdict() for hit in neuron[side]]
        return data


def top_tokens(
    model: LanguageModel,
    traces: Sequence[Trace],
    layer: NDArray[np.int64],
    index: NDArray[np.int64],
    *,
    top: int = TOP,
    context: int = CONTEXT,
    batch_tokens: int = BATCH_TOKENS,
) -> TopTokens:
    """Search the response tokens of traces, in one pass that keeps the best of each neuron only.

    Equal activations go to the trace that comes first, and within it to the first token.

    Args:
        layer, index: int64 ``[neuron]``.
        top: tokens of each sign.
        context: tokens shown on either side.

    Raises:
        InputError: an address outside the model, a top that is not positive, or ids outside the vocabulary.
        NotEnoughDataError: no trace has two response tokens.
    """
    if top < 1 or context < 0:
        raise InputError(f"need top of at least 1 and a context of at least 0, got {top} and {context}")
    kept, left_out = with_response(traces)
    number = {trace.id: i for i, trace in enumerate(kept)}
    best = {sign: [_Best(top) for _ in layer] for sign in (1.0, -1.0)}
    for batch in batches(model, kept, batch_tokens):
        rows = batch_features(model, batch, layer, index, "response")
        values = np.concatenate(rows)
        trace = np.repeat([number[t.id] for t in batch], [len(row) for row in rows])
        position = np.concatenate([np.arange(*span(t, "response")) for t in batch])
        for sign, columns in best.items():
            for column, kept_best in enumerate(columns):
                kept_best.add(sign * values[:, column], trace, position)
    n_tokens = sum(len(trace.response_ids) - 1 for trace in kept)
    neurons = []
    for column, at in enumerate(zip(layer.tolist(), index.tolist(), strict=True)):
        sides = (
            tuple(_hit(model, kept[i], position, sign * value, context) for value, i, position in columns[column].rows())
            for sign, columns in best.items()
        )
        neurons.append(NeuronTokens(*at, in_words(model.identity, *at), *sides))
    return TopTokens(tuple(neurons), len(kept), n_tokens, left_out)


class _Best:
    """The largest values seen, with where they were."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._value = np.zeros(0, np.float32)
        self._trace = np.zeros(0, np.int64)
        self._position = np.zeros(0, np.int64)

    def add(self, value: NDArray[np.float32], trace: NDArray[np.int64], position: NDArray[np.int64]) -> None:
        floor = self._value[-1] if len(self._value) == self._top else -np.inf
        here = np.flatnonzero(value >= floor)
        if not len(here):
            return
        columns = [
            np.concatenate(pair)
            for pair in ((self._value, value[here]), (self._trace, trace[here]), (self._position, position[here]))
        ]
        order = np.lexsort((columns[2], columns[1], -columns[0]))[: self._top]
        self._value, self._trace, self._position = (column[order] for column in columns)

    def rows(self) -> list[tuple[float, int, int]]:
        """(value, trace, position), largest first."""
        return list(zip(self._value.tolist(), self._trace.tolist(), self._position.tolist(), strict=True))


def _hit(model: LanguageModel, trace: Trace, position: int, value: float, context: int) -> TokenHit:
    ids = (*trace.prompt_ids, *trace.response_ids)
    pieces = (
        ids[max(0, position - context) : position],
        ids[position : position + 1],
        ids[position + 1 : position + 1 + context],
    )
    return TokenHit(trace.id, position, value, *(str(model.tokenizer.decode(list(piece))) for piece in pieces))
