"""Sampling: chains of thought from a model, batched and resumable."""

from trimtab.sampling.batch import Request
from trimtab.sampling.decoding import SamplingSettings
from trimtab.sampling.generate import Generation, generate_batch
from trimtab.sampling.generator import TRANSFORMERS, Generator, RecordedGenerations, TransformersGenerator
from trimtab.sampling.imported import import_traces, read_labels
from trimtab.sampling.sample import SampleJob, plan_requests, read_traces, requests_of, sample_job, sample_traces
from trimtab.sampling.vllm_engine import VllmEngine, VllmOptions
from trimtab.sampling.ways import Way, way_of

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
    "requests_of",
    "sample_job",
    "sample_traces",
    "way_of",
]
