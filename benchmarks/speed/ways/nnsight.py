"""nnsight: the inputs of every down projection, saved in a trace."""

from pathlib import Path

import numpy as np
import torch
from nnsight import TransformersModel
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.speed.ways.job import Job, Pass, load_means, reduce_batch, save_means


def prepare(model: Path, job: Job) -> Pass:
    """The same transformers model, wrapped."""
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    wrapped = TransformersModel(loaded, tokenizer=AutoTokenizer.from_pretrained(model), task="text-generation")

    @torch.inference_mode()
    def run(folder: Path) -> float:
        means = []
        for batch in job.batches:
            ids = job.padded(batch, 0)
            saved = []
            with wrapped.trace({"input_ids": ids}):
                for layer in wrapped.model.layers:
                    saved.append(layer.mlp.down_proj.input.save())
            means.append(reduce_batch(saved, job.response_mask(batch)))
        save_means(folder, means, job)
        return 0.0

    return run


def load(folder: Path, job: Job) -> NDArray[np.float32]:  # noqa: ARG001
    """Means and mean magnitudes."""
    return load_means(folder)
