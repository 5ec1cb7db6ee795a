"""How active the selected neurons are in steered and in unsteered generations, before the edit and after it."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trimtab.analysis.batches import BATCH_TOKENS, batches, steered_pass, with_response
from trimtab.analysis.layers import in_words
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
        edited = _edited(activation, coefficient, steering, model.layout.mixture)
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


def _edited(activation: Tensor, coefficient: Tensor, steering: Steering, mixture: bool) -> Tensor:
    """``a + coefficient * (gain * a + shift)`` as the attachment makes it at response tokens, which every scope steers.

    With experts an activation of exactly 0 is of a token that is not routed to the neuron's expert, and nothing is added there.
    """
    gain, shift = torch.from_numpy(steering.gain), torch.from_numpy(steering.shift)
    change = (coefficient[:, None, None] * (gain * activation.float() + shift)).to(activation.dtype)
    return activation + (change.masked_fill(activation == 0, 0.0) if mixture else change)


def _copy(seen: Tensor, columns: Tensor, activation: Tensor) -> None:
    seen[..., columns] = activation.reshape(*seen.shape[:2], -1).cpu()  # some blocks flatten batch and seq


def _means(rows: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float64]]:
    return [np.abs(row).mean(axis=0, dtype=np.float64) for row in rows]
