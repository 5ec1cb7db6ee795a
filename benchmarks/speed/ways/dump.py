"""The published way's pipeline: every activation of every token to disk, one trace at a time, then averages from the files."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForCausalLM

from benchmarks.speed.ways.job import Job, Pass, TokenTrace

Table = Callable[[Tensor], tuple[NDArray[np.float32], float]]
"""Activations ``[token, d_ff]`` as the table that is dumped, and the seconds that were extrapolated."""


def dumping(model: Path, job: Job, table: Table) -> Pass:
    """A pass that dumps float32 ``[token, d_ff]`` a trace and layer, reads all of it back and averages over the response."""
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()

    def run(folder: Path) -> float:
        extrapolated = sum(_dump(loaded, trace, folder, number, table) for number, trace in enumerate(job.traces))
        means = [_averages(folder, number, trace, len(loaded.model.layers)) for number, trace in enumerate(job.traces)]
        np.save(folder / "means.npy", np.stack(means, 1))
        return extrapolated

    return run


@torch.inference_mode()
def _dump(loaded: torch.nn.Module, trace: TokenTrace, folder: Path, number: int, table: Table) -> float:
    extrapolated = 0.0

    def hook(layer: int):
        def write(_: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
            nonlocal extrapolated
            rows, seconds = table(inputs[0][0])
            extrapolated += seconds
            np.save(folder / f"trace-{number:03d}-layer-{layer:02d}.npy", rows)

        return write

    layers = loaded.model.layers  # type: ignore[union-attr]
    handles = [layer.mlp.down_proj.register_forward_pre_hook(hook(i)) for i, layer in enumerate(layers)]  # type: ignore[union-attr]
    loaded(input_ids=torch.tensor([trace.forwarded]), use_cache=False)
    for handle in handles:
        handle.remove()
    return extrapolated


def _averages(folder: Path, number: int, trace: TokenTrace, layers: int) -> NDArray[np.float32]:
    """``[moment, layer, d_ff]``."""
    means = []
    for layer in range(layers):
        response = np.load(folder / f"trace-{number:03d}-layer-{layer:02d}.npy")[len(trace.prompt) :]
        means.append(np.stack((response.mean(0), np.abs(response).mean(0))))
    return np.stack(means, 1)


def as_they_are(activations: Tensor) -> tuple[NDArray[np.float32], float]:
    """The whole table at once."""
    return activations.numpy(), 0.0


def neuron_by_neuron(tokens: int) -> Table:
    """A Python loop over the neurons of every token, run for the first ``tokens`` of a trace.

    The loop's seconds for the other tokens are extrapolated, since every token costs the same; their values are taken at once.
    """

    def table(activations: Tensor) -> tuple[NDArray[np.float32], float]:
        total, d_ff = activations.shape
        looped = min(tokens, total)
        start = time.perf_counter()
        rows = [[activations[token, neuron].item() for neuron in range(d_ff)] for token in range(looped)]
        head = np.array(rows, np.float32)
        seconds = time.perf_counter() - start
        return np.concatenate((head, activations[looped:].numpy())), seconds * (total - looped) / looped

    return table
