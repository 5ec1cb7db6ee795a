"""The size of a steering's edit relative to the output of each layer's FFN, so that a strength can be judged before it is used.

At unit strength the dose of layer l is

    ``dose_l = sqrt(sum_t ||W_down[:, S] (gain * a_t + shift)||^2 / sum_t ||FFN(t)||^2)``

over the generated tokens t of calibration traces, unsteered. For an intervention that only adds it is
``||W_down shift||`` over the root mean square norm of the FFN's output. At strength s it is ``|s| * dose_l``.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from torch import Tensor, nn

from trimtab.analysis.passes import BATCH_TOKENS, batches, response_mask, with_response
from trimtab.dose import Dose
from trimtab.errors import ModelError
from trimtab.model import LanguageModel, down_weights, watch_neurons
from trimtab.recording.tokens import right_padded
from trimtab.steering import Steering
from trimtab.traces import Trace

CALIBRATION = 8
"""Traces that a dose is measured on unless told otherwise."""


@torch.inference_mode()
def measure_doses(
    model: LanguageModel, steerings: Sequence[Steering], traces: Sequence[Trace], *, batch_tokens: int = BATCH_TOKENS
) -> list[Dose]:
    """The dose of several steerings at unit strength, from one unsteered pass over some traces.

    Args:
        steerings: of this model; their strengths, scopes and gates are not read.
        traces: of the unsteered model; those without a forwarded response token are left out.
        batch_tokens: bounds rows x longest row of one forward.

    Raises:
        ModelError: a steering with directions, a mixture of experts, or a down projection that is no plain matrix.
        NotEnoughDataError: no trace with two response tokens.

    Example:
        >>> (dose,) = measure_doses(model, [steering], traces)  # doctest: +SKIP
        >>> dose.largest * steering.strength  # doctest: +SKIP
        0.41
    """
    if any(steering.has_directions or not steering.has_neurons for steering in steerings):
        raise ModelError(
            "the dose is of the neurons that a steering edits; a direction in the residual stream has another measure"
        )
    if model.layout.mixture:
        raise ModelError("in a mixture of experts an edit reaches the output through the routing weight, so it has no one dose")
    kept = with_response(traces).traces
    layers = sorted({int(layer) for steering in steerings for layer in steering.layer})
    meters = {layer: _LayerMeter(model, layer, steerings) for layer in layers}
    tokens = 0
    for batch in batches(model, kept, batch_tokens):
        ids = right_padded(model, batch)
        mask = response_mask(batch, ids.shape[1])
        with ExitStack() as hooks:
            for meter in meters.values():
                meter.install(hooks, mask)
            model.layout.base(input_ids=ids.to(model.device), use_cache=False)
        tokens += int(mask.sum())
    return [_dose(i, steering, meters, tokens) for i, steering in enumerate(steerings)]


def _dose(number: int, steering: Steering, meters: dict[int, "_LayerMeter"], tokens: int) -> Dose:
    layers = np.unique(steering.layer).tolist()
    return Dose(tuple(layers), tuple(meters[layer].dose(number) for layer in layers), tokens)


class _LayerMeter:
    """Sums of squares of one layer: of its FFN's output, and of what each steering would add to it."""

    def __init__(self, model: LanguageModel, layer: int, steerings: Sequence[Steering]) -> None:
        self._layer, self._model = layer, model
        rows = {i: np.flatnonzero(steering.layer == layer) for i, steering in enumerate(steerings)}
        self._chosen = {i: row for i, row in rows.items() if len(row)}
        union = np.unique(np.concatenate([steerings[i].index[row] for i, row in self._chosen.items()]))
        self._union = torch.from_numpy(union)
        weight = torch.from_numpy(down_weights(model, [layer])[layer])
        self._maps: dict[int, tuple[Tensor, Tensor, Tensor, Tensor]] = {}
        for i, row in self._chosen.items():
            steering, index = steerings[i], steerings[i].index[row]
            place = torch.from_numpy(np.searchsorted(union, index))
            gain, shift = torch.from_numpy(steering.gain[row]), torch.from_numpy(steering.shift[row])
            self._maps[i] = place, gain, shift, weight[:, torch.from_numpy(index)].T.contiguous()
        self._edit, self._written = dict.fromkeys(self._maps, 0.0), 0.0

    def install(self, hooks: ExitStack, mask: Tensor) -> None:
        """Watch one forward, at the positions of ``mask``, bool ``[batch, seq]``."""
        layout, module = self._model.layout, self._model.layout.modules[self._layer]
        assert isinstance(module, nn.Module)  # it has neurons
        hooks.callback(watch_neurons(layout, self._layer, self._union, self._seer(mask)).remove)
        hooks.callback(module.register_forward_hook(self._sizer(mask)).remove)

    def dose(self, number: int) -> float:
        """Of one steering."""
        if not self._written:
            raise ModelError(f"the FFN of layer {self._layer} writes nothing on these traces, so its dose is not defined")
        return (self._edit[number] / self._written) ** 0.5

    def _seer(self, mask: Tensor) -> Callable[[Tensor], None]:
        def see(seen: Tensor) -> None:
            activation = seen.float().cpu().reshape(*mask.shape, -1)[mask]  # some blocks flatten both
            for i, (place, gain, shift, columns) in self._maps.items():
                edit = (gain * activation[:, place] + shift) @ columns
                self._edit[i] += float(edit.double().square().sum())

        return see

    def _sizer(self, mask: Tensor) -> Callable[[nn.Module, tuple[object, ...], Tensor], None]:
        def size(module: nn.Module, inputs: tuple[object, ...], output: Tensor) -> None:  # noqa: ARG001
            self._written += float(output.float().cpu().reshape(*mask.shape, -1)[mask].double().square().sum())

        return size
