"""The verb ``record``: traces to moments on disk, in parts that a killed run keeps."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from trimtab.execution import LOCAL, Executor
from trimtab.model import LanguageModel
from trimtab.moments import MOMENTS, TokenScope
from trimtab.progress import Advance, Progress, silent
from trimtab.recording.forward import Recorded, start_batch
from trimtab.recording.read import INDEX, Recording
from trimtab.recording.tokens import n_forwarded, prompt_traces
from trimtab.recording.writing import in_background
from trimtab.store import AnyPath, Parts, Plan, make_plan, write_arrow
from trimtab.traces import Trace


class RecordingSettings(BaseModel):
    """``batch_tokens`` bounds rows x longest row of one forward; it is part of the stored plan."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scopes: tuple[TokenScope, ...] = ("response",)
    moments: tuple[str, ...] = ("sum", "magnitude")
    batch_tokens: int = Field(default=16_384, ge=1)


@dataclass(frozen=True)
class RecordJob:
    """One folder of moments. A part is written while the next one is computed, so the moments of two batches are in memory."""

    traces: Mapping[str, Trace]
    settings: RecordingSettings
    parts: Parts
    label: str = "record"

    @property
    def plan(self) -> Plan:
        return self.parts.plan

    def missing(self) -> list[int]:
        return self.parts.missing()

    def run(self, model: LanguageModel, parts: Iterable[int], advance: Advance) -> None:
        def write(part: int, batch: Sequence[Trace], collect: Callable[[], Recorded]) -> None:
            self.parts.write_tensors(part, tensors_of(collect()), {})
            advance(len(batch), sum(n_forwarded(trace) for trace in batch))

        with in_background() as start:
            for part in parts:
                batch = [self.traces[trace_id] for trace_id in self.plan.parts[part]]
                start(partial(write, part, batch, start_batch(model, batch, self.settings.scopes, self.settings.moments)))

    def finish(self) -> Recording:
        """Once every part is written: write the index, and open the recording."""
        rows = []
        for part, ids in enumerate(self.plan.parts):
            rows += [(trace_id, self.traces[trace_id].problem_id, part, row) for row, trace_id in enumerate(ids)]
        return write_index(self.parts.folder, rows)


def record_traces(
    model: LanguageModel,
    traces: Sequence[Trace],
    settings: RecordingSettings,
    folder: AnyPath,
    *,
    executor: Executor = LOCAL,
    progress: Progress = silent,
) -> Recording:
    """Record the moments of every neuron for every trace into ``folder``.

    Killed at any moment and called again, it goes on with the parts that are missing and ends with the same bytes.

    Raises:
        ConfigError: the folder holds parts of another plan.
        StoreError: a part cannot be written.
        InputError: a trace that cannot be recorded; what was recorded before stays.
    """
    job = record_job(model, traces, settings, folder)
    executor.run(model, [job], progress)
    return job.finish()


def record_job(
    model: LanguageModel, traces: Sequence[Trace], settings: RecordingSettings, folder: AnyPath, *, label: str = "record"
) -> RecordJob:
    """Plan what :func:`record_traces` does, store the plan, and record nothing yet."""
    lengths = [n_forwarded(trace) for trace in traces]
    plan = make_plan([trace.id for trace in traces], lengths, settings.batch_tokens, facts_of(model, settings))
    parts = Parts(folder, ".safetensors")
    parts.ensure_plan(plan)
    return RecordJob({trace.id: trace for trace in traces}, settings, parts, label)


def record_prompts(
    model: LanguageModel,
    prompts: dict[str, tuple[int, ...]],
    folder: AnyPath,
    *,
    scopes: tuple[TokenScope, ...] = ("last-prompt",),
    batch_tokens: int = 16_384,
    executor: Executor = LOCAL,
    progress: Progress = silent,
) -> Recording:
    """Record what a gate reads of each prompt: its last token (``last-prompt``), the mean of its tokens (``prompt``), or both.

    Keys are problem ids.
    """
    job = prompts_job(model, prompts, folder, scopes=scopes, batch_tokens=batch_tokens)
    executor.run(model, [job], progress)
    return job.finish()


def prompts_job(
    model: LanguageModel,
    prompts: dict[str, tuple[int, ...]],
    folder: AnyPath,
    *,
    scopes: tuple[TokenScope, ...] = ("last-prompt",),
    batch_tokens: int = 16_384,
    label: str = "record prompts",
) -> RecordJob:
    """Plan what :func:`record_prompts` does, store the plan, and record nothing yet."""
    settings = RecordingSettings(scopes=scopes, moments=("sum",), batch_tokens=batch_tokens)
    return record_job(model, prompt_traces(prompts), settings, folder, label=label)


def facts_of(model: LanguageModel, settings: RecordingSettings) -> dict[str, object]:
    """What decides the content of the parts beside their traces; for the plan."""
    return {
        "recording": settings.model_dump(mode="json"),
        "model": model.identity.fingerprint,
        "dtype": str(model.hf_model.dtype),
        "tokenizer": model.tokenizer_fingerprint,
    }


def tensors_of(recorded: Recorded) -> dict[str, np.ndarray]:
    """What a part holds: ``SCOPE.count``, ``SCOPE.MOMENT``, and for experts ``SCOPE.tokens``."""
    tensors: dict[str, np.ndarray] = {}
    for scope, moments in recorded.items():
        tensors[f"{scope}.count"] = moments.count
        for name in (*MOMENTS, "tokens"):
            array = getattr(moments, name)
            if array is not None:
                tensors[f"{scope}.{name}"] = array
    return tensors


def write_index(folder: AnyPath, rows: Sequence[tuple[str, str, int, int]]) -> Recording:
    """Name the traces that count, as ``(trace, problem, part, row)``; that makes the parts a recording."""
    columns = map(list, zip(*rows, strict=True))
    write_arrow(folder / INDEX, pa.table(dict(zip(("trace_id", "problem_id", "part", "row"), columns, strict=True))))
    return Recording(folder)
