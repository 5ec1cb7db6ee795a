"""The input of every way. Nothing here imports trimtab: some ways run in an environment without it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Pass = Callable[[Path], float]
"""One pass into a folder; seconds that were extrapolated."""


@dataclass(frozen=True, slots=True)
class TokenTrace:
    """Token ids of the prompt and of the response, whose last token is not forwarded."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]

    @property
    def forwarded(self) -> tuple[int, ...]:
        """What goes into the model."""
        return (*self.prompt, *self.response[:-1])


@dataclass(frozen=True, slots=True)
class Job:
    """Traces, and their numbers by batch."""

    traces: tuple[TokenTrace, ...]
    batches: tuple[tuple[int, ...], ...]
    batch_tokens: int
    loop_tokens: int

    @classmethod
    def read(cls, path: Path) -> "Job":
        """From the file that :func:`benchmarks.speed.workload.save_job` wrote."""
        data = json.loads(path.read_text())
        traces = tuple(TokenTrace(tuple(t["prompt"]), tuple(t["response"])) for t in data["traces"])
        return cls(traces, tuple(map(tuple, data["batches"])), data["batch_tokens"], data["loop_tokens"])

    def padded(self, batch: Sequence[int], pad: int) -> Tensor:
        """Right-padded ids ``[row, seq]`` of one batch."""
        rows = [self.traces[i].forwarded for i in batch]
        ids = torch.full((len(rows), max(map(len, rows))), pad)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)] = torch.tensor(tokens)
        return ids

    def response_mask(self, batch: Sequence[int]) -> Tensor:
        """Float ``[row, seq]``, 1 on the response."""
        rows = [self.traces[i] for i in batch]
        mask = torch.zeros(len(rows), max(len(trace.forwarded) for trace in rows))
        for row, trace in enumerate(rows):
            mask[row, len(trace.prompt) : len(trace.forwarded)] = 1.0
        return mask


def reduce_batch(activations: Sequence[Tensor], mask: Tensor) -> NDArray[np.float32]:
    """Means ``[moment, row, layer, d_ff]`` of the activations ``[row, seq, d_ff]`` that were kept of every layer."""
    weights = (mask / mask.sum(-1, keepdim=True)).unsqueeze(1)
    means = [torch.cat([torch.bmm(weights, a), torch.bmm(weights, a.abs())], 1) for a in activations]
    return torch.stack(means, 2).transpose(0, 1).numpy()


def save_means(folder: Path, by_batch: Sequence[NDArray[np.float32]], job: Job) -> None:
    """Put the rows of the batches back into the order of the traces."""
    order = [i for batch in job.batches for i in batch]
    np.save(folder / "means.npy", np.concatenate(by_batch, 1)[:, np.argsort(order)])


def load_means(folder: Path) -> NDArray[np.float32]:
    """What :func:`save_means` wrote."""
    return np.load(folder / "means.npy")
