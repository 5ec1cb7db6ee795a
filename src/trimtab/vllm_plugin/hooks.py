"""The contents of the compiled graph: hooks on the down projections, their tables, and the buffers that vary from step to step.

Hooks are set after the weights are loaded and before the graph is compiled, because a graph keeps only the hooks that it finds.
"""

import re
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trimtab.errors import ModelError
from trimtab.moments import MOMENTS
from trimtab.vllm_plugin.config import Side


@dataclass(frozen=True, slots=True, eq=False)
class StepBuffers:
    """One entry per token of the batch; entries after the last token are zero.

    Args:
        rows: int64 ``[token]``, slot of the steering.
        weight: float32 ``[token]``, strength times gate, 0 outside the scope.
        readers: int64 ``[token]``, row of what is read: the slot's by its gate of the question, another by its running gate.
        score: float32 ``[token]``, ``w . x`` of that row, summed up over the layers of this rank.
        target: int64 ``[token]``, row of the recorded sums; the last one is of no request.
        steered: int64 ``[1]``, tokens with a weight in this step.
    """

    rows: Tensor
    weight: Tensor
    readers: Tensor
    score: Tensor
    target: Tensor
    steered: Tensor

    @classmethod
    def make(cls, tokens: int, device: torch.device) -> "StepBuffers":
        """Allocate buffers for at most this many tokens per step."""
        integers = {"dtype": torch.int64, "device": device}
        return cls(
            torch.zeros(tokens, **integers),
            torch.zeros(tokens, device=device),
            torch.zeros(tokens, **integers),
            torch.zeros(tokens, device=device),
            torch.zeros(tokens, **integers),
            torch.zeros(1, **integers),
        )

    @property
    def device(self) -> torch.device:
        """The device of the buffers."""
        return self.rows.device

    @property
    def capacity(self) -> int:
        """The number of tokens that fit."""
        return len(self.rows)

    def clear(self, nowhere: int) -> None:
        """Steer, read and record nothing in the next forward.

        Args:
            nowhere: the row of the recorded sums that is of no request.
        """
        self.rows.zero_()
        self.weight.zero_()
        self.readers.zero_()
        self.score.zero_()
        self.target.fill_(nowhere)
        self.steered.zero_()


def to_device(array: NDArray[np.generic], device: torch.device) -> Tensor:
    """Copy to the device on the current stream, without waiting and without a buffer that the next step could overwrite."""
    tensor = torch.from_numpy(array)
    if device.type == "cpu":
        return tensor.clone()
    return tensor.pin_memory().to(device, non_blocking=True)


_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@torch.library.custom_op("trimtab::accumulate", mutates_args=("sums",))
def accumulate(activation: Tensor, target: Tensor, sums: Tensor, moments: list[int]) -> None:
    """``sums[m, target[t]] += f_m(activation[t])``.

    An operator of its own, since a graph that writes to a slice of a buffer may copy all of it.

    Args:
        activation: ``[token, d_ff]``.
        target: int64 ``[token]``.
        sums: float32 ``[moment, row, d_ff]``.
        moments: which of :data:`trimtab.moments.MOMENTS` each of them is.
    """
    values = activation.float()
    for moment, into in zip(moments, sums, strict=True):
        into.index_add_(0, target, (values, values.abs(), values.square())[moment])


class LayerTable(nn.Module):
    """Steered neurons, gate features and recorded sums of one layer on one rank.

    ``x' = x + weight * (gain[row] * x + shift[row])`` at ``index``, the change computed in float32 and added in x's dtype; row 0
    is all zeros. A free column has index 0 and zeros in every row, so its part of the sum is nothing: that is why the change is
    added and not written. ``output_shift`` is ``[row, d_model]`` of the output side, which has no other entries.
    """

    index: Tensor
    gain: Tensor
    shift: Tensor
    feature_index: Tensor
    feature_weight: Tensor
    output_shift: Tensor
    fired: Tensor
    sums: Tensor
    rows: Tensor
    weight: Tensor
    readers: Tensor
    score: Tensor
    target: Tensor
    steered: Tensor

    def __init__(
        self,
        step: StepBuffers,
        n_rows: int,
        neurons: int,
        features: int,
        d_model: int,
        sums: Tensor | None,
        moments: tuple[str, ...],
    ) -> None:
        """Allocate tables of zeros.

        Args:
            step: shared by all layers.
            n_rows: slots and the rows beside them. There are twice as many of what is read, the second half for running gates.
            neurons, features: columns of the tables.
            d_model: width of the output side's table, 0 on the input side.
            sums: float32 ``[moment, row, d_ff]`` where moments are recorded.
            moments: names of the moments.
        """
        super().__init__()
        device = step.device
        self.steers_input, self.steers_output, self.reads, self.records = neurons > 0, d_model > 0, features > 0, sums is not None
        self.moments = [MOMENTS.index(name) for name in moments]
        own = {
            "index": torch.zeros(neurons, dtype=torch.int64, device=device),
            "gain": torch.zeros(n_rows, neurons, device=device),
            "shift": torch.zeros(n_rows, neurons, device=device),
            "feature_index": torch.zeros(features, dtype=torch.int64, device=device),
            "feature_weight": torch.zeros(2 * n_rows, features, device=device),
            "output_shift": torch.zeros(n_rows, d_model, device=device),
            "fired": torch.zeros(1, dtype=torch.int64, device=device),
            "sums": torch.zeros(0, device=device) if sums is None else sums,
        }
        shared = {name: getattr(step, name) for name in ("rows", "weight", "readers", "score", "target", "steered")}
        for name, tensor in (own | shared).items():
            self.register_buffer(name, tensor, persistent=False)

    def edit_input(self, activation: Tensor) -> Tensor:
        """Read, record and steer the down projection's input ``[token, d_ff]``."""
        if not isinstance(activation, Tensor) or activation.dtype not in _FLOATS:
            raise ModelError(
                "this model hands its down projections quantised activations, in which no neuron can be changed. "
                "Fix: side 'output' without a gate, or an engine that does not quantise activations"
            )
        tokens = activation.shape[0]
        rows = self.rows[:tokens]
        if self.reads:
            features = activation.index_select(1, self.feature_index).float()
            self.score[:tokens].add_((features * self.feature_weight.index_select(0, self.readers[:tokens])).sum(1))
        if self.records:
            torch.ops.trimtab.accumulate(activation, self.target[:tokens], self.sums, self.moments)
        if not self.steers_input:
            return activation
        self.fired.add_(self.steered)
        chosen = activation.index_select(1, self.index).float()
        change = self.gain.index_select(0, rows) * chosen + self.shift.index_select(0, rows)
        change = self.weight[:tokens].unsqueeze(1) * change
        return activation.index_add(1, self.index, change.to(activation.dtype))

    def edit_output(self, output: Tensor) -> Tensor:
        """Steer the down projection's output ``[token, d_model]``."""
        tokens = output.shape[0]
        self.fired.add_(self.steered)
        change = self.weight[:tokens].unsqueeze(1) * self.output_shift.index_select(0, self.rows[:tokens])
        return output + change.to(output.dtype)


NAME = "trimtab"
"""Under which a down projection holds its table."""


def hook(module: nn.Module, table: LayerTable) -> None:
    """Put a table on a down projection, and the hooks through which every forward passes."""
    module.add_module(NAME, table)
    if table.steers_input or table.reads or table.records:
        module.register_forward_pre_hook(_before)
    if table.steers_output:
        module.register_forward_hook(_after)


def _before(module: nn.Module, inputs: tuple[object, ...]) -> tuple[object, ...]:
    table = cast("LayerTable", module.trimtab)
    return (table.edit_input(cast("Tensor", inputs[0])), *inputs[1:])


def _after(module: nn.Module, inputs: tuple[object, ...], output: object) -> object:  # noqa: ARG001
    table = cast("LayerTable", module.trimtab)
    if isinstance(output, tuple):  # vLLM's linear layers return their output and a bias that was not added
        return (table.edit_output(cast("Tensor", output[0])), *output[1:])
    return table.edit_output(cast("Tensor", output))


_PATH = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.mlp\.(?:down_proj|c_proj|dense_4h_to_h|fc2|fc_out)$")
_OTHER_TOWERS = re.compile(r"visual|vision|audio|image|draft")


def down_projections(model: nn.Module, n_layers: int, side: Side) -> tuple[nn.Module, ...]:
    """Return each layer's down projection in order: the module whose input is the layer's neurons.

    Raises:
        ModelError: a layer without one, where experts are fused or a rank holds a stub; or one that is wrapped by LoRA.
    """
    found: dict[int, nn.Module] = {}
    for name, module in model.named_modules():
        match = _PATH.search(name)
        if match is not None and not _OTHER_TOWERS.search(name):
            found[int(match[1])] = module
    missing = [layer for layer in range(n_layers) if layer not in found]
    if missing:
        kinds = sorted({type(module).__name__ for module in model.modules() if re.search("MoE|Missing", type(module).__name__)})
        raise ModelError(
            f"no down projection in layers {missing[:8]} of {type(model).__name__}"
            + (f", which holds {', '.join(kinds)}: fused experts have no neurons to hook, stubs no layer" if kinds else "")
            + f". Known: modules whose path matches {_PATH.pattern}. "
            "Fix: a dense model without pipeline parallelism, or export the steering as merged weights"
        )
    modules = tuple(found[layer] for layer in range(n_layers))
    if side == "input" and any(is_lora(module) for module in modules):
        raise ModelError(
            "the down projections are wrapped by LoRA, which calls the weights past any hook on their input. "
            "Fix: side 'output' (additive steerings only), or leave out --enable-lora"
        )
    return modules


def is_lora(module: nn.Module) -> bool:
    """Whether vLLM has put an adapter's wrapper around a module."""
    return type(module).__name__.endswith("WithLoRA")
