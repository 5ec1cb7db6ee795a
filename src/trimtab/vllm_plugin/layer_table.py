"""What one layer's hook computes, and the tables it reads. This is what the compiled graph holds."""

import torch
from torch import Tensor, nn

from trimtab.errors import ModelError
from trimtab.moments import MOMENTS
from trimtab.vllm_plugin.step_buffers import StepBuffers

_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@torch.library.custom_op("trimtab::accumulate", mutates_args=("sums",))
def accumulate(activation: Tensor, target: Tensor, sums: Tensor, moments: list[int]) -> None:
    """``sums[m, target[t]] += f_m(activation[t])``.

    An intervention of its own, since a graph that writes to a slice of a buffer may copy all of it.

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
        """Tables of zeros.

        Args:
            step: shared by all layers.
            n_rows: slots and the rows beside them.
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
            "feature_weight": torch.zeros(n_rows, features, device=device),
            "output_shift": torch.zeros(n_rows, d_model, device=device),
            "fired": torch.zeros(1, dtype=torch.int64, device=device),
            "sums": torch.zeros(0, device=device) if sums is None else sums,
        }
        shared = {"rows": step.rows, "weight": step.weight, "score": step.score, "target": step.target, "steered": step.steered}
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
            self.score[:tokens].add_((features * self.feature_weight.index_select(0, rows)).sum(1))
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
