"""The gates of the slots, and a decision from a score, on the device throughout."""

import torch
from torch import Tensor

from trimtab.errors import ModelError
from trimtab.gate import AnyGate, Gate

HISTOGRAM = 20
"""Bins of p(fail) from 0 to 1."""


class GateRows:
    """Bias, threshold and mode of each slot's gate, ``[row]``; and what all gates have decided so far.

    Attributes:
        reads: whether the slot's gate reads the prompt, on the host.
        constant: its value where it reads nothing, on the host.
        histogram: int64 ``[bin]``, p(fail) of the prompts that were read.
        fired: int64 ``[1]``, how many of them are steered.
    """

    def __init__(self, n_rows: int, device: torch.device) -> None:
        """Gates that steer nothing."""
        self.reads = [False] * n_rows
        self.constant = [0.0] * n_rows
        self.bias = torch.zeros(n_rows, device=device)
        self.threshold = torch.full((n_rows,), 0.5, device=device)
        self.proportional = torch.zeros(n_rows, dtype=torch.bool, device=device)
        self.histogram = torch.zeros(HISTOGRAM, dtype=torch.int64, device=device)
        self.fired = torch.zeros(1, dtype=torch.int64, device=device)

    def load(self, slot: int, gate: AnyGate) -> None:
        """A slot's gate.

        Raises:
            ModelError: not a linear one.
        """
        if not isinstance(gate, Gate):
            raise ModelError(f"an engine runs only linear gates, not {gate.label}")
        self.reads[slot], self.constant[slot] = gate.reads, float(gate.kind == "always")
        self.bias[slot], self.threshold[slot] = float(gate.bias), float(gate.threshold)
        self.proportional[slot] = gate.mode == "proportional"

    def clear(self, slot: int) -> None:
        """A slot without a gate."""
        self.reads[slot], self.constant[slot] = False, 0.0

    def probability(self, score: Tensor, rows: Tensor) -> Tensor:
        """``p(fail) = sigmoid(score + bias)``, float32 ``[token]``."""
        return torch.sigmoid(score + self.bias[rows])

    def decide(self, probability: Tensor, rows: Tensor, given: Tensor, asked: Tensor) -> Tensor:
        """g of each prompt, float32 ``[prompt]``: the gate's where it is asked, else as given. What gates decide is counted."""
        threshold = self.threshold[rows]
        hard = (probability >= threshold).float()
        gradual = ((probability - threshold) / (1.0 - threshold)).clamp(0.0, 1.0)
        value = torch.where(self.proportional[rows], gradual, hard)
        bins = (probability * HISTOGRAM).long().clamp(0, HISTOGRAM - 1)
        self.histogram.index_add_(0, bins, asked.long())
        self.fired.add_(((value > 0) & asked).sum())
        return torch.where(asked, value, given)
