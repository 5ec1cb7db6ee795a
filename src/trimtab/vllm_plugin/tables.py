"""The steerings of one worker: each has a row in every layer's table, sliced to the neurons of this rank."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trimtab.errors import ModelError
from trimtab.gate import ALWAYS, AnyGate, Gate, RunningGate
from trimtab.steering import Steering
from trimtab.vllm_plugin.config import PluginConfig
from trimtab.vllm_plugin.courses import AND, OR, RunningRows, SlotGate, Warns
from trimtab.vllm_plugin.hooks import LayerTable, StepBuffers, hook, is_lora
from trimtab.vllm_plugin.recording import Recording


@dataclass(frozen=True, slots=True)
class Rank:
    """One of several workers that share each layer: it holds neurons ``[index * width, (index + 1) * width)``."""

    index: int
    count: int
    d_ff: int

    @property
    def width(self) -> int:
        """The number of a layer's neurons that this rank holds."""
        return self.d_ff // self.count

    def own(
        self, layer: int, layers: NDArray[np.int64], neurons: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Select the neurons of a layer that this rank holds: their positions among all, and their columns here."""
        place = np.flatnonzero((layers == layer) & (neurons // self.width == self.index))
        return place, neurons[place] - self.index * self.width


@dataclass(slots=True)
class Columns:
    """The columns of one table, shared by the steerings that use the same neuron.

    Args:
        capacity: how many there are.
        column: by neuron.
        users: slots that use a neuron, by neuron.
    """

    capacity: int
    column: dict[int, int] = field(default_factory=dict)
    users: dict[int, set[int]] = field(default_factory=dict)

    def missing(self, neurons: Iterable[int], replaced: int) -> int:
        """Return how many columns are missing for these neurons, once a slot has given its present ones back."""
        kept = {neuron for neuron, users in self.users.items() if users - {replaced}}
        return max(0, len(kept | set(neurons)) - self.capacity)

    def take(self, neurons: Iterable[int], slot: int) -> list[int]:
        """Assign a column to each neuron, in order.

        Raises:
            ModelError: more neurons than columns.
        """
        wanted = list(neurons)
        if self.missing(wanted, slot):
            raise ModelError(f"{len(wanted)} neurons do not fit {self.capacity} columns")
        free = iter(sorted(set(range(self.capacity)) - set(self.column.values())))
        for neuron in wanted:
            if neuron not in self.column:
                self.column[neuron] = next(free)
            self.users.setdefault(neuron, set()).add(slot)
        return [self.column[neuron] for neuron in wanted]

    def give_back(self, slot: int) -> None:
        """Release a slot's columns; those that no other slot uses become free."""
        for neuron in [neuron for neuron, users in self.users.items() if slot in users]:
            self.users[neuron].discard(slot)
            if not self.users[neuron]:
                del self.users[neuron], self.column[neuron]


def written_by(
    module: nn.Module, neurons: NDArray[np.int64], shift: NDArray[np.float32], rank: Rank, dtype: torch.dtype
) -> Tensor:
    """``W_down @ shift``, float32 ``[d_model]``, summed over the ranks.

    From the weights in float32 where they are plain; through the module's own kernel where they are quantised, with the error
    that the kernel makes on any input.

    Args:
        module: a down projection, which all ranks call together.
        neurons: int64 ``[neuron]``, counted over all ranks.
        shift: float32 ``[neuron]``.
        rank: of this worker.
        dtype: of the model's activations.
    """
    base: nn.Module = module.base_layer if is_lora(module) else module  # type: ignore[assignment]
    place, columns = rank.own(0, np.zeros_like(neurons), neurons)
    tensors = dict(base.named_parameters())
    device = next(iter(tensors.values())).device
    own = torch.zeros(rank.width, device=device)
    own[torch.from_numpy(columns).to(device)] = torch.from_numpy(np.ascontiguousarray(shift[place])).to(device)
    weight = tensors.get("weight")
    if weight is None or weight.dtype not in (torch.float32, torch.float16, torch.bfloat16) or weight.shape[-1] != rank.width:
        both = torch.stack([own, torch.zeros_like(own)]).to(dtype)
        output = base(both)
        with_shift, without = (output[0] if isinstance(output, tuple) else output).float()
        return with_shift - without
    written = weight.detach().float() @ own
    if rank.count > 1:
        from vllm.distributed import tensor_model_parallel_all_reduce  # pyright: ignore[reportMissingImports]

        written = tensor_model_parallel_all_reduce(written)
    return written


HISTOGRAM = 20
"""Bins of p(fail) from 0 to 1."""


class GateRows:
    """Bias, threshold and mode of each slot's gate of the question, ``[row]``, and the decisions of these gates so far.

    Attributes:
        slots: the gate of each row.
        running: rules of those that are running gates.
        histogram: int64 ``[bin]``, p(fail) of the prompts that were read.
        fired: int64 ``[1]``, how many of them are steered.
    """

    def __init__(self, n_rows: int, device: torch.device) -> None:
        """Start with gates that steer nothing."""
        self.slots = [SlotGate()] * n_rows
        self.running = RunningRows(n_rows, device)
        self.bias = torch.zeros(n_rows, device=device)
        self.threshold = torch.full((n_rows,), 0.5, device=device)
        self.proportional = torch.zeros(n_rows, dtype=torch.bool, device=device)
        self.histogram = torch.zeros(HISTOGRAM, dtype=torch.int64, device=device)
        self.fired = torch.zeros(1, dtype=torch.int64, device=device)

    def load(self, slot: int, gate: AnyGate) -> None:
        """Set a slot's gate.

        Raises:
            ModelError: not a linear one.
        """
        if isinstance(gate, RunningGate):
            self.running.load(slot, gate)
            join = OR if gate.question is not None and gate.join == "or" else AND
            reader, warns = len(self.slots) + slot, Warns.of(gate)
            # without a gate of the question, the smaller of 1 and its own g
            self.slots[slot] = SlotGate(gate.question is not None, 1.0, reader, True, gate.initial, join, warns)
            gate = gate.question or ALWAYS
        elif isinstance(gate, Gate):
            self.slots[slot] = SlotGate(gate.reads, float(gate.kind == "always"), slot)
        else:
            raise ModelError(f"an engine runs only linear gates, not {gate.label}")
        self.bias[slot], self.threshold[slot] = float(gate.bias), gate.cutoff
        self.proportional[slot] = gate.mode == "proportional"

    def clear(self, slot: int) -> None:
        """Remove a slot's gate."""
        self.slots[slot] = SlotGate()

    def probability(self, score: Tensor, rows: Tensor) -> Tensor:
        """``p(fail) = sigmoid(score + bias)``, float32 ``[token]``."""
        return torch.sigmoid(score + self.bias[rows])

    def decide(self, probability: Tensor, rows: Tensor, given: Tensor, asked: Tensor) -> Tensor:
        """Return g of each prompt, float32 ``[prompt]``: the gate's if it is asked, else as given. Count the decisions."""
        threshold = self.threshold[rows]
        hard = (probability >= threshold).float()
        gradual = ((probability - threshold) / (1.0 - threshold)).clamp(0.0, 1.0)
        value = torch.where(self.proportional[rows], gradual, hard)
        bins = (probability * HISTOGRAM).long().clamp(0, HISTOGRAM - 1)
        self.histogram.index_add_(0, bins, asked.long())
        self.fired.add_(((value > 0) & asked).sum())
        return torch.where(asked, value, given)


@dataclass(frozen=True, slots=True)
class LayerRoom:
    """The number of columns in one layer."""

    neurons: int
    features: int


def linear_gates(gate: AnyGate) -> tuple[Gate | RunningGate, ...]:
    """Return what reads activations: the gate of the question, and the running gate."""
    if isinstance(gate, RunningGate):
        return (gate,) if gate.question is None else (gate.question, gate)
    return (gate,) if isinstance(gate, Gate) and gate.reads else ()


def plan_room(steerings: Sequence[Steering], config: PluginConfig, rank: Rank, n_layers: int) -> tuple[LayerRoom, ...]:
    """Return the columns of each layer: those that the first steerings use, and the spare ones."""
    rooms = []
    for layer in range(n_layers):
        used: tuple[set[int], set[int]] = (set(), set())
        for steering in steerings:
            used[0].update(rank.own(layer, steering.layer, steering.index)[1].tolist())
            for gate in linear_gates(steering.gate):
                used[1].update(rank.own(layer, gate.layer, gate.index)[1].tolist())
        spare = (config.neurons_per_layer, config.features_per_layer)
        rooms.append(LayerRoom(*(min(rank.width, len(own) + more) for own, more in zip(used, spare, strict=True))))
    return tuple(rooms)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """The part of a steering in one layer on this rank.

    Args:
        neurons: their columns of the activation; on the output side those of all ranks, which sum up together what they write.
        gain, shift: of these neurons.
        features: what its gates read.
        weight: of them in the row of its gate of the question and in that of its running gate, ``[2, feature]``.
    """

    neurons: NDArray[np.int64]
    gain: NDArray[np.float32]
    shift: NDArray[np.float32]
    features: NDArray[np.int64]
    weight: NDArray[np.float32]


class SlotTables:
    """The tables of all layers, and the steering in each slot.

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
        """Start without any table.

        Args:
            config: of the engine.
            down: the down projections by layer.
            room: columns of each.
            step: buffers of the step.
            rank: which neurons this worker holds.
            dtype: of the model's activations.
        """
        self.config, self.rank, self.down = config, rank, tuple(down)
        self.n_rows = config.max_steerings + 2
        self.gates = GateRows(self.n_rows, step.device)
        self.digests: dict[int, str] = {}
        self.layers: dict[int, LayerTable] = {}
        self._output, self._step, self._dtype = config.side == "output", step, dtype
        self._steerable = [each.neurons > 0 for each in room]
        self._neurons = [Columns(0 if self._output else each.neurons) for each in room]
        self._features = [Columns(each.features) for each in room]

    def install(self, d_model: int, recording: Recording | None) -> None:
        """Hook each layer that has columns, or that is recorded.

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
        """The row of the self-test, which no slot uses."""
        return self.n_rows - 1

    @property
    def layout(self) -> str:
        """The shapes of the tables, as part of the key of compiled graphs."""
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
            for row, weight in zip((slot, self.n_rows + slot), part.weight, strict=True):
                table.feature_weight[row, columns] = _on(table.feature_weight, weight)
        self.gates.load(slot, steering.gate)
        self.digests[slot] = steering.digest

    def unload(self, slot: int) -> None:
        """Empty a slot."""
        for layer, table in self.layers.items():
            for tensor in (table.gain, table.shift, table.feature_weight, table.output_shift):
                tensor[slot] = 0.0
            table.feature_weight[self.n_rows + slot] = 0.0
            self._neurons[layer].give_back(slot)
            self._features[layer].give_back(slot)
        self.gates.clear(slot)
        self.digests.pop(slot, None)

    def _part(self, layer: int, steering: Steering) -> _Part:
        place, neurons = self.rank.own(layer, steering.layer, steering.index)
        if self._output:
            place = np.flatnonzero(steering.layer == layer)
            neurons = steering.index[place]
        read = [(gate, *self.rank.own(layer, gate.layer, gate.index)) for gate in linear_gates(steering.gate)]
        features = np.unique(np.concatenate([own for *_, own in read])) if read else np.zeros(0, np.int64)
        weight = np.zeros((2, len(features)), np.float32)
        for gate, chosen, own in read:
            np.add.at(weight[int(isinstance(gate, RunningGate))], np.searchsorted(features, own), gate.weight[chosen])
        return _Part(neurons, steering.gain[place], steering.shift[place], features, weight)

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
        """Assign columns to these neurons, and write the neurons into the index."""
        columns = torch.tensor(own.take(neurons.tolist(), slot), dtype=torch.int64, device=index.device)
        index[columns] = _on(index, neurons)
        return columns


def _on(tensor: Tensor, array: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(tensor.device)
