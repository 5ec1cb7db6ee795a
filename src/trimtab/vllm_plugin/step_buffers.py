"""What varies from step to step, in buffers that a compiled graph reads: they keep their place, only their content changes."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class StepBuffers:
    """One entry a token of the batch; what lies behind the last token is zero.

    Args:
        rows: int64 ``[token]``, slot of the steering.
        weight: float32 ``[token]``, strength times gate, 0 outside the scope.
        score: float32 ``[token]``, ``w . x`` of the slot's gate, summed up over the layers of this rank.
        target: int64 ``[token]``, row of the recorded sums; the last one is of no request.
        steered: int64 ``[1]``, tokens with a weight in this step.
    """

    rows: Tensor
    weight: Tensor
    score: Tensor
    target: Tensor
    steered: Tensor

    @classmethod
    def make(cls, tokens: int, device: torch.device) -> "StepBuffers":
        """Buffers for at most so many tokens a step."""
        integers = {"dtype": torch.int64, "device": device}
        return cls(
            torch.zeros(tokens, **integers),
            torch.zeros(tokens, device=device),
            torch.zeros(tokens, device=device),
            torch.zeros(tokens, **integers),
            torch.zeros(1, **integers),
        )

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.rows.device

    @property
    def capacity(self) -> int:
        """The number of tokens they hold."""
        return len(self.rows)

    def clear(self, nowhere: int) -> None:
        """Nothing is steered, read or recorded.

        Args:
            nowhere: the row of the recorded sums that is of no request.
        """
        self.rows.zero_()
        self.weight.zero_()
        self.score.zero_()
        self.target.fill_(nowhere)
        self.steered.zero_()


def to_device(array: NDArray[np.generic], device: torch.device) -> Tensor:
    """Copy to the device on the current stream, without waiting and without a buffer that the next step could overwrite."""
    tensor = torch.from_numpy(array)
    if device.type == "cpu":
        return tensor.clone()
    return tensor.pin_memory().to(device, non_blocking=True)
