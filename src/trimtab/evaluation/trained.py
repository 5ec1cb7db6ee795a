"""The baseline ``trained``: gains and shifts of chosen neurons learned by gradient, everything else of a steering as it was.

A closed-form intervention reads its gains and shifts off class means. Here they are the only parameters of a training on the
model's own correct responses, the same traces and the same loop as the LoRA of :mod:`trimtab.evaluation.finetune`, with the
model frozen: "small vectors, big effects" (arXiv 2509.06608) on the basis of neurons. The result is a
:class:`trimtab.steering.Steering` of the same neurons, scope and gate, so it is attached, exported and controlled like any other.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Parameter

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.evaluation.finetune_training import Training, TrainingSettings, train
from trimtab.evaluation.rows import TRAINED
from trimtab.model import LanguageModel
from trimtab.model.hook_points import columns, hook_neurons
from trimtab.model.plan import NeuronPlan
from trimtab.progress import Progress, silent
from trimtab.steering import Steering
from trimtab.store import AnyPath, Record, load_tensors, read_record, save_tensors, write_json
from trimtab.traces import Trace

VALUES, RECORD = "trained.safetensors", "trained.json"


class TrainedRecord(Record):
    """trained.json: the result of a training."""

    traces: int
    parameters_trained: int
    steps: int
    tokens: int
    response_tokens: int
    loss_before: float
    loss_after: float


class Trained(NamedTuple):
    """Gains and shifts at unit strength, float32 ``[neuron]``, and their training."""

    gain: NDArray[np.float32]
    shift: NDArray[np.float32]
    record: TrainedRecord


def train_values(
    model: LanguageModel,
    steering: Steering,
    traces: Sequence[Trace],
    settings: TrainingSettings,
    *,
    gains: bool = True,
    progress: Progress = silent,
) -> Trained:
    """Learn ``gain`` and ``shift`` of a steering's neurons, both from 0, to minimise the next-token loss on responses.

    ``a' = a + gain * a + shift`` on the tokens of the steering's scope, without its gate: AdamW on the mean loss per response
    token, by :func:`trimtab.evaluation.finetune_training.train`. Weights get no gradient and are given back as they were. The
    same call gives the same numbers on the same CPU; a GPU or other threads may differ in the last bits.

    Args:
        steering: whose neurons and scope are used; its own gains, shifts, strength and gate are not read.
        traces: correct traces of the train split; their order does not matter.
        gains: False trains shifts alone.

    Raises:
        NotEnoughDataError: no traces.
        InputError: a steering without neurons or with directions, or a trace without prompt or response.
        ModelError: a gradient that is not finite, or a batch that does not fit into memory.
    """
    steering.refuse_directions("trained are the gains and shifts of neurons")
    _check(steering, traces)
    edit = _Edit(model, steering, gains)
    traces = sorted(traces, key=lambda trace: trace.id)
    with _frozen(model), edit.installed():
        training = train(model.hf_model, traces, settings, progress, parameters=edit.parameters, label=TRAINED, within=edit.on)
    return Trained(edit.gain.detach().cpu().numpy(), edit.shift.detach().cpu().numpy(), _record(traces, edit, training))


def trained_steering(steering: Steering, trained: Trained, **facts: object) -> Steering:
    """The steering with the trained values at strength 1; its neurons, scope and gate stay."""
    kept = {name: value for name, value in steering.facts.items() if name not in ("tune", "metrics")}
    return Steering(
        steering.layer,
        steering.index,
        trained.gain,
        trained.shift,
        1.0,
        steering.scope,
        steering.gate,
        steering.model,
        {**kept, "intervention": TRAINED, "trained": {**facts, **trained.record.model_dump()}},
    )


def save_trained(trained: Trained, folder: AnyPath) -> None:
    """Write the values and the result of their training."""
    save_tensors(folder / VALUES, {"gain": trained.gain, "shift": trained.shift}, {})
    write_json(folder / RECORD, trained.record.model_dump())


def load_trained(folder: AnyPath) -> Trained:
    """Read what :func:`save_trained` wrote. Raises StoreError."""
    arrays, _ = load_tensors(folder / VALUES)
    return Trained(arrays["gain"], arrays["shift"], read_record(folder / RECORD, TrainedRecord))


class _Edit:
    """The trainable map, and the hooks that apply it."""

    def __init__(self, model: LanguageModel, steering: Steering, gains: bool) -> None:
        self._layout, self._scope, self._layer = model.layout, steering.scope, torch.from_numpy(steering.layer)
        self._index = torch.from_numpy(steering.index)
        zeros = torch.zeros(len(steering), device=model.device)
        self.gain, self.shift = Parameter(zeros.clone(), requires_grad=gains), Parameter(zeros)
        self._weight: Tensor | None = None

    @property
    def parameters(self) -> list[Parameter]:
        """What is trained."""
        return [self.gain, self.shift] if self.gain.requires_grad else [self.shift]

    @contextmanager
    def installed(self) -> Iterator[None]:
        """A hook on every layer that holds one of the neurons."""
        with ExitStack() as hooks:
            for layer in self._layer.unique().tolist():
                rows = torch.nonzero(self._layer == layer).flatten()
                chosen = self._index[rows].sort().values
                place = columns(self._layout, layer, chosen, self._index[rows])
                hooks.callback(hook_neurons(self._layout, layer, partial(self._steer, place, rows), chosen).remove)
            yield

    @contextmanager
    def on(self, traces: Sequence[Trace]) -> Iterator[None]:
        """Steer the tokens of these traces that the scope covers, as rows of one right-padded batch without their last token."""
        width = max(len(trace.prompt_ids) + len(trace.response_ids) for trace in traces) - 1
        weight = torch.zeros(len(traces), width)
        for row, trace in zip(weight, traces, strict=True):
            row[_first(trace, self._scope) : len(trace.prompt_ids) + len(trace.response_ids) - 1] = 1.0
        self._weight = weight
        try:
            yield
        finally:
            self._weight = None

    def _steer(self, place: Tensor, rows: Tensor, activation: Tensor) -> Tensor:
        assert self._weight is not None
        device = activation.device
        gain, shift = (values[rows.to(values.device)].to(device) for values in (self.gain, self.shift))
        plan = NeuronPlan(place.to(device), gain if self.gain.requires_grad else None, shift)
        batched = activation.reshape(*self._weight.shape, activation.shape[-1])  # some blocks flatten batch and seq
        return plan.steer(batched, self._weight.to(device)).reshape(activation.shape)


def _first(trace: Trace, scope: str) -> int:
    """The first position that is steered: of the first generated token, the last prompt token, or the first of all."""
    return {"generated": len(trace.prompt_ids), "last-and-generated": len(trace.prompt_ids) - 1, "all": 0}[scope]


@contextmanager
def _frozen(model: LanguageModel) -> Iterator[None]:
    """No weight of the model asks for a gradient, and afterwards each does as before."""
    asked = [parameter for parameter in model.hf_model.parameters() if parameter.requires_grad]
    model.hf_model.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asked:
            parameter.requires_grad_(True)


def _check(steering: Steering, traces: Sequence[Trace]) -> None:
    if not steering.has_neurons:
        raise InputError("gains and shifts are trained on neurons, and this steering has none; give one with neurons")
    if not traces:
        raise NotEnoughDataError(
            f"the baseline {TRAINED} learns from correct traces of the train split, and there is none; sample more traces "
            "(sampling.n), or leave the baseline out"
        )
    for trace in traces:
        if not trace.prompt_ids or not trace.response_ids:
            raise InputError(f"trace {trace.id} has no prompt or no response, so {TRAINED} cannot learn from it; leave it out")


def _record(traces: Sequence[Trace], edit: _Edit, training: Training) -> TrainedRecord:
    parameters = sum(parameter.numel() for parameter in edit.parameters)
    return TrainedRecord(traces=len(traces), parameters_trained=parameters, **training._asdict())
