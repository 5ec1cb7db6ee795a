"""Recording: the moments of every FFN neuron, streamed from a forward of the decoder stack."""

from trimtab.recording.features import Features, batch_features, record_features
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
from trimtab.recording.tokens import prompt_traces, tokens_in

__all__ = [
    "INDEX",
    "Features",
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
    "record_features",
    "record_job",
    "record_prompts",
    "record_traces",
    "tokens_in",
]
