"""Recording: the moments of every FFN neuron, streamed from a forward of the decoder stack."""

from trimtab.recording.forward import record_batch
from trimtab.recording.read import INDEX, Recording
from trimtab.recording.record import RecordingSettings, record_prompts, record_traces

__all__ = ["INDEX", "Recording", "RecordingSettings", "record_batch", "record_prompts", "record_traces"]
