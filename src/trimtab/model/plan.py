"""The plan of an attachment: the tensors of each layer, on its device, made once."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trimtab.gate import AnyGate, AttentionGate, PromptGate, RandomOpening, RunningGate
from trimtab.model.adapters import FfnLayout
from trimtab.model.hook_points import columns
from trimtab.steering import Steering


@dataclass(frozen=True, slots=True, eq=False)
class NeuronPlan:
    """The steered neurons of one layer.

    Args:
        index: int64 ``[neuron]``, where they stand in the activations that the layer's hook hands over.
        gain: float32 ``[neuron]``, None when all are zero, so that the activations need not be read.
        shift: float32 ``[neuron]``.
    """

    index: Tensor
    gain: Tensor | None
    shift: Tensor

    def steer(self, activation: Tensor, weight: Tensor) -> Tensor:
        """``a + weight * (gain * a + shift)`` on the neurons, every other activation as it was; out of place.

        The change is computed in float32 and added in the activation's dtype.

        Args:
            activation: ``[batch, seq, width]``.
            weight: float32 ``[batch, seq]``, strength times gate, 0 outside the scope.
        """
        change = self.shift
        if self.gain is not None:
            change = self.gain * activation.index_select(-1, self.index).float() + self.shift
        return activation.index_add(-1, self.index, (weight.unsqueeze(-1) * change).to(activation.dtype))


@dataclass(frozen=True, slots=True, eq=False)
class FeaturePlan:
    """The gate's features in one layer, each ``[feature]``.

    Args:
        index: int64, as of :class:`NeuronPlan`.
        weight: float32, of the gate's linear map of a token: p(fail)'s logit, or the score of attention pooling.
        column: int64, where each stands among all features of the gate.
    """

    index: Tensor
    weight: Tensor
    column: Tensor

    def score(self, activation: Tensor, position: Tensor) -> Tensor:
        """``w . a`` at one position per row, float32 ``[batch]``; carries no gradient.

        Args:
            activation: ``[batch, seq, width]``.
            position: int64 ``[batch]``.
        """
        row = torch.arange(len(position), device=activation.device)
        prompt_end = activation.detach()[row, position.to(activation.device)]
        return prompt_end.index_select(-1, self.index).float() @ self.weight

    def values(self, activation: Tensor) -> Tensor:
        """The features of every position, float32 ``[batch, seq, feature]``; carries no gradient."""
        return activation.detach().index_select(-1, self.index).float()

    def scores(self, values: Tensor) -> Tensor:
        """``w . a`` of every position, float32 ``[batch, seq]``."""
        return values @ self.weight


@dataclass(frozen=True, slots=True, eq=False)
class LayerPlan:
    """The edits of one layer's hook, on ``device``; at least one of the three.

    Args:
        neurons: what is steered.
        features: what a gate reads of the prompt.
        running: what a gate reads of the response.
        chosen: int64 ``[neuron]``, the coordinates of the neurons of all of these, ascending.
    """

    neurons: NeuronPlan | None
    features: FeaturePlan | None
    running: FeaturePlan | None
    chosen: Tensor
    device: torch.device

    def to(self, device: torch.device) -> "LayerPlan":
        """The same plan on another device."""
        neurons = self.neurons
        if neurons is not None:
            gain = None if neurons.gain is None else neurons.gain.to(device)
            neurons = NeuronPlan(neurons.index.to(device), gain, neurons.shift.to(device))
        return LayerPlan(neurons, _moved(self.features, device), _moved(self.running, device), self.chosen.to(device), device)


def _moved(features: FeaturePlan | None, device: torch.device) -> FeaturePlan | None:
    if features is None:
        return None
    return FeaturePlan(*(part.to(device) for part in (features.index, features.weight, features.column)))


@dataclass(frozen=True, slots=True, eq=False)
class ResidualPlan:
    """What is added to one layer's output: float32 ``[d_model]`` at unit strength, on its device."""

    direction: Tensor

    def steer(self, stream: Tensor, weight: Tensor) -> Tensor:
        """``h + weight * direction``, out of place; computed in float32 and added in the stream's dtype.

        Args:
            stream: ``[batch, seq, d_model]``.
            weight: as of :meth:`NeuronPlan.steer`.
        """
        return stream + (weight.unsqueeze(-1) * self.direction).to(stream.dtype)

    def to(self, device: torch.device) -> "ResidualPlan":
        """The same plan on another device."""
        return ResidualPlan(self.direction.to(device))


def plan_residual(steering: Steering) -> dict[int, ResidualPlan]:
    """One plan for each layer after which the steering adds a direction; it moves to the layer's device at its first use."""
    vectors = torch.tensor(steering.direction, dtype=torch.float32)
    return {layer: ResidualPlan(vector) for layer, vector in zip(steering.direction_layer.tolist(), vectors, strict=True)}


def question_of(gate: AnyGate) -> PromptGate | None:
    """The gate that reads the prompt: itself, or the one that is joined with a running gate; None where none reads it."""
    if isinstance(gate, RunningGate):
        return gate.question
    return gate if not isinstance(gate, RandomOpening) and gate.reads else None


def plan_layers(steering: Steering, gate: AnyGate, layout: FfnLayout) -> dict[int, LayerPlan]:
    """One plan per layer that is steered or read, on that layer's device."""
    question, running = question_of(gate), gate if isinstance(gate, RunningGate) else None
    plans = {}
    for layer, _, module in layout.places:
        steered = np.flatnonzero(steering.layer == layer)
        read, watched = (np.flatnonzero(one.layer == layer) if one is not None else steered[:0] for one in (question, running))
        indices = [steering.index[steered]]
        indices += [one.index[rows] for one, rows in ((question, read), (running, watched)) if one is not None]
        union = np.unique(np.concatenate(indices))
        if not len(union):
            continue
        chosen = torch.from_numpy(union)
        place = partial(columns, layout, layer, chosen)
        neurons = _neuron_plan(steering, steered, place)
        features, watch = _feature_plan(question, read, place), _feature_plan(running, watched, place)
        plans[layer] = LayerPlan(neurons, features, watch, chosen, torch.device("cpu")).to(_home(module))
    return plans


def _neuron_plan(steering: Steering, rows: NDArray[np.int64], place: Callable[[Tensor], Tensor]) -> NeuronPlan | None:
    if not len(rows):
        return None
    gain, shift = (torch.tensor(column[rows], dtype=torch.float32) for column in (steering.gain, steering.shift))
    return NeuronPlan(place(torch.tensor(steering.index[rows])), gain if gain.any() else None, shift)


def _feature_plan(
    gate: PromptGate | RunningGate | None, rows: NDArray[np.int64], place: Callable[[Tensor], Tensor]
) -> FeaturePlan | None:
    if gate is None or not len(rows):
        return None
    weight = gate.query if isinstance(gate, AttentionGate) else gate.weight
    index = place(torch.tensor(gate.index[rows]))
    return FeaturePlan(index, torch.tensor(weight[rows], dtype=torch.float32), torch.tensor(rows))


def _home(module: nn.Module) -> torch.device:
    """Where a layer lives; the CPU for an offloaded one, whose plan then moves at its first use."""
    held = next((tensor for tensor in (*module.parameters(), *module.buffers())), None)
    return torch.device("cpu") if held is None or held.is_meta else held.device
