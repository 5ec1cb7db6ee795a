"""Reading a gate in the prefill that starts a generation: layer by layer, each row its own prompt."""

from typing import Protocol

import torch
from torch import Tensor

from trimtab.gate import AnyGate, AttentionGate, Gate
from trimtab.model.forwards import Forward, Positions, prompt_positions
from trimtab.model.plan import FeaturePlan


class GateReading(Protocol):
    """What a gate has seen of one prefill."""

    def add(self, features: FeaturePlan, activation: Tensor) -> None:
        """Take in one layer's ``[batch, seq, d_ff]``."""

    def logit(self) -> Tensor:
        """The logit of p(fail), float32 ``[batch]``, once every layer was taken in."""
        ...


def begin_reading(gate: AnyGate, forward: Forward, positions: Positions, prompt_lengths: Tensor | None) -> GateReading:
    """Begin to read a prefill.

    Args:
        positions: of the forward; the last prompt token is where the default gate reads.
        prompt_lengths: int64 ``[batch]``, None when the prefill holds prompts only.

    Raises:
        ModelError: an attention mask that does not show which positions are padding.
    """
    if isinstance(gate, AttentionGate):
        return _Attention(gate, prompt_positions(forward, prompt_lengths))
    if gate.pooling == "mean":
        return _Mean(gate, prompt_positions(forward, prompt_lengths))
    assert positions.prompt_end is not None
    return _LastToken(gate, positions.prompt_end)


class _LastToken:
    """``w . a`` of the last prompt token."""

    def __init__(self, gate: Gate, position: Tensor) -> None:
        self._gate, self._position = gate, position
        self._score = torch.zeros(len(position), device=position.device)

    def add(self, features: FeaturePlan, activation: Tensor) -> None:
        self._score = self._score + features.score(activation, self._position).to(self._score.device)

    def logit(self) -> Tensor:
        return self._score + self._gate.bias


class _Mean:
    """``w . mean_t a_t`` over the prompt's tokens, which is the mean of ``w . a_t``."""

    def __init__(self, gate: Gate, prompt: Tensor) -> None:
        self._gate, self._prompt = gate, prompt
        self._scores = torch.zeros(prompt.shape, device=prompt.device)

    def add(self, features: FeaturePlan, activation: Tensor) -> None:
        self._scores = self._scores + features.scores(features.values(activation)).to(self._scores.device)

    def logit(self) -> Tensor:
        # what stands at padding may be anything, NaN too, so it is taken out rather than multiplied by 0
        return self._scores.where(self._prompt, 0.0).sum(1) / self._prompt.sum(1) + self._gate.bias


class _Attention:
    """Attention pooling: a token's weight needs every layer's part of its score, so the features are kept until then."""

    def __init__(self, gate: AttentionGate, prompt: Tensor) -> None:
        self._gate, self._prompt = gate, prompt
        self._scores = torch.zeros(prompt.shape, device=prompt.device)
        self._kept: list[tuple[Tensor, Tensor]] = []

    def add(self, features: FeaturePlan, activation: Tensor) -> None:
        values = features.values(activation)
        self._scores = self._scores + features.scores(values).to(self._scores.device)
        self._kept.append((features.column, values))

    def logit(self) -> Tensor:
        gate, device = self._gate, self._prompt.device
        scores = torch.tanh(self._scores + gate.query_bias)
        weight = torch.softmax(scores.masked_fill(~self._prompt, -torch.inf), dim=1)
        pooled = torch.empty(len(weight), len(gate.layer), device=device)
        for column, values in self._kept:
            real = values.to(device).masked_fill(~self._prompt.unsqueeze(-1), 0.0)
            pooled[:, column.to(device)] = torch.bmm(weight.unsqueeze(1), real).squeeze(1)
        hidden, offset, output = (torch.tensor(array, device=device) for array in (gate.hidden, gate.offset, gate.output))
        return torch.relu(pooled @ hidden.T + offset) @ output + gate.bias
