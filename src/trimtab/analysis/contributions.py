"""The contribution of each place of a steering to the logit of one token, and the size of its edit relative to the FFN's output.

A place is a neuron or a direction. The edit of neuron n at a position is ``delta_n = strength * g * (gain_n * a_n + shift_n)``;
it adds ``delta_n * W_down[:, n]`` to the residual stream. In a mixture of experts that is ``delta_n * r_n * W_down[e][:, n]``,
with r_n the token's routing weight for the neuron's expert, 0 where the token is not routed to it. A direction v adds
``strength * g * v``. What is added, u, changes the logit of a token y of the same position by

    ``unembedding[y] . (s * scale * u)``

where ``s * scale`` is the final norm as it stands at that position, steered (for a LayerNorm without the mean). It is the direct
path: exact for the last layer with the norm held as it is; what later layers and later tokens make of the edit is left out. A cap
on the logits (Gemma 2) is left out too: it is monotone.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from trimtab.analysis.passes import Readout
from trimtab.analysis.vocabulary import NormMap, find_norms
from trimtab.errors import ModelError
from trimtab.gate import RunningGate
from trimtab.model import LanguageModel, down_weights
from trimtab.model.hook_points import decoder_blocks, residual, watch_neurons, watch_routing
from trimtab.steering import Steering


@dataclass(frozen=True, slots=True, eq=False)
class DirectPath:
    """From the places of a steering, its neurons and then its directions, to the logits.

    Args:
        written: float32 ``[place, d_model]``, ``W_down[:, n]`` of each neuron, and each direction.
        scaled: float32 ``[place, d_model]``, the same through the final norm up to its positive factor.
        norm: the final norm; None where the model has none.
        unembedding: ``[vocab, d_model]``.
        factor: what the model multiplies its logits by.
    """

    written: Tensor
    scaled: Tensor
    norm: NormMap | None
    unembedding: Tensor
    factor: float

    def norm_factor(self, stream: Tensor, hidden: Tensor) -> Tensor:
        """``s`` of each position, float32 ``[token]``, from what the final norm was given and gave, ``[token, d_model]``."""
        if self.norm is None:
            return torch.ones(len(stream), device=stream.device)
        given = stream.float() - (stream.float().mean(-1, keepdim=True) if self.norm.centred else 0.0)
        scale, bias = (torch.from_numpy(a).float().to(stream.device) for a in (self.norm.scale, self.norm.bias))
        mapped = scale * given
        return ((hidden.float() - bias) * mapped).sum(-1) / mapped.square().sum(-1)

    def contributions(self, delta: Tensor, tokens: Tensor, factor: Tensor) -> Tensor:
        """Logit of ``tokens`` that each place's edit adds directly, float32 ``[token, place]``.

        Args:
            delta: float32 ``[token, place]``, of :meth:`EditWatch.delta`.
            tokens: int64 ``[token]``, whose logit.
            factor: float32 ``[token]``, of :meth:`norm_factor`.
        """
        towards = self.unembedding[tokens.to(self.unembedding.device)].float() @ self.scaled.T
        return self.factor * factor[:, None] * delta * towards.to(delta.device)


def direct_path(model: LanguageModel, steering: Steering, readout: Readout) -> DirectPath:
    """The way from a steering's places to the logits.

    Raises:
        ModelError: an architecture in which it is not one matrix and one norm: an FFN whose output is normalised before it joins
            the residual stream, where neurons are steered, or quantised or offloaded weights.
    """
    norms = find_norms(model)
    if norms.after_ffn and steering.has_neurons:
        raise ModelError("this architecture normalises the FFN's output, so a neuron's edit does not add up with the others")
    head = readout.head
    if type(head) is not nn.Linear or head.weight.is_meta:
        raise ModelError(f"the unembedding is a {type(head).__name__} that cannot be read as a matrix")
    written = np.concatenate([_columns(model, steering), steering.direction.reshape(-1, model.identity.d_model)]).astype(
        np.float64
    )
    scaled = written if norms.final is None else norms.final.apply(written)
    on = {"dtype": torch.float32, "device": head.weight.device}
    return DirectPath(torch.tensor(written, **on), torch.tensor(scaled, **on), norms.final, head.weight, readout.scale)


def _columns(model: LanguageModel, steering: Steering) -> NDArray[np.float32]:
    """``W_down[:, n]`` of each neuron, ``[neuron, d_model]``; one layer after the other, since experts are wide."""
    columns = np.empty((len(steering.layer), model.identity.d_model), np.float32)
    for layer in np.unique(steering.layer).tolist():
        here = np.flatnonzero(steering.layer == layer)
        columns[here] = down_weights(model, [layer])[layer][:, steering.index[here]].T
    return columns


def why_not(model: LanguageModel, steering: Steering, readout: Readout) -> str:
    """Why contributions cannot be computed for this model, in a sentence; empty where they can."""
    try:
        direct_path(model, steering, readout)
    except ModelError as error:
        return str(error)
    return ""


def why_no_dose(model: LanguageModel, steering: Steering) -> str:
    """Why this steering has no dose, the norm of its edit over the norm of what the FFN writes; empty where it has one."""
    if steering.has_directions:
        return "a direction is added to the residual stream and not to what an FFN writes"
    if model.layout.mixture:
        return "in a mixture of experts an edit reaches the output through the routing weight, so it has no one dose"
    return ""


class EditWatch:
    """Sees what steering does in one forward: activations before the edit, and how large it is beside the FFN's output.

    Its hooks must be there before the steering's, so that they see the activations as the model computed them.

    Args:
        weight: float32 ``[batch, seq]``, strength times g where steering acts, 0 elsewhere.
        path: None sees activations alone.
        probe: whose neurons are seen as well.
    """

    def __init__(
        self,
        model: LanguageModel,
        steering: Steering,
        weight: Tensor,
        path: DirectPath | None,
        probe: RunningGate | None = None,
    ) -> None:
        self._model, self._steering, self._path, self._probe = model, steering, path, probe
        self._weight, self._on = weight, weight != 0
        self.activations = torch.zeros(*weight.shape, len(steering.layer))
        self.features = torch.zeros(*weight.shape, 0 if probe is None else len(probe.layer))
        self._routing = torch.ones(*weight.shape, len(steering.layer)) if model.layout.mixture else None
        self._edit, self._written = torch.zeros_like(weight), torch.zeros_like(weight)
        self.stream: Tensor | None = None
        self._gain, self._shift = torch.from_numpy(steering.gain), torch.from_numpy(steering.shift)

    def install(self, hooks: ExitStack) -> None:
        """Add the hooks that go before the steering's, to be taken away with ``hooks``."""
        steering, layout = self._steering, self._model.layout
        doses = self._path is not None and bool(self._on.any()) and not why_no_dose(self._model, steering)
        for layer in np.unique(steering.layer).tolist():
            rows = torch.from_numpy(np.flatnonzero(steering.layer == layer))
            index = torch.from_numpy(steering.index)[rows]
            hooks.callback(watch_neurons(layout, layer, index, self._into(self.activations, rows)).remove)
            if self._routing is not None and layout.layers[layer].sparse:
                hooks.callback(watch_routing(layout, layer, index, self._into(self._routing, rows)).remove)
            if doses and isinstance(layout.modules[layer], nn.Linear | Conv1D):
                hooks.callback(layout.modules[layer].register_forward_hook(self._sizer(rows)).remove)
        if self._probe is not None:
            for layer in np.unique(self._probe.layer).tolist():
                rows = torch.from_numpy(np.flatnonzero(self._probe.layer == layer))
                index = torch.from_numpy(self._probe.index)[rows]
                hooks.callback(watch_neurons(layout, layer, index, self._into(self.features, rows)).remove)

    def install_last(self, hooks: ExitStack) -> None:
        """Add the hook that goes after the steering's: what the final norm is given, directions included."""
        if self._path is not None:
            last = decoder_blocks(self._model.layout)[-1]
            hooks.callback(last.register_forward_hook(self._keep).remove)

    def delta(self, row: Tensor, column: Tensor) -> Tensor:
        """What each place adds at some positions, as a multiple of what it writes: float32 ``[position, place]``."""
        weight = self._weight[row, column].unsqueeze(-1)
        neurons = weight * (self._gain * self.activations[row, column] + self._shift)
        if self._routing is not None:
            neurons = neurons * self._routing[row, column]
        return torch.cat([neurons, weight.expand(-1, len(self._steering.direction_layer))], -1)

    @property
    def dose(self) -> Tensor:
        """Norm of the edit over the norm of the FFN's output without it, over all steered layers together; ``[batch, seq]``."""
        return torch.where(self._written > 0, (self._edit / self._written).sqrt(), 0.0)

    def _into(self, values: Tensor, rows: Tensor) -> Callable[[Tensor], None]:
        def see(seen: Tensor) -> None:
            values[..., rows] = seen.float().cpu().reshape(*self._weight.shape, -1)  # some blocks flatten both

        return see

    def _sizer(self, rows: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        on = self._on

        def size(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ARG001
            assert self._path is not None
            change = self._gain[rows] * self.activations[..., rows][on] + self._shift[rows]
            edit = (self._weight[on].unsqueeze(-1) * change).to(output.device) @ self._path.written[rows].to(output.device)
            without = output.reshape(*on.shape, -1)[on.to(output.device)].float() - edit
            self._edit[on] += edit.square().sum(-1).cpu()
            self._written[on] += without.square().sum(-1).cpu()

        return size

    def _keep(self, block: nn.Module, inputs: tuple[object, ...], output: object) -> None:  # noqa: ARG002
        self.stream = residual(output)
