"""The plan of an attachment: what each layer needs, as tensors on that layer's device, made once."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trimtab.gate import Gate
from trimtab.steering import Steering


@dataclass(frozen=True, slots=True, eq=False)
class NeuronPlan:
    """The steered neurons of one layer.

    Args:
        index: int64 ``[neuron]``.
        dgain: float32 ``[neuron]``, None when all are zero, so that the activations need not be read.
        shift: float32 ``[neuron]``.
    """

    index: Tensor
    dgain: Tensor | None
    shift: Tensor

    def steer(self, activation: Tensor, weight: Tensor) -> Tensor:
        """``a + weight * (dgain * a + shift)`` on the neurons, every other activation as it was; out of place.

        The change is computed in float32 and added in the activation's dtype.

        Args:
            activation: ``[batch, seq, d_ff]``.
            weight: float32 ``[batch, seq]``, strength times gate, 0 outside the scope.
        """
        change = self.shift
        if self.dgain is not None:
            change = self.dgain * activation.index_select(-1, self.index).float() + self.shift
        return activation.index_add(-1, self.index, (weight.unsqueeze(-1) * change).to(activation.dtype))


@dataclass(frozen=True, slots=True, eq=False)
class FeaturePlan:
    """The gate's features in one layer: ``index`` int64 and ``weight`` float32, both ``[feature]``."""

    index: Tensor
    weight: Tensor

    def score(self, activation: Tensor, position: Tensor) -> Tensor:
        """``w . a`` at one position per row, float32 ``[batch]``; carries no gradient.

        Args:
            activation: ``[batch, seq, d_ff]``.
            position: int64 ``[batch]``.
        """
        row = torch.arange(len(position), device=activation.device)
        prompt_end = activation.detach()[row, position.to(activation.device)]
        return prompt_end.index_select(-1, self.index).float() @ self.weight


@dataclass(frozen=True, slots=True, eq=False)
class LayerPlan:
    """What the hook of one layer does, on ``device``; at least one of the two."""

    neurons: NeuronPlan | None
    features: FeaturePlan | None
    device: torch.device

    def to(self, device: torch.device) -> "LayerPlan":
        """The same plan on another device."""
        neurons, features = self.neurons, self.features
        if neurons is not None:
            dgain = None if neurons.dgain is None else neurons.dgain.to(device)
            neurons = NeuronPlan(neurons.index.to(device), dgain, neurons.shift.to(device))
        if features is not None:
            features = FeaturePlan(features.index.to(device), features.weight.to(device))
        return LayerPlan(neurons, features, device)


def plan_layers(steering: Steering, gate: Gate | None, down: tuple[nn.Module, ...]) -> dict[int, LayerPlan]:
    """One plan per layer that is steered or read.

    Args:
        gate: the logistic gate to read, None when nothing is read.
        down: the down projections, whose devices the plans go to.
    """
    plans = {}
    for layer, module in enumerate(down):
        neurons = _neuron_plan(steering, np.flatnonzero(steering.layer == layer))
        features = None if gate is None else _feature_plan(gate, np.flatnonzero(gate.layer == layer))
        if neurons is not None or features is not None:
            plans[layer] = LayerPlan(neurons, features, torch.device("cpu")).to(_home(module))
    return plans


def _neuron_plan(steering: Steering, rows: NDArray[np.int64]) -> NeuronPlan | None:
    if not len(rows):
        return None
    dgain, shift = (torch.tensor(column[rows], dtype=torch.float32) for column in (steering.dgain, steering.shift))
    return NeuronPlan(torch.tensor(steering.index[rows]), dgain if dgain.any() else None, shift)


def _feature_plan(gate: Gate, rows: NDArray[np.int64]) -> FeaturePlan | None:
    if not len(rows):
        return None
    return FeaturePlan(torch.tensor(gate.index[rows]), torch.tensor(gate.weight[rows], dtype=torch.float32))


def _home(module: nn.Module) -> torch.device:
    """Where a layer lives; the CPU for an offloaded one, whose plan then moves at its first use."""
    held = next((tensor for tensor in (*module.parameters(), *module.buffers())), None)
    return torch.device("cpu") if held is None or held.is_meta else held.device
