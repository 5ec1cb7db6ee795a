"""What each steered neuron's edit adds to the logit of one token, and how large the edit is beside what the FFN writes.

The edit of neuron n at a position is ``delta_n = strength * g * (gain_n * a_n + shift_n)``. It adds ``delta_n * W_down[:, n]`` to
the residual stream, and so to the logit of a token y of the same position

    ``unembedding[y] . (s * scale * delta_n * W_down[:, n])``

where ``s * scale`` is the final norm as it stands at that position, steered (for a LayerNorm without the mean). It is the direct
path: exact for the last layer with the norm held as it is; what later layers and later tokens make of the edit is left out. A cap
on the logits (Gemma 2) is left out too: it is monotone.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from trimtab.analysis.passes import Readout
from trimtab.analysis.vocabulary import NormMap, find_norms
from trimtab.errors import ModelError
from trimtab.model import LanguageModel, down_weights
from trimtab.model.hook_points import decoder_blocks, residual, watch_neurons
from trimtab.steering import Steering


@dataclass(frozen=True, slots=True, eq=False)
class DirectPath:
    """From the steered neurons to the logits.

    Args:
        written: float32 ``[neuron, d_model]``, ``W_down[:, n]`` of each.
        scaled: float32 ``[neuron, d_model]``, the same through the final norm up to its positive factor.
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
        """Logit of ``tokens`` that each neuron's edit adds directly, float32 ``[token, neuron]``.

        Args:
            delta: float32 ``[token, neuron]``, the edits.
            tokens: int64 ``[token]``, whose logit.
            factor: float32 ``[token]``, of :meth:`norm_factor`.
        """
        towards = self.unembedding[tokens.to(self.unembedding.device)].float() @ self.scaled.T
        return self.factor * factor[:, None] * delta * towards.to(delta.device)


def direct_path(model: LanguageModel, steering: Steering, readout: Readout) -> DirectPath:
    """The way from a steering's neurons to the logits.

    Raises:
        ModelError: an architecture in which it is not one matrix and one norm: a mixture of experts, an FFN whose output is
            normalised before it joins the residual stream, or quantised or offloaded weights.
    """
    if model.layout.mixture:
        raise ModelError("in a mixture of experts a neuron's edit reaches the logits through the routing weight")
    norms = find_norms(model)
    if norms.after_ffn:
        raise ModelError("this architecture normalises the FFN's output, so a neuron's edit does not add up with the others")
    head = readout.head
    if type(head) is not nn.Linear or head.weight.is_meta:
        raise ModelError(f"the unembedding is a {type(head).__name__} that cannot be read as a matrix")
    down = down_weights(model, np.unique(steering.layer).tolist())
    written = np.stack([down[layer][:, index] for layer, index in zip(*_addresses(steering), strict=True)]).astype(np.float64)
    scaled = written if norms.final is None else norms.final.apply(written)
    on = {"dtype": torch.float32, "device": head.weight.device}
    return DirectPath(torch.tensor(written, **on), torch.tensor(scaled, **on), norms.final, head.weight, readout.scale)


def why_not(model: LanguageModel, steering: Steering, readout: Readout) -> str:
    """Why contributions cannot be told for this model, in a sentence; empty where they can."""
    if steering.has_directions:
        return "this steering adds to the residual stream itself, and only the edits of neurons are told apart"
    try:
        direct_path(model, steering, readout)
    except ModelError as error:
        return str(error)
    return ""


class EditWatch:
    """Sees what steering does in one forward: activations before the edit, and how large it is beside the FFN's output.

    Its hooks must be there before the steering's, so that they see the activations as the model computed them.

    Args:
        weight: float32 ``[batch, seq]``, strength times g where steering acts, 0 elsewhere.
        path: None sees activations alone.
    """

    def __init__(self, model: LanguageModel, steering: Steering, weight: Tensor, path: DirectPath | None) -> None:
        self._model, self._steering, self._path = model, steering, path
        self._weight = weight
        self.activations = torch.zeros(*weight.shape, len(steering.layer))
        self._edit, self._written = torch.zeros_like(weight), torch.zeros_like(weight)
        self.stream: Tensor | None = None
        self._gain, self._shift = torch.from_numpy(steering.gain), torch.from_numpy(steering.shift)

    def install(self, hooks: ExitStack) -> None:
        """Add the hooks, to be taken away with ``hooks``."""
        steering, layout = self._steering, self._model.layout
        for layer in np.unique(steering.layer).tolist():
            rows = torch.from_numpy(np.flatnonzero(steering.layer == layer))
            index = torch.from_numpy(steering.index)[rows]
            hooks.callback(watch_neurons(layout, layer, index, self._seer(rows)).remove)
            if self._path is not None and isinstance(layout.modules[layer], nn.Linear | Conv1D):
                hooks.callback(layout.modules[layer].register_forward_hook(self._sizer(rows)).remove)
        if self._path is not None:
            last = decoder_blocks(self._model.layout)[-1]
            hooks.callback(last.register_forward_hook(self._keep).remove)

    @property
    def delta(self) -> Tensor:
        """The edits, float32 ``[batch, seq, neuron]``."""
        return self._delta(torch.arange(len(self._steering.layer)))

    @property
    def dose(self) -> Tensor:
        """Norm of the edit over the norm of the FFN's output without it, over all steered layers together; ``[batch, seq]``."""
        return torch.where(self._written > 0, (self._edit / self._written).sqrt(), 0.0)

    def _delta(self, rows: Tensor) -> Tensor:
        change = self._gain[rows] * self.activations[..., rows] + self._shift[rows]
        return self._weight.unsqueeze(-1) * change

    def _seer(self, rows: Tensor):
        def see(seen: Tensor) -> None:
            self.activations[..., rows] = seen.float().cpu().reshape(*self._weight.shape, -1)  # some blocks flatten both

        return see

    def _sizer(self, rows: Tensor):
        def size(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ARG001
            assert self._path is not None
            edit = self._delta(rows).to(output.device) @ self._path.written[rows].to(output.device)
            without = output.float().reshape(edit.shape) - edit
            self._edit += edit.square().sum(-1).cpu()
            self._written += without.square().sum(-1).cpu()

        return size

    def _keep(self, block: nn.Module, inputs: tuple[object, ...], output: object) -> None:  # noqa: ARG002
        self.stream = residual(output)


def _addresses(steering: Steering) -> Sequence[list[int]]:
    return steering.layer.tolist(), steering.index.tolist()
