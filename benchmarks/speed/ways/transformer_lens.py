"""TransformerLens: ``run_with_cache`` of the inputs of every down projection."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.speed.ways.job import Job, Pass, load_means, reduce_batch, save_means

NEURONS = "mlp.out.hook_in"


def prepare(model: Path, job: Job) -> Pass:
    """The model as a bridge around the same transformers model."""
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    bridge = TransformerBridge.boot_transformers(
        str(model), hf_model=loaded, tokenizer=AutoTokenizer.from_pretrained(model), device="cpu", dtype=torch.float32
    )

    @torch.inference_mode()
    def run(folder: Path) -> float:
        means = []
        for batch in job.batches:
            _, cache = bridge.run_with_cache(job.padded(batch, 0), names_filter=lambda name: name.endswith(NEURONS))
            layers = [cache[f"blocks.{layer}.{NEURONS}"] for layer in range(loaded.config.num_hidden_layers)]
            means.append(reduce_batch(layers, job.response_mask(batch)))
        save_means(folder, means, job)
        return 0.0

    return run


def load(folder: Path, job: Job) -> NDArray[np.float32]:  # noqa: ARG001
    """Means and mean magnitudes."""
    return load_means(folder)
