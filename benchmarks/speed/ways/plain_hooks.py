"""Plain forward hooks that keep every activation of a batch, and reduce them afterwards."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForCausalLM

from benchmarks.speed.ways.job import Job, Pass, load_means, reduce_batch, save_means


def prepare(model: Path, job: Job) -> Pass:
    """The model loaded with transformers."""
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()

    @torch.inference_mode()
    def run(folder: Path) -> float:
        means = []
        for batch in job.batches:
            kept: list[Tensor] = []
            handles = [
                layer.mlp.down_proj.register_forward_pre_hook(lambda _, inputs, kept=kept: kept.append(inputs[0]))
                for layer in loaded.model.layers
            ]
            loaded.model(input_ids=job.padded(batch, 0), use_cache=False)
            for handle in handles:
                handle.remove()
            means.append(reduce_batch(kept, job.response_mask(batch)))
        save_means(folder, means, job)
        return 0.0

    return run


def load(folder: Path, job: Job) -> NDArray[np.float32]:  # noqa: ARG001
    """Means and mean magnitudes."""
    return load_means(folder)
