"""Sampling: chains of thought from a model, batched and resumable."""

from trimtab.sampling.generate import Generation, Request, generate_batch
from trimtab.sampling.imported import import_traces, read_labels
from trimtab.sampling.sample import plan_requests, read_traces, sample_traces
from trimtab.sampling.settings import SamplingSettings

__all__ = [
    "Generation",
    "Request",
    "SamplingSettings",
    "generate_batch",
    "import_traces",
    "plan_requests",
    "read_labels",
    "read_traces",
    "sample_traces",
]
