"""Nothing recorded: the forward of the decoder stack that no way can do without."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.speed.ways.job import Job, Pass
from trimtab.model import open_model


def prepare(hf_model: Path, job: Job) -> Pass:
    """The model opened; a pass forwards every batch."""
    model = open_model(hf_model)

    @torch.inference_mode()
    def run(folder: Path) -> float:  # noqa: ARG001
        for batch in job.batches:
            model.layout.base(input_ids=job.padded(batch, 0), use_cache=False)
        return 0.0

    return run


def load(folder: Path, job: Job) -> NDArray[np.float32]:
    """There is nothing to read."""
    raise NotImplementedError(f"a bare forward leaves nothing in {folder} of its {len(job.traces)} traces")
