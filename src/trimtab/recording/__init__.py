"""Recording: the moments of every FFN neuron, streamed from a forward of the decoder stack."""

from trimtab.recording.features import batch_features
from trimtab.recording.forward import record_batch
from trimtab.recording.record import (
    INDEX,
    Recording,
    RecordingSettings,
    RecordJob,
    StreamedParts,
    choose_traces,
    is_streamed,
    prompts_job,
    record_job,
    record_prompts,
    record_traces,
)
from trimtab.recording.tokens import prompt_traces

__all__ = [
    "INDEX",
    "RecordJob",
    "Recording",
    "RecordingSettings",
    "StreamedParts",
    "batch_features",
    "choose_traces",
    "is_streamed",
    "prompt_traces",
    "prompts_job",
    "record_batch",
    "record_job",
    "record_prompts",
    "record_traces",
]
