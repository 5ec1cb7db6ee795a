"""The steerings on a worker: each in a row of every layer's table, sliced to the neurons of this rank."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trimtab.errors import ModelError
from trimtab.gate import Gate
from trimtab.steering import Steering
from trimtab.vllm_plugin.columns import Columns
from trimtab.vllm_plugin.config import PluginConfig
from trimtab.vllm_plugin.gate_rows import GateRows
from trimtab.vllm_plugin.hooks import hook
from trimtab.vllm_plugin.layer_table import LayerTable
from trimtab.vllm_plugin.output_side import written_by
from trimtab.vllm_plugin.rank import Rank
from trimtab.vllm_plugin.recording import Recording
from trimtab.vllm_plugin.step_buffers import StepBuffers


@dataclass(frozen=True, slots=True)
class LayerRoom:
    """Columns of one layer: for neurons, for features."""

    neurons: int
    features: int


def plan_room(steerings: Sequence[Steering], config: PluginConfig, rank: Rank, n_layers: int) -> tuple[LayerRoom, ...]:
    """How many columns each layer gets: those that the first steerings use, and the spare ones."""
    rooms = []
    for layer in range(n_layers):
        used: tuple[set[int], set[int]] = (set(), set())
        for steering in steerings:
            used[0].update(rank.own(layer, steering.layer, steering.index)[1].tolist())
            if steering.gate.reads:
                used[1].update(rank.own(layer, steering.gate.layer, steering.gate.index)[1].tolist())
        spare = (config.neurons_per_layer, config.features_per_layer)
        rooms.append(LayerRoom(*(min(rank.width, len(own) + more) for own, more in zip(used, spare, strict=True))))
    return tuple(rooms)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """What a steering has in one layer on this rank.

    Args:
        neurons: their columns of the activation; on the output side those of all ranks, which sum up together what they write.
        gain, shift: of these neurons.
        features, weight: what its gate reads.
    """

    neurons: NDArray[np.int64]
    gain: NDArray[np.float32]
    shift: NDArray[np.float32]
    features: NDArray[np.int64]
    weight: NDArray[np.float32]


class SlotTables:
    """The tables of all layers, and what is in each slot.

    Row 0 is no steering, rows 1 to ``slots`` are theirs, the row after them is the self-test's.

    Attributes:
        gates: of the slots.
        digests: of the steering in each slot.
        layers: the table of each layer that has one.
    """

    def __init__(
        self,
        config: PluginConfig,
        down: Sequence[nn.Module],
        room: Sequence[LayerRoom],
        step: StepBuffers,
        rank: Rank,
        dtype: torch.dtype,
    ) -> None:
        """No layer has a table yet.

        Args:
            config: of the engine.
            down: the down projections by layer.
            room: columns of each.
            step: buffers of the step.
            rank: which neurons this worker holds.
            dtype: of the model's activations.
        """
        self.config, self.rank, self.down = config, rank, tuple(down)
        self.n_rows = config.slots + 2
        self.gates = GateRows(self.n_rows, step.device)
        self.digests: dict[int, str] = {}
        self.layers: dict[int, LayerTable] = {}
        self._output, self._step, self._dtype = config.side == "output", step, dtype
        self._steerable = [each.neurons > 0 for each in room]
        self._neurons = [Columns(0 if self._output else each.neurons) for each in room]
        self._features = [Columns(each.features) for each in room]

    def install(self, d_model: int, recording: Recording | None) -> None:
        """Hook each layer that has room, or records.

        Args:
            d_model: width of a down projection's output.
            recording: the sums to fill, if any.
        """
        for layer, module in enumerate(self.down):
            width = d_model if self._output and self._steerable[layer] else 0
            columns = self._neurons[layer].capacity, self._features[layer].capacity
            if any(columns) or width or recording is not None:
                sums, moments = (None, ()) if recording is None else (recording.sums[layer], recording.moments)
                table = LayerTable(self._step, self.n_rows, *columns, width, sums, moments)
                hook(module, table)
                self.layers[layer] = table

    @property
    def test_row(self) -> int:
        """The row that no slot uses."""
        return self.n_rows - 1

    @property
    def layout(self) -> str:
        """Shapes that a compiled graph is made for."""
        return ";".join(
            f"{layer}:" + "".join(str(list(tensor.shape)) for tensor in (t.gain, t.feature_weight, t.output_shift, t.sums))
            for layer, t in self.layers.items()
        )

    def load(self, slot: int, steering: Steering, name: str) -> None:
        """Put a steering into a slot, in place of what is there.

        Raises:
            ModelError: it needs a layer without hook, or more columns than are free; nothing is changed then.
        """
        parts = [self._part(layer, steering) for layer in range(len(self.down))]
        for layer, part in enumerate(parts):
            self._check_room(layer, part, slot, name)
        self.unload(slot)
        for layer, table in self.layers.items():
            part = parts[layer]
            if not self._output:
                columns = self._take(table.index, self._neurons[layer], part.neurons, slot)
                table.gain[slot, columns] = _on(table.gain, part.gain)
                table.shift[slot, columns] = _on(table.shift, part.shift)
            elif len(part.neurons):
                table.output_shift[slot] = written_by(self.down[layer], part.neurons, part.shift, self.rank, self._dtype)
            columns = self._take(table.feature_index, self._features[layer], part.features, slot)
            table.feature_weight[slot, columns] = _on(table.feature_weight, part.weight)
        self.gates.load(slot, steering.gate)
        self.digests[slot] = steering.digest

    def unload(self, slot: int) -> None:
        """Empty a slot."""
        for layer, table in self.layers.items():
            for tensor in (table.gain, table.shift, table.feature_weight, table.output_shift):
                tensor[slot] = 0.0
            self._neurons[layer].give_back(slot)
            self._features[layer].give_back(slot)
        self.gates.clear(slot)
        self.digests.pop(slot, None)

    def _part(self, layer: int, steering: Steering) -> _Part:
        place, neurons = self.rank.own(layer, steering.layer, steering.index)
        if self._output:
            place = np.flatnonzero(steering.layer == layer)
            neurons = steering.index[place]
        gate = steering.gate
        if not isinstance(gate, Gate) or not gate.reads:
            return _Part(neurons, steering.gain[place], steering.shift[place], np.zeros(0, np.int64), np.zeros(0, np.float32))
        read, features = self.rank.own(layer, gate.layer, gate.index)
        return _Part(neurons, steering.gain[place], steering.shift[place], features, gate.weight[read])

    def _check_room(self, layer: int, part: _Part, slot: int, name: str) -> None:
        if self._output:
            short = len(part.neurons) if not self._steerable[layer] else 0
        else:
            short = self._neurons[layer].missing(part.neurons.tolist(), slot)
        wanted = {"neurons_per_layer": short, "features_per_layer": self._features[layer].missing(part.features.tolist(), slot)}
        for setting, missing in wanted.items():
            if missing:
                raise ModelError(
                    f"steering {name!r} does not fit layer {layer}, whose compiled table lacks {missing} free columns for it. "
                    f"Fix: start the engine with it, or with {setting} raised by {missing}"
                )

    @staticmethod
    def _take(index: Tensor, own: Columns, neurons: NDArray[np.int64], slot: int) -> Tensor:
        """The columns of these neurons, from now on also this slot's."""
        columns = torch.tensor(own.take(neurons.tolist(), slot), dtype=torch.int64, device=index.device)
        index[columns] = _on(index, neurons)
        return columns


def _on(tensor: Tensor, array: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(tensor.device)
