"""Ours: ``record``."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.speed.ways.job import Job, Pass
from trimtab.model import open_model
from trimtab.recording import Recording, RecordingSettings, record_traces
from trimtab.traces import Trace


def prepare(hf_model: Path, job: Job) -> Pass:
    """The model opened; a pass records."""
    model = open_model(hf_model)
    traces = [Trace(f"t{i}", f"t{i}", 0, t.prompt, t.response, "", "stop") for i, t in enumerate(job.traces)]
    settings = RecordingSettings(batch_tokens=job.batch_tokens)

    def run(folder: Path) -> float:
        record_traces(model, traces, settings, folder)
        return 0.0

    return run


def load(folder: Path, job: Job) -> NDArray[np.float32]:
    """Means and mean magnitudes."""
    rows = {}
    for ids, moments in Recording(folder).stream("response"):
        rows.update(zip(ids, zip(moments.mean(), moments.mean_magnitude(), strict=True), strict=True))
    return np.stack([np.stack(rows[f"t{i}"]) for i in range(len(job.traces))], 1)
