"""The published way as it is described: a dump per token, a Python loop over the neurons in the hook, a batch of one."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.speed.ways.dump import dumping, neuron_by_neuron
from benchmarks.speed.ways.job import Job, Pass, load_means


def prepare(model: Path, job: Job) -> Pass:
    """Written from the description, not from anybody's code."""
    return dumping(model, job, neuron_by_neuron(job.loop_tokens))


def load(folder: Path, job: Job) -> NDArray[np.float32]:  # noqa: ARG001
    """Means and mean magnitudes."""
    return load_means(folder)
