"""Sampling: chains of thought from a model, batched and resumable."""

from trimtab.sampling.decoding import SamplingSettings
from trimtab.sampling.generate import Generation, Request, Way, generate_batch, way_of
from trimtab.sampling.generator import TRANSFORMERS, Generator, RecordedGenerations, TransformersGenerator
from trimtab.sampling.imported import import_traces, read_labels
from trimtab.sampling.sample import SampleJob, plan_requests, read_traces, sample_job, sample_traces
from trimtab.sampling.vllm_engine import VllmEngine, VllmOptions

__all__ = [
    "TRANSFORMERS",
    "Generation",
    "Generator",
    "RecordedGenerations",
    "Request",
    "SampleJob",
    "SamplingSettings",
    "TransformersGenerator",
    "VllmEngine",
    "VllmOptions",
    "Way",
    "generate_batch",
    "import_traces",
    "plan_requests",
    "read_labels",
    "read_traces",
    "sample_job",
    "sample_traces",
    "way_of",
]
