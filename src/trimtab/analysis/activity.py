"""How active the selected neurons are, without and under steering, and on which tokens they are most active."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trimtab.analysis.passes import BATCH_TOKENS, batches, steered_pass, with_response
from trimtab.analysis.sets import in_words
from trimtab.errors import InputError
from trimtab.model import LanguageModel
from trimtab.model.attach import GateOverride
from trimtab.model.hook_points import watch_neurons
from trimtab.recording import batch_features
from trimtab.recording.tokens import right_padded, span
from trimtab.stats.estimates import mean_estimates
from trimtab.stats.values import Estimate
from trimtab.steering import Steering
from trimtab.traces import Trace


@dataclass(frozen=True, slots=True)
class NeuronMagnitude:
    """Mean magnitude of one neuron over the response tokens of a trace, averaged over traces, with 95 % intervals.

    A token that a mixture of experts does not route to the neuron's expert counts as 0, which is what it adds.

    Args:
        unsteered: in the unsteered traces.
        before, after: in the steered traces under the steering, as the model computed it and as it was then made. The first
            differs from ``unsteered`` because the traces differ, and because earlier layers and tokens were steered too.
    """

    layer: int
    index: int
    address: str
    unsteered: Estimate
    before: Estimate
    after: Estimate


@dataclass(frozen=True, slots=True)
class Magnitudes:
    """Magnitudes of every steered neuron, in the order of the steering.

    Args:
        n_unsteered, n_steered: traces.
        left_out: traces without a forwarded response token.
    """

    neurons: tuple[NeuronMagnitude, ...]
    n_unsteered: int
    n_steered: int
    left_out: int
    gate: GateOverride

    def to_json(self) -> dict[str, object]:
        """A dictionary of plain numbers, lists and dictionaries."""
        return asdict(self)


def magnitudes(
    model: LanguageModel,
    unsteered: Sequence[Trace],
    steered: Sequence[Trace],
    steering: Steering,
    *,
    gate: GateOverride = "auto",
    batch_tokens: int = BATCH_TOKENS,
    seed: int = 0,
) -> Magnitudes:
    """Read both sets of traces once more, the steered ones under their steering.

    Args:
        unsteered, steered: traces generated without and with the steering.
        gate: as the steered traces were generated.
        seed: of the bootstrap.

    Raises:
        NotEnoughDataError: fewer than two problems on a side.
        MismatchError: the steering was made for another model.
    """
    steering.refuse_directions("magnitudes are of neurons")
    bare, edited = with_response(unsteered), with_response(steered)
    plain, plain_problems = _unsteered(model, bare.traces, steering, batch_tokens)
    before, after, problems = _steered(model, edited.traces, steering, gate, batch_tokens)
    columns = zip(
        steering.layer.tolist(),
        steering.index.tolist(),
        map(partial(in_words, steering.model), steering.layer.tolist(), steering.index.tolist()),
        mean_estimates(plain, plain_problems, seed=seed),
        mean_estimates(before, problems, seed=seed),
        mean_estimates(after, problems, seed=seed),
        strict=True,
    )
    return Magnitudes(
        tuple(NeuronMagnitude(*column) for column in columns),
        n_unsteered=len(plain),
        n_steered=len(after),
        left_out=bare.left_out + edited.left_out,
        gate=gate,
    )


def _unsteered(
    model: LanguageModel, traces: Sequence[Trace], steering: Steering, batch_tokens: int
) -> tuple[NDArray[np.float64], list[str]]:
    """Mean magnitudes ``[trace, neuron]``, and the problem of each trace."""
    rows, problems = [], []
    for batch in batches(model, traces, batch_tokens):
        rows += _means(batch_features(model, batch, steering.layer, steering.index, "response"))
        problems += [trace.problem_id for trace in batch]
    return np.stack(rows), problems


def _steered(
    model: LanguageModel, traces: Sequence[Trace], steering: Steering, gate: GateOverride, batch_tokens: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str]]:
    """The same before and after the edit, from one forward."""
    before, after, problems = [], [], []
    for batch in batches(model, traces, batch_tokens):
        activation, coefficient = _under_steering(model, batch, steering, gate)
        edited = _edited(activation, coefficient, steering, [model.layout.layers[layer].sparse for layer in steering.layer])
        for values, means in ((activation, before), (edited, after)):
            means += _means([values[row, slice(*span(trace, "response"))].float().numpy() for row, trace in enumerate(batch)])
        problems += [trace.problem_id for trace in batch]
    return np.stack(before), np.stack(after), problems


@torch.inference_mode()
def _under_steering(
    model: LanguageModel, batch: Sequence[Trace], steering: Steering, gate: GateOverride
) -> tuple[Tensor, Tensor]:
    """Activations ``[batch, seq, neuron]`` as they come into the edit, in the model's dtype, and each row's strength times g."""
    ids = right_padded(model, batch)
    seen = torch.empty(*ids.shape, len(steering), dtype=model.hf_model.dtype)
    with ExitStack() as hooks:
        for layer in np.unique(steering.layer).tolist():
            here = np.flatnonzero(steering.layer == layer)
            look = partial(_copy, seen, torch.from_numpy(here))
            index = torch.from_numpy(steering.index[here])
            # before the attachment's, so that these hooks come first
            hooks.callback(watch_neurons(model.layout, layer, index, look).remove)
        attachment = hooks.enter_context(steered_pass(model, batch, steering, gate))
        model.layout.base(input_ids=ids.to(model.device), use_cache=False)
        assert attachment.coefficient is not None
        return seen, attachment.coefficient.cpu()


def _edited(activation: Tensor, coefficient: Tensor, steering: Steering, sparse: Sequence[bool]) -> Tensor:
    """``a + coefficient * (gain * a + shift)`` as the attachment makes it at response tokens, which every scope steers.

    Args:
        sparse: of each neuron, whether it is of an expert: an activation of exactly 0 there is of a token that is not routed to
            it, and nothing is added.
    """
    gain, shift = torch.from_numpy(steering.gain), torch.from_numpy(steering.shift)
    change = (coefficient[:, None, None] * (gain * activation.float() + shift)).to(activation.dtype)
    return activation + change.masked_fill((activation == 0) & torch.tensor(sparse), 0.0)


def _copy(seen: Tensor, columns: Tensor, activation: Tensor) -> None:
    seen[..., columns] = activation.reshape(*seen.shape[:2], -1).cpu()  # some blocks flatten batch and seq


def _means(rows: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float64]]:
    return [np.abs(row).mean(axis=0, dtype=np.float64) for row in rows]


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
